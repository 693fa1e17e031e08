//! A snapshot sorted: which ReplicaSet is the newest, whose pods are whose, which image they run.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};
use serde_json::Value;

use super::super::pod;
use super::{Rollout, Snapshot};
use crate::image::short_id;
use crate::kubernetes::{self, Condition};
use crate::owned::controller;

const REVISION: &str = "deployment.kubernetes.io/revision";
/// The label by which the controller tells its ReplicaSets apart; not part of the template proper.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The parts of a snapshot that concern one Deployment.
pub(in crate::gates) struct View<'s> {
    pub(in crate::gates) deployment: &'s Deployment,
    /// The ReplicaSet of the Deployment's present template.
    pub(super) newest: Option<&'s ReplicaSet>,
    /// Its live pods, oldest first.
    pub(in crate::gates) newest_pods: Vec<&'s Pod>,
    /// Live pods that the Deployment selects and that are not the newest's.
    pub(in crate::gates) old_pods: Vec<&'s Pod>,
    /// Pods that are being deleted.
    pub(in crate::gates) terminating: Vec<&'s Pod>,
}

impl<'s> View<'s> {
    pub(in crate::gates) fn of(s: &'s Snapshot, deployment: &'s Deployment) -> View<'s> {
        let newest = newest(s, deployment);
        let newest_uid = newest.and_then(|set| set.metadata.uid.as_deref());
        let selector =
            deployment.spec.as_ref().and_then(|spec| Selector::try_from(spec.selector.clone()).ok());
        let selects = |pod: &Pod| selector.as_ref().is_some_and(|selector| selector.matches(pod.labels()));
        let mut view = View {
            deployment,
            newest,
            newest_pods: Vec::new(),
            old_pods: Vec::new(),
            terminating: Vec::new(),
        };
        for pod in s.pods.values() {
            let owner = owner(&pod.metadata);
            let is_newest = newest_uid.is_some() && owner == newest_uid;
            // A pod that no ReplicaSet owns, or one of another Deployment, is somebody's own affair. A ReplicaSet that
            // is gone says nothing: its pods are on their way out.
            let set = owner
                .and_then(|uid| s.replica_sets.values().find(|set| set.metadata.uid.as_deref() == Some(uid)));
            let is_anothers = set.is_some_and(|set| {
                self::owner(&set.metadata).is_some_and(|uid| Some(uid) != deployment.metadata.uid.as_deref())
            });
            if !is_newest && (owner.is_none() || is_anothers || !selects(pod)) {
                continue;
            }
            if pod.metadata.deletion_timestamp.is_some() {
                view.terminating.push(pod);
            } else if pod::is_over(pod) {
                // Replaced by its ReplicaSet, and kept for reading only.
            } else if is_newest {
                view.newest_pods.push(pod);
            } else {
                view.old_pods.push(pod);
            }
        }
        view.newest_pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        view
    }

    /// Whether the controller has seen the Deployment as it is now.
    pub(super) fn is_caught_up(&self) -> bool {
        let observed = self.deployment.status.as_ref().and_then(|status| status.observed_generation);
        observed.unwrap_or(0) >= self.deployment.metadata.generation.unwrap_or(0)
    }

    pub(super) fn condition(&self, name: &str) -> Option<Condition<'s>> {
        kubernetes::find(self.deployment.status.as_ref()?.conditions.as_ref(), name)
    }

    /// Whether a pause holds the newest template back; the scaling of the present one it does not.
    pub(in crate::gates) fn is_held(&self) -> bool {
        let is_paused = self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        let status = self.deployment.status.as_ref();
        let has_begun = status.is_some_and(|status| status.updated_replicas.is_some());
        is_paused && (self.newest.is_none() || !self.old_pods.is_empty() || !has_begun)
    }

    /// How many pods the Deployment asks for.
    pub(in crate::gates) fn wanted(&self) -> i32 {
        self.deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// The images that the template names.
    pub(super) fn images(&self) -> impl Iterator<Item = &'s str> {
        let template = self.deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        template
            .into_iter()
            .flat_map(|pod| &pod.containers)
            .filter_map(|container| container.image.as_deref())
    }
}

fn owner(metadata: &ObjectMeta) -> Option<&str> {
    controller(metadata).map(|owner| owner.uid.as_str())
}

/// The revision that the controller counted.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(REVISION)).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// By the controller's own rule: the oldest of the Deployment's ReplicaSets with its template. The revision alone would
/// name an old one while a Recreate waits for the old pods to end.
fn newest<'s>(s: &'s Snapshot, deployment: &Deployment) -> Option<&'s ReplicaSet> {
    let uid = deployment.metadata.uid.as_deref()?;
    let template = &deployment.spec.as_ref()?.template;
    let mut own: Vec<_> = s.replica_sets.values().filter(|set| owner(&set.metadata) == Some(uid)).collect();
    own.sort_by_key(|set| set.metadata.creation_timestamp.clone());
    let find = |is_same: &dyn Fn(&PodTemplateSpec) -> bool| {
        own.iter().find(|set| set.spec.as_ref().and_then(|spec| spec.template.as_ref()).is_some_and(is_same))
    };
    // The controller has copied it: it is the same word for word, unless something empty was put in or taken out since.
    let newest = find(&|of_set| is_copy(of_set, template)).or_else(|| {
        let template = bare(template);
        find(&|of_set| bare(of_set) == template)
    });
    newest.copied()
}

/// Whether the template of a ReplicaSet is that of a Deployment, with the hash.
fn is_copy(of_set: &PodTemplateSpec, template: &PodTemplateSpec) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        metadata.labels.get_or_insert_default().remove(TEMPLATE_HASH);
        metadata
    };
    without_hash(of_set) == without_hash(template) && of_set.spec == template.spec
}

/// What the controller compares of a template: not its hash, and nothing that is empty.
fn bare(template: &PodTemplateSpec) -> Value {
    // A template is plain data and always serialises.
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    drop_empty(&mut value);
    value
}

/// Takes out what is empty; whether `value` is so itself.
fn drop_empty(value: &mut Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => {
            for item in items.iter_mut() {
                drop_empty(item);
            }
            items.is_empty()
        }
        Value::Object(fields) => {
            fields.retain(|_, field| !drop_empty(field));
            fields.is_empty()
        }
        _ => false,
    }
}

/// What a pod runs, beside what it should.
#[derive(Debug, PartialEq)]
pub(super) enum Runs {
    /// The built image.
    Built,
    /// The node has not said yet.
    Unknown,
    /// Another: which, and what was compared.
    Other(String),
}

/// Compares what a pod runs with the image that was built; `images` are those that the template names.
pub(super) fn runs(target: &Rollout, pod: &Pod) -> Runs {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let built = containers
        .filter(|container| target.image.is_empty() || container.image.as_ref() == Some(&target.image));
    let mut any = false;
    for container in built {
        any = true;
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let Some(status) = statuses.into_iter().find(|status| status.name == container.name) else {
            return Runs::Unknown;
        };
        if status.image_id.is_empty() {
            return Runs::Unknown;
        }
        if !target.digests.is_empty() && !target.digests.contains(&status.image_id) {
            return Runs::Other(format!("{}, not the built {}", short_id(&status.image_id), target.digests));
        }
    }
    if any { Runs::Built } else { Runs::Other(format!("no container of image {}", target.image)) }
}
