//! Every request, its answer and its words.

mod model;
mod policies;

use super::*;
use crate::command::{BindingSpec, ConsumerNumber, DeclareQueue, QueueSpec};
use amqp::{ChannelId, Table, Value};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A catalog with shards that hold no messages, and log facts that are fsynced when the test says so.
struct World {
    catalog: Catalog,
    topology: Topology,
    shards: Vec<FakeShard>,
    calls: u64,
    answers: BTreeMap<(ConnectionId, CallId), Vec<Outcome>>,
    /// For each consumer that learned that it is gone, how many answers had been told and not taken then.
    consumers_gone: Vec<usize>,
}

#[derive(Default)]
struct FakeShard {
    inbox: VecDeque<ShardInput>,
    /// Its queues, and why one cannot be deleted.
    queues: BTreeMap<QueueId, Option<Fault>>,
    /// What it was told last of each queue.
    specs: BTreeMap<QueueId, Arc<QueueSpec>>,
    /// Facts put and forgotten.
    log: Vec<(Bytes, Option<Bytes>)>,
    synced: usize,
    /// Reports that wait for a sync of so much of the log.
    unsynced: VecDeque<(usize, ShardReport)>,
    /// Answers that wait for a sync.
    unanswered: Vec<(ConnectionId, CallId, Outcome)>,
}

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

impl World {
    fn new(shards: u16) -> Self {
        Self::with(Catalog::new(shards, 1), Topology::new(), shards)
    }

    fn with(catalog: Catalog, topology: Topology, shards: u16) -> Self {
        let shards = (0..shards).map(|_| FakeShard::default()).collect();
        Self { catalog, topology, shards, calls: 0, answers: BTreeMap::new(), consumers_gone: Vec::new() }
    }

    /// The world after a restart with what was fsynced.
    fn restarted(&self) -> Self {
        let shards = u16::try_from(self.shards.len()).unwrap();
        let facts: Vec<_> = (0..shards)
            .flat_map(|shard| {
                self.shards[usize::from(shard)]
                    .facts()
                    .into_iter()
                    .map(move |(key, value)| (ShardId(shard), key, value))
            })
            .collect();
        let mut out = CatalogOutbox::default();
        let (catalog, topology) = Catalog::recover(shards, 2, facts.clone(), &mut out).unwrap();
        let mut world = Self::with(catalog, topology, shards);
        for (shard, key, value) in facts {
            let into = &mut world.shards[usize::from(shard.0)];
            if let Some(queue) = crate::command::QueueSpec::from_fact(shard, &key, &value).unwrap() {
                into.queues.insert(queue.queue.id, None);
            }
            into.log.push((key, Some(value)));
        }
        world.take(out);
        world.drain();
        world
    }

    fn step(&mut self, input: CatalogInput) {
        let mut out = CatalogOutbox::default();
        self.catalog.step(Now::default(), input, &mut self.topology, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: CatalogOutbox) {
        for (shard, input) in out.shards {
            self.shards[usize::from(shard.0)].inbox.push_back(input);
        }
        for (connection, event) in out.connections {
            match event {
                ConnectionEvent::Done { call, outcome } => {
                    self.answers.entry((connection, call)).or_default().push(outcome);
                }
                // Every queue of a fake shard has this one consumer.
                ConnectionEvent::ConsumerGone { consumer } => {
                    assert_eq!((connection, consumer), (A, ConsumerNumber(1)));
                    self.consumers_gone.push(self.answers.len());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a request and leaves it there.
    fn send(&mut self, connection: ConnectionId, ask: CatalogAsk) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        self.step(CatalogInput::Request(CatalogRequest { connection, call, vhost: VhostId(0), user: None, ask }));
        call
    }

    /// Has the shard take in what it was sent, and sync it if it should.
    fn run_shard(&mut self, index: usize, sync: bool) {
        while let Some(input) = self.shards[index].inbox.pop_front() {
            if let Some((connection, call, outcome)) = self.shards[index].take(input) {
                self.answers.entry((connection, call)).or_default().push(outcome);
            }
        }
        if sync {
            let shard = &mut self.shards[index];
            shard.synced = shard.log.len();
            for (connection, call, outcome) in std::mem::take(&mut shard.unanswered) {
                self.answers.entry((connection, call)).or_default().push(outcome);
            }
            let shard = &mut self.shards[index];
            for (_, report) in std::mem::take(&mut shard.unsynced) {
                self.step(CatalogInput::Report(report));
            }
        }
    }

    fn drain(&mut self) {
        while self.shards.iter().any(|shard| shard.has_work()) {
            (0..self.shards.len()).for_each(|shard| self.run_shard(shard, true));
        }
    }

    fn answer_to(&mut self, connection: ConnectionId, call: CallId) -> Option<Outcome> {
        let mut answers = self.answers.remove(&(connection, call))?;
        assert_eq!(answers.len(), 1, "answered once");
        answers.pop()
    }

    /// Sends a request, lets the shards work and takes the answer.
    fn ask(&mut self, connection: ConnectionId, ask: CatalogAsk) -> Outcome {
        let call = self.send(connection, ask);
        self.drain();
        self.answer_to(connection, call).expect("everything is answered")
    }

    fn ok(&mut self, connection: ConnectionId, ask: CatalogAsk) {
        if let Outcome::Fault(fault) = self.ask(connection, ask) {
            panic!("refused: {fault:?}");
        }
    }

    fn refusal(&mut self, connection: ConnectionId, ask: CatalogAsk) -> (u16, String) {
        match self.ask(connection, ask) {
            Outcome::Fault(fault) => (fault.code.code(), fault.text),
            outcome => panic!("not refused: {outcome:?}"),
        }
    }

    fn queue(&self, name: &str) -> Option<QueueId> {
        self.topology.queue(VhostId(0), name).map(|queue| queue.queue.id)
    }

    fn has_exchange(&self, name: &str) -> bool {
        self.topology.exchange(VhostId(0), name).is_some()
    }

    fn explicit_bindings(&self) -> Vec<(String, String, String)> {
        let explicit = self.topology.bindings().filter(|binding| !binding.source.is_empty());
        let owned = |text: &str| text.to_owned();
        explicit.map(|binding| (owned(binding.source), owned(binding.destination), owned(binding.key))).collect()
    }
}

impl FakeShard {
    fn has_work(&self) -> bool {
        !(self.inbox.is_empty() && self.unsynced.is_empty() && self.unanswered.is_empty())
    }

    fn take(&mut self, input: ShardInput) -> Option<(ConnectionId, CallId, Outcome)> {
        match input {
            ShardInput::CreateQueue { spec, declarer } => {
                assert!(self.queues.insert(spec.queue.id, None).is_none(), "ids are new");
                assert_eq!(spec.durable, declarer.is_some());
                self.specs.insert(spec.queue.id, Arc::clone(&spec));
                if let Some((connection, call)) = declarer {
                    let (key, value) = spec.fact();
                    self.put(key, Some(value), None);
                    let outcome = Outcome::QueueDeclared { messages: 0, consumers: 0 };
                    self.unanswered.push((connection, call, outcome));
                }
            }
            ShardInput::Answer { connection, call, outcome } => self.unanswered.push((connection, call, outcome)),
            ShardInput::ChangeQueues { specs } => {
                self.specs.extend(specs.into_iter().map(|spec| (spec.queue.id, spec)));
            }
            ShardInput::RedeclareQueue { spec } => {
                let (key, value) = spec.fact();
                self.specs.insert(spec.queue.id, spec);
                self.put(key, Some(value), None);
            }
            ShardInput::DeleteQueue { queue, ticket, .. } => {
                let outcome = match self.queues.get(&queue) {
                    None => Outcome::Missed,
                    Some(Some(fault)) => Outcome::Fault(fault.clone()),
                    Some(None) => {
                        self.queues.remove(&queue);
                        self.put(crate::fact::queue_key(queue), None, None);
                        Outcome::QueueDeleted { messages: 7, consumers: vec![(A, ConsumerNumber(1))] }
                    }
                };
                self.unsynced.push_back((self.log.len(), ShardReport::Deleted { ticket, outcome }));
            }
            ShardInput::Count { queue, connection, call, .. } => {
                let found = self.queues.contains_key(&queue);
                let outcome =
                    if found { Outcome::QueueDeclared { messages: 3, consumers: 2 } } else { Outcome::Missed };
                return Some((connection, call, outcome));
            }
            ShardInput::PutFact { key, value, ticket } => self.put(key, Some(value), ticket),
            ShardInput::KeepSources { .. } | ShardInput::Recall { .. } | ShardInput::ForgetHistory { .. } => {}
            ShardInput::ForgetFact { key, ticket } => self.put(key, None, ticket),
            other => panic!("not from a catalog: {other:?}"),
        }
        None
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>, ticket: Option<CatalogTicket>) {
        self.log.push((key, value));
        self.unsynced.extend(ticket.map(|ticket| (self.log.len(), ShardReport::Durable { ticket })));
    }

    fn facts(&self) -> BTreeMap<Bytes, Bytes> {
        let mut facts = BTreeMap::new();
        for (key, value) in &self.log[..self.synced] {
            match value {
                Some(value) => facts.insert(key.clone(), value.clone()),
                None => facts.remove(key),
            };
        }
        facts
    }
}

fn declare_exchange(name: &str, kind: &str) -> CatalogAsk {
    exchange_with(name, kind, true, false, Table::new())
}

fn exchange_with(name: &str, kind: &str, durable: bool, auto_delete: bool, arguments: Table) -> CatalogAsk {
    let (name, kind) = (name.to_owned(), kind.to_owned());
    CatalogAsk::DeclareExchange { name, kind, passive: false, durable, auto_delete, internal: false, arguments }
}

fn find_exchange(name: &str) -> CatalogAsk {
    let CatalogAsk::DeclareExchange { name, kind, durable, auto_delete, internal, arguments, .. } =
        declare_exchange(name, "anything")
    else {
        unreachable!("it is one")
    };
    CatalogAsk::DeclareExchange { name, kind, passive: true, durable, auto_delete, internal, arguments }
}

fn delete_exchange(name: &str, if_unused: bool) -> CatalogAsk {
    CatalogAsk::DeleteExchange { name: name.to_owned(), if_unused }
}

fn queue(name: &str) -> DeclareQueue {
    DeclareQueue {
        name: name.to_owned(),
        server_named: false,
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::new(),
    }
}

fn declare_queue(name: &str) -> CatalogAsk {
    CatalogAsk::DeclareQueue(queue(name))
}

fn exclusive_queue(name: &str) -> CatalogAsk {
    CatalogAsk::DeclareQueue(DeclareQueue { exclusive: true, ..queue(name) })
}

fn find_queue(name: &str) -> CatalogAsk {
    CatalogAsk::DeclareQueue(DeclareQueue { passive: true, durable: false, exclusive: true, ..queue(name) })
}

fn delete_queue(name: &str) -> CatalogAsk {
    CatalogAsk::DeleteQueue { name: name.to_owned(), if_unused: false, if_empty: false }
}

fn to_queue(source: &str, queue: &str, key: &str) -> BindingSpec {
    BindingSpec {
        source: source.to_owned(),
        destination: queue.to_owned(),
        kind: DestinationKind::Queue,
        key: key.to_owned(),
        arguments: Table::new(),
    }
}

fn to_exchange(source: &str, exchange: &str, key: &str) -> BindingSpec {
    BindingSpec { kind: DestinationKind::Exchange, ..to_queue(source, exchange, key) }
}

fn refused(code: u16, text: &str) -> (u16, String) {
    (code, text.to_owned())
}

// --- exchanges ----------------------------------------------------------------------------------------------------

#[test]
fn exchanges_are_declared_found_and_deleted() {
    let mut world = World::new(1);
    world.ok(A, declare_exchange("x", "topic"));
    world.ok(B, declare_exchange("x", "topic"));
    world.ok(A, find_exchange("x"));
    world.ok(A, delete_exchange("x", true));
    assert_eq!(world.refusal(A, find_exchange("x")), refused(404, "no exchange 'x' in vhost '/'"));
    world.ok(A, delete_exchange("x", true));
}

#[test]
fn an_unknown_exchange_type_is_named() {
    let expected = refused(406, "unknown exchange type 'foo'");
    assert_eq!(World::new(1).refusal(A, declare_exchange("x", "foo")), expected);
    assert_eq!(World::new(1).refusal(A, declare_exchange("amq.direct", "foo")), expected);
}

#[test]
fn a_different_exchange_of_the_same_name_is_refused() {
    let mut world = World::new(1);
    world.ok(A, declare_exchange("x", "direct"));
    let alternate = |name: &str| [("alternate-exchange", name)].into_iter().collect::<Table>();
    for (ask, difference) in [
        (
            declare_exchange("x", "fanout"),
            "'type' for exchange 'x' in vhost '/': received 'fanout' but current is 'direct'",
        ),
        (
            exchange_with("x", "direct", false, false, Table::new()),
            "'durable' for exchange 'x' in vhost '/': received 'false' but current is 'true'",
        ),
        (
            exchange_with("x", "direct", true, true, Table::new()),
            "'auto_delete' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            exchange_with("x", "direct", true, false, alternate("y")),
            "'alternate-exchange' for exchange 'x' in vhost '/': received the value 'y' of type 'longstr' but current is none",
        ),
    ] {
        assert_eq!(world.refusal(A, ask), (406, format!("inequivalent arg {difference}")));
    }
    let other_argument = [("x-vendor", 1_i32)].into_iter().collect();
    world.ok(A, exchange_with("x", "direct", true, false, other_argument));
}

#[test]
fn internal_is_compared_too() {
    let mut world = World::new(1);
    let ask = |internal| CatalogAsk::DeclareExchange {
        name: "x".to_owned(),
        kind: "direct".to_owned(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal,
        arguments: Table::new(),
    };
    world.ok(A, ask(true));
    let difference =
        "inequivalent arg 'internal' for exchange 'x' in vhost '/': received 'false' but current is 'true'";
    assert_eq!(world.refusal(A, ask(false)), refused(406, difference));
}

#[test]
fn an_alternate_is_named_by_a_string() {
    let arguments = [("alternate-exchange", 1_i32)].into_iter().collect();
    assert_eq!(
        World::new(1).refusal(A, exchange_with("x", "direct", true, false, arguments)),
        refused(406, "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'")
    );
}

#[test]
fn reserved_exchange_names_are_the_servers_but_may_be_declared_as_they_are() {
    let mut world = World::new(1);
    world.ok(A, declare_exchange("amq.direct", "direct"));
    assert_eq!(
        world.refusal(A, declare_exchange("amq.mine", "direct")),
        refused(403, "exchange name 'amq.mine' contains reserved prefix 'amq.*'")
    );
    assert_eq!(
        world.refusal(A, delete_exchange("amq.topic", false)),
        refused(403, "deletion of system exchange 'amq.topic' in vhost '/' not allowed")
    );
}

#[test]
fn the_default_exchange_is_left_alone() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    for ask in [
        declare_exchange("", "direct"),
        find_exchange(""),
        delete_exchange("", false),
        CatalogAsk::Bind(to_queue("", "q", "k")),
        CatalogAsk::Unbind(to_queue("", "q", "q")),
        CatalogAsk::Bind(to_exchange("amq.direct", "", "k")),
    ] {
        assert_eq!(world.refusal(A, ask), refused(403, "operation not permitted on the default exchange"));
    }
}

#[test]
fn names_that_amqp_cannot_carry_are_refused() {
    let mut world = World::new(1);
    let long = "n".repeat(256);
    for ask in [declare_queue(&long), declare_exchange(&long, "fanout"), declare_queue("")] {
        assert_eq!(world.refusal(A, ask).0, 406);
    }
    world.ok(A, declare_queue(&"n".repeat(255)));
    world.ok(A, declare_exchange(&"n".repeat(255), "fanout"));
}

#[test]
fn an_exchange_in_use_is_kept_if_so_wished() {
    let mut world = World::new(1);
    world.ok(A, declare_exchange("x", "direct"));
    world.ok(A, declare_queue("q"));
    world.ok(A, CatalogAsk::Bind(to_exchange("amq.direct", "x", "k")));
    world.ok(A, CatalogAsk::Bind(to_queue("x", "q", "k")));
    assert_eq!(world.refusal(A, delete_exchange("x", true)), refused(406, "exchange 'x' in vhost '/' in use"));
    world.ok(A, CatalogAsk::Unbind(to_queue("x", "q", "k")));
    world.ok(A, delete_exchange("x", true));
    assert_eq!(world.explicit_bindings(), [], "bindings to it go too");
}

#[test]
fn auto_delete_exchanges_go_one_after_the_other_with_their_last_binding() {
    let mut world = World::new(1);
    for name in ["x", "y", "z"] {
        world.ok(A, exchange_with(name, "direct", true, true, Table::new()));
    }
    world.ok(A, declare_queue("q"));
    world.ok(A, CatalogAsk::Bind(to_exchange("x", "y", "k")));
    world.ok(A, CatalogAsk::Bind(to_queue("y", "q", "k")));
    world.ok(A, CatalogAsk::Bind(to_queue("y", "q", "l")));
    world.ok(A, CatalogAsk::Unbind(to_queue("y", "q", "k")));
    assert!(world.has_exchange("y"));
    world.ok(A, delete_queue("q"));
    assert!(!world.has_exchange("x") && !world.has_exchange("y"));
    assert!(world.has_exchange("z"), "it never had a binding");
    assert!(!world.restarted().has_exchange("x"));
}

// --- bindings -----------------------------------------------------------------------------------------------------

#[test]
fn binding_and_unbinding_twice_is_once() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    for _ in 0..2 {
        world.ok(A, CatalogAsk::Bind(to_queue("amq.topic", "q", "k")));
        assert_eq!(world.explicit_bindings(), [("amq.topic".to_owned(), "q".to_owned(), "k".to_owned())]);
    }
    for _ in 0..2 {
        world.ok(A, CatalogAsk::Unbind(to_queue("amq.topic", "q", "k")));
        assert_eq!(world.explicit_bindings(), []);
    }
}

#[test]
fn arguments_are_part_of_a_binding_and_their_order_is_not() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    let with = |arguments: &[(&str, i32)]| {
        let arguments = arguments.iter().copied().collect();
        BindingSpec { arguments, ..to_queue("amq.direct", "q", "k") }
    };
    world.ok(A, CatalogAsk::Bind(with(&[("a", 1), ("b", 2)])));
    world.ok(A, CatalogAsk::Bind(with(&[("b", 2), ("a", 1)])));
    assert_eq!(world.explicit_bindings().len(), 1);
    world.ok(A, CatalogAsk::Bind(with(&[])));
    world.ok(A, CatalogAsk::Unbind(with(&[("b", 2), ("a", 1)])));
    assert_eq!(world.explicit_bindings().len(), 1);
}

#[test]
fn the_first_missing_end_is_named_when_binding_and_nothing_when_unbinding() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    for (spec, text) in [
        (to_queue("x", "q", "k"), "no exchange 'x' in vhost '/'"),
        (to_queue("x", "nope", "k"), "no exchange 'x' in vhost '/'"),
        (to_queue("amq.direct", "nope", "k"), "no queue 'nope' in vhost '/'"),
        (to_exchange("amq.direct", "nope", "k"), "no exchange 'nope' in vhost '/'"),
    ] {
        assert_eq!(world.refusal(A, CatalogAsk::Bind(spec.clone())), refused(404, text));
        world.ok(A, CatalogAsk::Unbind(spec));
    }
}

#[test]
fn criteria_of_headers_exchanges_are_checked() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    let arguments: Table = [("x-match", "some")].into_iter().collect();
    let spec = |source| BindingSpec { arguments: arguments.clone(), ..to_queue(source, "q", "") };
    let text = "Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x";
    assert_eq!(world.refusal(A, CatalogAsk::Bind(spec("amq.headers"))), refused(406, text));
    assert_eq!(world.explicit_bindings(), []);
    world.ok(A, CatalogAsk::Bind(spec("amq.direct")));
}

#[test]
fn reply_addresses_cannot_be_bound() {
    let text = "cannot bind or unbind to a volatile (direct reply-to) queue";
    for ask in [CatalogAsk::Bind, CatalogAsk::Unbind] {
        let spec = to_queue("amq.direct", "amq.rabbitmq.reply-to", "k");
        assert_eq!(World::new(1).refusal(A, ask(spec)), refused(403, text));
    }
}

#[test]
fn bindings_go_with_either_end() {
    let mut world = World::new(1);
    for name in ["x", "y"] {
        world.ok(A, declare_exchange(name, "fanout"));
    }
    world.ok(A, declare_queue("q"));
    for spec in
        [to_exchange("x", "y", ""), to_exchange("y", "y", ""), to_exchange("y", "x", ""), to_queue("x", "q", "")]
    {
        world.ok(A, CatalogAsk::Bind(spec));
    }
    world.ok(A, delete_exchange("y", false));
    assert_eq!(world.explicit_bindings(), [("x".to_owned(), "q".to_owned(), String::new())]);
    world.ok(A, delete_queue("q"));
    assert_eq!(world.explicit_bindings(), []);
    assert_eq!(world.restarted().explicit_bindings(), []);
}

// --- queues -------------------------------------------------------------------------------------------------------

#[test]
fn a_queue_is_declared_counted_and_deleted() {
    let mut world = World::new(1);
    assert!(matches!(world.ask(A, declare_queue("q")), Outcome::QueueDeclared { messages: 0, consumers: 0 }));
    assert!(matches!(world.ask(B, declare_queue("q")), Outcome::QueueDeclared { messages: 3, consumers: 2 }));
    assert!(matches!(world.ask(B, find_queue("q")), Outcome::QueueDeclared { messages: 3, consumers: 2 }));
    assert!(matches!(world.ask(B, delete_queue("q")), Outcome::QueueDeleted { messages: 7, .. }));
    assert_eq!(world.consumers_gone, [0]);
    assert!(matches!(world.ask(B, delete_queue("q")), Outcome::QueueDeleted { messages: 0, .. }));
    assert_eq!(world.refusal(A, find_queue("q")), refused(404, "no queue 'q' in vhost '/'"));
}

#[test]
fn a_different_queue_of_the_same_name_is_refused() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    let ask = CatalogAsk::DeclareQueue(DeclareQueue { durable: false, ..queue("q") });
    let text = "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'";
    assert_eq!(world.refusal(A, ask), refused(406, text));
}

#[test]
fn reserved_queue_names_are_the_servers() {
    let mut world = World::new(1);
    let text = "queue name 'amq.mine' contains reserved prefix 'amq.*'";
    assert_eq!(world.refusal(A, declare_queue("amq.mine")), refused(403, text));
    world.ok(A, CatalogAsk::DeclareQueue(DeclareQueue { server_named: true, ..queue("amq.gen-1") }));
    world.ok(A, declare_queue("amq.gen-1"));
}

#[test]
fn wrong_arguments_are_refused_when_the_queue_is_made() {
    let mut world = World::new(1);
    let with = |arguments: Table| CatalogAsk::DeclareQueue(DeclareQueue { arguments, ..queue("q") });
    assert_eq!(
        world.refusal(A, with([("x-message-ttl", "5")].into_iter().collect())),
        refused(406, "invalid arg 'x-message-ttl' for queue 'q' in vhost '/': \"expected integer, got longstr\"")
    );
    assert_eq!(world.queue("q"), None);
    world.ok(A, with([("x-unheard-of", "5")].into_iter().collect()));
}

#[test]
fn quorum_queues_must_last_and_be_named() {
    let arguments: Table = [("x-queue-type", "quorum")].into_iter().collect();
    let base = DeclareQueue { arguments, ..queue("q") };
    let mut world = World::new(1);
    for (wanted, text) in [
        (DeclareQueue { durable: false, ..base.clone() }, "invalid property 'non-durable' for queue 'q' in vhost '/'"),
        (
            DeclareQueue { exclusive: true, ..base.clone() },
            "invalid property 'exclusive-owner' for queue 'q' in vhost '/'",
        ),
        (
            DeclareQueue { auto_delete: true, ..base.clone() },
            "invalid property 'auto-delete' for queue 'q' in vhost '/'",
        ),
        (
            DeclareQueue { server_named: true, ..base.clone() },
            "Cannot declare a server-named queue for type rabbit_quorum_queue",
        ),
    ] {
        assert_eq!(world.refusal(A, CatalogAsk::DeclareQueue(wanted)), refused(406, text));
    }
    world.ok(A, CatalogAsk::DeclareQueue(base));
    assert!(world.topology.queue(VhostId(0), "q").unwrap().settings.is_quorum());
}

#[test]
fn an_exclusive_queue_is_its_owners_alone() {
    let mut world = World::new(1);
    world.ok(A, exclusive_queue("q"));
    world.ok(A, exclusive_queue("q"));
    assert!(!world.topology.queue(VhostId(0), "q").unwrap().durable, "it need not last");
    let text = "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally declared on \
                another connection or the exclusive property value does not match that of the original declaration.";
    for ask in [
        exclusive_queue("q"),
        declare_queue("q"),
        find_queue("q"),
        delete_queue("q"),
        CatalogAsk::Bind(to_queue("amq.direct", "q", "k")),
    ] {
        assert_eq!(world.refusal(B, ask), refused(405, text));
    }
    assert_eq!(world.refusal(A, declare_queue("q")), refused(405, text));
    let unbind = || CatalogAsk::Unbind(to_queue("amq.direct", "q", "k"));
    world.ok(B, unbind());
    world.ok(A, CatalogAsk::Bind(to_queue("amq.direct", "q", "k")));
    assert_eq!(world.refusal(B, unbind()), refused(405, text), "now there is something to be unbound");
    world.ok(A, delete_queue("q"));
    world.ok(A, declare_queue("q"));
    assert_eq!(world.refusal(A, exclusive_queue("q")), refused(405, text));
}

#[test]
fn what_the_shard_refuses_to_delete_stays() {
    let mut world = World::new(1);
    world.ok(A, declare_queue("q"));
    let in_use = precondition_failed("queue 'q' in vhost '/' in use");
    let id = world.queue("q").unwrap();
    world.shards[0].queues.insert(id, Some(in_use));
    assert_eq!(world.refusal(A, delete_queue("q")), refused(406, "queue 'q' in vhost '/' in use"));
    assert_eq!(world.queue("q"), Some(id));
    world.shards[0].queues.insert(id, None);
    world.ok(A, delete_queue("q"));
}

#[test]
fn requests_about_a_queue_wait_for_its_deletion_in_their_order() {
    let mut world = World::new(2);
    world.ok(A, declare_queue("q"));
    world.ok(A, declare_exchange("x", "direct"));
    let before = world.queue("q").unwrap();
    let deleted = world.send(A, delete_queue("q"));
    let bound = world.send(B, CatalogAsk::Bind(to_queue("x", "q", "k")));
    let declared = world.send(B, declare_queue("q"));
    let bound_again = world.send(B, CatalogAsk::Bind(to_queue("x", "q", "k")));
    let deleted_again = world.send(A, delete_queue("q"));
    let found = world.send(B, find_queue("q"));
    assert_eq!(world.queue("q"), Some(before), "visible until its shard agrees");
    assert!(world.answers.is_empty());
    world.drain();
    assert!(matches!(world.answer_to(A, deleted), Some(Outcome::QueueDeleted { messages: 7, .. })));
    assert!(
        matches!(world.answer_to(B, bound), Some(Outcome::Fault(fault)) if fault.text == "no queue 'q' in vhost '/'")
    );
    assert!(matches!(world.answer_to(B, declared), Some(Outcome::QueueDeclared { messages: 0, consumers: 0 })));
    assert!(matches!(world.answer_to(B, bound_again), Some(Outcome::Applied)));
    assert!(matches!(world.answer_to(A, deleted_again), Some(Outcome::QueueDeleted { messages: 7, .. })));
    assert!(
        matches!(world.answer_to(B, found), Some(Outcome::Fault(fault)) if fault.text == "no queue 'q' in vhost '/'")
    );
    assert!(world.catalog.pending.is_empty() && world.catalog.deleting.is_empty() && world.catalog.unsynced.is_empty());
}

#[test]
fn consumers_learn_of_a_deletion_before_anybody_has_the_name_again_and_whoever_deletes_its_own_is_answered_first() {
    for (deleter, own, told) in [(A, vec![(A, ConsumerNumber(1))], vec![]), (B, vec![], vec![0])] {
        let mut world = World::new(2);
        world.ok(A, declare_queue("q"));
        let deleted = world.send(deleter, delete_queue("q"));
        world.drain();
        let answer = world.answer_to(deleter, deleted);
        assert!(
            matches!(&answer, Some(Outcome::QueueDeleted { messages: 7, consumers }) if *consumers == own),
            "its own are in the answer: {answer:?}"
        );
        assert_eq!(world.consumers_gone, told);
    }
    // Bindings that go with the queue hold the answer up until that is durable.
    let mut world = World::new(2);
    world.ok(A, declare_queue("q"));
    world.ok(A, CatalogAsk::Bind(to_queue("amq.direct", "q", "k")));
    let deleted = world.send(B, delete_queue("q"));
    let declared = world.send(A, CatalogAsk::DeclareQueue(DeclareQueue { durable: false, ..queue("q") }));
    world.drain();
    assert_eq!(world.consumers_gone, [0], "before both answers");
    assert!(world.answer_to(B, deleted).is_some() && world.answer_to(A, declared).is_some());
}

#[test]
fn a_queue_that_went_by_itself_is_removed_and_then_told_of() {
    let mut world = World::new(1);
    world.ok(A, CatalogAsk::DeclareQueue(DeclareQueue { durable: false, auto_delete: true, ..queue("q") }));
    world.ok(A, CatalogAsk::Bind(to_queue("amq.direct", "q", "k")));
    let id = world.queue("q").unwrap();
    world.shards[0].queues.clear();
    let deletion = world.send(B, delete_queue("q"));
    let then = Some((A, CallId(99), Outcome::Cancelled));
    world.step(CatalogInput::Report(ShardReport::QueueGone { queue: id, then }));
    assert_eq!((world.queue("q"), world.explicit_bindings()), (None, Vec::new()));
    assert!(matches!(world.answer_to(A, CallId(99)), Some(Outcome::Cancelled)));
    world.drain();
    assert!(matches!(world.answer_to(B, deletion), Some(Outcome::QueueDeleted { messages: 0, .. })));
}

#[test]
fn queues_are_dealt_out_to_the_shards_in_turn_and_ids_never_come_back() {
    let mut world = World::new(3);
    let mut ids = Vec::new();
    for round in 0..6_u16 {
        world.ok(A, declare_queue("q"));
        let spec = world.topology.queue(VhostId(0), "q").unwrap();
        assert_eq!(spec.queue.shard, ShardId(round % 3));
        ids.push(spec.queue.id);
        world.ok(A, delete_queue("q"));
    }
    let mut world = world.restarted();
    world.ok(A, declare_queue("q"));
    ids.push(world.queue("q").unwrap());
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

// --- connections --------------------------------------------------------------------------------------------------

#[test]
fn a_connection_is_closed_when_its_exclusive_queues_are_gone() {
    let mut world = World::new(2);
    for name in ["q1", "q2", "q3"] {
        world.ok(A, exclusive_queue(name));
    }
    world.ok(B, exclusive_queue("other"));
    world.ok(A, CatalogAsk::Bind(to_queue("amq.direct", "q1", "k")));
    let closed = world.send(A, CatalogAsk::CloseConnection);
    assert_eq!((world.queue("q1"), world.queue("q3"), world.explicit_bindings()), (None, None, Vec::new()));
    world.run_shard(0, true);
    assert!(world.answers.is_empty(), "one is left in the other shard");
    let redeclared = world.send(B, exclusive_queue("q1"));
    world.drain();
    assert!(matches!(world.answer_to(A, closed), Some(Outcome::ConnectionClosed)));
    assert!(matches!(world.answer_to(B, redeclared), Some(Outcome::QueueDeclared { .. })));
    assert!(world.queue("other").is_some());
    assert!(matches!(world.ask(A, CatalogAsk::CloseConnection), Outcome::ConnectionClosed));
}

#[test]
fn requests_that_wait_end_with_their_connection() {
    let mut world = World::new(1);
    world.ok(B, declare_queue("q"));
    let deleted = world.send(B, delete_queue("q"));
    let declared = world.send(A, exclusive_queue("q"));
    let closed = world.send(A, CatalogAsk::CloseConnection);
    world.drain();
    assert!(matches!(world.answer_to(A, declared), Some(Outcome::Missed)));
    assert!(matches!(world.answer_to(A, closed), Some(Outcome::ConnectionClosed)));
    assert!(matches!(world.answer_to(B, deleted), Some(Outcome::QueueDeleted { .. })));
    assert_eq!(world.queue("q"), None);
}

#[test]
fn reply_consumers_come_and_go() {
    let mut world = World::new(1);
    let add = |secret: &str| CatalogAsk::AddReplyConsumer { channel: ChannelId(1), secret: secret.to_owned() };
    let address = "amq.rabbitmq.reply-to.s1";
    assert_eq!(world.refusal(A, find_queue(address)), (404, format!("no queue '{address}' in vhost '/'")));
    world.ok(A, add("s1"));
    assert_eq!(world.refusal(A, add("s2")), refused(406, "reply consumer already set"));
    for name in [address, "amq.rabbitmq.reply-to"] {
        assert!(matches!(world.ask(B, find_queue(name)), Outcome::QueueDeclared { messages: 0, consumers: 1 }));
    }
    world.ok(A, CatalogAsk::RemoveReplyConsumer { channel: ChannelId(1) });
    world.ok(A, add("s2"));
    world.ok(A, CatalogAsk::CloseConnection);
    assert_eq!(world.topology.reply_consumer("amq.rabbitmq.reply-to.s2"), None);
}

// --- durability ---------------------------------------------------------------------------------------------------

#[test]
fn durable_changes_are_answered_when_fsynced_and_seen_at_once() {
    let mut world = World::new(2);
    world.ok(A, declare_queue("in-shard-0"));
    let link = || to_queue("x", "q", "k");
    let asks = [
        (A, declare_exchange("x", "direct")),
        (B, declare_exchange("x", "direct")),
        (A, declare_queue("q")),
        (A, CatalogAsk::Bind(link())),
        (B, CatalogAsk::Bind(link())),
        (A, CatalogAsk::Unbind(link())),
        (B, CatalogAsk::Unbind(link())),
        (A, delete_exchange("x", false)),
        (B, delete_exchange("x", false)),
    ];
    let calls = asks.map(|(connection, ask)| (connection, world.send(connection, ask)));
    assert!(!world.has_exchange("x") && world.queue("q").is_some());
    (0..2).for_each(|shard| world.run_shard(shard, false));
    assert!(world.answers.is_empty());
    world.run_shard(1, true);
    assert_eq!(world.answers.len(), 1, "the queue's");
    world.run_shard(0, true);
    for (connection, call) in calls {
        assert!(!matches!(world.answer_to(connection, call), None | Some(Outcome::Fault(_))));
    }
    assert!(world.catalog.pending.is_empty() && world.catalog.unsynced.is_empty());
}

#[test]
fn the_answer_waits_for_the_last_of_several_facts() {
    let mut world = World::new(1);
    world.ok(A, declare_exchange("x", "fanout"));
    world.ok(A, declare_queue("q"));
    world.ok(A, CatalogAsk::Bind(to_queue("x", "q", "k")));
    world.ok(A, CatalogAsk::Bind(to_queue("x", "q", "l")));
    let logged = world.shards[0].log.len();
    let deleted = world.send(A, delete_exchange("x", false));
    world.run_shard(0, false);
    let shard = &world.shards[0];
    assert_eq!(shard.log.len(), logged + 3, "the exchange and two bindings");
    assert_eq!(shard.unsynced.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [logged + 3]);
    world.drain();
    assert!(matches!(world.answer_to(A, deleted), Some(Outcome::Applied)));
}

#[test]
fn transient_changes_are_answered_at_once_and_not_logged() {
    let mut world = World::new(1);
    let calls = [
        world.send(A, exchange_with("x", "direct", false, false, Table::new())),
        world.send(A, CatalogAsk::DeclareQueue(DeclareQueue { durable: false, ..queue("q") })),
        world.send(A, CatalogAsk::Bind(to_queue("x", "q", "k"))),
        world.send(A, CatalogAsk::Bind(to_queue("amq.direct", "q", "k"))),
    ];
    for call in calls {
        assert!(world.answer_to(A, call).is_some());
    }
    world.drain();
    assert_eq!(world.shards[0].log, []);
    assert!(world.shards[0].queues.len() == 1);
}

#[test]
fn durable_objects_survive_a_restart_and_others_do_not() {
    let mut world = World::new(2);
    let arguments: Table = [("alternate-exchange", "amq.fanout")].into_iter().collect();
    world.ok(A, exchange_with("x", "topic", true, true, arguments.clone()));
    world.ok(A, exchange_with("gone", "topic", false, false, Table::new()));
    let limits: Table = [("x-max-length", Value::I32(5)), ("x-vendor", Value::Void)].into_iter().collect();
    world.ok(A, CatalogAsk::DeclareQueue(DeclareQueue { arguments: limits.clone(), ..queue("q") }));
    world.ok(A, CatalogAsk::DeclareQueue(DeclareQueue { durable: false, ..queue("transient") }));
    world.ok(A, exclusive_queue("mine"));
    for spec in [
        to_queue("x", "q", "k"),
        to_queue("gone", "q", "k"),
        to_queue("x", "transient", "k"),
        to_exchange("amq.direct", "x", "k"),
    ] {
        world.ok(A, CatalogAsk::Bind(spec));
    }
    let before = world.topology.queue(VhostId(0), "q").unwrap().clone();
    let world = world.restarted();
    let names = |world: &World| world.topology.queues().map(|queue| queue.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&world), ["q"]);
    assert_eq!(world.topology.queue(VhostId(0), "q"), Some(&before));
    let exchange = world.topology.exchange(VhostId(0), "x").unwrap();
    assert_eq!(
        (exchange.auto_delete, &exchange.arguments, exchange.alternate.as_deref()),
        (true, &arguments, Some("amq.fanout"))
    );
    assert!(!world.has_exchange("gone"));
    let mut bindings = world.explicit_bindings();
    bindings.sort_unstable();
    let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(bindings, [owned("amq.direct", "x", "k"), owned("x", "q", "k")]);
}

#[test]
fn a_later_queue_does_not_inherit_the_bindings_of_an_earlier_one() {
    let mut world = World::new(2);
    world.ok(A, declare_queue("other"));
    world.ok(A, declare_queue("q"));
    world.ok(A, CatalogAsk::Bind(to_queue("amq.direct", "q", "k")));
    // The crash comes when shard 1 has synced the deletion and a later shard 1 queue of that name, shard 0 nothing.
    world.send(A, delete_queue("q"));
    world.run_shard(1, true);
    world.send(A, declare_queue("padding"));
    world.send(A, declare_queue("q"));
    world.run_shard(1, true);
    let world = world.restarted();
    assert!(world.queue("q").is_some());
    assert_eq!(world.explicit_bindings(), []);
    assert!(!world.shards[0].facts().keys().any(|key| key.starts_with(b"b/")), "the binding is forgotten");
}

#[test]
fn of_two_queues_of_a_name_the_later_lives() {
    let mut world = World::new(2);
    world.ok(A, CatalogAsk::DeclareQueue(DeclareQueue { auto_delete: true, ..queue("q") }));
    let first = world.queue("q").unwrap();
    // It goes by itself, and its name passes on, before the shard has synced that.
    world.step(CatalogInput::Report(ShardReport::QueueGone { queue: first, then: None }));
    world.ok(A, declare_queue("q"));
    let second = world.queue("q").unwrap();
    let world = world.restarted();
    assert_eq!(world.queue("q"), Some(second));
    assert!(!world.shards[0].queues.contains_key(&first) && world.shards[1].queues.contains_key(&second));
}

#[test]
fn a_fact_that_makes_no_sense_stops_the_start() {
    let facts = [(ShardId(0), Bytes::from_static(b"x/1///x"), Bytes::from_static(b"nonsense"))];
    let error = Catalog::recover(1, 2, facts, &mut CatalogOutbox::default()).unwrap_err();
    assert_eq!(error.to_string(), "the stored fact 'x/1///x' cannot be used: its value is not one field table");
}
