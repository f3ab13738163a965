//! Ports and addresses.

use super::super::ports::{Cuts, PortRange, in_words, joined, pieces};
use super::super::regions::Regions;
use super::*;
use crate::model::{PolicyPort, PortMatch, Protocol, Rule, Snapshot};
use crate::state::State;

fn cuts(ports: &[PortMatch]) -> Cuts {
    let port = |port: &PortMatch| PolicyPort {
        protocol: Protocol::Tcp,
        port: port.clone(),
    };
    let mut cuts = Cuts::default();
    cuts.add(&Rule {
        peers: Vec::new(),
        ports: ports.iter().map(port).collect(),
    });
    cuts
}

#[test]
fn ports_are_cut_where_rules_begin_and_end() {
    use PortMatch::{All, Range};
    for (one, other, starts) in [
        (&[][..], &[][..], &[1][..]),
        (&[All], &[], &[1]),
        (&[Range(80, 80)], &[], &[1, 80, 81]),
        (&[Range(80, 90)], &[Range(85, 65535)], &[1, 80, 85, 91]),
        (&[Range(1, 1)], &[Range(1, 65535)], &[1, 2]),
    ] {
        let (one, other) = (cuts(one), cuts(other));
        let pieces = pieces([Some(&one), Some(&other)], [None, None]);
        let tcp: Vec<_> = pieces
            .iter()
            .filter(|it| it.protocol == Protocol::Tcp)
            .collect();
        let found: Vec<u16> = tcp.iter().map(|it| it.first).collect();
        assert_eq!(found, starts);
        assert!(tcp.windows(2).all(|two| two[0].last + 1 == two[1].first));
        assert_eq!(tcp.last().expect("a piece").last, u16::MAX);
        assert_eq!(in_words(&joined(pieces.clone())), "every port");
    }
}

#[test]
fn ports_are_told_the_shorter_way() {
    let range = |protocol, first, last| PortRange {
        protocol,
        first,
        last,
    };
    let (udp, sctp) = (
        range(Protocol::Udp, 1, 65535),
        range(Protocol::Sctp, 1, 65535),
    );
    let (low, high) = (range(Protocol::Tcp, 1, 79), range(Protocol::Tcp, 81, 65535));
    for (ranges, words) in [
        (&[range(Protocol::Tcp, 80, 80)][..], "TCP 80"),
        (
            &[range(Protocol::Tcp, 80, 89), range(Protocol::Udp, 53, 53)],
            "TCP 80-89, UDP 53",
        ),
        (&[low, high, udp, sctp], "every port but TCP 80"),
        (&[udp], "every UDP port"),
    ] {
        assert_eq!(in_words(ranges), words);
    }
}

/// The snapshot of some manifests.
fn snapshot(text: &str) -> Snapshot {
    let mut state = State::new("");
    for object in proposal("", text).manifests {
        state.apply(crate::model::Event::Applied(object));
    }
    state.snapshot().clone()
}

#[test]
fn blocks_cut_the_addresses_outside_into_regions() {
    let blocks = "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 10.2.0.0/32}}, {ipBlock: {cidr: 0.0.0.0/1}}]}]";
    let snapshot = snapshot(&format!("{CLUSTER}{}", policy("a", blocks)));
    let worlds = [World::new(&snapshot), World::new(&snapshot)];
    let regions = Regions::of(&worlds);
    let found: Vec<_> = regions
        .free(&worlds)
        .filter(|(region, _)| region.cidr.is_ipv4())
        .map(|(region, address)| {
            let except: Vec<_> = region.except.iter().map(ToString::to_string).collect();
            format!("{} [{}] {address}", region.cidr, except.join(" "))
        })
        .collect();
    // The range of Services is a hole, and the address that has an owner is passed over.
    assert_eq!(
        found,
        [
            "0.0.0.0/0 [0.0.0.0/1] 128.0.0.0",
            "0.0.0.0/1 [10.0.0.0/8] 0.0.0.0",
            "10.0.0.0/8 [10.1.0.0/16 10.2.0.0/32 10.96.0.0/16] 10.0.0.0",
            "10.1.0.0/16 [] 10.1.0.0",
            "10.2.0.0/32 [] 10.2.0.0",
        ]
    );
    let at = |text: &str| regions.at(text.parse().expect("an address"));
    assert_eq!(at("10.1.2.3"), at("10.1.255.255"));
    assert_ne!(at("10.1.2.3"), at("10.3.0.0"));
    assert_ne!(at("10.2.0.0"), at("10.2.0.1"));
}
