//! Tests a controller: it notes on each ConfigMap how many keys it has.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::await_condition;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use sandbox::Cluster;
use serde_json::json;
use tokio::time::timeout;

async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> kube::Result<Action> {
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::clone(&client));
    let keys = map.data.as_ref().map_or(0, std::collections::BTreeMap::len).to_string();
    let note = Patch::Merge(json!({"metadata": {"annotations": {"example.com/keys": keys}}}));
    maps.patch(&map.name_any(), &PatchParams::default(), &note).await?;
    Ok(Action::await_change())
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::start().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let again = |_: Arc<ConfigMap>, _: &kube::Error, _: Arc<Client>| Action::requeue(Duration::from_secs(1));
    let controller = Controller::new(maps.clone(), watcher::Config::default());
    tokio::spawn(controller.run(reconcile, again, Arc::new(cluster.client())).for_each(async |_| {}));

    let colours = serde_json::from_value(json!({
        "metadata": {"name": "colours"},
        "data": {"sky": "blue", "grass": "green"},
    }))?;
    maps.create(&PostParams::default(), &colours).await?;
    let is_noted = |map: Option<&ConfigMap>| {
        map.is_some_and(|map| map.annotations().get("example.com/keys").is_some_and(|keys| keys == "2"))
    };
    timeout(Duration::from_secs(10), await_condition(maps, "colours", is_noted)).await??;
    Ok(())
}
