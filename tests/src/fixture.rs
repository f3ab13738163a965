//! A small cluster for tests of the packet logic, as the agent's model.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use weir::model::{
    DeviceFacts, Endpoint, EndpointSlice, Namespace, Node, ObjectName, Operator, Peer, Pod,
    PodDevice, Policy, PolicyPort, PortMatch, Protocol, Requirement, Rule, Selector, Service,
    ServiceCidr, ServicePort, SlicePort, Snapshot,
};

/// The node that the fixture is seen from.
const NODE: &str = "node1";

/// Changes every object of a kind.
pub fn edit<K: Ord + Clone, V: Clone>(
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

/// An address.
///
/// # Panics
/// On anything else.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// Two local pods, a remote one, and Services of all shapes over them: `all`, `b`, `self` (pod a), `none`, `also-b`, `open`, `narrow`, each
/// with TCP and UDP port 80 to port 8080. Pods a and b are local, behind the two devices. `open` has external addresses, too
/// (192.0.2.15, 2001:db8::15), those of a load balancer (192.0.2.16, 2001:db8::16), and node port 30015; the node is 172.30.0.1
/// and fd30::1. Its clients are remembered for a minute. `narrow` is at a load balancer's address (192.0.2.17, 2001:db8::17) that
/// only pod a may use. Cluster IPs are of 10.96.0.0/24 and fd96::/120.
#[must_use]
pub fn snapshot(devices: [u32; 2], policies: Vec<Policy>) -> Snapshot {
    let mut snapshot = Snapshot {
        node_name: NODE.to_owned(),
        ..Snapshot::default()
    };
    let namespace = Namespace {
        name: "shop".to_owned(),
        labels: BTreeMap::new(),
    };
    snapshot
        .namespaces
        .insert("shop".to_owned(), namespace.into());
    let node = Node {
        name: NODE.to_owned(),
        addresses: ["172.30.0.1", "fd30::1"].map(address).to_vec(),
        primary: ["172.30.0.1", "fd30::1"].map(address).to_vec(),
        ..Node::default()
    };
    snapshot.nodes.insert(NODE.to_owned(), node.into());
    for (name, node, ips) in [
        ("a", NODE, ["10.0.1.1", "fd00:1::1"]),
        ("b", NODE, ["10.0.1.2", "fd00:1::2"]),
        ("c", "node2", ["10.0.2.1", "fd00:2::1"]),
    ] {
        let pod = Pod {
            name: ObjectName::new("shop", name),
            uid: name.to_owned(),
            mirrors: None,
            scraped: None,
            labels: [("app".to_owned(), name.to_owned())].into(),
            ips: ips.map(address).to_vec(),
            host_network: false,
            terminal: false,
            node: node.to_owned(),
            ports: vec![],
            created: 0,
        };
        snapshot.pods.insert(pod.name.clone(), pod.into());
    }
    for (name, v4, v6, endpoints) in [
        ("all", "10.96.0.10", "fd96::10", vec!["a", "b", "c"]),
        ("b", "10.96.0.11", "fd96::11", vec!["b"]),
        ("self", "10.96.0.12", "fd96::12", vec!["a"]),
        ("none", "10.96.0.13", "fd96::13", vec![]),
        ("also-b", "10.96.0.14", "fd96::14", vec!["b"]),
        ("open", "10.96.0.15", "fd96::15", vec!["a", "b", "c"]),
        ("narrow", "10.96.0.16", "fd96::16", vec!["b", "c"]),
    ] {
        let is_open = name == "open";
        let service = Service {
            name: ObjectName::new("shop", name),
            cluster_ips: vec![address(v4), address(v6)],
            external_ips: match name {
                "open" => ["192.0.2.15", "2001:db8::15"].map(address).to_vec(),
                _ => vec![],
            },
            load_balancer_ips: match name {
                "open" => ["192.0.2.16", "2001:db8::16"].map(address).to_vec(),
                "narrow" => ["192.0.2.17", "2001:db8::17"].map(address).to_vec(),
                _ => vec![],
            },
            source_ranges: match name {
                "narrow" => ["10.0.1.0/31", "fd00:1::/127"]
                    .map(|range| range.parse().expect("a range"))
                    .to_vec(),
                _ => vec![],
            },
            affinity_seconds: is_open.then_some(60),
            ports: [Protocol::Tcp, Protocol::Udp]
                .map(|protocol| ServicePort {
                    name: protocol.to_string(),
                    protocol,
                    port: 80,
                    node_port: is_open.then_some(30015),
                    target_port: "8080".to_owned(),
                })
                .to_vec(),
            ..Service::default()
        };
        for family in [0, 1] {
            let endpoints = endpoints
                .iter()
                .map(|pod| {
                    let pod = &snapshot.pods[&ObjectName::new("shop", *pod)];
                    Endpoint {
                        node: Some(pod.node.clone()),
                        pod: Some(pod.name.clone()),
                        ..Endpoint::new(pod.ips[family])
                    }
                })
                .collect();
            let slice = EndpointSlice {
                name: ObjectName::new("shop", format!("{name}-{family}")),
                service: service.name.clone(),
                endpoints,
                ports: [Protocol::Tcp, Protocol::Udp]
                    .map(|protocol| SlicePort {
                        name: protocol.to_string(),
                        protocol,
                        port: 8080,
                    })
                    .to_vec(),
                trigger: None,
            };
            snapshot.slices.insert(slice.name.clone(), slice.into());
        }
        snapshot
            .services
            .insert(service.name.clone(), service.into());
    }
    let range = ServiceCidr {
        name: "kubernetes".to_owned(),
        cidrs: ["10.96.0.0/24", "fd96::/120"]
            .map(|cidr| cidr.parse().expect("a range"))
            .to_vec(),
    };
    snapshot
        .service_cidrs
        .insert(range.name.clone(), range.into());
    for policy in policies {
        snapshot.policies.insert(policy.name.clone(), policy.into());
    }
    let mut facts = DeviceFacts::default();
    for (pod, ifindex) in ["a", "b"].into_iter().zip(devices) {
        for ip in &snapshot.pods[&ObjectName::new("shop", pod)].ips {
            facts.devices.insert(
                *ip,
                PodDevice {
                    ifindex,
                    name: format!("veth{ifindex}"),
                },
            );
        }
    }
    snapshot.devices = facts;
    snapshot
}

/// Pods with this label `app`.
#[must_use]
pub fn selector(app: &str) -> Selector {
    let values = [app.to_owned()].into();
    Selector {
        requirements: vec![Requirement {
            key: "app".to_owned(),
            operator: Operator::In(values),
        }],
    }
}

/// A policy of namespace `shop` for the pods of an app; `None` does not isolate.
#[must_use]
pub fn policy(
    name: &str,
    pod: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Policy {
    Policy {
        name: ObjectName::new("shop", name),
        uid: name.to_owned(),
        labels: [].into(),
        pod_selector: selector(pod),
        ingress,
        egress,
    }
}

/// A rule for the pods of an app, with ranges of ports; none means all.
#[must_use]
pub fn to(pod: &str, ports: &[(Protocol, u16, u16)]) -> Rule {
    Rule {
        peers: vec![Peer::Pods {
            namespaces: None,
            pods: Some(selector(pod)),
        }],
        ports: ports
            .iter()
            .map(|(protocol, low, high)| PolicyPort {
                protocol: *protocol,
                port: PortMatch::Range(*low, *high),
            })
            .collect(),
    }
}

/// A rule for all TCP ports of a block.
///
/// # Panics
/// On a malformed network.
#[must_use]
pub fn block(cidr: &str, except: &[&str]) -> Rule {
    let network = |text: &str| text.parse().expect("network");
    Rule {
        peers: vec![Peer::Block {
            cidr: network(cidr),
            except: except.iter().map(|text| network(text)).collect(),
        }],
        ports: vec![PolicyPort {
            protocol: Protocol::Tcp,
            port: PortMatch::All,
        }],
    }
}
