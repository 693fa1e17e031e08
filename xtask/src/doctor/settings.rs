//! Settings of the user's own that this tool does not follow, named so that nobody is surprised.

use xshell::cmd;

use super::Finding;
use super::tools::PATIENCE;
use crate::cx::Cx;
use crate::proc;

/// Variables that point docker, buildx or kubectl somewhere; no child process gets them.
const IGNORED: [(&str, &str); 5] = [
    ("DOCKER_HOST", "the daemon of the chosen cluster is used, and no other"),
    ("DOCKER_CONTEXT", "the daemon of the chosen cluster is used, and no other"),
    ("MINIKUBE_ACTIVE_DOCKERD", "docker-env is read anew in every run"),
    ("BUILDX_BUILDER", "the node's own builder is used"),
    ("KUBECONFIG", "the tool uses a kubeconfig of its own; the command `kubeconfig` prints its path"),
];

pub(super) fn environment(get: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let finding = |(name, instead): &(&'static str, &str)| {
        let value = get(name).filter(|value| !value.is_empty())?;
        let what = format!("{name}={value} is ignored: {instead}");
        Some(Finding::warning(
            "environment",
            what,
            format!("nothing to do; `unset {name}` for your own tools"),
        ))
    };
    IGNORED.iter().filter_map(finding).collect()
}

/// A builder that the user selected: with a driver other than docker's it would keep images to itself.
pub(super) async fn builder(cx: &Cx) -> Option<Finding> {
    which::which("docker").ok()?;
    let sh = proc::shell().ok()?;
    let inspect = proc::ask(cx, cmd!(sh, "docker buildx inspect").into());
    let told = match tokio::time::timeout(PATIENCE, inspect).await {
        Ok(Ok(answer)) if answer.status.success() => of_inspect(&answer.stdout),
        _ => None,
    };
    // Without the daemon the name is known all the same.
    let (name, driver) = told.or_else(|| Some((of_file()?, None)))?;
    judge(&name, driver.as_deref())
}

fn judge(name: &str, driver: Option<&str>) -> Option<Finding> {
    if driver == Some("docker") || name == "default" {
        return None;
    }
    let driver = driver.map(|driver| format!(" (driver {driver})")).unwrap_or_default();
    Some(Finding::warning(
        "builder",
        format!(
            "`docker buildx` is set to the builder `{name}`{driver}; images are built with the node's own \
             instead"
        ),
        "nothing to do; `docker buildx use default` for your own builds",
    ))
}

/// Name and driver, from the head of what `docker buildx inspect` prints.
fn of_inspect(text: &str) -> Option<(String, Option<String>)> {
    let field = |name: &str| {
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.next().map(|value| value.trim().to_owned())
    };
    Some((field("Name")?, field("Driver")))
}

/// Name of the selected builder, from buildx's own file.
fn of_file() -> Option<String> {
    let dir = match std::env::var_os("BUILDX_CONFIG") {
        Some(dir) => dir.into(),
        None => std::path::Path::new(&std::env::var_os("HOME")?).join(".docker/buildx"),
    };
    let text = std::fs::read_to_string(dir.join("current")).ok()?;
    let current: serde_json::Value = serde_json::from_str(&text).ok()?;
    current["Name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_said_to_be_ignored() {
        let set = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://somewhere:2375".to_owned());
        let findings = environment(set);
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].what,
            "DOCKER_HOST=tcp://somewhere:2375 is ignored: the daemon of the chosen cluster is used, and no \
             other"
        );
        assert!(environment(|_| Some(String::new())).is_empty(), "empty is unset");
    }

    #[test]
    fn only_a_builder_with_a_store_of_its_own_is_worth_a_word() {
        let inspect = "Name:          lab\nDriver:        docker-container\nLast Activity: \
                       2026-01-01\n\nNodes:\nName: lab0\n";
        let (name, driver) = of_inspect(inspect).expect("both");
        assert_eq!((name.as_str(), driver.as_deref()), ("lab", Some("docker-container")));
        assert!(judge(&name, driver.as_deref()).is_some());
        assert!(judge("desktop-linux", Some("docker")).is_none());
        assert!(judge("default", None).is_none());
        assert!(judge("lab", None).is_some(), "the driver is not known while the daemon is away");
    }
}
