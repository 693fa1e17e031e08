//! `cargo xtask doctor`: everything that is wrong on this machine, all at once, each with its fix.
//!
//! What would keep `up` from running is the same list that the preflight refuses by ([`crate::clusters::Problem`]);
//! the rest are warnings.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use serde::Serialize;
use serde_json::json;

use crate::clusters::{self, Choice, Cluster, Problem};
use crate::commands::Commands;
use crate::cx::Cx;
use crate::drift;
use crate::failure::{Attach as _, Exit, Hint, attached, paragraph};
use crate::manifests::{self, Manifests};
use crate::options::Format;
use crate::summary::Summary;

mod capacity;
mod ingress;
mod leftovers;
mod settings;
mod tools;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may surprise, and keeps nothing from running.
    Warning,
    /// `up` can't run on the chosen cluster.
    Fatal,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is so.
    pub what: String,
    /// What fixes it; empty where nothing has to be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, level: Level::Ok, what: what.into(), fix: String::new() }
    }

    fn warning(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { check, level: Level::Warning, what: what.into(), fix: fix.into() }
    }

    fn fatal(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { check, level: Level::Fatal, what: what.into(), fix: fix.into() }
    }
}

/// Looks at everything and changes nothing.
///
/// # Errors
/// Exit code 10 where something would keep `up` from running, with all that was found.
pub async fn run(cx: &Cx) -> Result<Summary> {
    let choice = clusters::choose(cx).await?;
    let findings = cx.unless_stopped(look(cx, &choice)).await?;
    if cx.shared.output == Format::Human {
        cx.output.data(table(&findings).trim_end());
    }
    let fatal = findings.iter().filter(|finding| finding.level == Level::Fatal).count();
    let summary: Summary =
        [("cluster".to_owned(), choice.kind.name().into()), ("findings".to_owned(), json!(findings))]
            .into_iter()
            .collect();
    if fatal == 0 {
        return Ok(summary);
    }
    let problems = if fatal == 1 { "a problem".to_owned() } else { format!("{fatal} problems") };
    Err(anyhow!(
        "{problems} would keep `{}` from running on the {}",
        cx.commands.xtask("up"),
        choice.kind.name()
    ))
    .attach(summary)
    .exit(Exit::Preflight)
}

async fn look(cx: &Cx, choice: &Choice) -> Result<Vec<Finding>> {
    let (running, trouble) = match running(cx, choice).await {
        Ok(running) => (running, None),
        Err(why) => (None, Some(why)),
    };
    let manifests = manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace);
    let mut findings = tools::look(cx, choice).await?;
    let problems = choice.kind.problems(cx).await?;
    findings.extend(cluster(&cx.commands, choice, running.as_ref(), trouble, problems));
    findings.extend(ingress::look(cx, choice, running.as_ref()).await);
    match &manifests {
        Ok(manifests) => {
            findings.extend(capacity::look(cx, choice, running.as_ref(), manifests).await?);
            findings.push(Finding::ok("manifests", objects(manifests)));
            findings.extend(drifted(cx, running.as_ref(), manifests).await);
            findings.extend(leftovers::change(cx, running.as_ref(), manifests).await);
        }
        Err(error) => {
            let fix = attached::<Hint>(error).map(|hint| cx.commands.write_out(&hint.0)).unwrap_or_default();
            findings.push(Finding::fatal("manifests", paragraph(error), fix));
        }
    }
    findings.push(capacity::disk(cx));
    findings.push(weights(cx).await);
    findings.extend(leftovers::sandboxes(cx).await);
    findings.extend(leftovers::contexts(cx, choice, running.is_some()));
    findings.extend(settings::builder(cx).await);
    // With a context it is the user's own kubeconfig that counts.
    let is_read = |name: &str| name == "KUBECONFIG" && cx.shared.context.is_some();
    let variable = |name: &str| if is_read(name) { None } else { std::env::var(name).ok() };
    findings.extend(settings::environment(variable));
    Ok(findings)
}

/// The cluster, if it runs and can be spoken to.
async fn running(cx: &Cx, choice: &Choice) -> Result<Option<Cluster>, String> {
    match tokio::time::timeout(tools::PATIENCE, choice.kind.find(cx)).await {
        Ok(Ok(cluster)) => Ok(cluster),
        Ok(Err(error)) => Err(paragraph(&error)),
        Err(_) => Err(format!("no answer within {} s", tools::PATIENCE.as_secs())),
    }
}

/// What the preflight would refuse, or that it would refuse nothing.
fn cluster(
    commands: &Commands,
    choice: &Choice,
    running: Option<&Cluster>,
    trouble: Option<String>,
    problems: Vec<Problem>,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        problems.into_iter().map(|problem| Finding::fatal("cluster", problem.what, problem.fix)).collect();
    let name = choice.kind.name();
    if findings.is_empty() {
        let state = match running {
            Some(cluster) => format!("runs, entry {}", cluster.entry),
            None => "can be started".to_owned(),
        };
        findings.push(Finding::ok("cluster", format!("{name} ({}): {state}", choice.why)));
    }
    if let Some(why) = trouble {
        let fix = format!("`{}`, then `{}`", commands.xtask("down"), commands.xtask("up"));
        findings.push(Finding::warning("cluster", format!("{name} can't be reached: {why}"), fix));
    }
    findings
}

/// Where a cluster that has the app is not as the manifests say.
async fn drifted(cx: &Cx, running: Option<&Cluster>, manifests: &Manifests) -> Vec<Finding> {
    let Some(cluster) = running else { return Vec::new() };
    match drift::look_in_time(&cluster.client, &cx.shared.namespace, manifests).await {
        Ok(drift) if drift.is_none() => vec![Finding::ok("drift", "the cluster is as kubernetes/ says")],
        Ok(drift) => {
            let fix = format!("`{}`", cx.commands.xtask(drift.cure()));
            drift.lines().into_iter().map(|line| Finding::warning("drift", line, fix.as_str())).collect()
        }
        Err(error) => {
            let fix = format!("`{}` shows more", cx.commands.xtask("status"));
            vec![Finding::warning("drift", format!("can't be told: {}", paragraph(&error)), fix)]
        }
    }
}

fn objects(manifests: &Manifests) -> String {
    format!("{} objects in kubernetes/", manifests.objects.len())
}

async fn weights(cx: &Cx) -> Finding {
    let dir = crate::steps::weights::dir(cx);
    if !dir.exists() {
        return Finding::ok(
            "weights",
            "none yet; `up` fetches them, or generates seeded ones without a network",
        );
    }
    match crate::steps::weights::verify(&dir).await {
        Ok(manifest) if manifest.seeded.is_some() => Finding::warning(
            "weights",
            crate::steps::weights::describe(&manifest),
            "`cargo xtask weights fetch` gets trained ones",
        ),
        Ok(manifest) => Finding::ok("weights", crate::steps::weights::describe(&manifest)),
        Err(error) => {
            let fix = attached::<Hint>(&error).map(|hint| cx.commands.write_out(&hint.0)).unwrap_or_default();
            // The error carries the library's own hint on a line below.
            let what = paragraph(&error).lines().next().unwrap_or_default().to_owned();
            Finding::fatal("weights", what, fix)
        }
    }
}

fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { check, level, what, fix } in findings {
        let mark = match level {
            Level::Ok => "✓",
            Level::Warning => "!",
            Level::Fatal => "✗",
        };
        let _ = writeln!(text, "{mark} {check:<12} {what}");
        if !fix.is_empty() {
            let _ = writeln!(text, "  {:<12} → {fix}", "");
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let _ = writeln!(
        text,
        "\n{} ok, {}, {}",
        count(Level::Ok),
        counted(count(Level::Warning), "warning"),
        counted(count(Level::Fatal), "error")
    );
    text
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_read_well() {
        let findings = [
            Finding::ok("rustc", "1.95.0"),
            Finding::warning("builder", "`docker buildx` uses the builder `lab`", "nothing has to be done"),
            Finding::fatal("cluster", "no `minikube` on PATH", "install it, or use --cluster sandbox"),
        ];
        insta::assert_snapshot!(table(&findings), @r"
        ✓ rustc        1.95.0
        ! builder      `docker buildx` uses the builder `lab`
                       → nothing has to be done
        ✗ cluster      no `minikube` on PATH
                       → install it, or use --cluster sandbox

        1 ok, 1 warning, 1 error
        ");
    }

    #[test]
    fn findings_are_data() {
        let finding = Finding::warning("memory", "room for 7 of 10 pods", "give the node more");
        insta::assert_snapshot!(
            json!([finding, Finding::ok("rustc", "1.95.0")]),
            @r#"[{"check":"memory","fix":"give the node more","level":"warning","what":"room for 7 of 10 pods"},{"check":"rustc","level":"ok","what":"1.95.0"}]"#
        );
    }
}
