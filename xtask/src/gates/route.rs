//! The gate behind everything: the real entry, with the real Host header, answers well and goes on to.
//!
//! It is the only gate that holds for every ingress controller, and an HTTP probe, so it polls: a good answer is
//! followed by the next question almost at once, a bad one by a pause.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::Stream;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::api::ListParams;

use super::{Gate, Site, Standing, Verdict, evidence};
use crate::failure::reason;
use crate::kubernetes::{Api, one_line};
use crate::manifests::{HEALTH, Hidden, Manifests};
use crate::pipeline::{Branch, Done};

/// The gate.
pub const GATE: Gate = Gate {
    name: "route",
    opens_when: "5 consecutive 200s by the real entry",
    // ingress-nginx syncs a route at most every 3.3 s, then reloads.
    deadline: Duration::from_secs(120),
    standing: Some(Standing {
        look: |site| {
            let Site { cluster, manifests, namespace } = site;
            Box::pin(look(&cluster.client, namespace, &cluster.entry, manifests))
        },
        wait: |branch, site| {
            Box::pin(async move {
                let Site { cluster, manifests, namespace } = site;
                wait(branch, &cluster.entry, manifests, &cluster.client, namespace).await.map(drop)
            })
        },
    }),
};
/// Good answers in a row that it takes.
pub const GOOD_ANSWERS: u32 = 5;
const AFTER_GOOD: Duration = Duration::from_millis(20);
const AFTER_BAD: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(3);
const PATH: &str = HEALTH;

/// Waits for good answers from `entry`, a base URL, to requests for the app's host.
///
/// # Errors
/// As [`super::wait`]; an entry that is no URL.
pub async fn wait(
    branch: &mut Branch<'_>,
    entry: &str,
    manifests: &Manifests,
    client: &Client,
    namespace: &str,
) -> Result<Done<()>> {
    let cx = branch.cx;
    let host = manifests.host();
    let probe = Probe { hidden: manifests.hidden().cloned(), ..Probe::new(entry, host)? };
    let url = &probe.url;
    let further = format!(
        "curl -i -H 'Host: {host}' {url}; {}",
        cx.commands.kubectl(&format!("-n {namespace} get ingress,endpointslices"))
    );
    super::wait(branch, &GATE, further, verdicts(&probe, client, namespace), async || {
        let about = evidence::About { namespace, ..evidence::About::default() };
        let mut bundle = evidence::collect(cx, client, about).await;
        let around = around(client, namespace, host).await;
        bundle.0.insert(0, ("behind the entry".to_owned(), vec![around]));
        bundle
    })
    .await
}

/// One look: as many answers as it takes, without waiting for the first good one.
///
/// # Errors
/// An entry that is no URL.
pub async fn look(client: &Client, namespace: &str, entry: &str, manifests: &Manifests) -> Result<Verdict> {
    let host = manifests.host();
    let probe = Probe { hidden: manifests.hidden().cloned(), ..Probe::new(entry, host)? };
    let mut streak = Streak::default();
    loop {
        let answer = probe.ask().await;
        streak.take(&answer);
        match probe.judge(&streak) {
            Verdict::Closed(_) if streak.bad.is_none() => tokio::time::sleep(AFTER_GOOD).await,
            Verdict::Closed(line) => {
                return Ok(Verdict::Closed(format!("{line}; {}", around(client, namespace, host).await)));
            }
            verdict => return Ok(verdict),
        }
    }
}

fn url(entry: &str) -> Result<reqwest::Url> {
    let base: reqwest::Url =
        entry.parse().with_context(|| format!("reading the entry `{entry}` as a URL"))?;
    base.join(PATH).with_context(|| format!("asking {entry} for {PATH}"))
}

/// Asks the entry.
pub(super) struct Probe {
    http: reqwest::Client,
    url: reqwest::Url,
    host: String,
    /// What in the manifests keeps the path from the app.
    hidden: Option<Hidden>,
}

impl Probe {
    pub(super) fn new(entry: &str, host: &str) -> Result<Probe> {
        let url = url(entry)?;
        let http = reqwest::Client::builder()
            // Each answer by a connection of its own: a kept one stays with an nginx worker from before a reload.
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .context("making an HTTP client")?;
        Ok(Probe { http, url, host: host.to_owned(), hidden: None })
    }

    /// What the answers so far say, with what the manifests say to them.
    fn judge(&self, streak: &Streak) -> Verdict {
        match (judge(streak, &self.host), &self.hidden) {
            (Verdict::Closed(line), Some(hidden)) if streak.not_found => {
                let line = format!("{line}; {}", hidden.why);
                let cure = format!("the readiness gates ask for {PATH} by the entry: {}", hidden.cure);
                if hidden.is_certain { Verdict::Doomed(line, cure.into()) } else { Verdict::Closed(line) }
            }
            (verdict, _) => verdict,
        }
    }

    async fn ask(&self) -> Answer {
        let answer = async {
            let answer =
                self.http.get(self.url.clone()).header(http::header::HOST, &self.host).send().await?;
            let status = answer.status().as_u16();
            let is_json = answer
                .headers()
                .get(http::header::CONTENT_TYPE)
                .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("json")));
            let body = answer.text().await?;
            Ok::<_, reqwest::Error>(Answer::Http { status, is_json, body })
        };
        answer.await.unwrap_or_else(|error| {
            let why = reason(&error);
            if error.is_timeout() {
                Answer::Timeout
            } else if error.is_connect() {
                Answer::Refused(why)
            } else {
                Answer::Broken(why)
            }
        })
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Http { status: u16, is_json: bool, body: String },
    Refused(String),
    Timeout,
    Broken(String),
}

/// Good answers in a row, or why the last was none.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Streak {
    pub(super) good: u32,
    pub(super) bad: Option<String>,
    /// The last was a 404.
    pub(super) not_found: bool,
}

impl Streak {
    pub(super) fn take(&mut self, answer: &Answer) {
        *self = match explain(answer) {
            None => Streak { good: self.good + 1, bad: None, not_found: false },
            Some(bad) => {
                let not_found = matches!(answer, Answer::Http { status: 404, .. });
                Streak { good: 0, bad: Some(bad), not_found }
            }
        };
    }
}

/// What an answer other than 200 means; nothing for a good one.
pub(super) fn explain(answer: &Answer) -> Option<String> {
    Some(match answer {
        Answer::Http { status: 200, .. } => return None,
        Answer::Http { status: 404, is_json: false, .. } => {
            "404 from the proxy: the route is not synced yet, or no Ingress has this host".to_owned()
        }
        Answer::Http { status: 404, .. } => {
            "404 from a service behind the entry: another app owns this route".to_owned()
        }
        Answer::Http { status: 503, is_json: true, body } => {
            format!("503 from the app itself: it is not ready, or draining ({})", one_line(body))
        }
        Answer::Http { status: 503, .. } => {
            "503 from the proxy: it has no endpoint for the service".to_owned()
        }
        Answer::Http { status: 502, .. } => {
            "502: the proxy has an endpoint that does not accept the connection".to_owned()
        }
        Answer::Http { status: 504, .. } => {
            "504: the pod behind the proxy does not answer in time".to_owned()
        }
        Answer::Http { status: status @ 300..=399, .. } => {
            format!(
                "{status}: the entry redirects, perhaps to HTTPS (nginx.ingress.kubernetes.io/ssl-redirect)"
            )
        }
        Answer::Http { status, body, .. } => format!("{status}: {}", one_line(body)),
        Answer::Refused(why) => format!("nothing listens at the entry ({why})"),
        Answer::Timeout => format!("no answer within {} s", PATIENCE.as_secs()),
        Answer::Broken(why) => format!("the connection broke ({why})"),
    })
}

pub(super) fn judge(streak: &Streak, host: &str) -> Verdict {
    match &streak.bad {
        Some(bad) => Verdict::Closed(bad.clone()),
        None if streak.good >= GOOD_ANSWERS => {
            Verdict::Open((), format!("{GOOD_ANSWERS} good answers in a row for {host}"))
        }
        None => Verdict::Closed(format!("{} of {GOOD_ANSWERS} good answers", streak.good)),
    }
}

pub(super) fn verdicts<'w>(
    probe: &'w Probe,
    client: &'w Client,
    namespace: &'w str,
) -> impl Stream<Item = Result<Verdict>> + 'w {
    struct State {
        streak: Streak,
        pause: Duration,
        was_bad: bool,
        explained: Option<(String, String)>,
    }
    let state = State { streak: Streak::default(), pause: Duration::ZERO, was_bad: false, explained: None };
    futures::stream::unfold(state, move |mut state| async move {
        let mut verdict = loop {
            tokio::time::sleep(state.pause).await;
            state.streak.take(&probe.ask().await);
            state.was_bad |= state.streak.bad.is_some();
            state.pause = if state.streak.bad.is_some() { AFTER_BAD } else { AFTER_GOOD };
            let verdict = probe.judge(&state.streak);
            // A route that is good from the first answer was open already, and needs no line before the last.
            if state.was_bad || !matches!(verdict, Verdict::Closed(_)) {
                break verdict;
            }
        };
        // What the API knows about it is asked once for each kind of answer.
        if let (Verdict::Closed(line), Some(bad)) = (&mut verdict, &state.streak.bad) {
            let known = state.explained.take().filter(|(about, _)| about == bad);
            let (about, more) = match known {
                Some(known) => known,
                None => (bad.clone(), around(client, namespace, &probe.host).await),
            };
            *line = format!("{line}; {more}");
            state.explained = Some((about, more));
        }
        Some((Ok(verdict), state))
    })
}

/// What the API says of the way behind the entry: the Ingresses for the host, and the endpoints of their services.
async fn around(client: &Client, namespace: &str, host: &str) -> String {
    let ask = async {
        let ingresses: Api<Ingress> = Api::namespaced(client.clone(), namespace);
        let ingresses = ingresses.list(&ListParams::default()).await?.items;
        let services: Vec<String> = ingresses.iter().flat_map(|ingress| services(ingress, host)).collect();
        if services.is_empty() {
            return Ok(format!("no Ingress in namespace {namespace} has the host {host}"));
        }
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
        let slices = slices.list(&ListParams::default()).await?.items;
        let lines: Vec<String> = services.iter().map(|service| endpoints(service, &slices)).collect();
        Ok::<_, kube::Error>(lines.join(", "))
    };
    match tokio::time::timeout(Duration::from_millis(500), ask).await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => format!("the API does not say more: {}", reason(&error)),
        Err(_) => "the API does not say more: no answer".to_owned(),
    }
}

/// The services that an Ingress routes a host to; a rule without a host takes all.
fn services(ingress: &Ingress, host: &str) -> Vec<String> {
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    let mut services: Vec<String> = rules
        .filter(|rule| rule.host.as_deref().is_none_or(|wanted| wanted == host))
        .flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths))
        .filter_map(|path| path.backend.service.as_ref().map(|service| service.name.clone()))
        .collect();
    services.dedup();
    services
}

fn endpoints(service: &str, slices: &[EndpointSlice]) -> String {
    let own = slices.iter().filter(|slice| {
        slice
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("kubernetes.io/service-name"))
            .is_some_and(|name| name == service)
    });
    let (mut ready, mut all) = (0, 0);
    for endpoint in own.flat_map(|slice| &slice.endpoints) {
        all += 1;
        ready += usize::from(
            endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false)),
        );
    }
    format!("service {service} has {ready} of {all} endpoints ready")
}
