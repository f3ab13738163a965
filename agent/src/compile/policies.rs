//! Pods, namespaces and policies in, endpoints, classes and rows out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use weir_common::abi::EndpointKey;

use super::classes::Classes;
use super::pods::{self, Local};
use super::prefixes::Prefixes;
use super::prepare::Prepared;
use super::rows::Row;
use super::terms::Terms;
use super::{EndpointEntry, PolicyTables, RowId};
use crate::model::{Direction, Pod, Snapshot, endpoint_id};

/// Policy tables of a snapshot.
#[must_use]
pub fn policies(snapshot: &Snapshot) -> PolicyTables {
    let owners = snapshot.address_owners();
    let local = pods::local(snapshot, &owners);
    let mut tables = PolicyTables::default();
    let mut terms = Terms::default();
    let prepared = Prepared::new(snapshot, &local, &mut tables, &mut terms);

    let mut answers = terms.of_nodes(snapshot);
    for (address, satisfied) in terms.of_pods(snapshot, &owners) {
        answers.entry(address).or_default().extend(&*satisfied);
    }
    let prefixes = Prefixes::new(terms.blocks());
    let mut classes = Classes::new(&terms);
    for (key, blocks) in &prefixes.entries {
        let class = classes.intern(blocks.clone(), &terms);
        tables.prefixes.insert(*key, class);
    }
    for (address, mut satisfied) in answers {
        satisfied.extend(prefixes.of(address));
        let class = classes.intern(satisfied.into_iter().collect(), &terms);
        tables.addresses.insert(address.into(), class);
    }

    let devices = pods::devices(snapshot, &local);
    for Local {
        pod,
        addresses,
        stranger,
    } in &local
    {
        let mut row = |direction| {
            if *stranger {
                // Which policies select it is not known.
                let row = Row::closed(direction);
                let id = row.id(&terms);
                tables.rows.insert(id, row.entry(&terms, &classes));
                return id;
            }
            let tiers = prepared.tiers(direction, pod);
            if tiers.is_empty() {
                return RowId::OPEN;
            }
            let row = Row::new(direction, pod, &tiers);
            let id = row.id(&terms);
            tables
                .rows
                .entry(id)
                .or_insert_with(|| row.entry(&terms, &classes));
            id
        };
        let entry = EndpointEntry {
            pod: Arc::clone(pod),
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
    devices: &BTreeMap<u32, &Arc<Pod>>,
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

#[cfg(test)]
mod tests;
