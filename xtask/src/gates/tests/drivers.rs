//! The gates' drivers against an API server whose controllers these tests play.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::api::{Play, Server, cx, next, until};
use super::objects;
use crate::failure::{Evidence, Exit, attached, exit_of, is_echo, paragraph};
use crate::gates::{
    Gate, Verdict, autoscaler, cluster, ingress_controller, ingress_lease, metrics, rollout, route,
};
use crate::ingress_nginx;
use crate::pipeline::Branch;

#[tokio::test]
async fn a_rollout_opens_at_the_event_that_completes_it() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 2).await;
    let mut verdicts = Box::pin(rollout::verdicts(&server.client, &play.target()));
    assert_eq!(
        next(&mut verdicts).await.to_string(),
        "closed: 0 of 2 updated pods Ready; 0: waits for a node"
    );
    play.ready(0).await;
    until(&mut verdicts, |line| line == "closed: 1 of 2 updated pods Ready; 1: waits for a node").await;
    play.ready(1).await;
    until(&mut verdicts, |line| line == "closed: all 2 updated pods Ready, 0 of them available yet").await;
    play.count(2).await;
    let event = Instant::now();
    let opened = until(&mut verdicts, |line| line.starts_with("open")).await;
    // Generous: the machine that tests may be busy. A poll would take the better part of a second.
    assert!(event.elapsed() < Duration::from_millis(250), "{:?}", event.elapsed());
    assert_eq!(opened, "open: 2 of 2 pods run web:new (sha256:aaaaaaaaaaaa), revision 1");
}

#[tokio::test]
async fn a_gate_passed_before_says_already() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    play.complete().await;
    let cx = cx();
    let done = rollout::wait(&mut Branch::first(&cx), &server.client, &play.target()).await.unwrap();
    assert_eq!((done.replicas, done.revision, done.pods.len()), (1, 1, 1));
    assert_eq!(cx.spans()[0].state, crate::output::State::Already);
}

#[tokio::test]
async fn a_doomed_rollout_fails_with_30_and_evidence() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 2).await;
    play.waiting("ErrImageNeverPull", "Container image \"web:new\" is not present with pull policy of Never")
        .await;
    let cx = cx();
    let error = rollout::wait(&mut Branch::first(&cx), &server.client, &play.target()).await.unwrap_err();
    assert_eq!(exit_of(&error), Exit::GateDoomed);
    assert_eq!(
        paragraph(&error),
        "gate rollout: 0: ErrImageNeverPull: Container image \"web:new\" is not present with pull policy of \
         Never"
    );
    let Evidence(sections) = attached(&error).unwrap();
    let headings: Vec<_> = sections.iter().map(|(heading, _)| heading.as_str()).collect();
    for wanted in
        ["conditions of deployment/web", "last warnings in namespace default", "nodes", "to look further"]
    {
        assert!(headings.contains(&wanted), "{headings:?}");
    }
    assert!(headings.iter().any(|heading| heading.starts_with("conditions of pod/web-h-")), "{headings:?}");
    let (_, further) = sections.last().unwrap();
    assert_eq!(
        further,
        &[
            "kubectl --kubeconfig \"$(cargo xtask kubeconfig)\" -n default describe deployment/web",
            "kubectl --kubeconfig \"$(cargo xtask kubeconfig)\" -n default describe pods -l app=web",
        ]
    );
}

#[tokio::test]
async fn a_refusal_is_given_four_seconds_and_no_more() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    let cx = cx();
    let target = play.target();
    let branch = &mut Branch::first(&cx);
    let (error, sign) = tokio::join!(rollout::wait(branch, &server.client, &target), async {
        play.waiting("CreateContainerConfigError", "configmap \"settings\" not found").await;
        Instant::now()
    });
    let took = sign.elapsed();
    assert_eq!(exit_of(&error.unwrap_err()), Exit::GateDoomed);
    // The upper bound leaves room for a busy machine.
    assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_closed_gate_times_out_with_31() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    let patience = Duration::from_millis(300);
    let cx = cx();
    let (gate, target) = (Gate { deadline: patience, ..rollout::GATE }, play.target());
    let verdicts = rollout::verdicts(&server.client, &target);
    let branch = &mut Branch::first(&cx);
    let error = rollout::wait_at(branch, &gate, &server.client, &target, verdicts).await.unwrap_err();
    assert_eq!(exit_of(&error), Exit::GateTimeout);
    let text = paragraph(&error);
    assert!(text.ends_with("0 of 1 updated pods Ready; 0: waits for a node"), "{text}");
}

#[tokio::test]
async fn a_run_that_is_stopped_leaves_the_gate_at_once() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    let cx = cx();
    let target = play.target();
    let branch = &mut Branch::first(&cx);
    let (error, ()) =
        tokio::join!(rollout::wait(branch, &server.client, &target), async { cx.stop_interrupted() });
    assert!(is_echo(&error.unwrap_err()));
}

#[tokio::test]
async fn an_api_server_that_goes_away_is_waited_for() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    let mut verdicts = Box::pin(rollout::verdicts(&server.client, &play.target()));
    next(&mut verdicts).await;
    server.go_away();
    let away = until(&mut verdicts, |line| line.contains("does not answer")).await;
    assert!(away.starts_with("closed: the API server does not answer for "), "{away}");
    assert!(away.contains("connection refused"), "{away}");
    assert!(away.ends_with("; before that: 0 of 1 updated pods Ready; 0: waits for a node"), "{away}");
    // What happens meanwhile is seen when it is back.
    play.complete().await;
    server.come_back();
    until(&mut verdicts, |line| line.starts_with("open")).await;
}

#[tokio::test]
async fn an_api_server_that_is_not_there_yet_is_waited_for() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    play.complete().await;
    server.go_away();
    let mut verdicts = Box::pin(rollout::verdicts(&server.client, &play.target()));
    until(&mut verdicts, |line| line.starts_with("closed: the API server does not answer")).await;
    assert!(rollout::look(&server.client, &play.target()).await.is_err());
    server.come_back();
    until(&mut verdicts, |line| line.starts_with("open")).await;
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_where_it_was() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    let mut verdicts = Box::pin(rollout::verdicts(&server.client, &play.target()));
    next(&mut verdicts).await;
    let lists = server.lists();
    for _ in 0..3 {
        server.cut();
        play.ready(0).await;
        tokio::task::yield_now().await;
    }
    play.complete().await;
    until(&mut verdicts, |line| {
        assert!(!line.contains("does not answer"), "{line}");
        line.starts_with("open")
    })
    .await;
    assert_eq!(server.lists(), lists, "it listed anew");
}

#[tokio::test]
async fn a_version_that_is_gone_is_listed_anew() {
    let server = Server::start();
    let play = Play::begin(&server, "default", "web", 1).await;
    let mut verdicts = Box::pin(rollout::verdicts(&server.client, &play.target()));
    next(&mut verdicts).await;
    let lists = server.lists();
    server.forget();
    play.complete().await;
    until(&mut verdicts, |line| line.starts_with("open")).await;
    // The watch that heard of it may be one that this rollout did not need.
    tokio::time::timeout(Duration::from_secs(5), async {
        while server.lists() == lists {
            play.count(0).await;
            next(&mut verdicts).await;
        }
    })
    .await
    .expect("nothing was listed anew");
}

fn lease(holder: &str, renewed: jiff::Timestamp) -> serde_json::Value {
    json!({
        "metadata": {"name": "ingress-nginx-leader"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 30, "renewTime": format!("{renewed:.6}")},
    })
}

/// From a lease that the last run left behind to one that counts, on a server whose clock is seven minutes ahead.
#[tokio::test]
async fn a_lease_counts_when_its_new_holder_renews_it() {
    let ahead = SignedDuration::from_mins(7);
    let server = Server::with_clock(Some(ahead));
    server.namespace("ingress-nginx").await;
    let now = jiff::Timestamp::now().checked_add(ahead).unwrap();
    server.create::<Lease>("ingress-nginx", lease("nginx-gone", now)).await;
    let mut verdicts = Box::pin(ingress_lease::verdicts(&server.client));
    assert_eq!(
        next(&mut verdicts).await.to_string(),
        "closed: the lease is left over from nginx-gone, which no longer exists; there is no controller pod"
    );
    let play = Play::begin(&server, "ingress-nginx", "nginx", 1).await;
    until(&mut verdicts, |line| line.ends_with("; nginx-h-0 is not Ready")).await;
    play.ready(0).await;
    until(&mut verdicts, |line| line.ends_with("; nginx-h-0 is Ready and will take it")).await;
    let leases: Api<Lease> = Api::namespaced(server.direct.clone(), "ingress-nginx");
    let take = Patch::Merge(lease("nginx-h-0", now));
    leases.patch("ingress-nginx-leader", &PatchParams::default(), &take).await.unwrap();
    until(&mut verdicts, |line| line.starts_with("open: held by nginx-h-0")).await;
    let look = ingress_lease::look(&server.client).await.unwrap();
    assert!(matches!(look, Verdict::Open(holder, _) if holder == "nginx-h-0"));
    // The pod goes, and the lease with it.
    let pods: Api<Pod> = Api::namespaced(server.direct.clone(), "ingress-nginx");
    pods.delete("nginx-h-0", &DeleteParams::default().grace_period(0)).await.unwrap();
    until(&mut verdicts, |line| line.starts_with("closed: the lease is ")).await;
}

/// A server that does not tell its time: one renewal, seen, is enough.
#[tokio::test]
async fn a_lease_is_believed_when_it_is_seen_to_be_renewed() {
    let server = Server::with_clock(None);
    server.namespace("ingress-nginx").await;
    let hour = Duration::from_secs(3600);
    let long_ago = jiff::Timestamp::now() - hour;
    server.create::<Lease>("ingress-nginx", lease("nginx-h-0", long_ago)).await;
    let play = Play::begin(&server, "ingress-nginx", "nginx", 1).await;
    play.ready(0).await;
    let mut verdicts = Box::pin(ingress_lease::verdicts(&server.client));
    assert_eq!(next(&mut verdicts).await.to_string(), "closed: held by nginx-h-0; waiting to see it renewed");
    let leases: Api<Lease> = Api::namespaced(server.direct.clone(), "ingress-nginx");
    let renew = Patch::Merge(lease("nginx-h-0", long_ago + Duration::from_secs(8)));
    leases.patch("ingress-nginx-leader", &PatchParams::default(), &renew).await.unwrap();
    until(&mut verdicts, |line| line == "open: held by nginx-h-0, which renews it").await;
}

fn ingress() -> Ingress {
    objects::object(json!({
        "metadata": {"name": "web"},
        "spec": {"rules": [{"host": "web.local", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web",
                "port": {"number": 80}}}},
        ]}}]},
    }))
}

#[tokio::test]
async fn the_controller_opens_when_its_webhook_takes_our_ingress() {
    let server = Server::start();
    server.namespace("ingress-nginx").await;
    let play = Play::begin(&server, "ingress-nginx", ingress_nginx::DEPLOYMENT, 1).await;
    let applied = ingress();
    let mut verdicts = Box::pin(ingress_controller::verdicts(&server.client, &applied, "default"));
    assert_eq!(
        next(&mut verdicts).await.to_string(),
        "closed: 0 of 1 updated pods Ready; 0: waits for a node"
    );
    let refused =
        "Internal error occurred: failed calling webhook \"validate.nginx\": connect: connection refused";
    server.webhook_says(500, refused);
    play.complete().await;
    let waits = format!("closed: the controller is up, its webhook is not: {refused}");
    until(&mut verdicts, |line| line == waits).await;
    let opened = until(&mut verdicts, |line| line.starts_with("open")).await;
    assert_eq!(opened, "open: ingress-nginx-controller-h-0 Ready, its webhook accepts the app's Ingress");
    // Nothing was made of it.
    let ingresses: Api<Ingress> = Api::default_namespaced(server.direct.clone());
    assert!(ingresses.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn a_denied_ingress_dooms_with_the_webhooks_words() {
    let server = Server::start();
    server.namespace("ingress-nginx").await;
    let play = Play::begin(&server, "ingress-nginx", ingress_nginx::DEPLOYMENT, 1).await;
    play.complete().await;
    server.webhook_says(400, "admission webhook \"validate.nginx\" denied the request: host taken");
    let cx = cx();
    let error = ingress_controller::wait(&mut Branch::first(&cx), &server.client, &ingress(), "default")
        .await
        .unwrap_err();
    assert_eq!(exit_of(&error), Exit::GateDoomed);
    let text = paragraph(&error);
    assert!(
        text.ends_with(
            "the app's Ingress is refused: admission webhook \"validate.nginx\" denied the request: host \
             taken"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn the_cluster_opens_when_its_node_is_ready() {
    let server = Server::start();
    let nodes: Api<Node> = Api::all(server.direct.clone());
    let mut verdicts = Box::pin(cluster::verdicts(&server.client, "default"));
    until(&mut verdicts, |line| line == "closed: no node has registered").await;
    nodes
        .create(&PostParams::default(), &objects::object(json!({"metadata": {"name": "mini"}})))
        .await
        .unwrap();
    until(&mut verdicts, |line| line == "closed: node mini has not reported Ready yet").await;
    let ready = Patch::Merge(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    nodes.patch_status("mini", &PatchParams::default(), &ready).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(server.direct.clone());
    if accounts.get_opt("default").await.unwrap().is_none() {
        until(&mut verdicts, |line| line.contains("service account `default`")).await;
        let account = objects::object(json!({"metadata": {"name": "default"}}));
        accounts.create(&PostParams::default(), &account).await.unwrap();
    }
    until(&mut verdicts, |line| line == "open: API ready, node mini Ready").await;
    assert!(matches!(cluster::look(&server.client, "default").await.unwrap(), Verdict::Open(..)));
}

#[tokio::test]
async fn metrics_open_when_they_are_available() {
    let server = Server::start();
    let services: Api<APIService> = Api::all(server.direct.clone());
    let name = "v1beta1.metrics.k8s.io";
    let look = metrics::look(&server.client).await.unwrap();
    if services.get_opt(name).await.unwrap().is_none() {
        assert!(look.to_string().starts_with("closed: APIService v1beta1.metrics.k8s.io is not registered"));
        let service = json!({"metadata": {"name": name}, "spec": {"group": "metrics.k8s.io",
            "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100}});
        services.create(&PostParams::default(), &objects::object(service)).await.unwrap();
    }
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(metrics::wait(branch, &server.client), async {
        let available =
            Patch::Merge(json!({"status": {"conditions": [{"type": "Available", "status": "True"}]}}));
        services.patch_status(name, &PatchParams::default(), &available).await.unwrap();
    });
    done.unwrap();
}

#[tokio::test]
async fn the_autoscaler_opens_when_it_reads_its_metrics() {
    let server = Server::start();
    let target = json!({"type": "Utilization", "averageUtilization": 70});
    server
        .create::<HorizontalPodAutoscaler>(
            "default",
            json!({"metadata": {"name": "web"}, "spec": {
                "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment",
                "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            }}),
        )
        .await;
    let look = autoscaler::look(&server.client, "default", "web").await.unwrap();
    assert_eq!(look.to_string(), "closed: no value yet for cpu; the autoscaler has not read its target yet");
    let cx = cx();
    let branch = &mut Branch::first(&cx);
    let (done, ()) = tokio::join!(autoscaler::wait(branch, &server.client, "default", "web"), async {
        let status = json!({
            "desiredReplicas": 3, "currentReplicas": 3, "conditions": [{"type": "ScalingActive",
            "status": "True"}],
            "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 4, "averageValue": "6m"}}}],
        });
        server.status::<HorizontalPodAutoscaler>("default", "web", status).await;
    });
    done.unwrap();
}

/// An entry that gives these answers, each to a connection of its own, then the last for ever; gives what it was asked.
async fn entry(
    listener: TcpListener,
    answers: Vec<(u16, &'static str)>,
    asked: tokio::sync::mpsc::UnboundedSender<String>,
) {
    for n in 0.. {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = connection.read(&mut request).await.unwrap();
        drop(asked.send(String::from_utf8_lossy(&request[..read]).into_owned()));
        let (status, kind) = answers[n.min(answers.len() - 1)];
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\n{{}}");
        connection.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn the_route_opens_after_five_good_answers_in_a_row() {
    let server = Server::start();
    // A port that nothing listens at, until it does.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}");
    let probe = route::Probe::new(&url, "web.local").unwrap();
    let mut verdicts = Box::pin(route::verdicts(&probe, &server.client, "default"));
    let refused = next(&mut verdicts).await.to_string();
    assert!(refused.starts_with("closed: nothing listens at the entry (Connection refused"), "{refused}");
    assert!(refused.ends_with("; no Ingress in namespace default has the host web.local"), "{refused}");
    let ingresses: Api<Ingress> = Api::default_namespaced(server.direct.clone());
    ingresses.create(&PostParams::default(), &ingress()).await.unwrap();

    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let answers = vec![
        (404, "text/html"),
        (200, "application/json"),
        (503, "application/json"),
        (200, "application/json"),
    ];
    let serving = tokio::spawn(entry(TcpListener::bind(address).await.unwrap(), answers, ask));
    let said = std::cell::RefCell::new(Vec::new());
    until(&mut verdicts, |line| {
        said.borrow_mut().push(line.to_owned());
        line.starts_with("open")
    })
    .await;
    serving.abort();
    let mut said = said.into_inner();
    said.retain(|line: &String| !line.contains("nothing listens"));
    assert_eq!(
        said,
        [
            "closed: 404 from the proxy: the route is not synced yet, or no Ingress has this host; service \
             web has 0 of 0 endpoints ready",
            "closed: 1 of 5 good answers",
            "closed: 503 from the app itself: it is not ready, or draining ({}); service web has 0 of 0 \
             endpoints ready",
            "closed: 1 of 5 good answers",
            "closed: 2 of 5 good answers",
            "closed: 3 of 5 good answers",
            "closed: 4 of 5 good answers",
            "open: 5 good answers in a row for web.local",
        ]
    );
    let request = asked.recv().await.unwrap().to_ascii_lowercase();
    assert!(request.starts_with("get /health http/1.1\r\n"), "{request}");
    assert!(request.contains("host: web.local\r\n"), "{request}");
}

#[tokio::test]
async fn a_look_at_the_route_does_not_wait() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../kubernetes");
    let manifests = crate::manifests::read(&shipped, "default").unwrap();
    let look = route::look(&server.client, "default", &url, &manifests).await.unwrap();
    assert!(look.to_string().starts_with("closed: nothing listens at the entry"));
    assert!(route::look(&server.client, "default", "not a url", &manifests).await.is_err());
}

/// A 404 may be a route that is not synced yet, unless the manifests say that it never will be.
#[tokio::test]
async fn a_path_that_the_ingress_does_not_have_is_named_instead_of_waited_for() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .await;
        }
    });
    let folder = crate::manifests::tests::Folder::shipped();
    let manifests = folder.patch("prefix").read();
    let cx = cx();
    let failed = route::wait(&mut Branch::first(&cx), &url, &manifests, &server.client, "default").await;
    let error = failed.unwrap_err();
    assert_eq!(exit_of(&error), Exit::GateDoomed);
    let said = paragraph(&error);
    assert!(
        said.contains("does not lead /health to service/simple-model-api-service: its path is `/predict`"),
        "{said}"
    );
    let hint =
        crate::commands::Commands::default().write_out(&attached::<crate::failure::Hint>(&error).unwrap().0);
    assert!(
        hint.ends_with(
            "give ingress/simple-model-api-ingress a path `/` or `/health` for \
                            service/simple-model-api-service"
        ),
        "{hint}"
    );
}

#[tokio::test]
async fn advice_about_a_cordoned_node_names_it() {
    let server = Server::start();
    let nodes: Api<Node> = Api::all(server.direct.clone());
    for (name, unschedulable) in [("worker-1", false), ("worker-2", true)] {
        let node = json!({"metadata": {"name": name}, "spec": {"unschedulable": unschedulable}});
        nodes.create(&PostParams::default(), &objects::object(node)).await.unwrap();
    }
    let advice = crate::commands::Advice::Kubectl("uncordon NODE".into(), "");
    let named = rollout::name_node(&server.client, Verdict::<()>::Doomed("cordoned".into(), advice)).await;
    let wanted = crate::commands::Advice::Kubectl("uncordon worker-2".into(), "");
    assert_eq!(named, Verdict::Doomed("cordoned".into(), wanted));
}
