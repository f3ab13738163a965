use proptest::prelude::*;

use super::super::testing::{NODE, ip, snapshots};
use super::*;
use crate::compile::Backend;
use crate::model::{
    Endpoint, EndpointSlice, Node, ObjectName, Protocol, Service, ServicePort, SlicePort,
    TrafficPolicy, fingerprint, service_port_id,
};
use std::net::IpAddr;
use std::sync::Arc;
use weir_common::abi::{
    BACKEND_ACTIVE, BACKEND_DRAINING, BACKEND_UNREADY, DROP_EXTERNAL, DROP_INTERNAL, FrontendKey,
    IN_CLUSTER_SET, IN_LOCAL_SET, NODE_OUTSIDE, NODE_PORT, SOURCE_RANGES, SourceKey, WILDCARD,
};

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
        trigger: None,
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
            ..ServicePort::default()
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
    services(&of(service, slices))
}

fn of(service: Service, slices: Vec<EndpointSlice>) -> Snapshot {
    Snapshot {
        node_name: NODE.to_owned(),
        services: imbl::OrdMap::unit(service.name.clone(), Arc::new(service)),
        slices: slices
            .into_iter()
            .map(|slice| (slice.name.clone(), Arc::new(slice)))
            .collect(),
        ..Snapshot::default()
    }
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
    assert_eq!(external, internal, "whoever asks");
    assert_eq!(flags, DROP_INTERNAL | DROP_EXTERNAL);

    let (internal, _, flags) = sets(
        local(VIP),
        &[
            ("10.0.0.1", "serving terminating local"),
            ("10.0.0.2", "ready"),
        ],
    );
    assert_eq!(internal, ["10.0.0.1:8080"], "the node's own last resort");
    assert_eq!(flags, DROP_INTERNAL | DROP_EXTERNAL);

    let (internal, external, flags) = sets(local(VIP), &[("10.0.0.2", "ready")]);
    assert_eq!(
        (internal.len(), external.len(), flags),
        (0, 0, DROP_INTERNAL | DROP_EXTERNAL)
    );

    let (_, _, flags) = sets(local(VIP), &[("10.0.0.2", "")]);
    assert_eq!(flags, 0, "no endpoint anywhere: reject");
}

#[test]
fn service_ports_without_local_endpoints_are_counted_once() {
    // Two frontends outside the cluster, one inside.
    let mut service = local(VIP);
    service.external_traffic_policy = TrafficPolicy::Local;
    service.load_balancer_ips = vec![ip("192.0.2.1")];
    service.external_ips = vec![ip("192.0.2.2")];
    let count = |service: &Service, endpoints: &[&str]| {
        let endpoints = endpoints
            .iter()
            .map(|it| endpoint("10.0.0.1", it))
            .collect();
        let tables = compile(service.clone(), vec![slice("s", "http", 8080, endpoints)]);
        assert_eq!(without_local(&tables, false), WithoutLocal::default());
        let WithoutLocal { internal, external } = without_local(&tables, true);
        (internal, external)
    };
    assert_eq!(count(&service, &["ready"]), (1, 1));
    assert_eq!(count(&service, &["ready local"]), (0, 0));
    assert_eq!(count(&service, &[]), (0, 0), "nobody has one");
    let inside = Service {
        external_traffic_policy: TrafficPolicy::Cluster,
        ..service.clone()
    };
    assert_eq!(count(&inside, &["ready"]), (1, 0));
    let outside = Service {
        internal_traffic_policy: TrafficPolicy::Cluster,
        ..service
    };
    assert_eq!(count(&outside, &["ready"]), (0, 1));
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
fn listed_endpoints_that_nobody_may_choose_keep_what_they_have() {
    let endpoints = vec![
        endpoint("10.0.0.1", "ready"),
        endpoint("10.0.0.2", ""),
        endpoint("10.0.0.3", "terminating"),
        endpoint("10.0.0.5", "serving terminating"),
    ];
    let tables = compile(web(VIP), vec![slice("s", "http", 8080, endpoints)]);
    let id = service_port_id(&name("web"), "http", Protocol::Tcp);
    let state = |address| {
        let state = tables.backends.get(&fingerprint(id, ip(address), 8080))?;
        Some(state.state)
    };
    assert_eq!(state("10.0.0.1"), Some(BACKEND_ACTIVE));
    assert_eq!(state("10.0.0.2"), Some(BACKEND_UNREADY));
    assert_eq!(state("10.0.0.3"), Some(BACKEND_UNREADY));
    assert_eq!(state("10.0.0.5"), Some(BACKEND_DRAINING));
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
            .flat_map(|entry| entry.internal.iter().chain(&*entry.external)).map(|backend| backend.fingerprint).collect();
        let active = tables.backends.iter().filter(|(_, state)| state.state == BACKEND_ACTIVE).map(|(fingerprint, _)| *fingerprint).collect();
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

/// A Service with every kind of address: 172.20.0.1, 192.0.2.1 (LoadBalancer), 192.0.2.2 (external), 10.9.0.1 (the node's).
fn exposed(internal: TrafficPolicy, external: TrafficPolicy) -> Service {
    let mut service = web(VIP);
    service.load_balancer_ips = vec![ip("192.0.2.1"), ip("2001:db8::1")];
    service.external_ips = vec![ip("192.0.2.2")];
    service.ports[0].node_port = Some(30080);
    service.internal_traffic_policy = internal;
    service.external_traffic_policy = external;
    service
}

fn on_node(services: Vec<Service>, slices: Vec<EndpointSlice>) -> Snapshot {
    let node = Node {
        name: NODE.to_owned(),
        addresses: vec![ip("10.9.0.1"), ip("10.9.0.2")],
        primary: vec![ip("10.9.0.1")],
        ..Node::default()
    };
    Snapshot {
        node_name: NODE.to_owned(),
        nodes: imbl::OrdMap::unit(node.name.clone(), Arc::new(node)),
        services: services
            .into_iter()
            .map(|service| (service.name.clone(), Arc::new(service)))
            .collect(),
        slices: slices
            .into_iter()
            .map(|slice| (slice.name.clone(), Arc::new(slice)))
            .collect(),
        ..Snapshot::default()
    }
}

/// Policies of kube-proxy's test, each with what clients of the cluster IP and, inside and outside the cluster, of the other
/// addresses get.
#[test]
fn a_backend_is_in_every_set_that_leads_to_it() {
    let mut service = local(VIP);
    service.load_balancer_ips = vec![ip("192.0.2.1")];
    let endpoints = [("10.0.0.1", "ready local"), ("10.0.0.2", "ready")];
    let endpoints = endpoints.map(|(address, conditions)| endpoint(address, conditions));
    let tables = compile(service, vec![slice("s", "http", 8080, endpoints.into())]);
    let frontend = &tables.frontends[&key("192.0.2.1", 80)];
    let sets = frontend.internal.iter().map(|backend| {
        let state = tables.backends[&backend.fingerprint];
        (backend.address, state.sets)
    });
    assert_eq!(
        Vec::from_iter(sets),
        [
            (ip("10.0.0.1"), IN_CLUSTER_SET | IN_LOCAL_SET),
            (ip("10.0.0.2"), IN_CLUSTER_SET)
        ]
    );
}

#[test]
fn traffic_policies_decide_by_address_and_side() {
    use TrafficPolicy::{Cluster, Local};
    const INTERNAL: u32 = DROP_INTERNAL | DROP_EXTERNAL;
    const EXTERNAL: u32 = DROP_EXTERNAL;
    let mixed = [("10.0.0.0", "ready local"), ("10.0.0.1", "ready")];
    let remote = [("10.0.0.0", "ready"), ("10.0.0.1", "ready")];
    let ending = [
        ("10.0.0.0", "serving terminating"),
        ("10.0.0.1", "serving terminating"),
    ];
    let none = [("10.0.0.0", ""), ("10.0.0.1", "")];
    let both: &[u8] = &[0, 1];
    // Policies, endpoints; then hosts and flags at the cluster IP, and inside, outside and flags elsewhere.
    for (policies, endpoints, at_cluster_ip, elsewhere) in [
        ((Cluster, Cluster), mixed, (both, 0), (both, both, 0)),
        (
            (Local, Cluster),
            mixed,
            (&[0][..], INTERNAL),
            (both, both, 0),
        ),
        (
            (Cluster, Local),
            mixed,
            (both, 0),
            (both, &[0][..], EXTERNAL),
        ),
        (
            (Local, Local),
            mixed,
            (&[0], INTERNAL),
            (both, &[0], EXTERNAL),
        ),
        (
            (Local, Local),
            remote,
            (&[], INTERNAL),
            (both, &[], EXTERNAL),
        ),
        (
            (Local, Local),
            ending,
            (&[], INTERNAL),
            (both, &[], EXTERNAL),
        ),
        ((Local, Local), none, (&[], 0), (&[], &[], 0)),
    ] {
        let endpoints = endpoints.map(|(address, conditions)| endpoint(address, conditions));
        let slices = vec![slice("s", "http", 8080, endpoints.to_vec())];
        let service = exposed(policies.0, policies.1);
        let tables = services(&on_node(vec![service], slices));
        let hosts = |hosts: &[u8]| -> Vec<String> {
            hosts
                .iter()
                .map(|host| format!("10.0.0.{host}:8080"))
                .collect()
        };
        let case = format!("{policies:?} {endpoints:?}");
        let entry = &tables.frontends[&key("172.20.0.1", 80)];
        assert_eq!(set(&entry.internal), hosts(at_cluster_ip.0), "{case}");
        assert_eq!(entry.external, entry.internal, "{case}");
        assert_eq!(entry.flags, at_cluster_ip.1, "{case}");
        for (address, port, own) in [
            ("192.0.2.1", 80, 0),
            ("192.0.2.2", 80, 0),
            ("10.9.0.1", 30080, NODE_PORT),
        ] {
            let entry = &tables.frontends[&key(address, port)];
            assert_eq!(set(&entry.internal), hosts(elsewhere.0), "{address} {case}");
            assert_eq!(set(&entry.external), hosts(elsewhere.1), "{address} {case}");
            assert_eq!(entry.flags, elsewhere.2 | own, "{address} {case}");
        }
    }
}

#[test]
fn only_cluster_ips_claim_all_of_their_ports() {
    let service = exposed(TrafficPolicy::Cluster, TrafficPolicy::Cluster);
    let tables = services(&on_node(vec![service], vec![]));
    let keys: Vec<_> = tables.frontends.keys().copied().collect();
    let mut wanted = [
        key("10.9.0.1", 30080),
        key("172.20.0.1", 0),
        key("172.20.0.1", 80),
        key("192.0.2.1", 80),
        key("192.0.2.2", 80),
    ];
    wanted.sort();
    assert_eq!(
        keys, wanted,
        "no IPv6 for a Service without an IPv6 cluster IP"
    );
}

#[test]
fn node_ports_are_where_the_operator_wants_them() {
    let service = exposed(TrafficPolicy::Cluster, TrafficPolicy::Cluster);
    let mut snapshot = on_node(vec![service], vec![]);
    snapshot.devices.addresses = ["10.9.0.1", "10.9.0.2", "10.9.1.3", "127.0.0.1"]
        .map(ip)
        .into();
    let mut at = |rules: &[&str]| -> Vec<String> {
        snapshot.node_ports = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let tables = services(&snapshot);
        let keys = tables.frontends.keys().filter(|key| key.port == 30080);
        let mut addresses: Vec<_> = keys
            .map(|key| IpAddr::from(key.address).to_string())
            .collect();
        addresses.sort();
        addresses
    };
    assert_eq!(at(&[]), ["10.9.0.1"]);
    assert_eq!(at(&["primary"]), ["10.9.0.1"]);
    assert_eq!(at(&["all"]), ["10.9.0.1", "10.9.0.2", "10.9.1.3"]);
    assert_eq!(
        at(&["10.9.1.0/24", "127.0.0.0/8"]),
        ["10.9.1.3", "127.0.0.1"]
    );
    assert_eq!(at(&["primary", "10.9.1.0/24"]), ["10.9.0.1", "10.9.1.3"]);
    assert!(at(&["192.0.2.0/24"]).is_empty());
}

/// An address that the cluster gave to one Service is not to be had by naming it in another.
#[test]
fn the_strongest_claim_to_an_address_counts() {
    let named = |text: &str| {
        let mut service = web(&[]);
        service.name = name(text);
        service.cluster_ips = vec![ip(&format!("172.20.1.{}", text.as_bytes()[0]))];
        service
    };
    let mut all = ["a", "b", "c", "d", "z"].map(named);
    all[0].external_ips = vec![ip("172.20.0.1"), ip("192.0.2.1")];
    all[1].external_ips = vec![ip("192.0.2.1")];
    all[2].load_balancer_ips = vec![ip("172.20.0.1"), ip("192.0.2.1")];
    all[3].ports[0].node_port = Some(80);
    all[4].cluster_ips = vec![ip("172.20.0.1")];
    let tables = services(&on_node(all.to_vec(), vec![]));
    let owner =
        |tables: &ServiceTables, address| tables.frontends[&key(address, 80)].origin.name.clone();
    assert_eq!(owner(&tables, "172.20.0.1"), "z");
    assert_eq!(owner(&tables, "192.0.2.1"), "c");
    assert_eq!(owner(&tables, "10.9.0.1"), "d");
    let tables = services(&on_node(all[..2].to_vec(), vec![]));
    assert_eq!(owner(&tables, "192.0.2.1"), "a");

    // A Service's own claims to one address: its cluster IP's policy counts.
    let mut both = local(&["172.20.1.9"]);
    both.external_ips = both.cluster_ips.clone();
    let remote = slice("s1", "http", 8080, vec![endpoint("10.0.0.2", "ready")]);
    let frontend = &compile(both, vec![remote]).frontends[&key("172.20.1.9", 80)];
    assert_eq!(frontend.flags & DROP_INTERNAL, DROP_INTERNAL);

    // The first port's node port is the number of the second, which is met at the node's address, too.
    let mut ports = web(VIP);
    ports.external_ips = vec![ip("10.9.0.1")];
    ports.ports[0].node_port = Some(30080);
    ports.ports.push(ServicePort {
        name: "second".to_owned(),
        port: 30080,
        ..ports.ports[0].clone()
    });
    let tables = services(&on_node(vec![ports], vec![]));
    let frontend = &tables.frontends[&key("10.9.0.1", 30080)];
    assert_eq!((&*frontend.port_name, frontend.flags), ("second", 0));
}

#[test]
fn health_checks_count_ready_endpoints_of_the_node_once() {
    let checked = |name_: &str, port| Service {
        name: name(name_),
        health_check_node_port: port,
        ..web(VIP)
    };
    let slices = [
        slice(
            "s1",
            "http",
            8080,
            vec![
                endpoint("10.0.0.1", "ready local"),
                endpoint("10.0.0.2", "ready"),
                endpoint("10.0.0.3", "serving terminating local"),
                endpoint("10.0.0.4", "ready local"),
            ],
        ),
        slice(
            "s2",
            "admin",
            9090,
            vec![endpoint("10.0.0.1", "ready local")],
        ),
    ];
    let services = [
        checked("web", Some(30_001)),
        checked("zoo", Some(30_001)),
        checked("none", Some(30_002)),
        checked("unasked", None),
    ];
    let snapshot = Snapshot {
        node_name: NODE.to_owned(),
        services: services
            .into_iter()
            .map(|service| (service.name.clone(), Arc::new(service)))
            .collect(),
        slices: slices
            .into_iter()
            .map(|slice| (slice.name.clone(), Arc::new(slice)))
            .collect(),
        ..Snapshot::default()
    };
    let check = |service, local_endpoints| HealthCheck {
        service: name(service),
        uid: String::new(),
        local_endpoints,
    };
    let expected = [(30_001, check("web", 2)), (30_002, check("none", 0))];
    assert_eq!(health_checks(&snapshot), expected.into());
}

/// Flags of the load balancer's and the external frontend, and the ranges, of a Service with these ranges.
fn admission(ranges: &[&str]) -> (u32, u32, Vec<String>) {
    let mut service = exposed(TrafficPolicy::Cluster, TrafficPolicy::Cluster);
    service.cluster_ips.push(ip("fd20::1"));
    service.source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let tables = services(&on_node(vec![service], vec![]));
    for (open, own) in [
        (key("192.0.2.2", 80), 0),
        (key("10.9.0.1", 30080), NODE_PORT),
        (key("172.20.0.1", 80), 0),
    ] {
        assert_eq!(tables.frontends[&open].flags, own, "{open:?}");
    }
    let id = service_port_id(&name("web"), "http", Protocol::Tcp);
    let range = |key: &SourceKey| {
        assert_eq!(key.scope, SourceKey::client(id, key.scope.client).scope);
        format!("{}/{}", IpAddr::from(key.scope.client), key.bits - 64)
    };
    (
        tables.frontends[&key("192.0.2.1", 80)].flags,
        tables.frontends[&key("2001:db8::1", 80)].flags,
        tables.sources.keys().map(range).collect(),
    )
}

#[test]
fn load_balancers_ask_where_a_client_comes_from() {
    const OUTSIDE: u32 = SOURCE_RANGES | NODE_OUTSIDE;
    for (ranges, v4, v6, keys) in [
        (&[][..], 0, 0, &[][..]),
        (&["10.1.0.0/16"], OUTSIDE, 0, &["10.1.0.0/112"]),
        // The node is 10.9.0.1; nobody asks in the family without ranges.
        (&["10.0.0.0/8"], SOURCE_RANGES, 0, &["10.0.0.0/104"]),
        (&["fd00::/64"], 0, OUTSIDE, &["fd00::/64"]),
        (
            &["10.9.0.1/32", "fd00::1/128"],
            SOURCE_RANGES,
            OUTSIDE,
            &["fd00::1/128", "10.9.0.1/128"],
        ),
        (
            &["10.1.0.0/16", "0.0.0.0/0", "fd00::/64"],
            0,
            OUTSIDE,
            &["fd00::/64"],
        ),
    ] {
        let (found_v4, found_v6, mut found) = admission(ranges);
        let mut wanted: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        wanted.sort();
        found.sort();
        assert_eq!((found_v4, found_v6, found), (v4, v6, wanted), "{ranges:?}");
    }
}
