//! Connections to a backend that is no endpoint of its Service any more, over a backend that goes on answering.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::probe::{Probe, Report, Stream, StreamOptions};

use crate::fixture::{FEW, Fixture, cluster_ips, each, service, with_node_port};

const NODE_PORT: u16 = 30030;
/// How long streams go on after the change; each sends every few milliseconds.
const MEANWHILE: Duration = Duration::from_millis(500);

/// The Service, with that pod as its endpoint.
fn services(pod: &str) -> String {
    with_node_port(&service("moving", "app", pod, 63), NODE_PORT)
}

/// Who is connected to what by TCP while the Service loses pod `from`, and what came of it.
fn moved(fixture: &mut Fixture, from: &str) -> Result<Vec<(&'static str, SocketAddr, Report)>> {
    fixture.apply("moving.yaml", &services(from))?;
    let node1 = fixture.cluster.topology().node("node1").addresses();
    let mut streams = Vec::new();
    for (client, to) in [
        ("client", cluster_ips(63).map(|ip| (ip, 80))),
        ("outside", node1.both().map(|ip| (ip, NODE_PORT))),
        ("node1", cluster_ips(63).map(|ip| (ip, 80))),
    ] {
        for to in to.map(SocketAddr::from) {
            let probe = Probe::tcp(to).timeout(Duration::from_secs(3));
            let place = fixture.place(client);
            let stream = Stream::start(&place, probe, StreamOptions::default())?;
            streams.push((client, to, stream));
        }
    }
    fixture.apply("moving.yaml", &services("other"))?;
    thread::sleep(MEANWHILE);
    for (client, to, _) in &streams {
        // New ones go where the Service is.
        let outcome = Probe::tcp(*to).run(&fixture.place(client));
        ensure!(
            outcome.identity() == Some("other"),
            "{client} to {to}: {outcome:?}"
        );
    }
    streams
        .into_iter()
        .map(|(client, to, stream)| Ok((client, to, stream.finish()?)))
        .collect()
}

#[test]
fn connections_to_removed_backends_are_kept_or_reset() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        for from in ["near", "far"] {
            for (client, to, report) in moved(&mut fixture, from)? {
                ensure!(
                    report.ensure_unharmed().is_ok(),
                    "{client} to {to}, from {from}: {report:?}"
                );
            }
        }
        // The programs are the same; the maps say what they do.
        fixture
            .cluster
            .replace_agent("node1", &["--removed-backends=reset"])?;
        for from in ["near", "far"] {
            for (client, to, report) in moved(&mut fixture, from)? {
                // A node's own socket has talked to the backend itself ever since it was connected.
                let kept = client == "node1";
                let error = report.error.as_deref().unwrap_or_default();
                ensure!(
                    if kept {
                        report.ensure_unharmed().is_ok()
                    } else {
                        error.contains("reset") && report.answered > 0
                    },
                    "{client} to {to}, from {from}: {report:?}"
                );
            }
        }
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

/// A process of node1 with a UDP socket that is connected to the Service, and has been answered.
fn connect(fixture: &Fixture, to: SocketAddr, server: &str) -> Result<UdpSocket> {
    let unspecified = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = fixture.place("node1").run(|| -> Result<_> {
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.send(br#"{"number":0}"#)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    ensure!(answer.contains(server), "{to}: {answer}");
    Ok(socket)
}

fn ensure_ended(socket: &UdpSocket) -> Result<()> {
    let error = socket.recv(&mut [0; 8]).err().context("it lives")?;
    ensure!(error.kind() == ErrorKind::ConnectionAborted, "{error}");
    Ok(())
}

/// Pods' datagrams are elsewhere with the next one; sockets of the node, which know their backend for good, are ended.
#[test]
fn datagrams_leave_removed_backends() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let all = ["--socket-lb=all"];
        fixture.cluster.replace_agent("node1", &all)?;
        let services_at = cluster_ips(63).map(|ip| SocketAddr::new(ip, 80));
        fixture.apply("moving.yaml", &services("near"))?;
        let connect_all = |fixture: &Fixture, server| -> Result<Vec<_>> {
            let sockets = services_at.iter().map(|to| connect(fixture, *to, server));
            sockets.collect()
        };
        let sockets = connect_all(&fixture, "near")?;
        let place = fixture.place("client");
        let streams = services_at
            .map(|to| Stream::start(&place, Probe::udp(to), StreamOptions::default()))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        // While no agent runs: the next one finds what has become stale meanwhile.
        fixture.cluster.agent("node1").kill()?;
        fixture.cluster.apply("moving.yaml", &services("other"))?;
        fixture.cluster.replace_agent("node1", &all)?;
        sockets.iter().try_for_each(ensure_ended)?;
        thread::sleep(MEANWHILE);
        for stream in streams {
            let report = stream.finish()?;
            ensure!(
                report.error.is_none() && report.lost == 0,
                "a pod was told, or lost a datagram: {report:?}"
            );
            ensure!(report.identities.len() == 2, "{report:?}");
        }
        // The process connects again; then nobody's sockets are served any more.
        let sockets = connect_all(&fixture, "other")?;
        fixture
            .cluster
            .replace_agent("node1", &["--socket-lb=none"])?;
        fixture.apply("moving.yaml", &services("near"))?;
        sockets.iter().try_for_each(ensure_ended)
    })
}
