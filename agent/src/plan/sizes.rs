//! How large the maps of a generation must be, and how large they may be.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::step::{Sizes, Table};
use crate::compile::{ServiceTables, Tables};
use crate::model::{Kind, ObjectName};

/// Elements of the array of backend states, which all generations share: twice what 10,000 Services of 25 endpoints need.
pub const BACKENDS: u32 = 1 << 19;

/// Most ranges that one row may have for one class: the kernel programs' search is bounded by it.
pub(super) const RANGES_PER_VERDICT: usize = u16::MAX as usize;

/// Objects that an error names.
const NAMED: usize = 3;

/// Smallest and largest capacity of a table.
fn bounds(table: Table) -> (u32, u32) {
    match table {
        Table::Frontend | Table::Source | Table::Prefix => (1 << 10, 1 << 18),
        Table::Slot | Table::Verdict | Table::Range => (1 << 12, 1 << 22),
        Table::Endpoint => (1 << 9, 1 << 14),
        Table::Class => (1 << 12, 1 << 20),
        Table::Backend => (BACKENDS, BACKENDS),
    }
}

/// Most entries that a table can have.
pub(super) fn limit(table: Table) -> usize {
    bounds(table).1 as usize
}

/// Why there is no plan. The kernel keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A table cannot hold what is desired.
    #[error(
        "map {} would need {need} entries and may have {limit}; the node keeps its former state. Reduce the largest: {}",
        table.name(), listed(largest)
    )]
    TooLarge {
        /// The table.
        table: Table,
        /// Entries that it would need.
        need: usize,
        /// Entries that it may have.
        limit: usize,
        /// The objects with most entries, largest first, with their number of entries.
        largest: Vec<Share>,
    },
}

/// What an object has of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
    /// Number of entries.
    pub entries: usize,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.kind.as_str(), self.name, self.entries)
    }
}

fn listed(shares: &[Share]) -> String {
    let shares: Vec<_> = shares.iter().map(ToString::to_string).collect();
    shares.join(", ")
}

/// Entries that each table has in use for `tables`.
///
/// Arrays have more that are not zero: what is no longer in use stays until room is needed, for packets on their way.
#[must_use]
pub fn entries(tables: &Tables) -> BTreeMap<Table, usize> {
    let services = &tables.services;
    let policies = &tables.policies;
    let verdicts = || policies.rows.values().flat_map(|row| row.verdicts.values());
    let ranges: BTreeSet<_> = verdicts().collect();
    BTreeMap::from([
        (Table::Frontend, services.frontends.len()),
        (Table::Slot, slots(services)),
        (Table::Source, services.sources.len()),
        (Table::Endpoint, policies.endpoints.len()),
        (Table::Class, policies.addresses.len()),
        (Table::Prefix, policies.prefixes.len()),
        (Table::Verdict, verdicts().count()),
        (Table::Range, ranges.iter().map(|ranges| ranges.len()).sum()),
        (Table::Backend, services.backends.len()),
    ])
}

/// Slots that the sets of all frontends need.
fn slots(services: &ServiceTables) -> usize {
    let sets: BTreeSet<_> = services
        .frontends
        .values()
        .flat_map(|entry| [&entry.internal, &entry.external])
        .collect();
    sets.iter().map(|set| set.len()).sum()
}

/// Capacities with head-room for a fresh generation.
///
/// # Errors
/// [`PlanError::TooLarge`] if a table would have to be larger than it may.
pub(super) fn sizes(tables: &Tables) -> Result<Sizes, PlanError> {
    let mut sizes = Sizes::new();
    for (table, need) in entries(tables) {
        let (floor, limit) = bounds(table);
        if need > limit as usize {
            return Err(too_large(tables, table, need, limit as usize));
        }
        if table != Table::Backend {
            let roomy = (need * 2).next_power_of_two() as u32;
            sizes.insert(table, roomy.clamp(floor, limit));
        }
    }
    let rows = tables.policies.rows.values();
    let longest = rows
        .flat_map(|row| row.verdicts.values())
        .map(|ranges| ranges.len())
        .max();
    match longest {
        Some(need) if need > RANGES_PER_VERDICT => {
            Err(too_large(tables, Table::Range, need, RANGES_PER_VERDICT))
        }
        _ => Ok(sizes),
    }
}

/// The error that names the objects with most entries.
fn too_large(tables: &Tables, table: Table, need: usize, limit: usize) -> PlanError {
    let mut counts: BTreeMap<(&'static str, Kind, &ObjectName), usize> = BTreeMap::new();
    let mut add = |kind: Kind, name, entries: usize| {
        *counts.entry((kind.as_str(), kind, name)).or_default() += entries;
    };
    match table {
        Table::Frontend | Table::Slot | Table::Backend => {
            for entry in tables.services.frontends.values() {
                let entries = match table {
                    Table::Frontend => 1,
                    _ => entry.internal.len() + entry.external.len(),
                };
                add(Kind::Service, &entry.origin, entries);
            }
        }
        Table::Source => {
            for service in tables.services.sources.values() {
                add(Kind::Service, service, 1);
            }
        }
        Table::Endpoint => {
            for entry in tables.policies.endpoints.values() {
                add(Kind::Pod, &entry.pod.name, 1);
            }
        }
        Table::Class | Table::Prefix | Table::Verdict | Table::Range => {
            for row in tables.policies.rows.values() {
                let entries = match table {
                    Table::Range => row.verdicts.values().map(|ranges| ranges.len()).sum(),
                    _ => row.verdicts.len(),
                };
                for policy in &*row.policies {
                    add(Kind::NetworkPolicy, policy, entries);
                }
            }
        }
    }
    let mut largest: Vec<Share> = counts
        .into_iter()
        .map(|((_, kind, name), entries)| Share {
            kind,
            name: name.clone(),
            entries,
        })
        .collect();
    // Those of one size stay in order of their names.
    largest.sort_by_key(|share| Reverse(share.entries));
    largest.truncate(NAMED);
    PlanError::TooLarge {
        table,
        need,
        limit,
        largest,
    }
}

/// The error for backends that find no id.
pub(super) fn backends_too_large(tables: &Tables) -> PlanError {
    let need = tables.services.backends.len();
    too_large(tables, Table::Backend, need, BACKENDS as usize)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use weir_common::abi::EndpointKey;

    use super::*;
    use crate::compile::testing::{pod, policy, selector, serve, snapshot};
    use crate::compile::{EndpointEntry, PolicyTables, RowId, compile};
    use crate::model::{
        Endpoint, Peer, Policy, PolicyPort, PortMatch, Protocol, Rule, Service, ServicePort,
    };

    /// So many addresses of pods.
    fn endpoints(count: usize) -> Tables {
        let pod = Arc::new(pod("a", "web", "web", "10.0.0.1"));
        let entry = EndpointEntry {
            pod,
            id: 1,
            ifindex: 0,
            ingress: RowId::OPEN,
            egress: RowId::OPEN,
        };
        let addresses = (0x0a00_0000_u32..).take(count);
        let key = |number| EndpointKey::address(IpAddr::from(Ipv4Addr::from(number)).into());
        let policies = PolicyTables {
            endpoints: addresses.map(|it| (key(it), entry.clone())).collect(),
            ..PolicyTables::default()
        };
        Tables {
            policies: Arc::new(policies),
            ..Tables::default()
        }
    }

    #[test]
    fn a_table_may_be_as_large_as_its_limit_and_no_larger() {
        let limit = limit(Table::Endpoint);
        let all = sizes(&endpoints(limit)).unwrap();
        assert_eq!(all[&Table::Endpoint] as usize, limit);
        let error = sizes(&endpoints(limit + 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "map endpoint would need 16385 entries and may have 16384; the node keeps its former state. \
             Reduce the largest: Pod a/web (16385)"
        );
    }

    #[test]
    fn an_error_names_what_has_most_of_the_table() {
        let mut objects = snapshot(
            vec![
                pod("a", "db", "db", "10.0.0.1"),
                pod("a", "web", "web", "10.0.0.2"),
            ],
            Vec::new(),
        );
        for (name, ports, endpoints, ranges) in [
            ("few", 1, 1, 1),
            ("many", 2, 5, 3),
            ("ports", 4, 1, 0),
            ("none", 1, 0, 0),
        ] {
            let last = name.len() as u8;
            let port = |port| ServicePort {
                name: format!("p{port}"),
                port,
                ..ServicePort::default()
            };
            let range = |number: u8| IpAddr::from([192, 0, 2, number]).into();
            let service = Service {
                name: ObjectName::new("a", name),
                cluster_ips: vec![[172, 20, 0, last].into()],
                load_balancer_ips: vec![[198, 51, 100, last].into()],
                source_ranges: (0..ranges).map(range).collect(),
                ports: (1..=ports).map(port).collect(),
                ..Service::default()
            };
            let endpoint = |last: u8| Endpoint::new([10, 8, 0, last].into());
            serve(&mut objects, service, (1..=endpoints).map(endpoint));
        }
        for (name, app, ports) in [("wide", "db", 3), ("narrow", "web", 1)] {
            let peer = |app| Peer::Pods {
                namespaces: None,
                pods: Some(selector(&[("app", app)])),
            };
            let number = |number| PolicyPort {
                protocol: Protocol::Tcp,
                port: PortMatch::Range(number, number),
            };
            let rule = |app| Rule {
                peers: vec![peer(app)],
                ports: (1..=ports).map(|it| number(2 * it)).collect(),
            };
            let rules = if ports == 1 {
                vec![rule("db"), rule("web")]
            } else {
                vec![rule("web")]
            };
            let policy = Policy {
                ingress: Some(rules),
                ..policy("a", name, selector(&[("app", app)]))
            };
            objects
                .policies
                .insert(policy.name.clone(), Arc::new(policy));
        }
        let tables = compile(&objects);
        let names = |table| {
            let PlanError::TooLarge { largest, .. } = too_large(&tables, table, 2, 1);
            listed(&largest)
        };
        // Each port has a frontend at two addresses; one of them is for all other ports, too.
        let frontends = "Service a/ports (9), Service a/many (5), Service a/few (3)";
        assert_eq!(names(Table::Frontend), frontends);
        // A frontend has a set for clients inside and one for those outside.
        let slots = "Service a/many (40), Service a/ports (16), Service a/few (4)";
        assert_eq!(names(Table::Slot), slots);
        assert_eq!(names(Table::Backend), slots);
        let sources = "Service a/many (6), Service a/few (1)";
        assert_eq!(names(Table::Source), sources);
        assert_eq!(names(Table::Endpoint), "Pod a/db (1), Pod a/web (1)");
        let verdicts = "NetworkPolicy a/narrow (2), NetworkPolicy a/wide (1)";
        for table in [Table::Class, Table::Prefix, Table::Verdict] {
            assert_eq!(names(table), verdicts);
        }
        let ranges = "NetworkPolicy a/wide (3), NetworkPolicy a/narrow (2)";
        assert_eq!(names(Table::Range), ranges);
    }
}
