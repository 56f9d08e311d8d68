//! The places where jobs run, and which of them has room.

use super::ending::Ending;
use super::job::{Job, JobId};
use super::progress::Progress;
use std::sync::{Arc, mpsc};
use tokio::sync::mpsc::UnboundedSender;

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId(pub(super) usize);

/// How a slot gets its jobs. It never has more of them than it has room for.
#[derive(Debug)]
pub(super) enum Feed {
    Thread(mpsc::Sender<Arc<Job>>),
    Task(UnboundedSender<Arc<Job>>),
}

impl Feed {
    fn send(&self, job: Arc<Job>) -> bool {
        match self {
            Self::Thread(feed) => feed.send(job).is_ok(),
            Self::Task(feed) => feed.send(job).is_ok(),
        }
    }
}

/// What a slot tells.
#[derive(Debug)]
pub(super) enum Report {
    /// It takes jobs.
    Up(SlotId),
    /// It takes none for now.
    Down { slot: SlotId, why: String },
    /// How far a job is.
    Progress { job: JobId, progress: Progress },
    /// A job has ended. There is room for another one.
    Ended { slot: SlotId, job: JobId, ending: Box<Ending> },
}

#[derive(Debug)]
struct Slot {
    feed: Feed,
    is_up: bool,
    jobs: usize,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// How many jobs one may have at a time.
    room: usize,
    /// The one to begin with, so that all get their share.
    next: usize,
    free: usize,
}

impl Slots {
    pub(super) fn new(feeds: Vec<Feed>, room: usize, are_up: bool) -> Self {
        let free = if are_up { feeds.len() * room } else { 0 };
        let slots = feeds.into_iter().map(|feed| Slot { feed, is_up: are_up, jobs: 0 }).collect();
        Self { slots, room, next: 0, free }
    }

    /// How many jobs there is room for at the moment.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Gives the job to a slot; false if none has room.
    pub(super) fn give(&mut self, job: Arc<Job>) -> bool {
        if self.free == 0 {
            return false;
        }
        let count = self.slots.len();
        let mut with_room = (0..count).map(|step| (self.next + step) % count).filter(|at| {
            let slot = &self.slots[*at];
            slot.is_up && slot.jobs < self.room
        });
        // The one with the least to do; where there is room for one only, the first is that.
        let slots = &self.slots;
        let found = if self.room == 1 { with_room.next() } else { with_room.min_by_key(|at| slots[*at].jobs) };
        let Some(at) = found else { return false };
        self.slots[at].jobs += 1;
        self.free -= 1;
        self.next = (at + 1) % count;
        self.slots[at].feed.send(job)
    }

    /// A job of the slot has ended.
    pub(super) fn ended(&mut self, SlotId(at): SlotId) {
        let slot = &mut self.slots[at];
        slot.jobs -= 1;
        self.free += usize::from(slot.is_up);
    }

    /// The slot takes jobs, or does not.
    pub(super) fn set_up(&mut self, SlotId(at): SlotId, is_up: bool) {
        let slot = &mut self.slots[at];
        if slot.is_up != is_up {
            slot.is_up = is_up;
            let room = self.room - slot.jobs;
            if is_up { self.free += room } else { self.free -= room }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::job;
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn a_slot_gets_no_more_than_it_has_room_for_and_nothing_while_it_is_down() {
        let job = || Arc::new(job(amqp::Table::new(), b""));
        let (first, mut first_jobs) = unbounded_channel();
        let (second, mut second_jobs) = unbounded_channel();
        let mut slots = Slots::new(vec![Feed::Task(first), Feed::Task(second)], 2, false);
        assert!(!slots.give(job()));
        slots.set_up(SlotId(0), true);
        assert!(slots.give(job()) && slots.give(job()) && !slots.give(job()));
        slots.set_up(SlotId(1), true);
        slots.set_up(SlotId(0), false);
        slots.ended(SlotId(0));
        assert_eq!(slots.free(), 2);
        assert!(slots.give(job()) && slots.give(job()) && !slots.give(job()));
        slots.set_up(SlotId(0), true);
        assert_eq!(slots.free(), 1);
        let count =
            |jobs: &mut tokio::sync::mpsc::UnboundedReceiver<_>| std::iter::from_fn(|| jobs.try_recv().ok()).count();
        assert_eq!((count(&mut first_jobs), count(&mut second_jobs)), (2, 2));
    }
}
