//! Flow events by workload, in a bounded number of series: those who talk most, and all others together.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use crate::flows::{Outcome, Record};
use crate::model::ObjectName;

/// Series until somebody says how many.
const USUAL: usize = 500;
/// Who waits for a series, for each series that there may be.
const CANDIDATES: usize = 4;
/// What stands for several sources, destinations, reasons or policies.
const OTHER: &str = "other";

/// Labels of a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Talk {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) verdict: Outcome,
    pub(super) reason: String,
    pub(super) policy: String,
}

impl Talk {
    fn of(record: &Record) -> Self {
        let policies = match &record.rule {
            Some(rule) => vec![rule.policy.to_string()],
            None => record.denied_by.iter().map(ToString::to_string).collect(),
        };
        let destination = record.backend.as_ref().unwrap_or(&record.destination);
        Self {
            source: record.source.party(),
            destination: destination.party(),
            verdict: record.verdict,
            reason: record.reason.clone(),
            policy: policies.join(","),
        }
    }

    fn other(verdict: Outcome) -> Self {
        let [source, destination, reason, policy] = [OTHER; 4].map(str::to_owned);
        Self {
            source,
            destination,
            verdict,
            reason,
            policy,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Series {
    /// Events ever counted here.
    count: u64,
    /// Events of late, of which half is forgotten every turn.
    lately: u64,
}

/// Counts of flow events.
#[derive(Debug)]
pub(super) struct Talkers {
    most: usize,
    series: FxHashMap<Talk, Series>,
    /// Who has no series, with its events of late. These count as others.
    candidates: FxHashMap<Talk, u64>,
    others: BTreeMap<Outcome, u64>,
}

impl Default for Talkers {
    fn default() -> Self {
        Self::new(USUAL)
    }
}

impl Talkers {
    /// At most `most` series, and one for the others of each verdict.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            series: FxHashMap::default(),
            candidates: FxHashMap::default(),
            others: BTreeMap::new(),
        }
    }

    /// Counts an event.
    pub(super) fn count(&mut self, record: &Record) {
        let talk = Talk::of(record);
        let room = self.series.len() < self.most;
        if room || self.series.contains_key(&talk) {
            let series = self.series.entry(talk).or_default();
            series.count += 1;
            series.lately += 1;
            return;
        }
        *self.others.entry(talk.verdict).or_default() += 1;
        let room = self.candidates.len() < self.most * CANDIDATES;
        if room || self.candidates.contains_key(&talk) {
            *self.candidates.entry(talk).or_default() += 1;
        }
    }

    /// Gives the series to those who talked most of late, and ends those of whom nothing is left: pods that are not among `pods`, by the names that they
    /// and their workloads have. What an ended series had counted goes to the others, so that sums never fall. To be called now and then, about once a minute.
    pub(super) fn turn(&mut self, pods: &BTreeSet<ObjectName>) {
        let exists = |party: &str| {
            let is_pod = party.contains('/') && !party.starts_with("node/");
            let (namespace, name) = party.split_once('/').unwrap_or_default();
            let is_service = name.starts_with("svc/");
            !is_pod || is_service || pods.contains(&ObjectName::new(namespace, name))
        };
        let wanted = |talk: &Talk| exists(&talk.source) && exists(&talk.destination);
        // Of two who talked alike the one that has a series keeps it.
        let held = self
            .series
            .iter()
            .map(|(talk, series)| (series.lately, true, talk));
        let waiting = self.candidates.iter();
        let waiting = waiting.map(|(talk, lately)| (*lately, false, talk));
        let all = held.chain(waiting).filter(|(.., talk)| wanted(talk));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(self.most);
        let kept: BTreeSet<Talk> = all.into_iter().map(|(.., talk)| talk.clone()).collect();
        for (talk, ended) in self.series.extract_if(|talk, _| !kept.contains(talk)) {
            *self.others.entry(talk.verdict).or_default() += ended.count;
        }
        for (talk, lately) in self.candidates.drain() {
            if kept.contains(&talk) {
                let count = 0;
                self.series.insert(talk, Series { count, lately });
            }
        }
        for series in self.series.values_mut() {
            series.lately /= 2;
        }
    }

    /// Every series, in a fixed order.
    pub(super) fn counts(&self) -> BTreeMap<Talk, u64> {
        let series = self.series.iter();
        let series = series.map(|(talk, series)| (talk.clone(), series.count));
        let others = self.others.iter();
        let others = others.map(|(verdict, count)| (Talk::other(*verdict), *count));
        series.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::Owner;
    use crate::flows::tests::{event, record};

    /// A packet between two parties.
    fn from_to(source: &str, destination: &str) -> Record {
        let mut record = record(&event());
        let pod = |party: &str| {
            let (namespace, name) = party.split_once('/').expect("a name");
            ObjectName::new(namespace, name)
        };
        record.source.owner = Some(Owner::Pod(pod(source)));
        record.source.workload = None;
        record.destination.owner = Some(Owner::Pod(pod(destination)));
        record.destination.workload = None;
        record.backend = None;
        record
    }

    fn shown(talkers: &Talkers) -> Vec<(String, u64)> {
        let counts = talkers.counts().into_iter();
        counts.map(|(talk, count)| (talk.source, count)).collect()
    }

    fn pods(names: &[&str]) -> BTreeSet<ObjectName> {
        names
            .iter()
            .map(|name| ObjectName::new("a", *name))
            .collect()
    }

    #[test]
    fn parties_go_by_what_people_call_them() {
        let mut record = from_to("shop/front-5f-x", "shop/back");
        record.source.workload = Some(ObjectName::new("shop", "deploy/front"));
        let talk = Talk::of(&record);
        assert_eq!(
            (&*talk.source, &*talk.destination),
            ("shop/deploy/front", "shop/back")
        );
        assert_eq!(
            (&*talk.reason, &*talk.policy),
            ("policy_denied", "shop/deny")
        );
        let service = ObjectName::new("shop", "web");
        for (owner, called) in [
            (Some(Owner::Service(service)), "shop/svc/web"),
            (Some(Owner::Node("n1".to_owned())), "node/n1"),
            (None, "world"),
        ] {
            record.destination.owner = owner;
            assert_eq!(Talk::of(&record).destination, called);
        }
        record.backend = Some(from_to("a/b", "shop/behind").destination);
        assert_eq!(
            Talk::of(&record).destination,
            "shop/behind",
            "where it goes"
        );
    }

    #[test]
    fn who_comes_late_is_counted_with_the_others() {
        let mut talkers = Talkers::new(2);
        for source in ["a/1", "a/2", "a/3", "a/3", "a/1"] {
            talkers.count(&from_to(source, "a/0"));
        }
        let others = ("other".to_owned(), 2);
        assert_eq!(
            shown(&talkers),
            [("a/1".to_owned(), 2), ("a/2".to_owned(), 1), others]
        );
    }

    #[test]
    fn who_talks_more_gets_the_series_and_no_event_is_lost() {
        let mut talkers = Talkers::new(2);
        for source in ["a/1", "a/1", "a/2", "a/3", "a/3", "a/4"] {
            talkers.count(&from_to(source, "a/0"));
        }
        talkers.turn(&pods(&["0", "1", "2", "3", "4"]));
        let sum = |talkers: &Talkers| talkers.counts().values().sum::<u64>();
        assert_eq!(sum(&talkers), 6);
        let now =
            [("a/1", 2), ("a/3", 0), ("other", 4)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(shown(&talkers), now, "a/2 talked less than a/3");
        talkers.count(&from_to("a/3", "a/0"));
        assert_eq!((shown(&talkers)[1].1, sum(&talkers)), (1, 7));
    }

    #[test]
    fn who_talked_long_ago_gives_way() {
        let mut talkers = Talkers::new(1);
        let all = pods(&["0", "1", "2"]);
        for _ in 0..10 {
            talkers.count(&from_to("a/1", "a/0"));
        }
        for _ in 0..5 {
            talkers.count(&from_to("a/2", "a/0"));
            talkers.turn(&all);
        }
        assert_eq!(shown(&talkers)[0].0, "a/2");
    }

    #[test]
    fn series_of_pods_that_are_gone_end() {
        let mut talkers = Talkers::new(5);
        for (source, destination) in [("a/1", "a/0"), ("a/2", "a/0"), ("a/1", "a/2")] {
            talkers.count(&from_to(source, destination));
        }
        let mut outside = from_to("a/1", "a/0");
        outside.source.owner = None;
        talkers.count(&outside);
        let mut to_service = from_to("a/1", "a/0");
        to_service.destination.owner = Some(Owner::Service(ObjectName::new("a", "web")));
        talkers.count(&to_service);
        talkers.turn(&pods(&["0", "1"]));
        let counts = talkers.counts();
        let parties: Vec<_> = counts
            .keys()
            .map(|it| (&*it.source, &*it.destination))
            .collect();
        let left = [
            ("a/1", "a/0"),
            ("a/1", "a/svc/web"),
            ("other", "other"),
            ("world", "a/0"),
        ];
        assert_eq!(parties, left);
        assert_eq!(counts.values().sum::<u64>(), 5);
    }

    #[test]
    fn memory_is_bounded_whoever_talks() {
        let mut talkers = Talkers::new(3);
        for source in 0..1000 {
            talkers.count(&from_to(&format!("a/{source}"), "a/0"));
        }
        assert_eq!((talkers.series.len(), talkers.candidates.len()), (3, 12));
        assert_eq!(talkers.counts().len(), 4);
    }
}
