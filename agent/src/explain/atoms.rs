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
    for protocol in Protocol::ALL {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::policies;
    use crate::compile::testing::{ip, pod, policy, port, snapshot};
    use crate::model::{Node, Policy, Selector};

    /// A pod that lets in one port from a block but for a smaller one.
    fn one(first: u16, last: u16) -> Snapshot {
        let block = Peer::Block {
            cidr: "10.1.0.0/16".parse().unwrap(),
            except: vec!["10.1.2.0/24".parse().unwrap()],
        };
        let policy = Policy {
            ingress: Some(vec![Rule {
                peers: vec![block],
                ports: vec![port(Protocol::Tcp, PortMatch::Range(first, last))],
            }]),
            ..policy("a", "p", Selector::default())
        };
        let mut snapshot = snapshot(vec![pod("a", "db", "db", "10.0.0.1")], vec![policy]);
        let node = Node {
            addresses: vec![ip("10.9.0.1")],
            ..Node::default()
        };
        snapshot.nodes.insert("there".to_owned(), node.into());
        snapshot
    }

    #[test]
    fn a_question_is_asked_of_each_piece() {
        let snapshot = one(80, 81);
        let texts = |peers: BTreeSet<IpAddr>| {
            let peers = peers.into_iter().map(|it| it.to_string());
            peers.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            texts(peers(&snapshot)),
            "10.0.0.1 10.1.0.0 10.1.2.0 10.1.3.0 10.2.0.0 10.9.0.1 192.0.2.200 2001:db8::c8"
        );
        let [tcp, udp, sctp] = Protocol::ALL;
        assert_eq!(
            ports(&snapshot),
            [(tcp, 1), (tcp, 80), (tcp, 82), (udp, 1), (sctp, 1)].into()
        );
        let judged = judge_atoms(&snapshot, &policies(&snapshot), usize::MAX);
        // One pod, seven peers of its family, five ports, two directions; the pod itself is not asked about.
        let (asked, atoms) = (6 * 5 * 2, 7 * 5 * 2);
        assert_eq!((judged.asked, judged.atoms), (asked, atoms));
        assert_eq!(judged.disagreements, [""; 0]);
        // Fewer, evenly spread.
        let few = judge_atoms(&snapshot, &policies(&snapshot), 20);
        assert_eq!((few.asked, few.atoms), (15, atoms));
    }

    #[test]
    fn tables_that_say_something_else_are_told() {
        let judged = judge_atoms(&one(80, 81), &policies(&one(80, 80)), usize::MAX);
        assert_eq!(judged.disagreements, [""; 0], "port 81 is asked as port 80");
        let judged = judge_atoms(&one(80, 81), &policies(&one(81, 81)), usize::MAX);
        let told: Vec<_> = judged
            .disagreements
            .iter()
            .map(|it| it.split(": policies say").next().unwrap())
            .collect();
        assert_eq!(
            told,
            [
                "pod a/db, ingress with 10.1.0.0, TCP port 80",
                "pod a/db, ingress with 10.1.3.0, TCP port 80",
            ]
        );
    }

    #[test]
    fn nothing_is_behind_the_last_address() {
        assert_eq!(behind(ip("10.0.0.255")), Some(ip("10.0.1.0")));
        assert_eq!(behind(ip("255.255.255.255")), None);
        assert_eq!(behind(ip("fd00::ffff")), Some(ip("fd00::1:0")));
        assert_eq!(behind(IpAddr::from([0xff; 16])), None);
    }
}
