//! One behaviour of a shard each, driven step by step over a store in memory.

mod change;
mod clock;
mod consuming;
mod dead_letters;
mod deduplication;
mod everything;
mod far;
mod firing;
mod groups;
mod history;
mod leases;
mod limits;
mod operations;
mod owed;
mod recovery;
mod reports;
mod settling;
mod streams;
mod time;

use super::{Near, Recovery, Shard, ShardSettings};
use crate::catalog::{Catalog, CatalogOutbox};
use crate::command::*;
use crate::inspect::QueueView;
use crate::message::{Message, MessageParts, hold_back};
use crate::queue::tests::spec;
use crate::topology::Topology;
use amqp::{ChannelId, PropertyList, Table};
use bytes::BytesMut;
use std::sync::Arc;
use store::{MemoryStore, QueueId, Seq};

/// A shard, its clock, and what it sent that no test looked at yet.
pub(super) struct World {
    pub(super) shard: Shard<MemoryStore>,
    pub(super) topology: Topology,
    pub(super) now: Now,
    pub(super) out: Outbox,
    calls: u64,
}

/// What a consumer got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) connection: u64,
    pub(super) consumer: u32,
    pub(super) seq: u64,
    pub(super) body: String,
    pub(super) redelivered: bool,
}

pub(super) const Q: QueueId = QueueId(1);
const START: Now = Now { ms: 1_000, unix_ms: 1_000_000 };

impl World {
    /// An empty shard, and a topology with nothing in it.
    pub(super) fn new() -> Self {
        Self::over(MemoryStore::new(), ShardSettings { shards: 2, ..ShardSettings::default() })
    }

    /// The same with no room for messages in memory: all but the first of a queue are in the log only.
    pub(super) fn without_room() -> Self {
        let near = Near { queue_bytes: 0, busy_queue_bytes: 0, queue_unacked: 0, bytes: 0, idle_bytes: 0 };
        Self::over(MemoryStore::new(), ShardSettings { shards: 2, near, ..ShardSettings::default() })
    }

    pub(super) fn over(store: MemoryStore, settings: ShardSettings) -> Self {
        let mut recovery: Recovery = Shard::<MemoryStore>::recover(ShardId(0), settings, START);
        store.replay(&mut |lsn, record| recovery.replay(lsn, record));
        let clean = store.is_closed();
        let (shard, facts) = recovery.finish(store.restart(), clean).unwrap();
        let facts = facts.into_iter().map(|(key, value)| (ShardId(0), key, value));
        let (_, topology) = Catalog::recover(1, 1, facts, &mut CatalogOutbox::default()).unwrap();
        Self { shard, topology, now: START, out: Outbox::default(), calls: 0 }
    }

    /// What a new process makes of what is durable now.
    pub(super) fn restart(self) -> Self {
        Self::over(self.shard.log.into_store(), self.shard.settings)
    }

    pub(super) fn step(&mut self, mut inbox: Vec<ShardInput>) {
        self.shard.step(self.now, &mut inbox, &self.topology, &mut self.out);
        assert!(inbox.is_empty());
        // What is read comes soon.
        for _ in 0..1000 {
            if self.shard.readings.is_empty() {
                return;
            }
            self.shard.step(self.now, &mut inbox, &self.topology, &mut self.out);
        }
        panic!("a read is never answered: {:?}", self.shard.readings);
    }

    /// Steps until nothing more happens by itself at this time.
    pub(super) fn settle_down(&mut self) {
        for _ in 0..3 {
            self.step(vec![]);
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += ms;
        self.step(vec![]);
    }

    pub(super) fn queue(&mut self, id: u64, settings: QueueSettings) {
        self.declare(QueueSpec { durable: false, ..spec(id, settings) });
    }

    pub(super) fn durable_queue(&mut self, id: u64, settings: QueueSettings) {
        self.declare(spec(id, settings));
    }

    pub(super) fn declare(&mut self, spec: QueueSpec) {
        let spec = Arc::new(spec);
        self.topology.add_queue(Arc::clone(&spec));
        self.step(vec![ShardInput::CreateQueue { spec, declarer: None }]);
    }

    pub(super) fn command(&mut self, connection: u64, command: Command) {
        self.commands(connection, vec![command]);
    }

    pub(super) fn commands(&mut self, connection: u64, commands: Vec<Command>) {
        self.step(vec![ShardInput::Batch(Batch { connection: ConnectionId(connection), commands })]);
    }

    /// Publishes one message with this body, as connection 9.
    pub(super) fn publish(&mut self, queue: u64, body: &str) {
        self.command(9, publish(&[queue], body));
    }

    pub(super) fn ask(&mut self, connection: u64, ask: impl FnOnce(CallId) -> Command) -> Outcome {
        self.calls += 1;
        let call = CallId(self.calls);
        self.command(connection, ask(call));
        // What has to be read first takes a while.
        let answers = (0..10).find_map(|_| {
            let outcome = self.outcome(call);
            if outcome.is_none() {
                self.step(vec![]);
            }
            outcome
        });
        answers.unwrap_or_else(|| panic!("not answered: {:?}", self.out))
    }

    fn outcome(&mut self, wanted: CallId) -> Option<Outcome> {
        for (_, events) in &mut self.out.connections {
            let found =
                events.iter().position(|event| matches!(event, ConnectionEvent::Done { call, .. } if *call == wanted));
            if let Some(ConnectionEvent::Done { outcome, .. }) = found.map(|at| events.remove(at)) {
                return Some(outcome);
            }
        }
        None
    }

    pub(super) fn consume(&mut self, connection: u64, consumer: u32, queue: u64, prefetch: u32) {
        self.consume_as(connection, Consume { prefetch, ..consumer_of(consumer, queue) });
    }

    pub(super) fn consume_as(&mut self, connection: u64, consume: Consume) {
        let outcome = self.try_consume(connection, consume);
        assert!(matches!(outcome, Outcome::Consuming), "{outcome:?}");
    }

    pub(super) fn try_consume(&mut self, connection: u64, consume: Consume) -> Outcome {
        self.ask(connection, |call| Command::Consume(Box::new(Consume { call, ..consume })))
    }

    pub(super) fn get(&mut self, connection: u64, queue: u64) -> Option<Delivery> {
        let get = |call| Command::Get { call, channel: ChannelId(1), queue: QueueId(queue), no_ack: false };
        match self.ask(connection, get) {
            Outcome::Got { delivery, .. } => Some(delivery),
            Outcome::Empty => None,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn settle(&mut self, connection: u64, seq: u64, how: Settlement) {
        self.command(connection, settle(1, seq, how));
    }

    /// All deliveries that no test looked at yet.
    pub(super) fn deliveries(&mut self) -> Vec<Got> {
        let mut all = Vec::new();
        for (connection, events) in &mut self.out.connections {
            for event in events.extract_if(.., |event| matches!(event, ConnectionEvent::Deliver(_))) {
                let ConnectionEvent::Deliver(delivery) = event else { continue };
                all.push(Got {
                    connection: connection.0,
                    consumer: delivery.consumer.0,
                    seq: delivery.seq.0,
                    body: String::from_utf8(delivery.message.body().to_vec()).unwrap(),
                    redelivered: delivery.redelivered,
                });
            }
        }
        all
    }

    pub(super) fn bodies(&mut self) -> Vec<String> {
        self.deliveries().into_iter().map(|got| got.body).collect()
    }

    /// Gets and acknowledges everything that is ready.
    pub(super) fn drain(&mut self, queue: u64) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(delivery) = self.get(9, queue) {
            bodies.push(String::from_utf8(delivery.message.body().to_vec()).unwrap());
            self.command(9, settle(queue, delivery.seq.0, Settlement::Ack));
        }
        bodies
    }

    /// All events but deliveries that no test looked at yet.
    pub(super) fn events(&mut self) -> Vec<(u64, ConnectionEvent)> {
        let connections = std::mem::take(&mut self.out.connections).into_iter();
        let all = connections.flat_map(|(id, events)| events.into_iter().map(move |event| (id.0, event)));
        all.filter(|(_, event)| !matches!(event, ConnectionEvent::Deliver(_))).collect()
    }

    pub(super) fn view(&mut self, queue: u64) -> QueueView {
        self.step(vec![ShardInput::Inspect { ticket: 1, queue: Some(QueueId(queue)) }]);
        self.out.views.pop().and_then(|(_, mut views)| views.pop()).unwrap()
    }

    /// Ready and unacked.
    pub(super) fn depths(&mut self, queue: u64) -> (u64, u64) {
        let view = self.view(queue);
        (view.ready, view.unacked)
    }
}

pub(super) fn publish(queues: &[u64], body: &str) -> Command {
    Command::Publish(publication(queues, body, &PropertyList::default()))
}

pub(super) fn persistent(queues: &[u64], body: &str) -> Command {
    let list = PropertyList { delivery_mode: Some(2), ..PropertyList::default() };
    Command::Publish(publication(queues, body, &list))
}

pub(super) fn publication(queues: &[u64], body: &str, list: &PropertyList) -> Publish {
    let mut properties = BytesMut::new();
    list.encode(&mut properties);
    let parts = MessageParts { exchange: "", routing_key: "key", properties: &properties, died_here: false };
    let expiration = list.expiration.as_ref().map(|text| String::from_utf8(text.clone()).unwrap().parse().unwrap());
    Publish {
        queues: queues.iter().map(|id| QueueId(*id)).collect(),
        message: Message::new(parts, body.as_bytes()),
        more: Vec::new(),
        persistent: list.delivery_mode == Some(2),
        expiration_ms: expiration,
        priority: list.priority,
        delay: list.headers.as_ref().and_then(|headers| hold_back(&mut headers.clone())).map(Delay::For),
        confirm: true,
    }
}

pub(super) fn settle(queue: u64, seq: u64, how: Settlement) -> Command {
    Command::Settle(Settle { queue: QueueId(queue), seq: Seq(seq), count: 1, how })
}

/// A consumer on channel 1.
pub(super) fn consumer_of(consumer: u32, queue: u64) -> Consume {
    Consume {
        call: CallId(0),
        channel: ChannelId(1),
        consumer: ConsumerNumber(consumer),
        queue: QueueId(queue),
        tag: format!("tag-{consumer}"),
        no_ack: false,
        exclusive: false,
        prefetch: 0,
        hears_cancel: true,
        arguments: Table::new(),
    }
}
