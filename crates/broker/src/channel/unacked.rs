//! The deliveries of a channel that its client has not settled, by delivery tag.

use crate::command::{QueueRef, Seq};
use std::collections::VecDeque;

/// Where an unacked delivery came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unacked {
    pub(crate) tag: u64,
    pub(crate) queue: QueueRef,
    pub(crate) seq: Seq,
    /// By basic.get, and not by a consumer.
    pub(crate) by_get: bool,
}

/// Unacked deliveries in the order of their tags. One that is never settled costs its own size and nothing else,
/// however many come and go after it.
#[derive(Debug, Default)]
pub(crate) struct UnackedList {
    /// Ascending by tag; `None` where one in the middle was settled. The first and the last are never `None`.
    entries: VecDeque<(u64, Option<Place>)>,
    holes: usize,
    by_get: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    queue: QueueRef,
    seq: Seq,
    by_get: bool,
}

impl UnackedList {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.holes
    }

    /// How many of them consumers have.
    pub(crate) fn consumed(&self) -> usize {
        self.len() - self.by_get
    }

    /// Adds a delivery; its tag is the highest so far.
    pub(crate) fn push(&mut self, unacked: Unacked) {
        assert!(self.entries.back().is_none_or(|(last, _)| *last < unacked.tag), "tags only grow");
        let Unacked { tag, queue, seq, by_get } = unacked;
        self.entries.push_back((tag, Some(Place { queue, seq, by_get })));
        self.by_get += usize::from(by_get);
    }

    /// Takes the one with this tag.
    pub(crate) fn take(&mut self, tag: u64) -> Option<Unacked> {
        let at = match self.entries.front() {
            Some((first, _)) if *first == tag => 0,
            _ => self.entries.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?,
        };
        let place = self.entries[at].1.take()?;
        self.holes += 1;
        self.by_get -= usize::from(place.by_get);
        self.trim();
        present((tag, Some(place)))
    }

    /// Takes all up to and including this tag, which must be outstanding itself (`None` otherwise).
    pub(crate) fn take_through(&mut self, tag: u64) -> Option<Vec<Unacked>> {
        let at = self.entries.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.entries[at].1?;
        let taken: Vec<_> = self.entries.drain(..=at).filter_map(present).collect();
        self.holes -= at + 1 - taken.len();
        self.by_get -= taken.iter().filter(|unacked| unacked.by_get).count();
        self.trim();
        Some(taken)
    }

    /// Takes all.
    pub(crate) fn take_all(&mut self) -> Vec<Unacked> {
        self.holes = 0;
        self.by_get = 0;
        std::mem::take(&mut self.entries).into_iter().filter_map(present).collect()
    }

    /// Puts back what a transaction that was rolled back had taken.
    pub(crate) fn put_back(&mut self, taken: impl IntoIterator<Item = Unacked>) {
        let mut all: Vec<_> = self.take_all();
        all.extend(taken);
        all.sort_unstable_by_key(|unacked| unacked.tag);
        all.into_iter().for_each(|unacked| self.push(unacked));
    }

    /// Keeps the ends whole, and the holes fewer than the rest.
    fn trim(&mut self) {
        while self.entries.pop_front_if(|(_, place)| place.is_none()).is_some() {
            self.holes -= 1;
        }
        while self.entries.pop_back_if(|(_, place)| place.is_none()).is_some() {
            self.holes -= 1;
        }
        if self.holes > self.len() + HOLES_MIN {
            self.entries.retain(|(_, place)| place.is_some());
            self.holes = 0;
        }
        if self.entries.is_empty() && self.entries.capacity() > KEEP_CAPACITY {
            self.entries = VecDeque::new();
        }
    }
}

fn present((tag, place): (u64, Option<Place>)) -> Option<Unacked> {
    place.map(|Place { queue, seq, by_get }| Unacked { tag, queue, seq, by_get })
}

/// Below this many, closing the holes is not worth the move.
const HOLES_MIN: usize = 32;
/// An empty list keeps room for this many and gives more back.
const KEEP_CAPACITY: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{QueueId, ShardId};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn unacked(tag: u64) -> Unacked {
        Unacked {
            tag,
            queue: QueueRef { id: QueueId(1), shard: ShardId(0) },
            seq: Seq(tag * 10),
            by_get: tag.is_multiple_of(3),
        }
    }

    #[test]
    fn one_that_is_never_settled_costs_only_itself() {
        let mut list = UnackedList::default();
        for tag in 1..=100_000 {
            list.push(unacked(tag));
            assert!(tag == 1 || list.take(tag) == Some(unacked(tag)));
        }
        assert_eq!(list.len(), 1);
        assert!(list.entries.len() < 100, "{}", list.entries.len());
    }

    #[test]
    fn a_hole_is_not_outstanding() {
        let mut list = UnackedList::default();
        (1..=3).for_each(|tag| list.push(unacked(tag)));
        assert!(list.take(2).is_some());
        assert_eq!(list.take(2), None);
        assert_eq!(list.take_through(2), None);
        assert_eq!(list.take_through(4), None);
        assert_eq!(list.take_through(3), Some(vec![unacked(1), unacked(3)]));
        assert_eq!(list.len(), 0);
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_set_of_tags(steps in proptest::collection::vec((0..4u8, 1..60u64), 1..300)) {
            let mut list = UnackedList::default();
            let mut model = BTreeSet::new();
            let mut next = 1;
            for (what, tag) in steps {
                match what {
                    0 | 1 => { list.push(unacked(next)); model.insert(next); next += 1; }
                    2 => prop_assert_eq!(list.take(tag).is_some(), model.remove(&tag)),
                    _ => {
                        let expected = model.contains(&tag).then(|| {
                            let rest = model.split_off(&(tag + 1));
                            std::mem::replace(&mut model, rest).into_iter().map(unacked).collect::<Vec<_>>()
                        });
                        prop_assert_eq!(list.take_through(tag), expected);
                    }
                }
                prop_assert_eq!(list.len(), model.len());
                prop_assert_eq!(list.consumed(), model.iter().filter(|tag| !tag.is_multiple_of(3)).count());
            }
            prop_assert_eq!(list.take_all(), model.into_iter().map(unacked).collect::<Vec<_>>());
        }
    }
}
