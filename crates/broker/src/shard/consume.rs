//! Consumers start and stop, and messages are asked for one by one.

use super::Shard;
use super::peers::Peer;
use super::slots::Slot;
use super::stream::{OFFSET, no_get, no_purge, of_another_type};
use super::timers::Due;
use crate::command::{CallId, Consume, ConsumerNumber, Fault, Outcome, QueueKind, QueueSpec, TimeoutAction};
use crate::queue::ready::Entry;
use crate::queue::unacked::HeldList;
use crate::queue::{Consumer, Getter, Holder, Queue, Turn};
use crate::settings::{INVALID_TIMEOUT_ACTION, TIMEOUT_ACTION};
use amqp::{ChannelId, ReplyCode, Table, Value};
use store::{QueueId, Seq, SeqRange, Store};

impl<S: Store> Shard<S> {
    pub(super) fn consume(&mut self, peer: Slot<Peer>, consume: Consume) {
        let call = consume.call;
        let outcome = match self.queue_slots.get(&consume.queue) {
            None => Outcome::Missed,
            Some(&slot) => match self.start_consumer(peer, slot, consume) {
                Ok(()) => Outcome::Consuming,
                Err(fault) => Outcome::Fault(fault),
            },
        };
        self.answer(peer, call, outcome);
    }

    fn start_consumer(&mut self, peer: Slot<Peer>, slot: Slot<Queue>, consume: Consume) -> Result<(), Fault> {
        let queue = &self.queues[slot];
        let settings = &queue.spec.settings;
        let wish = match &queue.stream {
            Some(_) => Some(self.wish(peer, slot, &consume)?),
            None if consume.arguments.contains_key(OFFSET) => return Err(of_another_type(&queue.spec, OFFSET)),
            None => None,
        };
        // Other queues ignore the flag, as in RabbitMQ.
        let exclusive = consume.exclusive && settings.kind == QueueKind::Classic;
        if queue.is_exclusively_consumed || exclusive && (queue.consumers > 0 || settings.single_active) {
            return Err(Fault::new(ReplyCode::AccessRefused, format!("{} in exclusive use", queue.spec.title())));
        }
        let priority = integer(&queue.spec, &consume.arguments, "x-priority")?.unwrap_or(0);
        let timeout_ms = integer(&queue.spec, &consume.arguments, "x-consumer-timeout")?;
        let timeout_ms = match timeout_ms.map(u64::try_from) {
            None => self.timeout_of(queue),
            Some(Ok(timeout_ms)) => timeout_ms,
            Some(Err(_)) => return Err(invalid(&queue.spec, "x-consumer-timeout", "it is negative")),
        };
        let timeout_action = match consume.arguments.get(TIMEOUT_ACTION) {
            None => queue.spec.settings.timeout_action,
            Some(value) => {
                let action = value.as_str().and_then(TimeoutAction::named);
                Some(action.ok_or_else(|| invalid(&queue.spec, TIMEOUT_ACTION, INVALID_TIMEOUT_ACTION))?)
            }
        };
        let timeout_action = match timeout_action.unwrap_or_default() {
            TimeoutAction::CancelConsumer if !consume.hears_cancel => TimeoutAction::CloseChannel,
            action => action,
        };
        let channel = self.channel(peer, consume.channel);
        let holder = Holder {
            channel,
            channel_id: consume.channel,
            number: consume.consumer,
            no_ack: consume.no_ack,
            prefetch: consume.prefetch,
            priority,
            turn: Turn::Never,
            held: HeldList::default(),
            timeout_ms,
            timer_ms: 0,
            timeout_action,
            consumer: None,
        };
        let consumer = Consumer { tag: consume.tag, exclusive, arguments: consume.arguments, arrival: 0 };
        let queue = &mut self.queues[slot];
        queue.last_used_ms = self.now.ms;
        queue.last_busy_unix_ms = self.now.unix_ms;
        let holder = queue.add_consumer(holder, consumer, self.now.ms);
        if let Some(wish) = wish {
            self.add_reader(slot, holder, wish);
        }
        self.channels[channel].holders.insert((slot, holder));
        self.peers[peer].consumers.insert(consume.consumer, (slot, holder));
        self.touch(slot);
        Ok(())
    }

    /// How long deliveries of this queue may stay unacked if their consumer says nothing; 0 = for ever.
    pub(super) fn timeout_of(&self, queue: &Queue) -> u64 {
        if queue.stream.is_some() {
            return 0;
        }
        let limits = [queue.spec.settings.consumer_timeout_ms.unwrap_or(0), self.settings.consumer_timeout_ms];
        limits.into_iter().filter(|timeout_ms| *timeout_ms != 0).min().unwrap_or(0)
    }

    pub(super) fn cancel(&mut self, peer: Slot<Peer>, call: CallId, queue: QueueId, consumer: ConsumerNumber) {
        let Some((slot, holder)) = self.peers[peer].consumers.remove(&consumer) else {
            let is_known = self.queue_slots.contains_key(&queue);
            return self.answer(peer, call, if is_known { Outcome::Cancelled } else { Outcome::Missed });
        };
        self.stop_consumer(slot, holder);
        let queue = &self.queues[slot];
        if queue.spec.auto_delete && queue.consumers == 0 {
            let connection = self.peers[peer].id;
            return self.delete_unasked(slot, Some((connection, call, Outcome::Cancelled)));
        }
        self.answer(peer, call, Outcome::Cancelled);
    }

    /// A consumer gets nothing more; what it holds stays with its channel.
    pub(super) fn stop_consumer(&mut self, slot: Slot<Queue>, holder_slot: Slot<Holder>) {
        let queue = &mut self.queues[slot];
        let turn = queue.holders[holder_slot].turn;
        if queue.retire_consumer(holder_slot).is_none() {
            return;
        }
        queue.last_used_ms = self.now.ms;
        queue.last_busy_unix_ms = self.now.unix_ms;
        if let Some(stream) = &mut queue.stream {
            stream.remove_reader(holder_slot);
        }
        let holder = &queue.holders[holder_slot];
        let channel = &mut self.channels[holder.channel];
        match turn {
            Turn::Channel => channel.waiting.retain(|waiting| *waiting != (slot, holder_slot)),
            Turn::Connection => self.peers[channel.peer].waiting.retain(|waiting| *waiting != (slot, holder_slot)),
            Turn::Ready | Turn::Full | Turn::Inactive | Turn::Never => {}
        }
        if holder.held.len() == 0 {
            self.remove_holder(slot, holder_slot);
        }
        self.touch(slot);
    }

    pub(super) fn limit_consumer(&mut self, peer: Slot<Peer>, consumer: ConsumerNumber, limit: u32) {
        let Some(&(slot, holder_slot)) = self.peers[peer].consumers.get(&consumer) else { return };
        let queue = &mut self.queues[slot];
        let holder = &mut queue.holders[holder_slot];
        holder.prefetch = limit;
        if holder.turn == Turn::Full && !holder.is_full() {
            queue.join_rotation(holder_slot);
            self.touch(slot);
        }
    }

    /// basic.get
    pub(super) fn take_one(&mut self, peer: Slot<Peer>, call: CallId, from: (ChannelId, QueueId), no_ack: bool) {
        let (channel, queue) = from;
        let Some(&slot) = self.queue_slots.get(&queue) else { return self.answer(peer, call, Outcome::Missed) };
        if self.queues[slot].stream.is_some() {
            let fault = no_get(&self.queues[slot].spec);
            return self.answer(peer, call, Outcome::Fault(fault));
        }
        self.expire(slot, self.now.unix_ms);
        let queue = &self.queues[slot];
        let may_wait = !queue.is_paused;
        if may_wait && (!queue.getters.is_empty() || queue.shaping.is_some() || self.is_unsure(slot)) {
            let connection = self.peers[peer].id;
            // So that the channel's end is noticed.
            self.channel(peer, channel);
            return self.keep_waiting(slot, Getter { connection, channel, call, no_ack });
        }
        let queue = &mut self.queues[slot];
        let entry = if refuses_get(queue) || queue.is_paused { None } else { queue.ready.pop_near() };
        let outcome = self.hand_to_getter(peer, channel, slot, no_ack, entry);
        self.answer(peer, call, outcome);
    }

    /// Answers a `basic.get` with what was found for it.
    pub(super) fn hand_to_getter(
        &mut self,
        peer: Slot<Peer>,
        channel: ChannelId,
        slot: Slot<Queue>,
        no_ack: bool,
        entry: Option<Entry>,
    ) -> Outcome {
        let queue = &mut self.queues[slot];
        if refuses_get(queue) {
            let text = format!(
                "cannot obtain access to locked {}. basic.get operations are not supported by quorum queues with single \
                 active consumer",
                queue.spec.title()
            );
            return Outcome::Fault(Fault::new(ReplyCode::ResourceLocked, text));
        }
        queue.last_used_ms = self.now.ms;
        let Some(entry) = entry else {
            queue.counters.get_empty += 1;
            return Outcome::Empty;
        };
        if no_ack {
            queue.counters.get_no_ack += 1;
        } else {
            queue.counters.get += 1;
        }
        let holder = self.getter(peer, channel, slot, no_ack);
        let delivery = self.hand_over(slot, holder, entry);
        if no_ack {
            self.remove_holder(slot, holder);
        }
        // A head that was shielded may have expired.
        self.touch(slot);
        Outcome::Got { delivery, left: self.queues[slot].ready.len() as u64 }
    }

    /// Who holds what a channel gets from a queue.
    fn getter(&mut self, peer: Slot<Peer>, id: ChannelId, slot: Slot<Queue>, no_ack: bool) -> Slot<Holder> {
        let channel = self.channel(peer, id);
        if !no_ack && let Some(holder) = self.channels[channel].gets.get(&slot) {
            return *holder;
        }
        let timeout_ms = self.timeout_of(&self.queues[slot]);
        let timeout_action = self.queues[slot].spec.settings.timeout_action.unwrap_or_default();
        let holder = self.queues[slot].holders.insert(Holder {
            channel,
            channel_id: id,
            number: ConsumerNumber::GET,
            no_ack,
            prefetch: 0,
            priority: 0,
            turn: Turn::Never,
            held: HeldList::default(),
            timeout_ms,
            timer_ms: 0,
            timeout_action,
            consumer: None,
        });
        let channel = &mut self.channels[channel];
        channel.holders.insert((slot, holder));
        if !no_ack {
            channel.gets.insert(slot, holder);
        }
        holder
    }

    pub(super) fn purge(&mut self, peer: Slot<Peer>, call: CallId, queue: QueueId) {
        let Some(&slot) = self.queue_slots.get(&queue) else { return self.answer(peer, call, Outcome::Missed) };
        if self.queues[slot].stream.is_some() {
            let fault = no_purge(&self.queues[slot].spec);
            return self.answer(peer, call, Outcome::Fault(fault));
        }
        let delayed = self.queues[slot].delayed_sums().count;
        let messages = self.queues[slot].ready.len() as u64 + delayed;
        self.queues[slot].counters.purged += messages;
        for entry in self.queues[slot].ready.take_near() {
            self.retire(slot, &entry);
        }
        if !self.queues[slot].ready.is_empty() || delayed > 0 {
            self.purge_far(slot);
        }
        if let Some((groups, terms)) = self.queues[slot].groups_now(self.now.ms) {
            groups.forget_all(terms);
        }
        self.count_near(slot);
        self.answer(peer, call, Outcome::Purged { messages });
    }

    /// Everything that is ready and far goes, and everything that waits for a time. That is one statement for the log, however much there is; who refers to
    /// which record is sorted out afterwards.
    fn purge_far(&mut self, slot: Slot<Queue>) {
        let id = self.queues[slot].spec.queue.id;
        // What is still there lies between: unacked, on its way elsewhere, or owed.
        let mut staying: Vec<SeqRange> = self.moving_runs(id).map(|run| run.range()).collect();
        let queue = &mut self.queues[slot];
        staying.extend(queue.owed.iter().flat_map(|owed| owed.ranges()));
        let delayed = queue.delayed.take();
        let ends = queue.ready.ends().into_iter().chain(delayed.as_ref().and_then(|delayed| delayed.ends()));
        let ends = ends.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        let Some((mut first, last)) = ends else { return };
        staying.extend(queue.unacked.sources(first).flatten().map(|run| run.range()));
        staying.sort_unstable_by_key(|range| range.first);
        if queue.settled.is_empty() {
            self.settling.push(slot);
        }
        for range in staying {
            if range.first > first {
                let end = last.min(Seq(range.first.0 - 1));
                if end >= first {
                    queue.note_settled_range(SeqRange { first, last: end });
                }
            }
            first = first.max(Seq(range.last.0 + 1));
        }
        if first <= last {
            queue.note_settled_range(SeqRange { first, last });
        }
        queue.leave(queue.ready.sums().count);
        let mut far = queue.ready.take_far();
        if let Some(mut delayed) = delayed {
            queue.leave(delayed.sums().count);
            self.timers.set(&mut delayed.timer_ms, 0, id, Due::Delay);
            far.extend(delayed.into_far());
        }
        self.discard(far);
    }
}

/// Messages cannot be asked for one by one where a single consumer is active and the queue is a quorum queue.
pub(super) fn refuses_get(queue: &Queue) -> bool {
    queue.spec.settings.is_quorum() && queue.spec.settings.single_active
}

/// A consumer argument that has to be an integer.
fn integer(queue: &QueueSpec, arguments: &Table, key: &str) -> Result<Option<i64>, Fault> {
    let Some(value) = arguments.get(key) else { return Ok(None) };
    let found = Value::as_i64(value);
    found.map(Some).ok_or_else(|| invalid(queue, key, &format!("\"expected integer, got {}\"", value.type_word())))
}

fn invalid(queue: &QueueSpec, key: &str, why: &str) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, format!("invalid arg '{key}' for {}: {why}", queue.title()))
}
