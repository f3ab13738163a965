//! Manifests: whatever a file holds, it is read or told of, and takes nothing from others.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use weir::compile::compile;
use weir::explain;
use weir::model::{Event, Kind, Object, ObjectName};
use weir::plan::Planner;
use weir::source::manifests::load;
use weir::state::State;

/// An object that nobody else has.
const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: zz-good, namespace: zz-shop}\n\
    spec: {clusterIPs: [10.96.77.1], ports: [{port: 80}]}\n";

thread_local! {
    static DIRECTORY: TempDir = tempfile::tempdir().expect("a temporary directory");
}

/// See the module.
pub(crate) fn check(bytes: &[u8]) {
    DIRECTORY.with(|directory| check_in(directory.path(), bytes));
}

fn check_in(directory: &Path, bytes: &[u8]) {
    // The name is read first, so that the good file comes last: of an object in two files the first counts.
    let strange = directory.join("a.yaml");
    fs::write(&strange, bytes).expect("a file");
    fs::write(directory.join("b.yaml"), GOOD).expect("a file");
    let mut together = bytes.to_vec();
    together.extend_from_slice(b"\n---\n");
    together.extend_from_slice(GOOD.as_bytes());

    let events = load(directory).expect("a directory").events;
    let claims_it = bytes.windows(7).any(|word| word == b"zz-good");
    assert!(claims_it || has_good(&events), "lost with another file");
    let whole = !events.iter().any(|event| {
        matches!(
            event,
            Event::File {
                message: Some(_),
                ..
            }
        )
    });
    follow(events);

    fs::remove_file(directory.join("b.yaml")).expect("no second file");
    fs::write(&strange, together).expect("a file");
    let events = load(directory).expect("a directory").events;
    if whole && !claims_it {
        assert!(has_good(&events), "lost with another document: {events:?}");
    }
}

fn has_good(events: &[Event]) -> bool {
    let good = ObjectName::new("zz-shop", "zz-good");
    let is_good = |object: &Object| object.key() == (Kind::Service, good.clone());
    events.iter().any(|event| match event {
        Event::Replaced(Kind::Service, objects) => objects.iter().any(is_good),
        _ => false,
    })
}

/// What commands without an agent do with it.
fn follow(events: Vec<Event>) {
    let mut state = State::new("node1");
    for event in events {
        state.apply(event);
    }
    assert!(state.synced(), "every kind was listed");
    for rejected in state.rejections() {
        assert!(!rejected.message.is_empty(), "{rejected:?}");
    }
    let snapshot = state.snapshot();
    let tables = compile(snapshot);
    // That something is too large is told, too.
    let _ = Planner::new().plan(&tables);
    let judged = explain::judge_atoms(snapshot, &tables.policies, 200);
    assert_eq!(judged.disagreements, [""; 0]);
    let _ = explain::services(snapshot);
}
