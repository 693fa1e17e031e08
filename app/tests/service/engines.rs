//! Which engine computes, and what is said where one can't be had.

use std::process::Stdio;

use serde_json::Value;

use crate::model::onnxruntime_library;
use crate::service::{DEADLINE, Service, command, model_dir};

async fn engine(service: &Service) -> Value {
    let info: Value = service.get("/info").await.json().await.unwrap();
    info["engine"]["name"].clone()
}

#[tokio::test]
async fn auto_takes_rten_where_there_is_no_library_and_says_why() {
    let service = Service::ready(&[("MODEL_ENGINE", "auto")]).await;
    assert_eq!(engine(&service).await, "rten");
    let line = service.logged("no ONNX Runtime here, rten it is").await;
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("ORT_DYLIB_PATH is not set"), "{reason}");
    assert!(reason.contains(model_dir().to_str().unwrap()), "{reason}");
}

#[tokio::test]
async fn auto_takes_rten_where_the_library_is_none() {
    let not_a_library = model_dir().join("manifest.json");
    let service = Service::ready(&[("ORT_DYLIB_PATH", not_a_library.to_str().unwrap())]).await;
    assert_eq!(engine(&service).await, "rten");
    let line = service.logged("no ONNX Runtime here, rten it is").await;
    assert!(line["reason"].as_str().unwrap().contains("manifest.json"), "{line}");
}

#[tokio::test]
async fn onnxruntime_without_its_library_ends_it_with_the_reason() {
    for (library, expected) in [
        ("", "ORT_DYLIB_PATH is not set, and there is no libonnxruntime in "),
        ("/nowhere/libonnxruntime.so", "there is no ONNX Runtime library /nowhere/libonnxruntime.so"),
    ] {
        let env = [("MODEL_ENGINE", "onnxruntime"), ("ORT_DYLIB_PATH", library)];
        let child = command(&model_dir(), &env).stderr(Stdio::piped()).spawn().unwrap();
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
        let log = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(expected) && log.contains("hint: MODEL_ENGINE=rten"), "{log}");
    }
}

#[tokio::test]
async fn both_engines_give_the_same_answer() {
    let Some(library) = onnxruntime_library() else { return };
    let library = library.to_str().unwrap();
    let mut answers = vec![];
    for (env, name) in [
        (&[("MODEL_ENGINE", "rten")][..], "rten"),
        (&[("MODEL_ENGINE", "onnxruntime"), ("ORT_DYLIB_PATH", library)], "onnxruntime"),
        (&[("ORT_DYLIB_PATH", library)], "onnxruntime"),
    ] {
        let service = Service::ready(env).await;
        assert_eq!(engine(&service).await, name);
        assert_eq!(service.logged("ready").await["engine"], name);
        let body: Value = service.predict_sample().await.json().await.unwrap();
        answers.push(body["predictions"].as_array().unwrap().clone());
    }
    for other in &answers[1..] {
        for (a, b) in answers[0].iter().zip(other) {
            assert_eq!(a["class_index"], b["class_index"]);
            let difference = a["confidence"].as_f64().unwrap() - b["confidence"].as_f64().unwrap();
            assert!(difference.abs() <= 2e-6, "{a} {b}");
        }
    }
}

#[tokio::test]
async fn a_library_in_the_models_folder_is_found() {
    let Some(library) = onnxruntime_library() else { return };
    let bundled = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "manifest.json"] {
        std::os::unix::fs::symlink(model_dir().join(name), bundled.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink(&library, bundled.path().join(library.file_name().unwrap())).unwrap();
    let service = Service::start(bundled.path(), &[]).await;
    service.logged("ready").await;
    assert_eq!(engine(&service).await, "onnxruntime");
}
