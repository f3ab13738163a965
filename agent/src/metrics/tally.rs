//! What the agent itself counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::proxy::Proxy;
use super::talkers::Talkers;
use crate::flows::{self, Outcome, Record};
use crate::model::{Direction, ObjectName};

/// A stage of bringing the kernel in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Objects to tables.
    Compile,
    /// Tables to map writes.
    Plan,
    /// Map writes.
    Write,
    /// Programs on devices.
    Attach,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 4] = [Self::Compile, Self::Plan, Self::Write, Self::Attach];

    /// Value of label `stage`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Plan => "plan",
            Self::Write => "write",
            Self::Attach => "attach",
        }
    }
}

/// What flows are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKind {
    /// What became of it.
    pub verdict: Outcome,
    /// Seen from the judged pod.
    pub direction: Direction,
    /// Protocol.
    pub protocol: &'static str,
}

/// What became of flow records that a file was to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// In the file, or in one that it was before.
    pub written: u64,
    /// In none.
    pub lost: u64,
}

/// Counters of the agent, shared by its tasks.
#[derive(Debug)]
pub struct Tally {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
pub(super) struct Counts {
    pub(super) durations: BTreeMap<Stage, Histogram>,
    pub(super) errors: BTreeMap<Stage, u64>,
    pub(super) flows: BTreeMap<FlowKind, u64>,
    pub(super) talkers: Talkers,
    pub(super) walks: flows::Counts,
    pub(super) flow_log: Logged,
    pub(super) expired: u64,
    pub(super) drift: BTreeMap<&'static str, u64>,
    pub(super) unprotected: Histogram,
    pub(super) proxy: Proxy,
}

impl Default for Tally {
    fn default() -> Self {
        // 1 ms to 16 s, as kube-proxy's.
        let histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        Self {
            counts: Mutex::new(Counts {
                durations: Stage::ALL.map(|stage| (stage, histogram())).into(),
                errors: Stage::ALL.map(|stage| (stage, 0)).into(),
                flows: BTreeMap::new(),
                talkers: Talkers::default(),
                walks: flows::Counts::default(),
                flow_log: Logged::default(),
                expired: 0,
                drift: BTreeMap::new(),
                // 1 ms to an hour.
                unprotected: Histogram::new(exponential_buckets(0.001, 4.0, 12)),
                proxy: Proxy::default(),
            }),
        }
    }
}

impl Tally {
    /// A stage took so long.
    pub fn took(&self, stage: Stage, time: Duration) {
        if let Some(histogram) = self.counts().durations.get(&stage) {
            histogram.observe(time.as_secs_f64());
        }
    }

    /// A stage failed.
    pub fn failed(&self, stage: Stage) {
        *self.counts().errors.entry(stage).or_default() += 1;
    }

    /// An event about a flow came.
    pub fn flow(&self, kind: FlowKind) {
        *self.counts().flows.entry(kind).or_default() += 1;
    }

    /// Counts an event by the workloads that it is about.
    pub fn talked(&self, record: &Record) {
        self.counts().talkers.count(record);
    }

    /// At most so many series by workloads from now on; those so far are forgotten.
    pub fn limit_workloads(&self, most: usize) {
        self.counts().talkers = Talkers::new(most);
    }

    /// Ends the series of workloads that have none of these pods and workloads any more, and gives them to those who talk more.
    pub fn turn_workloads(&self, alive: &BTreeSet<ObjectName>) {
        self.counts().talkers.turn(alive);
    }

    /// A walk over the flow table has counted so much since the agent's start, and so many entries were removed after it as their time was over.
    pub fn walked(&self, counted: flows::Counts, expired: u64) {
        let mut counts = self.counts();
        counts.walks = counted;
        counts.expired += expired;
    }

    /// So many more flow records were written to their file, and lost for it.
    pub fn logged(&self, written: u64, lost: u64) {
        let log = &mut self.counts().flow_log;
        log.written += written;
        log.lost += lost;
    }

    /// What became of flow records for their file so far.
    pub fn flow_log(&self) -> Logged {
        self.counts().flow_log
    }

    /// Elements of a map were not what was written there, and were written anew.
    pub fn drifted(&self, map: &'static str, elements: usize) {
        *self.counts().drift.entry(map).or_default() += elements as u64;
    }

    /// A pod was without programs for so long.
    pub fn unprotected(&self, time: Duration) {
        self.counts().unprotected.observe(time.as_secs_f64());
    }

    /// Counts what kube-proxy counts, too.
    pub fn proxy(&self, count: impl FnOnce(&mut Proxy)) {
        count(&mut self.counts().proxy);
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counters are valid after every single step.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
