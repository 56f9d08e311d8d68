//! `/api/queues`

use super::access::Caller;
use super::consumers::{self, Connections};
use super::listing::Listing;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::samples::{Past, queue_sample};
use super::{Api, Shared, message_stats, policies, values};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use broker::command::{CatalogAsk, Command, DeclareQueue, QueueSpec, VhostId};
use broker::inspect::QueueView;
use serde::Deserialize;
use serde_json::{Map, Value, json};
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
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, None, Detail::Usual, &listing).await
}

/// `GET /api/queues/detailed`
pub(super) async fn list_detailed(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, None, Detail::Full, &listing).await
}

/// `GET /api/queues/VHOST`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer(&api, Some(vhost), Detail::Usual, &listing).await
}

async fn answer(api: &Api, vhost: Option<VhostId>, detail: Detail, listing: &Listing) -> Result<Json<Value>, Refusal> {
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
    let objects = queues.iter().map(|queue| describe(api, queue, detail, &connections, &past)).collect();
    listing.all(objects, &["vhost", "name"])
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
    Ok(listing.one(describe(&api, &queue, detail, &connections, &past)))
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

/// The queue of a path.
pub(super) fn find(api: &Api, vhost: &str, name: &str) -> Result<Arc<QueueSpec>, Refusal> {
    let topology = api.board.topology();
    let vhost = topology.vhost(vhost).ok_or_else(Refusal::no_object)?;
    topology.queue(vhost, name).cloned().ok_or_else(Refusal::no_object)
}

fn describe(api: &Api, queue: &QueueView, detail: Detail, connections: &Connections, past: &Past) -> Value {
    let mut object = declared(api, &queue.spec);
    if queue.is_paused {
        object.insert("state".into(), "paused".into());
    }
    match detail {
        Detail::Declared { counts: false } => {}
        Detail::Declared { counts: true } => {
            object.insert("messages".into(), queue.messages().into());
            object.insert("messages_ready".into(), queue.ready.into());
            object.insert("messages_unacknowledged".into(), queue.unacked.into());
            object.insert("messages_delayed".into(), queue.delayed.into());
        }
        Detail::Usual => add_statistics(&mut object, queue, connections, past),
        Detail::Full => {
            add_statistics(&mut object, queue, connections, past);
            let details = queue.consumers.iter().map(|consumer| consumers::describe(api, queue, consumer, connections));
            object.insert("consumer_details".into(), details.collect());
            // Who publishes and who takes how much is not counted apart.
            object.insert("incoming".into(), json!([]));
            object.insert("deliveries".into(), json!([]));
        }
    }
    object.into()
}

fn declared(api: &Api, spec: &QueueSpec) -> Map<String, Value> {
    let declared = json!({
        "name": &*spec.name,
        "vhost": &*spec.vhost_name,
        "type": spec.settings.kind.name(),
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "exclusive": spec.owner.is_some(),
        "arguments": values::table_to_json(&spec.arguments),
        "node": api.node,
        "state": "running",
        "pid": format!("<leveret.0.{}>", spec.queue.id.0),
    });
    let Value::Object(mut object) = declared else { return Map::new() };
    policies::add_to(&mut object, &spec.policies);
    if spec.settings.keeps_all() {
        object.insert("leader".into(), api.node.as_str().into());
        object.insert("members".into(), json!([api.node]));
        object.insert("online".into(), json!([api.node]));
    }
    object
}

fn add_statistics(object: &mut Map<String, Value>, queue: &QueueView, connections: &Connections, past: &Past) {
    let then = past.queue(queue.spec.queue.id);
    let now = queue_sample(queue);
    message_stats::put(object, "messages", now.messages(), then.messages(), past);
    message_stats::put(object, "messages_ready", now.ready, then.ready, past);
    message_stats::put(object, "messages_unacknowledged", now.unacked, then.unacked, past);
    message_stats::put(object, "messages_delayed", now.delayed, then.delayed, past);
    let (counted, counted_then) = (message_stats::of_queue(&now.counters), message_stats::of_queue(&then.counters));
    object.insert("message_stats".into(), message_stats::object(&counted, &counted_then, past));
    let bytes = queue.bytes();
    let exclusive = exclusive_consumer(queue);
    let single_active = queue.consumers.iter().find(|consumer| queue.spec.settings.single_active && consumer.active);
    let owner = queue.spec.owner.and_then(|owner| connections.get(owner));
    let utilisation = queue.consumer_utilisation.map_or(json!(0), Value::from);
    let statistics = json!({
        "consumers": queue.consumers.len(),
        "consumer_utilisation": utilisation,
        "consumer_capacity": utilisation,
        "exclusive_consumer_tag": exclusive.map(|consumer| &consumer.tag),
        "exclusive_consumer_pid": exclusive.map(consumers::channel_pid),
        "single_active_consumer_tag": single_active.map(|consumer| &consumer.tag),
        "owner_pid": queue.spec.owner.map(consumers::connection_pid),
        "memory": queue.memory,
        // Every message is in memory until it is settled.
        "messages_ram": queue.messages(),
        "messages_ready_ram": queue.ready,
        "messages_unacknowledged_ram": queue.unacked,
        "messages_persistent": queue.persistent,
        "message_bytes": bytes,
        "message_bytes_ready": queue.ready_bytes,
        "message_bytes_unacknowledged": queue.unacked_bytes,
        "message_bytes_delayed": queue.delayed_bytes,
        "message_bytes_ram": bytes,
        "message_bytes_persistent": queue.persistent_bytes,
        "messages_deduplicated": queue.counters.deduplicated,
        "head_message_timestamp": queue.head_timestamp,
        "oldest_unacked_age_ms": queue.oldest_unacked_ms,
        "slave_nodes": [],
    });
    if let Value::Object(statistics) = statistics {
        object.extend(statistics);
    }
    if let Some(idle_since) = queue.idle_since_unix_ms {
        object.insert("idle_since".into(), values::moment(idle_since).into());
    }
    if let Some(owner) = owner {
        let details = json!({"name": owner.name, "peer_host": owner.peer_host, "peer_port": owner.peer_port});
        object.insert("owner_pid_details".into(), details);
    }
}

fn exclusive_consumer(queue: &QueueView) -> Option<&broker::inspect::ConsumerView> {
    queue.consumers.iter().find(|consumer| consumer.exclusive)
}

/// How many messages a deletion took: an addition to RabbitMQ's API, for the command line.
pub(super) const MESSAGES_HEADER: &str = "x-messages";
