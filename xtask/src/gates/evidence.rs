//! What a gate shows when it fails: conditions, warnings, logs, the node's state, and how to look further.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Node, Pod, PodCondition};
use kube::Client;
use kube::api::{DynamicObject, ListParams, LogParams};

use super::kind::Kind;
use super::pod;
use crate::commands::Commands;
use crate::cx::Cx;
use crate::failure::{Evidence, reason};
use crate::kubernetes::{Api, AsCondition, Condition, event_time, is_ready, one_line};

/// Time for each question: the API server may be what fails, and the bundle as a whole has 5 s.
const PATIENCE: Duration = Duration::from_millis(1500);
const WARNINGS: usize = 8;
const NODES: usize = 8;
const LOG_LINES: i64 = 15;
/// Pods whose logs are shown; the others fail alike.
const PODS: usize = 2;

type Section = (String, Vec<String>);

/// What the evidence is about; what is not given is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// Where to look.
    pub namespace: &'a str,
    /// Its conditions are shown.
    pub workload: Option<(Kind, &'a str)>,
    /// Its conditions are shown.
    pub autoscaler: Option<&'a str>,
    /// The label selector of the pods whose state and logs are shown.
    pub selector: Option<&'a str>,
}

/// Gathers it. What can't be read is said to be so; nothing here fails.
pub async fn collect(cx: &Cx, client: &Client, about: About<'_>) -> Evidence {
    let (objects, pods, warnings, nodes) =
        tokio::join!(objects(client, about), pods(client, about), warnings(client, about), nodes(client));
    let mut sections = objects;
    sections.extend(pods);
    sections.push(warnings);
    sections.push(nodes);
    sections.push(("to look further".to_owned(), further(&cx.commands, about)));
    Evidence(sections)
}

fn further(commands: &Commands, about: About<'_>) -> Vec<String> {
    let namespace = about.namespace;
    let mut lines = Vec::new();
    if let Some((kind, name)) = about.workload {
        lines.push(commands.kubectl(&format!("-n {namespace} describe {}/{name}", kind.word())));
    }
    if let Some(name) = about.autoscaler {
        lines.push(commands.kubectl(&format!("-n {namespace} describe hpa/{name}")));
    }
    let arguments = match about.selector {
        Some(selector) => format!("-n {namespace} describe pods -l {selector}"),
        None => format!("-n {namespace} get pods,events"),
    };
    lines.push(commands.kubectl(&arguments));
    lines
}

/// An answer, or the line that says why there is none.
async fn ask<T>(question: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("could not be read: {}", reason(&error))),
        Err(_) => Err(format!("could not be read: no answer within {:.1} s", PATIENCE.as_secs_f64())),
    }
}

fn conditions<C: AsCondition>(conditions: Option<&Vec<C>>) -> Vec<String> {
    let lines: Vec<String> = conditions.into_iter().flatten().map(|c| c.as_condition().line()).collect();
    if lines.is_empty() { vec!["none".to_owned()] } else { lines }
}

async fn objects(client: &Client, about: About<'_>) -> Vec<Section> {
    let mut sections = Vec::new();
    if let Some((kind, name)) = about.workload {
        let api: kube::Api<DynamicObject> =
            kube::Api::namespaced_with(client.clone(), about.namespace, &kind.resource());
        let lines = match ask(api.get(name)).await {
            Ok(object) => {
                let found = object.data.pointer("/status/conditions").cloned();
                // The fields that all kinds of conditions have.
                let found = found.and_then(|found| serde_json::from_value::<Vec<PodCondition>>(found).ok());
                conditions(found.as_ref())
            }
            Err(why) => vec![why],
        };
        sections.push((format!("conditions of {}/{name}", kind.word()), lines));
    }
    if let Some(name) = about.autoscaler {
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), about.namespace);
        let lines = match ask(api.get(name)).await {
            Ok(hpa) => conditions(hpa.status.as_ref().and_then(|status| status.conditions.as_ref())),
            Err(why) => vec![why],
        };
        sections.push((format!("conditions of hpa/{name}"), lines));
    }
    sections
}

/// State and logs of the pods that are worst off: the newest that are not Ready.
async fn pods(client: &Client, about: About<'_>) -> Vec<Section> {
    let Some(selector) = about.selector else { return Vec::new() };
    let api: Api<Pod> = Api::namespaced(client.clone(), about.namespace);
    let mut pods = match ask(api.list(&ListParams::default().labels(selector))).await {
        Ok(list) => list.items,
        Err(why) => return vec![(format!("pods -l {selector}"), vec![why])],
    };
    pods.retain(|pod| !is_ready(pod) && !pod::has_succeeded(pod));
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp.clone()));
    pods.truncate(PODS);
    join_all(pods.iter().map(|pod| of_pod(&api, pod))).await.into_iter().flatten().collect()
}

async fn of_pod(api: &Api<Pod>, pod: &Pod) -> Vec<Section> {
    let name = pod::name(pod);
    let status = pod.status.as_ref();
    let mut sections = vec![(
        format!("conditions of pod/{name}"),
        conditions(status.and_then(|status| status.conditions.as_ref())),
    )];
    for container in pod::statuses(pod).filter(|container| !pod::has_done_its_work(container)) {
        let log = |previous| LogParams {
            container: Some(container.name.clone()),
            previous,
            tail_lines: Some(LOG_LINES),
            ..LogParams::default()
        };
        let has_run = container.state.as_ref().is_some_and(|state| state.waiting.is_none());
        if has_run {
            let lines =
                ask(api.logs(name, &log(false))).await.map_or_else(|why| vec![why], |text| log_lines(&text));
            sections.push((format!("last log lines of pod/{name} ({})", container.name), lines));
        }
        if let Some(ended) = container.last_state.as_ref().and_then(|last| last.terminated.as_ref()) {
            // While the container waits to be restarted, its last run is the current one to some servers.
            let text = match ask(api.logs(name, &log(true))).await {
                Err(_) if !has_run => ask(api.logs(name, &log(false))).await,
                other => other,
            };
            let lines = text.map_or_else(|why| vec![why], |text| log_lines(&text));
            let heading = format!(
                "log of the previous run of pod/{name} ({}), which {}",
                container.name,
                pod::ending(ended)
            );
            sections.push((heading, lines));
        }
    }
    sections
}

fn log_lines(text: &str) -> Vec<String> {
    if text.trim().is_empty() { vec!["empty".to_owned()] } else { text.lines().map(one_line).collect() }
}

/// The last warnings about the workload and what bears its name; of the whole namespace, where there are none.
async fn warnings(client: &Client, about: About<'_>) -> Section {
    let namespace = about.namespace;
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let warnings = ListParams::default().fields("type=Warning");
    let lines = match ask(api.list(&warnings)).await {
        Ok(list) => {
            let name = about.workload.map_or("", |(_, name)| name);
            let is_about = |event: &Event| {
                event.involved_object.name.as_deref().is_some_and(|about| about.contains(name))
            };
            let (own, others): (Vec<_>, Vec<_>) = list.items.into_iter().partition(is_about);
            warning_lines(if own.is_empty() { others } else { own }, Timestamp::now())
        }
        Err(why) => vec![why],
    };
    (format!("last warnings in namespace {namespace}"), lines)
}

fn warning_lines(mut events: Vec<Event>, now: Timestamp) -> Vec<String> {
    events.retain(|event| event.type_.as_deref() == Some("Warning"));
    events.sort_by_key(event_time);
    let last = events.split_off(events.len().saturating_sub(WARNINGS));
    if last.is_empty() {
        return vec!["none".to_owned()];
    }
    let line = |event: &Event| {
        let age = event_time(event).map_or(0, |at| now.duration_since(at).as_secs().max(0));
        let kind = event.involved_object.kind.as_deref().unwrap_or("?").to_ascii_lowercase();
        let times =
            event.count.filter(|count| *count > 1).map(|count| format!(" (x{count})")).unwrap_or_default();
        format!(
            "{age} s ago{times}  {kind}/{}  {}: {}",
            event.involved_object.name.as_deref().unwrap_or("?"),
            event.reason.as_deref().unwrap_or("?"),
            one_line(event.message.as_deref().unwrap_or_default()),
        )
    };
    last.iter().map(line).collect()
}

async fn nodes(client: &Client) -> Section {
    let api: Api<Node> = Api::all(client.clone());
    let lines = match ask(api.list(&ListParams::default())).await {
        Ok(list) => node_lines(&list.items),
        Err(why) => vec![why],
    };
    ("nodes".to_owned(), lines)
}

/// The worst nodes first; of many, the others are only counted.
fn node_lines(nodes: &[Node]) -> Vec<String> {
    let mut lines: Vec<String> = nodes.iter().map(node_line).collect();
    lines.sort_by_key(|line| line.contains(WELL));
    let more = lines.len().saturating_sub(NODES);
    lines.truncate(NODES);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// What there is to say of a node that is well.
const WELL: &str = "Ready, no pressure";

/// A node's pressure, and what it has to give.
fn node_line(node: &Node) -> String {
    let name = node.metadata.name.as_deref().unwrap_or("?");
    let status = node.status.clone().unwrap_or_default();
    let conditions: Vec<_> = status.conditions.iter().flatten().map(AsCondition::as_condition).collect();
    let mut bad: Vec<String> = conditions
        .iter()
        .filter(|condition| (condition.name == "Ready") != condition.is_true())
        .map(Condition::line)
        .collect();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        bad.push("cordoned".to_owned());
    }
    let bad = if bad.is_empty() { WELL.to_owned() } else { bad.join("; ") };
    let gives = status.allocatable.unwrap_or_default();
    let amount = |resource: &str| gives.get(resource).map_or("?", |quantity| quantity.0.as_str());
    format!("{name}: {bad}; allocatable cpu {}, memory {}", amount("cpu"), amount("memory"))
}
