//! What the credentials of a run may do: the API server itself is asked (SelfSubjectAccessReview), before anything
//! else.

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::PostParams;

use crate::kubernetes::Api;

/// A few verbs on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The API group; empty for the core group.
    pub group: String,
    /// `pods`, or `pods/log`.
    pub resource: String,
    /// What is done with it.
    pub verbs: &'static [&'static str],
    /// Whether it is in the run's namespace; else it is in the whole cluster.
    pub namespaced: bool,
}

impl Right {
    /// In the run's namespace.
    pub fn new(group: &str, resource: &str, verbs: &'static [&'static str]) -> Right {
        Right { group: group.to_owned(), resource: resource.to_owned(), verbs, namespaced: true }
    }

    /// In the whole cluster.
    pub fn everywhere(group: &str, resource: &str, verbs: &'static [&'static str]) -> Right {
        Right { namespaced: false, ..Right::new(group, resource, verbs) }
    }

    /// As `kubectl auth can-i` names it.
    fn name(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

/// Those that are missing, one line for each resource: `list, watch pods`. What the API server does not say counts as
/// there: the request itself will tell.
pub async fn missing(client: &Client, namespace: &str, rights: &[Right]) -> Vec<String> {
    let asked = rights.iter().map(async |right| {
        let verbs = right.verbs.iter().map(async |verb| {
            let denied = is_denied(client, namespace, right, verb).await;
            denied.then_some(*verb)
        });
        let denied: Vec<&str> = join_all(verbs).await.into_iter().flatten().collect();
        let place = if right.namespaced { String::new() } else { " in the whole cluster".to_owned() };
        (!denied.is_empty()).then(|| format!("{} {}{place}", denied.join(", "), right.name()))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn is_denied(client: &Client, namespace: &str, right: &Right, verb: &str) -> bool {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource.as_str(), None),
    };
    let attributes = ResourceAttributes {
        group: Some(right.group.clone()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.to_owned()),
        namespace: right.namespaced.then(|| namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    answer.ok().and_then(|answer| answer.status).is_some_and(|status| !status.allowed)
}
