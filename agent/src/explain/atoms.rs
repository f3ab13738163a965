//! Everything that policies can tell apart, each asked once: of objects, and of tables made from them.
//!
//! The numbers in rules cut addresses and ports into finitely many pieces, in each of which every verdict is the same. So asking
//! one address and one port of each piece is asking all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weir_common::abi::EndpointKey;

use super::judge::{Connection, side};
use super::world::World;
use crate::compile::{self, PolicyTables};
use crate::model::{AddressOwners, Direction, Peer, Pod, PortMatch, Protocol, Rule, Snapshot};

/// Addresses of nobody, kept free for documentation (RFC 5737, RFC 3849).
const NOBODY: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 200)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 200)),
];

/// One question: may this local pod open a connection to the peer, or have one from it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atom {
    /// An address of the pod.
    pub pod: IpAddr,
    /// Whose policies are asked: those for what the pod receives, or for what it sends.
    pub direction: Direction,
    /// The other end, of the pod's family.
    pub peer: IpAddr,
    /// Of the connection.
    pub protocol: Protocol,
    /// The port that is connected to, after Service translation.
    pub port: u16,
}

/// Every question that can have an answer of its own.
#[derive(Clone, Debug)]
pub struct Atoms {
    pods: BTreeSet<IpAddr>,
    peers: BTreeSet<IpAddr>,
    ports: BTreeSet<(Protocol, u16)>,
}

impl Atoms {
    /// About the pods that the tables judge.
    #[must_use]
    pub fn of(snapshot: &Snapshot, tables: &PolicyTables) -> Self {
        let pods = tables.endpoints.keys().filter(|key| key.ifindex == 0);
        Self {
            pods: pods.map(|key| IpAddr::from(key.address)).collect(),
            peers: peers(snapshot),
            ports: ports(snapshot),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let v4 = |addresses: &BTreeSet<IpAddr>| addresses.iter().filter(|a| a.is_ipv4()).count();
        let (pods, peers) = (v4(&self.pods), v4(&self.peers));
        let pairs = pods * peers + (self.pods.len() - pods) * (self.peers.len() - peers);
        pairs * self.ports.len() * 2
    }

    /// Each of them, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = Atom> {
        let pairs = self.pods.iter().flat_map(|pod| {
            let peers = self.peers.iter();
            let peers = peers.filter(|peer| peer.is_ipv4() == pod.is_ipv4());
            peers.map(|peer| (*pod, *peer))
        });
        pairs.flat_map(|(pod, peer)| {
            let ports = self.ports.iter();
            ports.flat_map(move |&(protocol, port)| {
                [Direction::Ingress, Direction::Egress].map(|direction| Atom {
                    pod,
                    direction,
                    peer,
                    protocol,
                    port,
                })
            })
        })
    }
}

/// What came of asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// How many questions were asked.
    pub asked: usize,
    /// How many there are.
    pub atoms: usize,
    /// Those with two answers, in words.
    pub disagreements: Vec<String>,
}

/// Asks objects and tables. Where there are more than `most` questions, as many of them are asked, evenly spread.
#[must_use]
pub fn judge_atoms(snapshot: &Snapshot, tables: &PolicyTables, most: usize) -> Judged {
    let world = World::new(snapshot);
    let atoms = Atoms::of(snapshot, tables);
    let mut judged = Judged {
        atoms: atoms.count(),
        ..Judged::default()
    };
    let stride = judged.atoms.div_ceil(most.max(1)).max(1);
    for atom in atoms.iter().step_by(stride) {
        let Some(entry) = tables.endpoints.get(&EndpointKey::address(atom.pod.into())) else {
            continue;
        };
        let (own, other) = (world.spot(atom.pod), world.spot(atom.peer));
        let (source, destination) = match atom.direction {
            Direction::Ingress => (&other, &own),
            Direction::Egress => (&own, &other),
        };
        let connection = Connection::direct(source, destination, atom.protocol, atom.port);
        let side = side(&world, &connection, atom.direction);
        if side.outcome.is_exempt() {
            continue;
        }
        judged.asked += 1;
        let number = atom.protocol.number();
        let verdict = compile::judge(tables, entry, atom.direction, atom.peer, number, atom.port);
        if side.outcome.passes() != verdict.passes() {
            judged.disagreements.push(format!(
                "pod {}, {} with {}, {} port {}: policies say {:?}, tables {verdict:?}",
                entry.pod.name,
                atom.direction.as_str(),
                atom.peer,
                atom.protocol,
                atom.port,
                side.outcome,
            ));
        }
    }
    judged
}

/// An address of each piece: those of pods and nodes by themselves, since labels are theirs, and the first of each block and behind it.
fn peers(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let mut peers = BTreeSet::from(NOBODY);
    peers.extend(AddressOwners::of(snapshot).all().keys());
    let nodes = snapshot.nodes.values();
    peers.extend(nodes.flat_map(|node| node.addresses.iter().copied()));
    for peer in rules(snapshot).flat_map(|rule| &rule.peers) {
        if let Peer::Block { cidr, except } = peer {
            for block in std::iter::once(cidr).chain(except) {
                peers.extend(edges(*block));
            }
        }
    }
    peers
}

/// Every rule of every tier.
pub(crate) fn rules(snapshot: &Snapshot) -> impl Iterator<Item = &Rule> {
    let policies = snapshot.policies.values();
    let rules = policies.flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
    let tiers = snapshot.cluster_policies.values();
    let tiers = tiers.flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
    rules.chain(tiers.map(|rule| &rule.matches))
}

/// First address of a block, and the one behind its last, if there is one.
fn edges(block: IpNetwork) -> impl Iterator<Item = IpAddr> {
    std::iter::once(block.network()).chain(behind(block.broadcast()))
}

/// The address behind another; `None` behind the last of its family.
pub(crate) fn behind(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(IpAddr::V4(u32::from(address).checked_add(1)?.into())),
        IpAddr::V6(address) => Some(IpAddr::V6(u128::from(address).checked_add(1)?.into())),
    }
}

/// A port of each piece, of each protocol: the first of each range and the one behind it, and the ports that names stand for.
fn ports(snapshot: &Snapshot) -> BTreeSet<(Protocol, u16)> {
    let mut starts: BTreeMap<Protocol, BTreeSet<u16>> = BTreeMap::new();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        starts.insert(protocol, [1].into());
    }
    let mut cut = |protocol, first: u16, last: u16| {
        let starts: &mut BTreeSet<u16> = starts.entry(protocol).or_default();
        starts.insert(first);
        starts.extend(last.checked_add(1));
    };
    for port in rules(snapshot).flat_map(|rule| &rule.ports) {
        if let PortMatch::Range(first, last) = port.port {
            cut(port.protocol, first, last);
        }
    }
    for pod in snapshot.pods.values() {
        let pod: &Pod = pod;
        for port in &pod.ports {
            cut(port.protocol, port.port, port.port);
        }
    }
    let each = starts.into_iter();
    each.flat_map(|(protocol, ports)| ports.into_iter().map(move |port| (protocol, port)))
        .collect()
}
