//! What the node answers in the name of a Service that leads nowhere, byte by byte.

use weir::plan::{Plan, Step, Table};
use weir_common::abi::{Frontend, FrontendKey, Hook, Verdict};
use weir_common::logic::protocol;
use weir_common::reason::Reason;
use weir_tests::fixture::address;
use weir_tests::packets::{Content, Packet, tcp};
use zerocopy::IntoBytes;

use super::node::{A, Node, POD_A, SERVICE_B, SERVICE_NONE};

/// A pod and a Service without endpoints.
const FAMILIES: [(&str, &str); 2] = [(POD_A, SERVICE_NONE), ("fd00:1::1", "fd96::13")];

fn ask(packet: &Packet) -> (Verdict, Reason, Vec<u8>) {
    Node::new(vec![]).run(Hook::FromPod, A, A, &packet.bytes())
}

/// The frame that goes back to who sent another, and is not to be fragmented; without its IPv4 header's checksum.
fn returned(packet: &Packet) -> Vec<u8> {
    let mut frame = packet.bytes();
    let (to, from) = frame.split_at_mut(6);
    to.swap_with_slice(&mut from[..6]);
    if packet.source.is_ipv4() {
        frame[20] |= 0x40;
        frame[24..26].fill(0);
    }
    frame
}

/// The same of what was answered, whose checksums have been looked at.
fn without_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12] == 0x08 {
        frame[24..26].fill(0);
    }
    frame
}

/// RFC 9293 section 3.10.7.1. The packets of `weir_tests` have sequence number 7 and acknowledge 9.
#[test]
fn a_reset_fits_what_it_answers() {
    for (pod, service) in FAMILIES {
        let transport = if pod.contains(':') { 54 } else { 34 };
        for (flags, payload, [sequence, acknowledged], answered) in [
            (tcp::SYN, 0, [0, 8], tcp::RST | tcp::ACK),
            (tcp::SYN, 5, [0, 13], tcp::RST | tcp::ACK),
            (tcp::FIN, 5, [0, 13], tcp::RST | tcp::ACK),
            (tcp::SYN | tcp::FIN, 5, [0, 14], tcp::RST | tcp::ACK),
            (0, 5, [0, 12], tcp::RST | tcp::ACK),
            (tcp::ACK, 5, [9, 0], tcp::RST),
            (tcp::ACK | tcp::FIN, 0, [9, 0], tcp::RST),
        ] {
            let content = |source, destination, flags, payload| Content::Tcp {
                source,
                destination,
                flags,
                payload,
            };
            let (from, to) = (address(pod), address(service));
            let asked = Packet::new(from, to, content(4000, 80, flags, payload));
            let (verdict, reason, mut reset) = ask(&asked);
            assert_eq!((verdict, reason), (Verdict::Return, Reason::NoEndpoint));
            let mut expected = returned(&Packet::new(to, from, content(80, 4000, answered, 0)));
            let header = &mut expected[transport..];
            header[4..8].copy_from_slice(&u32::to_be_bytes(sequence));
            header[8..12].copy_from_slice(&u32::to_be_bytes(acknowledged));
            // No window; the checksum has been looked at.
            header[14..18].fill(0);
            reset[transport + 16..][..2].fill(0);
            assert_eq!(without_checksum(reset), expected, "{flags} {payload}");
        }
    }
}

#[test]
fn an_error_quotes_what_it_answers() {
    for ((pod, service), options, quoted) in [
        (FAMILIES[0], 0, Some(28)),
        (FAMILIES[0], 40, Some(68)),
        (FAMILIES[1], 0, Some(48)),
        // As much as can be summed, and more.
        (FAMILIES[1], 80, Some(128)),
        (FAMILIES[1], 88, None),
    ] {
        let content = Content::Udp {
            source: 4000,
            destination: 80,
            payload: 100,
            checksum: true,
        };
        let (from, to) = (address(pod), address(service));
        let mut asked = Packet::new(from, to, content);
        asked.options = options;
        let (verdict, reason, error) = ask(&asked);
        assert_eq!(reason, Reason::NoEndpoint);
        let Some(quoted) = quoted else {
            assert_eq!(verdict, Verdict::Drop, "{options} bytes of options");
            continue;
        };
        assert_eq!(verdict, Verdict::Return, "{options} bytes of options");
        let (kind, code) = if to.is_ipv4() { (3, 3) } else { (1, 4) };
        let content = Content::Icmp {
            kind,
            code,
            rest: 0,
            payload: asked.bytes()[14..14 + quoted].to_vec(),
        };
        let expected = returned(&Packet::new(to, from, content));
        assert_eq!(without_checksum(error), expected, "{options}");
    }
}

/// RFC 1122 section 3.2.2: of a datagram in pieces only the first is answered.
#[test]
fn later_fragments_are_not_answered() {
    for (pod, service) in FAMILIES {
        let node = Node::new(vec![]);
        for (offset, expected) in [(0, Verdict::Return), (9, Verdict::Drop)] {
            let content = Content::Udp {
                source: 4000,
                destination: 80,
                payload: 64,
                checksum: true,
            };
            let mut packet = Packet::new(address(pod), address(service), content);
            packet.fragment = Some((7, offset, offset == 0));
            let (verdict, reason, _) = node.run(Hook::FromPod, A, A, &packet.bytes());
            assert_eq!(
                (verdict, reason),
                (expected, Reason::NoEndpoint),
                "{offset}"
            );
        }
    }
}

#[test]
fn a_service_whose_endpoints_are_not_in_the_maps_is_an_internal_error() {
    let mut node = Node::new(vec![]);
    let key = FrontendKey {
        address: address(SERVICE_B).into(),
        port: 80,
        protocol: protocol::TCP,
        reserved: 0,
    };
    let broken = Frontend {
        internal_base: u32::MAX - 1,
        internal_count: 1,
        ..Frontend::default()
    };
    let write = Step::Write {
        table: Table::Frontend,
        key: key.as_bytes().into(),
        value: broken.as_bytes().into(),
    };
    let plan = Plan { steps: vec![write] };
    node.simulator.maps.execute(&plan).expect("an element");
    let syn = super::node::tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN);
    let (verdict, reason, _) = node.run(Hook::FromPod, A, A, &syn);
    assert_eq!((verdict, reason), (Verdict::Drop, Reason::Internal));
}
