//! What exists and how it hangs together: vhosts, exchanges, queues, bindings, reply consumers.
//!
//! The [`crate::catalog::Catalog`] alone changes it; connections and shards read it to find and to route. It holds what
//! was declared, never what happens: no message, count or consumer is known here.

mod bindings;
mod identity;
mod policies;
mod reply_consumers;
mod schedules;

pub(crate) use bindings::{RemovedBinding, canonical};

use crate::command::{
    BindingSpec, ChannelKey, Deduplication, DestinationKind, Fault, QueueId, QueueRef, QueueSpec, Sieve, Sieves,
    Sifting, VhostId,
};
use crate::identity::{Permission, UserRecord, VhostRecord};
use crate::policy::Applied;
use crate::resource::{no_exchange, no_queue};
use crate::route::{BindingId, Destination, ExchangeId, Link, Reuse, Routable, Router, Seen, place, sieve};
pub use crate::route::{ExchangeKind, Routes};
use amqp::{Properties, Table};
use bindings::{Binding, Bindings};
use identity::Identity;
use policies::Policies;
pub(crate) use policies::PolicyChange;
use reply_consumers::ReplyConsumers;
pub use reply_consumers::{REPLY_TO, is_reply_address};
use rustc_hash::{FxHashMap, FxHashSet};
use schedules::Schedules;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Everything that was declared.
#[derive(Debug)]
pub struct Topology {
    is_new: bool,
    generation: u64,
    vhosts: FxHashMap<VhostId, Vhost>,
    vhost_names: BTreeMap<Arc<str>, VhostId>,
    identity: Identity,
    exchanges: FxHashMap<ExchangeId, Exchange>,
    exchanges_made: u64,
    queues: FxHashMap<QueueId, Arc<QueueSpec>>,
    bindings: Bindings,
    policies: Policies,
    schedules: Schedules,
    reply_consumers: ReplyConsumers,
    /// The arguments of implicit bindings.
    no_arguments: Table,
    /// The name of a vhost that is gone.
    no_name: Arc<str>,
}

#[derive(Debug)]
struct Vhost {
    record: Arc<VhostRecord>,
    exchanges: FxHashMap<Arc<str>, ExchangeId>,
    /// The one of the empty name, which most publishes are to.
    default_exchange: ExchangeId,
    /// By name. A publish wants to know no more of a queue than where it is.
    queues: FxHashMap<Arc<str>, QueueRef>,
    /// What passes is copied for the firehose. Until the server's end, as in RabbitMQ.
    is_traced: bool,
}

/// An exchange as declared.
#[derive(Debug)]
pub struct Exchange {
    /// Its vhost.
    pub vhost: VhostId,
    /// Its name; empty for the default exchange.
    pub name: Arc<str>,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Its type is `x-delayed-message`, which routes as the type that `x-delayed-type` names. Any exchange delays what has
    /// an `x-delay` header: this one is no different in all but its name.
    pub is_delaying: bool,
    /// Survives the server.
    pub durable: bool,
    /// Goes with the last binding that starts at it.
    pub auto_delete: bool,
    /// Clients cannot publish to it.
    pub internal: bool,
    /// As declared.
    pub arguments: Table,
    /// `alternate-exchange`, of its own or by a policy: gets the messages that no binding matches.
    pub alternate: Option<String>,
    /// What it takes one of only, if it deduplicates.
    pub sieve: Option<Arc<Sieve>>,
    /// The same for what comes to queues through this exchange alone.
    pub(crate) sieves: Option<Arc<Sieves>>,
    /// What names it for ever where keys are remembered; `None` = it never deduplicated.
    pub(crate) source: Option<u64>,
    /// The policies that apply to it.
    pub policies: Applied,
    pub(crate) id: ExchangeId,
    pub(crate) router: Router,
}

impl Exchange {
    /// Tells it from all others that there are or were, since the server started.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.id.0
    }
}

/// A binding, for listings.
#[derive(Clone, Copy, Debug)]
pub struct BindingView<'a> {
    /// Its vhost.
    pub vhost: VhostId,
    /// The exchange that messages come from; empty for the implicit bindings of the default exchange.
    pub source: &'a str,
    /// The queue or exchange that they go to.
    pub destination: &'a str,
    /// Which of the two.
    pub kind: DestinationKind,
    /// The binding key.
    pub key: &'a str,
    /// The arguments.
    pub arguments: &'a Table,
}

/// A message was published to an exchange that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchExchange;

/// The two ends of a binding, both of which exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) source: ExchangeId,
    pub(crate) destination: Destination,
    /// Both survive the server, and so does the binding.
    pub(crate) durable: bool,
}

impl Topology {
    /// What a new server has: the vhost `/` with its predeclared exchanges, and the user `guest`, who may do everything.
    #[must_use]
    pub fn new() -> Self {
        let (mut topology, vhost, guest) = (Self::empty(), VhostRecord::first(), UserRecord::guest());
        let permission = Permission::all(vhost.id, &guest.name);
        topology.add_vhost(vhost);
        topology.put_user(Arc::new(guest));
        topology.put_permission(Arc::new(permission));
        topology.is_new = true;
        topology
    }

    /// Whether it is that of a server that starts for the first time.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Nothing at all.
    pub(crate) fn empty() -> Self {
        Self {
            is_new: false,
            generation: 0,
            vhosts: FxHashMap::default(),
            vhost_names: BTreeMap::new(),
            identity: Identity::default(),
            exchanges: FxHashMap::default(),
            exchanges_made: 0,
            queues: FxHashMap::default(),
            bindings: Bindings::default(),
            policies: Policies::default(),
            schedules: Schedules::default(),
            reply_consumers: ReplyConsumers::default(),
            no_arguments: Table::new(),
            no_name: "".into(),
        }
    }

    /// Grows with every change that can make a message go elsewhere.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The vhost of this name.
    #[must_use]
    pub fn vhost(&self, name: &str) -> Option<VhostId> {
        self.vhost_names.get(name).copied()
    }

    /// A vhost's name; empty for one that is gone.
    #[must_use]
    pub fn vhost_name(&self, vhost: VhostId) -> &Arc<str> {
        self.vhosts.get(&vhost).map_or(&self.no_name, |vhost| &vhost.record.name)
    }

    /// All vhosts, by name.
    pub fn vhosts(&self) -> impl Iterator<Item = (VhostId, &Arc<str>)> {
        self.vhost_names.iter().map(|(name, id)| (*id, name))
    }

    /// The exchange of this name; the default exchange under the empty one.
    #[must_use]
    pub fn exchange(&self, vhost: VhostId, name: &str) -> Option<&Exchange> {
        let vhost = self.vhosts.get(&vhost)?;
        let id = if name.is_empty() { &vhost.default_exchange } else { vhost.exchanges.get(name)? };
        self.exchanges.get(id)
    }

    /// The queue of this name.
    #[must_use]
    pub fn queue(&self, vhost: VhostId, name: &str) -> Option<&Arc<QueueSpec>> {
        self.queues.get(&self.vhosts.get(&vhost)?.queues.get(name)?.id)
    }

    /// The queue of this id.
    #[must_use]
    pub fn queue_by_id(&self, id: QueueId) -> Option<&Arc<QueueSpec>> {
        self.queues.get(&id)
    }

    /// All exchanges of all vhosts, in no order.
    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.exchanges.values()
    }

    /// All queues of all vhosts, in no order.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<QueueSpec>> {
        self.queues.values()
    }

    /// All bindings of all vhosts: the default exchange's implicit ones in no order, then the others in the order in
    /// which they were made.
    pub fn bindings(&self) -> impl Iterator<Item = BindingView<'_>> {
        let implicit = self.queues.values().map(|queue| BindingView {
            vhost: queue.vhost,
            source: "",
            destination: &queue.name,
            kind: DestinationKind::Queue,
            key: &queue.name,
            arguments: &self.no_arguments,
        });
        implicit.chain(self.bindings.iter().map(|binding| self.view(binding)))
    }

    /// The channel that consumes the replies sent to this address: the full name, `amq.rabbitmq.reply-to.SECRET`.
    #[must_use]
    pub fn reply_consumer(&self, address: &str) -> Option<ChannelKey> {
        self.reply_consumers.at(address)
    }

    /// The address at which a channel consumes replies.
    #[must_use]
    pub fn reply_address(&self, channel: ChannelKey) -> Option<&str> {
        self.reply_consumers.address(channel)
    }

    /// Works out which queues a message goes to: `into.queues`. `keys` are its routing key and those in its `CC` and
    /// `BCC` headers; a queue is listed once however many keys and bindings lead to it. Whether clients may publish to
    /// the exchange is not asked.
    ///
    /// # Errors
    /// [`NoSuchExchange`].
    pub fn route(
        &self,
        vhost: VhostId,
        exchange: &str,
        keys: &[&str],
        properties: &Properties<'_>,
        into: &mut Routes,
    ) -> Result<(), NoSuchExchange> {
        self.route_seen(vhost, exchange, keys, Seen::Parsed(properties), into)
    }

    /// The same for properties that are as they came, and right.
    ///
    /// # Errors
    /// [`NoSuchExchange`].
    pub(crate) fn route_raw(
        &self,
        vhost: VhostId,
        exchange: &str,
        keys: &[&str],
        properties: &[u8],
        into: &mut Routes,
    ) -> Result<(), NoSuchExchange> {
        self.route_seen(vhost, exchange, keys, Seen::Raw(properties), into)
    }

    fn route_seen(
        &self,
        vhost: VhostId,
        exchange: &str,
        keys: &[&str],
        properties: Seen<'_>,
        into: &mut Routes,
    ) -> Result<(), NoSuchExchange> {
        into.queues.clear();
        into.sifting = None;
        into.reuse = Reuse::SameNames;
        let vhost = self.vhosts.get(&vhost).ok_or(NoSuchExchange)?;
        if exchange.is_empty() {
            vhost.emit_named(keys, into);
        } else {
            let first = *vhost.exchanges.get(exchange).ok_or(NoSuchExchange)?;
            self.walk(vhost, first, Routable::new(keys, properties), into);
        }
        if into.queues.len() > 1 {
            into.queues.sort_unstable_by_key(place);
            into.queues.dedup();
        }
        Ok(())
    }

    /// Asks the exchange, and every other that its bindings and alternates lead to, once each.
    fn walk(&self, vhost: &Vhost, first: ExchangeId, mut message: Routable<'_>, into: &mut Routes) {
        into.visited.clear();
        into.pending.clear();
        into.keepers.clear();
        into.sieved.clear();
        let mut next = Some(first);
        while let Some(id) = next {
            let exchange = &self.exchanges[&id];
            if exchange.sieve.is_some() {
                into.sieved.push(id);
            } else {
                ask(vhost, exchange, &mut message, into);
            }
            next = into.pending.pop();
            if next.is_some() || !into.sieved.is_empty() {
                into.visited.insert(id);
            }
            while next.is_some_and(|id| into.visited.contains(&id)) {
                next = into.pending.pop();
            }
        }
        if !into.sieved.is_empty() {
            self.walk_sieved(vhost, &mut message, into);
        }
    }

    /// Asks the exchanges that deduplicate, and what they lead to, for queues that no other way leads to.
    #[cold]
    fn walk_sieved(&self, vhost: &Vhost, message: &mut Routable<'_>, into: &mut Routes) {
        let open = std::mem::take(&mut into.queues);
        let mut found: Vec<(QueueRef, Arc<Sieves>)> = Vec::new();
        // Each is gone through once, by the first way that leads to it.
        let mut starts: VecDeque<(ExchangeId, Vec<Arc<Sieve>>)> =
            into.sieved.drain(..).map(|id| (id, Vec::new())).collect();
        let mut known: FxHashSet<ExchangeId> = starts.iter().map(|(id, _)| *id).collect();
        while let Some((start, mut way)) = starts.pop_front() {
            let first = &self.exchanges[&start];
            let Some(sieve) = &first.sieve else { continue };
            let sieves = match &first.sieves {
                Some(sieves) if way.is_empty() => Arc::clone(sieves),
                _ => Arc::new(Sieves::of(way.iter().chain([sieve]).cloned().collect())),
            };
            way.push(Arc::clone(sieve));
            let mut visited: FxHashSet<ExchangeId> = FxHashSet::default();
            into.pending.push(start);
            while let Some(id) = into.pending.pop() {
                let exchange = &self.exchanges[&id];
                if id != start && exchange.sieve.is_some() {
                    if known.insert(id) {
                        starts.push_back((id, way.clone()));
                    }
                } else if (id == start || !into.visited.contains(&id)) && visited.insert(id) {
                    ask(vhost, exchange, message, into);
                }
            }
            found.extend(into.queues.drain(..).map(|queue| (queue, Arc::clone(&sieves))));
        }
        let is_open: FxHashSet<QueueId> = open.iter().map(|queue| queue.id).collect();
        found.retain(|(queue, _)| !is_open.contains(&queue.id));
        into.queues = open;
        into.queues.extend(found.iter().map(|(queue, _)| *queue));
        // Two ways may lead to one that keeps what it sees.
        into.keepers.sort_unstable();
        into.keepers.dedup();
        into.reuse = Reuse::Never;
        let is_one = found.first().is_some_and(|(_, one)| found.iter().all(|(_, other)| Arc::ptr_eq(one, other)));
        into.sifting = match found.first() {
            Some((_, sieves)) if is_one && is_open.is_empty() => Some(Sifting::All(Arc::clone(sieves))),
            Some(_) => Some(Sifting::of(found.into_iter().map(|(queue, sieves)| (queue.id, sieves)).collect())),
            None => None,
        };
    }

    /// The sources of all exchanges that deduplicate.
    pub(crate) fn sources(&self) -> BTreeSet<u64> {
        self.exchanges.values().filter_map(|exchange| exchange.sieve.as_ref()).map(|sieve| sieve.source).collect()
    }

    /// Exchanges that are to deduplicate and have no source yet.
    pub(crate) fn without_source(&self) -> Vec<ExchangeId> {
        let is_meant = |exchange: &&Exchange| exchange.source.is_none() && exchange.rule().is_some();
        let mut found: Vec<_> = self.exchanges.values().filter(is_meant).map(|exchange| exchange.id).collect();
        found.sort_unstable();
        found
    }

    /// Gives one its source.
    pub(crate) fn name_source(&mut self, id: ExchangeId, source: u64) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.source = Some(source);
            exchange.sift();
            self.generation += 1;
        }
    }

    /// The vhost that something is put into, or taken out of.
    fn vhost_at(&mut self, vhost: VhostId) -> &mut Vhost {
        self.vhosts.get_mut(&vhost).expect("a vhost goes after what is in it")
    }

    fn view<'a>(&'a self, binding: &'a Binding) -> BindingView<'a> {
        let (kind, destination) = match binding.destination {
            Destination::Queue(queue) => (DestinationKind::Queue, &self.queues[&queue.id].name),
            Destination::Exchange(exchange) => (DestinationKind::Exchange, &self.exchanges[&exchange].name),
        };
        BindingView {
            vhost: binding.vhost,
            source: &self.exchanges[&binding.source].name,
            destination,
            kind,
            key: &binding.key,
            arguments: &binding.arguments,
        }
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

/// Changes, for the catalog alone.
impl Topology {
    pub(crate) fn add_vhost(&mut self, record: VhostRecord) {
        let id = record.id;
        self.vhost_names.insert(Arc::clone(&record.name), id);
        let vhost = Vhost {
            record: Arc::new(record),
            exchanges: FxHashMap::default(),
            // The first of those that follow.
            default_exchange: ExchangeId(self.exchanges_made + 1),
            queues: FxHashMap::default(),
            is_traced: false,
        };
        self.vhosts.insert(id, vhost);
        for (name, kind, internal) in PREDECLARED {
            self.add_exchange(Exchange { durable: true, internal, ..Exchange::new(id, name, kind) });
        }
    }

    pub(crate) fn add_exchange(&mut self, mut exchange: Exchange) {
        self.generation += 1;
        self.exchanges_made += 1;
        exchange.id = ExchangeId(self.exchanges_made);
        exchange.router.belong_to(exchange.id);
        if !exchange.name.is_empty() {
            self.apply_policies(&mut exchange);
        }
        let names = &mut self.vhost_at(exchange.vhost).exchanges;
        let before = names.insert(Arc::clone(&exchange.name), exchange.id);
        assert!(before.is_none(), "an exchange is declared once");
        self.exchanges.insert(exchange.id, exchange);
    }

    /// The exchange of that [`Exchange::number`], unless it is gone.
    #[must_use]
    pub fn exchange_of_number(&self, number: u64) -> Option<&Exchange> {
        self.exchange_by_id(ExchangeId(number))
    }

    pub(crate) fn exchange_by_id(&self, id: ExchangeId) -> Option<&Exchange> {
        self.exchanges.get(&id)
    }

    /// Removes an exchange that no binding starts at or leads to any more.
    pub(crate) fn remove_exchange(&mut self, id: ExchangeId) -> Option<Exchange> {
        assert!(!self.bindings.start_at(id) && !self.bindings.lead_to(Destination::Exchange(id)), "bindings go first");
        let exchange = self.exchanges.remove(&id)?;
        self.generation += 1;
        self.vhost_at(exchange.vhost).exchanges.remove(&exchange.name);
        Some(exchange)
    }

    pub(crate) fn add_queue(&mut self, queue: Arc<QueueSpec>) {
        self.generation += 1;
        let names = &mut self.vhost_at(queue.vhost).queues;
        let before = names.insert(Arc::clone(&queue.name), queue.queue);
        assert!(before.is_none(), "a queue is declared once");
        self.queues.insert(queue.queue.id, queue);
    }

    /// Removes a queue that no binding leads to any more.
    pub(crate) fn remove_queue(&mut self, queue: &QueueSpec) {
        assert!(!self.bindings.lead_to(Destination::Queue(queue.queue)), "bindings go first");
        self.generation += 1;
        self.vhost_at(queue.vhost).queues.remove(&queue.name);
        self.queues.remove(&queue.queue.id);
    }

    /// Finds both ends of a binding.
    ///
    /// # Errors
    /// 404 for the first that is missing.
    pub(crate) fn ends(&self, vhost: VhostId, spec: &BindingSpec) -> Result<Ends, Fault> {
        let vhost_name = self.vhost_name(vhost);
        let source = self.exchange(vhost, &spec.source).ok_or_else(|| no_exchange(&spec.source, vhost_name))?;
        let (destination, durable) = match spec.kind {
            DestinationKind::Queue => {
                let queue = self.queue(vhost, &spec.destination);
                let queue = queue.ok_or_else(|| no_queue(&spec.destination, vhost_name))?;
                (Destination::Queue(queue.queue), queue.durable)
            }
            DestinationKind::Exchange => {
                let exchange = self.exchange(vhost, &spec.destination);
                let exchange = exchange.ok_or_else(|| no_exchange(&spec.destination, vhost_name))?;
                (Destination::Exchange(exchange.id), exchange.durable)
            }
        };
        Ok(Ends { source: source.id, destination, durable: durable && source.durable })
    }

    /// Makes the binding unless it is there; says whether it is new.
    ///
    /// # Errors
    /// 406 for arguments that the source's type cannot make sense of.
    pub(crate) fn bind(&mut self, vhost: VhostId, ends: Ends, spec: &BindingSpec) -> Result<bool, Fault> {
        let binding = Binding {
            vhost,
            source: ends.source,
            destination: ends.destination,
            key: spec.key.as_str().into(),
            arguments: spec.arguments.clone(),
        };
        let Some(id) = self.bindings.vacancy(&binding) else { return Ok(false) };
        let source = self.exchanges.get_mut(&ends.source).expect("the ends exist");
        source.router.add(binding.link(id, &spec.destination))?;
        self.bindings.insert(id, binding);
        self.generation += 1;
        Ok(true)
    }

    /// The binding's id, if it is there.
    pub(crate) fn binding(&self, ends: Ends, spec: &BindingSpec) -> Option<BindingId> {
        self.bindings.find(ends.source, ends.destination, &spec.key, &spec.arguments)
    }

    /// All bindings that start at the exchange.
    pub(crate) fn bindings_from(&self, source: ExchangeId) -> Vec<BindingId> {
        self.bindings.from(source)
    }

    /// All bindings that lead there.
    pub(crate) fn bindings_to(&self, destination: Destination) -> Vec<BindingId> {
        self.bindings.to(destination)
    }

    /// Whether bindings start at the exchange.
    pub(crate) fn is_source(&self, exchange: ExchangeId) -> bool {
        self.bindings.start_at(exchange)
    }

    /// Removes a binding while both its ends are still there.
    pub(crate) fn remove_binding(&mut self, id: BindingId) -> Option<RemovedBinding> {
        let binding = self.bindings.remove(id)?;
        self.generation += 1;
        let view = self.view(&binding);
        let spec = BindingSpec {
            source: view.source.to_owned(),
            destination: view.destination.to_owned(),
            kind: view.kind,
            key: view.key.to_owned(),
            arguments: view.arguments.clone(),
        };
        let source = self.exchanges.get_mut(&binding.source).expect("an exchange outlives its bindings");
        source.router.remove(binding.link(id, &spec.destination));
        let durable = self.exchanges[&binding.source].durable
            && match binding.destination {
                Destination::Queue(queue) => self.queues[&queue.id].durable,
                Destination::Exchange(exchange) => self.exchanges[&exchange].durable,
            };
        Some(RemovedBinding { vhost: binding.vhost, source: binding.source, spec, durable })
    }

    pub(crate) const fn reply_consumers_mut(&mut self) -> &mut ReplyConsumers {
        &mut self.reply_consumers
    }
}

impl Vhost {
    /// The default exchange: the routing key is the queue's name.
    fn emit_named(&self, keys: &[&str], into: &mut Routes) {
        into.queues.extend(keys.iter().filter_map(|key| self.queues.get(*key).copied()));
    }
}

impl Exchange {
    /// A transient exchange without arguments, not yet in a topology.
    pub(crate) fn new(vhost: VhostId, name: &str, kind: ExchangeKind) -> Self {
        Self {
            vhost,
            name: name.into(),
            kind,
            is_delaying: false,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: Table::new(),
            alternate: None,
            sieve: None,
            sieves: None,
            source: None,
            policies: Applied::default(),
            id: ExchangeId(0),
            router: Router::new(kind),
        }
    }

    /// The name of its type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        if self.is_delaying { DELAYED_MESSAGE } else { self.kind.name() }
    }

    /// The same with these arguments.
    pub(crate) fn with_arguments(mut self, arguments: Table) -> Self {
        self.router.configure(&arguments);
        self.arguments = arguments;
        self.alternate = self.own_alternate().map(str::to_owned);
        self
    }

    /// The same, remembering keys under this name if it is to deduplicate.
    pub(crate) fn with_source(mut self, source: u64) -> Self {
        self.source = Some(source);
        self.sift();
        self
    }

    /// Deduplicates from now on, or does not, as its type, its arguments and its policies say. That needs a source.
    pub(crate) fn sift(&mut self) {
        let sieve = self.rule().zip(self.source).map(|(rule, source)| Arc::new(Sieve { source, rule }));
        if self.sieve != sieve {
            self.sieves = sieve.as_ref().map(|sieve| Arc::new(Sieves::of(vec![Arc::clone(sieve)])));
            self.sieve = sieve;
        }
    }

    /// What it takes for duplicates. The exchanges that every vhost has are declared by nobody, and so in no log that could
    /// have their source.
    pub(crate) fn rule(&self) -> Option<Deduplication> {
        if self.name.is_empty() || self.name.starts_with(RESERVED) {
            return None;
        }
        sieve::rule(self.kind, &self.arguments, &self.policies)
    }

    fn own_alternate(&self) -> Option<&str> {
        self.arguments.get(ALTERNATE).and_then(|value| value.as_str())
    }
}

impl Binding {
    fn link<'a>(&'a self, id: BindingId, name: &'a str) -> Link<'a> {
        Link { id, key: &self.key, arguments: &self.arguments, destination: self.destination, name }
    }
}

/// Asks one exchange; if it knows nobody, its alternate is to be asked.
fn ask(vhost: &Vhost, exchange: &Exchange, message: &mut Routable<'_>, into: &mut Routes) {
    let found = into.found();
    if exchange.name.is_empty() {
        vhost.emit_named(message.keys, into);
    } else {
        exchange.router.route(message, into);
    }
    if into.found() == found {
        let alternate = exchange.alternate.as_deref().and_then(|name| vhost.exchanges.get(name));
        into.pending.extend(alternate);
    }
}

/// The exchange type of the delayed message exchange plugin, …
pub const DELAYED_MESSAGE: &str = "x-delayed-message";
/// … and the argument that says how it routes.
pub(crate) const DELAYED_TYPE: &str = "x-delayed-type";
/// What the names of exchanges begin with that nobody declares.
const RESERVED: &str = "amq.";
/// The argument that names an exchange's alternate.
pub(crate) const ALTERNATE: &str = "alternate-exchange";

/// What every vhost has: name, type, internal.
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
    ("amq.topic", ExchangeKind::Topic, false),
];

#[cfg(test)]
mod tests;
