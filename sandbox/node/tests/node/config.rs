//! Environment and images: what a container is given, and what is said when it can't be.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::support::{
    Cluster, app, cluster, condition, fixture_image, is_ready, log_of, phase, pod, shell, waiting,
};

async fn config_map(cluster: &Cluster, name: &str, data: serde_json::Value) {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let object = serde_json::from_value(json!({ "metadata": { "name": name }, "data": data })).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

#[tokio::test]
async fn the_environment_is_the_pods_and_nothing_else() {
    let cluster = cluster().await;
    config_map(&cluster, "settings", json!({ "LEVEL": "debug", "topk": "5" })).await;
    let api: Api<Secret> = Api::namespaced(cluster.client.clone(), "default");
    let secret = json!({ "metadata": { "name": "keys" }, "data": { "token": "czNjcjN0" } });
    api.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut container = shell("env | sort; echo args: $0 $1; echo end");
    container["args"] = json!(["$(GREETING)", "$$(GREETING)"]);
    container["ports"] = json!([{ "containerPort": 8000 }]);
    container["resources"] = json!({ "limits": { "memory": "64Mi", "cpu": "1500m" } });
    container["envFrom"] = json!([
        { "configMapRef": { "name": "settings" } },
        { "prefix": "X_", "configMapRef": { "name": "settings" } },
        { "configMapRef": { "name": "absent", "optional": true } },
    ]);
    container["env"] = json!([
        { "name": "GREETING", "value": "level=$(LEVEL) $(unknown)" },
        { "name": "LEVEL", "value": "info" },
        { "name": "TOPK", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "topk" } } },
        { "name": "NONE", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "x",
            "optional": true } } },
        { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "token" } } },
        { "name": "HOST", "value": "0.0.0.0" },
        field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"), field("NODE", "spec.nodeName"),
        field("TIER", "metadata.labels['tier']"),
        { "name": "MEMORY_MIB", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory",
            "divisor": "1Mi" } } },
        { "name": "CPUS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
    ]);
    container["volumeMounts"] =
        json!([{ "name": "scratch", "mountPath": "/tmp" }, { "name": "data", "mountPath": "/data" }]);
    let spec = json!({ "restartPolicy": "Never",
        "volumes": [{ "name": "scratch", "emptyDir": {} }, { "name": "data", "emptyDir": {} }] });
    let mut created = pod("env", container, spec);
    created.metadata.labels = Some([("tier".to_owned(), "web".to_owned())].into());
    cluster.create(&created).await;
    let ended = cluster.until("env", "done", |pod| phase(pod) == "Succeeded").await;
    let ip = ended.status.clone().unwrap().pod_ip.unwrap();
    let log = cluster.logs(log_of("env")).await.unwrap();
    let has = |line: &str| assert!(log.lines().any(|l| l == line), "no {line:?} in\n{log}");
    for line in [
        "GREETING=level=debug $(unknown)",
        "LEVEL=info",
        "X_LEVEL=debug",
        "topk=5",
        "TOPK=5",
        "TOKEN=s3cr3t",
        "POD_NAME=env",
        "POD_NAMESPACE=default",
        "NODE=node",
        "TIER=web",
        "MEMORY_MIB=64",
        "CPUS=2",
        "HOSTNAME=env",
        "args: level=debug $(unknown) $(GREETING)",
    ] {
        has(line);
    }
    has(&format!("HOST={ip}"));
    has(&format!("POD_IP={ip}"));
    for absent in ["NONE=", "CARGO", "KUBECONFIG", "PORT="] {
        assert!(!log.lines().any(|line| line.starts_with(absent)), "{absent} in\n{log}");
    }
    let temporary = log.lines().find_map(|line| line.strip_prefix("TMPDIR=")).unwrap();
    assert!(std::path::Path::new(temporary).is_dir());
    let image = cluster.images.resolve("fixture:1").unwrap().unwrap();
    has(&format!("FROM_IMAGE={}/model", image.root.display()));
    cluster.event("env", "VolumeNotMounted", "Volume \"data\" is not at /data", 1).await;
}

#[tokio::test]
async fn a_missing_config_map_holds_the_container_back_until_it_is_there() {
    let cluster = cluster().await;
    let env = json!({ "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "late",
        "key": "a" } } }] });
    cluster.create(&pod("wants", env, json!({}))).await;
    let held = cluster.until("wants", "held back", |pod| waiting(pod) == "CreateContainerConfigError").await;
    assert_eq!(app(&held).state.unwrap().waiting.unwrap().message.unwrap(), "configmap \"late\" not found");
    assert_eq!(phase(&held), "Pending");
    assert_eq!(condition(&held, "Ready").unwrap().0, "False");
    cluster.event("wants", "Failed", "Error: configmap \"late\" not found", 1).await;
    let refused = cluster.logs(log_of("wants")).await.unwrap_err();
    assert_eq!(refused, "container \"app\" in pod \"wants\" is waiting to start: CreateContainerConfigError");
    config_map(&cluster, "late", json!({ "b": "1" })).await;
    let held = cluster.until("wants", "told of the key", |pod| {
        app(pod)
            .state
            .is_some_and(|s| s.waiting.is_some_and(|w| w.message.is_some_and(|m| m.contains("key"))))
    });
    let message = app(&held.await).state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(message, "couldn't find key a in ConfigMap default/late");
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let patch = kube::api::Patch::Merge(json!({ "data": { "a": "x" } }));
    api.patch("late", &Default::default(), &patch).await.unwrap();
    cluster.until("wants", "Ready", is_ready).await;
}

#[tokio::test]
async fn images_that_are_not_there() {
    let cluster = cluster().await;
    let image = |image: &str, policy: &str| json!({ "image": image, "imagePullPolicy": policy });
    cluster.create(&pod("never", image("other:1", "Never"), json!({}))).await;
    cluster.create(&pod("pull", image("other:2", "IfNotPresent"), json!({}))).await;
    cluster.create(&pod("bad", image("No Such:Name", "IfNotPresent"), json!({}))).await;

    let never = cluster.until("never", "ErrImageNeverPull", |pod| waiting(pod) == "ErrImageNeverPull").await;
    let text = "Container image \"other:1\" is not present with pull policy of Never";
    assert_eq!(app(&never).state.unwrap().waiting.unwrap().message.unwrap(), text);
    cluster.event("never", "ErrImageNeverPull", text, 1).await;
    cluster.event("never", "Failed", "Error: ErrImageNeverPull", 1).await;

    let pull = cluster.until("pull", "ImagePullBackOff", |pod| waiting(pod) == "ImagePullBackOff").await;
    let message = app(&pull).state.unwrap().waiting.unwrap().message.unwrap();
    assert!(message.starts_with("Back-off pulling image \"other:2\": ErrImagePull: "), "{message}");
    assert!(message.contains("not found"), "{message}");
    cluster.event("pull", "Failed", "Failed to pull image \"other:2\"", 1).await;
    let refused = cluster.logs(log_of("pull")).await.unwrap_err();
    assert_eq!(
        refused,
        "container \"app\" in pod \"pull\" is waiting to start: trying and failing to pull image"
    );

    let bad = cluster.until("bad", "InvalidImageName", |pod| waiting(pod) == "InvalidImageName").await;
    let message = app(&bad).state.unwrap().waiting.unwrap().message.unwrap();
    assert!(message.contains("couldn't parse image name"), "{message}");

    // Without a tag it is `latest` that is missing, whatever other tags there are; and what is always pulled is never
    // found.
    cluster.create(&pod("untagged", image("fixture", "Never"), json!({}))).await;
    cluster.create(&pod("untagged-pull", image("fixture", "IfNotPresent"), json!({}))).await;
    cluster.create(&pod("always", image("fixture:1", "Always"), json!({}))).await;
    cluster.until("untagged", "ErrImageNeverPull", |pod| waiting(pod) == "ErrImageNeverPull").await;
    for name in ["untagged-pull", "always"] {
        cluster.until(name, "ImagePullBackOff", |pod| waiting(pod) == "ImagePullBackOff").await;
    }

    // Once the image is there, the pod runs.
    cluster.images.import("other:1", &fixture_image()).unwrap();
    cluster.until("never", "Ready", is_ready).await;
}
