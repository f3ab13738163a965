//! The objects that the kernel was last in line with, in a file: after a reboot pods start isolated as they were, also without an API
//! server.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::lines::{self, Lines};
use super::shared::Shared;
use crate::model::{Event, Kind, Object, Snapshot};

/// Version of the file's form.
const VERSION: u32 = 1;
/// Least time from one writing to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// The file.
#[derive(Clone, Debug)]
pub(super) struct LastKnown(Lines);

impl LastKnown {
    /// The file in a state directory.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self(Lines::new(state_dir.join("objects.jsonl"), VERSION))
    }

    /// Writes all objects of a snapshot.
    fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        self.0.save(&snapshot.node_name, snapshot.objects())
    }

    /// The objects as if a source had listed them; `None` if nothing was written for this node in this form.
    pub(super) fn load(&self, node: &str) -> io::Result<Option<Vec<Event>>> {
        let Some(values) = self.0.load::<Object>(node)? else {
            return Ok(None);
        };
        let mut objects: BTreeMap<Kind, Vec<Object>> =
            Kind::ALL.map(|kind| (kind, Vec::new())).into();
        for object in values {
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
    let new = |written: Option<&Arc<Snapshot>>| {
        let published = shared.published();
        let snapshot = published.snapshot;
        // What a source has not told yet is not what is there; and what was read from the file need not be written.
        let told = published.last_sync.is_some() && published.listed.len() == Kind::ALL.len();
        let is_new = written.is_none_or(|last| !Arc::ptr_eq(last, &snapshot));
        let (file, objects) = (file.clone(), Arc::clone(&snapshot));
        let write = move || file.save(&objects);
        (told && is_new).then_some((snapshot, write))
    };
    lines::keep("the objects", PAUSE, shutdown, new).await;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::compile::testing::{pod, policy, selector, snapshot};
    use crate::state::State;

    #[test]
    fn objects_are_read_back_for_their_node_and_in_their_form_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastKnown::new(&dir.path().join("state"));
        let path = dir.path().join("state/objects.jsonl");
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
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen(":1", ":2", 1)).unwrap();
        assert!(file.load("here").unwrap().is_none());
        let (broken, _) = text.split_at(text.len() - 1);
        fs::write(&path, broken).unwrap();
        assert!(file.load("here").is_err());
    }
}
