//! The rollout gate of workloads that are no Deployment: StatefulSets, DaemonSets and Jobs, by the same rules. What is
//! theirs alone, such as pods in order or one on each node, their own file says.

use std::fmt::Debug;

use anyhow::Result;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::bad_sign::{self, Bad, Fleet, Probes, Signs};
use super::clock::Clock;
use super::events;
use super::kind::Kind;
use super::rollout::{self, Rollout};
use super::watch::{self, Feed, Objects};
use super::{Verdict, pod, settled};
use crate::commands::Advice;
use crate::kubernetes::{Api, event_time};
use crate::owned::controller;

pub(super) mod daemon_set;
pub(super) mod job;
pub(super) mod stateful_set;

/// Until when a workload is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// Its newest pods are all there and available; of a Job: it has completed.
    Rollout,
    /// And no old pod is left, terminating ones included.
    Settled,
}

/// One workload in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its kind.
    pub kind: Kind,
    /// Where.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The label selector of its pods.
    pub selector: String,
}

impl Workload {
    /// As kubectl writes it: `deployment/web`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}/{}", self.kind.word(), self.name)
    }

    /// Looks it up; none where it is not there.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn find(
        client: &Client,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> kube::Result<Option<Workload>> {
        let selector = match kind {
            Kind::Deployment => selector(get::<Deployment>(client, namespace, name).await?, |one| {
                one.spec.map(|spec| spec.selector)
            }),
            Kind::StatefulSet => selector(get::<StatefulSet>(client, namespace, name).await?, |one| {
                one.spec.map(|spec| spec.selector)
            }),
            Kind::DaemonSet => selector(get::<DaemonSet>(client, namespace, name).await?, |one| {
                one.spec.map(|spec| spec.selector)
            }),
            Kind::Job => selector(get::<Job>(client, namespace, name).await?, |one| one.spec?.selector),
        };
        let found =
            |selector| Workload { kind, namespace: namespace.to_owned(), name: name.to_owned(), selector };
        Ok(selector.map(found))
    }

    /// Verdicts on it as it changes.
    pub fn verdicts(&self, client: &Client, until: Until) -> BoxStream<'static, Result<Verdict>> {
        let deployment = || Rollout {
            namespace: self.namespace.clone(),
            deployment: self.name.clone(),
            selector: self.selector.clone(),
            was_there: true,
            ..Rollout::default()
        };
        let named = client.clone();
        let verdicts = match (self.kind, until) {
            (Kind::Deployment, Until::Rollout) => plain(rollout::verdicts(client, &deployment())),
            (Kind::Deployment, Until::Settled) => plain(settled::verdicts(client, &deployment())),
            (Kind::StatefulSet, _) => self.watch(client, until, stateful_set::judge),
            (Kind::DaemonSet, _) => self.watch(client, until, daemon_set::judge),
            (Kind::Job, _) => self.watch(client, until, job::judge),
        };
        // Advice about a cordoned node names it.
        verdicts
            .then(move |verdict| {
                let client = named.clone();
                async move { Ok(rollout::name_node(&client, verdict?).await) }
            })
            .boxed()
    }

    fn watch<K>(&self, client: &Client, until: Until, judge: Judge<K>) -> BoxStream<'static, Result<Verdict>>
    where
        K: Kinded,
    {
        let Workload { namespace, name, selector, .. } = self;
        let api = || Api::namespaced(client.clone(), namespace);
        let pods = watcher::Config::default().labels(selector);
        let feeds = vec![
            Feed::watch_one(api(), name, |s: &mut Snapshot<K>| &mut s.objects),
            Feed::watch(Api::namespaced(client.clone(), namespace), pods, |s: &mut Snapshot<K>| &mut s.pods),
            events::feed(client, namespace, name, |s: &mut Snapshot<K>| &mut s.events),
        ];
        watch::verdicts(client, Snapshot::of(self.clone(), until), feeds, move |s, clock| {
            s.note(clock);
            let Some(object) = s.objects.get(&s.workload.name) else {
                return Verdict::Doomed(
                    format!("{} was deleted", s.workload.title()),
                    "make it again".into(),
                );
            };
            if object.meta().deletion_timestamp.is_some() {
                return Verdict::Suspect(format!("{} is being deleted", s.workload.title()));
            }
            judge(s, object, clock)
        })
        .boxed()
    }
}

/// What a kind of workload is to the code here.
pub(super) trait Kinded:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}
impl Kinded for StatefulSet {}
impl Kinded for DaemonSet {}
impl Kinded for Job {}

pub(super) type Judge<K> = fn(&Snapshot<K>, &K, &Clock) -> Verdict;

async fn get<K>(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    Api::namespaced(client.clone(), namespace).get_opt(name).await
}

/// The selector of what was found, as a query.
fn selector<K>(found: Option<K>, of: impl Fn(K) -> Option<LabelSelector>) -> Option<String> {
    let selector = Selector::try_from(of(found?).unwrap_or_default());
    Some(selector.map(|selector| selector.to_string()).unwrap_or_default())
}

fn plain<T: Send + 'static>(
    verdicts: impl Stream<Item = Result<Verdict<T>>> + Send + 'static,
) -> BoxStream<'static, Result<Verdict>> {
    verdicts.map(|verdict| verdict.map(Verdict::without_value)).boxed()
}

/// What was seen of a workload of kind `K`.
pub(super) struct Snapshot<K> {
    pub(super) workload: Workload,
    pub(super) until: Until,
    pub(super) objects: Objects<K>,
    pub(super) pods: Objects<Pod>,
    pub(super) events: Objects<Event>,
    signs: Signs,
}

/// The key of the sign that no pod can be made.
const REFUSED: &str = "refused";

impl<K: Kinded> Snapshot<K> {
    pub(super) fn of(workload: Workload, until: Until) -> Snapshot<K> {
        let (objects, pods, events) = Default::default();
        Snapshot { workload, until, objects, pods, events, signs: Signs::default() }
    }

    /// Remembers what a later judgement needs of this moment.
    pub(super) fn note(&mut self, clock: &Clock) {
        let Some(object) = self.objects.get(&self.workload.name) else { return };
        let pods = self.owned(object);
        let mut keys = Fleet::keys(&pods, &self.events, clock);
        keys.extend(self.refusal(object).map(|_| REFUSED.to_owned()));
        self.signs.note(keys, clock);
    }

    /// The pods that belong to the workload, in the order of their names.
    fn owned(&self, object: &K) -> Vec<&Pod> {
        let uid = object.meta().uid.as_deref();
        let is_owned =
            |pod: &&Pod| uid.is_some() && controller(&pod.metadata).map(|owner| owner.uid.as_str()) == uid;
        self.pods.values().filter(is_owned).collect()
    }

    /// What the API last said when a pod was to be made, where that was a refusal.
    fn refusal(&self, object: &K) -> Option<&Event> {
        let of_creation =
            |event: &&Event| matches!(event.reason.as_deref(), Some("FailedCreate" | "SuccessfulCreate"));
        let about = events::about(&self.events, object.meta().uid.as_deref()?);
        let last = about.filter(of_creation).max_by_key(|event| event_time(event))?;
        (last.reason.as_deref() == Some("FailedCreate")).then_some(last)
    }

    /// The worst of all signs: of the pods, or that no pod can be made while some are missing.
    fn worst(&self, object: &K, fleet: &Fleet<'_>, missing: bool, clock: &Clock) -> Option<Bad> {
        let of_pods = fleet.worst(clock);
        if of_pods.as_ref().is_some_and(|bad| bad.permanent) || !missing {
            return of_pods;
        }
        let refused = self.refusal(object).map(|event| {
            let message = event.message.as_deref().unwrap_or_default();
            let stands = self.signs.lasted(REFUSED, pod::REFUSAL_GRACE, clock) && !fleet.frees;
            // The controller's own words come before the API's.
            bad_sign::refused(message.split_once(": ").map_or(message, |(_, said)| said), stands)
        });
        refused.or(of_pods)
    }

    fn fleet<'s>(&'s self, pods: &'s [&'s Pod], frees: bool) -> Fleet<'s> {
        static NOT_WRITTEN_HERE: Probes = Probes::new();
        Fleet {
            namespace: &self.workload.namespace,
            pods,
            events: &self.events,
            signs: &self.signs,
            probes: &NOT_WRITTEN_HERE,
            frees,
            each_counts: true,
            call: |pod| pod::short(pod).to_owned(),
        }
    }

    /// The first pod that is Ready and may not stay so.
    fn unsteady(&self, pods: &[&Pod], clock: &Clock) -> Option<String> {
        pods.iter().find_map(|pod| {
            let why = pod::unsteady(pod, &events::about_pod(&self.events, pod), clock)?;
            Some(format!("{} Ready; {}: {why}", pods.len(), pod::name(pod)))
        })
    }

    /// What a pod that is not Ready waits for.
    fn state(&self, pod: &Pod, clock: &Clock) -> String {
        pod::state(pod, &events::about_pod(&self.events, pod), clock)
    }

    /// Arguments of kubectl, in the workload's namespace.
    fn kubectl(&self, arguments: &str, what_for: &'static str) -> Advice {
        Advice::Kubectl(format!("-n {} {arguments}", self.workload.namespace), what_for)
    }
}

/// Pods, sorted by what is to become of them.
struct Sorted<'s> {
    newest: Vec<&'s Pod>,
    old: Vec<&'s Pod>,
    terminating: Vec<&'s Pod>,
}

impl<'s> Sorted<'s> {
    fn of(pods: Vec<&'s Pod>, is_newest: impl Fn(&Pod) -> bool) -> Sorted<'s> {
        let mut sorted = Sorted { newest: Vec::new(), old: Vec::new(), terminating: Vec::new() };
        for pod in pods {
            if pod.metadata.deletion_timestamp.is_some() {
                sorted.terminating.push(pod);
            } else if pod::is_over(pod) {
                // Its controller makes another in its place.
            } else if is_newest(pod) {
                sorted.newest.push(pod);
            } else {
                sorted.old.push(pod);
            }
        }
        sorted
    }

    /// The pods that are still to go, said behind what is waited for.
    fn rest(&self) -> String {
        let mut rest = String::new();
        for (pods, word) in [(&self.old, "old left"), (&self.terminating, "terminating")] {
            if !pods.is_empty() {
                rest += &format!("; {} {word} ({})", pods.len(), names(pods, pod::name));
            }
        }
        rest
    }
}

fn names(pods: &[&Pod], call: impl Fn(&Pod) -> &str) -> String {
    /// More are only counted.
    const MOST: usize = 5;
    let mut names: Vec<&str> = pods.iter().take(MOST).map(|pod| call(pod)).collect();
    let more = format!("{} more", pods.len().saturating_sub(MOST));
    if pods.len() > MOST {
        names.push(&more);
    }
    names.join(", ")
}
