//! What a rule lacks to allow a connection.

use super::judge::Connection;
use super::world::{Spot, World};
use super::{NearMiss, PlaceKind, wording};
use crate::model::{
    Labels, ObjectName, Operator, Peer, PolicyPort, PortMatch, Protocol, Requirement, Rule,
    Selector,
};

/// A connection as one policy sees it.
pub(super) struct Judged<'j, 'w, 'a> {
    pub(super) world: &'j World<'a>,
    pub(super) connection: &'j Connection<'w, 'a>,
    pub(super) policy: &'a ObjectName,
    /// The end that the policy's rules name.
    pub(super) peer: &'w Spot<'a>,
}

/// The peer and the port of a rule that lack least, and what they lack.
pub(super) fn nearest(judged: &Judged<'_, '_, '_>, index: usize, rule: &Rule) -> NearMiss {
    let peer = rule
        .peers
        .iter()
        .map(|peer| (judged.peer_misses(peer), Some(peer)))
        .min_by_key(|(misses, _)| misses.len())
        .unwrap_or_default();
    let port = rule
        .ports
        .iter()
        .map(|port| (judged.port_misses(port), Some(port)))
        .min_by_key(|(misses, port)| (misses.len(), judged.port_distance(*port)))
        .unwrap_or_default();
    NearMiss {
        policy: judged.policy.clone(),
        index,
        peer_matches: peer.0.is_empty(),
        port_matches: port.0.is_empty(),
        peer: wording::peer(peer.1),
        port: wording::port(port.1),
        misses: [peer.0, port.0].concat(),
    }
}

impl Judged<'_, '_, '_> {
    fn peer_misses(&self, peer: &Peer) -> Vec<String> {
        if self.peer_matches(peer) {
            return Vec::new();
        }
        match peer {
            Peer::Pods { namespaces, pods } => self.pod_misses(namespaces.as_ref(), pods.as_ref()),
            Peer::Block { cidr, except } => {
                let address = self.peer.place.address;
                if cidr.is_ipv4() != address.is_ipv4() {
                    let (is, holds) = if address.is_ipv4() {
                        ("IPv4", "IPv6")
                    } else {
                        ("IPv6", "IPv4")
                    };
                    return vec![format!(
                        "{address} is an {is} address, {cidr} holds {holds} only"
                    )];
                }
                let mut misses: Vec<_> = except
                    .iter()
                    .filter(|inner| inner.contains(address))
                    .map(|inner| format!("{address} is in {cidr}, but in its except {inner} too"))
                    .collect();
                if misses.is_empty() {
                    misses.push(format!("{address} is not in {cidr}"));
                }
                if let Some(via) = self.connection.via
                    && cidr.contains(via.address)
                    && self.peer.place == self.connection.destination.place
                {
                    misses[0] = format!(
                        "{cidr} covers the virtual address {}, but policies see the endpoint {address} behind it",
                        via.address
                    );
                }
                if let Some(client) = self.connection.client
                    && cidr.contains(client)
                    && self.peer.place == self.connection.source.place
                {
                    misses[0] = format!(
                        "{cidr} covers the client {client}, but the pod is on another node than the one that the connection comes in by, and sees that node's address {address}"
                    );
                }
                misses
            }
            Peer::Nodes(selector) => self.node_misses(selector),
        }
    }

    fn node_misses(&self, selector: &Selector) -> Vec<String> {
        let address = self.peer.place.address;
        let nodes = self.world.nodes_at(address).map(|node| {
            let what = format!("node {}", node.name);
            selector_misses(selector, &node.labels, &what)
        });
        nodes
            .min_by_key(Vec::len)
            .unwrap_or_else(|| vec![format!("no node shows the address {address}")])
    }

    fn pod_misses(&self, namespaces: Option<&Selector>, pods: Option<&Selector>) -> Vec<String> {
        let place = &self.peer.place;
        let Some(pod) = self.peer.pod else {
            let what = match (place.kind, &place.pod) {
                (_, Some(pod)) => format!(
                    "{pod} uses the host network: no selector names it, only an ipBlock with its node's address {}",
                    place.address
                ),
                (PlaceKind::Node, None) => format!(
                    "{} is a node's address: no selector names it, only an ipBlock",
                    place.address
                ),
                _ => format!(
                    "{} is no pod's address: no selector names it, only an ipBlock",
                    place.address
                ),
            };
            // More than any label: no change of labels would help.
            let selectors = namespaces.into_iter().chain(pods);
            let others = selectors.flat_map(|selector| &selector.requirements);
            return std::iter::once(what)
                .chain(others.map(|requirement| {
                    format!(
                        "it has no labels to match {}",
                        wording::requirement(requirement)
                    )
                }))
                .collect();
        };
        let namespace = &pod.name.namespace;
        let mut misses = Vec::new();
        match namespaces {
            None if *namespace != self.policy.namespace => misses.push(format!(
                "pod {} is in namespace {namespace}; without a namespaceSelector the rule means namespace {} only",
                pod.name, self.policy.namespace
            )),
            None => {}
            Some(selector) => match self.world.namespace_labels(namespace) {
                Some(labels) => {
                    let whose = format!("namespace {namespace}");
                    misses.extend(selector_misses(selector, labels, &whose));
                }
                None => misses.push(format!(
                    "namespace {namespace} is not known here, so no namespaceSelector matches it"
                )),
            },
        }
        if let Some(selector) = pods {
            let pod_misses = selector_misses(selector, &pod.labels, &format!("pod {}", pod.name));
            // The classic slip: one element with two selectors where two elements were meant.
            if namespaces.is_some() && misses.is_empty() != pod_misses.is_empty() {
                let (yes, no) = if misses.is_empty() {
                    ("namespaceSelector", "podSelector")
                } else {
                    ("podSelector", "namespaceSelector")
                };
                misses.extend(pod_misses);
                let last = misses.len() - 1;
                misses[last] += &format!(
                    " (its {yes} matches, its {no} does not; in one element both must, in two elements either would do)"
                );
            } else {
                misses.extend(pod_misses);
            }
        }
        misses
    }

    fn port_misses(&self, port: &PolicyPort) -> Vec<String> {
        if self.port_matches(port) {
            return Vec::new();
        }
        let Connection {
            protocol,
            port: number,
            destination,
            via,
            ..
        } = *self.connection;
        let mut misses = Vec::new();
        if port.protocol != protocol {
            misses.push(format!(
                "it is {} there, the connection is {protocol}",
                port.protocol
            ));
        }
        match &port.port {
            PortMatch::All => {}
            PortMatch::Range(first, last) => {
                let range = first..=last;
                let via = via.filter(|via| range.contains(&&via.port));
                if range.contains(&&number) {
                    // Only the protocol differs.
                } else if let Some(via) = via {
                    misses.push(format!(
                        "the rule allows the Service port {}, but policies see the target port {number} that the pod listens on",
                        via.port
                    ));
                } else if first == last {
                    misses.push(format!("port {number} is not {first}"));
                } else {
                    misses.push(format!("port {number} is not {first}-{last}"));
                }
            }
            PortMatch::Named(name) => {
                misses.extend(self.name_miss(name, port.protocol, destination));
            }
        }
        misses
    }

    fn name_miss(&self, name: &str, protocol: Protocol, destination: &Spot<'_>) -> Option<String> {
        let Some(pod) = destination.pod else {
            return Some(format!(
                "port name {name:?} means ports of pods, and {} is none",
                destination.place.address
            ));
        };
        let number = self.connection.port;
        if let Some(port) = pod.named_port(name, protocol) {
            return (port != number).then(|| {
                format!(
                    "{name:?} is port {port} on pod {}, the connection goes to {number}",
                    pod.name
                )
            });
        }
        Some(match pod.ports.iter().find(|port| port.name == name) {
            Some(port) => format!(
                "{name:?} is a {} port on pod {}, the rule means {protocol}",
                port.protocol, pod.name
            ),
            None => {
                let source = self.connection.source.pod;
                let there = source.filter(|source| source.ports.iter().any(|p| p.name == name));
                match there {
                    Some(source) => format!(
                        "pod {} has no port named {name:?} (pod {} has, but the name means the destination's port)",
                        pod.name, source.name
                    ),
                    None => format!("pod {} has no port named {name:?}", pod.name),
                }
            }
        })
    }

    /// Of ports that lack equally much, one of the right protocol and the nearest number is most likely meant.
    fn port_distance(&self, port: Option<&PolicyPort>) -> (bool, u16) {
        let number = self.connection.port;
        port.map_or((false, 0), |port| {
            let distance = match port.port {
                PortMatch::Range(first, last) => number.abs_diff(number.clamp(first, last)),
                PortMatch::All | PortMatch::Named(_) => 0,
            };
            (port.protocol != self.connection.protocol, distance)
        })
    }
}

fn selector_misses(selector: &Selector, labels: &Labels, what: &str) -> Vec<String> {
    selector
        .requirements
        .iter()
        .filter(|requirement| !requirement.matches(labels))
        .map(|requirement| label_miss(requirement, labels, what))
        .collect()
}

fn label_miss(requirement: &Requirement, labels: &Labels, what: &str) -> String {
    let wanted = wording::requirement(requirement);
    let key = &requirement.key;
    match (&requirement.operator, labels.get(key)) {
        (Operator::In(_) | Operator::Exists, None) => {
            format!("label {wanted} is missing on {what}")
        }
        (_, value) => {
            let value = value.map_or("", String::as_str);
            format!("label {key}={value} on {what} does not match {wanted}")
        }
    }
}
