//! The lease against an API server.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, Client};
use sandbox_apiserver::ApiServer;
use sandbox_ingress::Candidate;

const DURATION: Duration = Duration::from_secs(1);

fn candidate(client: &Client, identity: &str) -> Candidate {
    Candidate::new(client.clone(), "default", "leader", identity, DURATION)
}

async fn spec(client: &Client) -> LeaseSpec {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    leases.get("leader").await.unwrap().spec.unwrap()
}

#[tokio::test]
async fn the_first_one_gets_it_and_renews_it() {
    let client = ApiServer::new("token".into()).client();
    let (mut a, mut b) = (candidate(&client, "a"), candidate(&client, "b"));
    assert!(a.acquire_or_renew().await.unwrap());
    let first = spec(&client).await;
    assert_eq!(first.holder_identity.as_deref(), Some("a"));
    assert_eq!((first.lease_duration_seconds, first.lease_transitions), (Some(1), Some(0)));
    assert!(!b.acquire_or_renew().await.unwrap(), "it is held");
    assert!(a.acquire_or_renew().await.unwrap());
    let renewed = spec(&client).await;
    assert_eq!(renewed.acquire_time, first.acquire_time);
    assert!(renewed.renew_time.unwrap().0 > first.renew_time.unwrap().0);
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_taken_over_once_its_duration_was_seen_to_pass() {
    let client = ApiServer::new("token".into()).client();
    let mut dead = candidate(&client, "dead");
    assert!(dead.acquire_or_renew().await.unwrap());
    let mut next = candidate(&client, "next");
    let seen = Instant::now();
    while !next.acquire_or_renew().await.unwrap() {
        assert!(seen.elapsed() < 10 * DURATION, "taken over in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(seen.elapsed() >= DURATION, "not before: {:?}", seen.elapsed());
    let taken = spec(&client).await;
    assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("next"), Some(1)));
    assert_eq!(taken.acquire_time, taken.renew_time);
    assert!(!dead.acquire_or_renew().await.unwrap(), "the old one must wait in turn");
}

#[tokio::test]
async fn a_restarted_holder_goes_on_at_once() {
    let client = ApiServer::new("token".into()).client();
    assert!(candidate(&client, "pod").acquire_or_renew().await.unwrap());
    assert!(candidate(&client, "pod").acquire_or_renew().await.unwrap());
    assert_eq!(spec(&client).await.lease_transitions, Some(0));
}

#[tokio::test]
async fn of_many_at_once_one_gets_it() {
    let client = ApiServer::new("token".into()).client();
    let mut all: Vec<Candidate> = (0..8).map(|n| candidate(&client, &n.to_string())).collect();
    let tries = futures::future::join_all(all.iter_mut().map(Candidate::acquire_or_renew)).await;
    assert_eq!(tries.into_iter().filter(|got| *got.as_ref().unwrap()).count(), 1);
}
