//! What load balancers ask a node about Services whose external traffic stays on the node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{ObjectName, Snapshot};

/// The answer at one spec.healthCheckNodePort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service.
    pub service: ObjectName,
    /// Its UID.
    pub uid: String,
    /// Its ready endpoints on this node, each address once. Terminating ones do not count: nothing new shall come to them.
    pub local_endpoints: usize,
}

/// Health checks by port. Should two Services claim a port, the smaller name keeps it.
#[must_use]
pub fn health_checks(snapshot: &Snapshot) -> BTreeMap<u16, HealthCheck> {
    let mut checks = BTreeMap::new();
    for service in snapshot.services.values() {
        if let Some(port) = service.health_check_node_port {
            checks.entry(port).or_insert_with(|| HealthCheck {
                service: service.name.clone(),
                uid: service.uid.clone(),
                local_endpoints: 0,
            });
        }
    }
    if checks.is_empty() {
        return checks;
    }
    let mut local: BTreeMap<&ObjectName, BTreeSet<IpAddr>> = BTreeMap::new();
    let asked: BTreeSet<ObjectName> = checks.values().map(|check| check.service.clone()).collect();
    let slices = snapshot.slices.values();
    for slice in slices.filter(|slice| asked.contains(&slice.service)) {
        let endpoints = slice.endpoints.iter().filter(|endpoint| {
            endpoint.ready && endpoint.node.as_deref() == Some(&snapshot.node_name)
        });
        let addresses = local.entry(&slice.service).or_default();
        addresses.extend(endpoints.map(|endpoint| endpoint.address.to_canonical()));
    }
    for check in checks.values_mut() {
        check.local_endpoints = local.get(&check.service).map_or(0, BTreeSet::len);
    }
    checks
}
