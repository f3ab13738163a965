//! Which rows of a picture are shown, in which order.

use std::cmp::Ordering;

use super::rates::{Measures, Picture, Rate};
use crate::cli::args::{By, Scope, Sort};
use crate::flows::top::Talk;

/// What somebody wants to see.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) by: By,
    pub(super) sort: Sort,
    pub(super) scope: Scope,
    /// What a row must have somewhere.
    pub(super) text: String,
}

/// What is shown of a board.
#[derive(Debug)]
pub(super) struct Chosen<'p> {
    /// The busiest first.
    pub(super) rows: Vec<&'p Rate>,
    /// All others; `None` where nobody knows which of them are wanted.
    pub(super) other: Option<Measures>,
}

impl Chosen<'_> {
    /// All that has no row of its own, once `rest` has none; `None` if there is nothing.
    pub(super) fn others(&self, rest: &[&Rate]) -> Option<Rate> {
        let mut per_second = self.other.unwrap_or_default();
        for row in rest {
            per_second += row.per_second;
        }
        (per_second != Measures::default()).then(|| Rate {
            talk: Talk::default(),
            per_second,
        })
    }
}

impl Choice {
    /// The rows that are wanted.
    pub(super) fn of<'p>(&self, picture: &'p Picture) -> Chosen<'p> {
        let board = picture.board(self.by);
        let rows = board.rows.iter().filter(|row| self.wants(row));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| self.order(a, b));
        let is_whole = self.scope.namespace.is_none() && self.text.is_empty();
        Chosen {
            rows,
            other: is_whole.then_some(board.other),
        }
    }

    /// What rows are sorted by: there is only one order of drops.
    pub(super) fn sort(&self) -> Sort {
        match self.by {
            By::Drops => Sort::Drops,
            By::Workloads | By::Pods | By::Services => self.sort,
        }
    }

    fn wants(&self, row: &Rate) -> bool {
        let talk = &row.talk;
        let mut ends = [&talk.source, &talk.destination].into_iter();
        let in_scope = self.scope.namespace.is_none()
            || ends.any(|end| namespace(end).is_some_and(|namespace| self.scope.holds(namespace)));
        in_scope && (self.text.is_empty() || cells(row).any(|cell| cell.contains(&self.text)))
    }

    fn order(&self, a: &Rate, b: &Rate) -> Ordering {
        let measure = |row: &Rate| self.measure(&row.per_second);
        measure(b)
            .total_cmp(&measure(a))
            .then_with(|| a.talk.cmp(&b.talk))
    }

    fn measure(&self, per_second: &Measures) -> f64 {
        match self.sort() {
            Sort::Bytes => per_second.bytes_sent + per_second.bytes_received,
            Sort::Packets => per_second.packets_sent + per_second.packets_received,
            Sort::Connections => per_second.connections,
            Sort::Drops => per_second.drops,
        }
    }
}

/// The namespace of a pod, workload or Service.
fn namespace(party: &str) -> Option<&str> {
    let (first, _) = party.split_once('/')?;
    (first != "node").then_some(first)
}

fn cells(row: &Rate) -> impl Iterator<Item = String> {
    let talk = &row.talk;
    [
        talk.source.clone(),
        talk.destination.clone(),
        port(row),
        talk.reason.clone(),
        talk.policies.join(","),
    ]
    .into_iter()
}

/// A row's port and protocol, as people write them.
pub(super) fn port(row: &Rate) -> String {
    match row.talk.port {
        0 => row.talk.protocol.clone(),
        port => format!("{port}/{}", row.talk.protocol),
    }
}
