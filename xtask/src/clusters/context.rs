//! Any cluster that a kubeconfig names. The user's file is read, never written; what is used of it is one context, by its
//! name. Nothing is started, stopped or installed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::config::Kubeconfig;
use sha2::{Digest as _, Sha256};

use super::{Cluster, Kind, Problem, client_of};
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::gates::watch::reason;
use crate::options::Shared;
use crate::pipeline::Outcome;
use crate::proc::quoted;

/// An API server that has not answered by then does not. Credentials may come from a program that asks its own server.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);

/// A context of the user's kubeconfig.
#[derive(Clone, Debug)]
pub struct Context {
    name: String,
    /// Where the kubeconfig is, if not where kubectl looks for it.
    given: Option<PathBuf>,
    /// What we keep of it: a kubeconfig with this context alone.
    folder: PathBuf,
    entry: Option<String>,
}

impl Context {
    /// The context of that name; it need not be there.
    pub fn new(cx: &Cx, name: &str) -> Context {
        Context {
            name: name.to_owned(),
            given: cx.shared.kubeconfig.clone(),
            folder: cx.home().join("context").join(file_name(name)),
            entry: cx.shared.entry.clone(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kubeconfig with this context and nothing else.
    fn pick(&self) -> Result<Kubeconfig> {
        pick(read(self.given.as_deref())?, &self.name)
    }

    async fn connect(&self) -> Result<Cluster> {
        let config = self.pick()?;
        let path = self.folder.join("kubeconfig");
        write(&path, &config).with_context(|| format!("writing {}", path.display()))?;
        let options =
            kube::config::KubeConfigOptions { context: Some(self.name.clone()), ..Default::default() };
        let connect = async {
            let config = kube::Config::from_custom_kubeconfig(config, &options).await?;
            let client = client_of(config)?;
            let version = client.apiserver_version().await?;
            anyhow::Ok((client, version))
        };
        let answer = tokio::time::timeout(ANSWERS_WITHIN, connect).await;
        let within = || anyhow!("no answer within {} s", ANSWERS_WITHIN.as_secs());
        let (client, _) = answer.unwrap_or_else(|_| Err(within())).map_err(|error| {
            anyhow!("{}", reason(error.as_ref()))
                .context(format!("asking the API server of context {}", self.name))
                .hint(format!("`kubectl --context {} version` asks the same", quoted(&self.name)))
                .exit(Exit::Preflight)
        })?;
        Ok(Cluster {
            kind: Kind::Context(self.clone()),
            context: self.name.clone(),
            kubeconfig: path,
            client,
            entry: self.entry.clone().unwrap_or_default(),
        })
    }

    pub(super) async fn find(&self) -> Result<Option<Cluster>> {
        self.connect().await.map(Some)
    }

    pub(super) async fn problems(&self, cx: &Cx) -> Result<Vec<Problem>> {
        let fix = format!("run it on minikube or the sandbox; `{}` works here", cx.commands.xtask("wait"));
        Ok(vec![Problem { what: self.no_delivery().to_string(), fix }])
    }

    pub(super) fn no_delivery(&self) -> anyhow::Error {
        anyhow!("no way is known to bring an image into the context {}", self.name).exit(Exit::Preflight)
    }

    pub(super) async fn ensure_running(&self) -> Result<Outcome<Cluster>> {
        let cluster = self.connect().await?;
        let how = format!("context {} answers", self.name);
        Ok(Outcome::Already(cluster, how))
    }

    pub(super) fn stop(&self) -> Outcome<()> {
        Outcome::Already((), format!("the cluster of context {} goes on", self.name))
    }
}

/// Where kubectl looks: `--kubeconfig`, else the files of `KUBECONFIG`, else `~/.kube/config`.
fn files(given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(given) = given {
        return vec![given.to_owned()];
    }
    if let Some(listed) = std::env::var_os("KUBECONFIG").filter(|listed| !listed.is_empty()) {
        return std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config")).into_iter().collect()
}

/// The user's kubeconfig, its files merged as kubectl merges them: those that are not there count for nothing.
fn read(given: Option<&Path>) -> Result<Kubeconfig> {
    let files = files(given);
    let mut merged: Option<Kubeconfig> = None;
    for file in files.iter().filter(|file| given.is_some() || file.exists()) {
        let config = Kubeconfig::read_from(file)
            .with_context(|| format!("reading the kubeconfig {}", file.display()))
            .exit(Exit::Preflight)?;
        merged = Some(match merged {
            Some(before) => {
                before.merge(config).context("merging the files of KUBECONFIG").exit(Exit::Preflight)?
            }
            None => config,
        });
    }
    merged.ok_or_else(|| {
        let places: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        anyhow!("there is no kubeconfig at {}", places.join(", "))
            .hint("name one with --kubeconfig FILE or the variable KUBECONFIG")
            .exit(Exit::Preflight)
    })
}

/// One context with its cluster and its user.
fn pick(mut config: Kubeconfig, name: &str) -> Result<Kubeconfig> {
    let Some(context) = config.contexts.iter().find(|named| named.name == name).cloned() else {
        return Err(unknown(&config, name));
    };
    let inner = context.context.clone().unwrap_or_default();
    config.contexts = vec![context];
    config.clusters.retain(|cluster| cluster.name == inner.cluster);
    config.auth_infos.retain(|user| Some(&user.name) == inner.user.as_ref());
    config.current_context = Some(name.to_owned());
    if config.clusters.is_empty() {
        return Err(anyhow!(
            "the kubeconfig has no cluster `{}`, which its context `{name}` names",
            inner.cluster
        ))
        .hint("`kubectl config get-clusters` lists them")
        .exit(Exit::Preflight);
    }
    Ok(config)
}

fn unknown(config: &Kubeconfig, name: &str) -> anyhow::Error {
    let names: Vec<&str> = config.contexts.iter().map(|named| named.name.as_str()).collect();
    let near = names.iter().map(|other| (strsim::damerau_levenshtein(other, name), other)).min();
    let hint = match near {
        Some((distance, near)) if distance <= 2 => format!("did you mean {near}?"),
        _ if names.is_empty() => "the kubeconfig has none".to_owned(),
        _ => format!("there are: {}", names.join(", ")),
    };
    anyhow!("the kubeconfig has no context `{name}`").hint(hint).exit(Exit::Usage)
}

/// The namespace that a context names, which is where a command without `--namespace` works, as kubectl does. A context that
/// can't be read has none: the command itself will say why.
pub fn namespace(shared: &Shared) -> Option<String> {
    let name = shared.context.as_ref()?;
    let config = pick(read(shared.kubeconfig.as_deref()).ok()?, name).ok()?;
    let namespace = config.contexts.into_iter().next()?.context?.namespace?;
    (!namespace.is_empty()).then_some(namespace)
}

/// Writes a file that its owner alone can read, whole or not at all.
fn write(path: &Path, config: &Kubeconfig) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    std::fs::create_dir_all(folder)?;
    // Made readable for its owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(serde_yaml::to_string(config)?.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// A context's name as that of a folder: an EKS context is an ARN, with slashes in it.
fn file_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).take(60).collect();
    if plain == name {
        return plain;
    }
    let hash: String = Sha256::digest(name).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{plain}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Hint, attached, exit_of, paragraph};

    const TWO: &str = "
apiVersion: v1
kind: Config
current-context: prod
clusters:
- {name: a, cluster: {server: 'https://127.0.0.1:1'}}
- {name: b, cluster: {server: 'https://127.0.0.1:2'}}
users:
- {name: u, user: {token: secret-of-u}}
- {name: v, user: {token: secret-of-v}}
contexts:
- {name: prod, context: {cluster: a, user: u, namespace: shop}}
- {name: 'arn:aws:eks:eu-1:42:cluster/lab', context: {cluster: b, user: v}}
- {name: broken, context: {cluster: c, user: v}}
";

    fn kubeconfig() -> Kubeconfig {
        serde_yaml::from_str(TWO).expect("a kubeconfig")
    }

    #[test]
    fn nothing_but_the_named_context_is_taken_along() {
        let lab = "arn:aws:eks:eu-1:42:cluster/lab";
        let text = serde_yaml::to_string(&pick(kubeconfig(), lab).expect("the context")).expect("YAML");
        assert!(text.contains("secret-of-v") && text.contains("https://127.0.0.1:2"), "{text}");
        assert!(!text.contains("secret-of-u") && !text.contains("https://127.0.0.1:1"), "{text}");
        assert!(text.contains(&format!("current-context: {lab}")), "{text}");
        assert_eq!(file_name(lab), format!("arn_aws_eks_eu-1_42_cluster_lab-{}", &file_name(lab)[32..]));
        assert_ne!(file_name("a/b"), file_name("a_b"));
    }

    #[test]
    fn a_context_that_is_not_there_is_a_mistake_on_the_command_line() {
        let error = pick(kubeconfig(), "prdo").unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage);
        assert_eq!(paragraph(&error), "the kubeconfig has no context `prdo`");
        assert_eq!(attached::<Hint>(&error).map(|hint| &hint.0), Some(&"did you mean prod?".into()));
        let error = pick(kubeconfig(), "broken").unwrap_err();
        assert_eq!(exit_of(&error), Exit::Preflight);
    }
}
