//! `/api/queues`

use super::access::Caller;
use super::consumers::{self, Connections};
use super::listing::Listing;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::rows::Row;
use super::samples::{Past, queue_sample};
use super::{Api, Shared, message_stats, policies, values};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use broker::command::{CatalogAsk, Command, DeclareQueue, QueueSpec, VhostId};
use broker::inspect::QueueView;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What is left out of a queue's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// Everything that happens: only what was declared is told, with message counts or without.
    Declared { counts: bool },
    /// Its consumers.
    Usual,
    /// Nothing.
    Full,
}

/// `GET /api/queues`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Response, Refusal> {
    answer(&api, None, Detail::Usual, &listing).await
}

/// `GET /api/queues/detailed`
pub(super) async fn list_detailed(State(api): Shared, listing: Listing) -> Result<Response, Refusal> {
    answer(&api, None, Detail::Full, &listing).await
}

/// `GET /api/queues/VHOST`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Response, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer(&api, Some(vhost), Detail::Usual, &listing).await
}

async fn answer(api: &Api, vhost: Option<VhostId>, detail: Detail, listing: &Listing) -> Result<Response, Refusal> {
    let detail = match listing.disables_stats() {
        true => Detail::Declared { counts: listing.enables_queue_totals() },
        false => detail,
    };
    let mut queues = api.board.inspect_queues().await?;
    queues.retain(|queue| vhost.is_none_or(|vhost| queue.spec.vhost == vhost));
    let needs_connections = match detail {
        Detail::Declared { .. } => false,
        Detail::Usual => queues.iter().any(|queue| queue.spec.owner.is_some() || exclusive_consumer(queue).is_some()),
        Detail::Full => true,
    };
    let connections = if needs_connections { Connections::look(api).await } else { Connections::default() };
    let past = api.samples.past(api.board.clock().now().ms);
    queues
        .sort_by(|one, other| (&one.spec.vhost_name, &one.spec.name).cmp(&(&other.spec.vhost_name, &other.spec.name)));
    let row = |queue: &QueueView| describe(api, queue, detail, &connections, &past);
    listing.rows(queues, |queue| (&queue.spec.vhost_name, &queue.spec.name), row)
}

/// `GET /api/queues/VHOST/NAME`
pub(super) async fn show(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let spec = find(&api, &vhost, &name)?;
    let queue = api.board.inspect_queue(spec.queue).await?.ok_or_else(Refusal::no_object)?;
    let detail = match listing.disables_stats() {
        true => Detail::Declared { counts: listing.enables_queue_totals() },
        false => Detail::Full,
    };
    let connections = Connections::look(&api).await;
    let past = api.samples.past(api.board.clock().now().ms);
    Ok(listing.one(describe(&api, &queue, detail, &connections, &past).into_value()))
}

/// `PUT /api/queues/VHOST/NAME`
pub(super) async fn declare(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    let vhost = api.vhost(&vhost)?;
    let existed = api.board.topology().queue(vhost, &name).is_some();
    let declare = DeclareQueue {
        name,
        server_named: false,
        passive: false,
        durable: document.flag("durable")?,
        // The asker is gone after this request, and an exclusive queue with it.
        exclusive: false,
        auto_delete: document.flag("auto_delete")?,
        arguments: document.table("arguments")?,
    };
    succeeded(api.operator().ask(vhost, CatalogAsk::DeclareQueue(declare)).await?)?;
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// The query string of deletions.
#[derive(Debug, Deserialize)]
pub(super) struct Conditions {
    #[serde(rename = "if-unused")]
    pub(super) if_unused: Option<String>,
    #[serde(rename = "if-empty")]
    if_empty: Option<String>,
}

/// `DELETE /api/queues/VHOST/NAME`
///
/// The answer has no body; the header `X-Messages` says how many ready messages went with the queue.
pub(super) async fn delete(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    Query(conditions): Query<Conditions>,
) -> Result<(StatusCode, [(&'static str, String); 1]), Refusal> {
    let spec = find(&api, &vhost, &name)?;
    let is_true = |flag: &Option<String>| flag.as_deref() == Some("true");
    let ask = CatalogAsk::DeleteQueue {
        name,
        if_unused: is_true(&conditions.if_unused),
        if_empty: is_true(&conditions.if_empty),
    };
    match succeeded(api.operator().ask(spec.vhost, ask).await?)? {
        broker::command::Outcome::QueueDeleted { messages, .. } => {
            Ok((StatusCode::NO_CONTENT, [(MESSAGES_HEADER, messages.to_string())]))
        }
        // It was deleted by someone else in the meantime, which is no error in AMQP.
        _ => Ok((StatusCode::NO_CONTENT, [(MESSAGES_HEADER, "0".to_owned())])),
    }
}

/// `DELETE /api/queues/VHOST/NAME/contents`
pub(super) async fn purge(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let spec = find(&api, &vhost, &name)?;
    let mut operator = api.operator();
    if !caller.is_local {
        spec.check_owner(operator.id())?;
    }
    let purge = |call| Command::Purge { call, queue: spec.queue.id };
    succeeded(operator.command(spec.queue.shard, purge).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/queues/VHOST/NAME/actions`, `{"action": "sync"}`: what mirrored queues once needed. Nothing needs it here.
pub(super) async fn act(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    find(&api, &vhost, &name)?;
    document.require(&["action"])?;
    match document.text("action")? {
        "sync" | "cancel_sync" => Ok(StatusCode::NO_CONTENT),
        other => Err(Refusal::bad_request(json!(["unknown", other]))),
    }
}

/// The queue of a path.
pub(super) fn find(api: &Api, vhost: &str, name: &str) -> Result<Arc<QueueSpec>, Refusal> {
    let topology = api.board.topology();
    let vhost = topology.vhost(vhost).ok_or_else(Refusal::no_object)?;
    topology.queue(vhost, name).cloned().ok_or_else(Refusal::no_object)
}

fn describe(api: &Api, queue: &QueueView, detail: Detail, connections: &Connections, past: &Past) -> Row {
    let mut row = declared(api, &queue.spec);
    if queue.is_paused {
        row.replace("state", "paused");
    }
    match detail {
        Detail::Declared { counts: false } => {}
        Detail::Declared { counts: true } => {
            row.put("messages", queue.messages());
            row.put("messages_ready", queue.ready);
            row.put("messages_unacknowledged", queue.unacked);
            row.put("messages_delayed", queue.delayed);
            row.put("messages_dlx", queue.owed);
        }
        Detail::Usual => add_statistics(&mut row, queue, connections, past),
        Detail::Full => {
            add_statistics(&mut row, queue, connections, past);
            let details = queue.consumers.iter().map(|consumer| consumers::describe(api, queue, consumer, connections));
            row.put("consumer_details", details.collect::<Value>());
            // Who publishes and who takes how much is not counted apart.
            row.put("incoming", json!([]));
            row.put("deliveries", json!([]));
        }
    }
    row
}

fn declared(api: &Api, spec: &QueueSpec) -> Row {
    let mut row = Row::default();
    row.put("name", spec.name.to_string());
    row.put("vhost", spec.vhost_name.to_string());
    row.put("type", spec.settings.kind.name());
    row.put("durable", spec.durable);
    row.put("auto_delete", spec.auto_delete);
    row.put("exclusive", spec.owner.is_some());
    row.put("arguments", values::table_to_json(&spec.arguments));
    row.put("node", api.node.clone());
    row.put("state", "running");
    row.put("pid", format!("<leveret.0.{}>", spec.queue.id.0));
    policies::add_to_row(&mut row, &spec.policies);
    if spec.settings.keeps_all() {
        row.put("leader", api.node.clone());
        row.put("members", json!([api.node]));
        row.put("online", json!([api.node]));
    }
    row
}

fn add_statistics(row: &mut Row, queue: &QueueView, connections: &Connections, past: &Past) {
    let then = past.queue(queue.spec.queue.id);
    let now = queue_sample(queue);
    message_stats::put_in_row(row, "messages", now.messages(), then.messages(), past);
    message_stats::put_in_row(row, "messages_ready", now.ready, then.ready, past);
    message_stats::put_in_row(row, "messages_unacknowledged", now.unacked, then.unacked, past);
    message_stats::put_in_row(row, "messages_delayed", now.delayed, then.delayed, past);
    message_stats::put_in_row(row, "messages_dlx", now.owed, then.owed, past);
    let (counted, counted_then) = (message_stats::of_queue(&now.counters), message_stats::of_queue(&then.counters));
    row.put("message_stats", message_stats::row(&counted, &counted_then, past));
    let bytes = queue.bytes();
    let exclusive = exclusive_consumer(queue);
    let single_active = queue.consumers.iter().find(|consumer| queue.spec.settings.single_active && consumer.active);
    let owner = queue.spec.owner.and_then(|owner| connections.get(owner));
    let utilisation = queue.consumer_utilisation.map_or(json!(0), Value::from);
    row.put("consumers", queue.consumers.len());
    row.put("consumer_utilisation", utilisation.clone());
    row.put("consumer_capacity", utilisation);
    row.put("exclusive_consumer_tag", exclusive.map(|consumer| consumer.tag.clone()));
    row.put("exclusive_consumer_pid", exclusive.map(consumers::channel_pid));
    row.put("single_active_consumer_tag", single_active.map(|consumer| consumer.tag.clone()));
    row.put("owner_pid", queue.spec.owner.map(consumers::connection_pid));
    row.put("memory", queue.memory);
    // Every message is in memory until it is settled.
    row.put("messages_ram", queue.messages());
    row.put("messages_ready_ram", queue.ready);
    row.put("messages_unacknowledged_ram", queue.unacked);
    row.put("messages_persistent", queue.persistent);
    row.put("message_bytes", bytes);
    row.put("message_bytes_ready", queue.ready_bytes);
    row.put("message_bytes_unacknowledged", queue.unacked_bytes);
    row.put("message_bytes_delayed", queue.delayed_bytes);
    row.put("message_bytes_dlx", queue.owed_bytes);
    row.put("message_bytes_ram", bytes);
    row.put("message_bytes_persistent", queue.persistent_bytes);
    row.put("messages_deduplicated", queue.counters.deduplicated);
    row.put("head_message_timestamp", queue.head_timestamp);
    row.put("oldest_ready_age_ms", queue.oldest_ready_ms);
    row.put("oldest_unacked_age_ms", queue.oldest_unacked_ms);
    row.put("late_leases", queue.late_leases);
    row.put("slave_nodes", json!([]));
    if let Some(idle_since) = queue.idle_since_unix_ms {
        row.put("idle_since", values::moment(idle_since));
    }
    if let Some(owner) = owner {
        let details = json!({"name": owner.name, "peer_host": owner.peer_host, "peer_port": owner.peer_port});
        row.put("owner_pid_details", details);
    }
}

fn exclusive_consumer(queue: &QueueView) -> Option<&broker::inspect::ConsumerView> {
    queue.consumers.iter().find(|consumer| consumer.exclusive)
}

/// How many messages a deletion took: an addition to RabbitMQ's API, for the command line.
pub(super) const MESSAGES_HEADER: &str = "x-messages";
