//! Events, as Kubernetes' own components write them: one object for each thing that happens, its count raised when it
//! happens again.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

/// Events that wait to be written; what comes while it is full is dropped, as client-go does.
const QUEUE: usize = 1000;
/// How many distinct events are remembered for counting.
const REMEMBERED: usize = 4096;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// It is.
    Normal,
    /// It is not.
    Warning,
}

/// Takes events without making who reports them wait. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

struct Occurrence {
    component: &'static str,
    about: ObjectReference,
    severity: Severity,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// A recorder, and the work of writing what it takes, which ends with its last clone. `host` is the node that all
    /// of it comes from.
    pub fn new(
        client: Client,
        host: Option<String>,
    ) -> (Recorder, impl Future<Output = ()> + Send + 'static) {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        (Recorder { queue }, write(client, host, occurrences))
    }

    /// Records that something happened.
    pub fn record(
        &self,
        component: &'static str,
        about: ObjectReference,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let (message, at) = (message.into(), Timestamp::now());
        let occurrence = Occurrence { component, about, severity, reason, message, at };
        if self.queue.try_send(occurrence).is_err() {
            tracing::debug!(reason, "event dropped");
        }
    }

    /// Records an event of type Normal.
    pub fn normal<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        about: &K,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(component, about.object_ref(&()), Severity::Normal, reason, message);
    }

    /// Records an event of type Warning.
    pub fn warning<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        about: &K,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(component, about.object_ref(&()), Severity::Warning, reason, message);
    }
}

/// By what an event is the same again.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    component: &'static str,
    uid: Option<String>,
    field: Option<String>,
    severity: Severity,
    reason: &'static str,
    message: String,
}

async fn write(client: Client, host: Option<String>, mut occurrences: mpsc::Receiver<Occurrence>) {
    let mut written: HashMap<Identity, (String, i32)> = HashMap::new();
    while let Some(occurrence) = occurrences.recv().await {
        if written.len() >= REMEMBERED {
            written.clear();
        }
        let Occurrence { component, about, severity, reason, message, at } = occurrence;
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let identity = Identity {
            component,
            uid: about.uid.clone(),
            field: about.field_path.clone(),
            severity,
            reason,
            message: message.clone(),
        };
        if let Some((name, count)) = written.get_mut(&identity) {
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
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), at.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(format!("{severity:?}")),
            reason: Some(reason.to_owned()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(Time(at)),
            last_timestamp: Some(Time(at)),
            source: Some(EventSource { component: Some(component.to_owned()), host: host.clone() }),
            reporting_component: Some(component.to_owned()),
            reporting_instance: Some(host.clone().unwrap_or_default()),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                written.insert(identity, (name, 1));
            }
            // It is not worth stopping for: its namespace may just be going.
            Err(error) => tracing::debug!(reason, "writing an event: {error}"),
        }
    }
}
