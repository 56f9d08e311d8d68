//! The switchboard: how everything in the process reaches the machines.
//!
//! It knows the mailbox of each shard, of the catalog and of each connection, and holds what they share: the topology,
//! the users, the configuration. It decides nothing.
//!
//! Only connections ever wait, and only for room in a shard's mailbox: shards and the catalog must be able to send at
//! any time, or two of them could wait for each other for ever. What they send is paid for already, by a consumer's
//! credit, a question or a batch. A shard has one mailbox, in which order is the order of sending across all senders:
//! a queue's creation comes before the first publish to it, and a count after the publishes that its asker sent
//! before. What bounds the connections is a semaphore beside it.

use crate::alarms::Alarms;
use crate::audit::Audit;
use crate::client_audit::ClientAudit;
use crate::clock::Clock;
use crate::config::Config;
use crate::disk_times::{LogSize, SyncTimes};
use crate::logins::Logins;
use crate::oauth::Issuer;
use crate::operator::Operator;
use crate::recent_log::RecentLog;
use crate::redrives::Redrives;
use crate::reload::Reload;
use crate::schedules::Scheduler;
use crate::spans::{Collector, Spans};
use crate::strangers::Strangers;
use crate::tls::{Loaded, Tls};
use broker::access::Subject;
use broker::catalog::Changed;
use broker::command::{
    Batch, CatalogAsk, CatalogInput, CatalogRequest, Command, ConnectionEvent, ConnectionId, Fault, Outcome, QueueRef,
    ShardId, ShardInput, ShardReport, Shortage,
};
use broker::connection::ConnectionSettings;
use broker::inspect::{ChannelCounters, ConnectionView, ExchangeCounters, QueueView, Tallied};
use broker::message::Message;
use broker::operation::{Answer, Operation};
use broker::schedule::{Fire, Firing};
use broker::topology::{Exchange, Topology};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tokio::time::{Instant, timeout_at};

/// See the module.
#[derive(Debug)]
pub struct Switchboard {
    /// Replaced as a whole when it is read anew.
    config: RwLock<Arc<Config>>,
    reload: OnceLock<Reload>,
    recent_log: OnceLock<RecentLog>,
    tls: Tls,
    clock: Clock,
    logins: Logins,
    /// Who came for AMQP and has not logged in.
    strangers: Arc<Strangers>,
    audit: Arc<Audit>,
    client_audit: Arc<ClientAudit>,
    /// Whose tokens are believed.
    issuer: RwLock<Option<Arc<Issuer>>>,
    settings: RwLock<Arc<ConnectionSettings>>,
    topology: RwLock<Topology>,
    shards: Vec<ShardLine>,
    catalog: UnboundedSender<CatalogInput>,
    connections: RwLock<HashMap<ConnectionId, ConnectionLine>>,
    departure: Notify,
    next_connection: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    queues_declared: AtomicU64,
    queues_created: AtomicU64,
    queues_deleted: AtomicU64,
    /// What connections did that have ended.
    past: Mutex<PastConnections>,
    /// What was published, as far as no connection counts it any more.
    published: Mutex<Published>,
    alarms: Alarms,
    scheduler: Scheduler,
    redrives: Redrives,
    addresses: Addresses,
    sync_times: Arc<SyncTimes>,
    spans: Arc<Spans>,
}

/// Where the server really listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For AMQP.
    pub amqp: Vec<SocketAddr>,
    /// For AMQP over TLS.
    pub amqps: Vec<SocketAddr>,
    /// For the HTTP API.
    pub http: Vec<SocketAddr>,
    /// For the HTTP API over TLS.
    pub https: Vec<SocketAddr>,
    /// For metrics.
    pub metrics: Vec<SocketAddr>,
}

/// What came and went since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Churn {
    /// Client connections accepted.
    pub opened: u64,
    /// Client connections ended.
    pub closed: u64,
    /// Times that a queue was declared, new or not.
    pub queues_declared: u64,
    /// Queues made.
    pub queues_created: u64,
    /// Queues deleted, by whomever.
    pub queues_deleted: u64,
}

/// What client connections did that have ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct PastConnections {
    /// Channels they opened.
    pub channels: u64,
    /// What happened on those.
    pub counters: ChannelCounters,
}

/// What was published on connections that are gone, and the like.
#[derive(Debug)]
struct Published {
    tallied: Tallied,
    /// With more exchanges than that it is to be asked which of them are gone.
    kept_max: usize,
}

impl Default for Published {
    fn default() -> Self {
        Self { tallied: Tallied::default(), kept_max: PUBLISHED_SLACK }
    }
}

/// A machine did not answer: the server stops, or is far too busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server did not answer in time")]
pub struct Unanswered;

/// What reaches a shard's host.
#[derive(Debug)]
pub(crate) enum ShardMail {
    /// From a connection, with the room that it takes, to be given back when it is executed. What the server itself asks
    /// takes none.
    Batch(Batch, Option<OwnedSemaphorePermit>),
    /// From anyone else.
    Input(ShardInput),
    /// Describe this queue, or all.
    Inspect(Option<broker::command::QueueId>, oneshot::Sender<Vec<QueueView>>),
    /// An operator asks something of this queue.
    Operate(broker::command::QueueId, Operation, oneshot::Sender<Answer>),
    /// An occurrence of a schedule.
    Fire(Box<Fire>, oneshot::Sender<Answer>),
}

/// What reaches a connection's host.
#[derive(Debug)]
pub(crate) enum ConnectionMail {
    /// For the machine.
    Events(Vec<ConnectionEvent>),
    /// Describe yourself.
    Inspect(oneshot::Sender<ConnectionView>),
    /// A user or a vhost was deleted, perhaps yours, or is traced or no more; or messages are.
    Changed,
}

/// The receiving ends.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    /// By shard.
    pub(crate) shards: Vec<UnboundedReceiver<ShardMail>>,
    /// The catalog's.
    pub(crate) catalog: UnboundedReceiver<CatalogInput>,
}

/// What a switchboard is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) tls: Loaded,
    pub(crate) issuer: Option<Arc<Issuer>>,
    pub(crate) collector: Option<Arc<Collector>>,
    pub(crate) clock: Clock,
    pub(crate) settings: ConnectionSettings,
    pub(crate) topology: Topology,
    pub(crate) shards: u16,
    pub(crate) addresses: Addresses,
    pub(crate) sync_times: Arc<SyncTimes>,
}

#[derive(Debug)]
struct ShardLine {
    mail: UnboundedSender<ShardMail>,
    room: Arc<Semaphore>,
    /// For what takes little: that does not stand in line behind what takes much.
    light_room: Arc<Semaphore>,
    /// For what settles deliveries and does nothing else: that does not wait behind publishes.
    settling_room: Arc<Semaphore>,
    log: LogSize,
}

impl ShardLine {
    /// Where these commands, of this weight, find room.
    fn room_for(&self, commands: &[Command], weight: u32) -> &Arc<Semaphore> {
        if commands.iter().all(Command::settles) {
            &self.settling_room
        } else if weight as usize <= LIGHT_ROOM {
            &self.light_room
        } else {
            &self.room
        }
    }
}

#[derive(Debug)]
struct ConnectionLine {
    mail: UnboundedSender<ConnectionMail>,
    /// An [`Operator`]'s: not a client's, not listed, not waited for.
    internal: bool,
    /// From where a client is.
    peer: Option<SocketAddr>,
}

/// A connection's place in the registry; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: ConnectionId,
    board: Arc<Switchboard>,
    internal: bool,
}

impl Switchboard {
    pub(crate) fn new(parts: Parts) -> (Arc<Self>, Mailboxes) {
        let (catalog, catalog_mailbox) = unbounded_channel();
        let (mut lines, mut mailboxes) = (Vec::new(), Vec::new());
        for _shard in 0..parts.shards {
            let (mail, mailbox) = unbounded_channel();
            let room = || Arc::new(Semaphore::new(ROOM as usize));
            mailboxes.push(mailbox);
            lines.push(ShardLine {
                mail,
                room: room(),
                light_room: room(),
                settling_room: room(),
                log: LogSize::default(),
            });
        }
        let tls = Tls::default();
        let Config { data_dir, audit_log_bytes, audit_clients_bytes, .. } = &parts.config;
        let audit = Audit::new(data_dir, *audit_log_bytes);
        let client_audit = ClientAudit::new(data_dir, *audit_clients_bytes);
        tls.use_from_now_on(parts.tls);
        let board = Self {
            tls,
            reload: OnceLock::new(),
            recent_log: OnceLock::new(),
            alarms: Alarms::new(&parts.config),
            scheduler: Scheduler::default(),
            redrives: Redrives::default(),
            config: RwLock::new(Arc::new(parts.config)),
            clock: parts.clock,
            logins: Logins::default(),
            strangers: Arc::new(Strangers::new(GRACE)),
            audit: Arc::new(audit),
            client_audit: Arc::new(client_audit),
            issuer: RwLock::new(parts.issuer),
            settings: RwLock::new(Arc::new(parts.settings)),
            topology: RwLock::new(parts.topology),
            shards: lines,
            catalog,
            connections: RwLock::default(),
            departure: Notify::new(),
            next_connection: AtomicU64::new(1),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            queues_declared: AtomicU64::new(0),
            queues_created: AtomicU64::new(0),
            queues_deleted: AtomicU64::new(0),
            past: Mutex::default(),
            published: Mutex::default(),
            addresses: parts.addresses,
            sync_times: parts.sync_times,
            spans: Arc::new(Spans::new(parts.collector)),
        };
        (Arc::new(board), Mailboxes { shards: mailboxes, catalog: catalog_mailbox })
    }

    /// What the server runs by.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says how [`Self::reload`] reads the configuration. Only the first time counts.
    pub fn on_reload(&self, reload: Reload) {
        let _first_counts = self.reload.set(reload);
    }

    /// Says where the latest lines of the log are. Only the first time counts.
    pub fn show_log(&self, log: RecentLog) {
        let _first_counts = self.recent_log.set(log);
    }

    pub(crate) fn recent_log(&self) -> Option<&RecentLog> {
        self.recent_log.get()
    }

    /// The server's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Who is who.
    pub(crate) fn logins(&self) -> &Logins {
        &self.logins
    }

    /// Who came for AMQP and has not logged in.
    pub(crate) fn strangers(&self) -> &Arc<Strangers> {
        &self.strangers
    }

    /// Who changed what.
    pub(crate) fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// What AMQP clients changed.
    pub(crate) fn client_audit(&self) -> &Arc<ClientAudit> {
        &self.client_audit
    }

    /// Records what AMQP clients changed. What comes over HTTP is recorded with its request.
    pub(crate) fn record_changed(&self, changed: impl Iterator<Item = Changed>) {
        let unix_ms = self.clock().now().unix_ms;
        let lines = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        for change in changed {
            match lines.get(&change.connection).map(|line| line.peer) {
                Some(None) => {}
                Some(peer) => self.client_audit.record(unix_ms, peer, change),
                None => self.client_audit.record(unix_ms, None, change),
            }
        }
    }

    /// Whose tokens are believed; `None` = nobody's.
    pub(crate) fn issuer(&self) -> Option<Arc<Issuer>> {
        self.issuer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Believes this one's from now on.
    pub(crate) fn believe(&self, issuer: Option<Arc<Issuer>>) {
        let mut believed = self.issuer.write().unwrap_or_else(PoisonError::into_inner);
        if let (Some(issuer), Some(earlier)) = (&issuer, &*believed) {
            issuer.inherit(earlier);
        }
        *believed = issuer;
    }

    /// How many spans a collector took, and how many were lost.
    #[must_use]
    pub fn exported_spans(&self) -> (u64, u64) {
        self.spans.counts()
    }

    /// Messages that are traced.
    pub(crate) fn spans(&self) -> &Arc<Spans> {
        &self.spans
    }

    /// Where the server listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What is limited, and what is short.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// How long the disk took to make things durable.
    #[must_use]
    pub fn sync_times(&self) -> &SyncTimes {
        &self.sync_times
    }

    /// The sizes of the shards' logs.
    pub fn logs(&self) -> impl Iterator<Item = &LogSize> {
        self.shards.iter().map(|shard| &shard.log)
    }

    pub(crate) fn log(&self, shard: ShardId) -> &LogSize {
        &self.shards[usize::from(shard.0)].log
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("made from a u16")
    }

    /// What came and went since the server started.
    #[must_use]
    pub fn churn(&self) -> Churn {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Churn {
            opened: read(&self.opened),
            closed: read(&self.closed),
            queues_declared: read(&self.queues_declared),
            queues_created: read(&self.queues_created),
            queues_deleted: read(&self.queues_deleted),
        }
    }

    /// What connections did that have ended.
    #[must_use]
    pub fn past_connections(&self) -> PastConnections {
        *self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topology, to look something up at once. Nothing changes while the guard lives: never keep it over an await.
    pub fn topology(&self) -> RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Describes all queues, in no order.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub async fn inspect_queues(&self) -> Result<Vec<QueueView>, Unanswered> {
        let answers: Vec<_> = self.shards.iter().map(|shard| ask_shard(shard, None)).collect();
        let mut views = Vec::new();
        let deadline = Instant::now() + INSPECT_QUEUES;
        for answer in answers {
            views.append(&mut timeout_at(deadline, answer).await.map_err(|_| Unanswered)?.map_err(|_| Unanswered)?);
        }
        Ok(views)
    }

    /// Describes one queue; `None` when it is gone.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub async fn inspect_queue(&self, queue: QueueRef) -> Result<Option<QueueView>, Unanswered> {
        let shard = self.shards.get(usize::from(queue.shard.0)).ok_or(Unanswered)?;
        let answer = timeout_at(Instant::now() + INSPECT_QUEUES, ask_shard(shard, Some(queue.id))).await;
        Ok(answer.map_err(|_| Unanswered)?.map_err(|_| Unanswered)?.pop())
    }

    /// Asks something of a queue.
    ///
    /// # Errors
    /// [`Unanswered`]: it may be done, or not.
    pub async fn operate(&self, queue: QueueRef, operation: Operation) -> Result<Answer, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.post(queue.shard, ShardMail::Operate(queue.id, operation, answer));
        timeout_at(Instant::now() + OPERATE, answered).await.map_err(|_| Unanswered)?.map_err(|_| Unanswered)
    }

    /// Fires an occurrence of a schedule into a shard, and waits until that is durable there.
    ///
    /// # Errors
    /// [`Unanswered`]: it may be done, or not; it can be asked for again.
    pub(crate) fn fire(&self, shard: ShardId, fire: Fire) -> impl Future<Output = Result<Firing, Unanswered>> + use<> {
        let (answer, answered) = oneshot::channel();
        self.post(shard, ShardMail::Fire(Box::new(fire), answer));
        let deadline = Instant::now() + OPERATE;
        async move {
            match timeout_at(deadline, answered).await {
                Ok(Ok(Answer::Fired(firing))) => Ok(firing),
                _ => Err(Unanswered),
            }
        }
    }

    /// When schedules are due, and what became of them.
    #[must_use]
    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The last redrive of each queue.
    #[must_use]
    pub(crate) fn redrives(&self) -> &Redrives {
        &self.redrives
    }

    /// Describes all client connections, by id. One that does not answer in time is left out.
    pub async fn inspect_connections(&self) -> Vec<ConnectionView> {
        let answers: Vec<_> = {
            let lines = self.connections.read().unwrap_or_else(PoisonError::into_inner);
            lines.values().filter(|line| !line.internal).map(ask_connection).collect()
        };
        let deadline = Instant::now() + INSPECT_CONNECTIONS;
        let mut views = Vec::with_capacity(answers.len());
        for answer in answers {
            if let Ok(Ok(view)) = timeout_at(deadline, answer).await {
                views.push(view);
            }
        }
        views.sort_by_key(|view: &ConnectionView| view.id);
        views
    }

    /// How many client connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        let Churn { opened, closed, .. } = self.churn();
        usize::try_from(opened.saturating_sub(closed)).unwrap_or(usize::MAX)
    }

    /// Closes a client's connection with this fault; false when there is no such connection.
    pub fn close_connection(&self, id: ConnectionId, fault: Fault) -> bool {
        let lines = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        let line = lines.get(&id).filter(|line| !line.internal);
        line.is_some_and(|line| line.mail.send(ConnectionMail::Events(vec![ConnectionEvent::Close(fault)])).is_ok())
    }

    /// An internal connection, to ask machines what only connections may ask.
    #[must_use]
    pub fn operator(self: &Arc<Self>) -> Operator {
        self.operator_for(None)
    }

    /// The same with the rights of a user.
    pub(crate) fn operator_for(self: &Arc<Self>, user: Option<Subject>) -> Operator {
        let (seat, mail) = self.seat(None);
        Operator::new(Arc::clone(self), seat, user, mail)
    }

    // --- for the hosts --------------------------------------------------------------------------------------------

    pub(crate) fn settings(&self) -> Arc<ConnectionSettings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn reload_source(&self) -> Option<&Reload> {
        self.reload.get()
    }

    /// How clients are met over TLS.
    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Runs by this configuration from now on; connections that are open keep what they were told.
    pub(crate) fn run_by(&self, config: Config) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(crate::connection_settings(&config));
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Tells every shard the same.
    pub(crate) fn tell_shards(&self, input: impl Fn() -> ShardInput) {
        for shard in 0..self.shards() {
            self.post(ShardId(shard), ShardMail::Input(input()));
        }
    }

    pub(crate) fn topology_mut(&self) -> RwLockWriteGuard<'_, Topology> {
        self.topology.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a client's connection under a new id.
    pub(crate) fn connect(self: &Arc<Self>, peer: SocketAddr) -> (Seat, UnboundedReceiver<ConnectionMail>) {
        self.opened.fetch_add(1, Ordering::AcqRel);
        self.seat(Some(peer))
    }

    fn seat(self: &Arc<Self>, peer: Option<SocketAddr>) -> (Seat, UnboundedReceiver<ConnectionMail>) {
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let (mail, mailbox) = unbounded_channel();
        let internal = peer.is_none();
        let mut lines = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        lines.insert(id, ConnectionLine { mail, internal, peer });
        (Seat { id, board: Arc::clone(self), internal }, mailbox)
    }

    /// Sends events to connections. Those of a connection that is gone are dropped: it has told the shards so.
    pub(crate) fn deliver(&self, events: impl IntoIterator<Item = (ConnectionId, Vec<ConnectionEvent>)>) {
        let mut events = events.into_iter().peekable();
        if events.peek().is_none() {
            return;
        }
        let lines = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        for (connection, events) in events {
            if let Some(line) = lines.get(&connection) {
                let _gone = line.mail.send(ConnectionMail::Events(events));
            }
        }
    }

    /// Sends a connection's commands to a shard and leaves `commands` empty, unless its mailbox has no room.
    pub(crate) fn try_send(&self, from: ConnectionId, to: ShardId, commands: &mut Vec<Command>) -> bool {
        let weight = weight(commands);
        let room = self.shards[usize::from(to.0)].room_for(commands, weight);
        match Arc::clone(room).try_acquire_many_owned(weight) {
            Ok(permit) => {
                self.send_with(permit, from, to, std::mem::take(commands));
                true
            }
            Err(TryAcquireError::NoPermits) => false,
            // The shard is closed, the server stops.
            Err(TryAcquireError::Closed) => {
                commands.clear();
                true
            }
        }
    }

    /// Room for these commands, to be had in turn; `None` when the shard is closed.
    pub(crate) fn room(
        &self,
        shard: ShardId,
        commands: &[Command],
    ) -> impl Future<Output = Option<OwnedSemaphorePermit>> + Send + 'static {
        let weight = weight(commands);
        let room = Arc::clone(self.shards[usize::from(shard.0)].room_for(commands, weight));
        async move { room.acquire_many_owned(weight).await.ok() }
    }

    /// Sends a connection's commands to a shard with the room it waited for.
    pub(crate) fn send_with(
        &self,
        permit: OwnedSemaphorePermit,
        from: ConnectionId,
        to: ShardId,
        commands: Vec<Command>,
    ) {
        self.post(to, ShardMail::Batch(Batch { connection: from, commands }, Some(permit)));
    }

    /// What was published, by exchange and by size, as far as no connection counts it.
    #[must_use]
    pub fn published(&self) -> Tallied {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).tallied.clone()
    }

    /// Keeps what was published. Never called while the topology is looked at.
    pub(crate) fn add_published(&self, tallied: &Tallied) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let Published { tallied: sums, kept_max } = &mut *published;
        sums.add(tallied);
        if sums.exchanges.len() > *kept_max {
            // Exchanges that are gone take their numbers with them.
            let known: HashSet<u64> = self.topology().exchanges().map(Exchange::number).collect();
            sums.exchanges.retain(|number, _| known.contains(number));
            *kept_max = PUBLISHED_SLACK + 2 * sums.exchanges.len();
        }
    }

    /// Counts a message that was published over HTTP, as RabbitMQ does: mandatory, and by a channel of its own.
    pub(crate) fn count_published(&self, exchange: u64, queues: usize, body_bytes: u64) {
        let (publish, publish_out) = (1, queues as u64);
        let return_unroutable = u64::from(queues == 0);
        let mut tallied = Tallied::default();
        tallied.add_exchange(
            exchange,
            &ExchangeCounters { publish, publish_out, return_unroutable, ..ExchangeCounters::default() },
        );
        tallied.sizes.note(body_bytes);
        self.add_published(&tallied);
        let counted = ChannelCounters { publish, return_unroutable, ..ChannelCounters::default() };
        self.past.lock().unwrap_or_else(PoisonError::into_inner).counters.add(&counted);
    }

    /// Keeps what a client's connection did, at its end.
    pub(crate) fn remember(&self, connection: &ConnectionView) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.channels += connection.channels_opened;
        past.counters.add(&connection.closed_channels);
        connection.channels.iter().for_each(|channel| past.counters.add(&channel.counters));
    }

    /// Sends to a shard what does not wait.
    pub(crate) fn post(&self, to: ShardId, mail: ShardMail) {
        if let ShardMail::Input(ShardInput::CreateQueue { .. }) = &mail {
            self.queues_created.fetch_add(1, Ordering::Relaxed);
        }
        // A shard's mailbox closes only when the server stops, and then nobody waits for answers.
        let _stopping = self.shards[usize::from(to.0)].mail.send(mail);
    }

    pub(crate) fn post_catalog(&self, input: CatalogInput) {
        match &input {
            CatalogInput::Request(CatalogRequest { ask: CatalogAsk::DeclareQueue(_), .. }) => {
                self.queues_declared.fetch_add(1, Ordering::Relaxed);
            }
            CatalogInput::Report(
                ShardReport::QueueGone { .. } | ShardReport::Deleted { outcome: Outcome::QueueDeleted { .. }, .. },
            ) => {
                self.queues_deleted.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        let _stopping = self.catalog.send(input);
    }

    pub(crate) fn request(&self, request: CatalogRequest) {
        self.post_catalog(CatalogInput::Request(request));
    }

    /// Closes every client's connection with this fault.
    pub(crate) fn close_all(&self, fault: &Fault) {
        let lines = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        for line in lines.values().filter(|line| !line.internal) {
            let _gone = line.mail.send(ConnectionMail::Events(vec![ConnectionEvent::Close(fault.clone())]));
        }
    }

    /// Tells every client's connection that users or vhosts are gone, or traced.
    pub(crate) fn tell_changed(&self) {
        let lines = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        for line in lines.values().filter(|line| !line.internal) {
            let _gone = line.mail.send(ConnectionMail::Changed);
        }
    }

    /// Tells every client's connection what the server is short of.
    pub(crate) fn tell_shortage(&self, shortage: Shortage) {
        let lines = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        for line in lines.values().filter(|line| !line.internal) {
            let _gone = line.mail.send(ConnectionMail::Events(vec![ConnectionEvent::Shortage(shortage)]));
        }
    }

    /// Asks every shard to make everything durable and to end. What connections ask from now on is dropped.
    pub(crate) fn close_shards(&self) {
        for shard in &self.shards {
            shard.room.close();
            shard.light_room.close();
            shard.settling_room.close();
            let _closed_before = shard.mail.send(ShardMail::Input(ShardInput::Close));
        }
    }

    /// Waits until there are no more than `most` client connections.
    pub(crate) async fn at_most(&self, most: usize) {
        loop {
            let mut departure = pin!(self.departure.notified());
            departure.as_mut().enable();
            if self.connections() <= most {
                return;
            }
            departure.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut lines = self.board.connections.write().unwrap_or_else(PoisonError::into_inner);
        lines.remove(&self.id);
        drop(lines);
        if !self.internal {
            self.board.closed.fetch_add(1, Ordering::AcqRel);
            self.board.departure.notify_waiters();
        }
    }
}

fn ask_shard(shard: &ShardLine, queue: Option<broker::command::QueueId>) -> oneshot::Receiver<Vec<QueueView>> {
    let (answer, answered) = oneshot::channel();
    let _stopping = shard.mail.send(ShardMail::Inspect(queue, answer));
    answered
}

fn ask_connection(line: &ConnectionLine) -> oneshot::Receiver<ConnectionView> {
    let (answer, answered) = oneshot::channel();
    let _gone = line.mail.send(ConnectionMail::Inspect(answer));
    answered
}

/// The room that commands take in a mailbox: one, and one more for each 4 KiB of messages and of what it costs to queue
/// them.
fn weight(commands: &[Command]) -> u32 {
    room_for_bytes(publish_bytes(commands))
}

/// The room that commands take whose publishes weigh so much.
pub(crate) fn room_for_bytes(publish_bytes: u64) -> u32 {
    u32::try_from(1 + publish_bytes / 4096).unwrap_or(ROOM).min(ROOM)
}

/// What the publishes among these weigh.
pub(crate) fn publish_bytes(commands: &[Command]) -> u64 {
    let of = |message: &Message| PUBLISH_BYTES + message.bytes().len() as u64;
    let bytes = |command: &Command| match command {
        Command::Publish(publish) => publish.messages().map(of).sum(),
        Command::Sift(sifted) => sifted.publish.messages().map(of).sum(),
        Command::Keep(recent) => of(&recent.message),
        Command::Transaction(commands) => publish_bytes(commands),
        _ => 0,
    };
    commands.iter().map(bytes).sum()
}

/// What a publish weighs beside its message: even an empty one takes about the time of so many copied bytes, and many
/// of them fit into one read.
const PUBLISH_BYTES: u64 = 256;

/// What the connections' batches in one shard's mailbox may weigh together, those that publish and the others each for
/// themselves: 256 small ones, or 1 MiB of messages. Enough
/// to keep the shard busy while connections read on, and little enough that what waits behind them (a question, the
/// word that a consumer has room again) waits for milliseconds: with 16 MiB, consumers starved behind publishers.
const ROOM: u32 = 256;

/// A batch that takes no more room than this is small.
pub(crate) const LIGHT_ROOM: usize = 4;

/// Of so many exchanges that are gone it may be remembered what was published to them.
const PUBLISHED_SLACK: usize = 256;

/// How long shards may take to describe their queues.
pub(crate) const INSPECT_QUEUES: Duration = Duration::from_secs(5);

/// How long a shard may take to do what an operator asks: it may wait for the disk.
const OPERATE: Duration = Duration::from_secs(30);

/// How long connections may take to describe themselves.
const INSPECT_CONNECTIONS: Duration = Duration::from_secs(2);

/// How long an AMQP client has to log in, if others wait: a few round trips around the world, TLS among them.
const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use broker::command::{Publish, QueueId};
    use broker::message::{Message, MessageParts};

    fn publish(body_bytes: usize) -> Command {
        let parts = MessageParts { exchange: "", routing_key: "work", properties: &[0, 0], died_here: false };
        Command::Publish(Publish {
            queues: [QueueId(1)].into(),
            message: Message::new(parts, &vec![0; body_bytes]),
            more: Vec::new(),
            persistent: false,
            expiration_ms: None,
            priority: None,
            delay: None,
            confirm: false,
        })
    }

    #[test]
    fn what_keeps_a_shard_busy_weighs_accordingly() {
        assert_eq!(weight(&[]), 1);
        assert_eq!(weight(&[publish(1)]), 1);
        assert_eq!(weight(&[publish(1 << 20)]), ROOM, "never more than all the room: it would wait for ever");
        let smallest: Vec<_> = (0..900).map(|_| publish(0)).collect();
        assert!(
            (ROOM / 8..ROOM).contains(&weight(&smallest)),
            "a read of empty messages keeps a shard for a millisecond"
        );
        assert!(weight(&[Command::Transaction(smallest)]) > ROOM / 8, "also when they are committed together");
    }
}
