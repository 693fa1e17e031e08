//! The rollout gate: when it opens, and what it says until then.

use serde_json::{Value, json};

use super::objects::{
    ID, IMAGE, OTHER_ID, complete, not_ready, patch, pod, replica_set, starting, tell, template, warning,
};
use super::{Case, at, clock, expect, judge_each};
use crate::gates::Verdict;
use crate::gates::rollout::{Snapshot, judge};
use crate::image::Digests;

#[test]
fn opens_when_all_is_new_and_available() {
    let Verdict::Open(rolled_out, how) = judge(&complete(), &clock(5)) else { panic!("closed") };
    assert_eq!(how, "3 of 3 pods run web:new (sha256:aaaaaaaaaaaa), revision 2");
    assert_eq!((rolled_out.replicas, rolled_out.revision), (3, 2));
    let names: Vec<_> = rolled_out.pods.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["web-new-a", "web-new-b", "web-new-c"]);
    assert_eq!(
        (rolled_out.pods[0].uid.as_str(), rolled_out.pods[0].ip.as_str()),
        ("uid-web-new-a", "127.0.0.7")
    );
}

/// A complete rollout, but nothing asks the last pod's container whether it is ready: it is Ready as soon as it runs,
/// were it for a moment.
fn unasked(container: &Value) -> Snapshot {
    let mut world = complete();
    let pod = world.pods.get_mut("web-new-c").unwrap();
    let mut status = pod.status.clone().unwrap().container_statuses.unwrap().remove(0);
    patch(&mut status, container);
    let bare = json!({"containers": [{"name": "web", "image": IMAGE}]});
    patch(pod, &json!({"spec": bare, "status": {"containerStatuses": [status]}}));
    world
}

/// The first second at which the gate is open.
fn opens_at(world: &Snapshot) -> Option<i64> {
    (0..120).find(|second| matches!(judge(world, &clock(*second)), Verdict::Open(..)))
}

#[test]
fn who_is_not_asked_whether_it_is_ready_has_to_run_for_a_while() {
    let mut world = unasked(&json!({}));
    expect(
        &judge(&world, &clock(2)),
        "closed: all 3 updated pods Ready; c: container web has run for 2 s, and no probe asks whether it \
         is ready",
    );
    assert_eq!(opens_at(&world), Some(10));
    // The node was late to tell that it runs.
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": at(8).to_string()}]);
    patch(world.pods.get_mut("web-new-c").unwrap(), &json!({"status": {"conditions": ready}}));
    assert_eq!(opens_at(&world), Some(18));
}

#[test]
fn who_has_ended_before_has_to_outlive_that() {
    let after = |seconds: i64, exit_code: i32| {
        let times = [-seconds - 20, -20].map(|time| at(time).to_string());
        let ended = json!({"exitCode": exit_code, "startedAt": times[0], "finishedAt": times[1]});
        unasked(&json!({"restartCount": 2, "lastState": {"terminated": ended}}))
    };
    expect(
        &judge(&after(20, 3), &clock(25)),
        "closed: all 3 updated pods Ready; c: container web has run for 25 s since it exited with 3 \
         after 20 s, 2 times",
    );
    for (life, exit_code, opens) in [
        (0, 3, 10),
        (20, 3, 30),
        // A server that is done has ended too.
        (20, 0, 30),
        // Nobody waits for as long as that, and healthy pods have restarted some day.
        (60, 3, 10),
        (3_000_000, 3, 10),
        // It was stopped with its node.
        (20, 137, 10),
    ] {
        assert_eq!(opens_at(&after(life, exit_code)), Some(opens), "after {life} s, exit {exit_code}");
    }
}

/// The Deployment's template may get or lose what holds nothing, for which the controller makes no new ReplicaSet.
#[test]
fn a_template_is_the_same_with_and_without_what_is_empty() {
    let mut world = complete();
    let template = json!({"metadata": {"annotations": {}}, "spec": {"volumes": [], "securityContext": {}}});
    patch(world.deployments.get_mut("web").unwrap(), &json!({"spec": {"template": template}}));
    assert!(matches!(judge(&world, &clock(5)), Verdict::Open(..)));
    let template = json!({"metadata": {"annotations": {"a": "b"}}});
    patch(world.deployments.get_mut("web").unwrap(), &json!({"spec": {"template": template}}));
    expect(
        &judge(&world, &clock(5)),
        "closed: no ReplicaSet for the newest template yet; 3 old left (a, b, c)",
    );
}

/// One thing is not as it should be; the gate is closed and names it.
#[test]
fn stays_closed_and_says_why() {
    let cases: &[Case] = &[
        ("closed: deployment/web does not exist in namespace default", |s| s.deployments.clear()),
        ("closed: the Deployment controller has not observed generation 3 yet", |s| {
            patch(s.deployments.get_mut("web").unwrap(), &json!({"metadata": {"generation": 3}}));
        }),
        ("closed: no ReplicaSet for the newest template yet; 3 old left (a, b, c)", |s| {
            drop(s.replica_sets.remove("web-new"));
        }),
        ("closed: 3 replicas asked for; the autoscaler has yet to raise them to its minimum of 5", |s| {
            s.target.min_replicas = Some(5);
        }),
        ("closed: 2 of 3 updated pods Ready, 2 made", |s| drop(s.pods.remove("web-new-c"))),
        ("closed: 2 of 3 updated pods Ready; c: startup probe /health not passed yet, 5 s of 90", |s| {
            starting(s.pods.get_mut("web-new-c").unwrap());
        }),
        ("closed: 2 of 3 updated pods Ready; c: startup probe /health 503, 5 s of 90", |s| {
            let pod = s.pods.get_mut("web-new-c").unwrap();
            starting(pod);
            let said = "Startup probe failed: HTTP probe failed with statuscode: 503";
            let event = warning(pod, "e", "Unhealthy", said, 4);
            tell(&mut s.events, event);
        }),
        ("closed: 2 of 3 updated pods Ready; c: startup probe /health connection refused, 5 s of 90", |s| {
            let pod = s.pods.get_mut("web-new-c").unwrap();
            starting(pod);
            let said = "Startup probe failed: Get \"http://127.0.0.7:8000/health\": dial tcp \
                        127.0.0.7:8000: connect: connection refused";
            let event = warning(pod, "e", "Unhealthy", said, 4);
            tell(&mut s.events, event);
        }),
        // An event of the run before this one explains nothing.
        ("closed: 2 of 3 updated pods Ready; c: startup probe /health not passed yet, 5 s of 90", |s| {
            let pod = s.pods.get_mut("web-new-c").unwrap();
            starting(pod);
            let event = warning(pod, "e", "Unhealthy", "Startup probe failed: timeout", -9);
            tell(&mut s.events, event);
        }),
        ("closed: 2 of 3 updated pods Ready; c: readiness probe /health timed out", |s| {
            let pod = s.pods.get_mut("web-new-c").unwrap();
            not_ready(
                pod,
                &json!({"started": true, "imageID": ID,
                    "state": {"running": {"startedAt": at(0).to_string()}}}),
            );
            let said = "Readiness probe failed: Get \"http://x/health\": context deadline exceeded \
                        (Client.Timeout exceeded)";
            let event = warning(pod, "e", "Unhealthy", said, 4);
            tell(&mut s.events, event);
        }),
        ("closed: 2 of 3 updated pods Ready; c: ContainerCreating", |s| {
            not_ready(
                s.pods.get_mut("web-new-c").unwrap(),
                &json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
            );
        }),
        (
            "closed: 2 of 3 updated pods Ready; c: FailedMount: MountVolume.SetUp failed: secret \"x\" not \
             found",
            |s| {
                let pod = s.pods.get_mut("web-new-c").unwrap();
                not_ready(pod, &json!({"state": {"waiting": {"reason": "ContainerCreating"}}}));
                let event =
                    warning(pod, "e", "FailedMount", "MountVolume.SetUp failed: secret \"x\" not found", 4);
                tell(&mut s.events, event);
            },
        ),
        ("closed: all 3 updated pods Ready, 2 of them available yet", |s| {
            patch(s.replica_sets.get_mut("web-new").unwrap(), &json!({"status": {"availableReplicas": 2}}));
        }),
        ("closed: a has not reported its image yet", |s| {
            let pod = s.pods.get_mut("web-new-a").unwrap();
            pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].image_id.clear();
        }),
    ];
    judge_each(judge, cases);
}

#[test]
fn pods_that_are_somebody_elses_or_over_do_not_count() {
    let mut world = complete();
    let mut bare = pod("debug", "none", "busybox", OTHER_ID);
    bare.metadata.owner_references = None;
    world.pods.insert("debug".into(), bare);
    let mut other = pod("db-1", "db", "db:1", OTHER_ID);
    patch(&mut other, &json!({"metadata": {"labels": {"app": "db"}}}));
    world.pods.insert("db-1".into(), other);
    let mut evicted = pod("web-new-e", "web-new", IMAGE, ID);
    patch(&mut evicted, &json!({"status": {"phase": "Failed", "reason": "Evicted"}}));
    world.pods.insert("web-new-e".into(), evicted);
    assert!(matches!(judge(&world, &clock(5)), Verdict::Open(..)));
}

/// Which ids and names count as the built image.
#[test]
fn compares_the_image_that_runs() {
    let hex = ID.strip_prefix("sha256:").unwrap();
    let open: &[(&str, &str)] = &[
        (ID, IMAGE),
        (&format!("docker://sha256:{hex}"), IMAGE),
        (&format!("sandbox://{hex}"), "whatever"),
        // Of its manifest, by runtimes that do not tell the config's.
        ("docker-pullable://web@sha256:cccc", IMAGE),
        ("docker.io/library/web@sha256:cccc", "docker.io/library/web:new"),
    ];
    for (id, name) in open {
        let mut world = complete();
        world.target.digests = Digests::new([ID, "sha256:cccc"]);
        set_image(&mut world, id, name);
        assert!(matches!(judge(&world, &clock(5)), Verdict::Open(..)), "{id} {name}");
    }
    let mut world = complete();
    set_image(&mut world, &format!("docker://{OTHER_ID}"), IMAGE);
    expect(
        &judge(&world, &clock(5)),
        "doomed: a runs another image under the name web:new (sha256:bbbbbbbbbbbb, not the built \
         sha256:aaaaaaaaaaaa)",
    );
    let mut world = complete();
    set_image(&mut world, "docker-pullable://web@sha256:cccc", IMAGE);
    expect(
        &judge(&world, &clock(5)),
        "doomed: a runs another image under the name web:new (sha256:cccc, not the built \
         sha256:aaaaaaaaaaaa)",
    );
}

fn set_image(world: &mut Snapshot, id: &str, name: &str) {
    for pod in world.pods.values_mut() {
        let status = &mut pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0];
        (status.image_id, status.image) = (id.to_owned(), name.to_owned());
    }
}

#[test]
fn a_look_without_a_built_image_takes_what_is_deployed() {
    let mut world = complete();
    world.target.image.clear();
    world.target.digests = Digests::default();
    expect(&judge(&world, &clock(5)), "open: 3 of 3 pods run web:new, revision 2");
}

#[test]
fn a_startup_probe_of_no_http_is_named_too() {
    let mut world = complete();
    let pod = world.pods.get_mut("web-new-c").unwrap();
    starting(pod);
    let mut spec = template(IMAGE)["spec"].clone();
    spec["containers"][0]["startupProbe"] = json!({"tcpSocket": {"port": 1}});
    patch(pod, &json!({"spec": spec}));
    expect(
        &judge(&world, &clock(5)),
        "closed: 2 of 3 updated pods Ready; c: startup probe not passed yet, 5 s of 30",
    );
}

#[test]
fn follows_a_rollout_that_comes_in_between() {
    let mut world = complete();
    starting(world.pods.get_mut("web-new-a").unwrap());
    world.note(&clock(0));
    // A restart: the same image, another template.
    let restarted = json!({"metadata": {"annotations": {"restartedAt": "now"}}});
    patch(
        world.deployments.get_mut("web").unwrap(),
        &json!({
            "metadata": {"generation": 3}, "spec": {"template": restarted},
            "status": {"observedGeneration": 3, "updatedReplicas": 1, "replicas": 4},
        }),
    );
    let mut third = replica_set("web-third", 3, IMAGE);
    patch(&mut third, &json!({"spec": {"template": restarted}}));
    world.replica_sets.insert("web-third".into(), third);
    world.pods.insert("web-third-x".into(), pod("web-third-x", "web-third", IMAGE, ID));
    world.note(&clock(5));
    expect(
        &judge(&world, &clock(5)),
        "closed: another rollout came in between (revision 3 after 2); 1 of 3 updated pods Ready, 1 made; 3 \
         old left (a, b, c)",
    );
    world.pods.retain(|name, _| name.starts_with("web-third"));
    for name in ["web-third-y", "web-third-z"] {
        world.pods.insert(name.into(), pod(name, "web-third", IMAGE, ID));
    }
    patch(
        world.deployments.get_mut("web").unwrap(),
        &json!({"status": {"updatedReplicas": 3, "replicas": 3}}),
    );
    expect(
        &judge(&world, &clock(9)),
        "open: another rollout came in between (revision 3 after 2); 3 of 3 pods run web:new \
         (sha256:aaaaaaaaaaaa), revision 3",
    );
}

#[test]
fn follows_an_autoscaler_that_scales_in_the_middle() {
    let mut world = complete();
    world.target.min_replicas = Some(3);
    patch(
        world.deployments.get_mut("web").unwrap(),
        &json!({"metadata": {"generation": 3}, "spec": {"replicas": 5}}),
    );
    expect(&judge(&world, &clock(1)), "closed: the Deployment controller has not observed generation 3 yet");
    patch(world.deployments.get_mut("web").unwrap(), &json!({"status": {"observedGeneration": 3}}));
    expect(&judge(&world, &clock(1)), "closed: 3 of 5 updated pods Ready, 3 made");
    for name in ["web-new-d", "web-new-e"] {
        world.pods.insert(name.into(), pod(name, "web-new", IMAGE, ID));
    }
    let counts = json!({"replicas": 5, "updatedReplicas": 5, "readyReplicas": 5, "availableReplicas": 5});
    patch(world.deployments.get_mut("web").unwrap(), &json!({"status": counts}));
    patch(world.replica_sets.get_mut("web-new").unwrap(), &json!({"status": {"availableReplicas": 5}}));
    expect(&judge(&world, &clock(2)), "open: 5 of 5 pods run web:new (sha256:aaaaaaaaaaaa), revision 2");
}

/// The new pods serve while the old ones go: that those are gone is another gate.
#[test]
fn pods_on_their_way_out_are_of_no_concern() {
    let mut world = complete();
    for (name, change) in [
        ("web-old-y", json!({})),
        ("web-old-z", json!({"metadata": {"deletionTimestamp": at(40).to_string()}})),
    ] {
        let mut old = pod(name, "web-old", "web:old", OTHER_ID);
        patch(&mut old, &change);
        world.pods.insert(name.into(), old);
    }
    // The Deployment counts the old ones too.
    patch(world.deployments.get_mut("web").unwrap(), &json!({"status": {"replicas": 4}}));
    expect(&judge(&world, &clock(5)), "open: 3 of 3 pods run web:new (sha256:aaaaaaaaaaaa), revision 2");
}

/// While Recreate waits for the old pods, the old ReplicaSet is still the one with the highest revision: neither it
/// nor the state of its pods counts.
#[test]
fn recreate_waits_for_the_old_pods_first() {
    let mut world = complete();
    world.replica_sets.remove("web-new");
    world.pods.clear();
    let mut old = pod("web-old-z", "web-old", "web:old", OTHER_ID);
    super::objects::crashed(&mut old, 9, false);
    patch(&mut old, &json!({"metadata": {"deletionTimestamp": at(40).to_string()}}));
    world.pods.insert("web-old-z".into(), old);
    patch(
        world.deployments.get_mut("web").unwrap(),
        &json!({"spec": {"strategy": {"type": "Recreate"}}, "status": {"updatedReplicas": null}}),
    );
    for seconds in [0, 120] {
        world.note(&clock(seconds));
        expect(
            &judge(&world, &clock(seconds)),
            "closed: no ReplicaSet for the newest template yet; 1 terminating (z)",
        );
    }
}
