//! ICMP errors about pods' connections: which are let through, and what they say to whom.

use weir_common::reason::Reason;
use weir_tests::fixture::{address, edit, policy, snapshot};
use weir_tests::packets::{Content, Packet, answer, tcp};

use super::external::{CLIENT, arrive, depart, outside};
use super::node::{
    A, B, Node, POD_A, POD_B, REMOTE, SECOND, SERVICE_B, SERVICE_SELF, UPLINK, tcp_packet,
    udp_packet,
};
use super::policies::FAMILIES;

const ROUTERS: [&str; 2] = ["198.51.100.1", "2001:db8::1"];

/// "Too big", from somebody to the sender of the packet that it is about, of which it quotes some bytes.
fn too_big(from: &str, to: &str, quoted: &[u8]) -> Vec<u8> {
    let (kind, code) = if to.contains(':') { (2, 0) } else { (3, 4) };
    let content = Content::Icmp {
        kind,
        code,
        rest: 1300,
        payload: quoted.to_vec(),
    };
    Packet::new(address(from), address(to), content).bytes()
}

/// The bytes of a packet that an error quotes: the IP header and eight more.
fn quoted(packet: &[u8]) -> &[u8] {
    let network = if packet[12] == 0x08 { 20 } else { 40 };
    &packet[14..][..network + 8]
}

#[test]
fn errors_about_what_is_not_translated_pass_as_they_are() {
    for ((pod, peer), router) in FAMILIES.into_iter().zip(ROUTERS) {
        let node = Node::new(vec![policy("in", "a", Some(vec![]), None)]);
        for packet in [
            tcp_packet((pod, 4000), (peer, 80), tcp::SYN),
            udp_packet((pod, 4000), (peer, 80)),
        ] {
            node.leave(A, &packet);
            let error = too_big(router, pod, quoted(&packet));
            assert_eq!(node.enter(A, UPLINK, &error), (Reason::Related, error));
            let back = answer(&packet).expect("answer");
            let error = too_big(pod, peer, quoted(&back));
            assert_eq!(node.leave(A, &error), (Reason::Related, error));
        }
    }
}

/// All but the ends is as it was: the quoted checksum is over what the sender sent.
#[test]
fn a_client_reads_of_the_service_that_it_asked_and_its_backend_of_the_client() {
    let everywhere = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1";
    for (pod, service, backend, router) in [
        (POD_A, SERVICE_B, POD_B, ROUTERS[0]),
        ("fd00:1::1", "fd96::11", everywhere, ROUTERS[1]),
    ] {
        let mut cluster = snapshot([A, B], vec![policy("in", "a", Some(vec![]), None)]);
        edit(&mut cluster.slices, |slice| {
            for endpoint in &mut slice.endpoints {
                if slice.service.name == "b" && endpoint.address.is_ipv6() {
                    endpoint.address = address(everywhere);
                }
            }
        });
        let mut node = Node::new(vec![]);
        node.apply(&cluster);
        let asked = udp_packet((pod, 4000), (service, 80));
        let (_, sent) = node.leave(A, &asked);
        assert_eq!(sent, udp_packet((pod, 4000), (backend, 8080)));
        // What a router on the way, or the backend itself, says about the packet as it was there.
        let length = quoted(&sent).len();
        let of_checksum = length - 2..length;
        let mut read = quoted(&asked).to_vec();
        read[of_checksum.clone()].copy_from_slice(&quoted(&sent)[of_checksum.clone()]);
        for (from, told) in [(router, router), (backend, service)] {
            let error = too_big(from, pod, quoted(&sent));
            let (reason, error) = node.enter(A, UPLINK, &error);
            assert_eq!(reason, Reason::Related);
            assert_eq!(error, too_big(told, pod, &read), "from {from}");
        }
        // What the client says about the answer, as it was there.
        let back = answer(&sent).expect("answer");
        let (_, received) = node.enter(A, B, &back);
        let mut read = quoted(&back).to_vec();
        read[of_checksum.clone()].copy_from_slice(&quoted(&received)[of_checksum]);
        let (reason, error) = node.leave(A, &too_big(pod, service, quoted(&received)));
        assert_eq!(reason, Reason::Related);
        assert_eq!(error, too_big(pod, backend, &read));
    }
}

/// To the pod it would be from an address that it has never spoken to.
#[test]
fn a_pod_does_not_complain_to_itself() {
    let node = Node::new(vec![]);
    let asked = tcp_packet((POD_A, 4000), (SERVICE_SELF, 80), tcp::SYN);
    let (_, turned) = node.leave(A, &asked);
    let (_, back) = node.leave(A, &answer(&turned).expect("answer"));
    let error = too_big(POD_A, SERVICE_SELF, quoted(&back));
    assert_eq!(node.leave(A, &error).0, Reason::NoServicePort);
}

/// Behind the pod's device there is no packet to a Service: who quotes one has made it up.
#[test]
fn an_error_speaks_of_a_packet_as_it_was_on_its_way() {
    let node = Node::new(vec![policy("in", "a", Some(vec![]), None)]);
    let asked = udp_packet((POD_A, 4000), (SERVICE_B, 80));
    node.leave(A, &asked);
    let error = too_big(ROUTERS[0], POD_A, quoted(&asked));
    assert_eq!(node.enter(A, UPLINK, &error).0, Reason::PolicyDenied);
}

#[test]
fn what_quotes_no_packet_is_about_no_flow() {
    let node = Node::new(vec![policy("in", "a", Some(vec![]), None)]);
    let content = Content::Other {
        protocol: 47,
        payload: 16,
    };
    let sent = Packet::new(address(POD_A), address(REMOTE), content).bytes();
    node.leave(A, &sent);
    let error = |quoted: &[u8]| {
        let error = too_big(ROUTERS[0], POD_A, quoted);
        node.enter(A, UPLINK, &error).0
    };
    assert_eq!(error(quoted(&sent)), Reason::Related);
    let mut wrong = quoted(&sent).to_vec();
    wrong[0] = 0x55;
    assert_eq!(error(&wrong), Reason::PolicyDenied);
    assert_eq!(error(&quoted(&sent)[..19]), Reason::PolicyDenied);
    // Of a later piece nobody can tell the ports.
    let mut later = quoted(&sent).to_vec();
    later[7] = 9;
    assert_eq!(error(&later), Reason::PolicyDenied);
}

/// At the node's devices nothing is kept from anybody: what is not about a client's connection to a Service is for others.
#[test]
fn errors_at_uplinks_about_other_connections_go_on_as_they_came() {
    let mut node = outside(vec![]);
    let opened_here = udp_packet((POD_A, 4000), (REMOTE, 80));
    node.leave(A, &opened_here);
    let opened_there = udp_packet((REMOTE, 4001), (POD_A, 80));
    node.enter(A, UPLINK, &opened_there);
    let answered = answer(&opened_there).expect("answer");
    let translated = udp_packet((CLIENT, 4002), (SERVICE_B, 80));
    let (_, inside) = arrive(&node, UPLINK, &translated);
    node.enter(B, UPLINK, &inside);
    let back = answer(&inside).expect("answer");
    let (_, delivered) = depart(&node, UPLINK, B, &node.leave(B, &back).1);
    let passes = |node: &Node, error: Vec<u8>| {
        let came = arrive(node, UPLINK, &error);
        assert_eq!(came, (Reason::NotService, error.clone()));
        let left = depart(node, UPLINK, A, &error);
        assert_eq!(left, (Reason::NotService, error));
    };
    for packet in [opened_here, answered] {
        passes(&node, too_big(ROUTERS[0], POD_A, quoted(&packet)));
    }
    // Nor is what is about one that is over.
    let about_answer = too_big(ROUTERS[0], SERVICE_B, quoted(&delivered));
    let about_question = too_big(POD_B, CLIENT, quoted(&inside));
    let (reason, _) = arrive(&node, UPLINK, &about_answer);
    assert_eq!(reason, Reason::Related);
    let (reason, _) = depart(&node, UPLINK, B, &about_question);
    assert_eq!(reason, Reason::Related);
    node.clock += 181 * SECOND;
    passes(&node, about_answer);
    passes(&node, about_question);
}
