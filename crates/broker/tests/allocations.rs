//! A message's way through a shard allocates nothing of its own: publish, deliver, acknowledge.
//!
//! A test program of its own, since it counts what its thread asks of the allocator.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use amqp::{ChannelId, Table};
use broker::command::{
    Batch, CallId, Command, ConnectionEvent, ConnectionId, Consume, ConsumerNumber, Now, Outbox, Publish, QueueId,
    QueueIds, QueueRef, QueueSettings, QueueSpec, Settle, Settlement, ShardId, ShardInput, VhostId,
};
use broker::message::{Message, MessageParts};
use broker::shard::{Shard, ShardSettings};
use broker::topology::Topology;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use store::MemoryStore;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; it only counts and passes on")]
// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const QUEUE: QueueId = QueueId(1);
const NOW: Now = Now { ms: 1, unix_ms: 1 };

fn spec() -> QueueSpec {
    QueueSpec {
        queue: QueueRef { id: QUEUE, shard: ShardId(0) },
        vhost: VhostId(0),
        vhost_name: "/".into(),
        name: "q".into(),
        durable: true,
        auto_delete: false,
        owner: None,
        arguments: Table::new(),
        settings: QueueSettings::default(),
        policies: Default::default(),
    }
}

fn consumer() -> Consume {
    Consume {
        call: CallId(1),
        channel: ChannelId(1),
        consumer: ConsumerNumber(1),
        queue: QUEUE,
        tag: String::new(),
        no_ack: false,
        exclusive: false,
        prefetch: 500,
        hears_cancel: true,
        arguments: Table::new(),
    }
}

/// So many messages are published, and those that were delivered before acknowledged. Their bytes add up to less than
/// a connection's window, and are read.
fn round(queues: &QueueIds, message: &Message, delivered: &[Settle], window_bytes: u64) -> Vec<ShardInput> {
    let publish = |_| {
        Command::Publish(Publish {
            queues: queues.clone(),
            message: message.clone(),
            more: Vec::new(),
            persistent: false,
            expiration_ms: None,
            priority: None,
            delay: None,
            confirm: true,
        })
    };
    let mut settles: Vec<_> = delivered.iter().copied().map(Command::Settle).collect();
    settles.push(Command::Drained { bytes: window_bytes });
    let batch = |id, commands| ShardInput::Batch(Batch { connection: ConnectionId(id), commands });
    vec![batch(1, (0..MESSAGES).map(publish).collect()), batch(2, settles)]
}

#[test]
fn a_step_allocates_for_its_batch_and_not_for_its_messages() {
    let recovery = Shard::<MemoryStore>::recover(ShardId(0), ShardSettings::default(), NOW);
    let (mut shard, _) = recovery.finish(MemoryStore::new(), true).unwrap();
    let (topology, mut out) = (Topology::new(), Outbox::default());
    let consume = Batch { connection: ConnectionId(2), commands: vec![Command::Consume(Box::new(consumer()))] };
    let mut first =
        vec![ShardInput::CreateQueue { spec: Arc::new(spec()), declarer: None }, ShardInput::Batch(consume)];
    shard.step(NOW, &mut first, &topology, &mut out);

    let parts = MessageParts { exchange: "", routing_key: "q", properties: &[0, 0], died_here: false };
    let message = Message::new(parts, b"body");
    let queues: QueueIds = [QUEUE].into();
    let (mut settles, mut window_bytes) = (Vec::new(), 0);
    let mut counts = Vec::new();
    for _ in 0..20 {
        let mut inbox = round(&queues, &message, &settles, window_bytes);
        out.connections.clear();
        let before = ALLOCATIONS.with(Cell::get);
        shard.step(NOW, &mut inbox, &topology, &mut out);
        counts.push(ALLOCATIONS.with(Cell::get) - before);
        (settles, window_bytes) = delivered(&out);
        assert_eq!(settles.len(), MESSAGES);
    }
    let steady = &counts[10..];
    assert!(steady.iter().all(|count| *count < 25), "{counts:?}: more than the growth of one list of events");
}

fn delivered(out: &Outbox) -> (Vec<Settle>, u64) {
    let (mut settles, mut window_bytes) = (Vec::new(), 0);
    for event in out.connections.iter().flat_map(|(_, events)| events) {
        if let ConnectionEvent::Deliver(delivery) = event {
            window_bytes += delivery.window_bytes();
            settles.push(Settle { queue: QUEUE, seq: delivery.seq, count: 1, how: Settlement::Ack });
        }
    }
    (settles, window_bytes)
}

const MESSAGES: usize = 500;
