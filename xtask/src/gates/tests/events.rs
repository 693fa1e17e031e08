//! What a judgement is told of: the events about its own pods, and no other.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::api::{Play, Server, until};
use super::objects::{IMAGE, object, patch, pod, tell};
use crate::gates::events::{about_pod, key};
use crate::gates::rollout;
use crate::gates::watch::Objects;

fn event(name: &str, kind: &str, about: &str, uid: &str) -> Event {
    object(json!({
        "metadata": {"name": name},
        "involvedObject": {"kind": kind, "name": about, "uid": uid},
    }))
}

#[test]
fn a_pod_is_told_of_itself_and_of_its_volume_claims() {
    let mut own = pod("web-0", "web", IMAGE, "");
    let claim = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    patch(&mut own, &json!({"metadata": {"uid": "u"}, "spec": {"volumes": claim}}));
    let mut events = Objects::new();
    for event in [
        event("a", "Pod", "web-0", "u"),
        event("b", "Pod", "web-0", "u"),
        event("c", "PersistentVolumeClaim", "data", "v"),
        // An earlier pod of its name, a sibling, what they belong to, and the claim of another.
        event("d", "Pod", "web-0", "t"),
        event("e", "Pod", "web-1", "u2"),
        event("f", "StatefulSet", "web", "w"),
        event("g", "PersistentVolumeClaim", "data-2", "v2"),
    ] {
        tell(&mut events, event);
    }
    let names = |pod: &Pod| about_pod(&events, pod).into_iter().map(Event::name_any).collect::<Vec<_>>();
    assert_eq!(names(&own), ["a", "b", "c"]);
    // Whose uid is not known is told of nothing, rather than of all.
    own.metadata.uid = None;
    assert_eq!(names(&own), ["c"]);
}

#[test]
fn an_event_about_what_bears_another_name_is_not_kept() {
    let kept =
        |about: Value| key("web", &object(json!({"metadata": {"name": "e"}, "involvedObject": about})));
    let of_pod = json!({"kind": "Pod", "name": "web-0", "uid": "u"});
    assert_eq!(kept(of_pod).as_deref(), Some("u/e"));
    let of_claim = json!({"kind": "PersistentVolumeClaim", "name": "data", "uid": "v"});
    assert_eq!(kept(of_claim).as_deref(), Some("PersistentVolumeClaim/data/e"));
    for other in [
        json!({"kind": "Pod", "name": "db-0", "uid": "u"}),
        json!({"kind": "Pod", "name": "web-0"}),
        json!({"kind": "Node"}),
        Value::Null,
    ] {
        assert_eq!(kept(other.clone()), None, "{other}");
    }
}

#[tokio::test]
async fn an_event_counts_for_its_pod_as_long_as_it_is_there() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    play.waiting("ContainerCreating", "").await;
    let pods: Api<Pod> = Api::default_namespaced(server.direct.clone());
    let uid = pods.get("web-h-0").await.unwrap().uid().unwrap();
    let failed = |name: &str, uid: &str| {
        json!({
            "metadata": {"name": name}, "reason": "FailedMount", "message": format!("told by {name}"),
            "involvedObject": {"kind": "Pod", "name": "web-h-0", "namespace": "default", "uid": uid},
        })
    };
    server.create::<Event>("default", failed("earlier", "of-an-earlier-pod")).await;
    server.create::<Event>("default", failed("before", &uid)).await;
    let mut verdicts = Box::pin(rollout::verdicts(&server.client, &play.target()));
    let closed = "closed: 0 of 1 updated pods Ready; 0";
    let mut told = async |what: &str| {
        let line = format!("{closed}: {what}");
        until(&mut verdicts, |said| {
            assert!(!said.contains("earlier"), "{said}");
            said == line
        })
        .await;
    };
    told("FailedMount: told by before").await;
    let events: Api<Event> = Api::default_namespaced(server.direct.clone());
    events.delete("before", &DeleteParams::default()).await.unwrap();
    told("ContainerCreating").await;
    server.create::<Event>("default", failed("meanwhile", &uid)).await;
    told("FailedMount: told by meanwhile").await;
}
