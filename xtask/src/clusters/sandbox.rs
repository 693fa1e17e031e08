//! The embedded cluster: this very program, started again as a daemon.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use sandbox::{Home, State};
use xshell::cmd;

use super::{Cluster, Kind, Plan, Problem};
use crate::cli::SandboxProcess;
use crate::cx::Cx;
use crate::failure::{Attach as _, Cancelled, Printed};
use crate::image::Digests;
use crate::manifests::REPOSITORY;
use crate::pipeline::{Outcome, Running};
use crate::proc;
use crate::proc::excerpt::Excerpt;
use crate::steps::image::{self, ImageRef, Linkage, Recipe};

/// How long the daemon may take until its API answers.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take to end its pods and itself.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Longer than a daemon takes to see that a file of its folder was damaged, and to write it again.
const WRITTEN_AGAIN: Duration = Duration::from_secs(1);

/// A sandbox by its state folder.
#[derive(Clone, Debug)]
pub struct Sandbox {
    home: PathBuf,
    context: String,
    port: u16,
}

impl Sandbox {
    /// The sandbox of the chosen profile; it need not run.
    pub fn new(cx: &Cx) -> Sandbox {
        let profile = &cx.shared.profile;
        Sandbox {
            home: cx.home().join("sandbox").join(profile),
            context: format!("sandbox-{profile}"),
            port: cx.shared.port,
        }
    }

    fn home(&self) -> Home {
        Home::new(self.home.clone())
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let running = matches!(sandbox::state(&self.home()), Ok(State::Running(_)));
        if running || self.port == 0 {
            return Vec::new();
        }
        match std::net::TcpListener::bind(("127.0.0.1", self.port)) {
            Ok(_) => Vec::new(),
            Err(error) => vec![Problem {
                what: format!("port {} of 127.0.0.1, for the ingress, is not free: {error}", self.port),
                fix: format!(
                    "stop what listens there (`ss -ltnp 'sport = :{}'`), or choose another with --port",
                    self.port
                ),
            }],
        }
    }

    /// That the daemon is of another build than this tool, and what replaces it; none if it is of the same.
    pub(super) fn outdated(&self, cx: &Cx) -> Option<String> {
        let Ok(State::Running(info)) = sandbox::state(&self.home()) else { return None };
        (info.build_id != sandbox::build_id().ok()?).then(|| {
            let (down, up) = (cx.commands.xtask("down"), cx.commands.xtask("up"));
            format!(
                "the running sandbox was started by another build of this tool; `{down}`, then `{up}`, replaces it"
            )
        })
    }

    /// Why it has gone for good, in a clause.
    pub(super) async fn gone(&self, cx: &Cx) -> Option<String> {
        let look = || sandbox::state(&self.home()).ok();
        // One that seems to start anew is ending, unless it only writes again what was damaged in its folder.
        if look()? == State::Starting {
            tokio::time::sleep(WRITTEN_AGAIN).await;
        }
        if let State::Running(_) = look()? {
            return None;
        }
        let log = self.home().log();
        Some(format!(
            "the process of the sandbox `{}` has ended; its log is {}",
            cx.shared.profile,
            log.display()
        ))
    }

    pub(super) async fn ensure_running(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<Cluster>> {
        self.settle(cx, step).await?;
        if let Some(cluster) = self.find().await? {
            let entry = cluster.entry.clone();
            if let Some(why) = self.outdated(cx) {
                step.warn(why);
            }
            return Ok(Outcome::Already(cluster, format!("the sandbox is running, entry {entry}")));
        }
        let home = self.home();
        let recovered = match sandbox::state(&home)? {
            State::Stale => {
                sandbox::stop(&home, STOP_DEADLINE).await.context("cleaning up after a killed sandbox")?;
                ", after cleaning up after a killed one"
            }
            _ => "",
        };
        home.create().context("making the sandbox's folder")?;
        let log_before = std::fs::metadata(home.log()).map_or(0, |log| log.len());
        let mut daemon = proc::daemon(self.serve_command()?, &home.log())?;
        let deadline = tokio::time::Instant::now() + START_DEADLINE;
        loop {
            if let Some(cluster) = self.find().await? {
                let how = format!("sandbox started, entry {}{recovered}", cluster.entry);
                return Ok(Outcome::Did(cluster, how));
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

    /// Waits for a daemon that starts, ends, or is about to write again what was damaged in its folder.
    async fn settle(&self, cx: &Cx, step: &Running<'_>) -> Result<()> {
        let deadline = tokio::time::Instant::now() + START_DEADLINE;
        while sandbox::state(&self.home())? == State::Starting {
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
        Ok(())
    }

    /// A failed start, with what the daemon has logged since then.
    fn failed(&self, what: &str, log_before: u64) -> anyhow::Error {
        let log = self.home().log();
        let bytes = std::fs::read(&log).unwrap_or_default();
        let since = usize::try_from(log_before).ok().and_then(|start| bytes.get(start..)).unwrap_or(&bytes);
        let log = log.display().to_string();
        let lines = Excerpt::of(&String::from_utf8_lossy(since)).lines(Some(&log));
        anyhow!("{what}").attach(Printed { by: "sandbox serve".to_owned(), lines, log: Some(log) })
    }

    fn serve_command(&self) -> Result<proc::Command> {
        let sh = proc::shell()?;
        let exe = std::env::current_exe().context("finding this program's own file")?;
        let (home, context, port) = (&self.home, &self.context, self.port.to_string());
        Ok(cmd!(sh, "{exe} sandbox serve --home {home} --context {context} --ingress-port {port}").into())
    }

    pub(super) async fn find(&self) -> Result<Option<Cluster>> {
        let State::Running(info) = sandbox::state(&self.home())? else { return Ok(None) };
        let client = match super::client(&info.kubeconfig, &self.context).await {
            Ok(client) => client,
            // Damaged, as it seems.
            Err(_) => {
                tokio::time::sleep(WRITTEN_AGAIN).await;
                super::client(&info.kubeconfig, &self.context).await?
            }
        };
        Ok(Some(Cluster {
            kind: Kind::Sandbox(self.clone()),
            context: self.context.clone(),
            kubeconfig: info.kubeconfig,
            client,
            entry: info.entry,
        }))
    }

    pub(super) async fn enable_ingress(&self, cluster: &Cluster) -> Result<Outcome<()>> {
        let changed = sandbox::addons::enable_ingress(&cluster.client, &cluster.entry).await?;
        Ok(said(changed, "ingress controller applied", "the ingress controller is applied"))
    }

    pub(super) async fn enable_metrics(&self, cluster: &Cluster) -> Result<Outcome<()>> {
        let changed = sandbox::addons::enable_metrics(&cluster.client).await?;
        Ok(said(changed, "metrics API registered", "the metrics API is registered"))
    }

    pub(super) async fn build_image(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        recipe: &Recipe,
    ) -> Result<Outcome<ImageRef>> {
        let store = self.home().images()?;
        let reference = recipe.reference();
        if let Some(image) = store.resolve(&reference)? {
            let already = format!("{reference} is up to date: its inputs are unchanged");
            return Ok(Outcome::Already(
                ImageRef { reference, digests: Digests::new([image.id.as_str()]) },
                already,
            ));
        }
        let binary = image::compile(cx, step, Linkage::Host).await?;
        step.at("importing the image");
        let model = recipe.model_dir.clone();
        let (tag, layout) = (reference.clone(), image::layout(&binary, &model));
        let id = tokio::task::spawn_blocking(move || store.import(&tag, &layout))
            .await
            .context("importing the image")?
            .context("importing the image into the sandbox's store")?;
        let digests = Digests::new([id.as_str()]);
        let how = format!("{reference} built, {digests}");
        Ok(Outcome::Did(ImageRef { reference, digests }, how))
    }

    pub(super) fn digests(&self, reference: &str) -> Result<Option<Digests>> {
        Ok(self.home().images()?.resolve(reference)?.map(|image| Digests::new([image.id.as_str()])))
    }

    pub(super) async fn stop(&self) -> Result<Outcome<()>> {
        let home = self.home();
        if matches!(sandbox::state(&home)?, State::Absent) {
            return Ok(Outcome::Already((), "no sandbox is running".to_owned()));
        }
        if !sandbox::stop(&home, STOP_DEADLINE).await? {
            bail!("the sandbox did not stop within {} s", STOP_DEADLINE.as_secs());
        }
        Ok(Outcome::Did((), "sandbox stopped, and its pods with it".to_owned()))
    }

    pub(super) fn plan(&self) -> Result<Plan> {
        Ok(Plan {
            cluster: vec![self.serve_command()?.to_string()],
            ingress: vec![
                "server-side apply: namespace ingress-nginx, its controller, webhook and IngressClass"
                    .to_owned(),
            ],
            metrics: vec!["server-side apply: APIService v1beta1.metrics.k8s.io".to_owned()],
            image: vec![
                image::compile_command(Linkage::Host)?.to_string(),
                "import into the sandbox's image store".to_owned(),
            ],
        })
    }
}

fn said(changed: bool, did: &str, already: &str) -> Outcome<()> {
    if changed { Outcome::Did((), did.to_owned()) } else { Outcome::Already((), already.to_owned()) }
}

/// Runs one of the sandbox's own processes; the hidden subcommands end here. Returns what there is to print.
///
/// # Errors
/// The process's own.
pub async fn process(command: SandboxProcess) -> Result<Option<String>> {
    let exe = std::env::current_exe().context("finding this program's own file")?;
    match command {
        SandboxProcess::Serve { home, context, ingress_port, faults } => {
            let prefix = |word: &str| vec![exe.clone().into(), "sandbox".into(), word.into()];
            let options = sandbox::Options {
                home: Home::new(home),
                context,
                ingress_port,
                ingress_argv: prefix("ingress"),
                leash_argv: prefix("leash"),
                faults,
            };
            sandbox::serve(options).await?;
        }
        SandboxProcess::Ingress { args } => sandbox::ingress_process(args).await?,
        SandboxProcess::Leash => leash::watch_stdin()?,
        SandboxProcess::Stop { home } => {
            sandbox::stop(&Home::new(home), STOP_DEADLINE).await?;
        }
        SandboxProcess::Enable { home, addon } => {
            let State::Running(info) = sandbox::state(&Home::new(home))? else {
                bail!("no sandbox is running there")
            };
            let client = super::client(&info.kubeconfig, &info.context).await?;
            match addon.as_str() {
                "ingress" => sandbox::addons::enable_ingress(&client, &info.entry).await?,
                "metrics-server" => sandbox::addons::enable_metrics(&client).await?,
                other => bail!("there is no addon `{other}`; there are ingress and metrics-server"),
            };
        }
        SandboxProcess::Fault { home, fault } => {
            let State::Running(info) = sandbox::state(&Home::new(home))? else {
                bail!("no sandbox is running there")
            };
            let client = super::client(&info.kubeconfig, &info.context).await?;
            let (method, body) = match fault.as_str() {
                "list" => (http::Method::GET, String::new()),
                "clear" => (http::Method::DELETE, String::new()),
                fault => (http::Method::POST, fault.to_owned()),
            };
            let request = http::Request::builder().method(method).uri("/sandbox/faults");
            let request = request.body(body.into_bytes()).context("asking for a fault")?;
            return Ok(Some(client.request_text(request).await.context("asking the sandbox for a fault")?));
        }
        SandboxProcess::Import { home, tag, id, folder } => {
            let layout = image::layout(&folder.join(REPOSITORY), &folder.join("model"));
            let store = Home::new(home).images()?;
            let id = match id {
                Some(id) => store.import_as(&tag, &layout, &id)?,
                None => store.import(&tag, &layout)?,
            };
            return Ok(Some(id.to_string()));
        }
        SandboxProcess::Image { home, reference } => {
            let image = Home::new(home).images()?.resolve(&reference)?;
            return Ok(Some(image.ok_or_else(|| anyhow!("there is no image {reference}"))?.id.to_string()));
        }
    }
    Ok(None)
}
