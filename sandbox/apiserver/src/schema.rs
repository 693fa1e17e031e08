//! What the API's schema says of lists and maps: which merge by key, which are sets, which are replaced whole.
//! Source: `x-kubernetes-list-type`, `-list-map-keys`, `-map-type` and `-patch-merge-key` in Kubernetes' OpenAPI.

use crate::kind::{Kind, Merge};

/// Field names from the root of the object; list items add nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    pub(crate) fn push(&mut self, field: &str) {
        self.0.push(field.to_owned());
    }

    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    pub(crate) fn fields(&self) -> &[String] {
        &self.0
    }

    fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    fn parent(&self) -> &str {
        self.0.iter().rev().nth(1).map_or("", String::as_str)
    }
}

/// The fields of a volume that say what it is; one of them, in the order in which Kubernetes looks at them.
pub(crate) const VOLUME_SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// How server-side apply merges the list at this path.
pub(crate) fn list(kind: &Kind, path: &Path) -> Merge {
    use Merge::{Atomic, Keyed, Set};
    let (parent, last) = (path.parent(), path.last());
    match (parent, last) {
        ("metadata", "finalizers") => return Set,
        ("metadata", "ownerReferences") => return Keyed(&["uid"]),
        _ => {}
    }
    let own = kind.does.lists.iter().find(|(own_parent, field, _)| (*own_parent, *field) == (parent, last));
    if let Some((_, _, merge)) = own {
        return *merge;
    }
    match (parent, last) {
        // Of a service account the pull secrets are replaced whole.
        ("", "imagePullSecrets") => Atomic,
        (
            _,
            "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets",
        )
        | (
            _,
            "schedulingGates" | "resourceClaims" | "resourceClaimStatuses" | "webhooks" | "matchConditions",
        ) => Keyed(&["name"]),
        ("resources", "claims") => Keyed(&["name"]),
        (_, "volumeMounts") => Keyed(&["mountPath"]),
        (_, "volumeDevices") => Keyed(&["devicePath"]),
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => {
            Keyed(&["containerPort", "protocol"])
        }
        ("spec", "hostAliases") | ("status", "podIPs") => Keyed(&["ip"]),
        ("spec", "topologySpreadConstraints") => Keyed(&["topologyKey", "whenUnsatisfiable"]),
        ("status", "conditions" | "addresses") => Keyed(&["type"]),
        ("spec", "podCIDRs") => Set,
        _ => Atomic,
    }
}

/// The value of a key field that an item leaves out.
pub(crate) fn key_default(field: &str) -> Option<&'static str> {
    (field == "protocol").then_some("TCP")
}

/// How server-side apply merges the map at this path.
pub(crate) fn map(path: &Path) -> Merge {
    use Merge::{Atomic, Granular};
    match (path.parent(), path.last()) {
        ("service", "port")
        | ("nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
        | ("backend" | "defaultBackend", "resource") => Atomic,
        (
            _,
            "selector"
            | "labelSelector"
            | "namespaceSelector"
            | "objectSelector"
            | "podSelector"
            | "nodeSelector"
            | "scopeSelector"
            | "fieldRef"
            | "resourceFieldRef"
            | "configMapKeyRef"
            | "secretKeyRef"
            | "fileKeyRef"
            | "secretRef"
            | "configMapRef"
            | "roleRef"
            | "targetRef"
            | "nodePublishSecretRef"
            | "dataSource"
            | "involvedObject"
            | "related"
            | "imagePullSecrets"
            | "secrets"
            | "ownerReferences",
        ) => Atomic,
        _ => Granular,
    }
}

/// The field that strategic merge patch tells the items of this list apart by.
pub(crate) fn merge_key(kind: &Kind, path: &Path) -> Option<&'static str> {
    match (path.parent(), path.last()) {
        // Where the two ways of merging differ.
        ("", "imagePullSecrets") => return Some("name"),
        ("status", "hostIPs") => return Some("ip"),
        _ => {}
    }
    match list(kind, path) {
        Merge::Keyed(keys) => keys.first().copied(),
        _ => None,
    }
}

/// Is this a list of distinct values?
pub(crate) fn is_set(kind: &Kind, path: &Path) -> bool {
    list(kind, path) == Merge::Set
}
