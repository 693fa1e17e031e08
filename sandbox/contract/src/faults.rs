//! Faults on purpose, for tests: each is one JSON object.
//!
//! | fault | does |
//! |---|---|
//! | `{"fault":"api","resources":["pods"],"verbs":["list"],"effect":{"answer":503},"times":3}` | answers so |
//! | `…"effect":{"delay_ms":500},"seconds":5` | answers later |
//! | `…"effect":"hang"` | does not answer until the fault is over, then 504 |
//! | `…"effect":"hold"` | watches under way hear nothing until the fault is over, then all of it |
//! | `{"fault":"cut-watches","resources":["pods"]}` | ends watches under way, once |
//! | `{"fault":"kill","namespace":"default","pod":"web-1"}` | SIGKILL to the pod's containers, once |
//! | `{"fault":"refuse-image","image":"web","answer":"not-found"}` | `ErrImagePull`; `never`: `ErrImageNeverPull` |
//! | `{"fault":"fail-probes","namespace":"default","seconds":20}` | every probe there fails |
//! | `{"fault":"black-hole"}` | connections to pods that have ended time out, as on a real node; else: refused |
//! | `{"fault":"proxy","answer":"bad-gateway"}` | 502; `close`: drops connections; `refuse`: does not listen |
//! | `{"fault":"latency","ms":20}` | the ingress takes so much longer; one fault of the ingress at a time |
//!
//! Resources are plurals, or paths such as `/readyz`; none means all. `verbs` are Kubernetes' (get, list, watch,
//! create, update, patch, delete); none means all. Without `times` and `seconds` a fault stays until it is cleared.
//! The lease is held back by `{"fault":"api","resources":["leases"],"verbs":["create","update"],
//! "namespace":"ingress-nginx","effect":{"answer":503}}`.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Requests to the API server meet something.
    Api(ApiFault),
    /// Ends watches under way, once.
    CutWatches {
        /// Of these; none means all.
        #[serde(default)]
        resources: Vec<String>,
    },
    /// SIGKILL to the containers of a pod, once.
    Kill {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
    },
    /// Containers of an image can't be created any more.
    RefuseImage {
        /// `repository`, which is all its tags, or `repository:tag`.
        image: String,
        /// What the kubelet says of it.
        answer: Refusal,
    },
    /// Every probe of a namespace fails for a time.
    FailProbes {
        /// Which namespace.
        namespace: String,
        /// For how long.
        seconds: f64,
    },
    /// Connections to pods that end from here on get no answer until the client gives up, as on a node that drops what
    /// comes for an address that nobody has. Otherwise they are refused at once.
    BlackHole,
    /// The ingress does not do its work.
    Proxy {
        /// What it does instead.
        answer: ProxyFault,
    },
    /// The ingress takes longer for each request.
    Latency {
        /// So much, in milliseconds.
        ms: u32,
    },
}

/// What requests of a kind meet. Those that the cluster's own parts send never do: a fault is in the one place it was
/// put.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiFault {
    /// Plurals, or paths such as `/readyz`; none means all.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Kubernetes' verbs; none means all.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// Only in this namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// What happens to the request.
    pub effect: Effect,
    /// How many requests meet it.
    #[serde(default)]
    pub times: Option<u32>,
    /// How long it is in force.
    #[serde(default)]
    pub seconds: Option<f64>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It is answered with this status.
    Answer(u16),
    /// It is answered later.
    DelayMs(u64),
    /// It is not answered until the fault is over, then 504.
    Hang,
    /// A watch under way hears nothing until the fault is over, then all of it.
    Hold,
}

/// What a node answers for an image that it is told to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// `ErrImagePull`, then `ImagePullBackOff`: the registry has no such image.
    NotFound,
    /// `ErrImageNeverPull`: it is not on the node, and the pull policy is Never.
    Never,
}

/// What the ingress does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyFault {
    /// It answers 502.
    BadGateway,
    /// It drops connections.
    Close,
    /// It does not listen.
    Refuse,
}

/// The verbs that faults tell apart.
const VERBS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];
/// Statuses that an API server may answer with.
const STATUSES: RangeInclusive<u16> = 200..=599;
/// A year, in seconds: longer than any test.
const LONGEST: f64 = 365.0 * 24.0 * 3600.0;

impl Fault {
    /// Whether its values make sense.
    ///
    /// # Errors
    /// The value that does not.
    pub fn check(&self) -> Result<(), String> {
        let seconds = match self {
            Fault::Api(ApiFault { verbs, effect, seconds, .. }) => {
                if let Some(verb) = verbs.iter().find(|verb| !VERBS.contains(&verb.as_str())) {
                    return Err(format!("unknown verb `{verb}`, expected one of {}", VERBS.join(", ")));
                }
                if let Effect::Answer(status) = effect
                    && !STATUSES.contains(status)
                {
                    return Err(format!("{status} is not a status between 200 and 599"));
                }
                *seconds
            }
            Fault::FailProbes { seconds, .. } => Some(*seconds),
            _ => None,
        };
        match seconds {
            Some(seconds) if !(0.0..=LONGEST).contains(&seconds) => {
                Err(format!("{seconds} is not a number of seconds between 0 and a year"))
            }
            _ => Ok(()),
        }
    }
}

impl ApiFault {
    /// Every request meets `effect` until the fault is cleared; the other fields narrow that.
    #[must_use]
    pub fn new(effect: Effect) -> ApiFault {
        ApiFault {
            resources: Vec::new(),
            verbs: Vec::new(),
            namespace: None,
            effect,
            times: None,
            seconds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_fault_is_refused_and_not_taken_for_a_wider_one() {
        let read = |text: &str| {
            let fault = serde_json::from_str::<Fault>(text).map_err(|error| error.to_string());
            fault.and_then(|fault| fault.check()).err()
        };
        for (text, why) in [
            (r#"{"fault":"kil","namespace":"a","pod":"b"}"#, "unknown variant `kil`"),
            (r#"{"fault":"kill","namespace":"a"}"#, "missing field `pod`"),
            (r#"{"fault":"kill","namespace":"a","pod":"b","grace":1}"#, "unknown field `grace`"),
            (r#"{"fault":"api","resource":["pods"],"effect":"hang"}"#, "unknown field `resource`"),
            (r#"{"fault":"api","verbs":["gett"],"effect":"hang"}"#, "unknown verb `gett`"),
            (r#"{"fault":"api","effect":{"answer":9999}}"#, "9999 is not a status"),
            (r#"{"fault":"api","effect":"hang","seconds":-1}"#, "-1 is not a number of seconds"),
            (r#"{"fault":"fail-probes","namespace":"a","seconds":1e300}"#, "is not a number of seconds"),
        ] {
            let told = read(text).unwrap_or_else(|| panic!("{text} is taken"));
            assert!(told.contains(why), "{text}: {told}");
        }
        assert_eq!(read(r#"{"fault":"api","verbs":["get"],"effect":{"answer":503},"seconds":0.5}"#), None);
    }
}
