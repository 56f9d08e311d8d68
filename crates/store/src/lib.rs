//! The durability seam: what the owner of some queues asks of a log, and the logs that answer.
//!
//! A store sees queue ids, sequence numbers and opaque bytes; it knows nothing of protocols, and no clock, thread or
//! source of randomness is named here. The owner calls [`Store`] and is never blocked by it: records are buffered,
//! handed over in batches, and reported [`StoreEvent::Durable`] when a sync that covers them has returned.
//!
//! [`SegmentLog`] is the real store, over any [`Disk`]; its other half, [`Writer`], does the reading and writing that
//! takes time and is driven by a host's thread or by a simulator. [`MemoryStore`] is the reference: short enough to be
//! obviously right, and held to the same tests. Every byte on disk is described in `docs/storage-format.md`.

#[expect(clippy::disallowed_methods, reason = "the one file that may touch files")]
mod disk;
mod log;
mod memory;
mod memory_disk;
mod record;
mod recover;
mod segment;
mod writer;

pub use disk::{DirectoryLock, Disk, FileDisk, FileEntry, LockError};
pub use log::{Opened, Options, SegmentLog};
pub use memory::MemoryStore;
pub use memory_disk::{Fault, MemoryDisk};
pub use record::RECORD_BYTES_MAX;
pub use recover::{Cut, OpenError, OpenReport, Progress};
pub use writer::{LAZY_SYNC_AFTER, Step, Writer};

/// Names a queue for ever: an id is never given to a second queue, so a late record can only miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// A message's position in its queue. It strictly rises with each message that is added to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A position in one log. A later record has a greater one; nothing else may be read from it, above all not a place
/// in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first record of any log.
    pub const ZERO: Lsn = Lsn(0);

    fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    fn previous(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

/// One place where a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The queue.
    pub queue: QueueId,
    /// The position in that queue.
    pub seq: Seq,
    /// When the message expires there, in milliseconds since the Unix epoch; 0 means never.
    pub expires_at_ms: u64,
    /// Its priority there; 0 is the lowest.
    pub priority: u8,
}

/// The positions from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqRange {
    /// The lowest position.
    pub first: Seq,
    /// The highest position, never below `first`.
    pub last: Seq,
}

/// One durable fact. Facts are stated as outcomes ("seq 7 of queue 3 is settled"), never as commands, so that replaying
/// them needs no old version of the code that once decided them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message, its bytes once, with every place where it waits.
    Message {
        /// Every place; each is one reference to this record.
        places: &'a [Place],
        /// The place that this same record empties, so that a dead letter moves in one step.
        moved_from: Option<(QueueId, Seq)>,
        /// The message, in the owner's own encoding.
        payload: &'a [u8],
    },
    /// These places are empty from now on.
    Settled {
        /// The queue.
        queue: QueueId,
        /// The positions in it, in any order.
        ranges: &'a [SeqRange],
    },
    /// A delivered message came back: it is redelivered from now on.
    Returned {
        /// The queue.
        queue: QueueId,
        /// The position in it.
        seq: Seq,
        /// How many deliveries have failed so far.
        attempts: u32,
    },
    /// A named durable fact (topology). It replaces an earlier fact of the same key.
    Fact {
        /// What the fact is about, in the owner's own encoding.
        key: &'a [u8],
        /// What holds from now on.
        value: &'a [u8],
    },
    /// The fact of this key holds no longer.
    Forget {
        /// The key.
        key: &'a [u8],
    },
}

impl Record<'_> {
    /// How many references to itself a record starts with: the calls of [`Store::release`] that it takes until the
    /// record is dead. A message has one for each place, a fact one, the others none.
    #[must_use]
    pub fn references(&self) -> u64 {
        match self {
            Record::Message { places, .. } => places.len() as u64,
            Record::Fact { .. } => 1,
            Record::Settled { .. } | Record::Returned { .. } | Record::Forget { .. } => 0,
        }
    }
}

/// Whether a record stands alone or takes effect only together with the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The record takes effect by itself, or ends the chain before it.
    Alone,
    /// The record takes effect only if the next one does. A chain ends with an `Alone`.
    WithNext,
}

/// How soon a batch has to be synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Written now, synced within [`LAZY_SYNC_AFTER`]: nobody waits for it.
    Lazy,
    /// Written and synced now: somebody waits.
    Sync,
}

/// What a store tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// Everything appended up to and including this record survives a power cut.
    Durable(Lsn),
    /// The disk failed, in a sentence for the operator. The store writes nothing any more, and the owner has to stop
    /// without confirming anything: what it holds in memory may no longer match the disk. A restart recovers.
    Failed(String),
}

/// An ordered log of records, one owner, no waiting.
pub trait Store {
    /// Adds a record after all earlier ones. It is buffered; it becomes durable some time after the next
    /// [`flush`](Store::flush). The encoded record may have up to [`RECORD_BYTES_MAX`] bytes; the owner has to keep
    /// within it.
    fn append(&mut self, record: Record<'_>, link: Link) -> Lsn;

    /// Hands what was appended over to be written. A flush inside a chain takes effect when the chain ends.
    fn flush(&mut self, urgency: Urgency);

    /// Says that one reference to that record is gone; see [`Record::references`]. The last one may make disk space
    /// free, but only once everything appended before this call is durable.
    fn release(&mut self, at: Lsn);

    /// Adds what happened since the last call to `events`.
    fn poll(&mut self, events: &mut Vec<StoreEvent>);

    /// How many bytes are appended and not yet written, as of the last [`poll`](Store::poll), for back-pressure.
    fn unwritten_bytes(&self) -> usize;

    /// The size of the log in bytes, appended records included.
    fn log_bytes(&self) -> u64;

    /// When the log holds much more than the `live_bytes` that its owner knows to be alive (more than twice that and
    /// two segments), the end of its oldest part: the owner appends again what still lives *before* that position,
    /// releases the old records, and the space comes back.
    fn evacuate(&self, live_bytes: u64) -> Option<Lsn>;

    /// Flushes, and notes at the end that the stop was clean, which the next open is told. Nothing may be appended
    /// after it.
    fn close(&mut self);
}
