//! Which of the objects are the app: its Deployment has the app's image, its Service selects the Deployment's pods, its
//! Ingress leads to that Service, its autoscaler targets the Deployment. Where they stand among the files says nothing.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::Selector;
use serde::de::DeserializeOwned;

use super::{HEALTH, Hidden, Object, TargetPort, listed};
use crate::failure::Attach as _;
use crate::repository::REPOSITORY;

/// A second Ingress that ingress-nginx sends a share of the first one's requests by.
const CANARY: &str = "nginx.ingress.kubernetes.io/canary";
/// Makes a path a regular expression.
const USE_REGEX: &str = "nginx.ingress.kubernetes.io/use-regex";
/// What a request's path becomes on its way; paths are regular expressions then.
const REWRITE: &str = "nginx.ingress.kubernetes.io/rewrite-target";

/// The objects that are the app.
pub(super) struct App {
    pub(super) deployment: Deployment,
    pub(super) ingress: Ingress,
    pub(super) autoscaler: Option<HorizontalPodAutoscaler>,
    pub(super) selector: String,
    pub(super) host: String,
    pub(super) hidden: Option<Hidden>,
    pub(super) target_port: TargetPort,
}

/// An object with its type.
struct Typed<'o, T> {
    object: &'o Object,
    value: T,
}

fn all<'o, T: DeserializeOwned>(objects: &'o [Object], group: &str, kind: &str) -> Result<Vec<Typed<'o, T>>> {
    let of_kind = objects.iter().filter(|object| object.is(group, kind));
    of_kind.map(|object| Ok(Typed { object, value: object.typed()? })).collect()
}

/// Finds the app's objects.
///
/// # Errors
/// Naming file and line, where one is missing or there are several to choose from.
pub(super) fn find(folder: &Path, objects: &[Object]) -> Result<App> {
    let services = all::<Service>(objects, "", "Service")?;
    let ingresses = all::<Ingress>(objects, "networking.k8s.io", "Ingress")?;
    let deployment = deployment(folder, objects, &services, &ingresses)?;
    let routes = routes(folder, &deployment, &services, &ingresses)?;
    let entry = one_entry(&routes)?;
    let selector = selector(&deployment)?;
    let autoscaler = autoscaler(objects, &deployment)?;
    Ok(App {
        deployment: deployment.value,
        ingress: entry.ingress.value.clone(),
        autoscaler,
        selector,
        host: entry.host(),
        hidden: entry.hidden(),
        target_port: entry.target_port()?,
    })
}

fn deployment<'o>(
    folder: &Path,
    objects: &'o [Object],
    services: &[Typed<'_, Service>],
    ingresses: &[Typed<'_, Ingress>],
) -> Result<Typed<'o, Deployment>> {
    let all = all::<Deployment>(objects, "apps", "Deployment")?;
    if all.is_empty() {
        return Err(anyhow!("there is no Deployment in {}", folder.display()))
            .hint("`git status kubernetes/` shows what was changed or removed");
    }
    let has_image =
        |deployment: &Typed<'_, Deployment>| images(&deployment.value).any(|(_, image)| image == REPOSITORY);
    let (mut found, others): (Vec<_>, Vec<_>) = all.into_iter().partition(has_image);
    if found.len() > 1 {
        // A worker beside the server: the server is the one that can be reached.
        let is_reached = |deployment: &Typed<'_, Deployment>| {
            let selecting = selecting(&deployment.value, services);
            selecting.iter().any(|service| ingresses.iter().any(|ingress| leads(&ingress.value, service)))
        };
        let (reached, unreached): (Vec<_>, Vec<_>) = found.into_iter().partition(is_reached);
        found = if reached.len() == 1 { reached } else { reached.into_iter().chain(unreached).collect() };
    }
    if found.len() > 1 {
        let candidates: Vec<_> = found.iter().map(|deployment| deployment.object).collect();
        return Err(anyhow!(
            "{} Deployments have the image `{REPOSITORY}`: {}",
            found.len(),
            listed(&candidates)
        ))
        .hint("the app's Deployment is the one that an Ingress leads to: let it lead to one of them");
    }
    found.pop().ok_or_else(|| without_image(&others))
}

/// No Deployment has the app's image: the nearest miss is named.
fn without_image(deployments: &[Typed<'_, Deployment>]) -> anyhow::Error {
    let near = deployments.iter().find_map(|deployment| {
        let (pointer, image) =
            images(&deployment.value).find(|(_, image)| repository(image) == REPOSITORY)?;
        Some((deployment.object.place_of(&pointer), image.to_owned()))
    });
    match near {
        Some((place, image)) => anyhow!("{place}: the image `{image}` is not the one that is built here")
            .hint(format!("write `image: {REPOSITORY}` without a tag; the tag is set when it is applied")),
        None => {
            let all: Vec<_> = deployments.iter().map(|deployment| deployment.object).collect();
            anyhow!("no container of a Deployment has the image `{REPOSITORY}`; there is {}", listed(&all))
                .hint(format!("write `image: {REPOSITORY}` without a tag; the tag is set when it is applied"))
        }
    }
}

/// The images of the containers, with their pointers.
fn images(deployment: &Deployment) -> impl Iterator<Item = (String, &str)> {
    let pod = deployment.spec.iter().flat_map(|spec| spec.template.spec.iter());
    let containers = pod.flat_map(|pod| pod.containers.iter().enumerate());
    containers.filter_map(|(index, container)| {
        let pointer = format!("/spec/template/spec/containers/{index}/image");
        Some((pointer, container.image.as_deref()?))
    })
}

/// An image's last word, without registry, tag and digest.
pub(super) fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split(':').next().unwrap_or(name)
}

/// The Services that select a Deployment's pods.
fn selecting<'s>(deployment: &Deployment, services: &'s [Typed<'s, Service>]) -> Vec<&'s Typed<'s, Service>> {
    let none = BTreeMap::new();
    let metadata = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let labels = metadata.and_then(|metadata| metadata.labels.as_ref()).unwrap_or(&none);
    let selects = |service: &&Typed<'_, Service>| {
        let selector = service.value.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| {
            !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        })
    };
    services.iter().filter(selects).collect()
}

/// A path of an Ingress that leads to the app.
struct Route<'r> {
    ingress: &'r Typed<'r, Ingress>,
    service: &'r Typed<'r, Service>,
    backend: Backend<'r>,
}

/// A backend of an Ingress, and what is sent to it.
struct Backend<'i> {
    host: Option<&'i str>,
    path: &'i str,
    path_type: &'i str,
    /// Where the path is written.
    pointer: String,
    backend: &'i IngressBackend,
}

fn backends(ingress: &Ingress) -> Vec<Backend<'_>> {
    let Some(spec) = &ingress.spec else { return Vec::new() };
    let mut backends = Vec::new();
    for (index, rule) in spec.rules.iter().flatten().enumerate() {
        for (at, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            backends.push(Backend {
                host: rule.host.as_deref(),
                path: path.path.as_deref().unwrap_or("/"),
                path_type: path.path_type.as_str(),
                pointer: format!("/spec/rules/{index}/http/paths/{at}/path"),
                backend: &path.backend,
            });
        }
    }
    backends.extend(spec.default_backend.as_ref().map(|backend| Backend {
        host: None,
        path: "/",
        path_type: "Prefix",
        pointer: "/spec/defaultBackend".to_owned(),
        backend,
    }));
    backends
}

fn leads(ingress: &Ingress, service: &Typed<'_, Service>) -> bool {
    backends(ingress).iter().any(|to| names(to.backend, service))
}

fn names(backend: &IngressBackend, service: &Typed<'_, Service>) -> bool {
    backend.service.as_ref().is_some_and(|backend| backend.name == service.object.name)
}

fn annotation<'i>(ingress: &'i Ingress, name: &str) -> Option<&'i str> {
    ingress.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Every way to the app.
fn routes<'r>(
    folder: &Path,
    deployment: &Typed<'_, Deployment>,
    services: &'r [Typed<'r, Service>],
    ingresses: &'r [Typed<'r, Ingress>],
) -> Result<Vec<Route<'r>>> {
    let services = selecting(&deployment.value, services);
    if services.is_empty() {
        let place = deployment.object.place_of("/spec/template/metadata/labels");
        return Err(anyhow!(
            "{place}: no Service in {} selects the pods of {}",
            folder.display(),
            deployment.object.title()
        ))
        .hint(
            "a Service's `spec.selector` must hold labels of the Deployment's \
                   `spec.template.metadata.labels` alone",
        );
    }
    let mut routes = Vec::new();
    for ingress in ingresses.iter().filter(|ingress| annotation(&ingress.value, CANARY) != Some("true")) {
        for backend in backends(&ingress.value) {
            let service = services.iter().find(|service| names(backend.backend, service));
            routes.extend(service.map(|service| Route { ingress, service, backend }));
        }
    }
    if routes.is_empty() {
        let names: Vec<_> = services.iter().map(|service| service.object).collect();
        let others: Vec<_> = ingresses.iter().map(|ingress| ingress.object).collect();
        let others = if others.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there is {}", listed(&others))
        };
        return Err(anyhow!("no Ingress in {} leads to {}; {others}", folder.display(), listed(&names)))
            .hint("the app's Ingress has a path whose backend is the app's Service, by its name");
    }
    Ok(routes)
}

impl Route<'_> {
    /// The host to ask for; any name does for a wildcard.
    fn host(&self) -> String {
        match self.backend.host {
            Some(host) => host.strip_prefix('*').map_or_else(|| host.to_owned(), |rest| format!("app{rest}")),
            None => "localhost".to_owned(),
        }
    }

    /// Whether the path takes a request for the app's health, or may: a pattern is not looked into.
    fn takes_health(&self) -> bool {
        let Backend { path, path_type, .. } = self.backend;
        if path_type == "Exact" {
            return path == HEALTH;
        }
        if annotation(&self.ingress.value, USE_REGEX) == Some("true") || self.rewrite().is_some() {
            let literal = path.find(|c: char| "([.*+?|^$\\{".contains(c)).map_or(path, |at| &path[..at]);
            return HEALTH.starts_with(literal);
        }
        let path = path.trim_end_matches('/');
        HEALTH.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn rewrite(&self) -> Option<&str> {
        annotation(&self.ingress.value, REWRITE)
    }

    /// What keeps the app's health from being asked.
    fn hidden(&self) -> Option<Hidden> {
        let Route { ingress, service, backend } = self;
        let (object, service) = (ingress.object, service.object.title());
        if !self.takes_health() {
            let place = object.place_of(&backend.pointer);
            return Some(Hidden {
                why: format!(
                    "{} does not lead {HEALTH} to {service}: its path is `{}` ({place})",
                    object.title(),
                    backend.path
                ),
                cure: format!("give {} a path `/` or `{HEALTH}` for {service}", object.title()),
                is_certain: true,
            });
        }
        let rewrite = self.rewrite().filter(|target| *target != HEALTH)?;
        let place = object.place_of(&format!("/metadata/annotations/{}", REWRITE.replace('/', "~1")));
        Some(Hidden {
            why: format!(
                "the rewrite-target of {} may turn {HEALTH} into something else: `{rewrite}` ({place})",
                object.title()
            ),
            cure: format!("let {HEALTH} reach {service} as it is"),
            is_certain: !rewrite.contains('$'),
        })
    }

    /// The pods' port behind the Service's port that the Ingress names.
    fn target_port(&self) -> Result<TargetPort> {
        let Route { ingress, service, backend } = self;
        let named = backend.backend.service.as_ref().and_then(|service| service.port.as_ref());
        let ports = service.value.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let is_meant = |port: &ServicePort| match named {
            Some(named) => named.number == Some(port.port) || named.name.is_some() && named.name == port.name,
            None => false,
        };
        let Some((index, port)) = ports.enumerate().find(|(_, port)| is_meant(port)) else {
            let named = named.map_or_else(
                || "no port".to_owned(),
                |named| match &named.name {
                    Some(name) => format!("the port `{name}`"),
                    None => format!("the port {}", named.number.unwrap_or_default()),
                },
            );
            let pointer = backend.pointer.replace("/path", "/backend/service/port");
            let place = ingress.object.place_of(&pointer);
            return Err(anyhow!(
                "{place}: {} names {named}, which {} has not",
                ingress.object.title(),
                service.object.title()
            ))
            .hint(format!("its ports are in {}", service.object.place_of("/spec/ports")));
        };
        let place = service.object.place_of(&format!("/spec/ports/{index}/targetPort"));
        Ok(TargetPort { port: port.target_port.clone().unwrap_or(IntOrString::Int(port.port)), place })
    }
}

/// The Ingress and host by which the app is asked.
fn one_entry<'a, 'r>(routes: &'a [Route<'r>]) -> Result<&'a Route<'r>> {
    let mut candidates: Vec<&Route<'_>> = routes.iter().filter(|route| route.takes_health()).collect();
    if candidates.is_empty() {
        candidates = routes.iter().collect();
    }
    let first = candidates[0];
    let is_other = |route: &&&Route<'_>| {
        route.host() != first.host() && !std::ptr::eq(route.ingress.object, first.ingress.object)
    };
    if let Some(other) = candidates.iter().find(is_other) {
        let each = [first, other].map(|route| {
            let object = route.ingress.object;
            format!("{} for {} ({})", object.title(), route.host(), object.place())
        });
        return Err(anyhow!("more than one Ingress leads to the app: {}", each.join(", "))).hint(
            "put their rules into one Ingress, of which the first rule is the app's entry; a canary \
                   is marked by its annotation",
        );
    }
    Ok(first)
}

fn selector(deployment: &Typed<'_, Deployment>) -> Result<String> {
    let Typed { object, value } = deployment;
    let bad = |pointer: &str, why: &str| {
        anyhow!("{}: {}: {} {why}", object.place_of(pointer), object.title(), pointer[1..].replace('/', "."))
            .hint(
                "a selector has `matchLabels`, or `matchExpressions` of key, operator (In, NotIn, Exists, \
                   DoesNotExist) and values",
            )
    };
    let selector = value.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let pointer = format!("/spec/selector/matchExpressions/{index}");
        let none = requirement.values.as_ref().is_none_or(Vec::is_empty);
        match requirement.operator.as_str() {
            "In" | "NotIn" if none => return Err(bad(&pointer, "has no values")),
            "Exists" | "DoesNotExist" if !none => return Err(bad(&pointer, "takes no values")),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => return Err(bad(&pointer, &format!("has the unknown operator `{other}`"))),
        }
    }
    let selector = Selector::try_from(selector).map_err(|error| bad("/spec/selector", &error.to_string()))?;
    if selector.selects_all() {
        return Err(bad("/spec/selector", "is empty and would select every pod"));
    }
    Ok(selector.to_string())
}

fn autoscaler(
    objects: &[Object],
    deployment: &Typed<'_, Deployment>,
) -> Result<Option<HorizontalPodAutoscaler>> {
    let all = all::<HorizontalPodAutoscaler>(objects, "autoscaling", "HorizontalPodAutoscaler")?;
    let targets = |hpa: &Typed<'_, HorizontalPodAutoscaler>| {
        let target = hpa.value.spec.as_ref().map(|spec| &spec.scale_target_ref);
        target.is_some_and(|target| target.kind == "Deployment" && target.name == deployment.object.name)
    };
    let mut found: Vec<_> = all.into_iter().filter(targets).collect();
    if found.len() > 1 {
        let each: Vec<_> = found.iter().map(|hpa| hpa.object).collect();
        return Err(anyhow!(
            "{} autoscalers target {}: {}",
            found.len(),
            deployment.object.title(),
            listed(&each)
        ))
        .hint("each would undo what the other does: keep one");
    }
    Ok(found.pop().map(|hpa| hpa.value))
}
