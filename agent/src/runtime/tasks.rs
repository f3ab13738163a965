//! The agent's tasks: they end together.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::RunError;

/// Longest that tasks get to end.
const GRACE: Duration = Duration::from_secs(5);

/// Tasks, the token that ends them, and the first failure.
pub(super) struct Tasks {
    /// Cancelled when the agent is to end.
    pub(super) token: CancellationToken,
    tracker: TaskTracker,
    failures: (
        mpsc::UnboundedSender<RunError>,
        mpsc::UnboundedReceiver<RunError>,
    ),
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
            failures: mpsc::unbounded_channel(),
        }
    }

    /// Starts a task that should last as long as the agent.
    pub(super) fn start(
        &self,
        what: &'static str,
        task: impl Future<Output = Result<(), RunError>> + Send + 'static,
    ) {
        let task = self.tracker.spawn(task);
        let failures = self.failures.0.clone();
        let token = self.token.clone();
        self.tracker.spawn(async move {
            let error = match task.await {
                Ok(Ok(())) if token.is_cancelled() => return,
                Ok(Ok(())) => RunError::Ended(what),
                Ok(Err(error)) => error,
                Err(source) => RunError::Panic { what, source },
            };
            // Nobody listens any more when the agent is ending already.
            let _ = failures.send(error);
        });
    }

    /// Waits for the first task that fails.
    pub(super) async fn failure(&mut self) -> RunError {
        match self.failures.1.recv().await {
            Some(error) => error,
            // Not while this has a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Ends all tasks.
    pub(super) async fn stop(self) {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout(GRACE, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("some tasks do not end; leaving them behind");
        }
    }
}
