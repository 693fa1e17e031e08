//! What each gate shows when it stays closed until its deadline.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Node};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::api::{Play, Server, cx};
use super::objects::object;
use crate::failure::exit_of;
use crate::gates::{self, Site};
use crate::pipeline::Branch;

const APP: &str = "simple-model-api-deployment";

/// A cluster in which nothing comes up, and something warns of it in each namespace.
async fn stuck(server: &Server, autoscaler: &str) {
    server.namespace("ingress-nginx").await;
    let nodes: Api<Node> = Api::all(server.direct.clone());
    nodes.create(&PostParams::default(), &object(json!({"metadata": {"name": "mini"}}))).await.unwrap();
    let condition = |name: &str, status: &str, reason: &str, message: &str| {
        json!({"type": name, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": super::NOON})
    };
    let status = json!({"status": {
        "conditions": [
            condition("Ready", "False", "KubeletNotReady", "container runtime is down"),
            condition("MemoryPressure", "True", "KubeletHasInsufficientMemory", "memory is short"),
        ],
        "allocatable": {"cpu": "2", "memory": "4Gi"},
    }});
    nodes.patch_status("mini", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();

    for (namespace, name) in [("default", APP), ("ingress-nginx", "ingress-nginx-controller")] {
        Play::begin(server, namespace, name, 1).await.waiting("ContainerCreating", "").await;
    }
    let services: Api<APIService> = Api::all(server.direct.clone());
    let metrics_api: APIService = object(json!({
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100, "service": {"name": "metrics-server", "namespace": "kube-system"}},
    }));
    services.create(&PostParams::default(), &metrics_api).await.unwrap();
    let missing =
        condition("Available", "False", "MissingEndpoints", "service/metrics-server has no endpoints");
    let status = Patch::Merge(json!({"status": {"conditions": [missing]}}));
    services.patch_status("v1beta1.metrics.k8s.io", &PatchParams::default(), &status).await.unwrap();
    let metrics = ["cpu", "memory"].map(|name| {
        let target = json!({"type": "Utilization", "averageUtilization": 70});
        json!({"type": "Resource", "resource": {"name": name, "target": target}})
    });
    let hpa = json!({
        "metadata": {"name": autoscaler},
        "spec": {
            "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": APP},
            "metrics": metrics,
        },
    });
    server.create::<HorizontalPodAutoscaler>("default", hpa).await;
    let inactive = condition("ScalingActive", "False", "FailedGetResourceMetric", "no metrics returned");
    let status = json!({"currentReplicas": 1, "desiredReplicas": 1, "conditions": [inactive]});
    server.status::<HorizontalPodAutoscaler>("default", autoscaler, status).await;
    for (namespace, name) in
        [("default", APP), ("ingress-nginx", "ingress-nginx-controller"), ("kube-system", "metrics-server")]
    {
        let now = jiff::Timestamp::now().to_string();
        let event: Value = json!({
            "metadata": {"name": format!("{name}.1")}, "type": "Warning", "reason": "FailedMount",
            "message": "configmap \"settings\" not found", "count": 4, "lastTimestamp": now,
            "involvedObject": {"kind": "Pod", "namespace": namespace, "name": format!("{name}-h-0")},
        });
        server.create::<Event>(namespace, event).await;
    }
}

#[tokio::test]
async fn each_gate_that_stays_closed_shows_what_is_there() {
    let server = Server::start();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kubernetes");
    let manifests = crate::manifests::read(&shipped, "default").unwrap();
    stuck(&server, manifests.autoscaler_name().unwrap()).await;
    let cluster = server.cluster(&cx());
    let site = Site { cluster: &cluster, manifests: &manifests, namespace: "default" };
    // That of the image has no evidence but its line.
    let failures = gates::all().into_iter().filter_map(|gate| gate.standing).map(async |standing| {
        let mut cx = cx();
        cx.patience = Duration::from_secs(1);
        let error = (standing.wait)(&mut Branch::first(&cx), &site).await.unwrap_err();
        let exit = exit_of(&error);
        format!("exit {}\n{}", exit as u8, crate::output::failure(&error, exit, &cx.commands, false))
    });
    let failures = futures::future::join_all(failures).await;
    insta::with_settings!({filters => [(r"\d+ s ago", "[age] ago"), (r"for \d+ s", "for [age]")]}, {
        insta::assert_snapshot!(failures.join("\n"));
    });
}
