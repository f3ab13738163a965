//! `weir status` of all nodes of a cluster.

use serde::Serialize;

use super::table::{Table, cell, yes};
use super::tables::share;
use crate::admin::{FlowLog, MapFill, Status};

/// A node of a cluster. Two of them are equal if nobody would call one news after the other.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node.
    pub node: String,
    /// What its agent said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Why it said nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl PartialEq for NodeStatus {
    fn eq(&self, other: &Self) -> bool {
        let said = |it: &Self| it.status.as_ref().map(without_clocks);
        self.node == other.node && self.error == other.error && said(self) == said(other)
    }
}

/// A status without what goes on all the time: ages, and how many connections there are.
fn without_clocks(status: &Status) -> Status {
    let mut status = Status {
        uptime_seconds: 0,
        last_sync_seconds: status.last_sync_seconds.map(|_| 0.0),
        ..status.clone()
    };
    status.maps.retain(|map| map.name != "flow");
    status.flow_log = status.flow_log.map(|log| FlowLog { written: 0, ..log });
    status
}

/// A line for each node.
#[must_use]
pub fn nodes(rows: &[NodeStatus]) -> Table {
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
    let row = |row: &NodeStatus| {
        let mut cells = vec![row.node.clone()];
        if let Some(status) = &row.status {
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
        let error = error.or_else(|| row.status.as_ref()?.last_error.as_ref());
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
        let row = |node: &str, status| NodeStatus {
            node: node.to_owned(),
            status,
            error: None,
        };
        let rows = [
            row("n1", Some(well)),
            row("n2", Some(ill)),
            NodeStatus {
                error: Some("no answer in 60s".to_owned()),
                ..row("n3", None)
            },
        ];
        insta::assert_snapshot!(nodes(&rows).to_string());
    }

    #[test]
    fn what_goes_on_all_the_time_is_no_news() {
        let map = |name: &str, entries| MapFill {
            name: name.to_owned(),
            entries,
            capacity: 100,
        };
        let of = |status| NodeStatus {
            node: "n1".to_owned(),
            status: Some(status),
            error: None,
        };
        let status = |change: fn(&mut Status)| {
            let mut status = Status {
                uptime_seconds: 5,
                last_sync_seconds: Some(1.0),
                maps: vec![map("flow", 1), map("range", 1)],
                flow_log: Some(FlowLog::default()),
                ..Status::default()
            };
            change(&mut status);
            of(status)
        };
        let before = || status(|_| {});
        let quiet = status(|it| {
            it.uptime_seconds = 6;
            it.last_sync_seconds = Some(2.0);
            it.maps[0].entries = 9;
            it.flow_log = Some(FlowLog {
                written: 7,
                ..FlowLog::default()
            });
        });
        assert!(before() == quiet);
        for news in [
            status(|it| it.generation = 9),
            status(|it| it.last_sync_seconds = None),
            status(|it| it.maps[1].entries = 9),
            status(|it| it.events_lost = 1),
            NodeStatus {
                status: None,
                error: Some("no answer".to_owned()),
                ..before()
            },
        ] {
            assert!(before() != news);
        }
    }
}
