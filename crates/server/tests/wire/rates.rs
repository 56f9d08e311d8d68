//! Rates and limits of what is in flight, as clients see them.

use super::*;
use crate::real_client::{
    body, consume, declare, eventually_places, get, killed_and_stopped, next, open, open_confirming, publish, table,
    text,
};
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

#[tokio::test]
async fn deliveries_keep_to_the_rate_however_many_workers_there_are() {
    const PER_SECOND: u32 = 200;
    const MESSAGES: u32 = 200;
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let producer = open_confirming(&server).await;
    declare(&producer, "jobs", &[("x-rate-limit", AMQPValue::LongInt(PER_SECOND as i32))]).await;
    for _ in 0..MESSAGES {
        publish(&producer, ("", "jobs"), "x", BasicProperties::default()).await;
    }
    let began = Instant::now();
    let (one, two) = (open(&server).await, open(&server).await);
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut first = one.basic_consume("jobs".into(), "".into(), options, FieldTable::default()).await.unwrap();
    let mut second = consume(&two, "jobs").await;
    for _ in 0..MESSAGES {
        tokio::select! { _ = next(&mut first) => {}, _ = next(&mut second) => {} }
    }
    // All but what is a burst at the beginning; how late the last one may be is the machine's business.
    let least = Duration::from_millis(u64::from((MESSAGES - 1) * 1000 / PER_SECOND) - 51);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_get_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "jobs", &[("x-rate-limit", text("2/h"))]).await;
    for body in ["1", "2"] {
        publish(&channel, ("", "jobs"), body, BasicProperties::default()).await;
    }
    assert_eq!(get(&channel, "jobs").await.unwrap().data, b"1");
    assert!(get(&channel, "jobs").await.is_none(), "the next one is due in half an hour");
}

#[tokio::test]
async fn no_more_than_so_many_are_in_flight_over_all_workers() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let producer = open_confirming(&server).await;
    declare(&producer, "jobs", &[("x-max-in-flight", AMQPValue::LongInt(2))]).await;
    for body in ["1", "2", "3", "4"] {
        publish(&producer, ("", "jobs"), body, BasicProperties::default()).await;
    }
    let (one, two) = (open(&server).await, open(&server).await);
    let (mut first, mut second) = (consume(&one, "jobs").await, consume(&two, "jobs").await);
    let held = next(&mut first).await;
    assert_eq!(body(&held), "1");
    let other = tokio::select! { got = next(&mut first) => got, got = next(&mut second) => got };
    assert!(producer.basic_get("jobs".into(), BasicGetOptions::default()).await.unwrap().is_none());
    other.ack(BasicAckOptions::default()).await.unwrap();
    let third = tokio::select! { got = next(&mut first) => got, got = next(&mut second) => got };
    assert_eq!(body(&third), "3");
    held.ack(BasicAckOptions::default()).await.unwrap();
    let last = tokio::select! { got = next(&mut first) => got, got = next(&mut second) => got };
    assert_eq!(body(&last), "4");
}

#[tokio::test]
async fn limits_hold_again_after_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let limits = [("x-max-in-flight", AMQPValue::LongInt(1)), ("x-rate-limit", text("600/m"))];
    declare(&channel, "jobs", &limits).await;
    for body in ["1", "2"] {
        publish(&channel, ("", "jobs"), body, BasicProperties::default()).await;
    }
    server.stop().await.unwrap();
    let (server, _address) = start(directory.path()).await;
    let channel = open(&server).await;
    declare(&channel, "jobs", &limits).await;
    let mut consumer = consume(&channel, "jobs").await;
    assert_eq!(body(&next(&mut consumer).await), "1");
    assert!(get(&channel, "jobs").await.is_none());
}

/// Publishes `a1` of the key `a`, and so on.
async fn publish_keyed(server: &Server, bodies: &[&str]) {
    let channel = open_confirming(server).await;
    for body in bodies {
        let properties = BasicProperties::default().with_headers(table(&[("tenant", text(&body[..1]))]));
        publish(&channel, ("", "jobs"), body, properties).await;
    }
}

#[tokio::test]
async fn keys_keep_to_what_may_be_in_flight_when_a_consumer_dies_and_after_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let limits = [
        ("x-group-key", text("tenant")),
        ("x-group-max-in-flight", AMQPValue::LongInt(2)),
        ("x-max-in-flight", AMQPValue::LongInt(3)),
    ];
    declare(&open(&server).await, "jobs", &limits).await;
    publish_keyed(&server, &["a1", "a2", "a3", "b1", "b2", "c1"]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        for _life in 0..2 {
            let channel = open(&server).await;
            let mut consumer = consume(&channel, "jobs").await;
            for expected in ["a1", "a2", "b1"] {
                assert_eq!(body(&next(&mut consumer).await), expected);
            }
            eventually_places(&server, "jobs", (3, 3, 0)).await;
            assert!(get(&open(&server).await, "jobs").await.is_none());
            channel.close(200, "".into()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn keys_keep_to_their_rate_when_a_consumer_dies_and_begin_anew_after_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let limits = [("x-group-key", text("tenant")), ("x-group-rate-limit", text("1/h"))];
    declare(&open(&server).await, "jobs", &limits).await;
    publish_keyed(&server, &["a1", "a2", "b1", "b2"]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open(&server).await;
        let mut consumer = consume(&channel, "jobs").await;
        for expected in ["a1", "b1"] {
            assert_eq!(body(&next(&mut consumer).await), expected);
        }
        channel.close(200, "".into()).await.unwrap();
        eventually_places(&server, "jobs", (4, 0, 0)).await;
        assert!(get(&open(&server).await, "jobs").await.is_none(), "another delivery is one of the hour's, too");
    }
}

#[tokio::test]
async fn what_is_no_rate_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    for (value, why) in [
        (AMQPValue::LongInt(0), "{value_zero,0}"),
        (text("10/d"), "\"expected N, N/s, N/m or N/h, got 10/d\""),
        (AMQPValue::Boolean(true), "{unacceptable_type,bool}"),
    ] {
        let channel = open(&server).await;
        let arguments = table(&[("x-rate-limit", value)]);
        let refused =
            channel.queue_declare("jobs".into(), QueueDeclareOptions::default(), arguments).await.unwrap_err();
        let text = refused.to_string();
        let expected = format!("PRECONDITION_FAILED - invalid arg 'x-rate-limit' for queue 'jobs' in vhost '/': {why}");
        assert!(text.contains(&expected), "{text}");
    }
}
