//! ReplicaSets: exactly as many pods as asked for.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::world::{World, deployment, is_going, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn scaling_makes_and_removes_pods_and_never_too_many() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 1, "good:1")).await;
    world.until_rolled_out("web", 1).await;
    for replicas in [7, 2, 9, 0, 5] {
        world.merge::<Deployment>("web", json!({"spec": {"replicas": replicas}})).await;
        world.until_rolled_out("web", replicas).await;
        world.until("that many pods", |pods: &[Pod]| i32::try_from(pods.len()) == Ok(replicas)).await;
    }
    // 1 + 6 + 7 + 5 were ever needed.
    let created = |set: &ReplicaSet| set.spec.as_ref().unwrap().replicas == Some(5);
    let sets = world.until("the set", |sets: &[ReplicaSet]| sets.len() == 1 && created(&sets[0])).await;
    let events: kube::Api<k8s_openapi::api::core::v1::Event> = world.api();
    let uid = sets[0].uid().unwrap();
    let is_creation = move |event: &k8s_openapi::api::core::v1::Event| {
        event.involved_object.uid.as_ref() == Some(&uid)
            && event.reason.as_deref() == Some("SuccessfulCreate")
    };
    world
        .until("every creation's event", |events: &[k8s_openapi::api::core::v1::Event]| {
            events.iter().filter(|event| is_creation(event)).count() >= 19
        })
        .await;
    let all = events.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(all.iter().filter(|event| is_creation(event)).count(), 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_replaced_while_it_still_terminates() {
    let world = World::start().await;
    let mut web = deployment("web", 2, "good:1");
    web["spec"]["template"]["metadata"]["annotations"] = json!({"test/linger": "yes"});
    world.create::<Deployment>(web).await;
    world.until_rolled_out("web", 2).await;
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    world.api::<Pod>().delete(&pods[0].name_any(), &DeleteParams::default()).await.unwrap();
    let replaced = |pods: &[Pod]| {
        pods.len() == 3
            && pods.iter().filter(|pod| is_going(pod)).count() == 1
            && pods.iter().filter(|pod| is_ready(pod)).count() == 3
    };
    world.until("a third pod", replaced).await;
    world.until_rolled_out("web", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_that_serve_nobody_go_first() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 3, "good:1")).await;
    world.until_rolled_out("web", 3).await;
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let sick = pods[1].name_any();
    crate::world::write_status(&world.client, &pods[1], crate::world::status("127.9.0.1", false)).await;
    let unready = |pods: &[Pod]| pods.iter().filter(|pod| !is_ready(pod)).count() == 1;
    world.until("one not ready", unready).await;
    world.merge::<Deployment>("web", json!({"spec": {"replicas": 2}})).await;
    let left = world.until("two pods", |pods: &[Pod]| pods.len() == 2).await;
    assert!(left.iter().all(|pod| pod.name_any() != sick), "the ready pods were to stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_adopted_and_strangers_let_go() {
    let world = World::start().await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orphan", "labels": {"app": "set"}},
        "spec": {"containers": [{"name": "app", "image": "good:1"}]},
    });
    world.create::<Pod>(pod).await;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "set"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "set"}},
            "template": {"metadata": {"labels": {"app": "set"}}, "spec": {"containers": [{"name": "app",
            "image": "good:1"}]}},
        },
    });
    let set = world.create::<ReplicaSet>(set).await;
    let owned =
        |pod: &Pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref());
    let adopted =
        world.until("two owned pods", |pods: &[Pod]| pods.len() == 2 && pods.iter().all(owned)).await;
    assert!(adopted.iter().any(|pod| pod.name_any() == "orphan"));
    world.merge::<Pod>("orphan", json!({"metadata": {"labels": {"app": "other"}}})).await;
    let released = |pods: &[Pod]| pods.len() == 3 && pods.iter().filter(|pod| owned(pod)).count() == 2;
    world.until("the released pod and a new one", released).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pod_shows_as_replica_failure() {
    let world = World::start().await;
    let mut web = deployment("web", 1, "good:1");
    // A name that a ReplicaSet may have, and that no pod can get: the suffix makes it too long.
    let long = "w".repeat(240);
    web["metadata"]["name"] = json!(long);
    world.create::<Deployment>(web).await;
    let failed = |sets: &[ReplicaSet]| {
        let conditions = sets
            .iter()
            .flat_map(|set| set.status.iter().flat_map(|status| status.conditions.iter().flatten()));
        conditions
            .into_iter()
            .any(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
    };
    world.until("ReplicaFailure", failed).await;
}
