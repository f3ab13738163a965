//! A client whose kernel uses one port for connections to several Services: they are different connections to it, and stay so where
//! the Services have one backend.

use std::net::IpAddr;

use weir::model::{Endpoint, Protocol, Snapshot};
use weir_common::abi::{BACKEND_SIDE, Hook};
use weir_common::logic::HAIRPIN_V4;
use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, snapshot};
use weir_tests::packets::{Content, Packet, answer, tcp};
use weir_tests::simulator::Step;

use super::external::{CLIENT, arrive, outside};
use super::node::{
    A, B, Node, POD_A, POD_B, REMOTE, SECOND, SERVICE_B, SERVICE_SELF, UPLINK, ends, over_sctp,
    sctp_packet, tcp_packet, udp_packet,
};

/// Another Service with the backend of [`SERVICE_B`].
const ALSO_B: &str = "10.96.0.14";
/// The first of the ports that stand in for a client's own.
const STAND_IN: u16 = 61_000;

/// A cluster with other endpoints of Service `also-b`.
fn also(endpoints: &[&str]) -> Snapshot {
    let mut cluster = snapshot([A, B], vec![]);
    let pods = cluster.pods.clone();
    edit(&mut cluster.slices, |slice| {
        if slice.service.name != "also-b" {
            return;
        }
        let first = slice.endpoints[0].clone();
        let family = usize::from(first.address.is_ipv6());
        let named = |name: &&str| pods.values().find(|pod| pod.name.name == **name);
        slice.endpoints = endpoints
            .iter()
            .map(|name| {
                let mut endpoint = first.clone();
                endpoint.address = named(name).expect("pod").ips[family];
                endpoint
            })
            .collect();
    });
    cluster
}

#[test]
fn each_gets_its_answers() {
    let services = [(SERVICE_B, ALSO_B), ("fd96::11", "fd96::14")];
    let pods = [POD_A, "fd00:1::1"];
    for (pod, (first, second)) in pods.into_iter().zip(services) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let node = Node::new(vec![]);
            let packet = |service, flags| match protocol {
                Protocol::Tcp => tcp_packet((pod, 4000), (service, 80), flags),
                _ => udp_packet((pod, 4000), (service, 80)),
            };
            for flags in [tcp::SYN, tcp::ACK, tcp::ACK] {
                for service in [first, second] {
                    let asked = packet(service, flags);
                    let (reason, sent) = node.leave(A, &asked);
                    assert!(!reason.is_drop(), "{service} {protocol}: {reason:?}");
                    assert!(!node.enter(B, A, &sent).0.is_drop());
                    let (reason, back) = node.leave(B, &answer(&sent).expect("answer"));
                    assert_eq!(reason, Reason::Reply);
                    let (reason, back) = node.enter(A, B, &back);
                    assert_eq!(reason, Reason::Reply);
                    assert_eq!(back, answer(&asked).expect("answer"), "{service}");
                }
            }
            // What is listed bears the client's own port.
            let flows: Vec<_> = node.simulator.flows().into_iter().collect();
            let rows = weir::admin::flow_rows(&flows);
            assert_eq!(rows.len(), 2);
            assert!(rows.iter().all(|row| row.source_port == 4000), "{rows:?}");
        }
    }
}

#[test]
fn the_second_has_another_port_as_long_as_it_lives() {
    let mut node = Node::new(vec![]);
    let open = |node: &Node, service| {
        let (_, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (service, 80), tcp::SYN));
        ends(&sent)[0].1
    };
    assert_eq!(open(&node, SERVICE_B), 4000);
    assert_eq!(open(&node, ALSO_B), STAND_IN);
    // The client has that port itself, too.
    let own = |flags| tcp_packet((POD_A, STAND_IN), (ALSO_B, 80), flags);
    let (_, sent) = node.leave(A, &own(tcp::SYN));
    assert_eq!(ends(&sent)[0].1, STAND_IN + 1);
    node.leave(A, &own(tcp::RST));
    // The first is over; the second goes on as before, and a new one needs no other port.
    node.leave(A, &tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::RST));
    let (reason, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (ALSO_B, 80), tcp::ACK));
    assert_eq!((reason, ends(&sent)[0].1), (Reason::Established, STAND_IN));
    node.leave(A, &tcp_packet((POD_A, 4000), (ALSO_B, 80), tcp::RST));
    node.clock += 200 * SECOND;
    assert_eq!(open(&node, ALSO_B), 4000);
}

#[test]
fn a_port_that_stood_in_is_given_to_the_next_alone() {
    let node = Node::new(vec![]);
    let second = |flags| tcp_packet((POD_A, 4000), (ALSO_B, 80), flags);
    node.leave(A, &tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN));
    node.leave(A, &second(tcp::SYN));
    node.leave(A, &second(tcp::RST));
    // Its port at the backend is free, and taken by who has it himself.
    let own = tcp_packet((POD_A, STAND_IN), (ALSO_B, 80), tcp::SYN);
    assert_eq!(ends(&node.leave(A, &own).1)[0].1, STAND_IN);
    let (_, sent) = node.leave(A, &second(tcp::ACK));
    assert_ne!(ends(&sent)[0].1, STAND_IN);
}

/// Its tuple at the backend was evicted meanwhile, and went to the client's connection to the other Service.
#[test]
fn a_connection_whose_place_was_taken_gets_another_one() {
    let node = Node::new(vec![]);
    let packet = |service, flags| tcp_packet((POD_A, 4000), (service, 80), flags);
    node.leave(A, &packet(SERVICE_B, tcp::SYN));
    node.simulator
        .forget_flow(|flow| flow.flags & BACKEND_SIDE != 0);
    for (service, flags, port) in [
        (ALSO_B, tcp::SYN, 4000),
        (SERVICE_B, tcp::ACK, STAND_IN),
        (ALSO_B, tcp::ACK, 4000),
    ] {
        let (reason, sent) = node.leave(A, &packet(service, flags));
        assert!(!reason.is_drop(), "{service}: {reason:?}");
        assert_eq!(ends(&sent)[0].1, port, "{service}");
    }
}

/// The packet leaves pod a as chance says.
fn leave_by(node: &Node, random: u32, packet: &[u8]) -> (Reason, Vec<u8>) {
    let step = Step {
        hook: Hook::FromPod,
        ifindex: A,
        ingress_ifindex: A,
        clock: node.clock,
        random,
    };
    let (_, reason, sent) = node.simulator.run(step, packet);
    (Reason::from_u8(reason).expect("reason"), sent)
}

#[test]
fn ports_that_stand_in_are_those_that_the_kernel_gives_to_nobody() {
    let syn = |port, service| tcp_packet((POD_A, port), (service, 80), tcp::SYN);
    for (random, taken, expected) in [
        (0, &[][..], 61_000),
        (0, &[61_000, 61_001, 61_002], 61_003),
        (u32::MAX, &[], 65_535),
        (u32::MAX, &[65_535], 61_000),
    ] {
        let node = Node::new(vec![]);
        node.leave(A, &syn(4000, SERVICE_B));
        for own in taken {
            node.leave(A, &syn(*own, ALSO_B));
        }
        let (_, sent) = leave_by(&node, random, &syn(4000, ALSO_B));
        assert_eq!(ends(&sent)[0].1, expected, "{random} {taken:?}");
    }
    // Four are tried.
    let node = Node::new(vec![]);
    node.leave(A, &syn(4000, SERVICE_B));
    for own in STAND_IN..STAND_IN + 4 {
        node.leave(A, &syn(own, ALSO_B));
    }
    let (reason, _) = leave_by(&node, 0, &syn(4000, ALSO_B));
    assert_eq!(reason, Reason::TupleClash);
}

/// The same with endpoints that no other Service port has.
fn also_at(endpoints: &[IpAddr]) -> Snapshot {
    let mut cluster = also(&["b"]);
    edit(&mut cluster.slices, |slice| {
        if slice.name.name == "also-b-0" {
            let like = slice.endpoints[0].clone();
            let at = |address: &IpAddr| Endpoint {
                address: *address,
                ..like.clone()
            };
            slice.endpoints = endpoints.iter().map(at).collect();
            slice.ports.retain(|port| port.protocol == Protocol::Tcp);
        }
    });
    cluster
}

#[test]
fn behind_the_last_backend_the_first_is_tried() {
    let backends = [[10, 0, 9, 1], [10, 0, 9, 2]].map(IpAddr::from);
    let mut node = Node::new(vec![]);
    node.apply(&also_at(&backends));
    let to_service = |port, random| {
        let syn = tcp_packet((POD_A, port), (ALSO_B, 80), tcp::SYN);
        ends(&leave_by(&node, random, &syn).1)
    };
    let [first, last] =
        [(5000, 0), (5001, u32::MAX)].map(|(port, random)| to_service(port, random)[1]);
    // To the last one, without a Service.
    let direct = tcp_packet((POD_A, 4000), (&last.0.to_string(), last.1), tcp::SYN);
    node.leave(A, &direct);
    assert_eq!(to_service(4000, u32::MAX), [(address(POD_A), 4000), first]);
}

/// It would be served elsewhere, but not at once.
#[test]
fn when_four_backends_are_taken_another_port_stands_in() {
    let backends: Vec<IpAddr> = (1..=5).map(|it| [10, 0, 9, it].into()).collect();
    let mut node = Node::new(vec![]);
    node.apply(&also_at(&backends));
    for taken in &backends[..4] {
        let to = taken.to_string();
        node.leave(A, &tcp_packet((POD_A, 4000), (&to, 8080), tcp::SYN));
    }
    let syn = tcp_packet((POD_A, 4000), (ALSO_B, 80), tcp::SYN);
    let (_, sent) = node.leave(A, &syn);
    assert_eq!(
        ends(&sent),
        [(address(POD_A), STAND_IN), (backends[3], 8080)]
    );
}

#[test]
fn errors_speak_of_the_port_that_their_reader_knows() {
    let node = Node::new(vec![]);
    node.leave(A, &udp_packet((POD_A, 4000), (SERVICE_B, 80)));
    let (_, sent) = node.leave(A, &udp_packet((POD_A, 4000), (ALSO_B, 80)));
    node.enter(B, A, &sent);
    // A router on the way, to the client.
    let about_sent = error("172.30.0.9", POD_A, &sent);
    let (reason, read) = node.enter(A, UPLINK, &about_sent);
    assert_eq!(reason, Reason::Related);
    assert_eq!(
        quoted(&read),
        [(address(POD_A), 4000), (address(ALSO_B), 80)]
    );
    // The client, to its backend.
    let (_, back) = node.leave(B, &answer(&sent).expect("answer"));
    let (_, back) = node.enter(A, B, &back);
    let (reason, read) = node.leave(A, &error(POD_A, ALSO_B, &back));
    assert_eq!(reason, Reason::Related);
    assert_eq!(
        quoted(&read),
        [(address(POD_B), 8080), (address(POD_A), STAND_IN)]
    );
}

#[test]
fn a_pod_that_is_its_own_backend_may_do_it_too() {
    let mut node = Node::new(vec![]);
    node.apply(&also(&["a"]));
    let stand_in = IpAddr::from(HAIRPIN_V4);
    for (service, port) in [(SERVICE_SELF, 4000), (ALSO_B, STAND_IN)] {
        let asked = tcp_packet((POD_A, 4000), (service, 80), tcp::SYN);
        let (reason, turned) = node.leave(A, &asked);
        assert_eq!(reason, Reason::Hairpin);
        assert_eq!(ends(&turned)[0], (stand_in, port));
        let (reason, back) = node.leave(A, &answer(&turned).expect("answer"));
        assert_eq!(reason, Reason::Hairpin);
        assert_eq!(
            ends(&back),
            [(address(service), 80), (address(POD_A), 4000)]
        );
    }
}

#[test]
fn a_client_that_is_to_keep_its_backend_keeps_it() {
    let mut cluster = also(&["b", "c"]);
    edit(&mut cluster.services, |service| {
        if service.name.name == "also-b" {
            service.affinity_seconds = Some(60);
        }
    });
    let mut node = Node::new(vec![]);
    node.apply(&cluster);
    for (port, service, seen) in [
        (5000, ALSO_B, 5000),
        (4000, SERVICE_B, 4000),
        (4000, ALSO_B, STAND_IN),
    ] {
        let (_, sent) = node.leave(A, &tcp_packet((POD_A, port), (service, 80), tcp::SYN));
        assert_eq!(
            ends(&sent),
            [(address(POD_A), seen), (address(POD_B), 8080)],
            "{service} from {port}"
        );
    }
}

#[test]
fn where_another_backend_is_free_no_port_changes() {
    let mut node = Node::new(vec![]);
    node.apply(&also(&["b", "c"]));
    for (service, backend) in [(SERVICE_B, POD_B), (ALSO_B, REMOTE)] {
        let (_, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (service, 80), tcp::SYN));
        assert_eq!(
            ends(&sent),
            [(address(POD_A), 4000), (address(backend), 8080)]
        );
    }
}

/// Where its port cannot be another, a client is better served elsewhere than not at all.
#[test]
fn a_client_outside_leaves_its_backend_for_one_that_is_free() {
    let mut cluster = also(&["b", "c"]);
    let mut external = address("192.0.2.18");
    edit(&mut cluster.services, |service| {
        if matches!(service.name.name.as_str(), "b" | "also-b") {
            service.affinity_seconds = Some(60);
            service.external_ips = vec![external];
            external = address("192.0.2.19");
        }
    });
    let mut node = outside(vec![]);
    node.apply(&cluster);
    let mut seen = vec![];
    for (port, service) in [
        (5000, "192.0.2.18"),
        (4000, "192.0.2.19"),
        (4000, "192.0.2.18"),
    ] {
        let (reason, sent) = arrive(
            &node,
            UPLINK,
            &tcp_packet((CLIENT, port), (service, 80), tcp::SYN),
        );
        assert!(!reason.is_drop(), "{service} from {port}: {reason:?}");
        seen.push(ends(&sent)[1].0);
    }
    assert_eq!(seen, [address(POD_B), address(POD_B), address(REMOTE)]);
}

#[test]
fn sctp_has_a_right_checksum_with_a_port_that_stands_in() {
    let mut node = Node::new(vec![]);
    node.apply(&over_sctp(snapshot([A, B], vec![])));
    let packet = |source, destination| sctp_packet((POD_A, source), destination, 4).bytes();
    let (_, sent) = node.leave(A, &packet(4000, (SERVICE_B, 80)));
    assert_eq!(sent, packet(4000, (POD_B, 8080)));
    let (reason, sent) = node.leave(A, &packet(4000, (ALSO_B, 80)));
    assert!(!reason.is_drop(), "{reason:?}");
    let (_, port) = ends(&sent)[0];
    assert!(port >= STAND_IN, "{port}");
    assert_eq!(sent, packet(port, (POD_B, 8080)));
}

/// "Port unreachable" about a packet.
fn error(from: &str, to: &str, about: &[u8]) -> Vec<u8> {
    let content = Content::Icmp {
        kind: 3,
        code: 3,
        rest: 0,
        payload: about[14..42].to_vec(),
    };
    Packet::new(address(from), address(to), content).bytes()
}

/// Ends of the packet that an error is about.
fn quoted(error: &[u8]) -> [(IpAddr, u16); 2] {
    // Behind the IPv4 header of the error and its own header; the Ethernet header does not matter.
    ends(&error[28..])
}
