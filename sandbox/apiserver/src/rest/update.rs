//! update and patch.

use axum::body::Body;
use http::{Response, header};
use serde_json::Value;

use super::{Call, create, delete, prepare, read_json};
use crate::admission::{self, Operation};
use crate::request::WriteOptions;
use crate::status::ApiError;
use crate::store::{Object, Refused, meta};
use crate::{apply, managed, patch as patches, views};

/// How often a patch is worked out anew when others write in between, as a real server does.
const PATCH_ATTEMPTS: usize = 6;

pub(crate) async fn put(call: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = call.write_options()?;
    let mut warnings = Vec::new();
    let object = prepare::identify(call.kind, call.namespace, Some(name), read_json(body)?)?;
    let stored = change(call, name, &options, &mut warnings, |_| Ok(object.clone())).await?;
    Ok(call.respond(200, &stored, &warnings))
}

pub(crate) async fn patch(call: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = call.write_options()?;
    let mut warnings = Vec::new();
    let content_type =
        call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let content_type = content_type.split(';').next().unwrap_or("").trim();
    if matches!(content_type, "application/apply-patch+yaml" | "application/apply-patch+cbor") {
        return apply_patch(call, name, body, &options, warnings).await;
    }
    let patch = read_json(body)?;
    let stored = change(call, name, &options, &mut warnings, |current| {
        patches::apply(content_type, call.kind, current, &patch)
    })
    .await?;
    Ok(call.respond(200, &stored, &warnings))
}

/// Reads, changes, admits and writes back; again when somebody else wrote in between and the change names no version.
pub(crate) async fn change(
    call: &Call<'_>,
    name: &str,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
    change: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Object, ApiError> {
    for _ in 0..PATCH_ATTEMPTS {
        let old = call.stored(name)?;
        warnings.clear();
        let changed = change(&views::show(call.kind, &old))?;
        let changed = prepare::identify(call.kind, call.namespace, Some(name), changed)?;
        let version = meta(&changed, "resourceVersion");
        if !version.is_empty() && version != meta(&old, "resourceVersion") {
            return Err(ApiError::modified(call.kind, name));
        }
        let object = prepare::to_stored(call.kind, &changed, options, warnings)?;
        let kind = call.kind.stored();
        let mut object = prepare::next_object(kind, &old, object, call.subresource)?;
        managed::track(kind, Some(&old), &mut object, call.subresource, &options.manager);
        match write(call, &old, object, options, warnings).await? {
            Some(stored) => return Ok(stored),
            None => continue,
        }
    }
    Err(ApiError::modified(call.kind, name))
}

async fn apply_patch(
    call: &Call<'_>,
    name: &str,
    body: &[u8],
    options: &WriteOptions,
    mut warnings: Vec<String>,
) -> Result<Response<Body>, ApiError> {
    if call.query.get("fieldManager").is_none_or(str::is_empty) {
        return Err(ApiError::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let config = prepare::identify(call.kind, call.namespace, Some(name), read_json(body)?)?;
    crate::decode::decode(call.kind, &config, options.validation, &mut warnings)?;
    let kind = call.kind.stored();
    let config = views::store(call.kind, config);
    for _ in 0..PATCH_ATTEMPTS {
        let mut notes = warnings.clone();
        let Ok(old) = call.stored(name) else {
            if call.subresource.is_some() {
                return Err(ApiError::not_found(call.kind, name));
            }
            let mut object = config.clone();
            apply::first(kind, &mut object, call.subresource, options)?;
            let object = crate::decode::normalize(kind, &object)?;
            match create::insert(call, object, options, &mut notes, false).await {
                Ok(created) => return Ok(call.respond(201, &created, &notes)),
                Err(error) if error.reason == "AlreadyExists" => continue,
                Err(error) => return Err(error),
            }
        };
        let version = meta(&config, "resourceVersion");
        if !version.is_empty() && version != meta(&old, "resourceVersion") {
            return Err(ApiError::modified(call.kind, name));
        }
        let merged = apply::merge(kind, &old, &config, call.subresource, options)?;
        let merged = crate::decode::normalize(kind, &merged)?;
        let object = prepare::next_object(kind, &old, merged, call.subresource)?;
        if let Some(stored) = write(call, &old, object, options, &mut notes).await? {
            return Ok(call.respond(200, &stored, &notes));
        }
    }
    Err(ApiError::modified(call.kind, name))
}

/// Writes the next state; `None` when somebody else wrote first.
async fn write(
    call: &Call<'_>,
    old: &Object,
    object: Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Option<Object>, ApiError> {
    let kind = call.kind.stored();
    if call.subresource.is_none() {
        admission::review(call, Operation::Update, &object, Some(old), options.dry_run, warnings).await?;
    }
    if prepare::unchanged(old, &object) {
        return Ok(Some(old.clone()));
    }
    if options.dry_run {
        return Ok(Some(Object::new(object)));
    }
    let written = if delete::is_released(kind, &object) {
        call.api.store.remove(kind, object, old)
    } else {
        call.api.store.replace(kind, object, old)
    };
    match written {
        Ok(stored) => Ok(Some(stored)),
        Err(Refused::Modified | Refused::Exists) => Ok(None),
        Err(Refused::NotFound) => Err(ApiError::not_found(call.kind, meta(old, "name"))),
    }
}
