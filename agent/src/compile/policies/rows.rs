//! Rows: what policies say about pods, rule by rule, and the verdicts that follow for each class of peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use rustc_hash::FxHashMap;
use serde::Serialize;
use weir_common::abi::{RULE_NOT_ISOLATED, Range};

use super::classes::{Classes, News};
use super::terms::{Term, Terms};
use crate::compile::hash::content_hash;
use crate::compile::ranges::{self, EVERYTHING, Interval};
use crate::compile::{ClassId, RowEntry, RowId};
use crate::model::{self, Action, Direction, ObjectName, Pod, PortMatch, Protocol};

/// Ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Ports {
    /// From, to, as in [`weir_common::abi::range_bound`].
    Fixed(u32, u32),
    /// Named, to be resolved for the pod at the destination.
    Named(String, Protocol),
}

/// A rule ready to be matched; the terms of its peers are in use as long as it is.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) id: u32,
    /// Any of these terms; `None` is every peer.
    peers: Option<Arc<[usize]>>,
    ports: Arc<[Ports]>,
}

impl Rule {
    /// Every port of every peer.
    fn everything() -> Self {
        Self {
            id: RULE_NOT_ISOLATED,
            peers: None,
            ports: [fixed(EVERYTHING)].into(),
        }
    }

    /// Resolves what does not depend on the pod, and takes the terms and names that the rule needs. `namespace` is the policy's own.
    pub(super) fn new(
        id: u32,
        namespace: &str,
        direction: Direction,
        rule: &model::Rule,
        terms: &mut Terms,
    ) -> Self {
        let peers = (!rule.peers.is_empty()).then(|| {
            let peers = rule.peers.iter();
            peers
                .map(|peer| terms.take(Term::of_peer(peer, namespace)))
                .collect()
        });
        let mut ports: Vec<Ports> = rule
            .ports
            .iter()
            .map(|port| match &port.port {
                PortMatch::All => fixed(ranges::whole(port.protocol)),
                PortMatch::Range(first, last) => fixed(ranges::ports(port.protocol, *first, *last)),
                PortMatch::Named(name) => Ports::Named(name.clone(), port.protocol),
            })
            .collect();
        if rule.ports.is_empty() {
            ports.push(fixed(EVERYTHING));
        }
        let rule = Self {
            id,
            peers,
            ports: ports.into(),
        };
        for (name, protocol) in rule.names(direction) {
            terms.take_name(name, protocol);
        }
        rule
    }

    /// Gives up its terms and names.
    pub(super) fn release(&self, direction: Direction, terms: &mut Terms) {
        for term in self.peers.iter().flat_map(|peers| &**peers) {
            terms.release(*term);
        }
        for (name, protocol) in self.names(direction) {
            terms.release_name(name, protocol);
        }
    }

    /// Port names by which it tells peers apart.
    fn names(&self, direction: Direction) -> impl Iterator<Item = (&str, Protocol)> {
        let ports = self
            .ports
            .iter()
            .filter(move |_| direction == Direction::Egress);
        ports.filter_map(|port| match port {
            Ports::Named(name, protocol) => Some((name.as_str(), *protocol)),
            Ports::Fixed(..) => None,
        })
    }

    /// The rule with its port names resolved for the pod that it protects; `None` if no port is left.
    fn for_subject(&self, pod: &Pod) -> Option<Self> {
        let resolve = |port: &Ports| match port {
            Ports::Fixed(..) => Some(port.clone()),
            Ports::Named(name, protocol) => pod
                .named_port(name, *protocol)
                .map(|number| fixed(ranges::ports(*protocol, number, number))),
        };
        let ports: Vec<Ports> = self.ports.iter().filter_map(resolve).collect();
        (!ports.is_empty()).then(|| Self {
            ports: ports.into(),
            ..self.clone()
        })
    }
}

fn fixed((first, last): (u32, u32)) -> Ports {
    Ports::Fixed(first, last)
}

/// What becomes of what a rule of a row matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Decision {
    /// It passes by the rule of this id.
    Allow(u32),
    /// The rule of this id drops it.
    Deny(u32),
    /// The lower tier is asked.
    Pass,
}

/// A NetworkPolicy's or ClusterNetworkPolicy's rules of one direction, with what becomes of what they match.
pub(super) type Rules = [(Action, Rule)];

/// What every tier says about a pod in one direction.
#[derive(Default)]
pub(super) struct Tiers<'a> {
    /// Of the Admin tier, in order of weight.
    pub(super) admin: Vec<&'a Rules>,
    /// NetworkPolicies that isolate the pod, with their rules, sorted by name.
    pub(super) isolating: Vec<(&'a ObjectName, &'a Rules)>,
    /// Of the Baseline tier, in order of weight.
    pub(super) baseline: Vec<&'a Rules>,
}

impl Tiers<'_> {
    /// Whether none says anything.
    pub(super) fn is_empty(&self) -> bool {
        let mut cluster = self.admin.iter().chain(&self.baseline);
        self.isolating.is_empty() && cluster.all(|rules| rules.is_empty())
    }
}

/// The rules of one row in order of weight, and the NetworkPolicies that isolate its pods.
///
/// There are two tiers at most: below the Admin tier, NetworkPolicies have the last word where one isolates the pod, and where none
/// does the Baseline has it.
#[derive(Debug)]
pub(super) struct Row {
    direction: Direction,
    policies: Arc<[ObjectName]>,
    rules: Vec<(Decision, Rule)>,
    /// Number of rules of the Admin tier, which come first.
    admin: usize,
    /// Ranks of the rules that have a term among their peers.
    by_term: FxHashMap<usize, Vec<usize>>,
    /// Ranks of the rules for every peer.
    for_all: Vec<usize>,
}

impl Row {
    /// The row of a pod, resolved for its ports.
    pub(super) fn new(direction: Direction, pod: &Pod, tiers: &Tiers<'_>) -> Self {
        let resolved = |rule: &Rule| match direction {
            Direction::Ingress => rule.for_subject(pod),
            Direction::Egress => Some(rule.clone()),
        };
        let decided = |(action, rule): &(Action, Rule)| {
            let decision = match action {
                Action::Accept => Decision::Allow(rule.id),
                Action::Deny => Decision::Deny(rule.id),
                Action::Pass => Decision::Pass,
            };
            Some((decision, resolved(rule)?))
        };
        let all = |tier: &[&Rules]| -> Vec<_> {
            tier.iter()
                .flat_map(|rules| *rules)
                .filter_map(decided)
                .collect()
        };
        let mut rules = all(&tiers.admin);
        let admin = rules.len();
        if tiers.isolating.is_empty() {
            rules.extend(all(&tiers.baseline));
            rules.push((Decision::Allow(RULE_NOT_ISOLATED), Rule::everything()));
        } else {
            let isolating = tiers.isolating.iter().flat_map(|(_, rules)| *rules);
            rules.extend(isolating.filter_map(decided));
        }
        let isolating = tiers.isolating.iter();
        let policies = isolating.map(|(name, _)| (*name).clone()).collect();
        Self::of(direction, policies, rules, admin)
    }

    /// The row of a pod that nothing may pass to or from.
    pub(super) fn closed(direction: Direction) -> Self {
        Self::of(direction, Arc::default(), Vec::new(), 0)
    }

    fn of(
        direction: Direction,
        policies: Arc<[ObjectName]>,
        rules: Vec<(Decision, Rule)>,
        admin: usize,
    ) -> Self {
        let mut by_term: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        let mut for_all = Vec::new();
        for (rank, (_, rule)) in rules.iter().enumerate() {
            match &rule.peers {
                Some(peers) => {
                    for term in &**peers {
                        by_term.entry(*term).or_default().push(rank);
                    }
                }
                None => for_all.push(rank),
            }
        }
        Self {
            direction,
            policies,
            rules,
            admin,
            by_term,
            for_all,
        }
    }

    /// Content hash. Classes are no part of it: a row keeps its id when peers come and go.
    fn id(&self, terms: &Terms) -> RowId {
        let rules: Vec<_> = self
            .rules
            .iter()
            .map(|(decision, rule)| {
                let mut ports = rule.ports.to_vec();
                ports.sort();
                ports.dedup();
                (
                    decision,
                    rule.peers.as_ref().map(|peers| {
                        let mut ids = terms.ids(peers);
                        ids.dedup();
                        ids
                    }),
                    ports,
                )
            })
            .collect();
        RowId(content_hash(
            "row",
            &(self.direction, &*self.policies, self.admin, rules),
        ))
    }

    /// What has the last word of the rules that match, given by rank in order; `None` if none has.
    fn decide(&self, mut ranks: impl Iterator<Item = usize>) -> Option<Decision> {
        let first = ranks.next()?;
        match self.rules[first].0 {
            Decision::Pass if first < self.admin => {
                let below = ranks.find(|rank| *rank >= self.admin)?;
                Some(self.rules[below].0)
            }
            decision => Some(decision),
        }
    }

    /// The classes that a rule of the row may match.
    fn classes(&self, classes: &Classes) -> BTreeSet<ClassId> {
        if self.for_all.is_empty() {
            classes.satisfying(self.by_term.keys().copied())
        } else {
            classes.all()
        }
    }

    /// The ports that rules match for a class of these terms, each with the rank of its rule.
    fn intervals(&self, satisfied: &[usize], terms: &Terms) -> Vec<Interval> {
        let by_term = satisfied.iter().filter_map(|term| self.by_term.get(term));
        let ranks: BTreeSet<usize> = by_term.flatten().chain(&self.for_all).copied().collect();
        let mut intervals = Vec::new();
        for rank in ranks {
            for port in &*self.rules[rank].1.ports {
                let numbers = numbers(port, terms, satisfied).into_iter();
                intervals.extend(numbers.map(|(first, last)| (first, last, rank)));
            }
        }
        intervals
    }

    /// What passes of this, and what a rule denies.
    fn judge(&self, intervals: &[Interval]) -> [Arc<[Range]>; 2] {
        let allowed = |ranks: &mut dyn Iterator<Item = usize>| match self.decide(ranks)? {
            Decision::Allow(rule) => Some(rule),
            // That of the lowest tier.
            Decision::Pass => Some(RULE_NOT_ISOLATED),
            Decision::Deny(_) => None,
        };
        let denied = |ranks: &mut dyn Iterator<Item = usize>| match self.decide(ranks)? {
            Decision::Deny(rule) => Some(rule),
            Decision::Allow(_) | Decision::Pass => None,
        };
        [
            ranges::disjoint(intervals, allowed).into(),
            ranges::disjoint(intervals, denied).into(),
        ]
    }

    /// Adds verdicts and denials for classes to an entry of the row.
    fn tell(
        &self,
        entry: &mut RowEntry,
        of: impl Iterator<Item = ClassId>,
        terms: &Terms,
        classes: &Classes,
    ) {
        // Many classes are told apart only by terms of other rows.
        let mut known: FxHashMap<Vec<Interval>, [Arc<[Range]>; 2]> = FxHashMap::default();
        for class in of {
            let intervals = self.intervals(classes.terms(class), terms);
            if intervals.is_empty() {
                continue;
            }
            let judged = known.entry(intervals);
            let [verdict, denial] = judged.or_insert_with_key(|intervals| self.judge(intervals));
            for (ranges, all) in [(verdict, &mut entry.verdicts), (denial, &mut entry.denials)] {
                if !ranges.is_empty() {
                    all.insert(class, ranges.clone());
                }
            }
        }
    }
}

/// The rows in use.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeMap<RowId, Used>);

#[derive(Debug)]
struct Used {
    row: Row,
    users: usize,
}

impl Rows {
    /// Brings the entries of all rows in line with the classes that have come and gone.
    pub(super) fn follow(
        &self,
        news: &News,
        terms: &Terms,
        classes: &Classes,
        entries: &mut OrdMap<RowId, RowEntry>,
    ) {
        for (id, Used { row, .. }) in &self.0 {
            let mut entry = entries[id].clone();
            for class in &news.gone {
                entry.verdicts.remove(class);
                entry.denials.remove(class);
            }
            row.tell(&mut entry, news.come.iter().copied(), terms, classes);
            if entry != entries[id] {
                entries.insert(*id, entry);
            }
        }
    }

    /// The id of a row, for one more user.
    pub(super) fn take(
        &mut self,
        row: Row,
        terms: &Terms,
        classes: &Classes,
        entries: &mut OrdMap<RowId, RowEntry>,
    ) -> RowId {
        let id = row.id(terms);
        if let Some(used) = self.0.get_mut(&id) {
            used.users += 1;
            return id;
        }
        let mut entry = RowEntry {
            direction: row.direction,
            policies: Arc::clone(&row.policies),
            verdicts: OrdMap::new(),
            denials: OrdMap::new(),
        };
        let of = row.classes(classes).into_iter();
        row.tell(&mut entry, of, terms, classes);
        entries.insert(id, entry);
        self.0.insert(id, Used { row, users: 1 });
        id
    }

    /// One user more of a row that is in use.
    pub(super) fn share(&mut self, id: RowId) -> RowId {
        if let Some(used) = self.0.get_mut(&id) {
            used.users += 1;
        }
        id
    }

    /// One user less.
    pub(super) fn release(&mut self, id: RowId, entries: &mut OrdMap<RowId, RowEntry>) {
        let Some(used) = self.0.get_mut(&id) else {
            return;
        };
        used.users -= 1;
        if used.users == 0 {
            self.0.remove(&id);
            entries.remove(&id);
        }
    }
}

/// The intervals of a port for a peer that satisfies `satisfied`.
fn numbers(port: &Ports, terms: &Terms, satisfied: &[usize]) -> Vec<(u32, u32)> {
    match port {
        Ports::Fixed(first, last) => vec![(*first, *last)],
        Ports::Named(wanted, of) => satisfied
            .iter()
            .filter_map(|term| match terms.get(*term) {
                Term::Port {
                    name,
                    protocol,
                    number,
                } if name == wanted && protocol == of => {
                    Some(ranges::ports(*protocol, *number, *number))
                }
                _ => None,
            })
            .collect(),
    }
}
