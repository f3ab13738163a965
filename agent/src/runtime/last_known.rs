//! The objects that the kernel was last in line with, in a file: after a reboot pods start isolated as they were, also without an API
//! server.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::model::{Event, Kind, Object, Snapshot};

/// Version of the file's form; one of another version is passed over.
const VERSION: u32 = 1;
/// Least time from one writing to the next.
const PAUSE: Duration = Duration::from_secs(10);
/// Share of the time that writing may take: a fiftieth.
const SHARE: u32 = 50;

/// The file: a line that says what it is, then one object a line.
#[derive(Clone, Debug)]
pub(super) struct LastKnown {
    path: PathBuf,
}

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u32,
    node: String,
}

impl LastKnown {
    /// The file in a state directory.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("objects.jsonl"),
        }
    }

    /// Writes all objects of a snapshot, whole or not at all, also when power fails.
    fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let draft = self.path.with_extension("new");
        let mut file = BufWriter::new(File::create(&draft)?);
        let head = Head {
            version: VERSION,
            node: snapshot.node_name.clone(),
        };
        serde_json::to_writer(&mut file, &head)?;
        for object in snapshot.objects() {
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut file, &object)?;
        }
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(draft, &self.path)
    }

    /// The objects as if a source had listed them; `None` if nothing was written for this node in this form.
    pub(super) fn load(&self, node: &str) -> io::Result<Option<Vec<Event>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut lines = BufReader::new(file).lines();
        let head = lines.next().transpose()?.unwrap_or_default();
        let wanted = Head {
            version: VERSION,
            node: node.to_owned(),
        };
        if serde_json::from_str::<Head>(&head).ok() != Some(wanted) {
            return Ok(None);
        }
        let mut objects: BTreeMap<Kind, Vec<Object>> =
            Kind::ALL.map(|kind| (kind, Vec::new())).into();
        for line in lines {
            let object: Object = serde_json::from_str(&line?)?;
            objects.entry(object.key().0).or_default().push(object);
        }
        let events = objects.into_iter();
        Ok(Some(
            events
                .map(|(kind, objects)| Event::Replaced(kind, objects))
                .collect(),
        ))
    }
}

/// Writes the objects some time after they changed, and when the agent ends.
pub(super) async fn keep(file: LastKnown, shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut written: Option<Arc<Snapshot>> = None;
    let mut pause = PAUSE;
    loop {
        let ends = tokio::select! {
            () = shutdown.cancelled() => true,
            () = sleep(pause) => false,
        };
        let published = shared.published();
        let snapshot = published.snapshot;
        // What a source has not told yet is not what is there; and what was read from the file need not be written.
        let told = published.last_sync.is_some() && published.listed.len() == Kind::ALL.len();
        let is_new = written
            .as_ref()
            .is_none_or(|last| !Arc::ptr_eq(last, &snapshot));
        if told && is_new {
            let (file, start) = (file.clone(), Instant::now());
            let objects = Arc::clone(&snapshot);
            let result = tokio::task::spawn_blocking(move || file.save(&objects)).await;
            match result.map_err(io::Error::other).flatten() {
                Ok(()) => written = Some(snapshot),
                Err(error) => tracing::warn!(
                    "cannot keep the objects for a start without an API server: {error}; make --state-dir writable, or empty"
                ),
            }
            pause = PAUSE.max(start.elapsed() * SHARE);
        }
        if ends {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::{pod, policy, selector, snapshot};
    use crate::state::State;

    #[test]
    fn objects_are_read_back_for_their_node_and_in_their_form_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastKnown::new(&dir.path().join("state"));
        assert!(file.load("here").unwrap().is_none());
        let snapshot = snapshot(
            vec![
                pod("a", "one", "web", "10.0.0.1"),
                pod("b", "two", "db", "fd00::2"),
            ],
            vec![policy("a", "deny", selector(&[("app", "web")]))],
        );
        file.save(&snapshot).unwrap();
        // A second time, over the first.
        file.save(&snapshot).unwrap();
        let mut state = State::new("here");
        for event in file.load("here").unwrap().unwrap() {
            state.apply(event);
        }
        assert!(state.synced());
        assert_eq!(*state.snapshot(), snapshot);

        assert!(file.load("there").unwrap().is_none());
        let text = fs::read_to_string(&file.path).unwrap();
        fs::write(&file.path, text.replacen(":1", ":2", 1)).unwrap();
        assert!(file.load("here").unwrap().is_none());
        let (broken, _) = text.split_at(text.len() - 1);
        fs::write(&file.path, broken).unwrap();
        assert!(file.load("here").is_err());
    }
}
