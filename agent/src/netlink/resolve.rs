//! From links, routes, neighbours and bridge tables to pod devices: a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::nets::nets;
use super::table::{LinkKind, LinkTable, Neighbour};
use crate::model::{DeviceFacts, PodDevice, is_link_local_v6};

/// Addresses that the API gives to this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// UID of the pod by address, for this node's pods without those in the node's network namespace.
    pub pods: BTreeMap<IpAddr, String>,
    /// Addresses of the node.
    pub node: BTreeSet<IpAddr>,
}

impl Local {
    /// Pods by the addresses that are not the node's, too.
    fn wanted(&self) -> impl Iterator<Item = (&IpAddr, &str)> {
        let pods = self.pods.iter();
        pods.filter(|(address, _)| !self.node.contains(address))
            .map(|(address, pod)| (address, pod.as_str()))
    }
}

/// Whose a bridge port is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    /// Name of the device: an index may come back with another one.
    device: String,
    /// UID of the pod.
    pod: String,
}

/// Which pod each bridge port was found to lead to, by interface index.
///
/// A veth is one pod's from its beginning to its end. So a port that has its pod needs no further evidence (bridges forget idle
/// addresses), and evidence that gives it to another pod is wrong: a neighbour entry that outlived its pod, or somebody who
/// announces the address of another. Only objects may change: that of a static pod gets another UID when it is made anew, and so
/// a port whose owner the API does not know any more goes to the pod that answers there from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<u32, Owner>);

impl Owners {
    /// Those whose devices still exist.
    fn remaining(&self, table: &LinkTable) -> Self {
        let remains = |(ifindex, owner): &(&u32, &Owner)| {
            let link = table.links.get(*ifindex);
            link.is_some_and(|link| link.name == owner.device && link.kind == LinkKind::Veth)
        };
        let remaining = self.0.iter().filter(remains);
        Self(
            remaining
                .map(|(ifindex, owner)| (*ifindex, owner.clone()))
                .collect(),
        )
    }

    fn pod(&self, ifindex: u32) -> Option<&str> {
        self.0.get(&ifindex).map(|owner| owner.pod.as_str())
    }

    /// Ports whose pods ended.
    fn ended(&self, local: &Local) -> BTreeSet<u32> {
        let live: BTreeSet<&str> = local.pods.values().map(String::as_str).collect();
        let owners = self.0.iter();
        owners
            .filter(|(_, owner)| !live.contains(owner.pod.as_str()))
            .map(|(ifindex, _)| *ifindex)
            .collect()
    }
}

/// A pod address that a bridge's subnet covers but that its tables do not locate. Asking the neighbour fills the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The bridge.
    pub bridge: u32,
    /// UID of the pod.
    pub pod: String,
    /// Ports that have no live pod: one of them should be the pod's.
    pub free: BTreeSet<u32>,
    /// Whether the kernel has an answer of somebody else. It believes that for minutes, and asks nobody but the one who gave it.
    pub outdated: bool,
}

/// What [`resolve`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Devices of pods.
    pub facts: DeviceFacts,
    /// What to know the next time.
    pub owners: Owners,
    /// What is worth asking, by address.
    pub ask: BTreeMap<IpAddr, Question>,
}

/// Finds the device of every pod address that has one.
///
/// A pod's device is a veth that is no uplink and to which a host route leads, or a bridge port behind which the pod's Ethernet
/// address was seen, then or earlier (`owners`). Where two pods seem to be behind one port that is nobody's yet, both are taken
/// to be (programs must be on it, whosever it is) and both are asked.
#[must_use]
pub fn resolve(table: &LinkTable, local: &Local, owners: &Owners) -> Resolution {
    let node = Node {
        table,
        uplinks: uplinks(table, local),
    };
    let mut owners = node.owners(local, owners.remaining(table));
    let ended = owners.ended(local);
    let mut released = BTreeSet::new();
    let mut facts = DeviceFacts {
        addresses: node_addresses(table),
        ..DeviceFacts::default()
    };
    let mut ask = BTreeMap::new();
    for (address, pod) in local.wanted() {
        let routed = node.routed(*address);
        let bridge = node.bridge_of(*address);
        let owned = || {
            node.ports(bridge?)
                .find(|port| owners.pod(*port) == Some(pod))
        };
        let certain = routed.or_else(owned);
        let seen = bridge.and_then(|bridge| node.seen_port(bridge, *address));
        let unowned = || seen.filter(|port| owners.pod(*port).is_none());
        if let Some(ifindex) = certain.or_else(unowned) {
            let name = table.links[&ifindex].name.clone();
            facts.devices.insert(*address, PodDevice { ifindex, name });
        }
        if let (None, Some(bridge)) = (certain, bridge)
            && let Some(outdated) = node.to_ask(bridge, *address)
        {
            let is_free = |port: &u32| owners.pod(*port).is_none() || ended.contains(port);
            let question = Question {
                bridge,
                pod: pod.to_owned(),
                free: node.ports(bridge).filter(is_free).collect(),
                outdated,
            };
            if !question.free.is_empty() {
                // What is seen there the next time is the answer.
                released.extend(seen.filter(|port| ended.contains(port)));
                ask.insert(*address, question);
            }
        }
    }
    owners.0.retain(|port, _| !released.contains(port));
    let pods = facts.devices.values().map(|device| device.ifindex);
    facts.nets = nets(table, local, &node.uplinks, &pods.collect());
    Resolution { facts, owners, ask }
}

fn node_addresses(table: &LinkTable) -> BTreeSet<IpAddr> {
    let addresses = table.addresses.iter().map(|(_, network)| network.ip());
    addresses
        .filter(|address| !is_link_local_v6(*address))
        .collect()
}

/// Devices with a default route or an address of the node: on a node that is a container itself, these can be veths too.
fn uplinks(table: &LinkTable, local: &Local) -> BTreeSet<u32> {
    let with_node_address = table
        .addresses
        .iter()
        .filter(|(_, network)| local.node.contains(&network.ip()))
        .map(|(ifindex, _)| *ifindex);
    let mut uplinks: BTreeSet<u32> = table.default_routes.iter().copied().collect();
    uplinks.extend(with_node_address);
    uplinks
}

/// What the kernel says, read with the node's addresses in mind.
struct Node<'a> {
    table: &'a LinkTable,
    uplinks: BTreeSet<u32>,
}

impl Node<'_> {
    /// Gives ports that are nobody's to the only pod that was seen behind them, if it has none yet.
    fn owners(&self, local: &Local, mut owners: Owners) -> Owners {
        let mut claims: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        for (address, pod) in local.wanted() {
            if self.routed(*address).is_none()
                && let Some(bridge) = self.bridge_of(*address)
                && self.ports(bridge).all(|port| owners.pod(port) != Some(pod))
                && let Some(port) = self.seen_port(bridge, *address)
                && owners.pod(port).is_none()
            {
                claims.entry(port).or_default().insert(pod);
            }
        }
        for (port, pods) in claims {
            if let (Some(pod), 1) = (pods.first(), pods.len()) {
                let owner = Owner {
                    device: self.table.links[&port].name.clone(),
                    pod: (*pod).to_owned(),
                };
                owners.0.insert(port, owner);
            }
        }
        owners
    }

    /// The veth that a host route leads to; the youngest where an old one lingers.
    fn routed(&self, address: IpAddr) -> Option<u32> {
        let devices = self.table.host_routes.get(&address)?;
        let mut youngest_first = devices.iter().rev().copied();
        youngest_first.find(|ifindex| self.is_pod_device(*ifindex))
    }

    /// The bridge whose subnet has the address; the longest prefix counts.
    fn bridge_of(&self, address: IpAddr) -> Option<u32> {
        let is_bridge = |ifindex| {
            let link = self.table.links.get(ifindex);
            link.is_some_and(|link| link.kind == LinkKind::Bridge)
        };
        let addresses = self.table.addresses.iter();
        addresses
            .filter(|(ifindex, network)| is_bridge(ifindex) && network.contains(address))
            .max_by_key(|(_, network)| network.prefix())
            .map(|(ifindex, _)| *ifindex)
    }

    /// The ports of a bridge that can be pods'.
    fn ports(&self, bridge: u32) -> impl Iterator<Item = u32> {
        let links = self.table.links.iter();
        links
            .filter(move |(_, link)| link.controller == Some(bridge))
            .map(|(ifindex, _)| *ifindex)
            .filter(|ifindex| self.is_pod_device(*ifindex))
    }

    /// The port of a bridge behind which the address's Ethernet address was seen.
    fn seen_port(&self, bridge: u32, address: IpAddr) -> Option<u32> {
        let mac = self.table.neighbours.get(&(bridge, address))?.mac?;
        let port = *self.table.forwarding.get(&(bridge, mac))?;
        self.is_pod_device(port).then_some(port)
    }

    fn is_pod_device(&self, ifindex: u32) -> bool {
        let link = self.table.links.get(&ifindex);
        link.is_some_and(|link| link.kind == LinkKind::Veth) && !self.uplinks.contains(&ifindex)
    }

    /// Whether to ask for an address, and if so, whether there is an outdated answer. Where somebody has configured the neighbour
    /// there is no question: to ask would make a permanent entry an ordinary one.
    fn to_ask(&self, bridge: u32, address: IpAddr) -> Option<bool> {
        match self.table.neighbours.get(&(bridge, address)) {
            None => Some(false),
            Some(Neighbour { learned: false, .. }) => None,
            Some(Neighbour { mac, .. }) => Some(mac.is_some()),
        }
    }
}

#[cfg(test)]
mod tests;
