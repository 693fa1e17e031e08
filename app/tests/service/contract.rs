//! The wire contract: paths, status codes, headers and bodies as the README of the API says.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::service::{HEALTHY, SAMPLE, Service, error_code, form};

#[tokio::test]
async fn health_is_the_contracts_body_byte_for_byte() {
    let service = Service::ready(&[]).await;
    for path in ["/health", "/health/ready"] {
        let response = service.get(path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.text().await.unwrap(), HEALTHY);
    }
    assert_eq!(service.get("/health/live").await.status(), 200);
}

#[tokio::test]
async fn a_form_and_a_raw_body_get_the_same_ranked_predictions() {
    let service = Service::ready(&[]).await;
    let response = service.predict_sample().await;
    let timing = response.headers()["server-timing"].to_str().unwrap().to_owned();
    assert!(timing.starts_with("preprocess;dur=") && timing.contains(", inference;dur="), "{timing}");
    assert!(timing.contains(", queue;dur="), "{timing}");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["success"], true);
    let warning = "the weights are seeded, not trained: predictions mean nothing";
    assert_eq!(
        body["meta"],
        json!({"model": "ResNet-50", "top_k": 5, "filename": "sample.jpg", "warning": warning})
    );
    let predictions = body["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 5);
    let confidences: Vec<f64> = predictions.iter().map(|p| p["confidence"].as_f64().unwrap()).collect();
    assert!(confidences.is_sorted_by(|a, b| a >= b) && confidences[0] > 0.0 && confidences[0] < 1.0);
    for (index, prediction) in predictions.iter().enumerate() {
        assert_eq!(prediction["rank"], index + 1);
        assert!(prediction["class_index"].as_u64().unwrap() < 1000);
        assert!(!prediction["class_name"].as_str().unwrap().is_empty());
        let confidence = prediction["confidence"].as_f64().unwrap();
        assert!((confidence * 1e6 - (confidence * 1e6).round()).abs() < 1e-6, "more than 6 decimals");
    }

    let raw: Value = service.post_raw("image/jpeg", SAMPLE).await.json().await.unwrap();
    assert_eq!(raw["predictions"], body["predictions"]);
    assert_eq!(raw["meta"]["filename"], Value::Null);
    let info: Value = service.get("/info").await.json().await.unwrap();
    assert_eq!((&info["warning"], &info["weights"]["seeded"]), (&json!(warning), &json!(42)));
    assert_eq!(info["engine"]["name"], "rten");
    assert_eq!(service.logged(warning).await["level"], "WARN");
}

#[tokio::test]
async fn top_k_is_1_to_10() {
    let service = Service::ready(&[]).await;
    for top_k in [1, 10] {
        let path = format!("/predict?top_k={top_k}");
        let response = service.post_form(&path, form(SAMPLE, "sample.jpg", "image/jpeg")).await;
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["predictions"].as_array().unwrap().len(), top_k);
        assert_eq!(body["meta"]["top_k"], top_k);
    }
    for bad in ["0", "11", "-1", "many", "", "5&top_k=6", "5.0"] {
        let path = format!("/predict?top_k={bad}");
        let response = service.post_form(&path, form(SAMPLE, "sample.jpg", "image/jpeg")).await;
        assert_eq!(error_code(response).await, (400, "INVALID_PARAMETER".into()), "top_k={bad}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_body_has_its_code() {
    let service = Service::ready(&[]).await;
    let gif = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;";
    let huge = vec![0xff; 10 * 1024 * 1024 + 1];
    let limit = vec![0xff; 10 * 1024 * 1024];
    let part = |bytes: Vec<u8>| Form::new().part("file", Part::bytes(bytes).file_name("x"));
    let forms: [(&str, Form, u16, &str); 9] = [
        ("no bytes", form(b"", "x.jpg", "image/jpeg"), 400, "EMPTY_FILE"),
        ("no field", Form::new().text("picture", "x"), 400, "INVALID_BODY"),
        ("text", form(b"hello", "x.txt", "text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("gif", form(gif, "x.gif", "image/gif"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("gif in disguise", form(gif, "x.jpg", "image/jpeg"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("garbage", part(b"hello".to_vec()), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("broken", form(&SAMPLE[..200], "x.jpg", "image/jpeg"), 422, "PREPROCESSING_FAILED"),
        ("a byte too much", part(huge.clone()), 413, "FILE_TOO_LARGE"),
        ("at the limit", part(limit), 415, "UNSUPPORTED_MEDIA_TYPE"),
    ];
    for (name, form, status, code) in forms {
        let response = service.post_form("/predict", form).await;
        assert_eq!(error_code(response).await, (status, code.to_owned()), "{name}");
    }
    for (media_type, body, status, code) in [
        ("image/png", vec![], 400, "EMPTY_FILE"),
        ("application/json", b"{}".to_vec(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("image/svg+xml", b"<svg/>".to_vec(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("multipart/form-data", b"x".to_vec(), 400, "INVALID_BODY"),
        ("multipart/form-data; boundary=a", b"--a\r\nbroken".to_vec(), 400, "INVALID_BODY"),
        ("image/png", huge, 413, "FILE_TOO_LARGE"),
    ] {
        let response = service.post_raw(media_type, body).await;
        assert_eq!(error_code(response).await, (status, code.to_owned()), "{media_type}");
    }
    let none = service.client.post(service.url("/predict")).send().await.unwrap();
    assert_eq!(error_code(none).await, (415, "UNSUPPORTED_MEDIA_TYPE".into()));
    assert_eq!(service.get("/health").await.status(), 200);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_as_json() {
    let service = Service::ready(&[]).await;
    assert_eq!(error_code(service.get("/nope").await).await, (404, "NOT_FOUND".into()));
    let response = service.get("/predict").await;
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(error_code(response).await, (405, "METHOD_NOT_ALLOWED".into()));
}

#[tokio::test]
async fn ids_are_echoed_and_logged() {
    let service = Service::ready(&[("POD_NAME", "pod-a")]).await;
    let request = service.client.get(service.url("/nope"));
    let request = request.header("x-request-id", "req-1").header("x-correlation-id", "corr-1");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "req-1");
    assert_eq!(response.headers()["x-correlation-id"], "corr-1");
    assert_eq!(response.headers()["x-served-by"], "pod-a");
    assert!(response.headers()["x-response-time"].to_str().unwrap().ends_with("ms"));
    let line = service.logged("request").await;
    let fields = ["request_id", "correlation_id", "method", "path", "status", "error_code", "pod"];
    let seen: Vec<&Value> = fields.iter().map(|field| &line[*field]).collect();
    let expected = [
        json!("req-1"),
        json!("corr-1"),
        json!("GET"),
        json!("/nope"),
        json!(404),
        json!("NOT_FOUND"),
        json!("pod-a"),
    ];
    assert_eq!(seen, expected.iter().collect::<Vec<_>>());
    assert!(line["duration_ms"].is_f64());

    // None sent, or one that does not belong in a log: a new one.
    for sent in [None, Some("x".repeat(129))] {
        let mut request = service.client.get(service.url("/health/live"));
        if let Some(id) = &sent {
            request = request.header("x-request-id", id);
        }
        let response = request.send().await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(response.headers()["x-correlation-id"], id.as_str());
    }
}

#[tokio::test]
async fn metrics_count_what_was_answered() {
    let service = Service::ready(&[]).await;
    service.predict_sample().await;
    service.get("/nope").await;
    let response = service.get("/metrics").await;
    let text = response.text().await.unwrap();
    for line in [
        "http_requests_total{method=\"POST\",endpoint=\"/predict\",status_code=\"200\"} 1",
        "http_requests_total{method=\"GET\",endpoint=\"other\",status_code=\"404\"} 1",
        "model_inference_duration_seconds_count 1",
        "inference_queue_depth 0",
        "inference_queue_size 32",
        "http_requests_in_flight 1",
        "model_ready 1",
        "model_weights_seeded 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn metrics_are_in_the_format_that_is_asked_for() {
    let service = Service::ready(&[]).await;
    service.predict_sample().await;
    let get = async |accept: Option<&str>| {
        let mut request = service.client.get(service.url("/metrics"));
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["vary"], "Accept");
        (response.headers()["content-type"].to_str().unwrap().to_owned(), response.text().await.unwrap())
    };
    for accept in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
        let (content_type, text) = get(accept).await;
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert!(text.contains("\n# TYPE http_requests_total counter\nhttp_requests_total{"), "{text}");
        assert!(text.contains("# HELP http_requests_total ") && !text.contains("# EOF"), "{text}");
        promtool_takes(&text);
    }
    let (content_type, text) = get(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")).await;
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.contains("\n# TYPE http_requests counter\nhttp_requests_total{"), "{text}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
}

/// `promtool check metrics` has nothing to say of `text`. Where there is no promtool, that must be seen: the words pass
/// by the test harness, which would keep them to itself.
fn promtool_takes(text: &str) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Ok(promtool) => promtool,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let _ = writeln!(
                std::io::stderr(),
                "NOT TESTED: what promtool says of /metrics; Debian's package prometheus brings it"
            );
            return;
        }
        Err(error) => panic!("promtool: {error}"),
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[tokio::test]
async fn the_openapi_document_lists_the_five_kinds_of_picture() {
    let service = Service::ready(&[]).await;
    let document: Value = service.get("/openapi.json").await.json().await.unwrap();
    let content = document["paths"]["/predict"]["post"]["requestBody"]["content"].as_object().unwrap();
    let mut media_types: Vec<_> = content.keys().map(String::as_str).collect();
    media_types.sort_unstable();
    let five = ["image/bmp", "image/jpeg", "image/png", "image/tiff", "image/webp"];
    assert_eq!(media_types[..5], five);
    assert_eq!(media_types[5..], ["multipart/form-data"]);
}

#[tokio::test]
async fn the_openapi_document_names_every_route() {
    let service = Service::ready(&[]).await;
    let document: Value = service.get("/openapi.json").await.json().await.unwrap();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths, ["/health", "/health/live", "/health/ready", "/info", "/metrics", "/predict"]);
    let responses = document["paths"]["/predict"]["post"]["responses"].as_object().unwrap();
    for status in ["200", "400", "413", "415", "422", "429", "503"] {
        assert!(responses.contains_key(status), "{status}");
    }
}
