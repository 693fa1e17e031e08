//! The Node object and its lease: registered at the start, kept fresh until the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::address::HOST_IP;
use crate::context::{Context, NodeConfig};

/// Where node leases live.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The kubelet's: a lease of 40 s, renewed every quarter of it.
const LEASE_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// The conditions' heartbeat is written with every so many-th renewal.
const HEARTBEAT_EVERY: u64 = 6;
const MAX_PODS: u32 = 110;

/// Makes or takes over the Node object, with a Ready status.
pub(crate) async fn register(client: &kube::Client, config: &NodeConfig) -> Result<()> {
    let name = &config.node_name;
    let api: Api<Node> = Api::all(client.clone());
    let labels = json!({
        "kubernetes.io/arch": architecture(),
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": std::env::consts::OS,
    });
    let node: Node = serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } }))?;
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
            api.patch(name, &PatchParams::default(), &patch)
                .await
                .with_context(|| format!("taking over the node {name}"))?;
        }
        Err(error) => return Err(error).with_context(|| format!("registering the node {name}")),
    }
    let since = Timestamp::now();
    let status = json!({ "status": status(config, since) });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .with_context(|| format!("writing the status of the node {name}"))?;
    renew(client, name).await.with_context(|| format!("writing the lease of the node {name}"))
}

/// Renews the lease and the heartbeat until shutdown.
pub(crate) async fn keep_alive(cx: Arc<Context>) {
    let name = &cx.config.node_name;
    let api: Api<Node> = Api::all(cx.client.clone());
    for round in 1u64.. {
        tokio::select! {
            () = cx.shutdown.cancelled() => return,
            () = tokio::time::sleep(RENEW_EVERY) => {}
        }
        if let Err(error) = renew(&cx.client, name).await {
            tracing::warn!("renewing the lease of the node {name}: {error}");
        }
        if round % HEARTBEAT_EVERY == 0
            && let Err(error) = heartbeat(&api, &cx.config).await
        {
            tracing::warn!("writing the heartbeat of the node {name}: {error}");
        }
    }
}

async fn renew(client: &kube::Client, name: &str) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let now = MicroTime(Timestamp::now());
    let patch = Patch::Merge(json!({ "spec": { "renewTime": now, "holderIdentity": name } }));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            let spec = LeaseSpec {
                holder_identity: Some(name.to_owned()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(now),
                ..LeaseSpec::default()
            };
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(LEASE_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            };
            api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await.map(drop)
        }
        patched => patched.map(drop),
    }
}

/// Only the times move: since when a condition holds stays as the API has it.
async fn heartbeat(api: &Api<Node>, config: &NodeConfig) -> Result<(), kube::Error> {
    let node = api.get(&config.node_name).await?;
    let known = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = known.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True");
    let since = ready
        .and_then(|ready| ready.last_transition_time.as_ref())
        .map_or_else(Timestamp::now, |time| time.0);
    let patch = Patch::Merge(json!({ "status": { "conditions": conditions(since) } }));
    api.patch_status(&config.node_name, &PatchParams::default(), &patch).await.map(drop)
}

fn status(config: &NodeConfig, since: Timestamp) -> Value {
    let resources = json!({
        "cpu": config.cpus.to_string(),
        "memory": format!("{}Ki", config.memory_bytes / 1024),
        "pods": MAX_PODS.to_string(),
    });
    json!({
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            { "type": "InternalIP", "address": HOST_IP },
            { "type": "Hostname", "address": config.node_name },
        ],
        "conditions": conditions(since),
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": "",
            "containerRuntimeVersion": concat!("process://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": kernel_version(),
            "kubeProxyVersion": "",
            "kubeletVersion": concat!("v1.34.0+sandbox.", env!("CARGO_PKG_VERSION")),
            "machineID": "",
            "operatingSystem": std::env::consts::OS,
            "osImage": "sandbox: processes of this machine",
            "systemUUID": "",
        },
    })
}

fn conditions(since: Timestamp) -> Value {
    let now = Timestamp::now().as_second();
    let stamp = |seconds: i64| Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
    let condition = |name: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": name,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": stamp(now),
            "lastTransitionTime": stamp(since.as_second()),
        })
    };
    json!([
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available"
        ),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ])
}

/// As Go, and thus Kubernetes, names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel_version() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
