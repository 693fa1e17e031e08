//! The autoscaler on the metrics API.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::world::{World, deployment, follow};

const MI: u64 = 1024 * 1024;

fn autoscaler(behavior: &serde_json::Value) -> serde_json::Value {
    let metric = |name: &str, percent: i32| {
        json!({"type": "Resource", "resource": {"name": name,
        "target": {"type": "Utilization", "averageUtilization": percent}}})
    };
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 3, "maxReplicas": 10, "metrics": [metric("cpu", 70), metric("memory", 80)],
            "behavior": behavior,
        },
    })
}

async fn register_metrics(world: &World) {
    let services: Api<APIService> = Api::all(world.client.clone());
    let service = serde_json::from_value(json!({
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": "kube-system", "name": "metrics-server"},
        },
    }))
    .unwrap();
    services.create(&PostParams::default(), &service).await.unwrap();
}

async fn start(behavior: serde_json::Value) -> World {
    let world = World::start().await;
    let mut web = deployment("web", 1, "good:1");
    web["spec"].as_object_mut().unwrap().remove("replicas");
    world.create::<Deployment>(web).await;
    world.create::<HorizontalPodAutoscaler>(autoscaler(&behavior)).await;
    world
}

fn condition<'a>(
    autoscaler: &'a HorizontalPodAutoscaler,
    type_: &str,
) -> Option<&'a HorizontalPodAutoscalerCondition> {
    autoscaler.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

fn reason<'a>(autoscaler: &'a HorizontalPodAutoscaler, type_: &str) -> &'a str {
    condition(autoscaler, type_).and_then(|condition| condition.reason.as_deref()).unwrap_or_default()
}

fn utilizations(autoscaler: &HorizontalPodAutoscaler) -> Vec<i32> {
    let metrics = autoscaler.status.iter().flat_map(|status| status.current_metrics.iter().flatten());
    metrics.filter_map(|metric| metric.resource.as_ref()?.current.average_utilization).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_minimum_comes_at_once_and_the_metrics_when_they_are_there() {
    let world = start(json!(null)).await;
    world.until_rolled_out("web", 3).await;
    let told = |events: &[Event]| {
        let message = "New size: 3; reason: Current number of replicas below Spec.MinReplicas";
        events.iter().any(|event| {
            event.reason.as_deref() == Some("SuccessfulRescale") && event.message.as_deref() == Some(message)
        })
    };
    world.until("the event", told).await;
    let unknown = world
        .until_one("web", "unknown metrics", |web| reason(web, "ScalingActive") == "FailedGetResourceMetric")
        .await;
    let active = condition(&unknown, "ScalingActive").unwrap();
    assert_eq!(active.status, "False");
    let text = active.message.clone().unwrap();
    assert!(
        text.starts_with(
            "the HPA was unable to compute the replica count: failed to get cpu \
                              utilization: unable to get metrics for resource cpu:"
        ),
        "{text}"
    );

    register_metrics(&world).await;
    let available = |status: &'static str| {
        let services: Api<APIService> = Api::all(world.client.clone());
        follow(services, move |services: &[APIService]| {
            let conditions = services.iter().flat_map(|service| {
                service.status.iter().flat_map(|status| status.conditions.iter().flatten())
            });
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Available" && condition.status == status)
        })
    };
    let deadline = std::time::Duration::from_secs(10);
    tokio::time::timeout(deadline, available("False")).await.unwrap();
    world.usage.set(150, 32 * MI);
    tokio::time::timeout(deadline, available("True")).await.unwrap();
    let known = world
        .until_one("web", "both metrics", |web| reason(web, "ScalingActive") == "ValidMetricFound")
        .await;
    assert_eq!(utilizations(&known), [50, 50]);
    assert_eq!(reason(&known, "ScalingLimited"), "DesiredWithinRange");
    let status = known.status.unwrap();
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(3), 3));
    let averages: Vec<String> = status
        .current_metrics
        .unwrap()
        .into_iter()
        .map(|metric| metric.resource.unwrap().current.average_value.unwrap().0)
        .collect();
    assert_eq!(averages, ["50m", "33554432"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_grows_with_the_load_and_shrinks_to_the_minimum_afterwards() {
    let world = start(json!({
        "scaleUp": {"policies": [{"type": "Pods", "value": 10, "periodSeconds": 1}]},
        "scaleDown": {"stabilizationWindowSeconds": 0},
    }))
    .await;
    world.until_rolled_out("web", 3).await;
    register_metrics(&world).await;
    world.usage.set(420, 8 * MI);
    world.until_rolled_out("web", 6).await;
    // However busy: not beyond the maximum, and it says what holds it.
    world.usage.set(9000, 8 * MI);
    world.until_rolled_out("web", 10).await;
    world.until_one("web", "the limit", |web| reason(web, "ScalingLimited") == "TooManyReplicas").await;
    world.usage.set(0, 8 * MI);
    world.until_rolled_out("web", 3).await;
    let down = |events: &[Event]| {
        events.iter().any(|event| {
            event.message.as_deref().is_some_and(|text| text.ends_with("All metrics below target"))
        })
    };
    world.until("the event", down).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_not_there_is_named() {
    let world = World::start().await;
    world.create::<HorizontalPodAutoscaler>(autoscaler(&json!(null))).await;
    let lost =
        world.until_one("web", "FailedGetScale", |web| reason(web, "AbleToScale") == "FailedGetScale").await;
    let text = condition(&lost, "AbleToScale").unwrap().message.clone().unwrap();
    assert_eq!(
        text,
        "the HPA controller was unable to get the target's current scale: deployments.apps \"web\" not found"
    );
    world.create::<Deployment>(deployment("web", 1, "good:1")).await;
    world.until_rolled_out("web", 3).await;
}
