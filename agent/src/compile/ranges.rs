//! Disjoint ranges of protocols and ports, each with the rule that allows it.

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

/// Cuts overlapping intervals into sorted, disjoint ranges. Where several cover a port, the one with the smallest rank wins the
/// attribution; `rule` gives the rule id of a rank.
pub(super) fn disjoint(intervals: &[Interval], rule: impl Fn(usize) -> u32) -> Vec<Range> {
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
        let Some(&(winner, _)) = active.first() else {
            continue;
        };
        if next > at {
            append(&mut ranges, at as u32, (next - 1) as u32, rule(winner));
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
        disjoint(intervals, |rank| rank as u32 + 100)
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
