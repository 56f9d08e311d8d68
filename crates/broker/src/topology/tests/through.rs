//! Exchanges that do more with a message than to route it: no route through them holds for others.

use super::*;
use crate::route::Reuse;

fn deduplicating(kind: ExchangeKind, arguments: &[(&str, Value)]) -> Exchange {
    let arguments = arguments.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Exchange::new(VHOST, "once", kind).with_arguments(arguments).with_source(7)
}

fn routes(world: &World, exchange: &str, headers: Option<Table>) -> Routes {
    let mut raw = BytesMut::new();
    PropertyList { headers, ..PropertyList::default() }.encode(&mut raw);
    let mut routes = Routes::default();
    world.topology.route(VHOST, exchange, &["a.b"], &Properties::parse(&raw).unwrap(), &mut routes).unwrap();
    routes
}

#[test]
fn an_exchange_that_deduplicates_routes_as_its_type_and_looks_at_each_message() {
    let is_on = ("x-message-deduplication", Value::Bool(true));
    for (exchange, key) in [
        (deduplicating(ExchangeKind::Topic, std::slice::from_ref(&is_on)), "a.*"),
        (deduplicating(ExchangeKind::ConsistentHash, std::slice::from_ref(&is_on)), "1"),
        (deduplicating(ExchangeKind::Deduplication, &[]), "any"),
    ] {
        assert_eq!(exchange.sieve.as_ref().map(|sieve| sieve.source), Some(7));
        let mut world = World::new();
        world.topology.add_exchange(exchange);
        world.queue("q1");
        world.bind("once", "q1", key);
        let found = routes(&world, "once", None);
        assert_eq!((found.queues.len(), found.reuse), (1, Reuse::Never));
        assert!(world.unbind("once", "q1", key));
        assert_eq!(world.routed("once", &["a.b"]), NOWHERE);
    }
    assert!(deduplicating(ExchangeKind::Topic, &[("x-cache-size", Value::I32(5))]).sieve.is_none());
}

#[test]
fn an_exchange_that_keeps_recent_messages_is_named_wherever_it_stands_on_the_way() {
    let mut world = World::new();
    world.exchange("chat", ExchangeKind::RecentHistory);
    world.exchange("before", ExchangeKind::Fanout);
    world.bind("before", "chat", "");
    for exchange in ["chat", "before"] {
        let found = routes(&world, exchange, None);
        assert_eq!((found.keepers(&world.topology, 1).len(), found.reuse), (1, Reuse::Never), "without a queue, too");
    }
    let no_store = [("x-recent-history-no-store", true)].into_iter().collect();
    assert_eq!(routes(&world, "chat", Some(no_store)).keepers(&world.topology, 1), []);
    assert_eq!(routes(&world, "amq.fanout", None).keepers(&world.topology, 1), []);
}

/// What a message to `exchange` has to pass on its way to each of these queues, by the exchanges' sources.
fn ways(world: &World, exchange: &str, queues: &[&str]) -> Vec<Vec<Vec<u64>>> {
    let sifting = routes(world, exchange, None).sifting;
    let of = |name: &&str| {
        let id = world.topology.queue(VHOST, name).unwrap().queue.id;
        let sieves = sifting.as_ref().and_then(|sifting| sifting.to(id));
        let sources = |way: &Vec<Arc<Sieve>>| way.iter().map(|sieve| sieve.source).collect();
        sieves.map_or_else(Vec::new, |sieves| sieves.ways.iter().map(sources).collect())
    };
    queues.iter().map(of).collect()
}

fn add_deduplicating(world: &mut World, name: &str, source: u64) {
    let arguments = [("x-message-deduplication", true)].into_iter().collect();
    let exchange = Exchange::new(VHOST, name, ExchangeKind::Fanout).with_arguments(arguments);
    world.topology.add_exchange(exchange.with_source(source));
}

#[test]
fn what_another_exchange_passes_on_is_deduplicated_on_its_way_to_queues_that_nothing_else_leads_to() {
    let mut world = World::new();
    world.exchange("front", ExchangeKind::Fanout);
    world.exchange("behind", ExchangeKind::Fanout);
    for (name, source) in [("once", 7), ("twice", 8), ("beside", 9)] {
        add_deduplicating(&mut world, name, source);
    }
    ["q1", "q2", "q3", "q4", "q5"].into_iter().for_each(|name| drop(world.queue(name)));
    for (from, to) in [
        ("front", "once"),
        ("front", "q2"),
        ("once", "q1"),
        ("once", "q2"),
        ("once", "twice"),
        ("once", "behind"),
        ("twice", "q3"),
        // A circle.
        ("twice", "once"),
        ("front", "beside"),
        ("beside", "q4"),
        ("behind", "q4"),
        ("behind", "q5"),
        ("beside", "behind"),
    ] {
        world.bind(from, to, "");
    }
    assert_eq!(world.routed("front", &[""]), ["q1", "q2", "q3", "q4", "q5"]);
    let found = ways(&world, "front", &["q1", "q2", "q3", "q4", "q5"]);
    let mut q4 = found[3].clone();
    q4.sort_unstable();
    assert_eq!(found[0], [[7]]);
    assert!(found[1].is_empty(), "it comes to q2 without that, too");
    assert_eq!(found[2], [[7, 8]]);
    assert_eq!(q4, [[7], [9]]);
    assert_eq!(found[4].len(), 2);
    assert_eq!(ways(&world, "once", &["q1", "q3", "q4"]), [vec![vec![7]], vec![vec![7, 8]], vec![vec![7]]]);
    assert!(matches!(routes(&world, "beside", None).sifting, Some(Sifting::All(_))));
    assert!(routes(&world, "behind", None).sifting.is_none());
    assert_eq!(routes(&world, "front", None).reuse, Reuse::Never);
    assert_eq!(routes(&world, "behind", None).reuse, Reuse::SameNames);
}

#[test]
fn what_is_asked_on_the_open_way_is_not_asked_again_behind_one_that_deduplicates() {
    for order in [["last", "once"], ["once", "last"]] {
        for kind in [ExchangeKind::RecentHistory, ExchangeKind::Random] {
            let mut world = World::new();
            world.exchange("front", ExchangeKind::Fanout);
            for name in order {
                if name == "once" {
                    add_deduplicating(&mut world, "once", 7);
                } else {
                    world.exchange("last", kind);
                }
            }
            for queue in ["q1", "q2", "q3", "q4"] {
                world.queue(queue);
                world.bind("last", queue, "");
            }
            for (from, to) in [("front", "last"), ("front", "once"), ("once", "last")] {
                world.bind(from, to, "");
            }
            for seed in 0..20 {
                let mut found = Routes::seeded(seed);
                let properties = Properties::parse(&[0, 0]).unwrap();
                world.topology.route(VHOST, "front", &["a"], &properties, &mut found).unwrap();
                let (queues, keepers) = if kind == ExchangeKind::Random { (1, 0) } else { (4, 1) };
                assert_eq!(found.queues.len(), queues, "{order:?}");
                assert_eq!(found.keepers(&world.topology, 1).len(), keepers, "{order:?}");
                assert!(found.sifting.is_none());
            }
        }
    }
}

#[test]
fn an_exchange_behind_two_that_deduplicate_keeps_a_message_once() {
    let mut world = World::new();
    world.exchange("front", ExchangeKind::Fanout);
    add_deduplicating(&mut world, "once", 7);
    add_deduplicating(&mut world, "beside", 8);
    world.exchange("chat", ExchangeKind::RecentHistory);
    for (from, to) in [("front", "once"), ("front", "beside"), ("once", "chat"), ("beside", "chat")] {
        world.bind(from, to, "");
    }
    assert_eq!(routes(&world, "front", None).keepers(&world.topology, 1).len(), 1);
}
