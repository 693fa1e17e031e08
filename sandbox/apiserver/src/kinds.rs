//! Every kind: its row here is all that the server knows of it.

use k8s_openapi::Resource;
use k8s_openapi::api::{
    admissionregistration, apps, authorization, autoscaling, coordination, core, discovery, events,
    networking, policy, rbac,
};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::columns::{cluster, network, pods, workloads};
use crate::kind::{Columns, Does, Kind, Merge, Name, Storage};
use crate::round_trip::{encode_string_data, through};
use crate::{defaults, presence, validate, views};

/// A kind as k8s-openapi has it.
const fn kind<K: Resource>(singular: &'static str, does: Does) -> Kind {
    bare(K::GROUP, K::VERSION, K::KIND, K::URL_PATH_SEGMENT, singular, does)
}

const fn bare(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    does: Does,
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
        needs_version: false,
        status_at_creation: false,
        status_annotates: false,
        annotations_count: false,
        collected: false,
        most: usize::MAX,
        does,
    }
}

/// What all kinds do that have a type.
const fn typed<K: Serialize + DeserializeOwned>(columns: Columns) -> Does {
    Does::plain(through::<K>, columns)
}

/// What is not kept has no type here.
const COMPUTED: Does = Does::plain(|object| Ok(object.clone()), cluster::OTHER);

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
    const fn status_at_creation(mut self) -> Self {
        self.status_at_creation = true;
        self
    }
    const fn status_annotates(mut self) -> Self {
        self.status_annotates = true;
        self
    }
    const fn annotations_count(mut self) -> Self {
        self.annotations_count = true;
        self
    }
    const fn collected(mut self) -> Self {
        self.collected = true;
        self
    }
    const fn most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }
    const fn needs_version(mut self) -> Self {
        self.needs_version = true;
        self
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
}

const STATUS: &[&str] = &["status"];
const STATUS_SCALE: &[&str] = &["status", "scale"];
const TRANSITION: &[&str] = &["lastTransitionTime"];
/// A Deployment may ask for two thousand million; a node runs 110.
const MOST_PODS: usize = 2000;

/// Every kind. The first version of a group is its preferred one.
pub(crate) static KINDS: &[Kind] = &[
    kind::<core::v1::Namespace>(
        "namespace",
        Does {
            condition_times: TRANSITION,
            defaults: defaults::namespace,
            admit: defaults::admit_namespace,
            name: Name::Label,
            selectable: &["status.phase"],
            lists: &[("spec", "finalizers", Merge::Atomic)],
            ..typed::<core::v1::Namespace>(cluster::NAMESPACE)
        },
    )
    .short(&["ns"])
    .sub(&["status", "finalize"])
    .cluster(),
    kind::<core::v1::Node>(
        "node",
        Does {
            condition_times: &["lastHeartbeatTime", "lastTransitionTime"],
            blank: presence::blank_node,
            defaults: defaults::node,
            selectable: &["spec.unschedulable"],
            ..typed::<core::v1::Node>(cluster::NODE)
        },
    )
    .short(&["no"])
    .sub(STATUS)
    .cluster()
    .status_at_creation()
    .status_annotates(),
    kind::<core::v1::Pod>(
        "pod",
        Does {
            condition_times: &["lastProbeTime", "lastTransitionTime"],
            complete: presence::complete_pod,
            blank: presence::blank_pod,
            defaults: defaults::pod,
            admit: defaults::admit_pod,
            validate: validate::pod,
            selectable: &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.podIPs",
                "status.nominatedNodeName",
            ],
            grace: pods::grace,
            row_condition: pods::completed,
            ..typed::<core::v1::Pod>(pods::POD)
        },
    )
    .short(&["po"])
    .sub(&["status", "log", "portforward", "eviction", "binding", "exec", "attach", "ephemeralcontainers"])
    .all()
    .generation()
    .status_annotates()
    .collected()
    .most(MOST_PODS),
    kind::<core::v1::ConfigMap>(
        "configmap",
        Does { validate: validate::config_map, ..typed::<core::v1::ConfigMap>(cluster::CONFIG_MAP) },
    )
    .short(&["cm"]),
    kind::<core::v1::Secret>(
        "secret",
        Does {
            before_decoding: encode_string_data,
            defaults: defaults::secret,
            validate: validate::secret,
            selectable: &["type"],
            ..typed::<core::v1::Secret>(cluster::SECRET)
        },
    ),
    kind::<core::v1::Service>(
        "service",
        Does {
            defaults: defaults::service,
            admit: defaults::admit_service,
            carry_over: defaults::carry_over_service,
            drop_dependent: defaults::drop_dependent_service,
            name: Name::Service,
            validate: validate::service,
            selectable: &["spec.clusterIP", "spec.type"],
            lists: &[("spec", "ports", Merge::Keyed(&["port", "protocol"]))],
            ..typed::<core::v1::Service>(network::SERVICE)
        },
    )
    .short(&["svc"])
    .sub(STATUS)
    .all()
    .collected(),
    kind::<core::v1::ServiceAccount>(
        "serviceaccount",
        Does {
            lists: &[("", "secrets", Merge::Keyed(&["name"]))],
            ..typed::<core::v1::ServiceAccount>(cluster::SERVICE_ACCOUNT)
        },
    )
    .short(&["sa"]),
    kind::<core::v1::Event>(
        "event",
        Does {
            micro_times: EVENT_TIMES,
            complete: presence::complete_event,
            blank: presence::blank_event,
            selectable: &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            ..typed::<core::v1::Event>(cluster::EVENT)
        },
    )
    .short(&["ev"]),
    kind::<core::v1::Endpoints>(
        "endpoints",
        Does {
            defaults: defaults::endpoints,
            validate: validate::endpoints,
            ..typed::<core::v1::Endpoints>(network::ENDPOINTS)
        },
    )
    .short(&["ep"]),
    kind::<apps::v1::Deployment>(
        "deployment",
        Does {
            condition_times: &["lastUpdateTime", "lastTransitionTime"],
            complete: presence::complete_workload,
            blank: presence::blank_workload,
            defaults: defaults::deployment,
            validate: validate::workload,
            ..typed::<apps::v1::Deployment>(workloads::DEPLOYMENT)
        },
    )
    .short(&["deploy"])
    .sub(STATUS_SCALE)
    .all()
    .generation()
    .status_annotates()
    .annotations_count()
    .collected(),
    kind::<apps::v1::ReplicaSet>(
        "replicaset",
        Does {
            condition_times: TRANSITION,
            complete: presence::complete_workload,
            blank: presence::blank_workload,
            defaults: defaults::replica_set,
            validate: validate::workload,
            selectable: &["status.replicas"],
            integer_columns: &["Desired", "Current", "Ready"],
            ..typed::<apps::v1::ReplicaSet>(workloads::REPLICA_SET)
        },
    )
    .short(&["rs"])
    .sub(STATUS_SCALE)
    .all()
    .generation()
    .status_annotates()
    .collected(),
    kind::<autoscaling::v2::HorizontalPodAutoscaler>(
        "horizontalpodautoscaler",
        autoscaler(typed::<autoscaling::v2::HorizontalPodAutoscaler>(workloads::AUTOSCALER)),
    )
    .short(&["hpa"])
    .sub(STATUS)
    .all(),
    kind::<autoscaling::v1::HorizontalPodAutoscaler>(
        "horizontalpodautoscaler",
        Does {
            show: views::autoscaler_to_v1,
            store: views::autoscaler_to_v2,
            ..autoscaler(typed::<autoscaling::v1::HorizontalPodAutoscaler>(workloads::AUTOSCALER))
        },
    )
    .short(&["hpa"])
    .sub(STATUS)
    .all()
    .view("autoscaling", "horizontalpodautoscalers"),
    kind::<discovery::v1::EndpointSlice>(
        "endpointslice",
        Does {
            defaults: defaults::endpoint_slice,
            ..typed::<discovery::v1::EndpointSlice>(network::ENDPOINT_SLICE)
        },
    )
    .generation(),
    kind::<coordination::v1::Lease>(
        "lease",
        Does {
            micro_times: &["/spec/acquireTime", "/spec/renewTime"],
            validate: validate::lease,
            ..typed::<coordination::v1::Lease>(cluster::LEASE)
        },
    )
    .needs_version(),
    kind::<networking::v1::Ingress>(
        "ingress",
        Does {
            defaults: defaults::ingress,
            validate: validate::ingress,
            ..typed::<networking::v1::Ingress>(network::INGRESS)
        },
    )
    .short(&["ing"])
    .sub(STATUS)
    .generation(),
    kind::<networking::v1::IngressClass>(
        "ingressclass",
        typed::<networking::v1::IngressClass>(network::INGRESS_CLASS),
    )
    .cluster()
    .generation(),
    kind::<networking::v1::NetworkPolicy>(
        "networkpolicy",
        Does {
            blank: presence::blank_network_policy,
            defaults: defaults::network_policy,
            validate: validate::network_policy,
            ..typed::<networking::v1::NetworkPolicy>(network::NETWORK_POLICY)
        },
    )
    .short(&["netpol"])
    .generation(),
    kind::<policy::v1::PodDisruptionBudget>(
        "poddisruptionbudget",
        Does {
            defaults: defaults::disruption_budget,
            validate: validate::disruption_budget,
            integer_columns: &["Allowed Disruptions"],
            ..typed::<policy::v1::PodDisruptionBudget>(workloads::DISRUPTION_BUDGET)
        },
    )
    .short(&["pdb"])
    .sub(STATUS)
    .generation()
    .needs_version(),
    kind::<events::v1::Event>(
        "event",
        Does {
            micro_times: EVENT_TIMES,
            selectable: &[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingController",
                "type",
            ],
            show: views::event_to_new,
            store: views::event_to_core,
            ..typed::<events::v1::Event>(cluster::EVENT)
        },
    )
    .short(&["ev"])
    .view("", "events"),
    kind::<apiregistration::v1::APIService>(
        "apiservice",
        Does {
            condition_times: TRANSITION,
            defaults: defaults::api_service,
            validate: validate::api_service,
            ..typed::<apiregistration::v1::APIService>(cluster::API_SERVICE)
        },
    )
    .sub(STATUS)
    .cluster()
    .needs_version()
    .status_at_creation(),
    kind::<admissionregistration::v1::ValidatingWebhookConfiguration>(
        "validatingwebhookconfiguration",
        Does {
            defaults: defaults::webhooks,
            validate: validate::webhooks,
            ..typed::<admissionregistration::v1::ValidatingWebhookConfiguration>(cluster::WEBHOOKS)
        },
    )
    .cluster()
    .generation()
    .needs_version(),
    kind::<rbac::v1::Role>("role", Does { name: Name::Any, ..typed::<rbac::v1::Role>(cluster::OTHER) }),
    kind::<rbac::v1::RoleBinding>("rolebinding", binding(typed::<rbac::v1::RoleBinding>(cluster::OTHER))),
    kind::<rbac::v1::ClusterRole>(
        "clusterrole",
        Does { name: Name::Any, ..typed::<rbac::v1::ClusterRole>(cluster::OTHER) },
    )
    .cluster(),
    kind::<rbac::v1::ClusterRoleBinding>(
        "clusterrolebinding",
        binding(typed::<rbac::v1::ClusterRoleBinding>(cluster::OTHER)),
    )
    .cluster(),
    kind::<authorization::v1::SelfSubjectAccessReview>("selfsubjectaccessreview", COMPUTED)
        .cluster()
        .computed(),
    bare("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", "", COMPUTED).cluster().computed(),
    bare("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", "", COMPUTED).computed(),
];

const EVENT_TIMES: &[&str] = &["/eventTime", "/series/lastObservedTime"];

/// Both versions.
const fn autoscaler(does: Does) -> Does {
    Does {
        condition_times: TRANSITION,
        blank: presence::blank_autoscaler,
        defaults: defaults::autoscaler,
        validate: validate::autoscaler,
        ..does
    }
}

const fn binding(does: Does) -> Does {
    Does { name: Name::Any, defaults: defaults::role_binding, ..does }
}

/// The kind at `/apis/{group}/{version}/{plural}`.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.version == version && kind.is(group, plural))
}

/// Is any version of this group served?
pub(crate) fn has_group(group: &str) -> bool {
    KINDS.iter().any(|kind| kind.group == group)
}

/// Has any kind this plural?
pub(crate) fn has_plural(plural: &str) -> bool {
    KINDS.iter().any(|kind| kind.plural == plural)
}

/// The stored kind with this group and plural, whatever the version asked for.
pub(crate) fn stored(group: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.is(group, plural)).map(Kind::stored)
}

/// The kind that keeps namespaces.
pub(crate) fn namespace() -> &'static Kind {
    stored("", "namespaces").unwrap_or(&KINDS[0])
}
