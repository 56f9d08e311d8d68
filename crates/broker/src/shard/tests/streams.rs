//! Streams: every consumer reads all there is from where it wants; what was delivered is never another message.

mod model;

use super::*;
use crate::operation::{Act as Deed, Filter, Operation, Scan, Target, Which};
use crate::shard::read::Reading;
use amqp::{ReplyCode, Value};

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
            let ConnectionEvent::Deliver(delivery) = event else { continue };
            assert!(!delivery.redelivered && !delivery.no_ack);
            let body = String::from_utf8(delivery.message.body().to_vec()).unwrap();
            all.push((delivery.consumer.0, delivery.offset().unwrap(), body, delivery.seq.0));
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
fn an_operator_may_pause_a_stream_and_move_messages_out_and_in() {
    for mut world in worlds() {
        world.durable_queue(1, stream());
        world.durable_queue(2, QueueSettings::default());
        publish_all(&mut world, 0..5);
        world.command(9, persistent(&[2], "other"));
        let moved = |which, queue: &str| {
            let (filter, act) = (Filter::default(), Deed::Move(Target::Queue(queue.to_owned())));
            Operation::Scan(Scan { which, filter, act, count: 5 })
        };
        let out = moved(Which::These(vec![Seq(2), Seq(4)]), "q2");
        world.step(vec![ShardInput::Operate { ticket: 1, queue: Q, operation: out }]);
        world.settle_down();
        let into = moved(Which::These(vec![Seq(1)]), "q1");
        world.step(vec![ShardInput::Operate { ticket: 2, queue: QueueId(2), operation: into }]);
        world.step(vec![ShardInput::Operate { ticket: 3, queue: Q, operation: Operation::Pause }]);
        world.consume_as(1, reading(1, 100, "first"));
        assert_eq!(reads(&mut world), [], "it is paused");
        world.step(vec![ShardInput::Operate { ticket: 4, queue: Q, operation: Operation::Resume }]);
        let found: Vec<_> = reads(&mut world).into_iter().map(|read| (read.1, read.2)).collect();
        let expected = [(0, "0"), (2, "2"), (4, "4"), (5, "other")].map(|(offset, body)| (offset, body.to_owned()));
        assert_eq!(found, expected);
        assert_eq!(world.drain(2), ["1", "3"]);
        world.settle_down();
        assert_eq!(world.restart().depths(1), (4, 0));
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
