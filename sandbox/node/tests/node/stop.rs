//! Ends: deletion with its hook and grace, force, shutdown.

use std::time::{Duration, Instant};

use kube::api::DeleteParams;
use serde_json::json;

use crate::support::{alive, app, cluster, log_of, phase, pod, shell, until_dead};
use sandbox_contract::{Fault, Kubelet as _, LogRequest};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Runs until the script has printed its first line, and returns that.
async fn first_line(cluster: &crate::support::Cluster, name: &str, bytes: i64) -> String {
    let request = LogRequest { follow: true, limit_bytes: Some(bytes), ..log_of(name) };
    cluster.logs(request).await.unwrap().lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn the_hook_runs_before_sigterm_and_both_within_the_grace() {
    let cluster = cluster().await;
    let mut container = shell("trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.05; done");
    container["lifecycle"] =
        json!({ "preStop": { "exec": { "command": ["sh", "-c", "touch hooked; sleep 0.5"] } } });
    let ready = cluster.ready(&pod("polite", container, json!({}))).await;
    assert_eq!(first_line(&cluster, "polite", 3).await, "up");
    let follow = cluster.logs(LogRequest { follow: true, ..log_of("polite") });
    let begin = Instant::now();
    cluster.pods().delete("polite", &DeleteParams::default()).await.unwrap();
    let deleting = cluster.pods().get("polite").await.unwrap();
    assert!(deleting.metadata.deletion_timestamp.is_some(), "deletion is graceful");
    assert_eq!(follow.await.unwrap(), "up\nterm\n");
    cluster.until_gone("polite").await;
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(10), "{took:?}");
    cluster.event("polite", "Killing", "Stopping container app", 1).await;
    let uid = ready.metadata.uid.unwrap();
    assert!(!cluster.dir.path().join("node/pods").join(format!("default_polite_{uid}")).exists());
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed_with_all_its_children_after_the_grace() {
    let cluster = cluster().await;
    let script = "trap '' TERM; sleep 1000 & echo $! $$; while :; do sleep 1000; done";
    cluster.ready(&pod("deaf", shell(script), json!({ "terminationGracePeriodSeconds": 2 }))).await;
    let line = {
        let request = LogRequest { follow: true, ..log_of("deaf") };
        let mut pieces = cluster.agent.logs(request).await.unwrap();
        let piece = futures::StreamExt::next(&mut pieces).await.unwrap().unwrap();
        String::from_utf8(piece.to_vec()).unwrap()
    };
    let pids: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|&pid| alive(pid)));
    let begin = Instant::now();
    cluster.pods().delete("deaf", &DeleteParams::default()).await.unwrap();
    cluster.until_gone("deaf").await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(8), "{took:?}");
    until_dead(&pids).await;
}

#[tokio::test]
async fn a_pod_deleted_by_force_is_killed() {
    let cluster = cluster().await;
    let script = "trap '' TERM; echo $$; while :; do sleep 1000; done";
    cluster.ready(&pod("force", shell(script), json!({ "terminationGracePeriodSeconds": 1000 }))).await;
    let request = LogRequest { follow: true, ..log_of("force") };
    let mut pieces = cluster.agent.logs(request).await.unwrap();
    let piece = futures::StreamExt::next(&mut pieces).await.unwrap().unwrap();
    let pid: i32 = String::from_utf8(piece.to_vec()).unwrap().trim().parse().unwrap();
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    cluster.pods().delete("force", &params).await.unwrap();
    until_dead(&[pid]).await;
}

#[tokio::test]
async fn a_grace_that_is_shortened_counts() {
    let cluster = cluster().await;
    let mut container = shell("trap '' TERM; while :; do sleep 1000; done");
    container["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": 900 } } });
    cluster.ready(&pod("hurry", container, json!({ "terminationGracePeriodSeconds": 1000 }))).await;
    cluster.pods().delete("hurry", &DeleteParams::default()).await.unwrap();
    let params = DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() };
    cluster.pods().delete("hurry", &params).await.unwrap();
    cluster.until_gone("hurry").await;
    cluster.event("hurry", "FailedPreStopHook", "not completed in grace period", 1).await;
}

#[tokio::test]
async fn the_last_status_is_written_before_the_object_goes() {
    let cluster = cluster().await;
    let mut container = shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done");
    container["lifecycle"] = json!({ "preStop": { "exec": { "command": ["false"] } } });
    cluster.ready(&pod("last", container, json!({}))).await;
    first_line(&cluster, "last", 3).await;
    let ended =
        cluster.until("last", "ended", |pod| app(pod).state.is_some_and(|state| state.terminated.is_some()));
    let delete = async { cluster.pods().delete("last", &DeleteParams::default()).await.unwrap() };
    let (ended, _) = tokio::join!(ended, delete);
    assert_eq!(app(&ended).state.unwrap().terminated.unwrap().exit_code, 7);
    assert_eq!(phase(&ended), "Failed");
    cluster
        .event("last", "FailedPreStopHook", "PreStopHook failed: command \"false\" exited with 1", 1)
        .await;
}

#[tokio::test]
async fn shutdown_ends_every_pod_within_seconds() {
    let cluster = cluster().await;
    let mut pids = Vec::new();
    for name in ["one", "two", "three"] {
        cluster
            .ready(&pod(name, shell("trap '' TERM; echo $$; while :; do sleep 1000; done"), json!({})))
            .await;
        let request = LogRequest { follow: true, ..log_of(name) };
        let mut pieces = cluster.agent.logs(request).await.unwrap();
        let piece = futures::StreamExt::next(&mut pieces).await.unwrap().unwrap();
        pids.push(String::from_utf8(piece.to_vec()).unwrap().trim().parse().unwrap());
    }
    let begin = Instant::now();
    cluster.shutdown.cancel();
    cluster.agent.stopped().await;
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    assert!(!pids.iter().any(|&pid| alive(pid)));
}

#[tokio::test]
async fn a_black_hole_answers_nobody_where_a_pod_has_ended() {
    let cluster = cluster().await;
    let probe = json!({ "readinessProbe": { "tcpSocket": { "port": 8000 }, "periodSeconds": 1 } });
    for name in ["before", "after"] {
        let ready = cluster.ready(&pod(name, probe.clone(), json!({}))).await;
        let address = format!("{}:8000", ready.status.unwrap().pod_ip.unwrap());
        cluster.pods().delete(name, &DeleteParams::default()).await.unwrap();
        cluster.until_gone(name).await;
        let connected = timeout(Duration::from_millis(300), TcpStream::connect(&address)).await;
        if name == "before" {
            assert_eq!(connected.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            cluster.agent.fault(&Fault::BlackHole).unwrap();
        } else {
            assert!(connected.is_err(), "{connected:?}");
            cluster.agent.clear_faults();
            let refused = TcpStream::connect(&address).await.unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    }
}
