//! exchange.declare and exchange.delete.

use super::facts::Change;
use super::{Asker, Catalog, LastingChange, Progress, RESERVED, Step, access_refused, precondition_failed};
use crate::access::{Resource, Right};
use crate::command::{Fault, Outcome, ShardId, ShardInput};
use crate::fact::{exchange_fact, exchange_key};
use crate::identity::check_name;
use crate::resource::{exchange_title, no_exchange};
use crate::route::{Destination, ExchangeId, hash, recent, sieve};
use crate::settings::{check_same, check_same_argument};
use crate::topology::{ALTERNATE, DELAYED_MESSAGE, DELAYED_TYPE, Exchange, ExchangeKind, Topology};
use amqp::{Table, Value};
use std::sync::Arc;

/// exchange.declare's fields.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) internal: bool,
    pub(super) arguments: Table,
}

impl Step<'_> {
    pub(super) fn find_exchange(&self, asker: Asker, name: &str) -> Result<Progress, Fault> {
        check_not_default(name)?;
        match self.topology.exchange(asker.vhost, name) {
            Some(_) => Ok(Progress::Done(Outcome::Applied)),
            None => Err(no_exchange(name, self.vhost_name(asker.vhost))),
        }
    }

    pub(super) fn declare_exchange(&mut self, asker: Asker, wanted: Wanted) -> Result<Progress, Fault> {
        let is_delaying = wanted.kind == DELAYED_MESSAGE;
        let routes_as = if is_delaying { delayed_type(&wanted.arguments)? } else { &*wanted.kind };
        let kind = ExchangeKind::named(routes_as);
        let kind = kind.ok_or_else(|| precondition_failed(format!("unknown exchange type '{routes_as}'")))?;
        check_not_default(&wanted.name)?;
        let this = Resource::Exchange(&wanted.name);
        self.check(Right::Configure, this)?;
        let vhost_name = self.topology.vhost_name(asker.vhost);
        let title = exchange_title(&wanted.name, vhost_name);
        if let Some(current) = self.topology.exchange(asker.vhost, &wanted.name) {
            wanted.check_equivalent(current, &title)?;
            if !current.durable {
                return Ok(Progress::Done(Outcome::Applied));
            }
            let key = exchange_key(vhost_name, &wanted.name);
            self.answer_with(&key, asker.answer(Outcome::Applied));
            return Ok(Progress::Underway);
        }
        wanted.check_new(&title)?;
        if let Some(alternate) = wanted.arguments.get(ALTERNATE).and_then(Value::as_str) {
            self.check(Right::Read, this)?;
            self.check(Right::Write, Resource::Exchange(alternate))?;
        }
        if kind == ExchangeKind::ConsistentHash {
            hash::check_arguments(&wanted.arguments)?;
        }
        sieve::check_arguments(kind, &wanted.arguments)?;
        if kind == ExchangeKind::RecentHistory {
            recent::length(&wanted.arguments)?;
        }
        let exchange = Exchange::new(asker.vhost, &wanted.name, kind).with_arguments(wanted.arguments);
        let exchange = match exchange.rule() {
            Some(_) => exchange.with_source(self.catalog.next_id()),
            None => exchange,
        };
        let Wanted { durable, auto_delete, internal, .. } = wanted;
        let exchange = Exchange { durable, auto_delete, internal, is_delaying, ..exchange };
        let fact = durable.then(|| exchange_fact(vhost_name, &exchange));
        if durable {
            self.changed(asker.connection, asker.vhost, || LastingChange::ExchangeDeclared {
                name: Arc::clone(&exchange.name),
                kind: exchange.type_name().to_owned(),
                arguments: exchange.arguments.clone(),
            });
        }
        self.topology.add_exchange(exchange);
        let changes = fact.into_iter().map(|(key, value)| Change::Put(key, value)).collect();
        self.answer_after(changes, Some(asker.answer(Outcome::Applied)));
        Ok(Progress::Underway)
    }

    pub(super) fn delete_exchange(&mut self, asker: Asker, name: &str, if_unused: bool) -> Result<Progress, Fault> {
        check_not_default(name)?;
        let vhost_name = self.topology.vhost_name(asker.vhost);
        let title = exchange_title(name, vhost_name);
        if name.starts_with(RESERVED) {
            return Err(access_refused(format!("deletion of system {title} not allowed")));
        }
        self.check(Right::Configure, Resource::Exchange(name))?;
        let Some(exchange) = self.topology.exchange(asker.vhost, name) else {
            let key = exchange_key(vhost_name, name);
            self.answer_with(&key, asker.answer(Outcome::Applied));
            return Ok(Progress::Underway);
        };
        let id = exchange.id;
        if if_unused && self.topology.is_source(id) {
            return Err(precondition_failed(format!("{title} in use")));
        }
        if exchange.durable {
            let name = Arc::clone(&exchange.name);
            self.changed(asker.connection, asker.vhost, || LastingChange::ExchangeDeleted { name });
        }
        let mut changes = Vec::new();
        self.drop_exchanges(vec![id], &mut changes);
        self.answer_after(changes, Some(asker.answer(Outcome::Applied)));
        Ok(Progress::Underway)
    }

    /// Removes exchanges with their bindings, and the auto-delete exchanges that lose their last binding by that.
    pub(super) fn drop_exchanges(&mut self, mut doomed: Vec<ExchangeId>, changes: &mut Vec<Change>) {
        while let Some(id) = doomed.pop() {
            let mut bindings = self.topology.bindings_from(id);
            bindings.extend(self.topology.bindings_to(Destination::Exchange(id)));
            for binding in bindings {
                let bereft = self.drop_binding(binding, changes);
                doomed.extend(bereft.filter(|source| *source != id));
            }
            if let Some(exchange) = self.topology.exchange_by_id(id)
                && exchange.durable
            {
                changes.push(Change::Forget(exchange_key(self.vhost_name(exchange.vhost), &exchange.name)));
            }
            let removed = self.topology.remove_exchange(id);
            if removed.as_ref().is_some_and(|exchange| exchange.sieve.is_some()) {
                self.keep_sources();
            }
            if removed.is_some_and(|exchange| exchange.kind == ExchangeKind::RecentHistory) {
                let exchange = id.0;
                self.send(self.catalog.keeper(id), ShardInput::ForgetHistory { exchange });
            }
        }
    }
}

impl Step<'_> {
    /// Tells all shards which exchanges deduplicate.
    fn keep_sources(&mut self) {
        let input = self.catalog.sources(self.topology);
        self.out.shards.extend(input);
    }
}

impl Catalog {
    /// What tells each shard which exchanges deduplicate.
    pub(super) fn sources(&self, topology: &Topology) -> Vec<(ShardId, ShardInput)> {
        let sources = topology.exchanges().filter_map(|exchange| exchange.sieve.as_ref()).map(|sieve| sieve.source);
        let sources: Arc<[u64]> = sources.collect();
        (0..self.shards)
            .map(|shard| (ShardId(shard), ShardInput::KeepSources { sources: Arc::clone(&sources) }))
            .collect()
    }

    /// The shard that has the recent messages of an exchange.
    pub(super) fn keeper(&self, exchange: ExchangeId) -> ShardId {
        exchange.keeper(self.shards.into())
    }
}

impl Wanted {
    fn check_equivalent(&self, current: &Exchange, title: &str) -> Result<(), Fault> {
        check_same("type", title, &self.kind.as_str(), &current.type_name())?;
        check_same("durable", title, &self.durable, &current.durable)?;
        check_same("auto_delete", title, &self.auto_delete, &current.auto_delete)?;
        check_same("internal", title, &self.internal, &current.internal)?;
        check_same_argument(ALTERNATE, title, &self.arguments, &current.arguments)
    }

    fn check_new(&self, title: &str) -> Result<(), Fault> {
        // Over HTTP and in definitions a name may be anything.
        check_name("exchange", &self.name)?;
        if self.name.starts_with(RESERVED) {
            let name = &self.name;
            return Err(access_refused(format!("exchange name '{name}' contains reserved prefix 'amq.*'")));
        }
        match self.arguments.get(ALTERNATE) {
            None | Some(Value::Str(_)) => Ok(()),
            Some(value) => {
                let word = value.type_word();
                Err(precondition_failed(format!("invalid type '{word}' for arg '{ALTERNATE}' in {title}")))
            }
        }
    }
}

/// The type that an exchange of type `x-delayed-message` routes as, in the words of RabbitMQ's plugin.
fn delayed_type(arguments: &Table) -> Result<&str, Fault> {
    let named = match arguments.get(DELAYED_TYPE).and_then(Value::as_str) {
        Some(DELAYED_MESSAGE) => Err("'x-delayed-message' can't be used for 'x-delayed-type'"),
        Some(named) => Ok(named),
        None => Err("'x-delayed-type' must be an existing exchange type"),
    };
    named.map_err(|why| precondition_failed(format!("Invalid argument, {why}")))
}

/// The default exchange is nobody's to change.
pub(super) fn check_not_default(exchange: &str) -> Result<(), Fault> {
    if exchange.is_empty() {
        return Err(access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}
