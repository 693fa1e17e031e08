//! The image as an OCI archive, made without a container engine: the model below, the binary above, so that an edit of
//! the code moves a few MB and not 102. The same inputs give the same bytes, and so the same digests.
//!
//! ```text
//! oci-layout, index.json   what containerd, cri-o and registries' tools read
//! manifest.json            what Docker reads
//! blobs/sha256/<digest>    config, manifest, and the layers, uncompressed: it goes to a node on this machine
//! ```
//! By the OCI image format specification, 1.1.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Digests, canonical};

/// By this annotation containerd and podman name what they import; `ref.name` is but the tag.
const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image is made of.
pub struct Contents {
    /// `repository:tag`.
    pub reference: String,
    /// The processor that it runs on, in Go's words.
    pub architecture: String,
    /// From the lowest layer to the highest.
    pub layers: Vec<Vec<Entry>>,
    /// The command line.
    pub entrypoint: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `uid:gid`, by number: the kubelet can't check a name.
    pub user: String,
    /// `port/protocol`.
    pub ports: Vec<String>,
}

/// A file of a layer. Its folders come of themselves.
pub struct Entry {
    /// Where its bytes are.
    pub from: PathBuf,
    /// Its path in the image, relative to the root.
    pub to: String,
    /// Whether it is a program.
    pub executable: bool,
}

/// Writes the archive to `path`, in one piece or not at all.
///
/// # Errors
/// When an input can't be read, or the archive can't be written.
pub fn write(path: &Path, contents: &Contents) -> Result<Digests> {
    // Read twice: the digest comes before the bytes, and nothing has to be kept in between.
    let layers: Vec<Descriptor> = contents
        .layers
        .iter()
        .map(|layer| Ok(Measure::of(io::sink(), layer)?.descriptor(LAYER)))
        .collect::<Result<_>>()?;
    let config = config(contents, &layers).to_string();
    let config_descriptor = Descriptor::of(CONFIG, &config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_descriptor,
        "layers": layers,
    });
    let manifest = manifest.to_string();
    let manifest_descriptor = Descriptor::of(MANIFEST, &manifest);
    let index = index(contents, &manifest_descriptor).to_string();
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    let for_docker = json!([{
        "Config": config_descriptor.blob(),
        "RepoTags": [contents.reference],
        "Layers": layers.iter().map(Descriptor::blob).collect::<Vec<_>>(),
    }]);

    let write = || -> Result<()> {
        let folder = path.parent().context("it lies in no folder")?;
        let file = tempfile::NamedTempFile::new_in(folder)?;
        let mut tar = tar::Builder::new(BufWriter::new(file));
        add(&mut tar, "oci-layout", &layout.to_string())?;
        add(&mut tar, "index.json", &index)?;
        add(&mut tar, "manifest.json", &for_docker.to_string())?;
        add(&mut tar, &config_descriptor.blob(), &config)?;
        add(&mut tar, &manifest_descriptor.blob(), &manifest)?;
        for (descriptor, layer) in layers.iter().zip(&contents.layers) {
            let mut header = header(0o644, tar::EntryType::Regular);
            let mut entry = tar.append_writer(&mut header, descriptor.blob())?;
            let written = Measure::of(&mut entry, layer)?.descriptor(LAYER);
            entry.finish()?;
            ensure!(written == *descriptor, "an input changed while it was being packed");
        }
        tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("writing the image archive {}", path.display()))?;
    let all = [config_descriptor, manifest_descriptor, Descriptor::of(INDEX, &index)];
    Ok(Digests::new(all.iter().map(|descriptor| descriptor.digest.as_str())))
}

/// What an archive holds, by the places of its parts.
pub struct Packed {
    /// The manifest, whole.
    pub manifest: Vec<u8>,
    /// Its digest.
    pub digest: String,
    /// What it names: the layers from below to above, then the configuration.
    pub blobs: Vec<Blob>,
}

/// A part of an image in its archive.
pub struct Blob {
    /// Its digest.
    pub digest: String,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

/// Looks through an archive that [`write`] has written.
///
/// # Errors
/// When it can't be read, or is not such an archive.
pub fn read(path: &Path) -> Result<Packed> {
    let read = || -> Result<Packed> {
        let mut places = std::collections::BTreeMap::new();
        let mut index = None;
        let mut tar = tar::Archive::new(File::open(path)?);
        for entry in tar.entries_with_seek()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().into_owned();
            if name == "index.json" {
                index = Some(serde_json::from_reader::<_, Index>(&mut entry)?);
            }
            places.insert(name, (entry.raw_file_position(), entry.size()));
        }
        let index = index.context("it has no index")?;
        let named = index.manifests.first().context("its index names no image")?;
        let place = |descriptor: &Descriptor| -> Result<Blob> {
            let (offset, bytes) = *places.get(&descriptor.blob()).context("a part is missing")?;
            Ok(Blob { digest: descriptor.digest.clone(), offset, bytes })
        };
        let Blob { digest, offset, bytes } = place(named)?;
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::Start(offset))?;
        let mut manifest = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, bytes), &mut manifest)?;
        let parts: Manifest = serde_json::from_slice(&manifest)?;
        let blobs = parts.layers.iter().chain([&parts.config]).map(place).collect::<Result<_>>()?;
        Ok(Packed { manifest, digest, blobs })
    };
    read().with_context(|| format!("reading the image archive {}", path.display()))
}

/// A part of the image, as what names it says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// What [`read`] needs of an index.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// What [`read`] needs of a manifest.
#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Descriptor {
    fn of(media_type: &str, text: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: sha256(Sha256::digest(text)),
            size: text.len() as u64,
        }
    }

    /// Where it lies in the archive.
    fn blob(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

fn sha256(digest: impl IntoIterator<Item = u8>) -> String {
    let hex: String = digest.into_iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn config(contents: &Contents, layers: &[Descriptor]) -> Value {
    let ports: Value = contents.ports.iter().map(|port| (port.clone(), json!({}))).collect();
    // Uncompressed, so a layer's two digests are one.
    let layers: Vec<&String> = layers.iter().map(|layer| &layer.digest).collect();
    json!({
        "architecture": contents.architecture,
        "os": "linux",
        "config": {
            "User": contents.user,
            "ExposedPorts": ports,
            "Env": contents.env,
            "Entrypoint": contents.entrypoint,
        },
        "rootfs": {"type": "layers", "diff_ids": layers},
    })
}

fn index(contents: &Contents, manifest: &Descriptor) -> Value {
    let tag = contents.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let named = json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
        "platform": {"architecture": contents.architecture, "os": "linux"},
        "annotations": {IMAGE_NAME: canonical(&contents.reference), REF_NAME: tag},
    });
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]})
}

/// A layer's own tar. Of a file, nothing counts but its path, its bytes and whether it is a program.
fn write_layer(to: impl Write, layer: &[Entry]) -> Result<()> {
    let mut tar = tar::Builder::new(to);
    let mut folders = std::collections::BTreeSet::new();
    for Entry { from, to, executable } in layer {
        let above: Vec<&Path> = Path::new(to).ancestors().skip(1).collect();
        for folder in above.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
            if folders.insert(folder) {
                let mut header = header(0o755, tar::EntryType::Directory);
                tar.append_data(&mut header, folder, io::empty())?;
            }
        }
        let file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
        let size = file.metadata().with_context(|| format!("looking at {}", from.display()))?.len();
        let mut header = header(if *executable { 0o755 } else { 0o644 }, tar::EntryType::Regular);
        header.set_size(size);
        // A file that shrinks or grows meanwhile must not shift what follows it.
        let content = io::Read::take(file, size);
        tar.append_data(&mut header, to, content).with_context(|| format!("reading {}", from.display()))?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn header(mode: u32, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn add(tar: &mut tar::Builder<impl Write + Seek>, path: &str, text: &str) -> io::Result<()> {
    let mut header = header(0o644, tar::EntryType::Regular);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, path, text.as_bytes())
}

/// Counts and hashes what is written through it.
struct Measure<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Measure<W> {
    fn new(to: W) -> Measure<W> {
        Measure { to, hash: Sha256::new(), bytes: 0 }
    }

    /// Writes a layer.
    fn of(to: W, layer: &[Entry]) -> Result<Measure<W>> {
        let mut measure = Measure::new(to);
        write_layer(&mut measure, layer)?;
        Ok(measure)
    }

    /// What was written.
    fn descriptor(self, media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: sha256(self.hash.finalize()),
            size: self.bytes,
        }
    }
}

impl<W: Write> Write for Measure<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    // Somebody else's reading of the same specification.
    use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest, OciLayout};

    use super::*;

    /// An app's files in a folder of their own, as made at another time by another user.
    fn contents(folder: &Path, code: &str) -> Contents {
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("writing");
            path
        };
        let entry = |from: PathBuf, to: &str, executable| Entry { from, to: to.to_owned(), executable };
        let model = ["model.onnx", "manifest.json"]
            .map(|name| entry(file(name, &format!("the bytes of {name}")), &format!("model/{name}"), false));
        Contents {
            reference: "app:0123".to_owned(),
            architecture: "amd64".to_owned(),
            layers: vec![model.into(), vec![entry(file("app", code), "app", true)]],
            entrypoint: vec!["/app".to_owned()],
            env: vec!["MODEL_DIR=/model".to_owned()],
            user: "65532:65532".to_owned(),
            ports: vec!["8000/tcp".to_owned()],
        }
    }

    fn pack(code: &str) -> (Digests, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image.tar");
        let digests = write(&path, &contents(folder.path(), code)).expect("an archive");
        (digests, std::fs::read(path).expect("reading"))
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("a tar");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("its bytes");
                let header = entry.header();
                assert_eq!(
                    (header.mtime().ok(), header.uid().ok(), header.gid().ok()),
                    (Some(0), Some(0), Some(0))
                );
                (entry.path().expect("its path").to_string_lossy().into_owned(), bytes)
            })
            .collect()
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes_wherever_and_whenever() {
        let (first, second) = (pack("code"), pack("code"));
        assert_eq!(first, second);
        assert_ne!(first.0, pack("other code").0);
    }

    #[test]
    fn an_edit_of_the_code_leaves_the_models_layer_alone() {
        let layers = |code| {
            let files = unpack(&pack(code).1);
            let docker: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
            docker[0]["Layers"].clone()
        };
        let (before, after) = (layers("code"), layers("other code"));
        assert_eq!(before.as_array().expect("layers").len(), 2);
        assert_eq!(before[0], after[0]);
        assert_ne!(before[1], after[1]);
    }

    #[test]
    fn every_blob_is_named_by_its_digest_and_described_as_it_is() {
        let (digests, archive) = pack("code");
        let files = unpack(&archive);
        for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
            let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(name, &format!("blobs/sha256/{hex}"));
        }
        let blob = |descriptor: &oci_spec::image::Descriptor| {
            format!("blobs/sha256/{}", descriptor.digest().digest())
        };
        let read = |descriptor: &oci_spec::image::Descriptor| {
            let bytes = &files[&blob(descriptor)];
            assert_eq!(descriptor.size(), bytes.len() as u64);
            assert!(digests.contains(descriptor.digest().as_ref()), "{descriptor:?}");
            bytes.as_slice()
        };
        let layout: OciLayout = serde_json::from_slice(&files["oci-layout"]).expect("a layout");
        assert_eq!(layout.image_layout_version(), "1.0.0");
        let index: ImageIndex = serde_json::from_slice(&files["index.json"]).expect("an index");
        let [named] = index.manifests().as_slice() else { panic!("{index:?}") };
        let annotations = named.annotations().as_ref().expect("annotations");
        assert_eq!(annotations[IMAGE_NAME], "docker.io/library/app:0123");
        assert_eq!(annotations[REF_NAME], "0123");
        let manifest: ImageManifest = serde_json::from_slice(read(named)).expect("a manifest");
        let config: ImageConfiguration = serde_json::from_slice(read(manifest.config())).expect("a config");
        let layers: Vec<String> = manifest.layers().iter().map(|layer| layer.digest().to_string()).collect();
        assert_eq!(config.rootfs().diff_ids(), &layers, "uncompressed, so both names are one");
        insta::assert_snapshot!(serde_json::to_string(config.config()).expect("JSON"), @r#"{"User":"65532:65532","ExposedPorts":{"8000/tcp":{}},"Env":["MODEL_DIR=/model"],"Entrypoint":["/app"]}"#);
        let inside: Vec<_> =
            manifest.layers().iter().flat_map(|layer| unpack(&files[&blob(layer)]).into_keys()).collect();
        assert_eq!(inside, ["model", "model/manifest.json", "model/model.onnx", "app"]);
    }

    #[test]
    fn an_archive_is_found_to_hold_what_was_packed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image.tar");
        let digests = write(&path, &contents(folder.path(), "code")).expect("an archive");
        let packed = read(&path).expect("its parts");
        assert!(digests.contains(&packed.digest));
        let whole = std::fs::read(&path).expect("reading");
        assert_eq!(packed.blobs.len(), 3);
        for Blob { digest, offset, bytes } in &packed.blobs {
            let part = &whole[usize::try_from(*offset).expect("a place")..]
                [..usize::try_from(*bytes).expect("a size")];
            let hex: String = Sha256::digest(part).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(*digest, format!("sha256:{hex}"));
        }
    }

    #[test]
    fn an_input_that_is_missing_is_named_and_leaves_no_half_archive() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut contents = contents(folder.path(), "code");
        contents.layers[1][0].from = folder.path().join("gone");
        let path = folder.path().join("image.tar");
        let error = write(&path, &contents).unwrap_err();
        assert!(crate::failure::paragraph(&error).contains("gone"), "{error:#}");
        assert!(!path.exists());
    }
}
