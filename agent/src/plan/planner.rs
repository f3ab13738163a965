//! The planner: remembers what the maps hold and says how to get from there to what is desired.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_common::abi::BackendState;

use super::backends::Backends;
use super::contents::Contents;
use super::held_back::held_back;
use super::narrows::narrows;
use super::policies::Policies;
use super::services::Services;
use super::sizes::{PlanError, backends_too_large, sizes};
use super::step::{Plan, Step, Table};
use crate::compile::{Backend, PolicyTables, Tables};

/// A table of the selected generation has no room left: a larger generation is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

/// Why an attempt came to no plan.
enum Unplanned {
    /// See [`Full`].
    Full,
    /// These backends find no id beside those that go: programs may read of what goes until the plan is carried out.
    Late(Vec<u32>),
    /// No generation can hold it.
    TooLarge(PlanError),
}

impl From<Full> for Unplanned {
    fn from(Full: Full) -> Self {
        Self::Full
    }
}

/// The selected generation.
#[derive(Clone, Debug)]
struct Live {
    services: Services,
    policies: Arc<Policies>,
}

/// Makes plans, each at the cost of what changes. Believes that each plan it hands out is carried out in full; when one was not, [`Planner::invalidate`] says so.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    version: u64,
    backends: Backends,
    live: Option<Live>,
    tables: Option<Arc<Tables>>,
    /// Those of the last plan, also when it is not known whether the maps hold it.
    policies: Option<Arc<PolicyTables>>,
    /// Whether live flows keep what was allowed when they were opened.
    keeps_established: bool,
}

impl Planner {
    /// A planner that knows nothing of the kernel: its first plan builds a whole generation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One whose plans never have live flows judged again.
    #[must_use]
    pub fn keeping_established(self) -> Self {
        Self {
            keeps_established: true,
            ..self
        }
    }

    /// One whose array of backends is small.
    #[cfg(test)]
    pub(super) fn with_room(backends: u32) -> Self {
        Self {
            backends: Backends::new(backends),
            ..Self::default()
        }
    }

    /// Takes over the backend ids of a former agent process, as read from the array.
    pub fn adopt_backends(&mut self, found: &[(u32, BackendState)]) {
        self.backends.adopt(found);
    }

    /// Sets the control word `VERSION` found in the kernel.
    pub fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    /// Forgets what the maps hold, because a plan failed half-way or an audit found a difference: the next plan builds a whole
    /// generation. Follow with [`Planner::set_version`] and the word that the kernel has.
    pub fn invalidate(&mut self) {
        self.live = None;
        self.tables = None;
        self.backends.distrust();
    }

    /// What the maps are known to hold.
    #[must_use]
    pub fn held(&self) -> Option<&Arc<Tables>> {
        self.live.as_ref().and(self.tables.as_ref())
    }

    /// The steps from what the maps hold to `desired`, none if they hold it.
    ///
    /// # Errors
    /// [`PlanError::TooLarge`] if no generation can hold `desired`. The planner then still knows what the maps hold.
    pub fn plan(&mut self, desired: &Tables) -> Result<Plan, PlanError> {
        let planned = match self.attempt(desired) {
            Err(Unplanned::Late(late)) => self.in_two_parts(desired, &late.into_iter().collect()),
            planned => planned,
        };
        let (next, steps) = planned.map_err(|why| match why {
            Unplanned::TooLarge(error) => error,
            Unplanned::Full | Unplanned::Late(_) => backends_too_large(desired),
        })?;
        *self = next;
        Ok(Plan { steps })
    }

    /// First what there is room for, so that the rest finds the ids of what went. Until then a Service has some of its backends.
    fn in_two_parts(
        &self,
        desired: &Tables,
        late: &BTreeSet<u32>,
    ) -> Result<(Self, Vec<Step>), Unplanned> {
        let (between, mut steps) = self.attempt(&without(desired, late))?;
        let (next, rest) = between.attempt(desired)?;
        steps.extend(rest);
        Ok((next, steps))
    }

    /// The steps to `desired`, and the planner as it is after them. An attempt works on a copy, which costs next to nothing.
    fn attempt(&self, desired: &Tables) -> Result<(Self, Vec<Step>), Unplanned> {
        let mut next = self.clone();
        let steps = match next.incremental(desired) {
            Err(Unplanned::Full) => {
                let sizes = sizes(desired).map_err(Unplanned::TooLarge)?;
                next = self.clone();
                next.whole(desired, &sizes)?
            }
            steps => steps?,
        };
        next.policies = Some(desired.policies.clone());
        next.tables = Some(Arc::new(desired.clone()));
        Ok((next, steps))
    }

    /// The steps that bring Services in line and leave policies as they are, except that pods which have come since are isolated as they
    /// should be and may do nothing else: what is possible when [`Self::plan`] is not. `first` says that the maps never held anything; if they may, and what
    /// is not known, they are left as they are.
    pub fn plan_what_fits(&mut self, desired: &Tables, first: bool) -> Plan {
        let nothing = first.then(Arc::default);
        let Some(former) = self.policies.clone().or(nothing) else {
            return Plan::default();
        };
        let closed = Arc::new(held_back(&former, &desired.policies));
        for policies in [closed, former] {
            let services = desired.services.clone();
            if let Ok(plan) = self.plan(&Tables { services, policies }) {
                return plan;
            }
        }
        Plan::default()
    }

    /// What a table should hold, if that is known.
    pub(super) fn contents(&self, table: Table) -> Option<Contents> {
        let live = self.live.as_ref()?;
        let mut contents = Contents::default();
        match table {
            Table::Frontend | Table::Slot | Table::Source => {
                live.services.list(table, &self.backends, &mut contents);
            }
            Table::Endpoint | Table::Class | Table::Prefix | Table::Verdict | Table::Range => {
                live.policies.list(table, &mut contents);
            }
            Table::Backend => self.backends.list(&mut contents),
        }
        Some(contents)
    }

    fn incremental(&mut self, desired: &Tables) -> Result<Vec<Step>, Unplanned> {
        let live = self.live.as_mut().ok_or(Full)?;
        let old = self.tables.as_deref().ok_or(Full)?;
        let mut steps = Vec::new();
        // Those in which room was taken.
        let mut spaces = Vec::new();
        let mut waits = false;
        if old.services != desired.services {
            live.services.slots.space.begin();
            let backends = &desired.services.backends;
            let late = self.backends.arrive(backends, &mut steps);
            if !late.is_empty() {
                return Err(Unplanned::Late(late));
            }
            waits = self.backends.needs_wait();
            live.services
                .update(&desired.services, &self.backends, &mut steps)?;
            self.backends.leave(backends, &mut steps);
            spaces.push(&mut live.services.slots.space);
        }
        if !Arc::ptr_eq(&old.policies, &desired.policies) {
            let policies = Arc::make_mut(&mut live.policies);
            policies.ranges.space.begin();
            let narrows = || !self.keeps_established && narrows(&old.policies, &desired.policies);
            let version = &mut self.version;
            policies.update(&desired.policies, version, narrows, &mut steps)?;
            spaces.push(&mut policies.ranges.space);
        }
        waits |= spaces.iter().any(|space| space.needs_wait());
        if waits {
            for space in spaces {
                space.settle();
            }
            steps.insert(0, Step::Wait);
        }
        Ok(steps)
    }

    fn whole(&mut self, desired: &Tables, sizes: &super::Sizes) -> Result<Vec<Step>, Unplanned> {
        let mut services = Services::new(sizes);
        let mut policies = Policies::new(sizes);
        let mut steps = vec![Step::Begin(sizes.clone())];
        let backends = &desired.services.backends;
        let late = self.backends.arrive(backends, &mut steps);
        if !late.is_empty() {
            return Err(Unplanned::Late(late));
        }
        if self.backends.needs_wait() {
            steps.insert(0, Step::Wait);
        }
        services.update(&desired.services, &self.backends, &mut steps)?;
        policies.fill(&desired.policies, &mut steps)?;
        steps.push(Step::Select);
        let old = self.tables.as_deref();
        // Without knowledge of the past it may have allowed more.
        let narrows = old.is_none_or(|old| narrows(&old.policies, &desired.policies));
        if narrows && !self.keeps_established {
            steps.push(Step::BumpEpoch);
        }
        // Programs that read the old generation still choose among its backends.
        steps.push(Step::Wait);
        self.backends.leave(backends, &mut steps);
        self.live = Some(Live {
            services,
            policies: Arc::new(policies),
        });
        Ok(steps)
    }
}

/// The tables as they would be without some backends.
fn without(tables: &Tables, late: &BTreeSet<u32>) -> Tables {
    let mut fewer = tables.clone();
    for fingerprint in late {
        fewer.services.backends.remove(fingerprint);
    }
    let is_late = |backend: &Backend| late.contains(&backend.fingerprint);
    for (key, entry) in &tables.services.frontends {
        if entry.internal.iter().chain(&*entry.external).any(is_late) {
            let mut entry = entry.clone();
            for set in [&mut entry.internal, &mut entry.external] {
                *set = set.iter().filter(|it| !is_late(it)).copied().collect();
            }
            fewer.services.frontends.insert(*key, entry);
        }
    }
    fewer
}
