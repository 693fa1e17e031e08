//! What a cluster is given on request: the ingress controller and the metrics API.

use std::fmt::Debug;
use std::net::SocketAddr;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Doing as _, Result};

/// The image of the ingress controller, which every sandbox has.
pub const INGRESS_IMAGE: &str = "sandbox/ingress-controller:builtin";
/// Where the ingress controller runs.
pub const INGRESS_NAMESPACE: &str = "ingress-nginx";
/// Its Deployment, and its Service.
pub const INGRESS_CONTROLLER: &str = "ingress-nginx-controller";
/// The webhook's configuration.
pub const INGRESS_WEBHOOK: &str = "ingress-nginx-admission";
/// The APIService of the metrics.
pub const METRICS_API: &str = "v1beta1.metrics.k8s.io";

const FIELD_MANAGER: &str = "sandbox-addons";
/// Where the controller takes requests at its own address, besides the entry. Above 1023, for it is not root.
const POD_HTTP_PORT: u16 = sandbox_ingress::POD_HTTP_PORT;

/// Applies the ingress controller, which takes requests at `entry` (`http://127.0.0.1:PORT`). True if that changed
/// anything. It does not wait for the controller to be ready.
///
/// # Errors
/// If `entry` is no such URL, or the API server refuses an object.
pub async fn enable_ingress(client: &Client, entry: &str) -> Result<bool> {
    let address = entry.strip_prefix("http://").unwrap_or(entry).trim_end_matches('/');
    let address: SocketAddr =
        address.parse().doing_with(|| format!("reading the entry's address {entry:?}"))?;
    let in_namespace = INGRESS_NAMESPACE;
    let mut changed = false;
    changed |= add_ingress_class(client).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), in_namespace);
    changed |= apply(&accounts, &service_account(), &all()).await?;
    let services: Api<Service> = Api::namespaced(client.clone(), in_namespace);
    for service in services_of_controller() {
        changed |= apply(&services, &service, &all()).await?;
    }
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), in_namespace);
    changed |= apply(&deployments, &deployment(address), &all()).await?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    changed |= apply(&webhooks, &webhook(), &all()).await?;
    Ok(changed)
}

/// What an ingress controller needs, wherever it runs: its class, and the namespace of its lease.
pub(crate) async fn add_ingress_class(client: &Client) -> Result<bool> {
    let namespaces = apply(&Api::<Namespace>::all(client.clone()), &namespace(), &all()).await?;
    Ok(apply(&Api::<IngressClass>::all(client.clone()), &ingress_class(), &all()).await? || namespaces)
}

fn all() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

/// Whether the ingress controller was applied. It need not be ready.
///
/// # Errors
/// If the API server can't be asked.
pub async fn is_ingress_enabled(client: &Client) -> Result<bool> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), INGRESS_NAMESPACE);
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let deployment =
        deployments.get_opt(INGRESS_CONTROLLER).await.doing("looking for the ingress controller")?;
    let webhook = webhooks.get_opt(INGRESS_WEBHOOK).await.doing("looking for the ingress webhook")?;
    Ok(deployment.is_some() && webhook.is_some())
}

/// Registers the metrics API. The API server serves it itself, from the node agent's samples: there is no
/// metrics-server to run. True if that changed anything.
///
/// # Errors
/// If the API server refuses it.
pub async fn enable_metrics(client: &Client) -> Result<bool> {
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": METRICS_API},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    });
    apply(&Api::<APIService>::all(client.clone()), &service, &all()).await
}

/// Whether the metrics API was registered. It need not be available.
///
/// # Errors
/// If the API server can't be asked.
pub async fn is_metrics_enabled(client: &Client) -> Result<bool> {
    let services: Api<APIService> = Api::all(client.clone());
    Ok(services.get_opt(METRICS_API).await.doing("looking for the metrics API")?.is_some())
}

/// Applies one object; true if it is another one than before.
async fn apply<K>(api: &Api<K>, object: &Value, params: &PatchParams) -> Result<bool>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    // Its controllers may write its status in between: that is not our change.
    let own = |object: &K| -> Option<Value> {
        let mut value = serde_json::to_value(object).ok()?;
        value.as_object_mut()?.remove("status");
        let metadata = value.get_mut("metadata")?.as_object_mut()?;
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
        Some(value)
    };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let before = api.get_opt(name).await.doing_with(|| format!("looking for {kind} {name}"))?;
    let after = api
        .patch(name, params, &Patch::Apply(object))
        .await
        .doing_with(|| format!("applying {kind} {name}"))?;
    Ok(before.as_ref().and_then(own) != own(&after))
}

fn labels() -> Value {
    json!({
        "app.kubernetes.io/name": "ingress-nginx",
        "app.kubernetes.io/instance": "ingress-nginx",
        "app.kubernetes.io/component": "controller",
    })
}

fn namespace() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": INGRESS_NAMESPACE, "labels": {"app.kubernetes.io/name": "ingress-nginx"}},
    })
}

fn ingress_class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {
            "name": "nginx",
            "labels": labels(),
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
        },
        "spec": {"controller": sandbox_ingress::CONTROLLER},
    })
}

fn service_account() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "ingress-nginx", "namespace": INGRESS_NAMESPACE, "labels": labels()},
    })
}

fn services_of_controller() -> [Value; 2] {
    let service = |name: &str, ports: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": INGRESS_NAMESPACE, "labels": labels()},
            "spec": {"type": "ClusterIP", "selector": labels(), "ports": ports},
        })
    };
    [
        service(
            INGRESS_CONTROLLER,
            json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]),
        ),
        service(
            "ingress-nginx-controller-admission",
            json!([{"name": "https-webhook", "port": 443, "protocol": "TCP", "targetPort": "webhook"}]),
        ),
    ]
}

fn deployment(entry: SocketAddr) -> Value {
    let probe = json!({"path": "/healthz", "port": sandbox_ingress::HEALTH_PORT, "scheme": "HTTP"});
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": INGRESS_CONTROLLER, "namespace": INGRESS_NAMESPACE, "labels": labels()},
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": labels()},
            // Two controllers can't both have the entry's port.
            "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {"labels": labels()},
                "spec": {
                    "serviceAccountName": "ingress-nginx",
                    "terminationGracePeriodSeconds": 15,
                    "containers": [{
                        "name": "controller",
                        "image": INGRESS_IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "args": [format!("--http-listen={entry}")],
                        "env": [
                            field("POD_NAME", "metadata.name"),
                            field("POD_NAMESPACE", "metadata.namespace"),
                        ],
                        "ports": [
                            port("http", POD_HTTP_PORT),
                            port("webhook", sandbox_ingress::ADMISSION_PORT),
                            port("health", sandbox_ingress::HEALTH_PORT),
                        ],
                        "resources": {"requests": {"cpu": "100m", "memory": "90Mi"}},
                        "livenessProbe": {"httpGet": probe, "periodSeconds": 10, "failureThreshold": 5},
                        "readinessProbe": {"httpGet": probe, "periodSeconds": 1, "failureThreshold": 3},
                    }],
                },
            },
        },
    })
}

fn webhook() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": INGRESS_WEBHOOK, "labels": labels()},
        "webhooks": [{
            "name": "validate.nginx.ingress.kubernetes.io",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {
                "namespace": INGRESS_NAMESPACE,
                "name": "ingress-nginx-controller-admission",
                "path": "/networking/v1/ingresses",
                "port": 443,
            }},
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "rules": [{
                "apiGroups": ["networking.k8s.io"],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["ingresses"],
                "scope": "*",
            }],
            "sideEffects": "None",
            "timeoutSeconds": 10,
        }],
    })
}
