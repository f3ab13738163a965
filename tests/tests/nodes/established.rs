//! Connections that live when a policy changes.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::probe::Protocol::Tcp;
use weir_tests::probe::{Probe, Report, Stream, StreamOptions};

use crate::fixture::{DENY, FEW, Fixture, each, vip};
use crate::restarts::Intruder;

/// How long streams go on after the change; each sends every few milliseconds.
const MEANWHILE: Duration = Duration::from_millis(500);
/// How often policies and labels change under live connections.
const EDITS: usize = 60;

/// What comes of connections of `client` to a pod of its node and one of another, by address and by Service, both families and
/// protocols, that live when both servers are isolated.
fn isolated_meanwhile(fixture: &mut Fixture) -> Result<Vec<(Probe, Report)>> {
    let place = fixture.place("client");
    let targets = [
        fixture.server("near"),
        fixture.server("far"),
        vip("near", 80),
        vip("far", 80),
    ];
    let probes = targets
        .into_iter()
        .flatten()
        .flat_map(|to| [Probe::tcp(to), Probe::udp(to)]);
    let streams = probes
        .map(|probe| {
            Ok((
                probe,
                Stream::start(&place, probe, StreamOptions::default())?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    fixture.apply("deny.yaml", DENY)?;
    // New ones are refused, whatever becomes of old ones.
    fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
    fixture.ensure_silence("client", Tcp, vip("far", 80))?;
    thread::sleep(MEANWHILE);
    streams
        .into_iter()
        .map(|(probe, stream)| Ok((probe, stream.finish()?)))
        .collect()
}

#[test]
fn what_is_no_longer_allowed_goes_on_where_that_is_wanted() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        for node in ["node1", "node2"] {
            let keep = ["--established=keep"];
            fixture.cluster.replace_agent(node, &keep)?;
        }
        for (probe, report) in isolated_meanwhile(&mut fixture)? {
            let unharmed = report.ensure_unharmed();
            ensure!(unharmed.is_ok(), "{probe:?}: {unharmed:?}");
        }
        Ok(())
    })
}

/// `client` may talk to the pods of tier `back` and `other` may not, one way or the other.
fn ways(edit: usize) -> String {
    let peer = match edit % 3 {
        0 => "podSelector: {matchLabels: {app: client}}",
        1 => {
            "namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [other, outside]}]}"
        }
        _ => "podSelector: {matchLabels: {app: client, tier: front}}",
    };
    let port = if edit.is_multiple_of(2) {
        ""
    } else {
        "\n    ports: [{protocol: TCP, port: 1, endPort: 9000}, {protocol: UDP}]"
    };
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: back, namespace: default}}
spec:
  podSelector: {{matchLabels: {{tier: back}}}}
  ingress:
  - from: [{{{peer}}}]{port}
"
    )
}

#[test]
fn edits_without_end_cut_nobody_off_and_let_nobody_in() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("back.yaml", &ways(0))?;
        let place = fixture.place("client");
        let probes = [vip("stable", 80), fixture.server("near")].map(|to| to.map(Probe::udp));
        let streams = probes
            .into_iter()
            .flatten()
            .chain(vip("stable", 80).map(Probe::tcp))
            .map(|probe| Stream::start(&place, probe, StreamOptions::default()))
            .collect::<Result<Vec<_>>>()?;
        let intruder = Intruder::start(&fixture, "other", fixture.server("near"))?;
        for edit in 0..EDITS {
            fixture.cluster.apply("back.yaml", &ways(edit))?;
            let more = ways(edit).replace("name: back", &format!("name: more-{}", edit % 4));
            fixture.cluster.apply("more.yaml", &more)?;
            // Every edit is one that agents see by itself.
            thread::sleep(Duration::from_millis(30));
        }
        fixture.cluster.settle()?;
        for stream in streams {
            stream.finish()?.ensure_unharmed()?;
        }
        let tries = intruder.finish()?;
        ensure!(tries > 10, "the intruder tried {tries} times only");
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}
