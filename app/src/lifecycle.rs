//! Loading → ready → draining, and the predictions that were accepted.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::ApiError;
use crate::inference::Inference;

/// Where the process stands.
#[derive(Clone, Default)]
enum Phase {
    #[default]
    Loading,
    Ready(Arc<Inference>),
    /// SIGTERM came; predictions are still accepted until the second half.
    Leaving(Arc<Inference>),
    Draining,
}

#[derive(Default)]
pub(crate) struct Lifecycle {
    phase: Mutex<Phase>,
    accepted: watch::Sender<usize>,
}

impl Lifecycle {
    pub(crate) fn ready(&self, inference: Inference) {
        self.change(|phase| match phase {
            Phase::Loading => Phase::Ready(Arc::new(inference)),
            other => other,
        });
    }

    /// From now on `/health` answers 503; predictions are still accepted.
    pub(crate) fn leave(&self) {
        self.change(|phase| match phase {
            Phase::Ready(inference) => Phase::Leaving(inference),
            other => other,
        });
    }

    /// From now on nothing new is accepted.
    pub(crate) fn drain(&self) {
        self.change(|_| Phase::Draining);
    }

    /// Resolves once every accepted prediction has been answered or given up.
    pub(crate) async fn idle(&self) {
        // The sender lives in self, so waiting can't fail.
        let _ = self.accepted.subscribe().wait_for(|accepted| *accepted == 0).await;
    }

    /// What `/health` says.
    pub(crate) fn health(&self) -> Result<Arc<Inference>, ApiError> {
        match self.phase() {
            Phase::Loading => Err(ApiError::ModelNotLoaded),
            Phase::Ready(inference) => Ok(inference),
            Phase::Leaving(_) | Phase::Draining => Err(ApiError::Draining),
        }
    }

    /// Accepts a prediction: the process stays until the guard is dropped.
    pub(crate) fn accept(&self) -> Result<Accepted<'_>, ApiError> {
        // Counted under the lock, so that a drain either sees this prediction or refuses it.
        let phase = self.phase.lock();
        let inference = match &*phase {
            Phase::Loading => return Err(ApiError::ModelNotLoaded),
            Phase::Ready(inference) | Phase::Leaving(inference) => inference.clone(),
            Phase::Draining => return Err(ApiError::Draining),
        };
        self.accepted.send_modify(|accepted| *accepted += 1);
        Ok(Accepted { lifecycle: self, inference })
    }

    pub(crate) fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    fn phase(&self) -> Phase {
        self.phase.lock().clone()
    }

    fn change(&self, step: impl FnOnce(Phase) -> Phase) {
        let mut phase = self.phase.lock();
        *phase = step(std::mem::take(&mut *phase));
    }
}

/// A prediction that was promised an answer.
pub(crate) struct Accepted<'a> {
    lifecycle: &'a Lifecycle,
    pub(crate) inference: Arc<Inference>,
}

impl Drop for Accepted<'_> {
    fn drop(&mut self) {
        self.lifecycle.accepted.send_modify(|accepted| *accepted -= 1);
    }
}
