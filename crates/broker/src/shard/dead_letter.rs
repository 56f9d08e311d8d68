//! Dead letters on their way: from the queue where a message died to those that its dead letter exchange leads to.
//!
//! What dies is put on a list and buried when the command at hand is done, so that queues that dead-letter into each
//! other take turns instead of recursing. A letter that stays in this shard moves in one record. One that goes to
//! another shard leaves its source in the log until that shard has stored it: after a crash it dies again.

use super::Shard;
use super::publish::Terms;
use super::slots::Slot;
use crate::command::{Publish, QueueIds, QueueSpec, ShardId, ShardInput};
use crate::queue::Queue;
use crate::queue::dead_letter::{DeadLetter, Death, Reason};
use crate::queue::ready::Entry;
use crate::queue::run::Run;
use crate::topology::Topology;
use amqp::Properties;
use std::sync::Arc;
use store::{Lsn, QueueId, Store};

/// A message that died and has yet to be dead-lettered. It has left its queue; its place in the log is still taken.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) queue: Arc<QueueSpec>,
    pub(super) entry: Entry,
    pub(super) reason: Reason,
}

/// Messages of one queue that died for one reason while they were far. They have left the queue, which counts them as
/// moving.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) queue: Arc<QueueSpec>,
    pub(super) run: Run,
    pub(super) reason: Reason,
}

/// A message whose dead letter other shards have yet to store.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) queue: QueueId,
    pub(super) entry: Entry,
    /// How many of them.
    pub(super) left: usize,
    /// If it is not a dead letter but moved: who waits for that.
    pub(super) moved_for: Option<u64>,
    /// One of its queues has it.
    pub(super) is_taken: bool,
}

impl<S: Store> Shard<S> {
    /// A message, taken out of its place, is to be dead-lettered, or dropped if nobody asked for that.
    pub(super) fn lose(&mut self, slot: Slot<Queue>, entry: Entry, reason: Reason) {
        let queue = &mut self.queues[slot];
        if queue.spec.settings.dead_letter_exchange.is_none() {
            return self.retire(slot, &entry);
        }
        queue.leave(1);
        if entry.message().is_none() {
            queue.begin_move(&entry.run());
            let queue = Arc::clone(&queue.spec);
            return self.read_dead(Unread { queue, run: entry.run(), reason });
        }
        self.mourn(slot, entry, reason);
    }

    /// The same for messages that the log has, of a queue that has a dead letter exchange.
    pub(super) fn lose_far(&mut self, slot: Slot<Queue>, run: Run, reason: Reason) {
        let queue = &mut self.queues[slot];
        queue.leave(u64::from(run.count));
        queue.begin_move(&run);
        let queue = Arc::clone(&queue.spec);
        self.read_dead(Unread { queue, run, reason });
    }

    /// The same for a message that is not counted as the queue's.
    pub(super) fn mourn(&mut self, slot: Slot<Queue>, entry: Entry, reason: Reason) {
        let queue = Arc::clone(&self.queues[slot].spec);
        self.dead.push_back(Dead { queue, entry, reason });
    }

    /// Publishes all dead letters.
    pub(super) fn bury(&mut self, topology: &Topology) {
        while let Some(Dead { queue, entry, reason }) = self.dead.pop_front() {
            let id = queue.queue.id;
            let failure = self.queue_slots.get(&id).and_then(|slot| self.queues[*slot].failure(entry.seq));
            let letter = entry.message().and_then(|message| {
                let death = Death { reason, failure: failure.as_ref(), unix_ms: self.now.unix_ms };
                DeadLetter::new(message, &queue, death)
            });
            match letter {
                Some(letter) => {
                    let targets = self.targets(&letter, &queue, topology);
                    self.post_letter(letter, targets, id, entry);
                }
                None => self.settle_place(id, &entry),
            }
        }
    }

    /// Where a letter goes, by shard.
    fn targets(&mut self, letter: &DeadLetter, queue: &QueueSpec, topology: &Topology) -> Vec<(ShardId, QueueIds)> {
        let Ok(properties) = Properties::parse(letter.message.properties()) else { return Vec::new() };
        let keys: Vec<&str> = letter.keys.iter().map(String::as_str).collect();
        let exchange = queue.settings.dead_letter_exchange.as_deref().unwrap_or_default();
        let found = topology.route(queue.vhost, exchange, &keys, &properties, &mut self.routes);
        if found.is_err() {
            return Vec::new();
        }
        let cycles = |id| topology.queue_by_id(id).is_some_and(|target| letter.cycles_to(&target.name));
        self.routes.queues.retain(|target| !cycles(target.id));
        self.routes.by_shard().collect()
    }

    fn post_letter(&mut self, letter: DeadLetter, targets: Vec<(ShardId, QueueIds)>, id: QueueId, mut entry: Entry) {
        let DeadLetter { message, persistent, priority, .. } = letter;
        let is_moving_away = targets.iter().any(|(shard, _)| *shard != self.id);
        let moved_from = (entry.is_kept && !is_moving_away).then_some((id, entry.seq));
        self.last_transfer += 1;
        let transfer = self.last_transfer;
        let (mut left, mut moved_by) = (0, Lsn::ZERO);
        for (shard, queues) in targets {
            let message = message.clone();
            let more = Vec::new();
            let (expiration_ms, delay_ms, confirm) = (None, None, false);
            let publish = Publish { queues, message, more, persistent, expiration_ms, priority, delay_ms, confirm };
            let terms = Terms::from(&publish);
            if shard == self.id {
                moved_by = self.publish(&publish.queues, publish.message, terms, moved_from).logged;
            } else {
                self.out.shards.push((shard, ShardInput::Transfer { from: self.id, transfer, publish }));
                left += 1;
            }
        }
        if !entry.is_kept {
            return self.settle_place(id, &entry);
        }
        if left > 0 {
            entry.send_away();
            if let Some(slot) = self.queue_slots.get(&id) {
                self.queues[*slot].begin_move(&entry.run());
            }
            self.moving.insert(transfer, Moving { queue: id, entry, left, moved_for: None, is_taken: true });
        } else if moved_by != Lsn::ZERO {
            self.log.release(&entry.run());
        } else {
            self.settle_place(id, &entry);
        }
    }

    /// Another shard has stored a letter, or what was moved there; or has no room for it.
    pub(super) fn finish_transfer(&mut self, transfer: u64, is_taken: bool) {
        let Some(moving) = self.moving.get_mut(&transfer) else { return };
        moving.left -= 1;
        moving.is_taken |= is_taken;
        if moving.left == 0
            && let Some(Moving { queue, entry, moved_for, is_taken, .. }) = self.moving.remove(&transfer)
        {
            if let Some(slot) = self.queue_slots.get(&queue) {
                self.queues[*slot].end_move(&entry.run());
            }
            if is_taken {
                self.settle_place(queue, &entry);
            } else {
                self.stay(queue, entry);
            }
            if let Some(ticket) = moved_for {
                self.finish_move(ticket, is_taken);
            }
        }
    }

    /// The place of a message that its queue counts no more is empty in the log, too.
    pub(super) fn settle_place(&mut self, queue: QueueId, entry: &Entry) {
        match self.queue_slots.get(&queue) {
            Some(&slot) => self.vacate(slot, entry),
            None if entry.is_logged() => self.log.release(&entry.run()),
            None => {}
        }
    }
}
