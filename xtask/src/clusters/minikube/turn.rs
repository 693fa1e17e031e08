//! One change of a profile at a time. Each of minikube's changing commands reads the profile, works for seconds to
//! minutes, then writes all of it back: of two at once, one is lost.

use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Minikube;
use crate::cx::Cx;
use crate::pipeline::Running;

/// A file lock can't be waited for without a thread; this is how often another run's is tried.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// The right to change a profile, for as long as it is held: first come, first served within this run, and against
/// other runs by a lock on a file beside the kubeconfig.
pub(super) struct Turn {
    _file: File,
    _here: OwnedMutexGuard<()>,
}

impl Minikube {
    /// Waits for the turn.
    pub(super) async fn turn(&self, cx: &Cx, step: &Running<'_>) -> Result<Turn> {
        cx.unless_stopped(async {
            let here = Arc::clone(&self.changes);
            let here = match Arc::clone(&here).try_lock_owned() {
                Ok(here) => here,
                Err(_) => {
                    step.at("this run is already changing the profile");
                    Mutex::lock_owned(here).await
                }
            };
            let path = self.folder.join("lock");
            let file = self
                .make_folder()
                .and_then(|()| Ok(File::options().create(true).append(true).open(&path)?))
                .with_context(|| format!("opening {}", path.display()))?;
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(Turn { _file: file, _here: here }),
                    Err(TryLockError::WouldBlock) => {
                        step.at("another run is changing the profile");
                        tokio::time::sleep(TRY_EVERY).await;
                    }
                    Err(TryLockError::Error(error)) => {
                        return Err(error).with_context(|| format!("locking {}", path.display()));
                    }
                }
            }
        })
        .await
    }
}
