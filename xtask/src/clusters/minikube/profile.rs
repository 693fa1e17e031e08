//! A profile as `minikube profile list` tells of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;

use super::super::is_listening;
use super::{DOCKER, Minikube, words};
use crate::cx::Cx;
use crate::failure::is_echo;
use crate::proc;

/// What `minikube profile list -o json` says of a profile; fields as minikube writes them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Profile {
    name: String,
    #[serde(default)]
    status: String,
    pub(super) config: Config,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config {
    #[serde(default)]
    pub(super) nodes: Vec<serde_json::Value>,
    /// In MiB.
    #[serde(default)]
    pub(super) memory: u64,
    #[serde(default, rename = "CPUs")]
    pub(super) cpus: u32,
    pub(super) kubernetes_config: KubernetesConfig,
    /// Null where none was ever switched on.
    addons: Option<BTreeMap<String, bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KubernetesConfig {
    #[serde(default)]
    pub(super) container_runtime: String,
    #[serde(default)]
    pub(super) kubernetes_version: String,
}

#[derive(Debug, Deserialize)]
struct Profiles {
    valid: Vec<Profile>,
    #[serde(default)]
    invalid: Vec<Damaged>,
}

/// A profile whose own files can't be read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Damaged {
    name: String,
}

/// How long a node that is being stopped, or deleted, may outlive its API server until the API server counts as the
/// only one that has ended; and how often to look meanwhile.
const STOPS_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One node's part of `minikube status -o json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeStatus {
    host: String,
    kubelet: String,
    #[serde(rename = "APIServer")]
    api_server: String,
}

/// Whether a profile is there, and in what state; the word is minikube's own.
#[derive(Debug)]
pub(super) enum Found {
    Missing,
    /// Its folder is there, and can't be read.
    Damaged,
    There(Profile),
}

impl Profile {
    /// Whether its API server was well when minikube looked.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.status.as_str(), "OK" | "Running" | "HAppy" | "Degraded" | "Warning")
    }

    /// Whether it says that an addon is on.
    pub(super) fn has_addon(&self, name: &str) -> bool {
        self.config.addons.as_ref().and_then(|addons| addons.get(name)) == Some(&true)
    }

    /// Its container runtime; profiles of old say nothing, and mean docker.
    pub(super) fn runtime(&self) -> &str {
        match self.config.kubernetes_config.container_runtime.as_str() {
            "" => DOCKER,
            // cri-o has two names.
            "cri-o" => "crio",
            runtime => runtime,
        }
    }
}

impl Minikube {
    pub(super) async fn look(&self, cx: &Cx) -> Result<Found> {
        let command = self.command(&["profile", "list", "--output=json"])?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        let Ok(profiles) = serde_json::from_str::<Profiles>(answer.stdout.trim()) else {
            return Err(if answer.status.success() {
                words::unreadable(&shown, &answer, "list of profiles")
            } else {
                words::refusal(&shown, &answer)
            });
        };
        if let Some(profile) = profiles.valid.into_iter().find(|profile| profile.name == self.profile) {
            return Ok(Found::There(profile));
        }
        let damaged = profiles.invalid.iter().any(|profile| profile.name == self.profile);
        Ok(if damaged { Found::Damaged } else { Found::Missing })
    }

    /// The profile, where there is one.
    pub(super) async fn profile(&self, cx: &Cx) -> Result<Option<Profile>> {
        Ok(match self.look(cx).await? {
            Found::There(profile) => Some(profile),
            Found::Missing | Found::Damaged => None,
        })
    }

    /// Why there is no running cluster, in a clause.
    pub(in crate::clusters) async fn absence(&self, cx: &Cx) -> Result<String> {
        let name = &self.profile;
        if which::which("minikube").is_err() {
            return Ok("there is no `minikube` on PATH".to_owned());
        }
        Ok(match self.look(cx).await? {
            Found::Missing => format!("there is no minikube profile `{name}`"),
            Found::Damaged => format!("minikube can't read its own profile `{name}`"),
            Found::There(profile) => match profile.status.as_str() {
                "Paused" => format!("the minikube profile `{name}` is paused"),
                "Stopped" => format!("the minikube profile `{name}` is stopped"),
                // A start that failed half-way, and a node that was removed behind minikube's back.
                "" => format!("the minikube profile `{name}` is incomplete: {}", self.parts(cx).await?),
                other => format!("the minikube profile `{name}` is in state {other}"),
            },
        })
    }

    /// Why it has gone for good, in a clause. minikube is asked only while nothing listens at the API's address.
    pub(in crate::clusters) async fn gone(&self, cx: &Cx) -> Option<String> {
        let until = Instant::now() + STOPS_WITHIN;
        while !is_listening(&self.kubeconfig()).await {
            match self.has_left(cx).await {
                Ok(true) => return self.absence(cx).await.ok(),
                Err(error) if is_echo(&error) => return None,
                // minikube trips over a profile that is just being deleted; what can't be asked has not gone.
                Ok(false) | Err(_) => {}
            }
            if Instant::now() > until {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        None
    }

    async fn has_left(&self, cx: &Cx) -> Result<bool> {
        Ok(match self.look(cx).await? {
            Found::Missing | Found::Damaged => true,
            Found::There(_) => self.node(cx).await?.is_none_or(|node| node.host != "Running"),
        })
    }

    /// Which parts of the node run, as `minikube status` tells it; its exit code only sums that up.
    async fn parts(&self, cx: &Cx) -> Result<String> {
        Ok(match self.node(cx).await? {
            Some(NodeStatus { host, kubelet, api_server }) => {
                format!("its host is {host}, its kubelet {kubelet}, its API server {api_server}")
            }
            None => "its node is gone".to_owned(),
        })
    }

    async fn node(&self, cx: &Cx) -> Result<Option<NodeStatus>> {
        let command = self.command(&["status", "--output=json"])?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        serde_json::from_str(answer.stdout.trim()).map_err(|_| words::refusal(&shown, &answer))
    }
}
