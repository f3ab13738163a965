//! Flow records as they come.

use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::cluster::weir_binary;
use weir_tests::probe::Protocol::Tcp;
use weir_tests::process::Process;

use crate::fixture::{FEW, Fixture, PATIENCE, each};
use crate::isolation::policy;

#[test]
fn drops_are_seen_as_they_come_until_the_agent_ends() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("near.yaml", &policy("closed", "near", "ingress: []"))?;
        let mut follower = follow(
            &fixture,
            "node1",
            &[&FLOWS[..], &["--from", "default/client"]].concat(),
        )?;
        let mut elsewhere = follow(
            &fixture,
            "node1",
            &[&FLOWS[..], &["--from", "default/other"]].concat(),
        )?;
        fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
        let record = first_line(&follower, |_| true)?;
        ensure!(
            record["verdict"] == "dropped"
                && record["node"] == "node1"
                && record["source"]["owner"]["pod"]["name"] == "client"
                && record["deniedBy"][0]["name"] == "closed",
            "{record}"
        );
        // Who follows does not keep it from ending.
        fixture.cluster.agent("node1").terminate(PATIENCE)?;
        for follower in [&mut follower, &mut elsewhere] {
            let status = follower.wait(PATIENCE)?;
            let logs = follower.logs();
            ensure!(
                status.code() == Some(2) && logs.contains("the agent has ended"),
                "{status}: {logs}"
            );
        }
        ensure!(
            !elsewhere.logs().contains("\"verdict\""),
            "{}",
            elsewhere.logs()
        );
        Ok(())
    })
}

#[test]
fn connections_are_seen_as_they_begin() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let server = fixture.server("near");
        fixture.apply("near.yaml", &policy("open", "near", "ingress: [{}]"))?;
        let watcher = follow(&fixture, "node1", &["conntrack", "list", "-w", "-o=json"])?;
        // A list of what there is comes first; what begins after it is told as well.
        thread::sleep(PATIENCE / 10);
        fixture.ensure_reaches("client", Tcp, server, &["near"])?;
        let change = first_line(&watcher, |line| {
            line["object"]["destination"] == server[0].ip().to_string()
                && line["object"]["destinationPod"]["name"] == "near"
        })?;
        ensure!(
            change["type"] == "ADDED" && change["object"]["sourcePod"]["name"] == "client",
            "{change}"
        );
        Ok(())
    })
}

/// Drops as they come.
const FLOWS: [&str; 4] = ["flows", "--follow", "--dropped", "-o=json"];

/// The first line that is wanted of what a command goes on to write.
pub(crate) fn first_line(follower: &Process, is_wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(line) = lines(follower)?.into_iter().find(&is_wanted) {
            return Ok(line);
        }
        let logs = follower.logs();
        ensure!(Instant::now() < end, "it is not seen: {logs}");
        thread::sleep(PATIENCE / 100);
    }
}

/// The lines of JSON that a command has written so far.
pub(crate) fn lines(follower: &Process) -> Result<Vec<Value>> {
    let logs = follower.logs();
    // The last line may lack its end.
    let whole = logs.rfind('\n').map_or("", |end| &logs[..end]);
    let lines = whole.lines();
    let lines = lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
    lines.collect()
}

/// A command of `weir` on a node that goes on.
pub(crate) fn follow(fixture: &Fixture, node: &str, arguments: &[&str]) -> Result<Process> {
    let place = fixture.place(node);
    let node = fixture.cluster.topology().node(node);
    let directory = &node.agent_paths().run;
    let binary = weir_binary()?;
    let log = directory.join(format!("{}.log", arguments.join("-").replace('/', "-")));
    let arguments: Vec<String> = arguments
        .iter()
        .map(|it| (*it).to_owned())
        .chain([format!("--run-dir={}", directory.display())])
        .collect();
    Process::start("weir", &log, move || {
        let mut command = place.command(&binary);
        command.args(&arguments);
        command
    })
}
