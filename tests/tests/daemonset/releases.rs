//! Agents come and go, the API server too; packets do not notice.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::lab::{Lab, agent};

use crate::fixture::{agent_on, cluster};
use crate::traffic::Traffic;

/// A release that is not there yet.
const NEXT: &str = "weir:next";

#[test]
fn nobody_notices_releases_outages_and_removal() -> Result<()> {
    let Some(mut lab) = cluster(&[])? else {
        return Ok(());
    };
    let traffic = Traffic::new(&lab)?;
    traffic.unharmed_by("a restart of all agents", || {
        let before = agent_on(&lab, "node1")?;
        roll(&lab, &["restart", "daemonset/weir"])?;
        ensure!(agent_on(&lab, "node1")? != before, "the agent is the same");
        Ok(())
    })?;
    traffic.unharmed_by("a release", || {
        release(&lab)?;
        ensure!(image_on(&lab, "node2")? == NEXT);
        Ok(())
    })?;
    traffic.unharmed_by("its withdrawal", || {
        roll(&lab, &["undo", "daemonset/weir"])?;
        ensure!(image_on(&lab, "node2")? == agent::IMAGE);
        Ok(())
    })?;
    let outage = Duration::from_secs(if weir_tests::soaks() { 600 } else { 45 });
    traffic.unharmed_by("an API server that is away", || {
        lab.control().stop_apiserver()?;
        thread::sleep(outage);
        lab.control().restart_apiserver()
    })?;
    traffic.unharmed_by("the DaemonSet's deletion", || {
        lab.kubectl(&[
            "--namespace=weir-system",
            "delete",
            "daemonset",
            "weir",
            "--wait",
        ])?;
        lab.kubectl(&[
            "--namespace=weir-system",
            "wait",
            "--for=delete",
            "pod",
            "--selector=k8s-app=weir",
            "--timeout=90s",
        ])?;
        thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    for node in ["node1", "node2"] {
        clean(&lab, node)?;
    }
    // There is no Service any more, and no policy either.
    traffic.is_unserved()
}

/// `kubectl rollout`, waited for.
fn roll(lab: &Lab, words: &[&str]) -> Result<()> {
    let rollout = ["--namespace=weir-system", "rollout"];
    lab.kubectl(&[&rollout, words].concat())?;
    rolled(lab)
}

fn rolled(lab: &Lab) -> Result<()> {
    let (namespace, name) = agent::DAEMON_SET;
    lab.wait_daemon_set(namespace, name)
}

/// A release by another name, as operators make them.
fn release(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        let full = |name: &str| format!("docker.io/library/{name}");
        let tag = node
            .command("ctr")
            .args(["--namespace=k8s.io", "images", "tag"])
            .args([full(agent::IMAGE), full(NEXT)])
            .output()?;
        ensure!(tag.status.success(), "{tag:?}");
    }
    let images = [format!("init={NEXT}"), format!("weir={NEXT}")];
    lab.kubectl(&[
        "--namespace=weir-system",
        "set",
        "image",
        "daemonset/weir",
        &images[0],
        &images[1],
    ])?;
    rolled(lab)
}

fn image_on(lab: &Lab, node: &str) -> Result<String> {
    lab.kubectl(&[
        "--namespace=weir-system",
        "get",
        "pod",
        &agent_on(lab, node)?,
        "-o=jsonpath={.spec.containers[0].image}",
    ])
}

/// Runs the manifest that takes Weir out of a node, and looks that nothing is left.
fn clean(lab: &Lab, node: &str) -> Result<()> {
    let pinned = lab.node(node)?.entrance().root().join("sys/fs/bpf/weir");
    ensure!(
        fs::read_dir(&pinned)?.next().is_some(),
        "nothing to clean up"
    );
    let mut pods = agent::manifest("cleanup.yaml")?;
    let [cleanup] = pods.as_mut_slice() else {
        anyhow::bail!("one pod is expected in cleanup.yaml");
    };
    let name = format!("weir-cleanup-{node}");
    cleanup["spec"]["nodeName"] = node.into();
    cleanup["metadata"]["generateName"].take();
    cleanup["metadata"]["name"] = name.as_str().into();
    lab.apply(&cleanup.to_string())?;
    lab.kubectl(&[
        "--namespace=weir-system",
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=90s",
        "pod",
        &name,
    ])?;
    ensure!(!pinned.exists(), "{} is left", pinned.display());
    Ok(())
}
