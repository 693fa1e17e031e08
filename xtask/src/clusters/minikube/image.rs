//! How the image gets into the node: built by its own docker daemon.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use xshell::cmd;

use super::{Minikube, words};
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::pipeline::{Outcome, Running};
use crate::proc::{self, Command};
use crate::steps::image::{self, ImageRef, Recipe};

/// minikube heeds `--output` with `--shell=none` alone, and prints lines for a shell otherwise.
pub(super) const DOCKER_ENV: [&str; 3] = ["docker-env", "--shell=none", "--output=json"];

impl Minikube {
    /// The settings of the node's docker daemon, read as data and given to nothing but docker's children.
    async fn docker_env(&self, cx: &Cx) -> Result<BTreeMap<String, String>> {
        let command = self.command(&DOCKER_ENV)?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        if !answer.status.success() {
            return Err(words::refusal(&shown, &answer));
        }
        // Without DOCKER_HOST the build would go to the host's own daemon, and the node would never see the image.
        serde_json::from_str(&answer.stdout)
            .ok()
            .filter(|env: &BTreeMap<String, String>| env.contains_key("DOCKER_HOST"))
            .ok_or_else(|| words::unreadable(&shown, &answer, "DOCKER_HOST as JSON"))
    }

    /// A docker command against the node's daemon, with its own builder: another one would keep the image to itself.
    fn docker(env: &BTreeMap<String, String>, args: &[&str]) -> Result<Command> {
        let sh = proc::shell()?;
        let command = Command::from(cmd!(sh, "docker {args...}"));
        Ok(command.envs(env).env("BUILDX_BUILDER", "default").env("DOCKER_BUILDKIT", "1"))
    }

    pub(in crate::clusters) async fn build_image(
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
        let folder = self.folder.join("image");
        image::stage(cx, step, recipe, &folder).await?;
        let args = ["build", "--tag", &reference, &folder.to_string_lossy()];
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

    pub(in crate::clusters) async fn image_id(&self, cx: &Cx, reference: &str) -> Result<Option<String>> {
        let env = self.docker_env(cx).await?;
        self.inspect(cx, &env, reference).await
    }
}
