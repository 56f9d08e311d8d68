//! Streams: what is in them stays, in the order in which it came, and every reader gets all of it from some place on.

use super::{Ledger, index, number_of};
use crate::trace;
use broker::command::{ConnectionId, ConsumerNumber, Delivery, QueueId, ShardId};
use broker::inspect::QueueView;
use std::collections::BTreeMap;

/// A stream, from which nothing is dropped.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Messages by offset.
    messages: Vec<usize>,
    /// A crash leaves at least so many.
    certain: usize,
    /// Which offset comes next for whom.
    readers: BTreeMap<(ConnectionId, ConsumerNumber), u64>,
}

impl Ledger {
    /// A message was published to a stream.
    pub(super) fn append(&mut self, queue: QueueId, message: usize) {
        let stream = self.streams.entry(queue).or_default();
        self.in_streams.insert(message, (queue, stream.messages.len()));
        stream.messages.push(message);
        self.counts.copies += 1;
    }

    /// Whether a message that is in a stream is known to be stored there; true for one that is in none.
    pub(super) fn is_stored_in_stream(&self, number: u64) -> bool {
        let place = self.in_streams.get(&index(number));
        place.is_none_or(|(queue, offset)| self.streams.get(queue).is_none_or(|stream| *offset < stream.certain))
    }

    /// A shard says that it has stored a message.
    pub(super) fn stored_in_stream(&mut self, shard: ShardId, message: usize) {
        if let Some((queue, offset)) = self.in_streams.get(&message)
            && self.queues[queue].spec.queue.shard == shard
            && let Some(stream) = self.streams.get_mut(queue)
        {
            stream.certain = stream.certain.max(offset + 1);
        }
    }

    /// A reader got a message.
    pub(super) fn read(&mut self, connection: ConnectionId, delivery: &Delivery) {
        let (number, queue) = (number_of(&delivery.message), delivery.queue.id);
        let offset = delivery.offset().expect("it is from a stream");
        trace::note(format_args!("  m{number} of stream {:x} at {offset} to {connection:?}", queue.0));
        self.counts.deliveries += 1;
        let stream = self.streams.get_mut(&queue).expect("something was published to it");
        let found = usize::try_from(offset).ok().and_then(|offset| stream.messages.get(offset));
        assert_eq!(found, Some(&index(number)), "m{number} comes from offset {offset} of a stream");
        assert!(!delivery.redelivered && !delivery.no_ack, "m{number} of a stream");
        let next = stream.readers.insert((connection, delivery.consumer), offset + 1);
        assert!(next.is_none_or(|next| next == offset), "m{number} comes at {offset}, and {next:?} is next");
        // What somebody has seen is there for ever.
        self.is_just_seen |= stream.certain <= index(offset);
        stream.certain = stream.certain.max(index(offset) + 1);
    }

    /// Whether somebody has seen what nobody was promised, since this was asked last: the moment when a crash tells most.
    pub fn has_just_seen(&mut self) -> bool {
        std::mem::take(&mut self.is_just_seen)
    }

    /// The server is no more: its connections are gone, and what was promised is left.
    pub(super) fn leave_streams(&mut self, is_clean: bool) {
        for stream in self.streams.values_mut() {
            stream.readers.clear();
            if is_clean {
                stream.certain = stream.messages.len();
            }
        }
    }

    /// The server is back with this.
    pub(super) fn recover_stream(&mut self, view: &QueueView) {
        let Some(stream) = self.streams.get_mut(&view.spec.queue.id) else { return };
        let (found, certain) = (index(view.ready), stream.certain);
        assert!(found >= certain, "a stream has {found} messages, and {certain} were promised or seen");
        for lost in stream.messages.drain(found.min(stream.messages.len())..) {
            self.in_streams.remove(&lost);
        }
        stream.certain = stream.messages.len();
    }

    /// How a stream is shown.
    pub(super) fn inspect_stream(&self, view: &QueueView) {
        let there = self.streams.get(&view.spec.queue.id).map_or(0, |stream| stream.messages.len() as u64);
        assert_eq!((view.ready, view.unacked, view.delayed), (there, 0, 0), "stream {}", view.spec.name);
    }

    /// Somebody has read each stream to its end.
    pub(super) fn check_streams_at_rest(&self) {
        for (queue, stream) in &self.streams {
            let end = stream.messages.len() as u64;
            let is_read = stream.readers.is_empty() || stream.readers.values().any(|next| *next == end);
            assert!(is_read, "nobody comes to the end of stream {:x}, {end}: {:?}", queue.0, stream.readers);
        }
    }
}
