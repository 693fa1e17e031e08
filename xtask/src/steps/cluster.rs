//! The cluster runs, and the namespace is there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::PostParams;

use crate::clusters::{Choice, Cluster, Kind};
use crate::cx::Cx;
use crate::gates;
use crate::kubernetes::Api;
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done, step};
use crate::plan::Planned;

/// How long until an API server that does not answer is asked again.
const TRY_EVERY: Duration = Duration::from_millis(250);

/// Its name.
const NAME: &str = "cluster";

/// What it would do; `commands` are the kind's own.
pub fn plan(cx: &Cx, commands: Vec<String>) -> Planned {
    let name = &cx.shared.namespace;
    let namespace = if cx.shared.creates_namespace() {
        format!("create namespace {name} if it is missing")
    } else {
        format!("expect namespace {name}")
    };
    Planned::step(NAME, [commands, vec![namespace]].concat()).gate(&gates::cluster::GATE)
}

/// Starts or finds the cluster; past its gate, it takes objects in the namespace.
///
/// # Errors
/// When it can't be started, or the gate fails.
pub async fn run(branch: &mut Branch<'_>, choice: &Choice, manifests: &Manifests) -> Result<Done<Cluster>> {
    let cx = branch.cx;
    let cluster = step(branch, NAME, async |step| choice.kind.ensure_running(cx, step).await).await?;
    choice.kind.watch_over(cx);
    let namespace = &cx.shared.namespace;
    cx.shows(cluster.watched(manifests, namespace));
    // Side by side: an API server that does not answer is the gate's to tell, and one that does gets the namespace
    // whose service account the gate waits for.
    branch
        .both(
            async |branch| gates::cluster::wait(branch, &cluster.client, namespace).await,
            async |_| {
                // Where none is created, the preflight has looked for it.
                if !cx.shared.creates_namespace() {
                    return Ok(());
                }
                let labels = labels(&cluster.kind);
                cx.unless_stopped(ensure_namespace(&cluster.client, namespace, &labels)).await
            },
        )
        .await?;
    Ok(cluster)
}

/// Says in the namespace's own labels that this tool made it, so that `down` knows.
pub const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "xtask");

/// The labels of a namespace that is made. One in a cluster of others is not `down`'s to remove: by then they may have
/// their own in it.
fn labels(kind: &Kind) -> BTreeMap<String, String> {
    let restricted = ("pod-security.kubernetes.io/enforce", "restricted");
    let made_by = (!matches!(kind, Kind::Context(_))).then_some(MADE_BY);
    made_by.into_iter().chain([restricted]).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Makes the namespace where it is missing, as soon as the API server answers.
async fn ensure_namespace(client: &Client, name: &str, labels: &BTreeMap<String, String>) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    loop {
        match make_namespace(&api, name, labels).await {
            Err(kube::Error::Api(status)) if !is_passing(&status) => {
                return Err(kube::Error::Api(status)).with_context(|| format!("making namespace {name}"));
            }
            Err(_) => tokio::time::sleep(TRY_EVERY).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// What an API server that is still starting may answer.
fn is_passing(status: &kube::core::Status) -> bool {
    status.code == 429 || status.code >= 500
}

async fn make_namespace(
    api: &Api<Namespace>,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> kube::Result<()> {
    match api.get_opt(name).await {
        Ok(Some(_)) => return Ok(()),
        // Who may not look may all the same create, or hear that it is there.
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        found => drop(found?),
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    namespace.metadata.labels = Some(labels.clone());
    match api.create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
