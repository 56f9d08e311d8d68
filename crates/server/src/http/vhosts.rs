//! `/api/vhosts`, to read.

use super::listing::Listing;
use super::message_stats;
use super::refusal::Refusal;
use super::samples::{Octets, Past, add_queue, octets, queue_sample};
use super::{Api, Shared};
use axum::Json;
use axum::extract::{Path, State};
use broker::command::VhostId;
use broker::inspect::{ConnectionView, QueueCounters, QueueView};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /api/vhosts`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    let vhosts: Vec<_> = api.board.topology().vhosts().map(|(id, name)| (id, Arc::clone(name))).collect();
    let look = Look::take(&api).await?;
    let objects = vhosts.iter().map(|(id, name)| look.describe(&api, *id, name)).collect();
    listing.all(objects, &["name"])
}

/// `GET /api/vhosts/VHOST`
pub(super) async fn show(
    State(api): Shared,
    Path(name): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let id = api.vhost(&name)?;
    let look = Look::take(&api).await?;
    Ok(listing.one(look.describe(&api, id, &name)))
}

/// What is in all vhosts at one moment.
#[derive(Debug)]
struct Look {
    queues: Vec<QueueView>,
    connections: Vec<ConnectionView>,
    past: Past,
}

impl Look {
    async fn take(api: &Api) -> Result<Self, Refusal> {
        let queues = api.board.inspect_queues().await?;
        let connections = api.board.inspect_connections().await;
        Ok(Self { queues, connections, past: api.samples.past(api.board.clock().now().ms) })
    }

    fn describe(&self, api: &Api, id: VhostId, name: &str) -> Value {
        let past = &self.past;
        let (description, tags) = if name == "/" { ("Default virtual host", json!([])) } else { ("", json!([])) };
        let description = json!({
            "name": name,
            "description": description,
            "tags": tags,
            "default_queue_type": "classic",
            "metadata": {"description": description, "tags": tags},
            "tracing": false,
            "protected_from_deletion": false,
            "cluster_state": {api.node.as_str(): "running"},
        });
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
        object.insert("message_stats".into(), message_stats::object(&counted, &counted_then, past));

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
