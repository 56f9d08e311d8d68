//! Messages as clients publish and get them.

use super::copies::Copy;
use crate::plan::{Rule, STREAM};
use amqp::method::basic;
use amqp::{ContentHeader, Properties, PropertyList, Table, Value};
use broker::command::QueueId;
use broker::message::hold_back;
use bytes::BytesMut;
use std::collections::BTreeSet;

/// The header that names a message's group, …
pub const GROUP_KEY: &str = "of";
/// … and how many there are.
const GROUPS: u64 = 3;

/// What is to be published.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is the property or flag of that name")]
pub struct Draft {
    pub target: Target,
    pub persistent: bool,
    pub expiration_ms: Option<u64>,
    pub priority: Option<u8>,
    pub delay_ms: Option<u64>,
    pub mandatory: bool,
    pub has_headers: bool,
    pub wants_reply: bool,
    pub body_bytes: usize,
    /// It has an id among its properties. The number of one that has none is the beginning of its body, so that it is like
    /// others in all else.
    pub is_named: bool,
    /// It has a deduplication key, which is a new one or not.
    pub once: Option<bool>,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To one queue, through the default exchange.
    Queue(String),
    /// To all queues that are bound to the fanout exchange.
    Fanout,
    /// To whatever is bound to the exchange that comes and goes.
    Side,
    /// To the client that waits for replies at this address.
    Reply(String),
    /// Through an exchange of another type.
    Via {
        /// Its name.
        exchange: &'static str,
        /// The routing key.
        key: String,
        /// What the exchange does.
        rule: Rule,
    },
}

/// The number of a message of ours.
pub(super) fn number_in(properties: &Properties<'_>, body: &[u8]) -> u64 {
    let number = match properties.message_id() {
        Some(id) => id.parse().ok(),
        None => body.first_chunk().map(|octets| u64::from_be_bytes(*octets)),
    };
    number.expect("a message of ours")
}

/// What a client is told about a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "basic.ack and basic.nack")]
pub enum Confirm {
    Ack,
    Nack,
}

/// A message that was published, or was about to be.
#[derive(Debug)]
pub struct Message {
    /// Its name everywhere.
    pub number: u64,
    /// Where to.
    pub target: Target,
    /// To come back if no queue takes it.
    pub mandatory: bool,
    /// As they go over the wire.
    pub properties: BytesMut,
    pub(super) client: u64,
    pub(super) channel: u64,
    pub(super) persistent: bool,
    pub(super) expiration_ms: Option<u64>,
    pub(super) delay_ms: Option<u64>,
    body_bytes: usize,
    is_named: bool,
    /// What queues with groups know it by.
    pub(super) group: Option<u8>,
    /// Its deduplication key: the number of the first that had it.
    pub(super) key: Option<u64>,
    pub(super) copies: Vec<Copy>,
    /// Queues that were bound to the exchange that it goes to before it was published, where each of them gets it.
    pub(super) owed: Vec<QueueId>,
    pub(super) told: Option<Confirm>,
    pub(super) is_returned: bool,
    pub(super) is_rolled_back: bool,
    /// How clients received it.
    pub(super) seen: BTreeSet<Sight>,
    /// The same for acknowledgements that were committed, until a crash.
    pub(super) ended: BTreeSet<Sight>,
}

impl Message {
    pub(super) fn new(number: u64, draft: Draft, key: Option<u64>, (client, channel): (u64, u64)) -> Self {
        let of = draft.has_headers.then_some((GROUP_KEY, Value::I64((number % GROUPS).cast_signed())));
        let delay = draft.delay_ms.map(|ms| ("x-delay", Value::I64(i64::try_from(ms).expect("small"))));
        let once = key.map(|key| ("x-deduplication-header", Value::I64(key.cast_signed())));
        let headers = of.into_iter().chain(delay).chain(once).collect();
        let list = PropertyList {
            message_id: draft.is_named.then(|| number.to_string().into_bytes()),
            delivery_mode: draft.persistent.then_some(2),
            expiration: draft.expiration_ms.map(|ms| ms.to_string().into_bytes()),
            priority: draft.priority,
            reply_to: draft.wants_reply.then(|| REPLY_TO.as_bytes().to_vec()),
            headers: (draft.has_headers || draft.delay_ms.is_some() || key.is_some()).then_some(headers),
            ..PropertyList::default()
        };
        let mut properties = BytesMut::new();
        list.encode(&mut properties);
        Self {
            number,
            target: draft.target,
            mandatory: draft.mandatory,
            properties,
            client,
            channel,
            persistent: draft.persistent,
            expiration_ms: draft.expiration_ms,
            delay_ms: draft.delay_ms,
            body_bytes: if draft.is_named { draft.body_bytes } else { draft.body_bytes.max(size_of::<u64>()) },
            is_named: draft.is_named,
            group: draft.has_headers.then_some(u8::try_from(number % GROUPS).expect("few")),
            key,
            copies: Vec::new(),
            owed: Vec::new(),
            told: None,
            is_returned: false,
            is_rolled_back: false,
            seen: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    /// Bytes that belong to no other message.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let octet = |at| (self.number.wrapping_mul(31).wrapping_add(at) & 0xff) as u8;
        let mut body: Vec<u8> = (0..self.body_bytes as u64).map(octet).collect();
        if !self.is_named {
            body[..size_of::<u64>()].copy_from_slice(&self.number.to_be_bytes());
        }
        body
    }
}

impl Target {
    /// Exchange and routing key.
    #[must_use]
    pub fn address(&self) -> (&str, &str) {
        match self {
            Self::Queue(name) => ("", name),
            Self::Fanout => (crate::plan::FANOUT, "any"),
            Self::Side => (crate::plan::SIDE, "any.way"),
            Self::Reply(address) => ("", address),
            Self::Via { exchange, key, .. } => (exchange, key),
        }
    }
}

/// What a client makes of a message that comes in.
#[derive(Clone, Debug)]
pub enum Receipt {
    /// It came back: nobody took it.
    Return,
    /// It was delivered.
    Delivery {
        /// To this consumer; `None`: it was asked for.
        consumer: Option<String>,
        /// From this queue.
        queue: String,
        /// Settled as it was sent.
        no_ack: bool,
    },
}

/// A message that comes in, whole or not.
#[derive(Clone, Debug)]
pub struct Content {
    /// What it is.
    pub receipt: Receipt,
    /// Its delivery tag.
    pub tag: u64,
    /// As its method says.
    pub redelivered: bool,
    exchange: String,
    routing_key: String,
    /// Size of the body and properties.
    header: Option<(u64, Vec<u8>)>,
    body: Vec<u8>,
}

impl Content {
    /// What follows basic.deliver.
    #[must_use]
    pub fn of_delivery(deliver: &basic::Deliver<'_>, queue: &str, no_ack: bool) -> Self {
        let consumer = Some(deliver.consumer_tag.to_owned());
        let receipt = Receipt::Delivery { consumer, queue: queue.to_owned(), no_ack };
        let content = Self::new(receipt, deliver.exchange, deliver.routing_key);
        Self { tag: deliver.delivery_tag, redelivered: deliver.redelivered, ..content }
    }

    /// What follows basic.get-ok.
    #[must_use]
    pub fn of_get(got: &basic::GetOk<'_>, queue: String, no_ack: bool) -> Self {
        let content = Self::new(Receipt::Delivery { consumer: None, queue, no_ack }, got.exchange, got.routing_key);
        Self { tag: got.delivery_tag, redelivered: got.redelivered, ..content }
    }

    /// What follows basic.return.
    #[must_use]
    pub fn of_return(returned: &basic::Return<'_>) -> Self {
        Self::new(Receipt::Return, returned.exchange, returned.routing_key)
    }

    fn new(receipt: Receipt, exchange: &str, routing_key: &str) -> Self {
        Self {
            receipt,
            tag: 0,
            redelivered: false,
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            header: None,
            body: Vec::new(),
        }
    }

    /// The content header.
    pub fn begin(&mut self, header: &ContentHeader<'_>) {
        let former = self.header.replace((header.body_bytes, header.properties.to_vec()));
        assert!(former.is_none(), "a message with two content headers");
    }

    /// A body frame; false if it comes too early or is too long.
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        self.body.extend_from_slice(bytes);
        self.header.as_ref().is_some_and(|(body_bytes, _)| self.body.len() as u64 <= *body_bytes && !bytes.is_empty())
    }

    /// Nothing is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.header.as_ref().is_some_and(|(body_bytes, _)| *body_bytes == self.body.len() as u64)
    }

    /// Compares it with what was published; its number, and the story of its deaths.
    pub(super) fn check(&self, messages: &[Message]) -> (u64, Deaths) {
        let (_, raw) = self.header.as_ref().expect("it is whole");
        let properties = Properties::parse(raw).expect("properties that can be read");
        let number = number_in(&properties, &self.body);
        let published = &messages[super::index(number)];
        assert_eq!(self.body, published.body(), "the body of m{number} was changed");
        let headers = properties.headers().unwrap_or_default();
        let deaths = Deaths::of(&headers);
        if deaths.count == 0 {
            let address = (&*self.exchange, &*self.routing_key);
            assert_eq!(address, published.target.address(), "m{number} says that it was published elsewhere");
            let mut list = PropertyList::from(&properties);
            let mut original = PropertyList::from(&Properties::parse(&published.properties).expect("our own"));
            for headers in [&mut list, &mut original].into_iter().map(|list| list.headers.get_or_insert_default()) {
                let counts = ["x-delivery-count", "x-acquired-count"].map(|name| headers.remove(name));
                assert_eq!(counts[0], counts[1], "m{number} was given away as often as it came back");
            }
            if matches!(&self.receipt, Receipt::Delivery { queue, .. } if queue == STREAM) {
                let told = list.headers.as_mut().and_then(|headers| headers.remove("x-stream-offset"));
                assert!(told.is_some(), "m{number} comes from a stream, and nothing says from where");
            }
            let is_delayed = original.headers.as_mut().is_some_and(|headers| hold_back(&mut headers.clone()).is_some());
            // What was to be delayed comes back as it was sent.
            let is_as_sent = is_delayed && matches!(self.receipt, Receipt::Return);
            if is_delayed && !is_as_sent {
                // What was delayed says so.
                original.headers.as_mut().and_then(hold_back);
            }
            if let Some(asked) = original.reply_to.as_mut().filter(|_| !is_as_sent) {
                let address = list.reply_to.clone().unwrap_or_default();
                assert!(address.starts_with(b"amq.rabbitmq.reply-to."), "m{number} has no address for replies");
                *asked = address;
            }
            assert_eq!(list, original, "the properties of m{number} were changed");
        }
        (number, deaths)
    }
}

impl Content {
    /// Where to reply to. Nobody replies to what came back to himself.
    #[must_use]
    pub fn reply_address(&self) -> Option<String> {
        let (_, raw) = self.header.as_ref().filter(|_| !matches!(self.receipt, Receipt::Return))?;
        let address = Properties::parse(raw).ok()?.reply_to()?.to_owned();
        (address != REPLY_TO).then_some(address)
    }
}

/// How a message came to the queue that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deaths {
    /// How often it died, in all queues and for all reasons.
    pub(super) count: i64,
    /// Where first.
    first: String,
}

impl Deaths {
    fn of(headers: &Table) -> Self {
        let Some(Value::Array(deaths)) = headers.get("x-death") else { return Self::default() };
        let count = |death: &Value| match death {
            Value::Table(death) => death.get("count").and_then(Value::as_i64).unwrap_or(0),
            _ => 0,
        };
        let first = headers.get("x-first-death-queue").and_then(Value::as_str).unwrap_or_default();
        Self { count: deaths.iter().map(count).sum(), first: first.to_owned() }
    }
}

/// A message as one client gets it from one queue, in one of its lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sight {
    /// The client.
    pub client: u64,
    /// The queue.
    pub queue: String,
    /// How it came there.
    pub deaths: Deaths,
}

/// What stands for a client's own address in what it publishes and consumes.
pub const REPLY_TO: &str = "amq.rabbitmq.reply-to";
