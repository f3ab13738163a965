//! ICMP errors about what clients outside and Services send each other: both ends read of the ends that they know.

use weir_common::reason::Reason;
use weir_tests::fixture::address;
use weir_tests::packets::{Content, Packet, answer};

use super::external::{CLIENT, OVERLAY, SERVICE_C, TUNNEL, arrive, depart, outside};
use super::node::{B, NODE, POD_B, REMOTE, SERVICE_B, UPLINK, udp_packet};

const ROUTER: &str = "198.51.100.1";

/// "Fragmentation needed" about a packet, from somebody to its sender.
fn too_big(from: &str, about: &[u8]) -> Vec<u8> {
    let content = Content::Icmp {
        kind: 3,
        code: 4,
        rest: 1300,
        payload: about[14..42].to_vec(),
    };
    let sender = <[u8; 4]>::try_from(&about[26..30]).expect("address");
    Packet::new(address(from), sender.into(), content).bytes()
}

fn octets(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>()
        .expect("address")
        .octets()
}

/// Source and destination of an error, and source and destination, with ports, of what it quotes.
fn read(error: &[u8]) -> (String, String, String, String) {
    let at = |at: usize| {
        let octets: [u8; 4] = error[at..at + 4].try_into().expect("address");
        std::net::Ipv4Addr::from(octets)
    };
    let port = |at: usize| u16::from_be_bytes([error[at], error[at + 1]]);
    (
        at(26).to_string(),
        at(30).to_string(),
        format!("{}:{}", at(54), port(62)),
        format!("{}:{}", at(58), port(64)),
    )
}

fn expect(error: &[u8], from: &str, to: &str, source: &str, destination: &str) {
    let expected = (from, to, source, destination);
    let (a, b, c, d) = read(error);
    assert_eq!((&*a, &*b, &*c, &*d), expected);
    assert_eq!(octets(&a), octets(from));
}

#[test]
fn the_node_complains_to_a_client_about_what_that_client_sent() {
    let node = outside(vec![]);
    let (_, inside) = arrive(&node, UPLINK, &udp_packet((CLIENT, 4000), (SERVICE_B, 80)));
    // Too large for the way to the pod; and the pod has no such port.
    for (from, told, by) in [(NODE, NODE, 0), (POD_B, SERVICE_B, B)] {
        let error = too_big(from, &inside);
        node.enter(B, UPLINK, &inside);
        if by == B {
            assert_eq!(node.leave(B, &error), (Reason::Related, error.clone()));
        }
        let (reason, error) = depart(&node, UPLINK, by, &error);
        assert_eq!(reason, Reason::Related);
        expect(&error, told, CLIENT, "192.0.2.7:4000", "10.96.0.11:80");
    }
}

#[test]
fn a_router_complains_to_a_pod_about_its_answer() {
    let node = outside(vec![]);
    let (_, inside) = arrive(&node, UPLINK, &udp_packet((CLIENT, 4000), (SERVICE_B, 80)));
    node.enter(B, UPLINK, &inside);
    let (_, back) = node.leave(B, &answer(&inside).expect("answer"));
    let (_, back) = depart(&node, UPLINK, B, &back);
    let (reason, error) = arrive(&node, UPLINK, &too_big(ROUTER, &back));
    assert_eq!(reason, Reason::Related);
    expect(&error, ROUTER, POD_B, "10.0.1.2:8080", "192.0.2.7:4000");
    assert_eq!(node.enter(B, UPLINK, &error), (Reason::Related, error));
}

#[test]
fn errors_about_a_remote_backend_pass_both_translations() {
    let node = outside(vec![]);
    let (_, inside) = arrive(&node, UPLINK, &udp_packet((CLIENT, 4000), (SERVICE_C, 80)));
    let (_, sent) = depart(&node, TUNNEL, UPLINK, &inside);
    // On the way to the backend, or by the backend.
    for (from, told) in [(ROUTER, ROUTER), (REMOTE, SERVICE_C)] {
        let (reason, error) = arrive(&node, TUNNEL, &too_big(from, &sent));
        assert_eq!(reason, Reason::Related);
        expect(&error, from, CLIENT, "192.0.2.7:4000", "10.0.2.1:8080");
        let (reason, error) = depart(&node, UPLINK, TUNNEL, &error);
        assert_eq!(reason, Reason::Related);
        expect(&error, told, CLIENT, "192.0.2.7:4000", "10.96.0.20:80");
    }
    // On the way to the client, or by the client.
    let (_, back) = arrive(&node, TUNNEL, &answer(&sent).expect("answer"));
    let (_, delivered) = depart(&node, UPLINK, TUNNEL, &back);
    for (from, told) in [(ROUTER, ROUTER), (CLIENT, OVERLAY)] {
        let (reason, error) = arrive(&node, UPLINK, &too_big(from, &delivered));
        assert_eq!(reason, Reason::Related);
        expect(&error, from, REMOTE, "10.0.2.1:8080", "192.0.2.7:4000");
        let (reason, error) = depart(&node, TUNNEL, UPLINK, &error);
        assert_eq!(reason, Reason::Related);
        expect(&error, told, REMOTE, "10.0.2.1:8080", "10.0.1.0:4000");
    }
    // The node itself, about the answer as it was here.
    let (reason, error) = depart(&node, TUNNEL, 0, &too_big(OVERLAY, &back));
    assert_eq!(reason, Reason::Related);
    expect(&error, OVERLAY, REMOTE, "10.0.2.1:8080", "10.0.1.0:4000");
}

#[test]
fn errors_about_nothing_known_go_on_as_they_came() {
    let node = outside(vec![]);
    let error = too_big(ROUTER, &udp_packet((NODE, 4000), (REMOTE, 80)));
    assert_eq!(
        arrive(&node, UPLINK, &error),
        (Reason::NotService, error.clone())
    );
    assert_eq!(
        depart(&node, UPLINK, 0, &error),
        (Reason::NotService, error)
    );
}
