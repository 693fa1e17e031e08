//! Events: recorded off the controllers' path, repeated ones counted, old ones removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::control::{Controller, Pass};

/// How long an event lives: kube-apiserver's `--event-ttl`.
const LIFETIME: Duration = Duration::from_secs(3600);
const EXPIRY_PERIOD: Duration = Duration::from_secs(300);
/// How many kinds of event are remembered to be counted instead of repeated, as client-go's correlator does.
const REMEMBERED: usize = 4096;

/// Hands events to a background task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::UnboundedSender<Note>,
}

struct Note {
    about: ObjectReference,
    component: &'static str,
    type_: &'static str,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl Recorder {
    pub(crate) fn start(client: Client, tasks: &mut JoinSet<()>) -> Self {
        let (queue, notes) = mpsc::unbounded_channel();
        tasks.spawn(record(client, notes));
        Self { queue }
    }

    /// Records an event of type Normal.
    pub(crate) fn normal<K>(
        &self,
        component: &'static str,
        about: &K,
        reason: &'static str,
        message: impl Into<String>,
    ) where
        K: Resource<DynamicType = ()>,
    {
        self.send(component, about.object_ref(&()), "Normal", reason, message.into());
    }

    /// Records an event of type Warning.
    pub(crate) fn warning<K>(
        &self,
        component: &'static str,
        about: &K,
        reason: &'static str,
        message: impl Into<String>,
    ) where
        K: Resource<DynamicType = ()>,
    {
        self.send(component, about.object_ref(&()), "Warning", reason, message.into());
    }

    fn send(
        &self,
        component: &'static str,
        about: ObjectReference,
        type_: &'static str,
        reason: &'static str,
        message: String,
    ) {
        // Without a receiver the controllers are being stopped.
        let _ = self.queue.send(Note { about, component, type_, reason, message, at: Timestamp::now() });
    }
}

type Identity = (Option<String>, &'static str, String);

async fn record(client: Client, mut notes: mpsc::UnboundedReceiver<Note>) {
    let mut recorded: HashMap<Identity, (String, i32)> = HashMap::new();
    while let Some(note) = notes.recv().await {
        let namespace = note.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let identity = (note.about.uid.clone(), note.reason, note.message.clone());
        if let Some((name, count)) = recorded.get_mut(&identity) {
            let patch = serde_json::json!({ "count": *count + 1, "lastTimestamp": Time(note.at) });
            if api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                *count += 1;
                continue;
            }
        }
        let event = event(note, &namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if recorded.len() >= REMEMBERED {
                    recorded.clear();
                }
                recorded.insert(identity, (event.metadata.name.unwrap_or_default(), 1));
            }
            // An event tells of something, and is not worth stopping for: its namespace may just be going.
            Err(error) => tracing::debug!(%error, reason = event.reason, "event not recorded"),
        }
    }
}

fn event(note: Note, namespace: &str) -> Event {
    let name = format!("{}.{:x}", note.about.name.as_deref().unwrap_or_default(), note.at.as_nanosecond());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: note.about,
        type_: Some(note.type_.to_owned()),
        reason: Some(note.reason.to_owned()),
        message: Some(note.message),
        count: Some(1),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource { component: Some(note.component.to_owned()), host: None }),
        reporting_component: Some(note.component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}

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
        let all: Api<Event> = Api::all(self.cluster.client.clone());
        let events = match all.list(&ListParams::default()).await {
            Ok(events) => events,
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
