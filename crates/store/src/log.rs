//! The segment log, the owner's half: encodes records into batches, hands them over, and knows which segments live.
//!
//! Nothing here waits for the disk. One lock is taken for a flush and one for a poll, each for a few moves of memory.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::record::{self, BATCH_BYTES};
use crate::recover::{self, OpenError, OpenReport, Progress};
use crate::segment::HEADER_BYTES;
use crate::writer::{Chunk, Inbox, Shared, Writer};
use crate::{Disk, Link, Lsn, LsnRange, Record, Store, StoreEvent, Urgency};

/// What may be chosen about a log.
pub struct Options {
    /// How large a segment grows, in bytes. A longer record or chain has one of its own.
    pub segment_bytes: u64,
    /// What the checksums of a new log begin with. A random number keeps the bytes of another log, or bytes that
    /// somebody put into a message on purpose, from passing for records of this one.
    pub salt: u32,
    /// Called now and then while a long log is read.
    pub progress: Option<Box<dyn FnMut(Progress)>>,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20, salt: 0, progress: None }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { segment_bytes, salt, progress: _ } = self;
        f.debug_struct("Options").field("segment_bytes", segment_bytes).field("salt", salt).finish_non_exhaustive()
    }
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened<D> {
    /// The owner's half.
    pub log: SegmentLog,
    /// The half that touches the disk. Without its rounds nothing is written.
    pub writer: Writer<D>,
    /// What was found.
    pub report: OpenReport,
}

/// A log in segment files.
#[derive(Debug)]
pub struct SegmentLog {
    shared: Arc<Shared>,
    segment_bytes: u64,
    salt: u32,
    epoch: u64,
    /// Oldest first; the last one grows. Never empty.
    segments: VecDeque<Segment>,
    /// Chunks that were cut off by the end of a segment and not yet flushed.
    ready: VecDeque<Chunk>,
    /// The batch that grows: room for its batch record, then records.
    batch: Vec<u8>,
    batch_first: Lsn,
    next: Lsn,
    durable: Lsn,
    log_bytes: u64,
    appended_bytes: u64,
    written_bytes: u64,
    chain_is_open: bool,
    /// A flush that waits for the end of a chain.
    held_flush: Option<Urgency>,
    has_failed: bool,
}

/// What is remembered of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) first: Lsn,
    pub(crate) bytes: u64,
    pub(crate) references: u64,
    /// The last record before the latest release: it has to be durable before the segment may go.
    pub(crate) released_at: Lsn,
}

impl Segment {
    pub(crate) fn new(number: u64, first: Lsn, bytes: u64) -> Segment {
        Segment { number, first, bytes, references: 0, released_at: Lsn::ZERO }
    }
}

impl SegmentLog {
    /// Opens the log on that disk, or begins one, and gives `replay` every record that survived, in order. After that
    /// all of them are durable. Each replayed record counts all its references again: the owner releases those that
    /// are dead (a settled place, a place emptied by a move, one of a queue that is gone, a fact that was replaced or
    /// forgotten), as it would have at run time.
    ///
    /// # Errors
    /// When the disk fails or refuses, when the log is damaged inside, or when a newer version wrote it. Then nothing
    /// was changed, and what `replay` was given so far is to be forgotten.
    pub fn open<D: Disk>(
        disk: D,
        options: Options,
        replay: &mut dyn FnMut(Lsn, Record<'_>),
    ) -> Result<Opened<D>, OpenError> {
        let segment_bytes = options.segment_bytes;
        let recovered = recover::open(disk, options, replay)?;
        let tail = recovered.tail;
        let shared = Arc::new(Shared::default());
        shared.lock().durable = tail.last;
        let log_bytes = recovered.segments.iter().map(|segment| segment.bytes).sum();
        let log = SegmentLog {
            shared: Arc::clone(&shared),
            segment_bytes,
            salt: tail.salt,
            epoch: tail.epoch,
            segments: recovered.segments,
            ready: VecDeque::new(),
            batch: vec![0; BATCH_BYTES],
            batch_first: tail.last.next(),
            next: tail.last.next(),
            durable: tail.last,
            log_bytes,
            appended_bytes: 0,
            written_bytes: 0,
            chain_is_open: false,
            held_flush: None,
            has_failed: false,
        };
        let writer = Writer::new(recovered.disk, shared, &tail);
        Ok(Opened { log, writer, report: recovered.report })
    }

    /// How many times this log was opened: each owner has a higher one than all before it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a log always has the segment that it writes to")
    }

    fn has_batch(&self) -> bool {
        self.batch.len() > BATCH_BYTES
    }

    /// Ends the segment and begins the next one with the record that is about to be appended.
    fn roll(&mut self) {
        let sealed = *self.active();
        if self.has_batch() {
            let chunk = self.cut_batch(Vec::new());
            self.ready.push_back(chunk);
        }
        self.log_bytes += HEADER_BYTES as u64;
        self.segments.push_back(Segment::new(sealed.number + 1, self.next, HEADER_BYTES as u64));
    }

    /// Takes the batch out as a chunk; the next one grows in `buffer`.
    fn cut_batch(&mut self, mut buffer: Vec<u8>) -> Chunk {
        buffer.resize(BATCH_BYTES, 0);
        Chunk {
            segment: self.active().number,
            first: self.batch_first,
            last: self.next.previous(),
            bytes: std::mem::replace(&mut self.batch, buffer),
        }
    }

    /// Adds a small chunk to the one that the writer has not taken yet, so that many flushes during one slow sync
    /// become one write.
    fn hand_over(&mut self, chunk: Chunk, inbox: &mut Inbox) {
        match inbox.chunks.back_mut() {
            Some(last) if last.segment == chunk.segment && last.bytes.len() + chunk.bytes.len() <= MERGED_BYTES_MAX => {
                last.bytes.extend_from_slice(&chunk.bytes[BATCH_BYTES..]);
                last.last = chunk.last;
                inbox.recycle(chunk.bytes);
                self.appended_bytes -= BATCH_BYTES as u64;
                self.log_bytes -= BATCH_BYTES as u64;
                let segment = self.segments.iter_mut().rfind(|segment| segment.number == chunk.segment);
                segment.expect("a segment stays until all of it is durable").bytes -= BATCH_BYTES as u64;
            }
            _ => inbox.chunks.push_back(chunk),
        }
    }

    /// Lets the oldest segments go that nothing refers to.
    fn retire(&mut self) {
        let mut keep_from = None;
        while let (Some(oldest), Some(next)) = (self.segments.front(), self.segments.get(1)) {
            // A durable record in the next segment shows that the writer is done with this one.
            if oldest.references > 0 || self.durable < oldest.released_at.max(next.first) {
                break;
            }
            keep_from = Some(next.number);
            self.log_bytes -= oldest.bytes;
            self.segments.pop_front();
        }
        if let Some(keep_from) = keep_from {
            self.shared.lock().keep_from = keep_from;
            self.shared.wake();
        }
    }
}

impl Store for SegmentLog {
    fn append(&mut self, record: Record<'_>, link: Link) -> Lsn {
        let active = *self.active();
        let bytes_max = (BATCH_BYTES + record::encoded_bytes_max(&record)) as u64;
        if !self.chain_is_open && active.first < self.next && active.bytes + bytes_max > self.segment_bytes {
            self.roll();
        }
        let before = if self.has_batch() { self.batch.len() } else { 0 };
        let lsn = self.next;
        if before == 0 {
            self.batch_first = lsn;
        }
        record::encode(&mut self.batch, self.salt, &record, link);
        let added = (self.batch.len() - before) as u64;
        self.appended_bytes += added;
        self.log_bytes += added;
        let segment = self.active();
        segment.bytes += added;
        segment.references += record.references().0;
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
        let mut inbox = shared.lock();
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
        drop(inbox);
        shared.wake();
    }

    fn retain(&mut self, _: LsnRange, _: u32) {}
    fn read(&mut self, _: u64, _: &[LsnRange]) {}
    fn reclaim(&mut self) -> bool {
        false
    }
    fn wants_reclaim(&self) -> bool {
        false
    }
    fn replay_bytes(&self) -> u64 {
        self.log_bytes
    }
    fn wants_checkpoint(&self) -> bool {
        false
    }
    fn begin_checkpoint(&mut self) {}
    fn checkpoint(&mut self, _: Record<'_>) {}
    fn end_checkpoint(&mut self) {}
    fn release(&mut self, messages: LsnRange, _: u32) {
        let at = messages.first;
        let last = self.next.previous();
        let index = self.segments.partition_point(|segment| segment.first <= at).checked_sub(1);
        let segment = index.and_then(|index| self.segments.get_mut(index)).expect("a released record is still kept");
        segment.references =
            segment.references.checked_sub(1).expect("a record is released once for each of its references");
        segment.released_at = last;
    }

    fn poll(&mut self, events: &mut Vec<StoreEvent>) {
        let inbox = self.shared.lock();
        self.written_bytes = inbox.written_bytes;
        if inbox.durable > self.durable {
            self.durable = inbox.durable;
            events.push(StoreEvent::Durable(self.durable));
        }
        if let (Some(failure), false) = (&inbox.failure, self.has_failed) {
            self.has_failed = true;
            events.push(StoreEvent::Failed(failure.clone()));
        }
        drop(inbox);
        self.retire();
    }

    fn unwritten_bytes(&self) -> usize {
        self.appended_bytes.saturating_sub(self.written_bytes) as usize
    }

    fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    fn close(&mut self) {
        self.flush(Urgency::Sync);
        self.shared.lock().is_closing = true;
        self.shared.wake();
    }
}

impl Drop for SegmentLog {
    fn drop(&mut self) {
        self.shared.lock().is_abandoned = true;
        self.shared.wake();
    }
}

/// The largest write that flushes are gathered into: beyond it, copying costs more than a second write.
const MERGED_BYTES_MAX: usize = 256 * 1024;
