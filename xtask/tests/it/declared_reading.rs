//! The files mean what stock kubectl takes them to mean: each case is read here and by `kubectl apply --dry-run=server`
//! against a sandbox, and both must say the same or both refuse.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::world::{Ran, World, eventually};

/// An API server, without the pipeline that would fill it.
struct Api {
    world: World,
    daemon: Child,
}

impl Api {
    fn start() -> Api {
        let world = World::sandbox();
        let mut serve = world.sandbox_itself("serve", &["--context", "it"]);
        let daemon = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a sandbox");
        let api = Api { world, daemon };
        eventually("the API answers", Duration::from_secs(30), || {
            api.kubectl(&["get", "serviceaccount", "default"]).code == 0
        });
        api
    }

    fn kubectl(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.world.home().join("kubeconfig")).args(args);
        Ran::of(command.env("HOME", self.world.scratch()))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // Told to end, it ends its children too; what remains of the world is removed behind it.
        let _ = self.world.sandbox_itself("stop", &[]).output();
        let _ = self.daemon.wait();
    }
}

/// What kubectl read: it keeps the whole of it in an annotation of what it would apply.
fn kubectls(api: &Api, folder: &Path) -> Result<Vec<Value>, String> {
    let ran = api.kubectl(&[
        "apply",
        "--dry-run=server",
        "-o",
        "json",
        "-n",
        "default",
        "-f",
        &folder.display().to_string(),
    ]);
    // kubectl calls a folder without objects an error; for a folder of the user's it is no mistake.
    if ran.code != 0 && !ran.stderr.contains("no objects passed to apply") {
        return Err(ran.stderr);
    }
    let printed: Value = if ran.stdout.trim().is_empty() {
        json!({})
    } else {
        serde_json::from_str(&ran.stdout).expect(&ran.stdout)
    };
    let objects = match printed.get("items") {
        Some(items) => items.as_array().cloned().unwrap_or_default(),
        None if printed.get("kind").is_some() => vec![printed],
        None => Vec::new(),
    };
    let read = |object: &Value| {
        let kept = &object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
        serde_json::from_str(kept.as_str().expect("what was applied")).expect("JSON")
    };
    Ok(objects.iter().map(read).collect())
}

/// What is read here, with what kubectl adds to each object.
fn read_here(folder: &Path) -> Result<Vec<Value>, String> {
    let (objects, _) = xtask::manifests::objects(folder).map_err(|error| format!("{error:#}"))?;
    let complete = |object: xtask::manifests::Object| {
        let mut value = object.value;
        let metadata = value["metadata"].as_object_mut().expect("metadata");
        metadata.entry("annotations").or_insert_with(|| Map::new().into());
        if object.kind != "Namespace" {
            metadata.entry("namespace").or_insert_with(|| "default".into());
        }
        value
    };
    Ok(objects.into_iter().map(complete).collect())
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

/// A name, files by name and content, and whether they can be read.
type Case = (&'static str, Vec<(&'static str, Vec<u8>)>, bool);

fn cases() -> Vec<Case> {
    let file = |text: &str| vec![("a.yaml", text.as_bytes().to_vec())];
    let map = |fields: &str| file(&format!("{MAP}{fields}"));
    let utf_16 = |mark: [u8; 2], unit: fn(u16) -> [u8; 2], text: &str| -> Vec<(&'static str, Vec<u8>)> {
        vec![("a.yaml", mark.into_iter().chain(text.encode_utf16().flat_map(unit)).collect())]
    };
    let deployment = |fields: &str| {
        file(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec:\n  selector: \
             {{matchLabels: {{app: a}}}}\n  template:\n    \
             metadata: {{labels: {{app: a}}}}\n    spec:\n      containers: [{{name: a, image: a}}]\n{fields}"
        ))
    };
    let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"A":"1"}}"#;
    vec![
        ("quoted words", map("data: {a: 'yes', b: \"0444\", c: |-\n    no\n  }\n").clone(), false),
        ("literal", map("data:\n  a: |\n    no\n    --- x\n  b: >-\n    folded\n    words\n"), true),
        (
            "octal mode",
            deployment("      volumes: [{name: c, configMap: {name: a, defaultMode: 0444}}]\n"),
            true,
        ),
        ("new octal mode", deployment("      volumes: [{name: c, configMap: {name: a, defaultMode: \
                                       0o444}}]\n"), true),
        (
            "booleans",
            deployment(
                "      automountServiceAccountToken: no\n      enableServiceLinks: off\n\
                 \x20     hostNetwork: n\n      hostPID: False\n",
            ),
            true,
        ),
        ("a whole float", deployment("      terminationGracePeriodSeconds: 3.0\n"), true),
        ("an exponent", deployment("      terminationGracePeriodSeconds: 1e2\n"), true),
        ("underscores", deployment("      terminationGracePeriodSeconds: 1_0\n"), true),
        ("hexadecimal", deployment("      terminationGracePeriodSeconds: 0x10\n"), true),
        ("binary", deployment("      terminationGracePeriodSeconds: 0b11\n"), true),
        ("words that look like numbers", map("data: {a: 0x, b: 1.2.3, c: 12:30:45, d: 2024-01-01, e: _1, f: \
                                              1e400, g: oN}\n"), true),
        ("odd field names", map("data: {yes: a, 0x10: b, 1.5: c, on: d, 010: e}\n"), true),
        ("a null field name", map("data: {~: a}\n"), false),
        ("infinity", map("data: {a: .inf}\n"), false),
        ("tags", map("data: {a: !!str 123, b: !theirs word, c: !!str yes}\n"), true),
        ("a field twice", map("data: {a: '1', a: '2'}\n"), true),
        ("merged labels", file("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: &l {a: x, \
                                b: x}\n  annotations:\n    <<: *l\n    b: own\n"), true),
        ("merged behind its own", file("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: &l \
                                        {a: x, b: x}\n  annotations:\n    b: own\n    <<: *l\n"), true),
        ("a merge of no mapping", map("data: {<<: 3}\n"), false),
        ("an unknown anchor", map("data: *x\n"), false),
        (
            "anchors end with their document",
            file(&format!("{MAP}data: &x {{a: b}}\n---\n{MAP}data: *x\n")),
            false,
        ),
        ("byte order mark", vec![("a.yaml", [b"\xef\xbb\xbf", MAP.as_bytes()].concat())], true),
        ("UTF-16, little", utf_16([0xff, 0xfe], u16::to_le_bytes, MAP), true),
        ("UTF-16, big", utf_16([0xfe, 0xff], u16::to_be_bytes, MAP), true),
        ("UTF-16, unmarked", vec![("a.yaml", MAP.encode_utf16().flat_map(u16::to_le_bytes).collect())], false),
        ("Latin-1", vec![("a.yaml", [MAP.as_bytes(), b"data: {a: '\xe4'}\n"].concat())], true),
        ("Windows lines", file(&format!("{MAP}---\n{MAP}data: {{b: c}}\n").replace('\n', "\r\n")), true),
        ("comments alone", file(&format!("# a\n---\n# b\n--- # c\n---\nnull\n---\n{MAP}---\n")), true),
        ("text behind a separator", file(&format!("{MAP}--- x\n")), false),
        ("four dashes", file(&format!("{MAP}----\n")), false),
        ("an end mark", file(&format!("{MAP}...\nnonsense: [\n---\n{MAP}data: {{b: c}}\n")), true),
        ("a directive", file(&format!("%YAML 1.2\n---\n{MAP}")), false),
        ("a tab", file("apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: a\n"), false),
        ("wrong indentation", file("apiVersion: v1\nkind: ConfigMap\n  metadata: {name: a}\n"), false),
        ("JSON", vec![("a.json", json.into())], true),
        ("JSON twice", vec![("a.json", format!("{json}\n {json}").into())], true),
        ("JSON in YAML", file(&format!("# words\n---\n{json}\n---\n{json}\n")), true),
        ("YAML in JSON's place", vec![("a.json", MAP.into())], true),
        ("a brace first", file("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"), false),
        ("JSON with a comma too many", file(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},}"#), false),
        ("JSON with a field twice", file(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"A":"1","A":"2"}}"#), true),
        (
            "a list",
            file(&format!(
                "apiVersion: v1\nkind: List\nitems:\n- {json}\n- {}\n",
                json.replace("\"a\"", "\"b\"")
            )),
            true,
        ),
        ("a typed list", file("apiVersion: v1\nkind: ConfigMapList\nitems:\n- {metadata: {name: a}}\n- \
                               {metadata: {name: b}}\n"), true),
        ("an empty list", file("apiVersion: v1\nkind: List\nitems: []\n"), true),
        ("an empty list", file("apiVersion: v1\nkind: List\nmetadata: {name: a}\nitems:\n"), false),
        ("a word", file("hello\n"), false),
        ("a sequence", file("- a\n"), false),
        ("a number for a name", file("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 123}\n"), false),
        ("no name", file("apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n"), false),
        ("no kind", file("apiVersion: v1\nmetadata: {name: a}\n"), false),
        ("no version", file("kind: ConfigMap\nmetadata: {name: a}\n"), false),
        (
            "which files",
            [".hidden.yaml", ".yaml", "b.yml", "c.json", "UP.YAML", "d.yaml.bak", "e.txt"]
                .map(|name| (name, format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"n{}\"}}}}", name.len()).into_bytes()))
                .to_vec(),
            true,
        ),
        ("sub-folders", vec![("a.yaml", MAP.into()), ("sub/b.yaml", "nonsense: [".into())], true),
    ]
}

#[test]
fn every_case_is_read_as_kubectl_reads_it() {
    let api = Api::start();
    let mut differs = Vec::new();
    for (index, (name, files, readable)) in cases().into_iter().enumerate() {
        let folder = api.world.scratch().join(format!("case-{index}"));
        for (file, text) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("making the folder");
            std::fs::write(path, text).expect("writing");
        }
        compare(&api, name, &folder, Some(readable), &mut differs);
    }
    for patch in patches() {
        let name = patch.file_stem().expect("a name").to_string_lossy().into_owned();
        // Refused for what they say, not for how they are written; that is another test's.
        if !["ns", "typo", "strport"].contains(&name.as_str()) {
            let folder = api.world.scratch().join(&name);
            patched(&api.world, &patch, &folder);
            compare(&api, &name, &folder.join("kubernetes"), None, &mut differs);
        }
    }
    assert!(differs.is_empty(), "{}", differs.join("\n\n"));
}

fn compare(api: &Api, name: &str, folder: &Path, readable: Option<bool>, differs: &mut Vec<String>) {
    let (theirs, here) = (kubectls(api, folder), read_here(folder));
    let agree = match (&theirs, &here) {
        (Ok(theirs), Ok(here)) => theirs == here,
        (Err(_), Err(_)) => true,
        _ => false,
    };
    if !agree || readable.is_some_and(|readable| readable != here.is_ok()) {
        differs.push(format!("{name}:\n  kubectl {theirs:?}\n  here    {here:?}"));
    }
}

/// The edits of `kubernetes/` that are tried, one file each.
fn patches() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut patches: Vec<_> =
        std::fs::read_dir(folder).expect("the cases").flatten().map(|entry| entry.path()).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    assert!(patches.len() >= 20, "{patches:?}");
    patches
}

/// A copy of `kubernetes/` in `folder`, with an edit.
fn patched(world: &World, patch: &Path, folder: &Path) {
    world.copy_manifests(folder);
    world.patch(folder, patch);
}
