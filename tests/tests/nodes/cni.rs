//! Pods whose networks the chained CNI plugin announces.

use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weir_tests::cluster::Answer;
use weir_tests::probe::Protocol::{Tcp, Udp};
use weir_tests::topology::PodSpec;

use crate::fixture::{DENY, FEW, Fixture, each, vip};

/// "Try again later" of the CNI specification.
const TRY_AGAIN: u64 = 11;
/// "Container unknown".
const UNKNOWN: u64 = 3;

/// A pod of node1 that policies of tier `back` select.
fn spec(name: &str) -> PodSpec {
    PodSpec {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        node: "node1".to_owned(),
        labels: BTreeMap::from([("tier".to_owned(), "back".to_owned())]),
    }
}

fn ensure_done(answer: &Answer) -> Result<()> {
    ensure!(answer.code == Some(0), "{answer:?}");
    Ok(())
}

/// Fails unless the answer is an error of that code.
fn ensure_refused(answer: &Answer, code: u64) -> Result<()> {
    let told: Value =
        serde_json::from_str(&answer.stdout).with_context(|| format!("{answer:?}"))?;
    ensure!(
        answer.code == Some(1) && told["code"] == code && told["cniVersion"] == "1.0.0",
        "{answer:?}"
    );
    Ok(())
}

/// The highest number of files that a process may have open.
fn descriptors(process: u32) -> Result<String> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits"))?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    Ok(format!("{}:", soft.context("a limit of open files")?))
}

/// Sets it; what is open stays so.
fn limit(process: u32, descriptors: &str) -> Result<()> {
    let status = Command::new("prlimit")
        .args([
            "--pid",
            &process.to_string(),
            &format!("--nofile={descriptors}"),
        ])
        .status()?;
    ensure!(status.success(), "prlimit: {status}");
    Ok(())
}

/// Fails unless a pod of which the API has not told is cut off from everybody but its node.
fn ensure_isolated(fixture: &Fixture, pod: &str) -> Result<()> {
    for protocol in [Tcp, Udp] {
        for other in ["client", "far", "node2"] {
            fixture.ensure_silence(other, protocol, fixture.server(pod))?;
        }
        for other in ["client", "far"] {
            fixture.ensure_silence(pod, protocol, fixture.server(other))?;
        }
        // Its kubelet.
        fixture.ensure_reaches("node1", protocol, fixture.server(pod), &[pod])?;
    }
    Ok(())
}

#[test]
fn a_pod_is_isolated_before_the_api_tells_of_it() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.cluster.wire_pod(&spec("late"))?;
        fixture.serve("late")?;
        // Without the plugin it is open.
        fixture.ensure_reaches("client", Tcp, fixture.server("late"), &["late"])?;
        fixture.ensure_reaches("late", Tcp, fixture.server("client"), &["client"])?;

        let added = fixture.cluster.cni("ADD", "late", json!({}))?;
        ensure_done(&added)?;
        let result: Value = serde_json::from_str(&added.stdout)?;
        ensure!(result == fixture.cluster.main_result("late"), "{result}");
        // Nothing is waited for: the plugin has returned.
        ensure_isolated(&fixture, "late")?;
        ensure_done(&fixture.cluster.cni("CHECK", "late", json!({}))?)?;
        ensure_done(&fixture.cluster.cni("ADD", "late", json!({}))?)?;

        fixture.cluster.agent("node1").restart()?;
        let restarting = fixture.cluster.cni("STATUS", "late", json!({}))?;
        ensure_done(&restarting)?;
        fixture.cluster.wait_ready("node1")?;
        fixture.cluster.settle()?;
        ensure_isolated(&fixture, "late")?;

        fixture.cluster.restore_pods()?;
        fixture.cluster.settle()?;
        fixture.ensure_reaches("client", Tcp, fixture.server("late"), &["late"])?;
        fixture.ensure_reaches("late", Udp, fixture.server("far"), &["far"])?;
        fixture.apply("deny.yaml", DENY)?;
        fixture.ensure_silence("client", Tcp, fixture.server("late"))?;
        fixture.ensure_reaches("late", Tcp, fixture.server("client"), &["client"])?;
        ensure_done(&fixture.cluster.cni("DEL", "late", json!({}))?)
    })
}

/// A pod whose object is there already, but not yet with an address: what the kubelet finds in the API.
#[test]
fn a_pod_that_the_api_told_of_has_its_policies_at_once() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("deny.yaml", DENY)?;
        fixture.cluster.wire_pod(&spec("late"))?;
        fixture.serve("late")?;
        let uid = fixture.cluster.topology().pod("late").uid();
        fixture.cluster.write_raw(
            "25-late.yaml",
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: late, namespace: default, uid: {uid}, labels: {{tier: back}}}}, \
                 spec: {{nodeName: node1, containers: []}}}}"
            ),
        )?;
        // It has no address in the API, so no programs are expected on its device.
        let deadline = Instant::now() + Duration::from_secs(10);
        while fixture.cluster.status("node1")?["watches"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|watch| watch["kind"] == "Pod" && watch["objects"] != 6)
        {
            ensure!(Instant::now() < deadline, "the agent does not see the pod");
        }
        ensure_done(&fixture.cluster.cni("ADD", "late", json!({}))?)?;
        fixture.ensure_silence("client", Tcp, fixture.server("late"))?;
        fixture.ensure_silence("far", Udp, fixture.server("late"))?;
        // The policy says nothing about what it opens.
        fixture.ensure_reaches("late", Tcp, fixture.server("client"), &["client"])?;
        fixture.ensure_reaches("node1", Tcp, fixture.server("late"), &["late"])
    })
}

#[test]
fn an_agent_without_free_descriptors_answers_once_it_has_some() -> Result<()> {
    each(&FEW[..1], |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.cluster.wire_pod(&spec("late"))?;
        ensure_done(&fixture.cluster.cni("ADD", "late", json!({}))?)?;
        let agent = fixture.cluster.agent("node1").pid();
        let usual = descriptors(agent)?;
        limit(agent, "3:")?;
        let checked = thread::scope(|scope| -> Result<_> {
            let checking = scope.spawn(|| fixture.cluster.cni("CHECK", "late", json!({})));
            thread::sleep(Duration::from_secs(1));
            ensure!(!checking.is_finished(), "it was answered");
            limit(agent, &usual)?;
            checking.join().unwrap_or_else(|panic| resume_unwind(panic))
        })?;
        ensure_done(&checked)?;
        fixture.cluster.agent("node1").ensure_running()
    })
}

#[test]
fn without_an_agent_a_pod_does_not_start() -> Result<()> {
    each(&FEW[..1], |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.cluster.wire_pod(&spec("late"))?;
        fixture.serve("late")?;
        fixture.cluster.agent("node1").kill()?;
        let impatient = json!({"waitSeconds": 1});
        let asked = Instant::now();
        ensure_refused(
            &fixture.cluster.cni("ADD", "late", impatient.clone())?,
            TRY_AGAIN,
        )?;
        ensure!(asked.elapsed() >= Duration::from_millis(900));
        ensure_refused(&fixture.cluster.cni("CHECK", "late", impatient)?, TRY_AGAIN)?;
        ensure_done(&fixture.cluster.cni("STATUS", "late", json!({}))?)?;
        ensure_done(&fixture.cluster.cni("DEL", "late", json!({}))?)?;

        // Where it may start all the same, the agent that comes finds it.
        let proceed = json!({"waitSeconds": 0, "whenAgentIsDown": "proceed"});
        let added = fixture.cluster.cni("ADD", "late", proceed.clone())?;
        ensure_done(&added)?;
        ensure!(
            added.stderr.contains("default/late starts without"),
            "{added:?}"
        );
        fixture.cluster.agent("node1").restart()?;
        fixture.cluster.wait_ready("node1")?;
        fixture.cluster.settle()?;
        ensure_isolated(&fixture, "late")?;

        // An agent that comes back in time is waited for.
        fixture.cluster.agent("node1").kill()?;
        fixture.cluster.wire_pod(&spec("later"))?;
        fixture.serve("later")?;
        fixture.cluster.agent("node1").restart()?;
        ensure_done(&fixture.cluster.cni("ADD", "later", json!({}))?)?;
        ensure_isolated(&fixture, "later")
    })
}

#[test]
fn what_is_gone_is_forgotten() -> Result<()> {
    each(&FEW[..1], |variant| {
        let mut fixture = Fixture::new(variant)?;
        for name in ["one", "two", "three", "four"] {
            fixture.cluster.wire_pod(&spec(name))?;
            ensure_done(&fixture.cluster.cni("ADD", name, json!({}))?)?;
        }
        let check = |fixture: &Fixture, name: &str| {
            fixture
                .cluster
                .cni("CHECK", name, json!({"waitSeconds": 1}))
        };
        ensure_done(&fixture.cluster.cni("DEL", "one", json!({}))?)?;
        ensure_refused(&check(&fixture, "one")?, UNKNOWN)?;
        ensure_done(&check(&fixture, "two")?)?;

        let two = fixture.cluster.container("two");
        let valid = json!([{"containerID": two, "ifname": "eth0"}]);
        let others = json!({"name": "others", "cni.dev/valid-attachments": []});
        ensure_done(&fixture.cluster.cni("GC", "two", others)?)?;
        ensure_done(&check(&fixture, "three")?)?;
        let collect = json!({"cni.dev/valid-attachments": valid});
        ensure_done(&fixture.cluster.cni("GC", "two", collect)?)?;
        ensure_done(&check(&fixture, "two")?)?;
        ensure_refused(&check(&fixture, "three")?, UNKNOWN)?;

        // A device that goes without a word takes its sandbox with it, and its address is free for another.
        let address = fixture.server("two");
        fixture.cluster.unwire_pod("two")?;
        fixture.cluster.unwire_pod("one")?;
        fixture.cluster.wire_pod(&spec("five"))?;
        fixture.cluster.wire_pod(&spec("six"))?;
        ensure!(fixture.server("six") == address || fixture.server("five") == address);
        fixture.cluster.restore_pods()?;
        fixture.serve("five")?;
        fixture.serve("six")?;
        fixture.cluster.settle()?;
        for name in ["five", "six"] {
            fixture.ensure_reaches("client", Tcp, fixture.server(name), &[name])?;
        }
        Ok(())
    })
}

#[test]
fn the_time_that_it_adds_to_a_pods_start_is_told() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let mut times = Vec::new();
        for n in 0..20 {
            let name = format!("pod{n}");
            fixture.cluster.wire_pod(&spec(&name))?;
            let start = Instant::now();
            ensure_done(&fixture.cluster.cni("ADD", &name, json!({}))?)?;
            times.push(start.elapsed());
        }
        times.sort();
        println!(
            "{variant:?}: ADD takes {:?} (median), {:?} (longest) of {}",
            times[times.len() / 2],
            times[times.len() - 1],
            times.len()
        );
        Ok(())
    })
}

/// What `weir_pod_unprotected_seconds` counts on node1.
fn unprotected(fixture: &Fixture) -> Result<u64> {
    let metrics = fixture.cluster.metrics("node1")?;
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("weir_pod_unprotected_seconds_count "));
    Ok(count.context("the metric")?.parse()?)
}

#[test]
fn only_pods_that_nobody_announced_count_as_unprotected() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        let before = unprotected(&fixture)?;
        fixture.cluster.add_pod(&spec("plain"))?;
        fixture.cluster.settle()?;
        ensure!(unprotected(&fixture)? == before + 1);
        fixture.cluster.wire_pod(&spec("late"))?;
        ensure_done(&fixture.cluster.cni("ADD", "late", json!({}))?)?;
        fixture.cluster.restore_pods()?;
        fixture.cluster.settle()?;
        // Nor do those that had programs all the while.
        ensure!(unprotected(&fixture)? == before + 1);
        fixture.cluster.agent("node1").restart()?;
        fixture.cluster.wait_ready("node1")?;
        fixture.cluster.settle()?;
        ensure!(unprotected(&fixture)? == 0);
        Ok(())
    })
}

/// A reboot takes programs, maps and the run directory; the state directory stays.
#[test]
fn after_a_reboot_without_an_api_server_pods_are_isolated_as_they_were() -> Result<()> {
    each(&FEW, |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("deny.yaml", DENY)?;
        fixture
            .cluster
            .agent("node1")
            .terminate(Duration::from_secs(10))?;
        fixture.cluster.cleanup("node1")?;
        let near = fixture.server("near");
        fixture.ensure_reaches("client", Tcp, near, &["near"])?;

        fixture.cluster.spawn_cut_off("node1")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = fixture.ensure_silence("client", Tcp, near) {
            ensure!(Instant::now() < deadline, "{error:#}");
        }
        fixture.ensure_reaches("near", Tcp, fixture.server("client"), &["client"])?;
        fixture.ensure_reaches("client", Tcp, vip("client", 80), &["client"])?;
        // Pods start meanwhile.
        fixture.cluster.wire_pod(&spec("late"))?;
        fixture.serve("late")?;
        ensure_done(&fixture.cluster.cni("ADD", "late", json!({}))?)?;
        ensure_isolated(&fixture, "late")?;

        // What the API server says counts as soon as it says it.
        fixture.cluster.agent("node1").kill()?;
        fixture.cluster.delete("deny.yaml")?;
        fixture.cluster.spawn("node1")?;
        fixture.cluster.wait_ready("node1")?;
        fixture.ensure_reaches("client", Tcp, near, &["near"])
    })
}
