//! The table of kinds: what the API serves, and how each is named in paths.

/// One kind of object, in one version.
#[derive(Debug)]
pub(crate) struct Kind {
    /// API group; empty for the core group.
    pub(crate) group: &'static str,
    /// Version inside the group.
    pub(crate) version: &'static str,
    /// `Pod`.
    pub(crate) kind: &'static str,
    /// `pods`.
    pub(crate) plural: &'static str,
    /// `pod`.
    pub(crate) singular: &'static str,
    /// Short names kubectl accepts.
    pub(crate) short: &'static [&'static str],
    /// Subresources, as in the path.
    pub(crate) subresources: &'static [&'static str],
    /// Groups of kinds such as `all`.
    pub(crate) categories: &'static [&'static str],
    /// Objects live in a namespace.
    pub(crate) namespaced: bool,
    /// Where its objects are kept.
    pub(crate) storage: Storage,
    /// A change outside metadata and status raises `metadata.generation`.
    pub(crate) generation: bool,
}

/// Where the objects of a kind are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Under its own group and plural.
    Own,
    /// A view of the objects of another kind (group, plural), converted on the way in and out.
    ViewOf(&'static str, &'static str),
    /// Nowhere: computed for each request.
    Computed,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
        singular,
        short: &[],
        subresources: &[],
        categories: &[],
        namespaced: true,
        storage: Storage::Own,
        generation: false,
    }
}

impl Kind {
    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }
    const fn sub(mut self, names: &'static [&'static str]) -> Self {
        self.subresources = names;
        self
    }
    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }
    const fn generation(mut self) -> Self {
        self.generation = true;
        self
    }
    const fn view(mut self, group: &'static str, plural: &'static str) -> Self {
        self.storage = Storage::ViewOf(group, plural);
        self
    }
    const fn computed(mut self) -> Self {
        self.storage = Storage::Computed;
        self
    }

    /// `apps/v1`, or `v1` in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods`: how errors name the resource.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Deployment.apps`, or `Pod`: how validation errors name the kind.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// `core`, `apps`: the Go package that errors name.
    pub(crate) fn package(&self) -> &'static str {
        match self.group {
            "" | "events.k8s.io" => "core",
            group => group.split('.').next().unwrap_or(group),
        }
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    pub(crate) fn has(&self, subresource: &str) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The kind that keeps this one's objects.
    pub(crate) fn stored(&'static self) -> &'static Kind {
        match self.storage {
            Storage::ViewOf(group, plural) => KINDS
                .iter()
                .find(|kind| kind.is(group, plural) && kind.storage == Storage::Own)
                .unwrap_or(self),
            Storage::Own | Storage::Computed => self,
        }
    }

    /// Verbs as discovery lists them.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        match (self.storage, self.group) {
            (Storage::Computed, "metrics.k8s.io") => &["get", "list"],
            (Storage::Computed, _) => &["create"],
            _ => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
    }
}

const STATUS: &[&str] = &["status"];
const STATUS_SCALE: &[&str] = &["status", "scale"];
const APPS: &str = "apps";
const RBAC: &str = "rbac.authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";

/// Every kind. The first version of a group is its preferred one.
pub(crate) static KINDS: &[Kind] = &[
    kind("", "v1", "Namespace", "namespaces", "namespace")
        .short(&["ns"])
        .sub(&["status", "finalize"])
        .cluster(),
    kind("", "v1", "Node", "nodes", "node").short(&["no"]).sub(STATUS).cluster(),
    kind("", "v1", "Pod", "pods", "pod")
        .short(&["po"])
        .sub(&[
            "status",
            "log",
            "portforward",
            "eviction",
            "binding",
            "exec",
            "attach",
            "ephemeralcontainers",
        ])
        .all()
        .generation(),
    kind("", "v1", "ConfigMap", "configmaps", "configmap").short(&["cm"]),
    kind("", "v1", "Secret", "secrets", "secret"),
    kind("", "v1", "Service", "services", "service").short(&["svc"]).sub(STATUS).all(),
    kind("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount").short(&["sa"]),
    kind("", "v1", "Event", "events", "event").short(&["ev"]),
    kind("", "v1", "Endpoints", "endpoints", "endpoints").short(&["ep"]),
    kind(APPS, "v1", "Deployment", "deployments", "deployment")
        .short(&["deploy"])
        .sub(STATUS_SCALE)
        .all()
        .generation(),
    kind(APPS, "v1", "ReplicaSet", "replicasets", "replicaset")
        .short(&["rs"])
        .sub(STATUS_SCALE)
        .all()
        .generation(),
    kind(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
    )
    .short(&["hpa"])
    .sub(STATUS)
    .all(),
    kind(
        "autoscaling",
        "v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
    )
    .short(&["hpa"])
    .sub(STATUS)
    .all()
    .view("autoscaling", "horizontalpodautoscalers"),
    kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice").generation(),
    kind("coordination.k8s.io", "v1", "Lease", "leases", "lease"),
    kind(NETWORKING, "v1", "Ingress", "ingresses", "ingress").short(&["ing"]).sub(STATUS).generation(),
    kind(NETWORKING, "v1", "IngressClass", "ingressclasses", "ingressclass").cluster().generation(),
    kind(NETWORKING, "v1", "NetworkPolicy", "networkpolicies", "networkpolicy")
        .short(&["netpol"])
        .generation(),
    kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget")
        .short(&["pdb"])
        .sub(STATUS)
        .generation(),
    kind("events.k8s.io", "v1", "Event", "events", "event").short(&["ev"]).view("", "events"),
    kind("apiregistration.k8s.io", "v1", "APIService", "apiservices", "apiservice").sub(STATUS).cluster(),
    kind(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
    )
    .cluster()
    .generation(),
    kind(RBAC, "v1", "Role", "roles", "role"),
    kind(RBAC, "v1", "RoleBinding", "rolebindings", "rolebinding"),
    kind(RBAC, "v1", "ClusterRole", "clusterroles", "clusterrole").cluster(),
    kind(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding").cluster(),
    kind(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
    )
    .cluster()
    .computed(),
    kind("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", "").cluster().computed(),
    kind("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", "").computed(),
];

/// The kind at `/apis/{group}/{version}/{plural}`.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.version == version && kind.is(group, plural))
}

/// Is any version of this group served?
pub(crate) fn has_group(group: &str) -> bool {
    KINDS.iter().any(|kind| kind.group == group)
}

/// The stored kind with this group and plural, whatever the version asked for.
pub(crate) fn stored(group: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.is(group, plural)).map(Kind::stored)
}

/// The kind that keeps namespaces.
pub(crate) fn namespace() -> &'static Kind {
    stored("", "namespaces").unwrap_or(&KINDS[0])
}
