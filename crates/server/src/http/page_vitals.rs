//! `/api/page/vitals` and `/api/log`: what the page shows and RabbitMQ's API has no place for.

use super::Shared;
use super::refusal::Refusal;
use axum::Json;
use axum::extract::{Query, State};
use broker::histogram::{Histogram, Latencies};
use serde::Deserialize;
use serde_json::{Value, json};

/// `GET /api/page/vitals`: the ages of what waits longest, forgotten deliveries, how long messages took, syncs, all queues
/// together. Counters grow, until a queue is deleted; who wants to know how it was lately subtracts.
pub(super) async fn show(State(api): Shared) -> Result<Json<Value>, Refusal> {
    let queues = api.board.inspect_queues().await?;
    let (syncs, sync_us) = api.board.sync_times().cumulated();
    let mut took = Latencies::default();
    for of_queue in queues.iter().filter_map(|queue| queue.latencies.as_deref()) {
        took.in_queue.add(&of_queue.in_queue);
        took.to_ack.add(&of_queue.to_ack);
    }
    let told = |times: &Histogram| json!({"count": times.counts().iter().sum::<u64>(), "sum_ms": times.sum_ms()});
    Ok(Json(json!({
        "oldest_ready_age_ms": queues.iter().filter_map(|queue| queue.oldest_ready_ms).max(),
        "oldest_unacked_age_ms": queues.iter().filter_map(|queue| queue.oldest_unacked_ms).max(),
        "late_leases": queues.iter().map(|queue| queue.late_leases).sum::<u64>(),
        "paused": queues.iter().filter(|queue| queue.is_paused).count(),
        "time_in_queue": told(&took.in_queue),
        "time_to_ack": told(&took.to_ack),
        "syncs": syncs.last().copied().unwrap_or(0),
        "sync_us": sync_us,
    })))
}

/// Which lines.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    /// Those after this one.
    after: Option<u64>,
}

/// `GET /api/log?after=SEQ`: the latest lines of the server's log.
pub(super) async fn log(State(api): Shared, Query(After { after }): Query<After>) -> Json<Value> {
    let lines = api.board.recent_log().map(|log| log.after(after.unwrap_or(0))).unwrap_or_default();
    Json(lines.into_iter().map(|(seq, text)| json!({"seq": seq, "text": text})).collect())
}
