//! The cluster and metrics gates.

use serde_json::{Value, json};

use super::objects::object;
use super::{at, clock, expect};
use crate::gates::{Verdict, cluster, metrics};

fn world(ready: &Value) -> cluster::Snapshot {
    let mut world = cluster::Snapshot {
        namespace: "default".into(),
        readyz: cluster::Readyz::Ok,
        ..cluster::Snapshot::default()
    };
    world.nodes.insert(
        "mini".into(),
        object(json!({"metadata": {"name": "mini"}, "status": {"conditions": [ready]}})),
    );
    world.service_accounts.insert("default".into(), object(json!({"metadata": {"name": "default"}})));
    world
}

fn is_ready() -> Value {
    json!({"type": "Ready", "status": "True", "reason": "KubeletReady"})
}

#[test]
fn opens_on_api_node_and_service_account() {
    expect(&cluster::judge(&world(&is_ready()), &clock(0)), "open: API ready, node mini Ready");
}

#[test]
fn stays_closed_and_says_why() {
    let mut starting = world(&is_ready());
    starting.readyz = cluster::Readyz::Unknown;
    expect(&cluster::judge(&starting, &clock(0)), "closed: the API server's /readyz has not answered yet");
    let answer =
        "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: x\nreadyz check failed";
    starting.readyz = cluster::Readyz::Not(cluster::failing_checks(500, answer));
    expect(
        &cluster::judge(&starting, &clock(0)),
        "closed: the API server's /readyz: HTTP 500, not yet: etcd, poststarthook/rbac",
    );
    let mut empty = world(&is_ready());
    empty.nodes.clear();
    expect(&cluster::judge(&empty, &clock(0)), "closed: no node has registered");
    let not = json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady",
        "message": "cni config uninitialized"});
    expect(
        &cluster::judge(&world(&not), &clock(0)),
        "closed: node mini is not Ready (KubeletNotReady: cni config uninitialized)",
    );
    expect(
        &cluster::judge(&world(&json!({"type": "DiskPressure", "status": "False"})), &clock(0)),
        "closed: node mini has not reported Ready yet",
    );
    let mut bare = world(&is_ready());
    bare.service_accounts.clear();
    expect(
        &cluster::judge(&bare, &clock(0)),
        "closed: the service account `default` in namespace default does not exist",
    );
}

#[test]
fn of_many_nodes_one_that_is_ready_will_do_and_the_others_are_told_of() {
    let mut world = world(&is_ready());
    let node = |name: &str, cordoned: bool, ready: &str| {
        let condition = json!({"type": "Ready", "status": ready, "reason": "NodeStatusUnknown"});
        object(json!({"metadata": {"name": name}, "spec": {"unschedulable": cordoned},
            "status": {"conditions": [condition]}}))
    };
    world.nodes.insert("mini".into(), node("mini", true, "True"));
    expect(&cluster::judge(&world, &clock(0)), "open: API ready, node mini Ready, but cordoned");
    world.nodes.insert("a".into(), node("a", false, "True"));
    world.nodes.insert("b".into(), node("b", false, "Unknown"));
    expect(
        &cluster::judge(&world, &clock(0)),
        "open: API ready, 2 of 3 nodes Ready, cordoned of them mini; node b is not Ready (NodeStatusUnknown)",
    );
    for name in ["c", "d", "e", "f"] {
        world.nodes.insert(name.into(), node(name, false, "Unknown"));
    }
    let Verdict::Open((), line) = cluster::judge(&world, &clock(0)) else { panic!("it is open") };
    assert!(line.ends_with("node d is not Ready (NodeStatusUnknown); 2 more"), "{line}");
}

/// What a node said before the last stop stands until its kubelet is back.
#[test]
fn a_node_of_the_last_run_does_not_count() {
    let mut world = world(&is_ready());
    let lease = |renewed: i64| {
        object(json!({"metadata": {"name": "mini"}, "spec": {"leaseDurationSeconds": 40,
                "renewTime": format!("{:.6}", at(renewed))}}))
    };
    world.node_leases.insert("mini".into(), lease(-3600));
    expect(
        &cluster::judge(&world, &clock(0)),
        "closed: node mini is Ready, but its kubelet has not reported for 3600 s",
    );
    world.node_leases.insert("mini".into(), lease(-10));
    expect(&cluster::judge(&world, &clock(0)), "open: API ready, node mini Ready");
}

#[test]
fn metrics_open_when_available() {
    let mut world = metrics::Snapshot::default();
    expect(
        &metrics::judge(&world),
        "closed: APIService v1beta1.metrics.k8s.io is not registered: the metrics server is not there yet",
    );
    let mut set = |conditions: Value| {
        let name = "v1beta1.metrics.k8s.io";
        let service = json!({"metadata": {"name": name}, "status": {"conditions": conditions}});
        world.services.insert(name.into(), object(service));
        metrics::judge(&world)
    };
    expect(&set(json!([])), "closed: the API server has not tried the metrics API yet");
    expect(
        &set(json!([{"type": "Available", "status": "False", "reason": "MissingEndpoints",
                "message": "endpoints for service/metrics-server have no addresses"}])),
        "closed: the metrics API is not available (MissingEndpoints: endpoints for service/metrics-server \
         have no addresses)",
    );
    expect(&set(json!([{"type": "Available", "status": "True"}])), "open: metrics API available");
}
