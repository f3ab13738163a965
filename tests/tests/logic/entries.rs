//! What the table of flows holds of a connection, and what becomes of the connection when it forgets a part or is behind the times.

use weir::model::endpoint_id;
use weir::plan::{Plan, Step as PlanStep};
use weir_common::abi::{
    BACKEND_SIDE, EXTERNAL, End, FRONTEND_SIDE, Flow, FlowKey, HAIRPIN, Hook, NAT, OPENER_HIGH,
    ROLE_OPENER, ROLE_RESPONDER, RULE_HAIRPIN, RULE_NOT_ISOLATED, Side, Verdict, control,
};
use weir_common::logic::HAIRPIN_V4;
use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, policy, snapshot};
use weir_tests::packets::{answer, tcp};
use weir_tests::simulator::Step;

use super::external::{CLIENT, NODE_PORT_NUMBER, arrive, outside};
use super::node::{
    A, B, NODE, Node, POD_A, POD_B, REMOTE, SECOND, SERVICE_B, SERVICE_SELF, UPLINK, ends,
    tcp_packet, udp_packet,
};
use super::pings::{Echo, echo};
use super::policies::FAMILIES;

type At<'a> = (&'a str, u16);

/// A cluster IP that comes before some pods in a key; those of the fixture come behind all.
const LOW_IP: &str = "10.96.0.1";
/// Service `narrow`, of pods b and c.
const TWO: &str = "10.96.0.16";

/// Another node's pod is the only endpoint of Service `narrow` now.
fn moved(node: &mut Node) {
    let mut cluster = snapshot([A, B], vec![]);
    edit(&mut cluster.slices, |slice| {
        let elsewhere = |name: Option<&str>| name == Some("node2");
        if slice.service.name == "narrow" {
            slice
                .endpoints
                .retain(|endpoint| elsewhere(endpoint.node.as_deref()));
        }
    });
    node.apply(&cluster);
}

/// Live flows are to be judged again.
pub(crate) fn bump(node: &mut Node) {
    let steps = vec![PlanStep::BumpEpoch];
    node.simulator
        .maps
        .execute(&Plan { steps })
        .expect("execute");
}

/// What leads from Services to backends is evicted.
pub(crate) fn forget_faces(node: &Node) {
    node.simulator
        .forget_flow(|flow| flow.flags & FRONTEND_SIDE != 0);
}

/// The entry of a TCP connection, and the indexes of its opener and of the other end.
fn entry(node: &Node, opener: At<'_>, to: At<'_>) -> (Flow, usize, usize) {
    let (from, peer) = (address(opener.0).into(), address(to.0).into());
    let (key, side) = FlowKey::new(&from, opener.1, &peer, to.1, 6);
    let flow = node.simulator.flows()[&key];
    let expected = match side {
        Side::Low => 0,
        Side::High => OPENER_HIGH,
    };
    assert_eq!(
        flow.flags & OPENER_HIGH,
        expected,
        "{opener:?} opened {to:?}"
    );
    (flow, side as usize, side.other() as usize)
}

/// The approval of a pod.
fn approval(node: &Node, pod: &str, ifindex: u32, role: u32, rule: u32) -> End {
    End {
        endpoint: endpoint_id(pod),
        role,
        epoch: node.simulator.maps.control(control::EPOCH) as u32,
        rule,
        ifindex,
    }
}

#[test]
fn both_ends_of_a_connection_have_what_is_theirs() {
    for [(from, client, device), (to, server, other)] in [
        [("a", POD_A, A), ("b", POD_B, B)],
        [("b", POD_B, B), ("a", POD_A, A)],
    ] {
        let node = Node::new(vec![]);
        let syn = tcp_packet((client, 4000), (server, 8080), tcp::SYN);
        node.enter(other, device, &node.leave(device, &syn).1);
        let back = answer(&syn).expect("answer");
        let (_, received) = node.enter(device, other, &node.leave(other, &back).1);
        assert_eq!(received, back);
        let (flow, opener, responder) = entry(&node, (client, 4000), (server, 8080));
        assert_eq!(flow.flags & !OPENER_HIGH, BACKEND_SIDE);
        let approved = |pod, ifindex, role| approval(&node, pod, ifindex, role, RULE_NOT_ISOLATED);
        assert_eq!(flow.ends[opener], approved(from, device, ROLE_OPENER));
        assert_eq!(flow.ends[responder], approved(to, other, ROLE_RESPONDER));
        assert_eq!(flow.tcp_flags[opener], tcp::SYN);
        assert_eq!(flow.tcp_flags[responder], tcp::SYN | tcp::ACK);
        assert_eq!(flow.packets, [1, 1]);
        assert_eq!(flow.bytes, [syn.len() as u64; 2]);
    }
}

#[test]
fn a_service_has_an_entry_for_each_of_its_faces() {
    let mut cluster = snapshot([A, B], vec![]);
    edit(&mut cluster.services, |service| {
        if service.name.name == "all" {
            service.cluster_ips[0] = address(LOW_IP);
        }
    });
    let at = |ip: &str| weir_common::abi::Address::from(address(ip));
    for (pod, client, device, service, server) in [
        ("a", POD_A, A, SERVICE_B, POD_B),
        ("b", POD_B, B, LOW_IP, POD_A),
    ] {
        let mut node = Node::new(vec![]);
        node.apply(&cluster);
        node.leave(device, &tcp_packet((client, 4000), (service, 80), tcp::SYN));
        let approved = approval(&node, pod, device, ROLE_OPENER, RULE_NOT_ISOLATED);
        let (front, opener, other) = entry(&node, (client, 4000), (service, 80));
        assert_eq!(front.flags & !OPENER_HIGH, FRONTEND_SIDE | NAT);
        assert_eq!((front.nat_address, front.nat_port), (at(server), 8080));
        assert_eq!(
            (front.ends[opener], front.ends[other]),
            (approved, End::default())
        );
        assert_eq!(
            (front.tcp_flags[opener], front.tcp_flags[other]),
            (tcp::SYN, 0)
        );
        let (behind, opener, other) = entry(&node, (client, 4000), (server, 8080));
        assert_eq!(behind.flags & !OPENER_HIGH, BACKEND_SIDE | NAT);
        assert_eq!((behind.nat_address, behind.nat_port), (at(service), 80));
        assert_eq!(
            (behind.ends[opener], behind.ends[other]),
            (approved, End::default())
        );
        assert_eq!(
            (behind.backend, behind.service),
            (front.backend, front.service)
        );
    }
}

#[test]
fn a_pod_that_reaches_itself_has_two_entries_too() {
    let node = Node::new(vec![]);
    let syn = tcp_packet((POD_A, 4000), (SERVICE_SELF, 80), tcp::SYN);
    node.leave(A, &syn);
    let stand_in = std::net::IpAddr::from(HAIRPIN_V4).to_string();
    let (front, opener, _) = entry(&node, (POD_A, 4000), (SERVICE_SELF, 80));
    assert_eq!(front.flags & !OPENER_HIGH, FRONTEND_SIDE | NAT | HAIRPIN);
    let approved = |role| approval(&node, "a", A, role, RULE_HAIRPIN);
    assert_eq!(front.ends[opener], approved(ROLE_OPENER));
    let (behind, _, pod) = entry(&node, (&stand_in, 4000), (POD_A, 8080));
    assert_eq!(behind.flags & !OPENER_HIGH, BACKEND_SIDE | NAT | HAIRPIN);
    assert_eq!(behind.ends[pod], approved(ROLE_RESPONDER));
}

#[test]
fn nobody_is_judged_for_a_client_outside() {
    for (service, port) in [(SERVICE_B, 80), (NODE, NODE_PORT_NUMBER)] {
        let node = outside(vec![]);
        let packet = |flags| tcp_packet((CLIENT, 4000), (service, port), flags);
        arrive(&node, UPLINK, &packet(tcp::SYN));
        arrive(&node, UPLINK, &packet(tcp::ACK));
        let (front, opener, other) = entry(&node, (CLIENT, 4000), (service, port));
        assert_eq!(front.flags & !OPENER_HIGH, FRONTEND_SIDE | NAT | EXTERNAL);
        assert_eq!(front.ends, [End::default(); 2]);
        assert_eq!(
            (front.tcp_flags[opener], front.tcp_flags[other]),
            (tcp::SYN | tcp::ACK, 0)
        );
        let (behind, opener, other) = entry(&node, (CLIENT, 4000), (POD_B, 8080));
        assert_eq!(behind.flags & !OPENER_HIGH, BACKEND_SIDE | NAT | EXTERNAL);
        assert_eq!(behind.ends, [End::default(); 2]);
        assert_eq!(
            (behind.tcp_flags[opener], behind.tcp_flags[other]),
            (tcp::SYN | tcp::ACK, 0)
        );
        // It is counted where it enters the pod.
        assert_eq!(behind.packets, [0, 0]);
    }
}

/// The agent and the kernel forget what was not seen for long.
#[test]
fn both_entries_of_a_service_connection_are_seen() {
    let mut node = outside(vec![]);
    let inside = |flags| tcp_packet((POD_A, 4000), (SERVICE_B, 80), flags);
    let outside = |flags| tcp_packet((CLIENT, 4000), (SERVICE_B, 80), flags);
    node.leave(A, &inside(tcp::SYN));
    arrive(&node, UPLINK, &outside(tcp::SYN));
    node.clock += 100;
    assert_eq!(node.leave(A, &inside(tcp::ACK)).0, Reason::Established);
    assert_eq!(
        arrive(&node, UPLINK, &outside(tcp::ACK)).0,
        Reason::Established
    );
    for client in [POD_A, CLIENT] {
        for to in [(SERVICE_B, 80), (POD_B, 8080)] {
            let (flow, opener, _) = entry(&node, (client, 4000), to);
            assert_eq!(flow.last_seen, node.clock, "{client} to {to:?}");
            assert_eq!(flow.tcp_flags[opener], tcp::SYN | tcp::ACK);
        }
    }
}

#[test]
fn a_connection_goes_on_when_the_face_of_its_service_is_forgotten() {
    let packet = |flags| tcp_packet((POD_A, 4000), (SERVICE_B, 80), flags);
    let mut node = Node::new(vec![]);
    let (_, sent) = node.leave(A, &packet(tcp::SYN));
    node.enter(B, A, &sent);
    let (first, opener, responder) = entry(&node, (POD_A, 4000), (POD_B, 8080));
    node.clock += 100;
    forget_faces(&node);
    bump(&mut node);
    let (reason, again) = node.leave(A, &packet(tcp::ACK));
    assert_eq!(
        (reason, ends(&again)),
        (Reason::NotIsolated, ends(&sent)),
        "judged anew"
    );
    let (flow, ..) = entry(&node, (POD_A, 4000), (POD_B, 8080));
    assert_eq!(
        (flow.created, flow.last_seen),
        (first.created, first.created + 100)
    );
    assert_eq!((flow.packets[opener], flow.packets[responder]), (2, 0));
    assert_eq!(flow.tcp_flags[opener], tcp::SYN | tcp::ACK);
    assert_eq!(flow.ends[responder], first.ends[responder]);
    let approved = approval(&node, "a", A, ROLE_OPENER, RULE_NOT_ISOLATED);
    assert_eq!(flow.ends[opener], approved);
    assert_eq!(node.leave(A, &packet(tcp::ACK)).0, Reason::Established);
    // Nor does a SYN that is sent again make it another connection.
    forget_faces(&node);
    node.leave(A, &packet(tcp::SYN));
    let (flow, ..) = entry(&node, (POD_A, 4000), (POD_B, 8080));
    assert_eq!((flow.created, flow.packets[opener]), (first.created, 4));
    // What is over does not go on.
    node.leave(A, &packet(tcp::RST));
    forget_faces(&node);
    node.leave(A, &packet(tcp::SYN));
    let (flow, ..) = entry(&node, (POD_A, 4000), (POD_B, 8080));
    assert_eq!(
        (flow.packets[opener], flow.tcp_flags[opener]),
        (1, tcp::SYN)
    );
}

#[test]
fn a_clients_connection_goes_on_when_the_face_of_its_service_is_forgotten() {
    let mut node = outside(vec![]);
    let packet = |flags| tcp_packet((CLIENT, 4000), (SERVICE_B, 80), flags);
    let (_, sent) = arrive(&node, UPLINK, &packet(tcp::SYN));
    node.enter(B, UPLINK, &sent);
    let (first, opener, _) = entry(&node, (CLIENT, 4000), (POD_B, 8080));
    node.clock += 100;
    for flags in [tcp::SYN, tcp::ACK] {
        forget_faces(&node);
        let (reason, again) = arrive(&node, UPLINK, &packet(flags));
        assert_eq!((reason, ends(&again)), (Reason::Translated, ends(&sent)));
    }
    let (flow, ..) = entry(&node, (CLIENT, 4000), (POD_B, 8080));
    let seen = Flow {
        last_seen: node.clock,
        tcp_flags: flow.tcp_flags,
        ..first
    };
    assert_eq!(flow, seen);
    assert_eq!(flow.tcp_flags[opener], tcp::SYN | tcp::ACK);
    assert_eq!(
        arrive(&node, UPLINK, &packet(tcp::ACK)).0,
        Reason::Established
    );
    // What is over does not go on.
    arrive(&node, UPLINK, &packet(tcp::RST));
    forget_faces(&node);
    arrive(&node, UPLINK, &packet(tcp::SYN));
    let (flow, ..) = entry(&node, (CLIENT, 4000), (POD_B, 8080));
    assert_eq!(flow.tcp_flags[opener], tcp::SYN);
    assert_eq!(flow.ends, [End::default(); 2]);
}

/// Pod a's packet to Service `narrow`, with the luck that leads to the last backend.
fn unlucky(node: &Node, flags: u8) -> (Reason, std::net::IpAddr) {
    let step = Step {
        hook: Hook::FromPod,
        ifindex: A,
        ingress_ifindex: A,
        clock: node.clock,
        random: u32::MAX,
    };
    let packet = tcp_packet((POD_A, 4000), (TWO, 80), flags);
    let (verdict, reason, sent) = node.simulator.run(step, &packet);
    assert_eq!(verdict, Verdict::Pass);
    (Reason::from_u8(reason).expect("reason"), ends(&sent)[1].0)
}

/// By chance both would go elsewhere.
#[test]
fn a_connection_that_is_judged_again_keeps_its_backend_until_it_is_over() {
    let open = || {
        let node = Node::new(vec![]);
        let syn = tcp_packet((POD_A, 4000), (TWO, 80), tcp::SYN);
        let (_, sent) = node.leave(A, &syn);
        assert_eq!(ends(&sent)[1].0, address(POD_B));
        node
    };
    // Asked once more, and a last word after the end.
    for (before, flags) in [
        (None, tcp::SYN),
        (None, tcp::ACK),
        (Some(tcp::RST), tcp::ACK),
    ] {
        let mut node = open();
        if let Some(flags) = before {
            unlucky(&node, flags);
        }
        bump(&mut node);
        assert_eq!(
            unlucky(&node, flags),
            (Reason::NotIsolated, address(POD_B)),
            "{before:?} {flags}"
        );
    }
    let node = open();
    unlucky(&node, tcp::RST);
    assert_eq!(unlucky(&node, tcp::SYN).1, address(REMOTE));
    // Nobody has heard of it for a minute, and nobody answered.
    let mut node = open();
    node.clock += 61 * SECOND;
    assert_eq!(unlucky(&node, tcp::ACK).1, address(REMOTE));
}

/// Its tuple at the backend was evicted, and another connection of the client has had it meanwhile.
#[test]
fn a_connection_keeps_its_backend_when_who_took_its_place_is_gone() {
    let first = |flags| tcp_packet((POD_A, 4000), (TWO, 80), flags);
    let other = |flags| tcp_packet((POD_A, 4000), (SERVICE_B, 80), flags);
    for gone in [false, true] {
        let mut node = Node::new(vec![]);
        node.leave(A, &first(tcp::SYN));
        node.simulator
            .forget_flow(|flow| flow.flags & BACKEND_SIDE != 0);
        let (_, taken) = node.leave(A, &other(tcp::SYN));
        let place = [(address(POD_A), 4000), (address(POD_B), 8080)];
        assert_eq!(ends(&taken), place);
        if gone {
            node.leave(A, &other(tcp::RST));
        }
        moved(&mut node);
        let (reason, sent) = node.leave(A, &first(tcp::ACK));
        assert_eq!(reason, Reason::NotIsolated);
        // From a taken place it would get the other's answers.
        let expected = if gone { POD_B } else { REMOTE };
        assert_eq!(ends(&sent)[1].0, address(expected));
    }
}

/// As long as it lasts, a pod that may not be asked hears from whom it has asked.
#[test]
fn each_kind_of_connection_has_its_time() {
    let there = |flags| {
        (
            Hook::FromPod,
            tcp_packet((POD_A, 4000), (REMOTE, 80), flags),
        )
    };
    let back = |flags| (Hook::ToPod, tcp_packet((REMOTE, 80), (POD_A, 4000), flags));
    let opened = [there(tcp::SYN), back(tcp::SYN | tcp::ACK)];
    let then = |later: &[(Hook, Vec<u8>)]| [&opened, later].concat();
    let datagram = (Hook::FromPod, udp_packet((POD_A, 4000), (REMOTE, 80)));
    let answered = udp_packet((REMOTE, 80), (POD_A, 4000));
    let mut cases = vec![
        ("not answered", opened[..1].to_vec(), 60),
        ("not acknowledged", then(&[]), 60),
        ("open", then(&[there(tcp::ACK)]), 6 * 3600),
        ("reset", then(&[there(tcp::RST)]), 10),
        (
            "reset by both",
            then(&[there(tcp::RST), back(tcp::RST)]),
            10,
        ),
        (
            "ended by one",
            then(&[there(tcp::FIN | tcp::ACK)]),
            6 * 3600,
        ),
        (
            "ended by both",
            then(&[there(tcp::FIN | tcp::ACK), back(tcp::FIN | tcp::ACK)]),
            10,
        ),
    ]
    .into_iter()
    .map(|(what, sent, seconds)| (what, sent, back(tcp::ACK).1, seconds))
    .collect::<Vec<_>>();
    cases.push(("a datagram", vec![datagram], answered, 180));
    for (pod, peer) in FAMILIES {
        let ping = (Hook::FromPod, echo(Echo::Request, pod, peer, 7));
        cases.push(("a ping", vec![ping], echo(Echo::Reply, peer, pod, 7), 30));
    }
    for (what, sent, last, seconds) in cases {
        for (late, expected) in [(0, Reason::Reply), (1, Reason::PolicyDenied)] {
            let mut node = Node::new(vec![policy("in", "a", Some(vec![]), None)]);
            for (hook, packet) in &sent {
                let (_, reason, _) = node.run(*hook, A, UPLINK, packet);
                assert!(!reason.is_drop(), "{what}: {reason:?}");
            }
            node.clock += seconds * SECOND + late;
            assert_eq!(node.enter(A, UPLINK, &last).0, expected, "{what}, {late}");
        }
    }
}
