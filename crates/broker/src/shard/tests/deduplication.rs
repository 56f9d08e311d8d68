//! Queues that take one message of a key only.

use super::*;
use crate::queue::deduplication::HEADER;
use amqp::Value;
use store::Store;

fn present() -> QueueSettings {
    spanning(Span::Present)
}

fn window(most: u32, ttl_ms: Option<u64>) -> QueueSettings {
    spanning(Span::Window { most, ttl_ms })
}

fn spanning(span: Span) -> QueueSettings {
    let rule = Deduplication { key: KeySource::Header(HEADER.to_owned()), span };
    QueueSettings { deduplication: Some(rule), ..QueueSettings::default() }
}

fn with_headers(queues: &[u64], body: &str, headers: &[(&str, Value)], delivery_mode: u8) -> Publish {
    let headers: Table = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let list = PropertyList { headers: Some(headers), delivery_mode: Some(delivery_mode), ..PropertyList::default() };
    publication(queues, body, &list)
}

fn keyed(queue: u64, key: &str, body: &str) -> Command {
    Command::Publish(with_headers(&[queue], body, &[(HEADER, key.into())], 2))
}

fn through(source: u64, most: u32, queues: &[u64], key: &str, body: &str) -> Command {
    let rule = Deduplication { key: KeySource::Header(HEADER.to_owned()), span: Span::Window { most, ttl_ms: None } };
    let publish = with_headers(queues, body, &[(HEADER, key.into())], 2);
    let sieves = Sieves::of(vec![Arc::new(Sieve { source, rule })]);
    Command::Sift(Box::new(Sifted { sifting: Sifting::All(Arc::new(sieves)), publish }))
}

/// Writes a checkpoint, as happens when the log is long.
fn checkpoint(world: &mut World) {
    world.shard.log.store().begin_checkpoint();
    world.shard.checkpoint = Some(crate::shard::checkpoint::Pass::of(world.shard.log.facts()));
    world.settle_down();
    assert!(world.shard.checkpoint.is_none(), "it is complete");
}

/// Makes everything durable.
fn sync(world: &mut World) {
    world.command(9, Command::Mark { mark: 0 });
    world.settle_down();
    world.events();
}

#[test]
fn a_key_is_taken_once_as_long_as_its_message_is_there() {
    let mut world = World::new();
    world.durable_queue(1, present());
    for (key, body) in [("a", "1"), ("b", "2"), ("a", "3")] {
        world.command(9, keyed(1, key, body));
    }
    world.publish(1, "no key");
    world.publish(1, "no key");
    assert_eq!(world.view(1).counters.deduplicated, 1);
    let first = world.get(1, 1).unwrap();
    world.command(9, keyed(1, "a", "unacked ones count"));
    world.command(1, settle(1, first.seq.0, Settlement::Requeue));
    world.command(9, keyed(1, "a", "so do those that came back"));
    assert_eq!(world.view(1).counters.deduplicated, 3);
    let first = world.get(1, 1).unwrap();
    world.command(1, settle(1, first.seq.0, Settlement::Ack));
    world.command(9, keyed(1, "a", "4"));
    assert_eq!(world.drain(1), ["2", "no key", "no key", "4"]);
    assert_eq!(world.view(1).counters.deduplicated, 3);
}

#[test]
fn the_same_holds_for_messages_that_are_in_the_log_only_and_after_a_crash() {
    let mut world = World::without_room();
    world.durable_queue(1, present());
    (0..50).for_each(|number| world.command(9, keyed(1, &number.to_string(), &number.to_string())));
    let first = world.get(1, 1).unwrap();
    world.command(1, settle(1, first.seq.0, Settlement::Ack));
    sync(&mut world);
    let mut world = world.restart();
    (0..50).for_each(|number| world.command(9, keyed(1, &number.to_string(), "again")));
    assert_eq!(world.view(1).counters.deduplicated, 49);
    assert_eq!(world.drain(1).last().map(String::as_str), Some("again"), "that of the acknowledged one");
}

#[test]
fn a_window_goes_by_number_and_by_time_and_not_by_what_is_there() {
    let mut world = World::new();
    world.durable_queue(1, window(2, Some(1_000)));
    world.command(9, keyed(1, "a", "1"));
    assert_eq!(world.drain(1), ["1"]);
    world.command(9, keyed(1, "a", "2"));
    assert_eq!(world.drain(1), [""; 0], "it is gone, and remembered");
    world.pass(1_000);
    world.command(9, keyed(1, "a", "3"));
    assert_eq!(world.drain(1), ["3"], "its time is over");
    for key in ["b", "c", "a"] {
        world.command(9, keyed(1, key, key));
    }
    assert_eq!(world.drain(1), ["b", "c", "a"], "two newer ones came");
    assert_eq!(world.view(1).counters.deduplicated, 1);
}

#[test]
fn a_message_may_say_for_how_long_it_is_remembered() {
    let mut world = World::new();
    world.durable_queue(1, window(9, Some(1_000)));
    let lasting = |ttl_ms: Value, body: &str| {
        let headers = [(HEADER, body.into()), ("x-cache-ttl", ttl_ms)];
        Command::Publish(with_headers(&[1], body, &headers, 2))
    };
    let all = [("a", Value::I32(5)), ("b", Value::I64(5_000)), ("c", "soon".into()), ("d", Value::I32(0))];
    for (body, ttl_ms) in &all {
        world.command(9, lasting(ttl_ms.clone(), body));
    }
    world.command(9, lasting(Value::Void, "d"));
    world.pass(10);
    world.command(9, lasting(Value::Void, "a"));
    world.pass(1_000);
    for (body, _) in &all {
        world.command(9, lasting(Value::Void, body));
    }
    assert_eq!(world.drain(1), ["a", "b", "c", "d", "d", "a", "a", "c", "d"]);
}

#[test]
fn a_window_outlives_a_crash_with_what_was_confirmed_and_a_checkpoint() {
    let mut world = World::new();
    world.durable_queue(1, window(1_000, None));
    (0..100).for_each(|number| world.command(9, keyed(1, &number.to_string(), "")));
    world.drain(1);
    sync(&mut world);
    let mut world = world.restart();
    (0..100).for_each(|number| world.command(9, keyed(1, &number.to_string(), "")));
    assert_eq!(world.view(1).counters.deduplicated, 100);
    checkpoint(&mut world);
    world.command(9, keyed(1, "100", ""));
    sync(&mut world);
    let mut world = world.restart();
    (0..=100).for_each(|number| world.command(9, keyed(1, &number.to_string(), "")));
    assert_eq!(world.view(1).counters.deduplicated, 101);
}

#[test]
fn what_is_not_kept_over_a_restart_is_not_remembered_either() {
    let mut world = World::new();
    world.durable_queue(1, window(10, None));
    world.command(9, Command::Publish(with_headers(&[1], "1", &[(HEADER, "a".into())], 1)));
    world.command(9, keyed(1, "a", "2"));
    world.command(9, keyed(1, "b", "3"));
    assert_eq!(world.view(1).counters.deduplicated, 1);
    sync(&mut world);
    let mut world = world.restart();
    world.command(9, keyed(1, "a", "4"));
    world.command(9, keyed(1, "b", "5"));
    assert_eq!(world.drain(1), ["3", "4"]);
}

#[test]
fn strings_integers_and_booleans_are_keys_and_nothing_else_is() {
    let mut world = World::new();
    world.durable_queue(1, present());
    let mut taken = |value: Value| {
        let before = world.view(1).counters.deduplicated;
        world.command(9, Command::Publish(with_headers(&[1], "", &[(HEADER, value)], 2)));
        world.view(1).counters.deduplicated == before
    };
    for value in [Value::I32(5), Value::U8(6), "5".into(), "".into(), Value::Bool(true), Value::I64(1)] {
        assert!(taken(value.clone()), "{value:?} is new");
        assert!(!taken(value.clone()), "{value:?} is a duplicate");
    }
    assert!(!taken(Value::I64(5)) && !taken(Value::U16(5)), "whatever their width");
    for value in [Value::Void, Value::F64(1.0), Value::Array(vec![]), Value::Table(Table::new())] {
        assert!(taken(value.clone()) && taken(value.clone()), "{value:?} is no key");
    }
}

#[test]
fn the_key_may_be_the_message_id() {
    let mut world = World::new();
    let rule = Deduplication { key: KeySource::MessageId, span: Span::Present };
    world.durable_queue(1, QueueSettings { deduplication: Some(rule), ..QueueSettings::default() });
    let named = |id: &str| {
        let list = PropertyList { message_id: Some(id.into()), ..PropertyList::default() };
        Command::Publish(publication(&[1], id, &list))
    };
    for id in ["a", "b", "a"] {
        world.command(9, named(id));
    }
    assert_eq!(world.drain(1), ["a", "b"]);
}

#[test]
fn a_duplicate_is_confirmed_when_the_first_is_durable_and_not_refused() {
    let mut world = World::new();
    let settings = QueueSettings { length_max: Some(1), overflow: Overflow::RejectPublish, ..present() };
    world.durable_queue(1, settings);
    world.settle_down();
    world.events();
    world.commands(9, vec![keyed(1, "a", "1"), keyed(1, "a", "2"), Command::Mark { mark: 1 }]);
    let is_stored = |world: &mut World, wanted: u64| {
        let events = world.events();
        events.iter().any(|(_, event)| {
            matches!(event, ConnectionEvent::Stored { mark, refused, .. } if *mark == wanted && refused.is_empty())
        })
    };
    assert!(!is_stored(&mut world, 1), "not before it is");
    world.settle_down();
    assert!(is_stored(&mut world, 1));
    world.commands(8, vec![keyed(1, "a", "3"), Command::Mark { mark: 2 }]);
    assert!(is_stored(&mut world, 2), "nothing to wait for");
    world.commands(8, vec![keyed(1, "b", "4"), Command::Mark { mark: 3 }]);
    world.settle_down();
    let refused = world.events().into_iter().find_map(|(_, event)| match event {
        ConnectionEvent::Stored { refused, .. } => Some(refused),
        _ => None,
    });
    assert_eq!(refused, Some(vec![0]), "it is full");
    world.drain(1);
    world.command(8, keyed(1, "b", "5"));
    assert_eq!(world.drain(1), ["5"], "what was refused is not remembered");
}

#[test]
fn a_message_that_goes_to_many_queues_is_a_duplicate_where_it_was() {
    let mut world = World::new();
    world.durable_queue(1, present());
    world.durable_queue(2, present());
    world.durable_queue(3, QueueSettings::default());
    world.command(9, keyed(1, "a", "first"));
    world.command(9, Command::Publish(with_headers(&[1, 2, 3], "second", &[(HEADER, "a".into())], 2)));
    sync(&mut world);
    let mut world = world.restart();
    world.command(9, Command::Publish(with_headers(&[1, 2, 3], "third", &[(HEADER, "a".into())], 2)));
    assert_eq!(world.drain(1), ["first"]);
    assert_eq!(world.drain(2), ["second"]);
    assert_eq!(world.drain(3), ["second", "third"]);
}

#[test]
fn a_transaction_has_its_keys_or_none() {
    let mut world = World::new();
    world.durable_queue(1, window(10, None));
    world.command(9, Command::Transaction(vec![keyed(1, "a", "1"), keyed(1, "b", "2"), keyed(1, "a", "3")]));
    sync(&mut world);
    let mut world = world.restart();
    world.command(9, keyed(1, "b", "4"));
    assert_eq!(world.drain(1), ["1", "2"]);
}

#[test]
fn dead_letters_pass_and_are_remembered() {
    let mut world = World::new();
    world.durable_queue(2, present());
    let settings = QueueSettings {
        dead_letter_exchange: Some(String::new()),
        dead_letter_key: Some("q2".to_owned()),
        ..QueueSettings::default()
    };
    world.durable_queue(1, settings);
    world.command(9, keyed(2, "a", "published"));
    world.command(9, keyed(1, "a", "died"));
    let delivery = world.get(9, 1).unwrap();
    world.command(9, settle(1, delivery.seq.0, Settlement::Discard));
    let first = world.get(9, 2).unwrap();
    world.command(9, settle(2, first.seq.0, Settlement::Ack));
    world.command(9, keyed(2, "a", "again"));
    assert_eq!(world.drain(2), ["died"], "as long as that one is there");
}

#[test]
fn memory_is_for_messages_that_are_there() {
    let mut world = World::new();
    world.durable_queue(1, present());
    world.command(9, keyed(1, "stays", ""));
    let stuck = world.get(1, 1).unwrap().seq;
    for number in 0..3_000_u32 {
        world.command(9, keyed(1, &number.to_string(), ""));
        assert_eq!(world.drain(1).len(), 1);
    }
    let keys = world.view(1).memory;
    assert!(keys < 30_000, "{keys} bytes");
    world.settle(1, stuck.0, Settlement::Requeue);
    world.command(9, keyed(1, "stays", ""));
    assert_eq!(world.view(1).counters.deduplicated, 1);
}

#[test]
fn keys_of_delayed_messages_are_kept_and_those_of_others_that_went_are_not() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, present());
        let delayed = |key: &str, ms: i64| {
            let headers = [("x-deduplication-header", key.into()), ("x-delay", Value::I64(ms))];
            Command::Publish(with_headers(&[1], key, &headers, 2))
        };
        // Each that stays is between others that go, in another order than they came.
        let stays = |number: u32| number.is_multiple_of(100);
        for number in 0..3_000_u32 {
            let ms = if stays(number) { 1_000_000 + i64::from(number) } else { 1 + i64::from(number % 7) };
            world.command(9, delayed(&format!("key-{number}"), ms));
            if number % 10 == 9 {
                world.pass(10);
                assert_eq!(world.drain(1).len(), if number % 100 == 9 { 9 } else { 10 });
            }
        }
        let keys = world.view(1).memory;
        assert!(keys < 60_000, "{keys} bytes");
        for number in (0..3_000_u32).filter(|number| stays(*number)) {
            world.command(9, delayed(&format!("key-{number}"), 1));
        }
        let view = world.view(1);
        assert_eq!((view.counters.deduplicated, view.delayed), (30, 30));
        world.command(9, keyed(1, "key-1", "again"));
        assert_eq!(world.depths(1), (1, 0), "that one went");
    }
}

#[test]
fn each_queue_gets_one_message_of_a_key_through_an_exchange() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.durable_queue(2, QueueSettings::default());
    world.command(9, through(70, 10, &[1], "a", "1"));
    world.command(9, keyed(1, "a", "not through it"));
    world.command(9, through(71, 10, &[1], "a", "through another"));
    world.command(9, through(70, 10, &[1, 2], "a", "2"));
    sync(&mut world);
    let mut world = world.restart();
    world.command(9, through(70, 10, &[1, 2], "a", "3"));
    assert_eq!(world.drain(1), ["1", "not through it", "through another"]);
    assert_eq!(world.drain(2), ["2"]);
    assert_eq!((world.view(1).counters.deduplicated, world.view(2).counters.deduplicated), (1, 1));
    world.step(vec![ShardInput::KeepSources { sources: Arc::from([71]) }]);
    world.command(9, through(71, 10, &[1], "a", "still known"));
    world.command(9, through(70, 10, &[1], "a", "forgotten"));
    assert_eq!(world.drain(1), ["forgotten"]);
}

#[test]
fn another_span_begins_with_nothing() {
    let mut world = World::new();
    world.durable_queue(1, present());
    world.command(9, keyed(1, "a", "1"));
    let change = |world: &mut World, settings| {
        world.step(vec![ShardInput::ChangeQueues { specs: vec![Arc::new(spec(1, settings))] }]);
    };
    change(&mut world, window(10, None));
    world.command(9, keyed(1, "a", "2"));
    world.command(9, keyed(1, "a", "3"));
    change(&mut world, window(1, None));
    world.command(9, keyed(1, "a", "4"));
    change(&mut world, QueueSettings::default());
    world.command(9, keyed(1, "a", "5"));
    assert_eq!(world.drain(1), ["1", "2", "5"]);
}

#[test]
fn no_key_of_a_message_that_is_there_is_lost_by_a_crash_however_many_there_are() {
    for has_checkpoint in [false, true] {
        let mut world = World::new();
        world.durable_queue(1, present());
        // Of each seven one stays.
        for number in 0..2_000_u32 {
            world.command(9, keyed(1, &number.to_string(), ""));
            let delivery = world.get(1, 1).unwrap();
            if number % 7 != 0 {
                world.command(1, settle(1, delivery.seq.0, Settlement::Ack));
            }
        }
        if has_checkpoint {
            checkpoint(&mut world);
        }
        world.command(9, keyed(1, "after", ""));
        sync(&mut world);
        let mut world = world.restart();
        for number in 0..2_000_u32 {
            world.command(9, keyed(1, &number.to_string(), ""));
        }
        world.command(9, keyed(1, "after", ""));
        assert_eq!(world.view(1).counters.deduplicated, 2_000_u64.div_ceil(7) + 1);
    }
}

#[test]
fn a_checkpoint_has_the_keys_of_every_exchange_though_others_go_meanwhile() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    for source in [70, 71, 72] {
        for number in 0..15_000_u32 {
            world.command(9, through(source, 20_000, &[1], &number.to_string(), ""));
        }
    }
    // More keys than one step writes.
    world.shard.log.store().begin_checkpoint();
    world.shard.checkpoint = Some(crate::shard::checkpoint::Pass::of(world.shard.log.facts()));
    world.step(vec![]);
    assert!(world.shard.checkpoint.is_some(), "there is more");
    world.step(vec![ShardInput::KeepSources { sources: Arc::from([71, 72]) }]);
    world.settle_down();
    assert!(world.shard.checkpoint.is_none(), "it is complete");
    sync(&mut world);
    let mut world = world.restart();
    for source in [71, 72] {
        for number in 0..15_000_u32 {
            world.command(9, through(source, 20_000, &[1], &number.to_string(), ""));
        }
    }
    assert_eq!(world.view(1).counters.deduplicated, 30_000);
}

fn by_ways(ways: &[&[u64]], queue: u64, key: &str, body: &str) -> Command {
    let rule =
        Deduplication { key: KeySource::Header(HEADER.to_owned()), span: Span::Window { most: 9, ttl_ms: None } };
    let sieve = |source: &u64| Arc::new(Sieve { source: *source, rule: rule.clone() });
    let ways = ways.iter().map(|way| way.iter().map(sieve).collect()).collect();
    let sifting = Sifting::Some(vec![(QueueId(queue), Arc::new(Sieves { ways }))]);
    let publish = with_headers(&[queue, 2], body, &[(HEADER, key.into())], 2);
    Command::Sift(Box::new(Sifted { sifting, publish }))
}

#[test]
fn a_message_passes_if_one_way_is_open_and_no_exchange_on_it_knows_its_key() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    world.durable_queue(2, QueueSettings::default());
    for (ways, body) in [
        // One behind the other: both learn the key.
        (&[&[71, 72][..]][..], "first"),
        (&[&[72]], "known to the second"),
        (&[&[71]], "known to the first"),
        (&[&[73, 71]], "known to the last"),
        // Side by side: the other one lets it through, and knows it then.
        (&[&[71], &[74]], "new to one"),
        (&[&[71], &[74]], "known to both"),
        (&[&[74, 74]], "known, and named twice"),
    ] {
        world.command(9, by_ways(ways, 1, "a", body));
    }
    sync(&mut world);
    let mut world = world.restart();
    world.command(9, by_ways(&[&[71], &[74]], 1, "a", "known to both, still"));
    assert_eq!(world.drain(1), ["first", "new to one"]);
    assert_eq!(world.drain(2).len(), 8, "nothing is said of the other queue");
}
