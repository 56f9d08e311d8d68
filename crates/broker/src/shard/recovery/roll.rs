//! The messages that live by a log, to be ticked off against its records: what `leveret store verify` does.

use super::{Facts, Found, LAST_PLACE, Recovery, RecoveryError};
use crate::command::QueueSpec;
use crate::fact::{failure_place, hash_secret};
use crate::message::Message;
use rustc_hash::FxHashMap;
use store::{Lsn, Place, QueueId, Seq, SeqRange};

/// See the module.
#[derive(Debug)]
pub struct Roll {
    /// The queues that there are.
    queues: FxHashMap<QueueId, (QueueSpec, Option<Found>)>,
    /// How many messages live.
    pub messages: u64,
    /// Keys and values of all facts.
    pub facts: Facts,
}

/// Messages that live, and that were not ticked off.
#[derive(Clone, Copy, Debug)]
pub struct Missing<'a> {
    /// Their queue.
    pub queue: &'a QueueSpec,
    /// Their positions in it.
    pub seqs: SeqRange,
    /// Where the record of the first should be; the others' follow it.
    pub lsn: Lsn,
}

impl Recovery {
    /// What lives by all that was replayed.
    ///
    /// # Errors
    /// [`RecoveryError`]: the log holds records that this version cannot read.
    pub fn roll(mut self) -> Result<Roll, RecoveryError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut roll = Roll { queues: FxHashMap::default(), messages: 0, facts: Facts::new() };
        for (key, value) in self.facts {
            // A log's own, and nothing that a catalog knows.
            if hash_secret(&key, &value).map_err(RecoveryError::Fact)?.is_some()
                || failure_place(&key, &value).map_err(RecoveryError::Fact)?.is_some()
            {
                continue;
            }
            if let Some(spec) = QueueSpec::from_fact(self.id, &key, &value).map_err(RecoveryError::Fact)? {
                let found = self.queues.remove(&spec.queue.id);
                roll.messages += found.as_ref().map_or(0, Found::messages);
                roll.queues.insert(spec.queue.id, (spec, found));
            }
            roll.facts.push((key, value));
        }
        Ok(roll)
    }
}

impl Found {
    fn messages(&self) -> u64 {
        self.places.range(Seq(0)).map(|run| u64::from(run.count)).sum()
    }
}

impl Roll {
    /// How many queues there are.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The queue of this id.
    #[must_use]
    pub fn queue(&self, id: QueueId) -> Option<&QueueSpec> {
        self.queues.get(&id).map(|(spec, _)| spec)
    }

    /// Ticks off what lives of a message's record: returns in how many of its places it does. One whose payload is not
    /// as the index has it stays.
    pub fn tick(&mut self, lsn: Lsn, places: &[Place], payload: &[u8]) -> u64 {
        let mut lives = 0;
        for place in places {
            let Some((_, Some(found))) = self.queues.get_mut(&place.queue) else { continue };
            let Some(run) = found.places.get(place.seq).filter(|run| run.lsn == lsn) else { continue };
            let header_bytes = Message::measure(payload).map(|(_, header_bytes)| header_bytes);
            if run.payload_bytes as usize == payload.len() && header_bytes == Ok(run.header_bytes) {
                found.places.remove(place.seq);
                lives += 1;
            }
        }
        lives
    }

    /// Says what is left.
    pub fn missing(mut self, each: &mut dyn FnMut(Missing<'_>)) {
        for (queue, found) in self.queues.values_mut() {
            let Some(found) = found else { continue };
            let all = SeqRange { first: Seq(0), last: LAST_PLACE };
            found.places.take_range(all, &mut |run| each(Missing { queue, seqs: run.range(), lsn: run.lsn }));
        }
    }
}
