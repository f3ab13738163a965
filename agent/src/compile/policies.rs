//! Pods, namespaces and policies in, endpoints, classes and rows out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_common::abi::EndpointKey;

use super::classes::Classes;
use super::pods::{self, Local};
use super::prefixes::Prefixes;
use super::rows::{Row, Rule};
use super::terms::Terms;
use super::{EndpointEntry, PolicyTables, RowId, RuleOrigin};
use crate::model::{Direction, ObjectName, Pod, Policy, Snapshot, endpoint_id, rule_id};

/// Policy tables of a snapshot.
#[must_use]
pub fn policies(snapshot: &Snapshot) -> PolicyTables {
    let owners = snapshot.address_owners();
    let local = pods::local(snapshot, &owners);
    let mut tables = PolicyTables::default();
    let mut terms = Terms::default();
    let prepared = prepare(snapshot, &local, &mut tables, &mut terms);

    let answers = terms.of_pods(snapshot, &owners);
    let prefixes = Prefixes::new(terms.blocks());
    let mut classes = Classes::new(&terms);
    for (key, blocks) in &prefixes.entries {
        let class = classes.intern(blocks.clone(), &terms);
        tables.prefixes.insert(*key, class);
    }
    for (address, satisfied) in answers {
        let set: BTreeSet<usize> = satisfied
            .iter()
            .chain(prefixes.of(address))
            .copied()
            .collect();
        let class = classes.intern(set.into_iter().collect(), &terms);
        tables.addresses.insert(address.into(), class);
    }

    let devices = pods::devices(snapshot, &local);
    for Local { pod, addresses } in &local {
        let mut row = |direction| {
            let isolating = prepared.isolating(direction, pod);
            if isolating.is_empty() {
                return RowId::OPEN;
            }
            let row = Row::new(direction, pod, &isolating);
            let id = row.id(&terms);
            tables
                .rows
                .entry(id)
                .or_insert_with(|| row.entry(&terms, &classes));
            id
        };
        let entry = EndpointEntry {
            pod: (*pod).clone(),
            id: endpoint_id(&pod.uid),
            ifindex: 0,
            ingress: row(Direction::Ingress),
            egress: row(Direction::Egress),
        };
        let keys = endpoint_keys(snapshot, pod, addresses, &devices);
        tables
            .endpoints
            .extend(keys.into_iter().map(|(key, ifindex)| {
                (
                    key,
                    EndpointEntry {
                        ifindex,
                        ..entry.clone()
                    },
                )
            }));
    }
    tables
}

/// The keys of a local pod with the device of each: its addresses, and the devices that are its own.
fn endpoint_keys(
    snapshot: &Snapshot,
    pod: &Pod,
    addresses: &[IpAddr],
    devices: &BTreeMap<u32, &std::sync::Arc<Pod>>,
) -> Vec<(EndpointKey, u32)> {
    let mut keys = Vec::new();
    for address in addresses {
        let ifindex = snapshot
            .devices
            .devices
            .get(address)
            .map_or(0, |device| device.ifindex);
        keys.push((EndpointKey::address((*address).into()), ifindex));
        if devices
            .get(&ifindex)
            .is_some_and(|owner| owner.name == pod.name)
        {
            keys.push((EndpointKey::device(ifindex), ifindex));
        }
    }
    keys
}

/// A policy that selects a local pod, with the rules of each direction in which it isolates.
struct Prepared<'a> {
    policy: &'a Policy,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

/// The policies of local pods by namespace, sorted by name.
struct ByNamespace<'a>(BTreeMap<&'a str, Vec<Prepared<'a>>>);

impl ByNamespace<'_> {
    /// The policies that isolate a pod in a direction, with their rules.
    fn isolating(&self, direction: Direction, pod: &Pod) -> Vec<(&ObjectName, &[Rule])> {
        self.0
            .get(pod.name.namespace.as_str())
            .into_iter()
            .flatten()
            .filter(|prepared| prepared.policy.pod_selector.matches(&pod.labels))
            .filter_map(|prepared| {
                let rules = match direction {
                    Direction::Ingress => prepared.ingress.as_deref(),
                    Direction::Egress => prepared.egress.as_deref(),
                };
                Some((&prepared.policy.name, rules?))
            })
            .collect()
    }
}

/// Picks the policies that select a local pod, gives their rules ids and notes the terms that they need.
fn prepare<'a>(
    snapshot: &'a Snapshot,
    local: &[Local<'_>],
    tables: &mut PolicyTables,
    terms: &mut Terms,
) -> ByNamespace<'a> {
    let mut pods: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for Local { pod, .. } in local {
        pods.entry(&pod.name.namespace).or_default().push(pod);
    }
    let mut prepared = ByNamespace(BTreeMap::new());
    for policy in snapshot.policies.values() {
        let namespace = policy.name.namespace.as_str();
        let selects = |pod: &&Pod| policy.pod_selector.matches(&pod.labels);
        if !pods
            .get(namespace)
            .is_some_and(|pods| pods.iter().any(selects))
        {
            continue;
        }
        let mut rules = |direction| {
            let rules = policy.rules(direction)?.iter().enumerate();
            Some(
                rules
                    .map(|(index, rule)| {
                        let id = add_rule(tables, policy, direction, index);
                        Rule::new(id, policy, direction, rule, terms)
                    })
                    .collect(),
            )
        };
        let entry = Prepared {
            policy,
            ingress: rules(Direction::Ingress),
            egress: rules(Direction::Egress),
        };
        prepared.0.entry(namespace).or_default().push(entry);
    }
    prepared
}

/// Gives a rule an id that no other rule of this node has.
fn add_rule(tables: &mut PolicyTables, policy: &Policy, direction: Direction, index: usize) -> u32 {
    let id = (0..)
        .map(|attempt| rule_id(&policy.name, &policy.uid, direction, index, attempt))
        .find(|id| !tables.rules.contains_key(id))
        .expect("a node has fewer rules than there are ids");
    let origin = RuleOrigin {
        policy: policy.name.clone(),
        direction,
        index,
    };
    tables.rules.insert(id, origin);
    id
}

#[cfg(test)]
mod tests;
