//! Connections that netfilter translates: they pass as they are, judged as what they become.

use weir::model::{Policy, endpoint_id};
use weir::plan::{Plan, Step};
use weir_common::abi::{
    BACKEND_SIDE, End, FRONTEND_SIDE, Flow, FlowKey, NAT, NETFILTER, OPENER_HIGH, ROLE_OPENER,
    ROLE_RESPONDER, SHARED, Side, control,
};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, policy};
use weir_tests::packets::{Content, Packet, tcp};

use super::external::{CLIENT, arrive, outside};
use super::node::{
    A, B, Node, POD_A, POD_B, SERVICE_B, UPLINK, allow_egress_to_b, deny_all, ends, tcp_packet,
};

type At = (&'static str, u16);

const ASKING: At = (POD_A, 4000);
const SERVICE: At = (SERVICE_B, 80);
const SERVER: At = (POD_B, 8080);

fn key(source: At, destination: At) -> (FlowKey, u16) {
    let (source_address, address) = (address(source.0).into(), address(destination.0).into());
    let (key, side) = FlowKey::new(&source_address, source.1, &address, destination.1, 6);
    let opener = match side {
        Side::Low => 0,
        Side::High => OPENER_HIGH,
    };
    (key, opener)
}

/// A node that has entered a connection from `client` to Service b, which netfilter leads to pod b.
fn taken_over(node: Node, client: At) -> Node {
    let alive = Flow {
        last_seen: node.clock,
        created: node.clock,
        tcp_flags: [tcp::ACK; 2],
        ..Flow::default()
    };
    let (behind, opener) = key(client, SERVER);
    let mut flow = Flow {
        flags: BACKEND_SIDE | SHARED | opener,
        ..alive
    };
    let end = |pod: &str, role| End {
        endpoint: endpoint_id(pod),
        role,
        epoch: u32::MAX,
        ..End::default()
    };
    let (from, to) = if opener == 0 { (0, 1) } else { (1, 0) };
    if client == ASKING {
        flow.ends[from] = end("a", ROLE_OPENER);
    }
    flow.ends[to] = end("b", ROLE_RESPONDER);
    node.simulator.enter_flow(behind, flow);
    let (front, opener) = key(client, SERVICE);
    let flow = Flow {
        flags: FRONTEND_SIDE | NAT | NETFILTER | opener,
        nat_address: address(SERVER.0).into(),
        nat_port: SERVER.1,
        source_address: address(client.0).into(),
        source_port: client.1,
        ..alive
    };
    node.simulator.enter_flow(front, flow);
    node
}

pub(crate) fn node(policies: Vec<Policy>) -> Node {
    taken_over(Node::new(policies), ASKING)
}

fn ack(source: At, destination: At) -> Vec<u8> {
    tcp_packet(source, destination, tcp::ACK)
}

/// Client's packet, at both pods, and the server's, at both.
pub(crate) fn all_four(node: &Node) -> [Reason; 4] {
    let asked = ack(ASKING, SERVICE);
    let (left, sent) = node.leave(A, &asked);
    assert_eq!(sent, asked);
    let (entered, _) = node.enter(B, A, &ack(ASKING, SERVER));
    let (answered, _) = node.leave(B, &ack(SERVER, ASKING));
    let answer = ack(SERVICE, ASKING);
    let (heard, sent) = node.enter(A, B, &answer);
    assert_eq!(sent, answer);
    [left, entered, answered, heard]
}

/// The agent forgets an entry that was not seen for hours.
#[test]
fn both_entries_of_a_busy_connection_are_seen() {
    for (direction, packet) in [
        ("there", ack(ASKING, SERVICE)),
        ("back", ack(SERVICE, ASKING)),
    ] {
        let mut node = node(vec![]);
        // The first is judged.
        for _ in 0..2 {
            node.clock += 100;
            let (reason, _) = match direction {
                "there" => node.leave(A, &packet),
                _ => node.enter(A, B, &packet),
            };
            assert!(!reason.is_drop(), "{direction}: {reason:?}");
        }
        let flows = node.simulator.flows();
        assert_eq!(flows.len(), 2);
        for flow in flows.values() {
            assert_eq!(flow.last_seen, node.clock, "{direction}: {flow:?}");
        }
    }
}

#[test]
fn packets_pass_as_they_are() {
    let node = node(vec![]);
    all_four(&node);
    let established = [
        Reason::Established,
        Reason::Established,
        Reason::Reply,
        Reason::Reply,
    ];
    assert_eq!(all_four(&node), established);
    // Both pods' packets are counted where the connection is.
    let flows = node.simulator.flows();
    let packets = flows[&key(ASKING, SERVER).0].packets;
    assert_eq!(packets, [2, 2]);
}

#[test]
fn who_speaks_first_opens_nothing() {
    // The client may reach its backend and nobody may reach the client; the server may reach nobody.
    let policies = || {
        vec![
            Policy {
                ingress: Some(vec![]),
                ..allow_egress_to_b()
            },
            policy("b", "b", None, Some(vec![])),
        ]
    };
    let node = node(policies());
    let (answered, _) = node.leave(B, &ack(SERVER, ASKING));
    assert!(!answered.is_drop(), "{answered:?}");
    let (heard, _) = node.enter(A, B, &ack(SERVICE, ASKING));
    assert!(!heard.is_drop(), "{heard:?}");
    assert!(all_four(&node).iter().all(|reason| !reason.is_drop()));
    // Without the entries they are strangers.
    node.simulator.forget_flows();
    assert_eq!(node.leave(B, &ack(SERVER, ASKING)).0, Reason::PolicyDenied);
    assert_eq!(
        node.enter(A, B, &ack(SERVICE, ASKING)).0,
        Reason::PolicyDenied
    );
}

#[test]
fn policies_cut_them_off() {
    let mut node = node(vec![]);
    all_four(&node);
    node.enforce(vec![deny_all("a")]);
    let [left, _, _, heard] = all_four(&node);
    assert_eq!([left, heard], [Reason::PolicyDenied; 2]);
    node.enforce(vec![allow_egress_to_b()]);
    let [left, .., heard] = all_four(&node);
    assert!(!left.is_drop() && !heard.is_drop(), "{left:?} {heard:?}");
}

#[test]
fn a_new_connection_by_the_same_ports_is_weirs() {
    let node = node(vec![]);
    all_four(&node);
    let (reason, sent) = node.leave(A, &tcp_packet(ASKING, SERVICE, tcp::SYN));
    assert_eq!(reason, Reason::NotIsolated);
    assert_eq!(ends(&sent)[1], (address(SERVER.0), SERVER.1));
    let (reason, sent) = node.leave(A, &ack(ASKING, SERVICE));
    assert_eq!(reason, Reason::Established);
    assert_eq!(ends(&sent)[1], (address(SERVER.0), SERVER.1));
}

#[test]
fn clients_outside_are_left_to_netfilter_until_they_open_a_new_connection() {
    let client = (CLIENT, 4000);
    let node = taken_over(outside(vec![]), client);
    let packet = ack(client, SERVICE);
    assert_eq!(arrive(&node, UPLINK, &packet), (Reason::NotService, packet));
    let (reason, sent) = arrive(&node, UPLINK, &tcp_packet(client, SERVICE, tcp::SYN));
    assert_eq!(reason, Reason::Translated);
    assert_eq!(ends(&sent)[1], (address(SERVER.0), SERVER.1));
}

#[test]
fn errors_about_them_pass_as_they_are() {
    let node = node(vec![deny_all("none")]);
    all_four(&node);
    // "Fragmentation needed" from a router to the client, about what the client sent.
    let content = Content::Icmp {
        kind: 3,
        code: 4,
        rest: 1300,
        payload: ack(ASKING, SERVICE)[14..42].to_vec(),
    };
    let error = Packet::new(address("198.51.100.1"), address(POD_A), content).bytes();
    assert_eq!(
        node.enter(A, UPLINK, &error),
        (Reason::Related, error.clone())
    );
    // And from the client, about what it got.
    let content = Content::Icmp {
        kind: 3,
        code: 4,
        rest: 1300,
        payload: ack(SERVICE, ASKING)[14..42].to_vec(),
    };
    let error = Packet::new(address(POD_A), address(SERVICE_B), content).bytes();
    assert_eq!(node.leave(A, &error), (Reason::Related, error.clone()));
}

#[test]
fn while_connections_are_entered_strangers_wait() {
    let mut node = Node::new(vec![]);
    let waiting = |node: &mut Node, on: u64| {
        let steps = vec![Step::Control {
            index: control::TAKING_OVER,
            value: on,
        }];
        node.simulator
            .maps
            .execute(&Plan { steps })
            .expect("execute");
    };
    waiting(&mut node, 1);
    let asked = ack(ASKING, SERVICE);
    assert_eq!(node.leave(A, &asked).0, Reason::TakingOver);
    assert_eq!(
        node.enter(A, B, &ack(SERVICE, ASKING)).0,
        Reason::TakingOver
    );
    assert!(node.simulator.flows().is_empty());
    let (reason, _) = node.leave(A, &tcp_packet(ASKING, SERVICE, tcp::SYN));
    assert_eq!(reason, Reason::NotIsolated);
    node.simulator.forget_flows();
    waiting(&mut node, 0);
    assert!(!node.leave(A, &asked).0.is_drop());
}
