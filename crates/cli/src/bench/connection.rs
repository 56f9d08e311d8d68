//! One connection to the broker under load, with one channel: a blocking socket, frames in, octets out.
//!
//! It agrees on no heartbeat, so that an idle connection costs nothing on either side. A socket call
//! blocks for at most [`TICK`], after which whoever waits can see that the run is over. What the broker
//! sends out of turn (a close, say) becomes an error that carries the broker's own words.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use amqp::method::{channel, connection};
use amqp::{ChannelId, Frame, FrameKind, Method, MethodId, Value, frame};
use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::broker_url::BrokerUrl;
use crate::client;

/// The channel that everything happens on.
pub(super) const CHANNEL: ChannelId = ChannelId(1);

/// The longest that a socket call blocks.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How long to wait for an octet that has arrived or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all: take what has arrived.
    Not,
    /// For one [`TICK`].
    Tick,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// What was read lies at `start..end`; the rest is room.
    inbox: Vec<u8>,
    start: usize,
    end: usize,
    frame_max: usize,
    broker: String,
}

impl Connection {
    /// Logs in at the broker and opens [`CHANNEL`]. `name` is what the broker calls the connection.
    pub(super) fn open(url: &BrokerUrl, name: &str) -> Result<Self> {
        let stream = TcpStream::connect((url.host.as_str(), url.port))
            .with_context(|| format!("no connection to {url}: does a broker run there? --url names another"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        let inbox = vec![0; INBOX_BYTES_MIN];
        let mut opened = Self { stream, inbox, start: 0, end: 0, frame_max: FRAME_BYTES_MAX, broker: String::new() };
        opened.shake_hands(url, name).with_context(|| format!("{url} let nobody in"))?;
        opened.call(&Method::ChannelOpen(channel::Open), channel::OpenOk::ID)?;
        Ok(opened)
    }

    fn shake_hands(&mut self, url: &BrokerUrl, name: &str) -> Result<()> {
        self.write_all(&frame::PROTOCOL_HEADER, || false)?;
        if let Method::ConnectionStart(start) = self.expect(connection::Start::ID)? {
            let named = |key| start.server_properties.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
            // Brokers may say that they are RabbitMQ, so that clients trust them; the platform tells.
            self.broker = format!("{} {} ({})", named("product"), named("version"), named("platform"));
        }
        let response = format!("\0{}\0{}", url.user, url.password);
        let start_ok = connection::StartOk {
            client_properties: client::properties("leveret bench", name),
            mechanism: "PLAIN",
            response: response.as_bytes(),
            locale: "en_US",
        };
        self.send(&Method::ConnectionStartOk(start_ok))?;
        let Method::ConnectionTune(tune) = self.expect(connection::Tune::ID)? else { bail!("no connection.tune") };
        let frame_max = if tune.frame_max == 0 { FRAME_MAX } else { tune.frame_max.clamp(FRAME_MIN, FRAME_MAX) };
        self.frame_max = frame_max as usize;
        let tune_ok = connection::TuneOk { channel_max: tune.channel_max, frame_max, heartbeat: 0 };
        self.send(&Method::ConnectionTuneOk(tune_ok))?;
        self.call(&Method::ConnectionOpen(connection::Open { vhost: &url.vhost }), connection::OpenOk::ID)?;
        Ok(())
    }

    /// What the broker says it is: product, version and platform.
    pub(super) fn broker(&self) -> &str {
        &self.broker
    }

    /// The largest frame to send, in octets.
    pub(super) fn frame_max(&self) -> usize {
        self.frame_max
    }

    /// Makes room to read much at once.
    pub(super) fn widen(&mut self) {
        self.inbox.resize(INBOX_BYTES_MAX, 0);
    }

    /// Asks, and waits for the answer that is named `answer`.
    pub(super) fn call(&mut self, method: &Method<'_>, answer: MethodId) -> Result<Method<'_>> {
        self.send(method)?;
        self.expect(answer)
    }

    /// Sends a method: those of class connection on channel 0, all others on [`CHANNEL`].
    pub(super) fn send(&mut self, method: &Method<'_>) -> Result<()> {
        let is_connections = method.id().class == connection::Start::ID.class;
        let mut octets = BytesMut::new();
        method.encode(if is_connections { ChannelId::CONNECTION } else { CHANNEL }, &mut octets);
        self.write_all(&octets, || false)
    }

    /// Writes octets that are frames. A broker that takes none of them is waited for as long as
    /// `may_stall` says, and then [`PATIENCE`].
    pub(super) fn write_all(&mut self, mut octets: &[u8], may_stall: impl Fn() -> bool) -> Result<()> {
        let mut hurried_since = None;
        while !octets.is_empty() {
            match self.stream.write(octets) {
                Ok(written) => {
                    octets = &octets[written..];
                    hurried_since = None;
                }
                Err(error) if has_timed_out(&error) => {
                    let now = Instant::now();
                    if !may_stall() && now - *hurried_since.get_or_insert(now) >= PATIENCE {
                        bail!("the broker has read nothing for {} s", PATIENCE.as_secs());
                    }
                }
                Err(error) => return Err(self.parting_words().unwrap_or_else(|| error.into())),
            }
        }
        Ok(())
    }

    /// Reads what has arrived; false when that is nothing. Room for it there must be: take the whole
    /// frames out first.
    pub(super) fn fill(&mut self, wait: Wait) -> Result<bool> {
        self.inbox.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end + 1 >= self.inbox.len() {
            self.inbox.resize(INBOX_BYTES_MIN.max(self.inbox.len() * 2), 0);
        }
        let room = &mut self.inbox[self.end..];
        let read = match wait {
            Wait::Not => recv(&self.stream, room, RecvFlags::DONTWAIT).map(|(read, _)| read).map_err(io::Error::from),
            Wait::Tick => self.stream.read(room),
        };
        match read {
            Ok(0) => bail!("the broker closed the socket"),
            Ok(read) => {
                self.end += read;
                Ok(true)
            }
            Err(error) if has_timed_out(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes out the next whole frame, if there is one.
    #[inline]
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let Some((frame, taken)) = frame::decode(&self.inbox[self.start..self.end], self.frame_max)? else {
            return Ok(None);
        };
        self.start += taken;
        Ok(Some(frame))
    }

    /// Waits for the method that is named `id`, and passes over what else a broker may say meanwhile.
    pub(super) fn expect(&mut self, id: MethodId) -> Result<Method<'_>> {
        self.expect_any(&[id])
    }

    /// Waits for a method with one of these names.
    pub(super) fn expect_any(&mut self, ids: &[MethodId]) -> Result<Method<'_>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((frame, taken)) = frame::decode(&self.inbox[self.start..self.end], self.frame_max)? {
                if method_id(&frame).is_some_and(|id| ids.contains(&id)) {
                    break;
                }
                pass_over(&frame)?;
                self.start += taken;
            } else if !self.fill(Wait::Tick)? && Instant::now() >= deadline {
                let awaited: Vec<_> = ids.iter().filter_map(|id| id.name()).collect();
                bail!("the broker has not answered with {} for {} s", awaited.join(" or "), PATIENCE.as_secs());
            }
        }
        let frame = self.next_frame()?.context("a frame was there")?;
        Ok(Method::decode(frame.payload)?)
    }

    /// Says goodbye and waits until the broker has read all that was sent, and so done all of it.
    pub(super) fn close(mut self) -> Result<()> {
        self.say_goodbye()?;
        self.await_close(Instant::now() + PATIENCE)
    }

    /// Waits for the answer to a goodbye: the broker has read all that was sent, and so done all of it.
    pub(super) fn await_close(mut self, deadline: Instant) -> Result<()> {
        let mut is_late = false;
        loop {
            while let Some(frame) = self.next_frame()? {
                if method_id(&frame) == Some(connection::CloseOk::ID) {
                    return Ok(());
                }
            }
            if is_late {
                bail!("the broker has not answered a close in time");
            }
            is_late = Instant::now() >= deadline;
            self.fill(if is_late { Wait::Not } else { Wait::Tick })?;
        }
    }

    /// Sends connection.close and waits for nothing.
    pub(super) fn say_goodbye(&mut self) -> Result<()> {
        let close = connection::Close { reply_code: 200, reply_text: "done", class_id: 0, method_id: 0 };
        self.send(&Method::ConnectionClose(close))
    }

    /// A connection on a socket that nobody shakes hands on: what is read is frames all the same.
    pub(super) fn bare(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        Ok(Self { stream, inbox: Vec::new(), start: 0, end: 0, frame_max: FRAME_BYTES_MAX, broker: String::new() })
    }

    /// Keeps at most about so many octets between here and the broker: what a broker has not read is not published.
    pub(super) fn limit_unread(&self, bytes: usize) -> Result<()> {
        Ok(rustix::net::sockopt::set_socket_send_buffer_size(&self.stream, bytes)?)
    }

    /// The socket, for whoever waits for several.
    pub(super) fn socket(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Writes what the socket takes at once; how much that was.
    #[inline]
    pub(super) fn send_now(&mut self, octets: &[u8]) -> Result<usize> {
        match send(&self.stream, octets, SendFlags::DONTWAIT).map_err(io::Error::from) {
            Ok(sent) => Ok(sent),
            Err(error) if has_timed_out(&error) => Ok(0),
            Err(error) => Err(self.parting_words().unwrap_or_else(|| error.into())),
        }
    }

    /// Reads what has arrived into `room`, which has some; how much that was.
    #[inline]
    pub(super) fn receive_now(&self, room: &mut [u8]) -> Result<usize> {
        match recv(&self.stream, room, RecvFlags::DONTWAIT).map_err(io::Error::from) {
            Ok((0, _)) => bail!("the broker closed the socket"),
            Ok((received, _)) => Ok(received),
            Err(error) if has_timed_out(&error) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// What was read and is no whole frame yet, or was not asked for yet. The inbox is empty then, and takes no memory.
    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        let unread = self.inbox[self.start..self.end].to_vec();
        self.idle();
        unread
    }

    /// Puts back what [`Self::take_unread`] took.
    pub(super) fn give_unread(&mut self, unread: Vec<u8>) {
        (self.start, self.end, self.inbox) = (0, unread.len(), unread);
    }

    /// Gives up the buffers of a connection that will stay idle.
    pub(super) fn idle(&mut self) {
        self.inbox = Vec::new();
        (self.start, self.end) = (0, 0);
    }

    /// Why the broker closed the connection, if it said so before the socket failed.
    fn parting_words(&mut self) -> Option<anyhow::Error> {
        while self.fill(Wait::Not).is_ok_and(|has_read| has_read) {}
        loop {
            match self.next_frame() {
                Ok(Some(frame)) => {
                    if let (Some(connection::Close::ID | channel::Close::ID), Err(said)) =
                        (method_id(&frame), pass_over(&frame))
                    {
                        return Some(said);
                    }
                }
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Judges a frame that is nobody's business in particular.
///
/// # Errors
/// What ends a run: a close or a cancel, in the broker's words, or a method that nothing asked for.
#[cold]
pub(super) fn pass_over(frame: &Frame<'_>) -> Result<()> {
    if frame.kind != FrameKind::Method {
        return Ok(());
    }
    match Method::decode(frame.payload)? {
        Method::ConnectionClose(close) => {
            bail!("the broker closed the connection: {} {}", close.reply_code, close.reply_text)
        }
        Method::ChannelClose(close) => {
            bail!("the broker closed the channel: {} {}", close.reply_code, close.reply_text)
        }
        Method::ConnectionBlocked(blocked) => super::say(&format!("the broker blocks publishers: {}", blocked.reason)),
        Method::ConnectionUnblocked(_) => super::say("the broker lets publishers on"),
        // Of several consumers that were begun at once.
        Method::BasicConsumeOk(_) => {}
        Method::BasicCancel(_) => bail!("the broker cancelled a consumer: its queue is gone"),
        other => bail!("the broker sent {}, which nothing asked for", other.id().name().unwrap_or("?")),
    }
    Ok(())
}

/// The method in a frame, if there is one.
#[inline]
pub(super) fn method_id(frame: &Frame<'_>) -> Option<MethodId> {
    match (frame.kind, frame.payload) {
        (FrameKind::Method, &[c0, c1, m0, m1, ..]) => {
            Some(MethodId { class: u16::from_be_bytes([c0, c1]), method: u16::from_be_bytes([m0, m1]) })
        }
        _ => None,
    }
}

fn has_timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// The largest frame to agree on: RabbitMQ's own.
const FRAME_MAX: u32 = 131_072;

/// The smallest that the protocol allows.
const FRAME_MIN: u32 = 4096;

const FRAME_BYTES_MAX: usize = FRAME_MAX as usize;

/// Enough for a handshake.
const INBOX_BYTES_MIN: usize = 16 * 1024;

/// Two of the largest frames: whatever part of one is left, another read's worth fits.
const INBOX_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// How long a broker may be silent when the load waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
