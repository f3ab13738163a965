//! Programs that run on a node, as processes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use super::Node;
use crate::netns::run;

/// A running program of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its directory in the node's `/proc`.
    directory: PathBuf,
}

impl Node {
    /// The program called `name` that runs on the node, in a pod or not.
    ///
    /// # Errors
    /// None does, or several do.
    pub fn daemon(&self, name: &str) -> Result<Daemon> {
        let proc = self.entrance().root().join("proc");
        let mut found = Vec::new();
        for entry in fs::read_dir(&proc).with_context(|| format!("list {}", proc.display()))? {
            let directory = entry?.path();
            // Processes come and go, and not every entry is one.
            let comm = fs::read_to_string(directory.join("comm"));
            if comm.is_ok_and(|comm| comm.trim_end() == name) {
                found.push(Daemon { directory });
            }
        }
        match <[Daemon; 1]>::try_from(found) {
            Ok([daemon]) => Ok(daemon),
            Err(found) => bail!(
                "{} programs called {name} run on {}",
                found.len(),
                self.name()
            ),
        }
    }

    /// Kills the program called `name` as a crash would.
    ///
    /// # Errors
    /// There is none, or several are.
    pub fn crash(&self, name: &str) -> Result<()> {
        let daemon = self.daemon(name)?;
        let pid = daemon
            .directory
            .file_name()
            .context("a process has a number")?;
        run(self.command("kill").arg("-KILL").arg(pid)).map(drop)
    }
}

impl Daemon {
    /// Resident memory, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        let status = self.read("status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.trim().strip_suffix(" kB"));
        let kilobytes: u64 = resident.context("it has ended")?.parse()?;
        Ok(kilobytes * 1024)
    }

    /// How many files it has open.
    ///
    /// # Errors
    /// It has ended.
    pub fn files(&self) -> Result<usize> {
        let directory = self.directory.join("fd");
        let files = fs::read_dir(&directory);
        Ok(files
            .with_context(|| format!("list {}", directory.display()))?
            .count())
    }

    /// Time on a processor since its start.
    ///
    /// # Errors
    /// It has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let [user, system] = [self.stat(14)?, self.stat(15)?];
        ticks(user + system)
    }

    /// How long ago it was started, to a hundredth of a second.
    ///
    /// # Errors
    /// It has ended.
    pub fn age(&self) -> Result<Duration> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        Ok(now.saturating_sub(ticks(self.stat(22)?)?))
    }

    /// A field of `/proc/PID/stat`, numbered as in its manual page (from 1).
    fn stat(&self, field: usize) -> Result<u64> {
        let stat = self.read("stat")?;
        // The second field is the name, in parentheses, and may hold anything.
        let (_, rest) = stat.rsplit_once(") ").context("read a process's state")?;
        let value = rest.split_whitespace().nth(field - 3);
        Ok(value.context("read a process's state")?.parse()?)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

fn ticks(count: u64) -> Result<Duration> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the length of a clock tick")?;
    Ok(Duration::from_secs_f64(count as f64 / per_second as f64))
}
