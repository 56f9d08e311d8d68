//! Streams: their consumers read, each from its own place, and what is too old or too much goes.
//!
//! A consumer waits for the disk, or for its own settlements, or for new messages; none of that holds up others or those
//! who publish. What it is to get next is in memory if it keeps up, and is otherwise read ahead for it alone, as much as
//! it may have unsettled and no more than a part of a mebibyte.

use super::Shard;
use super::log::Waiter;
use super::peers::Peer;
use super::read::{Reading, parsed, ranges};
use super::slots::Slot;
use super::timers::Due;
use crate::command::{Consume, Delivery, Fault, QueueSpec, Settle, Settlement};
use crate::message::Message;
use crate::queue::ready::NEAR_BYTES;
use crate::queue::run::Run;
use crate::queue::stream::{Filter, Next, Offset, Reader, second_is_over_ms};
use crate::queue::{Holder, Queue, Turn};
use amqp::ReplyCode;
use bytes::Bytes;
use std::num::NonZeroU64;
use store::{Lsn, QueueId, Seq, Store};

/// What a new consumer of a stream asked for.
#[derive(Debug)]
pub(super) struct Wish {
    from: Seq,
    filter: Option<Filter>,
}

/// How a consumer's turn ended.
enum Served {
    /// It waits for room, and is no more among those who can receive.
    Full,
    /// There is nothing for it, or nothing yet.
    Idle,
    /// It had its share.
    More,
}

impl<S: Store> Shard<S> {
    /// What [`Self::dispatch`] is for other queues.
    pub(super) fn dispatch_stream(&mut self, slot: Slot<Queue>) {
        let near = self.settings.near;
        let is_short = self.near_bytes + self.reading_bytes >= near.bytes;
        let log = &self.log;
        if let Some(stream) = &mut self.queues[slot].stream {
            stream.tail_bytes_max = if is_short { near.queue_bytes / SHORT } else { near.queue_bytes / 4 };
            stream.note_durable(|lsn| log.is_durable(lsn));
        }
        self.shorten(slot);
        if !self.queues[slot].is_paused {
            self.serve_readers(slot);
        }
        self.count_stream(slot);
        let queue = &mut self.queues[slot];
        if queue.consumers > 0 {
            queue.utilisation.note(!queue.rotation.is_empty(), self.now.ms);
        }
        queue.check();
        self.arm_age_timer(slot);
    }

    // --- consumers ------------------------------------------------------------------------------------------------

    /// Checks what a consumer asks for of a stream.
    pub(super) fn wish(&self, peer: Slot<Peer>, slot: Slot<Queue>, consume: &Consume) -> Result<Wish, Fault> {
        let queue = &self.queues[slot];
        let title = queue.spec.title();
        for key in ["x-priority", "x-consumer-timeout"] {
            if consume.arguments.contains_key(key) {
                return Err(of_another_type(&queue.spec, key));
            }
        }
        let offset = Offset::parse(consume.arguments.get(OFFSET), self.now.unix_ms).map_err(|why| {
            Fault::new(ReplyCode::PreconditionFailed, format!("invalid arg '{OFFSET}' for {title}: {why}"))
        })?;
        if consume.prefetch == 0 {
            let text = format!("consumer prefetch count is not set for stream {title}");
            return Err(Fault::new(ReplyCode::PreconditionFailed, text));
        }
        if consume.no_ack {
            return Err(unsupported(format!("automatic acknowledgement not supported by stream {title}")));
        }
        let channel = self.peers[peer].channels.get(&consume.channel);
        if channel.is_some_and(|channel| self.channels[*channel].limit > 0) {
            return Err(unsupported(format!("{title} does not support global qos")));
        }
        if queue.stream.as_ref().is_none_or(|stream| !stream.has_room()) {
            return Err(Fault::new(ReplyCode::ResourceError, format!("{title} has too many consumers")));
        }
        let from = offset.find(&queue.ready, queue.next_seq());
        Ok(Wish { from, filter: Filter::parse(&consume.arguments) })
    }

    /// The consumer may read.
    pub(super) fn add_reader(&mut self, slot: Slot<Queue>, holder: Slot<Holder>, wish: Wish) {
        if let Some(stream) = &mut self.queues[slot].stream {
            stream.add_reader(holder, wish.from, wish.filter);
        }
    }

    /// Deliveries are settled. However that is, they make room for others and leave no trace.
    pub(super) fn settle_reads(&mut self, slot: Slot<Queue>, peer: Slot<Peer>, settle: &Settle) {
        for delivery in settle.seqs() {
            let queue = &mut self.queues[slot];
            let Some(stream) = &mut queue.stream else { return };
            let Some(holder_slot) = stream.holder_of(Reader::of_delivery(delivery)) else { continue };
            let holder = &queue.holders[holder_slot];
            if self.channels[holder.channel].peer != peer {
                continue;
            }
            let Some(reader) = stream.reader_mut(holder_slot) else { continue };
            reader.unsettled = reader.unsettled.saturating_sub(1);
            let is_full = holder.prefetch != 0 && reader.unsettled >= holder.prefetch;
            match settle.how {
                Settlement::Ack => queue.counters.ack += 1,
                Settlement::Discard => queue.counters.rejected += 1,
                Settlement::Requeue | Settlement::Unsent => {}
            }
            queue.last_busy_unix_ms = self.now.unix_ms;
            if holder.turn == Turn::Full && !is_full {
                queue.join_rotation(holder_slot);
                self.touch(slot);
            }
        }
    }

    fn serve_readers(&mut self, slot: Slot<Queue>) {
        let Some(stream) = &mut self.queues[slot].stream else { return };
        let mut idle = std::mem::take(&mut stream.idle);
        let mut looks = LOOKS_AT_ONCE;
        while let Some(consumer) = self.queues[slot].rotation.next() {
            match self.serve_reader(slot, consumer, &mut looks) {
                Served::Full => self.read_for(slot, consumer),
                Served::Idle => {
                    self.read_for(slot, consumer);
                    idle.push(consumer);
                }
                Served::More if looks == 0 => {
                    idle.push(consumer);
                    self.drop_more_later(slot);
                }
                Served::More => self.queues[slot].join_rotation(consumer),
            }
        }
        let queue = &mut self.queues[slot];
        idle.drain(..).for_each(|consumer| queue.join_rotation(consumer));
        if let Some(stream) = &mut queue.stream {
            stream.idle = idle;
        }
    }

    /// Delivers to one consumer, up to its share.
    fn serve_reader(&mut self, slot: Slot<Queue>, consumer: Slot<Holder>, looks: &mut usize) -> Served {
        for _ in 0..SHARE {
            let queue = &mut self.queues[slot];
            let (Some(stream), holder) = (&mut queue.stream, &mut queue.holders[consumer]) else { return Served::Idle };
            let unsettled = stream.reader(consumer).map_or(u32::MAX, |reader| reader.unsettled);
            let peer_slot = self.channels[holder.channel].peer;
            let peer = &mut self.peers[peer_slot];
            if holder.prefetch != 0 && unsettled >= holder.prefetch {
                holder.turn = Turn::Full;
                return Served::Full;
            }
            if peer.is_over() {
                holder.turn = Turn::Connection;
                peer.waiting.push_back((slot, consumer));
                return Served::Full;
            }
            if *looks == 0 {
                return Served::More;
            }
            *looks -= 1;
            match stream.next_for(consumer) {
                Next::Message(seq, message) => {
                    if stream.reader(consumer).is_some_and(|reader| reader.wants(&message)) {
                        self.deliver_from_stream(slot, consumer, seq, message);
                    }
                }
                Next::Unread | Next::Awaited => return Served::Idle,
                Next::End => {
                    self.await_durable(slot);
                    return Served::Idle;
                }
            }
        }
        Served::More
    }

    fn deliver_from_stream(&mut self, slot: Slot<Queue>, consumer: Slot<Holder>, seq: Seq, message: Message) {
        let queue = &mut self.queues[slot];
        let Some(reader) = queue.stream.as_mut().and_then(|stream| stream.reader_mut(consumer)) else { return };
        let holder = &queue.holders[consumer];
        let delivery = Delivery {
            channel: holder.channel_id,
            consumer: holder.number,
            queue: queue.spec.queue,
            seq: reader.deliver(),
            redelivered: false,
            attempts: 0,
            place: NonZeroU64::new(seq.0),
            no_ack: false,
            message,
        };
        queue.counters.deliver += 1;
        queue.last_busy_unix_ms = self.now.unix_ms;
        let peer = self.channels[holder.channel].peer;
        if self.peers[peer].events.is_empty() {
            self.addressed.push(peer);
        }
        self.peers[peer].deliver(delivery);
    }

    /// Somebody has read all that is durable: what is not is to be so soon.
    fn await_durable(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        let id = queue.spec.queue.id;
        if let Some(stream) = &mut queue.stream
            && !stream.is_awaiting
            && let Some(lsn) = stream.awaited()
        {
            stream.is_awaiting = true;
            self.when_durable(lsn, Waiter::Stream(id));
        }
    }

    /// It is.
    pub(super) fn stream_is_durable(&mut self, queue: QueueId) {
        let Some(&slot) = self.queue_slots.get(&queue) else { return };
        if let Some(stream) = &mut self.queues[slot].stream {
            stream.is_awaiting = false;
            self.touch(slot);
        }
    }

    // --- reading --------------------------------------------------------------------------------------------------

    /// Has the next messages of a consumer read, if they are not in memory and it does not have enough.
    fn read_for(&mut self, slot: Slot<Queue>, consumer: Slot<Holder>) {
        let near = self.settings.near;
        let is_short = self.near_bytes + self.reading_bytes >= near.bytes;
        let most = near.queue_bytes / if is_short { SHORT } else { 16 };
        let queue = &mut self.queues[slot];
        let Some(stream) = &mut queue.stream else { return };
        let until = stream.unread_until();
        let Some(reader) = stream.reader_mut(consumer) else { return };
        let from = reader.unread_from();
        if reader.is_reading || from > until || reader.ahead_bytes() > most / 2 {
            return;
        }
        let count = u64::from(queue.holders[consumer].prefetch).saturating_mul(2).max(READ_MIN);
        let runs = next_runs(queue.ready.of_priority(0, from), until, count, most);
        if runs.is_empty() {
            // They are gone. There may be something behind them.
            reader.skip(until);
            if stream.unread_until() < stream.readable() {
                self.drop_more_later(slot);
            }
            return;
        }
        reader.is_reading = true;
        let (queue, reader) = (queue.spec.queue.id, reader.id());
        self.last_read += 1;
        self.log.read(self.last_read, &ranges(&runs));
        let bytes = runs.iter().map(Run::near_bytes).sum();
        self.reading_bytes += bytes;
        self.readings.insert(self.last_read, Reading::Stream { queue, reader, runs, bytes });
    }

    /// They are here.
    pub(super) fn hear_stream(&mut self, queue: QueueId, reader: u32, runs: &[Run], messages: Vec<(Lsn, Bytes)>) {
        let Some(&slot) = self.queue_slots.get(&queue) else { return };
        let queue = &mut self.queues[slot];
        let Some(stream) = &mut queue.stream else { return };
        let Some(holder) = stream.holder_of(reader) else { return };
        if let Some(reader) = stream.reader_mut(holder) {
            reader.is_reading = false;
        }
        let mut messages = messages.into_iter().peekable();
        'all: for run in runs {
            for wanted in run.messages() {
                let Some((lsn, bytes)) = messages.next_if(|(lsn, _)| *lsn == wanted.lsn) else {
                    if queue.ready.find((0, wanted.seq)).is_some() {
                        // It was written elsewhere meanwhile, and has to be read there before what follows.
                        break 'all;
                    }
                    continue;
                };
                let Ok(message) = parsed(bytes, run) else { return self.fail_to_read(lsn) };
                stream.add_ahead(holder, wanted.seq, message);
            }
        }
        self.touch(slot);
    }

    /// Notes what its messages take in memory.
    fn count_stream(&mut self, slot: Slot<Queue>) {
        if let Some(stream) = &mut self.queues[slot].stream {
            let now = stream.near_bytes();
            self.near_bytes = self.near_bytes + now - stream.counted_bytes;
            stream.counted_bytes = now;
        }
    }

    // --- retention ------------------------------------------------------------------------------------------------

    /// Drops from the head what is too old, and a piece of what is too much; if that is a lot, some of it in the next
    /// steps.
    fn shorten(&mut self, slot: Slot<Queue>) {
        let mut is_any = false;
        while let Some((count, is_old)) = self.outdated(slot) {
            if self.droppable == 0 {
                self.drop_more_later(slot);
                break;
            }
            self.droppable -= 1;
            let queue = &mut self.queues[slot];
            let Some(run) = queue.ready.pop_far(count) else { break };
            let counter = if is_old { &mut queue.counters.expired } else { &mut queue.counters.maxlen };
            *counter += u64::from(run.count);
            queue.leave(u64::from(run.count));
            self.vacate_run(slot, &run);
            is_any = true;
        }
        let queue = &mut self.queues[slot];
        if is_any && let Some(stream) = &mut queue.stream {
            let first = queue.ready.first_run().map_or(Seq(u64::MAX), |run| run.seq);
            stream.forget_below(first);
        }
    }

    /// How many of the first messages have to go, as far as they are alike, and whether that is for their age.
    fn outdated(&mut self, slot: Slot<Queue>) -> Option<(u32, bool)> {
        let queue = &mut self.queues[slot];
        let settings = &queue.spec.settings;
        let (first, body_bytes) = (queue.ready.first_run()?, queue.ready.body_bytes());
        let is_old = |max_age_ms: u64| second_is_over_ms(&first).saturating_add(max_age_ms) <= self.now.unix_ms;
        if settings.max_age_ms.is_some_and(is_old) {
            return Some((first.count, true));
        }
        let max = settings.bytes_max?;
        let piece = settings.segment_bytes.unwrap_or(u64::MAX).min(max / PIECES);
        let stream = queue.stream.as_mut()?;
        stream.is_shrinking |= body_bytes > max;
        stream.is_shrinking &= body_bytes > max - piece;
        if !stream.is_shrinking {
            return None;
        }
        let each = u64::from(first.payload_bytes - first.header_bytes).max(1);
        let count = (body_bytes - (max - piece)).div_ceil(each).min(u64::from(first.count));
        Some((u32::try_from(count).unwrap_or(u32::MAX), false))
    }

    fn arm_age_timer(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        let Some(max_age_ms) = queue.spec.settings.max_age_ms else { return };
        let Some(first) = queue.ready.first_run() else { return };
        let due_ms = second_is_over_ms(&first).saturating_add(max_age_ms);
        let at_ms = self.now.ms.saturating_add(due_ms.saturating_sub(self.now.unix_ms)).max(1);
        // One that runs out too early only looks again.
        if queue.expiry_timer_ms == 0 || at_ms < queue.expiry_timer_ms {
            self.timers.set(&mut queue.expiry_timer_ms, at_ms, queue.spec.queue.id, Due::Expiry);
        }
    }
}

/// The messages that come next, as runs: at least one, if there is one.
fn next_runs(messages: impl Iterator<Item = Run>, until: Seq, mut count: u64, mut bytes: u64) -> Vec<Run> {
    let mut next: Vec<Run> = Vec::new();
    for run in messages.take_while(|run| run.seq <= until) {
        let each = u64::from(run.payload_bytes) + NEAR_BYTES;
        let fit = (bytes / each).max(u64::from(next.is_empty())).min(count).min(until.0 - run.seq.0 + 1);
        let taken = u64::from(run.count).min(fit) as u32;
        if taken > 0 {
            next.push(Run { count: taken, ..run });
        }
        bytes = bytes.saturating_sub(each * u64::from(taken));
        count -= u64::from(taken);
        if taken < run.count || count == 0 {
            break;
        }
    }
    next
}

/// basic.get, from a stream.
pub(super) fn no_get(queue: &QueueSpec) -> Fault {
    unsupported(format!("basic.get not supported by stream queues {}", queue.title()))
}

/// queue.purge of a stream.
pub(super) fn no_purge(queue: &QueueSpec) -> Fault {
    unsupported(format!("queue.purge not supported by stream queues {}", queue.title()))
}

/// A consumer's argument that only consumers of other queues have.
pub(super) fn of_another_type(queue: &QueueSpec, key: &str) -> Fault {
    let text = format!("invalid arg '{key}' for {} of queue type {}", queue.title(), queue.settings.kind.module());
    Fault::new(ReplyCode::PreconditionFailed, text)
}

fn unsupported(text: String) -> Fault {
    Fault::new(ReplyCode::NotImplemented, text)
}

/// Where a consumer begins.
pub(super) const OFFSET: &str = "x-stream-offset";
/// How many messages a consumer gets before it is the next one's turn.
const SHARE: usize = 256;
/// How many messages are looked at in a step: that takes a few milliseconds.
const LOOKS_AT_ONCE: usize = 32 << 10;
/// So many are read at once at least, if there is room for them.
const READ_MIN: u64 = 64;
/// When memory is short, this part of what else a queue could have.
const SHORT: u64 = 256;
/// A stream that is too long drops this part of what it may have, and not a message for each that comes.
const PIECES: u64 = 64;
