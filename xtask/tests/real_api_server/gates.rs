//! The gates, with the controllers' part played by writing status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser as _;
use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use xtask::cx::Cx;
use xtask::failure::{Exit, exit_of, paragraph};
use xtask::gates::{
    Verdict, autoscaler, cluster, ingress_controller, ingress_lease, metrics, rollout, settled,
};
use xtask::output::Output;
use xtask::pipeline::Branch;

use crate::Test;
use crate::play::{Play, object, whole};
use crate::servers::Server;

/// Longer than any gate needs on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TESTS: &[Test] = &[
    ("the_cluster_opens_when_the_node_is_ready", |s| {
        the_cluster_opens_when_the_node_is_ready(s).boxed_local()
    }),
    ("only_a_live_lease_counts", |s| only_a_live_lease_counts(s).boxed_local()),
    ("the_controller_opens_when_it_takes_our_ingress", |s| {
        the_controller_opens_when_it_takes_our_ingress(s).boxed_local()
    }),
    ("the_metrics_open_when_they_are_available", |s| {
        the_metrics_open_when_they_are_available(s).boxed_local()
    }),
    ("a_rollout_opens_at_the_last_count", |s| a_rollout_opens_at_the_last_count(s).boxed_local()),
    ("a_rollout_settles_with_its_last_old_pod", |s| a_rollout_settles_with_its_last_old_pod(s).boxed_local()),
    ("a_missing_image_dooms_a_rollout", |s| a_missing_image_dooms_a_rollout(s).boxed_local()),
    ("an_api_server_that_comes_back_is_waited_for", |s| {
        an_api_server_that_comes_back_is_waited_for(s).boxed_local()
    }),
    ("the_autoscaler_opens_when_it_reads_its_metrics", |s| {
        the_autoscaler_opens_when_it_reads_its_metrics(s).boxed_local()
    }),
];

fn cx() -> Cx {
    let cli = xtask::cli::Cli::parse_from(["xtask", "status"]);
    let leash = leash::Leash::start(&["cat".into()]).expect("a leash");
    let output = Output::new(cli.shared.output, false);
    let root = xtask::workspace::root().expect("a workspace");
    let target = xtask::workspace::target(&root).expect("a target folder");
    Cx::new(root, target, cli.shared, output, leash)
}

/// Looks until the line begins so.
async fn until<T>(start: &str, mut look: impl AsyncFnMut() -> Result<Verdict<T>>) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = match look().await {
            Ok(verdict) => verdict.to_string(),
            Err(error) => format!("error: {}", paragraph(&error)),
        };
        if seen.starts_with(start) {
            return seen;
        }
        assert!(Instant::now() < deadline, "not `{start}`, but `{seen}`");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn the_cluster_opens_when_the_node_is_ready(server: Arc<Server>) {
    let look = async || cluster::look(&server.client, "unmade").await;
    until("closed: ", look).await;
    let nodes: Api<Node> = Api::all(server.client.clone());
    nodes
        .create(&PostParams::default(), &object(json!({"metadata": {"name": "mini"}})))
        .await
        .expect("a node");
    server.namespace("made").await;
    until("closed: node mini", async || cluster::look(&server.client, "made").await).await;
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(cluster::wait(branch, &server.client, "made"), async {
        let ready = Patch::Merge(json!({"status": {"conditions": [{"type": "Ready", "status": "True",
                "reason": "KubeletReady"}]}}));
        nodes.patch_status("mini", &PatchParams::default(), &ready).await.expect("a node's status");
    });
    done.expect("the gate");
}

async fn only_a_live_lease_counts(server: Arc<Server>) {
    let play = Play::begin(&server, "ingress-nginx", "ingress-nginx-controller", 1).await;
    let look = async || ingress_lease::look(&server.client).await;
    until("closed: ", look).await;
    let lease = |holder: &str, age: i64| {
        let renewed = Timestamp::now().checked_sub(SignedDuration::from_secs(age)).expect("a time");
        json!({
            "metadata": {"name": "ingress-nginx-leader"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 30,
            "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()},
        })
    };
    let holder = play.pods[0].clone();
    server.make::<Lease>("ingress-nginx", lease("someone-long-gone", 1)).await;
    until("closed: ", look).await;
    let leases: Api<Lease> = server.api("ingress-nginx");
    let write = async |value: Value| {
        leases
            .patch("ingress-nginx-leader", &PatchParams::default(), &Patch::Merge(value))
            .await
            .expect("the lease");
    };
    write(lease(&holder, 600)).await;
    play.complete().await;
    let stale = until("closed: ", look).await;
    assert!(stale.contains("renew"), "{stale}");
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(ingress_lease::wait(branch, &server.client), write(lease(&holder, 0)));
    assert_eq!(*done.expect("the gate"), holder);
}

async fn the_controller_opens_when_it_takes_our_ingress(server: Arc<Server>) {
    // The lease's test has made the controller.
    server.namespace("app").await;
    let classes: Api<IngressClass> = Api::all(server.client.clone());
    let class =
        object(json!({"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}}));
    let _ = classes.create(&PostParams::default(), &class).await;
    let ingress: Ingress = object(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": "web.local", "http": {"paths": [{
            "path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web",
            "port": {"number": 8000}}},
        }]}}]},
    }));
    let pods: Api<Pod> = server.api("ingress-nginx");
    let controllers = pods.list(&kube::api::ListParams::default()).await.expect("pods");
    assert_eq!(controllers.items.len(), 1, "this test comes after the lease's");
    until("open: ", async || ingress_controller::look(&server.client, &ingress, "app").await).await;
    let kept = server.api::<Ingress>("app").get_opt("web").await.expect("an answer");
    assert!(kept.is_none(), "a dry run leaves nothing");
}

async fn the_metrics_open_when_they_are_available(server: Arc<Server>) {
    let services: Api<APIService> = Api::all(server.client.clone());
    let name = "v1beta1.metrics.k8s.io";
    until("closed: APIService v1beta1.metrics.k8s.io is not registered", async || {
        metrics::look(&server.client).await
    })
    .await;
    let behind = |service: Value| {
        object::<APIService>(json!({"metadata": {"name": name}, "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": service != Value::Null, "service": service,
        }}))
    };
    // A real server looks after the condition itself.
    let absent = behind(json!({"namespace": "kube-system", "name": "metrics-server", "port": 443}));
    services.create(&PostParams::default(), &absent).await.expect("an APIService");
    until("closed: ", async || metrics::look(&server.client).await).await;
    services.delete(name, &DeleteParams::default()).await.expect("deleting it");
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(metrics::wait(branch, &server.client), async {
        services.create(&PostParams::default(), &behind(Value::Null)).await.expect("an APIService");
        let available = Patch::Merge(
            json!({"status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local",
                "lastTransitionTime": whole(Timestamp::now())}]}}),
        );
        services.patch_status(name, &PatchParams::default(), &available).await.expect("its status");
    });
    done.expect("the gate");
    services.delete(name, &DeleteParams::default()).await.expect("deleting it");
}

async fn a_rollout_opens_at_the_last_count(server: Arc<Server>) {
    let play = Play::begin(&server, "complete", "web", 3).await;
    let target = play.target();
    until("closed: ", async || rollout::look(&server.client, &target).await).await;
    for pod in &play.pods {
        play.ready(pod).await;
    }
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(rollout::wait(branch, &server.client, &target), play.count(3));
    assert_eq!(done.expect("the gate").pods.len(), 3);
}

async fn a_rollout_settles_with_its_last_old_pod(server: Arc<Server>) {
    let play = Play::begin(&server, "terminating", "web", 1).await;
    play.complete().await;
    let target = play.target();
    until("open: ", async || rollout::look(&server.client, &target).await).await;
    // A pod of an older set, which a finalizer keeps terminating.
    let pods: Api<Pod> = server.api("terminating");
    let web = server.api::<Deployment>("terminating").get("web").await.expect("web");
    let set: ReplicaSet = server
        .make(
            "terminating",
            json!({
                "metadata": {
                    "name": "web-old", "labels": {"app": "web", "pod-template-hash": "old"},
                    "annotations": {"deployment.kubernetes.io/revision": "0"},
                    "ownerReferences": [web.controller_owner_ref(&())],
                },
                "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web",
                "pod-template-hash": "old"}}, "template": {
                    "metadata": {"labels": {"app": "web", "pod-template-hash": "old"}},
                    "spec": {"containers": [{"name": "web", "image": "web:old"}]},
                }},
            }),
        )
        .await;
    let old: Pod = server
        .make(
            "terminating",
            json!({
                "metadata": {
                    "name": "web-old-0", "labels": {"app": "web", "pod-template-hash": "old"},
                    "finalizers": ["test/keep"],
                    "ownerReferences": [set.controller_owner_ref(&())],
                },
                "spec": {"containers": [{"name": "web", "image": "web:old"}]},
            }),
        )
        .await;
    pods.delete(&old.name_any(), &DeleteParams::default()).await.expect("deleting it");
    let waits = until("closed: ", async || settled::look(&server.client, &target).await).await;
    assert_eq!(waits, "closed: 1 terminating (0)");
    // The new version serves meanwhile.
    until("open: ", async || rollout::look(&server.client, &target).await).await;
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(settled::wait(branch, &server.client, &target), async {
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        pods.patch(&old.name_any(), &PatchParams::default(), &free).await.expect("freeing it");
    });
    done.expect("the gate");
}

async fn a_missing_image_dooms_a_rollout(server: Arc<Server>) {
    let play = Play::begin(&server, "doomed", "web", 2).await;
    let cx = cx();
    let target = play.target();
    let began = Instant::now();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(rollout::wait(branch, &server.client, &target), async {
        for pod in &play.pods {
            let message = "Container image \"web:new\" is not present with pull policy of Never";
            let status = json!({
                "phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{
                    "name": "web", "image": "web:new", "imageID": "", "ready": false, "started": false,
                    "restartCount": 0,
                    "state": {"waiting": {"reason": "ErrImageNeverPull", "message": message}},
                }],
            });
            server.status::<Pod>("doomed", pod, status).await;
            let event = json!({
                "metadata": {"name": format!("{pod}.1")}, "type": "Warning", "reason": "ErrImageNeverPull",
                "message": message,
                "involvedObject": {"kind": "Pod", "namespace": "doomed", "name": pod},
                "lastTimestamp": whole(Timestamp::now()), "count": 2,
            });
            server.make::<Event>("doomed", event).await;
        }
    });
    let error = done.expect_err("the gate must fail");
    assert_eq!(exit_of(&error), Exit::GateDoomed, "{}", paragraph(&error));
    assert!(paragraph(&error).contains("ErrImageNeverPull"), "{}", paragraph(&error));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

async fn an_api_server_that_comes_back_is_waited_for(server: Arc<Server>) {
    let play = Play::begin(&server, "away", "web", 1).await;
    play.ready(&play.pods[0]).await;
    let target = play.target();
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(rollout::wait(branch, &server.client, &target), async {
        until("closed: ", async || rollout::look(&server.client, &target).await).await;
        server.go_away();
        until("error: ", async || rollout::look(&server.client, &target).await).await;
        server.come_back().await.expect("it comes back");
        play.count(1).await;
    });
    done.expect("the gate");
}

async fn the_autoscaler_opens_when_it_reads_its_metrics(server: Arc<Server>) {
    server.namespace("scaled").await;
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 8000}]}});
    server.make::<Service>("scaled", service).await;
    let target = json!({"type": "Utilization", "averageUtilization": 70});
    let hpa = json!({"metadata": {"name": "web"}, "spec": {
        "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }});
    server.make::<HorizontalPodAutoscaler>("scaled", hpa).await;
    until("closed: ", async || autoscaler::look(&server.client, "scaled", "web").await).await;
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(autoscaler::wait(branch, &server.client, "scaled", "web"), async {
        let status = json!({
            "desiredReplicas": 3, "currentReplicas": 3,
            "conditions": [{"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound",
            "lastTransitionTime": whole(Timestamp::now())}],
            "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 4, "averageValue": "6m"}}}],
        });
        server.status::<HorizontalPodAutoscaler>("scaled", "web", status).await;
    });
    done.expect("the gate");
}
