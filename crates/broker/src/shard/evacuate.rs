//! Keeps the log from being held up by what is old and still alive: such records are appended again, so that the
//! oldest part of the log can go.
//!
//! A pass walks over everything the shard has, a piece in each step. What moves meanwhile may be missed: the next pass
//! finds it, since the log then still asks.

use super::Shard;
use crate::queue::ready::Entry;
use store::{Lsn, Seq, Store};

/// How far a pass is.
#[derive(Debug, Default)]
pub(super) struct Evacuation {
    pass: Option<Pass>,
    /// No pass starts before: the last one's effect is seen when its records are durable.
    not_before_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pass {
    /// What lies before this moves.
    bound: Lsn,
    /// Which queue, by slot.
    queue: u32,
    place: Place,
}

/// Where in a queue.
#[derive(Clone, Copy, Debug)]
enum Place {
    Ready(usize, Seq),
    Unacked(Seq),
}

/// What may be done in one step.
struct Budget {
    entries: usize,
    bytes: usize,
}

impl Evacuation {
    pub(super) fn is_running(&self) -> bool {
        self.pass.is_some()
    }

    /// When the next pass may start, by `Now::ms`.
    pub(super) fn may_start_ms(&self) -> u64 {
        self.not_before_ms
    }
}

impl<S: Store> Shard<S> {
    /// Does a piece of the work, if there is any.
    pub(super) fn evacuate(&mut self) {
        let pass = match self.evacuation.pass {
            Some(pass) => pass,
            None if self.now.ms < self.evacuation.not_before_ms => return,
            None => match self.log.evacuation_bound() {
                None => return,
                Some(bound) => Pass { bound, queue: 0, place: Place::Ready(0, Seq(0)) },
            },
        };
        let mut budget = Budget { entries: STEP_ENTRIES, bytes: STEP_BYTES };
        budget.bytes = self.log.evacuate_facts(pass.bound, budget.bytes);
        self.evacuation.pass = self.go_on(pass, &mut budget);
        if self.evacuation.pass.is_none() {
            self.evacuation.not_before_ms = self.now.ms + PAUSE_MS;
        }
    }

    fn go_on(&mut self, mut pass: Pass, budget: &mut Budget) -> Option<Pass> {
        let Self { queues, log, moving, .. } = self;
        while let Some((slot, next)) = queues.next_from(pass.queue) {
            let queue = &mut queues[slot];
            let id = queue.spec.queue.id;
            let mut visit = |entry: &mut Entry| {
                budget.entries = budget.entries.saturating_sub(1);
                if entry.is_logged() && entry.lsn < pass.bound {
                    log.append_again(id, entry);
                    budget.bytes = budget.bytes.saturating_sub(entry.message.bytes().len());
                }
                budget.entries == 0 || budget.bytes == 0
            };
            // Who is in this slot may not be who was: then the walk starts within it, and the next pass sees the rest.
            pass.queue = next - 1;
            if let Place::Ready(level, seq) = pass.place {
                for entry in queue.ready.walk((level, seq)) {
                    let at = (usize::from(entry.priority), Seq(entry.seq.0 + 1));
                    if visit(entry) {
                        pass.place = Place::Ready(at.0, at.1);
                        return Some(pass);
                    }
                }
                pass.place = Place::Unacked(Seq(0));
            }
            if let Place::Unacked(seq) = pass.place {
                for entry in queue.unacked.walk(seq) {
                    let next_seq = Seq(entry.seq.0 + 1);
                    if visit(entry) {
                        pass.place = Place::Unacked(next_seq);
                        return Some(pass);
                    }
                }
            }
            pass.queue = next;
            pass.place = Place::Ready(0, Seq(0));
        }
        for moving in moving.values_mut().filter(|moving| moving.entry.lsn < pass.bound) {
            log.append_again(moving.queue, &mut moving.entry);
        }
        None
    }
}

/// Walking over this many messages takes less than a millisecond.
const STEP_ENTRIES: usize = 16 << 10;
/// Writing this much does not hold up who waits for a sync.
const STEP_BYTES: usize = 1 << 20;
const PAUSE_MS: u64 = 1000;
