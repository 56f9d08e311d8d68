//! When messages came, about: a queue notes now and then which seq comes next, and when that was.
//!
//! A message came after the last note that is not above its seq, and before the next one. So its age is known to a
//! step, which is a millisecond at first and twice as long whenever there are too many notes: a backlog of hours is known to
//! minutes. Notes are not kept: to a server that was started since, a message is as old as the server at the least.

use std::collections::VecDeque;
use store::Seq;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ages {
    /// All messages before the first note came then, or later. To be looked at before [`Self::note`] is called.
    pub(crate) next_ms: u64,
    step_ms: u64,
    /// The last note and the one before, which are all there are of a queue that is emptied again and again; of those that
    /// are not there the seq is [`NONE`].
    last: (Seq, u64),
    before: (Seq, u64),
    /// Those before them, by seq.
    earlier: VecDeque<(Seq, u64)>,
    born_ms: u64,
}

impl Ages {
    pub(crate) fn new(now_ms: u64) -> Self {
        let (last, before) = ((NONE, 0), (NONE, 0));
        Self { next_ms: 0, step_ms: STEP_MS, last, before, earlier: VecDeque::new(), born_ms: now_ms }
    }

    /// The next message has this seq. `oldest` is that of the first one that is still there.
    pub(crate) fn note(&mut self, next: Seq, oldest: Option<Seq>, now_ms: u64) {
        self.drop_before(oldest.unwrap_or(next));
        let count = self.len();
        if count < NOTES_MAX / 4 {
            self.step_ms = STEP_MS;
        }
        if count >= NOTES_MAX {
            self.thin_out();
        }
        if self.before.0 != NONE {
            self.earlier.push_back(self.before);
        }
        self.before = std::mem::replace(&mut self.last, (next, now_ms));
        self.next_ms = now_ms + self.step_ms;
    }

    /// How old a message is at most.
    pub(crate) fn age_ms(&self, seq: Seq, now_ms: u64) -> u64 {
        let since_ms = if self.last.0 <= seq {
            self.last.1
        } else if self.before.0 <= seq {
            self.before.1
        } else {
            let after = self.earlier.partition_point(|(noted, _)| *noted <= seq);
            after.checked_sub(1).map_or(self.born_ms, |at| self.earlier[at].1)
        };
        now_ms.saturating_sub(since_ms)
    }

    /// How many notes there are.
    fn len(&self) -> usize {
        self.earlier.len() + usize::from(self.before.0 != NONE) + usize::from(self.last.0 != NONE)
    }

    /// No message is left below this seq: the last note that is not above it stands for all that are.
    fn drop_before(&mut self, oldest: Seq) {
        if self.last.0 <= oldest {
            self.before.0 = NONE;
            self.earlier.clear();
        } else if self.before.0 <= oldest {
            self.earlier.clear();
        } else {
            while self.earlier.get(1).is_some_and(|(seq, _)| *seq <= oldest) {
                self.earlier.pop_front();
            }
        }
    }

    /// Every second note has to do.
    fn thin_out(&mut self) {
        self.earlier.extend([self.before, self.last]);
        let mut at = 0;
        self.earlier.retain(|_| {
            at += 1;
            at % 2 == 1
        });
        self.last = self.earlier.pop_back().unwrap_or((NONE, 0));
        self.before = self.earlier.pop_back().unwrap_or((NONE, 0));
        self.step_ms *= 2;
    }
}

/// No message has it.
const NONE: Seq = Seq(u64::MAX);

/// How far apart notes are, to begin with.
const STEP_MS: u64 = 1;

const NOTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue that gets a message each `every_ms`, for so many.
    fn filled(every_ms: u64, count: u64) -> Ages {
        let mut ages = Ages::new(0);
        for seq in 1..=count {
            let now_ms = seq * every_ms;
            if now_ms >= ages.next_ms {
                ages.note(Seq(seq), Some(Seq(1)), now_ms);
            }
        }
        ages
    }

    #[test]
    fn messages_that_come_rarely_have_their_exact_age() {
        let ages = filled(5_000, 20);
        for seq in 1..=20 {
            assert_eq!(ages.age_ms(Seq(seq), 200_000), 200_000 - seq * 5_000, "{seq}");
        }
    }

    #[test]
    fn the_age_of_many_is_never_too_small_and_not_much_too_great() {
        let ages = filled(10, 100_000);
        assert!(ages.len() <= NOTES_MAX);
        for seq in (1..=100_000).step_by(7) {
            let (told, age) = (ages.age_ms(Seq(seq), 1_000_000), 1_000_000 - seq * 10);
            assert!(told >= age && told - age <= 2 * ages.step_ms, "{seq}: {told} {age}");
        }
    }

    #[test]
    fn what_has_left_makes_room_and_steps_are_small_again() {
        let mut ages = filled(10, 100_000);
        assert!(ages.step_ms > STEP_MS);
        ages.note(Seq(100_001), None, 1_000_010);
        assert_eq!((ages.len(), ages.step_ms), (2, STEP_MS));
        assert_eq!(ages.age_ms(Seq(100_001), 1_000_030), 20);
    }

    #[test]
    fn what_was_there_before_the_queue_knew_is_as_old_as_that() {
        assert_eq!(Ages::new(1_000).age_ms(Seq(5), 3_000), 2_000);
    }
}
