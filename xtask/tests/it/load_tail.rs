//! Where the time of a slow answer went, over runs that are written by hand: one for each mechanism. Take the evidence
//! away and the verdict must change.

use serde_json::{Value, json};
use xtask::explain::mechanism::Mechanism;
use xtask::explain::tail::Slow;
use xtask_load::record::{Outcome, Record};

use crate::load_explain::{ADDRESS, ID, POD, Run, access, at, ending, pod, record, seen};

/// The one slow answer of a run: due at `due`, sent at `sent` and over at `end`, in seconds.
fn slow(due: f64, sent: f64, end: f64) -> Record {
    let us = |seconds: f64| (seconds * 1e6) as u64;
    let record = record(ID, Outcome::Ok, Some(200), None);
    Record {
        due_us: us(due),
        sent_us: Some(us(sent)),
        end_us: us(end),
        served_by: Some(POD.into()),
        ..record
    }
}

/// The app's line on a request, with how long it took.
fn app(id: &str, when: f64, ms: f64) -> String {
    format!(
        "{} {}",
        at(when),
        json!({"request_id": id, "status": 200, "duration_ms": ms, "message": "request"})
    )
}

/// That answer, after a hundred that took 50 ms, of which 48 in the app.
fn run(record: Record) -> Run {
    let mut run = Run::of(record);
    for n in 0..100 {
        let id = format!("{n:032x}");
        let when = f64::from(n) / 20.0;
        let us = (when * 1e6) as u64;
        let usual = Record {
            id: id.clone(),
            due_us: us,
            sent_us: Some(us),
            end_us: us + 50_000,
            ..slow(0.0, 0.0, 0.0)
        };
        run.records.push(usual);
        run.ingress.push(("usual", access(&id, when + 0.05, 200, &format!("{ADDRESS} 73 0.050 200"))));
        run.app.push(("usual", app(&id, when + 0.05, 48.0)));
    }
    run
}

/// The proxy's line on it.
fn logged(mut run: Run, when: f64, lists: &str) -> Run {
    run.ingress.push(("access", access(ID, when, 200, lists)));
    run
}

fn told(mut run: Run, when: f64, ms: f64) -> Run {
    run.app.push(("app", app(ID, when, ms)));
    run
}

fn timing(run: Run, timing: &str) -> Run {
    let mut run = run;
    run.records[0].server_timing = Some(timing.to_owned());
    run
}

/// The run's one answer that is slow.
fn verdict(run: &Run) -> Slow {
    let answers = run.explained().slow.answers;
    assert_eq!(answers[0].verdict.record.id, ID);
    let parts = answers[0].parts;
    let sum = parts.unsent + parts.lost_tries + parts.pod.unwrap_or_default() + parts.way;
    assert!((sum - answers[0].ms()).abs() < 1e-6, "{parts:?}");
    answers[0].clone()
}

/// Every mechanism, a run that shows it, and the pieces without which the verdict is another.
fn runs() -> Vec<(Mechanism, Run, Vec<&'static str>)> {
    let one = |seconds: f64| format!("{ADDRESS} 73 {seconds:.3} 200");
    let retried = |seconds: &str, status: &str| {
        format!("{ADDRESS}, 10.0.0.8:8000 0, 73 {seconds}, 0.040 {status}, 200")
    };
    let mut no_pause = Run::pod();
    no_pause["spec"]["containers"][0]["lifecycle"] = Value::Null;
    let mut gone = ending(no_pause.clone(), 8.5, 30);
    (gone["at"], gone["gone"]) = (json!(at(9.0)), true.into());
    let lost = logged(run(slow(10.0, 10.0, 15.05)), 15.05, &retried("5.000", "504"))
        .pod_is(&no_pause)
        .and("told", ending(no_pause, 8.5, 30))
        .and("told", gone);
    let mut silent = logged(run(slow(10.0, 10.0, 70.05)), 70.05, &retried("60.000", "504"));
    silent.ingress.push((
        "complaint",
        format!(
            "{} 2026/01/02 03:05:15 [error] 35#35: *17 upstream timed out (110: Operation timed out) while \
             reading response header from upstream, upstream: \"http://{ADDRESS}/predict\", \
             host: \"app.local\"",
            at(70.0)
        ),
    ));
    let mut busy = logged(run(slow(8.0, 10.0, 10.05)), 10.05, &one(0.05));
    busy.plan = "at most 2 at a time";
    for n in 0..2 {
        let other = Record { id: format!("{n:x}").repeat(32), ..slow(7.0, 7.0, 9.0) };
        busy.records.push(other);
    }
    let mut late = logged(run(slow(9.0, 10.0, 10.05)), 10.05, &one(0.05));
    late.plan = "at most 2 at a time";
    let mut not_ready = pod(POD, "default", "10.0.0.7", 9.0);
    not_ready["status"]["conditions"][0]["status"] = "False".into();
    let slow_app = || told(logged(run(slow(10.0, 10.0, 10.9)), 10.9, &one(0.9)), 10.9, 890.0);
    let queued = logged(run(slow(10.0, 10.0, 10.9)), 10.9, &one(0.9));
    vec![
        (Mechanism::ShutdownRace, lost, vec!["access", "told"]),
        (Mechanism::UpstreamTimeout, silent, vec!["access", "complaint"]),
        (Mechanism::SendersBusy, busy, vec![]),
        (Mechanism::GeneratorLate, late, vec![]),
        (Mechanism::OnTheWay, logged(run(slow(10.0, 10.0, 11.0)), 11.0, &one(0.05)), vec!["access"]),
        (Mechanism::SlowApp, slow_app(), vec!["app"]),
        (
            Mechanism::SlowPod,
            told(logged(run(slow(10.0, 10.0, 10.9)), 10.9, &one(0.9)), 10.9, 48.0),
            vec!["access"],
        ),
        (
            Mechanism::ColdPod,
            slow_app().pod_is(&not_ready).and("ready", seen(9.5, &Run::pod())),
            vec!["access", "ready"],
        ),
        (
            Mechanism::Queued,
            timing(queued.clone(), "preprocess;dur=4, queue;dur=800.5, inference;dur=48"),
            vec![],
        ),
        (
            Mechanism::CpuThrottled,
            timing(queued, "preprocess;dur=4, queue;dur=0.1, throttled;dur=700, inference;dur=840"),
            vec![],
        ),
        (Mechanism::Unexplained, run(slow(10.0, 10.0, 11.0)), vec![]),
    ]
}

#[test]
fn every_slow_answer_has_its_cause_with_the_evidence_quoted() {
    for (mechanism, run, needed) in runs() {
        let slow = verdict(&run);
        let found = &slow.verdict;
        assert_eq!(found.mechanism, mechanism, "{slow:#?}");
        assert!(found.evidence.last().is_some_and(|line| line.starts_with("of ")), "{found:#?}");
        assert!(!found.is_unexplained() || found.missing[0].contains(ID), "{found:#?}");
        for tag in needed {
            let slow = verdict(&run.without(tag));
            assert_ne!(slow.verdict.mechanism, mechanism, "without {tag}: {slow:#?}");
        }
    }
}

#[test]
fn a_pod_that_was_gone_is_named_with_the_moment_it_went() {
    let (_, run, _) = runs().swap_remove(0);
    let slow = verdict(&run);
    assert_eq!(slow.verdict.pod.as_deref(), Some(POD));
    let gone = "pod app-7c9-aaaaa: gone from 03:04:14.000, 1.0 s before it was asked";
    assert!(slow.verdict.evidence.iter().any(|line| line == gone), "{slow:#?}");
    assert!((slow.parts.lost_tries - 5000.0).abs() < 1e-9);
}
