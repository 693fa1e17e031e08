//! The API of one kind, over that of untyped objects. What kube-rs makes of a call, from the connection up, is compiled
//! for each type that it is made with: once here, and not again for each of a dozen kinds.

use std::fmt::Debug;
use std::marker::PhantomData;

use futures::{Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the API server holds of a kind.
pub(crate) trait Object:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static
{
}
impl<K> Object for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static
{
}

/// The API of one kind.
pub(crate) struct Objects<K> {
    untyped: Api<DynamicObject>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Object> Objects<K> {
    /// In all namespaces, or of a kind that has none.
    pub(crate) fn all(client: Client) -> Self {
        Self { untyped: Api::all_with(client, &ApiResource::erase::<K>(&())), kind: PhantomData }
    }

    /// In one namespace.
    pub(crate) fn namespaced(client: Client, namespace: &str) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        let untyped = Api::namespaced_with(client, namespace, &ApiResource::erase::<K>(&()));
        Self { untyped, kind: PhantomData }
    }

    /// Those that `params` select, and the version of that list.
    pub(crate) async fn list(&self, params: &ListParams) -> kube::Result<(Vec<K>, String)> {
        let list = self.untyped.list(params).await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        Ok((list.items.into_iter().map(converted).collect::<kube::Result<_>>()?, version))
    }

    /// What happens to them after `version`.
    pub(crate) async fn watch(
        &self,
        version: &str,
    ) -> kube::Result<impl Stream<Item = kube::Result<WatchEvent<K>>> + use<K>> {
        let events = self.untyped.watch(&WatchParams::default(), version).await?;
        Ok(events.map(|event| {
            Ok(match event? {
                WatchEvent::Added(object) => WatchEvent::Added(converted(object)?),
                WatchEvent::Modified(object) => WatchEvent::Modified(converted(object)?),
                WatchEvent::Deleted(object) => WatchEvent::Deleted(converted(object)?),
                WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
                WatchEvent::Error(status) => WatchEvent::Error(status),
            })
        }))
    }

    /// One of them, if it is there.
    pub(crate) async fn get_opt(&self, name: &str) -> kube::Result<Option<K>> {
        self.untyped.get_opt(name).await?.map(converted).transpose()
    }

    pub(crate) async fn create(&self, object: &K) -> kube::Result<K> {
        converted(self.untyped.create(&PostParams::default(), &converted(object)?).await?)
    }

    pub(crate) async fn replace(&self, name: &str, object: &K) -> kube::Result<K> {
        converted(self.untyped.replace(name, &PostParams::default(), &converted(object)?).await?)
    }

    pub(crate) async fn replace_status(&self, name: &str, object: &K) -> kube::Result<K> {
        converted(self.untyped.replace_status(name, &PostParams::default(), &converted(object)?).await?)
    }

    pub(crate) async fn patch(&self, name: &str, patch: &Patch<Value>) -> kube::Result<K> {
        converted(self.untyped.patch(name, &PatchParams::default(), patch).await?)
    }

    pub(crate) async fn patch_status(&self, name: &str, patch: &Patch<Value>) -> kube::Result<K> {
        converted(self.untyped.patch_status(name, &PatchParams::default(), patch).await?)
    }

    /// The object as it is left, where something holds it yet.
    pub(crate) async fn delete(&self, name: &str, params: &DeleteParams) -> kube::Result<Option<K>> {
        self.untyped.delete(name, params).await?.left().map(converted).transpose()
    }
}

/// One of a kind from an untyped object, or the other way round.
fn converted<A: Serialize, B: DeserializeOwned>(object: A) -> kube::Result<B> {
    serde_json::to_value(object).and_then(serde_json::from_value).map_err(kube::Error::SerdeError)
}
