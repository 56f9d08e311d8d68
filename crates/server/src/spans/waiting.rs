//! Since when traced messages wait in their queues: what the time in a queue is told from when one is delivered.
//!
//! Nobody tells when a message expires or is purged, so what never leaves is forgotten for what comes: there is room for so
//! many, and the oldest go first.

use broker::command::QueueId;
use broker::trace_context::TraceContext;
use std::collections::{BTreeMap, VecDeque};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In the order of their coming within a queue, for messages of the same span are alike.
    waits: BTreeMap<Key, Wait>,
    /// All that came, and some that have left.
    order: VecDeque<Key>,
    last: u64,
}

/// The queue it waits in, and a number that rises.
type Key = (TraceContext, QueueId, u64);

/// A message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) since_ns: u64,
    /// The span that put it there.
    pub(super) by: u64,
}

impl Waiting {
    /// A message has begun to wait; whether another had to be forgotten for it.
    pub(super) fn add(&mut self, context: TraceContext, queue: QueueId, wait: Wait) -> bool {
        let is_full = self.waits.len() >= WAITS_MAX;
        while self.waits.len() >= WAITS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.waits.remove(&oldest);
        }
        if self.order.len() >= 2 * WAITS_MAX {
            let waits = &self.waits;
            self.order.retain(|key| waits.contains_key(key));
        }
        self.last += 1;
        let key = (context, queue, self.last);
        self.waits.insert(key, wait);
        self.order.push_back(key);
        is_full
    }

    /// A message of this span has left the queue.
    pub(super) fn take(&mut self, context: TraceContext, queue: QueueId) -> Option<Wait> {
        let all = (context, queue, 0)..=(context, queue, u64::MAX);
        let key = *self.waits.range(all).next()?.0;
        let wait = self.waits.remove(&key);
        if self.waits.is_empty() {
            self.order.clear();
        }
        wait
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waits.len()
    }
}

/// About 8 MB.
pub(super) const WAITS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn context(parent: u64) -> TraceContext {
        TraceContext { trace: 7, parent }
    }

    fn wait(since_ns: u64) -> Wait {
        Wait { since_ns, by: 1 }
    }

    #[test]
    fn messages_of_one_span_leave_in_the_order_in_which_they_came() {
        let mut waiting = Waiting::default();
        for since_ns in [1, 2, 3] {
            assert!(!waiting.add(context(1), QueueId(1), wait(since_ns)));
        }
        waiting.add(context(1), QueueId(2), wait(9));
        assert_eq!(waiting.take(context(1), QueueId(1)), Some(wait(1)));
        assert_eq!(waiting.take(context(1), QueueId(1)), Some(wait(2)));
        assert_eq!(waiting.take(context(2), QueueId(1)), None);
        assert_eq!(waiting.take(context(1), QueueId(2)), Some(wait(9)));
        assert_eq!(waiting.take(context(1), QueueId(1)), Some(wait(3)));
        assert_eq!(waiting.take(context(1), QueueId(1)), None);
    }

    #[test]
    fn there_is_room_for_so_many_and_the_oldest_go() {
        let mut waiting = Waiting::default();
        let forgotten = (0..100_000).filter(|at| waiting.add(context(*at), QueueId(1), wait(*at))).count();
        assert_eq!((waiting.len(), forgotten), (WAITS_MAX, 100_000 - WAITS_MAX));
        assert_eq!(waiting.take(context(0), QueueId(1)), None);
        assert_eq!(waiting.take(context(99_999), QueueId(1)), Some(wait(99_999)));
        for at in 0..200_000 {
            waiting.add(context(at), QueueId(2), wait(at));
            waiting.take(context(at), QueueId(2));
        }
        assert!(waiting.order.len() <= 2 * WAITS_MAX, "{}", waiting.order.len());
    }
}
