//! The built service as its clients see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::service::{Service, client, command, model_dir};
use crate::{EngineEnv, percentile, within};

/// 640 x 480, 4:2:0, as a camera writes it.
pub(crate) const PHOTO: &[u8] = include_bytes!("../../goldens/pictures/jpeg-420.jpg");

fn env(engine: &EngineEnv) -> Vec<(&str, &str)> {
    engine.1.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// From the start of the process to the first `/health` 200; the model file is in the page cache.
pub(crate) async fn start(engines: &[EngineEnv]) -> bool {
    let mut good = true;
    for engine in engines {
        let mut times = vec![];
        for round in 0..10 {
            // The port must be known before the process says it.
            let port =
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
            let mut env = env(engine);
            env.push(("PORT", &port));
            let url = format!("http://127.0.0.1:{port}/health");
            let start = Instant::now();
            let mut child = command(&model_dir(), &env).stdout(std::process::Stdio::null()).spawn().unwrap();
            let client = client();
            while !client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // The first brings the files into the cache.
            if round > 0 {
                times.push(ms(start));
            }
            child.kill().await.unwrap();
        }
        println!(
            "{}: best {:.0} ms, worst {:.0} ms",
            engine.0,
            percentile(&times, 0.0),
            percentile(&times, 100.0)
        );
        good &= within(
            &format!("{}: start to /health 200, p50", engine.0),
            percentile(&times, 50.0),
            500.0,
            "ms",
        );
    }
    good
}

/// What a request takes beyond the forward pass that its answer names.
pub(crate) async fn overhead(engines: &[EngineEnv]) -> bool {
    let mut good = true;
    for engine in engines {
        let service = Service::ready(&env(engine)).await;
        let mut beyond = vec![];
        for _ in 0..100 {
            let start = Instant::now();
            let answer = service.post_raw("image/jpeg", PHOTO).await;
            let timing = answer.headers()["server-timing"].to_str().unwrap().to_owned();
            answer.bytes().await.unwrap();
            let total = ms(start);
            let forward: f64 = timing.rsplit_once("inference;dur=").unwrap().1.parse().unwrap();
            beyond.push(total - forward);
        }
        println!("{}: p99 {:.2} ms", engine.0, percentile(&beyond, 99.0));
        let what = format!("{}: request beyond forward, 640x480 JPEG, p50", engine.0);
        good &= within(&what, percentile(&beyond, 50.0), 4.0, "ms");
    }
    good
}

/// Closed loops: each client sends its next request when it has the answer, and comes back when it is told to.
pub(crate) async fn throughput(engines: &[EngineEnv]) -> bool {
    println!(
        "{:12} {:>8} {:>8} {:>7} {:>9} {:>9} {:>8}",
        "engine", "at once", "ok/s", "429", "p50 ms", "p99 ms", "RSS MB"
    );
    for engine in engines {
        let service = Arc::new(Service::ready(&env(engine)).await);
        for clients in [1, 4, 10, 64] {
            let (start, end) = (Instant::now(), Instant::now() + Duration::from_secs(10));
            let mut tasks = JoinSet::new();
            for _ in 0..clients {
                let service = service.clone();
                tasks.spawn(async move {
                    let (mut times, mut refused) = (vec![], 0);
                    while Instant::now() < end {
                        let sent = Instant::now();
                        let answer = service.post_raw("image/jpeg", PHOTO).await;
                        match answer.status().as_u16() {
                            200 => times.push(ms(sent)),
                            429 => {
                                refused += 1;
                                tokio::time::sleep(Duration::from_secs(1)).await;
                            }
                            other => panic!("{other}"),
                        }
                    }
                    (times, refused)
                });
            }
            let (mut times, mut refused) = (vec![], 0);
            for (own, own_refused) in tasks.join_all().await {
                times.extend(own);
                refused += own_refused;
            }
            let per_second = times.len() as f64 / start.elapsed().as_secs_f64();
            println!(
                "{:12} {clients:>8} {per_second:>8.1} {refused:>7} {:>9.1} {:>9.1} {:>8.1}",
                engine.0,
                percentile(&times, 50.0),
                percentile(&times, 99.0),
                rss_mb(&service)
            );
        }
    }
    true
}

/// After 500 requests, ten at a time.
pub(crate) async fn rss(engines: &[EngineEnv]) -> bool {
    let mut good = true;
    for engine in engines {
        let service = Arc::new(Service::ready(&env(engine)).await);
        let before = rss_mb(&service);
        let mut tasks = JoinSet::new();
        for _ in 0..10 {
            let service = service.clone();
            tasks.spawn(async move {
                for _ in 0..50 {
                    assert_eq!(service.post_raw("image/jpeg", PHOTO).await.status(), 200);
                }
            });
        }
        tasks.join_all().await;
        println!("{}: {before:.1} MB when ready", engine.0);
        let limit = if engine.0 == "rten" { 160.0 } else { 300.0 };
        good &= within(&format!("{}: RSS after 500 requests", engine.0), rss_mb(&service), limit, "MB");
    }
    good
}

/// Resident memory of the service, in 10^6 bytes.
pub(crate) fn rss_mb(service: &Service) -> f64 {
    let output = std::process::Command::new("ps")
        .args(["-o", "rss=", "-p", &service.pid().to_string()])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse::<f64>().unwrap() * 1024.0 / 1e6
}
