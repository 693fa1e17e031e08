//! The cluster runs, and the namespace is there.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;

use crate::clusters::{Choice, Cluster};
use crate::cx::Cx;
use crate::gates;
use crate::pipeline::{Done, SpanId, step};

/// Starts or finds the cluster; past its gate, it takes objects in the namespace.
///
/// # Errors
/// When it can't be started, or the gate fails.
pub async fn run(cx: &Cx, choice: &Choice, after: &[SpanId]) -> Result<Done<Cluster>> {
    let cluster = step(cx, "cluster", after, async |step| choice.kind.ensure_running(cx, step).await).await?;
    cx.unless_stopped(ensure_namespace(cx, &cluster)).await?;
    let ready = gates::cluster::wait(cx, &cluster.client, &cx.shared.namespace, &[cluster.id]).await?;
    Ok(cluster.behind(&ready))
}

/// Says in the namespace's own labels that this tool made it, so that `down` knows.
pub const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "xtask");

async fn ensure_namespace(cx: &Cx, cluster: &Cluster) -> Result<()> {
    let name = &cx.shared.namespace;
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    if api.get_opt(name).await.with_context(|| format!("looking for namespace {name}"))?.is_some() {
        return Ok(());
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.clone());
    namespace.metadata.labels = Some(
        [MADE_BY, ("pod-security.kubernetes.io/enforce", "restricted")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    );
    match api.create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("making namespace {name}")),
    }
}
