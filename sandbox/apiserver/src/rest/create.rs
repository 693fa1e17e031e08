//! create.

use axum::body::Body;
use http::Response;
use serde_json::Value;

use super::prepare;
use crate::admission::{self, Operation};
use crate::call::Call;
use crate::meta::meta;
use crate::request::WriteOptions;
use crate::status::ApiError;
use crate::store::{Object, Refused};
use crate::{decode, defaults, managed, namespaces};

pub(crate) async fn create(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = call.write_options()?;
    let mut warnings = Vec::new();
    let object = prepare::identify(call.kind, call.namespace, None, call.read(body)?)?;
    prepare::require_name(call.kind, &object)?;
    let object = prepare::to_stored(call.kind, &object, &options, &mut warnings)
        .map_err(|why| decode::refused(call.kind, &why))?;
    let created = insert(call, object, &options, &mut warnings, true).await?;
    Ok(call.respond(201, &created, &warnings))
}

/// Completes, admits and stores a new object. `track` records its fields as the writer's; apply has done so itself.
pub(crate) async fn insert(
    call: &Call<'_>,
    object: Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
    track: bool,
) -> Result<Object, ApiError> {
    let kind = call.kind.stored();
    if kind.namespaced {
        namespaces::admit(&call.api.store, call.kind, call.namespace, meta(&object, "name"))?;
    }
    if call.api.store.count(kind) >= kind.most {
        let most = kind.most;
        let why =
            format!("exceeded quota: sandbox, requested: pods=1, used: pods={most}, limited: pods={most}");
        return Err(ApiError::forbidden(kind, meta(&object, "name"), &why));
    }
    let mut object = prepare::new_object(kind, object)?;
    if track {
        managed::track(kind, None, &mut object, None, &options.manager);
    }
    defaults::admit(kind, &mut object);
    if call.api.store.get(kind, call.namespace, meta(&object, "name")).is_some() {
        return Err(ApiError::already_exists(call.kind, meta(&object, "name")));
    }
    admission::review(call, Operation::Create, &object, None, options.dry_run, warnings).await?;
    if options.dry_run {
        return Ok(Object::new(object));
    }
    prepare::check_size(&mut object, !track)?;
    let name = meta(&object, "name").to_owned();
    call.api.store.create(kind, object).map_err(|refused| match refused {
        Refused::Exists | Refused::Modified => ApiError::already_exists(call.kind, &name),
        Refused::NotFound => ApiError::not_found(call.kind, &name),
    })
}
