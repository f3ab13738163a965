//! Ports of the node that stand for clients outside: how they are chosen, held, given back, and told from the node's own.

use weir_common::abi::{BACKEND_SIDE, Device, FRONTEND_SIDE, NAT, OPENER_HIGH, SOURCE_SIDE};
use weir_common::reason::Reason;
use weir_tests::fixture::address;
use weir_tests::packets::{answer, tcp};

use super::external::{
    CLIENT, NODE_PORT_NUMBER, OVERLAY, SERVICE_C, TUNNEL, arrive, connect, depart, outside,
};
use super::node::{A, NODE, Node, REMOTE, SECOND, SERVICE_B, UPLINK, ends, tcp_packet, udp_packet};

/// Another client, for whom the port of the first is taken.
const SECOND_CLIENT: &str = "192.0.2.8";

fn device(node: &mut Node, ifindex: u32) -> &mut Device {
    node.simulator.devices.get_mut(&ifindex).expect("a device")
}

/// A packet of a client to the Service of the remote pod, as it is inside.
fn inside(node: &Node, client: &str, flags: u8) -> Vec<u8> {
    arrive(
        node,
        UPLINK,
        &tcp_packet((client, 4000), (SERVICE_C, 80), flags),
    )
    .1
}

#[test]
fn a_client_keeps_a_port_that_the_kernel_gives_to_nobody() {
    for (own, expected) in [
        (1, 1),
        (32_767, 32_767),
        (32_768, 61_000),
        (60_999, 61_000),
        (61_000, 61_000),
        (65_535, 65_535),
    ] {
        assert_eq!(connect(&outside(vec![]), CLIENT, own), Ok(expected));
    }
}

#[test]
fn a_range_may_be_of_one_port_or_of_none() {
    for (ports, expected) in [
        ([61_000, 61_000], Ok(61_000)),
        ([0, 0], Err(Reason::NoSourcePort)),
        ([61_001, 61_000], Err(Reason::NoSourcePort)),
    ] {
        let mut node = outside(vec![]);
        device(&mut node, TUNNEL).ports = ports;
        assert_eq!(connect(&node, CLIENT, 40_000), expected, "{ports:?}");
        // Nothing is held for whom there is none.
        let flows = node.simulator.flows().into_values();
        let held = flows.filter(|flow| flow.flags & SOURCE_SIDE != 0).count();
        assert_eq!(held, usize::from(expected.is_ok()), "{ports:?}");
    }
}

#[test]
fn so_many_ports_are_tried_and_no_more() {
    let mut node = outside(vec![]);
    device(&mut node, TUNNEL).ports = [61_000, 61_099];
    let client = |number: u16| format!("198.51.100.{number}");
    for number in 0..24 {
        let port = connect(&node, &client(number), 40_000);
        assert_eq!(port, Ok(61_000 + number));
    }
    let port = connect(&node, &client(24), 40_000);
    assert_eq!(port, Err(Reason::NoSourcePort));
}

#[test]
fn a_port_leads_back_whichever_address_comes_first_in_its_key() {
    for node_address in [OVERLAY, "10.0.2.200"] {
        let mut node = outside(vec![]);
        device(&mut node, TUNNEL).v4 = address(node_address).into();
        let (_, sent) = depart(&node, TUNNEL, UPLINK, &inside(&node, CLIENT, tcp::SYN));
        assert_eq!(ends(&sent)[0], (address(node_address), 4000));
        let (key, flow) = node
            .simulator
            .flows()
            .into_iter()
            .find(|(_, flow)| flow.flags & SOURCE_SIDE != 0)
            .expect("the port's entry");
        let opener = key.addresses.map(std::net::IpAddr::from)[1] == address(node_address);
        let expected = SOURCE_SIDE | NAT | if opener { OPENER_HIGH } else { 0 };
        assert_eq!(flow.flags, expected);
        assert_eq!(flow.tcp_flags[usize::from(opener)], tcp::SYN);
        let (reason, back) = arrive(&node, TUNNEL, &answer(&sent).expect("answer"));
        assert_eq!(reason, Reason::Reply);
        assert_eq!(ends(&back)[1], (address(CLIENT), 4000));
    }
}

#[test]
fn a_port_is_seen_with_each_packet_of_its_client() {
    let mut node = outside(vec![]);
    depart(&node, TUNNEL, UPLINK, &inside(&node, CLIENT, tcp::SYN));
    node.clock += 100;
    depart(&node, TUNNEL, UPLINK, &inside(&node, CLIENT, tcp::ACK));
    let mut flows = node.simulator.flows().into_values();
    let held = flows.find(|flow| flow.flags & SOURCE_SIDE != 0);
    let held = held.expect("the port's entry");
    assert_eq!(held.last_seen, node.clock);
    assert!(held.tcp_flags.contains(&(tcp::SYN | tcp::ACK)));
}

#[test]
fn a_port_outlives_the_entry_of_its_connection() {
    let node = outside(vec![]);
    let (_, sent) = depart(&node, TUNNEL, UPLINK, &inside(&node, CLIENT, tcp::SYN));
    node.simulator
        .forget_flow(|flow| flow.flags & (BACKEND_SIDE | FRONTEND_SIDE) != 0);
    let (_, again) = depart(&node, TUNNEL, UPLINK, &inside(&node, CLIENT, tcp::ACK));
    assert_eq!(ends(&again), ends(&sent));
}

#[test]
fn a_port_that_another_has_by_now_is_not_used() {
    let node = outside(vec![]);
    assert_eq!(connect(&node, CLIENT, 4000), Ok(4000));
    node.simulator
        .forget_flow(|flow| flow.flags & SOURCE_SIDE != 0);
    assert_eq!(connect(&node, SECOND_CLIENT, 4000), Ok(4000));
    let (reason, sent) = depart(&node, TUNNEL, UPLINK, &inside(&node, CLIENT, tcp::ACK));
    assert_eq!((reason, ends(&sent)[0].1), (Reason::Translated, 61_000));
}

#[test]
fn at_another_device_a_client_has_its_own_port_again() {
    let node = outside(vec![]);
    assert_eq!(connect(&node, CLIENT, 4000), Ok(4000));
    assert_eq!(connect(&node, SECOND_CLIENT, 4000), Ok(61_000));
    let packet = inside(&node, SECOND_CLIENT, tcp::ACK);
    let (_, sent) = depart(&node, UPLINK, UPLINK, &packet);
    assert_eq!(ends(&sent)[0], (address(NODE), 4000));
}

#[test]
fn a_client_that_goes_past_a_service_that_is_over_is_not_translated() {
    let node = outside(vec![]);
    let (_, sent) = depart(&node, TUNNEL, UPLINK, &inside(&node, CLIENT, tcp::SYN));
    assert_eq!(ends(&sent)[1], (address(REMOTE), 8080));
    inside(&node, CLIENT, tcp::RST);
    for flags in [tcp::SYN, tcp::ACK] {
        let past = tcp_packet((CLIENT, 4000), (REMOTE, 8080), flags);
        assert_eq!(
            arrive(&node, UPLINK, &past),
            (Reason::NotService, past.clone())
        );
        let back = answer(&past).expect("answer");
        let left = depart(&node, UPLINK, TUNNEL, &back);
        assert_eq!(left, (Reason::NotService, back));
    }
}

/// Of UDP only what left before tells whom an answer is for.
#[test]
fn what_the_node_asks_from_a_node_port_is_answered_to_the_node() {
    let asked = udp_packet((NODE, NODE_PORT_NUMBER), (CLIENT, 53));
    let answered = answer(&asked).expect("answer");
    let ask = |node: &Node| {
        let left = depart(node, UPLINK, A, &asked);
        assert_eq!(left, (Reason::NotService, asked.clone()));
    };
    let arrives = |node: &Node| arrive(node, UPLINK, &answered);

    // As long as it goes on asking.
    let mut node = outside(vec![]);
    for _ in 0..2 {
        ask(&node);
        node.clock += 179 * SECOND;
    }
    assert_eq!(arrives(&node), (Reason::NotService, answered.clone()));
    node.clock += 2 * SECOND;
    assert_eq!(arrives(&node).0, Reason::Translated);

    // But a client of that node port, by the same ports, stays one as long as it lives.
    let mut node = outside(vec![]);
    assert_eq!(arrives(&node).0, Reason::Translated);
    ask(&node);
    assert_eq!(arrives(&node).0, Reason::Established);
    node.clock += 181 * SECOND;
    ask(&node);
    assert_eq!(arrives(&node), (Reason::NotService, answered.clone()));

    // Other addresses of Services have no other use.
    let node = outside(vec![]);
    let other = udp_packet((SERVICE_B, 80), (CLIENT, 53));
    assert_eq!(
        depart(&node, UPLINK, A, &other),
        (Reason::NotService, other)
    );
    assert!(node.simulator.flows().is_empty());
}
