//! What the scheduler, the runtime and the autoscalers of nodes say of a pod, and what helps.

use serde_json::json;

use super::objects::{complete, patch, tell, waiting, warning};
use super::{at, clock, doomed_after, each_pod};
use crate::commands::Advice;
use crate::gates::Verdict;
use crate::gates::rollout::{Snapshot, judge};

/// All pods of a Deployment have had no node for 20 s.
fn without_node(why: &str) -> Snapshot {
    let mut world = complete();
    each_pod(&mut world, |pod| {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastTransitionTime": at(-20).to_string(),
        });
        patch(pod, &json!({"status": {"conditions": [condition], "containerStatuses": null}}));
    });
    world.note(&clock(0));
    world
}

fn cure(world: &Snapshot) -> String {
    match judge(world, &clock(0)) {
        Verdict::Doomed(_, Advice::Words(words)) => words,
        Verdict::Doomed(_, Advice::Kubectl(arguments, what_for)) => {
            format!("kubectl {arguments}: {what_for}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_helps_is_of_the_reason_that_keeps_the_pod_off_its_nodes() {
    let cases = [
        "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available",
        "0/1 nodes are available: 1 Insufficient memory.",
        "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: \
         }, 2 Too many pods.",
        "0/3 nodes are available: 1 node(s) had untolerated taint {gpu: }, 2 node(s) didn't match pod \
         anti-affinity rules.",
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.",
        "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints.",
        "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports.",
        "0/3 nodes are available: 3 node(s) had volume node affinity conflict.",
        "0/3 nodes are available: 1 node(s) had untolerated taint {gpu: }, 2 node(s) didn't match Pod's \
         node affinity/selector.",
        "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }.",
        "no nodes available to schedule pods",
    ];
    let told: String = cases.iter().map(|why| format!("# {why}\n{}\n", cure(&without_node(why)))).collect();
    insta::assert_snapshot!(told, @r#"
    # 0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available
    kubectl uncordon NODE: lets pods onto the cordoned node again
    # 0/1 nodes are available: 1 Insufficient memory.
    free room on the node, ask for less in resources.requests, or give the cluster more
    # 0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, 2 Too many pods.
    free room on the node, ask for less in resources.requests, or give the cluster more
    # 0/3 nodes are available: 1 node(s) had untolerated taint {gpu: }, 2 node(s) didn't match pod anti-affinity rules.
    each node that it may go to has a pod that `podAntiAffinity` keeps it apart from: add nodes, ask for fewer replicas, or make the rule `preferredDuringSchedulingIgnoredDuringExecution`
    # 0/3 nodes are available: 3 node(s) didn't match pod affinity rules.
    no node has the pods that `podAffinity` wants it beside: start them, or make the rule `preferredDuringSchedulingIgnoredDuringExecution`
    # 0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints.
    `topologySpreadConstraints` leave it no node: raise `maxSkew`, or set `whenUnsatisfiable: ScheduleAnyway`
    # 0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports.
    each node that it may go to has its `hostPort` taken: add nodes, or do without one
    # 0/3 nodes are available: 3 node(s) had volume node affinity conflict.
    its volume is where none of its nodes are: choose nodes there, or make the volume anew
    # 0/3 nodes are available: 1 node(s) had untolerated taint {gpu: }, 2 node(s) didn't match Pod's node affinity/selector.
    kubectl get nodes --show-labels: shows what nodes there are: none has what `nodeSelector` or `nodeAffinity` asks for
    # 0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }.
    kubectl describe nodes: shows the nodes' taints: tolerate one in the pod's template, or take it off a node
    # no nodes available to schedule pods
    free room on the node, ask for less in resources.requests, or give the cluster more
    "#);
}

/// An autoscaler of nodes that has found the pod makes it one, which takes minutes; one that says that it won't ends
/// the wait with its reason.
#[test]
fn a_pod_waits_for_the_node_that_is_being_made_for_it() {
    let told = |events: &[(&str, &str, i64)]| {
        let mut world = without_node("0/3 nodes are available: 3 Insufficient cpu.");
        let pod = world.pods["web-new-a"].clone();
        for (reason, message, when) in events {
            tell(&mut world.events, warning(&pod, reason, reason, message, *when));
        }
        for name in ["web-new-b", "web-new-c"] {
            world.pods.remove(name);
        }
        doomed_after(&mut world, 600)
    };
    assert!(told(&[]).is_some());
    let scaled = ("TriggeredScaleUp", "pod triggered scale-up: [{pool-1 3->4 (max: 5)}]", -5);
    assert_eq!(told(&[scaled]), None);
    assert_eq!(told(&[("Nominated", "Pod should schedule on: nodeclaim/default-x", -5)]), None);
    let full = ("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached", -1);
    let (_, why) = told(&[scaled, full]).expect("nothing comes any more");
    let wanted =
        "3 Insufficient cpu.; NotTriggerScaleUp: pod didn't trigger scale-up: 1 max node group size reached";
    assert!(why.ends_with(wanted), "{why}");
}

#[test]
fn what_no_second_pull_will_change_is_told_from_what_may_pass() {
    let cases = [
        "rpc error: code = NotFound desc = failed to pull and unpack image \"ghcr.io/a/b:1\": failed to \
         resolve reference \"ghcr.io/a/b:1\": ghcr.io/a/b:1: not found",
        "failed to pull and unpack image \"r.example/b:1\": no match for platform in manifest: not found",
        "failed to resolve reference \"docker.io/a/b:1\": pull access denied, repository does not exist or \
         may require authorization: server message: insufficient_scope: authorization failed",
        "failed to resolve reference \"ghcr.io/a/b:1\": failed to authorize: failed to fetch anonymous \
         token: unexpected status from GET request to https://ghcr.io/token: 403 Forbidden",
        "failed to do request: Head \"https://r.example/v2/b/manifests/1\": tls: failed to verify \
         certificate: x509: certificate signed by unknown authority",
        "failed to do request: Head \"https://10.0.0.1:5000/v2/b/manifests/1\": http: server gave HTTP \
         response to HTTPS client",
        "failed to do request: Head \"https://r.example/v2/b/manifests/1\": dial tcp 10.0.0.1:443: \
         connect: connection refused",
        "unexpected status from HEAD request: 429 Too Many Requests",
    ];
    let told = |message: &str| {
        let mut world = complete();
        each_pod(&mut world, |pod| waiting(pod, "ErrImagePull", message));
        world.note(&clock(0));
        world.note(&clock(10));
        match judge(&world, &clock(10)) {
            Verdict::Doomed(why, Advice::Words(words)) => format!("{why}\n  {words}"),
            Verdict::Suspect(why) => why,
            other => panic!("{other:?}"),
        }
    };
    let told: String = cases.iter().map(|message| told(message) + "\n").collect();
    insta::assert_snapshot!(told, @r#"
    a: ErrImagePull: web:new: ghcr.io/a/b:1: not found
      the registry has no such image: fix the name or tag, or push it
    a: ErrImagePull: web:new: no match for platform in manifest: not found
      the image is not for the node's processor: build it for that too, or choose the pods' nodes with `nodeSelector: {kubernetes.io/arch: …}`
    a: ErrImagePull: web:new: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed
      fix the name, or let the nodes pull it: a Secret of type kubernetes.io/dockerconfigjson, named in `imagePullSecrets` of the pod's template
    a: ErrImagePull: web:new: failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://ghcr.io/token: 403 Forbidden
      fix the name, or let the nodes pull it: a Secret of type kubernetes.io/dockerconfigjson, named in `imagePullSecrets` of the pod's template
    a: ErrImagePull: web:new: tls: failed to verify certificate: x509: certificate signed by unknown authority
      give the nodes' container runtime the registry's certificate authority, or tell it that the registry speaks plain HTTP (containerd: `certs.d/HOST/hosts.toml`)
    a: ErrImagePull: web:new: http: server gave HTTP response to HTTPS client
      give the nodes' container runtime the registry's certificate authority, or tell it that the registry speaks plain HTTP (containerd: `certs.d/HOST/hosts.toml`)
    0 of 3 updated pods Ready; a: ErrImagePull: web:new: dial tcp 10.0.0.1:443: connect: connection refused
    0 of 3 updated pods Ready; a: ErrImagePull: unexpected status from HEAD request: 429 Too Many Requests
    "#);
}
