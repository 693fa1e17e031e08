//! Says whether the metrics API has anything to tell, on its APIService.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceStatus,
};
use kube::ResourceExt as _;
use tokio::sync::Notify;

use crate::autoscaler::metrics;
use crate::cluster::Cluster;
use crate::control::{Controller, Pass};
use crate::objects::Objects;

const NAME: &str = "v1beta1.metrics.k8s.io";
/// Metrics can't be watched. Short until there are some, because somebody waits for them.
const WAITING_PERIOD: Duration = Duration::from_millis(100);
const STEADY_PERIOD: Duration = Duration::from_secs(5);

pub(crate) struct MetricsApi {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
}

impl MetricsApi {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.api_services.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes }
    }

    async fn write(&self, service: &APIService, condition: APIServiceCondition) -> kube::Result<()> {
        let status = APIServiceStatus { conditions: Some(vec![condition]) };
        let updated = APIService { status: Some(status), ..service.clone() };
        let api = Objects::all(self.cluster.client.clone());
        let answer = api.replace_status(&service.name_any(), &updated).await?;
        self.cluster.api_services.observe(answer);
        Ok(())
    }
}

impl Controller for MetricsApi {
    const NAME: &'static str = "metrics-api";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        let Some(service) = self.cluster.api_services.get("", NAME) else { return pass };
        let failure = match metrics::any_node(&self.cluster.client).await {
            Ok(true) => None,
            Ok(false) => Some(("MissingEndpoints", "no metrics have been sampled yet".to_owned())),
            Err(error) => Some(("FailedDiscoveryCheck", crate::control::message(&error))),
        };
        pass.after(if failure.is_none() { STEADY_PERIOD } else { WAITING_PERIOD });
        let status = if failure.is_none() { "True" } else { "False" };
        let (reason, message) = failure.unwrap_or(("Passed", "all checks passed".to_owned()));
        let old = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let old = old.into_iter().find(|condition| condition.type_ == "Available");
        if old.is_some_and(|old| old.status == status && old.reason.as_deref() == Some(reason)) {
            return pass;
        }
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        let condition = APIServiceCondition {
            type_: "Available".to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or(Time(Timestamp::now()))),
        };
        if let Err(error) = self.write(&service, condition).await {
            pass.failed(format_args!("writing status of APIService {NAME}"), &error);
        }
        pass
    }
}
