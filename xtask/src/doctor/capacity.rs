//! Whether what the manifests ask for fits: 3 to 10 pods with their requests, and one more while they are replaced.

use std::path::Path;

use anyhow::Result;
use k8s_openapi::api::core::v1::PodSpec;

use super::Finding;
use crate::capacity::{self, Amounts, Room, amount, fit_by, free};
use crate::clusters::{Choice, Cluster, Kind, Size};
use crate::cx::Cx;
use crate::manifests::Manifests;

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// A build of the workspace takes about this much of the disk.
const BUILD_BYTES: f64 = 5.0 * GIB;
/// With less, not even an image can be imported.
const LEAST_BYTES: f64 = 1.0 * GIB;

/// How many pods there will be.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pods {
    min: i64,
    max: i64,
}

pub(super) async fn look(
    cx: &Cx,
    choice: &Choice,
    running: Option<&Cluster>,
    manifests: &Manifests,
) -> Result<Vec<Finding>> {
    let deployment = manifests.deployment.spec.as_ref();
    let pod = deployment.and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    let rooms = match rooms(cx, choice, running, manifests, &pod).await {
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
    if rooms.is_empty() {
        let fix = format!("`{}` lets pods in again", cx.commands.kubectl("uncordon NODE"));
        return Ok(vec![Finding::fatal("memory", "no node takes the app's pods: cordoned or tainted", fix)]);
    }
    let spec = manifests.autoscaler.as_ref().and_then(|autoscaler| autoscaler.spec.as_ref());
    let replicas = deployment.and_then(|spec| spec.replicas).unwrap_or(1);
    let pods = Pods {
        min: manifests.min_replicas().unwrap_or(replicas).into(),
        max: spec.map_or(replicas, |spec| spec.max_replicas).into(),
    };
    let fix = match &choice.kind {
        Kind::Minikube(_) => format!(
            "`minikube delete --profile {0}`, then `minikube start --profile {0} \
             --container-runtime=docker` with a larger --memory and --cpus",
            cx.shared.profile
        ),
        Kind::Sandbox(_) | Kind::Context(_) => {
            "lower `resources.requests` in kubernetes/30-deployment.yaml, or the \
                                                autoscaler's bounds in kubernetes/40-hpa.yaml"
                .to_owned()
        }
    };
    let need = capacity::requests(&pod);
    Ok(["memory", "cpu"]
        .into_iter()
        .filter_map(|resource| judge(resource, &need, pods, &rooms, &fix))
        .collect())
}

/// The nodes, or the machine that will be one.
async fn rooms(
    cx: &Cx,
    choice: &Choice,
    running: Option<&Cluster>,
    manifests: &Manifests,
    pod: &PodSpec,
) -> Result<Vec<Room>> {
    if let Some(Cluster { client, .. }) = running {
        return capacity::rooms(client, &cx.shared.namespace, manifests.deployment_name(), pod).await;
    }
    let Size { of, memory_bytes, cpus } = choice.kind.size(cx).await?;
    let memory = i64::try_from(memory_bytes).unwrap_or(i64::MAX).saturating_mul(1000);
    let free = [("memory".to_owned(), memory), ("cpu".to_owned(), i64::from(cpus) * 1000)];
    Ok(vec![Room { name: of, free: free.into() }])
}

fn judge(
    resource: &'static str,
    need: &Amounts,
    Pods { min, max }: Pods,
    rooms: &[Room],
    fix: &str,
) -> Option<Finding> {
    let each = need.get(resource).copied().filter(|each| *each > 0)?;
    let fit = fit_by(rooms, resource, each);
    let (place, each) = (free(rooms, resource), amount(resource, each));
    let finding = if fit < min {
        let what = format!("{min} pods of {each} don't fit: {place}, room for {fit}");
        Finding::fatal(resource, what, fix)
    } else if fit == min {
        let what = format!("{min} pods of {each} fit, but not the extra one that a rollout needs: {place}");
        Finding::warning(resource, what, fix)
    } else if fit < max {
        let what = format!(
            "room for {fit} of the {max} pods of {each} that the autoscaler may ask for: {place}; the rest \
             would stay Pending"
        );
        Finding::warning(resource, what, fix)
    } else {
        Finding::ok(resource, format!("{min} to {max} pods of {each} fit: {place}"))
    };
    Some(finding)
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

fn gib(bytes: f64) -> String {
    format!("{:.1} GiB", bytes / GIB)
}

fn judge_disk(free: f64, place: &str) -> Finding {
    let place = if place.is_empty() { "this folder" } else { place };
    let what = format!("{} free at {place}", gib(free));
    let fix =
        "free some (`cargo clean` in workspaces you don't use), or set CARGO_TARGET_DIR to another disk";
    if free < LEAST_BYTES {
        Finding::fatal("disk", what, fix)
    } else if free < BUILD_BYTES {
        Finding::warning(
            "disk",
            format!("{what}; a build from scratch takes up to {}", gib(BUILD_BYTES)),
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
        let memory = |gib: f64| Amounts::from([("memory".to_owned(), (gib * GIB * 1000.0) as i64)]);
        let rooms: Vec<Room> = memory_gib
            .iter()
            .enumerate()
            .map(|(n, gib)| Room { name: format!("node n{n}"), free: memory(*gib) })
            .collect();
        judge("memory", &memory(1.0), PODS, &rooms, "more memory").expect("a finding")
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
        assert_eq!(judge("cpu", &Amounts::new(), PODS, &[], ""), None);
    }

    #[test]
    fn the_disk() {
        let levels = [0.5, 3.0, 50.0].map(|gib| judge_disk(gib * GIB, "target").level);
        assert_eq!(levels, [Level::Fatal, Level::Warning, Level::Ok]);
    }
}
