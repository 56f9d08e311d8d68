//! Messages whose bodies are in the log only.

use super::*;

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn fill(world: &mut World, queue: u64, count: u64) {
    (0..count).for_each(|number| world.publish(queue, &number.to_string()));
}

#[test]
fn far_messages_come_back_in_order_whatever_they_are() {
    let mut world = World::without_room();
    world.durable_queue(1, QueueSettings::default());
    for number in 0..60 {
        let command =
            if number % 3 == 0 { persistent(&[1], &number.to_string()) } else { publish(&[1], &number.to_string()) };
        world.command(9, command);
    }
    assert_eq!(world.depths(1), (60, 0));
    assert_eq!(world.drain(1), numbers(0..60));
}

#[test]
fn unacked_messages_that_are_far_go_back_when_their_connection_ends() {
    let mut world = World::without_room();
    world.queue(1, QueueSettings::default());
    fill(&mut world, 1, 50);
    world.consume(1, 1, 1, 0);
    assert_eq!(world.bodies(), numbers(0..50));
    world.settle(1, 7, Settlement::Ack);
    world.settle(1, 8, Settlement::Requeue);
    assert_eq!(world.deliveries(), [Got { connection: 1, consumer: 1, seq: 8, body: "7".into(), redelivered: true }]);
    world.ask(1, |call| Command::CloseConnection { call });
    assert_eq!(world.depths(1), (49, 0));
    let mut expected = numbers(0..50);
    expected.remove(6);
    assert_eq!(world.drain(1), expected);
}

#[test]
fn a_get_that_waits_for_its_message_finds_none_when_its_channel_closes() {
    let mut world = World::without_room();
    world.queue(1, QueueSettings::default());
    fill(&mut world, 1, 3);
    let get = |call| Command::Get { call: CallId(call), channel: ChannelId(1), queue: Q, no_ack: false };
    let close = Command::CloseChannel { call: CallId(74), channel: ChannelId(1) };
    world.commands(1, vec![get(71), get(72), get(73), close]);
    let mut outcome = |call| world.outcome(CallId(call)).unwrap();
    assert!(matches!(outcome(71), Outcome::Got { .. }));
    assert!(matches!((outcome(72), outcome(73)), (Outcome::Empty, Outcome::Empty)));
    assert!(matches!(outcome(74), Outcome::ChannelClosed));
    assert_eq!(world.depths(1), (3, 0));
}

#[test]
fn a_get_that_waits_is_told_when_its_queue_goes() {
    let mut world = World::without_room();
    world.queue(1, QueueSettings::default());
    fill(&mut world, 1, 3);
    let get = |call| Command::Get { call: CallId(call), channel: ChannelId(1), queue: Q, no_ack: true };
    let delete = ShardInput::DeleteQueue { queue: Q, if_unused: false, if_empty: false, ticket: CatalogTicket(1) };
    let batch = Batch { connection: ConnectionId(1), commands: vec![get(71), get(72)] };
    world.step(vec![ShardInput::Batch(batch), delete]);
    assert!(matches!(world.outcome(CallId(71)), Some(Outcome::Got { .. })));
    assert!(matches!(world.outcome(CallId(72)), Some(Outcome::Missed)));
}

#[test]
fn a_purge_leaves_what_is_unacked_and_a_restart_finds_just_that() {
    let mut world = World::without_room();
    world.durable_queue(1, QueueSettings { priority_max: Some(3), ..QueueSettings::default() });
    for number in 0..40 {
        let list = PropertyList { delivery_mode: Some(2), priority: Some(number % 4), ..PropertyList::default() };
        world.command(9, Command::Publish(publication(&[1], &number.to_string(), &list)));
    }
    let held: Vec<u64> = (0..15).map(|_| world.get(1, 1).unwrap().seq.0).collect();
    world.settle(1, held[3], Settlement::Ack);
    let purged = world.ask(2, |call| Command::Purge { call, queue: Q });
    assert!(matches!(purged, Outcome::Purged { messages: 25 }), "{purged:?}");
    assert_eq!(world.depths(1), (0, 14));
    world.settle_down();
    let mut world = world.restart();
    assert_eq!(world.depths(1), (14, 0));
    let mut found: Vec<u64> = (0..14).map(|_| world.get(1, 1).unwrap().seq.0).collect();
    let mut expected = held;
    expected.remove(3);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_far_message_that_dies_is_read_and_dead_lettered() {
    let mut world = World::without_room();
    let settings = QueueSettings {
        dead_letter_exchange: Some(String::new()),
        dead_letter_key: Some("q2".to_owned()),
        message_ttl_ms: Some(1_000),
        ..QueueSettings::default()
    };
    world.durable_queue(1, settings);
    world.durable_queue(2, QueueSettings::default());
    fill(&mut world, 1, 20);
    world.get(1, 1).unwrap();
    world.get(1, 1).unwrap();
    world.settle(1, 1, Settlement::Discard);
    assert_eq!((world.depths(1), world.depths(2)), ((18, 1), (1, 0)));
    world.pass(1_001);
    world.settle_down();
    assert_eq!((world.depths(1), world.depths(2)), ((0, 1), (19, 0)));
    let mut all = numbers(0..20);
    all.remove(1);
    assert_eq!(world.drain(2), all);
}

#[test]
fn transient_messages_in_the_log_do_not_survive() {
    let mut world = World::without_room();
    world.durable_queue(1, QueueSettings::default());
    fill(&mut world, 1, 10);
    world.command(9, persistent(&[1], "kept"));
    world.settle_down();
    let mut world = world.restart();
    assert_eq!(world.drain(1), ["kept"]);
}

#[test]
fn a_long_history_leaves_a_short_log() {
    let mut world = World::without_room();
    world.durable_queue(1, QueueSettings::default());
    world.command(9, persistent(&[1], "old"));
    let old = world.get(1, 1).unwrap().seq.0;
    for number in 0..2_000 {
        world.command(9, persistent(&[1], &format!("{number} {}", "x".repeat(100))));
        let seq = world.get(2, 1).unwrap().seq.0;
        world.command(2, settle(1, seq, Settlement::Ack));
        world.pass(5);
    }
    for _ in 0..100 {
        world.pass(50);
    }
    assert!(world.shard.log.log_bytes() < 60_000, "{}", world.shard.log.log_bytes());
    let mut world = world.restart();
    let found = world.get(1, 1).unwrap();
    assert_eq!((found.seq.0, found.message.body()), (old, &b"old"[..]));
    assert!(world.get(1, 1).is_none());
}

/// Messages that lie between others in the log, so that each is a run of its own.
fn fill_interleaved(world: &mut World, count: u64, list: &PropertyList) {
    let list = || PropertyList { delivery_mode: Some(2), ..list.clone() };
    let commands = (0..count).flat_map(|number| {
        let text = number.to_string();
        [1, 2].map(|queue| Command::Publish(publication(&[queue], &text, &list())))
    });
    world.commands(9, commands.collect());
}

#[test]
fn very_many_that_expire_at_once_go_in_pieces_and_nobody_gets_one_meanwhile() {
    let mut world = World::without_room();
    world.durable_queue(1, QueueSettings { message_ttl_ms: Some(1_000), ..QueueSettings::default() });
    world.durable_queue(2, QueueSettings::default());
    fill_interleaved(&mut world, 20_000, &PropertyList::default());
    world.now.ms += 1_500;
    world.now.unix_ms += 1_500;
    let get = |call| Command::Get { call: CallId(call), channel: ChannelId(1), queue: Q, no_ack: true };
    let batch = Batch { connection: ConnectionId(1), commands: vec![publish(&[1], "live"), get(71)] };
    world.shard.step(world.now, &mut vec![ShardInput::Batch(batch)], &world.topology, &mut world.out);
    assert!(world.outcome(CallId(71)).is_none(), "it is not known yet what is first");
    let left = world.shard.views(Some(Q))[0].ready;
    assert!((2..20_000).contains(&left), "{left}");
    let mut steps = 0;
    while world.shard.deadline() == Some(world.now.ms) {
        world.step(vec![]);
        steps += 1;
    }
    assert!((3..100).contains(&steps), "{steps}");
    let Some(Outcome::Got { delivery, left: 0 }) = world.outcome(CallId(71)) else { panic!("{:?}", world.out) };
    assert_eq!(delivery.message.body(), b"live");
    assert_eq!(world.depths(2), (20_000, 0));
    assert_eq!(world.restart().depths(1), (0, 0));
}

#[test]
fn who_waits_for_others_does_not_wait_for_what_expired() {
    let mut world = World::without_room();
    world.durable_queue(
        1,
        QueueSettings {
            dead_letter_exchange: Some(String::new()),
            dead_letter_key: Some("q2".to_owned()),
            priority_max: Some(1),
            ..QueueSettings::default()
        },
    );
    world.durable_queue(2, QueueSettings::default());
    let low = PropertyList { expiration: Some(b"1000".to_vec()), ..PropertyList::default() };
    let high = PropertyList { priority: Some(1), ..PropertyList::default() };
    for number in 0..10 {
        world.command(9, Command::Publish(publication(&[1], &number.to_string(), &low)));
        world.command(9, Command::Publish(publication(&[1], "high", &high)));
    }
    world.now.ms += 1_500;
    world.now.unix_ms += 1_500;
    let consume = Consume { call: CallId(71), ..consumer_of(1, 1) };
    let batch = Batch { connection: ConnectionId(1), commands: vec![Command::Consume(Box::new(consume))] };
    world.shard.step(world.now, &mut vec![ShardInput::Batch(batch)], &world.topology, &mut world.out);
    assert!(world.shard.readings.len() > 1, "both are read");
    world.settle_down();
    assert_eq!(world.bodies(), ["high"; 10]);
    assert_eq!((world.depths(1), world.depths(2)), ((0, 10), (10, 0)));
}

#[test]
fn the_timestamp_of_a_first_message_that_is_far_is_shown() {
    let mut world = World::without_room();
    world.durable_queue(1, QueueSettings::default());
    for number in 0..3 {
        let list = PropertyList { timestamp: Some(7_000 + number), ..PropertyList::default() };
        world.command(9, Command::Publish(publication(&[1], &number.to_string(), &list)));
    }
    assert_eq!(world.view(1).head_timestamp, Some(7_000));
    let first = world.get(1, 1).unwrap();
    world.settle(1, first.seq.0, Settlement::Ack);
    world.step(vec![ShardInput::Inspect { ticket: 2, queue: None }]);
    world.settle_down();
    world.out.views.clear();
    world.step(vec![ShardInput::Inspect { ticket: 3, queue: None }]);
    assert_eq!(world.out.views[0].1[0].head_timestamp, Some(7_001), "whoever looks again sees it");
}

#[test]
fn many_that_die_together_are_remembered_as_few() {
    let mut world = World::without_room();
    let settings = QueueSettings {
        dead_letter_exchange: Some(String::new()),
        dead_letter_key: Some("q2".to_owned()),
        ..QueueSettings::default()
    };
    world.durable_queue(1, settings);
    world.durable_queue(2, QueueSettings::default());
    let all: Vec<_> = (0..1_000).map(|number| persistent(&[1], &format!("{number:04}"))).collect();
    world.commands(9, all);
    world.consume(1, 1, 1, 0);
    let held = world.deliveries();
    assert_eq!(held.len(), 1_000);
    let rejects = held.iter().map(|got| settle(1, got.seq, Settlement::Discard)).collect();
    let batch = Batch { connection: ConnectionId(1), commands: rejects };
    world.shard.step(world.now, &mut vec![ShardInput::Batch(batch)], &world.topology, &mut world.out);
    assert!(world.shard.unread().count() < 10, "{}", world.shard.unread().count());
    world.settle_down();
    assert_eq!(world.drain(2), (0..1_000).map(|number| format!("{number:04}")).collect::<Vec<_>>());
    assert_eq!(world.depths(1), (0, 0));
}

#[test]
fn an_idle_shard_gives_dead_log_back() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    for _ in 0..10 {
        world.command(9, persistent(&[1], &"x".repeat(100)));
        let seq = world.get(2, 1).unwrap().seq.0;
        world.command(2, settle(1, seq, Settlement::Ack));
    }
    let before = world.shard.log.log_bytes();
    assert_eq!(world.shard.deadline(), Some(world.now.ms + 500), "consumers have no timers here");
    world.pass(499);
    assert_eq!(world.shard.log.log_bytes(), before);
    world.pass(1);
    world.settle_down();
    assert!(world.shard.log.log_bytes() < before / 2, "{} of {before}", world.shard.log.log_bytes());
    assert_eq!(world.shard.deadline(), None);
}
