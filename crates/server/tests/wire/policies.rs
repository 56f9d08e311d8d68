//! Policies as a client sees them: on queues that are there, on refusals, over a kill.

use super::real_client::*;
use super::*;
use broker::command::QueueSettings;
use broker::policy::{AppliesTo, PolicyKind};
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicNackOptions, BasicQosOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, ExchangeKind};

async fn set(server: &Server, kind: PolicyKind, name: &str, key: &str, value: impl Into<amqp::Value>) {
    set_policy(server, kind, AppliesTo::Queues, (name, "^tasks"), &[(key, value.into())]).await;
}

/// A policy for one queue, under its name.
async fn set_for(server: &Server, queue: &str, definition: &[(&str, amqp::Value)]) {
    let pattern = format!("^{}$", queue.replace('.', "[.]"));
    set_policy(server, PolicyKind::User, AppliesTo::Queues, (queue, &pattern), definition).await;
}

fn settings(server: &Server, queue: &str) -> QueueSettings {
    server.board().topology().queue(VhostId(0), queue).unwrap().settings.clone()
}

async fn redeclare(server: &Server, arguments: &[(&str, AMQPValue)]) -> Result<(), String> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    let declared = open(server).await.queue_declare("tasks".into(), options, table(arguments)).await;
    declared.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_policy_bounds_a_queue_that_is_there_and_one_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    for body in ["a", "b", "c"] {
        publish(&channel, ("", "tasks"), body, BasicProperties::default().with_delivery_mode(2)).await;
    }
    set(&server, PolicyKind::User, "short", "max-length", 2).await;
    eventually_places(&server, "tasks", (2, 0, 0)).await;
    set(&server, PolicyKind::Operator, "bounds", "max-length", 1).await;
    eventually_places(&server, "tasks", (1, 0, 0)).await;

    let (_copy, server) = start_on_remains_of(directory.path()).await;
    let channel = open_confirming(&server).await;
    publish(&channel, ("", "tasks"), "d", BasicProperties::default().with_delivery_mode(2)).await;
    eventually_places(&server, "tasks", (1, 0, 0)).await;
    let mut consumer = consume(&channel, "tasks").await;
    assert_eq!(body(&next(&mut consumer).await), "d");
}

#[tokio::test]
async fn other_arguments_are_refused_unless_a_policy_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    declare(&open(&server).await, "tasks", &[("x-max-priority", AMQPValue::LongInt(3))]).await;
    let with_limit = [("x-max-priority", AMQPValue::LongInt(3)), ("x-max-length", AMQPValue::LongInt(7))];
    let refused = redeclare(&server, &with_limit).await.unwrap_err();
    assert!(
        refused.contains(
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'tasks' in vhost '/': received the value '7' of \
             type 'signedint' but current is none"
        ),
        "{refused}"
    );
    set(&server, PolicyKind::User, "deploys", "redeclare", "update").await;
    redeclare(&server, &with_limit).await.unwrap();
    let refused = redeclare(&server, &[("x-max-priority", AMQPValue::LongInt(4))]).await.unwrap_err();
    assert!(
        refused.contains(
            "PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'tasks' in vhost '/': received '4' but current \
             is '3'"
        ),
        "{refused}"
    );

    let (_copy, server) = start_on_remains_of(directory.path()).await;
    redeclare(&server, &with_limit).await.unwrap();
    let spec = server.board().topology().queue(VhostId(0), "tasks").cloned().unwrap();
    assert_eq!(spec.settings.length_max, Some(7));
}

/// A queue with `a`, `b` and `c`, all of one tenant.
async fn filled(channel: &Channel, queue: &str, arguments: &[(&str, AMQPValue)]) {
    declare(channel, queue, arguments).await;
    for body in ["a", "b", "c"] {
        publish(channel, ("", queue), body, of_tenant()).await;
    }
}

fn of_tenant() -> BasicProperties {
    BasicProperties::default()
        .with_headers(table(&[("tenant", text("acme")), ("x-deduplication-header", text("acme"))]))
}

/// Takes the first message and keeps it.
async fn hold(channel: &Channel, queue: &str) -> BasicGetMessage {
    channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap().unwrap()
}

async fn give_back(held: BasicGetMessage, requeue: bool) {
    held.acker.nack(BasicNackOptions { requeue, multiple: false }).await.unwrap();
}

#[tokio::test]
async fn what_a_policy_says_holds_at_once_for_messages_that_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let number = |number: i64| amqp::Value::from(number);
    let word = |word: &str| amqp::Value::from(word);
    let to_graves = [("dead-letter-exchange", word("")), ("dead-letter-routing-key", word("graves"))];
    let with_graves = |more: &[(&'static str, amqp::Value)]| [&to_graves, more].concat();
    declare(&channel, "graves", &[]).await;
    let mut graves = consume(&open(&server).await, "graves").await;

    // Of three messages so many are left.
    for (queue, limit, left) in [("tasks.length", "max-length", 1), ("tasks.bytes", "max-length-bytes", 2)] {
        filled(&channel, queue, &[]).await;
        set_for(&server, queue, &[(limit, number(left))]).await;
        eventually_places(&server, queue, (left as u64, 0, 0)).await;
    }
    filled(&channel, "tasks.overflow", &[]).await;
    set_for(&server, "tasks.overflow", &[("max-length", number(3)), ("overflow", word("reject-publish"))]).await;
    let confirm =
        channel.basic_publish("".into(), "tasks.overflow".into(), Default::default(), b"d", Default::default());
    assert!(confirm.await.unwrap().await.unwrap().is_nack());

    // What is held when it comes.
    filled(&channel, "tasks.dead", &[]).await;
    let held = hold(&channel, "tasks.dead").await;
    set_for(&server, "tasks.dead", &to_graves).await;
    give_back(held, false).await;
    assert_eq!(body(&next(&mut graves).await), "a");
    filled(&channel, "tasks.limit", &[]).await;
    let held = hold(&channel, "tasks.limit").await;
    set_for(&server, "tasks.limit", &with_graves(&[("delivery-limit", number(0))])).await;
    give_back(held, true).await;
    let letter = next(&mut graves).await;
    let headers = letter.properties.headers().clone().unwrap();
    assert_eq!(headers.inner().get("x-first-death-reason"), Some(&text("delivery_limit")));
    filled(&channel, "tasks.kept", &[]).await;
    let held = hold(&channel, "tasks.kept").await;
    let strategy = [("dead-letter-exchange", word("amq.fanout")), ("dead-letter-strategy", word("at-least-once"))];
    set_for(&server, "tasks.kept", &strategy).await;
    give_back(held, false).await;
    eventually_owed(&server, "tasks.kept", 1).await;
    set_for(&server, "tasks.kept", &with_graves(&[])).await;
    assert_eq!(body(&next(&mut graves).await), "a", "it has somewhere to go now");
    filled(&channel, "tasks.retry", &[]).await;
    let held = hold(&channel, "tasks.retry").await;
    set_for(&server, "tasks.retry", &[("delayed-retry-type", word("all")), ("delayed-retry-min", number(60_000))])
        .await;
    give_back(held, true).await;
    eventually_places(&server, "tasks.retry", (2, 0, 1)).await;
    filled(&channel, "tasks.timeout", &[("x-consumer-timeout-action", text("return"))]).await;
    let worker = open(&server).await;
    worker.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let mut late = consume(&worker, "tasks.timeout").await;
    assert!(!next(&mut late).await.redelivered);
    set_for(&server, "tasks.timeout", &[("consumer-timeout", number(1))]).await;
    let again = next(&mut late).await;
    assert_eq!((body(&again), again.redelivered), ("a", true));

    // Who asks gets no more than it says.
    for (queue, definition) in [
        ("tasks.rate", ("rate-limit", word("1/h"))),
        ("tasks.flight", ("max-in-flight", number(1))),
        ("tasks.tenants", ("group-rate-limit", word("1/h"))),
    ] {
        filled(&channel, queue, &[("x-group-key", text("tenant")), ("x-group-max-in-flight", AMQPValue::LongInt(9))])
            .await;
        set_for(&server, queue, &[definition]).await;
        let _held = hold(&channel, queue).await;
        assert!(channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap().is_none(), "{queue}");
    }
    // What comes from then on.
    filled(&channel, "tasks.ttl", &[]).await;
    set_for(&server, "tasks.ttl", &with_graves(&[("message-ttl", number(1))])).await;
    publish(&channel, ("", "tasks.ttl"), "d", Default::default()).await;
    assert_eq!(body(&next(&mut graves).await), "d");
    assert_eq!(places(&server, "tasks.ttl").await, (3, 0, 0));
    filled(&channel, "tasks.once", &[]).await;
    set_for(&server, "tasks.once", &[("x-message-deduplication", amqp::Value::Bool(true))]).await;
    for _ in 0..2 {
        publish(&channel, ("", "tasks.once"), "d", of_tenant()).await;
    }
    assert_eq!(places(&server, "tasks.once").await, (4, 0, 0));
    declare(&channel, "tasks.expires", &[]).await;
    set_for(&server, "tasks.expires", &[("expires", number(1))]).await;
    eventually("it expires", || server.board().topology().queue(VhostId(0), "tasks.expires").is_none()).await;

    let queues = "length bytes overflow dead limit kept retry timeout rate flight tenants ttl once";
    let queues: Vec<String> = queues.split(' ').map(|queue| format!("tasks.{queue}")).collect();
    let before: Vec<QueueSettings> = queues.iter().map(|queue| settings(&server, queue)).collect();
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        for (queue, before) in queues.iter().zip(&before) {
            assert_eq!(settings(&server, queue), *before, "{queue}");
        }
    }
}

#[tokio::test]
async fn what_a_policy_allows_again_goes_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let number = |number: i64| amqp::Value::from(number);
    let word = |word: &str| amqp::Value::from(word);
    let with_room = [("x-group-key", text("tenant")), ("x-group-max-in-flight", AMQPValue::LongInt(9))];
    for (queue, arguments, key, narrow, wide) in [
        ("tasks.rate", &[][..], "rate-limit", word("1/h"), word("1000/s")),
        ("tasks.flight", &[], "max-in-flight", number(1), number(3)),
        ("tasks.tenants", &with_room, "group-rate-limit", word("1/h"), word("1000/s")),
        ("tasks.groups", &with_room, "group-max-in-flight", number(1), number(3)),
    ] {
        filled(&channel, queue, arguments).await;
        set_for(&server, queue, &[(key, narrow)]).await;
        let mut consumer = consume(&open(&server).await, queue).await;
        assert_eq!(body(&next(&mut consumer).await), "a");
        eventually_places(&server, queue, (2, 1, 0)).await;
        set_for(&server, queue, &[(key, wide)]).await;
        assert_eq!([body(&next(&mut consumer).await), body(&next(&mut consumer).await)], ["b", "c"], "{queue}");
    }
    // A full queue that may be longer takes more, …
    filled(&channel, "tasks.overflow", &[]).await;
    let full = |most| [("max-length", number(most)), ("overflow", word("reject-publish"))];
    let is_taken = async || {
        let publish =
            channel.basic_publish("".into(), "tasks.overflow".into(), Default::default(), b"d", Default::default());
        publish.await.unwrap().await.unwrap().is_ack()
    };
    set_for(&server, "tasks.overflow", &full(3)).await;
    assert!(!is_taken().await);
    set_for(&server, "tasks.overflow", &full(4)).await;
    assert!(is_taken().await);
    // … and letters that it refused come in.
    let to_full = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("tasks.overflow"))];
    filled(&channel, "source", &to_full).await;
    give_back(hold(&channel, "source").await, false).await;
    eventually_owed(&server, "source", 1).await;
    set_for(&server, "tasks.overflow", &full(5)).await;
    eventually_owed(&server, "source", 0).await;
    eventually_places(&server, "tasks.overflow", (5, 0, 0)).await;
}

#[tokio::test]
async fn an_exchange_gets_its_alternate_at_once_and_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("orders".into(), ExchangeKind::Direct, options, table(&[])).await.unwrap();
    declare(&channel, "lost", &[]).await;
    channel.queue_bind("lost".into(), "amq.fanout".into(), "".into(), Default::default(), table(&[])).await.unwrap();
    let alternate = [("alternate-exchange", amqp::Value::from("amq.fanout"))];
    set_policy(&server, PolicyKind::User, AppliesTo::Exchanges, ("lost", "^orders$"), &alternate).await;
    publish(&channel, ("orders", "nowhere"), "1", Default::default()).await;
    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    let channel = open_confirming(&killed).await;
    publish(&channel, ("orders", "nowhere"), "2", Default::default()).await;
    let mut lost = consume(&channel, "lost").await;
    assert_eq!([body(&next(&mut lost).await), body(&next(&mut lost).await)], ["1", "2"]);
}

#[tokio::test]
async fn each_argument_that_can_change_does_so_by_another_declare_and_stays_so_after_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open(&server).await;
    set(&server, PolicyKind::User, "deploys", "redeclare", "update").await;
    let int = AMQPValue::LongInt;
    let base = vec![
        ("x-group-key", text("tenant")),
        ("x-dead-letter-exchange", text("")),
        ("x-message-deduplication", AMQPValue::Boolean(true)),
        ("x-delayed-retry-type", text("all")),
    ];
    let changes = [
        ("x-message-ttl", int(1_000)),
        ("x-expires", int(60_000)),
        ("x-max-length", int(5)),
        ("x-max-length-bytes", int(500)),
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-exchange", text("amq.fanout")),
        ("x-dead-letter-routing-key", text("graves")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-delivery-limit", int(3)),
        ("x-consumer-timeout", int(7_000)),
        ("x-consumer-timeout-action", text("return")),
        ("x-delayed-retry-type", text("disabled")),
        ("x-delayed-retry-min", int(10)),
        ("x-delayed-retry-max", int(9_000)),
        ("x-delayed-retry-backoff", text("exponential")),
        ("x-delayed-retry-jitter", int(20)),
        ("x-group-max-in-flight", int(2)),
        ("x-group-rate-limit", text("3/s")),
        ("x-rate-limit", text("600/m")),
        ("x-max-in-flight", int(4)),
        ("x-message-deduplication", AMQPValue::Boolean(false)),
        ("x-cache-size", int(10)),
        ("x-cache-ttl", int(5_000)),
        ("x-deduplication-header", text("order")),
        ("x-deduplication-key", text("message-id")),
    ];
    let changed = |name, value: &AMQPValue| {
        let others = base.iter().filter(|(other, _)| *other != name).cloned();
        others.chain([(name, value.clone())]).collect::<Vec<_>>()
    };
    for (name, value) in &changes {
        let (queue, fresh) = (format!("tasks {name}"), format!("fresh {name}"));
        declare(&channel, &queue, &base).await;
        let before = settings(&server, &queue);
        declare(&channel, &fresh, &changed(name, value)).await;
        assert_ne!(before, settings(&server, &fresh), "{name} says nothing");
        declare(&channel, &queue, &changed(name, value)).await;
        assert_eq!(settings(&server, &queue), settings(&server, &fresh), "{name}");
        declare(&channel, &queue, &base).await;
        assert_eq!(settings(&server, &queue), before, "{name} was taken back");
        declare(&channel, &queue, &changed(name, value)).await;
    }
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        for (name, _) in &changes {
            assert_eq!(
                settings(&server, &format!("tasks {name}")),
                settings(&server, &format!("fresh {name}")),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_decided_when_a_queue_is_made_is_refused_whatever_a_policy_says() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    set(&server, PolicyKind::User, "deploys", "redeclare", "update").await;
    declare(&open(&server).await, "tasks", &[("x-group-key", text("tenant"))]).await;
    let grouped = ("x-group-key", text("tenant"));
    for (name, arguments, expected) in [
        (
            "x-queue-type",
            vec![grouped.clone(), ("x-queue-type", text("quorum"))],
            "received 'quorum' but current is 'classic'",
        ),
        (
            "x-max-priority",
            vec![grouped.clone(), ("x-max-priority", AMQPValue::LongInt(4))],
            "received the value '4' of type 'signedint' but current is none",
        ),
        (
            "x-single-active-consumer",
            vec![grouped.clone(), ("x-single-active-consumer", AMQPValue::Boolean(true))],
            "received the value 'true' of type 'bool' but current is none",
        ),
        ("x-group-key", vec![("x-group-key", text("customer"))], "received 'customer' but current is 'tenant'"),
        (
            "x-group-fair",
            vec![grouped.clone(), ("x-group-fair", AMQPValue::Boolean(true))],
            "received the value 'true' of type 'bool' but current is none",
        ),
    ] {
        let refused = redeclare(&server, &arguments).await.unwrap_err();
        let expected =
            format!("PRECONDITION_FAILED - inequivalent arg '{name}' for queue 'tasks' in vhost '/': {expected}");
        assert!(refused.contains(&expected), "{refused}, and not {expected}");
    }
}
