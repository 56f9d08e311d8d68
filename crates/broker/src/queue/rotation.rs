//! Whose turn it is: the consumers of a queue that may get a message, by priority, each level in a circle.
//!
//! Only consumers that can receive stand in the circle: one that cannot leaves it and comes back at its end when it
//! can, so that a blocked consumer costs nothing while it is blocked.

use crate::queue::Holder;
use crate::shard::slots::Slot;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
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
        if let Ok(at) = self.find(priority) {
            let circle = &mut self.circles[at];
            circle.turns.retain(|turn| *turn != consumer);
            circle.members -= 1;
            if circle.members == 0 {
                self.circles.remove(at);
            }
        }
    }

    /// The consumer can receive: its turn comes after all others of its priority.
    pub(crate) fn join(&mut self, priority: i64, consumer: Slot<Holder>) {
        if let Ok(at) = self.find(priority) {
            self.circles[at].turns.push_back(consumer);
        }
    }

    /// Takes the consumer whose turn it is out of the circle.
    pub(crate) fn next(&mut self) -> Option<Slot<Holder>> {
        self.circles.iter_mut().find_map(|circle| circle.turns.pop_front())
    }

    /// Gives the turn back that was taken by [`Self::next`].
    pub(crate) fn give_back(&mut self, priority: i64, consumer: Slot<Holder>) {
        if let Ok(at) = self.find(priority) {
            self.circles[at].turns.push_front(consumer);
        }
    }

    /// The consumer, wherever it stands, takes its turn now.
    pub(crate) fn leave(&mut self, priority: i64, consumer: Slot<Holder>) {
        if let Ok(at) = self.find(priority) {
            self.circles[at].turns.retain(|turn| *turn != consumer);
        }
    }

    /// Nobody can receive.
    pub(crate) fn is_empty(&self) -> bool {
        self.circles.iter().all(|circle| circle.turns.is_empty())
    }

    fn find(&self, priority: i64) -> Result<usize, usize> {
        self.circles.binary_search_by(|circle| priority.cmp(&circle.priority))
    }
}
