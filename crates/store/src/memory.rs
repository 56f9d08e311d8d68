//! The reference store: the shortest thing that keeps every promise of [`Store`] except to outlive the process.
//!
//! What was flushed is durable at the next poll, and everything that was asked for is answered there.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::record::{self, Entry, HEAD_BYTES, Head, KEYS_MAX, Lists, RUNS_MAX};
use crate::space::{Segment, Space};
use crate::{Link, Lsn, LsnRange, OldMessage, Record, SeqRange, Store, StoreEvent, Urgency};

/// A log in memory.
#[derive(Debug)]
pub struct MemoryStore {
    segment_bytes: u64,
    space: Space,
    /// The encoded records of each segment.
    records: BTreeMap<u64, Vec<Bytes>>,
    next: Lsn,
    flushed: Lsn,
    durable: Lsn,
    unflushed_bytes: usize,
    flushed_bytes: usize,
    chain_is_open: bool,
    flush_is_due: bool,
    closed: bool,
    /// The last checkpoint that counts, the one that will when what it needs is durable, and the one that is written.
    checkpoint: Option<Checkpoint>,
    complete: Option<Checkpoint>,
    unfinished: Option<Checkpoint>,
    reads: VecDeque<(u64, Vec<LsnRange>)>,
    /// The segment that is being emptied, and whether its messages were given out.
    victim: Option<(u64, Offer)>,
    missing: Option<Lsn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    Asked,
    Made,
}

#[derive(Debug)]
struct Checkpoint {
    replay_from: u64,
    pieces: Vec<Vec<u8>>,
    needs: Lsn,
}

impl Checkpoint {
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl MemoryStore {
    /// An empty log. Its segments are small, so that short tests have several.
    #[must_use]
    pub fn new() -> MemoryStore {
        MemoryStore::with_segments_of(4096)
    }

    /// An empty log in segments of that many bytes.
    #[must_use]
    pub fn with_segments_of(segment_bytes: u64) -> MemoryStore {
        MemoryStore {
            segment_bytes,
            space: Space::new(vec![Segment::new(1, Lsn(1), 0)], 1),
            records: BTreeMap::from([(1, Vec::new())]),
            next: Lsn(1),
            flushed: Lsn::ZERO,
            durable: Lsn::ZERO,
            unflushed_bytes: 0,
            flushed_bytes: 0,
            chain_is_open: false,
            flush_is_due: false,
            closed: false,
            checkpoint: None,
            complete: None,
            unfinished: None,
            reads: VecDeque::new(),
            victim: None,
            missing: None,
        }
    }

    /// What a restart would find: gives `replay` the pieces of the last checkpoint, at [`Lsn::ZERO`], and then every
    /// durable record from where that one was begun, in order.
    pub fn replay(&self, replay: &mut dyn FnMut(Lsn, Record<'_>)) {
        let mut lists = Lists::default();
        let pieces = self.checkpoint.iter().flat_map(|checkpoint| &checkpoint.pieces);
        for piece in pieces {
            replay(Lsn::ZERO, decode(piece, &mut lists));
        }
        let replay_from = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.replay_from);
        for segment in self.space.segments().iter().filter(|segment| segment.number >= replay_from) {
            let mut lsn = segment.first;
            for bytes in self.records.get(&segment.number).into_iter().flatten() {
                if lsn > self.durable {
                    return;
                }
                replay_record(lsn, decode(bytes, &mut lists), replay);
                lsn = lsn.next();
            }
        }
    }

    /// The same log after a restart: what was not durable is gone, and no message has a reference.
    #[must_use]
    pub fn restart(mut self) -> MemoryStore {
        let replay_from = self.checkpoint.as_ref().map_or(1, |checkpoint| checkpoint.replay_from);
        let mut segments = Vec::new();
        for segment in self.space.segments() {
            let Some(records) = self.records.get_mut(&segment.number) else { continue };
            let durable = (self.durable.0 + 1).saturating_sub(segment.first.0) as usize;
            records.truncate(durable);
            if durable == 0 && segment.number > replay_from {
                self.records.remove(&segment.number);
                continue;
            }
            let bytes = records.iter().map(|bytes| bytes.len() as u64).sum();
            segments.push(Segment::sealed(segment.number, segment.first, segment.end, bytes));
        }
        MemoryStore {
            space: Space::new(segments, replay_from),
            records: self.records,
            next: self.durable.next(),
            flushed: self.durable,
            durable: self.durable,
            checkpoint: self.checkpoint,
            ..MemoryStore::with_segments_of(self.segment_bytes)
        }
    }

    /// Whether [`Store::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The first message that was retained although the log does not have it.
    #[must_use]
    pub fn missing(&self) -> Option<Lsn> {
        self.missing
    }

    /// The encoded record, if it is still there.
    fn record(&self, lsn: Lsn) -> Option<&Bytes> {
        let (at, _) = self.space.parts(LsnRange { first: lsn, count: 1 }).next()?;
        let segment = &self.space.segments()[at];
        self.records.get(&segment.number)?.get((lsn.0 - segment.first.0) as usize)
    }

    fn roll(&mut self) {
        self.space.begin(self.next, 0);
        self.records.insert(self.space.active().number, Vec::new());
    }

    fn answer(&self, wanted: &[LsnRange]) -> Vec<(Lsn, Bytes)> {
        let lsns = wanted.iter().flat_map(|range| (0..u64::from(range.count)).map(|more| range.first.plus(more)));
        lsns.filter_map(|lsn| {
            let bytes = self.record(lsn)?;
            match decode(bytes, &mut Lists::default()) {
                Record::Message { payload, .. } => Some((lsn, bytes.slice_ref(payload))),
                _ => None,
            }
        })
        .collect()
    }

    fn old(&self, number: u64) -> Vec<OldMessage> {
        let Some(first) = self.space.segment(number).map(|segment| segment.first) else { return Vec::new() };
        let records = self.records.get(&number).into_iter().flatten();
        let old = (0..).map(|more| first.plus(more)).zip(records).filter_map(|(lsn, bytes)| {
            match decode(bytes, &mut Lists::default()) {
                Record::Message { places, kept, payload, .. } => {
                    Some(OldMessage { lsn, places: places.to_vec(), kept, payload: bytes.slice_ref(payload) })
                }
                _ => None,
            }
        });
        old.collect()
    }
}

/// Of a message that is not kept, only the place that it left means something to a restart.
pub(crate) fn replay_record(lsn: Lsn, record: Record<'_>, replay: &mut dyn FnMut(Lsn, Record<'_>)) {
    match record {
        Record::Message { kept: false, moved_from: None, .. } => {}
        Record::Message { kept: false, moved_from: Some((queue, seq)), .. } => {
            replay(lsn, Record::Settled { queue, ranges: &[SeqRange { first: seq, last: seq }] });
        }
        record => replay(lsn, record),
    }
}

fn decode<'a>(bytes: &'a [u8], lists: &'a mut Lists) -> Record<'a> {
    let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().expect("encoded with its head");
    match Head::parse(head).decode(body, lists) {
        Ok(Entry::Record(record, _)) => record,
        other => unreachable!("encoded as a record, decoded as {other:?}"),
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl Store for MemoryStore {
    fn append(&mut self, record: Record<'_>, link: Link) -> Lsn {
        let lsn = self.next;
        let active = self.space.active();
        if !self.chain_is_open && !active.is_empty(lsn) && active.bytes >= self.segment_bytes {
            self.roll();
        }
        let mut bytes = Vec::new();
        record::encode(&mut bytes, 0, &record, link);
        self.unflushed_bytes += bytes.len();
        let (references, payload_bytes) = record.references();
        self.space.grow(bytes.len() as u64, references, payload_bytes, self.chain_is_open);
        self.records.entry(self.space.active().number).or_default().push(bytes.into());
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
            self.flushed_bytes += std::mem::take(&mut self.unflushed_bytes);
        }
    }

    fn retain(&mut self, messages: LsnRange, payload_bytes: u32) {
        if let Err(lsn) = self.space.retain(messages, payload_bytes) {
            self.missing.get_or_insert(lsn);
        }
    }

    fn release(&mut self, messages: LsnRange, payload_bytes: u32) {
        self.space.release(messages, payload_bytes, self.next.previous());
    }

    fn read(&mut self, ticket: u64, wanted: &[LsnRange]) {
        self.reads.push_back((ticket, wanted.to_vec()));
    }

    fn poll(&mut self, events: &mut Vec<StoreEvent>) {
        if self.durable < self.flushed {
            self.durable = self.flushed;
            events.push(StoreEvent::Durable(self.durable));
        }
        self.flushed_bytes = 0;
        if let Some((number, _)) = self.victim.take_if(|(_, offer)| *offer == Offer::Made) {
            self.space.was_offered(number);
        }
        while let Some((ticket, wanted)) = self.reads.pop_front() {
            events.push(StoreEvent::Read { ticket, messages: self.answer(&wanted) });
        }
        if let Some((number, Offer::Asked)) = self.victim {
            self.victim = Some((number, Offer::Made));
            events.push(StoreEvent::Old(self.old(number)));
        }
        if let Some(complete) = self.complete.take_if(|complete| complete.needs <= self.durable) {
            self.space.replay_from(complete.replay_from);
            self.checkpoint = Some(complete);
        }
        for number in self.space.take_dead(self.durable) {
            self.records.remove(&number);
        }
        self.space.look_for_victim(self.segment_bytes);
    }

    fn unwritten_bytes(&self) -> usize {
        self.unflushed_bytes + self.flushed_bytes
    }

    fn log_bytes(&self) -> u64 {
        self.space.log_bytes()
    }

    fn reclaim(&mut self) -> bool {
        match self.victim.take() {
            Some((number, Offer::Asked)) => {
                self.victim = Some((number, Offer::Asked));
                return false;
            }
            Some((number, Offer::Made)) => self.space.was_offered(number),
            None => {}
        }
        self.space.look_for_victim(self.segment_bytes);
        self.victim = self.space.victim().map(|victim| (victim.number, Offer::Asked));
        self.victim.is_some()
    }

    fn wants_reclaim(&self) -> bool {
        self.victim.is_none() && self.space.victim().is_some()
    }

    fn replay_bytes(&self) -> u64 {
        self.space.replay_bytes()
    }

    fn wants_checkpoint(&self) -> bool {
        let last_bytes = self.checkpoint.as_ref().map_or(0, Checkpoint::bytes);
        let is_busy = self.unfinished.is_some() || self.complete.is_some();
        !is_busy && self.replay_bytes() >= self.segment_bytes.max(8 * last_bytes)
    }

    fn wants_idle_checkpoint(&self) -> bool {
        let last_bytes = self.checkpoint.as_ref().map_or(0, Checkpoint::bytes);
        let is_busy = self.unfinished.is_some() || self.complete.is_some();
        let least = (self.segment_bytes / 4).max(512).max(last_bytes);
        let long = (self.segment_bytes / 2).max(1024).max(last_bytes * 2);
        !is_busy && (self.space.dead_replay_bytes() >= least || self.replay_bytes() >= long)
    }

    fn begin_checkpoint(&mut self) {
        assert!(!self.chain_is_open, "a checkpoint does not begin inside a chain");
        if !self.space.active().is_empty(self.next) {
            self.roll();
        }
        let replay_from = self.space.active().number;
        self.unfinished = Some(Checkpoint { replay_from, pieces: Vec::new(), needs: Lsn::ZERO });
    }

    fn checkpoint(&mut self, piece: Record<'_>) {
        let Some(unfinished) = &mut self.unfinished else { return };
        each_piece(piece, |piece| {
            let mut bytes = Vec::new();
            record::encode(&mut bytes, 0, &piece, Link::Alone);
            unfinished.pieces.push(bytes);
        });
    }

    fn checkpoint_is_behind(&self) -> bool {
        false
    }

    fn end_checkpoint(&mut self) {
        assert!(!self.chain_is_open, "a checkpoint does not end inside a chain");
        self.flush(Urgency::Sync);
        if let Some(checkpoint) = self.unfinished.take() {
            self.complete = Some(Checkpoint { needs: self.next.previous(), ..checkpoint });
        }
    }

    fn close(&mut self) {
        self.flush(Urgency::Sync);
        self.closed = true;
    }
}

/// Splits a piece that would have too many runs for one record.
pub(crate) fn each_piece(piece: Record<'_>, mut each: impl FnMut(Record<'_>)) {
    match piece {
        Record::Waiting { queue, runs } => {
            runs.chunks(RUNS_MAX).for_each(|runs| each(Record::Waiting { queue, runs }));
        }
        Record::Keys { queue, source, most, keys } => {
            keys.chunks(KEYS_MAX).for_each(|keys| each(Record::Keys { queue, source, most, keys }));
        }
        piece => each(piece),
    }
}
