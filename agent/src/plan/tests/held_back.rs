//! Policies that do not fit.

use std::sync::Arc;

use weir_common::abi::EndpointKey;

use super::super::Planner;
use super::super::held_back::held_back;
use super::planning::{allow, serve};
use super::watch::Watch;
use crate::compile::testing::{ip, pod, policy, port, selector, snapshot};
use crate::compile::{EndpointEntry, PolicyTables, Tables, compile, judge, policies};
use crate::model::{
    Action, ClusterPolicy, ClusterRule, Direction, ObjectName, Pod, Policy, PortMatch, Protocol,
    Rule, Selector, Tier,
};

/// For pods of one app, so many ports that no row can hold them.
fn too_much(app: &str) -> Policy {
    let every_other = |protocol| {
        let ports = (1..=u16::MAX).step_by(2);
        ports.map(move |number| port(protocol, PortMatch::Range(number, number)))
    };
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    Policy {
        ingress: Some(vec![Rule {
            peers: vec![],
            ports: protocols.into_iter().flat_map(every_other).collect(),
        }]),
        ..policy("a", "too-much", selector(&[("app", app)]))
    }
}

fn pods() -> Vec<Pod> {
    vec![
        pod("a", "db", "db", "10.0.0.1"),
        pod("a", "web", "web", "10.0.0.2"),
    ]
}

/// The same with pods that have come since: one like another, one that only the policy which is too large is about.
fn more_pods() -> Vec<Pod> {
    let mut pods = pods();
    pods.push(pod("a", "more", "web", "10.0.0.3"));
    pods.push(pod("a", "big", "big", "10.0.0.4"));
    pods.push(pod("b", "free", "free", "10.0.0.5"));
    pods
}

/// What a pod says to a connection from another, and to one to it.
fn verdicts(tables: &Tables, address: &str, peer: &str, port: u16) -> [bool; 2] {
    let policies = &tables.policies;
    let mut entries = policies.endpoints.values();
    let ip = address.parse().unwrap();
    let entry = entries.find(|it| it.pod.ips.contains(&ip)).expect("a pod");
    [Direction::Ingress, Direction::Egress].map(|direction| {
        let peer = peer.parse().unwrap();
        judge(policies, entry, direction, peer, 6, port).passes()
    })
}

#[test]
fn pods_that_come_while_policies_do_not_fit_are_isolated() {
    let old = compile(&snapshot(pods(), vec![allow("p", "web", 80)]));
    let mut objects = snapshot(more_pods(), vec![allow("p", "web", 80), too_much("big")]);
    serve(&mut objects, 1, 1..3);
    let new = compile(&objects);
    let mut planner = Planner::new();
    let mut watch = Watch::default();
    let first = planner.plan(&old).unwrap();
    watch.execute(&first, &Tables::default(), &old).unwrap();
    planner.plan(&new).unwrap_err();
    let plan = planner.plan_what_fits(&new, false);
    let held = planner.held().unwrap().as_ref().clone();
    watch.execute(&plan, &old, &held).unwrap();
    assert_eq!(held.services, new.services);
    // Pods of before are as they were.
    assert_eq!(verdicts(&held, "10.0.0.1", "10.0.0.2", 80), [true, true]);
    assert_eq!(verdicts(&held, "10.0.0.1", "10.0.0.1", 80), [false, true]);
    // One that comes has what the former policies say of another that is like it,
    assert_eq!(verdicts(&held, "10.0.0.3", "10.0.0.2", 80), [true, true]);
    assert_eq!(verdicts(&held, "10.0.0.3", "10.0.0.1", 80), [false, true]);
    // or nothing, in the direction in which it should be isolated; where nothing isolates, it is free.
    assert_eq!(verdicts(&held, "10.0.0.4", "10.0.0.2", 80), [false, true]);
    assert_eq!(verdicts(&held, "10.0.0.5", "10.0.0.1", 1), [true, true]);
    // Once they fit, all is as it should be.
    let fits = compile(&snapshot(more_pods(), vec![allow("p", "web", 80)]));
    let plan = planner.plan(&fits).unwrap();
    watch.execute(&plan, &held, &fits).unwrap();
}

#[test]
fn while_policies_do_not_fit_pods_that_are_gone_are_gone_and_known_ones_keep_both_directions() {
    let both = |app: &str| Policy {
        egress: Some(vec![]),
        ..allow("p", app, 80)
    };
    let former = policies(&snapshot(pods(), vec![both("web")]));
    let deny = ClusterRule {
        name: String::new(),
        action: Action::Deny,
        matches: Rule::default(),
    };
    let tier = ClusterPolicy {
        name: ObjectName::cluster("deny"),
        uid: String::new(),
        labels: [].into(),
        tier: Tier::Admin,
        priority: 1,
        namespaces: Selector::default(),
        pods: selector(&[("app", "more")]),
        ingress: vec![deny],
        egress: vec![],
    };
    let stay = pods().into_iter().filter(|pod| pod.name.name == "web");
    let come = pod("a", "more", "more", "10.0.0.3");
    let mut objects = snapshot(stay.chain([come]).collect(), vec![]);
    objects
        .cluster_policies
        .insert(tier.name.name.clone(), Arc::new(tier));
    let desired = policies(&objects);
    let held = held_back(&former, &desired);
    let entry = |tables: &PolicyTables, address: &str| {
        let key = EndpointKey::address(ip(address).into());
        tables.endpoints.get(&key).cloned()
    };
    assert_eq!(entry(&held, "10.0.0.1"), None);
    let (known, now) = (entry(&former, "10.0.0.2"), entry(&held, "10.0.0.2"));
    let rows = |entry: Option<EndpointEntry>| entry.map(|it| (it.ingress, it.egress));
    assert_eq!(rows(now), rows(known));
    let wanted = entry(&desired, "10.0.0.3").unwrap().ingress;
    assert!(!desired.rows[&wanted].denials.is_empty());
    let closed = &held.rows[&entry(&held, "10.0.0.3").unwrap().ingress];
    assert!(closed.verdicts.is_empty() && closed.denials.is_empty());
}

#[test]
fn a_first_plan_that_does_not_fit_isolates_and_a_later_agents_leaves_what_is_there() {
    let new = compile(&snapshot(more_pods(), vec![too_much("big")]));
    assert!(Planner::new().plan_what_fits(&new, false).is_empty());
    let mut planner = Planner::new();
    assert!(!planner.plan_what_fits(&new, true).is_empty());
    let held = planner.held().unwrap();
    assert_eq!(verdicts(held, "10.0.0.4", "10.0.0.2", 1), [false, true]);
    assert_eq!(verdicts(held, "10.0.0.2", "10.0.0.4", 1), [true, true]);
}
