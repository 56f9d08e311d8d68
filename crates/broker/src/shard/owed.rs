//! Letters that a queue owes: a queue that they lead to is full, and refuses them.
//!
//! They stay with their source, in its order, each in its place in the log: a letter is in the log of its source until
//! another queue has it. While a queue owes some, whatever dies in it joins them. They are tried again when a queue that
//! refused them has room (in this shard it says so), and otherwise after a pause; each time one first, and more while
//! they are taken. What is tried is read again and made a letter anew, of the message as it was: so its history has its
//! death once, however often it is tried.

use super::Shard;
use super::dead_letter::{Unread, has_place};
use super::publish::{Stored, Terms};
use super::slots::Slot;
use super::timers::Due;
use crate::command::{QueueSpec, ShardId};
use crate::message::Message;
use crate::queue::Queue;
use crate::queue::dead_letter::Reason;
use crate::queue::owed::Died;
use crate::queue::ready::{Entry, Sums};
use crate::queue::run::Run;
use std::sync::Arc;
use store::{QueueId, Seq, Store};

impl<S: Store> Shard<S> {
    /// Whether others of its queue, which nobody has taken, come before a letter.
    pub(super) fn has_to_wait(&self, source: &QueueSpec, entry: &Entry) -> bool {
        if !source.owes() || !has_place(entry) {
            return false;
        }
        let Some(slot) = self.queue_slots.get(&source.queue.id) else { return false };
        let is_tried = Died::of(entry.due_at_ms).is_some();
        self.queues[*slot].owed.as_ref().is_some_and(|owed| owed.is_blocked || !is_tried)
    }

    /// A letter is kept until somebody takes it; `full` had no room for it. With its queue it goes.
    pub(super) fn owe(&mut self, source: &QueueSpec, mut entry: Entry, reason: Reason, full: Option<QueueId>) {
        let id = source.queue.id;
        let Some(&slot) = self.queue_slots.get(&id) else { return self.settle_place(id, &entry) };
        let is_tried = Died::of(entry.due_at_ms).is_some();
        let bytes = u64::from(entry.body.payload_bytes() - entry.body.header_bytes());
        if is_tried {
            self.queues[slot].owe(entry.run());
        } else {
            self.log.spill(id, &mut entry);
            self.owe_far(slot, entry.run(), reason);
        }
        if let Some(full) = full {
            self.wait_for_room(slot, full, bytes);
        }
        if is_tried {
            if let Some(owed) = &mut self.queues[slot].owed {
                owed.is_blocked = true;
            }
            self.end_try(id, &entry);
        }
    }

    /// The same for messages that died just now, and that the log has.
    pub(super) fn owe_far(&mut self, slot: Slot<Queue>, mut run: Run, reason: Reason) {
        let queue = &mut self.queues[slot];
        let id = queue.spec.queue.id;
        run.due_at_ms = Died { reason, unix_s: self.now.unix_ms / 1000 }.due_at_ms();
        if run.kept {
            self.log.append_returned(id, run.range(), run.attempts, run.due_at_ms);
            // As the log has it then.
            run.redelivered = true;
        }
        queue.owe(Run { holder: 0, since_ms: 0, ..run });
        self.wait_with_letters(slot);
    }

    /// Tries again after a pause, unless that is to be or is under way.
    pub(super) fn wait_with_letters(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        if let Some(owed) = &mut queue.owed
            && owed.timer_ms == 0
            && owed.trying == 0
        {
            let at_ms = owed.next_try(self.now.ms);
            self.timers.set(&mut owed.timer_ms, at_ms, queue.spec.queue.id, Due::Letters);
        }
    }

    /// A queue of this shard tells when it has room for a letter of that length.
    fn wait_for_room(&mut self, source: Slot<Queue>, full: QueueId, bytes: u64) {
        let Some(&target) = self.queue_slots.get(&full) else { return };
        let queue = &mut self.queues[source];
        let id = queue.spec.queue.id;
        let Some(owed) = &mut queue.owed else { return };
        if owed.called_by.replace(full) == Some(full) {
            return;
        }
        let callers = self.queues[target].callers.get_or_insert_default();
        if !callers.waiting.iter().any(|(caller, _)| *caller == id) {
            callers.waiting.push_back((id, bytes));
        }
    }

    /// A queue that refused letters may have room: as many queues as there is room for try theirs.
    pub(super) fn call_sources(&mut self, target: Slot<Queue>) {
        let mut room = self.queues[target].room();
        while room > 0 {
            let queue = &mut self.queues[target];
            let id = queue.spec.queue.id;
            let Some(callers) = &mut queue.callers else { return };
            let Some((source, bytes)) = callers.waiting.front().copied() else {
                if callers.called.is_none_or(|(_, until_ms)| until_ms <= self.now.ms) {
                    queue.callers = None;
                }
                return;
            };
            if queue.would_overflow(bytes, Sums::default()) {
                return;
            }
            if let Some(callers) = &mut queue.callers {
                callers.waiting.pop_front();
            }
            if let Some(slot) = self.queue_slots.get(&source)
                && let Some(owed) = &mut self.queues[*slot].owed
                && owed.called_by == Some(id)
            {
                owed.called_by = None;
                if let Some(callers) = &mut self.queues[target].callers {
                    callers.called = Some((bytes, self.now.ms + CALLED_MS));
                }
                self.call_owed(source, room.min(BATCH_MAX));
                room -= 1;
            }
        }
    }

    /// It is worth to try the letters of this queue, if it owes any: so many at first.
    pub(super) fn call_owed(&mut self, source: QueueId, count: u32) {
        let Some(slot) = self.queue_slots.get(&source) else { return };
        let Some(owed) = &mut self.queues[*slot].owed else { return };
        if owed.trying > 0 {
            owed.is_called = true;
        } else {
            owed.batch = count;
            self.called.push(source);
        }
    }

    /// Tries letters of the queues whose turn it is.
    pub(super) fn try_called(&mut self) {
        for id in std::mem::take(&mut self.called) {
            let Some(&slot) = self.queue_slots.get(&id) else { continue };
            let may_try = self.may_mourn_unread();
            let queue = &mut self.queues[slot];
            let Some(owed) = &mut queue.owed else { continue };
            if owed.trying > 0 {
                continue;
            }
            self.timers.set(&mut owed.timer_ms, 0, id, Due::Letters);
            if !may_try {
                self.wait_with_letters(slot);
                continue;
            }
            let (runs, source) = (queue.take_owed(), Arc::clone(&queue.spec));
            for run in runs {
                let Some(died) = Died::of(run.due_at_ms) else { continue };
                self.read_dead(Unread { queue: Arc::clone(&source), run, reason: died.reason });
            }
        }
    }

    /// Letters of this queue that are being tried.
    pub(super) fn tried(&self, id: QueueId) -> Vec<Run> {
        self.moving_runs(id).filter(|run| Died::of(run.due_at_ms).is_some()).collect()
    }

    /// A letter is taken, or back. If it was one that was tried, and the last of them, the next ones have their turn, or
    /// to wait.
    pub(super) fn end_try(&mut self, id: QueueId, entry: &Entry) {
        if Died::of(entry.due_at_ms).is_none() {
            return;
        }
        let Some(&slot) = self.queue_slots.get(&id) else { return };
        let queue = &mut self.queues[slot];
        let Some(owed) = &mut queue.owed else { return };
        owed.trying = owed.trying.saturating_sub(1);
        if owed.trying > 0 {
            return;
        }
        let is_called = std::mem::take(&mut owed.is_called);
        if owed.is_blocked {
            owed.batch = 1;
            if is_called {
                return self.called.push(id);
            }
            return self.wait_with_letters(slot);
        }
        if owed.is_empty() {
            queue.owed = None;
            return;
        }
        owed.wait_ms = 0;
        owed.batch = (2 * owed.batch).clamp(1, BATCH_MAX);
        self.called.push(id);
    }

    /// These shards have the letter, and need not get it again.
    pub(super) fn note_taken(&mut self, place: (QueueId, Seq), taken_by: Vec<ShardId>) {
        if !taken_by.is_empty() && self.queue_slots.contains_key(&place.0) {
            self.taken_by.insert(place, taken_by);
        }
    }

    /// Shards that have the letter already; they are asked for once.
    pub(super) fn take_taken(&mut self, place: (QueueId, Seq)) -> Vec<ShardId> {
        // Mostly there are none.
        if self.taken_by.is_empty() { Vec::new() } else { self.taken_by.remove(&place).unwrap_or_default() }
    }

    /// Puts a letter into all these queues, or, if one of them has no room for it, into none and says which.
    pub(super) fn take_letter(
        &mut self,
        queues: &[QueueId],
        message: Message,
        terms: Terms,
        moved_from: Option<(QueueId, Seq)>,
    ) -> Result<Stored, QueueId> {
        if let Some(full) = self.find_full(queues, &message) {
            return Err(full);
        }
        for id in queues {
            let slot = self.queue_slots.get(id);
            if let Some(callers) = slot.and_then(|slot| self.queues[*slot].callers.as_mut()) {
                (callers.called, callers.is_publishers_turn) = (None, true);
            }
        }
        Ok(self.publish(queues, message, terms, moved_from))
    }

    /// What takes room in a queue for what is published to it, beside what is ready: letters that the queue owes, since who
    /// does not get rid of them takes no more, and one that waits for this room and whose turn it is.
    pub(super) fn taken_beside(&self, slot: Slot<Queue>) -> Sums {
        let queue = &self.queues[slot];
        let mut taken = queue.owed_sums();
        if let Some(callers) = queue.callers.as_ref().filter(|callers| !callers.is_publishers_turn) {
            let id = queue.spec.queue.id;
            let waits = |source: &QueueId| {
                let source = self.queue_slots.get(source).map(|slot| &self.queues[*slot]);
                source.and_then(|source| source.owed.as_ref()).is_some_and(|owed| owed.called_by == Some(id))
            };
            let waiting = callers.waiting.iter().find(|(source, _)| waits(source)).map(|(_, bytes)| *bytes);
            let called = callers.called.filter(|(_, until_ms)| self.now.ms < *until_ms).map(|(bytes, _)| bytes);
            if let Some(bytes) = waiting.or(called).filter(|bytes| queue.has_ever_room(*bytes)) {
                taken.count += 1;
                taken.body_bytes += bytes;
            }
        }
        taken
    }

    /// The first of the queues that refuses this letter.
    pub(super) fn find_full(&mut self, queues: &[QueueId], message: &Message) -> Option<QueueId> {
        queues.iter().copied().find(|id| {
            let Some(&slot) = self.queue_slots.get(id) else { return false };
            let queue = &self.queues[slot];
            queue.stream.is_none() && queue.rejects_when_full() && self.is_full_for(slot, message, false)
        })
    }
}

impl Queue {
    /// Whether what dies here has to wait until letters are taken that died before.
    pub(crate) fn is_owing(&self) -> bool {
        self.owed.is_some() && self.spec.owes()
    }

    /// For how many more messages there is room, if they are short.
    fn room(&self) -> u32 {
        let most = self.spec.settings.length_max.unwrap_or(u64::MAX);
        u32::try_from(most.saturating_sub(self.ready.len() as u64)).unwrap_or(u32::MAX)
    }
}

/// For so long room is kept for a letter that was called for. It comes as soon as it is read.
const CALLED_MS: u64 = 1_000;
/// So many letters of a queue are tried at once.
const BATCH_MAX: u32 = 256;
