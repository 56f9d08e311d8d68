//! Exchanges whose bindings are chosen by a hash.

use super::*;
use crate::route::Reuse;
use crate::route::hash::check_arguments;

fn hashing(arguments: &[(&str, &str)], ends: &[(&str, &str)]) -> World {
    let mut world = World::new();
    let exchange = Exchange::new(VHOST, "x", ExchangeKind::ConsistentHash);
    world.topology.add_exchange(exchange.with_arguments(arguments.iter().copied().collect()));
    for (queue, weight) in ends {
        world.queue(queue);
        world.bind("x", queue, weight);
    }
    world
}

fn ends_of_keys(world: &World) -> Vec<String> {
    let end = |key: usize| {
        let routed = world.routed("x", &[&format!("key {key}")]);
        assert_eq!(routed.len(), 1, "one queue gets it");
        routed[0].clone()
    };
    (0..4000).map(end).collect()
}

fn share(ends: &[String], name: &str) -> usize {
    ends.iter().filter(|end| *end == name).count()
}

#[test]
fn each_queue_gets_the_share_of_its_weight() {
    let ends = ends_of_keys(&hashing(&[], &[("q1", "1"), ("q2", "2"), ("q3", "5")]));
    for (name, expected) in [("q1", 500), ("q2", 1000), ("q3", 2500)] {
        assert!(share(&ends, name).abs_diff(expected) < 150, "{name}: {} of 4000", share(&ends, name));
    }
}

#[test]
fn a_new_queue_takes_its_share_and_no_other_key_moves() {
    let mut world = hashing(&[], &[("q1", "1"), ("q2", "1"), ("q3", "1")]);
    let before = ends_of_keys(&world);
    world.queue("q4");
    world.bind("x", "q4", "1");
    let after = ends_of_keys(&world);
    assert!(share(&after, "q4").abs_diff(1000) < 150);
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || after == "q4"));
    assert!(world.unbind("x", "q4", "1"));
    assert_eq!(ends_of_keys(&world), before);
}

#[test]
fn the_order_of_bindings_does_not_matter() {
    let one = hashing(&[], &[("q1", "1"), ("q2", "3"), ("q3", "2")]);
    let other = hashing(&[], &[("q3", "2"), ("q1", "1"), ("q2", "3")]);
    assert_eq!(ends_of_keys(&one), ends_of_keys(&other));
}

#[test]
fn the_hash_is_the_same_in_every_release() {
    let ends = ends_of_keys(&hashing(&[], &[("q1", "1"), ("q2", "1"), ("q3", "1")]));
    assert_eq!(ends[..8].join(" "), "q2 q2 q3 q1 q2 q1 q1 q1");
}

#[test]
fn a_property_is_hashed_in_place_of_the_key_and_such_a_route_is_not_cached() {
    let world = hashing(&[("hash-property", "message_id")], &[("q1", "1"), ("q2", "1")]);
    let mut ends = BTreeSet::new();
    for id in 0..50 {
        let named = || PropertyList { message_id: Some(format!("id {id}").into_bytes()), ..PropertyList::default() };
        assert_eq!(world.routed_with("x", &["a"], named()), world.routed_with("x", &["b"], named()));
        ends.extend(world.routed_with("x", &["a"], named()));
    }
    assert_eq!(ends.len(), 2, "the message-id decides");
    let mut routes = Routes::default();
    for (exchange, expected) in [("x", Reuse::SameProperties), ("amq.direct", Reuse::SameNames)] {
        world.topology.route(VHOST, exchange, &["a"], &Properties::parse(&[0, 0]).unwrap(), &mut routes).unwrap();
        assert_eq!(routes.reuse, expected);
    }
}

#[test]
fn a_header_is_hashed_in_place_of_the_key() {
    let world = hashing(&[("hash-header", "h")], &[("q1", "1"), ("q2", "1")]);
    let mut ends = BTreeSet::new();
    for value in 0..50 {
        let headers: Table = [("h", Value::I32(value))].into_iter().collect();
        let with = || PropertyList { headers: Some(headers.clone()), ..PropertyList::default() };
        assert_eq!(world.routed_with("x", &["a"], with()), world.routed_with("x", &["b"], with()));
        ends.extend(world.routed_with("x", &["a"], with()));
    }
    assert_eq!(ends.len(), 2, "the header decides");
    assert_eq!(world.routed("x", &["a"]), world.routed("x", &["b"]), "all without it go one way");
}

#[test]
fn a_binding_key_is_a_weight() {
    for (key, expected) in [
        ("0", "The binding key must be greater than 0"),
        ("-1", "The binding key must be greater than 0"),
        ("", "The binding key must be an integer: <<\"\">>"),
        ("a", "The binding key must be an integer: <<\"a\">>"),
        ("1.5", "The binding key must be an integer: <<\"1.5\">>"),
    ] {
        let mut world = hashing(&[], &[]);
        world.queue("q");
        let spec = World::spec("x", "q", key, Table::new());
        let ends = world.topology.ends(VHOST, &spec).unwrap();
        assert_eq!(world.topology.bind(VHOST, ends, &spec).unwrap_err().text, expected);
        assert_eq!(world.routed("x", &["a"]), NOWHERE);
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for (arguments, expected) in [
        (
            vec![("hash-header", "h"), ("hash-property", "message_id")],
            "hash-header and hash-property are mutually exclusive",
        ),
        (vec![("hash-property", "app_id")], "Unsupported property: app_id"),
    ] {
        assert_eq!(check_arguments(&arguments.into_iter().collect()).unwrap_err().text, expected);
    }
    let number: Table = [("hash-header", Value::I32(1))].into_iter().collect();
    assert_eq!(check_arguments(&number).unwrap_err().text, "invalid type 'signedint' for arg 'hash-header'");
}

#[test]
fn a_modulus_hash_sends_a_key_to_one_queue_whatever_the_order_of_bindings() {
    let world = |order: [&str; 3]| {
        let mut world = World::new();
        world.exchange("x", ExchangeKind::ModulusHash);
        assert_eq!(world.routed("x", &["a"]), NOWHERE);
        for queue in order {
            world.queue(queue);
            world.bind("x", queue, "any");
        }
        world
    };
    let ends = ends_of_keys(&world(["q1", "q2", "q3"]));
    assert_eq!(ends, ends_of_keys(&world(["q3", "q1", "q2"])));
    for name in ["q1", "q2", "q3"] {
        assert!(share(&ends, name).abs_diff(1333) < 150, "{name}: {}", share(&ends, name));
    }
}
