//! A stock kubectl.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::support::{Sandbox, ask, manifest, soon, web};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works() {
    let sandbox = Sandbox::start().await;
    sandbox.import_web();
    sandbox.ingress().await;
    let manifest = manifest(&web("v1", 2, "kubectl"));

    // apply, client-side and server-side
    let applied = sandbox.kubectl_output(&["apply", "-f", "-"], Some(&manifest)).await;
    let out = String::from_utf8_lossy(&applied.stdout);
    assert!(
        out.contains("deployment.apps/web created") && out.contains("ingress.networking.k8s.io/web created"),
        "{out}{}",
        String::from_utf8_lossy(&applied.stderr)
    );
    let again = sandbox.kubectl_output(&["apply", "-f", "-"], Some(&manifest)).await;
    assert!(String::from_utf8_lossy(&again.stdout).contains("deployment.apps/web unchanged"), "{again:?}");
    let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let again = sandbox.kubectl_output(&server_side, Some(&manifest)).await;
    assert!(
        String::from_utf8_lossy(&again.stdout).contains("deployment.apps/web serverside-applied"),
        "{again:?}"
    );

    // rollout status, wait
    let out = sandbox.kubectl(&["rollout", "status", "deployment/web", "--timeout=30s"]).await;
    assert!(out.contains("successfully rolled out"), "{out}");
    let out =
        sandbox.kubectl(&["wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=30s"]).await;
    assert_eq!(out.matches("condition met").count(), 2, "{out}");

    // get, describe, logs
    let out = sandbox.kubectl(&["get", "deployment,pods,services,ingress", "-o", "wide"]).await;
    assert!(out.contains("deployment.apps/web") && out.contains("2/2") && out.contains("1/1"), "{out}");
    let out = sandbox.kubectl(&["get", "nodes"]).await;
    assert!(out.contains("Ready") && out.contains(sandbox::NODE_NAME), "{out}");
    let out = sandbox.kubectl(&["describe", "pod", "-l", "app=web"]).await;
    assert!(out.contains("Readiness:") && out.contains("Started container web"), "{out}");
    sandbox.kubectl(&["describe", "deployment", "web"]).await;
    sandbox.kubectl(&["describe", "node", sandbox::NODE_NAME]).await;
    let out = sandbox.kubectl(&["logs", "-l", "app=web", "--prefix"]).await;
    assert_eq!(out.matches("listening on").count(), 2, "{out}");

    // top
    sandbox::addons::enable_metrics(&sandbox.client().await).await.unwrap();
    sandbox
        .kubectl(&["wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=30s"])
        .await;
    soon("metrics of the pods", || async {
        let output = sandbox.kubectl_output(&["top", "pods"], None).await;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success() && out.matches("web-").count() == 2).then_some(())
    })
    .await;
    let out = sandbox.kubectl(&["top", "node"]).await;
    assert!(out.contains(sandbox::NODE_NAME), "{out}");

    // port-forward
    for target in ["service/web", "deployment/web"] {
        let port = if target == "service/web" { ":80" } else { ":8000" };
        let mut forward =
            sandbox.kubectl_command(&["port-forward", target, port]).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = forward.stdout.take().unwrap();
        // Kept to the end: kubectl dies of a closed pipe when it says that a connection came.
        let (line, _stdout) = tokio::task::spawn_blocking(|| {
            let mut lines = BufReader::new(stdout).lines();
            (lines.next().unwrap().unwrap(), lines)
        })
        .await
        .unwrap();
        let address = line.split_whitespace().nth(2).unwrap().to_string();
        for _ in 0..3 {
            let (status, body) = ask(&address, "POST", "any", "forwarded").await.unwrap();
            assert!(status == 200 && body.starts_with("v1 web-"), "{target}: {status} {body}");
        }
        forward.kill().unwrap();
        forward.wait().unwrap();
    }

    // scale, delete
    sandbox.kubectl(&["scale", "deployment/web", "--replicas=3"]).await;
    sandbox.kubectl(&["rollout", "status", "deployment/web", "--timeout=30s"]).await;
    assert_eq!(sandbox.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).await.lines().count(), 3);
    sandbox.kubectl(&["delete", "deployment/web", "service/web", "ingress/web", "--timeout=30s"]).await;
    sandbox.kubectl(&["wait", "--for=delete", "pod", "-l", "app=web", "--timeout=30s"]).await;
    assert_eq!(sandbox.kubectl(&["get", "pods"]).await, "");
}
