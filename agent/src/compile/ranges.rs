//! Disjoint ranges of protocols and ports, each with the rule that decides about it.

use std::collections::BTreeSet;

use weir_common::abi::{Range, range_bound};

use crate::model::Protocol;

/// Every port of every protocol.
pub(super) const EVERYTHING: (u32, u32) = (range_bound(0, 0), range_bound(255, u16::MAX));

/// Every port of one protocol.
pub(super) fn whole(protocol: Protocol) -> (u32, u32) {
    ports(protocol, 0, u16::MAX)
}

/// Ports `first` to `last` of one protocol.
pub(super) fn ports(protocol: Protocol, first: u16, last: u16) -> (u32, u32) {
    (
        range_bound(protocol.number(), first),
        range_bound(protocol.number(), last),
    )
}

/// From, to, and the rank of the rule that covers this.
pub(super) type Interval = (u32, u32, usize);

/// Cuts overlapping intervals into sorted, disjoint ranges. `decide` gives the rule id of the one that wins out of the ranks that
/// cover a port, which come in order; where it gives none there is no range.
pub(super) fn disjoint(
    intervals: &[Interval],
    decide: impl Fn(&mut dyn Iterator<Item = usize>) -> Option<u32>,
) -> Vec<Range> {
    // Ends come as the first point behind the interval; 64 bits, since the last interval may end at the last number.
    let mut edges: Vec<(u64, bool, usize, usize)> = Vec::with_capacity(intervals.len() * 2);
    for (position, &(first, last, rank)) in intervals.iter().enumerate() {
        edges.push((u64::from(first), true, rank, position));
        edges.push((u64::from(last) + 1, false, rank, position));
    }
    edges.sort_unstable();

    let mut ranges: Vec<Range> = Vec::new();
    let mut active: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (index, &(at, opens, rank, position)) in edges.iter().enumerate() {
        if opens {
            active.insert((rank, position));
        } else {
            active.remove(&(rank, position));
        }
        let Some(&(next, ..)) = edges.get(index + 1) else {
            break;
        };
        if next == at {
            continue;
        }
        if let Some(rule) = decide(&mut active.iter().map(|(rank, _)| *rank)) {
            append(&mut ranges, at as u32, (next - 1) as u32, rule);
        }
    }
    ranges
}

/// Appends a range, or lengthens the last one when it ends right before with the same rule.
fn append(ranges: &mut Vec<Range>, first: u32, last: u32, rule: u32) {
    match ranges.last_mut() {
        Some(previous) if previous.rule == rule && previous.last + 1 == first => {
            previous.last = last;
        }
        _ => ranges.push(Range {
            first,
            last,
            rule,
            reserved: 0,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(intervals: &[(u32, u32, usize)]) -> Vec<(u32, u32, u32)> {
        disjoint(intervals, |ranks| {
            ranks.next().map(|rank| rank as u32 + 100)
        })
        .iter()
        .map(|range| (range.first, range.last, range.rule))
        .collect()
    }

    #[test]
    fn smallest_rank_wins_where_intervals_overlap() {
        assert_eq!(cut(&[]), vec![]);
        assert_eq!(
            cut(&[(10, 20, 1), (15, 15, 0), (18, 30, 2)]),
            vec![(10, 14, 101), (15, 15, 100), (16, 20, 101), (21, 30, 102)]
        );
    }

    #[test]
    fn neighbours_of_one_rule_join_and_of_two_rules_do_not() {
        assert_eq!(cut(&[(1, 2, 0), (3, 4, 0)]), vec![(1, 4, 100)]);
        assert_eq!(cut(&[(1, 2, 0), (3, 4, 1)]), vec![(1, 2, 100), (3, 4, 101)]);
    }

    #[test]
    fn a_rank_may_leave_it_to_a_later_one_or_have_no_range() {
        let passing = |mut ranks: &mut dyn Iterator<Item = usize>| {
            let rank = Iterator::find(&mut ranks, |rank| *rank != 0)?;
            (rank != 1).then_some(rank as u32)
        };
        let ranges = disjoint(&[(1, 30, 0), (10, 12, 1), (10, 20, 2)], passing);
        let ranges: Vec<_> = ranges.iter().map(|r| (r.first, r.last, r.rule)).collect();
        assert_eq!(ranges, vec![(13, 20, 2)]);
    }

    #[test]
    fn everything_ends_at_the_last_port_of_the_last_protocol() {
        let (first, last) = EVERYTHING;
        assert_eq!(cut(&[(first, last, 0)]), vec![(0, 0x00ff_ffff, 100)]);
    }

    proptest! {
        #[test]
        fn every_point_has_the_rule_of_the_smallest_rank_over_it(
            intervals in prop::collection::vec((0_u32..40, 0_u32..8, 0_usize..4), 0..10)
        ) {
            let intervals: Vec<_> = intervals.iter().map(|&(first, length, rank)| (first, first + length, rank)).collect();
            let ranges = cut(&intervals);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            for point in 0..50 {
                let expected = intervals.iter().filter(|(first, last, _)| (*first..=*last).contains(&point)).map(|(.., rank)| *rank as u32 + 100).min();
                let actual = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&point)).map(|(.., rule)| *rule);
                prop_assert_eq!(actual, expected);
            }
        }
    }
}
