//! The messages of a queue that were delivered and are not settled, found by their `seq` and by who holds them.
//!
//! Deliveries come nearly in order and are settled nearly in order, so a window over the recent ones (`recent`, where
//! a message is found by subtraction) holds almost all. What stays behind when the window thins out, or comes in
//! beneath it, moves to a tree. The messages of one holder form a list in the order of their delivery.
//!
//! Beyond some thousands, which no worker has in hand, the oldest are *far*: their bodies are in the log only, they are
//! on no list, and they take a few bytes each.

use super::OVERDUE_AT_ONCE;
use super::backlog::Backlog;
use super::far::Far;
use super::lease::{Extended, Overdue};
use super::ready::{Entry, Sums};
use super::run::Run;
use crate::queue::Holder;
use crate::shard::slots::Slot;
use std::collections::{BTreeMap, VecDeque};
use store::{Lsn, Seq};

/// See the module.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Unacked {
    /// What those in `old` and `recent` take in memory.
    near_bytes: u64,
    sums: Sums,
    recent: VecDeque<Option<Held>>,
    /// The seq of `recent`'s first position; all in `old` are below it.
    first: u64,
    in_recent: usize,
    far: Far,
    old: BTreeMap<Seq, Held>,
}

/// A delivered message.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    pub(crate) holder: Slot<Holder>,
    /// When it was delivered.
    pub(crate) since_ms: u64,
    previous: Option<Seq>,
    next: Option<Seq>,
}

/// What one holder holds: ends of the list, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct HeldList {
    first: Option<Seq>,
    last: Option<Seq>,
    len: u32,
    /// How many of them are far …
    far: u32,
    /// … when the first of those was delivered, or earlier, …
    far_since_ms: u64,
    /// … and a seq below which there are none.
    far_from: u64,
}

impl HeldList {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// What was delivered longest ago of those that are near.
    pub(crate) fn first_near(&self) -> Option<Seq> {
        self.first
    }

    /// Holds messages that are far.
    pub(crate) fn has_far(&self) -> bool {
        self.far > 0
    }

    /// Notes when the oldest far delivery was made, found by [`Unacked::oldest_since`].
    pub(crate) fn note_far_since(&mut self, since_ms: u64) {
        self.far_since_ms = since_ms;
    }
}

impl Unacked {
    pub(crate) fn len(&self) -> usize {
        self.sums.count as usize
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sums
    }

    pub(crate) fn near_bytes(&self) -> u64 {
        self.near_bytes
    }

    /// What the index of the far ones takes.
    pub(crate) fn far_heap_bytes(&self) -> u64 {
        self.far.heap_bytes()
    }

    /// Who holds a message.
    pub(crate) fn holder_of(&self, seq: Seq) -> Option<Slot<Holder>> {
        match self.get(seq) {
            Some(held) => Some(held.holder),
            None => self.far.get(seq).map(|run| Slot::from_index(run.holder)),
        }
    }

    fn get(&self, seq: Seq) -> Option<&Held> {
        match self.position(seq) {
            Some(at) => self.recent[at].as_ref(),
            None => self.old.get(&seq),
        }
    }

    fn get_mut(&mut self, seq: Seq) -> Option<&mut Held> {
        match self.position(seq) {
            Some(at) => self.recent[at].as_mut(),
            None => self.old.get_mut(&seq),
        }
    }

    /// Adds a message that is being delivered to `holder`, whose list this is.
    pub(crate) fn hold(&mut self, entry: Entry, holder: Slot<Holder>, list: &mut HeldList, since_ms: u64) {
        let seq = entry.seq;
        self.sums.add(&entry.run());
        self.near_bytes += entry.near_bytes();
        if let Some(last) = list.last {
            self.get_mut(last).expect("a list holds what is held").next = Some(seq);
        }
        let held = Held { entry, holder, since_ms, previous: list.last, next: None };
        list.first.get_or_insert(seq);
        list.last = Some(seq);
        list.len += 1;
        self.insert(held);
    }

    /// Takes a message out, `list` being that of its holder.
    pub(crate) fn take(&mut self, seq: Seq, list: &mut HeldList) -> Option<Held> {
        let held = match self.take_near(seq, list) {
            Some(held) => held,
            None => {
                let run = self.far.remove(seq)?;
                list.far -= 1;
                let (holder, since_ms) = (Slot::from_index(run.holder), run.since_ms);
                Held { entry: run.into(), holder, since_ms, previous: None, next: None }
            }
        };
        list.len -= 1;
        self.sums.subtract(&held.entry.run());
        Some(held)
    }

    fn take_near(&mut self, seq: Seq, list: &mut HeldList) -> Option<Held> {
        let held = self.remove(seq)?;
        self.near_bytes -= held.entry.near_bytes();
        match held.previous {
            Some(previous) => self.get_mut(previous).expect("a list holds what is held").next = held.next,
            None => list.first = held.next,
        }
        match held.next {
            Some(next) => self.get_mut(next).expect("a list holds what is held").previous = held.previous,
            None => list.last = held.previous,
        }
        Some(held)
    }

    /// The oldest message while more are near than are of use there.
    pub(crate) fn excess(&mut self, near_max: usize, near_bytes_max: u64) -> Option<&mut Held> {
        if self.old.len() + self.in_recent <= near_max && self.near_bytes <= near_bytes_max {
            return None;
        }
        match self.old.first_entry() {
            Some(first) => Some(first.into_mut()),
            None => self.recent.iter_mut().flatten().next(),
        }
    }

    /// A near message, which the log has, becomes a far one; `list` is that of its holder.
    pub(crate) fn send_far(&mut self, seq: Seq, list: &mut HeldList) {
        let Some(held) = self.take_near(seq, list) else { return };
        debug_assert!(held.entry.is_logged(), "far messages are in the log");
        // Times are rounded up, so that deliveries of about the same time can be noted as one.
        let since_ms = held.since_ms.next_multiple_of(FAR_SINCE_MS);
        list.far_since_ms = if list.far == 0 { since_ms } else { list.far_since_ms.min(since_ms) };
        list.far_from = if list.far == 0 { seq.0 } else { list.far_from.min(seq.0) };
        list.far += 1;
        self.far.insert(Run { holder: held.holder.index(), since_ms, ..held.entry.run() });
    }

    /// When the oldest delivery on this list was made.
    pub(crate) fn oldest_since(&self, list: &HeldList, holder: Slot<Holder>) -> Option<u64> {
        let near = list.first.and_then(|seq| self.get(seq)).map(|held| held.since_ms);
        let far = list.has_far().then(|| {
            let of_holder = self.far.range(Seq(list.far_from)).filter(|run| run.holder == holder.index());
            of_holder.map(|run| run.since_ms).min()
        });
        near.into_iter().chain(far.flatten()).min()
    }

    /// When the oldest delivery on this list may have been made, without much looking: the true time or earlier.
    pub(crate) fn oldest_since_at_least(&self, list: &HeldList) -> Option<u64> {
        let near = list.first.and_then(|seq| self.get(seq)).map(|held| held.since_ms);
        near.into_iter().chain(list.has_far().then_some(list.far_since_ms)).min()
    }

    /// Who holds a message, and since when.
    pub(crate) fn lease_of(&self, seq: Seq) -> Option<(Slot<Holder>, u64)> {
        match self.get(seq) {
            Some(held) => Some((held.holder, held.since_ms)),
            None => self.far.get(seq).map(|run| (Slot::from_index(run.holder), run.since_ms)),
        }
    }

    /// A message that is near.
    pub(crate) fn near(&self, seq: Seq) -> Option<&Entry> {
        self.get(seq).map(|held| &held.entry)
    }

    /// How many deliveries on this list were made before that time and not extended, counting no more than
    /// [`LATE_MAX`] and all that are far as one with the oldest.
    pub(crate) fn made_before(
        &self,
        list: &HeldList,
        holder: Slot<Holder>,
        extended: Option<&Extended>,
        ms: u64,
    ) -> u64 {
        let is_extended = |seq| extended.is_some_and(|extended| extended.until(holder, seq).is_some());
        let far_extended = || {
            let seqs = extended.into_iter().flat_map(|extended| extended.of(holder));
            seqs.filter(|(seq, _)| self.get(*seq).is_none()).count() as u64
        };
        let is_far_late = list.has_far() && list.far_since_ms < ms;
        let far = if is_far_late { u64::from(list.far).saturating_sub(far_extended()) } else { 0 };
        let (mut next, mut count) = (list.first, 0);
        while let Some(held) = next.and_then(|seq| self.get(seq)).filter(|held| held.since_ms < ms && count < LATE_MAX)
        {
            next = held.next;
            count += u64::from(!is_extended(held.entry.seq));
        }
        far + count
    }

    /// Notes which deliveries on this list are overdue, but for those whose lease was extended.
    pub(crate) fn note_overdue(
        &self,
        list: &HeldList,
        holder: Slot<Holder>,
        timeout_ms: u64,
        extended: Option<&Extended>,
        now_ms: u64,
        overdue: &mut Overdue,
    ) {
        if timeout_ms == 0 {
            return;
        }
        let is_extended = |seq| extended.is_some_and(|extended| extended.until(holder, seq).is_some());
        let mut next = list.first;
        // They stand in the order of their deliveries.
        while let Some(held) = next.and_then(|seq| self.get(seq)) {
            next = held.next;
            if is_extended(held.entry.seq) {
                continue;
            }
            let due_ms = held.since_ms.saturating_add(timeout_ms);
            if due_ms > now_ms || overdue.seqs.len() >= OVERDUE_AT_ONCE {
                overdue.note_next(due_ms.max(now_ms + 1));
                break;
            }
            overdue.seqs.push(held.entry.seq);
        }
        if !list.has_far() {
            return;
        }
        for run in self.far.range(Seq(list.far_from)).filter(|run| run.holder == holder.index()) {
            let due_ms = run.since_ms.saturating_add(timeout_ms);
            if due_ms > now_ms {
                overdue.note_next(due_ms);
                continue;
            }
            for message in run.messages().filter(|message| !is_extended(message.seq)) {
                if overdue.seqs.len() >= OVERDUE_AT_ONCE {
                    overdue.note_next(now_ms + 1);
                    return;
                }
                overdue.seqs.push(message.seq);
            }
        }
    }

    /// Takes some of the far messages of this holder.
    pub(crate) fn take_far(&mut self, holder: Slot<Holder>, list: &mut HeldList) -> Vec<Run> {
        let of_holder = self.far.range(Seq(list.far_from)).filter(|run| run.holder == holder.index());
        let taken: Vec<Run> = of_holder.take(FAR_AT_ONCE).collect();
        list.far_from = taken.last().map_or(list.far_from, |last| last.range().last.0 + 1);
        for run in &taken {
            let range = store::SeqRange { first: run.seq, last: Seq(run.seq.0 + u64::from(run.count) - 1) };
            self.far.take_range(range, &mut |_| {});
            list.far -= run.count;
            list.len -= run.count;
            self.sums.subtract(run);
        }
        taken
    }

    /// All of them, as runs; the far ones come packed.
    pub(crate) fn into_parts(self) -> (Vec<Run>, Backlog) {
        let near = self.old.into_values().chain(self.recent.into_iter().flatten());
        (near.map(|held| held.entry.run()).collect(), self.far.into_backlog())
    }

    /// Every message from this seq on, as runs, from several sources that are each in order.
    pub(crate) fn sources(&self, from: Seq) -> impl Iterator<Item = Box<dyn Iterator<Item = Run> + '_>> {
        let start = usize::try_from(from.0.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.recent.len());
        let old = self.old.range(from..).map(|(_, held)| held.entry.run());
        let recent = self.recent.range(start..).flatten().map(|held| held.entry.run());
        [Box::new(old) as Box<dyn Iterator<Item = Run>>, Box::new(recent), Box::new(self.far.range(from))].into_iter()
    }

    /// What is known of a message.
    pub(crate) fn find(&self, seq: Seq) -> Option<Run> {
        self.get(seq).map(|held| held.entry.run()).or_else(|| self.far.get(seq))
    }

    /// The message's record is elsewhere now.
    pub(crate) fn relocate(&mut self, seq: Seq, lsn: Lsn) {
        match self.get_mut(seq) {
            Some(held) => held.entry.lsn = lsn,
            None => {
                self.far.move_to(seq, lsn);
            }
        }
    }

    fn position(&self, seq: Seq) -> Option<usize> {
        let at = usize::try_from(seq.0.checked_sub(self.first)?).ok()?;
        (at < self.recent.len()).then_some(at)
    }

    fn insert(&mut self, held: Held) {
        let seq = held.entry.seq;
        if self.recent.is_empty() && self.old.last_key_value().is_none_or(|(last, _)| *last < seq) {
            self.first = seq.0;
        }
        if seq.0 < self.first {
            self.old.insert(seq, held);
            return;
        }
        let gap = (seq.0 - self.first).saturating_sub(self.recent.len() as u64);
        if gap > SPARE as u64 {
            while self.retire_first() {}
            self.first = seq.0;
        }
        let at = usize::try_from(seq.0 - self.first).expect("a window's length");
        if at >= self.recent.len() {
            self.recent.resize_with(at + 1, || None);
        }
        self.recent[at] = Some(held);
        self.in_recent += 1;
    }

    fn remove(&mut self, seq: Seq) -> Option<Held> {
        let Some(at) = self.position(seq) else { return self.old.remove(&seq) };
        let held = self.recent[at].take()?;
        self.in_recent -= 1;
        while self.recent.front().is_some_and(Option::is_none) || self.recent.len() > SPARE + 4 * self.in_recent {
            self.retire_first();
        }
        Some(held)
    }

    /// Moves the window on by one; false if there is nothing left of it.
    fn retire_first(&mut self) -> bool {
        let Some(first) = self.recent.pop_front() else { return false };
        self.first += 1;
        if let Some(held) = first {
            self.in_recent -= 1;
            self.old.insert(held.entry.seq, held);
        }
        true
    }
}

/// How many empty positions the window may have beyond three for each message.
const SPARE: usize = 256;
/// The times of far deliveries are multiples of this.
const FAR_SINCE_MS: u64 = 500;
/// How many runs are taken at once.
const FAR_AT_ONCE: usize = 4096;

/// How many late deliveries of one holder are counted: looking must not take long.
const LATE_MAX: u64 = 10_000;
