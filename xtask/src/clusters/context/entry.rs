//! Where a context's ingress is reached from here: by the address that the cluster has published, or, where it has
//! published none, through a tunnel to the controller's pods.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use kube::api::ListParams;
use kube::{Client, ResourceExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::kubernetes::{Api, is_ready};

/// The labels of the controllers' pods and Services, as their charts and manifests set them.
const CONTROLLERS: &str = "app.kubernetes.io/name in (ingress-nginx, traefik, haproxy-ingress, contour)";
/// What such a controller calls its port for plain HTTP.
const HTTP_PORTS: [&str; 3] = ["http", "web", "http-port"];

/// An entry, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) url: String,
    pub(super) how: String,
}

/// The address that the cluster has published: on our Ingress, or, before it is there, on another of its class, which
/// the same controller serves; else on the controller's Service.
pub(super) async fn published(client: &Client, namespace: &str, own: Option<&Ingress>) -> Option<Entry> {
    let ingresses: Api<Ingress> = Api::namespaced(client.clone(), namespace);
    let listed = ingresses.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    if let Some(entry) = of_ingresses(&listed, own) {
        return Some(entry);
    }
    let services: Api<Service> = Api::all(client.clone());
    let listed = services.list(&ListParams::default().labels(CONTROLLERS)).await.ok()?;
    listed.items.iter().find_map(of_service)
}

fn of_ingresses(listed: &[Ingress], own: Option<&Ingress>) -> Option<Entry> {
    let class = |ingress: &Ingress| ingress.spec.as_ref()?.ingress_class_name.clone();
    let is_own = |one: &&Ingress| own.is_some_and(|own| one.metadata.name == own.metadata.name);
    let is_alike = |one: &&Ingress| own.is_none_or(|own| class(one) == class(own));
    let of_own = listed.iter().filter(is_own).find_map(of_ingress);
    of_own.or_else(|| listed.iter().filter(is_alike).find_map(of_ingress))
}

fn of_ingress(ingress: &Ingress) -> Option<Entry> {
    let IngressLoadBalancerIngress { ip, hostname, .. } =
        ingress.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    let url = url(ip.as_deref(), hostname.as_deref(), 80)?;
    Some(Entry { url, how: format!("the address of ingress/{}", ingress.name_any()) })
}

fn of_service(service: &Service) -> Option<Entry> {
    let LoadBalancerIngress { ip, hostname, .. } =
        service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let is_http = |name: Option<&str>| name.is_some_and(|name| HTTP_PORTS.contains(&name));
    let port = ports.iter().find(|port| is_http(port.name.as_deref()) || port.port == 80)?.port;
    let url = url(ip.as_deref(), hostname.as_deref(), port)?;
    Some(Entry { url, how: format!("the address of service/{}", service.name_any()) })
}

fn url(ip: Option<&str>, hostname: Option<&str>, port: i32) -> Option<String> {
    let host = ip.filter(|ip| !ip.is_empty()).or(hostname.filter(|hostname| !hostname.is_empty()))?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some(if port == 80 { format!("http://{host}") } else { format!("http://{host}:{port}") })
}

/// A port of this machine behind which each connection goes to a Ready pod of the controller; or, where it has none
/// that is known, to the address, once the cluster has published one: some do that only for an Ingress that is there.
/// Nothing is asked of the cluster before somebody connects; it ends with the run.
///
/// # Errors
/// When no port can be had.
pub(super) async fn tunnel(client: &Client, namespace: &str, own: Option<Ingress>) -> std::io::Result<Entry> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (client, namespace) = (client.clone(), namespace.to_owned());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (client, namespace, own) = (client.clone(), namespace.clone(), own.clone());
            tokio::spawn(async move {
                match controller(&client).await {
                    Some((pod, port)) => forward(&client, &pod, port, connection).await,
                    None => {
                        let entry = published(&client, &namespace, own.as_ref()).await?;
                        relay(&entry, connection).await
                    }
                }
            });
        }
    });
    Ok(Entry {
        url,
        how: "a tunnel to the ingress controller's pods, since the cluster has published no address"
            .to_owned(),
    })
}

async fn relay(entry: &Entry, mut connection: TcpStream) -> Option<()> {
    let url: http::Uri = entry.url.parse().ok()?;
    let host = url.host()?.trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await.ok()?;
    tokio::io::copy_bidirectional(&mut connection, &mut stream).await.ok()?;
    Some(())
}

/// A Ready pod of a controller, and its port for plain HTTP.
async fn controller(client: &Client) -> Option<(Pod, u16)> {
    let pods: Api<Pod> = Api::all(client.clone());
    let listed = pods.list(&ListParams::default().labels(CONTROLLERS)).await.ok()?;
    listed.items.into_iter().filter(is_ready).find_map(|pod| http_port(&pod).map(|port| (pod, port)))
}

/// Whoever connects sees a broken tunnel as a closed connection.
async fn forward(client: &Client, pod: &Pod, port: u16, mut connection: TcpStream) -> Option<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref()?);
    let mut forward = api.portforward(&pod.name_any(), &[port]).await.ok()?;
    let mut stream = forward.take_stream(port)?;
    tokio::io::copy_bidirectional(&mut connection, &mut stream).await.ok()?;
    Some(())
}

fn http_port(pod: &Pod) -> Option<u16> {
    let mut ports =
        pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref().is_some_and(|name| HTTP_PORTS.contains(&name)))?;
    u16::try_from(port.container_port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::gates::tests::Server;

    #[test]
    fn an_address_is_taken_from_where_the_cluster_publishes_it() {
        let ingress = |address| -> Ingress {
            let status = json!({"loadBalancer": {"ingress": [address]}});
            serde_json::from_value(json!({"metadata": {"name": "app"}, "status": status}))
                .expect("an Ingress")
        };
        let url = |address| of_ingress(&ingress(address)).map(|entry| entry.url);
        assert_eq!(url(json!({"ip": "203.0.113.7"})).as_deref(), Some("http://203.0.113.7"));
        assert_eq!(url(json!({"hostname": "lb.example.com"})).as_deref(), Some("http://lb.example.com"));
        assert_eq!(url(json!({"ip": "2001:db8::7"})).as_deref(), Some("http://[2001:db8::7]"));
        assert_eq!(url(json!({})), None);
        let service = json!({
            "metadata": {"name": "traefik"}, "spec": {"ports": [{"name": "websecure", "port": 443},
            {"name": "web", "port": 8000}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}},
        });
        let entry = of_service(&serde_json::from_value(service).expect("a Service")).expect("an entry");
        assert_eq!(entry.url, "http://203.0.113.8:8000");
        assert_eq!(entry.how, "the address of service/traefik");
    }

    /// One for the office and one for the world, by two controllers.
    #[test]
    fn the_address_of_another_class_is_not_ours() {
        let ingress = |name: &str, class: &str, ip: Option<&str>| -> Ingress {
            let addresses: Vec<_> = ip.into_iter().map(|ip| json!({"ip": ip})).collect();
            let ingress = json!({"metadata": {"name": name}, "spec": {"ingressClassName": class},
                "status": {"loadBalancer": {"ingress": addresses}}});
            serde_json::from_value(ingress).expect("an Ingress")
        };
        let own = ingress("app", "nginx", None);
        let url = |listed: &[Ingress]| of_ingresses(listed, Some(&own)).map(|entry| entry.url);
        let office = || ingress("office", "internal", Some("10.0.0.7"));
        let shop = || ingress("shop", "nginx", Some("203.0.113.7"));
        assert_eq!(url(&[office()]), None);
        assert_eq!(url(&[office(), shop()]).as_deref(), Some("http://203.0.113.7"));
        let app = ingress("app", "nginx", Some("203.0.113.8"));
        assert_eq!(url(&[office(), shop(), app]).as_deref(), Some("http://203.0.113.8"));
    }

    /// What is on the other side says first, until that is all.
    async fn hear(url: &str) -> String {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("a tunnel");
        let mut text = String::new();
        // A broken tunnel may be a reset.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    /// Clouds make a load balancer for an Ingress that is there, and not before.
    #[tokio::test]
    async fn a_tunnel_leads_to_the_address_once_there_is_one() {
        let server = Server::start();
        let tunnel = tunnel(&server.client, "default", None).await.expect("a port");
        assert_eq!(hear(&tunnel.url).await, "", "there is no controller");
        let balancer = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = balancer.local_addr().expect("an address").port();
        let labels = json!({"app.kubernetes.io/name": "traefik"});
        let service = json!({"metadata": {"name": "traefik", "labels": labels},
            "spec": {"type": "LoadBalancer", "ports": [{"name": "web", "port": port}]}});
        server.create::<Service>("default", service).await;
        let address = json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}});
        server.status::<Service>("default", "traefik", address).await;
        let greets = async {
            let (mut stream, _) = balancer.accept().await.expect("a connection");
            stream.write_all(b"hello").await.expect("writing");
        };
        assert_eq!(tokio::join!(greets, hear(&tunnel.url)).1, "hello");
    }

    #[test]
    fn a_tunnel_leads_to_the_port_for_plain_http() {
        let ports = json!([{"name": "https", "containerPort": 443}, {"name": "http", "containerPort": 80}]);
        let pod = json!({"spec": {"containers": [{"name": "controller", "ports": ports}]}});
        assert_eq!(http_port(&serde_json::from_value(pod).expect("a pod")), Some(80));
        assert_eq!(http_port(&Pod::default()), None);
    }
}
