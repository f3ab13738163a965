//! Services and EndpointSlices in, frontends and backends out.

mod choice;
mod cidrs;
mod frontends;
mod health;
mod local;
mod ranges;
mod sctp;

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_common::abi::{
    BACKEND_ACTIVE, BACKEND_DRAINING, BackendState, DROP_EXTERNAL, DROP_INTERNAL, IN_CLUSTER_SET,
    IN_LOCAL_SET,
};

pub use self::health::{HealthCheck, health_checks};
pub use self::local::{WithoutLocal, without_local};
pub use self::sctp::untranslatable;

use self::choice::{Candidates, Families, Site, choose};
use self::frontends::{Frontends, Home};
use super::{Backend, ServiceTables};
use crate::model::{
    EndpointSlice, ObjectName, Service, ServicePort, Snapshot, TrafficPolicy, fingerprint,
    service_port_id,
};

/// Load-balancing tables of a snapshot.
#[must_use]
pub fn services(snapshot: &Snapshot) -> ServiceTables {
    let mut slices: BTreeMap<&ObjectName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in snapshot.slices.values() {
        slices.entry(&slice.service).or_default().push(slice);
    }
    let site = Site::of(snapshot, &snapshot.node_name);
    let home = Home {
        node_ports: snapshot.node_port_addresses().into_iter().collect(),
        primary: snapshot.own_node().map_or(&[], |node| &node.primary),
    };
    let mut backends = BTreeMap::new();
    let mut frontends = Frontends::default();
    for service in snapshot.services.values() {
        let slices = slices.get(&service.name).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            let endpoints = Families::of(port, slices, site);
            for v4 in families(service) {
                let endpoints = endpoints.of_family(v4);
                let choice = choose(endpoints, site);
                frontends.add(service, port, v4, &choice, &home);
                drain(&mut backends, service, port, endpoints);
            }
        }
        frontends.add_wildcards(service);
    }
    let mut tables = frontends.finish();
    cidrs::add(&mut tables.sources, snapshot);
    // After the draining ones: active wins, also between two backends whose fingerprints collide.
    for entry in tables.frontends.values() {
        let sets = [
            (&entry.internal, DROP_INTERNAL),
            (&entry.external, DROP_EXTERNAL),
        ];
        for (set, is_local) in sets {
            let flag = if entry.flags & is_local == 0 {
                IN_CLUSTER_SET
            } else {
                IN_LOCAL_SET
            };
            for &Backend { fingerprint, .. } in &**set {
                let state = backends.entry(fingerprint).or_default();
                state.fingerprint = fingerprint;
                state.state = BACKEND_ACTIVE;
                state.sets |= flag;
            }
        }
    }
    tables.backends = backends;
    tables
}

/// Families of a Service: those of its cluster IPs. Whether each is IPv4.
fn families(service: &Service) -> impl Iterator<Item = bool> {
    [true, false].into_iter().filter(|v4| {
        let mut addresses = service.cluster_ips.iter().map(IpAddr::to_canonical);
        addresses.any(|address| address.is_ipv4() == *v4)
    })
}

/// Notes every endpoint that is still listed as one that keeps its connections.
fn drain(
    backends: &mut BTreeMap<u32, BackendState>,
    service: &Service,
    port: &ServicePort,
    endpoints: &Candidates<'_>,
) {
    let id = service_port_id(&service.name, &port.name, port.protocol);
    for &(address, port) in endpoints.keys() {
        let fingerprint = fingerprint(id, address, port);
        backends.entry(fingerprint).or_insert(BackendState {
            fingerprint,
            state: BACKEND_DRAINING,
            sets: 0,
        });
    }
}

/// The endpoints that a client on `node` gets at a cluster IP of a Service.
#[must_use]
pub fn reachable(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    node: &str,
) -> Vec<(IpAddr, u16)> {
    let slices = snapshot.slices.values();
    let slices: Vec<&EndpointSlice> = slices
        .filter(|slice| slice.service == service.name)
        .map(AsRef::as_ref)
        .collect();
    let site = Site::of(snapshot, node);
    let families = Families::of(port, &slices, site);
    let choice = choose(families.of_family(cluster_ip.is_ipv4()), site);
    match service.internal_traffic_policy {
        TrafficPolicy::Cluster => choice.cluster,
        TrafficPolicy::Local => choice.local,
    }
}

#[cfg(test)]
mod tests;
