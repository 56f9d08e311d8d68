//! What workers say of the jobs that they have: how far they are, and why they failed.
//!
//! Progress is part of the lease and goes with it. A failure stays with its message until the next one: in memory and, if the
//! message is kept, as a fact in the log, which comes before whatever the worker does with the message then. So a crash
//! finds a message that came back with the words that it came back with. What is left of messages that are gone is looked
//! for when about as much has been said as there is.

use super::Shard;
use super::peers::Peer;
use super::slots::Slot;
use crate::command::{CallId, Failure, Outcome, Report};
use crate::fact::{failure_fact, failure_key, read_failure};
use crate::queue::Queue;
use crate::queue::failure::{Failures, Kept};
use store::{QueueId, Seq, SeqRange, Store};

/// What the failures of all queues take, about.
#[derive(Debug, Default)]
pub(super) struct Room {
    bytes: u64,
    /// What came since it was looked what is left of messages that are gone.
    unswept_bytes: u64,
}

impl<S: Store> Shard<S> {
    /// A worker says something of a message that it has, or had.
    pub(super) fn report_for(&mut self, peer: Slot<Peer>, call: CallId, message: (QueueId, Seq), report: Report) {
        let (queue, seq) = message;
        let held = self.held_by(peer, queue, seq);
        let is_known = held.is_some_and(|(slot, holder)| match report {
            Report::Failure(failure) => {
                self.note_failure(slot, seq, failure);
                true
            }
            Report::Progress(progress) => {
                let all = self.queues[slot].progress.get_or_insert_default();
                all.put(holder, seq, progress)
            }
        });
        self.answer(peer, call, if is_known { Outcome::Applied } else { Outcome::Empty });
    }

    fn note_failure(&mut self, slot: Slot<Queue>, seq: Seq, mut failure: Failure) {
        let queue = &self.queues[slot];
        let Some(run) = queue.unacked.find(seq) else { return };
        let id = queue.spec.queue.id;
        self.failures.unswept_bytes += (failure.reason.len() + failure.details.len()) as u64;
        if self.failures.unswept_bytes > SWEEP_BYTES_MIN.max(self.failures.bytes / 4) {
            self.sweep_failures();
        }
        if self.failures.bytes >= FAILURES_BYTES_MAX {
            failure.details = String::new();
        }
        if self.failures.bytes >= 2 * FAILURES_BYTES_MAX {
            return;
        }
        let (key, value) = failure_fact(id, seq, &failure);
        if run.kept {
            self.log.put_fact(key, value.clone());
        }
        self.keep_failure(slot, seq, Kept { value, priority: run.priority, is_logged: run.kept });
    }

    /// The queue has this failure, found by a restart or new.
    pub(super) fn keep_failure(&mut self, slot: Slot<Queue>, seq: Seq, kept: Kept) {
        let failures = self.queues[slot].failures.get_or_insert_default();
        let before = failures.bytes();
        failures.put(seq, kept);
        self.failures.bytes = self.failures.bytes + failures.bytes() - before;
    }

    /// What is left of messages that are gone goes.
    pub(super) fn sweep_failures(&mut self) {
        self.failures.unswept_bytes = 0;
        let slots: Vec<_> =
            self.queues.iter().filter(|(_, queue)| queue.failures.is_some()).map(|(slot, _)| slot).collect();
        for slot in slots {
            let id = self.queues[slot].spec.queue.id;
            let moving: Vec<SeqRange> = self.moving_runs(id).map(|run| run.range()).collect();
            let queue = &mut self.queues[slot];
            let gone = queue.outlived_failures(&moving);
            let Some(failures) = &mut queue.failures else { continue };
            let before = failures.bytes();
            for (seq, is_logged) in gone {
                failures.remove(seq);
                if is_logged {
                    self.log.forget_fact(&failure_key(id, seq));
                }
            }
            self.failures.bytes -= before - failures.bytes();
            if failures.bytes() == 0 {
                queue.failures = None;
            }
        }
    }

    /// Those of a queue that is deleted.
    pub(super) fn drop_failures(&mut self, id: QueueId, failures: &Failures) {
        self.failures.bytes -= failures.bytes();
        for (seq, _) in failures.seqs().filter(|(_, is_logged)| *is_logged) {
            self.log.forget_fact(&failure_key(id, seq));
        }
    }
}

impl Queue {
    /// Why the last delivery of this message failed, if a worker said so.
    pub(crate) fn failure(&self, seq: Seq) -> Option<Failure> {
        read_failure(&self.failures.as_ref()?.get(seq)?.value)
    }
}

/// So much of failures is kept at length; beyond it only reasons are, and beyond twice as much nothing.
const FAILURES_BYTES_MAX: u64 = 64 << 20;
/// With less than this it is not looked what is left of messages that are gone.
const SWEEP_BYTES_MIN: u64 = 1 << 20;

#[cfg(test)]
impl<S: Store> Shard<S> {
    pub(super) fn failures_bytes(&self) -> u64 {
        self.failures.bytes
    }

    /// As if there were so much.
    pub(super) fn fill_failures(&mut self, bytes: u64) {
        self.failures.bytes = bytes;
    }
}
