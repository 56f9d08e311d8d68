//! Old segments of the log that mostly are dead give up what lives in them, so that their space comes back.
//!
//! The store finds such a segment and reads it, a piece at a time; what still lives is appended again. A pause after
//! each piece keeps that from taking the disk away from those who wait for it.

use super::Shard;
use store::{OldMessage, Store};

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    /// A piece was asked for.
    is_asked: bool,
    /// Nothing is asked for before; by `Now::ms`.
    not_before_ms: u64,
}

impl<S: Store> Shard<S> {
    /// When there will be something to do.
    pub(super) fn reclaim_at_ms(&self) -> Option<u64> {
        let may_ask = !self.reclaim.is_asked && self.log.unwritten_bytes() < UNWRITTEN_MAX;
        (may_ask && self.log.wants_reclaim()).then_some(self.reclaim.not_before_ms)
    }

    /// Asks for a piece if it is time.
    pub(super) fn reclaim(&mut self) {
        if self.reclaim_at_ms().is_some_and(|at_ms| at_ms <= self.now.ms) {
            self.reclaim.is_asked = self.log.store().reclaim();
        }
    }

    /// The piece is here.
    pub(super) fn hear_old(&mut self, messages: Vec<OldMessage>) {
        self.reclaim.is_asked = false;
        self.reclaim.not_before_ms = self.now.ms + PAUSE_MS;
        if self.is_closed {
            return;
        }
        for OldMessage { lsn, places, payload, .. } in messages {
            for place in places {
                let Some(&slot) = self.queue_slots.get(&place.queue) else { continue };
                let queue = &mut self.queues[slot];
                let Some(run) = queue.find_hinted(place.priority, place.seq, Some(place.due_at_ms)) else { continue };
                if run.lsn != lsn {
                    continue;
                }
                let moved_to = self.log.append_again(place.queue, &run, &payload);
                queue.relocate(&run, moved_to);
            }
        }
    }
}

/// While the disk does not follow, there is nothing to be gained.
const UNWRITTEN_MAX: usize = 4 << 20;
/// A piece has a mebibyte: this is up to 50 MB a second of reading, and less of writing.
const PAUSE_MS: u64 = 20;
