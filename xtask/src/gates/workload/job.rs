//! A Job: it completes or fails, and says so itself. Its pods may fail as often as it allows, so a crash is no sign
//! yet.

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use super::super::Verdict;
use super::super::bad_sign;
use super::super::clock::Clock;
use super::super::pod;
use super::{Snapshot, Sorted, Until, names};
use crate::kubernetes::{self, Condition, is_ready};

/// How often a Job lets its pods fail where it does not say.
const BACKOFF_LIMIT: i32 = 6;

/// Judges what was seen.
pub(in crate::gates) fn judge(s: &Snapshot<Job>, job: &Job, clock: &Clock) -> Verdict {
    let title = s.workload.title();
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    let is = |name: &str| find(&status, name).filter(Condition::is_true);
    let pods = Sorted::of(s.owned(job), |_| true);
    if is("Complete").is_some() {
        if s.until == Until::Settled && !pods.terminating.is_empty() {
            let left = names(&pods.terminating, pod::name);
            return Verdict::Closed(format!("completed; {} terminating ({left})", pods.terminating.len()));
        }
        let succeeded = status.succeeded.unwrap_or(0);
        let failed = status.failed.filter(|failed| *failed > 0);
        let failed = failed.map(|failed| format!(", {failed} failed before")).unwrap_or_default();
        return Verdict::Open((), format!("completed: {succeeded} pods succeeded{failed}"));
    }
    if let Some(failed) = is("Failed").or_else(|| is("FailureTarget")) {
        let logs = s.kubectl(&format!("logs {title} --all-pods --tail=50"), "shows what its pods wrote");
        return Verdict::Doomed(format!("{title} has failed: {}{}", failed.why(), last_end(s, job)), logs);
    }
    if spec.suspend == Some(true) {
        let patch = format!(r#"patch {title} --type=merge --patch '{{"spec":{{"suspend":false}}}}'"#);
        return Verdict::Doomed(
            format!("{title} is suspended, so none of its pods runs"),
            s.kubectl(&patch, ""),
        );
    }
    let wanted = spec.completions.map(|completions| format!(" of {completions}")).unwrap_or_default();
    let succeeded = status.succeeded.unwrap_or(0);
    let mut waits_for = format!("{succeeded}{wanted} pods succeeded");
    if let Some(failed) = status.failed.filter(|failed| *failed > 0) {
        let limit = spec.backoff_limit.unwrap_or(BACKOFF_LIMIT);
        waits_for += &format!(", {failed} failed; it gives up after {limit} more than the first");
    }
    let starting = pods.newest.iter().find(|pod| !is_ready(pod));
    match starting {
        Some(pod) => waits_for += &format!("; {}: {}", pod::short(pod), s.state(pod, clock)),
        None if pods.newest.is_empty() => {}
        None => {
            waits_for += &format!("; {} running ({})", pods.newest.len(), names(&pods.newest, pod::short));
        }
    }
    let missing = pods.newest.is_empty();
    let bad = s.worst(job, &s.fleet(&pods.newest, !pods.terminating.is_empty()), missing, clock);
    // It counts crashes itself.
    let bad = bad.map(|mut bad| {
        bad.permanent &= !pods.newest.iter().any(|pod| pod::has_crashed(pod));
        bad
    });
    bad_sign::closed(bad, &waits_for, "")
}

fn find<'s>(status: &'s JobStatus, name: &str) -> Option<Condition<'s>> {
    kubernetes::find::<JobCondition>(status.conditions.as_ref(), name)
}

/// How the last pod that failed ended.
fn last_end(s: &Snapshot<Job>, job: &Job) -> String {
    let pods = s.owned(job);
    let failed = pods
        .into_iter()
        .filter(|pod| pod::is_over(pod))
        .max_by_key(|pod| pod.metadata.creation_timestamp.clone());
    let end = |pod: &Pod| Some(format!("; {}: {}", pod::short(pod), pod::last_ending(pod)?));
    failed.and_then(end).unwrap_or_default()
}
