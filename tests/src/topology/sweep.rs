//! Removes what test processes left behind that were killed.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};

use super::private::leftovers;
use crate::lab::{self, cgroups};
use crate::netns::{self, PREFIX};

/// Removes namespaces, mounts, cgroups and directories of harness processes that no longer run.
///
/// Two processes may sweep at once, so what is gone already is no error.
pub fn sweep() -> Result<()> {
    for name in netns::names()?.iter().filter(|name| is_stale(name)) {
        let done = Command::new("ip").args(["netns", "del", name]).output();
        done.with_context(|| format!("delete the stale namespace {name}"))?;
    }
    let (mounts, groups) = leftovers()?;
    for mount in mounts.iter().filter(|path| is_stale_path(path)) {
        let _ = umount2(mount, MntFlags::MNT_DETACH);
    }
    for cgroup in groups.iter().filter(|path| is_stale_path(path)) {
        let _ = cgroups::remove(cgroup);
    }
    // After the mounts, so that nothing but the directories is removed.
    for dir in [env::temp_dir(), lab::DIRECTORIES.into()] {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            if is_stale(&entry.file_name().to_string_lossy()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    Ok(())
}

fn is_stale_path(path: &Path) -> bool {
    path.components()
        .any(|part| is_stale(&part.as_os_str().to_string_lossy()))
}

/// Whether this is a name the harness gives, by a process that is gone.
fn is_stale(name: &str) -> bool {
    let pid = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_are_stale() {
        assert!(!is_stale(&netns::unique_name("node1")));
        // Above the kernel's highest process id.
        assert!(is_stale("weir-4194305-0-node1"));
        assert!(is_stale_path(Path::new(
            "/tmp/weir-4194305-0-node1AbCdEf/bpf"
        )));
        for foreign in ["weir-system", "weir-", "node1", "weird-4194305-0"] {
            assert!(!is_stale(foreign), "{foreign}");
        }
    }
}
