//! Services, as clients in pods see them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weir_tests::probe::{Load, Outcome, Probe, Protocol, Stream, StreamOptions, connections};

use crate::fixture::{ALL, FEW, Fixture, cluster_ips, each, every_way, service, vip};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::UdpUnconnected];

/// A refusal takes a round trip; waiting for one would take a time-out.
const AT_ONCE: Duration = Duration::from_millis(800);

#[test]
fn services_lead_to_their_backends() -> Result<()> {
    each(&ALL, |variant| {
        let fixture = Fixture::new(variant)?;
        for protocol in PROTOCOLS {
            fixture.ensure_reaches("client", protocol, vip("near", 80), &["near"])?;
            fixture.ensure_reaches("client", protocol, vip("far", 80), &["far"])?;
            // Through the Service back to itself.
            fixture.ensure_reaches("client", protocol, vip("client", 80), &["client"])?;
            fixture.ensure_reaches("far", protocol, vip("near", 80), &["near"])?;
        }
        servers_see_the_client(&fixture)?;
        refusals_come_at_once(&fixture)?;
        new_connections_spread(&fixture)?;
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

fn servers_see_the_client(fixture: &Fixture) -> Result<()> {
    let client = fixture.cluster.topology().pod("client");
    for name in ["near", "far"] {
        for to in vip(name, 80) {
            for protocol in PROTOCOLS {
                let outcome = Probe::tcp(to).protocol(protocol).run(client);
                let seen = outcome.source().map(|source| source.ip());
                ensure!(
                    seen == Some(client.addresses().like(to.ip())),
                    "{name} {protocol:?}: {outcome:?}"
                );
            }
        }
    }
    Ok(())
}

fn refusals_come_at_once(fixture: &Fixture) -> Result<()> {
    // No endpoint; then no such port.
    for to in vip("empty", 80).into_iter().chain(vip("near", 81)) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let start = Instant::now();
            let outcome = Probe::tcp(to)
                .protocol(protocol)
                .timeout(Duration::from_secs(3))
                .run(&fixture.place("client"));
            ensure!(
                outcome == Outcome::Refused && start.elapsed() < AT_ONCE,
                "{to} {protocol:?}: {outcome:?} after {:?}",
                start.elapsed()
            );
        }
    }
    Ok(())
}

fn new_connections_spread(fixture: &Fixture) -> Result<()> {
    for to in vip("back", 80) {
        let seen = connections(&fixture.place("client"), to, 60);
        let servers: BTreeSet<_> = seen.answered.keys().map(String::as_str).collect();
        ensure!(
            servers == BTreeSet::from(["near", "far", "spare"]) && seen.failed.is_empty(),
            "{to}: {seen:?}"
        );
    }
    Ok(())
}

#[test]
fn a_client_has_connections_to_several_services_from_one_port() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        // Two Services for each pod, so that the pod would see its client's port twice.
        let again = [("near", 40), ("far", 41), ("client", 42)];
        let services = again.map(|(pod, end)| service(&format!("{pod}-again"), "app", pod, end));
        fixture.apply("again.yaml", &services.concat())?;
        let client = fixture.cluster.topology().pod("client");
        for ((pod, end), port) in again.into_iter().zip(5000..) {
            for (first, second) in vip(pod, 80).into_iter().zip(cluster_ips(end)) {
                let own = SocketAddr::new(client.addresses().like(second), port);
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let start = |to| {
                        let probe = Probe::tcp(to).protocol(protocol).from(own);
                        Stream::start(client, probe, StreamOptions::default())
                    };
                    let streams = [start(first)?, start(SocketAddr::new(second, 80))?];
                    // Some messages each way.
                    thread::sleep(Duration::from_millis(50));
                    let [first, second] = streams.map(Stream::finish);
                    let (first, second) = (first?, second?);
                    for report in [&first, &second] {
                        report
                            .ensure_unharmed()
                            .with_context(|| format!("{own} {pod}"))?;
                        ensure!(report.identities.contains(pod), "{report:?}");
                    }
                    ensure!(first.sources.is_disjoint(&second.sources));
                }
            }
        }
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

/// From one pod to another and back, by their readiness, while clients ask.
#[test]
fn clients_go_over_when_readiness_does_and_lose_nothing() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let [tcp_v4, tcp_v6, ..] = every_way();
        fixture.cluster.set_ready("far", false)?;
        fixture.cluster.settle()?;
        let load = Load::start(&fixture.place("client"), &[tcp_v4, tcp_v6])?;
        for (green, blue) in [("far", "near"), ("near", "far"), ("far", "near")] {
            fixture.cluster.set_ready(green, true)?;
            fixture.cluster.set_ready(blue, false)?;
            fixture.cluster.settle()?;
            for protocol in PROTOCOLS {
                fixture.ensure_reaches("client", protocol, vip("stable", 80), &[green])?;
            }
        }
        load.finish()?.ensure_unharmed()?;
        variant.ensure_nothing_dropped(fixture.cluster.topology())
    })
}

/// The subnets that the cluster's Services are of.
const RANGES: &str = "apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16, 'fd10:96::/112']}
";

#[test]
fn addresses_that_no_service_has_lead_nowhere() -> Result<()> {
    each(&ALL, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let nobodys = cluster_ips(99).map(|ip| SocketAddr::new(ip, 80));
        fixture.apply("ranges.yaml", RANGES)?;
        let status = fixture.cluster.status("node1")?;
        ensure!(status["synced"] == true, "{status}");
        for protocol in PROTOCOLS {
            fixture.ensure_silence("client", protocol, nobodys)?;
            fixture.ensure_reaches("client", protocol, vip("near", 80), &["near"])?;
        }
        let metrics = fixture.cluster.metrics("node1")?;
        let counted = metrics.lines().any(|line| {
            line.starts_with("weir_packets_total")
                && line.contains("reason=\"no_service\"")
                && !line.ends_with(" 0")
        });
        ensure!(counted, "{metrics}");
        for to in nobodys {
            let outcome = Probe::tcp(to).run(&fixture.place("node1"));
            ensure!(outcome == Outcome::Prohibited, "{to}: {outcome:?}");
            let answer = fixture
                .cluster
                .ask("node1", &["explain", "default/client", &to.to_string()])?;
            ensure!(
                answer.code == Some(1) && answer.stdout.contains("no Service has that address"),
                "{answer:?}"
            );
        }
        for to in vip("near", 80) {
            let outcome = Probe::tcp(to).run(&fixture.place("node1"));
            ensure!(outcome.identity() == Some("near"), "{to}: {outcome:?}");
        }
        Ok(())
    })
}
