//! The part of the log that writes: takes what is buffered, writes it, syncs, and reports.
//!
//! One round at a time: while a round syncs, the owner goes on buffering, and the next round takes all of it. So the
//! batches grow by themselves as the disk slows down, and one sync serves everybody who waits. A full disk is waited
//! out; after any other failure nothing is written ever again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind::FileTooLarge, ErrorKind::WriteZero};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::disk::{is_full, write_all};
use crate::footer::{Layout, Mark};
use crate::record::{self, BATCH_BYTES, Batch};
use crate::segment::{self, Content, FORMAT_VERSION, Header, ROOM};
use crate::shared::{Chunk, Failure, Shared};
use crate::{Disk, Lsn};

/// How old data that nobody waits for may become before it is synced.
pub const LAZY_SYNC_AFTER: Duration = Duration::from_millis(200);

/// What a round of the [`Writer`] or the [`Caretaker`](crate::Caretaker) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// Something was done that the owner should [`poll`](crate::Store::poll) for. What was written is not yet durable.
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
    begin: u64,
    /// The number of the next batch.
    batch: u64,
    segment: u64,
    name: String,
    /// Where the next batch goes in the segment.
    offset: u64,
    /// Where the segment's file ends: there, or behind the room for batches to come.
    file_end: u64,
    /// How much of it is made at once.
    room_bytes: u64,
    /// The disk is too full for it in this segment.
    has_no_room: bool,
    roll: Roll,
    written: Lsn,
    synced: Lsn,
    /// When the oldest unsynced byte was written.
    unsynced_since: Option<Duration>,
    /// Somebody waits for a sync of what could not be written yet.
    sync_is_owed: bool,
    /// The disk is full, and is tried again then.
    retry_at: Option<Duration>,
    is_over: Option<Step>,
    taken: VecDeque<Chunk>,
}

/// How far the change to the next segment is. Each step of it may have to wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roll {
    No,
    Sealed,
    Created,
}

/// Where recovery left the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) salt: u32,
    pub(crate) epoch: u64,
    pub(crate) begin: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) last: Lsn,
}

/// Why something was not written.
enum Trouble {
    /// There is no room for it, yet.
    Full,
    Fatal(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Fatal(failure)
    }
}

impl<D: Disk> Writer<D> {
    pub(crate) fn new(disk: D, shared: Arc<Shared>, tail: &Tail, segment_bytes: u64) -> Writer<D> {
        Writer {
            disk,
            shared,
            salt: tail.salt,
            epoch: tail.epoch,
            begin: tail.begin,
            batch: 1,
            segment: tail.segment,
            name: segment::file_name(tail.segment),
            offset: tail.offset,
            file_end: tail.offset,
            room_bytes: (segment_bytes / ROOM_SHARE).min(ROOM_BYTES_MAX),
            has_no_room: false,
            roll: Roll::No,
            written: tail.last,
            synced: tail.last,
            unsynced_since: None,
            sync_is_owed: false,
            retry_at: None,
            is_over: None,
            taken: VecDeque::new(),
        }
    }

    /// Does one round: writes everything that is buffered, and syncs if somebody waits for it or if unsynced data is
    /// older than [`LAZY_SYNC_AFTER`]. `now` says how long ago some fixed moment was; it decides nothing but that age,
    /// and when a full disk is tried again.
    pub fn step(&mut self, now: Duration) -> Step {
        if let Some(over) = self.is_over {
            return over;
        }
        let step = self.round(now).unwrap_or_else(|failure| {
            self.shared.fail(&self.disk, failure);
            Step::Failed
        });
        if matches!(step, Step::Closed | Step::Failed) {
            self.is_over = Some(step);
            self.shared.desk().writer_is_over = true;
            self.shared.caretaker_bell().notify_one();
        }
        step
    }

    fn round(&mut self, now: Duration) -> Result<Step, Failure> {
        let mut inbox = self.shared.inbox();
        if inbox.failure.is_some() {
            return Ok(Step::Failed);
        }
        if self.taken.is_empty() || inbox.is_closing || inbox.is_abandoned {
            self.taken.append(&mut inbox.chunks);
            self.sync_is_owed |= std::mem::take(&mut inbox.sync_is_wanted);
        }
        let (is_closing, is_abandoned, was_full) = (inbox.is_closing, inbox.is_abandoned, inbox.is_full());
        drop(inbox);

        let is_over = is_closing || is_abandoned;
        let before = (self.segment, self.offset);
        if is_over || self.retry_at.is_none_or(|at| at <= now) {
            self.write_taken(now)?;
        }
        let is_overdue = self.unsynced_since.is_some_and(|since| now.saturating_sub(since) >= LAZY_SYNC_AFTER);
        let syncs = self.unsynced_since.is_some() && (self.sync_is_owed || is_over || is_overdue);
        if syncs {
            self.sync()?;
        }
        self.sync_is_owed &= self.retry_at.is_some();
        if is_closing && self.retry_at.is_none() {
            self.write_closed()?;
        }
        let is_full = self.report(syncs);
        Ok(match () {
            () if is_over => Step::Closed,
            () if syncs => Step::Synced,
            () if before != (self.segment, self.offset) || is_full != was_full => Step::Wrote,
            () => Step::Idle,
        })
    }

    /// Tells the owner what is durable, and the caretaker. Whether the disk is full comes back.
    fn report(&mut self, syncs: bool) -> bool {
        let mut inbox = self.shared.inbox();
        inbox.durable = self.synced;
        inbox.is_stuck = self.retry_at.is_some();
        let is_full = inbox.is_full();
        drop(inbox);
        if syncs {
            let mut desk = self.shared.desk();
            desk.durable = self.synced;
            desk.synced_segment = self.segment;
            // Only an ending checkpoint waits for this.
            let is_awaited = !desk.parts.is_empty();
            drop(desk);
            if is_awaited {
                self.shared.caretaker_bell().notify_one();
            }
        }
        is_full
    }

    fn write_taken(&mut self, now: Duration) -> Result<(), Failure> {
        while let Some(mut chunk) = self.taken.pop_front() {
            match self.place(&mut chunk) {
                Ok(()) => {
                    self.retry_at = None;
                    self.unsynced_since.get_or_insert(now);
                    self.written = chunk.last;
                    let mut inbox = self.shared.inbox();
                    inbox.written = chunk.last;
                    inbox.written_bytes += chunk.bytes.len() as u64;
                    inbox.recycle(chunk.bytes);
                }
                Err(Trouble::Full) => {
                    self.taken.push_front(chunk);
                    if !self.shared.give_up_reserve(&mut self.disk)? {
                        self.retry_at = Some(now + RETRY_AFTER);
                        return Ok(());
                    }
                }
                Err(Trouble::Fatal(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Writes a chunk where it belongs. If there is no room, nothing of it counts, and the next attempt writes over it.
    fn place(&mut self, chunk: &mut Chunk) -> Result<(), Trouble> {
        if chunk.segment != self.segment {
            self.roll(chunk)?;
        }
        let offset = self.offset;
        self.write_batch(chunk.first, &mut chunk.bytes)?;
        let marks = chunk.marks.drain(..).map(|mark| Mark { lsn: mark.lsn, offset: offset + mark.offset });
        self.shared.growing().1.extend(marks, self.offset);
        Ok(())
    }

    /// Goes on in a new segment. The old one is synced first: whoever finds a segment knows that all before it were
    /// whole.
    fn roll(&mut self, chunk: &Chunk) -> Result<(), Trouble> {
        let name = segment::file_name(chunk.segment);
        if self.roll == Roll::No {
            self.give_room_back()?;
            let mut footer = Vec::new();
            self.shared.growing().1.encode(&mut footer, self.salt);
            write_all(&mut self.disk, &self.name, self.offset, &footer)
                .map_err(|error| self.trouble("write to", error))?;
            self.sync()?;
            self.shared.inbox().footers.push((self.segment, footer.len() as u64));
            self.roll = Roll::Sealed;
        }
        if self.roll == Roll::Sealed {
            self.disk.create(&name).map_err(|error| trouble("create", &name, error))?;
            self.roll = Roll::Created;
        }
        let mut header = Vec::new();
        let (version, begin) = (FORMAT_VERSION, Some(self.begin));
        Header { version, number: chunk.segment, first: chunk.first, begin, salt: self.salt }
            .encode(&mut header, Content::Segment);
        write_all(&mut self.disk, &name, 0, &header).map_err(|error| trouble("write to", &name, error))?;
        self.roll = Roll::No;
        self.segment = chunk.segment;
        self.name = name;
        self.offset = header.len() as u64;
        self.file_end = self.offset;
        self.has_no_room = false;
        *self.shared.growing() = (self.segment, Layout::new(Mark { lsn: chunk.first, offset: self.offset }));
        Ok(())
    }

    /// Writes `bytes` behind what is there, its first [`BATCH_BYTES`] replaced by the batch record.
    fn write_batch(&mut self, first: Lsn, bytes: &mut [u8]) -> Result<(), Trouble> {
        let batch = Batch { epoch: self.epoch, number: self.batch, first, synced: self.synced };
        record::encode_batch(bytes, self.salt, batch);
        write_all(&mut self.disk, &self.name, self.offset, bytes).map_err(|error| self.trouble("write to", error))?;
        self.batch += 1;
        self.offset += bytes.len() as u64;
        self.file_end = self.file_end.max(self.offset);
        if self.sync_is_owed && self.file_end == self.offset && bytes.len() <= ROOM_BATCH_BYTES {
            self.make_room()?;
        }
        Ok(())
    }

    /// Writes [`ROOM`] behind the batches, so that the next syncs of small ones find the file as long as it has to be: a
    /// file system then has only the bytes to write, and not its journal besides.
    fn make_room(&mut self) -> Result<(), Failure> {
        if self.has_no_room {
            return Ok(());
        }
        let end = self.offset + self.room_bytes;
        while self.file_end < end {
            let at = self.file_end;
            let bytes = (end - at).min(ROOM_PIECE.len() as u64);
            self.file_end += bytes;
            match write_all(&mut self.disk, &self.name, at, &ROOM_PIECE[..bytes as usize]) {
                Ok(()) => {}
                // It only saves time. What a batch lacks, the batch will tell.
                Err(error) if is_full(&error) || matches!(error.kind(), FileTooLarge | WriteZero) => {
                    self.has_no_room = true;
                    return Ok(());
                }
                Err(error) => return Err(Failure { doing: "write to", name: self.name.clone(), error }),
            }
        }
        Ok(())
    }

    /// Lets the file end where its batches do.
    fn give_room_back(&mut self) -> Result<(), Trouble> {
        if self.file_end > self.offset {
            let shortened = self.disk.truncate(&self.name, self.offset);
            shortened.map_err(|error| self.trouble("shorten", error))?;
            self.file_end = self.offset;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        let synced = self.disk.sync(&self.name);
        synced.map_err(|error| Failure { doing: "sync", name: self.name.clone(), error })?;
        self.synced = self.written;
        self.unsynced_since = None;
        Ok(())
    }

    /// Comes after a sync of everything else, so its batch proves that all of it was durable. Without room for it the
    /// log is left as after a crash.
    fn write_closed(&mut self) -> Result<(), Failure> {
        let mut bytes = vec![0; BATCH_BYTES];
        record::encode_closed(&mut bytes, self.salt);
        let shortened = self.give_room_back();
        self.has_no_room = true;
        match shortened.and_then(|()| self.write_batch(self.written.next(), &mut bytes)) {
            Ok(()) => self.sync(),
            Err(Trouble::Full) => Ok(()),
            Err(Trouble::Fatal(failure)) => Err(failure),
        }
    }

    fn trouble(&self, doing: &'static str, error: io::Error) -> Trouble {
        trouble(doing, &self.name, error)
    }
}

/// A writer that a thread of its own and the owner of the log share: whoever is at hand does the next round.
#[derive(Debug)]
pub struct SharedWriter<D> {
    writer: Arc<Mutex<Writer<D>>>,
    shared: Arc<Shared>,
}

impl<D> Clone for SharedWriter<D> {
    fn clone(&self) -> Self {
        Self { writer: Arc::clone(&self.writer), shared: Arc::clone(&self.shared) }
    }
}

/// What the writer is asked to do and has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// To write, for nobody who waits.
    Write,
    /// To write so many bytes and sync, since somebody waits for it.
    Sync(usize),
}

impl<D: Disk> SharedWriter<D> {
    /// Shares that writer.
    pub fn new(writer: Writer<D>) -> Self {
        let shared = Arc::clone(&writer.shared);
        Self { writer: Arc::new(Mutex::new(writer)), shared }
    }

    /// From now on a flush wakes the thread only when it is told to by [`SharedWriter::wake`], which the owner does
    /// after each flush, unless it does the round itself.
    pub fn attend(&self) {
        self.shared.inbox().is_attended = true;
    }

    /// What there is to do.
    #[must_use]
    pub fn due(&self) -> Due {
        let inbox = self.shared.inbox();
        match inbox.sync_is_wanted {
            true => Due::Sync(inbox.chunks.iter().map(|chunk| chunk.bytes.len()).sum()),
            false if inbox.chunks.is_empty() => Due::Nothing,
            false => Due::Write,
        }
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        self.shared.writer_bell().notify_one();
    }

    /// Does one round as [`Writer::step`] does, here and now, unless the thread is in the middle of one.
    pub fn try_step(&self, now: Duration) -> Option<Step> {
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let step = writer.step(now);
        if step != Step::Synced || writer.retry_at.is_some() {
            // There is something to look after.
            self.shared.inbox().was_changed = true;
            self.wake();
        }
        Some(step)
    }

    /// Works until the log is closed or dropped or the disk fails, and sleeps while there is nothing to do. `clock`
    /// says how long ago some fixed moment was. `notify` is called after each round that the log's owner should
    /// [`poll`](crate::Store::poll) for.
    pub fn run(self, clock: impl Fn() -> Duration, notify: impl Fn()) {
        loop {
            let mut writer = self.writer();
            let step = writer.step(clock());
            let (sync_at, retry_at) = (writer.unsynced_since.map(|since| since + LAZY_SYNC_AFTER), writer.retry_at);
            drop(writer);
            match step {
                Step::Idle => self.sleep(sync_at, retry_at, &clock),
                Step::Wrote | Step::Synced => notify(),
                Step::Closed | Step::Failed => return notify(),
            }
        }
    }

    /// A round that panics leaves what the log would be after a crash there, and nothing is written after it.
    fn writer(&self) -> MutexGuard<'_, Writer<D>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep(&self, sync_at: Option<Duration>, retry_at: Option<Duration>, clock: &impl Fn() -> Duration) {
        let bell = self.shared.writer_bell();
        let mut inbox = self.shared.inbox();
        let mut rest_at = (!inbox.spare.is_empty()).then(|| clock() + SPARE_REST);
        loop {
            let is_urgent = inbox.is_closing || inbox.is_abandoned || inbox.failure.is_some();
            let has_work = !inbox.chunks.is_empty() || inbox.sync_is_wanted;
            if is_urgent || std::mem::take(&mut inbox.was_changed) || (has_work && retry_at.is_none()) {
                return;
            }
            let work_at = sync_at.into_iter().chain(retry_at).min();
            let Some(at) = work_at.into_iter().chain(rest_at).min() else {
                inbox = bell.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = at.saturating_sub(clock());
            if left.is_zero() && work_at == Some(at) {
                return;
            }
            if left.is_zero() {
                inbox.spare = Vec::new();
                rest_at = None;
                continue;
            }
            inbox = bell.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn trouble(doing: &'static str, name: &str, error: io::Error) -> Trouble {
    if is_full(&error) { Trouble::Full } else { Trouble::Fatal(Failure { doing, name: name.to_owned(), error }) }
}

/// The room that is made at once for batches to come: of a segment's length, one part in so many, and at most so much.
const ROOM_SHARE: u64 = 256;
const ROOM_BYTES_MAX: u64 = 256 << 10;
/// Batches up to that size are worth making room for: for greater ones the bytes themselves take longer.
const ROOM_BATCH_BYTES: usize = 32 << 10;
/// So much of it is written at once.
static ROOM_PIECE: [u8; 64 << 10] = [ROOM; 64 << 10];
/// How long after it was found full the disk is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long there is nothing to write before buffers are not kept for what may come.
const SPARE_REST: Duration = Duration::from_millis(300);
