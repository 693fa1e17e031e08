//! How many replicas a resource metric asks for: Kubernetes' replica calculator.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::metrics::Sample;
use crate::pods;

/// How far from the target a metric may be without an effect: kube-controller-manager's default.
pub(super) const TOLERANCE: f64 = 0.1;
/// After its start a pod's CPU counts only from samples taken wholly while it was ready.
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that was never ready after its start plus this is taken as still starting.
const INITIAL_READINESS: Duration = Duration::from_secs(30);

/// What the metric is held against.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// Percent of what the pods request.
    Utilization(i32),
    /// Thousandths per pod.
    Average(i64),
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// Percent of the requests, when that is the target.
    pub(super) utilization: Option<i32>,
    /// Thousandths per pod.
    pub(super) average: i64,
}

/// What is asked for a resource of a set of pods.
pub(super) struct Question<'a> {
    pub(super) resource: &'a str,
    /// One container of each pod instead of all.
    pub(super) container: Option<&'a str>,
    pub(super) target: Target,
    /// `spec.replicas` of what is scaled.
    pub(super) current: i32,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) now: Timestamp,
}

impl Question<'_> {
    /// # Errors
    /// In the autoscaler's words for an event.
    pub(super) fn answer(&self, mut samples: HashMap<String, Sample>) -> Result<Proposal, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let groups = self.group(&samples);
        samples.retain(|pod, _| groups.ready.contains(pod));
        if samples.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
        }
        let requests = self.requests()?;
        let usage: HashMap<String, i64> =
            samples.iter().map(|(pod, sample)| (pod.clone(), sample.milli)).collect();
        let (ratio, utilization) = self.ratio(&usage, &requests)?;
        let average = usage.values().sum::<i64>() / i64::try_from(usage.len()).unwrap_or(1).max(1);
        let replicas = self.replicas(ratio, usage, &requests, &groups)?;
        Ok(Proposal { replicas, utilization, average })
    }

    fn replicas(
        &self,
        ratio: f64,
        mut usage: HashMap<String, i64>,
        requests: &HashMap<String, i64>,
        groups: &Groups,
    ) -> Result<i32, String> {
        let hold_back = !groups.unready.is_empty() && ratio > 1.0;
        if !hold_back && groups.missing.is_empty() {
            return Ok(if within_tolerance(ratio) {
                self.current
            } else {
                scaled(ratio, groups.ready.len())
            });
        }
        // Pods without a sample count against the change: as idle when there is too much, as busy when there is too
        // little.
        for pod in &groups.missing {
            let request = requests.get(pod).copied().unwrap_or_default();
            let assumed = match self.target {
                _ if ratio >= 1.0 => 0,
                Target::Utilization(target) => request * i64::from(target.max(100)) / 100,
                Target::Average(target) => target,
            };
            usage.insert(pod.clone(), assumed);
        }
        if hold_back {
            usage.extend(groups.unready.iter().map(|pod| (pod.clone(), 0)));
        }
        let (again, _) = self.ratio(&usage, requests)?;
        if within_tolerance(again) || (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0) {
            return Ok(self.current);
        }
        let replicas = scaled(again, usage.len());
        let contrary = (again < 1.0 && replicas > self.current) || (again > 1.0 && replicas < self.current);
        Ok(if contrary { self.current } else { replicas })
    }

    /// Usage over target, and the utilisation in percent.
    fn ratio(
        &self,
        usage: &HashMap<String, i64>,
        requests: &HashMap<String, i64>,
    ) -> Result<(f64, Option<i32>), String> {
        let total: i64 = usage.values().sum();
        match self.target {
            Target::Average(target) => {
                let average = to_float(total) / to_float(i64::try_from(usage.len()).unwrap_or(1).max(1));
                Ok((average / to_float(target.max(1)), None))
            }
            Target::Utilization(target) => {
                let requested: i64 = usage.keys().filter_map(|pod| requests.get(pod)).sum();
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let utilization = total.saturating_mul(100) / requested;
                let utilization = i32::try_from(utilization).unwrap_or(i32::MAX);
                Ok((f64::from(utilization) / f64::from(target.max(1)), Some(utilization)))
            }
        }
    }

    /// What each pod requests of the resource.
    fn requests(&self) -> Result<HashMap<String, i64>, String> {
        let mut requests = HashMap::new();
        if matches!(self.target, Target::Average(_)) {
            return Ok(requests);
        }
        for pod in self.pods {
            let mut sum = 0;
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            for container in containers.filter(|own| self.container.is_none_or(|wanted| own.name == wanted)) {
                let request = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
                let request = request.and_then(|request| quantity::milli(&request.get(self.resource)?.0));
                let Some(request) = request else {
                    let (resource, name, pod) = (self.resource, &container.name, pod.name_any());
                    return Err(format!("missing request for {resource} in container {name} of Pod {pod}"));
                };
                sum += request;
            }
            requests.insert(pod.name_any(), sum);
        }
        Ok(requests)
    }

    fn group(&self, samples: &HashMap<String, Sample>) -> Groups {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.name_any();
            if pods::is_deleting(&pod.metadata) || pods::phase(pod) == "Failed" {
                continue;
            }
            let group = match samples.get(&name) {
                _ if pods::phase(pod) == "Pending" => &mut groups.unready,
                None => &mut groups.missing,
                Some(sample) if self.resource == "cpu" && self.is_starting(pod, sample) => {
                    &mut groups.unready
                }
                Some(_) => &mut groups.ready,
            };
            group.insert(name);
        }
        groups
    }

    /// Whether the CPU sample tells of the pod's start rather than of its load.
    fn is_starting(&self, pod: &Pod, sample: &Sample) -> bool {
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(started)) = (pods::condition(pod, "Ready"), started) else { return true };
        let changed = ready.last_transition_time.as_ref().map_or(started.0, |time| time.0);
        let plus = |time: Timestamp, duration: Duration| time.checked_add(duration).unwrap_or(Timestamp::MAX);
        if plus(started.0, CPU_INITIALIZATION) > self.now {
            ready.status == "False" || sample.at < plus(changed, sample.window)
        } else {
            ready.status == "False" && plus(started.0, INITIAL_READINESS) > changed
        }
    }
}

/// Pods by what their sample is worth.
#[derive(Default)]
struct Groups {
    ready: HashSet<String>,
    unready: HashSet<String>,
    missing: HashSet<String>,
}

fn within_tolerance(ratio: f64) -> bool {
    (ratio - 1.0).abs() <= TOLERANCE
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and the maximum of the autoscaler caps it")]
fn scaled(ratio: f64, pods: usize) -> i32 {
    (ratio * to_float(i64::try_from(pods).unwrap_or(i64::MAX))).ceil() as i32
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
fn to_float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:05Z"},
            ]},
        });
        Arc::new(serde_json::from_value(pod).expect("pod"))
    }

    fn ask(pods: &[Arc<Pod>], milli: &[(&str, i64)]) -> Result<Proposal, String> {
        let at: Timestamp = "2026-01-01T00:01:00Z".parse().expect("time");
        let window = Duration::from_secs(1);
        let samples = milli
            .iter()
            .map(|(pod, milli)| ((*pod).to_owned(), Sample { milli: *milli, at, window }))
            .collect();
        let current = i32::try_from(pods.len()).expect("few");
        let target = Target::Utilization(50);
        Question { resource: "cpu", container: None, target, current, pods, now: at }.answer(samples)
    }

    #[test]
    fn scales_in_proportion_to_use_over_target() {
        let pods = [pod("a", true), pod("b", true)];
        let up = ask(&pods, &[("a", 100), ("b", 100)]).expect("answer");
        assert_eq!(up, Proposal { replicas: 4, utilization: Some(100), average: 100 });
        assert_eq!(ask(&pods, &[("a", 52), ("b", 52)]).expect("answer").replicas, 2, "within the tolerance");
        assert_eq!(ask(&pods, &[("a", 10), ("b", 10)]).expect("answer").replicas, 1);
    }

    #[test]
    fn missing_and_unready_pods_damp_the_change() {
        let pods = [pod("a", true), pod("b", true)];
        assert_eq!(ask(&pods, &[("a", 100)]).expect("answer").replicas, 2, "the missing one counts as idle");
        assert_eq!(ask(&pods, &[("a", 10)]).expect("answer").replicas, 2, "the missing one counts as busy");
        let starting = [pod("a", true), pod("b", false)];
        assert_eq!(ask(&starting, &[("a", 100), ("b", 1000)]).expect("answer").replicas, 2);
        assert!(
            ask(&[pod("b", false)], &[("b", 1000)]).expect_err("unready").contains("pods might be unready")
        );
        assert!(ask(&[], &[]).expect_err("none").contains("no pods"));
    }
}
