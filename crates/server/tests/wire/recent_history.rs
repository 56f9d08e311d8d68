//! Exchanges that send their last messages to queues that are bound, as a client sees them.

use super::real_client::*;
use super::*;
use lapin::ExchangeKind;
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};

async fn declare_exchange(channel: &Channel, name: &str, arguments: &[(&str, AMQPValue)]) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Custom("x-recent-history".to_owned());
    channel.exchange_declare(name.into(), kind, options, table(arguments)).await
}

async fn bind(channel: &Channel, queue: &str, exchange: &str) {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), "k".into(), options, FieldTable::default()).await.unwrap();
}

async fn bodies(server: &Server, channel: &Channel, queue: &str, count: u64) -> Vec<String> {
    eventually_places(server, queue, (count, 0, 0)).await;
    let mut bodies = Vec::new();
    while let Some(message) = get(channel, queue).await {
        bodies.push(String::from_utf8(message.delivery.data).unwrap());
    }
    bodies
}

async fn send(channel: &Channel, exchange: &str, body: &str, headers: &[(&str, AMQPValue)]) {
    let properties = lapin::BasicProperties::default().with_headers(table(headers));
    let options = lapin::options::BasicPublishOptions::default();
    let confirm = channel.basic_publish(exchange.into(), "".into(), options, body.as_bytes(), properties);
    assert!(confirm.await.unwrap().await.unwrap().is_ack());
}

#[tokio::test]
async fn a_new_binding_gets_the_last_messages_and_all_that_follow() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_exchange(&channel, "chat", &[("x-recent-history-length", AMQPValue::LongInt(2))]).await.unwrap();
    declare_exchange(&channel, "usual", &[]).await.unwrap();
    channel.exchange_declare("behind".into(), ExchangeKind::Fanout, Default::default(), table(&[])).await.unwrap();
    for queue in ["a", "b", "c", "d"] {
        declare(&channel, queue, &[]).await;
    }
    for body in ["1", "2", "3"] {
        send(&channel, "chat", body, &[]).await;
    }
    send(&channel, "chat", "secret", &[("x-recent-history-no-store", AMQPValue::Boolean(true))]).await;
    bind(&channel, "a", "chat").await;
    bind(&channel, "a", "chat").await;
    assert_eq!(bodies(&server, &channel, "a", 2).await, ["2", "3"], "once: the second binding is the first");
    send(&channel, "chat", "4", &[]).await;
    bind(&channel, "b", "chat").await;
    assert_eq!(bodies(&server, &channel, "a", 1).await, ["4"]);
    assert_eq!(bodies(&server, &channel, "b", 2).await, ["3", "4"]);
    // An exchange that is bound gets them, too.
    bind(&channel, "c", "behind").await;
    let options = ExchangeBindOptions::default();
    channel.exchange_bind("behind".into(), "chat".into(), "".into(), options, table(&[])).await.unwrap();
    assert_eq!(bodies(&server, &channel, "c", 2).await, ["3", "4"]);
    for number in 1..=30 {
        send(&channel, "usual", &number.to_string(), &[]).await;
    }
    bind(&channel, "d", "usual").await;
    let last: Vec<_> = (11..=30).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&server, &channel, "d", 20).await, last);
}

#[tokio::test]
async fn the_exchange_outlives_a_stop_and_a_kill_and_its_messages_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare_exchange(&channel, "chat", &[]).await.unwrap();
    declare(&channel, "early", &[]).await;
    bind(&channel, "early", "chat").await;
    send(&channel, "chat", "before", &[]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open_confirming(&server).await;
        send(&channel, "chat", "after", &[]).await;
        declare(&channel, "late", &[]).await;
        bind(&channel, "late", "chat").await;
        assert_eq!(bodies(&server, &channel, "late", 1).await, ["after"]);
        assert_eq!(
            bodies(&server, &channel, "early", 1).await,
            ["after"],
            "the transient message went with the server"
        );
    }
}

#[tokio::test]
async fn a_length_that_makes_no_sense_is_refused_in_the_plugins_words() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    for (length, shown) in [
        (AMQPValue::LongInt(0), "0"),
        (AMQPValue::LongLongInt(-5), "-5"),
        (text("many"), "<<\"many\">>"),
        (AMQPValue::Boolean(true), "true"),
    ] {
        let declared = declare_exchange(&open(&server).await, "chat", &[("x-recent-history-length", length)]).await;
        let refused = declared.unwrap_err().to_string();
        let expected = format!("Invalid argument {shown}, 'x-recent-history-length' must be a positive integer");
        assert!(refused.contains(&format!("PRECONDITION_FAILED - {expected}")), "{refused}");
    }
}
