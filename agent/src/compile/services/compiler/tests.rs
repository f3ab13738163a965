use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use weir_common::abi::{BACKEND_ACTIVE, BACKEND_DRAINING, IN_CLUSTER_SET};

use super::*;
use crate::compile::services;
use crate::compile::testing::{NODE, edit, ip, serve, snapshots};
use crate::model::{Endpoint, Node, Protocol, ServicePort, fingerprint, service_port_id};

/// All Services claim one external address, which ranges guard, and a port on the node.
fn contended(mut snapshot: Snapshot) -> Snapshot {
    edit(&mut snapshot.services, |service| {
        service.external_ips = vec![ip("192.0.2.1")];
        service.load_balancer_ips = vec![ip("192.0.2.2")];
        service.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
        service.ports[0].node_port = Some(30080);
    });
    edit(&mut snapshot.nodes, |node: &mut Node| {
        node.primary = vec![ip("10.9.0.1")];
        node.addresses = vec![ip("10.9.0.1")];
    });
    snapshot
}

/// Addresses are reserved for Services, but for those of another proxy's Service.
fn reserved(mut snapshot: Snapshot, ranges: &[&str], foreign: &[&str]) -> Snapshot {
    for range in ranges {
        let reserved = ServiceCidr {
            name: (*range).to_owned(),
            cidrs: vec![range.parse().unwrap()],
        };
        snapshot
            .service_cidrs
            .insert(reserved.name.clone(), Arc::new(reserved));
    }
    for address in foreign {
        let foreign = ForeignService {
            name: ObjectName::new("a", *address),
            cluster_ips: vec![ip(address)],
        };
        snapshot
            .foreign
            .insert(foreign.name.clone(), Arc::new(foreign));
    }
    snapshot
}

proptest! {
    #[test]
    fn what_was_compiled_before_makes_no_difference(
        snapshots in vec(
            (
                snapshots(),
                any::<bool>(),
                subsequence(vec!["172.20.0.0/16", "172.20.9.0/24", "fd20::/112"], 0..=3),
                subsequence(vec!["172.20.9.9", "fd20::9"], 0..=2),
            ),
            1..6,
        )
    ) {
        let mut compiler = ServiceCompiler::default();
        for (snapshot, contend, ranges, foreign) in snapshots {
            let snapshot = if contend { contended(snapshot) } else { snapshot };
            let snapshot = reserved(snapshot, &ranges, &foreign);
            prop_assert_eq!(compiler.compile(&snapshot), &services(&snapshot));
        }
    }
}

#[test]
fn a_change_leaves_what_it_is_not_about_shared() {
    let mut snapshot = Snapshot {
        node_name: NODE.to_owned(),
        ..Snapshot::default()
    };
    for number in 0..2_000 {
        add(
            &mut snapshot,
            &format!("s{number}"),
            number,
            ip("10.0.0.1"),
            true,
        );
    }
    let mut compiler = ServiceCompiler::default();
    let before = compiler.compile(&snapshot).clone();
    add(&mut snapshot, "s7", 7, ip("10.0.0.2"), true);
    let after = compiler.compile(&snapshot);
    let frontends = before.frontends.diff(&after.frontends);
    assert_eq!(frontends.count(), 1, "the wildcard is as it was");
    assert_eq!(
        before.backends.diff(&after.backends).count(),
        2,
        "one went, one came"
    );
}

#[test]
fn of_two_backends_with_one_fingerprint_the_active_one_counts() {
    let id = |name: &str| service_port_id(&ObjectName::new("a", name), "", Protocol::Tcp);
    let addresses = || (0x0a00_0000_u32..0x0a03_0000).map(|n| IpAddr::from(Ipv4Addr::from(n)));
    let ones: BTreeMap<u32, IpAddr> = addresses()
        .map(|address| (fingerprint(id("one"), address, 8080), address))
        .collect();
    let (one, other) = addresses()
        .find_map(|address| Some((ones.get(&fingerprint(id("other"), address, 8080))?, address)))
        .expect("among so many there are two");
    let common = fingerprint(id("other"), other, 8080);

    let mut compiler = ServiceCompiler::default();
    let mut snapshot = Snapshot::default();
    let state = |compiler: &mut ServiceCompiler, snapshot: &Snapshot| {
        let tables = compiler.compile(snapshot);
        let held = tables.backends.get(&common);
        held.map(|held| (held.state, held.sets))
    };
    const ACTIVE: (u16, u16) = (BACKEND_ACTIVE, IN_CLUSTER_SET);
    const DRAINING: (u16, u16) = (BACKEND_DRAINING, 0);
    for (ones, others, both) in [
        (false, false, DRAINING),
        (false, true, ACTIVE),
        (true, true, ACTIVE),
        (true, false, ACTIVE),
    ] {
        add(&mut snapshot, "one", 1, *one, ones);
        add(&mut snapshot, "other", 2, other, others);
        assert_eq!(state(&mut compiler, &snapshot), Some(both));
    }
    let one = ObjectName::new("a", "one");
    let left = compiler.backends_without(&one, &[one.clone()].into());
    let left: Vec<_> = left
        .iter()
        .map(|(fingerprint, state)| (*fingerprint, state.map(|held| held.state)))
        .collect();
    assert_eq!(left, [(common, Some(BACKEND_DRAINING))]);
    snapshot.services.remove(&ObjectName::new("a", "one"));
    assert_eq!(state(&mut compiler, &snapshot), Some(DRAINING));
    snapshot.services.remove(&ObjectName::new("a", "other"));
    assert_eq!(state(&mut compiler, &snapshot), None);
}

/// A Service with one endpoint.
fn add(snapshot: &mut Snapshot, name: &str, number: u16, endpoint: IpAddr, ready: bool) {
    let [high, low] = number.to_be_bytes();
    let service = Service {
        name: ObjectName::new("a", name),
        cluster_ips: vec![[172, 20, high, low].into()],
        ports: vec![ServicePort {
            port: 80,
            ..ServicePort::default()
        }],
        ..Service::default()
    };
    let endpoint = Endpoint {
        ready,
        ..Endpoint::new(endpoint)
    };
    serve(snapshot, service, [endpoint]);
}
