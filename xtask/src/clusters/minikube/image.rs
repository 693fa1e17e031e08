//! How the image gets into the node: built by its docker daemon, or, where another runtime runs the containers, loaded
//! as an archive.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;
use xshell::cmd;

use super::{DOCKER, Minikube, words};
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::image::{
    self, ARCHITECTURE, Digests, HOST_IS_NODE, ImageRef, Linkage, Recipe, archive, canonical,
};
use crate::pipeline::{Outcome, Running};
use crate::proc::{self, Command};
use crate::repository::REPOSITORY;

/// minikube heeds `--output` with `--shell=none` alone, and prints lines for a shell otherwise.
const DOCKER_ENV: [&str; 3] = ["docker-env", "--shell=none", "--output=json"];
const LIST: [&str; 3] = ["image", "ls", "--format=json"];

/// An image as `minikube image ls --format=json` lists it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: String,
    #[serde(default)]
    repo_tags: Vec<String>,
    #[serde(default)]
    repo_digests: Vec<String>,
}

impl Minikube {
    pub(in crate::clusters) async fn build_image(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        recipe: &Recipe,
    ) -> Result<Outcome<ImageRef>> {
        let reference = recipe.reference();
        if let Some(digests) = self.digests(cx, &reference).await? {
            let already = format!("{reference} is up to date: its inputs are unchanged");
            return Ok(Outcome::Already(ImageRef { reference, digests }, already));
        }
        let digests = if self.runtime == DOCKER {
            self.build(cx, step, recipe).await?
        } else {
            self.load(cx, step, recipe).await?
        };
        let how = match self.runtime.as_str() {
            DOCKER => "built in minikube's docker daemon",
            _ => "loaded into the node",
        };
        let how = format!("{reference} {how}, {digests}");
        Ok(Outcome::Did(ImageRef { reference, digests }, how))
    }

    /// What the node knows a reference by, if any.
    pub(in crate::clusters) async fn digests(&self, cx: &Cx, reference: &str) -> Result<Option<Digests>> {
        if self.runtime == DOCKER {
            return self.inspect(cx, &self.docker_env(cx).await?, reference).await;
        }
        let command = self.command(&LIST)?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        if !answer.status.success() {
            return Err(words::refusal(&shown, &answer));
        }
        let images: Vec<Listed> = serde_json::from_str(&answer.stdout)
            .map_err(|_| words::unreadable(&shown, &answer, "list of images"))?;
        // podman puts what has no host under localhost.
        let names = [canonical(reference), format!("localhost/{reference}")];
        let found = images.into_iter().find(|image| image.repo_tags.iter().any(|tag| names.contains(tag)));
        Ok(found.map(|Listed { id, repo_digests, .. }| {
            Digests::new([&id].into_iter().chain(&repo_digests).map(String::as_str))
        }))
    }

    async fn build(&self, cx: &Cx, step: &Running<'_>, recipe: &Recipe) -> Result<Digests> {
        let reference = recipe.reference();
        let folder = self.folder.join("image");
        let binary = match HOST_IS_NODE {
            true => Some(recipe.binary(cx, step, Linkage::Static).await?),
            false => None,
        };
        image::stage(cx, step, recipe, binary, &folder)?;
        // Asked anew: a daemon that was restarted meanwhile listens at another port.
        let env = self.docker_env(cx).await?;
        let args = ["build", "--tag", &reference, &folder.to_string_lossy()];
        proc::run(cx, step, Self::docker(&env, &args)?)
            .await
            .context("building the image inside minikube's docker daemon")?;
        // A build may succeed and leave its image elsewhere: only the node's daemon knows.
        self.inspect(cx, &env, &reference).await?.ok_or_else(|| {
            anyhow!("the build succeeded, but minikube's docker daemon has no image {reference}")
                .hint("`docker buildx ls`: the build must use the node's own builder, `default`")
                .exit(Exit::Step)
        })
    }

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

    async fn inspect(
        &self,
        cx: &Cx,
        env: &BTreeMap<String, String>,
        reference: &str,
    ) -> Result<Option<Digests>> {
        let command = Self::docker(env, &["image", "inspect", "--format", "{{.Id}}", reference])?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        if answer.status.success() {
            return Ok(Some(Digests::new(answer.stdout.split_whitespace())));
        }
        if answer.stderr.to_lowercase().contains("no such image") {
            return Ok(None);
        }
        Err(words::refusal(&shown, &answer))
    }

    async fn load(&self, cx: &Cx, step: &Running<'_>, recipe: &Recipe) -> Result<Digests> {
        let reference = recipe.reference();
        let binary = recipe.binary(cx, step, Linkage::Static).await?;
        step.at("packing the image");
        let path = self.folder.join("image.tar");
        let contents = image::contents(&reference, ARCHITECTURE, &binary, &recipe.model_dir);
        let packed = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || archive::write(&path, &contents))
        };
        let digests = packed.await.context("packing the image")??;
        step.at("loading the image into the node");
        proc::run(cx, step, self.command(&["image", "load", &path.to_string_lossy()])?)
            .await
            .context("loading the image into minikube's node")?;
        // It ends well whatever the node made of the archive: only the node knows.
        match self.digests(cx, &reference).await? {
            Some(_) => Ok(digests),
            None => Err(anyhow!(
                "`minikube image load` succeeded, but the node, which runs {}, has no image {reference}",
                self.runtime
            ))
            .hint(self.look_further())
            .exit(Exit::Step),
        }
    }

    /// The commands of [`Self::build_image`], for `--dry-run`.
    pub(super) fn image_plan(&self) -> Result<Vec<String>> {
        let show = |args: &[&str]| self.command(args).map(|command| command.to_string());
        if self.runtime != DOCKER {
            let path = self.folder.join("image.tar");
            return Ok(vec![
                show(&LIST)?,
                image::compile_command(Linkage::Static)?.to_string(),
                format!("pack binary and model into {}", path.display()),
                show(&["image", "load", &path.to_string_lossy()])?,
            ]);
        }
        let mut plan = vec![show(&DOCKER_ENV)?];
        plan.extend(image::stage_plan()?);
        plan.push(format!(
            "docker build --tag {REPOSITORY}:TAG …, with docker-env and BUILDX_BUILDER=default"
        ));
        Ok(plan)
    }
}
