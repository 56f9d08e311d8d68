//! One queue: its messages, who consumes them, its limits and its counters.
//!
//! A queue decides about messages and consumers, and writes nothing: what a decision means for the log, for other
//! queues and for connections is the shard's business. Every message is in one place: ready, delayed, unacked, moving (a
//! dead letter that another shard has not stored yet, or one that has to be read before it can be told to be one), or
//! owed (a dead letter that nobody has taken yet).

mod ages;
pub(crate) mod backlog;
mod block;
mod calendar;
pub(crate) mod dead_letter;
pub(crate) mod deduplication;
pub(crate) mod delayed;
pub(crate) mod failure;
mod far;
pub(crate) mod groups;
pub(crate) mod lease;
mod levels;
pub(crate) mod owed;
mod pace;
mod page;
mod parked;
pub(crate) mod rate;
pub(crate) mod ready;
pub(crate) mod retry;
pub(crate) mod rotation;
pub(crate) mod rules;
pub(crate) mod run;
mod shaping;
mod siphash;
pub(crate) mod stream;
pub(crate) mod times;
pub(crate) mod unacked;
mod utilisation;
mod window;

#[cfg(test)]
pub(crate) mod tests;

use crate::command::{CallId, ConnectionId, ConsumerNumber, Now, QueueSpec};
use crate::histogram::{Latencies, Tally};
use crate::inspect::QueueCounters;
use crate::message::Message;
use crate::queue::backlog::Backlog;
use crate::queue::run::Run;
use crate::redrive::Redrive;
use crate::shard::peers::Channel;
use crate::shard::slots::{Slot, Slots};
use crate::shard::{Near, Terms};
use ages::Ages;
use amqp::{ChannelId, Table};
use deduplication::Keys;
use delayed::Delayed;
use failure::Failures;
use lease::{Extended, Overdue, Progresses, TimeoutAction};
use owed::{Callers, Died, Owed};
use pace::Pace;
use ready::{Body, Entry, Head, Ready, Sums};
use rotation::Rotation;
use rules::Rules;
use shaping::Shaping;
use std::collections::VecDeque;
use std::sync::Arc;
use store::{Lsn, Place, QueueId, Seq, SeqRange};
use stream::Stream;
use unacked::{Held, HeldList, Unacked};
use utilisation::Utilisation;

/// See the module.
///
/// What every message asks for stands together at the beginning, in this order: with thousands of queues each line of the
/// processor's cache that a message needs costs as much as a tenth of all that is done with it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Queue {
    /// What of `spec` each message asks.
    pub(crate) rules: Rules,
    next_seq: u64,
    /// All its messages, counted on their own so that the places can be checked against it.
    depth: u64,
    /// What the shard's budget counts for this queue.
    pub(crate) counted_bytes: u64,
    /// Consumers, not counting what gets and the cancelled hold.
    pub(crate) consumers: u32,
    /// Waits to be served in this step.
    pub(crate) is_touched: bool,
    /// Delivers nothing, because an operator says so.
    pub(crate) is_paused: bool,
    /// Far messages are being read, …
    pub(crate) is_reading: bool,
    /// … and so are some that expired, to be dead-lettered.
    pub(crate) is_reading_expired: bool,
    /// Messages that wait for a time.
    pub(crate) delayed: Option<Box<Delayed>>,
    /// Groups and limits, where it has any.
    pub(crate) shaping: Option<Box<Shaping>>,
    /// What it takes one of only, where it does so.
    pub(crate) keys: Option<Box<Keys>>,
    /// What its consumers read, where it is a stream.
    pub(crate) stream: Option<Box<Stream>>,
    /// Dead letters that nobody has taken yet.
    pub(crate) owed: Option<Box<Owed>>,
    /// Who is to be told when there is room.
    pub(crate) callers: Option<Box<Callers>>,
    pub(crate) counters: QueueCounters,
    pub(crate) ready: Ready,
    pub(crate) holders: Slots<Holder>,
    pub(crate) rotation: Rotation,
    /// Like `last_used_ms`, but traffic counts too, and by the wall clock.
    pub(crate) last_busy_unix_ms: u64,
    /// When its messages came.
    ages: Ages,
    /// How its consumers keep up with it.
    pub(crate) pace: Pace,
    pub(crate) utilisation: Utilisation,
    /// How long the last messages took from their publish, …
    in_queue: Tally,
    /// … and to their acknowledgement.
    to_ack: Tally,
    pub(crate) unacked: Unacked,
    /// Who asked for a message while the first one was far, or still to be dropped.
    pub(crate) getters: VecDeque<Getter>,
    /// Settled in this step and not yet in the log.
    pub(crate) settled: Vec<SeqRange>,
    pub(crate) spec: Arc<QueueSpec>,
    /// Dead letters on their way to another shard, or from the log.
    pub(crate) moving: Sums,
    /// Of a first message that was far when somebody looked: its record and its timestamp.
    pub(crate) far_head: Option<(Lsn, Option<u64>)>,
    /// The one that gets messages, where only one may (`x-single-active-consumer`).
    pub(crate) active: Option<Slot<Holder>>,
    /// One of the consumers asked to be alone.
    pub(crate) is_exclusively_consumed: bool,
    /// The record that says that it exists, until that is durable.
    pub(crate) created: Lsn,
    /// When the timers of this queue run; 0 = not at all.
    pub(crate) expiry_timer_ms: u64,
    pub(crate) idle_timer_ms: u64,
    /// What `x-expires` counts from.
    pub(crate) last_used_ms: u64,
    /// Its last redrive.
    pub(crate) redrive: Option<Arc<Redrive>>,
    /// Leases that were extended.
    pub(crate) extended: Option<Box<Extended>>,
    /// How far jobs are, where workers say so.
    pub(crate) progress: Option<Box<Progresses>>,
    /// Why deliveries failed, where workers said so.
    pub(crate) failures: Option<Box<Failures>>,
    /// Who becomes the single active consumer when that one has settled what it has.
    pub(crate) successor: Option<Slot<Holder>>,
    /// How long messages took, once one did; but for the last ones, which the tallies have.
    latencies: Option<Box<Latencies>>,
    arrivals: u64,
}

/// A `basic.get` that waits for its message to be read.
#[derive(Debug)]
pub(crate) struct Getter {
    pub(crate) connection: ConnectionId,
    pub(crate) channel: ChannelId,
    pub(crate) call: CallId,
    pub(crate) no_ack: bool,
}

/// Who holds unacked messages: a consumer, one that was cancelled, or the gets of a channel.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Holder {
    pub(crate) number: ConsumerNumber,
    pub(crate) priority: i64,
    pub(crate) channel: Slot<Channel>,
    /// How many unacked messages it may hold; 0 = any number.
    pub(crate) prefetch: u32,
    pub(crate) channel_id: ChannelId,
    pub(crate) no_ack: bool,
    pub(crate) turn: Turn,
    pub(crate) held: HeldList,
    /// How long a delivery may stay unacked; 0 = for ever.
    pub(crate) timeout_ms: u64,
    pub(crate) timer_ms: u64,
    /// What happens then.
    pub(crate) timeout_action: TimeoutAction,
    /// What listings show; `None` for gets and cancelled consumers.
    pub(crate) consumer: Option<Box<Consumer>>,
}

/// A consumer as listings show it.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) tag: String,
    pub(crate) exclusive: bool,
    pub(crate) arguments: Table,
    /// Its place among the queue's consumers by age.
    pub(crate) arrival: u64,
}

/// Where a holder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// In the rotation.
    Ready,
    /// Its prefetch is used up: an acknowledgement brings it back.
    Full,
    /// Waits in its channel for the channel's limit.
    Channel,
    /// Waits in its connection for the connection's window.
    Connection,
    /// Waits for the single active consumer to go.
    Inactive,
    /// Never gets anything: gets, and cancelled consumers.
    Never,
}

/// What a new message is stored as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) seq: Seq,
    pub(crate) expires_at_ms: u64,
    pub(crate) priority: u8,
    /// Not before (unix ms); 0 = at once.
    pub(crate) due_at_ms: u64,
}

impl Stamp {
    /// As the log has it, of the queue of this id.
    pub(crate) fn place(self, queue: QueueId) -> Place {
        let Self { seq, expires_at_ms, priority, due_at_ms } = self;
        Place { queue, seq, expires_at_ms, priority, due_at_ms }
    }

    /// The message in the place that it was given.
    fn entry(self, message: Message, lsn: Lsn, is_kept: bool) -> Entry {
        let Self { seq, expires_at_ms, priority, due_at_ms } = self;
        let body = Body::Here(message);
        Entry { body, seq, lsn, expires_at_ms, due_at_ms, attempts: 0, priority, redelivered: false, is_kept }
    }
}

impl Holder {
    /// Holds as many messages as it may.
    pub(crate) fn is_full(&self) -> bool {
        !self.no_ack && self.prefetch != 0 && self.held.len() >= self.prefetch
    }

    /// What a channel gets message by message does not count towards its limit.
    pub(crate) fn counts_for_channel(&self) -> bool {
        self.number != ConsumerNumber::GET
    }
}

impl Queue {
    pub(crate) fn new(spec: Arc<QueueSpec>, now: Now) -> Self {
        let mut queue = Self {
            rules: Rules::of(&spec),
            spec,
            in_queue: Tally::default(),
            to_ack: Tally::default(),
            ready: Ready::default(),
            unacked: Unacked::default(),
            delayed: None,
            moving: Sums::default(),
            owed: None,
            callers: None,
            is_reading: false,
            is_reading_expired: false,
            getters: VecDeque::new(),
            far_head: None,
            counted_bytes: 0,
            holders: Slots::default(),
            rotation: Rotation::default(),
            consumers: 0,
            active: None,
            is_exclusively_consumed: false,
            counters: QueueCounters::default(),
            created: Lsn::ZERO,
            settled: Vec::new(),
            is_touched: false,
            expiry_timer_ms: 0,
            idle_timer_ms: 0,
            last_used_ms: now.ms,
            last_busy_unix_ms: now.unix_ms,
            utilisation: Utilisation::default(),
            pace: Pace::default(),
            is_paused: false,
            redrive: None,
            extended: None,
            progress: None,
            failures: None,
            shaping: None,
            keys: None,
            stream: None,
            successor: None,
            ages: Ages::new(now.ms),
            latencies: None,
            next_seq: 1,
            arrivals: 0,
            depth: 0,
        };
        queue.stream = queue.spec.settings.is_stream().then(Box::default);
        queue.reshape();
        queue.rekey();
        queue
    }

    /// Whether this queue keeps such a message across restarts.
    pub(crate) fn keeps(&self, persistent: bool) -> bool {
        self.rules.durable && (persistent || self.rules.keeps_all)
    }

    /// Gives a message its place. It is to be pushed next.
    #[inline]
    pub(crate) fn stamp(&mut self, terms: &Terms, now: Now) -> Stamp {
        let seq = Seq(self.next_seq);
        self.next_seq += 1;
        if now.ms >= self.ages.next_ms {
            self.note_age(seq, now);
        }
        let priority = self.level_of(terms.priority);
        let is_timed = terms.expiration_ms.is_some() || terms.delay.is_some();
        let (expires_at_ms, due_at_ms) = match self.rules.message_ttl_ms {
            None if !is_timed => (0, 0),
            ttl_ms => times(terms, ttl_ms, now),
        };
        Stamp { seq, expires_at_ms, priority, due_at_ms }
    }

    /// The same in a stream, where a message stays and has a time.
    pub(crate) fn stamp_in_stream(&mut self, now: Now) -> Stamp {
        let seq = Seq(self.next_seq);
        self.next_seq += 1;
        let expires_at_ms = self.stream.as_mut().map_or(0, |stream| stream.time_ms(now.unix_ms));
        Stamp { seq, expires_at_ms, priority: 0, due_at_ms: 0 }
    }

    #[cold]
    fn note_age(&mut self, next: Seq, now: Now) {
        let oldest = self.ready.oldest_seq();
        self.ages.note(next, oldest, now.ms);
    }

    /// How long ago the oldest ready message came, at most and about.
    pub(crate) fn oldest_ready_ms(&self, now_ms: u64) -> Option<u64> {
        self.ready.oldest_seq().map(|seq| self.ages.age_ms(seq, now_ms))
    }

    /// What stands first and was never delivered: its seq, and when it was due (unix ms) if it had to wait for that.
    pub(crate) fn first_untried(&mut self) -> Option<(Seq, u64)> {
        let (seq, due_at_ms, redelivered) = match self.ready.first()? {
            Head::Near(entry) => (entry.seq, entry.due_at_ms, entry.redelivered),
            Head::Far(run) => (run.seq, run.due_at_ms, run.redelivered),
        };
        (!redelivered).then_some((seq, due_at_ms))
    }

    /// First deliveries so far.
    pub(crate) fn tried(&self) -> u64 {
        let QueueCounters { deliver, deliver_no_ack, get, get_no_ack, redeliver, .. } = self.counters;
        (deliver + deliver_no_ack + get + get_no_ack).saturating_sub(redeliver)
    }

    /// So many messages were delivered for the first time, of which this was the first.
    pub(crate) fn note_in_queue(&mut self, (seq, due_at_ms): (Seq, u64), count: u64, now: Now) {
        let ms = match due_at_ms {
            0 => self.ages.age_ms(seq, now.ms),
            due_at_ms => now.unix_ms.saturating_sub(due_at_ms),
        };
        self.in_queue.note(ms, count, || &mut self.latencies.get_or_insert_default().in_queue);
    }

    /// So many messages were acknowledged so long after their delivery.
    pub(crate) fn note_acknowledged(&mut self, ms: u64, count: u64) {
        self.to_ack.note(ms, count, || &mut self.latencies.get_or_insert_default().to_ack);
    }

    /// How long messages took, once one did.
    pub(crate) fn latencies(&self) -> Option<Box<Latencies>> {
        let Latencies { in_queue, to_ack } = **self.latencies.as_ref()?;
        let (in_queue, to_ack) = (self.in_queue.added_to(in_queue), self.to_ack.added_to(to_ack));
        Some(Box::new(Latencies { in_queue, to_ack }))
    }

    /// Gives it other settings.
    pub(crate) fn respecify(&mut self, spec: Arc<QueueSpec>) {
        self.rules = Rules::of(&spec);
        self.spec = spec;
        self.reshape();
        self.rekey();
    }

    /// The priority that a message has here. Quorum queues have RabbitMQ 4.3's 32 levels unless they say otherwise.
    pub(crate) fn level_of(&self, priority: Option<u8>) -> u8 {
        match self.rules.priority_max {
            Some(max) => priority.unwrap_or(0).min(max),
            None if self.rules.is_quorum => priority.unwrap_or(QUORUM_PRIORITY).min(QUORUM_PRIORITY_MAX),
            None => 0,
        }
    }

    /// What the next message will be.
    pub(crate) fn next_seq(&self) -> Seq {
        Seq(self.next_seq)
    }

    /// No message gets this seq, or a lower one.
    pub(crate) fn pass(&mut self, seq: Seq) {
        self.next_seq = self.next_seq.max(seq.0.saturating_add(1));
    }

    /// Adds a new message.
    #[inline]
    pub(crate) fn push(&mut self, message: Message, stamp: Stamp, lsn: Lsn, is_kept: bool) {
        self.depth += 1;
        let entry = stamp.entry(message, lsn, is_kept);
        if stamp.expires_at_ms != 0 {
            self.ready.note_expiry(&entry.run(), self.unacked.sums());
        }
        self.ready.push(entry);
        self.counters.publish += 1;
    }

    /// Adds a new message that stays in the log until somebody wants it.
    pub(crate) fn push_far(&mut self, message: Message, stamp: Stamp, lsn: Lsn, is_kept: bool) {
        self.counters.publish += 1;
        if let Some(stream) = &mut self.stream {
            stream.note_appended(stamp.seq, lsn, message.clone());
        }
        self.enter(stamp.entry(message, lsn, is_kept).run());
    }

    /// Adds messages that the log has; those with a due time wait for that.
    pub(crate) fn enter(&mut self, run: Run) {
        self.depth += u64::from(run.count);
        if run.due_at_ms != 0 {
            match Died::of(run.due_at_ms) {
                Some(_) => self.owed.get_or_insert_default().insert(run),
                None => self.delay(run),
            }
            return;
        }
        if run.expires_at_ms != 0 {
            self.ready.note_expiry(&run, self.unacked.sums());
        }
        self.ready.push_far(run);
    }

    /// Messages that are in no other place, and in the log, wait for their due time.
    pub(crate) fn delay(&mut self, run: Run) {
        self.delayed.get_or_insert_default().insert(run);
    }

    /// Messages that are due are ready from now on, the first of all first: about `max` of them; tells how many.
    pub(crate) fn release_due(&mut self, unix_ms: u64, max: u32) -> u32 {
        let Some(delayed) = &mut self.delayed else { return 0 };
        delayed.pass(unix_ms);
        let mut released = 0;
        while let Some(item) = delayed.pop_due(unix_ms, max - released) {
            released += item.run().count;
            self.ready.push_item(item);
        }
        released
    }

    /// A message was read; false if it has gone, or has been written elsewhere, meanwhile.
    pub(crate) fn bring_near(&mut self, run: &Run, message: Message) -> bool {
        if run.due_at_ms != 0
            && let Some(delayed) = &mut self.delayed
            && delayed.bring_near(run.seq, run.lsn, message.clone())
        {
            return true;
        }
        self.ready.bring_near(run, message)
    }

    /// Whether messages are due that wait still.
    pub(crate) fn has_due(&self, unix_ms: u64) -> bool {
        self.delayed.as_ref().and_then(|delayed| delayed.next_due()).is_some_and(|at_ms| at_ms <= unix_ms)
    }

    /// Messages that nobody has: ready or delayed.
    pub(crate) fn waiting(&self) -> u64 {
        self.ready.len() as u64 + self.delayed_sums().count
    }

    /// Sums over the messages that wait for a time.
    pub(crate) fn delayed_sums(&self) -> Sums {
        self.delayed.as_ref().map_or_else(Sums::default, |delayed| delayed.sums())
    }

    /// Takes over all messages that the log has, all of this priority and none with a due time, when there are no others.
    pub(crate) fn adopt(&mut self, far: Backlog, priority: u8) {
        self.depth += far.len() as u64;
        self.ready.adopt(far, priority);
    }

    /// Whether a new message had better stay in the log, when all near ones of the shard take that much.
    pub(crate) fn is_better_far(&self, priority: u8, near: &Near, shard_near_bytes: u64) -> bool {
        let is_used = self.consumers > 0;
        let queue_max = if is_used { near.busy_queue_bytes } else { near.queue_bytes };
        let shard_max = if is_used { near.bytes } else { near.idle_bytes };
        let is_empty = self.ready.is_empty();
        self.ready.has_far(priority)
            || self.ready.near_bytes() >= queue_max && !is_empty
            || shard_near_bytes > shard_max && !(is_used && is_empty)
    }

    /// Sums over the letters that nobody has taken.
    pub(crate) fn owed_sums(&self) -> Sums {
        self.owed.as_ref().map_or_else(Sums::default, |owed| owed.sums())
    }

    /// Messages that nobody has, and letters that nobody has taken, those among them that are tried now.
    pub(crate) fn would_lose(&self) -> u64 {
        let trying = self.owed.as_ref().map_or(0, |owed| owed.trying);
        self.waiting() + self.owed_sums().count + u64::from(trying)
    }

    /// Dead letters, taken out of their places before, wait until somebody takes them.
    pub(crate) fn owe(&mut self, run: Run) {
        self.depth += u64::from(run.count);
        self.owed.get_or_insert_default().insert(run);
    }

    /// Takes the first letters that are owed out, to be tried; they are counted as the queue's still.
    pub(crate) fn take_owed(&mut self) -> Vec<Run> {
        let Some(owed) = &mut self.owed else { return Vec::new() };
        owed.batch = owed.batch.max(1);
        let runs = owed.take(owed.batch);
        owed.trying = runs.iter().map(|run| run.count).sum();
        owed.is_blocked = false;
        for run in &runs {
            self.moving.add(run);
        }
        runs
    }

    /// Dead letters left, but they have yet to be read, or stored by another shard.
    pub(crate) fn begin_move(&mut self, run: &Run) {
        self.depth += u64::from(run.count);
        self.moving.add(run);
    }

    /// They have been.
    pub(crate) fn end_move(&mut self, run: &Run) {
        self.depth -= u64::from(run.count);
        self.moving.subtract(run);
    }

    /// Messages, taken out of their places before, are gone for good.
    pub(crate) fn leave(&mut self, count: u64) {
        self.depth -= count;
    }

    /// Notes that these places are empty, for the log.
    pub(crate) fn note_settled_range(&mut self, range: SeqRange) {
        match self.settled.last_mut() {
            Some(last) if last.last.0 + 1 == range.first.0 => last.last = range.last,
            _ => self.settled.push(range),
        }
    }

    /// Whether one more message of this size would not fit, where this takes room beside what is ready. For what was in a
    /// queue before nothing does, or queues that dead-letter into each other could wait for each other for ever.
    pub(crate) fn would_overflow(&self, body_bytes: u64, beside: Sums) -> bool {
        self.exceeds(
            self.ready.len() as u64 + beside.count + 1,
            self.ready.body_bytes() + beside.body_bytes + body_bytes,
        )
    }

    /// Whether a message of this size fits into the queue when it is empty.
    pub(crate) fn has_ever_room(&self, body_bytes: u64) -> bool {
        !self.exceeds(1, body_bytes)
    }

    /// Refuses messages when it is full.
    pub(crate) fn rejects_when_full(&self) -> bool {
        self.rules.rejects_when_full
    }

    /// Whether the queue is too long and drops from its head.
    pub(crate) fn has_excess(&self) -> bool {
        !self.rejects_when_full() && self.exceeds(self.ready.len() as u64, self.ready.body_bytes())
    }

    fn exceeds(&self, length: u64, body_bytes: u64) -> bool {
        if !self.rules.is_limited {
            return false;
        }
        let settings = &self.spec.settings;
        settings.length_max.is_some_and(|max| length > max) || settings.bytes_max.is_some_and(|max| body_bytes > max)
    }

    /// How many failed deliveries a message may have.
    pub(crate) fn delivery_limit(&self, quorum_default: u32) -> Option<u64> {
        let quorum_default = self.spec.settings.is_quorum().then(|| i64::from(quorum_default));
        let limit = self.spec.settings.delivery_limit.or(quorum_default)?;
        u64::try_from(limit).ok()
    }

    /// A message goes to this holder, until it is settled.
    pub(crate) fn hold(&mut self, entry: Entry, slot: Slot<Holder>, now_ms: u64) {
        self.unacked.hold(entry, slot, &mut self.holders[slot].held, now_ms);
    }

    /// An unacked message stays in the log, which has it, until somebody wants it.
    pub(crate) fn send_unacked_far(&mut self, seq: Seq) {
        if let Some(slot) = self.unacked.holder_of(seq) {
            self.unacked.send_far(seq, &mut self.holders[slot].held);
        }
    }

    /// Takes an unacked message from its holder.
    pub(crate) fn take_unacked(&mut self, seq: Seq, now_ms: u64) -> Option<Held> {
        let slot = self.unacked.holder_of(seq)?;
        if let Some(extended) = &mut self.extended {
            extended.forget(slot, seq);
        }
        if let Some(progress) = &mut self.progress {
            progress.forget(slot, seq);
        }
        let held = self.unacked.take(seq, &mut self.holders[slot].held);
        if self.shaping.is_some() {
            self.note_settled(std::iter::once(seq), now_ms);
        }
        held
    }

    /// Takes some of the messages from this holder that are in the log only.
    pub(crate) fn take_far_unacked(&mut self, slot: Slot<Holder>, now_ms: u64) -> Vec<Run> {
        let runs = self.unacked.take_far(slot, &mut self.holders[slot].held);
        if let Some(extended) = &mut self.extended {
            runs.iter().for_each(|run| extended.forget_run(slot, run));
        }
        if let Some(progress) = &mut self.progress {
            runs.iter().for_each(|run| progress.forget_run(slot, run));
        }
        if self.shaping.is_some() {
            let seqs = runs.iter().flat_map(|run| run.messages()).map(|message| message.seq);
            self.note_settled(seqs, now_ms);
        }
        runs
    }

    /// A ready or delayed message, taken out of its place and counted no more, comes back as it was.
    pub(crate) fn come_back(&mut self, entry: Entry, unix_ms: u64) {
        self.depth += 1;
        if entry.message().is_none() && entry.due_at_ms > unix_ms {
            return self.delay(entry.run());
        }
        self.ready.put_back(entry);
    }

    /// Takes the first message of the run, which nobody has, out of its place, which it is counted in still.
    pub(crate) fn take_waiting(&mut self, run: &Run) -> Option<Entry> {
        let ready = self.ready.take(run);
        ready.or_else(|| self.delayed.as_mut()?.take(run.seq, Some(run.due_at_ms)))
    }

    /// A delayed message is due now: tells what it is from now on.
    pub(crate) fn release_early(&mut self, run: &Run, unix_ms: u64) -> Option<Run> {
        let entry = self.delayed.as_mut()?.take(run.seq, Some(run.due_at_ms))?;
        // A clock that was put back must not let it wait longer.
        let run = Run { due_at_ms: entry.due_at_ms.min(unix_ms.max(1)), ..entry.run() };
        self.ready.push_due(run);
        Some(run)
    }

    /// When the lease of an unacked message ends; `None` = never.
    pub(crate) fn lease_ends_ms(&self, holder: Slot<Holder>, seq: Seq, since_ms: u64) -> Option<u64> {
        let extended = self.extended.as_ref().and_then(|extended| extended.until(holder, seq));
        let timeout_ms = self.holders[holder].timeout_ms;
        extended.or_else(|| (timeout_ms != 0).then(|| since_ms.saturating_add(timeout_ms)))
    }

    /// What this holder has had for too long, some of it at a time.
    pub(crate) fn overdue(&self, slot: Slot<Holder>, now_ms: u64) -> Overdue {
        let holder = &self.holders[slot];
        let mut overdue = Overdue::default();
        let extended = self.extended.as_deref();
        self.unacked.note_overdue(&holder.held, slot, holder.timeout_ms, extended, now_ms, &mut overdue);
        for (seq, until_ms) in extended.into_iter().flat_map(|extended| extended.of(slot)) {
            let until_ms = *until_ms;
            if until_ms <= now_ms && overdue.seqs.len() < OVERDUE_AT_ONCE {
                overdue.seqs.push(seq);
            } else {
                overdue.note_next(until_ms.max(now_ms + 1));
            }
        }
        overdue
    }

    /// What is known of a message, wherever it is but on its way.
    pub(crate) fn find(&self, priority: u8, seq: Seq) -> Option<Run> {
        self.find_hinted(priority, seq, None)
    }

    /// The same; if it has to wait, or had to, then likely for that time.
    pub(crate) fn find_hinted(&self, priority: u8, seq: Seq, hint_ms: Option<u64>) -> Option<Run> {
        let found = self.ready.find_hinted((priority, seq), hint_ms).or_else(|| self.unacked.find(seq));
        let found = found.or_else(|| self.delayed.as_ref()?.find(seq, hint_ms));
        found.or_else(|| self.owed.as_ref()?.find(seq))
    }

    /// The record of such a message is elsewhere now.
    pub(crate) fn relocate(&mut self, run: &Run, lsn: Lsn) {
        let hint_ms = Some(run.due_at_ms);
        if self.ready.find_hinted((run.priority, run.seq), hint_ms).is_some() {
            self.ready.relocate(run, lsn);
        } else if !(self.delayed.as_mut().is_some_and(|delayed| delayed.relocate(run.seq, run.due_at_ms, lsn))
            || self.owed.as_mut().is_some_and(|owed| owed.relocate(run.seq, lsn)))
        {
            self.unacked.relocate(run.seq, lsn);
        }
    }

    /// What the index of the others takes.
    pub(crate) fn far_heap_bytes(&self) -> u64 {
        let delayed = self.delayed.as_ref().map_or(0, |delayed| delayed.heap_bytes());
        let groups = self.groups().map_or(0, |groups| groups.heap_bytes());
        let keys = self.keys.as_ref().map_or(0, |keys| keys.heap_bytes());
        let failures = self.failures.as_ref().map_or(0, |failures| failures.bytes());
        let owed = self.owed.as_ref().map_or(0, |owed| owed.heap_bytes());
        self.ready.far_heap_bytes() + self.unacked.far_heap_bytes() + delayed + owed + groups + keys + failures
    }

    /// What its messages take in memory that are near, but for what a stream has.
    pub(crate) fn near_bytes(&self) -> u64 {
        let delayed = self.delayed.as_ref().map_or(0, |delayed| delayed.near_bytes());
        self.ready.near_bytes() + self.unacked.near_bytes() + delayed
    }

    /// Takes a consumer in. It gets its first turn after those who wait.
    pub(crate) fn add_consumer(&mut self, mut holder: Holder, consumer: Consumer, now_ms: u64) -> Slot<Holder> {
        if self.consumers == 0 {
            self.utilisation.restart(now_ms);
        }
        self.consumers += 1;
        self.arrivals += 1;
        self.is_exclusively_consumed |= consumer.exclusive;
        let is_active = !self.spec.settings.single_active || self.active.is_none();
        let takes_over = self.takes_over(&holder);
        holder.turn = Turn::Inactive;
        holder.consumer = Some(Box::new(Consumer { arrival: self.arrivals, ..consumer }));
        let priority = holder.priority;
        let slot = self.holders.insert(holder);
        self.rotation.add_member(priority);
        if is_active {
            self.activate(slot);
        } else if takes_over {
            self.successor = Some(slot);
            self.succeed();
        }
        slot
    }

    /// Whether a newcomer becomes the single active consumer, as it does in quorum queues if it has a higher priority.
    fn takes_over(&self, newcomer: &Holder) -> bool {
        let settings = &self.spec.settings;
        let next = self.successor.or(self.active).map(|slot| self.holders[slot].priority);
        settings.is_quorum() && settings.single_active && next.is_some_and(|priority| newcomer.priority > priority)
    }

    /// After the successor left: another one, or the active consumer goes on.
    fn find_successor(&mut self) {
        let Some(active) = self.active else { return };
        let priority = self.holders[active].priority;
        self.successor = self.heir().filter(|heir| self.holders[*heir].priority > priority);
        let holder = &mut self.holders[active];
        if self.successor.is_none() && holder.turn == Turn::Inactive {
            holder.turn = Turn::Full;
            if !self.holders[active].is_full() {
                self.join_rotation(active);
            }
        }
    }

    /// Whether this consumer gets nothing although it could receive: another one is the single active one, or will be.
    pub(crate) fn is_waiting_for_its_turn(&self, slot: Slot<Holder>) -> bool {
        self.active.is_some_and(|active| active != slot || self.successor.is_some())
    }

    /// The active consumer gets nothing more, and its successor takes its place when it holds nothing.
    pub(crate) fn succeed(&mut self) {
        let (Some(successor), Some(active)) = (self.successor, self.active) else { return };
        let holder = &mut self.holders[active];
        // One that waits for its channel or connection is told when its turn comes.
        if matches!(holder.turn, Turn::Ready | Turn::Full) {
            holder.turn = Turn::Inactive;
            self.rotation.leave(holder.priority, active);
        }
        if self.holders[active].held.len() == 0 {
            self.successor = None;
            self.activate(successor);
        }
    }

    /// Ends a consumer. What it holds stays with it: it is to be removed when it holds nothing.
    pub(crate) fn retire_consumer(&mut self, slot: Slot<Holder>) -> Option<Box<Consumer>> {
        let holder = &mut self.holders[slot];
        let consumer = holder.consumer.take()?;
        holder.turn = Turn::Never;
        let priority = holder.priority;
        self.rotation.remove_member(priority, slot);
        self.consumers -= 1;
        self.is_exclusively_consumed &= !consumer.exclusive;
        if self.successor == Some(slot) {
            self.find_successor();
        }
        if self.active == Some(slot) {
            self.active = None;
            self.successor = None;
            if let Some(heir) = self.heir() {
                self.activate(heir);
            }
        }
        Some(consumer)
    }

    /// The consumer can receive (again).
    pub(crate) fn join_rotation(&mut self, slot: Slot<Holder>) {
        let holder = &mut self.holders[slot];
        holder.turn = Turn::Ready;
        self.rotation.join(holder.priority, slot);
    }

    /// Whether its consumers, which are as fast as the broker lets them be, will come for more in a moment, and have a lot
    /// before them.
    pub(crate) fn is_ahead_of_consumers(&self, now_ms: u64) -> bool {
        self.stream.is_none()
            && self.pace.is_about_to_be_asked(now_ms)
            && (self.ready.near_bytes() >= AHEAD_BYTES || self.ready.has_any_far())
    }

    fn activate(&mut self, slot: Slot<Holder>) {
        if self.spec.settings.single_active {
            self.active = Some(slot);
        }
        self.join_rotation(slot);
    }

    /// Who is next to be the single active consumer: the highest priority, and the longest wait among those.
    fn heir(&self) -> Option<Slot<Holder>> {
        let waiting = self.holders.iter().filter_map(|(slot, holder)| {
            let arrival = holder.consumer.as_ref()?.arrival;
            Some(((holder.priority, std::cmp::Reverse(arrival)), slot))
        });
        waiting.max().map(|(_, slot)| slot)
    }

    /// The invariant of the module.
    pub(crate) fn check(&self) {
        let waiting = self.ready.sums().count + self.delayed_sums().count;
        let found = waiting + self.unacked.sums().count + self.moving.count + self.owed_sums().count;
        debug_assert_eq!(self.depth, found, "a message is in one place");
    }
}

/// How many overdue deliveries are dealt with at once.
pub(crate) const OVERDUE_AT_ONCE: usize = 1024;

/// When a message expires and when it is due, in a queue of this time to live; 0 = never and at once.
#[cold]
fn times(terms: &Terms, ttl_ms: Option<u64>, now: Now) -> (u64, u64) {
    let ttl_ms = [terms.expiration_ms, ttl_ms].into_iter().flatten().min();
    // A message begins to live when its delay is over.
    let due_at_ms = terms.delay.map_or(0, |delay| delay.due_at_ms(now));
    let since_ms = due_at_ms.max(now.unix_ms);
    let expires_at_ms = ttl_ms.map_or(0, |ttl| since_ms.saturating_add(ttl).max(1));
    (expires_at_ms, due_at_ms)
}

/// What messages in quorum queues have that say nothing.
const QUORUM_PRIORITY: u8 = 4;
const QUORUM_PRIORITY_MAX: u8 = 31;
/// What publishers may be ahead of fast consumers before they have to wait for them: about 5,000 short messages.
const AHEAD_BYTES: u64 = 1 << 20;
