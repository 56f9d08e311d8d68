//! Queues go: because they were told to, or by themselves.

use super::Shard;
use super::log::Waiter;
use super::slots::Slot;
use super::timers::Due;
use crate::command::{
    CallId, CatalogTicket, ConnectionEvent, ConnectionId, ConsumerNumber, Fault, Outcome, ShardReport,
};
use crate::fact::queue_key;
use crate::queue::Queue;
use crate::queue::ready::Entry;
use amqp::ReplyCode;
use store::{Lsn, QueueId, Store};

impl<S: Store> Shard<S> {
    /// The catalog wants a queue to go.
    pub(super) fn delete_on_request(&mut self, id: QueueId, if_unused: bool, if_empty: bool, ticket: CatalogTicket) {
        let refused = |queue: &Queue| {
            let why = match queue {
                queue if if_unused && queue.consumers > 0 => "in use",
                queue if if_empty && queue.would_lose() > 0 => "not empty",
                _ => return None,
            };
            Some(Fault::new(ReplyCode::PreconditionFailed, format!("{} {why}", queue.spec.title())))
        };
        let (outcome, lsn) = match self.queue_slots.get(&id) {
            None => (Outcome::Missed, Lsn::ZERO),
            Some(&slot) => match refused(&self.queues[slot]) {
                Some(fault) => (Outcome::Fault(fault), Lsn::ZERO),
                None => {
                    let messages = self.queues[slot].would_lose();
                    let (consumers, lsn) = self.delete(slot);
                    (Outcome::QueueDeleted { messages, consumers }, lsn)
                }
            },
        };
        self.when_durable(lsn, Waiter::Deleted { ticket, outcome });
    }

    /// A queue goes by itself: its last consumer left, or nobody used it for too long.
    pub(super) fn delete_unasked(&mut self, slot: Slot<Queue>, then: Option<(ConnectionId, CallId, Outcome)>) {
        let queue = self.queues[slot].spec.queue.id;
        let (consumers, _) = self.delete(slot);
        for (connection, consumer) in consumers {
            self.tell(connection, ConnectionEvent::ConsumerGone { consumer });
        }
        self.out.catalog.push(ShardReport::QueueGone { queue, then });
    }

    /// Deletes a queue with all it has; tells its consumers, who do not know it yet, and the record that says so.
    fn delete(&mut self, slot: Slot<Queue>) -> (Vec<(ConnectionId, ConsumerNumber)>, Lsn) {
        let mut consumers = Vec::new();
        let mut queue = self.queues.remove(slot);
        self.near_bytes -= queue.counted_bytes + queue.stream.as_ref().map_or(0, |stream| stream.counted_bytes);
        self.getting.remove(&slot);
        for getter in queue.getters.drain(..) {
            self.tell(getter.connection, ConnectionEvent::Done { call: getter.call, outcome: Outcome::Missed });
        }
        let id = queue.spec.queue.id;
        self.queue_slots.remove(&id);
        let lsn = if queue.spec.durable { self.log.forget_fact(&queue_key(id)) } else { Lsn::ZERO };
        if let Some(failures) = queue.failures.take() {
            self.drop_failures(id, &failures);
        }
        self.timers.set(&mut queue.expiry_timer_ms, 0, id, Due::Expiry);
        self.timers.set(&mut queue.idle_timer_ms, 0, id, Due::Idle);
        if let Some(delayed) = &mut queue.delayed {
            self.timers.set(&mut delayed.timer_ms, 0, id, Due::Delay);
        }
        if let Some(shaping) = &mut queue.shaping {
            self.timers.set(&mut shaping.timer_ms, 0, id, Due::Turn);
        }
        if let Some(owed) = &mut queue.owed {
            self.timers.set(&mut owed.timer_ms, 0, id, Due::Letters);
        }
        self.taken_by.retain(|(queue, _), _| *queue != id);
        // Their letters may lead elsewhere by now.
        for (source, _) in queue.callers.take().into_iter().flat_map(|callers| callers.waiting) {
            self.call_owed(source, 1);
        }
        for (holder_slot, holder) in queue.holders.iter() {
            let mut timer_ms = holder.timer_ms;
            self.timers.set(&mut timer_ms, 0, id, Due::Acknowledgement(holder_slot));
            let channel = &mut self.channels[holder.channel];
            if holder.counts_for_channel() {
                channel.unacked -= holder.held.len();
            }
            channel.holders.remove(&(slot, holder_slot));
            channel.waiting.retain(|waiting| *waiting != (slot, holder_slot));
            if !channel.waiting.is_empty() {
                self.freed_channels.push(holder.channel);
            }
            if holder.number == ConsumerNumber::GET {
                channel.gets.remove(&slot);
            }
            let peer = channel.peer;
            self.peers[peer].waiting.retain(|waiting| *waiting != (slot, holder_slot));
            if holder.consumer.is_some() {
                self.peers[peer].consumers.remove(&holder.number);
                consumers.push((self.peers[peer].id, holder.number));
            }
        }
        let (unacked, far_unacked) = queue.unacked.into_parts();
        let ready = queue.ready.take_near();
        for run in ready.iter().map(Entry::run).chain(unacked).filter(|run| run.lsn != Lsn::ZERO) {
            self.log.release(&run);
        }
        let mut far = queue.ready.take_far();
        far.push(far_unacked);
        far.extend(queue.delayed.into_iter().flat_map(|delayed| delayed.into_far()));
        far.extend(queue.owed.map(|owed| owed.into_far()));
        self.discard(far);
        (consumers, lsn)
    }
}
