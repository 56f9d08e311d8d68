//! The smallest owner that a store can have: applies records to maps, releases what is dead, moves survivors.

use std::collections::BTreeMap;

use store::{Link, Lsn, Place, QueueId, Seq, Store};

use crate::kept::Kept;

/// What the records so far add up to. Two ledgers are equal if a client could not tell them apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    waiting: BTreeMap<(QueueId, Seq), Waiting>,
    facts: BTreeMap<Vec<u8>, (Lsn, Vec<u8>)>,
}

#[derive(Clone, Debug)]
struct Waiting {
    lsn: Lsn,
    place: Place,
    payload: Vec<u8>,
    attempts: u32,
}

impl Ledger {
    /// Takes a record in and gives every reference that it makes obsolete to `release`.
    pub(crate) fn apply(&mut self, lsn: Lsn, kept: &Kept, release: &mut dyn FnMut(Lsn)) {
        match kept {
            Kept::Message { places, moved_from, payload } => {
                if let Some(from) = moved_from {
                    self.settle(*from, release);
                }
                for &place in places {
                    let waiting = Waiting { lsn, place, payload: payload.clone(), attempts: 0 };
                    if let Some(old) = self.waiting.insert((place.queue, place.seq), waiting) {
                        release(old.lsn);
                    }
                }
            }
            Kept::Settled { queue, ranges } => {
                for range in ranges {
                    let gone: Vec<_> =
                        self.waiting.range((*queue, range.first)..=(*queue, range.last)).map(|(&at, _)| at).collect();
                    gone.into_iter().for_each(|at| self.settle(at, release));
                }
            }
            Kept::Returned { queue, seq, attempts } => {
                if let Some(waiting) = self.waiting.get_mut(&(*queue, *seq)) {
                    waiting.attempts = *attempts;
                }
            }
            Kept::Fact { key, value } => {
                if let Some((old, _)) = self.facts.insert(key.clone(), (lsn, value.clone())) {
                    release(old);
                }
            }
            Kept::Forget { key } => {
                if let Some((old, _)) = self.facts.remove(key) {
                    release(old);
                }
            }
        }
    }

    fn settle(&mut self, at: (QueueId, Seq), release: &mut dyn FnMut(Lsn)) {
        if let Some(waiting) = self.waiting.remove(&at) {
            release(waiting.lsn);
        }
    }

    /// The records, chained, that say again what still lives before `end`.
    pub(crate) fn survivors(&self, end: Lsn) -> Vec<(Kept, Link)> {
        let mut records = Vec::new();
        for ((queue, seq), waiting) in self.waiting.iter().filter(|(_, waiting)| waiting.lsn < end) {
            let link = if waiting.attempts > 0 { Link::WithNext } else { Link::Alone };
            let (places, payload) = (vec![waiting.place], waiting.payload.clone());
            records.push((Kept::Message { places, moved_from: None, payload }, link));
            if waiting.attempts > 0 {
                let attempts = waiting.attempts;
                records.push((Kept::Returned { queue: *queue, seq: *seq, attempts }, Link::Alone));
            }
        }
        for (key, (_, value)) in self.facts.iter().filter(|(_, (lsn, _))| *lsn < end) {
            records.push((Kept::Fact { key: key.clone(), value: value.clone() }, Link::Alone));
        }
        records
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        let messages: usize = self.waiting.values().map(|waiting| waiting.payload.len() + 20).sum();
        (messages + self.facts.len() * 30) as u64
    }

    /// The place of the message that is `n`th, counted round and round.
    pub(crate) fn nth(&self, n: usize) -> Option<(QueueId, Seq)> {
        self.waiting.keys().nth(n.checked_rem(self.waiting.len())?).copied()
    }

    /// Everything a client could see.
    pub(crate) fn visible(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let waiting: Vec<_> =
            self.waiting.iter().map(|(at, waiting)| (*at, waiting.payload.clone(), waiting.attempts)).collect();
        let facts: Vec<_> = self.facts.iter().map(|(key, (_, value))| (key.clone(), value.clone())).collect();
        (waiting, facts)
    }
}

/// Appends to the store and to the ledger, and releases.
pub(crate) fn record<S: Store>(store: &mut S, ledger: &mut Ledger, kept: &Kept, link: Link) -> Lsn {
    let lsn = store.append(kept.record(), link);
    ledger.apply(lsn, kept, &mut |dead| store.release(dead));
    lsn
}
