//! A connection and its host, between a wire and the mailboxes.

use crate::random::Random;
use crate::trace;
use crate::wire::Wire;
use broker::command::{Batch, CatalogRequest, Command, ConnectionEvent, ConnectionId, Now, Settle, Shortage};
use broker::connection::{CloseSocket, Connection, ConnectionSettings, Effects, Peer};
use broker::inspect::ConnectionView;
use broker::message::Message;
use broker::topology::Topology;
use bytes::BytesMut;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct ConnectionNode {
    /// The client at the other end of the wire.
    pub client: u64,
    /// Events, in the bunches in which they were sent.
    pub mailbox: VecDeque<Vec<ConnectionEvent>>,
    /// How far the socket's end has come.
    pub phase: Phase,
    machine: Connection,
    fx: Effects,
    input: BytesMut,
    /// Whole frames may be left in `input`.
    is_unread: bool,
    /// It was told that the server is short of something.
    is_warned: bool,
    last_tick_ms: u64,
    /// Shards that were told of its end.
    released: Vec<bool>,
}

/// The socket's end, as in the real host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see the real host")]
pub enum Phase {
    Open,
    Flushing { until_ms: u64 },
    Draining { until_ms: u64 },
    Gone,
}

impl ConnectionNode {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(id: ConnectionId, client: u64, shards: u16, shortage: Shortage, random: &mut Random, now: Now) -> Self {
        let port = u16::try_from(id.0 % 60_000).expect("below 60,000");
        let (peer, local) =
            (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv4Addr::LOCALHOST, 5672)));
        let settings = Arc::new(ConnectionSettings::default());
        let mut entropy = [0; 32];
        entropy.fill_with(|| u8::try_from(random.below(256)).expect("a byte"));
        let mut node = Self {
            client,
            mailbox: VecDeque::from([vec![ConnectionEvent::Shortage(shortage)]]),
            phase: Phase::Open,
            machine: Connection::new(id, settings, Peer { peer, local }, shards, entropy, now),
            fx: Effects::new(shards),
            input: BytesMut::new(),
            is_unread: false,
            is_warned: false,
            last_tick_ms: 0,
            released: vec![false; usize::from(shards)],
        };
        node.take_mail(now);
        node
    }

    /// What it shows of itself.
    #[must_use]
    pub fn view(&self) -> ConnectionView {
        self.machine.view(&self.fx)
    }

    /// Whether its host can end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.machine.is_finished() && self.phase == Phase::Gone && self.has_nothing_to_send()
    }

    fn has_nothing_to_send(&self) -> bool {
        self.fx.catalog.is_empty() && self.fx.shards.iter().all(Vec::is_empty)
    }

    /// Shards that it has something for.
    pub fn shards_to_tell(&self) -> impl Iterator<Item = usize> {
        self.fx.shards.iter().enumerate().filter(|(_, commands)| !commands.is_empty()).map(|(at, _)| at)
    }

    /// It has something for the catalog, and nothing for shards.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        !self.fx.catalog.is_empty() && self.fx.shards.iter().all(Vec::is_empty)
    }

    pub(super) fn take_batch(&mut self, connection: ConnectionId, shard: usize) -> Batch {
        let commands = std::mem::take(&mut self.fx.shards[shard]);
        // A shard that hears of a connection again after its end would remember it for ever.
        assert!(!self.released[shard], "{connection:?} speaks to s{shard} after its end: {commands:?}");
        self.released[shard] = commands.iter().any(|command| matches!(command, Command::CloseConnection { .. }));
        Batch { connection, commands }
    }

    pub(super) fn take_requests(&mut self) -> impl Iterator<Item = CatalogRequest> {
        self.fx.catalog.drain(..)
    }

    /// Whether it would read.
    #[must_use]
    pub fn can_read(&self, wire: &Wire) -> bool {
        let has_input = self.is_unread || !wire.to_server.is_empty() || wire.client_ended || wire.is_broken;
        match self.phase {
            Phase::Open => {
                // A host looks at the socket of who is blocked now and then.
                let finds_end = self.machine.is_blocked() && wire.is_broken;
                has_input
                    && self.fx.close.is_none()
                    && self.has_nothing_to_send()
                    && (self.machine.accepts_input(&self.fx) || finds_end)
            }
            Phase::Draining { .. } => has_input,
            _ => false,
        }
    }

    /// One read, of at most `bytes`.
    pub fn read(&mut self, bytes: usize, now: Now, wire: &mut Wire, topology: &Topology) {
        let is_at_end = wire.is_broken || wire.to_server.is_empty() && wire.client_ended;
        if let Phase::Draining { .. } = self.phase {
            wire.to_server.clear();
            if is_at_end {
                self.phase = Phase::Gone;
                wire.server_ended = true;
            }
            return;
        }
        if !self.is_unread || self.machine.is_blocked() {
            if is_at_end {
                return self.lose(wire);
            }
            wire.read_by_server(bytes, &mut self.input);
        }
        self.machine.receive(now, &mut self.input, topology, &mut self.fx);
        while let Some(question) = self.fx.question.take() {
            self.machine.apply(now, question.plain_answer(topology), &mut self.fx);
            self.machine.receive(now, &mut self.input, topology, &mut self.fx);
        }
        self.is_unread = !self.input.is_empty() && !self.machine.accepts_input(&self.fx);
        let mut commands = self.fx.shards.iter().flatten();
        let is_let_in = self.is_warned && commands.any(|command| matches!(command, Command::Publish(_)));
        assert!(!is_let_in, "{:?} takes in a publish during an alarm", self.machine.id());
        self.note();
    }

    /// Takes in the first bunch of events.
    pub fn take_mail(&mut self, now: Now) {
        for event in self.mailbox.pop_front().into_iter().flatten() {
            if let ConnectionEvent::Shortage(shortage) = &event {
                self.is_warned = shortage.reason().is_some();
            }
            self.machine.apply(now, event, &mut self.fx);
        }
        self.note();
    }

    /// Whether it would write.
    #[must_use]
    pub fn can_write(&self, wire: &Wire) -> bool {
        let is_open = matches!(self.phase, Phase::Open | Phase::Flushing { .. });
        is_open && !self.fx.out.is_empty() && (wire.is_broken || wire.room() > 0)
    }

    /// One write, of at most `bytes`.
    pub fn write(&mut self, bytes: usize, wire: &mut Wire) {
        if wire.is_broken {
            return self.lose(wire);
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let used = self.fx.out.io_slices(&mut slices);
        let mut left = bytes.min(wire.room());
        let mut written = 0;
        for slice in &slices[..used] {
            let part = &slice[..slice.len().min(left)];
            wire.to_client.extend_from_slice(part);
            left -= part.len();
            written += part.len();
        }
        self.fx.out.advance(written);
        self.machine.written(written, &mut self.fx);
    }

    /// Whether the clock has something for it.
    #[must_use]
    pub fn is_due(&self, now: Now) -> bool {
        self.last_tick_ms != now.ms && self.deadline().is_some_and(|ms| ms <= now.ms)
    }

    /// When the clock will have something for it.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let own = match self.phase {
            Phase::Flushing { until_ms } | Phase::Draining { until_ms } => Some(until_ms),
            Phase::Open | Phase::Gone => None,
        };
        [own, self.machine.deadline()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now, wire: &mut Wire) {
        self.last_tick_ms = now.ms;
        if self.machine.deadline().is_some_and(|ms| ms <= now.ms) {
            if !self.has_nothing_to_send() {
                self.machine.excuse_silence(now);
            }
            self.machine.tick(now, &mut self.fx);
        }
        match self.phase {
            Phase::Flushing { until_ms } if until_ms <= now.ms => self.drop_client(wire),
            Phase::Draining { until_ms } if until_ms <= now.ms => self.drop_client(wire),
            _ => {}
        }
        self.note();
    }

    /// Whether the socket's end has to be taken further.
    #[must_use]
    pub fn can_end(&self) -> bool {
        match self.phase {
            Phase::Open => self.fx.close.is_some(),
            Phase::Flushing { .. } => self.fx.out.is_empty(),
            _ => false,
        }
    }

    /// Takes it further.
    pub fn end(&mut self, now: Now, wire: &mut Wire) {
        match (self.phase, self.fx.close) {
            (Phase::Open, Some(CloseSocket::Now)) => self.drop_client(wire),
            (Phase::Open, Some(_)) => self.phase = Phase::Flushing { until_ms: now.ms + 3_000 },
            (Phase::Flushing { .. }, close) => {
                self.lose(wire);
                self.phase = Phase::Draining { until_ms: now.ms + 1_000 };
                wire.server_ended = close != Some(CloseSocket::AfterClient);
            }
            _ => {}
        }
    }

    /// The socket is closed with no regard to what the client has not read or sent.
    fn drop_client(&mut self, wire: &mut Wire) {
        wire.cut();
        self.lose(wire);
    }

    fn lose(&mut self, wire: &mut Wire) {
        self.phase = Phase::Gone;
        if !self.machine.is_finished() {
            self.machine.lost(&mut self.fx);
        }
        wire.server_ended = true;
    }

    fn note(&mut self) {
        self.fx.tallied = None;
        for notice in self.fx.notices.drain(..) {
            trace::note(format_args!("{:?}: {}", self.machine.id(), notice.text));
        }
    }
}

/// A command in a few words.
pub(super) fn describe(command: &Command) -> String {
    match command {
        Command::Publish(publish) => {
            let id = |message: &Message| {
                let properties = amqp::Properties::parse(message.properties());
                properties.ok().map(|properties| match properties.message_id() {
                    Some(id) => format!("m{id}"),
                    None => format!("{:02x?}", message.body().get(..8).unwrap_or_default()),
                })
            };
            format!(
                "publish {} to {:x?}",
                publish.messages().filter_map(id).collect::<Vec<_>>().join(", "),
                publish.queues.iter().map(|id| id.0).collect::<Vec<_>>()
            )
        }
        Command::Transaction(commands) => {
            format!("transaction [{}]", commands.iter().map(describe).collect::<Vec<_>>().join(", "))
        }
        Command::Consume(consume) => {
            format!("consume {} {:x} prefetch {}", consume.tag, consume.queue.0, consume.prefetch)
        }
        Command::Settle(settle) => {
            let Settle { queue, seq, count, how } = settle;
            format!("settle {:x}/{} x {count} {how:?}", queue.0, seq.0)
        }
        other => format!("{other:?}"),
    }
}
