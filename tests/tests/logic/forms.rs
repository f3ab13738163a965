//! Forms that packets to Services may have.

use weir::model::Protocol;
use weir_common::abi::{Hook, Verdict};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, snapshot};
use weir_tests::packets::{Content, Packet};

use super::node::{
    A, B, Node, POD_A, POD_B, SECOND, SERVICE_B, SERVICE_NONE, allow_egress_to_b, deny_all,
    over_sctp, sctp_packet, tcp_packet, udp_packet,
};

const TCP: Content = Content::Tcp {
    source: 4000,
    destination: 80,
    flags: weir_tests::packets::tcp::SYN,
    payload: 8,
};

/// Ports are found behind them, by Services and policies.
#[test]
fn options_and_extension_headers_change_nothing() {
    for (from, to, backend, lengths) in [
        (POD_A, SERVICE_B, POD_B, [0, 4, 40]),
        ("fd00:1::1", "fd96::11", "fd00:1::2", [0, 8, 64]),
    ] {
        for options in lengths {
            for (policy, expected) in [
                (allow_egress_to_b(), Reason::PolicyAllowed),
                (deny_all("a"), Reason::PolicyDenied),
            ] {
                let node = Node::new(vec![policy]);
                let packet = |to, destination| {
                    let content = match TCP {
                        Content::Tcp {
                            source,
                            flags,
                            payload,
                            ..
                        } => Content::Tcp {
                            source,
                            destination,
                            flags,
                            payload,
                        },
                        other => other,
                    };
                    let mut packet = Packet::new(address(from), address(to), content);
                    packet.options = options;
                    packet.bytes()
                };
                let (reason, sent) = node.leave(A, &packet(to, 80));
                assert_eq!(reason, expected, "{options} bytes to {to}");
                if !reason.is_drop() {
                    assert_eq!(sent, packet(backend, 8080), "{options} bytes to {to}");
                }
            }
        }
    }
}

/// A Service answers no ping, and none leaves the node.
#[test]
fn pings_of_services_end_here() {
    let node = Node::new(vec![]);
    for (from, to, kind) in [(POD_A, SERVICE_B, 8), ("fd00:1::1", "fd96::11", 128)] {
        let content = Content::Icmp {
            kind,
            code: 0,
            rest: 1,
            payload: vec![],
        };
        let ping = Packet::new(address(from), address(to), content).bytes();
        let (verdict, reason, _) = node.run(Hook::FromPod, A, A, &ping);
        assert_eq!((verdict, reason), (Verdict::Drop, Reason::NoServicePort));
    }
}

/// "No checksum" (RFC 768) is not made into a wrong one.
#[test]
fn datagrams_without_checksum_stay_so() {
    let node = Node::new(vec![]);
    let datagram = |to, destination| {
        let content = Content::Udp {
            source: 4000,
            destination,
            payload: 16,
            checksum: false,
        };
        Packet::new(address(POD_A), address(to), content).bytes()
    };
    let (_, sent) = node.leave(A, &datagram(SERVICE_B, 80));
    assert_eq!(sent, datagram(POD_B, 8080));
}

/// SCTP's checksum covers the ports, but no address (RFC 9260 section 6.8).
#[test]
fn sctp_has_a_right_checksum_behind_other_ports() {
    let mut node = Node::new(vec![]);
    node.apply(&over_sctp(snapshot([A, B], vec![])));
    for (from, service, to) in [
        (POD_A, SERVICE_B, POD_B),
        ("fd00:1::1", "fd96::11", "fd00:1::2"),
    ] {
        for payload in [0, 4, 17, 1400] {
            let packet = |source, destination| sctp_packet(source, destination, payload).bytes();
            let (reason, sent) = node.leave(A, &packet((from, 4000), (service, 80)));
            assert!(!reason.is_drop(), "{service}: {reason:?}");
            assert_eq!(sent, packet((from, 4000), (to, 8080)));
            let (reason, answered) = node.enter(A, B, &packet((to, 8080), (from, 4000)));
            assert!(!reason.is_drop(), "{service}: {reason:?}");
            assert_eq!(answered, packet((service, 80), (from, 4000)));
        }
    }
}

#[test]
fn sctp_without_a_checksum_yet_is_left_without() {
    let mut node = Node::new(vec![]);
    node.apply(&over_sctp(snapshot([A, B], vec![])));
    let packet = |to| {
        let mut bytes = sctp_packet((POD_A, 4000), to, 16).bytes();
        bytes[34 + 8..][..4].fill(0);
        bytes
    };
    let (_, sent) = node.leave(A, &packet((SERVICE_B, 80)));
    assert_eq!(sent, packet((POD_B, 8080)));
}

/// Its checksum is over all of it, and how much that is the first piece does not say.
#[test]
fn sctp_in_pieces_keeps_its_port_or_does_not_pass() {
    let mut node = Node::new(vec![]);
    node.apply(&over_sctp(snapshot([A, B], vec![])));
    let mut packet = sctp_packet((POD_A, 4000), (SERVICE_B, 80), 16);
    packet.fragment = Some((7, 0, true));
    assert_eq!(node.leave(A, &packet.bytes()).0, Reason::RewriteFailed);
}

#[test]
fn each_protocol_of_a_port_has_endpoints_of_its_own() {
    let mut cluster = snapshot([A, B], vec![]);
    edit(&mut cluster.slices, |slice| {
        if slice.service.name == "b" {
            slice.ports.retain(|port| port.protocol == Protocol::Tcp);
        }
    });
    edit(&mut cluster.services, |service| {
        if service.name.name == "also-b" {
            service.ports.retain(|port| port.protocol == Protocol::Tcp);
        }
    });
    let mut node = Node::new(vec![]);
    node.apply(&cluster);
    let syn = weir_tests::packets::tcp::SYN;
    for (service, refusal) in [
        (SERVICE_B, Reason::NoEndpoint),
        ("10.96.0.14", Reason::NoServicePort),
    ] {
        let tcp = node.leave(A, &tcp_packet((POD_A, 4000), (service, 80), syn));
        assert!(!tcp.0.is_drop(), "{service}: {:?}", tcp.0);
        let udp = node.leave(A, &udp_packet((POD_A, 4000), (service, 80)));
        assert_eq!(udp.0, refusal, "{service}");
    }
}

/// Who floods a Service without endpoints in another's name does not flood that other.
#[test]
fn so_many_errors_are_made_in_a_second_and_no_more() {
    let mut node = Node::new(vec![]);
    let asked = udp_packet((POD_A, 4000), (SERVICE_NONE, 80));
    let syn = tcp_packet(
        (POD_A, 4000),
        (SERVICE_NONE, 80),
        weir_tests::packets::tcp::SYN,
    );
    for _ in 0..2 {
        for _ in 0..1000 {
            let (verdict, reason, _) = node.run(Hook::FromPod, A, A, &asked);
            assert_eq!((verdict, reason), (Verdict::Return, Reason::NoEndpoint));
        }
        let (verdict, reason, _) = node.run(Hook::FromPod, A, A, &asked);
        assert_eq!((verdict, reason), (Verdict::Drop, Reason::NoEndpoint));
        // A reset is as small as what it answers.
        assert_eq!(node.run(Hook::FromPod, A, A, &syn).0, Verdict::Return);
        node.clock += SECOND;
    }
}
