//! What was purged or deleted is gone at once; which records nobody refers to any more is told to the log afterwards,
//! a piece in each step, so that a queue of many millions holds nobody up.

use super::Shard;
use crate::queue::backlog::Backlog;
use crate::queue::run::Run;
use store::Store;

impl<S: Store> Shard<S> {
    /// These messages are gone.
    pub(super) fn discard(&mut self, far: Vec<Backlog>) {
        self.discarded.extend(far.into_iter().filter(|backlog| !backlog.is_empty()));
    }

    /// Does a piece of the work, if there is any.
    pub(super) fn release_discarded(&mut self) {
        let mut budget = RUNS_AT_ONCE;
        while let Some(backlog) = self.discarded.front_mut() {
            let Some(run) = backlog.first() else {
                self.discarded.pop_front();
                continue;
            };
            if budget == 0 {
                return;
            }
            budget -= 1;
            let log = &mut self.log;
            backlog.take_range(run.range(), &mut |run: Run| log.release(&run));
        }
    }
}

/// This takes less than a millisecond or two.
const RUNS_AT_ONCE: usize = 16 << 10;
