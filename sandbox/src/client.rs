//! A client for a sandbox, by its kubeconfig.

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use crate::error::{Doing as _, Result};

/// A client for a context of a kubeconfig. The API server listens on loopback: a proxy of the environment is never the
/// way to it.
pub(crate) async fn of_kubeconfig(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<Client> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.doing("reading the sandbox's kubeconfig")?;
    config.proxy_url = None;
    Client::try_from(config).doing("making a client for the sandbox")
}
