//! A directory of manifests as a source: `*.yaml`, `*.yml` and `*.json`, each with any number of objects.
//!
//! The directory is not searched recursively, and hidden files are passed over, so a mounted ConfigMap can be used as it is.

mod decode;
mod directory;
mod file;
mod last_good;
mod repository;
mod template;
#[cfg(test)]
mod tests;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::repository::{Refused, Repository, UNSCHEDULED, read};

use self::directory::Directory;
use self::last_good::LastGood;
use super::outcome;
use crate::model::Event;

/// How often the directory is read when nobody reports a change: notifications get lost on some file systems.
const POLL_INTERVAL: Duration = Duration::from_secs(3);

/// Time from the first notice of a change to reading, so that a writer can finish.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// Why a directory of manifests cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The directory cannot be listed.
    #[error("cannot list the manifest directory {path}: {source}; create it, or make it readable")]
    List {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; name a file, a directory or - for standard input")]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Reading was cut short by a panic or by the end of the runtime.
    #[error("reading the manifest directory {path} did not end: {source}")]
    Read {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: tokio::task::JoinError,
    },
}

/// A directory, read once.
#[derive(Debug)]
pub struct Loaded {
    /// One `Replaced` for each kind, then the reports of [`Self::rejections`].
    pub events: Vec<Event>,
    /// Lines that tell a person what could not be used.
    pub rejections: Vec<String>,
}

/// Reads a directory once.
///
/// # Errors
/// If the directory cannot be listed. Bad files and objects are no errors: they are in the result.
pub fn load(directory: &Path) -> Result<Loaded, ManifestError> {
    let events = Directory::new(directory, None).scan()?;
    let rejections = events.iter().filter_map(outcome::describe).collect();
    Ok(Loaded { events, rejections })
}

/// A directory that is read and then watched.
#[derive(Debug)]
pub struct ManifestSource {
    directory: PathBuf,
    last_good: Option<LastGood>,
}

impl ManifestSource {
    /// A source over a directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            last_good: None,
        }
    }

    /// Keeps copies of good files under `state_directory`, which stand in for files that are broken when the agent starts.
    #[must_use]
    pub fn keep_in(mut self, state_directory: &Path) -> Self {
        self.last_good = Some(LastGood::new(state_directory));
        self
    }

    /// Sends one `Replaced` for each kind, then what changes, until told to shut down or nobody listens.
    ///
    /// # Errors
    /// If the directory cannot be listed at the start. Later its last content stays until it can be read again.
    pub async fn run(
        self,
        events: mpsc::Sender<Event>,
        shutdown: CancellationToken,
    ) -> Result<(), ManifestError> {
        let path = self.directory;
        // Watch first: what changes during the first reading is then noticed.
        let (_watcher, changed) = watch::start(&path);
        let mut directory = Directory::new(&path, self.last_good);
        let mut started = false;
        loop {
            let result;
            (directory, result) = scan(directory, &path).await?;
            match result {
                Ok(batch) => {
                    started = true;
                    for event in batch {
                        outcome::log(&event);
                        if events.send(event).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                Err(error) if !started => return Err(error),
                Err(error) => tracing::warn!("{error}; its last content stays"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = changed.notified() => {
                    tokio::time::sleep(SETTLE_TIME).await;
                }
            }
        }
    }
}

type Scanned = (Directory, Result<Vec<Event>, ManifestError>);

/// Files may be large or on a slow mount, so they are read off the async threads.
async fn scan(mut directory: Directory, path: &Path) -> Result<Scanned, ManifestError> {
    tokio::task::spawn_blocking(move || {
        let result = directory.scan();
        (directory, result)
    })
    .await
    .map_err(|source| ManifestError::Read {
        path: path.to_owned(),
        source,
    })
}
