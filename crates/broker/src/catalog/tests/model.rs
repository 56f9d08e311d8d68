//! Random requests: against a plain model where shards answer at once, and with shards that answer late.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Op {
    DeclareExchange { name: usize, durable: bool, auto_delete: bool },
    DeleteExchange { name: usize, if_unused: bool },
    DeclareQueue { name: usize, durable: bool, exclusive: bool },
    DeleteQueue { name: usize },
    Bind(Link),
    Unbind(Link),
    Close,
}

/// A binding of exchanges `x0`… to queues `q0`… or exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Link {
    source: usize,
    destination: (bool, usize),
    key: bool,
}

impl Link {
    fn spec(self) -> BindingSpec {
        let key = if self.key { "k" } else { "l" };
        let (source, (to_a_queue, to)) = (format!("x{}", self.source), self.destination);
        if to_a_queue {
            to_queue(&source, &format!("q{to}"), key)
        } else {
            to_exchange(&source, &format!("x{to}"), key)
        }
    }
}

impl Op {
    fn ask(&self) -> CatalogAsk {
        match *self {
            Self::DeclareExchange { name, durable, auto_delete } => {
                exchange_with(&format!("x{name}"), "fanout", durable, auto_delete, Table::new())
            }
            Self::DeleteExchange { name, if_unused } => delete_exchange(&format!("x{name}"), if_unused),
            Self::DeclareQueue { name, durable, exclusive } => {
                CatalogAsk::DeclareQueue(DeclareQueue { durable, exclusive, ..queue(&format!("q{name}")) })
            }
            Self::DeleteQueue { name } => delete_queue(&format!("q{name}")),
            Self::Bind(link) => CatalogAsk::Bind(link.spec()),
            Self::Unbind(link) => CatalogAsk::Unbind(link.spec()),
            Self::Close => CatalogAsk::CloseConnection,
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let link = (0..3_usize, any::<bool>(), 0..3_usize, any::<bool>()).prop_map(|(source, to_a_queue, to, key)| Link {
        source,
        destination: (to_a_queue, to),
        key,
    });
    prop_oneof![
        3 => (0..3_usize, any::<bool>(), any::<bool>())
            .prop_map(|(name, durable, auto_delete)| Op::DeclareExchange { name, durable, auto_delete }),
        2 => (0..3_usize, any::<bool>()).prop_map(|(name, if_unused)| Op::DeleteExchange { name, if_unused }),
        3 => (0..3_usize, any::<bool>(), any::<bool>())
            .prop_map(|(name, durable, exclusive)| Op::DeclareQueue { name, durable, exclusive }),
        2 => (0..3_usize).prop_map(|name| Op::DeleteQueue { name }),
        6 => link.clone().prop_map(Op::Bind),
        3 => link.prop_map(Op::Unbind),
        1 => Just(Op::Close),
    ]
}

/// What ought to be there, by the plainest rules.
#[derive(Default)]
struct Model {
    /// Durable, auto-delete.
    exchanges: BTreeMap<usize, (bool, bool)>,
    /// Durable, owner.
    queues: BTreeMap<usize, (bool, Option<ConnectionId>)>,
    links: BTreeSet<Link>,
}

impl Model {
    /// Does it, or says with which code it is refused.
    fn apply(&mut self, connection: ConnectionId, op: &Op) -> Result<(), u16> {
        match *op {
            Op::DeclareExchange { name, durable, auto_delete } => {
                let current = *self.exchanges.entry(name).or_insert((durable, auto_delete));
                if current == (durable, auto_delete) { Ok(()) } else { Err(406) }
            }
            Op::DeleteExchange { name, if_unused } => {
                if if_unused && self.links.iter().any(|link| link.source == name) {
                    return Err(406);
                }
                self.exchanges.remove(&name);
                self.keep(&|link| link.source != name && link.destination != (false, name));
                Ok(())
            }
            Op::DeclareQueue { name, durable, exclusive } => {
                let wanted = (durable && !exclusive, exclusive.then_some(connection));
                let current = *self.queues.entry(name).or_insert(wanted);
                match (current.1 == wanted.1, current.0 == wanted.0) {
                    (false, _) => Err(405),
                    (true, false) => Err(406),
                    (true, true) => Ok(()),
                }
            }
            Op::DeleteQueue { name } => {
                self.check_owner(connection, (true, name))?;
                self.queues.remove(&name);
                self.keep(&|link| link.destination != (true, name));
                Ok(())
            }
            Op::Bind(link) => {
                let (to_a_queue, to) = link.destination;
                let exists = if to_a_queue { self.queues.contains_key(&to) } else { self.exchanges.contains_key(&to) };
                if !exists || !self.exchanges.contains_key(&link.source) {
                    return Err(404);
                }
                self.check_owner(connection, link.destination)?;
                self.links.insert(link);
                Ok(())
            }
            Op::Unbind(link) => {
                if self.links.contains(&link) {
                    self.check_owner(connection, link.destination)?;
                }
                self.keep(&|other| *other != link);
                Ok(())
            }
            Op::Close => {
                self.queues.retain(|_, (_, owner)| *owner != Some(connection));
                let queues: BTreeSet<usize> = self.queues.keys().copied().collect();
                self.keep(&|link| !link.destination.0 || queues.contains(&link.destination.1));
                Ok(())
            }
        }
    }

    fn check_owner(&self, connection: ConnectionId, destination: (bool, usize)) -> Result<(), u16> {
        let owner = self.queues.get(&destination.1).filter(|_| destination.0).and_then(|queue| queue.1);
        if owner.is_some_and(|owner| owner != connection) { Err(405) } else { Ok(()) }
    }

    /// Keeps these bindings, and no auto-delete exchange that lost its last one.
    fn keep(&mut self, keep: &dyn Fn(&Link) -> bool) {
        let lost: Vec<Link> = self.links.iter().copied().filter(|link| !keep(link)).collect();
        self.links.retain(keep);
        for link in lost {
            let is_source = self.links.iter().any(|other| other.source == link.source);
            if !is_source && self.exchanges.get(&link.source).is_some_and(|(_, auto_delete)| *auto_delete) {
                self.exchanges.remove(&link.source);
                self.keep(&|other| other.destination != (false, link.source));
            }
        }
    }

    fn check(&self, topology: &Topology) {
        let vhost = VhostId(0);
        for name in 0..3 {
            let found = topology.exchange(vhost, &format!("x{name}")).map(|found| (found.durable, found.auto_delete));
            assert_eq!(found, self.exchanges.get(&name).copied(), "exchange x{name}");
            let found = topology.queue(vhost, &format!("q{name}")).map(|found| (found.durable, found.owner));
            assert_eq!(found, self.queues.get(&name).copied(), "queue q{name}");
        }
        let mut expected: Vec<_> = self.links.iter().map(|link| parts(&link.spec())).collect();
        expected.sort_unstable();
        assert_eq!(explicit(topology, |_| true), expected);
    }
}

/// Source, destination, its kind, and the key.
type Parts = (String, String, DestinationKind, String);

fn parts(spec: &BindingSpec) -> Parts {
    (spec.source.clone(), spec.destination.clone(), spec.kind, spec.key.clone())
}

fn explicit(topology: &Topology, keep: impl Fn(&crate::topology::BindingView<'_>) -> bool) -> Vec<Parts> {
    let bindings = topology.bindings().filter(|binding| !binding.source.is_empty() && keep(binding));
    let mut bindings: Vec<_> = bindings
        .map(|view| (view.source.to_owned(), view.destination.to_owned(), view.kind, view.key.to_owned()))
        .collect();
    bindings.sort_unstable();
    bindings
}

/// Durable exchanges, queues and bindings.
fn durable_part(topology: &Topology) -> (Vec<String>, Vec<QueueId>, Vec<Parts>) {
    let mut exchanges: Vec<_> =
        topology.exchanges().filter(|exchange| exchange.durable).map(|exchange| exchange.name.to_string()).collect();
    let mut queues: Vec<_> = topology.queues().filter(|queue| queue.durable).map(|queue| queue.queue.id).collect();
    exchanges.sort_unstable();
    queues.sort_unstable();
    let vhost = VhostId(0);
    let bindings = explicit(topology, |view| {
        topology.exchange(vhost, view.source).unwrap().durable
            && match view.kind {
                DestinationKind::Queue => topology.queue(vhost, view.destination).unwrap().durable,
                DestinationKind::Exchange => topology.exchange(vhost, view.destination).unwrap().durable,
            }
    });
    (exchanges, queues, bindings)
}

/// Connections by slot; one that closed is followed by a new one.
struct Connections([ConnectionId; 3], u64);

impl Connections {
    fn new() -> Self {
        Self([ConnectionId(1), ConnectionId(2), ConnectionId(3)], 3)
    }

    fn at(&mut self, slot: usize, op: &Op) -> ConnectionId {
        let connection = self.0[slot];
        if matches!(op, Op::Close) {
            self.1 += 1;
            self.0[slot] = ConnectionId(self.1);
        }
        connection
    }
}

proptest! {
    #[test]
    fn the_catalog_agrees_with_the_model(ops in vec((0..3_usize, op()), 1..60)) {
        let (mut world, mut model, mut connections) = (World::new(2), Model::default(), Connections::new());
        for (slot, op) in ops {
            let connection = connections.at(slot, &op);
            let code = match world.ask(connection, op.ask()) {
                Outcome::Fault(fault) => Err(fault.code.code()),
                _ => Ok(()),
            };
            prop_assert_eq!(code, model.apply(connection, &op), "{:?} by {:?}", op, connection);
            model.check(&world.topology);
        }
        let durable = durable_part(&world.topology);
        prop_assert_eq!(durable_part(&world.restarted().topology), durable);
        prop_assert!(world.catalog.pending.is_empty() && world.catalog.closing.is_empty());
    }

    #[test]
    fn everything_is_answered_once_and_kept_however_late_shards_are(
        ops in vec((0..3_usize, op(), proptest::option::of((0..2_usize, any::<bool>()))), 1..60),
        crash_at in 0..60_usize,
    ) {
        let (mut world, mut connections) = (World::new(2), Connections::new());
        let mut calls = Vec::new();
        for (index, (slot, op, progress)) in ops.into_iter().enumerate() {
            let connection = connections.at(slot, &op);
            calls.push((connection, world.send(connection, op.ask())));
            if let Some((shard, sync)) = progress {
                world.run_shard(shard, sync);
            }
            if index == crash_at {
                // Whatever is on disk by now makes a topology.
                world.restarted();
            }
        }
        world.drain();
        for (connection, call) in calls {
            prop_assert!(world.answer_to(connection, call).is_some(), "{:?} {:?}", connection, call);
        }
        prop_assert!(world.answers.is_empty());
        let catalog = &world.catalog;
        prop_assert!(catalog.pending.is_empty() && catalog.unsynced.is_empty());
        prop_assert!(catalog.deleting.is_empty() && catalog.closing.is_empty());
        let durable = durable_part(&world.topology);
        prop_assert_eq!(durable_part(&world.restarted().topology), durable);
    }
}
