//! The scale subresource of deployments and replica sets.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response, header};
use serde_json::{Value, json};

use super::{Call, add_warnings, read_json, update};
use crate::patch;
use crate::status::{ApiError, Cause, json_response};
use crate::store::meta;

pub(crate) async fn answer(
    call: &Call<'_>,
    name: &str,
    method: &Method,
    body: &Bytes,
) -> Result<Response<Body>, ApiError> {
    let read = |scale: Value| -> Result<i64, ApiError> {
        let replicas = scale["spec"].get("replicas").map_or(Some(0), Value::as_i64).unwrap_or(-1);
        if replicas < 0 {
            let why = "must be greater than or equal to 0";
            let cause = Cause::invalid("spec.replicas", &scale["spec"]["replicas"], why);
            let mut error = ApiError::invalid(call.kind, name, &[cause]);
            error.message = error.message.replacen(&call.kind.qualified(), "Scale.autoscaling", 1);
            return Err(error);
        }
        Ok(replicas)
    };
    if method == Method::GET {
        return Ok(json_response(200, &of(&*call.stored(name)?)));
    }
    if method != Method::PUT && method != Method::PATCH {
        return Err(ApiError::method_not_allowed());
    }
    let options = call.write_options()?;
    let given = read_json(body)?;
    let content_type =
        call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let content_type = content_type.split(';').next().unwrap_or("").trim();
    let mut warnings = Vec::new();
    let stored = update::change(call, name, &options, &mut warnings, |current| {
        let scale = of(current);
        let scale = match (method == Method::PUT, content_type) {
            (true, _) => given.clone(),
            // A Scale has one field to own; applying it is merging it.
            (false, "application/apply-patch+yaml") => patch::merge(scale, &given),
            (false, _) => patch::apply(content_type, call.kind, &scale, &given)?,
        };
        let mut object = current.clone();
        object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
        object["spec"]["replicas"] = json!(read(scale)?);
        Ok(object)
    })
    .await?;
    let mut response = json_response(200, &of(&stored));
    add_warnings(&mut response, &warnings);
    Ok(response)
}

/// The Scale of an object.
fn of(object: &Value) -> Value {
    let selector = object["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect::<Vec<_>>()
        .join(",");
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta(object, "name"), "namespace": meta(object, "namespace"), "uid": meta(object, "uid"),
            "resourceVersion": meta(object, "resourceVersion"),
            "creationTimestamp": object["metadata"]["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector},
    })
}
