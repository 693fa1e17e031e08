//! Where in an object the value stands that its type does not take.

use std::fmt;

use serde_json::{Value, json};

use super::yaml;

/// The way to a value.
#[derive(Debug, Default)]
pub(super) struct Way<'v>(Vec<Step<'v>>);

#[derive(Clone, Copy, Debug)]
enum Step<'v> {
    Field(&'v str),
    Item(usize),
}

/// The way to the first value that keeps the whole from being read. Reading itself does not tell, and to have it tell
/// would compile every type once more: so each part is tried alone. The API's types take any field to be missing, but
/// for a few that no manifest has.
pub(super) fn misfit<'v>(whole: &'v Value, reads: &dyn Fn(Value) -> bool) -> Way<'v> {
    let mut way = Way::default();
    let mut at = whole;
    loop {
        let (empty, parts): (Value, Vec<(Step<'v>, &'v Value)>) = match at {
            Value::Object(fields) => {
                (json!({}), fields.iter().map(|(name, value)| (Step::Field(name), value)).collect())
            }
            Value::Array(items) => (
                json!([]),
                items.iter().enumerate().map(|(index, value)| (Step::Item(index), value)).collect(),
            ),
            _ => return way,
        };
        // It is itself what does not fit, whatever it holds.
        if !reads(way.alone(empty)) {
            return way;
        }
        let wrong = parts.into_iter().find(|(step, value)| {
            way.0.push(*step);
            let is_wrong = !reads(way.alone((*value).clone()));
            if !is_wrong {
                way.0.pop();
            }
            is_wrong
        });
        match wrong {
            Some((_, value)) => at = value,
            None => return way,
        }
    }
}

impl Way<'_> {
    /// As a JSON pointer.
    pub(super) fn pointer(&self) -> String {
        let step = |step: &Step<'_>| match step {
            Step::Field(name) => format!("/{}", yaml::escape(name)),
            Step::Item(index) => format!("/{index}"),
        };
        self.0.iter().map(step).collect()
    }

    /// A value where the way leads to, and nothing beside it.
    fn alone(&self, value: Value) -> Value {
        self.0.iter().rev().fold(value, |inner, step| match step {
            Step::Field(name) => json!({ *name: inner }),
            Step::Item(_) => json!([inner]),
        })
    }
}

/// As the API server writes it: `spec.containers[0].image`.
impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if index == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    #[test]
    fn the_way_ends_at_what_does_not_fit() {
        let container =
            |container: Value| json!({"spec": {"template": {"spec": {"containers": [{}, container]}}}});
        for (object, wanted) in [
            (json!({"spec": {"replicas": "3"}}), "spec.replicas"),
            (json!({"spec": {"paused": true, "replicas": 1.5, "template": 3}}), "spec.replicas"),
            (json!({"spec": []}), "spec"),
            (json!("Deployment"), ""),
            (
                json!({"metadata": {"labels": {"app.kubernetes.io/name": 1}}}),
                "metadata.labels.app.kubernetes.io/name",
            ),
            (container(json!({"ports": {"containerPort": 80}})), "spec.template.spec.containers[1].ports"),
            (
                container(json!({"ports": [{"containerPort": 80}, {"containerPort": "http"}]})),
                "spec.template.spec.containers[1].ports[1].containerPort",
            ),
            (
                container(json!({"env": [{"name": "A", "value": 1}, {"value": 2}]})),
                "spec.template.spec.containers[1].env[0].value",
            ),
            (container(json!({"command": ["a", 1]})), "spec.template.spec.containers[1].command[1]"),
            (container(json!(["a"])), "spec.template.spec.containers[1]"),
        ] {
            let reads = |part| serde_json::from_value::<Deployment>(part).is_ok();
            assert!(!reads(object.clone()), "{object}");
            let way = misfit(&object, &reads);
            assert_eq!(way.to_string(), wanted);
            assert!(object.pointer(&way.pointer()).is_some(), "{}", way.pointer());
        }
    }
}
