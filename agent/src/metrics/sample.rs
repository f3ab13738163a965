//! What is read at the moment of a scrape.

use std::collections::BTreeMap;

use weir_common::abi::{Counter, Hook};
use weir_common::reason::Reason;

use crate::compile::WithoutLocal;
use crate::model::{Kind, Request};

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
    /// Uplinks with the program in their driver.
    pub attached_xdp: u64,
    /// Requests to the API server; empty for a source that makes none.
    pub requests: BTreeMap<Request, u64>,
    /// The agent's process.
    pub process: Process,
    /// Service ports of IPv4 and of IPv6 whose Local policy finds nothing on this node.
    pub without_local: [WithoutLocal; 2],
}

impl Sample {
    /// The count of a family.
    pub(super) fn without_local(&self, v4: bool) -> WithoutLocal {
        let [of_v4, of_v6] = self.without_local;
        if v4 { of_v4 } else { of_v6 }
    }
}

/// What the operating system says of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time, in the kernel and outside.
    pub cpu_seconds: f64,
    /// Start, in seconds since 1970.
    pub start_seconds: f64,
    /// Memory in RAM.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Most of them at once (RLIMIT_NOFILE).
    pub max_fds: u64,
}
