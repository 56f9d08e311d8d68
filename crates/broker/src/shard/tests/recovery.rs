//! What is durable, when that is said, and what a restart finds.

use super::*;
use proptest::prelude::*;
use store::{Link, Record, Store, Urgency};

fn stored(world: &mut World) -> Option<u64> {
    world.events().into_iter().find_map(|(_, event)| match event {
        ConnectionEvent::Stored { mark, .. } => Some(mark),
        _ => None,
    })
}

#[test]
fn a_mark_waits_for_the_disk_only_if_something_was_kept() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.commands(9, vec![publish(&[1], "a"), Command::Mark { mark: 1 }]);
    assert_eq!(stored(&mut world), Some(1));
    world.commands(9, vec![persistent(&[1], "b"), Command::Mark { mark: 2 }]);
    assert_eq!(stored(&mut world), None);
    world.step(vec![]);
    assert_eq!(stored(&mut world), Some(2));
    world.command(9, Command::Mark { mark: 3 });
    assert_eq!(stored(&mut world), Some(3));
}

#[test]
fn a_declared_queue_and_its_count_wait_for_its_record() {
    let mut world = World::new();
    let spec = Arc::new(spec(1, QueueSettings::default()));
    world.step(vec![
        ShardInput::CreateQueue { spec, declarer: Some((ConnectionId(3), CallId(3))) },
        ShardInput::Count { queue: Q, connection: ConnectionId(3), call: CallId(4) },
    ]);
    assert!(world.out.catalog.is_empty() && world.out.connections.is_empty());
    world.step(vec![]);
    for call in [CallId(3), CallId(4)] {
        assert!(matches!(world.outcome(call), Some(Outcome::QueueDeclared { messages: 0, consumers: 0 })));
    }
}

#[test]
fn what_was_kept_comes_back_in_order_and_the_rest_does_not() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { priority_max: Some(5), ..QueueSettings::default() });
    world.durable_queue(2, QueueSettings { kind: QueueKind::Quorum, ..QueueSettings::default() });
    world.queue(3, QueueSettings::default());
    world.commands(9, vec![persistent(&[1, 2, 3], "a"), publish(&[1, 2, 3], "transient"), persistent(&[1, 2, 3], "b")]);
    let high = PropertyList { priority: Some(9), delivery_mode: Some(2), ..PropertyList::default() };
    world.command(9, Command::Publish(publication(&[1], "high", &high)));
    world.settle_down();
    let mut world = world.restart();
    assert_eq!(world.drain(1), ["high", "a", "b"]);
    assert_eq!(world.drain(2), ["a", "transient", "b"]);
    assert!(world.shard.queue_slots.len() == 2);
}

#[test]
fn what_was_settled_stays_so_and_seq_goes_on() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.commands(9, (0..5).map(|n| persistent(&[1], &n.to_string())).collect());
    world.consume(1, 1, 1, 0);
    world.commands(1, [1, 2, 5].map(|seq| settle(1, seq, Settlement::Ack)).into());
    world.settle_down();
    let mut world = world.restart();
    assert_eq!(world.drain(1), ["2", "3"]);
    world.publish(1, "new");
    assert_eq!(world.get(1, 1).unwrap().seq, Seq(6));
}

#[test]
fn after_a_crash_everything_may_have_been_delivered_after_a_stop_only_what_was() {
    for clean in [false, true] {
        let mut world = World::new();
        world.durable_queue(1, QueueSettings { kind: QueueKind::Quorum, ..QueueSettings::default() });
        world.commands(9, vec![persistent(&[1], "a"), persistent(&[1], "b")]);
        world.get(1, 1).unwrap();
        if clean {
            world.step(vec![ShardInput::Close]);
        }
        world.step(vec![]);
        assert_eq!(world.out.closed, clean);
        let mut world = world.restart();
        let told = [world.get(1, 1).unwrap(), world.get(1, 1).unwrap()];
        let told = told.map(|delivery| (delivery.redelivered, delivery.attempts));
        assert_eq!(told, if clean { [(true, 1), (false, 0)] } else { [(true, 0), (true, 0)] });
    }
}

#[test]
fn what_a_crash_left_in_doubt_stays_so_after_a_clean_stop() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.command(9, persistent(&[1], "before"));
    world.get(1, 1).unwrap();
    world.settle_down();
    let mut world = world.restart();
    world.command(9, persistent(&[1], "after"));
    world.step(vec![ShardInput::Close]);
    world.settle_down();
    assert!(world.out.closed);
    let mut world = world.restart();
    let told = [world.get(1, 1).unwrap(), world.get(1, 1).unwrap()].map(|delivery| delivery.redelivered);
    assert_eq!(told, [true, false]);
}

#[test]
fn failed_deliveries_are_remembered() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { kind: QueueKind::Quorum, ..QueueSettings::default() });
    world.command(9, persistent(&[1], "a"));
    for _ in 0..3 {
        world.get(1, 1).unwrap();
        world.settle(1, 1, Settlement::Requeue);
    }
    world.settle_down();
    let mut world = world.restart();
    assert_eq!(world.get(1, 1).unwrap().attempts, 3);
}

#[test]
fn time_to_live_goes_on_while_the_server_is_down() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { message_ttl_ms: Some(100), ..QueueSettings::default() });
    world.command(9, persistent(&[1], "a"));
    world.settle_down();
    let mut world = world.restart();
    world.now.unix_ms += 100;
    assert_eq!(world.shard.deadline(), Some(START.ms), "it looks at once");
    world.step(vec![]);
    assert_eq!(world.depths(1), (0, 0));
}

#[test]
fn a_deleted_queue_stays_deleted_and_its_records_go() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.command(9, persistent(&[1], "a"));
    let delete = ShardInput::DeleteQueue { queue: Q, if_unused: false, if_empty: false, ticket: CatalogTicket(1) };
    world.step(vec![delete]);
    assert!(world.out.catalog.is_empty(), "not before it is durable");
    world.settle_down();
    assert!(matches!(
        world.out.catalog[..],
        [ShardReport::Deleted { outcome: Outcome::QueueDeleted { messages: 1, .. }, .. }]
    ));
    let world = world.restart();
    assert!(world.shard.queue_slots.is_empty());
}

#[test]
fn facts_come_back_and_a_forgotten_one_does_not() {
    let mut world = World::new();
    let put = |key: &'static str, value: &'static str, ticket| ShardInput::PutFact {
        key: key.into(),
        value: value.into(),
        ticket: Some(CatalogTicket(ticket)),
    };
    world.step(vec![
        put("k", "old", 1),
        put("gone", "x", 2),
        put("k", "new", 3),
        ShardInput::ForgetFact { key: "gone".into(), ticket: Some(CatalogTicket(4)) },
        ShardInput::ForgetFact { key: "never".into(), ticket: Some(CatalogTicket(5)) },
    ]);
    world.settle_down();
    assert_eq!(world.out.catalog.len(), 5);
    let store = world.shard.log.into_store();
    let mut recovery = Shard::<MemoryStore>::recover(ShardId(0), ShardSettings::default(), START);
    store.replay(&mut |lsn, record| recovery.replay(lsn, record));
    let (_, facts) = recovery.finish(store.restart(), false).unwrap();
    assert_eq!(facts, [("k".into(), "new".into())]);
}

#[test]
fn a_message_that_makes_no_sense_is_an_error_that_names_its_queue() {
    let mut store = MemoryStore::new();
    let places = [store::Place { queue: QueueId(5), seq: Seq(1), expires_at_ms: 0, priority: 0, due_at_ms: 0 }];
    store.append(Record::Message { places: &places, moved_from: None, kept: true, payload: &[0, 200] }, Link::Alone);
    store.flush(Urgency::Sync);
    store.poll(&mut Vec::new());
    let mut recovery = Shard::<MemoryStore>::recover(ShardId(0), ShardSettings::default(), START);
    store.replay(&mut |lsn, record| recovery.replay(lsn, record));
    let error = recovery.finish(store.restart(), true).err().unwrap();
    assert!(error.to_string().starts_with("a message of the queue with id 5 cannot be read"), "{error}");
}

#[test]
fn a_place_that_leaves_none_for_later_messages_is_an_error() {
    let settled = [store::SeqRange { first: Seq(1), last: Seq(u64::MAX) }];
    let places = [store::Place { queue: Q, seq: Seq(u64::MAX), expires_at_ms: 0, priority: 0, due_at_ms: 0 }];
    for record in [
        Record::Settled { queue: Q, ranges: &settled },
        Record::Message { places: &places, moved_from: None, kept: true, payload: b"" },
        Record::Message { places: &[], moved_from: Some((Q, Seq(u64::MAX))), kept: true, payload: b"" },
    ] {
        let mut store = MemoryStore::new();
        let lsn = store.append(record, Link::Alone);
        let mut recovery = Shard::<MemoryStore>::recover(ShardId(0), ShardSettings::default(), Now::default());
        recovery.replay(lsn, record);
        let refused = recovery.finish(store, true).err();
        assert_eq!(refused, Some(crate::shard::RecoveryError::Place { queue: Q, lsn }));
    }
}

#[test]
fn a_transaction_is_all_or_nothing_on_disk() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.durable_queue(2, QueueSettings::default());
    world.command(9, persistent(&[1], "job"));
    world.get(1, 1).unwrap();
    let both = vec![settle(1, 1, Settlement::Ack), persistent(&[2], "result")];
    world.commands(1, vec![Command::Transaction(both), Command::Mark { mark: 8 }]);
    world.settle_down();
    assert_eq!(stored(&mut world), Some(8));
    let store = world.shard.log.into_store();
    let mut count = 0;
    store.replay(&mut |_, _| count += 1);
    assert!(count > 0);
    let mut world = World::over(store, ShardSettings::default());
    assert_eq!((world.depths(1), world.depths(2)), ((0, 0), (1, 0)));
}

#[test]
fn an_old_message_does_not_hold_the_log_up() {
    let mut world = World::new();
    world.durable_queue(
        1,
        QueueSettings { kind: QueueKind::Quorum, delivery_limit: Some(-1), ..QueueSettings::default() },
    );
    world.durable_queue(2, QueueSettings::default());
    world.commands(9, vec![persistent(&[1, 2], "old"), persistent(&[1], "returned")]);
    world.get(1, 1).unwrap();
    world.get(1, 1).unwrap();
    world.settle(1, 2, Settlement::Requeue);
    for _ in 0..200 {
        world.command(9, persistent(&[2], &"x".repeat(1000)));
        let purge = |call| Command::Purge { call, queue: QueueId(2) };
        if world.view(2).ready > 1 {
            world.get(1, 2).unwrap();
            world.ask(1, purge);
            world.ask(1, |call| Command::CloseChannel { call, channel: ChannelId(1) });
            world.get(1, 1).unwrap();
        }
        world.pass(1_100);
    }
    world.settle_down();
    assert!(world.shard.log.log_bytes() < 30_000, "{}", world.shard.log.log_bytes());
    let mut world = world.restart();
    assert_eq!(world.drain(1), ["old", "returned"]);
    assert_eq!(world.drain(2)[0], "old");
}

#[test]
fn a_log_that_has_to_shrink_wakes_its_shard() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.durable_queue(2, QueueSettings::default());
    world.command(9, persistent(&[1], "old"));
    for _ in 0..2 {
        (0..50).for_each(|_| world.command(9, persistent(&[2], &"x".repeat(1000))));
        world.ask(1, |call| Command::Purge { call, queue: QueueId(2) });
        world.settle_down();
    }
    let mut steps = 0;
    while let Some(due_ms) = world.shard.deadline() {
        world.pass(due_ms.saturating_sub(world.now.ms));
        world.settle_down();
        steps += 1;
        assert!(steps < 1_000, "it comes to an end");
    }
    assert!(world.shard.log.log_bytes() < 20_000, "still {}", world.shard.log.log_bytes());
    assert_eq!(world.drain(1), ["old"]);
}

#[derive(Clone, Debug)]
enum Act {
    Publish { both: bool, persistent: bool },
    Get { queue: u64 },
    Settle { which: usize, how: Settlement },
    Purge { queue: u64 },
    Pass,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let how = prop_oneof![
        Just(Settlement::Ack),
        Just(Settlement::Discard),
        Just(Settlement::Requeue),
        Just(Settlement::Unsent)
    ];
    prop_oneof![
        6 => (any::<bool>(), any::<bool>()).prop_map(|(both, persistent)| Act::Publish { both, persistent }),
        4 => (1u64..=2).prop_map(|queue| Act::Get { queue }),
        4 => (any::<usize>(), how).prop_map(|(which, how)| Act::Settle { which, how }),
        1 => (1u64..=2).prop_map(|queue| Act::Purge { queue }),
        2 => Just(Act::Pass),
        1 => Just(Act::Restart),
    ]
}

/// One queue as a plain list.
#[derive(Default)]
struct Model {
    /// Body, and whether it survives; in order of seq.
    ready: Vec<(u64, String, bool)>,
    next: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Queue 1 dead-letters into queue 2, the log is evacuated now and then, the process is restarted at any time.
    #[test]
    fn two_queues_hold_what_a_list_would(acts in prop::collection::vec(act(), 1..120), has_room in any::<bool>()) {
        let mut world = if has_room { World::new() } else { World::without_room() };
        let settings = QueueSettings {
            dead_letter_exchange: Some(String::new()),
            dead_letter_key: Some("q2".to_owned()),
            ..QueueSettings::default()
        };
        world.durable_queue(1, settings);
        world.durable_queue(2, QueueSettings::default());
        let mut models = [Model::default(), Model::default()];
        let mut held: Vec<(u64, u64, String, bool)> = Vec::new();
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Publish { both, persistent: is_persistent } => {
                    // Long enough that the log asks to be evacuated.
                    let body = format!("{number}-{}", "x".repeat(1000));
                    let queues: &[u64] = if both { &[1, 2] } else { &[1] };
                    let command = if is_persistent { persistent(queues, &body) } else { publish(queues, &body) };
                    world.command(9, command);
                    for queue in queues {
                        let model = &mut models[*queue as usize - 1];
                        model.next += 1;
                        model.ready.push((model.next, body.clone(), is_persistent));
                    }
                }
                Act::Get { queue } => {
                    let got = world.get(1, queue);
                    let ready = &mut models[queue as usize - 1].ready;
                    let expected = (!ready.is_empty()).then(|| ready.remove(0));
                    let got = got.map(|delivery| String::from_utf8(delivery.message.body().to_vec()).unwrap());
                    prop_assert_eq!(&got, &expected.as_ref().map(|(_, body, _)| body.clone()));
                    held.extend(expected.map(|(seq, body, kept)| (queue, seq, body, kept)));
                }
                Act::Settle { which, how } => {
                    if held.is_empty() {
                        continue;
                    }
                    let (queue, seq, body, kept) = held.remove(which % held.len());
                    world.command(1, settle(queue, seq, how));
                    match how {
                        Settlement::Discard if queue == 1 => {
                            let model = &mut models[1];
                            model.next += 1;
                            model.ready.push((model.next, body, kept));
                        }
                        Settlement::Ack | Settlement::Discard => {}
                        Settlement::Requeue | Settlement::Unsent => {
                            let ready = &mut models[queue as usize - 1].ready;
                            ready.push((seq, body, kept));
                            ready.sort();
                        }
                    }
                }
                Act::Purge { queue } => {
                    world.ask(1, |call| Command::Purge { call, queue: QueueId(queue) });
                    models[queue as usize - 1].ready.clear();
                }
                Act::Pass => world.pass(1_500),
                Act::Restart => {
                    world.settle_down();
                    world = world.restart();
                    for (queue, seq, body, kept) in held.drain(..) {
                        models[queue as usize - 1].ready.push((seq, body, kept));
                    }
                    for model in &mut models {
                        model.ready.retain(|(_, _, kept)| *kept);
                        model.ready.sort();
                    }
                    // A transient message leaves no trace: its seq may be given again.
                    for (queue, model) in (1..).zip(&mut models) {
                        model.next = world.shard.queues[world.shard.queue_slots[&QueueId(queue)]].next_seq().0 - 1;
                    }
                }
            }
            for (queue, model) in (1..).zip(&models) {
                prop_assert_eq!(world.depths(queue).0, model.ready.len() as u64);
            }
        }
        world.settle_down();
        let mut world = world.restart();
        for (queue, model) in (1..).zip(&mut models) {
            let held = held.iter().filter(|(of, ..)| *of == queue);
            model.ready.extend(held.map(|(_, seq, body, kept)| (*seq, body.clone(), *kept)));
            model.ready.sort();
            let kept = model.ready.iter().filter(|(_, _, kept)| *kept);
            prop_assert_eq!(world.drain(queue), kept.map(|(_, body, _)| body.clone()).collect::<Vec<_>>());
        }
        world.settle_down();
    }
}
