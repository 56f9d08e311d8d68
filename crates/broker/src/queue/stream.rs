//! A stream: a queue whose messages stay, and whose consumers each read them from a place of their own.
//!
//! Its messages stand in the queue's index as any others that are in the log only, so that a reader needs no more than
//! the `seq` that comes next for it, and millions of messages take a few bytes. A message's *offset* is its `seq` less
//! one. Since nothing in a stream expires by itself, the place of a message says in `expires_at_ms` when it was appended,
//! in whole seconds: log, index and checkpoint keep that as they are, and what came in one second is still one run.
//!
//! Readers get what is durable and nothing else: an offset that was seen never names another message, whatever happens.
//! The newest messages are in memory too while there are readers, so that those who keep up read nothing from the disk.
//!
//! What a reader has not settled is only counted. Its deliveries are numbered, and go out under that number and the
//! reader's id in the place of a `seq`: so a settlement finds its reader, and those that follow one another are one.

mod offset;
mod reader;

pub(crate) use offset::{Offset, age_ms};
pub(crate) use reader::{Filter, Reader};

use super::Holder;
use super::backlog::Backlog;
use super::ready::NEAR_BYTES;
use super::run::Run;
use crate::message::Message;
use crate::shard::slots::Slot;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use store::{Lsn, Seq};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    readers: FxHashMap<Slot<Holder>, Reader>,
    by_id: FxHashMap<u32, Slot<Holder>>,
    last_id: u32,
    /// The last message, and its record.
    appended: Option<(Seq, Lsn)>,
    /// Messages that are the last up to a record which is not durable yet.
    unsynced: VecDeque<(Seq, Lsn)>,
    /// All up to here are durable.
    readable: Option<Seq>,
    /// The log is to say when the first of `unsynced` is.
    pub(crate) is_awaiting: bool,
    /// When the last message was appended.
    last_ms: u64,
    /// The newest messages, without a gap, …
    tail: VecDeque<Message>,
    /// … from this one on.
    tail_first: Option<Seq>,
    /// What they may take in memory, …
    pub(crate) tail_bytes_max: u64,
    /// … and what they and those that were read ahead do take.
    near_bytes: u64,
    tail_bytes: u64,
    /// What the shard's budget counts of that.
    pub(crate) counted_bytes: u64,
    /// It was too long, and is being made shorter.
    pub(crate) is_shrinking: bool,
    /// Room to work in.
    pub(crate) idle: Vec<Slot<Holder>>,
}

/// What there is for a reader.
#[derive(Debug)]
pub(crate) enum Next {
    /// A message, which has left its place before the reader.
    Message(Seq, Message),
    /// It has to be read first, from this one on.
    Unread,
    /// It is being read.
    Awaited,
    /// Nothing that is durable.
    End,
}

impl Stream {
    /// When a message is appended that comes now. Times never go back, so that they can be searched.
    pub(crate) fn time_ms(&mut self, unix_ms: u64) -> u64 {
        self.last_ms = self.last_ms.max(whole_seconds(unix_ms)).max(SECOND_MS);
        self.last_ms
    }

    /// What the log had at a start is durable.
    pub(crate) fn recover(&mut self, found: &Backlog, last: Seq) {
        self.readable = Some(last);
        let newest = found.last_seq().and_then(|seq| found.get(seq));
        self.last_ms = newest.map_or(0, |run| run.expires_at_ms);
    }

    /// A message was appended.
    pub(crate) fn note_appended(&mut self, seq: Seq, lsn: Lsn, message: Message) {
        self.appended = Some((seq, lsn));
        if self.readers.is_empty() {
            return;
        }
        let bytes = near_bytes(&message);
        self.near_bytes += bytes;
        self.tail_bytes += bytes;
        self.tail_first.get_or_insert(seq);
        self.tail.push_back(message);
        while self.tail_bytes > self.tail_bytes_max {
            self.drop_first_of_tail();
        }
    }

    fn drop_first_of_tail(&mut self) {
        let Some(message) = self.tail.pop_front() else { return };
        let bytes = near_bytes(&message);
        self.near_bytes -= bytes;
        self.tail_bytes -= bytes;
        self.tail_first = self.tail_first.filter(|_| !self.tail.is_empty()).map(|first| Seq(first.0 + 1));
    }

    /// Nothing below this one is there any more.
    pub(crate) fn forget_below(&mut self, seq: Seq) {
        while self.tail_first.is_some_and(|first| first < seq) {
            self.drop_first_of_tail();
        }
    }

    /// Some of the newest may have gone, or nobody reads them.
    pub(crate) fn forget_tail(&mut self) {
        self.near_bytes -= self.tail_bytes;
        self.tail_bytes = 0;
        self.tail_first = None;
        self.tail = VecDeque::new();
    }

    /// Learns what is durable by now; `is_durable` tells it of a record.
    pub(crate) fn note_durable(&mut self, is_durable: impl Fn(Lsn) -> bool) {
        if let Some(appended) = self.appended.take() {
            if self.unsynced.len() >= UNSYNCED_MAX {
                self.unsynced.pop_back();
            }
            self.unsynced.push_back(appended);
        }
        while let Some((seq, _)) = self.unsynced.pop_front_if(|(_, lsn)| is_durable(*lsn)) {
            self.readable = Some(seq);
        }
    }

    /// The record that readers wait for who have read all that is durable.
    pub(crate) fn awaited(&self) -> Option<Lsn> {
        self.unsynced.front().map(|(_, lsn)| *lsn)
    }

    /// The last message that readers may get.
    pub(crate) fn readable(&self) -> Seq {
        self.readable.unwrap_or(Seq(0))
    }

    /// Up to which message a reader has to have what comes next read; the later ones are in memory.
    pub(crate) fn unread_until(&self) -> Seq {
        self.tail_first.map_or(self.readable(), |first| self.readable().min(Seq(first.0 - 1)))
    }

    /// What its messages take in memory.
    pub(crate) fn near_bytes(&self) -> u64 {
        self.near_bytes
    }

    /// Whether there is room for one more consumer.
    pub(crate) fn has_room(&self) -> bool {
        self.readers.len() < READERS_MAX as usize
    }

    /// Takes a consumer in, for which there is room, and which reads from there on.
    pub(crate) fn add_reader(&mut self, holder: Slot<Holder>, from: Seq, filter: Option<Filter>) {
        let next = |id: u32| if id >= READERS_MAX { 1 } else { id + 1 };
        let mut id = next(self.last_id);
        while self.by_id.contains_key(&id) {
            id = next(id);
        }
        self.last_id = id;
        self.by_id.insert(id, holder);
        self.readers.insert(holder, Reader::new(id, from, filter));
    }

    /// A consumer is gone.
    pub(crate) fn remove_reader(&mut self, holder: Slot<Holder>) {
        let Some(reader) = self.readers.remove(&holder) else { return };
        self.near_bytes -= reader.ahead_bytes();
        self.by_id.remove(&reader.id());
        if self.readers.is_empty() {
            self.forget_tail();
        }
    }

    /// A consumer's reader.
    pub(crate) fn reader(&self, holder: Slot<Holder>) -> Option<&Reader> {
        self.readers.get(&holder)
    }

    pub(crate) fn reader_mut(&mut self, holder: Slot<Holder>) -> Option<&mut Reader> {
        self.readers.get_mut(&holder)
    }

    /// The consumer whose reader has this id.
    pub(crate) fn holder_of(&self, id: u32) -> Option<Slot<Holder>> {
        self.by_id.get(&id).copied()
    }

    /// Takes what is next for a consumer.
    pub(crate) fn next_for(&mut self, holder: Slot<Holder>) -> Next {
        let readable = self.readable();
        let Some(reader) = self.readers.get_mut(&holder) else { return Next::End };
        if let Some((seq, message)) = reader.take_ahead() {
            self.near_bytes -= near_bytes(&message);
            return Next::Message(seq, message);
        }
        let seq = reader.next();
        if reader.is_reading {
            return Next::Awaited;
        }
        if seq > readable {
            return Next::End;
        }
        let at = self.tail_first.and_then(|first| seq.0.checked_sub(first.0));
        match at.and_then(|at| self.tail.get(at as usize)) {
            Some(message) => {
                reader.pass(seq);
                Next::Message(seq, message.clone())
            }
            None => Next::Unread,
        }
    }

    /// A message was read for a consumer.
    pub(crate) fn add_ahead(&mut self, holder: Slot<Holder>, seq: Seq, message: Message) {
        if let Some(reader) = self.readers.get_mut(&holder) {
            self.near_bytes += near_bytes(&message);
            reader.add_ahead(seq, message);
        }
    }
}

/// What a message takes in memory.
fn near_bytes(message: &Message) -> u64 {
    u64::from(message.payload_bytes()) + NEAR_BYTES
}

/// The time of a message is told in whole seconds.
fn whole_seconds(unix_ms: u64) -> u64 {
    unix_ms - unix_ms % SECOND_MS
}

/// When the second of a message was over.
pub(crate) fn second_is_over_ms(run: &Run) -> u64 {
    run.expires_at_ms.saturating_add(SECOND_MS)
}

const SECOND_MS: u64 = 1000;
/// How many moments of the log are told apart: more wait for the later of two.
const UNSYNCED_MAX: usize = 64;
/// How many consumers a stream may have: as many as there are ids.
const READERS_MAX: u32 = (1 << reader::ID_BITS) - 1;
