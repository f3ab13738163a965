//! Frames that are cut short, that say of themselves what is not so, or whose headers come piece by piece.

use weir_common::abi::{Address, Hook};
use weir_common::logic::protocol;
use weir_common::reason::Reason;
use weir_tests::fixture::{address, snapshot};
use weir_tests::packets::{Content, Packet, tcp};
use weir_tests::simulator::Step;

use super::external::{CLIENT, outside};
use super::node::{
    A, B, Node, POD_A, POD_B, SERVICE_B, UPLINK, allow_egress_to_b, over_sctp, sctp_packet,
    tcp_packet, udp_packet,
};
use super::pings::{Echo, echo};

const PODS: [(&str, &str); 2] = [(POD_A, POD_B), ("fd00:1::1", "fd00:1::2")];
/// Where an IPv6 frame has its next header, its payload's length, and its payload.
const NEXT: usize = 20;
const PAYLOAD_LENGTH: usize = 18;
const PAYLOAD: usize = 54;

/// A frame leaves pod a, whatever its checksums.
fn leave(node: &Node, frame: &[u8]) -> Reason {
    let step = Step {
        hook: Hook::FromPod,
        ifindex: A,
        ingress_ifindex: A,
        clock: node.clock,
        random: 0,
    };
    let (_, reason, _) = node.simulator.run(step, frame);
    Reason::from_u8(reason).expect("reason")
}

fn udp(from: &str, to: &str) -> Vec<u8> {
    udp_packet((from, 4000), (to, 8080))
}

/// An IPv6 frame with headers between the IP header and what follows.
fn extended(frame: &[u8], headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut extensions = vec![];
    let last = frame[NEXT];
    for (index, (_, header)) in headers.iter().enumerate() {
        let next = headers.get(index + 1).map_or(last, |(number, _)| *number);
        extensions.push(next);
        extensions.extend(&header[1..]);
    }
    let mut frame = frame.to_vec();
    frame[NEXT] = headers.first().map_or(last, |(number, _)| *number);
    frame.splice(PAYLOAD..PAYLOAD, extensions);
    let length = (frame.len() - PAYLOAD) as u16;
    frame[PAYLOAD_LENGTH..][..2].copy_from_slice(&length.to_be_bytes());
    frame
}

/// An extension header of `length` bytes that tells its length as `told`.
fn header(length: usize, told: u8) -> Vec<u8> {
    let mut header = vec![0; length];
    header[1] = told;
    header
}

#[test]
fn headers_that_are_not_at_hand_are_asked_for() {
    let node = outside(vec![]);
    for (from, to) in PODS {
        for packet in [udp(from, to), echo(Echo::Request, from, to, 7)] {
            let expected = node.leave(A, &packet);
            for at_hand in 0..packet.len() {
                node.simulator.forget_flows();
                node.simulator.at_hand.set(at_hand);
                assert_eq!(node.leave(A, &packet), expected, "{at_hand} bytes");
            }
        }
    }
}

#[test]
fn what_is_too_short_for_its_headers_is_reported_without_those_of_another() {
    let node = Node::new(vec![]);
    for (from, to) in PODS {
        let whole = tcp_packet((from, 4000), (to, 8080), tcp::SYN);
        let network = if from.contains(':') { 54 } else { 34 };
        for length in 0..whole.len() {
            node.leave(A, &whole);
            node.simulator.take_events();
            assert_eq!(
                leave(&node, &whole[..length]),
                Reason::Truncated,
                "{length}"
            );
            let [event] = node.simulator.take_events()[..] else {
                panic!("one event");
            };
            assert_eq!(event.length as usize, length);
            if (14..network).contains(&length) {
                let nobody = [Address::default(); 2];
                assert_eq!([event.source, event.destination], nobody, "{length}");
                assert_eq!((event.source_port, event.protocol), (0, 0), "{length}");
            }
        }
    }
}

#[test]
fn headers_that_contradict_themselves_are_not_followed() {
    let node = Node::new(vec![]);
    let with = |frame: &[u8], at: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[at] = value;
        frame
    };
    let [v4, v6] = PODS.map(|(from, to)| udp(from, to));
    for frame in [
        // Another version than that of the Ethernet type, or a header shorter than any.
        with(&v4, 14, 0x65),
        with(&v4, 14, 0x44),
        with(&v4, 14, 0x40),
        with(&v6, 14, 0x40),
        with(&v6, 14, 0x50),
    ] {
        assert_eq!(leave(&node, &frame), Reason::BadHeader);
    }
    // Shorter than its own header, or longer than the frame.
    for total in [0, 19, (v4.len() - 13) as u8] {
        let frame = with(&v4, 17, total);
        assert_eq!(leave(&node, &frame), Reason::Truncated, "{total}");
    }
    let frame = with(&v6, PAYLOAD_LENGTH + 1, (v6.len() - PAYLOAD + 1) as u8);
    assert_eq!(leave(&node, &frame), Reason::Truncated);
}

/// What a device is to cut, or has joined, has no room for its length in its header.
#[test]
fn a_length_of_zero_is_that_of_a_frame_beyond_64_kib() {
    let node = Node::new(vec![]);
    for (from, to) in PODS {
        let content = Content::Tcp {
            source: 4000,
            destination: 8080,
            flags: tcp::ACK,
            payload: 60_000,
        };
        let mut frame = Packet::new(address(from), address(to), content).bytes();
        let (at, told) = match from.contains(':') {
            true => (PAYLOAD_LENGTH, 8_u16),
            false => (16, 28),
        };
        frame[at..at + 2].fill(0);
        assert_eq!(leave(&node, &frame), Reason::Truncated, "{from}");
        frame.resize(100_000, 0);
        assert_eq!(leave(&node, &frame), Reason::NotIsolated, "{from}");
        // One that tells a length has it.
        node.simulator.forget_flows();
        frame[at..at + 2].copy_from_slice(&told.to_be_bytes());
        assert_eq!(leave(&node, &frame), Reason::Truncated, "{from}");
    }
}

#[test]
fn so_many_extension_headers_are_followed_and_no_more() {
    let [_, (from, to)] = PODS;
    let packet = udp(from, to);
    let options = |bytes: usize| {
        let header = header(bytes, (bytes / 8 - 1) as u8);
        (protocol::DESTINATION, header)
    };
    let run = |headers: &[(u8, Vec<u8>)]| {
        let node = Node::new(vec![allow_egress_to_b()]);
        leave(&node, &extended(&packet, headers))
    };
    assert_eq!(run(&vec![options(8); 6]), Reason::PolicyAllowed);
    assert_eq!(run(&vec![options(8); 7]), Reason::BadHeader);
    // Nor further than this.
    assert_eq!(run(&[options(960)]), Reason::PolicyAllowed);
    assert_eq!(run(&[options(976)]), Reason::BadHeader);
    for (number, length, told) in [
        (protocol::HOP_BY_HOP, 16, 1),
        (protocol::ROUTING, 24, 2),
        // RFC 4302 section 2.2: in words of four bytes, minus two.
        (protocol::AUTHENTICATION, 24, 4),
        (protocol::AUTHENTICATION, 12, 1),
    ] {
        let reason = run(&[(number, header(length, told)), options(8)]);
        assert_eq!(reason, Reason::PolicyAllowed, "{number}: {length} bytes");
    }
}

#[test]
fn protocols_without_ports_need_no_bytes_of_their_own() {
    let node = Node::new(vec![]);
    for (from, to) in PODS {
        for payload in [0, 1] {
            let content = Content::Other {
                protocol: 47,
                payload,
            };
            let frame = Packet::new(address(from), address(to), content).bytes();
            assert!(!leave(&node, &frame).is_drop(), "{from}: {payload} bytes");
        }
    }
}

/// RFC 6946: a fragment header does not make a fragment.
#[test]
fn a_fragment_that_is_all_of_its_packet_is_treated_as_a_whole_one() {
    let mut node = Node::new(vec![]);
    node.apply(&over_sctp(snapshot([A, B], vec![])));
    let packet = |to| {
        let mut packet = sctp_packet(("fd00:1::1", 4000), to, 16);
        packet.fragment = Some((7, 0, false));
        packet.bytes()
    };
    let (reason, sent) = node.leave(A, &packet(("fd96::11", 80)));
    assert_eq!(
        (reason, sent),
        (Reason::NotIsolated, packet(("fd00:1::2", 8080)))
    );
}

/// They have no header that could be changed.
#[test]
fn of_later_fragments_only_addresses_are_translated() {
    let node = Node::new(vec![]);
    for (from, service, to) in [
        (POD_A, SERVICE_B, POD_B),
        ("fd00:1::1", "fd96::11", "fd00:1::2"),
    ] {
        let part = |to: &str, port, offset| {
            let content = Content::Udp {
                source: 4000,
                destination: port,
                payload: 64,
                checksum: true,
            };
            let mut packet = Packet::new(address(from), address(to), content);
            packet.fragment = Some((7, offset, offset == 0));
            packet.bytes()
        };
        let (_, first) = node.leave(A, &part(service, 80, 0));
        assert_eq!(first, part(to, 8080, 0));
        let (_, later) = node.leave(A, &part(service, 80, 9));
        assert_eq!(later, part(to, 8080, 9));
    }
}

#[test]
fn what_links_need_is_told_from_what_services_do_not() {
    let node = outside(vec![]);
    let mut arp = vec![0xff; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let content = Content::Icmp {
        kind: 135,
        code: 0,
        rest: 0,
        payload: vec![0; 16],
    };
    let mut solicitation = Packet::new(address("fe80::1"), address("ff02::1:ff00:1"), content);
    solicitation.hops = 255;
    // A piece that no device of the node has seen the first of.
    let mut piece = Packet::new(
        address(CLIENT),
        address("198.51.100.9"),
        Content::Other {
            protocol: 17,
            payload: 32,
        },
    );
    piece.fragment = Some((7, 9, false));
    for (frame, expected) in [
        (arp, Reason::NotIp),
        (solicitation.bytes(), Reason::Neighbor),
        (piece.bytes(), Reason::NotService),
    ] {
        for hook in [Hook::FromNet, Hook::ToNet] {
            let (_, reason, sent) = node.run(hook, UPLINK, UPLINK, &frame);
            assert_eq!((reason, &sent), (expected, &frame), "{hook:?}");
        }
    }
}
