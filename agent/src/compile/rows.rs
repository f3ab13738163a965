//! Rows: what policies say about pods, rule by rule, and the verdicts that follow for each class of peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;
use weir_common::abi::{RULE_NOT_ISOLATED, Range};

use super::classes::Classes;
use super::hash::content_hash;
use super::ranges::{self, EVERYTHING, Interval};
use super::terms::{Term, Terms};
use super::{RowEntry, RowId};
use crate::model::{Action, Direction, ObjectName, Pod, PortMatch, Protocol};

/// Ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Ports {
    /// From, to, as in [`weir_common::abi::range_bound`].
    Fixed(u32, u32),
    /// Named, to be resolved for the pod at the destination.
    Named(String, Protocol),
}

/// A rule ready to be matched.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    id: u32,
    /// Any of these terms; `None` is every peer.
    peers: Option<Vec<usize>>,
    ports: Vec<Ports>,
}

impl Rule {
    /// Every port of every peer.
    fn everything() -> Self {
        Self {
            id: RULE_NOT_ISOLATED,
            peers: None,
            ports: vec![fixed(EVERYTHING)],
        }
    }

    /// Resolves what does not depend on the pod; interns the terms that the rule needs. `namespace` is the policy's own.
    pub(super) fn new(
        id: u32,
        namespace: &str,
        direction: Direction,
        rule: &crate::model::Rule,
        terms: &mut Terms,
    ) -> Self {
        let peers = (!rule.peers.is_empty()).then(|| {
            rule.peers
                .iter()
                .map(|peer| terms.intern(Term::of_peer(peer, namespace)))
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
        if direction == Direction::Egress {
            for port in &ports {
                if let Ports::Named(name, protocol) = port {
                    terms.use_name(name, *protocol);
                }
            }
        }
        Self { id, peers, ports }
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
            ports,
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

/// What every tier says about a pod in one direction; rules in order of their weight.
#[derive(Default)]
pub(super) struct Tiers<'a> {
    /// Of the Admin tier.
    pub(super) admin: Vec<(Action, &'a Rule)>,
    /// NetworkPolicies that isolate the pod, with their rules, sorted by name.
    pub(super) isolating: Vec<(&'a ObjectName, &'a [Rule])>,
    /// Of the Baseline tier.
    pub(super) baseline: Vec<(Action, &'a Rule)>,
}

impl Tiers<'_> {
    /// Whether none says anything.
    pub(super) fn is_empty(&self) -> bool {
        self.admin.is_empty() && self.isolating.is_empty() && self.baseline.is_empty()
    }
}

/// The rules of one row in order of weight, and the NetworkPolicies that isolate its pods.
///
/// There are two tiers at most: below the Admin tier, NetworkPolicies have the last word where one isolates the pod, and where none
/// does the Baseline has it.
pub(super) struct Row {
    direction: Direction,
    policies: Vec<ObjectName>,
    rules: Vec<(Decision, Rule)>,
    /// Number of rules of the Admin tier, which come first.
    admin: usize,
}

impl Row {
    /// The row of a pod.
    pub(super) fn new(direction: Direction, pod: &Pod, tiers: &Tiers<'_>) -> Self {
        let resolved = |rule: &Rule| match direction {
            Direction::Ingress => rule.for_subject(pod),
            Direction::Egress => Some(rule.clone()),
        };
        let decided = |(action, rule): &(Action, &Rule)| {
            let decision = match action {
                Action::Accept => Decision::Allow(rule.id),
                Action::Deny => Decision::Deny(rule.id),
                Action::Pass => Decision::Pass,
            };
            Some((decision, resolved(rule)?))
        };
        let mut rules: Vec<_> = tiers.admin.iter().filter_map(decided).collect();
        let admin = rules.len();
        if tiers.isolating.is_empty() {
            rules.extend(tiers.baseline.iter().filter_map(decided));
            rules.push((Decision::Allow(RULE_NOT_ISOLATED), Rule::everything()));
        } else {
            let isolating = tiers.isolating.iter().flat_map(|(_, rules)| *rules);
            let isolating = isolating.filter_map(resolved);
            rules.extend(isolating.map(|rule| (Decision::Allow(rule.id), rule)));
        }
        Self {
            direction,
            policies: tiers
                .isolating
                .iter()
                .map(|(name, _)| (*name).clone())
                .collect(),
            rules,
            admin,
        }
    }

    /// The row of a pod that nothing may pass to or from.
    pub(super) fn closed(direction: Direction) -> Self {
        Self {
            direction,
            policies: Vec::new(),
            rules: Vec::new(),
            admin: 0,
        }
    }

    /// Content hash. Classes are no part of it: a row keeps its id when peers come and go.
    pub(super) fn id(&self, terms: &Terms) -> RowId {
        let rules: Vec<_> = self
            .rules
            .iter()
            .map(|(decision, rule)| {
                let mut ports = rule.ports.clone();
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
            &(self.direction, &self.policies, self.admin, rules),
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

    /// Verdicts and denials for every class that the row says something about.
    pub(super) fn entry(self, terms: &Terms, classes: &Classes) -> RowEntry {
        let mut matching: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (rank, (_, rule)) in self.rules.iter().enumerate() {
            for class in classes.satisfying(rule.peers.as_deref()) {
                matching.entry(class).or_default().push(rank);
            }
        }
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
        // Many classes are told apart only by terms of other rows.
        let mut known: FxHashMap<Vec<Interval>, [Arc<[Range]>; 2]> = FxHashMap::default();
        let mut verdicts = BTreeMap::new();
        let mut denials = BTreeMap::new();
        for (class, ranks) in matching {
            let intervals: Vec<_> = ranks
                .into_iter()
                .flat_map(|rank| {
                    let ports = &self.rules[rank].1.ports;
                    ports
                        .iter()
                        .flat_map(|port| numbers(port, terms, classes.terms(class)))
                        .map(move |(first, last)| (first, last, rank))
                        .collect::<Vec<_>>()
                })
                .collect();
            let [verdict, denial] = known.entry(intervals).or_insert_with_key(|intervals| {
                [
                    ranges::disjoint(intervals, allowed).into(),
                    ranges::disjoint(intervals, denied).into(),
                ]
            });
            for (ranges, all) in [(verdict, &mut verdicts), (denial, &mut denials)] {
                if !ranges.is_empty() {
                    all.insert(classes.id(class), ranges.clone());
                }
            }
        }
        RowEntry {
            direction: self.direction,
            policies: self.policies,
            verdicts,
            denials,
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
