//! The image store, as its users see it.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use sandbox_node::{ImageLayout, ImageStore, InvalidReference};

struct Source {
    dir: tempfile::TempDir,
}

impl Source {
    fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn layout(&self, program: &str, weights: &str) -> ImageLayout {
        ImageLayout {
            files: vec![
                (self.file("app", program, 0o755), "bin/app".to_owned()),
                (self.file("weights", weights, 0o444), "model/weights".to_owned()),
            ],
            entrypoint: vec!["{root}/bin/app".to_owned()],
            env: BTreeMap::from([("MODEL_DIR".to_owned(), "{root}/model".to_owned())]),
        }
    }
}

fn store() -> (Source, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    (Source { dir }, store)
}

#[test]
fn content_decides_the_identity() {
    let (source, store) = store();
    let one = store.import("app:1", &source.layout("v1", "w")).unwrap();
    assert_eq!(store.import("app:again", &source.layout("v1", "w")).unwrap(), one, "same content, same id");
    let two = store.import("app:2", &source.layout("v2", "w")).unwrap();
    assert_ne!(one, two);
    let mut other = source.layout("v1", "w");
    other.env.insert("X".to_owned(), "1".to_owned());
    assert_ne!(store.identify(&other).unwrap(), one);
    let mut other = source.layout("v1", "w");
    other.files.reverse();
    assert_eq!(store.identify(&other).unwrap(), one, "the order of files is no content");
    source.file("app", "v1", 0o644);
    let mut other = source.layout("v1", "w");
    other.files[0].0 = source.file("plain", "v1", 0o644);
    assert_ne!(store.identify(&other).unwrap(), one, "not executable is another image");

    let image = store.resolve("app:1").unwrap().unwrap();
    assert_eq!(image.tags, ["app:1", "app:again"]);
    assert_eq!(image.entrypoint, [image.root.join("bin/app").to_string_lossy()]);
    assert_eq!(image.env["MODEL_DIR"], image.root.join("model").to_string_lossy());
    assert_eq!(std::fs::read_to_string(image.root.join("bin/app")).unwrap(), "v1");
    assert_eq!(store.resolve(one.as_str()).unwrap().unwrap(), image, "by id");
    assert_eq!(store.list().unwrap().len(), 2);
}

#[test]
fn no_tag_means_latest_and_no_other() {
    let (source, store) = store();
    store.import("app:1", &source.layout("v1", "w")).unwrap();
    let names = ["app", "app:latest", "docker.io/library/app"];
    for name in names {
        assert_eq!(store.resolve(name).unwrap(), None, "{name}");
    }
    let latest = store.import("app", &source.layout("v2", "w")).unwrap();
    store.import("app:2", &source.layout("v3", "w")).unwrap();
    for name in names {
        assert_eq!(store.resolve(name).unwrap().unwrap().id, latest, "{name}");
    }
    assert_eq!(store.resolve("app:3").unwrap(), None);
    assert!(store.resolve("Not Valid").unwrap_err().is::<InvalidReference>());
}

#[test]
fn a_source_that_is_rewritten_in_place_leaves_the_image_alone() {
    let (source, store) = store();
    store.import("app:1", &source.layout("v1", "w")).unwrap();
    let image = store.resolve("app:1").unwrap().unwrap();
    std::fs::write(source.dir.path().join("app"), "rewritten").unwrap();
    assert_eq!(std::fs::read_to_string(image.root.join("bin/app")).unwrap(), "v1");
    let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    assert_eq!(
        inode(source.dir.path().join("weights")),
        inode(image.root.join("model/weights")),
        "read-only: linked"
    );
}

#[test]
fn what_is_removed_is_gone_with_its_last_tag() {
    let (source, store) = store();
    let id = store.import("app:1", &source.layout("v1", "w")).unwrap();
    store.import("app:2", &source.layout("v1", "w")).unwrap();
    assert!(store.remove("app:1").unwrap());
    assert_eq!(store.resolve("app:1").unwrap(), None);
    assert!(store.resolve("app:2").unwrap().is_some());
    assert!(store.remove("app:2").unwrap());
    assert_eq!(store.resolve(id.as_str()).unwrap(), None);
    assert!(!store.remove("app:2").unwrap());
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn layouts_that_cannot_be_imported() {
    let (source, store) = store();
    let file = source.file("app", "x", 0o755);
    for path in ["../out", "/etc/passwd", "", "a/../../b"] {
        let layout = ImageLayout { files: vec![(file.clone(), path.to_owned())], ..ImageLayout::default() };
        assert!(store.import("app:1", &layout).is_err(), "{path:?}");
    }
    let layout = ImageLayout {
        files: vec![(file.with_file_name("absent"), "a".to_owned())],
        ..ImageLayout::default()
    };
    let error = format!("{:#}", store.import("app:1", &layout).unwrap_err());
    assert!(error.contains("importing image app:1") && error.contains("absent"), "{error}");
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn many_imports_at_once_make_one_image() {
    let (source, store) = store();
    let layout = source.layout("v1", "w");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (store, layout) = (store.clone(), &layout);
            scope.spawn(move || store.import(&format!("app:{number}"), layout).unwrap());
        }
    });
    let images = store.list().unwrap();
    assert_eq!((images.len(), images[0].tags.len()), (1, 8));
}
