//! The README's examples, run; and the README itself.

use std::path::Path;

#[path = "../../examples/controller_under_test.rs"]
mod controller_under_test;
#[path = "../../examples/fault.rs"]
mod fault;
#[path = "../../examples/wait_for_a_rollout.rs"]
mod wait_for_a_rollout;

#[test]
fn a_rollout_is_waited_for() {
    wait_for_a_rollout::main().unwrap();
}

#[test]
fn a_controller_is_tested() {
    controller_under_test::main().unwrap();
}

#[test]
fn a_fault_is_met() {
    fault::main().unwrap();
}

#[test]
fn the_readme_shows_the_examples_as_they_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let shown: Vec<&str> =
        readme.split("```rust\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(folder.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("examples/{}", path.file_name().unwrap().display());
        assert!(readme.contains(&format!("[{name}]({name})")), "the README does not name {name}");
        examples.push(std::fs::read_to_string(path).unwrap());
    }
    assert_eq!(examples.len(), shown.len());
    for example in examples {
        assert!(shown.contains(&&*example), "the README shows another version of:\n{example}");
    }
}
