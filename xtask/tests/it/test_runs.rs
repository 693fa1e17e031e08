//! `test`: what it says of a run of the tests, which a stand-in for Cargo plays.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::world::World;

/// A Cargo whose tests say `words`, and end with `code`. All else is the real one's.
fn with_tests(world: &mut World, words: &str, code: i32) {
    // Nothing is fetched: its scripts are not there.
    world.own_workspace();
    let cargo = world.scratch().join("cargo");
    let real = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = test ] || exec {real} \"$@\"\n[ -z \"$XTASK_PROFILE\" ] || exit 3\n\
         cat <<'WORDS'\n{words}\nWORDS\nexit {code}\n"
    );
    std::fs::write(&cargo, script).expect("writing the script");
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).expect("making it a program");
    world.set("CARGO", cargo.display());
    // Without nextest, where this machine has one.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path).filter(|folder| !folder.join("cargo-nextest").exists());
    world.set("PATH", std::env::join_paths(path).expect("PATH").display());
}

#[test]
fn the_last_line_says_what_did_not_run_and_why() {
    let mut world = World::sandbox();
    let absent = "24 tests against a real API server: KUBEBUILDER_ASSETS is not set";
    with_tests(
        &mut world,
        &format!("running 2 tests\ntest a ... ok\ntest b::c ... ok\nNOT TESTED: {absent}"),
        0,
    );
    let ran = world.run_ok(&["test"]);
    let last = ran.stderr.lines().last().unwrap_or_default();
    assert!(last.ends_with(&format!("2 passed; did not run: {absent}")), "{}", ran.stderr);
    let summary = world.run_ok(&["test", "--output", "json"]).summary();
    assert_eq!((&summary["passed"], &summary["not_run"]), (&json!(2), &json!([absent])), "{summary}");
}

#[test]
fn a_failed_test_is_named_and_quoted_and_the_others_are_counted() {
    let mut world = World::sandbox();
    let words = "running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n\nfailures:\n\n---- b::c stdout ----\n\
                 left: 1, right: 2\n\ntest result: FAILED. 1 passed; 1 failed";
    with_tests(&mut world, words, 101);
    let ran = world.run(&["test"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    for part in ["error: 1 test failed, 1 passed: b::c: ", "    left: 1, right: 2\n", "/test.log\n"] {
        assert!(ran.stderr.contains(part), "no `{part}` in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("test a ... ok"), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().last(), Some("hint: everything ran"), "{}", ran.stderr);
    let summary = world.run(&["test", "--output", "json"]).summary();
    assert_eq!((&summary["failed"], &summary["exit_code"]), (&json!(["b::c"]), &json!(20)), "{summary}");
}

#[test]
fn a_name_that_no_test_has_is_a_mistake() {
    let mut world = World::sandbox();
    with_tests(&mut world, "running 0 tests", 0);
    assert_eq!(world.run(&["test", "nothing"]).code, 2);
}
