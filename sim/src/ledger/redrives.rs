//! Dead letters that go back to where they died: each is in one place, and dies again as it did at first.

use super::Ledger;
use super::copies::{Copy, Place};
use broker::command::QueueId;

impl Ledger {
    /// Some dead letters of this queue may go back to their roots.
    pub(super) fn may_redrive(&mut self, queue: QueueId) {
        let is_meant = |place: &&Place| {
            let copy = &self.messages[place.message].copies[place.copy];
            copy.root != queue && copy.may_have_died && self.may_be_ready(**place, queue)
        };
        let letters: Vec<Place> = self.alive.iter().filter(is_meant).copied().collect();
        for place in letters {
            self.copy(place).was_redriven = true;
        }
        // What leaves is counted where it comes, and not where it leaves.
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.is_redriven = true;
        }
    }

    /// Whether a dead letter may be in this queue.
    pub(super) fn may_be_letter_in(&self, copy: &Copy, queue: QueueId) -> bool {
        self.leads_to(copy.root, queue) || self.may_be_back_in(copy, queue)
    }

    /// Whether it may have come back to this queue, which is its root or a later one of the same name.
    pub(super) fn may_be_back_in(&self, copy: &Copy, queue: QueueId) -> bool {
        copy.was_redriven && self.are_named_alike(copy.root, queue)
    }

    fn are_named_alike(&self, one: QueueId, other: QueueId) -> bool {
        let name = |id| self.queues.get(&id).map(|queue| &queue.spec.name);
        name(one) == name(other)
    }
}
