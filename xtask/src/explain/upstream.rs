//! Failures at a pod: the connection was refused, died, or stayed silent.

use jiff::{SignedDuration, Timestamp};

use super::failure::{CUT_OFF, Failure, Test, Verdict, clock, test};
use super::mechanism::Mechanism;
use crate::record::access::{Access, Attempt};
use crate::record::case::Message;
use crate::record::timeline::{EventSeen, Exit, PodStory};
use crate::record::{earlier, later};

/// Tries that ingress-nginx makes (`proxy-next-upstream-tries`).
const TRIES: usize = 3;
/// What happens to a container is told to the API a moment later, in whole seconds.
const TOLD_LATER: SignedDuration = SignedDuration::from_secs(2);
/// A connection that was idle shorter than this is closed by no usual keep-alive.
const SHORTEST_KEEP_ALIVE: SignedDuration = SignedDuration::from_secs(2);
/// A pod that runs longer than this is not starting.
const LONGEST_START: SignedDuration = SignedDuration::from_secs(300);
/// A request that was written on a dead connection fails at once, in seconds.
const AT_ONCE: f64 = 0.1;

/// How the last try ended, and what shows that.
enum Death {
    /// No connection was made.
    Refused(String),
    /// The request was written, then the connection ended.
    Dropped(String),
}

/// 502: a pod took no connection, or dropped it.
pub(super) fn bad_gateway(failure: &Failure<'_>, access: &Access) -> Verdict {
    let Some(attempt) = access.attempts.last() else {
        return failure.unexplained(Vec::new(), vec!["the upstream's address".to_owned()]);
    };
    let at = failure.end;
    let death = death(failure, access, attempt);
    let Some(pod) = failure.case.timeline.pod_at(&attempt.address, at) else {
        let missing = vec![format!("which pod had {} at {}", attempt.address, clock(at))];
        return failure.unexplained(Vec::new(), missing);
    };
    let mut verdict = match &death {
        Death::Refused(how) => refused(failure, attempt, pod, how),
        Death::Dropped(how) => dropped(failure, attempt, pod, how),
    };
    verdict.pod = Some(pod.name.clone());
    verdict
}

/// The pod took no connection.
pub(super) fn refused(failure: &Failure<'_>, attempt: &Attempt, pod: &PodStory, how: &str) -> Verdict {
    let at = failure.end;
    let with = |lines: Vec<String>| [vec![how.to_owned()], lines].concat();
    let tests = vec![
        forced(pod, at, &with),
        (
            Mechanism::ShutdownRace,
            test(
                pod.was_ending(at),
                || with(vec![ending_line(pod, at), endpoint_line(failure, attempt, pod)]),
                "the pod had not been told to stop",
            ),
        ),
        out_of_memory(pod, at, &with),
        liveness(failure, pod, at, &with),
        crash(pod, at, &with),
        (Mechanism::NotListeningYet, not_listening(pod, at, &with)),
    ];
    failure.first(tests, missing(pod, at))
}

/// The pod took the request, and the connection ended.
pub(super) fn dropped(failure: &Failure<'_>, attempt: &Attempt, pod: &PodStory, how: &str) -> Verdict {
    let at = failure.end;
    let with = |lines: Vec<String>| [vec![how.to_owned()], lines].concat();
    let killed = pod.told_to_end.is_some_and(|(told, grace)| {
        let grace = SignedDuration::from_secs(grace);
        let of_this_end = |exit: &Exit| later(exit.at, CUT_OFF) >= told && exit.at <= later(at, TOLD_LATER);
        let exit = pod.exits.iter().any(|exit| exit.code == 137 && of_this_end(exit));
        // The last answer of a pod that was killed may be all there is to see of it.
        grace > SignedDuration::ZERO
            && told <= at
            && (exit || later(at, SignedDuration::from_millis(500)) >= later(told, grace))
    });
    let tests = vec![
        forced(pod, at, &with),
        out_of_memory(pod, at, &with),
        (
            Mechanism::GraceTooShort,
            test(
                killed,
                || with(vec![ending_line(pod, at), exits_line(pod, at)]),
                "it was not killed at the end of a grace period",
            ),
        ),
        (
            Mechanism::ShutdownRace,
            test(
                pod.was_ending(at),
                || with(vec![ending_line(pod, at), endpoint_line(failure, attempt, pod)]),
                "the pod had not been told to stop",
            ),
        ),
        liveness(failure, pod, at, &with),
        crash(pod, at, &with),
        (Mechanism::KeepAliveRace, keep_alive(failure, attempt, &with)),
    ];
    failure.first(tests, missing(pod, at))
}

/// One try at a pod, with what is known of it.
struct Tried<'c> {
    attempt: &'c Attempt,
    /// When it began, by the clock on the wall.
    began: Timestamp,
    /// What the proxy said of it, where it did.
    complaint: Option<&'c Message>,
}

impl<'c> Tried<'c> {
    /// The try of that number, from 0.
    fn of(failure: &Failure<'c>, access: &'c Access, number: usize) -> Option<Tried<'c>> {
        let seconds = |attempts: &[Attempt]| -> SignedDuration {
            let sum = attempts.iter().filter_map(|attempt| attempt.seconds).sum();
            SignedDuration::try_from_secs_f64(sum).unwrap_or_default()
        };
        let attempt = access.attempts.get(number)?;
        let began = later(failure.sent, seconds(&access.attempts[..number]));
        let ended = later(failure.sent, seconds(&access.attempts[..=number]));
        let near =
            |complaint: &&Message| complaint.at.duration_since(ended).abs() <= SignedDuration::from_secs(1);
        let complaint = failure.case.complaints.get(&attempt.address).and_then(|all| all.iter().find(near));
        Some(Tried { attempt, began, complaint })
    }

    fn seconds(&self) -> f64 {
        self.attempt.seconds.unwrap_or_default()
    }

    /// Whether the proxy says that no connection was made; nothing where it says nothing.
    fn is_unconnected(&self) -> Option<bool> {
        self.complaint.map(|complaint| complaint.line.contains("connecting to upstream"))
    }

    fn how(&self, number: usize, of: usize) -> String {
        match self.complaint {
            Some(complaint) => format!("proxy: {}", complaint.line),
            None => format!("try {} of {of}, at {}", number + 1, self.attempt.address),
        }
    }

    /// What became of it at its pod. A connection that was made, and came to nothing, has other causes than none.
    fn verdict(&self, failure: &Failure<'c>, pod: &PodStory, how: &str) -> Verdict {
        let this = Failure { end: self.began, ..*failure };
        let mut verdict = match self.is_unconnected() {
            Some(false) => dropped(&this, self.attempt, pod, how),
            _ => refused(&this, self.attempt, pod, how),
        };
        let gone = pod.gone.filter(|_| !verdict.is_unexplained()).map(|gone| {
            let before = self.began.duration_since(gone).as_secs_f64();
            let (seconds, which) = (before.abs(), if before < 0.0 { "after" } else { "before" });
            format!("pod {}: gone from {}, {seconds:.1} s {which} it was asked", pod.name, clock(gone))
        });
        verdict.evidence.extend(gone);
        verdict.pod = Some(pod.name.clone());
        verdict
    }
}

/// Answered well, but only by a later pod: what became of the try that took longest.
pub(super) fn lost_try(failure: &Failure<'_>) -> Verdict {
    let unknown = |missing: String| failure.unexplained(Vec::new(), vec![missing]);
    let tries = failure.access.map_or(0, |access| access.attempts.len());
    let tried = |number: usize| Tried::of(failure, failure.access?, number);
    let lost = (0..tries.saturating_sub(1)).filter_map(|number| Some((number, tried(number)?)));
    let longest = lost.max_by(|(_, a), (_, b)| a.seconds().total_cmp(&b.seconds()));
    let Some((number, tried)) = longest else { return unknown("the attempt that failed".to_owned()) };
    let address = &tried.attempt.address;
    let how =
        format!("{}: {:.1} s lost, then another pod answered", tried.how(number, tries), tried.seconds());
    let Some(pod) = failure.case.timeline.pod_at(address, tried.began) else {
        return unknown(format!("which pod had {address} at {}", clock(tried.began)));
    };
    let verdict = tried.verdict(failure, pod, &how);
    let is_silent = tried.attempt.status == Some(504) && tried.is_unconnected() == Some(false);
    if !verdict.is_unexplained() || !is_silent {
        return verdict;
    }
    let Verdict { rejected, pod, .. } = verdict;
    Verdict { rejected, pod, ..failure.verdict(Mechanism::UpstreamTimeout, vec![how]) }
}

/// The proxy, or the client, has waited in vain for a pod that never had the request: no connection was made, or it had
/// been told to end and its log does not know the request. Nothing where it is not so, or that is not explained either.
pub(super) fn never_had_it(failure: &Failure<'_>) -> Option<Verdict> {
    let access = failure.access?;
    let tries = access.attempts.len();
    let tried = Tried::of(failure, access, tries.checked_sub(1)?)?;
    let pod = failure.case.timeline.pod_at(&tried.attempt.address, tried.began)?;
    let is_unconnected =
        tried.is_unconnected().unwrap_or_else(|| pod.was_ending(tried.began) && failure.app.is_empty());
    let how = format!("{}: {:.1} s without a connection", tried.how(tries - 1, tries), tried.seconds());
    let verdict = is_unconnected.then(|| tried.verdict(failure, pod, &how))?;
    (!verdict.is_unexplained()).then_some(verdict)
}

/// 504: a pod was silent.
pub(super) fn gateway_timeout(failure: &Failure<'_>, access: &Access) -> Verdict {
    if let Some(verdict) = never_had_it(failure) {
        return verdict;
    }
    let attempt = access.attempts.last();
    let pod = attempt.and_then(|attempt| failure.case.timeline.pod_at(&attempt.address, failure.end));
    let mut evidence = Vec::new();
    if let Some(attempt) = attempt {
        let seconds = attempt.seconds.map_or_else(|| "some time".to_owned(), |s| format!("{s} s"));
        evidence.push(format!("the proxy waited {seconds} for {}", attempt.address));
        let name = pod.map_or("it", |pod| pod.name.as_str());
        if failure.app.is_empty() {
            evidence
                .push(format!("{name} logged no line with the id: it had not answered, or was not there"));
        }
    }
    evidence.extend(failure.app.iter().map(|line| format!("{} logs: {}", line.pod, line.line)));
    let mut verdict = failure.verdict(Mechanism::UpstreamTimeout, evidence);
    verdict.pod = pod.map(|pod| pod.name.clone()).or(verdict.pod);
    verdict
}

/// A POST that was written is not sent again; one whose connection was refused is.
fn death(failure: &Failure<'_>, access: &Access, attempt: &Attempt) -> Death {
    let complaints = failure.case.complaints.get(&attempt.address);
    let complaint = complaints.into_iter().flatten().find(|complaint| {
        let near = SignedDuration::from_secs(1);
        complaint.at >= earlier(failure.sent, near) && complaint.at <= later(failure.end, near)
    });
    if let Some(complaint) = complaint {
        let quoted = format!("proxy: {}", complaint.line);
        return if complaint.line.contains("connect()") {
            Death::Refused(quoted)
        } else {
            Death::Dropped(quoted)
        };
    }
    let tries = access.attempts.len();
    if tries < TRIES {
        return Death::Dropped(format!(
            "{tries} tr{} of {TRIES}: the request was written, then the connection ended; a refused one \
             would have been \
             tried again",
            if tries == 1 { "y" } else { "ies" }
        ));
    }
    if attempt.seconds.is_some_and(|seconds| seconds > AT_ONCE) {
        return Death::Dropped(format!(
            "the last try ended only after {} s",
            attempt.seconds.unwrap_or_default()
        ));
    }
    let addresses: Vec<_> = access.attempts.iter().map(|attempt| attempt.address.as_str()).collect();
    Death::Refused(format!("{tries} tries, each without a connection: {}", addresses.join(", ")))
}

type With<'w> = &'w dyn Fn(Vec<String>) -> Vec<String>;

fn forced(pod: &PodStory, at: Timestamp, with: With<'_>) -> (Mechanism, Test) {
    let forced = pod.was_ending(at) && pod.told_to_end.is_some_and(|(_, grace)| grace == 0);
    // Gone without ever having been seen to be told: deleted with no grace at all.
    let vanished = pod.gone.is_some_and(|gone| gone <= later(at, TOLD_LATER)) && pod.told_to_end.is_none();
    let lines = || with(vec![ending_line(pod, at)]);
    (
        Mechanism::ForcedDeletion,
        test(forced || vanished, lines, "the pod was not deleted without a grace period"),
    )
}

fn out_of_memory(pod: &PodStory, at: Timestamp, with: With<'_>) -> (Mechanism, Test) {
    let killed = pod.exit_around(at, TOLD_LATER).filter(|exit| exit.reason == "OOMKilled");
    let evidence = |exit: &Exit| {
        let limits = pod.container().and_then(|c| c.resources.as_ref()).and_then(|r| r.limits.as_ref());
        let limit = limits.and_then(|limits| limits.get("memory")).map_or("none", |limit| &limit.0);
        with(vec![exit_line(pod, exit), format!("its memory limit: {limit}")])
    };
    let against = "no container was killed for its memory";
    (
        Mechanism::OutOfMemory,
        killed.map_or_else(|| Test::Fails(against.to_owned()), |e| Test::Holds(evidence(e))),
    )
}

fn liveness(failure: &Failure<'_>, pod: &PodStory, at: Timestamp, with: With<'_>) -> (Mechanism, Test) {
    let exit = pod.exit_around(at, TOLD_LATER).filter(|_| !pod.was_ending(at));
    let killing = liveness_kill(failure, pod, at);
    let against = "no liveness probe killed it";
    let test = match (exit, killing) {
        (Some(exit), Some(event)) => Test::Holds(with(vec![event_line(event), exit_line(pod, exit)])),
        _ => Test::Fails(against.to_owned()),
    };
    (Mechanism::LivenessRestart, test)
}

/// The event that tells that a liveness probe had the pod's container ended, by a moment.
pub(super) fn liveness_kill<'c>(
    failure: &Failure<'c>,
    pod: &PodStory,
    at: Timestamp,
) -> Option<&'c EventSeen> {
    failure.case.timeline.events.iter().rev().find(|event| {
        event.about == pod.name
            && event.reason == "Killing"
            && event.message.contains("liveness")
            && failure.in_run(event.at)
            && event.at <= later(at, TOLD_LATER)
    })
}

/// An event, quoted.
pub(super) fn event_line(event: &EventSeen) -> String {
    format!("event {} {} {}: {}", clock(event.at), event.reason, event.about, event.message)
}

fn crash(pod: &PodStory, at: Timestamp, with: With<'_>) -> (Mechanism, Test) {
    let exit = pod.exit_around(at, TOLD_LATER).filter(|_| !pod.was_ending(at));
    let against = "no container of the pod ended at that time";
    let test = exit.map_or_else(
        || Test::Fails(against.to_owned()),
        |exit| Test::Holds(with(vec![exit_line(pod, exit)])),
    );
    (Mechanism::Crash, test)
}

fn not_listening(pod: &PodStory, at: Timestamp, with: With<'_>) -> Test {
    let Some(since) = pod.at(at).and_then(|state| state.running_since) else {
        return match pod.states.first() {
            Some(first) if first.at <= at => Test::Holds(with(vec![starting_line(pod, at)])),
            _ => Test::Fails("nothing was seen of the pod's container".to_owned()),
        };
    };
    let probes = pod.container().map(|c| (c.startup_probe.is_some(), c.readiness_probe.is_some()));
    let unprotected = probes.is_some_and(|(startup, readiness)| !startup || !readiness);
    let was_ready = pod.at(at).is_some_and(|state| state.ready);
    let age = at.duration_since(since);
    if age > LONGEST_START {
        return Test::Fails(format!("the container had been running for {} s", age.as_secs()));
    }
    if was_ready && !unprotected {
        return Test::Fails("the pod was Ready, and its probes had asked it".to_owned());
    }
    Test::Holds(with(vec![starting_line(pod, at)]))
}

fn keep_alive(failure: &Failure<'_>, attempt: &Attempt, with: With<'_>) -> Test {
    if let Some(line) = failure.app.first() {
        return Test::Fails(format!("the app had the request: {}", line.line));
    }
    if attempt.seconds.is_none_or(|seconds| seconds > AT_ONCE) {
        return Test::Fails("the connection did not end at once".to_owned());
    }
    let before = failure.case.uses.get(&attempt.address).and_then(|uses| {
        let line = failure.access.and_then(|access| access.at).unwrap_or(failure.end);
        uses.range(..line).next_back().copied()
    });
    let Some(before) = before else {
        return Test::Fails("the proxy had no earlier connection to it".to_owned());
    };
    let idle = failure.sent.duration_since(before);
    if idle < SHORTEST_KEEP_ALIVE {
        return Test::Fails(format!("the pod had been asked {:.1} s before", idle.as_secs_f64()));
    }
    Test::Holds(with(vec![
        format!(
            "{} had been idle for {:.1} s, and ended at once when used",
            attempt.address,
            idle.as_secs_f64()
        ),
        "the app logged no line with the id".to_owned(),
    ]))
}

fn missing(pod: &PodStory, at: Timestamp) -> Vec<String> {
    vec![
        format!("a stop, a restart or a deletion of {} around {}", pod.name, clock(at)),
        "a line of the proxy's error log or of the app's log that says why the connection ended".to_owned(),
    ]
}

/// When a pod was told to end, in words.
pub(super) fn ending_line(pod: &PodStory, at: Timestamp) -> String {
    let name = &pod.name;
    match (pod.told_to_end, pod.gone) {
        (Some((told, grace)), _) => format!(
            "pod {name}: told to stop at {}, {:.1} s before; grace period {grace} s, {}",
            clock(told),
            at.duration_since(told).as_secs_f64(),
            pod.pre_stop()
        ),
        (None, Some(gone)) => format!("pod {name}: gone at {}, never seen to be told to stop", clock(gone)),
        (None, None) => format!("pod {name}: not told to stop"),
    }
}

fn endpoint_line(failure: &Failure<'_>, attempt: &Attempt, pod: &PodStory) -> String {
    let told = pod.told_to_end.map_or(failure.sent, |(told, _)| told);
    match failure.case.timeline.left_endpoints(&attempt.address, told) {
        Some(left) => format!(
            "endpoint {}: no longer ready from {}, {:.0} ms after that; the proxy learns of it later",
            attempt.address,
            clock(left),
            left.duration_since(told).as_secs_f64() * 1e3
        ),
        None => format!("endpoint {}: not seen to leave the ready endpoints", attempt.address),
    }
}

/// How far a pod had come with its start, and with which probes, in words.
pub(super) fn starting_line(pod: &PodStory, at: Timestamp) -> String {
    let has = |is: bool| if is { "has" } else { "no" };
    let probes = pod.container().map_or_else(String::new, |c| {
        format!(
            "; {} startupProbe, {} readinessProbe",
            has(c.startup_probe.is_some()),
            has(c.readiness_probe.is_some())
        )
    });
    format!("{}{probes}", age_line(pod, at))
}

/// How far a pod had come with its start, in words.
pub(super) fn age_line(pod: &PodStory, at: Timestamp) -> String {
    let name = &pod.name;
    let since = pod.at(at).and_then(|state| state.running_since);
    let age = since.map_or_else(
        || "its container was not running yet".to_owned(),
        |since| format!("its container started {:.1} s before", at.duration_since(since).as_secs_f64()),
    );
    let ready = match pod.at(at) {
        Some(state) if state.ready => "it was marked Ready".to_owned(),
        _ => pod.ready_from(at).map_or_else(
            || "it was not Ready".to_owned(),
            |ready| format!("it was Ready only {:.1} s later", ready.duration_since(at).as_secs_f64()),
        ),
    };
    format!("pod {name}: {age}; {ready}")
}

/// How a container ended, in words.
pub(super) fn exit_line(pod: &PodStory, exit: &Exit) -> String {
    let Exit { container, at, code, reason, .. } = exit;
    // 128 and the number of the signal, as shells count.
    let by = match code {
        137 => ", killed by SIGKILL".to_owned(),
        143 => ", ended by SIGTERM".to_owned(),
        129..=192 => format!(", killed by signal {}", code - 128),
        _ => String::new(),
    };
    format!(
        "pod {}: container {container} ended at {}, exit code {code} ({reason}){by}",
        pod.name,
        clock(*at)
    )
}

fn exits_line(pod: &PodStory, at: Timestamp) -> String {
    pod.exits
        .iter()
        .rev()
        .find(|exit| {
            let told = pod.told_to_end.map_or(exit.at, |(told, _)| told);
            later(exit.at, CUT_OFF) >= told && exit.at <= later(at, TOLD_LATER)
        })
        .map_or_else(|| format!("pod {}: its end was not recorded", pod.name), |exit| exit_line(pod, exit))
}
