//! The segment log, the owner's part: encodes records into batches, hands them over, and knows which segments live.
//!
//! Nothing here waits for the disk. A flush and a poll take a lock or two, each for a few moves of memory.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::backup::BackupSource;
use crate::caretaker::Caretaker;
use crate::checkpoint;
use crate::footer::Mark;
use crate::memory::each_piece;
use crate::reader::Reader;
use crate::record::{self, BATCH_BYTES, End};
use crate::recover::{self, OpenError, OpenReport, Progress};
use crate::segment::{FORMAT_VERSION, HEADER_BYTES, Header};
use crate::shared::{ANSWERED_BYTES_MAX, Checkpointed, Chunk, Inbox, Offer, Part, ReadOrder, Shared, Whereabouts};
use crate::space::{Segment, Space};
use crate::writer::Writer;
use crate::{Disk, Link, Lsn, LsnRange, Record, Store, StoreEvent, Urgency};

/// What may be chosen about a log.
pub struct Options {
    /// How large a segment grows, in bytes. A longer record or chain has one of its own.
    pub segment_bytes: u64,
    /// What the checksums of a new log begin with. A random number keeps the bytes of another log, or bytes that
    /// somebody put into a message on purpose, from passing for records of this one.
    pub salt: u32,
    /// The size of a file whose room is given up when the disk is full, so that what frees space can still be written;
    /// 0 for none.
    pub reserve_bytes: u64,
    /// Called now and then while a long log is read.
    pub progress: Option<Box<dyn FnMut(Progress)>>,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20, salt: 0, reserve_bytes: 1 << 20, progress: None }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { segment_bytes, salt, reserve_bytes, progress: _ } = self;
        f.debug_struct("Options")
            .field("segment_bytes", segment_bytes)
            .field("salt", salt)
            .field("reserve_bytes", reserve_bytes)
            .finish_non_exhaustive()
    }
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened<D> {
    /// The owner's part.
    pub log: SegmentLog,
    /// The part that writes. Without its rounds nothing becomes durable.
    pub writer: Writer<D>,
    /// The part that reads, writes checkpoints and removes files. Without its rounds nothing that was asked for is
    /// answered, and no space comes back.
    pub caretaker: Caretaker<D>,
    /// The way to a copy of the log while it is used.
    pub backup: BackupSource,
    /// What was found.
    pub report: OpenReport,
}

/// A log in segment files.
#[derive(Debug)]
pub struct SegmentLog {
    shared: Arc<Shared>,
    segment_bytes: u64,
    mark_bytes: u64,
    part_bytes: usize,
    salt: u32,
    epoch: u64,
    begin: u64,
    space: Space,
    /// Chunks that were cut off by the end of a segment and not yet flushed.
    ready: VecDeque<Chunk>,
    /// The batch that grows: room for its batch record, then records.
    batch: Vec<u8>,
    batch_first: Lsn,
    marks: Vec<Mark>,
    /// At that size of the segment the next mark is due.
    mark_at: u64,
    next: Lsn,
    written: Lsn,
    durable: Lsn,
    appended_bytes: u64,
    written_bytes: u64,
    chain_is_open: bool,
    /// A flush that waits for the end of a chain.
    held_flush: Option<Urgency>,
    /// Reads of records that are not yet written, the last of which is that one.
    held_reads: Vec<(Lsn, u64, Vec<LsnRange>)>,
    offering: Option<Offering>,
    checkpointing: Checkpointing,
    /// The segment that the last checkpoint, finished or not, was begun with.
    last_index: Option<u64>,
    /// There was no room for that one, and nothing is left of it.
    index_was_dropped: bool,
    /// The size of the checkpoint that counts.
    index_bytes: u64,
    /// There was no room for a checkpoint, and there may still be none.
    lacks_room: bool,
    is_full: bool,
    has_failed: bool,
    lost: recover::Lost,
    /// The first message that was retained and is not there.
    missing: Option<Lsn>,
}

/// A segment whose messages are offered to the owner.
#[derive(Clone, Copy, Debug)]
struct Offering {
    number: u64,
    state: Offered,
}

#[derive(Clone, Copy, Debug)]
enum Offered {
    /// Some are being read.
    Asked,
    /// All up to there.
    UpTo(Mark),
    All,
}

#[derive(Debug)]
enum Checkpointing {
    No,
    Building {
        /// What is not yet handed over.
        part: Vec<u8>,
        pieces: u64,
    },
    /// All of it is handed over.
    Ending,
}

impl SegmentLog {
    /// Opens the log on that disk, or begins one. `replay` is given the pieces of the last checkpoint, at
    /// [`Lsn::ZERO`], and then every record that came after it was begun, in order, as far as they survived. After
    /// that all of them are durable. The owner then calls [`Store::retain`] for what lives, and
    /// [`check_retained`](SegmentLog::check_retained).
    ///
    /// # Errors
    /// When the disk fails or refuses, when the log is damaged inside, or when a newer version wrote it. Then nothing
    /// was changed, and what `replay` was given so far is to be forgotten.
    pub fn open<D: Disk>(
        disk: D,
        options: Options,
        replay: &mut dyn FnMut(Lsn, Record<'_>),
    ) -> Result<Opened<D>, OpenError> {
        let (segment_bytes, reserve_bytes) = (options.segment_bytes, options.reserve_bytes);
        let mark_bytes = mark_bytes(segment_bytes);
        let recovered = recover::open(disk, options, replay)?;
        let tail = recovered.tail;
        let index = recovered.index;
        let mark_at = recovered.layout.last().offset + mark_bytes;
        let shared = Arc::new(Shared::new(tail.last, (tail.segment, recovered.layout), recovered.reserve));
        let replay_from = index.map_or(0, |(number, _)| number);
        let log = SegmentLog {
            shared: Arc::clone(&shared),
            segment_bytes,
            mark_bytes,
            part_bytes: (segment_bytes / 64).min(PART_BYTES_MAX) as usize,
            salt: tail.salt,
            epoch: tail.epoch,
            begin: tail.begin,
            space: Space::new(recovered.segments, replay_from),
            ready: VecDeque::new(),
            batch: vec![0; BATCH_BYTES],
            batch_first: tail.last.next(),
            marks: Vec::new(),
            mark_at,
            next: tail.last.next(),
            written: tail.last,
            durable: tail.last,
            appended_bytes: 0,
            written_bytes: 0,
            chain_is_open: false,
            held_flush: None,
            held_reads: Vec::new(),
            offering: None,
            checkpointing: Checkpointing::No,
            last_index: index.map(|(number, _)| number),
            index_was_dropped: false,
            index_bytes: index.map_or(0, |(_, bytes)| bytes),
            lacks_room: false,
            is_full: false,
            has_failed: false,
            lost: recovered.lost,
            missing: None,
        };
        let reader = Reader::new(recovered.disk.clone(), Arc::clone(&shared), tail.salt, mark_bytes);
        let durable_index = index.map(|(number, _)| number);
        let caretaker =
            Caretaker::new(recovered.disk.clone(), Arc::clone(&shared), reader, durable_index, reserve_bytes);
        let backup = BackupSource::new(Arc::clone(&shared));
        let writer = Writer::new(recovered.disk, shared, &tail, segment_bytes);
        Ok(Opened { log, writer, caretaker, backup, report: recovered.report })
    }

    /// How many times this log was opened: each owner has a higher one than all before it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether every message that was retained is in a segment that is there; to be asked once all were.
    ///
    /// # Errors
    /// The file that is missing. The log is damaged then, and must not be gone on with.
    pub fn check_retained(&self) -> Result<(), OpenError> {
        match self.missing {
            Some(lsn) => Err(self.lost.error(lsn)),
            None => Ok(()),
        }
    }

    fn has_batch(&self) -> bool {
        self.batch.len() > BATCH_BYTES
    }

    /// Ends the segment and begins the next one with the record that is about to be appended.
    fn roll(&mut self) {
        if self.has_batch() {
            let chunk = self.cut_batch(Vec::new());
            self.ready.push_back(chunk);
        }
        self.space.begin(self.next, HEADER_BYTES as u64);
        self.mark_at = HEADER_BYTES as u64 + self.mark_bytes;
    }

    /// Takes the batch out as a chunk; the next one grows in `buffer`.
    fn cut_batch(&mut self, mut buffer: Vec<u8>) -> Chunk {
        buffer.resize(BATCH_BYTES, 0);
        Chunk {
            segment: self.space.active().number,
            first: self.batch_first,
            last: self.next.previous(),
            bytes: std::mem::replace(&mut self.batch, buffer),
            marks: std::mem::take(&mut self.marks),
        }
    }

    /// Adds a small chunk to the one that the writer has not taken yet, so that many flushes during one slow sync
    /// become one write.
    fn hand_over(&mut self, mut chunk: Chunk, inbox: &mut Inbox) {
        match inbox.chunks.back_mut() {
            Some(last) if last.segment == chunk.segment && last.bytes.len() + chunk.bytes.len() <= MERGED_BYTES_MAX => {
                let shift = (last.bytes.len() - BATCH_BYTES) as u64;
                last.marks.extend(chunk.marks.drain(..).map(|mark| Mark { offset: mark.offset + shift, ..mark }));
                last.bytes.extend_from_slice(&chunk.bytes[BATCH_BYTES..]);
                last.last = chunk.last;
                inbox.recycle(chunk.bytes);
                self.appended_bytes -= BATCH_BYTES as u64;
                self.space.resize(chunk.segment, -(BATCH_BYTES as i64));
            }
            _ => inbox.chunks.push_back(chunk),
        }
    }

    /// Asks the caretaker for what is surely in a file.
    fn order_read(&self, ticket: u64, wanted: &[LsnRange]) {
        let segments = self.space.segments();
        let parts = wanted.iter().flat_map(|range| self.space.parts(*range));
        let pieces = parts.map(|(at, range)| (whereabouts(&segments[at]), range)).collect();
        self.shared.desk().reads.push_back(ReadOrder { ticket, pieces });
        self.shared.caretaker_bell().notify_one();
    }

    fn order_held_reads(&mut self) {
        let written = self.written;
        let mut held = std::mem::take(&mut self.held_reads);
        held.retain(|(last, ticket, wanted)| {
            let is_written = *last <= written;
            if is_written {
                self.order_read(*ticket, wanted);
            }
            !is_written
        });
        self.held_reads = held;
    }

    fn order_part(&self, part: Part) {
        self.shared.desk().parts.push_back(part);
        self.shared.caretaker_bell().notify_one();
    }

    /// Takes in what the writer did.
    fn hear_writer(&mut self, events: &mut Vec<StoreEvent>) {
        let mut inbox = self.shared.inbox();
        self.written_bytes = inbox.written_bytes;
        self.written = inbox.written;
        for (number, bytes) in inbox.footers.drain(..) {
            self.space.resize(number, bytes as i64);
        }
        if inbox.durable > self.durable {
            self.durable = inbox.durable;
            events.push(StoreEvent::Durable(self.durable));
        }
        if inbox.is_full() != self.is_full {
            self.is_full = inbox.is_full();
            events.push(StoreEvent::Full(self.is_full));
        }
        if let (Some(failure), false) = (&inbox.failure, self.has_failed) {
            self.has_failed = true;
            events.push(StoreEvent::Failed(failure.clone()));
        }
    }

    /// Takes in what the caretaker did.
    fn hear_caretaker(&mut self, events: &mut Vec<StoreEvent>) {
        let mut desk = self.shared.desk();
        events.append(&mut desk.answers);
        if std::mem::take(&mut desk.answered_bytes) >= ANSWERED_BYTES_MAX && !desk.reads.is_empty() {
            self.shared.caretaker_bell().notify_one();
        }
        let (offered, checkpoints) = (desk.offered.take(), std::mem::take(&mut desk.checkpoints));
        drop(desk);
        if let (Some(rest), Some(offering)) = (offered, &mut self.offering) {
            offering.state = rest.map_or(Offered::All, Offered::UpTo);
        }
        for checkpointed in checkpoints {
            self.hear_of_checkpoint(checkpointed);
        }
    }

    fn hear_of_checkpoint(&mut self, checkpointed: Checkpointed) {
        match checkpointed {
            Checkpointed::Done(number, bytes) => {
                self.space.replay_from(number);
                self.index_bytes = bytes;
                if matches!(self.checkpointing, Checkpointing::Ending) && self.last_index == Some(number) {
                    self.checkpointing = Checkpointing::No;
                }
            }
            Checkpointed::NoRoom => {
                self.checkpointing = Checkpointing::No;
                self.lacks_room = true;
                self.index_was_dropped = true;
            }
            Checkpointed::TryAgain => self.lacks_room = false,
        }
    }

    /// Lets segments go that nobody needs.
    fn retire(&mut self) {
        let dead = self.space.take_dead(self.durable);
        if !dead.is_empty() {
            self.shared.desk().dead.extend(dead);
            self.shared.caretaker_bell().notify_one();
        }
    }

    /// The place to go on offering from, if the segment is worth it and not yet through.
    fn next_offer(&mut self) -> Option<Offer> {
        if let Some(Offering { number, state }) = self.offering {
            match (state, self.space.segment(number)) {
                (Offered::UpTo(mark), Some(segment)) if segment.has_references() => {
                    return Some(Offer { segment: whereabouts(segment), from: Some(mark) });
                }
                (Offered::All, _) => self.space.was_offered(number),
                _ => {}
            }
        }
        self.space.look_for_victim(self.segment_bytes);
        self.space.victim().map(|victim| Offer { segment: whereabouts(victim), from: None })
    }
}

impl Store for SegmentLog {
    fn append(&mut self, record: Record<'_>, link: Link) -> Lsn {
        let active = self.space.active();
        let bytes_max = (BATCH_BYTES + record::encoded_bytes_max(&record)) as u64;
        if !self.chain_is_open && !active.is_empty(self.next) && active.bytes + bytes_max > self.segment_bytes {
            self.roll();
        }
        let before = if self.has_batch() { self.batch.len() } else { 0 };
        let lsn = self.next;
        if before == 0 {
            self.batch_first = lsn;
        }
        let segment_bytes = self.space.active().bytes;
        if segment_bytes >= self.mark_at {
            self.mark_at = segment_bytes + self.mark_bytes;
            self.marks.push(Mark { lsn, offset: self.batch.len() as u64 });
        }
        record::encode(&mut self.batch, self.salt, &record, link);
        let added = (self.batch.len() - before) as u64;
        self.appended_bytes += added;
        let (references, payload_bytes) = record.references();
        self.space.grow(added, references, payload_bytes, self.chain_is_open);
        self.next = lsn.next();
        self.chain_is_open = link == Link::WithNext;
        if !self.chain_is_open
            && let Some(urgency) = self.held_flush.take()
        {
            self.flush(urgency);
        }
        lsn
    }

    fn flush(&mut self, urgency: Urgency) {
        if self.chain_is_open {
            let is_sync = urgency == Urgency::Sync || self.held_flush == Some(Urgency::Sync);
            self.held_flush = Some(if is_sync { Urgency::Sync } else { Urgency::Lazy });
            return;
        }
        let has_news = self.has_batch() || !self.ready.is_empty();
        if !has_news && urgency == Urgency::Lazy {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let mut inbox = shared.inbox();
        inbox.sync_is_wanted |= urgency == Urgency::Sync;
        while let Some(chunk) = self.ready.pop_front() {
            self.hand_over(chunk, &mut inbox);
        }
        if self.has_batch() {
            let buffer = inbox.spare.pop().unwrap_or_default();
            let chunk = self.cut_batch(buffer);
            self.hand_over(chunk, &mut inbox);
        }
        if inbox.failure.is_some() {
            // Nobody will take it, and the owner may take a while to stop.
            inbox.chunks.clear();
        }
        let is_attended = inbox.is_attended;
        drop(inbox);
        if !is_attended {
            shared.writer_bell().notify_one();
        }
    }

    fn retain(&mut self, messages: LsnRange, payload_bytes: u32) {
        let is_there = messages.first.plus(u64::from(messages.count)) <= self.next;
        let retained = if is_there { self.space.retain(messages, payload_bytes) } else { Err(self.next) };
        if let Err(lsn) = retained {
            self.missing.get_or_insert(lsn);
        }
    }

    fn release(&mut self, messages: LsnRange, payload_bytes: u32) {
        self.space.release(messages, payload_bytes, self.next.previous());
    }

    fn read(&mut self, ticket: u64, wanted: &[LsnRange]) {
        let last = wanted.iter().map(|range| range.first.plus(u64::from(range.count)).previous()).max();
        match last {
            Some(last) if last > self.written => self.held_reads.push((last, ticket, wanted.to_vec())),
            _ => self.order_read(ticket, wanted),
        }
    }

    fn poll(&mut self, events: &mut Vec<StoreEvent>) {
        if let Some(Offering { number, .. }) = self.offering.take_if(|offering| matches!(offering.state, Offered::All))
        {
            self.space.was_offered(number);
        }
        // One that is empty before all of it was offered needs no more of that.
        let space = &self.space;
        let lives = |number| space.segment(number).is_some_and(Segment::has_references);
        self.offering.take_if(|offering| matches!(offering.state, Offered::UpTo(_)) && !lives(offering.number));
        self.hear_writer(events);
        self.hear_caretaker(events);
        if !self.held_reads.is_empty() {
            self.order_held_reads();
        }
        self.retire();
        self.space.look_for_victim(self.segment_bytes);
    }

    fn unwritten_bytes(&self) -> usize {
        self.appended_bytes.saturating_sub(self.written_bytes) as usize
    }

    fn live_bytes(&self) -> u64 {
        self.space.live_bytes().min(self.space.log_bytes())
    }

    fn log_bytes(&self) -> u64 {
        self.space.log_bytes() + self.index_bytes
    }

    fn reclaim(&mut self) -> bool {
        if matches!(self.offering, Some(Offering { state: Offered::Asked, .. })) {
            return false;
        }
        let offer = self.next_offer();
        self.offering = offer.map(|offer| Offering { number: offer.segment.number, state: Offered::Asked });
        let Some(offer) = offer else { return false };
        self.shared.desk().offer = Some(offer);
        self.shared.caretaker_bell().notify_one();
        true
    }

    fn wants_reclaim(&self) -> bool {
        match self.offering {
            Some(Offering { state: Offered::Asked, .. }) => false,
            // The others are seen at the next poll.
            Some(Offering { state: Offered::All, .. }) => false,
            Some(Offering { number, state: Offered::UpTo(_) }) => {
                self.space.segment(number).is_some_and(Segment::has_references)
            }
            None => self.space.victim().is_some(),
        }
    }

    fn replay_bytes(&self) -> u64 {
        self.space.replay_bytes() + self.index_bytes
    }

    fn wants_checkpoint(&self) -> bool {
        if !matches!(self.checkpointing, Checkpointing::No) || self.lacks_room {
            return false;
        }
        // Just before the segment is full: it ends anyway, and one that ends for the checkpoint would be the second.
        let due = (self.segment_bytes - self.segment_bytes / 16).max(8 * self.index_bytes);
        // On a full disk a checkpoint is what lets segments go.
        let due = if self.is_full { due / 8 } else { due };
        self.space.replay_bytes() >= due
    }

    fn wants_idle_checkpoint(&self) -> bool {
        let is_open = matches!(self.checkpointing, Checkpointing::No) && !self.lacks_room;
        let least = (self.segment_bytes / IDLE_SHARE).max(IDLE_BYTES_MIN).max(self.index_bytes);
        let long = (self.segment_bytes / IDLE_REPLAY_SHARE).max(self.index_bytes * 2);
        is_open && (self.space.dead_replay_bytes() >= least || self.space.replay_bytes() >= long)
    }

    fn begin_checkpoint(&mut self) {
        assert!(!self.chain_is_open, "a checkpoint does not begin inside a chain");
        let active = self.space.active();
        let is_taken = self.last_index.is_some_and(|index| index >= active.number) && !self.index_was_dropped;
        self.index_was_dropped = false;
        if !active.is_empty(self.next) || is_taken {
            self.roll();
            // The segment has to be there even if nothing is ever appended to it.
            self.space.grow(BATCH_BYTES as u64, 0, 0, true);
            self.appended_bytes += BATCH_BYTES as u64;
            let bytes = vec![0; BATCH_BYTES];
            let (segment, marks) = (self.space.active().number, Vec::new());
            self.ready.push_back(Chunk { segment, first: self.next, last: self.next.previous(), bytes, marks });
        }
        let number = self.space.active().number;
        self.last_index = Some(number);
        let (version, begin, salt) = (FORMAT_VERSION, Some(self.begin), self.salt);
        let header = Header { version, number, first: self.next, begin, salt };
        let mut bytes = Vec::new();
        let (_, formers) = self.space.segments().split_last().expect("there is always one that grows");
        checkpoint::encode_begin(&mut bytes, header, self.epoch, formers);
        // Nobody will miss what is left of an unfinished one.
        self.shared.desk().parts.clear();
        self.order_part(Part::Begin(number, bytes));
        self.checkpointing = Checkpointing::Building { part: Vec::new(), pieces: 0 };
    }

    fn checkpoint(&mut self, piece: Record<'_>) {
        let Checkpointing::Building { part, pieces } = &mut self.checkpointing else { return };
        let salt = self.salt;
        each_piece(piece, |piece| {
            record::encode(part, salt, &piece, Link::Alone);
            *pieces += 1;
        });
        if part.len() >= self.part_bytes {
            let part = std::mem::take(part);
            self.order_part(Part::More(part));
        }
    }

    fn checkpoint_is_behind(&self) -> bool {
        self.shared.desk().parts.len() >= PARTS_MAX
    }

    fn end_checkpoint(&mut self) {
        assert!(!self.chain_is_open, "a checkpoint does not end inside a chain");
        let Checkpointing::Building { part, pieces } = std::mem::replace(&mut self.checkpointing, Checkpointing::No)
        else {
            return;
        };
        self.checkpointing = Checkpointing::Ending;
        self.flush(Urgency::Sync);
        let needs = self.next.previous();
        let mut end = Vec::new();
        record::encode_end(&mut end, self.salt, End { pieces, needs });
        self.order_part(Part::More(part));
        self.order_part(Part::End(end, needs));
    }

    fn close(&mut self) {
        self.flush(Urgency::Sync);
        self.shared.inbox().is_closing = true;
        self.shared.writer_bell().notify_one();
        self.shared.desk().is_closing = true;
        self.shared.caretaker_bell().notify_one();
    }
}

impl Drop for SegmentLog {
    fn drop(&mut self) {
        self.shared.inbox().is_abandoned = true;
        self.shared.writer_bell().notify_one();
        self.shared.desk().is_abandoned = true;
        self.shared.caretaker_bell().notify_one();
    }
}

fn whereabouts(segment: &Segment) -> Whereabouts {
    Whereabouts { number: segment.number, first: segment.first, end: segment.end }
}

/// How far apart the places in a segment are of which the positions are known.
pub(crate) fn mark_bytes(segment_bytes: u64) -> u64 {
    (segment_bytes / 16).min(MARK_BYTES_MAX)
}

/// Of short messages, a hundred or two lie between two marks: what has to be passed over to read one.
const MARK_BYTES_MAX: u64 = 8 << 10;
/// The largest write that flushes are gathered into: beyond it, copying costs more than a second write.
const MERGED_BYTES_MAX: usize = 256 * 1024;
/// When there is nothing else to do, that part of a segment is worth a checkpoint if it lets it go, …
const IDLE_SHARE: u64 = 64;
/// … and that part if a start need not read it: 4 MiB take it some ten milliseconds.
const IDLE_REPLAY_SHARE: u64 = 16;
/// Well more than the header and the first batch of a new segment, which count as dead.
const IDLE_BYTES_MIN: u64 = 512;
/// A checkpoint is written in parts of this size; where segments are small, in smaller ones.
const PART_BYTES_MAX: u64 = 1 << 20;
/// So many parts may wait.
const PARTS_MAX: usize = 4;
