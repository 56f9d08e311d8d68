//! The reference store: the shortest thing that keeps every promise of [`Store`] except to outlive the process.
//!
//! What was flushed is durable at the next poll. A "segment" is a single record, so records go, oldest first, as soon
//! as nothing refers to them.

use std::collections::VecDeque;

use crate::record::{self, Entry, HEAD_BYTES, Head, Lists};
use crate::{Link, Lsn, Record, Store, StoreEvent, Urgency};

/// A log in memory.
#[derive(Debug)]
pub struct MemoryStore {
    kept: VecDeque<Kept>,
    next: Lsn,
    flushed: Lsn,
    durable: Lsn,
    bytes: u64,
    chain_is_open: bool,
    flush_is_due: bool,
    closed: bool,
}

#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    references: u64,
    /// The last record before the latest release: it has to be durable before this one may go.
    released_at: Lsn,
}

impl MemoryStore {
    /// An empty log.
    #[must_use]
    pub fn new() -> MemoryStore {
        MemoryStore {
            kept: VecDeque::new(),
            next: Lsn(1),
            flushed: Lsn::ZERO,
            durable: Lsn::ZERO,
            bytes: 0,
            chain_is_open: false,
            flush_is_due: false,
            closed: false,
        }
    }

    /// What a restart would find: gives `replay` every durable record, in order.
    pub fn replay(&self, replay: &mut dyn FnMut(Lsn, Record<'_>)) {
        let mut lists = Lists::default();
        let mut lsn = self.oldest();
        for kept in &self.kept {
            if lsn > self.durable {
                break;
            }
            let (head, body) = kept.bytes.split_first_chunk::<HEAD_BYTES>().expect("encoded with its head");
            if let Ok(Entry::Record(record, _)) = Head::parse(head).decode(body, &mut lists) {
                replay(lsn, record);
            }
            lsn = lsn.next();
        }
    }

    /// The same log after a restart: what was not durable is gone, and every reference counts again.
    #[must_use]
    pub fn restart(mut self) -> MemoryStore {
        let kept = (self.durable.0 + 1).saturating_sub(self.oldest().0) as usize;
        self.kept.truncate(kept);
        let mut references = Vec::with_capacity(kept);
        self.replay(&mut |_, record| references.push(record.references()));
        for (kept, references) in self.kept.iter_mut().zip(references) {
            kept.references = references;
        }
        self.bytes = self.kept.iter().map(|kept| kept.bytes.len() as u64).sum();
        self.next = self.durable.next();
        self.flushed = self.durable;
        self.chain_is_open = false;
        self.flush_is_due = false;
        self.closed = false;
        self
    }

    /// Whether [`Store::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn oldest(&self) -> Lsn {
        Lsn(self.next.0 - self.kept.len() as u64)
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl Store for MemoryStore {
    fn append(&mut self, record: Record<'_>, link: Link) -> Lsn {
        let mut bytes = Vec::new();
        record::encode(&mut bytes, 0, &record, link);
        self.bytes += bytes.len() as u64;
        self.kept.push_back(Kept { bytes, references: record.references(), released_at: Lsn::ZERO });
        let lsn = self.next;
        self.next = lsn.next();
        self.chain_is_open = link == Link::WithNext;
        if self.flush_is_due && !self.chain_is_open {
            self.flush(Urgency::Sync);
        }
        lsn
    }

    fn flush(&mut self, _: Urgency) {
        self.flush_is_due = self.chain_is_open;
        if !self.chain_is_open {
            self.flushed = self.next.previous();
        }
    }

    fn release(&mut self, at: Lsn) {
        let last = self.next.previous();
        let index = at.0.checked_sub(self.oldest().0).expect("a released record is still kept");
        let kept = &mut self.kept[index as usize];
        kept.references = kept.references.checked_sub(1).expect("a record is released once for each reference");
        kept.released_at = last;
    }

    fn poll(&mut self, events: &mut Vec<StoreEvent>) {
        if self.durable < self.flushed {
            self.durable = self.flushed;
            events.push(StoreEvent::Durable(self.durable));
        }
        while let Some(oldest) = self.kept.front() {
            if oldest.references > 0 || self.durable < oldest.released_at.max(self.oldest()) {
                break;
            }
            self.bytes -= oldest.bytes.len() as u64;
            self.kept.pop_front();
        }
    }

    fn unwritten_bytes(&self) -> usize {
        self.kept.iter().rev().take((self.next.0 - 1 - self.durable.0) as usize).map(|kept| kept.bytes.len()).sum()
    }

    fn log_bytes(&self) -> u64 {
        self.bytes
    }

    fn evacuate(&self, live_bytes: u64) -> Option<Lsn> {
        let is_bloated = self.bytes > live_bytes.saturating_mul(2).saturating_add(2 * SLACK_BYTES);
        let oldest = self.kept.front()?;
        (is_bloated && oldest.references > 0).then(|| self.oldest().next())
    }

    fn close(&mut self) {
        self.flush(Urgency::Sync);
        self.closed = true;
    }
}

/// What stands for a segment's size in the rule of [`Store::evacuate`]: small, so that short tests reach it.
const SLACK_BYTES: u64 = 4096;
