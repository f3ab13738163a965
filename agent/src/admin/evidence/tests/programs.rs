//! What becomes of packets that are tried.

use std::cell::RefCell;
use std::net::SocketAddr;

use weir_common::abi::Hook;
use weir_common::reason::Reason;

use super::super::{DryRun, FirstPacket, Tried, packet};
use super::{SHOP, ingress_from, objects, synced, tracked, tried};
use crate::model::Protocol;

/// A packet as its headers say: hook, devices, source, destination.
fn headers(packet: &FirstPacket) -> (Hook, [u32; 2], SocketAddr, SocketAddr) {
    let sliced = etherparse::SlicedPacket::from_ethernet(&packet.frame).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else {
        panic!("{packet:?}");
    };
    let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("{packet:?}");
    };
    assert!(tcp.syn() && !tcp.ack());
    let source = SocketAddr::new(ip.header().source_addr().into(), tcp.source_port());
    let destination = SocketAddr::new(
        ip.header().destination_addr().into(),
        tcp.destination_port(),
    );
    let devices = [packet.ifindex, packet.ingress_ifindex];
    (packet.hook, devices, source, destination)
}

#[test]
fn programs_are_tried_with_first_packets_of_these_connections() {
    let (maps, seen) = (synced(&objects("n1", SHOP)), RefCell::new(Vec::new()));
    let note = |packet: &FirstPacket| {
        seen.borrow_mut().push(headers(packet));
        None
    };
    // A port that a connection has, wherever it goes, is not taken.
    let flows = [
        tracked("10.0.1.1:65535", "10.0.2.1:8080", [1, 1]),
        tracked("10.0.1.9:1", "10.0.2.1:65534", [1, 1]),
    ];
    tried("n1", SHOP, &maps, &[], &flows, &note);
    tried("n2", SHOP, &maps, &[], &[], &note);
    let end = |end: &str| end.parse::<SocketAddr>().unwrap();
    let (client, backend) = (end("10.0.1.1:65533"), end("10.0.2.1:8080"));
    assert_eq!(
        seen.into_inner(),
        [
            (Hook::FromPod, [3, 3], client, backend),
            (Hook::FromPod, [3, 3], client, end("10.96.0.1:80")),
            (Hook::ToPod, [4, 3], end("10.0.1.1:65535"), backend),
        ]
    );
}

#[test]
fn programs_that_do_not_do_what_the_objects_say_are_told_of() {
    let maps = synced(&objects("n1", SHOP));
    let led = |to: &str, reason| {
        let (from, to) = ("10.0.1.1:1".parse().unwrap(), to.parse().unwrap());
        let frame = packet::frame(from, to, Protocol::Tcp).unwrap();
        DryRun { reason, frame }
    };
    let (service, backend) = ("10.96.0.1:80", "10.0.2.1:8080");
    for (direct, through, agree) in [
        (
            led(backend, Reason::NotIsolated),
            led(backend, Reason::NotIsolated),
            [true, true],
        ),
        (
            led(backend, Reason::PolicyDenied),
            led(service, Reason::PolicyDenied),
            [false, true],
        ),
        (
            led(backend, Reason::NotIsolated),
            led(service, Reason::NotIsolated),
            [true, false],
        ),
        (
            led(backend, Reason::NotIsolated),
            led("10.0.2.1:80", Reason::NotIsolated),
            [true, false],
        ),
        (
            led(backend, Reason::SpoofedSource),
            led(service, Reason::NoEndpoint),
            [false, false],
        ),
    ] {
        let programs = |packet: &FirstPacket| {
            let (.., destination) = headers(packet);
            let judged = if destination == service.parse().unwrap() {
                &through
            } else {
                &direct
            };
            Some(judged.clone())
        };
        let evidence = tried("n1", SHOP, &maps, &[], &[], &programs);
        let [verdict, frontend] = [
            (
                evidence.verdicts[0].maps_agree(),
                evidence.verdicts[0].agrees(),
            ),
            (
                evidence.frontends[0].maps_agree(),
                evidence.frontends[0].agrees(),
            ),
        ];
        assert_eq!(
            [verdict, frontend],
            agree.map(|agrees| (true, agrees)),
            "{direct:?} {through:?}"
        );
        assert_eq!(evidence.agrees(), agree == [true, true]);
    }
    // Nothing to be led to: a refusal is what the objects say.
    let unready = SHOP.replace("ready: true", "ready: false");
    let refused = |_: &FirstPacket| Some(led(service, Reason::NoEndpoint));
    let maps = synced(&objects("n1", &unready));
    assert!(tried("n1", &unready, &maps, &[], &[], &refused).agrees());
}

#[test]
fn what_a_policy_denies_is_not_to_pass() {
    let now = SHOP.to_owned() + &ingress_from("other");
    let maps = synced(&objects("n2", &now));
    for (reason, agrees) in [(Reason::PolicyDenied, true), (Reason::NotIsolated, false)] {
        let programs = |packet: &FirstPacket| {
            let frame = packet.frame.clone();
            Some(DryRun { reason, frame })
        };
        let evidence = tried("n2", &now, &maps, &[], &[], &programs);
        let verdict = &evidence.verdicts[0];
        assert!(!verdict.intended && verdict.maps_agree());
        assert_eq!(verdict.programs_agree(), agrees);
    }
}

#[test]
fn first_packets_are_whole_in_both_families_and_all_protocols() {
    for (source, destination) in [
        ("10.0.0.1:1025", "10.0.0.2:80"),
        ("[fd00::1]:1025", "[fd00::2]:80"),
    ] {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let frame = packet::frame(source, destination, protocol).unwrap();
            let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let payload = sliced.ip_payload().unwrap();
            let start = (payload.ip_number.0, &payload.payload[..4]);
            assert_eq!(start, (protocol.number(), &[4, 1, 0, 80][..]));
            let reason = Reason::NotIsolated;
            let frame = frame.clone();
            let to = Tried::of(&DryRun { reason, frame }).to;
            assert_eq!(to, Some(destination));
        }
    }
    let mixed = (
        "10.0.0.1:1".parse().unwrap(),
        "[fd00::2]:80".parse().unwrap(),
    );
    assert_eq!(packet::frame(mixed.0, mixed.1, Protocol::Udp), None);
}
