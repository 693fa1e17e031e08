//! Old events go.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams};
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::control::{Controller, Pass};
use crate::objects::Objects;

/// How long an event lives: kube-apiserver's `--event-ttl`.
const LIFETIME: Duration = Duration::from_secs(3600);
const EXPIRY_PERIOD: Duration = Duration::from_secs(300);

/// Removes events an hour after they were last seen.
pub(crate) struct Expiry {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
}

impl Expiry {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        Self { cluster: Arc::clone(cluster), changes: Arc::default() }
    }
}

impl Controller for Expiry {
    const NAME: &'static str = "event-expiry";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        pass.after(EXPIRY_PERIOD);
        let events =
            match Objects::<Event>::all(self.cluster.client.clone()).list(&ListParams::default()).await {
                Ok((events, _)) => events,
                Err(error) => {
                    pass.failed("listing events", &error);
                    return pass;
                }
            };
        let now = Timestamp::now();
        for event in events {
            let (Some(namespace), Some(name)) = (&event.metadata.namespace, &event.metadata.name) else {
                continue;
            };
            if expired(&event, now)
                && let Err(error) =
                    self.cluster.api::<Event>(namespace).delete(name, &DeleteParams::default()).await
            {
                pass.failed(format_args!("deleting event {namespace}/{name}"), &error);
            }
        }
        pass
    }
}

fn expired(event: &Event, now: Timestamp) -> bool {
    let series =
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let times = [
        series,
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
    ];
    let last = times.into_iter().flatten().max();
    last.is_some_and(|last| {
        now.duration_since(last) > jiff::SignedDuration::from_secs(LIFETIME.as_secs().cast_signed())
    })
}
