//! Faults on purpose: a test-only API at `/sandbox/faults`, under the same token as all else. There is none unless the
//! server was told to have it ([`crate::ApiServer::allow_faults`]).
//!
//! `POST` one [`Fault`] as JSON, `GET` those in force, `DELETE` all. API faults concern requests that come over a
//! socket: the sandbox's own controllers and node agent go on, so that a fault is in the one place it was put.
//!
//! | fault | does |
//! |---|---|
//! | `{"fault":"api","resources":["pods"],"verbs":["list"],"effect":{"answer":503},"times":3}` | answers with that status |
//! | `…"effect":{"delay_ms":500},"seconds":5` | answers later |
//! | `…"effect":"hang"` | does not answer until the fault is over, then 504 |
//! | `…"effect":"hold"` | watches under way hear nothing until the fault is over, then all of it |
//! | `{"fault":"cut-watches","resources":["pods"]}` | ends watches under way, once |
//! | `{"fault":"kill","namespace":"default","pod":"web-1"}` | SIGKILL to the pod's containers, once |
//! | `{"fault":"refuse-image","image":"web","answer":"not-found"}` | `ErrImagePull`; `never`: `ErrImageNeverPull` |
//! | `{"fault":"fail-probes","namespace":"default","seconds":20}` | every probe there fails |
//! | `{"fault":"proxy","answer":"bad-gateway"}` | the ingress answers 502; `close`: drops connections; `refuse`: does not listen |
//!
//! Resources are plurals, or paths such as `/readyz`; none means all. `verbs` are Kubernetes' (get, list, watch,
//! create, update, patch, delete); none means all. Without `times` and `seconds` a fault stays until it is cleared.
//! The lease is held back by `{"fault":"api","resources":["leases"],"verbs":["create","update"],
//! "namespace":"ingress-nginx","effect":{"answer":503}}`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::kubelet::NodeFault;
use crate::request::{Query, Target, is_watch};
use crate::server::Api;
use crate::status::{ApiError, json_response};

/// Where the API is.
pub(crate) const PATH: &str = "/sandbox/faults";
/// The ConfigMap by which the ingress controller hears of its faults, in its own namespace; key `proxy`.
pub(crate) const PROXY_CONFIG: &str = "/api/v1/namespaces/ingress-nginx/configmaps/sandbox-faults";
const MAX_BODY_BYTES: usize = 64 * 1024;

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
enum Fault {
    Api(ApiFault),
    CutWatches {
        #[serde(default)]
        resources: Vec<String>,
    },
    Kill {
        namespace: String,
        pod: String,
    },
    RefuseImage {
        image: String,
        answer: Refused,
    },
    FailProbes {
        namespace: String,
        seconds: f64,
    },
    Proxy {
        answer: Proxy,
    },
}

/// What requests of a kind meet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ApiFault {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    namespace: Option<String>,
    effect: Effect,
    /// How many requests meet it.
    #[serde(default)]
    times: Option<u32>,
    /// How long it is in force.
    #[serde(default)]
    seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Effect {
    Answer(u16),
    DelayMs(u64),
    Hang,
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Refused {
    NotFound,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Proxy {
    BadGateway,
    Close,
    Refuse,
}

/// What a request asks for, as far as faults tell requests apart.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    resource: String,
    verb: &'static str,
    namespace: String,
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>) -> Asked {
        let path = request.uri().path();
        let Some(target) = Target::parse(path) else {
            return Asked { resource: path.to_owned(), verb: "get", namespace: String::new() };
        };
        let query = Query::parse(request.uri().query().unwrap_or(""));
        let verb = match (request.method(), &target.name) {
            (method, _) if is_watch(method, &target, &query) => "watch",
            (&Method::GET, None) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, _) => "delete",
            _ => "get",
        };
        Asked { resource: target.plural, verb, namespace: target.namespace }
    }
}

struct Active {
    fault: ApiFault,
    until: Option<Instant>,
}

impl Active {
    fn is_over(&self) -> bool {
        self.fault.times == Some(0) || self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn concerns(&self, asked: &Asked) -> bool {
        let any = |list: &[String], item: &str| list.is_empty() || list.iter().any(|one| one == item);
        !self.is_over()
            && any(&self.fault.resources, &asked.resource)
            && any(&self.fault.verbs, asked.verb)
            && self.fault.namespace.as_ref().is_none_or(|namespace| *namespace == asked.namespace)
    }
}

/// The faults in force.
pub(crate) struct Faults {
    active: Mutex<Vec<Active>>,
    /// Each change wakes what hangs or is held back.
    changed: watch::Sender<()>,
    cuts: broadcast::Sender<Vec<String>>,
}

impl Faults {
    pub(crate) fn new() -> Faults {
        Faults { active: Mutex::default(), changed: watch::Sender::new(()), cuts: broadcast::Sender::new(16) }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<Active>) -> T) -> T {
        look(&mut self.active.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a request meet its faults: an answer instead of the server's, or none.
    pub(crate) async fn meet(&self, asked: &Asked) -> Option<Response<Body>> {
        let effect = self.with(|active| {
            active.retain(|one| !one.is_over());
            let met =
                active.iter_mut().find(|one| one.fault.effect != Effect::Hold && one.concerns(asked))?;
            met.fault.times = met.fault.times.map(|times| times.saturating_sub(1));
            Some(met.fault.effect.clone())
        })?;
        match effect {
            Effect::Answer(code) => Some(status(code).into_response()),
            Effect::DelayMs(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                None
            }
            Effect::Hang => {
                self.while_active(asked, &Effect::Hang).await;
                Some(status(504).into_response())
            }
            Effect::Hold => None,
        }
    }

    /// The answer to a watch, which may be held back and cut.
    pub(crate) fn on_watch(self: &Arc<Self>, asked: Asked, response: Response<Body>) -> Response<Body> {
        if asked.verb != "watch" || !response.status().is_success() {
            return response;
        }
        let mut cuts = self.cuts.subscribe();
        let resource = asked.resource.clone();
        let cut = async move {
            while let Ok(resources) = cuts.recv().await {
                if resources.is_empty() || resources.contains(&resource) {
                    return;
                }
            }
        };
        let faults = Arc::clone(self);
        response.map(|body| {
            let lines = body.into_data_stream().then(move |line| {
                let (faults, asked) = (Arc::clone(&faults), asked.clone());
                async move {
                    faults.while_active(&asked, &Effect::Hold).await;
                    line
                }
            });
            Body::from_stream(lines.take_until(Box::pin(cut)))
        })
    }

    /// Until no fault of this effect concerns the request any more.
    async fn while_active(&self, asked: &Asked, effect: &Effect) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let until = self.with(|active| {
                let one = active.iter().find(|one| {
                    // One that has no times left still holds what it holds.
                    one.fault.effect == *effect
                        && Active { fault: ApiFault { times: None, ..one.fault.clone() }, until: one.until }
                            .concerns(asked)
                });
                one.map(|one| one.until)
            });
            let Some(until) = until else { return };
            tokio::select! {
                _ = changed.changed() => {}
                () = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }
}

fn status(code: u16) -> ApiError {
    let reason = match code {
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    };
    ApiError::new(code, reason, "a fault on purpose")
}

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
            faults.with(Vec::clear);
            faults.changed.send_replace(());
            tell_proxy(api, None).await?;
            if let Ok(kubelet) = api.kubelet() {
                kubelet.fault(NodeFault::Clear).map_err(ApiError::internal)?;
            }
        }
        _ => return Err(ApiError::method_not_allowed()),
    }
    let active: Vec<Value> = faults.with(|active| {
        active.retain(|one| !one.is_over());
        active.iter().map(|one| json!(Fault::Api(one.fault.clone()))).collect()
    });
    Ok(json_response(200, &json!({"active": active})))
}

async fn add(api: &Arc<Api>, faults: &Arc<Faults>, fault: Fault) -> Result<(), ApiError> {
    let node = |fault| api.kubelet()?.fault(fault).map_err(ApiError::bad_request);
    match fault {
        Fault::Api(fault) => {
            let time = fault.seconds.map(seconds).transpose()?;
            let until = time.and_then(|time| Instant::now().checked_add(time));
            faults.with(|active| active.push(Active { fault, until }));
            faults.changed.send_replace(());
            Ok(())
        }
        Fault::CutWatches { resources } => {
            // No watch under way is none to cut.
            let _ = faults.cuts.send(resources);
            Ok(())
        }
        Fault::Kill { namespace, pod } => node(NodeFault::Kill { namespace, pod }),
        Fault::RefuseImage { image, answer } => {
            node(NodeFault::RefuseImage { image, never_pull: answer == Refused::Never })
        }
        Fault::FailProbes { namespace, seconds: time } => {
            node(NodeFault::FailProbes { namespace, time: seconds(time)? })
        }
        Fault::Proxy { answer } => tell_proxy(api, Some(answer)).await,
    }
}

fn seconds(seconds: f64) -> Result<Duration, ApiError> {
    Duration::try_from_secs_f64(seconds).map_err(|error| ApiError::bad_request(format!("seconds: {error}")))
}

/// The ingress controller is a process of its own: it watches a ConfigMap.
async fn tell_proxy(api: &Arc<Api>, answer: Option<Proxy>) -> Result<(), ApiError> {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sandbox-faults", "namespace": "ingress-nginx"},
        "data": answer.map_or_else(|| json!({}), |answer| json!({"proxy": answer})),
    });
    let (method, uri, body) = match answer {
        Some(_) => (
            Method::PATCH,
            format!("{PROXY_CONFIG}?fieldManager=sandbox-faults&force=true"),
            object.to_string(),
        ),
        None => (Method::DELETE, PROXY_CONFIG.to_owned(), String::new()),
    };
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(Body::from(body))
        .map_err(ApiError::internal)?;
    match crate::rest::handle(api, request).await {
        Err(error) if answer.is_none() && error.code == 404 => Ok(()),
        result => result.map(drop),
    }
}
