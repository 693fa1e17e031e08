//! The Node object, its lease, and what it reports of usage.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use serde_json::json;

use sandbox_node::Tuning;

use crate::support::{cluster, cluster_with, pod, shell, tuning};

#[tokio::test]
async fn the_node_registers_itself_ready() {
    let cluster = cluster().await;
    let node = Api::<Node>::all(cluster.client.clone()).get("node").await.unwrap();
    let status = node.status.unwrap();
    let condition = |name: &str| {
        let conditions = status.conditions.iter().flatten();
        conditions.clone().find(|condition| condition.type_ == name).map(|condition| condition.status.clone())
    };
    assert_eq!(condition("Ready").as_deref(), Some("True"));
    for pressure in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        assert_eq!(condition(pressure).as_deref(), Some("False"));
    }
    for resources in [status.capacity.unwrap(), status.allocatable.unwrap()] {
        assert_eq!(
            (&*resources["cpu"].0, &*resources["memory"].0, &*resources["pods"].0),
            ("2", "8Gi", "110")
        );
    }
    assert_eq!(status.addresses.unwrap()[0].address, "127.0.0.1");
    let lease =
        Api::<Lease>::namespaced(cluster.client.clone(), "kube-node-lease").get("node").await.unwrap();
    let lease = lease.spec.unwrap();
    assert_eq!(lease.holder_identity.as_deref(), Some("node"));
    assert!(lease.renew_time.is_some());
}

#[tokio::test]
async fn usage_is_measured_per_container() {
    let cluster = cluster().await;
    cluster.ready(&pod("busy", shell("while :; do :; done"), json!({}))).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let usage = cluster.agent.usage();
        let busy = usage.pods.iter().find(|pod| pod.pod == "busy").map(|pod| pod.containers[0].clone());
        if let Some((name, sample)) = busy
            && sample.cpu_nanocores > 100_000_000
        {
            assert_eq!(name, "app");
            assert!(sample.cpu_nanocores < 1_500_000_000, "one thread uses one core: {sample:?}");
            assert!(sample.memory_bytes > 100_000 && sample.window > Duration::ZERO);
            assert!(usage.node.cpu_nanocores >= sample.cpu_nanocores);
            return;
        }
        assert!(Instant::now() < deadline, "{usage:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_connection_reaches_the_pod_that_was_asked_for() {
    let cluster = cluster().await;
    for name in ["a", "b"] {
        let container = json!({ "readinessProbe": { "tcpSocket": { "port": 8000 }, "periodSeconds": 1 } });
        cluster.ready(&pod(name, container, json!({}))).await;
    }
    for name in ["a", "b"] {
        assert_eq!(cluster.get(name, "/env/HOSTNAME").await, name);
    }
    let refused = cluster.agent.connect("default", "a", 9999).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(refused.to_string().contains("port 9999 of pod default/a"), "{refused}");
    let absent = cluster.agent.connect("default", "c", 8000).await.unwrap_err();
    assert_eq!(absent.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn without_addresses_of_their_own_pods_get_ports_of_their_own() {
    let cluster = cluster_with(Tuning { pod_addresses: false, ..tuning() }).await;
    let mut ports = Vec::new();
    for name in ["a", "b"] {
        let container = json!({ "readinessProbe": { "httpGet": { "path": "/health", "port": "http" },
            "periodSeconds": 1 } });
        let ready = cluster.ready(&pod(name, container, json!({}))).await;
        assert_eq!(ready.status.unwrap().pod_ip.as_deref(), Some("127.0.0.1"));
        let annotation = ready.metadata.annotations.unwrap()[sandbox_contract::PORTS_ANNOTATION].clone();
        let remapped: serde_json::Value = serde_json::from_str(&annotation).unwrap();
        ports.push(remapped["8000"].as_u64().unwrap());
        assert_eq!(cluster.get(name, "/env/PORT").await, ports.last().unwrap().to_string());
        assert_eq!(cluster.get(name, "/env/HOSTNAME").await, name);
    }
    assert_ne!(ports[0], ports[1]);
}
