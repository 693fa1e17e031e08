//! Which processor the image is for, and how its binary is made on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use xshell::cmd;

use crate::clusters::{Problem, minikube};
use crate::cx::Cx;
use crate::image::{self, ARCHITECTURE, HOST_IS_NODE, Linkage, Recipe};
use crate::manifests::Manifests;
use crate::pipeline::Running;
use crate::proc::{self, Command};

/// The label by which pods choose a node's processor.
const ARCH: &str = "kubernetes.io/arch";

/// What the image is made for.
#[derive(Clone, Debug)]
pub(super) struct Platform {
    /// The processor, in Go's words.
    pub(super) architecture: String,
    maker: Maker,
}

/// What makes the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// Cargo, on this machine.
    Cargo(Linkage),
    /// The Dockerfile that builds from source, in a container of that processor.
    Docker,
}

impl Platform {
    /// The one that the nodes need.
    ///
    /// # Errors
    /// What is missing to make a binary for it.
    pub(super) async fn of(cx: &Cx, nodes: &[Node], manifests: &Manifests) -> Result<Platform, Problem> {
        let architecture = wanted(nodes, manifests);
        if HOST_IS_NODE && architecture == ARCHITECTURE {
            return Ok(Platform { architecture, maker: Maker::Cargo(Linkage::Static) });
        }
        let target = target(&architecture);
        let can_target = match target {
            Some(target) => has_target(cx, target).await,
            None => false,
        };
        let has_docker = !can_target && has_docker(cx).await;
        let maker = maker(&architecture, target, can_target, has_docker)?;
        Ok(Platform { architecture, maker })
    }

    /// The binary; `folder` is where a container engine builds.
    ///
    /// # Errors
    /// When the build fails.
    pub(super) async fn binary(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        recipe: &Recipe,
        folder: &Path,
    ) -> Result<PathBuf> {
        if let Maker::Cargo(linkage) = self.maker {
            return recipe.binary(cx, step, linkage).await;
        }
        let (sources, made) = (folder.join("sources"), folder.join("made"));
        image::stage(cx, step, recipe, None, &sources)?;
        step.at("compiling the app in a container");
        let build = build_command(&self.architecture, &sources, &made)?;
        proc::run(cx, step, build).await.context("compiling the app in a container")?;
        Ok(made.join(image::PACKAGE))
    }
}

/// The command that builds from source for a processor, and leaves what the image holds in a folder.
fn build_command(architecture: &str, sources: &Path, made: &Path) -> Result<Command> {
    let (sh, platform) = (proc::shell()?, format!("linux/{architecture}"));
    let output = format!("type=local,dest={}", made.display());
    Ok(Command::from(cmd!(sh, "docker build --platform {platform} --output {output} {sources}"))
        .env("DOCKER_BUILDKIT", "1"))
}

/// What makes a binary that this machine does not run.
fn maker(
    architecture: &str,
    target: Option<&'static str>,
    can_target: bool,
    has_docker: bool,
) -> Result<Maker, Problem> {
    match target {
        Some(target) if can_target => Ok(Maker::Cargo(Linkage::Cross(target))),
        _ if has_docker => Ok(Maker::Docker),
        target => Err(Problem {
            what: format!("the image is for linux/{architecture}, and nothing here makes a binary for it"),
            fix: match target {
                Some(target) => {
                    format!("`rustup target add {target}`, or start docker, which builds from source")
                }
                None => "start docker, which builds from source".to_owned(),
            },
        }),
    }
}

/// Whether docker answers.
async fn has_docker(cx: &Cx) -> bool {
    which::which("docker").is_ok() && matches!(minikube::engine_problem(cx).await, Ok(None))
}

/// What Rust calls a Linux of that processor, in which a binary brings its C library along.
fn target(architecture: &str) -> Option<&'static str> {
    match architecture {
        "amd64" => Some("x86_64-unknown-linux-musl"),
        "arm64" => Some("aarch64-unknown-linux-musl"),
        _ => None,
    }
}

/// Whether the compiler has the standard library of a target.
async fn has_target(cx: &Cx, target: &str) -> bool {
    let Ok(sh) = proc::shell() else { return false };
    let command = Command::from(cmd!(sh, "rustc --print target-libdir --target {target}"));
    let answer = proc::ask(cx, command.current_dir(&cx.root)).await;
    answer.is_ok_and(|answer| answer.status.success() && Path::new(answer.stdout.trim()).is_dir())
}

/// The processor that the pods ask for; else this machine's, where a node has it; else the nodes'.
fn wanted(nodes: &[Node], manifests: &Manifests) -> String {
    if let Some(chosen) = chosen(manifests) {
        return chosen.to_owned();
    }
    let mut others = takers(nodes).map(|(_, arch)| arch).filter(|arch| *arch != ARCHITECTURE);
    let has_ours = takers(nodes).any(|(_, arch)| arch == ARCHITECTURE);
    others.next().filter(|_| !has_ours).unwrap_or(ARCHITECTURE).to_owned()
}

/// The processor that the pods ask for.
fn chosen(manifests: &Manifests) -> Option<&str> {
    let spec = manifests.deployment.spec.as_ref()?.template.spec.as_ref()?;
    spec.node_selector.as_ref()?.get(ARCH).map(String::as_str)
}

/// The nodes that take pods and say of which processor they are.
fn takers(nodes: &[Node]) -> impl Iterator<Item = (&Node, &str)> {
    let takes = |node: &&Node| node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true));
    let known = nodes.iter().filter(takes).filter_map(|node| {
        let info = node.status.as_ref()?.node_info.as_ref()?;
        Some((node, info.architecture.as_str()))
    });
    known.filter(|(_, arch)| !arch.is_empty())
}

/// The image is of one processor. Nodes of another would take its pods, and not run them.
pub(super) fn misplaced(nodes: &[Node], manifests: &Manifests) -> Option<Problem> {
    let wanted = wanted(nodes, manifests);
    let others: Vec<String> = takers(nodes)
        .filter(|(_, arch)| *arch != wanted)
        .map(|(node, arch)| format!("{} ({arch})", node.name_any()))
        .collect();
    let spec = manifests.deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let has_affinity = spec
        .is_some_and(|spec| spec.affinity.as_ref().is_some_and(|affinity| affinity.node_affinity.is_some()));
    let is_chosen = chosen(manifests).is_some();
    if is_chosen && takers(nodes).next().is_some() && takers(nodes).all(|(_, arch)| arch != wanted) {
        return Some(Problem {
            what: format!("the pods ask for nodes of {wanted}, and there is none: {}", others.join(", ")),
            fix: format!("set another `nodeSelector: {{{ARCH}: …}}` in kubernetes/30-deployment.yaml"),
        });
    }
    if others.is_empty() || is_chosen || has_affinity {
        return None;
    }
    Some(Problem {
        what: format!("the image is for {wanted}, and its pods may be put on {}", others.join(", ")),
        fix: format!(
            "set `nodeSelector: {{{ARCH}: {wanted}}}` in the pod's template, kubernetes/30-deployment.yaml"
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OTHER: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };

    fn nodes(architectures: &[&str]) -> Vec<Node> {
        let node = |(index, arch): (usize, &&str)| {
            let status = json!({"nodeInfo": {
                "architecture": arch, "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "linux",
                "osImage": "", "systemUUID": ""}});
            let node = json!({"metadata": {"name": format!("n{index}")}, "status": status});
            serde_json::from_value(node).expect("a node")
        };
        architectures.iter().enumerate().map(node).collect()
    }

    fn manifests(selected: Option<&str>) -> Manifests {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("kubernetes");
        let mut manifests = crate::manifests::read(&folder, "default").expect("the shipped manifests");
        let spec = manifests.deployment.spec.as_mut().expect("a spec").template.spec.as_mut().expect("a pod");
        spec.node_selector = selected.map(|arch| [(ARCH.to_owned(), arch.to_owned())].into());
        manifests
    }

    #[test]
    fn the_image_is_for_the_processor_that_its_pods_will_have() {
        let wanted = |architectures: &[&str], selected| wanted(&nodes(architectures), &manifests(selected));
        assert_eq!(wanted(&[], None), ARCHITECTURE);
        assert_eq!(wanted(&[ARCHITECTURE], None), ARCHITECTURE);
        assert_eq!(wanted(&[OTHER, ARCHITECTURE], None), ARCHITECTURE);
        assert_eq!(wanted(&[OTHER, OTHER], None), OTHER);
        assert_eq!(wanted(&[OTHER, ARCHITECTURE], Some(OTHER)), OTHER);
        assert_eq!(wanted(&[""], None), ARCHITECTURE);
    }

    #[test]
    fn nodes_that_would_take_the_pods_and_not_run_them_are_named() {
        let misplaced = |architectures: &[&str], selected| {
            misplaced(&nodes(architectures), &manifests(selected)).map(|problem| problem.what)
        };
        assert_eq!(misplaced(&[ARCHITECTURE], None), None);
        assert_eq!(misplaced(&[OTHER], None), None);
        assert_eq!(
            misplaced(&[ARCHITECTURE, OTHER], None),
            Some(format!("the image is for {ARCHITECTURE}, and its pods may be put on n1 ({OTHER})"))
        );
        assert_eq!(misplaced(&[ARCHITECTURE, OTHER], Some(OTHER)), None);
        assert_eq!(
            misplaced(&[ARCHITECTURE], Some(OTHER)),
            Some(format!("the pods ask for nodes of {OTHER}, and there is none: n0 ({ARCHITECTURE})"))
        );
    }

    #[test]
    fn rust_makes_the_binary_where_it_can_else_docker_else_the_cure_is_named() {
        let arm = Some("aarch64-unknown-linux-musl");
        let made = |target, can_target, has_docker| {
            maker("arm64", target, can_target, has_docker).map_err(|problem| problem.fix)
        };
        assert_eq!(made(arm, true, true), Ok(Maker::Cargo(Linkage::Cross("aarch64-unknown-linux-musl"))));
        assert_eq!(made(arm, false, true), Ok(Maker::Docker));
        assert_eq!(made(None, false, true), Ok(Maker::Docker));
        let fix = "`rustup target add aarch64-unknown-linux-musl`, or start docker, which builds from source";
        assert_eq!(made(arm, false, false), Err(fix.to_owned()));
        assert_eq!(made(None, false, false), Err("start docker, which builds from source".to_owned()));
        let build = build_command("arm64", Path::new("/a"), Path::new("/b")).expect("a command");
        let wanted = "DOCKER_BUILDKIT=1 docker build --platform linux/arm64 --output type=local,dest=/b /a";
        assert_eq!(build.to_string(), wanted);
    }

    #[test]
    fn of_the_processors_that_clouds_have_rust_has_a_static_linux() {
        assert_eq!(target("arm64"), Some("aarch64-unknown-linux-musl"));
        assert_eq!(target("amd64"), Some("x86_64-unknown-linux-musl"));
        assert_eq!(target("s390x"), None);
    }
}
