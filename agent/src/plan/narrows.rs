//! Whether a change takes a permission away, so that live flows must be judged again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_common::abi::{PrefixKey, Range};

use super::policies::around;
use crate::compile::{ClassId, PolicyTables, RowId, class_of};

/// Whether some flow that `old` lets pass at a pod that stays would not pass in `new`. Compares what the rows allow, not how
/// they say it: other rule ids, classes or rows with the same meaning take nothing away.
pub(super) fn narrows(old: &PolicyTables, new: &PolicyTables) -> bool {
    let mut rows: BTreeSet<(RowId, RowId)> = BTreeSet::new();
    for (key, before) in &old.endpoints {
        if let Some(after) = new.endpoints.get(key) {
            rows.insert((before.ingress, after.ingress));
            rows.insert((before.egress, after.egress));
        }
    }
    rows.retain(|(_, after)| *after != RowId::OPEN);
    if rows.is_empty() {
        return false;
    }
    let classes = class_pairs(old, new);
    rows.iter().any(|&(before, after)| {
        before == RowId::OPEN
            || classes
                .iter()
                .filter(|(from, to)| before != after || from != to)
                .any(|&(from, to)| !covers(ranges(new, after, to), ranges(old, before, from)))
    })
}

/// Every pair of classes that some address has before and after.
fn class_pairs(old: &PolicyTables, new: &PolicyTables) -> BTreeSet<(ClassId, ClassId)> {
    let mut pairs = BTreeSet::from([(ClassId::WORLD, ClassId::WORLD)]);
    for address in old.addresses.keys().chain(new.addresses.keys()) {
        let address = IpAddr::from(*address);
        pairs.insert((class_of(old, address), class_of(new, address)));
    }
    let class = |tables: &PolicyTables, key: &PrefixKey| match tables.prefixes.get(key) {
        Some(class) => *class,
        None => around(&tables.prefixes, key)
            .copied()
            .unwrap_or(ClassId::WORLD),
    };
    for key in old.prefixes.keys().chain(new.prefixes.keys()) {
        pairs.insert((class(old, key), class(new, key)));
    }
    pairs
}

fn ranges(tables: &PolicyTables, row: RowId, class: ClassId) -> &[Range] {
    let verdicts = tables.rows.get(&row).map(|row| &row.verdicts);
    verdicts
        .and_then(|verdicts| verdicts.get(&class))
        .map_or(&[], |ranges| ranges)
}

/// Whether every number in `inner` is in `outer`; both sorted and disjoint.
fn covers(outer: &[Range], inner: &[Range]) -> bool {
    inner.iter().all(|range| {
        let mut next = u64::from(range.first);
        let start = outer.partition_point(|candidate| candidate.last < range.first);
        for candidate in &outer[start..] {
            if u64::from(candidate.first) > next || next > u64::from(range.last) {
                break;
            }
            next = u64::from(candidate.last) + 1;
        }
        next > u64::from(range.last)
    })
}
