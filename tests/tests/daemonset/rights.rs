//! What the agent may do is what it does.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::lab::{Lab, agent};

use crate::fixture::{agent_on, cluster, eventually};

/// `CAP_NET_ADMIN`, `CAP_PERFMON`, `CAP_BPF` (include/uapi/linux/capability.h).
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// What the API server takes and a proxy cannot.
const NAMES: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: names, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: FQDN
endpoints: [{addresses: [web.example.com]}]
---
";

/// A kind that a cluster may lack; of one that is not there the agent asks for no list.
const CLUSTER_POLICIES: &str = include_str!("../../data/crds/clusternetworkpolicies.yaml");

/// Verb, API group, resource.
type Right = (String, String, String);

#[test]
fn the_agent_has_the_rights_it_uses_and_no_others() -> Result<()> {
    let Some(mut lab) = cluster(&[])? else {
        return Ok(());
    };
    for node in ["node1", "node2"] {
        confined(&lab, node)?;
    }
    // Something to tell of.
    lab.apply(NAMES)?;
    lab.apply(CLUSTER_POLICIES)?;
    // A server of before Kubernetes 1.32, or one that is told so, gives its lists by another verb.
    let lists = "--feature-gates=WatchList=false";
    lab.control().restart_apiserver_with(&[lists])?;
    // A watch that only breaks off is taken up again without a list.
    lab.kubectl(&[
        "--namespace=weir-system",
        "delete",
        "pod",
        "--selector=k8s-app=weir",
        "--now",
    ])?;
    let granted = granted()?;
    eventually(|| {
        let asked = asked(&mut lab)?;
        let unused: Vec<_> = granted.difference(&asked).collect();
        ensure!(unused.is_empty(), "granted but not used: {unused:?}");
        Ok(())
    })?;
    let asked = asked(&mut lab)?;
    let denied: Vec<_> = asked.difference(&granted).collect();
    ensure!(denied.is_empty(), "used but not granted: {denied:?}");
    Ok(())
}

/// Three capabilities, the runtime's filter of system calls, and no way to more.
fn confined(lab: &Lab, node: &str) -> Result<()> {
    let process = lab.process("weir-system", &agent_on(lab, node)?)?;
    let status = fs::read_to_string(process.join("status")).context("read the agent's status")?;
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
            .with_context(|| format!("{name} of an agent"))
    };
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let held = u64::from_str_radix(field(set)?, 16)?;
        ensure!(held == CAPABILITIES, "{set} of the agent is {held:#x}");
    }
    ensure!(field("NoNewPrivs")? == "1", "the agent may gain rights");
    // 2 is a filter (SECCOMP_MODE_FILTER).
    ensure!(field("Seccomp")? == "2", "no system call is refused");
    let mounts = fs::read_to_string(process.join("mounts")).context("read the agent's mounts")?;
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some("/"));
    let options = root.and_then(|line| line.split(' ').nth(3));
    ensure!(
        options.is_some_and(|options| options.split(',').any(|it| it == "ro")),
        "the agent's root file system is {root:?}"
    );
    Ok(())
}

/// What the role of the manifest for users grants.
fn granted() -> Result<BTreeSet<Right>> {
    let objects = agent::manifest("weir.yaml")?;
    let role = objects.iter().find(|it| it["kind"] == "ClusterRole");
    let role = role.context("deploy/weir.yaml has no ClusterRole")?;
    let strings = |list: &Value| -> Vec<String> {
        let words = list.as_array().into_iter().flatten();
        words
            .filter_map(|it| Some(it.as_str()?.to_owned()))
            .collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().context("a role has rules")? {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    rights.insert((verb, group.clone(), resource.clone()));
                }
            }
        }
    }
    Ok(rights)
}

/// What agents have asked the API server for.
fn asked(lab: &mut Lab) -> Result<BTreeSet<Right>> {
    let log = fs::read_to_string(lab.control().audit_log()).context("read the audit log")?;
    let mut rights = BTreeSet::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).context("parse an audit event")?;
        if event["user"]["username"] != "system:serviceaccount:weir-system:weir" {
            continue;
        }
        let object = &event["objectRef"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ensure!(
            !object.is_null(),
            "the agent asks for {}, which no role grants",
            event["requestURI"]
        );
        rights.insert((
            word(&event["verb"]),
            word(&object["apiGroup"]),
            word(&object["resource"]),
        ));
    }
    Ok(rights)
}
