//! Plain views of the machines' state, for the HTTP API, the command line and metrics. They hold no logic.

use crate::command::{ConnectionId, QueueSpec};
use crate::histogram::Latencies;
use crate::redrive::Redrive;
use amqp::{ChannelId, Table};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A queue at one moment.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// As declared.
    pub spec: Arc<QueueSpec>,
    /// Messages that wait.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unacked: u64,
    /// Messages that wait for a time: their delay, or their next try.
    pub delayed: u64,
    /// Messages that died, and whose dead letters nobody has taken yet.
    pub owed: u64,
    /// Body bytes of the ready ones.
    pub ready_bytes: u64,
    /// Body bytes of the unacked ones.
    pub unacked_bytes: u64,
    /// Body bytes of the delayed ones.
    pub delayed_bytes: u64,
    /// Body bytes of those that died.
    pub owed_bytes: u64,
    /// Messages, wherever in the queue, that survive the server.
    pub persistent: u64,
    /// Body bytes of those.
    pub persistent_bytes: u64,
    /// An operator paused it: nothing is delivered.
    pub is_paused: bool,
    /// Its last redrive, as far as it was said.
    pub redrive: Option<Arc<Redrive>>,
    /// How long its oldest unacked message has been so, in milliseconds; with very many of them, half a second more or
    /// less, or what that was of one that is settled by now.
    pub oldest_unacked_ms: Option<u64>,
    /// How long ago its oldest ready message came, in milliseconds: too much by a millisecond, or by a sixteenth of
    /// the time that its backlog took to come. Of what came before the server was started, since when that was.
    pub oldest_ready_ms: Option<u64>,
    /// Deliveries that are unacked for longer than half their timeout.
    pub late_leases: u64,
    /// The `timestamp` property of the first ready message, in seconds.
    pub head_timestamp: Option<u64>,
    /// When it last had consumers or traffic (unix ms); `None` while in use.
    pub idle_since_unix_ms: Option<u64>,
    /// Its consumers, in the order in which they came.
    pub consumers: Vec<ConsumerView>,
    /// The share of time (0 to 1) in which a message could be delivered at once; `None` without consumers.
    pub consumer_utilisation: Option<f64>,
    /// What happened so far.
    pub counters: QueueCounters,
    /// How long its messages took; `None` when none was delivered yet.
    pub latencies: Option<Box<Latencies>>,
    /// Estimated bytes of memory it takes.
    pub memory: u64,
}

impl QueueView {
    /// All its messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.ready + self.unacked + self.delayed + self.owed
    }

    /// Body bytes of all its messages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ready_bytes + self.unacked_bytes + self.delayed_bytes + self.owed_bytes
    }
}

/// What happened in a queue since the server started.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueCounters {
    /// Messages put into it.
    pub publish: u64,
    /// Deliveries to be acknowledged.
    pub deliver: u64,
    /// Deliveries settled as they were sent.
    pub deliver_no_ack: u64,
    /// basic.get, to be acknowledged.
    pub get: u64,
    /// basic.get, settled at once.
    pub get_no_ack: u64,
    /// basic.get of an empty queue.
    pub get_empty: u64,
    /// Deliveries (of all kinds) flagged redelivered.
    pub redeliver: u64,
    /// Acknowledgements.
    pub ack: u64,
    /// Messages that a full queue refused.
    pub refused: u64,
    /// Messages dropped or dead-lettered because they expired.
    pub expired: u64,
    /// Messages dropped or dead-lettered because a consumer rejected them.
    pub rejected: u64,
    /// Messages dropped or dead-lettered because the queue was full.
    pub maxlen: u64,
    /// Messages dropped or dead-lettered because they failed too often.
    pub delivery_limit: u64,
    /// Messages dropped by a purge, or deleted one by one.
    pub purged: u64,
    /// Messages not taken because they were duplicates.
    pub deduplicated: u64,
}

/// A consumer at one moment.
#[derive(Clone, Debug)]
pub struct ConsumerView {
    /// Its tag.
    pub tag: String,
    /// Its connection.
    pub connection: ConnectionId,
    /// Its channel there.
    pub channel: ChannelId,
    /// Whether deliveries must be acknowledged.
    pub ack_required: bool,
    /// Whether it is alone by its own wish.
    pub exclusive: bool,
    /// Whether it may get messages (false: it waits for a single active consumer to go).
    pub active: bool,
    /// How many unacked messages it may hold; 0 = any number.
    pub prefetch: u32,
    /// How many it holds.
    pub unacked: u32,
    /// Its acknowledgement timeout in milliseconds; 0 = none.
    pub timeout_ms: u64,
    /// Its arguments.
    pub arguments: Table,
}

/// A connection at one moment.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Its id.
    pub id: ConnectionId,
    /// `PEERIP:PORT -> LOCALIP:PORT`.
    pub name: String,
    /// The peer's address.
    pub peer_host: String,
    /// The peer's port.
    pub peer_port: u16,
    /// The server's address.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// `starting`, `tuning`, `opening`, `running`, `closing`; in place of `running`, while an alarm is on, `blocking`
    /// until its next publish and `blocked` from then on.
    pub state: &'static str,
    /// The login name; empty before login.
    pub user: String,
    /// The vhost; empty before it is opened.
    pub vhost: String,
    /// `PLAIN`, `AMQPLAIN` or `EXTERNAL`; empty before login.
    pub mechanism: &'static str,
    /// How it is encrypted; `None` = it is not.
    pub tls: Option<Arc<TlsView>>,
    /// Negotiated heartbeat in seconds.
    pub heartbeat_s: u16,
    /// Negotiated.
    pub frame_max: u32,
    /// Negotiated.
    pub channel_max: u16,
    /// When it was accepted (unix ms).
    pub connected_at_unix_ms: u64,
    /// What the client said of itself.
    pub client_properties: Table,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Reads from the socket.
    pub received_packets: u64,
    /// Writes to the socket.
    pub sent_packets: u64,
    /// Bytes that wait to be sent.
    pub unsent_bytes: u64,
    /// Its channels, by number.
    pub channels: Vec<ChannelView>,
    /// Channels it opened so far.
    pub channels_opened: u64,
    /// What happened on those that are closed.
    pub closed_channels: ChannelCounters,
}

/// What TLS came to with a client, in RabbitMQ's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsView {
    /// `tlsv1.2` or `tlsv1.3`.
    pub protocol: String,
    /// `any`, `ecdhe_rsa`, …
    pub key_exchange: String,
    /// `aes_256_gcm`, …
    pub cipher: String,
    /// `aead`, …
    pub hash: String,
    /// The client's certificate, if it showed one that was verified.
    pub certificate: Option<CertificateView>,
}

/// A client's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateView {
    /// Whom it is for, as RFC 4514 writes it.
    pub subject: String,
    /// Who signed it, likewise.
    pub issuer: String,
    /// From when to when it holds.
    pub validity: String,
    /// The user that it stands for, if it names one.
    pub user: Option<String>,
}

/// A channel at one moment.
#[derive(Clone, Debug)]
pub struct ChannelView {
    /// Its number.
    pub number: ChannelId,
    /// Consumers on it.
    pub consumers: u32,
    /// Deliveries not settled.
    pub unacked: u64,
    /// Publishes not confirmed.
    pub unconfirmed: u64,
    /// Publishes of the open transaction.
    pub uncommitted: u64,
    /// Settlements of the open transaction.
    pub acks_uncommitted: u64,
    /// Prefetch count for consumers to come; 0 = any number.
    pub prefetch: u32,
    /// The channel-wide limit; 0 = any number.
    pub prefetch_channel: u32,
    /// In confirm mode.
    pub confirm: bool,
    /// In transactional mode.
    pub transactional: bool,
    /// When it was last used (unix ms).
    pub idle_since_unix_ms: u64,
    /// What happened on it.
    pub counters: ChannelCounters,
    /// What of that was published to which exchange, by [`crate::topology::Exchange::number`].
    pub exchanges: Vec<(u64, ExchangeCounters)>,
    /// How large what it published was.
    pub sizes: SizeCounters,
}

/// What happened on a channel since it was opened, or on several.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelCounters {
    /// Messages published.
    pub publish: u64,
    /// Publishes confirmed.
    pub confirm: u64,
    /// Mandatory messages that came back.
    pub return_unroutable: u64,
    /// Unroutable messages that were dropped.
    pub drop_unroutable: u64,
    /// Deliveries to be acknowledged.
    pub deliver: u64,
    /// Deliveries settled as they were sent.
    pub deliver_no_ack: u64,
    /// basic.get, to be acknowledged.
    pub get: u64,
    /// basic.get, settled at once.
    pub get_no_ack: u64,
    /// basic.get of an empty queue.
    pub get_empty: u64,
    /// Deliveries flagged redelivered.
    pub redeliver: u64,
    /// Acknowledgements.
    pub ack: u64,
}

impl ChannelCounters {
    /// Adds what happened on another channel.
    pub fn add(&mut self, other: &Self) {
        self.publish += other.publish;
        self.confirm += other.confirm;
        self.return_unroutable += other.return_unroutable;
        self.drop_unroutable += other.drop_unroutable;
        self.deliver += other.deliver;
        self.deliver_no_ack += other.deliver_no_ack;
        self.get += other.get;
        self.get_no_ack += other.get_no_ack;
        self.get_empty += other.get_empty;
        self.redeliver += other.redeliver;
        self.ack += other.ack;
    }
}

/// What was published to an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExchangeCounters {
    /// Messages published to it.
    pub publish: u64,
    /// Those of them that were confirmed.
    pub confirm: u64,
    /// Mandatory ones that came back.
    pub return_unroutable: u64,
    /// Unroutable ones that were dropped.
    pub drop_unroutable: u64,
    /// How often one went to a queue, through whatever exchanges.
    pub publish_out: u64,
}

impl ExchangeCounters {
    /// Adds what was published otherwise.
    pub fn add(&mut self, other: &Self) {
        self.publish += other.publish;
        self.confirm += other.confirm;
        self.return_unroutable += other.return_unroutable;
        self.drop_unroutable += other.drop_unroutable;
        self.publish_out += other.publish_out;
    }
}

/// How large the bodies of published messages were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeCounters {
    /// By [`Self::BOUNDS`]; the last is of those that are larger than all.
    pub counts: [u64; SizeCounters::BOUNDS.len() + 1],
    /// All bytes.
    pub sum_bytes: u64,
}

impl SizeCounters {
    /// The largest size of each count, in bytes; RabbitMQ's.
    pub const BOUNDS: [u64; 7] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

    /// The smallest and the largest size that are counted as this one is.
    pub(crate) fn step(bytes: u64) -> (u64, u64) {
        let at = Self::at(bytes);
        let smallest = at.checked_sub(1).map_or(0, |before| Self::BOUNDS[before] + 1);
        (smallest, Self::BOUNDS.get(at).copied().unwrap_or(u64::MAX))
    }

    /// So many messages were of this size, or one that is counted as it is.
    pub(crate) fn count(&mut self, bytes: u64, messages: u64) {
        self.counts[Self::at(bytes)] += messages;
    }

    /// One message.
    pub fn note(&mut self, bytes: u64) {
        self.count(bytes, 1);
        self.sum_bytes += bytes;
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum_bytes += other.sum_bytes;
    }

    fn at(bytes: u64) -> usize {
        Self::BOUNDS.partition_point(|bound| *bound < bytes)
    }
}

/// What was published, for who sums it up.
#[derive(Clone, Debug, Default)]
pub struct Tallied {
    /// By [`crate::topology::Exchange::number`].
    pub exchanges: BTreeMap<u64, ExchangeCounters>,
    /// Of all messages.
    pub sizes: SizeCounters,
}

impl Tallied {
    /// Adds what was published to an exchange.
    pub fn add_exchange(&mut self, exchange: u64, counted: &ExchangeCounters) {
        self.exchanges.entry(exchange).or_default().add(counted);
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        other.exchanges.iter().for_each(|(exchange, counted)| self.add_exchange(*exchange, counted));
        self.sizes.add(&other.sizes);
    }
}
