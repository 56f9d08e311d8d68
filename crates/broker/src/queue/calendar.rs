//! Messages in the order of a time, at a few bytes each, in whatever order they come.
//!
//! Those that are first in time are *soon*: each is in a tree, found by time and by position, and may be in memory. The
//! others are in *pages*. A page has all that is of one stretch of time, and stands in the order of positions: what comes
//! joins its end, which moves and packs nothing, and what is alike is one run. A page that has become too long is split
//! by time. When its time comes it is unpacked as a whole, and put into order then. So no message is looked for in the
//! middle of packed ones, neither when it comes nor when it leaves, and each is packed a few times at most.

use super::backlog::Backlog;
use super::page::{Key, Page, key_of};
use super::ready::Entry;
use super::run::Run;
use crate::message::Message;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use store::{Lsn, Seq};

/// See the module. `PAGE_RUNS` is how many runs a page has at most.
#[derive(Debug)]
pub(crate) struct Calendar<const PAGE_RUNS: usize = 16384> {
    soon: BTreeMap<Key, Item>,
    /// The times of those, by first position.
    times: BTreeMap<Seq, u64>,
    /// What is far and below this is soon.
    end: Key,
    /// By a key below which none of them is; each goes up to the next one.
    pages: BTreeMap<Key, Page>,
    /// How many messages are far.
    far: u64,
    /// How many places of those that are soon are of far ones.
    soon_far: usize,
}

/// What has one place in the order.
#[derive(Debug)]
pub(crate) enum Item {
    /// A message in memory.
    Near(Entry),
    /// Messages that the log has.
    Far(Run),
}

impl Item {
    /// What is known of it.
    pub(crate) fn run(&self) -> Run {
        match self {
            Self::Near(entry) => entry.run(),
            Self::Far(run) => *run,
        }
    }
}

impl<const PAGE_RUNS: usize> Default for Calendar<PAGE_RUNS> {
    fn default() -> Self {
        Self { soon: BTreeMap::new(), times: BTreeMap::new(), end: START, pages: BTreeMap::new(), far: 0, soon_far: 0 }
    }
}

impl<const PAGE_RUNS: usize> Calendar<PAGE_RUNS> {
    /// No more are soon than this, but for those whose time has come.
    const SOON_MAX: usize = PAGE_RUNS * 2;

    pub(crate) fn is_empty(&self) -> bool {
        self.soon.is_empty() && self.pages.is_empty()
    }

    /// How many are not in memory.
    pub(crate) fn far_len(&self) -> u64 {
        self.far
    }

    /// About what this takes of the heap beside the messages that are in memory, in bytes.
    pub(crate) fn heap_bytes(&self) -> u64 {
        let pages: u64 = self.pages.values().map(Page::heap_bytes).sum();
        pages + (self.soon_far * SOON_BYTES) as u64
    }

    /// The first of those that are soon.
    pub(crate) fn first(&self) -> Option<&Item> {
        self.soon.first_key_value().map(|(_, item)| item)
    }

    /// A time that is the first one's, or earlier.
    pub(crate) fn first_ms(&self) -> Option<u64> {
        let soon = self.soon.first_key_value().map(|(key, _)| key.0);
        soon.into_iter().chain(self.first_page().map(|key| key.0)).min()
    }

    /// Adds messages that the log has.
    pub(crate) fn insert(&mut self, mut run: Run) {
        self.far += u64::from(run.count);
        loop {
            let key = key_of(&run);
            let is_soon = key < self.end;
            let border = if is_soon { Some(self.end) } else { self.page_behind(key) };
            // What is alike may lie on both sides of a border.
            let rest = border
                .filter(|border| border.0 == key.0 && border.1.0 - key.1.0 < u64::from(run.count))
                .map(|border| run.split_off((border.1.0 - key.1.0) as u32));
            if is_soon {
                self.put(run);
            } else {
                self.file(run);
            }
            match rest {
                Some(rest) => run = rest,
                None => return self.spill(),
            }
        }
    }

    /// Adds a message that is in memory.
    pub(crate) fn insert_near(&mut self, entry: Entry) {
        let key = (entry.due_at_ms, entry.seq);
        self.times.insert(key.1, key.0);
        self.soon.insert(key, Item::Near(entry));
    }

    /// Has everything up to that time soon, as far as there is room.
    pub(crate) fn open_until(&mut self, until_ms: u64) {
        while self.first_page().is_some_and(|(first_ms, _)| first_ms <= until_ms) {
            if self.soon_far >= Self::SOON_MAX {
                return;
            }
            // What is due not much later is not packed anew to be opened in a moment.
            self.open(SPLIT_MIN, |middle_ms| middle_ms <= until_ms.saturating_add(LATER_MS));
        }
        self.end = self.end.max((until_ms.saturating_add(1), Seq(0)));
    }

    /// Has the first one soon if its time is up to that.
    pub(crate) fn lead_until(&mut self, until_ms: u64) {
        while let Some(page) = self.first_page().filter(|(first_ms, _)| *first_ms <= until_ms)
            && self.soon.first_key_value().is_none_or(|(first, _)| *first > page)
        {
            self.open(SPLIT_MIN, |middle_ms| middle_ms <= until_ms);
        }
    }

    /// Has the first one soon, and some others.
    pub(crate) fn lead(&mut self) {
        while let Some(page) = self.first_page()
            && self.soon.first_key_value().is_none_or(|(first, _)| *first > page)
        {
            self.open(LEAD_RUNS, |_| false);
        }
    }

    /// Has about so many soon that are far, as far as there is room and there are that many.
    pub(crate) fn open_some(&mut self, most: usize) {
        while self.soon_far < most.min(Self::SOON_MAX) && !self.pages.is_empty() {
            self.open(PAGE_RUNS, |_| true);
        }
    }

    /// Takes the first of those that are soon if its time is before that one: up to so many messages that are alike.
    pub(crate) fn pop_before(&mut self, before_ms: u64, most: u32) -> Option<Item> {
        let first = self.soon.first_entry().filter(|first| first.key().0 < before_ms && most > 0)?;
        let (key, mut item) = first.remove_entry();
        self.times.remove(&key.1);
        if let Item::Far(run) = &mut item {
            self.soon_far -= 1;
            if run.count > most {
                let rest = run.split_off(most);
                self.put(rest);
            }
            self.far -= u64::from(run.count);
        }
        self.forget_end();
        Some(item)
    }

    /// Takes a message. Its time is looked for if it is not known, or another.
    pub(crate) fn take(&mut self, seq: Seq, hint_ms: Option<u64>) -> Option<Item> {
        let taken = match self.soon_key(seq) {
            Some(key) => self.take_soon(key, seq),
            None => {
                let page = self.page_with(seq, hint_ms)?;
                let found = self.pages.get_mut(&page)?;
                let run = found.remove(seq)?;
                if found.is_empty() {
                    self.pages.remove(&page);
                }
                Some(Item::Far(run))
            }
        };
        if let Some(Item::Far(_)) = taken {
            self.far -= 1;
        }
        self.forget_end();
        taken
    }

    /// What is known of a message; the hint as for [`Self::take`].
    pub(crate) fn find(&self, seq: Seq, hint_ms: Option<u64>) -> Option<Run> {
        match self.soon_key(seq) {
            Some(key) => self.soon.get(&key)?.run().message(seq),
            None => self.pages.get(&self.page_with(seq, hint_ms)?)?.get(seq),
        }
    }

    /// A message that is in memory.
    pub(crate) fn near(&self, seq: Seq) -> Option<&Entry> {
        match self.soon.get(&self.soon_key(seq)?)? {
            Item::Near(entry) => Some(entry),
            Item::Far(_) => None,
        }
    }

    /// A message was read that is soon: tells what it takes in memory, unless it has gone, or has been written elsewhere.
    pub(crate) fn bring_near(&mut self, seq: Seq, lsn: Lsn, message: Message) -> Option<u64> {
        let key = self.soon_key(seq)?;
        match self.soon.get(&key)? {
            Item::Far(run) if run.message(seq).is_some_and(|run| run.lsn == lsn) => {}
            _ => return None,
        }
        let Some(Item::Far(run)) = self.take_soon(key, seq) else { return None };
        self.far -= 1;
        let entry = Entry::from(run).with(message);
        let bytes = entry.near_bytes();
        self.insert_near(entry);
        Some(bytes)
    }

    /// The message's record is elsewhere now; false if the message is not here.
    pub(crate) fn relocate(&mut self, seq: Seq, hint_ms: Option<u64>, lsn: Lsn) -> bool {
        let Some(key) = self.soon_key(seq) else {
            let page = self.page_with(seq, hint_ms).and_then(|page| self.pages.get_mut(&page));
            return page.is_some_and(|page| page.move_to(seq, lsn));
        };
        match self.soon.get_mut(&key) {
            Some(Item::Near(entry)) => entry.lsn = lsn,
            Some(Item::Far(run)) if run.count == 1 => run.lsn = lsn,
            _ => {
                if let Some(Item::Far(run)) = self.take_soon(key, seq) {
                    self.put(Run { lsn, ..run });
                }
            }
        }
        true
    }

    /// Those that are soon and far, from this key on.
    pub(crate) fn soon_far_from(&self, from: Key) -> impl Iterator<Item = Run> {
        self.soon.range(from..).filter_map(|(_, item)| match item {
            Item::Far(run) => Some(*run),
            Item::Near(_) => None,
        })
    }

    /// Below which key nothing is in a page.
    pub(crate) fn first_page(&self) -> Option<Key> {
        self.pages.first_key_value().map(|(key, _)| *key)
    }

    /// Those of this time from this position on, and all of later times.
    pub(crate) fn by_time(&self, from_ms: u64, from: Seq) -> impl Iterator<Item = Run> {
        let start = (from_ms, from);
        let before = |key: Option<Key>| key.unwrap_or(start);
        let soon = self.soon.range(before(self.soon.range(..=start).next_back().map(|(key, _)| *key))..);
        let pages = self.pages.range(before(self.pages.range(..=start).next_back().map(|(key, _)| *key))..);
        let mut filed = pages.flat_map(|(_, page)| {
            let mut runs: Vec<Run> = page.range(Seq(0)).collect();
            runs.sort_unstable_by_key(key_of);
            runs
        });
        let (mut soon, mut next_filed) = (soon.map(|(_, item)| item.run()).peekable(), filed.next());
        let in_order = std::iter::from_fn(move || match (soon.peek(), next_filed) {
            (Some(one), Some(other)) if key_of(&other) < key_of(one) => {
                std::mem::replace(&mut next_filed, filed.next())
            }
            (Some(_), _) => soon.next(),
            (None, _) => std::mem::replace(&mut next_filed, filed.next()),
        });
        in_order.filter_map(move |run| match run.due_at_ms.cmp(&from_ms) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal if run.last_seq() < from => None,
            std::cmp::Ordering::Equal => Some(run.not_below(from)),
            std::cmp::Ordering::Greater => Some(run),
        })
    }

    /// Every message from this position on, in the order of positions.
    pub(crate) fn by_seq(&self, from: Seq) -> impl Iterator<Item = Run> {
        let first = self.times.range(..=from).next_back().map_or(from, |(first, _)| *first);
        let soon = self.times.range(first..).filter_map(|(seq, time)| self.soon.get(&(*time, *seq)).map(Item::run));
        let soon = soon.filter(move |run| run.last_seq() >= from).map(move |run| run.not_below(from));
        let mut sources: Vec<Box<dyn Iterator<Item = Run> + '_>> = vec![Box::new(soon)];
        sources.extend(self.pages.values().map(|page| Box::new(page.range(from)) as Box<dyn Iterator<Item = Run>>));
        let mut next: Vec<Option<Run>> = sources.iter_mut().map(Iterator::next).collect();
        let firsts = next.iter().enumerate().filter_map(|(at, run)| Some(Reverse((run.as_ref()?.seq, at))));
        let mut heap: BinaryHeap<_> = firsts.collect();
        std::iter::from_fn(move || {
            let Reverse((_, at)) = heap.pop()?;
            let run = std::mem::replace(&mut next[at], sources[at].next());
            heap.extend(next[at].map(|run| Reverse((run.seq, at))));
            run
        })
    }

    /// The lowest and the highest position.
    pub(crate) fn ends(&self) -> Option<(Seq, Seq)> {
        let soon = self.times.first_key_value().zip(self.times.last_key_value());
        let last = |seq: Seq, time: u64| self.soon.get(&(time, seq)).map_or(seq, |item| item.run().last_seq());
        let soon = soon.map(|((first, _), (seq, time))| (*first, last(*seq, *time)));
        let pages = self.pages.values().filter_map(Page::ends);
        soon.into_iter().chain(pages).reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    /// Takes all that are in memory.
    pub(crate) fn take_near(&mut self) -> Vec<Entry> {
        let near = self.soon.extract_if(.., |_, item| matches!(item, Item::Near(_)));
        let near = near.filter_map(|(_, item)| match item {
            Item::Near(entry) => Some(entry),
            Item::Far(_) => None,
        });
        let near: Vec<Entry> = near.collect();
        near.iter().for_each(|entry| {
            self.times.remove(&entry.seq);
        });
        self.forget_end();
        near
    }

    /// All of them, as the log has them.
    pub(crate) fn into_far(self) -> Vec<Backlog> {
        let mut soon = Backlog::default();
        for (seq, time) in &self.times {
            if let Some(item) = self.soon.get(&(*time, *seq)) {
                soon.insert(item.run());
            }
        }
        self.pages.into_values().map(Page::into_backlog).chain([soon]).collect()
    }

    /// The place of what has this position, if that is soon.
    fn soon_key(&self, seq: Seq) -> Option<Key> {
        let (first, time) = self.times.range(..=seq).next_back()?;
        let key = (*time, *first);
        self.soon.get(&key)?.run().message(seq).map(|_| key)
    }

    /// The page that has this position.
    fn page_with(&self, seq: Seq, hint_ms: Option<u64>) -> Option<Key> {
        let has = |(_, page): &(&Key, &Page)| page.get(seq).is_some();
        let hinted = hint_ms.and_then(|time| self.pages.range(..=(time, seq)).next_back());
        hinted.filter(has).or_else(|| self.pages.iter().find(has)).map(|(key, _)| *key)
    }

    fn page_behind(&self, key: Key) -> Option<Key> {
        self.pages.range((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded)).next().map(|(key, _)| *key)
    }

    /// Adds to those that are soon; they are counted.
    fn put(&mut self, run: Run) {
        let key = key_of(&run);
        if let Some((_, Item::Far(before))) = self.soon.range_mut(..key).next_back()
            && before.absorb(&run)
        {
            return;
        }
        self.times.insert(key.1, key.0);
        self.soon.insert(key, Item::Far(run));
        self.soon_far += 1;
    }

    /// Adds to a page.
    fn file(&mut self, run: Run) {
        let key = key_of(&run);
        let found = self.pages.range(..=key).next_back().map(|(first, _)| *first);
        let first = found.unwrap_or_else(|| {
            // It is below all pages: the first one begins there from now on.
            let page = self.pages.pop_first().map(|(_, page)| page);
            self.pages.insert(key, page.unwrap_or_default());
            key
        });
        let Some(page) = self.pages.get_mut(&first) else { return };
        if page.count >= PAGE_RUNS {
            page.count = page.runs.runs() + page.late.len();
        }
        if page.count < PAGE_RUNS {
            return page.insert(run);
        }
        if page.last < key {
            // What comes in the order of time leaves full pages behind.
            self.pages.insert(key, Page::of(&[run]));
            return;
        }
        page.insert(run);
        if let Some(page) = self.pages.remove(&first) {
            let runs = page.into_runs();
            let middle = middle(&runs);
            let (low, high): (Vec<Run>, _) = runs.into_iter().partition(|run| key_of(run) < middle);
            self.pages.insert(first, Page::of(&low));
            self.pages.insert(middle, Page::of(&high));
        }
    }

    /// Unpacks the first page, or as much of its beginning as is of use: it is halved while it has more runs than that and
    /// the time in its middle is not wanted.
    fn open(&mut self, enough: usize, is_wanted: impl Fn(u64) -> bool) {
        let Some((_, page)) = self.pages.pop_first() else { return };
        let mut runs = page.into_runs();
        while runs.len() > enough.max(1) {
            let middle = middle(&runs);
            if is_wanted(middle.0) {
                break;
            }
            let (low, high): (_, Vec<Run>) = runs.into_iter().partition(|run| key_of(run) < middle);
            self.pages.insert(middle, Page::of(&high));
            runs = low;
        }
        if let Some(last) = runs.iter().max_by_key(|run| key_of(run)) {
            self.end = self.end.max((last.due_at_ms, Seq(last.last_seq().0 + 1)));
        }
        self.soon_far += runs.len();
        self.times.extend(runs.iter().map(|run| (run.seq, run.due_at_ms)));
        // One by one, and not as a map: to join two maps, all of both is moved.
        runs.sort_unstable_by_key(key_of);
        self.soon.extend(runs.into_iter().map(|run| (key_of(&run), Item::Far(run))));
    }

    /// Of very many that are soon, puts the later ones into a page.
    fn spill(&mut self) {
        if self.soon_far < Self::SOON_MAX * 2 {
            return;
        }
        let Some(middle) = self.soon_far_from(START).nth(Self::SOON_MAX).map(|run| key_of(&run)) else { return };
        let later = self.soon.extract_if(middle.., |_, item| matches!(item, Item::Far(_)));
        let mut later: Vec<Run> = later.map(|(_, item)| item.run()).collect();
        later.sort_unstable_by_key(|run| run.seq);
        later.iter().for_each(|run| {
            self.times.remove(&run.seq);
        });
        self.soon_far -= later.len();
        self.end = middle;
        self.pages.insert(middle, Page::of(&later));
    }

    fn take_soon(&mut self, key: Key, seq: Seq) -> Option<Item> {
        let item = self.soon.remove(&key)?;
        self.times.remove(&key.1);
        let Item::Far(mut run) = item else { return Some(item) };
        self.soon_far -= 1;
        if run.seq < seq {
            let rest = run.split_off((seq.0 - run.seq.0) as u32);
            self.put(std::mem::replace(&mut run, rest));
        }
        if run.count > 1 {
            let rest = run.split_off(1);
            self.put(rest);
        }
        Some(Item::Far(run))
    }

    fn forget_end(&mut self) {
        if self.is_empty() {
            self.end = START;
        }
    }
}

/// The key of which half of them have a lower one.
fn middle(runs: &[Run]) -> Key {
    let mut keys: Vec<Key> = runs.iter().map(key_of).collect();
    let at = keys.len() / 2;
    *keys.select_nth_unstable(at).1
}

const START: Key = (0, Seq(0));
/// A page of so few runs is opened as a whole, even if most of them have time …
const SPLIT_MIN: usize = 64;
/// … and so many are, when only the first one is wanted.
const LEAD_RUNS: usize = 256;
/// About what a run takes that is soon: two places in trees whose nodes are two thirds full.
const SOON_BYTES: usize = (size_of::<Key>() + size_of::<Item>() + size_of::<(Seq, u64)>()) * 3 / 2;
/// A page of which half is due so much later than it should be, at most, is opened as a whole.
const LATER_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::super::block::run_before;
    use super::*;
    use crate::message::MessageParts;
    use proptest::prelude::*;

    /// Small pages, so that few messages make many.
    type Small = Calendar<8>;

    fn due(seq: u64, due_at_ms: u64, count: u32) -> Run {
        let lsn = Lsn::ZERO.plus(1 + seq);
        Run { count, lsn, payload_bytes: 30, header_bytes: 14, due_at_ms, ..run_before(Seq(seq)) }
    }

    fn message() -> Message {
        let parts = MessageParts { exchange: "", routing_key: "", properties: &[0, 0], died_here: false };
        Message::new(parts, b"")
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { at_ms: u64, seq: u64, count: u32 },
        InsertNear { at_ms: u64, seq: u64 },
        Take { at: usize, is_hinted: bool },
        Pop { now_ms: u64, most: u32 },
        Open { until_ms: u64 },
        Lead,
        OpenSome,
        Near { at: usize },
        Move { at: usize, lsn: u64 },
        TakeNear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let at_ms = || prop_oneof![8 => 0..40u64, 1 => Just(u64::MAX / 2)];
        prop_oneof![
            20 => (at_ms(), 0..400u64, 1..6u32).prop_map(|(at_ms, seq, count)| Step::Insert { at_ms, seq, count }),
            1 => (at_ms(), 0..400u64).prop_map(|(at_ms, seq)| Step::InsertNear { at_ms, seq }),
            3 => (any::<usize>(), any::<bool>()).prop_map(|(at, is_hinted)| Step::Take { at, is_hinted }),
            3 => (0..50u64, 1..4u32).prop_map(|(now_ms, most)| Step::Pop { now_ms, most }),
            2 => (0..50u64).prop_map(|until_ms| Step::Open { until_ms }),
            1 => Just(Step::Lead),
            1 => Just(Step::OpenSome),
            3 => any::<usize>().prop_map(|at| Step::Near { at }),
            2 => (any::<usize>(), 1..5000u64).prop_map(|(at, lsn)| Step::Move { at, lsn }),
            1 => Just(Step::TakeNear),
        ]
    }

    /// A calendar, and what it has to be equal to: messages, and which of them are near.
    #[derive(Default)]
    struct Pair {
        calendar: Small,
        model: BTreeMap<Key, (Run, bool)>,
    }

    impl Pair {
        fn nth(&self, at: usize) -> Option<(Key, Run, bool)> {
            let at = at.checked_rem(self.model.len())?;
            self.model.iter().nth(at).map(|(key, (run, is_near))| (*key, *run, *is_near))
        }

        fn is_free(&self, seqs: std::ops::Range<u64>) -> bool {
            self.model.keys().all(|(_, seq)| !seqs.contains(&seq.0))
        }

        fn apply(&mut self, step: Step) {
            match step {
                Step::Insert { at_ms, seq, count } => {
                    if self.is_free(seq..seq + u64::from(count)) {
                        let run = due(seq, at_ms, count);
                        self.calendar.insert(run);
                        self.model.extend(run.messages().map(|run| (key_of(&run), (run, false))));
                    }
                }
                Step::InsertNear { at_ms, seq } => {
                    if self.is_free(seq..seq + 1) {
                        let run = due(seq, at_ms, 1);
                        self.calendar.insert_near(Entry::from(run).with(message()));
                        self.model.insert(key_of(&run), (run, true));
                    }
                }
                Step::Take { at, is_hinted } => {
                    let Some((key, run, is_near)) = self.nth(at) else { return };
                    let taken = self.calendar.take(key.1, is_hinted.then_some(key.0));
                    let taken = taken.map(|item| (key_of(&item.run()), item.run().lsn, matches!(item, Item::Near(_))));
                    assert_eq!(taken, Some((key, run.lsn, is_near)));
                    self.model.remove(&key);
                    assert!(self.calendar.take(key.1, None).is_none());
                }
                Step::Pop { now_ms, most } => {
                    self.calendar.lead_until(now_ms);
                    let popped = self.calendar.pop_before(now_ms + 1, most);
                    let first = self.model.first_key_value().filter(|(key, _)| key.0 <= now_ms);
                    assert_eq!(popped.as_ref().map(|item| key_of(&item.run())), first.map(|(key, _)| *key));
                    let popped = popped.map(|item| item.run());
                    assert!(popped.is_none_or(|run| run.count <= most));
                    for message in popped.into_iter().flat_map(|run| run.messages()) {
                        assert_eq!(self.model.remove(&key_of(&message)).map(|(run, _)| run.lsn), Some(message.lsn));
                    }
                }
                Step::Open { until_ms } => self.calendar.open_until(until_ms),
                Step::Lead => {
                    self.calendar.lead();
                    let first = self.calendar.first().map(|item| key_of(&item.run()));
                    assert_eq!(first, self.model.keys().next().copied());
                }
                Step::OpenSome => {
                    self.calendar.open_some(20);
                }
                Step::Near { at } => {
                    let Some((key, run, is_near)) = self.nth(at) else { return };
                    assert!(self.calendar.bring_near(key.1, Lsn::ZERO.plus(9999), message()).is_none());
                    if self.calendar.bring_near(key.1, run.lsn, message()).is_some() {
                        assert!(!is_near && self.calendar.near(key.1).is_some());
                        self.model.insert(key, (run, true));
                    }
                }
                Step::Move { at, lsn } => {
                    let Some((key, run, is_near)) = self.nth(at) else { return };
                    let run = Run { lsn: Lsn::ZERO.plus(lsn), ..run };
                    assert!(self.calendar.relocate(key.1, Some(key.0), run.lsn));
                    self.model.insert(key, (run, is_near));
                }
                Step::TakeNear => {
                    let mut near: Vec<Key> =
                        self.calendar.take_near().iter().map(|entry| key_of(&entry.run())).collect();
                    near.sort_unstable();
                    let expected: Vec<Key> =
                        self.model.extract_if(.., |_, (_, is_near)| *is_near).map(|(key, _)| key).collect();
                    assert_eq!(near, expected);
                }
            }
        }

        fn check(&self) {
            let Self { calendar, model } = self;
            assert_eq!(calendar.is_empty(), model.is_empty());
            assert_eq!(calendar.far_len(), model.values().filter(|(_, is_near)| !is_near).count() as u64);
            assert_eq!(calendar.soon_far, calendar.soon_far_from(START).count());
            assert_eq!(calendar.times.len(), calendar.soon.len());
            assert!(calendar.first_ms() <= model.keys().next().map(|key| key.0) || model.is_empty());
            assert_eq!(calendar.first_ms().is_none(), model.is_empty());
            let each = |runs: Vec<Run>| {
                runs.into_iter().flat_map(|run| run.messages()).map(|run| (key_of(&run), run.lsn)).collect::<Vec<_>>()
            };
            let all: Vec<(Key, Lsn)> = model.iter().map(|(key, (run, _))| (*key, run.lsn)).collect();
            assert_eq!(each(calendar.by_time(0, Seq(0)).collect()), all);
            let from = (17, Seq(100));
            let later: Vec<_> = all.iter().copied().filter(|(key, _)| *key >= from).collect();
            assert_eq!(each(calendar.by_time(from.0, from.1).collect()), later);
            let mut by_seq = all.clone();
            by_seq.sort_unstable_by_key(|(key, _)| key.1);
            assert_eq!(each(calendar.by_seq(Seq(0)).collect()), by_seq);
            let ends = by_seq.first().zip(by_seq.last()).map(|(first, last)| (first.0.1, last.0.1));
            assert_eq!(calendar.ends(), ends);
            by_seq.retain(|(key, _)| key.1 >= Seq(99));
            assert_eq!(each(calendar.by_seq(Seq(99)).collect()), by_seq);
            let mut borders = calendar.pages.iter().peekable();
            while let Some((first, page)) = borders.next() {
                assert!(!page.is_empty() && page.runs.runs() + page.late.len() <= page.count);
                let next = borders.peek().map_or((u64::MAX, Seq(u64::MAX)), |(next, _)| **next);
                assert!(page.range(Seq(0)).all(|run| *first <= key_of(&run) && key_of(&run) < next));
            }
            assert!(calendar.pages.is_empty() || calendar.end <= *calendar.pages.keys().next().unwrap());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_calendar_is_a_map_by_time(steps in prop::collection::vec(step(), 1..400)) {
            let mut pair = Pair::default();
            for step in steps {
                pair.apply(step);
                pair.check();
            }
            let all: Vec<Key> = pair.model.keys().copied().collect();
            for (time, seq) in all {
                prop_assert!(pair.calendar.find(seq, None).is_some_and(|run| run.due_at_ms == time));
            }
            let left: usize = pair.calendar.into_far().iter().map(Backlog::len).sum();
            prop_assert_eq!(left, pair.model.len());
        }
    }

    #[test]
    fn what_comes_in_the_order_of_time_leaves_full_pages() {
        let mut calendar = Small::default();
        (0..800).for_each(|seq| calendar.insert(due(seq * 2, seq, 1)));
        assert_eq!(calendar.pages.len(), 100);
    }

    #[test]
    fn what_comes_in_the_order_of_time_and_anywhere_else_takes_few_bytes() {
        const MESSAGES: u64 = 200_000;
        let mut calendar = Calendar::<16384>::default();
        // A stride that is coprime to the count: every position once, in no order.
        (0..MESSAGES).for_each(|at| calendar.insert(due(at * 77_773 % MESSAGES, at / 10, 1)));
        let bytes = calendar.heap_bytes();
        assert!(bytes <= 24 * MESSAGES, "{bytes} bytes");
        let popped = std::iter::from_fn(|| {
            calendar.lead();
            calendar.pop_before(u64::MAX, 1).map(|item| item.run().due_at_ms)
        });
        let popped: Vec<u64> = popped.collect();
        assert!(popped.len() == MESSAGES as usize && popped.is_sorted());
    }

    #[test]
    fn very_many_of_one_time_are_pages_too() {
        let mut calendar = Small::default();
        // Each one's record is apart from the next one's.
        (0..800).for_each(|seq| calendar.insert(Run { lsn: Lsn::ZERO.plus(1 + seq * 3), ..due(seq, 5, 1) }));
        calendar.open_until(10);
        assert!(calendar.soon_far < 50);
        let popped = std::iter::from_fn(|| {
            calendar.lead_until(5);
            calendar.pop_before(6, 1).map(|item| item.run().seq.0)
        });
        assert!(popped.eq(0..800));
    }
}
