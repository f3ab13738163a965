//! What each file last held that was good, on disk: a file that breaks while no agent runs costs nothing either.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Copies of good files under the state directory.
#[derive(Debug)]
pub(super) struct LastGood {
    directory: PathBuf,
    /// Writing failed; it is said once.
    troubled: bool,
}

impl LastGood {
    /// Copies in `manifests` under the state directory. Without a place to keep them the agent does its work all the same.
    pub(super) fn new(state_directory: &Path) -> Self {
        Self {
            directory: state_directory.join("manifests"),
            troubled: false,
        }
    }

    /// Keeps the content of a file.
    pub(super) fn keep(&mut self, name: &str, bytes: &[u8]) {
        if self.recall(name).is_some_and(|kept| kept == bytes) {
            return;
        }
        // A file that is cut off by a crash would be worse than an old one.
        let draft = self.directory.join(format!(".{name}"));
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&draft, bytes))
            .and_then(|()| fs::rename(&draft, self.directory.join(name)));
        self.note(written);
    }

    /// What was kept of a file.
    pub(super) fn recall(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.directory.join(name)).ok()
    }

    /// Forgets all but these files.
    pub(super) fn retain(&mut self, names: &BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let gone = entry
                .file_name()
                .to_str()
                .is_none_or(|name| !names.contains(name));
            if gone {
                self.note(fs::remove_file(entry.path()));
            }
        }
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.troubled, true)
        {
            tracing::warn!(
                "cannot keep copies of good manifests in {}: {error}; a file that breaks while the agent is down will count as \
                 empty; make the directory writable, or choose another with --state-dir",
                self.directory.display()
            );
        }
    }
}
