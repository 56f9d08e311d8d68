//! What operators ask of a queue: pause, and walks over its messages that show, delete, move, requeue or release them.
//!
//! A walk goes a piece at a time ([`Scan`]). What of a piece is far is read; by the time it is here some of it may have
//! left, and that is passed over. A message that is moved within this shard leaves its queue and enters the other in one
//! record, as a dead letter does; one that goes to another shard stays in the log until that shard has it, and comes back
//! to its place if that shard has no room.

use super::Shard;
use super::dead_letter::{Moving, Purpose};
use super::log::Waiter;
use super::publish::Terms;
use super::read::{Reading, ranges};
use super::slots::Slot;
use crate::command::{Delay, IfRefused, Publish, QueueIds, ShardId, ShardInput};
use crate::message::{Message, MessageParts, parse_expiration};
use crate::operation::{Act, Answer, Cursor, Death, Next, Operation, Page, Scan, Shown, Target, Time, Which};
use crate::queue::Queue;
use crate::queue::dead_letter::{origin, told_failure};
use crate::queue::owed::Died;
use crate::queue::ready::{Body, Entry};
use crate::queue::run::Run;
use crate::topology::Topology;
use amqp::Properties;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use store::{Lsn, QueueId, Seq, Store};

/// A piece of a walk whose messages are known, and being read.
#[derive(Debug)]
pub(super) struct Scanning {
    ticket: u64,
    queue: QueueId,
    scan: Scan,
    found: Vec<Found>,
    next: Option<Next>,
}

/// A message that a walk came to.
#[derive(Debug)]
struct Found {
    run: Run,
    /// Its bytes, if it is near.
    message: Option<Message>,
    /// A consumer had it then: one that gets it while others are read is left alone.
    is_unacked: bool,
    /// Where a walk goes on that ends before it.
    here: Next,
}

/// A page that waits for other shards to take what was moved there.
#[derive(Debug)]
pub(super) struct Pending {
    page: Page,
    left: usize,
}

/// How long a delayed message waits where it is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Until the time that it has.
    AsBefore,
    /// It is due there at once.
    Not,
}

/// What became of a message that is to be moved.
enum Moved {
    /// Another queue has it.
    Done,
    /// Another shard is to say so.
    Underway,
    /// Whoever was to have it is full.
    Refused,
    /// Nobody is to have it.
    Unroutable,
    /// It left in the meantime.
    Gone,
}

impl<S: Store> Shard<S> {
    pub(super) fn operate(&mut self, ticket: u64, queue: QueueId, operation: Operation, topology: &Topology) {
        let Some(&slot) = self.queue_slots.get(&queue) else {
            return self.out.answers.push((ticket, Answer::Missing));
        };
        match operation {
            Operation::Pause => self.pause(ticket, slot, true),
            Operation::Resume => self.pause(ticket, slot, false),
            Operation::Redrive(redrive) => {
                self.queues[slot].redrive = Some(redrive);
                let lsn = self.put_queue_fact(slot);
                self.answer_operation(ticket, lsn, Answer::Done);
            }
            Operation::Scan(scan) => self.scan(ticket, slot, scan, topology),
            Operation::Leases { from, count } => {
                let answer = self.leases(slot, from, count);
                self.out.answers.push((ticket, answer));
            }
            Operation::Extend { seq, ms } => {
                let answer = if self.extend(slot, seq, ms) { Answer::Done } else { Answer::NotHeld };
                self.out.answers.push((ticket, answer));
            }
        }
    }

    fn pause(&mut self, ticket: u64, slot: Slot<Queue>, is_paused: bool) {
        let queue = &mut self.queues[slot];
        let is_new = queue.is_paused != is_paused;
        queue.is_paused = is_paused;
        let lsn = match queue.spec.durable {
            true if is_new => self.put_queue_fact(slot),
            // What is so already may not be durable yet.
            true => self.log.last(),
            false => Lsn::ZERO,
        };
        self.touch(slot);
        self.answer_operation(ticket, lsn, Answer::Done);
    }

    /// Writes what a durable queue is to be after a restart.
    fn put_queue_fact(&mut self, slot: Slot<Queue>) -> Lsn {
        let queue = &self.queues[slot];
        if !queue.spec.durable {
            return Lsn::ZERO;
        }
        let (key, value) = queue.spec.fact_with(queue.is_paused, queue.redrive.as_deref());
        self.log.put_fact(key, value)
    }

    fn answer_operation(&mut self, ticket: u64, lsn: Lsn, answer: Answer) {
        self.when_durable(lsn, Waiter::Operation { ticket, answer: Box::new(answer) });
    }

    fn scan(&mut self, ticket: u64, slot: Slot<Queue>, scan: Scan, topology: &Topology) {
        let queue = &self.queues[slot];
        let id = queue.spec.queue.id;
        let tried = match (&scan.which, &scan.act) {
            (Which::Owed { .. } | Which::These(_), Act::Show) => self.tried(id),
            _ => Vec::new(),
        };
        let (runs, next) = find(queue, &scan, &tried);
        let needs_bytes = scan.needs_bytes();
        let mut found = Vec::with_capacity(runs.len());
        let mut unread = Vec::new();
        for (run, here) in runs {
            let near = queue.ready.near((run.priority, run.seq));
            let message = near.or_else(|| queue.unacked.near(run.seq).and_then(Entry::message)).cloned();
            if message.is_none() && needs_bytes {
                unread.push(run);
            }
            let is_unacked = queue.unacked.find(run.seq).is_some();
            found.push(Found { run, message, is_unacked, here });
        }
        let scanning = Scanning { ticket, queue: id, scan, found, next };
        if unread.is_empty() {
            return self.finish_scan(scanning, Vec::new(), topology);
        }
        self.last_read += 1;
        self.log.read(self.last_read, &ranges(&unread));
        self.readings.insert(self.last_read, Reading::Scan(Box::new(scanning)));
    }

    /// All bytes are here.
    pub(super) fn finish_scan(&mut self, scanning: Scanning, read: Vec<(Lsn, Bytes)>, topology: &Topology) {
        let Scanning { ticket, queue: id, scan, found, next } = scanning;
        let Some(&slot) = self.queue_slots.get(&id) else {
            return self.out.answers.push((ticket, Answer::Missing));
        };
        let read: FxHashMap<Lsn, Bytes> = read.into_iter().collect();
        let mut page = Page::new(self.queues[slot].next_seq(), next);
        let mut underway = 0;
        for Found { run, message, is_unacked, here } in found {
            if page.shown.len() as u64 + page.done + underway >= u64::from(scan.count) {
                page.next = Some(here);
                break;
            }
            let message = match (message, read.get(&run.lsn)) {
                (None, Some(bytes)) => match Message::parse(bytes.clone()) {
                    Ok(message) => Some(message),
                    Err(_) => return self.fail_to_read(run.lsn),
                },
                (message, _) => message,
            };
            if !scan.filter.terms.is_empty() && !message.as_ref().is_some_and(|message| scan.filter.matches(message)) {
                page.passed += 1;
                continue;
            }
            let moved = match (&scan.act, message) {
                (Act::Show, Some(message)) => {
                    page.shown.extend(self.show(slot, &run, message));
                    continue;
                }
                (Act::Requeue, _) if is_unacked => self.take_back_one(slot, run.seq),
                (act, message) => self.act(ticket, slot, &run, message, act, topology),
            };
            match moved {
                Moved::Done => page.done += 1,
                Moved::Underway => underway += 1,
                Moved::Unroutable => page.unroutable += 1,
                Moved::Gone => {}
                Moved::Refused => {
                    page.refused += 1;
                    page.next = Some(here);
                    break;
                }
            }
        }
        if scan.act == Act::Show {
            return self.out.answers.push((ticket, Answer::Page(page)));
        }
        if let Some(stream) = &mut self.queues[slot].stream {
            stream.forget_tail();
        }
        self.count_near(slot);
        self.touch(slot);
        if underway > 0 {
            let left = usize::try_from(underway).unwrap_or(usize::MAX);
            self.pending.insert(ticket, Pending { page, left });
        } else {
            self.answer_page(ticket, page);
        }
    }

    /// Does to one message what is to be done to it.
    fn act(
        &mut self,
        ticket: u64,
        slot: Slot<Queue>,
        run: &Run,
        message: Option<Message>,
        act: &Act,
        topology: &Topology,
    ) -> Moved {
        match (act, message) {
            (Act::Delete, _) => self.delete_one(slot, run),
            (Act::Requeue, Some(message)) => {
                let own = self.queues[slot].spec.queue.id.into();
                self.move_one(ticket, slot, run, message, vec![(self.id, own)], Wait::Not)
            }
            (Act::Release, _) => self.release_one(slot, run),
            (Act::Move(target), Some(message)) => self.move_to(ticket, slot, run, message, target, topology),
            (Act::Redrive(from), Some(message)) => {
                let Some(whence) = origin(&message, &self.queues[slot].spec.name, *from) else {
                    return Moved::Unroutable;
                };
                let message = renamed(&message, &whence.exchange, &whence.routing_key);
                self.move_to(ticket, slot, run, message, &Target::Queue(whence.queue), topology)
            }
            // It left while it was read, or is only shown.
            (Act::Show, _) | (_, None) => Moved::Gone,
        }
    }

    /// What was done is to be on disk before it is told.
    fn answer_page(&mut self, ticket: u64, page: Page) {
        self.write_settled();
        let last = self.log.last();
        self.answer_operation(ticket, last, Answer::Page(page));
    }

    /// Another shard has taken a message that was moved there, or has not.
    pub(super) fn finish_move(&mut self, ticket: u64, is_taken: bool) {
        let Some(pending) = self.pending.get_mut(&ticket) else { return };
        pending.left -= 1;
        *(if is_taken { &mut pending.page.done } else { &mut pending.page.refused }) += 1;
        if pending.left == 0
            && let Some(Pending { page, .. }) = self.pending.remove(&ticket)
        {
            self.answer_page(ticket, page);
        }
    }

    fn show(&self, slot: Slot<Queue>, run: &Run, message: Message) -> Option<Shown> {
        let queue = &self.queues[slot];
        let death = Died::of(run.due_at_ms).map(|Died { reason, unix_s }| Death { reason: reason.name(), unix_s });
        let delayed = || queue.delayed.as_ref()?.find(run.seq, Some(run.due_at_ms));
        let (run, due_at_ms, lease) = if death.is_some() {
            (*run, None, None)
        } else if let Some(run) = queue.ready.find_hinted((run.priority, run.seq), Some(run.due_at_ms)) {
            (run, None, None)
        } else if let Some(run) = delayed() {
            (run, Some(run.due_at_ms), None)
        } else {
            (queue.unacked.find(run.seq)?, None, Some(self.lease(slot, run.seq)?))
        };
        let Run { seq, redelivered, attempts, priority, .. } = run;
        // That of a stream's message says when it came.
        let expires_at_ms = if queue.stream.is_some() || death.is_some() { 0 } else { run.expires_at_ms };
        let failure = queue.failure(seq).or_else(|| told_failure(&message));
        Some(Shown { seq, message, redelivered, attempts, expires_at_ms, due_at_ms, priority, lease, death, failure })
    }

    fn release_one(&mut self, slot: Slot<Queue>, run: &Run) -> Moved {
        let queue = &mut self.queues[slot];
        let Some(run) = queue.release_early(run, self.now.unix_ms) else { return Moved::Gone };
        if run.kept {
            self.log.append_released(queue.spec.queue.id, run.range(), run.due_at_ms);
        }
        Moved::Done
    }

    fn take_back_one(&mut self, slot: Slot<Queue>, seq: Seq) -> Moved {
        if self.queues[slot].unacked.find(seq).is_none() {
            return Moved::Gone;
        }
        self.take_back(slot, seq);
        Moved::Done
    }

    fn delete_one(&mut self, slot: Slot<Queue>, run: &Run) -> Moved {
        let queue = &mut self.queues[slot];
        let Some(entry) = queue.take_waiting(run) else { return Moved::Gone };
        queue.counters.purged += 1;
        self.retire(slot, &entry);
        Moved::Done
    }

    fn move_to(
        &mut self,
        ticket: u64,
        slot: Slot<Queue>,
        run: &Run,
        message: Message,
        target: &Target,
        topology: &Topology,
    ) -> Moved {
        let vhost = self.queues[slot].spec.vhost;
        let (message, targets) = match target {
            Target::Queue(name) => {
                let Some(queue) = topology.queue(vhost, name) else { return Moved::Unroutable };
                (message, vec![(queue.queue.shard, queue.queue.id.into())])
            }
            Target::Exchange { exchange, routing_key } => {
                let routing_key = routing_key.as_deref().unwrap_or(message.routing_key());
                let (properties, died_here) = (message.properties(), message.died_here());
                let parts = MessageParts { exchange, routing_key, properties, died_here };
                let message = Message::to_one_key(parts, message.body());
                let Ok(properties) = Properties::parse(message.properties()) else { return Moved::Unroutable };
                let routed = topology.route(vhost, exchange, &[message.routing_key()], &properties, &mut self.routes);
                if routed.is_err() {
                    return Moved::Unroutable;
                }
                (message, self.routes.by_shard().collect())
            }
        };
        self.move_one(ticket, slot, run, message, targets, Wait::AsBefore)
    }

    fn move_one(
        &mut self,
        ticket: u64,
        slot: Slot<Queue>,
        run: &Run,
        message: Message,
        targets: Vec<(ShardId, QueueIds)>,
        wait: Wait,
    ) -> Moved {
        if targets.is_empty() {
            return Moved::Unroutable;
        }
        let id = self.queues[slot].spec.queue.id;
        let queue = &mut self.queues[slot];
        let is_delayed = queue.ready.find_hinted((run.priority, run.seq), Some(run.due_at_ms)).is_none();
        let Some(mut entry) = queue.take_waiting(run) else { return Moved::Gone };
        queue.leave(1);
        let delay = (is_delayed && wait == Wait::AsBefore).then_some(Delay::Until(entry.due_at_ms));
        // Bytes that were read lie among others', which they must not keep in memory.
        let message = if entry.message().is_some() { message } else { alone(&message) };
        let (persistent, expiration_ms, priority) = terms(&message);
        let is_away = targets.iter().any(|(shard, _)| *shard != self.id);
        let moved_from = (entry.is_kept && !is_away).then_some((id, entry.seq));
        self.last_transfer += 1;
        let transfer = self.last_transfer;
        let (mut left, mut is_taken, mut moved_by) = (0, false, Lsn::ZERO);
        for (shard, queues) in targets {
            let (message, more) = (message.clone(), Vec::new());
            let confirm = true;
            let publish = Publish { queues, message, more, persistent, expiration_ms, priority, delay, confirm };
            if shard == self.id {
                let stored = self.publish(&publish.queues, publish.message.clone(), Terms::from(&publish), moved_from);
                is_taken |= stored.is_taken;
                moved_by = stored.logged;
            } else {
                let if_refused = IfRefused::Stays;
                self.out.shards.push((shard, ShardInput::Transfer { from: self.id, transfer, publish, if_refused }));
                left += 1;
            }
        }
        if left > 0 {
            if entry.is_logged() {
                entry.send_away();
            } else {
                entry.body = Body::Here(message);
            }
            self.queues[slot].begin_move(&entry.run());
            self.moving
                .insert(transfer, Moving { queue: id, entry, left, purpose: Purpose::Move { ticket, is_taken } });
            return Moved::Underway;
        }
        if !is_taken {
            self.stay(id, entry);
            return Moved::Refused;
        }
        if moved_from.is_some() && moved_by != Lsn::ZERO {
            self.log.release(&entry.run());
        } else {
            self.settle_place(id, &entry);
        }
        Moved::Done
    }

    /// A message that was to be moved keeps its place.
    pub(super) fn stay(&mut self, queue: QueueId, entry: Entry) {
        let Some(&slot) = self.queue_slots.get(&queue) else { return self.settle_place(queue, &entry) };
        self.queues[slot].come_back(entry, self.now.unix_ms);
        self.count_near(slot);
        self.touch(slot);
    }
}

impl Scan {
    /// Whether nothing can be done without the messages' bytes.
    fn needs_bytes(&self) -> bool {
        match self.act {
            _ if !self.filter.terms.is_empty() => true,
            Act::Delete | Act::Release => false,
            Act::Requeue => !matches!(self.which, Which::Unacked { .. }),
            Act::Show | Act::Move(_) | Act::Redrive(_) => true,
        }
    }
}

/// The messages that come next, each with where a walk goes on that ends before it, and where it goes on after them.
fn find(queue: &Queue, scan: &Scan, tried: &[Run]) -> (Vec<(Run, Next)>, Option<Next>) {
    let most = if scan.filter.terms.is_empty() { scan.count.min(PIECE_MAX) } else { PIECE_MAX } as usize;
    let mut piece = Piece { found: Vec::new(), bytes: 0, most };
    match &scan.which {
        Which::Ready { from, until } => {
            let next = find_ready(queue, *from, *until, &mut piece);
            (piece.found, next.map(Next::Ready))
        }
        Which::Unacked { from } => {
            let next = next_unacked(queue, *from, most).find(|run| !piece.take(*run, Next::Unacked(run.seq)));
            let end = piece.found.last().map(|(run, _)| Next::Unacked(Seq(run.seq.0 + 1)));
            let is_full = piece.found.len() >= most;
            (piece.found, next.map(|run| Next::Unacked(run.seq)).or(end.filter(|_| is_full)))
        }
        Which::Delayed { from, until } => {
            let next = find_delayed(queue, *from, *until, &mut piece);
            (piece.found, next.map(Next::Delayed))
        }
        Which::Owed { from } => {
            let next = next_owed(queue, tried, *from, most).find(|run| !piece.take(*run, Next::Owed(run.seq)));
            (piece.found, next.map(|run| Next::Owed(run.seq)))
        }
        Which::These(seqs) => {
            for (at, seq) in seqs.iter().enumerate() {
                let ready = || queue.ready.find_any(*seq).filter(|_| scan.act != Act::Release);
                let delayed = || queue.delayed.as_ref()?.find(*seq, None);
                let unacked = || queue.unacked.find(*seq).filter(|_| matches!(scan.act, Act::Show | Act::Requeue));
                let dead = || next_owed(queue, tried, *seq, 0).find(|run| run.seq == *seq && scan.act == Act::Show);
                let Some(run) = ready().or_else(delayed).or_else(unacked).or_else(dead) else { continue };
                if !piece.take(run, Next::These(at)) {
                    return (piece.found, Some(Next::These(at)));
                }
            }
            (piece.found, None)
        }
    }
}

/// The messages of a piece so far.
struct Piece {
    found: Vec<(Run, Next)>,
    bytes: u64,
    most: usize,
}

impl Piece {
    /// False where there is no room for one more.
    fn take(&mut self, run: Run, here: Next) -> bool {
        let is_full = self.found.len() >= self.most || self.bytes >= PIECE_BYTES;
        if !is_full {
            self.bytes += u64::from(run.payload_bytes);
            self.found.push((run, here));
        }
        !is_full
    }
}

fn find_ready(queue: &Queue, from: Cursor, until: Option<Seq>, piece: &mut Piece) -> Option<Cursor> {
    let (mut skip, mut runs) = (from.skip, 0);
    for priority in (0..=from.priority.min(queue.ready.highest())).rev() {
        let first = if priority == from.priority { from.seq } else { Seq(0) };
        for mut run in queue.ready.of_priority(priority, first) {
            if let Some(until) = until {
                let Some(before) = until.0.checked_sub(run.seq.0).filter(|before| *before > 0) else { break };
                run.count = run.count.min(u32::try_from(before).unwrap_or(u32::MAX));
            }
            runs += 1;
            if skip >= u64::from(run.count) {
                skip -= u64::from(run.count);
                if runs >= RUNS_AT_ONCE {
                    return Some(Cursor { priority, seq: Seq(run.range().last.0 + 1), skip });
                }
                continue;
            }
            if skip > 0 {
                run = run.split_off(u32::try_from(skip).unwrap_or(u32::MAX));
                skip = 0;
            }
            for message in run.messages() {
                let here = Cursor { priority, seq: message.seq, skip: 0 };
                if !piece.take(message, Next::Ready(here)) {
                    return Some(here);
                }
            }
        }
    }
    None
}

fn find_delayed(queue: &Queue, from: Time, until: Option<Seq>, piece: &mut Piece) -> Option<Time> {
    let runs = queue.delayed.as_ref().map(|delayed| delayed.by_time(from.due_at_ms, from.seq));
    let mut passed = 0;
    for message in runs.into_iter().flatten().flat_map(|run| run.messages()) {
        let here = Time { due_at_ms: message.due_at_ms, seq: message.seq };
        if until.is_some_and(|until| message.seq >= until) {
            passed += 1;
            if passed >= RUNS_AT_ONCE {
                return Some(here);
            }
        } else if !piece.take(message, Next::Delayed(here)) {
            return Some(here);
        }
    }
    None
}

/// Unacked messages from this seq on, at most so many and one more.
fn next_unacked(queue: &Queue, from: Seq, most: usize) -> std::vec::IntoIter<Run> {
    let sources = queue.unacked.sources(from);
    let mut runs: Vec<Run> = sources.flat_map(|source| source.flat_map(|run| run.messages()).take(most + 1)).collect();
    runs.sort_unstable_by_key(|run| run.seq);
    runs.truncate(most + 1);
    runs.into_iter()
}

/// Dead ones whose letters are owed, the same way.
fn next_owed(queue: &Queue, tried: &[Run], from: Seq, most: usize) -> std::vec::IntoIter<Run> {
    let waiting = queue.owed.iter().flat_map(|owed| owed.from(from)).flat_map(|run| run.messages());
    let mut runs: Vec<Run> = waiting.take(most + 1).collect();
    runs.extend(tried.iter().flat_map(|run| run.messages()).filter(|run| run.seq >= from));
    runs.sort_unstable_by_key(|run| run.seq);
    runs.truncate(most + 1);
    runs.into_iter()
}

/// The same message, published otherwise.
fn renamed(message: &Message, exchange: &str, routing_key: &str) -> Message {
    let (properties, died_here) = (message.properties(), message.died_here());
    Message::new(MessageParts { exchange, routing_key, properties, died_here }, message.body())
}

/// The same message, in memory of its own.
fn alone(message: &Message) -> Message {
    let bytes = Bytes::copy_from_slice(message.bytes());
    Message::assembled(bytes, message.lengths())
}

/// What its properties ask for: whether it is persistent, its time to live and its priority.
fn terms(message: &Message) -> (bool, Option<u64>, Option<u8>) {
    let Ok(properties) = Properties::parse(message.properties()) else { return (false, None, None) };
    let expiration_ms = properties.expiration().and_then(|text| parse_expiration(text).ok());
    (properties.delivery_mode() == Some(2), expiration_ms, properties.priority())
}

impl<S: Store> Shard<S> {
    /// Unacked messages from this seq on.
    fn leases(&self, slot: Slot<Queue>, from: Seq, count: u32) -> Answer {
        let count = count.clamp(1, PIECE_MAX) as usize;
        let mut runs = next_unacked(&self.queues[slot], from, count);
        let leases = runs.by_ref().take(count).filter_map(|run| self.lease(slot, run.seq)).collect();
        Answer::Leases { leases, next: runs.next().map(|run| run.seq) }
    }
}

/// How many messages a piece has at most, …
const PIECE_MAX: u32 = 1024;
/// … about how many bytes of them, …
const PIECE_BYTES: u64 = 1 << 20;
/// … and how many runs it may pass over.
const RUNS_AT_ONCE: usize = 16 << 10;
