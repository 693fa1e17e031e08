//! From the binding to Ready.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{app, cluster, condition, is_ready, phase, pod, shell};

fn probe(period: u32) -> serde_json::Value {
    json!({ "httpGet": { "path": "/health", "port": "http" }, "periodSeconds": period,
        "failureThreshold": 30 })
}

#[tokio::test]
async fn a_pod_runs_and_becomes_ready() {
    let cluster = cluster().await;
    let created = pod("web", json!({ "readinessProbe": probe(1) }), json!({}));
    let ready = cluster.ready(&created).await;
    let status = ready.status.clone().unwrap();
    assert_eq!(phase(&ready), "Running");
    for name in ["PodScheduled", "Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers"] {
        assert_eq!(condition(&ready, name).unwrap().0, "True", "{name}");
    }
    let ip: std::net::Ipv4Addr = status.pod_ip.clone().unwrap().parse().unwrap();
    assert!(ip.is_loopback());
    assert_eq!(status.pod_ips.unwrap()[0].ip, ip.to_string());
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert!(status.start_time.is_some());
    let app = app(&ready);
    let image = cluster.images.resolve("fixture:1").unwrap().unwrap();
    assert_eq!(app.image_id, image.id.to_string());
    assert_eq!(app.image, "fixture:1");
    assert!(app.container_id.unwrap().starts_with("process://"));
    assert_eq!((app.ready, app.started, app.restart_count), (true, Some(true), 0));
    assert!(app.state.unwrap().running.unwrap().started_at.is_some());
    cluster.event("web", "Started", "Started container app", 1).await;
    let events = cluster.events("web").await;
    for event in [
        "Pulled: Container image \"fixture:1\" already present on machine",
        "Created: Created container: app",
    ] {
        assert!(events.iter().any(|seen| seen == event), "{events:#?}");
    }
}

#[tokio::test]
async fn a_slow_start_is_waited_for_by_the_startup_probe() {
    let cluster = cluster().await;
    let env = json!([{ "name": "HEALTHY_AFTER_MS", "value": "1500" }]);
    let container = json!({ "env": env, "startupProbe": probe(1), "readinessProbe": probe(1),
        "livenessProbe": {
        "httpGet": { "path": "/health", "port": 8000 }, "periodSeconds": 1, "failureThreshold": 1 } });
    let begin = Instant::now();
    cluster.create(&pod("slow", container, json!({}))).await;
    let running =
        cluster.until("slow", "running", |pod| app(pod).state.is_some_and(|s| s.running.is_some())).await;
    assert!(!is_ready(&running));
    assert_eq!(app(&running).started, Some(false));
    assert_eq!(condition(&running, "Ready").unwrap(), ("False".into(), Some("ContainersNotReady".into())));
    let ready = cluster.until("slow", "Ready", is_ready).await;
    assert!(begin.elapsed() > Duration::from_millis(1500));
    assert_eq!(app(&ready).restart_count, 0, "liveness must wait for startup");
    cluster
        .event("slow", "Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503", 1)
        .await;
}

#[tokio::test]
async fn readiness_goes_and_comes_without_a_restart() {
    let cluster = cluster().await;
    let readiness =
        json!({ "httpGet": { "path": "/health", "port": 8000 }, "periodSeconds": 1, "failureThreshold": 1 });
    cluster.ready(&pod("flip", json!({ "readinessProbe": readiness }), json!({}))).await;
    cluster.get("flip", "/health/500").await;
    let unready = cluster.until("flip", "not Ready", |pod| !is_ready(pod)).await;
    assert_eq!(phase(&unready), "Running");
    cluster
        .event("flip", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500", 1)
        .await;
    cluster.get("flip", "/health/399").await;
    let ready = cluster.until("flip", "Ready", is_ready).await;
    assert_eq!(app(&ready).restart_count, 0);
}

#[tokio::test]
async fn probes_by_tcp_and_by_command() {
    let cluster = cluster().await;
    let container = json!({
        "env": [{ "name": "LISTEN_AFTER_MS", "value": "1500" }],
        "startupProbe": { "tcpSocket": { "port": "http" }, "periodSeconds": 1, "failureThreshold": 30 },
        "readinessProbe": { "exec": { "command": ["sh", "-c", "test -f \"$HOME/go\" || { echo not yet; exit \
                3; }"] },
                            "periodSeconds": 1, "failureThreshold": 1 },
    });
    cluster.create(&pod("kinds", container, json!({}))).await;
    let started = cluster.until("kinds", "started", |pod| app(pod).started == Some(true)).await;
    cluster.event("kinds", "Unhealthy", "connect: connection refused", 1).await;
    cluster.event("kinds", "Unhealthy", "Readiness probe failed: not yet", 2).await;
    let uid = started.metadata.uid.unwrap();
    let home = cluster.dir.path().join("node/pods").join(format!("default_kinds_{uid}")).join("home");
    std::fs::write(home.join("go"), "").unwrap();
    cluster.until("kinds", "Ready", is_ready).await;
}

#[tokio::test]
async fn a_probe_that_hangs_fails_by_its_timeout() {
    let cluster = cluster().await;
    let readiness =
        json!({ "httpGet": { "path": "/hang", "port": 8000 }, "periodSeconds": 1, "timeoutSeconds": 1 });
    cluster.create(&pod("hang", json!({ "readinessProbe": readiness }), json!({}))).await;
    cluster.event("hang", "Unhealthy", "context deadline exceeded", 1).await;
}

#[tokio::test]
async fn init_containers_run_in_order_before_the_others() {
    let cluster = cluster().await;
    let init = |name: &str, script: &str| {
        json!({ "name": name, "image": "fixture:1", "command": ["sh", "-c",
        script] })
    };
    let spec = json!({ "initContainers": [
        init("first", "sleep 0.3; echo 1 >> order"),
        init("second", "echo 2 >> order"),
    ] });
    cluster.create(&pod("init", shell("echo 3 >> order; cat order; sleep 1000"), spec)).await;
    let waiting = cluster.until("init", "initialising", |pod| {
        condition(pod, "Initialized").is_some_and(|(status, reason)| {
            status == "False" && reason.as_deref() == Some("ContainersNotInitialized")
        })
    });
    assert_eq!(phase(&waiting.await), "Pending");
    cluster.until("init", "Ready", is_ready).await;
    let follow =
        sandbox_contract::LogRequest { limit_bytes: Some(6), follow: true, ..crate::support::log_of("init") };
    assert_eq!(cluster.logs(follow).await.unwrap(), "1\n2\n3\n");
}

#[tokio::test]
async fn a_builtin_image_runs_its_program() {
    let cluster = cluster().await;
    let ready = cluster.ready(&pod("own", json!({ "image": "builtin/fixture:v1" }), json!({}))).await;
    assert!(app(&ready).image_id.starts_with("sha256:"));
    let listening =
        sandbox_contract::LogRequest { limit_bytes: Some(10), follow: true, ..crate::support::log_of("own") };
    assert_eq!(cluster.logs(listening).await.unwrap(), "listening\n");
    let kubeconfig = cluster.get("own", "/env/KUBECONFIG").await;
    assert_eq!(kubeconfig, cluster.dir.path().join("kubeconfig").to_string_lossy());
}

/// From the probe's good answer to a watcher's knowing of it.
#[tokio::test]
async fn ready_is_written_at_once() {
    let cluster = cluster().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let mut container = shell("sleep 1000");
    container["readinessProbe"] =
        json!({ "httpGet": { "host": "127.0.0.1", "port": port }, "periodSeconds": 1000 });
    cluster.create(&pod("quick", container, json!({}))).await;
    let answered = async {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
        assert!(
            request.starts_with("get / http/1.1") && request.contains("user-agent: kube-probe/"),
            "{request}"
        );
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        Instant::now()
    };
    let (answered, known) = tokio::join!(answered, async {
        cluster.until("quick", "Ready", is_ready).await;
        Instant::now()
    });
    let took = known - answered;
    println!("probe answered to watcher told: {took:?}");
    // A millisecond or two; the rest is for a machine that is busy with other tests.
    assert!(took < Duration::from_millis(500), "{took:?}");
}
