//! Programs that run on a node, as processes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::time::{ClockId, clock_gettime};
use procfs::process::{Process, Stat, all_processes_with_root};

use super::Node;
use crate::netns::run;

/// A running program of a node.
#[derive(Debug)]
pub struct Daemon(Process);

impl Node {
    /// The program called `name` that runs on the node, in a pod or not.
    ///
    /// # Errors
    /// None does, or several do.
    pub fn daemon(&self, name: &str) -> Result<Daemon> {
        let proc = self.entrance().root().join("proc");
        let processes = all_processes_with_root(&proc);
        let processes = processes.with_context(|| format!("list {}", proc.display()))?;
        // Processes come and go meanwhile.
        let found = processes
            .flatten()
            .filter(|process| process.stat().is_ok_and(|stat| stat.comm == name));
        match <[Process; 1]>::try_from(Vec::from_iter(found)) {
            Ok([process]) => Ok(Daemon(process)),
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
        let pid = self.daemon(name)?.pid().to_string();
        run(self.command("kill").arg("-KILL").arg(pid)).map(drop)
    }
}

impl Daemon {
    /// Its number on the node.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// Resident memory, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<u64> {
        let status = self.0.status().context("read a process's status")?;
        let kilobytes = status.vmrss.context("it has ended")?;
        Ok(kilobytes * 1024)
    }

    /// How many files it has open.
    ///
    /// # Errors
    /// It has ended.
    pub fn files(&self) -> Result<usize> {
        self.0.fd_count().context("count a process's open files")
    }

    /// Time on a processor since its start.
    ///
    /// # Errors
    /// It has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = self.stat()?;
        Ok(ticks(stat.utime + stat.stime))
    }

    /// How long ago it was started, to a hundredth of a second.
    ///
    /// # Errors
    /// It has ended.
    pub fn age(&self) -> Result<Duration> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        Ok(now.saturating_sub(ticks(self.stat()?.starttime)))
    }

    fn stat(&self) -> Result<Stat> {
        self.0.stat().context("read a process's state")
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / procfs::ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::thread;

    use super::*;
    use crate::process;

    #[test]
    fn a_process_is_measured_until_it_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut sleeper = process::Process::start("test", &dir.path().join("log"), || {
            // A moment of work, then none.
            let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exec sleep 600";
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]);
            command
        })
        .expect("it starts");
        let directory = PathBuf::from(format!("/proc/{}", sleeper.pid()));
        let begun = std::time::Instant::now();
        while fs::read_to_string(directory.join("comm")).expect("it runs") != "sleep\n" {
            assert!(begun.elapsed() < Duration::from_secs(60), "it still works");
            thread::sleep(Duration::from_millis(20));
        }
        let listed = fs::read_dir(directory.join("fd")).expect("it runs").count();
        let daemon = Daemon(Process::new_with_root(directory).expect("it runs"));
        assert_eq!(daemon.files().expect("it runs"), listed);
        let age = daemon.age().expect("it runs");
        assert!(age < begun.elapsed() + Duration::from_secs(1), "{age:?}");
        let spent = daemon.processor_time().expect("it runs");
        assert!(
            spent > Duration::ZERO && spent <= age,
            "{spent:?} in {age:?}"
        );
        let memory = daemon.memory().expect("it runs");
        assert!((100 << 10..100 << 20).contains(&memory), "{memory}");
        sleeper.kill().expect("it ends");
        assert!(daemon.memory().is_err() && daemon.age().is_err());
    }
}
