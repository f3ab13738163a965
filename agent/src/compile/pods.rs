//! Which pods this node must judge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Pod, Snapshot};

/// A pod of this node with the addresses that are its own.
pub(super) struct Local<'a> {
    pub(super) pod: &'a Arc<Pod>,
    pub(super) addresses: Vec<IpAddr>,
}

/// The pods of this node that own an address, by name.
pub(super) fn local<'a>(
    snapshot: &Snapshot,
    owners: &BTreeMap<IpAddr, &'a Arc<Pod>>,
) -> Vec<Local<'a>> {
    let mut local = BTreeMap::new();
    for (address, pod) in owners
        .iter()
        .filter(|(_, pod)| pod.node == snapshot.node_name)
    {
        local
            .entry(&pod.name)
            .or_insert_with(|| Local {
                pod,
                addresses: Vec::new(),
            })
            .addresses
            .push(*address);
    }
    local.into_values().collect()
}

/// Which local pod is behind each device. A device that is being handed from one pod to the next belongs to the newer.
pub(super) fn devices<'a>(snapshot: &Snapshot, local: &[Local<'a>]) -> BTreeMap<u32, &'a Arc<Pod>> {
    let mut devices: BTreeMap<u32, &Arc<Pod>> = BTreeMap::new();
    for Local { pod, addresses } in local {
        let known: BTreeSet<u32> = addresses
            .iter()
            .filter_map(|address| snapshot.devices.devices.get(address))
            .map(|device| device.ifindex)
            .collect();
        for ifindex in known {
            let owner = devices.entry(ifindex).or_insert(pod);
            if pod.precedence() > owner.precedence() {
                *owner = pod;
            }
        }
    }
    devices
}
