//! What has been decided is not decided again: how often a later packet looks into maps of the agent.

use std::rc::Rc;

use weir_common::abi::Hook;
use weir_tests::packets::{answer, tcp};
use weir_tests::simulator::Step;

use super::external::{CLIENT, SERVICE_C, TUNNEL, arrive, depart, outside};
use super::netfilter;
use super::node::{A, B, Node, POD_A, POD_B, REMOTE, SERVICE_B, SERVICE_SELF, UPLINK, tcp_packet};

/// Lookups of a packet that came in by `from`.
fn lookups(node: &Node, hook: Hook, device: u32, from: u32, packet: &[u8]) -> u32 {
    let same = Rc::new(node.simulator.maps.clone());
    let step = Step {
        hook,
        ifindex: device,
        ingress_ifindex: from,
        clock: node.clock,
        random: 0,
    };
    let needs = |count| node.simulator.run_held_up(step, packet, count, &same).1;
    (1..).take_while(|count| needs(*count)).count() as u32
}

/// The epoch, and of a packet to a Service the state of its backend.
#[test]
fn later_packets_of_pods_ask_whether_anything_has_changed() {
    for (from, to, server) in [
        (POD_A, POD_B, (POD_B, 8080)),
        ("fd00:1::1", "fd00:1::2", ("fd00:1::2", 8080)),
        (POD_A, SERVICE_B, (POD_B, 8080)),
        ("fd00:1::1", "fd96::11", ("fd00:1::2", 8080)),
    ] {
        let node = Node::new(vec![]);
        let (port, there) = match to == server.0 {
            true => (8080, 1),
            false => (80, 2),
        };
        let packet = |flags| tcp_packet((from, 4000), (to, port), flags);
        let (_, sent) = node.leave(A, &packet(tcp::SYN));
        node.enter(B, A, &sent);
        let back = answer(&sent).expect("answer");
        node.enter(A, B, &node.leave(B, &back).1);
        let sent = tcp_packet((from, 4000), server, tcp::ACK);
        let back = tcp_packet(server, (from, 4000), tcp::ACK);
        for (hook, device, other, packet, expected) in [
            (Hook::FromPod, A, A, packet(tcp::ACK), there),
            (Hook::ToPod, B, A, sent, 1),
            (Hook::FromPod, B, B, back.clone(), 1),
            (Hook::ToPod, A, B, back, 1),
        ] {
            let asked = lookups(&node, hook, device, other, &packet);
            assert_eq!(asked, expected, "{from} to {to}: {hook:?}");
        }
    }
}

#[test]
fn so_do_those_of_a_pod_to_itself() {
    for (pod, service) in [(POD_A, SERVICE_SELF), ("fd00:1::1", "fd96::12")] {
        let node = Node::new(vec![]);
        let packet = |flags| tcp_packet((pod, 4000), (service, 80), flags);
        let (_, turned) = node.leave(A, &packet(tcp::SYN));
        let back = answer(&turned).expect("answer");
        node.leave(A, &back);
        let asked = lookups(&node, Hook::FromPod, A, A, &packet(tcp::ACK));
        assert_eq!(asked, 2, "{service}");
        assert_eq!(lookups(&node, Hook::FromPod, A, A, &back), 1, "{service}");
    }
}

#[test]
fn so_do_those_that_netfilter_translates() {
    let node = netfilter::node(vec![]);
    netfilter::all_four(&node);
    let there = tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::ACK);
    let back = answer(&there).expect("answer");
    assert_eq!(lookups(&node, Hook::FromPod, A, A, &there), 1);
    assert_eq!(lookups(&node, Hook::ToPod, A, B, &back), 1);
}

/// Nobody is judged at the node's devices.
#[test]
fn those_of_clients_outside_ask_for_the_backend() {
    let node = outside(vec![]);
    let packet = |flags| tcp_packet((CLIENT, 4000), (SERVICE_C, 80), flags);
    let (_, inside) = arrive(&node, UPLINK, &packet(tcp::SYN));
    let (_, sent) = depart(&node, TUNNEL, UPLINK, &inside);
    let (_, back) = arrive(&node, TUNNEL, &answer(&sent).expect("answer"));
    depart(&node, UPLINK, TUNNEL, &back);
    let inside = tcp_packet((CLIENT, 4000), (REMOTE, 8080), tcp::ACK);
    let back = tcp_packet((REMOTE, 8080), (CLIENT, 4000), tcp::ACK);
    for (hook, device, packet, expected) in [
        (Hook::FromNet, UPLINK, &packet(tcp::ACK), 1),
        (Hook::ToNet, TUNNEL, &inside, 0),
        (Hook::FromNet, TUNNEL, &answer(&sent).expect("answer"), 0),
        (Hook::ToNet, UPLINK, &back, 0),
    ] {
        let asked = lookups(&node, hook, device, UPLINK, packet);
        assert_eq!(asked, expected, "{hook:?} of {device}");
    }
}
