//! What is written in a repository, as it will run.

use serde_json::{Map, Value, json};

use super::UNSCHEDULED;

/// Kinds that make pods of a template, the short name that kubectl has for each, and where the template is.
const WORKLOADS: [(&str, &str, &str, &str); 7] = [
    ("apps/v1", "Deployment", "deploy", "/spec/template"),
    ("apps/v1", "StatefulSet", "sts", "/spec/template"),
    ("apps/v1", "DaemonSet", "ds", "/spec/template"),
    ("apps/v1", "ReplicaSet", "rs", "/spec/template"),
    ("batch/v1", "Job", "job", "/spec/template"),
    (
        "batch/v1",
        "CronJob",
        "cronjob",
        "/spec/jobTemplate/spec/template",
    ),
    ("v1", "ReplicationController", "rc", "/spec/template"),
];

/// A document as it will run: in the place of a workload one pod of its template, named `deploy/NAME` or alike (no pod of a cluster
/// can be called so), and pods are scheduled. Everything else stays as it is.
///
/// A Service whose address an API server is still to choose becomes a headless one: policies never see that address.
pub(super) fn as_running(mut document: Value) -> Value {
    let api_version = document["apiVersion"].as_str().unwrap_or_default();
    let kind = document["kind"].as_str().unwrap_or_default();
    let workload = WORKLOADS
        .iter()
        .find(|(version, name, ..)| (*version, *name) == (api_version, kind));
    match (workload, api_version, kind) {
        (Some((_, _, short, template)), ..) => pod_of(&document, short, template),
        (None, "v1", "Pod") => {
            schedule(&mut document);
            document
        }
        (None, "v1", "Service") => {
            let spec = &mut document["spec"];
            let written = |field: &str| spec.get(field).is_some_and(|it| it != "" && !it.is_null());
            if spec.is_object() && !written("clusterIP") && !written("clusterIPs") {
                spec["clusterIP"] = json!("None");
            }
            document
        }
        _ => document,
    }
}

/// A pod of a workload. What is made by another workload is that one's: then there is nothing.
fn pod_of(workload: &Value, short: &str, template: &str) -> Value {
    let owned = workload
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true));
    if owned {
        return json!({ "apiVersion": "v1", "kind": "List", "items": [] });
    }
    let metadata = &workload["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let mut pod = workload.pointer(template).cloned().unwrap_or(Value::Null);
    if !pod.is_object() {
        pod = json!({});
    }
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    if !pod["metadata"].is_object() {
        pod["metadata"] = json!({});
    }
    if let Some(namespace) = metadata.get("namespace") {
        pod["metadata"]["namespace"] = namespace.clone();
    }
    if !name.is_empty() {
        pod["metadata"]["name"] = json!(format!("{short}/{name}"));
        let labels = &mut pod["metadata"]["labels"];
        if !labels.is_object() {
            *labels = Value::Object(Map::new());
        }
        for (key, value) in labels_of(short, name) {
            labels[key] = json!(value);
        }
    }
    schedule(&mut pod);
    pod
}

/// What controllers add to the labels of every pod, as far as it is known before they do; of a StatefulSet's that of the first.
fn labels_of(short: &str, name: &str) -> Vec<(&'static str, String)> {
    match short {
        "sts" => vec![
            ("statefulset.kubernetes.io/pod-name", format!("{name}-0")),
            ("apps.kubernetes.io/pod-index", "0".to_owned()),
        ],
        "job" => vec![
            ("job-name", name.to_owned()),
            ("batch.kubernetes.io/job-name", name.to_owned()),
        ],
        _ => Vec::new(),
    }
}

fn schedule(pod: &mut Value) {
    let spec = &mut pod["spec"];
    if spec.is_object() && spec.get("nodeName").is_none_or(Value::is_null) {
        spec["nodeName"] = json!(UNSCHEDULED);
    }
}
