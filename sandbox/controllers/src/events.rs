//! Events: recorded off the controllers' path, repeated ones counted.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

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
