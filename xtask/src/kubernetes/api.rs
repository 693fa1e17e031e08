//! `kube::Api`, whose answers are read in one way.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Deref;

use futures::io::AsyncBufRead;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams, ObjectList, Patch, PatchParams, Portforwarder, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Client, Error, Resource, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::typed;

/// Objects of one kind, as `kube::Api` has them. The client reads every kind untyped, and [`typed`] makes of that what
/// it is: so each of the API's types is compiled for one way of reading.
pub struct Api<K> {
    objects: kube::Api<DynamicObject>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Api<K> {
        Api { objects: self.objects.clone(), kind: PhantomData }
    }
}

impl<K: Resource<DynamicType = ()>> Api<K> {
    /// All of the cluster.
    pub fn all(client: Client) -> Api<K> {
        Api { objects: kube::Api::all_with(client, &ApiResource::erase::<K>(&())), kind: PhantomData }
    }

    /// Those of one namespace.
    pub fn namespaced(client: Client, namespace: &str) -> Api<K> {
        let objects = kube::Api::namespaced_with(client, namespace, &ApiResource::erase::<K>(&()));
        Api { objects, kind: PhantomData }
    }
}

/// Each is `kube::Api`'s own, and fails as that does: as the API server or the connection says, or when an answer does
/// not read as a `K`.
#[allow(clippy::missing_errors_doc, reason = "told once, above")]
impl<K: Resource + DeserializeOwned> Api<K> {
    /// The same objects, untyped: what kube-rs makes of a watch is compiled once for all kinds then.
    #[must_use]
    pub fn untyped(self) -> kube::Api<DynamicObject> {
        self.objects
    }

    /// The one of that name.
    pub async fn get(&self, name: &str) -> Result<K> {
        read(self.objects.get(name).await?)
    }

    /// The one of that name, where there is one.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>> {
        self.objects.get_opt(name).await?.map(read).transpose()
    }

    /// Those that the parameters select.
    pub async fn list(&self, params: &ListParams) -> Result<ObjectList<K>>
    where
        K: Clone,
    {
        let ObjectList { types, metadata, items } = self.objects.list(params).await?;
        let items = items.into_iter().map(read).collect::<Result<_>>()?;
        Ok(ObjectList { types, metadata, items })
    }

    /// Changes a part.
    pub async fn patch(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<impl Serialize + Debug>,
    ) -> Result<K> {
        read(self.objects.patch(name, params, patch).await?)
    }

    /// Makes one.
    pub async fn create(&self, params: &PostParams, object: &K) -> Result<K>
    where
        K: Serialize,
    {
        let object =
            serde_json::to_value(object).and_then(serde_json::from_value).map_err(Error::SerdeError)?;
        read(self.objects.create(params, &object).await?)
    }
}

/// What needs no type, such as a deletion, is `kube::Api`'s own.
impl<K> Deref for Api<K> {
    type Target = kube::Api<DynamicObject>;

    fn deref(&self) -> &kube::Api<DynamicObject> {
        &self.objects
    }
}

/// These fail as `kube::Api`'s own do, too.
#[allow(clippy::missing_errors_doc, reason = "told once, above")]
impl Api<Pod> {
    /// A container's log.
    pub async fn logs(&self, name: &str, params: &LogParams) -> Result<String> {
        self.pods().logs(name, params).await
    }

    /// A container's log, as it is written.
    pub async fn log_stream(&self, name: &str, params: &LogParams) -> Result<impl AsyncBufRead + use<>> {
        self.pods().log_stream(name, params).await
    }

    /// Streams to a pod's ports.
    pub async fn portforward(&self, name: &str, ports: &[u16]) -> Result<Portforwarder> {
        self.pods().portforward(name, ports).await
    }

    fn pods(&self) -> kube::Api<Pod> {
        let client = self.objects.clone().into_client();
        match self.objects.namespace() {
            Some(namespace) => kube::Api::namespaced(client, namespace),
            None => kube::Api::all(client),
        }
    }
}

fn read<K: Resource + DeserializeOwned>(object: DynamicObject) -> Result<K> {
    typed(object).map_err(Error::SerdeError)
}
