//! Connections to a backend that is no endpoint of its Service any more, over a backend that goes on answering.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::probe::{Probe, Protocol, Report, Stream, StreamOptions};

use crate::fixture::{FEW, Fixture, cluster_ips, each, service};

const NODE_PORT: u16 = 30030;
/// How long streams go on after the change; each sends every few milliseconds.
const MEANWHILE: Duration = Duration::from_millis(500);

/// The Service, with that pod as its endpoint.
fn services(pod: &str) -> String {
    service("moving", "app", pod, 63)
        .replace("spec:\n", "spec:\n  type: NodePort\n")
        .replace("port: 80, ", &format!("port: 80, nodePort: {NODE_PORT}, "))
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
        // UDP is not reset: it is elsewhere with the next datagram.
        fixture.apply("moving.yaml", &services("near"))?;
        let to = SocketAddr::new(cluster_ips(63)[0], 80);
        let probe = Probe::tcp(to).protocol(Protocol::Udp);
        let place = fixture.place("client");
        let stream = Stream::start(&place, probe, StreamOptions::default())?;
        fixture.apply("moving.yaml", &services("other"))?;
        thread::sleep(MEANWHILE);
        let report = stream.finish()?;
        ensure!(
            report.error.is_none() && report.lost == 0 && report.identities.contains("other"),
            "{report:?}"
        );
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}
