//! What a new cluster's API server is told, and what is waited for.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::controlplane::ControlPlane;
use crate::netns::feed;
use crate::topology::spec;

/// How long a kubelet may take to be ready, and CoreDNS to answer, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// How many zones nodes are spread over.
const ZONES: u8 = 3;

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(250);

/// Registers nodes before their kubelets do, because those may say neither their zone nor their pod subnets.
pub(super) fn register(control: &ControlPlane, names: &[String]) -> Result<()> {
    let nodes: Vec<_> = (1..)
        .zip(names)
        .map(|(n, name)| {
            let (v4, v6) = spec::pod_cidrs(n);
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": {
                        "kubernetes.io/hostname": name,
                        "topology.kubernetes.io/region": "region1",
                        "topology.kubernetes.io/zone": format!("zone{}", (n - 1) % ZONES + 1),
                    },
                    // The controller manager sets it on every node, sooner or later; without any annotation flanneld panics.
                    "annotations": {"node.alpha.kubernetes.io/ttl": "0"},
                },
                "spec": {"podCIDR": v4, "podCIDRs": [v4.to_string(), v6.to_string()]},
            })
        })
        .collect();
    apply(control, nodes)
}

/// Applies objects.
pub(super) fn apply(control: &ControlPlane, objects: Vec<Value>) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    apply_text(control, &list.to_string())
}

/// Applies the documents of a YAML or JSON text.
pub(super) fn apply_text(control: &ControlPlane, text: &str) -> Result<()> {
    let mut kubectl = control.kubectl();
    feed(kubectl.args(["apply", "--server-side", "-f", "-"]), text)
}

/// Waits until `count` nodes call themselves ready.
pub(super) fn wait_nodes(control: &ControlPlane, count: usize) -> Result<()> {
    wait("nodes to be ready", control, async |client| {
        let nodes = Api::<NodeObject>::all(client);
        let nodes = nodes.list(&ListParams::default()).await?;
        let ready = nodes.items.iter().filter(|node| is_ready(node)).count();
        Ok((ready != count).then(|| format!("{ready} of {count} are")))
    })
}

fn is_ready(node: &NodeObject) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Waits until every replica of a Deployment in `kube-system` is available.
pub(super) fn wait_deployment(control: &ControlPlane, name: &str) -> Result<()> {
    wait(
        &format!("{name} to be available"),
        control,
        async |client| {
            let deployment = Api::<Deployment>::namespaced(client, "kube-system")
                .get(name)
                .await?;
            let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let status = deployment.status.unwrap_or_default();
            let available = status.available_replicas.unwrap_or(0);
            Ok((available < wanted).then(|| {
                format!(
                    "{available} of {wanted} replicas are: {:?}",
                    status.conditions
                )
            }))
        },
    )
}

/// See [`super::Lab::wait_daemon_set`].
pub(super) fn wait_daemon_set(control: &ControlPlane, namespace: &str, name: &str) -> Result<()> {
    wait(&format!("{name} on every node"), control, async |client| {
        let nodes = Api::<NodeObject>::all(client.clone());
        let nodes = nodes.list(&ListParams::default()).await?.items.len();
        let api = Api::<DaemonSet>::namespaced(client, namespace);
        let object = api.get(name).await?;
        let status = object.status.unwrap_or_default();
        let current = status.observed_generation >= object.metadata.generation;
        let updated = status.updated_number_scheduled.unwrap_or(0);
        let ready = status.number_available.unwrap_or(0);
        let all = |count: i32| usize::try_from(count).is_ok_and(|count| count == nodes);
        Ok((!(current && all(updated) && all(ready))).then(|| {
            format!("of {nodes} nodes {updated} have the current pod, {ready} a ready one")
        }))
    })
}

/// Waits until `missing` finds nothing missing.
fn wait(
    what: &str,
    control: &ControlPlane,
    missing: impl AsyncFn(Client) -> Result<Option<String>> + Send + Sync,
) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let missing = control.block_on(async |client| missing(client).await);
        match missing {
            Ok(None) => return Ok(()),
            Ok(Some(missing)) if Instant::now() > deadline => {
                bail!("waited {READY_LIMIT:?} for {what}: {missing}")
            }
            Err(error) if Instant::now() > deadline => {
                return Err(error).context(format!("wait for {what}"));
            }
            Ok(Some(_)) | Err(_) => thread::sleep(POLL),
        }
    }
}
