//! Prints the schemas of the kinds that the sandbox serves, as k8s-openapi has them from Kubernetes' own OpenAPI
//! document: one JSON object, one schema a line.

use k8s_openapi::api::{
    admissionregistration, apps, authorization, autoscaling, coordination, core, discovery, events,
    networking, policy, rbac,
};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::Value;

fn main() {
    let mut generator = SchemaSettings::openapi3().into_generator();
    macro_rules! with {
        ($($kind:ty),* $(,)?) => { $(generator.subschema_for::<$kind>();)* };
    }
    with!(
        core::v1::Namespace,
        core::v1::Node,
        core::v1::Pod,
        core::v1::ConfigMap,
        core::v1::Secret,
        core::v1::Service,
        core::v1::ServiceAccount,
        core::v1::Event,
        core::v1::Endpoints,
        apps::v1::Deployment,
        apps::v1::ReplicaSet,
        autoscaling::v2::HorizontalPodAutoscaler,
        autoscaling::v1::HorizontalPodAutoscaler,
        discovery::v1::EndpointSlice,
        coordination::v1::Lease,
        networking::v1::Ingress,
        networking::v1::IngressClass,
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        events::v1::Event,
        apiregistration::v1::APIService,
        admissionregistration::v1::ValidatingWebhookConfiguration,
        authorization::v1::SelfSubjectAccessReview,
        rbac::v1::Role,
        rbac::v1::RoleBinding,
        rbac::v1::ClusterRole,
        rbac::v1::ClusterRoleBinding,
    );
    let schemas = generator.take_definitions(true);
    let lines: Vec<String> =
        schemas.iter().map(|(name, schema)| format!("{}:{schema}", Value::from(name.as_str()))).collect();
    println!("{{\n{}\n}}", lines.join(",\n"));
}
