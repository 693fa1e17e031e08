//! EndpointSlices, and the older Endpoints, of Services with a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
    ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::DeleteParams;
use kube::{Resource as _, ResourceExt as _};
use sandbox_contract::PORTS_ANNOTATION;
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::control::{Controller, Pass, has_code};
use crate::pods;
use crate::replica_set::owner_reference;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Keeps the EndpointSlices of each Service: one for each set of ports that its pods have.
pub(crate) struct EndpointSlices {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
}

impl EndpointSlices {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.services.wake(&changes);
        cluster.pods.wake(&changes);
        cluster.slices.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes }
    }

    async fn sync(&self, service: &Service) -> kube::Result<()> {
        let Some(pods) = selected(&self.cluster, service) else { return Ok(()) };
        let publish =
            service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true));
        let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
        for pod in &pods {
            if let Some(endpoint) = endpoint(pod, publish) {
                groups.entry(ports(service, pod)).or_default().push(endpoint);
            }
        }
        if groups.is_empty() {
            // One empty slice says that there is nobody; no slice would say that nobody has looked.
            groups.insert(Vec::new(), Vec::new());
        }
        let mut existing = self.cluster.slices.in_namespace(&service.namespace().unwrap_or_default());
        existing.retain(|slice| {
            slice.labels().get(SERVICE_NAME) == Some(&service.name_any())
                && slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
                && !pods::is_deleting(&slice.metadata)
        });
        for (ports, endpoints) in groups {
            let ports: Vec<EndpointPort> = ports.iter().map(Port::to_slice).collect();
            let same_ports = |slice: &Arc<EndpointSlice>| slice.ports.as_deref().unwrap_or_default() == ports;
            let reuse = existing.iter().position(same_ports).or_else(|| existing.len().checked_sub(1));
            let wanted = |from: EndpointSlice| EndpointSlice {
                address_type: "IPv4".to_owned(),
                endpoints: endpoints.clone(),
                ports: Some(ports.clone()),
                ..from
            };
            match reuse.map(|index| existing.swap_remove(index)) {
                Some(old) => {
                    let mut new = wanted((*old).clone());
                    new.metadata.labels = Some(slice_labels(service));
                    if old.endpoints != new.endpoints
                        || old.ports.as_deref().unwrap_or_default() != ports
                        || old.metadata.labels != new.metadata.labels
                    {
                        self.cluster.replace(&self.cluster.slices, &new).await?;
                    }
                }
                None => {
                    let new = wanted(EndpointSlice {
                        metadata: slice_metadata(service),
                        ..EndpointSlice::default()
                    });
                    self.cluster.create(&self.cluster.slices, &new).await?;
                }
            }
        }
        for surplus in existing {
            let api = self.cluster.api::<EndpointSlice>(&surplus.namespace().unwrap_or_default());
            match api.delete(&surplus.name_any(), &DeleteParams::background()).await {
                Err(error) if !has_code(&error, 404) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpointslice";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        for service in self.cluster.services.all() {
            if let Err(error) = self.sync(&service).await {
                pass.failed(
                    format_args!("syncing slices of Service {}", pods::path(&service.metadata)),
                    &error,
                );
            }
        }
        pass
    }
}

/// Keeps the Endpoints object of each Service, which older kubectl describes.
pub(crate) struct LegacyEndpoints {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
}

impl LegacyEndpoints {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.services.wake(&changes);
        cluster.pods.wake(&changes);
        cluster.endpoints.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes }
    }

    async fn sync(&self, service: &Service) -> kube::Result<()> {
        let Some(pods) = selected(&self.cluster, service) else { return Ok(()) };
        let publish =
            service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true));
        let mut groups: BTreeMap<Vec<Port>, EndpointSubset> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| publish || !pods::is_deleting(&pod.metadata)) {
            let Some(ip) = address(pod) else { continue };
            let ports = ports(service, pod);
            let subset = groups.entry(ports.clone()).or_insert_with(|| EndpointSubset {
                ports: Some(ports.iter().map(Port::to_legacy).collect()),
                ..EndpointSubset::default()
            });
            let list = if publish || pods::is_ready(pod) {
                &mut subset.addresses
            } else {
                &mut subset.not_ready_addresses
            };
            list.get_or_insert_default().push(EndpointAddress {
                ip,
                node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
                target_ref: Some(target(pod)),
                hostname: None,
            });
        }
        let subsets = Some(groups.into_values().collect::<Vec<_>>()).filter(|subsets| !subsets.is_empty());
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        match self.cluster.endpoints.get(&namespace, &name) {
            Some(old)
                if old.subsets.as_deref().unwrap_or_default() == subsets.as_deref().unwrap_or_default() =>
            {
                Ok(())
            }
            Some(old) => {
                let new = Endpoints { metadata: old.metadata.clone(), subsets };
                self.cluster.replace(&self.cluster.endpoints, &new).await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(name),
                    namespace: Some(namespace),
                    labels: service.metadata.labels.clone(),
                    // Kubernetes deletes it with the Service by name; here the garbage collector does.
                    owner_references: Some(vec![owner_reference(service)]),
                    ..ObjectMeta::default()
                };
                self.cluster.create(&self.cluster.endpoints, &Endpoints { metadata, subsets }).await.map(drop)
            }
        }
    }
}

impl Controller for LegacyEndpoints {
    const NAME: &'static str = "endpoints";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        for service in self.cluster.services.all() {
            if let Err(error) = self.sync(&service).await {
                pass.failed(
                    format_args!("syncing Endpoints of Service {}", pods::path(&service.metadata)),
                    &error,
                );
            }
        }
        pass
    }
}

/// The pods of a Service; `None` for one without a selector, whose endpoints others keep, and for one that is going.
fn selected(cluster: &Cluster, service: &Service) -> Option<Vec<Arc<Pod>>> {
    let selector = service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())?;
    if pods::is_deleting(&service.metadata) {
        return None;
    }
    let mut pods = cluster.pods.in_namespace(&service.namespace().unwrap_or_default());
    pods.retain(|pod| {
        let labels = pod.labels();
        !pods::is_finished(pod) && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    });
    Some(pods)
}

fn address(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some(Pod::kind(&()).into_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn endpoint(pod: &Pod, publish_not_ready: bool) -> Option<Endpoint> {
    let serving = publish_not_ready || pods::is_ready(pod);
    let terminating = pods::is_deleting(&pod.metadata);
    Some(Endpoint {
        addresses: vec![address(pod)?],
        conditions: Some(EndpointConditions {
            ready: Some(serving && (publish_not_ready || !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(target(pod)),
        ..Endpoint::default()
    })
}

/// A Service's port as it is on a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: Option<String>,
    number: i32,
    protocol: String,
    app_protocol: Option<String>,
}

impl Port {
    fn to_slice(&self) -> EndpointPort {
        EndpointPort {
            // A slice names each port; the nameless one has the empty name.
            name: Some(self.name.clone().unwrap_or_default()),
            port: Some(self.number),
            protocol: Some(self.protocol.clone()),
            app_protocol: self.app_protocol.clone(),
        }
    }

    fn to_legacy(&self) -> LegacyPort {
        LegacyPort {
            name: self.name.clone(),
            port: self.number,
            protocol: Some(self.protocol.clone()),
            app_protocol: self.app_protocol.clone(),
        }
    }
}

/// The ports of `service` on `pod`. One that the pod has not, by name, is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let mut ports: Vec<Port> = ports.into_iter().flatten().filter_map(|port| resolve(port, pod)).collect();
    ports.sort();
    ports
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) if *number == 0 => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let containers = &pod.spec.as_ref()?.containers;
            let mut all = containers.iter().flat_map(|container| container.ports.iter().flatten());
            all.find(|port| {
                port.name.as_ref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
            })?
            .container_port
        }
    };
    Some(Port {
        name: port.name.clone().filter(|name| !name.is_empty()),
        number: remapped(pod, number).unwrap_or(number),
        protocol,
        app_protocol: port.app_protocol.clone(),
    })
}

fn remapped(pod: &Pod, port: i32) -> Option<i32> {
    let ports: BTreeMap<i32, i32> = serde_json::from_str(pod.annotations().get(PORTS_ANNOTATION)?).ok()?;
    ports.get(&port).copied()
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn slice_metadata(service: &Service) -> ObjectMeta {
    ObjectMeta {
        generate_name: Some(format!("{}-", service.name_any())),
        namespace: service.namespace(),
        labels: Some(slice_labels(service)),
        owner_references: Some(vec![owner_reference(service)]),
        ..ObjectMeta::default()
    }
}
