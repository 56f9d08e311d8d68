//! Writes the index of all messages aside, so that a restart need not read the log from its beginning.
//!
//! A pass over all facts and queues, a piece in each step. A queue is walked by seq, over all the places where a message
//! can be: a message never changes its seq, so whatever moves meanwhile, what lives all the time is seen once.

use super::Shard;
use super::slots::Slot;
use crate::queue::Queue;
use crate::queue::deduplication::OWN;
use crate::queue::run::Run;
use bytes::Bytes;
use store::{QueueId, Record, Seq, Store};

/// A checkpoint that is being written.
#[derive(Debug)]
pub(super) struct Pass {
    /// Facts that are still to be written.
    facts: Vec<(Bytes, Bytes)>,
    /// Which queue, by slot, …
    slot: u32,
    /// … and who is in that slot.
    queue: Option<QueueId>,
    seq: Seq,
    /// Where to go on with the keys that the queue remembers; `None` before all that waits in it is written.
    keys: Option<(u64, u64)>,
}

impl Pass {
    /// From the beginning.
    pub(super) fn of(facts: Vec<(Bytes, Bytes)>) -> Self {
        Self { facts, slot: 0, queue: None, seq: Seq(0), keys: None }
    }
}

impl<S: Store> Shard<S> {
    /// Does a piece of the work, if there is any.
    pub(super) fn write_checkpoint(&mut self) {
        let is_idle = || self.idle_checkpoint_at_ms().is_some_and(|at_ms| at_ms <= self.now.ms);
        if self.may_begin_checkpoint() && (self.log.store_ref().wants_checkpoint() || is_idle()) {
            self.begin_checkpoint();
        }
        if self.may_write_checkpoint()
            && let Some(mut pass) = self.checkpoint.take()
            && !self.go_on(&mut pass, RUNS_AT_ONCE)
        {
            self.checkpoint = Some(pass);
        }
    }

    /// Those that died and are unread would be looked through for each queue; and a disk that cannot follow has no room
    /// for more.
    fn may_begin_checkpoint(&self) -> bool {
        let is_behind = self.dead_unread.len() > UNREAD_MAX || self.log.unwritten_bytes() > UNWRITTEN_MAX;
        self.checkpoint.is_none() && !is_behind
    }

    /// When one is worth it because there will be nothing else to do.
    pub(super) fn idle_checkpoint_at_ms(&self) -> Option<u64> {
        let is_worth_it = self.may_begin_checkpoint() && self.log.store_ref().wants_idle_checkpoint();
        is_worth_it.then(|| self.quiet_since_ms.saturating_add(IDLE_MS))
    }

    /// Notes whether anything was appended in this step.
    pub(super) fn note_activity(&mut self) {
        let last = self.log.last();
        if self.quiet_since != last {
            self.quiet_since = last;
            self.quiet_since_ms = self.now.ms;
        }
    }

    /// Whether there is a piece to be written, and the disk has followed so far.
    pub(super) fn may_write_checkpoint(&self) -> bool {
        self.checkpoint.is_some() && !self.log.store_ref().checkpoint_is_behind()
    }

    /// Begins one for a stop after which the log would take long to read.
    pub(super) fn begin_last_checkpoint(&mut self) {
        self.checkpoint = None;
        if self.log.store().replay_bytes() >= LAST_REPLAY_BYTES {
            self.begin_checkpoint();
        }
    }

    fn begin_checkpoint(&mut self) {
        self.log.store().begin_checkpoint();
        self.checkpoint = Some(Pass::of(self.log.facts()));
    }

    /// True when it is complete.
    fn go_on(&mut self, pass: &mut Pass, mut budget: usize) -> bool {
        while let Some((key, value)) = pass.facts.pop() {
            self.log.store().checkpoint(Record::Fact { key: &key, value: &value });
            budget = budget.saturating_sub(FACT_COST + value.len() / FACT_COST_BYTES);
            if budget == 0 {
                return false;
            }
        }
        while let Some((slot, next)) = self.queues.next_from(pass.slot) {
            let spec = &self.queues[slot].spec;
            let id = spec.queue.id;
            if !spec.durable {
                pass.slot = next;
                continue;
            }
            if pass.queue != Some(id) {
                pass.queue = Some(id);
                pass.seq = Seq(0);
                pass.keys = None;
                let next = self.queues[slot].next_seq();
                self.log.store().checkpoint(Record::Queue { queue: id, next });
                budget = budget.saturating_sub(FACT_COST);
            }
            pass.slot = next - 1;
            while pass.keys.is_none() {
                let (mut runs, last) = self.piece(slot, pass.seq);
                budget = budget.saturating_sub(runs.len());
                join(&mut runs);
                if !runs.is_empty() {
                    let waiting: Vec<store::Run> = runs.iter().map(Run::stored).collect();
                    self.log.store().checkpoint(Record::Waiting { queue: id, runs: &waiting });
                }
                match last {
                    Some(last) => pass.seq = Seq(last.0 + 1),
                    None => pass.keys = Some((0, 0)),
                }
                if budget == 0 && pass.keys.is_none() {
                    return false;
                }
            }
            // Behind what waits: keys of messages that are not there may be dropped.
            if !self.checkpoint_keys(slot, pass, &mut budget) {
                return false;
            }
            pass.slot = next;
            pass.queue = None;
            if budget == 0 {
                return false;
            }
        }
        self.log.store().end_checkpoint();
        true
    }

    /// The keys that the queue remembers. True when all are written.
    fn checkpoint_keys(&mut self, slot: Slot<Queue>, pass: &mut Pass, budget: &mut usize) -> bool {
        let queue = &self.queues[slot];
        let (Some(keys), Some(mut from)) = (&queue.keys, pass.keys) else { return true };
        let (id, has_own) = (queue.spec.queue.id, queue.spec.settings.deduplication.is_some());
        while let Some((source, found, next)) = keys.kept_from(from, PIECE_RUNS) {
            if *budget == 0 {
                return false;
            }
            *budget = budget.saturating_sub(found.len() + FACT_COST);
            if !found.is_empty() && (source != OWN || has_own) {
                let most = keys.most_of(source);
                self.log.store().checkpoint(Record::Keys { queue: id, source, most, keys: &found });
            }
            from = next;
            pass.keys = Some(from);
        }
        true
    }

    /// Runs of the queue from this seq on, and up to which seq these are all; `None` if that is the end.
    fn piece(&self, slot: Slot<Queue>, from: Seq) -> (Vec<Run>, Option<Seq>) {
        let queue = &self.queues[slot];
        let mut runs = Vec::new();
        let mut last: Option<Seq> = None;
        let delayed = queue.delayed.iter().map(|delayed| Box::new(delayed.from(from)) as Box<dyn Iterator<Item = Run>>);
        let owed = queue.owed.iter().map(|owed| Box::new(owed.from(from)) as Box<dyn Iterator<Item = Run>>);
        for source in queue.ready.sources(from).chain(queue.unacked.sources(from)).chain(delayed).chain(owed) {
            let before = runs.len();
            runs.extend(source.take(PIECE_RUNS));
            if runs.len() - before == PIECE_RUNS {
                let end = runs[runs.len() - 1].range().last;
                last = Some(last.map_or(end, |last| last.min(end)));
            }
        }
        runs.extend(self.moving_runs(queue.spec.queue.id).filter(|run| run.seq >= from));
        runs.retain(|run| run.kept && last.is_none_or(|last| run.seq <= last));
        if let Some(last) = last {
            for run in &mut runs {
                let left = last.0 - run.seq.0 + 1;
                run.count = run.count.min(u32::try_from(left).unwrap_or(u32::MAX));
            }
        }
        (runs, last)
    }
}

/// Puts runs in order and makes one of those that continue each other.
fn join(runs: &mut Vec<Run>) {
    runs.sort_unstable_by_key(|run| run.seq);
    runs.dedup_by(|next, run| run.absorb(next));
}

/// After so long without a record there will likely be none for a while.
const IDLE_MS: u64 = 500;
/// About as many runs are dealt with in a step; that takes a millisecond or two.
const RUNS_AT_ONCE: usize = 32 << 10;
/// How many of one kind make a piece.
const PIECE_RUNS: usize = 4096;
/// With more messages than this that died and are still to be read, a checkpoint waits.
const UNREAD_MAX: usize = 4096;
/// The same for bytes that are still to be written.
const UNWRITTEN_MAX: usize = 16 << 20;
/// What a fact counts for, …
const FACT_COST: usize = 8;
/// … and for each so many bytes one more.
const FACT_COST_BYTES: usize = 64;
/// A log of this size is read at once.
const LAST_REPLAY_BYTES: u64 = 4 << 20;
