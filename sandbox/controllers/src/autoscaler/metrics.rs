//! The resource metrics API, `metrics.k8s.io/v1beta1`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What one pod uses of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// In thousandths of the resource's unit.
    pub(super) milli: i64,
    pub(super) at: Timestamp,
    /// The time that the sample sums up.
    pub(super) window: Duration,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: ObjectMeta,
    timestamp: Timestamp,
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    #[serde(default)]
    name: String,
    usage: BTreeMap<String, Quantity>,
}

#[derive(Deserialize)]
struct NodeMetrics {
    window: String,
}

/// Whether the metrics of some node have been sampled: before that the window is empty.
pub(crate) async fn any_node(client: &Client) -> kube::Result<bool> {
    let list: List<NodeMetrics> = get(client, "/apis/metrics.k8s.io/v1beta1/nodes").await?;
    Ok(list.items.iter().any(|node| !duration(&node.window).is_zero()))
}

/// The usage of `resource`, by pod name, of the pods that `selector` selects.
///
/// # Errors
/// In the autoscaler's words for an event.
pub(super) async fn usage(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<HashMap<String, Sample>, String> {
    let query = utf8_percent_encode(selector, NON_ALPHANUMERIC);
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={query}");
    let list: List<PodMetrics> = get(client, &path).await.map_err(|error| {
        format!("unable to fetch metrics from resource metrics API: {}", crate::control::message(&error))
    })?;
    if list.items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let sample = |pod: PodMetrics| {
        let counted = pod.containers.iter().filter(|own| container.is_none_or(|wanted| own.name == wanted));
        let amounts: Option<Vec<i64>> =
            counted.map(|own| own.usage.get(resource).and_then(|used| quantity::milli(&used.0))).collect();
        let amounts = amounts.filter(|amounts| !amounts.is_empty())?;
        let sample = Sample { milli: amounts.iter().sum(), at: pod.timestamp, window: duration(&pod.window) };
        Some((pod.metadata.name?, sample))
    };
    Ok(list.items.into_iter().filter_map(sample).collect())
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> kube::Result<T> {
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// A duration as Go writes it (`15.2s`); zero when it can't be read.
fn duration(text: &str) -> Duration {
    text.parse::<SignedDuration>().ok().and_then(|duration| duration.try_into().ok()).unwrap_or_default()
}
