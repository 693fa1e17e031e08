//! Who imports whom: a crate's files, and the paths of its own that each of them names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module by its path, such as `gates::rollout`; the crate itself is the empty one.
pub(crate) type Module = Vec<String>;

/// The modules of one crate, and what each imports of it.
pub(crate) struct Imports {
    pub(crate) of: BTreeMap<Module, BTreeSet<Module>>,
}

impl Imports {
    /// Reads a crate's sources: files below its `src`, and their text without their tests.
    pub(crate) fn read(files: &[(PathBuf, String)]) -> Imports {
        let texts: BTreeMap<Module, &str> = files
            .iter()
            .filter(|(path, _)| path != Path::new("main.rs") || files.len() == 1)
            .map(|(path, text)| (module(path), text.as_str()))
            .collect();
        let of = texts.iter().map(|(module, text)| {
            let named = named(text).into_iter().filter_map(|path| resolve(module, &path, &texts));
            (module.clone(), named.filter(|found| found != module).collect())
        });
        Imports { of: of.collect() }
    }

    /// Every import, from whom and of what.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Module, &Module)> {
        self.of.iter().flat_map(|(from, named)| named.iter().map(move |to| (from, to)))
    }

    /// Files that import each other, by whatever way; a parent and those below it may.
    pub(crate) fn circles(&self) -> Vec<BTreeSet<&Module>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.of.keys().map(|from| (from, self.reached(from))).collect();
        let mut circles: Vec<BTreeSet<&Module>> = Vec::new();
        for from in self.of.keys() {
            let circle: BTreeSet<_> =
                reached[from].iter().copied().filter(|to| reached[to].contains(from)).collect();
            let is_family =
                circle.iter().any(|parent| circle.iter().all(|module| module.starts_with(parent)));
            if !is_family && !circle.is_empty() && !circles.contains(&circle) {
                circles.push(circle);
            }
        }
        circles
    }

    fn reached<'m>(&'m self, from: &'m Module) -> BTreeSet<&'m Module> {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(module) = next.pop() {
            for to in &self.of[module] {
                // Everything is below the crate itself.
                if !to.is_empty() && reached.insert(to) {
                    next.push(to);
                }
            }
        }
        reached
    }
}

/// `gates/rollout.rs` → `gates::rollout`, `gates/mod.rs` → `gates`.
fn module(path: &Path) -> Module {
    let mut parts: Module =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// The paths in a text that begin at this crate, a parent or this module; each `use` tree taken apart.
fn named(text: &str) -> Vec<Module> {
    let code: Vec<&str> =
        text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code)).collect();
    let code = code.join(" ");
    let mut found = Vec::new();
    for (at, start) in ["crate::", "super::", "self::"].iter().flat_map(|start| code.match_indices(start)) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + start.len()..];
        let root = vec![start.trim_end_matches(':').to_owned()];
        tree(rest, &root, &mut found);
    }
    found
}

/// Takes apart what follows a path's beginning: `a::{b, c::D}`. Gives back what is behind it.
fn tree<'t>(text: &'t str, before: &[String], found: &mut Vec<Module>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            let behind = tree(rest, before, found).trim_start();
            // ` as name`, then the next.
            let end = behind.find([',', '}']).unwrap_or(behind.len());
            rest = behind[end..].strip_prefix(',').unwrap_or(&behind[end..]);
            if rest.is_empty() {
                return rest;
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let path: Module = before.iter().cloned().chain([word.to_owned()]).collect();
    match rest.strip_prefix("::") {
        Some(below) => tree(below, &path, found),
        None => {
            found.push(path);
            rest
        }
    }
}

/// The deepest module that a path leads to.
fn resolve(from: &Module, path: &[String], known: &BTreeMap<Module, &str>) -> Option<Module> {
    let mut at = if path.first()? == "crate" { Module::new() } else { from.clone() };
    for word in path {
        match word.as_str() {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            _ => {
                at.push(word.clone());
                if !known.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
        }
    }
    Some(at)
}

#[test]
fn paths_and_use_trees_lead_to_modules() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::{self, c::{D, E as F}};\nfn f() { super::b::d::g(); } // crate::a::x"),
        ("a/x.rs", "use super::Y; use super::super::b;"),
        ("b/mod.rs", "use self::c::D;"),
        ("b/c.rs", "use crate::a::x::Z;"),
        ("b/d.rs", ""),
    ];
    let files = files.map(|(path, text)| (PathBuf::from(path), text.to_owned()));
    let imports = Imports::read(&files);
    let shown: Vec<String> =
        imports.all().map(|(from, to)| format!("{} -> {}", from.join("::"), to.join("::"))).collect();
    let expected =
        ["a -> b", "a -> b::c", "a -> b::d", "a::x -> a", "a::x -> b", "b -> b::c", "b::c -> a::x"];
    assert_eq!(shown, expected);
    let circles: Vec<Vec<String>> = imports
        .circles()
        .iter()
        .map(|circle| circle.iter().map(|module| module.join("::")).collect())
        .collect();
    assert_eq!(circles, [["a", "a::x", "b", "b::c"].map(str::to_owned)], "{circles:?}");
}
