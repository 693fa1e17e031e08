//! The image store: a folder of images, each kept under the hash of its content.
//!
//! ```text
//! <store>/images/<hex>/root/…     the files
//! <store>/images/<hex>/image.json entrypoint and environment
//! <store>/tags/<tag>              JSON: the id that the tag names
//! <store>/hashes.json             file hashes by inode and change time, so that a second import reads nothing
//! ```
//! Several processes may use one store: every change is a temporary file or folder that is renamed into place.

mod content;
mod reference;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub(crate) use content::id_of_name;
pub use reference::InvalidReference;
pub(crate) use reference::Reference;

/// A folder of images. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ImageStore {
    dir: PathBuf,
}

/// The identity of an image: `sha256:` and 64 hex digits, over its files, entrypoint and environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(String);

impl ImageId {
    /// The id as Kubernetes shows it: `sha256:<hex>`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn hex(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an image is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageLayout {
    /// Source file, and its relative path inside the image.
    pub files: Vec<(PathBuf, String)>,
    /// The command line; `{root}` stands for the image's folder.
    pub entrypoint: Vec<String>,
    /// Environment that the pod's own overrides; `{root}` here too.
    pub env: BTreeMap<String, String>,
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its identity.
    pub id: ImageId,
    /// Every tag that names it (`repository:tag`).
    pub tags: Vec<String>,
    /// The folder with its files.
    pub root: PathBuf,
    /// The command line, `{root}` filled in.
    pub entrypoint: Vec<String>,
    /// The environment, `{root}` filled in.
    pub env: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct ImageFile {
    entrypoint: Vec<String>,
    env: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct TagFile {
    tag: String,
    id: ImageId,
}

impl ImageStore {
    /// Opens the store at `dir`, which is made where it does not exist.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn open(dir: PathBuf) -> Result<ImageStore> {
        for folder in ["images", "tags"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("making the image store {}", folder.display()))?;
        }
        Ok(ImageStore { dir })
    }

    /// The id that `layout` has or would have, without importing it.
    ///
    /// # Errors
    /// If a file of the layout can't be read.
    pub fn identify(&self, layout: &ImageLayout) -> Result<ImageId> {
        content::identify(&self.dir, layout).map(|(id, _)| id)
    }

    /// Imports `layout` under its content id and names it `tag` (`repository:tag`; without a tag, `:latest`). Quick
    /// where the content is in the store already.
    ///
    /// Files are copied (as a reflink where the file system can), because a hard link would follow a source that is
    /// rewritten in place, as linkers do. Only a source that its owner has made read-only is hard-linked: who
    /// writes such a file replaces it.
    ///
    /// # Errors
    /// If `tag` is no image's name, or a file can't be copied.
    pub fn import(&self, tag: &str, layout: &ImageLayout) -> Result<ImageId> {
        self.place(tag, layout, None)
    }

    /// [`ImageStore::import`] under an id of another runtime's, `sha256:` and 64 hex digits, in place of the content's
    /// own.
    ///
    /// # Errors
    /// As [`ImageStore::import`]; if `id` is no image id.
    pub fn import_as(&self, tag: &str, layout: &ImageLayout, id: &str) -> Result<ImageId> {
        let Reference::Id(id) = Reference::parse(id)? else {
            bail!("{id:?} is no image id: write `sha256:` and 64 hex digits")
        };
        self.place(tag, layout, Some(ImageId(id)))
    }

    fn place(&self, tag: &str, layout: &ImageLayout, given: Option<ImageId>) -> Result<ImageId> {
        let reference = Reference::parse(tag)?;
        ensure!(!reference.is_id(), "{tag:?} is an image's id, and can't be its name");
        let (own, files) =
            content::identify(&self.dir, layout).with_context(|| format!("importing image {tag}"))?;
        let id = given.unwrap_or(own);
        let folder = self.folder(&id);
        if !folder.join("image.json").is_file() {
            let manifest = ImageFile { entrypoint: layout.entrypoint.clone(), env: layout.env.clone() };
            content::place(&folder, &files, &serde_json::to_vec(&manifest)?)
                .with_context(|| format!("importing image {tag}"))?;
        }
        let tag = reference.name_and_tag();
        let entry = TagFile { tag: tag.clone(), id: id.clone() };
        content::write_atomically(&self.tag_path(&tag), &serde_json::to_vec(&entry)?)
            .with_context(|| format!("tagging image {tag}"))?;
        Ok(id)
    }

    /// The image that `reference` names: by tag, which is `latest` where none is given, or by id. `Ok(None)`: not in
    /// the store.
    ///
    /// # Errors
    /// [`InvalidReference`] if `reference` is no image's name; if what the store has of it is damaged.
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>> {
        let reference = Reference::parse(reference)?;
        let tags = self.tags()?;
        let id = match &reference {
            Reference::Id(id) => Some(ImageId(id.clone())),
            Reference::Tag { .. } => {
                let name = reference.name_and_tag();
                tags.iter().find(|entry| entry.tag == name).map(|entry| entry.id.clone())
            }
        };
        id.map_or(Ok(None), |id| self.load(id, &tags))
    }

    /// Every image in the store, sorted by id.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn list(&self) -> Result<Vec<Image>> {
        let tags = self.tags()?;
        let mut ids = Vec::new();
        for entry in read_folder(&self.dir.join("images"))? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.len() == 64 {
                ids.push(ImageId(format!("sha256:{name}")));
            }
        }
        ids.sort();
        let images = ids.into_iter().map(|id| self.load(id, &tags));
        images.filter_map(Result::transpose).collect()
    }

    /// Removes the tag `reference`, and the image with it when no other tag names it; for an id, the image and all its
    /// tags. `false`: there was no such image. Containers that run from it keep running.
    ///
    /// # Errors
    /// If `reference` is no image's name, or its files can't be removed.
    pub fn remove(&self, reference: &str) -> Result<bool> {
        let Some(image) = self.resolve(reference)? else { return Ok(false) };
        let parsed = Reference::parse(reference)?;
        let name = parsed.name_and_tag();
        let (gone, kept): (Vec<_>, Vec<_>) =
            image.tags.iter().partition(|tag| parsed.is_id() || **tag == name || image.tags.len() == 1);
        for tag in gone {
            remove_if_there(fs::remove_file(self.tag_path(tag)))
                .with_context(|| format!("removing the image tag {tag}"))?;
        }
        if kept.is_empty() {
            content::discard(&self.folder(&image.id))
                .with_context(|| format!("removing image {}", image.id))?;
        }
        Ok(true)
    }

    fn load(&self, id: ImageId, tags: &[TagFile]) -> Result<Option<Image>> {
        let folder = self.folder(&id);
        let path = folder.join("image.json");
        let manifest = match fs::read(&path) {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let manifest: ImageFile =
            serde_json::from_slice(&manifest).with_context(|| format!("{} is damaged", path.display()))?;
        let root = folder.join("root");
        let fill = |text: &String| text.replace("{root}", &root.to_string_lossy());
        let entrypoint = manifest.entrypoint.iter().map(fill).collect();
        let env = manifest.env.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
        let mut tags: Vec<_> =
            tags.iter().filter(|entry| entry.id == id).map(|entry| entry.tag.clone()).collect();
        tags.sort();
        Ok(Some(Image { id, tags, root, entrypoint, env }))
    }

    fn tags(&self) -> Result<Vec<TagFile>> {
        let mut tags = Vec::new();
        for path in read_folder(&self.dir.join("tags"))? {
            // A tag that was removed meanwhile, or a temporary file of a write that was cut off, is no tag.
            if let Some(tag) = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                tags.push(tag);
            }
        }
        Ok(tags)
    }

    fn folder(&self, id: &ImageId) -> PathBuf {
        self.dir.join("images").join(id.hex())
    }

    fn tag_path(&self, tag: &str) -> PathBuf {
        // A reference holds no '%', so the names stay distinct.
        self.dir.join("tags").join(tag.replace('/', "%2F"))
    }
}

fn read_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("reading the image store {}", folder.display());
    let entries = fs::read_dir(folder).with_context(what)?;
    entries.map(|entry| Ok(entry.with_context(what)?.path())).collect()
}

fn remove_if_there(result: std::io::Result<()>) -> std::io::Result<()> {
    result.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
