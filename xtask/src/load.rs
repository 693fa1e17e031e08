//! `cargo xtask load`: every gate first, then the load, with a witness who sees what becomes of each request; then the
//! books, the thresholds, and why what failed did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use xtask_load::client::Target;
use xtask_load::run::{Finished, Plan};
use xtask_load::tally::{Book, Latency};

use crate::clusters::{self, Cluster};
use crate::cx::Cx;
use crate::explain::{self, Explained};
use crate::failure::{Attach as _, Cancelled, Exit};
use crate::gates;
use crate::gates::rollout::Rollout;
use crate::manifests::Manifests;
use crate::options::Format;
use crate::owned::Owner;
use crate::pipeline::{Branch, Done, Outcome, Running, step};
use crate::record::RECORDS;
use crate::record::case::Case;
use crate::record::meta::{End, Mark, Meta, Verdict};
use crate::report::text::{self, Progress};
use crate::steps::smoke::PICTURE;
use crate::summary::{Summary, entry};
use crate::temporary::{self, App};

pub mod args;
pub mod disturb;
pub mod experiment;
mod ready;
pub mod threshold;
pub mod witness;

use args::LoadArgs;
use disturb::{Disturbance, Prepared};
use experiment::Protection;
use threshold::Figures;
use witness::Witness;

pub use ready::ATTRIBUTION;

/// Senders that were free and let a request wait longer than this are no instrument.
const MOST_LAG_MS: f64 = 100.0;
/// The same as a share of the median latency: what is slow itself is not blurred by a slow start.
const MOST_LAG_SHARE: f64 = 0.1;
/// Above this share of its time the generator measures itself.
const MOST_OWN_CPU: f64 = 0.9;
/// The share of the load that is done when the disturbance comes.
const DISTURB_AT: f64 = 0.2;
/// The live line changes this often.
const LIVE_EVERY: Duration = Duration::from_millis(500);

/// Passes the gates, sends the load, and explains what failed.
///
/// # Errors
/// When a gate fails; a threshold fails (exit code 40); the generator could not keep up (41).
pub async fn run(branch: &mut Branch<'_>, args: &LoadArgs) -> Result<Summary> {
    let cx = branch.cx;
    let plan = args.plan()?;
    let choice = clusters::choose(cx).await?;
    cx.output.note(&format!("{}: {}", choice.kind.name(), choice.why));
    let cluster = choice.kind.expect(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;

    let without = args.without;
    if let Some(protection) = without {
        experiment::allow(cx, protection, &cluster)?;
    }
    let gated = without != Some(Protection::Gates);
    // A protection shows its worth when pods come and go.
    let during = args.during.or(without.filter(|_| gated).map(|_| Disturbance::Rollout));
    let changes_app = without.is_some_and(|_| gated) || during == Some(Disturbance::ScaleDown);
    let app = App::of(cx, &cluster, &manifests);
    let left = if changes_app {
        temporary::unmarked(&app).await.map(|()| Summary::new())?
    } else {
        temporary::warn(cx, app).await
    };
    if gated {
        ready::gates(branch, &cluster, &manifests).await?;
    }
    let result = temporary::lasting(cx, app, async |changes| {
        if let Some(protection) = without.filter(|_| gated) {
            experiment::remove(branch, changes, protection, &cluster, &manifests).await?;
        }
        let prepared = match during {
            Some(what) => Some(Prepared::new(branch, changes, what, &manifests).await?),
            None => None,
        };
        let scene = Scene {
            cx,
            args,
            plan: &plan,
            cluster: &cluster,
            manifests: &manifests,
            prepared: prepared.as_ref(),
            left: &left,
        };
        scene.measure(branch, gated).await
    })
    .await;
    if changes_app && !cx.is_stopped() {
        let target = Rollout::as_deployed(app.namespace, &manifests);
        let settled = gates::settled::wait(branch, app.client, &target).await;
        // What the load came to is what is reported.
        return result.and_then(|summary| settled.map(|_| summary));
    }
    result
}

/// One load, with all that it takes.
struct Scene<'s> {
    cx: &'s Cx,
    args: &'s LoadArgs,
    plan: &'s Plan,
    cluster: &'s Cluster,
    manifests: &'s Manifests,
    prepared: Option<&'s Prepared<'s>>,
    /// What another run has left changed, as the summary tells it.
    left: &'s Summary,
}

impl Scene<'_> {
    /// What lies between the gates and the report.
    async fn measure(&self, branch: &mut Branch<'_>, gated: bool) -> Result<Summary> {
        let Scene { cx, cluster, manifests, plan, .. } = *self;
        let dir = cx.run_dir.clone().context("the run has no folder")?;
        let target = target(cx, cluster, manifests, self.args.get.as_deref()).await?;
        let owner = Owner::of(&cluster.client, &cx.shared.namespace, manifests.deployment_name()).await?;
        let witness = Witness::start(&cluster.client, &cx.shared.namespace, owner, &dir).await?;
        let canary = Target::get(&cluster.entry, manifests.host(), "/health").await?;
        if gated {
            ready::canary(branch, &witness, &canary).await?;
        }
        if !gated {
            experiment::restart_entry(cluster).await?;
        }
        let mut meta = Meta {
            began: Timestamp::now(),
            entry: cluster.entry.clone(),
            host: manifests.host().to_owned(),
            request: target.line(),
            namespace: cx.shared.namespace.clone(),
            plan: plan.line(),
            without: self.args.without.map(Protection::name),
            marks: Vec::new(),
            end: None,
        };
        let book = Arc::new(Book::open(Some(&dir.join(RECORDS)))?);
        let open_files = xtask_load::files::allow(plan.concurrency);
        let load = Load { cx, plan, book: &book, dir: &dir, prepared: self.prepared, args: self.args };
        let finished = load.send(branch, target, &mut meta).await?;
        if !finished.stopped {
            self.settle(branch).await?;
        }
        let mut gaps = close(cx, witness, &canary, &book).await?;
        gaps.extend(
            finished.unwritten.as_ref().map(|error| format!("{RECORDS} could not be written: {error}")),
        );
        let mut end = end(&book, &finished, open_files, gaps);
        end.files = crate::record::sizes(&dir);
        meta.end = Some(end.clone());
        let failures = book.tally().failures.clone();
        let mut explained = explain::explain(Case::of(meta.clone(), &dir, &failures));
        let figures = figures(&book, &finished, Some(explained.unexplained() as u64));
        end.thresholds = self.args.threshold.iter().map(|threshold| threshold.judge(&figures)).collect();
        explained.meta.end = Some(end.clone());
        meta.end = Some(end.clone());
        end.gaps.extend(meta.write(&dir).err().map(|error| format!("{error:#}")));
        let page = crate::report::write(&dir, &end, &explained).context("drawing the report");
        let errors = book.tally().errors.clone();
        self.conclude(&end, &errors, &explained, page)
    }

    /// What a disturbance or an experiment began is over before the witness leaves and the next run begins.
    async fn settle(&self, branch: &mut Branch<'_>) -> Result<()> {
        if self.prepared.is_none() && self.args.without.is_none() {
            return Ok(());
        }
        let Scene { cx, cluster, manifests, .. } = *self;
        let namespace = cx.shared.namespace.as_str();
        let rollout = Rollout::as_deployed(namespace, manifests);
        let controller = async |branch: &mut Branch<'_>| {
            gates::ingress_controller::wait(branch, &cluster.client, &manifests.ingress, namespace).await
        };
        let settled =
            async |branch: &mut Branch<'_>| gates::settled::wait(branch, &cluster.client, &rollout).await;
        branch.both(controller, settled).await.map(drop)
    }
}

/// Names the page, and opens it where that is asked for and there is something to open it with.
fn show(cx: &Cx, page: &Path, open: bool) {
    let mut how = String::new();
    if open {
        how = match browse(page) {
            Ok(()) => " (opened)".to_owned(),
            Err(why) => format!(" (not opened: {why:#})"),
        };
    }
    if open || cx.shared.output == Format::Human {
        cx.output.note(&format!("report: {}{how}", cx.short(page)));
    }
}

fn browse(page: &Path) -> Result<()> {
    let name = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let has_desktop = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|v| std::env::var_os(v).is_some());
    if !has_desktop {
        return Err(anyhow!("there is no desktop here"));
    }
    let program = which::which(name).map_err(|_| anyhow!("there is no `{name}` on PATH"))?;
    let shell = crate::proc::shell()?;
    // The browser stays when this program has ended.
    crate::proc::daemon(xshell::cmd!(shell, "{program} {page}").into(), &page.with_file_name("browser.log"))
        .map(drop)
}

/// The picture, posted by the real entry; or a path, asked for there.
async fn target(cx: &Cx, cluster: &Cluster, manifests: &Manifests, get: Option<&str>) -> Result<Target> {
    if let Some(path) = get {
        return Target::get(&cluster.entry, manifests.host(), path).await;
    }
    let picture = cx.root.join(PICTURE);
    let picture =
        std::fs::read(&picture).with_context(|| format!("reading the picture {}", picture.display()))?;
    let (content_type, body) = crate::steps::smoke::multipart(&Bytes::from(picture));
    let content_type = HeaderValue::from_str(&content_type).context("naming the body's type")?;
    Ok(Target::get(&cluster.entry, manifests.host(), "/predict").await?.posting(content_type, body))
}

/// The load and what happens around it.
struct Load<'l> {
    cx: &'l Cx,
    args: &'l LoadArgs,
    plan: &'l Plan,
    book: &'l Arc<Book>,
    dir: &'l Path,
    prepared: Option<&'l Prepared<'l>>,
}

impl Load<'_> {
    /// Sends the load, says how far it is, and disturbs it where that is asked for.
    async fn send(&self, branch: &mut Branch<'_>, target: Target, meta: &mut Meta) -> Result<Done<Finished>> {
        let Load { cx, plan, book, .. } = *self;
        step(branch, "load", async |step| {
            meta.began = Timestamp::now();
            let began = Instant::now();
            meta.write(self.dir)?;
            let stop = CancellationToken::new();
            let sending = xtask_load::run::run(target, plan.clone(), Arc::clone(book), stop.clone(), began);
            let mut sending = std::pin::pin!(sending);
            let mut disturbing = std::pin::pin!(self.disturb(began));
            let mut disturbed = self.prepared.is_none();
            let mut told = Told::default();
            let finished = loop {
                tokio::select! {
                    finished = &mut sending => break finished?,
                    () = cx.stopped(), if !stop.is_cancelled() => stop.cancel(),
                    mark = &mut disturbing, if !disturbed => {
                        disturbed = true;
                        let mark = mark?;
                        step.warn(mark.what.as_str());
                        meta.marks.push(mark);
                    }
                    () = tokio::time::sleep(Duration::from_millis(100)) => told.tell(cx, step, self),
                }
            };
            told.tell(cx, step, self);
            let buckets = book.tally().buckets;
            let how = format!(
                "{} of {} ok, {:.1} s, {}",
                buckets.ok,
                finished.scheduled,
                finished.took.as_secs_f64(),
                plan.line()
            );
            if finished.stopped {
                return Ok(Outcome::Bad(finished, format!("interrupted; {how}")));
            }
            if !disturbed {
                step.warn("the load ended before its disturbance: raise --requests or --duration");
            }
            let figures = figures(book, &finished, None);
            let known = self.args.threshold.iter().filter(|threshold| !threshold.needs_causes());
            let is_good = buckets.ok > 0 && known.into_iter().all(|threshold| threshold.judge(&figures).met);
            Ok(if is_good { Outcome::Did(finished, how) } else { Outcome::Bad(finished, how) })
        })
        .await
    }

    /// Waits for its moment, and disturbs.
    async fn disturb(&self, began: Instant) -> Result<Mark> {
        let Some(prepared) = self.prepared else { return std::future::pending().await };
        let (total, end) = (self.plan.schedule.total(), self.plan.schedule.end());
        let is_time = || {
            let done = self.book.tally().buckets.sum() as f64;
            total.is_some_and(|total| done >= total as f64 * DISTURB_AT)
                || end.is_some_and(|end| began.elapsed() >= end.mul_f64(DISTURB_AT))
        };
        while !is_time() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        prepared.disturb().await
    }
}

/// What of the progress was told.
#[derive(Default)]
struct Told {
    tenths: u64,
    seconds: u64,
    live: Duration,
}

impl Told {
    /// A line at each tenth of the requests, or every ten seconds; between them, the live line.
    fn tell(&mut self, cx: &Cx, step: &Running<'_>, load: &Load<'_>) {
        let (total, elapsed) = (load.plan.schedule.total(), step.elapsed());
        let (buckets, latency) = {
            let tally = load.book.tally();
            (tally.buckets, tally.so_far())
        };
        let tenths = total.map_or(0, |total| buckets.sum() * 10 / total.max(1));
        let seconds = elapsed.as_secs() / 10;
        if tenths > self.tenths || seconds > self.seconds {
            step.progress(text::progress(buckets, total));
        } else if cx.shared.output == Format::Human && elapsed >= self.live + LIVE_EVERY {
            self.live = elapsed;
            let end = load.plan.schedule.end();
            step.at(Progress { buckets, total, elapsed, end, latency }.line());
        }
        (self.tenths, self.seconds) = (tenths, seconds);
    }
}

/// Waits until the access log has caught up with the last request, and ends the witness.
async fn close(cx: &Cx, witness: Witness, canary: &Target, book: &Book) -> Result<Vec<String>> {
    let mut caught_up = false;
    let any_failed = book.tally().buckets.failed() > 0;
    if any_failed {
        let until = Instant::now() + Duration::from_secs(10);
        while !caught_up && Instant::now() < until && !cx.is_stopped() {
            caught_up = matches!(ready::look(&witness, canary).await, gates::Verdict::Open(..));
            // Endings of pods are told a moment after the connections broke.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let mut gaps = witness.finish()?;
    if any_failed && !caught_up {
        gaps.push("the last lines of the access log: it did not catch up after the last request".to_owned());
    }
    Ok(gaps)
}

fn end(book: &Book, finished: &Finished, open_files: u64, gaps: Vec<String>) -> End {
    let tally = book.tally();
    let mut end = End {
        scheduled: finished.scheduled,
        buckets: tally.buckets,
        latency_ms: tally.from_due(),
        sent_latency_ms: tally.from_sent(),
        lag_ms: tally.lag(),
        seconds: finished.took.as_secs_f64(),
        own_cpu: finished.own_cpu,
        gaps,
        thresholds: Vec::new(),
        invalid: None,
        interrupted: finished.stopped,
        files: BTreeMap::new(),
    };
    end.invalid = match tally.own_limit {
        0 => behind(&end),
        requests => Some(format!(
            "the generator ran out of open files or ports: {requests} requests could not be sent (limit of open files: \
             {open_files})"
        )),
    };
    end
}

/// What thresholds see.
fn figures(book: &Book, finished: &Finished, unexplained: Option<u64>) -> Figures {
    let tally = book.tally();
    Figures {
        buckets: tally.buckets,
        due: tally.from_due(),
        sent: tally.from_sent(),
        throughput: tally.buckets.ok as f64 / finished.took.as_secs_f64().max(1e-9),
        unexplained,
    }
}

/// Why the generator's own lateness is in the figures; none if it is not.
fn behind(end: &End) -> Option<String> {
    let lag = end.lag_ms.p99;
    let median = end.sent_latency_ms.map_or(0.0, |latency| latency.p50);
    if lag > MOST_LAG_MS && lag > median * MOST_LAG_SHARE {
        return Some(format!(
            "the generator sent requests up to {lag:.0} ms (p99) later than it should have; its own delay is in the \
             figures"
        ));
    }
    if end.own_cpu > MOST_OWN_CPU {
        return Some(format!(
            "the generator was busy {:.0} % of the time: the figures measure it, not the server",
            end.own_cpu * 100.0
        ));
    }
    None
}

/// Percentiles in JSON; each is null where nothing was measured.
fn percentiles(latency: Option<Latency>) -> Value {
    let mut all = json!(latency.unwrap_or_default());
    if let (None, Some(fields)) = (latency, all.as_object_mut()) {
        fields.values_mut().for_each(|value| *value = Value::Null);
    }
    all
}

impl Scene<'_> {
    /// Says what the run came to, everywhere, and ends with its verdict.
    fn conclude(
        &self,
        end: &End,
        errors: &BTreeMap<String, u64>,
        explained: &Explained,
        page: Result<PathBuf>,
    ) -> Result<Summary> {
        let Scene { cx, args, cluster, manifests, .. } = *self;
        let meta = &explained.meta;
        if cx.shared.output == Format::Human {
            cx.output.data(&text::summary(meta, end, errors));
            let causes = explain::causes(&explained.failures, &explained.late);
            if !causes.is_empty() {
                cx.output.data(causes.trim_end());
            }
        }
        for gap in end.gaps.iter().chain(&explained.missing) {
            cx.output.note(&format!("warning: missing: {gap}"));
        }
        match &page {
            Ok(page) => show(cx, page, args.report),
            Err(error) => cx.output.note(&format!("warning: there is no report: {error:#}")),
        }
        let mut summary = entry(cluster, manifests);
        summary.extend(explained.json());
        summary.extend(self.left.clone());
        let fields = [
            ("scheduled", json!(end.scheduled)),
            ("buckets", json!(end.buckets)),
            ("latency_ms", percentiles(end.latency_ms)),
            ("sent_latency_ms", percentiles(end.sent_latency_ms)),
            ("success_rate", json!(end.success_rate())),
            ("throughput", json!(end.buckets.ok as f64 / end.seconds.max(1e-9))),
            ("errors", json!(errors)),
            ("seconds", json!(end.seconds)),
            (
                "generator",
                json!({"lag_ms": end.lag_ms, "own_cpu": end.own_cpu, "valid": end.invalid.is_none()}),
            ),
            ("plan", json!(meta.plan)),
            ("without", json!(meta.without)),
            ("marks", json!(meta.marks)),
            ("interrupted", json!(end.interrupted)),
            ("gaps", json!(end.gaps)),
            ("run", json!(cx.run_dir)),
            ("report", json!(page.ok())),
        ];
        summary.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));

        match end.verdict() {
            Verdict::Passed => Ok(summary),
            Verdict::Failed(why) => Err(anyhow!("not met: {why}"))
                .attach(summary)
                .hint("`cargo xtask explain` shows again why each request failed, from the records of this run")
                .exit(Exit::Threshold),
            Verdict::Invalid(why) => Err(anyhow!("this run is invalid: {why}"))
                .attach(summary)
                .hint(
                    "lower --rate or --concurrency, raise the limit of open files (`ulimit -n`), or run the generator on \
                     a machine with cores to spare",
                )
                .exit(Exit::InvalidRun),
            // Why it was stopped is said by whoever stopped it.
            Verdict::Interrupted => Err(Cancelled).attach(summary),
        }
    }
}
