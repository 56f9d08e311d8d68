//! Queues and exchanges that take one message of a key, as a client sees them.

use super::real_client::*;
use super::*;
use broker::policy::{AppliesTo, PolicyKind};
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};

const DEDUPLICATION: (&str, AMQPValue) = ("x-message-deduplication", AMQPValue::Boolean(true));

fn keyed(key: AMQPValue) -> BasicProperties {
    BasicProperties::default().with_headers(table(&[("x-deduplication-header", key)]))
}

fn size(most: i32) -> (&'static str, AMQPValue) {
    ("x-cache-size", AMQPValue::LongInt(most))
}

/// Publishes a persistent message: it is confirmed, and does not come back, whether it is a duplicate or not.
async fn send(channel: &Channel, (exchange, key): (&str, &str), body: &str, properties: BasicProperties) {
    let options = lapin::options::BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = properties.with_delivery_mode(2);
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
    let confirmation = confirm.await.unwrap().await.unwrap();
    assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "confirmed, and not returned");
}

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    arguments: &[(&str, AMQPValue)],
) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), kind, options, table(arguments)).await
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await.unwrap();
}

async fn bodies(channel: &Channel, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(message) = get(channel, queue).await {
        bodies.push(String::from_utf8(message.delivery.data).unwrap());
    }
    bodies
}

async fn deduplicated(server: &Server, queue: &str) -> u64 {
    let views = server.board().inspect_queues().await.unwrap();
    views.iter().find(|view| *view.spec.name == *queue).unwrap().counters.deduplicated
}

#[tokio::test]
async fn a_key_counts_while_its_message_is_in_the_queue_over_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[DEDUPLICATION]).await;
    for (key, body) in [("a", "1"), ("b", "2"), ("a", "3")] {
        send(&channel, ("", "tasks"), body, keyed(text(key))).await;
    }
    send(&channel, ("", "tasks"), "4", keyed(AMQPValue::LongInt(7))).await;
    send(&channel, ("", "tasks"), "5", keyed(AMQPValue::LongLongInt(7))).await;
    assert_eq!(deduplicated(&server, "tasks").await, 2);
    assert_eq!(get(&channel, "tasks").await.unwrap().delivery.data, b"1");
    // The acknowledgement is on disk with the next confirm.
    send(&channel, ("", "tasks"), "6", Default::default()).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open_confirming(&server).await;
        for (key, body) in [("b", "7"), ("a", "8"), ("a", "9")] {
            send(&channel, ("", "tasks"), body, keyed(text(key))).await;
        }
        assert_eq!(bodies(&channel, "tasks").await, ["2", "4", "6", "8"]);
        assert_eq!(deduplicated(&server, "tasks").await, 2);
    }
}

#[tokio::test]
async fn a_window_is_kept_over_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let arguments = [DEDUPLICATION, size(2), ("x-deduplication-key", text("message-id"))];
    declare(&channel, "tasks", &arguments).await;
    let named = |id: &str| BasicProperties::default().with_message_id(id.into());
    for id in ["a", "b", "c", "b"] {
        send(&channel, ("", "tasks"), id, named(id)).await;
    }
    // Read only after the kill: an acknowledgement that no confirm follows need not be on disk by then.
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open_confirming(&server).await;
        for id in ["c", "b", "a"] {
            send(&channel, ("", "tasks"), id, named(id)).await;
        }
        assert_eq!(
            bodies(&channel, "tasks").await,
            ["a", "b", "c", "a"],
            "only two newer ones had come after the first a"
        );
    }
}

#[tokio::test]
async fn a_time_ends_when_it_would_have_without_a_stop_or_a_kill() {
    const WINDOW: Duration = Duration::from_millis(2_500);
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[DEDUPLICATION, ("x-cache-ttl", AMQPValue::LongInt(60_000))]).await;
    let brief = || {
        let headers = [("x-deduplication-header", text("brief")), ("x-cache-ttl", AMQPValue::LongInt(2_500))];
        BasicProperties::default().with_headers(table(&headers))
    };
    let began = Instant::now();
    send(&channel, ("", "tasks"), "1", brief()).await;
    send(&channel, ("", "tasks"), "2", keyed(text("usual"))).await;
    let (_remains, [killed, stopped]) = killed_and_stopped(server, directory.path()).await;
    let servers = [killed, stopped];
    for server in &servers {
        let channel = open_confirming(server).await;
        let before = began.elapsed();
        for (body, properties) in [("3", brief()), ("4", keyed(text("usual")))] {
            send(&channel, ("", "tasks"), body, properties).await;
        }
        assert!(before < WINDOW, "the machine is too slow for this test");
        assert_eq!(deduplicated(server, "tasks").await, 2);
    }
    for server in &servers {
        let channel = open_confirming(server).await;
        while places(server, "tasks").await.0 == 2 {
            send(&channel, ("", "tasks"), "5", brief()).await;
        }
        let took = began.elapsed();
        assert!(took >= WINDOW, "forgotten after {took:?}");
        send(&channel, ("", "tasks"), "6", keyed(text("usual"))).await;
        assert_eq!(bodies(&channel, "tasks").await, ["1", "2", "5"]);
    }
}

#[tokio::test]
async fn an_exchange_lets_one_message_of_a_key_through_to_each_queue() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    for queue in ["first", "second"] {
        declare(&channel, queue, &[]).await;
    }
    let arguments = [DEDUPLICATION, size(10), ("x-deduplication-header", text("order"))];
    declare_exchange(&channel, "orders", ExchangeKind::Topic, &arguments).await.unwrap();
    let plugins = ExchangeKind::Custom("x-message-deduplication".to_owned());
    declare_exchange(&channel, "everything", plugins.clone(), &[size(10)]).await.unwrap();
    bind(&channel, "first", "orders", "new.*").await;
    bind(&channel, "first", "everything", "").await;
    let order = |number| BasicProperties::default().with_headers(table(&[("order", AMQPValue::LongInt(number))]));
    for (number, body) in [(1, "1"), (2, "2"), (1, "3")] {
        send(&channel, ("orders", "new.eu"), body, order(number)).await;
    }
    for (key, body) in [("a", "4"), ("a", "5")] {
        send(&channel, ("everything", "any key"), body, keyed(text(key))).await;
    }
    bind(&channel, "second", "orders", "new.*").await;
    send(&channel, ("orders", "new.eu"), "6", order(2)).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open_confirming(&server).await;
        send(&channel, ("orders", "new.eu"), "7", order(2)).await;
        send(&channel, ("everything", ""), "8", keyed(text("a"))).await;
        assert_eq!(bodies(&channel, "first").await, ["1", "2", "4"]);
        assert_eq!(bodies(&channel, "second").await, ["6"], "it was bound later");
        // An exchange of the same name is another one.
        channel.exchange_delete("everything".into(), ExchangeDeleteOptions::default()).await.unwrap();
        declare_exchange(&channel, "everything", plugins.clone(), &[size(10)]).await.unwrap();
        bind(&channel, "first", "everything", "").await;
        send(&channel, ("everything", ""), "9", keyed(text("a"))).await;
        assert_eq!(bodies(&channel, "first").await, ["9"]);
    }
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let plugins = || ExchangeKind::Custom("x-message-deduplication".to_owned());
    let random = || ExchangeKind::Custom("x-random".to_owned());
    let many = "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0";
    for (kind, arguments, expected) in [
        (plugins(), vec![], many),
        (plugins(), vec![size(0)], many),
        (ExchangeKind::Direct, vec![DEDUPLICATION, ("x-cache-size", text("many"))], many),
        (
            ExchangeKind::Direct,
            vec![DEDUPLICATION, ("x-cache-ttl", AMQPValue::LongInt(0))],
            "Invalid argument, 'x-cache-ttl' must be an integer greater than 0",
        ),
        (
            plugins(),
            vec![size(1), ("x-cache-persistence", text("tape"))],
            "Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'",
        ),
        (
            plugins(),
            vec![size(1), ("x-deduplication-key", text("body"))],
            "Invalid argument, 'x-deduplication-key' must be either 'header' or 'message-id'",
        ),
        (
            ExchangeKind::Direct,
            vec![("x-message-deduplication", text("yes"))],
            "Invalid argument, 'x-message-deduplication' must be a boolean",
        ),
        (random(), vec![DEDUPLICATION], "Invalid argument, 'x-message-deduplication' can't be used for 'x-random'"),
    ] {
        let refused = declare_exchange(&open(&server).await, "once", kind, &arguments).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("PRECONDITION_FAILED - {expected}")), "{refused}");
    }
    for (argument, expected) in [
        (
            ("x-cache-size", AMQPValue::LongInt(0)),
            "invalid arg 'x-cache-size' for queue 'once' in vhost '/': {value_zero,0}",
        ),
        (
            ("x-cache-ttl", AMQPValue::LongInt(-1)),
            "invalid arg 'x-cache-ttl' for queue 'once' in vhost '/': {value_negative,-1}",
        ),
        (
            ("x-deduplication-key", text("body")),
            "invalid arg 'x-deduplication-key' for queue 'once' in vhost '/': invalid_deduplication_key",
        ),
        (
            ("x-message-deduplication", text("yes")),
            "invalid arg 'x-message-deduplication' for queue 'once' in vhost '/': {unacceptable_type,longstr}",
        ),
    ] {
        let channel = open(&server).await;
        let declared = channel.queue_declare("once".into(), QueueDeclareOptions::default(), table(&[argument])).await;
        let refused = declared.unwrap_err().to_string();
        assert!(refused.contains(&format!("PRECONDITION_FAILED - {expected}")), "{refused}");
    }
}

async fn set(server: &Server, applies_to: AppliesTo, definition: &[(&str, amqp::Value)]) {
    set_policy(server, PolicyKind::User, applies_to, ("once", "^orders"), definition).await;
}

#[tokio::test]
async fn a_policy_makes_an_exchange_deduplicate_at_once_and_what_is_bound_to_others_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    for queue in ["through", "around", "both"] {
        declare(&channel, queue, &[]).await;
    }
    declare_exchange(&channel, "front", ExchangeKind::Fanout, &[]).await.unwrap();
    declare_exchange(&channel, "orders", ExchangeKind::Fanout, &[]).await.unwrap();
    channel
        .exchange_bind("orders".into(), "front".into(), "".into(), Default::default(), FieldTable::default())
        .await
        .unwrap();
    for (queue, exchange) in [("through", "orders"), ("around", "front"), ("both", "front"), ("both", "orders")] {
        bind(&channel, queue, exchange, "").await;
    }
    let again = async |channel: &Channel, body: &str, key: &str| {
        send(channel, ("front", ""), body, keyed(text(key))).await;
    };
    again(&channel, "0", "a").await;
    let on = ("x-message-deduplication", amqp::Value::Bool(true));
    set(&server, AppliesTo::Exchanges, &[on.clone(), ("x-cache-size", amqp::Value::I64(1))]).await;
    for body in ["1", "2"] {
        again(&channel, body, "a").await;
    }
    assert_eq!(bodies(&channel, "through").await, ["0", "1"], "it remembers from now on");
    again(&channel, "3", "b").await;
    again(&channel, "4", "a").await;
    assert_eq!(bodies(&channel, "through").await, ["3", "4"], "of one key only");
    set(&server, AppliesTo::Exchanges, &[on.clone(), ("x-cache-size", amqp::Value::I64(9))]).await;
    again(&channel, "5", "c").await;

    let (_remains, server) = start_on_remains_of(directory.path()).await;
    let channel = open_confirming(&server).await;
    for (body, key) in [("6", "a"), ("7", "c")] {
        again(&channel, body, key).await;
    }
    assert_eq!(bodies(&channel, "through").await, ["5"], "it is the same exchange");
    for queue in ["around", "both"] {
        assert_eq!(bodies(&channel, queue).await.concat(), "01234567", "{queue}: it comes there another way, too");
    }
    // One for all means queues.
    set(&server, AppliesTo::All, &[on]).await;
    again(&channel, "8", "a").await;
    assert_eq!(bodies(&channel, "through").await, ["8"]);
}
