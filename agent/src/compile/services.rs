//! Services and EndpointSlices in, frontends and backends out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_common::abi::{BACKEND_ACTIVE, BACKEND_DRAINING, DROP_INTERNAL, FrontendKey, WILDCARD};

use super::{Backend, FrontendEntry, ServiceTables};
use crate::model::{
    Endpoint, EndpointSlice, ObjectName, Service, ServicePort, Snapshot, TrafficPolicy,
    fingerprint, service_port_id,
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
    let mut tables = ServiceTables::default();
    for service in snapshot.services.values() {
        let slices = slices.get(&service.name).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            let endpoints = endpoints_of(port, slices, &snapshot.node_name);
            add_port(&mut tables, service, port, &endpoints);
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

/// An endpoint as load balancing sees it. Fields are in the order of preference between two that share address and port:
/// a running pod beats the terminating one whose address it got.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Condition {
    running: bool,
    ready: bool,
    serving: bool,
    local: bool,
}

impl Condition {
    fn new(endpoint: &Endpoint, node_name: &str) -> Self {
        Self {
            running: !endpoint.terminating,
            ready: endpoint.ready,
            serving: endpoint.serving,
            local: endpoint.node.as_deref() == Some(node_name),
        }
    }

    /// KEP-1669: the second choice when no endpoint is ready.
    fn last_resort(self) -> bool {
        self.serving && !self.running
    }
}

type Endpoints = BTreeMap<(IpAddr, u16), Condition>;

/// Every endpoint that some slice lists for a Service port. Slices and Service ports pair by name and protocol; slices may give
/// a port different numbers (a named targetPort).
fn endpoints_of(port: &ServicePort, slices: &[&EndpointSlice], node_name: &str) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for slice in slices {
        let numbers = slice
            .ports
            .iter()
            .filter(|candidate| candidate.name == port.name && candidate.protocol == port.protocol);
        for number in numbers {
            for endpoint in &slice.endpoints {
                let address = endpoint.address.to_canonical();
                if !is_usable(address) {
                    continue;
                }
                let condition = Condition::new(endpoint, node_name);
                endpoints
                    .entry((address, number.port))
                    .and_modify(|known| *known = condition.max(*known))
                    .or_insert(condition);
            }
        }
    }
    endpoints
}

/// Endpoint addresses that the API forbids: they would lead into the node itself (CVE-2021-25737 and its kin).
fn is_usable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || link_local)
}

/// Ready endpoints among the eligible ones; if there is none, serving ones that terminate (KEP-1669).
fn choose(
    endpoints: &Endpoints,
    service: u64,
    eligible: impl Fn(IpAddr, Condition) -> bool,
) -> Vec<Backend> {
    let pick = |wanted: fn(Condition) -> bool| -> Vec<Backend> {
        endpoints
            .iter()
            .filter(|((address, _), condition)| {
                wanted(**condition) && eligible(*address, **condition)
            })
            .map(|(&(address, port), _)| Backend {
                address,
                port,
                fingerprint: fingerprint(service, address, port),
            })
            .collect()
    };
    let ready = pick(|condition| condition.ready);
    if ready.is_empty() {
        pick(Condition::last_resort)
    } else {
        ready
    }
}

/// Adds the frontends of one Service port, one per virtual address, and the states of its backends.
fn add_port(
    tables: &mut ServiceTables,
    service: &Service,
    port: &ServicePort,
    endpoints: &Endpoints,
) {
    let id = service_port_id(&service.name, &port.name, port.protocol);
    for &virtual_address in &service.cluster_ips {
        let virtual_address = virtual_address.to_canonical();
        let same_family = |address: IpAddr| address.is_ipv4() == virtual_address.is_ipv4();
        let cluster = choose(endpoints, id, |address, _| same_family(address));
        let (internal, flags) = match service.internal_traffic_policy {
            TrafficPolicy::Cluster => (cluster.clone(), 0),
            // Without any endpoint in the cluster the answer is a rejection, as for every Service.
            TrafficPolicy::Local => (
                choose(endpoints, id, |address, condition| {
                    same_family(address) && condition.local
                }),
                if cluster.is_empty() { 0 } else { DROP_INTERNAL },
            ),
        };
        let entry = FrontendEntry {
            origin: service.name.clone(),
            port_name: port.name.clone(),
            service: id,
            flags,
            affinity_seconds: 0,
            internal,
            external: cluster,
        };
        add_backends(tables, &entry, endpoints, same_family);
        let key = FrontendKey {
            address: virtual_address.into(),
            port: port.port,
            protocol: port.protocol.number(),
            reserved: 0,
        };
        tables.frontends.entry(key).or_insert(entry);
    }
}

/// Notes every endpoint that is still listed: active where some set has it, else draining.
fn add_backends(
    tables: &mut ServiceTables,
    entry: &FrontendEntry,
    endpoints: &Endpoints,
    same_family: impl Fn(IpAddr) -> bool,
) {
    for &(address, port) in endpoints
        .keys()
        .filter(|(address, _)| same_family(*address))
    {
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
