//! The sandbox's controllers: scheduler, Deployment, ReplicaSet, EndpointSlice, autoscaler, garbage collection and the
//! smaller duties of Kubernetes' controller manager.
//!
//! They speak to the API server through [`kube::Client`] alone, as any controller would. Each is one pass over what the
//! watches have brought ([`control::Controller`]), run again whenever one of its inputs changes: level-triggered, so
//! that a missed or repeated event does no harm, and prompt, because nothing is polled that a watch can tell.

mod api_service;
mod autoscaler;
mod cache;
mod cluster;
mod control;
mod deployment;
mod disruption;
mod endpoints;
mod expiry;
mod garbage;
mod namespaces;
mod objects;
mod pods;
mod replica_set;
mod scheduler;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// Runs every controller until `shutdown`.
///
/// Waits for the API server as long as it is away; no failure of a request ends it.
///
/// # Errors
/// When a controller panicked, which is a defect.
pub async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let cluster = Cluster::start(client, &mut tasks);
    if shutdown.run_until_cancelled(cluster.synced()).await.is_some() {
        control::start(&mut tasks, scheduler::Scheduler::new(&cluster));
        control::start(&mut tasks, deployment::Deployments::new(&cluster));
        control::start(&mut tasks, replica_set::ReplicaSets::new(&cluster));
        control::start(&mut tasks, endpoints::EndpointSlices::new(&cluster));
        control::start(&mut tasks, endpoints::LegacyEndpoints::new(&cluster));
        control::start(&mut tasks, autoscaler::Autoscalers::new(&cluster));
        control::start(&mut tasks, disruption::Budgets::new(&cluster));
        control::start(&mut tasks, garbage::Garbage::new(&cluster));
        control::start(&mut tasks, namespaces::Namespaces::new(&cluster));
        control::start(&mut tasks, api_service::MetricsApi::new(&cluster));
        control::start(&mut tasks, expiry::Expiry::new(&cluster));
    }
    let mut outcome = Ok(());
    tokio::select! {
        () = shutdown.cancelled() => {}
        // Tasks never end by themselves.
        Some(Err(panic)) = tasks.join_next() => {
            outcome = Err(anyhow::Error::new(panic).context("a controller stopped"));
        }
    }
    tasks.shutdown().await;
    outcome
}
