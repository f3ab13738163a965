//! What the planner believes of the maps is what they hold, and what somebody else changes is found.

use proptest::prelude::*;
use weir_common::abi::{BACKEND_ACTIVE, BackendState};
use zerocopy::IntoBytes;

use super::super::{MemoryMaps, Planner, Table};
use super::planning::{allow, serve};
use super::watch::histories;
use crate::compile::testing::{pod, snapshot};
use crate::compile::{Tables, compile};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_changed_element_is_found_and_no_other(history in histories(), chosen: prop::sample::Index, kind in 0..3_u8) {
        let mut planner = Planner::new();
        let mut maps = MemoryMaps::new();
        for new in history {
            maps.execute(&planner.plan(&new).unwrap()).unwrap();
            for table in Table::all() {
                let found = maps.dump(table);
                prop_assert_eq!(&planner.differences(table, &found), &vec![], "{:?}", table);
                let is_array = matches!(table, Table::Slot | Table::Range | Table::Backend);
                let all_listed = !is_array || table == Table::Backend;
                if found.is_empty() || kind == 1 && !all_listed || kind == 2 && is_array {
                    continue;
                }
                let (key, value) = found.iter().nth(chosen.index(found.len())).unwrap();
                let mut other = found.clone();
                let mut changed = value.clone();
                changed[0] ^= 1;
                let (wanted, there) = match kind {
                    0 => {
                        other.insert(key.clone(), changed.clone());
                        (Some(value), Some(&changed))
                    }
                    1 => {
                        other.remove(key);
                        (Some(value), None)
                    }
                    _ => {
                        let mut key = key.clone();
                        key[0] ^= 0x80;
                        other.insert(key, changed.clone());
                        (None, Some(&changed))
                    }
                };
                let differences = planner.differences(table, &other);
                // What nothing leads to may be anything.
                prop_assume!(all_listed || !differences.is_empty());
                prop_assert_eq!(differences.len(), 1, "{:?}", table);
                prop_assert_eq!(differences[0].wanted.as_deref(), wanted.map(Vec::as_slice));
                prop_assert_eq!(differences[0].found.as_deref(), there.map(Vec::as_slice));
            }
        }
        planner.invalidate();
        prop_assert!(planner.differences(Table::Frontend, &maps.dump(Table::Frontend)).is_empty());
    }
}

#[test]
fn what_frontends_and_verdicts_lead_to_is_looked_at() {
    let pods = vec![pod("a", "db", "db", "10.0.0.1")];
    let mut objects = snapshot(pods, vec![allow("p", "db", 80)]);
    serve(&mut objects, 1, 1..3);
    let mut planner = Planner::new();
    let mut maps = MemoryMaps::new();
    let plan = planner.plan(&compile(&objects)).unwrap();
    maps.execute(&plan).unwrap();
    let elements = Table::all().map(|table| (table.name(), maps.dump(table).len()));
    assert_eq!(
        elements.collect::<Vec<_>>(),
        [
            ("frontend", 2),
            ("slot", 2),
            ("source", 0),
            ("endpoint", 1),
            ("class", 1),
            ("prefix", 0),
            ("verdict", 1),
            ("range", 1),
            ("backend", 2),
        ]
    );
    for table in [Table::Slot, Table::Range] {
        let missing = planner.differences(table, &[].into());
        assert_eq!(missing.len(), maps.dump(table).len(), "{table:?}");
    }
}

#[test]
fn of_an_array_what_was_never_used_may_be_missing() {
    let used = BackendState {
        fingerprint: u32::MAX,
        state: BACKEND_ACTIVE,
        sets: 0,
    };
    let mut planner = Planner::new();
    planner.adopt_backends(&[(2, used)]);
    planner.plan(&Tables::default()).unwrap();
    let missing = planner.differences(Table::Backend, &[].into());
    let keys: Vec<_> = missing.iter().map(|it| it.key.as_slice()).collect();
    assert_eq!(keys, [2_u32.as_bytes()]);
}
