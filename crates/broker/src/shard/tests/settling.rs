//! How deliveries end.

use super::*;

fn three_held() -> World {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.commands(9, vec![publish(&[1], "a"), publish(&[1], "b"), publish(&[1], "c")]);
    world.consume(1, 1, 1, 3);
    assert_eq!(world.bodies(), ["a", "b", "c"]);
    world
}

#[test]
fn what_is_requeued_returns_to_its_place_and_is_redelivered() {
    let mut world = three_held();
    world.publish(1, "d");
    world.commands(1, vec![settle(1, 3, Settlement::Requeue), settle(1, 1, Settlement::Requeue)]);
    let got: Vec<_> = world.deliveries().into_iter().map(|got| (got.body, got.redelivered)).collect();
    assert_eq!(got, [("a".to_owned(), true), ("c".to_owned(), true)]);
    world.settle(1, 2, Settlement::Ack);
    let got: Vec<_> = world.deliveries().into_iter().map(|got| (got.body, got.redelivered)).collect();
    assert_eq!(got, [("d".to_owned(), false)]);
    let counters = world.view(1).counters;
    assert_eq!((counters.publish, counters.deliver, counters.redeliver, counters.ack), (4, 6, 2, 1));
}

#[test]
fn what_was_never_sent_comes_back_untouched() {
    let mut world = three_held();
    world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
    world.settle(1, 2, Settlement::Unsent);
    let delivery = world.get(1, 1).unwrap();
    assert_eq!((delivery.message.body(), delivery.redelivered), (&b"b"[..], false));
}

#[test]
fn a_closed_channel_returns_all_before_anybody_gets_any() {
    let mut world = three_held();
    world.consume(2, 1, 1, 0);
    assert!(matches!(
        world.ask(1, |call| Command::CloseChannel { call, channel: ChannelId(1) }),
        Outcome::ChannelClosed
    ));
    let got: Vec<_> = world.deliveries().into_iter().map(|got| (got.connection, got.body)).collect();
    assert_eq!(got, [(2, "a".to_owned()), (2, "b".to_owned()), (2, "c".to_owned())]);
}

#[test]
fn a_closed_connection_returns_what_gets_and_cancelled_consumers_held() {
    let mut world = three_held();
    world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
    world.publish(1, "d");
    world.get(1, 1);
    assert_eq!(world.depths(1), (0, 4));
    world.ask(1, |call| Command::CloseConnection { call });
    assert_eq!(world.depths(1), (4, 0));
    assert_eq!(world.drain(1), ["a", "b", "c", "d"]);
}

#[test]
fn nobody_settles_for_another_connection_or_twice() {
    let mut world = three_held();
    world.command(2, settle(1, 1, Settlement::Ack));
    assert_eq!(world.depths(1), (0, 3));
    world.settle(1, 1, Settlement::Ack);
    world.settle(1, 1, Settlement::Ack);
    world.command(1, settle(7, 1, Settlement::Ack));
    assert_eq!(world.depths(1), (0, 2));
}

#[test]
fn a_quorum_queue_counts_failed_deliveries_and_drops_after_its_limit() {
    let mut world = World::new();
    world.durable_queue(
        1,
        QueueSettings { kind: QueueKind::Quorum, delivery_limit: Some(2), ..QueueSettings::default() },
    );
    world.publish(1, "a");
    for attempts in 0..3 {
        let delivery = world.get(1, 1).unwrap();
        assert_eq!((delivery.attempts, delivery.redelivered), (attempts, attempts > 0));
        world.settle(1, 1, Settlement::Requeue);
    }
    assert_eq!(world.depths(1), (0, 0));
    assert_eq!(world.view(1).counters.delivery_limit, 1);
}

#[test]
fn quorum_queues_have_a_limit_of_twenty_and_classic_ones_none() {
    for (kind, gets) in [(QueueKind::Quorum, 21), (QueueKind::Classic, 50)] {
        let mut world = World::new();
        world.durable_queue(1, QueueSettings { kind, ..QueueSettings::default() });
        world.publish(1, "a");
        let mut count = 0;
        while count < 50 && world.get(1, 1).is_some() {
            world.settle(1, 1, Settlement::Requeue);
            count += 1;
        }
        assert_eq!(count, gets, "{kind:?}");
    }
}

#[test]
fn a_purge_drops_the_ready_ones_only() {
    let mut world = three_held();
    world.publish(1, "d");
    assert!(matches!(world.ask(1, |call| Command::Purge { call, queue: Q }), Outcome::Purged { messages: 1 }));
    assert_eq!(world.depths(1), (0, 3));
    assert_eq!(world.view(1).counters.purged, 1);
}
