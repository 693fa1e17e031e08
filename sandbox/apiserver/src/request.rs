//! What a request asks for: its path, query and headers, parsed once.

use std::collections::HashMap;
use std::num::{IntErrorKind, ParseIntError};

use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::causes::Cause;
use crate::kind::Kind;
use crate::kinds;
use crate::selectors::Selector;
use crate::status::ApiError;

/// The resource that a path names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    /// Empty for cluster-scoped kinds and for lists over all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Target {
    /// `None` for a path that is not about a resource (discovery, health).
    pub(crate) fn parse(path: &str) -> Option<Target> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, tail @ ..]
                if !(group.is_empty() && ["status", "finalize"].contains(plural)) =>
            {
                (*namespace, [&[*plural], tail].concat())
            }
            other => ("", other.to_vec()),
        };
        let (plural, name, subresource) = match rest.as_slice() {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, subresource] => (*plural, Some(*name), Some(*subresource)),
            _ => return None,
        };
        Some(Target {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned()),
            subresource: subresource.map(str::to_owned),
        })
    }

    pub(crate) fn kind(&self) -> Option<&'static Kind> {
        kinds::find(&self.group, &self.version, &self.plural)
    }
}

/// The query parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(HashMap<String, Vec<String>>);

impl Query {
    pub(crate) fn parse(text: &str) -> Query {
        let mut map: HashMap<String, Vec<String>> = HashMap::new();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            map.entry(key.into_owned()).or_default().push(value.into_owned());
        }
        Query(map)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|values| values.first()).map(String::as_str)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1"))
    }

    /// A number; 400 when the parameter is something else.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, ApiError> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|error: ParseIntError| {
                use IntErrorKind::{NegOverflow, PosOverflow};
                let is_large = matches!(error.kind(), PosOverflow | NegOverflow);
                let why = if is_large { "value out of range" } else { "invalid syntax" };
                ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": {why}"))
            }),
        }
    }

    pub(crate) fn selector(&self, kind: &Kind) -> Result<Selector, ApiError> {
        let get = |key: &str| self.get(key).unwrap_or("");
        Selector::parse(kind, get("labelSelector"), get("fieldSelector"))
    }

    /// Whether only to try; a cause where the parameter says something else than `All`.
    pub(crate) fn dry_run(&self) -> Result<bool, Cause> {
        match self.all("dryRun") {
            [] => Ok(false),
            values if values.iter().all(|value| value == "All") => Ok(true),
            values => Err(Cause::not_supported("dryRun", &json!(values), &["All"])),
        }
    }
}

/// How unknown fields are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The options of a write.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
    pub(crate) validation: FieldValidation,
    pub(crate) force: bool,
}

impl WriteOptions {
    pub(crate) fn from(
        query: &Query,
        method: &Method,
        headers: &http::HeaderMap,
    ) -> Result<WriteOptions, ApiError> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let mut causes = Vec::new();
        let options = match *method {
            Method::POST => "CreateOptions",
            Method::PUT => "UpdateOptions",
            _ => "PatchOptions",
        };
        let given = query.get("fieldManager").filter(|manager| !manager.is_empty());
        if *method == Method::PATCH {
            let is_apply = header(http::header::CONTENT_TYPE).starts_with("application/apply-patch");
            if !is_apply && query.has("force") {
                causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
            }
            if is_apply && given.is_none() {
                causes.push(Cause::required("fieldManager", "is required for apply patch"));
            }
        }
        let dry_run = query.dry_run().unwrap_or_else(|cause| {
            causes.push(cause);
            true
        });
        let validation = match query.get("fieldValidation") {
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                causes.push(Cause::not_supported("fieldValidation", &json!(other), &supported));
                FieldValidation::Warn
            }
        };
        if !causes.is_empty() {
            return Err(ApiError::invalid_options(options, &causes));
        }
        let agent = header(http::header::USER_AGENT).split('/').next().filter(|name| !name.is_empty());
        Ok(WriteOptions {
            dry_run,
            manager: given.or(agent).unwrap_or("unknown").to_owned(),
            validation,
            force: query.flag("force"),
        })
    }
}

/// How the client wants objects shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// As they are.
    Object,
    /// `Table`, as `kubectl get` asks.
    Table(Rows),
    /// `PartialObjectMetadata`.
    Metadata,
    /// `PartialObjectMetadataList`.
    MetadataList,
}

/// What the rows of a table hold of their objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Nothing,
    Metadata,
    Object,
}

impl View {
    /// The first form in `Accept` that is known.
    pub(crate) fn from(headers: &http::HeaderMap, query: &Query) -> View {
        let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        for form in accept.split(',') {
            if !form.trim().starts_with("application/json") {
                continue;
            }
            return match form.split(';').find_map(|part| part.trim().strip_prefix("as=")) {
                Some("Table") => View::Table(match query.get("includeObject") {
                    Some("None") => Rows::Nothing,
                    Some("Object") => Rows::Object,
                    _ => Rows::Metadata,
                }),
                Some("PartialObjectMetadata") => View::Metadata,
                Some("PartialObjectMetadataList") => View::MetadataList,
                _ => View::Object,
            };
        }
        View::Object
    }
}

/// The verbs of `GET` on a collection: list, or watch.
pub(crate) fn is_watch(method: &Method, target: &Target, query: &Query) -> bool {
    method == Method::GET && query.flag("watch") && target.subresource.is_none()
}
