//! `/api/leases`, which RabbitMQ does not have: unacked deliveries, who holds them, since when and for how long.

use super::access::Caller;
use super::consumers::Connections;
use super::operations::{ask, own, piece, these};
use super::refusal::Refusal;
use super::request::Document;
use super::rights::View;
use super::{Api, Shared};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use broker::command::{QueueSpec, Said, Seq};
use broker::operation::{Act, Answer, Lease, Operation};
use serde::Deserialize;
use serde_json::{Value, json};

/// The query string of lists.
#[derive(Debug, Deserialize)]
pub(super) struct Part {
    /// The first seq.
    from: Option<u64>,
    count: Option<usize>,
}

/// `GET /api/leases`: of all queues, those with the oldest seqs first in each.
pub(super) async fn list(
    State(api): Shared,
    Extension(view): Extension<View>,
    Query(part): Query<Part>,
) -> Result<Json<Value>, Refusal> {
    let connections = Connections::look(&api).await;
    let mut queues = api.board.inspect_queues().await?;
    queues.retain(|queue| queue.unacked > 0 && view.shows_vhost(&queue.spec.vhost_name));
    queues
        .sort_by(|one, other| (&one.spec.vhost_name, &one.spec.name).cmp(&(&other.spec.vhost_name, &other.spec.name)));
    let mut left = part.count.unwrap_or(COUNT).min(COUNT_MAX);
    let mut objects = Vec::new();
    for queue in queues {
        let (found, _) = of(&api, &queue.spec, 0, left, &connections).await?;
        left -= found.len();
        objects.extend(found);
    }
    Ok(Json(objects.into()))
}

/// `GET /api/queues/VHOST/NAME/leases`
pub(super) async fn list_of(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    Query(part): Query<Part>,
) -> Result<Json<Value>, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let connections = Connections::look(&api).await;
    let count = part.count.unwrap_or(COUNT).min(COUNT_MAX);
    let (items, next) = of(&api, &spec, part.from.unwrap_or(0), count, &connections).await?;
    Ok(Json(json!({"items": items, "next": next})))
}

async fn of(
    api: &Api,
    spec: &QueueSpec,
    from: u64,
    count: usize,
    connections: &Connections,
) -> Result<(Vec<Value>, Option<u64>), Refusal> {
    let mut objects = Vec::new();
    let mut next = Some(Seq(from));
    while objects.len() < count
        && let Some(from) = next
    {
        let count = u32::try_from(count - objects.len()).unwrap_or(u32::MAX);
        // A queue that is gone has none.
        let Answer::Leases { leases, next: then } =
            api.board.operate(spec.queue, Operation::Leases { from, count }).await?
        else {
            return Ok((objects, None));
        };
        next = then;
        objects.extend(leases.iter().map(|lease| describe(api, spec, lease, connections)));
    }
    Ok((objects, next.map(|next| next.0)))
}

/// `PUT /api/queues/VHOST/NAME/leases/SEQ`, `{"ms": 60000}`: it ends so long from now; without `ms`, its timeout from now.
pub(super) async fn extend(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name, seq)): Path<(String, String, u64)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let ms = document.integer("ms")?.map(u64::try_from).transpose();
    let ms = ms.ok().filter(|ms| *ms != Some(0)).ok_or_else(|| Refusal::bad_request("ms must be greater than 0"))?;
    ask(&api, spec.queue, Operation::Extend { seq: Seq(seq), ms }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/queues/VHOST/NAME/leases/SEQ`: the message goes back to its place, as a failed attempt.
pub(super) async fn take_back(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name, seq)): Path<(String, String, u64)>,
) -> Result<StatusCode, Refusal> {
    let spec = own(&api, &caller, &vhost, &name)?;
    let held = api.board.operate(spec.queue, Operation::Leases { from: Seq(seq), count: 1 }).await?;
    let Answer::Leases { leases, .. } = held else { return Err(Refusal::no_object()) };
    // A ready message would go to the end of the queue.
    if leases.first().is_none_or(|lease| lease.seq != Seq(seq)) {
        return Err(Refusal::no_object());
    }
    piece(&api, spec.queue, these(vec![Seq(seq)], Act::Requeue)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An unacked message of this queue, and who has it.
pub(super) fn describe(api: &Api, spec: &QueueSpec, lease: &Lease, connections: &Connections) -> Value {
    let channel_details = connections.channel_details(api, lease.connection, lease.channel.0);
    json!({
        "queue": {"name": &*spec.name, "vhost": &*spec.vhost_name},
        "seq": lease.seq.0,
        "consumer_tag": lease.tag,
        "channel_details": channel_details,
        "client_name": connections.client_name(lease.connection),
        "age_ms": lease.age_ms,
        "left_ms": lease.left_ms,
        "extended": lease.is_extended,
        "progress": lease.progress.as_ref().map(|progress| match &progress.said {
            Said::Percent(percent) => json!(percent),
            Said::Text(text) => json!(text),
        }),
        "progress_at": lease.progress.as_ref().map(|progress| progress.at_unix_ms),
    })
}

/// How many leases a list has unless it says otherwise.
const COUNT: usize = 1_000;
/// How many it has at most.
const COUNT_MAX: usize = 100_000;
