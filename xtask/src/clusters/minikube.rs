//! minikube, the real thing. Every command names its profile, and sees a kubeconfig of our own instead of the
//! user's, so that the ambient context is neither used nor moved.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use serde::Deserialize;
use xshell::cmd;

use super::{Cluster, Kind, Plan, Problem, Size};
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::gates;
use crate::pipeline::{Outcome, Running};
use crate::proc::{self, Command};
use crate::steps::image::{self, ImageRef, Recipe};

/// A container engine that does not answer in this time is not working.
const ENGINE_DEADLINE: Duration = Duration::from_secs(5);

/// A minikube profile.
#[derive(Clone, Debug)]
pub struct Minikube {
    profile: String,
    kubeconfig: PathBuf,
    staging: PathBuf,
}

/// Why minikube can't be the automatic choice; none if it can.
pub(super) async fn missing(cx: &Cx) -> Result<Option<String>> {
    if which::which("minikube").is_err() {
        return Ok(Some("no minikube on PATH".to_owned()));
    }
    if which::which("docker").is_err() {
        return Ok(Some("minikube is here, but no docker on PATH".to_owned()));
    }
    Ok(engine_problem(cx).await?.map(|problem| format!("minikube is here, but {problem}")))
}

/// Why the host's container engine, in which minikube's node lives, can't be used; none if it can.
async fn engine_problem(cx: &Cx) -> Result<Option<String>> {
    let sh = proc::shell()?;
    let server_version = "{{.Server.Version}}";
    let version = cmd!(sh, "docker version --format {server_version}").into();
    Ok(match tokio::time::timeout(ENGINE_DEADLINE, proc::ask(cx, version)).await {
        Err(_) => Some(format!("docker's daemon does not answer within {} s", ENGINE_DEADLINE.as_secs())),
        Ok(Err(error)) if crate::failure::is_echo(&error) => return Err(error),
        Ok(Err(error)) => Some(crate::failure::paragraph(&error)),
        Ok(Ok(answer)) if answer.status.success() => None,
        Ok(Ok(answer)) => {
            let said = answer.stderr.lines().last().unwrap_or("it says nothing").trim().to_owned();
            Some(format!("docker's daemon can't be used: {said}"))
        }
    })
}

/// What `minikube profile list -o json` says of a profile; fields as minikube writes them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Profile {
    name: String,
    #[serde(default)]
    status: String,
    config: ProfileConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProfileConfig {
    #[serde(default)]
    nodes: Vec<serde_json::Value>,
    /// In MiB.
    #[serde(default)]
    memory: u64,
    #[serde(default, rename = "CPUs")]
    cpus: u32,
    kubernetes_config: KubernetesConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KubernetesConfig {
    #[serde(default)]
    container_runtime: String,
}

#[derive(Debug, Deserialize)]
struct Profiles {
    #[serde(default)]
    valid: Vec<Profile>,
}

impl Minikube {
    /// The chosen profile; it need not exist.
    pub fn new(cx: &Cx) -> Minikube {
        let home = cx.home().join("minikube").join(&cx.shared.profile);
        Minikube {
            profile: cx.shared.profile.clone(),
            kubeconfig: home.join("kubeconfig"),
            staging: home.join("image"),
        }
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let (sh, profile) = (proc::shell()?, &self.profile);
        let command = Command::from(cmd!(sh, "minikube --profile {profile} {args...}"));
        Ok(command.env("KUBECONFIG", &self.kubeconfig))
    }

    fn start_command(&self) -> Result<Command> {
        let mut args =
            vec!["start", "--container-runtime=docker", "--wait=all", "--interactive=false", "--output=json"];
        // On macOS the node's address is inside the engine's virtual machine, so the entry must be published.
        if cfg!(target_os = "macos") {
            args.push("--ports=127.0.0.1:8080:80");
        }
        self.command(&args)
    }

    async fn profile(&self, cx: &Cx) -> Result<Option<Profile>> {
        let command = self.command(&["profile", "list", "--output=json"])?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        // With no profile at all, minikube exits with an error and still prints the empty lists.
        let Ok(profiles) = serde_json::from_str::<Profiles>(answer.stdout.trim()) else {
            if answer.status.success() {
                bail!(
                    "`{shown}` printed something that is not the list of profiles: {}",
                    answer.stdout.trim()
                );
            }
            return Ok(None);
        };
        Ok(profiles.valid.into_iter().find(|profile| profile.name == self.profile))
    }

    pub(super) async fn problems(&self, cx: &Cx) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for (tool, cure) in [
            ("minikube", "install it: https://minikube.sigs.k8s.io/docs/start, or use --cluster sandbox"),
            ("docker", "install Docker Engine or Docker Desktop, or use --cluster sandbox"),
        ] {
            if which::which(tool).is_err() {
                problems.push(Problem { what: format!("no `{tool}` on PATH"), cure: cure.to_owned() });
            }
        }
        if !problems.is_empty() {
            return Ok(problems);
        }
        if let Some(what) = engine_problem(cx).await? {
            let cure = "start it (`sudo systemctl start docker`), or use --cluster sandbox".to_owned();
            problems.push(Problem { what, cure });
        }
        if let Some(profile) = self.profile(cx).await? {
            let runtime = &profile.config.kubernetes_config.container_runtime;
            if !runtime.is_empty() && runtime != "docker" {
                problems.push(Problem {
                    what: format!(
                        "the minikube profile `{}` runs {runtime}; building inside the node needs docker",
                        self.profile
                    ),
                    cure: format!(
                        "`minikube delete --profile {0}` and run again, or use another with --profile",
                        self.profile
                    ),
                });
            }
            if profile.config.nodes.len() > 1 {
                problems.push(Problem {
                    what: format!(
                        "the minikube profile `{}` has {} nodes; docker-env works with one",
                        self.profile,
                        profile.config.nodes.len()
                    ),
                    cure: "use a profile of one node with --profile".to_owned(),
                });
            }
        }
        Ok(problems)
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

    pub(super) async fn ensure_running(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<Cluster>> {
        if let Some(folder) = self.kubeconfig.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        if let Some(cluster) = self.find(cx).await? {
            let entry = cluster.entry.clone();
            return Ok(Outcome::Already(cluster, format!("profile {} runs, entry {entry}", self.profile)));
        }
        proc::run_with(cx, step, self.start_command()?, started)
            .await
            .with_context(|| format!("starting the minikube profile {}", self.profile))
            .hint(format!("`minikube --profile {} logs --problems` says more", self.profile))?;
        let cluster = self.connect(cx).await?;
        let how = format!("profile {} started, entry {}", self.profile, cluster.entry);
        Ok(Outcome::Did(cluster, how))
    }

    pub(super) async fn find(&self, cx: &Cx) -> Result<Option<Cluster>> {
        if which::which("minikube").is_err() {
            return Ok(None);
        }
        let running = self
            .profile(cx)
            .await?
            .is_some_and(|profile| matches!(profile.status.as_str(), "Running" | "OK"));
        if !running {
            return Ok(None);
        }
        // The API's port may have moved since our kubeconfig was written.
        let update = self.command(&["update-context"])?;
        let shown = update.to_string();
        let answer = proc::ask(cx, update).await?;
        if !answer.status.success() {
            bail!("`{shown}` failed: {}", answer.stderr.trim());
        }
        self.connect(cx).await.map(Some)
    }

    async fn connect(&self, cx: &Cx) -> Result<Cluster> {
        restrict(&self.kubeconfig)?;
        let client = super::client(&self.kubeconfig, &self.profile).await?;
        let entry = if cfg!(target_os = "macos") {
            "http://127.0.0.1:8080".to_owned()
        } else {
            let command = self.command(&["ip"])?;
            let shown = command.to_string();
            let answer = proc::ask(cx, command).await?;
            let ip = answer.stdout.trim();
            if !answer.status.success() || ip.is_empty() {
                bail!("`{shown}` gave no address: {}", answer.stderr.trim());
            }
            format!("http://{ip}")
        };
        Ok(Cluster {
            kind: Kind::Minikube(self.clone()),
            context: self.profile.clone(),
            kubeconfig: self.kubeconfig.clone(),
            client,
            entry,
        })
    }

    pub(super) async fn enable_ingress(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        cluster: &Cluster,
    ) -> Result<Outcome<()>> {
        let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), gates::ingress_lease::NAMESPACE);
        let there = cx.unless_stopped(async { Ok(api.get_opt("ingress-nginx-controller").await?) }).await;
        let there = there.context("looking for the ingress controller")?.is_some();
        self.enable(cx, step, "ingress", there).await
    }

    pub(super) async fn enable_metrics(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        cluster: &Cluster,
    ) -> Result<Outcome<()>> {
        let api: Api<APIService> = Api::all(cluster.client.clone());
        let there = cx.unless_stopped(async { Ok(api.get_opt("v1beta1.metrics.k8s.io").await?) }).await;
        let there = there.context("looking for the metrics API")?.is_some();
        self.enable(cx, step, "metrics-server", there).await
    }

    async fn enable(&self, cx: &Cx, step: &Running<'_>, addon: &str, there: bool) -> Result<Outcome<()>> {
        if there {
            return Ok(Outcome::Already((), format!("addon {addon} is on")));
        }
        proc::run(cx, step, self.command(&["addons", "enable", addon])?)
            .await
            .with_context(|| format!("enabling minikube's addon {addon}"))?;
        Ok(Outcome::Did((), format!("addon {addon} enabled")))
    }

    /// The settings of the node's docker daemon, read as data and given to nothing but docker's children.
    async fn docker_env(&self, cx: &Cx) -> Result<BTreeMap<String, String>> {
        let command = self.command(&["docker-env", "--output=json"])?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        if !answer.status.success() {
            bail!("`{shown}` failed: {}", answer.stderr.trim());
        }
        let env: BTreeMap<String, String> = serde_json::from_str(&answer.stdout)
            .with_context(|| format!("reading what `{shown}` printed"))?;
        // Without this the build would go to the host's own daemon, and the node would never see the image.
        if !env.contains_key("DOCKER_HOST") {
            bail!("`{shown}` names no DOCKER_HOST");
        }
        Ok(env)
    }

    /// A docker command against the node's daemon, with its own builder: another one would keep the image to itself.
    fn docker(env: &BTreeMap<String, String>, args: &[&str]) -> Result<Command> {
        let sh = proc::shell()?;
        let command = Command::from(cmd!(sh, "docker {args...}"));
        Ok(command.envs(env).env("BUILDX_BUILDER", "default").env("DOCKER_BUILDKIT", "1"))
    }

    pub(super) async fn build_image(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        recipe: &Recipe,
    ) -> Result<Outcome<ImageRef>> {
        let env = self.docker_env(cx).await?;
        let reference = recipe.reference();
        if let Some(id) = self.inspect(cx, &env, &reference).await? {
            let already = format!("{reference} is built from these very inputs");
            return Ok(Outcome::Already(ImageRef { reference, image_id: id }, already));
        }
        image::stage(cx, step, recipe, &self.staging).await?;
        let folder = self.staging.to_string_lossy().into_owned();
        let args = ["build", "--tag", &reference, &folder];
        proc::run(cx, step, Self::docker(&env, &args)?)
            .await
            .context("building the image inside minikube's docker daemon")?;
        // A build may succeed and leave its image elsewhere: only the node's daemon knows.
        let id = self.inspect(cx, &env, &reference).await?.ok_or_else(|| {
            anyhow!("the build succeeded, but minikube's docker daemon has no image {reference}")
                .hint("`docker buildx ls`: the build must use the node's own builder, `default`")
                .exit(Exit::Step)
        })?;
        let how = format!("{reference} built in minikube's docker daemon, {}", image::short_id(&id));
        Ok(Outcome::Did(ImageRef { reference, image_id: id }, how))
    }

    async fn inspect(
        &self,
        cx: &Cx,
        env: &BTreeMap<String, String>,
        reference: &str,
    ) -> Result<Option<String>> {
        let command = Self::docker(env, &["image", "inspect", "--format", "{{.Id}}", reference])?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        if answer.status.success() {
            return Ok(Some(answer.stdout.trim().to_owned()));
        }
        if answer.stderr.to_lowercase().contains("no such image") {
            return Ok(None);
        }
        Err(anyhow!("`{shown}` failed: {}", answer.stderr.trim()))
    }

    pub(super) async fn image_id(&self, cx: &Cx, reference: &str) -> Result<Option<String>> {
        let env = self.docker_env(cx).await?;
        self.inspect(cx, &env, reference).await
    }

    pub(super) async fn stop(&self, cx: &Cx, step: &Running<'_>, delete: bool) -> Result<Outcome<()>> {
        if !delete {
            return Ok(Outcome::Already(
                (),
                format!("profile {} goes on, with its addons; --delete deletes it", self.profile),
            ));
        }
        proc::run(cx, step, self.command(&["delete"])?).await?;
        Ok(Outcome::Did((), format!("profile {} deleted", self.profile)))
    }

    pub(super) fn plan(&self) -> Result<Plan> {
        let show = |args: &[&str]| self.command(args).map(|command| command.to_string());
        let mut image = vec![show(&["docker-env", "--output=json"])?];
        image.extend(image::stage_plan()?);
        image.push(format!(
            "docker build --tag {}:TAG …, with docker-env and BUILDX_BUILDER=default",
            image::REPOSITORY
        ));
        Ok(Plan {
            cluster: vec![
                show(&["profile", "list", "--output=json"])?,
                self.start_command()?.to_string(),
                show(&["ip"])?,
            ],
            ingress: vec![show(&["addons", "enable", "ingress"])?],
            metrics: vec![show(&["addons", "enable", "metrics-server"])?],
            image,
        })
    }
}

/// The step that a line of `minikube start --output=json` names: a CloudEvent of type `io.k8s.sigs.minikube.step`.
fn started(line: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let data = event.get("data")?;
    let text = |name: &str| data.get(name).and_then(serde_json::Value::as_str);
    match event.get("type")?.as_str()? {
        "io.k8s.sigs.minikube.step" => {
            Some(format!("{}/{} {}", text("currentstep")?, text("totalsteps")?, text("message")?.trim()))
        }
        "io.k8s.sigs.minikube.error" => Some(text("message")?.trim().to_owned()),
        _ => None,
    }
}

/// The kubeconfig holds a client key: for its owner alone.
fn restrict(path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("restricting {} to its owner", path.display()))
}

#[cfg(test)]
mod tests {
    use super::started;

    #[test]
    fn the_live_line_is_minikubes_step() {
        let line = r#"{"specversion":"1.0","type":"io.k8s.sigs.minikube.step","datacontenttype":"application/json","data":{"currentstep":"3","message":"Starting control plane node\n","name":"Starting Node","totalsteps":"19"}}"#;
        assert_eq!(started(line).as_deref(), Some("3/19 Starting control plane node"));
        assert_eq!(started("not json"), None);
    }
}
