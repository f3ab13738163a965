use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use weir_common::abi::{DROP_EXTERNAL, DROP_INTERNAL};

use super::*;
use crate::compile::services;
use crate::compile::testing::{NODE, ip, snapshots};
use crate::model::{Endpoint, Node, SlicePort};

proptest! {
    /// Also on a node that is not the snapshot's own.
    #[test]
    fn single_frontends_are_those_of_the_tables(snapshot in snapshots()) {
        for node in [NODE, "there"] {
            let exposure = Exposure::new(&snapshot);
            let mut there = snapshot.clone();
            there.node_name = node.to_owned();
            let tables = services(&there);
            let mut held = BTreeMap::new();
            for service in snapshot.services.values() {
                for (exposed, other) in exposure.of(node, service) {
                    let key = (exposed.address, exposed.number);
                    let holder = other.unwrap_or(&service.name);
                    let entry = exposure.find(node, exposed.address, exposed.number, Protocol::Tcp).unwrap().entry;
                    prop_assert_eq!(&entry.origin, holder);
                    prop_assert_eq!(&tables.frontends[&frontend(key, 6)], &entry);
                    held.insert(key, entry);
                }
                for address in &service.cluster_ips {
                    let entry = exposure.find(node, *address, 79, Protocol::Tcp).unwrap().entry;
                    prop_assert_eq!(&tables.frontends[&frontend((*address, 0), 0)], &entry);
                    held.insert((*address, 0), entry);
                }
            }
            prop_assert_eq!(held.len(), tables.frontends.len());
        }
    }
}

fn frontend((address, port): (IpAddr, u16), protocol: u8) -> FrontendKey {
    FrontendKey {
        address: address.into(),
        port,
        protocol,
        reserved: 0,
    }
}

/// Service a/web with node port 30080 and the load balancer 192.0.2.1, an endpoint on each of two nodes, 10.9.0.1 and 10.9.0.2.
fn snapshot(change: impl FnOnce(&mut Service)) -> Snapshot {
    let mut service = Service {
        name: ObjectName::new("a", "web"),
        cluster_ips: vec![ip("172.20.0.1")],
        load_balancer_ips: vec![ip("192.0.2.1")],
        ports: vec![ServicePort {
            port: 80,
            node_port: Some(30080),
            ..ServicePort::default()
        }],
        ..Service::default()
    };
    change(&mut service);
    let mut snapshot = Snapshot {
        node_name: NODE.to_owned(),
        ..Snapshot::default()
    };
    let mut endpoints = Vec::new();
    for (name, last) in [(NODE, 1), ("there", 2)] {
        let node = Node {
            name: name.to_owned(),
            addresses: vec![ip(&format!("10.9.0.{last}"))],
            primary: vec![ip(&format!("10.9.0.{last}"))],
            ..Node::default()
        };
        snapshot.nodes.insert(node.name.clone(), Arc::new(node));
        endpoints.push(Endpoint {
            node: Some(name.to_owned()),
            ..Endpoint::new(ip(&format!("10.0.0.{last}")))
        });
    }
    let slice = EndpointSlice {
        name: ObjectName::new("a", "web-1"),
        service: service.name.clone(),
        endpoints,
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        trigger: None,
    };
    snapshot.slices.insert(slice.name.clone(), Arc::new(slice));
    snapshot
        .services
        .insert(service.name.clone(), Arc::new(service));
    snapshot
}

/// Hosts of the endpoints that a client gets, or why none.
fn get(snapshot: &Snapshot, node: &str, at: (&str, u16), client: Client) -> Result<String, Reason> {
    let exposure = Exposure::new(snapshot);
    let exposed = exposure
        .find(node, ip(at.0), at.1, Protocol::Tcp)
        .expect("a frontend");
    exposed.admit(client)?;
    let backends = exposed.backends(client.side())?;
    let hosts = backends.iter().map(|backend| backend.address.to_string());
    Ok(hosts.collect::<Vec<_>>().join(" "))
}

#[test]
fn clients_get_what_their_side_of_the_node_says() {
    let local = snapshot(|service| service.external_traffic_policy = TrafficPolicy::Local);
    let pod = Client::Pod(ip("10.0.0.9"));
    let outside = Client::Outside(ip("203.0.113.9"));
    let all = Ok("10.0.0.1 10.0.0.2".to_owned());
    for (node, at, client, wanted) in [
        (NODE, ("192.0.2.1", 80), pod, all.clone()),
        (NODE, ("10.9.0.1", 30080), Client::Node, all.clone()),
        (
            NODE,
            ("10.9.0.1", 30080),
            outside,
            Ok("10.0.0.1".to_owned()),
        ),
        (
            "there",
            ("192.0.2.1", 80),
            outside,
            Ok("10.0.0.2".to_owned()),
        ),
        (NODE, ("172.20.0.1", 80), outside, all),
        (
            "far",
            ("192.0.2.1", 80),
            outside,
            Err(Reason::NoLocalEndpoint),
        ),
        (NODE, ("172.20.0.1", 81), pod, Err(Reason::NoServicePort)),
    ] {
        assert_eq!(
            get(&local, node, at, client),
            wanted,
            "{node} {at:?} {client:?}"
        );
    }
    let exposure = Exposure::new(&local);
    let none = |node, at: (&str, u16)| exposure.find(node, ip(at.0), at.1, Protocol::Tcp).is_none();
    assert!(none(NODE, ("192.0.2.1", 81)), "others' port");
    assert!(none(NODE, ("10.9.0.2", 30080)), "others' address");
    assert!(none("there", ("10.9.0.1", 30080)), "others' address");
    let flags = |node| {
        let exposed = exposure.find(node, ip("192.0.2.1"), 80, Protocol::Tcp);
        exposed.unwrap().entry.flags & (DROP_EXTERNAL | DROP_INTERNAL)
    };
    assert_eq!(flags(NODE), DROP_EXTERNAL);
}

#[test]
fn ranges_are_asked_before_anything_else() {
    let narrow = snapshot(|service| {
        service.source_ranges = vec!["10.9.0.1/32".parse().unwrap()];
        service.external_traffic_policy = TrafficPolicy::Local;
    });
    let outside = Client::Outside(ip("203.0.113.9"));
    let balancer = ("192.0.2.1", 80);
    assert_eq!(
        get(&narrow, "far", balancer, outside),
        Err(Reason::SourceRange)
    );
    assert_eq!(
        get(&narrow, "there", balancer, Client::Node),
        Err(Reason::SourceRange)
    );
    assert!(get(&narrow, NODE, balancer, Client::Node).is_ok());
    let node = Client::Pod(ip("10.9.0.1"));
    assert!(get(&narrow, NODE, balancer, node).is_ok());
    assert!(get(&narrow, NODE, ("10.9.0.1", 30080), outside).is_ok());
}
