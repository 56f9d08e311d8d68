//! Messages come back from the log: to be delivered, or to be dead-lettered.
//!
//! A queue reads ahead of its consumers, one read at a time, and never more than a share of what may be near.

use super::Shard;
use super::dead_letter::Dead;
use super::slots::Slot;
use crate::command::{ConnectionEvent, ConnectionId, Outcome};
use crate::message::Message;
use crate::queue::backlog::Run;
use crate::queue::ready::{Body, Head};
use crate::queue::{Getter, Queue};
use amqp::ChannelId;
use bytes::Bytes;
use store::{Lsn, LsnRange, QueueId, Store};

/// What a read is for.
#[derive(Debug)]
pub(super) enum Reading {
    /// A queue's next messages.
    Ahead {
        /// The queue, which may be gone by the time of the answer.
        queue: QueueId,
        /// What was asked for, in order.
        runs: Vec<Run>,
        /// What that takes in memory, about.
        bytes: u64,
    },
    /// A message that died.
    Dead(Dead),
}

impl<S: Store> Shard<S> {
    /// Has the next far messages of the queue read, of all or of one priority, unless some are being read.
    pub(super) fn read_ahead(&mut self, slot: Slot<Queue>, priority: Option<u8>) {
        let near = self.settings.near;
        let queue = &mut self.queues[slot];
        if queue.is_reading {
            return;
        }
        let is_short = self.near_bytes + self.reading_bytes >= near.bytes;
        let bytes = if is_short { near.queue_bytes / 64 } else { near.queue_bytes / 2 };
        let runs = queue.ready.next_far(priority, bytes);
        if runs.is_empty() {
            return;
        }
        self.last_read += 1;
        queue.is_reading = true;
        let id = queue.spec.queue.id;
        self.log.read(self.last_read, &ranges(&runs));
        let bytes = runs.iter().map(Run::near_bytes).sum();
        self.reading_bytes += bytes;
        self.readings.insert(self.last_read, Reading::Ahead { queue: id, runs, bytes });
    }

    /// Keeps some messages ready for those who will want them.
    pub(super) fn keep_reading(&mut self, slot: Slot<Queue>) {
        let near = self.settings.near;
        let queue = &self.queues[slot];
        let is_used = queue.consumers > 0 && queue.ready.near_bytes() < near.queue_bytes / 2;
        if is_used && self.near_bytes + self.reading_bytes < near.bytes && queue.ready.has_any_far() {
            self.read_ahead(slot, None);
        }
    }

    /// Has a message read that died while it was far.
    pub(super) fn read_dead(&mut self, dead: Dead) {
        if self.dead_reading >= DEAD_AT_ONCE {
            return self.dead_unread.push_back(dead);
        }
        self.dead_reading += 1;
        self.last_read += 1;
        self.log.read(self.last_read, &[LsnRange { first: dead.entry.lsn, count: 1 }]);
        self.readings.insert(self.last_read, Reading::Dead(dead));
    }

    /// What was asked for is here.
    pub(super) fn hear_read(&mut self, ticket: u64, messages: Vec<(Lsn, Bytes)>) {
        match self.readings.remove(&ticket) {
            None => {}
            Some(Reading::Ahead { queue, runs, bytes }) => {
                self.reading_bytes -= bytes;
                let Some(&slot) = self.queue_slots.get(&queue) else { return };
                self.queues[slot].is_reading = false;
                self.bring_near(slot, &runs, messages);
                self.count_near(slot);
                self.expire(slot, self.now.unix_ms);
                self.serve_getters(slot);
                self.touch(slot);
            }
            Some(Reading::Dead(mut dead)) => {
                self.dead_reading -= 1;
                if let Some(next) = self.dead_unread.pop_front() {
                    self.read_dead(next);
                }
                if let Some(&slot) = self.queue_slots.get(&dead.queue.queue.id) {
                    self.queues[slot].end_move(&dead.entry);
                }
                let Some((_, bytes)) = messages.into_iter().next() else { return };
                match Message::parse(bytes) {
                    Ok(message) => dead.entry.body = Body::Here(message),
                    Err(_) => return self.fail_to_read(dead.entry.lsn),
                }
                self.dead.push_back(dead);
            }
        }
    }

    fn bring_near(&mut self, slot: Slot<Queue>, runs: &[Run], messages: Vec<(Lsn, Bytes)>) {
        let is_last = self.queues[slot].ready.far_len() <= messages.len();
        let mut messages = messages.into_iter().peekable();
        for run in runs {
            // Messages that lie together may share the memory that they were read into. Of a single one among others
            // that would be a waste, and so it would of the last ones, which nobody comes after.
            let may_share = run.count >= SHARED_MIN && !is_last;
            for message in run.messages() {
                let Some((_, bytes)) = messages.next_if(|(lsn, _)| *lsn == message.lsn) else { continue };
                let bytes = if may_share { bytes } else { Bytes::copy_from_slice(&bytes) };
                match Message::parse(bytes) {
                    Ok(body) => {
                        let place = (message.priority, message.seq);
                        self.queues[slot].ready.bring_near(place, message.lsn, body);
                    }
                    Err(_) => return self.fail_to_read(message.lsn),
                }
            }
        }
    }

    fn fail_to_read(&mut self, lsn: Lsn) {
        self.out.failed = Some(format!(
            "a message in the log of shard {} makes no sense (its record is {lsn:?}), though its checksum does. The \
             server stops; use the version of Leveret that wrote it, or restore the data directory from a backup",
            self.id.0
        ));
    }

    fn serve_getters(&mut self, slot: Slot<Queue>) {
        while let Some(getter) = self.queues.get_mut(slot).and_then(|queue| queue.getters.pop_front()) {
            let queue = &mut self.queues[slot];
            if matches!(queue.ready.first(), Some(Head::Far(_))) {
                queue.getters.push_front(getter);
                return self.read_ahead(slot, None);
            }
            let Some(&peer) = self.peer_slots.get(&getter.connection) else { continue };
            let outcome = self.take_from(peer, getter.channel, slot, getter.no_ack);
            self.expire(slot, self.now.unix_ms);
            self.tell(getter.connection, ConnectionEvent::Done { call: getter.call, outcome });
        }
    }

    /// A channel that is closed gets nothing more; its connection is told so, since it waits for an answer.
    pub(super) fn forget_getters(&mut self, connection: ConnectionId, channel: ChannelId) {
        if self.readings.is_empty() {
            return;
        }
        let read = self.readings.values().filter_map(|reading| match reading {
            Reading::Ahead { queue, .. } => Some(*queue),
            Reading::Dead(_) => None,
        });
        let mut calls = Vec::new();
        for slot in read.filter_map(|queue| self.queue_slots.get(&queue)) {
            let getters = &mut self.queues[*slot].getters;
            let is_gone = |getter: &Getter| (getter.connection, getter.channel) == (connection, channel);
            calls.extend(getters.iter().filter(|getter| is_gone(getter)).map(|getter| getter.call));
            getters.retain(|getter| !is_gone(getter));
        }
        for call in calls {
            self.tell(connection, ConnectionEvent::Done { call, outcome: Outcome::Empty });
        }
    }

    /// Messages of this queue that are in none of its lists: they died, and their letters are not stored yet.
    pub(super) fn moving_runs(&self, id: QueueId) -> impl Iterator<Item = Run> {
        let moving = self.moving.values().filter(move |moving| moving.queue == id).map(|moving| moving.entry.run());
        let read = self.readings.values().filter_map(move |reading| match reading {
            Reading::Dead(dead) if dead.queue.queue.id == id => Some(dead.entry.run()),
            _ => None,
        });
        let unread = self.dead_unread.iter().filter(move |dead| dead.queue.queue.id == id).map(|dead| dead.entry.run());
        moving.chain(read).chain(unread)
    }

    /// Notes what a queue's near messages take.
    pub(super) fn count_near(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        let now = queue.near_bytes();
        self.near_bytes = self.near_bytes + now - queue.counted_bytes;
        queue.counted_bytes = now;
    }
}

/// Where the log has them, in the same order.
fn ranges(runs: &[Run]) -> Vec<LsnRange> {
    let mut ranges: Vec<LsnRange> = Vec::with_capacity(runs.len());
    for run in runs {
        match ranges.last_mut() {
            Some(last) if last.first.plus(u64::from(last.count)) == run.lsn => last.count += run.count,
            _ => ranges.push(LsnRange { first: run.lsn, count: run.count }),
        }
    }
    ranges
}

/// From so many messages that lie together on, they may share memory.
const SHARED_MIN: u32 = 32;
/// How many messages that died are read at once.
const DEAD_AT_ONCE: usize = 256;
