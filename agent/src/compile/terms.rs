//! Peer terms: the questions that local policies ask about a peer, and the answers that pods give.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::hash::content_hash;
use crate::model::{Namespace, Peer, Pod, Protocol, Selector, Snapshot};

/// One question about a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(super) enum Term {
    /// Is it a pod that these select?
    Pods {
        /// In which namespaces.
        namespaces: Namespaces,
        /// With which labels.
        pods: Selector,
    },
    /// Is its address in this block and in none of the exceptions?
    Block {
        /// The block.
        cidr: IpNetwork,
        /// Exceptions, sorted.
        except: BTreeSet<IpNetwork>,
    },
    /// Is it an address of a node with these labels?
    Nodes(Selector),
    /// Is it a pod that gives this port name this number?
    Port {
        /// Port name.
        name: String,
        /// Protocol of the port.
        protocol: Protocol,
        /// Its number on the pod.
        number: u16,
    },
}

/// Namespaces of a pod term.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(super) enum Namespaces {
    /// The policy's own.
    Own(String),
    /// By label.
    Matching(Selector),
}

impl Namespaces {
    /// `known` is the Namespace object; one that is not there matches no selector, but is a policy's own all the same.
    fn contain(&self, namespace: &str, known: Option<&Namespace>) -> bool {
        match self {
            Self::Own(name) => name == namespace,
            Self::Matching(selector) => known.is_some_and(|known| selector.matches(&known.labels)),
        }
    }
}

impl Term {
    /// The term of a peer in a policy of `namespace`.
    pub(super) fn of_peer(peer: &Peer, namespace: &str) -> Self {
        match peer {
            Peer::Pods { namespaces, pods } => Self::Pods {
                namespaces: match namespaces {
                    Some(selector) => Namespaces::Matching(selector.clone()),
                    None => Namespaces::Own(namespace.to_owned()),
                },
                pods: pods.clone().unwrap_or_default(),
            },
            Peer::Block { cidr, except } => Self::Block {
                cidr: *cidr,
                except: except.iter().copied().collect(),
            },
            Peer::Nodes(selector) => Self::Nodes(selector.clone()),
        }
    }
}

/// The terms in use, by small numbers that mean nothing outside of one compilation.
#[derive(Default)]
pub(super) struct Terms {
    list: Vec<Term>,
    ids: Vec<u128>,
    index: FxHashMap<Term, usize>,
    named: BTreeSet<(String, Protocol)>,
}

impl Terms {
    /// Number of a term.
    pub(super) fn intern(&mut self, term: Term) -> usize {
        if let Some(&number) = self.index.get(&term) {
            return number;
        }
        let number = self.list.len();
        self.ids.push(content_hash("term", &term));
        self.list.push(term.clone());
        self.index.insert(term, number);
        number
    }

    /// Notes a port name that egress rules use: from now on peers are told apart by the number they give it.
    pub(super) fn use_name(&mut self, name: &str, protocol: Protocol) {
        self.named.insert((name.to_owned(), protocol));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// A term by its number.
    pub(super) fn get(&self, number: usize) -> &Term {
        &self.list[number]
    }

    /// Content hashes of terms, sorted.
    pub(super) fn ids(&self, numbers: &[usize]) -> Vec<u128> {
        let mut ids: Vec<u128> = numbers.iter().map(|number| self.ids[*number]).collect();
        ids.sort_unstable();
        ids
    }

    /// The block terms with their numbers.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, IpNetwork, &BTreeSet<IpNetwork>)> {
        self.list
            .iter()
            .enumerate()
            .filter_map(|(number, term)| match term {
                Term::Block { cidr, except } => Some((number, *cidr, except)),
                Term::Pods { .. } | Term::Nodes(_) | Term::Port { .. } => None,
            })
    }

    /// Node terms that hold for each address of a node; addresses for which none holds are left out.
    pub(super) fn of_nodes(&self, snapshot: &Snapshot) -> BTreeMap<IpAddr, BTreeSet<usize>> {
        let mut answers: BTreeMap<IpAddr, BTreeSet<usize>> = BTreeMap::new();
        for (number, term) in self.list.iter().enumerate() {
            let Term::Nodes(selector) = term else {
                continue;
            };
            for node in snapshot.nodes.values() {
                if selector.matches(&node.labels) {
                    for address in &node.addresses {
                        let answer = answers.entry(address.to_canonical()).or_default();
                        answer.insert(number);
                    }
                }
            }
        }
        answers
    }

    /// Sorted terms of pods that hold for each pod address; addresses for which none holds are left out.
    ///
    /// Pods that differ in nothing that a term could see are answered together, so that the work grows with the number of
    /// workloads and not with that of pods times terms.
    pub(super) fn of_pods(
        &mut self,
        snapshot: &Snapshot,
        owners: &BTreeMap<IpAddr, &Arc<Pod>>,
    ) -> Vec<(IpAddr, Arc<[usize]>)> {
        let candidates = self.by_namespace(snapshot, owners);
        let keys = self.label_keys();
        let named: Vec<_> = self.named.iter().cloned().collect();
        let mut known: FxHashMap<_, Arc<[usize]>> = FxHashMap::default();
        let mut answers = Vec::new();
        for (address, pod) in owners {
            let labels: Vec<Option<&String>> = keys.iter().map(|key| pod.labels.get(key)).collect();
            let numbers: Vec<Option<u16>> = named
                .iter()
                .map(|(name, protocol)| pod.named_port(name, *protocol))
                .collect();
            let group = (pod.name.namespace.as_str(), labels, numbers);
            let terms = match known.get(&group) {
                Some(terms) => terms.clone(),
                None => {
                    let terms: Arc<[usize]> = self.answer(pod, &candidates, &named).into();
                    known.insert(group, terms.clone());
                    terms
                }
            };
            if !terms.is_empty() {
                answers.push((*address, terms));
            }
        }
        answers
    }

    /// Pod terms whose namespace part holds, for each namespace that has pods.
    fn by_namespace(
        &self,
        snapshot: &Snapshot,
        owners: &BTreeMap<IpAddr, &Arc<Pod>>,
    ) -> BTreeMap<String, Vec<usize>> {
        let names: BTreeSet<&String> = owners.values().map(|pod| &pod.name.namespace).collect();
        names
            .into_iter()
            .map(|name| {
                let known = snapshot.namespaces.get(name).map(AsRef::as_ref);
                let terms = self.list.iter().enumerate().filter(|(_, term)| {
                    matches!(term, Term::Pods { namespaces, .. } if namespaces.contain(name, known))
                });
                let numbers = terms.map(|(number, _)| number).collect();
                (name.clone(), numbers)
            })
            .collect()
    }

    /// Label keys that some pod term looks at.
    fn label_keys(&self) -> BTreeSet<String> {
        self.list
            .iter()
            .filter_map(|term| match term {
                Term::Pods { pods, .. } => Some(pods),
                Term::Block { .. } | Term::Nodes(_) | Term::Port { .. } => None,
            })
            .flat_map(|selector| &selector.requirements)
            .map(|requirement| requirement.key.clone())
            .collect()
    }

    fn answer(
        &mut self,
        pod: &Pod,
        candidates: &BTreeMap<String, Vec<usize>>,
        named: &[(String, Protocol)],
    ) -> Vec<usize> {
        let mut terms: Vec<usize> = candidates
            .get(&pod.name.namespace)
            .into_iter()
            .flatten()
            .copied()
            .filter(|number| match &self.list[*number] {
                Term::Pods { pods, .. } => pods.matches(&pod.labels),
                Term::Block { .. } | Term::Nodes(_) | Term::Port { .. } => false,
            })
            .collect();
        for (name, protocol) in named {
            if let Some(number) = pod.named_port(name, *protocol) {
                terms.push(self.intern(Term::Port {
                    name: name.clone(),
                    protocol: *protocol,
                    number,
                }));
            }
        }
        terms.sort_unstable();
        terms
    }
}
