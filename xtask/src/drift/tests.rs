//! What has left `kubernetes/` is told from what never was in it, and what was changed from what controllers change.

use serde_json::json;

use super::*;
use crate::gates::tests::cx;
use crate::pipeline::Branch;
use crate::steps::apply::tests::{APP, Scene};
use crate::steps::prune;

async fn titles(scene: &Scene<'_>) -> Vec<String> {
    let orphans = orphans(&scene.server.client, "default", &scene.folder.read()).await.expect("orphans");
    orphans.into_iter().map(|orphan| orphan.title).collect()
}

#[tokio::test]
async fn what_has_left_the_folder_is_named_and_removed_and_nothing_else_is() {
    let cx = cx();
    let scene = Scene::new(&cx);
    let map = |name: &str| json!({"metadata": {"name": name}, "data": {"a": "b"}});
    let labelled =
        |name: &str, app: &str| json!({"metadata": {"name": name, "labels": {"xtask/part-of": app}}});
    let class = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: mine}\nspec: \
                 {controller: example.com/x}\n";
    scene
        .folder
        .patch("json")
        .patch("second-first")
        .write("05-class.yaml", class)
        .write("06-shared.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\n");
    scene.applied().await;
    scene.others("helm", "ConfigMap", map("anothers")).await;
    scene.others("xtask", "ConfigMap", labelled("another-app", "fraud-model")).await;
    scene.others("xtask", "ConfigMap", map("from-before-the-label")).await;
    scene.others("argocd", "ConfigMap", labelled("shared", "simple-model-api")).await;
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "1", "controller": true}]);
    let made = json!({"metadata": {"name": "made", "labels": {"xtask/part-of": "simple-model-api"},
        "ownerReferences": owner}});
    scene.others("controller", "ConfigMap", made).await;
    assert_eq!(titles(&scene).await, ["configmap/from-before-the-label"]);

    for file in ["15-extra.json", "15-cache.yaml", "05-class.yaml", "06-shared.yaml"] {
        std::fs::remove_file(scene.folder.path().join(file)).expect("removing");
    }
    let all = [
        "configmap/from-before-the-label",
        "configmap/from-json",
        "configmap/shared",
        "deployment/cache",
        "ingressclass/mine",
    ];
    let mut found = titles(&scene).await;
    found.sort_unstable();
    assert_eq!(found, all);
    let elsewhere =
        orphans(&scene.server.client, "kube-system", &scene.folder.read()).await.expect("orphans");
    assert!(elsewhere.is_empty(), "another namespace's");

    let manifests = scene.folder.read();
    prune::run(&mut Branch::first(&cx), &scene.cluster, &manifests, false).await.expect("naming them");
    let prune_command = cx.commands.xtask("up --prune");
    let named = format!("5 objects left alone; `{prune_command}` removes what has left kubernetes/");
    assert_eq!(scene.detail("prune"), named);
    assert_eq!(titles(&scene).await.len(), 5, "nothing was asked for");
    prune::run(&mut Branch::first(&cx), &scene.cluster, &manifests, true).await.expect("removing them");
    for orphan in all.into_iter().filter(|orphan| *orphan != "configmap/shared") {
        assert!(scene.detail("prune").contains(orphan), "{}", scene.detail("prune"));
    }
    assert_eq!(titles(&scene).await, ["configmap/shared"], "argocd would miss it");
    for kept in ["anothers", "another-app", "made", "simple-model-api-config"] {
        assert_ne!(scene.live("ConfigMap", kept).await, Value::Null, "{kept}");
    }
    scene.delete("ConfigMap", "shared").await;
    prune::run(&mut Branch::first(&cx), &scene.cluster, &manifests, true).await.expect("nothing to do");
    assert_eq!(scene.detail("prune"), "nothing has left kubernetes/");
}

#[tokio::test]
async fn only_what_an_apply_would_change_is_drift() {
    let cx = cx();
    let scene = Scene::new(&cx);
    let manifests = scene.folder.read();
    let look = async || look(&scene.server.client, "default", &manifests).await.expect("a look");
    assert_eq!(look().await.missing.len(), 7);
    scene.applied().await;
    assert_eq!(look().await, Drift::default());

    // What the autoscaler, controllers and `kubectl rollout restart` write.
    let template = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}});
    let beside = json!({"metadata": {"name": APP, "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"replicas": 5, "template": template}});
    scene.others("kubectl-rollout", "Deployment", beside).await;
    assert_eq!(look().await, Drift::default());

    let container = json!({"name": "simple-model-api", "imagePullPolicy": "Always"});
    let edit = json!({"metadata": {"name": APP}, "spec": {"template": {"spec": {"containers": [container],
        "terminationGracePeriodSeconds": 29}}}});
    scene.others("kubectl-edit", "Deployment", edit).await;
    scene.delete("Service", "simple-model-api-service").await;
    let drift = look().await;
    assert_eq!(drift.cure(), "up");
    let folder = scene.folder.path().with_file_name("").display().to_string();
    insta::assert_snapshot!(drift.lines().join("\n").replace(&folder, ""), @"
    service/simple-model-api-service is not in the cluster
    deployment/simple-model-api-deployment is not as in kubernetes/30-deployment.yaml:1: spec.template.spec.containers[0].imagePullPolicy, spec.template.spec.terminationGracePeriodSeconds
    ");

    // An experiment tells of itself.
    let mark = json!({"metadata": {"name": APP, "annotations": {temporary::ANNOTATION: "{}"}}});
    scene.others("load", "Deployment", mark).await;
    assert_eq!(look().await.changed, []);
}
