//! The ReplicaSet of the current template: found or created, with its revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::Patch;

use super::{COMPONENT, DESIRED, HASH_LABEL, MAXIMUM, REVISION, REVISION_HISTORY, Rollout, template};
use crate::control::{has_code, message};
use crate::replica_set::owner_reference;

/// Annotations of a Deployment that are about itself and not about its template.
const NOT_COPIED: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAXIMUM];

impl Rollout<'_> {
    /// The new set if there is one, with its annotations and the Deployment's revision brought up to date.
    pub(super) async fn find_new_set(&mut self) -> kube::Result<Option<Arc<ReplicaSet>>> {
        let Some(set) = self.new_set() else { return Ok(None) };
        let mut updated = (*set).clone();
        updated.metadata.annotations = Some(self.annotations(set.annotations()));
        if let Some(spec) = &mut updated.spec
            && spec.min_ready_seconds.unwrap_or_default() != self.spec.min_ready_seconds.unwrap_or_default()
        {
            spec.min_ready_seconds = self.spec.min_ready_seconds;
        }
        if updated.annotations() != set.annotations() || updated.spec != set.spec {
            self.cluster.replace(&self.cluster.replica_sets, &updated).await?;
        }
        let revision = updated.annotations().get(REVISION).cloned();
        self.set_revision(revision).await?;
        if self.has_deadline() && self.condition("Progressing").is_none() {
            let message = format!("Found new replica set \"{}\"", set.name_any());
            self.set_condition("Progressing", "True", "FoundNewReplicaSet", message);
        }
        Ok(self.new_set())
    }

    /// The new set, created if it is not there.
    pub(super) async fn ensure_new_set(&mut self) -> kube::Result<Arc<ReplicaSet>> {
        if let Some(set) = self.find_new_set().await? {
            return Ok(set);
        }
        let replicas = self.new_set_replicas(0);
        let wanted = self.build_new_set(replicas);
        let created = match self.cluster.create(&self.cluster.replica_sets, &wanted).await {
            Ok(created) => created,
            Err(error) => {
                // Another template has the same hash: the next pass tries the next one.
                if has_code(&error, 409) {
                    self.collisions = Some(self.collisions.unwrap_or_default() + 1);
                }
                let message = format!(
                    "Failed to create new replica set \"{}\": {}",
                    wanted.name_any(),
                    message(&error)
                );
                if self.has_deadline() {
                    self.set_condition("Progressing", "False", "ReplicaSetCreateError", message.clone());
                }
                self.cluster.events.warning(COMPONENT, &*self.deployment, "ReplicaSetCreateError", message);
                return Err(error);
            }
        };
        let name = created.name_any();
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.cluster.events.normal(COMPONENT, &*self.deployment, "ScalingReplicaSet", message);
        }
        self.set_revision(created.annotations().get(REVISION).cloned()).await?;
        if self.has_deadline() {
            let message = format!("Created new replica set \"{name}\"");
            self.set_condition("Progressing", "True", "NewReplicaSetCreated", message);
        }
        Ok(Arc::new(created))
    }

    fn build_new_set(&self, replicas: i32) -> ReplicaSet {
        let mut template = self.spec.template.clone();
        let hash = template::hash(&template, self.collisions);
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
        let mut annotations = self.annotations(&BTreeMap::new());
        annotations.insert(DESIRED.to_owned(), self.replicas.to_string());
        annotations.insert(MAXIMUM.to_owned(), (self.replicas + self.max_surge()).to_string());
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", self.deployment.name_any())),
                namespace: self.deployment.namespace(),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![owner_reference(&*self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }

    /// The set's annotations with the Deployment's own and the next revision.
    fn annotations(&self, old: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut annotations = old.clone();
        let own = self.deployment.annotations().iter().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
        annotations.extend(own.map(|(key, value)| (key.clone(), value.clone())));
        let highest =
            self.old_sets().iter().map(|set| template::revision(set.annotations())).max().unwrap_or_default();
        let former = template::revision(old);
        if former <= highest {
            annotations.insert(REVISION.to_owned(), (highest + 1).to_string());
            if former > 0 {
                let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
                if !history.is_empty() {
                    history.push(',');
                }
                history.push_str(&former.to_string());
            }
        }
        annotations
    }

    async fn set_revision(&mut self, revision: Option<String>) -> kube::Result<()> {
        let Some(revision) = revision else { return Ok(()) };
        if self.deployment.annotations().get(REVISION) == Some(&revision) {
            return Ok(());
        }
        let uid = self.deployment.uid();
        let patch = serde_json::json!({ "metadata": { "uid": uid, "annotations": { REVISION: revision } } });
        let api = self.cluster.api::<Deployment>(&self.deployment.namespace().unwrap_or_default());
        // By way of the status, as Kubernetes does it: it does not count as a new generation there.
        let written = api.patch_status(&self.deployment.name_any(), &Patch::Merge(patch)).await?;
        self.cluster.deployments.observe(written);
        Ok(())
    }
}
