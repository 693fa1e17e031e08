//! Server-side apply: what goes when its manager gives it up. The answers are those of a real API server.

use serde_json::{Value, json};

use crate::raw::{APPLY, Answer, JSON, MERGE, Raw};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A deployment whose one container has these fields, and whose pods have these.
fn config(container: &Value, pod: &Value) -> Value {
    let mut config = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}},
    });
    let spec = &mut config["spec"]["template"]["spec"];
    extend(&mut spec["containers"][0], container);
    extend(spec, pod);
    config
}

fn extend(object: &mut Value, fields: &Value) {
    let fields = fields.as_object().expect("fields").clone();
    object.as_object_mut().expect("an object").extend(fields);
}

async fn apply_as(server: &Raw, manager: &str, config: &Value) -> Answer {
    let ask = format!("PATCH {DEPLOYMENTS}/web?fieldManager={manager}");
    server.ask(&ask, APPLY, config.to_string()).await
}

async fn apply(server: &Raw, container: Value, pod: Value) -> Value {
    let answer = apply_as(server, "me", &config(&container, &pod)).await;
    assert!(answer.code < 300, "{} {}", answer.code, answer.message());
    answer.body["spec"]["template"]["spec"].clone()
}

/// What becomes of one field of the container when another is applied in its place.
async fn of_container(before: Value, after: Value) -> Value {
    let server = Raw::start();
    apply(&server, before, json!({})).await;
    apply(&server, after, json!({})).await["containers"][0].clone()
}

const PROBES: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];

fn http_get() -> Value {
    json!({"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 3})
}

#[tokio::test]
async fn a_probe_that_is_taken_away_is_gone_with_its_defaults() {
    for probe in PROBES {
        let container = of_container(json!({probe: http_get()}), json!({})).await;
        assert_eq!(container.get(probe), None);
    }
}

#[tokio::test]
async fn a_probe_changes_its_handler() {
    let defaults =
        json!({"timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3, "periodSeconds": 10});
    for probe in PROBES {
        for handler in [json!({"exec": {"command": ["true"]}}), json!({"tcpSocket": {"port": 80}})] {
            let container = of_container(json!({probe: http_get()}), json!({probe: handler})).await;
            let mut expected = defaults.clone();
            extend(&mut expected, &handler);
            assert_eq!(container[probe], expected);
        }
    }
}

#[tokio::test]
async fn a_hook_changes_its_handler_or_goes() {
    let get = json!({"lifecycle": {"preStop": {"httpGet": {"port": 80}}}});
    let sleep = json!({"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}});
    assert_eq!(of_container(get.clone(), sleep.clone()).await["lifecycle"], sleep["lifecycle"]);
    let back = of_container(sleep, get.clone()).await;
    assert_eq!(back["lifecycle"]["preStop"], json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}}));
    assert_eq!(of_container(get, json!({})).await.get("lifecycle"), None);
}

#[tokio::test]
async fn a_volume_changes_its_type_or_goes() {
    let sources = [
        (json!({"configMap": {"name": "x"}}), json!({"configMap": {"name": "x", "defaultMode": 420}})),
        (json!({"secret": {"secretName": "x"}}), json!({"secret": {"secretName": "x", "defaultMode": 420}})),
        (json!({"emptyDir": {}}), json!({"emptyDir": {}})),
        (json!({"hostPath": {"path": "/x"}}), json!({"hostPath": {"path": "/x", "type": ""}})),
        (
            json!({"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}}),
            json!({"downwardAPI": {"defaultMode": 420, "items": [
                {"path": "p", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}}),
        ),
        (
            json!({"projected": {"sources": [{"configMap": {"name": "x"}}]}}),
            json!({"projected": {"defaultMode": 420, "sources": [{"configMap": {"name": "x"}}]}}),
        ),
    ];
    let volumes = |source: &Value| {
        let mut volume = source.clone();
        volume["name"] = json!("v");
        json!({"volumes": [volume]})
    };
    for (before, _) in &sources {
        for (after, expected) in &sources {
            let server = Raw::start();
            apply(&server, json!({}), volumes(before)).await;
            let pod = apply(&server, json!({}), volumes(after)).await;
            assert_eq!(pod["volumes"], volumes(expected)["volumes"], "{before} -> {after}");
        }
        let server = Raw::start();
        apply(&server, json!({}), volumes(before)).await;
        assert_eq!(apply(&server, json!({}), json!({})).await.get("volumes"), None);
    }
}

#[tokio::test]
async fn what_another_owns_of_a_struct_stays_and_the_rest_goes() {
    let server = Raw::start();
    apply(&server, json!({"livenessProbe": http_get()}), json!({})).await;
    let other = json!({"livenessProbe": {"httpGet": {"path": "/health", "port": "http"}}});
    let mut theirs = config(&other, &json!({}));
    theirs["spec"]["template"]["spec"]["containers"][0].as_object_mut().expect("a container").remove("image");
    let answer = apply_as(&server, "other", &theirs).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
    let pod = apply(&server, json!({}), json!({})).await;
    let probe = &pod["containers"][0]["livenessProbe"];
    assert_eq!(probe["httpGet"]["path"], "/health");
    assert_eq!(probe["periodSeconds"], 10, "what only I owned is back at its default");
}

#[tokio::test]
async fn an_item_goes_with_what_others_changed_in_it_but_not_when_they_own_the_item() {
    let server = Raw::start();
    let both = json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
    apply(&server, both, json!({})).await;
    let set =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/env/1/value", "value": "3"}]);
    let ask = format!("PATCH {DEPLOYMENTS}/web?fieldManager=hand");
    assert_eq!(server.ask(&ask, crate::raw::JSON_PATCH, set.to_string()).await.code, 200);
    let pod = apply(&server, json!({"env": [{"name": "A", "value": "1"}]}), json!({})).await;
    assert_eq!(pod["containers"][0]["env"], json!([{"name": "A", "value": "1"}]));
}

#[tokio::test]
async fn a_map_loses_the_keys_given_up_and_keeps_those_of_others() {
    let server = Raw::start();
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |data: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
        "data": data})
    };
    let ask = format!("PATCH {maps}/m?fieldManager=me");
    server.ask(&ask, APPLY, map(json!({"a": "1", "b": "2"})).to_string()).await;
    server.ask(&format!("PATCH {maps}/m"), MERGE, json!({"data": {"c": "3"}}).to_string()).await;
    let answer = server.ask(&ask, APPLY, map(json!({"a": "1"})).to_string()).await;
    assert_eq!(answer.body["data"], json!({"a": "1", "c": "3"}));
    server.ask(&format!("PUT {maps}/m"), JSON, map(json!({"a": "1"})).to_string()).await;
    let without = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let answer = server.ask(&ask, APPLY, without.to_string()).await;
    assert_eq!(answer.body.get("data"), None);
}

#[tokio::test]
async fn an_item_named_twice_is_refused() {
    let server = Raw::start();
    let twice = json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]});
    let answer = apply_as(&server, "me", &config(&twice, &json!({}))).await;
    let why = "failed to create typed patch object (/web; apps/v1, Kind=Deployment): \
               .spec.template.spec.containers[name=\"c\"].env: duplicate entries for key [name=\"A\"]";
    assert_eq!((answer.code, answer.message()), (500, why));
}

#[tokio::test]
async fn large_configurations_are_applied_in_time() {
    let server = Raw::start();
    let began = std::time::Instant::now();
    for start in [0, 5_000] {
        let variables: Vec<Value> =
            (start..start + 10_000).rev().map(|n| json!({"name": format!("V{n}"), "value": "x"})).collect();
        let pod = apply(&server, json!({"env": variables}), json!({})).await;
        assert_eq!(pod["containers"][0]["env"].as_array().map(Vec::len), Some(10_000));
    }
    assert!(began.elapsed() < crate::limits::SOON, "{:?}", began.elapsed());
}
