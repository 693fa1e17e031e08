//! What the documents say of the tree is so: their paths and links lead to files, and ARCHITECTURE.md's names to code.

use std::path::{Path, PathBuf};

use super::sources;
use crate::world::workspace;

/// Where a path in prose begins that is meant from the workspace's folder.
const TOP: [&str; 9] =
    ["app/", "xtask/", "sandbox/", "scripts/", "docs/", "kubernetes/", ".ci/", ".github/", ".cargo/"];

fn read(document: &Path) -> String {
    std::fs::read_to_string(workspace().join(document)).expect("reading")
}

fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "sandbox/README.md"]
            .map(PathBuf::from)
            .into();
    for folder in ["docs", "docs/decisions"] {
        let entries = std::fs::read_dir(workspace().join(folder)).expect("listing");
        let names = entries.map(|entry| entry.expect("listing").file_name());
        let pages = names.map(|name| Path::new(folder).join(name));
        all.extend(pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    all
}

#[test]
fn each_path_and_link_in_a_document_leads_to_a_file() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        let words = text.split(|c: char| c.is_whitespace() || "`()[]\"'<>|@=".contains(c));
        let paths = words.map(|word| word.trim_end_matches(['.', ',', ':', ';', '!', '?']));
        let paths = paths.filter(|word| TOP.iter().any(|top| word.starts_with(top)));
        // A place in a file stands behind a colon.
        let paths = paths.map(|word| PathBuf::from(word.split(':').next().unwrap_or(word)));
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let links = links.filter(|link| !link.is_empty() && !link.starts_with("http"));
        let links = links.map(|link| document.parent().expect("a folder").join(link));
        let missing = paths.chain(links).filter(|path| !workspace().join(path).exists());
        broken.extend(missing.map(|path| format!("{}: {}", document.display(), path.display())));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A line of the codemap is a folder, or, indented, the names of what is in it.
#[test]
fn the_codemap_names_what_is_there() {
    let text = read(Path::new("ARCHITECTURE.md"));
    let map = text.split("```").nth(1).expect("the codemap");
    let (mut folder, mut checked, mut missing) = (PathBuf::new(), 0, Vec::new());
    for line in map.lines().filter(|line| !line.is_empty()) {
        let indent = line.len() - line.trim_start().len();
        let names = line.trim_start().split("  ").next().unwrap_or_default();
        match indent {
            0 => folder = PathBuf::from(names.split(' ').next().unwrap_or_default()),
            2 => {}
            // What is said of the line above goes on.
            _ => continue,
        }
        let named = if indent == 0 { vec![""] } else { names.split(", ").collect() };
        for name in named.into_iter().filter(|name| *name != "…") {
            let (here, file) = (workspace().join(&folder), format!("{name}.rs"));
            let places = [here.join(name), here.join(&file), here.join("src").join(&file)];
            checked += 1;
            if !places.iter().any(|place| place.exists()) {
                missing.push(folder.join(name));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(checked > 50, "{checked} names found");
}

#[test]
fn the_code_has_each_item_that_the_architecture_names() {
    let code: Vec<String> =
        ["app", "sandbox", "xtask"].into_iter().flat_map(sources).map(|(_, text)| text).collect();
    let text = read(Path::new("ARCHITECTURE.md"));
    let quoted = text.split('`').skip(1).step_by(2);
    let items: Vec<&str> = quoted.filter(|quoted| quoted.contains("::") && !quoted.contains(' ')).collect();
    let missing: Vec<_> = items
        .iter()
        .filter(|item| {
            let name = item.trim_end_matches("()").rsplit("::").next().unwrap_or(item);
            let forms =
                ["fn", "struct", "enum", "trait", "use", "macro_rules!"].map(|form| format!("{form} {name}"));
            // Of another crate, it is used.
            let is_there = |text: &String| {
                forms.iter().any(|form| text.contains(form.as_str())) || text.contains(&format!("::{name}"))
            };
            !code.iter().any(is_there)
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(items.len() > 5, "{items:?}");
}
