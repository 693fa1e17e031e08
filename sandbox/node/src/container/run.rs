//! One run of a container: started, its output kept, and how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sandbox_events::Severity;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::life::until_end;
use super::prepare::Created;
use super::process::{Launch, Process};
use super::{ContainerContext, remember_last};
use crate::image::id_of_name;
use crate::logs::RunLog;
use crate::pod::handle::Group;
use crate::pod::status::whole_seconds;

/// How long a log may take to end after all of the group has: only a process that left the group keeps it open.
const LOG_GRACE: Duration = Duration::from_secs(1);

/// How a run ended.
pub(super) struct Ended {
    pub(super) exit_code: i32,
    pub(super) ran_for: Duration,
}

/// Runs the container once, to its end.
pub(super) async fn once(container: &ContainerContext, created: &Created, attempt: i32) -> Ended {
    let pod = &container.pod;
    let name = &container.spec.name;
    let hash = id_of_name(&format!("{}/{}/{name}/{attempt}", pod.uid, container.slot.init));
    let container_id = hash.replace("sha256:", "process://");
    let started_at = Time(whole_seconds(Timestamp::now()));
    let started = Instant::now();
    container.event(Severity::Normal, "Created", format!("Created container: {name}"));

    let spawned = match open_log(container, attempt) {
        Ok(log) => {
            let process = Process::start(&created.launch, &container.cx.config.leash).await;
            process.inspect_err(|_| log.close()).map(|process| (process, log))
        }
        Err(error) => Err(error),
    };
    let (mut process, log) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            let message = start_error(&created.launch, &error);
            container.event(Severity::Warning, "Failed", format!("Error: {message}"));
            let how = ContainerStateTerminated {
                exit_code: 128,
                reason: Some("StartError".into()),
                message: Some(message),
                container_id: Some(container_id),
                // The kubelet's way to say that it never started.
                started_at: Some(Time(Timestamp::UNIX_EPOCH)),
                finished_at: Some(started_at),
                ..ContainerStateTerminated::default()
            };
            terminate(container, created, attempt, how);
            return Ended { exit_code: 128, ran_for: Duration::ZERO };
        }
    };
    let output = copy_output(&mut process, &log);
    let out_of_memory = Arc::new(AtomicBool::new(false));
    let group = Group {
        pgid: process.pgid(),
        since: started,
        memory_limit_bytes: memory_limit(container),
        out_of_memory: out_of_memory.clone(),
    };
    pod.with_run(container.slot, |run| run.group = Some(group));
    let running = ContainerStateRunning { started_at: Some(started_at.clone()) };
    container.update(|status| {
        describe(status, created, attempt);
        remember_last(status);
        status.state = Some(ContainerState { running: Some(running), ..ContainerState::default() });
        status.container_id = Some(container_id.clone());
        status.started = Some(container.spec.startup_probe.is_none());
        status.ready = container.spec.startup_probe.is_none() && container.spec.readiness_probe.is_none();
    });
    container.event(Severity::Normal, "Started", format!("Started container {name}"));

    let exit_code = until_end(container, &mut process, &created.launch).await;
    let ran_for = started.elapsed();
    pod.with_run(container.slot, |run| run.group = None);
    drain(output).await;
    log.close();

    let reason = match exit_code {
        _ if out_of_memory.load(Ordering::Relaxed) => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    };
    let how = ContainerStateTerminated {
        exit_code,
        reason: Some(reason.into()),
        container_id: Some(container_id),
        started_at: Some(started_at),
        finished_at: Some(Time(whole_seconds(Timestamp::now()))),
        ..ContainerStateTerminated::default()
    };
    terminate(container, created, attempt, how);
    Ended { exit_code, ran_for }
}

fn memory_limit(container: &ContainerContext) -> Option<u64> {
    let limits = container.spec.resources.as_ref()?.limits.as_ref()?;
    limits.get("memory").and_then(|amount| quantity::whole(&amount.0))
}

fn describe(status: &mut ContainerStatus, created: &Created, attempt: i32) {
    status.image.clone_from(&created.image);
    status.image_id.clone_from(&created.image_id);
    status.restart_count = attempt;
}

fn terminate(container: &ContainerContext, created: &Created, attempt: i32, how: ContainerStateTerminated) {
    container.update(|status| {
        describe(status, created, attempt);
        remember_last(status);
        status.container_id.clone_from(&how.container_id);
        status.state = Some(ContainerState { terminated: Some(how), ..ContainerState::default() });
        status.ready = false;
        status.started = Some(false);
    });
}

fn start_error(launch: &Launch, error: &std::io::Error) -> String {
    let program = launch.argv.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    let cause = match error.kind() {
        std::io::ErrorKind::NotFound if !launch.dir.is_dir() => {
            format!("chdir to cwd ({:?}) failed: no such file or directory", launch.dir)
        }
        std::io::ErrorKind::NotFound if program.contains('/') => {
            format!("exec: {program:?}: stat {program}: no such file or directory")
        }
        std::io::ErrorKind::NotFound => format!("exec: {program:?}: executable file not found in $PATH"),
        std::io::ErrorKind::PermissionDenied => format!("exec: {program:?}: permission denied"),
        _ => format!("exec: {program:?}: {error}"),
    };
    format!("failed to create container task: unable to start container process: {cause}")
}

fn open_log(container: &ContainerContext, attempt: i32) -> std::io::Result<Arc<RunLog>> {
    let folder = container.pod.dir.join("logs").join(&container.spec.name);
    let log = RunLog::create(folder.join(format!("{attempt}.log")))?;
    let old = container.pod.with_run(container.slot, |run| {
        run.logs.push_back(log.clone());
        if run.logs.len() > 2 { run.logs.pop_front() } else { None }
    });
    if let Some(old) = old.flatten() {
        // Who reads it still has the file open.
        old.remove();
    }
    Ok(log)
}

fn copy_output(process: &mut Process, log: &Arc<RunLog>) -> JoinSet<()> {
    let mut copies = JoinSet::new();
    let (stdout, stderr) = process.take_output();
    if let Some(stdout) = stdout {
        let log = log.clone();
        copies.spawn(async move { copied(log.copy(stdout, "stdout").await) });
    }
    if let Some(stderr) = stderr {
        let log = log.clone();
        copies.spawn(async move { copied(log.copy(stderr, "stderr").await) });
    }
    copies
}

fn copied(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("keeping a container's log: {error}");
    }
}

async fn drain(mut copies: JoinSet<()>) {
    let all = async { while copies.join_next().await.is_some() {} };
    // What is not done by then ends with the set.
    let _ = tokio::time::timeout(LOG_GRACE, all).await;
}
