//! Backends that find no room beside those that they replace.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_common::abi::BACKEND_GONE;

use super::super::{MemoryMaps, PlanError, Planner, Step, Table};
use super::planning::serve;
use super::watch::{Watch, fresh, histories, view};
use crate::compile::testing::snapshot;
use crate::compile::{Tables, compile};

/// A Service with these endpoints, and one that nothing happens to.
fn serving(hosts: std::ops::Range<u16>) -> Tables {
    let mut objects = snapshot(vec![], vec![]);
    serve(&mut objects, 1, hosts);
    serve(&mut objects, 2, 1..3);
    compile(&objects)
}

#[test]
fn what_goes_makes_room_for_what_comes() {
    let mut planner = Planner::with_room(6);
    let mut watch = Watch::default();
    for hosts in [1..5, 3..7, 10..14, 1..5] {
        let new = serving(hosts.clone());
        let plan = planner.plan(&new).unwrap();
        watch.hold(&plan).unwrap();
        assert_eq!(watch.maps.canonical(), fresh(&new).canonical(), "{hosts:?}");
        let ids = watch.maps.backends().into_iter().map(|(id, _)| id);
        assert_eq!(ids.max(), Some(5), "{hosts:?}");
        assert!(planner.plan(&new).unwrap().is_empty());
    }
}

#[test]
fn what_is_there_keeps_serving_meanwhile() {
    let mut planner = Planner::with_room(6);
    planner.plan(&serving(1..4)).unwrap();
    // Room for one of the three, before those of before have gone.
    let plan = planner.plan(&serving(4..7)).unwrap();
    let sets: Vec<String> = plan
        .steps
        .iter()
        .filter(|step| {
            matches!(
                step,
                Step::Write {
                    table: Table::Frontend,
                    ..
                }
            )
        })
        .map(ToString::to_string)
        .collect();
    assert_eq!(sets.len(), 2, "{plan}");
    assert!(sets[0].contains(" internal 5+1 "), "{sets:?}");
    assert!(sets[1].contains(" internal 6+3 "), "{sets:?}");
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let mut planner = Planner::with_room(6);
    let old = serving(1..5);
    planner.plan(&old).unwrap();
    let error = planner.plan(&serving(1..6)).map(|_| ()).unwrap_err();
    assert!(
        matches!(
            error,
            PlanError::TooLarge {
                table: Table::Backend,
                need: 7,
                ..
            }
        ),
        "{error}"
    );
    assert!(planner.plan(&old).unwrap().is_empty(), "it changes nothing");
}

/// What the array says of each backend that is not gone, and where.
fn alive(maps: &MemoryMaps) -> BTreeMap<u32, u32> {
    let states = maps.backends().into_iter();
    let alive = states.filter(|(_, state)| state.state != BACKEND_GONE);
    alive.map(|(id, state)| (state.fingerprint, id)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_room_beyond_what_is_desired_is_room_enough(history in histories()) {
        let most = history.iter().map(|tables| tables.services.backends.len()).max();
        let mut planner = Planner::with_room(most.unwrap_or_default() as u32);
        let mut watch = Watch::default();
        let mut maps = MemoryMaps::new();
        let mut old = Tables::default();
        for new in history {
            let plan = planner.plan(&new).unwrap();
            watch.hold(&plan).map_err(TestCaseError::fail)?;
            let mut staying = alive(&maps);
            staying.retain(|fingerprint, _| new.services.backends.contains_key(fingerprint));
            for step in &plan.steps {
                maps.apply(step).unwrap();
                for key in old.services.frontends.keys().chain(new.services.frontends.keys()) {
                    view(&maps, key).map_err(TestCaseError::fail)?;
                }
                for (fingerprint, id) in &staying {
                    let state = maps.backend(*id);
                    let serves = state.fingerprint == *fingerprint && state.state != BACKEND_GONE;
                    prop_assert!(serves, "{} has {:?} after {}", fingerprint, state, step);
                }
            }
            prop_assert_eq!(maps.canonical(), fresh(&new).canonical());
            old = new;
        }
    }
}
