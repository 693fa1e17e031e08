//! Waits for a rollout with kube-rs.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::{await_condition, conditions};
use sandbox::Cluster;
use sandbox::images::ImageLayout;
use serde_json::json;
use tokio::time::timeout;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::start().await?;
    // An image is files and a command line; this one needs no files.
    let sleep = ["/bin/sleep", "1000"].map(str::to_owned).to_vec();
    cluster.import("sleeper:1", &ImageLayout { entrypoint: sleep, ..ImageLayout::default() })?;

    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    let sleeper = serde_json::from_value(json!({
        "metadata": {"name": "sleeper"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "sleeper"}},
            "template": {
                "metadata": {"labels": {"app": "sleeper"}},
                "spec": {"containers": [{"name": "sleeper", "image": "sleeper:1"}]},
            },
        },
    }))?;
    deployments.create(&PostParams::default(), &sleeper).await?;
    let rolled_out = await_condition(deployments, "sleeper", conditions::is_deployment_completed());
    let deployment = timeout(Duration::from_secs(30), rolled_out).await??;
    let status = deployment.and_then(|deployment| deployment.status).unwrap_or_default();
    assert_eq!(status.ready_replicas, Some(2));
    Ok(())
}
