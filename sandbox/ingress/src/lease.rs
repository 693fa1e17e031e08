//! Leader election by a Lease, by the rules of client-go's `leaderelection`: the holder renews; another takes over only
//! when it has seen no renewal for the lease's whole duration by its own clock; nothing is released on exit.
//!
//! ingress-nginx uses 30 s, renewed every 7.5 s. Here all is shorter, so that a restarted controller leads again within
//! seconds; the rules are the same.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;

/// How long a lease holds without renewal.
pub(crate) const DURATION: Duration = Duration::from_secs(5);
/// Between two renewals, or two attempts at it.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// A candidate.
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
    /// The lease as last seen, and when that was new to us.
    seen: Option<(Lease, Instant)>,
}

impl Candidate {
    /// A candidate of this identity for the lease `name` in `namespace`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, duration: Duration) -> Candidate {
        let leases = Api::namespaced(client, namespace);
        Candidate { leases, name: name.into(), identity: identity.into(), duration, seen: None }
    }

    /// Takes, renews or only looks at the lease; true if this candidate holds it now.
    ///
    /// # Errors
    /// If the API server can't be asked. A write that another candidate was quicker with is no error: that one holds
    /// it.
    pub async fn acquire_or_renew(&mut self) -> anyhow::Result<bool> {
        let about = || format!("lease {}", self.name);
        let Some(current) =
            self.leases.get_opt(&self.name).await.with_context(|| format!("reading {}", about()))?
        else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            return match self.leases.create(&PostParams::default(), &lease).await {
                Ok(made) => Ok(self.hold(made)),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                Err(error) => Err(error).with_context(|| format!("creating {}", about())),
            };
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen.spec != current.spec) {
            self.seen = Some((current.clone(), Instant::now()));
        }
        let holder = current.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let unchanged = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        if !holder.is_empty() && holder != self.identity && unchanged < self.duration {
            return Ok(false);
        }
        let mut lease = current;
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        match self.leases.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(written) => Ok(self.hold(written)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).with_context(|| format!("writing {}", about())),
        }
    }

    fn hold(&mut self, lease: Lease) -> bool {
        self.seen = Some((lease, Instant::now()));
        true
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let old_holder = old.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let transitions = old.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let (acquired, transitions) = match old {
            Some(spec) if old_holder == self.identity => (spec.acquire_time.clone(), transitions),
            Some(_) => (Some(now.clone()), transitions.saturating_add(1)),
            None => (Some(now.clone()), 0),
        };
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Runs for ever; says in `leading` whether this candidate holds the lease.
    pub async fn run(mut self, retry: Duration, leading: &watch::Sender<bool>) {
        let mut renewed = Instant::now();
        loop {
            let held = match tokio::time::timeout(self.duration, self.acquire_or_renew()).await {
                Ok(Ok(held)) => held,
                // A leader that can't renew leads on until its lease is over, as long as nobody else may lead.
                Ok(Err(error)) => {
                    tracing::warn!("{error:#}");
                    *leading.borrow() && renewed.elapsed() < self.duration
                }
                Err(_) => false,
            };
            if held {
                renewed = Instant::now();
            }
            leading.send_if_modified(|was| {
                if *was != held {
                    tracing::info!("lease {}: {}", self.name, if held { "leading" } else { "not leading" });
                }
                std::mem::replace(was, held) != held
            });
            tokio::time::sleep(retry).await;
        }
    }
}
