//! Processes that are started again when they end by themselves, as a kubelet does with the pods of a control plane.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::Process;

/// How soon an end is noticed.
const LOOK: Duration = Duration::from_millis(500);

/// A process that is started again whenever it ends; ends for good with this value.
///
/// It needs a server, and may end when that goes away: as often as it likes while the server is absent, and once after
/// each absence, for what it missed. Every other end is a fault, which [`Self::ensure_running`] tells.
pub struct Supervised(Shared);

type Shared = Arc<Mutex<Watched>>;

struct Watched {
    /// Nothing once it has ended for good.
    process: Option<Process>,
    /// Whether its server is absent.
    absent: bool,
    /// Whether it may end for what it missed in the last absence.
    excused: bool,
    /// The first end without an excuse, or why it could not be started again.
    fault: Option<String>,
}

impl Supervised {
    /// Looks after `process` from now on. Its server starts as well, so counts as absent until [`Self::server_is_back`].
    #[must_use]
    pub fn new(process: Process) -> Self {
        let shared = Arc::new(Mutex::new(Watched {
            process: Some(process),
            absent: true,
            excused: false,
            fault: None,
        }));
        let watched = Arc::clone(&shared);
        thread::spawn(move || {
            while lock(&watched).look_after() {
                thread::sleep(LOOK);
            }
        });
        Self(shared)
    }

    /// To be called before the server goes away.
    pub fn server_leaves(&self) {
        let mut watched = lock(&self.0);
        // What ended before has no such excuse.
        watched.look_after();
        (watched.absent, watched.excused) = (true, true);
    }

    /// To be called once the server answers.
    pub fn server_is_back(&self) {
        let mut watched = lock(&self.0);
        // What ended before is excused.
        watched.look_after();
        watched.absent = false;
    }

    /// Checks that it did not end without an excuse.
    ///
    /// # Errors
    /// It did, or could not be started again; the error shows the end of the log then.
    pub fn ensure_running(&self) -> Result<()> {
        let mut watched = lock(&self.0);
        watched.look_after();
        match &watched.fault {
            Some(fault) => bail!("{fault}"),
            None => Ok(()),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let process = lock(&self.0).process.take();
        drop(process);
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Watched> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    /// Starts it again where it has ended. Whether there is still something to look after.
    fn look_after(&mut self) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        let Err(ended) = process.ensure_running() else {
            return true;
        };
        eprintln!("starting it again: {ended:#}");
        if !self.absent && !std::mem::take(&mut self.excused) {
            let fault = || format!("ended while its server was there: {ended:#}");
            self.fault.get_or_insert_with(fault);
        }
        if let Err(error) = process.restart() {
            let fault = || format!("could not be started again: {error:#}; before: {ended:#}");
            self.fault.get_or_insert_with(fault);
            self.process = None;
        }
        self.process.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    /// Runs `script`, whose output goes to `log`.
    fn supervised(log: &Path, script: &'static str) -> Supervised {
        let process = Process::start("test", log, move || {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        });
        Supervised::new(process.expect("it starts"))
    }

    fn wait(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline, "not yet: {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn what_ends_is_started_again_until_nobody_wants_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let starts = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
        let supervised = supervised(&log, "echo started");
        wait("three starts", || starts() >= 3);
        drop(supervised);
        let ended = starts();
        thread::sleep(LOOK * 3);
        assert_eq!(starts(), ended);
    }

    #[test]
    fn ends_are_excused_while_the_server_is_absent_and_once_afterwards() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let pid = || {
            let text = std::fs::read_to_string(&log).ok()?;
            text.lines().last()?.parse::<i32>().ok()
        };
        let supervised = supervised(&log, "echo $$; exec sleep 600");
        let end = || {
            wait("its number", || pid().is_some());
            let old = pid();
            let id = nix::unistd::Pid::from_raw(old.expect("a number"));
            nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).expect("it runs");
            wait("the next", || pid() != old);
        };
        let check = || supervised.ensure_running().map_err(|it| it.to_string());
        // While both start.
        end();
        end();
        supervised.server_is_back();
        check().expect("it runs");

        supervised.server_leaves();
        end();
        end();
        supervised.server_is_back();
        end();
        check().expect("an end for what it missed");
        end();
        let error = check().expect_err("an end without an excuse");
        assert!(
            error.contains("its server was there: test has ended (signal: 9"),
            "{error}"
        );
        // It is looked after nevertheless, and the fault is not forgotten.
        end();
        assert!(check().is_err());
    }

    #[test]
    fn an_end_before_an_absence_is_not_excused_by_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let supervised = supervised(&log, "echo started");
        supervised.server_is_back();
        wait("its end", || log.metadata().is_ok_and(|it| it.len() > 0));
        thread::sleep(Duration::from_millis(100));
        supervised.server_leaves();
        supervised.server_is_back();
        assert!(supervised.ensure_running().is_err());
    }
}
