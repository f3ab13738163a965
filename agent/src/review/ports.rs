//! Ports, cut where rules cut them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Pod, PortMatch, Protocol, Rule};

/// Ports that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRange {
    /// Protocol.
    pub protocol: Protocol,
    /// First port.
    pub first: u16,
    /// Last port, which may be the first.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is among them.
    #[must_use]
    pub fn holds(self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (1, u16::MAX) => write!(f, "every {} port", self.protocol),
            (first, last) if first == last => write!(f, "{} {first}", self.protocol),
            (first, last) => write!(f, "{} {first}-{last}", self.protocol),
        }
    }
}

/// Where rules cut: the first port of each piece, but for the very first one; and names, which cut where the destination has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts {
    starts: BTreeSet<(Protocol, u16)>,
    names: BTreeSet<(Protocol, String)>,
}

impl Cuts {
    /// Cuts where a rule does.
    pub(super) fn add(&mut self, rule: &Rule) {
        for port in &rule.ports {
            match &port.port {
                PortMatch::All => {}
                PortMatch::Range(first, last) => {
                    cut(&mut self.starts, port.protocol, *first, *last);
                }
                PortMatch::Named(name) => {
                    self.names.insert((port.protocol, name.clone()));
                }
            }
        }
    }

    /// The names that rules have for ports.
    pub(super) fn names(&self) -> impl Iterator<Item = (Protocol, &str)> {
        self.names
            .iter()
            .map(|(protocol, name)| (*protocol, name.as_str()))
    }
}

/// The pieces by the cuts of both ends, of connections to one pod as it is in each world.
pub(super) fn pieces(cuts: [Option<&Cuts>; 2], destination: [Option<&Pod>; 2]) -> Vec<PortRange> {
    let mut starts = BTreeSet::new();
    for cuts in cuts.into_iter().flatten() {
        starts.extend(&cuts.starts);
        for (protocol, name) in cuts.names() {
            for pod in destination.into_iter().flatten() {
                if let Some(port) = pod.named_port(name, protocol) {
                    cut(&mut starts, protocol, port, port);
                }
            }
        }
    }
    let mut by_protocol: BTreeMap<Protocol, Vec<u16>> =
        Protocol::ALL.map(|protocol| (protocol, vec![1])).into();
    for (protocol, port) in starts.into_iter().filter(|(_, port)| *port > 1) {
        by_protocol.entry(protocol).or_default().push(port);
    }
    let pieces = by_protocol.into_iter().flat_map(|(protocol, starts)| {
        let ends = starts.iter().skip(1).map(|next| next - 1);
        let ends: Vec<u16> = ends.chain([u16::MAX]).collect();
        let ranges = starts.into_iter().zip(ends);
        ranges.map(move |(first, last)| PortRange {
            protocol,
            first,
            last,
        })
    });
    pieces.collect()
}

fn cut(starts: &mut BTreeSet<(Protocol, u16)>, protocol: Protocol, first: u16, last: u16) {
    starts.insert((protocol, first));
    starts.extend(last.checked_add(1).map(|behind| (protocol, behind)));
}

/// Pieces with those that follow each other made one; sorted already.
pub(super) fn joined(pieces: impl IntoIterator<Item = PortRange>) -> Vec<PortRange> {
    let mut ranges: Vec<PortRange> = Vec::new();
    for piece in pieces {
        match ranges.last_mut() {
            Some(last)
                if last.protocol == piece.protocol
                    && last.last.checked_add(1) == Some(piece.first) =>
            {
                last.last = piece.last;
            }
            _ => ranges.push(piece),
        }
    }
    ranges
}

/// Ports in words, the shorter way: what they are, or what they are not.
#[must_use]
pub fn in_words(ranges: &[PortRange]) -> String {
    let others = complement(ranges);
    let list = |ranges: &[PortRange]| {
        let words: Vec<_> = ranges.iter().map(ToString::to_string).collect();
        words.join(", ")
    };
    match others.len() {
        0 => "every port".to_owned(),
        count if count < ranges.len() => format!("every port but {}", list(&others)),
        _ => list(ranges),
    }
}

fn complement(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut others = Vec::new();
    for protocol in Protocol::ALL {
        let mut next = Some(1);
        for range in ranges.iter().filter(|range| range.protocol == protocol) {
            if let Some(first) = next.filter(|first| *first < range.first) {
                let last = range.first - 1;
                others.push(PortRange {
                    protocol,
                    first,
                    last,
                });
            }
            next = range.last.checked_add(1);
        }
        if let Some(first) = next {
            let last = u16::MAX;
            others.push(PortRange {
                protocol,
                first,
                last,
            });
        }
    }
    others
}
