//! The access log: one line a request, in the format that ingress-nginx calls `upstreaminfo`.
//!
//! ```text
//! $remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
//! $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr
//! $upstream_response_length $upstream_response_time $upstream_status $req_id
//! ```

use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Lines that wait for a reader of the log that is slow. What there is no room for is lost, counted and reported.
const MOST_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Where lines go. They are written by a thread of their own, so that a slow reader of the log never holds up the
/// proxy; each line is flushed when it is written.
#[derive(Clone)]
pub struct AccessLog {
    lines: mpsc::Sender<Message>,
    waiting: Arc<Waiting>,
}

/// What has not been written yet.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    /// Lines that were lost and not yet reported.
    lost: AtomicU64,
}

enum Message {
    Line(String),
    Flush(mpsc::Sender<()>),
}

impl AccessLog {
    /// Writes to `sink` until the last clone is dropped. A sink that fails is given up on in silence: a proxy whose
    /// log nobody reads any more still serves.
    pub fn new(mut sink: impl Write + Send + 'static) -> AccessLog {
        let (lines, received) = mpsc::channel();
        let waiting = Arc::<Waiting>::default();
        let room = Arc::clone(&waiting);
        std::thread::spawn(move || {
            while let Ok(message) = received.recv() {
                match message {
                    Message::Line(line) => {
                        let _ = sink.write_all(line.as_bytes()).and_then(|()| sink.flush());
                        room.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    }
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        });
        AccessLog { lines, waiting }
    }

    /// Waits until every line handed in so far is written. At most one second: the reader may be gone.
    pub fn flush(&self) {
        let (done, written) = mpsc::channel();
        if self.lines.send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(Duration::from_secs(1));
        }
    }

    fn write(&self, mut line: String) {
        let Waiting { bytes, lost } = &*self.waiting;
        if bytes.load(Ordering::Relaxed) > MOST_WAITING_BYTES {
            lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let notice =
                format!("{missing} lines of the access log are missing here: it was not read in time\n");
            line.insert_str(0, &notice);
        }
        bytes.fetch_add(line.len(), Ordering::Relaxed);
        let _ = self.lines.send(Message::Line(line));
    }
}

/// One try at one upstream.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) address: SocketAddr,
    /// The pod's status, or the one the proxy gives the failure (502, 504). None: no answer when the client left.
    pub(crate) status: Option<u16>,
    pub(crate) response_bytes: u64,
    pub(crate) started: Instant,
    pub(crate) took: Option<Duration>,
}

impl Attempt {
    pub(crate) fn start(address: SocketAddr) -> Attempt {
        Attempt { address, status: None, response_bytes: 0, started: Instant::now(), took: None }
    }

    pub(crate) fn fail(&mut self, status: u16) {
        self.status = Some(status);
        self.took = Some(self.started.elapsed());
    }
}

/// What is known of a request so far. Dropping it writes the line, so that a request whose client left, which ends by
/// its future being dropped, is logged like any other.
pub(crate) struct Record {
    pub(crate) log: AccessLog,
    pub(crate) remote: IpAddr,
    /// `GET /path HTTP/1.1`
    pub(crate) request: String,
    /// The answer's status; until there is one, the status to log if the client leaves now.
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    pub(crate) referer: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) request_bytes: u64,
    pub(crate) started: Instant,
    /// `namespace-service-port`, as ingress-nginx names an upstream.
    pub(crate) upstream: String,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) request_id: String,
}

impl Record {
    pub(crate) fn attempt(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut()
    }

    fn line(&self, now: jiff::Timestamp) -> String {
        let mut line = String::with_capacity(320);
        let time = now.strftime("%d/%b/%Y:%H:%M:%S +0000");
        let _ = write!(line, "{} - - [{time}] \"", self.remote);
        escape(&mut line, &self.request);
        let _ = write!(line, "\" {} {} \"", self.status, self.body_bytes);
        escape(&mut line, self.referer.as_deref().unwrap_or("-"));
        line.push_str("\" \"");
        escape(&mut line, self.user_agent.as_deref().unwrap_or("-"));
        let _ = write!(line, "\" {} {} [", self.request_bytes, seconds(self.started.elapsed()));
        escape(&mut line, &self.upstream);
        line.push_str("] [] ");
        list(&mut line, &self.attempts, |a| a.address.to_string());
        list(&mut line, &self.attempts, |a| a.response_bytes.to_string());
        list(&mut line, &self.attempts, |a| seconds(a.took.unwrap_or_else(|| a.started.elapsed())));
        list(&mut line, &self.attempts, |a| a.status.map_or_else(|| "-".to_string(), |s| s.to_string()));
        escape(&mut line, &self.request_id);
        line.push('\n');
        line
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.log.write(self.line(jiff::Timestamp::now()));
    }
}

/// Appends one value an attempt, separated as nginx separates them, and a space.
fn list(line: &mut String, attempts: &[Attempt], value: impl Fn(&Attempt) -> String) {
    if attempts.is_empty() {
        line.push('-');
    }
    for (index, attempt) in attempts.iter().enumerate() {
        if index > 0 {
            line.push_str(", ");
        }
        line.push_str(&value(attempt));
    }
    line.push(' ');
}

fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// Quotes, backslashes, control characters and everything beyond ASCII become `\xHH`, so that no request can forge a
/// line or a field.
fn escape(line: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => drop(write!(line, "\\x{byte:02X}")),
            _ => line.push(char::from(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            log: AccessLog::new(std::io::sink()),
            remote: "127.0.0.1".parse().unwrap(),
            request: "GET /a\"b HTTP/1.1".into(),
            status: 502,
            body_bytes: 137,
            referer: None,
            user_agent: Some("k\u{e9}\n".into()),
            request_bytes: 90,
            started: Instant::now(),
            upstream: "default-web-http".into(),
            attempts: Vec::new(),
            request_id: "abc".into(),
        }
    }

    /// Takes nothing until it is let.
    struct Stuck {
        let_go: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.let_go.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_is_bounded_and_says_what_it_lost() {
        let (go, let_go) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let log = AccessLog::new(Stuck { let_go, written });
        let line = format!("{}\n", "x".repeat(MOST_WAITING_BYTES / 8));
        for _ in 0..20 {
            log.write(line.clone());
        }
        let kept = MOST_WAITING_BYTES.div_ceil(line.len());
        assert_eq!(log.waiting.bytes.load(Ordering::Relaxed), kept * line.len());
        drop(go);
        let patience = Duration::from_secs(10);
        for number in 0..kept {
            assert_eq!(lines.recv_timeout(patience).map(|line| line.len()), Ok(line.len()), "{number}");
        }
        log.flush();
        log.write("y\n".to_owned());
        let notice =
            format!("{} lines of the access log are missing here: it was not read in time\ny\n", 20 - kept);
        assert_eq!(lines.recv_timeout(patience), Ok(notice.into_bytes()));
    }

    #[test]
    fn without_an_upstream_its_fields_are_dashes_and_text_is_escaped() {
        let at: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let line = record().line(at);
        assert_eq!(
            line,
            "127.0.0.1 - - [02/Jan/2026:03:04:05 +0000] \"GET /a\\x22b HTTP/1.1\" 502 137 \"-\" \
             \"k\\xC3\\xA9\\x0A\" 90 0.000 [default-web-http] [] - - - - abc\n"
        );
    }

    #[test]
    fn attempts_are_listed_in_order() {
        let mut record = record();
        for (address, status, took) in
            [("127.0.0.2:1", Some(502), 0), ("127.0.0.3:1", Some(504), 1500), ("127.0.0.4:1", None, 7)]
        {
            record.attempts.push(Attempt {
                address: address.parse().unwrap(),
                status,
                response_bytes: took,
                started: Instant::now(),
                took: Some(Duration::from_millis(took)),
            });
        }
        let line = record.line(jiff::Timestamp::UNIX_EPOCH);
        let tail = "127.0.0.2:1, 127.0.0.3:1, 127.0.0.4:1 0, 1500, 7 0.000, 1.500, 0.007 502, 504, - abc\n";
        assert!(line.ends_with(tail), "{line}");
    }
}
