//! Rows: what isolated pods allow, rule by rule, and the verdicts that follow for each class of peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;
use weir_common::abi::Range;

use super::classes::Classes;
use super::hash::content_hash;
use super::ranges::{self, EVERYTHING, Interval};
use super::terms::{Term, Terms};
use super::{RowEntry, RowId};
use crate::model::{Direction, ObjectName, Pod, Policy, PortMatch, Protocol};

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
    /// Resolves what does not depend on the pod; interns the terms that the rule needs.
    pub(super) fn new(
        id: u32,
        policy: &Policy,
        direction: Direction,
        rule: &crate::model::Rule,
        terms: &mut Terms,
    ) -> Self {
        let namespace = &policy.name.namespace;
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

/// The rules of one row in order of attribution, and the policies that isolate its pods.
pub(super) struct Row {
    direction: Direction,
    policies: Vec<ObjectName>,
    rules: Vec<Rule>,
}

impl Row {
    /// The row of a pod that `policies` isolate, given with their rules and sorted by name.
    pub(super) fn new(
        direction: Direction,
        pod: &Pod,
        policies: &[(&ObjectName, &[Rule])],
    ) -> Self {
        let rules = policies.iter().flat_map(|(_, rules)| *rules);
        Self {
            direction,
            policies: policies.iter().map(|(name, _)| (*name).clone()).collect(),
            rules: match direction {
                Direction::Ingress => rules.filter_map(|rule| rule.for_subject(pod)).collect(),
                Direction::Egress => rules.cloned().collect(),
            },
        }
    }

    /// Content hash. Classes are no part of it: a row keeps its id when peers come and go.
    pub(super) fn id(&self, terms: &Terms) -> RowId {
        let rules: Vec<_> = self
            .rules
            .iter()
            .map(|rule| {
                let mut ports = rule.ports.clone();
                ports.sort();
                ports.dedup();
                (
                    rule.id,
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
            &(self.direction, &self.policies, rules),
        ))
    }

    /// The verdict for every class to which the row allows something.
    pub(super) fn entry(self, terms: &Terms, classes: &Classes) -> RowEntry {
        let mut matching: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (rank, rule) in self.rules.iter().enumerate() {
            for class in classes.satisfying(rule.peers.as_deref()) {
                matching.entry(class).or_default().push(rank);
            }
        }
        // Many classes are told apart only by terms of other rows.
        let mut known: FxHashMap<Vec<Interval>, Arc<[Range]>> = FxHashMap::default();
        let mut verdicts = BTreeMap::new();
        for (class, ranks) in matching {
            let intervals: Vec<_> = ranks
                .into_iter()
                .flat_map(|rank| {
                    let ports = &self.rules[rank].ports;
                    ports
                        .iter()
                        .flat_map(|port| numbers(port, terms, classes.terms(class)))
                        .map(move |(first, last)| (first, last, rank))
                        .collect::<Vec<_>>()
                })
                .collect();
            if intervals.is_empty() {
                continue;
            }
            let verdict = known.entry(intervals).or_insert_with_key(|intervals| {
                ranges::disjoint(intervals, |rank| self.rules[rank].id).into()
            });
            verdicts.insert(classes.id(class), verdict.clone());
        }
        RowEntry {
            direction: self.direction,
            policies: self.policies,
            verdicts,
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
