//! Exchanges that choose one of their bindings, as a client sees them.

use super::real_client::*;
use super::*;
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use std::collections::BTreeMap;

const QUEUES: [&str; 3] = ["one", "two", "three"];

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: &str,
    arguments: &[(&str, AMQPValue)],
) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), ExchangeKind::Custom(kind.to_owned()), options, table(arguments)).await
}

async fn bind(channel: &Channel, exchange: &str, queue: &str, key: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await
}

/// A durable exchange, with all the queues bound to it.
async fn declare_all(channel: &Channel, exchange: &str, kind: &str, key: &str, arguments: &[(&str, AMQPValue)]) {
    declare_exchange(channel, exchange, kind, arguments).await.unwrap();
    for queue in QUEUES {
        declare(channel, queue, &[]).await;
        bind(channel, exchange, queue, key).await.unwrap();
    }
}

/// Takes all messages out: the queue of each body.
async fn take_all(channel: &Channel) -> BTreeMap<String, &'static str> {
    let mut taken = BTreeMap::new();
    for queue in QUEUES {
        while let Some(message) = get(channel, queue).await {
            let body = String::from_utf8(message.delivery.data.clone()).unwrap();
            assert_eq!(taken.insert(body.clone(), queue), None, "{body} is in one queue only");
        }
    }
    taken
}

/// Publishes 60 messages of different keys; where each went.
async fn spread(channel: &Channel, exchange: &str) -> BTreeMap<String, &'static str> {
    for number in 0..60 {
        let key = format!("key {number}");
        publish(channel, (exchange, &key), &key, BasicProperties::default()).await;
    }
    let taken = take_all(channel).await;
    assert_eq!(taken.len(), 60);
    taken
}

/// Publishes 60 messages that are the same but for their bodies; where each went.
async fn repeat(channel: &Channel, exchange: &str) -> BTreeMap<String, &'static str> {
    for number in 0..60 {
        publish(channel, (exchange, ""), &number.to_string(), BasicProperties::default()).await;
    }
    let taken = take_all(channel).await;
    assert_eq!(taken.len(), 60);
    taken
}

fn are_used(taken: &BTreeMap<String, &'static str>) -> bool {
    QUEUES.iter().all(|queue| taken.values().any(|taker| taker == queue))
}

#[track_caller]
fn assert_refused(result: lapin::Result<()>, expected: &str) {
    let refused = result.unwrap_err().to_string();
    assert!(refused.contains(expected), "{refused}");
}

#[tokio::test]
async fn a_key_goes_to_the_same_queue_after_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let mut before = Vec::new();
    for (kind, key) in [("x-consistent-hash", "1"), ("x-modulus-hash", "any")] {
        declare_all(&channel, kind, kind, key, &[]).await;
        let taken = spread(&channel, kind).await;
        assert!(are_used(&taken), "{taken:?}");
        before.push((kind, taken));
    }
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open_confirming(&server).await;
        for (kind, before) in &before {
            declare_exchange(&channel, kind, kind, &[]).await.unwrap();
            assert_eq!(&spread(&channel, kind).await, before);
        }
    }
}

#[tokio::test]
async fn a_queue_that_goes_leaves_its_keys_and_no_others_move() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_all(&channel, "hash", "x-consistent-hash", "10", &[]).await;
    let before = spread(&channel, "hash").await;
    channel.queue_unbind("two".into(), "hash".into(), "10".into(), FieldTable::default()).await.unwrap();
    let after = spread(&channel, "hash").await;
    for (key, queue) in before {
        assert_eq!(queue == "two", after[&key] != queue, "{key} went to {queue}");
    }
}

#[tokio::test]
async fn a_property_or_a_header_is_hashed_in_place_of_the_key_after_a_restart_too() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_all(&channel, "by id", "x-consistent-hash", "1", &[("hash-property", text("message_id"))]).await;
    declare_all(&channel, "by tenant", "x-consistent-hash", "1", &[("hash-header", text("tenant"))]).await;
    let mut before = None;
    let mut server = Some(server);
    for _ in 0..2 {
        let running = server.take().unwrap();
        let channel = open_confirming(&running).await;
        let mut taken = Vec::new();
        for exchange in ["by id", "by tenant"] {
            for number in 0..60 {
                let name = format!("name {number}");
                let headers = table(&[("tenant", text(&name))]);
                let properties = match exchange {
                    "by id" => BasicProperties::default().with_message_id(name.as_str().into()),
                    _ => BasicProperties::default().with_headers(headers),
                };
                publish(&channel, (exchange, "same"), &name, properties).await;
            }
            taken.push(take_all(&channel).await);
        }
        assert!(taken.iter().all(are_used), "{taken:?}");
        assert_eq!(before.get_or_insert_with(|| taken.clone()), &taken);
        running.stop().await.unwrap();
        server = Some(start(directory.path()).await.0);
    }
}

#[tokio::test]
async fn chance_chooses_anew_for_each_message_like_the_last_one() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_all(&channel, "random", "x-random", "any", &[]).await;
    declare_all(&channel, "local", "x-local-random", "", &[]).await;
    for exchange in ["random", "local"] {
        let taken = repeat(&channel, exchange).await;
        assert!(are_used(&taken), "{exchange}: {taken:?}");
    }
    server.stop().await.unwrap();

    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    for (exchange, kind) in [("random", "x-random"), ("local", "x-local-random")] {
        declare_exchange(&channel, exchange, kind, &[]).await.unwrap();
        let taken = repeat(&channel, exchange).await;
        assert!(are_used(&taken), "{exchange}: {taken:?}");
    }
}

#[tokio::test]
async fn they_chain_and_have_alternates_as_all_exchanges() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_all(&channel, "hash", "x-consistent-hash", "1", &[]).await;
    // Chance has only one way to go, and that leads to the hash.
    declare_exchange(&channel, "random", "x-random", &[]).await.unwrap();
    let options = ExchangeBindOptions::default();
    channel.exchange_bind("hash".into(), "random".into(), "".into(), options, FieldTable::default()).await.unwrap();
    declare_exchange(&channel, "empty", "x-modulus-hash", &[("alternate-exchange", text("random"))]).await.unwrap();
    assert_eq!(spread(&channel, "empty").await, spread(&channel, "hash").await);
    let other = declare_exchange(&channel, "empty", "x-modulus-hash", &[]).await;
    assert_refused(other, "inequivalent arg 'alternate-exchange' for exchange 'empty' in vhost '/'");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_the_plugins_words() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    declare_all(&open(&server).await, "hash", "x-consistent-hash", "1", &[]).await;
    declare_all(&open(&server).await, "local", "x-local-random", "", &[]).await;
    for (exchange, key, expected) in [
        ("hash", "0", "PRECONDITION_FAILED - The binding key must be greater than 0"),
        ("hash", "-1", "PRECONDITION_FAILED - The binding key must be greater than 0"),
        ("hash", "many", "PRECONDITION_FAILED - The binding key must be an integer: <<\"many\">>"),
        ("local", "key", "PRECONDITION_FAILED - Non empty binding 'key' key not permitted"),
    ] {
        assert_refused(bind(&open(&server).await, exchange, "one", key).await, expected);
    }
    let channel = open(&server).await;
    let options = ExchangeBindOptions::default();
    let chained = channel.exchange_bind("hash".into(), "local".into(), "".into(), options, FieldTable::default()).await;
    assert_refused(chained, "PRECONDITION_FAILED - Destination not found");
    for (arguments, expected) in [
        (
            vec![("hash-header", text("tenant")), ("hash-property", text("message_id"))],
            "PRECONDITION_FAILED - hash-header and hash-property are mutually exclusive",
        ),
        (vec![("hash-property", text("app_id"))], "PRECONDITION_FAILED - Unsupported property: app_id"),
    ] {
        let refused = declare_exchange(&open(&server).await, "new", "x-consistent-hash", &arguments).await;
        assert_refused(refused, expected);
    }
    let other = declare_exchange(&open(&server).await, "hash", "x-modulus-hash", &[]).await;
    assert_refused(other, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'hash' in vhost '/'");
}
