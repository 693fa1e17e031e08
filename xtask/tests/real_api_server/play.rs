//! The controllers' part: objects made as they make them, status written as they write it.

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xtask::gates::rollout::Rollout;
use xtask::image::Digests;

use crate::servers::Server;

pub(crate) const ID: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

impl Server {
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn make<K>(&self, namespace: &str, value: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        self.api(namespace).create(&PostParams::default(), &object(value)).await.expect("making an object")
    }

    pub(crate) async fn status<K>(&self, namespace: &str, name: &str, status: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let patch = Patch::Merge(json!({"status": status}));
        self.api::<K>(namespace)
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .expect("writing a status");
    }
}

/// A Deployment, its ReplicaSet and pods, nothing of which runs.
pub(crate) struct Play<'s> {
    pub(crate) server: &'s Server,
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) pods: Vec<String>,
}

impl<'s> Play<'s> {
    pub(crate) async fn begin(
        server: &'s Server,
        namespace: &'static str,
        name: &'static str,
        replicas: usize,
    ) -> Play<'s> {
        server.namespace(namespace).await;
        let labels = json!({"app": name, "app.kubernetes.io/component": "controller"});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{
            "name": "web", "image": "web:new",
            "startupProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1,
            "failureThreshold": 90},
        }]}});
        let selector = json!({"matchLabels": {"app": name}});
        let deployment: Deployment = server
            .make(
                namespace,
                json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": selector,
                    "template": template}}),
            )
            .await;
        let owner = |kind: &str, name: String, uid: Option<String>| {
            json!([{"apiVersion": "apps/v1",
            "kind": kind, "name": name, "uid": uid, "controller": true}])
        };
        let mut defaulted =
            serde_json::to_value(&deployment.spec.as_ref().expect("a spec").template).expect("JSON");
        defaulted["metadata"]["labels"]["pod-template-hash"] = "h".into();
        let set: ReplicaSet = server
            .make(
                namespace,
                json!({
                    "metadata": {
                        "name": format!("{name}-h"), "labels": defaulted["metadata"]["labels"],
                        "annotations": {"deployment.kubernetes.io/revision": "1"},
                        "ownerReferences": owner("Deployment", name.to_owned(), deployment.uid()),
                    },
                    "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name,
                    "pod-template-hash": "h"}}, "template": defaulted},
                }),
            )
            .await;
        let mut play = Play { server, namespace, name, pods: Vec::new() };
        for n in 0..replicas {
            let pod: Pod = server
                .make(
                    namespace,
                    json!({
                        "metadata": {
                            "name": format!("{name}-h-{n}"), "labels": defaulted["metadata"]["labels"],
                            "ownerReferences": owner("ReplicaSet", set.name_any(), set.uid()),
                        },
                        "spec": template["spec"],
                    }),
                )
                .await;
            play.pods.push(pod.name_any());
        }
        play.count(0).await;
        play
    }

    pub(crate) fn target(&self) -> Rollout {
        Rollout {
            namespace: self.namespace.into(),
            deployment: self.name.into(),
            digests: Digests::new([ID]),
            image: "web:new".into(),
            ..Rollout::default()
        }
    }

    pub(crate) async fn count(&self, available: usize) {
        let all = self.pods.len();
        let status = json!({"observedGeneration": 1, "replicas": all, "updatedReplicas": all,
            "readyReplicas": available, "availableReplicas": available});
        let counts = json!({"observedGeneration": 1, "replicas": all, "readyReplicas": available,
            "availableReplicas": available});
        let set = format!("{}-h", self.name);
        self.server.status::<ReplicaSet>(self.namespace, &set, counts).await;
        self.server.status::<Deployment>(self.namespace, self.name, status).await;
    }

    pub(crate) async fn ready(&self, pod: &str) {
        let status = json!({
            "phase": "Running", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "web", "image": "web:new", "imageID": ID, "ready": true, "started": true,
                "restartCount": 0,
                "state": {"running": {"startedAt": whole(Timestamp::now())}},
            }],
        });
        self.server.status::<Pod>(self.namespace, pod, status).await;
    }

    pub(crate) async fn complete(&self) {
        for pod in &self.pods {
            self.ready(pod).await;
        }
        self.count(self.pods.len()).await;
    }
}

/// A time as `metav1.Time` is written: whole seconds.
pub(crate) fn whole(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
