//! An AMQP client for commands that do a user's work: one connection with any number of channels, over TCP or TLS.
//!
//! It is a buffer on each side of a socket. What is to be sent is encoded into [`Connection::out`]; [`Connection::turn`] moves
//! octets in both directions until something has moved, sends heartbeats and notices when the broker is gone; what has come
//! is taken out with [`Connection::next`]. A turn that is dropped has lost nothing, so that it can stand in a `select!`.

mod backoff;
mod tls;
mod url;

pub(crate) use backoff::Backoff;
pub(crate) use tls::Tls;
pub(crate) use url::{Url, all as urls};

use amqp::method::{basic, channel, connection};
use amqp::{ChannelId, ContentHeader, Frame, FrameKind, Method, MethodId, Table, Value, content, frame};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// A socket, with TLS or without.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Why there is no connection, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The broker says so, with its reply code and text; by closing a channel, or the connection.
    Refused { code: u16, text: String },
    /// Nobody says anything: the network, or the broker, is not there. Or it is somebody else.
    Lost(String),
    /// A file that TLS needs cannot be used, or the broker's certificate is not to be trusted.
    Tls(String),
}

impl Gone {
    /// Whether it would be the same another time.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            // Forced by an operator or a stop; an error of the broker's own; no resources.
            Self::Refused { code, .. } => !matches!(code, 320 | 541 | 506),
            Self::Lost(_) => false,
            Self::Tls(_) => true,
        }
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, text } => write!(f, "the broker refused: {code} {text}"),
            Self::Lost(why) | Self::Tls(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Gone {}

/// Something that the broker said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message for a consumer.
    Delivery(Delivery),
    /// A mandatory message that no queue took.
    Returned(Returned),
    /// Publishes are stored, or not taken (`is_taken` is false).
    Confirmed { channel: ChannelId, tag: u64, multiple: bool, is_taken: bool },
    /// The broker ended a consumer: its queue is gone, or it did not acknowledge in time.
    Cancelled { channel: ChannelId, consumer_tag: String },
    /// The broker takes no publishes for now, for this reason …
    Blocked(String),
    /// … and does again.
    Unblocked,
    /// The broker closed a channel, which was answered.
    ChannelClosed { channel: ChannelId, code: u16, text: String },
    /// Any other method, the answer to a question most likely; its payload, to be decoded by whoever asked.
    Answer { channel: ChannelId, id: MethodId, payload: Bytes },
}

/// A message that was delivered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) channel: ChannelId,
    pub(crate) consumer_tag: String,
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    /// As [`amqp::Properties::parse`] takes them.
    pub(crate) properties: Bytes,
    pub(crate) body: Bytes,
}

/// A message that came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) channel: ChannelId,
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) properties: Bytes,
    pub(crate) body: Bytes,
}

/// A method that content follows, and what of that has come.
#[derive(Debug)]
struct Content {
    event: Event,
    /// What is missing of the body, once the header has come.
    missing: Option<u64>,
    body: BytesMut,
}

/// See the module.
pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    inbox: BytesMut,
    /// Frames to be sent.
    pub(crate) out: BytesMut,
    frame_max: usize,
    /// By channel.
    contents: HashMap<ChannelId, Content>,
    /// How often something is to be sent; `None` = never.
    heartbeat: Option<Duration>,
    last_sent: Instant,
    last_heard: Instant,
    /// The broker has not closed the socket.
    is_open: bool,
    /// What it says it is.
    broker: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("frame_max", &self.frame_max).finish_non_exhaustive()
    }
}

impl Connection {
    /// Logs in at the broker, under this name. Opens no channel.
    ///
    /// # Errors
    /// [`Gone`], after ten seconds at the latest.
    pub(crate) async fn open(url: &Url, name: &str) -> Result<Self, Gone> {
        let late = || Gone::Lost(format!("{url} has not answered for {} s", PATIENCE.as_secs()));
        timeout(PATIENCE, Self::reach(url, name)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn reach(url: &Url, name: &str) -> Result<Self, Gone> {
        let lost = |error: io::Error| Gone::Lost(format!("no connection to {url}: {error}"));
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let socket: Box<dyn Socket> = match &url.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.shake_hands(&url.host, stream).await?),
        };
        let now = Instant::now();
        let mut opened = Self {
            socket,
            inbox: BytesMut::with_capacity(INBOX_BYTES),
            out: BytesMut::from(&frame::PROTOCOL_HEADER[..]),
            frame_max: FRAME_MAX as usize,
            contents: HashMap::new(),
            heartbeat: None,
            last_sent: now,
            last_heard: now,
            is_open: true,
            broker: String::new(),
        };
        opened.log_in(url, name).await?;
        Ok(opened)
    }

    async fn log_in(&mut self, url: &Url, name: &str) -> Result<(), Gone> {
        let payload = self.answer(ChannelId::CONNECTION, connection::Start::ID).await?;
        if let Ok(Method::ConnectionStart(start)) = Method::decode(&payload) {
            let named = |key| start.server_properties.get(key).and_then(Value::as_str).unwrap_or("?");
            // Brokers may say that they are RabbitMQ, so that clients trust them; the platform tells.
            self.broker = format!("{} {} ({})", named("product"), named("version"), named("platform"));
        }
        let plain = format!("\0{}\0{}", url.user, url.password);
        let (mechanism, response) = if url.is_external { ("EXTERNAL", "") } else { ("PLAIN", plain.as_str()) };
        let start_ok = connection::StartOk {
            client_properties: properties("leveret", name),
            mechanism,
            response: response.as_bytes(),
            locale: "en_US",
        };
        self.send(ChannelId::CONNECTION, &Method::ConnectionStartOk(start_ok));
        let payload = self.answer(ChannelId::CONNECTION, connection::Tune::ID).await?;
        let Ok(Method::ConnectionTune(tune)) = Method::decode(&payload) else {
            return Err(nonsense("connection.tune"));
        };
        let frame_max = if tune.frame_max == 0 { FRAME_MAX } else { tune.frame_max.clamp(FRAME_MIN, FRAME_MAX) };
        self.frame_max = frame_max as usize;
        let heartbeat =
            url.heartbeat_s.unwrap_or(if tune.heartbeat == 0 { 0 } else { tune.heartbeat.min(HEARTBEAT_S) });
        self.heartbeat = (heartbeat > 0).then(|| Duration::from_secs(heartbeat.into()));
        let tune_ok = connection::TuneOk { channel_max: tune.channel_max, frame_max, heartbeat };
        self.send(ChannelId::CONNECTION, &Method::ConnectionTuneOk(tune_ok));
        let open = Method::ConnectionOpen(connection::Open { vhost: &url.vhost });
        self.ask(ChannelId::CONNECTION, &open, connection::OpenOk::ID).await?;
        Ok(())
    }

    /// What the broker says it is: product, version and platform.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// Opens a channel.
    pub(crate) async fn open_channel(&mut self, number: ChannelId) -> Result<(), Gone> {
        self.ask(number, &Method::ChannelOpen(channel::Open), channel::OpenOk::ID).await.map(drop)
    }

    /// Puts a method into [`Self::out`].
    pub(crate) fn send(&mut self, channel: ChannelId, method: &Method<'_>) {
        method.encode(channel, &mut self.out);
    }

    /// Puts a message into [`Self::out`]; `properties` are encoded.
    pub(crate) fn publish(&mut self, channel: ChannelId, publish: &basic::Publish<'_>, properties: &[u8], body: &[u8]) {
        publish.encode(channel, &mut self.out);
        content::encode_content(channel, properties, body, self.frame_max, &mut self.out);
    }

    /// Asks, and waits for the answer of this name: its payload. For moments when nothing else is expected: what comes before
    /// it is passed over, but for the end of the channel or of the connection.
    pub(crate) async fn ask(
        &mut self,
        channel: ChannelId,
        method: &Method<'_>,
        answer: MethodId,
    ) -> Result<Bytes, Gone> {
        self.send(channel, method);
        self.answer(channel, answer).await
    }

    async fn answer(&mut self, number: ChannelId, answer: MethodId) -> Result<Bytes, Gone> {
        loop {
            while let Some(event) = self.next()? {
                match event {
                    Event::Answer { channel, id, payload } if channel == number && id == answer => return Ok(payload),
                    Event::ChannelClosed { channel, code, text } if channel == number => {
                        return Err(Gone::Refused { code, text });
                    }
                    _ => {}
                }
            }
            self.turn().await?;
        }
    }

    /// Moves octets until something has moved. Never returns while there is nothing to do; nothing is lost if it is dropped.
    ///
    /// # Errors
    /// The connection is over; what came before can still be taken out, and is to be first.
    pub(crate) async fn turn(&mut self) -> Result<(), Gone> {
        if !self.is_open {
            return Err(Gone::Lost("the broker closed the connection".to_owned()));
        }
        let Some(heartbeat) = self.heartbeat else { return poll_fn(|context| self.poll_move(context)).await };
        let due = (self.last_sent + heartbeat / 2).min(self.last_heard + heartbeat * 2);
        tokio::select! {
            moved = poll_fn(|context| self.poll_move(context)) => moved,
            () = sleep_until(due) => {
                let now = Instant::now();
                if now >= self.last_heard + heartbeat * 2 {
                    let text = format!("the broker has sent nothing, and no heartbeat, for {} s", 2 * heartbeat.as_secs());
                    return Err(Gone::Lost(text));
                }
                if self.out.is_empty() {
                    self.out.extend_from_slice(&frame::HEARTBEAT);
                }
                // If there is something that cannot be sent, the broker reads nothing, and does not have to be told.
                self.last_sent = now;
                Ok(())
            }
        }
    }

    fn poll_move(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let lost = |error: io::Error| Gone::Lost(format!("the connection broke: {error}"));
        let mut has_moved = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.socket).poll_write(context, &self.out) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(lost(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(sent)) => {
                    self.out.advance(sent);
                    self.last_sent = Instant::now();
                    has_moved = true;
                }
                // The broker may have said why.
                Poll::Ready(Err(error)) => {
                    return match self.poll_read(context) {
                        Poll::Ready(Ok(read)) if read > 0 => Poll::Ready(Ok(())),
                        _ => Poll::Ready(Err(lost(error))),
                    };
                }
            }
        }
        if self.out.is_empty() {
            // TLS may hold something back until it is told to hand it over.
            match Pin::new(&mut self.socket).poll_flush(context) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(lost(error))),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        match self.poll_read(context) {
            Poll::Ready(Ok(0)) => {
                self.is_open = false;
                Poll::Ready(Err(Gone::Lost("the broker closed the connection".to_owned())))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(error))),
            Poll::Pending if has_moved => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbox.reserve(INBOX_BYTES);
        let read = ready!(pin!(self.socket.read_buf(&mut self.inbox)).poll(context))?;
        self.last_heard = Instant::now();
        Poll::Ready(Ok(read))
    }

    /// Takes out the next thing that the broker said, if all of it is here.
    ///
    /// # Errors
    /// The broker closed the connection, or says what makes no sense.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Gone> {
        loop {
            let decoded = frame::decode(&self.inbox, self.frame_max.max(FRAME_MAX as usize));
            let Some((frame, taken)) = decoded.map_err(|error| nonsense(&format!("no frame ({error:?})")))? else {
                return Ok(None);
            };
            let (kind, channel) = (frame.kind, frame.channel);
            let payload_bytes = frame.payload.len();
            let whole = self.inbox.split_to(taken).freeze();
            let payload = whole.slice(frame::HEADER_BYTES..frame::HEADER_BYTES + payload_bytes);
            let event = match kind {
                FrameKind::Method => self.method(channel, payload)?,
                FrameKind::Header => self.header(channel, &payload)?,
                FrameKind::Body => self.body(channel, &payload)?,
                FrameKind::Heartbeat => None,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn method(&mut self, channel: ChannelId, payload: Bytes) -> Result<Option<Event>, Gone> {
        let id = method_id(&Frame { kind: FrameKind::Method, channel, payload: &payload });
        let method = Method::decode(&payload).map_err(|_| nonsense("a method that nobody knows"))?;
        let (properties, body) = (Bytes::new(), Bytes::new());
        let begun = match method {
            Method::BasicDeliver(deliver) => Event::Delivery(Delivery {
                channel,
                consumer_tag: deliver.consumer_tag.to_owned(),
                tag: deliver.delivery_tag,
                redelivered: deliver.redelivered,
                exchange: deliver.exchange.to_owned(),
                routing_key: deliver.routing_key.to_owned(),
                properties,
                body,
            }),
            Method::BasicReturn(back) => Event::Returned(Returned {
                channel,
                code: back.reply_code,
                text: back.reply_text.to_owned(),
                exchange: back.exchange.to_owned(),
                routing_key: back.routing_key.to_owned(),
                properties,
                body,
            }),
            Method::BasicAck(basic::Ack { delivery_tag: tag, multiple }) => {
                return Ok(Some(Event::Confirmed { channel, tag, multiple, is_taken: true }));
            }
            Method::BasicNack(basic::Nack { delivery_tag: tag, multiple, .. }) => {
                return Ok(Some(Event::Confirmed { channel, tag, multiple, is_taken: false }));
            }
            Method::BasicCancel(cancel) => {
                let consumer_tag = cancel.consumer_tag.to_owned();
                if !cancel.nowait {
                    self.send(channel, &Method::BasicCancelOk(basic::CancelOk { consumer_tag: &consumer_tag }));
                }
                return Ok(Some(Event::Cancelled { channel, consumer_tag }));
            }
            Method::ConnectionBlocked(blocked) => return Ok(Some(Event::Blocked(blocked.reason.to_owned()))),
            Method::ConnectionUnblocked(_) => return Ok(Some(Event::Unblocked)),
            Method::ConnectionClose(close) => {
                let (code, text) = (close.reply_code, close.reply_text.to_owned());
                self.send(ChannelId::CONNECTION, &Method::ConnectionCloseOk(connection::CloseOk));
                return Err(Gone::Refused { code, text });
            }
            Method::ChannelClose(close) => {
                let (code, text) = (close.reply_code, close.reply_text.to_owned());
                self.contents.remove(&channel);
                self.send(channel, &Method::ChannelCloseOk(channel::CloseOk));
                return Ok(Some(Event::ChannelClosed { channel, code, text }));
            }
            _ => return Ok(id.map(|id| Event::Answer { channel, id, payload })),
        };
        self.contents.insert(channel, Content { event: begun, missing: None, body: BytesMut::new() });
        Ok(None)
    }

    fn header(&mut self, channel: ChannelId, payload: &Bytes) -> Result<Option<Event>, Gone> {
        let content = self.contents.get_mut(&channel).ok_or_else(|| nonsense("a header that belongs to nothing"))?;
        let header = ContentHeader::decode(payload).map_err(|_| nonsense("a header that cannot be read"))?;
        // In memory of their own: a frame of properties among many must not keep all that was read with it.
        let found = Bytes::copy_from_slice(header.properties);
        match &mut content.event {
            Event::Delivery(Delivery { properties, .. }) | Event::Returned(Returned { properties, .. }) => {
                *properties = found;
            }
            _ => {}
        }
        content.missing = Some(header.body_bytes);
        if header.body_bytes > BODY_BYTES_MAX {
            return Err(nonsense("a message of more than 512 MiB"));
        }
        Ok(self.finish(channel))
    }

    fn body(&mut self, channel: ChannelId, payload: &[u8]) -> Result<Option<Event>, Gone> {
        let stray = || nonsense("a body that belongs to nothing");
        let content = self.contents.get_mut(&channel).ok_or_else(stray)?;
        let missing = content.missing.and_then(|missing| missing.checked_sub(payload.len() as u64));
        content.missing = Some(missing.ok_or_else(stray)?);
        content.body.extend_from_slice(payload);
        Ok(self.finish(channel))
    }

    fn finish(&mut self, channel: ChannelId) -> Option<Event> {
        if self.contents.get(&channel)?.missing != Some(0) {
            return None;
        }
        let Content { mut event, body: found, .. } = self.contents.remove(&channel)?;
        if let Event::Delivery(Delivery { body, .. }) | Event::Returned(Returned { body, .. }) = &mut event {
            *body = found.freeze();
        }
        Some(event)
    }

    /// Says goodbye, and waits until the broker has done all that was sent before. What it says meanwhile is told.
    pub(crate) async fn close(mut self) -> Result<Vec<Event>, Gone> {
        let close = connection::Close { reply_code: 200, reply_text: "done", class_id: 0, method_id: 0 };
        self.send(ChannelId::CONNECTION, &Method::ConnectionClose(close));
        let mut said = Vec::new();
        let answered = timeout(PATIENCE, async {
            loop {
                while let Some(event) = self.next()? {
                    match event {
                        Event::Answer { id: connection::CloseOk::ID, .. } => return Ok(()),
                        event => said.push(event),
                    }
                }
                self.turn().await?;
            }
        });
        answered.await.unwrap_or_else(|_| Err(Gone::Lost("the broker has not answered a goodbye".to_owned())))?;
        Ok(said)
    }
}

fn method_id(frame: &Frame<'_>) -> Option<MethodId> {
    match (frame.kind, frame.payload) {
        (FrameKind::Method, &[c0, c1, m0, m1, ..]) => {
            Some(MethodId { class: u16::from_be_bytes([c0, c1]), method: u16::from_be_bytes([m0, m1]) })
        }
        _ => None,
    }
}

fn nonsense(what: &str) -> Gone {
    Gone::Lost(format!("what answers there is no AMQP 0-9-1 broker, or a broken one: it sent {what}"))
}

/// What a client says of itself.
pub(crate) fn properties(product: &str, name: &str) -> Table {
    let capabilities = [
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ];
    let capabilities: Table = capabilities.into_iter().map(|key| (key.to_owned(), Value::Bool(true))).collect();
    let mut properties = Table::new();
    properties.insert("product", product);
    properties.insert("version", env!("CARGO_PKG_VERSION"));
    properties.insert("connection_name", name);
    properties.insert("capabilities", capabilities);
    properties
}

/// The largest frame to agree on: RabbitMQ's own.
const FRAME_MAX: u32 = 131_072;
/// The smallest that the protocol allows.
const FRAME_MIN: u32 = 4096;
/// What is read at once.
const INBOX_BYTES: usize = 64 << 10;
/// RabbitMQ's hard limit.
const BODY_BYTES_MAX: u64 = 512 << 20;
/// A broker that wants rarer heartbeats gets these.
const HEARTBEAT_S: u16 = 60;
/// How long a broker may take to let somebody in, or go.
const PATIENCE: Duration = Duration::from_secs(10);
