//! From the start until it is ready, and settings that it refuses.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::service::{DEADLINE, Service, client, command, error_code, model_dir};

/// Exit code and what was said of a service that does not start.
async fn fails(model_dir: &Path, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let child = command(model_dir, env).stderr(Stdio::piped()).spawn().unwrap();
    let output = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn it_listens_before_the_model_is_there_and_says_so() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    fs::create_dir(&dir).unwrap();
    // Reading the manifest blocks until the test writes to this pipe: a model that takes its time.
    let manifest = dir.join("manifest.json");
    let status = std::process::Command::new("mkfifo").arg(&manifest).status().unwrap();
    assert!(status.success());
    fs::hard_link(model_dir().join("model.onnx"), dir.join("model.onnx")).unwrap();

    let service = Service::start(&dir, &[]).await;
    let health = service.get("/health").await;
    assert_eq!(health.headers()["retry-after"], "1");
    assert_eq!(error_code(health).await, (503, "MODEL_NOT_LOADED".into()));
    assert_eq!(service.get("/health/live").await.status(), 200);
    assert_eq!(error_code(service.predict_sample().await).await, (503, "MODEL_NOT_LOADED".into()));

    let text = fs::read(model_dir().join("manifest.json")).unwrap();
    tokio::task::spawn_blocking(move || fs::write(manifest, text).unwrap()).await.unwrap();
    service.logged("ready").await;
    assert_eq!(service.get("/health").await.status(), 200);
    assert!(service.log().iter().all(|line| line["level"] != "ERROR"));
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_ends_it_with_the_reason() {
    let parent = tempfile::tempdir().unwrap();
    let (code, log) = fails(parent.path(), &[]).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("manifest.json") && log.contains("hint: `cargo xtask weights fetch`"), "{log}");

    fs::copy(model_dir().join("manifest.json"), parent.path().join("manifest.json")).unwrap();
    fs::write(parent.path().join("model.onnx"), vec![0; 1_000_000]).unwrap();
    let (code, log) = fails(parent.path(), &[]).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("model.onnx is damaged: expected 102140052 bytes, got 1000000"), "{log}");
}

#[tokio::test]
async fn one_flipped_bit_in_the_model_ends_it_before_it_is_ready() {
    let parent = tempfile::tempdir().unwrap();
    fs::copy(model_dir().join("manifest.json"), parent.path().join("manifest.json")).unwrap();
    let mut onnx = fs::read(model_dir().join("model.onnx")).unwrap();
    let middle = onnx.len() / 2;
    onnx[middle] ^= 1;
    fs::write(parent.path().join("model.onnx"), onnx).unwrap();
    let (code, log) = fails(parent.path(), &[]).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("model.onnx is damaged: expected sha256 ") && log.contains(", got "), "{log}");
    assert!(!log.contains("\"message\":\"ready\""), "{log}");
}

#[tokio::test]
async fn a_bad_setting_or_a_taken_port_is_named() {
    let (code, log) = fails(&model_dir(), &[("MODEL_ENGINE", "abacus")]).await;
    assert_eq!(code, Some(2));
    assert!(log.contains("MODEL_ENGINE=") && log.contains("expected auto, rten or onnxruntime"), "{log}");

    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let (code, log) = fails(&model_dir(), &[("PORT", &address.port().to_string())]).await;
    assert_eq!(code, Some(1));
    assert!(log.contains(&format!("listening on {address}")), "{log}");
}

#[tokio::test]
async fn a_log_without_room_ends_nothing() {
    // The port must be known beforehand, for nothing is said of it.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(&model_dir(), &[("PORT", &free.port().to_string())]);
    let _child = command.stdout(full()).stderr(full()).spawn().unwrap();
    let healthy = async {
        loop {
            match client().get(format!("http://{free}/health")).send().await {
                Ok(answer) if answer.status() == 200 => break,
                _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    timeout(DEADLINE, healthy).await.unwrap();
}
