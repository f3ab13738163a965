//! The class of every address and prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use weir_common::abi::Address;

use super::classes::Classes;
use super::groups::{Alike, Groups};
use super::prefixes::{self, Prefixes};
use super::terms::{Term, Terms};
use crate::compile::PolicyTables;
use crate::model::{AddressOwners, Node, Pod, Snapshot};

/// What terms hold for addresses.
#[derive(Debug, Default)]
pub(super) struct Peers {
    owners: OrdMap<IpAddr, Arc<Pod>>,
    groups: Groups,
    /// Terms of nodes that hold for the addresses of nodes.
    nodes: BTreeMap<IpAddr, BTreeSet<usize>>,
    prefixes: Prefixes,
}

impl Peers {
    /// Brings the classes of all addresses and prefixes in line with the terms in use. `namespaces` are those with other labels;
    /// `nodes` says whether nodes differ.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        owners: &AddressOwners,
        (namespaces, nodes): (&BTreeSet<String>, bool),
        (terms, classes): (&mut Terms, &mut Classes),
        tables: &mut PolicyTables,
    ) {
        let mut dirty = BTreeSet::new();
        self.groups
            .follow(terms, &snapshot.namespaces, namespaces, &mut dirty);
        self.follow_owners(snapshot, owners, terms, &mut dirty);
        if nodes || terms.differ(|term| matches!(term, Term::Nodes(_))) {
            let answers = of_nodes(terms, &snapshot.nodes);
            let before = mem::replace(&mut self.nodes, answers);
            let both = before.keys().chain(self.nodes.keys());
            dirty.extend(both.filter(|it| before.get(it) != self.nodes.get(it)));
        }
        if terms.differ(|term| matches!(term, Term::Block { .. })) {
            self.cut_prefixes(terms, classes, tables, &mut dirty);
        }
        for address in dirty {
            self.settle(address, terms, classes, tables);
        }
    }

    fn follow_owners(
        &mut self,
        snapshot: &Snapshot,
        owners: &AddressOwners,
        terms: &mut Terms,
        dirty: &mut BTreeSet<IpAddr>,
    ) {
        let before = mem::replace(&mut self.owners, owners.all().clone());
        for item in before.diff(owners.all()) {
            let (address, old, new) = match item {
                DiffItem::Add(address, new) => (address, None, Some(new)),
                DiffItem::Update {
                    old: (_, old),
                    new: (address, new),
                } => (address, Some(old), Some(new)),
                DiffItem::Remove(address, old) => (address, Some(old), None),
            };
            if let (Some(old), Some(new)) = (old, new)
                && old.name.namespace == new.name.namespace
                && Alike(Arc::clone(old)) == Alike(Arc::clone(new))
            {
                continue;
            }
            if let Some(old) = old {
                self.groups.leave(address, old, terms);
            }
            if let Some(new) = new {
                self.groups
                    .enter(*address, new, terms, &snapshot.namespaces);
            }
            dirty.insert(*address);
        }
    }

    /// Cuts blocks anew, and finds which addresses that makes a difference for.
    fn cut_prefixes(
        &mut self,
        terms: &Terms,
        classes: &mut Classes,
        tables: &mut PolicyTables,
        dirty: &mut BTreeSet<IpAddr>,
    ) {
        let blocks = terms.all().filter_map(|(number, term)| match term {
            Term::Block { cidr, except } => Some((number, *cidr, except)),
            Term::Pods { .. } | Term::Nodes(_) | Term::Port { .. } => None,
        });
        let before = mem::replace(&mut self.prefixes, Prefixes::new(blocks));
        let (old, new) = (&before.entries, &self.prefixes.entries);
        let both: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        for key in both.into_iter().filter(|it| old.get(it) != new.get(it)) {
            let range = || prefixes::addresses(key);
            dirty.extend(self.owners.range(range()).map(|(address, _)| *address));
            dirty.extend(self.nodes.range(range()).map(|(address, _)| *address));
            let former = match new.get(key) {
                Some(set) => {
                    let class = classes.take(set, terms, &mut tables.classes);
                    tables.prefixes.insert(*key, class)
                }
                None => tables.prefixes.remove(key),
            };
            if let Some(former) = former {
                classes.release(former, &mut tables.classes);
            }
        }
    }

    /// Finds the class of an address anew. One for which no term of a pod or a node holds has that of its prefix.
    fn settle(
        &self,
        address: IpAddr,
        terms: &Terms,
        classes: &mut Classes,
        tables: &mut PolicyTables,
    ) {
        let mut satisfied: BTreeSet<usize> = BTreeSet::new();
        if let Some(pod) = self.owners.get(&address) {
            satisfied.extend(self.groups.of(pod));
        }
        satisfied.extend(self.nodes.get(&address).into_iter().flatten());
        let class = (!satisfied.is_empty()).then(|| {
            satisfied.extend(self.prefixes.of(address));
            let set: Vec<usize> = satisfied.into_iter().collect();
            classes.take(&set, terms, &mut tables.classes)
        });
        let key = Address::from(address);
        let former = tables.addresses.get(&key).copied();
        if former != class {
            match class {
                Some(class) => tables.addresses.insert(key, class),
                None => tables.addresses.remove(&key),
            };
        }
        if let Some(former) = former {
            classes.release(former, &mut tables.classes);
        }
    }
}

/// Terms of nodes that hold for each address of a node; addresses for which none holds are left out.
fn of_nodes(terms: &Terms, nodes: &OrdMap<String, Arc<Node>>) -> BTreeMap<IpAddr, BTreeSet<usize>> {
    let mut answers: BTreeMap<IpAddr, BTreeSet<usize>> = BTreeMap::new();
    for (number, term) in terms.all() {
        let Term::Nodes(selector) = term else {
            continue;
        };
        for node in nodes.values().filter(|node| selector.matches(&node.labels)) {
            for address in &node.addresses {
                let answer = answers.entry(address.to_canonical()).or_default();
                answer.insert(number);
            }
        }
    }
    answers
}
