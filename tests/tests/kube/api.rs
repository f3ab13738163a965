//! Objects of any kind, as JSON, to and from the API server.

use anyhow::{Context as _, Result};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use weir_tests::controlplane::ControlPlane;

/// Names an object, as the start of one.
pub(crate) fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let mut metadata = json!({"name": name});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
}

/// Names a pod.
pub(crate) fn pod(namespace: &str, name: &str) -> Value {
    object("v1", "Pod", namespace, name)
}

/// Names a namespace.
pub(crate) fn namespace(name: &str) -> Value {
    object("v1", "Namespace", "", name)
}

/// A Service of both families that leads from port 80 to port 8080 of the pods with this label `app`.
pub(crate) fn service(namespace: &str, name: &str, app: &str) -> Value {
    let mut service = object("v1", "Service", namespace, name);
    service["spec"] = json!({
        "selector": {"app": app},
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [
            {"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080},
            {"name": "udp", "protocol": "UDP", "port": 80, "targetPort": 8080},
        ],
    });
    service
}

/// A policy that lets only these peers into the pods of namespace `shop` with this label `app`.
pub(crate) fn admits(name: &str, app: &str, peers: Value) -> Value {
    let mut policy = object("networking.k8s.io/v1", "NetworkPolicy", "shop", name);
    policy["spec"] = json!({
        "podSelector": {"matchLabels": {"app": app}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": peers}],
    });
    policy
}

/// Creates or replaces objects, in order.
pub(crate) fn apply(control: &ControlPlane, objects: &[Value]) -> Result<()> {
    control.block_on(async |client| {
        for object in objects {
            apply_one(&client, object).await?;
        }
        Ok(())
    })
}

/// See [`apply`].
pub(crate) async fn apply_one(client: &Client, object: &Value) -> Result<()> {
    let (api, name) = api(client, object)?;
    let params = PatchParams::apply("weir-tests").force();
    let done = api.patch(&name, &params, &Patch::Apply(object)).await;
    done.with_context(|| format!("apply {object}")).map(drop)
}

/// Merges a patch into an object, or into its status.
pub(crate) fn merge(control: &ControlPlane, object: &Value, patch: &Value) -> Result<()> {
    control.block_on(async |client| {
        let (api, name) = api(&client, object)?;
        let (params, merge) = (PatchParams::default(), Patch::Merge(patch));
        let done = if patch.get("status").is_some() {
            api.patch_status(&name, &params, &merge).await
        } else {
            api.patch(&name, &params, &merge).await
        };
        done.with_context(|| format!("merge {patch} into {object}"))
            .map(drop)
    })
}

/// Deletes objects at once: there is no kubelet that would end a pod in its own time.
pub(crate) fn delete(control: &ControlPlane, objects: &[Value]) -> Result<()> {
    control.block_on(async |client| {
        for object in objects {
            delete_one(&client, object).await?;
        }
        Ok(())
    })
}

/// See [`delete`].
pub(crate) async fn delete_one(client: &Client, object: &Value) -> Result<()> {
    let (api, name) = api(client, object)?;
    let at_once = DeleteParams::default().grace_period(0);
    let done = api.delete(&name, &at_once).await;
    done.with_context(|| format!("delete {object}")).map(drop)
}

/// The object as the server has it.
pub(crate) fn get(control: &ControlPlane, object: &Value) -> Result<Value> {
    control.block_on(async |client| {
        let (api, name) = api(&client, object)?;
        let found = api.get(&name).await;
        let found = found.with_context(|| format!("get {object}"))?;
        Ok(serde_json::to_value(found)?)
    })
}

fn api(client: &Client, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let types = object.types.context("an object has a kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
    let client = client.clone();
    let api = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    Ok((api, object.metadata.name.context("an object has a name")?))
}
