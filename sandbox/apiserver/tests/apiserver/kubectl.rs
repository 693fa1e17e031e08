//! The stock kubectl against the server on a real socket.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{Result, Server, deployment, running_pod};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

/// Columns told apart by two blanks or more, as kubectl prints them.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[tokio::test]
async fn get_and_describe() -> Result {
    let server = Server::start().await?;
    if server.kubectl().is_none() {
        return Ok(());
    }
    let client = server.client().await?;
    running_pod(&client).await?;
    let table = server.run("get pods").await?;
    let lines: Vec<Vec<&str>> = table.lines().map(cells).collect();
    assert_eq!(lines[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(lines[1][..3], ["web-1", "1/1", "Running"]);
    assert!(lines[1][3].starts_with("2 (") && lines[1][3].ends_with(" ago)"), "{table}");
    let wide = server.run("get po -o wide").await?;
    has(&wide, &["IP", "NODE", "127.1.0.1", "n1", "READINESS GATES"]);
    has(&server.run("get pod web-1 -o yaml").await?, &["restartPolicy: Always", "qosClass: Burstable"]);
    assert_eq!(server.run("get pods -l app=web -o name").await?.trim(), "pod/web-1");
    assert_eq!(server.run("get pods -l app!=web").await?.trim(), "No resources found in default namespace.");
    assert_eq!(
        server.run("get pods -A --field-selector spec.nodeName=n1 -o name").await?.trim(),
        "pod/web-1"
    );
    let (code, text) = server.try_run("get pod nobody").await?;
    assert_eq!((code, text.trim()), (1, "Error from server (NotFound): pods \"nobody\" not found"));
    has(&server.run("get nodes").await?, &["n1", "Ready"]);
    has(&server.run("get ns").await?, &["default", "kube-system", "Active"]);
    has(&server.run("describe pod web-1").await?, &["Node:", "OOMKilled", "Restart Count:  2", "127.1.0.1"]);
    has(&server.run("describe node n1").await?, &["web-1", "Allocatable:"]);
    has(&server.run("api-resources").await?, &["deploy", "apps/v1", "Deployment", "hpa", "autoscaling/v2"]);
    has(&server.run("version").await?, &["v1.34.0-sandbox"]);
    has(&server.run("auth can-i create pods").await?, &["yes"]);
    Ok(())
}

#[tokio::test]
async fn apply_in_both_ways_diff_scale_and_delete() -> Result {
    let server = Server::start().await?;
    if server.kubectl().is_none() {
        return Ok(());
    }
    let two = server.manifest("two.json", &deployment(2))?;
    let three = server.manifest("three.json", &deployment(3))?;
    let dry = server.run(&format!("apply -f {two} --dry-run=server")).await?;
    assert_eq!(dry.trim(), "deployment.apps/web created (server dry run)");
    assert_eq!(server.run(&format!("apply -f {two}")).await?.trim(), "deployment.apps/web created");
    assert_eq!(server.run(&format!("apply -f {two}")).await?.trim(), "deployment.apps/web unchanged");
    assert_eq!(server.run(&format!("apply -f {three}")).await?.trim(), "deployment.apps/web configured");
    has(&server.run("get deploy web").await?, &["0/3"]);
    assert_eq!(server.run("scale deploy/web --replicas=5").await?.trim(), "deployment.apps/web scaled");
    let applied = server.run(&format!("apply --server-side -f {two}")).await;
    has(&applied.expect_err("a conflict").to_string(), &["conflict with \"kubectl\"", ".spec.replicas"]);
    let forced = server.run(&format!("apply --server-side --force-conflicts -f {two}")).await?;
    assert_eq!(forced.trim(), "deployment.apps/web serverside-applied");
    has(&server.run("get deploy web -o wide").await?, &["0/2", "CONTAINERS", "web:1", "app=web"]);
    has(&server.run("set image deploy/web web=web:2").await?, &["image updated"]);
    has(&server.run("rollout restart deploy/web").await?, &["restarted"]);
    has(&server.run("label deploy web tier=front").await?, &["labeled"]);
    has(&server.run("annotate deploy web note=x").await?, &["annotated"]);
    has(&server.run("describe deploy web").await?, &["RollingUpdate", "web:2", "25% max unavailable"]);
    let (code, diff) = server.try_run(&format!("diff -f {three}")).await?;
    assert_eq!(code, 1, "{diff}");
    has(&diff, &["+  replicas: 3"]);
    has(&server.run("autoscale deploy web --min=1 --max=3 --cpu-percent=70").await?, &["autoscaled"]);
    has(&server.run("get hpa").await?, &["Deployment/web", "cpu: <unknown>/70%"]);
    has(&server.run("describe hpa web").await?, &["Deployment/web", "70%"]);

    let mut wrong = deployment(1);
    wrong["metadata"]["name"] = json!("wrong");
    wrong["spec"]["foo"] = json!(1);
    let wrong = server.manifest("wrong.json", &wrong)?;
    let (code, text) = server.try_run(&format!("apply -f {wrong}")).await?;
    assert_eq!(code, 1);
    has(&text, &["strict decoding error: unknown field \"spec.foo\""]);
    has(
        &server.run(&format!("apply -f {wrong} --validate=warn")).await?,
        &["Warning: unknown field \"spec.foo\""],
    );

    assert_eq!(server.run("delete deploy web").await?.trim(), "deployment.apps \"web\" deleted");
    let config = |name: &str, field: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name}, field: {"a": "1"}})
    };
    let list = |items: Vec<serde_json::Value>| json!({"apiVersion": "v1", "kind": "List", "items": items});
    let both = server.manifest("list.json", &list(vec![config("one", "data"), config("two", "data")]))?;
    let applied = server.run(&format!("apply -f {both}")).await?;
    assert_eq!(applied.trim(), "configmap/one created\nconfigmap/two created");
    let paged = server.run("get cm -o name --chunk-size=1").await?;
    assert_eq!(paged.trim(), "configmap/one\nconfigmap/two");
    let wrong = server.manifest("wrong-list.json", &list(vec![config("three", "datta")]))?;
    let (_, text) = server.try_run(&format!("apply -f {wrong}")).await?;
    has(&text, &["strict decoding error: unknown field \"datta\""]);
    has(
        &server.run("delete ns kube-system").await.expect_err("403").to_string(),
        &["(Forbidden)", "may not be deleted"],
    );
    Ok(())
}

#[tokio::test]
async fn wait_and_watch() -> Result {
    let server = Server::start().await?;
    let Some(mut wait) = server.kubectl() else { return Ok(()) };
    let client = server.client().await?;
    let manifest = server.manifest("d.json", &deployment(1))?;
    server.run(&format!("create -f {manifest}")).await?;
    let waiting = wait
        .args(["wait", "deploy/web", "--for=condition=Available", "--timeout=30s"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut watch = server.kubectl().ok_or("no kubectl")?;
    let mut watch = watch.args(["get", "deploy", "-w"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().ok_or("no stdout")?).lines();
    let deadline = Duration::from_secs(30);
    let next = tokio::time::timeout(deadline, lines.next_line()).await??.ok_or("no header")?;
    assert_eq!(cells(&next), ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    tokio::time::timeout(deadline, lines.next_line()).await??.ok_or("no first row")?;
    let deployments: kube::Api<k8s_openapi::api::apps::v1::Deployment> =
        kube::Api::default_namespaced(client);
    let status = json!({"status": {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1,
        "availableReplicas": 1,
        "observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}});
    deployments.patch_status("web", &Default::default(), &kube::api::Patch::Merge(status)).await?;
    let row = tokio::time::timeout(deadline, lines.next_line()).await??.ok_or("no row")?;
    assert_eq!(cells(&row)[..4], ["web", "1/1", "1", "1"]);
    let output = tokio::time::timeout(deadline, waiting.wait_with_output()).await??;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "deployment.apps/web condition met");
    has(&server.run("rollout status deploy/web --timeout=20s").await?, &["successfully rolled out"]);
    watch.kill().await?;
    Ok(())
}

#[tokio::test]
async fn logs_and_top() -> Result {
    let server = Server::start().await?;
    let Some(mut follow) = server.kubectl() else { return Ok(()) };
    running_pod(&server.client().await?).await?;
    assert_eq!(server.run("logs web-1").await?, "first\nsecond\nthird\n");
    assert_eq!(server.run("logs web-1 --tail=1").await?, "third\n");
    let (code, text) = server.try_run("logs web-1 --previous").await?;
    let expected =
        "Error from server (BadRequest): previous terminated container \"web\" in pod \"web-1\" not found";
    assert_eq!((code, text.trim()), (1, expected));
    let mut following = follow.args(["logs", "-f", "web-1"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(following.stdout.take().ok_or("no stdout")?).lines();
    let first = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await??;
    assert_eq!(first.as_deref(), Some("first"));
    following.kill().await?;

    let (code, text) = server.try_run("top pods").await?;
    assert_eq!((code, text.trim()), (1, "error: Metrics API not available"));
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
        "versionPriority": 100,
            "service": {"name": "metrics-server", "namespace": "kube-system"}}});
    let manifest = server.manifest("metrics.json", &service)?;
    server.run(&format!("apply -f {manifest}")).await?;
    let top = server.run("top pods").await?;
    let lines: Vec<Vec<&str>> = top.lines().map(cells).collect();
    assert_eq!(lines, [vec!["NAME", "CPU(cores)", "MEMORY(bytes)"], vec!["web-1", "250m", "64Mi"]]);
    has(&server.run("top pods -l app=web").await?, &["web-1"]);
    has(&server.run("top nodes").await?, &["n1", "250m", "12%"]);
    Ok(())
}

/// Forwards with kubectl and returns what came through.
async fn forward(server: &Server, environment: &[(&str, &str)]) -> Result<String> {
    let mut command = server.kubectl().ok_or("no kubectl")?;
    command.args(["port-forward", "pod/web-1", ":8000"]).envs(environment.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let deadline = Duration::from_secs(30);
    let line = tokio::time::timeout(deadline, lines.next_line()).await??.ok_or("kubectl printed nothing")?;
    let port: u16 =
        line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).ok_or("no port")?.parse()?;
    let mut bodies = String::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        let mut text = String::new();
        tokio::time::timeout(deadline, stream.read_to_string(&mut text)).await??;
        bodies.push_str(text.rsplit("\r\n").next().unwrap_or(""));
    }
    // More than one frame, in both directions.
    let sent: Vec<u8> = (0..300_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let (mut reader, mut writer) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
    let copy = sent.clone();
    let writing = tokio::spawn(async move { writer.write_all(&copy).await });
    let mut back = vec![0; sent.len()];
    tokio::time::timeout(deadline, reader.read_exact(&mut back)).await??;
    writing.await??;
    assert!(back == sent, "the echo differs");
    child.kill().await?;
    Ok(bodies)
}

#[tokio::test]
async fn port_forward_through_a_websocket_and_through_spdy() -> Result {
    let server = Server::start().await?;
    if server.kubectl().is_none() {
        return Ok(());
    }
    running_pod(&server.client().await?).await?;
    assert_eq!(forward(&server, &[]).await?, "hellohellohello");
    assert_eq!(forward(&server, &[("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")]).await?, "hellohellohello");
    Ok(())
}

/// These commands send protobuf.
#[tokio::test]
async fn typed_commands() -> Result {
    let server = Server::start().await?;
    if server.kubectl().is_none() {
        return Ok(());
    }
    assert_eq!(server.run("create ns play").await?.trim(), "namespace/play created");
    server.run("create cm m -n play --from-literal=a=b").await?;
    assert_eq!(server.run("get cm m -n play -o jsonpath={.data.a}").await?, "b");
    server.run("create secret generic s --from-literal=a=b").await?;
    assert_eq!(server.run("get secret s -o jsonpath={.data.a}").await?, "Yg==");
    server.run("create deployment d --image=nginx:1 --port=80 --replicas=2").await?;
    let shown = "get deploy d -o \
                 jsonpath={.spec.replicas},{.spec.template.spec.containers[0].image},{.spec.template.spec.containers[0].ports[0].containerPort}";
    assert_eq!(server.run(shown).await?, "2,nginx:1,80");
    server.run("create service clusterip s --tcp=80:8000").await?;
    assert_eq!(server.run("get svc s -o jsonpath={.spec.ports[0].targetPort}").await?, "8000");
    server.run("create ingress i --rule=host.local/*=s:80 --class=nginx").await?;
    has(&server.run("get ingress i").await?, &["nginx", "host.local", "80"]);
    server.run("create pdb b --selector=app=d --min-available=50%").await?;
    has(&server.run("get pdb b").await?, &["50%", "N/A"]);
    server.run("create role r --verb=get --resource=pods").await?;
    server.run("create sa a").await?;
    let (code, text) = server.try_run("create deployment D --image=x").await?;
    assert_eq!(code, 1);
    has(
        &text,
        &[
            "Deployment.apps \"D\" is invalid",
            "metadata.name: Invalid value: \"D\": a lowercase RFC 1123 subdomain",
        ],
    );
    Ok(())
}

/// A reference whose default the server filled in is still the one applied.
#[tokio::test]
async fn server_side_apply_takes_over_from_client_side_apply() -> Result {
    let server = Server::start().await?;
    if server.kubectl().is_none() {
        return Ok(());
    }
    let mut object = deployment(2);
    object["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let manifest = server.manifest("d.json", &object)?;
    server.run(&format!("apply -f {manifest}")).await?;
    // The reference is replaced whole, and the server has put its default apiVersion into it.
    let refused = server.run(&format!("apply --server-side -f {manifest}")).await;
    has(
        &refused.expect_err("a conflict").to_string(),
        &["conflict with \"kubectl-client-side-apply\"", ".fieldRef"],
    );
    for force in ["--force-conflicts", ""] {
        let applied = server.run(&format!("apply --server-side {force} -f {manifest}")).await?;
        assert_eq!(applied.trim(), "deployment.apps/web serverside-applied");
    }
    let managers = server
        .run("get deploy web --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}")
        .await?;
    let managers: std::collections::BTreeSet<&str> = managers.split(' ').collect();
    assert_eq!(managers.into_iter().collect::<Vec<_>>(), ["kubectl", "kubectl-last-applied"]);
    Ok(())
}

#[tokio::test]
async fn explain_knows_the_fields_of_every_kind() -> Result {
    let server = Server::start().await?;
    if server.kubectl().is_none() {
        return Ok(());
    }
    let probe = server.run("explain deployment.spec.template.spec.containers.livenessProbe").await?;
    has(
        &probe,
        &[
            "GROUP:      apps",
            "FIELD: livenessProbe <Probe>",
            "failureThreshold",
            "<integer>",
            "Minimum consecutive",
        ],
    );
    let tree = server.run("explain pods.spec.containers --recursive").await?;
    has(
        &tree,
        &["httpGet\t<HTTPGetAction>", "containerPort\t<integer> -required-", "limits\t<map[string]Quantity>"],
    );
    has(&server.run("explain hpa --api-version=autoscaling/v1").await?, &["VERSION:    v1", "spec"]);
    // Of the metrics there are no types: an add-on serves them.
    let kinds = server.run("api-resources --no-headers").await?;
    for line in kinds.lines().filter(|line| !line.contains("metrics.k8s.io")) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let version = columns.iter().find(|column| column.ends_with("v1") || column.ends_with("v2"));
        let version = version.ok_or("no version")?;
        let text = server.run(&format!("explain {} --api-version={version}", columns[0])).await?;
        has(&text, &["KIND:", "DESCRIPTION:", "FIELDS:", "metadata\t<ObjectMeta>"]);
    }
    let (code, text) = server.try_run("explain pod.spec.nothing").await?;
    assert_eq!((code, text.contains("field \"nothing\" does not exist")), (1, true), "{text}");
    Ok(())
}
