//! `/api/queues/VHOST/NAME/redrive`, which RabbitMQ does not have: dead letters go back to where they died.

use super::access::Caller;
use super::operations::{end, filter_of, own, target};
use super::refusal::Refusal;
use super::request::Document;
use super::{Shared, rights, values};
use crate::redrives::{self, BeginError, Progress};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use broker::access::{Resource, Right};
use broker::operation::Origin;
use broker::redrive::{End, Redrive, Way};
use serde_json::{Value, json};

/// `POST /api/queues/VHOST/NAME/redrive`: begins one.
pub(super) async fn begin(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let origin = match document.text("origin")? {
        "" | "last" => Origin::Last,
        "first" => Origin::First,
        _ => return Err(Refusal::bad_request("origin must be last or first")),
    };
    let way = match target(&api, &spec, &document)? {
        Some(target) => Way::To(target),
        None => {
            // A message says itself where it died, and so may whoever published it: any queue can be meant.
            rights::check_use(&api, spec.vhost, Right::Write, Resource::Exchange(""))?;
            Way::Back(origin)
        }
    };
    let rate = document.integer("rate")?.map(u32::try_from).transpose().ok().filter(|rate| *rate != Some(0));
    let rate = rate.ok_or_else(|| Refusal::bad_request("rate must be a number of messages a second"))?;
    let filter = document.get("filter").map(filter_of).transpose()?.unwrap_or_default();
    let until = end(&api, spec.queue).await?;
    let total = api.board.inspect_queue(spec.queue).await?.ok_or_else(Refusal::no_object)?.ready;
    let began_unix_ms = api.board.clock().now().unix_ms;
    let (moved, unroutable, passed, end) = (0, 0, 0, None);
    let redrive = Redrive { began_unix_ms, total, rate, until, filter, way, moved, unroutable, passed, end };
    if redrive.encoded().len() > REDRIVE_BYTES_MAX {
        return Err(Refusal::bad_request("the filter of a redrive is kept with its queue, and may have 16 KiB"));
    }
    match redrives::begin(&api.board, spec.queue, redrive).await {
        Ok(progress) => Ok((StatusCode::ACCEPTED, Json(describe(&progress)))),
        Err(BeginError::Runs) => Err(Refusal::bad_request(BeginError::Runs.to_string())),
        Err(BeginError::Gone) => Err(Refusal::no_object()),
        Err(BeginError::Unanswered(unanswered)) => Err(unanswered.into()),
    }
}

/// `GET /api/queues/VHOST/NAME/redrive`: how far the last one is.
pub(super) async fn show(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let progress = api.board.redrives().look(spec.queue.id);
    Ok(Json(describe(&progress.ok_or_else(Refusal::no_object)?)))
}

/// `DELETE /api/queues/VHOST/NAME/redrive`: ends it after the piece at hand. One that has ended by itself is as good.
pub(super) async fn stop(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    api.board.redrives().stop(spec.queue.id);
    Ok(StatusCode::NO_CONTENT)
}

fn describe(progress: &Progress) -> Value {
    let Progress { redrive, resumed_unix_ms, waits_for, is_stopping } = progress;
    let (word, reason) = match (&redrive.end, waits_for) {
        (Some(End::Done), _) => ("done", None),
        (Some(End::Stopped), _) => ("stopped", None),
        (Some(End::Failed(why)), _) => ("failed", Some(why.as_str())),
        (None, _) if *is_stopping => ("stopping", None),
        (None, Some(reason)) => ("waiting", Some(*reason)),
        (None, None) => ("running", None),
    };
    json!({
        "state": word,
        "reason": reason,
        "total": redrive.total,
        "moved": redrive.moved,
        "unroutable": redrive.unroutable,
        "passed_over": redrive.passed,
        "rate": redrive.rate,
        "began_at": values::moment(redrive.began_unix_ms),
        "resumed_at": resumed_unix_ms.map(values::moment),
    })
}

/// What is kept of one is written about once a second.
const REDRIVE_BYTES_MAX: usize = 16 << 10;
