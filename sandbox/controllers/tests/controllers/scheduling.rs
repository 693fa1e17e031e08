//! The scheduler.

use k8s_openapi::api::core::v1::{Event, Node, Pod, PodCondition};
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{NODE, World};

fn pod(name: &str, memory: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "app", "image": "good:1", "resources": {"requests": {"memory": memory, "cpu": "10m"}},
        }]},
    })
}

fn scheduled(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "PodScheduled")
}

fn waits_because<'a>(pods: &'a [Pod], name: &str) -> Option<&'a str> {
    let pod = pods.iter().find(|pod| pod.name_any() == name)?;
    scheduled(pod).filter(|condition| condition.status == "False")?.message.as_deref()
}

fn is_bound(pods: &[Pod], name: &str) -> bool {
    let pod = pods.iter().find(|pod| pod.name_any() == name);
    pod.is_some_and(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(NODE))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_room_waits_and_is_bound_when_there_is_some() {
    let world = World::start().await;
    world.create::<Pod>(pod("first", "6Gi")).await;
    world.until("the first bound", |pods: &[Pod]| is_bound(pods, "first")).await;
    world.create::<Pod>(pod("second", "6Gi")).await;
    world.until("the second waiting", |pods: &[Pod]| waits_because(pods, "second").is_some()).await;
    let why = "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 No \
               preemption victims found for incoming pod.";
    world.until("the second waiting", |pods: &[Pod]| waits_because(pods, "second") == Some(why)).await;
    let told = |events: &[Event]| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("FailedScheduling") && event.message.as_deref() == Some(why)
        })
    };
    world.until("the event", told).await;
    world.create::<Pod>(pod("small", "1Gi")).await;
    world.until("a small one passes", |pods: &[Pod]| is_bound(pods, "small")).await;
    world.api::<Pod>().delete("first", &DeleteParams::default()).await.unwrap();
    world.until("the second bound", |pods: &[Pod]| is_bound(pods, "second")).await;
    let last = world.until("PodScheduled", |pods: &[Pod]| waits_because(pods, "second").is_none()).await;
    assert_eq!(last.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_node_takes_no_pods() {
    let world = World::start_with_node(json!({"unschedulable": true})).await;
    world.create::<Pod>(pod("first", "1Gi")).await;
    let why = "0/1 nodes are available: 1 node(s) were unschedulable. \
               preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    world.until("it waits", |pods: &[Pod]| waits_because(pods, "first") == Some(why)).await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let uncordon = Patch::Merge(json!({"spec": {"unschedulable": false}}));
    nodes.patch(NODE, &PatchParams::default(), &uncordon).await.unwrap();
    world.until("it is bound", |pods: &[Pod]| is_bound(pods, "first")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_selector_is_obeyed() {
    let world = World::start().await;
    let mut picky = pod("picky", "1Gi");
    picky["spec"]["nodeSelector"] = json!({"disk": "fast"});
    world.create::<Pod>(picky).await;
    let why = "1 node(s) didn't match Pod's node affinity/selector";
    let waits = |pods: &[Pod]| waits_because(pods, "picky").is_some_and(|message| message.contains(why));
    world.until("it waits", waits).await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"disk": "fast"}}}));
    nodes.patch(NODE, &PatchParams::default(), &label).await.unwrap();
    world.until("it is bound", |pods: &[Pod]| is_bound(pods, "picky")).await;
}
