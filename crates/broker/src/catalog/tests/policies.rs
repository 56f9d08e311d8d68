//! Policies reach what is there and what comes.

use super::*;
use crate::command::Span;
use crate::policy::{AppliesTo, Pattern, Policy, PolicyKind};

fn set(kind: PolicyKind, name: &str, pattern: &str, priority: i64, key: &str, value: impl Into<Value>) -> CatalogAsk {
    CatalogAsk::SetPolicy(Box::new(Policy {
        kind,
        vhost: VhostId(0),
        name: name.into(),
        pattern: Pattern::new(pattern).unwrap(),
        applies_to: AppliesTo::All,
        priority,
        definition: [(key, value.into())].into_iter().collect(),
    }))
}

fn clear(kind: PolicyKind, name: &str) -> CatalogAsk {
    CatalogAsk::ClearPolicy { kind, name: name.to_owned() }
}

impl World {
    /// What the shards and the topology both say of a queue.
    fn length_max(&self, name: &str) -> Option<u64> {
        let spec = self.topology.queue(VhostId(0), name).unwrap();
        let told = self.shards[usize::from(spec.queue.shard.0)].specs.get(&spec.queue.id);
        assert_eq!(told.map(|told| &told.settings), Some(&spec.settings), "the shard knows");
        spec.settings.length_max
    }
}

use PolicyKind::{Operator, User};

#[test]
fn a_policy_holds_for_queues_that_are_there_and_that_come_until_it_is_cleared() {
    let mut world = World::new(2);
    world.ok(A, declare_queue("jobs.old"));
    world.ok(A, declare_queue("others"));
    world.ok(A, set(User, "p", "^jobs", 0, "max-length", 5));
    world.ok(A, declare_queue("jobs.new"));
    assert_eq!(["jobs.old", "jobs.new", "others"].map(|name| world.length_max(name)), [Some(5), Some(5), None]);
    world.ok(A, set(User, "p", "^others", 0, "max-length", 6));
    assert_eq!(["jobs.old", "jobs.new", "others"].map(|name| world.length_max(name)), [None, None, Some(6)]);
    world.ok(A, clear(User, "p"));
    assert_eq!(world.length_max("others"), None);
    assert!(matches!(world.ask(A, clear(User, "p")), Outcome::Missed));
}

#[test]
fn the_highest_priority_applies_alone_and_an_operators_bounds_it() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    world.ok(A, set(User, "low", "", 1, "max-length", 5));
    world.ok(A, set(User, "high", "", 2, "message-ttl", 7));
    let settings = |world: &World| world.topology.queue(VhostId(0), "q").unwrap().settings.clone();
    assert_eq!((settings(&world).length_max, settings(&world).message_ttl_ms), (None, Some(7)));
    world.ok(A, set(Operator, "low", "", 0, "message-ttl", 3));
    assert_eq!(settings(&world).message_ttl_ms, Some(3));
    world.ok(A, clear(User, "high"));
    assert_eq!((settings(&world).length_max, settings(&world).message_ttl_ms), (Some(5), Some(3)));
}

#[test]
fn policies_and_what_they_do_survive_a_restart() {
    let mut world = World::new(2);
    world.ok(A, declare_queue("q"));
    world.ok(A, declare_exchange("x", "fanout"));
    world.ok(A, set(User, "p", "", 0, "max-length", 5));
    world.ok(A, set(Operator, "o", "", 0, "max-length", 4));
    world.ok(A, set(User, "gone", "", 9, "max-length", 1));
    world.ok(A, clear(User, "gone"));
    let mut world = world.restarted();
    assert_eq!(world.length_max("q"), Some(4));
    assert_eq!(world.topology.policies(User).count(), 1);
    world.ok(A, clear(Operator, "o"));
    assert_eq!(world.length_max("q"), Some(5));
}

#[test]
fn a_policy_gives_an_alternate_to_exchanges_that_have_none() {
    let mut world = World::new(1);
    let own: Table = [("alternate-exchange", "own")].into_iter().collect();
    world.ok(A, exchange_with("with", "fanout", true, false, own));
    world.ok(A, declare_exchange("without", "fanout"));
    world.ok(A, set(User, "p", "^with", 0, "alternate-exchange", "theirs"));
    world.ok(A, declare_exchange("without-too", "fanout"));
    let alternates = |world: &World| {
        ["with", "without", "without-too"]
            .map(|name| world.topology.exchange(VhostId(0), name).unwrap().alternate.clone())
    };
    assert_eq!(alternates(&world), ["own", "theirs", "theirs"].map(|name| Some(name.to_owned())));
    world.ok(A, clear(User, "p"));
    assert_eq!(alternates(&world), [Some("own".to_owned()), None, None]);
}

#[test]
fn what_a_policy_says_is_not_compared_when_a_queue_is_declared_again() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    world.ok(A, set(User, "p", "", 0, "max-length", 5));
    world.ok(A, declare_queue("q"));
}

#[test]
fn a_policy_that_makes_no_sense_changes_nothing() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    world.ok(A, set(User, "p", "", 0, "max-length", 5));
    let (code, text) = world.refusal(A, set(User, "p", "", 0, "max-length", -5));
    assert_eq!((code, text.as_str()), (406, "-5 is not a valid maximum length"));
    assert_eq!(world.length_max("q"), Some(5));
}

proptest::proptest! {
    #[test]
    fn after_any_changes_each_queue_has_the_policies_that_a_search_finds(
        changes in proptest::collection::vec((0..4u8, 0..3usize, 0..3i64, proptest::bool::ANY, proptest::bool::ANY), 1..20)
    ) {
        let mut world = World::new(1);
        for name in ["a", "b", "ab"] {
            world.ok(A, declare_queue(name));
        }
        for (name, pattern, priority, is_operators, is_set) in changes {
            let kind = if is_operators { Operator } else { User };
            let name = format!("p{name}");
            let ask = if is_set {
                set(kind, &name, ["a", "^b", ""][pattern], priority, "max-length", 5)
            } else {
                clear(kind, &name)
            };
            world.ask(A, ask);
            for queue in world.topology.queues() {
                proptest::prop_assert_eq!(&queue.policies, &world.topology.policies_of_queue(queue));
            }
        }
    }
}

fn declare_with(name: &str, arguments: &[(&str, i64)]) -> CatalogAsk {
    let CatalogAsk::DeclareQueue(wanted) = declare_queue(name) else { unreachable!("a declare") };
    let arguments = arguments.iter().map(|(name, value)| (*name, *value)).collect();
    CatalogAsk::DeclareQueue(DeclareQueue { arguments, ..wanted })
}

#[test]
fn where_a_policy_says_so_another_declare_changes_what_a_queue_is_like_for_good() {
    let mut world = World::new(2);
    world.ok(A, declare_with("q", &[("x-max-length", 5)]));
    let refused = world.ask(A, declare_with("q", &[("x-max-length", 6)]));
    assert!(matches!(refused, Outcome::Fault(fault) if fault.text.contains("received '6' but current is '5'")));
    world.ok(A, set(User, "p", "", 0, "redeclare", "update"));
    world.ok(A, declare_with("q", &[("x-max-length", 6), ("x-message-ttl", 9)]));
    assert_eq!(world.length_max("q"), Some(6));
    let mut world = world.restarted();
    assert_eq!(world.length_max("q"), Some(6));
    let settings = |world: &World| world.topology.queue(VhostId(0), "q").unwrap().settings.clone();
    assert_eq!(settings(&world).message_ttl_ms, Some(9));
    world.ok(A, declare_with("q", &[]));
    assert_eq!((world.length_max("q"), settings(&world).message_ttl_ms), (None, None));
    world.ok(A, clear(User, "p"));
    assert!(matches!(world.ask(A, declare_with("q", &[("x-max-length", 6)])), Outcome::Fault(_)));
}

#[test]
fn another_declare_is_bounded_by_an_operator_and_changes_nothing_that_a_queue_is_made_of() {
    let mut world = World::new(1);
    world.ok(A, declare_with("q", &[("x-max-priority", 3)]));
    world.ok(A, set(User, "p", "", 0, "redeclare", "update"));
    world.ok(A, set(Operator, "o", "", 0, "max-length", 4));
    world.ok(A, declare_with("q", &[("x-max-priority", 3), ("x-max-length", 9)]));
    assert_eq!(world.length_max("q"), Some(4));
    for other in [&[("x-max-priority", 4)][..], &[], &[("x-max-priority", 3), ("x-expires", 0)]] {
        assert!(matches!(world.ask(A, declare_with("q", other)), Outcome::Fault(_)));
        assert_eq!(world.length_max("q"), Some(4));
    }
    let Outcome::Fault(fault) = world.ask(A, declare_with("q", &[("x-max-priority", 4)])) else { panic!("refused") };
    assert_eq!(
        fault.text,
        "inequivalent arg 'x-max-priority' for queue 'q' in vhost '/': received '4' but current is '3'"
    );
    world.ok(A, set(Operator, "o", "", 0, "redeclare", "refuse"));
    assert!(
        matches!(world.ask(A, declare_with("q", &[("x-max-priority", 3)])), Outcome::Fault(_)),
        "as it was declared last"
    );
}

fn set_for(applies_to: AppliesTo, name: &str, pattern: &str, definition: &[(&str, Value)]) -> CatalogAsk {
    CatalogAsk::SetPolicy(Box::new(Policy {
        kind: User,
        vhost: VhostId(0),
        name: name.into(),
        pattern: Pattern::new(pattern).unwrap(),
        applies_to,
        priority: 0,
        definition: definition.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    }))
}

#[test]
fn a_policy_for_exchanges_says_what_is_a_duplicate_there_at_once_and_after_a_restart() {
    let mut world = World::new(2);
    let sieve = |world: &World, name: &str| world.topology.exchange(VhostId(0), name).unwrap().sieve.clone();
    let span = |world: &World, name: &str| sieve(world, name).map(|sieve| (sieve.source, sieve.rule.span));
    let sized = [("x-cache-size".to_owned(), Value::I32(10))];
    world.ok(A, exchange_with("typed", "x-message-deduplication", true, false, sized.into_iter().collect()));
    for (name, kind) in [("plain", "topic"), ("chance", "x-random")] {
        world.ok(A, declare_exchange(name, kind));
    }
    let refusing = [("x-message-deduplication".to_owned(), Value::Bool(false))];
    world.ok(A, exchange_with("not", "fanout", true, false, refusing.into_iter().collect()));
    let (source, before) = span(&world, "typed").unwrap();
    assert_eq!(before, Span::Window { most: 10, ttl_ms: None });

    let on = ("x-message-deduplication", Value::Bool(true));
    let window = [on.clone(), ("x-cache-size", Value::I64(5)), ("x-cache-ttl", Value::I64(700))];
    world.ok(A, set_for(AppliesTo::All, "p", "", &window));
    let said = Span::Window { most: 5, ttl_ms: Some(700) };
    assert_eq!(span(&world, "typed"), Some((source, said)), "how large, as it says");
    assert_eq!(span(&world, "plain"), None, "a policy for all means queues");

    world.ok(A, set_for(AppliesTo::Exchanges, "p", "", &window));
    let (plain, _) = span(&world, "plain").expect("it deduplicates now");
    assert_eq!(span(&world, "plain"), Some((plain, said)));
    for name in ["chance", "not", "amq.topic"] {
        assert_eq!(span(&world, name), None, "{name}");
    }
    world.ok(A, declare_exchange("later", "topic"));
    let later = span(&world, "later").expect("it does, too");
    assert!(later.0 != plain && later.1 == said);

    let mut world = world.restarted();
    assert_eq!(span(&world, "typed"), Some((source, said)));
    assert_eq!((span(&world, "plain"), span(&world, "later")), (Some((plain, said)), Some(later)));
    world.ok(A, clear(User, "p"));
    assert_eq!(span(&world, "typed"), Some((source, before)));
    assert_eq!((span(&world, "plain"), span(&world, "later")), (None, None));
    // It is the same exchange when it does so again.
    world.ok(A, set_for(AppliesTo::Exchanges, "p", "^plain", &[on]));
    assert_eq!(span(&world, "plain").map(|(source, _)| source), Some(plain));
}
