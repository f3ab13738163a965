//! What agents tell, as rates of all of them together.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::args::By;
use crate::flows::top::{Activity, Board, Counts, Talk};

/// An agent that tells nothing for so long, or three times as long as it took before, is silent.
const SILENT: Duration = Duration::from_secs(10);

/// What was heard of agents.
#[derive(Debug)]
pub(super) struct Heard {
    /// Of many nodes, each tells the flows that its own pods open.
    of_all: bool,
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Since the last picture.
    waiting: Option<Sum>,
    shown: Option<Sum>,
    heard: Option<Instant>,
    /// Why nothing more is heard.
    ended: Option<String>,
}

/// What an agent has told of a span of time.
#[derive(Debug)]
struct Sum {
    time: Timestamp,
    seconds: f64,
    flows: u64,
    refused: u64,
    records_lost: u64,
    boards: [SumBoard; 4],
}

#[derive(Debug, Default)]
struct SumBoard {
    rows: BTreeMap<Talk, Counts>,
    other: Counts,
}

/// A picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Picture {
    /// When the newest of it was; `None` before anybody has told anything.
    pub(super) time: Option<Timestamp>,
    pub(super) nodes: Vec<NodePart>,
    /// In the order of [`By::ALL`].
    boards: [Rates; 4],
}

/// What an agent has told, or why it has not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodePart {
    pub(super) node: String,
    /// The time that its part of the picture covers.
    pub(super) seconds: f64,
    /// Flows that it tracks.
    pub(super) flows: u64,
    /// Packets a second that it did not let through.
    pub(super) refused_per_second: f64,
    /// Flow records that it has lost.
    pub(super) records_lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A board.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) rows: Vec<Rate>,
    pub(super) other: Measures,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rate {
    #[serde(flatten)]
    pub(super) talk: Talk,
    pub(super) per_second: Measures,
}

/// What there is of a row in a second, see [`Counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measures {
    pub(super) connections: f64,
    pub(super) packets_sent: f64,
    pub(super) packets_received: f64,
    pub(super) bytes_sent: f64,
    pub(super) bytes_received: f64,
    pub(super) drops: f64,
}

impl Measures {
    fn of(counts: Counts, seconds: f64) -> Self {
        let rate = |count: u64| count as f64 / seconds;
        Self {
            connections: rate(counts.connections),
            packets_sent: rate(counts.packets_sent),
            packets_received: rate(counts.packets_received),
            bytes_sent: rate(counts.bytes_sent),
            bytes_received: rate(counts.bytes_received),
            drops: rate(counts.drops),
        }
    }
}

impl AddAssign for Measures {
    fn add_assign(&mut self, more: Self) {
        self.connections += more.connections;
        self.packets_sent += more.packets_sent;
        self.packets_received += more.packets_received;
        self.bytes_sent += more.bytes_sent;
        self.bytes_received += more.bytes_received;
        self.drops += more.drops;
    }
}

impl Heard {
    /// Nothing yet, of all agents of a cluster or of one.
    pub(super) fn new(of_all: bool) -> Self {
        Self {
            of_all,
            nodes: BTreeMap::new(),
        }
    }

    /// The agents of these nodes are asked.
    pub(super) fn expect(&mut self, nodes: Vec<String>) {
        let nodes = nodes.into_iter();
        self.nodes.extend(nodes.map(|node| (node, Node::default())));
    }

    /// An agent has told something.
    pub(super) fn hear(&mut self, activity: Activity, now: Instant) {
        let of_all = self.of_all;
        let node = self.nodes.entry(activity.node.clone()).or_default();
        node.heard = Some(now);
        node.ended = None;
        node.waiting
            .get_or_insert_with(|| Sum::new(activity.time))
            .add(activity, of_all);
    }

    /// An agent tells nothing more.
    pub(super) fn ended(&mut self, node: String, why: String) {
        self.nodes.entry(node).or_default().ended = Some(why);
    }

    /// Whether any agent has told something since the last picture.
    pub(super) fn has_news(&self) -> bool {
        self.nodes.values().any(|node| node.waiting.is_some())
    }

    /// Whether every agent has told of so long a time since the last picture, or tells nothing more.
    pub(super) fn is_full(&self, wanted: Duration) -> bool {
        let enough = |node: &Node| {
            let told = node.waiting.as_ref();
            node.ended.is_some() || told.is_some_and(|sum| sum.seconds >= wanted.as_secs_f64())
        };
        !self.nodes.is_empty() && self.nodes.values().all(enough)
    }

    /// The picture of now: of each agent what it has told since the last one, or before if it takes long.
    pub(super) fn picture(&mut self, now: Instant) -> Picture {
        let mut picture = Picture::default();
        let mut boards: [BTreeMap<&Talk, Measures>; 4] = Default::default();
        for node in self.nodes.values_mut() {
            if let Some(sum) = node.waiting.take() {
                node.shown = Some(sum);
            }
            node.forget_old(now);
        }
        for (name, node) in &self.nodes {
            picture.nodes.push(node.part(name, now));
            let Some(sum) = &node.shown else { continue };
            picture.time = picture.time.max(Some(sum.time));
            for (index, board) in sum.boards.iter().enumerate() {
                for (talk, counts) in &board.rows {
                    *boards[index].entry(talk).or_default() += Measures::of(*counts, sum.seconds);
                }
                picture.boards[index].other += Measures::of(board.other, sum.seconds);
            }
        }
        for (index, board) in boards.into_iter().enumerate() {
            let row = |(talk, per_second): (&Talk, Measures)| Rate {
                talk: talk.clone(),
                per_second,
            };
            picture.boards[index].rows = board.into_iter().map(row).collect();
        }
        picture
    }
}

impl Node {
    /// What was told long ago is true no more.
    fn forget_old(&mut self, now: Instant) {
        let Some((sum, heard)) = self.shown.as_ref().zip(self.heard) else {
            return;
        };
        let patience = SILENT.max(Duration::from_secs_f64(3.0 * sum.seconds));
        if self.ended.is_some() || now.saturating_duration_since(heard) > patience {
            self.shown = None;
        }
    }

    fn part(&self, name: &str, now: Instant) -> NodePart {
        let silent = || match self.heard {
            Some(heard) => {
                let since = now.saturating_duration_since(heard);
                format!("silent for {} s", since.as_secs())
            }
            None => "nothing heard yet".to_owned(),
        };
        match &self.shown {
            Some(sum) => NodePart {
                node: name.to_owned(),
                seconds: sum.seconds,
                flows: sum.flows,
                refused_per_second: sum.refused as f64 / sum.seconds,
                records_lost: sum.records_lost,
                error: None,
            },
            None => NodePart {
                node: name.to_owned(),
                error: Some(self.ended.clone().unwrap_or_else(silent)),
                ..NodePart::default()
            },
        }
    }
}

impl Sum {
    fn new(time: Timestamp) -> Self {
        Self {
            time,
            seconds: 0.0,
            flows: 0,
            refused: 0,
            records_lost: 0,
            boards: Default::default(),
        }
    }

    fn add(&mut self, activity: Activity, of_all: bool) {
        self.time = activity.time;
        // A span of no time would have rates without end.
        self.seconds += activity.seconds.max(0.001);
        self.flows = activity.flows;
        self.refused += activity.refused;
        self.records_lost += activity.records_lost;
        let boards = [
            activity.workloads,
            activity.pods,
            activity.services,
            activity.drops,
        ];
        for (sum, board) in self.boards.iter_mut().zip(boards) {
            sum.add(board, of_all);
        }
    }
}

impl SumBoard {
    /// Of all agents, the one of the node where a flow is opened tells it.
    fn add(&mut self, board: Board, of_all: bool) {
        for mut row in board.rows {
            if row.talk.elsewhere && of_all {
                continue;
            }
            row.talk.elsewhere = false;
            *self.rows.entry(row.talk).or_default() += row.counts;
        }
        self.other += board.other;
        if !of_all {
            self.other += board.other_elsewhere;
        }
    }
}

impl Picture {
    /// Agents that tell nothing, by their nodes, and why.
    pub(super) fn silent(&self) -> impl Iterator<Item = (&str, &str)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|part| Some((&*part.node, part.error.as_deref()?)))
    }

    /// A board.
    pub(super) fn board(&self, by: By) -> &Rates {
        &self.boards[by as usize]
    }
}
