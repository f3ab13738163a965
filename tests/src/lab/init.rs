//! The first process of a node: it makes the node's view of files and cgroups, then collects orphans for ever.
//!
//! When it ends, however it ends, the kernel ends every process of the node and takes its mounts away.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::wait;
use serde::{Deserialize, Serialize};

use super::cgroups::{self, Hierarchy};

/// Settings of the whole machine that a kubelet insists on, with the values that it wants to find.
///
/// It finds them on its node, and so leaves those of the machine alone.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// What a node is made from.
#[derive(Debug, Deserialize, Serialize)]
pub struct Init {
    /// Its host name.
    pub(super) name: String,
    /// Its directory: `etc` is laid over the machine's, `opt` and `var` replace them.
    pub(super) dir: PathBuf,
    /// Directories of the machine that it has too, with their names below `dir`.
    pub(super) binds: Vec<(PathBuf, PathBuf)>,
    /// The hierarchies it sees.
    pub(super) hierarchies: Vec<Hierarchy>,
    /// The `cgroup.procs` files of the cgroups that are its roots.
    pub(super) roots: Vec<PathBuf>,
    /// The `cgroup.procs` files of the cgroups for its own processes.
    pub(super) leaves: Vec<PathBuf>,
}

/// The file in a node's directory that is no longer empty once the node is ready.
pub(super) const READY: &str = "ready";

impl Init {
    /// Becomes the first process of the node that `file` describes, in the namespaces that the caller was put into.
    ///
    /// # Errors
    /// The file is not one of these, or a mount or a cgroup is refused.
    pub fn begin(file: &Path) -> Result<Infallible> {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let init: Self = serde_json::from_slice(&text).context("read what a node is made from")?;
        init.run()
    }

    fn run(&self) -> Result<Infallible> {
        // Opened before the node's own directories cover where it is.
        let mut ready = File::create_new(self.dir.join(READY)).context("say that it starts")?;
        fs::write("/proc/sys/kernel/hostname", &self.name).context("name the node")?;
        self.enter_cgroups()?;
        self.mount_all()?;
        ready
            .write_all(b"ready\n")
            .context("say that it is ready")?;
        loop {
            // Without children: nothing runs on this node yet, or nothing is left.
            if wait() == Err(Errno::ECHILD) {
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn enter_cgroups(&self) -> Result<()> {
        join(&self.roots)?;
        unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")?;
        join(&self.leaves)
    }

    fn mount_all(&self) -> Result<()> {
        // What is mounted from here on is the node's alone, and what its pods ask to see of it, they see.
        flags("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
        for (from, to) in &self.binds {
            bind(from, &self.dir.join(to))?;
        }
        file_system("proc", "proc", "/proc", "")?;
        let fixed = self.dir.join("proc-sys");
        for (name, value) in KERNEL_SETTINGS {
            let (file, setting) = (fixed.join(name), Path::new("/proc/sys").join(name));
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("create {}", parent.display()))?;
            }
            fs::write(&file, format!("{value}\n"))
                .with_context(|| format!("write {}", file.display()))?;
            bind(&file, &setting)?;
        }
        file_system("sysfs", "sysfs", "/sys", "")?;
        self.mount_cgroups()?;
        file_system("bpf", "bpf", "/sys/fs/bpf", "")?;
        let path = |name: &str| self.dir.join(name);
        // Unmounting any other kind would wait until the disk has everything that was ever written to it.
        let options = format!(
            "volatile,lowerdir=/etc,upperdir={},workdir={}",
            path("etc").display(),
            path("work").display()
        );
        file_system("overlay", "overlay", "/etc", &options)?;
        file_system("tmpfs", "tmpfs", "/run", "mode=755")?;
        fs::create_dir_all("/run/lock").context("create /run/lock")?;
        bind(&path("opt"), Path::new("/opt"))?;
        // Last, because this may be where the node's directory is.
        bind(&path("var"), Path::new("/var"))?;
        flags("/", MsFlags::MS_REC | MsFlags::MS_SHARED)
    }

    /// Mounts the hierarchies where the machine has them.
    fn mount_cgroups(&self) -> Result<()> {
        let root = Path::new("/sys/fs/cgroup");
        if self.hierarchies.iter().all(|it| it.mount != root) {
            file_system("tmpfs", "tmpfs", root, "mode=755")?;
        }
        for Hierarchy {
            mount,
            kind,
            options,
        } in &self.hierarchies
        {
            fs::create_dir_all(mount).with_context(|| format!("create {}", mount.display()))?;
            file_system(kind, kind, mount, options)?;
        }
        Ok(())
    }
}

fn join(files: &[PathBuf]) -> Result<()> {
    for (path, mut file) in files.iter().zip(cgroups::open(files)?) {
        // "0" stands for the writer itself.
        file.write_all(b"0")
            .with_context(|| format!("join {}", path.display()))?;
    }
    Ok(())
}

fn file_system(source: &str, kind: &str, at: impl AsRef<Path>, options: &str) -> Result<()> {
    let at = at.as_ref();
    mount(
        Some(source),
        at,
        Some(kind),
        MsFlags::empty(),
        Some(options),
    )
    .with_context(|| format!("mount {kind} ({options}) at {}", at.display()))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("bind {} to {}", from.display(), to.display()))
}

fn flags(at: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("change how mounts at {at} spread"))
}
