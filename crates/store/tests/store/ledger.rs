//! The smallest owner that a store can have: applies records to maps, releases what is dead, moves survivors, writes
//! checkpoints, and reads bodies back only to compare them.

use std::collections::BTreeMap;

use store::{Link, Lsn, LsnRange, OldMessage, Place, QueueId, Run, Seq, Store};

use crate::kept::{self, Kept};

/// What the records so far add up to. Two ledgers are equal if a client could not tell them apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    waiting: BTreeMap<(QueueId, Seq), Waiting>,
    facts: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Waiting {
    lsn: Lsn,
    place: Place,
    payload_bytes: u32,
    /// Unknown after a restart, until it is read.
    payload: Option<Vec<u8>>,
    attempts: u32,
    kept: bool,
}

impl Waiting {
    fn run(&self) -> Run {
        Run {
            seq: self.place.seq,
            count: 1,
            lsn: self.lsn,
            payload_bytes: self.payload_bytes,
            header_bytes: 3,
            expires_at_ms: self.place.expires_at_ms,
            priority: self.place.priority,
            attempts: self.attempts,
            redelivered: self.attempts > 0,
            due_at_ms: self.place.due_at_ms,
        }
    }
}

impl Ledger {
    /// Takes a record in and gives every reference that it makes obsolete to `release`.
    pub(crate) fn apply(&mut self, lsn: Lsn, kept: &Kept, release: &mut dyn FnMut(Lsn, u32)) {
        match kept {
            Kept::Keys { .. } => {}
            Kept::Message { places, moved_from, kept, payload } => {
                if let Some(from) = moved_from {
                    self.settle(*from, release);
                }
                for &place in places {
                    let payload_bytes = payload.len() as u32;
                    let payload = Some(payload.clone());
                    self.put(Waiting { lsn, place, payload_bytes, payload, attempts: 0, kept: *kept }, release);
                }
            }
            Kept::Settled { queue, ranges } => {
                for range in ranges {
                    let gone: Vec<_> =
                        self.waiting.range((*queue, range.first)..=(*queue, range.last)).map(|(&at, _)| at).collect();
                    gone.into_iter().for_each(|at| self.settle(at, release));
                }
            }
            Kept::Returned { queue, range, attempts, due_at_ms } => {
                for (_, waiting) in self.waiting.range_mut((*queue, range.first)..=(*queue, range.last)) {
                    waiting.attempts = *attempts;
                    waiting.place.due_at_ms = *due_at_ms;
                }
            }
            Kept::Released { queue, range, due_at_ms } => {
                for (_, waiting) in self.waiting.range_mut((*queue, range.first)..=(*queue, range.last)) {
                    waiting.place.due_at_ms = *due_at_ms;
                }
            }
            Kept::Fact { key, value } => {
                self.facts.insert(key.clone(), value.clone());
            }
            Kept::Forget { key } => {
                self.facts.remove(key);
            }
            Kept::Queue { .. } => {}
            Kept::Waiting { queue, runs } => {
                for run in runs {
                    for nth in 0..u64::from(run.count) {
                        let Run { seq, lsn, expires_at_ms, priority, payload_bytes, attempts, due_at_ms, .. } = *run;
                        let place = Place { queue: *queue, seq: Seq(seq.0 + nth), expires_at_ms, priority, due_at_ms };
                        let lsn = lsn.plus(nth);
                        self.put(Waiting { lsn, place, payload_bytes, payload: None, attempts, kept: true }, release);
                    }
                }
            }
        }
    }

    fn put(&mut self, waiting: Waiting, release: &mut dyn FnMut(Lsn, u32)) {
        if let Some(old) = self.waiting.insert((waiting.place.queue, waiting.place.seq), waiting) {
            release(old.lsn, old.payload_bytes);
        }
    }

    fn settle(&mut self, at: (QueueId, Seq), release: &mut dyn FnMut(Lsn, u32)) {
        if let Some(waiting) = self.waiting.remove(&at) {
            release(waiting.lsn, waiting.payload_bytes);
        }
    }

    /// The records, chained, that say again what still lives of these old messages.
    pub(crate) fn survivors(&self, old: &[OldMessage]) -> Vec<(Kept, Link)> {
        let mut records = Vec::new();
        for OldMessage { lsn, places, kept, payload } in old {
            for place in places {
                let Some(waiting) = self.waiting.get(&(place.queue, place.seq)) else { continue };
                if waiting.lsn != *lsn {
                    continue;
                }
                assert_eq!((waiting.kept, waiting.payload_bytes), (*kept, payload.len() as u32));
                let link = if waiting.attempts > 0 { Link::WithNext } else { Link::Alone };
                let (places, payload) = (vec![waiting.place], payload.to_vec());
                records.push((Kept::Message { places, moved_from: None, kept: *kept, payload }, link));
                if waiting.attempts > 0 {
                    let range = store::SeqRange { first: place.seq, last: place.seq };
                    let (attempts, due_at_ms) = (waiting.attempts, waiting.place.due_at_ms);
                    let returned = Kept::Returned { queue: place.queue, range, attempts, due_at_ms };
                    records.push((returned, Link::Alone));
                }
            }
        }
        records
    }

    /// What a checkpoint has to say.
    pub(crate) fn pieces(&self) -> Vec<Kept> {
        let facts = self.facts.iter().map(|(key, value)| Kept::Fact { key: key.clone(), value: value.clone() });
        let mut queues: BTreeMap<QueueId, Vec<Run>> = BTreeMap::new();
        for waiting in self.waiting.values().filter(|waiting| waiting.kept) {
            let (runs, run) = (queues.entry(waiting.place.queue).or_default(), waiting.run());
            if let Some(last) = runs.last_mut()
                && run
                    == (Run {
                        seq: Seq(last.seq.0 + u64::from(last.count)),
                        lsn: last.lsn.plus(u64::from(last.count)),
                        count: 1,
                        ..*last
                    })
            {
                last.count += 1;
            } else {
                runs.push(run);
            }
        }
        let queues = queues
            .into_iter()
            .flat_map(|(queue, runs)| [Kept::Queue { queue, next: Seq(u64::MAX) }, Kept::Waiting { queue, runs }]);
        facts.chain(queues).collect()
    }

    /// The first place at or after that one, and the pieces that say what waits there.
    pub(crate) fn next_from(&self, from: (QueueId, Seq)) -> Option<((QueueId, Seq), Vec<Kept>)> {
        let (&at, waiting) = self.waiting.range(from..).next()?;
        let piece = Kept::Waiting { queue: at.0, runs: vec![waiting.run()] };
        Some((at, if waiting.kept { vec![piece] } else { Vec::new() }))
    }

    /// Tells a store that was opened what lives.
    pub(crate) fn retain<S: Store>(&self, store: &mut S) {
        for waiting in self.waiting.values() {
            store.retain(LsnRange { first: waiting.lsn, count: 1 }, waiting.payload_bytes);
        }
    }

    /// Where everything that waits is.
    pub(crate) fn ranges(&self) -> Vec<LsnRange> {
        self.waiting.values().map(|waiting| kept::one(waiting.lsn)).collect()
    }

    /// Compares what was read with what was written, or takes it in after a restart.
    pub(crate) fn hear_read(&mut self, messages: &[(Lsn, bytes::Bytes)]) {
        let mut payloads = BTreeMap::new();
        for (lsn, payload) in messages {
            payloads.insert(*lsn, payload);
        }
        for waiting in self.waiting.values_mut() {
            if let Some(payload) = payloads.get(&waiting.lsn) {
                assert_eq!(payload.len() as u32, waiting.payload_bytes);
                assert_eq!(**payload, *waiting.payload.get_or_insert_with(|| payload.to_vec()));
            }
        }
    }

    /// The place of the message that is `n`th, counted round and round.
    pub(crate) fn nth(&self, n: usize) -> Option<(QueueId, Seq)> {
        self.waiting.keys().nth(n.checked_rem(self.waiting.len())?).copied()
    }

    pub(crate) fn lsn(&self, at: (QueueId, Seq)) -> Option<Lsn> {
        self.waiting.get(&at).map(|waiting| waiting.lsn)
    }

    /// Everything a client could see after a restart.
    pub(crate) fn visible(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let waiting = self.waiting.iter().filter(|(_, waiting)| waiting.kept);
        let waiting: Vec<_> = waiting.map(|(at, waiting)| (*at, waiting.payload.clone(), waiting.attempts)).collect();
        (waiting, self.facts.clone())
    }
}

/// Appends to the store and to the ledger, and releases.
pub(crate) fn record<S: Store>(store: &mut S, ledger: &mut Ledger, kept: &Kept, link: Link) -> Lsn {
    let lsn = store.append(kept.record(), link);
    ledger.apply(lsn, kept, &mut |dead, bytes| store.release(kept::one(dead), bytes));
    lsn
}

/// Deals with an offer.
pub(crate) fn move_survivors<S: Store>(
    store: &mut S,
    ledger: &mut Ledger,
    old: &[OldMessage],
) -> Vec<(Lsn, Kept, Link)> {
    let survivors = ledger.survivors(old).into_iter();
    survivors.map(|(kept, link)| (record(store, ledger, &kept, link), kept, link)).collect()
}
