//! The rollout gate: which signs doom it, when, and when not yet.

use std::time::Duration;

use serde_json::{Value, json};

use super::objects::{
    ID, IMAGE, OTHER_ID, complete, crashed, not_ready, patch, pod, replica_set, starting, tell, template,
    waiting, warning,
};
use super::{at, clock, doomed_after, each_pod, expect};
use crate::commands::Advice;
use crate::gates::Verdict;
use crate::gates::rollout::{Snapshot, judge};

fn deployment(world: &mut Snapshot, changes: &Value) {
    patch(world.deployments.get_mut("web").unwrap(), changes);
}

#[test]
fn permanent_signs_doom_at_once() {
    for (reason, message, wanted) in [
        (
            "ErrImageNeverPull",
            "Container image \"web:new\" is not present with pull policy of Never",
            "doomed: a: ErrImageNeverPull: Container image \"web:new\" is not present with pull policy of \
             Never",
        ),
        (
            "InvalidImageName",
            "couldn't parse image reference",
            "doomed: a: InvalidImageName: couldn't parse image reference",
        ),
    ] {
        let mut world = complete();
        each_pod(&mut world, |pod| waiting(pod, reason, message));
        expect(&judge(&world, &clock(0)), wanted);
    }
}

#[test]
fn refusals_that_may_pass_doom_within_five_seconds() {
    let not_found = "failed to pull and unpack image \"docker.io/library/web:new\": not found";
    let missing = "configmap \"settings\" not found";
    for (reason, message, told) in
        [("ErrImagePull", not_found, "web:new: not found"), ("CreateContainerConfigError", missing, missing)]
    {
        let mut world = complete();
        each_pod(&mut world, |pod| waiting(pod, reason, message));
        world.note(&clock(0));
        expect(
            &judge(&world, &clock(0)),
            &format!("suspect: 0 of 3 updated pods Ready; a: {reason}: {told}"),
        );
        assert_eq!(doomed_after(&mut world, 600), Some((4, format!("doomed: a: {reason}: {told}"))));
    }
}

#[test]
fn a_back_off_remembers_the_answer_to_the_pull() {
    let mut world = complete();
    let back_off = "Back-off pulling image \"web:new\"";
    each_pod(&mut world, |pod| waiting(pod, "ImagePullBackOff", back_off));
    for name in ["web-new-a", "web-new-b", "web-new-c"] {
        let event = warning(
            &world.pods[name],
            name,
            "Failed",
            "Failed to pull image \"web:new\": manifest unknown",
            0,
        );
        tell(&mut world.events, event);
    }
    assert_eq!(
        doomed_after(&mut world, 600),
        Some((4, "doomed: a: ImagePullBackOff: web:new: manifest unknown".into()))
    );
}

/// The registry may be back in a moment; the kubelet's cache certainly is.
#[test]
fn signs_that_pass_by_themselves_only_warn() {
    for (reason, message) in [
        ("ImagePullBackOff", "Back-off pulling image \"web:new\""),
        ("ErrImagePull", "dial tcp: lookup registry on 10.0.0.1:53: server misbehaving"),
        ("CreateContainerConfigError", "failed to sync configmap cache: timed out waiting for the condition"),
    ] {
        let mut world = complete();
        each_pod(&mut world, |pod| waiting(pod, reason, message));
        expect(
            &judge(&world, &clock(0)),
            &format!("suspect: 0 of 3 updated pods Ready; a: {reason}: {message}"),
        );
        assert_eq!(doomed_after(&mut world, 600), None, "{reason}");
    }
}

#[test]
fn one_good_pod_proves_the_others_wrong() {
    let mut world = complete();
    for name in ["web-new-b", "web-new-c"] {
        waiting(world.pods.get_mut(name).unwrap(), "ErrImageNeverPull", "not present");
    }
    expect(
        &judge(&world, &clock(60)),
        "suspect: 1 of 3 updated pods Ready; b: ErrImageNeverPull: not present",
    );
}

#[test]
fn a_sign_that_went_away_starts_anew() {
    let mut world = complete();
    each_pod(&mut world, |pod| waiting(pod, "CreateContainerConfigError", "secret \"x\" not found"));
    world.note(&clock(0));
    let mut recovered = complete();
    std::mem::swap(&mut recovered.pods, &mut world.pods);
    world.note(&clock(2));
    assert!(world.signs.is_empty());
    std::mem::swap(&mut recovered.pods, &mut world.pods);
    world.note(&clock(3));
    assert!(matches!(judge(&world, &clock(5)), Verdict::Suspect(_)));
    assert!(matches!(judge(&world, &clock(7)), Verdict::Doomed(..)));
}

#[test]
fn a_crash_loop_dooms_after_its_grace() {
    let mut world = complete();
    each_pod(&mut world, |pod| crashed(pod, 2, false));
    // The startup probe gives 90 s; a loop is given 30 of them.
    assert_eq!(
        doomed_after(&mut world, 600),
        Some((30, "doomed: a: container web exited with 1, 3 times".into()))
    );

    let mut quick = template(IMAGE)["spec"].clone();
    quick["containers"][0]["startupProbe"]["failureThreshold"] = 5.into();
    let unasked = json!({"containers": [{"name": "web", "image": IMAGE}]});
    for spec in [quick, unasked] {
        let mut world = complete();
        each_pod(&mut world, |pod| {
            crashed(pod, 2, false);
            patch(pod, &json!({"spec": spec}));
        });
        assert_eq!(doomed_after(&mut world, 600).map(|(seconds, _)| seconds), Some(10));
    }
}

#[test]
fn a_crash_is_no_loop_yet() {
    // Once or twice, as when a dependency is late; or in a run that may succeed; or one pod of three.
    let mut world = complete();
    each_pod(&mut world, |pod| crashed(pod, 1, false));
    expect(
        &judge(&world, &clock(0)),
        "suspect: 0 of 3 updated pods Ready; a: container web exited with 1, 2 times",
    );
    assert_eq!(doomed_after(&mut world, 600), None);
    let mut world = complete();
    each_pod(&mut world, |pod| crashed(pod, 7, true));
    assert_eq!(doomed_after(&mut world, 600), None);
    let mut world = complete();
    crashed(world.pods.get_mut("web-new-b").unwrap(), 7, false);
    assert_eq!(doomed_after(&mut world, 600), None);
}

#[test]
fn a_crash_loop_of_old_pods_is_not_the_rollouts() {
    let mut world = complete();
    starting(world.pods.get_mut("web-new-a").unwrap());
    let mut old = pod("web-old-z", "web-old", "web:old", OTHER_ID);
    crashed(&mut old, 9, false);
    world.pods.insert("web-old-z".into(), old);
    assert!(matches!(judge(&world, &clock(60)), Verdict::Closed(_)));
}

#[test]
fn being_killed_for_memory_is_named() {
    let mut world = complete();
    each_pod(&mut world, |pod| {
        let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        not_ready(
            pod,
            &json!({"restartCount": 1, "lastState": ended,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
        );
    });
    expect(
        &judge(&world, &clock(0)),
        "suspect: 0 of 3 updated pods Ready; a: container web ended (OOMKilled, exit 137), 2 times",
    );
}

/// After a resume of a stopped node every container was killed once more, and that is no news.
#[test]
fn being_stopped_with_the_node_is_no_bad_sign() {
    let resumed = |exit_code: i32, reason: &str| {
        let mut world = complete();
        each_pod(&mut world, |pod| {
            let ended = json!({"terminated": {"exitCode": exit_code, "reason": reason,
                "startedAt": at(-60).to_string()}});
            let state = json!({"running": {"startedAt": at(0).to_string()}});
            not_ready(pod, &json!({"imageID": ID, "restartCount": 2, "lastState": ended, "state": state}));
        });
        world
    };
    for (exit_code, reason) in [(137, "Error"), (143, "Error"), (255, "Unknown")] {
        expect(
            &judge(&resumed(exit_code, reason), &clock(3)),
            "closed: 0 of 3 updated pods Ready; a: startup probe /health not passed yet, 3 s of 90",
        );
    }
    // Killed for memory, on a probe's word, or by its own fault: the pod's affair.
    let bad = |world: &Snapshot| matches!(judge(world, &clock(3)), Verdict::Suspect(_));
    assert!(bad(&resumed(137, "OOMKilled")));
    assert!(bad(&resumed(1, "Error")));
    let mut probed = resumed(137, "Error");
    for pod in probed.pods.clone().values() {
        let why = "Container web failed liveness probe, will be restarted";
        let name = format!("killed-{}", pod.metadata.name.as_deref().unwrap());
        tell(&mut probed.events, warning(pod, &name, "Killing", why, -1));
    }
    assert!(bad(&probed));
}

/// 80 s of 503 inside a budget of 90: never a bad sign, and the line is renewed only every five seconds.
#[test]
fn a_slow_start_is_no_failure() {
    let mut world = complete();
    each_pod(&mut world, starting);
    let mut now = 0;
    while now < 80 {
        let clock = clock(now);
        world.note(&clock);
        let verdict = judge(&world, &clock);
        expect(
            &verdict,
            &format!(
                "closed: 0 of 3 updated pods Ready; a: startup probe /health not passed yet, {now} s of 90"
            ),
        );
        assert_eq!(clock.next(), Some(Duration::from_secs(5)));
        now += 5;
    }
}

#[test]
fn unschedulable_dooms_after_fifteen_whole_seconds() {
    let unschedulable = json!({"status": {
        "phase": "Pending", "containerStatuses": null,
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient memory.",
            "lastTransitionTime": at(0).to_string()}],
    }});
    let mut world = complete();
    patch(world.pods.get_mut("web-new-c").unwrap(), &unschedulable);
    let text = "c: unschedulable: 0/1 nodes are available: 1 Insufficient memory.";
    expect(&judge(&world, &clock(14)), &format!("suspect: 2 of 3 updated pods Ready; {text}"));
    assert_eq!(doomed_after(&mut world, 600), Some((16, format!("doomed: {text}"))));

    // A pod that is on its way out may leave it room.
    let mut old = pod("web-old-z", "web-old", "web:old", OTHER_ID);
    patch(&mut old, &json!({"metadata": {"deletionTimestamp": at(40).to_string()}}));
    world.pods.insert("web-old-z".into(), old);
    assert!(matches!(judge(&world, &clock(60)), Verdict::Suspect(_)));

    // So does an old one, once a pod that still has time to start is Ready.
    let mut world = complete();
    world.pods.insert("web-old-z".into(), pod("web-old-z", "web-old", "web:old", OTHER_ID));
    patch(world.pods.get_mut("web-new-c").unwrap(), &unschedulable);
    starting(world.pods.get_mut("web-new-b").unwrap());
    assert!(matches!(judge(&world, &clock(80)), Verdict::Suspect(_)));
    starting(world.pods.get_mut("web-new-a").unwrap());
    let (seconds, why) = doomed_after(&mut world, 600).expect("doomed once nothing has time left");
    assert!(seconds >= 90 && why.contains("c: unschedulable"), "{seconds} s: {why}");
}

#[test]
fn a_refused_pod_dooms_within_five_seconds() {
    let refusal = |message: &str| {
        json!({
            "status": {"replicas": 0, "updatedReplicas": 0, "readyReplicas": 0, "availableReplicas": 0,
            "conditions": [
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message,
                    "lastTransitionTime": at(0).to_string()},
            ]},
        })
    };
    for message in [
        "pods \"web-new-a\" is forbidden: exceeded quota: small, requested: memory=1Gi, used: memory=2Gi, \
         limited: memory=2Gi",
        "admission webhook \"policy\" denied the request: no latest tags",
    ] {
        let mut world = complete();
        world.pods.clear();
        deployment(&mut world, &refusal(message));
        expect(
            &judge(&world, &clock(0)),
            &format!("suspect: the API refuses to make a pod: {message}; 0 of 3 updated pods Ready, 0 made"),
        );
        assert_eq!(
            doomed_after(&mut world, 600),
            Some((4, format!("doomed: the API refuses to make a pod: {message}")))
        );
    }
    let mut world = complete();
    world.pods.clear();
    deployment(&mut world, &refusal("Internal error occurred: etcdserver: request timed out"));
    assert_eq!(doomed_after(&mut world, 600), None);
}

#[test]
fn paused_dooms_what_it_holds_back() {
    let mut world = complete();
    world.replica_sets.remove("web-new");
    deployment(&mut world, &json!({"spec": {"paused": true}, "status": {"updatedReplicas": null}}));
    let verdict = judge(&world, &clock(0));
    expect(&verdict, "doomed: deployment/web is paused, so the newest template is not rolled out");
    let Verdict::Doomed(_, hint) = verdict else { unreachable!() };
    assert_eq!(hint, Advice::Kubectl("-n default rollout resume deployment/web".to_owned(), ""));

    // Nothing is held back: the pods are the right ones.
    let mut world = complete();
    deployment(&mut world, &json!({"spec": {"paused": true}}));
    assert!(matches!(judge(&world, &clock(0)), Verdict::Open(..)));
    // Nor here: a pause lets the present template scale.
    starting(world.pods.get_mut("web-new-a").unwrap());
    assert!(matches!(judge(&world, &clock(5)), Verdict::Closed(_)));
}

#[test]
fn zero_replicas_doom() {
    let mut world = complete();
    deployment(&mut world, &json!({"spec": {"replicas": 0}}));
    expect(&judge(&world, &clock(0)), "doomed: deployment/web is scaled to 0: no pod will start");
    world.target.min_replicas = Some(3);
    let verdict = judge(&world, &clock(0));
    expect(&verdict, "doomed: deployment/web is scaled to 0, and an autoscaler never scales up from zero");
    let Verdict::Doomed(_, hint) = verdict else { unreachable!() };
    assert_eq!(hint, Advice::Kubectl("-n default scale deployment/web --replicas=3".to_owned(), ""));
}

#[test]
fn the_progress_deadline_dooms_except_inside_the_startup_budget() {
    let exceeded = json!({"spec": {"progressDeadlineSeconds": 60}, "status": {"conditions": [{
        "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
        "message": "has timed out progressing",
    }]}});
    let mut world = complete();
    deployment(&mut world, &exceeded);
    starting(world.pods.get_mut("web-new-a").unwrap());
    expect(
        &judge(&world, &clock(61)),
        "suspect: no progress for 60 s (ProgressDeadlineExceeded); 2 of 3 updated pods Ready; a: startup \
         probe /health not passed yet, 61 s of 90",
    );
    expect(
        &judge(&world, &clock(90)),
        "doomed: no progress for 60 s (ProgressDeadlineExceeded); 2 of 3 updated pods Ready; a: startup \
         probe /health not passed yet, 90 s of 90",
    );
    // A condition that a completed rollout left behind.
    let mut world = complete();
    deployment(&mut world, &exceeded);
    assert!(matches!(judge(&world, &clock(61)), Verdict::Open(..)));
}

#[test]
fn another_image_deployed_meanwhile_dooms() {
    let mut world = complete();
    world.note(&clock(0));
    deployment(
        &mut world,
        &json!({
            "metadata": {"generation": 3}, "status": {"observedGeneration": 3},
            "spec": {"template": template("web:theirs")},
        }),
    );
    let mut third = replica_set("web-third", 3, "web:theirs");
    patch(&mut third, &json!({"metadata": {"creationTimestamp": at(10).to_string()}}));
    world.replica_sets.insert("web-third".into(), third);
    world.note(&clock(10));
    let text = "another rollout came in between (revision 3 after 2); deployment/web was changed to image \
                web:theirs, not the built web:new";
    expect(
        &judge(&world, &clock(10)),
        &format!("suspect: {text}; 0 of 3 updated pods Ready, 0 made; 3 old left (a, b, c)"),
    );
    expect(&judge(&world, &clock(14)), &format!("doomed: {text}"));
}

#[test]
fn a_deployment_on_its_way_out_warns() {
    let mut world = complete();
    deployment(&mut world, &json!({"metadata": {"deletionTimestamp": at(0).to_string()}}));
    expect(&judge(&world, &clock(0)), "suspect: deployment/web is being deleted");
}

/// A probe failed so often, and saw this; where it is a startup probe, the kubelet has ended the container for it.
fn probed(word: &str, saw: u16, times: i32) -> Snapshot {
    let mut world = complete();
    let place = |line: u32| format!("kubernetes/30-deployment.yaml:{line}");
    world.target.probes =
        [(("web".to_owned(), "startup"), place(101)), (("web".to_owned(), "readiness"), place(108))].into();
    let starts = word == "Startup";
    each_pod(&mut world, |pod| {
        let mut status = json!({"imageID": ID, "started": !starts,
            "state": {"running": {"startedAt": at(0).to_string()}}});
        if starts {
            status["restartCount"] = 1.into();
            // It drained as it was told.
            status["lastState"] = json!({"terminated": {"exitCode": 0, "reason": "Completed",
                "startedAt": at(-100).to_string()}});
        }
        not_ready(pod, &status);
    });
    for pod in world.pods.clone().values() {
        let name = pod.metadata.name.clone().unwrap();
        let saw = format!("{word} probe failed: HTTP probe failed with statuscode: {saw}");
        let mut failed = warning(pod, &format!("failed-{name}"), "Unhealthy", &saw, -2);
        failed.count = Some(times);
        failed.involved_object.field_path = Some("spec.containers{web}".into());
        tell(&mut world.events, failed);
        if starts {
            let why = "Container web failed startup probe, will be restarted";
            tell(&mut world.events, warning(pod, "killed", "Killing", why, -1));
        }
    }
    world
}

#[test]
fn a_probe_that_asks_for_what_is_not_there_is_the_cause_with_its_answer_and_its_line() {
    let startup = "a: startup probe /health answered 404, 90 times; container web was restarted for it, once";
    let doomed = format!("doomed: {startup} (kubernetes/30-deployment.yaml:101)");
    assert_eq!(doomed_after(&mut probed("Startup", 404, 90), 600), Some((4, doomed)));
    let readiness =
        "doomed: a: readiness probe /health answered 404, 12 times (kubernetes/30-deployment.yaml:108)";
    assert_eq!(doomed_after(&mut probed("Readiness", 404, 12), 600), Some((30, readiness.to_owned())));
    let mut world = probed("Startup", 404, 90);
    world.note(&clock(0));
    let Verdict::Doomed(_, advice) = judge(&world, &clock(9)) else {
        panic!("{:?}", judge(&world, &clock(9)))
    };
    let wanted = "nothing answers 200 at /health: fix the startup probe's path or port, or the app";
    assert_eq!(advice, Advice::from(wanted));
}

#[test]
fn a_probe_whose_answer_may_change_is_no_doom() {
    // Starting, or busy, for longer than the budget: the next start may be quicker.
    let mut slow = probed("Startup", 503, 90);
    expect(
        &judge(&slow, &clock(0)),
        "suspect: 0 of 3 updated pods Ready; a: startup probe /health answered 503, 90 times; container web \
         was restarted for it, once",
    );
    assert_eq!(doomed_after(&mut slow, 600), None);
    // A readiness probe that is refused less often than it may be, and one that hears that the app is not ready.
    for mut world in [probed("Readiness", 404, 2), probed("Readiness", 503, 200)] {
        assert_eq!(doomed_after(&mut world, 600), None);
    }
}

/// Another team's Deployment may select by the same labels.
#[test]
fn pods_of_another_deployment_are_not_old_ones_of_this() {
    let mut world = complete();
    let mut set = replica_set("anothers", 1, "else:1");
    patch(
        &mut set,
        &json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment",
            "name": "else", "uid": "else", "controller": true}]}}),
    );
    world.replica_sets.insert("anothers".into(), set);
    world.pods.insert("anothers-a".into(), pod("anothers-a", "anothers", "else:1", OTHER_ID));
    let settled = crate::gates::settled::judge(&world, &clock(0));
    assert!(matches!(settled, Verdict::Open(..)), "{settled:?}");
}
