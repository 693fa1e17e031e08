//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::load::args::LoadArgs;

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    2  usage
   10  preflight: something is missing or wrong on this machine; nothing was changed
   20  a step failed
   30  a gate saw that its condition can't come true
   31  a gate, or the whole command, ran out of time
   40  a load threshold failed
   41  the load run is invalid: the generator could not keep its schedule
  130  interrupted";

/// Runs the ResNet-50 API on a Kubernetes cluster of one's own, with readiness gates between the steps.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How, for every command.
    #[command(flatten)]
    pub shared: Shared,
}

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
pub struct Shared {
    /// Which kind of cluster; auto takes minikube where it and a container engine are found, else the sandbox.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        env = "XTASK_CLUSTER",
        hide_env_values = true,
        help_heading = "Shared options"
    )]
    pub cluster: ClusterChoice,
    /// Name of the minikube profile, or of the sandbox.
    #[arg(long, global = true, default_value = "minikube", env = "XTASK_PROFILE", hide_env_values = true, value_parser = name, help_heading = "Shared options")]
    pub profile: String,
    /// Namespace that the app lives in; made if it is missing.
    #[arg(long, global = true, default_value = "default", value_parser = name, help_heading = "Shared options")]
    pub namespace: String,
    /// Loopback port of the sandbox's ingress; 0 takes any free one.
    #[arg(
        long,
        global = true,
        default_value_t = 8080,
        env = "XTASK_PORT",
        hide_env_values = true,
        help_heading = "Shared options"
    )]
    pub port: u16,
    /// Time for the whole command, such as 90s or 10m.
    #[arg(long, global = true, value_parser = duration, help_heading = "Shared options")]
    pub timeout: Option<Duration>,
    /// What is written to stdout: nothing but a command's data, or one JSON object a line.
    #[arg(long, global = true, value_enum, default_value = "human", help_heading = "Shared options")]
    pub output: Format,
    /// Print the plan and change nothing.
    #[arg(long, global = true, help_heading = "Shared options")]
    pub dry_run: bool,
    /// Show each command and what it prints.
    #[arg(short, long, global = true, help_heading = "Shared options")]
    pub verbose: bool,
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
}

/// How a run is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for a person, on stderr.
    Human,
    /// One JSON object a line, on stdout.
    Json,
}

/// The commands, in the order in which a user meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do the whole procedure: cluster, ingress, metrics, image, apply, rollout, route, autoscaler, smoke.
    Up,
    /// Build, apply, restart and verify, on a cluster that `up` made.
    Redeploy,
    /// Ask the newest Ready pod for its health and for a prediction.
    Smoke,
    /// Show what is ready and what is not, gate by gate; changes nothing.
    Status,
    /// Send load once every gate is open, and explain what failed.
    Load(LoadArgs),
    /// Say why requests of a recorded run failed; needs no cluster.
    Explain {
        /// The run: its name or folder; the newest load run without it.
        run: Option<String>,
        /// The request: its id, or how that begins.
        request: Option<String>,
    },
    /// Look for all that is wrong on this machine, each with what mends it; changes nothing.
    Doctor,
    /// Remove what `up` made.
    Down {
        /// Delete the minikube profile too.
        #[arg(long)]
        delete: bool,
    },
    /// Show the app's logs from all pods, prefixed by pod.
    Logs {
        /// Go on as new lines come.
        #[arg(short, long)]
        follow: bool,
        /// Lines from the end of each pod's log; all without it.
        #[arg(long)]
        tail: Option<i64>,
    },
    /// Print the path of a kubeconfig for the chosen cluster, its context pinned.
    Kubeconfig,
    /// Fetch or generate the model's weights.
    Weights {
        /// Which of the two.
        #[command(subcommand)]
        command: Weights,
    },
    /// The embedded cluster's own processes.
    #[command(hide = true)]
    Sandbox {
        /// Which process.
        #[command(subcommand)]
        command: SandboxProcess,
    },
}

/// Where weights come from.
#[derive(Debug, Subcommand)]
pub enum Weights {
    /// Download the pinned weights and verify them.
    Fetch {
        /// Which set; see the README.
        #[arg(long)]
        set: Option<String>,
        /// Fetch again even if they are there.
        #[arg(long)]
        force: bool,
    },
    /// Make seeded weights of the same shape; their predictions mean nothing.
    Generate {
        /// The seed.
        #[arg(long, default_value_t = 50)]
        seed: u64,
    },
}

/// The processes that the sandbox consists of, and what scripts may ask of it.
#[derive(Debug, Subcommand)]
pub enum SandboxProcess {
    /// The cluster: API server, controllers, node agent.
    Serve {
        /// Its state folder.
        #[arg(long)]
        home: PathBuf,
        /// Name of its context in the kubeconfig.
        #[arg(long)]
        context: String,
        /// Loopback port of the ingress; 0 takes any.
        #[arg(long)]
        ingress_port: u16,
        /// Offer the test-only API of faults.
        #[arg(long, env = "XTASK_SANDBOX_FAULTS")]
        faults: bool,
    },
    /// Does something wrong on purpose, for tests; the sandbox must have been started with faults allowed.
    Fault {
        /// The sandbox's state folder.
        #[arg(long)]
        home: PathBuf,
        /// One fault as JSON, or `clear`, or `list`; see `sandbox/apiserver/src/faults.rs`.
        fault: String,
    },
    /// The ingress controller's pod.
    Ingress {
        /// What the pod's `args` say.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Ends what a killed parent left behind.
    Leash,
    /// Ends a sandbox.
    Stop {
        /// Its state folder.
        #[arg(long)]
        home: PathBuf,
    },
    /// Switches an addon on.
    Enable {
        /// The sandbox's state folder.
        #[arg(long)]
        home: PathBuf,
        /// `ingress` or `metrics-server`.
        addon: String,
    },
    /// Imports an image: a folder with the app's binary and `model/`.
    Import {
        /// The sandbox's state folder.
        #[arg(long)]
        home: PathBuf,
        /// `repository:tag`.
        #[arg(long)]
        tag: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Prints the id of an image.
    Image {
        /// The sandbox's state folder.
        #[arg(long)]
        home: PathBuf,
        /// `repository:tag`.
        reference: String,
    },
}

/// What lasts longer is no time that anyone waits, and added to now it may be beyond the clock's end.
const LONGEST_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// A duration as people write it: `90s`, `10m`, `1h 30m`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let span: jiff::SignedDuration =
                text.parse().map_err(|_| format!("`{text}` is no duration; write 90s, 10m or 1h30m"))?;
            Duration::try_from(span).map_err(|_| format!("`{text}` is negative"))?
        }
    };
    if duration > LONGEST_DURATION {
        return Err(format!("`{text}` is longer than a year"));
    }
    Ok(duration)
}

/// A DNS label, since profiles and namespaces end up in host names and object names.
fn name(text: &str) -> Result<String, String> {
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
