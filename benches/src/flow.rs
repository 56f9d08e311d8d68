//! Paths on which messages come and go: a publisher says a read's worth of messages, consumers take them.

use crate::broker::{Broker, Client};
use crate::{Rounds, wire};
use amqp::ChannelId;
use bytes::BytesMut;

/// A publisher, and perhaps a consumer that keeps up.
pub(crate) struct Flow {
    broker: Broker,
    publisher: Client,
    /// What the publisher says, a read's worth a round, again and again; and how many messages each is.
    reads: Vec<(Vec<u8>, u64)>,
    next: usize,
    published: u64,
    /// The publisher wants confirms.
    confirms: bool,
    consumer: Option<Consumer>,
}

/// One client's consumers.
pub(crate) struct Consumer {
    client: Client,
    /// What a delivery is on the wire.
    delivery_bytes: u64,
    /// How many deliveries a message makes.
    copies: u64,
    /// What it was sent before the first delivery.
    heard_before: u64,
    acks: Option<Acks>,
}

/// Acknowledgements, one by one.
pub(crate) struct Acks {
    /// All that there will be.
    bytes: Vec<u8>,
    /// How many are sent.
    sent: usize,
}

impl Acks {
    pub(crate) fn new() -> Self {
        Self { bytes: wire::acks(DELIVERIES_MAX), sent: 0 }
    }

    /// Those for all that was delivered and is not acknowledged.
    pub(crate) fn up_to(&mut self, delivered: u64) -> &[u8] {
        let from = std::mem::replace(&mut self.sent, delivered as usize);
        &self.bytes[from * wire::ACK_BYTES..self.sent * wire::ACK_BYTES]
    }
}

impl Rounds for Flow {
    fn round(&mut self) -> u64 {
        let (read, messages) = &self.reads[self.next];
        self.next = (self.next + 1) % self.reads.len();
        let heard = self.broker.heard(self.publisher);
        self.broker.say(self.publisher, read);
        self.published += messages;
        assert_eq!(self.broker.heard(self.publisher) > heard, self.confirms, "confirms, and nothing else");
        if let Some(consumer) = &mut self.consumer {
            consumer.acknowledge(&mut self.broker);
            let due = self.published * consumer.copies;
            assert_eq!(consumer.delivered(&self.broker), due, "everything is delivered in its round");
        }
        *messages
    }
}

impl Consumer {
    fn delivered(&self, broker: &Broker) -> u64 {
        (broker.heard(self.client) - self.heard_before) / self.delivery_bytes
    }

    /// Acknowledges what was delivered until no more comes.
    fn acknowledge(&mut self, broker: &mut Broker) {
        loop {
            let delivered = self.delivered(broker);
            match self.acks.as_mut().map(|acks| acks.up_to(delivered)) {
                None | Some([]) => return,
                Some(acks) => broker.say(self.client, acks),
            }
        }
    }
}

/// What there is besides the messages.
struct Scene<'a> {
    /// The publisher declares it.
    declare: &'a dyn Fn(&mut BytesMut),
    /// The consumer subscribes to it, if there is one.
    consume: Option<&'a dyn Fn(&mut BytesMut)>,
    acks: bool,
    confirms: bool,
    copies: u64,
    /// How many messages a read of the publisher's socket takes at most.
    together: usize,
}

const SCENE: Scene<'_> = Scene {
    declare: &|out| wire::declare("queue", out),
    consume: None,
    acks: false,
    confirms: false,
    copies: 1,
    together: usize::MAX,
};

impl Scene<'_> {
    /// The flow of these messages, said in turn.
    fn flow(&self, messages: &[BytesMut]) -> Box<dyn Rounds> {
        let mut broker = Broker::new();
        let publisher = broker.client(|out| {
            (self.declare)(out);
            if self.confirms {
                wire::select_confirms(out);
            }
        });
        let client = self.consume.map(|consume| broker.client(consume));
        let reads = reads(messages, self.together);
        let heard_before = client.map_or(0, |client| broker.heard(client));
        broker.say(publisher, &messages[0]);
        let consumer = client.map(|client| Consumer {
            client,
            delivery_bytes: (broker.heard(client) - heard_before) / self.copies,
            copies: self.copies,
            heard_before,
            acks: self.acks.then(Acks::new),
        });
        let confirms = self.confirms;
        Box::new(Flow { broker, publisher, reads, next: 0, published: 1, confirms, consumer })
    }
}

/// All messages in reads of at most so many messages.
pub(crate) fn reads(messages: &[BytesMut], together: usize) -> Vec<(Vec<u8>, u64)> {
    let mut reads: Vec<(Vec<u8>, u64)> = Vec::new();
    for message in messages {
        match reads.last_mut() {
            Some((read, count)) if read.len() + message.len() <= READ_BYTES && (*count as usize) < together => {
                read.extend_from_slice(message);
                *count += 1;
            }
            _ => reads.push((message.to_vec(), 1)),
        }
    }
    reads
}

/// A read's worth of the same message.
pub(crate) fn read_of(properties: &[u8], body_bytes: usize) -> Vec<BytesMut> {
    let message = addressed("", "queue", properties, body_bytes);
    vec![message.clone(); READ_BYTES / message.len()]
}

fn addressed(exchange: &str, routing_key: &str, properties: &[u8], body_bytes: usize) -> BytesMut {
    let mut out = BytesMut::new();
    wire::publish(exchange, routing_key, properties, &vec![b'x'; body_bytes], &mut out);
    out
}

pub(crate) fn automatic(out: &mut BytesMut) {
    wire::consume(wire::CHANNEL, "queue", "consumer", true, out);
}

pub(crate) fn manual(out: &mut BytesMut) {
    wire::prefetch(PREFETCH, out);
    wire::consume(wire::CHANNEL, "queue", "consumer", false, out);
}

/// Into a queue that nobody consumes from: the first megabytes into memory, the rest into the log.
pub(crate) fn publish_16() -> Box<dyn Rounds> {
    SCENE.flow(&read_of(wire::TRANSIENT, 16))
}

pub(crate) fn publish_1k() -> Box<dyn Rounds> {
    SCENE.flow(&read_of(wire::TRANSIENT, 1024))
}

pub(crate) fn deliver_16() -> Box<dyn Rounds> {
    Scene { consume: Some(&automatic), ..SCENE }.flow(&read_of(wire::TRANSIENT, 16))
}

/// Each message has a read of its own: what a batch costs.
pub(crate) fn deliver_16_single() -> Box<dyn Rounds> {
    Scene { consume: Some(&automatic), together: 1, ..SCENE }.flow(&read_of(wire::TRANSIENT, 16))
}

pub(crate) fn deliver_1k() -> Box<dyn Rounds> {
    Scene { consume: Some(&automatic), ..SCENE }.flow(&read_of(wire::TRANSIENT, 1024))
}

pub(crate) fn ack_16() -> Box<dyn Rounds> {
    Scene { consume: Some(&manual), acks: true, ..SCENE }.flow(&read_of(wire::TRANSIENT, 16))
}

pub(crate) fn ack_1k() -> Box<dyn Rounds> {
    Scene { consume: Some(&manual), acks: true, ..SCENE }.flow(&read_of(wire::TRANSIENT, 1024))
}

pub(crate) fn confirm_1k() -> Box<dyn Rounds> {
    Scene { confirms: true, ..SCENE }.flow(&read_of(wire::PERSISTENT, 1024))
}

/// All that a careful user asks for: persistent, confirmed, acknowledged.
pub(crate) fn durable_work_1k() -> Box<dyn Rounds> {
    let scene = Scene { consume: Some(&manual), acks: true, confirms: true, ..SCENE };
    scene.flow(&read_of(wire::PERSISTENT, 1024))
}

/// Each message matches two of 100,000 bindings, and seldom has the routing key of the one before.
pub(crate) fn topic_100k() -> Box<dyn Rounds> {
    let declare = |out: &mut BytesMut| {
        wire::declare("queue", out);
        wire::declare_exchange("topics", "topic", out);
        for number in 0..50_000 {
            wire::bind("queue", "topics", &format!("k{number:05}.*.end"), out);
            wire::bind("queue", "topics", &format!("#.t{number:05}.end"), out);
        }
    };
    let message = |number: usize| {
        let number = number * 37;
        addressed("topics", &format!("k{number:05}.t{number:05}.end"), wire::TRANSIENT, 16)
    };
    let messages: Vec<BytesMut> = (0..1000).map(message).collect();
    Scene { declare: &declare, consume: Some(&automatic), ..SCENE }.flow(&messages)
}

/// A message is one that was published; it makes a hundred deliveries.
pub(crate) fn fanout_100() -> Box<dyn Rounds> {
    let declare = |out: &mut BytesMut| {
        wire::declare_exchange("all", "fanout", out);
        for number in 0..100 {
            wire::declare(&format!("queue{number:02}"), out);
            wire::bind(&format!("queue{number:02}"), "all", "", out);
        }
    };
    let consume = |out: &mut BytesMut| {
        for number in 0..100 {
            wire::consume(wire::CHANNEL, &format!("queue{number:02}"), &format!("consumer{number:02}"), true, out);
        }
    };
    let scene = Scene { declare: &declare, consume: Some(&consume), copies: 100, ..SCENE };
    scene.flow(&vec![addressed("all", "", wire::TRANSIENT, 16); 16])
}

/// Each message goes to the next of 10,000 queues, each of which has a consumer; a hundred channels have them all.
pub(crate) fn queues_10k() -> Box<dyn Rounds> {
    let name = |number: usize| format!("queue{number:04}");
    let declare = |out: &mut BytesMut| (0..10_000).for_each(|number| wire::declare(&name(number), out));
    let consume = |out: &mut BytesMut| {
        for number in 0..10_000 {
            let channel = ChannelId(2 + (number / 100) as u16);
            if number % 100 == 0 {
                wire::open(channel, out);
            }
            wire::consume(channel, &name(number), &format!("consumer{number:04}"), true, out);
        }
    };
    let messages: Vec<BytesMut> = (0..10_000).map(|number| addressed("", &name(number), wire::TRANSIENT, 16)).collect();
    Scene { declare: &declare, consume: Some(&consume), ..SCENE }.flow(&messages)
}

/// What one read of a socket takes.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// Unacknowledged deliveries that a consumer may have.
const PREFETCH: u16 = 100;

/// More than any path does.
const DELIVERIES_MAX: u64 = 120_000;
