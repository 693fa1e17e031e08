//! The service against torchvision: same pictures, same weights. `goldens/make.py` made the pictures and torchvision's
//! answers. The table: `cargo test -p simple-model-api --test parity -- --nocapture`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../model/mod.rs"]
mod model;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::Deserialize;
use simple_model_api::{EngineKind, Library, Model};

use model::{model_dir, onnxruntime_library};

/// Resampling rounds; the same source pixels come out at most this far from Pillow's.
const RESIZE_LEVELS: u8 = 1;
/// Decoders of lossy formats differ in their inverse transform and in how they enlarge the colours.
const DECODE_LEVELS: u8 = 3;
/// On logits, for the same tensor.
const LOGIT_TOLERANCE: f32 = 1e-3;
/// Two classes nearer to each other than this may change places from end to end.
const MARGIN: f32 = 1e-3;

#[derive(Deserialize)]
struct Document {
    weights: String,
    pictures: Vec<Picture>,
}

#[derive(Deserialize)]
struct Picture {
    name: String,
    size: (u32, u32),
    top_1: usize,
    margin: f32,
}

/// A picture, what torchvision made of it, and what we did.
struct Golden {
    picture: Picture,
    expected_pixels: Vec<u8>,
    expected_logits: Vec<f32>,
    size: (u32, u32),
    pixels: Vec<u8>,
}

impl Golden {
    fn lossy(&self) -> bool {
        self.picture.name.starts_with("jpeg") || self.picture.name == "webp-lossy.webp"
    }
}

static GOLDENS: LazyLock<Vec<Golden>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let document: Document = serde_json::from_slice(&read(folder.join("goldens.json"))).unwrap();
    assert_eq!(document.weights, "seeded-42");
    let logits: Vec<f32> = read(folder.join("logits.f32"))
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    assert_eq!(logits.len(), document.pictures.len() * 1000);
    let goldens = document.pictures.into_iter().zip(logits.chunks(1000)).map(|(picture, logits)| {
        let name = &picture.name;
        let expected = read(folder.join("expected").join(format!("{name}.webp")));
        let expected_pixels = image::load_from_memory(&expected).unwrap().into_rgb8().into_raw();
        let file = read(folder.join("pictures").join(name));
        let decoded = app_pictures::decode(&file).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let pixels = app_pictures::resize_and_crop(&decoded, &preset()).unwrap();
        let size = decoded.dimensions();
        Golden { picture, expected_pixels, expected_logits: logits.to_vec(), size, pixels }
    });
    goldens.collect()
});

fn preset() -> app_pictures::Preset {
    // torchvision's ResNet50_Weights.IMAGENET1K_V1.
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    app_pictures::Preset { resize: 256, crop: 224, mean, std }
}

fn most(differences: impl Iterator<Item = f32>) -> f32 {
    differences.fold(0.0, f32::max)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    most(a.iter().zip(b).map(|(a, b)| (a - b).abs()))
}

fn top_1(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

/// Every engine that is here.
fn engines() -> Vec<Model> {
    let open = |kind, library: Library| {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Model::open(&model_dir(), kind, &library, threads).unwrap()
    };
    let mut engines = vec![open(EngineKind::Rten, Library::Unloadable)];
    if let Some(library) = onnxruntime_library() {
        engines.push(open(EngineKind::OnnxRuntime, Library::At(library)));
    }
    engines
}

#[test]
fn the_pixels_are_torchvisions() {
    for golden in &*GOLDENS {
        let name = &golden.picture.name;
        assert_eq!(golden.size, golden.picture.size, "{name}");
        let most =
            golden.pixels.iter().zip(&golden.expected_pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let allowed = if golden.lossy() { RESIZE_LEVELS + DECODE_LEVELS } else { RESIZE_LEVELS };
        assert!(most <= allowed, "{name}: {most} levels, {allowed} allowed");
    }
}

#[test]
fn the_logits_are_pytorchs() {
    let mut engines = engines();
    let names: String = engines.iter().map(|engine| format!("{:>24}", engine.engine_name())).collect();
    println!(
        "{:28} {:>11} {:>16} {:>9} {names}\n{:28} {:>11} {:>16} {:>9} {}",
        "",
        "",
        "pixels (levels)",
        "",
        "picture",
        "size",
        "most   mean",
        "margin",
        "  same tensor, end to end".repeat(engines.len())
    );
    for golden in &*GOLDENS {
        let Golden { picture, expected_pixels: expected, expected_logits: logits, pixels, .. } = golden;
        let name = &picture.name;
        let differences = || pixels.iter().zip(expected).map(|(a, b)| f32::from(a.abs_diff(*b)));
        let mean = differences().sum::<f32>() / pixels.len() as f32;
        let mut cells = String::new();
        for engine in &mut engines {
            let engine_name = engine.engine_name();
            let answer = engine.run(app_pictures::normalize(expected, &preset())).unwrap();
            let same = largest_difference(&answer, logits);
            assert!(same <= LOGIT_TOLERANCE, "{name}, {engine_name}: logits differ by {same}");
            assert_eq!(top_1(&answer), picture.top_1, "{name}, {engine_name}");

            let answer = if pixels == expected {
                answer
            } else {
                engine.run(app_pictures::normalize(pixels, &preset())).unwrap()
            };
            let end_to_end = largest_difference(&answer, logits);
            assert!(
                top_1(&answer) == picture.top_1 || picture.margin < MARGIN,
                "{name}, {engine_name}: top-1 {} instead of {}",
                top_1(&answer),
                picture.top_1
            );
            cells.push_str(&format!("{same:>13.1e} {end_to_end:>11.1e}"));
        }
        let (width, height) = picture.size;
        let size = format!("{width}x{height}");
        println!(
            "{name:28} {size:>11} {:>9} {mean:>6.3} {:>9.4} {cells}",
            most(differences()),
            picture.margin
        );
    }
}
