//! Time to live, length limits and priorities.

use super::*;

fn expiring(body: &str, ms: u64) -> Command {
    let list = PropertyList { expiration: Some(ms.to_string().into_bytes()), ..PropertyList::default() };
    Command::Publish(publication(&[1], body, &list))
}

fn refused(world: &mut World) -> Vec<u32> {
    world.command(9, Command::Mark { mark: 1 });
    world.settle_down();
    let stored = world.events().into_iter().find_map(|(_, event)| match event {
        ConnectionEvent::Stored { refused, .. } => Some(refused),
        _ => None,
    });
    stored.unwrap()
}

#[test]
fn a_message_expires_at_its_own_or_the_queues_time_whichever_is_first() {
    let mut world = World::new();
    world.queue(1, QueueSettings { message_ttl_ms: Some(100), ..QueueSettings::default() });
    world.commands(9, vec![expiring("a", 30), publish(&[1], "b"), expiring("c", 5_000)]);
    assert_eq!(world.shard.deadline(), Some(world.now.ms + 30));
    world.pass(30);
    assert_eq!(world.depths(1), (2, 0));
    assert_eq!(world.shard.deadline(), Some(world.now.ms + 70));
    world.pass(70);
    assert_eq!(world.depths(1), (0, 0));
    assert_eq!(world.view(1).counters.expired, 3);
    assert_eq!(world.shard.deadline(), None);
}

#[test]
fn a_message_expires_behind_a_head_that_stays() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.commands(9, vec![publish(&[1], "a"), expiring("b", 10), publish(&[1], "c")]);
    assert_eq!(world.shard.deadline(), Some(world.now.ms + 10));
    world.pass(10);
    assert_eq!(world.depths(1), (2, 0));
    assert_eq!(world.shard.deadline(), None);
    assert_eq!(world.drain(1), ["a", "c"]);
}

#[test]
fn a_message_without_time_to_live_goes_to_a_waiting_consumer_or_nowhere() {
    let mut world = World::new();
    world.queue(1, QueueSettings { message_ttl_ms: Some(0), ..QueueSettings::default() });
    world.publish(1, "lost");
    assert_eq!(world.depths(1), (0, 0));
    world.consume(1, 1, 1, 1);
    world.commands(9, vec![publish(&[1], "a"), publish(&[1], "b")]);
    assert_eq!(world.bodies(), ["a"]);
    assert_eq!(world.depths(1), (0, 1));
    world.settle(1, 2, Settlement::Requeue);
    assert!(world.bodies().is_empty(), "it comes back within its millisecond");
    assert_eq!(world.depths(1), (0, 0));
}

#[test]
fn an_unacked_message_expires_when_it_comes_back() {
    let mut world = World::new();
    world.queue(1, QueueSettings { message_ttl_ms: Some(100), ..QueueSettings::default() });
    world.publish(1, "a");
    world.get(1, 1).unwrap();
    world.pass(200);
    assert_eq!(world.depths(1), (0, 1));
    world.settle(1, 1, Settlement::Requeue);
    assert_eq!(world.depths(1), (0, 0));
}

#[test]
fn a_message_that_came_back_lives_as_long_as_any_other() {
    let mut world = World::new();
    world.queue(1, QueueSettings { message_ttl_ms: Some(100), ..QueueSettings::default() });
    world.publish(1, "a");
    world.get(1, 1).unwrap();
    world.settle(1, 1, Settlement::Requeue);
    world.pass(99);
    assert_eq!(world.depths(1), (1, 0), "a millisecond before its time");
    world.pass(1);
    assert_eq!(world.depths(1), (0, 0));
}

#[test]
fn a_full_queue_drops_its_head_but_nothing_that_was_delivered() {
    let mut world = World::new();
    world.queue(1, QueueSettings { length_max: Some(2), ..QueueSettings::default() });
    world.consume(1, 1, 1, 1);
    world.commands(9, "abcde".chars().map(|body| publish(&[1], &body.to_string())).collect());
    assert_eq!(world.bodies(), ["a"]);
    assert_eq!(world.depths(1), (2, 1));
    assert_eq!(world.drain(1), ["d", "e"]);
    assert_eq!(world.view(1).counters.maxlen, 2);
}

#[test]
fn bodies_are_limited_too_and_a_limit_of_zero_means_deliver_or_drop() {
    let mut world = World::new();
    world.queue(1, QueueSettings { bytes_max: Some(5), ..QueueSettings::default() });
    world.commands(9, ["aaa", "bb", "c"].map(|body| publish(&[1], body)).into());
    assert_eq!(world.drain(1), ["bb", "c"]);
    world.queue(2, QueueSettings { length_max: Some(0), ..QueueSettings::default() });
    world.publish(2, "lost");
    world.consume(1, 1, 2, 0);
    world.publish(2, "x");
    assert_eq!(world.bodies(), ["x"]);
}

#[test]
fn a_full_queue_that_rejects_says_which_and_its_waiting_consumers_come_first() {
    let mut world = World::new();
    let overflow = Overflow::RejectPublish;
    world.queue(1, QueueSettings { length_max: Some(1), overflow, ..QueueSettings::default() });
    world.queue(2, QueueSettings::default());
    world.consume(1, 1, 1, 2);
    world.commands(9, ["a", "b", "c", "d"].map(|body| publish(&[1, 2], body)).into());
    assert_eq!(refused(&mut world), [3]);
    assert_eq!(world.depths(1), (1, 2));
    assert_eq!(world.depths(2), (4, 0), "the others keep it");
    assert_eq!(world.view(1).counters.refused, 1);
    assert_eq!(refused(&mut world), [], "counted from the last mark on");
    world.settle(1, 1, Settlement::Requeue);
    assert_eq!(world.depths(1).0 + world.depths(1).1, 3, "what comes back may exceed the limit");
}

#[test]
fn the_highest_priority_leaves_first_and_is_dropped_first() {
    let mut world = World::new();
    let settings = QueueSettings { priority_max: Some(3), length_max: Some(4), ..QueueSettings::default() };
    world.queue(1, settings);
    let of = |priority: Option<u8>, body: &str| {
        Command::Publish(publication(&[1], body, &PropertyList { priority, ..PropertyList::default() }))
    };
    world.commands(9, vec![of(None, "none"), of(Some(2), "two"), of(Some(200), "clamped"), of(Some(3), "three")]);
    world.commands(9, vec![of(Some(1), "one")]);
    assert_eq!(world.drain(1), ["three", "two", "one", "none"]);
}
