//! The chained CNI plugin as a container runtime calls it, behind the plugins that wired a topology's pod.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Answer, Cluster};
use crate::process::start;
use crate::topology::{Pod, PodSpec};

/// The interface of a pod in its sandbox.
const INTERFACE: &str = "eth0";

impl Cluster {
    /// Wires a pod's network, as the main plugin does; no agent hears of its object before [`Cluster::restore_pods`].
    pub fn wire_pod(&mut self, spec: &PodSpec) -> Result<()> {
        self.topology.add_pod(spec).map(drop)
    }

    /// Takes a wired pod's network away, as the main plugin does.
    pub fn unwire_pod(&mut self, name: &str) -> Result<()> {
        self.topology.remove_pod(name)
    }

    /// CNI_CONTAINERID of a pod.
    #[must_use]
    pub fn container(&self, pod: &str) -> String {
        format!("sandbox-{}", self.topology.pod(pod).uid())
    }

    /// What the plugin before this one returned for a pod.
    #[must_use]
    pub fn main_result(&self, pod: &str) -> Value {
        let pod = self.topology.pod(pod);
        let addresses = pod.addresses();
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": pod.veth()},
                {"name": INTERFACE, "sandbox": pod.namespace().path()},
            ],
            "ips": [
                {"address": format!("{}/24", addresses.v4), "interface": 1},
                {"address": format!("{}/64", addresses.v6), "interface": 1},
            ],
            "dns": {},
        })
    }

    /// Calls the plugin of a pod's node for that pod, with these fields of its configuration besides those it has.
    pub fn cni(&self, command: &str, pod: &str, fields: Value) -> Result<Answer> {
        let result = self.main_result(pod);
        let container = self.container(pod);
        let pod = self.topology.pod(pod);
        let mut config = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "type": "weir-cni",
            "runDir": self.topology.node(pod.node()).agent_paths().run,
            "prevResult": result,
        });
        if let (Value::Object(config), Value::Object(fields)) = (&mut config, fields) {
            config.extend(fields);
        }
        self.call(command, pod, &container, &config)
    }

    fn call(&self, command: &str, pod: &Pod, container: &str, config: &Value) -> Result<Answer> {
        let mut plugin = self.place(pod.node()).command(&self.binary);
        plugin
            .arg0("/opt/cni/bin/weir-cni")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", pod.namespace().path())
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", "/opt/cni/bin")
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID={}",
                    pod.spec().namespace,
                    pod.name(),
                    pod.uid()
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = start(&mut plugin).with_context(|| format!("start {plugin:?}"))?;
        let mut input = child.stdin.take().context("a pipe")?;
        input.write_all(config.to_string().as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        Ok(Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
