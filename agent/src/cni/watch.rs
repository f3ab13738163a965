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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cni::{PLUGIN, WhenAgentIsDown};

    /// Longer than a busy machine takes, shorter than the watch waits without a notice.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "current_thread")]
    async fn the_plugin_comes_with_the_configuration_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let installation = Installation {
            configurations: dir.path().join("net.d"),
            plugins: dir.path().join("bin"),
        };
        fs::create_dir(&installation.configurations).unwrap();
        let program = dir.path().join("weir");
        fs::write(&program, "program").unwrap();
        let settings = Settings {
            run_dir: "/run/weir".into(),
            wait_seconds: 1,
            when_agent_is_down: WhenAgentIsDown::Fail,
        };
        let list = installation.configurations.join("10-pods.conflist");
        let rewriting = async {
            for kind in ["ptp", "bridge"] {
                let text = format!(r#"{{"name":"pods","plugins":[{{"type":"{kind}"}}]}}"#);
                fs::write(&list, text).unwrap();
                loop {
                    let text = fs::read_to_string(&list).unwrap();
                    if text.contains(PLUGIN) {
                        assert!(text.contains(kind), "{text}");
                        break;
                    }
                    sleep(Duration::from_millis(10)).await;
                }
            }
        };
        tokio::select! {
            ended = watch(&installation, &program, &settings) => panic!("{ended:?}"),
            done = timeout(PATIENCE, rewriting) => done.unwrap(),
        }
    }
}
