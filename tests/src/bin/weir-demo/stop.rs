//! Ctrl-C takes everything down in order instead of leaving it behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

/// Whether somebody wants the demo to end.
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes SIGINT, SIGTERM and SIGHUP; a second one ends the process at once.
    pub(crate) fn on_signals() -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().context("block signals")?;
        let wanted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&wanted);
        thread::spawn(move || {
            while signals.wait().is_ok() {
                if flag.swap(true, Ordering::Relaxed) {
                    // The next demo or test sweeps what is left.
                    std::process::exit(130);
                }
            }
        });
        Ok(Self(wanted))
    }

    /// # Errors
    /// It is time to end.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Waits for it.
    pub(crate) fn wait(&self) {
        while !self.0.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}
