//! What a connection tells of messages whose publishers have them traced: when one came, where it went, what became of it.
//!
//! Each note is told in the step that it is of; its host, which has the clock, knows when that is.

use crate::command::QueueId;
use crate::message::Message;
use crate::trace_context::TraceContext;
use amqp::ChannelId;
use std::sync::Arc;

/// Tells apart what one connection tells of; never used twice from when it begins to tell until it is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanNumber(pub u64);

/// Something that happened to a traced message.
#[derive(Debug)]
pub enum SpanNote {
    /// A client published it.
    Published(Published),
    /// A client was given it.
    Delivered(Delivered),
    /// What was told before under this number has ended.
    Ended {
        /// The number.
        span: SpanNumber,
        /// How.
        how: SpanEnd,
    },
}

/// A message that a client published.
#[derive(Debug)]
pub struct Published {
    /// Its number.
    pub span: SpanNumber,
    /// By which channel.
    pub channel: ChannelId,
    /// Whose span it belongs to.
    pub context: TraceContext,
    /// The message.
    pub message: Message,
    /// Where it went.
    pub queues: Vec<QueueId>,
    /// How it ended, if it did at once; else [`SpanNote::Ended`] follows.
    pub end: Option<SpanEnd>,
}

/// A message that a client was given.
#[derive(Debug)]
pub struct Delivered {
    /// Its number.
    pub span: SpanNumber,
    /// By which channel.
    pub channel: ChannelId,
    /// Whose span it belongs to.
    pub context: TraceContext,
    /// The message.
    pub message: Message,
    /// Where it was.
    pub queue: QueueId,
    /// To which consumer, by its tag; `None` for basic.get.
    pub consumer: Option<Arc<str>>,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// As [`Published::end`].
    pub end: Option<SpanEnd>,
}

/// How a publish or a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanEnd {
    /// Published: on its way to its queues, and nobody waits for more.
    Routed,
    /// Published: there is no queue for it.
    Unroutable,
    /// Published: all its queues have it, as safe as it was promised to be.
    Confirmed,
    /// Published: a queue refused it.
    Refused,
    /// Published: its channel ended before it was confirmed.
    Unconfirmed,
    /// Delivered to somebody who does not acknowledge.
    Sent,
    /// Delivered and done.
    Acknowledged,
    /// Delivered, and not wanted: dropped or dead-lettered.
    Rejected,
    /// Delivered, and back in its queue.
    Requeued,
    /// Delivered, and given back as if it had not been.
    Returned,
    /// Delivered, and back because its channel ended or its time was over.
    Abandoned,
    /// Delivered, and more is not told: its connection holds too many that are.
    Unfollowed,
}
