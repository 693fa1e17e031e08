//! How fast the autoscaler may change a size: stabilisation windows and rate policies.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// How long anything is remembered: the longest window that the API allows.
const MEMORY: Duration = Duration::from_secs(3600);

/// What an autoscaler remembers of its own doing. Lost with the process, as in Kubernetes.
#[derive(Default)]
pub(super) struct History {
    recommendations: VecDeque<(Timestamp, i32)>,
    /// Changes of the size, down ones negative.
    changes: VecDeque<(Timestamp, i32)>,
}

/// A size, and what kept it from being another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) replicas: i32,
    /// Reason and message of the condition.
    pub(super) why: Option<(&'static str, &'static str)>,
}

/// Bounds of the size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: i32,
    pub(super) max: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl History {
    /// Notes that the size was changed.
    pub(super) fn changed(&mut self, by: i32, now: Timestamp) {
        self.changes.push_back((now, by));
    }

    /// Holds a recommendation back as long as another was nearer to the current size within the window.
    pub(super) fn stabilize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        current: i32,
        desired: i32,
        now: Timestamp,
    ) -> Limited {
        forget(&mut self.recommendations, now);
        if self.recommendations.is_empty() {
            // What was before us counts too: no shrinking at once after a start.
            self.recommendations.push_back((now, current));
        }
        let within = |direction| {
            let window = window(rules(behavior, direction), direction);
            let recent = self.recommendations.iter().filter(move |(at, _)| age(*at, now) < window);
            recent.map(|(_, replicas)| *replicas)
        };
        let least = within(Direction::Up).chain([desired]).min().unwrap_or(desired);
        let most = within(Direction::Down).chain([desired]).max().unwrap_or(desired);
        self.recommendations.push_back((now, desired));
        let replicas = current.max(least).min(most);
        let why = if replicas == desired {
            None
        } else if replicas > desired {
            Some((
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent \
                 recommendation",
            ))
        } else {
            Some((
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent \
                 recommendation",
            ))
        };
        Limited { replicas, why }
    }

    /// Keeps the change within the policies and the size within its bounds.
    pub(super) fn limit(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        bounds: Bounds,
        current: i32,
        desired: i32,
        now: Timestamp,
    ) -> Limited {
        forget(&mut self.changes, now);
        if desired > current {
            let reach = self.reach(behavior, Direction::Up, current, now).max(current);
            if desired > bounds.max.min(reach) {
                let why = if reach < bounds.max {
                    (
                        "ScaleUpLimit",
                        "the desired replica count is increasing faster than the maximum scale rate",
                    )
                } else {
                    ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
                };
                return Limited { replicas: bounds.max.min(reach), why: Some(why) };
            }
        } else if desired < current {
            let reach = self.reach(behavior, Direction::Down, current, now).min(current);
            if desired < bounds.min.max(reach) {
                let why = if reach > bounds.min {
                    (
                        "ScaleDownLimit",
                        "the desired replica count is decreasing faster than the maximum scale rate",
                    )
                } else {
                    ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
                };
                return Limited { replicas: bounds.min.max(reach), why: Some(why) };
            }
        }
        if desired > bounds.max {
            let why = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
            return Limited { replicas: bounds.max, why: Some(why) };
        }
        if desired < bounds.min {
            let why = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
            return Limited { replicas: bounds.min, why: Some(why) };
        }
        Limited { replicas: desired, why: None }
    }

    /// How far the policies let the size go now.
    fn reach(
        &self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        direction: Direction,
        current: i32,
        now: Timestamp,
    ) -> i32 {
        let rules = rules(behavior, direction);
        let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let policies = rules.and_then(|rules| rules.policies.clone()).filter(|policies| !policies.is_empty());
        let reaches = policies.unwrap_or_else(|| default_policies(direction)).into_iter().map(|policy| {
            let period = Duration::from_secs(u64::try_from(policy.period_seconds).unwrap_or_default());
            let recent = self.changes.iter().filter(|(at, _)| age(*at, now) < period);
            let start = recent.fold(current, |start, (_, by)| start.saturating_sub(*by));
            reach(&policy, direction, start)
        });
        // The greatest change is the highest size on the way up, and the lowest on the way down.
        match (direction, select) {
            (Direction::Up, "Min") | (Direction::Down, "Max") => reaches.min(),
            _ => reaches.max(),
        }
        .unwrap_or(current)
    }
}

fn reach(policy: &HPAScalingPolicy, direction: Direction, start: i32) -> i32 {
    let (start, value) = (i64::from(start), i64::from(policy.value));
    let reach = match (policy.type_.as_str(), direction) {
        ("Percent", Direction::Up) => (start * (100 + value) + 99) / 100,
        ("Percent", Direction::Down) => start * (100 - value) / 100,
        (_, Direction::Up) => start + value,
        (_, Direction::Down) => start - value,
    };
    i32::try_from(reach).unwrap_or(i32::MAX).max(0)
}

fn rules(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    direction: Direction,
) -> Option<&HPAScalingRules> {
    match direction {
        Direction::Up => behavior?.scale_up.as_ref(),
        Direction::Down => behavior?.scale_down.as_ref(),
    }
}

fn window(rules: Option<&HPAScalingRules>, direction: Direction) -> Duration {
    let default = match direction {
        Direction::Up => 0,
        Direction::Down => 300,
    };
    let seconds = rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(default);
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Kubernetes' defaults for `behavior`.
fn default_policies(direction: Direction) -> Vec<HPAScalingPolicy> {
    let policy = |type_: &str, value| HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 };
    match direction {
        Direction::Up => vec![policy("Pods", 4), policy("Percent", 100)],
        Direction::Down => vec![policy("Percent", 100)],
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

fn forget(entries: &mut VecDeque<(Timestamp, i32)>, now: Timestamp) {
    while entries.front().is_some_and(|(at, _)| age(*at, now) > MEMORY) {
        entries.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 3, max: 10 };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("time")
    }

    #[test]
    fn shrinks_only_when_the_whole_window_agrees() {
        let mut history = History::default();
        assert_eq!(history.stabilize(None, 8, 8, at(0)).replicas, 8);
        let held = history.stabilize(None, 8, 3, at(10));
        assert_eq!((held.replicas, held.why.map(|why| why.0)), (8, Some("ScaleDownStabilized")));
        assert_eq!(history.stabilize(None, 8, 4, at(305)).replicas, 4);
    }

    #[test]
    fn grows_at_once_but_no_faster_than_the_policies() {
        let mut history = History::default();
        assert_eq!(history.stabilize(None, 3, 9, at(0)).replicas, 9);
        let first = history.limit(None, BOUNDS, 3, 9, at(0));
        assert_eq!((first.replicas, first.why.map(|why| why.0)), (7, Some("ScaleUpLimit")));
        history.changed(4, at(0));
        assert_eq!(history.limit(None, BOUNDS, 7, 9, at(5)).replicas, 7);
        assert_eq!(history.limit(None, BOUNDS, 7, 9, at(16)).replicas, 9);
    }

    #[test]
    fn stays_within_the_bounds() {
        let mut history = History::default();
        assert_eq!(history.limit(None, BOUNDS, 8, 40, at(0)).why.map(|why| why.0), Some("TooManyReplicas"));
        assert_eq!(history.limit(None, BOUNDS, 3, 1, at(0)).why.map(|why| why.0), Some("TooFewReplicas"));
        assert_eq!(history.limit(None, BOUNDS, 4, 5, at(0)), Limited { replicas: 5, why: None });
    }

    #[test]
    fn policies_of_the_manifest_hold() {
        let behavior: HorizontalPodAutoscalerBehavior = serde_json::from_value(serde_json::json!({
            "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1,
            "periodSeconds": 60}]},
        }))
        .expect("behavior");
        let mut history = History::default();
        assert_eq!(history.limit(Some(&behavior), BOUNDS, 3, 10, at(0)).replicas, 5);
        assert_eq!(history.limit(Some(&behavior), BOUNDS, 9, 3, at(0)).replicas, 8);
    }
}
