//! Whether a change takes a permission away, so that live flows must be judged again.

use std::collections::BTreeSet;
use std::net::IpAddr;

use imbl::ordmap::DiffItem;
use weir_common::abi::{PrefixKey, Range};

use super::policies::around;
use crate::compile::{ClassId, PolicyTables, RowId, class_of};

/// Whether some flow that `old` lets pass at a pod that stays would not pass in `new`. Compares what the rows allow, not how
/// they say it: other rule ids, classes or rows with the same meaning take nothing away.
pub(super) fn narrows(old: &PolicyTables, new: &PolicyTables) -> bool {
    let rows = row_pairs(old, new);
    let classes = class_pairs(old, new);
    let loses = |before: RowId, after: RowId, from: ClassId, to: ClassId| {
        !covers(ranges(new, after, to), ranges(old, before, from))
    };
    // Addresses that stay of their class.
    let stays = |class: &ClassId| *class == ClassId::WORLD || new.classes.contains_key(class);
    rows.iter().any(|&(before, after)| {
        let mut told = old
            .rows
            .get(&before)
            .into_iter()
            .flat_map(|row| row.verdicts.keys());
        before == RowId::OPEN
            || classes
                .iter()
                .any(|&(from, to)| loses(before, after, from, to))
            || before != after
                && told.any(|class| stays(class) && loses(before, after, *class, *class))
    })
}

/// Rows of pods that stay, before and after, without those that do not isolate any more.
fn row_pairs(old: &PolicyTables, new: &PolicyTables) -> BTreeSet<(RowId, RowId)> {
    let mut rows = BTreeSet::new();
    for (key, before) in &old.endpoints {
        if let Some(after) = new.endpoints.get(key) {
            rows.insert((before.ingress, after.ingress));
            rows.insert((before.egress, after.egress));
        }
    }
    rows.retain(|(_, after)| *after != RowId::OPEN);
    rows
}

/// Every pair of different classes that some address has before and after.
fn class_pairs(old: &PolicyTables, new: &PolicyTables) -> BTreeSet<(ClassId, ClassId)> {
    let mut pairs = BTreeSet::new();
    for item in old.addresses.diff(&new.addresses) {
        let address = IpAddr::from(*key_of(&item));
        pairs.insert((class_of(old, address), class_of(new, address)));
    }
    let class = |tables: &PolicyTables, key: &PrefixKey| match tables.prefixes.get(key) {
        Some(class) => *class,
        None => around(&tables.prefixes, key)
            .copied()
            .unwrap_or(ClassId::WORLD),
    };
    for item in old.prefixes.diff(&new.prefixes) {
        let key = key_of(&item);
        pairs.insert((class(old, key), class(new, key)));
    }
    pairs.retain(|(from, to)| from != to);
    pairs
}

fn key_of<'a, K, V>(item: &DiffItem<'a, 'a, K, V>) -> &'a K {
    match item {
        DiffItem::Add(key, _)
        | DiffItem::Remove(key, _)
        | DiffItem::Update { new: (key, _), .. } => key,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_covered_by_one_or_by_neighbours() {
        let ranges = |bounds: &[(u32, u32)]| -> Vec<Range> {
            let range = |&(first, last): &(u32, u32)| Range {
                first,
                last,
                ..Range::default()
            };
            bounds.iter().map(range).collect()
        };
        for (outer, inner, covered) in [
            (&[][..], &[][..], true),
            (&[], &[(80, 80)], false),
            (&[(80, 90)], &[], true),
            (&[(80, 90)], &[(80, 90)], true),
            (&[(80, 90)], &[(79, 80)], false),
            (&[(80, 90)], &[(90, 91)], false),
            (&[(1, 2), (80, 90), (95, 99)], &[(81, 82), (84, 84)], true),
            (&[(80, 84), (85, 90)], &[(80, 90)], true),
            (&[(80, 84), (85, 90)], &[(80, 85)], true),
            (&[(80, 82), (85, 90)], &[(80, 90)], false),
            (&[(80, 84), (85, 90)], &[(80, 91)], false),
            (&[(0, 9), (20, u32::MAX)], &[(30, u32::MAX)], true),
        ] {
            assert_eq!(
                covers(&ranges(outer), &ranges(inner)),
                covered,
                "{outer:?} {inner:?}"
            );
        }
    }
}
