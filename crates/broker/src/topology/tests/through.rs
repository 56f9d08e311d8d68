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
