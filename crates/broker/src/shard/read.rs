//! Messages come back from the log: to be delivered, or to be dead-lettered.
//!
//! A queue reads ahead of its consumers, one read at a time, and never more than a share of what may be near.

use super::Shard;
use super::consume::refuses_get;
use super::dead_letter::{Dead, Unread};
use super::operate::Scanning;
use super::shaped::Found;
use super::slots::Slot;
use super::view::timestamp;
use crate::command::{ConnectionEvent, ConnectionId, Outcome};
use crate::message::{Malformed, Message};
use crate::queue::groups::Group;
use crate::queue::ready::{Body, Entry, Head, NEAR_BYTES};
use crate::queue::run::Run;
use crate::queue::{Getter, Queue};
use crate::topology::Topology;
use amqp::ChannelId;
use bytes::Bytes;
use std::sync::Arc;
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
        /// Which they are.
        which: Ahead,
        /// All that was asked for together is read then.
        is_last: bool,
    },
    /// The next messages of groups.
    Parked {
        /// The queue, which may be gone by the time of the answer.
        queue: QueueId,
        /// What was asked for, in order.
        runs: Vec<Run>,
        /// What that takes in memory, about.
        bytes: u64,
        /// The groups that wait for it.
        groups: Vec<Slot<Group>>,
    },
    /// The next messages of one consumer of a stream.
    Stream {
        /// The queue, which may be gone by the time of the answer.
        queue: QueueId,
        /// The reader, which may be gone as well.
        reader: u32,
        /// What was asked for, in order.
        runs: Vec<Run>,
        /// What that takes in memory, about.
        bytes: u64,
    },
    /// Messages that died.
    Dead(Unread),
    /// Messages that an operator goes through.
    Scan(Box<Scanning>),
    /// The first message of a queue, which somebody looks at.
    Head {
        /// The queue, which may be gone by the time of the answer.
        queue: QueueId,
        /// The message's record.
        lsn: Lsn,
        /// Who waits for it.
        ticket: Option<u64>,
    },
}

/// What is read ahead of a queue's consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// What is next.
    Next,
    /// What expired, and is to be dead-lettered.
    Expired,
    /// What is due in a moment.
    Soon,
}

impl<S: Store> Shard<S> {
    /// Has the next far messages of the queue read, or those of one priority, which expired; unless such are being read.
    /// Who waits for the ones does not wait for the others.
    pub(super) fn read_ahead(&mut self, slot: Slot<Queue>, expired: Option<u8>) {
        let near = self.settings.near;
        let queue = &mut self.queues[slot];
        let are_expired = expired.is_some();
        if if are_expired { queue.is_reading_expired } else { queue.is_reading } {
            return;
        }
        if are_expired && !self.may_mourn() {
            // The timer looks again.
            return;
        }
        let queue = &mut self.queues[slot];
        let is_short = self.near_bytes + self.reading_bytes >= near.bytes;
        let bytes = if is_short { near.queue_bytes / 64 } else { near.queue_bytes / 2 };
        let is_used = !is_short && queue.consumers > 0;
        let runs = queue.ready.next_far(expired, bytes, if is_used { TIMED_TIMES } else { 1 });
        if runs.is_empty() {
            return;
        }
        *(if are_expired { &mut queue.is_reading_expired } else { &mut queue.is_reading }) = true;
        self.order(slot, runs, if are_expired { Ahead::Expired } else { Ahead::Next });
    }

    /// Has messages read that are due in a moment, if there are consumers and it is time.
    pub(super) fn read_soon(&mut self, slot: Slot<Queue>) {
        let (near, unix_ms) = (self.settings.near, self.now.unix_ms);
        let Some(bytes) = self.room_for_soon(slot) else { return };
        let Some(delayed) = &mut self.queues[slot].delayed else { return };
        if delayed.read_at().is_none_or(|at_ms| at_ms > unix_ms) {
            return;
        }
        let runs = delayed.next_far(unix_ms, bytes.min(near.queue_bytes / 2 * TIMED_TIMES));
        if !runs.is_empty() {
            delayed.is_reading = true;
            self.order(slot, runs, Ahead::Soon);
        }
    }

    /// How many bytes may come into memory of what is due in a moment.
    pub(super) fn room_for_soon(&self, slot: Slot<Queue>) -> Option<u64> {
        let near = self.settings.near;
        let queue = &self.queues[slot];
        let is_used = queue.consumers > 0 && !queue.is_paused && queue.delayed.is_some();
        let has_room = self.near_bytes + self.reading_bytes < near.bytes;
        let taken = queue.near_bytes();
        (is_used && has_room && taken < near.busy_queue_bytes / 2).then(|| near.busy_queue_bytes - taken)
    }

    /// Has them read, a piece at a time: those that had to wait in the log's own order, in which they lie close together.
    fn order(&mut self, slot: Slot<Queue>, mut runs: Vec<Run>, which: Ahead) {
        if runs.iter().any(|run| run.due_at_ms != 0) {
            runs.sort_unstable_by_key(|run| run.lsn);
        }
        let queue = self.queues[slot].spec.queue.id;
        let (mut rest, most) = (&runs[..], self.settings.near.queue_bytes / 2);
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|run| {
                let is_first = bytes == 0;
                bytes += run.near_bytes();
                is_first || bytes <= most
            });
            let (piece, others) = rest.split_at(fit.count());
            rest = others;
            let (runs, is_last) = (piece.to_vec(), others.is_empty());
            self.last_read += 1;
            self.log.read(self.last_read, &ranges(&runs));
            let bytes = runs.iter().map(Run::near_bytes).sum();
            self.reading_bytes += bytes;
            self.readings.insert(self.last_read, Reading::Ahead { queue, runs, bytes, which, is_last });
        }
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

    /// Has messages read that died while they were far.
    pub(super) fn read_dead(&mut self, dead: Unread) {
        let continues = |last: &Unread| last.reason == dead.reason && Arc::ptr_eq(&last.queue, &dead.queue);
        let last = self.dead_unread.back_mut().filter(|last| continues(last));
        if !last.is_some_and(|last| last.run.absorb(&dead.run)) {
            self.dead_unread.push_back(dead);
        }
    }

    /// Goes on reading what died, as far as the log follows: all of it is written again.
    pub(super) fn go_on_reading_dead(&mut self) {
        while self.dead_reading_bytes < DEAD_BYTES
            && self.may_mourn()
            && let Some(mut dead) = self.dead_unread.pop_front()
        {
            let each = u64::from(dead.run.payload_bytes) + NEAR_BYTES;
            let most = ((DEAD_BYTES - self.dead_reading_bytes) / each).max(1) as u32;
            if dead.run.count > most {
                let rest = dead.run.split_off(most);
                self.dead_unread.push_front(Unread { queue: Arc::clone(&dead.queue), run: rest, ..dead });
            }
            self.dead_reading_bytes += dead.run.near_bytes();
            self.last_read += 1;
            self.log.read(self.last_read, &[LsnRange { first: dead.run.lsn, count: dead.run.count }]);
            self.readings.insert(self.last_read, Reading::Dead(dead));
        }
    }

    /// Whether log and other shards follow well enough for messages to be read only to become dead letters.
    pub(super) fn may_mourn(&self) -> bool {
        self.log.unwritten_bytes() < UNWRITTEN_MAX && self.moving.len() < MOVING_MAX
    }

    /// The same for messages of which each waits to be read on its own.
    pub(super) fn may_mourn_unread(&self) -> bool {
        self.may_mourn() && self.dead_unread.len() < UNREAD_MAX
    }

    /// Has the first message of a queue looked at, for somebody who asked how the queue is.
    pub(super) fn read_head(&mut self, queue: QueueId, lsn: Lsn, ticket: Option<u64>) {
        self.heads_reading += 1;
        self.last_read += 1;
        self.log.read(self.last_read, &[LsnRange { first: lsn, count: 1 }]);
        self.readings.insert(self.last_read, Reading::Head { queue, lsn, ticket });
    }

    fn hear_head(&mut self, queue: QueueId, lsn: Lsn, ticket: Option<u64>, messages: Vec<(Lsn, Bytes)>) {
        self.heads_reading -= 1;
        if let Some(slot) = self.queue_slots.get(&queue) {
            let message = messages.into_iter().next().and_then(|(_, bytes)| Message::parse(bytes).ok());
            self.queues[*slot].far_head = Some((lsn, message.as_ref().and_then(timestamp)));
        }
        if let Some(ticket) = ticket {
            let views = self.views(Some(queue));
            self.out.views.push((ticket, views));
        }
    }

    /// What was asked for is here.
    pub(super) fn hear_read(&mut self, ticket: u64, messages: Vec<(Lsn, Bytes)>, topology: &Topology) {
        match self.readings.remove(&ticket) {
            None => {}
            Some(Reading::Scan(scanning)) => self.finish_scan(*scanning, messages, topology),
            Some(Reading::Head { queue, lsn, ticket }) => self.hear_head(queue, lsn, ticket, messages),
            Some(Reading::Ahead { queue, runs, bytes, which, is_last }) => {
                self.reading_bytes -= bytes;
                let Some(&slot) = self.queue_slots.get(&queue) else { return };
                let queue = &mut self.queues[slot];
                match (which, &mut queue.delayed) {
                    _ if !is_last => {}
                    (Ahead::Next, _) => queue.is_reading = false,
                    (Ahead::Expired, _) => queue.is_reading_expired = false,
                    (Ahead::Soon, Some(delayed)) => delayed.is_reading = false,
                    (Ahead::Soon, None) => {}
                }
                self.bring_near(slot, &runs, messages);
                self.count_near(slot);
                self.expire(slot, self.now.unix_ms);
                self.serve_getters(slot);
                self.touch(slot);
            }
            Some(Reading::Parked { queue, runs, bytes, groups }) => {
                self.reading_bytes -= bytes;
                if let Some(&slot) = self.queue_slots.get(&queue) {
                    self.hear_parked(slot, &runs, &groups, messages);
                }
            }
            Some(Reading::Stream { queue, reader, runs, bytes }) => {
                self.reading_bytes -= bytes;
                self.hear_stream(queue, reader, &runs, messages);
            }
            Some(Reading::Dead(Unread { queue, run, reason })) => {
                self.dead_reading_bytes -= run.near_bytes();
                if let Some(&slot) = self.queue_slots.get(&queue.queue.id) {
                    self.queues[slot].end_move(&run);
                }
                let mut messages = messages.into_iter().peekable();
                for died in run.messages() {
                    let Some((lsn, bytes)) = messages.next_if(|(lsn, _)| *lsn == died.lsn) else { continue };
                    match Message::parse(bytes) {
                        Ok(message) => {
                            let entry = Entry { body: Body::Here(message), ..Entry::from(died) };
                            self.dead.push_back(Dead { queue: Arc::clone(&queue), entry, reason });
                        }
                        Err(_) => return self.fail_to_read(lsn),
                    }
                }
            }
        }
    }

    pub(super) fn bring_near(&mut self, slot: Slot<Queue>, runs: &[Run], messages: Vec<(Lsn, Bytes)>) {
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
                        self.queues[slot].bring_near(&message, body);
                    }
                    Err(_) => return self.fail_to_read(message.lsn),
                }
            }
        }
    }

    pub(super) fn fail_to_read(&mut self, lsn: Lsn) {
        self.out.failed = Some(format!(
            "a message in the log of shard {} makes no sense (its record is {lsn:?}), though its checksum does. The \
             server stops; use the version of Leveret that wrote it, or restore the data directory from a backup",
            self.id.0
        ));
    }

    /// Keeps a `basic.get` until there is a message for it, or none.
    pub(super) fn keep_waiting(&mut self, slot: Slot<Queue>, getter: Getter) {
        self.queues[slot].getters.push_back(getter);
        self.getting.insert(slot);
        self.serve_getters(slot);
    }

    /// Whether what is first has to be read, or dropped, before it is known what a `basic.get` finds.
    pub(super) fn is_unsure(&mut self, slot: Slot<Queue>) -> bool {
        let unix_ms = self.now.unix_ms;
        if self.queues[slot].shaping.is_some() {
            return false;
        }
        let first = self.queues[slot].ready.first();
        first.is_some_and(|head| head.has_expired(unix_ms) || matches!(head, Head::Far(_)))
    }

    pub(super) fn serve_getters(&mut self, slot: Slot<Queue>) {
        while let Some(getter) = self.queues.get_mut(slot).and_then(|queue| queue.getters.pop_front()) {
            if self.is_unsure(slot) {
                let queue = &mut self.queues[slot];
                queue.getters.push_front(getter);
                // What expired is read already, or dropped in the next step.
                if queue.ready.first().is_some_and(|head| !head.has_expired(self.now.unix_ms)) {
                    self.read_ahead(slot, None);
                }
                return;
            }
            let Some(&peer) = self.peer_slots.get(&getter.connection) else { continue };
            let queue = &mut self.queues[slot];
            let entry = if queue.shaping.is_none() {
                if refuses_get(queue) || queue.is_paused { None } else { queue.ready.pop_near() }
            } else {
                match self.pick_for_get(peer, slot, &getter) {
                    Found::Entry(entry) => Some(entry),
                    Found::Nothing => None,
                    Found::Unknown => return self.queues[slot].getters.push_front(getter),
                }
            };
            let outcome = self.hand_to_getter(peer, getter.channel, slot, getter.no_ack, entry);
            self.expire(slot, self.now.unix_ms);
            self.tell(getter.connection, ConnectionEvent::Done { call: getter.call, outcome });
        }
        self.getting.remove(&slot);
    }

    /// A channel that is closed gets nothing more; its connection is told so, since it waits for an answer.
    pub(super) fn forget_getters(&mut self, connection: ConnectionId, channel: ChannelId) {
        let mut calls = Vec::new();
        for slot in &self.getting {
            let getters = &mut self.queues[*slot].getters;
            let is_gone = |getter: &Getter| (getter.connection, getter.channel) == (connection, channel);
            calls.extend(getters.iter().filter(|getter| is_gone(getter)).map(|getter| getter.call));
            getters.retain(|getter| !is_gone(getter));
        }
        self.getting.retain(|slot| !self.queues[*slot].getters.is_empty());
        for call in calls {
            self.tell(connection, ConnectionEvent::Done { call, outcome: Outcome::Empty });
        }
    }

    /// Messages of this queue that are in none of its lists: they died, and their letters are not stored yet.
    pub(super) fn moving_runs(&self, id: QueueId) -> impl Iterator<Item = Run> {
        let moving = self.moving.values().filter(move |moving| moving.queue == id).map(|moving| moving.entry.run());
        let unread = self.unread().filter(move |dead| dead.queue.queue.id == id).map(|dead| dead.run);
        moving.chain(unread)
    }

    /// What died while it was far, and is not read yet.
    pub(super) fn unread(&self) -> impl Iterator<Item = &Unread> {
        let read = self.readings.values().filter_map(|reading| match reading {
            Reading::Dead(dead) => Some(dead),
            Reading::Ahead { .. }
            | Reading::Parked { .. }
            | Reading::Stream { .. }
            | Reading::Head { .. }
            | Reading::Scan(_) => None,
        });
        read.chain(&self.dead_unread)
    }

    /// Notes what a queue's near messages take.
    pub(super) fn count_near(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        let now = queue.near_bytes();
        self.near_bytes = self.near_bytes + now - queue.counted_bytes;
        queue.counted_bytes = now;
    }
}

/// A message of a run that was read. If few lie together, it gets memory of its own: they would keep what lies between.
pub(super) fn parsed(bytes: Bytes, run: &Run) -> Result<Message, Malformed> {
    Message::parse(if run.count >= SHARED_MIN { bytes } else { Bytes::copy_from_slice(&bytes) })
}

/// Where the log has them, in the same order.
pub(super) fn ranges(runs: &[Run]) -> Vec<LsnRange> {
    let mut ranges: Vec<LsnRange> = Vec::with_capacity(runs.len());
    for run in runs {
        match ranges.last_mut() {
            Some(last) if last.first.plus(u64::from(last.count)) == run.lsn => last.count += run.count,
            _ => ranges.push(LsnRange { first: run.lsn, count: run.count }),
        }
    }
    ranges
}

/// What had to wait for a time lies here and there in the log: so many times more of it is read ahead than of what follows
/// one another.
const TIMED_TIMES: u64 = 8;
/// From so many messages that lie together on, they may share memory.
const SHARED_MIN: u32 = 32;
/// About how many bytes of messages that died are read at once.
const DEAD_BYTES: u64 = 1 << 20;
/// With more than this to be written, nothing is read that is to be written again, …
const UNWRITTEN_MAX: usize = 16 << 20;
/// Nor do more than this expire behind others, while so many are still to be read, …
const UNREAD_MAX: usize = 2048;
/// … nor with more letters than this on their way to other shards.
const MOVING_MAX: usize = 4096;
