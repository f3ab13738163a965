//! How the watches are doing.

use std::collections::BTreeMap;

use crate::model::Kind;

/// How one watch is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchState {
    /// What is watched.
    pub kind: Kind,
    /// Whether it has been listed completely once.
    pub synced: bool,
    /// Failed requests and broken watches since the start.
    pub errors: u64,
    /// The newest of them, also after recovery.
    pub last_error: Option<String>,
}

/// All watches.
pub type WatchStates = BTreeMap<Kind, WatchState>;

pub(super) fn initial() -> WatchStates {
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let state = WatchState {
                kind,
                synced: false,
                errors: 0,
                last_error: None,
            };
            (kind, state)
        })
        .collect()
}
