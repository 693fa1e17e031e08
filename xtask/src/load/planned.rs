//! What a load run would do, from the options that decide it.

use anyhow::Result;

use super::args::LoadArgs;
use super::disturb::{self, Disturbance, SCALE_UP};
use super::experiment::{self, Protection};
use super::ready::{self, ATTRIBUTION};
use super::send;
use crate::cx::Cx;
use crate::gates;
use crate::manifests::Manifests;
use crate::plan::Planned;
use crate::temporary::ANNOTATION;

/// What [`super::run`] would do, in its order.
///
/// # Errors
/// When the options contradict each other (exit code 2), or there is no autoscaler for a scale-down.
pub fn plan(cx: &Cx, args: &LoadArgs, manifests: &Manifests) -> Result<Vec<Planned>> {
    let runs = (0..args.repeat).map(|_| once(cx, args, manifests));
    Ok(runs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// One of its runs.
fn once(cx: &Cx, args: &LoadArgs, manifests: &Manifests) -> Result<Vec<Planned>> {
    let sends = args.plan()?;
    // What the run would refuse, its plan does too.
    args.request.body(&cx.root)?;
    let (namespace, name) = (&cx.shared.namespace, manifests.deployment_name());
    let mark = format!("mark deployment/{name}, annotation {ANNOTATION}");
    let mut plan = Vec::new();
    if args.is_gated() {
        let others = ready::before_route(manifests, cx.shared.context.is_none(), true);
        let others = others.map(|(gate, _)| gate).collect();
        plan.push(Planned::gates(vec!["every gate of `up`, at the same time".to_owned()], others));
        plan.push(Planned::gates(vec!["the route behind them".to_owned()], vec![&gates::route::GATE]));
    }
    if let Some(protection) = args.without.filter(|_| args.is_gated()) {
        let does = format!("patch deployment/{name}: without {}", protection.name());
        plan.push(Planned::step(experiment::NAME, vec![mark.clone(), does]).gate(&gates::settled::GATE));
    }
    if args.disturbance() == Some(Disturbance::ScaleDown) {
        let hpa = disturb::autoscaler(manifests)?;
        let does = format!("raise hpa/{hpa} and deployment/{name} to as many replicas as may be and fit");
        plan.push(Planned::step(SCALE_UP, vec![mark, does]).gate(&gates::settled::GATE));
    }
    if args.is_gated() && args.changes_app() {
        let does = "the route to the pods as they are now".to_owned();
        plan.push(Planned::gates(vec![does], vec![&gates::route::GATE]));
    }
    let witness = vec![
        format!("watch pods, ReplicaSets, endpoints and events in {namespace}; follow the app's logs"),
        "follow the access log of every ingress controller pod".to_owned(),
    ];
    plan.push(Planned::gates(witness, if args.is_gated() { vec![&ATTRIBUTION] } else { Vec::new() }));
    plan.push(Planned::step(send::NAME, load(args, &sends.line(), manifests)));
    if args.disturbance().is_some() || args.without.is_some() {
        let does = "until what was disturbed is over".to_owned();
        plan.push(Planned::gates(vec![does], vec![&gates::ingress_controller::GATE, &gates::settled::GATE]));
    }
    if args.changes_app() {
        let does = format!("put deployment/{name} back as it was, however the run ends");
        plan.push(Planned::gates(vec![does], vec![&gates::settled::GATE]));
    }
    Ok(plan)
}

fn load(args: &LoadArgs, sends: &str, manifests: &Manifests) -> Vec<String> {
    let mut does = vec![format!("{} by the entry, Host: {}: {sends}", args.request.line(), manifests.host())];
    if args.without == Some(Protection::Gates) {
        does.insert(0, "restart the ingress controller, and wait for no gate".to_owned());
    }
    does.extend(args.disturbance().map(|what| format!("after a fifth of it: {}", what.name())));
    let thresholds: Vec<_> = args.threshold.iter().map(ToString::to_string).collect();
    does.push(format!("thresholds: {}", thresholds.join(", ")));
    does.push("explain each failure".to_owned());
    does.extend(args.baseline.as_ref().map(|run| format!("compare with the run {run}")));
    does
}
