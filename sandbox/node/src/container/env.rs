//! A container's environment and command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret,
};
use kube::api::Api;

/// Why a container cannot be configured; shown as `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(crate) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the environment is made from, beside the container's own spec.
pub(crate) struct Surroundings<'a> {
    pub(crate) client: &'a kube::Client,
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ip: String,
    pub(crate) host_ip: String,
    /// For `resourceFieldRef` where the container sets no limit.
    pub(crate) node_cpus: u32,
    pub(crate) node_memory_bytes: u64,
}

type Variables = BTreeMap<String, String>;

/// What all variables or all words of a container may come to with `$(NAME)` filled in: no system starts a process with
/// more. A variable may name another one twice, and that one the next.
const EXPANDED_BYTES: usize = 2 << 20;

/// The variables of `container`, on top of `base`: `envFrom`, then `env`, each seeing what came before it.
pub(crate) async fn variables(
    from: &Surroundings<'_>,
    container: &Container,
    base: Variables,
) -> Result<Variables, ConfigError> {
    let mut variables = base;
    let mut sources = Sources { from, config_maps: BTreeMap::new(), secrets: BTreeMap::new() };
    for source in container.env_from.iter().flatten() {
        let data = if let Some(reference) = &source.config_map_ref {
            sources.config_map(&reference.name, reference.optional).await?
        } else if let Some(reference) = &source.secret_ref {
            sources.secret(&reference.name, reference.optional).await?
        } else {
            None
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in data.into_iter().flatten() {
            // A name with '=' cannot be passed on.
            if !key.contains('=') {
                variables.insert(format!("{prefix}{key}"), value.clone());
            }
        }
    }
    let mut left = EXPANDED_BYTES;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => {
                let expanded = expand(value, &variables, &mut left);
                Some(expanded.ok_or_else(|| too_long(&format!("environment variable {:?}", variable.name)))?)
            }
            (None, Some(source)) => sources.value(container, source).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    if let Some((name, _)) =
        variables.iter().find(|(name, value)| name.contains('\0') || value.contains('\0'))
    {
        return Err(ConfigError(format!("environment variable {name:?} contains a NUL byte")));
    }
    Ok(variables)
}

/// The command line: `command` replaces the image's entrypoint, `args` is appended.
pub(crate) fn command_line(
    container: &Container,
    entrypoint: &[OsString],
    variables: &Variables,
) -> Result<Vec<OsString>, ConfigError> {
    let mut left = EXPANDED_BYTES;
    let mut fill = |words: &Option<Vec<String>>| -> Result<Vec<OsString>, ConfigError> {
        let words = words.iter().flatten().map(|word| expand(word, variables, &mut left).map(Into::into));
        words.collect::<Option<_>>().ok_or_else(|| too_long("the command line"))
    };
    let mut argv = fill(&container.command)?;
    if argv.is_empty() {
        argv = entrypoint.to_vec();
    }
    argv.extend(fill(&container.args)?);
    Ok(argv)
}

fn too_long(what: &str) -> ConfigError {
    ConfigError(format!(
        "{what} is too long: with its references filled in it has more than {EXPANDED_BYTES} bytes"
    ))
}

/// Replaces `$(NAME)` by the variable; a name that is not known stays as it is, and `$$` is one `$`. None if more than
/// `left` bytes come of it.
fn expand(text: &str, variables: &Variables, left: &mut usize) -> Option<String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|name| name.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = after;
        } else {
            expanded.push('$');
        }
        if expanded.len() > *left {
            return None;
        }
    }
    expanded.push_str(rest);
    *left = left.checked_sub(expanded.len())?;
    Some(expanded)
}

/// ConfigMaps and Secrets, each read once. `None`: absent, and that is allowed.
struct Sources<'a> {
    from: &'a Surroundings<'a>,
    config_maps: BTreeMap<String, Option<Variables>>,
    secrets: BTreeMap<String, Option<Variables>>,
}

impl Sources<'_> {
    async fn config_map(
        &mut self,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<&Variables>, ConfigError> {
        if !self.config_maps.contains_key(name) {
            let api: Api<ConfigMap> = Api::namespaced(self.from.client.clone(), self.namespace());
            let found = api.get_opt(name).await.map_err(|error| failed("configmap", name, &error))?;
            self.config_maps.insert(name.to_owned(), found.map(|object| object.data.unwrap_or_default()));
        }
        present(self.config_maps.get(name), "configmap", name, optional)
    }

    async fn secret(
        &mut self,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<&Variables>, ConfigError> {
        if !self.secrets.contains_key(name) {
            let api: Api<Secret> = Api::namespaced(self.from.client.clone(), self.namespace());
            let found = api.get_opt(name).await.map_err(|error| failed("secret", name, &error))?;
            let texts = found.map(|object| {
                let data = object.data.unwrap_or_default().into_iter();
                data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect()
            });
            self.secrets.insert(name.to_owned(), texts);
        }
        present(self.secrets.get(name), "secret", name, optional)
    }

    async fn value(
        &mut self,
        container: &Container,
        source: &EnvVarSource,
    ) -> Result<Option<String>, ConfigError> {
        let namespace = self.namespace().to_owned();
        if let Some(reference) = &source.config_map_key_ref {
            let data = self.config_map(&reference.name, reference.optional).await?;
            key(data, "ConfigMap", &namespace, &reference.name, &reference.key, reference.optional)
        } else if let Some(reference) = &source.secret_key_ref {
            let data = self.secret(&reference.name, reference.optional).await?;
            key(data, "Secret", &namespace, &reference.name, &reference.key, reference.optional)
        } else if let Some(reference) = &source.field_ref {
            field(self.from, reference).map(Some)
        } else if let Some(reference) = &source.resource_field_ref {
            resource(self.from, container, reference).map(Some)
        } else {
            Err(ConfigError("unsupported source of an environment variable".to_owned()))
        }
    }

    fn namespace(&self) -> &str {
        self.from.pod.metadata.namespace.as_deref().unwrap_or("default")
    }
}

fn failed(kind: &str, name: &str, error: &kube::Error) -> ConfigError {
    ConfigError(format!("cannot read {kind} {name:?}: {error}"))
}

fn present<'a>(
    data: Option<&'a Option<Variables>>,
    kind: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a Variables>, ConfigError> {
    match data.and_then(Option::as_ref) {
        None if optional != Some(true) => Err(ConfigError(format!("{kind} {name:?} not found"))),
        found => Ok(found),
    }
}

fn key(
    data: Option<&Variables>,
    kind: &str,
    namespace: &str,
    name: &str,
    key: &str,
    optional: Option<bool>,
) -> Result<Option<String>, ConfigError> {
    match data.and_then(|data| data.get(key)) {
        None if optional != Some(true) => {
            Err(ConfigError(format!("couldn't find key {key} in {kind} {namespace}/{name}")))
        }
        found => Ok(found.cloned()),
    }
}

fn field(from: &Surroundings<'_>, reference: &ObjectFieldSelector) -> Result<String, ConfigError> {
    let metadata = &from.pod.metadata;
    let spec = from.pod.spec.as_ref();
    let path = reference.field_path.as_str();
    let entry = |map: &Option<Variables>, key: &str| map.as_ref().and_then(|map| map.get(key)).cloned();
    let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    let value = match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => Some(from.pod_ip.clone()),
        "status.hostIP" | "status.hostIPs" => Some(from.host_ip.clone()),
        _ => {
            if let Some(name) = subscript("metadata.labels['") {
                entry(&metadata.labels, name)
            } else if let Some(name) = subscript("metadata.annotations['") {
                entry(&metadata.annotations, name)
            } else {
                return Err(ConfigError(format!("unsupported fieldPath: {path}")));
            }
        }
    };
    Ok(value.unwrap_or_default())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // Saturates.
fn resource(
    from: &Surroundings<'_>,
    container: &Container,
    reference: &ResourceFieldSelector,
) -> Result<String, ConfigError> {
    let invalid = || ConfigError(format!("unsupported container resource: {}", reference.resource));
    let spec = from.pod.spec.as_ref();
    let container = match &reference.container_name {
        None => container,
        Some(name) => spec
            .and_then(|spec| spec.containers.iter().find(|container| container.name == *name))
            .ok_or_else(|| ConfigError(format!("container {name:?} not found")))?,
    };
    let (kind, resource) = reference.resource.split_once('.').ok_or_else(invalid)?;
    let resources = container.resources.as_ref();
    let quantities = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(invalid()),
    };
    let set = quantities.and_then(|quantities| quantities.get(resource));
    let default = match (kind, resource) {
        ("limits", "cpu") => f64::from(from.node_cpus),
        ("limits", "memory") => from.node_memory_bytes as f64,
        ("requests", "cpu" | "memory") => 0.0,
        _ if set.is_some() => 0.0,
        _ => return Err(invalid()),
    };
    let number = set.and_then(|amount| quantity::value(&amount.0)).unwrap_or(default);
    let divisor = reference.divisor.as_ref().and_then(|divisor| quantity::value(&divisor.0));
    let divisor = divisor.filter(|divisor| *divisor > 0.0).unwrap_or(1.0);
    Ok(((number / divisor).ceil() as u64).to_string())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let variables =
            BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        for (text, expanded) in [
            ("$(A)-$(B)", "1-$(A)"),
            ("$$(A)", "$(A)"),
            ("$(missing) $A $", "$(missing) $A $"),
            ("$(A", "$(A"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &variables, &mut 100).as_deref(), Some(expanded), "{text}");
        }
    }

    #[tokio::test]
    async fn what_doubles_sixty_times_is_refused() {
        let twice = |n: i32| format!("$(A{n})$(A{n})");
        let env = (0..60).map(|n| EnvVar {
            name: format!("A{n}"),
            value: Some(if n == 0 { "x".to_owned() } else { twice(n - 1) }),
            ..EnvVar::default()
        });
        let container = Container { env: Some(env.collect()), ..Container::default() };
        let surroundings = Surroundings {
            client: &sandbox_apiserver::ApiServer::new(String::new()).client(),
            pod: &Pod::default(),
            pod_ip: String::new(),
            host_ip: String::new(),
            node_cpus: 1,
            node_memory_bytes: 1,
        };
        let error = variables(&surroundings, &container, BTreeMap::new()).await.unwrap_err();
        assert!(error.0.starts_with("environment variable \"A21\" is too long"), "{error}");

        let known = BTreeMap::from([("A".to_owned(), "x".repeat(1 << 20))]);
        let args = Some(vec!["$(A)".to_owned(); 3]);
        let container = Container { args, ..Container::default() };
        assert!(command_line(&container, &[], &known).is_err());
    }

    #[test]
    fn command_and_args() {
        let entrypoint = [OsString::from("/image/app"), OsString::from("serve")];
        let line = |command: &[&str], args: &[&str]| {
            let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
            let container = Container { command: words(command), args: words(args), ..Container::default() };
            let line = command_line(&container, &entrypoint, &BTreeMap::new()).unwrap();
            line.join(" ".as_ref()).into_string().unwrap()
        };
        assert_eq!(line(&[], &[]), "/image/app serve");
        assert_eq!(line(&[], &["-v"]), "/image/app serve -v");
        assert_eq!(line(&["sh"], &["-c", "x"]), "sh -c x");
    }
}
