use proptest::prelude::*;

use super::super::testing::{NODE, ip, snapshots};
use super::*;
use crate::model::Endpoint;
use crate::model::{Protocol, SlicePort};
use std::sync::Arc;

fn name(name: &str) -> ObjectName {
    ObjectName::new("a", name)
}

/// Conditions in the words of the tests.
fn endpoint(address: &str, conditions: &str) -> Endpoint {
    Endpoint {
        ready: conditions.contains("ready"),
        serving: conditions.contains("serving") || conditions.contains("ready"),
        terminating: conditions.contains("terminating"),
        node: Some(
            if conditions.contains("local") {
                NODE
            } else {
                "there"
            }
            .to_owned(),
        ),
        ..Endpoint::new(ip(address))
    }
}

fn slice(slice: &str, port_name: &str, port: u16, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        name: name(slice),
        service: name("web"),
        endpoints,
        ports: vec![SlicePort {
            name: port_name.to_owned(),
            protocol: Protocol::Tcp,
            port,
        }],
    }
}

fn web(addresses: &[&str]) -> Service {
    Service {
        name: name("web"),
        cluster_ips: addresses.iter().map(|address| ip(address)).collect(),
        ports: vec![ServicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: "http".to_owned(),
        }],
        ..Service::default()
    }
}

fn local(addresses: &[&str]) -> Service {
    Service {
        internal_traffic_policy: TrafficPolicy::Local,
        ..web(addresses)
    }
}

fn compile(service: Service, slices: Vec<EndpointSlice>) -> ServiceTables {
    services(&Snapshot {
        node_name: NODE.to_owned(),
        services: [(service.name.clone(), Arc::new(service))].into(),
        slices: slices
            .into_iter()
            .map(|slice| (slice.name.clone(), Arc::new(slice)))
            .collect(),
        ..Snapshot::default()
    })
}

fn key(address: &str, port: u16) -> FrontendKey {
    FrontendKey {
        address: ip(address).into(),
        port,
        protocol: if port == 0 { 0 } else { 6 },
        reserved: 0,
    }
}

fn set(backends: &[Backend]) -> Vec<String> {
    backends
        .iter()
        .map(|backend| std::net::SocketAddr::new(backend.address, backend.port).to_string())
        .collect()
}

/// The internal and external set of 172.20.0.1:80 with endpoints of these conditions, and the flags.
fn sets(service: Service, endpoints: &[(&str, &str)]) -> (Vec<String>, Vec<String>, u32) {
    let endpoints = endpoints
        .iter()
        .map(|(address, conditions)| endpoint(address, conditions))
        .collect();
    let tables = compile(service, vec![slice("s", "http", 8080, endpoints)]);
    let entry = &tables.frontends[&key("172.20.0.1", 80)];
    (set(&entry.internal), set(&entry.external), entry.flags)
}

const VIP: &[&str] = &["172.20.0.1"];

#[test]
fn ready_endpoints_are_chosen_and_terminating_ones_only_for_want_of_them() {
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    let cases: [Case; 6] = [
        (&[], &[]),
        (
            &[("10.0.0.1", "ready"), ("10.0.0.2", "")],
            &["10.0.0.1:8080"],
        ),
        (
            &[("10.0.0.1", "ready"), ("10.0.0.2", "serving terminating")],
            &["10.0.0.1:8080"],
        ),
        (
            &[
                ("10.0.0.1", ""),
                ("10.0.0.2", "serving terminating"),
                ("10.0.0.3", "terminating"),
            ],
            &["10.0.0.2:8080"],
        ),
        // publishNotReadyAddresses: ready although it terminates.
        (
            &[
                ("10.0.0.1", "ready terminating"),
                ("10.0.0.2", "serving terminating"),
            ],
            &["10.0.0.1:8080"],
        ),
        (&[("10.0.0.1", "serving")], &[]),
    ];
    for (endpoints, expected) in cases {
        let (internal, external, flags) = sets(web(VIP), endpoints);
        assert_eq!(internal, expected, "{endpoints:?}");
        assert_eq!(external, expected, "{endpoints:?}");
        assert_eq!(flags, 0);
    }
}

#[test]
fn local_policy_keeps_to_the_node_and_drops_only_when_others_have_endpoints() {
    let (internal, external, flags) = sets(
        local(VIP),
        &[("10.0.0.1", "ready local"), ("10.0.0.2", "ready")],
    );
    assert_eq!(internal, ["10.0.0.1:8080"]);
    assert_eq!(external, ["10.0.0.1:8080", "10.0.0.2:8080"]);
    assert_eq!(flags, DROP_INTERNAL);

    let (internal, _, flags) = sets(
        local(VIP),
        &[
            ("10.0.0.1", "serving terminating local"),
            ("10.0.0.2", "ready"),
        ],
    );
    assert_eq!(internal, ["10.0.0.1:8080"], "the node's own last resort");
    assert_eq!(flags, DROP_INTERNAL);

    let (internal, external, flags) = sets(local(VIP), &[("10.0.0.2", "ready")]);
    assert_eq!(
        (internal.len(), external.len(), flags),
        (0, 1, DROP_INTERNAL)
    );

    let (_, _, flags) = sets(local(VIP), &[("10.0.0.2", "")]);
    assert_eq!(flags, 0, "no endpoint anywhere: reject");
}

#[test]
fn families_stay_apart() {
    let slices = vec![
        slice("v4", "http", 8080, vec![endpoint("10.0.0.1", "ready")]),
        slice("v6", "http", 8080, vec![endpoint("fd00::1", "ready")]),
    ];
    let tables = compile(web(&["172.20.0.1", "fd20::1"]), slices.clone());
    assert_eq!(
        set(&tables.frontends[&key("172.20.0.1", 80)].internal),
        ["10.0.0.1:8080"]
    );
    assert_eq!(
        set(&tables.frontends[&key("fd20::1", 80)].internal),
        ["[fd00::1]:8080"]
    );
    assert_eq!(tables.backends.len(), 2);

    let single = compile(web(VIP), slices);
    assert_eq!(
        single.backends.len(),
        1,
        "no frontend leads to the IPv6 endpoint"
    );
}

#[test]
fn one_address_in_two_slices_counts_once_and_running_wins() {
    let slices = |first: &str, second: &str| {
        vec![
            slice("s1", "http", 8080, vec![endpoint("10.0.0.1", first)]),
            slice("s2", "http", 8080, vec![endpoint("10.0.0.1", second)]),
        ]
    };
    for (first, second) in [
        ("ready", "ready"),
        ("ready", "terminating"),
        ("serving terminating", "ready"),
    ] {
        let tables = compile(web(VIP), slices(first, second));
        assert_eq!(
            set(&tables.frontends[&key("172.20.0.1", 80)].internal),
            ["10.0.0.1:8080"],
            "{first}, {second}"
        );
    }
    let tables = compile(web(VIP), slices("serving terminating", ""));
    let internal = &tables.frontends[&key("172.20.0.1", 80)].internal;
    assert!(
        internal.is_empty(),
        "the running pod that has the address now is not ready"
    );
}

#[test]
fn slices_pair_by_port_name_and_protocol_and_keep_their_own_numbers() {
    let mut udp = slice("udp", "http", 5353, vec![endpoint("10.0.0.9", "ready")]);
    udp.ports[0].protocol = Protocol::Udp;
    let tables = compile(
        web(VIP),
        vec![
            slice("s1", "http", 8080, vec![endpoint("10.0.0.1", "ready")]),
            slice("s2", "http", 9090, vec![endpoint("10.0.0.2", "ready")]),
            slice("s3", "metrics", 1234, vec![endpoint("10.0.0.3", "ready")]),
            udp,
        ],
    );
    assert_eq!(
        set(&tables.frontends[&key("172.20.0.1", 80)].internal),
        ["10.0.0.1:8080", "10.0.0.2:9090"]
    );
}

#[test]
fn listed_endpoints_that_nobody_may_choose_drain() {
    let endpoints = vec![
        endpoint("10.0.0.1", "ready"),
        endpoint("10.0.0.2", ""),
        endpoint("10.0.0.3", "terminating"),
    ];
    let tables = compile(web(VIP), vec![slice("s", "http", 8080, endpoints)]);
    let id = service_port_id(&name("web"), "http", Protocol::Tcp);
    let state = |address| tables.backends.get(&fingerprint(id, ip(address), 8080));
    assert_eq!(state("10.0.0.1"), Some(&BACKEND_ACTIVE));
    assert_eq!(state("10.0.0.2"), Some(&BACKEND_DRAINING));
    assert_eq!(state("10.0.0.3"), Some(&BACKEND_DRAINING));
    assert_eq!(state("10.0.0.4"), None);
}

#[test]
fn forbidden_endpoint_addresses_are_skipped() {
    for address in [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.1.1",
        "::",
        "::1",
        "fe80::1",
    ] {
        let tables = compile(
            web(&["172.20.0.1", "fd20::1"]),
            vec![slice("s", "http", 8080, vec![endpoint(address, "ready")])],
        );
        assert!(tables.backends.is_empty(), "{address}");
    }
}

#[test]
fn every_virtual_address_has_a_wildcard() {
    let tables = compile(web(&["172.20.0.1", "fd20::1"]), vec![]);
    for address in ["172.20.0.1", "fd20::1"] {
        let entry = &tables.frontends[&key(address, 0)];
        assert_eq!(entry.flags, WILDCARD);
        assert_eq!(entry.origin, name("web"));
    }
    assert_eq!(tables.frontends.len(), 4);
}

proptest! {
    #[test]
    fn every_selectable_backend_is_active_and_nothing_else_is(snapshot in snapshots()) {
        let tables = services(&snapshot);
        let selectable: std::collections::BTreeSet<u32> = tables.frontends.values()
            .flat_map(|entry| entry.internal.iter().chain(&entry.external)).map(|backend| backend.fingerprint).collect();
        let active = tables.backends.iter().filter(|(_, state)| **state == BACKEND_ACTIVE).map(|(fingerprint, _)| *fingerprint).collect();
        prop_assert_eq!(selectable, active);
    }

    #[test]
    fn names_of_slices_do_not_matter(snapshot in snapshots()) {
        let mut renamed = snapshot.clone();
        renamed.slices = snapshot.slices.values().rev().enumerate()
            .map(|(index, slice)| (ObjectName::new("a", format!("r{index}")), slice.clone())).collect();
        prop_assert_eq!(services(&snapshot), services(&renamed));
    }
}
