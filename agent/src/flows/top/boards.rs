//! Sums by name, and the busiest of them.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::counting::{Counted, Pair};
use super::{Board, Counts, Row, Talk};
use crate::flows::decode::protocol_or_number;
use crate::flows::{Directory, Owner, Peer, Record};
use crate::model::Protocol;

/// Most rows that are summed up apart; what is between others is with the others.
const TALKS: usize = 1 << 16;
/// Rows of a board for each measure by which it may be sorted.
const BUSIEST: usize = 40;
/// What a row may be sorted by.
const MEASURES: [fn(&Counts) -> u64; 4] = [
    |counts| counts.connections,
    |counts| counts.packets_sent + counts.packets_received,
    |counts| counts.bytes_sent + counts.bytes_received,
    |counts| counts.drops,
];

/// Sums for all boards.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pods: Sum,
    workloads: Sum,
    services: Sum,
    drops: Sum,
}

/// Sums for a board.
#[derive(Debug, Default)]
struct Sum {
    talks: FxHashMap<Talk, Counts>,
    other: Others,
}

/// Sums of what has no row.
#[derive(Clone, Copy, Debug, Default)]
struct Others {
    here: Counts,
    elsewhere: Counts,
}

impl Others {
    fn add(&mut self, elsewhere: bool, counts: Counts) {
        if elsewhere {
            self.elsewhere += counts;
        } else {
            self.here += counts;
        }
    }
}

impl Sums {
    /// Adds what was counted of flows.
    pub(super) fn flows(&mut self, counted: Counted, directory: &Directory) {
        for (pair, counts) in counted.pairs {
            self.flow(&pair, counts, directory);
        }
        // Between whom it was nobody has noted.
        let [all, to_services] = counted.surplus;
        self.pods.other.add(false, all);
        self.workloads.other.add(false, all);
        self.services.other.add(false, to_services);
    }

    fn flow(&mut self, pair: &Pair, counts: Counts, directory: &Directory) {
        let source = directory.peer(pair.source.into(), 0);
        let (address, port) = pair.backend;
        let to = directory.peer(address.into(), port);
        let talk = Talk {
            protocol: protocol_or_number(pair.protocol),
            elsewhere: directory.is_of_other_node(&source),
            ..Talk::default()
        };
        let between = talk.with_port(port);
        self.between(&between, &source, &to, counts);
        if let Some(((address, port), id)) = pair.frontend {
            let destination = match directory.service_port(id) {
                Some(service) => Owner::Service(service.clone()).to_string(),
                None => directory.peer(address.into(), port).party(),
            };
            let to_service = Talk {
                destination,
                ..talk.with_port(port)
            };
            self.services.add(to_service, counts);
        }
    }

    /// Adds a packet that was not let through.
    pub(super) fn refusal(&mut self, record: &Record, directory: &Directory) {
        let counts = Counts {
            drops: 1,
            ..Counts::default()
        };
        let to = record.backend.as_ref().unwrap_or(&record.destination);
        let talk = Talk {
            protocol: record.protocol.clone(),
            elsewhere: directory.is_of_other_node(&record.source),
            ..Talk::default()
        };
        let between = talk.with_port(to.port);
        self.between(&between, &record.source, to, counts);
        if let Some(service @ Owner::Service(_)) = &record.destination.owner {
            let to_service = Talk {
                destination: service.to_string(),
                ..talk.with_port(record.destination.port)
            };
            self.services.add(to_service, counts);
        }
        let rule = record.rule.iter().map(|rule| rule.policy.to_string());
        let refused = Talk {
            source: record.source.party(),
            destination: to.party(),
            reason: record.reason.clone(),
            policies: rule
                .chain(record.denied_by.iter().map(ToString::to_string))
                .collect(),
            // Only the node that refuses a packet counts it.
            elsewhere: false,
            ..between
        };
        self.drops.add(refused, counts);
    }

    fn between(&mut self, talk: &Talk, source: &Peer, to: &Peer, counts: Counts) {
        let named = |name: fn(&Peer) -> String| Talk {
            source: name(source),
            destination: name(to),
            ..talk.clone()
        };
        self.pods.add(named(Peer::name), counts);
        self.workloads.add(named(Peer::party), counts);
    }

    /// The boards: pods, workloads, Services, drops.
    pub(super) fn boards(self) -> [Board; 4] {
        [self.pods, self.workloads, self.services, self.drops].map(Sum::board)
    }
}

impl Talk {
    /// The same with a port, if it is one: other protocols have an identifier there, which says nothing.
    fn with_port(&self, port: u16) -> Self {
        let has_ports = self.protocol.parse::<Protocol>().is_ok();
        Self {
            port: if has_ports { port } else { 0 },
            ..self.clone()
        }
    }
}

impl Sum {
    fn add(&mut self, talk: Talk, counts: Counts) {
        if self.talks.len() < TALKS || self.talks.contains_key(&talk) {
            *self.talks.entry(talk).or_default() += counts;
        } else {
            self.other.add(talk.elsewhere, counts);
        }
    }

    fn board(self) -> Board {
        let mut all: Vec<Row> = self
            .talks
            .into_iter()
            .map(|(talk, counts)| Row { talk, counts })
            .collect();
        all.sort_unstable_by(|a, b| a.talk.cmp(&b.talk));
        let mut kept = BTreeSet::new();
        for measure in MEASURES {
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by_key(|row| Reverse(measure(&all[*row].counts)));
            let some = order
                .into_iter()
                .filter(|row| measure(&all[*row].counts) > 0);
            kept.extend(some.take(BUSIEST));
        }
        let mut other = self.other;
        let mut rows = Vec::new();
        for (index, row) in all.into_iter().enumerate() {
            if kept.contains(&index) {
                rows.push(row);
            } else {
                other.add(row.talk.elsewhere, row.counts);
            }
        }
        Board {
            rows,
            other: other.here,
            other_elsewhere: other.elsewhere,
        }
    }
}
