//! The shard's side of its log: what is appended, what of it still counts, and who waits for it to be durable.

use crate::command::{CallId, CatalogTicket, ConnectionId, Outcome, ShardId};
use crate::queue::ready::Entry;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use store::{Link, Lsn, Place, QueueId, Record, Seq, SeqRange, Store, StoreEvent, Urgency};

/// See the module.
#[derive(Debug)]
pub(crate) struct Log<S> {
    store: S,
    link: Link,
    last: Lsn,
    durable: Lsn,
    /// Appended and not flushed.
    is_dirty: bool,
    /// Somebody came to wait since the last flush.
    is_awaited: bool,
    waiters: VecDeque<(Lsn, Waiter)>,
    facts: FxHashMap<Bytes, Fact>,
    /// Bytes of the records that still count; a message's once for each of its places.
    live_bytes: u64,
    events: Vec<StoreEvent>,
}

/// A fact that holds, and its record.
#[derive(Debug)]
struct Fact {
    value: Bytes,
    lsn: Lsn,
}

/// Who waits for records to be durable.
#[derive(Debug)]
pub(crate) enum Waiter {
    Mark { connection: ConnectionId, mark: u64, refused: Vec<u32> },
    Ticket(CatalogTicket),
    Deleted { ticket: CatalogTicket, outcome: Outcome },
    Declared { connection: ConnectionId, call: CallId, outcome: Outcome },
    Transfer { from: ShardId, transfer: u64 },
    Closed,
}

impl<S: Store> Log<S> {
    pub(crate) fn new(store: S) -> Self {
        Self {
            store,
            link: Link::Alone,
            last: Lsn::ZERO,
            durable: Lsn::ZERO,
            is_dirty: false,
            is_awaited: false,
            waiters: VecDeque::new(),
            facts: FxHashMap::default(),
            live_bytes: 0,
            events: Vec::new(),
        }
    }

    fn append(&mut self, record: Record<'_>) -> Lsn {
        self.last = self.store.append(record, self.link);
        self.is_dirty = true;
        self.last
    }

    /// From here to [`Self::end_chain_after`] all records take effect together.
    pub(crate) fn begin_chain(&mut self) {
        self.link = Link::WithNext;
    }

    /// Ends the chain with a record that says nothing, unless nothing was appended since `before`; tells its last one.
    pub(crate) fn end_chain_after(&mut self, before: Lsn) -> Lsn {
        self.link = Link::Alone;
        if self.last == before { before } else { self.append_nothing() }
    }

    /// The last record.
    pub(crate) fn last(&self) -> Lsn {
        self.last
    }

    fn append_nothing(&mut self) -> Lsn {
        self.append(Record::Settled { queue: QueueId(0), ranges: &[] })
    }

    pub(crate) fn append_message(
        &mut self,
        places: &[Place],
        moved_from: Option<(QueueId, Seq)>,
        message: &Bytes,
    ) -> Lsn {
        self.live_bytes += places.len() as u64 * message_cost(message);
        self.append(Record::Message { places, moved_from, payload: message })
    }

    /// One place of a message's record is empty; that was, or will be, said in the log.
    pub(crate) fn release_message(&mut self, at: Lsn, message: &Bytes) {
        self.live_bytes -= message_cost(message);
        self.store.release(at);
    }

    /// Appends the record of one place again, with what later records said about it, and releases the old one.
    pub(crate) fn append_again(&mut self, queue: QueueId, entry: &mut Entry) {
        let Entry { seq, expires_at_ms, priority, .. } = *entry;
        let message = entry.message.bytes();
        let places = [Place { queue, seq, expires_at_ms, priority }];
        if entry.redelivered {
            self.link = Link::WithNext;
        }
        let lsn = self.append_message(&places, None, message);
        self.link = Link::Alone;
        if entry.redelivered {
            self.append_returned(queue, seq, entry.attempts);
        }
        self.release_message(entry.lsn, message);
        entry.lsn = lsn;
    }

    pub(crate) fn append_settled(&mut self, queue: QueueId, ranges: &[SeqRange]) {
        self.append(Record::Settled { queue, ranges });
    }

    pub(crate) fn append_returned(&mut self, queue: QueueId, seq: Seq, attempts: u32) {
        self.append(Record::Returned { queue, seq, attempts });
    }

    /// Every message whose record comes before may have been delivered.
    pub(crate) fn append_doubt(&mut self) {
        let (queue, seq) = EVERY_PLACE;
        self.append_returned(queue, seq, 0);
    }

    pub(crate) fn put_fact(&mut self, key: Bytes, value: Bytes) -> Lsn {
        let lsn = self.append(Record::Fact { key: &key, value: &value });
        self.live_bytes += fact_cost(&key, &value);
        let replaced = self.facts.insert(key.clone(), Fact { value, lsn });
        self.release_fact(&key, replaced);
        lsn
    }

    /// Where nothing is to be forgotten, what comes back is the last record.
    pub(crate) fn forget_fact(&mut self, key: &Bytes) -> Lsn {
        let Some(fact) = self.facts.remove(key) else { return self.last };
        let lsn = self.append(Record::Forget { key });
        self.release_fact(key, Some(fact));
        lsn
    }

    fn release_fact(&mut self, key: &Bytes, fact: Option<Fact>) {
        if let Some(Fact { value, lsn }) = fact {
            self.live_bytes -= fact_cost(key, &value);
            self.store.release(lsn);
        }
    }

    /// Takes over what a restart found: a fact, …
    pub(crate) fn recover_fact(&mut self, key: Bytes, value: Bytes, lsn: Lsn) {
        self.live_bytes += fact_cost(&key, &value);
        self.facts.insert(key, Fact { value, lsn });
    }

    /// … a message's place, …
    pub(crate) fn recover_message(&mut self, message: &Bytes) {
        self.live_bytes += message_cost(message);
    }

    /// … and a reference to a record that counts no more.
    pub(crate) fn recover_dead(&mut self, lsn: Lsn) {
        self.store.release(lsn);
    }

    /// Facts whose records lie before this position are appended again, until so many bytes were appended; what is left
    /// of the budget comes back.
    pub(crate) fn evacuate_facts(&mut self, bound: Lsn, mut budget: usize) -> usize {
        let old = self.facts.iter().filter(|(_, fact)| fact.lsn < bound);
        let mut moving = Vec::new();
        for (key, fact) in old {
            if budget == 0 {
                break;
            }
            budget = budget.saturating_sub(key.len() + fact.value.len());
            moving.push((key.clone(), fact.value.clone()));
        }
        for (key, value) in moving {
            self.put_fact(key, value);
        }
        budget
    }

    /// Where the log wants to be evacuated up to.
    pub(crate) fn evacuation_bound(&self) -> Option<Lsn> {
        self.store.evacuate(self.live_bytes)
    }

    /// Whether everything up to there survives a power cut.
    pub(crate) fn is_durable(&self, lsn: Lsn) -> bool {
        lsn <= self.durable
    }

    /// Keeps the waiter until that is so.
    pub(crate) fn wait(&mut self, lsn: Lsn, waiter: Waiter) {
        self.is_awaited = true;
        let last = self.waiters.back().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
        self.waiters.push_back((lsn.max(last), waiter));
    }

    /// The next waiter that has waited long enough.
    pub(crate) fn next_served(&mut self) -> Option<Waiter> {
        let durable = self.durable;
        self.waiters.pop_front_if(|(lsn, _)| *lsn <= durable).map(|(_, waiter)| waiter)
    }

    /// Hands what was appended to the writer: at once if somebody waits for it.
    pub(crate) fn flush(&mut self) {
        if self.is_awaited {
            self.store.flush(Urgency::Sync);
        } else if self.is_dirty {
            self.store.flush(Urgency::Lazy);
        }
        self.is_awaited = false;
        self.is_dirty = false;
    }

    /// Learns what became durable; comes back with the store's sentence if it failed.
    pub(crate) fn poll(&mut self) -> Result<(), String> {
        self.store.poll(&mut self.events);
        for event in self.events.drain(..) {
            match event {
                StoreEvent::Durable(lsn) => self.durable = self.durable.max(lsn),
                StoreEvent::Failed(sentence) => return Err(sentence),
            }
        }
        Ok(())
    }

    /// Notes in the log that the stop was clean, and waits for that.
    pub(crate) fn close(&mut self) {
        // The store's own last record has no position to wait for: one in the same batch does as well.
        let lsn = self.append_nothing();
        self.wait(lsn, Waiter::Closed);
        self.store.close();
    }

    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.store.unwritten_bytes()
    }

    #[cfg(test)]
    pub(crate) fn into_store(self) -> S {
        self.store
    }

    #[cfg(test)]
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    #[cfg(test)]
    pub(crate) fn log_bytes(&self) -> u64 {
        self.store.log_bytes()
    }
}

/// About what a message's record takes on disk.
fn message_cost(message: &Bytes) -> u64 {
    message.len() as u64 + RECORD_BYTES
}

fn fact_cost(key: &Bytes, value: &Bytes) -> u64 {
    (key.len() + value.len()) as u64 + RECORD_BYTES
}

const RECORD_BYTES: u64 = 40;
/// No queue has this id: what is said of it is meant for all messages before.
pub(crate) const EVERY_PLACE: (QueueId, Seq) = (QueueId(0), Seq(0));
