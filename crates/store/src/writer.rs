//! The half of the log that touches the disk: takes what is buffered, writes it, syncs, and reports.
//!
//! One round at a time: while a round syncs, the owner goes on buffering, and the next round takes all of it. So the
//! batches grow by themselves as the disk slows down, and one sync serves everybody who waits. After the first failure
//! nothing is written ever again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk::write_all;
use crate::record::{self, BATCH_BYTES, Batch};
use crate::segment::{self, Header};
use crate::{Disk, Lsn};

/// How old data that nobody waits for may become before it is synced.
pub const LAZY_SYNC_AFTER: Duration = Duration::from_millis(200);

/// A run of whole chains that goes to one segment, with room for its batch record in front.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) segment: u64,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) bytes: Vec<u8>,
}

/// What the log and its writer share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

/// The log's orders and the writer's answers.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// To be written, in order.
    pub(crate) chunks: VecDeque<Chunk>,
    /// Empty buffers to use again.
    pub(crate) spare: Vec<Vec<u8>>,
    /// Somebody waits for a sync.
    pub(crate) sync_is_wanted: bool,
    /// Segments with lower numbers may be removed.
    pub(crate) keep_from: u64,
    /// The log is to be closed after what is in `chunks`.
    pub(crate) is_closing: bool,
    /// The log's value is gone; nothing will follow.
    pub(crate) is_abandoned: bool,
    /// Everything up to here survives a power cut.
    pub(crate) durable: Lsn,
    /// How many bytes of chunks were written since the log was opened.
    pub(crate) written_bytes: u64,
    /// Why the writer stopped.
    pub(crate) failure: Option<String>,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox {
            chunks: VecDeque::new(),
            spare: Vec::new(),
            sync_is_wanted: false,
            keep_from: 0,
            is_closing: false,
            is_abandoned: false,
            durable: Lsn::ZERO,
            written_bytes: 0,
            failure: None,
        }
    }
}

impl Inbox {
    fn has_work(&self, oldest: u64) -> bool {
        !self.chunks.is_empty()
            || self.sync_is_wanted
            || self.is_closing
            || self.is_abandoned
            || self.keep_from > oldest
    }

    /// Takes back a buffer unless there are enough, or it is so large that it would hold memory for nothing.
    pub(crate) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

impl Shared {
    /// No code panics while it holds the lock, and every value in it is set in one step, so a poisoned one is sound.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// Something was written, and is not yet durable.
    Wrote,
    /// Everything written is durable.
    Synced,
    /// The log was closed or dropped, and everything handed over is durable. Nothing is left to do.
    Closed,
    /// The disk failed. Nothing will be written any more.
    Failed,
}

/// Writes what the [`SegmentLog`](crate::SegmentLog) it was opened with hands over.
#[derive(Debug)]
pub struct Writer<D> {
    disk: D,
    shared: Arc<Shared>,
    salt: u32,
    epoch: u64,
    /// The number of the next batch.
    batch: u64,
    segment: u64,
    name: String,
    /// Where the next batch goes in the segment.
    offset: u64,
    /// The number of the oldest segment that is still there.
    oldest: u64,
    written: Lsn,
    synced: Lsn,
    /// When the oldest unsynced byte was written.
    unsynced_since: Option<Duration>,
    is_over: Option<Step>,
    taken: VecDeque<Chunk>,
}

/// Where recovery left the log.
pub(crate) struct Tail {
    pub(crate) salt: u32,
    pub(crate) epoch: u64,
    pub(crate) oldest: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) last: Lsn,
}

struct Failure {
    doing: &'static str,
    name: String,
    error: io::Error,
}

impl<D: Disk> Writer<D> {
    pub(crate) fn new(disk: D, shared: Arc<Shared>, tail: &Tail) -> Writer<D> {
        Writer {
            disk,
            shared,
            salt: tail.salt,
            epoch: tail.epoch,
            batch: 1,
            segment: tail.segment,
            name: segment::file_name(tail.segment),
            offset: tail.offset,
            oldest: tail.oldest,
            written: tail.last,
            synced: tail.last,
            unsynced_since: None,
            is_over: None,
            taken: VecDeque::new(),
        }
    }

    /// Works until the log is closed or dropped or the disk fails, and sleeps while there is nothing to do. `clock`
    /// says how long ago some fixed moment was. `notify` is called after each round that the log's owner should
    /// [`poll`](crate::Store::poll) for.
    pub fn run(mut self, clock: impl Fn() -> Duration, notify: impl Fn()) {
        loop {
            match self.step(clock()) {
                Step::Idle => self.sleep(&clock),
                Step::Wrote | Step::Synced => notify(),
                Step::Closed | Step::Failed => return notify(),
            }
        }
    }

    /// Does one round: writes everything that is buffered, syncs if somebody waits for it or if unsynced data is older
    /// than [`LAZY_SYNC_AFTER`], and removes segments that are done with. `now` says how long ago some fixed moment
    /// was; it decides nothing but that age.
    pub fn step(&mut self, now: Duration) -> Step {
        if let Some(over) = self.is_over {
            return over;
        }
        let step = self.round(now).unwrap_or_else(|failure| {
            let Failure { doing, name, error } = failure;
            self.shared.lock().failure = Some(format!(
                "cannot {doing} {}: {error}. The server stops, because what it holds in memory can no longer be \
                 trusted to match the disk; nothing that was confirmed is lost, and a restart recovers it",
                self.disk.path(&name)
            ));
            Step::Failed
        });
        if matches!(step, Step::Closed | Step::Failed) {
            self.is_over = Some(step);
        }
        step
    }

    fn round(&mut self, now: Duration) -> Result<Step, Failure> {
        let mut inbox = self.shared.lock();
        std::mem::swap(&mut inbox.chunks, &mut self.taken);
        let sync_is_wanted = std::mem::take(&mut inbox.sync_is_wanted);
        let (keep_from, is_closing, is_abandoned) = (inbox.keep_from, inbox.is_closing, inbox.is_abandoned);
        drop(inbox);

        let has_written = !self.taken.is_empty();
        self.write_taken(now)?;
        let is_over = is_closing || is_abandoned;
        let is_overdue = self.unsynced_since.is_some_and(|since| now.saturating_sub(since) >= LAZY_SYNC_AFTER);
        let syncs = self.unsynced_since.is_some() && (sync_is_wanted || is_over || is_overdue);
        if syncs {
            self.sync()?;
        }
        if is_closing {
            self.write_closed()?;
        }
        self.shared.lock().durable = self.synced;
        let has_removed = self.remove_before(keep_from)?;
        Ok(match () {
            () if is_over => Step::Closed,
            () if syncs => Step::Synced,
            () if has_written || has_removed => Step::Wrote,
            () => Step::Idle,
        })
    }

    fn write_taken(&mut self, now: Duration) -> Result<(), Failure> {
        while let Some(mut chunk) = self.taken.pop_front() {
            if chunk.segment != self.segment {
                self.roll(&chunk)?;
            }
            self.write_batch(chunk.first, &mut chunk.bytes)?;
            self.unsynced_since.get_or_insert(now);
            self.written = chunk.last;
            let mut inbox = self.shared.lock();
            inbox.written_bytes += chunk.bytes.len() as u64;
            inbox.recycle(chunk.bytes);
        }
        Ok(())
    }

    /// Goes on in a new segment. The old one is synced first: whoever finds a segment knows that all before it were
    /// whole.
    fn roll(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        self.sync()?;
        let name = segment::file_name(chunk.segment);
        let mut header = Vec::new();
        Header { number: chunk.segment, first: chunk.first, salt: self.salt }.encode(&mut header);
        self.disk.create(&name).map_err(|error| Failure { doing: "create", name: name.clone(), error })?;
        write_all(&mut self.disk, &name, 0, &header).map_err(|error| Failure {
            doing: "write to",
            name: name.clone(),
            error,
        })?;
        self.segment = chunk.segment;
        self.name = name;
        self.offset = header.len() as u64;
        Ok(())
    }

    /// Writes `bytes` behind what is there, its first [`BATCH_BYTES`] replaced by the batch record.
    fn write_batch(&mut self, first: Lsn, bytes: &mut [u8]) -> Result<(), Failure> {
        let batch = Batch { epoch: self.epoch, number: self.batch, first, synced: self.synced };
        record::encode_batch(bytes, self.salt, batch);
        write_all(&mut self.disk, &self.name, self.offset, bytes).map_err(|error| self.failed("write to", error))?;
        self.batch += 1;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.disk.sync(&self.name).map_err(|error| self.failed("sync", error))?;
        self.synced = self.written;
        self.unsynced_since = None;
        Ok(())
    }

    /// Comes after a sync of everything else, so its batch proves that all of it was durable.
    fn write_closed(&mut self) -> Result<(), Failure> {
        let mut bytes = vec![0; BATCH_BYTES];
        record::encode_closed(&mut bytes, self.salt);
        self.write_batch(self.written.next(), &mut bytes)?;
        self.sync()
    }

    /// Removes the oldest segments one by one, so that a power cut leaves no gap.
    fn remove_before(&mut self, keep_from: u64) -> Result<bool, Failure> {
        let before = self.oldest;
        while self.oldest < keep_from {
            let name = segment::file_name(self.oldest);
            self.disk.remove(&name).map_err(|error| Failure { doing: "remove", name, error })?;
            self.oldest += 1;
        }
        Ok(self.oldest > before)
    }

    fn sleep(&self, clock: &impl Fn() -> Duration) {
        let mut inbox = self.shared.lock();
        while !inbox.has_work(self.oldest) {
            let Some(since) = self.unsynced_since else {
                inbox = self.shared.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = (since + LAZY_SYNC_AFTER).saturating_sub(clock());
            if left.is_zero() {
                return;
            }
            inbox = self.shared.wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> Failure {
        Failure { doing, name: self.name.clone(), error }
    }
}

const SPARE_BUFFERS_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 4 << 20;
