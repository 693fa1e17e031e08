//! Any cluster that a kubeconfig names. The user's file is read, never written; what is used of it is one context, by
//! its name. Nothing is started, stopped or installed.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use sha2::{Digest as _, Sha256};

use self::delivery::Delivery;
use self::entry::Entry;
use self::platform::Platform;
use super::{Cluster, Kind, Plan, Problem, client_of};
use crate::commands::quoted;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit, Hint, attached, paragraph, reason};
use crate::image::{Digests, ImageRef, Recipe};
use crate::ingress_nginx;
use crate::kubernetes::Api;
use crate::manifests;
use crate::nearest::nearest;
use crate::options::Shared;
use crate::pipeline::{Outcome, Running};
use crate::repository::Place;

mod delivery;
mod entry;
mod needs;
mod platform;
mod plugin;

/// An API server that has not answered by then does not.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);

/// A context of the user's kubeconfig.
#[derive(Clone, Debug)]
pub struct Context {
    name: String,
    /// Where the kubeconfig is, if not where kubectl looks for it.
    given: Option<PathBuf>,
    /// Where what we keep of contexts is: of each a kubeconfig with nothing else in it, and its image.
    home: PathBuf,
    entry: Option<String>,
    registry: Option<Place>,
    /// The digests of what was delivered in this run.
    delivered: Arc<OnceLock<Digests>>,
}

impl Context {
    /// The context of that name; it need not be there.
    pub fn new(cx: &Cx, name: &str) -> Context {
        Context {
            name: name.to_owned(),
            given: cx.shared.kubeconfig.clone(),
            home: cx.home().join("context"),
            entry: cx.shared.entry.clone(),
            registry: cx.shared.registry.clone(),
            delivered: Arc::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the kubeconfig has it.
    ///
    /// # Errors
    /// Exit code 2 where it has not, 10 where it can't be read.
    pub fn check(&self) -> Result<()> {
        self.pick().map(drop)
    }

    /// The kubeconfig with this context and nothing else.
    fn pick(&self) -> Result<Kubeconfig> {
        pick(read(self.given.as_deref())?, &self.name)
    }

    /// What we keep of it. Two kubeconfigs may call different clusters by one name.
    fn folder_of(&self, config: &Kubeconfig) -> PathBuf {
        let server = config.clusters.first().and_then(|named| named.cluster.as_ref()?.server.clone());
        self.home.join(file_name(&self.name, &server.unwrap_or_default()))
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(self.folder_of(&self.pick()?))
    }

    async fn connect(&self, cx: &Cx) -> Result<Cluster> {
        let config = self.pick()?;
        let path = self.folder_of(&config).join("kubeconfig");
        write(&path, &config).with_context(|| format!("writing {}", path.display()))?;
        let client = self.client(cx, config).await.map_err(|error| error.exit(Exit::Preflight))?;
        let namespace = cx.shared.namespace.as_str();
        // Unreadable manifests are reported by whoever applies them.
        let manifests = manifests::read(&cx.root.join("kubernetes"), namespace).ok();
        let own = manifests.map(|manifests| manifests.ingress);
        let published = match &self.entry {
            Some(url) => Some(Entry { url: url.trim_end_matches('/').to_owned(), how: String::new() }),
            None => entry::published(&client, namespace, own.as_ref()).await,
        };
        let (entry, tunnel) = match published {
            Some(entry) => (entry.url, None),
            None => {
                let tunnel = entry::tunnel(&client, namespace, own).await;
                let entry = tunnel.context("listening for a tunnel to the ingress")?;
                (entry.url, Some(entry.how))
            }
        };
        let nginx = Api::<Deployment>::namespaced(client.clone(), ingress_nginx::NAMESPACE);
        let nginx = nginx.get_opt(ingress_nginx::DEPLOYMENT).await.ok().flatten().is_some();
        let metrics = needs::has_metrics(&client).await == Some(true);
        Ok(Cluster {
            kind: Kind::Context(self.clone()),
            context: self.name.clone(),
            kubeconfig: path,
            client,
            entry,
            tunnel,
            nginx,
            metrics,
        })
    }

    /// A client that has had an answer.
    async fn client(&self, cx: &Cx, config: Kubeconfig) -> Result<kube::Client> {
        let does_kubectl = format!("does kubectl get an answer, with --context {}?", quoted(&self.name));
        let asking = || format!("asking the API server of context {}", self.name);
        let options = KubeConfigOptions { context: Some(self.name.clone()), ..Default::default() };
        let has_proxy =
            config.clusters.iter().any(|one| one.cluster.as_ref().is_some_and(|one| one.proxy_url.is_some()));
        let user = config.clone();
        let made = async {
            let mut config = kube::Config::from_custom_kubeconfig(config, &options).await?;
            if !has_proxy && is_here(&config.cluster_url) {
                // As kubectl: the environment's proxies lead elsewhere.
                config.proxy_url = None;
            }
            // The user's credentials may come from a program that waits for a login in the browser.
            tokio::task::spawn_blocking(|| client_of(config)).await?
        };
        let refused = |error: anyhow::Error| {
            plugin::failure(&error, &user).unwrap_or_else(|| {
                anyhow!("{}", reason(error.as_ref())).context(asking()).hint(does_kubectl.as_str())
            })
        };
        let client = cx.unless_stopped(async { made.await.map_err(refused) }).await?;
        let answer = match tokio::time::timeout(ANSWERS_WITHIN, client.apiserver_version()).await {
            // Any answer but a refusal of the credentials will do: they may be good for one namespace alone.
            Ok(Ok(_)) => return Ok(client),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => return Ok(client),
            Ok(Err(error)) => anyhow!("{}", reason(&error)),
            Err(_) => anyhow!("no answer within {} s", ANSWERS_WITHIN.as_secs()),
        };
        Err(answer.context(asking())).hint(does_kubectl.as_str())
    }

    pub(super) async fn find(&self, cx: &Cx) -> Result<Option<Cluster>> {
        self.connect(cx).await.map(Some)
    }

    /// What keeps the cluster from taking the app, all at once.
    pub(super) async fn problems(&self, cx: &Cx) -> Result<Vec<Problem>> {
        let cluster = match self.connect(cx).await {
            Ok(cluster) => cluster,
            Err(error) => {
                let fix =
                    attached::<Hint>(&error).map(|hint| cx.commands.write_out(&hint.0)).unwrap_or_default();
                return Ok(vec![Problem { what: paragraph(&error), fix }]);
            }
        };
        let nodes = needs::nodes(&cluster.client).await?;
        let mut problems = match self.delivery(nodes.as_deref()) {
            Ok(delivery) => Vec::from_iter(delivery.problem()),
            Err(problem) => vec![problem],
        };
        // Unreadable manifests are reported by whoever applies them.
        if let Ok(manifests) = manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace) {
            problems.extend(needs::problems(cx, &cluster.client, &manifests, nodes.as_deref()).await);
        }
        Ok(problems)
    }

    fn delivery(&self, nodes: Option<&[Node]>) -> Result<Delivery, Problem> {
        Delivery::of(self.registry.as_ref(), nodes).ok_or_else(|| Problem {
            what: format!("no way is known by which the nodes of context {} get the image", self.name),
            fix: "name a registry that they pull from, and you may push to: --registry HOST[:PORT]/PATH"
                .to_owned(),
        })
    }

    pub(super) async fn ensure_running(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<Cluster>> {
        let cluster = self.connect(cx).await?;
        if let Some(how) = &cluster.tunnel {
            step.warn(format!("entry {}: {how}; --entry URL names one that lasts", cluster.entry));
        }
        let how = format!("context {} answers, entry {}", self.name, cluster.entry);
        Ok(Outcome::Already(cluster, how))
    }

    pub(super) async fn build_image(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        cluster: &Cluster,
        recipe: &Recipe,
    ) -> Result<Outcome<ImageRef>> {
        let nodes = needs::nodes(&cluster.client).await?;
        let refused = |problem: Problem| anyhow!("{}", problem.what).hint(problem.fix);
        let delivery = self.delivery(nodes.as_deref()).map_err(refused)?;
        let manifests = manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
        let platform = Platform::of(cx, &nodes.unwrap_or_default(), &manifests).await.map_err(refused)?;
        let is_there = async |reference: &str| {
            Ok(delivery::is_on(
                needs::nodes(&cluster.client).await?.unwrap_or_default().as_slice(),
                reference,
            ))
        };
        let delivered =
            delivery::deliver(cx, step, recipe, &platform, &delivery, &self.folder()?, is_there).await?;
        if let Outcome::Did(image, _) | Outcome::Already(image, _) = &delivered {
            // Whoever comes first has delivered the same.
            let _ = self.delivered.set(image.digests.clone());
        }
        Ok(delivered)
    }

    /// What the registry, or the nodes, have under a reference.
    pub(super) async fn digests(
        &self,
        cx: &Cx,
        client: &kube::Client,
        reference: &str,
    ) -> Result<Option<Digests>> {
        if let (Some(place), Some((_, digest))) = (&self.registry, reference.split_once('@')) {
            let found = delivery::registry(cx, place).await?.manifest(digest).await?;
            return Ok(found.map(|digest| Digests::new([digest.as_str()])));
        }
        let nodes = needs::nodes(client).await?.unwrap_or_default();
        // kind ends well only where each node has taken the image, and kubelets take their time to say so.
        let is_sure = matches!(Delivery::of(None, Some(&nodes)), Some(Delivery::Kind(_)));
        Ok(self.delivered.get().filter(|_| is_sure || delivery::is_on(&nodes, reference)).cloned())
    }

    pub(super) fn plan(&self) -> Result<Plan> {
        let looked_for = |what: &str| vec![format!("look for {what}; nothing is installed")];
        let image = match &self.registry {
            Some(place) => Delivery::Registry(place.clone()).plan(&self.folder()?)?,
            None => vec!["load into the nodes with the tool that made them: kind or k3d".to_owned()],
        };
        Ok(Plan {
            cluster: vec![format!("connect to context {}", self.name)],
            current: Vec::new(),
            ingress: looked_for("the IngressClass and its controller"),
            metrics: looked_for("the metrics API"),
            image,
        })
    }

    pub(super) fn stop(&self) -> Outcome<()> {
        Outcome::Already((), format!("the cluster of context {} goes on", self.name))
    }
}

/// Whether a URL is of this machine itself.
fn is_here(url: &http::Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
    for file in files.iter().filter(|file| file.exists()) {
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
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "the kubeconfig has none".to_owned(),
        None => format!("there are: {}", names.join(", ")),
    };
    anyhow!("the kubeconfig has no context `{name}`").hint(hint).exit(Exit::Usage)
}

/// The namespace that a context names, which is where a command without `--namespace` works, as kubectl does. A context
/// that can't be read has none: the command itself will say why.
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

/// A context of a server as the name of a folder: an EKS context is an ARN, with slashes in it.
fn file_name(context: &str, server: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let plain: String = context.chars().map(|c| if is_plain(c) { c } else { '_' }).take(60).collect();
    let hash = Sha256::digest(format!("{context}\0{server}"));
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{plain}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit_of;

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
        assert!(file_name(lab, "").starts_with("arn_aws_eks_eu-1_42_cluster_lab-"));
        assert_ne!(file_name("a/b", "s"), file_name("a_b", "s"));
        assert_ne!(file_name("a", "https://one"), file_name("a", "https://two"));
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
