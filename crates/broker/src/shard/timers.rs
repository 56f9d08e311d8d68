//! What the shard has to do at which time. Each timer can be moved and taken away, so that none is left behind.

use crate::queue::Holder;
use crate::shard::slots::Slot;
use std::collections::BTreeSet;
use store::QueueId;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// The head of the queue expires.
    Expiry,
    /// The first delayed message of the queue is due.
    Delay,
    /// The queue may have been unused for too long.
    Idle,
    /// A rate lets something go.
    Turn,
    /// Letters that the queue owes are to be tried again.
    Letters,
    /// The oldest delivery of this holder may be overdue.
    Acknowledgement(Slot<Holder>),
}

/// All timers, by time.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(u64, QueueId, Due)>);

impl Timers {
    /// Moves a timer from one time to another; 0 stands for never. `at_ms` is where its owner remembers the time.
    pub(crate) fn set(&mut self, at_ms: &mut u64, to_ms: u64, queue: QueueId, due: Due) {
        if *at_ms == to_ms {
            return;
        }
        if *at_ms != 0 {
            self.0.remove(&(*at_ms, queue, due));
        }
        if to_ms != 0 {
            self.0.insert((to_ms, queue, due));
        }
        *at_ms = to_ms;
    }

    /// When the first timer runs out.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.0.first().map(|(at_ms, ..)| *at_ms)
    }

    /// The next timer that ran out. It stays until its owner sets it anew.
    pub(crate) fn due(&self, now_ms: u64) -> Option<(QueueId, Due)> {
        let (at_ms, queue, due) = *self.0.first()?;
        (at_ms <= now_ms).then_some((queue, due))
    }
}
