//! What a `Cargo.toml` names, the crate uses.

use std::path::Path;

use super::{crates_below, is_test, sources, without_tests};
use crate::world::workspace;

/// Behind this, what is named has another reason, which stands there.
const NOT_USED: &str = "# Not used here.";

#[derive(Clone, Copy, PartialEq)]
enum For {
    Product,
    Tests,
}

/// The dependencies that a manifest names as used, and what for.
fn named(manifest: &str) -> Vec<(String, For)> {
    let (mut found, mut section) = (Vec::new(), None);
    for line in manifest.lines() {
        if let Some(title) = line.strip_prefix('[') {
            section = match title.trim_end_matches(']') {
                "dependencies" => Some(For::Product),
                "dev-dependencies" => Some(For::Tests),
                _ => None,
            };
        } else if line.starts_with(NOT_USED) {
            section = None;
        } else if let Some(of) = section
            && let Some((name, _)) = line.split_once(['.', ' '])
            && !name.starts_with('#')
        {
            found.push((name.to_owned(), of));
        }
    }
    found
}

/// A file, and those that it takes in by their path.
fn with_included(path: &Path, text: String) -> Vec<String> {
    let folder = workspace().join(path.parent().expect("a folder"));
    let included = text.lines().filter_map(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
    let mut all: Vec<String> =
        included.filter_map(|file| std::fs::read_to_string(folder.join(file)).ok()).collect();
    all.push(text);
    all
}

#[test]
fn every_dependency_is_used() {
    let mut unused = Vec::new();
    for krate in ["app", "sandbox", "xtask"].into_iter().flat_map(crates_below) {
        let manifest = std::fs::read_to_string(workspace().join(&krate).join("Cargo.toml")).expect("reading");
        let product: Vec<String> = sources(&format!("{krate}/src"))
            .into_iter()
            .filter(|(path, _)| !is_test(path))
            .map(|(_, text)| without_tests(&text).to_owned())
            .collect();
        let all: Vec<String> =
            sources(&krate).into_iter().flat_map(|(path, text)| with_included(&path, text)).collect();
        for (name, of) in named(&manifest) {
            let ident = name.replace('-', "_");
            let forms = [format!("{ident}::"), format!("use {ident};"), format!("use {ident} as ")];
            let texts = if of == For::Product { &product } else { &all };
            if !texts.iter().any(|text| forms.iter().any(|form| text.contains(form.as_str()))) {
                unused.push(format!("{krate}: {name}"));
            }
        }
    }
    assert!(unused.is_empty(), "not used where Cargo.toml names it: {unused:#?}");
}

#[test]
fn what_is_named_as_used_is_found() {
    let manifest = "[dependencies]\nserde.workspace = true\n# Why.\nhttp = { workspace = true }\n\n\
                    # Not used here. For its features.\nlog = \"1\"\n\n[build-dependencies]\nsyn = \"3\"\n\n\
                    [dev-dependencies]\ninsta.workspace = true\n";
    let names: Vec<_> = named(manifest).into_iter().map(|(name, of)| (name, of == For::Product)).collect();
    assert_eq!(names, [("serde".into(), true), ("http".into(), true), ("insta".into(), false)]);
}
