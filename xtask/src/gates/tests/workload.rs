//! StatefulSets, DaemonSets and Jobs: when they are rolled out, what they wait for, and what can't come true.

use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::objects::{crashed, object, patch, pod, tell, template, waiting, warning};
use super::{at, clock};
use crate::commands::Advice;
use crate::gates::Verdict;
use crate::gates::kind::Kind;
use crate::gates::workload::{Judge, Kinded, Snapshot, Until, Workload, daemon_set, job, stateful_set};

fn workload(kind: Kind) -> Workload {
    Workload { kind, namespace: "default".into(), name: "web".into(), selector: "app=web".into() }
}

fn metadata() -> Value {
    json!({
        "name": "web", "namespace": "default", "uid": "w", "generation": 2,
        "annotations": {"deprecated.daemonset.template.generation": "2"},
    })
}

/// Ready pods of the workload, each with the labels by which its controller knows it.
fn add<K: Kinded>(world: &mut Snapshot<K>, kind: &str, name: &str, labels: &Value) {
    let mut one = pod(name, "web", "web:new", "sha256:aa");
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": "w", "controller": true}]);
    patch(&mut one, &json!({"metadata": {"ownerReferences": owner, "labels": labels}}));
    world.pods.insert(name.into(), one);
}

/// Three of three, all of the newest revision.
fn stateful_set() -> Snapshot<StatefulSet> {
    let mut world = Snapshot::of(workload(Kind::StatefulSet), Until::Rollout);
    let set = json!({
        "metadata": metadata(),
        "spec": {"replicas": 3, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "template": template("web:new")},
        "status": {
            "observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3,
            "updatedReplicas": 3,
            "currentRevision": "web-new", "updateRevision": "web-new",
        },
    });
    world.objects.insert("web".into(), object(set));
    for name in ["web-0", "web-1", "web-2"] {
        add(&mut world, "StatefulSet", name, &json!({"controller-revision-hash": "web-new"}));
    }
    world
}

/// On three of three nodes.
fn daemon_set() -> Snapshot<DaemonSet> {
    let mut world = Snapshot::of(workload(Kind::DaemonSet), Until::Rollout);
    let set = json!({
        "metadata": metadata(),
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template("web:new")},
        "status": {
            "observedGeneration": 2, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
            "numberReady": 3,
            "numberAvailable": 3, "updatedNumberScheduled": 3, "numberMisscheduled": 0,
        },
    });
    world.objects.insert("web".into(), object(set));
    for name in ["web-a", "web-b", "web-c"] {
        add(&mut world, "DaemonSet", name, &json!({"pod-template-generation": "2"}));
        let node = format!("node-{}", name.trim_start_matches("web-"));
        patch(world.pods.get_mut(name).unwrap(), &json!({"spec": {"nodeName": node}}));
    }
    world
}

/// Its one pod runs.
fn job() -> Snapshot<Job> {
    let mut world = Snapshot::of(workload(Kind::Job), Until::Rollout);
    let job = json!({
        "metadata": metadata(),
        "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 2, "template": template("web:new")},
        "status": {"active": 1},
    });
    world.objects.insert("web".into(), object(job));
    add(&mut world, "Job", "web-a", &json!({}));
    world
}

/// What is said at noon and five seconds, and, where that is not the last word, a minute later.
fn lines<K: Kinded>(mut world: Snapshot<K>, judge: Judge<K>) -> (String, Verdict) {
    let mut lines = String::new();
    let mut last = None;
    for seconds in [5, 65] {
        world.note(&clock(seconds));
        let verdict = judge(&world, &world.objects["web"], &clock(seconds));
        if !lines.ends_with(&format!("{verdict}\n")) {
            lines += &format!("{verdict}\n");
        }
        last = Some(verdict);
    }
    (lines, last.unwrap())
}

type Case<K> = (&'static str, fn(&mut Snapshot<K>));

fn told<K: Kinded>(begin: fn() -> Snapshot<K>, judge: Judge<K>, cases: &[Case<K>]) -> String {
    let mut text = String::new();
    for (name, change) in cases {
        let mut world = begin();
        change(&mut world);
        let (lines, verdict) = lines(world, judge);
        text += &format!("# {name}\n{lines}");
        if let Verdict::Doomed(_, Advice::Kubectl(arguments, _)) = verdict {
            text += &format!("  kubectl {arguments}\n");
        }
    }
    text
}

fn change<K: Kinded + serde::Serialize>(world: &mut Snapshot<K>, changes: &Value) {
    patch(world.objects.get_mut("web").unwrap(), changes);
}

fn pod_of<'s, K>(world: &'s mut Snapshot<K>, name: &str) -> &'s mut k8s_openapi::api::core::v1::Pod {
    world.pods.get_mut(name).unwrap()
}

fn old<K>(world: &mut Snapshot<K>, name: &str) {
    let labels = json!({"controller-revision-hash": "web-old", "pod-template-generation": "1"});
    patch(pod_of(world, name), &json!({"metadata": {"labels": labels}}));
}

fn unschedulable<K>(world: &mut Snapshot<K>, name: &str, message: &str) {
    let pod = pod_of(world, name);
    patch(
        pod,
        &json!({"spec": {"nodeName": null}, "status": {"phase": "Pending", "containerStatuses": [],
            "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": at(0).to_string(),
        }]}}),
    );
}

fn refused<K>(world: &mut Snapshot<K>, message: &str) {
    let event = json!({
        "metadata": {"name": "e"}, "type": "Warning", "reason": "FailedCreate", "message": message,
        "involvedObject": {"name": "web", "uid": "w"}, "lastTimestamp": at(4).to_string(),
    });
    tell(&mut world.events, object(event));
}

const QUOTA: &str = "Error creating: pods \"web-x\" is forbidden: exceeded quota: small, requested: \
                     pods=1, used: pods=2, limited: pods=2";

#[test]
fn a_stateful_set_in_order() {
    let cases: &[Case<StatefulSet>] = &[
        ("complete", |_| ()),
        ("not observed", |s| change(s, &json!({"metadata": {"generation": 3}}))),
        ("no replicas", |s| change(s, &json!({"spec": {"replicas": 0}}))),
        ("half updated", |s| {
            old(s, "web-0");
            old(s, "web-1");
            waiting(pod_of(s, "web-2"), "ContainerCreating", "");
        }),
        ("a partition that is done", |s| {
            change(
                s,
                &json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}},
                    "status": {"currentRevision": "web-old"}}),
            );
            old(s, "web-0");
            old(s, "web-1");
        }),
        ("a partition that is not", |s| {
            change(s, &json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}}));
            old(s, "web-0");
            old(s, "web-1");
        }),
        ("by hand", |s| {
            change(s, &json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}));
            old(s, "web-1");
        }),
        ("the first pod can't start", |s| {
            s.pods.remove("web-1");
            s.pods.remove("web-2");
            waiting(pod_of(s, "web-0"), "CreateContainerConfigError", "configmap \"settings\" not found");
        }),
        ("an updated pod crashes while the others are Ready", |s| {
            old(s, "web-0");
            old(s, "web-1");
            crashed(pod_of(s, "web-2"), 3, false);
        }),
        ("an old pod crashes and holds the update up", |s| {
            old(s, "web-0");
            old(s, "web-1");
            crashed(pod_of(s, "web-0"), 5, false);
        }),
        ("a volume that can't be made", |s| {
            s.pods.remove("web-1");
            s.pods.remove("web-2");
            unschedulable(
                s,
                "web-0",
                "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            );
            let claim = json!({"spec": {"volumes": [{"name": "data",
                "persistentVolumeClaim": {"claimName": "data-web-0"}}]}});
            patch(pod_of(s, "web-0"), &claim);
            let event = json!({
                "metadata": {"name": "c"}, "reason": "ProvisioningFailed",
                "message": "storageclass.storage.k8s.io \"fast\" not found",
                "involvedObject": {"kind": "PersistentVolumeClaim", "name": "data-web-0", "uid": "c"},
                "lastTimestamp": at(4).to_string(),
            });
            tell(&mut s.events, object(event));
        }),
        ("a volume that may be on its way", |s| {
            unschedulable(
                s,
                "web-2",
                "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            );
        }),
        ("a quota", |s| {
            s.pods.remove("web-2");
            refused(s, QUOTA);
        }),
    ];
    insta::assert_snapshot!(told(stateful_set, stateful_set::judge, cases), @r#"
    # complete
    open: 3 of 3 pods Ready, 3 of revision web-new
    # not observed
    closed: the StatefulSet controller has not observed generation 3 yet
    # no replicas
    doomed: statefulset/web is scaled to 0: no pod will start
      kubectl -n default scale statefulset/web --replicas=1
    # half updated
    closed: 2 of 3 pods Ready; web-2: ContainerCreating; 2 yet to be updated (web-0, web-1)
    # a partition that is done
    open: 3 of 3 pods Ready, 1 of revision web-new; partition 2 keeps web-0, web-1 at an older one
    # a partition that is not
    closed: 3 of 3 pods Ready; 1 yet to be updated (web-1)
    # by hand
    doomed: 1 of 3 pods are of an older revision (web-1), and updateStrategy OnDelete replaces a pod only when it is deleted
      kubectl -n default delete pod web-1
    # the first pod can't start
    suspect: 0 of 3 pods Ready, 1 made; web-0: CreateContainerConfigError: configmap "settings" not found
    doomed: web-0: CreateContainerConfigError: configmap "settings" not found; the 2 after it are not made until it is Ready
    # an updated pod crashes while the others are Ready
    suspect: 2 of 3 pods Ready; web-2: container web exited with 1, 4 times; 2 yet to be updated (web-0, web-1)
    doomed: web-2: container web exited with 1, 4 times
      kubectl -n default logs web-2 -c web --previous
    # an old pod crashes and holds the update up
    suspect: 2 of 3 pods Ready; web-0: container web exited with 1, 6 times; 2 yet to be updated (web-0, web-1)
    doomed: web-0: container web exited with 1, 6 times; it is of an older revision, and no pod is updated until it is Ready
      kubectl -n default delete pod web-0
    # a volume that can't be made
    suspect: 0 of 3 pods Ready, 1 made; web-0: unschedulable: 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.; persistentvolumeclaim/data-web-0: ProvisioningFailed: storageclass.storage.k8s.io "fast" not found
    doomed: web-0: unschedulable: 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.; persistentvolumeclaim/data-web-0: ProvisioningFailed: storageclass.storage.k8s.io "fast" not found; the 2 after it are not made until it is Ready
      kubectl -n default describe persistentvolumeclaim data-web-0
    # a volume that may be on its way
    suspect: 2 of 3 pods Ready; web-2: unschedulable: 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.
    # a quota
    suspect: the API refuses to make a pod: pods "web-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2; 2 of 3 pods Ready, 2 made
    doomed: the API refuses to make a pod: pods "web-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2; the 1 after it are not made until it is Ready
    "#);
}

#[test]
fn a_daemon_set_on_each_node() {
    let cases: &[Case<DaemonSet>] = &[
        ("complete", |_| ()),
        ("meant for no node", |s| change(s, &json!({"status": {"desiredNumberScheduled": 0}}))),
        ("half updated", |s| {
            old(s, "web-a");
            waiting(pod_of(s, "web-b"), "ContainerCreating", "");
        }),
        ("by hand", |s| {
            change(s, &json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}));
            old(s, "web-a");
        }),
        ("no room on one node", |s| {
            unschedulable(
                s,
                "web-c",
                "0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't satisfy plugin(s) \
                 [NodeAffinity].",
            );
            let fields = json!([{"key": "metadata.name", "operator": "In", "values": ["node-c"]}]);
            let terms = json!({"nodeSelectorTerms": [{"matchFields": fields}]});
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
            patch(pod_of(s, "web-c"), &json!({"spec": {"affinity": affinity}}));
        }),
        ("a crash loop on one node", |s| crashed(pod_of(s, "web-c"), 5, false)),
        ("counted later", |s| change(s, &json!({"status": {"numberAvailable": 2}}))),
        ("a quota", |s| {
            s.pods.remove("web-c");
            refused(s, QUOTA);
        }),
    ];
    insta::assert_snapshot!(told(daemon_set, daemon_set::judge, cases), @r#"
    # complete
    open: 3 of 3 nodes have an updated pod that is Ready
    # meant for no node
    doomed: daemonset/web is meant for no node: its nodeSelector, affinity and tolerations leave none
      kubectl -n default get nodes --show-labels
    # half updated
    closed: 1 of 3 nodes have an updated pod that is Ready, 2 made; b on node node-b: ContainerCreating; 1 old left (web-a)
    # by hand
    doomed: 1 of 3 pods are of an older template (web-a), and updateStrategy OnDelete replaces a pod only when it is deleted
      kubectl -n default delete pod web-a
    # no room on one node
    suspect: 2 of 3 nodes have an updated pod that is Ready; c on node node-c: unschedulable: 0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].
    doomed: c on node node-c: unschedulable: 0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].
    # a crash loop on one node
    suspect: 2 of 3 nodes have an updated pod that is Ready; c on node node-c: container web exited with 1, 6 times
    doomed: c on node node-c: container web exited with 1, 6 times
      kubectl -n default logs web-c -c web --previous
    # counted later
    closed: all 3 updated pods Ready, 2 of them available yet
    # a quota
    suspect: the API refuses to make a pod: pods "web-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2; 2 of 3 nodes have an updated pod that is Ready, 2 made
    doomed: the API refuses to make a pod: pods "web-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2
    "#);
}

#[test]
fn a_job_to_its_end() {
    let cases: &[Case<Job>] = &[
        ("running", |_| ()),
        ("completed", |s| {
            change(
                s,
                &json!({"status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}}),
            );
        }),
        ("failed", |s| {
            let failed = json!({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
                "message": "Job has reached the specified backoff limit"});
            change(s, &json!({"status": {"failed": 3, "conditions": [failed]}}));
            let ended = json!({"state": {"terminated": {"exitCode": 3, "reason": "Error"}}, "name": "web",
                "image": "i", "imageID": "", "ready": false, "restartCount": 0});
            patch(pod_of(s, "web-a"), &json!({"status": {"phase": "Failed", "containerStatuses": [ended]}}));
        }),
        ("suspended", |s| change(s, &json!({"spec": {"suspend": true}}))),
        ("a crash that it may survive", |s| {
            change(s, &json!({"status": {"failed": 1}}));
            crashed(pod_of(s, "web-a"), 5, false);
        }),
        ("an image that is not there", |s| {
            waiting(pod_of(s, "web-a"), "ErrImagePull", "manifest unknown: not found");
        }),
        ("a quota", |s| {
            s.pods.clear();
            refused(s, QUOTA);
        }),
    ];
    insta::assert_snapshot!(told(job, job::judge, cases), @r#"
    # running
    closed: 0 of 1 pods succeeded; 1 running (a)
    # completed
    open: completed: 1 pods succeeded
    # failed
    doomed: job/web has failed: BackoffLimitExceeded: Job has reached the specified backoff limit; a: container web exited with 3
      kubectl -n default logs job/web --all-pods --tail=50
    # suspended
    doomed: job/web is suspended, so none of its pods runs
      kubectl -n default patch job/web --type=merge --patch '{"spec":{"suspend":false}}'
    # a crash that it may survive
    suspect: 0 of 1 pods succeeded, 1 failed; it gives up after 2 more than the first; a: container web exited with 1, 6 times
    # an image that is not there
    suspect: 0 of 1 pods succeeded; a: ErrImagePull: manifest unknown: not found
    doomed: a: ErrImagePull: manifest unknown: not found
    # a quota
    suspect: the API refuses to make a pod: pods "web-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2; 0 of 1 pods succeeded
    doomed: the API refuses to make a pod: pods "web-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2
    "#);
}

/// The terminating ones are for who waits until all has settled.
#[test]
fn settled_waits_for_what_is_on_its_way_out() {
    let ending = |world: &mut Snapshot<StatefulSet>| {
        add(world, "StatefulSet", "web-3", &json!({"controller-revision-hash": "web-new"}));
        patch(pod_of(world, "web-3"), &json!({"metadata": {"deletionTimestamp": at(40).to_string()}}));
    };
    let mut world = stateful_set();
    ending(&mut world);
    let verdict = stateful_set::judge(&world, &world.objects["web"], &clock(5));
    assert_eq!(verdict.to_string(), "open: 3 of 3 pods Ready, 3 of revision web-new");
    world.until = Until::Settled;
    let verdict = stateful_set::judge(&world, &world.objects["web"], &clock(5));
    assert_eq!(verdict.to_string(), "closed: 1 terminating (web-3)");
}

/// What is told of a pod is not told of another workload's.
#[test]
fn pods_of_the_same_labels_and_another_owner_are_none_of_its() {
    let mut world = stateful_set();
    let mut other = pod("web-9", "other", "web:new", "sha256:aa");
    crashed(&mut other, 9, false);
    let event = warning(&other, "x", "Failed", "not found", 4);
    world.pods.insert("web-9".into(), other);
    tell(&mut world.events, event);
    let verdict = stateful_set::judge(&world, &world.objects["web"], &clock(5));
    assert_eq!(verdict.to_string(), "open: 3 of 3 pods Ready, 3 of revision web-new");
}
