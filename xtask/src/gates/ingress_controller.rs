//! The second gate behind the ingress add-on: the controller is rolled out, and its admission webhook takes our
//! Ingress.
//!
//! The webhook's `failurePolicy` is `Fail`: until it serves, applying any Ingress fails. A server-side dry run of the
//! very Ingress asks it, and changes nothing.

use std::time::Duration;

use anyhow::Result;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::api::{Patch, PatchParams};

use super::kind::Kind;
use super::rollout::{RolledOut, Rollout};
use super::{Gate, Site, Standing, Verdict, evidence, settled};
use crate::failure::reason;
use crate::ingress_nginx::{CONTROLLER_PODS, DEPLOYMENT, NAMESPACE};
use crate::kubernetes::{Api, one_line};
use crate::pipeline::{Branch, Done};

/// The gate.
pub const GATE: Gate = Gate {
    name: "ingress-controller",
    opens_when: "the controller is rolled out and its webhook accepts the app's Ingress",
    // From the addon's switching on: minikube itself waits six minutes for its images and pods.
    deadline: Duration::from_secs(420),
    standing: Some(Standing {
        look: |site| Box::pin(look(&site.cluster.client, &site.manifests.ingress, site.namespace)),
        wait: |branch, site| {
            Box::pin(async move {
                let Site { cluster, manifests, namespace } = site;
                wait(branch, &cluster.client, &manifests.ingress, namespace).await.map(drop)
            })
        },
    }),
};
const POLL_EVERY: Duration = Duration::from_millis(250);
/// A webhook that hangs is given 10 s by the API server.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until the controller takes `ingress` in `namespace`, which exists.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(
    branch: &mut Branch<'_>,
    client: &Client,
    ingress: &Ingress,
    namespace: &str,
) -> Result<Done<()>> {
    let cx = branch.cx;
    let further = cx.commands.kubectl(&format!("-n {NAMESPACE} describe deployment/{DEPLOYMENT}"));
    super::wait(branch, &GATE, further, verdicts(client, ingress, namespace), async || {
        let about = evidence::About {
            namespace: NAMESPACE,
            workload: Some((Kind::Deployment, DEPLOYMENT)),
            selector: Some(CONTROLLER_PODS),
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
pub async fn look(client: &Client, ingress: &Ingress, namespace: &str) -> Result<Verdict> {
    Ok(match settled::look(client, &controller()).await? {
        Verdict::Open(rolled_out, _) => judge(&rolled_out, dry_run(client, ingress, namespace).await),
        other => closed(other),
    })
}

fn controller() -> Rollout {
    Rollout {
        namespace: NAMESPACE.to_owned(),
        deployment: DEPLOYMENT.to_owned(),
        selector: CONTROLLER_PODS.to_owned(),
        ..Rollout::default()
    }
}

fn closed(verdict: Verdict<RolledOut>) -> Verdict {
    match verdict {
        Verdict::Open(_, line) | Verdict::Closed(line) => Verdict::Closed(line),
        Verdict::Suspect(line) => Verdict::Suspect(line),
        Verdict::Doomed(why, hint) => Verdict::Doomed(why, hint),
    }
}

/// First the rollout, and as long as that stands, the webhook.
pub(super) fn verdicts<'w>(
    client: &'w Client,
    ingress: &'w Ingress,
    namespace: &'w str,
) -> impl Stream<Item = Result<Verdict>> + 'w {
    let rollouts = Box::pin(settled::verdicts(client, &controller()));
    futures::stream::unfold(
        (rollouts, None, Duration::ZERO),
        move |(mut rollouts, mut up, pause)| async move {
            loop {
                let asked = async {
                    match &up {
                        Some(rolled_out) => {
                            tokio::time::sleep(pause).await;
                            judge(rolled_out, dry_run(client, ingress, namespace).await)
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    verdict = rollouts.next() => match verdict? {
                        Ok(Verdict::Open(rolled_out, _)) => up = Some(rolled_out),
                        Ok(other) => return Some((Ok(closed(other)), (rollouts, None, Duration::ZERO))),
                        Err(error) => return Some((Err(error), (rollouts, None, Duration::ZERO))),
                    },
                    verdict = asked => return Some((Ok(verdict), (rollouts, up, POLL_EVERY))),
                }
            }
        },
    )
}

/// What the API server said to a dry run.
pub(super) enum Answer {
    Accepted,
    Refused(Box<kube::core::Status>),
    None(String),
}

async fn dry_run(client: &Client, ingress: &Ingress, namespace: &str) -> Answer {
    let api: Api<Ingress> = Api::namespaced(client.clone(), namespace);
    let name = ingress.metadata.name.as_deref().unwrap_or_default();
    let mut applied = ingress.clone();
    applied.metadata.namespace = Some(namespace.to_owned());
    let params = PatchParams { dry_run: true, ..PatchParams::apply("xtask").force() };
    match tokio::time::timeout(PATIENCE, api.patch(name, &params, &Patch::Apply(&applied))).await {
        Ok(Ok(_)) => Answer::Accepted,
        Ok(Err(kube::Error::Api(status))) => Answer::Refused(status),
        Ok(Err(error)) => Answer::None(reason(&error)),
        Err(_) => Answer::None(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Judges the webhook's answer, once the controller is rolled out.
pub(super) fn judge(controller: &RolledOut, answer: Answer) -> Verdict {
    match answer {
        Answer::Accepted => {
            let pod = controller.pods.first().map_or("", |pod| pod.name.as_str());
            Verdict::Open((), format!("{pod} Ready, its webhook accepts the app's Ingress"))
        }
        Answer::Refused(status) if is_denial(&status) => Verdict::Doomed(
            format!("the app's Ingress is refused: {}", one_line(&status.message)),
            "fix kubernetes/70-ingress.yaml, or remove what it conflicts with".into(),
        ),
        Answer::Refused(status) => Verdict::Closed(format!(
            "the controller is up, its webhook is not: {}",
            one_line(&status.message)
        )),
        Answer::None(why) => Verdict::Closed(format!("the API server does not answer the dry run: {why}")),
    }
}

/// Whether the Ingress itself was found wanting, by the webhook or by the API; a webhook that can't be reached is a
/// 500.
fn is_denial(status: &kube::core::Status) -> bool {
    status.message.contains("denied the request") || matches!(status.code, 400 | 422)
}
