//! The admin socket: what a running agent tells its own CLI, as JSON over HTTP/1 on a unix socket.
//!
//! It reads snapshots that the runtime provides, and changes nothing.

mod answer;
mod client;
mod connections;
mod dump;
mod evidence;
mod follow;
mod history;
mod lists;
mod server;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use answer::{
    Audit, AuditedTable, Device, FeatureState, FlowLog, MapFill, Pods, RecordCounts, Rejection,
    Sockets, Status, Watch,
};
pub use client::{Client, ClientError, follow, get};
pub use connections::connections;
pub use dump::{Element, MapDump, RawMaps, canonical, raw};
pub use evidence::{DryRun, Evidence, FirstPacket, Held, HeldFrontend, HeldVerdict, Tried};
pub use follow::Followed;
pub use history::{HistoryEntry, Trigger};
pub use lists::{
    FlowRow, PodRow, PolicyRow, ServiceRow, flow_rows, named_flow_rows, pods, policies, services,
};
pub use server::{ServeError, bind, serve};

use tokio::sync::broadcast;
use weir_common::abi::{Flow, FlowKey};

use crate::flows::top::Activity;
use crate::flows::{Record, RuleHits};
use crate::model::Snapshot;

/// What the runtime lets the admin socket see. Called from several tasks; slow calls are made on blocking threads.
pub trait Provider: Send + Sync + 'static {
    /// The objects of the last sync.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// The state of the agent now.
    fn status(&self) -> Status;

    /// The elements of every table that programs read.
    ///
    /// # Errors
    /// What could not be read, in words.
    fn maps(&self) -> Result<RawMaps, String>;

    /// Every tracked flow.
    ///
    /// # Errors
    /// What could not be read, in words.
    fn flows(&self) -> Result<Vec<(FlowKey, Flow)>, String>;

    /// Compares the kernel's maps, what was written to them, and the objects.
    ///
    /// # Errors
    /// What could not be compared, in words.
    fn audit(&self) -> Result<Audit, String>;

    /// Has the programs judge a packet of a pod of this node, and leave no trace; `None` where the kernel does not run them over it, as when
    /// its device has gone meanwhile.
    fn dry_run(&self, packet: &FirstPacket) -> Option<DryRun>;

    /// How often each rule decided.
    ///
    /// # Errors
    /// What could not be read, in words.
    fn hits(&self) -> Result<RuleHits, String>;

    /// What Prometheus gets to read.
    ///
    /// # Errors
    /// What could not be read, in words.
    fn metrics(&self) -> Result<String, String>;

    /// How many flow records there are and were.
    fn record_counts(&self) -> RecordCounts;

    /// What the agent did lately, oldest first.
    fn history(&self) -> Vec<HistoryEntry>;

    /// The newest flow records, oldest first.
    fn records(&self) -> Vec<Record>;

    /// The same, and those that come after them.
    fn follow(&self) -> (Vec<Record>, broadcast::Receiver<Record>);

    /// Who talks most, from now on; costs nothing while nobody has such a receiver.
    fn top(&self) -> broadcast::Receiver<Arc<Activity>>;
}
