//! Whose sockets are served: `--socket-lb`, restarts and what cleaning up leaves.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_common::abi::LAYOUT;
use weir_tests::probe::Protocol::{Tcp, Udp, UdpUnconnected};
use weir_tests::probe::{Load, Outcome, Probe};

use crate::fixture::{FEW, Fixture, each, every_way, vip};

/// How often the agent is replaced under load.
const RESTARTS: u32 = 12;

#[test]
fn modes_serve_whom_they_name() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        ensure_status(&fixture, "node1", "host", true)?;
        // The packet path knows the Service of a pod's connection: the socket path was not taken.
        ensure!(
            services_of_connections(&fixture, "client")?
                .iter()
                .all(|known| *known)
        );

        fixture
            .cluster
            .replace_agent("node1", &["--socket-lb=all"])?;
        ensure_status(&fixture, "node1", "all", true)?;
        ensure!(
            services_of_connections(&fixture, "client")?
                .iter()
                .all(|known| !known)
        );
        for protocol in [Tcp, Udp, UdpUnconnected] {
            for client in ["client", "node1"] {
                for name in ["near", "far", "client"] {
                    fixture.ensure_reaches(client, protocol, vip(name, 80), &[name])?;
                }
            }
            for to in vip("empty", 80) {
                let outcome = Probe::tcp(to)
                    .protocol(protocol)
                    .run(&fixture.place("client"));
                // An unconnected socket does not hear of ICMP.
                let wanted = match protocol {
                    UdpUnconnected => Outcome::Timeout,
                    _ => Outcome::Refused,
                };
                ensure!(outcome == wanted, "{to} {protocol:?}: {outcome:?}");
            }
        }

        fixture
            .cluster
            .replace_agent("node1", &["--socket-lb=none"])?;
        ensure_status(&fixture, "node1", "none", false)?;
        ensure_out_of_reach(&fixture, "node1");
        ensure!(
            services_of_connections(&fixture, "client")?
                .iter()
                .all(|known| *known)
        );
        // The other node of this kernel goes its own way.
        ensure_status(&fixture, "node2", "host", true)?;
        fixture.ensure_reaches("node2", Tcp, vip("near", 80), &["near"])?;

        fixture.cluster.replace_agent("node1", &[])?;
        fixture.ensure_reaches("node1", Tcp, vip("near", 80), &["near"])?;
        // What somebody takes away comes back with the next change.
        let bpffs = fixture.cluster.topology().node("node1").agent_paths().bpffs;
        fs::remove_file(bpffs.join(format!("v{LAYOUT}/links/connect4")))?;
        fixture.cluster.settle()?;
        ensure_status(&fixture, "node1", "host", true)?;
        fixture.ensure_reaches("node1", Tcp, vip("near", 80), &["near"])?;
        cleanup_leaves_nothing(&mut fixture)
    })
}

/// Connects from a pod to Services, and gives for each connection that the node tracks whether it knows the Service.
fn services_of_connections(fixture: &Fixture, client: &str) -> Result<Vec<bool>> {
    let place = fixture.place(client);
    let mut known = Vec::new();
    for to in vip("far", 80) {
        let stream = place.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)))?;
        ensure!(
            stream.peer_addr()? == to,
            "the peer is {:?}",
            stream.peer_addr()
        );
        let local = stream.local_addr()?;
        let answer = fixture
            .cluster
            .ask("node1", &["conntrack", "list", "-o", "json"])?;
        let list: Value = serde_json::from_str(&answer.stdout)?;
        let rows = list["items"].as_array().context("items")?;
        let row = rows.iter().find(|row| {
            row["source"] == local.ip().to_string() && row["sourcePort"] == local.port()
        });
        let row = row.with_context(|| format!("{local} is not among {}", answer.stdout))?;
        known.push(!row["service"].is_null());
    }
    Ok(known)
}

fn ensure_status(fixture: &Fixture, node: &str, served: &str, attached: bool) -> Result<()> {
    let status = fixture.cluster.status(node)?;
    let sockets = &status["sockets"];
    ensure!(
        sockets["served"] == served && sockets["attached"] == attached,
        "{node}: {sockets}"
    );
    Ok(())
}

fn ensure_out_of_reach(fixture: &Fixture, client: &str) {
    for to in vip("near", 80) {
        let probe = Probe::tcp(to).timeout(Duration::from_millis(400));
        let outcome = probe.run(&fixture.place(client));
        assert!(
            matches!(outcome, Outcome::Timeout | Outcome::Unreachable),
            "{client} -> {to}: {outcome:?}"
        );
    }
}

fn cleanup_leaves_nothing(fixture: &mut Fixture) -> Result<()> {
    fixture.cluster.kill_agents()?;
    // Without an agent, nothing changes.
    fixture.ensure_reaches("node1", Tcp, vip("near", 80), &["near"])?;
    fixture.cluster.cleanup("node1")?;
    ensure_out_of_reach(fixture, "node1");
    fixture.ensure_reaches("node2", Tcp, vip("far", 80), &["far"])?;
    fixture.cluster.cleanup("node2")?;
    ensure_out_of_reach(fixture, "node2");
    Ok(())
}

#[test]
fn the_node_does_not_notice_that_agents_are_replaced() -> Result<()> {
    each(&FEW[..1], |variant| {
        let mut fixture = Fixture::new(variant)?;
        let place = fixture.place("node1");
        let connect = |to: SocketAddr| place.run(|| TcpStream::connect(to));
        let open: Vec<_> = vip("stable", 80)
            .map(connect)
            .into_iter()
            .collect::<Result<_, _>>()?;
        let load = Load::start(&place, &every_way())?;
        for _ in 0..RESTARTS {
            fixture.cluster.agent("node1").restart()?;
            thread::sleep(Duration::from_millis(300));
        }
        fixture.cluster.wait_ready("node1")?;
        load.finish()?.ensure_unharmed()?;
        for (stream, to) in open.iter().zip(vip("stable", 80)) {
            ensure!(stream.peer_addr()? == to, "{:?}", stream.peer_addr());
        }
        Ok(())
    })
}
