//! What the tasks of the agent share: the data path, and what the loop last published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, SetOnce, broadcast, watch};

use super::flow_log::FlowLog;
use super::history::History;
use super::top::Top;
use crate::admin::RecordCounts;
use crate::compile::Tables;
use crate::datapath::{self, Feature, KernelDatapath, XdpState};
use crate::flows::{Directory, Hits, Recent, Record};
use crate::metrics::Tally;
use crate::model::{Kind, Snapshot};
use crate::plan::Planner;
use crate::source::kube::{Requests, WatchStates};
use crate::state::Rejected;

/// Flow records kept for `weir flows`.
const RECORDS: usize = 4096;

/// Shared by all tasks.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: String,
    pub(super) started: Moment,
    pub(super) features: Vec<Feature>,
    pub(super) tally: Arc<Tally>,
    /// Set once there are names for flow events.
    pub(super) compiled: SetOnce<()>,
    /// An audit has found that maps are not what was written.
    pub(super) suspicion: Notify,
    /// How the watches are doing; `None` for manifests.
    pub(super) watches: Option<watch::Receiver<WatchStates>>,
    /// What the API server was asked; nothing for manifests.
    pub(super) requests: Requests,
    /// Who asks for the busiest flows.
    pub(super) top: Top,
    datapath: RwLock<KernelDatapath>,
    published: RwLock<Published>,
    records: Mutex<Recent>,
    /// The file of flow records, if there is to be one.
    flow_log: Option<FlowLog>,
    hits: Mutex<Hits>,
    history: Mutex<History>,
    flows: AtomicU64,
}

/// What the loop tells the others, after each change.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    /// The objects of the last compilation.
    pub(super) snapshot: Arc<Snapshot>,
    /// Names for flow events.
    pub(super) directory: Arc<Directory>,
    /// What is skipped.
    pub(super) rejections: Arc<[Rejected]>,
    /// Health checks that cannot be answered.
    pub(super) closed: Arc<[Rejected]>,
    /// Kinds that have been listed.
    pub(super) listed: BTreeSet<Kind>,
    /// What the maps hold, once that is known.
    pub(super) held: Option<Arc<Tables>>,
    /// What knows each element of the maps, while that is known.
    pub(super) planner: Option<Arc<Planner>>,
    /// When the kernel was last brought in line.
    pub(super) last_sync: Option<Moment>,
    /// Since when a change waits for the kernel.
    pub(super) waiting_since: Option<Instant>,
    /// When bringing the kernel in line was last tried.
    pub(super) last_attempt: Option<Instant>,
    /// Why the last attempt failed.
    pub(super) last_error: Option<String>,
    /// Devices with programs.
    pub(super) attached: BTreeSet<u32>,
    /// Uplinks and tunnel devices with programs.
    pub(super) attached_nets: BTreeSet<u32>,
    /// What became of XDP on uplinks, where it is wanted.
    pub(super) xdp: BTreeMap<u32, XdpState>,
    /// Plans that changed anything.
    pub(super) syncs: u64,
}

/// A moment on both clocks: for people, and for differences.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) timestamp: Timestamp,
    pub(super) instant: Instant,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            timestamp: Timestamp::now(),
            instant: Instant::now(),
        }
    }
}

impl Shared {
    pub(super) fn new(
        node: String,
        datapath: KernelDatapath,
        watches: Option<watch::Receiver<WatchStates>>,
        requests: Requests,
        tally: Arc<Tally>,
        flow_log: Option<FlowLog>,
        hits: Hits,
    ) -> Self {
        Self {
            node,
            started: Moment::now(),
            features: datapath::probe(&datapath),
            tally,
            compiled: SetOnce::new(),
            suspicion: Notify::new(),
            watches,
            requests,
            top: Top::default(),
            datapath: RwLock::new(datapath),
            published: RwLock::default(),
            records: Mutex::new(Recent::new(RECORDS)),
            flow_log,
            hits: Mutex::new(hits),
            history: Mutex::default(),
            flows: AtomicU64::new(0),
        }
    }

    // A panic in one task poisons nothing: each lock guards values that are valid after every step.

    /// The data path, to read.
    pub(super) fn datapath(&self) -> RwLockReadGuard<'_, KernelDatapath> {
        self.datapath.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data path, to change.
    pub(super) fn datapath_mut(&self) -> RwLockWriteGuard<'_, KernelDatapath> {
        self.datapath
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what was last published.
    pub(super) fn published(&self) -> Published {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes what is published.
    pub(super) fn publish(&self, change: impl FnOnce(&mut Published)) {
        change(
            &mut self
                .published
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn records_lock(&self) -> MutexGuard<'_, Recent> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest flow records, oldest first.
    pub(super) fn recent(&self) -> Vec<Record> {
        self.records_lock().to_vec()
    }

    /// The same, and those that come after them, without one in between.
    pub(super) fn follow_records(&self) -> (Vec<Record>, broadcast::Receiver<Record>) {
        let records = self.records_lock();
        (records.to_vec(), records.follow())
    }

    /// Flow records that come from now on.
    pub(super) fn coming_records(&self) -> broadcast::Receiver<Record> {
        self.records_lock().follow()
    }

    /// Keeps a flow record, and has it written where it is wanted.
    pub(super) fn keep(&self, record: Record) {
        if let Some(log) = &self.flow_log {
            log.write(&record);
        }
        self.records_lock().push(record);
    }

    /// How many flow records are kept, could be, and have been since the agent's start.
    pub(super) fn record_counts_now(&self) -> RecordCounts {
        let records = self.records_lock();
        RecordCounts {
            kept: records.len() as u64,
            room: records.room() as u64,
            ever: records.pushed(),
        }
    }

    /// Flow records kept since the agent's start.
    pub(super) fn records_kept(&self) -> u64 {
        self.records_lock().pushed()
    }

    /// Puts flow records of an earlier agent before those of this one.
    pub(super) fn restore_records(&self, records: Vec<Record>) {
        self.records_lock().restore(records);
    }

    /// The file of flow records, if there is one.
    pub(super) const fn flow_log(&self) -> Option<&FlowLog> {
        self.flow_log.as_ref()
    }

    /// How often each rule decided.
    pub(super) fn hits(&self) -> MutexGuard<'_, Hits> {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done lately.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries of the flow table when they were last counted.
    pub(super) fn flow_entries(&self) -> u64 {
        self.flows.load(Ordering::Relaxed)
    }

    /// Notes the number of entries of the flow table.
    pub(super) fn set_flow_entries(&self, entries: u64) {
        self.flows.store(entries, Ordering::Relaxed);
    }

    /// Failed requests and broken watches by kind.
    pub(super) fn watch_errors(&self) -> BTreeMap<Kind, u64> {
        let Some(watches) = &self.watches else {
            return BTreeMap::new();
        };
        let states = watches.borrow();
        states
            .iter()
            .map(|(kind, state)| (*kind, state.errors))
            .collect()
    }
}

impl Published {
    /// Everything that is skipped.
    pub(super) fn skipped(&self) -> impl Iterator<Item = &Rejected> {
        self.rejections.iter().chain(&*self.closed)
    }

    /// See [`Shared::is_alive`].
    pub(super) fn is_alive(&self, limit: Duration, now: Instant) -> bool {
        self.waiting_since.is_none_or(|since| {
            let last = self
                .last_attempt
                .map_or(since, |attempt| attempt.max(since));
            now.saturating_duration_since(last) <= limit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_alive_while_it_tries() {
        let start = Instant::now();
        let limit = Duration::from_secs(60);
        let at = |seconds| start + Duration::from_secs(seconds);
        for (waiting, attempt, now, alive) in [
            (None, None, 1000, true),
            (None, Some(0), 1000, true),
            (Some(0), None, 60, true),
            (Some(0), None, 61, false),
            // An attempt of before says nothing.
            (Some(100), Some(0), 161, false),
            // A Service that does not fit waits for ever, and is tried again and again.
            (Some(0), Some(990), 1000, true),
            (Some(0), Some(900), 1000, false),
        ] {
            let published = Published {
                waiting_since: waiting.map(at),
                last_attempt: attempt.map(at),
                ..Published::default()
            };
            let told = published.is_alive(limit, at(now));
            assert_eq!(told, alive, "{waiting:?} {attempt:?} {now}");
        }
    }
}
