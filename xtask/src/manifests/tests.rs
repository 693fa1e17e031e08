//! Manifests are read as kubectl reads them, and the app is found in them.

use std::path::PathBuf;

use super::render::CONFIG_HASH;
use super::*;
use crate::failure::paragraph;

/// A copy of the shipped manifests that may be changed.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn shipped() -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(folder.path()).expect("a folder");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kubernetes");
        for entry in std::fs::read_dir(shipped).expect("the shipped manifests") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copying");
        }
        folder
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("kubernetes")
    }

    /// Applies an edit of `tests/cases` as git does.
    pub(crate) fn patch(&self, case: &str) -> &Folder {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
        let mut git = std::process::Command::new("git");
        // No repository around the folder shall say which files are its.
        git.current_dir(self.0.path()).env("GIT_CEILING_DIRECTORIES", self.0.path());
        let ran = git.arg("apply").arg(cases.join(case).with_extension("patch")).output().expect("git");
        assert!(ran.status.success(), "{case}: {}", String::from_utf8_lossy(&ran.stderr));
        self
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> &Folder {
        std::fs::write(self.path().join(name), text).expect("writing");
        self
    }

    pub(crate) fn replace(&self, name: &str, from: &str, to: &str) -> &Folder {
        let text = std::fs::read_to_string(self.path().join(name)).expect("reading");
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, &text.replacen(from, to, 1))
    }

    pub(crate) fn read(&self) -> Manifests {
        read(&self.path(), "default").unwrap_or_else(|error| panic!("{}", paragraph(&error)))
    }

    pub(crate) fn refusal(&self) -> String {
        paragraph(&read(&self.path(), "default").expect_err("a refusal"))
    }

    /// The object as it goes to the cluster.
    fn rendered(&self, kind: &str, name: &str) -> Value {
        let objects = self.read().rendered("default", "simple-model-api:abc", &Contents::new());
        let found = objects.into_iter().find(|object| object.kind == kind && object.name == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}")).value
    }

    fn hash(&self) -> String {
        let deployment = self.rendered("Deployment", "simple-model-api-deployment");
        let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
        annotations[CONFIG_HASH].as_str().unwrap_or_default().to_owned()
    }
}

const DEPLOYMENT: &str = "30-deployment.yaml";
const CONTAINERS: &str = "      containers:\n        - name: simple-model-api\n";

fn ingress(name: &str, host: &str, service: &str) -> String {
    let path = format!(
        "{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 8000}}}}}}}}"
    );
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\nspec:\n  rules:\n    - \
         host: {host}\n      http: {{paths: [{path}]}}\n"
    )
}

fn deployment(name: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 0\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: c, image: \
         '{image}'}}]}}\n"
    )
}

fn autoscaler(name: &str, target: &str) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: {name}}}\n\
         spec: {{maxReplicas: 2, scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: \
         {target}}}}}\n"
    )
}

#[test]
fn the_shipped_manifests_say_what_the_steps_need() {
    let manifests = Folder::shipped().read();
    assert_eq!(manifests.host(), "simple-model-api.local");
    assert_eq!(manifests.deployment_name(), "simple-model-api-deployment");
    assert_eq!(manifests.autoscaler_name(), Some("simple-model-api-hpa"));
    assert_eq!(manifests.min_replicas(), Some(3));
    assert_eq!(manifests.pod_selector(), "app.kubernetes.io/name=simple-model-api");
    assert_eq!(manifests.warnings, [""; 0]);
}

#[test]
fn the_app_is_known_by_what_it_is_wherever_its_files_sort() {
    let folder = Folder::shipped();
    folder.write("00-cache.yaml", &deployment("cache", "redis:7"));
    folder.write("01-cache-hpa.yaml", &autoscaler("cache-hpa", "cache"));
    folder.write("02-admin.yaml", &ingress("admin", "admin.local", "admin"));
    folder.write("03-worker.yaml", &deployment("worker", "simple-model-api"));
    let manifests = folder.read();
    assert_eq!(manifests.deployment_name(), "simple-model-api-deployment");
    assert_eq!(manifests.autoscaler_name(), Some("simple-model-api-hpa"));
    assert_eq!(manifests.host(), "simple-model-api.local");
    assert_eq!(manifests.ingress.metadata.name.as_deref(), Some("simple-model-api-ingress"));
}

#[test]
fn the_host_is_that_of_the_apps_own_rule() {
    let folder = Folder::shipped();
    let other =
        "{paths: [{path: /, pathType: Prefix, backend: {service: {name: docs, port: {number: 80}}}}]}";
    folder.replace(
        "70-ingress.yaml",
        "  rules:\n",
        &format!("  rules:\n    - host: docs.local\n      http: {other}\n"),
    );
    assert_eq!(folder.read().host(), "simple-model-api.local");
    folder.replace("70-ingress.yaml", "host: simple-model-api.local", "host: '*.models.local'");
    assert_eq!(folder.read().host(), "app.models.local");
}

#[test]
fn several_that_could_be_the_app_are_an_error_that_names_them() {
    let folder = Folder::shipped();
    folder.write("75-more.yaml", &ingress("more", "more.local", "simple-model-api-service"));
    let refusal = folder.refusal();
    assert!(
        refusal.starts_with(
            "more than one Ingress leads to the app: ingress/simple-model-api-ingress \
                                 for simple-model-api.local (kubernetes/70-ingress.yaml:2)"
        ),
        "{refusal}"
    );
    assert!(refusal.ends_with("ingress/more for more.local (kubernetes/75-more.yaml:1)"), "{refusal}");
    let canary = ingress("more", "more.local", "simple-model-api-service")
        .replace("  name: more", "  name: more\n  annotations: {nginx.ingress.kubernetes.io/canary: 'true'}");
    assert_eq!(folder.write("75-more.yaml", &canary).read().host(), "simple-model-api.local");

    let folder = Folder::shipped();
    folder.write("41-again.yaml", &autoscaler("again", "simple-model-api-deployment"));
    let refusal = folder.refusal();
    assert!(
        refusal.starts_with("2 autoscalers target deployment/simple-model-api-deployment: "),
        "{refusal}"
    );

    let folder = Folder::shipped();
    std::fs::remove_file(folder.path().join("70-ingress.yaml")).expect("removing");
    assert!(folder.refusal().starts_with("no Ingress in "), "{}", folder.refusal());
    folder.write("05-again.yaml", &deployment("again", "simple-model-api"));
    let refusal = folder.refusal();
    assert!(
        refusal.starts_with(
            "2 Deployments have the image `simple-model-api`: deployment/again (kubernetes/05-again.yaml:1), "
        ),
        "{refusal}"
    );
}

#[test]
fn what_is_missing_of_the_app_is_named_with_the_nearest_place() {
    let folder = Folder::shipped();
    folder.replace(DEPLOYMENT, "image: simple-model-api\n", "image: simple-model-api:v2\n");
    assert_eq!(
        folder.refusal(),
        "kubernetes/30-deployment.yaml:64: the image `simple-model-api:v2` is not the one that is built here"
    );
    folder.replace(DEPLOYMENT, "image: simple-model-api:v2\n", "image: other\n");
    assert_eq!(
        folder.refusal(),
        "no container of a Deployment has the image `simple-model-api`; there is \
         deployment/simple-model-api-deployment (kubernetes/30-deployment.yaml:1)"
    );
    let folder = Folder::shipped();
    folder.replace(
        "20-service.yaml",
        "  selector:\n    app.kubernetes.io/name: simple-model-api\n",
        "  selector: {app: other}\n",
    );
    let refusal = folder.refusal();
    assert!(
        refusal.starts_with("kubernetes/30-deployment.yaml:35: no Service in ")
            && refusal.ends_with("selects the pods of deployment/simple-model-api-deployment"),
        "{refusal}"
    );
    let folder = Folder::shipped();
    folder.replace("70-ingress.yaml", "name: simple-model-api-service", "name: simple-model-service");
    let refusal = folder.refusal();
    assert!(
        refusal.contains(
            "leads to service/simple-model-api-service (kubernetes/20-service.yaml:1); \
                              there is ingress/simple-model-api-ingress"
        ),
        "{refusal}"
    );
}

#[test]
fn a_selector_of_expressions_selects_and_one_that_cant_be_computed_is_refused() {
    let labels = "    matchLabels:\n      app.kubernetes.io/name: simple-model-api\n  # Longer";
    let with = |selector: &str| {
        let folder = Folder::shipped();
        folder.replace(DEPLOYMENT, labels, &format!("    {selector}\n  # Longer"));
        folder
    };
    let expressions = with(
        "matchExpressions: [{key: app.kubernetes.io/name, operator: In, values: [simple-model-api]}, {key: \
         tier, operator: DoesNotExist}]",
    );
    assert_eq!(expressions.read().pod_selector(), "app.kubernetes.io/name in (simple-model-api),!tier");
    for (selector, why) in [
        (
            "matchExpressions: [{key: a, operator: In, values: []}]",
            "spec.selector.matchExpressions.0 has no values",
        ),
        ("matchExpressions: [{key: a, operator: Like, values: [b]}]", "has the unknown operator `Like`"),
        ("matchExpressions: [{key: a, operator: Exists, values: [b]}]", "takes no values"),
        ("matchLabels: {}", "is empty and would select every pod"),
    ] {
        let refusal = with(selector).refusal();
        assert!(
            refusal.starts_with("kubernetes/30-deployment.yaml:2") && refusal.contains(why),
            "{selector}: {refusal}"
        );
    }
}

#[test]
fn a_wrong_type_is_named_with_its_field_and_line() {
    let folder = Folder::shipped();
    folder.replace("20-service.yaml", "port: 8000", "port: \"8000\"");
    assert_eq!(
        folder.refusal(),
        "kubernetes/20-service.yaml:13: service/simple-model-api-service: spec.ports[0].port: invalid type: \
         string \"8000\", expected a whole number"
    );
}

#[test]
fn another_namespace_is_refused_and_the_chosen_one_is_not() {
    let folder = Folder::shipped();
    let map = |namespace: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: elsewhere\n  namespace: {namespace}\n")
    };
    folder.write("15-ns.yaml", &map("kube-system"));
    assert_eq!(
        folder.refusal(),
        "kubernetes/15-ns.yaml:5: configmap/elsewhere belongs to namespace kube-system, but the chosen one \
         is default"
    );
    folder.write("15-ns.yaml", &map("default")).read();
    folder
        .write(
            "15-ns.yaml",
            "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: \
                                high, namespace: kube-system}\nvalue: 1\n",
        )
        .read();
}

#[test]
fn an_object_that_is_there_twice_is_refused() {
    let folder = Folder::shipped();
    folder.write(
        "11-again.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: simple-model-api-config}\n",
    );
    assert_eq!(
        folder.refusal(),
        "kubernetes/11-again.yaml:1: configmap/simple-model-api-config is also at \
         kubernetes/10-configmap.yaml:4"
    );
}

#[test]
fn every_container_with_the_apps_image_gets_the_tag() {
    let folder = Folder::shipped();
    let init = "      initContainers:\n        - {name: wait, image: simple-model-api}\n        - {name: \
                side, image: simple-model-api, restartPolicy: Always}\n        - {name: other, image: \
                busybox}\n";
    folder.replace(DEPLOYMENT, CONTAINERS, &format!("{init}{CONTAINERS}"));
    let pod = "{containers: [{name: c, image: simple-model-api}], initContainers: [{name: i, image: \
               simple-model-api}]}";
    let workloads = [
        ("batch/v1", "Job", format!("{{template: {{spec: {pod}}}}}")),
        ("batch/v1", "CronJob", format!("{{jobTemplate: {{spec: {{template: {{spec: {pod}}}}}}}}}")),
        ("apps/v1", "StatefulSet", format!("{{template: {{spec: {pod}}}}}")),
        ("apps/v1", "DaemonSet", format!("{{template: {{spec: {pod}}}}}")),
        ("argoproj.io/v1alpha1", "Rollout", format!("{{template: {{spec: {pod}}}}}")),
        ("v1", "Pod", pod.to_owned()),
    ];
    let files = workloads.iter().map(|(api, kind, spec)| {
        format!("---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: more}}\nspec: {spec}\n")
    });
    folder.write("80-more.yaml", &files.collect::<String>());
    for object in folder.read().rendered("default", "simple-model-api:abc", &Contents::new()) {
        let text = object.value.to_string();
        assert!(!text.contains(r#""image":"simple-model-api""#), "{}: {text}", object.title());
        let wanted = if object.kind == "Deployment" { 3 } else { 2 };
        let count = text.matches(r#""image":"simple-model-api:abc""#).count();
        assert!(count == wanted || !text.contains("\"containers\""), "{}: {count}", object.title());
    }
    let pod = folder.rendered("Deployment", "simple-model-api-deployment");
    assert_eq!(pod["spec"]["template"]["spec"]["initContainers"][2]["image"], "busybox");
    folder.write("90-tagged.yaml", &deployment("tagged", "simple-model-api:v1"));
    assert_eq!(
        folder.read().warnings,
        ["kubernetes/90-tagged.yaml:9: the image `simple-model-api:v1` is not the one that is built \
             here; `image: simple-model-api` is"]
    );
}

#[test]
fn whatever_the_pods_read_changes_the_hash_and_nothing_else_does() {
    let secret = |fields: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: hush}}\n{fields}\n");
    let reads = [
        "          envFrom:\n            - secretRef: {name: hush, optional: true}\n",
        "          env:\n            - {name: T, valueFrom: {secretKeyRef: {name: hush, key: A}}}\n",
    ];
    let volumes = [
        "{name: v, secret: {secretName: hush}}",
        "{name: v, projected: {sources: [{secret: {name: hush}}]}}",
    ];
    let anchor =
        |kind: &str| if kind.contains("envFrom") { "          envFrom:\n" } else { "          env:\n" };
    let mut folders: Vec<Folder> = Vec::new();
    for read in reads {
        let folder = Folder::shipped();
        folder.replace(DEPLOYMENT, anchor(read), read);
        folders.push(folder);
    }
    for volume in volumes {
        let folder = Folder::shipped();
        folder.replace(DEPLOYMENT, CONTAINERS, &format!("      volumes: [{volume}]\n{CONTAINERS}"));
        folders.push(folder);
    }
    let init = Folder::shipped();
    let container =
        "      initContainers: [{name: i, image: busybox, envFrom: [{secretRef: {name: hush}}]}]\n";
    init.replace(DEPLOYMENT, CONTAINERS, &format!("{container}{CONTAINERS}"));
    folders.push(init);
    for folder in folders {
        let hash = |fields: &str| folder.write("12-secret.yaml", &secret(fields)).hash();
        let first = hash("stringData: {A: one}");
        assert_ne!(first, hash("stringData: {A: two}"));
        assert_ne!(first, hash("stringData: {B: one}"));
        assert_eq!(first, hash("data: {A: b25l}"), "the same, written in base64");
        assert_eq!(first, hash("type: Opaque\nstringData: {A: one}"));
        assert_ne!(first, folder.replace("10-configmap.yaml", "\"8000\"", "\"9000\"").hash());
    }
    let folder = Folder::shipped();
    let before = folder.hash();
    assert!(!before.is_empty());
    assert_eq!(
        before,
        folder.write("12-secret.yaml", &secret("stringData: {A: one}")).hash(),
        "nobody reads it"
    );
    folder.write(
        "11-binary.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bin}\nbinaryData: {a: AAEC}\n",
    );
    folder.replace(
        DEPLOYMENT,
        CONTAINERS,
        &format!("      volumes: [{{name: v, configMap: {{name: bin}}}}]\n{CONTAINERS}"),
    );
    let with = folder.hash();
    assert_ne!(before, with);
    assert_ne!(with, folder.replace("11-binary.yaml", "AAEC", "AAED").hash());
}

#[test]
fn a_secrets_words_are_applied_as_data() {
    let folder = Folder::shipped();
    folder.write(
        "12-secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: hush}\ndata: {A: b25l, \
                                    B: dHdv}\nstringData: {A: 'new $HOME'}\n",
    );
    let secret = folder.rendered("Secret", "hush");
    assert_eq!(secret["data"], serde_json::json!({"A": "bmV3ICRIT01F", "B": "dHdv"}));
    assert_eq!(secret.get("stringData"), None);
    folder.write(
        "12-secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: hush}\nstringData: {A: 1}\n",
    );
    assert_eq!(folder.rendered("Secret", "hush")["stringData"]["A"], 1, "the API says what is wrong with it");
}

#[test]
fn replicas_beside_an_autoscaler_are_left_to_it() {
    let folder = Folder::shipped();
    folder.replace(DEPLOYMENT, "\nspec:\n", "\nspec:\n  replicas: 1\n");
    folder.write("31-other.yaml", &deployment("other", "redis"));
    assert_eq!(
        folder.read().warnings,
        ["kubernetes/30-deployment.yaml:19: deployment/simple-model-api-deployment has an autoscaler, \
             which owns `replicas`: the number here is ignored"]
    );
    assert_eq!(folder.rendered("Deployment", "simple-model-api-deployment")["spec"].get("replicas"), None);
    assert_eq!(folder.rendered("Deployment", "other")["spec"]["replicas"], 0);
}

#[test]
fn rendering_takes_whatever_shape_an_object_has() {
    let folder = Folder::shipped();
    let odd = [
        "spec: 1",
        "spec: {template: x}",
        "spec: {template: {spec: {containers: {a: b}}}}",
        "spec: {template: {metadata: x, spec: {containers: [1]}}}",
        "data: 3",
        "stringData: [a]",
    ];
    let kinds = ["StatefulSet", "DaemonSet", "Secret"];
    let mut text = String::new();
    for (index, odd) in odd.iter().enumerate() {
        for kind in kinds {
            let api = if kind == "Secret" { "v1" } else { "apps/v1" };
            text +=
                &format!("---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: odd-{index}}}\n{odd}\n");
        }
    }
    assert_eq!(
        folder
            .write("80-odd.yaml", &text)
            .read()
            .rendered("default", "simple-model-api:abc", &Contents::new())
            .len(),
        7 + 18
    );
}

#[test]
fn what_hides_the_apps_health_is_named_with_its_line() {
    let hidden = |folder: &Folder| {
        folder.read().hidden().map(|hidden| (format!("{}; {}", hidden.why, hidden.cure), hidden.is_certain))
    };
    assert_eq!(hidden(&Folder::shipped()), None);
    let ingress = "ingress/simple-model-api-ingress";
    let service = "service/simple-model-api-service";
    let says = |words: String, is_certain| Some((words, is_certain));
    let other_path = |path: &str| {
        let why = format!("{ingress} does not lead /health to {service}: its path is `{path}`");
        let cure = format!("give {ingress} a path `/` or `/health` for {service}");
        says(format!("{why} (kubernetes/70-ingress.yaml:23); {cure}"), true)
    };
    assert_eq!(hidden(Folder::shipped().patch("prefix")), other_path("/predict"));
    let rewrite = Folder::shipped();
    rewrite.patch("rewrite");
    let (why, is_certain) = hidden(&rewrite).expect("a path that is not /health");
    assert!(
        why.contains("its path is `/model(/|$)(.*)` (kubernetes/70-ingress.yaml:25)") && is_certain,
        "{why}"
    );
    assert_eq!(rewrite.read().host(), "simple-model-api.local");

    let path = "          - path: /\n            pathType: Prefix\n";
    for (wanted, is_hidden) in [
        ("path: /health\n            pathType: Exact\n", false),
        ("path: /health\n            pathType: Prefix\n", false),
        ("path: /healthy\n            pathType: Prefix\n", true),
        ("path: /\n            pathType: Exact\n", true),
    ] {
        let folder = Folder::shipped();
        folder.replace("70-ingress.yaml", path, &format!("          - {wanted}"));
        assert_eq!(hidden(&folder).is_some(), is_hidden, "{wanted}");
    }
    // A rewrite to a part of the path may be the very same path, and is only a suspicion.
    for (target, is_certain) in [("/$1", false), ("/elsewhere", true)] {
        let folder = Folder::shipped();
        let annotation =
            format!("  annotations:\n    nginx.ingress.kubernetes.io/rewrite-target: {target}\n");
        folder.replace("70-ingress.yaml", "  annotations:\n", &annotation);
        let (why, certain) = hidden(&folder).expect("a rewrite");
        assert!(why.contains(&format!("`{target}` (kubernetes/70-ingress.yaml:9)")), "{why}");
        assert_eq!(certain, is_certain, "{target}");
    }
}

#[test]
fn the_pods_port_is_that_of_the_services_port_which_the_ingress_names() {
    let port = |folder: &Folder| folder.read().target_port().clone();
    let named = port(Folder::shipped().patch("port9000"));
    assert_eq!(
        (named.port, named.place.as_str()),
        (IntOrString::String("http".into()), "kubernetes/20-service.yaml:15")
    );
    let folder = Folder::shipped();
    folder.replace("20-service.yaml", "targetPort: http", "targetPort: 9000");
    assert_eq!(port(&folder).port, IntOrString::Int(9000));
    // Without one it is the Service's own port.
    folder.replace("20-service.yaml", "      targetPort: 9000\n", "");
    assert_eq!(port(&folder).port, IntOrString::Int(8000));
    folder.replace("70-ingress.yaml", "                  name: http\n", "                  name: grpc\n");
    let refusal = folder.refusal();
    assert!(
        refusal.contains("names the port `grpc`, which service/simple-model-api-service has not"),
        "{refusal}"
    );
}
