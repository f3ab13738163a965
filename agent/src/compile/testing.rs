//! Objects for tests: short constructors, and random snapshots in which selectors, blocks and ports often meet.

mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub(crate) use self::services::serve;
use self::services::services;
use crate::model::{
    Action, ClusterPolicy, ClusterRule, ContainerPort, Labels, Namespace, Node, ObjectName,
    Operator, Peer, Pod, PodDevice, Policy, PolicyPort, PortMatch, Protocol, Requirement, Rule,
    Selector, Snapshot, Tier,
};

/// The node that test snapshots are seen from.
pub(crate) const NODE: &str = "here";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// matchLabels.
pub(crate) fn selector(pairs: &[(&str, &str)]) -> Selector {
    let requirement = |(key, value): &(&str, &str)| Requirement {
        key: (*key).to_owned(),
        operator: Operator::In([(*value).to_owned()].into()),
    };
    Selector {
        requirements: pairs.iter().map(requirement).collect(),
    }
}

/// A live pod on `NODE`.
pub(crate) fn pod(namespace: &str, name: &str, app: &str, address: &str) -> Pod {
    Pod {
        name: ObjectName::new(namespace, name),
        uid: format!("{namespace}/{name}"),
        mirrors: None,
        scraped: None,
        labels: labels(&[("app", app)]),
        ips: vec![ip(address)],
        host_network: false,
        terminal: false,
        node: NODE.to_owned(),
        ports: Vec::new(),
        created: 0,
    }
}

/// A policy without rules that isolates nothing.
pub(crate) fn policy(namespace: &str, name: &str, pods: Selector) -> Policy {
    Policy {
        name: ObjectName::new(namespace, name),
        uid: String::new(),
        labels: [].into(),
        pod_selector: pods,
        ingress: None,
        egress: None,
    }
}

pub(crate) fn port(protocol: Protocol, port: PortMatch) -> PolicyPort {
    PolicyPort { protocol, port }
}

/// Changes every object of a kind.
pub(crate) fn edit<K: Ord + Clone, V: Clone>(
    objects: &mut OrdMap<K, Arc<V>>,
    mut change: impl FnMut(&mut V),
) {
    let changed = objects.iter().map(|(name, object)| {
        let mut object = V::clone(object);
        change(&mut object);
        (name.clone(), Arc::new(object))
    });
    *objects = changed.collect();
}

/// A snapshot with namespaces `a` and `b` (label `name`).
pub(crate) fn snapshot(pods: Vec<Pod>, policies: Vec<Policy>) -> Snapshot {
    Snapshot {
        node_name: NODE.to_owned(),
        namespaces: ["a", "b"].map(namespace).into_iter().collect(),
        pods: pods
            .into_iter()
            .map(|pod| (pod.name.clone(), Arc::new(pod)))
            .collect(),
        policies: policies
            .into_iter()
            .map(|policy| (policy.name.clone(), Arc::new(policy)))
            .collect(),
        ..Snapshot::default()
    }
}

fn namespace(name: &str) -> (String, Arc<Namespace>) {
    let namespace = Namespace {
        name: name.to_owned(),
        labels: labels(&[("name", name)]),
    };
    (name.to_owned(), Arc::new(namespace))
}

/// Addresses that random snapshots speak of, and some beside them.
pub(crate) const PEERS: [&str; 14] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.0.5",
    "10.0.0.9",
    "10.0.1.1",
    "192.0.2.1",
    "fd00::1",
    "fd00::2",
    "fd00::3",
    "fd00::9",
    "2001:db8::1",
    "::1",
];

const BLOCKS: [&str; 11] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.2/31",
    "10.0.0.3/32",
    "192.0.2.0/24",
    "::/0",
    "fd00::/8",
    "fd00::/64",
    "fd00::2/127",
    "fd00::2/128",
];

/// Addresses at which the Services of random snapshots are met, beside their cluster IPs and the nodes' addresses.
pub(crate) const EXPOSED: [&str; 4] = ["10.0.2.2", "172.20.0.1", "198.51.100.1", "2001:db8::9"];

/// Protocols and ports at which random policies begin or end.
pub(crate) const PORTS: [(u8, u16); 9] = [
    (6, 79),
    (6, 80),
    (6, 81),
    (6, 8080),
    (17, 53),
    (17, 80),
    (132, 80),
    (1, 0),
    (255, 65535),
];

fn selectors() -> impl Strategy<Value = Selector> {
    let values = || subsequence(vec!["a".to_owned(), "b".to_owned()], 0..=2);
    let operator = prop_oneof![
        3 => values().prop_map(|values| Operator::In(values.into_iter().collect())),
        1 => values().prop_map(|values| Operator::NotIn(values.into_iter().collect())),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ];
    let requirement =
        (select(vec!["app", "name"]), operator).prop_map(|(key, operator)| Requirement {
            key: key.to_owned(),
            operator,
        });
    vec(requirement, 0..3).prop_map(|requirements| Selector { requirements })
}

fn peers() -> impl Strategy<Value = Peer> {
    let block =
        (select(BLOCKS.to_vec()), subsequence(BLOCKS.to_vec(), 0..3)).prop_map(|(cidr, except)| {
            let cidr: ipnetwork::IpNetwork = cidr.parse().unwrap();
            let inside = |hole: &ipnetwork::IpNetwork| {
                hole.prefix() > cidr.prefix()
                    && hole.is_ipv4() == cidr.is_ipv4()
                    && cidr.contains(hole.network())
            };
            Peer::Block {
                cidr,
                except: except
                    .iter()
                    .map(|hole| hole.parse().unwrap())
                    .filter(inside)
                    .collect(),
            }
        });
    prop_oneof![
        (of(selectors()), selectors()).prop_map(|(namespaces, pods)| Peer::Pods {
            namespaces,
            pods: Some(pods)
        }),
        selectors().prop_map(|namespaces| Peer::Pods {
            namespaces: Some(namespaces),
            pods: None
        }),
        block,
    ]
}

fn protocols() -> impl Strategy<Value = Protocol> {
    select(Protocol::ALL.to_vec())
}

fn rules() -> impl Strategy<Value = Rule> {
    let number = prop_oneof![
        Just(PortMatch::All),
        (select(vec![53_u16, 80, 81]), 0_u16..8100)
            .prop_map(|(first, more)| PortMatch::Range(first, first + more)),
        select(vec!["http", "dns"]).prop_map(|name| PortMatch::Named(name.to_owned())),
    ];
    let port = (protocols(), number).prop_map(|(protocol, port)| PolicyPort { protocol, port });
    (vec(peers(), 0..3), vec(port, 0..3)).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn names() -> impl Strategy<Value = ObjectName> {
    (select(vec!["a", "b"]), 0..4_u8)
        .prop_map(|(namespace, name)| ObjectName::new(namespace, format!("n{name}")))
}

fn policies() -> impl Strategy<Value = BTreeMap<ObjectName, Arc<Policy>>> {
    let rules = || of(vec(rules(), 0..3));
    let policy = (names(), selectors(), rules(), rules());
    vec(policy, 0..5).prop_map(|policies| {
        let named = policies
            .into_iter()
            .map(|(name, pod_selector, ingress, egress)| {
                (
                    name.clone(),
                    Arc::new(Policy {
                        name,
                        uid: String::new(),
                        labels: [].into(),
                        pod_selector,
                        ingress,
                        egress,
                    }),
                )
            });
        named.collect()
    })
}

fn pods() -> impl Strategy<Value = BTreeMap<ObjectName, Arc<Pod>>> {
    let container = (
        select(vec!["http", "dns"]),
        protocols(),
        select(vec![53_u16, 80, 8080]),
    );
    let pod = (
        names(),
        btree_map(
            select(vec!["app".to_owned(), "name".to_owned()]),
            select(vec!["a".to_owned(), "b".to_owned()]),
            0..3,
        ),
        (1..6_u8, 0..4_u8),
        select(vec![NODE, NODE, NODE, "there"]),
        vec(container, 0..3),
        (0..8_u8, 0..3_i64),
    );
    vec(pod, 0..7).prop_map(|pods| {
        let named =
            pods.into_iter()
                .map(|(name, labels, (v4, v6), node, ports, (kind, created))| {
                    let mut ips = vec![ip(&format!("10.0.0.{v4}"))];
                    if v6 > 0 {
                        ips.push(ip(&format!("fd00::{v6}")));
                    }
                    let port = |(name, protocol, port): (&str, _, _)| ContainerPort {
                        name: name.to_owned(),
                        protocol,
                        port,
                    };
                    let pod = Pod {
                        uid: name.to_string(),
                        mirrors: None,
                        scraped: None,
                        name: name.clone(),
                        labels,
                        ips,
                        host_network: kind == 0,
                        terminal: kind == 1,
                        node: node.to_owned(),
                        ports: ports.into_iter().map(port).collect(),
                        created,
                    };
                    (name, Arc::new(pod))
                });
        named.collect()
    })
}

/// Rules that name the namespaces of their peers, since the policy is in none.
fn cluster_rules() -> impl Strategy<Value = ClusterRule> {
    let action = select(vec![Action::Accept, Action::Deny, Action::Pass]);
    let nodes = of(prop_oneof![3 => Just(None), 1 => selectors().prop_map(Some)]);
    (action, rules(), nodes).prop_map(|(action, mut matches, nodes)| {
        matches.peers.extend(nodes.flatten().map(Peer::Nodes));
        for peer in &mut matches.peers {
            if let Peer::Pods { namespaces, .. } = peer {
                namespaces.get_or_insert_default();
            }
        }
        ClusterRule {
            name: String::new(),
            action,
            matches,
        }
    })
}

fn cluster_policies() -> impl Strategy<Value = OrdMap<String, Arc<ClusterPolicy>>> {
    let rules = || vec(cluster_rules(), 0..3);
    let tier = select(vec![Tier::Admin, Tier::Baseline]);
    let policy = (
        0..4_u8,
        tier,
        0..3_u16,
        selectors(),
        selectors(),
        rules(),
        rules(),
    );
    vec(policy, 0..4).prop_map(|policies| {
        let named = policies.into_iter().map(
            |(name, tier, priority, namespaces, pods, ingress, egress)| {
                let name = ObjectName::cluster(format!("c{name}"));
                let policy = ClusterPolicy {
                    name: name.clone(),
                    uid: String::new(),
                    labels: [].into(),
                    tier,
                    priority,
                    namespaces,
                    pods,
                    ingress,
                    egress,
                };
                (name.name, Arc::new(policy))
            },
        );
        named.collect()
    })
}

/// Random snapshots.
pub(crate) fn snapshots() -> impl Strategy<Value = Snapshot> {
    let devices = btree_map(1..6_u8, 1..5_u32, 0..4);
    let zone = select(vec!["", "here", "there"]);
    let tiers = prop_oneof![Just(OrdMap::new()), cluster_policies()];
    (pods(), policies(), services(), devices, zone, tiers).prop_map(
        |(pods, policies, (services, slices), devices, zone, cluster_policies)| {
            let mut snapshot = snapshot(Vec::new(), Vec::new());
            for (name, address, other, zone) in [
                (NODE, "10.0.2.1", "10.0.1.1", zone),
                ("there", "10.0.2.2", "2001:db8::1", "there"),
            ] {
                let node = Node {
                    name: name.to_owned(),
                    labels: labels(&[("app", "a"), ("name", name)]),
                    addresses: vec![ip(address), ip(other)],
                    primary: vec![ip(address)],
                    zone: zone.to_owned(),
                    ..Node::default()
                };
                snapshot.nodes.insert(node.name.clone(), Arc::new(node));
            }
            let device = |ifindex| PodDevice {
                ifindex,
                name: format!("veth{ifindex}"),
            };
            snapshot.devices.devices = devices
                .into_iter()
                .map(|(host, ifindex)| (ip(&format!("10.0.0.{host}")), device(ifindex)))
                .collect();
            Snapshot {
                pods: pods.into_iter().collect(),
                policies: policies.into_iter().collect(),
                cluster_policies,
                services: services.into_iter().collect(),
                slices: slices.into_iter().collect(),
                ..snapshot
            }
        },
    )
}
