//! The embedded cluster: a program of its own, started as a daemon and asked by its command line.

pub mod program;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::OnceCell;

use super::{Cluster, Kind, Plan, Problem, is_listening};
use crate::cx::Cx;
use crate::failure::{Attach as _, Cancelled, Printed};
use crate::image::{self, ARCHITECTURE, Digests, ImageRef, Linkage, Recipe, contents};
use crate::pipeline::{Outcome, Running};
use crate::proc;
use crate::proc::excerpt::Excerpt;
use program::{Info, Program, State};

/// How long the daemon may take until its API answers.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// The daemon's diagnostics, in its folder.
const LOG: &str = "sandbox.log";
/// Longer than a daemon takes to see that a file of its folder was damaged, and to write it again.
const WRITTEN_AGAIN: Duration = Duration::from_secs(1);

/// A sandbox by its state folder.
#[derive(Clone, Debug)]
pub struct Sandbox {
    home: PathBuf,
    context: String,
    port: u16,
    /// The one that is asked; looked for once in a run.
    program: Arc<OnceCell<Program>>,
    /// The program as its sources are now, where this run has built it.
    built: Arc<OnceCell<Program>>,
    /// That another build runs has been said.
    warned: Arc<OnceLock<()>>,
}

impl Sandbox {
    /// The sandbox of the chosen profile; it need not run.
    pub fn new(cx: &Cx) -> Sandbox {
        let profile = &cx.shared.profile;
        Sandbox {
            home: cx.home().join("sandbox").join(profile),
            context: format!("sandbox-{profile}"),
            port: cx.shared.port,
            program: Arc::default(),
            built: Arc::default(),
            warned: Arc::default(),
        }
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.home.join("kubeconfig")
    }

    /// The program to ask; none where there is no folder to ask about.
    async fn program(&self, cx: &Cx) -> Result<Option<&Program>> {
        if self.program.get().is_none()
            && let Some(program) = Program::of(cx, &self.home).await?
        {
            // Whoever was first has found the same.
            let _ = self.program.set(program);
        }
        Ok(self.program.get())
    }

    /// The program of a sandbox that was found or started.
    fn found(&self) -> Result<&Program> {
        self.program.get().context("the sandbox was not looked for yet")
    }

    async fn state(&self, cx: &Cx) -> Result<State> {
        match self.program(cx).await? {
            Some(program) => program.state(cx, &self.home).await,
            None => Ok(State::Absent),
        }
    }

    pub(super) async fn problems(&self, cx: &Cx) -> Result<Vec<Problem>> {
        if self.port == 0 {
            return Ok(Vec::new());
        }
        let Err(error) = std::net::TcpListener::bind(("127.0.0.1", self.port)) else { return Ok(Vec::new()) };
        // Its own ingress may be what listens there.
        if matches!(self.state(cx).await, Ok(State::Running(_))) {
            return Ok(Vec::new());
        }
        Ok(vec![Problem {
            what: format!("port {} of 127.0.0.1, for the ingress, is not free: {error}", self.port),
            fix: format!(
                "stop what listens there (`ss -ltnp 'sport = :{}'`), or choose another with --port",
                self.port
            ),
        }])
    }

    /// That the daemon is of another build than this tool, and what replaces it; none if it is of the same.
    pub(super) async fn outdated(&self, cx: &Cx) -> Result<Option<String>> {
        Ok(match self.state(cx).await? {
            State::Running(info) if !info.current => Some(replace(cx)),
            _ => None,
        })
    }

    /// Why it has gone for good, in a clause. Its program is asked only while nothing listens at the API's address.
    pub(super) async fn gone(&self, cx: &Cx) -> Option<String> {
        if is_listening(&self.kubeconfig()).await {
            return None;
        }
        // One that seems to start anew is ending, unless it only writes again what was damaged in its folder.
        if self.state(cx).await.ok()? == State::Starting {
            tokio::time::sleep(WRITTEN_AGAIN).await;
        }
        if let State::Running(_) = self.state(cx).await.ok()? {
            return None;
        }
        let log = self.home.join(LOG);
        Some(format!(
            "the process of the sandbox `{}` has ended; its log is {}",
            cx.shared.profile,
            log.display()
        ))
    }

    pub(super) async fn ensure_running(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<Cluster>> {
        // One that runs is asked by its own program; whether that is of the sources as they are now, is asked beside
        // what comes next.
        if let Some(program) = Program::of_running(&self.home)
            && let State::Running(info) = self.settled(cx, step, &program).await?
        {
            let _ = self.program.set(program);
            self.warn_if_outdated(cx, step, &info);
            let how = format!("the sandbox is running, entry {}", info.entry);
            return Ok(Outcome::Already(self.cluster(info).await?, how));
        }
        let program = self.built.get_or_try_init(async || Program::build(cx, step).await).await?;
        let _ = self.program.set(program.clone());
        let recovered = match self.settled(cx, step, program).await? {
            State::Running(info) => {
                self.warn_if_outdated(cx, step, &info);
                let how = format!("the sandbox is running, entry {}", info.entry);
                return Ok(Outcome::Already(self.cluster(info).await?, how));
            }
            State::Stale => {
                program.stop(cx, &self.home).await.context("cleaning up after a killed sandbox")?;
                ", after cleaning up after a killed one"
            }
            State::Absent | State::Starting => "",
        };
        let log = self.log()?;
        let log_before = std::fs::metadata(&log).map_or(0, |log| log.len());
        let mut daemon = proc::daemon(self.serve_command(program)?, &log)?;
        let deadline = tokio::time::Instant::now() + START_DEADLINE;
        loop {
            // Until then its program need not be asked.
            if self.home.join(program::INFO).exists()
                && let State::Running(info) = program.state(cx, &self.home).await?
            {
                let how = format!("sandbox started, entry {}{recovered}", info.entry);
                return Ok(Outcome::Did(self.cluster(info).await?, how));
            }
            if let Some(status) = daemon.try_wait().context("watching the sandbox's process")? {
                return Err(self.failed(&format!("the sandbox exited at once ({status})"), log_before));
            }
            if tokio::time::Instant::now() > deadline {
                return Err(self.failed("the sandbox started but its API does not answer", log_before));
            }
            step.at("waiting for the sandbox's API");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
                () = cx.stopped() => return Err(Cancelled.into()),
            }
        }
    }

    /// Says whether what runs is of the sources as they are now; they are built for that.
    pub(super) async fn check_current(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<()>> {
        let program = self.built.get_or_try_init(async || Program::build(cx, step).await).await?;
        let State::Running(info) = program.state(cx, &self.home).await? else {
            return Ok(Outcome::Already((), "skipped: the sandbox does not run any more".to_owned()));
        };
        self.warn_if_outdated(cx, step, &info);
        let how = if info.current { "the sources as they are now" } else { "another build" };
        Ok(Outcome::Already((), format!("the sandbox that runs is of {how}")))
    }

    fn warn_if_outdated(&self, cx: &Cx, step: &Running<'_>, info: &Info) {
        if !info.current && self.warned.set(()).is_ok() {
            step.warn(replace(cx));
        }
    }

    /// Waits for a daemon that starts, ends, or is about to write again what was damaged in its folder. Returns what
    /// its folder says then.
    async fn settled(&self, cx: &Cx, step: &Running<'_>, program: &Program) -> Result<State> {
        let deadline = tokio::time::Instant::now() + START_DEADLINE;
        loop {
            let state = program.state(cx, &self.home).await?;
            if state != State::Starting {
                return Ok(state);
            }
            if tokio::time::Instant::now() > deadline {
                let (down, up) = (cx.commands.xtask("down"), cx.commands.xtask("up"));
                let folder = self.home.display();
                return Err(anyhow!("the sandbox that holds {folder} does not say how to reach it"))
                    .hint(format!("`{down}`, then `{up}`, replaces it"));
            }
            step.at("a sandbox starts or ends: waiting for it");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = cx.stopped() => return Err(Cancelled.into()),
            }
        }
    }

    /// The file of the daemon's diagnostics; its folder is for its owner alone.
    fn log(&self) -> Result<PathBuf> {
        let mut folder = std::fs::DirBuilder::new();
        folder.recursive(true).mode(0o700);
        folder.create(&self.home).with_context(|| format!("making {}", self.home.display()))?;
        Ok(self.home.join(LOG))
    }

    /// A failed start, with what the daemon has logged since then.
    fn failed(&self, what: &str, log_before: u64) -> anyhow::Error {
        let log = self.home.join(LOG);
        let bytes = std::fs::read(&log).unwrap_or_default();
        let since = usize::try_from(log_before).ok().and_then(|start| bytes.get(start..)).unwrap_or(&bytes);
        let log = log.display().to_string();
        let lines = Excerpt::of(&String::from_utf8_lossy(since)).lines(Some(&log));
        anyhow!("{what}").attach(Printed { by: "sandbox serve".to_owned(), lines, log: Some(log) })
    }

    fn serve_command(&self, program: &Program) -> Result<proc::Command> {
        let (context, port) = (&self.context, self.port.to_string());
        program.command("serve", &self.home, &["--context", context, "--ingress-port", &port])
    }

    async fn cluster(&self, info: Info) -> Result<Cluster> {
        let client = match super::client(&info.kubeconfig, &self.context).await {
            Ok(client) => client,
            // Damaged, as it seems.
            Err(_) => {
                tokio::time::sleep(WRITTEN_AGAIN).await;
                super::client(&info.kubeconfig, &self.context).await?
            }
        };
        Ok(Cluster {
            kind: Kind::Sandbox(self.clone()),
            context: self.context.clone(),
            client,
            kubeconfig: info.kubeconfig,
            entry: info.entry,
            tunnel: None,
            nginx: true,
            metrics: true,
        })
    }

    pub(super) async fn find(&self, cx: &Cx) -> Result<Option<Cluster>> {
        match self.state(cx).await? {
            State::Running(info) => self.cluster(info).await.map(Some),
            State::Absent | State::Stale | State::Starting => Ok(None),
        }
    }

    pub(super) async fn enable_ingress(&self, cx: &Cx) -> Result<Outcome<()>> {
        let changed = self.found()?.enable(cx, &self.home, "ingress").await?;
        Ok(enabled(changed, "ingress controller applied", "the ingress controller is applied"))
    }

    pub(super) async fn enable_metrics(&self, cx: &Cx) -> Result<Outcome<()>> {
        let changed = self.found()?.enable(cx, &self.home, "metrics-server").await?;
        Ok(enabled(changed, "metrics API registered", "the metrics API is registered"))
    }

    pub(super) async fn build_image(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        recipe: &Recipe,
    ) -> Result<Outcome<ImageRef>> {
        let (program, reference) = (self.found()?, recipe.reference());
        if let Some(id) = program.image(cx, &self.home, &reference).await? {
            let already = format!("{reference} is up to date: its inputs are unchanged");
            let digests = Digests::new([id.as_str()]);
            return Ok(Outcome::Already(ImageRef { reference, digests }, already));
        }
        let binary = recipe.binary(cx, step, Linkage::Host).await?;
        step.at("importing the image");
        let image = contents(&reference, ARCHITECTURE, &binary, &recipe.model_dir);
        let id = program.import(cx, &self.home, &image).await;
        let id = id.context("importing the image into the sandbox's store")?;
        let digests = Digests::new([id.as_str()]);
        let how = format!("{reference} built, {digests}");
        Ok(Outcome::Did(ImageRef { reference, digests }, how))
    }

    pub(super) async fn digests(&self, cx: &Cx, reference: &str) -> Result<Option<Digests>> {
        let id = self.found()?.image(cx, &self.home, reference).await?;
        Ok(id.map(|id| Digests::new([id.as_str()])))
    }

    pub(super) async fn stop(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<()>> {
        // Also where its folder is gone: its processes may not be.
        let program = self.program.get_or_try_init(async || Program::build(cx, step).await).await?;
        if program.state(cx, &self.home).await? == State::Absent {
            return Ok(Outcome::Already((), "no sandbox is running".to_owned()));
        }
        program.stop(cx, &self.home).await?;
        Ok(Outcome::Did((), "sandbox stopped, and its pods with it".to_owned()))
    }

    pub(super) fn plan(&self) -> Result<Plan> {
        let program = program::unbuilt();
        let command = |name, args: &[&str]| -> Result<String> {
            Ok(program.command(name, &self.home, args)?.to_string())
        };
        Ok(Plan {
            cluster: vec![
                "nothing, if it runs".to_owned(),
                program::build_command()?.to_string(),
                self.serve_command(&program)?.to_string(),
            ],
            current: vec![program::build_command()?.to_string(), "compare it with what runs".to_owned()],
            ingress: vec![command("enable", &["ingress"])?],
            metrics: vec![command("enable", &["metrics-server"])?],
            image: vec![
                image::compile_command(Linkage::Host)?.to_string(),
                "import into the sandbox's image store".to_owned(),
            ],
        })
    }
}

fn enabled(changed: bool, did: &str, already: &str) -> Outcome<()> {
    if changed { Outcome::Did((), did.to_owned()) } else { Outcome::Already((), already.to_owned()) }
}

fn replace(cx: &Cx) -> String {
    let (down, up) = (cx.commands.xtask("down"), cx.commands.xtask("up"));
    format!(
        "the running sandbox was started by another build of this tool; `{down}`, then `{up}`, replaces it"
    )
}
