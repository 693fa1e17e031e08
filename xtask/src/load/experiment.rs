//! `--without`: one protection is taken away, the failures that it prevents come back, and it is put back.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::clusters::{Cluster, Kind};
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::gates;
use crate::gates::ingress_lease::{CONTROLLER_PODS, NAMESPACE as INGRESS_NAMESPACE};
use crate::gates::rollout::Rollout;
use crate::manifests::{Manifests, REPOSITORY};
use crate::pipeline::{Branch, Outcome, step};
use crate::steps::apply::FIELD_MANAGER;

/// The ConfigMap by which the sandbox's ingress controller is told its pace.
const PROXY_CONFIG: &str = "sandbox-faults";
/// ingress-nginx takes up changes 0.3 times a second (`--sync-rate-limit`).
const SYNC_SECONDS: &str = "3.3";
/// A controller that is killed has closed its port by then.
const ENTRY_CLOSES: Duration = Duration::from_secs(3);

/// What keeps requests from failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protection {
    /// The startup probe, and the readiness probe that would stand in for it.
    StartupProbe,
    /// The readiness probe, and the startup probe that would stand in for it at a start.
    ReadinessProbe,
    /// The pause between the end of the endpoint and the end of the pod; the sandbox's proxy learns of ends as late as
    /// ingress-nginx does.
    PreStop,
    /// The time to answer the last requests.
    Grace,
    /// The gates before the load: it begins as the ingress controller begins.
    Gates,
}

impl Protection {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// A protection that was taken away.
pub(super) struct Experiment<'e> {
    protection: Protection,
    cluster: &'e Cluster,
    manifests: &'e Manifests,
    namespace: &'e str,
    /// The pod's spec as it was.
    before: Option<Value>,
}

impl<'e> Experiment<'e> {
    /// Refuses where others may depend on the protection.
    ///
    /// # Errors
    /// On a real cluster's default namespace; exit code 2.
    pub(super) fn new(
        cx: &'e Cx,
        protection: Protection,
        cluster: &'e Cluster,
        manifests: &'e Manifests,
    ) -> Result<Experiment<'e>> {
        let namespace = cx.shared.namespace.as_str();
        let is_sandbox = matches!(cluster.kind, Kind::Sandbox(_));
        if !is_sandbox && (namespace == "default" || protection == Protection::Gates) {
            let refused = anyhow!("--without removes a protection from whatever runs in `{namespace}`");
            return Err(refused)
                .hint("run it on the sandbox (--cluster sandbox), or in a namespace of its own (--namespace)")
                .exit(Exit::Usage);
        }
        Ok(Experiment { protection, cluster, manifests, namespace, before: None })
    }

    /// Takes it away, and waits until the pods are without it.
    ///
    /// # Errors
    /// When the API refuses, or the pods do not come up without it.
    pub(super) async fn take_away(&mut self, branch: &mut Branch<'_>) -> Result<()> {
        let cx = branch.cx;
        if self.protection == Protection::Gates {
            return Ok(());
        }
        let name = self.manifests.deployment_name();
        let deployment = self.api().get(name).await.with_context(|| format!("reading deployment/{name}"))?;
        let spec = deployment
            .spec
            .and_then(|spec| spec.template.spec)
            .context("the Deployment has no pod template")?;
        let before = serde_json::to_value(spec).context("reading the pod's spec")?;
        let without = self.protection.without(&before);
        // Whatever comes of the attempt, the spec of before is put back.
        self.before = Some(before);
        if self.protection == Protection::PreStop {
            self.pace_proxy(Some(SYNC_SECONDS)).await?;
        }
        step(branch, "remove-protection", async |_| {
            cx.unless_stopped(self.put(&without)).await?;
            Ok(Outcome::Did((), format!("deployment/{name} runs without {}", self.protection.name())))
        })
        .await?;
        self.settled(branch).await
    }

    /// The moment before the first request.
    ///
    /// # Errors
    /// When the API refuses.
    pub(super) async fn begin(&self) -> Result<()> {
        if self.protection == Protection::Gates {
            let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), INGRESS_NAMESPACE);
            let selected = ListParams::default().labels(CONTROLLER_PODS);
            pods.delete_collection(&DeleteParams::default().grace_period(0), &selected)
                .await
                .context("restarting the ingress controller")?;
            self.entry_gone().await;
        }
        Ok(())
    }

    /// Waits until the entry takes no connection, or has had time enough to close.
    async fn entry_gone(&self) {
        let Some((_, address)) = self.cluster.entry.split_once("://") else { return };
        let gone = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(ENTRY_CLOSES, gone).await;
    }

    /// How often the sandbox's proxy may take up changes; `None` is at once.
    async fn pace_proxy(&self, seconds: Option<&str>) -> Result<()> {
        if !matches!(self.cluster.kind, Kind::Sandbox(_)) {
            return Ok(());
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client().clone(), INGRESS_NAMESPACE);
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": PROXY_CONFIG},
            "data": seconds.map_or_else(|| json!({}), |seconds| json!({"sync-seconds": seconds})),
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(PROXY_CONFIG, &params, &Patch::Apply(object))
            .await
            .with_context(|| format!("setting the proxy's pace in configmap/{PROXY_CONFIG}"))?;
        Ok(())
    }

    /// Puts it back; waits for it unless the run is told to stop.
    ///
    /// # Errors
    /// When the API refuses, or the pods do not come up.
    pub(super) async fn put_back(&self, branch: &mut Branch<'_>) -> Result<()> {
        let Some(before) = &self.before else { return Ok(()) };
        let put = async {
            self.put(before).await?;
            if self.protection == Protection::PreStop { self.pace_proxy(None).await } else { Ok(()) }
        };
        let cx = branch.cx;
        put.await
            .context("putting the protection back")
            .hint(format!("`{}` puts it back too", cx.commands.xtask("redeploy")))?;
        if cx.is_stopped() { Ok(()) } else { self.settled(branch).await }
    }

    async fn settled(&self, branch: &mut Branch<'_>) -> Result<()> {
        let target = Rollout::as_deployed(self.namespace, self.manifests);
        gates::settled::wait(branch, self.client(), &target).await.map(drop)
    }

    async fn put(&self, pod: &Value) -> Result<()> {
        let name = self.manifests.deployment_name();
        // A merge patch replaces a list as a whole, so what is missing from it is gone.
        let spec = json!({
            "containers": pod["containers"],
            "terminationGracePeriodSeconds": pod["terminationGracePeriodSeconds"],
        });
        let patch = json!({"spec": {"template": {"spec": spec}}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.api()
            .patch(name, &params, &Patch::Merge(patch))
            .await
            .with_context(|| format!("patching deployment/{name}"))?;
        Ok(())
    }

    fn api(&self) -> Api<Deployment> {
        Api::namespaced(self.client().clone(), self.namespace)
    }

    fn client(&self) -> &'e Client {
        &self.cluster.client
    }
}

impl Protection {
    /// A pod's spec without it.
    fn without(self, pod: &Value) -> Value {
        let mut pod = pod.clone();
        if self == Protection::Grace {
            pod["terminationGracePeriodSeconds"] = 1.into();
        }
        let is_ours = |container: &&mut Value| {
            let image = container["image"].as_str().unwrap_or_default();
            image.split(':').next() == Some(REPOSITORY)
        };
        let containers = pod["containers"].as_array_mut().into_iter().flatten();
        for container in containers.filter(is_ours).filter_map(Value::as_object_mut) {
            let fields: &[&str] = match self {
                Protection::StartupProbe | Protection::ReadinessProbe => &["startupProbe", "readinessProbe"],
                // A grace that is used up by the pause alone would show nothing of the requests.
                Protection::PreStop | Protection::Grace => &["lifecycle"],
                Protection::Gates => &[],
            };
            for field in fields {
                container.remove(*field);
            }
        }
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_goes() {
        let pod = json!({
            "terminationGracePeriodSeconds": 45,
            "containers": [
                {"name": "app", "image": "simple-model-api:abc", "startupProbe": 1, "readinessProbe": 2,
                 "livenessProbe": 3, "lifecycle": 4},
                {"name": "other", "image": "else", "startupProbe": 1, "lifecycle": 4},
            ],
        });
        let fields = |protection: Protection| {
            let without = protection.without(&pod);
            assert_eq!(without["containers"][1], pod["containers"][1]);
            let left: Vec<String> =
                without["containers"][0].as_object().expect("a container").keys().cloned().collect();
            (left.join(" "), without["terminationGracePeriodSeconds"].clone())
        };
        let rest = |text: &str, grace: i64| (text.to_owned(), json!(grace));
        assert_eq!(fields(Protection::StartupProbe), rest("image lifecycle livenessProbe name", 45));
        assert_eq!(fields(Protection::ReadinessProbe), fields(Protection::StartupProbe));
        assert_eq!(
            fields(Protection::PreStop),
            rest("image livenessProbe name readinessProbe startupProbe", 45)
        );
        assert_eq!(fields(Protection::Grace).1, json!(1));
        assert_eq!(Protection::Gates.without(&pod), pod);
    }
}
