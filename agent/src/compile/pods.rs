//! Which pods this node must judge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Pod, Snapshot};

/// A pod of this node with the addresses that are its own.
pub(super) struct Local {
    pub(super) pod: Arc<Pod>,
    pub(super) addresses: Vec<IpAddr>,
    /// The API has not told of it, only a CNI plugin: nothing but its node may reach it, and it reaches nothing.
    pub(super) stranger: bool,
}

/// The pods of this node that own an address, by name, and those that the API has not told of.
pub(super) fn local(snapshot: &Snapshot, owners: &BTreeMap<IpAddr, &Arc<Pod>>) -> Vec<Local> {
    let mut local = BTreeMap::new();
    for (address, pod) in owners
        .iter()
        .filter(|(_, pod)| pod.node == snapshot.node_name)
    {
        local
            .entry(&pod.name)
            .or_insert_with(|| Local {
                pod: Arc::clone(pod),
                addresses: Vec::new(),
                stranger: false,
            })
            .addresses
            .push(*address);
    }
    let strangers = snapshot.strangers().map(|sandbox| Local {
        pod: Arc::new(sandbox.stranger(&snapshot.node_name)),
        addresses: sandbox.addresses.clone(),
        stranger: true,
    });
    local.into_values().chain(strangers).collect()
}

/// Which local pod is behind each device. A device that is being handed from one pod to the next belongs to the newer.
pub(super) fn devices<'a>(snapshot: &Snapshot, local: &'a [Local]) -> BTreeMap<u32, &'a Arc<Pod>> {
    let mut devices: BTreeMap<u32, &Arc<Pod>> = BTreeMap::new();
    for Local { pod, addresses, .. } in local {
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
