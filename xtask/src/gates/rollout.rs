//! The gate behind a deployment: the newest pods are all there, all available, all of the built image. Old ones may be
//! on their way out beside them; that they are gone is another gate, [`super::settled`].
//!
//! "Newest" is what the Deployment controller calls so: the ReplicaSet whose template is the Deployment's. What is
//! compared of the image: the digests of the build with `containerStatuses[].imageID` of the containers that the
//! template gives that image.

use std::time::Duration;

use anyhow::Result;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};

use super::bad_sign::{Fleet, Probes, Signs};
use super::clock::Clock;
use super::events;
use super::kind::Kind;
use super::watch::{self, Feed, Objects};
use super::{Gate, Standing, Verdict, evidence, pod};
use crate::commands::Advice;
use crate::image::{Digests, ImageRef};
use crate::kubernetes::Api;
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done};

pub(super) mod judge;
pub(super) mod view;

pub use judge::judge;

/// The gate.
pub const GATE: Gate = Gate {
    name: "rollout",
    opens_when: "the newest ReplicaSet is updated and available, and each of its pods runs the built image",
    deadline: Duration::from_secs(600),
    standing: Some(Standing {
        look: |site| {
            Box::pin(async { Ok(look(&site.cluster.client, &site.rollout()).await?.without_value()) })
        },
        wait: |branch, site| {
            Box::pin(async move { wait(branch, &site.cluster.client, &site.rollout()).await.map(drop) })
        },
    }),
};

/// What is to be rolled out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// Where.
    pub namespace: String,
    /// The Deployment's name.
    pub deployment: String,
    /// The digests of the built image; none compares none.
    pub digests: Digests,
    /// Its reference, as the Deployment's template names it; empty takes what the template names.
    pub image: String,
    /// The autoscaler's minimum, where there is an autoscaler.
    pub min_replicas: Option<i32>,
    /// Where each probe is written, by container and `startup`, `readiness` or `liveness`.
    pub probes: Probes,
    /// The label selector of its pods, by which what is watched is chosen; empty watches the whole namespace.
    pub selector: String,
    /// It was there when the wait began: that it is gone is final.
    pub was_there: bool,
}

impl Rollout {
    /// Whatever image the Deployment of these manifests names, for a look at a cluster that something else filled.
    #[must_use]
    pub fn as_deployed(namespace: &str, manifests: &Manifests) -> Rollout {
        Rollout {
            namespace: namespace.to_owned(),
            deployment: manifests.deployment_name().to_owned(),
            min_replicas: manifests.min_replicas(),
            probes: manifests.probes(),
            selector: manifests.pod_selector().to_owned(),
            ..Rollout::default()
        }
    }

    /// The image that was just built, and no other.
    #[must_use]
    pub fn built(namespace: &str, manifests: &Manifests, image: &ImageRef) -> Rollout {
        Rollout {
            digests: image.digests.clone(),
            image: image.reference.clone(),
            ..Rollout::as_deployed(namespace, manifests)
        }
    }
}

/// What was rolled out.
#[derive(Clone, Debug, PartialEq)]
pub struct RolledOut {
    /// The pods, all Ready.
    pub pods: Vec<PodRef>,
    /// How many the Deployment asks for.
    pub replicas: i32,
    /// The Deployment's revision; 0 where it does not count them.
    pub revision: i64,
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodRef {
    /// Its name.
    pub name: String,
    /// Its identity, which a later pod of that name has not.
    pub uid: String,
    /// Its address.
    pub ip: String,
}

/// What was seen of a rollout.
#[derive(Default)]
pub struct Snapshot {
    pub(super) target: Rollout,
    pub(super) deployments: Objects<Deployment>,
    pub(super) replica_sets: Objects<ReplicaSet>,
    pub(super) pods: Objects<Pod>,
    pub(super) events: Objects<Event>,
    pub(super) signs: Signs,
    /// The revision that the wait began with.
    pub(super) first_revision: Option<i64>,
}

/// What a gate on a rollout makes of what was seen.
pub(super) type Judge = fn(&Snapshot, &Clock) -> Verdict<RolledOut>;

impl Snapshot {
    pub(super) fn of(target: &Rollout) -> Snapshot {
        Snapshot { target: target.clone(), ..Snapshot::default() }
    }

    /// Remembers what a later judgement needs of this moment.
    pub(super) fn note(&mut self, clock: &Clock) {
        let (signs, revision) = match self.deployments.get(&self.target.deployment) {
            Some(deployment) => {
                let view = view::View::of(self, deployment);
                let signs = Fleet::keys(&view.newest_pods, &self.events, clock);
                (signs, view.newest.filter(|_| view.is_caught_up()).map(view::revision))
            }
            None => (Vec::new(), None),
        };
        self.signs.note(signs, clock);
        self.first_revision = self.first_revision.or(revision);
    }
}

/// Waits until `target` is rolled out.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(branch: &mut Branch<'_>, client: &Client, target: &Rollout) -> Result<Done<RolledOut>> {
    wait_at(branch, &GATE, client, target, verdicts(client, target)).await
}

/// Waits at a gate on `target`: this one, or that behind it.
pub(super) async fn wait_at(
    branch: &mut Branch<'_>,
    gate: &Gate,
    client: &Client,
    target: &Rollout,
    verdicts: impl Stream<Item = Result<Verdict<RolledOut>>>,
) -> Result<Done<RolledOut>> {
    let Rollout { namespace, deployment, .. } = target;
    let cx = branch.cx;
    let further = cx.commands.kubectl(&format!("-n {namespace} describe deployment/{deployment}"));
    let verdicts = verdicts.then(move |verdict| async move { Ok(name_node(client, verdict?).await) });
    super::wait(branch, gate, further, verdicts, async || {
        let selector = selector(client, target).await;
        let about = evidence::About {
            namespace,
            workload: Some((Kind::Deployment, deployment)),
            selector: selector.as_deref(),
            ..evidence::About::default()
        };
        evidence::collect(cx, client, about).await
    })
    .await
}

/// Advice about a cordoned node names it; where there are several, all of them.
pub(super) async fn name_node<T>(client: &Client, verdict: Verdict<T>) -> Verdict<T> {
    let Verdict::Doomed(why, Advice::Kubectl(arguments, what_for)) = verdict else { return verdict };
    if !arguments.contains(pod::ANY_NODE) {
        return Verdict::Doomed(why, Advice::Kubectl(arguments, what_for));
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let listed = tokio::time::timeout(Duration::from_secs(1), nodes.list(&ListParams::default())).await;
    let nodes = listed.ok().and_then(Result::ok).map(|list| list.items).unwrap_or_default();
    let is_cordoned = |node: &&Node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let names: Vec<_> = nodes.iter().filter(is_cordoned).map(ResourceExt::name_any).collect();
    let names = if names.is_empty() { pod::ANY_NODE.to_owned() } else { names.join(" ") };
    Verdict::Doomed(why, Advice::Kubectl(arguments.replace(pod::ANY_NODE, &names), what_for))
}

/// One look.
///
/// # Errors
/// When the API server does not answer.
pub async fn look(client: &Client, target: &Rollout) -> Result<Verdict<RolledOut>> {
    look_with(client, target, judge).await
}

pub(super) async fn look_with(client: &Client, target: &Rollout, judge: Judge) -> Result<Verdict<RolledOut>> {
    watch::look(client, Snapshot::of(target), feeds(client, target), |s, clock| {
        s.note(clock);
        judge(s, clock)
    })
    .await
}

/// Verdicts on `target` as it changes.
pub(super) fn verdicts(
    client: &Client,
    target: &Rollout,
) -> impl Stream<Item = Result<Verdict<RolledOut>>> + use<> {
    verdicts_with(client, target, judge)
}

pub(super) fn verdicts_with(
    client: &Client,
    target: &Rollout,
    judge: Judge,
) -> impl Stream<Item = Result<Verdict<RolledOut>>> + use<> {
    watch::verdicts(client, Snapshot::of(target), feeds(client, target), move |s, clock| {
        s.note(clock);
        judge(s, clock)
    })
}

fn feeds(client: &Client, target: &Rollout) -> Vec<Feed<Snapshot>> {
    let Rollout { namespace, deployment, .. } = target;
    let of_ours = || match target.selector.as_str() {
        "" => watcher::Config::default(),
        selector => watcher::Config::default().labels(selector),
    };
    vec![
        Feed::watch_one(Api::namespaced(client.clone(), namespace), deployment, |s: &mut Snapshot| {
            &mut s.deployments
        }),
        Feed::watch(Api::namespaced(client.clone(), namespace), of_ours(), |s: &mut Snapshot| {
            &mut s.replica_sets
        }),
        Feed::watch(Api::namespaced(client.clone(), namespace), of_ours(), |s: &mut Snapshot| &mut s.pods),
        events::feed(client, namespace, deployment, |s: &mut Snapshot| &mut s.events),
    ]
}

/// The Deployment's own selector, as a string.
async fn selector(client: &Client, target: &Rollout) -> Option<String> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &target.namespace);
    let get = tokio::time::timeout(Duration::from_secs(1), api.get_opt(&target.deployment));
    let selector = get.await.ok()?.ok()??.spec?.selector;
    kube::core::Selector::try_from(selector).ok().map(|selector| selector.to_string())
}
