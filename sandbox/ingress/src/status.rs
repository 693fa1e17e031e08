//! The leader writes the entry's address into the status of the Ingresses it serves.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt as _};
use sandbox_proxy::route::Table;
use serde_json::json;
use tokio::sync::watch;

use crate::sync::Known;

/// Runs for ever: while leading, looks at each change of the routes.
pub(crate) async fn publish(
    client: Client,
    controller: &str,
    address: &str,
    known: Known,
    mut leading: watch::Receiver<bool>,
    mut routes: watch::Receiver<Option<Arc<Table>>>,
) {
    loop {
        if *leading.borrow_and_update() && routes.borrow_and_update().is_some() {
            for ingress in known.objects().served_by(controller) {
                if addresses(ingress) == [address] {
                    continue;
                }
                let (namespace, name) = (ingress.namespace().unwrap_or_default(), ingress.name_any());
                let kind = ApiResource::erase::<Ingress>(&());
                let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &kind);
                let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
                match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await {
                    Ok(_) => tracing::info!("ingress {namespace}/{name}: status {address}"),
                    Err(error) => tracing::warn!("writing the status of ingress {namespace}/{name}: {error}"),
                }
            }
        }
        let (a, b) = (leading.changed(), routes.changed());
        tokio::select! {
            changed = a => if changed.is_err() { return },
            changed = b => if changed.is_err() { return },
        }
    }
}

fn addresses(ingress: &Ingress) -> Vec<&str> {
    let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.iter().flat_map(|b| b.ingress.iter().flatten()).filter_map(|i| i.ip.as_deref()).collect()
}
