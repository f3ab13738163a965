//! What XDP sends on, what it leaves to the network stack, and how connections pass from one to the other.

use std::collections::BTreeMap;

use weir_common::abi::{Address, FAST, Flow, FlowKey, Hook, Verdict};
use weir_common::reason::Reason;
use weir_tests::fixture::address;
use weir_tests::packets::{Content, Packet, answer, checksum_error, tcp};
use weir_tests::simulator::{NextHop, Step};

use super::external::{CLIENT, SERVICE_C, TUNNEL, arrive, depart, outside};
use super::node::{NODE, Node, POD_B, REMOTE, SECOND, UPLINK, ends, tcp_packet, udp_packet};

/// The uplink, as packets of the fixture are addressed, and its neighbours.
const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 7];
const NEXT_NODE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// A node that reaches the client and the remote pod by its uplink.
fn node() -> Node {
    let mut node = outside(vec![]);
    for (name, to) in [(CLIENT, CLIENT_MAC), (REMOTE, NEXT_NODE_MAC)] {
        let hop = NextHop {
            ifindex: UPLINK,
            mtu: 1500,
            from: UPLINK_MAC,
            to,
        };
        node.simulator.routes.insert(address(name).into(), hop);
    }
    node
}

fn at_xdp(node: &Node, packet: &[u8]) -> (Verdict, Vec<u8>) {
    let step = Step {
        hook: Hook::FromNet,
        ifindex: UPLINK,
        ingress_ifindex: UPLINK,
        clock: node.clock,
        random: 0,
    };
    let (verdict, _, after) = node.simulator.run_xdp(step, packet);
    if verdict == Verdict::Pass {
        assert_eq!(after, packet, "left, but not as it was");
    }
    (verdict, after)
}

/// XDP sends the packet on.
fn forwarded(node: &Node, packet: &[u8]) -> Vec<u8> {
    let (verdict, packet) = at_xdp(node, packet);
    assert_eq!(verdict, Verdict::Return);
    assert_eq!(checksum_error(&packet), None);
    packet
}

/// XDP leaves the packet as it is, without a trace.
fn ensure_left(node: &Node, packet: &[u8], why: &str) {
    let flows = node.simulator.flows();
    assert_eq!(at_xdp(node, packet).0, Verdict::Pass, "{why}");
    assert_eq!(node.simulator.flows(), flows, "{why}");
}

/// What the network stack makes of a packet between `from_net` and `to_net`: one hop less, on to the next machine.
fn through_stack(node: &Node, packet: &[u8]) -> Vec<u8> {
    let mut packet = arrive(node, UPLINK, packet).1;
    packet[22] -= 1;
    let sum = u16::from_be_bytes([packet[24], packet[25]]);
    let (sum, carry) = sum.overflowing_add(0x100);
    packet[24..26].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    let [_, (to, _)] = ends(&packet);
    let hop = node.simulator.routes[&Address::from(to)];
    packet[..6].copy_from_slice(&hop.to);
    packet[6..12].copy_from_slice(&hop.from);
    depart(node, UPLINK, UPLINK, &packet).1
}

fn requests() -> [Vec<u8>; 2] {
    [
        tcp_packet((CLIENT, 4000), (SERVICE_C, 80), tcp::SYN),
        udp_packet((CLIENT, 4000), (SERVICE_C, 80)),
    ]
}

/// A later packet of the connection that `first` opens.
fn later(first: &[u8]) -> Vec<u8> {
    if first[23] == 6 {
        tcp_packet((CLIENT, 4000), (SERVICE_C, 80), tcp::ACK)
    } else {
        first.to_vec()
    }
}

/// Flows without what tells their carrier.
fn flows(node: &Node) -> BTreeMap<FlowKey, Flow> {
    let plain = |(key, mut flow): (FlowKey, Flow)| {
        flow.flags &= !FAST;
        (key, flow)
    };
    node.simulator.flows().into_iter().map(plain).collect()
}

fn carried(node: &Node) -> u64 {
    let counters = node.simulator.counters();
    let counter = counters.get(&Hook::FromNet.counter(Reason::FastPath));
    counter.map_or(0, |counter| counter.packets)
}

#[test]
fn both_carriers_make_the_same_of_a_connection() {
    for first in requests() {
        let (fast, slow) = (node(), node());
        let mut packets = 0;
        for packet in [first.clone(), later(&first), later(&first)] {
            let sent = forwarded(&fast, &packet);
            assert_eq!(sent, through_stack(&slow, &packet));
            assert_eq!(
                ends(&sent),
                [(address(NODE), 4000), (address(REMOTE), 8080)]
            );
            let back = answer(&sent).expect("answer");
            let returned = forwarded(&fast, &back);
            assert_eq!(returned, through_stack(&slow, &back));
            assert_eq!(
                ends(&returned),
                [(address(SERVICE_C), 80), (address(CLIENT), 4000)]
            );
            packets += 2;
            assert_eq!(carried(&fast), packets);
        }
        assert_eq!(flows(&fast), flows(&slow));
        assert_eq!(fast.simulator.take_events(), slow.simulator.take_events());
    }
}

#[test]
fn what_is_not_plain_is_left_alone() {
    let content = Content::Udp {
        source: 4000,
        destination: 80,
        payload: 10,
        checksum: true,
    };
    let plain = Packet::new(address(CLIENT), address(SERVICE_C), content);
    let with = |change: fn(&mut Packet)| {
        let mut packet = plain.clone();
        change(&mut packet);
        packet.bytes()
    };
    ensure_left(&node(), &with(|packet| packet.hops = 1), "last hop");
    ensure_left(&node(), &with(|packet| packet.options = 8), "options");
    let fragment = with(|packet| packet.fragment = Some((1, 0, true)));
    ensure_left(&node(), &fragment, "fragment");
    let ping = Content::Icmp {
        kind: 8,
        code: 0,
        rest: 1,
        payload: vec![0; 8],
    };
    let ping = Packet::new(address(CLIENT), address(SERVICE_C), ping);
    ensure_left(&node(), &ping.bytes(), "ping");
    let mut astray = plain.bytes();
    astray[5] ^= 1;
    ensure_left(&node(), &astray, "somebody else's frame");
    // 192.0.2.7 + 10.96.0.20 + 17 + 18, in words of 16 bits.
    let sum = 0xc000_u16 + 0x0207 + 0x0a60 + 0x0014 + 17 + 18;
    let mut unfinished = plain.bytes();
    unfinished[40..42].copy_from_slice(&sum.to_be_bytes());
    ensure_left(&node(), &unfinished, "a checksum that the device completes");
    forwarded(&node(), &plain.bytes());
}

#[test]
fn what_routing_would_send_elsewhere_is_left_alone() {
    let change = |name: &str, change: fn(&mut NextHop)| {
        let mut node = node();
        change(
            node.simulator
                .routes
                .get_mut(&Address::from(address(name)))
                .expect("a route"),
        );
        node
    };
    for packet in requests() {
        ensure_left(
            &change(REMOTE, |hop| hop.ifindex = TUNNEL),
            &packet,
            "tunnel",
        );
        ensure_left(&change(REMOTE, |hop| hop.mtu = 20), &packet, "too long");
        let elsewhere = change(CLIENT, |hop| hop.ifindex = TUNNEL);
        ensure_left(&elsewhere, &packet, "the client is elsewhere");
        let mut nowhere = node();
        nowhere.simulator.routes.clear();
        ensure_left(&nowhere, &packet, "no neighbour");
        let to_local = tcp_packet((CLIENT, 4000), (POD_B, 8080), tcp::SYN);
        ensure_left(&node(), &to_local, "no Service");
        // Answers are asked about anew.
        let mut node = node();
        let sent = forwarded(&node, &packet);
        node.simulator
            .routes
            .remove(&Address::from(address(CLIENT)));
        let back = answer(&sent).expect("answer");
        assert_eq!(at_xdp(&node, &back).0, Verdict::Pass);
    }
}

#[test]
fn a_connection_of_the_stack_stays_with_it() {
    for first in requests() {
        let node = node();
        let sent = through_stack(&node, &first);
        let back = answer(&sent).expect("answer");
        for packet in [&later(&first), &first, &back] {
            assert_eq!(at_xdp(&node, packet).0, Verdict::Pass);
            through_stack(&node, packet);
        }
        assert_eq!(carried(&node), 0);
    }
}

#[test]
fn the_stack_takes_a_connection_over_and_keeps_it() {
    for first in requests() {
        for by_answer in [false, true] {
            let node = node();
            let sent = forwarded(&node, &first);
            let back = answer(&sent).expect("answer");
            forwarded(&node, &back);
            // As it was for the backend and the client, whichever of them is the first to go that way.
            if by_answer {
                let returned = through_stack(&node, &back);
                let expected = [(address(SERVICE_C), 80), (address(CLIENT), 4000)];
                assert_eq!(ends(&returned), expected);
            } else {
                let again = through_stack(&node, &later(&first));
                assert_eq!(ends(&again), ends(&sent));
            }
            for packet in [&later(&first), &back] {
                assert_eq!(at_xdp(&node, packet).0, Verdict::Pass);
            }
            assert_eq!(carried(&node), 2);
        }
    }
}

#[test]
fn a_port_is_used_again_once_its_connection_is_over() {
    let mut node = node();
    let [syn, _] = requests();
    let sent = forwarded(&node, &syn);
    forwarded(&node, &answer(&sent).expect("answer"));
    let reset = tcp_packet((CLIENT, 4000), (SERVICE_C, 80), tcp::RST | tcp::ACK);
    forwarded(&node, &reset);
    assert_eq!(ends(&forwarded(&node, &syn)), ends(&sent));
    // One that is forgotten is not XDP's to begin in its middle.
    node.clock += 7 * 3600 * SECOND;
    let ack = tcp_packet((CLIENT, 4000), (SERVICE_C, 80), tcp::ACK);
    assert_eq!(at_xdp(&node, &ack).0, Verdict::Pass);
}

#[test]
fn a_client_for_whom_no_port_is_free_is_refused_by_the_stack() {
    let mut node = node();
    let device = node.simulator.devices.get_mut(&UPLINK).expect("the uplink");
    device.ports = [0, 0];
    // Of the kernel's range, and so not the client's to keep.
    let packet = tcp_packet((CLIENT, 40_000), (SERVICE_C, 80), tcp::SYN);
    assert_eq!(at_xdp(&node, &packet).0, Verdict::Pass);
    let (reason, packet) = arrive(&node, UPLINK, &packet);
    assert_eq!(reason, Reason::Established);
    let (reason, _) = depart(&node, UPLINK, UPLINK, &packet);
    assert_eq!(reason, Reason::NoSourcePort);
}
