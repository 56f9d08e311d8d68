//! Messages that are delivered in the order of a time, and not of their positions: those that wait for it, and those
//! that waited and have it.
//!
//! Each has a due time ([`Run::due_at_ms`]), by the wall clock. Until then it is [`Delayed`]: no consumer gets it, and
//! no limit counts it. From then on it is a ready message, and stands in a [`Lane`] of its priority, beside those that
//! never had to wait. Both are found by time and by position, and take a few bytes for each message; bodies are in the
//! log. Since the log has the due time, too, a restart finds the same order.

use super::backlog::Backlog;
use super::ready::{Entry, Head, Sums};
use super::run::Run;
use super::times::{Span, Times};
use crate::message::Message;
use std::collections::BTreeMap;
use store::{Lsn, Seq};

/// Messages that are not due yet.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    lane: Lane,
    sums: Sums,
    /// When the timer for the first of them runs; 0 = not at all.
    pub(crate) timer_ms: u64,
}

/// Messages in the order of their due times.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    times: Times,
    near: BTreeMap<Seq, Entry>,
    far: Backlog,
}

impl Delayed {
    pub(crate) fn sums(&self) -> Sums {
        self.sums
    }

    /// When the first is due (unix ms).
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.lane.times.first().map(|first| first.at_ms)
    }

    /// Adds messages that the log has.
    pub(crate) fn insert(&mut self, run: Run) {
        self.sums.add(&run);
        self.lane.insert_far(run);
    }

    /// Adds many, in the order of their positions. `later` keeps what is still to be put into the order of times: it is
    /// for the next call, and for [`Self::settle`].
    pub(crate) fn insert_some(&mut self, run: Run, later: &mut Vec<Span>) {
        self.sums.add(&run);
        self.lane.far.insert(Run { holder: 0, since_ms: 0, ..run });
        later.push(span_of(&run));
        if later.len() >= SORTED_AT_ONCE {
            self.settle(later);
        }
    }

    /// Ends a sequence of [`Self::insert_some`].
    pub(crate) fn settle(&mut self, later: &mut Vec<Span>) {
        self.lane.times.extend(later);
    }

    /// Takes messages that are due by this time, those due first of all: up to so many, which wait for one time.
    pub(crate) fn pop_due(&mut self, unix_ms: u64, count: u32, each: &mut dyn FnMut(Run)) -> Option<u32> {
        let span = self.lane.times.pop_before(unix_ms.saturating_add(1), count)?;
        let sums = &mut self.sums;
        self.lane.far.take_range(span.range(), &mut |run| {
            sums.subtract(&run);
            each(run);
        });
        Some(span.count)
    }

    /// What is known of a message.
    pub(crate) fn find(&self, seq: Seq) -> Option<Run> {
        self.lane.find(seq)
    }

    /// Takes a message out before it is due.
    pub(crate) fn take(&mut self, seq: Seq) -> Option<Entry> {
        let entry = self.lane.take(seq)?;
        self.sums.subtract(&entry.run());
        Some(entry)
    }

    /// Those that are due at this time from this seq on, and all that are due later, in order of due time.
    pub(crate) fn by_time(&self, due_at_ms: u64, from: Seq) -> impl Iterator<Item = Run> {
        self.lane.runs_of(self.lane.times.iter_from(due_at_ms, from))
    }

    /// The message's record is elsewhere now.
    pub(crate) fn relocate(&mut self, seq: Seq, lsn: Lsn) -> bool {
        self.lane.relocate(seq, lsn)
    }

    /// Every message from this seq on, in order.
    pub(crate) fn from(&self, from: Seq) -> impl Iterator<Item = Run> {
        self.lane.far.range(from)
    }

    /// The lowest and the highest seq.
    pub(crate) fn ends(&self) -> Option<(Seq, Seq)> {
        self.lane.far.first_seq().zip(self.lane.far.last_seq())
    }

    /// All of them, as they are in the log.
    pub(crate) fn into_far(self) -> Backlog {
        self.lane.far
    }

    /// What this takes of the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.lane.heap_bytes()
    }
}

impl Lane {
    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Whether any is far.
    pub(crate) fn has_far(&self) -> bool {
        !self.far.is_empty()
    }

    pub(crate) fn far_len(&self) -> usize {
        self.far.len()
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        self.times.heap_bytes() + self.far.heap_bytes()
    }

    /// The position of what is first.
    pub(crate) fn first_seq(&self) -> Option<Seq> {
        self.times.first().map(|first| first.seq)
    }

    /// What is first.
    pub(crate) fn first(&self) -> Option<Head<'_>> {
        let seq = self.first_seq()?;
        match self.near.get(&seq) {
            Some(entry) => Some(Head::Near(entry)),
            None => self.far.get(seq).map(Head::Far),
        }
    }

    pub(crate) fn insert_far(&mut self, run: Run) {
        self.times.insert(span_of(&run));
        self.far.insert(Run { holder: 0, since_ms: 0, ..run });
    }

    pub(crate) fn insert_near(&mut self, entry: Entry) {
        self.times.insert(span_of(&entry.run()));
        self.near.insert(entry.seq, entry);
    }

    /// Takes a message out, near or far.
    pub(crate) fn take(&mut self, seq: Seq) -> Option<Entry> {
        let entry = self.near.remove(&seq).or_else(|| self.far.remove(seq).map(Entry::from))?;
        self.times.remove(entry.due_at_ms, seq);
        Some(entry)
    }

    /// A message that is near.
    pub(crate) fn near(&self, seq: Seq) -> Option<&Entry> {
        self.near.get(&seq)
    }

    /// Takes what is first; if `near_only`, then only if it is near.
    pub(crate) fn pop(&mut self, near_only: bool) -> Option<Entry> {
        let seq = self.first_seq().filter(|seq| !near_only || self.near.contains_key(seq))?;
        self.take(seq)
    }

    /// A far message was read: tells what it takes in memory, unless it has gone, or has been written elsewhere.
    pub(crate) fn bring_near(&mut self, seq: Seq, lsn: Lsn, message: Message) -> Option<u64> {
        self.far.get(seq).filter(|run| run.lsn == lsn)?;
        let entry = Entry::from(self.far.remove(seq)?).with(message);
        let bytes = entry.near_bytes();
        self.near.insert(seq, entry);
        Some(bytes)
    }

    pub(crate) fn find(&self, seq: Seq) -> Option<Run> {
        self.near.get(&seq).map(Entry::run).or_else(|| self.far.get(seq))
    }

    /// The message's record is elsewhere now; false if the message is not here.
    pub(crate) fn relocate(&mut self, seq: Seq, lsn: Lsn) -> bool {
        match self.near.get_mut(&seq) {
            Some(entry) => {
                entry.lsn = lsn;
                true
            }
            None => self.far.move_to(seq, lsn),
        }
    }

    /// The far ones, first what leaves first.
    pub(crate) fn far_in_order(&self) -> impl Iterator<Item = Run> {
        self.runs_of(self.times.iter())
    }

    /// The far ones among these.
    fn runs_of(&self, spans: impl Iterator<Item = Span>) -> impl Iterator<Item = Run> {
        spans.flat_map(|span| {
            let last = span.range().last;
            self.far.range(span.seq).take_while(move |run| run.seq <= last).map(move |mut run| {
                if run.last_seq() > last {
                    let _others = run.split_off((last.0 - run.seq.0 + 1) as u32);
                }
                run
            })
        })
    }

    /// Every message from this seq on, as runs, from two sources that are each in order.
    pub(crate) fn sources(&self, from: Seq) -> [Box<dyn Iterator<Item = Run> + '_>; 2] {
        [Box::new(self.near.range(from..).map(|(_, entry)| entry.run())), Box::new(self.far.range(from))]
    }

    /// Seqs among which are the lowest and the highest.
    pub(crate) fn ends(&self) -> impl Iterator<Item = Seq> {
        let near = self.near.first_key_value().into_iter().chain(self.near.last_key_value()).map(|(seq, _)| *seq);
        near.chain(self.far.first_seq()).chain(self.far.last_seq())
    }

    /// Takes all near messages.
    pub(crate) fn take_near(&mut self) -> Vec<Entry> {
        let near: Vec<Entry> = std::mem::take(&mut self.near).into_values().collect();
        for entry in &near {
            self.times.remove(entry.due_at_ms, entry.seq);
        }
        near
    }

    /// The far ones, when the near ones are gone.
    pub(crate) fn into_far(self) -> Backlog {
        self.far
    }
}

fn span_of(run: &Run) -> Span {
    Span { at_ms: run.due_at_ms, seq: run.seq, count: run.count }
}

/// So many times are sorted at once when they come in another order: twelve megabytes, for the moment of a start.
const SORTED_AT_ONCE: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::super::block::run_before;
    use super::*;

    fn due(seq: u64, due_at_ms: u64) -> Run {
        Run {
            count: 1,
            lsn: Lsn::ZERO.plus(seq),
            payload_bytes: 30,
            header_bytes: 14,
            due_at_ms,
            ..run_before(Seq(seq))
        }
    }

    fn pop_all(delayed: &mut Delayed, unix_ms: u64) -> Vec<u64> {
        let mut popped = Vec::new();
        while delayed.pop_due(unix_ms, 10, &mut |run| popped.extend(run.messages().map(|run| run.seq.0))).is_some() {}
        popped
    }

    #[test]
    fn what_is_due_leaves_in_the_order_of_time() {
        let mut delayed = Delayed::default();
        for (seq, at_ms) in [(1, 300), (2, 100), (3, 200), (4, 100)] {
            delayed.insert(due(seq, at_ms));
        }
        assert_eq!(delayed.next_due(), Some(100));
        assert_eq!(pop_all(&mut delayed, 99), []);
        assert_eq!(pop_all(&mut delayed, 200), [2, 4, 3]);
        assert_eq!((delayed.sums().count, delayed.next_due()), (1, Some(300)));
        assert_eq!(pop_all(&mut delayed, 300), [1]);
        assert_eq!(delayed.sums(), Sums::default());
    }

    #[test]
    fn many_that_come_at_once_are_in_order_too() {
        let (mut delayed, mut later) = (Delayed::default(), Vec::new());
        (0..5000u64).for_each(|seq| delayed.insert_some(due(seq, 1 + seq * 7 % 5000), &mut later));
        delayed.settle(&mut later);
        let popped = pop_all(&mut delayed, u64::MAX - 1);
        assert!(popped.windows(2).all(|pair| pair[0] * 7 % 5000 < pair[1] * 7 % 5000));
        assert_eq!(popped.len(), 5000);
    }

    #[test]
    fn a_delayed_message_takes_few_bytes() {
        const MESSAGES: u64 = 200_000;
        let bytes_of = |at_ms: &dyn Fn(u64) -> u64| {
            let mut delayed = Delayed::default();
            (0..MESSAGES).for_each(|seq| delayed.insert(due(seq, 1_700_000_000_000 + at_ms(seq))));
            delayed.heap_bytes()
        };
        let by_turns = bytes_of(&|seq| seq / 10);
        assert!(by_turns <= 2 * MESSAGES, "{by_turns} bytes");
        // Any time within a day.
        let any = bytes_of(&|seq| seq * 77_773 % MESSAGES * 432);
        assert!(any <= 16 * MESSAGES, "{any} bytes");
    }
}
