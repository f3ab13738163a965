//! Who talks most, at this moment: for `weir top`.
//!
//! While somebody asks, the flow table is walked over again and again. What its flows did in between, and the records of packets that were not let
//! through, are summed up on boards, of which each keeps so many rows that sums stay whole and no line grows long.

mod boards;
mod counting;
#[cfg(test)]
mod tests;

use std::ops::AddAssign;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Directory, Record};
use boards::Sums;

pub use counting::Counting;

/// What happened on a node in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// When it was over.
    pub time: Timestamp,
    /// On which node.
    pub node: String,
    /// How long it was.
    pub seconds: f64,
    /// Flows that are tracked.
    pub flows: u64,
    /// Packets that were not let through, all of them.
    pub refused: u64,
    /// Records that were lost, of such packets or others: the boards do not know of them.
    pub records_lost: u64,
    /// By pod.
    pub pods: Board,
    /// By workload.
    pub workloads: Board,
    /// By Service port; connections of which the socket was given an endpoint at once are those of that endpoint.
    pub services: Board,
    /// What was not let through, and why.
    pub drops: Board,
}

/// The busiest of something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Board {
    /// In the order of their names.
    pub rows: Vec<Row>,
    /// All others.
    pub other: Counts,
    /// All others that [`Talk::elsewhere`] tells of another node.
    pub other_elsewhere: Counts,
}

/// A row of a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What it is about.
    #[serde(flatten)]
    pub talk: Talk,
    /// What there was of it.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What is counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Talk {
    /// Who opened the flows, see [`Peer::name`](super::Peer::name) and [`Peer::party`](super::Peer::party); empty for everybody.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub source: String,
    /// Whom to.
    pub destination: String,
    /// Protocol.
    pub protocol: String,
    /// Port there; 0 where there are none.
    pub port: u16,
    /// Why packets were not let through.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// The policies that say so.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub policies: Vec<String>,
    /// A pod of another node, or that node itself, opened the flows: its agent counts them, too.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub elsewhere: bool,
}

/// What there was of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Flows that began.
    pub connections: u64,
    /// Packets from whoever opened a flow, a GSO packet once.
    pub packets_sent: u64,
    /// Packets to them.
    pub packets_received: u64,
    /// Bytes from them, with Ethernet headers.
    pub bytes_sent: u64,
    /// Bytes to them.
    pub bytes_received: u64,
    /// Packets that were not let through, as far as there are records of them.
    pub drops: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.connections += more.connections;
        self.packets_sent += more.packets_sent;
        self.packets_received += more.packets_received;
        self.bytes_sent += more.bytes_sent;
        self.bytes_received += more.bytes_received;
        self.drops += more.drops;
    }
}

/// What is summed up of a span of time that is not over.
#[derive(Debug)]
pub struct Span {
    flows: Counting,
    sums: Sums,
    records_lost: u64,
}

/// What there is to know when a span of time is over.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    /// Tick at which the walk began that ended it.
    pub tick: u32,
    /// When it began.
    pub time: Timestamp,
    /// How long the span was.
    pub seconds: f64,
    /// Packets that were not let through in it.
    pub refused: u64,
    /// Events that the kernel could not tell in it.
    pub events_lost: u64,
}

impl Span {
    /// Begins, see [`Counting::new`].
    #[must_use]
    pub fn new(rate: u32, now: u32) -> Self {
        Self {
            flows: Counting::new(rate, now),
            sums: Sums::default(),
            records_lost: 0,
        }
    }

    /// For the walk over the flow table.
    pub fn flows(&mut self) -> &mut Counting {
        &mut self.flows
    }

    /// Takes in a record.
    pub fn record(&mut self, record: &Record, directory: &Directory) {
        if record.verdict.is_refusal() {
            self.sums.refusal(record, directory);
        }
    }

    /// Records were missed.
    pub fn missed(&mut self, records: u64) {
        self.records_lost += records;
    }

    /// Ends the span, and begins the next; nothing at the end of the first, before which nobody knows how much there was of each flow.
    pub fn end(&mut self, directory: &Directory, over: Over) -> Option<Activity> {
        let counted = self.flows.end(over.tick)?;
        let mut sums = std::mem::take(&mut self.sums);
        let flows = counted.flows;
        sums.flows(counted, directory);
        let [pods, workloads, services, drops] = sums.boards();
        Some(Activity {
            time: over.time,
            node: directory.node().to_owned(),
            seconds: over.seconds,
            flows,
            refused: over.refused,
            records_lost: over.events_lost + std::mem::take(&mut self.records_lost),
            pods,
            workloads,
            services,
            drops,
        })
    }
}
