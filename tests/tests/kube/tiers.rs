//! ClusterNetworkPolicies, of a kind that somebody installs while the agent runs.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::api::{admits, apply, delete, object};
use crate::cluster::{Cluster, eventually};

/// A policy for what comes from namespace `lab` to namespace `shop`.
fn from_lab(tier: &str, action: &str) -> Value {
    let named = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let name = tier.to_lowercase();
    let mut policy = object(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        "",
        &name,
    );
    policy["spec"] = json!({
        "tier": tier, "priority": 10,
        "subject": {"namespaces": named("shop")},
        "ingress": [{"name": "lab", "action": action, "from": [{"namespaces": named("lab")}]}],
    });
    policy
}

/// The kind's definition.
fn definition() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/crds/clusternetworkpolicies.yaml");
    let text = std::fs::read_to_string(&path)?;
    serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))
}

#[test]
fn cluster_policies_count_once_their_kind_is_installed() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let home = cluster.home("weir");
    // In sync without the kind.
    let mut agent = cluster.start_agent(&home)?;
    let sockets = cluster.sockets("web-1");
    let each =
        |check: &dyn Fn(SocketAddr) -> Result<()>| sockets.iter().copied().try_for_each(check);
    let open = || each(&|to| cluster.reaches("stranger", to, &["web-1"]));
    let closed = || each(&|to| cluster.is_denied("stranger", to));
    open()?;

    let definition = definition()?;
    apply(&cluster.control, std::slice::from_ref(&definition))?;
    let admin = from_lab("Admin", "Deny");
    eventually("the API server takes objects of the kind", || {
        let applied = apply(&cluster.control, std::slice::from_ref(&admin));
        Ok(applied.map_err(|error| format!("{error:#}")))
    })?;
    closed()?;
    each(&|to| cluster.reaches("client", to, &["web-1"]))?;
    let policies = cluster.ask(&home, &["policy", "list"])?;
    ensure!(
        policies["items"][0]["tier"] == "Admin" && policies["items"][0]["priority"] == 10,
        "{policies}"
    );

    // No NetworkPolicy overrules it, until it passes on.
    let everybody = admits("web", "web", json!([{"namespaceSelector": {}}]));
    apply(&cluster.control, std::slice::from_ref(&everybody))?;
    cluster.wait_objects(&home, "NetworkPolicy", 1)?;
    closed()?;
    apply(&cluster.control, &[from_lab("Admin", "Pass")])?;
    open()?;
    // The baseline holds for what no NetworkPolicy isolates.
    apply(&cluster.control, &[from_lab("Baseline", "Deny")])?;
    cluster.wait_objects(&home, "ClusterNetworkPolicy", 2)?;
    open()?;
    delete(&cluster.control, &[everybody])?;
    closed()?;

    // With the kind its objects go.
    delete(&cluster.control, &[definition])?;
    open()?;
    agent.ensure_running()
}
