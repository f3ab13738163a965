//! Into the pods of a cluster: by `kubectl`, and by the namespaces of their processes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{AGNHOST, Lab, Node, objects};
use crate::netns::{Place, run};

/// The YAML document of a pod of namespace `default`, with its name as label `app`, that does nothing but be there, or what `more` (fields of its container, in one line) says.
#[must_use]
pub fn pod(name: &str, node: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
    - {{name: main, image: '{AGNHOST}'{more}}}
---
"
    )
}

impl Lab {
    /// Runs `kubectl` as the administrator to its end and gives its standard output, trimmed.
    ///
    /// # Errors
    /// It fails; its standard error is in the error.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = run(self.control.kubectl().args(args))?;
        Ok(output.trim().to_owned())
    }

    /// `kubectl` as the administrator, not run yet.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        self.control.kubectl()
    }

    /// Where the API server is, outside the cluster's nodes.
    #[must_use]
    pub fn outside(&self) -> &Place {
        self.control.as_ref()
    }

    /// Applies objects given as YAML or JSON.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn apply(&self, text: &str) -> Result<()> {
        objects::apply_text(&self.control, text)
    }

    /// Applies objects and waits until these pods of namespace `default` are ready.
    ///
    /// # Errors
    /// The API server refuses an object, or a pod takes longer than a busy machine needs.
    pub fn start_pods(&self, objects: &str, pods: &[&str]) -> Result<()> {
        self.apply(objects)?;
        let mut wait = vec!["wait", "--for=condition=Ready", "--timeout=90s", "pod"];
        wait.extend(pods);
        self.kubectl(&wait).map(drop)
    }

    /// The node with a name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|node| node.name() == name)
            .with_context(|| format!("the cluster has no {name}"))
    }

    /// The network of a running pod, to put threads and processes of a test there.
    ///
    /// # Errors
    /// The pod does not run.
    pub fn place(&self, namespace: &str, pod: &str) -> Result<Place> {
        let process = self.process(namespace, pod)?;
        Place::open(pod, &process.join("ns/net"))
    }

    /// The directory in `/proc` of the first process of a pod's only container.
    ///
    /// # Errors
    /// The pod does not run.
    pub fn process(&self, namespace: &str, pod: &str) -> Result<PathBuf> {
        let told = self.kubectl(&[
            "--namespace",
            namespace,
            "get",
            "pod",
            pod,
            "-o=jsonpath={.spec.nodeName} {.status.containerStatuses[0].containerID}",
        ])?;
        let (node, container) = told
            .split_once(" containerd://")
            .with_context(|| format!("{namespace}/{pod} does not run: {told:?}"))?;
        let node = self.node(node)?;
        let tasks = run(node
            .command("ctr")
            .args(["--namespace=k8s.io", "tasks", "list"]))?;
        // TASK PID STATUS
        let pid = tasks.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(container)).then(|| words.next())?
        });
        let pid = pid.with_context(|| format!("{container} is not in: {tasks}"))?;
        let process = node.entrance().root().join("proc").join(pid);
        ensure!(process.is_dir(), "{} is gone", process.display());
        Ok(process)
    }
}
