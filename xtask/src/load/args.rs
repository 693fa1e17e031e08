//! The options of `cargo xtask load`.

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use xtask_load::run::Plan;
use xtask_load::schedule::{Pace, Schedule};

use super::disturb::Disturbance;
use super::experiment::Protection;
use super::request::RequestArgs;
use super::threshold::Threshold;
use crate::failure::{Attach as _, Exit};
use crate::options::{LONGEST_DURATION, duration};

/// Requests, where no number is given.
const REQUESTS: u64 = 50;
/// Senders of a closed loop.
const CLOSED_CONCURRENCY: usize = 10;
/// Senders of an open loop: enough that the server's slowness does not thin out the load.
const OPEN_CONCURRENCY: usize = 256;

/// What to send, how, and what must come of it.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Requests to send; 50 unless --rate or --duration says otherwise.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Requests in flight at a time: 10, or at most 256 with --rate.
    #[arg(long, short = 'c', value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub concurrency: Option<u64>,
    /// Requests per second, on schedule whatever the server does (open loop); without it each sender waits for its
    /// answer.
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// How long to send; with --rate the time at the full rate, 10 s unless --requests is given.
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Ramp the rate up from 0 over this time, before --duration.
    #[arg(long, value_parser = duration, requires = "rate", default_value = "0")]
    pub ramp_up: Duration,
    /// Ramp the rate down to 0 over this time, after --duration.
    #[arg(long, value_parser = duration, requires = "rate", default_value = "0")]
    pub ramp_down: Duration,
    /// What to send.
    #[command(flatten)]
    pub request: RequestArgs,
    /// Timeout of a request.
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub request_timeout: Duration,
    /// Fail the run unless this holds at the end, such as 'p99<800ms', 'failed<=0', 'unexplained==0'; may be repeated.
    /// A run without one success always fails.
    #[arg(long, default_value = "failed<=0")]
    pub threshold: Vec<Threshold>,
    /// Compare with this run at the end, and fail if this one is worse; thresholds may name it: 'p99<=baseline*1.1'.
    #[arg(long, value_name = "RUN")]
    pub baseline: Option<String>,
    /// Disturb the cluster after a fifth of the load.
    #[arg(long, value_enum)]
    pub during: Option<Disturbance>,
    /// Remove one protection, load through a rollout and see what fails, then put it back; on the sandbox, or in a
    /// namespace of its own.
    #[arg(long, value_enum)]
    pub without: Option<Protection>,
    /// Run it so many times, each a run of its own, and show how far the figures spread.
    #[arg(long, value_name = "N", default_value = "1", value_parser = times)]
    pub repeat: u32,
    /// Open the report in a browser at the end.
    #[arg(long, conflicts_with = "repeat")]
    pub report: bool,
}

impl LoadArgs {
    /// The plan that they ask for.
    ///
    /// # Errors
    /// When they contradict each other; exit code 2.
    pub fn plan(&self) -> Result<Plan> {
        if self.request_timeout.is_zero() {
            return Err(anyhow!("--request-timeout 0 leaves no time for an answer")).exit(Exit::Usage);
        }
        if self.duration.is_some_and(|duration| duration.is_zero()) {
            return Err(anyhow!("--duration 0 leaves no time to send anything")).exit(Exit::Usage);
        }
        if let (Some(rate), Some(requests), None) = (self.rate, self.requests, self.duration)
            && requests as f64 / rate > LONGEST_DURATION.as_secs_f64()
        {
            let error = anyhow!("--requests {requests} at --rate {rate} take longer than a year");
            return Err(error).hint("raise --rate, or give --duration").exit(Exit::Usage);
        }
        let lonely = self.threshold.iter().find(|threshold| threshold.needs_baseline());
        if let Some(threshold) = lonely.filter(|_| self.baseline.is_none()) {
            return Err(anyhow!("`{threshold}` is about a baseline, and there is none"))
                .hint("name the run to compare with: --baseline RUN")
                .exit(Exit::Usage);
        }
        let (pace, requests, duration, concurrency) = match self.rate {
            None => {
                let requests = self.requests.or_else(|| self.duration.is_none().then_some(REQUESTS));
                (Pace::Closed, requests, self.duration, CLOSED_CONCURRENCY)
            }
            Some(rate) => {
                let default = self.requests.is_none().then_some(Duration::from_secs(10));
                let pace = Pace::Open { rate, ramp_up: self.ramp_up, ramp_down: self.ramp_down };
                (pace, self.requests, self.duration.or(default), OPEN_CONCURRENCY)
            }
        };
        let schedule = Schedule { pace, requests, duration };
        if schedule.total() == Some(0) {
            return Err(anyhow!("at that rate no request is due in that time"))
                .hint("raise --rate or --duration")
                .exit(Exit::Usage);
        }
        let asked = self.concurrency.and_then(|n| usize::try_from(n).ok());
        let most = schedule.total().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let concurrency = asked.unwrap_or(concurrency).min(most);
        Ok(Plan { schedule, concurrency, request_timeout: self.request_timeout })
    }
}

impl LoadArgs {
    /// Whether the gates come before the load; their absence may be the experiment.
    pub fn is_gated(&self) -> bool {
        self.without != Some(Protection::Gates)
    }

    /// What happens in the middle of it. A protection shows its worth when pods come and go.
    pub fn disturbance(&self) -> Option<Disturbance> {
        self.during.or(self.without.filter(|_| self.is_gated()).map(|_| Disturbance::Rollout))
    }

    /// Whether the app is changed for a while.
    pub fn changes_app(&self) -> bool {
        self.without.is_some_and(|_| self.is_gated()) || self.disturbance() == Some(Disturbance::ScaleDown)
    }
}

fn times(text: &str) -> Result<u32, String> {
    let number: u32 = text.parse().map_err(|_| format!("`{text}` is not a number of runs"))?;
    if (1..=1000).contains(&number) {
        Ok(number)
    } else {
        Err(format!("`{text}` must be between 1 and 1000"))
    }
}

/// Requests a second, as people write them.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate: f64 = number.parse().map_err(|_| format!("`{text}` is not a number of requests a second"))?;
    if rate.is_finite() && rate > 0.0 && rate <= 1_000_000.0 {
        Ok(rate)
    } else {
        Err(format!("`{text}` must be more than 0 and at most 1000000"))
    }
}
