//! Messages that an operator moves between two queues, and those that a schedule fires: each is in one place.

use super::copies::{Copy, Place, State};
use super::{Ledger, index, number_of};
use crate::plan::{MOVABLE, SHELF};
use broker::command::{Publish, QueueId, ShardId};

impl Ledger {
    /// Some messages of this queue may go to the other one, or to its end.
    pub(super) fn may_move(&mut self, queue: QueueId) {
        let may_be_there = self.alive.iter().filter(|place| self.may_be_ready(**place, queue));
        for place in may_be_there.copied().collect::<Vec<Place>>() {
            let copy = self.copy(place);
            (copy.has_moved, copy.is_loose, copy.is_timed) = (true, true, true);
            // It lives anew in its new place.
            copy.expires_at_ms = 0;
            (copy.due_ms, copy.least_due_ms) = (0, 0);
            copy.attempts_are_exact = false;
            let (root, order) = (copy.root, copy.order);
            if let Some(queue) = self.queues.get_mut(&root) {
                queue.waiting.remove(&order);
            }
        }
    }

    /// Whether a copy may be in that queue because it was moved there.
    pub(super) fn may_have_moved(&self, copy: &Copy, queue: QueueId) -> bool {
        copy.has_moved && self.other_of(copy.root) == Some(queue)
    }

    /// The queue that messages of this one are moved to.
    pub(super) fn other_of(&self, root: QueueId) -> Option<QueueId> {
        let is_movable = &*self.queues.get(&root)?.spec.name == MOVABLE;
        let shelf = self.queues.iter().find(|(_, queue)| is_movable && &*queue.spec.name == SHELF);
        shelf.map(|(id, _)| *id)
    }

    /// The copy that is in that queue because it was moved there.
    pub(super) fn moved_to(&self, number: u64, queue: QueueId) -> Option<Place> {
        let copies = &self.messages.get(index(number))?.copies;
        let copy = copies.iter().position(|copy| self.may_have_moved(copy, queue))?;
        Some(Place { message: index(number), copy })
    }

    /// The copy that is on its way between the two, in either direction.
    pub(super) fn moving(&self, number: u64) -> Option<Place> {
        let copies = &self.messages.get(index(number))?.copies;
        let copy = copies.iter().position(|copy| copy.has_moved)?;
        Some(Place { message: index(number), copy })
    }

    /// A shard is asked to fire an occurrence, perhaps again.
    pub(super) fn fire(&mut self, shard: ShardId, publish: &Publish) {
        let number = number_of(&publish.message);
        let copies = &mut self.message(number).copies;
        let again: Vec<&mut Copy> = copies.iter_mut().filter(|copy| publish.queues.contains(&copy.root)).collect();
        if !again.is_empty() {
            // It is there already, or comes again after a crash took it.
            for copy in again {
                // A purge took it, or a crash had taken it before: then it comes once more.
                if copy.state == State::Gone && !copy.is_answered {
                    copy.state = State::Unsure;
                    copy.was_seen = true;
                }
                copy.is_loose |= copy.state == State::Unsure;
                copy.attempts_are_exact &= !copy.is_loose;
            }
            return;
        }
        self.arrive(shard, number, publish);
        for copy in 0..self.message(number).copies.len() {
            let copy = self.copy(Place { message: index(number), copy });
            // Where it stands when it comes a second time is another place.
            copy.is_timed = true;
            let (root, order) = (copy.root, copy.order);
            if let Some(queue) = self.queues.get_mut(&root) {
                queue.waiting.remove(&order);
            }
        }
    }

    /// A shard says that an occurrence is fired: it will not come again, and is not lost.
    pub fn fired(&mut self, shard: ShardId, number: u64) {
        for copy in 0..self.message(number).copies.len() {
            let place = Place { message: index(number), copy };
            let root = self.copy(place).root;
            if self.queues[&root].spec.queue.shard != shard {
                continue;
            }
            let copy = self.copy(place);
            (copy.is_stored, copy.is_answered) = (true, true);
            // Nobody has seen it: so it waits there.
            if copy.state == State::Unsure && !copy.was_seen {
                copy.state = State::Ready;
            }
        }
    }
}
