//! Packets that come while the agent writes: each is treated as before the change or as after it.

use std::rc::Rc;

use weir::compile::compile;
use weir::model::{ObjectName, Snapshot};
use weir::plan::Plan;
use weir_common::abi::Hook;
use weir_common::reason::Reason;
use weir_tests::fixture::{address, snapshot};
use weir_tests::packets::{Content, Packet, tcp};
use weir_tests::simulator::Step;

use super::node::{A, B, Node, POD_A, SERVICE_B, tcp_packet};

fn leaving(node: &Node) -> Step {
    Step {
        hook: Hook::FromPod,
        ifindex: A,
        ingress_ifindex: A,
        clock: node.clock,
        random: 0,
    }
}

/// What becomes of a packet of pod a after each step of the way from one state of the cluster to another.
fn after_each_step(from: &Snapshot, to: &Snapshot, packet: &[u8]) -> Vec<Reason> {
    let mut node = Node::new(vec![]);
    node.apply(from);
    let before = node.simulator.maps.clone();
    let steps = node.plan(&compile(to)).steps;
    let outcome = |count: usize| {
        node.simulator.maps = before.clone();
        let steps = steps[..count].to_vec();
        node.simulator
            .maps
            .execute(&Plan { steps })
            .expect("execute");
        node.simulator.forget_flows();
        let (_, reason, _) = node.simulator.run(leaving(&node), packet);
        Reason::from_u8(reason).expect("reason")
    };
    (0..=steps.len()).map(outcome).collect()
}

#[test]
fn a_pod_that_goes_is_there_or_is_not() {
    let with = snapshot([A, B], vec![]);
    let mut without = with.clone();
    let gone = without.pods.remove(&ObjectName::new("shop", "a"));
    for ip in &gone.expect("pod a").ips {
        without.devices.devices.remove(ip);
    }
    // Whose these are only the device tells.
    let content = Content::Udp {
        source: 4000,
        destination: 53,
        payload: 8,
        checksum: true,
    };
    let packet = Packet::new(address("fe80::a"), address("fe80::b"), content).bytes();
    let mut seen = after_each_step(&with, &without, &packet);
    seen.dedup();
    assert_eq!(seen, [Reason::NotIsolated, Reason::SpoofedSource]);
    let mut seen = after_each_step(&without, &with, &packet);
    seen.dedup();
    assert_eq!(seen, [Reason::SpoofedSource, Reason::NotIsolated]);
}

/// A packet may be held up between two lookups until a Service is there.
#[test]
fn a_service_that_comes_has_its_ports_at_once() {
    let with = snapshot([A, B], vec![]);
    let mut without = with.clone();
    without.services.remove(&ObjectName::new("shop", "b"));
    let mut node = Node::new(vec![]);
    node.apply(&without);
    let before = node.simulator.maps.clone();
    node.apply(&with);
    let after = Rc::new(std::mem::replace(&mut node.simulator.maps, before));
    let packet = tcp_packet((POD_A, 4000), (SERVICE_B, 80), tcp::SYN);
    let mut seen = vec![];
    for lookups in 0.. {
        node.simulator.forget_flows();
        let step = leaving(&node);
        let ((_, reason, _), held_up) = node.simulator.run_held_up(step, &packet, lookups, &after);
        seen.push(Reason::from_u8(reason).expect("reason"));
        if !held_up {
            break;
        }
    }
    seen.dedup();
    assert_eq!(seen, [Reason::NotIsolated, Reason::NoService]);
}
