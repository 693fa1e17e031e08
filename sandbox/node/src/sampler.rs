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
    latest: Mutex<Option<Usage>>,
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
}

/// When, and how much CPU time had been used by then.
type History = VecDeque<(Instant, Duration)>;

impl Sampler {
    pub(crate) fn usage(&self) -> Usage {
        let latest = self.latest.lock().clone();
        latest.unwrap_or_else(|| Usage { node: nothing(Timestamp::now()), pods: Vec::new() })
    }

    /// Samples until shutdown.
    pub(crate) async fn run(self: Arc<Sampler>, cx: Arc<Context>, pods: Pods) {
        let mut pause = Duration::ZERO;
        let mut histories: HashMap<i32, History> = HashMap::new();
        loop {
            tokio::select! {
                () = cx.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let members = members(&pods);
            let any_young = members.iter().any(Member::is_young);
            pause = if any_young { cx.tuning.sample_period / 2 } else { cx.tuning.sample_period };
            let groups = members.iter().map(|member| member.group.pgid).collect();
            let Ok(found) = tokio::task::spawn_blocking(move || group_use::of_groups(&groups)).await else {
                continue;
            };
            for member in &members {
                if let Some(used) = found.get(&member.group.pgid) {
                    enforce(&cx, member, *used);
                }
            }
            histories.retain(|pgid, _| found.contains_key(pgid));
            let usage = usage(&members, &found, &mut histories);
            *self.latest.lock() = Some(usage);
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

fn usage(members: &[Member], found: &HashMap<i32, GroupUse>, histories: &mut HashMap<i32, History>) -> Usage {
    let (now, at) = (Instant::now(), Timestamp::now());
    let mut node = nothing(at);
    let mut pods: Vec<PodUsage> = Vec::new();
    for member in members {
        let Some(used) = found.get(&member.group.pgid) else { continue };
        // A process had used nothing when it began: so the first look at a container is a sample already, as
        // metrics-server takes it of one that is new.
        let begin = (member.group.since, Duration::ZERO);
        let history = histories.entry(member.group.pgid).or_insert_with(|| History::from([begin]));
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
        let same =
            |last: &&mut PodUsage| last.namespace == member.pod.namespace && last.pod == member.pod.name;
        match pods.last_mut().filter(same) {
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

    #[tokio::test]
    async fn the_first_look_at_a_container_is_a_sample_of_its_life_so_far() {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u"},
            "spec": {"containers": [{"name": "web"}]},
        });
        let pod = Arc::new(serde_json::from_value(pod).expect("a pod"));
        let group = |age| Group {
            pgid: 7,
            since: Instant::now() - age,
            memory_limit_bytes: None,
            out_of_memory: Arc::default(),
        };
        let seen = |age| {
            let pod = Arc::new(PodHandle::new(Path::new("/nowhere"), Arc::clone(&pod)));
            let (slot, name) = (slots(&pod.pod())[0].0, "web".to_owned());
            let members = [Member { pod, slot, name, group: group(age) }];
            let found = HashMap::from([(7, GroupUse { cpu: Duration::from_millis(500), rss_bytes: 64 })]);
            usage(&members, &found, &mut HashMap::new()).pods
        };
        let pods = seen(Duration::from_secs(1));
        let (name, sample) = &pods[0].containers[0];
        assert_eq!((name.as_str(), sample.memory_bytes), ("web", 64));
        let share = sample.cpu_nanocores;
        assert!((400_000_000..=500_000_000).contains(&share), "half a core for a second: {share}");
        assert!(seen(Duration::from_millis(1)).is_empty(), "that is shorter than the system's ticks");
    }
}
