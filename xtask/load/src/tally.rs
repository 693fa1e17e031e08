//! The books of a run: each scheduled request in exactly one bucket, and where the time went.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::Add;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::record::{Outcome, Record};

/// Longer waits than an hour are counted as an hour.
const LONGEST_US: u64 = 3_600_000_000;
/// A record of a success is shorter.
const USUAL_RECORD_BYTES: usize = 256;
/// Failed requests that are kept in memory with all their fields; the file has the others.
const MOST_FAILURES: usize = 10_000;

/// How the scheduled requests ended; the buckets add up to what was scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// Complete answers, 200 to 299.
    pub ok: u64,
    /// Complete answers with any other status.
    pub http_error: u64,
    /// No answer, or half of one.
    pub socket_error: u64,
    /// None in time.
    pub timeout: u64,
    /// Due while every sender was busy, and given up.
    pub dropped: u64,
    /// Not sent before the end.
    pub unsent: u64,
}

impl Buckets {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.ok + self.failed()
    }

    /// All but the successes.
    pub fn failed(&self) -> u64 {
        self.http_error + self.socket_error + self.timeout + self.dropped + self.unsent
    }

    /// Counts one more.
    pub fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::HttpError => &mut self.http_error,
            Outcome::SocketError => &mut self.socket_error,
            Outcome::Timeout => &mut self.timeout,
            Outcome::Dropped => &mut self.dropped,
            Outcome::Unsent => &mut self.unsent,
        } += 1;
    }
}

impl Add for Buckets {
    type Output = Buckets;

    fn add(self, more: Buckets) -> Buckets {
        Buckets {
            ok: self.ok + more.ok,
            http_error: self.http_error + more.http_error,
            socket_error: self.socket_error + more.socket_error,
            timeout: self.timeout + more.timeout,
            dropped: self.dropped + more.dropped,
            unsent: self.unsent + more.unsent,
        }
    }
}

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The least.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// Half are below.
    pub p50: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 95 % are below.
    pub p95: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The most.
    pub max: f64,
}

/// What is counted while a run goes on, in memory that does not grow with it.
pub struct Tally {
    /// How requests ended.
    pub buckets: Buckets,
    /// How many failed in which way: `502`, `timeout`, or the socket's error.
    pub errors: BTreeMap<String, u64>,
    /// The first failures, whole.
    pub failures: Vec<Record>,
    /// Requests that the generator's own machine could not send; see [`Record::is_own_limit`].
    pub own_limit: u64,
    due: Histogram<u64>,
    sent: Histogram<u64>,
    lag: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Tally> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).context("making a histogram");
        Ok(Tally {
            buckets: Buckets::default(),
            errors: BTreeMap::new(),
            failures: Vec::new(),
            own_limit: 0,
            due: histogram()?,
            sent: histogram()?,
            lag: histogram()?,
        })
    }

    /// From the moment a request was due; successes and, with the time waited, timeouts. Quick errors would flatter.
    /// Nothing where there was none.
    pub fn from_due(&self) -> Option<Latency> {
        latency(&self.due)
    }

    /// From the moment it was sent; nothing where there was none.
    pub fn from_sent(&self) -> Option<Latency> {
        latency(&self.sent)
    }

    /// How much later requests were sent than they could have been.
    pub fn lag(&self) -> Latency {
        latency(&self.lag).unwrap_or_default()
    }

    /// p50 and p99 of [`Tally::from_due`], in milliseconds: quick to have while the run goes on.
    pub fn so_far(&self) -> Option<(f64, f64)> {
        let at = |quantile| ms(self.due.value_at_quantile(quantile) as f64);
        (!self.due.is_empty()).then(|| (at(0.5), at(0.99)))
    }

    fn take(&mut self, record: &Record) {
        self.buckets.count(record.outcome);
        if let (Outcome::Ok | Outcome::Timeout, Some(sent)) = (record.outcome, record.sent_us) {
            self.due.saturating_record(record.end_us.saturating_sub(record.due_us).max(1));
            self.sent.saturating_record(record.end_us.saturating_sub(sent).max(1));
        }
        if record.is_failure() {
            *self.errors.entry(error_code(record)).or_default() += 1;
            self.own_limit += u64::from(record.is_own_limit());
            if self.failures.len() < MOST_FAILURES {
                self.failures.push(record.clone());
            }
        }
    }
}

/// The failure in one word or two, to be counted by.
pub fn error_code(record: &Record) -> String {
    match (record.outcome, record.status) {
        (Outcome::HttpError, Some(status)) => status.to_string(),
        (Outcome::SocketError, _) => {
            let error = record.error.as_deref().unwrap_or("socket error");
            // `Connection refused (os error 111)`: the number differs between systems.
            error.split(" (os error").next().unwrap_or(error).to_owned()
        }
        (outcome, _) => json!(outcome).as_str().unwrap_or_default().to_owned(),
    }
}

/// Milliseconds; less than a tenth is noise.
fn ms(us: f64) -> f64 {
    (us / 100.0).round() / 10.0
}

fn latency(histogram: &Histogram<u64>) -> Option<Latency> {
    if histogram.is_empty() {
        return None;
    }
    let at = |quantile| ms(histogram.value_at_quantile(quantile) as f64);
    Some(Latency {
        min: ms(histogram.min() as f64),
        mean: ms(histogram.mean()),
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: ms(histogram.max() as f64),
    })
}

/// Takes every request's end: into the tally, and to disk.
pub struct Book {
    tally: Mutex<Tally>,
    records: Option<Mutex<Records>>,
}

/// The file of records, and what first went wrong with it.
struct Records {
    file: BufWriter<File>,
    broken: Option<std::io::Error>,
}

impl Book {
    /// Records go to `path`, where there is one.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn open(path: Option<&Path>) -> Result<Book> {
        let open = |path: &Path| {
            let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
            anyhow::Ok(Mutex::new(Records { file: BufWriter::with_capacity(256 * 1024, file), broken: None }))
        };
        Ok(Book { tally: Mutex::new(Tally::new()?), records: path.map(open).transpose()? })
    }

    /// Takes one end; `lag` is how much later it was sent than it could have been.
    pub fn take(&self, record: &Record, lag: Option<Duration>) {
        if let Some(records) = &self.records {
            let mut line = Vec::with_capacity(USUAL_RECORD_BYTES);
            let written = serde_json::to_writer(&mut line, record).map_err(std::io::Error::from);
            line.push(b'\n');
            let Records { file, broken } = &mut *lock(records);
            if let Err(error) = written.and_then(|()| file.write_all(&line)) {
                broken.get_or_insert(error);
            }
        }
        let mut tally = lock(&self.tally);
        tally.take(record);
        if let Some(lag) = lag {
            tally.lag.saturating_record((lag.as_micros() as u64).max(1));
        }
    }

    /// The books as they stand.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    /// Closes the books: each of the `scheduled` requests is in one bucket. What kept records from being written to
    /// disk, such as a full one, takes nothing from the figures, and is given back.
    ///
    /// # Errors
    /// When the sum is wrong, which would be a fault of this tool.
    pub fn close(&self, scheduled: u64) -> Result<Option<std::io::Error>> {
        let unwritten = self.records.as_ref().and_then(|records| {
            let Records { file, broken } = &mut *lock(records);
            let flushed = file.flush();
            broken.take().or(flushed.err())
        });
        let buckets = self.tally().buckets;
        if buckets.sum() != scheduled {
            bail!("the books do not balance: {scheduled} scheduled, {} accounted for", json!(buckets));
        }
        Ok(unwritten)
    }
}

impl From<Latency> for Value {
    fn from(latency: Latency) -> Value {
        json!(latency)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64, outcome: Outcome) -> Record {
        Record {
            n,
            id: format!("{n:032x}"),
            outcome,
            due_us: 0,
            sent_us: Some(1000),
            end_us: 5000,
            status: (outcome == Outcome::HttpError).then_some(502),
            served_by: None,
            server_timing: None,
            error: None,
        }
    }

    #[test]
    fn each_request_is_in_one_bucket_and_the_sum_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.jsonl");
        let book = Book::open(Some(&path)).unwrap();
        let outcomes = [
            Outcome::Ok,
            Outcome::HttpError,
            Outcome::SocketError,
            Outcome::Timeout,
            Outcome::Dropped,
            Outcome::Unsent,
        ];
        for (n, outcome) in outcomes.into_iter().enumerate() {
            book.take(&record(n as u64, outcome), None);
        }
        assert_eq!(
            book.tally().buckets,
            Buckets { ok: 1, http_error: 1, socket_error: 1, timeout: 1, dropped: 1, unsent: 1 }
        );
        book.close(6).unwrap();
        assert!(book.close(7).is_err());
        let kept = std::fs::read_to_string(path).unwrap();
        let kept: Vec<Record> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(kept.len(), 6);
        assert_eq!(kept[1], record(1, Outcome::HttpError));
        assert_eq!(book.tally().errors["502"], 1);
    }

    #[test]
    fn errors_do_not_flatter_the_latency() {
        let book = Book::open(None).unwrap();
        book.take(&record(0, Outcome::Ok), None);
        book.take(&Record { end_us: 1001, ..record(1, Outcome::HttpError) }, None);
        let tally = book.tally();
        let (due, sent) = (tally.from_due().expect("some"), tally.from_sent().expect("some"));
        assert_eq!(tally.so_far(), Some((due.p50, due.p99)));
        assert!((due.min - 5.0).abs() < 0.01 && (sent.min - 4.0).abs() < 0.01, "{due:?} {sent:?}");
    }

    #[test]
    fn a_disk_that_is_full_takes_nothing_from_the_figures() {
        let book = Book::open(Some(Path::new("/dev/full"))).unwrap();
        book.take(&record(0, Outcome::Ok), None);
        let unwritten = book.close(1).unwrap().expect("nothing could be written");
        assert_eq!(unwritten.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(book.tally().buckets.ok, 1);
    }

    #[test]
    fn nothing_measured_is_nothing_and_not_zero() {
        let book = Book::open(None).unwrap();
        book.take(&record(0, Outcome::HttpError), None);
        let tally = book.tally();
        assert_eq!((tally.from_due(), tally.so_far()), (None, None));
    }

    #[test]
    fn the_generators_own_limits_are_told_from_the_servers_refusals() {
        let book = Book::open(None).unwrap();
        let errors = [
            ("Too many open files (os error 24)", 1),
            ("Connection refused (os error 111)", 1),
            ("reset", 1),
        ];
        for (error, ended) in errors {
            let record = Record { error: Some(error.into()), ..record(ended, Outcome::SocketError) };
            book.take(&record, None);
        }
        assert_eq!(book.tally().own_limit, 1);
    }
}
