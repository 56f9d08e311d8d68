//! One life of the server: its machines, their mailboxes, and the hosts that move messages between them.
//!
//! The hosts' rules are those of the real ones (crate `server`): every machine has one mailbox, in which order is the
//! order of sending; a machine's next step comes when everything that the last one wants sent is sent; the catalog
//! sends to shards before anybody sees the topology it wrote; a connection sends to shards before the catalog, and
//! reads nothing while it has something to send. Within these rules whoever calls decides what happens next.

mod connection;

pub use connection::{ConnectionNode, Phase};

use crate::ledger::Ledger;
use crate::trace;
use broker::catalog::{Catalog, CatalogOutbox};
use broker::command::{
    CallId, CatalogInput, ConnectionEvent, ConnectionId, Now, Outbox, ShardId, ShardInput, ShardReport, Shortage,
};
use broker::inspect::QueueView;
use broker::operation::Answer;
use broker::shard::{Shard, ShardSettings};
use broker::topology::Topology;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use store::{Caretaker, MemoryDisk, OpenError, Options, SegmentLog, Step, Writer};

/// Who asks the catalog for policies.
pub const OPERATOR: ConnectionId = ConnectionId(u64::MAX);

/// See the module.
#[derive(Debug)]
pub struct Node {
    /// Every shard.
    pub shards: Vec<ShardNode>,
    /// Every connection whose host still runs.
    pub connections: BTreeMap<ConnectionId, ConnectionNode>,
    /// What is waiting for the catalog.
    pub catalog_mailbox: VecDeque<CatalogInput>,
    /// What the catalog has yet to send.
    pub catalog_outgoing: VecDeque<(ConnectionId, ConnectionEvent)>,
    /// Questions of the operator's that the catalog, or a shard for it, answered.
    pub answered: Vec<CallId>,
    /// What shards answered to the operator.
    pub answers: Vec<(ShardId, u64, Answer)>,
    /// Which logs said that they were closed.
    pub clean: Vec<bool>,
    /// What all connections were told that the server is short of.
    pub shortage: Shortage,
    /// What it is short of by itself, whatever its logs find.
    alarms: Shortage,
    catalog: Catalog,
    topology: Topology,
}

/// One shard, its mailbox, its log's writer and its caretaker.
#[derive(Debug)]
pub struct ShardNode {
    shard: Shard<SegmentLog>,
    writer: Writer<MemoryDisk>,
    caretaker: Caretaker<MemoryDisk>,
    /// What is waiting for it.
    pub mailbox: VecDeque<ShardInput>,
    /// What its last step wants sent.
    pub outgoing: VecDeque<Outgoing>,
    /// Writer or caretaker have done something since the last step.
    pub has_news: bool,
    /// When the writer is to look again although nobody asks it to.
    pub lazy_sync_ms: Option<u64>,
    /// Its log found no room on the disk.
    pub is_full: bool,
    /// It was told to close, and takes nothing more.
    pub is_closing: bool,
    /// It is closed, and everything durable.
    pub is_closed: bool,
    /// The writer is done for good.
    pub is_written: bool,
    /// The caretaker is done for good.
    pub is_cared_for: bool,
}

/// Something that a shard sends.
#[derive(Debug)]
pub enum Outgoing {
    /// To another shard, or itself.
    Shard(ShardId, ShardInput),
    /// To the catalog.
    Catalog(ShardReport),
    /// To a connection.
    Connection(ConnectionId, Vec<ConnectionEvent>),
}

/// The server must stop, because its store failed.
#[derive(Debug)]
pub struct StoreFailed(pub String);

/// What starts a server.
#[derive(Clone, Debug)]
pub struct Start {
    /// Of all shards.
    pub settings: ShardSettings,
    /// Of all logs.
    pub segment_bytes: u64,
    /// What each disk keeps for the time when it is full.
    pub reserve_bytes: u64,
    /// What the checksums of new logs begin with.
    pub salt: u32,
    /// The stop before was clean, so that all logs have to say so.
    pub is_clean: bool,
}

impl Node {
    /// Starts on what the disks hold.
    ///
    /// # Errors
    /// When a disk fails meanwhile.
    pub fn start(disks: &[MemoryDisk], start: &Start, now: Now) -> Result<Self, OpenError> {
        let (mut shards, mut facts, mut clean, mut epoch) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (id, disk) in (0..).map(ShardId).zip(disks) {
            let Start { segment_bytes, reserve_bytes, salt, .. } = *start;
            let options = Options { segment_bytes, salt, reserve_bytes, progress: None };
            let mut recovery = Shard::<SegmentLog>::recover(id, start.settings.clone(), now);
            let opened = SegmentLog::open(disk.clone(), options, &mut |lsn, record| recovery.replay(lsn, record))?;
            trace::note(format_args!("s{} opens its log: {:?}", id.0, opened.report));
            assert!(opened.report.clean || !start.is_clean, "the stop was clean, and the log of {id:?} denies it");
            clean.push(opened.report.clean);
            if id == ShardId(0) {
                epoch = opened.report.epoch;
            }
            let recovered = recovery.finish(opened.log, opened.report.clean);
            let (shard, found) = recovered.unwrap_or_else(|error| panic!("a log cannot be understood: {error}"));
            shard.store().check_retained()?;
            facts.extend(found.into_iter().map(|(key, value)| (id, key, value)));
            shards.push(ShardNode::new(shard, opened.writer, opened.caretaker));
        }
        let mut first = CatalogOutbox::default();
        let count = u16::try_from(disks.len()).expect("few");
        let epoch = u32::try_from(epoch).expect("few starts");
        let (catalog, topology) = Catalog::recover(count, epoch, facts, &mut first)
            .unwrap_or_else(|error| panic!("facts cannot be understood: {error:?}"));
        let mut node = Self {
            shards,
            connections: BTreeMap::new(),
            catalog_mailbox: VecDeque::new(),
            catalog_outgoing: VecDeque::new(),
            answered: Vec::new(),
            answers: Vec::new(),
            clean,
            shortage: Shortage::default(),
            alarms: Shortage::default(),
            catalog,
            topology,
        };
        node.post_catalogs(&mut first);
        Ok(node)
    }

    /// One step of a shard with the first `count` of its mailbox.
    ///
    /// # Errors
    /// [`StoreFailed`]: nothing of this step may be seen.
    pub fn step_shard(
        &mut self,
        at: usize,
        count: usize,
        now: Now,
        ledger: &mut Ledger,
    ) -> Result<Vec<QueueView>, StoreFailed> {
        let node = &mut self.shards[at];
        let id = ShardId(u16::try_from(at).expect("few"));
        assert!(node.outgoing.is_empty(), "a shard sends everything before its next step");
        ledger.tell_time(now.unix_ms);
        let mut inbox = Vec::new();
        for input in node.mailbox.drain(..count) {
            if node.is_closing {
                continue;
            }
            node.is_closing = matches!(input, ShardInput::Close);
            trace::note(format_args!("s{at} < {}", summary(&input)));
            ledger.input(id, &input);
            inbox.push(input);
        }
        let mut out = Outbox::default();
        node.has_news = false;
        node.shard.step(now, &mut inbox, &self.topology, &mut out);
        if let Some(sentence) = out.failed.take() {
            return Err(StoreFailed(sentence));
        }
        ledger.output(id, &out);
        node.is_full = out.full.take().unwrap_or(node.is_full);
        node.is_closed |= out.closed;
        self.answers.extend(out.answers.drain(..).map(|(ticket, answer)| (id, ticket, answer)));
        let outgoing = out.shards.into_iter().map(|(shard, input)| Outgoing::Shard(shard, input));
        node.outgoing.extend(outgoing);
        node.outgoing.extend(out.catalog.into_iter().map(Outgoing::Catalog));
        node.outgoing.extend(out.connections.into_iter().map(|(to, events)| Outgoing::Connection(to, events)));
        self.tell_shortage();
        Ok(out.views.into_iter().flat_map(|(_, views)| views).collect())
    }

    /// A look at all queues of a shard that has nothing to send.
    ///
    /// # Errors
    /// [`StoreFailed`].
    pub fn inspect(&mut self, at: usize, now: Now, ledger: &mut Ledger) -> Result<Vec<QueueView>, StoreFailed> {
        // What is due is done first: a timer's work would come between the look and the end of its step.
        self.step_shard(at, 0, now, ledger)?;
        self.send_all(at);
        self.shards[at].mailbox.push_front(ShardInput::Inspect { ticket: 0, queue: None });
        let views = self.step_shard(at, 1, now, ledger)?;
        self.send_all(at);
        Ok(views)
    }

    /// Sends the first of what a shard wants sent.
    pub fn send_one(&mut self, at: usize) {
        match self.shards[at].outgoing.pop_front() {
            Some(Outgoing::Shard(shard, input)) => self.shards[usize::from(shard.0)].mailbox.push_back(input),
            Some(Outgoing::Catalog(report)) => self.catalog_mailbox.push_back(CatalogInput::Report(report)),
            Some(Outgoing::Connection(connection, events)) => self.post(connection, events),
            None => {}
        }
    }

    /// Sends all of it.
    pub fn send_all(&mut self, at: usize) {
        while !self.shards[at].outgoing.is_empty() {
            self.send_one(at);
        }
    }

    /// Tells a connection, or the operator, something, if it is still there.
    pub fn post(&mut self, connection: ConnectionId, events: Vec<ConnectionEvent>) {
        if connection == OPERATOR {
            let calls = events.into_iter().filter_map(|event| match event {
                ConnectionEvent::Done { call, .. } => Some(call),
                _ => None,
            });
            self.answered.extend(calls);
        } else if let Some(node) = self.connections.get_mut(&connection) {
            node.mailbox.push_back(events);
        }
    }

    /// From now on the server is short of this, and of disk space while a log finds none.
    pub fn ring(&mut self, alarms: Shortage) {
        self.alarms = alarms;
        self.tell_shortage();
    }

    /// Tells every connection, if that is news.
    fn tell_shortage(&mut self) {
        let disk = self.alarms.disk || self.shards.iter().any(|shard| shard.is_full);
        let shortage = Shortage { disk, ..self.alarms };
        if shortage != self.shortage {
            trace::note(format_args!("from now on {shortage:?}"));
            self.shortage = shortage;
            let everybody: Vec<ConnectionId> = self.connections.keys().copied().collect();
            everybody.into_iter().for_each(|id| self.post(id, vec![ConnectionEvent::Shortage(shortage)]));
        }
    }

    /// One round of the catalog with the first `count` of its mailbox.
    pub fn step_catalog(&mut self, count: usize, now: Now) {
        assert!(self.catalog_outgoing.is_empty(), "the catalog sends everything before its next step");
        let mut out = CatalogOutbox::default();
        for input in self.catalog_mailbox.drain(..count) {
            trace::note(format_args!("catalog < {input:?}"));
            self.catalog.step(now, input, &mut self.topology, &mut out);
        }
        self.post_catalogs(&mut out);
    }

    fn post_catalogs(&mut self, out: &mut CatalogOutbox) {
        for (shard, input) in out.shards.drain(..) {
            self.shards[usize::from(shard.0)].mailbox.push_back(input);
        }
        self.catalog_outgoing.extend(out.connections.drain(..));
    }

    /// Sends the first of the catalog's answers.
    pub fn send_catalog(&mut self) {
        if let Some((connection, event)) = self.catalog_outgoing.pop_front() {
            self.post(connection, vec![event]);
        }
    }

    /// One round of a log's writer.
    pub fn step_writer(&mut self, at: usize, now: Now) {
        let node = &mut self.shards[at];
        let step = node.writer.step(Duration::from_millis(now.ms));
        node.has_news |= step != Step::Idle;
        node.is_written |= step == Step::Closed;
        match step {
            Step::Idle => {}
            Step::Wrote => node.lazy_sync_ms = Some(now.ms + LAZY_SYNC_MS),
            Step::Synced | Step::Closed | Step::Failed => node.lazy_sync_ms = None,
        }
        if step != Step::Idle {
            trace::note(format_args!("w{at} {step:?}"));
        }
    }

    /// One round of a log's caretaker.
    pub fn step_caretaker(&mut self, at: usize, now: Now) {
        let node = &mut self.shards[at];
        let step = node.caretaker.step(Duration::from_millis(now.ms));
        node.has_news |= step != Step::Idle;
        node.is_cared_for |= step == Step::Closed;
        if step != Step::Idle {
            trace::note(format_args!("k{at} {step:?}"));
        }
    }

    /// The topology, as connections see it.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A connection and what it looks up.
    pub fn connection(&mut self, id: ConnectionId) -> (&mut ConnectionNode, &Topology) {
        let node = self.connections.get_mut(&id).expect("asked for a connection that is there");
        (node, &self.topology)
    }

    /// Sends what a connection wants sent to one shard, or to the catalog if there is nothing for shards.
    pub fn hop(&mut self, id: ConnectionId, shard: Option<usize>) {
        let node = self.connections.get_mut(&id).expect("asked for a connection that is there");
        match shard {
            Some(at) => {
                let batch = node.take_batch(id, at);
                self.shards[at].mailbox.push_back(ShardInput::Batch(batch));
            }
            None => self.catalog_mailbox.extend(node.take_requests().map(CatalogInput::Request)),
        }
    }
}

impl ShardNode {
    fn new(shard: Shard<SegmentLog>, writer: Writer<MemoryDisk>, caretaker: Caretaker<MemoryDisk>) -> Self {
        Self {
            shard,
            writer,
            caretaker,
            mailbox: VecDeque::new(),
            outgoing: VecDeque::new(),
            has_news: false,
            lazy_sync_ms: None,
            is_full: false,
            is_closing: false,
            is_closed: false,
            is_written: false,
            is_cared_for: false,
        }
    }

    /// Whether its host would wake it.
    #[must_use]
    pub fn is_due(&self, now: Now) -> bool {
        let has_mail = !self.mailbox.is_empty() && !self.shard.is_full();
        let is_late = self.shard.deadline().is_some_and(|ms| ms <= now.ms);
        !self.is_closed && self.outgoing.is_empty() && (has_mail || self.has_news || is_late)
    }

    /// When its host would wake it at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let own = self.shard.deadline().filter(|_| !self.is_closed);
        [own, self.lazy_sync_ms].into_iter().flatten().min()
    }

    /// How many mails it may take.
    #[must_use]
    pub fn readable(&self) -> usize {
        if self.shard.is_full() { 0 } else { self.mailbox.len() }
    }
}

/// A mail in a few words.
fn summary(input: &ShardInput) -> String {
    match input {
        ShardInput::Batch(batch) => {
            let commands: Vec<String> = batch.commands.iter().map(connection::describe).collect();
            format!("{:?}: {}", batch.connection, commands.join(", "))
        }
        ShardInput::CreateQueue { spec, declarer } => format!("create {} {declarer:?}", spec.name),
        ShardInput::Transfer { from, transfer, .. } => format!("transfer {transfer} from s{}", from.0),
        ShardInput::PutFact { ticket, .. } => format!("put fact {ticket:?}"),
        ShardInput::ForgetFact { ticket, .. } => format!("forget fact {ticket:?}"),
        other => format!("{other:?}"),
    }
}

/// A little more than the store's own delay.
const LAZY_SYNC_MS: u64 = 201;
