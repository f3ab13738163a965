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
        let mut follower = follow(&fixture, "node1", &["--from", "default/client"])?;
        let mut elsewhere = follow(&fixture, "node1", &["--from", "default/other"])?;
        fixture.ensure_silence("client", Tcp, fixture.server("near"))?;
        let end = Instant::now() + PATIENCE;
        while !follower.logs().contains('\n') {
            ensure!(Instant::now() < end, "nothing is seen");
            thread::sleep(PATIENCE / 100);
        }
        let logs = follower.logs();
        let line = logs.lines().next().context("a line")?;
        let record: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
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

/// `weir flows --follow` on a node.
fn follow(fixture: &Fixture, node: &str, wanted: &[&str]) -> Result<Process> {
    let node = fixture.cluster.topology().node(node);
    let directory = &node.agent_paths().run;
    let (binary, place) = (weir_binary()?, fixture.place("node1"));
    let arguments: Vec<String> = ["flows", "--follow", "--dropped", "-o=json"]
        .iter()
        .chain(wanted)
        .map(|it| (*it).to_owned())
        .chain([format!("--run-dir={}", directory.display())])
        .collect();
    let log = directory.join(format!(
        "follower-{}.log",
        wanted.join("-").replace('/', "-")
    ));
    Process::start("weir flows", &log, move || {
        let mut command = place.command(&binary);
        command.args(&arguments);
        command
    })
}
