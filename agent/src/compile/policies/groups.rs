//! Pods that no term could tell apart, and the terms that hold for them: the work grows with the number of workloads, and not
//! with that of pods.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::terms::{Term, Terms};
use crate::model::{ContainerPort, Labels, Namespace, Pod};

type Namespaces = OrdMap<String, Arc<Namespace>>;

/// A pod as terms see it, within a namespace.
#[derive(Clone, Debug)]
pub(super) struct Alike(pub(super) Arc<Pod>);

impl Alike {
    fn seen(&self) -> (&Labels, &[ContainerPort]) {
        (&self.0.labels, &self.0.ports)
    }
}

impl Ord for Alike {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.seen().cmp(&other.seen())
    }
}

impl PartialOrd for Alike {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Alike {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Alike {}

/// The groups of every namespace.
#[derive(Debug, Default)]
pub(super) struct Groups {
    namespaces: BTreeMap<String, BTreeMap<Alike, Group>>,
    /// Terms that reach a namespace, for the namespaces that were asked for since terms and namespaces last changed.
    reaching: BTreeMap<String, Arc<[usize]>>,
}

/// A group.
#[derive(Debug, Default)]
struct Group {
    addresses: BTreeSet<IpAddr>,
    /// Terms of pods that hold, sorted.
    pods: Vec<usize>,
    /// Terms of ports that hold, sorted; the group is a user of theirs.
    ports: Vec<usize>,
}

impl Group {
    /// What terms of ports hold, now that names are others; whether they are others.
    fn name_ports(&mut self, pod: &Pod, terms: &mut Terms) -> bool {
        let named: Vec<Term> = terms
            .names()
            .filter_map(|(name, protocol)| {
                Some(Term::Port {
                    name: name.clone(),
                    protocol: *protocol,
                    number: pod.named_port(name, *protocol)?,
                })
            })
            .collect();
        let mut ports: Vec<usize> = named.into_iter().map(|term| terms.take(term)).collect();
        ports.sort_unstable();
        let before = std::mem::replace(&mut self.ports, ports);
        for term in &before {
            terms.release(*term);
        }
        before != self.ports
    }
}

/// Those of some terms whose labels hold for a pod.
fn holding(numbers: &[usize], pod: &Pod, terms: &Terms) -> impl Iterator<Item = usize> {
    numbers
        .iter()
        .copied()
        .filter(|number| match terms.get(*number) {
            Term::Pods { pods, .. } => pods.matches(&pod.labels),
            Term::Block { .. } | Term::Nodes(_) | Term::Port { .. } => false,
        })
}

impl Groups {
    /// Judges anew what other terms, and other labels of the namespaces in `changed`, make of the groups there are. Addresses for
    /// which others hold are put into `dirty`.
    pub(super) fn follow(
        &mut self,
        terms: &mut Terms,
        namespaces: &Namespaces,
        changed: &BTreeSet<String>,
        dirty: &mut BTreeSet<IpAddr>,
    ) {
        self.reaching.clear();
        let is_of_pods = |term: &Term| matches!(term, Term::Pods { .. });
        let terms_differ = terms.differ(is_of_pods);
        let names_differ = terms.names_differ();
        for (namespace, groups) in &mut self.namespaces {
            let other_labels = changed.contains(namespace);
            if !(terms_differ || names_differ || other_labels) {
                continue;
            }
            let known = namespaces.get(namespace).map(AsRef::as_ref);
            let reaches =
                |(number, term): (usize, &Term)| term.reaches(namespace, known).then_some(number);
            let candidates: Vec<usize> = if other_labels {
                terms.all().filter_map(reaches).collect()
            } else {
                terms.come().filter_map(reaches).collect()
            };
            for (Alike(pod), group) in groups {
                let stays = |number: &usize| !other_labels && !terms.gone().contains(number);
                let mut pods = group.pods.clone();
                pods.retain(stays);
                pods.extend(holding(&candidates, pod, terms));
                pods.sort_unstable();
                let mut differs = pods != group.pods;
                group.pods = pods;
                if names_differ {
                    differs |= group.name_ports(pod, terms);
                }
                if differs {
                    dirty.extend(&group.addresses);
                }
            }
        }
    }

    /// An address is this pod's from now on.
    pub(super) fn enter(
        &mut self,
        address: IpAddr,
        pod: &Arc<Pod>,
        terms: &mut Terms,
        namespaces: &Namespaces,
    ) {
        let namespace = &pod.name.namespace;
        let key = Alike(Arc::clone(pod));
        let groups = self.namespaces.get_mut(namespace);
        if let Some(group) = groups.and_then(|groups| groups.get_mut(&key)) {
            group.addresses.insert(address);
            return;
        }
        let reaching = self.reaching.entry(namespace.clone()).or_insert_with(|| {
            let known = namespaces.get(namespace).map(AsRef::as_ref);
            let all = terms.all();
            all.filter(|(_, term)| term.reaches(namespace, known))
                .map(|(number, _)| number)
                .collect()
        });
        let mut group = Group {
            addresses: [address].into(),
            pods: holding(reaching, pod, terms).collect(),
            ports: Vec::new(),
        };
        group.name_ports(pod, terms);
        let groups = self.namespaces.entry(namespace.clone()).or_default();
        groups.insert(key, group);
    }

    /// An address is this pod's no more.
    pub(super) fn leave(&mut self, address: &IpAddr, pod: &Arc<Pod>, terms: &mut Terms) {
        let Some(groups) = self.namespaces.get_mut(&pod.name.namespace) else {
            return;
        };
        let key = Alike(Arc::clone(pod));
        let Some(group) = groups.get_mut(&key) else {
            return;
        };
        group.addresses.remove(address);
        if group.addresses.is_empty() {
            for term in &group.ports {
                terms.release(*term);
            }
            groups.remove(&key);
            if groups.is_empty() {
                self.namespaces.remove(&pod.name.namespace);
            }
        }
    }

    /// The terms that hold for a pod that has an address.
    pub(super) fn of(&self, pod: &Arc<Pod>) -> impl Iterator<Item = usize> {
        let groups = self.namespaces.get(&pod.name.namespace);
        let group = groups.and_then(|groups| groups.get(&Alike(Arc::clone(pod))));
        let numbers = group.map(|group| group.pods.iter().chain(&group.ports));
        numbers.into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::pod;

    #[test]
    fn pods_that_leave_leave_nothing_behind() {
        let (mut groups, mut terms) = (Groups::default(), Terms::default());
        let pods = [("one", "10.0.0.1"), ("other", "10.0.0.2")];
        let pods = pods.map(|(name, address)| Arc::new(pod("a", name, "web", address)));
        for pod in &pods {
            groups.enter(pod.ips[0], pod, &mut terms, &OrdMap::new());
        }
        for pod in &pods {
            assert_eq!(groups.namespaces.len(), 1);
            groups.leave(&pod.ips[0], pod, &mut terms);
        }
        assert!(groups.namespaces.is_empty());
    }
}
