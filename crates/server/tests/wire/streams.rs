//! Streams over AMQP 0-9-1 as a client sees them.

use super::real_client::*;
use super::*;
use broker::policy::{AppliesTo, PolicyKind};
use futures_lite::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions, QueueDeclareOptions};
use lapin::types::AMQPValue;

fn stream(more: &[(&'static str, AMQPValue)]) -> Vec<(&'static str, AMQPValue)> {
    [&[("x-queue-type", text("stream"))], more].concat()
}

/// Consumes on a channel of its own.
async fn read(server: &Server, queue: &str, prefetch: u16, arguments: &[(&str, AMQPValue)]) -> Consumer {
    let channel = open(server).await;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, table(arguments)).await.unwrap()
}

async fn read_from(server: &Server, queue: &str, offset: AMQPValue) -> Consumer {
    read(server, queue, 100, &[("x-stream-offset", offset)]).await
}

/// Gets the messages of these offsets, whose bodies are their offsets.
async fn expect(consumer: &mut Consumer, offsets: std::ops::Range<i64>) {
    for offset in offsets {
        let delivery = next(consumer).await;
        assert_eq!(header(&delivery.properties, "x-stream-offset"), Some(offset));
        assert_eq!(body(&delivery), offset.to_string());
        assert!(!delivery.redelivered);
        delivery.acker.ack(Default::default()).await.unwrap();
    }
}

async fn publish_numbers(channel: &Channel, queue: &str, numbers: std::ops::Range<i64>) {
    for number in numbers {
        publish(channel, ("", queue), &number.to_string(), Default::default()).await;
    }
}

#[tokio::test]
async fn consumers_begin_at_every_offset_and_each_gets_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "log", &stream(&[])).await;
    publish_numbers(&channel, "log", 0..10).await;
    let mut next_only = read_from(&server, "log", text("next")).await;
    let mut by_default = read(&server, "log", 100, &[]).await;
    let mut future = read_from(&server, "log", AMQPValue::LongInt(12)).await;
    for (offset, first) in [
        (text("first"), 0),
        (text("last"), 9),
        (AMQPValue::LongLongInt(4), 4),
        (AMQPValue::Timestamp(0), 0),
        (text("1h"), 0),
    ] {
        expect(&mut read_from(&server, "log", offset).await, first..10).await;
    }
    let far_ahead = AMQPValue::Timestamp(u64::from(u32::MAX));
    let mut later = read_from(&server, "log", far_ahead).await;
    publish_numbers(&channel, "log", 10..14).await;
    for consumer in [&mut next_only, &mut by_default, &mut later] {
        expect(consumer, 10..14).await;
    }
    expect(&mut future, 12..14).await;
    let (mut one, mut other) =
        (read_from(&server, "log", text("first")).await, read_from(&server, "log", text("first")).await);
    let ((), ()) = tokio::join!(expect(&mut one, 0..14), expect(&mut other, 0..14));
    assert_eq!(places(&server, "log").await, (14, 0, 0));
}

#[tokio::test]
async fn settlements_only_make_room() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "log", &stream(&[])).await;
    publish_numbers(&channel, "log", 0..6).await;
    let mut consumer = read(&server, "log", 2, &[("x-stream-offset", text("first"))]).await;
    let (zero, one) = (next(&mut consumer).await, next(&mut consumer).await);
    let view = server.board().inspect_queues().await.unwrap().remove(0);
    assert_eq!(view.consumers[0].unacked, 2, "no more than it asked for");
    zero.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    let two = next(&mut consumer).await;
    assert_eq!(body(&two), "2", "nothing comes back");
    one.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    let three = next(&mut consumer).await;
    three.acker.nack(BasicNackOptions { requeue: false, multiple: true }).await.unwrap();
    assert_eq!([body(&next(&mut consumer).await), body(&next(&mut consumer).await)], ["4", "5"]);
    assert_eq!(places(&server, "log").await, (6, 0, 0));
}

#[tokio::test]
async fn a_stream_is_as_it_was_after_a_kill_and_after_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "log", &stream(&[])).await;
    publish_numbers(&channel, "log", 0..20).await;
    expect(&mut read_from(&server, "log", text("first")).await, 0..20).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open_confirming(&server).await;
        declare(&channel, "log", &stream(&[])).await;
        publish_numbers(&channel, "log", 20..22).await;
        expect(&mut read_from(&server, "log", text("first")).await, 0..22).await;
        expect(&mut read_from(&server, "log", text("1h")).await, 0..22).await;
    }
}

#[tokio::test]
async fn a_stream_keeps_to_its_length_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "log", &stream(&[("x-max-length-bytes", AMQPValue::LongInt(100))])).await;
    publish_numbers(&channel, "log", 1000..1100).await;
    let kept = places(&server, "log").await.0;
    assert!((24..=25).contains(&kept), "{kept} of 4 bytes");
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        assert_eq!(places(&server, "log").await.0, kept);
        let first = next(&mut read_from(&server, "log", AMQPValue::LongInt(3)).await).await;
        assert_eq!(header(&first.properties, "x-stream-offset"), Some(100 - kept as i64), "the first there is");
    }
}

#[tokio::test]
async fn what_is_old_goes_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "log", &stream(&[("x-max-age", text("1s"))])).await;
    publish_numbers(&channel, "log", 0..5).await;
    eventually_places(&server, "log", (0, 0, 0)).await;
    publish_numbers(&channel, "log", 5..6).await;
    expect(&mut read_from(&server, "log", text("first")).await, 5..6).await;
}

async fn publish_filtered(channel: &Channel, body: &str, value: Option<&str>) {
    let headers = value.map(|value| table(&[("x-stream-filter-value", text(value))]));
    let properties = headers.map(|headers| lapin::BasicProperties::default().with_headers(headers));
    publish(channel, ("", "log"), body, properties.unwrap_or_default()).await;
}

#[tokio::test]
async fn a_filter_lets_through_what_it_names_after_a_stop_and_a_kill_too() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "log", &stream(&[])).await;
    for (body, value) in [("0", Some("eu")), ("1", Some("us")), ("2", None), ("3", Some("eu")), ("4", Some("asia"))] {
        publish_filtered(&channel, body, value).await;
    }
    let (_remains, [killed, stopped]) = killed_and_stopped(server, directory.path()).await;
    let several = |values: &[&str]| {
        let values: Vec<AMQPValue> = values.iter().map(|value| text(value)).collect();
        AMQPValue::FieldArray(values.into())
    };
    for server in [killed, stopped] {
        let mut readers = Vec::new();
        for (filter, unfiltered, expected) in
            [(text("eu"), false, "035"), (text("eu"), true, "0235"), (several(&["us", "asia"]), false, "146")]
        {
            let arguments = [
                ("x-stream-offset", text("first")),
                ("x-stream-filter", filter),
                ("x-stream-match-unfiltered", AMQPValue::Boolean(unfiltered)),
            ];
            readers.push((read(&server, "log", 100, &arguments).await, expected));
        }
        let channel = open_confirming(&server).await;
        for (body, value) in [("5", "eu"), ("6", "us")] {
            publish_filtered(&channel, body, Some(value)).await;
        }
        for (mut consumer, expected) in readers {
            for expected in expected.chars().map(String::from) {
                let delivery = next(&mut consumer).await;
                assert_eq!(body(&delivery), expected);
                assert_eq!(header(&delivery.properties, "x-stream-offset"), Some(expected.parse().unwrap()));
            }
        }
    }
}

/// Waits until it is another second, and tells which.
async fn next_second() -> u64 {
    let second = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let before = second();
    eventually("the clock goes on", || second() > before).await;
    second()
}

#[tokio::test]
async fn a_timestamp_begins_in_its_second_or_at_the_first_that_retention_left_after_a_stop_and_a_kill_too() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "log", &stream(&[])).await;
    let mut seconds = Vec::new();
    for first in [10, 20, 30] {
        seconds.push(next_second().await);
        publish_numbers(&channel, "log", first..first + 10).await;
    }
    let begins = async |server: &Server, second: u64| {
        let delivery = next(&mut read_from(server, "log", AMQPValue::Timestamp(second)).await).await;
        (header(&delivery.properties, "x-stream-offset").unwrap(), body(&delivery).to_owned())
    };
    for (second, offset, body) in [(seconds[0] - 60, 0, "10"), (seconds[0], 0, "10"), (seconds[2], 20, "30")] {
        assert_eq!(begins(&server, second).await, (offset, body.to_owned()));
    }
    // The policy lets the older half go, from the middle of what came in the second of the seconds.
    set_policy(&server, PolicyKind::User, AppliesTo::All, ("short", "^log$"), &[("max-length-bytes", 30.into())]).await;
    eventually_places(&server, "log", (15, 0, 0)).await;
    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    for server in [&server, &killed] {
        for (second, offset, body) in [(seconds[0], 15, "25"), (seconds[1], 15, "25"), (seconds[2], 20, "30")] {
            assert_eq!(begins(server, second).await, (offset, body.to_owned()));
        }
    }
    server.stop().await.unwrap();
    let (server, _) = start(directory.path()).await;
    assert_eq!(begins(&server, seconds[1]).await, (15, "25".to_owned()));
    // A stream has no time after which it goes, nor have its messages but by age.
    let more = [("expires", 1.into()), ("message-ttl", 1.into()), ("max-length", 0.into()), ("max-age", "1s".into())];
    set_policy(&server, PolicyKind::User, AppliesTo::All, ("short", "^log$"), &more[..3]).await;
    next_second().await;
    assert_eq!(places(&server, "log").await, (15, 0, 0));
    set_policy(&server, PolicyKind::User, AppliesTo::All, ("short", "^log$"), &more).await;
    eventually_places(&server, "log", (0, 0, 0)).await;
}

#[tokio::test]
async fn readers_far_apart_are_served_from_disk() {
    const COUNT: i64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open(&server).await;
    declare(&channel, "log", &stream(&[])).await;
    // An own header stays, and one that another stream gave is replaced.
    let headers = table(&[("x-stream-offset", AMQPValue::LongLongInt(-1)), ("kind", text("task"))]);
    let properties = lapin::BasicProperties::default().with_headers(headers);
    for number in 0..COUNT {
        let body = format!("{number:0100}");
        let (exchange, options) = ("".into(), Default::default());
        channel.basic_publish(exchange, "log".into(), options, body.as_bytes(), properties.clone()).await.unwrap();
    }
    let readers = [0, 0, 7_000, 19_000].map(|from| {
        let server = &server;
        async move {
            let mut consumer = read_from(server, "log", AMQPValue::LongLongInt(from)).await;
            for offset in from..COUNT {
                let delivery = next(&mut consumer).await;
                assert_eq!(header(&delivery.properties, "x-stream-offset"), Some(offset));
                assert_eq!(delivery.properties.headers().as_ref().unwrap().inner().len(), 2);
                assert_eq!(body(&delivery), format!("{offset:0100}"));
                if offset % 50 == 49 {
                    let options = lapin::options::BasicAckOptions { multiple: true };
                    delivery.acker.ack(options).await.unwrap();
                }
            }
        }
    });
    let [one, two, three, four] = readers;
    tokio::join!(one, two, three, four);
}

#[tokio::test]
async fn what_a_stream_cannot_do_is_refused_in_rabbitmqs_words() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    declare(&open(&server).await, "log", &stream(&[])).await;
    declare(&open(&server).await, "tasks", &[]).await;
    let q = "queue 'log' in vhost '/'";
    for (options, arguments, expected) in [
        (
            QueueDeclareOptions { durable: false, ..Default::default() },
            stream(&[]),
            "invalid property 'non-durable' for queue 'new' in vhost '/'",
        ),
        (
            QueueDeclareOptions { durable: true, exclusive: true, ..Default::default() },
            stream(&[]),
            "invalid property 'exclusive-owner' for queue 'new' in vhost '/'",
        ),
        (
            QueueDeclareOptions { durable: true, auto_delete: true, ..Default::default() },
            stream(&[]),
            "invalid property 'auto-delete' for queue 'new' in vhost '/'",
        ),
        (
            QueueDeclareOptions { durable: true, ..Default::default() },
            stream(&[("x-max-age", text("5 days"))]),
            "invalid arg 'x-max-age' for queue 'new' in vhost '/': invalid_max_age",
        ),
        (
            QueueDeclareOptions { durable: true, ..Default::default() },
            stream(&[("x-max-length", AMQPValue::LongInt(5))]),
            "invalid arg 'x-max-length' for queue 'new' in vhost '/' of queue type rabbit_stream_queue",
        ),
        (
            QueueDeclareOptions { durable: true, ..Default::default() },
            stream(&[("x-expires", AMQPValue::LongInt(5))]),
            "invalid arg 'x-expires' for queue 'new' in vhost '/' of queue type rabbit_stream_queue",
        ),
    ] {
        let refused = open(&server).await.queue_declare("new".into(), options, table(&arguments)).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("PRECONDITION_FAILED - {expected}")), "{refused}");
    }
    let first = ("x-stream-offset", text("first"));
    for (queue, prefetch, global, no_ack, argument, expected) in [
        (
            "log",
            0,
            false,
            false,
            &first,
            format!("PRECONDITION_FAILED - consumer prefetch count is not set for stream {q}"),
        ),
        (
            "log",
            9,
            false,
            true,
            &first,
            format!("NOT_IMPLEMENTED - automatic acknowledgement not supported by stream {q}"),
        ),
        (
            "log",
            9,
            false,
            false,
            &("x-stream-offset", text("soon")),
            format!(
                "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for {q}: \
                 {{invalid_stream_offset_arg,{{longstr,<<\"soon\">>}}}}"
            ),
        ),
        (
            "log",
            9,
            false,
            false,
            &("x-priority", AMQPValue::LongInt(1)),
            format!("PRECONDITION_FAILED - invalid arg 'x-priority' for {q} of queue type rabbit_stream_queue"),
        ),
        (
            "tasks",
            9,
            false,
            false,
            &first,
            "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 'tasks' in vhost '/' of queue type \
             rabbit_classic_queue"
                .to_owned(),
        ),
        ("log", 9, true, false, &first, format!("NOT_IMPLEMENTED - {q} does not support global qos")),
    ] {
        let channel = open(&server).await;
        channel.basic_qos(prefetch, BasicQosOptions { global: false }).await.unwrap();
        if global {
            channel.basic_qos(9, BasicQosOptions { global }).await.unwrap();
        }
        let options = BasicConsumeOptions { no_ack, ..Default::default() };
        let arguments = table(std::slice::from_ref(argument));
        let refused = channel.basic_consume(queue.into(), "".into(), options, arguments).await.unwrap_err();
        assert!(refused.to_string().contains(&expected), "{refused}, and not {expected}");
    }
    let refused = open(&server).await.basic_get("log".into(), Default::default()).await.unwrap_err().to_string();
    let expected = format!("NOT_IMPLEMENTED - basic.get not supported by stream queues {q}");
    assert!(refused.contains(&expected), "{refused}");
    let refused = open(&server).await.queue_purge("log".into(), Default::default()).await.unwrap_err().to_string();
    let expected = format!("NOT_IMPLEMENTED - queue.purge not supported by stream queues {q}");
    assert!(refused.contains(&expected), "{refused}");
}

#[tokio::test]
async fn a_stream_can_be_deleted_under_its_readers() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "log", &stream(&[])).await;
    publish_numbers(&channel, "log", 0..3).await;
    let mut consumer = read_from(&server, "log", text("first")).await;
    expect(&mut consumer, 0..3).await;
    assert_eq!(channel.queue_delete("log".into(), Default::default()).await.unwrap(), 3);
    assert!(timeout(Duration::from_secs(10), consumer.next()).await.unwrap().is_none(), "it is cancelled");
    declare(&channel, "log", &stream(&[])).await;
    publish_numbers(&channel, "log", 0..1).await;
    expect(&mut read_from(&server, "log", text("first")).await, 0..1).await;
}
