//! Each failure that a user can meet: one clear paragraph, a hint, the right exit code, nothing changed.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::world::{Ran, World, explained_elsewhere};

fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is missing:\n{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

/// The folder of a run whose report is named.
fn run(ran: &Ran) -> PathBuf {
    let page = ran.stderr.lines().find_map(|line| line.strip_prefix("report: "));
    Path::new(page.expect("a report")).parent().expect("a folder").to_owned()
}

#[test]
fn a_manifest_with_a_syntax_error() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    std::fs::write(
        root.join("kubernetes/20-service.yaml"),
        "apiVersion: v1\nkind: Service\n  metadata: {}\n",
    )
    .expect("writing");
    let ran = world.run(&["up"]);
    says(&ran, 10, &["kubernetes/20-service.yaml:3:", "this is not valid YAML", "hint:"]);
    assert!(!world.home().exists(), "nothing was started");
}

#[test]
fn a_ci_system_is_told_of_the_line_the_steps_and_the_cause() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    let text = "apiVersion: v1\nkind: Service\n  metadata: {}\n";
    std::fs::write(root.join("kubernetes/20-service.yaml"), text).expect("writing");
    let (junit, job) = (world.scratch().join("reports/up.xml"), world.scratch().join("summary.md"));
    world.set("GITHUB_ACTIONS", "true");
    world.set("GITHUB_STEP_SUMMARY", job.display());
    let ran = world.run(&["up", "--output", "json", "--junit", &junit.display().to_string()]);
    let annotation = "\n::error file=kubernetes/20-service.yaml,line=3,title=cargo xtask up::";
    says(&ran, 10, &[annotation]);
    let error = ran.summary()["error"].as_str().expect("an error").to_owned();
    let job = std::fs::read_to_string(job).expect("the job's summary");
    assert!(job.starts_with("### ❌ cargo xtask up") && job.contains(&error), "{job}");
    let junit = std::fs::read_to_string(junit).expect("the JUnit file");
    assert!(junit.contains("<testcase name=\"up\" classname=\"xtask.run\""), "{junit}");
    assert!(junit.contains("kubernetes/20-service.yaml:3:"), "{junit}");

    // A file that can't be written is said, and does not hide how the run ended.
    let ran = world.run(&["up", "--junit", "/dev/full"]);
    says(&ran, 10, &["warning: writing the JUnit file /dev/full: No space left on device"]);
    let ran = world.run(&["doctor", "--junit", "/proc/no/such"]);
    assert!(ran.stderr.contains("writing the JUnit file /proc/no/such: No such file"), "{}", ran.stderr);
}

#[test]
fn an_unknown_kind() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    std::fs::write(
        root.join("kubernetes/99-odd.yaml"),
        "# odd\napiVersion: example.com/v1\nkind: Teapot\nmetadata: {name: t}\n",
    )
    .expect("writing");
    let ran = world.run(&["up"]);
    says(
        &ran,
        20,
        &[
            "kubernetes/99-odd.yaml:2: the cluster knows no kind `Teapot` in apiVersion `example.com/v1`",
            "nothing was applied",
            "hint:",
        ],
    );
    let left = world.kubectl(&["get", "deploy", "-o", "name"]);
    assert_eq!(left.stdout, "", "nothing was applied");
}

#[test]
fn an_unknown_field() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    let file = root.join("kubernetes/30-deployment.yaml");
    let text = std::fs::read_to_string(&file).expect("reading");
    std::fs::write(&file, text.replace("terminationGracePeriodSeconds:", "terminationGracePeriodSecond:"))
        .expect("writing");
    let ran = world.run(&["up"]);
    says(
        &ran,
        20,
        &[
            "kubernetes/30-deployment.yaml:39: deployment/simple-model-api-deployment: \
             spec.template.spec.terminationGracePeriodSecond: unknown field\n",
            "hint: did you mean `terminationGracePeriodSeconds`?",
        ],
    );
}

#[test]
fn a_port_in_use() {
    let mut world = World::sandbox();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its number").port();
    world.set("XTASK_PORT", port);
    let ran = world.run(&["up"]);
    says(&ran, 10, &[&format!("port {port} of 127.0.0.1"), "hint:", "--port"]);
    assert!(!world.home().exists(), "nothing was started");
}

#[test]
fn a_missing_tool() {
    let mut world = World::sandbox();
    world.set("PATH", "/nonexistent");
    world.set("XTASK_CLUSTER", "minikube");
    let ran = world.run(&["up"]);
    says(&ran, 10, &["no `minikube` on PATH", "no `docker` on PATH", "--cluster sandbox"]);
}

#[test]
fn corrupt_weights() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    let target = root.join("target");
    world.set("CARGO_TARGET_DIR", target.display());
    world.run_ok(&["weights", "generate", "--seed", "1"]);
    let model = target.join("xtask/weights/model.onnx");
    let mut file = std::fs::File::options().append(true).open(&model).expect("opening the model");
    file.write_all(b"x").expect("spoiling the model");
    let ran = world.run(&["up"]);
    says(&ran, 10, &["model.onnx", "hint:", "cargo xtask weights"]);
    let _ = world.run(&["down"]);
}

#[test]
fn an_unwritable_target_folder() {
    let mut world = World::sandbox();
    // A file where a folder must be stops root too, which permissions do not.
    let file = world.scratch().join("file");
    std::fs::write(&file, "").expect("writing");
    world.set("CARGO_TARGET_DIR", file.join("target").display());
    says(&world.run(&["up"]), 10, &["keeping the run's records", "hint:", "CARGO_TARGET_DIR"]);
}

#[test]
fn outside_of_a_workspace() {
    let mut world = World::sandbox();
    world.root = world.scratch().to_owned();
    says(&world.run(&["up"]), 10, &["no Cargo workspace at or above", "hint:"]);
}

#[test]
fn no_cluster_runs() {
    let world = World::sandbox();
    let up = format!("cargo xtask up --cluster sandbox --profile {} --port 0", world.profile);
    for command in ["redeploy", "smoke", "logs", "kubeconfig"] {
        says(&world.run(&[command]), 10, &["is not running", &format!("hint: start it with `{up}`")]);
    }
    let status = world.run_ok(&["status", "--output", "json"]).summary();
    assert_eq!(status["ready"], false);
    assert!(status["gates"][0]["detail"].as_str().is_some_and(|detail| detail.contains(&up)), "{status}");
    // What can't be sent is told before anything is waited for, and before a plan is believed.
    let told = ["reading /absent.png for --file: No such file or directory"];
    says(&world.run(&["load", "--file", "/absent.png"]), 2, &told);
    says(&world.run(&["load", "--dry-run", "--file", "/absent.png"]), 2, &told);
    world.run_ok(&["down"]);
}

/// A cargo that fails to compile, at length.
fn failing_cargo(world: &World) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let cargo = world.scratch().join("cargo");
    let real = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = build ] || exec {real} \"$@\"\n\
         printf '\\033[1m\\033[38;5;9merror[E0308]\\033[0m: mismatched types\\033]0;title\\007\\n' >&2\n\
         [ \"$CARGO_TERM_COLOR\" = always ] || exit 3\n\
         [ \"$CARGO_TERM_PROGRESS_WHEN\" = always ] || exit 4\n\
         printf '    Building [==>  ] 3/9: serde, tokio  \\r\\033[K' >&2\n\
         for i in $(seq 1000); do echo \"  line $i\" >&2; done\necho 'error: could not compile' >&2\nexit \
         101\n"
    );
    std::fs::write(&cargo, script).expect("writing the script");
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).expect("making it a program");
    cargo
}

#[test]
fn a_failed_build_is_quoted_from_its_first_error_to_its_last_and_names_its_log() {
    let mut world = World::sandbox();
    world.set("CARGO", failing_cargo(&world).display());
    let ran = world.run(&["up"]);
    says(
        &ran,
        20,
        &[
            "    error[E0308]: mismatched types\n",
            "      line 1\n",
            "862 lines left out; all of them are in target/xtask/runs/",
            "      line 1000\n",
            "    error: could not compile\n",
            "/image.log",
        ],
    );
    assert!(!ran.stderr.contains('\x1b'), "no colour is wanted: {}", ran.stderr);

    world.set("NO_COLOR", "");
    world.set("CLICOLOR_FORCE", "1");
    let coloured = world.run(&["up"]).stderr;
    assert!(coloured.contains("\x1b[1m\x1b[38;5;9merror[E0308]\x1b[0m: mismatched types"), "{coloured}");
    assert!(!coloured.contains('\x07'), "colour, and nothing else of a terminal's language: {coloured}");
    let ran = world.run(&["up", "--output", "json"]);
    let far = "compiling, 3 of 9 crates done: serde, tokio";
    assert!(
        ran.events().iter().any(|event| event["name"] == "image" && event["detail"] == far),
        "{}",
        ran.stdout
    );
    let summary = ran.summary();
    let quoted = &summary["evidence"][0][1];
    assert_eq!((&quoted[0], &quoted[1]), (&"error[E0308]: mismatched types".into(), &"  line 1".into()));
}

#[test]
fn a_wrong_probe_path_a_cordoned_node_and_a_crash_loop_are_called_by_their_names() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    let file = root.join("kubernetes/30-deployment.yaml");
    let text = std::fs::read_to_string(&file).expect("reading");
    let (before, startup) = text.split_once("startupProbe:").expect("a startup probe");
    let startup = startup.replacen("path: /health", "path: /healthy", 1).replacen(
        "failureThreshold: 90",
        "failureThreshold: 2",
        1,
    );
    std::fs::write(&file, format!("{before}startupProbe:{startup}")).expect("writing");
    let line = before.lines().count() + 2;
    let ran = world.run(&["up"]);
    let place = format!("(kubernetes/30-deployment.yaml:{line})");
    let hint = "hint: nothing answers 200 at /healthy: fix the startup probe's path or port, or the app";
    says(&ran, 30, &["startup probe /healthy answered 404, ", "was restarted for it, ", &place, hint]);
    let told = ["✗ gate rollout failed: ", "startup probe /healthy answered 404, ", &place];
    explained_elsewhere(&run(&ran), 0, &told);

    std::fs::write(&file, text).expect("writing");
    assert_eq!(world.kubectl(&["cordon", "sandbox"]).code, 0);
    let ran = world.run(&["up"]);
    says(
        &ran,
        30,
        &["node(s) were unschedulable", "uncordon sandbox` lets pods onto the cordoned node again"],
    );
    explained_elsewhere(&run(&ran), 0, &["✗ gate rollout failed: ", "node(s) were unschedulable"]);
    assert_eq!(world.kubectl(&["uncordon", "sandbox"]).code, 0);

    // The app can't read its settings: it ends as often as it is started.
    let settings = root.join("kubernetes/10-configmap.yaml");
    let text = std::fs::read_to_string(&settings).expect("reading");
    std::fs::write(&settings, text.replace("PORT: \"8000\"", "PORT: http")).expect("writing");
    let ran = world.run(&["up"]);
    let told =
        ["container simple-model-api exited with 2, ", "bad configuration: PORT=", "expected a port number"];
    says(&ran, 30, &told);
    explained_elsewhere(&run(&ran), 0, &[&["✗ gate rollout failed: "], &told[..]].concat());
}
