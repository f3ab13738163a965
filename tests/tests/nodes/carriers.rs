//! Connections from outside, while those who carry them come and go: agents, and programs in drivers.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::probe::{Load, LoadReport, Probe};
use weir_tests::topology::Drops;

use crate::external::{
    FAR, NEAR, PROTOCOLS, and_xdp, at, carried_by_xdp, ensure_seen, fixture, node1_there,
};
use crate::fixture::{FEW, XDP, each};

/// What may go wrong where nothing can be done about it, out of some thousand packets.
const FEW_PACKETS: u64 = 5;

/// What a load asks at these addresses, in all protocols.
fn targets(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<(String, Probe)> {
    let of = |to| PROTOCOLS.map(|protocol| Probe::tcp(to).protocol(protocol));
    let probes = addresses.into_iter().flat_map(of);
    let named = probes.map(|probe| (format!("{} {:?}", probe.to, probe.protocol), probe));
    named.collect()
}

#[test]
fn connections_from_outside_outlive_agents() -> Result<()> {
    each(&and_xdp(FEW), |variant| {
        let mut fixture = fixture(variant)?;
        let ports = [NEAR, FAR].map(|port| at(&fixture, "node1", port));
        let targets = targets(ports.into_iter().flatten());
        let load = Load::start(&fixture.place("outside"), &targets)?;
        for round in 0..6 {
            let node = if round % 2 == 0 { "node1" } else { "node2" };
            fixture.cluster.agent(node).restart()?;
            thread::sleep(Duration::from_millis(300));
            fixture.cluster.wait_ready(node)?;
        }
        load.finish()?.ensure_unharmed()
    })
}

/// A connection goes on where it is, whoever carries it from now on; strict nodes find nothing out of order.
#[test]
fn connections_outlive_a_change_of_their_carrier() -> Result<()> {
    each(&XDP[..1], |variant| {
        let mut fixture = fixture(variant)?;
        // So that nodes know their neighbours, without whom XDP carries nothing.
        ensure_seen(&fixture, at(&fixture, "node1", FAR), "far", |ip| {
            node1_there(&fixture, variant, ip)
        })?;
        let targets = targets(at(&fixture, "node1", FAR));
        let mut load = Load::start(&fixture.place("outside"), &targets)?;
        let tcp = (targets.len() / PROTOCOLS.len()) as u64;
        let mut opening = 0;
        for (mode, loads) in ["auto", "off", "auto", "off"].iter().zip(1..) {
            fixture.cluster.set_options(&[&format!("--xdp={mode}")]);
            fixture.cluster.replace_agent("node1", &[])?;
            // Each load has one new connection at a time to each target.
            opening += loads * tcp;
            // Those of one carrier meet the next.
            load.add(&fixture.place("outside"), &targets)?;
            let before = carried_by_xdp(&fixture, "node1")?;
            thread::sleep(Duration::from_secs(1));
            let carried = carried_by_xdp(&fixture, "node1")? - before;
            ensure!((carried > 0) == (*mode == "auto"), "{mode}: {carried}");
        }
        // A FIN that conntrack does not take is sent again and again: those of later count no more connections.
        let drops = fixture.cluster.topology().node("node1").drops()?;
        // The load that came last may still wait for the answer to a datagram that was lost, and is to make connections after that.
        thread::sleep(Load::LIMIT + Duration::from_secs(1));
        ensure_hardly_harmed(&load.finish()?)?;
        // Of a TCP connection that opens or ends in that moment, conntrack may see a SYN's answer or a FIN before anything else.
        let invalid_tcp = drops.invalid_tcp;
        let of_tcp = Drops {
            invalid_tcp,
            ..Drops::default()
        };
        ensure!(
            invalid_tcp <= opening && drops == of_tcp,
            "{drops:?}, and at most {opening} TCP connections opened or ended"
        );
        Ok(())
    })
}

/// A driver loses what is in its rings when its program comes or goes: TCP sends that again, and of UDP it is next to nothing.
fn ensure_hardly_harmed(report: &LoadReport) -> Result<()> {
    for (name, stream) in &report.streams {
        let steady = stream.identities.len() == 1 && stream.sources.len() == 1;
        ensure!(
            steady && stream.error.is_none() && stream.answered > 0 && stream.lost < FEW_PACKETS,
            "the stream to {name}: {stream:?}"
        );
    }
    for (name, connections) in &report.connections {
        let failed = connections.failed.len() as u64;
        let lost = name.ends_with("Udp") && failed < FEW_PACKETS;
        ensure!(
            connections.made() > 0 && (failed == 0 || lost),
            "new connections to {name}: {connections:?}"
        );
    }
    Ok(())
}
