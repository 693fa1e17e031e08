//! `cargo xtask prove`: what each protection is worth on this cluster. Loads with all protections and loads with one of
//! them left out, through what it protects from, until the shares of failed requests are known well enough.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde_json::{Value, json};

use crate::clusters;
use crate::commands::Advice;
use crate::cx::Cx;
use crate::failure::{Attach as _, Cancelled, Exit, attached, exit_of, paragraph};
use crate::load::args::LoadArgs;
use crate::load::disturb::Disturbance;
use crate::load::experiment::{self, Protection};
use crate::load::repeat::numbered;
use crate::load::request::RequestArgs;
use crate::load::{self, Telling};
use crate::manifests::Manifests;
use crate::options::{Format, duration};
use crate::pipeline::Branch;
use crate::plan::Planned;
use crate::record::REPORT;
use crate::record::meta::Meta;
use crate::summary::Summary;
use worth::{Cell, Occasion};

mod worth;

/// What is asked where nothing is said: it answers at once, so that what fails failed for the pod's life alone.
const REQUEST: &str = "/health";
/// Of the protections, the readiness probe is left out: without either probe the other would stand in for it, so both
/// are removed together.
const PROTECTIONS: [Protection; 4] =
    [Protection::StartupProbe, Protection::PreStop, Protection::Grace, Protection::Gates];
/// A run is no longer started when so many were invalid in a row.
const MOST_INVALID: usize = 3;

/// What to measure, and for how long.
#[derive(Args, Clone, Debug)]
pub struct ProveArgs {
    /// Time for all runs. No run is begun that would not be over by then.
    #[arg(long, value_parser = duration, default_value = "10m")]
    pub budget: Duration,
    /// Width of a 95 % interval, in percentage points, at which a share is known well enough; half the share will do.
    #[arg(long, value_parser = points, default_value = "1")]
    pub width: f64,
    /// Only this protection; may be repeated.
    #[arg(long, value_enum)]
    pub protection: Vec<Protection>,
    /// Only this disturbance; may be repeated.
    #[arg(long, value_enum)]
    pub during: Vec<Disturbance>,
    /// Requests per second.
    #[arg(long, value_parser = load::args::rate, default_value = "50")]
    pub rate: f64,
    /// How long each run sends.
    #[arg(long, value_parser = duration, default_value = "12s")]
    pub duration: Duration,
    /// What to send; GET /health where nothing is said.
    #[command(flatten)]
    pub request: RequestArgs,
}

fn points(text: &str) -> Result<f64, String> {
    let points: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of percentage points"))?;
    if points > 0.0 && points <= 100.0 {
        Ok(points)
    } else {
        Err(format!("`{text}` must be more than 0 and at most 100"))
    }
}

impl ProveArgs {
    /// What is measured: each occasion with all protections first, then without each that it concerns.
    fn cells(&self) -> Vec<Cell> {
        let is_asked_for = |protection: &Protection| {
            let named = |asked: &Protection| match asked {
                // The two stand in for each other.
                Protection::ReadinessProbe => *protection == Protection::StartupProbe,
                other => other == protection,
            };
            self.protection.is_empty() || self.protection.iter().any(named)
        };
        let protections: Vec<Protection> = PROTECTIONS.into_iter().filter(is_asked_for).collect();
        let disturbances = [Disturbance::Rollout, Disturbance::ScaleDown, Disturbance::PodDelete];
        let occasions = disturbances.map(Occasion::During).into_iter().chain([Occasion::ControllerStart]);
        let is_wanted = |occasion: &Occasion| match occasion {
            _ if self.during.is_empty() => true,
            Occasion::During(disturbance) => self.during.contains(disturbance),
            Occasion::ControllerStart => false,
        };
        let mut cells = Vec::new();
        for occasion in occasions.filter(is_wanted) {
            let concerned: Vec<_> = protections.iter().filter(|one| occasion.concerns(**one)).collect();
            if concerned.is_empty() {
                continue;
            }
            cells.push(Cell::new(occasion, None));
            cells.extend(concerned.into_iter().map(|one| Cell::new(occasion, Some(*one))));
        }
        cells
    }

    /// The load of a cell.
    fn load(&self, cell: &Cell) -> LoadArgs {
        let during = match cell.occasion {
            Occasion::During(disturbance) => Some(disturbance),
            Occasion::ControllerStart => None,
        };
        LoadArgs {
            requests: None,
            concurrency: None,
            rate: Some(self.rate),
            duration: Some(self.duration),
            ramp_up: Duration::ZERO,
            ramp_down: Duration::ZERO,
            request: self.request.or_get(REQUEST),
            request_timeout: Duration::from_secs(30),
            threshold: Vec::new(),
            baseline: None,
            during,
            without: cell.without,
            repeat: 1,
            report: false,
        }
    }
}

/// What [`run`] would do in its first round.
///
/// # Errors
/// As that of `load`.
pub fn plan(cx: &Cx, args: &ProveArgs, manifests: &Manifests) -> Result<Vec<Planned>> {
    let mut plan = vec![Planned::gates(
        vec![
            format!("measure {} combinations, each as follows", args.cells().len()),
            format!(
                "then again, the least known first, until each 95 % interval is {} points wide or {} s are \
                 over",
                args.width,
                args.budget.as_secs()
            ),
        ],
        Vec::new(),
    )];
    for cell in args.cells() {
        plan.push(Planned::gates(vec![cell.title()], Vec::new()));
        plan.extend(load::plan(cx, &args.load(&cell), manifests)?);
    }
    Ok(plan)
}

/// Measures until all is known well enough or the time is over, and says what each protection is worth.
///
/// # Errors
/// Where protections must not be removed (exit code 2); when nothing could be measured, or the run is stopped.
pub async fn run(cx: &Cx, args: &ProveArgs) -> Result<Summary> {
    let dir = cx.run_dir.clone().context("the run has no folder")?;
    let mut cells = args.cells();
    if cells.is_empty() {
        return Err(anyhow!("no protection of those concerns a disturbance of those"))
            .hint("leave out --during, or --protection")
            .exit(Exit::Usage);
    }
    let began = Instant::now();
    let choice = clusters::choose(cx).await?;
    let cluster = choice.kind.expect(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
    cx.shows(cluster.watched(&manifests, &cx.shared.namespace));
    experiment::allow(cx, Protection::PreStop, &cluster)?;
    for cell in &mut cells {
        if let Some(protection) = cell.without {
            cell.impossible =
                experiment::allow(cx, protection, &cluster).err().map(|error| paragraph(&error));
        }
    }
    cx.output.brief();
    let mut stopped = None;
    let mut n = 0;
    while let Some(next) = next(&cells, args, began.elapsed()) {
        n += 1;
        cx.output.note(&format!("run {n}: {}", cells[next].title()));
        let result = measure(cx, &args.load(&cells[next]), &numbered(&dir, n)?, &mut cells[next]).await;
        if let Err(error) = result {
            stopped = Some(error);
            break;
        }
    }
    let load = format!(
        "{}: {}/s for {} s a run",
        args.request.or_get(REQUEST).line(),
        args.rate,
        args.duration.as_secs_f64()
    );
    let proof = worth::proof(load, &cells);
    if cx.shared.output == Format::Human {
        cx.output.data(proof.text().trim_end());
    }
    let mut summary = Summary::new();
    let fields = [
        ("cluster", json!(cluster.kind.name())),
        ("context", json!(cluster.context)),
        ("prove", json!(proof)),
        ("seconds", json!(began.elapsed().as_secs_f64())),
        ("page", json!(dir.join(REPORT))),
        ("run", json!(dir)),
    ];
    summary.extend(fields.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)));
    if let Some(error) = stopped {
        return Err(error).attach(summary);
    }
    if proof.rows.is_empty() {
        return Err(anyhow!("nothing could be measured: {}", proof.reasons()))
            .attach(summary)
            .hint(Advice::Xtask("load", "shows what is wrong; a longer --budget leaves time for more"));
    }
    Ok(summary)
}

/// The combination that is measured next: each once, then the one that is known least; nothing when all are known well
/// enough, or none would be over in time.
fn next(cells: &[Cell], args: &ProveArgs, elapsed: Duration) -> Option<usize> {
    let left = args.budget.saturating_sub(elapsed);
    let usual = cells.iter().filter_map(|cell| cell.took).max();
    let fits = |cell: &Cell| cell.took.or(usual).unwrap_or(args.duration) <= left;
    let open = cells.iter().enumerate().filter(|(_, cell)| {
        cell.impossible.is_none()
            && cell.invalid < MOST_INVALID
            && !cell.is_known(args.width / 100.0)
            && fits(cell)
    });
    // What was never measured is known least; of those the first.
    let unknown = |cell: &Cell| if cell.runs.is_empty() { 2.0 } else { cell.share().width() };
    open.rev().max_by(|(_, a), (_, b)| unknown(a).total_cmp(&unknown(b))).map(|(index, _)| index)
}

/// One load of a combination. Whatever it came to, the next may follow, unless this run was told to stop.
async fn measure(cx: &Cx, args: &LoadArgs, dir: &Path, cell: &mut Cell) -> Result<()> {
    let began = Instant::now();
    let round = cx.within(began);
    let result = Box::pin(load::once(&mut Branch::first(&round), args, dir, Telling::Brief)).await;
    let result = round.verdict(result);
    cell.took = Some(began.elapsed());
    if cx.is_stopped() || cx.has_gone().await {
        return Err(Cancelled.into());
    }
    let (summary, exit) = match &result {
        Ok(summary) => (Some(summary), Exit::Done),
        Err(error) => (attached::<Summary>(error), exit_of(error)),
    };
    let end = Meta::read(dir).ok().and_then(|meta| meta.end);
    match (exit, summary.zip(end), result.as_ref().err()) {
        (Exit::Done | Exit::Threshold, Some((summary, end)), _) => {
            cell.invalid = 0;
            cell.take(&end, summary);
        }
        (Exit::InvalidRun, ..) => cell.invalid += 1,
        (_, _, Some(error)) => cell.impossible = Some(paragraph(error)),
        (_, _, None) => cell.impossible = Some("its records are lost".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ProveArgs,
    }

    fn args(words: &[&str]) -> ProveArgs {
        Cli::parse_from([&["prove"], words].concat()).args
    }

    fn titles(words: &[&str]) -> Vec<String> {
        args(words).cells().iter().map(Cell::title).collect()
    }

    #[test]
    fn each_protection_is_measured_in_what_concerns_it_beside_all_of_them() {
        assert_eq!(
            titles(&[]),
            [
                "with all protections, in a rollout",
                "without startup-probe, in a rollout",
                "without pre-stop, in a rollout",
                "without grace, in a rollout",
                "with all protections, in a scale-down",
                "without pre-stop, in a scale-down",
                "without grace, in a scale-down",
                "with all protections, when a pod is deleted",
                "without pre-stop, when a pod is deleted",
                "without grace, when a pod is deleted",
                "with all protections, while the ingress controller starts",
                "without gates, while the ingress controller starts",
            ]
        );
        assert_eq!(
            titles(&["--protection", "readiness-probe", "--protection", "gates"]),
            [
                "with all protections, in a rollout",
                "without startup-probe, in a rollout",
                "with all protections, while the ingress controller starts",
                "without gates, while the ingress controller starts",
            ]
        );
        assert_eq!(titles(&["--protection", "gates", "--during", "rollout"]), Vec::<String>::new());
    }

    #[test]
    fn what_is_known_least_is_next_until_all_is_known_or_the_time_is_over() {
        let args = args(&["--protection", "pre-stop", "--during", "rollout", "--budget", "100s"]);
        let mut cells = args.cells();
        let second = Duration::from_secs;
        assert_eq!(next(&cells, &args, second(0)), Some(0));
        (cells[0].runs, cells[0].took) = (vec![(0, 600)], Some(second(20)));
        assert_eq!(next(&cells, &args, second(20)), Some(1));
        assert_eq!(next(&cells, &args, second(90)), None, "it would not be over in time");
        (cells[1].runs, cells[1].took) = (vec![(30, 600)], Some(second(30)));
        assert_eq!(next(&cells, &args, second(50)), Some(1));
        cells[1].runs = vec![(300, 600)];
        assert_eq!(next(&cells, &args, second(50)), None, "0 of 600 and half of them are known well enough");
        cells[0].runs = vec![(0, 100)];
        assert_eq!(next(&cells, &args, second(50)), Some(0));
        cells[0].invalid = MOST_INVALID;
        assert_eq!(next(&cells, &args, second(50)), None);
    }
}
