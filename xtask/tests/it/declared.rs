//! What is deployed is what was just built and what `kubernetes/` says.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::world::World;

fn files_named(name: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_named(name, &path));
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_binary_that_cargo_built_is_deployed_wherever_it_put_it_and_what_leaves_the_manifests_goes() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    world.patch(&root, &cases.join("json.patch"));
    world.set("REAL_CARGO", std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/cargo-elsewhere");
    world.set("CARGO", stand_in.display());
    world.set("ELSEWHERE", world.scratch().join("elsewhere/x86_64/release").display());
    world.run_ok(&["up"]);
    let deployed = files_named("simple-model-api", &world.home().join("images"));
    let deployed = std::fs::read(deployed.first().expect("an image in the store")).expect("reading it");
    assert!(deployed.ends_with(b"built elsewhere"), "a binary that lay in the default place was deployed");

    let drift = || world.run_ok(&["status", "--output", "json"]).summary()["drift"].clone();
    assert_eq!(drift(), json!({"missing": [], "changed": [], "orphans": []}));
    std::fs::remove_file(root.join("kubernetes/15-extra.json")).expect("removing");
    assert_eq!(drift()["orphans"], json!(["configmap/from-json"]));
    let status = world.run_ok(&["status"]).stdout;
    assert!(status.contains("! configmap/from-json is no longer in kubernetes/"), "{status}");
    let doctor = world.run(&["doctor"]).stdout;
    assert!(doctor.contains("configmap/from-json is no longer in kubernetes/"), "{doctor}");
    let named = world.run_ok(&["up"]).stderr;
    assert!(named.contains("1 object left alone; `cargo xtask up --prune"), "{named}");
    assert_eq!(world.kubectl(&["get", "configmap", "from-json"]).code, 0);
    let removed = world.run_ok(&["up", "--prune"]).stderr;
    assert!(removed.contains("removed configmap/from-json"), "{removed}");
    assert_eq!(world.kubectl(&["get", "configmap", "from-json"]).code, 1);
}

#[test]
fn the_target_folder_is_the_one_that_cargo_is_configured_to_use() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    world.unset("CARGO_TARGET_DIR");
    std::fs::create_dir(root.join(".cargo")).expect("making .cargo");
    std::fs::write(root.join(".cargo/config.toml"), "[build]\ntarget-dir = \"elsewhere\"\n")
        .expect("writing");
    let plan = world.run_ok(&["up", "--dry-run"]).stdout;
    assert!(plan.contains("verify elsewhere/xtask/weights"), "{plan}");
}
