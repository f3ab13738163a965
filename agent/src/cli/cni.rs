//! `weir cni`.

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{CniCommand, CniDirectories};
use super::{Outcome, write_out};
use crate::cni::{self, Installation, Settings};

/// This program, whatever became of its file.
const PROGRAM: &str = "/proc/self/exe";

pub(super) fn execute(command: Option<CniCommand>) -> Result<Outcome> {
    match command {
        None => {
            return Ok(if cni::plugin() {
                Outcome::Yes
            } else {
                Outcome::No
            });
        }
        Some(CniCommand::Install {
            directories,
            run_dir,
            wait_seconds,
            when_agent_is_down,
            watch,
        }) => {
            let settings = Settings {
                run_dir,
                wait_seconds,
                when_agent_is_down,
            };
            let installation = directories.into();
            if watch {
                keep(&installation, &settings)?;
            } else {
                let changed = installation.install(Path::new(PROGRAM), &settings)?;
                write_out(if changed {
                    "installed\n"
                } else {
                    "is installed already\n"
                })?;
            }
        }
        Some(CniCommand::Uninstall { directories }) => {
            let changed = Installation::from(directories).uninstall()?;
            write_out(if changed {
                "uninstalled\n"
            } else {
                "was not installed\n"
            })?;
        }
    }
    Ok(Outcome::Yes)
}

/// Keeps the plugin installed until somebody ends this process; it stays installed then.
fn keep(installation: &Installation, settings: &Settings) -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            ended = cni::watch(installation, Path::new(PROGRAM), settings) => {
                ended.with_context(|| format!("cannot watch {}", installation.configurations.display()))
            }
        }
    })
}

impl From<CniDirectories> for Installation {
    fn from(directories: CniDirectories) -> Self {
        Self {
            configurations: directories.conf_dir,
            plugins: directories.bin_dir,
        }
    }
}
