//! Delayed messages, as a client sees them.

use super::real_client::*;
use super::*;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};

const TO_TASKS: (&str, &str) = ("", "tasks");

async fn declare_exchange(channel: &Channel, name: &str, arguments: &[(&str, AMQPValue)]) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = ExchangeKind::Custom("x-delayed-message".to_owned());
    channel.exchange_declare(name.into(), kind, options, table(arguments)).await
}

#[tokio::test]
async fn a_message_comes_at_its_time_in_order_of_time_and_within_a_tenth_of_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    let mut consumer = consume(&channel, "tasks").await;
    let begun = Instant::now();
    let delays = [(400, AMQPValue::LongInt(400)), (200, text("200")), (300, AMQPValue::LongLongInt(300))];
    for (ms, delay) in delays {
        publish(&channel, TO_TASKS, &ms.to_string(), delayed(delay)).await;
    }
    publish(&channel, TO_TASKS, "now", delayed(AMQPValue::LongInt(-5))).await;
    assert_eq!(body(&next(&mut consumer).await), "now", "what makes no sense is no delay");
    assert_eq!(places(&server, "tasks").await, (0, 1, 3));
    for ms in [200, 300, 400] {
        let delivery = next(&mut consumer).await;
        let passed = begun.elapsed();
        assert_eq!(body(&delivery), ms.to_string());
        assert_eq!(header(&delivery.properties, "x-delay"), Some(-ms), "as the plugin leaves it");
        assert!(passed >= Duration::from_millis(ms as u64), "{ms}: after {passed:?}");
        // A busy machine may be late; a timer that does not work is later.
        assert!(passed < Duration::from_millis(ms as u64 + 1_000), "{ms}: after {passed:?}");
    }
}

#[tokio::test]
async fn delayed_messages_outlive_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    let year_ms = 31_557_600_000;
    publish(&channel, TO_TASKS, "next year", delayed(AMQPValue::LongLongInt(year_ms))).await;
    publish(&channel, TO_TASKS, "second", delayed(AMQPValue::LongInt(1_500))).await;
    publish(&channel, TO_TASKS, "first", delayed(AMQPValue::LongInt(1_400))).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open(&server).await;
        let mut consumer = consume(&channel, "tasks").await;
        for expected in ["first", "second"] {
            assert_eq!(body(&next(&mut consumer).await), expected);
        }
        assert_eq!(places(&server, "tasks").await, (0, 2, 1));
    }
}

#[tokio::test]
async fn an_exchange_of_the_plugins_type_routes_as_it_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    declare_exchange(&channel, "later", &[("x-delayed-type", text("topic"))]).await.unwrap();
    let bind = || {
        channel.queue_bind(
            "tasks".into(),
            "later".into(),
            "a.*".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
    };
    bind().await.unwrap();
    publish(&channel, ("later", "a.b"), "delayed", delayed(AMQPValue::LongInt(1_000))).await;
    publish(&channel, ("later", "a.c"), "at once", Default::default()).await;
    publish(&channel, ("later", "b.c"), "nowhere", delayed(AMQPValue::LongInt(100))).await;
    assert_eq!(places(&server, "tasks").await, (1, 0, 1), "routed when it is published");
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open_confirming(&server).await;
        let mut consumer = consume(&channel, "tasks").await;
        let mut got = [next(&mut consumer).await, next(&mut consumer).await].map(|delivery| body(&delivery).to_owned());
        got.sort();
        assert_eq!(got, ["at once", "delayed"], "in which order they are due depends on how long a restart takes");
        // It is what it was, and nothing else.
        declare_exchange(&channel, "later", &[("x-delayed-type", text("topic"))]).await.unwrap();
        publish(&channel, ("later", "a.d"), "delayed again", delayed(AMQPValue::LongInt(60_000))).await;
        eventually_places(&server, "tasks", (0, 2, 1)).await;
    }
}

#[tokio::test]
async fn an_exchange_that_does_not_know_how_to_route_is_refused_in_the_plugins_words() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    for (arguments, expected) in [
        (vec![], "Invalid argument, 'x-delayed-type' must be an existing exchange type"),
        (
            vec![("x-delayed-type", AMQPValue::LongInt(1))],
            "Invalid argument, 'x-delayed-type' must be an existing exchange type",
        ),
        (
            vec![("x-delayed-type", text("x-delayed-message"))],
            "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'",
        ),
        (vec![("x-delayed-type", text("sideways"))], "unknown exchange type 'sideways'"),
    ] {
        let refused = declare_exchange(&open(&server).await, "later", &arguments).await.unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains(&format!("PRECONDITION_FAILED - {expected}")), "{refused}");
    }
}

#[tokio::test]
async fn a_purge_counts_and_takes_delayed_messages() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    publish(&channel, TO_TASKS, "later", delayed(AMQPValue::LongInt(60_000))).await;
    publish(&channel, TO_TASKS, "now", Default::default()).await;
    let purged = channel.queue_purge("tasks".into(), QueuePurgeOptions::default()).await.unwrap();
    assert_eq!(purged, 2);
    assert_eq!(places(&server, "tasks").await, (0, 0, 0));
}

#[tokio::test]
async fn what_was_released_or_cancelled_is_so_after_a_kill() {
    use broker::command::Seq;
    use broker::operation::{Act, Answer, Filter, Operation, Scan, Which};
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    for number in 1..=4 {
        publish(&channel, TO_TASKS, &number.to_string(), delayed(AMQPValue::LongInt(1_000_000))).await;
    }
    let queue = server.board().topology().queue(VhostId(0), "tasks").unwrap().queue;
    for (seqs, act) in [(vec![Seq(3), Seq(1)], Act::Release), (vec![Seq(2)], Act::Delete)] {
        let done = seqs.len() as u64;
        let scan = Scan { which: Which::These(seqs), filter: Filter::default(), count: 10, act };
        let answer = server.board().operate(queue, Operation::Scan(scan)).await.unwrap();
        assert!(matches!(&answer, Answer::Page(page) if page.done == done), "{answer:?}");
    }
    assert_eq!(places(&server, "tasks").await, (2, 0, 1));
    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    assert_eq!(places(&killed, "tasks").await, (2, 0, 1));
    for server in [server, killed] {
        let mut consumer = consume(&open(&server).await, "tasks").await;
        for expected in ["1", "3"] {
            assert_eq!(body(&next(&mut consumer).await), expected);
        }
    }
}
