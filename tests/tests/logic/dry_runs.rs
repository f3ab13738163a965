//! What would become of a packet, asked without a trace.

use weir_common::abi::{Hook, Verdict};
use weir_common::reason::Reason;
use weir_tests::fixture::address;
use weir_tests::packets::{Content, Packet, answer, tcp};
use weir_tests::simulator::Step;

use super::entries::{bump, forget_faces};
use super::external::{CLIENT, NODE_PORT_NUMBER, SERVICE_C, TUNNEL, arrive, depart, outside};
use super::node::{
    A, B, NODE, Node, POD_A, POD_B, REMOTE, SERVICE_B, SERVICE_NONE, SERVICE_SELF, UPLINK,
    deny_all, tcp_packet, udp_packet,
};
use super::{fast, netfilter};

/// A Service that remembers its clients.
const REMEMBERING: &str = "10.96.0.15";

/// Where a packet passes, and what becomes of it.
#[derive(Clone, Copy)]
enum At {
    Hook(Hook, u32, u32),
    Xdp,
}

/// In words, the node, and the packet.
type Case = (&'static str, fn() -> Node, At, Vec<u8>);

fn pass(node: &Node, at: At, packet: &[u8]) -> (Verdict, Option<Reason>, Vec<u8>) {
    let (hook, ifindex, ingress_ifindex) = match at {
        At::Hook(hook, ifindex, from) => (hook, ifindex, from),
        At::Xdp => (Hook::FromNet, UPLINK, UPLINK),
    };
    let step = Step {
        hook,
        ifindex,
        ingress_ifindex,
        clock: node.clock,
        random: 0,
    };
    let (verdict, reason, packet) = match at {
        At::Hook(..) => node.simulator.run(step, packet),
        At::Xdp => node.simulator.run_xdp(step, packet),
    };
    (verdict, Reason::from_u8(reason), packet)
}

fn inside(flags: u8) -> Vec<u8> {
    tcp_packet((POD_A, 4000), (SERVICE_B, 80), flags)
}

fn from_client(flags: u8) -> Vec<u8> {
    tcp_packet((CLIENT, 4000), (SERVICE_C, 80), flags)
}

/// Pod a has a connection to Service b.
fn connected() -> Node {
    let node = outside(vec![]);
    node.leave(A, &inside(tcp::SYN));
    node
}

/// That is to be judged again.
fn bumped() -> Node {
    let mut node = connected();
    bump(&mut node);
    node
}

/// A client has one to the Service of the remote pod, by the network stack.
fn carried() -> Node {
    let node = outside(vec![]);
    let (_, packet) = arrive(&node, UPLINK, &from_client(tcp::SYN));
    depart(&node, TUNNEL, UPLINK, &packet);
    node
}

/// The same by XDP.
fn carried_fast() -> Node {
    let node = fast::node();
    pass(&node, At::Xdp, &from_client(tcp::SYN));
    node
}

/// Nobody asks what XDP would open: it leaves that to the others.
#[test]
fn a_dry_run_says_what_becomes_of_a_packet_and_leaves_no_trace() {
    let leaving = At::Hook(Hook::FromPod, A, A);
    let entering = |device, from| At::Hook(Hook::ToPod, device, from);
    let arriving = |device| At::Hook(Hook::FromNet, device, device);
    let departing = |device| At::Hook(Hook::ToNet, device, UPLINK);
    let fresh: fn() -> Node = || outside(vec![]);
    let denied: fn() -> Node = || outside(vec![deny_all("a"), deny_all("b")]);
    let cut: fn() -> Node = || {
        let mut node = connected();
        node.enforce(vec![deny_all("a")]);
        node
    };
    let faceless: fn() -> Node = || {
        let node = bumped();
        forget_faces(&node);
        node
    };
    let over: fn() -> Node = || {
        let node = carried();
        arrive(&node, UPLINK, &from_client(tcp::RST));
        node
    };
    let unanswered: fn() -> Node = || {
        let mut node = carried();
        let packet = udp_packet((POD_A, 4000), (SERVICE_B, 80));
        node.leave(A, &packet);
        node.clock += 61 * super::node::SECOND;
        let other = tcp_packet(("192.0.2.8", 4000), (SERVICE_C, 80), tcp::SYN);
        arrive(&node, UPLINK, &other);
        node
    };
    let taken_over: fn() -> Node = || {
        let node = netfilter::node(vec![]);
        netfilter::all_four(&node);
        node
    };
    let direct = |flags| tcp_packet((POD_A, 4000), (POD_B, 8080), flags);
    let behind = |client: &str, flags| tcp_packet((client, 4000), (REMOTE, 8080), flags);
    let to_port = tcp_packet((REMOTE, 8080), ("10.0.1.0", 4000), tcp::ACK);
    let to_uplink = tcp_packet((REMOTE, 8080), (NODE, 4000), tcp::ACK);
    let back = tcp_packet((REMOTE, 8080), (CLIENT, 4000), tcp::ACK);
    let remembered = tcp_packet((POD_A, 4000), (REMEMBERING, 80), tcp::SYN);
    let own = tcp_packet((POD_A, 4000), (SERVICE_SELF, 80), tcp::SYN);
    let nothing = udp_packet((POD_A, 4000), (SERVICE_NONE, 80));
    let asked = udp_packet((NODE, NODE_PORT_NUMBER), (CLIENT, 53));
    let (syn, ack) = (tcp::SYN, tcp::ACK);
    let answered = answer(&inside(ack)).expect("answer");
    let cases: Vec<Case> = vec![
        ("a first packet", fresh, leaving, direct(syn)),
        ("one that comes", fresh, entering(B, A), direct(syn)),
        ("one that is denied", denied, leaving, direct(syn)),
        (
            "the same at the other pod",
            denied,
            entering(B, A),
            direct(syn),
        ),
        ("a first one to a Service", fresh, leaving, inside(syn)),
        ("one that is remembered", fresh, leaving, remembered),
        ("one to the pod itself", fresh, leaving, own),
        ("one to nobody", fresh, leaving, nothing),
        ("a later one to a Service", connected, leaving, inside(ack)),
        ("one that is judged again", bumped, leaving, inside(ack)),
        ("one that is denied by now", cut, leaving, inside(ack)),
        (
            "one whose face is forgotten",
            faceless,
            leaving,
            inside(ack),
        ),
        ("one of netfilter's", taken_over, leaving, inside(ack)),
        (
            "an answer of netfilter's",
            taken_over,
            entering(A, B),
            answered,
        ),
        ("a client's", fresh, arriving(UPLINK), from_client(syn)),
        (
            "a later one of a client",
            carried,
            arriving(UPLINK),
            from_client(ack),
        ),
        (
            "one past its Service",
            over,
            arriving(UPLINK),
            behind(CLIENT, syn),
        ),
        (
            "a client's on its way",
            carried,
            departing(TUNNEL),
            behind(CLIENT, ack),
        ),
        (
            "by another device",
            carried,
            departing(UPLINK),
            behind(CLIENT, ack),
        ),
        (
            "for a port in use",
            unanswered,
            departing(TUNNEL),
            behind("192.0.2.8", syn),
        ),
        ("a backend's", carried, arriving(TUNNEL), to_port),
        (
            "a backend's on its way",
            carried,
            departing(UPLINK),
            back.clone(),
        ),
        ("the node's own", fresh, departing(UPLINK), asked),
        (
            "one of XDP's by the stack",
            carried_fast,
            departing(UPLINK),
            back,
        ),
        (
            "a later one at XDP",
            carried_fast,
            At::Xdp,
            from_client(ack),
        ),
        ("a backend's at XDP", carried_fast, At::Xdp, to_uplink),
    ];
    for (what, node, at, packet) in cases {
        let expected = pass(&node(), at, &packet);
        let mut node = node();
        node.simulator.take_events();
        let state = |node: &Node| {
            let simulator = &node.simulator;
            let affinities = simulator.affinities();
            (simulator.flows(), simulator.counters(), affinities)
        };
        let before = state(&node);
        node.simulator.dry_run = true;
        assert_eq!(pass(&node, at, &packet), expected, "{what}");
        assert_eq!(state(&node), before, "{what}");
        assert_eq!(node.simulator.take_events(), [], "{what}");
        node.simulator.dry_run = false;
        assert_eq!(pass(&node, at, &packet), expected, "{what}");
        assert_ne!(state(&node), before, "{what} leaves traces");
    }
}

#[test]
fn a_dry_run_notes_no_fragment() {
    let mut node = Node::new(vec![]);
    let part = |offset| {
        let content = Content::Udp {
            source: 4000,
            destination: 8080,
            payload: 64,
            checksum: true,
        };
        let mut packet = Packet::new(address(POD_A), address(POD_B), content);
        packet.fragment = Some((7, offset, offset == 0));
        packet.bytes()
    };
    node.simulator.dry_run = true;
    assert_eq!(node.leave(A, &part(0)).0, Reason::NotIsolated);
    node.simulator.dry_run = false;
    assert_eq!(node.leave(A, &part(9)).0, Reason::UnknownFragment);
}

#[test]
fn a_dry_run_takes_no_error_from_those_who_ask() {
    let mut node = Node::new(vec![]);
    let asked = udp_packet((POD_A, 4000), (SERVICE_NONE, 80));
    for dry in [true, false] {
        node.simulator.dry_run = dry;
        for _ in 0..1000 {
            let (verdict, ..) = node.run(Hook::FromPod, A, A, &asked);
            assert_eq!(verdict, Verdict::Return);
        }
    }
}
