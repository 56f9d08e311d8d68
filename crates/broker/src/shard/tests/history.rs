//! Recent messages of exchanges that keep some.

use super::*;

const LENGTH: u32 = 3;

fn keep(generation: u64, body: &str) -> Command {
    let Publish { message, .. } = publication(&[1], body, &PropertyList::default());
    let (expiration_ms, priority, persistent) = (None, None, false);
    let recent = Recent { exchange: 7, length: LENGTH, generation, message, persistent, expiration_ms, priority };
    Command::Keep(Box::new(recent))
}

fn recall(world: &mut World, generation: u64, queue: u64) {
    let to = Recipient::Queue(QueueRef { id: QueueId(queue), shard: ShardId(0) });
    world.step(vec![ShardInput::Recall { exchange: 7, generation, to }]);
}

#[test]
fn the_last_messages_go_to_whoever_is_bound() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.queue(2, QueueSettings::default());
    ["a", "b", "c", "d"].iter().for_each(|body| world.command(9, keep(1, body)));
    recall(&mut world, 2, 1);
    world.command(9, keep(2, "e"));
    recall(&mut world, 3, 2);
    assert_eq!(world.drain(1), ["b", "c", "d"]);
    assert_eq!(world.drain(2), ["c", "d", "e"]);
    world.step(vec![ShardInput::ForgetHistory { exchange: 7 }]);
    recall(&mut world, 4, 1);
    assert_eq!(world.drain(1), [""; 0]);
}

#[test]
fn a_message_that_was_routed_before_a_binding_goes_there_once_however_late_it_comes() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.command(9, keep(5, "routed by the topology with the binding"));
    recall(&mut world, 5, 1);
    world.command(9, keep(4, "routed before, and late"));
    world.command(9, keep(5, "routed there"));
    assert_eq!(world.drain(1), ["routed before, and late"]);
}

#[test]
fn a_queue_in_another_shard_is_sent_a_transfer() {
    let mut world = World::new();
    world.command(9, keep(1, "a"));
    let to = Recipient::Queue(QueueRef { id: QueueId(5), shard: ShardId(1) });
    world.step(vec![ShardInput::Recall { exchange: 7, generation: 2, to }]);
    assert!(
        matches!(&world.out.shards[..], [(ShardId(1), ShardInput::Transfer { publish, .. })] if *publish.queues == [QueueId(5)])
    );
}

#[test]
fn what_is_kept_takes_no_more_memory_than_it_may() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    let long = "x".repeat(9 << 20);
    for _ in 0..3 {
        world.command(9, keep(1, &long));
    }
    recall(&mut world, 2, 1);
    assert_eq!(world.depths(1), (1, 0));
}
