//! An unacked delivery is a lease: its holder has it until the acknowledgement timeout, or longer if that was extended.
//! At the end of a lease its channel is closed, or the message goes back and its consumer goes or goes on.

use super::Shard;
use super::peers::Peer;
use super::slots::Slot;
use super::timers::Due;
use crate::command::{CallId, ConnectionEvent, Outcome, TimeoutAction};
use crate::operation::Lease;
use crate::queue::{Holder, Queue};
use store::{QueueId, Seq, Store};

impl<S: Store> Shard<S> {
    /// A client wants to keep a message for longer.
    pub(super) fn extend_for(&mut self, peer: Slot<Peer>, call: CallId, message: (QueueId, Seq), ms: Option<u64>) {
        let (queue, seq) = message;
        let is_extended = self.held_by(peer, queue, seq).is_some_and(|(slot, _)| self.extend(slot, seq, ms));
        self.answer(peer, call, if is_extended { Outcome::Applied } else { Outcome::Empty });
    }

    /// The queue and the holder of an unacked message, if this connection has that.
    pub(super) fn held_by(&self, peer: Slot<Peer>, queue: QueueId, seq: Seq) -> Option<(Slot<Queue>, Slot<Holder>)> {
        let slot = *self.queue_slots.get(&queue)?;
        let queue = &self.queues[slot];
        let holder = queue.unacked.holder_of(seq)?;
        (self.channels[queue.holders[holder].channel].peer == peer).then_some((slot, holder))
    }

    /// An unacked message may stay so for that long from now on; false if it is not unacked.
    pub(super) fn extend(&mut self, slot: Slot<Queue>, seq: Seq, ms: Option<u64>) -> bool {
        let queue = &mut self.queues[slot];
        let Some(holder_slot) = queue.unacked.holder_of(seq) else { return false };
        let holder = &mut queue.holders[holder_slot];
        let ms = ms.unwrap_or(holder.timeout_ms);
        if holder.timeout_ms == 0 || ms == 0 {
            // It is for ever anyway.
            return true;
        }
        let until_ms = self.now.ms.saturating_add(ms).max(1);
        if !queue.extended.get_or_insert_default().put(holder_slot, seq, until_ms) {
            return false;
        }
        if until_ms < holder.timer_ms || holder.timer_ms == 0 {
            self.timers.set(&mut holder.timer_ms, until_ms, queue.spec.queue.id, Due::Acknowledgement(holder_slot));
        }
        true
    }

    /// Some lease of this holder may be over.
    pub(super) fn check_leases(&mut self, slot: Slot<Queue>, holder_slot: Slot<Holder>) {
        let queue = &mut self.queues[slot];
        if queue.extended.as_ref().is_some_and(|extended| extended.is_empty()) {
            queue.extended = None;
        }
        if queue.progress.as_ref().is_some_and(|progress| progress.is_empty()) {
            queue.progress = None;
        }
        let overdue = queue.overdue(holder_slot, self.now.ms);
        let id = queue.spec.queue.id;
        let holder = &mut queue.holders[holder_slot];
        let due = Due::Acknowledgement(holder_slot);
        if overdue.seqs.is_empty() {
            return self.timers.set(&mut holder.timer_ms, overdue.next_ms, id, due);
        }
        if holder.timeout_action == TimeoutAction::CloseChannel {
            self.timers.set(&mut holder.timer_ms, 0, id, due);
            return self.time_out_channel(slot, holder_slot);
        }
        self.timers.set(&mut holder.timer_ms, overdue.next_ms, id, due);
        let is_over = holder.consumer.is_some() && holder.timeout_action == TimeoutAction::CancelConsumer;
        let (channel, number) = (holder.channel, holder.number);
        if is_over {
            // First, so that it does not get what it loses.
            self.stop_consumer(slot, holder_slot);
            let peer = self.channels[channel].peer;
            self.peers[peer].consumers.remove(&number);
            self.post(peer, ConnectionEvent::ConsumerGone { consumer: number });
        }
        for seq in overdue.seqs {
            self.take_back(slot, seq);
        }
        self.count_near(slot);
        let is_unused = self.queues[slot].spec.auto_delete && self.queues[slot].consumers == 0;
        if is_over && is_unused {
            self.delete_unasked(slot, None);
        }
    }

    /// An unacked message goes back to its place, as a failed attempt.
    pub(super) fn take_back(&mut self, slot: Slot<Queue>, seq: Seq) {
        let queue = &mut self.queues[slot];
        let Some(holder) = queue.unacked.holder_of(seq) else { return };
        let Some(held) = queue.take_unacked(seq, self.now.ms) else { return };
        self.requeue(slot, held.entry);
        self.credit(slot, holder, 1);
    }

    /// Who has an unacked message.
    pub(super) fn lease(&self, slot: Slot<Queue>, seq: Seq) -> Option<Lease> {
        let queue = &self.queues[slot];
        let (holder_slot, since_ms) = queue.unacked.lease_of(seq)?;
        let holder = &queue.holders[holder_slot];
        let ends_ms = queue.lease_ends_ms(holder_slot, seq, since_ms);
        Some(Lease {
            seq,
            tag: holder.consumer.as_ref().map(|consumer| consumer.tag.clone()),
            connection: self.peers[self.channels[holder.channel].peer].id,
            channel: holder.channel_id,
            age_ms: self.now.ms.saturating_sub(since_ms),
            left_ms: ends_ms.map(|ends_ms| ends_ms.saturating_sub(self.now.ms)),
            progress: queue.progress.as_ref().and_then(|progress| progress.get(holder_slot, seq)).cloned(),
            is_extended: queue.extended.as_ref().is_some_and(|extended| extended.until(holder_slot, seq).is_some()),
        })
    }
}
