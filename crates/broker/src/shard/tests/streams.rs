//! Streams: every consumer reads all there is from where it wants; what was delivered is never another message.

use super::*;
use crate::operation::{Act as Deed, Filter, Operation, Scan, Which};
use crate::shard::read::Reading;
use amqp::{ReplyCode, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a reader got: who, at which offset, which body, and what stands for the delivery.
type Read = (u32, u64, String, u64);

fn stream() -> QueueSettings {
    QueueSettings { kind: QueueKind::Stream, ..QueueSettings::default() }
}

fn reading(consumer: u32, prefetch: u32, offset: impl Into<Value>) -> Consume {
    let arguments = [("x-stream-offset".to_owned(), offset.into())].into_iter().collect();
    Consume { prefetch, arguments, ..consumer_of(consumer, 1) }
}

fn reads(world: &mut World) -> Vec<Read> {
    world.settle_down();
    taken(world)
}

/// What was delivered so far.
fn taken(world: &mut World) -> Vec<Read> {
    let mut all = Vec::new();
    for (_, events) in &mut world.out.connections {
        for event in events.extract_if(.., |event| matches!(event, ConnectionEvent::Deliver(_))) {
            let ConnectionEvent::Deliver(Delivery { consumer, offset, message, seq, redelivered, no_ack, .. }) = event
            else {
                continue;
            };
            assert!(!redelivered && !no_ack);
            let body = String::from_utf8(message.body().to_vec()).unwrap();
            all.push((consumer.0, offset.unwrap(), body, seq.0));
        }
    }
    all
}

fn bodies_of(world: &mut World, consumer: u32) -> Vec<String> {
    reads(world).into_iter().filter(|read| read.0 == consumer).map(|read| read.2).collect()
}

fn publish_all(world: &mut World, bodies: impl IntoIterator<Item = impl ToString>) {
    world.commands(9, bodies.into_iter().map(|body| publish(&[1], &body.to_string())).collect());
    world.settle_down();
}

fn worlds() -> [World; 2] {
    [World::new(), World::without_room()]
}

impl World {
    /// An operator deletes one message.
    fn delete(&mut self, offset: u64) {
        let which = Which::These(vec![Seq(offset + 1)]);
        let scan = Scan { which, filter: Filter::default(), act: Deed::Delete, count: 1 };
        self.step(vec![ShardInput::Operate { ticket: 1, queue: Q, operation: Operation::Scan(scan) }]);
        self.out.answers.clear();
    }
}

#[test]
fn each_consumer_reads_everything_from_where_it_wants() {
    for mut world in worlds() {
        world.durable_queue(1, stream());
        publish_all(&mut world, 0..5);
        for (consumer, offset, expected) in [
            (1, Value::from("first"), vec!["0", "1", "2", "3", "4", "5"]),
            (2, "last".into(), vec!["4", "5"]),
            (3, "next".into(), vec!["5"]),
            (4, Value::I64(3), vec!["3", "4", "5"]),
            (5, Value::I32(-7), vec!["0", "1", "2", "3", "4", "5"]),
            (6, Value::I64(i64::MAX), vec![]),
            (7, Value::I8(5), vec!["5"]),
        ] {
            world.consume_as(u64::from(consumer), reading(consumer, 100, offset));
            let mut got = bodies_of(&mut world, consumer);
            if consumer == 7 {
                publish_all(&mut world, [5]);
                let found = reads(&mut world);
                for (other, expected) in [(3, 1), (1, 1), (6, 0)] {
                    assert_eq!(found.iter().filter(|read| read.0 == other && read.1 == 5).count(), expected);
                }
                got.extend(found.into_iter().filter(|read| read.0 == 7).map(|read| read.2));
            } else {
                got.extend(expected.iter().filter(|body| **body == "5").map(|body| (*body).to_owned()));
            }
            assert_eq!(got, expected, "consumer {consumer}");
        }
        assert_eq!(world.depths(1), (6, 0));
    }
}

#[test]
fn a_consumer_may_begin_at_a_time() {
    for mut world in worlds() {
        world.durable_queue(1, stream());
        // At 1,000 s, 1,010 s, …
        for number in 0..6 {
            publish_all(&mut world, [number]);
            world.pass(10_000);
        }
        for (consumer, offset, expected) in [
            (1, Value::Timestamp(0), 0..6),
            (2, Value::Timestamp(1020), 2..6),
            (3, Value::Timestamp(1021), 3..6),
            (4, Value::Timestamp(1050), 5..6),
            (5, Value::Timestamp(1051), 6..6),
            (6, "1h".into(), 0..6),
            // It is 1,060 s.
            (7, "20s".into(), 4..6),
        ] {
            world.consume_as(1, reading(consumer, 100, offset));
            let expected: Vec<String> = expected.map(|number| number.to_string()).collect();
            assert_eq!(bodies_of(&mut world, consumer), expected, "consumer {consumer}");
        }
    }
}

#[test]
fn settlements_make_room_and_leave_no_trace() {
    for mut world in worlds() {
        world.durable_queue(1, stream());
        publish_all(&mut world, 0..10);
        world.consume_as(1, reading(1, 3, "first"));
        world.consume_as(2, reading(2, 2, "first"));
        let all = reads(&mut world);
        assert_eq!(all.iter().filter(|read| read.0 == 1).count(), 3);
        let mut own = all.into_iter().filter(|read| read.0 == 2).map(|read| read.3);
        let (first, second) = (own.next().unwrap(), own.next().unwrap());
        world.settle(1, first, Settlement::Ack);
        assert_eq!(reads(&mut world), [], "it is another connection's");
        world.settle(2, first, Settlement::Requeue);
        world.settle(2, second, Settlement::Discard);
        let found = reads(&mut world);
        let found: Vec<_> = found.iter().map(|read| (read.0, read.1)).collect();
        assert_eq!(found, [(2, 2), (2, 3)], "nothing comes twice");
        let last = world.shard.log.last();
        let view = world.view(1);
        assert_eq!((view.ready, view.unacked, view.consumers[0].unacked, view.consumers[1].unacked), (10, 0, 3, 2));
        assert_eq!((view.counters.deliver, view.counters.rejected), (7, 1));
        world.command(1, Command::CloseChannel { call: CallId(70), channel: ChannelId(1) });
        world.settle_down();
        assert_eq!(world.shard.log.last(), last, "nothing was written");
        assert_eq!(world.depths(1), (10, 0));
        world.consume_as(1, reading(9, 100, "first"));
        assert_eq!(bodies_of(&mut world, 9).len(), 10);
    }
}

#[test]
fn nothing_is_delivered_before_it_is_durable() {
    let mut world = World::new();
    world.durable_queue(1, stream());
    world.settle_down();
    world.consume_as(1, reading(1, 10, "first"));
    world.command(9, publish(&[1], "a"));
    assert_eq!(world.bodies(), [""; 0]);
    world.step(vec![]);
    assert_eq!(world.bodies(), ["a"]);
}

#[test]
fn offsets_go_on_after_a_restart_and_everything_is_there() {
    for clean in [false, true] {
        let mut world = World::new();
        world.durable_queue(1, stream());
        publish_all(&mut world, 0..50);
        world.consume_as(1, reading(1, 1000, "first"));
        assert_eq!(bodies_of(&mut world, 1).len(), 50);
        world.settle(1, 1, Settlement::Ack);
        if clean {
            world.step(vec![ShardInput::Close]);
        }
        world.settle_down();
        let mut world = world.restart();
        publish_all(&mut world, 50..60);
        world.consume_as(1, reading(1, 1000, Value::I64(45)));
        let expected: Vec<_> = (45..60).map(|offset| (1, offset, offset.to_string())).collect();
        let found: Vec<_> = reads(&mut world).into_iter().map(|read| (read.0, read.1, read.2)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn what_is_too_old_goes_and_stays_away() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { max_age_ms: Some(60_000), ..stream() });
    for number in 0..10 {
        publish_all(&mut world, [number]);
        world.pass(10_000);
    }
    // It is 100 s, and the message of 40 s is 60 s old, but its second is not over.
    assert_eq!(world.depths(1).0, 6);
    world.pass(1_000);
    assert_eq!((world.depths(1).0, world.view(1).counters.expired), (5, 5));
    assert_eq!(world.shard.deadline(), Some(world.now.ms + 10_000), "nobody has to come along");
    world.settle_down();
    let mut world = world.restart();
    world.now = Now { ms: 102_000, unix_ms: 1_101_500 };
    world.consume_as(1, reading(1, 100, "first"));
    assert_eq!(bodies_of(&mut world, 1), ["5", "6", "7", "8", "9"]);
    world.pass(1_000_000);
    world.settle_down();
    assert_eq!(world.depths(1).0, 0);
    let mut world = world.restart();
    publish_all(&mut world, [10]);
    world.consume_as(1, reading(1, 100, "first"));
    assert_eq!(reads(&mut world)[0].1, 10, "no offset is used twice");
}

#[test]
fn what_is_too_much_goes_in_pieces() {
    for mut world in worlds() {
        world.durable_queue(1, QueueSettings { bytes_max: Some(6400), ..stream() });
        let body = "x".repeat(10);
        let mut dropped = 0;
        for _ in 0..2000 {
            world.command(9, publish(&[1], &body));
            let maxlen = world.view(1).counters.maxlen;
            dropped += u64::from(maxlen != dropped * 11);
            assert_eq!(maxlen, dropped * 11, "11 of 10 bytes make room for 100 and the one too many");
        }
        let (ready, _) = world.depths(1);
        assert!((630..=640).contains(&ready), "{ready}");
        world.settle_down();
        let mut world = world.restart();
        assert_eq!(world.depths(1).0, ready);
        world.consume_as(1, reading(1, 1, "first"));
        assert_eq!(reads(&mut world)[0].1, 2000 - ready);
    }
}

#[test]
fn a_policy_shortens_a_stream_at_once_and_slow_readers_go_on_behind_it() {
    for mut world in worlds() {
        world.durable_queue(1, stream());
        publish_all(&mut world, 0..100);
        world.consume_as(1, reading(1, 1, "first"));
        let first = reads(&mut world).remove(0);
        let mut spec = QueueSpec::clone(&world.shard.queues.iter().next().unwrap().1.spec);
        spec.settings.bytes_max = Some(20);
        world.step(vec![ShardInput::ChangeQueues { specs: vec![Arc::new(spec)] }]);
        assert_eq!(world.depths(1).0, 10);
        let mut handle = first.3;
        let mut offsets = Vec::new();
        for _ in 0..200 {
            world.settle(1, handle, Settlement::Ack);
            let Some(read) = reads(&mut world).pop() else { break };
            offsets.push(read.1);
            assert_eq!(read.2, read.1.to_string());
            handle = read.3;
        }
        assert!(offsets.is_sorted() && offsets.ends_with(&[90, 91, 92, 93, 94, 95, 96, 97, 98, 99]), "{offsets:?}");
    }
}

#[test]
fn only_wanted_messages_are_delivered_to_a_reader_with_a_filter() {
    let filtered = |consumer: u32, filter: Value, unfiltered: bool| {
        let mut consume = reading(consumer, 2, "first");
        consume.arguments.insert("x-stream-filter", filter);
        consume.arguments.insert("x-stream-match-unfiltered", unfiltered);
        consume
    };
    for mut world in worlds() {
        world.durable_queue(1, stream());
        for (body, value) in [("a1", Some("a")), ("b1", Some("b")), ("-", None), ("a2", Some("a")), ("c1", Some("c"))] {
            let headers = value.map(|value| [("x-stream-filter-value", value)].into_iter().collect());
            let list = PropertyList { headers, ..PropertyList::default() };
            world.command(9, Command::Publish(publication(&[1], body, &list)));
        }
        world.settle_down();
        world.consume_as(1, filtered(1, "a".into(), false));
        assert_eq!(bodies_of(&mut world, 1), ["a1", "a2"]);
        world.consume_as(2, filtered(2, Value::Array(vec!["c".into(), Value::I32(1), "b".into()]), false));
        assert_eq!(bodies_of(&mut world, 2), ["b1", "c1"]);
        world.consume_as(3, filtered(3, "b".into(), true));
        assert_eq!(bodies_of(&mut world, 3), ["b1", "-"]);
    }
}

#[test]
fn what_streams_do_not_have_is_refused_in_rabbitmqs_words() {
    let mut world = World::new();
    world.durable_queue(1, stream());
    world.durable_queue(2, QueueSettings::default());
    let with = |key: &str, value: Value| {
        let mut consume = reading(1, 1, "first");
        consume.arguments.insert(key, value);
        consume
    };
    let invalid = "invalid arg 'x-stream-offset' for queue 'q1' in vhost '/'";
    for (consume, code, text) in [
        (
            Consume { prefetch: 0, ..reading(1, 1, "first") },
            ReplyCode::PreconditionFailed,
            "consumer prefetch count is not set for stream queue 'q1' in vhost '/'".to_owned(),
        ),
        (
            Consume { no_ack: true, ..reading(1, 1, "first") },
            ReplyCode::NotImplemented,
            "automatic acknowledgement not supported by stream queue 'q1' in vhost '/'".to_owned(),
        ),
        (
            with("x-priority", Value::I32(1)),
            ReplyCode::PreconditionFailed,
            "invalid arg 'x-priority' for queue 'q1' in vhost '/' of queue type rabbit_stream_queue".to_owned(),
        ),
        (
            Consume { queue: QueueId(2), ..reading(1, 1, "first") },
            ReplyCode::PreconditionFailed,
            "invalid arg 'x-stream-offset' for queue 'q2' in vhost '/' of queue type rabbit_classic_queue".to_owned(),
        ),
        (
            reading(1, 1, "3"),
            ReplyCode::PreconditionFailed,
            format!("{invalid}: {{invalid_stream_offset_arg,{{longstr,<<\"3\">>}}}}"),
        ),
        (
            reading(1, 1, true),
            ReplyCode::PreconditionFailed,
            format!("{invalid}: {{invalid_stream_offset_arg,{{bool,true}}}}"),
        ),
    ] {
        let Outcome::Fault(fault) = world.try_consume(1, consume) else { panic!("{text}") };
        assert_eq!((fault.code, fault.text), (code, text));
    }
    world.command(1, Command::ChannelLimit { channel: ChannelId(1), limit: 5 });
    let Outcome::Fault(fault) = world.try_consume(1, reading(1, 1, "first")) else { panic!("a limit for all") };
    assert_eq!(fault.text, "queue 'q1' in vhost '/' does not support global qos");
    let channel = ChannelId(1);
    let get = world.ask(1, |call| Command::Get { call, channel, queue: Q, no_ack: false });
    let Outcome::Fault(fault) = get else { panic!("{get:?}") };
    let text = "basic.get not supported by stream queues queue 'q1' in vhost '/'";
    assert_eq!((fault.code, fault.text.as_str()), (ReplyCode::NotImplemented, text));
    let purge = world.ask(1, |call| Command::Purge { call, queue: Q });
    let Outcome::Fault(fault) = purge else { panic!("{purge:?}") };
    let text = "queue.purge not supported by stream queues queue 'q1' in vhost '/'";
    assert_eq!((fault.code, fault.text.as_str()), (ReplyCode::NotImplemented, text));
}

#[test]
fn time_to_live_delay_and_delivery_mode_mean_nothing_to_a_stream() {
    let mut world = World::new();
    world.durable_queue(1, stream());
    let headers = Some([("x-delay", Value::I32(60_000))].into_iter().collect());
    let list = PropertyList { expiration: Some(b"1".to_vec()), priority: Some(9), headers, ..PropertyList::default() };
    world.command(9, Command::Publish(publication(&[1], "a", &list)));
    world.pass(100_000);
    world.settle_down();
    let mut world = world.restart();
    world.consume_as(1, reading(1, 10, "first"));
    assert_eq!(bodies_of(&mut world, 1), ["a"]);
}

#[test]
fn a_stream_that_is_read_and_deleted_leaves_nothing() {
    let mut world = World::new();
    world.durable_queue(1, stream());
    publish_all(&mut world, 0..100);
    world.consume_as(1, reading(1, 10, "first"));
    reads(&mut world);
    let (queue, ticket) = (Q, CatalogTicket(1));
    world.step(vec![ShardInput::DeleteQueue { queue, if_unused: false, if_empty: false, ticket }]);
    world.settle_down();
    assert!(world.shard.queue_slots.is_empty());
    assert_eq!((world.shard.near_bytes, world.shard.reading_bytes), (0, 0));
    assert!(world.shard.log.log_bytes() < 4096, "its segments are gone");
}

#[test]
fn what_went_is_not_delivered_from_memory_either() {
    let mut world = World::new();
    world.durable_queue(1, stream());
    world.consume_as(1, reading(1, 100, "next"));
    publish_all(&mut world, 0..20);
    assert_eq!(bodies_of(&mut world, 1).len(), 20);
    let mut spec = QueueSpec::clone(&world.shard.queues.iter().next().unwrap().1.spec);
    spec.settings.bytes_max = Some(20);
    world.step(vec![ShardInput::ChangeQueues { specs: vec![Arc::new(spec)] }]);
    world.consume_as(2, reading(2, 100, Value::I32(3)));
    assert_eq!(bodies_of(&mut world, 2), (10..20).map(|number| number.to_string()).collect::<Vec<_>>());
    world.delete(15);
    world.consume_as(3, reading(3, 100, Value::I32(3)));
    assert_eq!(bodies_of(&mut world, 3), ["10", "11", "12", "13", "14", "16", "17", "18", "19"]);
}

#[test]
fn a_message_that_was_written_elsewhere_while_it_was_read_is_not_passed_over() {
    let mut world = World::without_room();
    world.durable_queue(1, stream());
    publish_all(&mut world, 0..3);
    let call = CallId(90);
    let consume = Command::Consume(Box::new(Consume { call, ..reading(1, 10, "first") }));
    let batch = Batch { connection: ConnectionId(1), commands: vec![consume] };
    world.shard.step(world.now, &mut vec![ShardInput::Batch(batch)], &world.topology, &mut world.out);
    let tickets: Vec<u64> = world.shard.readings.keys().copied().collect();
    let Some(Reading::Stream { queue, reader, bytes, .. }) = world.shard.readings.remove(&tickets[0]) else { panic!() };
    world.shard.reading_bytes -= bytes;
    // The first one's record is gone by the time of the answer, and the second one's is not.
    let slot = world.shard.queue_slots[&Q];
    let runs: Vec<_> = world.shard.queues[slot].ready.runs();
    let second = runs.iter().find_map(|run| run.message(Seq(2))).unwrap();
    let Command::Publish(Publish { message, .. }) = publish(&[1], "1") else { panic!() };
    world.shard.hear_stream(queue, reader, &runs, vec![(second.lsn, message.bytes().clone())]);
    assert_eq!(bodies_of(&mut world, 1), ["0", "1", "2"]);
}

#[test]
fn a_clock_that_goes_back_leaves_times_in_order() {
    let mut world = World::new();
    world.durable_queue(1, stream());
    for (number, unix_ms) in [5_000_000, 3_000_000, 5_001_000, 4_000_000, 6_000_000].into_iter().enumerate() {
        world.now.unix_ms = unix_ms;
        publish_all(&mut world, [number]);
    }
    world.settle_down();
    let mut world = world.restart();
    world.now.unix_ms = 2_000_000;
    publish_all(&mut world, [5]);
    for (consumer, seconds, first) in [(1, 5000, 0), (2, 5001, 2), (3, 5500, 4), (4, 6000, 4), (5, 6001, 6)] {
        world.consume_as(1, reading(consumer, 100, Value::Timestamp(seconds)));
        let expected: Vec<String> = (first..6).map(|number: i32| number.to_string()).collect();
        assert_eq!(bodies_of(&mut world, consumer), expected, "from {seconds}");
    }
}

#[test]
fn a_million_messages_take_little_memory() {
    let mut world = World::over(MemoryStore::with_segments_of(1 << 20), ShardSettings::default());
    world.durable_queue(1, stream());
    for _ in 0..100 {
        world.commands(9, (0..10_000).map(|_| publish(&[1], "0123456789abcdef")).collect());
        world.pass(100);
    }
    let view = world.view(1);
    assert_eq!(view.ready, 1_000_000);
    assert!(view.memory < 8192, "{} bytes", view.memory);
}

/// What a reader of the model must get next, at the least; `usize` of what it has not settled.
#[derive(Debug)]
struct Reader {
    next: u64,
    prefetch: usize,
    held: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Act {
    Publish(u8),
    Consume { offset: u8, prefetch: u32 },
    Settle { which: u8, count: u8, how: u8 },
    Cancel(u8),
    Pass(u16),
    Delete(u8),
    Restart,
    Crash(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1_u8..40).prop_map(Act::Publish),
        3 => (any::<u8>(), 1_u32..20).prop_map(|(offset, prefetch)| Act::Consume { offset, prefetch }),
        8 => (any::<u8>(), 1_u8..20, 0_u8..3).prop_map(|(which, count, how)| Act::Settle { which, count, how }),
        1 => any::<u8>().prop_map(Act::Cancel),
        2 => (0_u16..5000).prop_map(Act::Pass),
        1 => any::<u8>().prop_map(Act::Delete),
        1 => Just(Act::Restart),
        2 => (0_u8..20).prop_map(Act::Crash),
    ]
}

/// Messages by offset with their bodies, and what readers got, beside the shard.
struct Model {
    messages: BTreeMap<u64, String>,
    /// The same, and what was dropped.
    ever: BTreeMap<u64, String>,
    end: u64,
    /// No offset that was delivered is this or higher.
    seen: u64,
    crashes: u32,
    readers: BTreeMap<u32, Reader>,
    last_reader: u32,
}

impl Model {
    fn first(&self) -> u64 {
        self.messages.first_key_value().map_or(self.end, |(offset, _)| *offset)
    }

    /// Takes what was delivered, and checks that nobody missed anything.
    fn check(&mut self, world: &mut World) {
        let kept = world.view(1).ready as usize;
        while self.messages.len() > kept {
            self.messages.pop_first();
        }
        assert_eq!(self.messages.len(), kept);
        for (consumer, offset, body, handle) in reads(world) {
            let reader = self.readers.get_mut(&consumer).expect("it reads");
            assert!(offset >= reader.next, "offset {offset} again");
            assert_eq!(self.ever.get(&offset), Some(&body), "offset {offset}");
            self.seen = self.seen.max(offset + 1);
            assert!(self.messages.range(reader.next..offset).next().is_none(), "passed over before {offset}");
            reader.next = offset + 1;
            reader.held.push(handle);
            assert!(reader.held.len() <= reader.prefetch);
        }
        for (consumer, reader) in &self.readers {
            let is_full = reader.held.len() == reader.prefetch;
            let is_left = self.messages.range(reader.next..).next().is_some();
            assert!(
                is_full || !is_left,
                "consumer {consumer} waits at {} with {:?}",
                reader.next,
                self.messages.keys()
            );
        }
    }

    fn publish(&mut self, world: &mut World, count: u8) {
        // After a crash other messages may have the offsets of those that were lost.
        let body = |offset: u64| format!("{offset} {} {}", self.crashes, "x".repeat(offset as usize % 7));
        let new: Vec<_> = (self.end..self.end + u64::from(count)).map(|offset| (offset, body(offset))).collect();
        world.commands(9, new.iter().map(|(_, body)| publish(&[1], body)).collect());
        self.end += u64::from(count);
        self.ever.extend(new.clone());
        self.messages.extend(new);
    }

    fn apply(&mut self, act: Act, mut world: World) -> World {
        match act {
            Act::Publish(count) => self.publish(&mut world, count),
            Act::Consume { offset, prefetch } => {
                self.last_reader += 1;
                let (offset, next) = match offset {
                    0..60 => (Value::from("first"), self.first()),
                    60..100 => ("next".into(), self.end),
                    100..120 => ("last".into(), self.messages.last_key_value().map_or(self.end, |(last, _)| *last)),
                    _ => (Value::I64(offset.into()), offset.into()),
                };
                world.consume_as(u64::from(self.last_reader), reading(self.last_reader, prefetch, offset));
                let held = Vec::new();
                self.readers.insert(self.last_reader, Reader { next, prefetch: prefetch as usize, held });
            }
            Act::Settle { which, count, how } => {
                let which = self.readers.keys().nth(usize::from(which) % self.readers.len().max(1)).copied();
                if let Some(consumer) = which {
                    let held = &mut self.readers.get_mut(&consumer).unwrap().held;
                    let count = usize::from(count).min(held.len());
                    let how = [Settlement::Ack, Settlement::Requeue, Settlement::Discard][usize::from(how)];
                    let commands = held.drain(..count).map(|handle| settle(1, handle, how)).collect();
                    world.commands(u64::from(consumer), commands);
                }
            }
            Act::Cancel(which) => {
                let which = self.readers.keys().nth(usize::from(which) % self.readers.len().max(1)).copied();
                if let Some(consumer) = which {
                    self.readers.remove(&consumer);
                    let number = ConsumerNumber(consumer);
                    world.ask(u64::from(consumer), |call| Command::Cancel { call, queue: Q, consumer: number });
                }
            }
            Act::Pass(ms) => world.pass(ms.into()),
            Act::Delete(which) => {
                let which = self.messages.keys().nth(usize::from(which)).copied();
                if let Some(offset) = which {
                    self.messages.remove(&offset);
                    world.delete(offset);
                }
            }
            Act::Restart => {
                world.settle_down();
                let now = world.now;
                self.readers.clear();
                world = world.restart();
                world.now = now;
                world.settle_down();
            }
            Act::Crash(count) => {
                self.publish(&mut world, count);
                for (_, offset, body, _) in taken(&mut world) {
                    assert_eq!(self.ever.get(&offset), Some(&body), "offset {offset}");
                    self.seen = self.seen.max(offset + 1);
                }
                world = self.crash(world);
            }
        }
        self.check(&mut world);
        world
    }

    /// What was not durable yet is gone, as if it never was.
    fn crash(&mut self, world: World) -> World {
        let now = world.now;
        let mut world = world.restart();
        world.now = now;
        self.crashes += 1;
        self.readers.clear();
        self.end = world.shard.queues[world.shard.queue_slots[&Q]].next_seq().0 - 1;
        assert!(self.end >= self.seen, "what was delivered is there, or was dropped");
        self.messages.retain(|offset, _| *offset < self.end);
        self.ever.retain(|offset, _| *offset < self.end);
        world.consume_as(1, reading(u32::MAX, 10_000, "first"));
        let found: BTreeMap<u64, String> = reads(&mut world).into_iter().map(|read| (read.1, read.2)).collect();
        for (offset, body) in &found {
            assert_eq!(self.ever.get(offset), Some(body), "offset {offset} after a crash");
        }
        let lost = self.messages.keys().find(|offset| !found.contains_key(offset));
        // By its age or length.
        assert!(lost.is_none() || found.first_key_value().is_none_or(|(first, _)| lost < Some(first)), "{lost:?}");
        self.messages = found;
        let number = ConsumerNumber(u32::MAX);
        world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: number });
        world
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_reader_misses_anything_that_is_there(
        acts in proptest::collection::vec(act(), 1..60),
        is_short in any::<bool>(),
        bytes_max in proptest::option::of(50_u64..2000),
        max_age_ms in proptest::option::of((1_u64..20).prop_map(|s| s * 1000)),
    ) {
        let mut world = if is_short { World::without_room() } else { World::new() };
        world.durable_queue(1, QueueSettings { bytes_max, max_age_ms, ..stream() });
        world.settle_down();
        let mut model = Model {
            messages: BTreeMap::new(),
            ever: BTreeMap::new(),
            end: 0,
            seen: 0,
            crashes: 0,
            readers: BTreeMap::new(),
            last_reader: 0,
        };
        for act in acts {
            world = model.apply(act, world);
        }
    }
}
