//! Services and EndpointSlices in, frontends and backends out.

mod choice;

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_common::abi::{BACKEND_ACTIVE, BACKEND_DRAINING, DROP_INTERNAL, FrontendKey, WILDCARD};

use self::choice::{Candidates, Families, Site, choose};
use super::{Backend, FrontendEntry, ServiceTables};
use crate::model::{
    EndpointSlice, ObjectName, Service, ServicePort, Snapshot, TrafficPolicy, fingerprint,
    service_port_id,
};

/// Load-balancing tables of a snapshot.
///
/// Two Services that claim one virtual address and port (one is being deleted while the other has got its address) cannot both
/// have it: the smaller name keeps it.
#[must_use]
pub fn services(snapshot: &Snapshot) -> ServiceTables {
    let mut slices: BTreeMap<&ObjectName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in snapshot.slices.values() {
        slices.entry(&slice.service).or_default().push(slice);
    }
    let site = Site::of(snapshot, &snapshot.node_name);
    let mut tables = ServiceTables::default();
    for service in snapshot.services.values() {
        let slices = slices.get(&service.name).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            let endpoints = Families::of(port, slices, site);
            for &address in &service.cluster_ips {
                let address = address.to_canonical();
                add_port(
                    &mut tables,
                    service,
                    port,
                    address,
                    endpoints.like(address),
                    site,
                );
            }
        }
        for address in &service.cluster_ips {
            let key = FrontendKey {
                address: address.to_canonical().into(),
                port: 0,
                protocol: 0,
                reserved: 0,
            };
            tables
                .frontends
                .entry(key)
                .or_insert_with(|| wildcard(service));
        }
    }
    tables
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
    let choice = choose(families.like(cluster_ip), site);
    match service.internal_traffic_policy {
        TrafficPolicy::Cluster => choice.cluster,
        TrafficPolicy::Local => choice.local,
    }
}

/// Adds the frontend of one Service port at one virtual address, and the states of its backends.
fn add_port(
    tables: &mut ServiceTables,
    service: &Service,
    port: &ServicePort,
    virtual_address: IpAddr,
    endpoints: &Candidates<'_>,
    site: Site<'_>,
) {
    let id = service_port_id(&service.name, &port.name, port.protocol);
    let backends = |places: &[(IpAddr, u16)]| -> Vec<Backend> {
        let backend = |&(address, port): &(IpAddr, u16)| Backend {
            address,
            port,
            fingerprint: fingerprint(id, address, port),
        };
        places.iter().map(backend).collect()
    };
    let choice = choose(endpoints, site);
    let (set, flags) = match service.internal_traffic_policy {
        TrafficPolicy::Cluster => (backends(&choice.cluster), 0),
        // Without any endpoint in the cluster the answer is a rejection, as for every Service.
        TrafficPolicy::Local if choice.cluster.is_empty() => (Vec::new(), 0),
        TrafficPolicy::Local => (backends(&choice.local), DROP_INTERNAL),
    };
    let entry = FrontendEntry {
        origin: service.name.clone(),
        port_name: port.name.clone(),
        service: id,
        flags,
        affinity_seconds: 0,
        internal: set,
        external: backends(&choice.cluster),
    };
    add_backends(tables, &entry, endpoints);
    let key = FrontendKey {
        address: virtual_address.into(),
        port: port.port,
        protocol: port.protocol.number(),
        reserved: 0,
    };
    tables.frontends.entry(key).or_insert(entry);
}

/// Notes every endpoint that is still listed: active where some set has it, else draining.
fn add_backends(tables: &mut ServiceTables, entry: &FrontendEntry, endpoints: &Candidates<'_>) {
    for &(address, port) in endpoints.keys() {
        tables
            .backends
            .entry(fingerprint(entry.service, address, port))
            .or_insert(BACKEND_DRAINING);
    }
    // After the draining ones: active wins, also between two backends whose fingerprints collide.
    for backend in entry.internal.iter().chain(&entry.external) {
        tables.backends.insert(backend.fingerprint, BACKEND_ACTIVE);
    }
}

/// The entry for all ports of a virtual address that no Service port claims.
fn wildcard(service: &Service) -> FrontendEntry {
    FrontendEntry {
        origin: service.name.clone(),
        port_name: String::new(),
        service: 0,
        flags: WILDCARD,
        affinity_seconds: 0,
        internal: Vec::new(),
        external: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
