//! The host of one connection: a task that gives a `Connection` its socket, its mailbox and its timer.
//!
//! It moves bytes and events and decides nothing about AMQP. Its promises:
//! - Order: what one read asks of a shard is sent as one batch; what is asked of the catalog goes after everything
//!   asked of shards before.
//! - Back-pressure: while a shard's mailbox has no room, or the machine takes no input, nothing is read from the
//!   socket. Events are always taken and bytes always written, so that nobody waits for this task.
//! - Alarms: nothing is read of a connection that an alarm blocks, and of one that the next read may block only a
//!   little at a time, so that what was read and has to wait does not add to the shortage.
//! - Room: an idle connection holds no read buffer, only the bytes of a frame that has not come whole.
//!
//! Everything happens in one `poll`, so that a read goes straight into a borrowed buffer when the socket has bytes and
//! the task is woken once for whatever comes first.

use crate::clock::unix_ns;
use crate::logins::Presence;
use crate::strangers::Place;
use crate::switchboard::{ConnectionMail, Seat, Switchboard};
use crate::websocket::ByteStream;
use broker::access::{Refusal, User};
use broker::command::{Command, ConnectionEvent, Now, ShardId};
use broker::connection::{CloseSocket, Connection, Effects, HostQuestion, NoticeLevel, Peer};
use broker::inspect::TlsView;
use bytes::{BufMut as _, BytesMut};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

/// The address as IPv4 where it is: a listener on `[::]` sees 127.0.0.1 as `::ffff:127.0.0.1`, which is not loopback.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a connection's bytes come and go by.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// What went wrong with it meanwhile, if anybody can tell.
    fn take_error(&self) -> io::Result<Option<io::Error>>;
}

impl Socket for TcpStream {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Self::take_error(self)
    }
}

impl Socket for TlsStream<TcpStream> {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.get_ref().0.take_error()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket for ByteStream<S> {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(None)
    }
}

/// Who is at the other end, and how it came.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Both ends' addresses.
    pub(crate) ends: Peer,
    /// What TLS came to, if there is any.
    pub(crate) tls: Option<Arc<TlsView>>,
    /// It is a browser, on a page from elsewhere.
    pub(crate) is_led_from_elsewhere: bool,
}

impl Way {
    /// Of a socket that is all there is between us; `None` if its peer is gone already and has no address.
    pub(crate) fn of(socket: &TcpStream) -> Option<Self> {
        let (peer, local) = (canonical(socket.peer_addr().ok()?), canonical(socket.local_addr().ok()?));
        Some(Self { ends: Peer { peer, local }, tls: None, is_led_from_elsewhere: false })
    }
}

/// Serves one client: a future that is ready when its connection has ended and nobody is owed anything. One value and
/// no `async` function around it, since ten thousand of them wait and each byte counts.
pub(crate) struct ConnectionHost<S> {
    machine: Connection,
    fx: Effects,
    socket: S,
    /// Something written may still be in `socket` itself: TLS and WebSocket keep what the system has no room for.
    unflushed: bool,
    phase: Phase,
    /// Read and not yet taken by the machine.
    input: BytesMut,
    /// The machine stopped before the end of `input`: whole frames may be left there.
    unread: bool,
    mailbox: UnboundedReceiver<ConnectionMail>,
    /// Waits for room in the mailbox of a shard. Its commands stay in `fx.shards`, and later ones queue up behind.
    room: Option<(ShardId, RoomWait)>,
    timer: Pin<Box<Sleep>>,
    /// What `timer` is set to, in [`Now::ms`]; it is moved only when it must fire earlier.
    timer_ms: u64,
    /// When a blocked client's socket, of which nothing is read, is next asked for its errors, in [`Now::ms`].
    next_look_ms: u64,
    name: Box<str>,
    peer: IpAddr,
    /// It is on this machine, and speaks for nobody elsewhere.
    is_local: bool,
    /// What it holds until it has logged in.
    place: Option<Box<Place>>,
    /// Finds out whether the client is who it says.
    login: Option<LoginWait>,
    /// What it counts for in the limits of its vhost and user.
    presence: Presence,
    seat: Seat,
    board: Arc<Switchboard>,
}

type LoginWait = Pin<Box<dyn Future<Output = Result<User, Refusal>> + Send>>;
type RoomWait = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// How far the socket's end has come.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Reading and writing.
    Open,
    /// The machine is done with the socket; what it wrote is still being sent, until then.
    Flushing { until_ms: u64 },
    /// Everything is sent, and the client told that no more comes unless it is to close first. Until it closes its end,
    /// or then, what it still sends is thrown away: closing with bytes unread would send a reset, which can overtake
    /// the close frame.
    Draining { until_ms: u64, bytes_left: usize },
    /// No socket any more.
    Gone,
}

impl<S: Socket> Future for ConnectionHost<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().advance(cx)
    }
}

impl<S: Socket> ConnectionHost<S> {
    /// Makes the machine for a client that was just accepted; `None` if there is nothing to serve.
    pub(crate) fn new(
        board: Arc<Switchboard>,
        seat: Seat,
        mailbox: UnboundedReceiver<ConnectionMail>,
        socket: S,
        way: Way,
        place: Place,
    ) -> Option<Self> {
        let mut entropy = [0; 32];
        if let Err(error) = getrandom::fill(&mut entropy) {
            tracing::error!(
                "cannot accept a connection from {}: the system gives no random bytes ({error})",
                way.ends.peer
            );
            return None;
        }
        let now = board.clock().now();
        let settings = board.settings();
        let mut machine = Connection::new(seat.id, settings, way.ends, board.shards(), entropy, now);
        if let Some(tls) = way.tls {
            machine.secure(tls);
        }
        // Its mailbox is open already: what changes from now on is told there, after this.
        let mut fx = Effects::new(board.shards());
        machine.apply(now, ConnectionEvent::Shortage(board.alarms().shortage()), &mut fx);
        machine.trace_messages(board.spans().is_on());
        Some(Self {
            name: machine.name().into(),
            machine,
            fx,
            socket,
            unflushed: false,
            phase: Phase::Open,
            input: BytesMut::new(),
            unread: false,
            mailbox,
            room: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_ms: u64::MAX,
            next_look_ms: 0,
            peer: way.ends.peer.ip(),
            is_local: way.ends.peer.ip().is_loopback() && !way.is_led_from_elsewhere,
            place: Some(Box::new(place)),
            login: None,
            presence: Presence::default(),
            seat,
            board,
        })
    }

    /// Goes as far as it can now.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.board.clock().now();
            let began_ns = self.machine.traces_messages().then(unix_ns);
            let mut moved = self.take_mail(cx, now);
            moved |= self.take_time(cx, now);
            moved |= self.make_room(cx);
            moved |= self.read(cx, now);
            moved |= self.answer(cx, now);
            if let Some(began_ns) = began_ns {
                // Before its commands go out: what others tell because of them comes after it.
                self.board.note_spans(&mut self.machine, began_ns);
            }
            moved |= self.send_commands(cx);
            moved |= self.write(cx);
            moved |= self.end_socket(cx, now);
            self.log_notices();
            self.hand_over_tallied();
            if self.machine.is_finished() && matches!(self.phase, Phase::Gone) && self.nothing_to_send() {
                self.board.remember(&self.machine.view(&self.fx));
                return Poll::Ready(());
            }
            if !moved {
                self.give_back_buffer();
                return Poll::Pending;
            }
        }
    }

    fn take_mail(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(mail)) = self.mailbox.poll_recv(cx) {
            moved = true;
            match mail {
                ConnectionMail::Events(events) => {
                    self.machine.apply_all(now, events, &mut self.fx);
                    if self.machine.has_traced() {
                        self.machine.copy_traced(&self.board.topology(), &mut self.fx);
                    }
                }
                ConnectionMail::Changed => {
                    self.machine.trace_messages(self.board.spans().is_on());
                    self.machine.look_again(now, &self.board.topology(), &mut self.fx);
                }
                ConnectionMail::Inspect(answer) => {
                    self.hand_over_tallied();
                    let _gave_up = answer.send(self.machine.view(&self.fx));
                }
            }
        }
        moved
    }

    /// Leaves if it has not said yet who it is and others wait for its place.
    fn make_room(&mut self, cx: &mut Context<'_>) -> bool {
        let is_to_go = self.place.as_mut().is_some_and(|place| place.poll_sent_away(cx).is_ready());
        if is_to_go {
            tracing::debug!("connection {}: it has not logged in, and others wait", self.name);
            self.lose();
            // As a stranger's, which it is no more without its place.
            self.log_notices();
            self.place = None;
        }
        is_to_go
    }

    /// Answers what the machine asks of its host, and tells what it counts for.
    fn answer(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        if self.machine.is_finished() {
            self.board.leave(&mut self.presence);
        } else {
            self.board.count_channels(&mut self.presence, self.machine.open_channels());
        }
        if let Some(login) = &mut self.login {
            let Poll::Ready(judged) = login.as_mut().poll(cx) else { return false };
            self.login = None;
            if judged.is_ok() {
                self.place = None;
            }
            self.machine.apply(now, ConnectionEvent::LoggedIn(judged), &mut self.fx);
            return true;
        }
        match self.fx.question.take() {
            None => return false,
            Some(HostQuestion::LogIn(login)) => {
                let (board, peer, is_local) = (Arc::clone(&self.board), self.peer, self.is_local);
                self.login = Some(Box::pin(async move { board.log_in(login, peer, is_local).await }));
            }
            Some(HostQuestion::Renew(login)) => {
                let (board, is_local) = (Arc::clone(&self.board), self.is_local);
                self.login = Some(Box::pin(async move { board.judge_token(&login, is_local).await }));
            }
            Some(question) => {
                let admission = self.board.admit(&question, &mut self.presence);
                self.machine.apply(now, ConnectionEvent::Admitted(admission), &mut self.fx);
                // A deletion that nobody told it of, since it was not there yet.
                self.machine.look_again(now, &self.board.topology(), &mut self.fx);
            }
        }
        true
    }

    fn take_time(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        let Some(deadline) = self.deadline() else { return false };
        if deadline <= now.ms {
            if self.machine.deadline().is_some_and(|at| at <= now.ms) {
                if self.room.is_some() {
                    // It is the shard that keeps us from reading what the client sends.
                    self.machine.excuse_silence(now);
                }
                self.machine.tick(now, &mut self.fx);
            }
            self.look_at_blocked_socket(now);
            // The socket's own deadlines are looked at in `write` and `end_socket`.
            return self.deadline().is_none_or(|next| next > deadline);
        }
        // A timer that fires too early costs a look at the clock, moving it at each event would cost more.
        if deadline < self.timer_ms {
            self.timer.as_mut().reset(self.board.clock().at(deadline));
            self.timer_ms = deadline;
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            self.timer_ms = u64::MAX;
            return true;
        }
        false
    }

    fn deadline(&self) -> Option<u64> {
        let own = match self.phase {
            Phase::Flushing { until_ms } | Phase::Draining { until_ms, .. } => Some(until_ms),
            Phase::Open | Phase::Gone => None,
        };
        let look = (own.is_none() && self.machine.is_blocked()).then_some(self.next_look_ms);
        [own, look, self.machine.deadline()].into_iter().flatten().min()
    }

    /// A read would show that a blocked client's connection was reset; without reads the socket has to be asked. One
    /// that is closed in order shows when it is written to, or read again: what it sent before that is not lost.
    fn look_at_blocked_socket(&mut self, now: Now) {
        if self.machine.is_blocked() && self.next_look_ms <= now.ms {
            self.next_look_ms = now.ms + LOOK_MS;
            if let Ok(Some(error)) | Err(error) = self.socket.take_error() {
                tracing::debug!("connection {}: {error}", self.name);
                self.lose();
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        match self.phase {
            Phase::Open
                if self.fx.close.is_none() && self.nothing_to_send() && self.machine.accepts_input(&self.fx) =>
            {
                if !self.unread {
                    match self.poll_read(cx) {
                        Poll::Pending => return false,
                        Poll::Ready(Ok(0)) => self.lose(),
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => {
                            tracing::debug!("connection {}: {error}", self.name);
                            self.lose();
                        }
                    }
                }
                if matches!(self.phase, Phase::Open) {
                    self.machine.receive(now, &mut self.input, &self.board.topology(), &mut self.fx);
                    self.unread = !self.input.is_empty() && !self.machine.accepts_input(&self.fx);
                }
                true
            }
            Phase::Draining { until_ms, bytes_left } => {
                self.input.clear();
                match self.poll_read(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(bytes)) if bytes > 0 && bytes < bytes_left => {
                        self.phase = Phase::Draining { until_ms, bytes_left: bytes_left - bytes };
                    }
                    Poll::Ready(_) => self.phase = Phase::Gone,
                }
                true
            }
            _ => false,
        }
    }

    /// One read into `input`, of as many bytes as came and its buffer has room for. End of file reads as 0 bytes.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = BUFFERS.with_borrow_mut(|buffers| buffers.pop().unwrap_or_default());
        }
        // Of a frame that came in part only, more is to be had at once: the part is moved for each read.
        let is_large = self.input.len() > READ_BYTES / 4;
        self.input.reserve(if is_large { READ_LARGE_BYTES } else { READ_BYTES });
        let most = if self.machine.is_blocking() { READ_BLOCKING_BYTES } else { usize::MAX };
        pin!(self.socket.read_buf(&mut (&mut self.input).limit(most))).poll(cx)
    }

    /// Nothing that idles keeps a big buffer: it goes back to its thread's pool.
    fn give_back_buffer(&mut self) {
        if self.input.capacity() > 4 * self.input.len().max(1024) {
            let rest = BytesMut::from(&self.input[..]);
            let mut buffer = std::mem::replace(&mut self.input, rest);
            buffer.clear();
            BUFFERS.with_borrow_mut(|buffers| {
                if buffers.len() < POOLED_BUFFERS {
                    buffers.push(buffer);
                }
            });
        }
    }

    fn nothing_to_send(&self) -> bool {
        self.fx.catalog.is_empty() && self.fx.shards.iter().all(Vec::is_empty)
    }

    /// Sends what the machine asks of shards, then of the catalog, as far as there is room.
    fn send_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        if let Some((shard, wait)) = &mut self.room {
            let Poll::Ready(permit) = wait.as_mut().poll(cx) else { return false };
            let shard = *shard;
            self.room = None;
            moved = true;
            let commands: Vec<Command> = std::mem::take(&mut self.fx.shards[usize::from(shard.0)]);
            if let Some(permit) = permit {
                self.board.send_with(permit, self.seat.id, shard, commands);
            }
        }
        for (shard, commands) in (0..).map(ShardId).zip(&mut self.fx.shards) {
            if commands.is_empty() {
                continue;
            }
            moved = true;
            if !self.board.try_send(self.seat.id, shard, commands) {
                self.room = Some((shard, Box::pin(self.board.room(shard, commands))));
                return moved;
            }
        }
        for request in self.fx.catalog.drain(..) {
            moved = true;
            self.board.request(request);
        }
        moved
    }

    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let is_open = |phase| matches!(phase, Phase::Open | Phase::Flushing { .. });
        while is_open(self.phase) && !self.fx.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let count = self.fx.out.io_slices(&mut slices);
            match Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => break,
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    self.unflushed = true;
                    self.fx.out.advance(bytes);
                    self.machine.written(bytes, &mut self.fx);
                }
                Poll::Ready(failed) => {
                    tracing::debug!("connection {}: cannot write: {failed:?}", self.name);
                    self.lose();
                }
            }
            moved = true;
        }
        // Nothing for a TCP socket.
        if self.unflushed && is_open(self.phase) {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => {
                    tracing::debug!("connection {}: cannot write: {error}", self.name);
                    self.lose();
                    moved = true;
                }
            }
        }
        moved
    }

    /// Takes the socket's end as far as it can go now.
    fn end_socket(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        match (self.phase, &self.fx.close) {
            (Phase::Open, Some(CloseSocket::Now)) => self.lose(),
            (Phase::Open, Some(CloseSocket::AfterFlush | CloseSocket::AfterClient)) => {
                self.phase = Phase::Flushing { until_ms: now.ms + FLUSH_MS };
            }
            (Phase::Flushing { .. }, Some(CloseSocket::AfterClient)) if self.is_flushed() => {
                self.lose();
                self.phase = Phase::Draining { until_ms: now.ms + CLIENT_CLOSES_MS, bytes_left: DRAIN_BYTES };
            }
            (Phase::Flushing { .. }, _) if self.is_flushed() => {
                self.lose();
                // At once unless the socket's buffer is full, and a failure shows when draining.
                let _ready = Pin::new(&mut self.socket).poll_shutdown(cx);
                self.phase = Phase::Draining { until_ms: now.ms + DRAIN_MS, bytes_left: DRAIN_BYTES };
            }
            (Phase::Flushing { until_ms }, _) if until_ms <= now.ms => self.lose(),
            (Phase::Draining { until_ms, .. }, _) if until_ms <= now.ms => self.phase = Phase::Gone,
            _ => return false,
        }
        true
    }

    fn is_flushed(&self) -> bool {
        self.fx.out.is_empty() && !self.unflushed
    }

    /// The socket is of no use any more.
    fn lose(&mut self) {
        self.phase = Phase::Gone;
        if !self.machine.is_finished() {
            self.machine.lost(&mut self.fx);
        }
    }

    fn hand_over_tallied(&mut self) {
        if let Some(tallied) = self.fx.tallied.take() {
            self.board.add_published(&tallied);
        }
    }

    fn log_notices(&mut self) {
        let is_stranger = self.place.is_some();
        for notice in self.fx.notices.drain(..) {
            let (name, text) = (&self.name, notice.text);
            // What is logged too often in one place is cut: strangers have places of their own, and silence nobody else.
            match (is_stranger, notice.level) {
                (_, NoticeLevel::Debug) => tracing::debug!("connection {name}: {text}"),
                (false, NoticeLevel::Info) => tracing::info!("connection {name}: {text}"),
                (false, NoticeLevel::Warn) => tracing::warn!("connection {name}: {text}"),
                (false, NoticeLevel::Error) => tracing::error!("connection {name}: {text}"),
                (true, NoticeLevel::Info) => tracing::info!("connection {name}: {text}"),
                (true, NoticeLevel::Warn) => tracing::warn!("connection {name}: {text}"),
                (true, NoticeLevel::Error) => tracing::error!("connection {name}: {text}"),
            }
        }
    }
}

impl<S> Drop for ConnectionHost<S> {
    fn drop(&mut self) {
        self.board.leave(&mut self.presence);
    }
}

thread_local! {
    /// Read buffers that nobody holds. One would do for connections that take whole frames; a few serve those that
    /// keep theirs for the rest of a big frame.
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Read buffers that each thread keeps.
const POOLED_BUFFERS: usize = 16;

/// How much one read takes: some hundreds of small messages, one batch's worth.
const READ_BYTES: usize = 64 << 10;

/// How much one read takes while large frames come in.
const READ_LARGE_BYTES: usize = 256 << 10;

/// How much one read takes of a connection that it may block: it is kept for as long as the alarm is on.
const READ_BLOCKING_BYTES: usize = 4 << 10;

/// How many pieces of the output one write takes.
const WRITE_SLICES: usize = 64;

/// How long a client may take to read what it was sent before its connection is closed.
const FLUSH_MS: u64 = 3_000;

/// How often the socket of a blocked client is asked for its errors.
const LOOK_MS: u64 = 1_000;

/// How long a client may take to close its end after that, and how much it may send meanwhile.
const DRAIN_MS: u64 = 1_000;
const DRAIN_BYTES: usize = 1 << 20;
/// How long a client that was answered connection.close-ok may take to close its end before we close ours.
const CLIENT_CLOSES_MS: u64 = 500;
