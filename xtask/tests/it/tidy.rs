//! What must stay true of the sources themselves, and of the README beside them.

use std::path::{Path, PathBuf};

use crate::world::{World, workspace};

/// Rust files below a folder of the workspace, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![workspace().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("listing") {
            let path = entry.expect("listing").path();
            if path.is_dir() {
                // A workspace of its own may have a target folder inside.
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("reading");
                found.push((path.strip_prefix(workspace()).expect("inside").to_owned(), text));
            }
        }
    }
    found
}

/// The tool's own code, without its tests.
fn product() -> impl Iterator<Item = (PathBuf, String)> {
    let is_test = |path: &Path| path.iter().any(|part| part == "tests" || part == "tests.rs");
    sources("xtask/src").into_iter().filter(move |(path, _)| !is_test(path)).map(|(path, text)| {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        (path, code)
    })
}

fn assert_none(rule: &str, broken: impl Iterator<Item = PathBuf>) {
    let broken: Vec<_> = broken.collect();
    assert!(broken.is_empty(), "{rule}: {broken:#?}");
}

#[test]
fn every_file_says_first_what_it_is() {
    let all = ["app", "sandbox", "xtask"].into_iter().flat_map(sources);
    let silent = all.filter(|(_, text)| !text.starts_with("//!"));
    assert_none("a file begins with `//!`", silent.map(|(path, _)| path));
}

#[test]
fn one_file_spawns_and_one_folder_prints() {
    let spawns = ["Command::new(", "tokio::process", "std::process::Command"];
    let proc = product().filter(|(path, _)| !path.starts_with("xtask/src/proc.rs"));
    let spawning = proc.filter(|(_, code)| spawns.iter().any(|word| code.contains(word)));
    assert_none("only proc.rs spawns", spawning.map(|(path, _)| path));

    let prints = ["println!(", "print!(", "io::stdout()", "io::stderr()"];
    let silent = product().filter(|(path, _)| !path.starts_with("xtask/src/output"));
    let printing = silent.filter(|(_, code)| prints.iter().any(|word| code.contains(word)));
    assert_none("only output/ prints", printing.map(|(path, _)| path));
}

#[test]
fn the_tool_knows_the_app_and_the_sandbox_by_their_wire_alone() {
    let words =
        ["simple_model_api::", "use sandbox::", " sandbox::serve", "sandbox_apiserver::", "sandbox_node::"];
    let knowing = product().filter(|(_, code)| words.iter().any(|word| code.contains(word)));
    assert_none("xtask links neither the app nor the sandbox", knowing.map(|(path, _)| path));
}

#[test]
fn no_module_is_named_after_nothing() {
    let empty_names = ["utils", "util", "common", "manager", "helper", "helpers", "misc"];
    let all = ["app", "sandbox", "xtask"].into_iter().flat_map(sources);
    let named = all.filter(|(path, _)| {
        let mut parts = path.iter().map(|part| part.to_string_lossy().replace(".rs", ""));
        parts.any(|part| empty_names.contains(&&*part))
    });
    assert_none("a module's name says what is in it", named.map(|(path, _)| path));
}

#[test]
fn the_readme_has_every_command_and_every_exit_code() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("reading");
    let help = World::sandbox().run_ok(&["--help"]).stdout;
    let section = |from: &str| {
        let lines = help.lines().skip_while(move |line| !line.starts_with(from)).skip(1);
        let lines = lines.take_while(|line| !line.is_empty()).map(str::trim);
        lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = section("Commands:");
    assert!(commands.contains(&"up".to_owned()), "{help}");
    for command in commands.iter().filter(|command| *command != "help") {
        assert!(
            readme.contains(&format!("cargo xtask {command}")),
            "the README lacks `cargo xtask {command}`"
        );
    }
    let codes = section("Exit codes:");
    let table: Vec<_> = readme
        .lines()
        .skip_while(|line| *line != "## Exit codes")
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"))
        .map(|(code, _)| code.to_owned())
        .take_while(|code| code == "code" || code.parse::<u8>().is_ok())
        .filter(|code| code != "code")
        .collect();
    assert_eq!(codes, table, "help and README name the same exit codes");
}
