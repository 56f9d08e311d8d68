//! What the topology gives and where it routes.

use super::*;
use crate::command::{ConnectionId, QueueRef, QueueSettings, ShardId};
use amqp::{ChannelId, PropertyList, Value};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

mod hash;
mod random;
mod through;

const VHOST: VhostId = VhostId(0);

/// A topology of names: queues are `q…`, everything else is an exchange.
struct World {
    topology: Topology,
    queues_made: u64,
}

impl World {
    fn new() -> Self {
        Self { topology: Topology::new(), queues_made: 0 }
    }

    fn exchange(&mut self, name: &str, kind: ExchangeKind) {
        self.topology.add_exchange(Exchange::new(VHOST, name, kind));
    }

    fn exchange_with_alternate(&mut self, name: &str, kind: ExchangeKind, alternate: &str) {
        let arguments = [(ALTERNATE, alternate)].into_iter().collect();
        self.topology.add_exchange(Exchange::new(VHOST, name, kind).with_arguments(arguments));
    }

    fn queue(&mut self, name: &str) -> Arc<QueueSpec> {
        self.queues_made += 1;
        // Ids rise while shards fall, so that the two orders differ.
        let shard = ShardId(u16::MAX - u16::try_from(self.queues_made).unwrap());
        let spec = Arc::new(QueueSpec {
            queue: QueueRef { id: QueueId(self.queues_made), shard },
            vhost: VHOST,
            vhost_name: "/".into(),
            name: name.into(),
            durable: false,
            auto_delete: false,
            owner: None,
            arguments: Table::new(),
            settings: QueueSettings::default(),
            policies: Default::default(),
        });
        self.topology.add_queue(Arc::clone(&spec));
        spec
    }

    fn spec(source: &str, destination: &str, key: &str, arguments: Table) -> BindingSpec {
        let kind = if destination.starts_with('q') { DestinationKind::Queue } else { DestinationKind::Exchange };
        BindingSpec {
            source: source.to_owned(),
            destination: destination.to_owned(),
            kind,
            key: key.to_owned(),
            arguments,
        }
    }

    fn bind(&mut self, source: &str, destination: &str, key: &str) {
        self.bind_with(source, destination, key, Table::new());
    }

    fn bind_with(&mut self, source: &str, destination: &str, key: &str, arguments: Table) {
        let spec = Self::spec(source, destination, key, arguments);
        let ends = self.topology.ends(VHOST, &spec).unwrap();
        self.topology.bind(VHOST, ends, &spec).unwrap();
    }

    fn unbind(&mut self, source: &str, destination: &str, key: &str) -> bool {
        let spec = Self::spec(source, destination, key, Table::new());
        let ends = self.topology.ends(VHOST, &spec).unwrap();
        let binding = self.topology.binding(ends, &spec);
        binding.and_then(|binding| self.topology.remove_binding(binding)).is_some()
    }

    /// The names of the queues, after a check of their order.
    fn routed(&self, exchange: &str, keys: &[&str]) -> Vec<String> {
        self.routed_with(exchange, keys, PropertyList::default())
    }

    fn routed_with(&self, exchange: &str, keys: &[&str], properties: PropertyList) -> Vec<String> {
        let mut raw = BytesMut::new();
        properties.encode(&mut raw);
        let mut routes = Routes::default();
        let properties = Properties::parse(&raw).unwrap();
        self.topology.route(VHOST, exchange, keys, &properties, &mut routes).unwrap();
        assert!(routes.queues.is_sorted_by(|a, b| place(a) < place(b)), "sorted, and each once");
        let name = |queue: &QueueRef| self.topology.queue_by_id(queue.id).unwrap().name.to_string();
        let mut names: Vec<String> = routes.queues.iter().map(name).collect();
        names.sort_unstable();
        names
    }
}

const NOWHERE: [&str; 0] = [];

#[test]
fn a_new_topology_has_the_predeclared_exchanges_of_its_vhost() {
    let topology = Topology::new();
    assert_eq!(topology.vhost("/"), Some(VHOST));
    assert_eq!(topology.vhost("other"), None);
    assert_eq!(topology.vhost_name(VHOST).as_ref(), "/");
    assert_eq!(topology.vhosts().count(), 1);
    let mut found: Vec<_> = topology
        .exchanges()
        .map(|exchange| {
            assert!(exchange.durable && !exchange.auto_delete);
            (exchange.name.as_ref(), exchange.kind.name(), exchange.internal)
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("", "direct", false),
            ("amq.direct", "direct", false),
            ("amq.fanout", "fanout", false),
            ("amq.headers", "headers", false),
            ("amq.match", "headers", false),
            ("amq.rabbitmq.trace", "topic", true),
            ("amq.topic", "topic", false),
        ]
    );
}

#[test]
fn the_default_exchange_routes_by_queue_name() {
    let mut world = World::new();
    world.queue("q1");
    world.queue("q2");
    assert_eq!(world.routed("", &["q1"]), ["q1"]);
    assert_eq!(world.routed("", &["q1", "q2", "q1", "q3"]), ["q1", "q2"]);
    assert_eq!(world.routed("", &["q3"]), NOWHERE);
}

#[test]
fn a_missing_exchange_is_told_from_a_dead_end() {
    let mut routes = Routes::default();
    routes.queues.push(QueueRef { id: QueueId(1), shard: ShardId(0) });
    let properties = Properties::parse(&[0, 0]).unwrap();
    assert_eq!(Topology::new().route(VHOST, "x", &[""], &properties, &mut routes), Err(NoSuchExchange));
    assert_eq!(routes.queues, []);
}

#[test]
fn each_type_routes_by_its_own_rule() {
    let mut world = World::new();
    world.queue("q1");
    world.queue("q2");
    for (exchange, key) in [("amq.direct", "a.b"), ("amq.fanout", "x"), ("amq.topic", "a.*"), ("amq.match", "")] {
        world.bind_with(exchange, "q1", key, [("h", "1")].into_iter().collect());
    }
    world.bind("amq.fanout", "q2", "");
    assert_eq!(world.routed("amq.direct", &["a.b"]), ["q1"]);
    assert_eq!(world.routed("amq.direct", &["a.c"]), NOWHERE);
    assert_eq!(world.routed("amq.fanout", &["any"]), ["q1", "q2"]);
    assert_eq!(world.routed("amq.topic", &["a.c"]), ["q1"]);
    assert_eq!(world.routed("amq.topic", &["b", "a.c"]), ["q1"], "CC counts");
    assert_eq!(world.routed("amq.match", &["a.b"]), NOWHERE);
    let headers = Some([("h", Value::from("1"))].into_iter().collect());
    let properties = PropertyList { headers, ..PropertyList::default() };
    assert_eq!(world.routed_with("amq.match", &["a.b"], properties), ["q1"]);
}

#[test]
fn a_queue_gets_one_copy_however_many_bindings_match() {
    let mut world = World::new();
    for queue in ["q1", "q2", "q3"] {
        world.queue(queue);
        world.bind("amq.topic", queue, "#");
        world.bind("amq.topic", queue, "a.*");
        world.bind_with("amq.topic", queue, "#", [("n", 1_i32)].into_iter().collect());
    }
    assert_eq!(world.routed("amq.topic", &["a.b", "a.c"]), ["q1", "q2", "q3"]);
}

#[test]
fn bindings_between_exchanges_are_followed_once_each_cycles_included() {
    let mut world = World::new();
    world.queue("q1");
    for name in ["a", "b", "c"] {
        world.exchange(name, ExchangeKind::Direct);
    }
    world.bind("a", "b", "k");
    world.bind("b", "c", "k");
    world.bind("c", "a", "k");
    world.bind("a", "a", "k");
    world.bind("c", "q1", "k");
    world.bind("c", "q1", "other");
    assert_eq!(world.routed("a", &["k"]), ["q1"]);
    assert_eq!(world.routed("a", &["other"]), NOWHERE, "each exchange matches for itself");
    assert_eq!(world.routed("b", &["k", "other"]), ["q1"]);
}

#[test]
fn an_alternate_gets_what_no_binding_matches() {
    let mut world = World::new();
    world.queue("q1");
    world.queue("q2");
    world.exchange_with_alternate("first", ExchangeKind::Direct, "second");
    world.exchange_with_alternate("second", ExchangeKind::Direct, "third");
    world.exchange_with_alternate("third", ExchangeKind::Fanout, "first");
    world.bind("first", "q1", "one");
    assert_eq!(world.routed("first", &["one"]), ["q1"]);
    assert_eq!(world.routed("first", &["two"]), NOWHERE, "alternates in a circle");
    world.bind("third", "q2", "");
    assert_eq!(world.routed("first", &["two"]), ["q2"], "along the chain");
    assert_eq!(world.routed("first", &["one", "two"]), ["q1"], "one match is a match");
}

#[test]
fn a_binding_to_a_dead_end_is_a_match_and_keeps_the_alternate_out() {
    let mut world = World::new();
    world.queue("q1");
    world.exchange_with_alternate("first", ExchangeKind::Fanout, "amq.fanout");
    world.exchange("empty", ExchangeKind::Fanout);
    world.bind("amq.fanout", "q1", "");
    assert_eq!(world.routed("first", &[""]), ["q1"]);
    world.bind("first", "empty", "");
    assert_eq!(world.routed("first", &[""]), NOWHERE);
}

#[test]
fn the_default_exchange_may_be_an_alternate_and_a_missing_one_is_nothing() {
    let mut world = World::new();
    world.queue("q1");
    world.exchange_with_alternate("first", ExchangeKind::Direct, "");
    world.exchange_with_alternate("second", ExchangeKind::Direct, "missing");
    assert_eq!(world.routed("first", &["q1"]), ["q1"]);
    assert_eq!(world.routed("second", &["q1"]), NOWHERE);
}

#[test]
fn the_generation_grows_with_what_can_change_a_route_and_with_nothing_else() {
    let mut world = World::new();
    let mut last = world.topology.generation();
    let mut grew = |world: &World| {
        let before = std::mem::replace(&mut last, world.topology.generation());
        last > before
    };
    let queue = world.queue("q1");
    assert!(grew(&world));
    world.exchange("x", ExchangeKind::Direct);
    assert!(grew(&world));
    world.bind("x", "q1", "k");
    assert!(grew(&world));
    world.bind("x", "q1", "k");
    assert!(!grew(&world), "it was there");
    assert!(world.unbind("x", "q1", "k"));
    assert!(grew(&world));
    assert!(!world.unbind("x", "q1", "k"));
    assert!(!grew(&world), "it was gone");
    world.topology.remove_queue(&queue);
    assert!(grew(&world));
    world.topology.remove_exchange(world.topology.exchange(VHOST, "x").unwrap().id);
    assert!(grew(&world));
    assert!(world.topology.queue(VHOST, "q1").is_none() && world.topology.exchange(VHOST, "x").is_none());
}

#[test]
fn listings_hold_implicit_bindings_and_then_the_others_as_they_were_made() {
    let mut world = World::new();
    world.queue("q1");
    world.exchange("x", ExchangeKind::Direct);
    world.bind_with("amq.topic", "q1", "k", [("n", 1_i32)].into_iter().collect());
    world.bind("amq.direct", "x", "");
    let listed: Vec<_> = world
        .topology
        .bindings()
        .map(|binding| (binding.source, binding.destination, binding.kind, binding.key, binding.arguments.len()))
        .collect();
    let (queue, exchange) = (DestinationKind::Queue, DestinationKind::Exchange);
    assert_eq!(
        listed,
        [("", "q1", queue, "q1", 0), ("amq.topic", "q1", queue, "k", 1), ("amq.direct", "x", exchange, "", 0)]
    );
}

#[test]
fn bindings_that_differ_in_arguments_are_two_and_go_one_by_one() {
    let mut world = World::new();
    world.queue("q1");
    world.bind("amq.direct", "q1", "k");
    world.bind_with(
        "amq.direct",
        "q1",
        "k",
        [("n", f64::NAN)].into_iter().map(|(name, n)| (name, Value::F64(n))).collect(),
    );
    world.bind_with(
        "amq.direct",
        "q1",
        "k",
        [("n", f64::NAN)].into_iter().map(|(name, n)| (name, Value::F64(n))).collect(),
    );
    assert_eq!(world.topology.bindings().count(), 1 + 2, "a binding equals itself, whatever its arguments");
    assert!(world.unbind("amq.direct", "q1", "k"));
    assert_eq!(world.routed("amq.direct", &["k"]), ["q1"]);
}

#[test]
fn a_hundred_thousand_queues_of_one_exchange_come_and_go() {
    let mut world = World::new();
    let (made, exchange) = (100_000_u64, world.topology.exchange(VHOST, "amq.direct").unwrap().id);
    let queue = |id| Destination::Queue(QueueRef { id: QueueId(id), shard: ShardId(0) });
    let source = world.topology.exchanges.get_mut(&exchange).unwrap();
    let arguments = Table::new();
    let link = |id| Link { id: BindingId(id), key: "same", arguments: &arguments, destination: queue(id), name: "q" };
    for id in 0..made {
        source.router.add(link(id)).unwrap();
    }
    for id in (0..made).rev() {
        source.router.remove(link(id));
    }
    assert_eq!(world.routed("amq.direct", &["same"]), NOWHERE);
}

#[test]
fn reply_consumers_are_found_by_address_and_go_with_their_channel() {
    let mut topology = Topology::new();
    let channel =
        |connection, channel| ChannelKey { connection: ConnectionId(connection), channel: ChannelId(channel) };
    let replies = topology.reply_consumers_mut();
    assert!(replies.add(channel(1, 1), "s1") && replies.add(channel(1, 2), "s2") && replies.add(channel(2, 1), "s3"));
    assert!(!replies.add(channel(1, 1), "s4"), "one a channel");
    assert!(!replies.add(channel(3, 1), "s1"), "an address is one channel's");
    assert_eq!(topology.reply_consumer("amq.rabbitmq.reply-to.s2"), Some(channel(1, 2)));
    assert_eq!(topology.reply_address(channel(1, 2)), Some("amq.rabbitmq.reply-to.s2"));
    topology.reply_consumers_mut().remove(channel(1, 2));
    assert_eq!(topology.reply_consumer("amq.rabbitmq.reply-to.s2"), None);
    topology.reply_consumers_mut().remove_all(ConnectionId(1));
    assert_eq!(topology.reply_address(channel(1, 1)), None);
    assert_eq!(topology.reply_consumer("amq.rabbitmq.reply-to.s3"), Some(channel(2, 1)));
    assert!(is_reply_address("amq.rabbitmq.reply-to") && is_reply_address("amq.rabbitmq.reply-to.x"));
    assert!(!is_reply_address("amq.rabbitmq.reply-together"));
}

/// Exchanges and queues of the random graphs.
const EXCHANGES: [&str; 5] = ["a", "b", "c", "d", "e"];
const QUEUES: [&str; 4] = ["q0", "q1", "q2", "q3"];

#[derive(Debug, Clone)]
struct Edge {
    from: usize,
    to: usize,
    key: &'static str,
}

fn edge() -> impl Strategy<Value = Edge> {
    let key = prop_oneof![Just("k"), Just("l"), Just("m")];
    (0..EXCHANGES.len(), 0..EXCHANGES.len() + QUEUES.len(), key).prop_map(|(from, to, key)| Edge { from, to, key })
}

fn node(index: usize) -> &'static str {
    EXCHANGES.get(index).copied().unwrap_or_else(|| QUEUES[index - EXCHANGES.len()])
}

proptest! {
    #[test]
    fn routes_agree_with_a_walk_of_the_graph(
        kinds in vec(any::<bool>(), EXCHANGES.len()),
        alternates in vec(proptest::option::of(0..EXCHANGES.len()), EXCHANGES.len()),
        edges in vec(edge(), 0..16),
        removed in vec(any::<proptest::sample::Index>(), 0..6),
        first in 0..EXCHANGES.len(),
        keys in vec(prop_oneof![Just("k"), Just("l")], 1..3),
    ) {
        let mut world = World::new();
        QUEUES.iter().for_each(|queue| { world.queue(queue); });
        for (index, name) in EXCHANGES.iter().enumerate() {
            let kind = if kinds[index] { ExchangeKind::Direct } else { ExchangeKind::Fanout };
            match alternates[index] {
                Some(alternate) => world.exchange_with_alternate(name, kind, EXCHANGES[alternate]),
                None => world.exchange(name, kind),
            }
        }
        let mut graph: BTreeMap<(usize, usize, &str), ()> = BTreeMap::new();
        for edge in &edges {
            world.bind(node(edge.from), node(edge.to), edge.key);
            graph.insert((edge.from, edge.to, edge.key), ());
        }
        for index in removed {
            if let Some(edge) = (!edges.is_empty()).then(|| index.get(&edges)) {
                let was_there = graph.remove(&(edge.from, edge.to, edge.key)).is_some();
                prop_assert_eq!(world.unbind(node(edge.from), node(edge.to), edge.key), was_there);
            }
        }

        let (mut reached, mut left) = (BTreeSet::new(), vec![first]);
        while let Some(at) = left.pop() {
            if !reached.insert(at) || at >= EXCHANGES.len() {
                continue;
            }
            let matching = graph.keys().filter(|(from, _, key)| *from == at && (!kinds[at] || keys.contains(key)));
            let next: Vec<usize> = matching.map(|(_, to, _)| *to).collect();
            left.extend(if next.is_empty() { alternates[at].into_iter().collect() } else { next });
        }
        let expected: Vec<&str> = reached.into_iter().filter(|at| *at >= EXCHANGES.len()).map(node).collect();
        prop_assert_eq!(world.routed(EXCHANGES[first], &keys), expected);
    }
}
