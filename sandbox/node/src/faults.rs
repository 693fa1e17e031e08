//! Faults on purpose, for tests: images that are refused, probes that fail. Empty unless a test asked for one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbox_contract::Refusal;
use tokio::time::Instant;

use crate::image::Reference;
use crate::pod::stop::after;

#[derive(Default)]
pub(crate) struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    refused: BTreeMap<String, Refusal>,
    /// By namespace, until when.
    failing_probes: BTreeMap<String, Instant>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `image` is `repository` (all its tags) or `repository:tag`.
    pub(crate) fn refuse(&self, image: &str, refusal: Refusal) {
        self.lock().refused.insert(image.to_owned(), refusal);
    }

    pub(crate) fn refusal(&self, reference: &Reference) -> Option<Refusal> {
        let name = reference.name_and_tag();
        let refused = &self.lock().refused;
        let repository = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository);
        refused.get(&name).or_else(|| refused.get(repository)).copied()
    }

    pub(crate) fn fail_probes(&self, namespace: &str, time: Duration) {
        self.lock().failing_probes.insert(namespace.to_owned(), after(time));
    }

    /// The failure that every probe of this namespace has now.
    pub(crate) fn of_probe(&self, namespace: &str) -> Option<String> {
        let until = self.lock().failing_probes.get(namespace).copied();
        until.filter(|until| Instant::now() < *until).map(|_| "a fault on purpose: not yet".to_owned())
    }

    pub(crate) fn clear(&self) {
        *self.lock() = State::default();
    }
}
