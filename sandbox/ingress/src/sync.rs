//! Keeps the routing table equal to what the API server says.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _, select_all};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::route::Table;
use crate::translate::{self, Objects};

/// What is known of the cluster; for the parts that read objects rather than routes.
#[derive(Clone)]
pub(crate) struct Known {
    ingresses: Store<Ingress>,
    classes: Store<IngressClass>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
}

impl Known {
    /// The objects of now.
    pub(crate) fn objects(&self) -> Objects {
        Objects {
            ingresses: self.ingresses.state(),
            classes: self.classes.state(),
            services: self.services.state(),
            slices: self.slices.state(),
        }
    }

    async fn synced(&self) {
        let _ = self.ingresses.wait_until_ready().await;
        let _ = self.classes.wait_until_ready().await;
        let _ = self.services.wait_until_ready().await;
        let _ = self.slices.wait_until_ready().await;
    }
}

/// The watches; they move when `follow` is polled.
pub(crate) struct Watches {
    known: Known,
    changes: BoxStream<'static, ()>,
}

/// Watches everything that routes are made of, in all namespaces.
pub(crate) fn watch(client: &Client) -> Watches {
    let (ingresses, a) = store::<Ingress>(client);
    let (classes, b) = store::<IngressClass>(client);
    let (services, c) = store::<Service>(client);
    let (slices, d) = store::<EndpointSlice>(client);
    Watches {
        known: Known { ingresses, classes, services, slices },
        changes: select_all([a, b, c, d]).boxed(),
    }
}

impl Watches {
    pub(crate) fn known(&self) -> Known {
        self.known.clone()
    }

    /// Sends a table for each change, as soon as it is seen, but no two within `pace`. The first one when everything
    /// was listed once.
    pub(crate) async fn follow(
        mut self,
        controller: &str,
        routes: &watch::Sender<Option<Arc<Table>>>,
        mut pace: watch::Receiver<Duration>,
    ) {
        let mut backends = HashMap::new();
        let mut last: Option<Instant> = None;
        let known = self.known.clone();
        let synced = known.synced();
        tokio::pin!(synced);
        let mut is_synced = false;
        loop {
            tokio::select! {
                () = &mut synced, if !is_synced => {
                    is_synced = true;
                    tracing::info!("routes synced");
                }
                change = self.changes.next() => if change.is_none() { return },
            }
            // The watches go on meanwhile, so that the next table is of what is known then.
            while let Some(last) = last.filter(|last| last.elapsed() < *pace.borrow_and_update()) {
                let next = last + *pace.borrow();
                tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    change = self.changes.next() => if change.is_none() { return },
                    // Without the sender the pace stays.
                    Ok(()) = pace.changed() => {}
                }
            }
            // What came at the same time becomes one table.
            while let Some(Some(())) = futures::FutureExt::now_or_never(self.changes.next()) {}
            if is_synced {
                let table = translate::table(&self.known.objects(), controller, &mut backends);
                routes.send_replace(Some(Arc::new(table)));
                last = Some(Instant::now());
            }
        }
    }
}

fn store<K>(client: &Client) -> (Store<K>, BoxStream<'static, ()>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let (store, writer) = reflector::store();
    let api: Api<K> = Api::all(client.clone());
    let changes = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .filter_map(|event| async {
            match event {
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => {
                    Some(())
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!("watch of {}: {error}", std::any::type_name::<K>());
                    None
                }
            }
        })
        .boxed();
    (store, changes)
}
