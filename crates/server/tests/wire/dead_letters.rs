//! Dead letters that a full queue refuses, as a client sees them: they wait where they died until they are taken, once.

use super::real_client::*;
use super::*;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use lapin::types::AMQPValue;
use std::collections::BTreeMap;

const TO_FAILED: [(&str, &str); 2] = [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", "failed")];

async fn declare_source(channel: &Channel, queue: &str) {
    declare(channel, queue, &TO_FAILED.map(|(key, value)| (key, text(value)))).await;
}

async fn declare_failed(channel: &Channel, most: i32) {
    declare(channel, "failed", &[("x-max-length", AMQPValue::LongInt(most)), ("x-overflow", text("reject-publish"))])
        .await;
}

/// Publishes these to the queue, and rejects each.
async fn let_die(channel: &Channel, queue: &str, bodies: &[&str]) {
    for body in bodies {
        publish(channel, ("", queue), body, Default::default()).await;
    }
    let mut consumer = consume(channel, queue).await;
    for _ in bodies {
        next(&mut consumer).await.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    }
    channel.basic_cancel(consumer.tag(), Default::default()).await.unwrap();
}

/// Takes so many dead letters, each of which died once.
async fn take(channel: &Channel, count: usize) -> Vec<String> {
    let mut consumer = consume(channel, "failed").await;
    let mut bodies = Vec::new();
    for _ in 0..count {
        let delivery = next(&mut consumer).await;
        let headers = delivery.properties.headers().clone().unwrap();
        let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { panic!("{headers:?}") };
        let [AMQPValue::FieldTable(death)] = deaths.as_slice() else { panic!("{deaths:?}") };
        assert_eq!(death.inner().get("count"), Some(&AMQPValue::LongLongInt(1)));
        assert_eq!(death.inner().get("reason"), Some(&text("rejected")));
        bodies.push(body(&delivery).to_owned());
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    }
    bodies
}

#[tokio::test]
async fn what_a_full_queue_refuses_waits_where_it_died_and_is_taken_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_source(&channel, "jobs").await;
    declare_failed(&channel, 2).await;
    let_die(&channel, "jobs", &["a", "b", "c", "d", "e"]).await;
    eventually_owed(&server, "jobs", 3).await;
    assert_eq!((places(&server, "jobs").await, places(&server, "failed").await), ((0, 0, 0), (2, 0, 0)));
    assert!(get(&channel, "jobs").await.is_none(), "who is dead is delivered no more");
    assert_eq!(take(&channel, 5).await, ["a", "b", "c", "d", "e"]);
    assert_eq!(owed(&server, "jobs").await, 0);
}

#[tokio::test]
async fn letters_outlive_a_stop_and_a_kill_and_are_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_source(&channel, "jobs").await;
    declare_failed(&channel, 1).await;
    let_die(&channel, "jobs", &["a", "b", "c"]).await;
    eventually_owed(&server, "jobs", 2).await;
    // So that what came before is on disk.
    declare(&channel, "other", &[]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        assert_eq!((owed(&server, "jobs").await, places(&server, "jobs").await), (2, (0, 0, 0)));
        let channel = open(&server).await;
        assert_eq!(take(&channel, 3).await, ["a", "b", "c"]);
        assert_eq!((owed(&server, "jobs").await, places(&server, "failed").await), (0, (0, 0, 0)));
    }
}

#[tokio::test]
async fn letters_of_many_queues_on_two_shards_all_come_once_through_a_small_one() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config { shards: 2, ..config(directory.path()) }).await.unwrap();
    let channel = open_confirming(&server).await;
    declare_failed(&channel, 3).await;
    let mut expected = BTreeMap::new();
    for queue in ["jobs-1", "jobs-2", "jobs-3", "jobs-4"] {
        declare_source(&channel, queue).await;
        let bodies: Vec<String> = (0..10).map(|n| format!("{queue} {n}")).collect();
        let_die(&channel, queue, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
        expected.extend(bodies.into_iter().map(|body| (body, 1)));
    }
    let mut found: BTreeMap<String, i32> = BTreeMap::new();
    for body in take(&channel, 40).await {
        *found.entry(body).or_default() += 1;
    }
    assert_eq!(found, expected);
    for queue in ["jobs-1", "jobs-2", "jobs-3", "jobs-4"] {
        eventually_owed(&server, queue, 0).await;
    }
    assert_eq!(places(&server, "failed").await, (0, 0, 0));
}

#[tokio::test]
async fn a_letter_tells_why_it_died_after_a_stop_and_a_kill_too() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_failed(&channel, 100).await;
    for (queue, more) in [
        ("rejected", None),
        ("expired", Some(("x-message-ttl", AMQPValue::LongInt(1)))),
        ("maxlen", Some(("x-max-length", AMQPValue::LongInt(0)))),
        ("delivery_limit", Some(("x-delivery-limit", AMQPValue::LongInt(0)))),
    ] {
        let arguments = TO_FAILED.map(|(key, value)| (key, text(value))).into_iter().chain(more);
        declare(&channel, queue, &arguments.collect::<Vec<_>>()).await;
        publish(&channel, ("", queue), queue, Default::default()).await;
        if matches!(queue, "rejected" | "delivery_limit") {
            let delivery = next(&mut consume(&channel, queue).await).await;
            let options = BasicRejectOptions { requeue: queue == "delivery_limit" };
            delivery.acker.reject(options).await.unwrap();
        }
    }
    eventually_places(&server, "failed", (4, 0, 0)).await;
    // So that what came before is on disk.
    declare(&channel, "other", &[]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open(&server).await;
        let mut found = Vec::new();
        while let Some(letter) = get(&channel, "failed").await {
            let reason = String::from_utf8(letter.data.clone()).unwrap();
            let headers = letter.properties.headers().clone().unwrap();
            for (part, expected) in [("reason", &*reason), ("queue", &*reason), ("exchange", "")] {
                for when in ["first", "last"] {
                    let name = format!("x-{when}-death-{part}");
                    assert_eq!(headers.inner().get(&*name), Some(&text(expected)), "{name}");
                }
            }
            let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { panic!("{headers:?}") };
            let [AMQPValue::FieldTable(death)] = deaths.as_slice() else { panic!("{deaths:?}") };
            let told = ["reason", "queue", "count"].map(|name| death.inner().get(name).cloned());
            let expected = [text(&reason), text(&reason), AMQPValue::LongLongInt(1)].map(Some);
            assert_eq!(told, expected);
            found.push(reason);
        }
        found.sort();
        assert_eq!(found, ["delivery_limit", "expired", "maxlen", "rejected"]);
    }
}

#[tokio::test]
async fn a_cycle_without_a_rejection_ends_after_a_stop_and_a_kill_too() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    for (queue, other) in [("here", "there"), ("there", "here")] {
        let arguments = [
            ("x-message-ttl", AMQPValue::LongInt(700)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(other)),
        ];
        declare(&channel, queue, &arguments).await;
    }
    publish(&channel, ("", "here"), "goes round", Default::default()).await;
    eventually_places(&server, "there", (1, 0, 0)).await;
    // So that what came before is on disk.
    declare(&channel, "other", &[]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        eventually_places(&server, "there", (0, 0, 0)).await;
        assert_eq!((places(&server, "here").await, owed(&server, "there").await), ((0, 0, 0), 0), "it was here before");
    }
}

#[tokio::test]
async fn at_most_once_drops_what_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let [exchange, key] = TO_FAILED.map(|(key, value)| (key, text(value)));
    declare(&channel, "jobs", &[exchange, key, ("x-dead-letter-strategy", text("at-most-once"))]).await;
    declare_failed(&channel, 1).await;
    let_die(&channel, "jobs", &["a", "b"]).await;
    eventually_places(&server, "jobs", (0, 0, 0)).await;
    assert_eq!((owed(&server, "jobs").await, places(&server, "failed").await), (0, (1, 0, 0)));
}
