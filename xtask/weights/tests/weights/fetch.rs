//! `fetch` against a server of our own, well behaved and not.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use xtask_weights::{FetchError, WeightSet, default_set, fetch, seeded_safetensors, verify};

/// Answers the first connection with `head` and `body`, then closes it, or keeps it open for ever.
async fn serve(head: String, body: Vec<u8>, close: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = socket.read(&mut request).await.unwrap();
        assert!(request[..length].starts_with(b"GET /timm/resnet50.tv_in1k/resolve/"));
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&body).await.unwrap();
        if !close {
            std::future::pending::<()>().await;
        }
    });
    base
}

fn ok_head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

fn pinned(base: &str, size_bytes: usize, sha256: &str) -> WeightSet {
    let set = default_set().at_mirror(base);
    WeightSet { size_bytes: size_bytes as u64, sha256: sha256.to_owned().into(), ..set }
}

/// Fetches into a folder that must not come to be, and gives the error.
async fn refused(set: &WeightSet) -> FetchError {
    let parent = tempfile::tempdir().unwrap();
    let error = fetch(set, &parent.path().join("model"), &mut |_, _| {}).await.unwrap_err();
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "something was left behind");
    error
}

#[tokio::test]
async fn the_pinned_file_becomes_a_model_folder() {
    let body = seeded_safetensors(7, &mut |_, _| {}).unwrap();
    let sha256 = {
        use sha2::Digest as _;
        sha2::Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let base = serve(ok_head(body.len()), body.clone(), true).await;
    let set = pinned(&base, body.len(), &sha256);
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    let mut last = (0, 0);
    let manifest = fetch(&set, &dir, &mut |done, total| last = (done, total)).await.unwrap();
    assert_eq!(last, (set.size_bytes, set.size_bytes));
    assert_eq!(verify(&dir).unwrap(), manifest);
    assert_eq!((manifest.weights.as_str(), manifest.seeded), ("resnet50.tv_in1k", None));
    assert_eq!(manifest.license.as_deref(), Some("BSD-3-Clause"));
    assert_eq!(manifest.source, set.url);
}

#[tokio::test]
async fn another_file_of_the_same_size_is_refused() {
    let base = serve(ok_head(4), b"evil".to_vec(), true).await;
    let error = refused(&pinned(&base, 4, "00ff")).await;
    assert!(!error.is_no_network());
    let text = error.to_string();
    assert!(text.contains(&base) && text.contains("expected sha256 00ff, got sha256 "), "{text}");
}

#[tokio::test]
async fn a_file_of_another_size_is_refused_before_it_is_read() {
    let base = serve(ok_head(5), vec![], false).await;
    let error = refused(&pinned(&base, 4, "00ff")).await;
    assert!(error.to_string().contains("expected 4 bytes, got 5 bytes"), "{error}");
    assert!(!error.is_no_network());
}

#[tokio::test]
async fn a_body_of_unknown_length_that_never_ends_is_cut() {
    let head = "HTTP/1.1 200 OK\r\n\r\n".to_owned();
    let base = serve(head, vec![0; 100_000], false).await;
    let error = refused(&pinned(&base, 4, "00ff")).await;
    assert!(error.to_string().contains("more than 4 bytes"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_off_counts_as_no_network() {
    let base = serve(ok_head(1000), vec![0; 10], true).await;
    let error = refused(&pinned(&base, 1000, "00ff")).await;
    assert!(error.is_no_network(), "{error}");
    assert!(error.to_string().contains("of 1000 bytes"), "{error}");
}

#[tokio::test]
async fn a_connection_that_stands_still_counts_as_no_network() {
    let base = serve(ok_head(1000), vec![0; 10], false).await;
    let impatient = WeightSet { stall_timeout: Duration::from_millis(100), ..pinned(&base, 1000, "00ff") };
    let error = refused(&impatient).await;
    assert!(error.is_no_network(), "{error}");
    assert!(error.to_string().contains("timed out"), "{error}");
}

#[tokio::test]
async fn a_refused_connection_counts_as_no_network_and_fails_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let start = Instant::now();
    let error = refused(&pinned(&base, 4, "00ff")).await;
    assert!(error.is_no_network(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn an_error_status_is_not_mistaken_for_no_network() {
    let base = serve("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(), vec![], true).await;
    let error = refused(&pinned(&base, 4, "00ff")).await;
    assert!(!error.is_no_network());
    assert!(error.to_string().contains("HTTP 404"), "{error}");
}
