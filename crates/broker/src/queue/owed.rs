//! Letters that a queue owes: of messages that died in it, and that nobody has taken yet.
//!
//! They are in the log only, and here a few bytes each. That a letter is owed is said by the due time of its place, which
//! is none then but tells why and when the message died ([`Died`]): so a restart, a checkpoint and a record that is
//! written again need to know nothing of letters.

use super::backlog::Backlog;
use super::dead_letter::Reason;
use super::ready::Sums;
use super::run::Run;
use std::collections::VecDeque;
use store::{Lsn, QueueId, Seq, SeqRange};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    letters: Backlog,
    sums: Sums,
    /// How many were taken out to be tried, and are neither taken nor back.
    pub(crate) trying: u32,
    /// One of those came back: the others need not be tried.
    pub(crate) is_blocked: bool,
    /// Something changed while they were tried: it is worth to try again at once.
    pub(crate) is_called: bool,
    /// How many are tried next.
    pub(crate) batch: u32,
    /// How long to wait if those are refused; 0 = [`WAIT_MS_MIN`].
    pub(crate) wait_ms: u64,
    /// When they are tried again; 0 = not at a time.
    pub(crate) timer_ms: u64,
    /// Who tells when there is room.
    pub(crate) called_by: Option<QueueId>,
}

impl Owed {
    /// When to try again after what was tried now is refused. From time to time longer.
    pub(crate) fn next_try(&mut self, now_ms: u64) -> u64 {
        let wait_ms = self.wait_ms.max(WAIT_MS_MIN);
        self.wait_ms = (2 * wait_ms).min(WAIT_MS_MAX);
        now_ms + wait_ms
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sums
    }

    /// None of these is here yet.
    pub(crate) fn insert(&mut self, run: Run) {
        self.sums.add(&run);
        self.letters.insert(run);
    }

    /// Takes the first ones out, in order, at most so many.
    pub(crate) fn take(&mut self, most: u32) -> Vec<Run> {
        let (mut left, mut taken) = (most, Vec::new());
        while left > 0
            && let Some(mut run) = self.letters.first()
        {
            run.count = run.count.min(left);
            left -= run.count;
            let before = taken.len();
            self.letters.take_range(run.range(), &mut |run| taken.push(run));
            taken[before..].iter().for_each(|run| self.sums.subtract(run));
        }
        taken
    }

    pub(crate) fn find(&self, seq: Seq) -> Option<Run> {
        self.letters.get(seq)
    }

    /// The letter's record is elsewhere now.
    pub(crate) fn relocate(&mut self, seq: Seq, lsn: Lsn) -> bool {
        self.letters.move_to(seq, lsn)
    }

    /// All from this seq on, in order.
    pub(crate) fn from(&self, from: Seq) -> impl Iterator<Item = Run> {
        self.letters.range(from)
    }

    /// Where they stand.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = SeqRange> {
        self.letters.range(Seq(0)).map(|run| run.range())
    }

    pub(crate) fn into_far(self) -> Backlog {
        self.letters
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        self.letters.heap_bytes() + size_of::<Self>() as u64
    }
}

/// Queues whose letters another one had no room for. They and publishers take turns there.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    /// Who waits for room, and how long its letter is, the first of all first.
    pub(crate) waiting: VecDeque<(QueueId, u64)>,
    /// How long the letter is that was called for last and is not there yet, and until when it is waited for.
    pub(crate) called: Option<(u64, u64)>,
    /// A letter came, and nothing was published since.
    pub(crate) is_publishers_turn: bool,
}

/// Why and when a message died whose letter is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Died {
    pub(crate) reason: Reason,
    pub(crate) unix_s: u64,
}

impl Died {
    /// As the due time of its place.
    pub(crate) fn due_at_ms(self) -> u64 {
        let reason = REASONS.iter().position(|reason| *reason == self.reason).unwrap_or_default() as u64;
        DEAD | reason << SECOND_BITS | self.unix_s.min((1 << SECOND_BITS) - 1)
    }

    /// What a due time says of that, unless it is one.
    pub(crate) fn of(due_at_ms: u64) -> Option<Self> {
        if due_at_ms & DEAD == 0 {
            return None;
        }
        let reason = REASONS.get(usize::try_from((due_at_ms & !DEAD) >> SECOND_BITS).ok()?)?;
        Some(Self { reason: *reason, unix_s: due_at_ms & ((1 << SECOND_BITS) - 1) })
    }
}

/// The first pause between two tries, …
const WAIT_MS_MIN: u64 = 100;
/// … and the longest.
const WAIT_MS_MAX: u64 = 5_000;
/// No message is due that late.
const DEAD: u64 = 1 << 63;
const SECOND_BITS: u32 = 48;
/// By their number in the log.
const REASONS: [Reason; 4] = [Reason::Rejected, Reason::Expired, Reason::MaxLength, Reason::DeliveryLimit];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_by_a_due_time_that_no_message_has() {
        for reason in REASONS {
            let death = Died { reason, unix_s: 1_800_000_000 };
            assert_eq!(Died::of(death.due_at_ms()), Some(death));
        }
        for due_at_ms in [0, 1, 1_800_000_000_000, u64::MAX >> 1, u64::MAX, DEAD | 4 << SECOND_BITS] {
            assert_eq!(Died::of(due_at_ms), None, "{due_at_ms}");
        }
    }
}
