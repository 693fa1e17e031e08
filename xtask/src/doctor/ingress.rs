//! Whether ingress-nginx was ever tested with the cluster's Kubernetes.

use k8s_openapi::api::apps::v1::Deployment;

use super::Finding;
use crate::clusters::{Choice, Cluster, Kind};
use crate::cx::Cx;
use crate::ingress_nginx;
use crate::kubernetes::Api;

/// Minor version of the controller (1.x), and the oldest and newest minor version of Kubernetes (1.x) that its project
/// tests it with: the table "Supported Versions" in the README of kubernetes/ingress-nginx at controller-v1.15.1, the
/// last release before its maintenance ended.
const TESTED: [(u32, u32, u32); 5] = [(15, 31, 35), (14, 30, 34), (13, 29, 33), (12, 28, 32), (11, 26, 30)];

/// What the profile, or the running cluster, says; nothing where neither can be asked.
pub(super) async fn look(cx: &Cx, choice: &Choice, running: Option<&Cluster>) -> Option<Finding> {
    let Kind::Minikube(minikube) = &choice.kind else { return None };
    let kubernetes = match running {
        Some(cluster) => cluster.client.apiserver_version().await.ok()?.git_version,
        None => minikube.kubernetes_version(cx).await.ok()??,
    };
    let controller = match running {
        Some(cluster) => controller_version(cluster).await,
        None => None,
    };
    judge(&kubernetes, controller.as_deref())
}

/// The tag of the controller's image, where it is there.
async fn controller_version(cluster: &Cluster) -> Option<String> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), ingress_nginx::NAMESPACE);
    let spec = api.get_opt(ingress_nginx::DEPLOYMENT).await.ok()??.spec?.template.spec?;
    let image = spec.containers.into_iter().next()?.image?;
    let (name, _digest) = image.split_once('@').unwrap_or((&image, ""));
    name.rsplit_once(':').map(|(_, tag)| tag.to_owned())
}

/// Without a controller yet, minikube's addon will bring the last.
fn judge(kubernetes: &str, controller: Option<&str>) -> Option<Finding> {
    let minor =
        |version: &str| version.trim_start_matches('v').strip_prefix("1.")?.split('.').next()?.parse().ok();
    let version: u32 = minor(kubernetes)?;
    let (of, oldest, newest) = match controller.and_then(minor) {
        Some(controller) => *TESTED.iter().find(|(of, ..)| *of == controller)?,
        None => TESTED[0],
    };
    let tested = format!("ingress-nginx 1.{of} was tested with Kubernetes 1.{oldest} to 1.{newest}");
    Some(if (oldest..=newest).contains(&version) {
        Finding::ok("ingress", format!("{tested}; this is {kubernetes}"))
    } else {
        let fix = format!(
            "nothing to do while the ingress gates open; otherwise make another profile with `minikube \
             start --profile NAME --kubernetes-version=v1.{newest}.0`, and use it with --profile NAME"
        );
        Finding::warning("ingress", format!("{tested}, never with {kubernetes}"), fix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubernetes_that_the_controller_never_met_is_a_warning() {
        let line = |kubernetes, controller| {
            let finding = judge(kubernetes, controller)?;
            Some(format!("{:?}: {}", finding.level, finding.what))
        };
        let lines: Vec<_> = [
            ("v1.36.2", Some("v1.15.1")),
            ("v1.36.2", None),
            ("v1.35.0", None),
            ("v1.30.4", Some("v1.15.1")),
            ("v1.30.4", Some("v1.11.8")),
            ("v1.30.4", Some("v1.4.0")),
            ("unknown", None),
        ]
        .map(|(kubernetes, controller)| line(kubernetes, controller).unwrap_or_default())
        .to_vec();
        insta::assert_snapshot!(lines.join("\n"), @"
        Warning: ingress-nginx 1.15 was tested with Kubernetes 1.31 to 1.35, never with v1.36.2
        Warning: ingress-nginx 1.15 was tested with Kubernetes 1.31 to 1.35, never with v1.36.2
        Ok: ingress-nginx 1.15 was tested with Kubernetes 1.31 to 1.35; this is v1.35.0
        Warning: ingress-nginx 1.15 was tested with Kubernetes 1.31 to 1.35, never with v1.30.4
        Ok: ingress-nginx 1.11 was tested with Kubernetes 1.26 to 1.30; this is v1.30.4
        ");
    }
}
