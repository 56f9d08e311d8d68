//! Which exchanges that deduplicate a message comes through on its way to each queue.
//!
//! A queue that a way without such an exchange leads to gets every message. To another each way leads through one of them, or
//! through several one behind the other: a message passes if there is a way on which it is no duplicate anywhere. To each
//! such exchange only the first way counts, one through as few of them as possible: there may be very many.

use crate::command::{QueueId, Sieve};
use std::sync::Arc;

/// What a message has to pass on its way to a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sieves {
    /// Each way, with the exchanges on it.
    pub ways: Vec<Vec<Arc<Sieve>>>,
}

/// What a message has to pass on its way to some queues.
#[derive(Clone, Debug)]
pub enum Sifting {
    /// To all of them the same.
    All(Arc<Sieves>),
    /// To these, by id; nothing to others.
    Some(Vec<(QueueId, Arc<Sieves>)>),
}

impl Sieves {
    /// One way, with these exchanges.
    #[must_use]
    pub fn of(way: Vec<Arc<Sieve>>) -> Self {
        Self { ways: vec![way] }
    }

    /// All exchanges on all ways, in order; one may stand here twice.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sieve> {
        self.ways.iter().flatten().map(|sieve| &**sieve)
    }
}

impl Sifting {
    /// What it has to pass on its way to this queue.
    pub(crate) fn to(&self, queue: QueueId) -> Option<&Arc<Sieves>> {
        match self {
            Self::All(sieves) => Some(sieves),
            Self::Some(queues) => {
                let at = queues.binary_search_by_key(&queue, |(queue, _)| *queue).ok()?;
                Some(&queues[at].1)
            }
        }
    }

    /// For queues that were found by these ways, in any order.
    pub(crate) fn of(mut found: Vec<(QueueId, Arc<Sieves>)>) -> Self {
        // Ways stay in the order in which they were found.
        found.sort_by_key(|(queue, _)| *queue);
        let mut queues: Vec<(QueueId, Arc<Sieves>)> = Vec::with_capacity(found.len());
        for (queue, sieves) in found {
            match queues.last_mut().filter(|(last, _)| *last == queue) {
                Some((_, known)) => {
                    let others = sieves.ways.iter().filter(|way| !known.ways.contains(way));
                    let ways: Vec<_> = known.ways.iter().chain(others).cloned().collect();
                    *known = Arc::new(Sieves { ways });
                }
                None => queues.push((queue, sieves)),
            }
        }
        Self::Some(queues)
    }
}
