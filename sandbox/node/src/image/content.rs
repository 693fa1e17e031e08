//! Hashing an image's files and placing them in the store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::{ImageId, ImageLayout, remove_if_there};

/// One file of an image.
pub(super) struct ContentFile {
    source: PathBuf,
    path: String,
    executable: bool,
    /// The owner may not write it.
    read_only: bool,
}

/// Bumped when what is hashed changes its meaning.
const FORMAT: &[u8] = b"sandbox image 1\n";

/// The id of `layout`: SHA-256 over the sorted (path, mode, SHA-256 of the file), the entrypoint and the environment.
/// Of the mode only "executable" counts; the rest is the umask's accident.
pub(super) fn identify(store: &Path, layout: &ImageLayout) -> Result<(ImageId, Vec<ContentFile>)> {
    let mut hashes = Hashes::load(store);
    let mut files = BTreeMap::new();
    for (source, path) in &layout.files {
        let inside =
            !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
        ensure!(inside, "the path {path:?} leads out of the image");
        let what = || format!("reading {}", source.display());
        let metadata = fs::metadata(source).with_context(what)?;
        ensure!(metadata.is_file(), "{} is not a file", source.display());
        let digest = hashes.of(source, &metadata).with_context(what)?;
        let mode = metadata.permissions().mode();
        let file = ContentFile {
            source: source.clone(),
            path: path.clone(),
            executable: mode & 0o100 != 0,
            read_only: mode & 0o222 == 0,
        };
        ensure!(files.insert(path.clone(), (file, digest)).is_none(), "two files for {path:?}");
    }
    let mut hash = Sha256::new();
    hash.update(FORMAT);
    let described: Vec<_> =
        files.values().map(|(file, digest)| (&file.path, file.executable, digest)).collect();
    hash.update(serde_json::to_vec(&(described, &layout.entrypoint, &layout.env))?);
    hashes.save();
    let id = ImageId(format!("sha256:{}", hex(&hash.finalize())));
    Ok((id, files.into_values().map(|(file, _)| file).collect()))
}

/// Fills a temporary folder next to `folder` and renames it.
pub(super) fn place(folder: &Path, files: &[ContentFile], manifest: &[u8]) -> Result<()> {
    let temporary = beside(folder);
    let result = fill(&temporary, files, manifest).and_then(|()| match fs::rename(&temporary, folder) {
        // Another process was quicker: the content is the same.
        Err(_) if folder.join("image.json").is_file() => Ok(()),
        renamed => renamed.with_context(|| format!("making {}", folder.display())),
    });
    // Gone already when it was renamed.
    let _ = fs::remove_dir_all(&temporary);
    result
}

fn fill(folder: &Path, files: &[ContentFile], manifest: &[u8]) -> Result<()> {
    let root = folder.join("root");
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    for file in files {
        let target = root.join(&file.path);
        let what = || format!("copying {} to {}", file.source.display(), target.display());
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(what)?;
        }
        // Across file systems, or where links are refused, the copy below does.
        if file.read_only && fs::hard_link(&file.source, &target).is_ok() {
            continue;
        }
        fs::copy(&file.source, &target).with_context(what)?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).with_context(what)?;
    }
    let path = folder.join("image.json");
    fs::write(&path, manifest).with_context(|| format!("writing {}", path.display()))
}

/// Writes a file so that a reader sees the old one or the new one.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = beside(path);
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// Removes an image's folder so that no reader sees half of it.
pub(super) fn discard(folder: &Path) -> io::Result<()> {
    let temporary = beside(folder);
    remove_if_there(fs::rename(folder, &temporary))?;
    remove_if_there(fs::remove_dir_all(&temporary))
}

/// A name in the same folder that no other thread or process uses.
fn beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}.{count}", std::process::id()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of `text` as an image id: the identity of a builtin image, which has a name but no files.
pub(crate) fn id_of_name(text: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(text)))
}

/// File hashes that are known, by inode, size and times.
struct Hashes {
    path: PathBuf,
    known: BTreeMap<String, String>,
    changed: bool,
}

impl Hashes {
    /// The file is a cache: what cannot be read is computed.
    fn load(store: &Path) -> Hashes {
        let path = store.join("hashes.json");
        let known =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Hashes { path, known, changed: false }
    }

    fn of(&mut self, source: &Path, metadata: &fs::Metadata) -> io::Result<String> {
        let key = format!(
            "{}:{}:{}:{}.{}:{}.{}",
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec()
        );
        if let Some(digest) = self.known.get(&key) {
            return Ok(digest.clone());
        }
        let digest = hash_file(source)?;
        // A file changed a moment ago may change again within one tick of the file system's clock.
        let changed =
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
        if changed.elapsed().is_ok_and(|age| age > Duration::from_secs(2)) {
            self.known.insert(key, digest.clone());
            self.changed = true;
        }
        Ok(digest)
    }

    fn save(&mut self) {
        const MAX: usize = 1000;
        while self.known.len() > MAX {
            self.known.pop_first();
        }
        // Only a cache: not writing it costs time, not truth.
        if self.changed
            && let Ok(bytes) = serde_json::to_vec(&self.known)
        {
            let _ = write_atomically(&self.path, &bytes);
        }
    }
}

fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}
