//! Pods behind the ingress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Sandbox, ask, soon, web};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_behind_the_ingress_loses_no_request() {
    let sandbox = Sandbox::start().await;
    sandbox.import_web();
    let entry = sandbox.ingress().await.entry;
    let marker = sandbox.home.dir().to_string_lossy().into_owned();
    let answered = |version: &'static str| {
        let entry = entry.clone();
        move || {
            let entry = entry.clone();
            async move {
                let (status, body) = ask(&entry, "GET", "web.local", "wait").await.ok()?;
                (status == 200 && body.starts_with(version)).then_some(())
            }
        }
    };
    assert_eq!(ask(&entry, "GET", "web.local", "early").await.unwrap().0, 404, "no route yet");
    sandbox.apply(&web("v1", 2, &marker)).await;
    soon("v1 answers", answered("v1 ")).await;

    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (stop, entry) = (Arc::clone(&stop), entry.clone());
        async move {
            let (mut sent, mut failed) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                for method in ["GET", "POST"] {
                    sent += 1;
                    match ask(&entry, method, "web.local", &format!("load-{sent}")).await {
                        Ok((200, _)) => {}
                        other => failed.push(format!("{method} {sent}: {other:?}")),
                    }
                }
            }
            (sent, failed)
        }
    });
    sandbox.apply(&web("v2", 2, &marker)).await;
    sandbox.kubectl(&["rollout", "status", "deployment/web", "--timeout=30s"]).await;
    soon("v2 answers", answered("v2 ")).await;
    stop.store(true, Ordering::Relaxed);
    let (sent, failed) = load.await.unwrap();
    assert!(sent > 20, "{sent}");
    assert!(failed.is_empty(), "{} of {sent}: {failed:?}", failed.len());

    ask(&entry, "POST", "web.local", "the-one").await.unwrap();
    let line = soon("the access log has the request", || async {
        let log =
            sandbox.kubectl(&["-n", "ingress-nginx", "logs", "deployment/ingress-nginx-controller"]).await;
        log.lines().find(|line| line.ends_with(" the-one")).map(str::to_string)
    })
    .await;
    assert!(
        line.contains("\"POST /x HTTP/1.1\" 200 ") && line.contains(" [default-web-http] [] 127."),
        "{line}"
    );

    let ingresses: Api<Ingress> = Api::namespaced(sandbox.client().await, "default");
    soon("the leader writes the status", || async {
        let ingress = ingresses.get("web").await.ok()?;
        let address = ingress.status?.load_balancer?.ingress?.pop()?.ip?;
        (address == "127.0.0.1").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ingress_pod_leads_and_its_successor_takes_over() {
    let sandbox = Sandbox::start().await;
    sandbox.ingress().await;
    let leases: Api<Lease> = Api::namespaced(sandbox.client().await, "ingress-nginx");
    let holder = || async { leases.get("ingress-nginx-leader").await.ok()?.spec?.holder_identity };
    let first = soon("a leader", holder).await;
    let select = ["-n", "ingress-nginx", "get", "pods", "-o", "name"];
    assert_eq!(sandbox.kubectl(&select).await.trim(), format!("pod/{first}"));
    sandbox.kubectl(&["-n", "ingress-nginx", "delete", "pod", &first]).await;
    let next = soon("another leader", || async { holder().await.filter(|holder| *holder != first) }).await;
    assert!(next.starts_with("ingress-nginx-controller-"), "{next}");
    let lease = leases.get("ingress-nginx-leader").await.unwrap().spec.unwrap();
    assert_eq!(lease.lease_transitions, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_refuses_a_second_ingress_for_a_path() {
    let sandbox = Sandbox::start().await;
    sandbox.ingress().await;
    sandbox.apply(&web("v1", 0, "")).await;
    let [_, _, mut second] = web("v1", 0, "");
    second["metadata"]["name"] = json!("second");
    let refused = || async {
        let output = sandbox
            .kubectl_output(
                &["apply", "--server-side", "--dry-run=server", "-f", "-"],
                Some(&second.to_string()),
            )
            .await;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        // The controller hears of the first one by a watch.
        (!output.status.success()).then_some(err)
    };
    let err = soon("the refusal", refused).await;
    assert!(err.contains("validate.nginx.ingress.kubernetes.io"), "{err}");
    assert!(
        err.contains("host \"web.local\" and path \"/\" is already defined in ingress default/web"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn addons_say_whether_they_changed_anything() {
    let sandbox = Sandbox::start().await;
    let (client, info) = (sandbox.client().await, sandbox.running().await);
    assert!(!sandbox::addons::is_ingress_enabled(&client).await.unwrap());
    assert!(sandbox::addons::enable_ingress(&client, &info.entry).await.unwrap());
    assert!(sandbox::addons::is_ingress_enabled(&client).await.unwrap());
    assert!(!sandbox::addons::enable_ingress(&client, &info.entry).await.unwrap(), "nothing to change");
    assert!(!sandbox::addons::is_metrics_enabled(&client).await.unwrap());
    assert!(sandbox::addons::enable_metrics(&client).await.unwrap());
    assert!(!sandbox::addons::enable_metrics(&client).await.unwrap());
    assert!(sandbox::addons::is_metrics_enabled(&client).await.unwrap());
}
