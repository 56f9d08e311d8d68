//! Makes a shard of what its log holds: facts, and the messages that still have a place.

mod roll;

use super::log::{EVERY_PLACE, Log};
use super::{Shard, ShardSettings};
use crate::command::{Now, QueueSpec, ShardId};
use crate::fact::{CorruptFact, failure_place, hash_secret, is_paused, redrive_of};
use crate::message::Message;
use crate::queue::Queue;
use crate::queue::backlog::Backlog;
use crate::queue::deduplication::Keys;
use crate::queue::failure::Kept;
use crate::queue::run::Run;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use store::{Lsn, Place, QueueId, Record, Seq, SeqRange, Store};

pub use roll::{Missing, Roll};

/// A shard whose log is being read.
#[derive(Debug)]
pub struct Recovery {
    id: ShardId,
    settings: ShardSettings,
    now: Now,
    facts: BTreeMap<Bytes, Bytes>,
    queues: FxHashMap<QueueId, Found>,
    error: Option<RecoveryError>,
}

/// Keys and values of all facts in a log.
pub type Facts = Vec<(Bytes, Bytes)>;

/// What was found of one queue.
#[derive(Debug)]
struct Found {
    places: Backlog,
    last: Seq,
    /// All up to here may have been delivered.
    doubted: Seq,
    keys: Option<Box<Keys>>,
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
        Self { id, settings, now, facts: BTreeMap::new(), queues: FxHashMap::default(), error: None }
    }

    /// Takes the next record of the checkpoint or the log.
    pub fn replay(&mut self, lsn: Lsn, record: Record<'_>) {
        if let Some(queue) = out_of_place(&record) {
            self.error.get_or_insert(RecoveryError::Place { queue, lsn });
            return;
        }
        match record {
            Record::Message { places, moved_from, payload, .. } => {
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
            Record::Returned { queue, range, .. } if (queue, range.first) == EVERY_PLACE => self.doubt(),
            Record::Returned { queue, range, attempts, due_at_ms } => {
                let found = self.found(queue);
                let mut returned = Vec::new();
                found.places.take_range(range, &mut |run| returned.push(run));
                for run in returned {
                    found.places.insert(Run { attempts, redelivered: true, due_at_ms, ..run });
                }
            }
            Record::Released { queue, range, due_at_ms } => {
                let found = self.found(queue);
                let mut released = Vec::new();
                found.places.take_range(range, &mut |run| released.push(run));
                for run in released {
                    found.places.insert(Run { due_at_ms, ..run });
                }
            }
            Record::Keys { queue, source, most, keys: found_keys } => {
                let found = self.found(queue);
                let keys = found.keys.get_or_insert_default();
                let places = &found.places;
                for key in found_keys {
                    keys.recover((source, most), *key, places.len(), |seq| places.get(seq).is_some());
                }
            }
            Record::Fact { key, value } => {
                self.facts.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            }
            Record::Forget { key } => {
                self.facts.remove(key);
            }
            Record::Queue { queue, next } => {
                let found = self.found(queue);
                found.last = found.last.max(Seq(next.0.saturating_sub(1)));
            }
            Record::Waiting { queue, runs } => {
                if let Some(run) = runs.iter().find(|run| run.header_bytes > run.payload_bytes) {
                    self.error.get_or_insert(RecoveryError::Message { queue, lsn: run.lsn });
                    return;
                }
                let found = self.found(queue);
                for run in runs {
                    let run = Run::from(*run);
                    found.last = found.last.max(run.range().last);
                    // They come in order, nearly always.
                    if found.places.last_seq() >= Some(run.seq) {
                        found.places.take_range(run.range(), &mut |_| {});
                    }
                    found.places.insert(run);
                }
            }
        }
    }

    /// Everything found so far may have been delivered.
    fn doubt(&mut self) {
        self.queues.values_mut().for_each(|found| found.doubted = found.last);
    }

    fn message(&mut self, lsn: Lsn, places: &[Place], payload: &[u8]) {
        let measured = Message::measure(payload).ok().zip(u32::try_from(payload.len()).ok());
        let Some(((_, header_bytes), payload_bytes)) = measured else {
            let queue = places.first().map_or(QueueId(0), |place| place.queue);
            self.error.get_or_insert(RecoveryError::Message { queue, lsn });
            return;
        };
        for Place { queue, seq, expires_at_ms, priority, due_at_ms } in places.iter().copied() {
            let found = self.found(queue);
            if found.places.last_seq() >= Some(seq) {
                // The same place again is a survivor that was appended again, or is in the checkpoint, too.
                found.places.remove(seq);
            }
            found.last = found.last.max(seq);
            let run = store::Run {
                seq,
                count: 1,
                lsn,
                payload_bytes,
                header_bytes,
                expires_at_ms,
                priority,
                attempts: 0,
                redelivered: false,
                due_at_ms,
            };
            found.places.insert(run.into());
        }
    }

    fn settle(&mut self, queue: QueueId, range: SeqRange) {
        if range.last < range.first {
            return;
        }
        let found = self.found(queue);
        found.last = found.last.max(range.last);
        found.places.take_range(range, &mut |_| {});
    }

    fn found(&mut self, queue: QueueId) -> &mut Found {
        let nothing = || Found { places: Backlog::default(), last: Seq(0), doubted: Seq(0), keys: None };
        self.queues.entry(queue).or_insert_with(nothing)
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
        }
        let mut facts = Vec::with_capacity(self.facts.len());
        let mut queues = Vec::new();
        let mut secret = None;
        // Their keys come before those of the queues.
        let mut failures: FxHashMap<QueueId, Vec<(Seq, Bytes, Bytes)>> = FxHashMap::default();
        let mut failed = Vec::new();
        for (key, value) in self.facts {
            if let Some((queue, seq)) = failure_place(&key, &value).map_err(RecoveryError::Fact)? {
                failures.entry(queue).or_default().push((seq, key, value));
                continue;
            }
            if let Some(found) = hash_secret(&key, &value).map_err(RecoveryError::Fact)? {
                secret = Some((found, true));
                log.recover_fact(key, value);
                continue;
            }
            if let Some(spec) = QueueSpec::from_fact(self.id, &key, &value).map_err(RecoveryError::Fact)? {
                let id = spec.queue.id;
                let found = self.queues.remove(&id);
                // What is left of messages that are gone is not taken over, and so in no later checkpoint.
                for (seq, key, value) in failures.remove(&id).unwrap_or_default() {
                    if let Some(run) = found.as_ref().and_then(|found| found.places.get(seq)) {
                        log.recover_fact(key, value.clone());
                        failed.push((id, seq, Kept { value, priority: run.priority, is_logged: true }));
                    }
                }
                let mut queue = recovered(spec, found, self.now, &mut log);
                queue.is_paused = is_paused(&value);
                queue.redrive = redrive_of(&value).map(Arc::new);
                queues.push(queue);
            }
            log.recover_fact(key.clone(), value.clone());
            facts.push((key, value));
        }
        if !clean {
            // The next stop may be clean.
            log.append_doubt();
        }
        let mut shard = Shard::new(self.id, self.settings, self.now, log);
        shard.hash_secret = secret.unwrap_or(shard.hash_secret);
        for queue in queues {
            shard.adopt(queue.spec.queue.id, queue);
        }
        for (id, seq, kept) in failed {
            let slot = shard.queue_slots[&id];
            shard.keep_failure(slot, seq, kept);
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
        Record::Returned { queue, range, .. } | Record::Released { queue, range, .. } => {
            (range.last > LAST_PLACE).then_some(*queue)
        }
        Record::Queue { queue, next } => (*next > LAST_PLACE).then_some(*queue),
        Record::Waiting { queue, runs } => {
            let is_out = |run: &store::Run| run.seq.0.saturating_add(u64::from(run.count)) > LAST_PLACE.0;
            runs.iter().any(is_out).then_some(*queue)
        }
        Record::Fact { .. } | Record::Forget { .. } | Record::Keys { .. } => None,
    }
}

fn recovered<S: Store>(spec: QueueSpec, found: Option<Found>, now: Now, log: &mut Log<S>) -> Queue {
    let mut queue = Queue::new(Arc::new(spec), now);
    let Some(Found { mut places, last, doubted, keys }) = found else { return queue };
    if keys.is_some() {
        queue.keys = keys;
    }
    let priority = places.first().map_or(0, |first| first.priority);
    if let Some(stream) = &mut queue.stream {
        stream.recover(&places, last);
    }
    // Whoever reads a stream knows how far it came.
    let is_certain = doubted == Seq(0) || queue.stream.is_some();
    if is_certain && places.range(Seq(0)).all(|run| run.priority == priority && run.due_at_ms == 0) {
        places.range(Seq(0)).for_each(|run| log.retain(&run));
        queue.adopt(places, priority);
        queue.pass(last);
        return queue;
    }
    let mut enter = |run: Run, redelivered: bool| {
        log.retain(&run);
        queue.enter(Run { redelivered: run.redelivered || redelivered, ..run });
    };
    places.take_range(SeqRange { first: Seq(0), last: doubted }, &mut |run| enter(run, true));
    places.take_range(SeqRange { first: Seq(0), last: LAST_PLACE }, &mut |run| enter(run, false));
    queue.pass(last);
    queue
}

/// Half of all: more than a queue can count to, and as many are left for what comes after a start.
const LAST_PLACE: Seq = Seq(u64::MAX / 2);
