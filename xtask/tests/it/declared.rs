//! What is deployed is what was just built and what `kubernetes/` says.

use std::path::{Path, PathBuf};

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
fn the_binary_that_cargo_built_is_deployed_wherever_it_put_it() {
    let mut world = World::sandbox();
    world.set("REAL_CARGO", std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/cargo-elsewhere");
    world.set("CARGO", stand_in.display());
    world.set("ELSEWHERE", world.scratch().join("elsewhere/x86_64/release").display());
    world.run_ok(&["up"]);
    let deployed = files_named("simple-model-api", &world.home().join("images"));
    let deployed = std::fs::read(deployed.first().expect("an image in the store")).expect("reading it");
    assert!(deployed.ends_with(b"built elsewhere"), "a binary that lay in the default place was deployed");
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
