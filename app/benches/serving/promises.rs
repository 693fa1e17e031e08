//! What holds under any load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::JoinSet;

use crate::load::{PHOTO, rss_mb};
use crate::service::{HEALTHY, Service, command, model_dir};
use crate::terminate::{Round, terminate_under_load};
use crate::{percentile, within};

const CLIENTS: usize = 64;
const OVERLOAD: Duration = Duration::from_secs(60);
const ROUNDS: usize = 100;

/// 64 clients that never wait, on one CPU where the system can pin a process to it.
pub(crate) async fn overload() -> bool {
    let service =
        Arc::new(Service::launch(on_one_cpu(&command(&model_dir(), &[("MODEL_THREADS", "1")]))).await);
    service.logged("ready").await;
    let end = Instant::now() + OVERLOAD;
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let service = service.clone();
        tasks.spawn(async move {
            let (mut statuses, mut refusals) = (BTreeMap::new(), vec![]);
            while Instant::now() < end {
                let sent = Instant::now();
                let status = service.post_raw("image/jpeg", PHOTO).await.status().as_u16();
                *statuses.entry(status).or_insert(0) += 1;
                if status == 429 {
                    refusals.push(sent.elapsed().as_secs_f64() * 1e3);
                }
            }
            (statuses, refusals)
        });
    }
    let (mut health, mut memory) = (vec![], vec![]);
    while Instant::now() < end {
        let sent = Instant::now();
        let answer = service.get("/health").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), HEALTHY);
        health.push(sent.elapsed().as_secs_f64() * 1e3);
        memory.push(rss_mb(&service));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (mut statuses, mut refusals) = (BTreeMap::<u16, usize>::new(), vec![]);
    for (own, own_refusals) in tasks.join_all().await {
        own.into_iter().for_each(|(status, count)| *statuses.entry(status).or_default() += count);
        refusals.extend(own_refusals);
    }
    println!("answers by status: {statuses:?}");
    println!(
        "429 after: p50 {:.2} ms, p99 {:.2} ms",
        percentile(&refusals, 50.0),
        percentile(&refusals, 99.0)
    );
    println!("/health: p50 {:.2} ms, max {:.2} ms", percentile(&health, 50.0), percentile(&health, 100.0));
    // The first tenth lets the allocator find its size.
    let (early, late) = memory.split_at(memory.len() / 2);
    let (early, late) = (percentile(&early[early.len() / 5..], 50.0), percentile(late, 50.0));
    println!("RSS: {early:.1} MB in the first half, {late:.1} MB in the second");
    let others = statuses.keys().filter(|status| !matches!(status, 200 | 429)).count();
    let all = [
        within("answers other than 200 and 429", others as f64, 0.0, "kinds"),
        within("/health p99", percentile(&health, 99.0), 20.0, "ms"),
        within("growth of RSS", (late - early).max(0.0), 5.0, "MB"),
    ];
    all.into_iter().all(|good| good)
}

fn on_one_cpu(plain: &Command) -> Command {
    let plain = plain.as_std();
    let mut pinned = if cfg!(target_os = "linux") {
        let mut taskset = Command::new("taskset");
        taskset.args(["--cpu-list", "0"]).arg(plain.get_program());
        taskset
    } else {
        println!("not pinned to one CPU: only Linux can");
        Command::new(plain.get_program())
    };
    pinned
        .env_clear()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true);
    for (name, value) in plain.get_envs() {
        pinned.env(name, value.unwrap_or_default());
    }
    pinned
}

/// SIGTERM while eight clients send, a hundred times.
pub(crate) async fn drain() -> bool {
    let mut total = Round::default();
    let mut bad_exits = 0;
    for _ in 0..ROUNDS {
        let round = terminate_under_load(8, 8).await;
        total.ok += round.ok;
        total.refused += round.refused;
        total.unreachable += round.unreachable;
        total.lost.extend(round.lost);
        bad_exits += usize::from(round.exit_code != Some(0));
    }
    println!(
        "{ROUNDS} signals: {} answered, {} refused (503), {} not connected",
        total.ok, total.refused, total.unreachable
    );
    total.lost.iter().for_each(|lost| println!("lost: {lost}"));
    within("accepted and lost", total.lost.len() as f64, 0.0, "requests")
        & within("exits other than 0", bad_exits as f64, 0.0, "processes")
}
