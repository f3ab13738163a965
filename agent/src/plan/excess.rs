//! Services that no map could hold: one object too large must not keep the others from being served.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;

use weir_common::abi::BACKEND_ACTIVE;

use super::sizes::{limit, slots};
use super::step::Table;
use crate::compile::{FrontendEntry, ServiceTables};
use crate::model::ObjectName;

/// A Service that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The Service.
    pub service: ObjectName,
    /// Map entries that it would need.
    pub entries: usize,
}

/// Takes whole Services out, those with most entries first, until every map can hold the rest. What is taken out is not served
/// at all: half a Service would be worse.
pub fn refuse_excess(services: &mut ServiceTables) -> Vec<Refused> {
    let mut refused = Vec::new();
    while !fits(services) {
        let Some(largest) = largest(services) else {
            break;
        };
        remove(services, &largest.service);
        refused.push(largest);
    }
    refused
}

fn fits(services: &ServiceTables) -> bool {
    services.frontends.len() <= limit(Table::Frontend)
        && services.backends.len() <= limit(Table::Backend)
        && services.sources.len() <= limit(Table::Source)
        // Only counted where it may matter: equal sets share their slots.
        && (services.slots <= limit(Table::Slot) || slots(services) <= limit(Table::Slot))
}

/// Of several of one size the one whose name comes last.
fn largest(services: &ServiceTables) -> Option<Refused> {
    let mut entries: BTreeMap<&ObjectName, usize> = BTreeMap::new();
    for entry in services.frontends.values() {
        *entries.entry(&entry.origin).or_default() +=
            1 + entry.internal.len() + entry.external.len();
    }
    for service in services.sources.values() {
        *entries.entry(service).or_default() += 1;
    }
    let largest = entries.into_iter().max_by_key(|(_, entries)| *entries);
    largest.map(|(service, entries)| Refused {
        service: service.clone(),
        entries,
    })
}

fn remove(services: &mut ServiceTables, name: &ObjectName) {
    keep(&mut services.frontends, |_, entry| entry.origin != *name);
    keep(&mut services.sources, |_, service| service != name);
    let backends = |entry: &FrontendEntry| entry.internal.len() + entry.external.len();
    services.slots = services.frontends.values().map(backends).sum();
    let led_to: BTreeSet<u32> = services
        .frontends
        .values()
        .flat_map(|entry| entry.internal.iter().chain(&*entry.external))
        .map(|backend| backend.fingerprint)
        .collect();
    // What drains belongs to whom it may.
    keep(&mut services.backends, |fingerprint, state| {
        state.state != BACKEND_ACTIVE || led_to.contains(fingerprint)
    });
}

fn keep<K: Ord + Clone, V: Clone>(
    elements: &mut OrdMap<K, V>,
    mut wanted: impl FnMut(&K, &V) -> bool,
) {
    for (key, value) in &elements.clone() {
        if !wanted(key, value) {
            elements.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use weir_common::abi::FrontendKey;

    use super::*;
    use crate::compile::Backend;
    use weir_common::abi::BackendState;

    fn add(services: &mut ServiceTables, name: &str, ports: u16, backends: u32) {
        for port in 0..ports {
            let set: Vec<Backend> = (0..backends)
                .map(|number| Backend {
                    address: [10, 0, 0, 1].into(),
                    port,
                    fingerprint: services.backends.len() as u32 + number,
                })
                .collect();
            let active = set.iter().map(|one| {
                let state = BackendState {
                    fingerprint: one.fingerprint,
                    state: BACKEND_ACTIVE,
                    ..BackendState::default()
                };
                (one.fingerprint, state)
            });
            services.backends.extend(active);
            let key = FrontendKey {
                address: IpAddr::from([10, 96, 0, name.len() as u8]).into(),
                port,
                protocol: 6,
                reserved: 0,
            };
            let entry = FrontendEntry {
                origin: ObjectName::new("shop", name),
                port_name: String::new(),
                service: 1,
                flags: 0,
                affinity_seconds: 0,
                internal: set.into(),
                external: [].into(),
            };
            services.slots += entry.internal.len();
            services.frontends.insert(key, entry);
        }
    }

    #[test]
    fn the_largest_go_until_the_rest_fits() {
        let mut services = ServiceTables::default();
        add(&mut services, "web", 2, 10);
        let small = services.clone();
        assert_eq!(refuse_excess(&mut services), []);
        assert_eq!(services, small);

        add(&mut services, "giant", 20_000, 30);
        let refused = refuse_excess(&mut services);
        assert!(services == small, "others are as they were");
        let names: Vec<_> = refused.iter().map(|one| one.service.to_string()).collect();
        assert_eq!(names, ["shop/giant"]);
        assert_eq!(refused[0].entries, 20_000 * 31);
    }
}
