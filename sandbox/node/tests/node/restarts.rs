//! Containers that end by themselves, or are ended for being sick or too big.

use serde_json::json;

use crate::support::{app, cluster, is_ready, log_of, phase, pod, shell, waiting};
use sandbox_contract::LogRequest;

#[tokio::test]
async fn a_crash_loop_backs_off_and_keeps_the_previous_log() {
    let cluster = cluster().await;
    cluster.create(&pod("crash", shell("echo run; echo oops >&2; exit 3"), json!({}))).await;
    let looping = cluster.until("crash", "in a crash loop", |pod| waiting(pod) == "CrashLoopBackOff").await;
    let status = app(&looping);
    let uid = looping.metadata.uid.clone().unwrap();
    assert_eq!(
        status.state.unwrap().waiting.unwrap().message.unwrap(),
        format!("back-off 300ms restarting failed container=app pod=crash_default({uid})")
    );
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert!(status.restart_count >= 1);
    assert_eq!(phase(&looping), "Running");
    cluster.until("crash", "restarted thrice", |pod| app(pod).restart_count >= 3).await;
    let text = format!("Back-off restarting failed container app in pod crash_default({uid})");
    cluster.event("crash", "BackOff", &text, 2).await;
    let previous = cluster.logs(LogRequest { previous: true, ..log_of("crash") }).await.unwrap();
    assert!(previous == "run\noops\n" || previous == "oops\nrun\n", "{previous:?}");
}

#[tokio::test]
async fn restart_policies_decide_the_phase() {
    let cluster = cluster().await;
    for (name, policy, script, wanted) in [
        ("never-ok", "Never", "exit 0", "Succeeded"),
        ("never-bad", "Never", "exit 5", "Failed"),
        ("on-failure-ok", "OnFailure", "test -f again || { touch again; exit 1; }", "Succeeded"),
    ] {
        cluster.create(&pod(name, shell(script), json!({ "restartPolicy": policy }))).await;
        let ended = cluster.until(name, "done", |pod| matches!(phase(pod), "Succeeded" | "Failed")).await;
        assert_eq!(phase(&ended), wanted, "{name}");
        let terminated = app(&ended).state.unwrap().terminated.unwrap();
        assert_eq!(terminated.exit_code, if name == "never-bad" { 5 } else { 0 });
        assert!(terminated.container_id.is_some() && terminated.finished_at.is_some());
        assert_eq!(app(&ended).restart_count, i32::from(name == "on-failure-ok"));
        assert!(!is_ready(&ended));
        cluster.pods().delete(name, &Default::default()).await.unwrap();
        cluster.until_gone(name).await;
    }
}

#[tokio::test]
async fn a_sick_container_is_restarted() {
    let cluster = cluster().await;
    let liveness = json!({ "httpGet": { "path": "/health", "port": 8000 }, "periodSeconds": 1,
        "failureThreshold": 2,
                           "initialDelaySeconds": 1 });
    cluster.ready(&pod("sick", json!({ "livenessProbe": liveness }), json!({}))).await;
    // Answers nothing from here on, once it serves at all.
    cluster.event("sick", "Started", "", 1).await;
    let follow = LogRequest { limit_bytes: Some(10), follow: true, ..log_of("sick") };
    cluster.logs(follow).await.unwrap();
    cluster.get("sick", "/health/500").await;
    let restarted =
        cluster.until("sick", "restarted", |pod| app(pod).restart_count == 1 && is_ready(pod)).await;
    let last = app(&restarted).last_state.unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 143, "ended by SIGTERM");
    cluster
        .event("sick", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500", 2)
        .await;
    cluster.event("sick", "Killing", "Container app failed liveness probe, will be restarted", 1).await;
}

#[tokio::test]
async fn a_startup_that_fails_its_probe_is_restarted() {
    let cluster = cluster().await;
    let startup = json!({ "exec": { "command": ["false"] }, "periodSeconds": 1, "failureThreshold": 1 });
    let mut container = shell("sleep 1000");
    container["startupProbe"] = startup;
    cluster.create(&pod("stuck", container, json!({}))).await;
    cluster.event("stuck", "Killing", "Container app failed startup probe, will be restarted", 1).await;
    cluster.until("stuck", "restarted", |pod| app(pod).restart_count >= 1).await;
}

#[tokio::test]
async fn over_its_memory_limit_a_container_is_killed() {
    let cluster = cluster().await;
    let limits = json!({ "resources": { "limits": { "memory": "64Mi" }, "requests": { "memory": "64Mi" } },
        "readinessProbe": { "httpGet": { "path": "/health", "port": 8000 }, "periodSeconds": 1 } });
    let ready = cluster.ready(&pod("big", limits, json!({}))).await;
    assert_eq!(ready.status.unwrap().qos_class.as_deref(), Some("Burstable"));
    cluster.get("big", "/eat/20").await;
    cluster.get("big", "/eat/100").await;
    let killed = cluster.until("big", "killed", |pod| app(pod).restart_count == 1).await;
    let last = app(&killed).last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
    cluster.event("big", "OOMKilling", "limit 65536 KiB", 1).await;
}

#[tokio::test]
async fn a_program_that_is_not_there() {
    let cluster = cluster().await;
    cluster.create(&pod("lost", json!({ "command": ["no-such-program"] }), json!({}))).await;
    let lost = cluster.until("lost", "backing off", |pod| waiting(pod) == "CrashLoopBackOff").await;
    let last = app(&lost).last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (128, Some("StartError")));
    assert!(last.message.unwrap().contains("exec: \"no-such-program\": executable file not found in $PATH"));
    cluster.event("lost", "Failed", "executable file not found", 2).await;
}
