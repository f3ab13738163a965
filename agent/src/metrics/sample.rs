//! What is read at the moment of a scrape.

use std::collections::BTreeMap;

use weir_common::abi::{Counter, Hook};
use weir_common::reason::Reason;

use crate::model::Kind;

/// How full a map is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Elements in it.
    pub entries: u64,
    /// Elements that it can hold.
    pub capacity: u64,
}

/// Values of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Version of the agent.
    pub version: String,
    /// Seconds since 1970 of the last time that the kernel was brought in line; `None` before the first.
    pub last_sync: Option<f64>,
    /// Whether each kind is listed.
    pub watches: BTreeMap<Kind, bool>,
    /// Failed requests and broken watches of each kind; empty for a source that has none.
    pub watch_errors: BTreeMap<Kind, u64>,
    /// Things that are skipped, by kind of object or `File`.
    pub rejected: BTreeMap<&'static str, u64>,
    /// How full each map is.
    pub maps: BTreeMap<&'static str, Fill>,
    /// Packets and bytes.
    pub packets: Vec<(Hook, Reason, Counter)>,
    /// The flow table.
    pub conntrack: Fill,
    /// Entries ever put into the flow table.
    pub conntrack_inserted: u64,
    /// Events that found the ring buffer full.
    pub events_lost: u64,
    /// Policy epoch.
    pub epoch: u64,
    /// Devices with programs.
    pub attached: u64,
    /// Uplinks and tunnel devices that programs are attached to.
    pub attached_nets: u64,
}
