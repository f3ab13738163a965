//! The one loop that owns time, tasks and shutdown.

use crate::config::RunConfig;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: RunConfig) -> Result<(), RunError> {
    config.cgroup_root()?;
    Ok(())
}
