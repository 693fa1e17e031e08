//! Clusters in this process.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::PostParams;
use sandbox::faults::{Fault, Refusal};
use sandbox::images::ImageLayout;
use sandbox::{Cluster, Tuning};
use serde_json::json;

use crate::support::{alive, ask, soon, web};

fn sleeper(name: &str) -> Pod {
    let container = json!({"name": "sleeper", "image": "sleeper:1", "imagePullPolicy": "Never"});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": [container]}})).unwrap()
}

/// Its process says its number into a file.
fn import_sleeper(cluster: &Cluster, file: &std::path::Path) {
    let script = format!("echo $$ > '{}.new'; mv '{0}.new' '{0}'; exec sleep 1000", file.display());
    let entrypoint = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    cluster.import("sleeper:1", &ImageLayout { entrypoint, ..ImageLayout::default() }).unwrap();
}

async fn started(file: PathBuf) -> i32 {
    soon("the pod runs", || async { std::fs::read_to_string(&file).ok()?.trim().parse().ok() }).await
}

#[tokio::test]
async fn several_run_side_by_side_and_each_ends_with_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = tokio::try_join!(Cluster::start(), Cluster::start()).unwrap();
    let mut processes = Vec::new();
    for (index, cluster) in [&first, &second].into_iter().enumerate() {
        let file = dir.path().join(index.to_string());
        import_sleeper(cluster, &file);
        let pods: Api<Pod> = Api::default_namespaced(cluster.client());
        pods.create(&PostParams::default(), &sleeper(&format!("sleeper-{index}"))).await.unwrap();
        processes.push(started(file).await);
        let names: Vec<_> = pods.list(&kube::api::ListParams::default()).await.unwrap().items;
        assert_eq!(names.len(), 1, "what is in one is not in the other");
    }
    let kubeconfigs = [first.kubeconfig().to_owned(), second.kubeconfig().to_owned()];
    drop(first);
    assert_eq!((alive(processes[0]), alive(processes[1])), (false, true));
    assert_eq!((kubeconfigs[0].exists(), kubeconfigs[1].exists()), (false, true));
    second.stop().await;
    assert!(!alive(processes[1]) && !kubeconfigs[1].exists());
}

#[tokio::test]
async fn its_node_is_as_large_as_it_is_told() {
    let cluster = Cluster::builder().node(64 * 1024 * 1024, 1).start().await.unwrap();
    import_sleeper(&cluster, &std::env::temp_dir().join("never"));
    let mut greedy = sleeper("greedy");
    let requests = json!({"requests": {"memory": "128Mi"}});
    greedy.spec.as_mut().unwrap().containers[0].resources = Some(serde_json::from_value(requests).unwrap());
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.create(&PostParams::default(), &greedy).await.unwrap();
    let why = soon("it is unschedulable", || async {
        let conditions = pods.get("greedy").await.ok()?.status?.conditions?;
        conditions.into_iter().find(|condition| condition.reason.as_deref() == Some("Unschedulable"))?.message
    })
    .await;
    assert!(why.contains("Insufficient memory"), "{why}");
}

#[tokio::test]
async fn its_ingress_leads_to_its_pods() {
    let cluster = Cluster::builder().ingress().start().await.unwrap();
    crate::support::import_web_into(&cluster);
    for object in web("v1", 1, "") {
        crate::support::create(&cluster.client(), object).await;
    }
    let entry = cluster.entry().unwrap();
    soon("the route answers", || async {
        let (status, body) = ask(entry, "GET", "web.local", "id").await.ok()?;
        (status == 200 && body.starts_with("v1 ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn faults_of_its_node_are_done_and_cleared() {
    let tuning = Tuning { create_retry: Duration::from_millis(50), ..Tuning::default() };
    let cluster = Cluster::builder().tuning(tuning).start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    import_sleeper(&cluster, &dir.path().join("pid"));
    let refused = Fault::RefuseImage { image: "sleeper".to_owned(), answer: Refusal::Never };
    cluster.fault(&refused).await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.create(&PostParams::default(), &sleeper("sleeper")).await.unwrap();
    soon("the image is refused", || async {
        let container = pods.get("sleeper").await.ok()?.status?.container_statuses?.pop()?;
        (container.state?.waiting?.reason? == "ErrImageNeverPull").then_some(())
    })
    .await;
    cluster.clear_faults().await.unwrap();
    started(dir.path().join("pid")).await;
    let absent = Fault::Kill { namespace: "default".to_owned(), pod: "absent".to_owned() };
    let error = cluster.fault(&absent).await.unwrap_err();
    assert!(matches!(error, sandbox::Error::Api { .. }), "{error:?}");
    assert!(error.chain().contains("no container of pod default/absent runs here"), "{}", error.chain());
}

/// The cluster has threads of its own.
#[tokio::test]
async fn it_goes_on_while_the_test_blocks() {
    let cluster = Cluster::start().await.unwrap();
    let kubeconfig = cluster.kubeconfig().to_owned();
    let output = std::process::Command::new("kubectl")
        .args(["--kubeconfig"])
        .arg(kubeconfig)
        .args(["get", "nodes", "-o", "name"])
        .output()
        .expect("this test needs kubectl");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("node/{}\n", sandbox::NODE_NAME));
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.get("default").await.unwrap();
}
