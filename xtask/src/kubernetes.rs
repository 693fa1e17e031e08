//! What Kubernetes' own objects say: conditions, the one thing that all kinds say in the same words; whether a pod is
//! Ready; when an event was. And how they are listed, and read untyped.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::api::core::v1::{Event, NodeCondition, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIServiceCondition;
use kube::Resource;
use kube::api::{ListParams, ObjectList};
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;

pub use self::api::Api;

mod api;

/// The APIService of the resource metrics.
pub const METRICS_API: &str = "v1beta1.metrics.k8s.io";

/// How many objects a list brings at a time.
const PAGE: u32 = 500;

/// Hands over what `list` answers page by page, so that no more than one is held, however many there are.
///
/// # Errors
/// What `list` says; the pages before have been handed over then.
pub async fn each_page<T: Clone>(
    params: ListParams,
    list: impl AsyncFn(&ListParams) -> kube::Result<ObjectList<T>>,
    mut take: impl FnMut(Vec<T>),
) -> kube::Result<()> {
    let mut params = params.limit(PAGE);
    loop {
        let page = list(&params).await?;
        take(page.items);
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(());
        }
    }
}

/// An untyped object as what it is.
///
/// # Errors
/// When it does not read as one of that kind.
pub fn typed<K: Resource + DeserializeOwned>(object: DynamicObject) -> serde_json::Result<K> {
    let mut typed: K = serde_json::from_value(object.data)?;
    // This part has been read.
    *typed.meta_mut() = object.metadata;
    Ok(typed)
}

/// A condition of any kind of object.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'o> {
    /// Such as `Ready`.
    pub name: &'o str,
    /// `True`, `False` or `Unknown`.
    pub status: &'o str,
    /// One CamelCase word.
    pub reason: &'o str,
    /// For a reader.
    pub message: &'o str,
    /// Since when it has this status.
    pub since: Option<Timestamp>,
}

impl Condition<'_> {
    /// Whether it holds.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// Reason and message in one line, as far as there are any.
    #[must_use]
    pub fn why(&self) -> String {
        match (self.reason.is_empty(), self.message.is_empty()) {
            (false, false) => format!("{}: {}", self.reason, one_line(self.message)),
            (false, true) => self.reason.to_owned(),
            (true, false) => one_line(self.message),
            (true, true) => format!("{}={}, without a reason", self.name, self.status),
        }
    }

    /// All of it in one line.
    #[must_use]
    pub fn line(&self) -> String {
        if self.reason.is_empty() && self.message.is_empty() {
            return format!("{}={}", self.name, self.status);
        }
        format!("{}={} {}", self.name, self.status, self.why())
    }
}

/// What can be read as a [`Condition`].
pub trait AsCondition {
    /// The same, in the common form.
    fn as_condition(&self) -> Condition<'_>;
}

macro_rules! as_condition {
    ($($kind:ty),*) => {$(
        impl AsCondition for $kind {
            fn as_condition(&self) -> Condition<'_> {
                Condition {
                    name: &self.type_,
                    status: &self.status,
                    reason: self.reason.as_deref().unwrap_or_default(),
                    message: self.message.as_deref().unwrap_or_default(),
                    since: self.last_transition_time.as_ref().map(|Time(at)| *at),
                }
            }
        }
    )*};
}
as_condition!(
    APIServiceCondition,
    DeploymentCondition,
    HorizontalPodAutoscalerCondition,
    JobCondition,
    NodeCondition,
    PodCondition
);

/// The condition of that name, where there is one.
pub fn find<'o, C: AsCondition>(conditions: Option<&'o Vec<C>>, name: &str) -> Option<Condition<'o>> {
    conditions?.iter().map(AsCondition::as_condition).find(|condition| condition.name == name)
}

/// Text from elsewhere, fit for a line: the blanks folded, the end cut off.
#[must_use]
pub fn one_line(text: &str) -> String {
    const MOST: usize = 300;
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match folded.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}…", &folded[..cut]),
        None => folded,
    }
}

/// Whether the pod says that it is Ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|ready| ready.is_true())
}

/// A condition of a pod.
pub fn pod_condition<'p>(pod: &'p Pod, name: &str) -> Option<Condition<'p>> {
    find(pod.status.as_ref()?.conditions.as_ref(), name)
}

/// When an event last happened.
#[must_use]
pub fn event_time(event: &Event) -> Option<Timestamp> {
    let micro = |time: &Option<MicroTime>| time.as_ref().map(|MicroTime(at)| *at);
    let whole = |time: &Option<Time>| time.as_ref().map(|Time(at)| *at);
    let in_series = event.series.as_ref().and_then(|series| micro(&series.last_observed_time));
    last_told(
        [in_series, whole(&event.last_timestamp)],
        micro(&event.event_time),
        whole(&event.metadata.creation_timestamp),
    )
}

/// [`event_time`] of one that is not worth reading as a whole.
#[must_use]
pub fn untyped_event_time(event: &DynamicObject) -> Option<Timestamp> {
    let told = |at: &str| event.data.pointer(at)?.as_str()?.parse().ok();
    let created = event.metadata.creation_timestamp.as_ref().map(|Time(at)| *at);
    last_told([told("/series/lastObservedTime"), told("/lastTimestamp")], told("/eventTime"), created)
}

/// The later of the times when it was told again; where it never was, when it was told first.
fn last_told(
    again: [Option<Timestamp>; 2],
    first: Option<Timestamp>,
    created: Option<Timestamp>,
) -> Option<Timestamp> {
    again.into_iter().max().flatten().or(first).or(created)
}
