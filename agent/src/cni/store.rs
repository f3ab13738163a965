//! Sandboxes in files of the run directory, for the next agent: they end with the node's uptime, as the directory does.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::model::{Attachment, Sandbox};

/// What the names of the files end with.
const SUFFIX: &str = "json";

/// The sandboxes of a run directory, a file each.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// That of an agent with this run directory.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self {
            directory: run_dir.join("sandboxes"),
        }
    }

    /// All sandboxes. A file that cannot be read is reported and left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn load(&self) -> io::Result<Vec<Sandbox>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut sandboxes = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|suffix| suffix != SUFFIX) {
                continue;
            }
            let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
            match read {
                Ok(sandbox) => sandboxes.push(sandbox),
                Err(error) => {
                    tracing::warn!("cannot read the sandbox in {}: {error}", path.display());
                }
            }
        }
        Ok(sandboxes)
    }

    /// Writes a sandbox, whole or not at all.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn save(&self, sandbox: &Sandbox) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.path(&sandbox.attachment);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(sandbox)?)?;
        fs::rename(fresh, path)
    }

    /// Removes a sandbox, if it is there.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn remove(&self, attachment: &Attachment) -> io::Result<()> {
        match fs::remove_file(self.path(attachment)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, attachment: &Attachment) -> PathBuf {
        let Attachment {
            container,
            interface,
        } = attachment;
        // A colon is in neither.
        self.directory
            .join(format!("{container}:{interface}.{SUFFIX}"))
    }
}
