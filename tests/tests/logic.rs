//! Packet decisions as behaviour, one scenario a test, on the simulator: no root, no kernel.

#[path = "logic/addresses.rs"]
mod addresses;
#[path = "logic/affinity.rs"]
mod affinity;
#[path = "logic/bypass.rs"]
mod bypass;
#[path = "logic/changes.rs"]
mod changes;
#[path = "logic/costs.rs"]
mod costs;
#[path = "logic/dry_runs.rs"]
mod dry_runs;
#[path = "logic/entries.rs"]
mod entries;
#[path = "logic/errors.rs"]
mod errors;
#[path = "logic/events.rs"]
mod events;
#[path = "logic/external.rs"]
mod external;
#[path = "logic/external_errors.rs"]
mod external_errors;
#[path = "logic/fast.rs"]
mod fast;
#[path = "logic/forms.rs"]
mod forms;
#[path = "logic/frames.rs"]
mod frames;
#[path = "logic/midway.rs"]
mod midway;
#[path = "logic/netfilter.rs"]
mod netfilter;
#[path = "logic/node.rs"]
mod node;
#[path = "logic/pings.rs"]
mod pings;
#[path = "logic/policies.rs"]
mod policies;
#[path = "logic/ports.rs"]
mod ports;
#[path = "logic/refusals.rs"]
mod refusals;
#[path = "logic/removed.rs"]
mod removed;
#[path = "logic/shared_port.rs"]
mod shared_port;

use std::net::IpAddr;

use proptest::prelude::*;
use weir::model::{Protocol, Rule};
use weir::plan::MemoryMaps;
use weir_common::abi::{Hook, Verdict};
use weir_common::logic::HAIRPIN_V4;
use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, policy, snapshot, to};
use weir_tests::packets::{Content, Packet, answer, tcp};
use weir_tests::simulator::{Simulator, Step};

use node::{
    A, B, NODE, Node, POD_A, POD_B, REMOTE, SECOND, SERVICE_B, SERVICE_NONE, SERVICE_SELF, UPLINK,
    allow_egress_to_b, deny_all, ends, tcp_packet, udp_packet,
};

#[test]
fn a_service_connection_is_translated_there_and_back() {
    let node = Node::new(vec![]);
    let (reason, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN));
    assert_eq!(reason, Reason::NotIsolated);
    assert_eq!(
        ends(&sent),
        [(address(POD_A), 4000), (address(POD_B), 8080)]
    );
    let (reason, received) = node.enter(B, A, &sent);
    assert_eq!((reason, &received), (Reason::NotIsolated, &sent));
    let (reason, answered) = node.leave(B, &answer(&received).expect("answer"));
    assert_eq!(reason, Reason::Reply);
    let (reason, back) = node.enter(A, B, &answered);
    assert_eq!(reason, Reason::Reply);
    assert_eq!(
        ends(&back),
        [(address(SERVICE_B), 80), (address(POD_A), 4000)]
    );
    let (reason, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::ACK));
    assert_eq!(
        (reason, ends(&sent)[1]),
        (Reason::Established, (address(POD_B), 8080))
    );
}

#[test]
fn each_packet_of_a_flow_is_counted_once_on_its_node() {
    let node = Node::new(vec![]);
    let (_, sent) = node.leave(A, &udp_packet((POD_A, 4000), (POD_B, 8080)));
    node.enter(B, A, &sent);
    let (_, answered) = node.leave(B, &answer(&sent).expect("answer"));
    node.enter(A, B, &answered);
    let flows = node.simulator.flows();
    let flow = flows.values().next().expect("one flow");
    assert_eq!(
        (flows.len(), flow.packets, flow.bytes),
        (1, [1, 1], [sent.len() as u64; 2])
    );
}

#[test]
fn replies_need_no_rule_and_new_connections_do() {
    let node = Node::new(vec![
        allow_egress_to_b(),
        policy("b", "b", None, Some(vec![])),
    ]);
    let (reason, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::SYN));
    assert_eq!(reason, Reason::PolicyAllowed);
    node.enter(B, A, &sent);
    assert_eq!(
        node.leave(B, &answer(&sent).expect("answer")).0,
        Reason::Reply
    );
    // A connection that B opens on the same ports is another one.
    let (reason, _) = node.leave(B, &tcp_packet((POD_B, 8080), (POD_A, 4000), tcp::SYN));
    assert_eq!(reason, Reason::PolicyDenied);
    // The first connection has not suffered.
    assert_eq!(
        node.leave(B, &tcp_packet((POD_B, 8080), (POD_A, 4000), tcp::ACK))
            .0,
        Reason::Reply
    );
}

#[test]
fn knocking_on_a_closed_door_opens_none() {
    let node = Node::new(vec![policy("b", "b", Some(vec![]), Some(vec![]))]);
    let knock = udp_packet((POD_A, 4000), (POD_B, 53));
    let (_, sent) = node.leave(A, &knock);
    assert_eq!(node.enter(B, A, &sent).0, Reason::PolicyDenied);
    // A's entry is no approval of B: neither of what it sends nor of what it gets.
    assert_eq!(
        node.leave(B, &answer(&sent).expect("answer")).0,
        Reason::PolicyDenied
    );
    assert_eq!(node.enter(B, A, &sent).0, Reason::PolicyDenied);
}

#[test]
fn a_narrower_policy_cuts_a_live_flow_and_a_wider_one_does_not() {
    let mut node = Node::new(vec![allow_egress_to_b()]);
    let (_, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::SYN));
    node.enter(B, A, &sent);
    let data = tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::ACK);
    node.enforce(vec![
        allow_egress_to_b(),
        policy("more", "a", None, Some(vec![to("c", &[])])),
    ]);
    assert_eq!(node.leave(A, &data).0, Reason::Established);
    node.enforce(vec![policy("more", "a", None, Some(vec![to("c", &[])]))]);
    assert_eq!(node.leave(A, &data).0, Reason::PolicyDenied);
    // Allowed again, it works again.
    node.enforce(vec![allow_egress_to_b()]);
    assert_eq!(node.leave(A, &data).0, Reason::PolicyAllowed);
}

#[test]
fn a_connection_that_the_pod_opened_before_it_was_isolated_gets_its_replies() {
    let mut node = Node::new(vec![]);
    let (_, sent) = node.leave(A, &tcp_packet((POD_A, 4000), (REMOTE, 443), tcp::SYN));
    node.enforce(vec![policy("in", "a", Some(vec![]), None)]);
    assert_eq!(
        node.enter(A, UPLINK, &answer(&sent).expect("answer")).0,
        Reason::Reply
    );
    assert_eq!(
        node.enter(
            A,
            UPLINK,
            &tcp_packet((REMOTE, 443), (POD_A, 4001), tcp::SYN)
        )
        .0,
        Reason::PolicyDenied
    );
}

#[test]
fn only_what_is_born_on_the_node_is_exempt() {
    let mut node = Node::new(vec![deny_all("a")]);
    let probe = tcp_packet((NODE, 4000), (POD_A, 8080), tcp::SYN);
    assert_eq!(node.enter(A, UPLINK, &probe).0, Reason::PolicyDenied);
    assert_eq!(node.enter(A, B, &probe).0, Reason::PolicyDenied);
    assert_eq!(node.enter(A, 0, &probe).0, Reason::Node);
    assert_eq!(
        node.leave(A, &answer(&probe).expect("answer")).0,
        Reason::Reply
    );
    // The entry of the probe lets nobody else in who uses the node's address.
    assert_eq!(node.enter(A, B, &probe).0, Reason::PolicyDenied);
    // Nor does a change of policy cut the kubelet off.
    node.enter(A, 0, &probe);
    node.enforce(vec![deny_all("a"), deny_all("b")]);
    assert_eq!(
        node.leave(A, &answer(&probe).expect("answer")).0,
        Reason::Reply
    );
    // Egress to the own node is not exempt.
    assert_eq!(
        node.leave(A, &tcp_packet((POD_A, 4000), (NODE, 10250), tcp::SYN))
            .0,
        Reason::PolicyDenied
    );
}

#[test]
fn policy_judges_the_backend_and_its_port() {
    let node = Node::new(vec![allow_egress_to_b()]);
    assert_eq!(
        node.leave(A, &tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN))
            .0,
        Reason::PolicyAllowed
    );
    let by_service_port = policy(
        "a",
        "a",
        None,
        Some(vec![to("b", &[(Protocol::Tcp, 80, 80)])]),
    );
    let node = Node::new(vec![by_service_port]);
    assert_eq!(
        node.leave(A, &tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN))
            .0,
        Reason::PolicyDenied
    );
}

#[test]
fn a_pod_reaches_itself_through_a_service_whatever_isolates_it() {
    let mut node = Node::new(vec![deny_all("a")]);
    let (verdict, reason, turned) = node.run(
        Hook::FromPod,
        A,
        A,
        &tcp_packet((POD_A, 4000), (SERVICE_SELF, 80), tcp::SYN),
    );
    assert_eq!((verdict, reason), (Verdict::Return, Reason::Hairpin));
    let stand_in = IpAddr::from(HAIRPIN_V4);
    assert_eq!(ends(&turned), [(stand_in, 4000), (address(POD_A), 8080)]);
    // To whom the frame came from.
    assert_eq!(turned[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    assert_eq!(node.enter(A, A, &turned), (Reason::Hairpin, turned.clone()));
    // Also after a change that narrows.
    node.enforce(vec![deny_all("a"), deny_all("b")]);
    let (verdict, _, back) = node.run(Hook::FromPod, A, A, &answer(&turned).expect("answer"));
    assert_eq!(verdict, Verdict::Return);
    assert_eq!(
        ends(&back),
        [(address(SERVICE_SELF), 80), (address(POD_A), 4000)]
    );
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let node = Node::new(vec![]);
    let (verdict, reason, reset) = node.run(
        Hook::FromPod,
        A,
        A,
        &tcp_packet((POD_A, 4000), (SERVICE_NONE, 80), tcp::SYN),
    );
    assert_eq!((verdict, reason), (Verdict::Return, Reason::NoEndpoint));
    assert_eq!(
        ends(&reset),
        [(address(SERVICE_NONE), 80), (address(POD_A), 4000)]
    );
    assert_eq!((reset.len(), reset[47]), (54, tcp::RST | tcp::ACK));
    assert_eq!(
        u32::from_be_bytes(reset[42..46].try_into().expect("four bytes")),
        8,
        "acknowledges the SYN"
    );
    // UDP gets an ICMP port unreachable that quotes the packet.
    let asked = udp_packet((POD_A, 4000), (SERVICE_NONE, 80));
    let (verdict, _, error) = node.run(Hook::FromPod, A, A, &asked);
    assert_eq!(
        (verdict, &error[34..36], &error[42..70]),
        (Verdict::Return, &[3, 3][..], &asked[14..42])
    );
    // A reset is never answered, nor a port that the Service does not have.
    let (verdict, reason, _) = node.run(
        Hook::FromPod,
        A,
        A,
        &tcp_packet((POD_A, 4000), (SERVICE_NONE, 80), tcp::RST),
    );
    assert_eq!((verdict, reason), (Verdict::Drop, Reason::NoEndpoint));
    assert_eq!(
        node.leave(A, &tcp_packet((POD_A, 4000), (SERVICE_B, 81), tcp::SYN))
            .0,
        Reason::NoServicePort
    );
}

#[test]
fn a_removed_backend_loses_its_udp_flows_and_keeps_its_connections() {
    let mut node = Node::new(vec![]);
    let datagram = udp_packet((POD_A, 4000), (SERVICE_B, 80));
    node.leave(A, &datagram);
    node.leave(A, &tcp_packet((POD_A, 4001), (SERVICE_B, 80), tcp::SYN));
    // The Service moves from b to c.
    let mut moved = snapshot([A, B], vec![]);
    edit(&mut moved.slices, |slice| {
        if slice.service.name == "b" {
            let v4 = slice.endpoints[0].address.is_ipv4();
            slice.endpoints[0].address = address(if v4 { REMOTE } else { "fd00:2::1" });
        }
    });
    node.apply(&moved);
    assert_eq!(
        ends(&node.leave(A, &datagram).1)[1],
        (address(REMOTE), 8080)
    );
    let data = tcp_packet((POD_A, 4001), (SERVICE_B, 80), tcp::ACK);
    assert_eq!(ends(&node.leave(A, &data).1)[1], (address(POD_B), 8080));
    // A new connection on other ports goes to the new backend.
    assert_eq!(
        ends(
            &node
                .leave(A, &tcp_packet((POD_A, 4002), (SERVICE_B, 80), tcp::SYN))
                .1
        )[1]
        .0,
        address(REMOTE)
    );
}

#[test]
fn an_idle_connection_keeps_its_backend_through_a_change_of_policy() {
    let mut node = Node::new(vec![allow_egress_to_b()]);
    let to_all = |flags| tcp_packet((POD_A, 4000), ("10.96.0.11", 80), flags);
    let (_, sent) = node.leave(A, &to_all(tcp::SYN));
    node.enter(B, A, &sent);
    let (_, answered) = node.leave(B, &answer(&sent).expect("answer"));
    node.enter(A, B, &answered);
    node.leave(A, &to_all(tcp::ACK));
    // The Service gets other backends, the connection is idle for an hour, a policy narrows.
    let mut moved = snapshot([A, B], vec![allow_egress_to_b(), deny_all("c")]);
    edit(&mut moved.slices, |slice| {
        for endpoint in &mut slice.endpoints {
            endpoint.address = address(if endpoint.address.is_ipv4() {
                REMOTE
            } else {
                "fd00:2::1"
            });
        }
    });
    node.apply(&moved);
    node.clock += 3600 * SECOND;
    node.simulator
        .maps
        .execute(&weir::plan::Plan {
            steps: vec![weir::plan::Step::BumpEpoch],
        })
        .expect("bump");
    let (reason, sent) = node.leave(A, &to_all(tcp::ACK));
    assert_eq!(
        (reason, ends(&sent)[1]),
        (Reason::PolicyAllowed, (address(POD_B), 8080))
    );
}

#[test]
fn a_flow_is_forgotten_after_its_time_and_not_before() {
    let mut node = Node::new(vec![policy("in", "a", Some(vec![]), None)]);
    let (_, sent) = node.leave(A, &udp_packet((POD_A, 4000), (REMOTE, 53)));
    let reply = answer(&sent).expect("answer");
    node.clock += 179 * SECOND;
    assert_eq!(node.enter(A, UPLINK, &reply).0, Reason::Reply);
    node.clock += 181 * SECOND;
    assert_eq!(node.enter(A, UPLINK, &reply).0, Reason::PolicyDenied);
}

#[test]
fn a_connection_outlives_the_end_of_one_direction_and_not_that_of_both() {
    let there = |flags| tcp_packet((POD_A, 4000), (REMOTE, 80), flags);
    let back = |flags| tcp_packet((REMOTE, 80), (POD_A, 4000), flags);
    for (both, expected) in [(false, Reason::Reply), (true, Reason::PolicyDenied)] {
        let mut node = Node::new(vec![policy("in", "a", Some(vec![]), None)]);
        node.leave(A, &there(tcp::SYN));
        node.enter(A, UPLINK, &back(tcp::SYN | tcp::ACK));
        node.leave(A, &there(tcp::ACK | tcp::FIN));
        node.enter(A, UPLINK, &back(tcp::ACK | if both { tcp::FIN } else { 0 }));
        node.clock += 11 * SECOND;
        assert_eq!(node.enter(A, UPLINK, &back(tcp::ACK)).0, expected);
    }
}

#[test]
fn a_syn_on_the_ports_of_a_finished_connection_opens_a_new_one() {
    let mut node = Node::new(vec![]);
    let syn = tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::SYN);
    node.leave(A, &syn);
    node.leave(A, &tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::RST));
    node.enforce(vec![]);
    node.leave(A, &syn);
    let flows = node.simulator.flows();
    let flow = flows.values().next().expect("one flow");
    assert_eq!(
        (
            flow.packets[0] + flow.packets[1],
            flow.tcp_flags[0] | flow.tcp_flags[1]
        ),
        (1, tcp::SYN)
    );
}

#[test]
fn a_pod_sends_with_its_own_address_only() {
    let node = Node::new(vec![]);
    assert_eq!(
        node.leave(A, &udp_packet((POD_B, 4000), (REMOTE, 53))).0,
        Reason::SpoofedSource
    );
    assert_eq!(
        node.leave(A, &udp_packet(("10.9.9.9", 4000), (REMOTE, 53)))
            .0,
        Reason::SpoofedSource
    );
    // Also with the address and ports of a live flow of its neighbour.
    node.leave(B, &udp_packet((POD_B, 4000), (REMOTE, 53)));
    assert_eq!(
        node.leave(A, &udp_packet((POD_B, 4000), (REMOTE, 53))).0,
        Reason::SpoofedSource
    );
    // DHCP comes before an address.
    assert_eq!(
        node.leave(A, &udp_packet(("0.0.0.0", 68), ("255.255.255.255", 67)))
            .0,
        Reason::Dhcp
    );
}

#[test]
fn link_local_addresses_are_no_way_around_a_policy() {
    let node = Node::new(vec![policy("in", "b", Some(vec![]), None)]);
    let content = Content::Tcp {
        source: 4000,
        destination: 22,
        flags: tcp::SYN,
        payload: 0,
    };
    let packet = Packet::new(address("fe80::a"), address("fe80::b"), content).bytes();
    assert_eq!(node.leave(A, &packet).0, Reason::NotIsolated);
    assert_eq!(node.enter(B, A, &packet).0, Reason::PolicyDenied);
}

#[test]
fn fragments_follow_their_first_and_are_lost_without_it() {
    let mut node = Node::new(vec![allow_egress_to_b()]);
    let content = Content::Udp {
        source: 4000,
        destination: 80,
        payload: 64,
        checksum: true,
    };
    let mut packet = Packet::new(address(POD_A), address(SERVICE_B), content);
    packet.fragment = Some((7, 9, false));
    assert_eq!(node.leave(A, &packet.bytes()).0, Reason::UnknownFragment);
    packet.fragment = Some((7, 0, true));
    assert_eq!(node.leave(A, &packet.bytes()).0, Reason::PolicyAllowed);
    packet.fragment = Some((7, 9, false));
    let (reason, later) = node.leave(A, &packet.bytes());
    assert_eq!(
        (reason, &later[30..34]),
        (Reason::Established, &[10, 0, 1, 2][..])
    );
    // The kernel's reassembly time; by then the identification may be another datagram's.
    node.clock += 30 * SECOND;
    assert_eq!(node.leave(A, &packet.bytes()).0, Reason::Established);
    node.clock += 1;
    assert_eq!(node.leave(A, &packet.bytes()).0, Reason::UnknownFragment);
}

#[test]
fn an_error_about_a_translated_flow_is_translated_with_it() {
    let node = Node::new(vec![policy("in", "a", Some(vec![]), None)]);
    let (_, sent) = node.leave(A, &udp_packet((POD_A, 4000), (SERVICE_B, 80)));
    let too_big = Content::Icmp {
        kind: 3,
        code: 4,
        rest: 1300,
        payload: sent[14..42].to_vec(),
    };
    let packet = Packet::new(address(NODE), address(POD_A), too_big).bytes();
    let (reason, received) = node.enter(A, UPLINK, &packet);
    assert_eq!(reason, Reason::Related);
    // The quoted destination is the Service again; the router stays the router.
    assert_eq!(
        (&received[26..30], &received[58..62], &received[64..66]),
        (&[172, 30, 0, 1][..], &[10, 96, 0, 11][..], &[0, 80][..])
    );
    // Where the backend itself complains, that is the Service, too.
    let refused = Content::Icmp {
        kind: 3,
        code: 3,
        rest: 0,
        payload: sent[14..42].to_vec(),
    };
    let packet = Packet::new(address(POD_B), address(POD_A), refused).bytes();
    let (reason, received) = node.enter(A, B, &packet);
    assert_eq!(
        (reason, &received[26..30]),
        (Reason::Related, &[10, 96, 0, 11][..])
    );
    // An error about no flow is a packet like any other.
    let unrelated = Content::Icmp {
        kind: 3,
        code: 4,
        rest: 1300,
        payload: udp_packet((POD_A, 9), (REMOTE, 9))[14..42].to_vec(),
    };
    let packet = Packet::new(address(NODE), address(POD_A), unrelated).bytes();
    assert_eq!(node.enter(A, UPLINK, &packet).0, Reason::PolicyDenied);
}

#[test]
fn a_rule_without_ports_allows_every_protocol_and_one_with_ports_only_its_own() {
    let everything = Node::new(vec![policy("a", "a", None, Some(vec![to("b", &[])]))]);
    let ports = Node::new(vec![allow_egress_to_b()]);
    let ping = Content::Icmp {
        kind: 8,
        code: 0,
        rest: 1,
        payload: vec![],
    };
    let gre = Content::Other {
        protocol: 47,
        payload: 16,
    };
    let sctp = Content::Sctp {
        source: 1,
        destination: 8080,
        payload: 4,
    };
    for content in [ping, gre, sctp] {
        let packet = Packet::new(address(POD_A), address(POD_B), content).bytes();
        assert_eq!(everything.leave(A, &packet).0, Reason::PolicyAllowed);
        assert_eq!(ports.leave(A, &packet).0, Reason::PolicyDenied);
    }
}

#[test]
fn a_rule_that_allows_everything_is_found_among_many_ranges() {
    let rules: Vec<Rule> = (0..300)
        .map(|n| to("b", &[(Protocol::Tcp, 100 + 10 * n, 104 + 10 * n)]))
        .collect();
    let node = Node::new(vec![policy("a", "a", None, Some(rules))]);
    for (port, allowed) in [
        (99, false),
        (100, true),
        (104, true),
        (105, false),
        (3094, true),
        (3095, false),
    ] {
        let (reason, _) = node.leave(A, &tcp_packet((POD_A, 4000), (POD_B, port), tcp::SYN));
        assert_eq!(reason == Reason::PolicyAllowed, allowed, "port {port}");
    }
}

proptest! {
    /// Whatever the bytes, there is a verdict; what passes without a translation is untouched.
    #[test]
    fn any_bytes_get_a_verdict(mut bytes in prop::collection::vec(any::<u8>(), 0..200), v6: bool, from_pod: bool) {
        if bytes.len() > 14 {
            bytes[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
            bytes[14] = if v6 { 0x60 } else { 0x40 | bytes[14] & 0xf };
        }
        let simulator = Simulator::new(MemoryMaps::new(), SECOND);
        let hook = if from_pod { Hook::FromPod } else { Hook::ToPod };
        let step = Step { hook, ifindex: A, ingress_ifindex: B, clock: 0, random: 0 };
        let (verdict, reason, after) = simulator.run(step, &bytes);
        let reason = Reason::from_u8(reason).expect("a reason");
        prop_assert_eq!(reason.is_drop(), verdict == Verdict::Drop);
        prop_assert_eq!(after, bytes);
    }
}
