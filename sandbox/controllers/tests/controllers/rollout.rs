//! Deployments: every way from one template to the next.

use std::sync::{Arc, Mutex};

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::world::{
    World, deployment, follow, image, is_going, is_ready, is_rolled_out, status, write_status,
};

fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

fn reason<'a>(deployment: &'a Deployment, type_: &str) -> &'a str {
    condition(deployment, type_).and_then(|condition| condition.reason.as_deref()).unwrap_or_default()
}

fn image_of(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_deployment_becomes_available_and_says_so_as_kubernetes_does() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 3, "good:1")).await;
    world.until_rolled_out("web", 3).await;
    let done = world
        .until_one("web", "NewReplicaSetAvailable", |web| {
            reason(web, "Progressing") == "NewReplicaSetAvailable"
        })
        .await;
    assert_eq!(reason(&done, "Available"), "MinimumReplicasAvailable");
    let sets = world.until("one set", |sets: &[ReplicaSet]| sets.len() == 1).await;
    let name = sets[0].name_any();
    let message = condition(&done, "Progressing").unwrap().message.clone().unwrap();
    assert_eq!(message, format!("ReplicaSet \"{name}\" has successfully progressed."));
    assert_eq!(done.annotations()["deployment.kubernetes.io/revision"], "1");
    assert_eq!(name, format!("web-{}", sets[0].labels()["pod-template-hash"]));
    let scaled = format!("Scaled up replica set {name} from 0 to 3");
    world
        .until("the event", |events: &[Event]| {
            events.iter().any(|event| event.message.as_ref() == Some(&scaled))
        })
        .await;
}

/// Watches the pods from now on; each state with fewer than `least` available or more than `most` in all is a
/// violation.
fn watch_invariant(world: &World, least: usize, most: usize) -> Arc<Mutex<Vec<String>>> {
    let violations: Arc<Mutex<Vec<String>>> = Arc::default();
    let (api, into): (Api<Pod>, _) = (world.api(), Arc::clone(&violations));
    tokio::spawn(follow(api, move |pods: &[Pod]| {
        let active: Vec<&Pod> = pods.iter().filter(|pod| !is_going(pod)).collect();
        let available = active.iter().filter(|pod| is_ready(pod)).count();
        if available < least || active.len() > most {
            into.lock().unwrap().push(format!("{available} available, {} in all", active.len()));
        }
        false
    }));
    violations
}

async fn rolls_within(
    replicas: i32,
    max_unavailable: serde_json::Value,
    max_surge: serde_json::Value,
    least: usize,
    most: usize,
) {
    let world = World::start().await;
    let mut web = deployment("web", replicas, "good:1");
    web["spec"]["strategy"]["rollingUpdate"] =
        json!({"maxUnavailable": max_unavailable, "maxSurge": max_surge});
    world.create::<Deployment>(web).await;
    world.until_rolled_out("web", replicas).await;
    let violations = watch_invariant(&world, least, most);
    for round in 2..5 {
        let changed = world.merge::<Deployment>("web", image(&format!("good:{round}"))).await;
        let generation = changed.metadata.generation;
        world
            .until_one("web", "the next revision", |web: &Deployment| {
                web.status.as_ref().and_then(|status| status.observed_generation) == generation
                    && is_rolled_out(web, replicas)
            })
            .await;
        let new = format!("good:{round}");
        let all_new = |pods: &[Pod]| pods.iter().all(|pod| image_of(pod) == new);
        world
            .until("only new pods", |pods: &[Pod]| all_new(pods) && i32::try_from(pods.len()) == Ok(replicas))
            .await;
    }
    assert_eq!(*violations.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_never_has_fewer_available_or_more_in_all_than_allowed() {
    rolls_within(3, json!(0), json!(1), 3, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn percentages_hold_too() {
    rolls_within(4, json!("25%"), json!("25%"), 3, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_surge_old_pods_go_first() {
    rolls_within(3, json!(1), json!(0), 2, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_pods_stay_while_the_new_one_is_not_ready() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 3, "good:1")).await;
    world.until_rolled_out("web", 3).await;
    let violations = watch_invariant(&world, 3, 4);
    world.merge::<Deployment>("web", image("hold:2")).await;
    let held = |pods: &[Pod]| pods.iter().filter(|pod| image_of(pod) == "hold:2").count();
    let pods = world.until("one new pod", |pods: &[Pod]| held(pods) == 1 && pods.len() == 4).await;
    world
        .until_one("web", "one updated replica", |web: &Deployment| {
            let status = web.status.clone().unwrap_or_default();
            status.updated_replicas == Some(1)
                && status.replicas == Some(4)
                && status.unavailable_replicas == Some(1)
        })
        .await;
    // The moment it is ready the next step follows.
    let new = pods.iter().find(|pod| image_of(pod) == "hold:2").unwrap();
    write_status(&world.client, new, status("127.2.0.1", true)).await;
    world.until("the second new pod", |pods: &[Pod]| held(pods) == 2).await;
    assert_eq!(*violations.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_superseded_while_stuck_gives_up_its_pods_first() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 3, "good:1")).await;
    world.until_rolled_out("web", 3).await;
    let violations = watch_invariant(&world, 3, 4);
    world.merge::<Deployment>("web", image("stuck:2")).await;
    world.until("the stuck pod", |pods: &[Pod]| pods.iter().any(|pod| image_of(pod) == "stuck:2")).await;
    world.merge::<Deployment>("web", image("good:3")).await;
    let only_newest = |pods: &[Pod]| pods.len() == 3 && pods.iter().all(|pod| image_of(pod) == "good:3");
    world.until("only the newest pods", only_newest).await;
    assert_eq!(*violations.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_an_old_template_reuses_its_set_under_a_new_revision() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 2, "good:1")).await;
    world.until_rolled_out("web", 2).await;
    world.merge::<Deployment>("web", image("good:2")).await;
    world.until("the second set", |sets: &[ReplicaSet]| sets.len() == 2).await;
    world.until_rolled_out("web", 2).await;
    world.merge::<Deployment>("web", image("good:1")).await;
    let back = |pods: &[Pod]| pods.len() == 2 && pods.iter().all(|pod| image_of(pod) == "good:1");
    world.until("the old pods again", back).await;
    let sets = world.api::<ReplicaSet>().list(&kube::api::ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 2);
    let current = |set: &&ReplicaSet| set.spec.as_ref().unwrap().replicas == Some(2);
    let annotations = sets.iter().find(current).unwrap().annotations();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_deployment_scales_and_does_not_roll() {
    let world = World::start().await;
    world.create::<Deployment>(deployment("web", 2, "good:1")).await;
    world.until_rolled_out("web", 2).await;
    world.merge::<Deployment>("web", json!({"spec": {"paused": true}})).await;
    world.until_one("web", "DeploymentPaused", |web| reason(web, "Progressing") == "DeploymentPaused").await;
    let mut change = image("good:2");
    change["spec"]["replicas"] = json!(4);
    world.merge::<Deployment>("web", change).await;
    let pods = world.until("four pods", |pods: &[Pod]| pods.len() == 4 && pods.iter().all(is_ready)).await;
    assert!(pods.iter().all(|pod| image_of(pod) == "good:1"));
    world.merge::<Deployment>("web", json!({"spec": {"paused": false}})).await;
    let new = |pods: &[Pod]| pods.len() == 4 && pods.iter().all(|pod| image_of(pod) == "good:2");
    world.until("the new pods", new).await;
    world.until_rolled_out("web", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_waits_until_the_last_old_pod_is_gone() {
    let world = World::start().await;
    let mut web = deployment("web", 2, "good:1");
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    web["spec"]["template"]["metadata"]["annotations"] = json!({"test/linger": "yes"});
    world.create::<Deployment>(web).await;
    world.until_rolled_out("web", 2).await;
    let mixed: Arc<Mutex<bool>> = Arc::default();
    let (api, into): (Api<Pod>, _) = (world.api(), Arc::clone(&mixed));
    tokio::spawn(follow(api, move |pods: &[Pod]| {
        let new = pods.iter().filter(|pod| image_of(pod) == "good:2").count();
        *into.lock().unwrap() |= new > 0 && new < pods.len();
        false
    }));
    world.merge::<Deployment>("web", image("good:2")).await;
    let old = world.until("both going", |pods: &[Pod]| pods.len() == 2 && pods.iter().all(is_going)).await;
    world
        .until_one("web", "nothing updated yet", |web: &Deployment| {
            let status = web.status.clone().unwrap_or_default();
            status.replicas.is_none()
                && status.updated_replicas.is_none()
                && status.available_replicas.is_none()
        })
        .await;
    for pod in old {
        world
            .api::<Pod>()
            .delete(&pod.name_any(), &kube::api::DeleteParams::default().grace_period(0))
            .await
            .unwrap();
    }
    world
        .until("the new pods", |pods: &[Pod]| {
            pods.len() == 2 && pods.iter().all(|pod| image_of(pod) == "good:2")
        })
        .await;
    assert!(!*mixed.lock().unwrap(), "old and new pods at the same time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_without_progress_exceeds_its_deadline() {
    let world = World::start().await;
    let mut web = deployment("web", 2, "stuck:1");
    web["spec"]["progressDeadlineSeconds"] = json!(1);
    world.create::<Deployment>(web).await;
    let late = world
        .until_one("web", "the deadline", |web| reason(web, "Progressing") == "ProgressDeadlineExceeded")
        .await;
    let progressing = condition(&late, "Progressing").unwrap();
    assert_eq!(progressing.status, "False");
    assert!(progressing.message.as_ref().unwrap().ends_with("has timed out progressing."));
    assert_eq!(reason(&late, "Available"), "MinimumReplicasUnavailable");
    // A template that works ends it.
    world.merge::<Deployment>("web", image("good:2")).await;
    world.until_one("web", "success", |web| reason(web, "Progressing") == "NewReplicaSetAvailable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_counts_as_available_only_after_min_ready_seconds() {
    let world = World::start().await;
    let mut web = deployment("web", 1, "hold:1");
    web["spec"]["minReadySeconds"] = json!(2);
    world.create::<Deployment>(web).await;
    let pods = world
        .until("the pod", |pods: &[Pod]| {
            pods.len() == 1 && pods[0].spec.as_ref().unwrap().node_name.is_some()
        })
        .await;
    let mut now_ready = status("127.2.0.1", true);
    now_ready["status"]["conditions"][0]["lastTransitionTime"] = json!(jiff::Timestamp::now().to_string());
    write_status(&world.client, &pods[0], now_ready).await;
    world
        .until_one("web", "ready and not available", |web: &Deployment| {
            let status = web.status.clone().unwrap_or_default();
            status.ready_replicas == Some(1) && status.available_replicas.is_none()
        })
        .await;
    world.until_rolled_out("web", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_sets_beyond_the_history_limit_go() {
    let world = World::start().await;
    let mut web = deployment("web", 1, "good:0");
    web["spec"]["revisionHistoryLimit"] = json!(1);
    world.create::<Deployment>(web).await;
    world.until_rolled_out("web", 1).await;
    for round in 1..4 {
        let new = format!("good:{round}");
        world.merge::<Deployment>("web", image(&new)).await;
        world.until("the new pod alone", |pods: &[Pod]| pods.len() == 1 && image_of(&pods[0]) == new).await;
    }
    let sets = world.until("two sets", |sets: &[ReplicaSet]| sets.len() == 2).await;
    let mut revisions: Vec<&String> =
        sets.iter().map(|set| &set.annotations()["deployment.kubernetes.io/revision"]).collect();
    revisions.sort();
    assert_eq!(revisions, ["3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    let world = World::start().await;
    let mut web = deployment("web", 4, "good:1");
    web["spec"]["strategy"]["rollingUpdate"] = json!({"maxUnavailable": 0, "maxSurge": 2});
    world.create::<Deployment>(web).await;
    world.until_rolled_out("web", 4).await;
    world.merge::<Deployment>("web", image("stuck:2")).await;
    let count = |pods: &[Pod], image: &str| {
        pods.iter().filter(|pod| image_of(pod) == image && !is_going(pod)).count()
    };
    world
        .until("two new pods", |pods: &[Pod]| count(pods, "stuck:2") == 2 && count(pods, "good:1") == 4)
        .await;
    world.merge::<Deployment>("web", json!({"spec": {"replicas": 10}})).await;
    // 12 in all where 6 were: both twice as many.
    world
        .until("eight and four", |pods: &[Pod]| count(pods, "good:1") == 8 && count(pods, "stuck:2") == 4)
        .await;
}
