//! The gate behind the autoscaler: it reads every metric that it is to scale by. Until then it shows `<unknown>`, and
//! a load test measures that.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricValueStatus,
};
use kube::Client;

use super::clock::Clock;
use super::watch::{self, Feed, Objects};
use super::{Gate, Standing, Verdict, evidence};
use crate::commands::Advice;
use crate::kubernetes::{self, Api, Condition};
use crate::pipeline::{Branch, Done};

/// The gate.
pub const GATE: Gate = Gate {
    name: "autoscaler",
    opens_when: "`ScalingActive`, and a value for each metric",
    // minikube's metrics server scrapes once a minute, and two scrapes are needed.
    deadline: Duration::from_secs(240),
    standing: Some(Standing {
        look: |site| Box::pin(look(&site.cluster.client, site.namespace, site.autoscaler())),
        wait: |branch, site| {
            Box::pin(async move {
                wait(branch, &site.cluster.client, site.namespace, site.autoscaler()).await.map(drop)
            })
        },
    }),
};
/// How long a request that is missing from a pod may be that of an old pod on its way out.
const MISSING_REQUEST_GRACE: Duration = Duration::from_secs(15);

/// What was seen of the autoscaler.
#[derive(Default)]
pub struct Snapshot {
    pub(super) name: String,
    pub(super) autoscalers: Objects<HorizontalPodAutoscaler>,
    /// Since when each bad sign has been there.
    pub(super) signs: BTreeMap<String, Timestamp>,
}

impl Snapshot {
    pub(super) fn of(name: &str) -> Snapshot {
        Snapshot { name: name.to_owned(), ..Snapshot::default() }
    }

    /// Remembers since when the pods are said to lack a request.
    pub(super) fn note(&mut self, clock: &Clock) {
        let reason = self.autoscalers.get(&self.name).and_then(active).filter(misses_request);
        match reason.map(|condition| condition.message.to_owned()) {
            Some(message) if self.signs.contains_key(&message) => {}
            Some(message) => self.signs = BTreeMap::from([(message, clock.now())]),
            None => self.signs.clear(),
        }
    }
}

/// Waits until the autoscaler `hpa` reads all its metrics.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(branch: &mut Branch<'_>, client: &Client, namespace: &str, hpa: &str) -> Result<Done<()>> {
    let cx = branch.cx;
    let further = cx.commands.kubectl(&format!("-n {namespace} describe hpa {hpa}"));
    let verdicts = watch::verdicts(client, Snapshot::of(hpa), feeds(client, namespace, hpa), |s, clock| {
        s.note(clock);
        judge(s, clock)
    });
    super::wait(branch, &GATE, further, verdicts, async || {
        let about = evidence::About { namespace, autoscaler: Some(hpa), ..evidence::About::default() };
        evidence::collect(cx, client, about).await
    })
    .await
}

/// One look.
///
/// # Errors
/// When the API server does not answer.
pub async fn look(client: &Client, namespace: &str, hpa: &str) -> Result<Verdict> {
    watch::look(client, Snapshot::of(hpa), feeds(client, namespace, hpa), |s, clock| judge(s, clock)).await
}

fn feeds(client: &Client, namespace: &str, hpa: &str) -> Vec<Feed<Snapshot>> {
    vec![Feed::watch_one(Api::namespaced(client.clone(), namespace), hpa, |s: &mut Snapshot| {
        &mut s.autoscalers
    })]
}

fn active(hpa: &HorizontalPodAutoscaler) -> Option<Condition<'_>> {
    kubernetes::find(hpa.status.as_ref()?.conditions.as_ref(), "ScalingActive")
}

fn misses_request(active: &Condition<'_>) -> bool {
    !active.is_true() && active.message.contains("missing request for")
}

/// Judges what was seen.
pub fn judge(s: &Snapshot, clock: &Clock) -> Verdict {
    let name = &s.name;
    let Some(hpa) = s.autoscalers.get(name) else {
        return Verdict::Closed(format!("the autoscaler {name} does not exist"));
    };
    let active = active(hpa);
    let wanted: Vec<&MetricSpec> = hpa.spec.iter().flat_map(|spec| spec.metrics.iter().flatten()).collect();
    let current: Vec<&MetricStatus> =
        hpa.status.iter().flat_map(|status| status.current_metrics.iter().flatten()).collect();
    let mut read = Vec::new();
    let mut missing = Vec::new();
    for metric in wanted {
        let wants = wanted_name(metric);
        match current.iter().find(|status| current_name(status) == wants).and_then(|status| value(status)) {
            Some(value) => read.push(format!("{} {value}", wants.1)),
            None => missing.push(wants.1),
        }
    }
    if let Some(condition) = active.filter(Condition::is_true) {
        if missing.is_empty() {
            return Verdict::Open((), format!("reads {}", read.join(", ")));
        }
        let why =
            if condition.reason.is_empty() { String::new() } else { format!(" ({})", condition.reason) };
        return Verdict::Closed(format!("no value yet for {}{why}", missing.join(" and ")));
    }
    let what = if missing.is_empty() {
        String::new()
    } else {
        format!("no value yet for {}; ", missing.join(" and "))
    };
    let Some(condition) = active else {
        return Verdict::Closed(format!("{what}the autoscaler has not read its target yet"));
    };
    let why = format!("{what}scaling is not active ({})", condition.why());
    match condition.reason {
        "ScalingDisabled" => Verdict::Doomed(
            format!("{why}: an autoscaler never scales up from zero"),
            Advice::Kubectl(scale_up(hpa), ""),
        ),
        "InvalidMetricSourceType" | "InvalidSelector" | "AmbiguousSelector" => {
            Verdict::Doomed(why, "fix the autoscaler's manifest".into())
        }
        _ if misses_request(&condition) => {
            let doomed = s
                .signs
                .get(condition.message)
                .is_some_and(|since| clock.passed(*since, MISSING_REQUEST_GRACE));
            let hint = "give every container resources.requests for each metric of the autoscaler";
            if doomed { Verdict::Doomed(why, hint.into()) } else { Verdict::Suspect(why) }
        }
        _ => Verdict::Closed(why),
    }
}

/// Arguments of kubectl that give the autoscaler's target a pod to count from.
fn scale_up(hpa: &HorizontalPodAutoscaler) -> String {
    let namespace = hpa.metadata.namespace.as_deref().unwrap_or("default");
    let target = hpa.spec.as_ref().map(|spec| &spec.scale_target_ref);
    let target = target.map(|target| format!("{}/{}", target.kind.to_lowercase(), target.name));
    format!("-n {namespace} scale {} --replicas=1", target.unwrap_or_default())
}

/// A metric's kind and name; for one container's, the container too.
type MetricName<'m> = (&'m str, String);

fn wanted_name(metric: &MetricSpec) -> MetricName<'_> {
    let name = None
        .or_else(|| metric.resource.as_ref().map(|m| m.name.clone()))
        .or_else(|| metric.container_resource.as_ref().map(|m| format!("{} of {}", m.name, m.container)))
        .or_else(|| metric.pods.as_ref().map(|m| m.metric.name.clone()))
        .or_else(|| metric.object.as_ref().map(|m| m.metric.name.clone()))
        .or_else(|| metric.external.as_ref().map(|m| m.metric.name.clone()));
    (&metric.type_, name.unwrap_or_default())
}

fn current_name(metric: &MetricStatus) -> MetricName<'_> {
    let name = None
        .or_else(|| metric.resource.as_ref().map(|m| m.name.clone()))
        .or_else(|| metric.container_resource.as_ref().map(|m| format!("{} of {}", m.name, m.container)))
        .or_else(|| metric.pods.as_ref().map(|m| m.metric.name.clone()))
        .or_else(|| metric.object.as_ref().map(|m| m.metric.name.clone()))
        .or_else(|| metric.external.as_ref().map(|m| m.metric.name.clone()));
    (&metric.type_, name.unwrap_or_default())
}

/// The current value as the autoscaler compares it: a share of the request, or an amount.
fn value(metric: &MetricStatus) -> Option<String> {
    let current: &MetricValueStatus = None
        .or_else(|| metric.resource.as_ref().map(|m| &m.current))
        .or_else(|| metric.container_resource.as_ref().map(|m| &m.current))
        .or_else(|| metric.pods.as_ref().map(|m| &m.current))
        .or_else(|| metric.object.as_ref().map(|m| &m.current))
        .or_else(|| metric.external.as_ref().map(|m| &m.current))?;
    current
        .average_utilization
        .map(|share| format!("{share} %"))
        .or_else(|| current.average_value.as_ref().map(|amount| amount.0.clone()))
        .or_else(|| current.value.as_ref().map(|amount| amount.0.clone()))
}
