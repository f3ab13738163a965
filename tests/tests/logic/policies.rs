//! What policies do to packets of every kind, and to flows that live when they change.

use weir::model::{Protocol, Rule};
use weir::plan::{Plan, Step};
use weir_common::reason::Reason;
use weir_tests::fixture::{address, block, edit, policy, snapshot, to};
use weir_tests::packets::{Content, Packet, answer, tcp};

use crate::node::{
    A, B, NODE, Node, POD_A, POD_B, REMOTE, UPLINK, allow_egress_to_b, deny_all, tcp_packet,
    udp_packet,
};
use crate::pings::{Echo, echo};

/// Pod a, and an address on another node, in both families.
pub(crate) const FAMILIES: [(&str, &str); 2] = [(POD_A, REMOTE), ("fd00:1::1", "fd00:2::1")];

#[test]
fn flows_do_not_notice_that_their_policies_go() {
    let mut node = Node::new(vec![
        allow_egress_to_b(),
        policy("b", "b", Some(vec![to("a", &[])]), None),
    ]);
    let packets = |flags| {
        [
            tcp_packet((POD_A, 4000), (POD_B, 8080), flags),
            udp_packet((POD_A, 4000), (POD_B, 8080)),
        ]
    };
    for packet in packets(tcp::SYN) {
        assert_eq!(node.leave(A, &packet).0, Reason::PolicyAllowed);
        assert_eq!(node.enter(B, A, &packet).0, Reason::PolicyAllowed);
    }
    // One policy after the other goes, and one comes that isolates the client for other connections.
    for policies in [
        vec![allow_egress_to_b()],
        vec![],
        vec![policy("in", "a", Some(vec![]), None)],
        vec![],
    ] {
        node.enforce(policies);
        for packet in packets(tcp::ACK) {
            // An answer is the first to come by after the change.
            let back = answer(&packet).expect("answer");
            assert_eq!(node.leave(B, &back).0, Reason::Reply);
            assert_eq!(node.enter(A, B, &back).0, Reason::Reply);
            assert_eq!(node.leave(A, &packet).0, Reason::Established);
            assert_eq!(node.enter(B, A, &packet).0, Reason::Established);
        }
    }
}

#[test]
fn a_flow_that_never_rests_is_judged_again() {
    let mut node = Node::new(vec![allow_egress_to_b()]);
    let datagram = udp_packet((POD_A, 4000), (POD_B, 8080));
    let pass = |node: &mut Node| {
        node.clock += 10;
        [node.leave(A, &datagram).0, node.enter(B, A, &datagram).0]
    };
    assert_eq!(
        pass(&mut node),
        [Reason::PolicyAllowed, Reason::NotIsolated]
    );
    for _ in 0..100 {
        assert_eq!(pass(&mut node), [Reason::Established; 2]);
    }
    for cut in [deny_all("b"), policy("a", "a", None, Some(vec![]))] {
        node.enforce(vec![cut]);
        // No datagram after the change passes both ends, however many come.
        for _ in 0..100 {
            assert!(pass(&mut node).contains(&Reason::PolicyDenied));
        }
        node.enforce(vec![allow_egress_to_b()]);
        assert!(!pass(&mut node).contains(&Reason::PolicyDenied));
    }
}

#[test]
fn after_a_change_answers_are_judged_by_who_may_ask() {
    let mut node = Node::new(vec![]);
    let question = udp_packet((POD_A, 4000), (POD_B, 8080));
    let answer = udp_packet((POD_B, 8080), (POD_A, 4000));
    node.leave(A, &question);
    node.enter(B, A, &question);
    let denied = |node: &mut Node| {
        let reasons = [node.leave(B, &answer).0, node.enter(A, B, &answer).0];
        reasons.contains(&Reason::PolicyDenied)
    };
    assert!(!denied(&mut node));
    let closed = Some(vec![]);
    for (ingress, egress, wanted) in [(None, closed.clone(), false), (closed, None, true)] {
        node.enforce(vec![policy("b", "b", ingress, egress)]);
        assert_eq!(denied(&mut node), wanted);
    }
}

/// Whichever of them comes first in the key of their flow, and whichever speaks first after the change.
#[test]
fn a_connection_is_judged_again_in_the_direction_in_which_it_was_opened() {
    for [(client, from, device), (server, to, other)] in [
        [("a", POD_A, A), ("b", POD_B, B)],
        [("b", POD_B, B), ("a", POD_A, A)],
    ] {
        for answer_first in [false, true] {
            let rule = |pod| Some(vec![super::to(pod, &[(Protocol::Udp, 8080, 8080)])]);
            let may_ask = || {
                vec![
                    policy("client", client, Some(vec![]), rule(server)),
                    policy("server", server, rule(client), Some(vec![])),
                ]
            };
            let mut node = Node::new(may_ask());
            let there = udp_packet((from, 4000), (to, 8080));
            let back = answer(&there).expect("answer");
            let all = |node: &Node, answer_first| {
                let ask = || {
                    [
                        node.leave(device, &there).0,
                        node.enter(other, device, &there).0,
                    ]
                };
                let answer = || {
                    [
                        node.leave(other, &back).0,
                        node.enter(device, other, &back).0,
                    ]
                };
                if answer_first {
                    let answered = answer();
                    [ask(), answered]
                } else {
                    [ask(), answer()]
                }
            };
            let [asked, _] = all(&node, false);
            assert_eq!(asked, [Reason::PolicyAllowed; 2], "{client}");
            let mut policies = may_ask();
            policies.push(deny_all("c"));
            node.enforce(policies);
            let bump = Plan {
                steps: vec![Step::BumpEpoch],
            };
            node.simulator.maps.execute(&bump).expect("bump");
            let expected = [[Reason::Established; 2], [Reason::Reply; 2]];
            assert_eq!(all(&node, answer_first), expected, "{client}");
        }
    }
}

/// A piece of a UDP datagram; the first has the ports.
fn piece(source: &str, destination: &str, offset: u16) -> Vec<u8> {
    let content = Content::Udp {
        source: 4000,
        destination: 8080,
        payload: 64,
        checksum: true,
    };
    let mut packet = Packet::new(address(source), address(destination), content);
    packet.fragment = Some((7, offset, offset == 0));
    packet.bytes()
}

#[test]
fn pieces_have_the_verdict_of_their_first() {
    for (pod, peer) in FAMILIES {
        let cases = [
            (Some(vec![]), Reason::PolicyDenied, Reason::PolicyDenied),
            (
                Some(vec![to("c", &[(Protocol::Udp, 8080, 8080)])]),
                Reason::PolicyAllowed,
                Reason::Established,
            ),
        ];
        for (rules, first, later) in cases {
            let node = Node::new(vec![policy("a", "a", rules.clone(), rules)]);
            for (offset, expected) in [(9, Reason::UnknownFragment), (0, first), (9, later)] {
                let inwards = piece(peer, pod, offset);
                assert_eq!(node.enter(A, UPLINK, &inwards).0, expected, "{offset}");
            }
        }
        let node = Node::new(vec![policy("a", "a", None, Some(vec![]))]);
        for offset in [0, 9] {
            let outwards = piece(pod, peer, offset);
            assert_eq!(node.leave(A, &outwards).0, Reason::PolicyDenied);
        }
    }
}

#[test]
fn answers_in_pieces_need_no_rule() {
    for (pod, peer) in FAMILIES {
        let node = Node::new(vec![policy("in", "a", Some(vec![]), None)]);
        let content = Content::Udp {
            source: 8080,
            destination: 4000,
            payload: 10,
            checksum: true,
        };
        let question = Packet::new(address(pod), address(peer), content).bytes();
        assert_eq!(node.leave(A, &question).0, Reason::NotIsolated);
        for offset in [0, 9] {
            let inwards = piece(peer, pod, offset);
            assert_eq!(node.enter(A, UPLINK, &inwards).0, Reason::Reply);
        }
    }
}

#[test]
fn what_links_need_is_beneath_policy() {
    let node = Node::new(vec![deny_all("a"), deny_all("b")]);
    let both = |frame: &[u8]| [node.leave(A, frame).0, node.enter(B, A, frame).0];
    // ARP, LLDP.
    for kind in [[0x08, 0x06], [0x88, 0xcc]] {
        let mut frame = vec![0xff; 60];
        frame[12..14].copy_from_slice(&kind);
        assert_eq!(both(&frame), [Reason::NotIp; 2]);
    }
    let message = |source: &str, destination: &str, kind, hops| {
        let content = Content::Icmp {
            kind,
            code: 0,
            rest: 0,
            payload: vec![0; 16],
        };
        let mut packet = Packet::new(address(source), address(destination), content);
        packet.hops = hops;
        packet.bytes()
    };
    for (source, destination, kind, hops) in [
        // Whether an address is free is asked by who has none yet.
        ("::", "ff02::1:ff00:1", 135, 255),
        ("fd00:1::1", "ff02::1:ff00:2", 135, 255),
        ("fe80::1", "fd00:1::2", 136, 255),
        ("fe80::1", "ff02::2", 133, 255),
        ("fe80::1", "ff02::1", 134, 255),
        ("fe80::1", "ff02::16", 143, 1),
    ] {
        let message = message(source, destination, kind, hops);
        assert_eq!(both(&message), [Reason::Neighbor; 2], "{kind}");
    }
}

#[test]
fn groups_and_broadcast_are_addresses_like_any() {
    let mut node = Node::new(vec![]);
    let groups = [
        (POD_A, "224.0.0.251", "224.0.0.0/4"),
        (POD_A, "255.255.255.255", "255.255.255.255/32"),
        ("fd00:1::1", "ff02::fb", "ff00::/8"),
    ];
    let to_group = |source: &str, group: &str| {
        let content = Content::Tcp {
            source: 5353,
            destination: 5353,
            flags: tcp::SYN,
            payload: 0,
        };
        Packet::new(address(source), address(group), content).bytes()
    };
    for (pod, group, range) in groups {
        for (egress, expected) in [
            (vec![], Reason::PolicyDenied),
            (vec![to("b", &[]), to("c", &[])], Reason::PolicyDenied),
            (vec![block(range, &[])], Reason::PolicyAllowed),
            // For everybody, also for who is in no block and has no labels.
            (vec![Rule::default()], Reason::PolicyAllowed),
        ] {
            node.simulator.forget_flows();
            node.enforce(vec![policy("out", "a", None, Some(egress))]);
            assert_eq!(node.leave(A, &to_group(pod, group)).0, expected, "{group}");
        }
    }
    // What a group is sent is judged at each member, by who sends.
    for (peer, group) in [(REMOTE, "224.0.0.251"), ("fd00:2::1", "ff02::fb")] {
        for (ingress, expected) in [
            (vec![to("b", &[])], Reason::PolicyDenied),
            (vec![to("c", &[])], Reason::PolicyAllowed),
        ] {
            node.enforce(vec![policy("in", "a", Some(ingress), None)]);
            let (reason, _) = node.enter(A, UPLINK, &to_group(peer, group));
            assert_eq!(reason, expected, "{group}");
        }
    }
    // A lease is asked for before there is an address, and prolonged like anything else.
    node.enforce(vec![deny_all("a")]);
    let ask = |source| udp_packet((source, 68), ("255.255.255.255", 67));
    assert_eq!(node.leave(A, &ask("0.0.0.0")).0, Reason::Dhcp);
    assert_eq!(node.leave(A, &ask(POD_A)).0, Reason::PolicyDenied);
}

#[test]
fn nobody_takes_anothers_address() {
    let node = Node::new(vec![]);
    let send = |source: &str, destination: &str| {
        let content = Content::Other {
            protocol: 47,
            payload: 8,
        };
        let packet = Packet::new(address(source), address(destination), content);
        node.leave(A, &packet.bytes()).0
    };
    for (own, peer, others) in [
        (POD_A, REMOTE, [POD_B, NODE, REMOTE, "10.9.9.9"]),
        (
            "fd00:1::1",
            "fd00:2::1",
            ["fd00:1::2", "fd30::1", "fd00:2::1", "2001:db8::9"],
        ),
    ] {
        assert_eq!(send(own, peer), Reason::NotIsolated);
        for other in others {
            assert_eq!(send(other, peer), Reason::SpoofedSource, "{other}");
        }
    }
}

#[test]
fn host_network_pods_are_their_node() {
    // Pod c lives in the network of another node, and has its name, labels and a port name.
    let on_host = ["172.30.0.9", "fd30::9"].map(address);
    let enforce = |node: &mut Node, rule| {
        let mut cluster = snapshot([A, B], vec![policy("in", "a", Some(vec![rule]), None)]);
        edit(&mut cluster.pods, |pod| {
            if pod.name.name == "c" {
                pod.host_network = true;
                pod.ips = on_host.to_vec();
            }
        });
        node.apply(&cluster);
    };
    let mut node = Node::new(vec![]);
    for (pod, host, range) in [
        (POD_A, "172.30.0.9", "172.30.0.9/32"),
        ("fd00:1::1", "fd30::9", "fd30::9/128"),
    ] {
        let content = Content::Tcp {
            source: 4000,
            destination: 80,
            flags: tcp::SYN,
            payload: 0,
        };
        let syn = Packet::new(address(host), address(pod), content).bytes();
        enforce(&mut node, to("c", &[]));
        assert_eq!(node.enter(A, UPLINK, &syn).0, Reason::PolicyDenied);
        enforce(&mut node, block(range, &[]));
        assert_eq!(node.enter(A, UPLINK, &syn).0, Reason::PolicyAllowed);
    }
}

#[test]
fn who_gets_an_address_gets_no_flow_with_it() {
    let mut node = Node::new(vec![]);
    let datagram = udp_packet((POD_A, 4000), (POD_B, 8080));
    let back = answer(&datagram).expect("answer");
    node.leave(A, &datagram);
    assert_eq!(node.enter(B, A, &datagram).0, Reason::NotIsolated);
    assert_eq!(node.leave(B, &back).0, Reason::Reply);
    // Others have the address one after the other, behind devices of their own. The first may neither be asked nor ask.
    let mut take = |pod: &str, device, policies| {
        let mut cluster = snapshot([A, device], policies);
        edit(&mut cluster.pods, |object| {
            if object.name.name == "b" {
                object.uid = pod.to_owned();
                object.labels = [("app".to_owned(), pod.to_owned())].into();
            }
        });
        node.apply(&cluster);
        [
            node.enter(device, A, &datagram).0,
            node.leave(device, &back).0,
        ]
    };
    let closed = policy("next", "next", Some(vec![]), Some(vec![]));
    assert_eq!(take("next", 13, vec![closed]), [Reason::PolicyDenied; 2]);
    // What was refused to it is no burden to the one after it.
    assert_eq!(
        take("last", 14, vec![]),
        [Reason::NotIsolated, Reason::Reply]
    );
}

#[test]
fn a_pod_that_the_maps_do_not_know_says_nothing() {
    // Its device has programs, its policies found no room.
    const NEW: u32 = 13;
    let node = Node::new(vec![]);
    for (own, peer) in [("10.0.1.9", POD_B), ("fd00:1::9", "fd00:1::2")] {
        let content = |source, destination| Content::Udp {
            source,
            destination,
            payload: 8,
            checksum: true,
        };
        let asks = Packet::new(address(own), address(peer), content(4000, 53)).bytes();
        assert_eq!(node.leave(NEW, &asks).0, Reason::SpoofedSource);
        let asked = Packet::new(address(peer), address(own), content(4001, 53)).bytes();
        assert_eq!(node.leave(B, &asked).0, Reason::NotIsolated);
        assert_eq!(node.enter(NEW, B, &asked).0, Reason::NotLocal);
        let answer = answer(&asked).expect("answer");
        assert_eq!(node.leave(NEW, &answer).0, Reason::SpoofedSource);
    }
}

#[test]
fn what_is_born_on_the_node_passes_from_any_address() {
    let node = Node::new(vec![deny_all("a")]);
    for (pod, sources) in [
        // The node, the gateway of its pods, and whom a mesh has probes come from.
        (POD_A, [NODE, "10.0.1.254", "169.254.7.127"]),
        (
            "fd00:1::1",
            [
                "fd30::1",
                "fe80::1",
                "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
            ],
        ),
    ] {
        for source in sources {
            let contents = [
                Content::Tcp {
                    source: 4000,
                    destination: 8080,
                    flags: tcp::SYN,
                    payload: 0,
                },
                Content::Udp {
                    source: 4000,
                    destination: 8080,
                    payload: 8,
                    checksum: true,
                },
                Content::Sctp {
                    source: 4000,
                    destination: 8080,
                    payload: 8,
                },
            ];
            for content in contents {
                let probe = Packet::new(address(source), address(pod), content).bytes();
                for from in [UPLINK, B] {
                    assert_eq!(node.enter(A, from, &probe).0, Reason::PolicyDenied);
                }
                assert_eq!(node.enter(A, 0, &probe).0, Reason::Node, "{source}");
                let answer = answer(&probe).expect("answer");
                assert_eq!(node.leave(A, &answer).0, Reason::Reply, "{source}");
            }
            let ping = echo(Echo::Request, source, pod, 7);
            assert_eq!(node.enter(A, UPLINK, &ping).0, Reason::PolicyDenied);
            assert_eq!(node.enter(A, 0, &ping).0, Reason::Node);
            let pong = echo(Echo::Reply, pod, source, 7);
            assert_eq!(node.leave(A, &pong).0, Reason::Reply);
        }
    }
}
