//! Ingress controller and metrics API, as minikube's addons.

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use super::profile::Profile;
use super::{Minikube, words};
use crate::clusters::{Cluster, Problem};
use crate::cx::Cx;
use crate::ingress_nginx;
use crate::kubernetes::{Api, METRICS_API};
use crate::pipeline::{Outcome, Running};
use crate::proc;

pub(super) const INGRESS: &str = "ingress";
pub(super) const METRICS: &str = "metrics-server";
const TRAEFIK: &str = "traefik";

impl Minikube {
    pub(in crate::clusters) async fn enable_ingress(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        cluster: &Cluster,
    ) -> Result<Outcome<()>> {
        let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), ingress_nginx::NAMESPACE);
        let there = async {
            let found = api.get_opt(ingress_nginx::DEPLOYMENT).await;
            Ok(found.context("looking for the ingress controller")?.is_some())
        };
        self.enable(cx, step, INGRESS, there).await
    }

    pub(in crate::clusters) async fn enable_metrics(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        cluster: &Cluster,
    ) -> Result<Outcome<()>> {
        let api: Api<APIService> = Api::all(cluster.client.clone());
        let there = async {
            let found = api.get_opt(METRICS_API).await;
            Ok(found.context("looking for the metrics API")?.is_some())
        };
        self.enable(cx, step, METRICS, there).await
    }

    /// An addon is on when the profile says so and its objects are there: the first alone comes of a profile that
    /// was stopped meanwhile, the second alone of two that were switched on at once, and the next start drops it.
    async fn enable(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        addon: &str,
        there: impl Future<Output = Result<bool>>,
    ) -> Result<Outcome<()>> {
        let _turn = self.turn(cx, step).await?;
        let in_profile = self.profile(cx).await?.is_some_and(|profile| profile.has_addon(addon));
        if in_profile && cx.unless_stopped(there).await? {
            return Ok(Outcome::Already((), format!("addon {addon} is enabled")));
        }
        let mut heard = words::Heard::default();
        proc::run_with(cx, step, self.command(&["addons", "enable", addon])?, |line| heard.line(line))
            .await
            .map_err(|error| heard.explain(error, &self.look_further()))
            .with_context(|| format!("enabling minikube's addon {addon}"))?;
        Ok(Outcome::Did((), format!("addon {addon} enabled")))
    }

    /// Another ingress controller in the place of the one that this tool knows.
    pub(super) fn other_controller(&self, profile: &Profile) -> Option<Problem> {
        (profile.has_addon(TRAEFIK) && !profile.has_addon(INGRESS)).then(|| Problem {
            what: format!(
                "the minikube profile `{}` has the addon {TRAEFIK} enabled and ingress-nginx (addon \
                 {INGRESS}) disabled: both \
                 take port 80 of the node, so only one of them can be enabled, and only ingress-nginx is \
                 supported (the ingress \
                 gates read its lease and webhook, `load` explains failures from its access log)",
                self.profile
            ),
            fix: format!(
                "`minikube --profile {} addons disable {TRAEFIK}` and run again, or use another profile \
                 with --profile",
                self.profile
            ),
        })
    }
}
