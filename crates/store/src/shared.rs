//! What the three parts of a log share: the owner's orders, and what came of them.
//!
//! Each lock is held for a few moves of memory, never while the disk is waited for.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::footer::{Layout, Mark};
use crate::segment::RESERVE;
use crate::{Disk, Lsn, LsnRange, StoreEvent};

/// A run of whole chains that goes to one segment, with room for its batch record in front.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) segment: u64,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) bytes: Vec<u8>,
    /// Places in `bytes`.
    pub(crate) marks: Vec<Mark>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// The inbox has news for the writer.
    wake_writer: Condvar,
    desk: Mutex<Desk>,
    /// The desk has news for the caretaker.
    wake_caretaker: Condvar,
    /// The caretaker knows of the copies.
    wake_holder: Condvar,
    /// The segment that is being written, as far as it is.
    growing: Mutex<(u64, Layout)>,
}

/// The log's orders to the writer and the writer's answers.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// To be written, in order.
    pub(crate) chunks: VecDeque<Chunk>,
    /// Empty buffers to use again.
    pub(crate) spare: Vec<Vec<u8>>,
    /// Somebody waits for a sync.
    pub(crate) sync_is_wanted: bool,
    /// The owner wakes the writer's thread itself.
    pub(crate) is_attended: bool,
    /// A round was done that the writer's thread has to know of.
    pub(crate) was_changed: bool,
    /// The log is to be closed after what is in `chunks`.
    pub(crate) is_closing: bool,
    /// The log's value is gone; nothing will follow.
    pub(crate) is_abandoned: bool,
    /// Everything up to here is in a file.
    pub(crate) written: Lsn,
    /// Everything up to here survives a power cut.
    pub(crate) durable: Lsn,
    /// How many bytes of chunks were written since the log was opened.
    pub(crate) written_bytes: u64,
    /// Segments that got a footer since this was last looked at, and how long it is.
    pub(crate) footers: Vec<(u64, u64)>,
    /// The writer waits for room.
    pub(crate) is_stuck: bool,
    pub(crate) reserve: Reserve,
    /// Why nothing touches the disk any more.
    pub(crate) failure: Option<String>,
}

/// The file whose room is for the time when there is no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reserve {
    /// There is to be none.
    #[default]
    Unwanted,
    /// It is there.
    Kept,
    /// It was given up, or could not be made.
    Lost,
}

/// The log's orders to the caretaker and the caretaker's answers.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) reads: VecDeque<ReadOrder>,
    /// Messages of this segment are to be offered to the owner, from this place on.
    pub(crate) offer: Option<Offer>,
    pub(crate) parts: VecDeque<Part>,
    /// Segments to remove.
    pub(crate) dead: VecDeque<u64>,
    pub(crate) is_closing: bool,
    pub(crate) is_abandoned: bool,
    /// Nothing touches the disk any more.
    pub(crate) has_failed: bool,
    pub(crate) reserve_is_lost: bool,
    /// The writer's news: everything up to here survives a power cut, …
    pub(crate) durable: Lsn,
    /// … and so does this segment's name and header.
    pub(crate) synced_segment: u64,
    /// The writer has ended.
    pub(crate) writer_is_over: bool,
    /// The caretaker has ended.
    pub(crate) is_over: bool,
    /// How many copies are being made: as long as there are any, no file goes that a start might need.
    pub(crate) holds: u32,
    /// The caretaker knows of them: the checkpoint that counts, if there is one.
    pub(crate) held: Option<Option<u64>>,
    /// For the owner.
    pub(crate) answers: Vec<StoreEvent>,
    /// About what the answers to reads take.
    pub(crate) answered_bytes: u64,
    /// How far the last offer came; `None` within if it was the last of its segment.
    pub(crate) offered: Option<Option<Mark>>,
    pub(crate) checkpoints: Vec<Checkpointed>,
}

/// Messages to read, of which each lies in a segment that is still there.
#[derive(Debug)]
pub(crate) struct ReadOrder {
    pub(crate) ticket: u64,
    pub(crate) pieces: Vec<(Whereabouts, LsnRange)>,
}

/// A segment to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    pub(crate) number: u64,
    pub(crate) first: Lsn,
    /// The position after its last record, if it is sealed; otherwise beyond all.
    pub(crate) end: Lsn,
}

/// See [`Desk::offer`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) segment: Whereabouts,
    pub(crate) from: Option<Mark>,
}

/// A piece of a checkpoint's file.
#[derive(Debug)]
pub(crate) enum Part {
    /// A new file of that number; an unfinished one is dropped.
    Begin(u64, Vec<u8>),
    More(Vec<u8>),
    /// What makes it count, once the log is durable up to there.
    End(Vec<u8>, Lsn),
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checkpointed {
    /// It is durable, and has that size.
    Done(u64, u64),
    /// There was no room for it.
    NoRoom,
    /// There may be room for another by now.
    TryAgain,
}

impl Inbox {
    /// Whether publishers had better wait.
    pub(crate) fn is_full(&self) -> bool {
        self.is_stuck || self.reserve == Reserve::Lost
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
    pub(crate) fn new(durable: Lsn, growing: (u64, Layout), reserve: Reserve) -> Shared {
        Shared {
            inbox: Mutex::new(Inbox { durable, written: durable, reserve, ..Inbox::default() }),
            wake_writer: Condvar::new(),
            desk: Mutex::new(Desk {
                durable,
                synced_segment: growing.0,
                reserve_is_lost: reserve == Reserve::Lost,
                ..Desk::default()
            }),
            wake_caretaker: Condvar::new(),
            wake_holder: Condvar::new(),
            growing: Mutex::new(growing),
        }
    }

    /// No code panics while it holds one of the locks, and every value is set in one step, so a poisoned one is sound.
    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn growing(&self) -> MutexGuard<'_, (u64, Layout)> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn writer_bell(&self) -> &Condvar {
        &self.wake_writer
    }

    pub(crate) fn holder_bell(&self) -> &Condvar {
        &self.wake_holder
    }

    pub(crate) fn caretaker_bell(&self) -> &Condvar {
        &self.wake_caretaker
    }

    /// Notes why the disk is not touched any more, unless another reason came first, and tells everybody.
    pub(crate) fn fail<D: Disk>(&self, disk: &D, failure: Failure) {
        let Failure { doing, name, error } = failure;
        let what_now = match error.kind() {
            io::ErrorKind::NotFound => {
                "The directory or files in it were removed or moved away while the server ran. It stops, and confirms \
                 nothing that would not be there after a restart; put back what was there before the next start, which \
                 would begin an empty log without it"
            }
            // The error says what to do.
            io::ErrorKind::InvalidData => "The server stops",
            _ => {
                "The server stops, because what it holds in memory can no longer be trusted to match the disk; nothing \
                 that was confirmed is lost, and a restart recovers it"
            }
        };
        self.inbox().failure.get_or_insert_with(|| format!("cannot {doing} {}: {error}. {what_now}", disk.path(&name)));
        self.wake_writer.notify_one();
        self.desk().has_failed = true;
        self.wake_caretaker.notify_one();
    }

    /// The reserve is there again.
    pub(crate) fn note_reserve(&self) {
        self.desk().reserve_is_lost = false;
        self.inbox().reserve = Reserve::Kept;
    }

    /// Makes room at the cost of the reserve, if there is one.
    pub(crate) fn give_up_reserve<D: Disk>(&self, disk: &mut D) -> Result<bool, Failure> {
        let mut inbox = self.inbox();
        if inbox.reserve != Reserve::Kept {
            return Ok(false);
        }
        inbox.reserve = Reserve::Lost;
        drop(inbox);
        self.desk().reserve_is_lost = true;
        self.wake_caretaker.notify_one();
        match disk.remove(RESERVE) {
            // Whoever removed it made the room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(Failure { doing: "remove", name: RESERVE.to_owned(), error }),
            Ok(()) => Ok(true),
        }
    }
}

/// Something that the disk did not do.
#[derive(Debug)]
pub(crate) struct Failure {
    /// In words that follow "cannot".
    pub(crate) doing: &'static str,
    /// The file.
    pub(crate) name: String,
    pub(crate) error: io::Error,
}

const SPARE_BUFFERS_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 4 << 20;
/// From so much on that was read and not yet heard of, nothing more is read.
pub(crate) const ANSWERED_BYTES_MAX: u64 = 8 << 20;
