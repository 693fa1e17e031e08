//! The gate behind the metrics add-on: the metrics API is served, so the autoscaler has something to read.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Client;

use super::kind::Kind;
use super::watch::{self, Feed, Objects};
use super::{Gate, Standing, Verdict, evidence};
use crate::kubernetes::{self, Api, METRICS_API};
use crate::pipeline::{Branch, Done};

/// The gate.
pub const GATE: Gate = Gate {
    name: "metrics",
    opens_when: "the metrics API is Available",
    // The image is pulled, then minikube's needs two scrapes, 44 to 74 s.
    deadline: Duration::from_secs(300),
    standing: Some(Standing {
        look: |site| Box::pin(look(&site.cluster.client)),
        wait: |branch, site| Box::pin(async move { wait(branch, &site.cluster.client).await.map(drop) }),
    }),
};

/// What was seen of the metrics API.
#[derive(Default)]
pub struct Snapshot {
    pub(super) services: Objects<APIService>,
}

/// Waits until the metrics API is available.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(branch: &mut Branch<'_>, client: &Client) -> Result<Done<()>> {
    let cx = branch.cx;
    let further = cx.commands.kubectl(&format!("describe apiservice {METRICS_API}"));
    let verdicts = watch::verdicts(client, Snapshot::default(), feeds(client), |s, _| judge(s));
    super::wait(branch, &GATE, further, verdicts, async || {
        let about = evidence::About {
            namespace: "kube-system",
            workload: Some((Kind::Deployment, "metrics-server")),
            selector: Some("k8s-app=metrics-server"),
            ..evidence::About::default()
        };
        evidence::collect(cx, client, about).await
    })
    .await
}

/// One look.
///
/// # Errors
/// When the API server does not answer.
pub async fn look(client: &Client) -> Result<Verdict> {
    watch::look(client, Snapshot::default(), feeds(client), |s, _| judge(s)).await
}

fn feeds(client: &Client) -> Vec<Feed<Snapshot>> {
    vec![Feed::watch_one(Api::all(client.clone()), METRICS_API, |s: &mut Snapshot| &mut s.services)]
}

/// Judges what was seen.
pub fn judge(s: &Snapshot) -> Verdict {
    let Some(service) = s.services.get(METRICS_API) else {
        return Verdict::Closed(format!(
            "APIService {METRICS_API} is not registered: the metrics server is not there yet"
        ));
    };
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    match kubernetes::find(conditions, "Available") {
        Some(available) if available.is_true() => Verdict::Open((), "metrics API available".to_owned()),
        Some(available) => Verdict::Closed(format!("the metrics API is not available ({})", available.why())),
        None => Verdict::Closed("the API server has not tried the metrics API yet".to_owned()),
    }
}
