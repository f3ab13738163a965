//! When live flows are judged again.

use std::net::IpAddr;

use proptest::prelude::*;

use super::super::narrows::narrows;
use super::super::{Planner, Step};
use super::planning::allow;
use crate::compile::testing::{PEERS, PORTS, ip, pod, snapshot, snapshots};
use crate::compile::{PolicyTables, compile, judge, policies};
use crate::model::{Direction, Peer, Pod, Policy};

fn pods() -> Vec<Pod> {
    vec![
        pod("a", "db", "db", "10.0.0.1"),
        pod("a", "web", "web", "10.0.0.2"),
    ]
}

fn tables(pods: Vec<Pod>, rules: Vec<Policy>) -> PolicyTables {
    policies(&snapshot(pods, rules))
}

/// [`allow`] from all pods of the namespace.
fn allow_all(name: &str) -> Policy {
    let mut policy = allow(name, "", 80);
    for rule in policy.ingress.iter_mut().flatten() {
        rule.peers = vec![Peer::Pods {
            namespaces: None,
            pods: None,
        }];
    }
    policy
}

#[test]
fn additions_take_nothing_away_and_removals_do() {
    let more = || {
        let mut pods = pods();
        pods.push(pod("a", "more", "web", "10.0.0.3"));
        pods
    };
    let small = tables(pods(), vec![allow("p", "web", 80)]);
    let cases = [
        ("isolation", tables(pods(), vec![]), small.clone()),
        (
            "fewer ports",
            tables(pods(), vec![allow("p", "web", 90)]),
            small.clone(),
        ),
        (
            "one rule less",
            tables(pods(), vec![allow("p", "web", 80), allow("q", "db", 80)]),
            small.clone(),
        ),
        // All classes are others then, since they are named by what is asked of a peer.
        (
            "a narrower selector",
            tables(pods(), vec![allow_all("p")]),
            small.clone(),
        ),
        (
            "one peer less",
            tables(more(), vec![allow("p", "web", 80)]),
            small,
        ),
    ];
    for (what, wide, narrow) in cases {
        assert!(narrows(&wide, &narrow), "{what}: removed");
        assert!(!narrows(&narrow, &wide), "{what}: added");
    }
}

#[test]
fn the_same_permissions_under_another_name_take_nothing_away() {
    let one = tables(pods(), vec![allow("p", "web", 80)]);
    let other = tables(pods(), vec![allow("q", "web", 80)]);
    assert!(!narrows(&one, &other));
}

#[test]
fn live_flows_are_judged_again_unless_they_are_kept() {
    let tables = |policies| compile(&snapshot(pods(), policies));
    let (wide, narrow) = (tables(vec![]), tables(vec![allow("p", "web", 80)]));
    for (mut planner, judged) in [
        (Planner::new(), true),
        (Planner::new().keeping_established(), false),
    ] {
        // Of what was before its first plan a planner knows nothing.
        let first = planner.plan(&wide).unwrap();
        let narrowing = planner.plan(&narrow).unwrap();
        planner.invalidate();
        let again = planner.plan(&narrow).unwrap();
        let widening = planner.plan(&wide).unwrap();
        let bumps =
            [first, narrowing, again, widening].map(|plan| plan.steps.contains(&Step::BumpEpoch));
        assert_eq!(bumps, [judged, judged, judged, false]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn what_passed_still_passes_unless_the_change_narrows(old in snapshots(), new in snapshots(), kinds in 1..4_u8) {
        let mut next = old.clone();
        if kinds & 1 != 0 {
            next.policies = new.policies;
            next.cluster_policies = new.cluster_policies;
        }
        if kinds & 2 != 0 {
            next.pods = new.pods;
        }
        let (old, new) = (policies(&old), policies(&next));
        let lost = lost(&old, &new);
        prop_assert!(narrows(&old, &new) || lost.is_none(), "{lost:?}");
        prop_assert!(!narrows(&old, &old));
    }
}

/// A sampled flow that passes in `old` and not in `new`, at a pod that both have.
fn lost(old: &PolicyTables, new: &PolicyTables) -> Option<(IpAddr, u8, u16)> {
    for (key, before) in &old.endpoints {
        let Some(after) = new.endpoints.get(key) else {
            continue;
        };
        for direction in [Direction::Ingress, Direction::Egress] {
            for peer in PEERS.iter().map(|peer| ip(peer)) {
                for (protocol, port) in PORTS {
                    let passes = |tables, entry| {
                        judge(tables, entry, direction, peer, protocol, port).passes()
                    };
                    if passes(old, before) && !passes(new, after) {
                        return Some((peer, protocol, port));
                    }
                }
            }
        }
    }
    None
}
