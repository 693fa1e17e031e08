//! The API through the in-process client, as controllers use it.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use sandbox_apiserver::ApiServer;
use serde_json::{Value, json};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn client() -> kube::Client {
    ApiServer::new("secret".to_owned()).client()
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"app": name}}, "data": {"key": value}}),
    )
    .expect("a config map")
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web", "image": "web:1", "ports": [{"containerPort": 8000}],
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]},
            },
        },
    })
}

fn message(error: &kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("not an API error: {other}"),
    }
}

#[tokio::test]
async fn objects_live_and_die() -> Result {
    let maps: Api<ConfigMap> = Api::default_namespaced(client());
    let created = maps.create(&PostParams::default(), &config_map("one", "a")).await?;
    assert!(created.metadata.uid.is_some() && created.metadata.creation_timestamp.is_some());
    let error = maps.create(&PostParams::default(), &config_map("one", "a")).await.expect_err("it exists");
    let text = "configmaps \"one\" already exists".to_owned();
    assert_eq!(message(&error), (409, "AlreadyExists".to_owned(), text));

    let mut stale = created.clone();
    maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"other": "b"}}))).await?;
    stale.data = None;
    let error = maps.replace("one", &PostParams::default(), &stale).await.expect_err("it is stale");
    assert_eq!(message(&error).1, "Conflict");
    let now = maps.get("one").await?;
    assert_eq!(now.data.as_ref().map(std::collections::BTreeMap::len), Some(2));

    assert_eq!(maps.list(&ListParams::default().labels("app in (one, two)")).await?.items.len(), 1);
    assert_eq!(maps.list(&ListParams::default().labels("app!=one")).await?.items.len(), 0);
    assert_eq!(maps.list(&ListParams::default().fields("metadata.name=one")).await?.items.len(), 1);
    maps.delete("one", &DeleteParams::default()).await?;
    let error = maps.get("one").await.expect_err("it is gone");
    assert_eq!(message(&error), (404, "NotFound".to_owned(), "configmaps \"one\" not found".to_owned()));
    Ok(())
}

#[tokio::test]
async fn a_watch_tells_of_every_change_from_a_version_on() -> Result {
    let maps: Api<ConfigMap> = Api::default_namespaced(client());
    let version = maps.list(&ListParams::default()).await?.metadata.resource_version.ok_or("no version")?;
    maps.create(&PostParams::default(), &config_map("one", "a")).await?;
    let mut events = maps.watch(&WatchParams::default().labels("app=one"), &version).await?.boxed();
    assert!(matches!(events.try_next().await?, Some(WatchEvent::Added(_))));
    maps.create(&PostParams::default(), &config_map("two", "a")).await?;
    maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "b"}}))).await?;
    assert!(matches!(events.try_next().await?, Some(WatchEvent::Modified(_))));
    let relabel = Patch::Merge(json!({"metadata": {"labels": {"app": "other"}}}));
    maps.patch("one", &PatchParams::default(), &relabel).await?;
    assert!(matches!(events.try_next().await?, Some(WatchEvent::Deleted(_))), "it left the selector");
    let mut future = maps.watch(&WatchParams::default(), "99999999").await?.boxed();
    assert!(matches!(future.try_next().await?, Some(WatchEvent::Error(status)) if status.code == 410));
    Ok(())
}

#[tokio::test]
async fn a_deployment_gets_defaults_generation_and_a_status_of_its_own() -> Result {
    let deployments: Api<Deployment> = Api::default_namespaced(client());
    let created = deployments.create(&PostParams::default(), &serde_json::from_value(deployment())?).await?;
    let spec = created.spec.clone().ok_or("no spec")?;
    assert_eq!((spec.replicas, spec.progress_deadline_seconds), (Some(1), Some(600)));
    assert_eq!(created.metadata.generation, Some(1));

    let status =
        Patch::Merge(json!({"status": {"replicas": 3, "observedGeneration": 1}, "spec": {"replicas": 9}}));
    let after = deployments.patch_status("web", &PatchParams::default(), &status).await?;
    assert_eq!(after.status.and_then(|status| status.replicas), Some(3));
    assert_eq!(
        after.spec.and_then(|spec| spec.replicas),
        Some(1),
        "the status subresource leaves the spec alone"
    );

    let mut scale = deployments.get_scale("web").await?;
    scale.spec.get_or_insert_default().replicas = Some(4);
    deployments.replace_scale("web", &PostParams::default(), &scale).await?;
    let scaled = deployments.get("web").await?;
    assert_eq!((scaled.spec.and_then(|spec| spec.replicas), scaled.metadata.generation), (Some(4), Some(2)));

    let image = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "web:2", "env": [{"name": "A", "$patch": "delete"}]}]}}}}));
    let patched = deployments.patch("web", &PatchParams::default(), &image).await?;
    let container = patched.spec.and_then(|s| s.template.spec).ok_or("no pod spec")?.containers.remove(0);
    assert_eq!(container.image.as_deref(), Some("web:2"));
    assert_eq!(container.env.map(|env| env.len()), Some(1));
    Ok(())
}

#[tokio::test]
async fn mistakes_are_named_as_kubernetes_names_them() -> Result {
    let deployments: Api<Deployment> = Api::default_namespaced(client());
    let mut wrong = deployment();
    wrong["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    let error =
        deployments.create(&PostParams::default(), &serde_json::from_value(wrong)?).await.expect_err("422");
    assert_eq!(
        message(&error).2,
        "Deployment.apps \"web\" is invalid: spec.template.metadata.labels: Invalid value: \
         {\"app\":\"other\"}: \
         `selector` does not match template `labels`"
    );
    let mut unknown = deployment();
    unknown["spec"]["foo"] = json!(1);
    let strict = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply("me")
    };
    let error = deployments.patch("web", &strict, &Patch::Apply(unknown)).await.expect_err("500");
    assert_eq!(
        message(&error).2,
        "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.foo: field not \
         declared in schema"
    );
    let pods: Api<Pod> = Api::namespaced(client(), "nowhere");
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )?;
    let error = pods.create(&PostParams::default(), &pod).await.expect_err("404");
    assert_eq!(message(&error).2, "namespaces \"nowhere\" not found");
    Ok(())
}

#[tokio::test]
async fn apply_owns_fields_and_gives_them_up() -> Result {
    let deployments: Api<Deployment> = Api::default_namespaced(client());
    let mine = PatchParams::apply("xtask");
    let mut config = deployment();
    config["spec"]["replicas"] = json!(2);
    let first = deployments.patch("web", &mine, &Patch::Apply(&config)).await?;
    let again = deployments.patch("web", &mine, &Patch::Apply(&config)).await?;
    assert_eq!(
        first.metadata.resource_version, again.metadata.resource_version,
        "applying the same writes nothing"
    );

    let scale = Patch::Merge(json!({"spec": {"replicas": 7}}));
    deployments
        .patch("web", &PatchParams { field_manager: Some("hand".to_owned()), ..Default::default() }, &scale)
        .await?;
    let error = deployments.patch("web", &mine, &Patch::Apply(&config)).await.expect_err("a conflict");
    let expected =
        "Apply failed with 1 conflict: conflict with \"hand\" using apps/v1: .spec.replicas".to_owned();
    assert_eq!(message(&error), (409, "Conflict".to_owned(), expected));
    let forced = deployments.patch("web", &mine.clone().force(), &Patch::Apply(&config)).await?;
    assert_eq!(forced.spec.and_then(|spec| spec.replicas), Some(2));

    let container = &mut config["spec"]["template"]["spec"]["containers"][0];
    container["env"] = json!([{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]);
    let changed = deployments.patch("web", &mine, &Patch::Apply(&config)).await?;
    let env = changed.spec.and_then(|s| s.template.spec).ok_or("no pod spec")?.containers.remove(0).env;
    let names: Vec<String> = env.unwrap_or_default().into_iter().map(|variable| variable.name).collect();
    assert_eq!(names, ["B", "C"]);
    Ok(())
}

#[tokio::test]
async fn a_pod_with_a_node_goes_in_two_steps_and_a_namespace_after_its_pods() -> Result {
    let client = client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "play"}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    let pods: Api<Pod> = Api::namespaced(client, "play");
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}))?;
    pods.create(&PostParams::default(), &pod).await?;
    namespaces.delete("play", &DeleteParams::default()).await?;
    let deadline = Duration::from_secs(5);
    let marked = kube::runtime::wait::await_condition(pods.clone(), "p", |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.metadata.deletion_grace_period_seconds == Some(30))
    });
    tokio::time::timeout(deadline, marked).await??;
    let terminating = namespaces.get("play").await?;
    assert_eq!(terminating.status.and_then(|status| status.phase).as_deref(), Some("Terminating"));
    pods.delete("p", &DeleteParams::default().grace_period(0)).await?;
    let gone = kube::runtime::wait::await_condition(namespaces, "play", |namespace: Option<&Namespace>| {
        namespace.is_none()
    });
    tokio::time::timeout(deadline, gone).await??;
    Ok(())
}

/// Answers every admission review as told, until it is dropped.
async fn webhook(allowed: bool) -> Result<(u16, tokio::task::JoinHandle<()>)> {
    use axum::routing::post;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let answer = move |axum::Json(review): axum::Json<Value>| async move {
        let dry = review["request"]["dryRun"].clone();
        axum::Json(json!({"response": {
            "uid": review["request"]["uid"], "allowed": allowed,
            "status": {"message": format!("dry run: {dry}")}}}))
    };
    let router = axum::Router::new().route("/validate", post(answer));
    let serving = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
    Ok((port, serving))
}

#[tokio::test]
async fn webhooks_are_asked_through_their_service() -> Result {
    use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    let client = client();
    let configuration = json!({"metadata": {"name": "w"}, "webhooks": [{
        "name": "validate.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "hook", "path": "/validate"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"]}]}]});
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    configurations.create(&PostParams::default(), &serde_json::from_value(configuration)?).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let dry = PostParams { dry_run: true, field_manager: None };
    let refused = "Internal error occurred: failed calling webhook \"validate.example.com\": failed to call \
                   webhook: \
                   Post \"https://hook.default.svc:443/validate?timeout=10s\": ";
    let error = maps.create(&dry, &config_map("one", "a")).await.expect_err("no service");
    assert_eq!(
        message(&error),
        (500, "InternalError".to_owned(), format!("{refused}service \"hook\" not found"))
    );

    let services: Api<Service> = Api::default_namespaced(client.clone());
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let (port, serving) = webhook(false).await?;
    let slice = json!({
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port}], "endpoints": [{"addresses": ["127.0.0.1"],
        "conditions": {"ready": true}}]});
    let slices: Api<EndpointSlice> = Api::default_namespaced(client);
    slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    let error = maps.create(&dry, &config_map("one", "a")).await.expect_err("denied");
    let denied = "admission webhook \"validate.example.com\" denied the request: dry run: true".to_owned();
    assert_eq!(message(&error), (400, "BadRequest".to_owned(), denied));

    serving.abort();
    assert!(serving.await.is_err());
    let error = maps.create(&dry, &config_map("one", "a")).await.expect_err("refused");
    assert_eq!(message(&error).2, format!("{refused}dial tcp 127.0.0.1:{port}: connect: connection refused"));

    let (port, _serving) = webhook(true).await?;
    let moved = Patch::Merge(json!({"ports": [{"name": "https", "port": port}]}));
    slices.patch("hook-1", &PatchParams::default(), &moved).await?;
    maps.create(&dry, &config_map("one", "a")).await?;
    assert!(maps.get_opt("one").await?.is_none(), "a dry run leaves nothing behind");
    Ok(())
}

#[tokio::test]
async fn finalizers_hold_and_orphans_stay() -> Result {
    let client = client();
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut owner = config_map("owner", "a");
    owner.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    let owner = maps.create(&PostParams::default(), &owner).await?;
    let reference =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}]);
    let child = json!({"metadata": {"generateName": "child-", "ownerReferences": reference}});
    let child = maps.create(&PostParams::default(), &serde_json::from_value(child)?).await?;
    let name = child.metadata.name.ok_or("no name was made")?;
    assert!(name.starts_with("child-") && name.len() == 11, "{name}");
    maps.delete("owner", &DeleteParams::orphan()).await?;
    assert!(maps.get("owner").await?.metadata.deletion_timestamp.is_some());
    assert_eq!(maps.get(&name).await?.metadata.owner_references, None);
    maps.patch("owner", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
        .await?;
    assert!(maps.get_opt("owner").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn both_event_apis_show_the_same_events() -> Result {
    use k8s_openapi::api::core::v1::Event;
    use k8s_openapi::api::events::v1::Event as NewEvent;
    let client = client();
    let new: Api<NewEvent> = Api::default_namespaced(client.clone());
    let event = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "note": "it happened",
        "reason": "R", "action": "A",
        "type": "Warning", "reportingController": "me", "reportingInstance": "me-1",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    new.create(&PostParams::default(), &serde_json::from_value(event)?).await?;
    let core: Api<Event> = Api::default_namespaced(client);
    let found = core.list(&ListParams::default().fields("involvedObject.name=p,type=Warning")).await?;
    assert_eq!(found.items.first().and_then(|event| event.message.as_deref()), Some("it happened"));
    assert_eq!(new.get("e").await?.note.as_deref(), Some("it happened"));
    Ok(())
}

#[tokio::test]
async fn the_pages_of_a_list_show_one_state() -> Result {
    let configs: Api<ConfigMap> = Api::default_namespaced(client());
    let config = |name: &str| serde_json::from_value::<ConfigMap>(json!({"metadata": {"name": name}}));
    for name in ["a", "b", "c", "d"] {
        configs.create(&PostParams::default(), &config(name)?).await?;
    }
    let first = configs.list(&ListParams::default().limit(2)).await?;
    assert_eq!(first.metadata.remaining_item_count, Some(2));
    // Neither of these was so when the list began.
    configs.delete("c", &DeleteParams::default()).await?;
    configs.create(&PostParams::default(), &config("e")?).await?;
    let token = first.metadata.continue_.clone().expect("there is more");
    let second = configs.list(&ListParams::default().limit(5).continue_token(&token)).await?;
    let names: Vec<&str> =
        first.items.iter().chain(&second.items).filter_map(|item| item.metadata.name.as_deref()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(second.metadata.continue_, None);
    Ok(())
}
