//! `--without`: one protection is removed, and the failures that it prevents come back.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;
use tokio::net::TcpStream;

use super::disturb::Disturbance;
use crate::clusters::{Cluster, Kind};
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::gates::{self, Site};
use crate::ingress_nginx::{CONTROLLER_PODS, NAMESPACE as INGRESS_NAMESPACE};
use crate::kubernetes::Api;
use crate::pipeline::{Branch, Outcome, step};
use crate::repository::REPOSITORY;
use crate::temporary::{Changes, Undo};

/// ingress-nginx takes up changes 0.3 times a second (`--sync-rate-limit`).
const SYNC_SECONDS: &str = "3.3";
/// A controller that is killed has closed its port by then.
const ENTRY_CLOSES: Duration = Duration::from_secs(3);

/// The name of its step.
pub(super) const NAME: &str = "remove-protection";

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

    /// The disturbances in which it shows its worth; the gates before a load show theirs without one.
    pub fn concerns(self) -> &'static [Disturbance] {
        match self {
            Protection::StartupProbe | Protection::ReadinessProbe => &[Disturbance::Rollout],
            Protection::PreStop | Protection::Grace => {
                &[Disturbance::Rollout, Disturbance::ScaleDown, Disturbance::PodDelete]
            }
            Protection::Gates => &[],
        }
    }
}

/// Refuses where others may depend on the protection.
///
/// # Errors
/// On a real cluster's default namespace; exit code 2.
pub(crate) fn allow(cx: &Cx, protection: Protection, cluster: &Cluster) -> Result<()> {
    let namespace = cx.shared.namespace.as_str();
    if !is_sandbox(cluster) && (namespace == "default" || protection == Protection::Gates) {
        let refused = anyhow!("--without removes a protection from whatever runs in `{namespace}`");
        return Err(refused)
            .hint("run it on the sandbox (--cluster sandbox), or in a namespace of its own (--namespace)")
            .exit(Exit::Usage);
    }
    Ok(())
}

fn is_sandbox(cluster: &Cluster) -> bool {
    matches!(cluster.kind, Kind::Sandbox(_))
}

/// Removes a protection from the pods, and waits until they are without it.
///
/// # Errors
/// When the API refuses, or the pods do not come up without it.
pub(super) async fn remove(
    branch: &mut Branch<'_>,
    changes: &mut Changes<'_>,
    protection: Protection,
    site: &Site<'_>,
) -> Result<()> {
    let (cx, app) = (branch.cx, changes.app);
    let paces = protection == Protection::PreStop && is_sandbox(site.cluster);
    step(branch, NAME, async |_| {
        let before = cx.unless_stopped(app.pod()).await?;
        let part = |pod: &Value, field: &str| pod.get(field).cloned().unwrap_or_default();
        let (containers, grace) = (part(&before, "containers"), part(&before, GRACE));
        let pace = paces.then_some(Undo::ProxyPace);
        let undo = [Undo::Pod { containers, grace }].into_iter().chain(pace);
        changes.begin(&format!("without {}", protection.name()), undo.collect()).await?;
        let without = protection.without(&before);
        cx.unless_stopped(async {
            if paces {
                app.pace_proxy(Some(SYNC_SECONDS)).await?;
            }
            app.remake(&part(&without, "containers"), &part(&without, GRACE)).await
        })
        .await?;
        Ok(Outcome::Did((), format!("deployment/{} runs without {}", app.deployment, protection.name())))
    })
    .await?;
    gates::settled::wait(branch, app.client, &site.rollout()).await.map(drop)
}

/// Restarts the ingress controller, and waits until the entry takes no connection.
///
/// # Errors
/// When the API refuses.
pub(super) async fn restart_entry(cluster: &Cluster) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), INGRESS_NAMESPACE);
    let selected = ListParams::default().labels(CONTROLLER_PODS);
    pods.delete_collection(&DeleteParams::default().grace_period(0), &selected)
        .await
        .context("restarting the ingress controller")?;
    let Some((_, address)) = cluster.entry.split_once("://") else { return Ok(()) };
    let gone = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let _ = tokio::time::timeout(ENTRY_CLOSES, gone).await;
    Ok(())
}

/// The field of a pod's grace period.
const GRACE: &str = "terminationGracePeriodSeconds";

impl Protection {
    /// A pod's spec without it.
    fn without(self, pod: &Value) -> Value {
        let mut pod = pod.clone();
        if self == Protection::Grace {
            pod[GRACE] = 1.into();
        }
        let is_app = |container: &&mut Value| {
            let image = container["image"].as_str().unwrap_or_default();
            image.split(':').next() == Some(REPOSITORY)
        };
        let containers = pod["containers"].as_array_mut().into_iter().flatten();
        for container in containers.filter(is_app).filter_map(Value::as_object_mut) {
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
    use serde_json::json;

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
