//! A shard owns queues and the log that makes them durable, and is the only one that touches them.
//!
//! One [`Shard::step`] takes everything that arrived, does it in order, serves the consumers of the queues that were
//! touched, and hands the log one batch to write. Deliveries do not wait for the disk; answers that promise something
//! do. Time and topology are arguments, what is to be sent is returned: the shard waits for nothing and reads no clock.
//!
//! ```text
//!   inputs ──► execute ──► queues ──► serve ──► deliveries ─┐
//!                │            │                             ├──► Outbox
//!                └── records ─┴──► log ──► durable ─ answers┘
//! ```

mod change;
mod checkpoint;
mod consume;
mod dead_letter;
mod deduplicate;
mod delete;
mod discard;
mod fire;
mod history;
mod lease;
mod log;
mod operate;
mod owed;
pub(crate) mod peers;
mod publish;
mod read;
mod reclaim;
mod recovery;
mod report;
mod serve;
mod settle;
mod shaped;
pub(crate) mod slots;
mod stream;
mod timers;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use publish::Terms;
pub use recovery::{Facts, Missing, Recovery, RecoveryError, Roll};

use crate::command::{
    Batch, CallId, ChannelKey, Command, ConnectionEvent, ConnectionId, IfRefused, Now, Outbox, Outcome, QueueSpec,
    Settlement, ShardId, ShardInput, ShardReport, Sifting,
};
use crate::message::Message;
use crate::queue::Queue;
use crate::queue::backlog::Backlog;
use crate::queue::deduplication::Fresh;
use crate::topology::{Routes, Topology};
use amqp::ChannelId;
use dead_letter::{Dead, Moving, Unread};
use history::History;
use log::{Log, Waiter};
use operate::Pending;
use peers::{Channel, Peer};
use read::Reading;
use reclaim::Reclaim;
use rustc_hash::FxHashMap;
use slots::{Slot, Slots};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use store::{Lsn, QueueId, Seq, Store, StoreEvent};
use timers::Timers;

/// What a shard is told once.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// How many shards the server has.
    pub shards: u16,
    /// How long a delivery may stay unacked unless queue or consumer say otherwise, in milliseconds; 0 = for ever.
    pub consumer_timeout_ms: u64,
    /// How many failed deliveries a quorum queue's message may have unless the queue says otherwise. RabbitMQ: 20.
    pub quorum_delivery_limit: u32,
    /// What stays in memory.
    pub near: Near,
    /// Random bits: what keys of messages are hashed with in a log that has no such bits of its own yet.
    pub hash_secret: [u64; 2],
}

/// How much of the messages stays in memory; of the others the log has the bytes, and memory an index.
#[derive(Clone, Copy, Debug)]
pub struct Near {
    /// About how many bytes the ready messages of one queue may take, and its unacked ones.
    pub queue_bytes: u64,
    /// The same for the ready messages of a queue that has consumers: they may be waited for soon.
    pub busy_queue_bytes: u64,
    /// How many unacked messages of one queue there may be.
    pub queue_unacked: usize,
    /// About how many bytes all of them may take in this shard.
    pub bytes: u64,
    /// The same for a new message of a queue that has no consumers: many such queues must not take all of it.
    pub idle_bytes: u64,
}

impl Default for Near {
    fn default() -> Self {
        Self {
            queue_bytes: 4 << 20,
            busy_queue_bytes: 32 << 20,
            queue_unacked: 4096,
            bytes: 256 << 20,
            idle_bytes: 32 << 20,
        }
    }
}

impl Default for ShardSettings {
    fn default() -> Self {
        Self {
            shards: 1,
            consumer_timeout_ms: 1_800_000,
            quorum_delivery_limit: 20,
            near: Near::default(),
            hash_secret: [0; 2],
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Shard<S: Store> {
    id: ShardId,
    settings: ShardSettings,
    now: Now,
    log: Log<S>,
    queues: Slots<Queue>,
    queue_slots: FxHashMap<QueueId, Slot<Queue>>,
    peers: Slots<Peer>,
    peer_slots: FxHashMap<ConnectionId, Slot<Peer>>,
    channels: Slots<Channel>,
    timers: Timers,
    /// Queues to be served in this step.
    touched: VecDeque<Slot<Queue>>,
    /// Queues whose settled places are not in the log yet.
    settling: Vec<Slot<Queue>>,
    /// Channels and connections that can receive again and have consumers waiting for that.
    freed_channels: Vec<Slot<Channel>>,
    freed_peers: Vec<Slot<Peer>>,
    dead: VecDeque<Dead>,
    moving: FxHashMap<u64, Moving>,
    last_transfer: u64,
    /// Of letters that lead to several shards, and that not all of them took: those that did.
    taken_by: FxHashMap<(QueueId, Seq), Vec<ShardId>>,
    /// Queues whose letters are to be tried again in this step.
    called: Vec<QueueId>,
    /// Answers that wait for other shards, by ticket.
    pending: FxHashMap<u64, Pending>,
    /// Reads that are under way, by ticket.
    readings: FxHashMap<u64, Reading>,
    last_read: u64,
    /// What the reads ahead that are under way will take in memory.
    reading_bytes: u64,
    /// How many first messages are being read because somebody looks.
    heads_reading: usize,
    /// What those that died and are being read take in memory …
    dead_reading_bytes: u64,
    /// … and those that wait for their turn.
    dead_unread: VecDeque<Unread>,
    /// What all near messages take in memory.
    near_bytes: u64,
    /// Messages that are gone, and whose records are still to be released.
    discarded: VecDeque<Backlog>,
    /// How much this step may still drop …
    droppable: usize,
    /// … and the queues that had more.
    dropping: Vec<Slot<Queue>>,
    /// Queues with [`Queue::getters`].
    getting: BTreeSet<Slot<Queue>>,
    checkpoint: Option<checkpoint::Pass>,
    reclaim: Reclaim,
    /// The last record …
    quiet_since: Lsn,
    /// … and when it was there.
    quiet_since_ms: u64,
    /// Peers with events.
    addressed: Vec<Slot<Peer>>,
    /// Nothing may be appended to the log any more.
    is_closed: bool,
    /// What keys are hashed with, and whether the log says so.
    hash_secret: ([u64; 2], bool),
    /// The exchange that what is being published comes through, if that deduplicates.
    sifting: Option<Sifting>,
    /// Recent messages of exchanges that keep them, by exchange.
    histories: FxHashMap<u64, History>,
    /// What failures of deliveries take.
    failures: report::Room,
    /// The log finds no room on the disk.
    is_stuck: bool,
    /// The log's end is written, too.
    log_is_closed: bool,
    out: Outbox,
    /// Room to work in, kept for the next time.
    accepted: Vec<publish::Accepted>,
    fresh_keys: Vec<Fresh>,
    places: Vec<store::Place>,
    spilled_places: Vec<store::Place>,
    routes: Routes,
}

impl<S: Store> Shard<S> {
    /// Starts to read a shard's log.
    #[must_use]
    pub fn recover(id: ShardId, settings: ShardSettings, now: Now) -> Recovery {
        Recovery::new(id, settings, now)
    }

    fn new(id: ShardId, settings: ShardSettings, now: Now, log: Log<S>) -> Self {
        let hash_secret = (settings.hash_secret, false);
        Self {
            id,
            settings,
            now,
            log,
            queues: Slots::default(),
            queue_slots: FxHashMap::default(),
            peers: Slots::default(),
            peer_slots: FxHashMap::default(),
            channels: Slots::default(),
            timers: Timers::default(),
            touched: VecDeque::new(),
            settling: Vec::new(),
            freed_channels: Vec::new(),
            freed_peers: Vec::new(),
            dead: VecDeque::new(),
            moving: FxHashMap::default(),
            last_transfer: 0,
            taken_by: FxHashMap::default(),
            called: Vec::new(),
            pending: FxHashMap::default(),
            readings: FxHashMap::default(),
            last_read: 0,
            reading_bytes: 0,
            heads_reading: 0,
            dead_reading_bytes: 0,
            dead_unread: VecDeque::new(),
            near_bytes: 0,
            discarded: VecDeque::new(),
            droppable: 0,
            dropping: Vec::new(),
            getting: BTreeSet::new(),
            checkpoint: None,
            reclaim: Reclaim::default(),
            quiet_since: Lsn::ZERO,
            quiet_since_ms: now.ms,
            addressed: Vec::new(),
            is_closed: false,
            hash_secret,
            sifting: None,
            histories: FxHashMap::default(),
            failures: report::Room::default(),
            is_stuck: false,
            log_is_closed: false,
            out: Outbox::default(),
            accepted: Vec::new(),
            fresh_keys: Vec::new(),
            places: Vec::new(),
            spilled_places: Vec::new(),
            routes: Routes::default(),
        }
    }

    /// Its log.
    #[must_use]
    pub fn store(&self) -> &S {
        self.log.store_ref()
    }

    /// Which one it is.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Does everything in `inbox`, in order, and what became due; drains it. What is to be sent is added to `out`.
    pub fn step(&mut self, now: Now, inbox: &mut Vec<ShardInput>, topology: &Topology, out: &mut Outbox) {
        self.now = now;
        std::mem::swap(&mut self.out, out);
        self.go_on_dropping();
        for input in inbox.drain(..) {
            self.execute(input, topology);
        }
        self.hear_store(topology);
        if !self.is_closed {
            self.run_timers();
            self.serve(topology);
            self.try_called();
            self.go_on_reading_dead();
            self.write_settled();
            self.release_discarded();
            self.reclaim();
            self.note_activity();
            self.write_checkpoint();
        } else if !self.log_is_closed {
            self.finish_closing();
        }
        self.log.flush();
        for peer in self.addressed.drain(..) {
            if let Some(peer) = self.peers.get_mut(peer).filter(|peer| !peer.events.is_empty()) {
                self.out.connections.push((peer.id, peer.take_events()));
            }
        }
        std::mem::swap(&mut self.out, out);
    }

    /// When [`Self::step`] has to run again at the latest, by `Now::ms`; `None` while only input can change anything.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if self.is_closed {
            return self.may_write_checkpoint().then_some(self.now.ms);
        }
        if !(self.touched.is_empty() && self.discarded.is_empty() && self.dropping.is_empty())
            || self.may_write_checkpoint()
        {
            return Some(self.now.ms);
        }
        // A log that is to shrink must not wait for somebody to come along.
        [self.timers.next_ms(), self.reclaim_at_ms(), self.idle_checkpoint_at_ms()].into_iter().flatten().min()
    }

    /// The disk cannot follow: nothing more to be written, please, until this changes. The store's news change it. While
    /// there is no room on the disk more may wait: who publishes is blocked then, and what the others want is what makes
    /// room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let unwritten = self.log.unwritten_bytes();
        unwritten > UNWRITTEN_STUCK_BYTES_MAX || unwritten > UNWRITTEN_BYTES_MAX && !self.is_stuck
    }

    /// Whether this batch has to wait for the disk, which cannot follow: it adds more to the log than an acknowledgement.
    #[must_use]
    pub fn waits_for_disk(&self, batch: &[Command]) -> bool {
        self.is_full() && batch.iter().any(|command| self.is_for_the_log(command))
    }

    /// Whether this batch publishes to a queue whose consumers are about to come for more, and had better wait a moment:
    /// a publisher that never waits takes the processor from consumers that wait for each answer.
    #[must_use]
    pub fn is_ahead_of_consumers(&self, batch: &[Command], now: Now) -> bool {
        let Some(Command::Publish(publish)) = batch.first() else { return false };
        let queue = publish.queues.first().and_then(|queue| self.queue_slots.get(queue));
        queue.is_some_and(|slot| self.queues[*slot].is_ahead_of_consumers(now.ms))
    }

    fn is_for_the_log(&self, command: &Command) -> bool {
        match command {
            Command::Publish(publish) => publish.queues.iter().any(|queue| {
                let queue = self.queue_slots.get(queue).map(|slot| &self.queues[*slot]);
                queue.is_some_and(|queue| {
                    queue.keeps(publish.persistent)
                        || publish.delay.is_some()
                        || queue.is_better_far(queue.level_of(publish.priority), &self.settings.near, self.near_bytes)
                })
            }),
            // Wherever it is kept, its key is.
            Command::Sift(sifted) => sifted.publish.persistent,
            Command::Transaction(commands) => commands.iter().any(|command| self.is_for_the_log(command)),
            // A dead letter is a message again, and who gives back the same one for ever writes for ever.
            Command::Settle(settle) => matches!(settle.how, Settlement::Discard | Settlement::Requeue),
            _ => false,
        }
    }

    fn execute(&mut self, input: ShardInput, topology: &Topology) {
        match input {
            ShardInput::Batch(batch) => self.execute_batch(batch, topology),
            ShardInput::CreateQueue { spec, declarer } => {
                let lsn = self.create_queue(spec);
                if let Some((connection, call)) = declarer {
                    let outcome = Outcome::QueueDeclared { messages: 0, consumers: 0 };
                    self.when_durable(lsn, Waiter::Declared { connection, call, outcome });
                }
            }
            ShardInput::ConsumerTimeout { timeout_ms } => self.settings.consumer_timeout_ms = timeout_ms,
            ShardInput::ChangeQueues { specs } => specs.into_iter().for_each(|spec| self.change_queue(spec)),
            ShardInput::RedeclareQueue { spec } => self.redeclare_queue(spec),
            ShardInput::Recall { exchange, generation, to } => {
                self.recall(exchange, generation, to, topology);
                self.bury(topology);
            }
            ShardInput::ForgetHistory { exchange } => drop(self.histories.remove(&exchange)),
            ShardInput::KeepSources { sources } => self.keep_sources(&sources),
            ShardInput::DeleteQueue { queue, if_unused, if_empty, ticket } => {
                self.serve_queue(queue, topology);
                self.delete_on_request(queue, if_unused, if_empty, ticket);
            }
            ShardInput::Count { queue, connection, call } => {
                self.serve_queue(queue, topology);
                self.count(queue, connection, call);
            }
            ShardInput::Answer { connection, call, outcome } => {
                let waiter = Waiter::Declared { connection, call, outcome };
                self.when_durable(self.log.last(), waiter);
            }
            ShardInput::PutFact { key, value, ticket } => {
                let lsn = self.log.put_fact(key, value);
                if let Some(ticket) = ticket {
                    self.when_durable(lsn, Waiter::Ticket(ticket));
                }
            }
            ShardInput::ForgetFact { key, ticket } => {
                let lsn = self.log.forget_fact(&key);
                if let Some(ticket) = ticket {
                    self.when_durable(lsn, Waiter::Ticket(ticket));
                }
            }
            ShardInput::Transfer { from, transfer, publish, if_refused } => {
                let terms = Terms::from(&publish);
                let stored = match if_refused {
                    IfRefused::Dropped => Some(self.publish(&publish.queues, publish.message, terms, None)),
                    IfRefused::Owed => self.take_letter(&publish.queues, publish.message, terms, None).ok(),
                    IfRefused::Stays => {
                        let stored = self.publish(&publish.queues, publish.message, terms, None);
                        Some(stored).filter(|stored| stored.is_taken)
                    }
                };
                self.bury(topology);
                match stored {
                    Some(stored) => self.when_durable(stored.logged, Waiter::Transfer { from, transfer }),
                    None => self.out.shards.push((from, ShardInput::TransferRefused { transfer, by: self.id })),
                }
            }
            ShardInput::TransferStored { transfer, by } => self.finish_transfer(transfer, by, true),
            ShardInput::TransferRefused { transfer, by } => self.finish_transfer(transfer, by, false),
            ShardInput::Operate { ticket, queue, operation } => {
                self.serve_queue(queue, topology);
                self.operate(ticket, queue, operation, topology);
                self.bury(topology);
            }
            ShardInput::Fire(fire) => self.fire(*fire, topology),
            ShardInput::Inspect { ticket, queue } => {
                self.serve(topology);
                self.inspect(ticket, queue);
            }
            ShardInput::Close => self.close(topology),
        }
    }

    fn execute_batch(&mut self, batch: Batch, topology: &Topology) {
        let connection = batch.connection;
        let peer = match self.peer_slots.get(&connection) {
            Some(slot) => *slot,
            None => {
                let slot = self.peers.insert(Peer::new(connection));
                self.peer_slots.insert(connection, slot);
                slot
            }
        };
        for command in batch.commands {
            if let Command::CloseConnection { call } = command {
                self.close_connection(peer, call, topology);
                return;
            }
            self.obey(peer, command, topology);
        }
    }

    fn obey(&mut self, peer: Slot<Peer>, command: Command, topology: &Topology) {
        match command {
            Command::Publish(publish) => self.publish_for(peer, publish),
            Command::Sift(sifted) => self.sift(peer, *sifted),
            Command::Keep(recent) => self.keep_recent(*recent, topology),
            Command::Mark { mark } => self.mark(peer, mark),
            Command::Transaction(commands) => return self.transact(peer, commands, topology),
            Command::Settle(settle) => self.settle(peer, settle),
            Command::Consume(consume) => self.consume(peer, *consume),
            Command::Cancel { call, queue, consumer } => {
                self.serve_queue(queue, topology);
                self.cancel(peer, call, queue, consumer);
            }
            Command::Get { call, channel, queue, no_ack } => {
                self.serve_queue(queue, topology);
                self.take_one(peer, call, (channel, queue), no_ack);
            }
            Command::Purge { call, queue } => {
                self.serve_queue(queue, topology);
                self.purge(peer, call, queue);
            }
            Command::CloseChannel { call, channel } => {
                self.close_channel(peer, channel);
                self.answer(peer, call, Outcome::ChannelClosed);
            }
            Command::CloseConnection { .. } => {}
            Command::ChannelLimit { channel, limit } => {
                let channel = self.channel(peer, channel);
                self.channels[channel].limit = limit;
                self.freed_channels.push(channel);
            }
            Command::ConsumerLimit { queue: _, consumer, limit } => self.limit_consumer(peer, consumer, limit),
            Command::Drained { bytes } => {
                if self.peers[peer].drain(bytes) {
                    self.freed_peers.push(peer);
                }
            }
            Command::Extend { call, queue, seq, ms } => self.extend_for(peer, call, (queue, seq), ms),
            Command::Report { call, queue, seq, report } => self.report_for(peer, call, (queue, seq), *report),
            Command::Reply { to, message } => self.reply(to, message),
        }
        self.bury(topology);
    }

    fn create_queue(&mut self, spec: Arc<QueueSpec>) -> Lsn {
        let id = spec.queue.id;
        let mut queue = Queue::new(spec, self.now);
        if queue.spec.durable {
            let (key, value) = queue.spec.fact();
            queue.created = self.log.put_fact(key, value);
        }
        let lsn = queue.created;
        self.adopt(id, queue);
        lsn
    }

    /// Takes a queue in, new or recovered.
    fn adopt(&mut self, id: QueueId, queue: Queue) {
        let slot = self.queues.insert(queue);
        let former = self.queue_slots.insert(id, slot);
        assert!(former.is_none(), "a queue id is never used twice");
        self.touch(slot);
    }

    fn count(&mut self, queue: QueueId, connection: ConnectionId, call: CallId) {
        let Some(&slot) = self.queue_slots.get(&queue) else {
            return self.tell(connection, ConnectionEvent::Done { call, outcome: Outcome::Missed });
        };
        let queue = &mut self.queues[slot];
        queue.last_used_ms = self.now.ms;
        let (messages, consumers) = (queue.ready.len() as u64, queue.consumers);
        let created = queue.created;
        let outcome = Outcome::QueueDeclared { messages, consumers };
        self.when_durable(created, Waiter::Declared { connection, call, outcome });
    }

    /// A direct reply is worth no waiting: a requester that does not read, or is gone, gets none.
    fn reply(&mut self, to: ChannelKey, message: Message) {
        let slot = self.peer_slots.get(&to.connection);
        if slot.is_none_or(|slot| !self.peers[*slot].is_over()) {
            self.tell(to.connection, ConnectionEvent::Reply { channel: to.channel, message });
        }
    }

    /// The channel of that number, which may be new.
    fn channel(&mut self, peer: Slot<Peer>, id: ChannelId) -> Slot<Channel> {
        let channels = &mut self.channels;
        *self.peers[peer].channels.entry(id).or_insert_with(|| channels.insert(Channel::new(id, peer)))
    }

    /// The queue is to be served before the step ends.
    fn touch(&mut self, slot: Slot<Queue>) {
        let queue = &mut self.queues[slot];
        if !queue.is_touched {
            queue.is_touched = true;
            self.touched.push_back(slot);
        }
    }

    fn answer(&mut self, peer: Slot<Peer>, call: CallId, outcome: Outcome) {
        self.post(peer, ConnectionEvent::Done { call, outcome });
    }

    /// Sends an event to a connection that this shard knows.
    fn post(&mut self, slot: Slot<Peer>, event: ConnectionEvent) {
        let peer = &mut self.peers[slot];
        if peer.events.is_empty() {
            self.addressed.push(slot);
        }
        peer.events.push(event);
    }

    /// Sends an event to any connection.
    fn tell(&mut self, connection: ConnectionId, event: ConnectionEvent) {
        match self.peer_slots.get(&connection) {
            Some(slot) => self.post(*slot, event),
            None => self.out.connections.push((connection, vec![event])),
        }
    }

    /// Serves the waiter as soon as everything up to that record is durable, which may be now.
    fn when_durable(&mut self, lsn: Lsn, waiter: Waiter) {
        if self.log.is_durable(lsn) {
            self.report(waiter);
        } else {
            self.log.wait(lsn, waiter);
        }
    }

    fn hear_store(&mut self, topology: &Topology) {
        for event in self.log.poll() {
            match event {
                StoreEvent::Durable(_) => {}
                // What would be done with it could not be written any more.
                StoreEvent::Read { .. } if self.is_closed => {}
                StoreEvent::Read { ticket, messages } => {
                    self.hear_read(ticket, messages, topology);
                    self.bury(topology);
                }
                StoreEvent::Old(messages) => self.hear_old(messages),
                StoreEvent::Full(is_full) => {
                    self.is_stuck = is_full;
                    self.out.full = Some(is_full);
                }
                StoreEvent::Failed(sentence) => {
                    self.out.failed = Some(sentence);
                    return;
                }
            }
        }
        while let Some(waiter) = self.log.next_served() {
            self.report(waiter);
        }
        if !self.is_closed {
            self.bury(topology);
        }
    }

    fn report(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Mark { connection, mark, refused } => {
                self.tell(connection, ConnectionEvent::Stored { shard: self.id, mark, refused });
            }
            Waiter::Ticket(ticket) => self.out.catalog.push(ShardReport::Durable { ticket }),
            Waiter::Deleted { ticket, outcome } => self.out.catalog.push(ShardReport::Deleted { ticket, outcome }),
            Waiter::Declared { connection, call, outcome } => {
                self.tell(connection, ConnectionEvent::Done { call, outcome });
            }
            Waiter::Transfer { from, transfer } => {
                self.out.shards.push((from, ShardInput::TransferStored { transfer, by: self.id }));
            }
            // What would be done with it could not be written any more.
            Waiter::Letter { .. } if self.is_closed => {}
            Waiter::Letter { transfer } => self.let_move_on(transfer),
            Waiter::Operation { ticket, answer } => self.out.answers.push((ticket, *answer)),
            Waiter::Stream(queue) => self.stream_is_durable(queue),
            Waiter::Closed => self.out.closed = true,
        }
    }

    /// Says in the log what was settled in this step.
    fn write_settled(&mut self) {
        for slot in self.settling.drain(..) {
            // Its queue may be gone, and another one in its slot: that one then has nothing settled, or is listed too.
            let Some(queue) = self.queues.get_mut(slot) else { continue };
            if !queue.settled.is_empty() {
                queue.settled.sort_unstable_by_key(|range| range.first);
                queue.settled.dedup_by(|next, range| {
                    let continues = range.last.0 + 1 == next.first.0;
                    if continues {
                        range.last = next.last;
                    }
                    continues
                });
                self.log.append_settled(queue.spec.queue.id, &queue.settled);
                queue.settled.clear();
            }
        }
    }

    fn close(&mut self, topology: &Topology) {
        self.serve(topology);
        for peer in self.peers.iter().map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.leave_all_channels(peer);
            self.bury(topology);
        }
        let died = self.moving.values().map(|moving| (moving.queue, moving.entry.run()));
        let unread = self.unread().map(|unread| (unread.queue.queue.id, unread.run));
        let died: Vec<_> = died.chain(unread).filter(|(_, run)| run.kept && run.redelivered).collect();
        for (queue, run) in died {
            self.log.append_returned(queue, run.range(), run.attempts, run.due_at_ms);
        }
        self.write_settled();
        self.is_closed = true;
        self.begin_last_checkpoint();
    }

    /// The end of the log is written behind its last checkpoint, which may take some steps.
    fn finish_closing(&mut self) {
        if self.may_write_checkpoint() {
            self.write_checkpoint();
        }
        if self.checkpoint.is_none() {
            self.log.close();
            self.log_is_closed = true;
        }
    }
}

/// Sum of what one slow sync may leave unwritten before the clients feel it.
const UNWRITTEN_BYTES_MAX: usize = 64 << 20;
/// What may be unwritten while the disk has no room: hours of what consumers do, while nobody publishes.
const UNWRITTEN_STUCK_BYTES_MAX: usize = 4 * UNWRITTEN_BYTES_MAX;
