//! What a node gives its agent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::netns;
use weir_tests::skip_without_root;
use weir_tests::topology::{Shape, Topology};

use crate::spec;

#[test]
fn agents_run_in_their_node() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let node = topology.node("node1");
    let paths = node.agent_paths();
    let script = "readlink /proc/self/ns/net; grep ^0: /proc/self/cgroup; ip -br addr show eth0; echo READY; exec sleep 60";
    let mut agent = topology.spawn_agent("node1", "/bin/sh", ["-c", script])?;
    let log = topology.node("node1").agent_log("sh");
    let ready = |times| {
        move || std::fs::read_to_string(&log).is_ok_and(|log| log.matches("READY").count() == times)
    };
    agent.wait_until(Duration::from_secs(5), ready.clone()(1))?;
    let here = std::fs::read_link("/proc/self/ns/net")?
        .display()
        .to_string();
    let there = AsRef::<netns::Place>::as_ref(node)
        .run(|| std::fs::read_link("/proc/thread-self/ns/net"))?;
    let logs = agent.logs();
    ensure!(
        there.display().to_string() != here && logs.contains(&there.display().to_string()),
        "{logs}"
    );
    ensure!(logs.contains("172.30.0.11/24"), "{logs}");
    let cgroup = paths
        .cgroup
        .file_name()
        .context("a named cgroup")?
        .to_string_lossy()
        .into_owned();
    ensure!(logs.contains(&cgroup), "{logs}");
    let first = agent.pid();
    agent.restart()?;
    agent.wait_until(Duration::from_secs(5), ready(2))?;
    ensure!(agent.pid() != first && agent.exit_status()?.is_none());
    agent.terminate(Duration::from_secs(5))?;
    ensure!(agent.exit_status()?.is_some());
    Ok(())
}

#[test]
fn threads_of_nodes_are_in_their_cgroups() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let topology = Topology::build(&spec(Shape::Ptp))?;
    let cgroup =
        |place: &netns::Place| place.run(|| std::fs::read_to_string("/proc/thread-self/cgroup"));
    let of = |node: &str| topology.node(node).agent_paths().cgroup;
    for (place, node) in [
        (topology.node("node1").as_ref(), "node1"),
        (topology.pod("a").as_ref(), "node1"),
        (topology.pod("c").as_ref(), "node2"),
    ] {
        let (seen, wanted) = (cgroup(place)?, of(node));
        let wanted = wanted
            .file_name()
            .context("a named cgroup")?
            .to_string_lossy()
            .into_owned();
        ensure!(
            seen.lines()
                .any(|line| line.starts_with("0::/") && line.ends_with(&wanted)),
            "{wanted}: {seen}"
        );
    }
    ensure!(of("node1") != of("node2"));
    Ok(())
}
