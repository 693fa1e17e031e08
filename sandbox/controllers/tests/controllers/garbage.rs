//! Garbage collection, namespaces and budgets.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::world::{World, deployment};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_deployment_owned_goes_too() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 3, "good:1")).await;
    world.create::<Deployment>(deployment("other", 1, "good:1")).await;
    world.until_rolled_out("web", 3).await;
    world.until_rolled_out("other", 1).await;
    world.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    let is_other = |name: &str| name.starts_with("other-");
    world.until("one set", |sets: &[ReplicaSet]| sets.len() == 1 && is_other(&sets[0].name_any())).await;
    world.until("one pod", |pods: &[Pod]| pods.len() == 1 && is_other(&pods[0].name_any())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_dependents_live_on() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 2, "good:1")).await;
    world.until_rolled_out("web", 2).await;
    let before = world.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    world.api::<Deployment>().delete("web", &DeleteParams::orphan()).await.unwrap();
    world
        .until("a set without owner", |sets: &[ReplicaSet]| {
            sets.len() == 1 && sets[0].owner_references().is_empty()
        })
        .await;
    world.until("no Deployment", <[Deployment]>::is_empty).await;
    // A Deployment of the same selector takes it over as it is.
    world.create::<Deployment>(deployment("web", 2, "good:1")).await;
    world.until_rolled_out("web", 2).await;
    let after = world.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let uids = |pods: &[Pod]| pods.iter().map(|pod| pod.uid().unwrap()).collect::<Vec<_>>();
    assert_eq!(uids(&before), uids(&after));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_foreground_an_owner_goes_last() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 2, "good:1")).await;
    world.until_rolled_out("web", 2).await;
    let set = world.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items[0].name_any();
    world.merge::<ReplicaSet>(&set, json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    let answer = world.api::<Deployment>().delete("web", &DeleteParams::foreground()).await.unwrap();
    let going = answer.left().expect("the Deployment, which is still there");
    assert_eq!(going.finalizers(), ["foregroundDeletion"]);
    world
        .until("a set that only its finalizer holds", |sets: &[ReplicaSet]| {
            sets.len() == 1 && sets[0].metadata.deletion_timestamp.is_some()
        })
        .await;
    world.until("no pod", <[Pod]>::is_empty).await;
    assert!(world.api::<Deployment>().get_opt("web").await.unwrap().is_some(), "it waits for its set");
    world.merge::<ReplicaSet>(&set, json!({"metadata": {"finalizers": null}})).await;
    world.until("no set", <[ReplicaSet]>::is_empty).await;
    world.until("no Deployment", <[Deployment]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_goes_only_with_its_last_owner_and_unknown_kinds_are_asked_for() {
    let world = World::start().await;
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let first = world.create::<ConfigMap>(owner("first")).await;
    let second = world.create::<ConfigMap>(owner("second")).await;
    let reference = |owner: &ConfigMap| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "name": owner.name_any(), "uid": owner.uid()})
    };
    world
        .create::<Pod>(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "owned", "ownerReferences": [reference(&first), reference(&second)]},
            "spec": {"containers": [{"name": "app", "image": "good:1"}]},
        }))
        .await;
    world.api::<ConfigMap>().delete("first", &DeleteParams::default()).await.unwrap();
    world.merge::<Pod>("owned", json!({"metadata": {"labels": {"look": "again"}}})).await;
    world
        .until_one("owned", "the pod started", |pod: &Pod| {
            pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
        })
        .await;
    world.api::<ConfigMap>().delete("second", &DeleteParams::default()).await.unwrap();
    // ConfigMaps aren't watched: the next change of the pod brings the verdict.
    let poke = Patch::Merge(json!({"metadata": {"labels": {"look": "once-more"}}}));
    // Unless another change did already.
    let _ = world.api::<Pod>().patch("owned", &PatchParams::default(), &poke).await;
    world.until("no pod", <[Pod]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_namespace_gets_a_service_account() {
    let world = World::start().await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "fresh"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "fresh");
    let seen = crate::world::follow(accounts, |accounts: &[ServiceAccount]| {
        accounts.iter().any(|own| own.name_any() == "default")
    });
    tokio::time::timeout(std::time::Duration::from_secs(10), seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_tells_how_many_pods_may_go() {
    let world = World::start().await;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    world.create::<PodDisruptionBudget>(budget).await;
    world.create::<Deployment>(deployment("web", 3, "good:1")).await;
    let figures = |budget: &PodDisruptionBudget| {
        let status = budget.status.clone().unwrap_or_default();
        (status.expected_pods, status.current_healthy, status.desired_healthy, status.disruptions_allowed)
    };
    world.until_one("web", "one may go", |budget| figures(budget) == (3, 3, 2, 1)).await;
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    crate::world::write_status(&world.client, &pods[0], crate::world::status("127.9.0.1", false)).await;
    world.until_one("web", "none may go", |budget| figures(budget) == (3, 2, 2, 0)).await;
}
