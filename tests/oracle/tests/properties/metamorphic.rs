//! Changes to a cluster that must not change its verdicts, or only one way.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicySpec,
};
use weir_oracle::generate::{cluster, flows};
use weir_oracle::{
    Cluster, ClusterAction, ClusterPeer, Decider, DirectionVerdict, Flow, addresses, judge, owner,
    parse_network, selects,
};

const SEEDS: std::ops::Range<u64> = 0..120;

/// The allowed bits of both ends: what must survive where lists and indexes may not.
fn allowed(cluster: &Cluster, flow: &Flow) -> [Option<bool>; 2] {
    let judgement = judge(cluster, flow);
    [judgement.egress, judgement.ingress].map(|verdict| verdict.map(|verdict| verdict.allowed))
}

/// Checks that `change` leaves every verdict on every flow of every cluster as it was.
pub(crate) fn verdicts_survive(change: impl Fn(&mut Cluster)) {
    let mut changed = 0;
    for seed in SEEDS {
        let before = cluster(seed);
        let mut after = before.clone();
        change(&mut after);
        changed += usize::from(after != before);
        for flow in flows(&before) {
            assert_eq!(
                allowed(&before, &flow),
                allowed(&after, &flow),
                "seed {seed}, {flow:?}"
            );
        }
    }
    assert!(
        changed > SEEDS.count() / 8,
        "the change must change clusters: {changed}"
    );
}

fn specs(cluster: &mut Cluster) -> impl Iterator<Item = &mut NetworkPolicySpec> {
    cluster
        .policies
        .iter_mut()
        .filter_map(|policy| policy.spec.as_mut())
}

fn peer_lists(spec: &mut NetworkPolicySpec) -> impl Iterator<Item = &mut Vec<NetworkPolicyPeer>> {
    let from = spec
        .ingress
        .iter_mut()
        .flatten()
        .filter_map(|rule| rule.from.as_mut());
    from.chain(
        spec.egress
            .iter_mut()
            .flatten()
            .filter_map(|rule| rule.to.as_mut()),
    )
}

#[test]
fn order_does_not_matter() {
    verdicts_survive(|cluster| {
        cluster.policies.reverse();
        cluster.pods.reverse();
        cluster.namespaces.reverse();
        cluster.nodes.reverse();
        for spec in specs(cluster) {
            for peers in peer_lists(spec) {
                peers.reverse();
                for except in peers
                    .iter_mut()
                    .filter_map(|peer| peer.ip_block.as_mut()?.except.as_mut())
                {
                    except.reverse();
                }
            }
            if let Some(rules) = &mut spec.ingress {
                rules.reverse();
                rules
                    .iter_mut()
                    .filter_map(|rule| rule.ports.as_mut())
                    .for_each(|ports| ports.reverse());
            }
            if let Some(rules) = &mut spec.egress {
                rules.reverse();
                rules
                    .iter_mut()
                    .filter_map(|rule| rule.ports.as_mut())
                    .for_each(|ports| ports.reverse());
            }
        }
    });
}

#[test]
fn a_cidr_means_the_network_it_lies_in() {
    verdicts_survive(|cluster| {
        let canonical =
            |cidr: &mut String| *cidr = parse_network(cidr).expect("a generated CIDR").to_string();
        for spec in specs(cluster) {
            for block in peer_lists(spec)
                .flatten()
                .filter_map(|peer| peer.ip_block.as_mut())
            {
                canonical(&mut block.cidr);
                block.except.iter_mut().flatten().for_each(canonical);
            }
        }
    });
}

/// What `policyTypes` says or, if it says nothing, defaults to: ingress, egress.
fn types(spec: &NetworkPolicySpec) -> [bool; 2] {
    match spec.policy_types.as_deref() {
        None | Some([]) => [
            true,
            spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        ],
        Some(types) => ["Ingress", "Egress"].map(|name| types.iter().any(|found| found == name)),
    }
}

#[test]
fn a_policy_equals_its_rules_each_in_a_policy_of_its_own() {
    verdicts_survive(|cluster| {
        let mut split = Vec::new();
        for policy in &cluster.policies {
            let spec = policy.spec.clone().unwrap_or_default();
            let [ingress, egress] = types(&spec);
            let mut add = |types: &[(&str, bool)],
                           ingress: Option<NetworkPolicyIngressRule>,
                           egress: Option<NetworkPolicyEgressRule>| {
                let mut part = policy.clone();
                let named = types
                    .iter()
                    .filter(|(_, holds)| *holds)
                    .map(|(name, _)| (*name).to_owned());
                part.metadata.name = Some(format!(
                    "{}-{}",
                    policy.metadata.name.as_deref().unwrap_or(""),
                    split.len()
                ));
                part.spec = Some(NetworkPolicySpec {
                    pod_selector: spec.pod_selector.clone(),
                    policy_types: Some(named.collect()),
                    ingress: ingress.map(|rule| vec![rule]),
                    egress: egress.map(|rule| vec![rule]),
                });
                split.push(part);
            };
            add(&[("Ingress", ingress), ("Egress", egress)], None, None);
            for rule in spec.ingress.iter().flatten().filter(|_| ingress) {
                add(&[("Ingress", true)], Some(rule.clone()), None);
            }
            for rule in spec.egress.iter().flatten().filter(|_| egress) {
                add(&[("Egress", true)], None, Some(rule.clone()));
            }
        }
        cluster.policies = split;
    });
}

#[test]
fn another_rule_takes_nothing_from_an_isolated_pod() {
    let mut opened = 0;
    for seed in SEEDS {
        let before = cluster(seed);
        let mut after = before.clone();
        let stranger = cluster(seed + 1_000_000);
        let mut rules = stranger
            .policies
            .iter()
            .filter_map(|policy| policy.spec.as_ref())
            .cycle();
        for spec in specs(&mut after) {
            let Some(donor) = rules.next() else { break };
            let [ingress, egress] = types(spec);
            if ingress {
                spec.ingress
                    .get_or_insert_default()
                    .extend(donor.ingress.clone().unwrap_or_default());
            }
            if egress {
                spec.egress
                    .get_or_insert_default()
                    .extend(donor.egress.clone().unwrap_or_default());
            }
        }
        for flow in flows(&before) {
            let (old, new) = (judge(&before, &flow), judge(&after, &flow));
            for (old, new) in [(old.egress, new.egress), (old.ingress, new.ingress)] {
                let (Some(old), Some(new)) = (old, new) else {
                    continue;
                };
                assert_eq!(old.isolating, new.isolating, "seed {seed}, {flow:?}");
                assert!(
                    new.allowed || !old.allowed,
                    "seed {seed}, {flow:?} was allowed by {:?}",
                    old.allowing
                );
                opened += usize::from(new.allowed && !old.allowed);
            }
        }
    }
    assert!(opened > 1000, "the rules must open something: {opened}");
}

#[test]
fn selectors_alone_treat_both_families_alike() {
    let mut compared = 0;
    for seed in SEEDS {
        let mut cluster = cluster(seed);
        for spec in specs(&mut cluster) {
            for peers in peer_lists(spec) {
                peers.retain(|peer| peer.ip_block.is_none());
            }
        }
        for policy in &mut cluster.cluster_policies {
            for rule in &mut policy.spec.egress {
                rule.to
                    .retain(|peer| !matches!(peer, ClusterPeer::Networks(_)));
            }
        }
        for flow in flows(&cluster) {
            let twin = |address| {
                owner(&cluster, address).and_then(|pod| other_family(&cluster, pod, address))
            };
            let (Some(source), Some(destination)) = (twin(flow.source), twin(flow.destination))
            else {
                continue;
            };
            let other = Flow {
                source,
                destination,
                ..flow.clone()
            };
            assert_eq!(
                judge(&cluster, &flow),
                judge(&cluster, &other),
                "seed {seed}, {flow:?}"
            );
            compared += 1;
        }
    }
    assert!(compared > 1000, "pods must have both families: {compared}");
}

/// The address of the other family that this pod owns.
fn other_family(cluster: &Cluster, pod: &Pod, address: IpAddr) -> Option<IpAddr> {
    let mut others = addresses(pod)
        .into_iter()
        .filter(|other| other.is_ipv4() != address.is_ipv4());
    others.find(|other| owner(cluster, *other).is_some_and(|owner| std::ptr::eq(owner, pod)))
}

#[test]
fn a_selector_equals_the_addresses_of_the_pods_it_picks() {
    verdicts_survive(|cluster| {
        let world = cluster.clone();
        for policy in &mut cluster.policies {
            let own = policy.metadata.namespace.clone();
            let Some(spec) = &mut policy.spec else {
                continue;
            };
            for peers in peer_lists(spec) {
                *peers = peers
                    .iter()
                    .flat_map(|peer| as_blocks(&world, own.as_deref(), peer))
                    .collect();
            }
        }
    });
}

fn as_blocks(
    cluster: &Cluster,
    own: Option<&str>,
    peer: &NetworkPolicyPeer,
) -> Vec<NetworkPolicyPeer> {
    if peer.ip_block.is_some() {
        return vec![peer.clone()];
    }
    let picked = |pod: &Pod| {
        let namespace = pod.metadata.namespace.as_deref();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let right_namespace = match &peer.namespace_selector {
            None => namespace == own,
            Some(selector) => cluster.namespaces.iter().any(|found| {
                let mut labels = found.metadata.labels.clone().unwrap_or_default();
                let name = found.metadata.name.clone().unwrap_or_default();
                labels.insert("kubernetes.io/metadata.name".to_owned(), name);
                found.metadata.name.as_deref() == namespace && selects(selector, &labels)
            }),
        };
        right_namespace
            && peer
                .pod_selector
                .as_ref()
                .is_none_or(|selector| selects(selector, &labels))
    };
    let owned = |address: &IpAddr| owner(cluster, *address).is_some_and(picked);
    let mut found: Vec<IpAddr> = cluster
        .pods
        .iter()
        .flat_map(addresses)
        .filter(owned)
        .collect();
    if found.is_empty() {
        // No peer at all would mean everybody; nobody has this address.
        found.push(IpAddr::from([192, 0, 2, 255]));
    }
    let block = |address: IpAddr| IPBlock {
        cidr: format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }),
        except: None,
    };
    let blocks = found.into_iter().map(block);
    blocks
        .map(|block| NetworkPolicyPeer {
            ip_block: Some(block),
            ..NetworkPolicyPeer::default()
        })
        .collect()
}

#[test]
fn a_verdict_follows_from_what_it_names() {
    for seed in SEEDS {
        let cluster = cluster(seed);
        for flow in flows(&cluster) {
            let judgement = judge(&cluster, &flow);
            for verdict in [judgement.egress, judgement.ingress].into_iter().flatten() {
                let decided = verdict.decider();
                let DirectionVerdict {
                    allowed,
                    admin,
                    isolating,
                    allowing,
                    baseline,
                    exempt,
                } = verdict;
                let passes = match &decided {
                    Decider::Rule(rule) => {
                        assert!(
                            admin.as_ref() == Some(rule)
                                || isolating.is_empty() && baseline.as_ref() == Some(rule),
                            "seed {seed}: {rule:?}"
                        );
                        rule.action == ClusterAction::Accept
                    }
                    Decider::NetworkPolicies => !isolating.is_empty() && !allowing.is_empty(),
                    Decider::Nobody => isolating.is_empty(),
                };
                assert_eq!(allowed, exempt.is_some() || passes, "seed {seed}");
                assert!(
                    allowing.iter().all(|rule| isolating.contains(&rule.policy)),
                    "seed {seed}"
                );
                assert!(isolating.is_sorted() && allowing.is_sorted(), "seed {seed}");
            }
        }
    }
}
