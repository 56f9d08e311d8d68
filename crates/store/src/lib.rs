//! The durability seam: what the owner of some queues asks of a log, and the logs that answer.
//!
//! A store sees queue ids, sequence numbers and opaque bytes; it knows nothing of protocols, and no clock, thread or
//! source of randomness is named here. The owner calls [`Store`] and is never blocked by it: records are buffered,
//! handed over in batches, and reported [`StoreEvent::Durable`] when a sync that covers them has returned.
//!
//! [`SegmentLog`] is the real store, over any [`Disk`]; its other parts, [`Writer`] and [`Caretaker`], do the writing and
//! the reading that take time, and are driven by a host's threads or by a simulator. [`MemoryStore`] is the reference: short enough to be
//! obviously right, and held to the same tests. Every byte on disk is described in `docs/storage-format.md`.

mod backup;
mod caretaker;
mod checkpoint;
#[expect(clippy::disallowed_methods, reason = "the one file that may touch files")]
mod disk;
mod footer;
mod inspect;
mod log;
mod memory;
mod memory_disk;
mod reader;
mod record;
mod recover;
mod segment;
mod shared;
mod space;
mod writer;

use bytes::Bytes;
use std::fmt;

pub use backup::{BackupSource, Cut as BackupCut, Hold, copy, cut};
pub use caretaker::Caretaker;
pub use disk::{DirectoryLock, Disk, FileDisk, FileEntry, LockError, lock_holder};
pub use inspect::{Inspection, Problem, Seen, Verdict, Walked, What};
pub use log::{Opened, Options, SegmentLog};
pub use memory::MemoryStore;
pub use memory_disk::{Fault, MemoryDisk};
pub use record::RECORD_BYTES_MAX;
pub use recover::{Cut, OpenError, OpenReport, Progress};
pub use writer::{Due, LAZY_SYNC_AFTER, SharedWriter, Step, Writer};

/// Names a queue for ever: an id is never given to a second queue, so a late record can only miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// A message's position in its queue. It strictly rises with each message that is added to the queue.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A position in one log. A later record has a greater one, by as many as there are records between; nothing else may be
/// read from it, above all not a place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first record of any log.
    pub const ZERO: Lsn = Lsn(0);

    /// The position so many records later.
    #[must_use]
    pub fn plus(self, records: u64) -> Lsn {
        Lsn(self.0.saturating_add(records))
    }

    /// How many records later it is than that one; less than zero if it is earlier.
    #[must_use]
    pub fn records_after(self, other: Lsn) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    fn previous(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
    /// It is not to be delivered before this time, in milliseconds since the Unix epoch; 0 means that it never had to
    /// wait. A time that is over still tells its order among others that had to.
    pub due_at_ms: u64,
}

/// The positions from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqRange {
    /// The lowest position.
    pub first: Seq,
    /// The highest position, never below `first`.
    pub last: Seq,
}

/// Messages of one queue that follow one another without a gap in the queue and in the log, and are alike in all else:
/// what an index needs to know of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The position in the queue of the first.
    pub seq: Seq,
    /// How many messages there are; at least one.
    pub count: u32,
    /// The record of the first; the others' follow it one by one.
    pub lsn: Lsn,
    /// The length of each one's payload.
    pub payload_bytes: u32,
    /// How much of that comes before the body, whatever the owner means by it.
    pub header_bytes: u32,
    /// When they expire, in milliseconds since the Unix epoch; 0 means never.
    pub expires_at_ms: u64,
    /// Their priority.
    pub priority: u8,
    /// How many deliveries of each have failed so far.
    pub attempts: u32,
    /// They may have been delivered before.
    pub redelivered: bool,
    /// As in [`Place`].
    pub due_at_ms: u64,
}

/// A key that a queue remembers, so that it takes no other message of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What the owner makes of the key.
    pub hash: u128,
    /// For how long, whatever the owner means by it.
    pub until: u64,
}

/// Records that follow one another in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LsnRange {
    /// The first record.
    pub first: Lsn,
    /// How many; at least one.
    pub count: u32,
}

/// One durable fact. Facts are stated as outcomes ("seq 7 of queue 3 is settled"), never as commands, so that replaying
/// them needs no old version of the code that once decided them. Each says what holds from now on, so that a replay
/// that begins with a state some of them have already made ends with the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message, its bytes once, with every place where it waits. The same place again replaces the earlier record of
    /// it. Each place is one reference to this record.
    Message {
        /// Every place, at least one.
        places: &'a [Place],
        /// The place that this same record empties, so that a dead letter moves in one step. Of a message that is not
        /// kept, this is replayed as a `Settled`.
        moved_from: Option<(QueueId, Seq)>,
        /// Survives a restart. One that does not is here to take no memory: it is never replayed.
        kept: bool,
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
    /// Delivered messages came back: they are redelivered from now on.
    Returned {
        /// The queue.
        queue: QueueId,
        /// The positions in it; those that are empty stay so.
        range: SeqRange,
        /// How many deliveries of each have failed so far.
        attempts: u32,
        /// When they are due from now on, as in [`Place`].
        due_at_ms: u64,
    },
    /// These messages are due at another time from now on; nothing else about them is another.
    Released {
        /// The queue.
        queue: QueueId,
        /// The positions in it; those that are empty stay so.
        range: SeqRange,
        /// When they are due, as in [`Place`].
        due_at_ms: u64,
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
    /// No message of the queue will get a position below `next`. In checkpoints only.
    Queue {
        /// The queue.
        queue: QueueId,
        /// The lowest position that is free for ever.
        next: Seq,
    },
    /// These messages wait in the queue. In checkpoints only, in any order.
    Waiting {
        /// The queue.
        queue: QueueId,
        /// The messages.
        runs: &'a [Run],
    },
    /// The queue remembers these keys, each as the newest one. In the log, chained with the message that had the key; in
    /// checkpoints in the order in which they came.
    Keys {
        /// The queue.
        queue: QueueId,
        /// Which of the queue's sets of keys: 0 is its own, others are those of exchanges.
        source: u64,
        /// The newest so many keys of that set are remembered, or (0) any number.
        most: u32,
        /// The keys.
        keys: &'a [Key],
    },
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

/// A message record of a segment that is to be emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldMessage {
    /// The record.
    pub lsn: Lsn,
    /// All its places.
    pub places: Vec<Place>,
    /// As in [`Record::Message`].
    pub kept: bool,
    /// The message. It may share its memory with others: who keeps it for long copies it.
    pub payload: Bytes,
}

/// What a store tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// Everything appended up to and including this record survives a power cut.
    Durable(Lsn),
    /// What [`Store::read`] asked for, in that order. The payloads share memory: who keeps one for long copies it.
    Read {
        /// The number that the owner gave.
        ticket: u64,
        /// Each message's record and payload.
        messages: Vec<(Lsn, Bytes)>,
    },
    /// What [`Store::reclaim`] asked for: messages that may still live and lie in a segment which mostly does not. The
    /// owner appends those again that do live there, with [`Record::Message`], and releases their old records.
    Old(Vec<OldMessage>),
    /// The disk has no room (`true`): nothing is written until there is some. Then `false`.
    Full(bool),
    /// The disk failed, in a sentence for the operator. The store writes nothing any more, and the owner has to stop
    /// without confirming anything: what it holds in memory may no longer match the disk. A restart recovers.
    Failed(String),
}

/// An ordered log of records, one owner, no waiting.
///
/// The owner keeps an index of the messages that live. A *checkpoint* is that index and all facts, written aside piece
/// by piece while the log goes on: a restart reads the last checkpoint and then the log from where the log was when
/// that checkpoint was begun. Since every record says what holds from then on, the pieces need not be of one moment:
/// each piece has to be true when it is written, and a message that lives from the first piece to the last has to be
/// in one of them. Segments from before that can go as soon as nothing refers to their messages, in any order.
pub trait Store {
    /// Adds a record after all earlier ones. It is buffered; it becomes durable some time after the next
    /// [`flush`](Store::flush). The encoded record may have up to [`RECORD_BYTES_MAX`] bytes; the owner has to keep
    /// within it. A message starts with a reference for each of its places. `Queue` and `Waiting` are not for the log.
    fn append(&mut self, record: Record<'_>, link: Link) -> Lsn;

    /// Hands what was appended over to be written. A flush inside a chain takes effect when the chain ends.
    fn flush(&mut self, urgency: Urgency);

    /// Counts one reference to each of these message records, found by a recovery to live. After an open no record has
    /// references until this is called, for each place of each message that lives, before anything is appended or
    /// polled for.
    fn retain(&mut self, messages: LsnRange, payload_bytes: u32);

    /// Says that one reference to each of these message records is gone. A segment without references goes, once
    /// everything appended before the last release is durable and no restart would have to read it.
    fn release(&mut self, messages: LsnRange, payload_bytes: u32);

    /// Asks for the payloads of message records that have references and keep them until the answer, a
    /// [`StoreEvent::Read`], or that are released meanwhile: those may be missing from the answer. The records may be
    /// of any age, even not yet written. Many reads may be under way; they are answered in any order.
    fn read(&mut self, ticket: u64, wanted: &[LsnRange]);

    /// Adds what happened since the last call to `events`.
    fn poll(&mut self, events: &mut Vec<StoreEvent>);

    /// How many bytes are appended and not yet written, as of the last [`poll`](Store::poll), for back-pressure.
    fn unwritten_bytes(&self) -> usize;

    /// The size of the log in bytes, appended records included.
    fn log_bytes(&self) -> u64;

    /// About how many of these live: the rest goes when it is worth it. A store that does not know says all.
    fn live_bytes(&self) -> u64 {
        self.log_bytes()
    }

    /// Asks for the next messages of a segment that is worth emptying: one that mostly is dead, in a log that mostly
    /// holds more than what lives. `false`, and nothing happens, if there is none. The answer is a [`StoreEvent::Old`],
    /// which is to be dealt with before the next call.
    fn reclaim(&mut self) -> bool;

    /// Whether [`reclaim`](Store::reclaim) would find something to do.
    fn wants_reclaim(&self) -> bool;

    /// How many bytes of the log a restart would have to read.
    fn replay_bytes(&self) -> u64;

    /// Whether a restart would have to read so much that a checkpoint is worth its cost.
    fn wants_checkpoint(&self) -> bool;

    /// Whether a checkpoint would let so much of the log go that it is worth its cost to an owner who has nothing else
    /// to do.
    fn wants_idle_checkpoint(&self) -> bool;

    /// Begins a checkpoint, and drops an unfinished one.
    fn begin_checkpoint(&mut self);

    /// Adds a piece: a `Fact`, `Queue` or `Waiting` that is true now. A fact that holds all the time has to be in it,
    /// and a queue before what waits in it.
    fn checkpoint(&mut self, piece: Record<'_>);

    /// Whether so much of the checkpoint waits to be written that its next pieces had better wait, too, until there is
    /// news.
    fn checkpoint_is_behind(&self) -> bool;

    /// The checkpoint is complete. It counts once it is durable.
    fn end_checkpoint(&mut self);

    /// Flushes, and notes at the end that the stop was clean, which the next open is told. Nothing may be appended
    /// after it.
    fn close(&mut self);
}
