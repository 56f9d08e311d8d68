//! Who gets which message, and when.

use super::*;

#[test]
fn a_waiting_message_goes_to_the_first_consumer_after_its_answer() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.publish(1, "a");
    world.commands(1, vec![Command::Consume(Box::new(Consume { call: CallId(77), ..consumer_of(1, 1) }))]);
    let (_, events) = world.out.connections.pop().unwrap();
    assert!(matches!(events[0], ConnectionEvent::Done { call: CallId(77), outcome: Outcome::Consuming }));
    assert!(
        matches!(&events[1], ConnectionEvent::Deliver(delivery) if delivery.message.body() == b"a" && !delivery.redelivered)
    );
    assert_eq!(events.len(), 2);
}

#[test]
fn consumers_take_turns_across_connections_and_a_full_one_is_passed_over() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.consume(1, 1, 1, 2);
    world.consume(2, 1, 1, 0);
    world.commands(9, (0..6).map(|n| publish(&[1], &n.to_string())).collect());
    let mut got: Vec<_> = world.deliveries().into_iter().map(|got| (got.body, got.connection)).collect();
    got.sort();
    let turns: Vec<_> = got.iter().map(|(_, connection)| *connection).collect();
    assert_eq!(turns, [1, 2, 1, 2, 2, 2]);
    world.settle(1, 1, Settlement::Ack);
    world.commands(9, vec![publish(&[1], "x"), publish(&[1], "y")]);
    let mut connections: Vec<_> = world.deliveries().into_iter().map(|got| got.connection).collect();
    connections.sort_unstable();
    assert_eq!(connections, [1, 2]);
}

#[test]
fn lower_priorities_get_only_what_higher_ones_cannot_take() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    let with = |priority: i32, consumer| Consume {
        prefetch: 1,
        arguments: [("x-priority", priority)].into_iter().collect(),
        ..consumer_of(consumer, 1)
    };
    world.consume_as(1, with(-1, 1));
    world.consume_as(1, with(5, 2));
    world.commands(9, ["a", "b", "c"].map(|body| publish(&[1], body)).into());
    let got: Vec<_> = world.deliveries().into_iter().map(|got| (got.consumer, got.body)).collect();
    assert_eq!(got, [(2, "a".to_owned()), (1, "b".to_owned())]);
}

#[test]
fn a_priority_that_is_no_integer_is_refused() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    let outcome = world
        .try_consume(1, Consume { arguments: [("x-priority", "high")].into_iter().collect(), ..consumer_of(1, 1) });
    let Outcome::Fault(fault) = outcome else { panic!("{outcome:?}") };
    assert!(fault.text.starts_with("invalid arg 'x-priority' for queue 'q1' in vhost '/': "), "{}", fault.text);
}

#[test]
fn the_channel_limit_is_shared_by_consumers() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.queue(2, QueueSettings::default());
    world.command(1, Command::ChannelLimit { channel: ChannelId(1), limit: 2 });
    world.consume(1, 1, 1, 0);
    world.consume(1, 2, 2, 0);
    world.commands(9, vec![publish(&[1, 2], "a"), publish(&[1, 2], "b")]);
    assert_eq!(world.deliveries().len(), 2);
    world.settle(1, 1, Settlement::Ack);
    world.settle_down();
    assert_eq!(world.deliveries().len(), 1, "one came free, wherever it goes");
    world.command(1, Command::ChannelLimit { channel: ChannelId(1), limit: 3 });
    assert_eq!(world.deliveries().len(), 1);
}

#[test]
fn gets_do_not_count_for_the_channel_limit() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.command(1, Command::ChannelLimit { channel: ChannelId(1), limit: 1 });
    world.publish(1, "got");
    world.get(1, 1).unwrap();
    world.consume(1, 1, 1, 0);
    world.publish(1, "a");
    world.publish(1, "b");
    assert_eq!(world.bodies(), ["a"]);
    world.settle(1, 1, Settlement::Ack);
    assert!(world.bodies().is_empty());
    world.settle(1, 2, Settlement::Ack);
    assert_eq!(world.bodies(), ["b"]);
}

#[test]
fn a_consumer_without_acknowledgements_waits_for_the_channel_limit_and_takes_none_of_it() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.queue(2, QueueSettings::default());
    world.command(1, Command::ChannelLimit { channel: ChannelId(1), limit: 1 });
    world.consume(1, 1, 1, 0);
    world.consume_as(1, Consume { no_ack: true, ..consumer_of(2, 2) });
    world.commands(9, vec![publish(&[2], "a"), publish(&[2], "b")]);
    assert_eq!(world.bodies(), ["a", "b"]);
    world.publish(1, "c");
    world.publish(2, "d");
    assert_eq!(world.bodies(), ["c"]);
    world.settle(1, 1, Settlement::Ack);
    assert_eq!(world.bodies(), ["d"]);
}

#[test]
fn a_consumer_that_cannot_use_its_turn_lets_the_next_one_of_the_channel_have_it() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.queue(2, QueueSettings::default());
    world.command(1, Command::ChannelLimit { channel: ChannelId(1), limit: 1 });
    world.consume(1, 1, 1, 0);
    world.consume(1, 2, 2, 0);
    world.publish(1, "a");
    world.publish(1, "b");
    world.publish(2, "c");
    assert_eq!(world.bodies(), ["a"]);
    let purge = |call| Command::Purge { call, queue: Q };
    assert!(matches!(world.ask(1, purge), Outcome::Purged { messages: 1 }));
    world.settle(1, 1, Settlement::Ack);
    assert_eq!(world.bodies(), ["c"]);
}

#[test]
fn a_raised_prefetch_takes_effect_at_once() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.consume(1, 1, 1, 1);
    world.commands(9, ["a", "b", "c", "d"].map(|body| publish(&[1], body)).into());
    assert_eq!(world.bodies(), ["a"]);
    world.command(1, Command::ConsumerLimit { queue: Q, consumer: ConsumerNumber(1), limit: 3 });
    assert_eq!(world.bodies(), ["b", "c"]);
}

#[test]
fn a_connection_that_does_not_drain_is_sent_no_more_than_its_window() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.consume_as(1, Consume { no_ack: true, ..consumer_of(1, 1) });
    let body = "x".repeat(100_000);
    for _ in 0..40 {
        world.publish(1, &body);
    }
    let sent = world.deliveries().len();
    assert_eq!(sent, 21);
    world.command(1, Command::Drained { bytes: 200_000 });
    assert_eq!(world.deliveries().len(), 0, "less than half is free");
    world.command(1, Command::Drained { bytes: 900_000 });
    assert_eq!(world.deliveries().len(), 11);
}

#[test]
fn an_exclusive_consumer_is_alone() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    let exclusive = || Consume { exclusive: true, ..consumer_of(1, 1) };
    world.consume(2, 1, 1, 0);
    let refused = world.try_consume(1, exclusive());
    assert!(matches!(&refused, Outcome::Fault(fault) if fault.text == "queue 'q1' in vhost '/' in exclusive use"));
    world.ask(2, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
    world.consume_as(1, exclusive());
    assert!(matches!(world.try_consume(2, consumer_of(1, 1)), Outcome::Fault(_)));
    world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
    world.consume(2, 1, 1, 0);
}

#[test]
fn the_oldest_consumer_is_the_single_active_one_until_it_goes() {
    let mut world = World::new();
    world.queue(1, QueueSettings { single_active: true, ..QueueSettings::default() });
    for connection in 1..=3 {
        world.consume(connection, 1, 1, 0);
    }
    world.publish(1, "a");
    assert_eq!(world.deliveries()[0].connection, 1);
    assert!(matches!(world.ask(1, |call| Command::CloseConnection { call }), Outcome::ConnectionClosed));
    let got = world.deliveries();
    assert_eq!((got[0].connection, got[0].redelivered), (2, true));
    let active: Vec<_> = world.view(1).consumers.iter().map(|consumer| consumer.active).collect();
    assert_eq!(active, [true, false]);
}

#[test]
fn after_cancel_nothing_comes_and_what_is_held_can_be_settled() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.consume(1, 1, 1, 0);
    world.publish(1, "a");
    let cancelled = world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
    assert!(matches!(cancelled, Outcome::Cancelled));
    world.publish(1, "b");
    assert_eq!(world.bodies(), ["a"]);
    assert_eq!(world.depths(1), (1, 1));
    world.settle(1, 1, Settlement::Ack);
    assert_eq!(world.depths(1), (1, 0));
}

#[test]
fn get_takes_the_first_message_and_says_how_many_are_left() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.publish(1, "a");
    world.publish(1, "b");
    let get = |call| Command::Get { call, channel: ChannelId(1), queue: Q, no_ack: true };
    let Outcome::Got { delivery, left } = world.ask(1, get) else { panic!() };
    assert_eq!((delivery.message.body(), left, delivery.consumer), (&b"a"[..], 1, ConsumerNumber::GET));
    assert_eq!(world.depths(1), (1, 0));
    world.get(1, 1);
    assert!(world.get(1, 1).is_none());
    assert_eq!(world.depths(1), (0, 1));
    let view = world.view(1);
    assert_eq!((view.counters.get, view.counters.get_no_ack, view.counters.get_empty), (1, 1, 1));
}

#[test]
fn a_quorum_queue_with_a_single_active_consumer_refuses_get() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { kind: QueueKind::Quorum, single_active: true, ..QueueSettings::default() });
    let get = |call| Command::Get { call, channel: ChannelId(1), queue: Q, no_ack: true };
    let Outcome::Fault(fault) = world.ask(1, get) else { panic!() };
    assert_eq!(
        fault.text,
        "cannot obtain access to locked queue 'q1' in vhost '/'. basic.get operations are not supported by quorum queues \
         with single active consumer"
    );
}

#[test]
fn a_waiting_consumer_comes_before_a_get_of_the_same_batch() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.consume(1, 1, 1, 0);
    let get = Command::Get { call: CallId(99), channel: ChannelId(1), queue: Q, no_ack: true };
    world.commands(2, vec![publish(&[1], "a"), get]);
    assert!(matches!(world.outcome(CallId(99)), Some(Outcome::Empty)));
    assert_eq!(world.bodies(), ["a"]);
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer_and_the_catalog_answers() {
    let mut world = World::new();
    world.declare(QueueSpec { durable: false, auto_delete: true, ..spec(1, QueueSettings::default()) });
    world.consume(1, 1, 1, 0);
    world.consume(2, 1, 1, 0);
    world.ask(2, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
    assert!(world.out.catalog.is_empty());
    world.command(1, Command::Cancel { call: CallId(5), queue: Q, consumer: ConsumerNumber(1) });
    let report = world.out.catalog.pop();
    assert!(
        matches!(
            report,
            Some(ShardReport::QueueGone { queue: Q, then: Some((ConnectionId(1), CallId(5), Outcome::Cancelled)) })
        ),
        "{report:?}"
    );
    assert!(matches!(world.ask(1, |call| Command::Purge { call, queue: Q }), Outcome::Missed));
}

#[test]
fn an_unused_queue_expires_but_a_consumer_a_get_or_a_declaration_keeps_it() {
    let mut world = World::new();
    world.queue(1, QueueSettings { expires_ms: Some(100), ..QueueSettings::default() });
    world.pass(60);
    world.get(1, 1);
    world.pass(60);
    world.step(vec![ShardInput::Count { queue: Q, connection: ConnectionId(1), call: CallId(7) }]);
    world.pass(60);
    assert!(world.out.catalog.is_empty());
    world.consume(1, 1, 1, 0);
    world.pass(500);
    assert!(world.out.catalog.is_empty());
    world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
    assert_eq!(world.shard.deadline(), Some(world.now.ms + 100));
    world.pass(100);
    assert!(matches!(world.out.catalog.pop(), Some(ShardReport::QueueGone { queue: Q, then: None })));
    assert_eq!(world.shard.deadline(), None);
}

#[test]
fn deleting_a_queue_tells_its_consumers_and_frees_their_channels() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.queue(2, QueueSettings::default());
    world.command(1, Command::ChannelLimit { channel: ChannelId(1), limit: 1 });
    world.consume(1, 1, 1, 0);
    world.consume(1, 2, 2, 0);
    world.publish(1, "a");
    world.publish(2, "b");
    assert_eq!(world.bodies(), ["a"]);
    let delete = |if_unused, if_empty, ticket| ShardInput::DeleteQueue {
        queue: Q,
        if_unused,
        if_empty,
        ticket: CatalogTicket(ticket),
    };
    world.step(vec![delete(true, false, 1), delete(false, true, 2)]);
    let told = |report: Option<ShardReport>| match report {
        Some(ShardReport::Deleted { ticket, outcome }) => (ticket.0, outcome),
        other => panic!("{other:?}"),
    };
    let (ticket, outcome) = told(world.out.catalog.pop());
    let Outcome::QueueDeleted { messages: 0, consumers } = outcome else { panic!("unacked ones do not count") };
    assert_eq!((ticket, consumers), (2, vec![(ConnectionId(1), ConsumerNumber(1))]));
    let (ticket, outcome) = told(world.out.catalog.pop());
    assert!(matches!(&outcome, Outcome::Fault(fault) if fault.text == "queue 'q1' in vhost '/' in use"));
    assert_eq!(ticket, 1);
    assert_eq!(world.bodies(), ["b"]);
    world.settle(1, 1, Settlement::Ack);
}

#[test]
fn an_overdue_delivery_is_reported_once() {
    let mut world = World::new();
    world.queue(1, QueueSettings { consumer_timeout_ms: Some(500), ..QueueSettings::default() });
    world.consume(1, 1, 1, 0);
    world.publish(1, "a");
    world.pass(300);
    world.publish(1, "b");
    world.settle(1, 1, Settlement::Ack);
    world.pass(300);
    assert!(!world.events().iter().any(|(_, event)| matches!(event, ConnectionEvent::AckTimeout { .. })));
    assert_eq!(world.shard.deadline(), Some(world.now.ms + 200));
    world.pass(200);
    let events = world.events();
    assert!(
        matches!(events[..], [(1, ConnectionEvent::AckTimeout { channel: ChannelId(1), timeout_ms: 500 })]),
        "{events:?}"
    );
    world.publish(1, "c");
    world.pass(5_000);
    assert!(!world.events().iter().any(|(_, event)| matches!(event, ConnectionEvent::AckTimeout { .. })));
}

#[test]
fn a_consumer_may_ask_for_its_own_timeout_or_none() {
    let mut world = World::new();
    world.queue(1, QueueSettings { consumer_timeout_ms: Some(500), ..QueueSettings::default() });
    let with = |timeout: i32| Consume {
        arguments: [("x-consumer-timeout", timeout)].into_iter().collect(),
        ..consumer_of(1, 1)
    };
    world.consume_as(1, with(0));
    world.publish(1, "a");
    assert_eq!(world.shard.deadline(), None);
    assert!(matches!(world.try_consume(2, with(-1)), Outcome::Fault(_)));
    assert_eq!(world.view(1).consumers[0].timeout_ms, 0);
}

#[test]
fn a_direct_reply_is_passed_on() {
    let mut world = World::new();
    let to = ChannelKey { connection: ConnectionId(4), channel: ChannelId(2) };
    let message = publication(&[1], "pong", &PropertyList::default()).message;
    world.command(1, Command::Reply { to, message });
    assert!(matches!(world.events()[..], [(4, ConnectionEvent::Reply { channel: ChannelId(2), .. })]));
}

#[test]
fn ten_thousand_consumers_and_queues_are_fine() {
    let mut world = World::new();
    for id in 1..=10_000 {
        world.queue(id, QueueSettings::default());
    }
    let consume =
        |connection, queue: u64| Command::Consume(Box::new(Consume { prefetch: 1, ..consumer_of(connection, queue) }));
    world.commands(1, (1..=10_000).map(|id| consume(id as u32, id)).collect());
    world.commands(2, (1..=10_000).map(|id| consume(id, 1)).collect());
    world.commands(9, (0..15_000).map(|n| publish(&[1 + n % 7_500], "x")).collect());
    assert_eq!(world.deliveries().len(), 7_500 + 1);
    world.ask(2, |call| Command::CloseConnection { call });
    world.ask(1, |call| Command::CloseConnection { call });
    assert_eq!(world.view(1).consumers.len(), 0);
}
