//! Connections that live while policies come, change and go.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::probe::Protocol::{Tcp, Udp};
use weir_tests::probe::{Load, Probe, Stream, StreamOptions};

use crate::fixture::{ALL, DENY, Fixture, PATIENCE, SILENCE, Variant, each, every_way, vip};
use crate::isolation::{pods, policy};

/// Routed pods, bridged ones past netfilter, and bridged ones behind an overlay.
const SOME: [Variant; 3] = [ALL[0], ALL[3], ALL[6]];

/// How long streams go on after a change; each sends every few milliseconds.
const MEANWHILE: Duration = Duration::from_millis(300);

/// Streams to a pod: directly and through its Service, by TCP and UDP, in both families.
fn streams(fixture: &Fixture, client: &str, server: &str) -> Result<Vec<(Probe, Stream)>> {
    let place = fixture.place(client);
    let targets = [fixture.server(server), vip(server, 80)].concat();
    let probes = targets
        .into_iter()
        .flat_map(|to| [Probe::tcp(to), Probe::udp(to)]);
    probes
        .map(|probe| {
            let probe = probe.timeout(PATIENCE);
            let stream = Stream::start(&place, probe, StreamOptions::default())?;
            Ok((probe, stream))
        })
        .collect()
}

#[test]
fn connections_end_with_what_allowed_them() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let out = policy("client", "client", "policyTypes: [Egress]");
        // Closed at the server's end, then at the client's.
        for closed in [DENY, &out] {
            for server in ["near", "far"] {
                let streams = streams(&fixture, "client", server)?;
                fixture.apply("closed.yaml", closed)?;
                thread::sleep(MEANWHILE);
                for (probe, stream) in streams {
                    let report = stream.finish()?;
                    ensure!(
                        report.answered > 0 && report.lost > 0,
                        "{probe:?}: {report:?}"
                    );
                }
                fixture.ensure_silence("client", Tcp, fixture.server(server))?;
                fixture.cluster.delete("closed.yaml")?;
                fixture.cluster.settle()?;
                fixture.ensure_reaches("client", Tcp, fixture.server(server), &[server])?;
            }
        }
        Ok(())
    })
}

/// A connected socket of a pod.
fn connect(fixture: &Fixture, client: &str, to: SocketAddr) -> Result<UdpSocket> {
    let own = fixture.cluster.topology().pod(client).addresses();
    let socket = fixture.place(client).run(|| -> Result<_> {
        let socket = UdpSocket::bind((own.like(to.ip()), 0))?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    Ok(socket)
}

/// Whether a datagram is answered.
fn is_answered(socket: &UdpSocket, patience: Duration) -> Result<bool> {
    socket.set_read_timeout(Some(patience))?;
    socket.send(br#"{"number":0}"#)?;
    match socket.recv(&mut [0; 512]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error).context("a datagram was refused"),
    }
}

/// The ports of a flow say nothing: with each change the next datagram is judged.
#[test]
fn a_flow_of_datagrams_does_as_the_policies_of_the_moment() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let targets = [fixture.server("near"), vip("far", 80)].concat();
        let sockets: Vec<_> = targets
            .iter()
            .map(|to| connect(&fixture, "client", *to))
            .collect::<Result<_>>()?;
        for _ in 0..2 {
            for (file, allowed) in [(None, true), (Some(DENY), false)] {
                match file {
                    Some(text) => fixture.apply("deny.yaml", text)?,
                    None => fixture.apply("deny.yaml", "")?,
                }
                for (to, socket) in targets.iter().zip(&sockets) {
                    let patience = if allowed { PATIENCE } else { SILENCE };
                    let answered = is_answered(socket, patience)?;
                    ensure!(answered == allowed, "{to}: {answered}");
                }
            }
        }
        Ok(())
    })
}

/// From pods that nobody isolates to pods that one policy does, and hundred more, and back.
#[test]
fn nobody_notices_policies_that_allow_what_there_is() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let load = Load::start(&fixture.place("client"), &every_way())?;
        let back = |name: &str, app: &str| {
            let rule = format!("ingress: [{{from: [{}]}}]", pods(app));
            policy(name, "", &rule).replace(
                "podSelector: {}",
                "podSelector: {matchLabels: {tier: back}}",
            )
        };
        let many: String = (0..100)
            .map(|n| back(&format!("more-{n}"), &format!("nobody-{n}")))
            .collect();
        for text in [
            back("one", "client"),
            back("one", "client") + &many,
            many.clone() + &back("other", "client"),
            back("other", "client"),
            policy("client", "client", "policyTypes: [Ingress]") + &back("other", "client"),
            String::new(),
        ] {
            fixture.apply("policies.yaml", &text)?;
            if !text.is_empty() {
                fixture.ensure_silence("other", Udp, fixture.server("near"))?;
            }
        }
        load.finish()?.ensure_unharmed()
    })
}

#[test]
fn what_a_pod_opened_before_its_isolation_goes_on() -> Result<()> {
    each(&SOME, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let mut streams = streams(&fixture, "near", "client")?;
        streams.extend(self::streams(&fixture, "near", "far")?);
        fixture.apply(
            "near.yaml",
            &policy("near", "near", "policyTypes: [Ingress]"),
        )?;
        thread::sleep(MEANWHILE);
        for (probe, stream) in streams {
            let report = stream.finish()?;
            report
                .ensure_unharmed()
                .with_context(|| format!("{probe:?}"))?;
        }
        for client in ["client", "far"] {
            fixture.ensure_silence(client, Tcp, fixture.server("near"))?;
        }
        Ok(())
    })
}
