//! What every request handler shares.

use std::sync::{Arc, OnceLock};

use http::header;
use parking_lot::Mutex;
use sandbox_contract::Kubelet;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::faults::Faults;
use crate::namespaces;
use crate::status::ApiError;
use crate::store::Store;

/// What every request handler shares.
pub(crate) struct Api {
    pub(crate) store: Store,
    token_digest: [u8; 32],
    kubelet: OnceLock<Arc<dyn Kubelet>>,
    pub(crate) faults: OnceLock<Arc<Faults>>,
    closing: Mutex<CancellationToken>,
}

impl Api {
    /// An empty store with the namespaces every cluster has.
    pub(crate) fn new(token: &str) -> Api {
        let store = Store::new();
        namespaces::create_initial(&store);
        Api {
            store,
            token_digest: digest(token),
            kubelet: OnceLock::new(),
            faults: OnceLock::new(),
            closing: Mutex::default(),
        }
    }

    /// Connects the node. False: one is connected already.
    pub(crate) fn connect(&self, kubelet: Arc<dyn Kubelet>) -> bool {
        self.kubelet.set(kubelet).is_ok()
    }

    /// A new serving begins; the token ends it.
    pub(crate) fn open(&self) -> CancellationToken {
        let closing = CancellationToken::new();
        *self.closing.lock() = closing.clone();
        closing
    }

    /// Cancelled when the serving ends: watches and log streams end then.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.lock().clone()
    }

    /// The node, or the 503 that says it is not there yet.
    pub(crate) fn kubelet(&self) -> Result<Arc<dyn Kubelet>, ApiError> {
        self.kubelet.get().cloned().ok_or_else(|| ApiError::unavailable("the node agent has not started yet"))
    }

    /// Compares digests, so that the time it takes says nothing about the token.
    pub(crate) fn authorized(&self, headers: &http::HeaderMap) -> bool {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
        bearer.is_some_and(|token| digest(token.trim()) == self.token_digest)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
