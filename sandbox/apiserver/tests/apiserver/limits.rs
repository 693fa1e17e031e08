//! What a request may make of its input: never more, in size, depth and time, than was sent and a bound.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::raw::{JSON, JSON_PATCH, MERGE, Raw, STRATEGIC};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Work that grows as the square of its input takes minutes for what is sent here.
pub(crate) const SOON: Duration = Duration::from_secs(20);

async fn with_map() -> Raw {
    let server = Raw::start();
    let object = json!({"metadata": {"name": "x"}, "data": {"key": "value"}}).to_string();
    assert_eq!(server.ask(&format!("POST {MAPS}"), JSON, object).await.code, 201);
    server
}

async fn patch(server: &Raw, media_type: &str, patch: &Value) -> crate::raw::Answer {
    server.ask(&format!("PATCH {MAPS}/x"), media_type, patch.to_string()).await
}

#[tokio::test]
async fn copies_of_copies_are_refused_before_they_are_made() {
    let server = with_map().await;
    let text = "x".repeat(1000);
    let mut bomb = vec![json!({"op": "add", "path": "/data", "value": {"0": text}})];
    for number in 0..24 {
        bomb.push(json!({"op": "copy", "from": "/data", "path": format!("/data/{}", number + 1)}));
    }
    let answer = patch(&server, JSON_PATCH, &Value::Array(bomb)).await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(server.get(&format!("{MAPS}/x")).await["data"], json!({"key": "value"}));
}

#[tokio::test]
async fn a_copy_within_the_bound_is_taken() {
    let server = with_map().await;
    let copy = json!([{"op": "copy", "from": "/data/key", "path": "/data/other"}]);
    assert_eq!(patch(&server, JSON_PATCH, &copy).await.body["data"]["other"], "value");
}

#[tokio::test]
async fn a_patch_has_ten_thousand_operations_at_the_most() {
    let server = with_map().await;
    let operation = json!({"op": "test", "path": "/data/key", "value": "value"});
    assert_eq!(patch(&server, JSON_PATCH, &json!(vec![&operation; 10_000])).await.code, 200);
    let answer = patch(&server, JSON_PATCH, &json!(vec![&operation; 10_001])).await;
    let why = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!((answer.code, answer.message()), (413, why));
}

#[tokio::test]
async fn a_patch_nests_no_deeper_than_a_body() {
    let server = with_map().await;
    let doubling =
        (0..20).map(|n| json!({"op": "copy", "from": "", "path": format!("/metadata{}", "/a".repeat(n))}));
    let mut deep = vec![json!({"op": "add", "path": "/metadata/a", "value": {}})];
    deep.extend(doubling);
    assert_eq!(patch(&server, JSON_PATCH, &json!(deep)).await.code, 422);
    let one_by_one: Vec<Value> = (1..400)
        .map(|depth| json!({"op": "add", "path": "/a".repeat(depth), "value": {}}))
        .chain([json!({"op": "move", "from": "/a", "path": "/b"})])
        .collect();
    assert_eq!(patch(&server, JSON_PATCH, &json!(one_by_one)).await.code, 422);
}

#[tokio::test]
async fn an_absent_value_tests_as_null() {
    let server = with_map().await;
    let absent = json!([{"op": "test", "path": "/metadata/labels", "value": null}]);
    assert_eq!(patch(&server, JSON_PATCH, &absent).await.code, 200);
    let wrong = json!([{"op": "test", "path": "/data/key", "value": "other"}]);
    assert_eq!(patch(&server, JSON_PATCH, &wrong).await.code, 422);
}

#[tokio::test]
async fn annotations_have_256_kib_with_their_keys() {
    let server = with_map().await;
    let with = |bytes: usize| json!({"metadata": {"annotations": {"note": "x".repeat(bytes - 4)}}});
    assert_eq!(patch(&server, MERGE, &with(256 * 1024)).await.code, 200);
    let answer = patch(&server, MERGE, &with(256 * 1024 + 1)).await;
    let why = "ConfigMap \"x\" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes";
    assert_eq!((answer.code, answer.message()), (422, why));
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "FieldValueTooLong");
}

#[tokio::test]
async fn the_data_of_a_config_map_or_secret_has_one_mebibyte() {
    let server = with_map().await;
    let half = "x".repeat(512 * 1024);
    assert_eq!(patch(&server, MERGE, &json!({"data": {"key": half, "a": half}})).await.code, 200);
    let answer = patch(&server, MERGE, &json!({"data": {"b": "x"}})).await;
    let why = "ConfigMap \"x\" is invalid: []: Too long: may not be more than 1048576 bytes";
    assert_eq!((answer.code, answer.message()), (422, why));
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"key": "x".repeat(1024 * 1024 + 1)}});
    let answer = server.ask("POST /api/v1/namespaces/default/secrets", JSON, secret.to_string()).await;
    let why = "Secret \"s\" is invalid: data: Too long: may not be more than 1048576 bytes";
    assert_eq!((answer.code, answer.message()), (422, why));
}

#[tokio::test]
async fn an_object_has_as_many_bytes_as_etcd_takes() {
    let server = Raw::start();
    let deployment = |bytes: usize| {
        let container = json!({"name": "c", "image": "i", "args": ["x".repeat(bytes)]});
        json!({"metadata": {"name": "x"}, "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [container]}}}})
    };
    let path = "POST /apis/apps/v1/namespaces/default/deployments";
    let answer = server.ask(path, JSON, deployment(1536 * 1024).to_string()).await;
    assert_eq!((answer.code, answer.message()), (500, "etcdserver: request is too large"));
    let answer = server.ask(path, JSON, deployment(1500 * 1024).to_string()).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
}

#[tokio::test]
async fn who_set_which_field_is_given_up_before_the_object_is_refused() {
    let server = with_map().await;
    // Each label is named once more in managedFields.
    let labels: serde_json::Map<String, Value> =
        (0..40_000).map(|n| (format!("label-{n:020}"), json!("x"))).collect();
    let answer = patch(&server, MERGE, &json!({"metadata": {"labels": labels}})).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
    assert_eq!(answer.body["metadata"]["managedFields"], Value::Null);
}

#[tokio::test]
async fn a_refusal_names_the_first_hundred_causes() {
    let server = with_map().await;
    let labels: serde_json::Map<String, Value> =
        (0..100_000).map(|n| (format!("{n}-"), json!("x"))).collect();
    let answer = patch(&server, MERGE, &json!({"metadata": {"labels": labels}})).await;
    let causes = answer.body["details"]["causes"].as_array().expect("causes");
    assert_eq!((answer.code, causes.len()), (422, 101));
    assert_eq!(causes[100]["message"], "Too many: 99900 more are left out");
}

#[tokio::test]
async fn warnings_fit_into_headers() {
    let server = Raw::start();
    let unknown: serde_json::Map<String, Value> = (0..50_000).map(|n| (format!("no{n}"), json!(1))).collect();
    let mut object = json!({"metadata": {"name": "x"}});
    object.as_object_mut().expect("an object").extend(unknown);
    object["a".repeat(5000)] = json!(1);
    let answer = server.ask(&format!("POST {MAPS}"), JSON, object.to_string()).await;
    assert_eq!(answer.code, 201);
    let bytes: usize = answer.warnings.iter().map(String::len).sum();
    assert!((100..8192).contains(&bytes), "{} warnings of {bytes} bytes", answer.warnings.len());
}

#[tokio::test]
async fn large_keyed_lists_are_patched_in_time() {
    let server = Raw::start();
    let variables: Vec<Value> = (0..20_000).map(|n| json!({"name": format!("V{n}"), "value": "x"})).collect();
    let container = json!({"name": "c", "image": "i", "env": variables});
    let pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [container]}});
    let began = Instant::now();
    let answer = server.ask("POST /api/v1/namespaces/default/pods?dryRun=All", JSON, pod.to_string()).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let deployment = json!({"metadata": {"name": "x"}, "spec": {
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [container]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let answer = server.ask(&format!("POST {deployments}"), JSON, deployment.to_string()).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let reversed: Vec<Value> = variables.iter().rev().cloned().collect();
    let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": reversed}]}}}});
    let answer = server.ask(&format!("PATCH {deployments}/x"), STRATEGIC, change.to_string()).await;
    let first = &answer.body["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"];
    assert_eq!((answer.code, first.as_str()), (200, Some("V19999")), "{}", answer.message());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// `count` times an opening, and never an end.
fn nested(opening: &str, bytes: usize) -> String {
    opening.repeat(bytes / opening.len())
}

#[tokio::test]
async fn what_nests_deeply_is_refused_in_time_in_every_form() {
    let server = with_map().await;
    let began = Instant::now();
    for opening in ["[", "{", "{a: ", "[a: ", "[? ", "- ", "? ", "[\n", "{a: [", "&a [", "!t {"] {
        let path = format!("PATCH {MAPS}/x?fieldManager=t");
        let answer = server.ask(&path, crate::raw::APPLY, nested(opening, 2_000_000)).await;
        assert_eq!(answer.code, 400, "{opening}");
    }
    for opening in ["[", "{\"a\":"] {
        let answer = server.ask(&format!("POST {MAPS}"), JSON, nested(opening, 2_000_000)).await;
        assert_eq!(answer.code, 400, "{opening}");
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn aliases_make_no_more_of_a_document_than_a_bound() {
    let server = with_map().await;
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for number in 1..20 {
        let again = vec![format!("*a{}", number - 1); 9].join(", ");
        bomb.push_str(&format!("a{number}: &a{number} [{again}]\n"));
    }
    let began = Instant::now();
    let answer = server.ask(&format!("PATCH {MAPS}/x?fieldManager=t"), crate::raw::APPLY, bomb).await;
    assert_eq!(answer.code, 400);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn yaml_means_what_it_means_to_kubernetes() {
    let server = Raw::start();
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\nimmutable: no\n\
                data:\n  text: |\n    [[[[{{{{\n  twice: a\n  twice: b\n";
    let answer = server.ask(&format!("PATCH {MAPS}/y?fieldManager=t"), crate::raw::APPLY, text).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    assert_eq!(answer.body["immutable"], json!(false));
    assert_eq!(answer.body["data"], json!({"text": "[[[[{{{{\n", "twice": "b"}));
}

#[tokio::test]
async fn numbers_of_a_request_are_bounded() {
    let server = with_map().await;
    for (query, code) in [
        ("watch=true&timeoutSeconds=9223372036854775807", 200),
        ("watch=true&timeoutSeconds=18446744073709551616", 400),
        ("timeoutSeconds=9223372036854775807", 200),
        ("limit=9223372036854775807", 200),
        ("limit=-9223372036854775808", 200),
        ("resourceVersion=18446744073709551615&resourceVersionMatch=Exact", 410),
        ("resourceVersion=18446744073709551616", 400),
    ] {
        let asked = server.status(&format!("GET {MAPS}?{query}")).await;
        assert_eq!(asked, code, "{query}");
    }
    let answer = server.ask(&format!("GET {MAPS}?limit=9223372036854775808"), JSON, "").await;
    let why = "strconv.ParseInt: parsing \"9223372036854775808\": value out of range";
    assert_eq!((answer.code, answer.message()), (400, why));
}

#[tokio::test]
async fn a_short_patch_of_a_large_object_holds_up_nobody() {
    let server = Raw::start();
    let data: serde_json::Map<_, _> = (0..20_000).map(|key| (format!("k{key}"), json!("v"))).collect();
    let object = json!({"metadata": {"name": "x"}, "data": data}).to_string();
    assert_eq!(server.ask(&format!("POST {MAPS}"), JSON, object).await.code, 201);
    // One thread runs both; the second is answered first only where the first is worked out elsewhere.
    let change = json!({"data": {"k0": "w"}});
    let patched = async { (patch(&server, MERGE, &change).await.code, Instant::now()) };
    let asked = async { (server.status("GET /readyz").await, Instant::now()) };
    let ((patched, patched_at), (asked, asked_at)) = tokio::join!(patched, asked);
    assert_eq!((patched, asked), (200, 200));
    assert!(asked_at < patched_at);
}

async fn newest_version(server: &Raw) -> u64 {
    let list = server.get(MAPS).await;
    list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a version")
}

#[tokio::test]
async fn a_version_that_is_still_to_come_is_waited_for_and_then_refused() {
    let server = with_map().await;
    let next = format!("GET {MAPS}/x?resourceVersion={}", newest_version(&server).await + 1);
    let change = json!({"data": {"key": "other"}});
    let (answer, _) = tokio::join!(server.ask(&next, JSON, ""), patch(&server, MERGE, &change));
    assert_eq!((answer.code, &answer.body["data"]["key"]), (200, &json!("other")));

    let never = 9_000_000_000_000_000_000_u64;
    let (list, get) =
        (format!("GET {MAPS}?resourceVersion={never}"), format!("GET {MAPS}/x?resourceVersion={never}"));
    let (list, get) = tokio::join!(server.ask(&list, JSON, ""), server.ask(&get, JSON, ""));
    let newest = newest_version(&server).await;
    let why = format!("Timeout: Too large resource version: {never}, current: {newest}");
    for answer in [list, get] {
        assert_eq!((answer.code, answer.message()), (504, why.as_str()));
        let details = &answer.body["details"];
        assert_eq!(details["retryAfterSeconds"], 1);
        assert_eq!(details["causes"][0]["reason"], "ResourceVersionTooLarge");
    }
}

#[tokio::test]
async fn a_number_out_of_its_bounds_is_refused_as_kubernetes_words_it() {
    let server = Raw::start();
    let not_negative = "must be greater than or equal to 0";
    let percent = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                   '93%', regex used for validation is '[0-9]+%')";
    for (field, value, why) in [
        ("strategy.rollingUpdate.maxUnavailable", json!("-5%"), percent),
        ("strategy.rollingUpdate.maxUnavailable", json!("101%"), "must not be greater than 100%"),
        ("strategy.rollingUpdate.maxSurge", json!(-1), not_negative),
        ("revisionHistoryLimit", json!(-1), not_negative),
        ("minReadySeconds", json!(-1), not_negative),
        (
            "template.spec.securityContext.runAsUser",
            json!(i64::MAX),
            "must be between 0 and 2147483647, inclusive",
        ),
    ] {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
            "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]}}},
        });
        let change = field.rsplit('.').fold(value, |value, name| json!({name: value}));
        json_patch::merge(&mut object["spec"], &change);
        let deployments = "POST /apis/apps/v1/namespaces/default/deployments?dryRun=All";
        let answer = server.ask(deployments, JSON, object.to_string()).await;
        let cause = &answer.body["details"]["causes"][0];
        assert_eq!((answer.code, &cause["field"]), (422, &json!(format!("spec.{field}"))), "{change}");
        assert!(cause["message"].as_str().is_some_and(|message| message.ends_with(why)), "{cause}");
    }
}
