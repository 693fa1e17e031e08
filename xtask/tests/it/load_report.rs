//! The report of a run: nothing in it runs that a server or a cluster said, nothing is fetched, and it stays small.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use xtask::record::meta::{self, End, Judged, Mark, Meta};
use xtask::record::run::{Asked, Environment};
use xtask::report;
use xtask_load::record::{Outcome, Record};
use xtask_load::tally::{Buckets, Latency};

const HOSTILE: &str = "</script></style></title>--><script>document.documentElement.dataset.ran=1</script>\"'`>\
    <img src=http://127.0.0.1:9/x onerror=document.documentElement.dataset.ran=1>\
    <svg onload=document.documentElement.dataset.ran=1>{{7*7}}&\u{2028}\u{202e}";

/// A run of `requests`, each hundredth of which failed with hostile words.
fn run(dir: &Path, requests: u64) {
    let mut file =
        std::fs::File::create(dir.join("records.jsonl")).map(std::io::BufWriter::new).expect("a file");
    for n in 0..requests {
        let failed = n % 100 == 7;
        let record = Record {
            n,
            id: format!("{n:032x}"),
            outcome: if failed { Outcome::SocketError } else { Outcome::Ok },
            due_us: n * 1000,
            sent_us: Some(n * 1000),
            end_us: n * 1000 + 20_000 + n % 977,
            status: None,
            served_by: None,
            server_timing: None,
            error: failed.then(|| HOSTILE.to_owned()),
        };
        writeln!(file, "{}", serde_json::to_string(&record).expect("json")).expect("writing");
    }
    let began = "2026-01-02T03:04:05Z".parse().expect("a time");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": HOSTILE, "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": HOSTILE}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    let seen = json!({"at": began, "kind": "Pod", "object": pod});
    std::fs::write(dir.join("timeline.jsonl"), format!("{seen}\n")).expect("writing");
    let failed = requests / 100;
    let latency =
        Latency { min: 20.0, mean: 20.5, p50: 20.5, p90: 20.9, p95: 20.9, p99: 21.0, p999: 21.0, max: 21.0 };
    let end = End {
        scheduled: requests,
        buckets: Buckets { ok: requests - failed, socket_error: failed, ..Buckets::default() },
        latency_ms: Some(latency),
        sent_latency_ms: Some(latency),
        lag_ms: Latency::default(),
        seconds: requests as f64 / 1000.0,
        own_cpu: 0.1,
        gaps: vec![HOSTILE.to_owned()],
        thresholds: vec![Judged {
            threshold: HOSTILE.into(),
            value: Some(10.0),
            unit: HOSTILE.into(),
            met: false,
        }],
        invalid: None,
        interrupted: false,
        files: [(HOSTILE.to_owned(), 1)].into(),
    };
    let meta = Meta {
        began,
        entry: HOSTILE.into(),
        host: HOSTILE.into(),
        request: HOSTILE.into(),
        namespace: HOSTILE.into(),
        plan: HOSTILE.into(),
        without: Some(HOSTILE.into()),
        marks: vec![Mark { at: began, what: HOSTILE.into() }],
        end: Some(end.clone()),
    };
    std::fs::write(dir.join(meta::FILE), serde_json::to_vec(&meta).expect("json")).expect("writing");
    events(dir);
}

/// What the steps of a run and its environment said, all of it hostile.
fn events(dir: &Path) {
    let asked = Asked {
        command: HOSTILE.into(),
        line: HOSTILE.into(),
        began: "2026-01-02T03:04:00Z".parse().expect("a time"),
        environment: Environment {
            nodes: Some(HOSTILE.into()),
            weights: Some(HOSTILE.into()),
            ..Environment::default()
        },
        gaps: vec![HOSTILE.into()],
        files: None,
    };
    asked.write(dir).expect("writing");
    let event = |kind: &str, state: &str, at: f64| {
        json!({
            "event": kind, "name": HOSTILE, "state": state, "detail": HOSTILE, "at_seconds": at,
            "seconds": at,
        })
    };
    let evidence = json!([[HOSTILE, [HOSTILE]]]);
    let lines = [
        event("gate", "start", 0.0),
        event("gate", "wait", 0.5),
        event("warning", "wait", 0.6),
        event("gate", "failed", 1.0),
        json!({
            "event": "summary", "exit_code": 30, "error": format!("{HOSTILE}\n{HOSTILE}"), "hint": HOSTILE,
            "evidence": evidence, "critical_path": [HOSTILE],
        }),
    ];
    let text = lines.map(|line| line.to_string()).join("\n");
    std::fs::write(dir.join("events.jsonl"), text).expect("writing");
}

fn page(requests: u64) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    run(dir.path(), requests);
    drawn(dir.path())
}

fn drawn(dir: &Path) -> String {
    let path = report::write(dir, None).expect("a page");
    assert_eq!(path, dir.join("report.html"));
    std::fs::read_to_string(path).expect("reading it")
}

#[test]
fn what_others_said_is_text_and_nothing_is_fetched() {
    let page = page(1000);
    // Its own two scripts.
    harmless(&page, 2);
    // What it is for. That something failed beside the load is said first.
    for part in [
        "✗ gate ",
        "10 of 1000 requests failed",
        "Content-Security-Policy",
        "path class=\"p99\"",
        "class=\"ready\"",
        "UNEXPLAINED",
        "Shown again by",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

/// A run that is no load's, all that its steps said being hostile.
#[test]
fn what_a_step_said_is_text_too() {
    let dir = tempfile::tempdir().expect("a folder");
    events(dir.path());
    let page = drawn(dir.path());
    harmless(&page, 1);
    for part in
        ["What went wrong", "Steps and gates", "Environment", "What it waited for (1)", "Copy as Markdown"]
    {
        assert!(page.contains(part), "{part}");
    }
}

/// What others said is text, and nothing is fetched.
#[track_caller]
fn harmless(page: &str, scripts: usize) {
    assert!(!page.contains("<img") && !page.contains("<script>doc"), "{page}");
    assert!(page.matches("&lt;img src=http://127.0.0.1:9").count() > 8);
    assert_eq!(page.matches("<script").count(), scripts);
    // No address of anything.
    for fetching in ["src=\"", "href=", "url(", "@import", "fetch(", "<link", "<iframe"] {
        assert!(!page.contains(fetching), "{fetching}");
    }
    balanced(page);
}

#[test]
fn it_does_not_grow_with_the_run() {
    let (short, long) = (page(2_000).len(), page(100_000).len());
    assert!(long < 150_000 && long < short * 2, "{short} and {long} bytes");
}

/// Every element that is opened is closed, in order.
fn balanced(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let tag = &rest[start + 1..];
        let end = tag.find('>').expect("a tag that ends");
        let name = tag[..end].split_whitespace().next().unwrap_or_default();
        rest = &tag[end + 1..];
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "before {}", &rest[..rest.len().min(80)]),
            None if name.starts_with('!') || name == "meta" => {}
            None => {
                open.push(name);
                // What stands in these is no markup.
                if name == "script" || name == "style" {
                    rest = &rest[rest.find(&format!("</{name}")).expect("its end")..];
                }
            }
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}
