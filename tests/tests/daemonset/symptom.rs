//! From a symptom to its fix by the command line alone: what somebody does whose application broke when policies came.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weir_tests::lab::{AGNHOST, Lab};

use crate::fixture::{cluster_of, eventually};
use crate::plugin::{answer, items, kubectl_weir};

/// A frontend on two nodes that asks a backend on the third by its name, five times a second.
fn shop() -> String {
    let deployment = |app: &str, node: &str, container: &str| {
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {app}, namespace: shop}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {app}}}}}
  template:
    metadata: {{labels: {{app: {app}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      {node}
      containers: [{{name: main, image: '{AGNHOST}', {container}}}]
---
"
        )
    };
    let spread = "topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: front}}}]";
    let asks = "command: [sh, -c, 'while true; do curl --silent --max-time 1 http://back.shop/hostname; sleep 0.2; done']";
    let serves = "args: [netexec, --http-port=8080], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}";
    let front = deployment("front", spread, asks);
    let back = deployment("back", "nodeName: node3", serves);
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: shop}}
---
{front}{back}apiVersion: v1
kind: Service
metadata: {{name: back, namespace: shop}}
spec: {{selector: {{app: back}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

/// Four mistakes that everybody makes: names cannot be looked up, a Service's port instead of the pods', a label that nobody has, and a
/// policy that stands alone.
const POLICIES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: front-to-back, namespace: shop}
spec:
  podSelector: {matchLabels: {app: front}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: back}}}], ports: [{port: 80}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: back-from-front, namespace: shop}
spec:
  podSelector: {matchLabels: {app: back}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}]}]
";

const FRONT: &str = "shop/deploy/front";
const BACK: &str = "back.shop.svc:80";
const DNS: &str = "kube-system/svc/kube-dns:53/UDP";

/// Somebody with a kubeconfig.
struct Laptop {
    lab: Lab,
    kubeconfig: PathBuf,
    files: TempDir,
}

impl Laptop {
    fn weir(&mut self, args: &[&str]) -> Result<Output> {
        kubectl_weir(&mut self.lab, &self.kubeconfig, args)
    }

    /// The JSON of an answer that ends with `code`.
    fn ask(&mut self, args: &[&str], code: i32) -> Result<Value> {
        answer(&self.weir(&[args, &["-o=json"]].concat())?, code)
    }

    /// What `weir check` says of objects.
    fn check(&mut self, objects: &str, code: i32) -> Result<Value> {
        let file = self.files.path().join("objects.yaml");
        fs::write(&file, objects)?;
        let file = file.to_str().context("a path")?;
        self.ask(&["check", "-f", file], code)
    }

    /// Fails unless the frontend has connections to the backend and to DNS now.
    fn ensure_talks(&mut self) -> Result<()> {
        let top = self.ask(&["top", "--once"], 0)?;
        for (to, port) in [
            ("shop/deploy/back", 8080),
            ("kube-system/deploy/coredns", 53),
        ] {
            let mut rows = top["rows"].as_array().context("rows")?.iter();
            let row = rows
                .find(|it| it["source"] == FRONT && it["destination"] == to && it["port"] == port);
            let row = row.with_context(|| format!("nothing to {to}: {top}"))?;
            let rate = row["perSecond"]["connections"].as_f64();
            ensure!(rate > Some(0.0), "{top}");
        }
        Ok(())
    }
}

#[test]
fn an_application_that_policies_broke_is_mended_by_what_weir_says() -> Result<()> {
    let Some(mut lab) = cluster_of(3, &[])? else {
        return Ok(());
    };
    let kubeconfig = lab.control().kubeconfig().to_owned();
    let files = tempfile::tempdir().context("make a directory")?;
    let mut laptop = Laptop {
        lab,
        kubeconfig,
        files,
    };
    laptop.lab.apply(&shop())?;
    eventually(|| laptop.ensure_talks())?;
    foreseen(&mut laptop)?;
    laptop.lab.apply(POLICIES)?;
    eventually(|| seen(&mut laptop))?;
    explained(&mut laptop)?;
    for destination in [DNS, BACK] {
        let fix = laptop.weir(&["explain", FRONT, destination, "--fix"])?;
        ensure!(fix.status.code() == Some(1), "{fix:?}");
        let fix = String::from_utf8(fix.stdout)?;
        let review = laptop.check(&fix, 0)?;
        let nothing = serde_json::json!([]);
        ensure!(
            review["closed"] == nothing && review["opened"] != nothing,
            "{review}"
        );
        laptop.lab.apply(&fix)?;
    }
    eventually(|| {
        for destination in [DNS, BACK] {
            let allowed = laptop.ask(&["explain", FRONT, destination], 0)?;
            ensure!(allowed["verdict"] == "allowed", "{allowed}");
        }
        laptop.ensure_talks()
    })?;
    eventually(|| laptop.ask(&["audit"], 0).map(drop))
}

/// Before it is applied a review says everything that will go wrong.
fn foreseen(laptop: &mut Laptop) -> Result<()> {
    let review = laptop.check(POLICIES, 1)?;
    let findings = review["findings"].as_array().context("findings")?;
    for (guard, word) in [
        ("dns", FRONT),
        ("in-use", "TCP 8080"),
        ("in-use", "UDP 53"),
        ("peer-matches-nothing", "app=frontend"),
    ] {
        let says = |it: &Value| {
            it["message"]
                .as_str()
                .is_some_and(|text| text.contains(word))
        };
        let mut of_guard = findings.iter().filter(|it| it["guard"] == guard);
        ensure!(of_guard.any(says), "{guard} {word}: {review}");
    }
    // The kubelet's probes come from the node, and go on.
    let outside = review["findings"].to_string();
    ensure!(!outside.contains("who is outside"), "{review}");
    Ok(())
}

/// The symptom: what is dropped, live and lately, by which policies.
fn seen(laptop: &mut Laptop) -> Result<()> {
    let flows = ["flows", "--dropped", "--since=10s", "--from", FRONT];
    let flows = laptop.ask(&flows, 0)?;
    let denied = |it: &Value| {
        it["reason"] == "policy_denied"
            && it["destination"]["owner"]["service"]["name"] == "kube-dns"
            && it["deniedBy"].to_string().contains("default-deny")
    };
    ensure!(items(&flows)?.iter().any(denied), "{flows}");
    let top = laptop.ask(&["top", "--once", "--by=drops", "-n=shop"], 0)?;
    ensure!(top["rows"][0]["reason"] == "policy_denied", "{top}");
    Ok(())
}

/// Why, in words: each mistake, and that the nodes do what the objects say.
fn explained(laptop: &mut Laptop) -> Result<()> {
    let denied = laptop.weir(&["explain", FRONT, BACK])?;
    ensure!(denied.status.code() == Some(1), "{denied:?}");
    let said = String::from_utf8(denied.stdout)?;
    for words in [
        "name lookups of shop/deploy/front are denied",
        "the rule allows the Service port 80, but policies see the target port 8080",
        "does not match app=frontend",
        "its maps say the same",
        "its programs do it",
    ] {
        ensure!(said.contains(words), "{words:?} is missing: {said}");
    }
    Ok(())
}
