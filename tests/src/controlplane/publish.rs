//! Writes a topology's objects to the API server, in the place of kubelets.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, Node as NodeObject, Pod as PodObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::topology::{Pod, Topology};

/// Creates the topology's Nodes, the namespaces of its pods, and its Pods, running and ready.
///
/// # Errors
/// The API server refuses an object, for instance because it is there already.
pub async fn publish(client: &Client, topology: &Topology) -> Result<()> {
    let create = PostParams::default();
    let nodes = Api::<NodeObject>::all(client.clone());
    for node in topology.nodes() {
        nodes
            .create(&create, &node.object())
            .await
            .with_context(|| format!("create node {}", node.name()))?;
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    let names: BTreeSet<_> = topology
        .pods()
        .map(|pod| pod.spec().namespace.as_str())
        .collect();
    for name in names {
        if namespaces.get_opt(name).await?.is_none() {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            };
            let namespace = Namespace {
                metadata,
                ..Namespace::default()
            };
            namespaces
                .create(&create, &namespace)
                .await
                .with_context(|| format!("create namespace {name}"))?;
        }
    }
    for pod in topology.pods() {
        publish_pod(client, pod).await?;
    }
    Ok(())
}

/// Creates the Pod of one pod, running and ready; its namespace and node exist.
pub async fn publish_pod(client: &Client, pod: &Pod) -> Result<()> {
    let pods = Api::<PodObject>::namespaced(client.clone(), &pod.spec().namespace);
    let object = pod.object();
    // The server gives out the UID, and takes the status from its own subresource only.
    let metadata = ObjectMeta {
        uid: None,
        ..object.metadata.clone()
    };
    let new = PodObject {
        metadata,
        ..object.clone()
    };
    let mut created = pods
        .create(&PostParams::default(), &new)
        .await
        .with_context(|| format!("create pod {}", pod.name()))?;
    created.status = object.status;
    pods.replace_status(pod.name(), &PostParams::default(), &created)
        .await
        .with_context(|| format!("report the status of pod {}", pod.name()))?;
    Ok(())
}
