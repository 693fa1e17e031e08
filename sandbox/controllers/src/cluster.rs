//! What the controllers see of the cluster, and how they write to it.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::Patch;
use kube::{Client, Resource, ResourceExt as _};
use sandbox_events::Recorder;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::objects::{Object, Objects};

/// The caches that the controllers share, the client and the event recorder.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) events: Recorder,
    pub(crate) api_services: Cache<APIService>,
    pub(crate) autoscalers: Cache<HorizontalPodAutoscaler>,
    pub(crate) budgets: Cache<PodDisruptionBudget>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) endpoints: Cache<Endpoints>,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) pods: Cache<Pod>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) service_accounts: Cache<ServiceAccount>,
    pub(crate) services: Cache<Service>,
    pub(crate) slices: Cache<EndpointSlice>,
}

impl Cluster {
    /// Starts the watches.
    pub(crate) fn start(client: Client, tasks: &mut JoinSet<()>) -> Arc<Self> {
        let (events, writing) = Recorder::new(client.clone(), None);
        tasks.spawn(writing);
        Arc::new(Self {
            events,
            api_services: Cache::start(Objects::all(client.clone()), tasks),
            autoscalers: Cache::start(Objects::all(client.clone()), tasks),
            budgets: Cache::start(Objects::all(client.clone()), tasks),
            deployments: Cache::start(Objects::all(client.clone()), tasks),
            endpoints: Cache::start(Objects::all(client.clone()), tasks),
            namespaces: Cache::start(Objects::all(client.clone()), tasks),
            nodes: Cache::start(Objects::all(client.clone()), tasks),
            pods: Cache::start(Objects::all(client.clone()), tasks),
            replica_sets: Cache::start(Objects::all(client.clone()), tasks),
            service_accounts: Cache::start(Objects::all(client.clone()), tasks),
            services: Cache::start(Objects::all(client.clone()), tasks),
            slices: Cache::start(Objects::all(client.clone()), tasks),
            client,
        })
    }

    /// Resolves once every watch has brought its first list.
    pub(crate) async fn synced(&self) {
        self.api_services.synced().await;
        self.autoscalers.synced().await;
        self.budgets.synced().await;
        self.deployments.synced().await;
        self.endpoints.synced().await;
        self.namespaces.synced().await;
        self.nodes.synced().await;
        self.pods.synced().await;
        self.replica_sets.synced().await;
        self.service_accounts.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
    }

    /// The API of a kind in a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Objects<K>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        Objects::namespaced(self.client.clone(), namespace)
    }

    /// Replaces `object` as it stands, which fails with 409 when somebody else changed it meanwhile.
    pub(crate) async fn replace<K>(&self, cache: &Cache<K>, object: &K) -> kube::Result<()>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        cache.observe(api.replace(&object.name_any(), object).await?);
        Ok(())
    }

    /// Replaces the status of `object`, likewise.
    pub(crate) async fn replace_status<K>(&self, cache: &Cache<K>, object: &K) -> kube::Result<()>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        cache.observe(api.replace_status(&object.name_any(), object).await?);
        Ok(())
    }

    /// Creates `object` in its namespace.
    pub(crate) async fn create<K>(&self, cache: &Cache<K>, object: &K) -> kube::Result<K>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        let created = api.create(object).await?;
        cache.observe(created.clone());
        Ok(created)
    }

    /// Merges `patch` into `object`'s metadata, provided that it is still the same object (by uid).
    pub(crate) async fn patch_metadata<K>(
        &self,
        cache: &Cache<K>,
        object: &K,
        mut patch: serde_json::Value,
    ) -> kube::Result<()>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        patch["uid"] = object.uid().into();
        let patch = Patch::Merge(serde_json::json!({ "metadata": patch }));
        let api = self.api::<K>(&object.namespace().unwrap_or_default());
        cache.observe(api.patch(&object.name_any(), &patch).await?);
        Ok(())
    }

    /// Whether `owner` is still there and stays, by the API server's own word: a cache that lags must not adopt for it.
    pub(crate) async fn may_adopt<K>(&self, owner: &K) -> kube::Result<bool>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>(&owner.namespace().unwrap_or_default());
        let found = api.get_opt(&owner.name_any()).await?;
        Ok(found.is_some_and(|found| found.uid() == owner.uid() && found.meta().deletion_timestamp.is_none()))
    }
}
