//! The autoscaler's conditions.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Conditions that keep their transition time while the status stays.
pub(super) struct Conditions(Vec<HorizontalPodAutoscalerCondition>);

impl Conditions {
    pub(super) fn new(old: Vec<HorizontalPodAutoscalerCondition>) -> Self {
        Self(old)
    }

    pub(super) fn set(
        &mut self,
        type_: &str,
        status: &str,
        reason: &str,
        message: impl Into<String>,
        now: Timestamp,
    ) {
        let index = self.0.iter().position(|condition| condition.type_ == type_).unwrap_or_else(|| {
            self.0.push(HorizontalPodAutoscalerCondition { type_: type_.to_owned(), ..Default::default() });
            self.0.len() - 1
        });
        let condition = &mut self.0[index];
        if condition.status != status {
            status.clone_into(&mut condition.status);
            condition.last_transition_time = Some(Time(now));
        }
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
    }

    /// Since when it has been false, where it is.
    pub(super) fn false_since(&self, type_: &str) -> Option<Timestamp> {
        let condition =
            self.0.iter().find(|condition| condition.type_ == type_ && condition.status == "False")?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    }

    pub(super) fn take(&mut self) -> Vec<HorizontalPodAutoscalerCondition> {
        std::mem::take(&mut self.0)
    }
}
