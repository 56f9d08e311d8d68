//! Retries with a pause, on any queue, as a client sees them.

use super::real_client::*;
use super::*;
use lapin::options::{BasicNackOptions, BasicRejectOptions};
use lapin::types::AMQPValue;

fn retrying(least_ms: i32, most_ms: i32) -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-delayed-retry-type", text("all")),
        ("x-delayed-retry-min", AMQPValue::LongInt(least_ms)),
        ("x-delayed-retry-max", AMQPValue::LongInt(most_ms)),
    ]
}

/// Declares `tasks`, in which the third failure sends a message to `graves`.
async fn declare_with_graves(channel: &Channel, retrying: Vec<(&'static str, AMQPValue)>) {
    let more = [
        ("x-delivery-limit", AMQPValue::LongInt(2)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("graves")),
    ];
    declare(channel, "tasks", &[retrying, more.into()].concat()).await;
    declare(channel, "graves", &[]).await;
}

#[tokio::test]
async fn what_a_consumer_gives_back_waits_longer_each_time_and_dies_at_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_with_graves(&channel, retrying(150, 1_000)).await;
    publish(&channel, ("", "tasks"), "task", Default::default()).await;
    let mut consumer = consume(&channel, "tasks").await;
    let mut given_back = Instant::now();
    for attempts in 0..=2_u32 {
        let delivery = next(&mut consumer).await;
        let waited = given_back.elapsed();
        assert!(waited >= Duration::from_millis(150) * attempts, "attempt {attempts} came after {waited:?}");
        assert_eq!(delivery.redelivered, attempts > 0);
        for count in ["x-delivery-count", "x-acquired-count"] {
            let expected = (attempts > 0).then_some(i64::from(attempts));
            assert_eq!(header(&delivery.properties, count), expected, "{count}");
        }
        given_back = Instant::now();
        if attempts == 1 {
            delivery.acker.reject(BasicRejectOptions { requeue: true }).await.unwrap();
        } else {
            delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
        }
    }
    let mut graves = consume(&channel, "graves").await;
    assert_eq!(body(&next(&mut graves).await), "task");
    assert_eq!(places(&server, "tasks").await, (0, 0, 0));
}

#[tokio::test]
async fn a_message_that_waits_for_its_next_try_outlives_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &retrying(1_500, 1_500)).await;
    publish(&channel, ("", "tasks"), "task", Default::default()).await;
    let delivery = next(&mut consume(&channel, "tasks").await).await;
    let given_back = Instant::now();
    delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    eventually_places(&server, "tasks", (0, 0, 1)).await;
    // So that what came before is on disk.
    declare(&channel, "other", &[]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open(&server).await;
        let delivery = next(&mut consume(&channel, "tasks").await).await;
        assert_eq!(header(&delivery.properties, "x-delivery-count"), Some(1));
        assert!(given_back.elapsed() >= Duration::from_millis(1_500), "{:?}", given_back.elapsed());
    }
}

#[tokio::test]
async fn the_pause_grows_on_and_the_limit_is_reached_after_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_with_graves(&channel, retrying(200, 10_000)).await;
    publish(&channel, ("", "tasks"), "task", Default::default()).await;
    let mut consumer = consume(&channel, "tasks").await;
    let give_back = async |delivery: lapin::message::Delivery| {
        delivery.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
        Instant::now()
    };
    give_back(next(&mut consumer).await).await;
    let second = next(&mut consumer).await;
    channel.basic_cancel(consumer.tag(), Default::default()).await.unwrap();
    let given_back = give_back(second).await;
    eventually_places(&server, "tasks", (0, 0, 1)).await;
    // So that what came before is on disk.
    declare(&channel, "other", &[]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open(&server).await;
        let third = next(&mut consume(&channel, "tasks").await).await;
        assert!(given_back.elapsed() >= Duration::from_millis(400), "{:?}", given_back.elapsed());
        for count in ["x-delivery-count", "x-acquired-count"] {
            assert_eq!(header(&third.properties, count), Some(2), "{count}");
        }
        give_back(third).await;
        let letter = next(&mut consume(&channel, "graves").await).await;
        let headers = letter.properties.headers().clone().unwrap();
        assert_eq!(headers.inner().get("x-first-death-reason"), Some(&text("delivery_limit")));
    }
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    for (name, value, why) in [
        ("x-delayed-retry-type", text("some"), "invalid_delayed_retry_type"),
        ("x-delayed-retry-min", AMQPValue::LongInt(-1), "{value_negative,-1}"),
        ("x-delayed-retry-max", text("1"), "\"expected integer, got longstr\""),
        ("x-delayed-retry-backoff", text("fast"), "invalid_delayed_retry_backoff"),
        ("x-delayed-retry-jitter", AMQPValue::LongInt(101), "{value_too_large,101}"),
    ] {
        let channel = open(&server).await;
        let declared = channel.queue_declare("tasks".into(), Default::default(), table(&[(name, value)])).await;
        let refused = declared.unwrap_err().to_string();
        let expected = format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'tasks' in vhost '/': {why}");
        assert!(refused.contains(&expected), "{refused}");
    }
}
