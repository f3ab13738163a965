//! Frontends and their backend sets.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use weir_common::abi::{Frontend, FrontendKey, Slot};

use super::backends::Backends;
use super::contents::Contents;
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
    frontends: OrdMap<FrontendKey, Frontend>,
    /// A run is of the backends themselves: ids stay while anything leads there.
    pub(super) slots: Segments<Backend>,
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
                DiffItem::Add(key, entry) => {
                    placed.push((*key, self.place(entry, backends, steps)?, None));
                }
                DiffItem::Update {
                    old: (_, old),
                    new: (key, entry),
                } => placed.push((*key, self.place(entry, backends, steps)?, Some(old))),
                DiffItem::Remove(key, old) => gone.push((*key, old)),
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
        // Who finds a wildcard must find the ports that it is not about: it comes after them, and goes first.
        let is_wildcard = |key: &FrontendKey| key.port == 0;
        placed.sort_by_key(|(key, ..)| is_wildcard(key));
        gone.sort_by_key(|(key, _)| !is_wildcard(key));
        for (key, value, old) in placed {
            if self.frontends.insert(key, value) != Some(value) {
                steps.push(Step::write(Table::Frontend, &key, &value));
            }
            if let Some(old) = old {
                self.release(old);
            }
        }
        for (key, old) in gone {
            steps.push(Step::delete(Table::Frontend, &key));
            self.frontends.remove(&key);
            self.release(old);
        }
        if !ended.is_empty() {
            // Programs that read a frontend as it was still ask for its ranges.
            steps.push(Step::Wait);
        }
        let ended = ended.iter().map(|key| Step::delete(Table::Source, key));
        steps.extend(ended);
        Ok(())
    }

    /// The elements of one of its tables.
    pub(super) fn list(&self, table: Table, backends: &Backends, contents: &mut Contents) {
        match table {
            Table::Frontend => {
                for (key, frontend) in &self.frontends {
                    contents.add(key, frontend);
                }
            }
            Table::Source => {
                for key in self.led.sources.keys() {
                    contents.add(key, &0_u32);
                }
            }
            _ => {
                for (index, backend) in self.slots.elements() {
                    contents.add(&index, &slot(&backend, backends));
                }
            }
        }
    }

    /// Finds or makes room for the sets of a frontend.
    fn place(
        &mut self,
        entry: &FrontendEntry,
        backends: &Backends,
        steps: &mut Vec<Step>,
    ) -> Result<Frontend, Full> {
        let mut place = |set: &Arc<[Backend]>| {
            let write = |index: u32, backend| {
                steps.push(Step::write(Table::Slot, &index, &slot(&backend, backends)));
            };
            self.slots.place(set, write).ok_or(Full)
        };
        let internal = place(&entry.internal)?;
        let external = place(&entry.external)?;
        Ok(Frontend {
            service: entry.service,
            internal_base: internal.base,
            internal_count: internal.count,
            external_base: external.base,
            external_count: external.count,
            affinity_seconds: entry.affinity_seconds,
            flags: entry.flags,
        })
    }

    fn release(&mut self, old: &FrontendEntry) {
        self.slots.release(&old.internal);
        self.slots.release(&old.external);
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
