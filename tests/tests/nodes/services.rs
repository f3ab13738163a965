//! Services, as clients in pods see them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_tests::probe::{Outcome, Probe, Protocol, connections};

use crate::fixture::{ALL, Fixture, each, vip};

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
