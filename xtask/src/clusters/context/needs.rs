//! What a context's cluster must have before anything is changed in it: the rights, the namespace, an ingress class,
//! the metrics API, nodes that the image runs on.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::ListParams;
use kube::{Client, ResourceExt};

use super::platform::{self, Platform};
use crate::clusters::Problem;
use crate::cx::Cx;
use crate::declared;
use crate::kubernetes::{Api, METRICS_API};
use crate::manifests::Manifests;
use crate::rights::{self, Right};

/// Marks the class that an Ingress without one is given.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// Everything that is missing, each with its fix.
pub(super) async fn problems(
    cx: &Cx,
    client: &Client,
    manifests: &Manifests,
    nodes: Option<&[Node]>,
) -> Vec<Problem> {
    let namespace = cx.shared.namespace.as_str();
    // Who may not look at namespaces will hear of a missing one from the first object.
    let found = Api::<Namespace>::all(client.clone()).get_opt(namespace).await;
    let is_missing = matches!(found, Ok(None));
    let (rights, ingress, metrics) = futures::join!(
        rights(cx, client, manifests, is_missing && cx.shared.create_namespace),
        no_ingress_class(client, manifests),
        no_metrics(client, manifests)
    );
    let no_namespace = (is_missing && !cx.shared.create_namespace).then(|| no_namespace(cx, namespace));
    let nodes = nodes.unwrap_or_default();
    let platform = Platform::of(cx, nodes, manifests).await.err();
    let misplaced = platform::misplaced(nodes, manifests);
    [rights, no_namespace, ingress, metrics, platform, misplaced].into_iter().flatten().collect()
}

/// What the steps do and the gates read.
fn needed() -> Vec<Right> {
    const FOLLOW: &[&str] = &["get", "list", "watch"];
    vec![
        Right::new("apps", "deployments", FOLLOW),
        Right::new("apps", "replicasets", FOLLOW),
        Right::new("", "pods", FOLLOW),
        Right::new("", "events", &["list", "watch"]),
        Right::new("", "serviceaccounts", &["list", "watch"]),
        // The smoke test goes to a pod itself.
        Right::new("", "pods/portforward", &["create"]),
    ]
}

async fn rights(cx: &Cx, client: &Client, manifests: &Manifests, creates_namespace: bool) -> Option<Problem> {
    let mut rights = needed();
    if creates_namespace {
        rights.push(Right::everywhere("", "namespaces", &["create"]));
    }
    for object in &manifests.objects {
        // A kind that the cluster does not know is the apply step's to name, with its line.
        let Ok((resource, namespaced)) = declared::resolve(client, object).await else { continue };
        let right = Right::new(&resource.group, &resource.plural, &["get", "create", "patch"]);
        let right = Right { namespaced, ..right };
        if !rights.contains(&right) {
            rights.push(right);
        }
    }
    let missing = rights::missing(client, &cx.shared.namespace, &rights).await;
    (!missing.is_empty()).then(|| {
        let all = cx.commands.kubectl(&format!("-n {} auth can-i --list", cx.shared.namespace));
        Problem {
            what: format!(
                "these credentials may not, in namespace {}: {}",
                cx.shared.namespace,
                missing.join("; ")
            ),
            fix: format!("ask whoever runs the cluster for a role with them; `{all}` shows what they may"),
        }
    })
}

fn no_namespace(cx: &Cx, name: &str) -> Problem {
    Problem {
        what: format!("there is no namespace {name}, and none is made in a cluster of others unasked"),
        fix: format!(
            "`{}` makes it, or `{}`",
            cx.commands.xtask("up --create-namespace"),
            cx.commands.kubectl(&format!("create namespace {name}"))
        ),
    }
}

async fn no_ingress_class(client: &Client, manifests: &Manifests) -> Option<Problem> {
    let classes = Api::<IngressClass>::all(client.clone()).list(&ListParams::default()).await.ok()?.items;
    let wanted = manifests.ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    let is_default =
        |class: &IngressClass| class.annotations().get(DEFAULT_CLASS).is_some_and(|is| is == "true");
    let names: Vec<String> = classes.iter().map(ResourceExt::name_any).collect();
    let there =
        if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
    match wanted {
        Some(wanted) if names.iter().any(|name| name == wanted) => None,
        None if classes.iter().any(is_default) => None,
        Some(wanted) => Some(Problem {
            what: format!("the cluster has no IngressClass `{wanted}`, which the Ingress asks for: {there}"),
            fix: if names.is_empty() {
                "install an ingress controller, such as ingress-nginx, Traefik or the cloud's own".to_owned()
            } else {
                "set `ingressClassName` in kubernetes/70-ingress.yaml to one of them".to_owned()
            },
        }),
        None => Some(Problem {
            what: format!("the Ingress names no class, and the cluster has no default one: {there}"),
            fix: "set `ingressClassName` in kubernetes/70-ingress.yaml, or install an ingress controller"
                .to_owned(),
        }),
    }
}

async fn no_metrics(client: &Client, manifests: &Manifests) -> Option<Problem> {
    let autoscaler = manifests.autoscaler_name()?;
    let is_there = has_metrics(client).await?;
    (!is_there).then(|| Problem {
        what: format!("the cluster has no metrics API, by which hpa/{autoscaler} would read cpu and memory"),
        fix: "install metrics-server (https://github.com/kubernetes-sigs/metrics-server), or take the \
              autoscaler out of kubernetes/"
            .to_owned(),
    })
}

/// Whether the cluster has the metrics API; none where that may not be asked.
pub(super) async fn has_metrics(client: &Client) -> Option<bool> {
    let found = Api::<APIService>::all(client.clone()).get_opt(METRICS_API).await.ok()?;
    Some(found.is_some())
}

/// The nodes; none where they may not be listed.
pub(super) async fn nodes(client: &Client) -> Result<Option<Vec<Node>>> {
    match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(Some(list.items)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(error.into()),
    }
}
