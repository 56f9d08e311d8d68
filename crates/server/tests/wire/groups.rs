//! Message groups as a client sees them.

use super::*;
use crate::real_client::{
    body, consume, declare, get, next, open, open_confirming, publish, start_on_remains_of, table, text,
};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use real_client::{Channel, Consumer};

const BY_TENANT: (&str, &str) = ("x-group-key", "tenant");

fn by_tenant(more: &[(&'static str, AMQPValue)]) -> Vec<(&'static str, AMQPValue)> {
    [&[(BY_TENANT.0, text(BY_TENANT.1))], more].concat()
}

/// Publishes `a1` to the group `a`, and so on.
async fn publish_all(channel: &Channel, bodies: &str) {
    for body in bodies.split(' ') {
        let properties = BasicProperties::default().with_headers(table(&[("tenant", text(&body[..1]))]));
        publish(channel, ("", "jobs"), body, properties).await;
    }
}

async fn worker(server: &Server, prefetch: u16) -> (Channel, Consumer) {
    let channel = open(server).await;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
    let consumer = consume(&channel, "jobs").await;
    (channel, consumer)
}

async fn ack(delivery: &Delivery) {
    delivery.ack(BasicAckOptions::default()).await.unwrap();
}

/// Nothing comes for it that was on its way when somebody was asked who knows.
async fn expect_nothing(server: &Server, ready: u64, unacked: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let views = server.board().inspect_queues().await.unwrap();
        let view = views.iter().find(|view| &*view.spec.name == "jobs").unwrap();
        if (view.ready, view.unacked) == (ready, unacked) {
            return;
        }
        assert!(Instant::now() < deadline, "{} are ready, and {} unacked", view.ready, view.unacked);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_busy_key_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let producer = open_confirming(&server).await;
    declare(&producer, "jobs", &by_tenant(&[])).await;
    publish_all(&producer, "a1 a2 b1 a3 b2").await;
    let (_first, mut first) = worker(&server, 10).await;
    let a1 = next(&mut first).await;
    let b1 = next(&mut first).await;
    assert_eq!((body(&a1), body(&b1)), ("a1", "b1"));
    let (_second, mut second) = worker(&server, 10).await;
    expect_nothing(&server, 3, 2).await;
    ack(&b1).await;
    // Who has room gets it: either of the two.
    let b2 = tokio::select! { got = next(&mut first) => got, got = next(&mut second) => got };
    assert_eq!(body(&b2), "b2");
    // What comes back goes first.
    a1.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    let again = tokio::select! { got = next(&mut first) => got, got = next(&mut second) => got };
    assert_eq!((body(&again), again.redelivered), ("a1", true));
    ack(&again).await;
    let a2 = tokio::select! { got = next(&mut first) => got, got = next(&mut second) => got };
    assert_eq!(body(&a2), "a2");
}

#[tokio::test]
async fn a_key_in_flight_several_times_stays_with_its_consumer() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let producer = open_confirming(&server).await;
    declare(&producer, "jobs", &by_tenant(&[("x-group-max-in-flight", AMQPValue::LongInt(3))])).await;
    let (first_channel, mut first) = worker(&server, 2).await;
    publish_all(&producer, "a1").await;
    assert_eq!(body(&next(&mut first).await), "a1");
    let (_second, mut second) = worker(&server, 10).await;
    publish_all(&producer, "a2 a3 b1").await;
    assert_eq!(body(&next(&mut first).await), "a2");
    assert_eq!(body(&next(&mut second).await), "b1");
    expect_nothing(&server, 1, 3).await;
    // The consumer dies, and all that it had goes in order to the other one.
    drop(first);
    first_channel.close(200, "".into()).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(body(&next(&mut second).await).to_owned());
    }
    assert_eq!(order, ["a1", "a2", "a3"]);
}

#[tokio::test]
async fn groups_are_learnt_again_after_a_stop_and_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let producer = open_confirming(&server).await;
    declare(&producer, "jobs", &by_tenant(&[])).await;
    publish_all(&producer, "a1 a2 a3 b1").await;
    let (_worker, mut consumer) = worker(&server, 10).await;
    assert_eq!(body(&next(&mut consumer).await), "a1");

    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    check_order(&killed).await;
    killed.stop().await.unwrap();
    server.stop().await.unwrap();
    let (server, _address) = start(directory.path()).await;
    check_order(&server).await;
}

async fn check_order(server: &Server) {
    let (_first, mut first) = worker(server, 10).await;
    let a1 = next(&mut first).await;
    let b1 = next(&mut first).await;
    assert_eq!((body(&a1), body(&b1)), ("a1", "b1"));
    expect_nothing(server, 2, 2).await;
    ack(&a1).await;
    let a2 = next(&mut first).await;
    assert_eq!(body(&a2), "a2");
}

#[tokio::test]
async fn a_small_tenant_does_not_wait_for_a_large_one_after_a_stop_and_a_kill_either() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let producer = open_confirming(&server).await;
    declare(&producer, "jobs", &by_tenant(&[("x-group-fair", AMQPValue::Boolean(true))])).await;
    publish_all(&producer, "a1 a2 a3 a4 a5 a6 b1 b2").await;
    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    let check_turns = async |server: &Server| {
        let (_worker, mut consumer) = worker(server, 1).await;
        let mut order = Vec::new();
        for _ in 0..8 {
            let delivery = next(&mut consumer).await;
            order.push(body(&delivery).to_owned());
            ack(&delivery).await;
        }
        assert_eq!(order, ["a1", "b1", "a2", "b2", "a3", "a4", "a5", "a6"]);
    };
    check_turns(&killed).await;
    check_turns(&server).await;
    publish_all(&producer, "a1 a2 a3 a4 a5 a6 b1 b2").await;
    server.stop().await.unwrap();
    let (stopped, _address) = start(directory.path()).await;
    check_turns(&stopped).await;
}

#[tokio::test]
async fn gets_purges_and_dead_letters_keep_to_groups() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let producer = open_confirming(&server).await;
    declare(&producer, "graves", &[]).await;
    let dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("graves"))];
    declare(&producer, "jobs", &by_tenant(&dead)).await;
    publish_all(&producer, "a1 a2 a3").await;
    let got = producer.basic_get("jobs".into(), Default::default()).await.unwrap().unwrap();
    assert_eq!(got.data, b"a1");
    assert!(get(&producer, "jobs").await.is_none(), "the group is busy");
    got.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    let got = producer.basic_get("jobs".into(), Default::default()).await.unwrap().unwrap();
    assert_eq!(got.data, b"a2");
    let letter = get(&producer, "graves").await.unwrap();
    assert_eq!(letter.data, b"a1");
    let purged = producer.queue_purge("jobs".into(), QueuePurgeOptions::default()).await.unwrap();
    assert_eq!(purged, 1);
    publish_all(&producer, "a4").await;
    got.ack(BasicAckOptions::default()).await.unwrap();
    assert_eq!(get(&producer, "jobs").await.unwrap().data, b"a4");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    for (arguments, why) in [
        (
            vec![("x-group-key", AMQPValue::LongInt(1))],
            "invalid arg 'x-group-key' for queue 'jobs' in vhost '/': {unacceptable_type,signedint}",
        ),
        (
            vec![("x-group-fair", AMQPValue::Boolean(true))],
            "invalid arg 'x-group-fair' for queue 'jobs' in vhost '/': group_option_but_no_group_key_defined",
        ),
        (
            by_tenant(&[("x-group-max-in-flight", AMQPValue::LongInt(0))]),
            "invalid arg 'x-group-max-in-flight' for queue 'jobs' in vhost '/': {value_zero,0}",
        ),
        (
            by_tenant(&[("x-group-rate-limit", text("5/d"))]),
            "invalid arg 'x-group-rate-limit' for queue 'jobs' in vhost '/': \"expected N, N/s, N/m or N/h, got 5/d\"",
        ),
    ] {
        let channel = open(&server).await;
        let options = QueueDeclareOptions::default();
        let refused = channel.queue_declare("jobs".into(), options, table(&arguments)).await.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&format!("PRECONDITION_FAILED - {why}")), "{text}");
    }
    let channel = open(&server).await;
    declare(&channel, "jobs", &by_tenant(&[])).await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let refused = channel.queue_declare("jobs".into(), options, FieldTable::default()).await.unwrap_err().to_string();
    let why = "inequivalent arg 'x-group-key' for queue 'jobs' in vhost '/': received none but current is the value \
               'tenant' of type 'longstr'";
    assert!(refused.contains(why), "{refused}");
}

#[tokio::test]
async fn a_quorum_queue_goes_to_the_single_active_consumer_of_the_highest_priority() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _address) = start(directory.path()).await;
    let producer = open_confirming(&server).await;
    let arguments = [("x-queue-type", text("quorum")), ("x-single-active-consumer", AMQPValue::Boolean(true))];
    declare(&producer, "jobs", &arguments).await;
    publish_all(&producer, "a1 a2").await;
    let (_low, mut low) = worker(&server, 1).await;
    let a1 = next(&mut low).await;
    let channel = open(&server).await;
    let priority = table(&[("x-priority", AMQPValue::LongInt(5))]);
    let options = BasicConsumeOptions::default();
    let mut high = channel.basic_consume("jobs".into(), "".into(), options, priority).await.unwrap();
    expect_nothing(&server, 1, 1).await;
    ack(&a1).await;
    assert_eq!(body(&next(&mut high).await), "a2");
}
