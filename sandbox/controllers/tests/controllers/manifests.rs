//! The repository's own manifests on these controllers.

use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::core::gvk::GroupVersionKind;

use crate::world::World;

async fn apply_manifests(world: &World) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kubernetes");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let object: DynamicObject = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let types = object.types.clone().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
        let api: Api<DynamicObject> = Api::default_namespaced_with(world.client.clone(), &resource);
        let name = object.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&object)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_comes_up_with_three_pods_and_stays_at_three_when_applied_again() {
    let world = World::start().await;
    apply_manifests(&world).await;
    world.until_rolled_out("simple-model-api-deployment", 3).await;
    let ready = |slices: &[EndpointSlice]| {
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let ports = slices.iter().flat_map(|slice| slice.ports.iter().flatten());
        endpoints.filter(|endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(true)).count() == 3
            && ports.map(|port| port.port).eq([Some(8000)])
    };
    world.until("three ready endpoints", ready).await;
    let may_go = |budget: &PodDisruptionBudget| {
        budget.status.as_ref().is_some_and(|status| status.disruptions_allowed == 1)
    };
    world.until_one("simple-model-api-pdb", "one pod may go", may_go).await;

    apply_manifests(&world).await;
    let seen = |autoscaler: &HorizontalPodAutoscaler| {
        autoscaler
            .status
            .as_ref()
            .is_some_and(|status| status.current_replicas == Some(3) && status.desired_replicas == 3)
    };
    world.until_one("simple-model-api-hpa", "three of three", seen).await;
    let deployment: Deployment = world.api().get("simple-model-api-deployment").await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(3));
    assert_eq!(deployment.metadata.generation, Some(2), "applied as created, then scaled once");
    assert_eq!(world.api::<Pod>().list(&kube::api::ListParams::default()).await.unwrap().items.len(), 3);
}
