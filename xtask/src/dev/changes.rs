//! Which saves are a change: by what the files hold, so that one that changes nothing is none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use sha2::{Digest as _, Sha256};
use xshell::cmd;

use super::watch::Watch;
use crate::cx::Cx;
use crate::image;
use crate::manifests;
use crate::proc;

/// A save is over when nothing has happened for so long: an editor truncates, writes and renames within it.
const QUIET: Duration = Duration::from_millis(15);
/// Where things happen all the time, as while a branch is checked out, it is looked at what has changed all the same.
const LONGEST: Duration = Duration::from_millis(250);
/// The folder of the manifests.
const MANIFESTS: &str = "kubernetes";
/// Where Cargo's settings may be.
const SETTINGS: &str = ".cargo";

/// Files by their path, each with a digest of what it holds.
type Files = BTreeMap<PathBuf, [u8; 32]>;

/// What is deployed is made of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// What the image is built from.
    pub(super) image: Files,
    /// `kubernetes/`.
    pub(super) manifests: Files,
}

impl Sources {
    /// The files that are not as they were.
    fn changed(&self, before: &Sources) -> BTreeSet<PathBuf> {
        let pairs = [(&self.image, &before.image), (&self.manifests, &before.manifests)];
        let changed = pairs.into_iter().flat_map(|(now, before)| {
            now.keys().chain(before.keys()).filter(|path| now.get(*path) != before.get(*path))
        });
        changed.cloned().collect()
    }

    /// Leaves these files as they were.
    fn keep(&mut self, paths: &BTreeSet<PathBuf>, before: &Sources) {
        let pairs = [(&mut self.image, &before.image), (&mut self.manifests, &before.manifests)];
        for (now, before) in pairs {
            for path in paths {
                match before.get(path) {
                    Some(digest) => drop(now.insert(path.clone(), *digest)),
                    None => drop(now.remove(path)),
                }
            }
        }
    }
}

fn digests(paths: Vec<PathBuf>) -> Files {
    let digest = |path: PathBuf| {
        // What vanishes meanwhile, or can't be read, is not there.
        let content = std::fs::read(&path).ok()?;
        Some((path, Sha256::digest(content).into()))
    };
    paths.into_iter().filter_map(digest).collect()
}

/// A save, or several at once.
#[derive(Debug)]
pub(super) struct Change {
    /// The files, as a person in the workspace would write them.
    pub(super) paths: Vec<String>,
    /// When the first was noticed.
    pub(super) since: Instant,
}

/// Watches the sources.
pub(super) struct Changes<'cx> {
    cx: &'cx Cx,
    watch: Watch,
    /// Since when something has happened that was not looked at yet.
    since: Option<Instant>,
    seen: Sources,
}

impl<'cx> Changes<'cx> {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn begin(cx: &'cx Cx) -> Result<Changes<'cx>> {
        let mut changes = Changes { cx, watch: Watch::new()?, since: None, seen: Sources::default() };
        changes.seen = changes.look()?.0;
        Ok(changes)
    }

    /// The sources as they were last looked at.
    pub(super) fn seen(&self) -> &Sources {
        &self.seen
    }

    /// Waits for the next change. Nothing is lost when the wait for it is given up.
    ///
    /// # Errors
    /// When a new folder can't be watched.
    pub(super) async fn next(&mut self) -> Result<Change> {
        loop {
            if self.since.is_none() {
                self.watch.happening().await;
            }
            let since = *self.since.get_or_insert_with(Instant::now);
            while since.elapsed() < LONGEST
                && tokio::time::timeout(QUIET, self.watch.happening()).await.is_ok()
            {}
            let (mut now, has_new_folders) = self.look()?;
            let changed = now.changed(&self.seen);
            let ignored = self.ignored(&changed).await;
            now.keep(&ignored, &self.seen);
            self.seen = now;
            // What was made in them before they were watched is found by another look.
            self.since = has_new_folders.then_some(since);
            let paths: Vec<_> =
                changed.difference(&ignored).map(|path| self.cx.short(path).to_string()).collect();
            if !paths.is_empty() {
                return Ok(Change { paths, since });
            }
        }
    }

    /// The sources as they are now, their folders watched; and whether some of these are new.
    fn look(&mut self) -> Result<(Sources, bool)> {
        let root = &self.cx.root;
        tokio::task::block_in_place(|| {
            let inputs = image::inputs(root).unwrap_or_default();
            let others = [root.clone(), root.join(MANIFESTS), root.join(SETTINGS)];
            let mut has_new = false;
            for folder in inputs.folders.iter().chain(&others).filter(|folder| folder.is_dir()) {
                has_new |= self.watch.add(folder)?;
            }
            let manifests = manifests::files(&root.join(MANIFESTS)).unwrap_or_default();
            Ok((Sources { image: digests(inputs.files), manifests: digests(manifests) }, has_new))
        })
    }

    /// Those that git ignores, by its own word; none where there is no git, or no repository.
    async fn ignored(&self, paths: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        if paths.is_empty() {
            return BTreeSet::new();
        }
        let root: &Path = &self.cx.root;
        let ask = async {
            let sh = proc::shell()?;
            let command = cmd!(sh, "git -C {root} -c core.quotePath=false check-ignore -- {paths...}").into();
            proc::ask(self.cx, command).await
        };
        let answer = ask.await.map(|answer| answer.stdout).unwrap_or_default();
        answer.lines().map(PathBuf::from).collect()
    }
}
