//! What XDP sends on, what it leaves to the network stack, and how connections pass from one to the other.

use std::collections::BTreeMap;

use weir::model::Endpoint;
use weir_common::abi::{Address, BACKEND_SIDE, FAST, Flow, FlowKey, Hook, SOURCE_SIDE, Verdict};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, snapshot};
use weir_tests::packets::{Content, Packet, answer, checksum_error, tcp};
use weir_tests::simulator::{NextHop, Step};

use super::external::{CLIENT, SERVICE_C, TUNNEL, arrive, depart, outside};
use super::node::{A, B, NODE, Node, POD_B, REMOTE, SECOND, UPLINK, ends, tcp_packet, udp_packet};

/// The uplink, as packets of the fixture are addressed, and its neighbours.
const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 7];
const NEXT_NODE_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// A node that reaches the client and the remote pod by its uplink.
pub(crate) fn node() -> Node {
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

/// Byte by byte, as a router in the node's name would.
#[test]
fn packets_of_both_families_go_on_with_one_hop_less() {
    let addresses = [
        (CLIENT, "192.0.2.15", NODE, REMOTE),
        ("2001:db8::7", "2001:db8::15", "fd30::1", "fd00:2::1"),
    ];
    let only_c = || {
        let mut node = node();
        let mut cluster = snapshot([A, B], vec![]);
        edit(&mut cluster.slices, |slice| {
            let there = |endpoint: &Endpoint| endpoint.node.as_deref() == Some("node2");
            slice.endpoints.retain(there);
        });
        node.apply(&cluster);
        for (name, to) in [("2001:db8::7", CLIENT_MAC), ("fd00:2::1", NEXT_NODE_MAC)] {
            let hop = node.simulator.routes[&Address::from(address(REMOTE))];
            let hop = NextHop { to, ..hop };
            node.simulator.routes.insert(address(name).into(), hop);
        }
        node
    };
    for (client, service, own, backend) in addresses {
        for tcp in [true, false] {
            let node = only_c();
            let packet = |from: (&str, u16), to: (&str, u16), hops: u8, to_mac: Option<[u8; 6]>| {
                let content = match tcp {
                    true => Content::Tcp {
                        source: from.1,
                        destination: to.1,
                        flags: tcp::SYN,
                        payload: 7,
                    },
                    false => Content::Udp {
                        source: from.1,
                        destination: to.1,
                        payload: 7,
                        checksum: true,
                    },
                };
                let mut packet = Packet::new(address(from.0), address(to.0), content);
                packet.hops = hops;
                let mut bytes = packet.bytes();
                if let Some(to_mac) = to_mac {
                    bytes[..6].copy_from_slice(&to_mac);
                    bytes[6..12].copy_from_slice(&UPLINK_MAC);
                }
                bytes
            };
            let asked = packet((client, 4000), (service, 80), 9, None);
            let sent = packet((own, 4000), (backend, 8080), 8, Some(NEXT_NODE_MAC));
            assert_eq!(forwarded(&node, &asked), sent);
            let answered = packet((backend, 8080), (own, 4000), 2, None);
            let back = packet((service, 80), (client, 4000), 1, Some(CLIENT_MAC));
            assert_eq!(forwarded(&node, &answered), back);
            // The length that is to fit, without padding behind it.
            let longer = if client.contains(':') { 40 } else { 20 } + if tcp { 27 } else { 15 };
            let asked_about = node.simulator.asked.borrow();
            assert!(asked_about.iter().any(|route| route.length == longer));
        }
    }
}

/// Routing may tell packets apart by them.
#[test]
fn routing_is_told_the_class_of_a_packet() {
    let node = node();
    let mut packet = udp_packet((CLIENT, 4000), (SERVICE_C, 80));
    // Type of service, and the header's checksum with it.
    packet[15] = 0x12;
    let sum = u16::from_be_bytes([packet[24], packet[25]]) - 0x12;
    packet[24..26].copy_from_slice(&sum.to_be_bytes());
    forwarded(&node, &packet);
    let classes = |node: &Node| -> Vec<u32> {
        let asked = node.simulator.asked.borrow();
        asked.iter().map(|route| route.class).collect()
    };
    assert!(classes(&node).iter().all(|class| *class == 0x12));

    let node = super::fast::node();
    let content = Content::Udp {
        source: 4000,
        destination: 80,
        payload: 10,
        checksum: true,
    };
    let mut packet = Packet::new(address("2001:db8::7"), address("2001:db8::15"), content).bytes();
    packet[14..18].copy_from_slice(&[0x6a, 0xbc, 0xde, 0xf1]);
    assert_eq!(at_xdp(&node, &packet).0, Verdict::Pass);
    let class = u32::from_ne_bytes([0x0a, 0xbc, 0xde, 0xf1]);
    assert_eq!(classes(&node), [class]);
}

/// The stack has seen it, and its face is forgotten.
#[test]
fn a_connection_of_the_stack_is_not_begun_anew() {
    for first in requests() {
        let node = node();
        through_stack(&node, &first);
        super::entries::forget_faces(&node);
        assert_eq!(at_xdp(&node, &first).0, Verdict::Pass);
    }
}

/// Both are seen with each packet; but tables forget, and agents enter.
#[test]
fn an_answer_needs_both_entries_alive() {
    for old in [SOURCE_SIDE, BACKEND_SIDE] {
        let node = node();
        let [_, datagram] = requests();
        let back = answer(&forwarded(&node, &datagram)).expect("answer");
        for (key, flow) in node.simulator.flows() {
            if flow.flags & old != 0 {
                let last_seen = flow.last_seen.wrapping_sub(181 * SECOND);
                node.simulator.enter_flow(key, Flow { last_seen, ..flow });
            }
        }
        assert_eq!(at_xdp(&node, &back).0, Verdict::Pass);
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
