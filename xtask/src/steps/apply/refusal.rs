//! What the API server refuses, in one line a fault: file and line, field, reason; and how to fix it.

use kube::Client;
use kube::core::Status;
use serde_json::Value;

use super::fields;
use crate::commands::Commands;
use crate::failure::Attach as _;
use crate::kubernetes::one_line;
use crate::manifests::{Object, requoted};

/// A fault of a manifest: the field, as a path, where one is named; and what is wrong with it.
#[derive(Debug, PartialEq)]
struct Fault {
    field: String,
    reason: String,
}

/// The API server's refusal of an object.
pub(super) async fn refusal(
    client: &Client,
    object: &Object,
    status: &Status,
    namespace: &str,
    commands: &Commands,
) -> anyhow::Error {
    let faults: Vec<Fault> = faults(status).into_iter().map(|fault| inside(object, fault)).collect();
    let lines: Vec<String> = faults
        .iter()
        .map(|Fault { field, reason }| {
            let place = object.place_of(&pointer(&object.value, field));
            let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
            format!("{place}: {}: {field}{reason}", object.title())
        })
        .collect();
    let known = match faults.iter().any(|fault| fault.reason == UNKNOWN) {
        true => fields::document(client, object).await,
        false => None,
    };
    let cure = faults.iter().find_map(|fault| cure(object, fault, known.as_ref(), namespace, commands));
    let cure = cure.unwrap_or_else(|| "fix the manifest and run again".to_owned());
    anyhow::anyhow!("{}", lines.join("\n")).hint(cure)
}

fn faults(status: &Status) -> Vec<Fault> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let named: Vec<Fault> = causes
        .filter(|cause| !cause.field.is_empty())
        .map(|cause| Fault { field: cause.field.clone(), reason: without_value(&cause.message) })
        .collect();
    if !named.is_empty() {
        return named;
    }
    let undeclared: Vec<Fault> = undeclared(&status.message).map(unknown).collect();
    if !undeclared.is_empty() {
        return undeclared;
    }
    let typed = wrong_type(&status.message);
    vec![typed.unwrap_or_else(|| Fault { field: String::new(), reason: one_line(&status.message) })]
}

/// A server that decodes says of a whole mapping of strings that it must be a string: meant is the value that is none.
fn inside(object: &Object, fault: Fault) -> Fault {
    let fields = object.value.pointer(&pointer(&object.value, &fault.field)).and_then(Value::as_object);
    let wrong = fields.and_then(|fields| fields.iter().find(|(_, value)| !value.is_string()));
    match wrong {
        Some((name, _)) if fault.reason.starts_with("must be a string") => {
            Fault { field: format!("{}.{name}", fault.field), ..fault }
        }
        _ => fault,
    }
}

fn unknown(field: &str) -> Fault {
    Fault { field: field.trim_start_matches('.').to_owned(), reason: UNKNOWN.to_owned() }
}

const UNKNOWN: &str = "unknown field";

/// What servers say of a field that can be set only while the object is made.
const FIXED: [&str; 4] =
    ["immutable", "may not change once set", "cannot change roleRef", "updates to statefulset spec"];

/// The fields that the API does not know: `.spec.x: field not declared in schema`, or `unknown field "spec.x"`.
fn undeclared(message: &str) -> impl Iterator<Item = &str> {
    let typed = message.lines().filter_map(|line| {
        let (before, _) = line.split_once(": field not declared in schema")?;
        Some(before.rsplit(": ").next().unwrap_or(before).trim())
    });
    let strict = message.split("unknown field \"").skip(1).filter_map(|rest| rest.split_once('"'));
    typed.chain(strict.map(|(field, _)| field))
}

/// A value of the wrong type, as a typed patch says it: `(name; v1, Kind=X): .spec.port: expected numeric, got string`.
fn wrong_type(message: &str) -> Option<Fault> {
    if let Some((_, rest)) = message.split_once("cannot unmarshal ") {
        let (what, rest) = rest.split_once(" into Go struct field ")?;
        let (field, wanted) = rest.split_once(" of type ")?;
        let field = field.split_once('.').map_or(field, |(_, field)| field);
        let wanted = wanted.split([',', ' ', '"']).next().unwrap_or(wanted);
        return Some(Fault {
            field: field.to_owned(),
            reason: format!("must be {}, not {what}", plain(wanted)),
        });
    }
    let (before, reason) = message.split_once(": expected ")?;
    let field = before.rsplit(": ").next()?.trim();
    let got = reason.split_once(", got ").map_or((reason, ""), |(wanted, got)| (wanted, got));
    let got_plain = got.1.split(['(', '{']).next().unwrap_or_default().trim_start_matches("&value.");
    let got_plain = if got_plain.is_empty() { String::new() } else { format!(", not {got_plain}") };
    field.starts_with('.').then(|| Fault {
        field: field.trim_start_matches('.').to_owned(),
        reason: one_line(&format!("must be {}{got_plain}", got.0)),
    })
}

/// A type of Go's in plain words.
fn plain(type_name: &str) -> &str {
    match type_name {
        "int32" | "int64" | "int" | "intstr.Int32OrString" => "a whole number",
        "bool" => "true or false",
        "string" => "a string",
        other => other,
    }
}

/// A cause's message without the value, where that is a whole object.
fn without_value(message: &str) -> String {
    let message = one_line(message);
    let is_object = message.starts_with("Invalid value: {") || message.starts_with("Invalid value: map[");
    match message.rsplit_once(": ") {
        Some((_, reason)) if is_object => reason.to_owned(),
        _ => message,
    }
}

/// `known` describes the object's kind, where a field of it is not known.
fn cure(
    object: &Object,
    fault: &Fault,
    known: Option<&Value>,
    namespace: &str,
    commands: &Commands,
) -> Option<String> {
    let Fault { field, reason } = fault;
    if reason == UNKNOWN {
        let (around, name) = split(field);
        let around_it = pointer(&object.value, around);
        let near = known.and_then(|known| fields::nearest(known, object, &around_it, name));
        return Some(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let explain = commands.kubectl(&format!("explain {}", explained(object, around)));
                format!("`{explain}` lists the fields that are there")
            }
        });
    }
    if FIXED.iter().any(|words| reason.contains(words)) {
        let delete = commands.kubectl(&format!("-n {namespace} delete {}", object.title()));
        return Some(match object.kind.as_str() {
            "ConfigMap" | "Secret" => {
                format!("give it a new name, and name that where it is used; or delete it first: {delete}")
            }
            _ => format!(
                "it is set once, when the object is made: `{delete}` or `{}` first, then run again",
                commands.xtask("down")
            ),
        });
    }
    requoted(object.value.pointer(&pointer(&object.value, field))?, reason)
}

/// A field as `kubectl explain` takes it: without what tells the items of a list apart.
fn explained(object: &Object, field: &str) -> String {
    let kind = object.kind.to_lowercase();
    let names = field.split(['[', '.']).filter(|part| !part.is_empty() && !part.ends_with(']'));
    std::iter::once(kind.as_str()).chain(names).collect::<Vec<_>>().join(".")
}

/// A field's path: what is around it, and its name.
fn split(field: &str) -> (&str, &str) {
    field.rsplit_once('.').unwrap_or(("", field))
}

/// The JSON pointer of a path as the API writes it: `spec.ports[0].port`, `spec.containers[name="a"].image`,
/// `metadata.labels[app.kubernetes.io/name]`. A part that is not there is pointed at all the same.
fn pointer(value: &Value, path: &str) -> String {
    let mut pointer = String::new();
    let mut at = value;
    let mut rest = path.trim_start_matches('.');
    while !rest.is_empty() {
        let (key, after) = match rest.strip_prefix('[') {
            Some(inside) => {
                let (inside, after) = inside.split_once(']').unwrap_or((inside, ""));
                (item(at, inside), after)
            }
            None => field(at, rest),
        };
        pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        at = value.pointer(&pointer).unwrap_or(&Value::Null);
        rest = after.trim_start_matches('.');
    }
    pointer
}

/// The longest field that `rest` begins with, since names may have dots in them; and what follows.
fn field<'r>(at: &Value, rest: &'r str) -> (String, &'r str) {
    // A path without indices goes through a list at its first item that has the field.
    if let Value::Array(items) = at {
        let first =
            items.iter().position(|item| !matches!(field(item, rest), (key, _) if item.get(&key).is_none()));
        return (first.unwrap_or(0).to_string(), rest);
    }
    let fields = at.as_object().into_iter().flat_map(serde_json::Map::keys);
    let begins = |key: &&String| {
        rest.strip_prefix(key.as_str()).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
    };
    match fields.filter(begins).max_by_key(|key| key.len()) {
        Some(key) => (key.clone(), &rest[key.len()..]),
        None => {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        }
    }
}

/// What stands in brackets: an index, the keys of an item, or a field's name.
fn item(at: &Value, inside: &str) -> String {
    let Value::Array(items) = at else { return inside.trim_matches('"').to_owned() };
    if inside.parse::<usize>().is_ok() {
        return inside.to_owned();
    }
    let keys: Vec<(&str, &str)> = inside.split(',').filter_map(|key| key.split_once('=')).collect();
    let fits = |item: &Value| {
        keys.iter().all(|(key, wanted)| match item.get(key) {
            Some(Value::String(text)) => text == wanted.trim_matches('"'),
            Some(other) => wanted.parse().is_ok_and(|wanted: Value| wanted == *other),
            // What is not written has a default, such as a port's protocol.
            None => true,
        })
    };
    items.iter().position(fits).unwrap_or(0).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults_of(message: &str) -> Vec<(String, String)> {
        let status = Status { message: message.to_owned(), ..Status::default() };
        faults(&status).into_iter().map(|fault| (fault.field, fault.reason)).collect()
    }

    #[test]
    fn each_way_in_which_a_server_says_it_is_understood() {
        for (message, field, reason) in [
            (
                "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): \
                 .spec.template.spec.graceSecond: field not declared in schema",
                "spec.template.spec.graceSecond",
                "unknown field",
            ),
            (
                r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.template.spec.graceSecond""#,
                "spec.template.spec.graceSecond",
                "unknown field",
            ),
            (
                "failed to create typed patch object (default/web; /v1, Kind=Service): .spec.ports[0].port: \
                 expected numeric (int or float), got string",
                "spec.ports[0].port",
                "must be numeric (int or float), not string",
            ),
            (
                r#"Service in version "v1" cannot be handled as a Service: json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32"#,
                "spec.ports.port",
                "must be a whole number, not string",
            ),
            (
                "admission webhook \"x\" denied the request:\n host is taken",
                "",
                "admission webhook \"x\" denied the request: host is taken",
            ),
        ] {
            assert_eq!(faults_of(message), [(field.to_owned(), reason.to_owned())], "{message}");
        }
    }

    #[test]
    fn a_path_leads_to_its_field() {
        let value = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "a"}},
            "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 80}]}],
            "ports": [{"port": "1"}]},
        });
        for (path, wanted) in [
            ("spec.containers[1].name", "/spec/containers/1/name"),
            (
                r#".spec.containers[name="b"].ports[containerPort=80,protocol="TCP"].hostPort"#,
                "/spec/containers/1/ports/0/hostPort",
            ),
            ("metadata.labels.app.kubernetes.io/name", "/metadata/labels/app.kubernetes.io~1name"),
            ("metadata.labels[app.kubernetes.io/name]", "/metadata/labels/app.kubernetes.io~1name"),
            ("spec.ports.port", "/spec/ports/0/port"),
            ("spec.nothing.deeper", "/spec/nothing/deeper"),
            ("", ""),
            ("spec.ports[", "/spec/ports/0"),
        ] {
            assert_eq!(pointer(&value, path), wanted, "{path}");
        }
    }
}
