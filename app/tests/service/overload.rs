//! More work than there is room for, and clients that keep it waiting.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::service::{DEADLINE, SAMPLE, Service, burst, error_code};

#[tokio::test]
async fn more_than_the_queue_holds_is_refused_and_health_stays_good() {
    let service = Arc::new(Service::ready(&[("QUEUE_SIZE", "2")]).await);
    let mut answers = burst(&service, 12);
    let (mut ok, mut refused) = (0, 0);
    while let Some(answer) = answers.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(service.get("/health").await.status(), 200);
        match answer.status().as_u16() {
            200 => ok += 1,
            429 => {
                assert_eq!(answer.headers()["retry-after"], "1");
                assert_eq!(error_code(answer).await, (429, "QUEUE_FULL".into()));
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(ok >= 2 && refused >= 1, "{ok} ok, {refused} refused");
    service.metric("inference_queue_depth", "0").await;
    service.metric("predictions_rejected_total{reason=\"QUEUE_FULL\"}", &refused.to_string()).await;
}

#[tokio::test]
async fn what_is_not_done_in_time_is_given_up() {
    let service =
        Arc::new(Service::ready(&[("REQUEST_TIMEOUT_SECONDS", "0.4"), ("MODEL_THREADS", "1")]).await);
    let mut given_up = 0;
    for answer in burst(&service, 30).join_all().await {
        if answer.status() == 503 {
            assert_eq!(answer.headers()["retry-after"], "1");
            assert_eq!(error_code(answer).await, (503, "DEADLINE_EXCEEDED".into()));
            given_up += 1;
        }
    }
    assert!(given_up > 0);
    service.metric("inference_queue_depth", "0").await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let service = Service::ready(&[("QUEUE_SIZE", "1")]).await;
    let mut socket = TcpStream::connect(service.address).await.unwrap();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nX-Request-ID: \
         gone\r\nContent-Length: {}\r\n\r\n",
        SAMPLE.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(SAMPLE).await.unwrap();
    drop(socket);
    let line = service.logged("request").await;
    assert_eq!((&line["request_id"], &line["status"]), (&"gone".into(), &499.into()));
    service.metric("inference_queue_depth", "0").await;
    assert_eq!(service.predict_sample().await.status(), 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let service = Service::ready(&[("REQUEST_TIMEOUT_SECONDS", "0.3")]).await;
    let mut socket = TcpStream::connect(service.address).await.unwrap();
    let head =
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\nsome";
    socket.write_all(head).await.unwrap();
    assert!(answer(&mut socket).await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn clients_that_send_slowly_cannot_fill_the_memory_or_the_queue() {
    let service = Service::ready(&[("QUEUE_SIZE", "1")]).await;
    let head =
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\nsome";
    let mut slow = vec![];
    for _ in 0..64 {
        let mut socket = TcpStream::connect(service.address).await.unwrap();
        socket.write_all(head).await.unwrap();
        slow.push(socket);
        // The last place is taken once it is seen in the metrics; before that the queue itself must be free.
        if slow.len() == 63 {
            service.metric("predictions_accepted", "63").await;
            assert_eq!(service.predict_sample().await.status(), 200);
        }
    }
    service.metric("predictions_accepted", "64").await;
    assert_eq!(error_code(service.predict_sample().await).await, (429, "QUEUE_FULL".into()));
    drop(slow);
    service.metric("predictions_accepted", "0").await;
    assert_eq!(service.predict_sample().await.status(), 200);
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_before_it_is_sent() {
    let service = Service::ready(&[]).await;
    let mut socket = TcpStream::connect(service.address).await.unwrap();
    let head =
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 99999999999\r\n\
                 Expect: 100-continue\r\n\r\n";
    socket.write_all(head).await.unwrap();
    let answer = answer(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("FILE_TOO_LARGE"), "{answer}");
}

/// What comes until the server closes, or a whole answer is there.
async fn answer(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut bytes = [0; 4096];
        let length = timeout(DEADLINE, socket.read(&mut bytes)).await.unwrap().unwrap();
        if length == 0 {
            break;
        }
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    text
}
