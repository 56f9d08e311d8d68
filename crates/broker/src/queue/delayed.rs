//! Messages that are delivered in the order of a time, and not of their positions: those that wait for it, and those
//! that waited and have it.
//!
//! Each has a due time ([`Run::due_at_ms`]), by the wall clock. Until then it is [`Delayed`]: no consumer gets it, and
//! no limit counts it. From then on it is a ready message, and stands in a [`Lane`] of its priority, beside those that
//! never had to wait. Both are [`Calendar`]s. Bodies are in the log; where there are consumers, those of messages that
//! are due in a moment are read ahead, many at a time and in the log's order. Since the log has the due time, too, a
//! restart finds the same order.

use super::backlog::Backlog;
use super::calendar::{Calendar, Item};
use super::page::Key;
use super::ready::{Entry, Head, NEAR_BYTES, Sums};
use super::run::Run;
use crate::message::Message;
use store::{Lsn, Seq};

/// Messages that are not due yet.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    calendar: Calendar,
    sums: Sums,
    /// What those take that are in memory.
    near_bytes: u64,
    /// All that are due before this were read ahead, unless they came later.
    read_to: Key,
    /// Some are being read.
    pub(crate) is_reading: bool,
    /// When the timer for the first of them runs; 0 = not at all.
    pub(crate) timer_ms: u64,
}

/// Messages in the order of their due times.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    calendar: Calendar,
}

impl Delayed {
    pub(crate) fn sums(&self) -> Sums {
        self.sums
    }

    /// What those take that are in memory.
    pub(crate) fn near_bytes(&self) -> u64 {
        self.near_bytes
    }

    /// When to look for the first that is due (unix ms).
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.calendar.first_ms()
    }

    /// Adds messages that the log has.
    pub(crate) fn insert(&mut self, run: Run) {
        self.sums.add(&run);
        self.calendar.insert(Run { holder: 0, since_ms: 0, ..run });
    }

    /// It is this time now: those that are due soon are put into order.
    pub(crate) fn pass(&mut self, unix_ms: u64) {
        self.calendar.open_until(unix_ms.saturating_add(SOON_MS));
    }

    /// Takes messages that are due by this time, those due first of all: up to so many, which wait for one time.
    pub(crate) fn pop_due(&mut self, unix_ms: u64, most: u32) -> Option<Item> {
        self.calendar.lead_until(unix_ms);
        let item = self.calendar.pop_before(unix_ms.saturating_add(1), most)?;
        self.left(&item);
        Some(item)
    }

    fn left(&mut self, item: &Item) {
        self.sums.subtract(&item.run());
        if let Item::Near(entry) = item {
            self.near_bytes -= entry.near_bytes();
        }
    }

    /// What is known of a message.
    pub(crate) fn find(&self, seq: Seq, hint_ms: Option<u64>) -> Option<Run> {
        self.calendar.find(seq, hint_ms)
    }

    /// Takes a message out before it is due, as the log has it.
    pub(crate) fn take(&mut self, seq: Seq, hint_ms: Option<u64>) -> Option<Entry> {
        let item = self.calendar.take(seq, hint_ms)?;
        self.left(&item);
        Some(Entry::from(item.run()))
    }

    /// When to read ahead the next time.
    pub(crate) fn read_at(&self) -> Option<u64> {
        let unread = self.calendar.soon_far_from(self.read_to).next().map(|run| run.due_at_ms);
        let unread = unread.or_else(|| self.calendar.first_page().map(|key| key.0))?;
        (!self.is_reading).then(|| unread.saturating_sub(SOON_MS / 2))
    }

    /// What to read ahead now: what is due soon and takes no more than so many bytes of memory.
    pub(crate) fn next_far(&mut self, unix_ms: u64, mut bytes: u64) -> Vec<Run> {
        let mut next = Vec::new();
        for mut run in self.calendar.soon_far_from(self.read_to) {
            if run.due_at_ms > unix_ms.saturating_add(SOON_MS) {
                break;
            }
            let each = u64::from(run.payload_bytes) + NEAR_BYTES;
            let fit = (bytes / each).max(u64::from(next.is_empty()));
            run.count = u64::from(run.count).min(fit) as u32;
            if run.count == 0 {
                break;
            }
            bytes = bytes.saturating_sub(each * u64::from(run.count));
            self.read_to = (run.due_at_ms, Seq(run.last_seq().0 + 1));
            next.push(run);
        }
        next
    }

    /// A message was read.
    pub(crate) fn bring_near(&mut self, seq: Seq, lsn: Lsn, message: Message) -> bool {
        let bytes = self.calendar.bring_near(seq, lsn, message);
        self.near_bytes += bytes.unwrap_or(0);
        bytes.is_some()
    }

    /// Those that are due at this time from this seq on, and all that are due later, in order of due time.
    pub(crate) fn by_time(&self, due_at_ms: u64, from: Seq) -> impl Iterator<Item = Run> {
        self.calendar.by_time(due_at_ms, from)
    }

    /// The message's record is elsewhere now.
    pub(crate) fn relocate(&mut self, seq: Seq, due_at_ms: u64, lsn: Lsn) -> bool {
        self.calendar.relocate(seq, Some(due_at_ms), lsn)
    }

    /// Every message from this seq on, in order.
    pub(crate) fn from(&self, from: Seq) -> impl Iterator<Item = Run> {
        self.calendar.by_seq(from)
    }

    /// The lowest and the highest seq.
    pub(crate) fn ends(&self) -> Option<(Seq, Seq)> {
        self.calendar.ends()
    }

    /// All of them, as they are in the log.
    pub(crate) fn into_far(self) -> Vec<Backlog> {
        self.calendar.into_far()
    }

    /// What this takes of the heap beside what is near, in bytes.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.calendar.heap_bytes()
    }
}

impl Lane {
    pub(crate) fn is_empty(&self) -> bool {
        self.calendar.is_empty()
    }

    /// Whether any is far.
    pub(crate) fn has_far(&self) -> bool {
        self.calendar.far_len() > 0
    }

    pub(crate) fn far_len(&self) -> usize {
        self.calendar.far_len() as usize
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        self.calendar.heap_bytes()
    }

    /// The position of what is first.
    pub(crate) fn first_seq(&self) -> Option<Seq> {
        match self.first()? {
            Head::Near(entry) => Some(entry.seq),
            Head::Far(run) => Some(run.seq),
        }
    }

    /// What is first.
    pub(crate) fn first(&self) -> Option<Head<'_>> {
        Some(match self.calendar.first()? {
            Item::Near(entry) => Head::Near(entry),
            Item::Far(run) => Head::Far(*run),
        })
    }

    pub(crate) fn insert_far(&mut self, run: Run) {
        self.calendar.insert(Run { holder: 0, since_ms: 0, ..run });
        self.calendar.lead();
    }

    pub(crate) fn insert_near(&mut self, entry: Entry) {
        self.calendar.insert_near(entry);
    }

    /// Takes a message out, near or far.
    pub(crate) fn take(&mut self, seq: Seq, hint_ms: Option<u64>) -> Option<Entry> {
        let item = self.calendar.take(seq, hint_ms)?;
        self.calendar.lead();
        Some(entry_of(item))
    }

    /// A message that is near.
    pub(crate) fn near(&self, seq: Seq) -> Option<&Entry> {
        self.calendar.near(seq)
    }

    /// Takes what is first; if `near_only`, then only if it is near.
    pub(crate) fn pop(&mut self, near_only: bool) -> Option<Entry> {
        self.calendar.first().filter(|first| !near_only || matches!(first, Item::Near(_)))?;
        let item = self.calendar.pop_before(u64::MAX, 1)?;
        self.calendar.lead();
        Some(entry_of(item))
    }

    /// A far message was read: tells what it takes in memory, unless it has gone, or has been written elsewhere.
    pub(crate) fn bring_near(&mut self, seq: Seq, lsn: Lsn, message: Message) -> Option<u64> {
        self.calendar.bring_near(seq, lsn, message)
    }

    pub(crate) fn find(&self, seq: Seq, hint_ms: Option<u64>) -> Option<Run> {
        self.calendar.find(seq, hint_ms)
    }

    /// The message's record is elsewhere now; false if the message is not here.
    pub(crate) fn relocate(&mut self, seq: Seq, due_at_ms: u64, lsn: Lsn) -> bool {
        self.calendar.relocate(seq, Some(due_at_ms), lsn)
    }

    /// The first far ones, first what leaves first: about so many, if there are that many.
    pub(crate) fn first_far(&mut self, most: usize) -> impl Iterator<Item = Run> {
        self.calendar.open_some(most);
        self.far_in_order()
    }

    /// Some far ones, first what leaves first.
    pub(crate) fn far_in_order(&self) -> impl Iterator<Item = Run> {
        self.calendar.soon_far_from(Key::default())
    }

    /// Every message from this seq on, as runs, in order.
    pub(crate) fn from(&self, from: Seq) -> impl Iterator<Item = Run> {
        self.calendar.by_seq(from)
    }

    /// The lowest and the highest seq.
    pub(crate) fn ends(&self) -> Option<(Seq, Seq)> {
        self.calendar.ends()
    }

    /// Takes all near messages.
    pub(crate) fn take_near(&mut self) -> Vec<Entry> {
        let near = self.calendar.take_near();
        self.calendar.lead();
        near
    }

    /// The far ones, when the near ones are gone.
    pub(crate) fn into_far(self) -> Vec<Backlog> {
        self.calendar.into_far()
    }
}

fn entry_of(item: Item) -> Entry {
    match item {
        Item::Near(entry) => entry,
        Item::Far(run) => Entry::from(run),
    }
}

/// What is due within this time is put into order, and read ahead where there are consumers, half of it at a time. Of a
/// million messages that are due within ten seconds that is a tenth: enough that every piece of the log that is read has
/// several.
const SOON_MS: u64 = 1000;

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
        delayed.pass(unix_ms);
        while let Some(item) = delayed.pop_due(unix_ms, 10) {
            popped.extend(item.run().messages().map(|run| run.seq.0));
        }
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
        let mut delayed = Delayed::default();
        (0..5000u64).for_each(|seq| delayed.insert(due(seq, 1 + seq * 7 % 5000)));
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
