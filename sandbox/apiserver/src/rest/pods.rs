//! Subresources of pods: log, eviction, binding.

use axum::body::Body;
use futures::StreamExt as _;
use http::{HeaderValue, Response, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::delete::DeleteOptions;
use super::{delete, update};
use crate::call::Call;
use crate::causes::Cause;
use crate::kinds;
use crate::selectors::label_selector_matches;
use crate::status::{ApiError, json_response};
use crate::time;
use sandbox_contract::{LogError, LogRequest};

pub(crate) async fn log(call: &Call<'_>, name: &str) -> Result<Response<Body>, ApiError> {
    let pod = call.stored(name)?;
    let container = choose_container(name, &pod, call.query.get("container").filter(|c| !c.is_empty()))?;
    let number = |key| call.query.number(key);
    let since_time = call.query.get("sinceTime").filter(|time| !time.is_empty());
    let (tail_lines, limit_bytes) = (number("tailLines")?, number("limitBytes")?);
    let since_seconds = number("sinceSeconds")?;
    let since = since_time.map(instant).transpose()?;
    let causes = wrong_log_options(tail_lines, limit_bytes, since_seconds, since_time);
    if !causes.is_empty() {
        return Err(ApiError::invalid_as("PodLogOptions", "", name, &causes));
    }
    let request = LogRequest {
        namespace: call.namespace.to_owned(),
        pod: name.to_owned(),
        container: Some(container.clone()),
        follow: call.query.flag("follow"),
        previous: call.query.flag("previous"),
        timestamps: call.query.flag("timestamps"),
        tail_lines,
        since: since.or_else(|| time::seconds_ago(since_seconds?)),
        limit_bytes,
    };
    if pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let stream = call.api.kubelet()?.logs(request).await.map_err(|error| match error {
        LogError::NotFound(message) => ApiError::new(404, "NotFound", message),
        LogError::BadRequest(message) => ApiError::bad_request(message),
    })?;
    let stream = stream.take_until(call.api.closing().cancelled_owned());
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn wrong_log_options(
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<&str>,
) -> Vec<Cause> {
    let less = |value: Option<i64>, least: i64| value.filter(|value| *value < least);
    let mut causes = Vec::new();
    if let Some(lines) = less(tail_lines, 0) {
        causes.push(Cause::invalid("tailLines", &json!(lines), "must be greater than or equal to 0"));
    }
    if let Some(bytes) = less(limit_bytes, 1) {
        causes.push(Cause::invalid("limitBytes", &json!(bytes), "must be greater than 0"));
    }
    if since_seconds.is_some() && since_time.is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        causes.push(Cause::forbidden("", why));
    } else if let Some(seconds) = less(since_seconds, 1) {
        causes.push(Cause::invalid("sinceSeconds", &json!(seconds), "must be greater than 0"));
    }
    causes
}

/// To the second, as an API server hands it on: never later than what was asked for.
fn instant(time: &str) -> Result<Timestamp, ApiError> {
    let at: Timestamp = time.parse().map_err(|error| {
        ApiError::bad_request(format!("sinceTime: {time:?} is no time as RFC 3339 has it: {error}"))
    })?;
    Ok(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn choose_container(pod_name: &str, pod: &Value, asked: Option<&str>) -> Result<String, ApiError> {
    let all: Vec<&str> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect();
    match asked {
        Some(name) if all.contains(&name) => Ok(name.to_owned()),
        Some(name) => Err(ApiError::bad_request(format!("container {name} is not valid for pod {pod_name}"))),
        None => match all.as_slice() {
            [only] => Ok((*only).to_owned()),
            _ => Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                all.join(" ")
            ))),
        },
    }
}

pub(crate) async fn bind(call: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let node = call.read_any(body)?["target"]["name"].as_str().unwrap_or("").to_owned();
    let options = call.write_options()?;
    let mut warnings = Vec::new();
    if !options.dry_run {
        update::change(call, name, &options, &mut warnings, |pod| {
            let current = pod["spec"]["nodeName"].as_str().unwrap_or("");
            if !current.is_empty() {
                let what = format!("pods/binding \"{name}\"");
                let why = format!("pod {name} is already assigned to node \"{current}\"");
                let message = format!("Operation cannot be fulfilled on {what}: {why}");
                let mut error = ApiError::new(409, "Conflict", message);
                error.details = Some(json!({"name": name, "kind": "pods/binding"}));
                return Err(error);
            }
            let mut pod = pod.clone();
            pod["spec"]["nodeName"] = json!(node);
            set_condition(&mut pod, "PodScheduled", "True");
            Ok(pod)
        })
        .await?;
    }
    Ok(json_response(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

fn set_condition(pod: &mut Value, kind: &str, status: &str) {
    let condition =
        json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": time::now()});
    match pod["status"]["conditions"].as_array_mut() {
        Some(list) => {
            list.retain(|old| old["type"] != kind);
            list.push(condition);
        }
        None => pod["status"]["conditions"] = json!([condition]),
    }
}

/// Deletes the pod unless a disruption budget forbids it.
pub(crate) fn evict(call: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let pod = call.stored(name)?;
    let eviction = call.read_any(body)?;
    if let Some(budget) = violated_budget(call, &pod) {
        let mut error = ApiError::new(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
        );
        error.details = Some(json!({"causes": [{
            "reason": "DisruptionBudget",
            "message": format!("The disruption budget {budget} needs its pods to stay healthy"),
        }]}));
        return Err(error);
    }
    let options = DeleteOptions::from(call, &eviction["deleteOptions"])?;
    delete::delete_object(call.api, call.kind, call.namespace, name, &options)?;
    Ok(json_response(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// The name of a budget that this pod's end would break.
fn violated_budget(call: &Call<'_>, pod: &Value) -> Option<String> {
    let ready = |pod: &Value| {
        pod["metadata"].get("deletionTimestamp").is_none()
            && pod["status"]["conditions"]
                .as_array()
                .is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    let budgets =
        call.api.store.list(kinds::stored("policy", "poddisruptionbudgets")?, Some(call.namespace)).0;
    let pods = call.api.store.list(call.kind, Some(call.namespace)).0;
    budgets.iter().find_map(|budget| {
        let selector = &budget["spec"]["selector"];
        if !label_selector_matches(selector, &pod["metadata"]["labels"]) {
            return None;
        }
        if !ready(pod) && budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
            return None;
        }
        let mine: Vec<_> =
            pods.iter().filter(|pod| label_selector_matches(selector, &pod["metadata"]["labels"])).collect();
        let total = i64::try_from(mine.len()).unwrap_or(i64::MAX);
        let healthy = i64::try_from(mine.iter().filter(|pod| ready(pod)).count()).unwrap_or(i64::MAX);
        let needed = match (budget["spec"].get("minAvailable"), budget["spec"].get("maxUnavailable")) {
            (Some(least), _) => share(least, total),
            (None, Some(most)) => total.saturating_sub(share(most, total)),
            (None, None) => total - 1,
        };
        let after = if ready(pod) { healthy - 1 } else { healthy };
        (after < needed).then(|| budget["metadata"]["name"].as_str().unwrap_or("").to_owned())
    })
}

/// A number, or a percentage of the total rounded up.
fn share(value: &Value, total: i64) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(100);
            total.saturating_mul(percent).saturating_add(99) / 100
        }
        other => other.as_i64().unwrap_or(total),
    }
}

#[cfg(test)]
mod tests {
    use super::instant;

    #[test]
    fn a_time_to_begin_at_is_cut_to_the_second_and_never_rounded_up() {
        let at = instant("2026-03-01T12:00:00.987654321Z").unwrap();
        assert_eq!(at.to_string(), "2026-03-01T12:00:00Z");
        assert!(instant("yesterday").is_err());
    }
}
