//! Looks at the maps after every step of a plan, as programs on other CPUs could.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weir_common::abi::{
    BACKEND_ACTIVE, CLASS_UNSET, CLASS_WORLD, EndpointKey, Frontend, FrontendKey, ROW_ABSENT,
    ROW_OPEN, Range, Segment, Slot, VerdictKey, control,
};
use zerocopy::FromBytes;

use super::super::{MemoryMaps, Plan, Planner, Step, Table};
use crate::compile::testing::{PEERS, ip, snapshots};
use crate::compile::{Tables, compile};
use crate::model::Snapshot;

/// What a version says of a local pod: nothing if it is not there, else by direction and peer the ranges that pass.
type Answer = Option<[Option<Vec<Vec<Range>>>; 2]>;
type Answers = BTreeMap<EndpointKey, Answer>;

fn answers(maps: &MemoryMaps, keys: &BTreeSet<EndpointKey>, version: usize) -> Answers {
    let classes: Vec<u32> = PEERS
        .iter()
        .map(|peer| {
            let address = ip(peer).into();
            let own = maps.class(&address).map(|class| class.versions[version]);
            own.filter(|class| *class != CLASS_UNSET)
                .unwrap_or_else(|| {
                    maps.prefix(&address)
                        .map_or(CLASS_WORLD, |class| class.versions[version])
                })
        })
        .collect();
    let ranges = |row, class| -> Vec<Range> {
        let segment = maps.verdict(&VerdictKey { row, class }).unwrap_or_default();
        run(maps, segment)
    };
    let row =
        |row| (row != ROW_OPEN).then(|| classes.iter().map(|class| ranges(row, *class)).collect());
    keys.iter()
        .map(|key| {
            let rows = maps.endpoint(key).map(|endpoint| endpoint.rows[version]);
            let rows = rows.filter(|rows| rows.ingress != ROW_ABSENT);
            (*key, rows.map(|rows| [row(rows.ingress), row(rows.egress)]))
        })
        .collect()
}

fn run(maps: &MemoryMaps, segment: Segment) -> Vec<Range> {
    (segment.base..segment.base + segment.count)
        .filter_map(|index| maps.range(index))
        .collect()
}

fn version(maps: &MemoryMaps) -> usize {
    (maps.control(control::VERSION) & 1) as usize
}

/// A frontend as a program resolves it, fields and both sets.
pub(super) type View = Option<(u64, u32, u32, [Vec<(std::net::IpAddr, u16, u32)>; 2])>;

pub(super) fn view(maps: &MemoryMaps, key: &FrontendKey) -> Result<View, String> {
    let Some(frontend) = maps.frontend(key) else {
        return Ok(None);
    };
    let mut sets = [Vec::new(), Vec::new()];
    for (set, (base, count)) in sets.iter_mut().zip(bounds(&frontend)) {
        let slots = maps
            .slots(base, count)
            .ok_or_else(|| format!("{key:?} reads a slot never written"))?;
        for slot in slots {
            let state = maps.backend(slot.backend);
            if (state.fingerprint, state.state) != (slot.fingerprint, BACKEND_ACTIVE) {
                return Err(format!(
                    "{key:?} leads to {} with state {state:?}",
                    slot.address
                ));
            }
            set.push((slot.address.into(), slot.port, slot.fingerprint));
        }
    }
    Ok(Some((
        frontend.service,
        frontend.flags,
        frontend.affinity_seconds,
        sets,
    )))
}

fn bounds(frontend: &Frontend) -> [(u32, u32); 2] {
    [
        (frontend.internal_base, frontend.internal_count),
        (frontend.external_base, frontend.external_count),
    ]
}

/// Programs that have read an element and still hold the run that it points at: until the next grace period the run must not
/// change.
#[derive(Default)]
struct Holders {
    slots: Vec<(Frontend, [Vec<Slot>; 2])>,
    ranges: Vec<(Segment, Vec<Range>)>,
}

impl Holders {
    fn note(&mut self, maps: &MemoryMaps, step: &Step) {
        match step {
            Step::Write {
                table: Table::Frontend,
                value,
                ..
            } => {
                let frontend = Frontend::read_from_bytes(value).unwrap();
                self.slots.push((frontend, held(maps, &frontend)));
            }
            Step::Write {
                table: Table::Verdict,
                value,
                ..
            } => {
                let segment = Segment::read_from_bytes(value).unwrap();
                self.ranges.push((segment, run(maps, segment)));
            }
            _ => {}
        }
    }

    /// Elements that are gone may still be held before a grace period, not after it.
    fn settle(&mut self, frontends: &BTreeSet<Vec<u8>>, verdicts: &BTreeSet<Vec<u8>>) {
        use zerocopy::IntoBytes;
        self.slots
            .retain(|(frontend, _)| frontends.contains(frontend.as_bytes()));
        self.ranges
            .retain(|(segment, _)| verdicts.contains(segment.as_bytes()));
    }

    fn check(&self, maps: &MemoryMaps) -> Result<(), String> {
        for (frontend, slots) in &self.slots {
            if held(maps, frontend) != *slots {
                return Err(format!("slots of {frontend:?} changed under a program"));
            }
        }
        for (segment, ranges) in &self.ranges {
            if run(maps, *segment) != *ranges {
                return Err(format!("ranges of {segment:?} changed under a program"));
            }
        }
        Ok(())
    }
}

fn held(maps: &MemoryMaps, frontend: &Frontend) -> [Vec<Slot>; 2] {
    bounds(frontend).map(|(base, count)| maps.slots(base, count).unwrap_or_default())
}

/// Maps with the elements that a watcher needs to know of.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) maps: MemoryMaps,
    holders: Holders,
    frontends: BTreeMap<Vec<u8>, Vec<u8>>,
    verdicts: BTreeMap<Vec<u8>, Vec<u8>>,
    building: bool,
}

impl Watch {
    /// Carries out a plan from `old` to `new` and complains of the first moment that shows a mixture.
    pub(super) fn execute(
        &mut self,
        plan: &Plan,
        old: &Tables,
        new: &Tables,
    ) -> Result<(), String> {
        let fresh = fresh(new);
        let endpoints = old
            .policies
            .endpoints
            .keys()
            .chain(new.policies.endpoints.keys())
            .copied()
            .collect();
        let frontends: BTreeSet<_> = old
            .services
            .frontends
            .keys()
            .chain(new.services.frontends.keys())
            .copied()
            .collect();
        let from = version(&self.maps);
        let before = answers(&self.maps, &endpoints, from);
        let after = answers(&fresh, &endpoints, version(&fresh));
        let views = |maps: &MemoryMaps| {
            frontends
                .iter()
                .map(|key| view(maps, key))
                .collect::<Result<Vec<_>, _>>()
        };
        let (old_views, new_views) = (views(&self.maps)?, views(&fresh)?);
        let (mut flipped, mut waited, mut selected) = (false, false, false);
        for (index, step) in plan.steps.iter().enumerate() {
            let context = |message: String| format!("after step {index} ({step}): {message}");
            self.maps
                .apply(step)
                .map_err(|error| context(error.to_string()))?;
            self.track(step);
            flipped |= matches!(step, Step::Control { .. } | Step::Select);
            selected |= matches!(step, Step::Select);
            waited = flipped && (waited || *step == Step::Wait);
            self.holders.check(&self.maps).map_err(context)?;

            let expected = if flipped { &after } else { &before };
            if answers(&self.maps, &endpoints, version(&self.maps)) != *expected {
                // Without a flip only what is the same before and after may be written.
                return Err(context("verdicts of neither old nor new".to_owned()));
            }
            if flipped && !waited && !selected && answers(&self.maps, &endpoints, from) != before {
                return Err(context(
                    "a program that began before the flip sees other verdicts".to_owned(),
                ));
            }
            let now = views(&self.maps).map_err(context)?;
            for ((now, old), new) in now.iter().zip(&old_views).zip(&new_views) {
                if now != old && now != new {
                    return Err(context(format!(
                        "frontend {now:?}, neither {old:?} nor {new:?}"
                    )));
                }
            }
        }
        if answers(&self.maps, &endpoints, version(&self.maps)) != after
            || views(&self.maps)? != new_views
        {
            return Err("the plan does not lead to the desired state".to_owned());
        }
        Ok(())
    }

    /// Carries out a plan and only looks whether runs change that programs may hold.
    pub(super) fn hold(&mut self, plan: &Plan) -> Result<(), String> {
        for step in &plan.steps {
            if *step == Step::Wait {
                self.holders.check(&self.maps)?;
            }
            self.maps.apply(step).map_err(|error| error.to_string())?;
            self.track(step);
        }
        self.holders.check(&self.maps)
    }

    fn track(&mut self, step: &Step) {
        match step {
            // Programs read the other generation, whose maps nobody writes.
            Step::Begin(_) => {
                self.building = true;
                self.holders = Holders::default();
                self.frontends.clear();
                self.verdicts.clear();
            }
            Step::Select => self.building = false,
            Step::Write { table, key, value } => {
                let elements = match table {
                    Table::Frontend => &mut self.frontends,
                    Table::Verdict => &mut self.verdicts,
                    _ => return,
                };
                elements.insert(key.to_vec(), value.to_vec());
                if !self.building {
                    self.holders.note(&self.maps, step);
                }
            }
            Step::Delete {
                table: Table::Frontend,
                key,
            } => {
                self.frontends.remove(key.as_slice());
            }
            Step::Delete {
                table: Table::Verdict,
                key,
            } => {
                self.verdicts.remove(key.as_slice());
            }
            Step::Wait => {
                let values =
                    |elements: &BTreeMap<Vec<u8>, Vec<u8>>| elements.values().cloned().collect();
                self.holders
                    .settle(&values(&self.frontends), &values(&self.verdicts));
            }
            _ => {}
        }
    }
}

/// Maps that a planner without a past fills.
pub(super) fn fresh(tables: &Tables) -> MemoryMaps {
    let mut maps = MemoryMaps::new();
    maps.execute(&Planner::new().plan(tables).unwrap()).unwrap();
    maps
}

/// A sequence of snapshots, each taking some kinds of objects from the next random one and the rest from its predecessor.
pub(super) fn histories() -> impl Strategy<Value = Vec<Tables>> {
    prop::collection::vec((snapshots(), 1..16_u8), 2..6).prop_map(|changes| {
        let mut current = Snapshot {
            node_name: changes[0].0.node_name.clone(),
            ..Snapshot::default()
        };
        let mut history = Vec::new();
        for (next, kinds) in changes {
            current.namespaces = next.namespaces;
            if kinds & 1 != 0 {
                current.pods = next.pods;
            }
            if kinds & 2 != 0 {
                current.policies = next.policies;
                current.cluster_policies = next.cluster_policies;
            }
            if kinds & 4 != 0 {
                (current.services, current.slices) = (next.services, next.slices);
            }
            if kinds & 8 != 0 {
                current.devices = next.devices;
            }
            history.push(compile(&current));
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_moment_of_every_plan_is_old_or_new_and_the_end_does_not_know_the_way(history in histories()) {
        let mut planner = Planner::new();
        let mut watch = Watch::default();
        let mut old = Tables::default();
        for new in history {
            let plan = planner.plan(&new).unwrap();
            watch.execute(&plan, &old, &new).map_err(|message| TestCaseError::fail(format!("{message}\n{plan}")))?;
            prop_assert_eq!(watch.maps.canonical(), fresh(&new).canonical());
            prop_assert!(planner.plan(&new).unwrap().is_empty());
            old = new;
        }
    }

    #[test]
    fn a_restart_leads_to_the_same_maps_and_keeps_backend_ids(history in histories()) {
        let mut watch = Watch::default();
        let mut old = Tables::default();
        let mut ids: BTreeMap<u32, u32> = BTreeMap::new();
        for new in history {
            let mut planner = Planner::new();
            planner.adopt_backends(&watch.maps.backends());
            planner.set_version(watch.maps.control(control::VERSION));
            let plan = planner.plan(&new).unwrap();
            watch.execute(&plan, &old, &new).map_err(|message| TestCaseError::fail(format!("{message}\n{plan}")))?;
            prop_assert_eq!(watch.maps.canonical(), fresh(&new).canonical());
            for (id, state) in watch.maps.backends() {
                prop_assert_eq!(*ids.entry(state.fingerprint).or_insert(id), id);
            }
            old = new;
        }
    }
}
