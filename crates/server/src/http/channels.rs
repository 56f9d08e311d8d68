//! `/api/channels`

use super::consumers::channel_name;
use super::listing::Listing;
use super::refusal::Refusal;
use super::samples::Past;
use super::{Api, Shared, connections, consumers, message_stats, published, values};
use axum::Json;
use axum::extract::{Path, State};
use broker::command::{ChannelKey, ConnectionId};
use broker::inspect::{ChannelView, ConnectionView};
use serde_json::{Value, json};

/// `GET /api/channels`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    let connections = api.board.inspect_connections().await;
    answer(&api, &connections, &listing)
}

/// `GET /api/vhosts/VHOST/channels`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    api.vhost(&vhost)?;
    let mut connections = api.board.inspect_connections().await;
    connections.retain(|connection| connection.vhost == vhost);
    answer(&api, &connections, &listing)
}

/// `GET /api/connections/NAME/channels`
pub(super) async fn list_of(
    State(api): Shared,
    Path(name): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let connection = connections::find(&api, &name).await?;
    answer(&api, &[connection], &listing)
}

/// `GET /api/channels/NAME`
pub(super) async fn show(
    State(api): Shared,
    Path(name): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let (connection, number) = split(&name).ok_or_else(Refusal::no_object)?;
    let connection = connections::find(&api, connection).await?;
    let channel = connection.channels.iter().find(|channel| channel.number.0 == number);
    let channel = channel.ok_or_else(Refusal::no_object)?;
    let past = api.samples.past(api.board.clock().now().ms);
    let mut described = describe(&api, &connection, channel, &past);
    described["publishes"] = publishes(&api, connection.id, channel, &past);
    // How much it took of which queue is not counted apart: RabbitMQ tells it with detailed rates only.
    described["deliveries"] = json!([]);
    let number = channel.number;
    let queues = api.board.inspect_queues().await?;
    described["consumer_details"] = consumers::of_channel(&api, &queues, connection, number);
    Ok(listing.one(described))
}

fn answer(api: &Api, connections: &[ConnectionView], listing: &Listing) -> Result<Json<Value>, Refusal> {
    let past = api.samples.past(api.board.clock().now().ms);
    let objects = connections
        .iter()
        .flat_map(|connection| connection.channels.iter().map(move |channel| (connection, channel)))
        .map(|(connection, channel)| describe(api, connection, channel, &past));
    listing.all(objects.collect(), &["connection_details.name", "number"])
}

/// To which exchanges that there are a channel published.
fn publishes(api: &Api, connection: ConnectionId, channel: &ChannelView, past: &Past) -> Value {
    let key = ChannelKey { connection, channel: channel.number };
    let topology = api.board.topology();
    let published = channel.exchanges.iter().filter_map(|(number, now)| {
        let exchange = topology.exchange_of_number(*number)?;
        let stats = published::of_channel(now, &past.channel_exchange(key, *number), past)?;
        let vhost = &**topology.vhost_name(exchange.vhost);
        Some(json!({"stats": stats, "exchange": {"name": &*exchange.name, "vhost": vhost}}))
    });
    published.collect()
}

/// The connection and the number in `CONNECTION (NUMBER)`.
fn split(name: &str) -> Option<(&str, u16)> {
    let (connection, number) = name.strip_suffix(')')?.rsplit_once(" (")?;
    Some((connection, number.parse().ok()?))
}

fn describe(api: &Api, connection: &ConnectionView, channel: &ChannelView, past: &Past) -> Value {
    let number = channel.number.0;
    let then = past.channel(ChannelKey { connection: connection.id, channel: channel.number });
    let (counted, counted_then) = (message_stats::of_channel(&channel.counters), message_stats::of_channel(&then));
    json!({
        "name": channel_name(&connection.name, number),
        "number": number,
        "pid": format!("<leveret.{}.{number}>", connection.id.0),
        "connection_pid": super::consumers::connection_pid(connection.id),
        "user": connection.user,
        "user_who_performed_action": connection.user,
        "vhost": connection.vhost,
        "node": api.node,
        "state": "running",
        "connection_details": {
            "name": connection.name,
            "peer_host": connection.peer_host,
            "peer_port": connection.peer_port,
        },
        "consumer_count": channel.consumers,
        "confirm": channel.confirm,
        "transactional": channel.transactional,
        "prefetch_count": channel.prefetch,
        "global_prefetch_count": channel.prefetch_channel,
        "messages_unacknowledged": channel.unacked,
        "messages_unconfirmed": channel.unconfirmed,
        "messages_uncommitted": channel.uncommitted,
        "acks_uncommitted": channel.acks_uncommitted,
        "idle_since": values::moment(channel.idle_since_unix_ms),
        "message_stats": message_stats::object(&counted, &counted_then, past),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channels_name_holds_its_connections() {
        assert_eq!(split("127.0.0.1:1 -> 127.0.0.1:2 (3)"), Some(("127.0.0.1:1 -> 127.0.0.1:2", 3)));
        assert_eq!(split("127.0.0.1:1 -> 127.0.0.1:2"), None);
        assert_eq!(split("x (y)"), None);
    }
}
