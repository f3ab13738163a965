//! The newest flow records in a file, for the next agent: what was dropped before an upgrade is asked for after it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::lines::{self, Lines};
use super::shared::Shared;
use crate::flows::Record;

/// Version of the file's form.
const VERSION: u32 = 1;
/// Least time from one writing to the next. They are written when the agent ends, too; an agent that is killed loses no more than these.
const PAUSE: Duration = Duration::from_secs(5 * 60);

/// The file.
#[derive(Clone, Debug)]
pub(super) struct KeptRecords(Lines);

impl KeptRecords {
    /// The file in a state directory.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self(Lines::new(state_dir.join("flow-records.jsonl"), VERSION))
    }

    fn save(&self, node: &str, records: &[Record]) -> io::Result<()> {
        self.0.save(node, records)
    }

    /// The records of an earlier agent of this node; none where they cannot be read, which is told.
    pub(super) fn load(&self, node: &str) -> Vec<Record> {
        let read = self.0.load(node).inspect_err(|error| {
            tracing::warn!("the flow records of the last agent cannot be read: {error}; there are none until new ones come");
        });
        read.ok().flatten().unwrap_or_default()
    }
}

/// Writes the records now and then, and when the agent ends, if there are new ones.
pub(super) async fn keep(file: KeptRecords, shared: Arc<Shared>, shutdown: CancellationToken) {
    let new = |written: Option<&u64>| {
        let kept = shared.records_kept();
        let (file, shared) = (file.clone(), Arc::clone(&shared));
        let write = move || file.save(&shared.node, &shared.recent());
        (kept != written.copied().unwrap_or_default()).then_some((kept, write))
    };
    lines::keep("the flow records", PAUSE, shutdown, new).await;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::flows::Recent;
    use crate::flows::tests::{ended, event, record};

    #[test]
    fn records_are_there_for_the_next_agent_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeptRecords::new(&dir.path().join("state"));
        assert_eq!(file.load("n1"), []);
        let records = [record(&event()), ended()];
        file.save("n1", &records).unwrap();
        assert_eq!(file.load("n2"), []);
        let mut recent = Recent::new(2);
        let newer = Record {
            length: 75,
            ..record(&event())
        };
        recent.push(newer.clone());
        recent.restore(file.load("n1"));
        let [drop, end] = records;
        assert_eq!(recent.to_vec(), [drop, newer, end]);
        assert_eq!(recent.pushed(), 1);
        // Half a file is none.
        let path = dir.path().join("state/flow-records.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert_eq!(file.load("n1"), []);
    }
}
