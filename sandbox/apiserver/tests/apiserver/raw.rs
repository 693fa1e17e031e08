//! Requests as bytes, and answers as they come, where a typed client would stand in the way.

use http_body_util::BodyExt as _;
use sandbox_apiserver::ApiServer;
use serde_json::Value;

pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const JSON: &str = "application/json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// What came back.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Value,
}

impl Answer {
    /// The message of a refusal.
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

/// A server in this process, asked with bytes.
pub(crate) struct Raw(kube::Client);

impl Raw {
    pub(crate) fn start() -> Raw {
        Raw(ApiServer::new("secret".to_owned()).client())
    }

    /// `ask` is method and path.
    pub(crate) async fn ask(&self, ask: &str, media_type: &str, body: impl Into<String>) -> Answer {
        self.send(ask, &[("content-type", media_type)], body).await
    }

    async fn send(&self, ask: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Answer {
        let (method, path) = ask.split_once(' ').expect("a method and a path");
        let request = http::Request::builder().method(method).uri(path).header("user-agent", "test/1");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(kube::client::Body::from(body.into().into_bytes())).expect("a request");
        let response = self.0.send(request).await.expect("an answer");
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        Answer { code, warnings, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// As `kubectl get` asks.
    pub(crate) async fn table(&self, path: &str) -> Value {
        let form = "application/json;as=Table;v=v1;g=meta.k8s.io";
        self.send(&format!("GET {path}"), &[("accept", form)], "").await.body
    }

    /// The status of an answer that need not end.
    pub(crate) async fn status(&self, ask: &str) -> u16 {
        let (method, path) = ask.split_once(' ').expect("a method and a path");
        let request = http::Request::builder().method(method).uri(path);
        let request = request.body(kube::client::Body::empty()).expect("a request");
        self.0.send(request).await.expect("an answer").status().as_u16()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(&format!("GET {path}"), JSON, "").await.body
    }
}
