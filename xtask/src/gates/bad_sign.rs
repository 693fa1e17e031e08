//! What the signs of single pods mean for the workload that they are of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};

use super::Verdict;
use super::clock::Clock;
use super::events;
use super::pod::{self, Grace, Sign};
use super::watch::Objects;
use crate::commands::Advice;
use crate::kubernetes::one_line;

/// A bad sign of a whole workload.
pub(super) struct Bad {
    pub(super) why: String,
    pub(super) advice: Advice,
    pub(super) permanent: bool,
}

/// A closed gate's verdict, where `bad` is the worst sign; `before` stands before all that is said.
pub(super) fn closed<T>(bad: Option<Bad>, waits_for: &str, before: &str) -> Verdict<T> {
    let Some(Bad { why, advice, permanent }) = bad else {
        return Verdict::Closed(format!("{before}{waits_for}"));
    };
    if permanent {
        return Verdict::Doomed(format!("{before}{why}"), advice);
    }
    // Nothing is said twice.
    let said = if waits_for.contains(&why) {
        waits_for.to_owned()
    } else if why.contains(waits_for) {
        why
    } else {
        format!("{why}; {waits_for}")
    };
    Verdict::Suspect(format!("{before}{said}"))
}

/// Where each probe is written, by container and `startup`, `readiness` or `liveness`.
pub(super) type Probes = BTreeMap<(String, &'static str), String>;

/// Since when each bad sign has been there without a break.
#[derive(Default)]
pub(super) struct Signs(BTreeMap<String, Timestamp>);

impl Signs {
    /// Remembers the signs of this moment, and forgets those that are gone.
    pub(super) fn note(&mut self, keys: Vec<String>, clock: &Clock) {
        self.0.retain(|key, _| keys.contains(key));
        for key in keys {
            self.0.entry(key).or_insert_with(|| clock.now());
        }
    }

    /// Whether none is there.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_permanent(&self, sign: &Sign, clock: &Clock) -> bool {
        match sign.grace {
            Grace::None => true,
            Grace::Since(since, grace) => clock.passed(since, grace),
            Grace::Lasting(grace) => self.lasted(&sign.key, grace, clock),
            Grace::Forever => false,
        }
    }

    /// Whether a sign has been there for so long. What is seen for the first time began just now, as far as we know.
    pub(super) fn lasted(&self, key: &str, grace: std::time::Duration, clock: &Clock) -> bool {
        clock.passed(self.0.get(key).copied().unwrap_or_else(|| clock.now()), grace)
    }
}

/// Pods of one workload that are all meant to become Ready.
pub(super) struct Fleet<'s> {
    pub(super) namespace: &'s str,
    pub(super) pods: &'s [&'s Pod],
    pub(super) events: &'s Objects<Event>,
    pub(super) signs: &'s Signs,
    pub(super) probes: &'s Probes,
    /// Whether another pod is about to leave its room to these.
    pub(super) frees: bool,
    /// Whether one pod that can't become Ready decides for all: each has a place that no other can take.
    pub(super) each_counts: bool,
    /// How a pod is called.
    pub(super) call: fn(&Pod) -> String,
}

impl Fleet<'_> {
    /// The keys of all signs, to be noted.
    pub(super) fn keys(pods: &[&Pod], events: &Objects<Event>, clock: &Clock) -> Vec<String> {
        let signs = pods.iter().flat_map(|pod| pod::signs(pod, &events::about_pod(events, pod), clock));
        signs.map(|sign| sign.key).collect()
    }

    /// The worst sign. One pod's dooms the workload only if no pod that is Ready proves it wrong, and all of them
    /// agree; a pod without a node holds it up alone.
    pub(super) fn worst(&self, clock: &Clock) -> Option<Bad> {
        let mut worst: Option<(&Pod, Sign, bool)> = None;
        let mut all = !self.pods.is_empty();
        let mut alone = false;
        for pod in self.pods {
            let mut hopeless = false;
            for sign in pod::signs(pod, &events::about_pod(self.events, pod), clock) {
                let permanent = self.signs.is_permanent(&sign, clock);
                hopeless |= permanent;
                let dooms_alone = permanent && (self.each_counts || sign.alone) && !self.waits(&sign);
                let outranks = match &worst {
                    None => true,
                    Some((.., worst_permanent)) => (permanent && !worst_permanent) || (dooms_alone && !alone),
                };
                alone |= dooms_alone;
                if outranks {
                    worst = Some((pod, sign, permanent));
                }
            }
            all &= hopeless;
        }
        let (pod, sign, permanent) = worst?;
        let permanent = permanent && (all || alone) && !self.waits(&sign);
        let mut why = format!("{}: {}", (self.call)(pod), sign.text);
        let place = sign.probe.as_ref().and_then(|probe| self.probes.get(probe));
        if let Some(place) = place.filter(|_| permanent) {
            why += &format!(" ({place})");
        }
        Some(Bad { why, advice: sign.advice.unwrap_or_else(|| self.describe(pod)), permanent })
    }

    /// Whether a pod only waits for the room that another leaves.
    fn waits(&self, sign: &Sign) -> bool {
        sign.alone && self.frees
    }

    fn describe(&self, pod: &Pod) -> Advice {
        Advice::Kubectl(format!("-n {} describe pod/{}", self.namespace, pod::name(pod)), "")
    }
}

/// The words by which the API refuses to make a pod: quota, admission, security policy.
pub(super) fn is_refusal(message: &str) -> bool {
    ["exceeded quota", "forbidden", "denied the request", "is invalid"]
        .iter()
        .any(|words| message.contains(words))
}

/// What the API's refusal of a pod means; `stands` says whether it has lasted.
pub(super) fn refused(message: &str, stands: bool) -> Bad {
    Bad {
        why: format!("the API refuses to make a pod: {}", one_line(message)),
        advice: "raise the quota, or fix what the message names in the pod's template".into(),
        permanent: is_refusal(message) && stands,
    }
}
