//! Deliveries end: acknowledged, rejected, or back in their place.

use super::Shard;
use super::peers::{Channel, Peer};
use super::slots::Slot;
use super::timers::Due;
use crate::command::{CallId, ConnectionEvent, ConsumerNumber, Outcome, Settle, Settlement};
use crate::queue::dead_letter::Reason;
use crate::queue::ready::Entry;
use crate::queue::run::Run;
use crate::queue::{Holder, Queue, Turn};
use crate::topology::Topology;
use amqp::ChannelId;
use store::{Seq, SeqRange, Store};

impl<S: Store> Shard<S> {
    /// What is settled of a queue that is gone, or not held by this connection, is ignored.
    pub(super) fn settle(&mut self, peer: Slot<Peer>, settle: Settle) {
        let Some(&slot) = self.queue_slots.get(&settle.queue) else { return };
        if self.queues[slot].stream.is_some() {
            return self.settle_reads(slot, peer, &settle);
        }
        let acked = self.queues[slot].counters.ack;
        let mut first = None;
        for seq in settle.seqs() {
            let delivered_ms = self.settle_one(slot, peer, seq, settle.how);
            first = first.or(delivered_ms);
        }
        let queue = &mut self.queues[slot];
        if let Some(delivered_ms) = first
            && queue.counters.ack > acked
        {
            // One stands for all that went with it.
            let (ms, count) = (self.now.ms.saturating_sub(delivered_ms), queue.counters.ack - acked);
            queue.note_acknowledged(ms, count);
        }
        self.count_near(slot);
    }

    /// Tells when it had been delivered.
    fn settle_one(&mut self, slot: Slot<Queue>, peer: Slot<Peer>, seq: Seq, how: Settlement) -> Option<u64> {
        let queue = &mut self.queues[slot];
        let holder = queue.unacked.holder_of(seq)?;
        if self.channels[queue.holders[holder].channel].peer != peer {
            return None;
        }
        let held = queue.take_unacked(seq, self.now.ms)?;
        let mut entry = held.entry;
        queue.last_busy_unix_ms = self.now.unix_ms;
        match how {
            Settlement::Ack => {
                queue.counters.ack += 1;
                self.retire(slot, &entry);
            }
            Settlement::Discard => {
                queue.counters.rejected += 1;
                // Should it come back after all: its dead letter may be on its way to another shard when this one stops.
                entry.redelivered = true;
                self.lose(slot, entry, Reason::Rejected);
            }
            Settlement::Requeue => self.requeue(slot, entry),
            Settlement::Unsent => {
                queue.put_back(entry, self.now.ms);
                self.touch(slot);
            }
        }
        self.credit(slot, holder, 1);
        Some(held.since_ms)
    }

    /// A failed delivery comes back.
    pub(super) fn requeue(&mut self, slot: Slot<Queue>, mut entry: Entry) {
        entry.attempts = entry.attempts.saturating_add(1);
        entry.redelivered = true;
        let queue = &mut self.queues[slot];
        let limit = queue.delivery_limit(self.settings.quorum_delivery_limit);
        if limit.is_some_and(|limit| u64::from(entry.attempts) > limit) {
            queue.counters.delivery_limit += 1;
            return self.lose(slot, entry, Reason::DeliveryLimit);
        }
        let id = queue.spec.queue.id;
        let wait = queue.spec.settings.delayed_retry.map(|retry| retry.wait_ms(entry.attempts, id, entry.seq));
        if let Some(wait_ms) = wait {
            entry.due_at_ms = due_at_ms(self.now.unix_ms, wait_ms, entry.expires_at_ms);
            // It waits there and not in memory.
            self.log.spill(id, &mut entry);
        }
        if entry.is_kept {
            let place = SeqRange { first: entry.seq, last: entry.seq };
            self.log.append_returned(id, place, entry.attempts, entry.due_at_ms);
        }
        match wait {
            Some(_) => queue.delay(entry.run()),
            None => queue.put_back(entry, self.now.ms),
        }
        self.touch(slot);
    }

    /// The same for many that are in the log only, in order.
    fn requeue_runs(&mut self, slot: Slot<Queue>, runs: Vec<Run>) {
        let id = self.queues[slot].spec.queue.id;
        // What lies apart in the log may be one range of the queue.
        let mut returned: Option<Run> = None;
        for mut run in runs {
            let queue = &mut self.queues[slot];
            let limit = queue.delivery_limit(self.settings.quorum_delivery_limit);
            let retry = queue.spec.settings.delayed_retry;
            let is_apart = retry.is_some_and(|retry| retry.jitter_percent != 0);
            if is_apart || limit.is_some_and(|limit| u64::from(run.attempts) >= limit) {
                for entry in run.messages() {
                    self.requeue(slot, entry.into());
                }
                continue;
            }
            run.attempts = run.attempts.saturating_add(1);
            run.redelivered = true;
            match retry {
                Some(retry) => {
                    let wait_ms = retry.wait_ms(run.attempts, id, run.seq);
                    run.due_at_ms = due_at_ms(self.now.unix_ms, wait_ms, run.expires_at_ms);
                    queue.delay(Run { holder: 0, since_ms: 0, ..run });
                }
                None => queue.put_back_far(run, self.now.ms),
            }
            if !run.kept {
                continue;
            }
            match &mut returned {
                Some(before)
                    if (before.attempts, before.due_at_ms) == (run.attempts, run.due_at_ms)
                        && before.range().last.0 + 1 == run.seq.0
                        && before.count.checked_add(run.count).is_some() =>
                {
                    before.count += run.count;
                }
                _ => {
                    if let Some(run) = returned.replace(run) {
                        self.log.append_returned(id, run.range(), run.attempts, run.due_at_ms);
                    }
                }
            }
        }
        if let Some(run) = returned {
            self.log.append_returned(id, run.range(), run.attempts, run.due_at_ms);
        }
        self.touch(slot);
    }

    /// A holder holds so many messages less.
    pub(super) fn credit(&mut self, slot: Slot<Queue>, holder_slot: Slot<Holder>, count: u32) {
        let queue = &mut self.queues[slot];
        let holder = &queue.holders[holder_slot];
        let channel = &mut self.channels[holder.channel];
        channel.unacked -= if holder.counts_for_channel() { count } else { 0 };
        if !channel.waiting.is_empty() {
            self.freed_channels.push(holder.channel);
        }
        if queue.shaping.is_some() || queue.successor.is_some() {
            queue.succeed();
            self.touch(slot);
        }
        let queue = &mut self.queues[slot];
        let holder = &queue.holders[holder_slot];
        match holder.turn {
            Turn::Full if !holder.is_full() => {
                queue.pace.note_hungry();
                queue.join_rotation(holder_slot);
                self.touch(slot);
            }
            Turn::Never if holder.held.len() == 0 => self.remove_holder(slot, holder_slot),
            _ => {}
        }
    }

    /// Forgets a holder that holds nothing and gets nothing.
    pub(super) fn remove_holder(&mut self, slot: Slot<Queue>, holder_slot: Slot<Holder>) {
        let queue = &mut self.queues[slot];
        let mut holder = queue.holders.remove(holder_slot);
        self.timers.set(&mut holder.timer_ms, 0, queue.spec.queue.id, Due::Acknowledgement(holder_slot));
        let channel = &mut self.channels[holder.channel];
        channel.holders.remove(&(slot, holder_slot));
        if holder.number == ConsumerNumber::GET && channel.gets.get(&slot) == Some(&holder_slot) {
            channel.gets.remove(&slot);
        }
    }

    fn requeue_all(&mut self, slot: Slot<Queue>, holder: Slot<Holder>) {
        // The last of a cancelled consumer's messages takes the holder with it.
        while let Some(seq) = self.queues[slot].holders.get(holder).and_then(|holder| holder.held.first_near()) {
            let Some(held) = self.queues[slot].take_unacked(seq, self.now.ms) else { return };
            self.requeue(slot, held.entry);
            self.credit(slot, holder, 1);
        }
        while self.queues[slot].holders.get(holder).is_some_and(|holder| holder.held.has_far()) {
            let runs = self.queues[slot].take_far_unacked(holder, self.now.ms);
            let count = runs.iter().map(|run| run.count).sum();
            self.requeue_runs(slot, runs);
            self.credit(slot, holder, count);
        }
        self.count_near(slot);
    }

    /// The channel's consumers go, then its messages go back: nobody of this channel may get them again.
    pub(super) fn close_channel(&mut self, peer: Slot<Peer>, id: ChannelId) {
        if let Some(channel) = self.peers[peer].channels.remove(&id) {
            self.end_channel(peer, channel);
        }
    }

    fn end_channel(&mut self, peer: Slot<Peer>, channel: Slot<Channel>) {
        let mut holders: Vec<_> = self.channels[channel].holders.iter().copied().collect();
        holders.sort_unstable();
        let consumers: Vec<_> = holders
            .iter()
            .filter_map(|(slot, holder)| {
                let holder = &self.queues[*slot].holders[*holder];
                holder.consumer.is_some().then_some((*slot, holder.number))
            })
            .collect();
        for (slot, holder) in &holders {
            self.stop_consumer(*slot, *holder);
        }
        for (slot, holder) in holders {
            self.requeue_all(slot, holder);
        }
        for (slot, number) in consumers {
            self.peers[peer].consumers.remove(&number);
            let is_unused = |queue: &&Queue| queue.spec.auto_delete && queue.consumers == 0;
            if self.queues.get(slot).filter(is_unused).is_some() {
                self.delete_unasked(slot, None);
            }
        }
        let id = self.channels.remove(channel).id;
        let connection = self.peers[peer].id;
        self.forget_getters(connection, id);
    }

    /// All channels of a connection end.
    pub(super) fn leave_all_channels(&mut self, peer: Slot<Peer>) {
        let mut channels: Vec<_> = self.peers[peer].channels.drain().map(|(_, channel)| channel).collect();
        channels.sort_unstable();
        for channel in channels {
            self.end_channel(peer, channel);
        }
    }

    pub(super) fn close_connection(&mut self, peer: Slot<Peer>, call: CallId, topology: &Topology) {
        self.leave_all_channels(peer);
        self.bury(topology);
        let mut left = self.peers.remove(peer);
        self.peer_slots.remove(&left.id);
        left.events.push(ConnectionEvent::Done { call, outcome: Outcome::ConnectionClosed });
        self.out.connections.push((left.id, left.events));
    }
}

/// When a message is due that waits so long; no later than it expires.
fn due_at_ms(unix_ms: u64, wait_ms: u64, expires_at_ms: u64) -> u64 {
    let due_at_ms = unix_ms.saturating_add(wait_ms).max(1);
    if expires_at_ms == 0 { due_at_ms } else { due_at_ms.min(expires_at_ms) }
}
