//! Services at other addresses than cluster IPs.

use weir::model::{ForeignService, ObjectName, Service, Snapshot, TrafficPolicy};

use super::*;

/// Where Service `open` is met: load balancer, external address, node.
const OPEN: [(&str, u16); 4] = [
    ("10.96.0.15", 80),
    ("192.0.2.15", 80),
    ("192.0.2.16", 80),
    (NODE, 30015),
];

fn with(change: impl FnOnce(&mut Service)) -> Snapshot {
    let mut snapshot = snapshot([A, B], vec![]);
    let name = ObjectName::new("shop", "open");
    let mut service = (*snapshot.services[&name]).clone();
    change(&mut service);
    snapshot.services.insert(name, service.into());
    snapshot
}

#[test]
fn pods_reach_a_service_at_each_of_its_addresses() {
    let node = Node::new(vec![]);
    for (index, to) in (0..).zip(OPEN) {
        let client = (POD_B, 4000 + index);
        let (reason, sent) = node.leave(B, &tcp_packet(client, to, tcp::SYN));
        assert_eq!(reason, Reason::NotIsolated, "{to:?}");
        assert_eq!(ends(&sent)[1], (address(POD_A), 8080), "{to:?}");
        let (_, received) = node.enter(A, B, &sent);
        let (_, answered) = node.leave(A, &answer(&received).expect("answer"));
        let (_, back) = node.enter(B, A, &answered);
        assert_eq!(ends(&back)[0], (address(to.0), to.1), "{to:?}");
    }
}

/// Other ports of these addresses may be anybody's: the node's own servers, or another Service's of the same load balancer.
#[test]
fn only_the_ports_of_a_service_are_taken() {
    let node = Node::new(vec![]);
    for (host, port) in [
        (NODE, 80),
        (NODE, 22),
        ("192.0.2.15", 81),
        ("192.0.2.16", 30015),
    ] {
        let packet = tcp_packet((POD_A, 4000), (host, port), tcp::SYN);
        assert_eq!(
            node.leave(A, &packet),
            (Reason::NotIsolated, packet.clone())
        );
    }
    // The node port of another node is that node's to serve.
    let packet = tcp_packet((POD_A, 4000), ("172.30.0.2", 30015), tcp::SYN);
    assert_eq!(
        node.leave(A, &packet),
        (Reason::NotIsolated, packet.clone())
    );
    let packet = tcp_packet((POD_A, 4000), ("10.96.0.15", 30015), tcp::SYN);
    assert_eq!(node.leave(A, &packet).0, Reason::NoServicePort);
}

/// internalTrafficPolicy speaks of cluster IPs, externalTrafficPolicy of clients that are not in the cluster.
#[test]
fn traffic_policies_do_not_keep_pods_from_other_addresses() {
    let mut node = Node::new(vec![]);
    let mut snapshot = with(|service| {
        service.internal_traffic_policy = TrafficPolicy::Local;
        service.external_traffic_policy = TrafficPolicy::Local;
    });
    let remote_pod = |address: &IpAddr| [REMOTE, "fd00:2::1"].map(super::address).contains(address);
    edit(&mut snapshot.slices, |slice| {
        slice
            .endpoints
            .retain(|endpoint| remote_pod(&endpoint.address));
    });
    node.apply(&snapshot);
    for (index, to) in (0..).zip(OPEN) {
        let (reason, sent) = node.leave(A, &tcp_packet((POD_A, 4000 + index), to, tcp::SYN));
        if index == 0 {
            assert_eq!(reason, Reason::NoLocalEndpoint);
        } else {
            assert_eq!(reason, Reason::NotIsolated, "{to:?}");
            assert_eq!(ends(&sent)[1], (address(REMOTE), 8080), "{to:?}");
        }
    }
    // Nothing left anywhere.
    edit(&mut snapshot.slices, |slice| slice.endpoints.clear());
    node.apply(&snapshot);
    for (index, to) in (0..).zip(OPEN) {
        let packet = tcp_packet((POD_A, 5000 + index), to, tcp::SYN);
        assert_eq!(node.leave(A, &packet).0, Reason::NoEndpoint, "{to:?}");
    }
}

/// loadBalancerSourceRanges: of a load balancer's address only, and of new connections only.
#[test]
fn a_load_balancer_asks_where_a_pod_comes_from() {
    const BALANCER: (&str, u16) = ("192.0.2.17", 80);
    let mut node = Node::new(vec![]);
    let inside = tcp_packet((POD_A, 4000), BALANCER, tcp::SYN);
    let (reason, sent) = node.leave(A, &inside);
    assert_eq!(reason, Reason::NotIsolated);
    assert_eq!(ends(&sent)[1], (address(POD_B), 8080));
    let outside = tcp_packet((POD_B, 4000), BALANCER, tcp::SYN);
    assert_eq!(node.leave(B, &outside).0, Reason::SourceRange);
    let cluster_ip = tcp_packet((POD_B, 4000), ("10.96.0.16", 80), tcp::SYN);
    assert!(!node.leave(B, &cluster_ip).0.is_drop());
    // Without endpoints it is the same: who is not let in learns nothing.
    let mut snapshot = snapshot([A, B], vec![]);
    edit(&mut snapshot.slices, |slice| slice.endpoints.clear());
    node.apply(&snapshot);
    assert_eq!(node.leave(B, &outside).0, Reason::SourceRange);
    let another = tcp_packet((POD_A, 4001), BALANCER, tcp::SYN);
    assert_eq!(node.leave(A, &another).0, Reason::NoEndpoint);
}

#[test]
fn connections_outlive_ranges_and_ranges_can_go() {
    const BALANCER: (&str, u16) = ("192.0.2.17", 80);
    let ranged = |ranges: &[&str]| {
        let mut snapshot = snapshot([A, B], vec![]);
        let name = ObjectName::new("shop", "narrow");
        let mut service = (*snapshot.services[&name]).clone();
        service.source_ranges = ranges
            .iter()
            .map(|range| range.parse().expect("a range"))
            .collect();
        snapshot.services.insert(name, service.into());
        snapshot
    };
    let mut node = Node::new(vec![]);
    node.leave(A, &tcp_packet((POD_A, 4000), BALANCER, tcp::SYN));
    node.apply(&ranged(&["10.0.1.2/32"]));
    let later = tcp_packet((POD_A, 4000), BALANCER, tcp::ACK);
    assert_eq!(node.leave(A, &later).0, Reason::Established);
    let new = |port| tcp_packet((POD_A, port), BALANCER, tcp::SYN);
    assert_eq!(node.leave(A, &new(4001)).0, Reason::SourceRange);
    for ranges in [
        &["10.0.1.2/32", "10.0.0.0/16"][..],
        &["fd00::/64"],
        &["0.0.0.0/0"],
        &[],
    ] {
        node.apply(&ranged(&["10.0.1.2/32"]));
        assert_eq!(node.leave(A, &new(4002)).0, Reason::SourceRange);
        node.apply(&ranged(ranges));
        assert_eq!(
            node.leave(A, &new(4003)).0,
            Reason::NotIsolated,
            "{ranges:?}"
        );
        node.simulator.forget_flows();
    }
}

#[test]
fn an_address_of_the_services_that_nobody_has_leads_nowhere() {
    let mut node = Node::new(vec![]);
    let nobodys = "10.96.0.99";
    let ask = |node: &Node, to: &str| {
        let packets = [
            tcp_packet((POD_A, 4000), (to, 80), tcp::SYN),
            // Routed on, it would go round as well.
            tcp_packet((POD_A, 4001), (to, 80), tcp::ACK),
            udp_packet((POD_A, 4000), (to, 80)),
        ];
        packets.map(|packet| node.run(Hook::FromPod, A, A, &packet))
    };
    for to in [nobodys, "fd96::99"] {
        let from = if to == nobodys { POD_A } else { "fd00:1::1" };
        let packet = tcp_packet((from, 4000), (to, 80), tcp::SYN);
        let (verdict, reason, _) = node.run(Hook::FromPod, A, A, &packet);
        assert_eq!(
            (verdict, reason),
            (Verdict::Drop, Reason::NoService),
            "{to}"
        );
    }
    for (verdict, reason, _) in ask(&node, nobodys) {
        assert_eq!((verdict, reason), (Verdict::Drop, Reason::NoService));
    }
    assert!(node.simulator.flows().is_empty());
    // Beside the range, addresses are anybody's.
    for (_, reason, _) in ask(&node, "10.96.1.0") {
        assert_eq!(reason, Reason::NotIsolated);
    }

    // Another proxy serves a Service there.
    let mut changed = snapshot([A, B], vec![]);
    let foreign = ForeignService {
        name: ObjectName::new("shop", "foreign"),
        cluster_ips: vec![address(nobodys)],
    };
    changed.foreign.insert(foreign.name.clone(), foreign.into());
    node.apply(&changed);
    for (_, reason, _) in ask(&node, nobodys) {
        assert_eq!(reason, Reason::NotIsolated);
    }
    for (_, reason, _) in ask(&node, "10.96.0.98") {
        assert_eq!(reason, Reason::NoService);
    }

    // A Service that goes leaves its address to nobody; its connections go on, datagrams do not.
    let to_b = |port, flags| tcp_packet((POD_A, port), ("10.96.0.11", 80), flags);
    let datagram = udp_packet((POD_A, 4002), ("10.96.0.11", 80));
    node.leave(A, &to_b(4001, tcp::SYN));
    node.leave(A, &datagram);
    changed.services.remove(&ObjectName::new("shop", "b"));
    node.apply(&changed);
    assert_eq!(node.leave(A, &to_b(4001, tcp::ACK)).0, Reason::Established);
    assert_eq!(node.leave(A, &to_b(4003, tcp::SYN)).0, Reason::NoService);
    assert_eq!(node.leave(A, &datagram).0, Reason::NoService);

    // The range goes.
    changed.service_cidrs.clear();
    node.apply(&changed);
    for (_, reason, _) in ask(&node, "10.96.0.98") {
        assert_eq!(reason, Reason::NotIsolated);
    }
}
