//! The process that a cluster belongs to.

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use weir_tests::lab::{Lab, LabSpec};

use crate::state::Home;

/// How often it looks whether everything still runs.
const LOOK: Duration = Duration::from_secs(5);

/// Starts a cluster, says so, and keeps it until it is told to end.
pub(crate) fn serve(name: &str, spec: &LabSpec) -> Result<()> {
    let home = Home::of(name)?;
    home.create()?;
    let Some(_lock) = home.try_lock()? else {
        bail!("cluster {name} is up already");
    };
    home.hold()?;
    let begun = Instant::now();
    let init = env::current_exe().context("find this program")?;
    // Until it is up, a signal ends this process at once, and the kernel ends what it started.
    let mut lab = Lab::start(spec, &init)?;
    // A runtime of one thread, so that signals change nothing for processes that are started.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        home.write(&mut lab)?;
        eprintln!("up after {:.0} s", begun.elapsed().as_secs_f64());
        let mut whole = true;
        loop {
            tokio::select! {
                _ = term.recv() => return Ok(()),
                _ = int.recv() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = lab.ensure_running();
            if let (true, Err(error)) = (whole, &now) {
                eprintln!("{error:#}");
            }
            whole = now.is_ok();
        }
    })
}
