//! The garbage collector: deletes what belongs to nobody any more, and finishes foreground and orphaning deletions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Resource, ResourceExt as _};
use tokio::sync::Notify;

use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::control::{Controller, Pass, has_code};
use crate::objects::Object;
use crate::pods;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

pub(crate) struct Garbage {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
    /// Owners (uids) that the API server said are gone. A uid never comes back.
    absent: HashSet<String>,
}

impl Garbage {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.deployments.wake(&changes);
        cluster.replica_sets.wake(&changes);
        cluster.pods.wake(&changes);
        cluster.services.wake(&changes);
        cluster.slices.wake(&changes);
        cluster.endpoints.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes, absent: HashSet::new() }
    }

    /// Deletes the objects of one kind whose owners are all gone.
    async fn collect<K>(&mut self, cache: &Cache<K>, pass: &mut Pass)
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let living = self.living();
        for object in cache.all() {
            let owners = object.owner_references();
            if owners.is_empty() || pods::is_deleting(object.meta()) {
                continue;
            }
            let (mut owned, mut awaited) = (false, false);
            for owner in owners {
                match living.get(&owner.uid) {
                    // Foreground: an owner that waits for its dependents doesn't keep them.
                    Some(Going::Foreground) => awaited = true,
                    Some(Going::No) => owned = true,
                    None => match self.exists(owner, object.meta().namespace.as_deref()).await {
                        Ok(exists) => owned |= exists,
                        Err(error) => {
                            pass.failed(format_args!("looking up {} {}", owner.kind, owner.name), &error);
                            owned = true;
                        }
                    },
                }
            }
            // What is awaited waits for its own dependents in turn.
            let in_foreground = awaited && self.has_dependents(&object.uid().unwrap_or_default());
            if !owned && let Err(error) = self.delete(cache, &*object, in_foreground).await {
                pass.failed(format_args!("deleting {} {}", K::kind(&()), pods::path(object.meta())), &error);
            }
        }
    }

    async fn delete<K>(&self, cache: &Cache<K>, object: &K, in_foreground: bool) -> kube::Result<()>
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        let only_this = Preconditions { uid: object.uid(), resource_version: None };
        let policy = if in_foreground { DeleteParams::foreground() } else { DeleteParams::background() };
        let parameters = policy.preconditions(only_this);
        let api = self.cluster.api::<K>(&object.namespace().unwrap_or_default());
        match api.delete(&object.name_any(), &parameters).await {
            Ok(left) => {
                if let Some(object) = left.filter(|object| pods::is_deleting(object.meta())) {
                    cache.observe(object);
                }
                Ok(())
            }
            Err(error) if has_code(&error, 404) || has_code(&error, 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes the finalizers off owners that are being deleted, once what they stand for is done.
    async fn finish<K>(&self, cache: &Cache<K>, pass: &mut Pass)
    where
        K: Object + Resource<Scope = NamespaceResourceScope>,
    {
        for object in cache.all().into_iter().filter(|object| pods::is_deleting(object.meta())) {
            let has = |finalizer: &str| object.finalizers().iter().any(|own| own == finalizer);
            let uid = object.uid().unwrap_or_default();
            let done = if has(ORPHAN) {
                self.orphan(&uid).await.map(|()| ORPHAN)
            } else if has(FOREGROUND) && !self.has_dependents(&uid) {
                Ok(FOREGROUND)
            } else {
                continue;
            };
            let finished = match done {
                Ok(finalizer) => {
                    let mut left = object.finalizers().to_vec();
                    left.retain(|own| own != finalizer);
                    let patch = serde_json::json!({ "finalizers": left,
                        "resourceVersion": object.resource_version() });
                    // Not observed: with the last finalizer the object itself goes.
                    let patch = Patch::Merge(serde_json::json!({ "metadata": patch }));
                    let api = self.cluster.api::<K>(&object.namespace().unwrap_or_default());
                    api.patch(&object.name_any(), &patch).await.map(drop)
                }
                Err(error) => Err(error),
            };
            match finished {
                Err(error) if !has_code(&error, 404) => {
                    pass.failed(format_args!("finish deletion of {}", pods::path(object.meta())), &error);
                }
                _ => {}
            }
        }
    }

    async fn orphan(&self, owner: &str) -> kube::Result<()> {
        disown(&self.cluster, &self.cluster.replica_sets, owner).await?;
        disown(&self.cluster, &self.cluster.pods, owner).await?;
        disown(&self.cluster, &self.cluster.slices, owner).await?;
        disown(&self.cluster, &self.cluster.endpoints, owner).await
    }

    fn has_dependents(&self, owner: &str) -> bool {
        owned(&self.cluster.replica_sets, owner).next().is_some()
            || owned(&self.cluster.pods, owner).next().is_some()
            || owned(&self.cluster.slices, owner).next().is_some()
            || owned(&self.cluster.endpoints, owner).next().is_some()
    }

    /// The possible owners that the caches know, by uid.
    fn living(&self) -> HashMap<String, Going> {
        let mut living = HashMap::new();
        note(&self.cluster.deployments, &mut living);
        note(&self.cluster.replica_sets, &mut living);
        note(&self.cluster.pods, &mut living);
        note(&self.cluster.services, &mut living);
        living
    }

    /// Asks the API server itself: a cache may lag.
    async fn exists(&mut self, owner: &OwnerReference, namespace: Option<&str>) -> kube::Result<bool> {
        if self.absent.contains(&owner.uid) {
            return Ok(false);
        }
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &owner.kind));
        let namespaced = !(group.is_empty() && matches!(owner.kind.as_str(), "Node" | "Namespace"));
        let api: Api<DynamicObject> = match namespace.filter(|_| namespaced) {
            Some(namespace) => Api::namespaced_with(self.cluster.client.clone(), namespace, &resource),
            None => Api::all_with(self.cluster.client.clone(), &resource),
        };
        let exists =
            api.get_opt(&owner.name).await?.is_some_and(|found| found.uid().as_ref() == Some(&owner.uid));
        if !exists {
            self.absent.insert(owner.uid.clone());
        }
        Ok(exists)
    }
}

impl Controller for Garbage {
    const NAME: &'static str = "garbage-collector";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        let cluster = Arc::clone(&self.cluster);
        self.finish(&cluster.deployments, &mut pass).await;
        self.finish(&cluster.replica_sets, &mut pass).await;
        self.finish(&cluster.services, &mut pass).await;
        self.finish(&cluster.pods, &mut pass).await;
        self.collect(&cluster.replica_sets, &mut pass).await;
        self.collect(&cluster.pods, &mut pass).await;
        self.collect(&cluster.slices, &mut pass).await;
        self.collect(&cluster.endpoints, &mut pass).await;
        pass
    }
}

/// How a living owner stands to its dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    /// It stays, or goes by itself.
    No,
    /// It waits for its dependents to go first.
    Foreground,
}

fn note<K: Object>(cache: &Cache<K>, living: &mut HashMap<String, Going>) {
    for object in cache.all() {
        let foreground =
            pods::is_deleting(object.meta()) && object.finalizers().iter().any(|own| own == FOREGROUND);
        let going = if foreground { Going::Foreground } else { Going::No };
        living.insert(object.uid().unwrap_or_default(), going);
    }
}

fn owned<K: Object>(cache: &Cache<K>, owner: &str) -> impl Iterator<Item = Arc<K>> {
    cache.all().into_iter().filter(move |object| object.owner_references().iter().any(|own| own.uid == owner))
}

async fn disown<K>(cluster: &Cluster, cache: &Cache<K>, owner: &str) -> kube::Result<()>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    for object in owned(cache, owner) {
        let mut owners = object.owner_references().to_vec();
        owners.retain(|own| own.uid != owner);
        cluster.patch_metadata(cache, &*object, serde_json::json!({ "ownerReferences": owners })).await?;
    }
    Ok(())
}
