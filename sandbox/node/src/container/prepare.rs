//! What comes before a container can run: its image, its configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use sandbox_events::Severity;
use tokio::time::Instant;

use super::ContainerContext;
use super::env::{self, ConfigError, Surroundings};
use super::process::Launch;
use crate::address::HOST_IP;
use crate::context::NODE_VARIABLE;
use crate::image::{Reference, id_of_name};
use sandbox_contract::Refusal;

/// Events about a container that can't be created are repeated this late at first, then ever later, as the kubelet
/// backs off. It is tried more often than that: looking into a folder costs nothing.
const FIRST_REPEAT: Duration = Duration::from_secs(10);
const LAST_REPEAT: Duration = Duration::from_secs(300);

const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// All that is needed to start a container.
pub(super) struct Created {
    pub(super) launch: Launch,
    /// As shown in the status: `repository:tag`.
    pub(super) image: String,
    pub(super) image_id: String,
}

/// Why a container can't be created, as the kubelet shows it.
struct Trouble {
    /// The waiting reason.
    reason: &'static str,
    /// The waiting reason while the next attempt is held back.
    then: &'static str,
    message: String,
    /// What is told in an event of its own, before the one that all troubles have.
    event: Option<(Severity, &'static str, String)>,
}

/// An image that can be run.
struct Runnable {
    name: String,
    id: String,
    entrypoint: Vec<OsString>,
    env: BTreeMap<String, String>,
    root: Option<PathBuf>,
}

/// Tries until the container can be created, and shows why it can't.
pub(super) async fn until_created(container: &ContainerContext) -> Created {
    let mut shown: Option<(String, Instant)> = None;
    let mut repeat = FIRST_REPEAT;
    let mut held_back = false;
    loop {
        let trouble = match create(container).await {
            Ok(created) => return created,
            Err(trouble) => trouble,
        };
        let again = match &shown {
            Some((message, since)) if *message == trouble.message => {
                let due = since.elapsed() >= repeat;
                repeat = if due { (repeat * 2).min(LAST_REPEAT) } else { repeat };
                due
            }
            _ => true,
        };
        if again {
            show(container, &trouble);
            shown = Some((trouble.message, Instant::now()));
            held_back = false;
        } else if !held_back && trouble.then != trouble.reason {
            held_back = true;
            let message = format!("Back-off pulling image {:?}", image_name(container));
            container.event(Severity::Normal, "BackOff", message.clone());
            container.event(Severity::Warning, "Failed", format!("Error: {}", trouble.then));
            container
                .set_waiting(trouble.then, format!("{message}: {}: {}", trouble.reason, trouble.message));
        }
        tokio::time::sleep(container.cx.tuning.create_retry).await;
    }
}

fn show(container: &ContainerContext, trouble: &Trouble) {
    if let Some((severity, reason, message)) = &trouble.event {
        container.event(*severity, reason, message.clone());
    }
    let what = if trouble.reason == CONFIG_ERROR { &trouble.message } else { trouble.reason };
    container.event(Severity::Warning, "Failed", format!("Error: {what}"));
    container.set_waiting(trouble.reason, trouble.message.clone());
}

fn image_name(container: &ContainerContext) -> &str {
    container.spec.image.as_deref().unwrap_or_default()
}

async fn create(container: &ContainerContext) -> Result<Created, Trouble> {
    let image = image(container).await?;
    let created = configure(container, image).await.map_err(|ConfigError(message)| Trouble {
        reason: CONFIG_ERROR,
        then: CONFIG_ERROR,
        message,
        event: None,
    })?;
    let message = format!("Container image {:?} already present on machine", image_name(container));
    container.event(Severity::Normal, "Pulled", message);
    Ok(created)
}

async fn image(container: &ContainerContext) -> Result<Runnable, Trouble> {
    let name = image_name(container).to_owned();
    let reference = Reference::parse(&name).map_err(|error| {
        let message = format!("Failed to apply default image tag {name:?}: {error}");
        let event = Some((Severity::Warning, "InspectFailed", message.clone()));
        Trouble { reason: "InvalidImageName", then: "InvalidImageName", message, event }
    })?;
    match container.cx.faults.refusal(&reference) {
        Some(Refusal::Never) => return Err(never_pull(&name)),
        Some(Refusal::NotFound) => return Err(not_pulled(&name, not_found(&reference))),
        None => {}
    }
    if let Some(builtin) = builtin(container, &reference) {
        return Ok(builtin);
    }
    let policy = container.spec.image_pull_policy.as_deref();
    if policy == Some("Always") {
        // It would be pulled although it is here.
        return Err(not_pulled(&name, not_found(&reference)));
    }
    let store = container.cx.config.images.clone();
    let wanted = name.clone();
    let found = tokio::task::spawn_blocking(move || store.resolve(&wanted)).await;
    let failure = match found.context("the image store failed").and_then(|found| found) {
        Ok(Some(image)) => {
            return Ok(Runnable {
                name: image
                    .tags
                    .first()
                    .filter(|_| reference.is_id())
                    .cloned()
                    .unwrap_or(reference.name_and_tag()),
                id: image.id.to_string(),
                entrypoint: image.entrypoint.into_iter().map(OsString::from).collect(),
                env: image.env,
                root: Some(image.root),
            });
        }
        Ok(None) => None,
        Err(error) => Some(format!("{error:#}")),
    };
    if policy == Some("Never") && failure.is_none() {
        return Err(never_pull(&name));
    }
    Err(not_pulled(&name, failure.unwrap_or_else(|| not_found(&reference))))
}

fn never_pull(name: &str) -> Trouble {
    let message = format!("Container image {name:?} is not present with pull policy of Never");
    let event = Some((Severity::Warning, "ErrImageNeverPull", message.clone()));
    Trouble { reason: "ErrImageNeverPull", then: "ErrImageNeverPull", message, event }
}

fn not_found(reference: &Reference) -> String {
    let name = reference.name_and_tag();
    format!(
        "failed to resolve image {name:?}: not found (the sandbox has no registry, only the images built \
         into it)"
    )
}

fn not_pulled(name: &str, message: String) -> Trouble {
    let event = Some((Severity::Warning, "Failed", format!("Failed to pull image {name:?}: {message}")));
    Trouble { reason: "ErrImagePull", then: "ImagePullBackOff", message, event }
}

/// An image that is a program on this machine.
fn builtin(container: &ContainerContext, reference: &Reference) -> Option<Runnable> {
    let config = &container.cx.config;
    let same = |name: &str| Reference::parse(name).is_ok_and(|known| known == *reference);
    let (name, entrypoint) = config.builtin.iter().find(|(name, _)| same(name))?;
    let kubeconfig = config.kubeconfig.to_string_lossy().into_owned();
    Some(Runnable {
        name: reference.name_and_tag(),
        id: id_of_name(name),
        entrypoint: entrypoint.clone(),
        env: BTreeMap::from([("KUBECONFIG".to_owned(), kubeconfig)]),
        root: None,
    })
}

async fn configure(container: &ContainerContext, image: Runnable) -> Result<Created, ConfigError> {
    let ContainerContext { cx, pod, spec, .. } = container;
    let object = pod.pod();
    let address = pod.address().ok_or_else(|| ConfigError("the pod has no address".to_owned()))?;
    let from = Surroundings {
        client: &cx.client,
        pod: &object,
        pod_ip: address.ip.to_string(),
        host_ip: HOST_IP.to_string(),
        node_cpus: cx.config.cpus,
        node_memory_bytes: cx.config.memory_bytes,
    };
    let home = pod.dir.join("home");
    let hostname = object.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let mut base = BTreeMap::from([
        ("PATH".to_owned(), search_path()),
        ("HOME".to_owned(), home.to_string_lossy().into_owned()),
        ("HOSTNAME".to_owned(), hostname.unwrap_or_else(|| pod.name.clone())),
    ]);
    if let Some(folder) = temporary_folder(container) {
        base.insert("TMPDIR".to_owned(), folder.to_string_lossy().into_owned());
    }
    base.extend(image.env);
    let mut variables = env::variables(&from, spec, base).await?;
    // There is no network namespace: without these, two pods would listen on the same address.
    variables.insert("HOST".to_owned(), address.ip.to_string());
    let first_port = spec.ports.iter().flatten().find_map(|port| u16::try_from(port.container_port).ok());
    if let Some(port) = first_port.and_then(|port| address.remapped.get(&port)) {
        variables.insert("PORT".to_owned(), port.to_string());
    }
    let argv = env::command_line(spec, &image.entrypoint, &variables)?;
    let dir = match &spec.working_dir {
        None => home,
        // A folder of the image where it has it, else of this machine.
        Some(folder) => {
            let inside = image.root.map(|root| root.join(folder.trim_start_matches('/')));
            inside.filter(|inside| inside.is_dir()).unwrap_or_else(|| PathBuf::from(folder))
        }
    };
    variables.insert(NODE_VARIABLE.to_owned(), container.cx.config.dir.to_string_lossy().into_owned());
    let env = variables.into_iter().map(|(name, value)| (name, OsString::from(value))).collect();
    Ok(Created { launch: Launch { argv, env, dir }, image: image.name, image_id: image.id })
}

fn search_path() -> String {
    let usual = || "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(usual)
}

/// The emptyDir that is mounted at /tmp: there are no mounts, so the container is told where the folder is. Of mounts
/// that it cannot be told of, an event says that they are not there.
fn temporary_folder(container: &ContainerContext) -> Option<PathBuf> {
    let object = container.pod.pod();
    let volumes = object.spec.as_ref()?.volumes.as_ref();
    let mut temporary = None;
    for mount in container.spec.volume_mounts.iter().flatten() {
        // Put there by a real API server; nothing that runs here reads it.
        if mount.mount_path.starts_with("/var/run/secrets/kubernetes.io/") {
            continue;
        }
        let volume = volumes.into_iter().flatten().find(|volume| volume.name == mount.name);
        let empty_dir = volume.is_some_and(|volume| volume.empty_dir.is_some());
        let folder = container.pod.dir.join("volumes").join(&mount.name);
        if empty_dir && mount.mount_path.trim_end_matches('/') == "/tmp" {
            temporary = Some(folder);
            continue;
        }
        let place = if empty_dir { format!("; its folder is {}", folder.display()) } else { String::new() };
        let message = format!(
            "Volume {:?} is not at {}: a process of the sandbox has no mounts of its own{place}",
            mount.name, mount.mount_path
        );
        container.event(Severity::Warning, "VolumeNotMounted", message);
    }
    temporary
}
