//! What a load run changes in the cluster for a while. It is marked on the app's Deployment for as long as it lasts,
//! with what was there before: the run puts that back however it ends, and after a run that was killed `up` and
//! `redeploy` do.

use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clusters::Cluster;
use crate::commands::Advice;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit, paragraph};
use crate::ingress_nginx::NAMESPACE as INGRESS_NAMESPACE;
use crate::kubernetes::Api;
use crate::manifests::Manifests;
use crate::owned::FIELD_MANAGER;
use crate::summary::Summary;

#[cfg(test)]
mod tests;

/// The mark.
pub const ANNOTATION: &str = "xtask/temporary-change";
/// The ConfigMap by which the sandbox's ingress controller is told its pace.
const PROXY_CONFIG: &str = "sandbox-faults";
/// An API server that is well has answered by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// A change that lasts, as the Deployment's annotation tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// What is changed: `without pre-stop`.
    pub what: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The run that changed it, by the name of its folder.
    pub run: String,
    /// What puts it back, in this order.
    undo: Vec<Undo>,
}

/// One thing as it was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// The autoscaler's bounds.
    Autoscaler {
        /// Its name.
        name: String,
        /// The fewest replicas.
        min: Option<i32>,
        /// The most.
        max: i32,
    },
    /// The Deployment's replicas.
    Replicas(i32),
    /// What the pods are made from.
    Pod {
        /// Their containers.
        containers: Value,
        /// Their grace period.
        grace: Value,
    },
    /// The sandbox's ingress controller takes up changes at once.
    ProxyPace,
}

impl Mark {
    /// An annotation that was edited by hand may say anything.
    fn read(text: &str) -> Mark {
        serde_json::from_str(text).unwrap_or_else(|_| Mark { what: text.to_owned(), ..Mark::default() })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(since) = self.since {
            write!(f, ", since {since:.0}")?;
        }
        if self.run.is_empty() { Ok(()) } else { write!(f, ", by run {}", self.run) }
    }
}

/// The app's Deployment, where changes are made and marked.
#[derive(Clone, Copy)]
pub struct App<'a> {
    /// The cluster's client.
    pub client: &'a Client,
    /// Where the app lives.
    pub namespace: &'a str,
    /// The Deployment's name.
    pub deployment: &'a str,
}

impl<'a> App<'a> {
    /// That of a run's manifests.
    pub fn of(cx: &'a Cx, cluster: &'a Cluster, manifests: &'a Manifests) -> App<'a> {
        App {
            client: &cluster.client,
            namespace: &cx.shared.namespace,
            deployment: manifests.deployment_name(),
        }
    }

    /// The change that it is marked with; nothing where it has none, or is not there.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn mark(&self) -> Result<Option<Mark>> {
        let found = self.deployments().get_metadata_opt(self.deployment).await;
        let found = found.with_context(|| format!("looking for deployment/{}", self.deployment))?;
        let annotations = found.and_then(|found| found.metadata.annotations).unwrap_or_default();
        Ok(annotations.get(ANNOTATION).map(|text| Mark::read(text)))
    }

    /// That it is marked, in a sentence.
    pub fn sentence(&self, mark: &Mark) -> String {
        format!("deployment/{} is temporarily changed: {mark}", self.deployment)
    }

    /// Puts back what a run has left changed that is no more; gives back what that was.
    ///
    /// # Errors
    /// When the API refuses; the mark stays then.
    pub async fn put_back_leftovers(&self) -> Result<Option<Mark>> {
        let mark = self.mark().await?;
        if let Some(mark) = &mark {
            self.put_back(mark).await?;
        }
        Ok(mark)
    }

    /// Puts everything back and removes the mark.
    async fn put_back(&self, mark: &Mark) -> Result<()> {
        let mut failed = None;
        for undo in &mark.undo {
            failed = failed.or(self.undo(undo).await.err());
        }
        match failed {
            Some(error) => Err(error),
            None => self.annotate(None).await,
        }
    }

    async fn undo(&self, undo: &Undo) -> Result<()> {
        match undo {
            Undo::Autoscaler { name, min, max } => self.bound(name, *min, *max).await,
            Undo::Replicas(replicas) => self.scale(*replicas).await,
            Undo::Pod { containers, grace } => self.remake(containers, grace).await,
            Undo::ProxyPace => self.pace_proxy(None).await,
        }
    }

    /// The pods' containers and grace period, as the Deployment has them.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn pod(&self) -> Result<Value> {
        let kind = ApiResource::erase::<Deployment>(&());
        // As it is, and not as the types of this build know it: what is put back shall be whole.
        let api: kube::Api<DynamicObject> =
            kube::Api::namespaced_with(self.client.clone(), self.namespace, &kind);
        let found = api.get(self.deployment).await;
        let deployment = found.with_context(|| format!("reading deployment/{}", self.deployment))?;
        deployment.data.pointer("/spec/template/spec").cloned().context("the Deployment has no pod template")
    }

    /// Makes the pods anew, with these containers and this grace period.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn remake(&self, containers: &Value, grace: &Value) -> Result<()> {
        // A merge patch replaces a list as a whole, so what is missing from it is gone.
        let spec = json!({"containers": containers, "terminationGracePeriodSeconds": grace});
        let patch = json!({"spec": {"template": {"spec": spec}}});
        let patched = self.deployments().patch(self.deployment, &params(), &Patch::Merge(patch)).await;
        unless_gone(patched).with_context(|| format!("patching deployment/{}", self.deployment))
    }

    /// Bounds an autoscaler; no fewest is its default.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn bound(&self, autoscaler: &str, min: Option<i32>, max: i32) -> Result<()> {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), self.namespace);
        let patch = json!({"spec": {"minReplicas": min, "maxReplicas": max}});
        let patched = api.patch(autoscaler, &params(), &Patch::Merge(patch)).await;
        unless_gone(patched).with_context(|| format!("setting the bounds of hpa/{autoscaler}"))
    }

    /// How many replicas the Deployment asks for.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn replicas(&self) -> Result<i32> {
        let scale = self.deployments().get_scale(self.deployment).await;
        let scale = scale.with_context(|| format!("reading the scale of deployment/{}", self.deployment))?;
        Ok(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))
    }

    /// Asks for so many replicas.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn scale(&self, replicas: i32) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let patched = self.deployments().patch_scale(self.deployment, &PatchParams::default(), &patch).await;
        unless_gone(patched).with_context(|| format!("scaling deployment/{}", self.deployment))
    }

    /// How often the sandbox's proxy may take up changes; `None` is at once.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn pace_proxy(&self, seconds: Option<&str>) -> Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), INGRESS_NAMESPACE);
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": PROXY_CONFIG},
            "data": seconds.map_or_else(|| json!({}), |seconds| json!({"sync-seconds": seconds})),
        });
        api.patch(PROXY_CONFIG, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object))
            .await
            .with_context(|| format!("setting the proxy's pace in configmap/{PROXY_CONFIG}"))?;
        Ok(())
    }

    async fn annotate(&self, mark: Option<&Mark>) -> Result<()> {
        let text = mark.map(serde_json::to_string).transpose().context("writing the mark")?;
        let patch = json!({"metadata": {"annotations": {ANNOTATION: text}}});
        let patched = self.deployments().patch(self.deployment, &params(), &Patch::Merge(patch)).await;
        unless_gone(patched).with_context(|| format!("marking deployment/{}", self.deployment))
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), self.namespace)
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// What was deleted meanwhile, as by `down`, is no more to be changed.
fn unless_gone<T>(patched: kube::Result<T>) -> Result<()> {
    match patched {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).map_err(Into::into),
    }
}

/// The changes of one run.
pub struct Changes<'a> {
    /// What they are made to.
    pub app: App<'a>,
    run: String,
    mark: Option<Mark>,
}

/// Does `work`, and puts back what it changed, however it ends.
///
/// # Errors
/// Those of `work`; when something can't be put back.
pub async fn lasting<'a, T>(
    cx: &Cx,
    app: App<'a>,
    work: impl AsyncFnOnce(&mut Changes<'a>) -> Result<T>,
) -> Result<T> {
    let run = cx.run_dir.as_ref().and_then(|dir| dir.file_name()).unwrap_or_default();
    let mut changes = Changes { app, run: run.to_string_lossy().into_owned(), mark: None };
    let result = AssertUnwindSafe(Box::pin(work(&mut changes))).catch_unwind().await;
    let back = changes.put_back().await.hint(Advice::Xtask("up", "puts it back too"));
    match (result, back) {
        (Ok(Ok(done)), back) => back.map(|()| done),
        (Ok(Err(error)), back) => {
            // The first failure is the one that is reported.
            report(cx, back);
            Err(error)
        }
        (Err(panic), back) => {
            report(cx, back);
            resume_unwind(panic)
        }
    }
}

fn report(cx: &Cx, back: Result<()>) {
    if let Err(error) = back {
        let up = cx.commands.xtask("up");
        cx.output.note(&format!("warning: {}; `{up}` puts it back too", paragraph(&error)));
    }
}

impl Changes<'_> {
    /// Marks a change that is about to be made; `undo` puts it back.
    ///
    /// # Errors
    /// When another run has changed something that is not put back yet; when the API refuses.
    pub async fn begin(&mut self, what: &str, undo: Vec<Undo>) -> Result<()> {
        if self.mark.is_none() {
            unmarked(&self.app).await?;
        }
        let mark = self.mark.get_or_insert_with(|| Mark {
            since: Some(Timestamp::now()),
            run: self.run.clone(),
            ..Mark::default()
        });
        mark.what = if mark.what.is_empty() { what.to_owned() } else { format!("{}, {what}", mark.what) };
        // What was changed last is put back first.
        mark.undo.splice(0..0, undo);
        in_time(self.app.annotate(Some(mark))).await
    }

    async fn put_back(&self) -> Result<()> {
        let Some(mark) = &self.mark else { return Ok(()) };
        let put = async {
            // Where it is gone, another command has put it back, and may have gone on from there.
            let is_there = self.app.mark().await?.is_some_and(|there| there.run == mark.run);
            if is_there { self.app.put_back(mark).await } else { Ok(()) }
        };
        in_time(put).await.with_context(|| format!("putting back what was changed ({})", mark.what))
    }
}

/// Refuses an app that is changed already.
///
/// # Errors
/// That; exit code 10. When the API refuses.
pub async fn unmarked(app: &App<'_>) -> Result<()> {
    let Some(mark) = in_time(app.mark()).await? else { return Ok(()) };
    Err(anyhow!("{}", app.sentence(&mark)))
        .hint(Advice::Xtask("up", "puts it back if that run was killed; else wait for its end"))
        .exit(Exit::Preflight)
}

async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(anyhow!("no answer from the API server within {} s", PATIENCE.as_secs())))
}

/// Warns of a change that lasts; the fields are for the run's summary.
pub async fn warn(cx: &Cx, app: App<'_>) -> Summary {
    // An API server that does not answer is told of by the gates.
    let Ok(Some(mark)) = in_time(app.mark()).await else { return Summary::new() };
    let up = cx.commands.xtask("up");
    cx.output.note(&format!("warning: {}; if that run is over, `{up}` puts it back", app.sentence(&mark)));
    let Mark { what, since, run, .. } = mark;
    [("temporary_change".to_owned(), json!({"what": what, "since": since, "run": run}))].into_iter().collect()
}
