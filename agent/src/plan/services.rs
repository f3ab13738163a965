//! Frontends and their backend sets.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use weir_common::abi::{Frontend, FrontendKey, Segment, Slot};

use super::backends::Backends;
use super::planner::Full;
use super::space::Segments;
use super::step::{Sizes, Step, Table};
use crate::compile::{Backend, FrontendEntry, ServiceTables};

/// What the service maps of a generation hold.
#[derive(Clone, Debug)]
pub(super) struct Services {
    capacity: u32,
    source_capacity: u32,
    /// What the last plan led to.
    led: ServiceTables,
    frontends: OrdMap<FrontendKey, Placed>,
    pub(super) slots: Segments<Slot>,
}

/// An element, and the content of the runs that it points at.
#[derive(Clone, Debug, PartialEq)]
struct Placed {
    value: Frontend,
    internal: Arc<[Slot]>,
    external: Arc<[Slot]>,
}

impl Services {
    pub(super) fn new(sizes: &Sizes) -> Self {
        Self {
            capacity: sizes[&Table::Frontend],
            source_capacity: sizes[&Table::Source],
            led: ServiceTables::default(),
            frontends: OrdMap::new(),
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
        let former = std::mem::replace(&mut self.led, desired.clone());
        let mut placed = Vec::new();
        let mut gone = Vec::new();
        for item in former.frontends.diff(&desired.frontends) {
            match item {
                DiffItem::Add(key, entry)
                | DiffItem::Update {
                    new: (key, entry), ..
                } => placed.push((*key, self.place(entry, backends, steps)?)),
                DiffItem::Remove(key, _) => gone.push(*key),
            }
        }
        let mut ended = Vec::new();
        // Ranges come before the frontends that ask for them, and go after.
        for item in former.sources.diff(&desired.sources) {
            match item {
                DiffItem::Add(key, _) => steps.push(Step::write(Table::Source, key, &0_u32)),
                // Whose it is makes no difference to the kernel.
                DiffItem::Update { .. } => {}
                DiffItem::Remove(key, _) => ended.push(*key),
            }
        }
        // Elements go only after others have come.
        let frontends = desired.frontends.len() + gone.len();
        let sources = desired.sources.len() + ended.len();
        if frontends > self.capacity as usize || sources > self.source_capacity as usize {
            return Err(Full);
        }
        for (key, new) in placed {
            let value = new.value;
            let old = self.frontends.insert(key, new);
            if old.as_ref().map(|old| old.value) != Some(value) {
                steps.push(Step::write(Table::Frontend, &key, &value));
            }
            self.release(old);
        }
        for key in &gone {
            steps.push(Step::delete(Table::Frontend, key));
            let old = self.frontends.remove(key);
            self.release(old);
        }
        let ended = ended.iter().map(|key| Step::delete(Table::Source, key));
        steps.extend(ended);
        Ok(())
    }

    /// Finds or makes room for the sets of a frontend.
    fn place(
        &mut self,
        entry: &FrontendEntry,
        backends: &Backends,
        steps: &mut Vec<Step>,
    ) -> Result<Placed, Full> {
        let mut place = |set: &[Backend]| -> Result<(Segment, Arc<[Slot]>), Full> {
            let set: Arc<[Slot]> = set.iter().map(|backend| slot(backend, backends)).collect();
            let write = |index: u32, slot| steps.push(Step::write(Table::Slot, &index, &slot));
            let segment = self.slots.place(&set, write).ok_or(Full)?;
            Ok((segment, set))
        };
        let (at_internal, internal) = place(&entry.internal)?;
        let (at_external, external) = place(&entry.external)?;
        let value = Frontend {
            service: entry.service,
            internal_base: at_internal.base,
            internal_count: at_internal.count,
            external_base: at_external.base,
            external_count: at_external.count,
            affinity_seconds: entry.affinity_seconds,
            flags: entry.flags,
        };
        Ok(Placed {
            value,
            internal,
            external,
        })
    }

    fn release(&mut self, old: Option<Placed>) {
        for set in old.iter().flat_map(|old| [&old.internal, &old.external]) {
            self.slots.release(set);
        }
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
