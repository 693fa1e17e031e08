//! Label and field selectors of lists and watches.

mod labels;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kind::Kind;
use crate::status::ApiError;

/// Which objects a list or watch is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<LabelTerm>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Debug, Clone, PartialEq)]
enum LabelTerm {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
    Above(String, i64),
    Below(String, i64),
}

impl Selector {
    /// From the query parameters `labelSelector` and `fieldSelector`.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Selector, ApiError> {
        let labels = labels::parse(labels).map_err(ApiError::bad_request)?;
        let fields = fields
            .split(',')
            .filter(|term| !term.is_empty())
            .map(|term| {
                let (path, wanted, value) = if let Some((path, value)) = term.split_once("!=") {
                    (path, false, value)
                } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                    (path, true, value)
                } else {
                    let why = format!("invalid selector: '{term}'; can't understand '{term}'");
                    return Err(ApiError::bad_request(why));
                };
                check_field(kind, path.trim())?;
                Ok((path.trim().to_owned(), wanted, value.trim().to_owned()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Selector { labels, fields })
    }

    /// Takes every object.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Only the object of this name.
    pub(crate) fn named(mut self, name: &str) -> Selector {
        self.fields.push(("metadata.name".to_owned(), true, name.to_owned()));
        self
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|term| term.matches(labels))
            && self.fields.iter().all(|(path, wanted, value)| (field(object, path) == *value) == *wanted)
    }
}

impl LabelTerm {
    fn matches(&self, labels: &Value) -> bool {
        let get = |key: &str| labels.get(key).and_then(Value::as_str);
        let number = |key: &str| get(key).and_then(|text| text.parse::<i64>().ok());
        match self {
            LabelTerm::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            LabelTerm::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            LabelTerm::Exists(key) => get(key).is_some(),
            LabelTerm::Missing(key) => get(key).is_none(),
            LabelTerm::Above(key, bound) => number(key).is_some_and(|number| number > *bound),
            LabelTerm::Below(key, bound) => number(key).is_some_and(|number| number < *bound),
        }
    }
}

/// Refuses a field that Kubernetes has no selector for. Source: the field label conversions in `pkg/apis/*/v1`.
fn check_field(kind: &Kind, path: &str) -> Result<(), ApiError> {
    let own = kind.does.selectable;
    if ["metadata.name", "metadata.namespace"].contains(&path) || own.contains(&path) {
        return Ok(());
    }
    Err(ApiError::bad_request(if own.is_empty() {
        format!("\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {path}")
    }))
}

/// The value of a field path as selectors compare it; absent is empty.
fn field(object: &Value, path: &str) -> String {
    let found = match path {
        // Core events name the source in two places.
        "reportingComponent" if object["reportingComponent"].as_str().unwrap_or_default().is_empty() => {
            &object["source"]["component"]
        }
        "source" => &object["source"]["component"],
        "reportingController" => &object["reportingComponent"],
        // Events are stored as the core group has them.
        _ => path
            .replacen("regarding.", "involvedObject.", 1)
            .split('.')
            .fold(object, |value, part| &value[part]),
    };
    match found {
        Value::String(text) => text.clone(),
        Value::Null if path == "spec.unschedulable" => "false".to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Does a `matchLabels`/`matchExpressions` selector take these labels? An absent or empty one takes all.
pub(crate) fn label_selector_matches(selector: &Value, labels: &Value) -> bool {
    let empty = serde_json::Map::new();
    let exact = selector["matchLabels"].as_object().unwrap_or(&empty);
    let wanted: BTreeMap<_, _> = exact.iter().collect();
    let expressions = selector["matchExpressions"].as_array().map_or(&[][..], Vec::as_slice);
    wanted.iter().all(|(key, value)| labels.get(key.as_str()) == Some(value))
        && expressions.iter().all(|expression| {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values = expression["values"]
                .as_array()
                .map(|values| values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default();
            match expression["operator"].as_str() {
                Some("In") => LabelTerm::In(key, values).matches(labels),
                Some("NotIn") => LabelTerm::NotIn(key, values).matches(labels),
                Some("Exists") => LabelTerm::Exists(key).matches(labels),
                Some("DoesNotExist") => LabelTerm::Missing(key).matches(labels),
                _ => false,
            }
        })
}

/// `a=b,c in (d,e),!f`: a label selector, or a map of labels, in the grammar that lists are asked with, by key.
pub(crate) fn label_selector_text(selector: &Value) -> String {
    let exact = selector.get("matchLabels").unwrap_or(selector).as_object();
    let mut terms: Vec<(&str, String)> = exact
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), format!("{key}={}", value.as_str()?))))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"].as_array().into_iter().flatten();
        let mut values: Vec<&str> = values.filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key.to_owned(),
            _ => format!("!{key}"),
        };
        terms.push((key, term));
    }
    terms.sort_by_key(|(key, _)| *key);
    terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(",")
}
