//! Sandboxes in files of the run directory, for the next agent: they end with the node's uptime, as the directory does.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::model::{Attachment, Change, Sandbox};
use crate::state::State;

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

    /// Takes a sandbox into the state and into its file. Those whose place it takes are gone from both.
    pub fn announce(&self, state: &mut State, sandbox: Sandbox) -> Change {
        self.forget(state, |former| sandbox.replaces(former));
        if let Err(error) = self.save(&sandbox) {
            tracing::warn!(pod = %sandbox.pod, "cannot keep a sandbox for the next agent: {error}");
        }
        state.announce(sandbox)
    }

    /// Forgets sandboxes, in the state and for the next agent.
    pub fn retire(&self, state: &mut State, is_gone: impl Fn(&Sandbox) -> bool) -> Change {
        self.forget(state, &is_gone);
        state.retire(is_gone)
    }

    fn forget(&self, state: &State, is_gone: impl Fn(&Sandbox) -> bool) {
        let sandboxes = state.snapshot().sandboxes.values();
        for sandbox in sandboxes.filter(|one| is_gone(one)) {
            if let Err(error) = self.remove(&sandbox.attachment) {
                tracing::warn!(pod = %sandbox.pod, "cannot forget a sandbox: {error}");
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectName, PodDevice};

    fn sandbox(container: &str, address: &str, ifindex: u32) -> Sandbox {
        Sandbox {
            attachment: Attachment {
                container: container.to_owned(),
                interface: "eth0".to_owned(),
            },
            network: "pods".to_owned(),
            pod: ObjectName::new("shop", container),
            uid: String::new(),
            addresses: vec![address.parse().unwrap()],
            device: Some(PodDevice {
                ifindex,
                name: format!("veth{ifindex}"),
            }),
        }
    }

    #[test]
    fn the_next_agent_finds_what_this_one_knows() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let mut state = State::new("node1");
        let matches = |state: &State, wanted: &[&str]| {
            let mut kept = store.load().unwrap();
            kept.sort_by(|a, b| a.attachment.cmp(&b.attachment));
            let known = state.snapshot().sandboxes.values();
            let known: Vec<Sandbox> = known.map(|one| Sandbox::clone(one)).collect();
            assert_eq!(kept, known);
            let names: Vec<&str> = kept
                .iter()
                .map(|one| one.attachment.container.as_str())
                .collect();
            assert_eq!(names, wanted);
        };
        for (new, wanted) in [
            (sandbox("a", "10.1.0.1", 1), &["a"][..]),
            (sandbox("b", "10.1.0.2", 2), &["a", "b"]),
            // The address, then the device, is another's from now on.
            (sandbox("c", "10.1.0.1", 3), &["b", "c"]),
            (sandbox("d", "10.1.0.4", 2), &["c", "d"]),
            (sandbox("d", "10.1.0.5", 2), &["c", "d"]),
        ] {
            store.announce(&mut state, new);
            matches(&state, wanted);
        }
        store.retire(&mut state, |one| one.attachment.container == "c");
        matches(&state, &["d"]);
    }
}
