//! `weir policy coverage`.

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::args::{LiveQuery, Scope};
use super::ask::{ask, ask_all};
use super::command::object;
use super::{print, show};
use crate::flows::RuleHits;
use crate::review::{Counts, Coverage, coverage};

/// Answer of `weir policy coverage`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Covered {
    /// What rules did.
    #[serde(flatten)]
    pub coverage: Coverage,
    /// Nodes whose agents counted.
    pub nodes: usize,
    /// Since when all of them have.
    pub since: Timestamp,
    /// One of at most so many allowed connections was reported; 0 where some agent reports none.
    pub event_sample: u32,
    /// Hits of rules for which there was no room.
    pub uncounted: u64,
}

/// The sum of what several agents counted.
pub(super) fn summed(hits: &[RuleHits]) -> Counts {
    let mut counts = Counts::default();
    for node in hits {
        for hit in &node.rules {
            let counted = counts.rules.entry(hit.rule.clone()).or_default();
            counted.hits += hit.hits;
            counted.connections += hit.connections;
        }
        for denied in &node.denials {
            let policy = (denied.policy.clone(), denied.direction);
            *counts.denials.entry(policy).or_default() += denied.packets;
        }
    }
    counts
}

pub(super) fn execute(scope: &Scope, query: &LiveQuery) -> Result<()> {
    let snapshot = show::snapshot(ask(&query.whom, "/v1/objects", &[])?);
    let mut answers = ask_all::<RuleHits>(&query.whom, "/v1/hits", &[])?;
    let given = answers.given.iter_mut();
    let hits: Vec<RuleHits> = given.map(|(_, hits)| std::mem::take(hits)).collect();
    let mut coverage = coverage(&snapshot, &summed(&hits));
    coverage
        .rules
        .retain(|rule| scope.holds(&rule.policy.namespace));
    coverage
        .unisolated
        .retain(|pods| scope.holds(&pods.namespace));
    let samples = || hits.iter().map(|hits| hits.event_sample);
    let covered = Covered {
        coverage,
        nodes: hits.len(),
        since: hits.iter().map(|hits| hits.since).max().unwrap_or_default(),
        event_sample: if samples().any(|sample| sample == 0) {
            0
        } else {
            samples().max().unwrap_or_default()
        },
        uncounted: hits.iter().map(|hits| hits.uncounted).sum(),
    };
    object(query.output, "PolicyCoverage", &covered, print::coverage)?;
    answers.complete()
}
