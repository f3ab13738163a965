//! The tables' own answer, worked out in user space as the kernel programs would.

use std::net::IpAddr;
use std::sync::Arc;

use weir_common::abi::{Address, PrefixKey, RULE_NOT_ISOLATED, Range, range_bound};

use super::{ClassId, EndpointEntry, PolicyTables, RowId};
use crate::model::Direction;

/// What the tables say about a new flow at one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No tier decides.
    Open,
    /// The rule with this id allows the flow.
    Allowed(u32),
    /// The rule with this id denies the flow; without one, NetworkPolicies isolate the pod, and none of their rules allows it.
    Denied(Option<u32>),
}

impl Verdict {
    /// Whether the flow passes.
    #[must_use]
    pub fn passes(self) -> bool {
        !matches!(self, Self::Denied(_))
    }
}

/// Class of a peer: its own, else that of the longest prefix, else the world's.
#[must_use]
pub fn class_of(tables: &PolicyTables, peer: IpAddr) -> ClassId {
    let address = Address::from(peer);
    if let Some(class) = tables.addresses.get(&address) {
        return *class;
    }
    let number = u128::from_be_bytes(address.bytes());
    (0..=128_u32)
        .rev()
        .find_map(|bits| tables.prefixes.get(&prefix_key(number, bits)))
        .copied()
        .unwrap_or(ClassId::WORLD)
}

/// Key of the prefix of `bits` bits that holds an address, given as a big-endian number.
pub(crate) fn prefix_key(address: u128, bits: u32) -> PrefixKey {
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    PrefixKey {
        bits,
        address: Address::from_bytes((address & mask).to_be_bytes()),
    }
}

/// Judges a new flow between a local pod and a peer. `port` is the destination's in both directions, after Service
/// translation, and 0 for protocols without ports. What never asks the tables (a pod's traffic with itself, ingress from its
/// own node) is the caller's to know.
#[must_use]
pub fn judge(
    tables: &PolicyTables,
    endpoint: &EndpointEntry,
    direction: Direction,
    peer: IpAddr,
    protocol: u8,
    port: u16,
) -> Verdict {
    let row = match direction {
        Direction::Ingress => endpoint.ingress,
        Direction::Egress => endpoint.egress,
    };
    if row == RowId::OPEN {
        return Verdict::Open;
    }
    let Some(row) = tables.rows.get(&row) else {
        return Verdict::Denied(None);
    };
    let class = class_of(tables, peer);
    let wanted = range_bound(protocol, port);
    match rule_of(row.verdicts.get(&class), wanted) {
        Some(RULE_NOT_ISOLATED) => Verdict::Open,
        Some(rule) => Verdict::Allowed(rule),
        None => Verdict::Denied(rule_of(row.denials.get(&class), wanted)),
    }
}

/// The rule whose range holds a protocol and port.
fn rule_of(ranges: Option<&Arc<[Range]>>, wanted: u32) -> Option<u32> {
    let ranges = ranges?;
    let behind = ranges.partition_point(|range| range.first <= wanted);
    let range = ranges[behind.checked_sub(1)?];
    (wanted <= range.last).then_some(range.rule)
}
