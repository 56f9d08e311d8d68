//! A queue's settings change while it is used.

use super::Shard;
use super::timers::Due;
use crate::command::{ConsumerNumber, QueueSpec};
use crate::queue::Holder;
use std::sync::Arc;
use store::Store;

impl<S: Store> Shard<S> {
    /// The same for one that was declared with other arguments, which it has after a restart as well.
    pub(super) fn redeclare_queue(&mut self, spec: Arc<QueueSpec>) {
        let Some(&slot) = self.queue_slots.get(&spec.queue.id) else { return };
        if spec.durable {
            let queue = &mut self.queues[slot];
            let (key, value) = spec.fact_with(queue.is_paused, queue.redrive.as_deref());
            queue.created = self.log.put_fact(key, value);
        }
        self.change_queue(spec);
    }

    /// Takes the queue's new settings over. What they forbid goes when the queue is served next, in this step; a time to
    /// live is for messages that come from now on, as in RabbitMQ, and what happens when a timeout is over for consumers.
    pub(super) fn change_queue(&mut self, spec: Arc<QueueSpec>) {
        let Some(&slot) = self.queue_slots.get(&spec.queue.id) else { return };
        let id = spec.queue.id;
        let queue = &mut self.queues[slot];
        let before = Arc::clone(&queue.spec);
        queue.respecify(spec);
        queue.relimit(&before.settings, self.now.ms);
        // It runs for the new time, if for any.
        self.timers.set(&mut queue.idle_timer_ms, 0, id, Due::Idle);
        let timeout_ms = self.timeout_of(&self.queues[slot]);
        let queue = &mut self.queues[slot];
        for (holder_slot, holder) in queue.holders.iter_mut() {
            if follows_queue(holder) && holder.timeout_ms != timeout_ms {
                holder.timeout_ms = timeout_ms;
                // It looks at once, and then when the oldest delivery is due.
                let look_ms = if timeout_ms == 0 { 0 } else { self.now.ms.max(1) };
                self.timers.set(&mut holder.timer_ms, look_ms, id, Due::Acknowledgement(holder_slot));
            }
        }
        self.call_owed(id, 1);
        self.touch(slot);
    }
}

/// Whether it has as long for an acknowledgement as its queue says. Of one that was cancelled nobody knows any more what
/// it asked for: it keeps what it had.
fn follows_queue(holder: &Holder) -> bool {
    let is_consumer = holder.consumer.as_ref().map(|consumer| !consumer.arguments.contains_key("x-consumer-timeout"));
    is_consumer.unwrap_or(holder.number == ConsumerNumber::GET)
}
