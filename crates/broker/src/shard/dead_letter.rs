//! Dead letters on their way: from the queue where a message died to those that its dead letter exchange leads to.
//!
//! What dies is put on a list and buried when the command at hand is done, so that queues that dead-letter into each
//! other take turns instead of recursing. A letter that stays in this shard moves in one record. One that goes to
//! another shard leaves its source in the log until that shard has stored it: after a crash it dies again. It does not go
//! before its own record is durable, which is when the shard that it came from lets go of it: so a letter that circles
//! through shards has one source in each of them, and not one a round. One that is refused is owed (`owed.rs`).

use super::Shard;
use super::log::Waiter;
use super::publish::Terms;
use super::slots::Slot;
use crate::command::{DeadLetterStrategy, IfRefused, Publish, QueueIds, QueueSpec, ShardId, ShardInput};
use crate::message::Message;
use crate::queue::Queue;
use crate::queue::dead_letter::{DeadLetter, Death, Reason};
use crate::queue::owed::Died;
use crate::queue::ready::Entry;
use crate::queue::run::Run;
use crate::topology::Topology;
use amqp::Properties;
use std::sync::Arc;
use store::{Lsn, QueueId, Seq, Store};

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

/// A message that other shards have yet to store.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) queue: QueueId,
    pub(super) entry: Entry,
    /// How many of them.
    pub(super) left: usize,
    pub(super) purpose: Purpose,
}

/// Why a message goes to other shards.
#[derive(Debug)]
pub(super) enum Purpose {
    /// An operator moves it.
    Move {
        /// Who waits for that.
        ticket: u64,
        /// One of its queues has it.
        is_taken: bool,
    },
    /// It is a dead letter.
    Letter {
        /// Of this queue.
        source: Arc<QueueSpec>,
        reason: Reason,
        /// Shards that have it.
        taken_by: Vec<ShardId>,
        /// One has no room.
        is_refused: bool,
        /// It is to be buried again when the others have it: queues of this shard are to get it then, or, with no others,
        /// its record had to become durable first.
        goes_on: bool,
    },
}

/// Queues that a letter goes to, by shard.
type Targets = Vec<(ShardId, QueueIds)>;

impl<S: Store> Shard<S> {
    /// A message, taken out of its place, is to be dead-lettered, or dropped if nobody asked for that.
    pub(super) fn lose(&mut self, slot: Slot<Queue>, entry: Entry, reason: Reason) {
        let queue = &mut self.queues[slot];
        if queue.spec.settings.dead_letter_exchange.is_none() {
            return self.retire(slot, &entry);
        }
        queue.leave(1);
        if queue.is_owing() {
            let source = Arc::clone(&queue.spec);
            return self.owe(&source, entry, reason, None);
        }
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
        if queue.is_owing() {
            return self.owe_far(slot, run, reason);
        }
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
            if self.has_to_wait(&queue, &entry) {
                self.owe(&queue, entry, reason, None);
                continue;
            }
            let id = queue.queue.id;
            let failure = self.queue_slots.get(&id).and_then(|slot| self.queues[*slot].failure(entry.seq));
            let unix_ms = Died::of(entry.due_at_ms).map_or(self.now.unix_ms, |died| died.unix_s * 1000);
            let letter = entry.message().and_then(|message| {
                let death = Death { reason, failure: failure.as_ref(), unix_ms };
                DeadLetter::new(message, &queue, death)
            });
            match letter {
                Some(letter) => match self.targets(&letter, &queue, topology) {
                    None if queue.settings.dead_letter_strategy == DeadLetterStrategy::AtLeastOnce
                        && has_place(&entry) =>
                    {
                        self.owe(&queue, entry, reason, None);
                    }
                    Some(targets) if self.leaves_early(&entry, &targets) => {
                        self.wait_for_log(Dead { queue, entry, reason });
                    }
                    targets => self.post_letter(letter, targets.unwrap_or_default(), Dead { queue, entry, reason }),
                },
                None => self.let_go(id, &entry),
            }
        }
    }

    /// Whether other shards would have it before it is certain that this one has it.
    fn leaves_early(&self, entry: &Entry, targets: &Targets) -> bool {
        entry.is_kept && !self.log.is_durable(entry.lsn) && targets.iter().any(|(shard, _)| *shard != self.id)
    }

    /// Buries it, once more, when its record is durable.
    fn wait_for_log(&mut self, dead: Dead) {
        let Dead { queue: source, mut entry, reason } = dead;
        if !self.may_mourn() {
            entry.send_away();
        }
        let (id, lsn) = (source.queue.id, entry.lsn);
        self.last_transfer += 1;
        let (taken_by, is_refused, goes_on) = (Vec::new(), false, true);
        self.hold(id, entry, 1, Purpose::Letter { source, reason, taken_by, is_refused, goes_on });
        self.log.wait(lsn, Waiter::Letter { transfer: self.last_transfer });
    }

    /// Where a letter goes; `None` if it leads nowhere. It may go to none of the queues that it leads to, where that would
    /// be a cycle.
    fn targets(&mut self, letter: &DeadLetter, queue: &QueueSpec, topology: &Topology) -> Option<Targets> {
        let properties = Properties::parse(letter.message.properties()).ok()?;
        let keys: Vec<&str> = letter.keys.iter().map(String::as_str).collect();
        let exchange = queue.settings.dead_letter_exchange.as_deref().unwrap_or_default();
        topology.route(queue.vhost, exchange, &keys, &properties, &mut self.routes).ok()?;
        if self.routes.queues.is_empty() {
            return None;
        }
        let cycles = |id| topology.queue_by_id(id).is_some_and(|target| letter.cycles_to(&target.name));
        self.routes.queues.retain(|target| !cycles(target.id));
        Some(self.routes.by_shard().collect())
    }

    /// Other shards get it first. What this shard's queues get is one record with the end of its place, and so never there
    /// twice.
    fn post_letter(&mut self, letter: DeadLetter, mut targets: Targets, dead: Dead) {
        let Dead { queue, entry, reason } = dead;
        if !queue.owes() || !has_place(&entry) {
            return self.post_once(letter, targets, Dead { queue, entry, reason });
        }
        let place = (queue.queue.id, entry.seq);
        let taken_by = self.take_taken(place);
        targets.retain(|(shard, _)| !taken_by.contains(shard));
        let here = targets.iter().position(|(shard, _)| *shard == self.id).map(|at| targets.remove(at).1);
        let goes_on = here.is_some();
        let publish = |queues, message| publication(&letter, queues, message);
        let refusal = if targets.is_empty() {
            let moved_from = entry.is_kept.then_some(place);
            let taken = here.map(|here| {
                let publish = publish(here, letter.message.clone());
                self.take_letter(&publish.queues, publish.message.clone(), Terms::from(&publish), moved_from)
            });
            match taken.transpose() {
                Ok(stored) if moved_from.is_some() && stored.is_some_and(|stored| stored.logged != Lsn::ZERO) => {
                    self.log.release(&entry.run());
                    return self.end_try(place.0, &entry);
                }
                Ok(_) => return self.let_go(place.0, &entry),
                Err(full) => Some(full),
            }
        } else {
            here.and_then(|here| self.find_full(&here, &letter.message))
        };
        if let Some(full) = refusal {
            self.note_taken(place, taken_by);
            return self.owe(&queue, entry, reason, Some(full));
        }
        self.last_transfer += 1;
        let left = targets.len();
        for (shard, queues) in targets {
            self.send_letter(shard, publish(queues, letter.message.clone()), IfRefused::Owed);
        }
        let purpose = Purpose::Letter { source: queue, reason, taken_by, is_refused: false, goes_on };
        self.wait_for_others(place.0, entry, left, purpose);
    }

    /// Who has no room for it does not get it.
    fn post_once(&mut self, letter: DeadLetter, mut targets: Targets, dead: Dead) {
        let Dead { queue: source, entry, reason } = dead;
        let id = source.queue.id;
        // From when it was owed.
        let taken_by = self.take_taken((id, entry.seq));
        targets.retain(|(shard, _)| !taken_by.contains(shard));
        let is_moving_away = targets.iter().any(|(shard, _)| *shard != self.id);
        let moved_from = (entry.is_kept && !is_moving_away).then_some((id, entry.seq));
        self.last_transfer += 1;
        let (mut left, mut moved_by) = (0, Lsn::ZERO);
        for (shard, queues) in targets {
            let publish = publication(&letter, queues, letter.message.clone());
            if shard == self.id {
                let terms = Terms::from(&publish);
                moved_by = self.publish(&publish.queues, publish.message, terms, moved_from).logged;
            } else {
                self.send_letter(shard, publish, IfRefused::Dropped);
                left += 1;
            }
        }
        if entry.is_kept && left > 0 {
            let (taken_by, is_refused, goes_on) = (Vec::new(), false, false);
            let purpose = Purpose::Letter { source, reason, taken_by, is_refused, goes_on };
            self.wait_for_others(id, entry, left, purpose);
        } else if moved_from.is_some() && moved_by != Lsn::ZERO {
            self.log.release(&entry.run());
            self.end_try(id, &entry);
        } else {
            self.let_go(id, &entry);
        }
    }

    /// As the last transfer, which may go to several shards.
    fn send_letter(&mut self, shard: ShardId, publish: Publish, if_refused: IfRefused) {
        let (from, transfer) = (self.id, self.last_transfer);
        self.out.shards.push((shard, ShardInput::Transfer { from, transfer, publish, if_refused }));
    }

    fn wait_for_others(&mut self, queue: QueueId, mut entry: Entry, left: usize, purpose: Purpose) {
        if entry.is_logged() {
            entry.send_away();
        }
        self.hold(queue, entry, left, purpose);
    }

    /// As the last transfer, until so many have answered.
    fn hold(&mut self, queue: QueueId, entry: Entry, left: usize, purpose: Purpose) {
        if let Some(slot) = self.queue_slots.get(&queue) {
            self.queues[*slot].begin_move(&entry.run());
        }
        self.moving.insert(self.last_transfer, Moving { queue, entry, left, purpose });
    }

    /// Another shard has stored a letter, or what was moved there; or has no room for it.
    pub(super) fn finish_transfer(&mut self, transfer: u64, by: ShardId, is_taken_there: bool) {
        let Some(moving) = self.moving.get_mut(&transfer) else { return };
        moving.left -= 1;
        match &mut moving.purpose {
            Purpose::Move { is_taken, .. } => *is_taken |= is_taken_there,
            Purpose::Letter { taken_by, .. } if is_taken_there => taken_by.push(by),
            Purpose::Letter { is_refused, .. } => *is_refused = true,
        }
        if moving.left == 0 {
            self.let_move_on(transfer);
        }
    }

    /// All that a message waited for is answered.
    pub(super) fn let_move_on(&mut self, transfer: u64) {
        let Some(Moving { queue, entry, purpose, .. }) = self.moving.remove(&transfer) else { return };
        if let Some(slot) = self.queue_slots.get(&queue) {
            self.queues[*slot].end_move(&entry.run());
        }
        match purpose {
            Purpose::Move { ticket, is_taken } => {
                if is_taken {
                    self.settle_place(queue, &entry);
                } else {
                    self.stay(queue, entry);
                }
                self.finish_move(ticket, is_taken);
            }
            Purpose::Letter { source, reason, taken_by, is_refused: true, .. } => {
                self.note_taken((queue, entry.seq), taken_by);
                self.owe(&source, entry, reason, None);
            }
            Purpose::Letter { source, reason, taken_by, goes_on: true, .. } => {
                self.note_taken((queue, entry.seq), taken_by);
                if entry.message().is_some() {
                    return self.dead.push_back(Dead { queue: source, entry, reason });
                }
                let run = entry.run();
                if let Some(slot) = self.queue_slots.get(&queue) {
                    self.queues[*slot].begin_move(&run);
                }
                self.read_dead(Unread { queue: source, run, reason });
            }
            Purpose::Letter { .. } => self.let_go(queue, &entry),
        }
    }

    /// The letter is taken, or nobody wants it.
    fn let_go(&mut self, queue: QueueId, entry: &Entry) {
        self.take_taken((queue, entry.seq));
        self.settle_place(queue, entry);
        self.end_try(queue, entry);
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

/// What a queue refused never had a place in it: its publisher knows that, and nobody owes its letter.
pub(super) fn has_place(entry: &Entry) -> bool {
    entry.seq != Seq(0)
}

fn publication(letter: &DeadLetter, queues: QueueIds, message: Message) -> Publish {
    let DeadLetter { persistent, priority, .. } = *letter;
    let (more, expiration_ms, delay, confirm) = (Vec::new(), None, None, false);
    Publish { queues, message, more, persistent, expiration_ms, priority, delay, confirm }
}
