//! Messages that die, and where they go.

use super::*;
use amqp::{Properties, Value};

pub(super) fn to(key: &str) -> QueueSettings {
    QueueSettings {
        dead_letter_exchange: Some(String::new()),
        dead_letter_key: Some(key.to_owned()),
        ..QueueSettings::default()
    }
}

/// A queue of another shard.
pub(super) fn far() -> QueueSpec {
    let queue = QueueRef { id: QueueId(50), shard: ShardId(1) };
    QueueSpec { queue, name: "far".into(), ..spec(50, QueueSettings::default()) }
}

fn stored(transfer: u64) -> ShardInput {
    ShardInput::TransferStored { transfer, by: ShardId(1) }
}

fn reason_of(delivery: &Delivery) -> String {
    let properties = Properties::parse(delivery.message.properties()).unwrap();
    let headers = properties.headers().unwrap();
    headers.get("x-last-death-reason").and_then(Value::as_str).unwrap().to_owned()
}

#[test]
fn every_reason_leads_to_the_target_in_order() {
    let mut world = World::new();
    world
        .queue(1, QueueSettings { message_ttl_ms: Some(50), length_max: Some(3), delivery_limit: Some(0), ..to("q2") });
    world.queue(2, QueueSettings::default());
    world.commands(9, (0..4).map(|n| publish(&[1], &n.to_string())).collect());
    for how in [Settlement::Discard, Settlement::Requeue] {
        let seq = world.get(1, 1).unwrap().seq.0;
        world.settle(1, seq, how);
    }
    world.pass(50);
    let mut told = Vec::new();
    while let Some(delivery) = world.get(1, 2) {
        assert!(!delivery.redelivered);
        assert_eq!(delivery.message.routing_key(), "q2");
        told.push((delivery.message.body()[0] - b'0', reason_of(&delivery)));
    }
    let expected = [(0, "maxlen"), (1, "rejected"), (2, "delivery_limit"), (3, "expired")];
    assert_eq!(told, expected.map(|(body, reason)| (body, reason.to_owned())));
    assert_eq!(world.depths(1), (0, 0));
}

#[test]
fn a_refused_message_can_be_dead_lettered() {
    let mut world = World::new();
    world.queue(1, QueueSettings { length_max: Some(0), overflow: Overflow::RejectPublishDlx, ..to("q2") });
    world.queue(2, QueueSettings::default());
    world.publish(1, "a");
    assert_eq!(reason_of(&world.get(1, 2).unwrap()), "maxlen");
}

#[test]
fn without_a_target_or_an_exchange_the_message_is_gone() {
    let mut world = World::new();
    world.durable_queue(1, to("nowhere"));
    world.durable_queue(
        2,
        QueueSettings { dead_letter_exchange: Some("missing".to_owned()), ..QueueSettings::default() },
    );
    world.command(9, persistent(&[1, 2], "a"));
    for queue in [1, 2] {
        world.get(1, queue).unwrap();
        world.command(1, settle(queue, 1, Settlement::Discard));
    }
    world.settle_down();
    let mut world = world.restart();
    assert_eq!((world.depths(1), world.depths(2)), ((0, 0), (0, 0)));
}

#[test]
fn a_cycle_without_rejection_ends_and_one_with_it_goes_on() {
    let mut world = World::new();
    world.queue(1, QueueSettings { message_ttl_ms: Some(10), ..to("q2") });
    world.queue(2, QueueSettings { message_ttl_ms: Some(10), ..to("q1") });
    world.publish(1, "a");
    world.pass(10);
    assert_eq!((world.depths(1), world.depths(2)), ((0, 0), (1, 0)));
    world.pass(10);
    assert_eq!((world.depths(1), world.depths(2)), ((0, 0), (0, 0)), "it expired in both");
    world.publish(1, "b");
    for _ in 0..5 {
        let seq = world.get(1, 1).unwrap().seq.0;
        world.settle(1, seq, Settlement::Discard);
        world.pass(10);
    }
    assert_eq!(world.depths(1), (1, 0), "the retry ladder");
}

#[test]
fn queues_that_overflow_into_each_other_do_not_recurse() {
    let mut world = World::new();
    for id in 1..=500 {
        world.queue(id, QueueSettings { length_max: Some(0), ..to(&format!("q{}", id % 500 + 1)) });
    }
    world.publish(1, "a");
    let dropped: u64 = (1..=500).map(|id| world.view(id).counters.maxlen).sum();
    assert_eq!(dropped, 500);
}

#[test]
fn a_letter_within_the_shard_moves_in_one_record() {
    let mut world = World::new();
    world.durable_queue(1, to("q2"));
    world.durable_queue(2, QueueSettings::default());
    world.command(9, persistent(&[1], "a"));
    world.get(1, 1).unwrap();
    world.settle(1, 1, Settlement::Discard);
    world.settle_down();
    let mut world = world.restart();
    assert_eq!((world.depths(1), world.depths(2)), ((0, 0), (1, 0)));
}

#[test]
fn a_letter_for_another_shard_keeps_its_source_until_it_is_stored_there() {
    let mut world = World::new();
    world.durable_queue(1, to("far"));
    world.topology.add_queue(Arc::new(far()));
    world.command(9, persistent(&[1], "a"));
    world.get(1, 1).unwrap();
    world.settle(1, 1, Settlement::Discard);
    let Some((ShardId(1), ShardInput::Transfer { from: ShardId(0), transfer, publish, .. })) = world.out.shards.pop()
    else {
        panic!("{:?}", world.out.shards)
    };
    assert_eq!((&publish.queues[..], publish.persistent), (&[QueueId(50)][..], true));
    assert_eq!(world.view(1).persistent, 1);
    assert!(world.get(1, 1).is_none());

    world.step(vec![stored(transfer)]);
    world.step(vec![stored(transfer)]);
    assert_eq!(world.view(1).persistent, 0);
    world.settle_down();
    let mut world = world.restart();
    assert_eq!(world.depths(1), (0, 0));
}

#[test]
fn a_letter_that_was_on_its_way_at_a_crash_dies_again() {
    let mut world = World::new();
    world.durable_queue(1, to("far"));
    world.topology.add_queue(Arc::new(far()));
    world.command(9, persistent(&[1], "a"));
    world.get(1, 1).unwrap();
    world.settle(1, 1, Settlement::Discard);
    world.settle_down();
    assert_eq!(world.restart().depths(1), (1, 0));
}

#[test]
fn a_letter_from_another_shard_is_answered_when_it_is_durable() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    let Command::Publish(publish) = persistent(&[1], "a") else { unreachable!() };
    let if_refused = IfRefused::Owed;
    world.step(vec![ShardInput::Transfer { from: ShardId(1), transfer: 3, publish, if_refused }]);
    assert!(world.out.shards.is_empty());
    world.settle_down();
    assert!(matches!(world.out.shards[..], [(ShardId(1), ShardInput::TransferStored { transfer: 3, by: ShardId(0) })]));
    assert_eq!(world.depths(1), (1, 0));
}

#[test]
fn a_letter_goes_on_to_another_shard_when_the_one_it_came_from_need_keep_it_no_more() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings { length_max: Some(0), ..to("far") });
        world.topology.add_queue(Arc::new(far()));
        let Command::Publish(publish) = persistent(&[1], "a") else { unreachable!() };
        let if_refused = IfRefused::Owed;
        let mut inbox = vec![ShardInput::Transfer { from: ShardId(1), transfer: 3, publish, if_refused }];
        world.shard.step(world.now, &mut inbox, &world.topology, &mut world.out);
        assert!(world.out.shards.is_empty(), "as long as the disk takes nothing: {:?}", world.out.shards);
        world.settle_down();
        let sent = &world.out.shards[..];
        assert!(
            matches!(sent, [(_, ShardInput::TransferStored { transfer: 3, .. }), (_, ShardInput::Transfer { .. })]),
            "{sent:?}"
        );
        assert_eq!(world.view(1).messages(), 1);
    }
}

#[test]
fn letters_that_wait_for_the_log_go_in_their_order_however_many_they_are() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { length_max: Some(0), ..to("far") });
    world.topology.add_queue(Arc::new(far()));
    // With more than 4,096 on their way none is kept in memory.
    let count = 5_000;
    world.commands(9, (0..count).map(|n| persistent(&[1], &n.to_string())).collect());
    assert_eq!(world.view(1).messages(), count);
    let mut bodies = Vec::new();
    while bodies.len() < count as usize {
        world.settle_down();
        let sent: Vec<_> = world.out.shards.drain(..).collect();
        assert!(!sent.is_empty(), "only {} went", bodies.len());
        let mut answers = Vec::new();
        for (_, input) in sent {
            let ShardInput::Transfer { transfer, publish, .. } = input else { panic!("{input:?}") };
            bodies.push(String::from_utf8(publish.message.body().to_vec()).unwrap());
            answers.push(stored(transfer));
        }
        world.step(answers);
    }
    assert_eq!(bodies, (0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    world.settle_down();
    assert_eq!(world.view(1).messages(), 0);
    assert_eq!(world.restart().view(1).messages(), 0);
}

#[test]
fn a_letter_that_waits_for_the_log_when_the_server_stops_is_there_at_its_next_start() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { length_max: Some(0), ..to("far") });
    world.topology.add_queue(Arc::new(far()));
    let commands = vec![persistent(&[1], "a")];
    world.step(vec![ShardInput::Batch(Batch { connection: ConnectionId(9), commands }), ShardInput::Close]);
    for _ in 0..10 {
        world.step(vec![]);
    }
    assert!(world.out.closed && world.out.shards.is_empty());
    let mut world = world.restart();
    assert_eq!(world.view(1).messages(), 1);
}
