//! `weir history`.

use anyhow::Result;

use super::args::{Headers, LiveQuery};
use super::ask::ask_all;
use super::command::object;
use super::print;
use crate::admin::HistoryEntry;

/// Shows the newest entries of all nodes, at most `last`, oldest first.
pub(super) fn execute(last: Option<usize>, headers: Headers, query: &LiveQuery) -> Result<()> {
    let mut answers = ask_all::<Vec<HistoryEntry>>(&query.whom, "/v1/history", &[])?;
    let entries = answers.given.iter_mut();
    let mut entries: Vec<_> = entries
        .flat_map(|(_, entries)| std::mem::take(entries))
        .collect();
    entries.sort_by_key(|entry| entry.time);
    let older = entries.len().saturating_sub(last.unwrap_or(usize::MAX));
    let items = print::Items {
        items: &entries[older..],
    };
    object(query.output, "HistoryEntryList", &items, |list| {
        headers.of(print::history(list.items)).to_string()
    })?;
    answers.complete()
}
