//! Clients outside the cluster: node ports, virtual addresses that are routed to the node, backends here and elsewhere.

use std::sync::Arc;

use weir::compile::{FrontendEntry, compile};
use weir::plan::{Plan, Step as PlanStep};
use weir_common::abi::{
    BACKEND_SIDE, DROP_EXTERNAL, Device, EXTERNAL, Flow, FrontendKey, Hook, NODE_PORT, SOURCE_SIDE,
    Verdict,
};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, policy, snapshot, to};
use weir_tests::packets::{Content, Packet, answer, tcp};

use super::node::{
    A, B, NODE, Node, POD_B, REMOTE, SERVICE_B, SERVICE_NONE, UPLINK, deny_all, ends, tcp_packet,
    udp_packet,
};

pub(crate) const CLIENT: &str = "192.0.2.7";
/// Service `all`, of pods a and b here and c on another node.
const SERVICE_ALL: &str = "10.96.0.10";
/// The tunnel device, and the node's address there.
pub(crate) const TUNNEL: u32 = 3;
pub(crate) const OVERLAY: &str = "10.0.1.0";
/// A Service whose only pod is on another node, and one whose external policy is Local.
pub(crate) const SERVICE_C: &str = "10.96.0.20";
const SERVICE_LOCAL: &str = "10.96.0.21";
pub(crate) const NODE_PORT_NUMBER: u16 = 30080;
/// Ports for clients, and the kernel's own.
const PORTS: [u16; 2] = [61000, 61003];
const LOCAL_PORTS: [u16; 2] = [32768, 60999];

fn key(address_of: &str, port: u16, protocol: u8) -> FrontendKey {
    FrontendKey {
        address: address(address_of).into(),
        port,
        protocol,
        reserved: 0,
    }
}

/// A node with an uplink and a tunnel, and with frontends of kinds that the fixture has not.
pub(crate) fn outside(policies: Vec<weir::model::Policy>) -> Node {
    let mut node = Node::new(vec![]);
    let mut tables = compile(&snapshot([A, B], policies));
    for protocol in [6, 17] {
        let all = tables.services.frontends[&key(SERVICE_ALL, 80, protocol)].clone();
        let of_b = tables.services.frontends[&key(SERVICE_B, 80, protocol)].clone();
        let only_c: Arc<[_]> = all
            .external
            .iter()
            .filter(|backend| backend.address == address(REMOTE))
            .copied()
            .collect();
        assert_eq!(only_c.len(), 1);
        let services = [
            (
                SERVICE_C,
                80,
                FrontendEntry {
                    external: only_c,
                    ..all.clone()
                },
            ),
            (
                SERVICE_LOCAL,
                80,
                FrontendEntry {
                    external: Arc::default(),
                    flags: DROP_EXTERNAL,
                    ..all.clone()
                },
            ),
            (
                NODE,
                NODE_PORT_NUMBER,
                FrontendEntry {
                    flags: NODE_PORT,
                    ..of_b.clone()
                },
            ),
        ];
        for (virtual_address, port, entry) in services {
            let key = key(virtual_address, port, protocol);
            tables.services.frontends.insert(key, entry);
        }
    }
    for virtual_address in [SERVICE_C, SERVICE_LOCAL] {
        let wildcard = tables.services.frontends[&key(SERVICE_ALL, 0, 0)].clone();
        let key = key(virtual_address, 0, 0);
        tables.services.frontends.insert(key, wildcard);
    }
    node.apply_tables(&tables);
    for (ifindex, v4, v6) in [(UPLINK, NODE, "fd30::1"), (TUNNEL, OVERLAY, "fd00:1::")] {
        let device = Device {
            v4: address(v4).into(),
            v6: address(v6).into(),
            ports: PORTS,
            local_ports: LOCAL_PORTS,
        };
        node.simulator.devices.insert(ifindex, device);
    }
    node
}

/// A packet comes in by a device of the node.
pub(crate) fn arrive(node: &Node, device: u32, packet: &[u8]) -> (Reason, Vec<u8>) {
    let (verdict, reason, packet) = node.run(Hook::FromNet, device, device, packet);
    assert_eq!(verdict != Verdict::Pass, reason.is_drop());
    (reason, packet)
}

/// A packet that came in by `from` goes out by a device of the node.
pub(crate) fn depart(node: &Node, device: u32, from: u32, packet: &[u8]) -> (Reason, Vec<u8>) {
    let (verdict, reason, packet) = node.run(Hook::ToNet, device, from, packet);
    assert_eq!(verdict == Verdict::Drop, reason.is_drop());
    (reason, packet)
}

fn flows_with(node: &Node, flag: u16) -> Vec<Flow> {
    let flows = node.simulator.flows().into_values();
    flows.filter(|flow| flow.flags & flag != 0).collect()
}

#[test]
fn a_local_backend_sees_the_client_and_the_client_the_service() {
    for (service, port) in [(SERVICE_B, 80), (NODE, NODE_PORT_NUMBER)] {
        for packet in [
            tcp_packet((CLIENT, 4000), (service, port), tcp::SYN),
            udp_packet((CLIENT, 4000), (service, port)),
        ] {
            let node = outside(vec![]);
            let (reason, sent) = arrive(&node, UPLINK, &packet);
            assert_eq!(reason, Reason::Translated);
            let expected = [(address(CLIENT), 4000), (address(POD_B), 8080)];
            assert_eq!(ends(&sent), expected);
            assert_eq!(node.enter(B, UPLINK, &sent).0, Reason::NotIsolated);
            let (reason, back) = node.leave(B, &answer(&sent).expect("answer"));
            assert_eq!(
                (reason, ends(&back)[0]),
                (Reason::Reply, (address(POD_B), 8080))
            );
            let (reason, back) = depart(&node, UPLINK, B, &back);
            assert_eq!(reason, Reason::Reply);
            let expected = [(address(service), port), (address(CLIENT), 4000)];
            assert_eq!(ends(&back), expected);
            assert_eq!(arrive(&node, UPLINK, &packet).0, Reason::Established);
        }
    }
}

#[test]
fn policy_at_a_local_backend_judges_the_client() {
    let from_client = |cidr: &str| {
        let rule = weir_tests::fixture::block(cidr, &[]);
        policy("clients", "b", Some(vec![rule]), None)
    };
    for (cidr, expected) in [
        ("192.0.2.0/24", Reason::PolicyAllowed),
        // The node's own address would match this one, and so would "born on the node".
        ("172.30.0.0/16", Reason::PolicyDenied),
    ] {
        let node = outside(vec![from_client(cidr)]);
        let syn = tcp_packet((CLIENT, 4000), (NODE, NODE_PORT_NUMBER), tcp::SYN);
        let (_, sent) = arrive(&node, UPLINK, &syn);
        assert_eq!(node.enter(B, UPLINK, &sent).0, expected);
        let (reason, _) = node.leave(B, &answer(&sent).expect("answer"));
        assert_eq!(reason == Reason::Reply, expected == Reason::PolicyAllowed);
    }
    let node = outside(vec![
        deny_all("b"),
        policy("b", "b", Some(vec![to("a", &[])]), None),
    ]);
    let syn = tcp_packet((CLIENT, 4000), (SERVICE_B, 80), tcp::SYN);
    let (_, sent) = arrive(&node, UPLINK, &syn);
    assert_eq!(node.enter(B, UPLINK, &sent).0, Reason::PolicyDenied);
}

#[test]
fn a_remote_backend_sees_the_nodes_address_on_the_way_there() {
    for packet in [
        tcp_packet((CLIENT, 4000), (SERVICE_C, 80), tcp::SYN),
        udp_packet((CLIENT, 4000), (SERVICE_C, 80)),
    ] {
        let node = outside(vec![]);
        let (_, inside) = arrive(&node, UPLINK, &packet);
        assert_eq!(
            ends(&inside),
            [(address(CLIENT), 4000), (address(REMOTE), 8080)]
        );
        let (reason, sent) = depart(&node, TUNNEL, UPLINK, &inside);
        assert_eq!(reason, Reason::Translated);
        assert_eq!(
            ends(&sent),
            [(address(OVERLAY), 4000), (address(REMOTE), 8080)]
        );
        let (reason, back) = arrive(&node, TUNNEL, &answer(&sent).expect("answer"));
        assert_eq!(reason, Reason::Reply);
        assert_eq!(
            ends(&back),
            [(address(REMOTE), 8080), (address(CLIENT), 4000)]
        );
        let (reason, back) = depart(&node, UPLINK, TUNNEL, &back);
        assert_eq!(reason, Reason::Reply);
        assert_eq!(
            ends(&back),
            [(address(SERVICE_C), 80), (address(CLIENT), 4000)]
        );
        // And on, with the same port; each packet is counted once.
        assert_eq!(
            depart(&node, TUNNEL, UPLINK, &inside),
            (Reason::Established, sent)
        );
        let [flow] = flows_with(&node, BACKEND_SIDE)[..] else {
            panic!("one flow");
        };
        assert_eq!(flow.packets.iter().sum::<u64>(), 3);
    }
}

#[test]
fn a_client_may_come_and_go_by_one_device() {
    let node = outside(vec![]);
    let syn = tcp_packet((CLIENT, 4000), (SERVICE_C, 80), tcp::SYN);
    let (_, inside) = arrive(&node, UPLINK, &syn);
    let (_, sent) = depart(&node, UPLINK, UPLINK, &inside);
    assert_eq!(ends(&sent)[0], (address(NODE), 4000));
    let (_, back) = arrive(&node, UPLINK, &answer(&sent).expect("answer"));
    let (_, back) = depart(&node, UPLINK, UPLINK, &back);
    assert_eq!(
        ends(&back),
        [(address(SERVICE_C), 80), (address(CLIENT), 4000)]
    );
}

#[test]
fn a_client_that_is_the_backend_itself_reaches_itself_through_the_node() {
    let node = outside(vec![]);
    let syn = tcp_packet((REMOTE, 4000), (SERVICE_C, 80), tcp::SYN);
    let (_, inside) = arrive(&node, UPLINK, &syn);
    assert_eq!(
        ends(&inside),
        [(address(REMOTE), 4000), (address(REMOTE), 8080)]
    );
    let (_, sent) = depart(&node, UPLINK, UPLINK, &inside);
    assert_eq!(
        ends(&sent),
        [(address(NODE), 4000), (address(REMOTE), 8080)]
    );
    let (_, back) = arrive(&node, UPLINK, &answer(&sent).expect("answer"));
    let (_, back) = depart(&node, UPLINK, UPLINK, &back);
    assert_eq!(
        ends(&back),
        [(address(SERVICE_C), 80), (address(REMOTE), 4000)]
    );
}

/// Opens a connection of a client by the tunnel; its port there, or why there is none.
pub(crate) fn connect(node: &Node, client: &str, port: u16) -> Result<u16, Reason> {
    let syn = tcp_packet((client, port), (SERVICE_C, 80), tcp::SYN);
    let (_, inside) = arrive(node, UPLINK, &syn);
    let (reason, sent) = depart(node, TUNNEL, UPLINK, &inside);
    match reason {
        Reason::Translated => Ok(ends(&sent)[0].1),
        reason => Err(reason),
    }
}

#[test]
fn ports_that_collide_come_from_the_range_until_it_is_used_up() {
    let node = outside(vec![]);
    assert_eq!(connect(&node, "192.0.2.1", 4000), Ok(4000));
    // Another client's, and one that the kernel may give to a socket of the node any time.
    assert_eq!(connect(&node, "192.0.2.2", 4000), Ok(61000));
    assert_eq!(connect(&node, "192.0.2.3", 40_000), Ok(61001));
    assert_eq!(connect(&node, "192.0.2.4", 61_002), Ok(61002));
    assert_eq!(connect(&node, "192.0.2.5", 4000), Ok(61003));
    assert_eq!(connect(&node, "192.0.2.6", 4000), Err(Reason::NoSourcePort));
    let counter = Hook::ToNet.counter(Reason::NoSourcePort);
    assert_eq!(node.simulator.counters()[&counter].packets, 1);
    // Each goes back to its own client.
    for (port, client) in [(4000, ("192.0.2.1", 4000)), (61001, ("192.0.2.3", 40_000))] {
        let back = tcp_packet((REMOTE, 8080), (OVERLAY, port), tcp::SYN | tcp::ACK);
        let (_, back) = arrive(&node, TUNNEL, &back);
        assert_eq!(ends(&back)[1], (address(client.0), client.1));
    }
    // No claim is left behind.
    assert!(node.simulator.flows().keys().all(|key| key.claimed == 0));
}

#[test]
fn a_port_is_free_again_when_its_connection_is_over() {
    let mut node = outside(vec![]);
    assert_eq!(connect(&node, "192.0.2.1", 4000), Ok(4000));
    let reset = tcp_packet((REMOTE, 8080), (OVERLAY, 4000), tcp::RST);
    arrive(&node, TUNNEL, &reset);
    assert_eq!(connect(&node, "192.0.2.2", 4000), Ok(4000));
    let back = tcp_packet((REMOTE, 8080), (OVERLAY, 4000), tcp::SYN | tcp::ACK);
    assert_eq!(
        ends(&arrive(&node, TUNNEL, &back).1)[1].0,
        address("192.0.2.2")
    );
    // Unanswered ones are forgotten.
    node.clock += 61 * super::node::SECOND;
    assert_eq!(connect(&node, "192.0.2.3", 4000), Ok(4000));
    assert!(node.simulator.flows().keys().all(|key| key.claimed == 0));
}

#[test]
fn a_flow_whose_port_was_evicted_gets_it_back_while_it_is_free() {
    let node = outside(vec![]);
    let syn = tcp_packet((CLIENT, 40_000), (SERVICE_C, 80), tcp::SYN);
    let (_, inside) = arrive(&node, UPLINK, &syn);
    let (_, sent) = depart(&node, TUNNEL, UPLINK, &inside);
    assert_eq!(ends(&sent)[0].1, 61000);
    node.simulator
        .forget_flow(|flow| flow.flags & SOURCE_SIDE != 0);
    assert_eq!(connect(&node, "192.0.2.9", 61_001), Ok(61001));
    assert_eq!(
        depart(&node, TUNNEL, UPLINK, &inside),
        (Reason::Translated, sent)
    );
}

#[test]
fn a_flow_that_leaves_by_another_device_speaks_as_the_node_there() {
    let node = outside(vec![]);
    let syn = tcp_packet((CLIENT, 4000), (SERVICE_C, 80), tcp::SYN);
    let (_, inside) = arrive(&node, UPLINK, &syn);
    depart(&node, TUNNEL, UPLINK, &inside);
    let (reason, sent) = depart(&node, UPLINK, UPLINK, &inside);
    assert_eq!(
        (reason, ends(&sent)[0]),
        (Reason::Translated, (address(NODE), 4000))
    );
}

#[test]
fn a_device_without_an_address_sends_nobodys_packets() {
    let mut node = outside(vec![]);
    let syn = tcp_packet((CLIENT, 4000), (SERVICE_C, 80), tcp::SYN);
    let (_, inside) = arrive(&node, UPLINK, &syn);
    assert_eq!(depart(&node, 99, UPLINK, &inside).0, Reason::NoSourcePort);
    node.simulator.devices.get_mut(&TUNNEL).expect("tunnel").v4 = Default::default();
    assert_eq!(
        depart(&node, TUNNEL, UPLINK, &inside).0,
        Reason::NoSourcePort
    );
}

#[test]
fn services_that_lead_nowhere_refuse_or_drop_as_their_policies_say() {
    let node = outside(vec![]);
    let refused = |packet: &[u8]| node.run(Hook::FromNet, UPLINK, UPLINK, packet);
    let syn = |service, port| tcp_packet((CLIENT, 4000), (service, port), tcp::SYN);
    let (verdict, reason, reset) = refused(&syn(SERVICE_NONE, 80));
    assert_eq!((verdict, reason), (Verdict::Return, Reason::NoEndpoint));
    assert_eq!(
        ends(&reset),
        [(address(SERVICE_NONE), 80), (address(CLIENT), 4000)]
    );
    assert_eq!(reset[47], tcp::RST | tcp::ACK);
    let (verdict, reason, error) = refused(&udp_packet((CLIENT, 4000), (SERVICE_NONE, 80)));
    assert_eq!((verdict, reason), (Verdict::Return, Reason::NoEndpoint));
    assert_eq!(&error[34..36], &[3, 3]);
    let (verdict, reason, _) = refused(&syn(SERVICE_B, 81));
    assert_eq!((verdict, reason), (Verdict::Return, Reason::NoServicePort));
    let (verdict, reason, _) = refused(&syn(SERVICE_LOCAL, 80));
    assert_eq!((verdict, reason), (Verdict::Drop, Reason::NoLocalEndpoint));
    let (verdict, reason, _) = refused(&syn("10.96.0.99", 80));
    assert_eq!((verdict, reason), (Verdict::Drop, Reason::NoService));
    let (verdict, reason, _) = refused(&udp_packet((CLIENT, 4000), ("10.96.0.99", 80)));
    assert_eq!((verdict, reason), (Verdict::Drop, Reason::NoService));
    // Inside the cluster that Service has endpoints.
    let inside = tcp_packet((POD_B, 4000), (SERVICE_LOCAL, 80), tcp::SYN);
    assert_eq!(node.leave(B, &inside).0, Reason::NotIsolated);
    // No entry is made for any of these.
    assert!(flows_with(&node, EXTERNAL).is_empty());
}

#[test]
fn what_is_not_for_a_service_goes_on_as_it_came() {
    let node = outside(vec![]);
    let ping = Content::Icmp {
        kind: 8,
        code: 0,
        rest: 1,
        payload: vec![],
    };
    let mut vlan = tcp_packet((CLIENT, 4000), (SERVICE_B, 80), tcp::SYN);
    vlan[12..14].copy_from_slice(&[0x81, 0]);
    for packet in [
        tcp_packet((CLIENT, 4000), (NODE, 22), tcp::SYN),
        // Only what may open a connection is looked up among nobody's addresses.
        tcp_packet((CLIENT, 4000), ("10.96.0.99", 80), tcp::ACK),
        tcp_packet((CLIENT, 4000), (POD_B, 8080), tcp::SYN),
        udp_packet((CLIENT, 4000), (NODE, 8472)),
        // The node's port at another address.
        tcp_packet((CLIENT, 4000), ("172.30.0.9", NODE_PORT_NUMBER), tcp::SYN),
        Packet::new(address(CLIENT), address(NODE), ping).bytes(),
        vlan,
        // Cut short.
        tcp_packet((CLIENT, 4000), (SERVICE_B, 80), tcp::SYN)[..30].to_vec(),
    ] {
        assert_eq!(
            arrive(&node, UPLINK, &packet),
            (Reason::NotService, packet.clone())
        );
        let left = depart(&node, UPLINK, 0, &packet);
        assert_eq!(left, (Reason::NotService, packet));
    }
    assert!(node.simulator.flows().is_empty());
}

#[test]
fn on_a_nodes_own_address_only_an_opening_packet_is_for_the_node_port() {
    let node = outside(vec![]);
    // The kernel chose the node port's number for a connection that somebody made in the node's name.
    let back = tcp_packet((CLIENT, 443), (NODE, NODE_PORT_NUMBER), tcp::SYN | tcp::ACK);
    assert_eq!(arrive(&node, UPLINK, &back), (Reason::NotService, back));
    // A virtual address has no other use: a connection that was forgotten goes on.
    let data = tcp_packet((CLIENT, 443), (SERVICE_B, 80), tcp::ACK);
    assert_eq!(arrive(&node, UPLINK, &data).0, Reason::Translated);
    // UDP does not tell. What left from that port is remembered.
    let asked = udp_packet((NODE, NODE_PORT_NUMBER), (CLIENT, 53));
    assert_eq!(depart(&node, UPLINK, A, &asked).0, Reason::NotService);
    let answered = answer(&asked).expect("answer");
    assert_eq!(
        arrive(&node, UPLINK, &answered),
        (Reason::NotService, answered)
    );
    let (reason, _) = arrive(
        &node,
        UPLINK,
        &udp_packet((CLIENT, 54), (NODE, NODE_PORT_NUMBER)),
    );
    assert_eq!(reason, Reason::Translated);
}

#[test]
fn a_client_that_goes_past_the_service_waits_for_its_connection_to_end() {
    let node = outside(vec![]);
    let through = |flags| tcp_packet((CLIENT, 4000), (SERVICE_B, 80), flags);
    let past = tcp_packet((CLIENT, 4000), (POD_B, 8080), tcp::SYN);
    arrive(&node, UPLINK, &through(tcp::SYN));
    assert_eq!(arrive(&node, UPLINK, &past).0, Reason::TupleClash);
    arrive(&node, UPLINK, &through(tcp::RST));
    assert_eq!(arrive(&node, UPLINK, &past).0, Reason::NotService);
    node.enter(B, UPLINK, &past);
    // Its answers are its own.
    let (_, back) = node.leave(B, &answer(&past).expect("answer"));
    assert_eq!(depart(&node, UPLINK, B, &back), (Reason::NotService, back));
}

#[test]
fn a_clients_own_connection_to_a_pod_passes_in_both_directions() {
    let node = outside(vec![]);
    for flags in [tcp::SYN, tcp::ACK] {
        let there = tcp_packet((CLIENT, 4000), (POD_B, 8080), flags);
        let back = answer(&there).expect("answer");
        assert_eq!(
            arrive(&node, UPLINK, &there),
            (Reason::NotService, there.clone())
        );
        node.enter(B, UPLINK, &there);
        node.leave(B, &back);
        assert_eq!(depart(&node, UPLINK, B, &back), (Reason::NotService, back));
    }
}

#[test]
fn a_port_used_again_opens_a_new_connection() {
    let node = outside(vec![]);
    let through = |flags| tcp_packet((CLIENT, 4000), (SERVICE_B, 80), flags);
    arrive(&node, UPLINK, &through(tcp::SYN));
    assert_eq!(
        arrive(&node, UPLINK, &through(tcp::SYN)).0,
        Reason::Established
    );
    arrive(&node, UPLINK, &through(tcp::RST));
    assert_eq!(
        arrive(&node, UPLINK, &through(tcp::SYN)).0,
        Reason::Translated
    );
    let [flow] = flows_with(&node, BACKEND_SIDE)[..] else {
        panic!("one flow");
    };
    assert_eq!(flow.tcp_flags[0] | flow.tcp_flags[1], tcp::SYN);
}

#[test]
fn a_change_of_policy_cuts_a_clients_connection_too() {
    let mut node = outside(vec![]);
    let syn = tcp_packet((CLIENT, 4000), (SERVICE_B, 80), tcp::SYN);
    let (_, sent) = arrive(&node, UPLINK, &syn);
    node.enter(B, UPLINK, &sent);
    node.enforce(vec![policy("in", "b", Some(vec![]), None)]);
    let bump = Plan {
        steps: vec![PlanStep::BumpEpoch],
    };
    node.simulator.maps.execute(&bump).expect("bump");
    assert_eq!(node.enter(B, UPLINK, &sent).0, Reason::PolicyDenied);
    let (reason, _) = node.leave(B, &answer(&sent).expect("answer"));
    assert_eq!(reason, Reason::PolicyDenied);
}

#[test]
fn fragments_take_the_way_of_their_first() {
    let node = outside(vec![]);
    let content = |source, destination| Content::Udp {
        source,
        destination,
        payload: 64,
        checksum: true,
    };
    let fragment = |from: (&str, u16), to: (&str, u16), part| {
        let mut packet = Packet::new(address(from.0), address(to.0), content(from.1, to.1));
        packet.fragment = Some(part);
        packet.bytes()
    };
    let (first, later) = ((7, 0, true), (7, 9, false));
    let asked = |part| fragment((CLIENT, 4000), (SERVICE_C, 80), part);
    // A Service's, but whose?
    assert_eq!(
        arrive(&node, UPLINK, &asked(later)).0,
        Reason::UnknownFragment
    );
    // Nobody's: none of Weir's business.
    let other = fragment((CLIENT, 4000), (NODE, 9), later);
    assert_eq!(arrive(&node, UPLINK, &other), (Reason::NotService, other));
    for part in [first, later] {
        let (reason, inside) = arrive(&node, UPLINK, &asked(part));
        assert!(!reason.is_drop(), "{reason:?}");
        assert_eq!(inside[30..34], [10, 0, 2, 1]);
        let (reason, sent) = depart(&node, TUNNEL, UPLINK, &inside);
        assert!(!reason.is_drop(), "{reason:?}");
        assert_eq!(sent[26..30], [10, 0, 1, 0]);
    }
    for part in [first, later] {
        let back = fragment((REMOTE, 8080), (OVERLAY, 4000), part);
        let (reason, inside) = arrive(&node, TUNNEL, &back);
        assert_eq!(
            (reason, &inside[30..34]),
            (Reason::Reply, &[192, 0, 2, 7][..])
        );
        let (reason, sent) = depart(&node, UPLINK, TUNNEL, &inside);
        assert_eq!(
            (reason, &sent[26..30]),
            (Reason::Reply, &[10, 96, 0, 20][..])
        );
    }
}

/// loadBalancerSourceRanges: of new connections, from whichever side they come.
#[test]
fn a_load_balancer_asks_where_a_client_outside_comes_from() {
    const BALANCER: (&str, u16) = ("192.0.2.17", 80);
    // An address of the range, and one that is not.
    for (client, reason) in [
        ("10.0.1.1", Reason::Translated),
        (CLIENT, Reason::SourceRange),
    ] {
        let node = outside(vec![]);
        let opening = tcp_packet((client, 4000), BALANCER, tcp::SYN);
        assert_eq!(arrive(&node, UPLINK, &opening).0, reason, "{client}");
        let datagram = udp_packet((client, 4000), BALANCER);
        assert_eq!(arrive(&node, UPLINK, &datagram).0, reason, "{client}");
    }
}
