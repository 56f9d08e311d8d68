//! The part of the log that looks after what is already written: reads messages back, writes checkpoints, offers what
//! still lives in old segments, and removes files. Nobody who waits for a confirm waits for any of this.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::disk::{is_full, write_all};
use crate::reader::{Reader, Unreadable};
use crate::segment::{self, Content, RESERVE};
use crate::shared::{ANSWERED_BYTES_MAX, Checkpointed, Desk, Failure, Offer, Part, ReadOrder, Shared};
use crate::{Disk, Lsn, Step, StoreEvent};

/// Serves the [`SegmentLog`](crate::SegmentLog) it was opened with.
#[derive(Debug)]
pub struct Caretaker<D> {
    disk: D,
    shared: Arc<Shared>,
    reader: Reader<D>,
    /// The checkpoint that counts.
    durable_index: Option<u64>,
    /// Checkpoints that do not count any more and are held for a copy.
    former_indexes: Vec<u64>,
    writing: Option<Writing>,
    reserve_bytes: u64,
    /// There was no room for the reserve, or for a checkpoint; then it is tried again.
    retry_reserve_at: Option<Duration>,
    retry_checkpoint_at: Option<Duration>,
    /// How long the next checkpoint without room is to wait.
    checkpoint_pause: Duration,
    is_over: Option<Step>,
}

/// A checkpoint that is being written.
#[derive(Debug)]
struct Writing {
    number: u64,
    name: String,
    bytes: u64,
}

/// What a round took from the desk.
#[derive(Debug)]
struct Orders {
    reads: Vec<ReadOrder>,
    offer: Option<Offer>,
    part: Option<Part>,
    dead: Vec<u64>,
    former_indexes: Vec<u64>,
    /// There is more to do at once.
    is_pressed: bool,
    is_closing: bool,
    is_abandoned: bool,
    has_failed: bool,
    reserve_is_lost: bool,
}

impl<D: Disk> Caretaker<D> {
    pub(crate) fn new(
        disk: D,
        shared: Arc<Shared>,
        reader: Reader<D>,
        durable_index: Option<u64>,
        reserve_bytes: u64,
    ) -> Caretaker<D> {
        Caretaker {
            disk,
            shared,
            reader,
            durable_index,
            former_indexes: Vec::new(),
            writing: None,
            reserve_bytes,
            retry_reserve_at: None,
            retry_checkpoint_at: None,
            checkpoint_pause: RETRY_AFTER,
            is_over: None,
        }
    }

    /// Works until the log is closed or dropped or the disk fails, as [`SharedWriter::run`](crate::SharedWriter::run) does, on
    /// another thread.
    pub fn run(mut self, clock: impl Fn() -> Duration, notify: impl Fn()) {
        loop {
            match self.step(clock()) {
                Step::Idle => self.sleep(&clock),
                Step::Wrote | Step::Synced => notify(),
                Step::Closed | Step::Failed => return notify(),
            }
        }
    }

    /// Does one round: all reads that wait, and a little of everything else. `now` says how long ago some fixed moment
    /// was; it decides nothing but when a full disk is tried again.
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
            self.shared.desk().is_over = true;
            self.shared.holder_bell().notify_all();
        }
        step
    }

    fn round(&mut self, now: Duration) -> Result<Step, Failure> {
        let orders = self.take_orders();
        if orders.has_failed {
            return Ok(Step::Failed);
        }
        if orders.is_abandoned && !orders.is_closing {
            return Ok(Step::Closed);
        }
        let mut has_worked = false;
        for order in orders.reads {
            self.read(order)?;
            has_worked = true;
        }
        if let Some(part) = orders.part {
            self.write_part(part, now)?;
            has_worked = true;
        }
        if let Some(offer) = orders.offer {
            self.offer(offer)?;
            has_worked = true;
        }
        for number in orders.former_indexes {
            self.remove(&Content::Index.file_name(number))?;
            has_worked = true;
        }
        for number in orders.dead {
            // By the reader's disk, which may have the file open, and what is open keeps its room.
            let name = segment::file_name(number);
            let removed = self.reader.remove(number, &name);
            removed.map_err(|error| Failure { doing: "remove", name, error })?;
            has_worked = true;
        }
        if orders.is_closing && !has_worked && !orders.is_pressed {
            self.drop_unfinished()?;
            return Ok(Step::Closed);
        }
        if orders.reserve_is_lost && self.retry_reserve_at.is_none_or(|at| at <= now) {
            has_worked |= self.make_reserve(now)?;
        }
        if self.retry_checkpoint_at.take_if(|at| *at <= now).is_some() {
            self.shared.desk().checkpoints.push(Checkpointed::TryAgain);
            has_worked = true;
        }
        Ok(if has_worked { Step::Wrote } else { Step::Idle })
    }

    /// All reads come first: whatever is to be removed was asked for before it was ordered away.
    fn take_orders(&mut self) -> Orders {
        let mut desk = self.shared.desk();
        let mut part = if self.is_part_ready(&desk) { desk.parts.pop_front() } else { None };
        // Without a writer there is no more to wait for.
        part.take_if(|part| matches!(part, Part::End(_, needs) if !self.may_count(&desk, *needs)));
        let is_held = desk.holds > 0;
        if is_held && desk.held.is_none() {
            // All that was to be removed is removed: from here on what is there stays.
            desk.held = Some(self.durable_index);
            self.shared.holder_bell().notify_all();
        }
        // Answers that nobody has heard yet take memory: more are not read meanwhile, and nothing is removed that they
        // may be in.
        let reads_now = if desk.answered_bytes < ANSWERED_BYTES_MAX { desk.reads.len().min(READS_AT_ONCE) } else { 0 };
        let reads: Vec<_> = desk.reads.drain(..reads_now).collect();
        // A stop does not wait for removals: the next open does them.
        let may_remove = !is_held && !desk.is_closing && desk.reads.is_empty();
        let dead_now = if may_remove { desk.dead.len().min(REMOVALS_AT_ONCE) } else { 0 };
        Orders {
            former_indexes: if is_held { Vec::new() } else { std::mem::take(&mut self.former_indexes) },
            reads,
            offer: desk.offer.take(),
            part,
            dead: desk.dead.drain(..dead_now).collect(),
            is_pressed: !desk.parts.is_empty() || (!is_held && !desk.is_closing && !desk.dead.is_empty()),
            is_closing: desk.is_closing,
            is_abandoned: desk.is_abandoned,
            has_failed: desk.has_failed,
            reserve_is_lost: desk.reserve_is_lost,
        }
    }

    fn read(&mut self, order: ReadOrder) -> Result<(), Failure> {
        let ReadOrder { ticket, pieces } = order;
        let mut messages = Vec::new();
        let mut last = None;
        for (segment, range) in pieces {
            let so_far = messages.len();
            self.twice(segment.number, |reader| {
                messages.truncate(so_far);
                reader.read(segment, range, &mut last, &mut messages)
            })?;
        }
        // Each message may hold on to the piece of the file that it was read with.
        let bytes = messages.iter().map(|(_, payload)| payload.len() as u64 + HELD_BYTES).sum::<u64>();
        let mut desk = self.shared.desk();
        desk.answered_bytes += bytes;
        desk.answers.push(StoreEvent::Read { ticket, messages });
        Ok(())
    }

    fn offer(&mut self, offer: Offer) -> Result<(), Failure> {
        let Offer { segment, from } = offer;
        let (old, rest) = self.twice(segment.number, |reader| reader.offer(segment, from, OFFER_BYTES))?;
        let mut desk = self.shared.desk();
        desk.offered = Some(rest);
        desk.answers.push(StoreEvent::Old(old));
        Ok(())
    }

    /// Reads, and if that fails, once more, without anything that was kept from before.
    fn twice<T>(
        &mut self,
        number: u64,
        mut read: impl FnMut(&mut Reader<D>) -> Result<T, Unreadable>,
    ) -> Result<T, Failure> {
        read(&mut self.reader)
            .or_else(|_| {
                self.reader.forget(number);
                read(&mut self.reader)
            })
            .map_err(|why| Failure { doing: "read", name: segment::file_name(number), error: why.into_error() })
    }

    fn write_part(&mut self, part: Part, now: Duration) -> Result<(), Failure> {
        match part {
            Part::Begin(number, bytes) => {
                self.drop_unfinished()?;
                let name = Content::Index.file_name(number);
                while let Err(error) = self.disk.create(&name) {
                    if !is_full(&error) || !self.shared.give_up_reserve(&mut self.disk)? {
                        return self.without_room("create", name, error, now);
                    }
                }
                self.writing = Some(Writing { number, name, bytes: 0 });
                self.add(&bytes, now)
            }
            Part::More(bytes) => self.add(&bytes, now),
            Part::End(bytes, _) => {
                self.add(&bytes, now)?;
                self.sync()?;
                self.replace_index()
            }
        }
    }

    /// Adds to the checkpoint, unless there was no room for what came before.
    fn add(&mut self, bytes: &[u8], now: Duration) -> Result<(), Failure> {
        while let Some(writing) = &mut self.writing {
            match write_all(&mut self.disk, &writing.name, writing.bytes, bytes) {
                Ok(()) => {
                    writing.bytes += bytes.len() as u64;
                    break;
                }
                Err(error) if is_full(&error) && self.shared.give_up_reserve(&mut self.disk)? => {}
                Err(error) => {
                    let name = writing.name.clone();
                    return self.without_room("write to", name, error, now);
                }
            }
        }
        Ok(())
    }

    /// Gives the checkpoint up if the disk is full: the log is as good without it.
    fn without_room(
        &mut self,
        doing: &'static str,
        name: String,
        error: io::Error,
        now: Duration,
    ) -> Result<(), Failure> {
        if !is_full(&error) {
            return Err(Failure { doing, name, error });
        }
        self.drop_unfinished()?;
        // Each attempt takes a little room itself where acknowledgements have come since the last one.
        self.retry_checkpoint_at = Some(now + self.checkpoint_pause);
        self.checkpoint_pause = (self.checkpoint_pause * 2).min(RETRY_AFTER_MOST);
        self.shared.desk().checkpoints.push(Checkpointed::NoRoom);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        let Some(writing) = &self.writing else { return Ok(()) };
        let synced = self.disk.sync(&writing.name);
        synced.map_err(|error| Failure { doing: "sync", name: writing.name.clone(), error })
    }

    /// The checkpoint is durable: the one before it goes.
    fn replace_index(&mut self) -> Result<(), Failure> {
        let Some(Writing { number, bytes, .. }) = self.writing.take() else { return Ok(()) };
        self.checkpoint_pause = RETRY_AFTER;
        // It goes in the next round, unless it is held.
        self.former_indexes.extend(self.durable_index.replace(number));
        self.shared.desk().checkpoints.push(Checkpointed::Done(number, bytes));
        Ok(())
    }

    fn drop_unfinished(&mut self) -> Result<(), Failure> {
        match self.writing.take() {
            Some(writing) => self.remove(&writing.name),
            None => Ok(()),
        }
    }

    fn remove(&mut self, name: &str) -> Result<(), Failure> {
        let removed = self.disk.remove(name);
        removed.map_err(|error| Failure { doing: "remove", name: name.to_owned(), error })
    }

    /// Whether there was room for the reserve.
    fn make_reserve(&mut self, now: Duration) -> Result<bool, Failure> {
        // The writer needs the room more.
        let is_made = !self.shared.inbox().is_stuck && make_reserve(&mut self.disk, self.reserve_bytes)?;
        if is_made {
            self.shared.note_reserve();
            self.retry_reserve_at = None;
        } else {
            self.retry_reserve_at = Some(now + RETRY_AFTER);
        }
        Ok(is_made)
    }

    fn sleep(&self, clock: &impl Fn() -> Duration) {
        let bell = self.shared.caretaker_bell();
        let mut desk = self.shared.desk();
        while !self.has_work(&desk) {
            let reserve_at = if desk.reserve_is_lost { self.retry_reserve_at } else { None };
            let Some(at) = self.retry_checkpoint_at.into_iter().chain(reserve_at).min() else {
                desk = bell.wait(desk).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = at.saturating_sub(clock());
            if left.is_zero() {
                return;
            }
            desk = bell.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn has_work(&self, desk: &Desk) -> bool {
        desk.has_failed
            || desk.is_abandoned
            || (desk.is_closing && desk.parts.is_empty())
            || (desk.reserve_is_lost && self.retry_reserve_at.is_none())
            || (!desk.reads.is_empty() && desk.answered_bytes < ANSWERED_BYTES_MAX)
            || (desk.holds > 0 && desk.held.is_none())
            || (desk.holds == 0 && !(desk.dead.is_empty() && self.former_indexes.is_empty()))
            || desk.offer.is_some()
            || self.is_part_ready(desk)
    }

    /// Whether the next part can be dealt with: an end has to wait for the log.
    fn is_part_ready(&self, desk: &Desk) -> bool {
        match desk.parts.front() {
            Some(Part::End(_, needs)) => desk.writer_is_over || self.may_count(desk, *needs),
            Some(_) => true,
            None => false,
        }
    }

    fn may_count(&self, desk: &Desk, needs: Lsn) -> bool {
        desk.durable >= needs && self.writing.as_ref().is_none_or(|writing| desk.synced_segment >= writing.number)
    }
}

/// Makes the file whose room is for the time when there is no other. Whether there was room for it comes back.
pub(crate) fn make_reserve<D: Disk>(disk: &mut D, bytes: u64) -> Result<bool, Failure> {
    let Err(error) = fill_reserve(disk, bytes) else { return Ok(true) };
    if error.kind() == io::ErrorKind::AlreadyExists {
        // The writer gives it up this very moment, and has yet to remove it.
        return Ok(false);
    }
    if !is_full(&error) {
        return Err(Failure { doing: "write to", name: RESERVE.to_owned(), error });
    }
    match disk.remove(RESERVE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure { doing: "remove", name: RESERVE.to_owned(), error })
        }
        _ => Ok(false),
    }
}

fn fill_reserve<D: Disk>(disk: &mut D, bytes: u64) -> io::Result<()> {
    disk.create(RESERVE)?;
    let zeros = vec![0; bytes.min(RESERVE_STEP) as usize];
    let mut offset = 0;
    while offset < bytes {
        let step = (bytes - offset).min(RESERVE_STEP);
        write_all(disk, RESERVE, offset, &zeros[..step as usize])?;
        offset += step;
    }
    disk.sync(RESERVE)
}

/// How much of a segment is offered at once.
const OFFER_BYTES: u64 = 1 << 20;
/// Each takes a sync of the directory, and readers wait meanwhile.
const REMOVALS_AT_ONCE: usize = 4;
/// How long after it was found full the disk is tried again for what can wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The same after many attempts.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(32);
const RESERVE_STEP: u64 = 64 << 10;
/// How many reads are answered before their owner is told.
const READS_AT_ONCE: usize = 64;
/// What a message that was read may hold on to beside its own bytes: a share of what was read with it.
const HELD_BYTES: u64 = 512;
