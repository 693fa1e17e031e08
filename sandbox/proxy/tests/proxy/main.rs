//! The proxy over real sockets: what reaches the pods, what the client gets, what the log says.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sandbox_connections::{Limits, Room};
use sandbox_proxy::route::{Backend, Location, PathKind, Settings, Table};
use sandbox_proxy::{AccessLog, Clients, Proxy, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(10);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("in time: {what}"))
}

struct Lines(mpsc::UnboundedSender<String>);
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(String::from_utf8(line.to_vec()).unwrap());
        Ok(line.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Ingress {
    entry: SocketAddr,
    lines: mpsc::UnboundedReceiver<String>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Ingress {
    /// Routes `app.local` to the endpoints.
    async fn start(endpoints: &[SocketAddr], settings: Settings) -> Ingress {
        Ingress::start_for(Clients::of_nginx(), endpoints, settings).await
    }

    async fn start_for(clients: Clients, endpoints: &[SocketAddr], settings: Settings) -> Ingress {
        let mut table = Table::default();
        let backend = Backend::new("n-web-http", endpoints.to_vec());
        let settings = Arc::new(settings);
        table.add("app.local", Location { path: "/".into(), kind: PathKind::Prefix, backend, settings });
        let (sender, routes) = watch::channel(Some(Arc::new(table)));
        let (lines_in, lines) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let entry = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let proxy = Proxy::new(routes, AccessLog::new(Lines(lines_in)));
        let stop = shutdown.clone();
        let served = tokio::spawn(async move {
            serve(listener, clients, proxy, stop, DEADLINE).await;
            drop(sender);
        });
        Ingress { entry, lines, shutdown, served }
    }

    async fn line(&mut self) -> String {
        soon("an access log line", self.lines.recv()).await.unwrap()
    }

    async fn ask(&self, request: &str) -> String {
        let mut client = Client::connect(self.entry).await;
        client.send(request).await;
        client.answer().await
    }
}

/// A client or pod end of a connection that reads one message at a time.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        Client { stream, read: Vec::new() }
    }
    async fn connect(address: SocketAddr) -> Client {
        Client::new(soon("connect", TcpStream::connect(address)).await.unwrap())
    }
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }
    /// A head and as much body as its Content-Length says; empty at the end of the stream.
    async fn answer(&mut self) -> String {
        soon("a whole message", async {
            loop {
                let text = String::from_utf8_lossy(&self.read).into_owned();
                if let Some(end) = text.find("\r\n\r\n") {
                    let length = text[..end].to_ascii_lowercase().lines().find_map(|line| {
                        line.strip_prefix("content-length:").map(|n| n.trim().parse::<usize>().unwrap())
                    });
                    let total = end + 4 + length.unwrap_or(0);
                    if self.read.len() >= total {
                        return String::from_utf8(self.read.drain(..total).collect()).unwrap();
                    }
                }
                if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                    return String::from_utf8(std::mem::take(&mut self.read)).unwrap();
                }
            }
        })
        .await
    }
}

/// A pod whose connections the test answers by hand.
struct Pod(TcpListener, SocketAddr);

impl Pod {
    async fn start() -> Pod {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Pod(listener, address)
    }
    async fn accept(&self) -> Client {
        Client::new(soon("a connection from the proxy", self.0.accept()).await.unwrap().0)
    }
    /// Whether another connection waits.
    fn is_asked(&self) -> bool {
        futures::FutureExt::now_or_never(self.0.accept()).is_some()
    }
}

/// An address at which nothing listens.
async fn refusing() -> SocketAddr {
    Pod::start().await.1
}

const GET: &str = "GET /x?q=1 HTTP/1.1\r\nHost: app.local\r\nX-Request-ID: my-id\r\nUser-Agent: t\r\n\r\n";
const POST: &str =
    "POST /predict HTTP/1.1\r\nHost: app.local\r\nX-Request-ID: my-id\r\nContent-Length: 4\r\n\r\nbody";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// The line with each duration, which varies, as `TIME`.
fn masked(line: &str) -> String {
    let is_time = |word: &str| {
        word.split_once('.').is_some_and(|(seconds, millis)| {
            millis.len() == 3 && [seconds, millis].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    let words = line.trim_end().split(' ').map(|word| match word.strip_suffix(',') {
        Some(word) if is_time(word) => "TIME,",
        _ if is_time(word) => "TIME",
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What follows the upstream's name, masked.
fn tail(line: &str) -> String {
    let tail = line.split_once(" [n-web-http] [] ").map_or(line, |(_, tail)| tail);
    masked(tail)
}

fn status(line: &str) -> &str {
    line.split('"').nth(2).unwrap().split_whitespace().next().unwrap()
}

#[tokio::test]
async fn a_request_is_passed_on_and_logged() {
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
    let serve = async {
        let mut seen = pod.accept().await;
        let request = seen.answer().await;
        seen.send(OK).await;
        (request, seen)
    };
    let (answer, (request, _kept)) = tokio::join!(ingress.ask(GET), serve);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(request.starts_with("GET /x?q=1 HTTP/1.1\r\n"), "{request}");
    for header in [
        "host: app.local",
        "x-request-id: my-id",
        "x-real-ip: 127.0.0.1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: app.local",
        "x-forwarded-proto: http",
        "x-forwarded-scheme: http",
    ] {
        assert!(request.lines().any(|line| line.eq_ignore_ascii_case(header)), "{header} in {request}");
    }
    let line = ingress.line().await;
    let (head, rest) = line.split_once(" [").unwrap();
    assert_eq!(head, "127.0.0.1 - -");
    let (time, rest) = rest.split_once("] ").unwrap();
    assert!(jiff::Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", time).is_ok(), "{time}");
    let expected = format!(
        "\"GET /x?q=1 HTTP/1.1\" 200 5 \"-\" \"t\" {} TIME [n-web-http] [] {} 5 TIME 200 my-id",
        GET.len(),
        pod.1
    );
    assert_eq!(masked(rest), expected);
}

#[tokio::test]
async fn a_request_without_id_gets_one_of_32_hex_digits() {
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
    let serve = async {
        let mut seen = pod.accept().await;
        let request = seen.answer().await;
        seen.send(OK).await;
        request
    };
    let (_, request) = tokio::join!(ingress.ask("GET / HTTP/1.1\r\nHost: app.local\r\n\r\n"), serve);
    let id = request.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_string();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert!(ingress.line().await.ends_with(&format!(" 200 {id}\n")));
}

#[tokio::test]
async fn an_unknown_host_is_404_and_no_endpoint_503() {
    let mut ingress = Ingress::start(&[], Settings::default()).await;
    let answer = ingress.ask("GET / HTTP/1.1\r\nHost: else.local\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: text/html") && answer.contains("<h1>404 Not Found</h1>"),
        "{answer}"
    );
    let line = ingress.line().await;
    assert!(line.contains(" [upstream-default-backend] [] - - - - "), "{line}");
    assert!(ingress.ask(GET).await.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    let line = ingress.line().await;
    assert_eq!((status(&line), tail(&line).as_str()), ("503", "- - - - my-id"));
}

#[tokio::test]
async fn what_nginx_refuses_reaches_no_pod() {
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: app.local\r\nHost: else.local\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: app.local\r\nHost: app.local\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: app.local/x\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: app.l\u{f6}cal\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("CONNECT app.local:443 HTTP/1.1\r\nHost: app.local\r\n\r\n", "405"),
        ("CONNECT / HTTP/1.1\r\nHost: app.local\r\n\r\n", "405"),
        ("TRACE / HTTP/1.1\r\nHost: app.local\r\n\r\n", "405"),
    ] {
        let answer = ingress.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{request} {answer}");
        let line = ingress.line().await;
        assert_eq!(status(&line), expected, "{request} {line}");
        assert!(line.contains(" [-] [] - - - - "), "{line}");
    }
    assert!(!pod.is_asked());
}

#[tokio::test]
async fn a_refused_connect_goes_to_the_next_pod_also_for_a_post() {
    let (gone, pod) = (refusing().await, Pod::start().await);
    let mut ingress = Ingress::start(&[gone, pod.1], Settings::default()).await;
    let serve = async {
        let mut seen = pod.accept().await;
        let request = seen.answer().await;
        seen.send(OK).await;
        (request, seen)
    };
    let (answer, (request, _kept)) = tokio::join!(ingress.ask(POST), serve);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(request.ends_with("\r\n\r\nbody"), "{request}");
    let line = ingress.line().await;
    assert_eq!(tail(&line), format!("{gone}, {} 0, 5 TIME, TIME 502, 200 my-id", pod.1));
}

#[tokio::test]
async fn connects_refused_on_all_tries_are_one_502() {
    let gone = refusing().await;
    let mut ingress = Ingress::start(&[gone], Settings::default()).await;
    assert!(ingress.ask(GET).await.starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
    let line = ingress.line().await;
    assert_eq!(tail(&line), format!("{gone}, {gone}, {gone} 0, 0, 0 TIME, TIME, TIME 502, 502, 502 my-id"));
}

#[tokio::test]
async fn a_post_that_was_sent_is_not_sent_again() {
    let (first, second) = (Pod::start().await, Pod::start().await);
    let mut ingress = Ingress::start(&[first.1, second.1], Settings::default()).await;
    let serve = async { first.accept().await.answer().await };
    let (answer, request) = tokio::join!(ingress.ask(POST), serve);
    assert!(request.ends_with("body"), "{request}");
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    let line = ingress.line().await;
    assert_eq!(tail(&line), format!("{} 0 TIME 502 my-id", first.1), "one try");
    assert!(!second.is_asked() && !first.is_asked());
}

#[tokio::test]
async fn a_get_that_was_dropped_is_sent_to_the_next_pod() {
    let (first, second) = (Pod::start().await, Pod::start().await);
    let mut ingress = Ingress::start(&[first.1, second.1], Settings::default()).await;
    let serve = async {
        drop(first.accept().await.answer().await);
        let mut seen = second.accept().await;
        seen.answer().await;
        seen.send(OK).await;
        seen
    };
    let (answer, _kept) = tokio::join!(ingress.ask(GET), serve);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let line = ingress.line().await;
    assert_eq!(tail(&line), format!("{}, {} 0, 5 TIME, TIME 502, 200 my-id", first.1, second.1));
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let pod = Pod::start().await;
    let ingress = Ingress::start(&[pod.1], Settings::default()).await;
    let mut client = Client::connect(ingress.entry).await;
    client.send(GET).await;
    let mut seen = pod.accept().await;
    for _ in 0..3 {
        seen.answer().await;
        seen.send(OK).await;
        assert!(client.answer().await.ends_with("hello"));
        client.send(POST).await;
    }
    seen.answer().await;
    assert!(!pod.is_asked(), "one connection was enough");
}

/// A pod that closes a kept connection just as the next request is written to it.
#[tokio::test]
async fn the_keep_alive_race_costs_a_post_and_not_a_get() {
    for (request, expected) in [(POST, "502"), (GET, "200")] {
        let pod = Pod::start().await;
        let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
        let mut client = Client::connect(ingress.entry).await;
        client.send(GET).await;
        let mut seen = pod.accept().await;
        seen.answer().await;
        seen.send(OK).await;
        client.answer().await;
        ingress.line().await;
        client.send(request).await;
        seen.answer().await;
        drop(seen); // read, and no answer
        if expected == "200" {
            let mut again = pod.accept().await;
            again.answer().await;
            again.send(OK).await;
        }
        client.answer().await;
        let line = ingress.line().await;
        assert_eq!(status(&line), expected, "{line}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_pod_closed_while_idle_is_not_used() {
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
    for _ in 0..3 {
        let serve = async {
            let mut seen = pod.accept().await;
            seen.answer().await;
            seen.send(OK).await;
        };
        let (answer, ()) = tokio::join!(ingress.ask(POST), serve);
        assert!(answer.ends_with("hello"), "{answer}");
        let line = ingress.line().await;
        assert!(tail(&line).starts_with(&format!("{} 5 ", pod.1)), "one try: {line}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_with_and_without_length() {
    let settings = Settings { body_limit_bytes: Some(3), ..Settings::default() };
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], settings).await;
    let chunked =
        "POST / HTTP/1.1\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    for request in [POST, chunked] {
        let answer = ingress.ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        let line = ingress.line().await;
        assert!(tail(&line).starts_with("- - - - "), "{line}");
    }
    assert!(!pod.is_asked());
}

#[tokio::test]
async fn bodies_are_buffered_with_their_length_or_streamed() {
    let chunked =
        "POST / HTTP/1.1\r\nHost: app.local\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    for (buffer_request, header) in [(true, "content-length: 4"), (false, "transfer-encoding: chunked")] {
        let pod = Pod::start().await;
        let settings = Settings { buffer_request, ..Settings::default() };
        let ingress = Ingress::start(&[refusing().await, pod.1], settings).await;
        let serve = async {
            let mut seen = pod.accept().await;
            let mut text = String::new();
            while !text.contains("body") {
                let mut part = [0; 512];
                let length = seen.stream.read(&mut part).await.unwrap();
                assert_ne!(length, 0, "{text}");
                text.push_str(&String::from_utf8_lossy(&part[..length]));
            }
            seen.send(OK).await;
            text
        };
        let (answer, text) = soon("an answer", async { tokio::join!(ingress.ask(chunked), serve) }).await;
        assert!(answer.ends_with("hello"), "{answer}");
        assert!(text.to_ascii_lowercase().contains(header), "{text}");
    }
}

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_body_that_stops_coming_is_408_also_while_it_is_streamed() {
    for buffer_request in [true, false] {
        let pod = Pod::start().await;
        let settings = Settings { body_timeout: SHORT, buffer_request, ..Settings::default() };
        let mut ingress = Ingress::start(&[pod.1], settings).await;
        let mut client = Client::connect(ingress.entry).await;
        client.send("POST / HTTP/1.1\r\nHost: app.local\r\nContent-Length: 100\r\n\r\nhalf").await;
        let answer = client.answer().await;
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        let line = ingress.line().await;
        assert_eq!(status(&line), "408", "{line}");
        assert_eq!(buffer_request, !pod.is_asked());
        if buffer_request {
            assert_eq!(client.answer().await, "", "the connection is closed");
        }
    }
}

#[tokio::test]
async fn a_head_that_stops_coming_is_logged_as_408_and_silence_is_closed() {
    let limits = Limits { head: SHORT, idle: 3 * SHORT };
    let clients = Clients { room: Room::new(9), limits };
    let pod = Pod::start().await;
    let mut ingress = Ingress::start_for(clients, &[pod.1], Settings::default()).await;
    let mut silent = Client::connect(ingress.entry).await;
    let mut half = Client::connect(ingress.entry).await;
    half.send("GET / HTTP/1.1\r\nHost: app.lo").await;
    assert_eq!((half.answer().await, silent.answer().await), (String::new(), String::new()));
    let line = ingress.line().await;
    assert!(line.contains("] \"\" 408 0 \"-\" \"-\" "), "{line}");

    let mut kept = Client::connect(ingress.entry).await;
    kept.send(GET).await;
    let mut seen = pod.accept().await;
    seen.answer().await;
    tokio::time::sleep(2 * limits.idle).await; // however slow the pod is
    seen.send(OK).await;
    assert!(kept.answer().await.ends_with("hello"));
    assert_eq!(kept.answer().await, "", "closed after a while without a request");
}

#[tokio::test]
async fn where_there_is_no_room_who_has_waited_longest_goes() {
    let clients = Clients { room: Room::new(2), ..Clients::of_nginx() };
    let pod = Pod::start().await;
    let ingress = Ingress::start_for(clients, &[pod.1], Settings::default()).await;
    let mut under_way = Client::connect(ingress.entry).await;
    under_way.send(GET).await;
    let mut seen = pod.accept().await;
    seen.answer().await;
    let mut silent = Client::connect(ingress.entry).await;
    for _ in 0..20 {
        let answer = ingress.ask("GET / HTTP/1.1\r\nHost: else.local\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    assert_eq!(silent.answer().await, "");
    seen.send(OK).await;
    assert!(under_way.answer().await.ends_with("hello"));
}

#[tokio::test]
async fn silence_of_the_pod_is_504() {
    let pod = Pod::start().await;
    let settings = Settings { read_timeout: Duration::from_millis(50), ..Settings::default() };
    let mut ingress = Ingress::start(&[pod.1], settings).await;
    let serve = async {
        let mut seen = pod.accept().await;
        seen.answer().await;
        seen
    };
    let (answer, _open) = tokio::join!(ingress.ask(POST), serve);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let line = ingress.line().await;
    assert_eq!(tail(&line), format!("{} 0 TIME 504 my-id", pod.1));
    assert!(!pod.is_asked(), "a POST is not sent again");
}

#[tokio::test]
async fn a_client_that_leaves_is_499() {
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
    let mut client = Client::connect(ingress.entry).await;
    client.send(POST).await;
    let mut seen = pod.accept().await;
    seen.answer().await;
    drop(client);
    let line = ingress.line().await;
    assert_eq!(status(&line), "499");
    assert_eq!(tail(&line), format!("{} 0 TIME - my-id", pod.1));
    assert_eq!(seen.answer().await, "", "the pod's connection is closed, too");
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_is_400_and_asks_no_pod() {
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
    let mut client = Client::connect(ingress.entry).await;
    client.send("POST / HTTP/1.1\r\nHost: app.local\r\nContent-Length: 100\r\n\r\nhalf").await;
    drop(client);
    let line = ingress.line().await;
    assert_eq!(status(&line), "400", "{line}");
    assert!(!pod.is_asked());
}

#[tokio::test]
async fn an_answer_cut_off_by_the_pod_is_cut_off_for_the_client() {
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
    let serve = async {
        let mut seen = pod.accept().await;
        seen.answer().await;
        seen.send("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello").await;
    };
    let (answer, ()) = tokio::join!(ingress.ask(GET), serve);
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    let line = ingress.line().await;
    assert_eq!(status(&line), "200");
    assert!(line.contains("\" 200 5 \""), "{line}");
}

#[tokio::test]
async fn requests_under_way_finish_after_the_end_was_asked_for() {
    let pod = Pod::start().await;
    let mut ingress = Ingress::start(&[pod.1], Settings::default()).await;
    let mut client = Client::connect(ingress.entry).await;
    client.send(GET).await;
    let mut seen = pod.accept().await;
    seen.answer().await;
    ingress.shutdown.cancel();
    soon("no new connections", async {
        while TcpStream::connect(ingress.entry).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    seen.send(OK).await;
    assert!(client.answer().await.ends_with("hello"));
    soon("the end", &mut ingress.served).await.unwrap();
    assert_eq!(status(&ingress.line().await), "200");
}
