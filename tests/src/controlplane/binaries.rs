//! Finds or builds the control plane's programs.

use std::path::PathBuf;

use anyhow::Result;

use crate::programs::{KUBERNETES, Module, Part, Set};

const ETCD: Module = Module {
    name: "etcd",
    go_mod: include_str!("../../tools/etcd/go.mod"),
    pinned: "go.etcd.io/etcd/server/v3",
    cgo: false,
};

/// Apart from what nodes run, so that suites without nodes have less to build.
const PROGRAMS: Set = Set {
    name: "controlplane",
    parts: &[
        (
            &KUBERNETES,
            Part::Commands(&[
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                "k8s.io/kubernetes/cmd/kubectl",
            ]),
        ),
        (&ETCD, Part::Commands(&["."])),
    ],
};

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
    /// kubectl, of the same release.
    pub kubectl: PathBuf,
}

/// The programs of the pinned versions: from the cache (`~/.cache/weir/controlplane`), or built into it.
///
/// A first build takes minutes and prints what it does; a second process that asks meanwhile waits for it.
///
/// # Errors
/// There is no Go, or it cannot fetch or build the modules; the error holds what `go` said.
pub fn binaries() -> Result<Binaries> {
    let dir = PROGRAMS.directory()?;
    Ok(Binaries {
        etcd: dir.join("etcd"),
        apiserver: dir.join("kube-apiserver"),
        controller_manager: dir.join("kube-controller-manager"),
        kubectl: dir.join("kubectl"),
    })
}
