//! Carrying out a plan.

use std::collections::BTreeMap;
use std::io;

use weir_common::abi::{GENERATIONS, control};

use super::bpf::{Map, is_unsupported};
use super::error::{During, Error, Result};
use super::kernel::KernelDatapath;
use super::shapes;
use crate::plan::{Plan, Sizes, Step, Table};

/// Maps of one generation.
pub(super) type Generation = BTreeMap<Table, Map>;

/// Elements written by one system call.
const BATCH: usize = 16 * 1024;

impl KernelDatapath {
    /// Carries out a plan, step by step.
    ///
    /// # Errors
    /// Steps before the one that failed are done, the others are not. A generation that was begun stays out of the programs'
    /// sight, and the next `Begin` replaces it.
    pub fn execute(&mut self, plan: &Plan) -> Result<()> {
        let mut steps = plan.steps.as_slice();
        while let Some((step, rest)) = steps.split_first() {
            steps = rest;
            match step {
                Step::Begin(sizes) => self.begin(sizes)?,
                Step::Write { table, .. } => {
                    let run = 1 + rest
                        .iter()
                        .take(BATCH - 1)
                        .take_while(|step| matches!(step, Step::Write { table: other, .. } if other == table))
                        .count();
                    let from = plan.steps.len() - rest.len() - 1;
                    self.write(*table, &plan.steps[from..from + run])?;
                    steps = &plan.steps[from + run..];
                }
                Step::Delete { table, key } => {
                    self.target(*table)?
                        .delete(key)
                        .during(|| format!("delete an element of table `{}`", table.name()))?;
                }
                Step::Select => self.select()?,
                Step::Control { index, value } => {
                    if !self.control.store(*index, *value) {
                        return Err(Error::BadPlan(format!("there is no control word {index}")));
                    }
                }
                Step::BumpEpoch => self.control.increment(control::EPOCH),
                Step::Wait => self.wait()?,
            }
        }
        Ok(())
    }

    /// The map that writes to a table go to.
    fn target(&self, table: Table) -> Result<&Map> {
        if table == Table::Backend {
            return Ok(&self.backend);
        }
        let generation = self.begun.as_ref().unwrap_or(&self.selected);
        generation.get(&table).ok_or_else(|| {
            Error::BadPlan(format!("no generation has table `{}` yet", table.name()))
        })
    }

    fn begin(&mut self, sizes: &Sizes) -> Result<()> {
        self.begun = None;
        let idle = self.idle();
        // An agent that died before `Select` leaves its maps here.
        self.pins.clear_generation(idle)?;
        let mut generation = Generation::new();
        for table in Table::GENERATION {
            let entries = sizes.get(&table).copied().unwrap_or(1).max(1);
            let map = Map::create(table.name(), shapes::inner(table, entries), None)
                .during(|| format!("create table `{}` with {entries} entries", table.name()))?;
            self.pins.pin_inner(idle, table, &map)?;
            generation.insert(table, map);
        }
        self.begun = Some(generation);
        Ok(())
    }

    fn select(&mut self) -> Result<()> {
        let generation = self
            .begun
            .take()
            .ok_or_else(|| Error::BadPlan("nothing was begun that could be selected".to_owned()))?;
        let (idle, old) = (self.idle(), self.generation());
        for (table, map) in &generation {
            self.root(*table)?
                .update_inner(idle, map)
                .during(|| format!("put a new table `{}` in place", table.name()))?;
        }
        self.control.store(control::SELECTED, u64::from(idle));
        self.selected = generation;
        // Programs that started before the store may still look for the old maps.
        self.wait()?;
        for table in Table::GENERATION {
            self.root(table)?
                .delete(&old.to_ne_bytes())
                .during(|| format!("release the old table `{}`", table.name()))?;
        }
        self.pins.clear_generation(old)
    }

    /// The generation that programs read.
    pub(super) fn generation(&self) -> u32 {
        u32::from(self.control.load(control::SELECTED) != 0)
    }

    fn idle(&self) -> u32 {
        GENERATIONS - 1 - self.generation()
    }

    fn root(&self, table: Table) -> Result<&Map> {
        self.roots
            .get(&table)
            .ok_or_else(|| Error::BadPlan(format!("table `{}` has no generations", table.name())))
    }

    /// Waits until no program runs that started before the call.
    ///
    /// Where user space puts a map into a map of maps, the kernel waits for an RCU grace period before it returns, for just this
    /// purpose (`maybe_wait_bpf_programs`), and a program run is one RCU read section. membarrier(2) waits too, but refuses to
    /// with isolated CPUs and skips it on a single one.
    fn wait(&self) -> Result<()> {
        let (outer, inner) = &self.barrier;
        outer
            .update_inner(0, inner)
            .during(|| "wait for running programs")
    }

    /// Writes a run of `Step::Write` of one table.
    fn write(&mut self, table: Table, run: &[Step]) -> Result<()> {
        let single = self.no_batch.contains(&table);
        let map = self.target(table)?;
        let elements = || {
            run.iter().filter_map(|step| match step {
                Step::Write { key, value, .. } => Some((key.as_slice(), value.as_slice())),
                _ => None,
            })
        };
        if run.len() > 1 && !single {
            let mut keys = Vec::new();
            let mut values = Vec::new();
            for (key, value) in elements() {
                keys.extend_from_slice(key);
                values.extend_from_slice(value);
            }
            let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
            match map.update_batch(&keys, &values, count) {
                Ok(()) => return Ok(()),
                Err((0, error)) if is_unsupported(&error) => {}
                Err((_, error)) => return Err(write_error(table, map, error)),
            }
            // Only a kernel without batches for this kind of map gets here with success: another cause fails below as well.
            for (key, value) in elements() {
                map.update(key, value)
                    .map_err(|error| write_error(table, map, error))?;
            }
            self.no_batch.insert(table);
            return Ok(());
        }
        for (key, value) in elements() {
            map.update(key, value)
                .map_err(|error| write_error(table, map, error))?;
        }
        Ok(())
    }
}

/// A full table has its own error, for the planner to act upon. The kernel says E2BIG, of a trie ENOSPC.
fn write_error(table: Table, map: &Map, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => Error::TableFull {
            table: table.name(),
            capacity: map.shape().entries,
        },
        _ => Error::kernel(format!("write to table `{}`", table.name()), error),
    }
}
