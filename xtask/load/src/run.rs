//! The generator: as many senders as requests may be under way at a time. Each takes the next request of the schedule,
//! waits until it is due, sends it and waits for its end. A request that is due while all are busy is sent late, and
//! its latency is counted from when it was due.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Client, Target};
use crate::record::{Outcome, Record};
use crate::schedule::{Due, Pace, Schedule};
use crate::tally::Book;

/// After a stop, requests that are under way get this long.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// What the record of one says that did not get its answer by then.
pub const GIVEN_UP: &str = "given up: the run was stopped";

/// What is to be sent, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When.
    pub schedule: Schedule,
    /// Requests under way at a time, at most.
    pub concurrency: usize,
    /// How long an answer may take.
    pub request_timeout: Duration,
}

impl Plan {
    /// The plan in one line.
    pub fn line(&self) -> String {
        let Schedule { pace, requests, duration } = self.schedule;
        let requests = requests.map(|n| format!("{n} requests")).into_iter();
        let seconds = |name: &str, time: Duration| format!("{name} {} s", time.as_secs_f64());
        let duration = duration.map(|time| seconds("for", time));
        let mut parts: Vec<String> = requests.chain(duration).collect();
        match pace {
            Pace::Closed => parts.push(format!("{} at a time", self.concurrency)),
            Pace::Open { rate, ramp_up, ramp_down } => {
                parts.push(format!("{rate}/s"));
                let ramps = [("ramp-up", ramp_up), ("ramp-down", ramp_down)];
                parts.extend(
                    ramps.into_iter().filter(|(_, t)| !t.is_zero()).map(|(name, t)| seconds(name, t)),
                );
                parts.push(format!("at most {} at a time", self.concurrency));
            }
        }
        parts.join(", ")
    }
}

/// How a run went, beside its books.
#[derive(Debug)]
pub struct Finished {
    /// Requests that the books must hold. Where the run was stopped, those that were due by then.
    pub scheduled: u64,
    /// From the first moment to the last answer.
    pub took: Duration,
    /// The share of their time that the senders' threads computed, 0 to 1: at 1 the generator was the slowest part.
    pub own_cpu: f64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// What kept records from being written to disk.
    pub unwritten: Option<std::io::Error>,
}

/// What all senders share.
struct Run {
    target: Target,
    plan: Plan,
    book: Arc<Book>,
    stop: CancellationToken,
    began: Instant,
    next: AtomicU64,
    /// Requests that were taken by a sender, and not due when the run was stopped.
    not_due: AtomicU64,
}

/// Runs the plan to its end, or until `stop`; all times count from `began`, which is now.
///
/// # Errors
/// When the books can't be kept.
pub async fn run(
    target: Target,
    plan: Plan,
    book: Arc<Book>,
    stop: CancellationToken,
    began: Instant,
) -> Result<Finished> {
    let stop = stop.child_token();
    // The threads end too when nobody waits for them any more.
    let _stops_them = stop.clone().drop_guard();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let run = Arc::new(Run {
        target,
        plan,
        book,
        stop,
        began,
        next: AtomicU64::new(0),
        not_due: AtomicU64::new(0),
    });
    // One core is left to the server, which is on this machine too: threads that wait for each other's core get less
    // done.
    let threads = cores.saturating_sub(1).clamp(1, run.plan.concurrency.max(1));
    let threads: Vec<_> = (0..threads)
        .map(|thread| {
            let run = Arc::clone(&run);
            let senders = (thread..run.plan.concurrency).step_by(threads).len();
            tokio::task::spawn_blocking(move || send_on_this_thread(&run, senders))
        })
        .collect();
    let mut sending = pin!(async {
        let (mut computed, mut available) = (Duration::ZERO, Duration::ZERO);
        for thread in threads {
            let (cpu, lived) = thread.await.context("running a thread of senders")??;
            computed += cpu;
            available += lived;
        }
        anyhow::Ok((computed, available))
    });
    let mut stopped_at = None;
    let (computed, available) = loop {
        tokio::select! {
            () = run.stop.cancelled(), if stopped_at.is_none() => stopped_at = Some(run.began.elapsed()),
            sent = &mut sending => break sent?,
        }
    };
    let took = run.began.elapsed();
    let own_cpu = computed.as_secs_f64() / available.as_secs_f64().max(f64::EPSILON);
    let taken = run.next.load(Ordering::SeqCst);
    let total = run.plan.schedule.total().unwrap_or(taken);
    let mut scheduled = taken.min(total);
    let is_due = |n: u64| match (stopped_at, run.plan.schedule.due(n)) {
        (None, _) => true,
        (Some(stopped), Due::At(at)) => at <= stopped,
        (Some(_), Due::Now | Due::Never) => false,
    };
    while scheduled < total && is_due(scheduled) {
        run.give_up(scheduled, Outcome::Unsent);
        scheduled += 1;
    }
    scheduled -= run.not_due.load(Ordering::SeqCst);
    let unwritten = run.book.close(scheduled)?;
    Ok(Finished { scheduled, took, own_cpu, stopped: stopped_at.is_some(), unwritten })
}

/// Senders on a runtime of their thread's own: no answer waits for another thread to be woken. The CPU time that they
/// used, and the time that they had.
fn send_on_this_thread(run: &Arc<Run>, senders: usize) -> Result<(Duration, Duration)> {
    let (before, began) = (cpu_time(), Instant::now());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("starting a runtime for senders")?;
    runtime.block_on(async {
        // Connections stay on the thread that made them.
        let client = Arc::new(Client::default());
        let send_all = |_| tokio::spawn(send_all(Arc::clone(run), Arc::clone(&client)));
        let senders: Vec<_> = (0..senders).map(send_all).collect();
        for sender in senders {
            sender.await.context("running a sender")?;
        }
        Ok((cpu_time().saturating_sub(before), began.elapsed()))
    })
}

async fn send_all(run: Arc<Run>, client: Arc<Client>) {
    let schedule = &run.plan.schedule;
    let end = schedule.end().map(|end| run.began + end);
    let is_over = || run.stop.is_cancelled() || end.is_some_and(|end| Instant::now() >= end);
    // Made once: a timer and a listener for each request would cost more than the request.
    let mut timer = pin!(tokio::time::sleep(run.plan.request_timeout));
    let mut stopped = pin!(async {
        run.stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    });
    while !is_over() {
        let free = Instant::now();
        let n = run.next.fetch_add(1, Ordering::SeqCst);
        let due = match schedule.due(n) {
            Due::Never => return,
            Due::Now => free,
            Due::At(after) => run.began + after,
        };
        if due > free {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = run.stop.cancelled() => {}
            }
        }
        // One that never waited is sent at the moment its sender was free.
        let sent = if due > free { Instant::now() } else { free };
        if run.stop.is_cancelled() {
            if due < sent {
                run.give_up(n, Outcome::Unsent);
            } else {
                run.not_due.fetch_add(1, Ordering::SeqCst);
            }
        } else if sent.saturating_duration_since(due) >= run.plan.request_timeout {
            run.give_up(n, Outcome::Dropped);
        } else if due < free && is_over() {
            // One whose sender was free and woke up a moment late is sent.
            run.give_up(n, Outcome::Unsent);
        } else {
            // A server that never stops talking uses up tokio's budget, without which no timer would go off.
            let over = tokio::task::unconstrained(async {
                tokio::select! {
                    biased;
                    () = until(timer.as_mut(), sent + run.plan.request_timeout) => None,
                    () = stopped.as_mut() => Some(Err(GIVEN_UP.to_owned())),
                }
            });
            run.send(&client, n, due, free, sent, over).await;
        }
    }
}

/// Waits until `at`, which is never earlier than the time before; the timer is set anew only when it went off too
/// early.
async fn until(mut timer: Pin<&mut Sleep>, at: Instant) {
    loop {
        timer.as_mut().await;
        if Instant::now() >= at {
            return;
        }
        timer.as_mut().reset(at.into());
    }
}

impl Run {
    /// Sends one request at `sent` and waits for its end, or until it is given up.
    async fn send(
        &self,
        client: &Client,
        n: u64,
        due: Instant,
        free: Instant,
        sent: Instant,
        over: impl Future<Output = Option<Result<Answer, String>>>,
    ) {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let answer = tokio::select! {
            biased;
            answer = client.ask(&self.target, &id) => Some(answer),
            given_up = over => given_up,
        };
        let mut record = Record {
            n,
            id,
            outcome: Outcome::Timeout,
            due_us: self.since(due),
            sent_us: Some(self.since(sent)),
            end_us: self.since(Instant::now()),
            status: None,
            served_by: None,
            server_timing: None,
            error: None,
        };
        match answer {
            None => {
                let seconds = self.plan.request_timeout.as_secs_f64();
                record.error = Some(format!("no complete answer within {seconds} s"));
            }
            Some(Err(why)) => {
                record.outcome = Outcome::SocketError;
                record.error = Some(why);
            }
            Some(Ok(answer)) => {
                let is_success = (200..300).contains(&answer.status);
                record.outcome = if is_success { Outcome::Ok } else { Outcome::HttpError };
                record.status = Some(answer.status);
                record.served_by = answer.served_by;
                record.server_timing = answer.server_timing;
                record.error = answer.beginning;
            }
        }
        self.book.take(&record, Some(sent.saturating_duration_since(due.max(free))));
    }

    /// Takes a request into the books that was never sent.
    fn give_up(&self, n: u64, outcome: Outcome) {
        let now = self.since(Instant::now());
        let due_us = match self.plan.schedule.due(n) {
            Due::At(due) => due.as_micros() as u64,
            Due::Now | Due::Never => now,
        };
        let record = Record {
            n,
            id: uuid::Uuid::new_v4().simple().to_string(),
            outcome,
            due_us,
            sent_us: None,
            end_us: now,
            status: None,
            served_by: None,
            server_timing: None,
            error: None,
        };
        self.book.take(&record, None);
    }

    fn since(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_micros() as u64
    }
}

/// CPU time that this thread has used.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}
