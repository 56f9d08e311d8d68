//! What clients say.

use amqp::method::{basic, channel, confirm, connection, exchange, queue};
use amqp::{ChannelId, content, frame};
use bytes::BytesMut;

/// The channel that every client has.
pub(crate) const CHANNEL: ChannelId = ChannelId(1);

/// From the first byte to an open channel.
pub(crate) fn hello() -> BytesMut {
    let mut out = BytesMut::from(&frame::PROTOCOL_HEADER[..]);
    let start_ok = connection::StartOk {
        client_properties: amqp::Table::new(),
        mechanism: "PLAIN",
        response: b"\0guest\0guest",
        locale: "en_US",
    };
    start_ok.encode(ChannelId::CONNECTION, &mut out);
    let tune_ok = connection::TuneOk { channel_max: 2047, frame_max: FRAME_MAX as u32, heartbeat: 0 };
    tune_ok.encode(ChannelId::CONNECTION, &mut out);
    connection::Open { vhost: "/" }.encode(ChannelId::CONNECTION, &mut out);
    channel::Open.encode(CHANNEL, &mut out);
    out
}

/// A durable queue.
pub(crate) fn declare(queue: &str, out: &mut BytesMut) {
    queue::Declare { queue, durable: true, nowait: true, ..Default::default() }.encode(CHANNEL, out);
}

/// A transient exchange: its bindings are not in the log and quickly made.
pub(crate) fn declare_exchange(exchange: &str, kind: &str, out: &mut BytesMut) {
    exchange::Declare { exchange, kind, nowait: true, ..Default::default() }.encode(CHANNEL, out);
}

/// Binds a queue.
pub(crate) fn bind(queue: &str, exchange: &str, routing_key: &str, out: &mut BytesMut) {
    queue::Bind { queue, exchange, routing_key, nowait: true, ..Default::default() }.encode(CHANNEL, out);
}

/// One message.
pub(crate) fn publish(exchange: &str, routing_key: &str, properties: &[u8], body: &[u8], out: &mut BytesMut) {
    basic::Publish { exchange, routing_key, ..Default::default() }.encode(CHANNEL, out);
    content::encode_content(CHANNEL, properties, body, FRAME_MAX, out);
}

/// Confirms, please.
pub(crate) fn select_confirms(out: &mut BytesMut) {
    confirm::Select { nowait: true }.encode(CHANNEL, out);
}

/// How long a delivery is.
pub(crate) fn delivery_bytes(
    consumer_tag: &str,
    exchange: &str,
    routing_key: &str,
    properties: &[u8],
    body_bytes: usize,
) -> u64 {
    let mut out = BytesMut::new();
    basic::Deliver { consumer_tag, exchange, routing_key, ..Default::default() }.encode(CHANNEL, &mut out);
    content::encode_content(CHANNEL, properties, &vec![0; body_bytes], FRAME_MAX, &mut out);
    out.len() as u64
}

/// So many deliveries at a time.
pub(crate) fn prefetch(prefetch_count: u16, out: &mut BytesMut) {
    basic::Qos { prefetch_size: 0, prefetch_count, global: false }.encode(CHANNEL, out);
}

/// Opens another channel.
pub(crate) fn open(channel: ChannelId, out: &mut BytesMut) {
    channel::Open.encode(channel, out);
}

/// Subscribes.
pub(crate) fn consume(channel: ChannelId, queue: &str, consumer_tag: &str, no_ack: bool, out: &mut BytesMut) {
    basic::Consume { queue, consumer_tag, no_ack, nowait: true, ..Default::default() }.encode(channel, out);
}

/// One ack for each of the deliveries 1 to `count`.
pub(crate) fn acks(count: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    for delivery_tag in 1..=count {
        basic::Ack { delivery_tag, multiple: false }.encode(CHANNEL, &mut out);
    }
    out.to_vec()
}

/// What [`acks`] has for each.
pub(crate) const ACK_BYTES: usize = 21;

/// As RabbitMQ's clients have it.
pub(crate) const FRAME_MAX: usize = 131_072;

/// A content header's properties: only that the message is transient, as load generators send them.
pub(crate) const TRANSIENT: &[u8] = b"\x10\x00\x01";

/// The same, persistent.
pub(crate) const PERSISTENT: &[u8] = b"\x10\x00\x02";
