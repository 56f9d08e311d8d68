//! Makes a shard of what its log holds: facts, and the messages that still have a place.

use super::log::{EVERY_PLACE, Log};
use super::{Shard, ShardSettings};
use crate::command::{Now, QueueSpec, ShardId};
use crate::fact::CorruptFact;
use crate::message::Message;
use crate::queue::Queue;
use crate::queue::ready::Entry;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use store::{Lsn, Place, QueueId, Record, Seq, SeqRange, Store};

/// A shard whose log is being read.
#[derive(Debug)]
pub struct Recovery {
    id: ShardId,
    settings: ShardSettings,
    now: Now,
    facts: BTreeMap<Bytes, (Bytes, Lsn)>,
    queues: FxHashMap<QueueId, Found>,
    /// References to records that mean nothing any more.
    dead: Vec<Lsn>,
    error: Option<RecoveryError>,
}

/// Keys and values of all facts in a log.
pub type Facts = Vec<(Bytes, Bytes)>;

/// What was found of one queue.
#[derive(Debug)]
struct Found {
    places: BTreeMap<Seq, Entry>,
    last: Seq,
}

/// A record that is whole and means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// A message cannot be read.
    Message {
        /// A queue that it is in.
        queue: QueueId,
        /// Its record.
        lsn: Lsn,
    },
    /// A place lies beyond any that a queue comes to.
    Place {
        /// The queue.
        queue: QueueId,
        /// The record that names it.
        lsn: Lsn,
    },
    /// A queue cannot be read.
    Fact(CorruptFact),
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { queue, lsn } => {
                write!(f, "a message of the queue with id {} cannot be read (its record is {lsn:?})", queue.0)
            }
            Self::Place { queue, lsn } => {
                write!(f, "the queue with id {} has no such place as a record says (it is {lsn:?})", queue.0)
            }
            Self::Fact(corrupt) => corrupt.fmt(f),
        }
    }
}

impl std::error::Error for RecoveryError {}

impl Recovery {
    pub(super) fn new(id: ShardId, settings: ShardSettings, now: Now) -> Self {
        Self { id, settings, now, facts: BTreeMap::new(), queues: FxHashMap::default(), dead: Vec::new(), error: None }
    }

    /// Takes the log's next record.
    pub fn replay(&mut self, lsn: Lsn, record: Record<'_>) {
        if let Some(queue) = out_of_place(&record) {
            self.error.get_or_insert(RecoveryError::Place { queue, lsn });
            return;
        }
        match record {
            Record::Message { places, moved_from, payload } => {
                self.message(lsn, places, payload);
                if let Some((queue, seq)) = moved_from {
                    self.settle(queue, SeqRange { first: seq, last: seq });
                }
            }
            Record::Settled { queue, ranges } => {
                for range in ranges {
                    self.settle(queue, *range);
                }
            }
            Record::Returned { queue, seq, .. } if (queue, seq) == EVERY_PLACE => {
                self.doubt();
            }
            Record::Returned { queue, seq, attempts } => {
                let place = self.queues.get_mut(&queue).and_then(|found| found.places.get_mut(&seq));
                if let Some(entry) = place {
                    entry.attempts = attempts;
                    entry.redelivered = true;
                }
            }
            Record::Fact { key, value } => {
                let fact = (Bytes::copy_from_slice(value), lsn);
                let replaced = self.facts.insert(Bytes::copy_from_slice(key), fact);
                self.dead.extend(replaced.map(|(_, lsn)| lsn));
            }
            Record::Forget { key } => {
                let forgotten = self.facts.remove(key);
                self.dead.extend(forgotten.map(|(_, lsn)| lsn));
            }
        }
    }

    /// Everything found so far may have been delivered.
    fn doubt(&mut self) {
        let entries = self.queues.values_mut().flat_map(|found| found.places.values_mut());
        entries.for_each(|entry| entry.redelivered = true);
    }

    fn message(&mut self, lsn: Lsn, places: &[Place], payload: &[u8]) {
        let message = match Message::parse(Bytes::copy_from_slice(payload)) {
            Ok(message) => message,
            Err(_) => {
                let queue = places.first().map_or(QueueId(0), |place| place.queue);
                self.error.get_or_insert(RecoveryError::Message { queue, lsn });
                return;
            }
        };
        for Place { queue, seq, expires_at_ms, priority } in places.iter().copied() {
            let message = message.clone();
            let entry = Entry { message, seq, lsn, expires_at_ms, attempts: 0, priority, redelivered: false };
            let found = self.found(queue);
            found.last = found.last.max(seq);
            // The same place again is a survivor that was appended again: its old record counts no more.
            let replaced = found.places.insert(seq, entry);
            self.dead.extend(replaced.map(|entry| entry.lsn));
        }
    }

    fn settle(&mut self, queue: QueueId, range: SeqRange) {
        if range.last < range.first {
            return;
        }
        let found = self.found(queue);
        found.last = found.last.max(range.last);
        let mut dead = Vec::new();
        while let Some((seq, entry)) = found.places.range(range.first..=range.last).next() {
            let seq = *seq;
            dead.push(entry.lsn);
            found.places.remove(&seq);
        }
        self.dead.append(&mut dead);
    }

    fn found(&mut self, queue: QueueId) -> &mut Found {
        self.queues.entry(queue).or_insert_with(|| Found { places: BTreeMap::new(), last: Seq(0) })
    }

    /// The shard as it was, and all facts of its log. After a stop that was not clean every message may have been
    /// delivered before.
    ///
    /// # Errors
    /// [`RecoveryError`]: the log holds records that this version cannot read. Nothing was written.
    pub fn finish<S: Store>(mut self, store: S, clean: bool) -> Result<(Shard<S>, Facts), RecoveryError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut log = Log::new(store);
        if !clean {
            self.doubt();
            // The next stop may be clean.
            log.append_doubt();
        }
        let mut facts = Vec::with_capacity(self.facts.len());
        let mut queues = Vec::new();
        for (key, (value, lsn)) in self.facts {
            if let Some(spec) = QueueSpec::from_fact(self.id, &key, &value).map_err(RecoveryError::Fact)? {
                let found = self.queues.remove(&spec.queue.id);
                queues.push(recovered(spec, found, self.now, &mut log));
            }
            log.recover_fact(key.clone(), value.clone(), lsn);
            facts.push((key, value));
        }
        let orphans = self.queues.into_values().flat_map(|found| found.places.into_values());
        for lsn in self.dead.into_iter().chain(orphans.map(|entry| entry.lsn)) {
            log.recover_dead(lsn);
        }
        let mut shard = Shard::new(self.id, self.settings, self.now, log);
        for queue in queues {
            shard.adopt(queue.spec.queue.id, queue);
        }
        Ok((shard, facts))
    }
}

/// The queue that the record gives a place which leaves none for later messages.
fn out_of_place(record: &Record<'_>) -> Option<QueueId> {
    match record {
        Record::Message { places, moved_from, .. } => {
            let placed = places.iter().map(|place| (place.queue, place.seq)).chain(*moved_from);
            placed.into_iter().find(|(_, seq)| *seq > LAST_PLACE).map(|(queue, _)| queue)
        }
        Record::Settled { queue, ranges } => ranges.iter().any(|range| range.last > LAST_PLACE).then_some(*queue),
        Record::Returned { .. } | Record::Fact { .. } | Record::Forget { .. } => None,
    }
}

fn recovered<S: Store>(spec: QueueSpec, found: Option<Found>, now: Now, log: &mut Log<S>) -> Queue {
    let mut queue = Queue::new(Arc::new(spec), now);
    let Some(found) = found else { return queue };
    for (_, entry) in found.places {
        log.recover_message(entry.message.bytes());
        queue.enter(entry);
    }
    queue.pass(found.last);
    queue
}

/// Half of all: more than a queue can count to, and as many are left for what comes after a start.
const LAST_PLACE: Seq = Seq(u64::MAX / 2);
