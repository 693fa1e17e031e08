//! The command line.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::clusters::context;
use crate::compare::CompareArgs;
use crate::explain::ExplainArgs;
use crate::load::args::LoadArgs;
use crate::logs::LogsArgs;
use crate::options::{ClusterChoice, DEFAULT_NAMESPACE, Deploy, Shared};
use crate::prove::ProveArgs;
use crate::test::TestArgs;
use crate::wait::WaitArgs;

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

/// Runs the ResNet-50 API on a Kubernetes cluster of your own, with a readiness gate after each step.
#[derive(Debug, Parser)]
#[command(version, bin_name = "cargo xtask", after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How, for every command.
    #[command(flatten)]
    pub shared: Shared,
}

/// Reads this process's command line.
///
/// # Errors
/// clap's own, which is also how help and version end.
pub fn parse() -> clap::error::Result<Cli> {
    let matches = command().try_get_matches()?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    settle_cluster(&mut cli.shared, &matches)?;
    Ok(cli)
}

/// A context is a kind of cluster and a namespace too. What is said on the command line counts more than a variable.
fn settle_cluster(shared: &mut Shared, matches: &ArgMatches) -> clap::error::Result<()> {
    let said = |id: &str| match matches.value_source(id) {
        Some(ValueSource::CommandLine) => 2,
        Some(ValueSource::EnvVariable) => 1,
        _ => 0,
    };
    let (context, cluster) = (said("context"), said("cluster"));
    let is_other = !matches!(shared.cluster, ClusterChoice::Auto | ClusterChoice::Context);
    if is_other && context > 0 && context == cluster {
        let text = "--context is a cluster of its own: leave out --cluster, or set it to `context`";
        return Err(command().error(ErrorKind::ArgumentConflict, text));
    }
    if is_other && cluster > context {
        shared.context = None;
    }
    if shared.context.is_some() {
        shared.cluster = ClusterChoice::Context;
        if said("namespace") == 0 {
            shared.namespace = context::namespace(shared).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        }
    } else if shared.cluster == ClusterChoice::Context {
        let text = "--cluster context needs --context NAME, a context of your kubeconfig";
        return Err(command().error(ErrorKind::MissingRequiredArgument, text));
    }
    Ok(())
}

/// Whether arguments that can't be read ask for JSON all the same, or the variable does.
pub fn wants_json(args: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let args: Vec<_> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let by_argument = args.iter().enumerate().rev().find_map(|(index, arg)| match arg.as_str() {
        "--output" => args.get(index + 1).cloned(),
        arg => arg.strip_prefix("--output=").map(str::to_owned),
    });
    by_argument.or_else(|| std::env::var("XTASK_OUTPUT").ok()).is_some_and(|format| format == "json")
}

/// The command line as clap knows it. An empty variable is an unset one.
pub fn command() -> clap::Command {
    Cli::command().mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let arg = arg.hide_env_values(true);
        if value.is_some_and(|value| value.is_empty()) { arg.env(None) } else { arg }
    })
}

/// The commands, in the order in which a user meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the cluster, deploy the app and verify it, with a gate after each step.
    Up(Deploy),
    /// Build, apply, restart and verify, on a cluster that is up.
    Redeploy(Deploy),
    /// Watch app/ and kubernetes/: build, apply and verify each save, until `q`.
    Dev(Deploy),
    /// Check the health and one prediction of the newest Ready pod.
    Smoke,
    /// Show what is ready and what is not, gate by gate; changes nothing.
    Status,
    /// Send load once every gate is open, and explain what failed.
    Load(Box<LoadArgs>),
    /// Explain how a run ended, and why requests failed or were slow; needs no cluster.
    Explain(ExplainArgs),
    /// Tell whether a load run is worse than another, beyond chance; needs no cluster.
    Compare(CompareArgs),
    /// Measure what each protection is worth, by loads with it and without it.
    Prove(Box<ProveArgs>),
    /// Check this machine: every problem at once, each with its fix; changes nothing.
    Doctor,
    /// Remove what `up` made.
    Down {
        /// Delete the minikube profile too.
        #[arg(long)]
        delete: bool,
    },
    /// Show the app's logs from all pods, each line prefixed by pod and container.
    Logs(LogsArgs),
    /// Wait until workloads are rolled out, or say early why they can't be; changes nothing.
    Wait(WaitArgs),
    /// Print the path of a kubeconfig for the chosen cluster, its context pinned.
    Kubeconfig,
    /// Fetch or generate the model's weights.
    Weights {
        /// Which of the two.
        #[command(subcommand)]
        command: Weights,
    },
    /// Fetch what the tests call, run them all, and say what did not run and why.
    Test(TestArgs),
    /// Print the completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Ends what a killed run left behind; started by the run itself.
    #[command(hide = true)]
    Leash,
}

impl Command {
    /// Its name, as in the summary that `--output json` ends with.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Up(_) => "up",
            Command::Redeploy(_) => "redeploy",
            Command::Dev(_) => "dev",
            Command::Smoke => "smoke",
            Command::Status => "status",
            Command::Load(_) => "load",
            Command::Explain(_) => "explain",
            Command::Compare(_) => "compare",
            Command::Prove(_) => "prove",
            Command::Doctor => "doctor",
            Command::Down { .. } => "down",
            Command::Logs(_) => "logs",
            Command::Wait(_) => "wait",
            Command::Kubeconfig => "kubeconfig",
            Command::Weights { .. } => "weights",
            Command::Test(_) => "test",
            Command::Completions { .. } => "completions",
            Command::Leash => "leash",
        }
    }
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
