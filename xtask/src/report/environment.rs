//! Where a run took place, and the command that repeats it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ResourceRequirements;
use maud::{Markup, html};

use super::{Page, row};
use crate::record::run::Environment;
use crate::record::timeline::Timeline;

impl Page<'_> {
    pub(super) fn environment(&self) -> Markup {
        let facts = facts(&self.run.asked.environment, self.timeline);
        let line = &self.run.asked.line;
        if line.is_empty() {
            return html! {};
        }
        html! {
            section {
                h2 { "Environment" }
                table.facts-table {
                    tbody { @for (name, value) in facts { (row(name, &[value])) } }
                }
                h3 { "The same run again" }
                div.command {
                    pre id="again" tabindex="0" { code { (line) } }
                    button type="button" data-copy="again" { "Copy" }
                    span role="status" {}
                }
            }
        }
    }
}

/// What else may make a difference between two runs, by name; what is not known is not there.
pub(super) fn facts(environment: &Environment, timeline: &Timeline) -> Vec<(&'static str, String)> {
    let Environment { version, commit, is_clean, machine, cluster, kubernetes, nodes, namespace, weights } =
        environment;
    let tree = match is_clean {
        Some(true) => ", nothing changed since",
        Some(false) => ", with changes that are not committed",
        None => "",
    };
    let app = timeline.deployment.as_ref().map(App::of).unwrap_or_default();
    let digests = digests(timeline, app.container.as_deref());
    let all = [
        ("Commit", commit.as_ref().map(|commit| format!("{commit}{tree}"))),
        ("Image", app.image),
        ("Image digest", (!digests.is_empty()).then(|| digests.join(", "))),
        ("Weights", weights.clone()),
        ("Replicas", app.replicas),
        ("Pod requests", app.requests),
        ("Pod limits", app.limits),
        ("Cluster", cluster.clone()),
        ("Kubernetes", kubernetes.clone()),
        ("Nodes", nodes.clone()),
        ("Namespace", Some(namespace.clone())),
        ("This machine", Some(machine.clone())),
        ("xtask", Some(version.clone())),
    ];
    let known = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.filter(|(_, value)| !value.is_empty()).collect()
}

/// What the Deployment says.
#[derive(Default)]
struct App {
    container: Option<String>,
    image: Option<String>,
    replicas: Option<String>,
    requests: Option<String>,
    limits: Option<String>,
}

impl App {
    fn of(deployment: &Deployment) -> App {
        let spec = deployment.spec.as_ref();
        let container = spec.and_then(|spec| spec.template.spec.as_ref()?.containers.first());
        let resources = container.and_then(|container| container.resources.clone()).unwrap_or_default();
        let ResourceRequirements { requests, limits, .. } = resources;
        let listed = |amounts: Option<std::collections::BTreeMap<String, _>>| {
            let amounts: Vec<_> = amounts.into_iter().flatten().map(amount).collect();
            (!amounts.is_empty()).then(|| amounts.join(", "))
        };
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        App {
            container: container.map(|container| container.name.clone()),
            image: container.and_then(|container| container.image.clone()),
            replicas: spec
                .and_then(|spec| spec.replicas)
                .map(|replicas| format!("{replicas}, {ready} of them Ready at the end")),
            requests: listed(requests),
            limits: listed(limits),
        }
    }
}

fn amount((name, amount): (String, k8s_openapi::apimachinery::pkg::api::resource::Quantity)) -> String {
    format!("{name} {}", amount.0)
}

/// By which digests the nodes know the image of the app's pods.
fn digests(timeline: &Timeline, container: Option<&str>) -> Vec<String> {
    let statuses =
        timeline.pods.iter().filter_map(|pod| pod.last.status.as_ref()?.container_statuses.as_ref());
    let of_app = statuses.flatten().filter(|status| container == Some(status.name.as_str()));
    let mut digests: Vec<String> =
        of_app.map(|status| status.image_id.clone()).filter(|digest| !digest.is_empty()).collect();
    digests.sort_unstable();
    digests.dedup();
    digests
}
