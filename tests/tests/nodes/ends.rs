//! What is told of connections that have ended.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::probe::{Mirror, Probe, Stream, StreamOptions};

use crate::fixture::{FEW, Fixture, MIRROR, PATIENCE, cluster_ips, each, service, to_mirror, vip};
use crate::isolation::policy;

/// Bytes that go each way.
const LENGTH: u32 = 100_000;
/// For a walk over the table to begin and to end, after a closed connection has come to rest.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn the_end_of_a_connection_is_told_once_on_each_node_that_saw_it() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("open.yaml", &policy("open", "near", "ingress: [{}]"))?;
        let reflecting = ["near", "far"].map(|pod| {
            let end = if pod == "near" { 30 } else { 31 };
            to_mirror(&service(&format!("reflect-{pod}"), "app", pod, end))
        });
        fixture.apply("reflect.yaml", &reflecting.concat())?;
        let _mirrors = ["near", "far"]
            .into_iter()
            .map(|pod| Mirror::start(&fixture.place(pod), MIRROR))
            .collect::<Result<Vec<_>>>()?;
        for node in ["node1", "node2"] {
            let log = format!("--flow-log={}", log(&fixture, node).display());
            let wanted = "--flow-log-filter=--verdict ended --to default/svc/client";
            let options = ["--flow-ends=1", &log, wanted];
            fixture.cluster.replace_agent(node, &options)?;
        }
        let [open, _] = vip("client", 80);
        let stream = Stream::start(
            &fixture.place("other"),
            Probe::tcp(open).timeout(PATIENCE),
            StreamOptions::default(),
        )?;
        for ip in [cluster_ips(30), cluster_ips(31)].concat() {
            let probe = Probe::tcp(SocketAddr::new(ip, 80)).timeout(PATIENCE);
            probe.transfer(&fixture.place("client"), LENGTH)?;
        }
        // One of each family.
        let near = wait(&fixture, "node1", "default/svc/reflect-near", 2)?;
        let far = wait(&fixture, "node1", "default/svc/reflect-far", 2)?;
        let there = wait(&fixture, "node2", "default/far", 2)?;
        for record in &near {
            ensure_whole(record, "egress", "near")?;
            let rule = &record["ended"]["ingressRule"];
            ensure!(
                rule["policy"]["name"] == "open" && rule["index"] == 0,
                "{record}"
            );
            ensure!(record["ended"]["egressRule"].is_null(), "{record}");
        }
        for record in &far {
            ensure_whole(record, "egress", "far")?;
            ensure!(record["ended"]["ingressRule"].is_null(), "{record}");
        }
        for record in &there {
            ensure_whole(record, "ingress", "far")?;
        }
        // Walks that find the same entries again tell nothing, nor is anything told of what goes on.
        thread::sleep(Duration::from_secs(2));
        for (node, to, count) in [
            ("node1", "default/svc/reflect-near", 2),
            ("node1", "default/svc/reflect-far", 2),
            ("node2", "default/far", 2),
            ("node1", "default/svc/client", 0),
        ] {
            let told = ends(&fixture, node, to)?;
            ensure!(told.len() == count, "{node} {to}: {told:?}");
        }
        stream.finish()?.ensure_unharmed()?;
        let closed = wait(&fixture, "node1", "default/svc/client", 1)?;
        ensure!(
            closed[0]["source"]["owner"]["pod"]["name"] == "other",
            "{closed:?}"
        );
        // It alone is wanted in the file.
        let end = Instant::now() + LIMIT;
        let mut text = String::new();
        while !text.ends_with('\n') {
            ensure!(Instant::now() < end, "no line: {text}");
            thread::sleep(LIMIT / 100);
            text = fs::read_to_string(log(&fixture, "node1")).unwrap_or_default();
        }
        ensure!(serde_json::from_str::<Value>(&text)? == closed[0], "{text}");
        let state = &fixture.cluster.status("node1")?["flowLog"];
        ensure!(
            state["written"] == 1 && state["lost"] == 0 && state["error"].is_null(),
            "{state}"
        );
        let metrics = fixture.cluster.metrics("node1")?;
        ensure!(
            metrics.contains("weir_conntrack_lost_total 0\n"),
            "{metrics}"
        );
        Ok(())
    })
}

/// Fails unless a record is of a closed connection between pod `client` and `server` over which the bytes went.
fn ensure_whole(record: &Value, direction: &str, server: &str) -> Result<()> {
    let ended = &record["ended"];
    let to = match direction {
        "egress" => "backend",
        _ => "destination",
    };
    ensure!(
        record["verdict"] == "ended"
            && record["reason"] == "closed"
            && record["direction"] == direction
            && record["source"]["owner"]["pod"]["name"] == "client"
            && record[to]["owner"]["pod"]["name"] == server
            && record[to]["port"] == MIRROR,
        "{record}"
    );
    for way in ["sent", "received"] {
        let count = |what: &str| ended[way][what].as_u64().context("a count");
        let flags = ended[way]["tcpFlags"].as_array().context("flags")?;
        ensure!(
            count("packets")? > 3
                && (LENGTH.into()..2 * u64::from(LENGTH)).contains(&count("bytes")?)
                && ["syn", "ack", "fin"]
                    .iter()
                    .all(|flag| flags.iter().any(|it| it == flag)),
            "{way}: {record}"
        );
    }
    let time = |value: &Value| -> Result<jiff::Timestamp> {
        Ok(value.as_str().context("a time")?.parse()?)
    };
    let [began, last, told] = [&ended["began"], &ended["lastPacket"], &record["time"]].map(time);
    let (began, last, told) = (began?, last?, told?);
    ensure!(began <= last && last < told, "{record}");
    Ok(())
}

/// Where a node's agent writes records.
fn log(fixture: &Fixture, node: &str) -> PathBuf {
    let paths = fixture.cluster.topology().node(node).agent_paths();
    paths.state.join("log/flows.jsonl")
}

/// The ends of connections to there that a node tells.
fn ends(fixture: &Fixture, node: &str, to: &str) -> Result<Vec<Value>> {
    let question = ["flows", "--verdict=ended", "-o=json", "--to", to];
    let answer = fixture.cluster.ask(node, &question)?;
    ensure!(answer.code == Some(0), "{answer:?}");
    let mut list: Value = serde_json::from_str(&answer.stdout)?;
    match list["items"].take() {
        Value::Array(records) => Ok(records),
        other => anyhow::bail!("no list: {other}"),
    }
}

/// The same once there are so many.
pub(crate) fn wait(fixture: &Fixture, node: &str, to: &str, count: usize) -> Result<Vec<Value>> {
    let end = Instant::now() + LIMIT;
    loop {
        let records = ends(fixture, node, to)?;
        if records.len() >= count {
            ensure!(records.len() == count, "{node} {to}: {records:?}");
            return Ok(records);
        }
        ensure!(Instant::now() < end, "{node} {to}: {records:?}");
        thread::sleep(LIMIT / 100);
    }
}
