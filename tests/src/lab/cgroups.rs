//! A cgroup for each node, in every hierarchy that this machine has.
//!
//! A node sees its own as the root of the hierarchy (cgroup_namespaces(7)), as a machine does: a cgroup program that is
//! attached there meets the sockets of this node and of no other.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::netns::PREFIX;

/// How long the kernel may take to see that the last process of a cgroup is gone.
const DRAIN: Duration = Duration::from_secs(10);

/// Where a node's own processes are: a version 2 cgroup that hands out controllers may hold none itself.
const MACHINE: &str = "machine";

/// Controllers that a kubelet cannot do without.
const NEEDED: &[&str] = &["cpu", "cpuset", "memory", "pids"];

/// A mounted hierarchy, of either version.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// The file system's type: `cgroup` or `cgroup2`.
    pub(crate) kind: String,
    /// What to mount it with: its controllers or its name.
    pub(crate) options: String,
}

/// The hierarchies of this machine.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let hierarchies: Vec<_> = mounts.lines().filter_map(hierarchy).collect();
    ensure!(
        !hierarchies.is_empty(),
        "no cgroup file system is mounted, which nodes need"
    );
    Ok(hierarchies)
}

/// The hierarchy that a line of mountinfo (proc(5)) is about.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount = mount.split(' ').nth(4)?;
    let mut file_system = file_system.split(' ');
    let kind = file_system
        .next()
        .filter(|kind| kind.starts_with("cgroup"))?;
    let options: Vec<_> = file_system
        .nth(1)?
        .split(',')
        .filter(|option| kind == "cgroup" && !["ro", "rw", "xattr"].contains(option))
        .collect();
    Some(Hierarchy {
        mount: mount.into(),
        kind: kind.to_owned(),
        options: options.join(","),
    })
}

/// A node's cgroups; removed with this value, once its processes have ended.
#[derive(Debug)]
pub(crate) struct Cgroups {
    directories: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes a cgroup `name` in every hierarchy.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut cgroups = Self {
            directories: Vec::new(),
        };
        for hierarchy in hierarchies()? {
            let dir = hierarchy.mount.join(name);
            fs::create_dir(&dir).with_context(|| format!("create the cgroup {}", dir.display()))?;
            // From now on a failure removes it.
            cgroups.directories.push(dir.clone());
            inherit(&hierarchy.mount, &dir)?;
            let machine = dir.join(MACHINE);
            fs::create_dir(&machine)
                .with_context(|| format!("create the cgroup {}", machine.display()))?;
            inherit(&dir, &machine)?;
        }
        cgroups.ensure_controllers()?;
        Ok(cgroups)
    }

    /// The `cgroup.procs` files of the node's own cgroups, and of those that its own processes end up in.
    pub(crate) fn procs(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let file = "cgroup.procs";
        let directories = self.directories.iter();
        directories
            .map(|dir| (dir.join(file), dir.join(MACHINE).join(file)))
            .unzip()
    }

    /// On a machine with version 2 alone, checks that the root hands out what a kubelet needs.
    fn ensure_controllers(&self) -> Result<()> {
        let [only] = self.directories.as_slice() else {
            return Ok(());
        };
        let file = only.join("cgroup.controllers");
        let have = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let lacks = |name: &&&str| !have.split_whitespace().any(|word| word == **name);
        let missing: Vec<_> = NEEDED.iter().filter(lacks).collect();
        ensure!(
            missing.is_empty(),
            "the root cgroup hands out no {missing:?}: add them to its cgroup.subtree_control"
        );
        Ok(())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in &self.directories {
            if let Err(error) = remove(dir) {
                eprintln!("cgroup {} is left behind: {error}", dir.display());
            }
        }
    }
}

/// Opens `cgroup.procs` files to join by.
pub(crate) fn open(files: &[PathBuf]) -> Result<Vec<File>> {
    let open = |file: &PathBuf| {
        let opened = File::options().write(true).open(file);
        opened.with_context(|| format!("open {}", file.display()))
    };
    files.iter().map(open).collect()
}

/// The cgroups of nodes on this machine, whosever they are.
pub(crate) fn all() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let entries = fs::read_dir(&hierarchy.mount)
            .with_context(|| format!("list {}", hierarchy.mount.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Removes a cgroup and all below it. One whose last process has just ended is busy for a moment more.
pub(crate) fn remove(dir: &Path) -> std::io::Result<()> {
    let deadline = Instant::now() + DRAIN;
    let children = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        children => children?,
    };
    for child in children {
        let child = child?;
        if child.file_type()?.is_dir() {
            remove(&child.path())?;
        }
    }
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
}

/// A version 1 cpuset takes no process before it has processors and memory.
fn inherit(parent: &Path, child: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(name), child.join(name));
        // Version 2 fills them in itself.
        if from.exists() && !parent.join("cgroup.controllers").exists() {
            fs::copy(&from, &to).with_context(|| format!("write {}", to.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_mountinfo() {
        let lines = [
            "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
            "31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd",
            "32 25 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate",
            "33 25 0:29 / /proc rw,relatime - proc proc rw",
        ];
        let found: Vec<_> = lines
            .iter()
            .filter_map(|line| hierarchy(line))
            .map(|it| (it.mount.display().to_string(), it.kind, it.options))
            .collect();
        let expected = [
            ("/sys/fs/cgroup/memory", "cgroup", "memory"),
            ("/sys/fs/cgroup/systemd", "cgroup", "name=systemd"),
            ("/sys/fs/cgroup", "cgroup2", ""),
        ];
        let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(found, expected);
    }
}
