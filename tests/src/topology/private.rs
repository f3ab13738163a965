//! What a node has for itself besides its network: directories, a BPF file system, a cgroup.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::netns::{PREFIX, unique_name};

/// How long the kernel may take to see that the last thread of a cgroup is gone.
const CGROUP_DRAIN: Duration = Duration::from_secs(2);

/// The private directories of a node; unmounted and removed with this value.
#[derive(Debug)]
pub(crate) struct NodeDirs {
    root: TempDir,
}

impl NodeDirs {
    pub(crate) fn new(node: &str) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix(&unique_name(node))
            .tempdir();
        let dirs = Self {
            root: root.context("make a node's directory")?,
        };
        for dir in [dirs.run(), dirs.state(), dirs.logs(), dirs.bpffs()] {
            fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let bpffs = dirs.bpffs();
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("bpf"), &bpffs, Some("bpf"), flags, None::<&str>)
            .with_context(|| format!("mount a BPF file system at {}", bpffs.display()))?;
        Ok(dirs)
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.path().join("run")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.path().join("logs")
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.root.path().join("bpf")
    }
}

impl Drop for NodeDirs {
    fn drop(&mut self) {
        // EINVAL: the mount had failed, or the test undid it.
        if let Err(error) = umount2(&self.bpffs(), MntFlags::MNT_DETACH)
            && error != nix::Error::EINVAL
        {
            eprintln!("{} stays mounted: {error}", self.bpffs().display());
        }
    }
}

/// A cgroup (v2) in threaded mode below the test's own; removed with this value.
///
/// Sockets belong to the cgroup of the thread that made them, so threads of the test process can play the processes
/// of several nodes. Threaded mode is what allows threads of one process to be in different cgroups.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub(crate) fn new(role: &str) -> Result<Self> {
        let path = own_cgroup()?.join(unique_name(role));
        fs::create_dir(&path).with_context(|| format!("create the cgroup {}", path.display()))?;
        let cgroup = Self { path };
        let kind = cgroup.path.join("cgroup.type");
        fs::write(&kind, "threaded")
            .with_context(|| format!("make {} threaded", cgroup.path.display()))?;
        Ok(cgroup)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove_cgroup(&self.path) {
            eprintln!("cgroup {} is left behind: {error}", self.path.display());
        }
    }
}

/// Removes an empty cgroup. One whose last thread has just ended is busy for a moment more.
fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    let deadline = Instant::now() + CGROUP_DRAIN;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// The directory of this process's own cgroup in the cgroup2 hierarchy, wherever that is mounted.
pub(crate) fn own_cgroup() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let mut lines = mounts.lines().map(|line| line.split(' '));
    let mount = lines.find_map(|mut fields| {
        let point = fields.nth(1)?;
        (fields.next()? == "cgroup2").then_some(point)
    });
    let mount =
        mount.context("no cgroup2 file system is mounted: mount one with `mount -t cgroup2`")?;
    let own = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    // The line of version 2 is the one with hierarchy 0 and no controllers (cgroups(7)).
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .context("this process is in no cgroup2")?;
    Ok(Path::new(mount).join(own))
}

/// The mounts and cgroups on this machine that a harness made.
pub fn leftovers() -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let ours = |path: &Path| {
        path.components()
            .any(|part| part.as_os_str().to_string_lossy().starts_with(PREFIX))
    };
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let mounts = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from);
    let mut cgroups = crate::lab::cgroups::all()?;
    for entry in fs::read_dir(own_cgroup()?).context("list cgroups")? {
        cgroups.push(entry?.path());
    }
    cgroups.retain(|path| ours(path));
    cgroups.sort();
    // Those of nodes are beside those of tests where this process is in the root cgroup.
    cgroups.dedup();
    Ok((mounts.filter(|path| ours(path)).collect(), cgroups))
}
