//! The broker's machines hosted in one thread: clients' bytes go in, the server's bytes come out, time stands still
//! until it is told to pass. The order in which machines work is fixed, so the same bytes always give the same answer.
//!
//! It serves whoever wants the real machines and nothing around them: the fuzzer, the transcripts of real clients, the
//! counts of instructions. The simulator, which is about the order of things, has its own.
#![forbid(unsafe_code)]

mod log;

pub use log::{Log, MemoryLog, Segments};

use broker::catalog::{Catalog, CatalogOutbox};
use broker::command::{Batch, CatalogInput, ConnectionId, Now, Outbox, ShardId, ShardInput};
use broker::connection::{CloseSocket, Connection, ConnectionSettings, Effects, Peer};
use broker::inspect::{ConnectionView, QueueView};
use broker::shard::{Shard, ShardSettings};
use broker::topology::Topology;
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// A server and its clients.
#[derive(Debug)]
pub struct Machines<L: Log = MemoryLog> {
    now: Now,
    epoch: u32,
    settings: Arc<ConnectionSettings>,
    catalog: Catalog,
    topology: Topology,
    shards: Vec<Hosted<L>>,
    clients: BTreeMap<ConnectionId, Client>,
    last_connection: u64,
}

/// A shard and what lies in its mailbox.
#[derive(Debug)]
struct Hosted<L: Log> {
    shard: Shard<L::Store>,
    log: L,
    inbox: Vec<ShardInput>,
    /// What its last step wanted sent; empty between two steps.
    out: Outbox,
    /// Its log may have news.
    is_owed_a_step: bool,
}

/// One client's socket, and the machine behind it.
#[derive(Debug)]
struct Client {
    machine: Connection,
    fx: Effects,
    /// Sent by the client, not yet taken.
    input: BytesMut,
    /// Sent by the server, not yet looked at.
    output: Vec<u8>,
    /// What it was sent is kept in `output`.
    keeps: bool,
    /// How many bytes the client was sent.
    received_bytes: u64,
    /// How many more it takes.
    room: u64,
}

/// The address that the server pretends to listen on.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5672);

impl Machines {
    /// A new server with so many shards, at least 1, each with a log in memory.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self::on((0..shards).map(|_| MemoryLog::default()).collect())
    }

    /// The same server after it lost power: every socket is gone, and everything in its stores that was not durable.
    ///
    /// # Errors
    /// The sentence with which it refuses to start on what it wrote itself.
    pub fn restart(self) -> Result<Self, String> {
        let logs = self.shards.into_iter().map(|hosted| hosted.log.restart()).collect();
        Self::recover(logs, self.epoch + 1, self.now)
    }
}

impl<L: Log> Machines<L> {
    /// A new server with a shard for each of these logs, at least one, in which there is nothing.
    #[must_use]
    pub fn on(logs: Vec<L>) -> Self {
        let now = Now { ms: 1_000_000, unix_ms: 1_700_000_000_000 };
        Self::recover(logs, 1, now).expect("nothing in an empty log is wrong")
    }

    /// The server, started on what these logs hold.
    fn recover(logs: Vec<L>, epoch: u32, now: Now) -> Result<Self, String> {
        let count = logs.len() as u16;
        let mut facts = Vec::new();
        let mut shards = Vec::new();
        for (id, mut log) in (0..).map(ShardId).zip(logs) {
            let mut recovery =
                Shard::<L::Store>::recover(id, ShardSettings { shards: count, ..ShardSettings::default() }, now);
            let store = log.open(&mut |lsn, record| recovery.replay(lsn, record));
            let (shard, kept) = recovery.finish(store, false).map_err(|error| error.to_string())?;
            facts.extend(kept.into_iter().map(|(key, value)| (id, key, value)));
            shards.push(Hosted { shard, log, inbox: Vec::new(), out: Outbox::default(), is_owed_a_step: true });
        }
        let mut out = CatalogOutbox::default();
        let (catalog, topology) = Catalog::recover(count, epoch, facts, &mut out).map_err(|error| error.to_string())?;
        let mut machines = Self {
            now,
            epoch,
            settings: Arc::new(ConnectionSettings::default()),
            catalog,
            topology,
            shards,
            clients: BTreeMap::new(),
            last_connection: 0,
        };
        machines.carry_out(out);
        machines.settle();
        Ok(machines)
    }

    /// A client opens a socket.
    pub fn connect(&mut self) -> ConnectionId {
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        let port = 1024 + (self.last_connection % 60_000) as u16;
        let peer = Peer { peer: SocketAddr::new(LOCAL.ip(), port), local: LOCAL };
        let shards = self.shards.len() as u16;
        let mut entropy = [0; 32];
        for (at, octet) in entropy.iter_mut().enumerate() {
            *octet = (self.last_connection as u8).wrapping_mul(31).wrapping_add(at as u8) ^ self.epoch as u8;
        }
        let settings = Arc::clone(&self.settings);
        let machine = Connection::new(id, settings, peer, shards, entropy, self.now);
        let client = Client {
            machine,
            fx: Effects::new(shards),
            input: BytesMut::new(),
            output: Vec::new(),
            keeps: true,
            received_bytes: 0,
            room: u64::MAX,
        };
        self.clients.insert(id, client);
        id
    }

    /// The client sends bytes, and everything that follows from them happens.
    pub fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(client) = self.clients.get_mut(&id).filter(|client| client.fx.close.is_none()) {
            client.input.extend_from_slice(bytes);
        }
        self.settle();
    }

    /// What the client was sent since it last looked.
    pub fn received(&mut self, id: ConnectionId) -> Vec<u8> {
        self.clients.get_mut(&id).map(|client| std::mem::take(&mut client.output)).unwrap_or_default()
    }

    /// Whether the client takes what it is sent, from now on. It does at first.
    pub fn set_reading(&mut self, id: ConnectionId, reads: bool) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.room = if reads { u64::MAX } else { 0 };
        }
        self.settle();
    }

    /// The client takes so many more bytes, and no more after them.
    pub fn take(&mut self, id: ConnectionId, bytes: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.room = bytes;
        }
        self.settle();
    }

    /// From now on what the client is sent is only counted.
    pub fn only_count(&mut self, id: ConnectionId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.keeps = false;
        }
    }

    /// How many bytes the client was sent in all.
    #[must_use]
    pub fn received_bytes(&self, id: ConnectionId) -> u64 {
        self.clients.get(&id).map_or(0, |client| client.received_bytes)
    }

    /// The client's socket ends.
    pub fn disconnect(&mut self, id: ConnectionId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.machine.lost(&mut client.fx);
        }
        self.settle();
        self.clients.remove(&id);
    }

    /// Whether the server has closed, or is about to close, the client's socket.
    #[must_use]
    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.clients.get(&id).is_none_or(|client| client.fx.close.is_some())
    }

    /// Time passes; whatever falls due happens at its time.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.ms + ms;
        while let Some(due) = self.deadline().filter(|due| *due <= end) {
            self.advance_to(due.max(self.now.ms));
            for client in self.clients.values_mut() {
                if client.machine.deadline().is_some_and(|at| at <= self.now.ms) && client.fx.close.is_none() {
                    client.machine.tick(self.now, &mut client.fx);
                }
            }
            self.settle();
        }
        self.advance_to(end);
    }

    /// What there is.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// How the client's connection looks; `None` once it is gone.
    #[must_use]
    pub fn connection(&self, id: ConnectionId) -> Option<ConnectionView> {
        self.clients.get(&id).map(|client| client.machine.view(&client.fx))
    }

    /// How all queues look.
    pub fn queues(&mut self) -> Vec<QueueView> {
        let mut views = Vec::new();
        for hosted in &mut self.shards {
            let mut out = Outbox::default();
            hosted.inbox.push(ShardInput::Inspect { ticket: 0, queue: None });
            hosted.shard.step(self.now, &mut hosted.inbox, &self.topology, &mut out);
            views.extend(out.views.drain(..).flat_map(|(_, views)| views));
            hosted.is_owed_a_step = true;
            assert!(out.shards.is_empty() && out.catalog.is_empty() && out.connections.is_empty(), "all was settled");
        }
        views
    }

    fn advance_to(&mut self, ms: u64) {
        self.now.unix_ms += ms - self.now.ms;
        self.now.ms = ms;
    }

    fn deadline(&self) -> Option<u64> {
        let open = self.clients.values().filter(|client| client.fx.close.is_none());
        let connections = open.filter_map(|client| client.machine.deadline());
        connections.chain(self.shards.iter().filter_map(|hosted| hosted.shard.deadline())).min()
    }

    /// Lets everybody work until nobody has anything left to do.
    fn settle(&mut self) {
        let mut rounds = 0;
        while self.serve_clients() | self.step_shards() {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "the machines do not come to rest");
        }
    }

    fn serve_clients(&mut self) -> bool {
        let mut moved = false;
        let mut requests = Vec::new();
        for (id, client) in &mut self.clients {
            moved |= client.read(self.now, &self.topology);
            for (hosted, commands) in self.shards.iter_mut().zip(&mut client.fx.shards) {
                if !commands.is_empty() {
                    let batch = Batch { connection: *id, commands: std::mem::take(commands) };
                    hosted.inbox.push(ShardInput::Batch(batch));
                    moved = true;
                }
            }
            requests.append(&mut client.fx.catalog);
            moved |= client.write();
            moved |= client.end();
            client.fx.notices.clear();
            client.fx.tallied = None;
        }
        for request in requests {
            moved = true;
            self.tell_catalog(CatalogInput::Request(request));
        }
        moved
    }

    fn step_shards(&mut self) -> bool {
        let mut moved = false;
        for at in 0..self.shards.len() {
            let hosted = &mut self.shards[at];
            let is_due = hosted.shard.deadline().is_some_and(|due| due <= self.now.ms);
            if hosted.inbox.is_empty() && !hosted.is_owed_a_step && !is_due {
                continue;
            }
            moved = true;
            let had_work = !hosted.inbox.is_empty() || is_due;
            let mut out = std::mem::take(&mut hosted.out);
            hosted.shard.step(self.now, &mut hosted.inbox, &self.topology, &mut out);
            hosted.is_owed_a_step = hosted.log.work(self.now, had_work);
            assert_eq!(out.failed, None, "a store in memory does not fail");
            for (shard, input) in out.shards.drain(..) {
                hosted_mut(&mut self.shards, shard).inbox.push(input);
            }
            for report in out.catalog.drain(..) {
                self.tell_catalog(CatalogInput::Report(report));
            }
            for (id, events) in out.connections.drain(..) {
                let Some(client) = self.clients.get_mut(&id) else { continue };
                client.machine.apply_all(self.now, events, &mut client.fx);
            }
            self.shards[at].out = out;
        }
        moved
    }

    fn tell_catalog(&mut self, input: CatalogInput) {
        let mut out = CatalogOutbox::default();
        self.catalog.step(self.now, input, &mut self.topology, &mut out);
        self.carry_out(out);
    }

    /// Shards hear of a change before connections do.
    fn carry_out(&mut self, out: CatalogOutbox) {
        for (shard, input) in out.shards {
            hosted_mut(&mut self.shards, shard).inbox.push(input);
        }
        for (id, event) in out.connections {
            if let Some(client) = self.clients.get_mut(&id) {
                client.machine.apply(self.now, event, &mut client.fx);
            }
        }
    }
}

fn hosted_mut<L: Log>(shards: &mut [Hosted<L>], shard: ShardId) -> &mut Hosted<L> {
    &mut shards[usize::from(shard.0)]
}

impl Client {
    fn read(&mut self, now: Now, topology: &Topology) -> bool {
        if self.fx.close.is_some() || !self.machine.accepts_input(&self.fx) {
            return false;
        }
        let before = self.input.len();
        if before == 0 {
            return false;
        }
        self.machine.receive(now, &mut self.input, topology, &mut self.fx);
        while let Some(question) = self.fx.question.take() {
            self.machine.apply(now, question.plain_answer(topology), &mut self.fx);
            self.machine.receive(now, &mut self.input, topology, &mut self.fx);
        }
        self.input.len() < before
    }

    fn write(&mut self) -> bool {
        let mut moved = false;
        while self.room > 0 && !self.fx.out.is_empty() && self.fx.close != Some(CloseSocket::Now) {
            let mut slices = [IoSlice::new(&[]); 16];
            let count = self.fx.out.io_slices(&mut slices);
            let mut bytes = 0;
            for slice in &slices[..count] {
                let taken = slice.len().min(self.room as usize);
                if self.keeps {
                    self.output.extend_from_slice(&slice[..taken]);
                }
                self.room -= taken as u64;
                bytes += taken;
            }
            self.received_bytes += bytes as u64;
            self.fx.out.advance(bytes);
            self.machine.written(bytes, &mut self.fx);
            moved = true;
        }
        moved
    }

    /// The server closes the socket when it said so and what it had to say is out.
    fn end(&mut self) -> bool {
        let is_due = match self.fx.close {
            None => false,
            Some(CloseSocket::Now) => true,
            Some(CloseSocket::AfterFlush | CloseSocket::AfterClient) => self.fx.out.is_empty(),
        };
        if !is_due || self.machine.is_finished() {
            return false;
        }
        self.machine.lost(&mut self.fx);
        true
    }
}

/// Work that one input can cause is bounded; more rounds than this are a loop without end.
const ROUNDS_MAX: usize = 1_000_000;
