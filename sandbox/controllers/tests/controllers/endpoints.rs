//! EndpointSlices and Endpoints.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::world::{World, deployment, status, write_status};

fn service() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

fn states(slices: &[EndpointSlice]) -> Vec<(bool, bool, bool)> {
    let state = |endpoint: &Endpoint| {
        let conditions = endpoint.conditions.clone().unwrap();
        (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap())
    };
    let mut states: Vec<_> = slices.iter().flat_map(|slice| slice.endpoints.iter().map(state)).collect();
    states.sort_unstable();
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_follow_readiness_and_deletion() {
    const READY: (bool, bool, bool) = (true, true, false);
    let world = World::start().await;
    world.create::<Service>(service()).await;
    world
        .until("an empty slice", |slices: &[EndpointSlice]| slices.len() == 1 && states(slices).is_empty())
        .await;
    let mut web = deployment("web", 2, "good:1");
    web["spec"]["template"]["metadata"]["annotations"] = json!({"test/linger": "yes"});
    world.create::<Deployment>(web).await;
    let slices = world.until("two ready", |slices: &[EndpointSlice]| states(slices) == [READY, READY]).await;
    let slice = &slices[0];
    assert_eq!((slices.len(), slice.ports.as_ref().unwrap()[0].port), (1, Some(8000)));
    assert_eq!(slice.labels()["kubernetes.io/service-name"], "web");
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let target = slice.endpoints[0].target_ref.clone().unwrap();
    let pod = pods.iter().find(|pod| pod.metadata.uid == target.uid).unwrap();
    assert_eq!(slice.endpoints[0].addresses[0], pod.status.as_ref().unwrap().pod_ip.clone().unwrap());

    let ip = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    write_status(&world.client, pod, status(&ip, false)).await;
    world
        .until("one not ready", |slices: &[EndpointSlice]| states(slices) == [(false, false, false), READY])
        .await;
    write_status(&world.client, pod, status(&ip, true)).await;
    world.until("both ready again", |slices: &[EndpointSlice]| states(slices) == [READY, READY]).await;

    world.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    let replaced = [(false, true, true), READY, READY];
    world
        .until("the terminating one and its successor", |slices: &[EndpointSlice]| states(slices) == replaced)
        .await;
    let addresses = |endpoints: &Endpoints| {
        let subsets = endpoints.subsets.iter().flatten();
        subsets.map(|subset| subset.addresses.iter().flatten().count()).sum::<usize>()
    };
    world.until_one("web", "two addresses", |endpoints| addresses(endpoints) == 2).await;
    world.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
    world.until("the dead one gone", |slices: &[EndpointSlice]| states(slices) == [READY, READY]).await;

    world.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    world.until("no slice", <[EndpointSlice]>::is_empty).await;
    world.until("no endpoints", <[Endpoints]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_listen_elsewhere_get_a_slice_of_their_own() {
    let world = World::start().await;
    world.create::<Service>(service()).await;
    world.create::<Deployment>(deployment("web", 2, "good:1")).await;
    world.until_rolled_out("web", 2).await;
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    world
        .merge::<Pod>(
            &pods[0].name_any(),
            json!({"metadata": {"annotations": {"sandbox.local/ports": r#"{"8000":49731}"#}}}),
        )
        .await;
    let ports = |slices: &[EndpointSlice]| {
        let mut ports: Vec<_> =
            slices.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap()).collect();
        ports.sort_unstable();
        ports
    };
    let slices = world
        .until("two slices", |slices: &[EndpointSlice]| slices.len() == 2 && ports(slices) == [8000, 49731])
        .await;
    assert!(slices.iter().all(|slice| slice.endpoints.len() == 1));
}
