//! The ingress gates: whose lease counts, and what the webhook's answers mean.

use kube::core::Status;
use serde_json::json;

use super::objects::{lease, object, patch, pod};
use super::{at, clock, expect};
use crate::gates::Verdict;
use crate::gates::clock::Clock;
use crate::gates::ingress_controller::{self, Answer};
use crate::gates::ingress_lease::{Snapshot, judge};
use crate::gates::rollout::{PodRef, RolledOut};
use crate::ingress_nginx::LEASE;

/// The lease as `holder` renewed it, and one Ready pod of the name `nginx-1`.
fn world(holder: &str, renewed: i64) -> Snapshot {
    let mut world = Snapshot::default();
    world.leases.insert(LEASE.into(), lease(holder, renewed));
    world.pods.insert("nginx-1".into(), pod("nginx-1", "nginx", "nginx", ""));
    world
}

#[test]
fn a_renewed_lease_of_a_ready_pod_opens() {
    expect(&judge(&world("nginx-1", -8), &clock(0)), "open: held by nginx-1, renewed 8 s ago");
    // Older controllers add a uuid.
    expect(&judge(&world(" nginx-1_6f1c ", -8), &clock(0)), "open: held by nginx-1, renewed 8 s ago");
    let Verdict::Open(holder, _) = judge(&world("nginx-1", -8), &clock(0)) else { panic!("closed") };
    assert_eq!(holder, "nginx-1");
}

#[test]
fn nobodys_lease_stays_closed() {
    let mut world = world("", -8);
    expect(&judge(&world, &clock(0)), "closed: nobody holds the lease; nginx-1 is Ready and will take it");
    world.leases.clear();
    expect(
        &judge(&world, &clock(0)),
        "closed: the lease ingress-nginx-leader does not exist: no controller has become leader; nginx-1 is \
         Ready and will take it",
    );
    world.pods.clear();
    expect(
        &judge(&world, &clock(0)),
        "closed: the lease ingress-nginx-leader does not exist: no controller has become leader; there is \
         no controller pod",
    );
}

/// However fresh it looks.
#[test]
fn a_lease_left_behind_stays_closed() {
    let mut world = world("nginx-0", -1);
    expect(
        &judge(&world, &clock(0)),
        "closed: the lease is left over from nginx-0, which no longer exists; nginx-1 is Ready and will \
         take it",
    );
    patch(
        world.pods.get_mut("nginx-1").unwrap(),
        &json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
    );
    expect(
        &judge(&world, &clock(0)),
        "closed: the lease is left over from nginx-0, which no longer exists; nginx-1 is not Ready",
    );
}

#[test]
fn a_holder_that_goes_or_is_not_ready_stays_closed() {
    let mut going = world("nginx-1", -1);
    patch(
        going.pods.get_mut("nginx-1").unwrap(),
        &json!({"metadata": {"deletionTimestamp": at(30).to_string()}}),
    );
    expect(
        &judge(&going, &clock(0)),
        "closed: the lease is held by nginx-1, which is being deleted; there is no controller pod",
    );
    let mut starting = world("nginx-1", -1);
    super::objects::starting(starting.pods.get_mut("nginx-1").unwrap());
    expect(
        &judge(&starting, &clock(5)),
        "closed: the lease is held by nginx-1, which is not Ready: startup probe /health not passed yet, 5 \
         s of 90",
    );
}

#[test]
fn a_lease_that_ran_out_stays_closed_until_it_is_renewed() {
    let mut world = world("nginx-1", -31);
    world.note(&clock(0));
    expect(&judge(&world, &clock(0)), "closed: nginx-1 renewed the lease 31 s ago, and it lasts 30 s");
    world.leases.insert(LEASE.into(), lease("nginx-1", 1));
    world.note(&clock(1));
    expect(&judge(&world, &clock(1)), "open: held by nginx-1, which renews it");
}

/// The holder's clock is minutes off the API server's: only a renewal before our eyes counts, and it does.
#[test]
fn a_holder_with_another_clock_counts_when_it_is_seen_to_renew() {
    for (ahead, wanted) in [
        (
            300,
            "closed: held by nginx-1, renewed by a clock 300 s ahead of the API server's; waiting to see it \
             renewed",
        ),
        (-300, "closed: nginx-1 renewed the lease 300 s ago, and it lasts 30 s"),
    ] {
        let mut world = world("nginx-1", ahead);
        world.note(&clock(0));
        expect(&judge(&world, &clock(0)), wanted);
        world.leases.insert(LEASE.into(), lease("nginx-1", ahead + 8));
        world.note(&clock(8));
        expect(&judge(&world, &clock(8)), "open: held by nginx-1, which renews it");
        // And no longer than its duration.
        assert!(matches!(judge(&world, &clock(60)), Verdict::Closed(_)));
    }
}

/// An older renewal that comes in is no proof of life.
#[test]
fn a_lease_put_back_is_no_renewal() {
    let mut world = world("nginx-1", -100);
    world.note(&clock(0));
    world.leases.insert(LEASE.into(), lease("nginx-1", -200));
    world.note(&clock(1));
    expect(&judge(&world, &clock(1)), "closed: nginx-1 renewed the lease 201 s ago, and it lasts 30 s");
}

/// Our own clock is minutes off; what counts is the server's.
#[test]
fn our_own_clock_does_not_matter() {
    for minutes in [-7, 7] {
        let offset = jiff::SignedDuration::from_mins(minutes);
        let server_now = jiff::Timestamp::now().checked_add(offset).unwrap();
        let mut world = world("nginx-1", 0);
        let renewed = server_now - std::time::Duration::from_secs(8);
        patch(world.leases.get_mut(LEASE).unwrap(), &json!({"spec": {"renewTime": format!("{renewed:.6}")}}));
        expect(&judge(&world, &Clock::now_with(Some(offset))), "open: held by nginx-1, renewed 8 s ago");
        let stale = server_now - std::time::Duration::from_secs(45);
        patch(world.leases.get_mut(LEASE).unwrap(), &json!({"spec": {"renewTime": format!("{stale:.6}")}}));
        expect(
            &judge(&world, &Clock::now_with(Some(offset))),
            "closed: nginx-1 renewed the lease 45 s ago, and it lasts 30 s",
        );
    }
}

#[test]
fn a_server_that_does_not_tell_the_time_is_watched() {
    let clock = Clock::now_with(None);
    expect(&judge(&world("nginx-1", 0), &clock), "closed: held by nginx-1; waiting to see it renewed");
}

fn refused(code: u16, message: &str) -> Answer {
    let status: Status =
        object(json!({"status": "Failure", "code": code, "message": message, "reason": "x"}));
    Answer::Refused(Box::new(status))
}

#[test]
fn the_webhooks_denial_dooms_and_its_absence_does_not() {
    let pods = vec![PodRef { name: "nginx-1".into(), uid: "u".into(), ip: "127.0.0.2".into() }];
    let controller = RolledOut { pods, replicas: 1, revision: 1 };
    let judge = |answer| ingress_controller::judge(&controller, answer);
    expect(&judge(Answer::Accepted), "open: nginx-1 Ready, its webhook accepts the app's Ingress");
    let denial = "admission webhook \"validate.nginx.ingress.kubernetes.io\" denied the request: host \"x\" \
                  and path \"/\" is already defined in ingress default/other";
    expect(&judge(refused(400, denial)), &format!("doomed: the app's Ingress is refused: {denial}"));
    expect(&judge(refused(403, denial)), &format!("doomed: the app's Ingress is refused: {denial}"));
    let invalid = "Ingress.networking.k8s.io \"web\" is invalid: spec.rules[0].host: Invalid value: \"X\"";
    expect(&judge(refused(422, invalid)), &format!("doomed: the app's Ingress is refused: {invalid}"));
    for message in [
        "Internal error occurred: failed calling webhook \"validate.nginx\": dial tcp 10.96.1.2:443: \
         connect: connection refused",
        "Internal error occurred: failed calling webhook \"validate.nginx\": no endpoints available for \
         service \"ingress-nginx-controller-admission\"",
        "Internal error occurred: failed calling webhook \"validate.nginx\": tls: failed to verify \
         certificate: x509: certificate signed by unknown authority",
    ] {
        expect(
            &judge(refused(500, message)),
            &format!("closed: the controller is up, its webhook is not: {message}"),
        );
    }
    expect(
        &judge(Answer::None("no answer within 15 s".into())),
        "closed: the API server does not answer the dry run: no answer within 15 s",
    );
}
