//! Gives each namespace its `default` service account.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::control::{Controller, Pass, has_code};
use crate::pods;

pub(crate) struct Namespaces {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
}

impl Namespaces {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.namespaces.wake(&changes);
        cluster.service_accounts.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes }
    }
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        for namespace in self.cluster.namespaces.all() {
            let name = namespace.name_any();
            if pods::is_deleting(&namespace.metadata)
                || self.cluster.service_accounts.get(&name, "default").is_some()
            {
                continue;
            }
            let metadata = ObjectMeta {
                name: Some("default".to_owned()),
                namespace: Some(name.clone()),
                ..ObjectMeta::default()
            };
            let account = ServiceAccount { metadata, ..ServiceAccount::default() };
            match self.cluster.create(&self.cluster.service_accounts, &account).await {
                Err(error) if !has_code(&error, 409) => {
                    pass.failed(format_args!("creating service account {name}/default"), &error);
                }
                _ => {}
            }
        }
        pass
    }
}
