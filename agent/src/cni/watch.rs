//! Keeps the plugin in a configuration that the main plugin writes anew when it likes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::install::{InstallError, Installation, Settings};

/// A file that was just changed is left alone for so long: who writes it may not be done.
const SETTLE: Duration = Duration::from_millis(100);
/// Longest time until the directory is looked at without any notice: notices can be lost.
const CHECK: Duration = Duration::from_secs(30);

/// Installs the plugin, and again whenever the configuration changes. Ends with the future only.
///
/// # Errors
/// When the directory does not exist, so that it cannot be watched.
pub async fn watch(
    installation: &Installation,
    program: &Path,
    settings: &Settings,
) -> Result<(), notify::Error> {
    let changed = Arc::new(Notify::new());
    let notifier = Arc::clone(&changed);
    let mut watcher =
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            // Our own reading must not wake us.
            Ok(event) if event.kind.is_access() => {}
            Ok(_) | Err(_) => notifier.notify_one(),
        })?;
    watcher.watch(&installation.configurations, RecursiveMode::NonRecursive)?;
    let mut last = None;
    loop {
        let outcome = match installation.install(program, settings) {
            Ok(true) => Some("weir-cni was put into the network configuration".to_owned()),
            Ok(false) => None,
            Err(error @ InstallError::NoConfiguration(_)) => Some(format!("waiting: {error}")),
            Err(error) => Some(format!("trying again: {error}")),
        };
        if let Some(outcome) = outcome.as_ref().filter(|_| last != outcome) {
            tracing::info!("{outcome}");
        }
        last = outcome;
        // Either way it is time to look.
        let _ = timeout(CHECK, changed.notified()).await;
        sleep(SETTLE).await;
    }
}
