//! Ways around a policy that are closed, each as somebody might try it.

use std::net::IpAddr;

use weir::plan::{Plan, Step as PlanStep};
use weir_common::abi::{Hook, control};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, policy, snapshot, to};
use weir_tests::packets::{Content, Packet, answer, tcp};
use weir_tests::simulator::Step;

use crate::node::{
    A, B, NODE, Node, POD_A, POD_B, REMOTE, SECOND, SERVICE_B, UPLINK, allow_egress_to_b, deny_all,
    tcp_packet, udp_packet,
};

#[test]
fn a_connection_that_was_cut_stays_cut_whatever_its_ends_send() {
    let data = tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::ACK);
    let back = tcp_packet((POD_B, 8080), (POD_A, 4000), tcp::ACK);
    for cut in [
        policy("b", "b", Some(vec![]), None),
        policy("a", "a", None, Some(vec![])),
    ] {
        let mut node = Node::new(vec![]);
        let syn = tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::SYN);
        node.enter(B, A, &node.leave(A, &syn).1);
        node.enter(A, B, &node.leave(B, &answer(&syn).expect("answer")).1);
        node.enforce(vec![cut.clone()]);
        for _ in 0..3 {
            let there = [node.leave(A, &data).0, node.enter(B, A, &data).0];
            assert!(there.contains(&Reason::PolicyDenied), "{cut:?}: {there:?}");
            let here = [node.leave(B, &back).0, node.enter(A, B, &back).0];
            assert!(here.contains(&Reason::PolicyDenied), "{cut:?}: {here:?}");
        }
    }
}

/// Who has the node's address, and nothing else of it, finds out no second time either.
#[test]
fn what_the_node_may_say_nobody_says_for_it() {
    let node = Node::new(vec![deny_all("a")]);
    let packet = |flags| tcp_packet((NODE, 4000), (POD_A, 8080), flags);
    assert_eq!(node.enter(A, 0, &packet(tcp::SYN)).0, Reason::Node);
    for _ in 0..3 {
        let forged = node.enter(A, B, &packet(tcp::ACK));
        assert_eq!(forged.0, Reason::PolicyDenied);
    }
    assert_eq!(node.enter(A, 0, &packet(tcp::ACK)).0, Reason::Node);
    assert_eq!(node.enter(A, 0, &packet(tcp::ACK)).0, Reason::Established);
}

#[test]
fn a_tag_within_a_tag_hides_no_packet() {
    let node = Node::new(vec![deny_all("a"), deny_all("b")]);
    let plain = udp_packet((POD_A, 4000), (POD_B, 53));
    for kind in [0x8100_u16, 0x88a8, 0x9100] {
        let tag = [&kind.to_be_bytes()[..], &[0, 0]].concat();
        let tagged = [&plain[..12], &tag, &plain[12..]].concat();
        assert_eq!(node.leave(A, &tagged).0, Reason::BadHeader);
        assert_eq!(node.enter(B, A, &tagged).0, Reason::BadHeader);
    }
}

/// An ICMP error from `from` to `to` about a UDP datagram from `quoted.0` to `quoted.1`.
fn error(from: &str, to: &str, quoted: ((&str, u16), (&str, u16))) -> Vec<u8> {
    let content = Content::Icmp {
        kind: 3,
        code: 3,
        rest: 0,
        payload: udp_packet(quoted.0, quoted.1)[14..42].to_vec(),
    };
    Packet::new(address(from), address(to), content).bytes()
}

#[test]
fn errors_go_where_the_flow_goes_and_nowhere_else() {
    let names = [to("c", &[])];
    let mut node = Node::new(vec![policy("a", "a", None, Some(names.to_vec()))]);
    assert_eq!(
        node.leave(A, &udp_packet((POD_A, 4000), (REMOTE, 53))).0,
        Reason::PolicyAllowed
    );
    let received = ((REMOTE, 53), (POD_A, 4000));
    assert_eq!(
        node.leave(A, &error(POD_A, REMOTE, received)).0,
        Reason::Related
    );
    assert_eq!(
        node.leave(A, &error(POD_A, "10.0.2.9", received)).0,
        Reason::PolicyDenied
    );
    assert_eq!(
        node.leave(A, &error(POD_B, REMOTE, received)).0,
        Reason::SpoofedSource
    );
    // Nor on the approval of a flow that has been cut.
    node.enforce(vec![deny_all("a")]);
    assert_eq!(
        node.leave(A, &error(POD_A, REMOTE, received)).0,
        Reason::PolicyDenied
    );
    assert_eq!(
        node.enter(
            A,
            UPLINK,
            &error(REMOTE, POD_A, ((POD_A, 4000), (REMOTE, 53)))
        )
        .0,
        Reason::PolicyDenied
    );
}

#[test]
fn a_finished_service_connection_is_in_nobodys_way() {
    let mut node = Node::new(vec![allow_egress_to_b()]);
    let syn = tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN);
    let (_, sent) = node.leave(A, &syn);
    let direct = tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::SYN);
    // Alive, it would get the answers.
    assert_eq!(node.leave(A, &direct).0, Reason::TupleClash);
    node.enter(B, A, &sent);
    let reset = tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::RST);
    node.leave(A, &reset);
    assert_eq!(node.leave(A, &direct).0, Reason::PolicyAllowed);

    node.leave(A, &udp_packet((POD_A, 4000), (SERVICE_B, 80)));
    let direct = udp_packet((POD_A, 4000), (POD_B, 8080));
    assert_eq!(node.leave(A, &direct).0, Reason::TupleClash);
    node.clock += 200 * SECOND;
    assert_eq!(node.leave(A, &direct).0, Reason::PolicyAllowed);
}

#[test]
fn nobody_speaks_for_a_pod_that_has_not_been_found_yet() {
    let mut node = Node::new(vec![]);
    let mut cluster = snapshot([A, B], vec![]);
    cluster.devices.devices.remove(&address(POD_B));
    node.apply(&cluster);
    let stolen = udp_packet((POD_B, 4000), (REMOTE, 53));
    assert_eq!(node.leave(A, &stolen).0, Reason::SpoofedSource);
    // Its own device is not known as another pod's.
    assert_eq!(node.leave(B, &stolen).0, Reason::NotIsolated);
}

#[test]
fn one_pods_fragments_say_nothing_of_anothers() {
    let node = Node::new(vec![allow_egress_to_b()]);
    let part = |source: &str, port, offset, more| {
        let content = Content::Udp {
            source: port,
            destination: 8080,
            payload: 64,
            checksum: true,
        };
        let mut packet = Packet::new(address(source), address(POD_B), content);
        packet.fragment = Some((7, offset, more));
        packet.bytes()
    };
    // B pretends to be A: its first fragment is refused, and must not stand for that of A.
    assert_eq!(
        node.leave(B, &part(POD_A, 9, 0, true)).0,
        Reason::SpoofedSource
    );
    assert_eq!(
        node.leave(A, &part(POD_A, 4000, 9, false)).0,
        Reason::UnknownFragment
    );
}

#[test]
fn fragments_of_ipv6_are_of_one_datagram_whatever_header_comes_next() {
    let node = Node::new(vec![]);
    let part = |next: u8, offset, more| {
        let content = Content::Udp {
            source: 4000,
            destination: 53,
            payload: 64,
            checksum: true,
        };
        let mut packet = Packet::new(address("fd00:1::1"), address("fd00:2::1"), content);
        packet.fragment = Some((7, offset, more));
        let mut bytes = packet.bytes();
        // The fragment header's next header.
        bytes[14 + 40] = next;
        bytes
    };
    assert_eq!(node.leave(A, &part(17, 0, true)).0, Reason::NotIsolated);
    assert_eq!(node.leave(A, &part(60, 9, false)).0, Reason::Established);
}

#[test]
fn a_second_fragment_does_not_overwrite_the_flags_of_the_first() {
    let node = Node::new(vec![]);
    let (source, destination) = (4000, 8080);
    let (flags, payload, checksum) = (tcp::ACK, 64, true);
    let tcp = Content::Tcp {
        source,
        destination,
        flags,
        payload,
    };
    let udp = Content::Udp {
        source,
        destination,
        payload,
        checksum,
    };
    // RFC 1858 section 3: of other protocols the first eight bytes are all that is judged.
    for (content, second) in [(tcp, Reason::BadHeader), (udp, Reason::Established)] {
        let mut packet = Packet::new(address(POD_A), address(POD_B), content);
        packet.fragment = Some((7, 0, true));
        assert_eq!(node.leave(A, &packet.bytes()).0, Reason::NotIsolated);
        packet.fragment = Some((7, 1, false));
        assert_eq!(node.leave(A, &packet.bytes()).0, second);
    }
}

#[test]
fn bytes_behind_the_end_of_a_packet_are_none_of_its_headers() {
    let node = Node::new(vec![]);
    let run = |frame: &[u8]| {
        let (hook, ifindex) = (Hook::FromPod, A);
        let (ingress_ifindex, clock, random) = (A, 1000, 0);
        let step = Step {
            hook,
            ifindex,
            ingress_ifindex,
            clock,
            random,
        };
        node.simulator.run(step, frame).1
    };
    let (source, destination) = (4000, 8080);
    let tcp = Content::Tcp {
        source,
        destination,
        flags: tcp::SYN,
        payload: 8,
    };
    let udp = Content::Udp {
        source,
        destination,
        payload: 8,
        checksum: true,
    };
    let sctp = Content::Sctp {
        source,
        destination,
        payload: 8,
    };
    let ping = |kind| Content::Icmp {
        kind,
        code: 0,
        rest: 1,
        payload: vec![0; 8],
    };
    for ((from, to), echo) in [((POD_A, POD_B), 8), (("fd00:1::1", "fd00:1::2"), 128)] {
        for (content, header) in [(&tcp, 20), (&udp, 8), (&sctp, 8), (&ping(echo), 8)] {
            for fragment in [None, Some((7, 0, true))] {
                let mut packet = Packet::new(address(from), address(to), content.clone());
                packet.fragment = fragment;
                let mut frame = packet.bytes();
                let v6 = from.contains(':');
                // Where the IP header tells its length, and what of that comes before the transport header.
                let (at, before) = match (v6, fragment) {
                    (false, _) => (16, 20),
                    (true, None) => (18, 0),
                    (true, Some(_)) => (18, 8),
                };
                for (length, reason) in [
                    (header, Reason::NotIsolated),
                    (header - 1, Reason::Truncated),
                    (0, Reason::Truncated),
                ] {
                    let length: u16 = before + length;
                    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
                    node.simulator.forget_flows();
                    assert_eq!(run(&frame), reason as u8, "{from}: {length} of {packet:?}");
                }
            }
        }
    }
}

#[test]
fn neighbour_discovery_is_what_has_not_been_forwarded() {
    let node = Node::new(vec![deny_all("a")]);
    let message = |kind, hops| {
        let content = Content::Icmp {
            kind,
            code: 0,
            rest: 0,
            payload: vec![0; 16],
        };
        let destination: IpAddr = address("fd00:2::1");
        let mut packet = Packet::new(address("fd00:1::1"), destination, content);
        packet.hops = hops;
        packet.bytes()
    };
    for (kind, own) in [(133, 255), (135, 255), (136, 255), (130, 1), (143, 1)] {
        assert_eq!(node.leave(A, &message(kind, own)).0, Reason::Neighbor);
        assert_eq!(node.leave(A, &message(kind, 64)).0, Reason::PolicyDenied);
    }
}

#[test]
fn a_pod_that_may_send_for_others_answers_for_them() {
    let outside = "10.99.0.1";
    let mut node = Node::new(vec![deny_all("b"), allow_egress_to_b()]);
    let from = |source, port| udp_packet((source, 4000), (POD_B, port));
    assert_eq!(node.leave(A, &from(outside, 8080)).0, Reason::SpoofedSource);
    let (index, value) = (control::FOREIGN_SOURCES, 1);
    let steps = vec![PlanStep::Control { index, value }];
    node.simulator
        .maps
        .execute(&Plan { steps })
        .expect("execute");
    // As the pod itself is judged; whose address it uses makes no difference.
    for source in [outside, POD_B, REMOTE] {
        let to = |port| match source {
            POD_B => udp_packet((source, 4000), (REMOTE, port)),
            _ => from(source, port),
        };
        let allowed = if source == POD_B {
            Reason::PolicyDenied
        } else {
            Reason::PolicyAllowed
        };
        assert_eq!(node.leave(A, &to(8080)).0, allowed, "{source}");
        assert_eq!(node.leave(A, &to(8081)).0, Reason::PolicyDenied, "{source}");
    }
    // The peer judges the address that it sees, and answers find the pod behind its device.
    node.enforce(vec![allow_egress_to_b()]);
    let (_, sent) = node.leave(A, &from(outside, 8080));
    assert_eq!(node.enter(B, A, &sent).0, Reason::NotIsolated);
    let (_, back) = node.leave(B, &answer(&sent).expect("answer"));
    assert_eq!(node.enter(A, B, &back).0, Reason::Reply);
    // A device without a pod has nobody to answer.
    assert_eq!(
        node.leave(UPLINK, &from(outside, 8080)).0,
        Reason::SpoofedSource
    );
}
