//! Events, as the kubelet writes them: one object for each thing that happens, its count raised when it happens again.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

/// Events that wait to be written; what comes while it is full is dropped, as the kubelet does.
const QUEUE: usize = 1000;
/// How many distinct events are remembered for counting.
const REMEMBERED: usize = 4096;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// Writes events without making who reports them wait.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

struct Occurrence {
    regarding: ObjectReference,
    severity: Severity,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// Starts the task that writes; it ends with the last clone of the recorder.
    pub(crate) fn start(client: kube::Client, node_name: &str) -> Recorder {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, node_name.to_owned(), occurrences));
        Recorder { queue }
    }

    pub(crate) fn record(
        &self,
        regarding: ObjectReference,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let occurrence = Occurrence { regarding, severity, reason, message, at: Timestamp::now() };
        if self.queue.try_send(occurrence).is_err() {
            tracing::debug!(reason, "event dropped");
        }
    }
}

type Key = (Option<String>, Option<String>, Severity, &'static str, String);

async fn write(client: kube::Client, node_name: String, mut occurrences: mpsc::Receiver<Occurrence>) {
    let mut counts: HashMap<Key, (String, i32)> = HashMap::new();
    while let Some(occurrence) = occurrences.recv().await {
        if counts.len() >= REMEMBERED {
            counts.clear();
        }
        let Occurrence { regarding, severity, reason, message, at } = occurrence;
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let key = (regarding.uid.clone(), regarding.field_path.clone(), severity, reason, message.clone());
        if let Some((name, count)) = counts.get_mut(&key) {
            *count += 1;
            let patch = json!({ "count": *count, "lastTimestamp": Time(at) });
            match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => continue,
                // Removed meanwhile: written anew below.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::debug!(reason, "counting an event: {error}");
                    continue;
                }
            }
        }
        let name = format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), at.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: regarding,
            type_: Some(format!("{severity:?}")),
            reason: Some(reason.to_owned()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(Time(at)),
            last_timestamp: Some(Time(at)),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(node_name.clone()) }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(node_name.clone()),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                counts.insert(key, (name, 1));
            }
            Err(error) => tracing::debug!(reason, "writing an event: {error}"),
        }
    }
}
