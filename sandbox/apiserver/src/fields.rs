//! Sets of fields, as `fieldsV1` in managedFields writes them. They are trees, so that a set is about as large as the
//! object whose fields it names.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Which places of an object belong together: what a manager owns, say. A step leads from a place to one below it: to a
/// field, `f:spec`, to the item of a list with this key, `k:{"name":"x"}`, or to this value in a set, `v:"value"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// Is this place itself one of them?
    here: bool,
    /// Those below. No step leads to an empty set.
    below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// This place alone.
    pub(crate) fn here() -> FieldSet {
        FieldSet { here: true, ..FieldSet::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    pub(crate) fn has_here(&self) -> bool {
        self.here
    }

    /// Adds this place.
    pub(crate) fn add_here(&mut self) {
        self.here = true;
    }

    /// Adds a set that begins below this place.
    pub(crate) fn add_below(&mut self, step: String, set: FieldSet) {
        if !set.is_empty() {
            self.below.entry(step).or_default().add(set);
        }
    }

    /// The part below one step.
    pub(crate) fn at(&self, step: &str) -> Option<&FieldSet> {
        self.below.get(step)
    }

    /// Adds what the other has.
    pub(crate) fn add(&mut self, other: FieldSet) {
        self.here |= other.here;
        for (step, set) in other.below {
            self.below.entry(step).or_default().add(set);
        }
    }

    /// Takes away what the other has; not what is below that.
    pub(crate) fn subtract(&mut self, other: &FieldSet) {
        self.here &= !other.here;
        self.below.retain(|step, set| {
            if let Some(other) = other.below.get(step) {
                set.subtract(other);
            }
            !set.is_empty()
        });
    }

    /// What both have.
    pub(crate) fn common(&self, other: &FieldSet) -> FieldSet {
        let mut common = FieldSet { here: self.here && other.here, ..FieldSet::default() };
        for (step, set) in &self.below {
            if let Some(other) = other.below.get(step) {
                common.add_below(step.clone(), set.common(other));
            }
        }
        common
    }

    /// With every field that others of the set are in: whoever sets a field sets the struct that it is of.
    pub(crate) fn with_parents(&self) -> FieldSet {
        let below = self.below.iter().map(|(step, set)| {
            let mut set = set.with_parents();
            set.here |= step.starts_with("f:");
            (step.clone(), set)
        });
        FieldSet { here: self.here, below: below.collect() }
    }

    /// As `fieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        let below = self.below.iter().map(|(step, set)| (step.clone(), set.to_json()));
        let mut fields: Map<String, Value> = below.collect();
        // A place without others below is `{}`, not `{".":{}}`.
        if self.here && !fields.is_empty() {
            fields.insert(".".to_owned(), json!({}));
        }
        Value::Object(fields)
    }

    /// From `fieldsV1`.
    pub(crate) fn from_json(value: &Value) -> FieldSet {
        let Some(fields) = value.as_object() else { return FieldSet::default() };
        let mut set = FieldSet::default();
        for (step, below) in fields.iter().filter(|(step, _)| *step != ".") {
            let mut below = FieldSet::from_json(below);
            below.here |= below.below.is_empty();
            set.add_below(canonical(step), below);
        }
        set.here = fields.contains_key(".");
        set
    }

    /// The places as errors show them: `.spec.template.spec.containers[name="app"].image`.
    pub(crate) fn show(&self) -> Vec<String> {
        let mut shown = Vec::new();
        self.show_below(&mut String::new(), &mut shown);
        shown
    }

    fn show_below(&self, at: &mut String, shown: &mut Vec<String>) {
        if self.here && !at.is_empty() {
            shown.push(at.clone());
        }
        let length = at.len();
        for (step, set) in &self.below {
            at.push_str(&show_step(step));
            set.show_below(at, shown);
            at.truncate(length);
        }
    }
}

/// A step whose key or value is written as this server writes it, whoever wrote it.
fn canonical(step: &str) -> String {
    match step.split_at_checked(2) {
        Some((prefix @ ("k:" | "v:"), text)) => match serde_json::from_str::<Value>(text) {
            Ok(value) => format!("{prefix}{value}"),
            Err(_) => step.to_owned(),
        },
        _ => step.to_owned(),
    }
}

/// A step as errors show it: `.spec`, `[name="app"]`, `[="value"]`.
pub(crate) fn show_step(step: &str) -> String {
    match step.split_at_checked(2) {
        Some(("f:", field)) => format!(".{field}"),
        Some(("k:", key)) => {
            let keys: Value = serde_json::from_str(key).unwrap_or_default();
            let shown: Vec<String> = keys
                .as_object()
                .into_iter()
                .flatten()
                .map(|(field, value)| format!("{field}={value}"))
                .collect();
            format!("[{}]", shown.join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        _ => String::new(),
    }
}
