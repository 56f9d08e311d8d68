//! Unacked deliveries as leases: what happens at their end, and how they are extended.

use super::*;

fn settings(action: TimeoutAction) -> QueueSettings {
    QueueSettings { consumer_timeout_ms: Some(500), timeout_action: Some(action), ..QueueSettings::default() }
}

fn worlds() -> [World; 2] {
    [World::new(), World::without_room()]
}

impl World {
    fn extend(&mut self, connection: u64, seq: u64, ms: Option<u64>) -> bool {
        let extend = |call| Command::Extend { call, queue: Q, seq: Seq(seq), ms };
        match self.ask(connection, extend) {
            Outcome::Applied => true,
            Outcome::Empty => false,
            other => panic!("{other:?}"),
        }
    }

    fn timeouts(&mut self) -> usize {
        self.events().iter().filter(|(_, event)| matches!(event, ConnectionEvent::AckTimeout { .. })).count()
    }

    /// Far deliveries are told apart by half seconds only.
    fn pass_in_steps(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.pass(50);
        }
    }
}

#[test]
fn an_overdue_message_goes_back_and_its_consumer_goes_on() {
    for mut world in worlds() {
        world.durable_queue(1, settings(TimeoutAction::Return));
        world.consume(1, 1, 1, 2);
        world.commands(9, vec![persistent(&[1], "a"), persistent(&[1], "b"), persistent(&[1], "c")]);
        assert_eq!(world.bodies(), ["a", "b"]);
        world.settle(1, 1, Settlement::Ack);
        assert_eq!(world.bodies(), ["c"]);
        world.pass_in_steps(1_000);
        let again = world.deliveries();
        assert!(again.iter().any(|got| got.seq == 2 && got.redelivered), "{again:?}");
        assert!(world.events().iter().all(|(_, event)| !matches!(event, ConnectionEvent::AckTimeout { .. })));
        world.consume(2, 2, 1, 0);
        world.ask(1, |call| Command::CloseConnection { call });
        let mut world = world.restart();
        let mut left = world.drain(1);
        left.sort();
        assert_eq!(left, ["b", "c"]);
    }
}

#[test]
fn a_late_acknowledgement_is_ignored() {
    let mut world = World::new();
    world.durable_queue(1, settings(TimeoutAction::Return));
    world.publish(1, "a");
    let seq = world.get(1, 1).unwrap().seq.0;
    world.pass(500);
    assert_eq!(world.depths(1), (1, 0));
    world.settle(1, seq, Settlement::Ack);
    assert_eq!(world.depths(1), (1, 0));
    let again = world.get(2, 1).unwrap();
    assert!(again.redelivered);
    world.settle(1, seq, Settlement::Ack);
    assert_eq!(world.depths(1), (0, 1), "another connection has it now");
}

#[test]
fn a_message_that_is_overdue_too_often_becomes_a_dead_letter() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { delivery_limit: Some(1), ..settings(TimeoutAction::Return) });
    world.consume(1, 1, 1, 0);
    world.publish(1, "a");
    world.pass(500);
    world.pass(500);
    assert_eq!(world.bodies(), ["a", "a"]);
    assert_eq!((world.depths(1), world.view(1).counters.delivery_limit), ((0, 0), 1));
}

#[test]
fn a_consumer_that_is_too_slow_is_cancelled_where_its_client_can_be_told() {
    for mut world in worlds() {
        world.durable_queue(1, settings(TimeoutAction::CancelConsumer));
        world.consume(1, 1, 1, 0);
        world.command(9, persistent(&[1], "a"));
        world.pass_in_steps(300);
        world.command(9, persistent(&[1], "b"));
        world.pass_in_steps(200);
        let events = world.events();
        if world.view(1).unacked == 1 {
            let gone = |(_, event): &(u64, ConnectionEvent)| {
                matches!(event, ConnectionEvent::ConsumerGone { consumer: ConsumerNumber(1) })
            };
            assert!(events.iter().any(gone), "{events:?}");
            assert_eq!(world.depths(1), (1, 1), "what is not overdue stays with its channel");
        }
        world.pass_in_steps(1_000);
        assert!(world.view(1).consumers.is_empty());
        assert_eq!(world.depths(1), (2, 0));
    }
    let mut world = World::new();
    world.durable_queue(1, settings(TimeoutAction::CancelConsumer));
    world.consume_as(1, Consume { hears_cancel: false, ..consumer_of(1, 1) });
    world.publish(1, "a");
    world.pass(500);
    assert_eq!(world.timeouts(), 1);
}

#[test]
fn the_last_consumer_of_an_auto_delete_queue_takes_it_along() {
    let mut world = World::new();
    world.declare(QueueSpec { auto_delete: true, ..spec(1, settings(TimeoutAction::CancelConsumer)) });
    world.consume(1, 1, 1, 0);
    world.publish(1, "a");
    world.pass(500);
    assert!(matches!(world.out.catalog[..], [ShardReport::QueueGone { queue: Q, then: None }]));
}

#[test]
fn a_consumer_may_choose_what_happens() {
    let mut world = World::new();
    world.durable_queue(1, settings(TimeoutAction::CloseChannel));
    let with = |action: &str| Consume {
        arguments: [("x-consumer-timeout-action", action)].into_iter().collect(),
        ..consumer_of(1, 1)
    };
    let Outcome::Fault(fault) = world.try_consume(1, with("shrug")) else { panic!("accepted") };
    let text = "invalid arg 'x-consumer-timeout-action' for queue 'q1' in vhost '/': invalid_consumer_timeout_action";
    assert_eq!(fault.text, text);
    world.consume_as(1, with("return"));
    world.publish(1, "a");
    world.pass(500);
    assert_eq!((world.bodies().len(), world.timeouts()), (2, 0));
}

#[test]
fn an_extended_lease_ends_when_it_was_said_to() {
    for action in [TimeoutAction::CloseChannel, TimeoutAction::Return] {
        let mut world = World::new();
        world.durable_queue(1, settings(action));
        world.consume(1, 1, 1, 0);
        world.commands(9, vec![publish(&[1], "a"), publish(&[1], "b"), publish(&[1], "c")]);
        assert_eq!(world.bodies().len(), 3);
        assert!(world.extend(1, 1, Some(2_000)) && world.extend(1, 2, None) && world.extend(1, 3, Some(100)));
        assert!(!world.extend(2, 1, None), "another connection's");
        assert!(!world.extend(1, 9, None));
        let mut ends = Vec::new();
        for _ in 0..50 {
            world.pass(50);
            match action {
                TimeoutAction::CloseChannel => ends.extend((0..world.timeouts()).map(|_| world.now.ms)),
                _ => ends.extend(world.deliveries().iter().map(|_| world.now.ms)),
            }
            if action == TimeoutAction::CloseChannel && !ends.is_empty() {
                break;
            }
            // Each goes once.
            for seq in 1..=3 {
                if ends.len() > usize::from(seq == 3) + usize::from(seq != 3) * 9 {
                    world.settle(1, seq, Settlement::Ack);
                }
            }
        }
        assert_eq!(ends[0], START.ms + 100, "{action:?}: {ends:?}");
    }
}

#[test]
fn whoever_extends_again_and_again_keeps_the_message() {
    for mut world in worlds() {
        world.durable_queue(1, settings(TimeoutAction::Return));
        world.consume(1, 1, 1, 0);
        world.commands(9, vec![persistent(&[1], "a"), persistent(&[1], "b")]);
        assert_eq!(world.bodies(), ["a", "b"]);
        for _ in 0..20 {
            assert!(world.extend(1, 1, None));
            world.pass_in_steps(400);
        }
        assert!(world.deliveries().iter().all(|got| got.seq == 2));
        world.settle(1, 1, Settlement::Ack);
        assert!(!world.extend(1, 1, None), "it is settled");
        world.pass_in_steps(2_000);
        assert_eq!(world.view(1).ready + world.view(1).unacked, 1);
    }
}

#[test]
fn very_many_overdue_messages_go_back_in_pieces() {
    let near = Near { queue_unacked: 0, ..Near::default() };
    let mut world = World::over(MemoryStore::new(), ShardSettings { near, ..ShardSettings::default() });
    world.durable_queue(1, settings(TimeoutAction::Return));
    world.consume(1, 1, 1, 0);
    world.commands(9, (0..5_000).map(|n| publish(&[1], &n.to_string())).collect());
    world.settle_down();
    assert_eq!(world.depths(1), (0, 5_000));
    world.ask(1, |call| Command::Cancel { call, queue: Q, consumer: ConsumerNumber(1) });
    for _ in 0..40 {
        world.pass(50);
    }
    assert_eq!(world.depths(1), (5_000, 0));
}

#[test]
fn a_lease_without_an_end_can_be_extended_and_stays_without() {
    let mut world =
        World::over(MemoryStore::new(), ShardSettings { consumer_timeout_ms: 0, ..ShardSettings::default() });
    world.queue(1, QueueSettings::default());
    world.publish(1, "a");
    let seq = world.get(1, 1).unwrap().seq.0;
    assert!(world.extend(1, seq, Some(1)));
    assert_eq!(world.shard.deadline(), None);
}
