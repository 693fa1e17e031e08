//! The command line: data on stdout, diagnostics on stderr.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use sandbox::images::ImageLayout;
use sandbox::{Home, Info, State};
use serde_json::json;

/// How long a sandbox may take to end its pods and itself.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// There is none of what was asked for; the other codes are 0, 1 for a failure, and 2 for usage.
const NOT_FOUND: u8 = 4;

/// How the API says that it does not understand one.
const NO_FAULT: &str = "this is no fault";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  usage
  4  there is none: no sandbox runs there, or it has no such image";

const FAULTS: &str = r#"Faults:
  {"fault":"api","effect":{"answer":503}}
      Requests are answered so; other effects: {"delay_ms":500}, "hang", "hold" (watches hear nothing).
      Narrowed by "resources", "verbs", "namespace", "times" and "seconds".
  {"fault":"cut-watches","resources":["pods"]}
      Watches under way end, once.
  {"fault":"kill","namespace":"default","pod":"web-1"}
      SIGKILL to the pod's containers, once.
  {"fault":"refuse-image","image":"web","answer":"not-found"}
      Its containers can't be created; also "never", for ErrImageNeverPull.
  {"fault":"fail-probes","namespace":"default","seconds":20}
      Every probe there fails.
  {"fault":"black-hole"}
      Connections to pods that end from now on time out, as on a real node; else they are refused.
  {"fault":"proxy","answer":"bad-gateway"}
      The ingress answers 502; also "close" (drops connections) and "refuse" (does not listen).
  {"fault":"latency","ms":20}
      The ingress takes so much longer. Of the ingress, one fault at a time."#;

/// Enough of Kubernetes, in one process, for a workflow of Deployments behind an Ingress: no container engine, no root.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which sandbox.
#[derive(Args, Debug)]
struct At {
    /// The sandbox's folder.
    #[arg(long, value_name = "DIR", env = "SANDBOX_HOME", hide_env_values = true)]
    home: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a sandbox until SIGTERM or SIGINT.
    Serve {
        #[command(flatten)]
        at: At,
        /// Name of its context in the kubeconfig.
        #[arg(long, default_value = "sandbox")]
        context: String,
        /// Loopback port at which the ingress takes requests; 0 takes any free one.
        #[arg(long, default_value_t = 0)]
        ingress_port: u16,
        /// Offer the test-only API of faults.
        #[arg(long, env = "SANDBOX_FAULTS", hide_env_values = true)]
        faults: bool,
    },
    /// End a sandbox, its pods with it, and clear what a killed one left.
    Stop {
        #[command(flatten)]
        at: At,
    },
    /// Say whether one runs, and how to reach it.
    Status {
        #[command(flatten)]
        at: At,
        /// Form of the answer.
        #[arg(long, value_enum, default_value = "human")]
        output: Format,
    },
    /// Switch an addon on: the ingress controller, or the metrics API.
    Enable {
        #[command(flatten)]
        at: At,
        /// The addon.
        addon: Addon,
    },
    /// Put an image into the store, and print its id.
    Import {
        #[command(flatten)]
        at: At,
        /// `repository:tag`.
        #[arg(long)]
        tag: String,
        /// The id that another runtime would give it, `sha256:…`; without it, that of its content.
        #[arg(long)]
        id: Option<String>,
        /// A file of the image: where it lies, and its path in the image.
        #[arg(long = "file", value_name = "SOURCE=PATH", value_parser = file, required = true)]
        files: Vec<(PathBuf, String)>,
        /// A variable that the pod's own replace; `{root}` stands for the image's folder.
        #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
        env: Vec<(String, String)>,
        /// The command line; `{root}` stands for the image's folder.
        #[arg(last = true, required = true)]
        entrypoint: Vec<String>,
    },
    /// Print the id of an image.
    Image {
        #[command(flatten)]
        at: At,
        /// `repository:tag`.
        reference: String,
    },
    /// Do something wrong on purpose, for tests; the sandbox must have been started with `--faults`.
    #[command(after_help = FAULTS)]
    Fault {
        #[command(flatten)]
        at: At,
        /// One fault as JSON, or `clear`, or `list`.
        fault: String,
    },
    /// The ingress controller's pod.
    #[command(hide = true)]
    Ingress {
        /// The pod's `args`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Ends what a killed parent left behind.
    #[command(hide = true)]
    Leash,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line for a person.
    Human,
    /// One JSON object.
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Addon {
    /// The ingress controller, its webhook and its IngressClass.
    Ingress,
    /// The metrics API.
    MetricsServer,
}

/// Runs the command and says how the process shall end.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let ran = tokio::runtime::Runtime::new().context("starting the runtime").and_then(|runtime| {
        // Only a second provider could be in the way, and there is none.
        let _ = rustls::crypto::ring::default_provider().install_default();
        runtime.block_on(dispatch(cli.command))
    });
    match ran.and_then(Answer::print) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", sandbox::chain(error.as_ref()));
            if let Some(hint) = error.downcast_ref().and_then(hint) {
                let _ = writeln!(std::io::stderr(), "hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What to try, where this program has the cure.
fn hint(error: &sandbox::Error) -> Option<String> {
    match error {
        sandbox::Error::AlreadyRunning { home, .. } => {
            let home = home.display();
            Some(format!(
                "`sandbox status --home {home}` says how to reach it, `sandbox stop --home {home}` ends it"
            ))
        }
        sandbox::Error::PortInUse { port } => Some(format!(
            "`ss -ltnp 'sport = :{port}'` shows what listens there; --ingress-port takes another, 0 any free one"
        )),
        _ => None,
    }
}

/// What a command has to print.
enum Answer {
    Nothing,
    Line(String),
    /// There is none of what was asked for: a line on stderr.
    NotFound(String),
}

impl Answer {
    fn print(self) -> Result<ExitCode> {
        match self {
            Answer::Nothing => Ok(ExitCode::SUCCESS),
            Answer::Line(line) => {
                writeln!(std::io::stdout(), "{line}").context("writing to stdout")?;
                Ok(ExitCode::SUCCESS)
            }
            Answer::NotFound(what) => {
                let _ = writeln!(std::io::stderr(), "{what}");
                Ok(ExitCode::from(NOT_FOUND))
            }
        }
    }
}

async fn dispatch(command: Command) -> Result<Answer> {
    match command {
        Command::Serve { at, context, ingress_port, faults } => {
            let program = std::env::current_exe().context("finding this program's own file")?;
            let argv = |word: &str| vec![program.clone().into(), word.into()];
            let home = Home::new(at.home);
            let (ingress_argv, leash_argv) = (argv("ingress"), argv("leash"));
            let options = sandbox::Options { home, context, ingress_port, ingress_argv, leash_argv, faults };
            sandbox::serve(options).await?;
            Ok(Answer::Nothing)
        }
        Command::Stop { at } => {
            if !sandbox::stop(&Home::new(at.home), STOP_DEADLINE).await? {
                bail!("the sandbox did not stop within {} s", STOP_DEADLINE.as_secs());
            }
            Ok(Answer::Nothing)
        }
        Command::Status { at, output } => status(&at.home, output),
        Command::Enable { at, addon } => {
            let Some(info) = running(&at.home)? else { return Ok(none_runs(&at.home)) };
            let client = info.client().await?;
            let changed = match addon {
                Addon::Ingress => sandbox::addons::enable_ingress(&client, &info.entry).await?,
                Addon::MetricsServer => sandbox::addons::enable_metrics(&client).await?,
            };
            Ok(Answer::Line(if changed { "enabled" } else { "already enabled" }.to_owned()))
        }
        Command::Import { at, tag, id, files, env, entrypoint } => {
            let layout = ImageLayout { files, entrypoint, env: env.into_iter().collect() };
            let store = Home::new(at.home).images()?;
            let id = match id {
                Some(id) => store.import_as(&tag, &layout, &id)?,
                None => store.import(&tag, &layout)?,
            };
            Ok(Answer::Line(id.to_string()))
        }
        Command::Image { at, reference } => Ok(match Home::new(at.home).images()?.resolve(&reference)? {
            Some(image) => Answer::Line(image.id.to_string()),
            None => Answer::NotFound(format!("there is no image {reference}")),
        }),
        Command::Fault { at, fault } => {
            let Some(info) = running(&at.home)? else { return Ok(none_runs(&at.home)) };
            ask_for_fault(&at.home, &info.client().await?, fault).await.map(Answer::Line)
        }
        Command::Ingress { args } => {
            sandbox::ingress_process(args).await?;
            Ok(Answer::Nothing)
        }
        Command::Leash => {
            leash::watch_stdin()?;
            Ok(Answer::Nothing)
        }
    }
}

fn status(home: &Path, output: Format) -> Result<Answer> {
    let state = sandbox::state(&Home::new(home))?;
    let current = |info: &Info| -> Result<bool> { Ok(info.build_id == sandbox::build_id()?) };
    let (word, mut answer) = match &state {
        State::Absent => ("absent", json!({})),
        State::Stale => ("stale", json!({})),
        State::Starting => ("starting", json!({})),
        State::Running(info) => ("running", serde_json::to_value(info).context("writing the answer")?),
    };
    answer["state"] = word.into();
    let shown = home.display();
    let line = match &state {
        State::Absent => format!("absent: no sandbox runs in {shown}"),
        State::Stale => {
            format!(
                "stale: the sandbox in {shown} was killed; `sandbox stop --home {shown}` clears what it left"
            )
        }
        State::Starting => format!("starting: a sandbox begins or ends in {shown}"),
        State::Running(info) => {
            let is_current = current(info)?;
            answer["current"] = is_current.into();
            let whose = if is_current { "" } else { ", of another build than this program" };
            format!("running (pid {}{whose}), API {}, entry {}", info.pid, info.api, info.entry)
        }
    };
    Ok(Answer::Line(match output {
        Format::Json => answer.to_string(),
        Format::Human => line,
    }))
}

fn running(home: &Path) -> Result<Option<Info>> {
    Ok(match sandbox::state(&Home::new(home))? {
        State::Running(info) => Some(info),
        _ => None,
    })
}

fn none_runs(home: &Path) -> Answer {
    let home = home.display();
    Answer::NotFound(format!(
        "no sandbox is running in {home}\nhint: `sandbox serve --home {home}` starts one"
    ))
}

async fn ask_for_fault(home: &Path, client: &kube::Client, fault: String) -> Result<String> {
    let (method, body) = match fault.as_str() {
        "list" => (http::Method::GET, String::new()),
        "clear" => (http::Method::DELETE, String::new()),
        _ => (http::Method::POST, fault),
    };
    let request = http::Request::builder().method(method).uri("/sandbox/faults");
    let request = request.body(body.into_bytes()).context("asking for a fault")?;
    match client.request_text(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let home = home.display();
            bail!(
                "the sandbox in {home} was started without --faults\n\
                 hint: `sandbox stop --home {home}`, then `sandbox serve --home {home} --faults`"
            )
        }
        Err(kube::Error::Api(status)) if status.message.starts_with(NO_FAULT) => {
            bail!("{}\nhint: `sandbox help fault` shows what each fault looks like", status.message)
        }
        answer => answer.context("asking the sandbox for a fault"),
    }
}

fn file(text: &str) -> Result<(PathBuf, String)> {
    let (source, path) = text.rsplit_once('=').ok_or_else(|| anyhow!("write SOURCE=PATH"))?;
    Ok((source.into(), path.to_owned()))
}

fn variable(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').ok_or_else(|| anyhow!("write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}
