//! Label and field selectors of lists and watches.

use std::collections::BTreeMap;

use serde_json::Value;

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
}

impl Selector {
    /// From the query parameters `labelSelector` and `fieldSelector`.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Selector, ApiError> {
        let labels = split_terms(labels)
            .into_iter()
            .map(|term| {
                label_term(&term).ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "unable to parse requirement: found '{term}', expected: a label requirement"
                    ))
                })
            })
            .collect::<Result<_, _>>()?;
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
                Ok((path.trim().to_owned(), wanted, value.trim().to_owned()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Selector { labels, fields })
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
        match self {
            LabelTerm::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            LabelTerm::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            LabelTerm::Exists(key) => get(key).is_some(),
            LabelTerm::Missing(key) => get(key).is_none(),
        }
    }
}

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut depth = 0_i32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = terms.last_mut() {
            last.push(c);
        }
    }
    terms.into_iter().map(|term| term.trim().to_owned()).filter(|term| !term.is_empty()).collect()
}

fn label_term(term: &str) -> Option<LabelTerm> {
    let one = |key: &str, value: &str| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    if let Some((head, list)) = term.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let values = list.split(',').map(|v| v.trim().to_owned()).collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        let key = key.trim().to_owned();
        return match operator {
            "in" => Some(LabelTerm::In(key, values)),
            "notin" => Some(LabelTerm::NotIn(key, values)),
            _ => None,
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        let (key, values) = one(key, value);
        return Some(LabelTerm::NotIn(key, values));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        let (key, values) = one(key, value);
        return Some(LabelTerm::In(key, values));
    }
    if let Some(key) = term.strip_prefix('!') {
        return Some(LabelTerm::Missing(key.trim().to_owned()));
    }
    (!term.contains(char::is_whitespace)).then(|| LabelTerm::Exists(term.to_owned()))
}

/// The value of a field path as selectors compare it; absent is empty.
fn field(object: &Value, path: &str) -> String {
    let found = match path {
        // Core events name the source in two places.
        "reportingComponent" if object["reportingComponent"].as_str().unwrap_or_default().is_empty() => {
            &object["source"]["component"]
        }
        "source" => &object["source"]["component"],
        _ => path.split('.').fold(object, |value, part| &value[part]),
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
