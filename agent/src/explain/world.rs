//! Who has which address, as policies see it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use super::{ExplainError, Place, PlaceKind, Subject};
use crate::compile::Exposure;
use crate::model::{
    AddressOwners, ClusterPolicy, Labels, Node, ObjectName, Peer, Pod, Policy, Service, Snapshot,
    Tier,
};

/// How many names an error lists.
const CHOICES: usize = 3;

/// An address with its owner.
#[derive(Clone, Debug)]
pub(crate) struct Spot<'a> {
    pub(crate) place: Place,
    /// The owner, if a pod-network pod.
    pub(crate) pod: Option<&'a Pod>,
    /// The port to connect to; 0 at a source.
    pub(super) port: u16,
}

impl Spot<'_> {
    pub(super) fn at(self, port: u16) -> Self {
        Self { port, ..self }
    }
}

/// A snapshot with its addresses indexed.
pub(crate) struct World<'a> {
    pub(crate) snapshot: &'a Snapshot,
    owners: AddressOwners,
    nodes: BTreeMap<IpAddr, &'a str>,
    /// Where Services are met.
    pub(super) exposure: Exposure<'a>,
}

impl<'a> World<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        let mut nodes = BTreeMap::new();
        for pod in snapshot.pods.values() {
            if pod.host_network && !pod.terminal {
                nodes.extend(pod.ips.iter().map(|&ip| (ip, pod.node.as_str())));
            }
        }
        for node in snapshot.nodes.values() {
            nodes.extend(node.addresses.iter().map(|&ip| (ip, node.name.as_str())));
        }
        Self {
            snapshot,
            owners: AddressOwners::of(snapshot),
            nodes,
            exposure: Exposure::new(snapshot),
        }
    }

    /// Who has an address.
    pub(crate) fn spot(&self, address: IpAddr) -> Spot<'a> {
        let owner = self.owners.get(&address);
        let pod = owner
            .and_then(|owner| self.snapshot.pods.get(&owner.name))
            .map(AsRef::as_ref);
        let node = match pod {
            Some(pod) => Some(pod.node.as_str()),
            None => self.nodes.get(&address).copied(),
        };
        let kind = match (pod, node) {
            (Some(_), _) => PlaceKind::Pod,
            (None, Some(_)) => PlaceKind::Node,
            (None, None) => PlaceKind::Outside,
        };
        Spot {
            place: Place {
                address,
                kind,
                pod: pod.map(|pod| pod.name.clone()),
                node: node.map(str::to_owned),
            },
            pod,
            port: 0,
        }
    }

    /// The addresses of a pod; a host-network pod's are its node's.
    pub(super) fn pod_spots(&self, name: &ObjectName) -> Result<Vec<Spot<'a>>, ExplainError> {
        let pod = self.pod(name)?;
        if pod.terminal {
            return Err(ExplainError::Unusable(format!(
                "pod {name} has ended (phase Succeeded or Failed): it has no address any more"
            )));
        }
        if pod.ips.is_empty() {
            return Err(ExplainError::Unusable(format!(
                "pod {name} has no address yet: ask again once it runs"
            )));
        }
        pod.ips
            .iter()
            .map(|&ip| {
                let mut spot = self.spot(ip);
                if spot.pod.is_some_and(|owner| owner.name != pod.name) {
                    return Err(ExplainError::Unusable(format!(
                        "address {ip} of pod {name} belongs to the newer pod {} by now",
                        spot.place.pod.unwrap_or_default()
                    )));
                }
                spot.place.pod = Some(pod.name.clone());
                Ok(spot)
            })
            .collect()
    }

    /// Every address that a node has, host-network pods' among them, with the node's name.
    pub(crate) fn node_addresses(&self) -> impl Iterator<Item = (IpAddr, &'a str)> {
        self.nodes.iter().map(|(address, node)| (*address, *node))
    }

    /// The name of the node that has an address.
    pub(super) fn node_of(&self, address: IpAddr) -> Option<&'a str> {
        self.nodes.get(&address).copied()
    }

    /// The name of the node that a source is on.
    pub(super) fn home_of(&self, spot: &Spot<'a>) -> Option<&'a str> {
        match spot.pod {
            Some(pod) => Some(&pod.node),
            None => self.node_of(spot.place.address),
        }
    }

    /// A node as who sends on what came in by it: at its own address of the family, if that is known. A tunnel may have another.
    pub(super) fn node_spot(&self, node: &str, v4: bool) -> Option<Spot<'a>> {
        let node = self.snapshot.nodes.get(node)?;
        let mut addresses = node.primary.iter().chain(&node.addresses);
        let address = addresses.find(|address| address.is_ipv4() == v4)?;
        Some(self.spot(*address))
    }

    /// Every address that the source of a question stands for. A Service stands for the pods behind it.
    pub(super) fn sources(&self, subject: &Subject) -> Result<Vec<Spot<'a>>, ExplainError> {
        match subject {
            Subject::Pod(name) => self.pod_spots(name),
            Subject::Address(address) => match self.with_cluster_ip(*address) {
                Some(service) => Err(ExplainError::Unusable(format!(
                    "{address} is the virtual address of Service {}: no connection comes from it; ask for one of its pods",
                    service.name
                ))),
                None => Ok(vec![self.spot(*address)]),
            },
            Subject::Service(name) => {
                let service = self.service(name)?;
                let mut spots = Vec::new();
                for pod in self.selected(service).filter(|pod| !pod.ips.is_empty()) {
                    spots.extend(self.pod_spots(&pod.name)?);
                }
                if spots.is_empty() {
                    return Err(ExplainError::Unusable(format!(
                        "no pod is behind Service {name}: nothing opens connections in its name"
                    )));
                }
                Ok(spots)
            }
            Subject::Workload(name) => self.workload_spots(name),
            Subject::Node(name) => self.node_spots(name),
        }
    }

    /// The addresses of all pods of a workload that have some.
    pub(super) fn workload_spots(&self, name: &ObjectName) -> Result<Vec<Spot<'a>>, ExplainError> {
        let pods = self.snapshot.pods.values();
        let pods = pods.filter(|pod| pod.name.namespace == name.namespace);
        let made = pods.filter_map(|pod| Some((pod, pod.workload()?)));
        let (own, others): (Vec<_>, Vec<_>) = made.partition(|(_, workload)| workload == name);
        let mut spots = Vec::new();
        let running = own
            .iter()
            .filter(|(pod, _)| !pod.terminal && !pod.ips.is_empty());
        for (pod, _) in running {
            spots.extend(self.pod_spots(&pod.name)?);
        }
        if spots.is_empty() {
            let others: BTreeSet<_> = others.iter().map(|(_, workload)| workload).collect();
            return Err(ExplainError::Unknown {
                kind: "pod with an address of",
                name: name.to_string(),
                hint: there_is(others.iter()),
            });
        }
        Ok(spots)
    }

    /// The addresses of a node, or of a pod in a namespace that is called `node`.
    pub(super) fn node_spots(&self, name: &str) -> Result<Vec<Spot<'a>>, ExplainError> {
        let Some(node) = self.snapshot.nodes.get(name) else {
            let pod = ObjectName::new("node", name);
            if self.snapshot.pods.contains_key(&pod) {
                return self.pod_spots(&pod);
            }
            return Err(ExplainError::Unknown {
                kind: "node",
                name: name.to_owned(),
                hint: there_is(self.snapshot.nodes.keys()),
            });
        };
        let usual = if node.primary.is_empty() {
            &node.addresses
        } else {
            &node.primary
        };
        if usual.is_empty() {
            return Err(ExplainError::Unusable(format!(
                "node {name} has no address yet: ask again once its kubelet has told"
            )));
        }
        Ok(usual.iter().map(|address| self.spot(*address)).collect())
    }

    pub(super) fn pod(&self, name: &ObjectName) -> Result<&'a Pod, ExplainError> {
        if let Some(pod) = self.snapshot.pods.get(name) {
            return Ok(pod);
        }
        let hint =
            if self.snapshot.services.contains_key(name) {
                format!("; there is a Service: {}/svc/{}", name.namespace, name.name)
            } else {
                let pods = self.snapshot.pods.keys();
                there_is(pods.filter(|pod| {
                    pod.namespace == name.namespace && pod.name.starts_with(&name.name)
                }))
            };
        Err(ExplainError::Unknown {
            kind: "pod",
            name: name.to_string(),
            hint,
        })
    }

    pub(super) fn service(&self, name: &ObjectName) -> Result<&'a Service, ExplainError> {
        self.snapshot
            .services
            .get(name)
            .map(|service| &**service)
            .ok_or_else(|| ExplainError::Unknown {
                kind: "Service with a ClusterIP",
                name: name.to_string(),
                hint: " (names of headless and ExternalName Services are resolved by DNS alone: ask for a pod or address)"
                    .to_owned(),
            })
    }

    fn with_cluster_ip(&self, address: IpAddr) -> Option<&'a Service> {
        let mut services = self.exposure.naming(address);
        services.find(|service| service.cluster_ips.contains(&address))
    }

    /// The live pods that a Service selects; none if it has no selector.
    pub(crate) fn selected(&self, service: &'a Service) -> impl Iterator<Item = &'a Pod> {
        self.snapshot
            .pods
            .values()
            .map(|pod| &**pod)
            .filter(|pod| service.selects(pod))
    }

    /// Labels of a namespace; `None` for one that is not known yet, which no selector matches.
    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&'a Labels> {
        self.snapshot
            .namespaces
            .get(name)
            .map(|namespace| &namespace.labels)
    }

    /// The ClusterNetworkPolicies of a tier that select a pod, in order of weight.
    pub(crate) fn tier_of(&self, tier: Tier, pod: &'a Pod) -> Vec<&'a ClusterPolicy> {
        let namespace = self.namespace_labels(&pod.name.namespace);
        let policies = self.snapshot.cluster_policies.values();
        let mut policies: Vec<&ClusterPolicy> = policies
            .map(|policy| &**policy)
            .filter(|policy| policy.tier == tier && policy.selects(namespace, &pod.labels))
            .collect();
        policies.sort_by_key(|policy| policy.weight());
        policies
    }

    /// The nodes that show an address.
    pub(super) fn nodes_at(&self, address: IpAddr) -> impl Iterator<Item = &'a Node> {
        let nodes = self.snapshot.nodes.values().map(|node| &**node);
        nodes.filter(move |node| node.addresses.contains(&address))
    }

    /// NetworkPolicies that select a pod by namespace and label.
    pub(crate) fn policies_of(&self, pod: &'a Pod) -> impl Iterator<Item = &'a Policy> {
        self.snapshot
            .policies
            .values()
            .map(|policy| &**policy)
            .filter(|policy| {
                policy.name.namespace == pod.name.namespace
                    && policy.pod_selector.matches(&pod.labels)
            })
    }

    /// Whether a peer of a policy of this namespace is the owner of an address.
    pub(crate) fn peer_matches(&self, peer: &Peer, namespace: &str, spot: &Spot<'_>) -> bool {
        match peer {
            Peer::Pods { namespaces, pods } => spot.pod.is_some_and(|pod| {
                let own = &pod.name.namespace;
                let in_namespace = match namespaces {
                    Some(selector) => self
                        .namespace_labels(own)
                        .is_some_and(|labels| selector.matches(labels)),
                    None => own == namespace,
                };
                let labelled = pods
                    .as_ref()
                    .is_none_or(|selector| selector.matches(&pod.labels));
                in_namespace && labelled
            }),
            Peer::Block { cidr, except } => {
                let address = spot.place.address;
                cidr.contains(address) && !except.iter().any(|inner| inner.contains(address))
            }
            Peer::Nodes(selector) => {
                let mut nodes = self.nodes_at(spot.place.address);
                nodes.any(|node| selector.matches(&node.labels))
            }
        }
    }
}

/// `; there is a, b`, or nothing.
fn there_is(names: impl Iterator<Item = impl Display>) -> String {
    let names: Vec<_> = names.take(CHOICES).map(|name| name.to_string()).collect();
    if names.is_empty() {
        return String::new();
    }
    format!("; there is {}", names.join(", "))
}
