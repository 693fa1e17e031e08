//! minikube, the real thing. Every command names its profile, and sees a kubeconfig of our own instead of the
//! user's, so that the ambient context is neither used nor moved.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::Mutex;
use xshell::cmd;

use self::profile::{Found, Profile};
use super::{Cluster, Kind, Plan, Problem, Size};
use crate::cx::Cx;
use crate::image::HOST_IS_NODE;
use crate::pipeline::{Outcome, Running};
use crate::proc::{self, Command};

mod addons;
mod image;
mod profile;
mod turn;
mod words;

/// A container engine that does not answer in this time is not working.
const ENGINE_DEADLINE: Duration = Duration::from_secs(5);

/// The runtime that minikube's docker-env is for.
const DOCKER: &str = "docker";
/// The others, by minikube's names: into their nodes an image goes as an archive.
const BY_ARCHIVE: [&str; 2] = ["containerd", "crio"];

/// A minikube profile.
#[derive(Clone, Debug)]
pub struct Minikube {
    profile: String,
    /// What we keep of it: kubeconfig, lock, the image's parts.
    folder: PathBuf,
    /// The runtime of its containers; docker's for a profile that is yet to be made.
    runtime: String,
    /// Held by whoever is changing the profile; see `turn`.
    changes: Arc<Mutex<()>>,
}

/// Why minikube can't be the automatic choice; none if it can.
pub(super) async fn missing(cx: &Cx) -> Result<Option<String>> {
    if which::which("minikube").is_err() {
        return Ok(Some("no minikube on PATH".to_owned()));
    }
    if which::which("docker").is_err() {
        return Ok(Some("minikube is installed, but no docker on PATH".to_owned()));
    }
    Ok(engine_problem(cx).await?.map(|problem| format!("minikube is installed, but {problem}")))
}

/// Why the host's container engine, in which minikube's node lives, can't be used; none if it can.
pub(super) async fn engine_problem(cx: &Cx) -> Result<Option<String>> {
    let sh = proc::shell()?;
    let server_version = "{{.Server.Version}}";
    let version = cmd!(sh, "docker version --format {server_version}").into();
    Ok(match tokio::time::timeout(ENGINE_DEADLINE, proc::ask(cx, version)).await {
        Err(_) => Some(format!("the Docker daemon does not answer within {} s", ENGINE_DEADLINE.as_secs())),
        Ok(Err(error)) if crate::failure::is_echo(&error) => return Err(error),
        Ok(Err(error)) => Some(crate::failure::paragraph(&error)),
        Ok(Ok(answer)) if answer.status.success() => None,
        Ok(Ok(answer)) => {
            let said = answer.stderr.lines().last().unwrap_or("no message").trim().to_owned();
            Some(format!("the Docker daemon can't be used: {said}"))
        }
    })
}

impl Minikube {
    /// The chosen profile; it need not exist.
    pub fn new(cx: &Cx) -> Minikube {
        let profile = cx.shared.profile.clone();
        let folder = cx.home().join("minikube").join(&profile);
        Minikube { profile, folder, runtime: DOCKER.to_owned(), changes: Arc::default() }
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    fn make_folder(&self) -> Result<()> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let (sh, profile) = (proc::shell()?, &self.profile);
        let command = Command::from(cmd!(sh, "minikube --profile {profile} {args...}"));
        Ok(command.env("KUBECONFIG", self.kubeconfig()))
    }

    /// What a question's command prints.
    async fn ask(&self, cx: &Cx, args: &[&str]) -> Result<String> {
        let command = self.command(args)?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        if answer.status.success() { Ok(answer.stdout) } else { Err(words::refusal(&shown, &answer)) }
    }

    /// Makes a profile, or starts the one that is there.
    fn start_command(&self, is_new: bool) -> Result<Command> {
        let mut args = vec!["start"];
        if is_new {
            // Said to a profile that runs another, it would be changed to docker under its containers.
            args.push("--container-runtime=docker");
        }
        args.extend(["--wait=all", "--interactive=false", "--output=json"]);
        // On macOS the node's address is inside the engine's virtual machine, so the entry must be published.
        if cfg!(target_os = "macos") {
            args.push("--ports=127.0.0.1:8080:80");
        }
        self.command(&args)
    }

    /// The command that says more than an error can.
    fn look_further(&self) -> String {
        format!("`minikube --profile {} logs --problems` says more", self.profile)
    }

    pub(super) async fn problems(&self, cx: &Cx) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for (tool, fix) in [
            ("minikube", "install it: https://minikube.sigs.k8s.io/docs/start, or use --cluster sandbox"),
            ("docker", "install Docker Engine or Docker Desktop, or use --cluster sandbox"),
        ] {
            if which::which(tool).is_err() {
                problems.push(Problem { what: format!("no `{tool}` on PATH"), fix: fix.to_owned() });
            }
        }
        if !problems.is_empty() {
            return Ok(problems);
        }
        if let Some(what) = engine_problem(cx).await? {
            let fix = "start it (`sudo systemctl start docker`), or use --cluster sandbox".to_owned();
            problems.push(Problem { what, fix });
        }
        if let Some(profile) = self.profile(cx).await? {
            problems.extend(self.other_controller(&profile));
            problems.extend(self.no_delivery(&profile));
        }
        Ok(problems)
    }

    /// Why no image could be brought into the profile's nodes.
    fn no_delivery(&self, profile: &Profile) -> Option<Problem> {
        let (name, runtime, nodes) = (&self.profile, profile.runtime(), profile.config.nodes.len());
        let another = "use another profile with --profile".to_owned();
        let problem = |what: String, fix: String| Some(Problem { what, fix });
        if runtime == DOCKER {
            let what = format!("the minikube profile `{name}` has {nodes} nodes; docker-env works with one");
            return if nodes > 1 { problem(what, another) } else { None };
        }
        if !BY_ARCHIVE.contains(&runtime) {
            let what = format!(
                "the minikube profile `{name}` runs {runtime}; supported are docker, containerd and cri-o"
            );
            return problem(what, another);
        }
        if !HOST_IS_NODE {
            let what = format!(
                "the minikube profile `{name}` runs {runtime}, into which an image goes as an archive of a \
                 binary \
                 that is compiled here, and a binary of this system does not run there"
            );
            return problem(
                what,
                format!("{another}; a new one is made with docker, which builds inside its node"),
            );
        }
        None
    }

    /// The size that the profile was made with, where it is there and says so.
    pub(super) async fn size(&self, cx: &Cx) -> Result<Option<Size>> {
        if which::which("minikube").is_err() {
            return Ok(None);
        }
        let config = self.profile(cx).await?.map(|profile| profile.config);
        Ok(config.filter(|config| config.memory > 0 && config.cpus > 0).map(|config| Size {
            of: format!("the profile `{}`", self.profile),
            memory_bytes: config.memory << 20,
            cpus: config.cpus,
        }))
    }

    /// The Kubernetes that the profile was made with, where it is there.
    ///
    /// # Errors
    /// When minikube can't be asked.
    pub async fn kubernetes_version(&self, cx: &Cx) -> Result<Option<String>> {
        if which::which("minikube").is_err() {
            return Ok(None);
        }
        let profile = self.profile(cx).await?;
        Ok(profile.map(|profile| profile.config.kubernetes_config.kubernetes_version))
    }

    pub(super) async fn ensure_running(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<Cluster>> {
        let _turn = self.turn(cx, step).await?;
        let found = self.look(cx).await?;
        let name = &self.profile;
        let (is_new, runtime) = match &found {
            Found::There(profile) if profile.is_running() => {
                let cluster = self.connect_again(cx, profile.runtime()).await?;
                let how = format!("profile {name} runs, entry {}", cluster.entry);
                return Ok(Outcome::Already(cluster, how));
            }
            Found::There(profile) => (false, profile.runtime()),
            Found::Missing | Found::Damaged => (true, DOCKER),
        };
        let mut heard = words::Heard::default();
        let otherwise = format!(
            "`minikube delete --profile {name}` and run again to start from scratch; {}",
            self.look_further()
        );
        proc::run_with(cx, step, self.start_command(is_new)?, |line| heard.line(line))
            .await
            .map_err(|error| heard.explain(error, &otherwise))
            .with_context(|| format!("starting the minikube profile {name}"))?;
        let cluster = self.connect(cx, runtime).await?;
        let how = if is_new { "created and started" } else { "started" };
        let how = format!("profile {name} {how}, entry {}", cluster.entry);
        Ok(Outcome::Did(cluster, how))
    }

    pub(super) async fn find(&self, cx: &Cx) -> Result<Option<Cluster>> {
        if which::which("minikube").is_err() {
            return Ok(None);
        }
        match self.profile(cx).await? {
            Some(profile) if profile.is_running() => {
                self.connect_again(cx, profile.runtime()).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// [`Self::connect`] to what was started before: the API's port may have moved since our kubeconfig was written.
    async fn connect_again(&self, cx: &Cx, runtime: &str) -> Result<Cluster> {
        self.make_folder()?;
        self.ask(cx, &["update-context"]).await?;
        self.connect(cx, runtime).await
    }

    async fn connect(&self, cx: &Cx, runtime: &str) -> Result<Cluster> {
        let kubeconfig = self.kubeconfig();
        restrict(&kubeconfig)?;
        let client = super::client(&kubeconfig, &self.profile).await?;
        let entry = if cfg!(target_os = "macos") {
            "http://127.0.0.1:8080".to_owned()
        } else {
            format!("http://{}", self.ask(cx, &["ip"]).await?.trim())
        };
        Ok(Cluster {
            kind: Kind::Minikube(self.on(runtime)),
            context: self.profile.clone(),
            kubeconfig,
            client,
            entry,
            tunnel: None,
            nginx: true,
            metrics: true,
        })
    }

    pub(super) async fn stop(&self, cx: &Cx, step: &Running<'_>, delete: bool) -> Result<Outcome<()>> {
        if !delete {
            return Ok(Outcome::Already(
                (),
                format!("profile {} keeps running, with its addons; --delete deletes it", self.profile),
            ));
        }
        let _turn = self.turn(cx, step).await?;
        proc::run(cx, step, self.command(&["delete"])?).await?;
        Ok(Outcome::Did((), format!("profile {} deleted", self.profile)))
    }

    pub(super) async fn plan(&self, cx: &Cx) -> Result<Plan> {
        let found = if which::which("minikube").is_ok() { self.profile(cx).await? } else { None };
        let show = |args: &[&str]| self.command(args).map(|command| command.to_string());
        let mut cluster = vec![show(&["profile", "list", "--output=json"])?];
        cluster.push(match &found {
            Some(profile) if profile.is_running() => show(&["update-context"])?,
            found => self.start_command(found.is_none())?.to_string(),
        });
        cluster.push(show(&["ip"])?);
        let enable = |addon: &str| -> Result<Vec<String>> {
            let already = "nothing, if the profile and the cluster have it enabled".to_owned();
            Ok(vec![already, show(&["addons", "enable", addon])?])
        };
        let runtime = found.as_ref().map_or(DOCKER, Profile::runtime);
        Ok(Plan {
            cluster,
            current: Vec::new(),
            ingress: enable(addons::INGRESS)?,
            metrics: enable(addons::METRICS)?,
            image: self.on(runtime).image_plan()?,
        })
    }

    /// The same profile, once its runtime is known.
    fn on(&self, runtime: &str) -> Minikube {
        Minikube { runtime: runtime.to_owned(), ..self.clone() }
    }
}

/// The kubeconfig holds a client key: for its owner alone.
fn restrict(path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("restricting {} to its owner", path.display()))
}
