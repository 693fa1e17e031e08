//! Whether what the manifests ask for fits: 3 to 10 pods with their requests, and one more while they are replaced.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::Finding;
use crate::clusters::{Choice, Cluster, Kind};
use crate::cx::Cx;
use crate::manifests::Manifests;

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// A build of the workspace takes about this much of the disk.
const BUILD_BYTES: f64 = 5.0 * GIB;
/// With less, not even an image can be imported.
const LEAST_BYTES: f64 = 1.0 * GIB;

/// One node, or the machine that will be one, and what it has free: by resource.
#[derive(Debug, PartialEq)]
struct Room {
    name: String,
    free: BTreeMap<&'static str, f64>,
}

/// How many pods there will be.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pods {
    min: u32,
    max: u32,
}

pub(super) async fn look(
    cx: &Cx,
    choice: &Choice,
    running: Option<&Cluster>,
    manifests: &Manifests,
) -> Result<Vec<Finding>> {
    let asked = match running {
        Some(cluster) => of_cluster(cluster, manifests.pod_selector()).await,
        None => choice.kind.size(cx).await.map(|size| {
            let free = BTreeMap::from([("memory", size.memory_bytes as f64), ("cpu", f64::from(size.cpus))]);
            vec![Room { name: size.of, free }]
        }),
    };
    let rooms = match asked {
        Ok(rooms) => rooms,
        Err(error) => {
            let what = format!("unknown: {}", crate::failure::paragraph(&error));
            return Ok(vec![Finding::warning(
                "memory",
                what,
                format!("`{}` says more", cx.commands.xtask("status")),
            )]);
        }
    };
    let need = manifests.deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let need = need.map(requests).unwrap_or_default();
    let spec = manifests.autoscaler.as_ref().and_then(|autoscaler| autoscaler.spec.as_ref());
    let replicas = manifests.deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let count = |number: i32| u32::try_from(number).unwrap_or_default();
    let pods = Pods {
        min: count(manifests.min_replicas().unwrap_or(replicas)),
        max: count(spec.map_or(replicas, |spec| spec.max_replicas)),
    };
    let fix = match &choice.kind {
        Kind::Minikube(_) => format!(
            "`minikube delete --profile {0}`, then `minikube start --profile {0} --container-runtime=docker` with a larger --memory and --cpus",
            cx.shared.profile
        ),
        Kind::Sandbox(_) => "lower `resources.requests` in kubernetes/30-deployment.yaml, or the autoscaler's bounds in kubernetes/40-hpa.yaml".to_owned(),
    };
    Ok(["memory", "cpu"]
        .into_iter()
        .filter_map(|resource| judge(resource, &need, pods, &rooms, &fix))
        .collect())
}

/// What the pods of the other workloads leave free on each node.
async fn of_cluster(cluster: &Cluster, ours: &str) -> Result<Vec<Room>> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let (all, ours) = (ListParams::default(), ListParams::default().labels(ours));
    let (nodes, pods, ours) =
        futures::try_join!(nodes.list(&all), pods.list(&all), pods.list_metadata(&ours))
            .context("asking the cluster for its nodes and pods")?;
    let is_ours = |pod: &Pod| ours.items.iter().any(|other| other.uid() == pod.uid());
    let is_over = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let others: Vec<&Pod> = pods.items.iter().filter(|pod| !is_ours(pod) && !is_over(pod)).collect();
    let room = |node: &Node| {
        let name = node.name_any();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let mut free = BTreeMap::new();
        for resource in ["memory", "cpu"] {
            let whole = allocatable
                .and_then(|all| all.get(resource))
                .and_then(|amount| quantity::value(&amount.0))
                .unwrap_or_default();
            let taken: f64 = others
                .iter()
                .filter_map(|pod| pod.spec.as_ref().filter(|spec| spec.node_name.as_ref() == Some(&name)))
                .filter_map(|spec| requests(spec).get(resource).copied())
                .sum();
            free.insert(resource, (whole - taken).max(0.0));
        }
        Room { name: format!("node {name}"), free }
    };
    Ok(nodes.items.iter().map(room).collect())
}

fn judge(
    resource: &'static str,
    need: &BTreeMap<String, f64>,
    pods: Pods,
    rooms: &[Room],
    fix: &str,
) -> Option<Finding> {
    let each = need.get(resource).copied().filter(|each| *each > 0.0)?;
    let fits = |room: &Room| (room.free.get(resource).copied().unwrap_or_default() / each).floor();
    let fit: f64 = rooms.iter().map(fits).sum();
    let free: f64 = rooms.iter().filter_map(|room| room.free.get(resource)).sum();
    let names: Vec<&str> = rooms.iter().map(|room| room.name.as_str()).collect();
    let place = format!("{} has {} free", names.join(", "), amount(resource, free));
    let Pods { min, max } = pods;
    let each = amount(resource, each);
    let finding = if fit < f64::from(min) {
        let what = format!("{min} pods of {each} don't fit: {place}, room for {fit}");
        Finding::fatal(resource, what, fix)
    } else if fit < f64::from(min) + 1.0 {
        let what = format!("{min} pods of {each} fit, but not the extra one that a rollout needs: {place}");
        Finding::warning(resource, what, fix)
    } else if fit < f64::from(max) {
        let what = format!(
            "room for {fit} of the {max} pods of {each} that the autoscaler may ask for: {place}; the rest would stay Pending"
        );
        Finding::warning(resource, what, fix)
    } else {
        Finding::ok(resource, format!("{min} to {max} pods of {each} fit: {place}"))
    };
    Some(finding)
}

/// What a pod asks for: its containers together.
fn requests(spec: &PodSpec) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for container in &spec.containers {
        let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        for (resource, amount) in asked.into_iter().flatten() {
            *sums.entry(resource.clone()).or_default() += quantity::value(&amount.0).unwrap_or_default();
        }
    }
    sums
}

fn amount(resource: &str, number: f64) -> String {
    match resource {
        "memory" => format!("{:.1} GiB", number / GIB),
        _ if number < 1.0 => format!("{:.0}m", number * 1000.0),
        _ => format!("{number:.1} cores"),
    }
}

/// Room for what is built.
pub(super) fn disk(cx: &Cx) -> Finding {
    let there = cx.target.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    match rustix::fs::statvfs(there) {
        Ok(about) => {
            judge_disk((about.f_bavail as f64) * (about.f_frsize as f64), &cx.short(there).to_string())
        }
        Err(error) => {
            Finding::warning("disk", format!("{} can't be inspected: {error}", there.display()), "`df -h`")
        }
    }
}

fn judge_disk(free: f64, place: &str) -> Finding {
    let place = if place.is_empty() { "this folder" } else { place };
    let what = format!("{} free at {place}", amount("memory", free));
    let fix =
        "free some (`cargo clean` in workspaces you don't use), or set CARGO_TARGET_DIR to another disk";
    if free < LEAST_BYTES {
        Finding::fatal("disk", what, fix)
    } else if free < BUILD_BYTES {
        Finding::warning(
            "disk",
            format!("{what}; a build from scratch takes up to {}", amount("memory", BUILD_BYTES)),
            fix,
        )
    } else {
        Finding::ok("disk", what)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    const PODS: Pods = Pods { min: 3, max: 10 };

    fn of(memory_gib: &[f64]) -> Finding {
        let rooms: Vec<Room> = memory_gib
            .iter()
            .enumerate()
            .map(|(n, gib)| Room { name: format!("node n{n}"), free: [("memory", gib * GIB)].into() })
            .collect();
        judge("memory", &[("memory".to_owned(), GIB)].into(), PODS, &rooms, "more memory").expect("a finding")
    }

    #[test]
    fn from_no_room_to_room_for_all() {
        let lines: Vec<String> = [2.5, 3.5, 7.2, 16.0]
            .iter()
            .map(|gib| format!("{:?}: {}", of(&[*gib]).level, of(&[*gib]).what))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        Fatal: 3 pods of 1.0 GiB don't fit: node n0 has 2.5 GiB free, room for 2
        Warning: 3 pods of 1.0 GiB fit, but not the extra one that a rollout needs: node n0 has 3.5 GiB free
        Warning: room for 7 of the 10 pods of 1.0 GiB that the autoscaler may ask for: node n0 has 7.2 GiB free; the rest would stay Pending
        Ok: 3 to 10 pods of 1.0 GiB fit: node n0 has 16.0 GiB free
        ");
    }

    #[test]
    fn what_is_left_of_two_nodes_does_not_make_a_pod() {
        assert_eq!(of(&[1.9, 1.9]).level, Level::Fatal);
        assert_eq!(of(&[2.0, 2.0]).level, Level::Warning);
    }

    #[test]
    fn what_is_not_asked_for_is_not_judged() {
        assert_eq!(judge("cpu", &BTreeMap::new(), PODS, &[], ""), None);
    }

    #[test]
    fn the_disk() {
        let levels = [0.5, 3.0, 50.0].map(|gib| judge_disk(gib * GIB, "target").level);
        assert_eq!(levels, [Level::Fatal, Level::Warning, Level::Ok]);
    }
}
