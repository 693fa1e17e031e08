//! The scheduler: binds each pending pod to a node that has room for what the pod requests.
//!
//! It knows readiness, cordons, NoSchedule and NoExecute taints, node selectors and requests of cpu, memory, ephemeral
//! storage and pod slots. Affinity, topology spread, host ports and preemption it leaves out: the sandbox has one node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Container, Node, ObjectReference, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time};
use kube::api::{Patch, PostParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::control::{Controller, Pass, has_code};
use crate::pods;

const COMPONENT: &str = "default-scheduler";

pub(crate) struct Scheduler {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
    /// Pods bound by us whose new state the watch hasn't brought yet: uid to node.
    assumed: HashMap<String, String>,
}

impl Scheduler {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.pods.wake(&changes);
        cluster.nodes.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes, assumed: HashMap::new() }
    }

    fn node_of(&self, pod: &Pod) -> Option<String> {
        let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
        bound.or_else(|| self.assumed.get(pod.metadata.uid.as_deref()?).cloned())
    }

    async fn bind(&mut self, pod: &Pod, node: &str) -> kube::Result<()> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                uid: pod.uid(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &namespace);
        let _: Status = api.create_subresource("binding", &name, &PostParams::default(), &binding).await?;
        self.assumed.insert(pod.uid().unwrap_or_default(), node.to_owned());
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.cluster.events.normal(COMPONENT, pod, "Scheduled", message);
        Ok(())
    }

    /// Writes why the pod waits, where that is news.
    async fn report_unschedulable(&self, pod: &Pod, message: String) -> kube::Result<()> {
        let old = pods::condition(pod, "PodScheduled");
        if old.is_some_and(|old| old.status == "False" && old.message.as_ref() == Some(&message)) {
            return Ok(());
        }
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some("Unschedulable".to_owned()),
            message: Some(message.clone()),
            last_transition_time: old
                .filter(|old| old.status == "False")
                .and_then(|old| old.last_transition_time.clone())
                .or_else(|| Some(Time(Timestamp::now()))),
            ..PodCondition::default()
        };
        // Strategic: conditions merge by type, so that others' stay.
        let patch =
            serde_json::json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } });
        let api = self.cluster.api::<Pod>(&pod.namespace().unwrap_or_default());
        let patched = api.patch_status(&pod.name_any(), &Patch::Strategic(patch)).await?;
        self.cluster.pods.observe(patched);
        self.cluster.events.warning(COMPONENT, pod, "FailedScheduling", message);
        Ok(())
    }
}

impl Controller for Scheduler {
    const NAME: &'static str = "scheduler";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        let all = self.cluster.pods.all();
        let unseen = |pod: &Arc<Pod>| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none());
        let waiting_uids: Vec<String> =
            all.iter().filter(|pod| unseen(pod)).filter_map(|pod| pod.uid()).collect();
        self.assumed.retain(|uid, _| waiting_uids.contains(uid));

        let mut rooms: Vec<Room> = self.cluster.nodes.all().into_iter().map(Room::new).collect();
        for pod in all.iter().filter(|pod| !pods::is_finished(pod)) {
            if let Some(node) = self.node_of(pod)
                && let Some(room) = rooms.iter_mut().find(|room| room.node.name_any() == node)
            {
                room.take(&Requests::of(pod));
            }
        }

        for pod in queue(&all) {
            if self.node_of(&pod).is_some() {
                continue;
            }
            let requests = Requests::of(&pod);
            let outcome = match choose(&pod, &requests, &mut rooms) {
                Ok(room) => {
                    let node = room.node.name_any();
                    let bound = self.bind(&pod, &node).await;
                    if bound.is_ok() {
                        room.take(&requests);
                    }
                    bound
                }
                Err(why) => self.report_unschedulable(&pod, why).await,
            };
            match outcome {
                Err(error) if !has_code(&error, 404) => {
                    pass.failed(format_args!("schedule pod {}", pods::path(&pod.metadata)), &error);
                }
                _ => {}
            }
        }
        pass
    }
}

/// The pods that wait for a node: the most important first, then the oldest.
fn queue(all: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let waits = |pod: &&Arc<Pod>| {
        let Some(spec) = &pod.spec else { return false };
        spec.node_name.is_none()
            && pods::is_active(pod)
            && spec.scheduler_name.as_deref().is_none_or(|name| name == COMPONENT)
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
    };
    let mut queue: Vec<Arc<Pod>> = all.iter().filter(waits).cloned().collect();
    queue.sort_by_key(|pod| {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        (std::cmp::Reverse(priority), pod.creation_timestamp().map(|time| time.0), pod.name_any())
    });
    queue
}

/// The node with the most memory left among those that take the pod; else why none does, in kube-scheduler's words.
fn choose<'a>(pod: &Pod, requests: &Requests, rooms: &'a mut [Room]) -> Result<&'a mut Room, String> {
    let total = rooms.len();
    if total == 0 {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut short_of_room = 0;
    let mut best: Option<usize> = None;
    for (index, room) in rooms.iter().enumerate() {
        let refusals = match room.refusal(pod) {
            Some(refusal) => vec![refusal],
            None => {
                let lacking = room.lacking(requests);
                short_of_room += usize::from(!lacking.is_empty());
                lacking
            }
        };
        if refusals.is_empty() && best.is_none_or(|best| rooms[best].memory_left() < room.memory_left()) {
            best = Some(index);
        }
        for refusal in refusals {
            *reasons.entry(refusal).or_default() += 1;
        }
    }
    if let Some(best) = best {
        return Ok(&mut rooms[best]);
    }
    let join = |reasons: Vec<String>| reasons.join(", ");
    let mut why: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    why.sort();
    let mut preemption = Vec::new();
    if short_of_room > 0 {
        preemption.push(format!("{short_of_room} No preemption victims found for incoming pod"));
    }
    if total > short_of_room {
        preemption.push(format!("{} Preemption is not helpful for scheduling", total - short_of_room));
    }
    Err(format!(
        "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: {}.",
        join(why),
        join(preemption)
    ))
}

/// What a pod asks of a node, in thousandths, by resource name.
struct Requests(BTreeMap<String, i64>);

impl Requests {
    fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self(BTreeMap::new()) };
        let mut sum: BTreeMap<String, i64> = BTreeMap::new();
        let mut peak: BTreeMap<String, i64> = BTreeMap::new();
        for container in spec.init_containers.iter().flatten() {
            for (name, amount) in requested(container) {
                if container.restart_policy.as_deref() == Some("Always") {
                    *sum.entry(name).or_default() += amount;
                } else {
                    let peak = peak.entry(name).or_default();
                    *peak = amount.max(*peak);
                }
            }
        }
        for (name, amount) in spec.containers.iter().flat_map(requested) {
            *sum.entry(name).or_default() += amount;
        }
        // Containers that only run first need room for themselves alone.
        for (name, amount) in peak {
            let sum = sum.entry(name).or_default();
            *sum = amount.max(*sum);
        }
        for (name, amount) in amounts(spec.overhead.as_ref()) {
            *sum.entry(name).or_default() += amount;
        }
        sum.insert("pods".to_owned(), 1000);
        Self(sum)
    }
}

fn requested(container: &Container) -> Vec<(String, i64)> {
    let Some(resources) = &container.resources else { return Vec::new() };
    let mut amounts: BTreeMap<String, i64> = amounts(resources.limits.as_ref()).collect();
    // A limit without a request is the request.
    amounts.extend(self::amounts(resources.requests.as_ref()));
    amounts.into_iter().collect()
}

fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> impl Iterator<Item = (String, i64)> {
    quantities
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), quantity::milli(&amount.0)?)))
}

/// A node and what is left on it.
struct Room {
    node: Arc<Node>,
    left: BTreeMap<String, i64>,
}

impl Room {
    fn new(node: Arc<Node>) -> Self {
        let left = amounts(node.status.as_ref().and_then(|status| status.allocatable.as_ref())).collect();
        Self { node, left }
    }

    fn take(&mut self, requests: &Requests) {
        for (name, amount) in &requests.0 {
            if let Some(left) = self.left.get_mut(name) {
                *left -= amount;
            }
        }
    }

    fn memory_left(&self) -> i64 {
        self.left.get("memory").copied().unwrap_or_default()
    }

    /// Which of the requests don't fit. A resource that the node doesn't report is refused only if it is an extended
    /// one.
    fn lacking(&self, requests: &Requests) -> Vec<String> {
        let lacks = |name: &str, amount: i64| match self.left.get(name) {
            Some(left) => amount > *left,
            None => amount > 0 && name.contains('/'),
        };
        let lacking = requests.0.iter().filter(|(name, amount)| lacks(name, **amount));
        lacking
            .map(
                |(name, _)| {
                    if name == "pods" { "Too many pods".to_owned() } else { format!("Insufficient {name}") }
                },
            )
            .collect()
    }

    /// Why the node takes no such pod, however much room it has.
    fn refusal(&self, pod: &Pod) -> Option<String> {
        let (spec, wanted) = (self.node.spec.as_ref(), pod.spec.as_ref()?);
        if spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
            return Some("node(s) were unschedulable".to_owned());
        }
        let conditions = self.node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready =
            conditions.and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"));
        if ready.is_none_or(|ready| ready.status != "True") {
            return Some("node(s) had untolerated taint {node.kubernetes.io/not-ready: }".to_owned());
        }
        let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        if let Some(taint) = taints
            .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
            .find(|taint| !tolerates(pod, taint))
        {
            let value = taint.value.as_deref().unwrap_or_default();
            return Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
        }
        let labels = self.node.labels();
        let selector = wanted.node_selector.as_ref();
        if selector.is_some_and(|selector| selector.iter().any(|(key, value)| labels.get(key) != Some(value)))
        {
            return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
        }
        None
    }
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref()).into_iter().flatten();
    tolerations.into_iter().any(|toleration| {
        let some = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        some(&toleration.effect).is_none_or(|effect| effect == taint.effect)
            && some(&toleration.key).is_none_or(|key| key == taint.key)
            && (toleration.operator.as_deref() == Some("Exists")
                || some(&toleration.value) == some(&taint.value))
    })
}
