//! What plans look like, and that a wrong one is caught.

use std::collections::BTreeMap;

use weir_common::abi::{BACKEND_GONE, FrontendKey, control};

use super::super::{MemoryMaps, Plan, PlanError, Planner, Step, Table};
use super::watch::{Watch, fresh};
use crate::compile::testing::{self, NODE, edit, ip, pod, policy, port, selector, snapshot};
use crate::compile::{Tables, compile};
use crate::model::{
    Endpoint, ObjectName, Peer, Policy, PortMatch, Protocol, Rule, Selector, Service, ServicePort,
    Snapshot,
};

/// A Service with ready endpoints at these hosts of 10.8.0.0/16.
pub(super) fn serve(snapshot: &mut Snapshot, index: u8, hosts: impl Iterator<Item = u16>) {
    let endpoint = |host: u16| Endpoint {
        node: Some(NODE.to_owned()),
        ..Endpoint::new(std::net::Ipv4Addr::from(0x0a08_0000 + u32::from(host)).into())
    };
    let service = Service {
        name: ObjectName::new("a", format!("s{index}")),
        cluster_ips: vec![ip(&format!("172.20.0.{index}"))],
        ports: vec![ServicePort {
            port: 80,
            ..ServicePort::default()
        }],
        ..Service::default()
    };
    testing::serve(snapshot, service, hosts.map(endpoint));
}

/// Ingress to the pods of namespace `a` from pods with `app` on TCP ports up to `last`.
pub(super) fn allow(name: &str, app: &str, last: u16) -> Policy {
    Policy {
        ingress: Some(vec![Rule {
            peers: vec![Peer::Pods {
                namespaces: None,
                pods: Some(selector(&[("app", app)])),
            }],
            ports: vec![port(Protocol::Tcp, PortMatch::Range(80, last))],
        }]),
        ..policy("a", name, Selector::default())
    }
}

/// Two states that differ in everything that can differ.
fn states() -> (Tables, Tables) {
    let pods = |last: &str| {
        vec![
            pod("a", "db", "db", "10.0.0.1"),
            pod("a", "web", "web", "10.0.0.2"),
            pod("a", "last", "web", last),
        ]
    };
    let mut old = snapshot(pods("10.0.0.3"), vec![allow("p", "web", 80)]);
    serve(&mut old, 1, 1..4);
    serve(&mut old, 2, 1..3);
    let mut new = snapshot(
        pods("10.0.0.4"),
        vec![allow("p", "db", 81), allow("q", "web", 82)],
    );
    serve(&mut new, 1, 3..6);
    serve(&mut new, 3, 1..3);
    (compile(&old), compile(&new))
}

/// A planner and maps in the old state, and the plan to the new one.
fn ready() -> (Watch, Plan, Tables, Tables) {
    let (old, new) = states();
    let mut planner = Planner::new();
    let mut watch = Watch::default();
    let first = planner.plan(&old).unwrap();
    watch.execute(&first, &Tables::default(), &old).unwrap();
    let plan = planner.plan(&new).unwrap();
    (watch, plan, old, new)
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn a_plan_in_its_own_order_is_safe() {
    let (mut watch, plan, old, new) = ready();
    assert!(plan.steps.len() > 20, "{plan}");
    watch.execute(&plan, &old, &new).unwrap();
}

/// Carries out a spoilt plan and wants it caught.
fn caught(spoil: impl FnOnce(&mut Vec<Step>)) {
    let (mut watch, mut plan, old, new) = ready();
    spoil(&mut plan.steps);
    watch.execute(&plan, &old, &new).unwrap_err();
}

/// Moves the steps that `which` names to the front.
fn first(which: impl Fn(&Step) -> bool) -> impl FnOnce(&mut Vec<Step>) {
    move |steps| steps.sort_by_key(|step| !which(step))
}

#[test]
fn every_wrong_order_is_caught() {
    caught(|steps| steps.reverse());
    caught(first(|step| matches!(step, Step::Control { .. })));
    caught(first(|step| matches!(step, Step::Delete { .. })));
    let writes = |wanted: Table| move |step: &Step| matches!(step, Step::Write { table, .. } if *table == wanted);
    caught(first(writes(Table::Frontend)));
    caught(first(writes(Table::Backend)));
    caught(|steps| steps.sort_by_key(writes(Table::Verdict)));
    caught(|steps| steps.sort_by_key(writes(Table::Slot)));
    // Deleting before the grace period shows to programs that began before the flip.
    caught(|steps| steps.retain(|step| *step != Step::Wait));
}

#[test]
fn the_first_plan_builds_a_generation_and_the_second_is_empty() {
    let (old, _) = states();
    let mut planner = Planner::new();
    let lines = lines(&planner.plan(&old).unwrap());
    assert!(
        lines[0].starts_with("begin frontend=1024 slot=4096 source=1024 endpoint=512 class=4096"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("write backend 0 = active fingerprint"),
        "{lines:?}"
    );
    assert_eq!(lines[lines.len() - 3..], ["select", "bump epoch", "wait"]);
    assert!(planner.plan(&old).unwrap().is_empty());
}

#[test]
fn a_planner_says_whether_the_maps_hold_what_it_knows() {
    let mut planner = Planner::new();
    assert!(planner.held().is_none());
    let nothing = Tables::default();
    assert!(
        planner.plan_what_fits(&nothing, false).is_empty(),
        "no policies to leave"
    );
    planner.plan(&Tables::default()).expect("plan");
    assert!(planner.held().is_some());
    planner.invalidate();
    assert!(planner.held().is_none());
    // The maps may hold anything, so all of it is written, policies as they were wanted last.
    assert!(!planner.plan_what_fits(&nothing, false).is_empty());
    assert!(planner.held().is_some());
}

#[test]
fn one_endpoint_more_costs_its_set_and_one_element() {
    let mut objects = snapshot(vec![], vec![]);
    serve(&mut objects, 1, 1..3);
    serve(&mut objects, 2, 1..3);
    let mut planner = Planner::new();
    planner.plan(&compile(&objects)).unwrap();
    serve(&mut objects, 1, 1..4);
    let plan = planner.plan(&compile(&objects)).unwrap();
    let written: Vec<&str> = plan
        .steps
        .iter()
        .map(|step| match step {
            Step::Write { table, .. } => table.name(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(written, ["backend", "slot", "slot", "slot", "frontend"]);
}

#[test]
fn a_peer_that_comes_costs_one_element_and_the_flip() {
    let mut pods = vec![
        pod("a", "db", "db", "10.0.0.1"),
        pod("a", "web", "web", "10.0.0.2"),
    ];
    let mut planner = Planner::new();
    planner
        .plan(&compile(&snapshot(
            pods.clone(),
            vec![allow("p", "web", 80)],
        )))
        .unwrap();
    let mut remote = pod("a", "more", "web", "10.0.0.3");
    remote.node = "there".to_owned();
    pods.push(remote);
    let plan = planner
        .plan(&compile(&snapshot(pods, vec![allow("p", "web", 80)])))
        .unwrap();
    assert_eq!(
        lines(&plan),
        [
            "write class 10.0.0.3 = classes -1 1",
            "control version = 1",
            "wait"
        ]
    );
}

/// Replaces a set of 900 again and again, which makes room scarce; `spoil` may change each plan. Returns the number of plans
/// that began with a grace period.
fn churn(spoil: impl Fn(&mut Vec<Step>)) -> Result<usize, String> {
    let mut planner = Planner::new();
    let mut watch = Watch::default();
    let mut waits = 0;
    for round in 0..24_u16 {
        let mut objects = snapshot(vec![], vec![]);
        serve(&mut objects, 1, (round * 7)..(round * 7 + 900));
        let tables = compile(&objects);
        let mut plan = planner.plan(&tables).unwrap();
        let begins = plan.steps.iter().any(|step| matches!(step, Step::Begin(_)));
        assert_eq!(begins, round == 0, "as many slots as before need no growth");
        waits += usize::from(plan.steps[0] == Step::Wait);
        spoil(&mut plan.steps);
        watch.hold(&plan)?;
        assert_eq!(
            watch.maps.canonical(),
            fresh(&tables).canonical(),
            "round {round}"
        );
    }
    Ok(waits)
}

#[test]
fn runs_are_used_again_only_after_a_grace_period() {
    let waits = churn(|_| ()).unwrap();
    assert!((3..12).contains(&waits), "{waits}");
    churn(|steps| steps.retain(|step| *step != Step::Wait)).unwrap_err();
}

#[test]
fn growth_builds_a_larger_generation_and_keeps_ids() {
    let mut planner = Planner::new();
    let mut maps = MemoryMaps::new();
    let mut objects = snapshot(vec![], vec![]);
    serve(&mut objects, 1, 0..100);
    maps.execute(&planner.plan(&compile(&objects)).unwrap())
        .unwrap();
    let before: BTreeMap<_, _> = maps
        .backends()
        .into_iter()
        .map(|(id, state)| (state.fingerprint, id))
        .collect();
    serve(&mut objects, 2, 0..5000);
    let tables = compile(&objects);
    let plan = planner.plan(&tables).unwrap();
    assert!(
        lines(&plan)[0].contains("slot=16384"),
        "{}",
        lines(&plan)[0]
    );
    maps.execute(&plan).unwrap();
    assert_eq!(maps.canonical(), fresh(&tables).canonical());
    for (id, state) in maps.backends() {
        assert!(
            before
                .get(&state.fingerprint)
                .is_none_or(|known| *known == id)
        );
    }
}

#[test]
fn what_is_too_large_is_refused_by_name_and_changes_nothing() {
    let (old, _) = states();
    let mut planner = Planner::new();
    planner.plan(&old).unwrap();
    let mut objects = snapshot(vec![], vec![]);
    for service in 0..5 {
        serve(&mut objects, service, 0..1);
    }
    edit(&mut objects.services, |service| {
        let ports = 1..60_000 + u16::from(service.name.name == "s2");
        let port = |port| ServicePort {
            port,
            ..ServicePort::default()
        };
        service.ports = ports.map(port).collect();
    });
    let Err(error) = planner.plan(&compile(&objects)) else {
        panic!("there is a plan");
    };
    let PlanError::TooLarge {
        table,
        need,
        limit,
        largest,
    } = &error;
    // Each address has an entry for its other ports.
    assert_eq!((*table, *need, *limit), (Table::Frontend, 300_001, 1 << 18));
    assert_eq!(largest[0].to_string(), "Service a/s2 (60001)");
    assert!(
        error.to_string().contains("keeps its former state"),
        "{error}"
    );
    assert!(
        planner.plan(&old).unwrap().is_empty(),
        "the planner still knows what the maps hold"
    );
}

#[test]
fn a_failed_plan_is_made_good_by_a_whole_generation() {
    let (mut watch, plan, _, new) = ready();
    let (old, _) = states();
    let mut planner = Planner::new();
    planner.plan(&old).unwrap();
    planner.plan(&new).unwrap();
    for step in &plan.steps[..plan.steps.len() / 2] {
        watch.maps.apply(step).unwrap();
    }
    planner.invalidate();
    planner.set_version(watch.maps.control(control::VERSION));
    let repair = planner.plan(&new).unwrap();
    watch.maps.execute(&repair).unwrap();
    assert_eq!(watch.maps.canonical(), fresh(&new).canonical());
}

#[test]
fn a_backend_that_returns_gets_its_id_back() {
    let mut planner = Planner::new();
    let mut maps = MemoryMaps::new();
    let mut step = |hosts: std::ops::Range<u16>| {
        let mut objects = snapshot(vec![], vec![]);
        serve(&mut objects, 1, hosts);
        maps.execute(&planner.plan(&compile(&objects)).unwrap())
            .unwrap();
        let key = FrontendKey {
            address: ip("172.20.0.1").into(),
            port: 80,
            protocol: 6,
            reserved: 0,
        };
        let frontend = maps.frontend(&key).unwrap();
        let slots = maps
            .slots(frontend.internal_base, frontend.internal_count)
            .unwrap();
        (slots, maps.backends())
    };
    let (before, _) = step(1..3);
    let (_, states) = step(2..3);
    assert_eq!(states[before[0].backend as usize].1.state, BACKEND_GONE);
    let (after, _) = step(1..3);
    assert_eq!(before, after);
}

/// Ingress to pods with `app` from blocks.
fn admit(name: &str, app: &str, blocks: &[&str]) -> Policy {
    let block = |cidr: &&str| Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: vec![],
    };
    Policy {
        ingress: Some(vec![Rule {
            peers: blocks.iter().map(block).collect(),
            ports: vec![],
        }]),
        ..policy("a", name, selector(&[("app", app)]))
    }
}

/// Prefixes that come and go must answer like the one around them, and an edited rule must get a new row although its id,
/// ports and classes stay.
#[test]
fn edited_blocks_are_followed_at_every_moment() {
    let (wide, narrow) = ("10.0.0.0/8", "10.0.1.0/24");
    let with_both = admit("q", "web", &[wide, narrow]);
    let history = [
        vec![admit("p", "db", &[wide])],
        vec![admit("p", "db", &[wide, narrow])],
        vec![admit("p", "db", &[wide])],
        vec![admit("p", "db", &[wide]), with_both.clone()],
        vec![admit("p", "db", &[narrow]), with_both],
    ];
    let mut planner = Planner::new();
    let mut watch = Watch::default();
    let mut old = Tables::default();
    for policies in history {
        let pods = vec![
            pod("a", "db", "db", "10.0.0.1"),
            pod("a", "web", "web", "10.0.0.2"),
        ];
        let new = compile(&snapshot(pods, policies));
        let plan = planner.plan(&new).unwrap();
        watch
            .execute(&plan, &old, &new)
            .unwrap_or_else(|message| panic!("{message}\n{plan}"));
        old = new;
    }
}
