//! What is reported of packets.

use weir::model::{Policy, endpoint_id};
use weir::plan::{Plan, Step as PlanStep};
use weir_common::abi::{Address, Event, Hook, RULE_NOT_ISOLATED, Verdict, control};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, policy};
use weir_tests::packets::tcp;
use weir_tests::simulator::Step;

use super::external::{CLIENT, outside};
use super::node::{
    A, B, Node, POD_A, POD_B, SERVICE_B, UPLINK, allow_egress_to_b, deny_all, tcp_packet,
};

fn at(name: &str) -> Address {
    address(name).into()
}

/// The only event since the last ones were taken.
fn only(node: &Node) -> Event {
    let events = node.simulator.take_events();
    let [event] = events[..] else {
        panic!("one event: {events:?}");
    };
    event
}

#[test]
fn a_drop_is_reported_with_all_that_is_known_of_it() {
    let node = Node::new(vec![deny_all("a"), deny_all("b")]);
    for ((pod, own, device), to, judged) in [
        (("a", POD_A, A), (POD_B, 8080), (POD_B, 8080)),
        (("b", POD_B, B), (POD_A, 8080), (POD_A, 8080)),
        (("a", POD_A, A), (SERVICE_B, 80), (POD_B, 8080)),
    ] {
        let packet = tcp_packet((own, 4000), to, tcp::SYN);
        assert_eq!(node.leave(device, &packet).0, Reason::PolicyDenied);
        let expected = Event {
            time: u64::from(node.clock) * 4_000_000,
            endpoint: endpoint_id(pod),
            source: at(own),
            destination: at(to.0),
            judged: at(judged.0),
            source_port: 4000,
            destination_port: to.1,
            judged_port: judged.1,
            protocol: 6,
            hook: Hook::FromPod as u8,
            verdict: Verdict::Drop as u8,
            reason: Reason::PolicyDenied as u8,
            tcp_flags: tcp::SYN,
            reserved: 0,
            rule: 0,
            length: packet.len() as u32,
            ifindex: device,
        };
        assert_eq!(only(&node), expected);
    }
}

/// Nothing has been read of its IP header, nor is it known whose it is.
#[test]
fn what_the_last_packet_left_is_not_reported_with_the_next() {
    let node = Node::new(vec![deny_all("a")]);
    let packet = tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::SYN);
    let mut tagged = packet.clone();
    tagged[12..14].copy_from_slice(&[0x81, 0]);
    for (frame, reason) in [
        (&tagged[..], Reason::BadHeader),
        (&packet[..13], Reason::Truncated),
    ] {
        node.leave(A, &packet);
        only(&node);
        assert_eq!(node.leave(A, frame).0, reason);
        let event = only(&node);
        let expected = Event {
            time: event.time,
            hook: Hook::FromPod as u8,
            verdict: Verdict::Drop as u8,
            reason: reason as u8,
            length: frame.len() as u32,
            ifindex: A,
            ..Event::default()
        };
        assert_eq!(event, expected);
    }
}

/// A node that reports one of so many first packets.
fn sampling(mut node: Node, every: u64) -> Node {
    let (index, value) = (control::SAMPLE, every);
    let steps = vec![PlanStep::Control { index, value }];
    node.simulator
        .maps
        .execute(&Plan { steps })
        .expect("execute");
    node
}

#[test]
fn so_many_first_packets_are_reported() {
    for (every, random, expected) in [(0, 0, 0), (1, 7, 1), (10, 20, 1), (10, 21, 0), (10, 9, 0)] {
        let node = sampling(Node::new(vec![]), every);
        for (count, flags) in [(expected, tcp::SYN), (0, tcp::ACK)] {
            let step = Step {
                hook: Hook::FromPod,
                ifindex: A,
                ingress_ifindex: A,
                clock: node.clock,
                random,
            };
            let packet = tcp_packet((POD_A, 4000), (POD_B, 8080), flags);
            node.simulator.run(step, &packet);
            let reported = node.simulator.take_events().len();
            assert_eq!(reported, count, "{random} of {every}");
        }
    }
}

#[test]
fn first_packets_are_reported_with_what_allows_them() {
    let run = |policies: Vec<Policy>, hook, device| {
        let node = sampling(outside(policies), 1);
        let packet = match hook {
            Hook::FromNet => tcp_packet((CLIENT, 4000), (SERVICE_B, 80), tcp::SYN),
            _ => tcp_packet((POD_A, 4000), (POD_B, 8080), tcp::SYN),
        };
        let (_, reason, _) = node.run(hook, device, UPLINK, &packet);
        let event = only(&node);
        assert_eq!((event.verdict, event.reason), (0, reason as u8));
        assert_eq!((event.hook, event.ifindex), (hook as u8, device));
        (reason, event.rule)
    };
    let open = (Reason::NotIsolated, RULE_NOT_ISOLATED);
    assert_eq!(run(vec![], Hook::FromPod, A), open);
    assert_eq!(run(vec![], Hook::ToPod, B), open);
    assert_eq!(run(vec![], Hook::FromNet, UPLINK), (Reason::Translated, 0));
    let (reason, rule) = run(vec![allow_egress_to_b()], Hook::FromPod, A);
    assert_eq!(reason, Reason::PolicyAllowed);
    assert!(rule >= weir_common::abi::RULE_RESERVED);
    let everybody = policy("b", "b", Some(vec![Default::default()]), None);
    let (reason, rule) = run(vec![everybody], Hook::ToPod, B);
    assert_eq!(reason, Reason::PolicyAllowed);
    assert!(rule >= weir_common::abi::RULE_RESERVED);
}
