//! What one Service adds to the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weir_common::abi::{
    BACKEND_ACTIVE, BACKEND_DRAINING, BACKEND_UNREADY, BackendState, DROP_EXTERNAL, DROP_INTERNAL,
    FrontendKey, IN_CLUSTER_SET, IN_LOCAL_SET, SourceKey,
};

use super::choice::{Candidates, Families, Site, choose};
use super::frontends::{Claim, Frontends, Home};
use crate::compile::{Backend, FrontendEntry};
use crate::model::{EndpointSlice, Service, ServicePort, fingerprint, service_port_id};

/// What one Service adds to the tables, if no other has a stronger claim.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) frontends: BTreeMap<FrontendKey, (Claim, FrontendEntry)>,
    pub(super) sources: BTreeSet<SourceKey>,
    /// What all listed endpoints are while nothing is led to them, sorted by fingerprint, each of which is there once.
    listed: Box<[(u32, u16)]>,
}

impl Part {
    /// Compiles a Service with its slices.
    pub(super) fn new(
        service: &Service,
        slices: &[&EndpointSlice],
        site: Site<'_>,
        home: &Home,
    ) -> Self {
        let mut frontends = Frontends::default();
        let mut listed: BTreeMap<u32, u16> = BTreeMap::new();
        for port in &service.ports {
            let endpoints = Families::of(port, slices, site);
            for v4 in families(service) {
                let endpoints = endpoints.of_family(v4);
                let choice = choose(endpoints, site);
                frontends.add(service, port, v4, &choice, home);
                listed.extend(unchosen(service, port, endpoints));
            }
        }
        frontends.add_wildcards(service);
        Self {
            frontends: frontends.entries,
            sources: frontends.sources,
            listed: listed.into_iter().collect(),
        }
    }

    /// Fingerprints of all listed endpoints.
    pub(super) fn fingerprints(&self) -> impl ExactSizeIterator<Item = u32> {
        self.listed.iter().map(|(fingerprint, _)| *fingerprint)
    }

    /// Whether an endpoint with this fingerprint is listed.
    pub(super) fn lists(&self, fingerprint: u32) -> bool {
        let key = |(fingerprint, _): &(u32, u16)| *fingerprint;
        self.listed.binary_search_by_key(&fingerprint, key).is_ok()
    }

    /// The state of each of its backends: those that the frontends which it holds lead to are active.
    pub(super) fn backends(
        &self,
        holds: impl Fn(&FrontendKey) -> bool,
    ) -> BTreeMap<u32, BackendState> {
        let unchosen = |&(fingerprint, state): &(u32, u16)| {
            let state = BackendState {
                fingerprint,
                state,
                sets: 0,
            };
            (fingerprint, state)
        };
        let mut states: BTreeMap<_, _> = self.listed.iter().map(unchosen).collect();
        for (key, (_, entry)) in &self.frontends {
            if !holds(key) {
                continue;
            }
            for (set, is_local) in sets(entry) {
                let flag = if entry.flags & is_local == 0 {
                    IN_CLUSTER_SET
                } else {
                    IN_LOCAL_SET
                };
                for &Backend { fingerprint, .. } in &**set {
                    let state = states.entry(fingerprint).or_default();
                    state.fingerprint = fingerprint;
                    state.state = BACKEND_ACTIVE;
                    state.sets |= flag;
                }
            }
        }
        states
    }
}

/// The sets of a frontend, each with the flag that says that it is the local one.
fn sets(entry: &FrontendEntry) -> [(&Arc<[Backend]>, u32); 2] {
    [
        (&entry.internal, DROP_INTERNAL),
        (&entry.external, DROP_EXTERNAL),
    ]
}

/// Families of a Service: those of its cluster IPs. Whether each is IPv4.
fn families(service: &Service) -> impl Iterator<Item = bool> {
    [true, false].into_iter().filter(|v4| {
        let mut addresses = service.cluster_ips.iter().map(IpAddr::to_canonical);
        addresses.any(|address| address.is_ipv4() == *v4)
    })
}

/// Fingerprints of endpoints, with the state of those that are not led to.
fn unchosen(
    service: &Service,
    port: &ServicePort,
    endpoints: &Candidates<'_>,
) -> impl Iterator<Item = (u32, u16)> {
    let id = service_port_id(&service.name, &port.name, port.protocol);
    endpoints.iter().map(move |(&(address, port), candidate)| {
        let state = if candidate.serves() {
            BACKEND_DRAINING
        } else {
            BACKEND_UNREADY
        };
        (fingerprint(id, address, port), state)
    })
}
