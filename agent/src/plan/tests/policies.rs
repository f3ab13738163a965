//! Policies that find no room, and many that come and go.

use weir_common::abi::control;

use super::super::sizes::RANGES_PER_VERDICT;
use super::super::{MemoryMaps, Plan, PlanError, Planner, Step, Table, entries};
use super::planning::allow;
use super::watch::fresh;
use crate::compile::testing::{edit, ip, pod, policy, port, selector, snapshot};
use crate::compile::{Tables, compile};
use crate::model::{Peer, Pod, Policy, PortMatch, Protocol, Rule, Selector, Snapshot};

fn pods() -> Vec<Pod> {
    vec![
        pod("a", "db", "db", "10.0.0.1"),
        pod("a", "web", "web", "10.0.0.2"),
    ]
}

fn tables(policies: Vec<Policy>) -> Tables {
    compile(&snapshot(pods(), policies))
}

/// Ingress from everybody on every other port of that many protocols.
fn every_other_port(name: &str, protocols: &[Protocol]) -> Policy {
    let odd = |protocol: &Protocol| {
        let numbers = (1..=u16::MAX).step_by(2);
        let ports = numbers.map(|number| port(*protocol, PortMatch::Range(number, number)));
        ports.collect::<Vec<_>>()
    };
    Policy {
        ingress: Some(vec![Rule {
            peers: vec![],
            ports: protocols.iter().flat_map(odd).collect(),
        }]),
        ..policy("a", name, Selector::default())
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_leaves_the_former_in_force() {
    let old = tables(vec![allow("p", "web", 80)]);
    let mut planner = Planner::new();
    let mut maps = MemoryMaps::new();
    maps.execute(&planner.plan(&old).unwrap()).unwrap();
    let everything = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let new = tables(vec![
        every_other_port("huge", &everything),
        allow("p", "web", 90),
    ]);
    let Err(error) = planner.plan(&new) else {
        panic!("there is a plan");
    };
    let PlanError::TooLarge {
        table,
        limit,
        largest,
        ..
    } = &error;
    assert_eq!((*table, *limit), (Table::Range, RANGES_PER_VERDICT));
    assert!(
        largest[0].to_string().starts_with("NetworkPolicy a/huge ("),
        "{largest:?}"
    );
    // Services go their way meanwhile.
    maps.execute(&planner.plan_what_fits(&new, false)).unwrap();
    assert_eq!(maps.canonical(), fresh(&old).canonical());
    // It is smaller then.
    let new = tables(vec![
        every_other_port("huge", &everything[..1]),
        allow("p", "web", 90),
    ]);
    maps.execute(&planner.plan(&new).unwrap()).unwrap();
    assert_eq!(maps.canonical(), fresh(&new).canonical());
}

#[test]
fn a_row_may_have_as_many_ranges_as_programs_search() {
    let one_more = every_other_port("many", &[Protocol::Tcp, Protocol::Udp]);
    let without = |place: usize| {
        let mut policy = one_more.clone();
        for rule in policy.ingress.iter_mut().flatten() {
            rule.ports.remove(place);
        }
        tables(vec![policy])
    };
    let mut planner = Planner::new();
    for (place, whole) in [(0, true), (1, false)] {
        let desired = without(place);
        assert_eq!(entries(&desired)[&Table::Range], RANGES_PER_VERDICT);
        let plan = planner.plan(&desired).unwrap();
        assert_eq!(plan.is_whole(), whole);
    }
    // There is room for it; what is too much is the one row's.
    let one_more = tables(vec![one_more]);
    let error = planner.plan(&one_more).map(|_| ()).unwrap_err();
    let PlanError::TooLarge { table, need, .. } = error;
    assert_eq!((table, need), (Table::Range, RANGES_PER_VERDICT + 1));
}

#[test]
fn a_pod_that_comes_again_with_its_address_costs_one_element_and_no_flip() {
    let mut objects = snapshot(pods(), vec![allow("p", "web", 80)]);
    let mut planner = Planner::new();
    planner.set_version(5);
    planner.plan(&compile(&objects)).unwrap();
    let mut step = |objects: &Snapshot| planner.plan(&compile(objects)).unwrap().to_string();
    edit(&mut objects.pods, |pod: &mut Pod| {
        if pod.name.name == "db" {
            pod.uid = "another".to_owned();
        }
    });
    let again = step(&objects);
    assert!(again.starts_with("write endpoint 10.0.0.1 = "), "{again}");
    assert_eq!(again.lines().count(), 1, "{again}");
    objects.policies.clear();
    assert!(step(&objects).contains("control version = 6\n"));
}

#[test]
fn once_policies_are_in_force_only_tidying_up_is_left() {
    let mut planner = Planner::new();
    let mut maps = MemoryMaps::new();
    let first = planner.plan(&tables(vec![allow("p", "web", 80)])).unwrap();
    let (first, rest) = first.until_in_force();
    assert!(first.is_whole() && rest.is_empty());
    maps.execute(&first).unwrap();
    let wider = vec![allow("p", "web", 80), allow("q", "db", 90)];
    for (policies, judges_again) in [(wider, false), (vec![allow("q", "db", 90)], true)] {
        let plan = planner.plan(&tables(policies)).unwrap();
        assert_eq!(plan.judges_again(), judges_again);
        let (before, after) = plan.clone().until_in_force();
        let both = [before.steps.clone(), after.steps.clone()].concat();
        assert_eq!(both, plan.steps);
        maps.execute(&before).unwrap();
        let tidies =
            |step: &Step| matches!(step, Step::Wait | Step::BumpEpoch | Step::Delete { .. });
        assert!(after.steps.iter().all(tidies), "{after:?}");
        maps.execute(&after).unwrap();
    }
}

#[test]
fn a_block_in_a_block_answers_like_it_until_the_change_is_in_force() {
    let from = |cidrs: &[&str]| {
        let block = |cidr: &&str| Peer::Block {
            cidr: cidr.parse().unwrap(),
            except: vec![],
        };
        tables(vec![Policy {
            ingress: Some(vec![Rule {
                peers: cidrs.iter().map(block).collect(),
                ports: vec![],
            }]),
            ..policy("a", "blocks", Selector::default())
        }])
    };
    let (outer, both) = (from(&["10.0.0.0/8"]), from(&["10.0.0.0/8", "10.1.0.0/16"]));
    for (old, new) in [(&outer, &both), (&both, &outer)] {
        let mut planner = Planner::new();
        let mut maps = MemoryMaps::new();
        maps.execute(&planner.plan(old).unwrap()).unwrap();
        let class = |maps: &MemoryMaps| {
            let class = maps.prefix(&ip("10.1.0.1").into()).unwrap_or_default();
            class.versions[(maps.control(control::VERSION) & 1) as usize]
        };
        let mut seen = vec![class(&maps)];
        for step in planner.plan(new).unwrap().steps {
            maps.execute(&Plan { steps: vec![step] }).unwrap();
            seen.push(class(&maps));
        }
        seen.dedup();
        assert_eq!(seen.len(), 2, "one before, another one after: {seen:?}");
    }
}

#[test]
fn many_ports_blocks_and_peers_are_no_matter() {
    let blocks = (0..2000_u32).map(|number| Peer::Block {
        cidr: format!("10.{}.{}.0/24", 100 + number / 256, number % 256)
            .parse()
            .unwrap(),
        except: vec![],
    });
    let mut pods = pods();
    pods.extend((0..10_000_u32).map(|number| {
        let address = std::net::Ipv4Addr::from(0x0a40_0000 + number).to_string();
        let mut pod = pod("a", &format!("peer-{number}"), "peer", &address);
        pod.node = "there".to_owned();
        pod
    }));
    let peers = Peer::Pods {
        namespaces: None,
        pods: Some(selector(&[("app", "peer")])),
    };
    let large = Policy {
        pod_selector: selector(&[("app", "db")]),
        ingress: Some(vec![Rule {
            peers: blocks.chain([peers]).collect(),
            ports: (0..500)
                .map(|number| port(Protocol::Tcp, PortMatch::Range(2 * number, 2 * number)))
                .collect(),
        }]),
        ..policy("a", "large", Selector::default())
    };
    let tables = compile(&snapshot(pods, vec![large]));
    let need = entries(&tables);
    assert_eq!((need[&Table::Class], need[&Table::Prefix]), (10_000, 2000));
    // All of them are one class, or two: ranges are kept once.
    assert!(need[&Table::Range] < 1000, "{need:?}");
    let mut maps = MemoryMaps::new();
    maps.execute(&Planner::new().plan(&tables).unwrap())
        .unwrap();
    assert_eq!(maps.canonical(), fresh(&tables).canonical());
}

#[test]
fn a_thousand_changes_leave_nothing_behind() {
    let state = |number: u16| match number % 3 {
        0 => vec![],
        1 => vec![allow("p", "web", 80 + number)],
        _ => vec![
            allow("p", "db", 80),
            allow(&format!("q{number}"), "web", 80 + number),
        ],
    };
    let mut planner = Planner::new();
    let mut maps = MemoryMaps::new();
    for number in 0..1000 {
        let tables = tables(state(number));
        let plan = planner.plan(&tables).unwrap();
        // Maps that grew would be made anew.
        assert_eq!(plan.is_whole(), number == 0, "change {number}");
        maps.execute(&plan).unwrap();
        assert_eq!(maps.canonical(), fresh(&tables).canonical(), "{number}");
    }
}
