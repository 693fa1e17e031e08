//! Faults on purpose: a test-only API at `/sandbox/faults`, under the same token as all else. There is none unless the
//! server was told to have it ([`crate::ApiServer::allow_faults`]).
//!
//! `POST` one [`Fault`] as JSON, `GET` those in force, `DELETE` all.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use sandbox_contract::{ApiFault, Fault};
use serde_json::{Value, json};

use crate::faults::Faults;
use crate::kinds;
use crate::state::Api;
use crate::status::{ApiError, json_response};

/// Where the API is.
pub(crate) const PATH: &str = "/sandbox/faults";
/// The ConfigMap by which the ingress controller hears of its faults, in its own namespace; keys `proxy`, `latency-ms`.
pub(crate) const PROXY_CONFIG: &str = "/api/v1/namespaces/ingress-nginx/configmaps/sandbox-faults";
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Answers the faults' own API.
pub(crate) async fn answer(
    api: &Arc<Api>,
    faults: &Arc<Faults>,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    match *request.method() {
        Method::GET => {}
        Method::POST => {
            let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await;
            let body = body.map_err(|error| ApiError::bad_request(error.to_string()))?.to_bytes();
            let fault = serde_json::from_slice(&body)
                .map_err(|error| ApiError::bad_request(format!("this is no fault: {error}")))?;
            add(api, faults, fault).await?;
        }
        Method::DELETE => {
            faults.clear();
            tell_proxy(api, None).await?;
            if let Ok(kubelet) = api.kubelet() {
                kubelet.clear_faults();
            }
        }
        _ => return Err(ApiError::method_not_allowed()),
    }
    Ok(json_response(200, &json!({"active": faults.active()})))
}

async fn add(api: &Arc<Api>, faults: &Arc<Faults>, fault: Fault) -> Result<(), ApiError> {
    let unclear = |why| ApiError::bad_request(format!("this is no fault: {why}"));
    fault.check().map_err(unclear)?;
    if let Fault::Api(ApiFault { resources, .. }) | Fault::CutWatches { resources } = &fault {
        let is_known = |resource: &&String| resource.starts_with('/') || kinds::has_plural(resource);
        if let Some(unknown) = resources.iter().find(|resource| !is_known(resource)) {
            return Err(unclear(format!(
                "unknown resource `{unknown}`, expected a plural such as `pods`, or a path"
            )));
        }
    }
    match fault {
        Fault::Api(fault) => {
            let time = fault.seconds.map(seconds).transpose()?;
            faults.add(fault, time);
            Ok(())
        }
        Fault::CutWatches { resources } => {
            faults.cut_watches(resources);
            Ok(())
        }
        Fault::Proxy { answer } => tell_proxy(api, Some(json!({"proxy": answer}))).await,
        Fault::Latency { ms } => tell_proxy(api, Some(json!({"latency-ms": ms.to_string()}))).await,
        Fault::Kill { .. } | Fault::RefuseImage { .. } | Fault::FailProbes { .. } | Fault::BlackHole => {
            api.kubelet()?.fault(&fault).map_err(ApiError::bad_request)
        }
    }
}

fn seconds(seconds: f64) -> Result<Duration, ApiError> {
    Duration::try_from_secs_f64(seconds).map_err(|error| ApiError::bad_request(format!("seconds: {error}")))
}

/// The ingress controller is a process of its own: it watches a ConfigMap.
async fn tell_proxy(api: &Arc<Api>, data: Option<Value>) -> Result<(), ApiError> {
    let is_over = data.is_none();
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sandbox-faults",
        "namespace": "ingress-nginx"},
        "data": data.unwrap_or_else(|| json!({})),
    });
    let (method, uri, body) = if is_over {
        (Method::DELETE, PROXY_CONFIG.to_owned(), String::new())
    } else {
        let uri = format!("{PROXY_CONFIG}?fieldManager=sandbox-faults&force=true");
        (Method::PATCH, uri, object.to_string())
    };
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(Body::from(body))
        .map_err(ApiError::internal)?;
    match super::handle(api, request).await {
        Err(error) if is_over && error.code == 404 => Ok(()),
        result => result.map(drop),
    }
}
