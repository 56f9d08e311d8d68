//! Exchanges whose bindings are chosen by chance.

use super::*;
use crate::route::Reuse;

fn random(kind: ExchangeKind, queues: &[&str]) -> World {
    let mut world = World::new();
    world.exchange("x", kind);
    for queue in queues {
        world.queue(queue);
        world.bind("x", queue, "");
    }
    world
}

/// Where messages go one after the other.
fn drawn(world: &World, routes: &mut Routes, messages: usize) -> Vec<QueueRef> {
    let properties = Properties::parse(&[0, 0]).unwrap();
    let draw = |_| {
        world.topology.route(VHOST, "x", &["a"], &properties, routes).unwrap();
        assert_eq!(routes.queues.len(), 1, "one queue gets it");
        routes.queues[0]
    };
    (0..messages).map(draw).collect()
}

#[test]
fn each_queue_gets_its_share_and_the_seed_decides_which() {
    for kind in [ExchangeKind::Random, ExchangeKind::LocalRandom] {
        let world = random(kind, &["q1", "q2", "q3"]);
        let ends = drawn(&world, &mut Routes::seeded(1), 3000);
        for name in ["q1", "q2", "q3"] {
            let queue = world.topology.queue(VHOST, name).unwrap().queue;
            let share = ends.iter().filter(|end| **end == queue).count();
            assert!(share.abs_diff(1000) < 100, "{name}: {share} of 3000");
        }
        assert_eq!(ends, drawn(&world, &mut Routes::seeded(1), 3000));
        assert_ne!(ends, drawn(&world, &mut Routes::seeded(2), 3000));
    }
}

#[test]
fn the_first_choices_of_many_connections_are_spread_too() {
    let world = random(ExchangeKind::Random, &["q1", "q2"]);
    let queue = world.topology.queue(VHOST, "q1").unwrap().queue;
    let first = |seed| drawn(&world, &mut Routes::seeded(seed), 1)[0];
    let share = (0..1000).filter(|seed| first(*seed) == queue).count();
    assert!(share.abs_diff(500) < 75, "{share} of 1000");
}

#[test]
fn a_route_by_chance_holds_for_no_other_message() {
    let mut world = random(ExchangeKind::Random, &["q1"]);
    let mut routes = Routes::default();
    drawn(&world, &mut routes, 1);
    assert_eq!(routes.reuse, Reuse::SameNames, "there is no choice yet");
    world.queue("q2");
    world.bind("x", "q2", "any");
    drawn(&world, &mut routes, 1);
    assert_eq!(routes.reuse, Reuse::Never);
    assert!(world.unbind("x", "q2", "any") && world.unbind("x", "q1", ""));
    assert_eq!(world.routed("x", &["a"]), NOWHERE);
}

#[test]
fn a_local_random_exchange_has_bindings_without_keys_to_queues_alone() {
    let mut world = random(ExchangeKind::LocalRandom, &[]);
    world.queue("q");
    let spec = World::spec("x", "q", "key", Table::new());
    let ends = world.topology.ends(VHOST, &spec).unwrap();
    let refused = world.topology.bind(VHOST, ends, &spec).unwrap_err();
    assert_eq!(refused.text, "Non empty binding 'key' key not permitted");
    let spec = BindingSpec { kind: DestinationKind::Exchange, ..World::spec("x", "amq.fanout", "", Table::new()) };
    let ends = world.topology.ends(VHOST, &spec).unwrap();
    assert_eq!(world.topology.bind(VHOST, ends, &spec).unwrap_err().text, "Destination not found");
    assert_eq!(world.routed("x", &["a"]), NOWHERE);
}
