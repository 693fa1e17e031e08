//! What every controller is: a pass over the cluster, run again when something it looks at has changed.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Pauses before a pass that failed is run again though nothing changed.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// A controller.
pub(crate) trait Controller: Send + 'static {
    /// As it appears in logs.
    const NAME: &'static str;

    /// What wakes it.
    fn changes(&self) -> Arc<Notify>;

    /// Brings the cluster one step nearer to what is asked for. Must do nothing where nothing is to do.
    fn pass(&mut self) -> impl Future<Output = Pass> + Send;
}

/// What came of a pass.
#[derive(Default)]
pub(crate) struct Pass {
    again: Option<Duration>,
    failed: bool,
}

impl Pass {
    /// Asks for another pass after `delay` at the latest, though nothing changes: time itself matters.
    pub(crate) fn after(&mut self, delay: Duration) {
        self.again = Some(self.again.map_or(delay, |again| again.min(delay)));
    }

    /// The same, when there is a reason to.
    pub(crate) fn after_some(&mut self, delay: Option<Duration>) {
        if let Some(delay) = delay {
            self.after(delay);
        }
    }

    /// Records that `what` failed, so that it is tried again. The rest of the pass goes on.
    pub(crate) fn failed(&mut self, what: impl Display, error: &kube::Error) {
        self.failed = true;
        match error {
            // Somebody else was quicker: the watch brings the news.
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => {
                tracing::debug!("{what}: {error}");
            }
            _ => tracing::warn!("{what}: {error}"),
        }
    }
}

/// Runs `controller` in the background for good.
pub(crate) fn start<C: Controller>(tasks: &mut JoinSet<()>, mut controller: C) {
    tasks.spawn(async move {
        let changes = controller.changes();
        let mut retry = FIRST_RETRY;
        loop {
            let pass = controller.pass().await;
            let mut wait = pass.again;
            if pass.failed {
                wait = Some(wait.map_or(retry, |wait| wait.min(retry)));
                retry = (retry * 2).min(LAST_RETRY);
            } else {
                retry = FIRST_RETRY;
            }
            tracing::trace!(controller = C::NAME, ?wait, "pass done");
            match wait {
                Some(wait) => {
                    let _ = tokio::time::timeout(wait, changes.notified()).await;
                }
                None => changes.notified().await,
            }
        }
    });
}

/// The API server's own words, where it answered.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the API server answered with this code.
pub(crate) fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
