//! The generator against real sockets: what it counts, and from when it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use xtask_load::client::Target;
use xtask_load::run::{self, Finished, Plan};
use xtask_load::schedule::{Pace, Schedule};
use xtask_load::tally::{Book, Buckets};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that hands each request, by its number, to `answer`.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// What to do with a request.
#[derive(Clone, Copy)]
enum Answer {
    Say(&'static [u8]),
    Hang,
    /// The same, for ever.
    Flood(&'static [u8]),
    Close,
    /// Nobody is answered before that moment.
    StallUntil(Instant),
}

impl Server {
    async fn start(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let (answer, requests) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                tokio::spawn(async move {
                    let mut stream = stream;
                    while request(&mut stream).await {
                        match answer(requests.fetch_add(1, Ordering::SeqCst)) {
                            Answer::Say(text) => stream.write_all(text).await.expect("writing"),
                            Answer::Close => return,
                            Answer::Hang => std::future::pending().await,
                            Answer::Flood(text) => {
                                let text = text.repeat(1000);
                                while stream.write_all(&text).await.is_ok() {}
                                return;
                            }
                            Answer::StallUntil(moment) => {
                                tokio::time::sleep_until(moment.into()).await;
                                stream.write_all(OK).await.expect("writing");
                            }
                        }
                    }
                });
            }
        });
        Server { address, connections }
    }

    async fn run(&self, plan: Plan) -> (Finished, Arc<Book>) {
        self.run_until(plan, CancellationToken::new()).await
    }

    async fn run_until(&self, plan: Plan, stop: CancellationToken) -> (Finished, Arc<Book>) {
        let entry = format!("http://{}", self.address);
        let target = Target::get(&entry, "app.local", "/health").await.expect("a target");
        let book = Arc::new(Book::open(None).expect("a book"));
        let finished = run::run(target, plan, Arc::clone(&book), stop, Instant::now()).await.expect("a run");
        (finished, book)
    }
}

/// Reads one request without a body; false when the client left.
async fn request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0; 512];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(0) | Err(_) => return false,
            Ok(n) => head.extend_from_slice(&byte[..n]),
        }
    }
    true
}

fn closed(requests: u64, concurrency: usize) -> Plan {
    let schedule = Schedule { pace: Pace::Closed, requests: Some(requests), duration: None };
    Plan { schedule, concurrency, request_timeout: Duration::from_secs(10) }
}

fn open(rate: f64, duration: Duration, concurrency: usize) -> Plan {
    let pace = Pace::Open { rate, ramp_up: Duration::ZERO, ramp_down: Duration::ZERO };
    let schedule = Schedule { pace, requests: None, duration: Some(duration) };
    Plan { schedule, concurrency, request_timeout: Duration::from_secs(10) }
}

#[tokio::test]
async fn a_closed_loop_sends_exactly_what_is_asked_over_kept_connections() {
    let server = Server::start(|_| Answer::Say(OK)).await;
    let (finished, book) = server.run(closed(500, 10)).await;
    assert_eq!(finished.scheduled, 500);
    assert_eq!(book.tally().buckets, Buckets { ok: 500, ..Buckets::default() });
    let connections = server.connections.load(Ordering::SeqCst);
    assert!((1..=10).contains(&connections), "{connections} connections");
}

#[tokio::test]
async fn an_open_loop_uses_idle_connections_before_it_makes_new_ones() {
    let server = Server::start(|_| Answer::Say(OK)).await;
    let (_, book) = server.run(open(50.0, Duration::from_secs(1), 50)).await;
    assert_eq!(book.tally().buckets, Buckets { ok: 50, ..Buckets::default() });
    // One for each thread, and some for answers that were late.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let connections = server.connections.load(Ordering::SeqCst);
    assert!(connections <= threads + 8, "{connections} connections");
}

#[tokio::test]
async fn each_kind_of_end_has_its_bucket() {
    let server = Server::start(|n| match n % 5 {
        0 => Answer::Say(OK),
        1 => Answer::Say(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad"),
        2 => Answer::Close,
        3 => Answer::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhalf"),
        _ => Answer::Hang,
    })
    .await;
    let plan = Plan { request_timeout: Duration::from_millis(300), ..closed(50, 5) };
    // `half` hangs as well: the rest of the body never comes.
    let (finished, book) = server.run(plan).await;
    let tally = book.tally();
    assert_eq!(
        tally.buckets,
        Buckets { ok: 10, http_error: 10, socket_error: 10, timeout: 20, ..Buckets::default() }
    );
    assert_eq!((finished.scheduled, tally.buckets.sum()), (50, 50));
    assert_eq!(tally.errors["502"], 10);
    let bad = tally.failures.iter().find(|failure| failure.status == Some(502)).expect("a 502");
    assert_eq!((bad.error.as_deref(), bad.id.len()), (Some("bad"), 32));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_stops_talking_is_given_up_in_time() {
    let floods: [&[u8]; 2] = [
        b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ];
    for flood in floods {
        let server = Server::start(move |_| Answer::Flood(flood)).await;
        let plan = Plan { request_timeout: Duration::from_millis(300), ..closed(4, 2) };
        let run = tokio::time::timeout(Duration::from_secs(20), server.run(plan));
        let (finished, book) = run.await.expect("an end");
        let buckets = book.tally().buckets;
        assert_eq!(buckets.timeout + buckets.socket_error, 4, "{buckets:?}");
        assert!(finished.took < Duration::from_secs(5), "{:?}", finished.took);
    }
}

#[tokio::test]
async fn a_stall_shows_in_the_latency_from_the_due_time() {
    let began = Instant::now();
    let (from, until) = (began + Duration::from_millis(500), began + Duration::from_millis(1500));
    let server = Server::start(move |_| {
        let now = Instant::now();
        if now >= from && now < until { Answer::StallUntil(until) } else { Answer::Say(OK) }
    })
    .await;
    let (finished, book) = server.run(open(200.0, Duration::from_secs(2), 4)).await;
    let tally = book.tally();
    let (due, sent) = (tally.from_due().expect("answers"), tally.from_sent().expect("answers"));
    let lag = tally.lag();
    assert_eq!((finished.scheduled, tally.buckets.ok), (400, 400));
    assert!(due.p99 >= 900.0, "the stall is one second: {due:?}");
    // Half of all were due in the stall; four were under way.
    assert!(due.p90 >= 500.0 && sent.p90 < 300.0, "due {due:?}\nsent {sent:?}");
    // The generator itself was not late: its senders were busy.
    assert!(lag.p50 < 100.0, "{lag:?}");
}

#[tokio::test]
async fn what_no_sender_was_free_for_is_dropped_or_unsent_and_the_sum_holds() {
    let server = Server::start(|_| Answer::Hang).await;
    let plan = Plan { request_timeout: Duration::from_millis(250), ..open(100.0, Duration::from_secs(1), 2) };
    let (finished, book) = server.run(plan).await;
    let buckets = book.tally().buckets;
    assert_eq!((finished.scheduled, buckets.sum()), (100, 100));
    assert!(buckets.timeout >= 2 && buckets.dropped > 0 && buckets.unsent > 0, "{buckets:?}");
    assert_eq!(buckets.ok, 0);
}

#[tokio::test]
async fn nobody_there_is_a_socket_error_in_the_systems_words() {
    let server = Server::start(|_| Answer::Hang).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = Server { address: listener.local_addr().expect("an address"), ..server };
    drop(listener);
    let (_, book) = gone.run(closed(20, 2)).await;
    assert_eq!(book.tally().buckets.socket_error, 20);
    assert_eq!(book.tally().errors.keys().collect::<Vec<_>>(), ["Connection refused"]);
}

#[tokio::test]
async fn a_stop_ends_it_with_balanced_books() {
    let stop = CancellationToken::new();
    let (stopping, after) = (stop.clone(), 20);
    let server = Server::start(move |n| {
        if n == after {
            stopping.cancel();
        }
        Answer::Say(OK)
    })
    .await;
    let (finished, book) = server.run_until(open(100.0, Duration::from_secs(60), 8), stop).await;
    let buckets = book.tally().buckets;
    // What was not due yet when it was stopped is nothing that failed.
    assert_eq!((finished.scheduled, finished.stopped), (buckets.sum(), true));
    assert!(buckets.ok >= 20 && buckets.failed() < 20 && finished.scheduled < 1000, "{buckets:?}");
    assert!(finished.took < Duration::from_secs(10));
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_request() {
    // Answers once per connection, then closes it behind our back.
    let server = Server::start(|_| Answer::Say(OK)).await;
    let closing = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = closing.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = closing.accept().await {
            if request(&mut stream).await {
                let _ = stream.write_all(OK).await;
            }
        }
    });
    let (_, book) = Server { address, ..server }.run(open(20.0, Duration::from_secs(1), 4)).await;
    assert_eq!(book.tally().buckets, Buckets { ok: 20, ..Buckets::default() });
}

#[tokio::test]
async fn a_stop_leaves_what_was_due_and_not_sent_in_the_books() {
    let stop = CancellationToken::new();
    let (stopping, began) = (stop.clone(), Instant::now());
    let server = Server::start(move |_| {
        // The one sender waits for its answer while more and more is due.
        let stopping = stopping.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until((began + Duration::from_millis(500)).into()).await;
            stopping.cancel();
        });
        Answer::Hang
    })
    .await;
    let plan = Plan { request_timeout: Duration::from_secs(1), ..open(100.0, Duration::from_secs(60), 1) };
    let (finished, book) = server.run_until(plan, stop).await;
    let buckets = book.tally().buckets;
    assert_eq!(finished.scheduled, buckets.sum());
    assert!((20..200).contains(&buckets.unsent), "{buckets:?}");
}
