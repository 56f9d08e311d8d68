//! The connection machine: a client's bytes become commands for shards and the catalog, their events become bytes.
//!
//! It owns the frames, the handshake, heartbeats and the channels of one connection. It knows no socket and no clock:
//! its host feeds it bytes, events and the time, and carries out the [`Effects`]. While it waits for an answer it takes
//! no input ([`Connection::accepts_input`]), so that what a client asks happens in the order in which it asked.

mod blocked;
mod handshake;
mod names;
mod outbuf;
#[cfg(test)]
mod tests;
mod windows;

pub use handshake::{COMPATIBLE_VERSION, ConnectionSettings};
pub use outbuf::OutBuffer;

use crate::access::{Login, Rights};
use crate::channel::publish::Routed;
use crate::channel::watch::Watch;
use crate::channel::{Channel, ChannelState};
use crate::command::{
    Admission, CallId, CatalogAsk, CatalogRequest, ChannelKey, Command, ConnectionEvent, ConnectionId, ConsumerNumber,
    DeclareQueue, Fault, Now, Outcome, QueueRef, ShardId, VhostId,
};
use crate::grant::Grant;
use crate::identity::limit;
use crate::inspect::{ChannelCounters, ConnectionView, Tallied, TlsView};
use crate::span::SpanNote;
use crate::topology::{Routes, Topology};
use amqp::frame::{self, HeaderMatch};
use amqp::method::connection::{Close, CloseOk};
use amqp::{ChannelId, Frame, FrameKind, Method, MethodId, Reply, ReplyCode};
use blocked::Blocking;
use bytes::{Buf, BytesMut};
use handshake::Client;
use names::Names;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use windows::Windows;

/// What a step of a connection wants done. The host carries it out after each step.
#[derive(Debug, Default)]
pub struct Effects {
    /// Bytes for the client.
    pub out: OutBuffer,
    /// Commands for each shard, by its position; each list is one batch.
    pub shards: Vec<Vec<Command>>,
    /// Requests for the catalog.
    pub catalog: Vec<CatalogRequest>,
    /// The socket is to be closed.
    pub close: Option<CloseSocket>,
    /// Questions for the host itself: at most one waits at a time, and each is answered by an event.
    pub question: Option<HostQuestion>,
    /// Lines for the log.
    pub notices: Vec<Notice>,
    /// What was published on channels that are closed, or to more exchanges than a channel counts for.
    pub tallied: Option<Box<Tallied>>,
}

/// What only a host can know.
#[derive(Clone, Debug)]
pub enum HostQuestion {
    /// Is this who they say they are? Answered by [`ConnectionEvent::LoggedIn`].
    LogIn(Login),
    /// The client has another token in the place of its first one: what does it say? Answered by
    /// [`ConnectionEvent::LoggedIn`].
    Renew(Login),
    /// Is there room for one more connection of the user in the vhost? Answered by [`ConnectionEvent::Admitted`].
    Enter {
        /// The vhost.
        vhost: VhostId,
        /// How many connections it may have.
        vhost_max: Option<u64>,
        /// The user.
        user: Arc<str>,
        /// How many connections they may have.
        user_max: Option<u64>,
    },
    /// Is there room for one more channel of the user? Asked only where there is a limit. Answered by
    /// [`ConnectionEvent::Admitted`].
    OpenChannel {
        /// The user.
        user: Arc<str>,
        /// How many channels they may have.
        user_max: u64,
    },
}

/// When to close the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseSocket {
    /// When everything in the out-buffer is written.
    AfterFlush,
    /// The same, but the client closes its end first if it does so soon: it was told that it may, and some take an end
    /// of file that comes before they have looked at connection.close-ok for an error.
    AfterClient,
    /// At once.
    Now,
}

/// A line for the log.
#[derive(Clone, Debug)]
pub struct Notice {
    /// How much it matters.
    pub level: NoticeLevel,
    /// What happened, and what an operator can do.
    pub text: String,
}

/// How much a [`Notice`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoticeLevel {
    /// The ordinary course of things.
    Debug,
    /// Worth a line.
    Info,
    /// Someone should look.
    Warn,
    /// Something is broken.
    Error,
}

impl Effects {
    /// Effects for a server with so many shards.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self { shards: (0..shards).map(|_| Vec::new()).collect(), ..Self::default() }
    }

    pub(crate) fn notice(&mut self, level: NoticeLevel, text: impl Into<String>) {
        self.notices.push(Notice { level, text: text.into() });
    }
}

impl HostQuestion {
    /// The answer of a host where nobody but `guest` logs in and nothing is limited.
    #[must_use]
    pub fn plain_answer(self, topology: &Topology) -> ConnectionEvent {
        match self {
            Self::LogIn(login) | Self::Renew(login) => ConnectionEvent::LoggedIn(login.as_guest(topology)),
            Self::Enter { .. } | Self::OpenChannel { .. } => ConnectionEvent::Admitted(Admission::Granted),
        }
    }
}

/// The two ends of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The client's.
    pub peer: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

/// A fault and the method at fault.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) method: MethodId,
}

impl Failure {
    pub(crate) fn new(fault: Fault, method: MethodId) -> Self {
        Self { fault, method }
    }
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitHeader,
    AwaitStartOk,
    AwaitTuneOk,
    AwaitOpen,
    Running,
    /// The login was refused and the client cannot be told.
    Refused {
        until_ms: u64,
    },
    /// The client closed; connection.close-ok follows when everything it had is given back.
    ClosingByClient,
    /// We closed and wait for connection.close-ok.
    ClosingByServer {
        until_ms: u64,
    },
    /// Nothing is owed any more but what is in the out-buffer.
    Ended,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::AwaitHeader | Self::AwaitStartOk | Self::Refused { .. } => "starting",
            Self::AwaitTuneOk => "tuning",
            Self::AwaitOpen => "opening",
            Self::Running => "running",
            Self::ClosingByClient | Self::ClosingByServer { .. } => "closing",
            Self::Ended => "closed",
        }
    }

    fn is_handshake(self) -> bool {
        matches!(self, Self::AwaitHeader | Self::AwaitStartOk | Self::AwaitTuneOk | Self::AwaitOpen)
    }
}

/// A question on its way: the connection takes no input until it is answered.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) call: CallId,
    /// Answers still to come.
    pub(crate) answers: u32,
    pub(crate) channel: ChannelId,
    /// Named by the error if the answer is one.
    pub(crate) method: MethodId,
    pub(crate) then: Then,
}

/// What to do with the answer.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nothing but going on (`nowait`, and the end of a channel that we closed).
    GoOn,
    /// Encode this reply.
    Reply(fn(ChannelId, &mut BytesMut)),
    DeclareQueue {
        declare: Box<DeclareQueue>,
        nowait: bool,
    },
    DeleteQueue {
        nowait: bool,
    },
    Purge {
        nowait: bool,
        name: String,
    },
    Consume {
        consumer: ConsumerNumber,
        tag: Arc<str>,
        queue: QueueRef,
        name: String,
        nowait: bool,
    },
    ConsumeReplies {
        tag: Arc<str>,
        nowait: bool,
    },
    Cancel {
        consumer: Option<ConsumerNumber>,
        tag: Arc<str>,
        nowait: bool,
    },
    Get {
        name: String,
        no_ack: bool,
    },
    Request(Box<Routed>),
    Commit {
        refused: bool,
    },
    CloseChannel,
    CloseConnection,
    LogIn,
    Renew,
    Enter {
        limits: (Option<u64>, Option<u64>),
    },
    OpenChannel {
        limit: u64,
    },
}

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    pub(crate) settings: Arc<ConnectionSettings>,
    peer: Peer,
    phase: Phase,
    pub(crate) client: Client,
    pub(crate) user: Arc<str>,
    /// [`crate::identity::UserRecord::id`]
    user_id: u64,
    /// What the token says by which the user logged in.
    grant: Option<Arc<Grant>>,
    /// May say of a message that somebody else published it.
    pub(crate) impersonates: bool,
    /// What the user may do here, …
    pub(crate) rights: Option<Arc<Rights>>,
    /// … as of this [`Topology::access_generation`].
    rights_generation: u64,
    mechanism: &'static str,
    tls: Option<Arc<TlsView>>,
    pub(crate) vhost: VhostId,
    pub(crate) vhost_name: Arc<str>,
    pub(crate) frame_max: u32,
    channel_max: u16,
    heartbeat_s: u16,

    /// Boxed: a table keeps room for several, and most connections have one.
    pub(crate) channels: FxHashMap<ChannelId, Box<Channel>>,
    /// Tells a channel from an earlier one of the same number.
    next_serial: u32,
    pub(crate) consumers: FxHashMap<ConsumerNumber, Consumer>,
    next_consumer: u32,
    pub(crate) names: Names,
    pub(crate) routes: Routes,

    pub(crate) waiting: Option<Waiting>,
    next_call: u64,
    /// Shards that know this connection: they are to be told when it ends.
    touched: Vec<bool>,
    /// They were told.
    is_released: bool,
    /// The catalog knows something that goes with this connection: exclusive queues, a reply consumer.
    pub(crate) has_catalog_ties: bool,
    pub(crate) ledgers: Vec<Ledger>,
    /// Channels whose confirms may have something to tell.
    pub(crate) confirmed: Vec<ChannelId>,
    pub(crate) windows: Windows,
    blocking: Blocking,
    /// Who wants to know of what passes.
    pub(crate) watch: Watch,

    accepted_ms: u64,
    accepted_unix_ms: u64,
    last_received_ms: u64,
    next_beat_ms: u64,
    /// Sent and received bytes when the last heartbeat was due.
    sent_at_beat: u64,
    received_bytes: u64,
    sent_bytes: u64,
    received_packets: u64,
    sent_packets: u64,
    /// What happened on channels that are closed.
    pub(crate) closed_channels: ChannelCounters,
}

/// A consumer, as its connection sees it.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) channel: ChannelId,
    pub(crate) tag: Arc<str>,
    pub(crate) queue: QueueRef,
}

/// What publishes of one shard's batches are for, until the shard says that they are stored.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next_mark: u64,
    /// Publishes since the last mark.
    pub(crate) open: Vec<Run>,
    marked: VecDeque<(u64, Marked)>,
}

/// Consecutive publishes of one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) channel: ChannelId,
    pub(crate) serial: u32,
    pub(crate) first: u64,
    pub(crate) count: u32,
}

/// Who waits for a mark.
#[derive(Debug)]
pub(crate) enum Marked {
    Publishes(Vec<Run>),
    Commit,
}

impl Ledger {
    /// Asks the shard to say when everything so far is stored.
    pub(crate) fn mark(&mut self, who: Marked, commands: &mut Vec<Command>) {
        self.next_mark += 1;
        commands.push(Command::Mark { mark: self.next_mark });
        self.marked.push_back((self.next_mark, who));
    }

    /// The next publish of this channel goes to this shard.
    pub(crate) fn publish(&mut self, channel: ChannelId, serial: u32, number: u64) {
        match self.open.last_mut() {
            Some(run)
                if run.channel == channel && run.serial == serial && run.first + u64::from(run.count) == number =>
            {
                run.count += 1;
            }
            _ => self.open.push(Run { channel, serial, first: number, count: 1 }),
        }
    }
}

impl Connection {
    /// A connection whose socket has just been accepted. `entropy` comes from the operating system's random source.
    #[must_use]
    pub fn new(
        id: ConnectionId,
        settings: Arc<ConnectionSettings>,
        peer: Peer,
        shards: u16,
        entropy: [u8; 32],
        now: Now,
    ) -> Self {
        let names = Names::new(entropy);
        Self {
            id,
            peer,
            tls: None,
            phase: Phase::AwaitHeader,
            client: Client::default(),
            user: "".into(),
            user_id: 0,
            grant: None,
            impersonates: false,
            rights: None,
            rights_generation: 0,
            mechanism: "",
            vhost: VhostId(0),
            vhost_name: "".into(),
            frame_max: settings.first_frame_max,
            channel_max: settings.channel_max,
            heartbeat_s: 0,
            channels: FxHashMap::default(),
            next_serial: 0,
            consumers: FxHashMap::default(),
            next_consumer: 0,
            routes: Routes::seeded(names.chance()),
            names,
            waiting: None,
            next_call: 0,
            touched: vec![false; usize::from(shards)],
            is_released: false,
            has_catalog_ties: false,
            ledgers: (0..shards).map(|_| Ledger::default()).collect(),
            confirmed: Vec::new(),
            windows: Windows::new(shards),
            blocking: Blocking::default(),
            watch: Watch::default(),
            accepted_ms: now.ms,
            accepted_unix_ms: now.unix_ms,
            last_received_ms: now.ms,
            next_beat_ms: u64::MAX,
            sent_at_beat: 0,
            received_bytes: 0,
            sent_bytes: 0,
            received_packets: 0,
            sent_packets: 0,
            closed_channels: ChannelCounters::default(),
            settings,
        }
    }

    /// Its bytes came through TLS: what that came to. To be said before the first of them.
    pub fn secure(&mut self, tls: Arc<TlsView>) {
        self.tls = Some(tls);
    }

    /// From now on messages whose publishers have them traced are told of, or no more. What is told is to be taken after each
    /// step, before the step's commands are sent.
    pub fn trace_messages(&mut self, is_on: bool) {
        if self.watch.trace(is_on) {
            self.channels.values_mut().for_each(|channel| channel.forget_pattern());
        }
    }

    /// Whether they are.
    #[must_use]
    pub fn traces_messages(&self) -> bool {
        self.watch.spans.is_some()
    }

    /// What happened to them since this was last asked.
    pub fn take_span_notes(&mut self) -> Vec<SpanNote> {
        self.watch.spans.as_mut().map(|spans| spans.take_notes()).unwrap_or_default()
    }

    /// Both ends of its socket.
    #[must_use]
    pub fn ends(&self) -> Peer {
        self.peer
    }

    /// What its client calls it.
    #[must_use]
    pub fn client_name(&self) -> Option<&str> {
        self.client.name()
    }

    /// Its vhost; that of `/` before it has one.
    #[must_use]
    pub fn vhost(&self) -> (VhostId, &str) {
        (self.vhost, &self.vhost_name)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// `PEERIP:PORT -> LOCALIP:PORT`: its name in listings and logs.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} -> {}", self.peer.peer, self.peer.local)
    }

    /// Takes whole frames off the front of `input`, and leaves what is incomplete or must wait for an answer.
    pub fn receive(&mut self, now: Now, input: &mut BytesMut, topology: &Topology, fx: &mut Effects) {
        self.last_received_ms = now.ms;
        self.let_grant_lapse(now);
        let mut taken = 0;
        while self.accepts_input(fx) {
            match self.take_frame(now, &input[taken..], topology, fx) {
                Ok(0) => break,
                Ok(bytes) => taken += bytes,
                Err(reply) => {
                    taken = input.len();
                    self.fail(now, &reply, fx);
                }
            }
        }
        if self.phase == Phase::Ended {
            taken = input.len();
        }
        self.received_bytes += taken as u64;
        self.received_packets += 1;
        input.advance(taken);
        if self.watch.is_on {
            if self.has_traced() {
                self.copy_traced(topology, fx);
            }
            if let Some(spans) = &mut self.watch.spans {
                spans.sending(&fx.shards);
            }
        }
        self.finish_step(fx);
    }

    /// Takes in an event from a shard, the catalog or the server.
    pub fn apply(&mut self, now: Now, event: ConnectionEvent, fx: &mut Effects) {
        self.take_event(now, event, fx);
        self.finish_step(fx);
    }

    /// Takes in several events, in order.
    pub fn apply_all(&mut self, now: Now, events: impl IntoIterator<Item = ConnectionEvent>, fx: &mut Effects) {
        for event in events {
            self.take_event(now, event, fx);
        }
        self.finish_step(fx);
    }

    fn take_event(&mut self, now: Now, event: ConnectionEvent, fx: &mut Effects) {
        match event {
            ConnectionEvent::Deliver(delivery) => self.deliver(now, delivery, fx),
            ConnectionEvent::Stored { shard, mark, refused } => {
                self.stored(now, shard, mark, &refused, fx);
                // What follows may be the answer to a channel.close.
                self.tell_confirms(fx);
            }
            ConnectionEvent::Done { call, mut outcome } => {
                let gone = match &mut outcome {
                    Outcome::QueueDeleted { consumers, .. } => std::mem::take(consumers),
                    _ => Vec::new(),
                };
                self.answered(now, call, outcome, fx);
                gone.into_iter().for_each(|(_, consumer)| self.consumer_gone(consumer, fx));
            }
            ConnectionEvent::ConsumerGone { consumer } => self.consumer_gone(consumer, fx),
            ConnectionEvent::AckTimeout { channel, timeout_ms } => self.ack_timeout(now, channel, timeout_ms, fx),
            ConnectionEvent::Reply { channel, message } => self.deliver_reply(channel, &message, fx),
            ConnectionEvent::Close(fault) => {
                if self.phase == Phase::Running {
                    self.fail(now, &Reply::new(fault.code, fault.text, MethodId::NONE), fx);
                } else if !matches!(self.phase, Phase::ClosingByClient | Phase::ClosingByServer { .. }) {
                    fx.close = Some(CloseSocket::Now);
                }
            }
            ConnectionEvent::LoggedIn(login) => self.logged_in(now, login, fx),
            ConnectionEvent::Admitted(admission) => self.admitted(now, admission, fx),
            ConnectionEvent::Shortage(shortage) => self.take_shortage(now, shortage, fx),
        }
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Now, fx: &mut Effects) {
        match self.phase {
            Phase::Refused { until_ms } | Phase::ClosingByServer { until_ms } if now.ms >= until_ms => {
                fx.close = Some(CloseSocket::Now);
            }
            phase if phase.is_handshake() && now.ms >= self.handshake_deadline() => {
                let text = format!("the client did not finish its handshake in time (it was {})", phase.name());
                fx.notice(NoticeLevel::Warn, text);
                fx.close = Some(CloseSocket::Now);
            }
            _ => {}
        }
        if now.ms >= self.next_beat_ms && self.phase != Phase::Ended {
            self.beat(now, fx);
        }
    }

    /// When [`Self::tick`] is to be called next, in [`Now::ms`].
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::Refused { until_ms } | Phase::ClosingByServer { until_ms } => until_ms,
            phase if phase.is_handshake() => self.handshake_deadline(),
            Phase::Ended => return None,
            _ => u64::MAX,
        };
        Some(phase.min(self.next_beat_ms)).filter(|deadline| *deadline != u64::MAX)
    }

    /// So many bytes of [`Effects::out`] were written (and taken off it by [`OutBuffer::advance`]).
    pub fn written(&mut self, bytes: usize, fx: &mut Effects) {
        self.sent_bytes += bytes as u64;
        self.sent_packets += 1;
        self.windows.sent(self.sent_bytes, &mut fx.shards);
    }

    /// The host has not read from the socket for a while, through no fault of the client (a shard was busy): its
    /// silence does not count.
    pub fn excuse_silence(&mut self, now: Now) {
        self.last_received_ms = now.ms;
    }

    /// Whether input may be taken now. Not while an answer is awaited or an alarm blocks it, nor while the client reads
    /// so little that replies to it pile up; deliveries do not count for that, they have a window of their own.
    #[must_use]
    pub fn accepts_input(&self, fx: &Effects) -> bool {
        let replies = (fx.out.len() as u64).saturating_sub(self.windows.undelivered);
        self.waiting.is_none() && self.phase != Phase::Ended && replies < UNREAD_REPLIES_MAX && !self.is_blocked()
    }

    /// The socket ended. Everything that the client held goes back.
    pub fn lost(&mut self, fx: &mut Effects) {
        if self.phase == Phase::Ended {
            return;
        }
        match self.phase {
            Phase::Running => fx.notice(NoticeLevel::Info, "the client closed its socket without connection.close"),
            phase => fx.notice(NoticeLevel::Debug, format!("socket closed while {}", phase.name())),
        }
        self.phase = Phase::Ended;
        self.release(fx);
        self.waiting = None;
    }

    /// Whether nothing is owed any more but what is in the out-buffer.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// What it looks like now.
    #[must_use]
    pub fn view(&self, fx: &Effects) -> ConnectionView {
        let mut channels: Vec<_> = self.channels.iter().map(|(number, channel)| channel.view(*number)).collect();
        channels.sort_by_key(|channel| channel.number);
        for consumer in self.consumers.values() {
            let at = channels.binary_search_by_key(&consumer.channel, |channel| channel.number);
            if let Some(channel) = at.ok().and_then(|at| channels.get_mut(at)) {
                channel.consumers += 1;
            }
        }
        ConnectionView {
            id: self.id,
            name: self.name(),
            peer_host: self.peer.peer.ip().to_string(),
            peer_port: self.peer.peer.port(),
            host: self.peer.local.ip().to_string(),
            port: self.peer.local.port(),
            state: self.blocked_state().unwrap_or(self.phase.name()),
            user: self.user.to_string(),
            vhost: self.vhost_name.to_string(),
            mechanism: self.mechanism,
            tls: self.tls.clone(),
            heartbeat_s: self.heartbeat_s,
            frame_max: self.frame_max,
            channel_max: self.channel_max,
            connected_at_unix_ms: self.accepted_unix_ms,
            client_properties: self.client.properties.clone(),
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            received_packets: self.received_packets,
            sent_packets: self.sent_packets,
            unsent_bytes: fx.out.len() as u64,
            channels,
            channels_opened: self.next_serial.into(),
            closed_channels: self.closed_channels,
        }
    }

    // --- frames ---------------------------------------------------------------------------------------------------

    /// Takes one frame off `input`; how long it was, 0 if it is incomplete or blocked.
    fn take_frame(&mut self, now: Now, input: &[u8], topology: &Topology, fx: &mut Effects) -> Result<usize, Reply> {
        if self.phase == Phase::AwaitHeader {
            return Ok(self.take_protocol_header(input, fx));
        }
        if self.phase == Phase::Running
            && !self.is_blocking()
            && let Some(bytes) =
                self.acknowledge_run(now, input, fx).or_else(|| self.publish_again(now, input, topology, fx))
        {
            return Ok(bytes);
        }
        let closing = matches!(self.phase, Phase::ClosingByServer { .. });
        let Some((frame, bytes)) = frame::decode(input, self.frame_max as usize).map_err(|error| error.reply())? else {
            return Ok(0);
        };
        if closing {
            self.frame_while_closing(frame, fx);
            return Ok(bytes);
        }
        if self.must_wait(&frame) {
            self.block(fx);
            return Ok(0);
        }
        match frame.kind {
            FrameKind::Heartbeat if frame.channel == ChannelId::CONNECTION => {}
            FrameKind::Heartbeat => return Err(unexpected(&frame)),
            FrameKind::Method if frame.channel == ChannelId::CONNECTION => {
                let method = Method::decode(frame.payload).map_err(|error| error.reply())?;
                let id = method.id();
                let done = self.connection_method(now, method, topology, fx);
                done.map_err(|Failure { fault, method }| {
                    Reply::new(fault.code, fault.text, if method == MethodId::NONE { MethodId::NONE } else { id })
                })?;
            }
            _ if self.phase != Phase::Running => return Err(unexpected(&frame)),
            _ => self.channel_frame(now, &frame, topology, fx)?,
        }
        Ok(bytes)
    }

    fn take_protocol_header(&mut self, input: &[u8], fx: &mut Effects) -> usize {
        match frame::match_protocol_header(input) {
            HeaderMatch::Partial => 0,
            HeaderMatch::Complete => {
                self.send_start(fx);
                frame::PROTOCOL_HEADER.len()
            }
            HeaderMatch::Wrong => {
                fx.notice(NoticeLevel::Info, describe_wrong_header(input));
                fx.out.tail().extend_from_slice(&frame::PROTOCOL_HEADER);
                fx.close = Some(CloseSocket::AfterFlush);
                self.phase = Phase::Ended;
                input.len()
            }
        }
    }

    fn frame_while_closing(&mut self, frame: Frame<'_>, fx: &mut Effects) {
        if frame.kind != FrameKind::Method || frame.channel != ChannelId::CONNECTION {
            return;
        }
        match Method::decode(frame.payload) {
            Ok(Method::ConnectionCloseOk(_)) => {}
            Ok(Method::ConnectionClose(_)) => CloseOk.encode(ChannelId::CONNECTION, fx.out.tail()),
            _ => return,
        }
        self.phase = Phase::Ended;
        fx.close = Some(CloseSocket::AfterFlush);
    }

    fn channel_frame(
        &mut self,
        now: Now,
        frame: &Frame<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Reply> {
        let number = frame.channel;
        let state = self.channels.get(&number).map(|channel| channel.state);
        match (state, frame.kind) {
            (Some(ChannelState::Open), FrameKind::Method) => {
                let method = Method::decode(frame.payload).map_err(|error| error.reply())?;
                self.channel_method(now, number, method, topology, fx)
            }
            (Some(ChannelState::Open), FrameKind::Header) => {
                self.content_header(now, number, frame.payload, topology, fx)
            }
            (Some(ChannelState::Open), _) => self.content_body(now, number, frame.payload, topology, fx),
            (Some(ChannelState::Closing { .. }), FrameKind::Method) => {
                match Method::decode(frame.payload) {
                    Ok(Method::ChannelCloseOk(_)) => self.channel_closed_by_server(number),
                    Ok(Method::ChannelClose(_)) => amqp::method::channel::CloseOk.encode(number, fx.out.tail()),
                    _ => {}
                }
                Ok(())
            }
            (Some(ChannelState::Closing { .. }), _) => Ok(()),
            (None, FrameKind::Method) => {
                let method = Method::decode(frame.payload).map_err(|error| error.reply())?;
                self.method_without_channel(now, number, &method, topology, fx)
            }
            (None, _) => Err(Reply::new(ReplyCode::ChannelError, "expected 'channel.open'", MethodId::NONE)),
        }
    }

    fn method_without_channel(
        &mut self,
        now: Now,
        number: ChannelId,
        method: &Method<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Reply> {
        match method {
            Method::ChannelOpen(_) => {}
            // Both sides closed at once: ours was answered already.
            Method::ChannelCloseOk(_) => return Ok(()),
            other => return Err(Reply::new(ReplyCode::ChannelError, "expected 'channel.open'", other.id())),
        }
        // RabbitMQ counts open channels; their numbers may be higher.
        if self.channels.len() >= usize::from(self.channel_max) {
            let text = format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({})",
                self.channels.len(),
                self.channel_max
            );
            return Err(Reply::new(ReplyCode::NotAllowed, text, MethodId::NONE));
        }
        let user = topology.user(&self.user);
        if let Some(user_max) = user.and_then(|user| limit(user.limits.max_channels)) {
            self.next_call();
            self.wait(1, number, MethodId::NONE, Then::OpenChannel { limit: user_max });
            fx.question = Some(HostQuestion::OpenChannel { user: Arc::clone(&self.user), user_max });
            return Ok(());
        }
        self.open_channel_of(now, number, fx);
        Ok(())
    }

    fn open_channel_of(&mut self, now: Now, number: ChannelId, fx: &mut Effects) {
        self.next_serial += 1;
        self.channels.insert(number, Box::new(Channel::new(self.next_serial, now)));
        amqp::method::channel::OpenOk.encode(number, fx.out.tail());
    }

    /// How many channels are open.
    #[must_use]
    pub fn open_channels(&self) -> usize {
        self.channels.len()
    }

    fn connection_method(
        &mut self,
        now: Now,
        method: Method<'_>,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Failure> {
        match method {
            Method::ConnectionClose(_) if self.phase == Phase::Running => {
                self.phase = Phase::ClosingByClient;
                let answers = self.release(fx);
                self.wait(answers, ChannelId::CONNECTION, Close::ID, Then::CloseConnection);
                self.go_on_if_answered(now, fx);
                Ok(())
            }
            Method::ConnectionClose(_) => {
                CloseOk.encode(ChannelId::CONNECTION, fx.out.tail());
                self.phase = Phase::Ended;
                fx.close = Some(CloseSocket::AfterClient);
                Ok(())
            }
            Method::ConnectionUpdateSecret(update) if self.phase == Phase::Running => {
                self.update_secret(update.new_secret, fx);
                Ok(())
            }
            method => self.handshake_method(now, method, topology, fx),
        }
    }

    // --- the end --------------------------------------------------------------------------------------------------

    /// Closes the connection with this reply.
    pub(crate) fn fail(&mut self, now: Now, reply: &Reply, fx: &mut Effects) {
        if matches!(self.phase, Phase::Ended | Phase::ClosingByServer { .. }) {
            // What follows an error cannot be trusted to be frames at all.
            self.phase = Phase::Ended;
            fx.close = Some(CloseSocket::AfterFlush);
            return;
        }
        let level = if reply.code == ReplyCode::ConnectionForced { NoticeLevel::Info } else { NoticeLevel::Warn };
        fx.notice(level, format!("closing the connection: {}", reply.text));
        self.release(fx);
        self.waiting = None;
        Close {
            reply_code: reply.code.code(),
            reply_text: &reply.text,
            class_id: reply.method.class,
            method_id: reply.method.method,
        }
        .encode(ChannelId::CONNECTION, fx.out.tail());
        self.phase = Phase::ClosingByServer { until_ms: now.ms + CLOSE_WAIT_MS };
    }

    /// Gives everything back that the client held; how many answers come.
    fn release(&mut self, fx: &mut Effects) -> u32 {
        let call = self.next_call();
        let mut answers = 0;
        if std::mem::replace(&mut self.is_released, true) {
            return answers;
        }
        if let Some(spans) = &mut self.watch.spans {
            spans.channels_end(|_| true, &fx.shards);
        }
        self.windows.end();
        for (_, mut channel) in self.channels.drain() {
            channel.hand_over_tally(fx);
            self.closed_channels.add(channel.counters());
        }
        self.consumers.clear();
        for (touched, commands) in self.touched.iter().zip(&mut fx.shards) {
            if *touched || !commands.is_empty() {
                commands.push(Command::CloseConnection { call });
                answers += 1;
            }
        }
        if self.has_catalog_ties {
            fx.catalog.push(CatalogRequest {
                connection: self.id,
                call,
                vhost: self.vhost,
                user: None,
                ask: CatalogAsk::CloseConnection,
            });
            answers += 1;
        }
        answers
    }

    fn beat(&mut self, now: Now, fx: &mut Effects) {
        let sent = self.sent_bytes + fx.out.len() as u64;
        // While we do not read, only bytes that leave tell that the peer is there. A blocked client's silence is ours.
        if self.waiting.is_some() || self.is_blocked() || (!self.accepts_input(fx) && self.sent_at_beat != sent) {
            self.last_received_ms = now.ms;
        }
        let silent_ms = now.ms - self.last_received_ms;
        if silent_ms >= 2 * 1000 * u64::from(self.heartbeat_s) {
            let text = format!("missed heartbeats from client, timeout: {}s", self.heartbeat_s);
            fx.notice(NoticeLevel::Warn, text);
            fx.close = Some(CloseSocket::Now);
        }
        if self.sent_at_beat == sent && fx.out.is_empty() {
            fx.out.tail().extend_from_slice(&frame::HEARTBEAT);
        }
        fx.out.shrink();
        self.sent_at_beat = self.sent_bytes + fx.out.len() as u64;
        self.next_beat_ms = now.ms + self.beat_interval_ms();
    }

    /// Half the heartbeat, so that the peer sees one in time; never due where heartbeats are off.
    fn beat_interval_ms(&self) -> u64 {
        if self.heartbeat_s == 0 { u64::MAX / 2 } else { u64::from(self.heartbeat_s) * 500 }
    }

    fn handshake_deadline(&self) -> u64 {
        self.accepted_ms + u64::try_from(self.settings.handshake_timeout.as_millis()).unwrap_or(u64::MAX / 2)
    }

    // --- questions ------------------------------------------------------------------------------------------------

    pub(crate) fn next_call(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    /// Number for a new consumer.
    pub(crate) fn next_consumer(&mut self) -> ConsumerNumber {
        self.next_consumer += 1;
        ConsumerNumber(self.next_consumer)
    }

    /// The call that the next [`Self::wait`] waits for.
    pub(crate) fn upcoming_call(&self) -> CallId {
        CallId(self.next_call)
    }

    /// Takes no more input until `answers` answers to [`Self::upcoming_call`] have come.
    pub(crate) fn wait(&mut self, answers: u32, channel: ChannelId, method: MethodId, then: Then) {
        self.waiting = Some(Waiting { call: self.upcoming_call(), answers, channel, method, then });
    }

    /// Takes no more input until the last answers to an earlier call have come.
    pub(crate) fn wait_for(&mut self, call: CallId, answers: u32, channel: ChannelId) {
        self.waiting = Some(Waiting { call, answers, channel, method: MethodId::NONE, then: Then::GoOn });
    }

    /// Asks the catalog under a call that is waited for otherwise, or not at all.
    pub(crate) fn ask_without_waiting(&self, call: CallId, ask: CatalogAsk, fx: &mut Effects) {
        fx.catalog.push(CatalogRequest { connection: self.id, call, vhost: self.vhost, user: None, ask });
    }

    /// Asks the catalog and waits.
    pub(crate) fn ask(&mut self, ask: CatalogAsk, channel: ChannelId, method: MethodId, then: Then, fx: &mut Effects) {
        let call = self.next_call();
        let user = Some(self.subject());
        fx.catalog.push(CatalogRequest { connection: self.id, call, vhost: self.vhost, user, ask });
        self.wait(1, channel, method, then);
    }

    /// Sends a command to every shard that knows this connection; to how many.
    pub(crate) fn tell_shards(&self, fx: &mut Effects, command: impl Fn() -> Command) -> u32 {
        let mut told = 0;
        for (touched, commands) in self.touched.iter().zip(&mut fx.shards) {
            if *touched || !commands.is_empty() {
                commands.push(command());
                told += 1;
            }
        }
        told
    }

    /// A question with no answers to wait for is answered.
    pub(crate) fn go_on_if_answered(&mut self, now: Now, fx: &mut Effects) {
        if let Some(waiting) = self.waiting.take_if(|waiting| waiting.answers == 0) {
            self.all_answered(now, waiting, fx);
        }
    }

    fn answered(&mut self, now: Now, call: CallId, outcome: Outcome, fx: &mut Effects) {
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.call == call) else {
            self.answered_late(call);
            return;
        };
        waiting.answers -= 1;
        if waiting.answers > 0 {
            return;
        }
        let Some(waiting) = self.waiting.take() else { return };
        if let Outcome::Fault(fault) = outcome {
            self.fail_channel(now, waiting.channel, Failure::new(fault, waiting.method), fx);
            return;
        }
        self.finish_call(now, waiting, outcome, fx);
    }

    pub(crate) fn all_answered(&mut self, now: Now, waiting: Waiting, fx: &mut Effects) {
        match waiting.then {
            Then::CloseConnection => {
                CloseOk.encode(ChannelId::CONNECTION, fx.out.tail());
                self.phase = Phase::Ended;
                fx.close = Some(CloseSocket::AfterClient);
            }
            Then::CloseChannel => {
                amqp::method::channel::CloseOk.encode(waiting.channel, fx.out.tail());
            }
            Then::Commit { refused } => self.committed(now, waiting.channel, refused, fx),
            Then::Reply(encode) => encode(waiting.channel, fx.out.tail()),
            _ => {}
        }
    }

    /// What every step ends with.
    fn finish_step(&mut self, fx: &mut Effects) {
        for (ledger, commands) in self.ledgers.iter_mut().zip(&mut fx.shards) {
            if !ledger.open.is_empty() {
                let runs = std::mem::take(&mut ledger.open);
                ledger.mark(Marked::Publishes(runs), commands);
            }
        }
        for (touched, commands) in self.touched.iter_mut().zip(&fx.shards) {
            *touched |= !commands.is_empty();
        }
        self.tell_confirms(fx);
    }

    fn stored(&mut self, now: Now, shard: ShardId, mark: u64, refused: &[u32], fx: &mut Effects) {
        let ledger = &mut self.ledgers[usize::from(shard.0)];
        let Some(at) = ledger.marked.iter().position(|(sent, _)| *sent == mark) else { return };
        match ledger.marked.remove(at) {
            Some((_, Marked::Publishes(runs))) => self.publishes_stored(&runs, refused),
            Some((_, Marked::Commit)) => {
                if let Some(Waiting { answers, then: Then::Commit { refused: any }, .. }) = &mut self.waiting {
                    *any |= !refused.is_empty();
                    *answers -= 1;
                }
                self.go_on_if_answered(now, fx);
            }
            None => {}
        }
    }

    pub(crate) fn key(&self, channel: ChannelId) -> ChannelKey {
        ChannelKey { connection: self.id, channel }
    }

    /// How much of a body one frame takes.
    pub(crate) fn frame_body_bytes_max(&self) -> u64 {
        u64::from(self.frame_max).saturating_sub(frame::OVERHEAD_BYTES as u64)
    }

    /// Bytes that will have been sent when all that is encoded has left.
    pub(crate) fn encoded_bytes(&self, fx: &Effects) -> u64 {
        self.sent_bytes + fx.out.len() as u64
    }
}

fn unexpected(frame: &Frame<'_>) -> Reply {
    Reply::new(ReplyCode::UnexpectedFrame, frame.snippet(), MethodId::NONE)
}

fn describe_wrong_header(input: &[u8]) -> String {
    let what = match input {
        [b'G' | b'P' | b'H', ..] if input.iter().take(8).all(u8::is_ascii_graphic) || input.starts_with(b"GET ") => {
            "an HTTP request: the HTTP API listens on another port (15672 by default)"
        }
        [0x16, 3, ..] => "a TLS handshake: this port does not speak TLS",
        [b'A', b'M', b'Q', b'P', 3 | 0, 1, 0, 0] => "AMQP 1.0: Leveret speaks AMQP 0-9-1",
        _ => "no AMQP 0-9-1 protocol header",
    };
    format!("refused: the client sent {what}")
}

/// Replies that a client does not read pile up to this, in bytes; then its input waits.
const UNREAD_REPLIES_MAX: u64 = 16 << 20;
/// How long a client may take to answer connection.close, in milliseconds.
const CLOSE_WAIT_MS: u64 = 30_000;
