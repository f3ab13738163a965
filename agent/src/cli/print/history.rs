//! `weir history`.

use super::table::Table;
use crate::admin::{HistoryEntry, Trigger};

/// A line for each change.
#[must_use]
pub fn history(entries: &[HistoryEntry]) -> Table {
    let header = [
        "TIME",
        "NODE",
        "GENERATION",
        "EPOCH",
        "TOOK",
        "WRITES",
        "CHANGES",
        "NOTE",
    ];
    let rows = entries.iter().map(|entry| {
        let raised = if entry.judged_again { " (raised)" } else { "" };
        vec![
            format!("{:.3}", entry.time),
            entry.node.clone(),
            format!("{}.{}", entry.generation, entry.version),
            format!("{}{raised}", entry.epoch),
            format!("{:.1}ms", entry.seconds * 1e3),
            entry.writes.to_string(),
            changes(entry),
            note(entry),
        ]
    });
    Table::new(header, rows)
}

fn changes(entry: &HistoryEntry) -> String {
    let mut named: Vec<_> = entry.triggers.iter().map(trigger).collect();
    let more = entry.changes.saturating_sub(named.len());
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    if named.is_empty() {
        return "-".to_owned();
    }
    named.join(", ")
}

fn trigger(trigger: &Trigger) -> String {
    let Trigger {
        kind,
        name,
        deleted,
    } = trigger;
    let gone = if *deleted { " deleted" } else { "" };
    if name.name.is_empty() {
        format!("{kind} (all)")
    } else {
        format!("{kind} {name}{gone}")
    }
}

fn note(entry: &HistoryEntry) -> String {
    let error = entry.error.iter().map(|error| format!("failed: {error}"));
    let rejected = entry.rejected.iter();
    let rejected = rejected.map(|it| format!("skips {} {}: {}", it.kind, it.name, it.message));
    let mended = entry.mended.iter();
    let mended = mended.map(|it| format!("no longer skips {} {}", it.kind, it.name));
    let notes: Vec<_> = error.chain(rejected).chain(mended).collect();
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Rejection;
    use crate::model::ObjectName;

    #[test]
    fn what_an_agent_did() {
        let trigger = |kind: &str, name, deleted| Trigger {
            kind: kind.to_owned(),
            name,
            deleted,
        };
        let rejection = |name: &str| Rejection {
            kind: "Service".to_owned(),
            name: name.to_owned(),
            message: "port 0".to_owned(),
        };
        let first = HistoryEntry {
            time: "2026-01-02T03:04:05.25Z".parse().unwrap(),
            node: "n1".to_owned(),
            generation: 2,
            version: 7,
            epoch: 3,
            judged_again: true,
            triggers: vec![
                trigger("NetworkPolicy", ObjectName::new("shop", "deny"), true),
                trigger("Pod", ObjectName::new("shop", "back"), false),
                trigger("Service", ObjectName::default(), false),
            ],
            changes: 12,
            seconds: 0.0042,
            writes: 17,
            ..HistoryEntry::default()
        };
        let second = HistoryEntry {
            judged_again: false,
            triggers: Vec::new(),
            changes: 0,
            rejected: vec![rejection("shop/a")],
            mended: vec![rejection("shop/b")],
            error: Some("table `slot` is full".to_owned()),
            ..first.clone()
        };
        insta::assert_snapshot!(history(&[first, second]).to_string());
    }
}
