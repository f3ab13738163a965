//! Services that no map could hold: one object too large must not keep the others from being served.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;

use super::sizes::limit;
use super::step::Table;
use crate::compile::{ServiceCompiler, ServiceTables};
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
/// at all: half a Service would be worse. `compiler` is the one that the tables come from, and says whose each backend is.
pub fn refuse_excess(services: &mut ServiceTables, compiler: &ServiceCompiler) -> Vec<Refused> {
    let mut refused = Vec::new();
    if fits(services) {
        return refused;
    }
    let mut left_out = BTreeSet::new();
    for largest in by_size(services, compiler) {
        left_out.insert(largest.service.clone());
        remove(services, &largest.service);
        for (fingerprint, state) in compiler.backends_without(&largest.service, &left_out) {
            match state {
                Some(state) => services.backends.insert(fingerprint, state),
                None => services.backends.remove(&fingerprint),
            };
        }
        refused.push(largest);
        if fits(services) {
            break;
        }
    }
    refused
}

/// There are always slots enough: a Service port's frontends share two sets of its backends, and equal sets share their slots.
fn fits(services: &ServiceTables) -> bool {
    services.frontends.len() <= limit(Table::Frontend)
        && services.backends.len() <= limit(Table::Backend)
        && services.sources.len() <= limit(Table::Source)
}

/// All Services as if they were refused, the largest first; of several of one size the one whose name comes last.
fn by_size(services: &ServiceTables, compiler: &ServiceCompiler) -> Vec<Refused> {
    let mut entries: BTreeMap<&ObjectName, usize> = compiler.backends().collect();
    for entry in services.frontends.values() {
        *entries.entry(&entry.origin).or_default() +=
            1 + entry.internal.len() + entry.external.len();
    }
    for service in services.sources.values() {
        *entries.entry(service).or_default() += 1;
    }
    let refused = |(service, entries): (&ObjectName, usize)| Refused {
        service: service.clone(),
        entries,
    };
    let mut by_size: Vec<_> = entries.into_iter().rev().map(refused).collect();
    by_size.sort_by_key(|one| Reverse(one.entries));
    by_size
}

fn remove(services: &mut ServiceTables, name: &ObjectName) {
    keep(&mut services.frontends, |_, entry| entry.origin != *name);
    keep(&mut services.sources, |_, service| service != name);
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
    use std::net::Ipv4Addr;

    use ipnetwork::IpNetwork;

    use super::*;
    use crate::compile::testing::{edit, serve};
    use crate::model::{Endpoint, Service, ServicePort, Snapshot};

    fn add(snapshot: &mut Snapshot, name: &str, ports: u16, endpoints: u32, ready: bool) {
        let port = |number: u16| ServicePort {
            name: number.to_string(),
            port: number,
            ..ServicePort::default()
        };
        let service = Service {
            name: ObjectName::new("shop", name),
            cluster_ips: vec![[10, 96, 0, name.len() as u8].into()],
            ports: (1..=ports).map(port).collect(),
            ..Service::default()
        };
        let endpoint = |number: u32| Endpoint {
            ready,
            serving: ready,
            ..Endpoint::new(Ipv4Addr::from(0x0a00_0000 + number).into())
        };
        serve(snapshot, service, (0..endpoints).map(endpoint));
    }

    /// A Service with more backends than there is room for is refused, and a small one stays as it is.
    fn refuses(ready: bool) {
        let mut snapshot = Snapshot::default();
        add(&mut snapshot, "web", 2, 10, true);
        let mut compiler = ServiceCompiler::default();
        let mut services = compiler.compile(&snapshot).clone();
        let small = services.clone();
        assert_eq!(refuse_excess(&mut services, &compiler), []);
        assert_eq!(services, small);

        let (ports, endpoints) = (60, 9_000);
        add(&mut snapshot, "giant", ports, endpoints, ready);
        let mut services = compiler.compile(&snapshot).clone();
        // Some of so many have one fingerprint.
        let backends = services.backends.len() - small.backends.len();
        let refused = refuse_excess(&mut services, &compiler);
        assert!(services == small, "others are as they were");
        let led_to = if ready {
            ports as usize * endpoints as usize
        } else {
            0
        };
        let giant = Refused {
            service: ObjectName::new("shop", "giant"),
            // A frontend stands for all other ports; each has a set for clients inside and one for those outside the cluster.
            entries: 1 + ports as usize + 2 * led_to + backends,
        };
        assert_eq!(refused, [giant]);
    }

    #[test]
    fn there_are_slots_for_two_sets_of_all_backends() {
        assert!(limit(Table::Slot) >= 2 * limit(Table::Backend));
    }

    #[test]
    fn the_largest_go_until_the_rest_fits() {
        refuses(true);
    }

    #[test]
    fn what_nothing_leads_to_makes_a_service_large_too() {
        refuses(false);
    }

    #[test]
    fn ranges_of_clients_count_and_go_with_their_service() {
        let mut snapshot = Snapshot::default();
        for name in ["web", "ranged"] {
            add(&mut snapshot, name, 1, 1, true);
        }
        edit(&mut snapshot.services, |service: &mut Service| {
            if service.name.name == "ranged" {
                service.load_balancer_ips = vec![[192, 0, 2, 1].into()];
                let range = |third| IpNetwork::new([10, 1, third, 0].into(), 24).unwrap();
                service.source_ranges = (0..3).map(range).collect();
            }
        });
        let mut compiler = ServiceCompiler::default();
        let services = compiler.compile(&snapshot).clone();
        let sizes = by_size(&services, &compiler).into_iter();
        let sizes: Vec<_> = sizes.map(|it| (it.service.name, it.entries)).collect();
        // A backend; its port with a set for each side, at one address or two; all other ports; and the ranges.
        let expected = [("ranged", 1 + 2 * 3 + 1 + 3), ("web", 1 + 3 + 1)];
        assert_eq!(
            sizes,
            expected.map(|(name, entries)| (name.to_owned(), entries))
        );
        for (name, left) in [("ranged", 0), ("web", 3)] {
            let mut services = services.clone();
            remove(&mut services, &ObjectName::new("shop", name));
            assert_eq!(services.sources.len(), left, "without {name}");
        }
    }

    #[test]
    fn of_several_of_one_size_those_whose_names_come_last_go() {
        let mut snapshot = Snapshot::default();
        for name in ["a", "bb", "ccc"] {
            add(&mut snapshot, name, 32, 9_000, false);
        }
        let mut compiler = ServiceCompiler::default();
        let mut services = compiler.compile(&snapshot).clone();
        let refused = refuse_excess(&mut services, &compiler);
        let names: Vec<_> = refused
            .iter()
            .map(|one| one.service.name.as_str())
            .collect();
        assert_eq!(names, ["ccc", "bb"]);
    }
}
