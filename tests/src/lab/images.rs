//! The images of a cluster, and the programs on its nodes: built once, kept by version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::archive::{Archive, Start, hex};
use crate::netns::run;
use crate::programs::{KUBERNETES, Module, Part, Set, cached};

const CONTAINERD: Module = Module {
    name: "containerd",
    go_mod: include_str!("../../tools/containerd/go.mod"),
    pinned: "github.com/containerd/containerd/v2",
    cgo: false,
};

const COREDNS: Module = Module {
    name: "coredns",
    go_mod: include_str!("../../tools/coredns/go.mod"),
    pinned: "github.com/coredns/coredns",
    cgo: false,
};

/// What a cluster with nodes needs besides a control plane.
const PROGRAMS: Set = Set {
    name: "node",
    parts: &[
        (
            &KUBERNETES,
            Part::Commands(&[
                "k8s.io/kubernetes/cmd/kube-scheduler",
                "k8s.io/kubernetes/cmd/kubelet",
                "k8s.io/kubernetes/cmd/kube-proxy",
                "k8s.io/kubernetes/test/images/agnhost",
                "k8s.io/kubernetes/test/images/regression-issue-74839",
                "./pause",
            ]),
        ),
        (
            &CONTAINERD,
            Part::Commands(&[
                "github.com/containerd/containerd/v2/cmd/containerd",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/ctr",
            ]),
        ),
        (&COREDNS, Part::Commands(&["github.com/coredns/coredns"])),
    ],
};

/// The Debian release that test pods run on, and what they find there.
const DEBIAN: &str = "bookworm";
const DEBIAN_TOOLS: &[&str] = &[
    "conntrack",
    "curl",
    "dnsutils",
    "iperf",
    "iproute2",
    "iputils-ping",
    "netcat-openbsd",
    "tcpdump",
    "wget",
];

/// What only people read.
const DEBIAN_UNUSED: &[&str] = &[
    // The runtime mounts one of its own.
    "dev",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// The image of a pod's sandbox, as the kubelet of this release names it.
pub(crate) const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
/// The image of CoreDNS.
pub(crate) const COREDNS_IMAGE: &str = "registry.k8s.io/coredns/coredns:cluster";
/// The image of test pods: one program that plays every client and server, on Debian with `curl`, `nc`, `dig` and others.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// An older release's name, which upgrade specs of the e2e suite ask for.
const AGNHOST_BEFORE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.55";
/// Images of the e2e suite from which specs run shell commands.
const SHELLS: &[&str] = &[
    "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
    "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
];
/// The server of the e2e suite's spec about packets that conntrack calls invalid.
const REGRESSION: &str = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4";

/// The file name of the archive of all images.
const ARCHIVE: &str = "images.tar";

/// The directory of what nodes run (`kubelet`, `containerd`, `ctr`, `kube-proxy`, ...) and of `kube-scheduler`.
///
/// # Errors
/// There is no Go, or it cannot fetch or build the modules.
pub fn programs() -> Result<PathBuf> {
    PROGRAMS.directory()
}

/// The archive of all images that clusters and the e2e suite use.
///
/// # Errors
/// A program cannot be built, or Debian's mirror does not answer.
pub(crate) fn archive() -> Result<PathBuf> {
    let programs = programs()?;
    // Whatever changes an image changes one of these files.
    let recipe = concat!(include_str!("archive.rs"), include_str!("images.rs"));
    let recipe = Sha256::digest(recipe);
    let key = format!("{}-{}", PROGRAMS.key()?, &hex(&recipe)[..12]);
    let dir = cached("images", &key, |out| {
        pack(&programs, &debian()?, &out.join(ARCHIVE))
    })?;
    Ok(dir.join(ARCHIVE))
}

fn pack(programs: &Path, debian: &Path, to: &Path) -> Result<()> {
    eprintln!("packing the images of test clusters");
    let mut archive = Archive::create(to)?;
    let pause = archive.program(&programs.join("pause"))?;
    archive.image(&[PAUSE], &[&pause], Start::Program("/pause", &[]))?;
    let coredns = archive.program(&programs.join("coredns"))?;
    archive.image(
        &[COREDNS_IMAGE],
        &[&coredns],
        Start::Program("/coredns", &[]),
    )?;
    let debian = archive.layer(debian)?;
    let agnhost = archive.program(&programs.join("agnhost"))?;
    archive.image(
        &[AGNHOST, AGNHOST_BEFORE],
        &[&debian, &agnhost],
        Start::Program("/agnhost", &["pause"]),
    )?;
    archive.image(SHELLS, &[&debian], Start::Shell)?;
    let regression = archive.program(&programs.join("regression-issue-74839"))?;
    archive.image(
        &[REGRESSION],
        &[&regression],
        Start::Program("/regression-issue-74839", &[]),
    )?;
    archive.finish()
}

/// A root file system of Debian with the tools of test pods.
fn debian() -> Result<PathBuf> {
    let tools = DEBIAN_TOOLS.join(",");
    let key = format!("{DEBIAN}-{}", &hex(&Sha256::digest(&tools))[..12]);
    let dir = cached("debian", &key, |out| {
        eprintln!("installing Debian for test pods; the first time takes minutes");
        let root = out.join("root");
        run(Command::new("timeout")
            .arg("1200")
            .args(["nice", "debootstrap", "--variant=minbase"])
            .arg(format!("--include={tools}"))
            .arg(DEBIAN)
            .arg(&root))
        .context("install Debian with debootstrap")?;
        for unused in DEBIAN_UNUSED {
            let dir = root.join(unused);
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
            fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        // Each cluster gives its pods one.
        fs::write(root.join("etc/resolv.conf"), "").context("empty a resolv.conf")
    })?;
    Ok(dir.join("root"))
}
