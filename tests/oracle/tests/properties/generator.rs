//! The generator: repeatable, valid, and rich enough to catch a wrong reading.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weir_oracle::generate::{cluster, flows};
use weir_oracle::{
    Cluster, ClusterAction, ClusterPeer, ClusterPolicySpec, ClusterProtocol, ClusterSubject,
    ClusterTier, DirectionVerdict, addresses, judge, on_pod_network, owner, parse_network,
    protocol,
};

const SEEDS: std::ops::Range<u64> = 0..300;

#[test]
fn a_seed_is_a_cluster_and_its_flows() {
    for seed in [0, 1, 77] {
        assert_eq!(cluster(seed), cluster(seed));
        assert_eq!(flows(&cluster(seed)), flows(&cluster(seed)));
    }
    assert_ne!(cluster(1), cluster(2));
}

/// Peers and ports of a rule of either direction.
type Rule = (
    Option<Vec<NetworkPolicyPeer>>,
    Option<Vec<NetworkPolicyPort>>,
);

fn rules(cluster: &Cluster) -> Vec<Rule> {
    let specs = cluster
        .policies
        .iter()
        .filter_map(|policy| policy.spec.clone());
    specs
        .flat_map(|spec| {
            let ingress = spec
                .ingress
                .into_iter()
                .flatten()
                .map(|rule| (rule.from, rule.ports));
            ingress
                .chain(
                    spec.egress
                        .into_iter()
                        .flatten()
                        .map(|rule| (rule.to, rule.ports)),
                )
                .collect::<Vec<_>>()
        })
        .collect()
}

fn blocks(cluster: &Cluster) -> Vec<IPBlock> {
    rules(cluster)
        .into_iter()
        .flat_map(|(peers, _)| peers.unwrap_or_default())
        .filter_map(|peer| peer.ip_block)
        .collect()
}

#[test]
fn an_api_server_would_take_every_object() {
    for seed in SEEDS {
        let cluster = cluster(seed);
        let names = |list: Vec<(Option<String>, Option<String>)>| {
            assert_eq!(
                list.iter().collect::<BTreeSet<_>>().len(),
                list.len(),
                "seed {seed}: names are unique"
            );
        };
        names(
            cluster
                .pods
                .iter()
                .map(|pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone()))
                .collect(),
        );
        names(
            cluster
                .policies
                .iter()
                .map(|policy| {
                    (
                        policy.metadata.namespace.clone(),
                        policy.metadata.name.clone(),
                    )
                })
                .collect(),
        );
        for block in blocks(&cluster) {
            let outer = parse_network(&block.cidr).expect("a CIDR");
            for except in block.except.iter().flatten() {
                let inner = parse_network(except).expect("a CIDR");
                assert!(
                    outer.contains(inner.network()) && inner.prefix() > outer.prefix(),
                    "seed {seed}: {block:?}"
                );
            }
        }
        let mut priorities = BTreeSet::new();
        for ClusterPolicySpec {
            tier,
            priority,
            ingress,
            egress,
            ..
        } in cluster.cluster_policies.iter().map(|policy| &policy.spec)
        {
            assert!((0..=1000).contains(priority) && priorities.insert((*tier, *priority)));
            assert!(ingress.iter().all(|rule| !rule.from.is_empty()));
            for rule in egress {
                let pods = |peer: &ClusterPeer| {
                    !matches!(
                        peer,
                        ClusterPeer::Nodes(_)
                            | ClusterPeer::Networks(_)
                            | ClusterPeer::DomainNames(_)
                    )
                };
                let named = rule
                    .protocols
                    .iter()
                    .any(|wanted| matches!(wanted, ClusterProtocol::DestinationNamedPort(_)));
                assert!(!rule.to.is_empty() && (!named || rule.to.iter().all(pods)));
            }
        }
        for (peers, ports) in rules(&cluster) {
            for peer in peers.iter().flatten() {
                let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
                assert_ne!(peer.ip_block.is_some(), selects, "seed {seed}: {peer:?}");
            }
            for port in ports.iter().flatten() {
                let valid = match (&port.port, port.end_port) {
                    (Some(IntOrString::Int(first)), last) => {
                        *first > 0 && last.is_none_or(|last| last >= *first)
                    }
                    (_, last) => last.is_none(),
                };
                assert!(valid, "seed {seed}: {port:?}");
            }
        }
    }
}

/// Whether a cluster has each of the special things that a reading could get wrong.
fn features(cluster: &Cluster) -> BTreeMap<&'static str, bool> {
    let mut found = BTreeMap::new();
    let mut note = |name, holds: bool| *found.entry(name).or_default() |= holds;
    note("no policies", cluster.policies.is_empty());
    for policy in &cluster.policies {
        let spec = policy.spec.clone().unwrap_or_default();
        note("no podSelector", spec.pod_selector.is_none());
        note("no policyTypes", spec.policy_types.is_none());
        note(
            "empty policyTypes",
            spec.policy_types.as_ref().is_some_and(Vec::is_empty),
        );
        note(
            "empty egress, no policyTypes",
            spec.policy_types.iter().flatten().count() == 0
                && spec.egress.as_ref().is_some_and(Vec::is_empty),
        );
        note("no ingress", spec.ingress.is_none());
        note(
            "empty ingress",
            spec.ingress.as_ref().is_some_and(Vec::is_empty),
        );
        let egress_only = spec.policy_types.as_deref() == Some(&["Egress".to_owned()]);
        note(
            "ignored rules",
            egress_only && spec.ingress.is_some_and(|rules| !rules.is_empty()),
        );
        let twins = cluster
            .policies
            .iter()
            .filter(|other| other.metadata.name == policy.metadata.name);
        note("policies of one name", twins.count() > 1);
    }
    for (peers, ports) in rules(cluster) {
        note("no peers", peers.is_none());
        note("empty peers", peers.as_ref().is_some_and(Vec::is_empty));
        note("no ports", ports.is_none());
        note("empty ports", ports.as_ref().is_some_and(Vec::is_empty));
        for peer in peers.iter().flatten() {
            note(
                "both selectors",
                peer.pod_selector.is_some() && peer.namespace_selector.is_some(),
            );
            note(
                "namespaceSelector alone",
                peer.pod_selector.is_none() && peer.namespace_selector.is_some(),
            );
            note(
                "podSelector alone",
                peer.pod_selector.is_some() && peer.namespace_selector.is_none(),
            );
        }
        for port in ports.iter().flatten() {
            note(
                "port name",
                matches!(port.port, Some(IntOrString::String(_))),
            );
            note("range", port.end_port.is_some());
            note(
                "protocol alone",
                port.port.is_none() && port.protocol.is_some(),
            );
            note("SCTP", port.protocol.as_deref() == Some("SCTP"));
        }
    }
    for block in blocks(cluster) {
        let network = parse_network(&block.cidr).expect("a CIDR");
        note(
            "CIDR with host bits or zeros",
            network.to_string() != block.cidr,
        );
        note("IPv6 block", network.is_ipv6());
        note("everything", network.prefix() == 0);
        note("one address", network.is_ipv4() && network.prefix() == 32);
        let holes: Vec<_> = block
            .except
            .iter()
            .flatten()
            .filter_map(|cidr| parse_network(cidr))
            .collect();
        let nested = |hole: &IpNetwork| {
            holes
                .iter()
                .any(|other| other != hole && other.contains(hole.network()))
        };
        note("hole", !holes.is_empty());
        note("nested holes", holes.iter().any(nested));
    }
    cluster_features(cluster, &mut note);
    let shown: Vec<IpAddr> = cluster
        .pods
        .iter()
        .filter(|pod| on_pod_network(pod))
        .flat_map(addresses)
        .collect();
    note(
        "one address, two live pods",
        shown.iter().collect::<BTreeSet<_>>().len() < shown.len(),
    );
    for pod in &cluster.pods {
        let host = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        let over = !host && !on_pod_network(pod);
        note("host network", host);
        note("over", over);
        note(
            "over, address reused",
            over && addresses(pod)
                .iter()
                .any(|address| owner(cluster, *address).is_some()),
        );
        note("terminating", pod.metadata.deletion_timestamp.is_some());
        note("no address", addresses(pod).is_empty());
        note("one family", addresses(pod).len() == 1);
        note("no labels", pod.metadata.labels.is_none());
        let inits = pod
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten());
        for init in inits {
            note("sidecar", init.restart_policy.is_some());
            note("init container", init.restart_policy.is_none());
        }
        let namespaces = || {
            cluster
                .namespaces
                .iter()
                .filter_map(|namespace| namespace.metadata.name.as_deref())
        };
        note(
            "unseen namespace",
            !namespaces().any(|name| Some(name) == pod.metadata.namespace.as_deref()),
        );
    }
    found
}

fn cluster_features(cluster: &Cluster, note: &mut impl FnMut(&'static str, bool)) {
    note("no cluster policies", cluster.cluster_policies.is_empty());
    for policy in &cluster.cluster_policies {
        let spec = &policy.spec;
        note("admin tier", spec.tier == ClusterTier::Admin);
        note("baseline tier", spec.tier == ClusterTier::Baseline);
        note(
            "subject of namespaces",
            matches!(spec.subject, ClusterSubject::Namespaces(_)),
        );
        note(
            "subject of pods",
            matches!(spec.subject, ClusterSubject::Pods(_)),
        );
        let ingress = spec
            .ingress
            .iter()
            .map(|rule| (rule.action, &rule.from, &rule.protocols));
        let egress = spec
            .egress
            .iter()
            .map(|rule| (rule.action, &rule.to, &rule.protocols));
        for (action, peers, protocols) in ingress.chain(egress) {
            note("accept", action == ClusterAction::Accept);
            note("deny", action == ClusterAction::Deny);
            note("pass", action == ClusterAction::Pass);
            note("every protocol", protocols.is_empty());
            for peer in peers {
                note("nodes", matches!(peer, ClusterPeer::Nodes(_)));
                note("networks", matches!(peer, ClusterPeer::Networks(_)));
                note("domain names", matches!(peer, ClusterPeer::DomainNames(_)));
                note("unknown peer", matches!(peer, ClusterPeer::Unknown(_)));
            }
            for protocol in protocols {
                note(
                    "port name, any protocol",
                    matches!(protocol, ClusterProtocol::DestinationNamedPort(_)),
                );
                note(
                    "unknown protocol",
                    matches!(protocol, ClusterProtocol::Unknown(_)),
                );
            }
        }
    }
    let shared = |tier| {
        let policies = cluster.cluster_policies.iter();
        policies.filter(|policy| policy.spec.tier == tier).count() > 1
    };
    note(
        "priorities in a tier",
        shared(ClusterTier::Admin) || shared(ClusterTier::Baseline),
    );
}

#[test]
fn every_special_case_comes_up_often() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in SEEDS {
        for (name, holds) in features(&cluster(seed)) {
            *seen.entry(name).or_default() += usize::from(holds);
        }
    }
    assert!(
        seen.values()
            .all(|&clusters| clusters >= SEEDS.count() / 50),
        "{seen:#?}"
    );
}

#[test]
fn isolated_pods_are_denied_and_allowed_about_as_often() {
    for egress in [true, false] {
        let (mut allowed, mut isolated, mut judged) = (0, 0, 0);
        for seed in SEEDS.take(100) {
            let cluster = cluster(seed);
            for flow in flows(&cluster) {
                let judgement = judge(&cluster, &flow);
                let verdict: Option<DirectionVerdict> = if egress {
                    judgement.egress
                } else {
                    judgement.ingress
                };
                let Some(verdict) = verdict else { continue };
                judged += 1;
                isolated += usize::from(!verdict.isolating.is_empty());
                allowed += usize::from(!verdict.isolating.is_empty() && verdict.allowed);
            }
        }
        assert!(
            (30..80).contains(&(isolated * 100 / judged)),
            "egress {egress}: {isolated} of {judged} isolated"
        );
        assert!(
            (25..75).contains(&(allowed * 100 / isolated)),
            "egress {egress}: {allowed} of {isolated} allowed"
        );
    }
}

/// First and last address of a network, and their neighbours outside.
fn borders(network: IpNetwork) -> Vec<IpAddr> {
    match (network.network(), network.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let bits = [
                first.to_bits().saturating_sub(1),
                first.to_bits(),
                last.to_bits(),
                last.to_bits().saturating_add(1),
            ];
            bits.map(|bits| Ipv4Addr::from_bits(bits).into()).to_vec()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let bits = [
                first.to_bits().saturating_sub(1),
                first.to_bits(),
                last.to_bits(),
                last.to_bits().saturating_add(1),
            ];
            bits.map(|bits| Ipv6Addr::from_bits(bits).into()).to_vec()
        }
        (first, last) => vec![first, last],
    }
}

#[test]
fn flows_touch_both_sides_of_every_border() {
    for seed in SEEDS.take(100) {
        let cluster = cluster(seed);
        let flows = flows(&cluster);
        let ends: BTreeSet<IpAddr> = flows
            .iter()
            .flat_map(|flow| [flow.source, flow.destination])
            .collect();
        let live = || {
            cluster
                .pods
                .iter()
                .filter(|pod| on_pod_network(pod))
                .flat_map(addresses)
        };
        for cidr in blocks(&cluster)
            .iter()
            .flat_map(|block| std::iter::once(&block.cidr).chain(block.except.iter().flatten()))
        {
            let network = parse_network(cidr).expect("a CIDR");
            if live().any(|address| address.is_ipv4() == network.is_ipv4()) {
                let borders = borders(network);
                assert!(
                    borders.iter().all(|border| ends.contains(border)),
                    "seed {seed}: {network} {borders:?}"
                );
            }
        }
    }
    let all: Vec<_> = SEEDS
        .take(20)
        .flat_map(|seed| flows(&cluster(seed)))
        .collect();
    for number in [
        protocol::TCP,
        protocol::UDP,
        protocol::SCTP,
        protocol::ICMP,
        protocol::ICMPV6,
        protocol::GRE,
    ] {
        assert!(
            all.iter().any(|flow| flow.protocol == number),
            "protocol {number}"
        );
    }
    for port in [
        0, 1, 2, 52, 53, 54, 79, 80, 81, 8079, 8080, 8081, 8443, 8444, 65534, 65535,
    ] {
        assert!(
            all.iter()
                .any(|flow| flow.protocol == protocol::TCP && flow.destination_port == port),
            "port {port}"
        );
    }
    assert!(all.iter().any(|flow| flow.born_on_node));
    assert!(
        all.iter()
            .all(|flow| flow.source.is_ipv4() == flow.destination.is_ipv4())
    );
}
