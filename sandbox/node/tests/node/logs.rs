//! `kubectl logs`, as the node answers it.

use futures::StreamExt as _;
use serde_json::json;

use crate::support::{app, cluster, is_ready, log_of, pod, shell};
use sandbox_contract::{LogError, LogRequest};

#[tokio::test]
async fn logs_follow_a_running_container_to_its_end() {
    let cluster = cluster().await;
    cluster.ready(&pod("talk", json!({}), json!({ "restartPolicy": "Never" }))).await;
    let mut pieces = cluster.agent.logs(LogRequest { follow: true, ..log_of("talk") }).await.unwrap();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "listening\n");
    for line in ["one", "two"] {
        cluster.get("talk", &format!("/print/{line}")).await;
        assert_eq!(pieces.next().await.unwrap().unwrap(), format!("{line}\n"));
    }
    cluster.get("talk", "/exit/0").await;
    assert!(pieces.next().await.is_none());
    let all = cluster.logs(log_of("talk")).await.unwrap();
    assert_eq!(all, "listening\none\ntwo\n");
    let tail = LogRequest { tail_lines: Some(1), container: Some("app".to_owned()), ..log_of("talk") };
    assert_eq!(cluster.logs(tail).await.unwrap(), "two\n");
    let stamped = cluster.logs(LogRequest { timestamps: true, ..log_of("talk") }).await.unwrap();
    let stamps = stamped.lines().map(|line| line.split_once(' ').unwrap().0);
    assert!(
        stamps.clone().all(|stamp| stamp.parse::<jiff::Timestamp>().is_ok()) && stamps.is_sorted(),
        "{stamped}"
    );
}

#[tokio::test]
async fn refusals_are_worded_as_by_kubernetes() {
    let cluster = cluster().await;
    let spec = json!({ "containers": [
        { "name": "app", "image": "fixture:1", "command": ["sleep", "1000"] },
        { "name": "side", "image": "fixture:1", "command": ["sleep", "1000"] },
    ] });
    cluster
        .create(
            &serde_json::from_value(json!({ "metadata": { "name": "two" }, "spec": {
        "nodeName": "node", "containers": spec["containers"] } }))
            .unwrap(),
        )
        .await;
    cluster.until("two", "Ready", is_ready).await;
    let refused = |request: LogRequest| async { cluster.agent.logs(request).await.err().unwrap() };
    let bad = |message: &str| LogError::BadRequest(message.to_owned());
    assert_eq!(refused(log_of("absent")).await, LogError::NotFound("pods \"absent\" not found".to_owned()));
    assert_eq!(
        refused(log_of("two")).await,
        bad("a container name must be specified for pod two, choose one of: [app side]")
    );
    let of = |name: &str| LogRequest { container: Some(name.to_owned()), ..log_of("two") };
    assert_eq!(refused(of("x")).await, bad("container x is not valid for pod two"));
    assert_eq!(
        refused(LogRequest { previous: true, ..of("side") }).await,
        bad("previous terminated container \"side\" in pod \"two\" not found")
    );
    assert_eq!(cluster.logs(of("side")).await.unwrap(), "");
}

#[tokio::test]
async fn only_the_current_and_the_previous_run_are_kept() {
    let cluster = cluster().await;
    let script = "echo x >> runs; wc -l < runs; test $(wc -l < runs) -ge 4 && sleep 1000; exit 1";
    let created = pod("runs", shell(script), json!({}));
    cluster.create(&created).await;
    let ready = cluster.until("runs", "in its fourth run", |pod| {
        app(pod).restart_count == 3 && app(pod).state.is_some_and(|state| state.running.is_some())
    });
    let uid = ready.await.metadata.uid.unwrap();
    let follow = LogRequest { follow: true, limit_bytes: Some(2), ..log_of("runs") };
    assert_eq!(cluster.logs(follow).await.unwrap().trim(), "4");
    assert_eq!(cluster.logs(LogRequest { previous: true, ..log_of("runs") }).await.unwrap().trim(), "3");
    let folder = cluster.dir.path().join("node/pods").join(format!("default_runs_{uid}")).join("logs/app");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["2.log", "3.log"]);
}
