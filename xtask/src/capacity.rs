//! How many of the app's pods the nodes have room for, counted as the scheduler counts: by what pods request.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::{Client, ResourceExt as _};

use crate::kubernetes::{Api, each_page};
use crate::owned::Owner;

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// Taints of this kind come and go with a node's condition, which is not a matter of room.
const CONDITIONS: &str = "node.kubernetes.io/";

/// Selects the pods that hold room on a node.
const RUNNING: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// By resource, in thousandths of its unit.
pub type Amounts = BTreeMap<String, i64>;

/// One node, or the machine that will be one, and what it has free.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// Which.
    pub name: String,
    /// What the pods of other workloads leave.
    pub free: Amounts,
}

/// The nodes that take such pods as `pod`, and what is free on them; the pods of `deployment` itself don't count.
///
/// # Errors
/// When the API refuses.
pub async fn rooms(client: &Client, namespace: &str, deployment: &str, pod: &PodSpec) -> Result<Vec<Room>> {
    let (nodes, pods) = (Api::<Node>::all(client.clone()), Api::<Pod>::all(client.clone()));
    let all = ListParams::default();
    let own = async {
        let owner = Owner::find(client, namespace, deployment).await?;
        let own = if let Some(owner) = owner { owner.pods().await? } else { Vec::new() };
        used(&pods, &own).await.context("listing the pods of all namespaces")
    };
    let nodes = async { nodes.list(&all).await.context("listing the nodes") };
    let (nodes, used) = futures::try_join!(nodes, own)?;
    let room = |node: &Node| Room::of(node, used.get(&node.name_any()).unwrap_or(&Amounts::new()));
    Ok(nodes.items.iter().filter(|node| takes(node, pod)).map(room).collect())
}

/// What the pods of others ask of each node. They may be many: no more than a page of them is held at a time.
async fn used(pods: &Api<Pod>, own: &[Pod]) -> kube::Result<BTreeMap<String, Amounts>> {
    let is_own = |pod: &Pod| own.iter().any(|other| other.uid() == pod.uid());
    let mut used = BTreeMap::<String, Amounts>::new();
    let add = |page: Vec<Pod>| {
        for spec in page.iter().filter(|pod| !is_own(pod)).filter_map(|pod| pod.spec.as_ref()) {
            let node = used.entry(spec.node_name.clone().unwrap_or_default()).or_default();
            for (resource, amount) in requests(spec) {
                *node.entry(resource).or_default() += amount;
            }
        }
    };
    each_page(ListParams::default().fields(RUNNING), async |params| pods.list(params).await, add).await?;
    Ok(used)
}

/// Whether a node takes such a pod, however much room it has.
fn takes(node: &Node, pod: &PodSpec) -> bool {
    let Some(spec) = &node.spec else { return true };
    let tolerations = || pod.tolerations.iter().flatten();
    let repels = |taint: &Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
            && !taint.key.starts_with(CONDITIONS)
            && !tolerations().any(|toleration| tolerates(toleration, taint))
    };
    let labels = node.labels();
    let is_selected =
        pod.node_selector.iter().flatten().all(|(label, value)| labels.get(label) == Some(value));
    is_selected && spec.unschedulable != Some(true) && !spec.taints.iter().flatten().any(repels)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let any_or =
        |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == is);
    let exists = toleration.operator.as_deref() == Some("Exists");
    any_or(&toleration.effect, &taint.effect)
        && any_or(&toleration.key, &taint.key)
        && (exists || toleration.value.as_deref() == Some(taint.value.as_deref().unwrap_or_default()))
}

impl Room {
    fn of(node: &Node, used: &Amounts) -> Room {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let left = |(resource, amount): (String, i64)| {
            let left = (amount - used.get(&resource).unwrap_or(&0)).max(0);
            (resource, left)
        };
        Room { name: format!("node {}", node.name_any()), free: amounts(allocatable).map(left).collect() }
    }

    /// How many pods it holds that ask for `each` of a resource; nothing where it does not count that.
    fn holds(&self, resource: &str, each: i64) -> Option<i64> {
        self.free.get(resource).filter(|_| each > 0).map(|free| free / each)
    }
}

/// How many pods that ask for `each` of one resource fit, the others aside.
pub fn fit_by(rooms: &[Room], resource: &str, each: i64) -> i64 {
    rooms.iter().filter_map(|room| room.holds(resource, each)).sum()
}

/// How many pods that ask for `need` fit.
pub fn fit(rooms: &[Room], need: &Amounts) -> i64 {
    let held = |room: &Room| need.iter().filter_map(|(resource, each)| room.holds(resource, *each)).min();
    rooms.iter().filter_map(held).sum()
}

/// The resource that there is too little of first.
pub fn scarcest<'n>(rooms: &[Room], need: &'n Amounts) -> Option<&'n str> {
    let known = need.iter().filter(|(resource, each)| {
        **each > 0 && rooms.iter().any(|room| room.free.contains_key(resource.as_str()))
    });
    known
        .min_by_key(|(resource, each)| fit_by(rooms, resource, **each))
        .map(|(resource, _)| resource.as_str())
}

/// What a pod asks of its node.
pub fn requests(spec: &PodSpec) -> Amounts {
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let (sidecars, first): (Vec<_>, Vec<_>) = spec.init_containers.iter().flatten().partition(is_sidecar);
    let mut asked = Amounts::new();
    for (resource, amount) in sidecars.into_iter().chain(&spec.containers).flat_map(requested) {
        *asked.entry(resource).or_default() += amount;
    }
    // Those that end before the others begin need room for themselves alone.
    for (resource, amount) in first.into_iter().flat_map(requested) {
        let sum = asked.entry(resource).or_default();
        *sum = amount.max(*sum);
    }
    for (resource, amount) in amounts(spec.overhead.as_ref()) {
        *asked.entry(resource).or_default() += amount;
    }
    asked.insert("pods".to_owned(), 1000);
    asked
}

/// What a container asks for; a limit without a request is the request.
fn requested(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    let mut asked: Amounts = amounts(resources.and_then(|resources| resources.limits.as_ref())).collect();
    asked.extend(amounts(resources.and_then(|resources| resources.requests.as_ref())));
    asked
}

fn amounts(of: Option<&BTreeMap<String, Quantity>>) -> impl Iterator<Item = (String, i64)> {
    of.into_iter().flatten().filter_map(|(name, amount)| Some((name.clone(), quantity::milli(&amount.0)?)))
}

/// What is free of a resource, and where: `node minikube has 1.1 cores free`.
pub fn free(rooms: &[Room], resource: &str) -> String {
    let names: Vec<&str> = rooms.iter().map(|room| room.name.as_str()).collect();
    let sum = rooms.iter().filter_map(|room| room.free.get(resource)).sum();
    let have = if names.len() > 1 { "have" } else { "has" };
    format!("{} {have} {} free", names.join(", "), amount(resource, sum))
}

/// An amount of a resource as a person writes it.
pub fn amount(resource: &str, milli: i64) -> String {
    let number = milli as f64 / 1000.0;
    match resource {
        "memory" | "ephemeral-storage" => format!("{:.1} GiB", number / GIB),
        "cpu" if milli < 1000 => format!("{milli}m"),
        "cpu" => format!("{number:.1} cores"),
        _ => format!("{number} {resource}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> PodSpec {
        serde_json::from_value(spec).expect("a pod's spec")
    }

    fn asks(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    /// A new minikube profile: two CPUs of which the control plane and the addons ask for 950m.
    #[test]
    fn the_shipped_pods_fit_a_default_profile_ten_and_one_surging() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../kubernetes");
        let manifests = crate::manifests::read(&folder, "default").expect("the shipped manifests");
        let app = manifests.deployment.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "minikube"},
            "status": {"allocatable": {"cpu": "2", "memory": "12Gi", "ephemeral-storage": "20Gi",
            "pods": "110"}},
        }))
        .expect("a node");
        let system = pod(json!({"containers": [asks("950m", "460Mi")]}));
        let rooms = [Room::of(&node, &requests(&system))];
        assert_eq!((fit(&rooms, &requests(&app)), scarcest(&rooms, &requests(&app))), (11, Some("cpu")));
    }

    #[test]
    fn what_is_scarce_decides_on_each_node() {
        let room = |name: &str, cpu: i64, pods: i64| Room {
            name: name.to_owned(),
            free: Amounts::from([("cpu".to_owned(), cpu), ("pods".to_owned(), pods * 1000)]),
        };
        let need = requests(&pod(json!({"containers": [asks("300m", "1Gi")]})));
        assert_eq!(fit(&[room("a", 3000, 2), room("b", 900, 110)], &need), 2 + 3);
        assert_eq!(
            fit(&[room("a", 299, 110), room("b", 299, 110)], &need),
            0,
            "what is left of two makes no pod"
        );
        assert_eq!(scarcest(&[room("a", 900, 110)], &need), Some("cpu"), "memory is not counted there");
    }

    #[test]
    fn a_pod_asks_for_all_that_runs_at_once() {
        let spec = pod(json!({
            "initContainers": [
                {"name": "once", "resources": {"requests": {"cpu": "2"}}},
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            ],
            "containers": [asks("150m", "1Gi"), {"name": "d", "resources": {"limits": {"cpu": "50m"}}}],
            "overhead": {"cpu": "10m"},
        }));
        let asked = requests(&spec);
        assert_eq!((asked["cpu"], asked["pods"]), (2010, 1000));
        assert_eq!(amount("memory", asked["memory"]), "1.0 GiB");
    }

    #[test]
    fn a_node_may_refuse_whatever_room_it_has() {
        let node = |spec: Value| -> Node {
            serde_json::from_value(json!({"metadata": {"labels": {"disk": "ssd"}}, "spec": spec}))
                .expect("a node")
        };
        let plain = pod(json!({"containers": []}));
        let taint = |key: &str| json!({"taints": [{"key": key, "value": "x", "effect": "NoSchedule"}]});
        assert!(takes(&node(json!({})), &plain));
        assert!(!takes(&node(json!({"unschedulable": true})), &plain));
        assert!(!takes(&node(taint("gpu")), &plain));
        assert!(takes(&node(taint("node.kubernetes.io/not-ready")), &plain));
        let tolerant = |toleration: Value| pod(json!({"containers": [], "tolerations": [toleration]}));
        assert!(takes(&node(taint("gpu")), &tolerant(json!({"key": "gpu", "operator": "Exists"}))));
        assert!(takes(&node(taint("gpu")), &tolerant(json!({"operator": "Exists"}))));
        assert!(!takes(&node(taint("gpu")), &tolerant(json!({"key": "gpu", "value": "y"}))));
        assert!(!takes(&node(json!({})), &pod(json!({"containers": [], "nodeSelector": {"disk": "hdd"}}))));
    }
}
