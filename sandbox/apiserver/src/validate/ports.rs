//! Ports, by number and by name.

use serde_json::Value;

use crate::causes::{Cause, Causes};

const RANGE: &str = "must be between 1 and 65535, inclusive";

/// A port that is given as a number.
pub(super) fn number(port: &Value, field: impl Into<String>, causes: &mut Causes) {
    if !(1..=65_535).contains(&port.as_i64().unwrap_or(0)) {
        causes.push(Cause::invalid(field, port, RANGE));
    }
}

/// The port of a service that the API server calls, where one is named.
pub(super) fn of_service(service: &Value, path: &str, causes: &mut Causes) {
    let port = &service["port"];
    if port.as_i64().is_some_and(|port| !(1..=65_535).contains(&port)) {
        causes.push(Cause::invalid(format!("{path}.port"), port, &format!("port is not valid: {RANGE}")));
    }
}

/// A port by number or by name.
pub(super) fn reference(port: &Value, field: String, causes: &mut Causes) {
    match port {
        Value::String(name) => {
            causes.extend(name_problems(name).iter().map(|why| Cause::invalid(field.as_str(), port, why)));
        }
        port => number(port, field, causes),
    }
}

/// What is wrong with the name of a port (RFC 6335).
pub(super) fn name_problems(name: &str) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters");
    }
    if !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|c| c.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen");
    }
    problems
}
