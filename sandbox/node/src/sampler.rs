//! Samples what containers use, and ends those that use more memory than they may.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use sandbox_contract::{PodUsage, Sample, Usage};
use sandbox_events::Severity;
use tokio::time::Instant;

use crate::container::process::kill_group;
use crate::context::{Context, KUBELET};
use crate::group_use::{self, GroupUse};
use crate::pod::handle::{Group, PodHandle, Pods, Slot, slots};

/// CPU use is the mean over at most this: short enough to follow a load test, long enough for the system's 10 ms ticks.
const WINDOW: Duration = Duration::from_secs(2);
/// And over at least this much of a container's life, for the same ticks.
const FIRST_WINDOW: Duration = Duration::from_millis(100);
/// A container is looked at more often while it is younger, each time for itself: an autoscaler counts no sample whose
/// window began before the pod was Ready.
const YOUNG: Duration = Duration::from_secs(10);

/// The latest samples.
#[derive(Default)]
pub(crate) struct Sampler {
    latest: Mutex<Option<Latest>>,
}

struct Latest {
    usage: Usage,
    /// Those that were not ready yet: once they are, what was sampled is of their start, and counts for nothing.
    starting: Vec<Member>,
}

struct Member {
    pod: Arc<PodHandle>,
    slot: Slot,
    name: String,
    group: Group,
}

impl Member {
    fn is_young(&self) -> bool {
        self.group.since.elapsed() < YOUNG
    }

    fn is_ready(&self) -> bool {
        self.pod.container(self.slot).is_some_and(|status| status.ready)
    }

    fn is_of(&self, pod: &PodUsage) -> bool {
        self.pod.namespace == pod.namespace && self.pod.name == pod.pod
    }
}

/// What was seen of a process group.
struct Track {
    /// When, and how much CPU time had been used by then.
    history: VecDeque<(Instant, Duration)>,
    was_ready: bool,
}

impl Sampler {
    pub(crate) fn usage(&self) -> Usage {
        let latest = self.latest.lock();
        let Some(Latest { usage, starting }) = &*latest else {
            return Usage { node: nothing(Timestamp::now()), pods: Vec::new() };
        };
        let mut usage = usage.clone();
        for started in starting.iter().filter(|member| member.is_ready()) {
            let of_pod = |pod: &&mut PodUsage| started.is_of(pod);
            if let Some(pod) = usage.pods.iter_mut().find(of_pod) {
                pod.containers.retain(|(name, _)| *name != started.name);
            }
        }
        usage.pods.retain(|pod| !pod.containers.is_empty());
        usage
    }

    /// Samples until shutdown.
    pub(crate) async fn run(self: Arc<Sampler>, cx: Arc<Context>, pods: Pods) {
        let mut pause = Duration::ZERO;
        let mut tracks: HashMap<i32, Track> = HashMap::new();
        loop {
            tokio::select! {
                () = cx.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let members = members(&pods);
            // Where there is none yet, the first may begin at any moment.
            let any_young = members.is_empty() || members.iter().any(Member::is_young);
            pause = if any_young { cx.tuning.sample_period / 5 } else { cx.tuning.sample_period };
            let groups = members.iter().map(|member| member.group.pgid).collect();
            let Ok(found) = tokio::task::spawn_blocking(move || group_use::of_groups(&groups)).await else {
                continue;
            };
            for member in &members {
                if let Some(used) = found.get(&member.group.pgid) {
                    enforce(&cx, member, *used);
                }
            }
            tracks.retain(|pgid, _| found.contains_key(pgid));
            let usage = usage(&members, &found, &mut tracks);
            let is_starting =
                |member: &Member| tracks.get(&member.group.pgid).is_some_and(|track| !track.was_ready);
            let starting = members.into_iter().filter(is_starting).collect();
            *self.latest.lock() = Some(Latest { usage, starting });
        }
    }
}

fn members(pods: &Pods) -> Vec<Member> {
    let mut members = Vec::new();
    for pod in pods.all() {
        for (slot, container) in slots(&pod.pod()) {
            if let Some(group) = pod.with_run(slot, |run| run.group.clone()).flatten() {
                members.push(Member { pod: pod.clone(), slot, name: container.name, group });
            }
        }
    }
    members.sort_by(|a, b| (&a.pod.namespace, &a.pod.name).cmp(&(&b.pod.namespace, &b.pod.name)));
    members
}

fn enforce(cx: &Context, member: &Member, used: GroupUse) {
    let Member { pod, slot, name, group } = member;
    let Some(limit) = group.memory_limit_bytes.filter(|limit| used.rss_bytes > *limit) else { return };
    // The sample took a while: only a container that still runs is killed.
    let killed = pod.with_run(*slot, |run| {
        let same = run.group.as_ref().is_some_and(|now| now.pgid == group.pgid);
        if same {
            group.out_of_memory.store(true, Ordering::Relaxed);
            kill_group(group.pgid);
        }
        same
    });
    if killed == Some(true) {
        let message = format!(
            "Memory limit of container {name} exceeded: killed process group {} (rss {} KiB, limit {} KiB)",
            group.pgid,
            used.rss_bytes / 1024,
            limit / 1024
        );
        cx.events.record(
            KUBELET,
            pod.reference(Some((*slot, name))),
            Severity::Warning,
            "OOMKilling",
            message,
        );
    }
}

fn usage(members: &[Member], found: &HashMap<i32, GroupUse>, tracks: &mut HashMap<i32, Track>) -> Usage {
    let (now, at) = (Instant::now(), Timestamp::now());
    let mut node = nothing(at);
    let mut pods: Vec<PodUsage> = Vec::new();
    for member in members {
        let Some(used) = found.get(&member.group.pgid) else { continue };
        // A process had used nothing when it began: so the first look at a container is a sample already, as
        // metrics-server takes it of one that is new.
        let begin = (member.group.since, Duration::ZERO);
        let unseen = || Track { history: VecDeque::from([begin]), was_ready: false };
        let Track { history, was_ready } = tracks.entry(member.group.pgid).or_insert_with(unseen);
        if !*was_ready && member.is_ready() {
            // No window reaches from the start into the time behind it.
            (*history, *was_ready) = (VecDeque::from([(now, used.cpu)]), true);
            continue;
        }
        let most = if member.is_young() { Duration::ZERO } else { WINDOW };
        while history.len() > 1 && history.front().is_some_and(|(then, _)| now - *then > most) {
            history.pop_front();
        }
        let Some((then, cpu)) = history.front().copied() else { continue };
        let window = now - then;
        if window < FIRST_WINDOW {
            continue;
        }
        history.push_back((now, used.cpu));
        let share = used.cpu.saturating_sub(cpu).as_nanos() * 1_000_000_000 / window.as_nanos().max(1);
        let cpu_nanocores = u64::try_from(share).unwrap_or(u64::MAX);
        let sample = Sample { cpu_nanocores, memory_bytes: used.rss_bytes, at, window };
        node.cpu_nanocores += cpu_nanocores;
        node.memory_bytes += used.rss_bytes;
        node.window = node.window.max(window);
        match pods.last_mut().filter(|last| member.is_of(last)) {
            Some(last) => last.containers.push((member.name.clone(), sample)),
            None => pods.push(PodUsage {
                namespace: member.pod.namespace.clone(),
                pod: member.pod.name.clone(),
                containers: vec![(member.name.clone(), sample)],
            }),
        }
    }
    Usage { node, pods }
}

fn nothing(at: Timestamp) -> Sample {
    Sample { cpu_nanocores: 0, memory_bytes: 0, at, window: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn member(age: Duration) -> Member {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u"},
            "spec": {"containers": [{"name": "web"}]},
        });
        let pod = Arc::new(serde_json::from_value(pod).expect("a pod"));
        let pod = Arc::new(PodHandle::new(Path::new("/nowhere"), pod));
        let group = Group {
            pgid: 7,
            since: Instant::now() - age,
            memory_limit_bytes: None,
            out_of_memory: Arc::default(),
        };
        Member { slot: slots(&pod.pod())[0].0, pod, name: "web".to_owned(), group }
    }

    fn found(cpu: Duration) -> HashMap<i32, GroupUse> {
        HashMap::from([(7, GroupUse { cpu, rss_bytes: 64 })])
    }

    #[tokio::test]
    async fn the_first_look_at_a_container_is_a_sample_of_its_life_so_far() {
        let seen = |age| usage(&[member(age)], &found(Duration::from_millis(500)), &mut HashMap::new()).pods;
        let pods = seen(Duration::from_secs(1));
        let (name, sample) = &pods[0].containers[0];
        assert_eq!((name.as_str(), sample.memory_bytes), ("web", 64));
        let share = sample.cpu_nanocores;
        assert!((400_000_000..=500_000_000).contains(&share), "half a core for a second: {share}");
        assert!(seen(Duration::from_millis(1)).is_empty(), "that is shorter than the system's ticks");
    }

    #[tokio::test]
    async fn what_a_start_took_is_in_no_sample_of_a_container_that_is_ready() {
        let (member, mut tracks) = (member(Duration::from_secs(1)), HashMap::new());
        let (start, idle) = (Duration::from_millis(900), Duration::from_millis(910));
        let (pod, slot) = (Arc::clone(&member.pod), member.slot);
        let sampler = Sampler::default();
        let members = [member];
        let sampled = usage(&members, &found(start), &mut tracks);
        assert_eq!(sampled.pods.len(), 1);
        *sampler.latest.lock() = Some(Latest { usage: sampled, starting: members.into() });
        assert_eq!(sampler.usage().pods.len(), 1, "while it starts, its start is what it uses");
        pod.update(slot, |status| status.ready = true);
        assert!(sampler.usage().pods.is_empty(), "between it and the next look");

        let members = sampler.latest.lock().take().expect("what was put there").starting;
        assert!(usage(&members, &found(start), &mut tracks).pods.is_empty(), "a window begins here");
        tracks.get_mut(&7).expect("seen").history[0].0 -= Duration::from_secs(1);
        let share = usage(&members, &found(idle), &mut tracks).pods[0].containers[0].1.cpu_nanocores;
        assert!(share <= 10_000_000, "a hundredth of a core since: {share}");
    }
}
