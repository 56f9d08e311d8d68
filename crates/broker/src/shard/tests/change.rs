//! Settings that change while a queue is used.

use super::*;
use crate::operation::Operation;

fn change(world: &mut World, queue: u64, settings: QueueSettings) {
    let spec = QueueSpec { durable: false, ..spec(queue, settings) };
    world.step(vec![ShardInput::ChangeQueues { specs: vec![Arc::new(spec)] }]);
}

#[test]
fn a_shorter_queue_loses_its_excess_at_once() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.commands(9, ["a", "b", "c"].map(|body| publish(&[1], body)).into());
    change(&mut world, 1, QueueSettings { length_max: Some(1), ..QueueSettings::default() });
    assert_eq!(world.view(1).counters.maxlen, 2);
    assert_eq!(world.drain(1), ["c"]);
}

#[test]
fn a_time_to_live_is_for_messages_that_come_later() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.publish(1, "before");
    change(&mut world, 1, QueueSettings { message_ttl_ms: Some(10), ..QueueSettings::default() });
    world.publish(1, "after");
    world.drain(1);
    world.publish(1, "later");
    world.pass(20);
    assert_eq!(world.depths(1), (0, 0));
    assert_eq!(world.view(1).counters.expired, 1);
}

#[test]
fn an_idle_queue_expires_by_its_new_time_and_not_by_the_old_one() {
    let mut world = World::new();
    world.queue(1, QueueSettings { expires_ms: Some(10), ..QueueSettings::default() });
    change(&mut world, 1, QueueSettings { expires_ms: Some(100), ..QueueSettings::default() });
    world.pass(50);
    assert!(world.shard.queue_slots.contains_key(&QueueId(1)));
    change(&mut world, 1, QueueSettings::default());
    world.pass(1_000);
    assert!(world.shard.queue_slots.contains_key(&QueueId(1)));
    change(&mut world, 1, QueueSettings { expires_ms: Some(1_100), ..QueueSettings::default() });
    world.pass(50);
    assert!(!world.shard.queue_slots.contains_key(&QueueId(1)), "unused for long enough");
}

#[test]
fn deliveries_that_are_out_have_the_new_time_to_be_acknowledged() {
    let timed_out = |world: &mut World| {
        let events = world.events();
        events.iter().any(|(_, event)| matches!(event, ConnectionEvent::AckTimeout { timeout_ms: 300, .. }))
    };
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.consume(1, 1, 1, 0);
    world.publish(1, "a");
    world.pass(200);
    change(&mut world, 1, QueueSettings { consumer_timeout_ms: Some(300), ..QueueSettings::default() });
    assert!(!timed_out(&mut world));
    world.pass(99);
    assert!(!timed_out(&mut world));
    world.pass(1);
    assert!(timed_out(&mut world));
}

#[test]
fn what_no_queue_has_any_more_changes_nothing() {
    let mut world = World::new();
    change(&mut world, 1, QueueSettings { length_max: Some(0), ..QueueSettings::default() });
    assert!(world.shard.queue_slots.is_empty());
}

#[test]
fn a_rate_holds_from_the_moment_when_it_is_set() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    change(&mut world, 1, QueueSettings { rate: crate::command::Rate::per_second(1), ..QueueSettings::default() });
    world.consume(1, 1, 1, 0);
    world.commands(9, ["a", "b", "c"].map(|body| publish(&[1], body)).into());
    assert_eq!(world.bodies(), ["a"]);
    world.pass(1_000);
    assert_eq!(world.bodies(), ["b"]);
    change(&mut world, 1, QueueSettings::default());
    assert_eq!(world.bodies(), ["c"]);
}

#[test]
fn a_queue_that_is_declared_with_other_arguments_stays_paused_over_a_restart() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.publish(1, "a");
    world.publish(1, "b");
    world.operate(1, Operation::Pause);
    let arguments: Table = [("x-max-length", 1)].into_iter().collect();
    let settings = QueueSettings { length_max: Some(1), ..QueueSettings::default() };
    let spec = QueueSpec { arguments, ..spec(1, settings) };
    world.step(vec![ShardInput::RedeclareQueue { spec: Arc::new(spec) }]);
    assert_eq!(world.view(1).counters.maxlen, 1, "at once");
    let mut world = world.restart();
    let queue = world.view(1);
    assert!(queue.is_paused);
    assert_eq!(queue.spec.settings.length_max, Some(1));
}
