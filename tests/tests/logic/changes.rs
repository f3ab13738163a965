//! Services that change while clients talk to them: what a client has goes on, and what it asks next is answered by what is there now.

use weir::model::{EndpointSlice, ObjectName, Protocol, Snapshot, TrafficPolicy};
use weir::plan::{Plan, Step, Table};
use weir_common::abi::{BACKEND_ACTIVE, BackendState, FRONTEND_SIDE};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, snapshot};
use weir_tests::packets::{answer, tcp};
use zerocopy::IntoBytes;

use super::node::{
    A, B, Node, POD_A, POD_B, REMOTE, SERVICE_B, SERVICE_NONE, ends, tcp_packet, udp_packet,
};

/// The Service that all three pods are endpoints of.
const SERVICE_ALL: &str = "10.96.0.10";

/// The cluster after a change to the slices of a Service.
fn changed(service: &str, change: impl Fn(&mut EndpointSlice)) -> Snapshot {
    let mut cluster = snapshot([A, B], vec![]);
    edit(&mut cluster.slices, |slice| {
        if slice.service.name == service {
            change(slice);
        }
    });
    cluster
}

/// Where the next packet of pod a goes.
fn next(node: &Node, packet: &[u8]) -> (Reason, (std::net::IpAddr, u16)) {
    let (reason, sent) = node.leave(A, packet);
    (reason, ends(&sent)[1])
}

#[test]
fn datagrams_are_answered_from_the_moment_there_is_an_endpoint() {
    let mut node = Node::new(vec![]);
    let packet = udp_packet((POD_A, 4000), (SERVICE_NONE, 80));
    assert_eq!(next(&node, &packet).0, Reason::NoEndpoint);
    let b = snapshot([A, B], vec![]);
    let b = b.slices[&ObjectName::new("shop", "b-0")].endpoints.clone();
    node.apply(&changed("none", |slice| {
        slice.endpoints.clone_from(&b);
    }));
    assert_eq!(
        next(&node, &packet),
        (Reason::NotIsolated, (address(POD_B), 8080))
    );
}

#[test]
fn datagrams_follow_their_target_port() {
    let mut node = Node::new(vec![]);
    let packet = udp_packet((POD_A, 4000), (SERVICE_B, 80));
    assert_eq!(next(&node, &packet).1, (address(POD_B), 8080));
    node.apply(&changed("b", |slice| {
        for port in &mut slice.ports {
            port.port = 9090;
        }
    }));
    assert_eq!(next(&node, &packet).1, (address(POD_B), 9090));
}

#[test]
fn datagrams_stay_with_a_backend_as_long_as_it_serves() {
    let mut node = Node::new(vec![]);
    let terminating = |serving| {
        changed("narrow", move |slice| {
            let first = &mut slice.endpoints[0];
            (first.ready, first.serving, first.terminating) = (false, serving, true);
        })
    };
    let (first, second) = ((address(POD_B), 8080), (address(REMOTE), 8080));
    let packet = |port| udp_packet((POD_A, port), ("10.96.0.16", 80));
    assert_eq!(next(&node, &packet(4000)).1, first);
    node.apply(&terminating(true));
    assert_eq!(next(&node, &packet(4000)).1, first);
    assert_eq!(next(&node, &packet(4001)).1, second);
    node.apply(&terminating(false));
    assert_eq!(next(&node, &packet(4000)).1, second);
}

#[test]
fn a_new_connection_on_old_ports_leaves_an_endpoint_that_takes_none() {
    let mut node = Node::new(vec![]);
    let packet = |port, flags| tcp_packet((POD_A, port), ("10.96.0.16", 80), flags);
    let (first, second) = ((address(POD_B), 8080), (address(REMOTE), 8080));
    for port in [4000, 4001] {
        assert_eq!(next(&node, &packet(port, tcp::SYN)).1, first);
    }
    node.apply(&changed("narrow", |slice| {
        let first = &mut slice.endpoints[0];
        (first.ready, first.terminating) = (false, true);
    }));
    assert_eq!(next(&node, &packet(4000, tcp::ACK)).1, first);
    assert_eq!(next(&node, &packet(4001, tcp::SYN)).1, second);
}

/// Ids are used again where there are no others: a flow may still have the id of a backend that is long gone.
#[test]
fn an_id_stands_for_a_backend_only_with_its_fingerprint() {
    let mut node = Node::new(vec![]);
    let packet = udp_packet((POD_A, 4000), ("10.96.0.16", 80));
    assert_eq!(next(&node, &packet).1, (address(POD_B), 8080));
    let flows = node.simulator.flows();
    let mut fronts = flows
        .values()
        .filter(|flow| flow.flags & FRONTEND_SIDE != 0);
    let flow = fronts.next().expect("the flow to the Service");
    let another = BackendState {
        fingerprint: !flow.fingerprint,
        state: BACKEND_ACTIVE,
        ..BackendState::default()
    };
    node.apply(&changed("narrow", |slice| {
        slice.endpoints.remove(0);
    }));
    let write = Step::Write {
        table: Table::Backend,
        key: flow.backend.as_bytes().into(),
        value: another.as_bytes().into(),
    };
    let plan = Plan { steps: vec![write] };
    node.simulator.maps.execute(&plan).expect("an element");
    assert_eq!(next(&node, &packet).1, (address(REMOTE), 8080));
}

/// Endpoints that are only not to be chosen any more are endpoints still.
#[test]
fn no_flow_leaves_an_endpoint_for_a_change_of_policy() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut node = Node::new(vec![]);
        let packet = |flags| match protocol {
            Protocol::Tcp => tcp_packet((POD_A, 4000), (SERVICE_ALL, 80), flags),
            _ => udp_packet((POD_A, 4000), (SERVICE_ALL, 80)),
        };
        // The pods of this node are not ready, so that the one of the other node is chosen.
        node.apply(&changed("all", |slice| {
            for endpoint in &mut slice.endpoints {
                let there = endpoint.node.as_deref() == Some("node2");
                (endpoint.ready, endpoint.serving) = (there, there);
            }
        }));
        let remote = (address(REMOTE), 8080);
        assert_eq!(next(&node, &packet(tcp::SYN)).1, remote);
        let mut local = snapshot([A, B], vec![]);
        edit(&mut local.services, |service| {
            service.internal_traffic_policy = TrafficPolicy::Local;
        });
        node.apply(&local);
        assert_eq!(next(&node, &packet(tcp::ACK)).1, remote, "{protocol}");
    }
}

#[test]
fn an_address_that_another_service_gets_leads_there() {
    let mut node = Node::new(vec![]);
    let syn = |port| tcp_packet((POD_A, port), (SERVICE_B, 80), tcp::SYN);
    assert_eq!(next(&node, &syn(4000)).1, (address(POD_B), 8080));
    let name = ObjectName::new("shop", "b");
    let mut without = snapshot([A, B], vec![]);
    let mut service = (*without.services[&name]).clone();
    without.services.remove(&name);
    node.apply(&without);
    assert_eq!(next(&node, &syn(4001)).0, Reason::NoService);
    // Its name is as long as names may be.
    service.name = ObjectName::new("n".repeat(63), "s".repeat(63));
    for port in &mut service.ports {
        port.name = format!("{:p<15}", port.protocol.to_string().to_lowercase());
    }
    let mut again = changed("b", |slice| {
        slice.service = service.name.clone();
        slice.name.namespace.clone_from(&service.name.namespace);
        for port in &mut slice.ports {
            port.name = format!("{:p<15}", port.protocol.to_string().to_lowercase());
        }
        for endpoint in &mut slice.endpoints {
            endpoint.address = address(if endpoint.address.is_ipv4() {
                REMOTE
            } else {
                "fd00:2::1"
            });
        }
    });
    again.services.remove(&name);
    again.services.insert(service.name.clone(), service.into());
    node.apply(&again);
    assert_eq!(next(&node, &syn(4002)).1, (address(REMOTE), 8080));
}

/// What netfilter would call invalid, and leave untranslated for the client to reset (k/k#74839), is translated like anything else.
#[test]
fn a_segment_that_comes_too_late_is_translated() {
    let node = Node::new(vec![]);
    let (_, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN));
    node.enter(B, A, &sent);
    let answered = answer(&sent).expect("answer");
    node.enter(A, B, &node.leave(B, &answered).1);
    let mut late = tcp_packet((POD_B, 8080), (POD_A, 4000), tcp::ACK);
    // A sequence number far outside any window, with the same checksum.
    late[38..42].copy_from_slice(&0x8000_8006_u32.to_be_bytes());
    let (reason, late) = node.leave(B, &late);
    assert_eq!(reason, Reason::Reply);
    let (reason, late) = node.enter(A, B, &late);
    assert_eq!(
        (reason, ends(&late)[0]),
        (Reason::Reply, (address(SERVICE_B), 80))
    );
}
