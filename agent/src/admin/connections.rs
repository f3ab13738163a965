//! Connections that a node still knows of: who uses what.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_common::abi::{Flow, FlowKey};

use super::lists::{FlowRow, flow_rows};
use crate::flows::{Owner, Peer, Record, Seen, SeenEnd};
use crate::model::{Protocol, Snapshot};

/// The connections with ports that were let through, of those that are tracked and those that there are records of. The node has the address by
/// which everybody knows it.
#[must_use]
pub fn connections(
    tracked: &[(FlowKey, Flow)],
    records: &[Record],
    snapshot: &Snapshot,
) -> Vec<Seen> {
    let rows = flow_rows(tracked);
    let all = records
        .iter()
        .filter_map(of_record)
        .chain(rows.iter().filter_map(of_row));
    // A connection may be both tracked and recorded, at each of its ends; what a record knows of the pods comes first.
    let mut once: BTreeMap<_, (SeenEnd, SeenEnd)> = BTreeMap::new();
    for mut one in all {
        for end in [&mut one.from, &mut one.to] {
            end.address = known_as(end.address, snapshot);
        }
        let addresses = (one.from.address, one.to.address);
        let key = (addresses, one.from_port, one.to_port, one.protocol);
        once.entry(key).or_insert((one.from, one.to));
    }
    let mut between: BTreeMap<_, usize> = BTreeMap::new();
    for ((_, _, port, protocol), (from, to)) in once {
        *between.entry((from, to, protocol, port)).or_default() += 1;
    }
    let seen = between.into_iter();
    seen.map(|((from, to, protocol, port), connections)| Seen {
        from,
        to,
        protocol,
        port,
        connections,
    })
    .collect()
}

/// An address that only this node has is the node's, under which it is known elsewhere.
fn known_as(address: IpAddr, snapshot: &Snapshot) -> IpAddr {
    let node = snapshot.nodes.get(&snapshot.node_name);
    let known = node.map(|node| &node.addresses[..]).unwrap_or_default();
    if known.contains(&address) || !snapshot.devices.addresses.contains(&address) {
        return address;
    }
    let mut known = known.iter();
    let same = known.find(|known| known.is_ipv4() == address.is_ipv4());
    same.copied().unwrap_or(address)
}

struct One {
    from: SeenEnd,
    from_port: u16,
    to: SeenEnd,
    to_port: u16,
    protocol: Protocol,
}

fn of_record(record: &Record) -> Option<One> {
    if record.verdict.is_refusal() {
        return None;
    }
    let end = |peer: &Peer| SeenEnd {
        address: peer.address,
        pod: match &peer.owner {
            Some(Owner::Pod(pod)) => Some(pod.clone()),
            _ => None,
        },
    };
    let to = record.backend.as_ref().unwrap_or(&record.destination);
    Some(One {
        from: end(&record.source),
        from_port: record.source.port,
        to: end(to),
        to_port: to.port,
        protocol: record.protocol.parse().ok()?,
    })
}

fn of_row(row: &FlowRow) -> Option<One> {
    let end = |address: IpAddr| SeenEnd { address, pod: None };
    let mut protocols = Protocol::ALL.into_iter();
    Some(One {
        from: end(row.source),
        from_port: row.source_port,
        to: end(row.destination),
        to_port: row.destination_port,
        protocol: protocols.find(|protocol| protocol.number() == row.protocol)?,
    })
}
