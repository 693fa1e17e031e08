//! Numbers inside their bounds.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::causes::{Cause, Causes};

pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const POSITIVE: &str = "must be greater than 0";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. \
                       '1%',  or '93%', regex used for validation is '[0-9]+%')";
/// Ids of users and groups.
pub(super) const IDS: RangeInclusive<i64> = 0..=2_147_483_647;

/// Refuses those fields that are there and negative.
pub(super) fn not_negative(object: &Value, path: &str, fields: &[&str], causes: &mut Causes) {
    at_least(0, object, path, fields, NOT_NEGATIVE, causes);
}

/// Refuses those fields that are there and not above 0.
pub(super) fn positive(object: &Value, path: &str, fields: &[&str], causes: &mut Causes) {
    at_least(1, object, path, fields, POSITIVE, causes);
}

/// Refuses those fields that are there and below `least`, in these words.
pub(super) fn at_least(
    least: i64,
    object: &Value,
    path: &str,
    fields: &[&str],
    why: &str,
    causes: &mut Causes,
) {
    for field in fields {
        if object[*field].as_i64().is_some_and(|number| number < least) {
            causes.push(Cause::invalid(format!("{path}.{field}"), &object[*field], why));
        }
    }
}

/// Refuses a number that is there and out of bounds.
pub(super) fn within(
    bounds: &RangeInclusive<i64>,
    number: &Value,
    field: impl Into<String>,
    causes: &mut Causes,
) {
    if number.as_i64().is_some_and(|number| !bounds.contains(&number)) {
        let why = format!("must be between {} and {}, inclusive", bounds.start(), bounds.end());
        causes.push(Cause::invalid(field, number, &why));
    }
}

/// Refuses those fields that are there and no ids of users or groups.
pub(super) fn ids(object: &Value, path: &str, fields: &[&str], causes: &mut Causes) {
    for field in fields {
        within(&IDS, &object[*field], format!("{path}.{field}"), causes);
    }
}

/// A number of pods, or a share of them such as `25%`.
pub(super) fn count_or_percent(value: &Value, field: &str, causes: &mut Causes) {
    match value {
        Value::String(text) if percent(text).is_none() => causes.push(Cause::invalid(field, value, PERCENT)),
        value if value.as_i64().is_some_and(|count| count < 0) => {
            causes.push(Cause::invalid(field, value, NOT_NEGATIVE));
        }
        _ => {}
    }
}

/// Refuses a share that is more than the whole.
pub(super) fn at_most_the_whole(value: &Value, field: &str, causes: &mut Causes) {
    if value.as_str().and_then(percent).is_some_and(|percent| percent > 100) {
        causes.push(Cause::invalid(field, value, "must not be greater than 100%"));
    }
}

/// Whether a number of pods, or a share of them, is none. What is no number counts as none, as in Kubernetes.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => percent(text).or_else(|| text.parse().ok()).unwrap_or(0) == 0,
        value => value.as_i64() == Some(0),
    }
}

/// The number before the sign; the largest there is for what is larger still.
fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%').filter(|digits| !digits.is_empty())?;
    digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().unwrap_or(u64::MAX))
}
