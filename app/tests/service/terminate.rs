//! SIGTERM while clients send: what was accepted must be answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::service::{SAMPLE, Service};

/// How the requests of one life of the service ended. Each has its own id, and is looked up in the service's log.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) ok: usize,
    /// 503: not accepted any more.
    pub(crate) refused: usize,
    /// No connection, or one that was closed before the service saw the request.
    pub(crate) unreachable: usize,
    /// The service saw the request, and the client has no answer or one that it should not have.
    pub(crate) lost: Vec<String>,
    pub(crate) exit_code: Option<i32>,
}

/// `clients` send one request after the other; after `answers` answers the service is told to end.
pub(crate) async fn terminate_under_load(clients: usize, answers: usize) -> Round {
    let service = Service::ready(&[("REQUEST_TIMEOUT_SECONDS", "300")]).await;
    let (url, answered, enough) =
        (service.url("/predict"), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (http, url, answered, enough) =
            (service.client.clone(), url.clone(), answered.clone(), enough.clone());
        tasks.spawn(async move {
            let mut outcomes = vec![];
            for number in 0.. {
                let id = format!("{client}-{number}");
                let request =
                    http.post(&url).header("content-type", "image/jpeg").header("x-request-id", &id);
                let outcome = async {
                    let response = request.body(SAMPLE).send().await?;
                    let status = response.status().as_u16();
                    response.bytes().await.map(|_| status)
                };
                let outcome: Result<u16, reqwest::Error> = outcome.await;
                let done = !matches!(outcome, Ok(200 | 429));
                outcomes.push((id, outcome));
                if done {
                    break;
                }
                if answered.fetch_add(1, Ordering::Relaxed) + 1 == answers {
                    enough.notify_one();
                }
            }
            outcomes
        });
    }
    enough.notified().await;
    service.terminate();
    let outcomes: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    service.logged("stopped").await;
    let seen: HashMap<String, u64> = service
        .log()
        .iter()
        .filter(|line| line["message"] == "request")
        .filter_map(|line| Some((line["request_id"].as_str()?.to_owned(), line["status"].as_u64()?)))
        .collect();
    let mut service = service;
    let mut round = Round { exit_code: service.exited().await.code(), ..Round::default() };
    for (id, outcome) in outcomes {
        match (outcome, seen.get(&id)) {
            (Ok(200), Some(200)) => round.ok += 1,
            (Ok(429), Some(429)) => {}
            (Ok(503), Some(503)) => round.refused += 1,
            (Err(_), None) => round.unreachable += 1,
            (outcome, logged) => round.lost.push(format!("{id}: {outcome:?}, in the log {logged:?}")),
        }
    }
    round
}
