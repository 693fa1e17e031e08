//! The scale subresource of deployments and replica sets.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};

use super::update;
use crate::call::{Call, add_warnings, parse};
use crate::causes::Cause;
use crate::meta::meta;
use crate::patch;
use crate::selectors::label_selector_text;
use crate::status::{ApiError, json_response};

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
            return Err(ApiError::invalid_as("Scale", "autoscaling", name, &[cause]));
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
    let mut warnings = Vec::new();
    let stored = if method == Method::PATCH && call.content_type() == patch::APPLY {
        let scale = parse(patch::APPLY, body)
            .map_err(|why| ApiError::bad_request(format!("error decoding YAML: {why}")))?;
        call.stored(name)?;
        let mut config = json!({"metadata": {"name": name}, "spec": {"replicas": read(scale.clone())?}});
        config["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
        update::apply_config(call, name, &config, &options, &mut warnings).await?.1
    } else {
        let given =
            if method == Method::PUT { call.read(body)? } else { patch::read(call.content_type(), body)? };
        update::change(call, name, &options, &mut warnings, |current| {
            let scale = if method == Method::PUT {
                given.clone()
            } else {
                patch::apply(call.content_type(), call.kind, &of(current), &given)?
            };
            let mut object = current.clone();
            object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
            object["spec"]["replicas"] = json!(read(scale)?);
            Ok(object)
        })
        .await?
    };
    let mut response = json_response(200, &of(&stored));
    add_warnings(&mut response, &warnings);
    Ok(response)
}

/// The Scale of an object.
fn of(object: &Value) -> Value {
    let selector = label_selector_text(&object["spec"]["selector"]);
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
