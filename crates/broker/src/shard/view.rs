//! What the shard shows of its queues.

use super::Shard;
use super::slots::Slot;
use crate::inspect::{ConsumerView, QueueView};
use crate::message::Message;
use crate::queue::ready::Head;
use crate::queue::{Holder, Queue, Turn};
use amqp::Properties;
use std::sync::Arc;
use store::{Lsn, QueueId, Store};

impl<S: Store> Shard<S> {
    /// Describes all queues, or this one. The timestamp of a first message that is far has to be read: that of one
    /// queue is waited for, those of many are there when somebody looks again.
    pub(super) fn inspect(&mut self, ticket: u64, only: Option<QueueId>) {
        if let Some(id) = only
            && let Some(&slot) = self.queue_slots.get(&id)
            && let Some(lsn) = self.unknown_head(slot)
            && self.log.is_durable(lsn)
        {
            return self.read_head(id, lsn, Some(ticket));
        }
        let views = self.views(only);
        self.out.views.push((ticket, views));
    }

    /// The record of the first message if that is far and nobody has looked at it.
    fn unknown_head(&mut self, slot: Slot<Queue>) -> Option<Lsn> {
        let queue = &mut self.queues[slot];
        let Head::Far(run) = queue.ready.first()? else { return None };
        queue.far_head.is_none_or(|(lsn, _)| lsn != run.lsn).then_some(run.lsn)
    }

    /// All queues, or this one, by id.
    pub(super) fn views(&mut self, only: Option<QueueId>) -> Vec<QueueView> {
        let mut slots: Vec<_> = match only {
            Some(id) => self.queue_slots.get(&id).map(|slot| (id, *slot)).into_iter().collect(),
            None => self.queue_slots.iter().map(|(id, slot)| (*id, *slot)).collect(),
        };
        slots.sort_unstable();
        let views = slots.iter().map(|(_, slot)| self.view(*slot)).collect();
        for (id, slot) in slots {
            if self.heads_reading >= HEADS_AT_ONCE {
                break;
            }
            if let Some(lsn) = self.unknown_head(slot) {
                self.read_head(id, lsn, None);
            }
        }
        views
    }

    fn view(&mut self, slot: Slot<Queue>) -> QueueView {
        let consumers = self.consumer_views(&self.queues[slot]);
        let queue = &mut self.queues[slot];
        let utilisation = (queue.consumers > 0).then(|| queue.utilisation.share(self.now.ms));
        let head_timestamp = match queue.ready.first() {
            Some(Head::Near(head)) => head.message().and_then(timestamp),
            Some(Head::Far(run)) => queue.far_head.filter(|(lsn, _)| *lsn == run.lsn).and_then(|(_, at)| at),
            None => None,
        };
        let held = queue.holders.iter().map(|(_, holder)| &holder.held);
        let oldest_unacked = held.filter_map(|list| queue.unacked.oldest_since_at_least(list)).min();
        let late_of = |(slot, holder): (_, &Holder)| match holder.timeout_ms {
            0 => 0,
            timeout_ms => {
                let half_ago_ms = self.now.ms.saturating_sub(timeout_ms / 2);
                queue.unacked.made_before(&holder.held, slot, queue.extended.as_deref(), half_ago_ms)
            }
        };
        let late_leases = queue.holders.iter().map(late_of).sum();
        let (ready, unacked, delayed) = (queue.ready.sums(), queue.unacked.sums(), queue.delayed_sums());
        let owed = queue.owed_sums();
        QueueView {
            spec: Arc::clone(&queue.spec),
            ready: queue.ready.len() as u64,
            unacked: queue.unacked.len() as u64,
            delayed: delayed.count,
            owed: owed.count + queue.moving.count,
            ready_bytes: queue.ready.body_bytes(),
            unacked_bytes: unacked.body_bytes,
            is_paused: queue.is_paused,
            redrive: queue.redrive.clone(),
            oldest_unacked_ms: oldest_unacked.map(|since_ms| self.now.ms.saturating_sub(since_ms)),
            oldest_ready_ms: queue.oldest_ready_ms(self.now.ms),
            late_leases,
            delayed_bytes: delayed.body_bytes,
            owed_bytes: owed.body_bytes + queue.moving.body_bytes,
            persistent: ready.kept + unacked.kept + delayed.kept + owed.kept + queue.moving.kept,
            persistent_bytes: [ready, unacked, delayed, owed, queue.moving]
                .iter()
                .map(|sums| sums.kept_body_bytes)
                .sum(),
            head_timestamp,
            idle_since_unix_ms: (queue.consumers == 0).then_some(queue.last_busy_unix_ms),
            consumers,
            consumer_utilisation: utilisation,
            counters: queue.counters,
            latencies: queue.latencies(),
            memory: queue.stream.as_ref().map_or(0, |stream| stream.near_bytes())
                + queue.near_bytes()
                + queue.far_heap_bytes()
                + size_of::<Queue>() as u64,
        }
    }

    fn consumer_views(&self, queue: &Queue) -> Vec<ConsumerView> {
        let mut views: Vec<_> = queue
            .holders
            .iter()
            .filter_map(|(slot, holder)| {
                let consumer = holder.consumer.as_ref()?;
                let unsettled = queue.stream.as_ref().and_then(|stream| Some(stream.reader(slot)?.unsettled));
                let view = ConsumerView {
                    tag: consumer.tag.clone(),
                    connection: self.peers[self.channels[holder.channel].peer].id,
                    channel: holder.channel_id,
                    ack_required: !holder.no_ack,
                    exclusive: consumer.exclusive,
                    active: holder.turn != Turn::Inactive,
                    prefetch: holder.prefetch,
                    unacked: unsettled.unwrap_or(holder.held.len()),
                    timeout_ms: holder.timeout_ms,
                    arguments: consumer.arguments.clone(),
                };
                Some((consumer.arrival, view))
            })
            .collect();
        views.sort_unstable_by_key(|(arrival, _)| *arrival);
        views.into_iter().map(|(_, view)| view).collect()
    }
}

/// When its publisher says that it was made.
pub(super) fn timestamp(message: &Message) -> Option<u64> {
    Properties::parse(message.properties()).ok()?.timestamp()
}

/// How many first messages are read at once because somebody looks at their queues.
const HEADS_AT_ONCE: usize = 64;
