//! update and patch.

use axum::body::Body;
use http::{Method, Response};
use serde_json::{Value, json};

use super::{create, delete, prepare};
use crate::admission::{self, Operation};
use crate::call::{Call, parse};
use crate::causes::Cause;
use crate::meta::meta;
use crate::request::WriteOptions;
use crate::status::ApiError;
use crate::store::{Object, Refused};
use crate::{apply, decode, defaults, managed, patch as patches, typed, views};

/// How often a patch is worked out anew when others write in between, as a real server does.
const PATCH_ATTEMPTS: usize = 6;

pub(crate) async fn put(call: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = call.write_options()?;
    let mut warnings = Vec::new();
    let object = prepare::identify(call.kind, call.namespace, Some(name), call.read(body)?)?;
    if meta(&object, "resourceVersion").is_empty() && call.kind.needs_version {
        call.stored(name)?;
        let why = "must be specified for an update";
        let cause = Cause::invalid("metadata.resourceVersion", &json!(0), why);
        return Err(ApiError::invalid_as(call.kind.plural, call.kind.group, name, &[cause]));
    }
    let stored = change(call, name, &options, &mut warnings, |_| Ok(object.clone())).await?;
    Ok(call.respond(200, &stored, &warnings))
}

pub(crate) async fn patch(call: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = call.write_options()?;
    let mut warnings = Vec::new();
    if call.content_type() == patches::APPLY {
        return apply_patch(call, name, body, &options, warnings).await;
    }
    let patch = patches::read(call.content_type(), body)?;
    let stored = change(call, name, &options, &mut warnings, |current| {
        patches::apply(call.content_type(), call.kind, current, &patch)
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
        let object = prepare::to_stored(call.kind, &changed, options, warnings)
            .map_err(|why| undecodable(call, &changed, &why))?;
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

/// A body that is wrong is a bad request; a patch that makes something wrong is an invalid one.
fn undecodable(call: &Call<'_>, changed: &Value, why: &str) -> ApiError {
    if call.method != Method::PATCH {
        return decode::refused(call.kind, why);
    }
    let expected = why.rsplit_once(" of type ").map(|(_, expected)| expected);
    match expected.filter(|_| call.content_type() == patches::STRATEGIC) {
        Some(expected) => {
            ApiError::invalid_patch(&changed.to_string(), &format!("unrecognized type: {expected}"))
        }
        None => ApiError::invalid_patch(&changed.to_string(), why),
    }
}

async fn apply_patch(
    call: &Call<'_>,
    name: &str,
    body: &[u8],
    options: &WriteOptions,
    mut warnings: Vec<String>,
) -> Result<Response<Body>, ApiError> {
    let config = parse(patches::APPLY, body)
        .map_err(|why| ApiError::bad_request(format!("error decoding YAML: {why}")))?;
    let text = |field: &str| config[field].as_str().unwrap_or("");
    if text("apiVersion") != call.kind.api_version() || text("kind") != call.kind.kind {
        let why = format!("invalid object type: {}, Kind={}", schema_of(text("apiVersion")), text("kind"));
        return Err(ApiError::bad_request(why));
    }
    let unnamed = format!(
        "failed to create typed patch object ({}/{}; {}, Kind={})",
        meta(&config, "namespace"),
        meta(&config, "name"),
        schema_of(text("apiVersion")),
        text("kind"),
    );
    let config = prepare::identify(call.kind, call.namespace, Some(name), config)?;
    // Applying is always strict, and a real server calls a field that it does not know an error of its own.
    let unknown = decode::unknown_fields(call.kind, &config).map(|unknown| {
        let unknown = unknown.first().map(|path| {
            format!("{}: field not declared in schema", apply::typed_path(call.kind, &config, path))
        });
        unknown.or_else(|| typed::duplicate(call.kind, &config))
    });
    match unknown {
        Ok(None) => {}
        Ok(Some(why)) | Err(why) => return Err(ApiError::new(500, "", format!("{unnamed}: {why}"))),
    }
    let config = views::store(call.kind, config);
    let (created, object) = apply_config(call, name, &config, options, &mut warnings).await?;
    Ok(call.respond(if created { 201 } else { 200 }, &object, &warnings))
}

/// `/v1`, `apps/v1`: a version with its group, the core group's name being empty.
fn schema_of(api_version: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    format!("{group}/{version}")
}

/// Applies a configuration; also says whether that made the object.
pub(crate) async fn apply_config(
    call: &Call<'_>,
    name: &str,
    config: &Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<(bool, Object), ApiError> {
    let kind = call.kind.stored();
    let normalize =
        |object: &Value| decode::normalize(kind, object).map_err(|why| decode::refused(kind, &why));
    for _ in 0..PATCH_ATTEMPTS {
        let mut notes = warnings.clone();
        let Ok(old) = call.stored(name) else {
            if call.subresource.is_some() {
                return Err(ApiError::not_found(call.kind, name));
            }
            let mut object = config.clone();
            apply::first(kind, &mut object, call.subresource, options)?;
            let object = normalize(&object)?;
            match create::insert(call, object, options, &mut notes, false).await {
                Ok(created) => {
                    *warnings = notes;
                    return Ok((true, created));
                }
                Err(error) if error.reason == "AlreadyExists" => continue,
                Err(error) => return Err(error),
            }
        };
        let version = meta(config, "resourceVersion");
        if !version.is_empty() && version != meta(&old, "resourceVersion") {
            return Err(ApiError::modified(call.kind, name));
        }
        let merged = apply::merge(kind, &old, config, call.subresource, options)?;
        let merged = normalize(&merged)?;
        let object = prepare::next_object(kind, &old, merged, call.subresource)?;
        if let Some(stored) = write(call, &old, object, options, &mut notes).await? {
            *warnings = notes;
            return Ok((false, stored));
        }
    }
    Err(ApiError::modified(call.kind, name))
}

/// Writes the next state; `None` when somebody else wrote first.
async fn write(
    call: &Call<'_>,
    old: &Object,
    mut object: Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Option<Object>, ApiError> {
    let kind = call.kind.stored();
    defaults::drop_dependent(kind, old, &mut object);
    if call.subresource.is_none() {
        admission::review(call, Operation::Update, &object, Some(old), options.dry_run, warnings).await?;
    }
    if prepare::unchanged(old, &object) {
        return Ok(Some(old.clone()));
    }
    if options.dry_run {
        return Ok(Some(Object::new(object)));
    }
    prepare::check_size(&mut object, call.content_type() == patches::APPLY)?;
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
