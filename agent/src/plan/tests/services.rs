//! The order in which frontends and what they ask for come and go.

use weir_common::abi::FrontendKey;
use zerocopy::FromBytes;

use super::super::{Plan, Planner, Step, Table};
use super::planning::serve;
use crate::compile::compile;
use crate::compile::testing::{edit, ip, snapshot};
use crate::model::Service;

/// Places of the steps of a plan that are about elements of a table.
fn places(plan: &Plan, table: Table, wanted: impl Fn(&[u8]) -> bool) -> Vec<usize> {
    let is_wanted = |step: &Step| match step {
        Step::Write { table: of, key, .. } | Step::Delete { table: of, key } => {
            *of == table && wanted(key)
        }
        _ => false,
    };
    let steps = plan.steps.iter().enumerate();
    steps
        .filter(|(_, step)| is_wanted(step))
        .map(|(place, _)| place)
        .collect()
}

#[test]
fn a_wildcard_comes_after_the_ports_of_its_address_and_goes_before_them() {
    let is_wildcard = |key: &[u8]| FrontendKey::read_from_bytes(key).unwrap().port == 0;
    let mut objects = snapshot(vec![], vec![]);
    let mut planner = Planner::new();
    planner.plan(&compile(&objects)).unwrap();
    for index in 1..4 {
        serve(&mut objects, index, 1..3);
    }
    let come = planner.plan(&compile(&objects)).unwrap();
    let wildcards = places(&come, Table::Frontend, is_wildcard);
    let ports = places(&come, Table::Frontend, |key| !is_wildcard(key));
    assert_eq!((wildcards.len(), ports.len()), (3, 3));
    assert!(ports.last() < wildcards.first(), "{come}");

    objects.services.clear();
    let go = planner.plan(&compile(&objects)).unwrap();
    let wildcards = places(&go, Table::Frontend, is_wildcard);
    let ports = places(&go, Table::Frontend, |key| !is_wildcard(key));
    assert_eq!((wildcards.len(), ports.len()), (3, 3));
    assert!(wildcards.last() < ports.first(), "{go}");
}

#[test]
fn ranges_are_there_as_long_as_a_program_may_ask_for_them() {
    let mut objects = snapshot(vec![], vec![]);
    let mut planner = Planner::new();
    planner.plan(&compile(&objects)).unwrap();
    serve(&mut objects, 1, 1..3);
    edit(&mut objects.services, |service: &mut Service| {
        service.load_balancer_ips = vec![ip("192.0.2.1")];
        service.source_ranges = vec!["203.0.113.0/24".parse().unwrap()];
    });
    let come = planner.plan(&compile(&objects)).unwrap();
    let [range] = places(&come, Table::Source, |_| true)[..] else {
        panic!("{come}")
    };
    let frontends = places(&come, Table::Frontend, |_| true);
    assert!(Some(&range) < frontends.first(), "{come}");

    edit(&mut objects.services, |service: &mut Service| {
        service.source_ranges.clear();
    });
    let go = planner.plan(&compile(&objects)).unwrap();
    let [range] = places(&go, Table::Source, |_| true)[..] else {
        panic!("{go}")
    };
    let frontends = places(&go, Table::Frontend, |_| true);
    let asked_last = *frontends.last().expect("a frontend that asks no more");
    assert!(go.steps[asked_last..range].contains(&Step::Wait), "{go}");
}
