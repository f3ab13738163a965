//! The entries of local pods: by their addresses, and by the devices that are their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use weir_common::abi::EndpointKey;

use crate::compile::{EndpointEntry, RowId};
use crate::model::{Pod, Snapshot, endpoint_id};

/// A local pod with the addresses that are its own and its rows for ingress and egress.
pub(super) struct Local {
    pub(super) pod: Arc<Pod>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) rows: [RowId; 2],
}

/// Brings the entries in line with the pods.
pub(super) fn follow(
    entries: &mut OrdMap<EndpointKey, EndpointEntry>,
    snapshot: &Snapshot,
    local: &[Local],
) {
    let devices = devices(snapshot, local);
    let mut wanted = BTreeMap::new();
    for Local {
        pod,
        addresses,
        rows: [ingress, egress],
    } in local
    {
        for (key, ifindex) in keys(snapshot, pod, addresses, &devices) {
            let entry = EndpointEntry {
                pod: Arc::clone(pod),
                id: endpoint_id(&pod.uid),
                ifindex,
                ingress: *ingress,
                egress: *egress,
            };
            wanted.insert(key, entry);
        }
    }
    let gone = entries.keys().filter(|key| !wanted.contains_key(key));
    for key in gone.copied().collect::<Vec<_>>() {
        entries.remove(&key);
    }
    for (key, entry) in wanted {
        if entries.get(&key) != Some(&entry) {
            entries.insert(key, entry);
        }
    }
}

/// Which local pod is behind each device. A device that is being handed from one pod to the next belongs to the newer.
fn devices<'a>(snapshot: &Snapshot, local: &'a [Local]) -> BTreeMap<u32, &'a Arc<Pod>> {
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

/// The keys of a local pod with the device of each: its addresses, and the devices that are its own.
fn keys(
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
mod tests {
    use super::*;
    use crate::compile::policies;
    use crate::compile::testing::{ip, pod, snapshot};
    use crate::model::{ObjectName, PodDevice};

    #[test]
    fn a_device_that_is_handed_on_is_the_newer_pods() {
        const DEVICE: u32 = 7;
        for (older, newer) in [("one", "other"), ("other", "one")] {
            let shown = |name: &str, address: &str, created: i64| {
                let mut pod = pod("a", name, "web", address);
                pod.created = created;
                pod
            };
            let pods = vec![shown(older, "10.0.0.1", 1), shown(newer, "10.0.0.2", 2)];
            let mut snapshot = snapshot(pods, vec![]);
            for address in ["10.0.0.1", "10.0.0.2"] {
                let device = PodDevice {
                    ifindex: DEVICE,
                    name: "veth7".to_owned(),
                };
                snapshot.devices.devices.insert(ip(address), device);
            }
            let tables = policies(&snapshot);
            let behind = &tables.endpoints[&EndpointKey::device(DEVICE)];
            assert_eq!(behind.pod.name, ObjectName::new("a", newer));
        }
    }
}
