//! `kubectl weir` asks the agents of a cluster through its API server.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::cluster::weir_binary;
use weir_tests::lab::Lab;

use crate::fixture::{agent_on, eventually};

/// Who may look at everything in the agents' namespace, and run nothing there.
const LOOKER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: looker, namespace: weir-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: looker}]
---
";

/// Lets everybody into the pod that another policy closes.
const OPENING: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: opening, namespace: default}
spec: {podSelector: {matchLabels: {app: closed}}, ingress: [{}]}
";

/// Longest time until a record comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster with two agents, of which `closed` is a pod that a policy closes, and `client-node1` another.
pub(crate) fn asks_all_agents(lab: &mut Lab) -> Result<()> {
    let kubeconfig = lab.control().kubeconfig().to_owned();
    let run = |lab: &mut Lab, args: &[&str]| kubectl_weir(lab, &kubeconfig, args);

    let status = answer(&run(lab, &["status", "-o", "json"])?, 0)?;
    let nodes = of_each(&status, "node")?;
    ensure!(
        nodes == ["node1", "node2"].map(str::to_owned).into(),
        "{status}"
    );
    for item in items(&status)? {
        ensure!(
            item["status"]["synced"] == true && item["node"] == item["status"]["node"],
            "{item}"
        );
    }
    let table = run(lab, &["status"])?;
    let lines = String::from_utf8_lossy(&table.stdout).lines().count();
    ensure!(table.status.success() && lines == 3, "{table:?}");
    let one = answer(&run(lab, &["status", "--node=node2", "-o=json"])?, 0)?;
    ensure!(one["kind"] == "Status" && one["node"] == "node2", "{one}");

    let endpoints = answer(&run(lab, &["endpoint", "list", "-o=json"])?, 0)?;
    let nodes = of_each(&endpoints, "node")?;
    ensure!(
        nodes == ["node1", "node2"].map(str::to_owned).into(),
        "{endpoints}"
    );
    let services = run(lab, &["service", "list", "-n=default", "-o=json"])?;
    ensure!(!items(&answer(&services, 0)?)?.is_empty(), "{services:?}");
    let whose = String::from_utf8_lossy(&services.stderr);
    ensure!(whose.contains("as node node"), "{services:?}");
    // Also while the maps are being written.
    eventually(|| answer(&run(lab, &["audit", "-o=json"])?, 0).map(drop))?;

    let question = [
        "explain",
        "default/client-node1",
        "default/closed:8080",
        "-o=json",
    ];
    let denied = run(lab, &question)?;
    // The client's node was asked: there is nothing to say about that.
    ensure!(denied.stderr.is_empty(), "{denied:?}");
    let denied = answer(&denied, 1)?;
    ensure!(denied["verdict"] == "denied", "{denied}");
    // The client's node judges what it sends, the server's what that receives: both were asked, and do what the objects say.
    let nodes = denied["nodes"].as_array().context("nodes")?;
    let held = |node: usize| &nodes[node]["verdicts"][0]["held"]["verdict"];
    ensure!(
        nodes.len() == 2
            && held(0) == "open"
            && held(1) == "denied"
            && denied["unanswered"].is_null(),
        "{denied}"
    );
    let host = lab.kubectl(&["get", "pod", "client-node1", "-o=jsonpath={.status.podIP}"])?;
    eventually(|| {
        let flows = answer(&run(lab, &["flows", "--dropped", "-o=json"])?, 0)?;
        let drops = items(&flows)?.iter();
        let mut of_client = drops.filter(|it| it["source"]["address"] == host.as_str());
        ensure!(of_client.any(|it| it["node"] == "node2"), "{flows}");
        Ok(())
    })?;
    let denied = answer(&run(lab, &question)?, 1)?;
    let drops = denied["nodes"][1]["drops"].as_u64();
    ensure!(drops.is_some_and(|drops| drops > 0), "{denied}");
    follows(lab, &kubeconfig, &host)?;
    reviews(lab, &kubeconfig)?;

    refusals(lab, &kubeconfig)
}

/// Records come as long as somebody reads, those that are kept first.
fn follows(lab: &mut Lab, kubeconfig: &Path, client: &str) -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let arguments = ["flows", "--follow", "--dropped", "-o=json"];
    let mut follower = plugin(lab, directory.path(), kubeconfig, &arguments)?
        .stdout(Stdio::piped())
        .spawn()
        .context("run kubectl")?;
    let output = follower.stdout.take().context("its output")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let until = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while let Ok(line) = receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
        let record: Value = serde_json::from_str(&line)?;
        let found = record["source"]["address"] == client && record["node"] == "node2";
        seen.push(record);
        if found {
            break;
        }
    }
    let running = follower.try_wait()?.is_none();
    follower.kill()?;
    follower.wait()?;
    let last = seen.last().context("no record came")?;
    ensure!(running && last["source"]["address"] == client, "{seen:?}");
    Ok(())
}

/// What a file would change in the cluster, before anybody applies it.
fn reviews(lab: &mut Lab, kubeconfig: &Path) -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let file = directory.path().join("open.yaml");
    fs::write(&file, OPENING)?;
    let file = file.to_str().context("a path")?;
    let output = kubectl_weir(lab, kubeconfig, &["check", "-f", file, "-o=json"])?;
    let review = answer(&output, 0)?;
    let opened = review["opened"].to_string();
    ensure!(
        opened.contains("closed") && review["closed"] == serde_json::json!([]),
        "{review}"
    );
    let policies = answer(
        &kubectl_weir(lab, kubeconfig, &["policy", "list", "-o=json"])?,
        0,
    )?;
    ensure!(!policies.to_string().contains("opening"), "{policies}");
    Ok(())
}

/// Each says what is wrong and what to do.
fn refusals(lab: &mut Lab, kubeconfig: &Path) -> Result<()> {
    lab.apply(LOOKER)?;
    let looker = lab.control().kubeconfig_of("looker", None)?;
    let nobody = lab.control().kubeconfig_of("nobody", None)?;
    let agent = agent_on(lab, "node1")?;
    for (kubeconfig, args, expected) in [
        (
            kubeconfig,
            &["map", "dump"][..],
            "name it with --node".to_owned(),
        ),
        (
            kubeconfig,
            &["status", "--node=node9"],
            "no agent runs on node node9".to_owned(),
        ),
        (
            kubeconfig,
            &["status", "--agent-namespace=default"],
            "no agent runs in namespace default".to_owned(),
        ),
        (
            kubeconfig,
            &["status", "--context=none"],
            "--context".to_owned(),
        ),
        (
            kubeconfig,
            &["explain", "default/nobody", "default/closed:8080"],
            "default/nobody".to_owned(),
        ),
        (
            &nobody,
            &["status"],
            "cannot list the agents' pods".to_owned(),
        ),
        (&looker, &["policy", "list"], "pods/exec".to_owned()),
        (&looker, &["status", "--node=node1"], agent),
    ] {
        let output = kubectl_weir(lab, kubeconfig, args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(2)
                && said.contains(&expected)
                && said.lines().count() == 1,
            "{args:?}: {output:?}"
        );
    }
    Ok(())
}

/// Runs the plugin.
pub(crate) fn kubectl_weir(lab: &mut Lab, kubeconfig: &Path, args: &[&str]) -> Result<Output> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let mut command = plugin(lab, directory.path(), kubeconfig, args)?;
    command.output().context("run kubectl")
}

/// The plugin as kubectl runs it, which looks for it on the path: in `directory`.
fn plugin(lab: &mut Lab, directory: &Path, kubeconfig: &Path, args: &[&str]) -> Result<Command> {
    symlink(weir_binary()?, directory.join("kubectl-weir")).context("link the plugin")?;
    let kubectl = lab.control().kubectl_program().to_owned();
    let path = env::var("PATH").unwrap_or_default();
    let mut command = lab.outside().command(kubectl);
    command
        .arg("weir")
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .env("PATH", format!("{}:{path}", directory.display()));
    Ok(command)
}

/// The answer of a run that ended with `code`.
pub(crate) fn answer(output: &Output, code: i32) -> Result<Value> {
    ensure!(output.status.code() == Some(code), "{output:?}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

pub(crate) fn items(list: &Value) -> Result<&Vec<Value>> {
    list["items"].as_array().context("a list has items")
}

/// What the items of a list have in a field.
fn of_each(list: &Value, field: &str) -> Result<BTreeSet<String>> {
    let values = items(list)?.iter();
    let values = values.map(|it| it[field].as_str().map(str::to_owned));
    values.collect::<Option<_>>().context("each item has it")
}
