//! The smoke test: through a port-forward to the newest Ready pod, health byte for byte and one prediction.
//!
//! It knows the wire contract and not the server's types, or it could not see the wire change.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use serde::Deserialize;

use crate::clusters::Cluster;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::kubernetes::Api;
use crate::manifests::{HEALTH, Manifests, TargetPort};
use crate::owned::Owner;
use crate::pipeline::{Branch, Done, Outcome, step};
use crate::plan::Planned;

/// The contract of `GET /health`, which existing clients compare byte for byte.
pub const HEALTHY: &str = r#"{"success":true,"status":"healthy","model":"ResNet-50","version":"1.0.0"}"#;
/// The picture that is classified.
pub const PICTURE: &str = "app/assets/sample.jpg";
/// A port-forward that is not there by then never will be; the dial itself has no deadline of its own.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// The slowest prediction of a small pod, and then some.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// A tunnel may die with its pod in the middle; the next attempt takes the then newest pod.
const ATTEMPTS: u32 = 3;

/// Its name.
const NAME: &str = "smoke";

/// What it would do.
pub fn plan() -> Planned {
    let does = [
        "port-forward to the newest Ready pod, to the port that the Service leads to".to_owned(),
        format!("GET {HEALTH}, byte for byte as in the contract"),
        format!("POST /predict with {PICTURE}: 5 ranked predictions"),
    ];
    Planned::step(NAME, does.to_vec())
}

/// What the model said.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Name of the most likely class.
    pub class_name: String,
    /// How likely, 0 to 1.
    pub confidence: f64,
}

#[derive(Deserialize)]
struct Answer {
    success: bool,
    predictions: Vec<Ranked>,
}

#[derive(Deserialize)]
struct Ranked {
    rank: u32,
    class_name: String,
    confidence: f64,
}

/// Asks the newest Ready pod.
///
/// # Errors
/// When no pod is Ready, or an answer is not what the contract says.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Cluster,
    manifests: &Manifests,
) -> Result<Done<Prediction>> {
    let cx = branch.cx;
    step(branch, NAME, async |step| {
        let picture = cx.root.join(PICTURE);
        let picture =
            std::fs::read(&picture).with_context(|| format!("reading the picture {}", picture.display()))?;
        let picture = Bytes::from(picture);
        let mut attempt = 1;
        loop {
            let result = cx.unless_stopped(ask(cx, cluster, manifests, picture.clone())).await;
            match result {
                Ok((pod, prediction)) => {
                    let percent = prediction.confidence * 100.0;
                    let how = format!(
                        "{pod}: health matches the contract, {} {percent:.2} %",
                        prediction.class_name
                    );
                    return Ok(Outcome::Did(prediction, how));
                }
                Err(error) if attempt < ATTEMPTS && error.is::<Tunnel>() => {
                    step.warn(format!("attempt {attempt}: {}", crate::failure::paragraph(&error)));
                    attempt += 1;
                }
                Err(error) => {
                    return Err(error.context("smoke test"))
                        .hint(format!(
                            "`{}` shows what the pods log, `{}` which gate is closed",
                            cx.commands.xtask("logs --tail 50"),
                            cx.commands.xtask("status")
                        ))
                        .exit(Exit::Step);
                }
            }
        }
    })
    .await
}

/// The tunnel broke, which says nothing about the app.
#[derive(Debug)]
struct Tunnel;

impl std::fmt::Display for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the port-forward broke")
    }
}

async fn ask(
    cx: &Cx,
    cluster: &Cluster,
    manifests: &Manifests,
    picture: Bytes,
) -> Result<(String, Prediction)> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cx.shared.namespace);
    let deployment = manifests.deployment_name();
    let own = Owner::of(&cluster.client, &cx.shared.namespace, deployment).await?.pods().await?;
    let pod = newest_ready(own).ok_or_else(|| anyhow!("no pod of deployment/{deployment} is Ready"))?;
    let port = container_port(&pod, manifests.target_port())?;
    let pod = pod.name_any();

    let tunnel = async {
        let mut forward = api.portforward(&pod, &[port]).await?;
        forward.take_stream(port).ok_or_else(|| anyhow!("the port-forward has no stream for port {port}"))
    };
    let stream = tokio::time::timeout(DIAL_DEADLINE, tunnel)
        .await
        .map_err(|_| anyhow!("no answer within {} s", DIAL_DEADLINE.as_secs()))
        .and_then(|stream| stream)
        .with_context(|| format!("port-forward to {pod}:{port}"))
        .context(Tunnel)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("speaking HTTP through the tunnel")?;
    let connection = tokio::spawn(connection);
    let result = async {
        let health = exchange(&mut sender, "GET", HEALTH, None, Bytes::new()).await?;
        ensure!(
            health == HEALTHY.as_bytes(),
            "{pod}: GET /health does not match the contract\n  expected {HEALTHY}\n  got      {}",
            String::from_utf8_lossy(&health)
        );
        let (content_type, body) = multipart("sample.jpg", &picture);
        let answer = exchange(&mut sender, "POST", "/predict", Some(&content_type), body).await?;
        check(&answer).with_context(|| format!("{pod}: POST /predict with {PICTURE}"))
    }
    .await;
    connection.abort();
    Ok((pod, result?))
}

async fn exchange(
    sender: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    method: &str,
    path: &str,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<Bytes> {
    let mut request = http::Request::builder().method(method).uri(path).header("host", "localhost");
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let request = request.body(Full::new(body)).context("building the request")?;
    let work = async {
        sender.ready().await.context(Tunnel)?;
        let response = sender.send_request(request).await.context(Tunnel)?;
        let status = response.status();
        let body = response.into_body().collect().await.context(Tunnel)?.to_bytes();
        if !status.is_success() {
            bail!("{method} {path} was answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    };
    tokio::time::timeout(ANSWER_DEADLINE, work)
        .await
        .with_context(|| format!("{method} {path}: no answer within {} s", ANSWER_DEADLINE.as_secs()))?
}

pub(crate) fn multipart(name: &str, picture: &Bytes) -> (String, Bytes) {
    const BOUNDARY: &str = "xtask-smoke-5f0c2d7b9a";
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    let content_type = match extension.as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "bmp" => "image/bmp",
        "tif" | "tiff" => "image/tiff",
        _ => "application/octet-stream",
    };
    // As browsers write it: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
    let name = name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {content_type}\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(picture);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body.into())
}

fn check(answer: &[u8]) -> Result<Prediction> {
    let text = String::from_utf8_lossy(answer);
    let parsed: Answer = serde_json::from_slice(answer)
        .with_context(|| format!("this does not match the contract: {text}"))?;
    ensure!(parsed.success, "success is false: {text}");
    ensure!(parsed.predictions.len() == 5, "{} predictions, not 5: {text}", parsed.predictions.len());
    for (index, ranked) in parsed.predictions.iter().enumerate() {
        ensure!(
            usize::try_from(ranked.rank).is_ok_and(|rank| rank == index + 1),
            "ranks are not 1 to 5 in order: {text}"
        );
        ensure!((0.0..=1.0).contains(&ranked.confidence), "a confidence is not between 0 and 1: {text}");
    }
    ensure!(
        parsed.predictions.is_sorted_by(|a, b| a.confidence >= b.confidence),
        "the confidences do not decrease with the rank: {text}"
    );
    let best = parsed.predictions.into_iter().next().context("no prediction")?;
    Ok(Prediction { class_name: best.class_name, confidence: best.confidence })
}

/// The port of a pod that the Service's port leads to, by number or by the name that a container gives it.
fn container_port(pod: &Pod, target: &TargetPort) -> Result<u16> {
    let number = match &target.port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| {
            anyhow!("{}: {} has no port `{}`", target.place, pod.name_any(), written(&target.port))
        })
        .hint("the Service's `targetPort` is a number, or the name of a port of the container")
}

fn written(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

/// The newest pod that is Ready and not on its way out.
fn newest_ready(pods: Vec<Pod>) -> Option<Pod> {
    let is_ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        pod.metadata.deletion_timestamp.is_none()
            && conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    pods.into_iter()
        .filter(is_ready)
        .max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_a_number_or_that_of_the_pods_own_name_for_it() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [
                {"name": "proxy", "ports": [{"name": "admin", "containerPort": 9001}]},
                {"name": "app", "ports": [{"name": "http", "containerPort": 9000}]},
            ]},
        }))
        .expect("a pod");
        let of = |port| container_port(&pod, &TargetPort { port, place: "20-service.yaml:15".into() });
        assert_eq!(of(IntOrString::String("http".into())).expect("a port"), 9000);
        assert_eq!(of(IntOrString::Int(8000)).expect("a port"), 8000);
        let missing = of(IntOrString::String("grpc".into())).expect_err("no port");
        assert_eq!(crate::failure::paragraph(&missing), "20-service.yaml:15: a has no port `grpc`");
    }

    #[test]
    fn an_answer_is_held_to_the_contract() {
        let ranked = |confidences: [f64; 5]| {
            let predictions: Vec<_> = confidences
                .iter()
                .enumerate()
                .map(|(i, c)| {
                    serde_json::json!({"rank": i + 1, "class_index": i,
                    "class_name": format!("c{i}"), "confidence": c})
                })
                .collect();
            serde_json::json!({"success": true, "predictions": predictions}).to_string()
        };
        let best = check(ranked([0.5, 0.2, 0.1, 0.1, 0.0]).as_bytes()).expect("a good answer");
        assert_eq!(best.class_name, "c0");
        for bad in
            [ranked([0.1, 0.2, 0.3, 0.0, 0.0]), ranked([1.5, 0.2, 0.1, 0.0, 0.0]), r#"{"ok":1}"#.to_owned()]
        {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
