//! The control plane of the harness: the real API server and controllers, with a topology's pods as their objects.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use weir_tests::controlplane::{ControlPlane, publish};
use weir_tests::netns::{self, Place};
use weir_tests::skip_without_root;
use weir_tests::topology::{Shape, Topology, TopologySpec};

const LIMIT: Duration = Duration::from_secs(30);

fn web_service() -> Result<Service> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"app": "web"},
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }))?)
}

/// The ready addresses in the slices of the Service `web`, with their nodes.
async fn endpoints(client: &Client) -> Result<BTreeSet<(IpAddr, String)>> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "shop");
    let slices = slices
        .list(&ListParams::default().labels("kubernetes.io/service-name=web"))
        .await?;
    let mut found = BTreeSet::new();
    for endpoint in slices.items.into_iter().flat_map(|slice| slice.endpoints) {
        if endpoint.conditions.and_then(|conditions| conditions.ready) == Some(true) {
            for address in endpoint.addresses {
                found.insert((
                    address.parse()?,
                    endpoint.node_name.clone().unwrap_or_default(),
                ));
            }
        }
    }
    Ok(found)
}

async fn wait_for_endpoints(client: &Client, wanted: &BTreeSet<(IpAddr, String)>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = endpoints(client).await?;
        if found == *wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the controller made {found:?} of {wanted:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn addresses(topology: &Topology, pods: &[&str]) -> BTreeSet<(IpAddr, String)> {
    let pods = pods.iter().map(|name| topology.pod(name));
    pods.flat_map(|pod| {
        pod.addresses()
            .both()
            .map(|address| (address, pod.node().to_owned()))
    })
    .collect()
}

#[test]
fn controllers_follow_a_topology_and_outlive_the_api_server() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let web: &[(&str, &str)] = &[("app", "web")];
    let spec = TopologySpec::new(Shape::Ptp, 2)
        .pod_in("shop", "web-1", "node1", web)
        .pod_in("shop", "web-2", "node2", web)
        .pod_in("shop", "client", "node1", &[("app", "client")]);
    let mut topology = Topology::build(&spec)?;
    let mut cluster = ControlPlane::start_on(&mut topology)?;
    let both = addresses(&topology, &["web-1", "web-2"]);
    ensure!(both.len() == 4);

    cluster.block_on(async |client| {
        publish(&client, &topology).await?;
        let services = Api::<Service>::namespaced(client.clone(), "shop");
        services
            .create(&PostParams::default(), &web_service()?)
            .await?;
        wait_for_endpoints(&client, &both).await
    })?;

    // The same API server, from where an agent runs.
    let node: &Place = topology.node("node2").as_ref();
    let uid = node.run(|| read_uid(&cluster))?;

    cluster.stop_apiserver()?;
    let error = cluster.block_on(async |client| endpoints(&client).await);
    ensure!(error.is_err(), "the API server is stopped: {error:?}");
    cluster.restart_apiserver()?;
    ensure!(
        node.run(|| read_uid(&cluster))? == uid,
        "the Service outlives the API server"
    );

    cluster.block_on(async |client| {
        ensure!(endpoints(&client).await? == both, "so do its endpoints");
        let pods = Api::<Pod>::namespaced(client.clone(), "shop");
        let at_once = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        };
        pods.delete("web-1", &at_once).await?;
        // The controllers have found the new API server.
        wait_for_endpoints(&client, &addresses(&topology, &["web-2"])).await
    })?;
    cluster.ensure_running()
}

/// The UID of the Service `web`, read by a client on the calling thread.
fn read_uid(cluster: &ControlPlane) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let services = Api::<Service>::namespaced(cluster.client().await?, "shop");
        services
            .get("web")
            .await?
            .metadata
            .uid
            .context("the server gives out a UID")
    })
}

#[test]
fn a_cluster_alone_obeys_rbac_and_leaves_nothing() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let cluster = ControlPlane::start()?;
    let output = cluster
        .kubectl()
        .args(["get", "namespace", "default", "-o", "name"])
        .output()?;
    ensure!(output.stdout == b"namespace/default\n", "{output:?}");

    let nobody = cluster.kubeconfig_of("nobody", None)?;
    let output = cluster
        .kubectl()
        .arg("--kubeconfig")
        .arg(&nobody)
        .args(["get", "namespaces"])
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        errors.contains("Forbidden") && errors.contains("\"nobody\""),
        "{errors}"
    );

    // Namespaces go for good only if the controllers work.
    cluster.block_on(async |client| {
        let namespaces = Api::<Namespace>::all(client);
        let brief: Namespace = serde_json::from_value(json!({"metadata": {"name": "brief"}}))?;
        namespaces.create(&PostParams::default(), &brief).await?;
        namespaces.delete("brief", &DeleteParams::default()).await?;
        let deadline = Instant::now() + LIMIT;
        while namespaces.get_opt("brief").await?.is_some() {
            ensure!(Instant::now() < deadline, "the namespace stays");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    })?;

    let (dir, name) = (
        cluster.logs().to_owned(),
        AsRef::<Place>::as_ref(&cluster).name().to_owned(),
    );
    let processes = || processes_naming(&dir.display().to_string());
    ensure!(
        processes()? == 3,
        "three programs were given files in {}",
        dir.display()
    );
    ensure!(dir.exists() && netns::names()?.contains(&name));
    drop(cluster);
    ensure!(
        !dir.exists() && !netns::names()?.contains(&name),
        "files and namespace end with the cluster"
    );
    Ok(())
}

/// How many processes of this machine have `text` in their command line.
fn processes_naming(text: &str) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        // Processes end while this looks; what has no command line (any more) is none of ours.
        let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        count += usize::from(String::from_utf8_lossy(&line).contains(text));
    }
    Ok(count)
}
