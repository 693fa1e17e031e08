//! What the tests run in containers: an HTTP server on `HOST:PORT` that does what it is asked.
//!
//! `GET /health` answers the status it was set to; `/health/STATUS` sets it; `/exit/CODE` ends the process;
//! `/print/TEXT` prints a line; `/eat/MIB` takes memory; `/env/NAME` answers a variable; `/hang` never answers.
//! Environment: `HEALTH` the first status (200), `LISTEN_AFTER_MS`, `HEALTHY_AFTER_MS`. With the argument `leash` it is
//! a leash's watcher instead.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

static HEALTH: AtomicU16 = AtomicU16::new(200);
static EATEN: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("leash") {
        return leash::watch_stdin();
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let start = Instant::now();
    HEALTH.store(number("HEALTH").and_then(|n| u16::try_from(n).ok()).unwrap_or(200), Ordering::Relaxed);
    let healthy_from = start + Duration::from_millis(number("HEALTHY_AFTER_MS").unwrap_or(0));
    std::thread::sleep(Duration::from_millis(number("LISTEN_AFTER_MS").unwrap_or(0)));
    let host = std::env::var("HOST")?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "8000".to_owned());
    let listener = TcpListener::bind(format!("{host}:{port}"))?;
    say("listening")?;
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(&stream, healthy_from));
    }
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

fn answer(mut stream: &TcpStream, healthy_from: Instant) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut agent = String::new();
    for line in lines.by_ref() {
        let line = line?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("user-agent: ") {
            agent = value.to_owned();
        }
        if line.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let words: Vec<&str> = path.trim_start_matches('/').splitn(2, '/').collect();
    let (status, body) = match words[..] {
        ["health"] if Instant::now() < healthy_from => (503, agent),
        ["health"] => (HEALTH.load(Ordering::Relaxed), agent),
        ["health", status] => {
            HEALTH.store(status.parse().unwrap_or(500), Ordering::Relaxed);
            (200, String::new())
        }
        ["print", text] => {
            say(text)?;
            (200, String::new())
        }
        ["env", name] => (200, std::env::var(name).unwrap_or_else(|_| "(unset)".to_owned())),
        ["eat", mib] => {
            // Written to, or it would not be resident.
            let memory = vec![1; mib.parse::<usize>().unwrap_or(0) << 20];
            EATEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(memory);
            (200, String::new())
        }
        ["exit", code] => std::process::exit(code.parse().unwrap_or(1)),
        ["hang"] => loop {
            std::thread::park();
        },
        _ => (404, String::new()),
    };
    write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}
