//! What the last JSON object of a run carries beside the steps.

use serde_json::{Map, Value};

use crate::clusters::Cluster;
use crate::manifests::Manifests;

/// The fields of one command.
pub type Summary = Map<String, Value>;

/// Where the app is reached through the ingress.
pub fn entry(cluster: &Cluster, manifests: &Manifests) -> Summary {
    let fields = [
        ("cluster", cluster.kind.name()),
        ("context", &cluster.context),
        ("entry", &cluster.entry),
        ("host", manifests.host()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}
