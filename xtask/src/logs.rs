//! `cargo xtask logs`: the app's logs from all pods, prefixed by pod.

use anyhow::{Context as _, Result};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};

use crate::clusters;
use crate::cx::Cx;
use crate::summary::Summary;

/// Prints them; with `follow`, pods that come later too, until Ctrl-C.
///
/// # Errors
/// When no cluster runs (exit code 10), or the API refuses.
pub async fn run(cx: &Cx, follow: bool, tail: Option<i64>) -> Result<Summary> {
    let cluster = clusters::choose(cx).await?.kind.expect(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"))?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cx.shared.namespace);
    let selector = manifests.pod_selector();
    let params = LogParams { follow, tail_lines: tail, ..LogParams::default() };
    let print = |pod: String| {
        let (api, params) = (api.clone(), params.clone());
        async move {
            match api.log_stream(&pod, &params).await {
                Ok(lines) => {
                    let mut lines = lines.lines();
                    while let Some(line) = lines.try_next().await.unwrap_or(None) {
                        cx.output.data(&format!("{pod} {line}"));
                    }
                }
                Err(error) => cx.output.note(&format!("{pod}: no log: {error}")),
            }
        }
    };
    if follow {
        let mut seen = std::collections::BTreeSet::new();
        let pods = watcher(api.clone(), watcher::Config::default().labels(&selector))
            .default_backoff()
            .applied_objects()
            .filter_map(|pod| std::future::ready(pod.ok()))
            // A pod has a log once its container has started.
            .filter(|pod| {
                std::future::ready(pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running")))
            })
            .map(|pod| pod.name_any())
            .filter(move |name| std::future::ready(seen.insert(name.clone())));
        let work = async {
            pods.for_each_concurrent(None, print).await;
            Ok(())
        };
        cx.unless_stopped(work).await?;
    } else {
        let work = async {
            let pods =
                api.list(&ListParams::default().labels(&selector)).await.context("listing the app's pods")?;
            if pods.items.is_empty() {
                cx.output.note(&format!("no pod with {selector} in namespace {}", cx.shared.namespace));
            }
            stream::iter(pods.items).for_each(|pod| print(pod.name_any())).await;
            Ok(())
        };
        cx.unless_stopped(work).await?;
    }
    Ok(Summary::new())
}
