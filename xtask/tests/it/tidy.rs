//! What must stay true of the sources themselves, and of the README beside them.

mod dependencies;
mod documents;
mod imports;

use std::path::{Path, PathBuf};

use crate::world::{World, workspace};
use imports::{Imports, Module};

/// Who may import whom: the modules of a crate from the ground up, line by line. Each imports what stands below it, and
/// nothing of its own line. A module that is not named belongs to the one that it is in.
const LAYERS: [(&str, &[&str]); 4] = [
    (
        "xtask",
        &[
            "ingress_nginx kubernetes nearest repository share summary",
            "options rights",
            "commands",
            "failure",
            "manifests output owned",
            "markdown record",
            "capacity cx declared witness",
            "pipeline",
            "proc",
            "cargo workspace",
            "image",
            "clusters",
            "gates kubeconfig temporary",
            "compare drift explain logs plan",
            "report status steps test wait",
            "doctor down load recorder smoke up",
            "dev prove redeploy",
            "cli",
            "ci completions weights",
            "run",
        ],
    ),
    (
        "sandbox/apiserver",
        &[
            "causes fields meta round_trip size time tls yaml",
            "kind names",
            "presence schema status views",
            "defaults patch selectors typed",
            "columns managed validate",
            "kinds",
            "protobuf request store",
            "apply decode faults health namespaces table",
            "render state",
            "call portforward watch",
            "admission metrics",
            "discovery openapi",
            "rest",
            "server",
        ],
    ),
    (
        "sandbox/node",
        &[
            "address group_use image logs pod::stop",
            "faults pod::status",
            "pod::handle",
            "context",
            "container node",
            "pod",
            "sampler",
            "agent",
        ],
    ),
    (
        "sandbox",
        &["error processes", "addons assembly client home", "cluster lifecycle", "daemon", "ingress", "cli"],
    ),
];

/// The width that rustfmt keeps; of comments, the one that they are wrapped at.
const CODE_WIDTH: usize = 110;
const COMMENT_WIDTH: usize = 120;

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
    let own = sources("xtask/src").into_iter().filter(|(path, _)| !is_test(path));
    own.map(|(path, text)| (path, without_tests(&text).to_owned()))
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs")
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
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
    let is_output = |path: &Path| path.with_extension("").starts_with("xtask/src/output");
    let silent = product().filter(|(path, _)| !is_output(path));
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

/// A crate's own sources, below its `src` and without their tests.
fn imports_of(krate: &str) -> Imports {
    let files: Vec<(PathBuf, String)> = sources(&format!("{krate}/src"))
        .into_iter()
        .filter(|(path, _)| !is_test(path))
        .filter_map(|(path, text)| {
            let path = path.strip_prefix(krate).ok()?.strip_prefix("src").ok()?.to_owned();
            Some((path, without_tests(&text).to_owned()))
        })
        .collect();
    Imports::read(&files)
}

/// The line that a module stands on: its own, or that of the nearest one that it is in.
fn layer(module: &Module, layers: &[&str]) -> Option<(usize, String)> {
    (1..=module.len()).rev().find_map(|length| {
        let name = module[..length].join("::");
        let at = layers.iter().position(|line| line.split(' ').any(|one| one == name))?;
        Some((at, name))
    })
}

#[test]
fn imports_run_downwards_only() {
    let mut upward = Vec::new();
    for (krate, layers) in LAYERS {
        for (from, to) in imports_of(krate).all().filter(|(from, to)| !from.is_empty() && !to.is_empty()) {
            let shown = format!("{krate}: {} -> {}", from.join("::"), to.join("::"));
            match (layer(from, layers), layer(to, layers)) {
                (Some((_, room)), Some((_, same))) if room == same => {}
                (Some((here, _)), Some((there, _))) if there < here => {}
                (Some(_), Some(_)) => upward.push(shown),
                _ => upward.push(format!("{shown}, which no line of LAYERS names")),
            }
        }
    }
    println!("imports that run upwards: {}\n{}", upward.len(), upward.join("\n"));
    assert!(upward.is_empty(), "move what is imported down, or the importer up: {upward:#?}");
}

#[test]
fn no_files_import_each_other_but_a_parent_and_its_own() {
    for krate in ["app", "sandbox", "xtask"].into_iter().flat_map(crates_below) {
        let imports = imports_of(&krate);
        let circles = imports.circles();
        assert!(circles.is_empty(), "{krate}: {circles:#?}");
    }
}

/// The crates at and below a folder.
fn crates_below(folder: &str) -> Vec<String> {
    let own = workspace().join(folder);
    let below = std::fs::read_dir(&own).expect("listing").map(|entry| entry.expect("listing").path());
    let folders =
        below.chain([own]).filter(|path| path.join("src").is_dir() && path.join("Cargo.toml").is_file());
    folders
        .map(|path| path.strip_prefix(workspace()).expect("inside").to_string_lossy().into_owned())
        .collect()
}

#[test]
fn no_line_is_wider_than_it_may_be() {
    let all = ["app", "sandbox", "xtask"].into_iter().flat_map(sources);
    let wide: Vec<String> = all
        .flat_map(|(path, text)| {
            // What stands between `r#"` and `"#`, and in a snapshot, is as it is.
            let (mut is_raw, mut is_snapshot) = (false, false);
            let mut is_wide = |line: &str| {
                let was_raw = is_raw;
                is_raw =
                    (is_raw || line.contains("r#\"")) && !line.ends_with("\"#") && !line.contains("\"#)");
                is_snapshot = line.ends_with(" @\"") || is_snapshot && !line.trim_start().starts_with('"');
                if was_raw || is_snapshot || line.contains("r#\"") {
                    return false;
                }
                let most = if line.trim_start().starts_with("//") { COMMENT_WIDTH } else { CODE_WIDTH };
                // A word that is longer than a line, such as an address, can't be broken.
                let longest =
                    line.split_whitespace().map(|word| word.chars().count()).max().unwrap_or_default();
                line.chars().count() > most && longest < CODE_WIDTH / 2
            };
            let lines = text.lines().enumerate().filter(|(_, line)| is_wide(line));
            lines.map(|(at, _)| format!("{}:{}", path.display(), at + 1)).collect::<Vec<_>>()
        })
        .collect();
    assert!(wide.is_empty(), "break the string or the comment: {wide:#?}");
}

#[test]
fn an_error_has_its_whole_name() {
    let short = ["Err(e)", "map_err(|e|", "Err(err)", "map_err(|err|"];
    // This file names them.
    let others = ["app", "sandbox", "xtask"].into_iter().flat_map(sources);
    let others = others.filter(|(path, _)| !path.ends_with("it/tidy.rs"));
    let naming = others.filter(|(_, code)| short.iter().any(|word| code.contains(word)));
    assert_none("an error is called `error`", naming.map(|(path, _)| path));
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
