//! Who is served first: priorities of messages and of consumers, one consumer at a time, as a client sees them.

use super::real_client::*;
use super::*;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

const ONE_AT_A_TIME: (&str, AMQPValue) = ("x-single-active-consumer", AMQPValue::Boolean(true));

/// A consumer of that priority on a connection of its own.
async fn worker(server: &Server, priority: i32, prefetch: u16) -> (Channel, Consumer) {
    let channel = open(server).await;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
    let arguments = table(&[("x-priority", AMQPValue::LongInt(priority))]);
    let consumer = channel.basic_consume("jobs".into(), "".into(), BasicConsumeOptions::default(), arguments).await;
    (channel, consumer.unwrap())
}

async fn leave(channel: Channel) {
    channel.close(200, "".into()).await.unwrap();
}

async fn exclusive(server: &Server) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions { exclusive: true, ..Default::default() };
    open(server).await.basic_consume("jobs".into(), "".into(), options, FieldTable::default()).await
}

async fn publish_all(server: &Server, bodies: &[&str]) {
    let channel = open_confirming(server).await;
    for body in bodies {
        publish(&channel, ("", "jobs"), body, Default::default()).await;
    }
}

async fn expect(consumer: &mut Consumer, bodies: &[&str]) {
    for expected in bodies {
        let delivery = next(consumer).await;
        assert_eq!(body(&delivery), *expected);
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn messages_of_high_priority_go_first_after_a_stop_and_a_kill_too() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let priorities = [("x-max-priority", AMQPValue::LongInt(200))];
    declare(&channel, "jobs", &priorities).await;
    for (priority, body) in
        [(Some(0), "5"), (Some(200), "1"), (Some(3), "4"), (None, "6"), (Some(255), "2"), (Some(199), "3")]
    {
        let properties = priority.map(|priority| BasicProperties::default().with_priority(priority));
        publish(&channel, ("", "jobs"), body, properties.unwrap_or_default()).await;
    }
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let (_channel, mut consumer) = worker(&server, 0, 1).await;
        expect(&mut consumer, &["1", "2", "3"]).await;
        let urgent = BasicProperties::default().with_priority(4);
        let held = next(&mut consumer).await;
        publish(&open_confirming(&server).await, ("", "jobs"), "urgent", urgent).await;
        assert_eq!(body(&held), "4");
        held.ack(BasicAckOptions::default()).await.unwrap();
        expect(&mut consumer, &["urgent", "5", "6"]).await;
    }
}

#[tokio::test]
async fn consumers_of_low_priority_get_what_the_others_have_no_room_for() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    declare(&open(&server).await, "jobs", &[]).await;
    let (_low_channel, mut low) = worker(&server, -1, 10).await;
    let (usual_channel, mut usual) = worker(&server, 0, 1).await;
    let (_high_channel, mut high) = worker(&server, 7, 2).await;
    publish_all(&server, &["a", "b", "c", "d"]).await;
    let first = next(&mut high).await;
    assert_eq!([body(&first), body(&next(&mut high).await)], ["a", "b"]);
    assert_eq!([body(&next(&mut usual).await), body(&next(&mut low).await)], ["c", "d"]);
    first.ack(BasicAckOptions::default()).await.unwrap();
    publish_all(&server, &["e"]).await;
    assert_eq!(body(&next(&mut high).await), "e");
    // What comes back goes to who has room by then.
    leave(usual_channel).await;
    assert_eq!(body(&next(&mut low).await), "c");
}

#[tokio::test]
async fn one_consumer_at_a_time_is_followed_by_the_waiting_one_of_the_highest_priority() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    declare(&open(&server).await, "jobs", &[ONE_AT_A_TIME]).await;
    publish_all(&server, &["a", "b"]).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        // The first is active, and no newcomer takes that from it, whatever its priority is.
        let (active_channel, mut active) = worker(&server, 0, 1).await;
        let (_second_channel, _second) = worker(&server, 1, 1).await;
        let (third_channel, mut third) = worker(&server, 5, 1).await;
        expect(&mut active, &["a"]).await;
        assert_eq!(body(&next(&mut active).await), "b");
        let views = server.board().inspect_queues().await.unwrap();
        let active_ones: Vec<u32> = views[0].consumers.iter().filter(|one| one.active).map(|one| one.unacked).collect();
        assert_eq!(active_ones, [1], "one, who has the message");
        leave(active_channel).await;
        let again = next(&mut third).await;
        assert_eq!((body(&again), again.redelivered), ("b", true));
        leave(third_channel).await;
        eventually_places(&server, "jobs", (0, 1, 0)).await;
    }
}

#[tokio::test]
async fn an_exclusive_consumer_keeps_others_away_until_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    declare(&open(&server).await, "jobs", &[]).await;
    declare(&open(&server).await, "one at a time", &[ONE_AT_A_TIME]).await;
    publish_all(&server, &["a"]).await;
    let mut owner = exclusive(&server).await.unwrap();
    assert_eq!(body(&next(&mut owner).await), "a");
    let in_use = "ACCESS_REFUSED - queue 'jobs' in vhost '/' in exclusive use";
    let asked = open(&server).await;
    let another = asked.basic_consume("jobs".into(), "".into(), Default::default(), FieldTable::default()).await;
    for refused in [another, exclusive(&server).await] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(in_use), "{refused}");
    }
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        let channel = open(&server).await;
        let mut other = consume(&channel, "jobs").await;
        assert_eq!(body(&next(&mut other).await), "a");
        let refused = exclusive(&server).await.unwrap_err().to_string();
        assert!(refused.contains(in_use), "{refused}");
        channel.basic_cancel(other.tag(), BasicCancelOptions::default()).await.unwrap();
        exclusive(&server).await.unwrap();
        // Two ways of being alone exclude each other.
        let options = BasicConsumeOptions { exclusive: true, ..Default::default() };
        let asked = open(&server).await;
        let asked = asked.basic_consume("one at a time".into(), "".into(), options, FieldTable::default()).await;
        let refused = asked.unwrap_err().to_string();
        assert!(refused.contains("ACCESS_REFUSED - queue 'one at a time' in vhost '/' in exclusive use"), "{refused}");
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let asked = open(&server).await.queue_declare("one at a time".into(), options, FieldTable::default()).await;
        let refused = asked.unwrap_err().to_string();
        let expected = "PRECONDITION_FAILED - inequivalent arg 'x-single-active-consumer' for queue 'one at a time' in vhost \
                        '/': received none but current is the value 'true' of type 'bool'";
        assert!(refused.contains(expected), "{refused}");
    }
}
