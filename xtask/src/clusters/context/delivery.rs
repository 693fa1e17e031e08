//! How the image gets into a context's cluster: through a registry, or, where the nodes are containers on this machine,
//! by the tool that made them. Which it is, the nodes themselves say.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use xshell::cmd;

use super::platform::Platform;
use crate::clusters::Problem;
use crate::cx::Cx;
use crate::image::archive::{self, Packed};
use crate::image::registry::Registry;
use crate::image::{self, ARCHITECTURE, Digests, ImageRef, Linkage, Recipe, canonical, credentials};
use crate::pipeline::{Outcome, Running};
use crate::proc::{self, Command};
use crate::repository::Place;

/// The way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// A registry that the nodes pull from.
    Registry(Place),
    /// The nodes are containers of a kind cluster of that name.
    Kind(String),
    /// The nodes are containers of a k3d cluster of that name.
    K3d(String),
}

impl Delivery {
    /// A registry where one is named, else the tool that made the nodes.
    pub(super) fn of(registry: Option<&Place>, nodes: Option<&[Node]>) -> Option<Delivery> {
        match registry {
            Some(place) => Some(Delivery::Registry(place.clone())),
            None => nodes?.iter().find_map(of_node),
        }
    }

    /// Why nothing can be delivered this way.
    pub(super) fn problem(&self) -> Option<Problem> {
        let tool = match self {
            Delivery::Registry(_) => return None,
            Delivery::Kind(_) => "kind",
            Delivery::K3d(_) => "k3d",
        };
        which::which(tool).is_err().then(|| Problem {
            what: format!("the nodes were made by {tool}, and there is no `{tool}` on PATH"),
            fix:
                "install it, or name a registry that the nodes can pull from with --registry HOST[:PORT]/PATH"
                    .to_owned(),
        })
    }

    fn load_command(&self, path: &Path) -> Result<Option<Command>> {
        let sh = proc::shell()?;
        Ok(match self {
            Delivery::Registry(_) => None,
            Delivery::Kind(name) => Some(cmd!(sh, "kind load image-archive {path} --name {name}").into()),
            Delivery::K3d(name) => Some(cmd!(sh, "k3d image import {path} --cluster {name}").into()),
        })
    }

    /// The commands of [`deliver`], for `--dry-run`.
    pub(super) fn plan(&self, folder: &Path) -> Result<Vec<String>> {
        let path = archive_in(folder);
        let into = match (self, self.load_command(&path)?) {
            (Delivery::Registry(place), _) => format!("push to {place}, without the layers that it has"),
            (_, Some(load)) => load.to_string(),
            (_, None) => return Ok(Vec::new()),
        };
        Ok(vec![
            format!(
                "{}; with --target where the nodes are not {ARCHITECTURE}",
                image::compile_command(Linkage::Static)?
            ),
            format!("pack binary and model into {}", path.display()),
            into,
        ])
    }
}

/// The cluster's tool and name, by what it writes on its nodes.
fn of_node(node: &Node) -> Option<Delivery> {
    let provider = node.spec.as_ref()?.provider_id.as_deref().unwrap_or_default();
    // kind://docker/<cluster>/<node>
    if let Some(rest) = provider.strip_prefix("kind://") {
        return Some(Delivery::Kind(rest.split('/').nth(1)?.to_owned()));
    }
    // k3s names a node after its host, and k3d its hosts k3d-<cluster>-server-0 or -agent-0.
    let name = node.name_any();
    let inner = name.strip_prefix("k3d-").filter(|_| provider.starts_with("k3s://"))?;
    let cluster = ["-server-", "-agent-"].iter().find_map(|role| inner.rsplit_once(role))?.0;
    Some(Delivery::K3d(cluster.to_owned()))
}

fn archive_in(folder: &Path) -> PathBuf {
    folder.join("image.tar")
}

/// Compiles and packs; both find their work done where nothing has changed. Then delivers what is not there.
///
/// # Errors
/// When the build or the delivery fails.
pub(super) async fn deliver(
    cx: &Cx,
    step: &Running<'_>,
    recipe: &Recipe,
    platform: &Platform,
    delivery: &Delivery,
    folder: &Path,
    is_there: impl AsyncFnOnce(&str) -> Result<bool>,
) -> Result<Outcome<ImageRef>> {
    let binary = platform.binary(cx, step, recipe, &folder.join("build")).await?;
    step.at("packing the image");
    let local = recipe.reference();
    let path = archive_in(folder);
    let contents = image::contents(&local, &platform.architecture, &binary, &recipe.model_dir);
    let pack = {
        let path = path.clone();
        move || -> Result<(Digests, Packed)> {
            let digests = archive::write(&path, &contents)?;
            Ok((digests, archive::read(&path)?))
        }
    };
    let (digests, packed) = tokio::task::spawn_blocking(pack).await.context("packing the image")??;
    let Delivery::Registry(place) = delivery else {
        return load(cx, step, delivery, &path, ImageRef { reference: local, digests }, is_there).await;
    };
    let registry = registry(cx, place).await?;
    let pushed = registry.push(&path, &packed, &recipe.tag, |at| step.at(at));
    let pushed = cx.unless_stopped(pushed).await.with_context(|| format!("pushing the image to {place}"))?;
    let image = ImageRef { reference: format!("{place}:{}@{}", recipe.tag, packed.digest), digests };
    let how = format!(
        "{place}:{} is {}, {} of {} bytes sent",
        recipe.tag, image.digests, pushed.sent, pushed.whole
    );
    Ok(if pushed.sent == 0 { Outcome::Already(image, how) } else { Outcome::Did(image, how) })
}

async fn load(
    cx: &Cx,
    step: &Running<'_>,
    delivery: &Delivery,
    path: &Path,
    image: ImageRef,
    is_there: impl AsyncFnOnce(&str) -> Result<bool>,
) -> Result<Outcome<ImageRef>> {
    if is_there(&image.reference).await? {
        let already = format!("{} is on the nodes: its inputs are unchanged", image.reference);
        return Ok(Outcome::Already(image, already));
    }
    step.at("loading the image into the nodes");
    let command = delivery.load_command(path)?.ok_or_else(|| anyhow!("nothing loads it"))?;
    proc::run(cx, step, command).await.context("loading the image into the nodes")?;
    let how = format!("{} loaded into the nodes, {}", image.reference, image.digests);
    Ok(Outcome::Did(image, how))
}

/// The registry, and who we are to it.
///
/// # Errors
/// When docker's configuration can't be read.
pub(super) async fn registry(cx: &Cx, place: &Place) -> Result<Registry> {
    let login = credentials::login(cx, &place.host).await;
    Registry::new(place, login.with_context(|| format!("looking for the login to {}", place.host))?)
}

/// Whether every node that takes pods has the image, by its own word. A node names but its largest images.
pub(super) fn is_on(nodes: &[Node], reference: &str) -> bool {
    let name = canonical(reference);
    let has = |node: &Node| {
        let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
        images.flat_map(|image| image.names.iter().flatten()).any(|known| *known == name)
    };
    !nodes.is_empty() && nodes.iter().all(has)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, provider: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"providerID": provider}}))
            .expect("a node")
    }

    #[test]
    fn the_nodes_say_which_tool_made_them() {
        let of = |name, provider| Delivery::of(None, Some(&[node(name, provider)]));
        assert_eq!(
            of("lab-control-plane", "kind://docker/lab/lab-control-plane"),
            Some(Delivery::Kind("lab".into()))
        );
        assert_eq!(
            of("k3d-my-lab-server-0", "k3s://k3d-my-lab-server-0"),
            Some(Delivery::K3d("my-lab".into()))
        );
        assert_eq!(of("k3d-x-server-0", "aws:///eu-1a/i-0"), None);
        assert_eq!(of("ip-10-0-0-1", ""), None);
        assert_eq!(Delivery::of(None, None), None);
        let place = Place::read("ghcr.io/team", "app").expect("a place");
        let named = Delivery::of(Some(&place), Some(&[node("k", "kind://docker/lab/k")]));
        assert_eq!(named, Some(Delivery::Registry(place)));
    }

    #[test]
    fn an_image_is_there_when_every_node_says_so() {
        let with = |names: &[&str]| -> Node {
            serde_json::from_value(json!({"status": {"images": [{"names": names}]}})).expect("a node")
        };
        let has = || with(&["docker.io/library/app:1"]);
        assert!(is_on(&[has(), has()], "app:1"));
        assert!(!is_on(&[has(), with(&["docker.io/library/app:2"])], "app:1"));
        assert!(!is_on(&[], "app:1"));
    }
}
