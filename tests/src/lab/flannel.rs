//! A third-party pod network: a real flanneld on each node.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::cni::POD_CIDRS;
use super::machine::copy;
use super::{Node, objects};
use crate::controlplane::ControlPlane;
use crate::netns::run;
use crate::programs::{Module, Part, Set};

const FLANNEL: Module = Module {
    name: "flannel",
    go_mod: include_str!("../../tools/flannel/go.mod"),
    pinned: "github.com/flannel-io/flannel",
    // One of its ways between nodes is written in C.
    cgo: true,
};

const PROGRAMS: Set = Set {
    name: "flannel",
    parts: &[(&FLANNEL, Part::Commands(&["github.com/flannel-io/flannel"]))],
};

/// The directory of flanneld on a node.
const DIRECTORY: &str = "/opt/flannel";

/// Its rights.
const RIGHTS: &str = include_str!("../../data/lab/flannel.yaml");

/// How long it may take to have its subnet.
const LIMIT: Duration = Duration::from_secs(60);

/// What nodes have for it of this machine.
pub(super) fn binds() -> Result<Vec<(PathBuf, PathBuf)>> {
    Ok(vec![(PROGRAMS.directory()?, DIRECTORY.into())])
}

/// Gives it its rights.
pub(super) fn grant(control: &ControlPlane) -> Result<()> {
    objects::apply_text(control, RIGHTS)
}

/// Writes its files into the directory of a node's machine.
pub(super) fn configure(control: &ControlPlane, dir: &Path) -> Result<()> {
    let user = control.kubeconfig_of("flannel", None)?;
    copy(&user, &dir.join("etc/kubernetes/flannel.kubeconfig"))?;
    let (v4, v6) = POD_CIDRS.split_once(',').context("two subnets")?;
    let network = json!({
        "Network": v4,
        "IPv6Network": v6,
        "EnableIPv6": true,
        "Backend": {"Type": "vxlan"},
    });
    let dir = dir.join("etc/kube-flannel");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    fs::write(dir.join("net-conf.json"), network.to_string()).context("write flannel's network")
}

/// Starts it on a node, and waits until it has connected the node to those that are there.
pub(super) fn start(node: &mut Node) -> Result<()> {
    let words = [
        "env",
        &format!("NODE_NAME={}", node.name()),
        &format!("{DIRECTORY}/flannel"),
        "-kube-subnet-mgr",
        "-kubeconfig-file=/etc/kubernetes/flannel.kubeconfig",
        "-iface=eth0",
        "-ip-masq",
    ];
    let words = words.map(str::to_owned).to_vec();
    let mut process = node.machine().start("flannel", words)?;
    process.wait_until(LIMIT, || {
        run(node.command("test").args(["-s", "/run/flannel/subnet.env"])).is_ok()
    })?;
    node.set_network(process);
    Ok(())
}
