//! Running other programs, never without an end.

use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(20);
/// What a stopped program gets to clean up before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Minutes, as the time-outs of this crate are given.
pub(crate) const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// Runs `command` with its output shown.
///
/// # Errors
/// It could not start, returned non-zero, or took longer than `limit`; it is stopped then, with all it started.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let name = describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting `{name}`"))?;
    match wait(&mut child, limit)? {
        None => bail!("`{name}` was stopped: not done after {} s", limit.as_secs()),
        Some(status) if !status.success() => bail!("`{name}` failed: {status}"),
        Some(_) => Ok(()),
    }
}

/// The standard output of a `command` that answers at once; `None` if it fails or takes over five seconds.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let status = wait(&mut child, Duration::from_secs(5)).ok()??;
    let output = child.wait_with_output().ok()?;
    status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Waits for `child`; after `limit` stops it and all it started, and returns `None`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let status = poll(child, limit)?;
    if status.is_none() {
        stop(child)?;
    }
    Ok(status)
}

/// Stops `child` and everything it started: first asked, then killed.
pub(crate) fn stop(child: &mut Child) -> Result<()> {
    // Children stay in our process group, so that Ctrl-C reaches them; the price is that they are found by parent here.
    let family = descendants(child.id());
    signal(&family, Signal::TERM);
    if poll(child, GRACE)?.is_none() {
        child.kill()?;
        child.wait()?;
    }
    signal(&family, Signal::KILL);
    Ok(())
}

/// The command line as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn poll(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn signal(processes: &[u32], signal: Signal) {
    for pid in processes
        .iter()
        .filter_map(|&pid| Pid::from_raw(pid.cast_signed()))
    {
        // One that has ended meanwhile is what was wanted.
        let _ = kill_process(pid, signal);
    }
}

/// `root` and the processes below it, from /proc.
fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // pid (name) state ppid ...: the name may hold spaces and brackets, so count from its last one.
            let parent = stat
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .nth(1)?
                .parse()
                .ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_stopped_with_its_children() {
        let begun = Instant::now();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 61 & sleep 61; true"]);
        let mut child = shell.spawn().unwrap();
        thread::sleep(Duration::from_millis(200));
        let family = descendants(child.id());
        assert_eq!(family.len(), 3, "the shell and two sleeps");
        assert!(
            wait(&mut child, Duration::from_millis(100))
                .unwrap()
                .is_none()
        );
        assert!(begun.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(200));
        assert!(
            family.iter().all(|pid| !is_sleep(*pid)),
            "a child outlived the time-out"
        );
    }

    fn is_sleep(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with("sleep"))
    }

    #[test]
    fn failure_and_time_out_name_the_command() {
        let failed = run(Command::new("false").arg("--why"), minutes(1)).unwrap_err();
        assert_eq!(failed.to_string(), "`false --why` failed: exit status: 1");
        let slow = run(Command::new("sleep").arg("60"), Duration::from_millis(10)).unwrap_err();
        assert_eq!(
            slow.to_string(),
            "`sleep 60` was stopped: not done after 0 s"
        );
    }

    #[test]
    fn ask_gives_the_answer_or_nothing() {
        assert_eq!(ask(Command::new("echo").arg("yes")).as_deref(), Some("yes"));
        assert_eq!(ask(&mut Command::new("false")), None);
        assert_eq!(ask(&mut Command::new("/nowhere/at/all")), None);
    }
}
