//! Peer terms: the questions that local policies ask about a peer.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::compile::hash::content_hash;
use crate::model::{Namespace, Peer, Protocol, Selector};

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

    /// Whether pods of a namespace may be selected, as far as their namespace goes.
    pub(super) fn reaches(&self, namespace: &str, known: Option<&Namespace>) -> bool {
        matches!(self, Self::Pods { namespaces, .. } if namespaces.contain(namespace, known))
    }
}

/// The terms in use, by small numbers. A number stands for one term from one [`Terms::settle`] to the next, and longer while
/// somebody uses it.
#[derive(Debug, Default)]
pub(super) struct Terms {
    slots: Vec<Option<Slot>>,
    index: FxHashMap<Arc<Term>, usize>,
    free: Vec<usize>,
    come: BTreeSet<usize>,
    gone: BTreeSet<usize>,
    /// Port names that egress rules use, with the number of uses.
    names: BTreeMap<(String, Protocol), usize>,
    names_differ: bool,
}

#[derive(Debug)]
struct Slot {
    term: Arc<Term>,
    id: u128,
    users: usize,
}

impl Terms {
    /// The number of a term, for one more user.
    pub(super) fn take(&mut self, term: Term) -> usize {
        if let Some(&number) = self.index.get(&term) {
            let slot = self.slots[number].as_mut().expect("in the index");
            slot.users += 1;
            self.gone.remove(&number);
            return number;
        }
        let number = self.free.pop().unwrap_or(self.slots.len());
        if number == self.slots.len() {
            self.slots.push(None);
        }
        let term = Arc::new(term);
        self.slots[number] = Some(Slot {
            id: content_hash("term", &*term),
            term: Arc::clone(&term),
            users: 1,
        });
        self.index.insert(term, number);
        self.come.insert(number);
        number
    }

    /// One user less.
    pub(super) fn release(&mut self, number: usize) {
        let slot = self.slots[number].as_mut().expect("in use");
        slot.users -= 1;
        if slot.users == 0 {
            self.gone.insert(number);
        }
    }

    /// Notes that an egress rule uses a port name: from now on peers are told apart by the number they give it.
    pub(super) fn take_name(&mut self, name: &str, protocol: Protocol) {
        let users = self.names.entry((name.to_owned(), protocol)).or_default();
        self.names_differ |= *users == 0;
        *users += 1;
    }

    /// One use less.
    pub(super) fn release_name(&mut self, name: &str, protocol: Protocol) {
        let key = (name.to_owned(), protocol);
        let users = self.names.get_mut(&key).expect("in use");
        *users -= 1;
        if *users == 0 {
            self.names.remove(&key);
            self.names_differ = true;
        }
    }

    /// Port names in use.
    pub(super) fn names(&self) -> impl Iterator<Item = &(String, Protocol)> {
        self.names.keys()
    }

    /// Whether they are others than at the last [`Terms::settle`].
    pub(super) fn names_differ(&self) -> bool {
        self.names_differ
    }

    /// A term by its number.
    pub(super) fn get(&self, number: usize) -> &Term {
        let slot = self.slots[number].as_ref();
        &slot.expect("no number outlives its term").term
    }

    /// Content hashes of terms, sorted.
    pub(super) fn ids(&self, numbers: &[usize]) -> Vec<u128> {
        let ids = numbers.iter().map(|number| &self.slots[*number]);
        let mut ids: Vec<u128> = ids.flatten().map(|slot| slot.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Those in use, with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &Term)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| {
            let slot = slot.as_ref().filter(|slot| slot.users > 0)?;
            Some((number, &*slot.term))
        })
    }

    /// Those that are in use since the last [`Terms::settle`].
    pub(super) fn come(&self) -> impl Iterator<Item = (usize, &Term)> {
        let come = self.come.iter().filter(|it| !self.gone.contains(it));
        come.map(|number| (*number, self.get(*number)))
    }

    /// Those that nobody uses any more.
    pub(super) fn gone(&self) -> &BTreeSet<usize> {
        &self.gone
    }

    /// Whether a term of some kind has come or gone.
    pub(super) fn differ(&self, is_it: impl Fn(&Term) -> bool) -> bool {
        let mut both = self.come.iter().chain(&self.gone);
        both.any(|number| is_it(self.get(*number)))
    }

    /// Forgets what nobody uses; its numbers may stand for others from now on.
    pub(super) fn settle(&mut self) {
        for number in mem::take(&mut self.gone) {
            if let Some(slot) = self.slots[number].take() {
                self.index.remove(&slot.term);
                self.free.push(number);
            }
        }
        self.come.clear();
        self.names_differ = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Term {
        Term::Nodes(Selector::default())
    }

    fn block() -> Term {
        Term::of_peer(
            &Peer::Block {
                cidr: "10.0.0.0/8".parse().unwrap(),
                except: Vec::new(),
            },
            "a",
        )
    }

    #[test]
    fn what_came_and_went_is_told_once_and_numbers_are_given_again() {
        let mut terms = Terms::default();
        let number = terms.take(nodes());
        terms.take_name("http", Protocol::Tcp);
        assert!(terms.differ(|term| *term == nodes()));
        assert!(!terms.differ(|term| *term == block()));
        assert!(terms.names_differ());
        assert_eq!(terms.come().collect::<Vec<_>>(), [(number, &nodes())]);

        terms.settle();
        assert!(!terms.differ(|_| true) && !terms.names_differ());
        assert_eq!(terms.come().count() + terms.gone().len(), 0);

        terms.release(number);
        terms.release_name("http", Protocol::Tcp);
        assert!(terms.differ(|term| *term == nodes()) && terms.names_differ());
        assert_eq!(terms.gone(), &[number].into());
        assert_eq!(terms.get(number), &nodes(), "somebody may still ask");

        terms.settle();
        assert!(!terms.differ(|_| true) && !terms.names_differ());
        assert_eq!(terms.take(block()), number);
    }
}
