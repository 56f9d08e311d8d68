//! Which destinations an exchange's own bindings give a message: one [`Router`] per exchange, one file per type.
//!
//! A router knows keys, criteria and destinations and nothing of names, permissions or what lies behind a destination.
//! Walking from exchange to exchange is [`crate::topology::Topology::route`].

pub(crate) mod direct;
pub(crate) mod fanout;
pub(crate) mod hash;
pub(crate) mod headers;
pub(crate) mod random;
pub(crate) mod recent;
pub(crate) mod sieve;
pub(crate) mod topic;

use crate::command::{Fault, QueueIds, QueueRef, ShardId};
use crate::settings::DEDUPLICATION;
use crate::topology::Topology;
use amqp::{Properties, Table};
use rustc_hash::FxHashSet;

/// What an exchange does with routing keys and headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExchangeKind {
    /// The binding key is the routing key.
    Direct,
    /// Every binding matches.
    Fanout,
    /// The binding key is a pattern of words.
    Topic,
    /// The binding's arguments are criteria for the message's headers.
    Headers,
    /// A hash of the routing key, a header or a property chooses one binding; the binding key is its weight.
    ConsistentHash,
    /// A hash of the routing key, modulo their number, chooses one binding.
    ModulusHash,
    /// Chance chooses one binding.
    Random,
    /// Chance chooses one binding to a queue; keys are not permitted.
    LocalRandom,
    /// Every binding matches, and to each new one the last messages go.
    RecentHistory,
    /// Every binding matches what is no duplicate.
    Deduplication,
}

impl ExchangeKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Direct,
        Self::Fanout,
        Self::Topic,
        Self::Headers,
        Self::ConsistentHash,
        Self::ModulusHash,
        Self::Random,
        Self::LocalRandom,
        Self::RecentHistory,
        Self::Deduplication,
    ];

    /// The type's name in exchange.declare.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::ConsistentHash => "x-consistent-hash",
            Self::ModulusHash => "x-modulus-hash",
            Self::Random => "x-random",
            Self::LocalRandom => "x-local-random",
            Self::RecentHistory => "x-recent-history",
            Self::Deduplication => DEDUPLICATION,
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// An exchange within its topology. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExchangeId(pub(crate) u64);

impl ExchangeId {
    /// Which of so many shards has the recent messages of this exchange, if it is one that keeps some.
    pub(crate) fn keeper(self, shards: usize) -> ShardId {
        ShardId(u16::try_from(self.0 % shards as u64).expect("there are at most so many shards"))
    }
}

/// A binding within its topology, in the order in which they were made. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BindingId(pub(crate) u64);

/// Where a binding leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Destination {
    Queue(QueueRef),
    Exchange(ExchangeId),
}

/// A binding as its exchange's router sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    pub(crate) id: BindingId,
    pub(crate) key: &'a str,
    pub(crate) arguments: &'a Table,
    pub(crate) destination: Destination,
    /// The destination's name.
    pub(crate) name: &'a str,
}

/// A message as routers see it. The headers are decoded when the first of them asks.
pub(crate) struct Routable<'a> {
    /// Its routing key and those in its `CC` and `BCC` headers.
    pub(crate) keys: &'a [&'a str],
    properties: Seen<'a>,
    headers: Option<Table>,
}

/// Properties, of which most exchanges want to know nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen<'a> {
    /// Taken apart already.
    Parsed(&'a Properties<'a>),
    /// As they are on the wire. They were found to be right before.
    Raw(&'a [u8]),
}

impl<'a> Routable<'a> {
    pub(crate) const fn new(keys: &'a [&'a str], properties: Seen<'a>) -> Self {
        Self { keys, properties, headers: None }
    }

    fn headers(&mut self) -> &Table {
        let properties = self.properties;
        self.headers.get_or_insert_with(|| properties.parsed().and_then(|found| found.headers()).unwrap_or_default())
    }
}

impl<'a> Seen<'a> {
    /// What they are.
    pub(crate) fn parsed(self) -> Option<Properties<'a>> {
        match self {
            Self::Parsed(properties) => Some(*properties),
            Self::Raw(raw) => Properties::parse(raw).ok(),
        }
    }
}

/// The queues a message goes to, and room to work them out: reused from message to message, so that routing allocates
/// nothing once its buffers have grown.
#[derive(Debug, Default)]
pub struct Routes {
    /// Sorted by shard, then id; each once.
    pub queues: Vec<QueueRef>,
    /// Which other messages go the same way, while the topology does not change.
    pub(crate) reuse: Reuse,
    /// Exchanges still to be asked.
    pub(crate) pending: Vec<ExchangeId>,
    /// Exchanges that keep this message for those who bind later; of a route by way of a named exchange.
    pub(crate) keepers: Vec<ExchangeId>,
    /// Exchanges that were asked.
    pub(crate) visited: FxHashSet<ExchangeId>,
    walk: topic::Walk,
    /// What chance has come to.
    chance: u64,
}

/// Which other messages a route holds for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Those of the same exchange, keys and headers.
    #[default]
    SameNames,
    /// Those whose other properties are the same, too.
    SameProperties,
    /// None.
    Never,
}

impl Routes {
    /// With chances of its own: two of the same seed make the same choices in random exchanges.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { chance: seed, ..Self::default() }
    }

    /// A number below `end`, which is not 0 (the `SplitMix64` generator).
    pub(crate) fn draw(&mut self, end: usize) -> usize {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // Far fewer ends than 2^64: what the remainder favours some by cannot be seen.
        usize::try_from(hash::mix(self.chance) % end as u64).expect("less than a usize")
    }

    /// The exchanges that keep the message which was routed last for those who bind later: each one's shard, of so many,
    /// its number and its length, as [`crate::command::Recent`] has them.
    #[must_use]
    pub fn keepers(&self, topology: &Topology, shards: u16) -> Vec<(ShardId, u64, u32)> {
        let keeper = |id: &ExchangeId| {
            let exchange = topology.exchange_by_id(*id)?;
            Some((id.keeper(shards.into()), id.0, recent::length(&exchange.arguments).ok()?))
        };
        self.keepers.iter().filter_map(keeper).collect()
    }

    /// The queues that were found, by shard.
    pub(crate) fn by_shard(&self) -> impl Iterator<Item = (ShardId, QueueIds)> {
        let by_shard = self.queues.chunk_by(|one, other| one.shard == other.shard);
        by_shard.map(|queues| (queues[0].shard, queues.iter().map(|queue| queue.id).collect()))
    }

    /// How much was found so far, duplicates included.
    pub(crate) fn found(&self) -> usize {
        self.queues.len() + self.pending.len()
    }
}

/// Destinations of the same key, sorted; one stands here as often as bindings that differ in their arguments lead to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Destinations {
    queues: Vec<QueueRef>,
    exchanges: Vec<ExchangeId>,
}

impl Destinations {
    pub(crate) fn add(&mut self, destination: Destination) {
        match destination {
            Destination::Queue(queue) => insert_sorted(&mut self.queues, queue, place),
            Destination::Exchange(exchange) => insert_sorted(&mut self.exchanges, exchange, |id| *id),
        }
    }

    pub(crate) fn remove(&mut self, destination: Destination) {
        match destination {
            Destination::Queue(queue) => remove_sorted(&mut self.queues, queue, place),
            Destination::Exchange(exchange) => remove_sorted(&mut self.exchanges, exchange, |id| *id),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.exchanges.is_empty()
    }

    pub(crate) fn emit(&self, into: &mut Routes) {
        into.queues.extend_from_slice(&self.queues);
        into.pending.extend_from_slice(&self.exchanges);
    }
}

/// What queues in [`Routes`] are sorted by.
pub(crate) fn place(queue: &QueueRef) -> (crate::command::ShardId, crate::command::QueueId) {
    (queue.shard, queue.id)
}

fn insert_sorted<T, K: Ord>(sorted: &mut Vec<T>, item: T, key: impl Fn(&T) -> K) {
    let at = sorted.partition_point(|other| key(other) < key(&item));
    sorted.insert(at, item);
}

fn remove_sorted<T: PartialEq, K: Ord>(sorted: &mut Vec<T>, item: T, key: impl Fn(&T) -> K) {
    let at = sorted.partition_point(|other| key(other) < key(&item));
    assert!(sorted.get(at) == Some(&item), "only what was added is removed");
    sorted.remove(at);
}

/// The bindings of one exchange, arranged for its type.
#[derive(Debug)]
pub(crate) enum Router {
    Direct(direct::Direct),
    Fanout(fanout::Fanout),
    Topic(topic::Topic),
    Headers(headers::Headers),
    ConsistentHash(hash::Consistent),
    ModulusHash(hash::Modulus),
    Random(random::Random),
    LocalRandom(random::Random),
    RecentHistory(recent::RecentHistory),
    /// That of an exchange that deduplicates: what comes through it is looked at each time.
    Sifted(Box<Router>),
}

impl Router {
    pub(crate) fn new(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(direct::Direct::default()),
            ExchangeKind::Fanout => Self::Fanout(fanout::Fanout::default()),
            ExchangeKind::Topic => Self::Topic(topic::Topic::default()),
            ExchangeKind::Headers => Self::Headers(headers::Headers::default()),
            ExchangeKind::ConsistentHash => Self::ConsistentHash(hash::Consistent::default()),
            ExchangeKind::ModulusHash => Self::ModulusHash(hash::Modulus::default()),
            ExchangeKind::Random => Self::Random(random::Random::default()),
            ExchangeKind::LocalRandom => Self::LocalRandom(random::Random::default()),
            ExchangeKind::RecentHistory => Self::RecentHistory(recent::RecentHistory::default()),
            ExchangeKind::Deduplication => Self::Fanout(fanout::Fanout::default()),
        }
    }

    /// Takes the exchange's own arguments in, which were checked.
    pub(crate) fn configure(&mut self, arguments: &Table) {
        if let Self::ConsistentHash(hash) = self {
            hash.configure(arguments);
        }
    }

    /// Learns whose router it is.
    pub(crate) fn belong_to(&mut self, exchange: ExchangeId) {
        match self {
            Self::RecentHistory(recent) => recent.exchange = exchange,
            Self::Sifted(router) => router.belong_to(exchange),
            _ => {}
        }
    }

    /// Takes a new binding in.
    ///
    /// # Errors
    /// 406 for arguments that this type of exchange cannot make sense of.
    pub(crate) fn add(&mut self, link: Link<'_>) -> Result<(), Fault> {
        match self {
            Self::Direct(direct) => direct.add(link.key, link.destination),
            Self::Fanout(fanout) => fanout.add(link.destination),
            Self::Topic(topic) => topic.add(link.key, link.destination),
            Self::Headers(headers) => headers.add(link.id, link.arguments, link.destination)?,
            Self::ConsistentHash(hash) => hash.add(&link)?,
            Self::ModulusHash(hash) => hash.add(&link),
            Self::Random(random) => random.add(link.destination),
            Self::LocalRandom(random) => {
                random::check_local(&link)?;
                random.add(link.destination);
            }
            Self::RecentHistory(recent) => recent.fanout.add(link.destination),
            Self::Sifted(router) => router.add(link)?,
        }
        Ok(())
    }

    /// Drops a binding that was taken in.
    pub(crate) fn remove(&mut self, link: Link<'_>) {
        match self {
            Self::Direct(direct) => direct.remove(link.key, link.destination),
            Self::Fanout(fanout) => fanout.remove(link.destination),
            Self::Topic(topic) => topic.remove(link.key, link.destination),
            Self::Headers(headers) => headers.remove(link.id),
            Self::ConsistentHash(hash) => hash.remove(&link),
            Self::ModulusHash(hash) => hash.remove(&link),
            Self::Random(random) | Self::LocalRandom(random) => random.remove(link.destination),
            Self::RecentHistory(recent) => recent.fanout.remove(link.destination),
            Self::Sifted(router) => router.remove(link),
        }
    }

    /// Adds the destinations of a message, with duplicates.
    pub(crate) fn route(&self, message: &mut Routable<'_>, into: &mut Routes) {
        match self {
            Self::Direct(direct) => message.keys.iter().for_each(|key| direct.route(key, into)),
            Self::Fanout(fanout) => fanout.route(into),
            Self::Topic(topic) => message.keys.iter().for_each(|key| topic.route(key, into)),
            Self::Headers(headers) => headers.route(message.headers(), into),
            Self::ConsistentHash(hash) => hash.route(message, into),
            Self::ModulusHash(hash) => hash.route(message, into),
            Self::Random(random) | Self::LocalRandom(random) => random.route(into),
            Self::RecentHistory(recent) => recent.route(message, into),
            Self::Sifted(router) => {
                into.reuse = Reuse::Never;
                router.route(message, into);
            }
        }
    }
}
