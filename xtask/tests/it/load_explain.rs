//! The explainer over runs that are written by hand: one for each mechanism. Take the evidence away and the verdict
//! must change; add what belongs to other requests and it must not.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use xtask::explain::mechanism::Mechanism;
use xtask::explain::{Explained, Verdict, explain_run};
use xtask::record::meta::{self, Meta};
use xtask_load::record::{Outcome, Record};

pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const POD: &str = "app-7c9-aaaaa";
pub(crate) const ADDRESS: &str = "10.0.0.7:8000";

/// A run in the making: each piece carries a tag by which a test can leave it out.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) plan: &'static str,
    pub(crate) records: Vec<Record>,
    pub(crate) ingress: Vec<(&'static str, String)>,
    pub(crate) app: Vec<(&'static str, String)>,
    timeline: Vec<(&'static str, Value)>,
}

/// Seconds after the run's beginning, on the wall.
pub(crate) fn at(seconds: f64) -> Timestamp {
    let began: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a time");
    began + SignedDuration::from_micros((seconds * 1e6) as i64)
}

/// The same as Kubernetes writes it, in whole seconds.
fn whole(seconds: f64) -> String {
    at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn record(id: &str, outcome: Outcome, status: Option<u16>, error: Option<&str>) -> Record {
    Record {
        n: 0,
        id: id.to_owned(),
        outcome,
        due_us: 10_000_000,
        sent_us: Some(10_000_000),
        end_us: 10_050_000,
        status,
        served_by: None,
        server_timing: None,
        error: error.map(str::to_owned),
    }
}

/// An access line; `lists` are the four upstream columns.
pub(crate) fn access(id: &str, when: f64, status: u16, lists: &str) -> String {
    format!(
        "{} 127.0.0.1 - - [02/Jan/2026:03:04:15 +0000] \"POST /predict HTTP/1.1\" {status} 150 \"-\" \
         \"xtask-load/0.1.0\" \
         90000 0.050 [default-app-http] [] {lists} {id}",
        at(when)
    )
}

/// An app line, as the node hands it on.
fn app(id: &str, status: u16, code: &str) -> String {
    let line = json!({"level": "WARN", "request_id": id, "status": status, "error_code": code,
        "message": "request"});
    format!("{} {line}", at(10.04))
}

/// A pod whose container has run since `since`, with all probes and a preStop.
pub(crate) fn pod(name: &str, namespace: &str, ip: &str, since: f64) -> Value {
    let probe = json!({"httpGet": {"path": "/health", "port": 8000}});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"),
        "creationTimestamp": whole(since)},
        "spec": {"containers": [{
            "name": "app",
            "startupProbe": probe,
            "readinessProbe": probe,
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "resources": {"limits": {"memory": "1536Mi"}},
        }]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "app", "image": "app", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": whole(since)}},
            }],
        },
    })
}

pub(crate) fn seen(when: f64, object: &Value) -> Value {
    json!({"at": at(when), "kind": object["kind"], "object": object})
}

/// The pod, told to end `when`.
pub(crate) fn ending(mut pod: Value, when: f64, grace: i64) -> Value {
    pod["metadata"]["deletionTimestamp"] = whole(when + grace as f64).into();
    pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    seen(when, &pod)
}

/// The pod, its container ended and started again.
fn restarted(mut pod: Value, ended: f64, code: i32, reason: &str) -> Value {
    let status = &mut pod["status"]["containerStatuses"][0];
    status["restartCount"] = 1.into();
    status["lastState"] = json!({"terminated": {
        "exitCode": code, "reason": reason, "startedAt": whole(-500.0), "finishedAt": whole(ended),
    }});
    status["state"] = json!({"running": {"startedAt": whole(ended + 2.0)}});
    seen(ended + 1.5, &pod)
}

fn endpoints(when: f64, ready: bool) -> Value {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {"name": "app-1", "namespace": "default"},
        "ports": [{"port": 8000, "name": "http"}],
        "endpoints": [{
            "addresses": ["10.0.0.7"],
            "conditions": {"ready": ready, "terminating": !ready},
            "targetRef": {"kind": "Pod", "name": POD, "uid": format!("uid-{POD}")},
        }],
    });
    seen(when, &slice)
}

fn event(when: f64, reason: &str, message: &str) -> Value {
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("e{when}"), "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": POD},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "lastTimestamp": whole(when),
    });
    seen(when, &event)
}

impl Run {
    /// One failed request; one pod of the app and the ingress controller, both well for a long time.
    pub(crate) fn of(record: Record) -> Run {
        let controller = pod("controller-1", "ingress-nginx", "10.0.0.2", -600.0);
        Run {
            plan: "",
            records: vec![record],
            ingress: Vec::new(),
            app: Vec::new(),
            timeline: vec![
                ("controller", seen(-1.0, &controller)),
                ("pod", seen(-1.0, &Run::pod())),
                ("endpoints", endpoints(-1.0, true)),
            ],
        }
    }

    pub(crate) fn pod() -> Value {
        pod(POD, "default", "10.0.0.7", -600.0)
    }

    fn http(status: u16, lists: &str) -> Run {
        let mut run = Run::of(record(ID, Outcome::HttpError, Some(status), Some("<html>")));
        run.ingress.push(("access", access(ID, 10.05, status, lists)));
        run
    }

    /// 502: refused three times.
    fn refused() -> Run {
        let all = |one: &str| [one; 3].join(", ");
        Run::http(502, &format!("{} {} {} {}", all(ADDRESS), all("0"), all("0.000"), all("502")))
    }

    /// 502: sent, then the connection ended.
    fn dropped() -> Run {
        Run::http(502, &format!("{ADDRESS} 0 0.040 502"))
    }

    fn app(mut self, line: String) -> Run {
        self.app.push(("app", line));
        self
    }

    pub(crate) fn and(mut self, tag: &'static str, seen: Value) -> Run {
        self.timeline.push((tag, seen));
        self
    }

    /// What was known of the pod is replaced.
    pub(crate) fn pod_is(mut self, pod: &Value) -> Run {
        self.timeline.retain(|(tag, _)| *tag != "pod");
        self.and("pod", seen(-1.0, pod))
    }

    pub(crate) fn without(&self, tag: &str) -> Run {
        let mut run = self.clone();
        run.ingress.retain(|(t, _)| *t != tag);
        run.app.retain(|(t, _)| *t != tag);
        run.timeline.retain(|(t, _)| *t != tag);
        run
    }

    /// Many other requests, pods and endings that have nothing to do with it.
    fn with_noise(&self) -> Run {
        let mut run = self.clone();
        for n in 0..500 {
            let id = format!("{n:032x}");
            let when = 9.0 + f64::from(n) / 250.0;
            run.records.push(match n % 3 {
                0 => record(&id, Outcome::Ok, Some(200), None),
                1 => record(&id, Outcome::HttpError, Some(502), Some("x")),
                _ => record(&id, Outcome::HttpError, Some(500), Some("x")),
            });
            let status = [200, 502, 500][n as usize % 3];
            run.ingress
                .push(("noise", access(&id, when, status, &format!("10.0.9.9:8000 0 0.001 {status}"))));
            run.app.push(("noise", app(&id, status, "PREDICTION_FAILED")));
        }
        for n in 0..20 {
            let name = format!("other-{n}");
            let other = pod(&name, "default", &format!("10.0.1.{n}"), -5.0);
            run.timeline.push(("noise", seen(-1.0, &other)));
            run.timeline.push(("noise", ending(other.clone(), 9.0, 0)));
            run.timeline.push(("noise", restarted(other, 9.0, 137, "OOMKilled")));
        }
        run
    }

    /// The run, written down and explained.
    pub(crate) fn explained(&self) -> Explained {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |path: &str, lines: Vec<String>| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("making it");
            std::fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
                .expect("writing");
        };
        let meta = Meta {
            began: at(0.0),
            entry: "http://127.0.0.1:8080".into(),
            host: "app.local".into(),
            request: "POST /predict".into(),
            namespace: "default".into(),
            plan: self.plan.into(),
            without: None,
            marks: Vec::new(),
            end: None,
        };
        write(meta::FILE, vec![serde_json::to_string(&meta).expect("json")]);
        write(
            "records.jsonl",
            self.records.iter().map(|r| serde_json::to_string(r).expect("json")).collect(),
        );
        let lines = |lines: &[(&str, String)]| lines.iter().map(|(_, line)| line.clone()).collect();
        if self.timeline.iter().any(|(tag, _)| *tag == "controller") {
            write("logs/ingress/controller-1.log", lines(&self.ingress));
        }
        write(&format!("logs/app/{POD}.log"), lines(&self.app));
        write("timeline.jsonl", self.timeline.iter().map(|(_, seen)| seen.to_string()).collect());
        explain_run(dir.path()).expect("a run")
    }

    fn verdict(&self) -> Verdict {
        let verdicts = self.explained().failures;
        verdicts.into_iter().find(|verdict| verdict.record.id == ID).expect("a verdict")
    }
}

/// Every mechanism, a run that shows it, and the pieces without which the verdict is another.
fn runs() -> Vec<(Mechanism, Run, Vec<&'static str>)> {
    let socket = |error: &str| Run::of(record(ID, Outcome::SocketError, None, Some(error)));
    let controller = || pod("controller-1", "ingress-nginx", "10.0.0.2", -600.0);
    let mut starting = pod(POD, "default", "10.0.0.7", 9.0);
    starting["spec"]["containers"][0]["startupProbe"] = Value::Null;
    starting["spec"]["containers"][0]["readinessProbe"] = Value::Null;
    let mut new_controller = pod("controller-1", "ingress-nginx", "10.0.0.2", 8.0);
    new_controller["status"]["conditions"][0]["status"] = "False".into();
    let mut no_pause = Run::pod();
    no_pause["spec"]["containers"][0]["lifecycle"] = Value::Null;
    let by_app = |status: u16, code: &str| {
        Run::http(status, &format!("{ADDRESS} 90 0.040 {status}")).app(app(ID, status, code))
    };
    let mut timeout = Run::of(Record { end_us: 40_000_000, ..record(ID, Outcome::Timeout, None, None) });
    timeout.ingress.push(("access", access(ID, 40.0, 499, &format!("{ADDRESS} 0 30.000 -"))));
    let mut keep_alive = Run::http(502, &format!("{ADDRESS} 0 0.001 502"));
    keep_alive
        .ingress
        .insert(0, ("earlier", access(&"e".repeat(32), 3.0, 200, &format!("{ADDRESS} 9 0.040 200"))));
    let killed = |run: Run| {
        let run = run.and("told", ending(Run::pod(), 5.0, 5));
        let mut ended = restarted(Run::pod(), 10.0, 137, "Error");
        ended["object"]["metadata"]["deletionTimestamp"] = whole(10.0).into();
        ended["object"]["status"]["containerStatuses"][0]["restartCount"] = 0.into();
        run.and("told", ended)
    };
    vec![
        (Mechanism::NeverReachedProxy, socket("Connection refused (os error 111)"), vec![]),
        (
            Mechanism::ProxyEnded,
            socket("connection closed before message completed").and("told", ending(controller(), 9.9, 300)),
            vec!["told"],
        ),
        (Mechanism::RouteNotSynced, Run::http(404, "- - - -"), vec!["access"]),
        (Mechanism::RefusedByProxy, Run::http(413, "- - - -"), vec!["access"]),
        (
            Mechanism::NoEndpoint,
            Run::http(503, "- - - -").and("not-ready", endpoints(9.0, false)),
            vec!["access", "not-ready"],
        ),
        (
            Mechanism::ControllerNotSynced,
            Run::http(503, "- - - -").without("controller").and("controller", seen(8.0, &new_controller)),
            vec!["access", "controller", "endpoints"],
        ),
        (Mechanism::NotListeningYet, Run::refused().pod_is(&starting), vec!["access"]),
        (Mechanism::NotReadyYet, by_app(503, "MODEL_NOT_LOADED").pod_is(&starting), vec!["app"]),
        (
            Mechanism::ShutdownRace,
            Run::refused()
                .pod_is(&no_pause)
                .and("told", ending(no_pause.clone(), 9.5, 30))
                .and("left", endpoints(9.6, false)),
            vec!["access", "told"],
        ),
        (
            Mechanism::ShutdownRace,
            by_app(503, "MODEL_NOT_LOADED").and("told", ending(Run::pod(), 9.5, 30)),
            vec!["app", "told"],
        ),
        (Mechanism::GraceTooShort, killed(Run::dropped()), vec!["access", "told"]),
        (
            Mechanism::ForcedDeletion,
            Run::dropped().and("told", ending(Run::pod(), 9.9, 0)),
            vec!["access", "told"],
        ),
        (
            Mechanism::OutOfMemory,
            Run::dropped().and("exit", restarted(Run::pod(), 10.0, 137, "OOMKilled")),
            vec!["access", "exit"],
        ),
        (
            Mechanism::LivenessRestart,
            Run::dropped().and("exit", restarted(Run::pod(), 10.0, 137, "Error")).and(
                "event",
                event(9.0, "Killing", "Container app failed liveness probe, will be restarted"),
            ),
            vec!["access", "exit", "event"],
        ),
        (
            Mechanism::LivenessRestart,
            by_app(503, "MODEL_NOT_LOADED").and(
                "event",
                event(9.0, "Killing", "Container app failed liveness probe, will be restarted"),
            ),
            vec!["app", "event"],
        ),
        (
            Mechanism::Crash,
            Run::dropped().and("exit", restarted(Run::pod(), 10.0, 101, "Error")),
            vec!["access", "exit"],
        ),
        (
            Mechanism::Crash,
            Run::refused().and("exit", restarted(Run::pod(), 10.0, 101, "Error")),
            vec!["access", "exit"],
        ),
        (Mechanism::KeepAliveRace, keep_alive, vec!["access", "earlier"]),
        (Mechanism::UpstreamTimeout, Run::http(504, &format!("{ADDRESS} 0 40.000 504")), vec!["access"]),
        (Mechanism::ClientTimeout, timeout, vec!["access"]),
        (Mechanism::BackPressure, by_app(429, "QUEUE_FULL"), vec!["app"]),
        (Mechanism::BackPressure, by_app(503, "QUEUE_FULL"), vec!["app"]),
        (Mechanism::ApplicationError, by_app(500, "PREDICTION_FAILED"), vec!["app"]),
        (Mechanism::RequestRefused, by_app(415, "UNSUPPORTED_MEDIA_TYPE"), vec!["app"]),
        (
            Mechanism::SendersBusy,
            Run::of(Record { sent_us: None, ..record(ID, Outcome::Dropped, None, None) }),
            vec![],
        ),
        (
            Mechanism::RunEnded,
            Run::of(Record { sent_us: None, end_us: 10_000_000, ..record(ID, Outcome::Unsent, None, None) }),
            vec![],
        ),
        (
            Mechanism::SendersBusy,
            Run::of(Record { sent_us: None, ..record(ID, Outcome::Unsent, None, None) }),
            vec![],
        ),
        (Mechanism::GeneratorLimit, socket("Too many open files (os error 24)"), vec![]),
        (Mechanism::RunStopped, socket(xtask_load::run::GIVEN_UP), vec![]),
    ]
}

#[test]
fn every_mechanism_is_recognised_with_its_evidence_quoted() {
    for (mechanism, run, _) in runs() {
        let verdict = run.verdict();
        assert_eq!(verdict.mechanism, mechanism, "{verdict:#?}");
        assert!(!verdict.evidence.is_empty() && verdict.missing.is_empty(), "{verdict:#?}");
        assert!(!mechanism.fix().is_empty());
        if let Some((_, line)) = run.ingress.iter().find(|(tag, _)| *tag == "access") {
            let (_, line) = line.split_once(' ').expect("a stamp");
            assert!(verdict.evidence.iter().any(|quoted| quoted.contains(line)), "{verdict:#?}");
        }
    }
}

#[test]
fn without_its_evidence_the_verdict_is_another() {
    for (mechanism, run, needed) in runs() {
        for tag in needed {
            let verdict = run.without(tag).verdict();
            assert_ne!(verdict.mechanism, mechanism, "without {tag}: {verdict:#?}");
            if verdict.is_unexplained() {
                assert!(
                    !verdict.missing.is_empty(),
                    "without {tag}, nothing is said to be missing: {verdict:#?}"
                );
            }
        }
    }
}

#[test]
fn what_belongs_to_others_changes_no_verdict() {
    for (_, run, _) in runs() {
        let (alone, mut among_others) = (run.verdict(), run.with_noise().verdict());
        // Why no pod was Ready is told of all of them.
        if alone.mechanism == Mechanism::NoEndpoint {
            among_others.evidence.retain(|line| !line.contains("other-"));
        }
        assert_eq!(alone, among_others);
    }
}

#[test]
fn a_dropped_connection_of_a_healthy_pod_stays_unexplained() {
    let verdict = Run::dropped().verdict();
    assert!(verdict.is_unexplained(), "{verdict:#?}");
    assert!(verdict.missing.iter().any(|line| line.contains(POD)), "{verdict:#?}");
    let tried: Vec<_> = verdict.rejected.iter().map(|(mechanism, _)| *mechanism).collect();
    for mechanism in
        [Mechanism::OutOfMemory, Mechanism::Crash, Mechanism::KeepAliveRace, Mechanism::ShutdownRace]
    {
        assert!(tried.contains(&mechanism), "{verdict:#?}");
    }
}

/// The address of a Service, or another proxy: what the cluster shows is all there is.
#[test]
fn where_the_entry_has_no_log_the_clusters_word_alone_decides() {
    let run =
        |outcome, status, error| Run::of(record(ID, outcome, status, Some(error))).without("controller");
    let socket = |error| run(Outcome::SocketError, None, error);
    let told = || ("told", ending(Run::pod(), 4.8, 30));
    let and = |run: Run, (tag, seen): (&'static str, Value)| run.and(tag, seen);
    let crashed = || ("crash", restarted(Run::pod(), 9.9, 1, "Error"));
    let gone = || run(Outcome::HttpError, Some(503), "no available server").without("endpoints");
    let cases = [
        (Mechanism::ShutdownRace, and(socket("connection reset by peer"), told())),
        (Mechanism::ShutdownRace, and(socket("Connection refused (os error 111)"), told())),
        (
            Mechanism::ForcedDeletion,
            and(socket("connection reset by peer"), ("told", ending(Run::pod(), 9.9, 0))),
        ),
        (Mechanism::Crash, and(run(Outcome::HttpError, Some(502), "Bad Gateway"), crashed())),
        (Mechanism::NoEndpoint, gone().and("endpoints", endpoints(-1.0, false))),
        (
            Mechanism::NoEndpoint,
            socket("Connection refused").without("endpoints").and("endpoints", endpoints(-1.0, false)),
        ),
        (Mechanism::ClientTimeout, run(Outcome::Timeout, None, "no complete answer").app(app(ID, 200, ""))),
    ];
    for (mechanism, run) in cases {
        let verdict = run.verdict();
        assert_eq!(verdict.mechanism, mechanism, "{verdict:#?}");
        assert!(!verdict.evidence.is_empty() && verdict.missing.is_empty(), "{verdict:#?}");
        for tag in ["told", "crash", "endpoints", "app"] {
            let without = run.without(tag).verdict();
            let is_needed = without.mechanism != mechanism;
            assert!(!is_needed || without.is_unexplained() && !without.missing.is_empty(), "{without:#?}");
        }
    }
    // Nothing happened to any pod; or two things at once, to two of them.
    let other = pod("app-7c9-bbbbb", "default", "10.0.0.8", -600.0);
    let two =
        and(and(socket("connection reset by peer"), told()), ("other", restarted(other, 9.9, 1, "Error")));
    for run in [socket("connection reset by peer"), socket("Connection refused"), two, gone()] {
        let verdict = run.verdict();
        assert!(verdict.is_unexplained(), "{verdict:#?}");
        assert!(
            verdict.missing[0].contains("no log of the entry http://127.0.0.1:8080 is read"),
            "{verdict:#?}"
        );
    }
}

#[test]
fn the_proxys_own_complaint_decides_how_the_connection_ended() {
    let complaint = |what: &str| {
        format!(
            "{} 2026/01/02 03:04:15 [error] 35#35: *17 {what}, client: 10.0.0.1, server: app.local, \
             request: \"POST \
             /predict HTTP/1.1\", upstream: \"http://{ADDRESS}/predict\", host: \"app.local\"",
            at(10.04)
        )
    };
    let mut starting = pod(POD, "default", "10.0.0.7", 9.0);
    starting["spec"]["containers"][0]["startupProbe"] = Value::Null;
    let mut run = Run::dropped().pod_is(&starting);
    run.ingress.push((
        "complaint",
        complaint("connect() failed (111: Connection refused) while connecting to upstream"),
    ));
    let verdict = run.verdict();
    assert_eq!(verdict.mechanism, Mechanism::NotListeningYet, "{verdict:#?}");
    assert!(verdict.evidence.iter().any(|line| line.contains("connect() failed (111")), "{verdict:#?}");
}

#[test]
fn a_pod_that_is_gone_is_the_cause_where_proxy_or_client_wait_for_it_in_vain() {
    let three = |one: &str| [one; 3].join(", ");
    let silent =
        Run::of(Record { end_us: 25_000_000, ..record(ID, Outcome::HttpError, Some(504), Some("<html>")) });
    let lists = format!("{} {} {} {}", three(ADDRESS), three("0"), three("5.000"), three("504"));
    let mut silent = silent.and("told", ending(Run::pod(), 9.0, 30));
    silent.ingress.push(("access", access(ID, 25.0, 504, &lists)));
    let mut impatient = Run::of(Record { end_us: 13_000_000, ..record(ID, Outcome::Timeout, None, None) });
    impatient.ingress.push(("access", access(ID, 13.0, 499, &format!("{ADDRESS} 0 3.000 -"))));
    let impatient = impatient.and("told", ending(Run::pod(), 9.0, 30));
    for run in [silent, impatient] {
        let verdict = run.verdict();
        assert_eq!(verdict.mechanism, Mechanism::ShutdownRace, "{verdict:#?}");
        // A pod that had the request is not one that was gone.
        let had = run.app(app(ID, 499, "CLIENT_CLOSED_REQUEST")).verdict();
        assert_ne!(had.mechanism, Mechanism::ShutdownRace, "{had:#?}");
    }
}

#[test]
fn an_address_that_changed_hands_is_that_of_the_pod_that_had_it_then() {
    // The pod is gone at 11 s, and another has its address from 12 s on.
    let mut gone = ending(Run::pod(), 9.0, 0);
    gone["at"] = json!(at(11.0));
    gone["gone"] = true.into();
    let heir = pod("heir", "default", "10.0.0.7", 12.0);
    let run = Run::dropped()
        .and("told", ending(Run::pod(), 9.9, 0))
        .and("gone", gone)
        .and("heir", seen(12.0, &heir));
    let run = run.without("endpoints");
    let verdict = run.verdict();
    assert_eq!(
        (verdict.pod.as_deref(), verdict.mechanism),
        (Some(POD), Mechanism::ForcedDeletion),
        "{verdict:#?}"
    );
}

#[test]
fn what_was_before_the_run_is_no_evidence_in_it() {
    // A liveness restart, and a death by a signal, of the day before; the node still tells both.
    let yesterday = |run: Run| {
        run.and(
            "event",
            event(-86_400.0, "Killing", "Container app failed liveness probe, will be restarted"),
        )
        .and("exit", restarted(Run::pod(), -86_400.0, 137, "Error"))
    };
    let verdict = yesterday(Run::dropped()).verdict();
    assert!(verdict.is_unexplained(), "{verdict:#?}");
    let answered = |run: Run| run.app(app(ID, 503, "MODEL_NOT_LOADED"));
    let run = answered(Run::http(503, &format!("{ADDRESS} 90 0.040 503")));
    assert_eq!(yesterday(run.clone()).verdict().mechanism, run.verdict().mechanism);
    // Told to end just now: it was not killed at the end of that grace because it was killed once before.
    let ending_now = yesterday(Run::dropped()).and("told", ending(Run::pod(), 9.9, 30));
    assert_eq!(ending_now.verdict().mechanism, Mechanism::ShutdownRace);
}

#[test]
fn times_at_the_end_of_the_calendar_change_no_verdict() {
    // As with `terminationGracePeriodSeconds: 9223372036854775807`.
    let mut told = ending(Run::pod(), 9.9, 0);
    told["object"]["metadata"]["deletionGracePeriodSeconds"] = i64::MAX.into();
    assert_eq!(Run::dropped().and("told", told).verdict().mechanism, Mechanism::ShutdownRace);
    for end in [Timestamp::MIN, Timestamp::MAX] {
        let mut exit = restarted(Run::pod(), 9.0, 137, "Error");
        exit["object"]["status"]["containerStatuses"][0]["lastState"]["terminated"]["finishedAt"] =
            json!(end);
        let mut killing = event(9.0, "Killing", "Container app failed liveness probe, will be restarted");
        killing["object"]["lastTimestamp"] = json!(end);
        let verdict = Run::dropped().and("exit", exit).and("event", killing).verdict();
        assert!(verdict.is_unexplained(), "{verdict:#?}");
    }
}

#[test]
fn a_line_that_quotes_a_request_is_not_about_it() {
    // Another request's line, whose sender gave our id as its own correlation id.
    let line = json!({"request_id": "f".repeat(32), "correlation_id": ID, "status": 502,
        "error_code": "QUEUE_FULL"});
    let run = Run::dropped().app(format!("{} {line}", at(10.04)));
    assert_eq!(run.verdict(), Run::dropped().verdict());
}
