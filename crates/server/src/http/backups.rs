//! `/api/backup`, which RabbitMQ does not have: a copy of the data directory, for whoever may use the local socket.

use super::Shared;
use super::access::Caller;
use super::refusal::Refusal;
use super::request::Document;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::path::Path;

/// `POST /api/backup`, `{"directory": "/absolute/path"}`: begins one.
pub(super) async fn begin(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    // Who only has a login must not write files with the server's rights.
    if !caller.is_local {
        return Err(Refusal::not_authorised("backups are made through the socket in the data directory"));
    }
    document.require(&["directory"])?;
    let directory = document.text("directory")?;
    api.backup.begin(Path::new(directory)).map_err(Refusal::bad_request)?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /api/backup`: how far the last one is.
pub(super) async fn show(State(api): Shared, Extension(caller): Extension<Caller>) -> Result<Json<Value>, Refusal> {
    if !caller.is_local {
        return Err(Refusal::not_authorised("backups are made through the socket in the data directory"));
    }
    let state = api.backup.latest().ok_or_else(Refusal::no_object)?;
    let (word, reason) = match &state.end {
        None => ("running", Value::Null),
        Some(Ok(())) => ("done", Value::Null),
        Some(Err(why)) => ("failed", why.as_str().into()),
    };
    Ok(Json(json!({
        "directory": state.directory.to_string_lossy(),
        "state": word,
        "reason": reason,
        "copied_bytes": state.copied_bytes,
        "total_bytes": state.total_bytes,
    })))
}
