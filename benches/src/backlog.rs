//! Paths on which messages were there before: a consumer takes them as fast as it can.

use crate::broker::{Broker, Client};
use crate::flow::{self, Acks, READ_BYTES};
use crate::{Rounds, wire};
use bytes::BytesMut;

struct Backlog {
    broker: Broker,
    consumer: Client,
    heard_before: u64,
    delivery_bytes: u64,
    /// How many messages were delivered.
    delivered: u64,
    /// Without acks the consumer takes a read's worth at a time.
    acks: Option<Acks>,
}

/// Where the backlog is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In memory: its consumer was there first, and slow.
    Near,
    /// In the log, but for the first megabytes: its consumer came later.
    Far,
}

/// In memory, acknowledged as it is sent.
pub(crate) fn near() -> Box<dyn Rounds> {
    prepare(Place::Near, None)
}

/// In memory, each message acknowledged.
pub(crate) fn near_ack() -> Box<dyn Rounds> {
    prepare(Place::Near, Some(Acks::new()))
}

/// In the log, acknowledged as it is sent.
pub(crate) fn far() -> Box<dyn Rounds> {
    prepare(Place::Far, None)
}

/// In the log, each message acknowledged.
pub(crate) fn far_ack() -> Box<dyn Rounds> {
    prepare(Place::Far, Some(Acks::new()))
}

fn prepare(place: Place, acks: Option<Acks>) -> Box<dyn Rounds> {
    let mut broker = Broker::new();
    let publisher = broker.client(|out| wire::declare("queue", out));
    let consumer = broker.client(|_| ());
    let heard_before = broker.heard(consumer);
    let mut consume = BytesMut::new();
    if acks.is_some() {
        flow::manual(&mut consume);
    } else {
        flow::automatic(&mut consume);
        broker.take(consumer, 0);
    }
    if place == Place::Near {
        broker.say(consumer, &consume);
    }
    let (read, messages) = &flow::reads(&flow::read_of(wire::TRANSIENT, BODY_BYTES), usize::MAX)[0];
    for _ in 0..MESSAGES / messages {
        broker.say(publisher, read);
    }
    if place == Place::Far {
        broker.say(consumer, &consume);
    }
    let delivery_bytes = wire::delivery_bytes("consumer", "", "queue", wire::TRANSIENT, BODY_BYTES);
    let mut backlog = Backlog { broker, consumer, heard_before, delivery_bytes, delivered: 0, acks };
    backlog.delivered = backlog.count();
    Box::new(backlog)
}

impl Backlog {
    fn count(&self) -> u64 {
        (self.broker.heard(self.consumer) - self.heard_before) / self.delivery_bytes
    }
}

impl Rounds for Backlog {
    fn round(&mut self) -> u64 {
        match &mut self.acks {
            Some(acks) => self.broker.say(self.consumer, acks.up_to(self.delivered)),
            None => self.broker.take(self.consumer, READ_BYTES as u64),
        }
        let before = self.delivered;
        self.delivered = self.count();
        assert!(self.delivered > before, "the backlog lasts");
        self.delivered - before
    }
}

/// More than any path takes, and what the server sends ahead of that.
const MESSAGES: u64 = 100_000;

const BODY_BYTES: usize = 16;
