//! Compiles policies, and of a later snapshot only what is different.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::chosen::{Chosen, DIRECTIONS, PolicyKey};
use super::classes::Classes;
use super::endpoints::{self, Local};
use super::groups::Alike;
use super::peers::Peers;
use super::rows::{Row, Rows};
use super::subjects::{Changes, Subjects};
use super::terms::Terms;
use crate::compile::{PolicyTables, RowId};
use crate::model::{AddressOwners, ClusterPolicy, Namespace, Node, ObjectName, Policy, Snapshot};

/// Compiles policies, and of a later snapshot only what is different: the cost of a change is that of the pods, policies and classes
/// that it is about, however many there are. What comes out depends on the snapshot alone.
#[derive(Debug, Default)]
pub struct PolicyCompiler {
    seen: Seen,
    subjects: Subjects,
    chosen: Chosen,
    terms: Terms,
    peers: Peers,
    classes: Classes,
    rows: Rows,
    /// Rows of strangers, while there are any.
    closed: Option<[RowId; 2]>,
    tables: PolicyTables,
}

/// The objects of the last time.
#[derive(Debug, Default)]
struct Seen {
    policies: OrdMap<ObjectName, Arc<Policy>>,
    cluster_policies: OrdMap<String, Arc<ClusterPolicy>>,
    namespaces: OrdMap<String, Arc<Namespace>>,
    nodes: OrdMap<String, Arc<Node>>,
}

impl Seen {
    /// Takes in those of now; which differ, and whether nodes do.
    fn follow(&mut self, snapshot: &Snapshot) -> (Changes, bool) {
        let mut changes = Changes::default();
        let policies = differing(&self.policies, &snapshot.policies);
        let policies = policies.map(|name| PolicyKey::Namespaced(name.clone()));
        changes.policies.extend(policies);
        let policies = differing(&self.cluster_policies, &snapshot.cluster_policies);
        let policies = policies.map(|name| PolicyKey::Cluster(name.clone()));
        changes.policies.extend(policies);
        let namespaces = differing(&self.namespaces, &snapshot.namespaces);
        changes.namespaces.extend(namespaces.cloned());
        let nodes = differing(&self.nodes, &snapshot.nodes).next().is_some();
        *self = Self {
            policies: snapshot.policies.clone(),
            cluster_policies: snapshot.cluster_policies.clone(),
            namespaces: snapshot.namespaces.clone(),
            nodes: snapshot.nodes.clone(),
        };
        (changes, nodes)
    }
}

fn differing<'a, K: Ord, V: PartialEq>(
    old: &'a OrdMap<K, V>,
    new: &'a OrdMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    old.diff(new).map(|item| match item {
        DiffItem::Add(key, _)
        | DiffItem::Remove(key, _)
        | DiffItem::Update { new: (key, _), .. } => key,
    })
}

impl PolicyCompiler {
    /// The tables of a snapshot, whose owners these are.
    pub fn compile(&mut self, snapshot: &Snapshot, owners: &AddressOwners) -> &PolicyTables {
        if !self.chosen.collided() {
            self.follow(snapshot, owners);
        }
        if self.chosen.collided() {
            // Ids hang on the order then.
            *self = Self::default();
            self.follow(snapshot, owners);
        }
        &self.tables
    }

    fn follow(&mut self, snapshot: &Snapshot, owners: &AddressOwners) {
        let (changes, nodes) = self.seen.follow(snapshot);
        let subjects = self.subjects.follow(snapshot, owners, &changes);
        self.chosen.follow(
            &subjects.policies,
            |policy| self.subjects.choose(policy),
            snapshot,
            &mut self.terms,
            &mut self.tables.rules,
        );
        self.peers.follow(
            snapshot,
            owners,
            (&changes.namespaces, nodes),
            (&mut self.terms, &mut self.classes),
            &mut self.tables,
        );
        let classes = self.classes.settle();
        self.rows
            .follow(&classes, &self.terms, &self.classes, &mut self.tables.rows);
        let mut released = subjects.left;
        self.restate(&subjects.restated, &mut released);
        let local = self.local(snapshot, &mut released);
        endpoints::follow(&mut self.tables.endpoints, snapshot, &local);
        for row in released {
            self.rows.release(row, &mut self.tables.rows);
        }
        self.terms.settle();
    }

    /// Gives subjects the rows that policies ask for. The former ones come to `released`.
    fn restate(&mut self, restated: &BTreeSet<ObjectName>, released: &mut Vec<RowId>) {
        // Pods of one workload have the same.
        let mut known: BTreeMap<(&str, Alike), [RowId; 2]> = BTreeMap::new();
        for name in restated {
            let Some(subject) = self.subjects.known.get_mut(name) else {
                continue;
            };
            let key = (name.namespace.as_str(), Alike(Arc::clone(&subject.pod)));
            let rows = match known.get(&key) {
                Some(rows) => rows.map(|row| self.rows.share(row)),
                None => DIRECTIONS.map(|direction| {
                    let tiers = self.chosen.tiers(direction, &subject.selected);
                    if tiers.is_empty() {
                        return RowId::OPEN;
                    }
                    let row = Row::new(direction, &subject.pod, &tiers);
                    let entries = &mut self.tables.rows;
                    self.rows.take(row, &self.terms, &self.classes, entries)
                }),
            };
            known.insert(key, rows);
            released.extend(std::mem::replace(&mut subject.rows, rows));
        }
    }

    /// The pods of this node, and those that the API has not told of: which policies select one of these is not known, and
    /// nothing but the node may reach it, nor does it reach anything.
    fn local(&mut self, snapshot: &Snapshot, released: &mut Vec<RowId>) -> Vec<Local> {
        let known = self.subjects.known.values();
        let known = known.map(|subject| Local {
            pod: Arc::clone(&subject.pod),
            addresses: subject.addresses.clone(),
            rows: subject.rows,
        });
        let mut local: Vec<Local> = known.collect();
        for sandbox in snapshot.strangers() {
            let rows = *self.closed.get_or_insert_with(|| {
                DIRECTIONS.map(|direction| {
                    let row = Row::closed(direction);
                    let entries = &mut self.tables.rows;
                    self.rows.take(row, &self.terms, &self.classes, entries)
                })
            });
            local.push(Local {
                pod: Arc::new(sandbox.stranger(&snapshot.node_name)),
                addresses: sandbox.addresses.clone(),
                rows,
            });
        }
        if snapshot.strangers().next().is_none() {
            released.extend(self.closed.take().into_iter().flatten());
        }
        local
    }
}

#[cfg(test)]
mod tests;
