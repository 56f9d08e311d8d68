//! Messages go out: to the consumers whose turn it is, and away where they expired or are too many.

use super::Shard;
use super::slots::Slot;
use super::timers::Due;
use crate::command::{ConnectionEvent, ConsumerNumber, Delivery, TimeoutAction};
use crate::queue::dead_letter::Reason;
use crate::queue::ready::{Entry, Expired, Head, Moment};
use crate::queue::run::Run;
use crate::queue::{Holder, Queue, Turn};
use crate::topology::Topology;
use store::{QueueId, Store};

impl<S: Store> Shard<S> {
    /// Serves all queues that were touched, and those that this touches.
    pub(super) fn serve(&mut self, topology: &Topology) {
        loop {
            while let Some(slot) = self.touched.pop_front() {
                if self.queues.get(slot).is_some_and(|queue| queue.is_touched) {
                    self.dispatch(slot);
                }
            }
            self.bury(topology);
            if self.touched.is_empty() && !self.admit_waiting() {
                return;
            }
        }
    }

    /// Serves one queue now, if it was touched: who waits comes before who asks.
    pub(super) fn serve_queue(&mut self, queue: QueueId, topology: &Topology) {
        if let Some(&slot) = self.queue_slots.get(&queue)
            && self.queues[slot].is_touched
        {
            self.dispatch(slot);
            self.bury(topology);
        }
    }

    /// Delivers what can be delivered, then drops what has no right to stay.
    pub(super) fn dispatch(&mut self, slot: Slot<Queue>) {
        self.queues[slot].is_touched = false;
        if self.queues[slot].stream.is_some() {
            return self.dispatch_stream(slot);
        }
        if self.queues[slot].delayed.is_some() {
            self.release_due(slot);
        }
        self.expire(slot, self.now.unix_ms);
        if !self.queues[slot].getters.is_empty() {
            self.serve_getters(slot);
        }
        let before = self.queues[slot].ready.sums();
        let (first, tried) = (self.queues[slot].first_untried(), self.queues[slot].tried());
        let is_paused = self.queues[slot].is_paused;
        let mut is_held_up = false;
        let is_shaped = self.queues[slot].shaping.is_some();
        if is_shaped && !is_paused {
            self.dispatch_shaped(slot);
        }
        while !(is_paused || is_shaped || self.queues[slot].ready.is_empty()) {
            if self.queues[slot].rotation.is_empty() {
                break;
            }
            match self.queues[slot].ready.first() {
                // There was more to drop than fits into this step, or it is being read.
                Some(head) if head.has_expired(self.now.unix_ms) => {
                    is_held_up = true;
                    break;
                }
                Some(Head::Far(_)) => {
                    self.read_ahead(slot, None);
                    break;
                }
                _ => {}
            }
            let Some(consumer) = self.queues[slot].rotation.next() else { break };
            self.take_turn(slot, consumer);
        }
        self.expire_at(slot, Moment::After(self.now.unix_ms));
        if is_held_up && !self.queues[slot].ready.first_has_expired(self.now.unix_ms) {
            self.touch(slot);
        }
        self.drop_excess(slot);
        self.keep_reading(slot);
        if self.queues[slot].delayed.is_some() {
            self.read_soon(slot);
        }
        self.count_near(slot);
        let queue = &mut self.queues[slot];
        if let Some(first) = first
            && queue.tried() > tried
        {
            // One stands for all that went with it.
            queue.note_in_queue(first, queue.tried() - tried, self.now);
        }
        if queue.consumers > 0 {
            let now = queue.ready.sums();
            let gone = |before: u64, now: u64| before.saturating_sub(now);
            let (count, bytes) = (gone(before.count, now.count), gone(before.body_bytes, now.body_bytes));
            queue.pace.note_delivered(count, bytes, queue.consumers, self.now.ms);
            if queue.rotation.is_empty() && !queue.ready.is_empty() {
                queue.pace.note_sated(self.now.ms);
            }
            queue.utilisation.note(!queue.rotation.is_empty(), self.now.ms);
        }
        queue.check();
        if queue.callers.is_some() {
            self.call_sources(slot);
        }
        self.arm_timers(slot);
    }

    /// Delivers one message to the consumer whose turn it is, if it may get one; to one that is alone in the rotation,
    /// what it may get of what is near.
    fn take_turn(&mut self, slot: Slot<Queue>, consumer: Slot<Holder>) {
        while self.can_receive(slot, consumer) {
            let queue = &mut self.queues[slot];
            // What expired may have been too much for this step.
            if queue.ready.first_has_expired(self.now.unix_ms) {
                return queue.join_rotation(consumer);
            }
            let Some(entry) = queue.ready.pop_near() else {
                return self.queues[slot].join_rotation(consumer);
            };
            self.deliver(slot, consumer, entry);
            self.expire(slot, self.now.unix_ms);
            let queue = &mut self.queues[slot];
            if !queue.rotation.is_empty() && !queue.holders[consumer].is_full() {
                return queue.join_rotation(consumer);
            }
        }
    }

    /// Drops heads that can be delivered no more.
    pub(super) fn expire(&mut self, slot: Slot<Queue>, unix_ms: u64) {
        self.expire_at(slot, Moment::Before(unix_ms));
    }

    /// Drops heads that have expired; if they are very many, some of them in the next steps.
    fn expire_at(&mut self, slot: Slot<Queue>, moment: Moment) {
        if !self.queues[slot].ready.can_expire() {
            return;
        }
        let mourns = self.queues[slot].spec.mourns();
        while self.droppable > 0 {
            let queue = &mut self.queues[slot];
            // What has to wait as a letter anyway need not be read.
            let stays_far = !mourns || queue.is_owing();
            match queue.ready.pop_expired(moment, stays_far) {
                None => return self.expire_within(slot, moment, mourns),
                Some(Expired::Near(entry)) => {
                    queue.counters.expired += 1;
                    self.note_dropped(mourns);
                    self.lose(slot, entry, Reason::Expired);
                }
                Some(Expired::Far(run)) => {
                    queue.counters.expired += u64::from(run.count);
                    self.note_dropped(mourns);
                    if mourns {
                        self.lose_far(slot, run, Reason::Expired);
                        continue;
                    }
                    self.queues[slot].leave(u64::from(run.count));
                    self.vacate_run(slot, &run);
                }
                Some(Expired::Unread { priority }) => {
                    self.expire_within(slot, moment, mourns);
                    return self.read_ahead(slot, Some(priority));
                }
            }
        }
        if self.queues[slot].ready.has_expired(moment) {
            self.drop_more_later(slot);
        }
    }

    /// The same for what stands behind others.
    fn expire_within(&mut self, slot: Slot<Queue>, moment: Moment, mourns: bool) {
        while self.queues[slot].ready.has_expired_within(moment) {
            if self.droppable == 0 {
                return self.drop_more_later(slot);
            }
            if mourns && !self.may_mourn_unread() {
                // The timer looks again.
                return;
            }
            let queue = &mut self.queues[slot];
            let max = if mourns { self.droppable / MOURNED_COST } else { self.droppable };
            let found = queue.ready.take_expired(moment, max.max(1) as u32);
            for entry in found.near {
                self.queues[slot].counters.expired += 1;
                self.note_dropped(mourns);
                self.lose(slot, entry, Reason::Expired);
            }
            for run in found.far {
                self.queues[slot].counters.expired += u64::from(run.count);
                self.note_dropped(mourns);
                if mourns {
                    self.lose_far(slot, run, Reason::Expired);
                } else {
                    self.queues[slot].leave(u64::from(run.count));
                    self.vacate_run(slot, &run);
                }
            }
        }
    }

    /// Messages whose time has come are ready; if they are very many, some of them in the next steps.
    fn release_due(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        let released = queue.release_due(self.now.unix_ms, self.droppable as u32);
        self.droppable = self.droppable.saturating_sub(released as usize);
        if queue.has_due(self.now.unix_ms) {
            self.drop_more_later(slot);
        }
    }

    /// Drops from the head of a queue that is too long.
    fn drop_excess(&mut self, slot: Slot<Queue>) {
        while self.queues[slot].has_excess() {
            if self.droppable == 0 {
                return self.drop_more_later(slot);
            }
            let queue = &mut self.queues[slot];
            let mourns = queue.spec.mourns();
            let reads = mourns && !queue.is_owing();
            let taken = match (queue.ready.has_parked(), reads) {
                (true, _) => queue.ready.pop_oldest(!reads),
                (false, true) => queue.ready.pop_near(),
                (false, false) => queue.ready.pop(),
            };
            let Some(entry) = taken else { return self.read_ahead(slot, None) };
            queue.counters.maxlen += 1;
            self.note_dropped(mourns);
            self.lose(slot, entry, Reason::MaxLength);
        }
    }

    fn note_dropped(&mut self, is_mourned: bool) {
        self.droppable = self.droppable.saturating_sub(if is_mourned { MOURNED_COST } else { 1 });
    }

    pub(super) fn drop_more_later(&mut self, slot: Slot<Queue>) {
        if self.dropping.last() != Some(&slot) {
            self.dropping.push(slot);
        }
    }

    /// Goes on with what the last step had no time for.
    pub(super) fn go_on_dropping(&mut self) {
        self.droppable = DROPPED_AT_ONCE;
        for slot in std::mem::take(&mut self.dropping) {
            if self.queues.get(slot).is_some() {
                self.touch(slot);
            }
        }
    }

    /// Whether the consumer, whose turn it is, may get a message; if not, notes what it waits for.
    #[inline(always)]
    pub(super) fn can_receive(&mut self, slot: Slot<Queue>, consumer: Slot<Holder>) -> bool {
        let holder = &mut self.queues[slot].holders[consumer];
        let channel = &mut self.channels[holder.channel];
        let peer = &mut self.peers[channel.peer];
        if holder.is_full() {
            holder.turn = Turn::Full;
        } else if !channel.has_room() {
            holder.turn = Turn::Channel;
            channel.waiting.push_back((slot, consumer));
        } else if peer.is_over() {
            holder.turn = Turn::Connection;
            peer.waiting.push_back((slot, consumer));
        } else {
            return true;
        }
        false
    }

    // Plain queues deliver as if there were no other callers.
    #[inline(always)]
    pub(super) fn deliver(&mut self, slot: Slot<Queue>, consumer: Slot<Holder>, entry: Entry) {
        let holder = &self.queues[slot].holders[consumer];
        let (channel, no_ack) = (holder.channel, holder.no_ack);
        let delivery = self.hand_over(slot, consumer, entry);
        let queue = &mut self.queues[slot];
        if no_ack {
            queue.counters.deliver_no_ack += 1;
        } else {
            queue.counters.deliver += 1;
        }
        let peer = self.channels[channel].peer;
        if self.peers[peer].events.is_empty() {
            self.addressed.push(peer);
        }
        self.peers[peer].deliver(delivery);
    }

    /// Makes a message, just taken from the ready ones, its holder's.
    pub(super) fn hand_over(&mut self, slot: Slot<Queue>, to: Slot<Holder>, mut entry: Entry) -> Delivery {
        let queue = &mut self.queues[slot];
        let holder = &queue.holders[to];
        // Nobody needs it any more where nobody acknowledges.
        let message = if holder.no_ack { entry.take_message() } else { entry.message().cloned() };
        let delivery = Delivery {
            channel: holder.channel_id,
            consumer: holder.number,
            queue: queue.rules.queue,
            seq: entry.seq,
            redelivered: entry.redelivered,
            attempts: if queue.rules.shows_attempts { entry.attempts } else { 0 },
            place: None,
            no_ack: holder.no_ack,
            message: message.expect("what is handed over is near"),
        };
        queue.counters.redeliver += u64::from(entry.redelivered);
        if queue.shaping.is_some() {
            queue.note_handed_over(entry.seq, to, delivery.no_ack, self.now.ms);
        }
        let holder = &queue.holders[to];
        queue.last_busy_unix_ms = self.now.unix_ms;
        if holder.no_ack {
            self.retire(slot, &entry);
        } else {
            self.channels[holder.channel].unacked += u32::from(holder.counts_for_channel());
            if entry.is_logged() && (queue.ready.has_far(entry.priority) || entry.due_at_ms != 0) {
                // It came from the log, likely with others that share its memory, and is found there again.
                entry.send_away();
            }
            queue.hold(entry, to, self.now.ms);
            let holder = &mut queue.holders[to];
            debug_assert!(
                holder.number == ConsumerNumber::GET || holder.prefetch == 0 || holder.held.len() <= holder.prefetch,
                "unacked ≤ prefetch"
            );
            if holder.timeout_ms != 0 && holder.timer_ms == 0 {
                let at_ms = self.now.ms.saturating_add(holder.timeout_ms);
                self.timers.set(&mut holder.timer_ms, at_ms, queue.spec.queue.id, Due::Acknowledgement(to));
            }
            self.thin_out_unacked(slot);
        }
        delivery
    }

    /// Of very many unacked messages, the oldest stay in the log only.
    fn thin_out_unacked(&mut self, slot: Slot<Queue>) {
        let near = self.settings.near;
        let queue = &mut self.queues[slot];
        let bytes_max = if self.near_bytes > near.bytes { near.queue_bytes / 64 } else { near.queue_bytes };
        while let Some(held) = queue.unacked.excess(near.queue_unacked, bytes_max) {
            let seq = held.entry.seq;
            self.log.spill(queue.spec.queue.id, &mut held.entry);
            queue.send_unacked_far(seq);
        }
    }

    /// A message, taken out of its place, is done with.
    pub(super) fn retire(&mut self, slot: Slot<Queue>, entry: &Entry) {
        self.queues[slot].leave(1);
        self.vacate(slot, entry);
    }

    /// The place in the log of a message that its queue counts no more is empty.
    pub(super) fn vacate(&mut self, slot: Slot<Queue>, entry: &Entry) {
        if entry.is_logged() {
            self.vacate_run(slot, &entry.run());
        }
    }

    /// The same for messages that the log has.
    pub(super) fn vacate_run(&mut self, slot: Slot<Queue>, run: &Run) {
        if run.kept {
            let queue = &mut self.queues[slot];
            if queue.settled.is_empty() {
                self.settling.push(slot);
            }
            queue.note_settled_range(run.range());
        }
        self.log.release(run);
    }

    /// Channels and connections that can receive again let one consumer each join; false if there is none.
    fn admit_waiting(&mut self) -> bool {
        let mut is_any = false;
        let mut freed = std::mem::take(&mut self.freed_channels);
        freed.retain(|slot| {
            let Some(channel) = self.channels.get_mut(*slot).filter(|channel| channel.has_room()) else { return false };
            let Some(waiting) = channel.waiting.pop_front() else { return false };
            self.admit(waiting, Turn::Channel);
            is_any = true;
            true
        });
        self.freed_channels = freed;
        let mut freed = std::mem::take(&mut self.freed_peers);
        freed.retain(|slot| {
            let Some(peer) = self.peers.get_mut(*slot).filter(|peer| !peer.is_over()) else { return false };
            let Some(waiting) = peer.waiting.pop_front() else { return false };
            self.admit(waiting, Turn::Connection);
            is_any = true;
            true
        });
        self.freed_peers = freed;
        is_any
    }

    fn admit(&mut self, (slot, consumer): (Slot<Queue>, Slot<Holder>), from: Turn) {
        let Some(queue) = self.queues.get_mut(slot) else { return };
        if queue.holders.get(consumer).is_some_and(|holder| holder.turn == from) {
            queue.pace.note_hungry();
            if queue.is_waiting_for_its_turn(consumer) {
                queue.holders[consumer].turn = Turn::Inactive;
                return;
            }
            queue.join_rotation(consumer);
            self.touch(slot);
        }
    }

    fn arm_timers(&mut self, slot: Slot<Queue>) {
        if self.queues[slot].shaping.is_some() {
            self.arm_turn_timer(slot);
        }
        let has_room = self.queues[slot].delayed.is_some() && self.room_for_soon(slot).is_some();
        let queue = &mut self.queues[slot];
        let id = queue.rules.queue.id;
        if let Some(unix_ms) = queue.ready.next_expiry() {
            // What is due and still there is being read, or waits until the log can take it.
            let is_due = unix_ms <= self.now.unix_ms;
            let in_ms = if is_due { LOOK_AGAIN_MS } else { unix_ms - self.now.unix_ms };
            let at_ms = self.now.ms.saturating_add(in_ms);
            // A timer that runs out too early only looks again: one that follows every new head would cost more.
            if queue.expiry_timer_ms == 0 || at_ms < queue.expiry_timer_ms {
                self.timers.set(&mut queue.expiry_timer_ms, at_ms, id, Due::Expiry);
            }
        }
        if let Some(delayed) = queue.delayed.as_mut()
            && let Some(due_ms) = delayed.next_due()
        {
            let read_ms = if has_room { delayed.read_at() } else { None };
            // What could be read by now is being read.
            let read_ms = read_ms.filter(|read_ms| *read_ms > self.now.unix_ms);
            let unix_ms = read_ms.map_or(due_ms, |read_ms| read_ms.min(due_ms));
            let at_ms = self.now.ms.saturating_add(unix_ms.saturating_sub(self.now.unix_ms));
            if delayed.timer_ms == 0 || at_ms < delayed.timer_ms {
                self.timers.set(&mut delayed.timer_ms, at_ms.max(1), id, Due::Delay);
            }
        }
        if queue.rules.expires
            && let Some(expires_ms) = queue.spec.settings.expires_ms
            && queue.consumers == 0
            && queue.idle_timer_ms == 0
        {
            let at_ms = queue.last_used_ms.saturating_add(expires_ms).max(1);
            self.timers.set(&mut queue.idle_timer_ms, at_ms, id, Due::Idle);
        }
        if queue.owed.is_some() {
            self.wait_with_letters(slot);
        }
    }

    /// Does what became due.
    pub(super) fn run_timers(&mut self) {
        while let Some((id, due)) = self.timers.due(self.now.ms) {
            let slot = self.queue_slots[&id];
            let queue = &mut self.queues[slot];
            match due {
                Due::Expiry => {
                    self.timers.set(&mut queue.expiry_timer_ms, 0, id, due);
                    self.touch(slot);
                }
                Due::Delay => {
                    if let Some(delayed) = &mut queue.delayed {
                        self.timers.set(&mut delayed.timer_ms, 0, id, due);
                    }
                    self.touch(slot);
                }
                Due::Turn => {
                    if let Some(shaping) = &mut queue.shaping {
                        self.timers.set(&mut shaping.timer_ms, 0, id, due);
                    }
                    self.touch(slot);
                }
                Due::Letters => {
                    if let Some(owed) = &mut queue.owed {
                        self.timers.set(&mut owed.timer_ms, 0, id, due);
                    }
                    self.called.push(id);
                }
                Due::Idle => {
                    self.timers.set(&mut queue.idle_timer_ms, 0, id, due);
                    let unused_ms = self.now.ms.saturating_sub(queue.last_used_ms);
                    let is_over = queue.spec.settings.expires_ms.is_some_and(|expires_ms| unused_ms >= expires_ms);
                    if is_over && queue.consumers == 0 {
                        self.delete_unasked(slot, None);
                    } else {
                        self.touch(slot);
                    }
                }
                Due::Acknowledgement(holder) => self.check_acknowledgement(slot, holder),
            }
        }
    }

    fn check_acknowledgement(&mut self, slot: Slot<Queue>, holder_slot: Slot<Holder>) {
        let queue = &self.queues[slot];
        if queue.extended.is_some() || queue.holders[holder_slot].timeout_action != TimeoutAction::CloseChannel {
            return self.check_leases(slot, holder_slot);
        }
        let queue = &mut self.queues[slot];
        let holder = &mut queue.holders[holder_slot];
        let oldest_ms = match queue.unacked.oldest_since_at_least(&holder.held) {
            // What is known of far ones may be of one that is settled by now.
            Some(since_ms) if holder.held.has_far() && since_ms.saturating_add(holder.timeout_ms) <= self.now.ms => {
                let since_ms = queue.unacked.oldest_since(&holder.held, holder_slot);
                holder.held.note_far_since(since_ms.unwrap_or(self.now.ms));
                since_ms
            }
            since_ms => since_ms,
        };
        let due_ms = oldest_ms.map_or(0, |since_ms| since_ms.saturating_add(holder.timeout_ms).max(1));
        let due = Due::Acknowledgement(holder_slot);
        if due_ms > self.now.ms || due_ms == 0 {
            self.timers.set(&mut holder.timer_ms, due_ms, queue.spec.queue.id, due);
            return;
        }
        self.timers.set(&mut holder.timer_ms, 0, queue.spec.queue.id, due);
        self.time_out_channel(slot, holder_slot);
    }

    /// The channel of this holder is to be closed.
    pub(super) fn time_out_channel(&mut self, slot: Slot<Queue>, holder_slot: Slot<Holder>) {
        let holder = &self.queues[slot].holders[holder_slot];
        let timeout_ms = holder.timeout_ms;
        let channel = &mut self.channels[holder.channel];
        if !channel.is_timed_out {
            channel.is_timed_out = true;
            let (peer, channel) = (channel.peer, channel.id);
            self.post(peer, ConnectionEvent::AckTimeout { channel, timeout_ms });
        }
    }
}

/// How many messages, or runs of them, may be dropped in a step: that takes a millisecond.
const DROPPED_AT_ONCE: usize = 4 << 10;
/// When to look again for what expired and could not be dropped.
const LOOK_AGAIN_MS: u64 = 20;
/// What one counts for that becomes a dead letter.
const MOURNED_COST: usize = 8;
