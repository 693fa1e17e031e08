//! The faults in force, and the requests that meet them. Only what comes over a socket does: the sandbox's own
//! controllers and node agent go on, so that a fault is in the one place it was put.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt as _;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use sandbox_contract::{ApiFault, Effect, Fault};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::request::{Query, Target, is_watch};
use crate::status::ApiError;

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

    /// From now on requests meet it.
    pub(crate) fn add(&self, fault: ApiFault, time: Option<Duration>) {
        let until = time.and_then(|time| Instant::now().checked_add(time));
        self.with(|active| active.push(Active { fault, until }));
        self.changed.send_replace(());
    }

    /// Ends watches under way, once; of these resources, or all of them.
    pub(crate) fn cut_watches(&self, resources: Vec<String>) {
        // No watch under way is none to cut.
        let _ = self.cuts.send(resources);
    }

    /// Ends all that last.
    pub(crate) fn clear(&self) {
        self.with(Vec::clear);
        self.changed.send_replace(());
    }

    /// Those in force.
    pub(crate) fn active(&self) -> Vec<Fault> {
        self.with(|active| {
            active.retain(|one| !one.is_over());
            active.iter().map(|one| Fault::Api(one.fault.clone())).collect()
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<Active>) -> T) -> T {
        look(&mut self.active.lock())
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
