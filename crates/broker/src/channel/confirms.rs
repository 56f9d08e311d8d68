//! Publisher confirms of one channel: which publishes are stored, and what to tell the client.
//!
//! Confirms leave in the order of the publishes, many at a time where they can (`multiple`).

use std::collections::VecDeque;

/// The publishes of a channel in confirm mode that are not confirmed yet.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// The number of the first of `waiting`.
    first: u64,
    waiting: VecDeque<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Shards that have not answered.
    shards: u16,
    refused: bool,
}

/// A confirm to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirm {
    /// basic.ack
    Ack { tag: u64, multiple: bool },
    /// basic.nack of this one alone
    Nack { tag: u64 },
}

impl Confirms {
    /// The first publish after confirm.select is number 1.
    pub(crate) fn new() -> Self {
        Self { first: 1, waiting: VecDeque::new() }
    }

    /// A publish that goes to so many shards; returns its number.
    pub(crate) fn published(&mut self, shards: u16) -> u64 {
        let number = self.upcoming();
        self.waiting.push_back(Waiting { shards, refused: false });
        number
    }

    /// The number of the next publish.
    pub(crate) fn upcoming(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// One shard has stored this publish, or refused it.
    pub(crate) fn stored(&mut self, number: u64, refused: bool) {
        let at = usize::try_from(number - self.first).expect("as many fit in memory");
        let waiting = &mut self.waiting[at];
        waiting.shards -= 1;
        waiting.refused |= refused;
    }

    /// How many are not confirmed.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.waiting.len()
    }

    /// Takes what can be told now.
    pub(crate) fn drain(&mut self, mut tell: impl FnMut(Confirm)) -> u64 {
        let before = self.first;
        let mut acked = 0;
        while let Some(next) = self.waiting.pop_front_if(|next| next.shards == 0) {
            self.first += 1;
            if next.refused {
                tell_acked(&mut acked, self.first - 2, &mut tell);
                tell(Confirm::Nack { tag: self.first - 1 });
            } else {
                acked += 1;
            }
        }
        tell_acked(&mut acked, self.first - 1, &mut tell);
        self.first - before
    }
}

fn tell_acked(acked: &mut u64, last: u64, tell: &mut impl FnMut(Confirm)) {
    if *acked > 0 {
        tell(Confirm::Ack { tag: last, multiple: *acked > 1 });
    }
    *acked = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(confirms: &mut Confirms) -> Vec<Confirm> {
        let mut told = vec![];
        confirms.drain(|confirm| told.push(confirm));
        told
    }

    #[test]
    fn stored_publishes_are_told_together_and_in_order() {
        let mut confirms = Confirms::new();
        assert_eq!([1, 1, 2, 0].map(|shards| confirms.published(shards)), [1, 2, 3, 4]);
        assert_eq!(drained(&mut confirms), []);
        confirms.stored(2, false);
        confirms.stored(3, false);
        assert_eq!(drained(&mut confirms), [], "the first is not stored");
        confirms.stored(1, false);
        assert_eq!(drained(&mut confirms), [Confirm::Ack { tag: 2, multiple: true }]);
        confirms.stored(3, false);
        assert_eq!(drained(&mut confirms), [Confirm::Ack { tag: 4, multiple: true }]);
        assert_eq!(confirms.published(0), 5);
        assert_eq!(drained(&mut confirms), [Confirm::Ack { tag: 5, multiple: false }]);
    }

    #[test]
    fn a_refused_publish_is_told_alone() {
        let mut confirms = Confirms::new();
        (1..=4).for_each(|_| {
            confirms.published(1);
        });
        (1..=4).for_each(|number| confirms.stored(number, number == 3));
        let told = [
            Confirm::Ack { tag: 2, multiple: true },
            Confirm::Nack { tag: 3 },
            Confirm::Ack { tag: 4, multiple: false },
        ];
        assert_eq!(drained(&mut confirms), told);
        assert_eq!(confirms.unconfirmed(), 0);
    }
}
