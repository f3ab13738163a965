//! A corner of the running kernel for the data path: namespaces, a BPF file system and devices of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use weir::datapath::{self, AttachMode, KernelDatapath, Options};

use crate::topology::{Cgroup, own_cgroup};

/// Mount and network namespace of the calling thread, which end with it, and a BPF file system in them.
pub struct Place {
    bpffs: tempfile::TempDir,
}

impl Place {
    /// Moves the thread there; says why it cannot (not root, or an agent without kernel programs) and gives `None`.
    ///
    /// # Panics
    /// When the kernel refuses what root may do.
    #[must_use]
    pub fn new() -> Option<Self> {
        const NONE: Option<&str> = None;
        if crate::skip_without_root() {
            return None;
        }
        if !datapath::is_embedded() {
            println!("SKIP: the agent was built without kernel programs (cargo xtask build)");
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("namespaces");
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
            .expect("private mounts");
        let bpffs = tempfile::tempdir().expect("directory");
        mount(
            Some("bpf"),
            bpffs.path(),
            Some("bpf"),
            MsFlags::empty(),
            NONE,
        )
        .expect("bpffs");
        Some(Self { bpffs })
    }

    /// Directory for an agent's pins.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.bpffs.path().join("weir")
    }

    /// A file name next to the BPF file system, for files that it cannot hold.
    #[must_use]
    pub fn file(&self, extension: &str) -> PathBuf {
        self.bpffs.path().with_extension(extension)
    }

    /// Options of a small data path in the directory.
    #[must_use]
    pub fn options(&self, attach: AttachMode) -> Options {
        Options {
            bpffs: self.directory(),
            attach,
            flow_capacity: 4096,
            backend_capacity: 4096,
            ..Options::default()
        }
    }

    /// Opens a data path with [`Self::options`].
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn open(&self, attach: AttachMode) -> KernelDatapath {
        KernelDatapath::open(&self.options(attach)).expect("open")
    }

    /// The ways in which this kernel attaches: without tcx, only one.
    #[must_use]
    pub fn modes(&self) -> &'static [AttachMode] {
        static TCX: OnceLock<bool> = OnceLock::new();
        let tcx = || self.open(AttachMode::Auto).attach_mode() == AttachMode::Tcx;
        if *TCX.get_or_init(tcx) {
            &[AttachMode::Tcx, AttachMode::Clsact]
        } else {
            &[AttachMode::Clsact]
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that gave its capabilities away leaves it to the end of the namespace.
        let _ = umount2(self.bpffs.path(), MntFlags::MNT_DETACH);
    }
}

/// A cgroup that only the calling thread is in, and those that it starts, which must end before this.
pub struct ThreadCgroup {
    cgroup: Cgroup,
    parent: PathBuf,
}

impl ThreadCgroup {
    /// Moves the thread there.
    ///
    /// # Panics
    /// When there is no cgroup2, or the kernel refuses what root may do.
    #[must_use]
    pub fn enter() -> Self {
        let parent = own_cgroup().expect("the test's cgroup");
        let cgroup = Cgroup::new("sockets").expect("a cgroup");
        join(cgroup.path()).expect("join a cgroup");
        Self { cgroup, parent }
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.cgroup.path()
    }
}

impl Drop for ThreadCgroup {
    fn drop(&mut self) {
        if let Err(error) = join(&self.parent) {
            eprintln!("cannot leave {}: {error}", self.path().display());
        }
    }
}

/// Moves the thread to a cgroup.
fn join(cgroup: &Path) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.threads"), gettid().to_string())
}

/// Makes a veth in the thread's network namespace, its ends `name` and `name` with a `p`, and gives the index of the first.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn veth(name: &str) -> u32 {
    let peer = format!("{name}p");
    let made = ["link", "add", name, "type", "veth", "peer", "name", &peer];
    for arguments in [&made[..], &["link", "set", name, "up"]] {
        let status = Command::new("ip").args(arguments).status().expect("ip");
        assert!(status.success(), "ip {arguments:?}");
    }
    nix::net::if_::if_nametoindex(name).expect("index")
}
