//! Keeps the routing table equal to what the API server says.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _, select_all};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use sandbox_proxy::route::Table;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

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

/// Watched untyped, so that what kube-rs makes of a watch is compiled once and not for each kind.
fn store<K>(client: &Client) -> (Store<K>, BoxStream<'static, ()>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, mut writer) = reflector::store();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<K>(&()));
    let events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let changes = events.filter_map(move |event| {
        let event = event.map_err(anyhow::Error::new).and_then(|event| Ok(typed::<K>(event)?));
        let is_change = match event {
            Ok(event) => {
                writer.apply_watcher_event(&event);
                matches!(event, Event::Apply(_) | Event::Delete(_) | Event::InitDone)
            }
            Err(error) => {
                tracing::warn!("watch of {}: {error:#}", K::plural(&()));
                false
            }
        };
        std::future::ready(is_change.then_some(()))
    });
    (store, changes.boxed())
}

fn typed<K: DeserializeOwned>(event: Event<DynamicObject>) -> serde_json::Result<Event<K>> {
    let typed = |object| serde_json::to_value(object).and_then(serde_json::from_value);
    Ok(match event {
        Event::Apply(object) => Event::Apply(typed(object)?),
        Event::Delete(object) => Event::Delete(typed(object)?),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(typed(object)?),
        Event::InitDone => Event::InitDone,
    })
}
