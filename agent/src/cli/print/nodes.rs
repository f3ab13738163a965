//! `weir status` of all nodes of a cluster.

use serde::Serialize;

use super::table::{Table, cell, yes};
use super::tables::share;
use crate::admin::{MapFill, Status};

/// A node of a cluster.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus<'a> {
    /// The node.
    pub node: &'a str,
    /// What its agent said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'a Status>,
    /// Why it said nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A line for each node.
#[must_use]
pub fn nodes(rows: &[NodeStatus<'_>]) -> Table {
    let header = [
        "NODE",
        "VERSION",
        "SYNCED",
        "LAST SYNC",
        "GENERATION",
        "PODS",
        "CUT OFF",
        "DEVICES",
        "FULLEST MAP",
        "SKIPPED",
        "ERROR",
    ];
    let row = |row: &NodeStatus<'_>| {
        let mut cells = vec![row.node.to_owned()];
        if let Some(status) = row.status {
            cells.extend([
                status.version.clone(),
                yes(status.synced),
                cell(status.last_sync_seconds.map(|age| format!("{age:.1}s"))),
                status.generation.to_string(),
                status.pods.known.to_string(),
                status.pods.unknown.to_string(),
                status.devices.len().to_string(),
                cell(fullest(&status.maps).map(|map| format!("{} {:.0}%", map.name, share(map)))),
                status.rejections.len().to_string(),
            ]);
        }
        cells.resize(header.len() - 1, "-".to_owned());
        let error = row.error.as_ref();
        let error = error.or_else(|| row.status?.last_error.as_ref());
        cells.push(cell(error));
        cells
    };
    Table::new(header, rows.iter().map(row))
}

fn fullest(maps: &[MapFill]) -> Option<&MapFill> {
    maps.iter().max_by(|a, b| share(a).total_cmp(&share(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Pods;

    #[test]
    fn nodes_that_do_not_answer_are_shown() {
        let map = |name: &str, entries, capacity| MapFill {
            name: name.to_owned(),
            entries,
            capacity,
        };
        let well = Status {
            version: "0.1.0".to_owned(),
            synced: true,
            generation: 1,
            last_sync_seconds: Some(3.04),
            pods: Pods {
                known: 12,
                announced: 12,
                unknown: 1,
            },
            maps: vec![map("flow", 10, 1000), map("range", 30, 100)],
            ..Status::default()
        };
        let ill = Status {
            version: "0.1.0".to_owned(),
            last_error: Some("table `slot` is full".to_owned()),
            ..Status::default()
        };
        let row = |node, status| NodeStatus {
            node,
            status,
            error: None,
        };
        let rows = [
            row("n1", Some(&well)),
            row("n2", Some(&ill)),
            NodeStatus {
                error: Some("no answer in 60s".to_owned()),
                ..row("n3", None)
            },
        ];
        insta::assert_snapshot!(nodes(&rows).to_string());
    }
}
