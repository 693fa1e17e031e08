//! `--dry-run`: the plan of a command, from the same functions that build its commands. Changes nothing.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::Command;
use crate::clusters::{self, Kind};
use crate::cx::Cx;
use crate::gates::{self, Gate};
use crate::load::args::LoadArgs;
use crate::manifests::{Manifests, REPOSITORY};
use crate::options::{Deploy, Format};
use crate::owned::FIELD_MANAGER;
use crate::steps::smoke::PICTURE;
use crate::summary::Summary;

/// A step of the plan.
struct Planned {
    step: &'static str,
    does: Vec<String>,
    gates: Vec<&'static Gate>,
}

impl Planned {
    fn new(step: &'static str, does: Vec<String>) -> Planned {
        Planned { step, does, gates: Vec::new() }
    }

    fn gate(mut self, gate: &'static Gate) -> Planned {
        self.gates.push(gate);
        self
    }
}

/// Prints what the command would do.
///
/// # Errors
/// When the manifests can't be read.
pub async fn run(cx: &Cx, command: &Command) -> Result<Summary> {
    let choice = clusters::choose(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
    let plan = match command {
        Command::Up(deploy) => up(cx, &choice.kind, &manifests, *deploy).await?,
        Command::Redeploy(deploy) => redeploy(cx, &choice.kind, &manifests, *deploy).await?,
        Command::Smoke => vec![smoke()],
        Command::Load(args) => load(cx, args, &manifests)?,
        Command::Down { delete } => down(&choice.kind, &manifests, *delete),
        Command::Weights { .. } => vec![weights(cx)],
        Command::Test(args) => vec![Planned::new("test", crate::test::plan(cx, args)?)],
        Command::Status
        | Command::Explain { .. }
        | Command::Doctor
        | Command::Logs(_)
        | Command::Kubeconfig
        | Command::Completions { .. }
        | Command::Sandbox { .. } => {
            vec![Planned::new(
                "look",
                vec!["reads from the cluster and changes nothing, with or without --dry-run".to_owned()],
            )]
        }
    };
    if cx.shared.output == Format::Human {
        let title = format!("plan on {} ({}); nothing is changed\n", choice.kind.name(), choice.why);
        cx.output.data(&format!("{title}{}", text(&plan).trim_end()));
    }
    Ok([("plan".to_owned(), plan.iter().map(json).collect::<Value>())].into_iter().collect())
}

async fn up(cx: &Cx, kind: &Kind, manifests: &Manifests, deploy: Deploy) -> Result<Vec<Planned>> {
    let commands = kind.plan(cx).await?;
    let namespace = &cx.shared.namespace;
    let mut plan = vec![
        preflight(),
        Planned::new(
            "cluster",
            [commands.cluster, vec![format!("create namespace {namespace} if it is missing")]].concat(),
        )
        .gate(&gates::cluster::GATE),
        Planned::new("ingress", commands.ingress)
            .gate(&gates::ingress_lease::GATE)
            .gate(&gates::ingress_controller::GATE),
        Planned::new("metrics", commands.metrics).gate(&gates::metrics::GATE),
        weights(cx),
        image(commands.image),
        apply(namespace, manifests),
        restart("if the pod template is unchanged: nothing"),
        prune(deploy, namespace),
        route(manifests),
    ];
    if let Some(name) = manifests.autoscaler_name() {
        plan.push(
            Planned::new("autoscaler", vec![format!("watch hpa/{name}")]).gate(&gates::autoscaler::GATE),
        );
    }
    plan.push(smoke());
    Ok(plan)
}

async fn redeploy(cx: &Cx, kind: &Kind, manifests: &Manifests, deploy: Deploy) -> Result<Vec<Planned>> {
    let name = manifests.deployment_name();
    let restarted = format!(
        "if the pod template is unchanged: patch deployment/{name}, annotation kubectl.kubernetes.io/restartedAt"
    );
    Ok(vec![
        preflight(),
        weights(cx),
        image(kind.plan(cx).await?.image),
        apply(&cx.shared.namespace, manifests),
        restart(&restarted),
        prune(deploy, &cx.shared.namespace),
        route(manifests),
        smoke(),
    ])
}

fn preflight() -> Planned {
    Planned::new(
        "preflight",
        vec!["read kubernetes/*.yaml; look for tools, the container engine, ports".to_owned()],
    )
}

fn weights(cx: &Cx) -> Planned {
    let dir = crate::steps::weights::dir(cx);
    let set = xtask_weights::default_set();
    Planned::new(
        "weights",
        vec![
            format!("verify {} if it is there", cx.short(&dir)),
            format!("else GET {}, sha256 {}", set.url, set.sha256),
            "else, without a network, generate seeded weights".to_owned(),
        ],
    )
}

fn image(commands: Vec<String>) -> Planned {
    Planned::new(
        "image",
        [
            vec![format!(
                "{REPOSITORY}:TAG, a hash of app/, Cargo.lock and the weights; if it is there: nothing"
            )],
            commands,
        ]
        .concat(),
    )
    .gate(&gates::image::GATE)
}

fn apply(namespace: &str, manifests: &Manifests) -> Planned {
    let objects = manifests.objects.iter().map(|object| {
        format!(
            "server-side apply {} in {namespace}, field manager {FIELD_MANAGER} ({})",
            object.title(),
            object.place()
        )
    });
    Planned::new("apply", objects.collect())
}

fn restart(otherwise: &str) -> Planned {
    let does = vec![
        "if apply changed the pod template: nothing, it is a rollout already".to_owned(),
        otherwise.to_owned(),
    ];
    Planned::new("restart", does).gate(&gates::rollout::GATE).gate(&gates::settled::GATE)
}

fn prune(deploy: Deploy, namespace: &str) -> Planned {
    let look = format!(
        "list the metadata of every kind in {namespace}: what of the app is no longer in kubernetes/"
    );
    let then = if deploy.prune { "delete each, where no other tool applies it too" } else { "name each" };
    Planned::new("prune", vec![look, then.to_owned()])
}

fn route(manifests: &Manifests) -> Planned {
    Planned::new("route", vec![format!("GET /health by the entry, Host: {}", manifests.host())])
        .gate(&gates::route::GATE)
}

fn smoke() -> Planned {
    Planned::new(
        "smoke",
        vec![
            "port-forward to the newest Ready pod".to_owned(),
            "GET /health, byte for byte as in the contract".to_owned(),
            format!("POST /predict with {PICTURE}: 5 ranked predictions"),
        ],
    )
}

fn load(cx: &Cx, args: &LoadArgs, manifests: &Manifests) -> Result<Vec<Planned>> {
    let plan = args.plan()?;
    let namespace = &cx.shared.namespace;
    let mut before = Planned::new("gates", vec!["every gate of `up`, at the same time".to_owned()]);
    for (gate, _) in gates::standing(manifests) {
        before = before.gate(gate);
    }
    let watch = Planned::new(
        "witness",
        vec![
            format!("watch pods, ReplicaSets, endpoints and events in {namespace}; follow the app's logs"),
            "follow the access log of every ingress controller pod".to_owned(),
        ],
    )
    .gate(&crate::load::ATTRIBUTION);
    let send = vec![
        format!("POST /predict with {PICTURE} by the entry, Host: {}: {}", manifests.host(), plan.line()),
        format!(
            "thresholds: {}",
            args.threshold.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ),
        "explain each failure".to_owned(),
    ];
    Ok(vec![before, watch, Planned::new("load", send)])
}

fn down(kind: &Kind, manifests: &Manifests, delete: bool) -> Vec<Planned> {
    match kind {
        Kind::Sandbox(_) => {
            vec![Planned::new("stop", vec!["stop the sandbox, and its pods with it".to_owned()])]
        }
        Kind::Minikube(_) if delete => vec![Planned::new("stop", vec!["minikube delete".to_owned()])],
        Kind::Minikube(_) => {
            let objects = manifests
                .objects
                .iter()
                .rev()
                .map(|object| format!("delete {} if this tool applied it", object.title()));
            vec![Planned::new("remove", objects.collect())]
        }
    }
}

fn text(plan: &[Planned]) -> String {
    let mut text = String::new();
    for Planned { step, does, gates } in plan {
        let mut label = *step;
        for line in does {
            let _ = writeln!(text, "{label:<18} {line}");
            label = "";
        }
        for Gate { name, opens_when, deadline, .. } in gates {
            let _ = writeln!(text, "└ gate {name}: {opens_when}; within {} s", deadline.as_secs());
        }
    }
    text
}

fn json(planned: &Planned) -> Value {
    let gates: Vec<_> = planned
        .gates
        .iter()
        .map(|Gate { name, opens_when, deadline, .. }| {
            json!({"name": name, "opens_when": opens_when, "deadline_seconds": deadline.as_secs()})
        })
        .collect();
    json!({"step": planned.step, "does": planned.does, "gates": gates})
}
