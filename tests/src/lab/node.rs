//! A node: a machine with containerd and a kubelet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tempfile::TempDir;

use super::images::PAUSE;
use super::machine::{Entrance, Machine, MachineSpec, copy};
use super::spec::{Cni, LabSpec};
use super::{DNS, cni};
use crate::controlplane::ControlPlane;
use crate::controlplane::pki::Files;
use crate::netns::{Namespace, run};
use crate::process::Process;
use crate::topology::DualStack;
use crate::topology::spec;
use crate::topology::underlay::{Port, Underlay, default_routes};

/// How long containerd may take to answer on a busy machine.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);

/// A node of a running cluster.
pub struct Node {
    // Fields drop in this order.
    proxy: Option<Process>,
    network: Option<Process>,
    kubelet: Option<Process>,
    containerd: Option<Process>,
    machine: Machine,
    name: String,
    number: u8,
    port: Port,
}

impl Node {
    /// Wires the machine of the node numbered `n`, and begins it.
    pub(super) fn begin(
        n: u8,
        spec: &LabSpec,
        underlay: &mut Underlay,
        machine: &MachineSpec<'_>,
        dir: TempDir,
    ) -> Result<Self> {
        let namespace = Namespace::new(machine.name)?;
        namespace.sysctl("net/ipv4/ip_forward", 1)?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", 1)?;
        let port = underlay.attach(&namespace, spec::node(n))?;
        namespace.ip(&default_routes())?;
        cni::prepare(spec.cni, &namespace, n, spec.nodes)?;
        Ok(Self {
            proxy: None,
            network: None,
            kubelet: None,
            containerd: None,
            machine: Machine::begin(machine, dir, namespace)?,
            name: machine.name.to_owned(),
            number: n,
            port,
        })
    }

    /// Starts containerd and gives it the images in these archives.
    pub(super) fn start_runtime(&mut self, archives: &[PathBuf]) -> Result<()> {
        let words = vec!["containerd".to_owned()];
        let mut containerd = self.machine.start("containerd", words)?;
        containerd.wait_until(CONTAINERD_LIMIT, || {
            run(self.command("ctr").arg("version")).is_ok()
        })?;
        for archive in archives {
            self.entrance().import(archive)?;
        }
        self.containerd = Some(containerd);
        Ok(())
    }

    /// Starts the kubelet.
    pub(super) fn start_kubelet(&mut self) -> Result<()> {
        let words = [
            "kubelet",
            "--config=/etc/kubernetes/kubelet.json",
            "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
            &format!("--hostname-override={}", self.name),
            &format!("--node-ip={},{}", self.addresses().v4, self.addresses().v6),
            "--v=2",
        ];
        let words = words.map(str::to_owned).to_vec();
        self.kubelet = Some(self.machine.start("kubelet", words)?);
        Ok(())
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number from which its addresses follow, from 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The addresses of `eth0`.
    #[must_use]
    pub fn addresses(&self) -> DualStack {
        spec::node(self.number)
    }

    /// The node's network.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        self.machine.namespace()
    }

    /// A command that will run on the node, in all its namespaces and its cgroup.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.machine.entrance().command();
        command.arg(program);
        command
    }

    /// How to get onto the node.
    #[must_use]
    pub fn entrance(&self) -> &Entrance {
        self.machine.entrance()
    }

    /// The directory of the log files of what runs on the node (`kubelet.log`, ...).
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.machine.logs()
    }

    pub(super) fn port(&self) -> &Port {
        &self.port
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn set_network(&mut self, process: Process) {
        self.network = Some(process);
    }

    pub(super) fn set_proxy(&mut self, process: Process) {
        self.proxy = Some(process);
    }

    /// kube-proxy, where that serves Services: to stop, kill and restart.
    #[must_use]
    pub fn proxy(&mut self) -> Option<&mut Process> {
        self.proxy.as_mut()
    }

    /// The kubelet: to stop, kill and restart.
    #[must_use]
    pub fn kubelet(&mut self) -> Option<&mut Process> {
        self.kubelet.as_mut()
    }

    /// Checks that nothing on the node has ended by itself.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.machine.ensure_running()?;
        [&mut self.containerd, &mut self.kubelet, &mut self.proxy]
            .into_iter()
            .flatten()
            .try_for_each(Process::ensure_running)
    }
}

/// Writes the files of the node numbered `n` into the directory of its machine.
pub(super) fn configure(
    dir: &Path,
    n: u8,
    cni: Cni,
    machine: &MachineSpec<'_>,
    control: &ControlPlane,
) -> Result<()> {
    let name = machine.name;
    let kubernetes = dir.join("etc/kubernetes");
    let pki = control.pki();
    let own = |file: &Path| {
        let name = file.file_name().context("a file has a name")?;
        copy(file, &kubernetes.join(name))?;
        anyhow::Ok(Path::new("/etc/kubernetes").join(name))
    };
    let addresses = spec::node(n).both().map(|address| address.to_string());
    let names = [&[name.to_owned()], addresses.as_slice()].concat();
    let Files { certificate, key } = pki.server(&format!("kubelet-{name}"), &names)?;
    let user = control.kubeconfig_of(&format!("system:node:{name}"), Some("system:nodes"))?;
    copy(&user, &kubernetes.join("kubelet.kubeconfig"))?;
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        // A machine with version 1 will do.
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "authentication": {
            "anonymous": {"enabled": false},
            "x509": {"clientCAFile": own(&pki.ca())?},
            "webhook": {"enabled": true},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": own(&certificate)?,
        "tlsPrivateKeyFile": own(&key)?,
        "clusterDNS": DNS.both(),
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/kubernetes/resolv.conf",
        // The machine's disk is not this cluster's to worry about.
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        // kube-proxy or Weir make the rules they need.
        "makeIPTablesUtilChains": false,
        "maxPods": 250,
        "serializeImagePulls": false,
    });
    write(
        &kubernetes.join("kubelet.json"),
        &serde_json::to_vec_pretty(&kubelet)?,
    )?;
    let resolv = "# Nobody resolves names beyond the cluster.\n";
    write(&kubernetes.join("resolv.conf"), resolv.as_bytes())?;
    let containerd = dir.join("etc/containerd");
    fs::create_dir_all(&containerd).context("create a directory for containerd")?;
    write(
        &containerd.join("config.toml"),
        containerd_config().as_bytes(),
    )?;
    let (name, content) = cni::config(cni, n)?;
    write(&dir.join("etc/cni/net.d").join(name), &content)
}

/// Everything is where it is by default. What containers write need not survive a crash; the machine has no AppArmor, and maybe no right to raise a process's standing
/// with the out-of-memory killer.
fn containerd_config() -> String {
    format!(
        "version = 3\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
         sandbox = '{PAUSE}'\n\
         [plugins.'io.containerd.cri.v1.runtime']\n\
         disable_apparmor = true\n\
         restrict_oom_score_adj = true\n\
         [plugins.'io.containerd.snapshotter.v1.overlayfs']\n\
         mount_options = ['volatile']\n"
    )
}

fn write(file: &Path, content: &[u8]) -> Result<()> {
    fs::write(file, content).with_context(|| format!("write {}", file.display()))
}
