//! Letters that nobody takes yet.

use super::dead_letters::{far, to};
use super::*;
use crate::operation::{Act, Death, Filter, Next, Page, Scan, Target, Which};
use crate::queue::dead_letter::Reason;
use amqp::{Properties, Value};

impl World {
    fn bind(&mut self, source: &str, queue: u64) {
        let destination = self.topology.queue_by_id(QueueId(queue)).unwrap().name.to_string();
        let (source, kind) = (source.to_owned(), DestinationKind::Queue);
        let spec = BindingSpec { source, destination, kind, key: String::new(), arguments: Table::new() };
        let ends = self.topology.ends(VhostId(0), &spec).unwrap();
        self.topology.bind(VhostId(0), ends, &spec).unwrap();
    }
}

/// Takes so many messages, and refuses others.
fn with_room(most: u64) -> QueueSettings {
    QueueSettings { length_max: Some(most), overflow: Overflow::RejectPublish, ..QueueSettings::default() }
}

/// Both worlds, with a queue 1 that dead-letters to a queue 2 of that room.
fn worlds(most: u64) -> [World; 2] {
    [World::new(), World::without_room()].map(|mut world| {
        world.durable_queue(1, to("q2"));
        world.durable_queue(2, with_room(most));
        world
    })
}

fn fill(world: &mut World, bodies: &[&str]) {
    world.commands(9, bodies.iter().map(|body| persistent(&[1], body)).collect());
}

/// Gets and rejects so many messages of queue 1.
fn reject(world: &mut World, count: usize) {
    for _ in 0..count {
        let seq = world.get(1, 1).expect("a message").seq.0;
        world.settle(1, seq, Settlement::Discard);
    }
}

fn owed(world: &mut World, queue: u64) -> u64 {
    world.view(queue).owed
}

fn change(world: &mut World, id: u64, settings: QueueSettings) {
    world.step(vec![ShardInput::RedeclareQueue { spec: Arc::new(spec(id, settings)) }]);
}

#[test]
fn what_a_full_queue_refuses_is_taken_in_order_as_soon_as_there_is_room() {
    for mut world in worlds(1) {
        fill(&mut world, &["a", "b", "c", "d"]);
        reject(&mut world, 4);
        let view = world.view(1);
        assert_eq!((view.ready, view.unacked, view.owed, view.messages()), (0, 0, 3, 3));
        assert_eq!((view.owed_bytes, view.persistent), (3, 3));
        assert_eq!(world.depths(2), (1, 0));
        assert_eq!(world.drain(2), ["a", "b", "c", "d"], "at once: no time has passed");
        assert_eq!(owed(&mut world, 1), 0);
        world.settle_down();
        let mut world = world.restart();
        assert_eq!((world.view(1).messages(), world.view(2).messages()), (0, 0));
    }
}

#[test]
fn letters_are_owed_over_a_restart_and_taken_once() {
    for mut world in worlds(1) {
        fill(&mut world, &["a", "b", "c"]);
        reject(&mut world, 3);
        world.settle_down();
        let mut world = world.restart();
        assert_eq!((owed(&mut world, 1), world.depths(1), world.depths(2)), (2, (0, 0), (1, 0)));
        assert!(world.get(1, 1).is_none(), "who is dead is not delivered again");
        assert_eq!(world.drain(2), ["a"]);
        world.pass(100);
        assert_eq!(world.drain(2), ["b", "c"]);
        world.settle_down();
        let mut world = world.restart();
        assert_eq!((world.view(1).messages(), world.view(2).messages()), (0, 0));
    }
}

#[test]
fn every_reason_and_the_time_of_death_are_told_however_late_the_letter_is_taken() {
    let start = World::new().now.unix_ms / 1000;
    let settings =
        QueueSettings { message_ttl_ms: Some(3_000), length_max: Some(2), delivery_limit: Some(0), ..to("q2") };
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, settings.clone());
        world.durable_queue(2, with_room(0));
        fill(&mut world, &["0", "1", "2", "3"]);
        for how in [Settlement::Discard, Settlement::Requeue] {
            let seq = world.get(1, 1).unwrap().seq.0;
            world.settle(1, seq, how);
        }
        fill(&mut world, &["4"]);
        world.pass(3_001);
        assert_eq!((owed(&mut world, 1), world.depths(1)), (5, (0, 0)));
        world.settle_down();
        let mut world = world.restart();
        world.pass(60_000);
        change(&mut world, 2, QueueSettings::default());
        world.pass(5_000);
        let mut told = Vec::new();
        while let Some(delivery) = world.get(1, 2) {
            let properties = Properties::parse(delivery.message.properties()).unwrap();
            let headers = properties.headers().unwrap();
            let Some(Value::Array(deaths)) = headers.get("x-death") else { panic!("{headers:?}") };
            let [Value::Table(death)] = &deaths[..] else { panic!("{deaths:?}") };
            let Some(Value::Timestamp(time)) = death.get("time") else { panic!("{death:?}") };
            assert_eq!(death.get("count"), Some(&Value::I64(1)), "it died once");
            let reason = death.get("reason").and_then(Value::as_str).unwrap().to_owned();
            told.push((delivery.message.body()[0] - b'0', reason, *time - start));
        }
        let expected =
            [(0, "maxlen", 0), (1, "maxlen", 0), (2, "rejected", 0), (3, "delivery_limit", 0), (4, "expired", 3)];
        assert_eq!(told, expected.map(|(body, reason, time)| (body, reason.to_owned(), time)));
    }
}

#[test]
fn who_is_asked_in_vain_is_asked_less_often() {
    let mut world = World::new();
    world.durable_queue(1, to("far"));
    world.topology.add_queue(Arc::new(far()));
    fill(&mut world, &["a"]);
    reject(&mut world, 1);
    let mut tries = Vec::new();
    for ms in 0..20_000 {
        for (_, input) in std::mem::take(&mut world.out.shards) {
            let ShardInput::Transfer { transfer, if_refused, .. } = input else { panic!("{input:?}") };
            assert_eq!(if_refused, IfRefused::Owed);
            tries.push(ms);
            world.step(vec![ShardInput::TransferRefused { transfer, by: ShardId(1) }]);
            assert_eq!(owed(&mut world, 1), 1);
        }
        world.pass(1);
    }
    assert_eq!(tries, [0, 100, 300, 700, 1_500, 3_100, 6_300, 11_300, 16_300]);
}

#[test]
fn letters_for_another_shard_go_one_first_and_more_while_they_are_taken() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, to("far"));
        world.topology.add_queue(Arc::new(far()));
        let bodies: Vec<String> = (100..300).map(|n| n.to_string()).collect();
        fill(&mut world, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
        reject(&mut world, 200);
        let mut sent = Vec::new();
        let mut taken = Vec::new();
        for is_taken in [false, true] {
            // At first all were on their way.
            for _ in 0..20 {
                let inputs = std::mem::take(&mut world.out.shards);
                sent.extend(is_taken.then_some(inputs.len()).filter(|count| *count > 0));
                let answers = inputs.into_iter().map(|(_, input)| {
                    let ShardInput::Transfer { transfer, publish, .. } = input else { panic!("{input:?}") };
                    if !is_taken {
                        return ShardInput::TransferRefused { transfer, by: ShardId(1) };
                    }
                    taken.push(String::from_utf8(publish.message.body().to_vec()).unwrap());
                    ShardInput::TransferStored { transfer, by: ShardId(1) }
                });
                let answers = answers.collect();
                world.step(answers);
            }
            world.pass(100);
        }
        assert_eq!(sent, [1, 2, 4, 8, 16, 32, 64, 73]);
        assert_eq!(taken, bodies, "in order");
        assert_eq!(owed(&mut world, 1), 0);
        world.settle_down();
        assert_eq!(world.restart().view(1).messages(), 0);
    }
}

#[test]
fn a_letter_for_several_queues_comes_to_each_of_them_once() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings { dead_letter_exchange: Some("amq.fanout".to_owned()), ..to("q2") });
        world.durable_queue(2, QueueSettings::default());
        world.durable_queue(3, with_room(0));
        world.bind("amq.fanout", 2);
        world.bind("amq.fanout", 3);
        fill(&mut world, &["a", "b"]);
        reject(&mut world, 2);
        world.pass(10_000);
        assert_eq!((owed(&mut world, 1), world.depths(2), world.depths(3)), (2, (0, 0), (0, 0)));
        world.settle_down();
        let mut world = world.restart();
        world.bind("amq.fanout", 2);
        world.bind("amq.fanout", 3);
        change(&mut world, 3, with_room(10));
        world.pass(5_000);
        assert_eq!(owed(&mut world, 1), 0);
        assert_eq!((world.drain(2), world.drain(3)), (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()]));
    }
}

#[test]
fn a_letter_for_two_shards_comes_to_this_one_last_and_to_none_of_them_twice() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { dead_letter_exchange: Some("amq.fanout".to_owned()), ..to("q2") });
    world.durable_queue(2, with_room(1));
    world.topology.add_queue(Arc::new(far()));
    world.bind("amq.fanout", 2);
    world.bind("amq.fanout", 50);
    fill(&mut world, &["a", "b"]);
    let transfer = |world: &mut World| match world.out.shards.pop() {
        Some((ShardId(1), ShardInput::Transfer { transfer, .. })) => Some(transfer),
        None => None,
        other => panic!("{other:?}"),
    };
    let stored = |transfer| ShardInput::TransferStored { transfer, by: ShardId(1) };
    reject(&mut world, 1);
    let first = transfer(&mut world).unwrap();
    assert_eq!(world.depths(2), (0, 0), "the other one is first");
    world.step(vec![stored(first)]);
    assert_eq!((world.depths(2), owed(&mut world, 1)), ((1, 0), 0));

    reject(&mut world, 1);
    world.pass(10_000);
    assert_eq!(transfer(&mut world), None, "nobody is asked while there is no room here");
    assert_eq!(world.drain(2), ["a"]);
    let second = transfer(&mut world).unwrap();
    // Room is kept for it for a second.
    world.command(9, persistent(&[2], "refused"));
    world.pass(1_000);
    world.command(9, persistent(&[2], "filler"));
    world.step(vec![stored(second)]);
    assert_eq!((owed(&mut world, 1), world.depths(2)), (1, (1, 0)));
    assert_eq!(world.drain(2), ["filler", "b"]);
    assert_eq!((transfer(&mut world), owed(&mut world, 1)), (None, 0), "the other one has it already");
}

#[test]
fn what_comes_in_is_refused_while_letters_that_do_not_leave_take_the_room() {
    let mut world = World::new();
    world.durable_queue(1, to("q2"));
    change(&mut world, 1, QueueSettings { length_max: Some(2), overflow: Overflow::RejectPublish, ..to("q2") });
    world.durable_queue(2, with_room(0));
    fill(&mut world, &["a", "b"]);
    reject(&mut world, 2);
    fill(&mut world, &["c"]);
    assert_eq!((world.depths(1), world.view(1).counters.refused), ((0, 0), 1));
    change(&mut world, 2, QueueSettings::default());
    world.settle_down();
    fill(&mut world, &["d"]);
    assert_eq!((world.depths(1), world.depths(2)), ((1, 0), (2, 0)));
}

#[test]
fn queues_that_dead_letter_into_each_other_do_not_wait_for_each_other() {
    for mut world in [World::new(), World::without_room()] {
        let full = |key| QueueSettings { length_max: Some(2), overflow: Overflow::RejectPublish, ..to(key) };
        world.durable_queue(1, full("q2"));
        world.durable_queue(2, QueueSettings { message_ttl_ms: Some(10), ..full("q1") });
        fill(&mut world, &["a", "b"]);
        reject(&mut world, 2);
        fill(&mut world, &["c", "d"]);
        world.pass(11);
        assert_eq!((owed(&mut world, 2), world.depths(1)), (2, (2, 0)), "no room for those that come back");
        reject(&mut world, 2);
        world.pass(11);
        world.pass(11);
        for _ in 0..100 {
            reject(&mut world, 1);
            world.pass(11);
        }
        let mut all = Vec::new();
        for _ in 0..10 {
            all.extend(world.drain(1));
            world.pass(11);
        }
        all.sort();
        assert_eq!(all, ["a", "b", "c", "d"]);
    }
}

#[test]
fn a_queue_that_is_its_own_target_takes_its_letters_when_it_has_room() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { length_max: Some(1), overflow: Overflow::RejectPublish, ..to("q1") });
    fill(&mut world, &["a"]);
    let seq = world.get(1, 1).unwrap().seq.0;
    fill(&mut world, &["b"]);
    world.settle(1, seq, Settlement::Discard);
    assert_eq!((owed(&mut world, 1), world.depths(1)), (1, (1, 0)));
    assert_eq!(world.drain(1), ["b", "a"]);
}

#[test]
fn a_purge_leaves_them_and_a_deletion_takes_them_along() {
    for mut world in worlds(0) {
        fill(&mut world, &["a", "b", "c", "d"]);
        reject(&mut world, 1);
        let kept = world.get(1, 1).unwrap().seq.0;
        reject(&mut world, 1);
        let purged = world.ask(1, |call| Command::Purge { call, queue: Q });
        assert!(matches!(purged, Outcome::Purged { messages: 1 }), "{purged:?}");
        assert_eq!((owed(&mut world, 1), world.depths(1)), (2, (0, 1)));
        world.settle_down();
        let mut world = world.restart();
        assert_eq!((owed(&mut world, 1), world.depths(1)), (2, (1, 0)), "{kept} came back");
        let delete =
            |if_empty| ShardInput::DeleteQueue { queue: Q, if_unused: false, if_empty, ticket: CatalogTicket(1) };
        assert!(!world.drain(1).is_empty());
        world.step(vec![delete(true)]);
        assert_eq!(owed(&mut world, 1), 2, "it is not empty");
        world.step(vec![delete(false)]);
        world.pass(10_000);
        assert_eq!(world.view(2).messages(), 0);
        world.settle_down();
        let mut world = world.restart();
        assert!(!world.shard.queue_slots.contains_key(&Q));
        assert_eq!(world.view(2).messages(), 0);
    }
}

#[test]
fn what_nobody_asks_for_any_more_goes_and_what_leads_elsewhere_by_now_goes_there() {
    for (settings, found) in [
        (QueueSettings::default(), [0, 0]),
        (QueueSettings { dead_letter_strategy: DeadLetterStrategy::AtMostOnce, ..to("q2") }, [0, 0]),
        (to("q3"), [0, 3]),
        (to("nowhere"), [0, 0]),
        (QueueSettings { dead_letter_strategy: DeadLetterStrategy::AtLeastOnce, ..to("nowhere") }, [3, 0]),
    ] {
        for mut world in worlds(0) {
            world.durable_queue(3, QueueSettings::default());
            fill(&mut world, &["a", "b", "c"]);
            reject(&mut world, 3);
            change(&mut world, 1, settings.clone());
            world.settle_down();
            assert_eq!([owed(&mut world, 1), world.depths(3).0], found, "{settings:?}");
            let mut world = world.restart();
            assert_eq!([owed(&mut world, 1), world.depths(3).0], found, "{settings:?}");
        }
    }
}

#[test]
fn at_least_once_keeps_what_leads_nowhere_until_it_leads_somewhere() {
    for mut world in worlds(0) {
        change(&mut world, 1, QueueSettings { dead_letter_strategy: DeadLetterStrategy::AtLeastOnce, ..to("q3") });
        fill(&mut world, &["a", "b"]);
        reject(&mut world, 2);
        world.pass(1_000);
        assert_eq!(owed(&mut world, 1), 2);
        world.durable_queue(3, QueueSettings::default());
        world.pass(5_000);
        assert_eq!((owed(&mut world, 1), world.drain(3)), (0, vec!["a".into(), "b".into()]));
    }
}

#[test]
fn a_transient_letter_is_owed_until_the_server_stops() {
    for mut world in worlds(0) {
        world.commands(9, vec![publish(&[1], "a"), publish(&[1], "b")]);
        reject(&mut world, 2);
        world.settle_down();
        assert_eq!((owed(&mut world, 1), world.view(1).persistent), (2, 0));
        let mut again = worlds(0).into_iter().next().unwrap();
        std::mem::swap(&mut world, &mut again);
        assert_eq!(owed(&mut again.restart(), 1), 0);
    }
}

#[test]
fn a_transient_letter_for_another_shard_is_owed_if_that_refuses_it() {
    let mut world = World::new();
    world.durable_queue(1, to("far"));
    world.topology.add_queue(Arc::new(far()));
    world.publish(1, "a");
    reject(&mut world, 1);
    for is_last in [false, true] {
        let Some((_, ShardInput::Transfer { transfer, publish, .. })) = world.out.shards.pop() else { panic!() };
        assert_eq!(publish.message.body(), b"a");
        let by = ShardId(1);
        world.step(vec![match is_last {
            false => ShardInput::TransferRefused { transfer, by },
            true => ShardInput::TransferStored { transfer, by },
        }]);
        assert_eq!(owed(&mut world, 1), u64::from(!is_last));
        world.pass(100);
    }
}

#[test]
fn room_that_an_operator_makes_is_used() {
    for mut world in worlds(2) {
        world.durable_queue(3, QueueSettings::default());
        fill(&mut world, &["a", "b", "c", "d", "e"]);
        reject(&mut world, 5);
        let act = Act::Move(Target::Queue("q3".to_owned()));
        let which = Which::Ready { from: crate::operation::Cursor::HEAD, until: None };
        let page = world.scan(2, Scan { which, filter: Filter::default(), count: 2, act });
        assert_eq!(page.done, 2);
        world.settle_down();
        assert_eq!((owed(&mut world, 1), world.drain(3)), (1, vec!["a".into(), "b".into()]));
        assert_eq!(world.drain(2), ["c", "d", "e"]);
    }
}

#[test]
fn letters_and_what_is_published_take_turns() {
    let [mut world, _] = worlds(1);
    fill(&mut world, &["a", "b", "c"]);
    reject(&mut world, 3);
    let mut got = Vec::new();
    for round in 0..7 {
        // As soon as there is room something is published: nothing else comes between.
        let get = Command::Get { call: CallId(1_000 + round), channel: ChannelId(1), queue: QueueId(2), no_ack: true };
        world.commands(9, vec![get, persistent(&[2], &format!("p{round}"))]);
        match world.outcome(CallId(1_000 + round)) {
            Some(Outcome::Got { delivery, .. }) => {
                got.push(String::from_utf8(delivery.message.body().to_vec()).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, ["a", "b", "p1", "c", "p3", "p4", "p5"]);
    assert_eq!(owed(&mut world, 1), 0);
}

#[test]
fn no_room_is_kept_for_a_letter_that_does_not_come() {
    let most_bytes = |bytes_max| QueueSettings {
        bytes_max: Some(bytes_max),
        overflow: Overflow::RejectPublish,
        ..QueueSettings::default()
    };
    let publish = |world: &mut World, body: &str| {
        world.command(9, persistent(&[2], body));
        world.drain(2)
    };
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, to("q2"));
        world.durable_queue(2, most_bytes(3));
        fill(&mut world, &["long", "abc"]);
        reject(&mut world, 1);
        assert_eq!(publish(&mut world, "abc"), ["abc"], "that one never fits");
        world.command(9, persistent(&[2], "a"));
        change(&mut world, 2, most_bytes(4));
        world.settle_down();
        world.command(9, persistent(&[2], "bc"));
        assert_eq!((owed(&mut world, 1), world.depths(2)), (1, (1, 0)), "it is the letter's turn");
        // Its queue goes, and with it who waits.
        let (queue, ticket) = (QueueId(1), CatalogTicket(1));
        world.step(vec![ShardInput::DeleteQueue { queue, if_unused: false, if_empty: false, ticket }]);
        world.command(9, persistent(&[2], "bc"));
        assert_eq!(world.drain(2), ["a", "bc"]);
    }
}

#[test]
fn letters_that_are_owed_can_be_looked_at_and_nothing_else() {
    for mut world in worlds(0) {
        world.durable_queue(3, QueueSettings::default());
        fill(&mut world, &["a", "b", "c", "d"]);
        world.command(9, persistent(&[1], "e"));
        reject(&mut world, 4);
        let scan = |which, count, act| Scan { which, filter: Filter::default(), count, act };
        let all = Which::Owed { from: Seq(0) };
        let letters = |page: Page| {
            let shown = page.shown.into_iter();
            let told = shown.map(|shown| (shown.seq.0, shown.message.body()[0] as char, shown.death, shown.due_at_ms));
            told.collect::<Vec<_>>()
        };
        let death = Some(Death { reason: "rejected", unix_s: world.now.unix_ms / 1000 });
        let page = world.scan(1, scan(all.clone(), 3, Act::Show));
        assert!(matches!(page.next, Some(Next::Owed(Seq(4)))), "{:?}", page.next);
        assert_eq!(letters(page), [(1, 'a', death, None), (2, 'b', death, None), (3, 'c', death, None)]);
        assert_eq!(letters(world.scan_all(1, scan(all.clone(), 1, Act::Show))).len(), 4, "a piece after the other");
        let these = Which::These(vec![Seq(5), Seq(2)]);
        let named = letters(world.scan(1, scan(these.clone(), 10, Act::Show)));
        assert_eq!(named, [(5, 'e', None, None), (2, 'b', death, None)]);

        world.now.ms += 100;
        world.shard.step(world.now, &mut Vec::new(), &world.topology, &mut world.out);
        assert_eq!(world.shard.readings.len(), 1, "one is tried");
        let page = world.scan(1, scan(all.clone(), 10, Act::Show));
        assert_eq!(letters(page).len(), 4, "what is tried is still owed");

        for act in [Act::Requeue, Act::Move(Target::Queue("q3".to_owned())), Act::Delete, Act::Release] {
            assert_eq!(world.scan(1, scan(all.clone(), 10, act.clone())).done, 0, "{act:?}");
        }
        assert_eq!(world.scan(1, scan(these, 10, Act::Delete)).done, 1, "the one that is ready");
        assert_eq!(owed(&mut world, 1), 4);
        world.settle_down();
        let mut world = world.restart();
        assert_eq!(letters(world.scan(1, scan(all, 10, Act::Show))).len(), 4);
    }
}

#[test]
fn a_million_letters_take_an_index_and_no_tries() {
    let mut world = World::without_room();
    world.durable_queue(1, QueueSettings { message_ttl_ms: Some(10), ..to("q2") });
    world.durable_queue(2, with_room(0));
    for _ in 0..100 {
        world.commands(9, (0..1_000).map(|_| persistent(&[1], "a body of some length")).collect());
    }
    world.pass(11);
    for _ in 0..100 {
        world.step(vec![]);
    }
    let view = world.view(1);
    assert_eq!((view.owed, view.ready), (100_000, 0));
    assert!(view.memory < 100_000, "{} bytes", view.memory);
    let before = world.shard.last_read;
    for _ in 0..3_600 {
        world.pass(1_000);
    }
    assert!(world.shard.last_read - before < 800, "one every five seconds");
}

#[test]
fn a_checkpoint_and_an_emptied_segment_know_of_letters() {
    for mut world in worlds(0) {
        world.durable_queue(3, QueueSettings::default());
        fill(&mut world, &["a", "b", "c"]);
        reject(&mut world, 2);
        for _ in 0..100 {
            world.command(9, persistent(&[3], &"x".repeat(1000)));
            world.drain(3);
            world.pass(1_100);
        }
        world.settle_down();
        let bytes = world.shard.log.log_bytes();
        assert!(bytes < 20_000, "letters do not hold the log up: {bytes}");
        let mut world = world.restart();
        assert_eq!((owed(&mut world, 1), world.depths(1)), (2, (1, 0)));
        change(&mut world, 2, QueueSettings::default());
        world.pass(5_000);
        assert_eq!(world.drain(2), ["a", "b"]);
    }
}

#[test]
fn reasons_are_told_apart_in_the_log() {
    use crate::queue::owed::Died;
    let told = |reason| Died::of(Died { reason, unix_s: 5 }.due_at_ms()).map(|died| died.reason);
    assert_eq!(told(Reason::MaxLength), Some(Reason::MaxLength));
}

#[test]
fn a_queue_is_not_empty_while_its_last_letters_are_tried() {
    let mut world = World::new();
    world.durable_queue(1, to("far"));
    world.topology.add_queue(Arc::new(far()));
    fill(&mut world, &["a"]);
    reject(&mut world, 1);
    let transfer = |world: &mut World| match world.out.shards.pop() {
        Some((_, ShardInput::Transfer { transfer, .. })) => transfer,
        other => panic!("{other:?}"),
    };
    let first = transfer(&mut world);
    world.step(vec![ShardInput::TransferRefused { transfer: first, by: ShardId(1) }]);
    world.pass(100);
    let second = transfer(&mut world);
    let slot = world.shard.queue_slots[&Q];
    assert_eq!(world.shard.queues[slot].owed_sums().count, 0, "it is on its way");
    let mut delete = |if_empty| {
        let ticket = CatalogTicket(1);
        world.step(vec![ShardInput::DeleteQueue { queue: Q, if_unused: false, if_empty, ticket }]);
        world.settle_down();
        match world.out.catalog.pop() {
            Some(ShardReport::Deleted { outcome, .. }) => outcome,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(delete(true), Outcome::Fault(fault) if fault.text.ends_with("not empty")));
    assert!(matches!(delete(false), Outcome::QueueDeleted { messages: 1, .. }));
    world.step(vec![ShardInput::TransferStored { transfer: second, by: ShardId(1) }]);
    assert!(!world.shard.queue_slots.contains_key(&Q));
}

#[test]
fn a_shard_that_has_a_letter_does_not_get_it_again_when_it_is_to_be_sent_only_once() {
    let mut world = World::new();
    let settings = QueueSettings { dead_letter_exchange: Some("amq.fanout".to_owned()), ..to("q2") };
    world.durable_queue(1, settings.clone());
    world.durable_queue(2, with_room(1));
    world.topology.add_queue(Arc::new(far()));
    world.bind("amq.fanout", 2);
    world.bind("amq.fanout", 50);
    fill(&mut world, &["a"]);
    reject(&mut world, 1);
    let Some((_, ShardInput::Transfer { transfer, .. })) = world.out.shards.pop() else { panic!() };
    world.command(9, persistent(&[2], "filler"));
    world.step(vec![ShardInput::TransferStored { transfer, by: ShardId(1) }]);
    assert_eq!((owed(&mut world, 1), world.shard.taken_by.len()), (1, 1));

    change(&mut world, 1, QueueSettings { dead_letter_strategy: DeadLetterStrategy::AtMostOnce, ..settings });
    world.pass(10_000);
    assert!(world.out.shards.is_empty(), "{:?}", world.out.shards);
    assert_eq!((owed(&mut world, 1), world.shard.taken_by.len()), (0, 0));
}
