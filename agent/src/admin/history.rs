//! What the agent did lately, and why.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rejection;
use crate::model::ObjectName;

/// A change that has been brought into the kernel, or that could not be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When it was over.
    pub time: Timestamp,
    /// The node.
    pub node: String,
    /// Generation of the maps that programs read since then.
    pub generation: u64,
    /// Version within the generation.
    pub version: u64,
    /// Policy epoch since then.
    pub epoch: u64,
    /// Whether the epoch was raised: policies allow less than before, and live connections are judged again.
    pub judged_again: bool,
    /// The first things that asked for it.
    pub triggers: Vec<Trigger>,
    /// How many there were.
    pub changes: usize,
    /// Seconds from the first of them until programs read the new maps.
    pub seconds: f64,
    /// Elements that were written or deleted.
    pub writes: usize,
    /// What is skipped since then.
    pub rejected: Vec<Rejection>,
    /// What is not skipped any more.
    pub mended: Vec<Rejection>,
    /// Why it failed; tried again, it may be there a second time.
    pub error: Option<String>,
}

/// What asked for a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// The kind of an object; or `File`, `Sandbox` (a CNI plugin's word), `Device`, `Maps` (changed by somebody else).
    pub kind: String,
    /// Its name; empty for all of a kind.
    pub name: ObjectName,
    /// Whether it is gone.
    pub deleted: bool,
}
