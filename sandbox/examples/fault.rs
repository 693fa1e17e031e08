//! Does something wrong on purpose: the API server fails for two requests.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use sandbox::Cluster;
use sandbox::faults::{ApiFault, Effect, Fault};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::start().await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let failing = ApiFault {
        resources: vec!["namespaces".to_owned()],
        verbs: vec!["get".to_owned()],
        times: Some(2),
        ..ApiFault::new(Effect::Answer(500))
    };
    cluster.fault(&Fault::Api(failing)).await?;

    // What is tested stands here: it tries again (kube-rs itself does after a 429, 503 or 504).
    let mut failed = 0;
    let namespace = loop {
        match namespaces.get("default").await {
            Err(kube::Error::Api(status)) if status.code == 500 => failed += 1,
            answer => break answer?,
        }
    };
    assert_eq!((failed, namespace.metadata.name.as_deref()), (2, Some("default")));
    Ok(())
}
