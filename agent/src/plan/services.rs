//! Frontends and their backend sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashSet;
use weir_common::abi::{Frontend, FrontendKey, Segment, Slot, SourceKey};

use super::backends::Backends;
use super::planner::Full;
use super::space::Segments;
use super::step::{Sizes, Step, Table};
use crate::compile::{Backend, ServiceTables};

/// What the service maps of a generation hold.
#[derive(Clone, Debug)]
pub(super) struct Services {
    capacity: u32,
    frontends: BTreeMap<FrontendKey, Frontend>,
    source_capacity: u32,
    sources: BTreeSet<SourceKey>,
    pub(super) slots: Segments<Slot>,
}

impl Services {
    pub(super) fn new(sizes: &Sizes) -> Self {
        Self {
            capacity: sizes[&Table::Frontend],
            frontends: BTreeMap::new(),
            source_capacity: sizes[&Table::Source],
            sources: BTreeSet::new(),
            slots: Segments::new(sizes[&Table::Slot]),
        }
    }

    /// Leads every frontend to its desired set: slots first, then the element that points at them. What was replaced stays
    /// where it is until a later plan.
    pub(super) fn update(
        &mut self,
        desired: &ServiceTables,
        backends: &Backends,
        steps: &mut Vec<Step>,
    ) -> Result<(), Full> {
        let mut used: FxHashSet<Arc<[Slot]>> = FxHashSet::default();
        let mut values = Vec::with_capacity(desired.frontends.len());
        for (key, entry) in &desired.frontends {
            let mut place = |set: &[Backend]| -> Result<Segment, Full> {
                let set: Arc<[Slot]> = set.iter().map(|backend| slot(backend, backends)).collect();
                let write = |index: u32, slot| steps.push(Step::write(Table::Slot, &index, &slot));
                let segment = self.slots.place(&set, write).ok_or(Full)?;
                used.insert(set);
                Ok(segment)
            };
            let internal = place(&entry.internal)?;
            let external = place(&entry.external)?;
            let value = Frontend {
                service: entry.service,
                internal_base: internal.base,
                internal_count: internal.count,
                external_base: external.base,
                external_count: external.count,
                affinity_seconds: entry.affinity_seconds,
                flags: entry.flags,
            };
            values.push((*key, value));
        }
        // Ranges come before the frontends that ask for them, and go after.
        for key in desired.sources.keys() {
            if self.sources.insert(*key) {
                steps.push(Step::write(Table::Source, key, &0_u32));
            }
        }
        if self.sources.len() > self.source_capacity as usize {
            return Err(Full);
        }
        for (key, value) in values {
            if self.frontends.insert(key, value) != Some(value) {
                steps.push(Step::write(Table::Frontend, &key, &value));
            }
        }
        // Elements go only after others have come.
        if self.frontends.len() > self.capacity as usize {
            return Err(Full);
        }
        self.frontends.retain(|key, _| {
            let keep = desired.frontends.contains_key(key);
            if !keep {
                steps.push(Step::delete(Table::Frontend, key));
            }
            keep
        });
        self.sources.retain(|key| {
            let keep = desired.sources.contains_key(key);
            if !keep {
                steps.push(Step::delete(Table::Source, key));
            }
            keep
        });
        self.slots.retain(&used);
        Ok(())
    }
}

fn slot(backend: &Backend, backends: &Backends) -> Slot {
    Slot {
        address: backend.address.into(),
        port: backend.port,
        flags: 0,
        backend: backends.id(backend.fingerprint),
        fingerprint: backend.fingerprint,
        reserved: 0,
    }
}
