//! Durable facts about the topology, as they lie in the log.
//!
//! ```text
//! q/ID                              a queue, in its shard's log; ID in decimal
//! x/LENGTH/VHOST/NAME               an exchange, in shard 0's log; LENGTH of VHOST in bytes, so that no two collide
//! p/LENGTH/VHOST/NAME               a policy, in shard 0's log; o/… an operator policy
//! s/LENGTH/VHOST/NAME               a schedule, in shard 0's log
//! f/ID                              the last firing of a schedule, in the log of each shard that got it
//! a/…                               vhosts, users and what they may do: `fact/identity.rs`
//! e/ID/SEQ                          why the last delivery of a message failed, in its queue's shard's log; decimal
//! h                                 what keys of messages are hashed with, in each log that has such
//! b/ + a table like its value       a binding, in shard 0's log; its arguments in canonical order, without the queue's id
//! ```
//!
//! Values are AMQP field tables with their length, first entry `v`; that of a queue says `paused` while it is, and how
//! far its last `redrive` is. Entries that this version does not know are ignored;
//! a greater `v` says that ignoring them would be wrong. Arguments lie within as octets of their own (`x`), because a
//! table within the table could nest deeper than tables may. A binding to a queue names the queue's id too: a later
//! queue of the same name has nothing to do with it.

mod failures;
mod identity;
mod schedules;

pub(crate) use failures::{failure_fact, failure_key, failure_place, read_failure};
pub(crate) use identity::*;
pub use schedules::firing_key;
pub(crate) use schedules::{schedule_fact, schedule_key};

use crate::command::{BindingSpec, DestinationKind, QueueId, QueueRef, QueueSettings, QueueSpec, ShardId, VhostId};
use crate::policy::{Applied, AppliesTo, Pattern, Policy, PolicyKind};
use crate::redrive::Redrive;
use crate::resource::queue_title;
use crate::route::ExchangeKind;
use crate::schedule::Schedule;
use crate::topology::{DELAYED_MESSAGE, DELAYED_TYPE, Exchange, canonical};
use amqp::{Table, Value};
use bytes::{Bytes, BytesMut};
use std::fmt;

/// A fact whose bytes are whole but make no sense to this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptFact {
    /// Its key, as far as it is text.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for CorruptFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stored fact '{}' cannot be used: {}", self.key.escape_debug(), self.why)
    }
}

impl std::error::Error for CorruptFact {}

/// The key of a queue's fact.
#[must_use]
pub fn queue_key(id: QueueId) -> Bytes {
    format!("{QUEUE}{}", id.0).into()
}

impl QueueSpec {
    /// The queue as a durable fact: key and value.
    #[must_use]
    pub fn fact(&self) -> (Bytes, Bytes) {
        self.fact_with(false, None)
    }

    /// The same, saying whether it is paused, and what became of its last redrive.
    pub(crate) fn fact_with(&self, is_paused: bool, redrive: Option<&Redrive>) -> (Bytes, Bytes) {
        let mut fact = new_fact();
        if is_paused {
            fact.insert(PAUSED, true);
        }
        if let Some(redrive) = redrive {
            fact.insert(REDRIVE, Value::Bytes(redrive.encoded()));
        }
        put_vhost(&mut fact, self.vhost, &self.vhost_name);
        fact.insert("name", &*self.name);
        fact.insert("auto_delete", self.auto_delete);
        fact.insert("arguments", Value::Bytes(encoded(&self.arguments).to_vec()));
        (queue_key(self.queue.id), encoded(&fact))
    }

    /// Reads a queue's fact from the log of its shard; `None` if it is another kind of fact.
    ///
    /// # Errors
    /// [`CorruptFact`].
    pub fn from_fact(shard: ShardId, key: &[u8], value: &[u8]) -> Result<Option<Self>, CorruptFact> {
        let Some(id) = key.strip_prefix(QUEUE.as_bytes()) else { return Ok(None) };
        let fact = Fact::read(key, value)?;
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
        let id = QueueId(id.ok_or_else(|| fact.corrupt("its key holds no queue id"))?);
        let (vhost, vhost_name) = fact.vhost()?;
        let name = fact.text("name")?;
        let arguments = fact.arguments()?;
        let settings = QueueSettings::parse(&arguments, &queue_title(name, vhost_name));
        let settings = settings.map_err(|fault| fact.corrupt(&fault.text))?;
        Ok(Some(Self {
            queue: QueueRef { id, shard },
            vhost,
            vhost_name: vhost_name.into(),
            name: name.into(),
            durable: true,
            auto_delete: fact.flag("auto_delete")?,
            owner: None,
            arguments,
            settings,
            policies: Applied::default(),
        }))
    }
}

/// Whether a queue's fact, read before by [`QueueSpec::from_fact`], says that it is paused.
pub(crate) fn is_paused(value: &[u8]) -> bool {
    let fact = Table::decode(value).ok();
    fact.and_then(|(fact, _)| fact.get(PAUSED).and_then(Value::as_bool)).unwrap_or(false)
}

/// What a queue's fact says of its last redrive. One that this version cannot read is none.
pub(crate) fn redrive_of(value: &[u8]) -> Option<Redrive> {
    match Table::decode(value).ok()?.0.get(REDRIVE)? {
        Value::Bytes(octets) => Redrive::read(octets),
        _ => None,
    }
}

/// What the keys of messages are hashed with in a log, as a durable fact of that log.
pub(crate) fn hash_secret_fact(secret: [u64; 2]) -> (Bytes, Bytes) {
    let octets: Vec<u8> = secret.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut fact = new_fact();
    fact.insert("secret", Value::Bytes(octets));
    (Bytes::from_static(HASH_SECRET.as_bytes()), encoded(&fact))
}

/// Reads it; `None` if it is another kind of fact.
pub(crate) fn hash_secret(key: &[u8], value: &[u8]) -> Result<Option<[u64; 2]>, CorruptFact> {
    if key != HASH_SECRET.as_bytes() {
        return Ok(None);
    }
    let fact = Fact::read(key, value)?;
    let Some(Value::Bytes(octets)) = fact.table.get("secret") else { return Err(fact.lacks("secret")) };
    let words: Vec<_> = octets.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    words.try_into().map(Some).map_err(|_| fact.lacks("secret"))
}

/// The key of an exchange's fact.
pub(crate) fn exchange_key(vhost: &str, name: &str) -> Bytes {
    format!("{EXCHANGE}{}/{vhost}/{name}", vhost.len()).into()
}

/// An exchange as a durable fact: key and value.
pub(crate) fn exchange_fact(vhost: &str, exchange: &Exchange) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    put_vhost(&mut fact, exchange.vhost, vhost);
    fact.insert("name", &*exchange.name);
    fact.insert("type", exchange.type_name());
    fact.insert("auto_delete", exchange.auto_delete);
    fact.insert("internal", exchange.internal);
    if let Some(source) = exchange.source {
        fact.insert("source", source.cast_signed());
    }
    fact.insert("arguments", Value::Bytes(encoded(&exchange.arguments).to_vec()));
    (exchange_key(vhost, &exchange.name), encoded(&fact))
}

/// The key of a binding's fact.
pub(crate) fn binding_key(vhost: &str, binding: &BindingSpec) -> Bytes {
    let mut key = BytesMut::from(BINDING);
    binding_table(vhost, binding, canonical(&binding.arguments)).encode(&mut key);
    key.freeze()
}

/// A binding as a durable fact: key and value. `queue` is the id of the queue that it leads to, if it does.
pub(crate) fn binding_fact(id: VhostId, vhost: &str, binding: &BindingSpec, queue: Option<QueueId>) -> (Bytes, Bytes) {
    let mut fact = binding_table(vhost, binding, encoded(&binding.arguments).to_vec());
    put_vhost(&mut fact, id, vhost);
    if let Some(queue) = queue {
        fact.insert("queue", queue.0.cast_signed());
    }
    (binding_key(vhost, binding), encoded(&fact))
}

/// The key of a policy's fact.
pub(crate) fn policy_key(vhost: &str, kind: PolicyKind, name: &str) -> Bytes {
    let prefix = match kind {
        PolicyKind::User => POLICY,
        PolicyKind::Operator => OPERATOR_POLICY,
    };
    format!("{prefix}{}/{vhost}/{name}", vhost.len()).into()
}

/// A policy as a durable fact: key and value.
pub(crate) fn policy_fact(vhost: &str, policy: &Policy) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    put_vhost(&mut fact, policy.vhost, vhost);
    fact.insert("name", &*policy.name);
    fact.insert("pattern", policy.pattern.source());
    fact.insert("applies_to", policy.applies_to.name());
    fact.insert("priority", policy.priority);
    fact.insert("definition", Value::Bytes(encoded(&policy.definition).to_vec()));
    (policy_key(vhost, policy.kind, &policy.name), encoded(&fact))
}

/// A fact that belongs to the catalog.
pub(crate) enum CatalogFact {
    Exchange(Exchange),
    Policy(Policy),
    Schedule(Schedule),
    Binding { vhost: VhostId, spec: BindingSpec, queue: Option<QueueId> },
}

impl CatalogFact {
    /// The vhost that it is about.
    pub(crate) fn vhost(&self) -> VhostId {
        match self {
            Self::Exchange(exchange) => exchange.vhost,
            Self::Policy(policy) => policy.vhost,
            Self::Schedule(schedule) => schedule.vhost,
            Self::Binding { vhost, .. } => *vhost,
        }
    }

    /// Reads any fact but a queue's.
    pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<Self, CorruptFact> {
        let fact = Fact::read(key, value)?;
        if key.starts_with(EXCHANGE.as_bytes()) {
            let (name, arguments) = (fact.text("type")?, fact.arguments()?);
            let is_delaying = name == DELAYED_MESSAGE;
            let routes_as = if is_delaying { arguments.get(DELAYED_TYPE).and_then(Value::as_str) } else { Some(name) };
            let kind = routes_as.and_then(ExchangeKind::named);
            let kind = kind.ok_or_else(|| fact.corrupt("its exchange type is unknown"))?;
            let exchange = Exchange::new(fact.vhost()?.0, fact.text("name")?, kind).with_arguments(arguments);
            let exchange = match fact.table.get("source").and_then(Value::as_i64) {
                Some(source) => exchange.with_source(source.cast_unsigned()),
                None => exchange,
            };
            let exchange = Exchange { is_delaying, ..exchange };
            let (auto_delete, internal) = (fact.flag("auto_delete")?, fact.flag("internal")?);
            Ok(Self::Exchange(Exchange { durable: true, auto_delete, internal, ..exchange }))
        } else if key.starts_with(POLICY.as_bytes()) || key.starts_with(OPERATOR_POLICY.as_bytes()) {
            let kind = if key.starts_with(POLICY.as_bytes()) { PolicyKind::User } else { PolicyKind::Operator };
            let pattern = Pattern::new(fact.text("pattern")?).map_err(|fault| fact.corrupt(&fault.text))?;
            let applies_to = AppliesTo::named(fact.text("applies_to")?).map_err(|fault| fact.corrupt(&fault.text))?;
            let priority = fact.table.get("priority").and_then(Value::as_i64).ok_or_else(|| fact.lacks("priority"))?;
            Ok(Self::Policy(Policy {
                kind,
                vhost: fact.vhost()?.0,
                name: fact.text("name")?.into(),
                pattern,
                applies_to,
                priority,
                definition: fact.table_in("definition")?,
            }))
        } else if schedules::is_schedule(key) {
            Ok(Self::Schedule(schedules::read_schedule(&fact)?))
        } else if key.starts_with(BINDING.as_bytes()) {
            let spec = BindingSpec {
                source: fact.text("source")?.to_owned(),
                destination: fact.text("destination")?.to_owned(),
                kind: match fact.text("kind")? {
                    TO_QUEUE => DestinationKind::Queue,
                    TO_EXCHANGE => DestinationKind::Exchange,
                    _ => return Err(fact.corrupt("it leads neither to a queue nor to an exchange")),
                },
                key: fact.text("key")?.to_owned(),
                arguments: fact.arguments()?,
            };
            let queue = fact.table.get("queue").and_then(Value::as_i64);
            Ok(Self::Binding { vhost: fact.vhost()?.0, spec, queue: queue.map(|id| QueueId(id.cast_unsigned())) })
        } else {
            Err(fact.corrupt("this version does not know facts of this kind; start the version that wrote it"))
        }
    }
}

/// A decoded fact and how to name it.
struct Fact<'a> {
    key: &'a [u8],
    table: Table,
}

impl<'a> Fact<'a> {
    fn read(key: &'a [u8], value: &[u8]) -> Result<Self, CorruptFact> {
        let corrupt = |why: &str| Self { key, table: Table::new() }.corrupt(why);
        let table = match Table::decode(value) {
            Ok((table, length)) if length == value.len() => table,
            _ => return Err(corrupt("its value is not one field table")),
        };
        match table.get(VERSION).and_then(Value::as_i64) {
            Some(CURRENT_VERSION) => Ok(Self { key, table }),
            Some(version) if version > CURRENT_VERSION => {
                Err(corrupt("a newer version of Leveret wrote it; start that version"))
            }
            _ => Err(corrupt("its version is missing")),
        }
    }

    fn text(&self, name: &str) -> Result<&str, CorruptFact> {
        self.table.get(name).and_then(Value::as_str).ok_or_else(|| self.lacks(name))
    }

    fn flag(&self, name: &str) -> Result<bool, CorruptFact> {
        self.table.get(name).and_then(Value::as_bool).ok_or_else(|| self.lacks(name))
    }

    fn arguments(&self) -> Result<Table, CorruptFact> {
        self.table_in("arguments")
    }

    fn table_in(&self, name: &str) -> Result<Table, CorruptFact> {
        match self.table.get(name) {
            Some(Value::Bytes(octets)) => {
                let why = || self.corrupt(&format!("its {name} are not a field table"));
                Ok(Table::decode(octets).map_err(|_| why())?.0)
            }
            _ => Err(self.lacks(name)),
        }
    }

    /// The vhost, which may be gone; `/` had no number at first.
    fn vhost(&self) -> Result<(VhostId, &str), CorruptFact> {
        let id = self.table.get(VHOST_ID).and_then(Value::as_i64).map_or(0, i64::cast_unsigned);
        Ok((VhostId(id), self.text("vhost")?))
    }

    fn lacks(&self, name: &str) -> CorruptFact {
        self.corrupt(&format!("its entry '{name}' is missing or of another type"))
    }

    fn corrupt(&self, why: &str) -> CorruptFact {
        CorruptFact { key: String::from_utf8_lossy(self.key).into_owned(), why: why.to_owned() }
    }
}

fn put_vhost(fact: &mut Table, id: VhostId, name: &str) {
    fact.insert("vhost", name);
    if id != VhostId(0) {
        fact.insert(VHOST_ID, id.0.cast_signed());
    }
}

fn binding_table(vhost: &str, binding: &BindingSpec, arguments: Vec<u8>) -> Table {
    let mut fact = new_fact();
    fact.insert("vhost", vhost);
    fact.insert("source", binding.source.as_str());
    fact.insert("destination", binding.destination.as_str());
    fact.insert(
        "kind",
        match binding.kind {
            DestinationKind::Queue => TO_QUEUE,
            DestinationKind::Exchange => TO_EXCHANGE,
        },
    );
    fact.insert("key", binding.key.as_str());
    fact.insert("arguments", Value::Bytes(arguments));
    fact
}

fn new_fact() -> Table {
    [(VERSION, CURRENT_VERSION)].into_iter().collect()
}

fn encoded(table: &Table) -> Bytes {
    let mut bytes = BytesMut::new();
    table.encode(&mut bytes);
    bytes.freeze()
}

const VHOST_ID: &str = "vhost_id";
const QUEUE: &str = "q/";
const EXCHANGE: &str = "x/";
const BINDING: &str = "b/";
const POLICY: &str = "p/";
const HASH_SECRET: &str = "h";
const OPERATOR_POLICY: &str = "o/";
const TO_QUEUE: &str = "queue";
const TO_EXCHANGE: &str = "exchange";
const PAUSED: &str = "paused";
const REDRIVE: &str = "redrive";
const VERSION: &str = "v";
const CURRENT_VERSION: i64 = 1;

#[cfg(test)]
mod tests;
