//! What machines say to each other: the messages between connections, shards and the catalog.
//!
//! A connection sends each shard one [`Batch`] per read and each asks for answers by [`CallId`]. Messages between the
//! same two machines never overtake each other; nothing is promised between different pairs.

use crate::access::{Refusal, Subject, User};
use crate::identity::IdentityAsk;
use crate::inspect::QueueView;
use crate::message::Message;
use crate::operation::{Answer, Operation};
use crate::policy::{Applied, Policy, PolicyKind};
pub use crate::queue::deduplication::{Deduplication, KeySource, Sieve, Span};
pub use crate::queue::failure::Failure;
pub use crate::queue::lease::{Progress, Said, TimeoutAction};
pub use crate::queue::rate::Rate;
pub use crate::queue::retry::{Backoff, Retry};
pub use crate::queue_ids::QueueIds;
pub use crate::route::sift::{Sieves, Sifting};
use crate::schedule::{Fire, Schedule};
use amqp::{ChannelId, ReplyCode, Table};
use bytes::Bytes;
use std::num::NonZeroU64;
use std::sync::Arc;
pub use store::{QueueId, Seq};

/// The time a step happens at: machines never read a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; only differences mean something.
    pub ms: u64,
    /// Milliseconds since 1970 by the wall clock: what outlives a restart (expiry) or is shown to people.
    pub unix_ms: u64,
}

/// One client connection; never used twice by a server process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A shard, by its position among the server's shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A vhost; never used twice, so that what is late can only miss. That of the first `/` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VhostId(pub u64);

/// A question of one connection, numbered by it: the answer names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A consumer, numbered by its connection from 1; [`ConsumerNumber::GET`] stands for `basic.get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerNumber(pub u32);

impl ConsumerNumber {
    /// Holds what was taken by `basic.get`.
    pub const GET: Self = Self(0);
}

/// Which channel of which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey {
    /// The connection.
    pub connection: ConnectionId,
    /// The channel's number on it.
    pub channel: ChannelId,
}

/// A queue and the shard that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueRef {
    /// Never used twice, so that a late command can only miss.
    pub id: QueueId,
    /// Its owner.
    pub shard: ShardId,
}

/// An error for a client: whether it closes the channel or the connection follows from the code
/// (`ReplyCode::is_hard`). The connection adds the method that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The reply code.
    pub code: ReplyCode,
    /// What comes after `NAME - ` in the reply text.
    pub text: String,
}

impl Fault {
    /// A fault of this code and explanation.
    #[must_use]
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

// --- connection → shard -------------------------------------------------------------------------------------------

/// Everything that one read of one connection asks of one shard, in order.
#[derive(Debug)]
pub struct Batch {
    /// The sender.
    pub connection: ConnectionId,
    /// Executed in order, as one step: consumers are served when all of them are done.
    pub commands: Vec<Command>,
}

/// What a connection asks of a shard.
#[derive(Debug)]
pub enum Command {
    /// Put a message into queues. No answer of its own: see [`Command::Mark`].
    Publish(Publish),
    /// A message came to an exchange that keeps recent ones for queues to be bound. Not answered.
    Keep(Box<Recent>),
    /// The same through an exchange that deduplicates. No answer of its own, either.
    Sift(Box<Sifted>),
    /// Asks for [`ConnectionEvent::Stored`] once every [`Command::Publish`] with `confirm` since the last mark of this
    /// connection is as safe as it was promised to be.
    Mark {
        /// Repeated in the answer.
        mark: u64,
    },
    /// Publishes and settlements that take effect together, on disk too. Holds no other commands.
    Transaction(Vec<Command>),
    /// A delivery is settled.
    Settle(Settle),
    /// Starts a consumer. Answered by [`Outcome::Consuming`] or a fault, before its first delivery.
    Consume(Box<Consume>),
    /// Stops a consumer; its unacked deliveries stay with the channel. Answered by [`Outcome::Cancelled`], by way of
    /// the catalog where this deletes an auto-delete queue.
    Cancel {
        /// The question.
        call: CallId,
        /// The queue it consumes from.
        queue: QueueId,
        /// The consumer.
        consumer: ConsumerNumber,
    },
    /// Takes the first ready message. Answered by [`Outcome::Got`] or [`Outcome::Empty`].
    Get {
        /// The question.
        call: CallId,
        /// The channel that holds the message afterwards.
        channel: ChannelId,
        /// The queue.
        queue: QueueId,
        /// Settled at once.
        no_ack: bool,
    },
    /// Drops all ready messages. Answered by [`Outcome::Purged`].
    Purge {
        /// The question.
        call: CallId,
        /// The queue.
        queue: QueueId,
    },
    /// The channel ends: its consumers are gone, its unacked messages go back. Answered by [`Outcome::ChannelClosed`].
    CloseChannel {
        /// The question.
        call: CallId,
        /// The channel.
        channel: ChannelId,
    },
    /// The connection ends, as [`Command::CloseChannel`] for all its channels; the last command it sends. Answered by
    /// [`Outcome::ConnectionClosed`].
    CloseConnection {
        /// The question.
        call: CallId,
    },
    /// The channel's consumers together may hold this many unacked messages, from now on; 0 = any number.
    ChannelLimit {
        /// The channel.
        channel: ChannelId,
        /// What this shard may use of the channel's limit.
        limit: u32,
    },
    /// The consumer may hold this many unacked messages, from now on; 0 = any number.
    ConsumerLimit {
        /// The queue it consumes from.
        queue: QueueId,
        /// The consumer.
        consumer: ConsumerNumber,
        /// Its new prefetch count.
        limit: u32,
    },
    /// The client has read this many bytes of deliveries (counted as [`Delivery::window_bytes`]): the shard may send as
    /// many again. Bounds what waits in a connection whose client reads slowly or never.
    Drained {
        /// Bytes that left.
        bytes: u64,
    },
    /// A client may keep an unacked message for longer. Answered by [`Outcome::Applied`], or [`Outcome::Empty`] where its
    /// connection does not hold the message any more.
    Extend {
        /// The question.
        call: CallId,
        /// The queue.
        queue: QueueId,
        /// The message.
        seq: Seq,
        /// For how long from now on, in milliseconds; `None` = its timeout.
        ms: Option<u64>,
    },
    /// A worker says something of a message that it has. Answered by [`Outcome::Applied`], or [`Outcome::Empty`] where its
    /// connection does not hold the message any more.
    Report {
        /// The question.
        call: CallId,
        /// The queue.
        queue: QueueId,
        /// The message.
        seq: Seq,
        /// What it says.
        report: Box<Report>,
    },
    /// A reply for a direct reply-to consumer: passed on to its connection if that is still there and reads.
    Reply {
        /// The requester's channel.
        to: ChannelKey,
        /// The reply.
        message: Message,
    },
}

/// What a worker says of a job.
#[derive(Clone, Debug)]
pub enum Report {
    /// Why it failed. Its settlement is another command.
    Failure(Failure),
    /// How far it is.
    Progress(Progress),
}

impl Command {
    /// Settles deliveries, or says that they have arrived, and does nothing else.
    #[must_use]
    pub fn settles(&self) -> bool {
        matches!(self, Command::Settle(_) | Command::Drained { .. })
    }
}

/// A routed message on its way to one shard, or several that are alike in all but their bytes.
#[derive(Debug)]
pub struct Publish {
    /// The queues of this shard that it goes to; never empty.
    pub queues: QueueIds,
    /// The message.
    pub message: Message,
    /// Those that follow it, each a publish of its own.
    pub more: Vec<Message>,
    /// Published with delivery mode 2: survives the server in durable queues.
    pub persistent: bool,
    /// Its `expiration` property in milliseconds.
    pub expiration_ms: Option<u64>,
    /// Its `priority` property, not yet clamped; `None` where absent.
    pub priority: Option<u8>,
    /// How long each queue holds it back; `None` = not at all.
    pub delay: Option<Delay>,
    /// Its publisher waits for the [`Command::Mark`] that follows, in the same batch: only such messages count for it.
    pub confirm: bool,
}

/// How long a queue holds a message back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// As its `x-delay` header says: so many milliseconds from when it comes.
    For(u64),
    /// As the queue did that it is moved from: until this time, in Unix milliseconds.
    Until(u64),
}

impl Delay {
    /// When it is due that comes now.
    #[must_use]
    pub fn due_at_ms(self, now: Now) -> u64 {
        match self {
            Self::For(ms) => now.unix_ms.saturating_add(ms),
            Self::Until(unix_ms) => unix_ms,
        }
    }
}

/// A message that comes through exchanges that deduplicate.
#[derive(Debug)]
pub struct Sifted {
    /// What it has to pass on its way to each queue.
    pub sifting: Sifting,
    /// The message. It counts for marks as any.
    pub publish: Publish,
}

/// A message that an exchange keeps for those who bind to it later.
#[derive(Clone, Debug)]
pub struct Recent {
    /// The exchange, by its number in the topology.
    pub exchange: u64,
    /// How many it keeps.
    pub length: u32,
    /// Of the topology by which the message was routed: it went to all that were bound then.
    pub generation: u64,
    /// The message.
    pub message: Message,
    /// As in [`Publish`].
    pub persistent: bool,
    /// As in [`Publish`].
    pub expiration_ms: Option<u64>,
    /// As in [`Publish`].
    pub priority: Option<u8>,
}

/// Where recent messages go.
#[derive(Clone, Debug)]
pub enum Recipient {
    /// A queue that was bound.
    Queue(QueueRef),
    /// The queues that an exchange leads to that was bound.
    Exchange {
        /// Its vhost.
        vhost: VhostId,
        /// Its name.
        name: Arc<str>,
    },
}

impl Settle {
    /// The places, in order.
    pub fn seqs(&self) -> impl Iterator<Item = Seq> + use<> {
        (self.seq.0..).map(Seq).take(self.count as usize)
    }
}

impl Publish {
    /// All its messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        std::iter::once(&self.message).chain(&self.more)
    }
}

/// The end of one delivery, or of several that follow one another.
#[derive(Clone, Copy, Debug)]
pub struct Settle {
    /// Where it came from.
    pub queue: QueueId,
    /// Its place there, or what [`Delivery::seq`] was.
    pub seq: Seq,
    /// How many there are, this one and those in the places that follow; never 0.
    pub count: u32,
    /// What becomes of it.
    pub how: Settlement,
}

/// What becomes of a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done: it is gone.
    Ack,
    /// Dropped, or dead-lettered as `rejected`.
    Discard,
    /// Back to its place, as a failed attempt (basic.reject, basic.nack).
    Requeue,
    /// Back to its place as if it never left: it was not sent to the client. No attempt is counted, and it is not
    /// redelivered because of this.
    Unsent,
}

/// A consumer to start.
#[derive(Clone, Debug)]
pub struct Consume {
    /// The question.
    pub call: CallId,
    /// Its channel.
    pub channel: ChannelId,
    /// Its number on the connection.
    pub consumer: ConsumerNumber,
    /// The queue.
    pub queue: QueueId,
    /// Its tag, for listings.
    pub tag: String,
    /// Deliveries are settled as they are sent.
    pub no_ack: bool,
    /// Refused beside other consumers, and refuses them.
    pub exclusive: bool,
    /// How many unacked messages it may hold; 0 = any number.
    pub prefetch: u32,
    /// Its client can be told that it is cancelled (`consumer_cancel_notify`).
    pub hears_cancel: bool,
    /// The consumer's arguments: `x-priority`, `x-consumer-timeout`, `x-stream-offset`, others kept for listings.
    pub arguments: Table,
}

// --- shard or catalog → connection --------------------------------------------------------------------------------

/// What a connection is told.
#[derive(Debug)]
pub enum ConnectionEvent {
    /// A message for a consumer.
    Deliver(Delivery),
    /// All publishes up to a [`Command::Mark`] are stored: those to be kept are fsynced.
    Stored {
        /// Who says so.
        shard: ShardId,
        /// The mark.
        mark: u64,
        /// Publishes that a queue refused (`reject-publish`), by their position (from 0) among those with `confirm`
        /// since the previous mark, ascending.
        refused: Vec<u32>,
    },
    /// The answer to a question.
    Done {
        /// The question.
        call: CallId,
        /// The answer.
        outcome: Outcome,
    },
    /// The consumer's queue is gone, or it was cancelled because it did not acknowledge in time.
    ConsumerGone {
        /// The consumer.
        consumer: ConsumerNumber,
    },
    /// A delivery was not acknowledged in time: the channel is to be closed with 406.
    AckTimeout {
        /// The channel.
        channel: ChannelId,
        /// The time that it had, in milliseconds.
        timeout_ms: u64,
    },
    /// A reply to a request of this channel (direct reply-to).
    Reply {
        /// The requester's channel.
        channel: ChannelId,
        /// The reply.
        message: Message,
    },
    /// Close the connection with this fault: an operator's wish, or the server stops.
    Close(Fault),
    /// The answer to [`crate::connection::HostQuestion::LogIn`] and [`crate::connection::HostQuestion::Renew`].
    LoggedIn(Result<User, Refusal>),
    /// The answer to [`crate::connection::HostQuestion::Enter`] and [`crate::connection::HostQuestion::OpenChannel`].
    Admitted(Admission),
    /// From now on the server is short of this: an alarm went on or off.
    Shortage(Shortage),
}

/// Whether there is room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is, and it is taken.
    Granted,
    /// The vhost has as many as it may.
    VhostFull,
    /// The user has.
    UserFull,
}

/// What the server is short of. While that is anything, connections that publish are blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// The alarm for memory is on.
    pub memory: bool,
    /// The alarm for free disk space is on.
    pub disk: bool,
}

impl Shortage {
    /// The reason that connection.blocked gives, in RabbitMQ's words; `None` when no alarm is on.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match (self.memory, self.disk) {
            (false, false) => None,
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (true, true) => Some("low on disk & memory"),
        }
    }
}

/// A message for a consumer, or taken by `basic.get`.
#[derive(Debug)]
pub struct Delivery {
    /// The consumer's channel.
    pub channel: ChannelId,
    /// The consumer.
    pub consumer: ConsumerNumber,
    /// Where it came from.
    pub queue: QueueRef,
    /// Its place there.
    pub seq: Seq,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Failed deliveries so far, where the queue shows them ([`QueueSettings::shows_attempts`]), else 0.
    pub attempts: u32,
    /// Its place in a stream, one more than the offset that the consumer is told; the `seq` of such a delivery stands for
    /// the delivery.
    pub place: Option<NonZeroU64>,
    /// Settled as it is sent.
    pub no_ack: bool,
    /// The message.
    pub message: Message,
}

impl Delivery {
    /// Its offset, if it is from a stream.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.place.map(|place| place.get() - 1)
    }

    /// What it takes of the connection's window (see [`Command::Drained`]).
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.message.bytes().len() as u64 + DELIVERY_OVERHEAD
    }
}

/// How many bytes of deliveries a shard sends to one connection before it waits for [`Command::Drained`]. A delivery
/// may pass it by its own size.
///
/// So much that of large messages, 1 MiB each, the next one is there while one is being sent.
pub const WINDOW_BYTES: u64 = 2 << 20;

/// What a delivery costs a connection beyond its message's bytes.
const DELIVERY_OVERHEAD: u64 = 64;

/// An answer.
#[derive(Debug)]
pub enum Outcome {
    /// It failed. Also for a queue that is gone: `no queue 'q' in vhost '/'` cannot be worded by the shard, so that
    /// case is [`Outcome::Missed`].
    Fault(Fault),
    /// The queue id is unknown to its shard: the queue was deleted in the meantime.
    Missed,
    /// Exchange declared or deleted, binding made or removed, reply consumer registered.
    Applied,
    /// The queue exists, new or old.
    QueueDeclared {
        /// Its ready messages.
        messages: u64,
        /// Its consumers.
        consumers: u32,
    },
    /// The queue is gone.
    QueueDeleted {
        /// Its ready messages at that moment.
        messages: u64,
        /// The consumers that it had. The catalog tells other connections of theirs ([`ConnectionEvent::ConsumerGone`]),
        /// and leaves those of the connection that asked: it tells its client after the answer, since clients take a
        /// cancellation before it for the end of what they asked, and in the same step, since that may come next with the
        /// tag of one of them.
        consumers: Vec<(ConnectionId, ConsumerNumber)>,
    },
    /// The consumer started.
    Consuming,
    /// The consumer stopped.
    Cancelled,
    /// A message was taken.
    Got {
        /// The message.
        delivery: Delivery,
        /// Ready messages left.
        left: u64,
    },
    /// There was none.
    Empty,
    /// Ready messages were dropped.
    Purged {
        /// How many.
        messages: u64,
    },
    /// The channel's consumers are gone, its messages back.
    ChannelClosed,
    /// The same for all channels, or the connection's exclusive queues are gone.
    ConnectionClosed,
}

// --- connection → catalog -----------------------------------------------------------------------------------------

/// What a connection asks of the catalog; each is answered by [`ConnectionEvent::Done`].
#[derive(Debug)]
pub struct CatalogRequest {
    /// Who asks.
    pub connection: ConnectionId,
    /// The question.
    pub call: CallId,
    /// Whose objects.
    pub vhost: VhostId,
    /// By whose rights; `None` for the server itself and its operator on this machine, who may do everything.
    pub user: Option<Subject>,
    /// What.
    pub ask: CatalogAsk,
}

/// A change of the topology. Names are as the client sent them, less CR and LF; never empty where a queue is meant.
#[derive(Debug)]
pub enum CatalogAsk {
    /// exchange.declare. → [`Outcome::Applied`]
    DeclareExchange {
        /// Its name.
        name: String,
        /// `direct`, `fanout`, `topic`, `headers`, or anything.
        kind: String,
        /// Only ask whether it exists.
        passive: bool,
        /// Survives the server.
        durable: bool,
        /// Goes with its last binding.
        auto_delete: bool,
        /// Clients cannot publish to it.
        internal: bool,
        /// `alternate-exchange` and others.
        arguments: Table,
    },
    /// exchange.delete. → [`Outcome::Applied`]
    DeleteExchange {
        /// Its name.
        name: String,
        /// Refuse where bindings start at it.
        if_unused: bool,
    },
    /// queue.bind, exchange.bind. → [`Outcome::Applied`]
    Bind(BindingSpec),
    /// queue.unbind, exchange.unbind. → [`Outcome::Applied`]
    Unbind(BindingSpec),
    /// queue.declare. → [`Outcome::QueueDeclared`]
    DeclareQueue(DeclareQueue),
    /// queue.delete. → [`Outcome::QueueDeleted`]
    DeleteQueue {
        /// Its name.
        name: String,
        /// Refuse where it has consumers.
        if_unused: bool,
        /// Refuse where it has ready messages.
        if_empty: bool,
    },
    /// The channel consumes direct replies under this secret (see [`crate::topology::Topology::reply_consumer`]).
    /// → [`Outcome::Applied`]
    AddReplyConsumer {
        /// The channel.
        channel: ChannelId,
        /// Makes the reply address unguessable.
        secret: String,
    },
    /// The channel consumes direct replies no more. → [`Outcome::Applied`]
    RemoveReplyConsumer {
        /// The channel.
        channel: ChannelId,
    },
    /// A policy holds from now on, in the place of the one of its name. → [`Outcome::Applied`]
    SetPolicy(Box<Policy>),
    /// The policy holds no longer. → [`Outcome::Applied`], or [`Outcome::Missed`] if there is none.
    ClearPolicy {
        /// Whose it is.
        kind: PolicyKind,
        /// Its name.
        name: String,
    },
    /// A schedule holds from now on, in the place of the one of its name. → [`Outcome::Applied`]
    SetSchedule(Box<Schedule>),
    /// The schedule goes. → [`Outcome::Applied`], or [`Outcome::Missed`] if there is none.
    DeleteSchedule {
        /// Its name.
        name: String,
    },
    /// Vhosts, users and what they may do change. → [`Outcome::Applied`] or [`Outcome::Missed`]
    Identity(Box<IdentityAsk>),
    /// The connection ends: its exclusive queues and reply consumers go. → [`Outcome::ConnectionClosed`]
    CloseConnection,
}

/// queue.declare's fields.
#[derive(Clone, Debug)]
pub struct DeclareQueue {
    /// Its name; one that the server made up (`amq.gen-…`) if `server_named`.
    pub name: String,
    /// The client left the choice of the name to the server.
    pub server_named: bool,
    /// Only ask whether it exists.
    pub passive: bool,
    /// Survives the server.
    pub durable: bool,
    /// Only for this connection, and gone with it.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// All x-arguments.
    pub arguments: Table,
}

/// A binding, by everything that makes it itself.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingSpec {
    /// The exchange that messages come from.
    pub source: String,
    /// The queue or exchange that they go to.
    pub destination: String,
    /// Which of the two.
    pub kind: DestinationKind,
    /// The binding key.
    pub key: String,
    /// The arguments (a headers exchange's criteria).
    pub arguments: Table,
}

/// What a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DestinationKind {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

// --- catalog ↔ shard ----------------------------------------------------------------------------------------------

/// Everything that reaches a shard.
#[derive(Debug)]
pub enum ShardInput {
    /// From a connection.
    Batch(Batch),
    /// From the catalog: a new queue. Its id is new. A durable queue's fact is logged (by [`QueueSpec::fact`]).
    CreateQueue {
        /// The queue.
        spec: Arc<QueueSpec>,
        /// Who declared it, and is told ([`Outcome::QueueDeclared`]) once its fact is fsynced; `None` where nobody waits.
        declarer: Option<(ConnectionId, CallId)>,
    },
    /// From the server: how long deliveries may stay unacked for consumers to come, unless they or their queue say
    /// otherwise; 0 = for ever.
    ConsumerTimeout {
        /// In milliseconds.
        timeout_ms: u64,
    },
    /// From the catalog: queues are like this from now on. Only what policies can change differs. At a start it comes
    /// before anything else, all queues in one, so that none is served as if there were no policies.
    ChangeQueues {
        /// The queues.
        specs: Vec<Arc<QueueSpec>>,
    },
    /// From the catalog: a queue was declared with other arguments, and is like this from now on. A durable one's fact is
    /// logged anew; a [`Self::Count`] that follows is answered when that is durable.
    RedeclareQueue {
        /// The queue.
        spec: Arc<QueueSpec>,
    },
    /// From the catalog: somebody was bound to an exchange that keeps recent messages, and gets them.
    Recall {
        /// As in [`Recent::exchange`].
        exchange: u64,
        /// Of the topology that has the binding: what was routed by it or a later one went there by itself.
        generation: u64,
        /// Who was bound.
        to: Recipient,
    },
    /// From the catalog: an exchange that kept recent messages is gone.
    ForgetHistory {
        /// As in [`Recent::exchange`].
        exchange: u64,
    },
    /// From the catalog: of the exchanges that deduplicate, these are left; what queues remember of others goes.
    KeepSources {
        /// [`Sieve::source`] of each.
        sources: Arc<[u64]>,
    },
    /// From the catalog, on behalf of a connection: answer it when all that the shard was sent before is durable.
    Answer {
        /// Whom to answer.
        connection: ConnectionId,
        /// The question.
        call: CallId,
        /// The answer.
        outcome: Outcome,
    },
    /// From the catalog: delete a queue. Answered by [`ShardReport::Deleted`] once that is durable.
    DeleteQueue {
        /// The queue.
        queue: QueueId,
        /// Refuse where it has consumers (`Q in use`).
        if_unused: bool,
        /// Refuse where it has ready messages (`Q not empty`).
        if_empty: bool,
        /// The question.
        ticket: CatalogTicket,
    },
    /// From the catalog, on behalf of a connection: answer with the queue's counts ([`Outcome::QueueDeclared`]), not
    /// before the queue itself is durable. Counts as use of it (`x-expires`).
    Count {
        /// The queue.
        queue: QueueId,
        /// Whom to answer.
        connection: ConnectionId,
        /// The question.
        call: CallId,
    },
    /// From the catalog: log a durable fact. The ticket is answered when it is fsynced.
    PutFact {
        /// The fact's name; an earlier fact of this name is replaced.
        key: Bytes,
        /// The fact.
        value: Bytes,
        /// Asks for an answer.
        ticket: Option<CatalogTicket>,
    },
    /// From the catalog: a fact is gone. The ticket is answered when that is fsynced.
    ForgetFact {
        /// The fact's name.
        key: Bytes,
        /// Asks for an answer.
        ticket: Option<CatalogTicket>,
    },
    /// From another shard: a dead letter, or a message that is moved. Answered by [`ShardInput::TransferStored`] when it is
    /// as durable as it was, or, if it is refused and not to be dropped then, by [`ShardInput::TransferRefused`].
    Transfer {
        /// The shard that still keeps the message.
        from: ShardId,
        /// The question.
        transfer: u64,
        /// The dead letter.
        publish: Publish,
        /// What becomes of it where its queues are full.
        if_refused: IfRefused,
    },
    /// From another shard: the dead letter is safe there, its source may go.
    TransferStored {
        /// The question.
        transfer: u64,
        /// Who says so.
        by: ShardId,
    },
    /// From another shard: the message is not taken there, its source keeps it.
    TransferRefused {
        /// The question.
        transfer: u64,
        /// Who says so.
        by: ShardId,
    },
    /// From the host, for an operator. Answered in [`Outbox::answers`].
    Operate {
        /// Repeated in the answer.
        ticket: u64,
        /// The queue.
        queue: QueueId,
        /// What is asked of it.
        operation: Operation,
    },
    /// From the host: an occurrence of a schedule. Answered in [`Outbox::answers`] when it is durable.
    Fire(Box<Fire>),
    /// From the host: describe all queues (or this one) in [`Outbox::views`].
    Inspect {
        /// Repeated in the answer.
        ticket: u64,
        /// Only this queue.
        queue: Option<QueueId>,
    },
    /// From the host: everything is to be made durable, the log closed. Nothing follows it. Answered by
    /// [`Outbox::closed`] when that is done.
    Close,
}

/// A question of the catalog to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CatalogTicket(pub u64);

/// Everything that reaches the catalog.
#[derive(Debug)]
pub enum CatalogInput {
    /// From a connection.
    Request(CatalogRequest),
    /// From a shard.
    Report(ShardReport),
}

/// What shards tell the catalog.
#[derive(Debug)]
pub enum ShardReport {
    /// The fact or queue of this ticket is fsynced.
    Durable {
        /// The question.
        ticket: CatalogTicket,
    },
    /// A queue's deletion is durable, was refused, or missed (the queue was gone already).
    Deleted {
        /// The question.
        ticket: CatalogTicket,
        /// Ready messages it had, or why not ([`Outcome::QueueDeleted`], [`Outcome::Fault`], [`Outcome::Missed`]).
        outcome: Outcome,
    },
    /// The shard deleted a queue by itself: the last consumer of an auto-delete queue left, or the queue expired
    /// (`x-expires`).
    QueueGone {
        /// The queue.
        queue: QueueId,
        /// What to tell whom once the topology no longer has it.
        then: Option<(ConnectionId, CallId, Outcome)>,
    },
}

/// A queue as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSpec {
    /// Its id and shard.
    pub queue: QueueRef,
    /// Its vhost.
    pub vhost: VhostId,
    /// The vhost's name, as error texts show it.
    pub vhost_name: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Survives the server.
    pub durable: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// The connection that alone may use it, and with which it goes.
    pub owner: Option<ConnectionId>,
    /// As declared.
    pub arguments: Table,
    /// What the arguments and the policies make of it.
    pub settings: QueueSettings,
    /// The policies that apply to it.
    pub policies: Applied,
}

/// A queue's arguments, checked and typed. `None` = no such argument.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueSettings {
    /// `x-queue-type`.
    pub kind: QueueKind,
    /// `x-message-ttl`.
    pub message_ttl_ms: Option<u64>,
    /// `x-expires`.
    pub expires_ms: Option<u64>,
    /// `x-max-length`.
    pub length_max: Option<u64>,
    /// `x-max-length-bytes`.
    pub bytes_max: Option<u64>,
    /// `x-overflow`.
    pub overflow: Overflow,
    /// `x-dead-letter-exchange`.
    pub dead_letter_exchange: Option<String>,
    /// `x-dead-letter-routing-key`.
    pub dead_letter_key: Option<String>,
    /// `x-dead-letter-strategy`.
    pub dead_letter_strategy: DeadLetterStrategy,
    /// `x-max-priority`.
    pub priority_max: Option<u8>,
    /// `x-single-active-consumer`.
    pub single_active: bool,
    /// `x-consumer-timeout`; 0 = none.
    pub consumer_timeout_ms: Option<u64>,
    /// `x-consumer-timeout-action`.
    pub timeout_action: Option<TimeoutAction>,
    /// `x-delivery-limit`: how many failed deliveries a message may have; negative = any number.
    pub delivery_limit: Option<i64>,
    /// `x-delayed-retry-type` and what belongs to it: how long a message waits that came back.
    pub delayed_retry: Option<Retry>,
    /// `x-group-key`: the header whose value is a message's group.
    pub group_key: Option<String>,
    /// `x-group-fair`: groups take turns, whatever the order of their messages.
    pub group_fair: bool,
    /// `x-group-max-in-flight`: how many messages of a group may be unacked, all at one consumer; none = 1.
    pub group_in_flight_max: Option<u32>,
    /// `x-group-rate-limit`: how fast the messages of each group are delivered.
    pub group_rate: Option<Rate>,
    /// `x-rate-limit`: how fast messages are delivered.
    pub rate: Option<Rate>,
    /// `x-max-in-flight`: how many messages may be unacked, over all consumers.
    pub in_flight_max: Option<u32>,
    /// `x-message-deduplication` and what belongs to it: which messages the queue takes one of only.
    pub deduplication: Option<Deduplication>,
    /// `x-max-age` of a stream, in milliseconds: what was appended longer ago goes.
    pub max_age_ms: Option<u64>,
    /// `x-stream-max-segment-size-bytes`: a stream that is too long drops no more than that at a time.
    pub segment_bytes: Option<u64>,
}

/// `x-dead-letter-strategy`: what becomes of a dead letter that nobody takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadLetterStrategy {
    /// Nothing is said: one that is refused is kept until it is taken, one that leads nowhere is dropped.
    #[default]
    Usual,
    /// It is dropped.
    AtMostOnce,
    /// It is kept until somebody takes it, and so is one that leads nowhere.
    AtLeastOnce,
}

/// What becomes of a message from another shard that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfRefused {
    /// It is gone where that is so; other queues take it.
    Dropped,
    /// Its source keeps it, and no queue of this shard takes it: a dead letter.
    Owed,
    /// Its source keeps it if no queue takes it: an operator moves it.
    Stays,
}

/// `x-queue-type`: what a queue does with its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueKind {
    /// Each message goes to one consumer, and leaves when that has settled it.
    #[default]
    Classic,
    /// The same; consumers see `x-delivery-count`, and every message is kept, whatever its delivery mode.
    Quorum,
    /// Messages stay, and each consumer reads them from where it wants.
    Stream,
}

impl QueueKind {
    /// In the words of clients.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }

    /// In the words of RabbitMQ's errors.
    #[must_use]
    pub fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
            Self::Stream => "rabbit_stream_queue",
        }
    }
}

impl QueueSettings {
    /// Whether it is a quorum queue.
    #[must_use]
    pub fn is_quorum(&self) -> bool {
        self.kind == QueueKind::Quorum
    }

    /// Whether it is a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.kind == QueueKind::Stream
    }

    /// Whether it keeps every message, whatever its delivery mode.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.kind != QueueKind::Classic
    }

    /// Whether consumers see how often deliveries of a message failed (`x-delivery-count`, `x-acquired-count`).
    #[must_use]
    pub fn shows_attempts(&self) -> bool {
        self.is_quorum() || self.delivery_limit.is_some() || self.delayed_retry.is_some()
    }
}

/// `x-overflow`: what happens to a full queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest ready message goes.
    #[default]
    DropHead,
    /// The new one is refused.
    RejectPublish,
    /// The new one is refused and dead-lettered.
    RejectPublishDlx,
}

// --- what a shard's step returns ----------------------------------------------------------------------------------

/// What a shard's step wants sent. The host drains it after each step.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For connections, in order.
    pub connections: Vec<(ConnectionId, Vec<ConnectionEvent>)>,
    /// For the catalog.
    pub catalog: Vec<ShardReport>,
    /// For other shards.
    pub shards: Vec<(ShardId, ShardInput)>,
    /// Answers to [`ShardInput::Inspect`].
    pub views: Vec<(u64, Vec<QueueView>)>,
    /// Answers to [`ShardInput::Operate`].
    pub answers: Vec<(u64, Answer)>,
    /// The log is closed and everything durable.
    pub closed: bool,
    /// The disk has no room (`true`), or has some again: nothing becomes durable meanwhile.
    pub full: Option<bool>,
    /// The store failed: memory can no longer be trusted to match the disk. The server must stop with this sentence.
    pub failed: Option<String>,
}
