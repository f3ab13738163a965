use std::io::Read;

use anyhow::anyhow;
use flate2::read::GzDecoder;
use serde_json::json;

use super::*;
use crate::admin;
use crate::source::manifests;
use crate::state::State;

/// Objects with secrets wherever somebody may put some.
const SECRETS: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  namespace: shop
  name: front
  labels: {app: front}
  annotations: {vendor.example/token: hunter2, prometheus.io/scrape: "true", prometheus.io/port: "9100", kubectl.kubernetes.io/last-applied-configuration: '{"x": "hunter2"}'}
spec:
  nodeName: n1
  containers: [{name: c, image: "registry.example/hunter2", command: [run, --password=hunter2], env: [{name: PASSWORD, value: hunter2}], ports: [{containerPort: 80}]}]
status: {phase: Running, podIPs: [{ip: 10.0.0.1}], message: hunter2}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: front, annotations: {vendor.example/key: hunter2}}
spec: {clusterIP: 10.96.0.1, selector: {app: front}, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: deny, annotations: {vendor.example/key: hunter2}}
spec: {podSelector: {}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {vendor.example/key: hunter2}}
---
apiVersion: v1
kind: Node
metadata: {name: n1, annotations: {vendor.example/key: hunter2}}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
"#;

/// What two agents answer, of which the second is not well.
fn bundle() -> Bundle {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), SECRETS).unwrap();
    let loaded = manifests::load(directory.path()).unwrap();
    assert_eq!(loaded.rejections, [""; 0]);
    let mut state = State::new("n1");
    for event in loaded.events {
        state.apply(event);
    }
    let snapshot = state.snapshot();
    let mut bundle = Bundle::default();
    bundle.ask(|path| {
        let answer = match path {
            "/v1/objects" => json!(snapshot.objects().collect::<Vec<_>>()),
            "/v1/services" => json!(admin::services(snapshot)),
            "/v1/endpoints" => json!(admin::pods(snapshot)),
            "/v1/policies" => json!(admin::policies(snapshot)),
            "/v1/metrics" => json!("weir_one 1\n"),
            "/v1/audit" => return Err(anyhow!("the API server is away")),
            _ => json!({}),
        };
        let second = match path {
            "/v1/map-dump" => Err(anyhow!("n2: no answer in 60s")),
            _ => Ok(answer.clone()),
        };
        let (mut given, mut missing) = (vec![("n1".to_owned(), answer)], Vec::new());
        match second {
            Ok(answer) => given.push(("n2".to_owned(), answer)),
            Err(why) => missing.push(("n2".to_owned(), why)),
        }
        Ok(Answers { given, missing })
    });
    bundle
}

/// The files of an archive, in its order.
fn unpacked(archive: &[u8]) -> Vec<(String, String)> {
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (path, text)
    });
    entries.collect()
}

fn files() -> Vec<(String, String)> {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    unpacked(&bundle().archive(now).unwrap())
}

#[test]
fn an_archive_says_what_is_in_it_and_what_is_missing() {
    let files = files();
    let names: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
    insta::assert_snapshot!(format!("{}\n\n{}", names.join("\n"), files[0].1));
    let metrics = files
        .iter()
        .find(|(path, _)| path.ends_with("n1/metrics.txt"));
    assert_eq!(metrics.unwrap().1, "weir_one 1\n");
}

#[test]
fn an_archive_has_no_secrets() {
    let all = files();
    assert!(SECRETS.contains("hunter2"));
    for (path, text) in &all {
        assert!(!text.contains("hunter2"), "{path}: {text}");
    }
    // Of those objects that hold them there is what else they have.
    let objects = all
        .iter()
        .find(|(path, _)| path.ends_with("n1/objects.json"));
    let objects: Value = serde_json::from_str(&objects.unwrap().1).unwrap();
    let kinds = objects.as_array().unwrap().iter();
    let kinds: Vec<_> = kinds
        .flat_map(|it| it.as_object().unwrap().keys())
        .collect();
    assert_eq!(kinds, ["Service", "Policy", "Pod", "Namespace", "Node"]);
    let pod = &objects[2]["Pod"];
    let mut fields: Vec<_> = pod.as_object().unwrap().keys().collect();
    fields.sort();
    insta::assert_debug_snapshot!(fields);
}
