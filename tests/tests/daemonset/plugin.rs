//! `kubectl weir` asks the agents of a cluster through its API server.

use std::collections::BTreeSet;
use std::env;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

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

    let denied = run(
        lab,
        &[
            "explain",
            "default/client-node1",
            "default/closed:8080",
            "-o=json",
        ],
    )?;
    // The client's node was asked: there is nothing to say about that.
    ensure!(denied.stderr.is_empty(), "{denied:?}");
    let denied = answer(&denied, 1)?;
    ensure!(denied["verdict"] == "denied", "{denied}");
    let host = lab.kubectl(&["get", "pod", "client-node1", "-o=jsonpath={.status.podIP}"])?;
    eventually(|| {
        let flows = answer(&run(lab, &["flows", "--dropped", "-o=json"])?, 0)?;
        let drops = items(&flows)?.iter();
        let mut of_client = drops.filter(|it| it["source"]["address"] == host.as_str());
        ensure!(of_client.any(|it| it["node"] == "node2"), "{flows}");
        Ok(())
    })?;

    refusals(lab, &kubeconfig)
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

/// Runs the plugin as kubectl does, which looks for it on the path.
fn kubectl_weir(lab: &mut Lab, kubeconfig: &Path, args: &[&str]) -> Result<Output> {
    let directory = tempfile::tempdir().context("make a directory")?;
    symlink(weir_binary()?, directory.path().join("kubectl-weir")).context("link the plugin")?;
    let kubectl = lab.control().kubectl_program().to_owned();
    let path = env::var("PATH").unwrap_or_default();
    lab.outside()
        .command(kubectl)
        .arg("weir")
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .env("PATH", format!("{}:{path}", directory.path().display()))
        .output()
        .context("run kubectl")
}

/// The answer of a run that ended with `code`.
fn answer(output: &Output, code: i32) -> Result<Value> {
    ensure!(output.status.code() == Some(code), "{output:?}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

fn items(list: &Value) -> Result<&Vec<Value>> {
    list["items"].as_array().context("a list has items")
}

/// What the items of a list have in a field.
fn of_each(list: &Value, field: &str) -> Result<BTreeSet<String>> {
    let values = items(list)?.iter();
    let values = values.map(|it| it[field].as_str().map(str::to_owned));
    values.collect::<Option<_>>().context("each item has it")
}
