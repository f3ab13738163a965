//! Notices of changes in a directory.

use std::path::Path;
use std::sync::Arc;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Starts to watch. The watch ends when the watcher is dropped; without one (too many inotify watches) the caller's polling
/// must do.
pub(super) fn start(directory: &Path) -> (Option<RecommendedWatcher>, Arc<Notify>) {
    let changed = Arc::new(Notify::new());
    let notifier = Arc::clone(&changed);
    let watcher =
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            // Our own reading must not wake us.
            Ok(event) if event.kind.is_access() => {}
            Ok(_) | Err(_) => notifier.notify_one(),
        })
        .and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
    match watcher {
        Ok(watcher) => (Some(watcher), changed),
        Err(error) => {
            tracing::warn!("cannot watch the manifest directory, so it is polled: {error}");
            (None, changed)
        }
    }
}
