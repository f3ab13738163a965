//! Processes that are started again when they end by themselves, as a kubelet does with the pods of a control plane.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::process::Process;

/// How soon an end is noticed.
const LOOK: Duration = Duration::from_millis(500);

/// A process that is started again whenever it ends; ends for good with this value.
pub struct Supervised(Shared);

/// Nothing once it has ended for good.
type Shared = Arc<Mutex<Option<Process>>>;

impl Supervised {
    /// Looks after `process` from now on.
    #[must_use]
    pub fn new(process: Process) -> Self {
        let shared = Arc::new(Mutex::new(Some(process)));
        let watched = Arc::clone(&shared);
        thread::spawn(move || {
            while look_after(&watched) {
                thread::sleep(LOOK);
            }
        });
        Self(shared)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let process = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(process);
    }
}

/// Whether there is still something to look after.
fn look_after(shared: &Shared) -> bool {
    let mut process = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(process) = process.as_mut() else {
        return false;
    };
    let Err(ended) = process.ensure_running() else {
        return true;
    };
    eprintln!("starting it again: {ended:#}");
    if let Err(error) = process.restart() {
        // Whoever needs it will say what is missing.
        eprintln!("gave up: {error:#}");
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_ends_is_started_again_until_nobody_wants_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let starts = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
        let process = Process::start("test", &log, || {
            let mut command = Command::new("sh");
            command.args(["-c", "echo started"]);
            command
        });
        let supervised = Supervised::new(process.expect("it starts"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while starts() < 3 {
            assert!(Instant::now() < deadline, "{} starts", starts());
            thread::sleep(Duration::from_millis(20));
        }
        drop(supervised);
        let ended = starts();
        thread::sleep(LOOK * 3);
        assert_eq!(starts(), ended);
    }
}
