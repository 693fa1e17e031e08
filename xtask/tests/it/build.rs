//! How the workspace is built.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::world::{Ran, workspace};

/// Each crate, with the features that a build of these packages gives it.
fn features(packages: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--edges", "no-dev", "--prefix", "none", "--format", "{p} {f}"]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package])).current_dir(workspace());
    let ran = Ran::of(&mut cargo);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut features = BTreeMap::<_, BTreeSet<_>>::new();
    for line in ran.stdout.lines().map(|line| line.trim_end_matches(" (*)")) {
        let mut words = line.split_whitespace().filter(|word| *word != "(proc-macro)");
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let enabled = words.next().unwrap_or_default().to_owned();
        features.entry(format!("{name} {version}")).or_default().insert(enabled);
    }
    features
}

#[test]
fn what_the_tool_the_sandbox_and_the_app_share_is_compiled_once() {
    let together = features(&["xtask", "sandbox", "simple-model-api"]);
    for (package, manifest) in [("xtask", "xtask"), ("simple-model-api", "app")] {
        let differ: Vec<_> =
            features(&[package]).into_iter().filter(|(name, has)| !has.is_subset(&together[name])).collect();
        assert!(
            differ.is_empty(),
            "a build of {package} alone gives these crates fewer features; add them in \
             {manifest}/Cargo.toml: {differ:#?}"
        );
    }
}
