//! The messages of a queue that wait for a consumer, in the order in which they leave.
//!
//! Each priority has its own level, the highest goes first; a queue without priorities has one level. Within a level
//! the order is that of `seq`. New messages join at the tail; those that come back were taken from the head, so that
//! every one of them stands before what never left: they wait in a small tree that is asked first.

use crate::message::Message;
use std::collections::{BTreeMap, VecDeque};
use store::{Lsn, Seq};

/// A message in its place of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    pub(crate) seq: Seq,
    /// Its record in the log; [`Lsn::ZERO`] for a message that is only in memory.
    pub(crate) lsn: Lsn,
    /// Unix milliseconds; 0 = never.
    pub(crate) expires_at_ms: u64,
    /// Failed deliveries so far.
    pub(crate) attempts: u32,
    pub(crate) priority: u8,
    pub(crate) redelivered: bool,
}

impl Entry {
    /// Survives the server.
    pub(crate) fn is_logged(&self) -> bool {
        self.lsn != Lsn::ZERO
    }

    /// Expired before `unix_ms`. A message that expires this very millisecond may still be delivered, once: so one with
    /// a time to live of 0 finds a waiting consumer, and is gone when that gives it back.
    fn expired_before(&self, unix_ms: u64) -> bool {
        self.expires_at_ms != 0 && self.expires_at_ms < unix_ms.saturating_add(u64::from(self.redelivered))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// By priority; as many as were ever needed.
    levels: Vec<Level>,
    /// No level above this one has messages.
    top: usize,
    count: usize,
    body_bytes: u64,
    /// How many can expire.
    expiring: usize,
}

#[derive(Debug, Default)]
struct Level {
    returned: BTreeMap<Seq, Entry>,
    fresh: VecDeque<Entry>,
}

impl Ready {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Adds a message that is newer than all others.
    pub(crate) fn push(&mut self, entry: Entry) {
        let level = self.joined_by(&entry);
        debug_assert!(level.fresh.back().is_none_or(|last| last.seq < entry.seq), "seq strictly increases");
        level.fresh.push_back(entry);
    }

    /// Puts a message back that was taken.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        let level = self.joined_by(&entry);
        debug_assert!(level.fresh.front().is_none_or(|first| entry.seq < first.seq), "what was taken was first");
        level.returned.insert(entry.seq, entry);
    }

    fn joined_by(&mut self, entry: &Entry) -> &mut Level {
        let at = usize::from(entry.priority);
        if at >= self.levels.len() {
            self.levels.resize_with(at + 1, Level::default);
        }
        self.top = self.top.max(at);
        self.count += 1;
        self.body_bytes += entry.message.body_bytes();
        self.expiring += usize::from(entry.expires_at_ms != 0);
        &mut self.levels[at]
    }

    fn left_by(&mut self, entry: Entry) -> Entry {
        self.count -= 1;
        self.body_bytes -= entry.message.body_bytes();
        self.expiring -= usize::from(entry.expires_at_ms != 0);
        entry
    }

    /// The message that leaves next.
    pub(crate) fn first(&mut self) -> Option<&Entry> {
        self.find_top();
        self.levels.get(self.top)?.first()
    }

    /// Takes the message that leaves next.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.find_top();
        let entry = self.levels.get_mut(self.top)?.pop()?;
        Some(self.left_by(entry))
    }

    /// Takes a message that expired before this time and stands at the head of its level: others are shielded.
    pub(crate) fn pop_expired(&mut self, unix_ms: u64) -> Option<Entry> {
        if self.expiring == 0 {
            return None;
        }
        let expired = |level: &&mut Level| level.first().is_some_and(|entry| entry.expired_before(unix_ms));
        let entry = self.levels.iter_mut().rev().find(expired)?.pop()?;
        Some(self.left_by(entry))
    }

    /// When the first head of a level expires (unix ms).
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        if self.expiring == 0 {
            return None;
        }
        let heads = self.levels.iter().filter_map(Level::first);
        heads.map(|entry| entry.expires_at_ms).filter(|at| *at != 0).min()
    }

    /// Every message, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.levels.iter().flat_map(|level| level.returned.values().chain(&level.fresh))
    }

    /// Every message from this priority and seq on, by priority and seq.
    pub(crate) fn walk(&mut self, (level, seq): (usize, Seq)) -> impl Iterator<Item = &mut Entry> {
        let levels = self.levels.iter_mut().enumerate().skip(level);
        levels.flat_map(move |(at, entries)| entries.from(if at == level { seq } else { Seq(0) }))
    }

    fn find_top(&mut self) {
        while self.top > 0 && self.levels[self.top].is_empty() {
            self.top -= 1;
        }
    }
}

impl Level {
    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.returned.is_empty()
    }

    fn first(&self) -> Option<&Entry> {
        if self.returned.is_empty() {
            return self.fresh.front();
        }
        self.returned.values().next()
    }

    fn pop(&mut self) -> Option<Entry> {
        if let Some((_, entry)) = self.returned.pop_first() {
            return Some(entry);
        }
        let entry = self.fresh.pop_front();
        if self.fresh.is_empty() && self.fresh.capacity() > KEPT_CAPACITY {
            self.fresh = VecDeque::new();
        }
        entry
    }

    fn from(&mut self, seq: Seq) -> impl Iterator<Item = &mut Entry> {
        let start = self.fresh.partition_point(|entry| entry.seq < seq);
        self.returned.range_mut(seq..).map(|(_, entry)| entry).chain(self.fresh.range_mut(start..))
    }
}

/// An emptied level keeps room for this many messages.
const KEPT_CAPACITY: usize = 1024;
