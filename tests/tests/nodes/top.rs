//! Who talks most.

use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::probe::Probe;
use weir_tests::probe::{Mirror, Protocol::Tcp};
use weir_tests::process::Process;

use crate::ends::wait;
use crate::fixture::{FEW, Fixture, MIRROR, PATIENCE, cluster_ips, each, service, to_mirror};
use crate::followed::{first_line, follow, lines};
use crate::isolation::policy;

/// Bytes that go each way.
const LENGTH: u32 = 300_000;

#[test]
fn what_top_shows_adds_up_to_what_went_over_each_connection() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("closed.yaml", &policy("closed", "near", "ingress: []"))?;
        let reflect = service("reflect", "app", "far", 31);
        fixture.apply("reflect.yaml", &to_mirror(&reflect))?;
        let _mirror = Mirror::start(&fixture.place("far"), MIRROR)?;
        for node in ["node1", "node2"] {
            fixture.cluster.replace_agent(node, &["--flow-ends=1"])?;
        }
        let shown = |node, by| {
            let by = format!("--by={by}");
            let command = ["top", "-o=json", "--interval=1s", "-n=default", &by];
            let shown = follow(&fixture, node, &command)?;
            // What was before is not counted.
            first_line(&shown, |_| true).map(|_| shown)
        };
        let [pods, services, drops] = ["pods", "services", "drops"].map(|by| shown("node1", by));
        let (pods, services, drops) = (pods?, services?, drops?);
        let there = shown("node2", "pods")?;
        for ip in cluster_ips(31) {
            let probe = Probe::tcp(SocketAddr::new(ip, 80)).timeout(PATIENCE);
            probe.transfer(&fixture.place("client"), LENGTH)?;
        }
        fixture.ensure_silence("client", Tcp, fixture.server("near"))?;

        let expected = sum_of_ends(&wait(&fixture, "node1", "default/svc/reflect", 2)?)?;
        ensure!(
            expected[0] == 2 && expected[3] > LENGTH.into(),
            "{expected:?}"
        );
        let to_far = |row: &Value| {
            row["source"] == "default/client"
                && row["destination"] == "default/far"
                && row["port"] == MIRROR
        };
        ensure_adds_up(&pods, to_far, expected)?;
        let to_service =
            |row: &Value| row["destination"] == "default/svc/reflect" && row["port"] == 80;
        ensure_adds_up(&services, to_service, expected)?;
        let expected = sum_of_ends(&wait(&fixture, "node2", "default/far", 2)?)?;
        ensure_adds_up(&there, to_far, expected)?;

        let line = first_line(&drops, |line| {
            row(line, |row| row["destination"] == "default/near").is_some()
        })?;
        let denied = row(&line, |row| row["destination"] == "default/near").context("a row")?;
        ensure!(
            denied["source"] == "default/client"
                && denied["reason"] == "policy_denied"
                && denied["policies"][0] == "default/closed"
                && line["nodes"][0]["refusedPerSecond"].as_f64() > Some(0.0),
            "{line}"
        );
        Ok(())
    })
}

/// A row of a picture.
fn row(line: &Value, is_wanted: impl Fn(&Value) -> bool) -> Option<&Value> {
    line["rows"].as_array()?.iter().find(|row| is_wanted(row))
}

/// Connections, packets and bytes there and back that ends of flows tell.
fn sum_of_ends(records: &[Value]) -> Result<[u64; 5]> {
    let mut sum = [0; 5];
    for record in records {
        let count = |way: &str, what: &str| record["ended"][way][what].as_u64();
        let counts = [
            Some(1),
            count("sent", "packets"),
            count("received", "packets"),
            count("sent", "bytes"),
            count("received", "bytes"),
        ];
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count.with_context(|| record.to_string())?;
        }
    }
    Ok(sum)
}

/// Fails unless all pictures together come to this for a row, and to no more.
fn ensure_adds_up(
    shown: &Process,
    is_wanted: impl Fn(&Value) -> bool,
    expected: [u64; 5],
) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut enough = 0;
    loop {
        let lines = lines(shown)?;
        let mut sum = [0.0; 5];
        for line in &lines {
            let Some(row) = row(line, &is_wanted) else {
                continue;
            };
            let seconds = line["nodes"][0]["seconds"].as_f64().context("a time")?;
            let names = [
                "connections",
                "packetsSent",
                "packetsReceived",
                "bytesSent",
                "bytesReceived",
            ];
            for (sum, name) in sum.iter_mut().zip(names) {
                *sum += row["perSecond"][name].as_f64().context("a rate")? * seconds;
            }
        }
        let sum = sum.map(|count| count.round() as u64);
        if sum == expected && enough == 0 {
            enough = lines.len() + 2;
        }
        ensure!(
            enough == 0 || sum == expected,
            "{sum:?}, not {expected:?}: {lines:?}"
        );
        if enough > 0 && lines.len() >= enough {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "{sum:?}, not {expected:?}: {}",
            shown.logs()
        );
        thread::sleep(PATIENCE / 100);
    }
}
