//! An operator who redrives the queue of dead letters, and says how far that is: it holds after every crash.

use super::World;
use crate::plan::GRAVES;
use crate::random::Random;
use crate::trace;
use broker::command::{Seq, ShardInput, VhostId};
use broker::inspect::QueueView;
use broker::operation::{Act, Answer, Cursor, Filter, Operation, Origin, Scan, Which};
use broker::redrive::{Redrive, Way};
use std::sync::Arc;

/// What the operator knows.
#[derive(Debug)]
pub(super) struct Redrives {
    /// Drawn from apart, so that runs without redrives are what they were.
    random: Random,
    said: u64,
    /// How far it may be: what was answered last, and what was said later. `None` = nothing was ever said.
    possible: Vec<Option<u64>>,
}

impl Redrives {
    pub(super) fn new(random: Random) -> Self {
        Self { random, said: 0, possible: vec![None] }
    }
}

impl World {
    /// Whether it is time for a piece of a redrive.
    pub(super) fn wants_redrive(&mut self) -> bool {
        self.plan.redrives > 0 && self.redrives.random.one_in(self.plan.redrives)
    }

    /// Redrives a piece, or says how far that is.
    pub(super) fn redrive(&mut self) {
        let Some(spec) = self.node.topology().queue(VhostId(0), GRAVES) else { return };
        let queue = spec.queue;
        let random = &mut self.redrives.random;
        let (ticket, operation) = if random.one_in(3) {
            self.redrives.said += 1;
            let said = self.redrives.said;
            self.redrives.possible.push(Some(said));
            (TICKET + said, Operation::Redrive(Arc::new(redrive(said))))
        } else {
            let from = if random.one_in(3) { Cursor { skip: random.below(4), ..Cursor::HEAD } } else { Cursor::HEAD };
            let origin = if random.one_in(3) { Origin::First } else { Origin::Last };
            let which = Which::Ready { from, until: random.one_in(4).then(|| Seq(random.below(40))) };
            let (count, act) = (random.below(9) as u32, Act::Redrive(origin));
            (0, Operation::Scan(Scan { which, filter: Filter::default(), count, act }))
        };
        trace::note(format_args!("{GRAVES} are redriven: {operation:?}"));
        let input = ShardInput::Operate { ticket, queue: queue.id, operation };
        self.node.shards[usize::from(queue.shard.0)].mailbox.push_back(input);
    }

    /// Takes in that a shard has kept how far it is.
    pub(super) fn hear_of_redrive(&mut self, ticket: u64, answer: &Answer) {
        let Some(said) = ticket.checked_sub(TICKET) else { return };
        assert!(matches!(answer, Answer::Done), "{GRAVES} are always there");
        let possible = &mut self.redrives.possible;
        let at = possible.iter().position(|known| *known == Some(said)).expect("it was said");
        possible.drain(..at);
    }

    /// After a restart: it is as far as was answered last, or said later.
    pub(super) fn check_redrive_after_restart(&mut self, views: &[QueueView]) {
        let Some(view) = views.iter().find(|view| *view.spec.name == *GRAVES) else { return };
        let found = view.redrive.as_ref().map(|redrive| redrive.moved);
        let possible = &mut self.redrives.possible;
        assert!(possible.contains(&found), "the redrive is at {found:?} after a restart, and may be at {possible:?}");
        if let (Some(kept), Some(said)) = (&view.redrive, found) {
            assert_eq!(**kept, redrive(said), "what is kept of a redrive");
        }
        *possible = vec![found];
    }
}

/// One that is so far.
fn redrive(moved: u64) -> Redrive {
    Redrive {
        began_unix_ms: 1,
        total: moved * 2,
        rate: None,
        until: Seq(moved),
        filter: Filter::default(),
        way: Way::Back(Origin::Last),
        moved,
        unroutable: 0,
        passed: 0,
        end: None,
    }
}

/// What is asked for by this ticket or a higher one is asked here.
const TICKET: u64 = 1 << 62;
