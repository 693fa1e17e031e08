//! From the command line to the exit code: one run of one command, its signals and its time limit.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::signal::unix::{SignalKind, signal};

use crate::ci::Ci;
use crate::cli::{self, Cli, Command};
use crate::commands::Commands;
use crate::cx::Cx;
use crate::failure::{Exit, exit_of};
use crate::options::{Format, Shared};
use crate::output::{self, Output};
use crate::pipeline::Branch;
use crate::recorder::{self, Recorder, Scope};
use crate::summary::Summary;
use crate::{
    clusters, compare, completions, dev, doctor, down, explain, kubeconfig, load, logs, plan, prove,
    redeploy, report, smoke, status, test, up, wait, weights, workspace,
};

/// Runs the command and says how the process shall end.
pub fn main(cli: Cli) -> Exit {
    restrict_umask();
    let runtime = match tokio::runtime::Runtime::new().context("starting the runtime") {
        Ok(runtime) => runtime,
        Err(error) => return output::report(&error),
    };
    // Only a second provider could be in the way, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exit = match cli.command {
        Command::Leash => match leash::watch_stdin() {
            Ok(()) => Exit::Done,
            Err(error) => output::report(&error),
        },
        command => runtime.block_on(run(cli.shared, command)),
    };
    // A blocking read, such as a large file's checksum, must not hold up Ctrl-C.
    runtime.shutdown_background();
    exit
}

/// Where everybody may write what this user makes, as in some containers, nobody else may write what is made from here
/// on, by children too.
fn restrict_umask() {
    let before = umask(Mode::WGRP | Mode::WOTH);
    if before.contains(Mode::WOTH) {
        umask(before);
    }
}

/// Ends a process whose command line asks for no run: help, version, or a mistake.
pub fn without_run(error: &clap::Error) -> Exit {
    use clap::error::ErrorKind;
    let is_asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let exit = if is_asked_for { Exit::Done } else { Exit::Usage };
    if !cli::wants_json(std::env::args_os()) {
        return output::usage(error, exit);
    }
    let text = error.render().to_string();
    let text = text.trim().strip_prefix("error: ").unwrap_or(text.trim()).to_owned();
    let (name, result) = match error.kind() {
        ErrorKind::DisplayHelp => ("help", Ok([("help".to_owned(), text.into())].into_iter().collect())),
        ErrorKind::DisplayVersion => ("version", Ok(Summary::new())),
        _ => ("usage", Err(anyhow::anyhow!("{text}"))),
    };
    let output = Output::new(Format::Json, false).named(name);
    output.summary(&output.summarized(&[], &result, exit), &[], &result, exit);
    output.delivered(exit, true)
}

async fn run(shared: Shared, command: Command) -> Exit {
    let (format, verbose, name) = (shared.output, shared.verbose, command.name());
    let (commands, ci) = (Commands::new(&shared), Ci::of_environment(shared.junit.clone()));
    let output = || Output::new(format, verbose).named(name).hinting(commands.clone());
    let cx = match prepare(shared, output(), &command) {
        Ok(cx) => Arc::new(cx),
        Err(error) => {
            let exit = exit_of(&error);
            let (output, result) = (output(), Err(error));
            let summary = output.summarized(&[], &result, exit);
            output.summary(&summary, &[], &result, exit);
            return tell(&ci, &output, &summary, exit);
        }
    };
    let signals = tokio::spawn(listen(Arc::clone(&cx)));
    // A gate that has the whole time for itself shows what it saw when that is over.
    let longer = if matches!(command, Command::Wait(_)) { wait::LONGER } else { Duration::ZERO };
    let timer = tokio::spawn(limit(Arc::clone(&cx), longer));
    let guard = tokio::spawn(watch_over(Arc::clone(&cx)));
    // What only reads has nothing to go on for when nobody reads it; what changes the cluster goes on to its end.
    let only_reads = cx.shared.dry_run || recorded(&command).is_none();
    let reader = tokio::spawn(read(Arc::clone(&cx), only_reads));
    let recorder = reported(&command).and_then(|scope| Recorder::begin(&cx, name, scope));
    let opens = matches!(&command, Command::Load(args) if args.report);
    let result = if cx.shared.dry_run { planned(&cx, &command).await } else { dispatch(&cx, command).await };
    let result = cx.verdict(result);
    timer.abort();
    guard.abort();
    reader.abort();
    let mut exit = result.as_ref().map_or_else(exit_of, |_| Exit::Done);
    let gaps = match recorder {
        Some(recorder) => Some(recorder.end().await),
        None => None,
    };
    // That it was stopped for want of a reader is nothing to tell.
    if !(only_reads && cx.output.reader_has_left()) {
        let spans = cx.spans().clone();
        let mut summary = cx.output.summarized(&spans, &result, exit);
        if let Some(gaps) = gaps {
            report::leave(&cx, &mut summary, &gaps, opens);
        }
        cx.output.summary(&summary, &spans, &result, exit);
        exit = tell(&ci, &cx.output, &summary, exit);
    }
    signals.abort();
    cx.output.delivered(exit, only_reads)
}

/// Tells a CI system how the run ended; that it can't be told is a failure of its own.
fn tell(ci: &Ci, output: &Output, summary: &Summary, exit: Exit) -> Exit {
    match ci.tell(summary) {
        Ok(lines) => {
            lines.iter().for_each(|line| output.note(line));
            exit
        }
        Err(error) if exit == Exit::Done => output::report(&error),
        Err(error) => {
            output.note(&format!("warning: {error:#}"));
            exit
        }
    }
}

fn prepare(shared: Shared, output: Output, command: &Command) -> Result<Cx> {
    let exe = std::env::current_exe().context("finding this program's own file")?;
    let leash_argv: Vec<OsString> = vec![exe.into(), "leash".into()];
    let leash = leash::Leash::start(&leash_argv).context("starting the leash")?;
    let root = workspace::root()?;
    let target = workspace::target(&root)?;
    let mut cx = Cx::new(root, target, shared, output, leash);
    if let Some(name) = recorded(command).filter(|_| !cx.shared.dry_run) {
        cx.open_run_dir(name)?;
    }
    Ok(cx)
}

/// The name of the run's folder, for the commands that keep one.
fn recorded(command: &Command) -> Option<&'static str> {
    match command {
        Command::Up(_) => Some("up"),
        Command::Redeploy(_) => Some("redeploy"),
        Command::Dev(_) => Some("dev"),
        Command::Smoke => Some("smoke"),
        Command::Load(_) => Some("load"),
        Command::Prove(_) => Some("prove"),
        Command::Down { .. } => Some("down"),
        Command::Weights { .. } => Some("weights"),
        Command::Test(_) => Some("test"),
        Command::Status
        | Command::Explain(_)
        | Command::Compare(_)
        | Command::Doctor
        | Command::Logs(_)
        | Command::Wait(_)
        | Command::Kubeconfig
        | Command::Completions { .. }
        | Command::Leash => None,
    }
}

/// What is recorded of a command's run beside its events, for its report; nothing of those that have none.
fn reported(command: &Command) -> Option<Scope> {
    match command {
        Command::Up(_) | Command::Redeploy(_) => Some(Scope::Cluster),
        // A load has a witness of its own, who must be there before the first request.
        Command::Load(_) | Command::Prove(_) | Command::Smoke => Some(Scope::Environment),
        // Each save that it follows has steps and an end of its own: all of them are in its events.
        Command::Dev(_) => None,
        other => recorded(other).map(|_| Scope::Machine),
    }
}

async fn dispatch(cx: &Cx, command: Command) -> Result<Summary> {
    let branch = &mut Branch::first(cx);
    match command {
        Command::Up(deploy) => up::run(branch, deploy).await,
        Command::Redeploy(deploy) => redeploy::run(branch, deploy).await,
        Command::Dev(deploy) => dev::run(cx, deploy).await,
        Command::Smoke => smoke::run(branch).await,
        Command::Status => status::run(cx).await,
        Command::Load(args) => load::run(branch, &args).await,
        Command::Explain(args) => explain::run(cx, &args),
        Command::Compare(args) => compare::run(cx, &args),
        Command::Prove(args) => prove::run(cx, &args).await,
        Command::Doctor => doctor::run(cx).await,
        Command::Down { delete } => down::run(branch, delete).await,
        Command::Logs(args) => logs::run(cx, &args).await,
        Command::Wait(args) => wait::run(branch, &args).await,
        Command::Kubeconfig => kubeconfig::run(cx).await,
        Command::Test(args) => test::run(branch, &args).await,
        Command::Completions { shell } => completions::run(cx, shell),
        Command::Weights { command } => weights::run(branch, command).await,
        Command::Leash => Ok(Summary::new()),
    }
}

/// `--dry-run`: what the command would do. Changes nothing.
async fn planned(cx: &Cx, command: &Command) -> Result<Summary> {
    let choice = clusters::choose(cx).await?;
    let kind = &choice.kind;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
    let mut plan = match command {
        Command::Up(deploy) => up::plan(cx, kind, &manifests, *deploy).await?,
        Command::Redeploy(deploy) => redeploy::plan(cx, kind, &manifests, *deploy).await?,
        Command::Dev(deploy) => dev::plan(cx, kind, &manifests, *deploy).await?,
        Command::Smoke => smoke::plan(),
        Command::Load(args) => load::plan(cx, args, &manifests)?,
        Command::Prove(args) => prove::plan(cx, args, &manifests)?,
        Command::Down { delete } => down::plan(cx, kind, &manifests, *delete).await?,
        Command::Weights { command } => weights::plan(cx, command)?,
        Command::Test(args) => test::plan(cx, args)?,
        Command::Wait(args) => wait::plan(args)?,
        Command::Status
        | Command::Explain(_)
        | Command::Compare(_)
        | Command::Doctor
        | Command::Logs(_)
        | Command::Kubeconfig
        | Command::Completions { .. }
        | Command::Leash => Vec::new(),
    };
    plan.extend(reported(command).map(|scope| recorder::plan(cx, scope)));
    Ok(plan::show(cx, &format!("plan on {} ({})", kind.name(), choice.why), &plan))
}

/// The first signal asks the run to stop; the second does not ask. Signals count from the call on, not from the first
/// poll.
fn listen(cx: Arc<Cx>) -> impl Future<Output = ()> {
    let mut hang_up = if is_hang_up_ignored() { None } else { signal(SignalKind::hangup()).ok() };
    let others = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = others else { return };
        for again in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = async { hang_up.as_mut()?.recv().await }, if hang_up.is_some() => {}
            }
            if again {
                cx.output.give_back_keys();
                // The leash sees this process end, and kills every group that is still held.
                std::process::exit(i32::from(Exit::Interrupted as u8));
            }
            cx.output.note("stopping; press Ctrl-C again to kill");
            cx.stop_interrupted();
        }
    }
}

/// Whether this process was started to outlive its terminal, as by `nohup`.
#[must_use]
pub fn is_hang_up_ignored() -> bool {
    // Only Linux tells without a system call of our own; elsewhere a hang-up always counts.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Bit 0 is signal 1, SIGHUP.
    ignored.is_some_and(|mask| mask & 1 == 1)
}

async fn read(cx: Arc<Cx>, only_reads: bool) {
    if only_reads {
        cx.output.reader_leaves().await;
        cx.stop_failed();
    }
}

async fn watch_over(cx: Arc<Cx>) {
    cx.watch_over().await;
}

async fn limit(cx: Arc<Cx>, longer: Duration) {
    if let Some(timeout) = cx.shared.timeout {
        tokio::time::sleep(timeout + longer).await;
        cx.stop_timeout();
    }
}
