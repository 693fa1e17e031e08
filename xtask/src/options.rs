//! The options that every command takes, and the values that more than one option has.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::repository::{Place, REPOSITORY};

/// The minikube profile that `minikube` itself takes without a name; the sandbox follows it.
pub const DEFAULT_PROFILE: &str = "minikube";
/// The namespace that a kubeconfig without one means.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Port of the sandbox's ingress.
pub const DEFAULT_PORT: u16 = 8080;

/// Options that every command takes. Each can be set by a variable too; an empty one counts as unset.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Shared options")]
pub struct Shared {
    /// Kind of cluster; auto is minikube where it and a container engine are installed, else the sandbox.
    #[arg(long, global = true, value_enum, default_value = "auto", env = "XTASK_CLUSTER")]
    pub cluster: ClusterChoice,
    /// A context of your kubeconfig: any cluster, in which nothing is installed or stopped. Implies --cluster context.
    #[arg(long, global = true, value_name = "NAME", env = "XTASK_CONTEXT")]
    pub context: Option<String>,
    /// The kubeconfig of --context; without it KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE", env = "XTASK_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Base URL of the ingress of --context; without it the address that the Ingress has been given.
    #[arg(long, global = true, value_name = "URL", env = "XTASK_ENTRY")]
    pub entry: Option<String>,
    /// A registry that the nodes of --context pull from: where the image is pushed. On loopback it is spoken to without
    /// TLS.
    #[arg(long, global = true, value_name = "HOST[:PORT]/PATH", env = "XTASK_REGISTRY")]
    #[arg(value_parser = registry)]
    pub registry: Option<Place>,
    /// Name of the minikube profile, or of the sandbox.
    #[arg(long, global = true, default_value = DEFAULT_PROFILE, env = "XTASK_PROFILE", value_parser = name)]
    pub profile: String,
    /// Namespace; created if it is missing, except with --context, whose own namespace it is by default.
    #[arg(long, global = true, default_value = DEFAULT_NAMESPACE, env = "XTASK_NAMESPACE")]
    #[arg(value_parser = name)]
    pub namespace: String,
    /// Create the namespace in the cluster of --context too, if it is missing; `down` leaves it there.
    #[arg(long, global = true, env = "XTASK_CREATE_NAMESPACE", value_parser = BoolishValueParser::new())]
    pub create_namespace: bool,
    /// Loopback port of the sandbox's ingress; 0 picks a free one.
    #[arg(long, global = true, default_value_t = DEFAULT_PORT, env = "XTASK_PORT")]
    pub port: u16,
    /// Time limit for the whole command, such as 90s or 10m.
    #[arg(long, global = true, value_name = "DURATION", env = "XTASK_TIMEOUT", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// What stdout gets: only a command's data, or one JSON object per line.
    #[arg(long, global = true, value_enum, default_value = "human", env = "XTASK_OUTPUT")]
    pub output: Format,
    /// Tell of the run in this file too, as JUnit XML.
    #[arg(long, global = true, value_name = "FILE", env = "XTASK_JUNIT")]
    pub junit: Option<PathBuf>,
    /// Print the plan and change nothing.
    #[arg(long, global = true, env = "XTASK_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Show each command and what it prints.
    #[arg(short, long, global = true, env = "XTASK_VERBOSE", value_parser = BoolishValueParser::new())]
    pub verbose: bool,
}

impl Shared {
    /// Whether a namespace that is missing is created: in a cluster that is somebody else's, only when that is asked.
    pub fn creates_namespace(&self) -> bool {
        self.context.is_none() || self.create_namespace
    }
}

/// What `up`, `redeploy` and `dev` are asked beside that.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Deploy {
    /// Remove from the cluster what has left kubernetes/.
    #[arg(long)]
    pub prune: bool,
}

/// The kinds of cluster that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterChoice {
    /// minikube where it can run, else the sandbox.
    Auto,
    /// A minikube profile.
    Minikube,
    /// The embedded cluster: no container engine, no root.
    Sandbox,
    /// The cluster that --context names.
    Context,
}

/// How a run is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for a person, on stderr.
    Human,
    /// One JSON object a line, on stdout.
    Json,
}

/// What lasts longer is no time that anyone waits, and added to now it may be beyond the clock's end.
pub(crate) const LONGEST_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// A duration as people write it: `90s`, `10m`, `1h 30m`, or a bare number of seconds.
///
/// # Errors
/// In words for the command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let span: jiff::SignedDuration =
                text.parse().map_err(|_| format!("`{text}` is not a duration; write 90s, 10m or 1h30m"))?;
            Duration::try_from(span).map_err(|_| format!("`{text}` is negative"))?
        }
    };
    if duration > LONGEST_DURATION {
        return Err(format!("`{text}` is longer than a year"));
    }
    Ok(duration)
}

/// A registry, below which the app's image lies.
fn registry(text: &str) -> Result<Place, String> {
    Place::read(text, REPOSITORY)
}

/// A DNS label, since profiles and namespaces end up in host names and object names.
///
/// # Errors
/// In words for the command line.
pub fn name(text: &str) -> Result<String, String> {
    let ok = !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if ok {
        Ok(text.to_owned())
    } else {
        Err("use lower-case letters, digits and inner dashes, at most 63".to_owned())
    }
}
