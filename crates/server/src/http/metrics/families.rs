//! Numbers of single objects, in the families that RabbitMQ's `/metrics/detailed` divides them into.

use super::page::IntoNumber as _;
use broker::inspect::{ChannelView, ConnectionView, ExchangeCounters, QueueView};

/// A number of each `T`: its name after the prefix, its kind, what it says, and how to get it.
pub(super) type Metric<T> = (&'static str, &'static str, &'static str, fn(&T) -> f64);

/// A family: its name in `?family=`, and its numbers.
pub(super) type Family<T> = (&'static str, &'static [Metric<T>]);

const G: &str = "gauge";
const C: &str = "counter";

/// Of queues.
pub(super) const QUEUES: &[Family<QueueView>] = &[
    (
        "queue_coarse_metrics",
        &[
            ("queue_messages_ready", G, "Messages ready to be delivered", |queue| queue.ready.number()),
            ("queue_messages_unacked", G, "Messages delivered and not acknowledged", |queue| queue.unacked.number()),
            ("queue_messages", G, "Messages ready, unacknowledged, delayed and dead", |queue| {
                queue.messages().number()
            }),
            ("queue_messages_delayed", G, "Messages that are not due yet", |queue| queue.delayed.number()),
            ("queue_messages_dlx", G, "Dead letters that nobody has taken yet", |queue| queue.owed.number()),
        ],
    ),
    ("queue_consumer_count", &[("queue_consumers", G, "Consumers on a queue", |queue| queue.consumers.len().number())]),
    (
        "queue_metrics",
        &[
            ("queue_consumers", G, "Consumers on a queue", |queue| queue.consumers.len().number()),
            ("queue_consumer_capacity", G, "Share of time in which consumers take at once", |queue| {
                queue.consumer_utilisation.unwrap_or_default()
            }),
            ("queue_consumer_utilisation", G, "Same as consumer capacity", |queue| {
                queue.consumer_utilisation.unwrap_or_default()
            }),
            ("queue_process_memory_bytes", G, "Memory in bytes used by the queue", |queue| queue.memory.number()),
            ("queue_messages_persistent", G, "Persistent messages", |queue| queue.persistent.number()),
            ("queue_messages_persistent_bytes", G, "Size in bytes of persistent messages", |queue| {
                queue.persistent_bytes.number()
            }),
            ("queue_messages_bytes", G, "Size in bytes of all messages", |queue| queue.bytes().number()),
            ("queue_messages_ready_bytes", G, "Size in bytes of ready messages", |queue| queue.ready_bytes.number()),
            ("queue_messages_unacked_bytes", G, "Size in bytes of unacked messages", |queue| {
                queue.unacked_bytes.number()
            }),
            ("queue_messages_delayed_bytes", G, "Size in bytes of messages not due yet", |queue| {
                queue.delayed_bytes.number()
            }),
            ("queue_head_message_timestamp", G, "Timestamp of the first message of the queue, if any", |queue| {
                queue.head_timestamp.unwrap_or_default().number()
            }),
            // Ours: RabbitMQ counts these for the node only.
            ("queue_messages_expired_total", C, "Messages that expired", |queue| queue.counters.expired.number()),
            ("queue_messages_rejected_total", C, "Messages that consumers rejected", |queue| {
                queue.counters.rejected.number()
            }),
            ("queue_messages_maxlen_total", C, "Messages that a full queue dropped", |queue| {
                queue.counters.maxlen.number()
            }),
            ("queue_messages_delivery_limit_total", C, "Messages that failed too often", |queue| {
                queue.counters.delivery_limit.number()
            }),
            ("queue_messages_deduplicated_total", C, "Messages not taken as duplicates", |queue| {
                queue.counters.deduplicated.number()
            }),
        ],
    ),
    (
        "queue_delivery_metrics",
        &[
            ("queue_get_ack_total", C, "Messages polled, to be acknowledged", |queue| queue.counters.get.number()),
            ("queue_get_total", C, "Messages polled, acknowledged at once", |queue| queue.counters.get_no_ack.number()),
            ("queue_messages_delivered_ack_total", C, "Messages delivered, to be acknowledged", |queue| {
                queue.counters.deliver.number()
            }),
            ("queue_messages_delivered_total", C, "Messages delivered, acknowledged at once", |queue| {
                queue.counters.deliver_no_ack.number()
            }),
            ("queue_messages_redelivered_total", C, "Messages delivered again", |queue| {
                queue.counters.redeliver.number()
            }),
            ("queue_messages_acked_total", C, "Messages acknowledged", |queue| queue.counters.ack.number()),
            ("queue_get_empty_total", C, "Polls of an empty queue", |queue| queue.counters.get_empty.number()),
        ],
    ),
    (
        "queue_exchange_metrics",
        // Through which exchange is not counted.
        &[("queue_messages_published_total", C, "Messages published to a queue", |queue| {
            queue.counters.publish.number()
        })],
    ),
];

/// Of queues, under names of our own.
pub(super) const OUR_QUEUES: &[Metric<QueueView>] = &[
    ("queue_oldest_ready_age_seconds", G, "How long ago the oldest ready message came; 0 = there is none", |queue| {
        seconds(queue.oldest_ready_ms)
    }),
    ("queue_oldest_unacked_age_seconds", G, "How long the oldest unacked message is so; 0 = there is none", |queue| {
        seconds(queue.oldest_unacked_ms)
    }),
    ("queue_late_leases", G, "Deliveries unacked for longer than half their timeout", |queue| {
        queue.late_leases.number()
    }),
    ("queue_paused", G, "1 if an operator paused the queue", |queue| queue.is_paused.number()),
];

/// Of connections.
pub(super) const CONNECTIONS: &[Family<ConnectionView>] = &[
    (
        "connection_coarse_metrics",
        &[
            ("connection_incoming_bytes_total", C, "Bytes received", |connection| connection.received_bytes.number()),
            ("connection_outgoing_bytes_total", C, "Bytes sent", |connection| connection.sent_bytes.number()),
        ],
    ),
    (
        "connection_metrics",
        &[
            ("connection_incoming_packets_total", C, "Reads from the socket", |connection| {
                connection.received_packets.number()
            }),
            ("connection_outgoing_packets_total", C, "Writes to the socket", |connection| {
                connection.sent_packets.number()
            }),
            // Bytes, where RabbitMQ counts packets.
            ("connection_pending_bytes", G, "Bytes that wait to be sent", |connection| {
                connection.unsent_bytes.number()
            }),
            ("connection_channels", G, "Channels of a connection", |connection| connection.channels.len().number()),
        ],
    ),
];

/// Of channels.
pub(super) const CHANNELS: &[Family<ChannelView>] = &[
    (
        "channel_metrics",
        &[
            ("channel_consumers", G, "Consumers on a channel", |channel| u64::from(channel.consumers).number()),
            ("channel_messages_unacked", G, "Delivered and not acknowledged", |channel| channel.unacked.number()),
            ("channel_messages_unconfirmed", G, "Published and not confirmed", |channel| channel.unconfirmed.number()),
            ("channel_messages_uncommitted", G, "Published and not committed", |channel| channel.uncommitted.number()),
            ("channel_acks_uncommitted", G, "Acknowledged and not committed", |channel| {
                channel.acks_uncommitted.number()
            }),
            ("consumer_prefetch", G, "Limit of unacknowledged messages for each consumer", |channel| {
                u64::from(channel.prefetch).number()
            }),
            ("channel_prefetch", G, "Limit of unacknowledged messages for all consumers on a channel", |channel| {
                u64::from(channel.prefetch_channel).number()
            }),
        ],
    ),
    (
        "channel_queue_metrics",
        &[
            ("channel_get_ack_total", C, "Messages polled, to be acknowledged", |channel| {
                channel.counters.get.number()
            }),
            ("channel_get_total", C, "Messages polled, acknowledged at once", |channel| {
                channel.counters.get_no_ack.number()
            }),
            ("channel_messages_delivered_ack_total", C, "Messages delivered, to be acknowledged", |channel| {
                channel.counters.deliver.number()
            }),
            ("channel_messages_delivered_total", C, "Messages delivered, acknowledged at once", |channel| {
                channel.counters.deliver_no_ack.number()
            }),
            ("channel_messages_redelivered_total", C, "Messages delivered again", |channel| {
                channel.counters.redeliver.number()
            }),
            ("channel_messages_acked_total", C, "Messages acknowledged", |channel| channel.counters.ack.number()),
            ("channel_get_empty_total", C, "Polls of an empty queue", |channel| channel.counters.get_empty.number()),
        ],
    ),
];

/// Of exchanges.
pub(super) const EXCHANGES: &[Metric<ExchangeCounters>] = &[
    ("exchange_messages_published_total", C, "Messages published into an exchange", |counted| counted.publish.number()),
    ("exchange_messages_confirmed_total", C, "Messages published into an exchange and confirmed", |counted| {
        counted.confirm.number()
    }),
    (
        "exchange_messages_unroutable_returned_total",
        C,
        "Mandatory messages published into an exchange and returned as unroutable",
        |counted| counted.return_unroutable.number(),
    ),
    (
        "exchange_messages_unroutable_dropped_total",
        C,
        "Messages published into an exchange and dropped as unroutable",
        |counted| counted.drop_unroutable.number(),
    ),
];

/// Of a channel at one exchange: the same under other names.
pub(super) const CHANNEL_EXCHANGES: &[Metric<ExchangeCounters>] = &[
    ("channel_messages_published_total", C, EXCHANGES[0].2, EXCHANGES[0].3),
    ("channel_messages_confirmed_total", C, EXCHANGES[1].2, EXCHANGES[1].3),
    ("channel_messages_unroutable_returned_total", C, EXCHANGES[2].2, EXCHANGES[2].3),
    ("channel_messages_unroutable_dropped_total", C, EXCHANGES[3].2, EXCHANGES[3].3),
];

pub(super) fn seconds(ms: Option<u64>) -> f64 {
    ms.unwrap_or_default().number() / 1000.0
}
