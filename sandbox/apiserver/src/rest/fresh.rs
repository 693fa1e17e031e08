//! How new what is read must be.

use std::time::Duration;

use tokio::time::timeout;

use crate::request::Query;
use crate::state::Api;
use crate::status::ApiError;

/// As long as Kubernetes waits for a version that is still to come.
const PATIENCE: Duration = Duration::from_secs(3);

/// Waits until there is the version that a get or list asks for, or a later one.
pub(crate) async fn not_older(api: &Api, query: &Query) -> Result<(), ApiError> {
    let asked = query.get("resourceVersion").and_then(|text| text.parse::<u64>().ok());
    let Some(asked) = asked.filter(|_| query.get("resourceVersionMatch") != Some("Exact")) else {
        return Ok(());
    };
    let mut newest = api.store.subscribe_any();
    let reached = timeout(PATIENCE, newest.wait_for(|version| *version >= asked)).await.is_ok();
    if reached { Ok(()) } else { Err(ApiError::too_large_version(asked, api.store.version())) }
}
