//! Which changes made which maps, for `weir history`: what asked for them, how long it took, what came of it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use crate::admin::{HistoryEntry, Rejection, Trigger};
use crate::model::{Event, ObjectName};
use crate::plan::{Plan, Step};
use crate::state::Rejected;

/// Entries that are kept.
const KEPT: usize = 256;
/// Triggers of an entry that are named.
const NAMED: usize = 5;

/// The newest entries, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: VecDeque<HistoryEntry>,
}

impl History {
    /// Adds an entry; the oldest one goes where there is no room.
    pub(super) fn push(&mut self, entry: HistoryEntry) {
        if self.entries.len() >= KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// All of them.
    pub(super) fn to_vec(&self) -> Vec<HistoryEntry> {
        self.entries.iter().cloned().collect()
    }
}

/// What is on its way into the kernel.
#[derive(Debug, Default)]
pub(super) struct Passage {
    since: Option<Instant>,
    in_force: Option<Instant>,
    triggers: Vec<Trigger>,
    changes: usize,
    writes: usize,
    judged_again: bool,
    failed: Option<String>,
    skipped: Arc<[Rejected]>,
}

/// What the kernel's control words say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Words {
    pub(super) generation: u64,
    pub(super) version: u64,
    pub(super) epoch: u64,
}

impl Passage {
    /// Something asks for a change.
    pub(super) fn asked(&mut self, trigger: impl FnOnce() -> Trigger, now: Instant) {
        self.since.get_or_insert(now);
        self.changes += 1;
        if self.triggers.len() < NAMED {
            self.triggers.push(trigger());
        }
    }

    /// A plan is about to be carried out.
    pub(super) fn planned(&mut self, plan: &Plan) {
        let writes = plan.steps.iter();
        let writes = writes.filter(|it| matches!(it, Step::Write { .. } | Step::Delete { .. }));
        self.writes += writes.count();
        self.judged_again |= plan.judges_again();
    }

    /// Programs read the new maps; what follows is tidying up.
    pub(super) fn in_force(&mut self, now: Instant) {
        self.in_force = Some(now);
    }

    /// A sync is over; the entry for it, if it did anything or failed in a new way. Where nothing was written its changes wait on.
    pub(super) fn over(
        &mut self,
        node: &str,
        words: Words,
        error: Option<String>,
        skipped: &Arc<[Rejected]>,
        now: (Instant, Timestamp),
    ) -> Option<HistoryEntry> {
        let known = std::mem::replace(&mut self.skipped, Arc::clone(skipped));
        let rejected = without(skipped, &known);
        let mended = without(&known, skipped);
        let fails_anew = error.is_some() && self.failed != error;
        let is_told = fails_anew || self.writes > 0 || !rejected.is_empty() || !mended.is_empty();
        let in_force = self.in_force.take().unwrap_or(now.0);
        let since = self.since.unwrap_or(in_force);
        let entry = is_told.then(|| HistoryEntry {
            time: now.1,
            node: node.to_owned(),
            generation: words.generation,
            version: words.version,
            epoch: words.epoch,
            judged_again: self.judged_again,
            triggers: self.triggers.clone(),
            changes: self.changes,
            seconds: in_force.saturating_duration_since(since).as_secs_f64(),
            writes: self.writes,
            rejected,
            mended,
            error: error.clone(),
        });
        // One object that does not fit keeps a sync failing, while the others come into force.
        if error.is_none() || self.writes > 0 {
            self.since = None;
            self.triggers.clear();
            self.changes = 0;
        }
        (self.writes, self.judged_again) = (0, false);
        self.failed = error;
        entry
    }
}

/// Those that are not among the others.
fn without(these: &Arc<[Rejected]>, others: &Arc<[Rejected]>) -> Vec<Rejection> {
    if Arc::ptr_eq(these, others) {
        return Vec::new();
    }
    let others: BTreeSet<&Rejected> = others.iter().collect();
    let these = these.iter().filter(|it| !others.contains(it));
    these
        .map(|it| Rejection {
            kind: it.kind.to_owned(),
            name: it.name.clone(),
            message: it.message.clone(),
        })
        .collect()
}

/// What an event is about.
pub(super) fn trigger(event: &Event) -> Trigger {
    let (kind, name, deleted) = match event {
        Event::Applied(object) => {
            let (kind, name) = object.key();
            (kind.as_str(), name, false)
        }
        Event::Deleted(kind, name) => (kind.as_str(), name.clone(), true),
        Event::Replaced(kind, _) => (kind.as_str(), ObjectName::default(), false),
        Event::Rejected { kind, name, .. } | Event::Flawed { kind, name, .. } => {
            (kind.as_str(), name.clone(), false)
        }
        Event::File { name, .. } => ("File", ObjectName::cluster(name), false),
    };
    Trigger {
        kind: kind.to_owned(),
        name,
        deleted,
    }
}

/// Something that is no object of the API.
pub(super) fn other(kind: &str, name: ObjectName) -> Trigger {
    Trigger {
        kind: kind.to_owned(),
        name,
        deleted: false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Kind;
    use crate::plan::Table;

    fn plan(steps: Vec<Step>) -> Plan {
        Plan { steps }
    }

    fn write() -> Step {
        Step::Write {
            table: Table::Class,
            key: [1_u8].as_slice().into(),
            value: [2_u8].as_slice().into(),
        }
    }

    fn policy(number: usize) -> Trigger {
        let name = ObjectName::new("shop", format!("p{number}"));
        trigger(&Event::Deleted(Kind::NetworkPolicy, name))
    }

    fn skipped(names: &[&str]) -> Arc<[Rejected]> {
        let rejected = names.iter().map(|name| Rejected {
            kind: "Service",
            name: (*name).to_owned(),
            uid: String::new(),
            reason: "Rejected",
            message: "port 0".to_owned(),
        });
        rejected.collect()
    }

    /// The end of a sync a second after `start`.
    fn over(
        passage: &mut Passage,
        start: Instant,
        error: Option<&str>,
        skipped: &Arc<[Rejected]>,
    ) -> Option<HistoryEntry> {
        let words = Words {
            generation: 2,
            version: 7,
            epoch: 3,
        };
        let now = (start + Duration::from_secs(1), Timestamp::default());
        passage.over("n1", words, error.map(str::to_owned), skipped, now)
    }

    #[test]
    fn an_entry_tells_what_asked_for_it_and_what_came_of_it() {
        let start = Instant::now();
        let mut passage = Passage::default();
        for number in 0..8 {
            let later = start + Duration::from_millis(number as u64);
            passage.asked(|| policy(number), later);
        }
        passage.planned(&plan(vec![write(), Step::Wait, Step::BumpEpoch]));
        passage.in_force(start + Duration::from_millis(250));
        passage.planned(&plan(vec![write()]));
        let entry = over(&mut passage, start, None, &skipped(&[])).unwrap();
        let expected = HistoryEntry {
            node: "n1".to_owned(),
            generation: 2,
            version: 7,
            epoch: 3,
            judged_again: true,
            triggers: (0..NAMED).map(policy).collect(),
            changes: 8,
            seconds: 0.25,
            writes: 2,
            ..HistoryEntry::default()
        };
        assert_eq!(entry, expected);
        // The next one begins anew.
        passage.planned(&plan(vec![write()]));
        let next = over(&mut passage, start, None, &skipped(&[])).unwrap();
        assert_eq!(
            (next.changes, next.writes, next.judged_again),
            (0, 1, false)
        );
    }

    #[test]
    fn what_changes_nothing_leaves_no_entry() {
        let start = Instant::now();
        let mut passage = Passage::default();
        passage.asked(|| policy(0), start);
        passage.planned(&plan(vec![]));
        assert_eq!(over(&mut passage, start, None, &skipped(&[])), None);
        passage.planned(&plan(vec![write()]));
        let entry = over(&mut passage, start, None, &skipped(&[])).unwrap();
        assert_eq!(entry.triggers, [], "those before had nothing to do with it");
    }

    #[test]
    fn rejections_come_and_go() {
        let start = Instant::now();
        let mut passage = Passage::default();
        let mut told = |names: &[&str]| {
            let entry = over(&mut passage, start, None, &skipped(names))?;
            let names = |list: Vec<Rejection>| {
                let names = list.into_iter().map(|it| it.name);
                names.collect::<Vec<_>>().join(" ")
            };
            Some((names(entry.rejected), names(entry.mended)))
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(told(&["a", "b"]), pair("a b", ""));
        assert_eq!(told(&["a", "b"]), None);
        assert_eq!(told(&["b", "c"]), pair("c", "a"));
        assert_eq!(told(&[]), pair("", "b c"));
    }

    #[test]
    fn a_failure_is_told_once_and_its_changes_wait_on() {
        let start = Instant::now();
        let mut passage = Passage::default();
        passage.asked(|| policy(0), start);
        let none = skipped(&[]);
        let first = over(&mut passage, start, Some("no room"), &none).unwrap();
        assert_eq!(
            (first.error.as_deref(), first.changes),
            (Some("no room"), 1)
        );
        assert_eq!(over(&mut passage, start, Some("no room"), &none), None);
        assert!(over(&mut passage, start, Some("no device"), &none).is_some());
        passage.planned(&plan(vec![write()]));
        let last = over(&mut passage, start, None, &none).unwrap();
        assert_eq!((last.error, last.triggers), (None, vec![policy(0)]));
    }

    #[test]
    fn what_comes_into_force_beside_a_lasting_failure_is_told() {
        let start = Instant::now();
        let mut passage = Passage::default();
        passage.asked(|| policy(0), start);
        let none = skipped(&[]);
        over(&mut passage, start, Some("no room"), &none).unwrap();
        let mut entries = Vec::new();
        for number in 1..3 {
            let asked = start + Duration::from_millis(500);
            passage.asked(|| policy(number), asked);
            passage.planned(&plan(vec![write()]));
            passage.in_force(start + Duration::from_secs(1));
            entries.push(over(&mut passage, start, Some("no room"), &none).unwrap());
        }
        let told: Vec<_> = entries
            .iter()
            .map(|it| (it.changes, it.writes, it.seconds, it.error.is_some()))
            .collect();
        assert_eq!(told, [(2, 1, 1.0, true), (1, 1, 0.5, true)]);
        assert_eq!(entries[1].triggers, [policy(2)]);
        // Nor is what was skipped meanwhile forgotten.
        let entry = over(&mut passage, start, Some("no room"), &skipped(&["a"])).unwrap();
        assert_eq!(entry.rejected.len(), 1);
    }

    #[test]
    fn the_oldest_entries_go() {
        let mut history = History::default();
        for version in 0..1000 {
            history.push(HistoryEntry {
                version,
                ..HistoryEntry::default()
            });
        }
        let kept = history.to_vec();
        assert_eq!((kept.len(), kept[0].version), (KEPT, 1000 - KEPT as u64));
    }
}
