//! The gate behind a rollout: what may be left of the version before, and for how long.

use serde_json::json;

use super::objects::{ID, IMAGE, OTHER_ID, complete, patch, pod, starting};
use super::{Case, at, clock, expect, judge_each};
use crate::commands::Advice;
use crate::gates::Verdict;
use crate::gates::rollout::Snapshot;
use crate::gates::settled::judge;

#[test]
fn opens_when_the_newest_pods_are_alone() {
    let verdict = judge(&complete(), &clock(5));
    expect(&verdict, "open: 3 of 3 pods are of revision 2, no other is left");
    let Verdict::Open(rolled_out, _) = verdict else { panic!("closed") };
    assert_eq!(rolled_out.pods.len(), 3);
}

fn ending(world: &mut Snapshot, name: &str, set: &str) {
    let mut old = pod(name, set, "web:old", OTHER_ID);
    patch(&mut old, &json!({"metadata": {"deletionTimestamp": at(40).to_string()}}));
    world.pods.insert(name.into(), old);
}

#[test]
fn stays_closed_and_names_what_is_left() {
    let cases: &[Case] = &[
        // What the rollout lacks comes first.
        ("closed: 2 of 3 updated pods Ready; c: startup probe /health not passed yet, 5 s of 90", |s| {
            starting(s.pods.get_mut("web-new-c").unwrap());
        }),
        ("closed: 1 old left (z)", |s| {
            s.pods.insert("web-old-z".into(), pod("web-old-z", "web-old", "web:old", OTHER_ID));
        }),
        ("closed: 2 terminating (y, z)", |s| {
            ending(s, "web-old-y", "web-old");
            ending(s, "web-old-z", "web-old");
        }),
        // Its ReplicaSet may be gone already.
        ("closed: 1 terminating (z)", |s| ending(s, "web-gone-z", "web-gone")),
        // A pod of the newest that goes, because the autoscaler takes it back.
        ("closed: 1 terminating (d)", |s| ending(s, "web-new-d", "web-new")),
        ("closed: 1 more than the 3 that are asked for", |s| {
            s.pods.insert("web-new-d".into(), pod("web-new-d", "web-new", IMAGE, ID));
        }),
        ("closed: no old pod is left; the Deployment counts 4 in all, 3 updated, 3 available", |s| {
            patch(s.deployments.get_mut("web").unwrap(), &json!({"status": {"replicas": 4}}));
        }),
    ];
    judge_each(judge, cases);
}

#[test]
fn a_pod_that_outlives_its_grace_period_is_a_bad_sign() {
    let mut world = complete();
    ending(&mut world, "web-old-z", "web-old");
    let before = clock(41);
    expect(&judge(&world, &before), "closed: 1 terminating (z)");
    // The gate looks again when the sign is due, without an event.
    assert_eq!(before.next().map(|wait| wait.as_secs()), Some(14));
    expect(
        &judge(&world, &clock(55)),
        "suspect: 1 terminating (z): the grace period of z has expired; its node, or a finalizer, holds it",
    );
}

#[test]
fn a_pause_that_keeps_old_pods_dooms() {
    let mut world = complete();
    world.pods.insert("web-old-z".into(), pod("web-old-z", "web-old", "web:old", OTHER_ID));
    patch(world.deployments.get_mut("web").unwrap(), &json!({"spec": {"paused": true}}));
    let verdict = judge(&world, &clock(5));
    expect(&verdict, "doomed: 1 old left (z): deployment/web is paused");
    let Verdict::Doomed(_, advice) = verdict else { panic!("not doomed") };
    assert_eq!(advice, Advice::Kubectl("-n default rollout resume deployment/web".to_owned(), ""));
}
