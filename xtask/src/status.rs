//! `cargo xtask status`: every gate at once, without changing anything.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::clusters::{self, Cluster};
use crate::cx::Cx;
use crate::drift::{self, Drift};
use crate::failure::paragraph;
use crate::gates::{self, Site, Verdict};
use crate::manifests::Manifests;
use crate::options::Format;
use crate::summary::Summary;
use crate::temporary::{self, App};

/// A gate that has not said anything by then is shown as what it is: silent.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Shorter words may be the same by chance.
const LEAST_CAUSE: usize = 20;

/// One gate, as it is now.
struct Row {
    gate: &'static str,
    state: &'static str,
    detail: String,
}

/// Looks at every gate.
///
/// # Errors
/// When the manifests can't be read, or the run is told to stop; a closed gate is an answer, not an error.
pub async fn run(cx: &Cx) -> Result<Summary> {
    let choice = clusters::choose(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
    let found = cx.unless_stopped(choice.kind.find(cx)).await?;
    let mut drift = Ok(Drift::default());
    let (rows, mut summary) = match &found {
        None => {
            let why = cx.unless_stopped(choice.kind.absence(cx)).await?;
            let detail = format!("{why}; `{}` starts it", cx.commands.xtask("up"));
            (vec![Row { gate: "cluster", state: "closed", detail }], Summary::new())
        }
        Some(cluster) => {
            let compare = drift::look_in_time(&cluster.client, &cx.shared.namespace, &manifests);
            let look = async { Ok(futures::join!(look(cx, cluster, &manifests), compare)) };
            let (rows, compared) = cx.unless_stopped(look).await?;
            drift = compared.map_err(|error| paragraph(&error));
            (rows, cluster.summary(&manifests))
        }
    };
    if cx.shared.output == Format::Human {
        cx.output.data(table(&rows, found.as_ref(), &manifests).trim_end());
        if found.is_some() {
            cx.output.data(drifted(cx, &drift).trim_end());
        }
    }
    if let Some(cluster) = &found {
        let app = App::of(cx, cluster, &manifests);
        summary.extend(cx.unless_stopped(async { Ok(temporary::warn(cx, app).await) }).await?);
    }
    if let Some(why) = cx.unless_stopped(choice.kind.outdated(cx)).await? {
        cx.output.note(&format!("warning: {why}"));
        summary.insert("warning".into(), why.into());
    }
    summary.insert("ready".into(), rows.iter().all(|row| row.state == "open").into());
    let gates: Vec<Value> =
        rows.iter().map(|row| json!({"name": row.gate, "state": row.state, "detail": row.detail})).collect();
    summary.insert("gates".into(), gates.into());
    if found.is_some() {
        let drift = drift.map_or_else(|why| json!({"unknown": why}), |drift| json!(drift));
        summary.insert("drift".into(), drift);
    }
    Ok(summary)
}

async fn look(cx: &Cx, cluster: &Cluster, manifests: &Manifests) -> Vec<Row> {
    let site = &Site { cluster, manifests, namespace: &cx.shared.namespace };
    let rows = gates::standing(manifests, cluster.nginx, cluster.metrics)
        .map(|(gate, ask)| row(gate.name, (ask.look)(site)));
    join_all(rows).await
}

async fn row(gate: &'static str, look: impl Future<Output = Result<Verdict>>) -> Row {
    let (state, detail) = match tokio::time::timeout(LOOK_DEADLINE, look).await {
        Ok(Ok(Verdict::Open((), how))) => ("open", how),
        Ok(Ok(Verdict::Closed(why) | Verdict::Suspect(why))) => ("closed", why),
        Ok(Ok(Verdict::Doomed(why, _))) => ("doomed", why),
        Ok(Err(error)) => ("closed", paragraph(&error)),
        Err(_) => ("closed", format!("no answer within {} s", LOOK_DEADLINE.as_secs())),
    };
    Row { gate, state, detail }
}

/// What each row says, without what a row above it has said already: one cause closes many gates.
fn causes_once(rows: &[Row]) -> Vec<String> {
    let mut said: Vec<(&str, &str)> = Vec::new();
    let mut details = Vec::new();
    for Row { gate, state, detail } in rows {
        let mut short = detail.clone();
        if *state != "open" {
            let again = said.iter().filter(|(_, cause)| detail.contains(cause));
            if let Some((first, cause)) = again.max_by_key(|(_, cause)| cause.len()) {
                short = detail.replace(cause, &format!("see {first}"));
            }
            for part in detail.split("; ") {
                let causes =
                    part.match_indices(": ").map(|(at, colon)| &part[at + colon.len()..]).chain([part]);
                said.extend(causes.filter(|cause| cause.len() >= LEAST_CAUSE).map(|cause| (*gate, cause)));
            }
        }
        details.push(short);
    }
    details
}

/// Where the cluster is not as `kubernetes/` says, and what would repair that.
fn drifted(cx: &Cx, drift: &Result<Drift, String>) -> String {
    match drift {
        Ok(drift) if drift.is_none() => "the cluster is as kubernetes/ says".to_owned(),
        Ok(drift) => {
            let mut text = String::new();
            for line in drift.lines() {
                let _ = writeln!(text, "! {line}");
            }
            format!("{text}`{}` makes it as kubernetes/ says", cx.commands.xtask(drift.cure()))
        }
        Err(why) => format!("! whether it is as kubernetes/ says can't be told: {why}"),
    }
}

fn table(rows: &[Row], cluster: Option<&Cluster>, manifests: &Manifests) -> String {
    let mut text = String::new();
    for (Row { gate, state, .. }, detail) in rows.iter().zip(causes_once(rows)) {
        let mark = match *state {
            "open" => "✓",
            "doomed" => "✗",
            _ => "…",
        };
        let _ = writeln!(text, "{mark} {gate:<18} {state:<6}  {detail}");
    }
    if let Some(cluster) = cluster {
        let (host, context) = (manifests.host(), &cluster.context);
        let entry = match &cluster.tunnel {
            Some(how) => format!("{}, {how}; it ends with this command", cluster.entry),
            None => cluster.entry.clone(),
        };
        let _ = writeln!(text, "\nentry {entry}  Host: {host}  context {context}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_read_well() {
        let rows = [
            row("cluster", async { Ok(Verdict::Open((), "API ready, node sandbox Ready".into())) }).await,
            row("rollout", async { Ok(Verdict::Closed("2 of 3 updated pods Ready".into())) }).await,
            row("route", async { Ok(Verdict::Doomed("nothing listens".into(), "".into())) }).await,
        ];
        let manifests = crate::manifests::read(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../kubernetes"),
            "default",
        )
        .expect("the shipped manifests");
        insta::assert_snapshot!(table(&rows, None, &manifests), @r"
        ✓ cluster            open    API ready, node sandbox Ready
        … rollout            closed  2 of 3 updated pods Ready
        ✗ route              doomed  nothing listens
        ");
    }

    #[test]
    fn a_cause_is_written_once() {
        let rows = [
            ("cluster", "open", "API ready, node minikube Ready"),
            (
                "ingress-lease",
                "closed",
                "the lease is held by c-7k, which is not Ready: startup probe /healthz 503, 12 s of 90",
            ),
            (
                "ingress-controller",
                "closed",
                "0 of 1 updated pods Ready; 7k: startup probe /healthz 503, 12 s of 90",
            ),
            (
                "metrics",
                "closed",
                "the API server does not answer for apiservices: Connection refused (os error 111)",
            ),
            (
                "rollout",
                "closed",
                "the API server does not answer for pods: Connection refused (os error 111)",
            ),
            ("route", "closed", "404 from the proxy"),
            ("settled", "closed", "404 from the proxy"),
        ];
        let rows = rows.map(|(gate, state, detail)| Row { gate, state, detail: detail.to_owned() });
        insta::assert_snapshot!(causes_once(&rows).join("\n"), @"
        API ready, node minikube Ready
        the lease is held by c-7k, which is not Ready: startup probe /healthz 503, 12 s of 90
        0 of 1 updated pods Ready; 7k: see ingress-lease
        the API server does not answer for apiservices: Connection refused (os error 111)
        the API server does not answer for pods: see metrics
        404 from the proxy
        404 from the proxy
        ");
    }
}
