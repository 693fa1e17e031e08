//! `cargo xtask wait`: the rollout gate alone, on any workloads of any cluster. It changes nothing, and needs no right
//! but to read.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use futures::StreamExt as _;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::clusters::{self, Cluster};
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit, reason};
use crate::gates::kind::Kind;
use crate::gates::workload::{Until, Workload};
use crate::gates::{self, Verdict, evidence, rollout, settled};
use crate::nearest::nearest;
use crate::pipeline::Branch;
use crate::plan::Planned;
use crate::rights::{self, Right};
use crate::summary::Summary;

mod words;

/// What is waited for.
#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// deployment/NAME, statefulset/NAME, daemonset/NAME or job/NAME; as with kubectl, KIND NAME… too.
    #[arg(required = true, value_name = "KIND/NAME")]
    pub workloads: Vec<String>,
    /// Until when.
    #[arg(long = "for", value_enum, default_value = "rollout")]
    pub until: Until,
}

/// The run outlasts its own `--timeout` by so much: the gate ends with it, and then says what it saw.
pub const LONGER: Duration = Duration::from_secs(gates::BUNDLE.as_secs() + 1);

/// Who waits so long at least is not told of a deadline that is none of theirs.
const DEADLINE: Duration = rollout::GATE.deadline;

/// Time for one look, which is what no time at all asks for.
const ONE_LOOK: Duration = Duration::from_secs(2);

/// What became of one workload.
struct Seen {
    workload: Workload,
    state: &'static str,
    detail: String,
}

/// Waits for all of them; the first that can't become ready ends it.
///
/// # Errors
/// Exit code 2 where the command line names what is not there, 10 where the credentials may not read it, 30 where one
/// can't become ready, 31 when time is over.
pub async fn run(branch: &mut Branch<'_>, args: &WaitArgs) -> Result<Summary> {
    let cx = branch.cx;
    let names = words::read(&args.workloads)?;
    let cluster = clusters::choose(cx).await?.kind.expect(cx).await?;
    let client = &cluster.client;
    let workloads = cx.unless_stopped(find(cx, client, &names)).await?;
    let unseen = cx.unless_stopped(check_rights(cx, client, &workloads)).await?;
    let seen: Vec<_> = workloads
        .into_iter()
        .map(|workload| RefCell::new(Seen { workload, state: "waiting", detail: String::new() }))
        .collect();
    let waits =
        seen.iter().map(|seen| async |branch: &mut Branch<'_>| wait(branch, client, seen, args.until).await);
    let result = branch.all(waits).await;
    let summary = summary(cx, &cluster, &seen, &unseen);
    result.map(|_| summary.clone()).attach(summary)
}

/// What [`run`] would do.
///
/// # Errors
/// Where the command line names what can't be waited for.
pub fn plan(args: &WaitArgs) -> Result<Vec<Planned>> {
    let gate = if args.until == Until::Settled { &settled::GATE } else { &rollout::GATE };
    let watch =
        |(kind, name): (Kind, String)| format!("watch {}/{name}, its pods and its events", kind.word());
    let does = words::read(&args.workloads)?.into_iter().map(watch).collect();
    Ok(vec![Planned::gates(does, vec![gate])])
}

async fn wait(branch: &mut Branch<'_>, client: &Client, seen: &RefCell<Seen>, until: Until) -> Result<()> {
    let cx = branch.cx;
    let workload = seen.borrow().workload.clone();
    let Workload { namespace, selector, .. } = &workload;
    let title = workload.title();
    let deadline = match cx.shared.timeout {
        Some(Duration::ZERO) => ONE_LOOK,
        Some(limit) => limit.saturating_sub(cx.began.elapsed()),
        None => DEADLINE,
    };
    let further = cx.commands.kubectl(&format!("-n {namespace} describe {title}"));
    let verdicts = workload.verdicts(client, until).inspect(|verdict| {
        let (state, detail) = match verdict {
            Ok(Verdict::Open((), how)) => ("ready", how.clone()),
            Ok(Verdict::Closed(why) | Verdict::Suspect(why)) => ("waiting", why.clone()),
            Ok(Verdict::Doomed(why, _)) => ("failed", why.clone()),
            Err(error) => ("waiting", format!("{error:#}")),
        };
        let mut seen = seen.borrow_mut();
        (seen.state, seen.detail) = (state, detail);
    });
    let evidence = async || {
        let selector = (!selector.is_empty()).then_some(selector.as_str());
        let about = evidence::About {
            namespace,
            workload: Some((workload.kind, &workload.name)),
            selector,
            ..Default::default()
        };
        evidence::collect(cx, client, about).await
    };
    gates::wait_as(branch, title, deadline, further, verdicts, evidence).await.map(drop)
}

fn summary(cx: &Cx, cluster: &Cluster, seen: &[RefCell<Seen>], unseen: &[String]) -> Summary {
    let one = |seen: &RefCell<Seen>| {
        let Seen { workload, state, detail } = &*seen.borrow();
        json!({"workload": workload.title(), "namespace": workload.namespace, "state": state,
            "detail": detail})
    };
    let fields = [
        ("cluster", cluster.kind.name().into()),
        ("context", cluster.context.as_str().into()),
        ("namespace", cx.shared.namespace.as_str().into()),
        ("workloads", seen.iter().map(one).collect()),
        ("unseen", json!(unseen)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Looks all of them up: what is not there is a mistake on the command line.
async fn find(cx: &Cx, client: &Client, names: &[(Kind, String)]) -> Result<Vec<Workload>> {
    let namespace = &cx.shared.namespace;
    let mut found = Vec::new();
    for (kind, name) in names {
        let looked_up = Workload::find(client, *kind, namespace, name).await;
        let workload = looked_up.map_err(|error| refused(cx, client_error(&error), &error, *kind, name))?;
        let Some(workload) = workload else {
            let (plural, group) = (kind.plural(), kind.group());
            return Err(anyhow!("{plural}.{group} \"{name}\" not found in namespace {namespace}"))
                .hint(others(cx, client, *kind, name).await)
                .exit(Exit::Usage);
        };
        found.push(workload);
    }
    Ok(found)
}

/// Whether the API server has refused, rather than failed.
fn client_error(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 401 || status.code == 403)
}

fn refused(cx: &Cx, is_refusal: bool, error: &kube::Error, kind: Kind, name: &str) -> anyhow::Error {
    let (plural, group) = (kind.plural(), kind.group());
    let error = anyhow!("{}", reason(error)).context(format!("looking for {}/{name}", kind.word()));
    if !is_refusal {
        return error.exit(Exit::Step);
    }
    let can_i = format!("-n {} auth can-i get {plural}.{group}", cx.shared.namespace);
    error.hint(cx.commands.kubectl(&can_i)).exit(Exit::Preflight)
}

/// What there is instead: the nearest name, or all of them.
async fn others(cx: &Cx, client: &Client, kind: Kind, name: &str) -> String {
    const MOST: u32 = 500;
    let namespace = &cx.shared.namespace;
    let list = cx.commands.kubectl(&format!("-n {namespace} get {}", kind.plural()));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource());
    let Ok(listed) = api.list(&ListParams::default().limit(MOST)).await else { return list };
    let names: Vec<String> = listed.items.iter().map(ResourceExt::name_any).collect();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {}/{near}?", kind.word()),
        None => list,
    }
}

/// What the gate reads of a kind, and what only explains more, with what is not seen without it.
fn reads(kinds: &[Kind]) -> (Vec<Right>, Vec<(Right, &'static str)>) {
    const READ: &[&str] = &["get", "list", "watch"];
    const FOLLOW: &[&str] = &["list", "watch"];
    let mut needed = vec![Right::new("", "pods", FOLLOW)];
    needed.extend(kinds.iter().map(|kind| Right::new(kind.group(), &kind.plural(), READ)));
    if kinds.contains(&Kind::Deployment) {
        needed.push(Right::new("apps", "replicasets", FOLLOW));
    }
    let explain = vec![
        (Right::new("", "events", FOLLOW), "what only events tell, such as refused pods and failing probes"),
        (Right::new("", "pods/log", &["get"]), "what the containers wrote"),
        (Right::everywhere("", "nodes", &["list"]), "the state of the nodes"),
    ];
    (needed, explain)
}

/// Refuses where what the gate reads may not be read; returns what else will not be seen.
async fn check_rights(cx: &Cx, client: &Client, workloads: &[Workload]) -> Result<Vec<String>> {
    let namespace = &cx.shared.namespace;
    let mut kinds: Vec<Kind> = Vec::new();
    for workload in workloads {
        if !kinds.contains(&workload.kind) {
            kinds.push(workload.kind);
        }
    }
    let (needed, explain) = reads(&kinds);
    let missing = rights::missing(client, namespace, &needed).await;
    if !missing.is_empty() {
        let all = cx.commands.kubectl(&format!("-n {namespace} auth can-i --list"));
        return Err(anyhow!("these credentials may not {} in namespace {namespace}", missing.join("; ")))
            .hint(format!("`{all}` shows what they may"))
            .exit(Exit::Preflight);
    }
    let mut unseen = Vec::new();
    for (right, what) in explain {
        for missing in rights::missing(client, namespace, &[right]).await {
            let line = format!("{what} ({missing}: forbidden)");
            cx.output.note(&format!("warning: not seen: {line}"));
            unseen.push(line);
        }
    }
    Ok(unseen)
}
