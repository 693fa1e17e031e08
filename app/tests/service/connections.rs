//! Clients that open connections and keep us waiting.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::service::{DEADLINE, HEALTHY, SAMPLE, Service, command, model_dir};

const HALF_A_HEAD: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Half: ";
const HALF_A_BODY: &[u8] =
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\nsome";
const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

async fn open(service: &Service, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(service.address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    socket
}

/// What comes until the server closes.
async fn rest(socket: &mut TcpStream) -> String {
    let mut bytes = vec![];
    // A reset is an end too: what was sent had not been read.
    let _ = timeout(DEADLINE, socket.read_to_end(&mut bytes)).await.expect("the server never closed it");
    String::from_utf8(bytes).unwrap()
}

async fn answer(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut bytes = [0; 4096];
        let length = timeout(DEADLINE, socket.read(&mut bytes)).await.unwrap().unwrap();
        assert!(length > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    text
}

/// A probe: a connection of its own, as the kubelet makes it.
async fn probe(service: &Service) {
    let mut socket = open(service, HEALTH).await;
    assert!(answer(&mut socket).await.ends_with(HEALTHY));
}

#[tokio::test]
async fn a_connection_that_sends_nothing_ends_with_the_keep_alive() {
    let service = Service::ready(&[("KEEP_ALIVE_SECONDS", "0.5"), ("HEADER_TIMEOUT_SECONDS", "30")]).await;
    let start = Instant::now();
    let (mut silent, mut used) = (open(&service, b"").await, open(&service, HEALTH).await);
    answer(&mut used).await;
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(rest(&mut used).await, "");
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn half_a_head_ends_with_its_own_shorter_time_however_it_trickles() {
    let service = Service::ready(&[("KEEP_ALIVE_SECONDS", "600"), ("HEADER_TIMEOUT_SECONDS", "0.5")]).await;
    let start = Instant::now();
    let mut half = open(&service, HALF_A_HEAD).await;
    let (mut reader, mut writer) = half.split();
    let trickle = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            if writer.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut bytes = vec![];
    let closed = async {
        tokio::select! {
            closed = reader.read_to_end(&mut bytes) => closed,
            () = trickle => unreachable!(),
        }
    };
    let _ = timeout(DEADLINE, closed).await.expect("the server never closed it");
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());

    // The second request of a connection as the first.
    let mut used = open(&service, HEALTH).await;
    answer(&mut used).await;
    used.write_all(HALF_A_HEAD).await.unwrap();
    assert_eq!(rest(&mut used).await, "");
    // One that waits between two requests is given the longer time.
    let mut idle = open(&service, HEALTH).await;
    answer(&mut idle).await;
    let mut half = open(&service, HALF_A_HEAD).await;
    assert_eq!(rest(&mut half).await, "");
    idle.write_all(HEALTH).await.unwrap();
    assert!(answer(&mut idle).await.ends_with(HEALTHY));
}

#[tokio::test]
async fn half_a_body_is_answered_and_closed() {
    let service = Service::ready(&[("REQUEST_TIMEOUT_SECONDS", "0.3")]).await;
    let mut half = open(&service, HALF_A_BODY).await;
    let text = rest(&mut half).await;
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("did not arrive within 0.3 s"), "{text}");
}

#[tokio::test]
async fn probes_get_in_however_many_connections_keep_us_waiting() {
    let service = Service::ready(&[("MAX_CONNECTIONS", "8"), ("REQUEST_TIMEOUT_SECONDS", "600")]).await;
    for bytes in [b"", HALF_A_HEAD, HALF_A_BODY] {
        let mut waiting = vec![];
        for _ in 0..20 {
            waiting.push(open(&service, bytes).await);
            probe(&service).await;
        }
        // The longest waiting had to go, and the last ones are still there.
        for socket in &mut waiting[..8] {
            assert_eq!(rest(socket).await, "");
        }
        let mut last = waiting.pop().unwrap();
        assert!(timeout(Duration::from_millis(50), last.read_u8()).await.is_err(), "closed");
    }
}

#[tokio::test]
async fn a_request_that_is_here_whole_is_answered_whoever_comes() {
    const REQUESTS: usize = 12;
    let env = [("MAX_CONNECTIONS", "16"), ("MODEL_THREADS", "1"), ("REQUEST_TIMEOUT_SECONDS", "300")];
    let service = Service::ready(&env).await;
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        SAMPLE.len()
    );
    let mut sockets = vec![];
    for _ in 0..REQUESTS {
        sockets.push(open(&service, &[head.as_bytes(), SAMPLE].concat()).await);
    }
    service.metric("inference_queue_depth", &REQUESTS.to_string()).await;
    let mut silent = vec![];
    for _ in 0..100 {
        silent.push(open(&service, b"").await);
    }
    probe(&service).await;
    for socket in &mut sockets {
        let text = answer(socket).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_no_limit_of_connections() {
    let mut shell = tokio::process::Command::new("sh");
    let plain = command(&model_dir(), &[]);
    let plain = plain.as_std();
    shell
        .args(["-c", "ulimit -S -n 64 && exec \"$0\""])
        .arg(plain.get_program())
        .env_clear()
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true);
    let service = Service::launch(shell).await;
    service.logged("ready").await;
    let mut sockets = vec![];
    for _ in 0..300 {
        sockets.push(open(&service, HEALTH).await);
    }
    // All at once: each is still open after the last was answered.
    for socket in &mut sockets {
        assert!(answer(socket).await.ends_with(HEALTHY));
    }
    for socket in &mut sockets {
        socket.write_all(HEALTH).await.unwrap();
        assert!(answer(socket).await.ends_with(HEALTHY));
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let service = Service::ready(&[]).await;
    let long = [HALF_A_HEAD, &vec![b'x'; 17 * 1024], b"\r\n\r\n"].concat();
    let mut socket = open(&service, &long).await;
    let text = rest(&mut socket).await;
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
    probe(&service).await;
}

#[tokio::test]
async fn a_request_for_two_hosts_is_refused() {
    let service = Service::ready(&[]).await;
    let twice = b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n";
    let mut socket = open(&service, twice).await;
    let text = answer(&mut socket).await;
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("AMBIGUOUS_HOST"), "{text}");
}
