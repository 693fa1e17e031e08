//! `compare` over runs that are written by hand, and a load that is held against a baseline.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use xtask_load::record::{Outcome, Record};

use crate::world::World;

/// A run of requests that take 60 to 100 ms, times `factor`; of each thousand, `failed` fail.
fn run(runs: &Path, name: &str, requests: u64, factor: f64, failed: u64) -> PathBuf {
    let dir = runs.join(name);
    std::fs::create_dir_all(&dir).expect("a folder");
    let mut file =
        std::fs::File::create(dir.join("records.jsonl")).map(std::io::BufWriter::new).expect("a file");
    let mut failures = 0;
    for n in 0..requests {
        let is_ok = n % 1000 >= failed;
        failures += u64::from(!is_ok);
        // Every latency comes as often as any other, in no order.
        let us = (60_000.0 + (n * 7919 % 40_000) as f64) * factor;
        let record = Record {
            n,
            id: format!("{n:032x}"),
            outcome: if is_ok { Outcome::Ok } else { Outcome::HttpError },
            due_us: n * 1000,
            sent_us: Some(n * 1000),
            end_us: n * 1000 + us as u64,
            status: Some(if is_ok { 200 } else { 502 }),
            served_by: None,
            server_timing: None,
            error: None,
        };
        writeln!(file, "{}", json!(record)).expect("writing");
    }
    let ms = |share: f64| (60.0 + 40.0 * share) * factor;
    let latency = json!({"min": ms(0.0), "mean": ms(0.5), "p50": ms(0.5), "p90": ms(0.9), "p95": ms(0.95),
        "p99": ms(0.99),
        "p99.9": ms(0.999), "max": ms(1.0)});
    let meta = json!({
        "began": "2026-01-02T03:04:05Z", "entry": "http://127.0.0.1:8080", "host": "app.local",
        "namespace": "default",
        "request": "POST /predict", "plan": format!("{requests} requests, 10 at a time"),
        "end": {
            "scheduled": requests,
            "buckets": {"ok": requests - failures, "http_error": failures, "socket_error": 0,
            "timeout": 0, "dropped": 0, "unsent": 0},
            "latency_ms": latency, "sent_latency_ms": latency, "lag_ms": latency, "seconds": 10.0,
            "own_cpu": 0.1, "gaps": [],
        },
    });
    std::fs::write(dir.join("load.json"), meta.to_string()).expect("writing");
    dir
}

#[test]
fn a_run_is_worse_only_beyond_chance() {
    let dir = tempfile::tempdir().expect("a folder");
    let of = |name: &str, requests, factor, failed| {
        run(dir.path(), name, requests, factor, failed).display().to_string()
    };
    let base = of("base", 4000, 1.0, 0);
    let world = World::sandbox();
    let mut text = String::new();
    for (run, code) in [
        (of("again", 3999, 1.01, 0), 0),
        (of("slower", 4000, 1.1, 0), 40),
        (of("faster", 4000, 0.8, 0), 0),
        (of("failing", 4000, 1.0, 20), 40),
        (of("short", 30, 1.3, 0), 0),
    ] {
        let ran = world.run(&["compare", &base, &run]);
        assert_eq!(ran.code, code, "{run}: {}{}", ran.stdout, ran.stderr);
        let said = ran.stderr.replace(&format!("{}/", dir.path().display()), "");
        text.push_str(&format!("{}{said}\n", ran.stdout));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_can_t_be_compared_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = run(dir.path(), "base", 100, 1.0, 0);
    let world = World::sandbox();
    let said = |run: &Path, code: i32| {
        let ran = world.run(&["compare", &base.display().to_string(), &run.display().to_string()]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        ran.stderr
    };
    assert!(said(&dir.path().join("none"), 2).contains("there is no load run"));
    let lost = run(dir.path(), "lost", 100, 1.0, 0);
    std::fs::write(lost.join("records.jsonl"), "").expect("writing");
    assert!(said(&lost, 20).contains("holds 0 of 100 answers"));
    let edit = |name: &str, edit: &dyn Fn(&mut serde_json::Value)| {
        let dir = run(dir.path(), name, 100, 1.0, 0);
        let text = std::fs::read(dir.join("load.json")).expect("reading");
        let mut meta = serde_json::from_slice(&text).expect("json");
        edit(&mut meta);
        std::fs::write(dir.join("load.json"), meta.to_string()).expect("writing");
        dir
    };
    assert!(said(&edit("killed", &|meta| meta["end"] = json!(null)), 20).contains("has no end"));
    let invalid = edit("invalid", &|meta| meta["end"]["invalid"] = json!("the generator was late"));
    assert!(
        said(&invalid, 41).contains("is invalid, and says nothing about the server: the generator was late")
    );
    let other = edit("other", &|meta| meta["request"] = json!("GET /health"));
    assert!(
        said(&other, 0).contains("warning: the runs differ in their request: POST /predict; GET /health")
    );
}
