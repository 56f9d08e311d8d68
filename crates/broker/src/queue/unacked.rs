//! The messages of a queue that were delivered and are not settled, found by their `seq` and by who holds them.
//!
//! Deliveries come nearly in order and are settled nearly in order, so a window over the recent ones (`recent`, where
//! a message is found by subtraction) holds almost all. What stays behind when the window thins out, or comes in
//! beneath it, moves to a tree. The messages of one holder form a list in the order of their delivery.

use super::ready::Entry;
use crate::queue::Holder;
use crate::shard::slots::Slot;
use std::collections::{BTreeMap, VecDeque};
use store::Seq;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unacked {
    old: BTreeMap<Seq, Held>,
    recent: VecDeque<Option<Held>>,
    /// The seq of `recent`'s first position; all in `old` are below it.
    first: u64,
    in_recent: usize,
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

/// What one holder holds: ends of the list, and its length.
#[derive(Debug, Default)]
pub(crate) struct HeldList {
    first: Option<Seq>,
    last: Option<Seq>,
    len: u32,
}

impl HeldList {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// What was delivered longest ago.
    pub(crate) fn first(&self) -> Option<Seq> {
        self.first
    }
}

impl Unacked {
    pub(crate) fn len(&self) -> usize {
        self.old.len() + self.in_recent
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Held> {
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
        let held = self.remove(seq)?;
        match held.previous {
            Some(previous) => self.get_mut(previous).expect("a list holds what is held").next = held.next,
            None => list.first = held.next,
        }
        match held.next {
            Some(next) => self.get_mut(next).expect("a list holds what is held").previous = held.previous,
            None => list.last = held.previous,
        }
        list.len -= 1;
        Some(held)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.old.values().chain(self.recent.iter().flatten())
    }

    /// Every message from this seq on, by seq.
    pub(crate) fn walk(&mut self, seq: Seq) -> impl Iterator<Item = &mut Entry> {
        let start = usize::try_from(seq.0.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.recent.len());
        let old = self.old.range_mut(seq..).map(|(_, held)| held);
        old.chain(self.recent.range_mut(start..).flatten()).map(|held| &mut held.entry)
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
