//! The shard's side of its log: what is appended, what of it still counts, and who waits for it to be durable.

use crate::command::{CallId, CatalogTicket, ConnectionId, Outcome, ShardId};
use crate::operation::Answer;
use crate::queue::deduplication::Fresh;
use crate::queue::ready::Entry;
use crate::queue::run::Run;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use store::{Link, Lsn, LsnRange, Place, QueueId, Record, Seq, SeqRange, Store, StoreEvent, Urgency};

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
    facts: FxHashMap<Bytes, Bytes>,
    events: Vec<StoreEvent>,
    /// What [`Self::release`] was told since the last flush.
    released: Vec<(LsnRange, u32)>,
}

/// Who waits for records to be durable.
#[derive(Debug)]
pub(crate) enum Waiter {
    Mark { connection: ConnectionId, mark: u64, refused: Vec<u32> },
    Ticket(CatalogTicket),
    Deleted { ticket: CatalogTicket, outcome: Outcome },
    Declared { connection: ConnectionId, call: CallId, outcome: Outcome },
    Transfer { from: ShardId, transfer: u64 },
    Letter { transfer: u64 },
    Operation { ticket: u64, answer: Box<Answer> },
    Stream(QueueId),
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
            events: Vec::new(),
            released: Vec::new(),
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

    /// A message, at all its places. One that is not kept is in the log only to be out of memory.
    pub(crate) fn append_message(
        &mut self,
        places: &[Place],
        moved_from: Option<(QueueId, Seq)>,
        is_kept: bool,
        payload: &[u8],
    ) -> Lsn {
        self.append(Record::Message { places, moved_from, kept: is_kept, payload })
    }

    /// A message that has to be out of memory gets a record if it has none; a restart does not bring it back.
    pub(crate) fn spill(&mut self, queue: QueueId, entry: &mut Entry) {
        if !entry.is_logged()
            && let Some(message) = entry.message()
        {
            let Entry { seq, expires_at_ms, priority, due_at_ms, .. } = *entry;
            let place = Place { queue, seq, expires_at_ms, priority, due_at_ms };
            entry.lsn = self.append_message(&[place], None, false, message.bytes());
        }
    }

    /// One place of each of these messages' records is empty; that was, or will be before the next flush, said in the
    /// log.
    pub(crate) fn release(&mut self, run: &Run) {
        if let Some((last, payload_bytes)) = self.released.last_mut()
            && *payload_bytes == run.payload_bytes
            && last.first.plus(u64::from(last.count)) == run.lsn
            && let Some(count) = last.count.checked_add(run.count)
        {
            last.count = count;
            return;
        }
        self.released.push((LsnRange { first: run.lsn, count: run.count }, run.payload_bytes));
    }

    /// A message that lives was found by a restart.
    pub(crate) fn retain(&mut self, run: &Run) {
        self.store.retain(LsnRange { first: run.lsn, count: run.count }, run.payload_bytes);
    }

    /// Appends the record of one place again, with what later records said about it, and releases the old one.
    pub(crate) fn append_again(&mut self, queue: QueueId, run: &Run, payload: &[u8]) -> Lsn {
        let Run { seq, expires_at_ms, priority, attempts, due_at_ms, .. } = *run;
        let place = Place { queue, seq, expires_at_ms, priority, due_at_ms };
        let was_returned = run.kept && (run.redelivered || attempts > 0);
        self.link = if was_returned { Link::WithNext } else { Link::Alone };
        let lsn = self.append_message(&[place], None, run.kept, payload);
        self.link = Link::Alone;
        if was_returned {
            self.append_returned(queue, SeqRange { first: seq, last: seq }, attempts, due_at_ms);
        }
        self.release(run);
        lsn
    }

    /// A key, of the message whose record is appended next: both take effect, or neither.
    pub(crate) fn append_key(&mut self, fresh: Fresh) {
        let Fresh { queue, source, most, key } = fresh;
        self.last = self.store.append(Record::Keys { queue, source, most, keys: &[key] }, Link::WithNext);
        self.is_dirty = true;
    }

    pub(crate) fn append_settled(&mut self, queue: QueueId, ranges: &[SeqRange]) {
        self.append(Record::Settled { queue, ranges });
    }

    pub(crate) fn append_returned(&mut self, queue: QueueId, range: SeqRange, attempts: u32, due_at_ms: u64) {
        self.append(Record::Returned { queue, range, attempts, due_at_ms });
    }

    /// Messages are due at another time from now on.
    pub(crate) fn append_released(&mut self, queue: QueueId, range: SeqRange, due_at_ms: u64) {
        self.append(Record::Released { queue, range, due_at_ms });
    }

    /// Every message whose record comes before may have been delivered.
    pub(crate) fn append_doubt(&mut self) {
        let (queue, seq) = EVERY_PLACE;
        self.append_returned(queue, SeqRange { first: seq, last: seq }, 0, 0);
    }

    pub(crate) fn put_fact(&mut self, key: Bytes, value: Bytes) -> Lsn {
        let lsn = self.append(Record::Fact { key: &key, value: &value });
        self.facts.insert(key, value);
        lsn
    }

    /// Where nothing is to be forgotten, what comes back is the last record.
    pub(crate) fn forget_fact(&mut self, key: &Bytes) -> Lsn {
        if self.facts.remove(key).is_none() {
            return self.last;
        }
        self.append(Record::Forget { key })
    }

    /// A fact that holds was found by a restart.
    pub(crate) fn recover_fact(&mut self, key: Bytes, value: Bytes) {
        self.facts.insert(key, value);
    }

    /// The fact of this key, if it holds.
    pub(crate) fn fact(&self, key: &Bytes) -> Option<&Bytes> {
        self.facts.get(key)
    }

    /// All facts that hold.
    pub(crate) fn facts(&self) -> Vec<(Bytes, Bytes)> {
        self.facts.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Asks for the bytes of messages; the answer comes from [`Self::poll`].
    pub(crate) fn read(&mut self, ticket: u64, wanted: &[LsnRange]) {
        self.store.read(ticket, wanted);
    }

    pub(crate) fn store_ref(&self) -> &S {
        &self.store
    }

    /// The store: for checkpoints and for emptying old segments.
    pub(crate) fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// Whether a segment is worth emptying.
    pub(crate) fn wants_reclaim(&self) -> bool {
        self.store.wants_reclaim()
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
        // Not before what emptied the places is in the log: who removes a record must know what to wait for.
        for (messages, payload_bytes) in self.released.drain(..) {
            self.store.release(messages, payload_bytes);
        }
        if self.is_awaited {
            self.store.flush(Urgency::Sync);
        } else if self.is_dirty {
            self.store.flush(Urgency::Lazy);
        }
        self.is_awaited = false;
        self.is_dirty = false;
    }

    /// Learns what the store has to say: what became durable is noted, the rest comes back.
    pub(crate) fn poll(&mut self) -> Vec<StoreEvent> {
        self.store.poll(&mut self.events);
        let durable = &mut self.durable;
        self.events.retain(|event| match event {
            StoreEvent::Durable(lsn) => {
                *durable = (*durable).max(*lsn);
                false
            }
            _ => true,
        });
        if self.events.is_empty() { Vec::new() } else { std::mem::take(&mut self.events) }
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
    pub(crate) fn log_bytes(&self) -> u64 {
        self.store.log_bytes()
    }
}

/// No queue has this id: what is said of it is meant for all messages before.
pub(crate) const EVERY_PLACE: (QueueId, Seq) = (QueueId(0), Seq(0));
