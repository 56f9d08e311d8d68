//! The firehose: while an operator wants it (RabbitMQ's `rabbitmqctl trace_on`), what clients publish and get in a vhost is copied to
//! its exchange `amq.rabbitmq.trace`, with the keys `publish.EXCHANGE` and `deliver.QUEUE`.
//!
//! Copies are transient and unconfirmed. What goes through that exchange is not copied again.

use super::publish::{Routed, Targets};
use crate::command::{Delivery, QueueId};
use crate::connection::{Connection, Effects};
use crate::message::{Message, MessageParts};
use crate::topology::Topology;
use amqp::{ChannelId, Properties, PropertyList, Table, Value};
use bytes::BytesMut;

/// A message that is to be copied at the end of the step, when the names of queues can be looked up.
#[derive(Debug)]
pub(crate) struct Traced {
    channel: ChannelId,
    message: Message,
    passage: Passage,
}

/// Which way a message passed.
#[derive(Debug)]
enum Passage {
    Published { to: Vec<QueueId> },
    Delivered { from: QueueId, redelivered: bool },
}

impl Connection {
    /// Whether something is noted that [`Self::copy_traced`] is to copy.
    #[must_use]
    pub fn has_traced(&self) -> bool {
        !self.traced.is_empty()
    }

    /// Publishes copies of what was noted.
    pub fn copy_traced(&mut self, topology: &Topology, fx: &mut Effects) {
        let (connection, mut routes) = (self.name(), std::mem::take(&mut self.routes));
        for traced in std::mem::take(&mut self.traced) {
            let copy = traced.copy(&connection, self, topology);
            let Ok(properties) = Properties::parse(copy.properties()) else { continue };
            let keys = [copy.routing_key()];
            // A vhost that is gone has nobody to tell.
            if topology.route(self.vhost, TRACE, &keys, &properties, &mut routes).is_err() {
                continue;
            }
            let targets = Targets::of(&routes);
            Routed::to(copy, targets, false, None).send(false, |shard, command| {
                fx.shards[usize::from(shard.0)].push(command);
            });
        }
        self.routes = routes;
    }
}

impl Traced {
    /// A message that a client has published; `None` for what is not copied.
    pub(super) fn published(channel: ChannelId, routed: &Routed) -> Option<Self> {
        if matches!(routed.targets, Targets::Reply(_)) {
            return None;
        }
        let to = routed.targets.queues().iter().flat_map(|(_, queues)| queues.iter().copied()).collect();
        Self::of(channel, &routed.message, Passage::Published { to })
    }

    /// A message that a client is given; `None` for what is not copied.
    pub(super) fn delivered(channel: ChannelId, delivery: &Delivery) -> Option<Self> {
        let passage = Passage::Delivered { from: delivery.queue.id, redelivered: delivery.redelivered };
        Self::of(channel, &delivery.message, passage)
    }

    fn of(channel: ChannelId, message: &Message, passage: Passage) -> Option<Self> {
        (message.exchange() != TRACE).then(|| Self { channel, message: message.clone(), passage })
    }

    /// The copy, as RabbitMQ makes it.
    fn copy(&self, connection: &str, by: &Connection, topology: &Topology) -> Message {
        let message = &self.message;
        let name_of =
            |queue: QueueId| topology.queue_by_id(queue).map(|queue| queue.name.to_string()).unwrap_or_default();
        let mut headers = Table::default();
        headers.insert("exchange_name", text(message.exchange()));
        let list = Properties::parse(message.properties())
            .map(|properties| PropertyList::from(&properties))
            .unwrap_or_default();
        let mut keys = vec![text(message.routing_key())];
        if let Some(Value::Array(more)) = list.headers.as_ref().and_then(|headers| headers.get("CC")) {
            keys.extend_from_slice(more);
        }
        headers.insert("routing_keys", Value::Array(keys));
        headers.insert("properties", Value::Table(table(&list)));
        headers.insert("node", text(&by.settings.node));
        headers.insert("vhost", text(&by.vhost_name));
        headers.insert("connection", text(connection));
        headers.insert("channel", Value::I32(i32::from(self.channel.0)));
        headers.insert("user", text(&by.user));
        let key = match &self.passage {
            Passage::Published { to } => {
                headers.insert("routed_queues", Value::Array(to.iter().map(|queue| text(&name_of(*queue))).collect()));
                format!("publish.{}", message.exchange())
            }
            Passage::Delivered { from, redelivered } => {
                headers.insert("redelivered", Value::I32(i32::from(*redelivered)));
                format!("deliver.{}", name_of(*from))
            }
        };
        let mut properties = BytesMut::new();
        PropertyList { headers: Some(headers), ..PropertyList::default() }.encode(&mut properties);
        // A name of 255 bytes and the word before it are longer than a key may be.
        let routing_key = &key[..key.floor_char_boundary(KEY_BYTES_MAX)];
        Message::new(
            MessageParts { exchange: TRACE, routing_key, properties: &properties, died_here: false },
            message.body(),
        )
    }
}

/// Properties under RabbitMQ's names.
fn table(list: &PropertyList) -> Table {
    let strings = [
        ("content_type", &list.content_type),
        ("content_encoding", &list.content_encoding),
        ("correlation_id", &list.correlation_id),
        ("reply_to", &list.reply_to),
        ("expiration", &list.expiration),
        ("message_id", &list.message_id),
        ("type", &list.kind),
        ("user_id", &list.user_id),
        ("app_id", &list.app_id),
        ("cluster_id", &list.cluster_id),
    ];
    let mut table = Table::default();
    for (name, value) in strings {
        if let Some(value) = value {
            table.insert(name, Value::Str(value.clone()));
        }
    }
    if let Some(headers) = &list.headers {
        table.insert("headers", Value::Table(headers.clone()));
    }
    for (name, value) in [("delivery_mode", list.delivery_mode), ("priority", list.priority)] {
        if let Some(value) = value {
            table.insert(name, Value::I32(i32::from(value)));
        }
    }
    if let Some(timestamp) = list.timestamp {
        table.insert("timestamp", Value::Timestamp(timestamp));
    }
    table
}

fn text(text: &str) -> Value {
    Value::Str(text.as_bytes().to_vec())
}

/// The exchange that gets the copies.
const TRACE: &str = "amq.rabbitmq.trace";
const KEY_BYTES_MAX: usize = 255;
