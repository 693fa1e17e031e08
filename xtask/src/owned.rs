//! Which pods are the app's. Labels alone don't say: another team's pods may carry them too. The app's are those whose
//! ReplicaSet belongs to the Deployment, by uid.

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::ListParams;
use kube::core::Selector;

use crate::commands::Advice;
use crate::failure::Attach as _;
use crate::kubernetes::Api;

/// The field manager of everything that this tool writes.
pub const FIELD_MANAGER: &str = "xtask";

/// What is watched: the app in its cluster.
#[derive(Clone)]
pub struct Watched {
    /// The cluster's API.
    pub client: Client,
    /// Kind and context of the cluster, in words.
    pub cluster: String,
    /// Where the app lives.
    pub namespace: String,
    /// Its Deployment.
    pub deployment: String,
    /// The labels of its pods: others may have them too.
    pub selector: String,
    /// Whether the ingress controller is ingress-nginx, where its addons put it.
    pub nginx: bool,
    /// Base URL of the ingress.
    pub entry: String,
    /// The Host header to send there.
    pub host: String,
}

/// A Deployment as the owner of pods.
pub struct Owner {
    replica_sets: Api<ReplicaSet>,
    pods: Api<Pod>,
    uid: String,
    /// The Deployment's own selector: its pods are among what this selects.
    pub selector: String,
}

/// The controller that an object belongs to.
pub fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

impl Owner {
    /// Looks at the Deployment.
    ///
    /// # Errors
    /// When it is not there, or its selector can't be computed.
    pub async fn of(client: &Client, namespace: &str, name: &str) -> Result<Owner> {
        Owner::find(client, namespace, name)
            .await?
            .ok_or_else(|| anyhow!("there is no deployment/{name} in namespace {namespace}"))
            .hint(Advice::Xtask("up", "makes it"))
    }

    /// Looks at the Deployment, if it is there.
    ///
    /// # Errors
    /// When its selector can't be computed.
    pub async fn find(client: &Client, namespace: &str, name: &str) -> Result<Option<Owner>> {
        let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let found = api.get_opt(name).await.with_context(|| format!("looking for deployment/{name}"))?;
        let Some(deployment) = found else { return Ok(None) };
        let selector = deployment.spec.map(|spec| spec.selector).unwrap_or_default();
        let selector = Selector::try_from(selector)
            .with_context(|| format!("reading the selector of deployment/{name}"))?;
        if selector.selects_all() {
            return Err(anyhow!(
                "the selector of deployment/{name} is empty: its pods can't be told from others"
            ));
        }
        Ok(Some(Owner {
            replica_sets: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            uid: deployment.metadata.uid.context("the Deployment has no uid")?,
            selector: selector.to_string(),
        }))
    }

    /// All its pods.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let selected = ListParams::default().labels(&self.selector);
        let sets = self.replica_sets.list(&selected).await.context("listing the app's ReplicaSets")?.items;
        let sets: Vec<_> = sets.iter().filter(|set| self.is_controller(&set.metadata)).collect();
        let mut pods = self.pods.list(&selected).await.context("listing the app's pods")?.items;
        pods.retain(|pod| {
            let set = controller(&pod.metadata).map(|owner| owner.uid.as_str());
            set.is_some() && sets.iter().any(|known| known.metadata.uid.as_deref() == set)
        });
        Ok(pods)
    }

    /// Whether a pod is one of its, by what is said of whom it belongs to.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn owns(&self, pod: &ObjectMeta) -> Result<bool> {
        let Some(owner) = controller(pod).filter(|owner| owner.kind == "ReplicaSet") else {
            return Ok(false);
        };
        let set = self.replica_sets.get_opt(&owner.name).await.context("looking for the pod's ReplicaSet")?;
        Ok(set.is_some_and(|set| {
            set.metadata.uid.as_deref() == Some(&owner.uid) && self.is_controller(&set.metadata)
        }))
    }

    fn is_controller(&self, metadata: &ObjectMeta) -> bool {
        controller(metadata).is_some_and(|owner| owner.uid == self.uid)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::gates::tests::Server;

    fn owned_by(kind: &str, name: &str, uid: &str) -> Value {
        json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
    }

    /// A Deployment with its ReplicaSet and a pod, all of the same labels as any other.
    async fn deployed(server: &Server, name: &str) -> Deployment {
        let labels = json!({"app": "web"});
        let template =
            json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let selector = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]});
        let deployment: Deployment = server
            .create(
                "default",
                json!({"metadata": {"name": name}, "spec": {"selector": selector, "template": template}}),
            )
            .await;
        let owner = owned_by("Deployment", name, &deployment.uid().expect("a uid"));
        let set: ReplicaSet = server
            .create(
                "default",
                json!({
                    "metadata": {"name": format!("{name}-1"), "labels": labels, "ownerReferences": owner},
                    "spec": {"selector": {"matchLabels": labels}, "template": template},
                }),
            )
            .await;
        let owner = owned_by("ReplicaSet", &set.name_any(), &set.uid().expect("a uid"));
        pod(server, &format!("{name}-1-a"), owner).await;
        deployment
    }

    async fn pod(server: &Server, name: &str, owners: Value) {
        let metadata = json!({"name": name, "labels": {"app": "web"}, "ownerReferences": owners});
        let spec = json!({"containers": [{"name": "c", "image": "i"}]});
        let _: Pod = server.create("default", json!({"metadata": metadata, "spec": spec})).await;
    }

    /// `load --during pod-kill` takes its victim from these, `smoke` whom it asks, `logs` whom it shows.
    #[tokio::test]
    async fn a_pod_of_the_same_labels_is_the_apps_only_if_its_replica_set_is() {
        let server = Server::start();
        deployed(&server, "web").await;
        deployed(&server, "another-teams").await;
        pod(&server, "by-hand", json!([])).await;
        // The name of the app's ReplicaSet, and another's identity.
        pod(&server, "of-an-earlier-one", owned_by("ReplicaSet", "web-1", "gone")).await;
        pod(&server, "of-a-job", owned_by("Job", "web-1", "job")).await;
        let owner = Owner::of(&server.client, "default", "web").await.expect("the Deployment");
        let own = owner.pods().await.expect("its pods");
        assert_eq!(own.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>(), ["web-1-a"]);
        let pods: Api<Pod> = Api::namespaced(server.client.clone(), "default");
        let all = pods.list(&ListParams::default()).await.expect("all pods").items;
        assert_eq!(all.len(), 5);
        for pod in all {
            assert_eq!(
                owner.owns(&pod.metadata).await.expect("an answer"),
                pod.name_any() == "web-1-a",
                "{}",
                pod.name_any()
            );
        }
    }
}
