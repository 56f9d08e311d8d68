//! `/api/consumers`, and what connections and channels are called elsewhere.

use super::listing::Listing;
use super::refusal::Refusal;
use super::{Api, Shared, values};
use axum::Json;
use axum::extract::{Path, State};
use broker::command::{ConnectionId, VhostId};
use broker::inspect::{ConnectionView, ConsumerView, QueueView};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The connections of one moment, by id.
#[derive(Debug, Default)]
pub(super) struct Connections(HashMap<ConnectionId, ConnectionView>);

impl Connections {
    pub(super) async fn look(api: &Api) -> Self {
        let views = api.board.inspect_connections().await;
        Self(views.into_iter().map(|view| (view.id, view)).collect())
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&ConnectionView> {
        self.0.get(&id)
    }

    /// What the client of that connection calls itself, if it does.
    pub(super) fn client_name(&self, connection: ConnectionId) -> Option<&str> {
        self.get(connection)?.client_properties.get("connection_name")?.as_str()
    }

    /// The `channel_details` of a channel of that connection. Empty if that is gone since, or the API's own.
    pub(super) fn channel_details(&self, api: &Api, connection: ConnectionId, channel: u16) -> Value {
        self.get(connection).map_or_else(|| json!([]), |connection| details_of_channel(api, connection, channel))
    }
}

/// The `channel_details` of a channel.
pub(super) fn details_of_channel(api: &Api, connection: &ConnectionView, channel: u16) -> Value {
    json!({
        "name": channel_name(&connection.name, channel),
        "number": channel,
        "connection_name": connection.name,
        "node": api.node,
        "peer_host": connection.peer_host,
        "peer_port": connection.peer_port,
        "user": connection.user,
    })
}

/// `GET /api/consumers`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, None, &listing).await
}

/// `GET /api/consumers/VHOST`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer(&api, Some(vhost), &listing).await
}

async fn answer(api: &Api, vhost: Option<VhostId>, listing: &Listing) -> Result<Json<Value>, Refusal> {
    let queues = api.board.inspect_queues().await?;
    let connections = Connections::look(api).await;
    let objects = queues
        .iter()
        .filter(|queue| vhost.is_none_or(|vhost| queue.spec.vhost == vhost))
        .flat_map(|queue| queue.consumers.iter().map(move |consumer| (queue, consumer)))
        .map(|(queue, consumer)| describe(api, queue, consumer, &connections));
    listing.all(objects.collect(), &["queue.vhost", "queue.name"])
}

/// The consumers of one channel.
pub(super) fn of_channel(
    api: &Api,
    queues: &[QueueView],
    connection: ConnectionView,
    channel: amqp::ChannelId,
) -> Value {
    let id = connection.id;
    let connections = Connections([(id, connection)].into());
    let consumers = queues.iter().flat_map(|queue| queue.consumers.iter().map(move |consumer| (queue, consumer)));
    let here = consumers.filter(|(_, consumer)| (consumer.connection, consumer.channel) == (id, channel));
    here.map(|(queue, consumer)| describe(api, queue, consumer, &connections)).collect()
}

/// A consumer of this queue.
pub(super) fn describe(api: &Api, queue: &QueueView, consumer: &ConsumerView, connections: &Connections) -> Value {
    let channel_details = connections.channel_details(api, consumer.connection, consumer.channel.0);
    let is_waiting = !consumer.active;
    json!({
        "consumer_tag": consumer.tag,
        "active": consumer.active,
        "activity_status": if is_waiting { "waiting" } else { activity(queue) },
        "ack_required": consumer.ack_required,
        "prefetch_count": consumer.prefetch,
        "exclusive": consumer.exclusive,
        "arguments": values::table_to_json(&consumer.arguments),
        "consumer_timeout": consumer.timeout_ms,
        "queue": {"name": &*queue.spec.name, "vhost": &*queue.spec.vhost_name},
        "channel_details": channel_details,
        "channel_pid": channel_pid(consumer),
    })
}

/// How RabbitMQ calls a consumer that gets messages.
fn activity(queue: &QueueView) -> &'static str {
    if queue.spec.settings.single_active { "single_active" } else { "up" }
}

/// `PEER -> LOCAL (NUMBER)`
pub(super) fn channel_name(connection: &str, channel: u16) -> String {
    format!("{connection} ({channel})")
}

/// What stands for RabbitMQ's process of a connection: stable, and unlike any other's.
pub(super) fn connection_pid(connection: ConnectionId) -> String {
    format!("<leveret.{}.0>", connection.0)
}

/// The same of a consumer's channel.
pub(super) fn channel_pid(consumer: &ConsumerView) -> String {
    format!("<leveret.{}.{}>", consumer.connection.0, consumer.channel.0)
}
