//! A cluster of many pods and policies, seen from a node with some of the pods.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use weir::model::{
    Labels, Namespace, ObjectName, Operator, Peer, Pod, Policy, PolicyPort, PortMatch, Protocol,
    Requirement, Rule, Selector,
};

/// The node that the cluster is seen from.
pub(super) const NODE: &str = "node0";
/// Pods of the workload that the edited policy is about; all of them are on the node.
const EDITED: u32 = 50;
/// Other pods on the node, as far as there are enough.
const OTHERS: u32 = 60;
const PODS_OF_NAMESPACE: u32 = 100;
const PODS_OF_APP: u32 = 10;
/// Where the servers listen.
pub(super) const PORT: u16 = 80;

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Population {
    pub(super) pods: u32,
    pub(super) policies: u32,
}

/// An address of the pod network.
pub(super) fn address(pod: u32) -> IpAddr {
    Ipv4Addr::from(0x0a40_0000 + pod).into()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (String::from(*key), String::from(*value)))
        .collect()
}

fn matching(key: &str, value: String) -> Selector {
    Selector {
        requirements: vec![Requirement {
            key: key.to_owned(),
            operator: Operator::In(BTreeSet::from([value])),
        }],
    }
}

fn ports(first: u16, last: u16) -> PolicyPort {
    PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Range(first, last),
    }
}

impl Population {
    fn namespaces(self) -> u32 {
        self.pods.div_ceil(PODS_OF_NAMESPACE).max(1)
    }

    /// All namespaces.
    pub(super) fn all_namespaces(self) -> impl Iterator<Item = Namespace> {
        (0..self.namespaces()).map(|number| {
            let name = format!("namespace-{number}");
            Namespace {
                labels: labels(&[("kubernetes.io/metadata.name", &name)]),
                name,
            }
        })
    }

    /// A pod elsewhere, if there is one.
    pub(super) fn remote(self, number: u32) -> Option<u32> {
        let mut pods = (0..self.pods).map(|pod| (number.wrapping_mul(7919) + pod) % self.pods);
        pods.find(|pod| !self.is_local(*pod))
    }

    fn is_local(self, pod: u32) -> bool {
        pod < EDITED || pod.is_multiple_of((self.pods / OTHERS).max(1))
    }

    /// A pod; it is another workload's if `moved`.
    pub(super) fn pod(self, number: u32, moved: bool) -> Pod {
        let namespace = number / PODS_OF_NAMESPACE;
        let app = if number < EDITED {
            0
        } else {
            (number % PODS_OF_NAMESPACE) / PODS_OF_APP + u32::from(moved)
        };
        let name = ObjectName::new(format!("namespace-{namespace}"), format!("pod-{number}"));
        let app = format!("app-{app}");
        let node = if self.is_local(number) { NODE } else { "node1" };
        Pod {
            uid: name.to_string(),
            name,
            mirrors: None,
            scraped: None,
            labels: labels(&[("app", &app), ("pod-template-hash", "5d4f8c7b9")]),
            ips: vec![address(number)],
            host_network: false,
            terminal: false,
            node: node.to_owned(),
            ports: Vec::new(),
            created: 0,
        }
    }

    /// A policy about one workload: its own namespace's and the next one's neighbours may come, and it may go to a block. `edit`
    /// changes the last port that it lets in, and who else may come.
    pub(super) fn policy(self, number: u32, edit: u32) -> Policy {
        let namespaces = self.namespaces();
        let namespace = number % namespaces;
        let app = (number / namespaces) % PODS_OF_NAMESPACE.div_ceil(PODS_OF_APP);
        let neighbours = |namespace: Option<u32>, app: u32| Peer::Pods {
            namespaces: namespace.map(|number| {
                let name = format!("namespace-{}", number % namespaces);
                matching("kubernetes.io/metadata.name", name)
            }),
            pods: Some(matching("app", format!("app-{app}"))),
        };
        let block = Peer::Block {
            cidr: IpAddr::from([172, 16, (number % 256) as u8, 0]).into(),
            except: Vec::new(),
        };
        Policy {
            name: ObjectName::new(format!("namespace-{namespace}"), format!("policy-{number}")),
            uid: format!("policy-{number}"),
            labels: [].into(),
            pod_selector: matching("app", format!("app-{app}")),
            ingress: Some(vec![Rule {
                peers: vec![
                    neighbours(None, app + 1),
                    neighbours(Some(namespace + 1), app + edit % 3),
                ],
                ports: vec![ports(PORT, PORT + (edit % 100) as u16)],
            }]),
            egress: Some(vec![Rule {
                peers: vec![block, neighbours(Some(namespace), app + 1)],
                ports: vec![ports(PORT, PORT)],
            }]),
        }
    }
}
