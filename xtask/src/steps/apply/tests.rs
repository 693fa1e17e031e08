//! What comes of the manifests and of edits of them, in an API server; and what is taken from its answers.

use serde_json::json;

use super::*;
use crate::commands::Commands;
use crate::failure::{Hint, attached, paragraph};
use crate::gates::tests::{Server, cx};
use crate::image::Digests;
use crate::manifests::tests::Folder;
use kube::api::{GroupVersionKind, PatchParams};

const IMAGE: &str = "simple-model-api:abc";
pub(crate) const APP: &str = "simple-model-api-deployment";

/// An API server, and manifests that are applied to it.
pub(crate) struct Scene<'s> {
    pub(crate) cx: &'s Cx,
    pub(crate) server: Server,
    pub(crate) folder: Folder,
    pub(crate) cluster: Done<Cluster>,
}

impl Scene<'_> {
    pub(crate) fn new(cx: &Cx) -> Scene<'_> {
        let server = Server::start();
        let cluster = Done::with(server.cluster(cx));
        Scene { cx, server, folder: Folder::shipped(), cluster }
    }

    async fn apply(&self) -> Result<Done<Applied>> {
        let image = Done::with(ImageRef { reference: IMAGE.to_owned(), digests: Digests::default() });
        run(&mut Branch::first(self.cx), &self.cluster, &self.folder.read(), &image, &Known::default(), None)
            .await
    }

    /// Applies what must be taken.
    pub(crate) async fn applied(&self) -> Done<Applied> {
        self.apply().await.unwrap_or_else(|error| panic!("{}", paragraph(&error)))
    }

    /// What is said of manifests that are refused, on reading or by the API.
    async fn refusal(&self) -> String {
        let refused = match crate::manifests::read(&self.folder.path(), "default") {
            Ok(_) => self.apply().await.err(),
            Err(error) => Some(error),
        };
        let error = refused.expect("a refusal");
        let hint =
            attached::<Hint>(&error).map(|hint| Commands::default().write_out(&hint.0)).unwrap_or_default();
        let folder = self.folder.path().with_file_name("").display().to_string();
        format!("{}\n  hint: {hint}\n", paragraph(&error)).replace(&folder, "")
    }

    pub(crate) async fn live(&self, kind: &str, name: &str) -> Value {
        let gvk = match kind {
            "Deployment" => GroupVersionKind::gvk("apps", "v1", kind),
            "Ingress" => GroupVersionKind::gvk("networking.k8s.io", "v1", kind),
            _ => GroupVersionKind::gvk("", "v1", kind),
        };
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = Api::namespaced_with(self.server.direct.clone(), "default", &resource);
        json!(api.get_opt(name).await.expect("the API"))
    }

    /// Applies an object as another manager, or makes a part of it so.
    pub(crate) async fn others(&self, manager: &str, kind: &str, mut object: Value) {
        let core = ["ConfigMap", "Secret", "Service"].contains(&kind);
        let gvk = GroupVersionKind::gvk(if core { "" } else { "apps" }, "v1", kind);
        let resource = ApiResource::from_gvk(&gvk);
        object["apiVersion"] = resource.api_version.as_str().into();
        object["kind"] = kind.into();
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let api: Api<DynamicObject> = Api::namespaced_with(self.server.direct.clone(), "default", &resource);
        let params = PatchParams::apply(manager).force();
        api.patch(&name, &params, &Patch::Apply(object)).await.expect("applying");
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.server.direct.clone(), "default", &resource);
        api.delete(name, &kube::api::DeleteParams::default()).await.expect("deleting");
    }

    /// What the last step of that name came to.
    pub(crate) fn detail(&self, step: &str) -> String {
        let spans = self.cx.spans();
        spans.iter().rev().find(|span| span.name == step).map(|span| span.detail.clone()).unwrap_or_default()
    }
}

/// Each edit changes what is there already, as an edit does.
#[tokio::test]
async fn an_edit_of_the_manifests_arrives_in_the_cluster_as_it_is_written() {
    let cx = cx();
    let container = "/spec/template/spec/containers/0";
    for (case, kind, name, pointer, wanted) in [
        ("downward", "Secret", "hush", "/data/TOKEN", json!("c2Vjb25kLXZhbHVlICRIT01F")),
        ("downward", "Deployment", APP, "{container}/env/6/value", json!("http://$(NODE):8000/$$(x)")),
        ("execprobe", "Deployment", APP, "{container}/livenessProbe/exec/command/2", json!("exit 0")),
        ("execprobe", "Deployment", APP, "{container}/livenessProbe/httpGet", Value::Null),
        ("ingress-first", "Ingress", "admin", "/spec/rules/0/host", json!("admin.local")),
        ("init", "Deployment", APP, "/spec/template/spec/initContainers/0/image", json!(IMAGE)),
        ("json", "ConfigMap", "from-json", "/data/A", json!("1")),
        ("noliveness", "Deployment", APP, "{container}/livenessProbe", Value::Null),
        ("nostartup", "Deployment", APP, "{container}/startupProbe", Value::Null),
        ("octal", "Deployment", APP, "/spec/template/spec/volumes/0/configMap/defaultMode", json!(0o444)),
        ("port9000", "Deployment", APP, "{container}/ports/0/containerPort", json!(9000)),
        (
            "prefix",
            "Ingress",
            "simple-model-api-ingress",
            "/spec/rules/0/http/paths/0/path",
            json!("/predict"),
        ),
        ("replicas1", "Deployment", APP, "/spec/replicas", json!(3)),
        ("second-first", "Deployment", "cache", "/spec/template/spec/containers/0/image", json!("redis:7")),
        ("tcpprobe", "Deployment", APP, "{container}/livenessProbe/tcpSocket/port", json!(8000)),
        ("tcpprobe", "Deployment", APP, "{container}/livenessProbe/httpGet", Value::Null),
        ("twoctr", "Deployment", APP, "/spec/template/spec/containers/1/image", json!(IMAGE)),
        ("vol-cm", "Deployment", APP, "/spec/template/spec/volumes/0/configMap/defaultMode", json!(0o644)),
        ("yesno", "Deployment", APP, "/spec/template/spec/automountServiceAccountToken", json!(false)),
        ("yesno", "Deployment", APP, "/spec/template/spec/enableServiceLinks", json!(false)),
    ] {
        let scene = Scene::new(&cx);
        scene.applied().await;
        // As the autoscaler would.
        let scale = json!({"spec": {"replicas": 3}});
        let deployments: Api<Deployment> = Api::namespaced(scene.server.direct.clone(), "default");
        deployments.patch_scale(APP, &PatchParams::default(), &Patch::Merge(scale)).await.expect("scaling");
        scene.folder.patch(case);
        scene.applied().await;
        let live = scene.live(kind, name).await;
        let pointer = pointer.replace("{container}", container);
        assert_eq!(live.pointer(&pointer).cloned().unwrap_or_default(), wanted, "{case}: {pointer}");
        let image = scene.live("Deployment", APP).await.pointer(&format!("{container}/image")).cloned();
        assert_eq!(image, Some(json!(IMAGE)), "{case}");
        scene.applied().await;
        assert!(
            scene.detail("apply").ends_with("objects are as in kubernetes/"),
            "{case}: {}",
            scene.detail("apply")
        );
    }
}

/// The pods read it, so a change of it is a rollout, wherever it is kept.
#[tokio::test]
async fn what_the_pods_read_counts_though_kubernetes_does_not_have_it() {
    let cx = cx();
    let scene = Scene::new(&cx);
    scene.folder.replace(
        "30-deployment.yaml",
        "          envFrom:\n",
        "          envFrom:\n            - {secretRef: {name: token, optional: true}}\n",
    );
    assert!(scene.applied().await.template_changed);
    let secret = |value: &str| json!({"metadata": {"name": "token"}, "stringData": {"TOKEN": value}});
    for (value, is_change) in [("one", true), ("one", false), ("two", true)] {
        scene.others("vault", "Secret", secret(value)).await;
        let applied = scene.applied().await;
        assert_eq!((applied.template_changed, applied.stale.len()), (is_change, 0), "{value}");
    }
    scene.delete("Secret", "token").await;
    assert!(scene.applied().await.template_changed, "without it");
}

/// A pod that was started in between has read what nobody declared, and the template does not show it.
#[tokio::test]
async fn what_was_changed_in_the_cluster_is_put_back_and_its_readers_are_restarted() {
    let cx = cx();
    let scene = Scene::new(&cx);
    assert_eq!(scene.applied().await.stale, []);
    let config = "simple-model-api-config";
    let stale = Stale {
        kind: "Deployment".to_owned(),
        name: APP.to_owned(),
        put_back: vec![format!("configmap/{config}")],
    };
    let other = json!({"metadata": {"name": config}, "data": {"PORT": "1"}});
    scene.others("kubectl-edit", "ConfigMap", other).await;
    let applied = scene.applied().await;
    assert_eq!((applied.template_changed, &applied.stale), (false, &vec![stale]));
    assert_eq!(scene.live("ConfigMap", config).await["data"]["PORT"], "8000");
    scene.delete("ConfigMap", config).await;
    assert_eq!(scene.applied().await.stale.len(), 1, "a pod may have started without it");
    // What no pod reads, and what is not content, restarts nothing.
    let label = json!({"metadata": {"name": config, "labels": {"app.kubernetes.io/name": "other"}}});
    scene.others("kubectl-label", "ConfigMap", label).await;
    assert_eq!(scene.applied().await.stale, []);
    assert_eq!(scene.detail("apply"), format!("configmap/{config} configured"));
}

#[tokio::test]
async fn what_the_api_warns_about_is_shown_with_the_objects_place() {
    let cx = cx();
    let scene = Scene::new(&cx);
    let events = scene.folder.path().with_file_name("events.jsonl");
    cx.output.log_to(&events).expect("a log");
    scene.server.warns("spec.x is deprecated");
    scene.applied().await;
    let events = std::fs::read_to_string(&events).expect("the log");
    let warnings: Vec<&str> = events.lines().filter(|line| line.contains("\"warning\"")).collect();
    assert_eq!(warnings.len(), 7, "{events}");
    let service = "kubernetes/20-service.yaml:1: service/simple-model-api-service: spec.x is deprecated";
    assert!(warnings[1].contains(service), "{}", warnings[1]);
}

/// In one line for each fault: where, what, why; and how to fix it.
#[tokio::test]
async fn what_is_refused_is_said_with_its_line_and_its_cure() {
    let deployment = "30-deployment.yaml";
    let env = "          env:\n";
    let edits = [
        (deployment, "  strategy:\n", "  colour: red\n  strategy:\n"),
        (deployment, env, "          env:\n            - {name: A, valueFrom: {fieldRef: {fieldPth: x}}}\n"),
        (deployment, env, "          env:\n            - {name: A, value: 1}\n"),
        (deployment, "maxSurge: 3", "maxSurge: 0"),
        ("10-configmap.yaml", "PORT: \"8000\"", "PORT: 8000"),
        ("20-service.yaml", "type: ClusterIP", "type: Internal"),
        ("40-hpa.yaml", "maxReplicas: 10", "maxReplicas: 2"),
    ];
    let mut said = String::new();
    for (file, from, to) in edits {
        // A failure ends its run.
        let cx = cx();
        let scene = Scene::new(&cx);
        scene.folder.replace(file, from, to);
        said.push_str(&scene.refusal().await);
    }
    for case in ["ns", "selector", "seps-badline", "strport", "typo"] {
        let cx = cx();
        let scene = Scene::new(&cx);
        scene.applied().await;
        scene.folder.patch(case);
        said.push_str(&format!("# {case}\n{}", scene.refusal().await));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_warnings_text_is_taken_from_its_header() {
    assert_eq!(warnings(r#"299 - "spec.x: \"a\" is deprecated""#), [r#"spec.x: "a" is deprecated"#]);
    assert_eq!(warnings(r#"299 - "one", 299 api "two" "Mon, 02 Mar 2026 12:00:00 GMT""#), ["one", "two"]);
    assert_eq!(warnings("nothing"), [""; 0]);
    assert_eq!(warnings(r#"299 - "cut off"#), [""; 0]);
}

#[test]
fn only_what_the_manifest_speaks_of_is_our_change() {
    let manifest = json!({"spec": {"template": {"containers": [{"name": "app", "image": "new"}]}}});
    let object = |image: &str, replicas: u32, owned: &str| -> DynamicObject {
        let container = json!({"name": "app", "image": image, "imagePullPolicy": "Never"});
        let mut entry = json!({"manager": FIELD_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1"});
        entry["fieldsV1"] = json!({owned: {}});
        let other =
            json!({"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:replicas": replicas}});
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "managedFields": [entry, other]},
            "spec": {"replicas": replicas, "template": {"containers": [container]}},
            "status": {"replicas": replicas},
        }))
        .expect("an object")
    };
    let before = wanted(&manifest, &object("new", 3, "f:spec"));
    assert_eq!(before, wanted(&manifest, &object("new", 7, "f:spec")), "an autoscaler's write");
    assert_ne!(before, wanted(&manifest, &object("old", 3, "f:spec")), "another value");
    assert_ne!(before, wanted(&manifest, &object("new", 3, "f:data")), "a field that the manifest gave up");
}
