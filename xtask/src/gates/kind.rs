//! The kinds of workload that can be judged, and how the API calls them.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use kube::core::ApiResource;

/// The kinds of workload that can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pods that are alike.
    Deployment,
    /// Pods with a number and a volume of their own.
    StatefulSet,
    /// A pod on each node.
    DaemonSet,
    /// Pods that end.
    Job,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Job];

    /// Its name in commands and messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Deployment => "deployment",
            Kind::StatefulSet => "statefulset",
            Kind::DaemonSet => "daemonset",
            Kind::Job => "job",
        }
    }

    /// Its API group.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => "apps",
            Kind::Job => "batch",
        }
    }

    /// How the API calls it.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        match self {
            Kind::Deployment => ApiResource::erase::<Deployment>(&()),
            Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Kind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
            Kind::Job => ApiResource::erase::<Job>(&()),
        }
    }

    /// Its resource, as in paths.
    #[must_use]
    pub fn plural(self) -> String {
        format!("{}s", self.word())
    }
}
