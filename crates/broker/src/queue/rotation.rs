//! Whose turn it is: the consumers of a queue that may get a message, by priority, each level in a circle.
//!
//! Only consumers that can receive stand in the circle: one that cannot leaves it and comes back at its end when it
//! can, so that a blocked consumer costs nothing while it is blocked. The one whose turn it is stands before the circles,
//! in the queue itself: where there is one consumer nothing else is looked at.

use crate::queue::Holder;
use crate::shard::slots::Slot;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    /// Whose turn it is; where nobody stands here, nobody stands in a circle either.
    first: Option<Slot<Holder>>,
    /// How many stand in circles.
    waiting: u32,
    /// Of `first`: no circle with a higher one has anybody in it.
    first_priority: i64,
    /// Highest priority first.
    circles: Vec<Circle>,
}

#[derive(Debug)]
struct Circle {
    priority: i64,
    /// Consumers of this priority, in the circle or not: a circle that is only empty for now keeps its memory.
    members: usize,
    turns: VecDeque<Slot<Holder>>,
}

impl Rotation {
    /// A consumer of this priority came; it is not in the circle yet.
    pub(crate) fn add_member(&mut self, priority: i64) {
        match self.find(priority) {
            Ok(at) => self.circles[at].members += 1,
            Err(at) => self.circles.insert(at, Circle { priority, members: 1, turns: VecDeque::new() }),
        }
    }

    /// A consumer of this priority is gone, from the circle too.
    pub(crate) fn remove_member(&mut self, priority: i64, consumer: Slot<Holder>) {
        self.leave(priority, consumer);
        if let Ok(at) = self.find(priority) {
            let circle = &mut self.circles[at];
            circle.members -= 1;
            if circle.members == 0 {
                debug_assert!(circle.turns.is_empty(), "who stands in a circle is a member of it");
                self.circles.remove(at);
            }
        }
    }

    /// The consumer can receive: its turn comes after all others of its priority.
    #[inline]
    pub(crate) fn join(&mut self, priority: i64, consumer: Slot<Holder>) {
        match self.first {
            Some(first) if priority <= self.first_priority => {
                debug_assert!(first != consumer, "nobody stands in two places");
                self.stand(priority, |turns| turns.push_back(consumer));
            }
            first => {
                if let Some(first) = first {
                    self.stand(self.first_priority, |turns| turns.push_front(first));
                }
                (self.first, self.first_priority) = (Some(consumer), priority);
            }
        }
    }

    /// Takes the consumer whose turn it is out of the circle.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Slot<Holder>> {
        let first = self.first.take();
        if self.waiting > 0 {
            self.fill_up();
        }
        first
    }

    /// Gives the turn back that was taken by [`Self::next`].
    pub(crate) fn give_back(&mut self, priority: i64, consumer: Slot<Holder>) {
        if self.first.is_some() && priority < self.first_priority {
            return self.stand(priority, |turns| turns.push_front(consumer));
        }
        if let Some(first) = self.first {
            self.stand(self.first_priority, |turns| turns.push_front(first));
        }
        (self.first, self.first_priority) = (Some(consumer), priority);
    }

    /// The consumer, wherever it stands, takes its turn now.
    pub(crate) fn leave(&mut self, priority: i64, consumer: Slot<Holder>) {
        if self.first == Some(consumer) {
            self.next();
        } else if let Ok(at) = self.find(priority) {
            let turns = &mut self.circles[at].turns;
            let before = turns.len();
            turns.retain(|turn| *turn != consumer);
            self.waiting -= (before - turns.len()) as u32;
        }
    }

    /// Nobody can receive.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Somebody takes a place in a circle.
    fn stand(&mut self, priority: i64, take_place: impl FnOnce(&mut VecDeque<Slot<Holder>>)) {
        if let Ok(at) = self.find(priority) {
            take_place(&mut self.circles[at].turns);
            self.waiting += 1;
        }
    }

    /// The first of those in circles steps out of it.
    fn fill_up(&mut self) {
        let next = self.circles.iter_mut().find_map(|circle| Some((circle.turns.pop_front()?, circle.priority)));
        if let Some((first, priority)) = next {
            (self.first, self.first_priority) = (Some(first), priority);
            self.waiting -= 1;
        }
    }

    fn find(&self, priority: i64) -> Result<usize, usize> {
        self.circles.binary_search_by(|circle| priority.cmp(&circle.priority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The same as it is told: circles, highest priority first.
    #[derive(Default)]
    struct Told(Vec<(i64, u32)>);

    impl Told {
        /// Before all others of its priority, or behind them.
        fn stand(&mut self, priority: i64, consumer: u32, is_first: bool) {
            let at = self.0.partition_point(|(other, _)| *other > priority || !is_first && *other == priority);
            self.0.insert(at, (priority, consumer));
        }
    }

    proptest! {
        #[test]
        fn turns_are_taken_by_priority_and_then_in_a_circle(
            priorities in vec(-1..2_i64, 1..6),
            steps in vec((0..4_u8, 0..6_usize), 0..60),
        ) {
            let (mut rotation, mut told) = (Rotation::default(), Told::default());
            priorities.iter().for_each(|priority| rotation.add_member(*priority));
            let mut away: Vec<u32> = (0..).take(priorities.len()).collect();
            for (step, which) in steps {
                let pick = |away: &[u32]| away.get(which % away.len().max(1)).copied();
                match step {
                    0 | 1 => {
                        let Some(consumer) = pick(&away) else { continue };
                        away.retain(|other| *other != consumer);
                        let priority = priorities[consumer as usize];
                        if step == 0 {
                            rotation.join(priority, Slot::from_index(consumer));
                        } else {
                            rotation.give_back(priority, Slot::from_index(consumer));
                        }
                        told.stand(priority, consumer, step == 1);
                    }
                    2 => {
                        let next = (!told.0.is_empty()).then(|| told.0.remove(0).1);
                        prop_assert_eq!(rotation.next().map(Slot::index), next);
                        away.extend(next);
                    }
                    _ => {
                        let consumer = (which % priorities.len()) as u32;
                        rotation.leave(priorities[consumer as usize], Slot::from_index(consumer));
                        told.0.retain(|(_, other)| *other != consumer);
                        away.retain(|other| *other != consumer);
                        away.push(consumer);
                    }
                }
                prop_assert_eq!(rotation.is_empty(), told.0.is_empty());
            }
        }
    }
}
