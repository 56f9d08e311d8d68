//! `/api/vhosts`

use super::listing::Listing;
use super::message_stats;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::routes::{Routes, get, post};
use super::samples::{Octets, Past, add_queue, octets, queue_sample};
use super::users::{ask, change};
use super::{Api, Shared, published, rights};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use broker::command::{Outcome, VhostId};
use broker::identity::{IdentityAsk, VhostRecord};
use broker::inspect::{ConnectionView, ExchangeCounters, QueueCounters, QueueView};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/vhosts", get(list))
        .route("/vhosts/{vhost}", get(show).put(set).delete(delete))
        .route("/vhosts/{vhost}/deletion/protection", post(protect).delete(expose))
        .route("/vhosts/{vhost}/start/{node}", post(start))
}

/// `PUT /api/vhosts/VHOST`
async fn set(State(api): Shared, Path(name): Path<String>, document: Document) -> Result<StatusCode, Refusal> {
    let existed = api.board.topology().vhost(&name).is_some();
    change(&api, read(&name, &document)?).await?;
    if document.get("tracing").is_some() {
        let is_traced = document.flag("tracing")?;
        change(&api, IdentityAsk::TraceVhost { name, is_traced }).await?;
    }
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// Reads a vhost's JSON form.
pub(super) fn read(name: &str, document: &Document) -> Result<IdentityAsk, Refusal> {
    let metadata = document.object("metadata")?;
    let within = |key: &str| if document.get(key).is_some() { document } else { &metadata };
    let description = within("description");
    let queue_type = within("default_queue_type");
    let default_queue_type = match queue_type.get("default_queue_type").map(|_| queue_type.text("default_queue_type")) {
        None => None,
        Some(Ok("undefined" | "")) => Some(None),
        Some(Ok(known @ ("classic" | "quorum" | "stream"))) => Some(Some(known.to_owned())),
        Some(Ok(other)) => {
            return Err(Refusal::bad_request(format!("Unsupported default queue type '{other}'")));
        }
        Some(Err(refusal)) => return Err(refusal),
    };
    let tags = within("tags");
    Ok(IdentityAsk::PutVhost {
        name: name.to_owned(),
        description: description
            .get("description")
            .map(|_| description.text("description").map(str::to_owned))
            .transpose()?,
        tags: tags.get("tags").map(|_| tags.texts("tags")).transpose()?,
        default_queue_type,
        is_protected: document
            .get("protected_from_deletion")
            .map(|_| document.flag("protected_from_deletion"))
            .transpose()?,
    })
}

/// `DELETE /api/vhosts/VHOST`
async fn delete(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    match ask(&api, IdentityAsk::DeleteVhost { name }).await? {
        Outcome::Fault(fault) => Err(Refusal::precondition_failed(fault.text)),
        outcome => succeeded(outcome).map(|_| StatusCode::NO_CONTENT),
    }
}

/// `POST /api/vhosts/VHOST/deletion/protection`
async fn protect(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    set_protection(&api, name, true).await
}

/// `DELETE /api/vhosts/VHOST/deletion/protection`
async fn expose(State(api): Shared, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    set_protection(&api, name, false).await
}

async fn set_protection(api: &Arc<Api>, name: String, is_protected: bool) -> Result<StatusCode, Refusal> {
    api.vhost(&name)?;
    let (description, tags, default_queue_type, is_protected) = (None, None, None, Some(is_protected));
    change(api, IdentityAsk::PutVhost { name, description, tags, default_queue_type, is_protected }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/vhosts/VHOST/start/NODE`: it runs already.
async fn start(State(api): Shared, Path((name, _node)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    api.vhost(&name)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is said of a vhost, without what happens in it.
pub(super) fn definition(record: &VhostRecord) -> Value {
    let mut metadata = json!({"description": record.description, "tags": record.tags});
    if let Some(queue_type) = &record.default_queue_type {
        metadata["default_queue_type"] = queue_type.as_str().into();
    }
    json!({
        "name": &*record.name,
        "description": record.description,
        "tags": record.tags,
        "default_queue_type": record.default_queue_type.as_deref().unwrap_or("classic"),
        "metadata": metadata,
        "protected_from_deletion": record.is_protected,
    })
}

/// `GET /api/vhosts`
async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    let vhosts: Vec<_> = api.board.topology().vhosts().map(|(id, name)| (id, Arc::clone(name))).collect();
    let look = Look::take(&api).await?;
    let view = rights::caller().map(|caller| caller.view(&api)).unwrap_or_default();
    let vhosts: Vec<_> = vhosts.into_iter().filter(|(_, name)| view.shows(&json!({"vhost": &**name}))).collect();
    let objects = vhosts.iter().map(|(id, name)| look.describe(&api, *id, name)).collect();
    listing.all(objects, &["name"])
}

/// `GET /api/vhosts/VHOST`
async fn show(State(api): Shared, Path(name): Path<String>, listing: Listing) -> Result<Json<Value>, Refusal> {
    let id = api.vhost(&name)?;
    let look = Look::take(&api).await?;
    Ok(listing.one(look.describe(&api, id, &name)))
}

/// What is in all vhosts at one moment.
#[derive(Debug)]
struct Look {
    queues: Vec<QueueView>,
    connections: Vec<ConnectionView>,
    /// What was published, now and then.
    published: HashMap<VhostId, (ExchangeCounters, ExchangeCounters)>,
    past: Past,
}

impl Look {
    async fn take(api: &Api) -> Result<Self, Refusal> {
        let queues = api.board.inspect_queues().await?;
        let (connections, published) = published::look(api).await;
        let past = api.samples.past(api.board.clock().now().ms);
        let published = published::by_vhost(api, &published, &past);
        Ok(Self { queues, connections, published, past })
    }

    fn describe(&self, api: &Api, id: VhostId, name: &str) -> Value {
        let past = &self.past;
        let record = api.board.topology().vhost_record(id).cloned();
        // Gone since we looked for its name.
        let record = record.unwrap_or_else(|| VhostRecord::new(id, name).into());
        let mut description = definition(&record);
        description["tracing"] = api.board.topology().is_traced(id).into();
        description["cluster_state"] = json!({api.node.as_str(): "running"});
        let Value::Object(mut object) = description else { return Value::Null };

        let queues = || self.queues.iter().filter(|queue| queue.spec.vhost == id);
        let sum = |of: &dyn Fn(&QueueView) -> u64| queues().map(of).sum::<u64>();
        let (ready, unacked) = (sum(&|queue| queue_sample(queue).ready), sum(&|queue| queue_sample(queue).unacked));
        let ready_then = sum(&|queue| past.queue(queue.spec.queue.id).ready);
        let unacked_then = sum(&|queue| past.queue(queue.spec.queue.id).unacked);
        let messages_then = sum(&|queue| past.queue(queue.spec.queue.id).messages());
        message_stats::put(&mut object, "messages", sum(&QueueView::messages), messages_then, past);
        message_stats::put(&mut object, "messages_ready", ready, ready_then, past);
        message_stats::put(&mut object, "messages_unacknowledged", unacked, unacked_then, past);

        let (mut counted, mut counted_then) = (QueueCounters::default(), QueueCounters::default());
        for queue in queues() {
            add_queue(&mut counted, &queue.counters);
            add_queue(&mut counted_then, &past.queue(queue.spec.queue.id).counters);
        }
        let (counted, counted_then) = (message_stats::of_queue(&counted), message_stats::of_queue(&counted_then));
        let mut stats = message_stats::object(&counted, &counted_then, past);
        if let Value::Object(stats) = &mut stats {
            // One that went to two queues was published once.
            let (now, then) = self.published.get(&id).copied().unwrap_or_default();
            message_stats::put(stats, "publish", now.publish, then.publish, past);
            message_stats::put(stats, "confirm", now.confirm, then.confirm, past);
            message_stats::put(stats, "return_unroutable", now.return_unroutable, then.return_unroutable, past);
            message_stats::put(stats, "drop_unroutable", now.drop_unroutable, then.drop_unroutable, past);
        }
        object.insert("message_stats".into(), stats);

        let (mut now, mut then) = (Octets::default(), Octets::default());
        for connection in self.connections.iter().filter(|connection| connection.vhost == name) {
            for (sum, part) in [(&mut now, octets(connection)), (&mut then, past.connection(connection.id))] {
                sum.received += part.received;
                sum.sent += part.sent;
            }
        }
        message_stats::put(&mut object, "recv_oct", now.received, then.received, past);
        message_stats::put(&mut object, "send_oct", now.sent, then.sent, past);
        object.into()
    }
}
