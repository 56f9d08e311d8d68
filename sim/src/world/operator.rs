//! An operator who pauses queues, looks into them, deletes messages and releases delayed ones: nothing of that may be
//! noticed but that deliveries wait, that some messages are gone, and that some come before their time.

use super::World;
use crate::plan::{MOVABLE, SHELF};
use broker::command::{QueueId, Seq, ShardInput};
use broker::inspect::QueueView;
use broker::operation::{Act, Cursor, Filter, Operation, Scan, Target, Time, Which};

impl World {
    /// Does something to some queue.
    pub(super) fn operate(&mut self) {
        let at = self.random.index(self.node.shards.len());
        let Some(views) = self.views_of(at) else { return };
        if views.is_empty() {
            return;
        }
        let moves = |view: &&QueueView| [MOVABLE, SHELF].contains(&&*view.spec.name);
        let movable: Vec<&QueueView> = views.iter().filter(moves).collect();
        let view = if !movable.is_empty() && self.random.one_in(2) {
            *self.random.pick(&movable)
        } else {
            self.random.pick(&views)
        };
        let (queue, is_stream) = (view.spec.queue.id, view.spec.settings.is_stream());
        let scan = |which, count, act| Operation::Scan(Scan { which, filter: Filter::default(), count, act });
        let (count, skip) = (self.random.below(9) as u32, self.random.below(4));
        let from = Cursor { skip, ..Cursor::HEAD };
        let delayed = Which::Delayed { from: Time::FIRST, until: None };
        let other = match &*view.spec.name {
            MOVABLE => Some(SHELF),
            SHELF => Some(MOVABLE),
            _ => None,
        };
        if let Some(other) = other
            && !self.random.one_in(4)
        {
            let to = Act::Move(Target::Queue(other.to_owned()));
            let operation = match self.random.below(8) {
                0 => scan(delayed, count, to),
                1 => scan(Which::Ready { from, until: None }, count, Act::Requeue),
                _ => scan(Which::Ready { from, until: None }, count, to),
            };
            return self.ask_shard(at, queue, operation);
        }
        let operation = match self.random.below(11) {
            0 => Operation::Pause,
            1..=3 => Operation::Resume,
            4 => scan(Which::Ready { from, until: None }, count, Act::Show),
            5 if !is_stream => scan(Which::Ready { from, until: None }, count / 4, Act::Delete),
            6 => scan(Which::Unacked { from: Seq(skip) }, count, Act::Show),
            7 => scan(delayed, count, Act::Show),
            8 => scan(delayed, count / 4, Act::Delete),
            9 => scan(delayed, count, Act::Release),
            _ => Operation::Leases { from: Seq(skip), count },
        };
        self.ask_shard(at, queue, operation);
    }

    /// Every queue delivers again.
    pub(super) fn resume_all(&mut self) {
        for at in 0..self.node.shards.len() {
            // Also where a pause is still on its way.
            for view in self.views_of(at).into_iter().flatten() {
                self.ask_shard(at, view.spec.queue.id, Operation::Resume);
            }
        }
    }

    fn ask_shard(&mut self, at: usize, queue: QueueId, operation: Operation) {
        self.node.shards[at].mailbox.push_back(ShardInput::Operate { ticket: 0, queue, operation });
    }
}
