//! Load runs that were recorded on minikube with ingress-nginx, explained again. Their logs are thinned out: requests
//! that were answered at once are told by every twentieth line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use xtask::explain::mechanism::Mechanism;
use xtask::explain::{explain_run, explain_run_over, text};

use crate::world::World;

fn run(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runs").join(name)
}

#[test]
fn a_controller_that_has_not_synced_is_not_a_service_without_pods() {
    let explained = explain_run(&run("ingress-restart")).expect("a run");
    let verdicts = &explained.failures;
    let count = |mechanism| verdicts.iter().filter(|verdict| verdict.mechanism == mechanism).count();
    assert_eq!(
        (count(Mechanism::ControllerNotSynced), count(Mechanism::NeverReachedProxy), verdicts.len()),
        (98, 110, 208)
    );
    insta::assert_snapshot!("ingress_restart", text(&explained));
}

#[test]
fn without_a_pre_stop_the_pods_end_is_the_cause_of_failures_and_of_slow_answers() {
    let explained = explain_run(&run("without-pre-stop")).expect("a run");
    let slow = &explained.slow;
    assert_eq!((explained.failures.len(), slow.count, slow.answers.len(), slow.of), (1, 81, 81, 1249));
    assert!(slow.answers.iter().all(|slow| slow.verdict.mechanism == Mechanism::ShutdownRace));
    assert!(slow.answers.iter().all(|slow| slow.parts.lost_tries >= 5000.0));
    let text = text(&explained);
    assert!(text.contains("slow: 81 of 1249 answers took 500 ms or more"), "{text}");
    insta::assert_snapshot!("without_pre_stop_slow", slow.text());
}

#[test]
fn each_slow_answer_has_one_cause_and_its_time_adds_up() {
    for name in ["without-pre-stop", "ingress-restart"] {
        // All answers, not only the slowest.
        let explained = explain_run_over(&run(name), Some(Duration::ZERO)).expect("a run");
        let slow = &explained.slow;
        assert_eq!((slow.count, slow.answers.len()), (slow.of, slow.of), "{name}");
        let in_groups: usize = slow.groups().iter().map(|group| group.answers.len()).sum();
        assert_eq!(in_groups, slow.of, "{name}");
        for answer in &slow.answers {
            let parts = answer.parts;
            let sum = parts.unsent + parts.lost_tries + parts.pod.unwrap_or_default() + parts.way;
            assert!((sum - answer.ms()).abs() < 1e-6 && parts.way >= 0.0, "{name}: {answer:#?}");
            let verdict = &answer.verdict;
            assert!(!verdict.is_unexplained() || !verdict.missing.is_empty(), "{name}: {verdict:#?}");
        }
    }
}

#[test]
fn a_run_whose_records_are_not_whole_is_never_called_clean() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("records.jsonl holds 0 of 800", |dir| {
            std::fs::write(dir.join("records.jsonl"), "").expect("writing");
        }),
        ("the requests: reading", |dir| std::fs::remove_file(dir.join("records.jsonl")).expect("removing")),
        ("records.jsonl holds", |dir| {
            let text = std::fs::read(dir.join("records.jsonl")).expect("reading");
            std::fs::write(dir.join("records.jsonl"), &text[..text.len() / 2]).expect("writing");
        }),
        ("are damaged", |dir| {
            let text = std::fs::read_to_string(dir.join("records.jsonl")).expect("reading");
            std::fs::write(dir.join("records.jsonl"), text.replacen("{\"n\":7,", "\0\0\0\0,", 1))
                .expect("writing");
        }),
        ("timeline.jsonl", |dir| std::fs::remove_file(dir.join("timeline.jsonl")).expect("removing")),
    ];
    for (missing, damage) in damages {
        let dir = tempfile::tempdir().expect("a folder");
        for file in ["load.json", "records.jsonl", "timeline.jsonl"] {
            std::fs::copy(run("ingress-restart").join(file), dir.path().join(file)).expect("copying");
        }
        assert_eq!(explain_run(dir.path()).expect("a run").missing, Vec::<String>::new());
        damage(dir.path());
        let explained = explain_run(dir.path()).expect("a run");
        assert!(
            explained.missing.iter().any(|what| what.contains(missing)),
            "{missing}: {:?}",
            explained.missing
        );
        assert!(!text(&explained).contains("no request failed"), "{missing}");
    }
}

#[test]
fn explain_ends_with_an_error_for_a_damaged_run_and_takes_a_request_alone() {
    let world = World::sandbox();
    let whole = run("ingress-restart").display().to_string();
    let ran = world.run_ok(&["explain", &whole]);
    assert!(ran.stdout.starts_with("✗ failed: 208 of 800 requests"), "{}", ran.stdout);
    // A threshold, or none; a run where a threshold could be; and a request that was as good as any.
    let late = run("without-pre-stop").display().to_string();
    for args in [
        &["explain", "--slow", "500ms", &*late][..],
        &["explain", &late, "--slow"],
        &["explain", "--slow", &late],
    ] {
        let ran = world.run_ok(args);
        assert!(
            ran.stdout.starts_with("slow: 81 of 1249 answers took 500 ms or more"),
            "{args:?}: {}",
            ran.stdout
        );
    }
    let slow = &world.run_ok(&["explain", "--slow", "4s", &late, "--output", "json"]).summary()["slow"];
    assert_eq!(
        (&slow["count"], &slow["groups"][0]["mechanism"]),
        (&81.into(), &"shutdown-race".into()),
        "{slow}"
    );
    assert_eq!(slow["answers"].as_array().map(Vec::len), Some(81));
    let any = world.run_ok(&["explain", "--slow", "0s", &late, "88ebd358"]).stdout;
    assert!(any.starts_with("1 × ") && any.contains("88ebd3580e5740708bae0ae0265b3d12"), "{any}");

    let dir = tempfile::tempdir().expect("a folder");
    std::fs::copy(run("ingress-restart").join("load.json"), dir.path().join("load.json")).expect("copying");
    std::fs::write(dir.path().join("records.jsonl"), "").expect("writing");
    let ran = world.run(&["explain", &dir.path().display().to_string(), "--output", "json"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    let summary = ran.summary();
    assert!(summary["missing"].to_string().contains("holds 0 of 800"), "{summary}");

    // One word is a request of the newest run, where it is no run's name.
    let target = tempfile::tempdir().expect("a folder");
    let newest = target.path().join("xtask/runs/20260102-030405-load-1");
    std::fs::create_dir_all(&newest).expect("a folder");
    for file in ["load.json", "records.jsonl", "timeline.jsonl"] {
        std::fs::copy(run("ingress-restart").join(file), newest.join(file)).expect("copying");
    }
    std::os::unix::fs::symlink(run("ingress-restart").join("logs"), newest.join("logs")).expect("linking");
    let mut world = World::sandbox();
    world.set("CARGO_TARGET_DIR", target.path().display());
    let ran = world.run_ok(&["explain", "995336a3"]);
    assert!(
        ran.stdout.contains("had not synced yet") && ran.stdout.contains("995336a3c97f46edaf1b4ac72dcf0e91")
    );
}

#[test]
fn a_loads_page_has_its_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("without-pre-stop");
    std::fs::create_dir(&dir).expect("a folder");
    for file in ["load.json", "records.jsonl", "timeline.jsonl"] {
        std::fs::copy(run("without-pre-stop").join(file), dir.join(file)).expect("copying");
    }
    std::os::unix::fs::symlink(run("without-pre-stop").join("logs"), dir.join("logs")).expect("linking");
    let page = xtask::report::write(&dir, None).expect("a page");
    let page = std::fs::read_to_string(page).expect("reading");
    insta::assert_snapshot!("without_pre_stop_report", read_aloud(&page));
}

/// A page's text: a line for each block, without what is drawn.
fn read_aloud(page: &str) -> String {
    const BLOCKS: [&str; 12] =
        ["p", "div", "section", "h1", "h2", "h3", "table", "tr", "ul", "li", "details", "summary"];
    let (mut text, mut rest) = (String::new(), page);
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        let name = tag.trim_start_matches('/').split([' ', '>', '\n']).next().unwrap_or_default();
        text.push(if BLOCKS.contains(&name) { '\n' } else { ' ' });
        let end = match name {
            "script" | "style" | "svg" if !tag.starts_with('/') => format!("</{name}>"),
            _ => ">".to_owned(),
        };
        rest = tag.split_once(end.as_str()).map_or("", |(_, rest)| rest);
    }
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}
