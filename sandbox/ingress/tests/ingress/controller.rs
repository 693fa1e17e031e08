//! The whole controller against an API server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use sandbox_apiserver::ApiServer;
use sandbox_ingress::{AccessLog, CONTROLLER, LEASE, Options, run};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(10);

struct Controller {
    client: Client,
    options: Options,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
}

async fn start() -> Controller {
    let mut bound = Vec::new();
    for _ in 0..4 {
        bound.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let address: Vec<SocketAddr> = bound.iter().map(|listener| listener.local_addr().unwrap()).collect();
    drop(bound);
    let options = Options {
        http_listen: address[0],
        pod_listen: address[1],
        health_listen: address[2],
        admission_listen: address[3],
        controller_class: CONTROLLER.into(),
        pod_name: "controller-1".into(),
        pod_namespace: "ingress-nginx".into(),
        publish_address: "127.0.0.1".into(),
        drain: DEADLINE,
        faults: false,
    };
    let client = ApiServer::new("token".into()).client();
    let shutdown = CancellationToken::new();
    apply::<Namespace>(&Api::all(client.clone()), json!({"metadata": {"name": "ingress-nginx"}})).await;
    apply::<IngressClass>(
        &Api::all(client.clone()),
        json!({"metadata": {"name": "nginx"}, "spec": {"controller": CONTROLLER}}),
    )
    .await;
    let running =
        tokio::spawn(run(client.clone(), options.clone(), AccessLog::new(std::io::sink()), shutdown.clone()));
    Controller { client, options, shutdown, running }
}

async fn apply<K>(api: &Api<K>, mut object: Value)
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    object["apiVersion"] = json!(K::api_version(&()));
    object["kind"] = json!(K::kind(&()));
    let name = object["metadata"]["name"].as_str().unwrap().to_string();
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap();
}

impl Controller {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn endpoint(&self, address: SocketAddr, ready: bool) {
        let slice = json!({
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": ready}}],
        });
        apply(&self.api::<EndpointSlice>(), slice).await;
    }

    async fn route(&self) {
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
        apply(&self.api::<Service>(), service).await;
        let ingress = json!({"metadata": {"name": "web"}, "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": "web.local", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"name": "http"}}}}]}}]}});
        apply(&self.api::<Ingress>(), ingress).await;
    }
}

/// The status of the answer; None if there is none.
async fn ask(address: SocketAddr, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some((answer.split(' ').nth(1)?.parse().ok()?, answer))
}

async fn get(address: SocketAddr, path: &str) -> Option<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: web.local\r\nConnection: close\r\n\r\n");
    ask(address, &request).await.map(|(status, _)| status)
}

async fn until<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !look().await {
        assert!(Instant::now() < deadline, "in time: {what}");
        tokio::task::yield_now().await;
    }
}

async fn pod() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_follow_the_cluster_at_once() {
    let controller = start().await;
    let (entry, health) = (controller.options.http_listen, controller.options.health_listen);
    until("healthy", || async { get(health, "/healthz").await == Some(200) }).await;
    assert_eq!(get(entry, "/").await, Some(404), "no route");
    controller.route().await;
    until("no endpoint", || async { get(entry, "/").await == Some(503) }).await;
    let pod = pod().await;
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        for (ready, expected) in [(true, 200), (false, 503)] {
            controller.endpoint(pod, ready).await;
            let changed = Instant::now();
            until("the change", || async { get(entry, "/").await == Some(expected) }).await;
            slowest = slowest.max(changed.elapsed());
        }
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!(get(controller.options.pod_listen, "/").await, Some(503), "the pod's own port, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leads_writes_the_status_and_admits() {
    let controller = start().await;
    let leases: Api<Lease> = Api::namespaced(controller.client.clone(), "ingress-nginx");
    until("the lease", || async {
        let lease = leases.get_opt(LEASE).await.unwrap();
        lease.and_then(|lease| lease.spec?.holder_identity).as_deref() == Some("controller-1")
    })
    .await;
    controller.route().await;
    let ingresses = controller.api::<Ingress>();
    until("the status", || async {
        let status = ingresses.get("web").await.unwrap().status;
        let first = status.and_then(|status| status.load_balancer?.ingress?.pop());
        first.and_then(|ingress| ingress.ip).as_deref() == Some("127.0.0.1")
    })
    .await;

    let mut object = serde_json::to_value(ingresses.get("web").await.unwrap()).unwrap();
    object["metadata"]["name"] = json!("second");
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "1", "kind": {"kind": "Ingress"}, "namespace": "default", "object": object}});
    let review = review.to_string();
    let request = format!(
        "POST /any HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{review}",
        review.len()
    );
    let (status, answer) = ask(controller.options.admission_listen, &request).await.unwrap();
    assert_eq!(status, 200);
    assert!(answer.contains("already defined in ingress default/web"), "{answer}");
    assert_eq!(get(controller.options.admission_listen, "/").await, Some(405));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_draining_it_says_that_it_is_unhealthy() {
    let controller = start().await;
    let (entry, health) = (controller.options.http_listen, controller.options.health_listen);
    until("healthy", || async { get(health, "/healthz").await == Some(200) }).await;
    controller.route().await;
    let pod = TcpListener::bind("127.0.0.1:0").await.unwrap();
    controller.endpoint(pod.local_addr().unwrap(), true).await;
    let under_way = tokio::spawn(async move {
        loop {
            let answered = get(entry, "/slow").await;
            // The route or its endpoint is not known yet.
            if !matches!(answered, Some(404 | 503)) {
                return answered;
            }
        }
    });
    let (mut stream, _) = tokio::time::timeout(DEADLINE, pod.accept()).await.unwrap().unwrap();
    let _ = stream.read(&mut [0; 4096]).await;
    controller.shutdown.cancel();
    until("unhealthy", || async { get(health, "/healthz").await == Some(500) }).await;
    assert_eq!(get(entry, "/").await, None, "no new connections");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(under_way.await.unwrap(), Some(200));
    tokio::time::timeout(DEADLINE, controller.running).await.unwrap().unwrap().unwrap();
}
