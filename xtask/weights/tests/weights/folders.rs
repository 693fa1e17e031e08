//! Model folders, made and broken as a user would.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rten::Model;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use xtask_weights::{MANIFEST_FILE, MODEL_FILE, Manifest, generate, seeded_safetensors, verify};

/// Pinned: the same seed must give the same file on every machine and in every later version.
const SEED_7: &str = "75c2e394c07618463f2c7be7b2adf2f99949663ea9ddc1b3dc0dcc9bc3edfdc8";

fn generated(dir: &Path) -> Manifest {
    let (mut last, mut calls) = ((0, 0), 0);
    let manifest = generate(7, dir, &mut |done, total| {
        assert!(done >= last.0 && done <= total);
        (last, calls) = ((done, total), calls + 1);
    })
    .unwrap();
    assert!(calls > 1 && last.0 == last.1);
    manifest
}

/// Model files are read-only; whoever damages one has to go about it.
fn overwrite(file: &Path, contents: &[u8]) {
    let _ = fs::remove_file(file);
    fs::write(file, contents).unwrap();
}

#[test]
fn a_generated_folder_is_whole_and_its_model_runs() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep").join("model");
    let manifest = generated(&dir);
    assert_eq!(verify(&dir).unwrap(), manifest);
    assert_eq!(manifest.seeded, Some(7));
    assert_eq!(manifest.sha256, SEED_7);
    for name in [MODEL_FILE, MANIFEST_FILE] {
        let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444, "{name}");
    }

    let model = Model::load_file(dir.join(MODEL_FILE)).unwrap();
    let input = |value: f32| NdTensor::full([1, 3, 224, 224], value);
    let run = |value| -> Vec<f32> {
        let output = model.run_one(input(value).view().into(), None).unwrap();
        let logits: NdTensor<f32, 2> = output.try_into().unwrap();
        assert_eq!(logits.shape(), [1, 1000]);
        logits.to_vec()
    };
    let (dark, bright) = (run(-1.0), run(1.0));
    assert!(dark.iter().chain(&bright).all(|logit| logit.is_finite() && logit.abs() < 100.0));
    assert_ne!(dark, bright);
    for (name, id) in [("input", model.input_ids()[0]), ("logits", model.output_ids()[0])] {
        assert_eq!(model.node_id(name).unwrap(), id);
    }

    // A second run replaces the folder and leaves nothing beside it.
    generated(&dir);
    let names: Vec<_> =
        fs::read_dir(dir.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["model"]);
}

#[test]
fn other_seeds_give_other_weights() {
    let digest = |seed| {
        let bytes = seeded_safetensors(seed, &mut |_, _| {}).unwrap();
        bytes[bytes.len() - 4096..].to_vec()
    };
    assert_ne!(digest(1), digest(2));
}

#[test]
fn damage_is_found_and_named() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    let message = |dir: &Path| format!("{:#}", verify(dir).unwrap_err());

    let missing = message(&dir);
    assert!(missing.contains(&dir.join(MANIFEST_FILE).display().to_string()), "{missing}");

    generated(&dir);
    let model = dir.join(MODEL_FILE);
    let mut bytes = fs::read(&model).unwrap();
    bytes[50_000_000] ^= 1;
    overwrite(&model, &bytes);
    let flipped = message(&dir);
    assert!(
        flipped.contains("model.onnx is damaged: expected sha256") && flipped.contains(SEED_7),
        "{flipped}"
    );

    bytes.pop();
    overwrite(&model, &bytes);
    assert!(message(&dir).contains("bytes, got"), "{}", message(&dir));

    fs::remove_file(&model).unwrap();
    assert!(message(&dir).contains("model.onnx"), "{}", message(&dir));

    overwrite(&dir.join(MANIFEST_FILE), b"{");
    assert!(message(&dir).contains("parsing"), "{}", message(&dir));
}

#[test]
fn an_unwritable_place_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = format!("{:#}", generate(7, &file.join("model"), &mut |_, _| {}).unwrap_err());
    assert!(error.contains(&file.display().to_string()), "{error}");
}
