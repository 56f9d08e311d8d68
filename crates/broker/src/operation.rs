//! What an operator asks of one queue, and what its shard answers: pause, look, delete, move, give back, extend.
//!
//! Whatever looks through messages is a [`Scan`]: a piece of bounded size, which ends with the [`Cursor`] where the next
//! one begins. So a queue of many millions is gone through without holding its shard up, and nobody keeps a list of it.

use crate::command::{ConnectionId, Failure, Progress, Seq};
use crate::message::Message;
use crate::redrive::Redrive;
use crate::schedule::Firing;
use amqp::{ChannelId, Properties, PropertyList, Value};
use std::sync::Arc;

/// What is asked of a queue.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Deliver nothing until [`Operation::Resume`]; kept over restarts with the queue. → [`Answer::Done`]
    Pause,
    /// Deliver again. → [`Answer::Done`]
    Resume,
    /// Keep how far a redrive of the queue is, over restarts with the queue. → [`Answer::Done`]
    Redrive(Arc<Redrive>),
    /// Look through some messages. → [`Answer::Page`]
    Scan(Scan),
    /// List unacked messages with who holds them, from this seq on. → [`Answer::Leases`]
    Leases {
        /// The first one.
        from: Seq,
        /// How many at most.
        count: u32,
    },
    /// An unacked message may stay so for this long from now on; `None` = its timeout. → [`Answer::Done`], or
    /// [`Answer::NotHeld`]
    Extend {
        /// The message.
        seq: Seq,
        /// Milliseconds.
        ms: Option<u64>,
    },
}

/// A piece of a walk over a queue.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Which messages.
    pub which: Which,
    /// Which of those.
    pub filter: Filter,
    /// How many of them at most; the piece may be smaller.
    pub count: u32,
    /// What to do with each.
    pub act: Act,
}

/// Which messages a scan goes through.
#[derive(Clone, Debug)]
pub enum Which {
    /// The ready ones from here on, in the order in which they would leave, and none with this seq or a higher one.
    Ready {
        /// Where to begin.
        from: Cursor,
        /// Where to end.
        until: Option<Seq>,
    },
    /// The unacked ones from this seq on, by seq.
    Unacked {
        /// Where to begin.
        from: Seq,
    },
    /// Those that wait for a time, by due time, and none with this seq or a higher one.
    Delayed {
        /// Where to begin.
        from: Time,
        /// Where to end.
        until: Option<Seq>,
    },
    /// Dead ones whose letters nobody has taken yet, from this seq on, by seq. They can be shown only.
    Owed {
        /// Where to begin.
        from: Seq,
    },
    /// These, in this order, where they are ready or delayed, or unacked or dead if the act can be done to those.
    These(Vec<Seq>),
}

/// A place in a queue: what comes next there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of messages of this priority, and then of lower ones, …
    pub priority: u8,
    /// … those from this seq on, …
    pub seq: Seq,
    /// … but for so many.
    pub skip: u64,
}

impl Cursor {
    /// The head of the queue.
    pub const HEAD: Self = Self { priority: u8::MAX, seq: Seq(0), skip: 0 };
}

/// A place among delayed messages: what is due from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Unix milliseconds.
    pub due_at_ms: u64,
    /// Of those that are due then: from this seq on.
    pub seq: Seq,
}

impl Time {
    /// What is due first.
    pub const FIRST: Self = Self { due_at_ms: 0, seq: Seq(0) };
}

/// What is done to each message of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It is shown, and nothing is changed.
    Show,
    /// It is dropped, and not dead-lettered. Not unacked ones.
    Delete,
    /// It goes elsewhere, and leaves its queue when it is as safe there. Not unacked ones. A delayed one has the same due
    /// time there.
    Move(Target),
    /// A ready or delayed one goes to the end of its queue, as if it were published anew and without a delay; an unacked
    /// one is taken from who holds it, back to its place, as a failed attempt.
    Requeue,
    /// A delayed one is due now. Delayed ones only.
    Release,
    /// A dead letter goes to the queue where it died. Ready ones only.
    Redrive(Origin),
}

/// Which death names the queue that a dead letter goes back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The last one in another queue.
    #[default]
    Last,
    /// The first one.
    First,
}

/// Where messages are moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a queue of the same vhost; the message stays as it is.
    Queue(String),
    /// To whatever queues this leads to; the message has this exchange and routing key then.
    Exchange {
        /// Its name.
        exchange: String,
        /// The key; `None` = the message's own.
        routing_key: Option<String>,
    },
}

/// What a message must be like: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// None = every message.
    pub terms: Vec<Term>,
}

/// One thing that a message must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// Published to this exchange.
    Exchange(String),
    /// With this routing key.
    RoutingKey(String),
    /// This property, by its name in the HTTP API, has this value as text.
    Property(String, String),
    /// The same of a header.
    Header(String, String),
    /// The body has these bytes somewhere.
    Body(Vec<u8>),
}

/// Names of properties that a [`Term::Property`] may ask for.
pub const PROPERTIES: [&str; 13] = [
    "content_type",
    "content_encoding",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
];

impl Filter {
    /// Whether the message is like that.
    #[must_use]
    pub fn matches(&self, message: &Message) -> bool {
        self.terms.iter().all(|term| term.holds(message))
    }
}

impl Term {
    fn holds(&self, message: &Message) -> bool {
        match self {
            Self::Exchange(name) => message.exchange() == name,
            Self::RoutingKey(key) => message.routing_key() == key,
            Self::Property(name, value) => property(message, name).is_some_and(|found| found == value.as_bytes()),
            Self::Header(name, value) => {
                let properties = Properties::parse(message.properties()).ok();
                let headers = properties.and_then(|properties| properties.headers());
                let found = headers.as_ref().and_then(|headers| headers.get(name));
                found.is_some_and(|found| reads(found, value))
            }
            Self::Body(part) => part.is_empty() || message.body().windows(part.len()).any(|found| found == part),
        }
    }
}

fn property(message: &Message, name: &str) -> Option<Vec<u8>> {
    let list = PropertyList::from(&Properties::parse(message.properties()).ok()?);
    let number = |number: Option<u64>| number.map(|number| number.to_string().into_bytes());
    match name {
        "content_type" => list.content_type,
        "content_encoding" => list.content_encoding,
        "delivery_mode" => number(list.delivery_mode.map(u64::from)),
        "priority" => number(list.priority.map(u64::from)),
        "correlation_id" => list.correlation_id,
        "reply_to" => list.reply_to,
        "expiration" => list.expiration,
        "message_id" => list.message_id,
        "timestamp" => number(list.timestamp),
        "type" => list.kind,
        "user_id" => list.user_id,
        "app_id" => list.app_id,
        "cluster_id" => list.cluster_id,
        _ => None,
    }
}

/// Whether a header's value is this as text. Tables and arrays are none.
fn reads(value: &Value, text: &str) -> bool {
    match value {
        Value::Str(octets) | Value::Bytes(octets) => octets == text.as_bytes(),
        Value::Bool(truth) => text == if *truth { "true" } else { "false" },
        Value::Timestamp(seconds) => text == seconds.to_string(),
        _ => value.as_i64().is_some_and(|number| text == number.to_string()),
    }
}

/// What a shard answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The queue is gone.
    Missing,
    /// It is so, and durable where the queue is.
    Done,
    /// Nobody holds that message.
    NotHeld,
    /// A piece of a scan.
    Page(Page),
    /// An occurrence of a schedule was fired, now or before: this is what is known of it.
    Fired(Firing),
    /// Unacked messages.
    Leases {
        /// By seq.
        leases: Vec<Lease>,
        /// Where the next ones begin.
        next: Option<Seq>,
    },
}

/// What came of a [`Scan`].
#[derive(Clone, Debug)]
pub struct Page {
    /// What was to be shown.
    pub shown: Vec<Shown>,
    /// How many were deleted, moved, requeued or released; that is durable.
    pub done: u64,
    /// How many the filter left out.
    pub passed: u64,
    /// How many stay because there is nowhere to go: no such queue, no route, no history.
    pub unroutable: u64,
    /// How many stay because where they were to go is full. The scan ended there.
    pub refused: u64,
    /// No message had this seq or a higher one then.
    pub end: Seq,
    /// Where to go on; `None` = that was the end.
    pub next: Option<Next>,
}

impl Page {
    /// A page with nothing on it.
    #[must_use]
    pub fn new(end: Seq, next: Option<Next>) -> Self {
        Self { shown: Vec::new(), done: 0, passed: 0, unroutable: 0, refused: 0, end, next }
    }
}

/// Where a scan goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Among the ready ones.
    Ready(Cursor),
    /// Among the unacked ones.
    Unacked(Seq),
    /// Among the delayed ones.
    Delayed(Time),
    /// Among the dead ones.
    Owed(Seq),
    /// With the so-manieth of those named.
    These(usize),
}

/// A message that was looked at.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What it is called in its queue.
    pub seq: Seq,
    /// The message.
    pub message: Message,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Failed deliveries so far.
    pub attempts: u32,
    /// Unix milliseconds; 0 = never.
    pub expires_at_ms: u64,
    /// Until when it waits, in Unix milliseconds, if it is delayed.
    pub due_at_ms: Option<u64>,
    /// Its priority in the queue.
    pub priority: u8,
    /// Who has it, if it is unacked.
    pub lease: Option<Lease>,
    /// How it died, if nobody has taken its letter yet.
    pub death: Option<Death>,
    /// Why it failed last, if a worker said so; of a dead letter, what is told by it.
    pub failure: Option<Failure>,
}

/// How a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// RabbitMQ's word for why: `rejected`, `expired`, `maxlen` or `delivery_limit`.
    pub reason: &'static str,
    /// When, in Unix seconds.
    pub unix_s: u64,
}

/// An unacked message, and who has it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The message.
    pub seq: Seq,
    /// The consumer's tag; `None` for basic.get, and for a consumer that was cancelled.
    pub tag: Option<String>,
    /// The connection.
    pub connection: ConnectionId,
    /// The channel there.
    pub channel: ChannelId,
    /// How long it has been unacked, in milliseconds.
    pub age_ms: u64,
    /// How long it may stay so; `None` = for ever.
    pub left_ms: Option<u64>,
    /// Somebody extended it.
    pub is_extended: bool,
    /// How far the job is, if its worker says so.
    pub progress: Option<Progress>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageParts;
    use bytes::BytesMut;

    #[test]
    fn a_filter_compares_as_text_and_wants_all_of_it() {
        let list = PropertyList {
            message_id: Some(b"m-1".to_vec()),
            priority: Some(7),
            headers: Some([("n", Value::I64(5)), ("s", "x".into()), ("b", Value::Bool(true))].into_iter().collect()),
            ..PropertyList::default()
        };
        let mut properties = BytesMut::new();
        list.encode(&mut properties);
        let parts = MessageParts { exchange: "e", routing_key: "k", properties: &properties, died_here: false };
        let message = Message::new(parts, b"hello world");
        let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let header = |name, value| {
            let (name, value) = owned(name, value);
            Term::Header(name, value)
        };
        let property = |name, value| {
            let (name, value) = owned(name, value);
            Term::Property(name, value)
        };
        let body = |text: &str| Term::Body(text.as_bytes().to_vec());
        let all = [
            Term::Exchange("e".into()),
            Term::RoutingKey("k".into()),
            property("message_id", "m-1"),
            property("priority", "7"),
            header("n", "5"),
            header("s", "x"),
            header("b", "true"),
            body("o w"),
            body(""),
        ];
        for term in &all {
            assert!(term.holds(&message), "{term:?}");
        }
        for term in [
            Term::Exchange("E".into()),
            Term::RoutingKey(String::new()),
            property("message_id", "m-2"),
            property("type", ""),
            property("nonsense", ""),
            header("n", "05"),
            header("missing", ""),
            body("hello world!"),
        ] {
            assert!(!term.holds(&message), "{term:?}");
            let mut terms = all.to_vec();
            terms.push(term);
            assert!(!Filter { terms }.matches(&message));
        }
        assert!(Filter { terms: all.to_vec() }.matches(&message));
    }
}
