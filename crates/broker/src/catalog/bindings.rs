//! queue.bind, queue.unbind, exchange.bind and exchange.unbind.

use super::exchanges::check_not_default;
use super::facts::Change;
use super::{Asker, LastingChange, Progress, Step, access_refused};
use crate::access::{Resource, Right};
use crate::command::{BindingSpec, DestinationKind, Fault, Outcome, Recipient, ShardInput, VhostId};
use crate::fact::{binding_fact, binding_key};
use crate::route::{BindingId, Destination, ExchangeId};
use crate::topology::{Ends, ExchangeKind, is_reply_address};

impl Step<'_> {
    pub(super) fn bind(&mut self, asker: Asker, spec: BindingSpec) -> Result<Progress, Fault> {
        check_bindable(&spec)?;
        self.check_binding(asker, &spec)?;
        let ends = self.topology.ends(asker.vhost, &spec)?;
        self.check_owner(asker, ends.destination)?;
        let is_new = self.topology.bind(asker.vhost, ends, &spec)?;
        if is_new {
            self.recall(asker.vhost, ends, &spec);
        }
        if !ends.durable {
            return Ok(Progress::Done(Outcome::Applied));
        }
        let queue = match ends.destination {
            Destination::Queue(queue) => Some(queue.id),
            Destination::Exchange(_) => None,
        };
        let (key, value) = binding_fact(asker.vhost, self.vhost_name(asker.vhost), &spec, queue);
        if is_new {
            self.changed(asker.connection, asker.vhost, || LastingChange::Bound(Box::new(spec)));
            self.answer_after(vec![Change::Put(key, value)], Some(asker.answer(Outcome::Applied)));
        } else {
            self.answer_with(&key, asker.answer(Outcome::Applied));
        }
        Ok(Progress::Underway)
    }

    /// An exchange that keeps recent messages sends them to whoever binds.
    fn recall(&mut self, vhost: VhostId, ends: Ends, spec: &BindingSpec) {
        let source = self.topology.exchange_by_id(ends.source);
        if source.is_none_or(|source| source.kind != ExchangeKind::RecentHistory) {
            return;
        }
        let to = match ends.destination {
            Destination::Queue(queue) => Recipient::Queue(queue),
            Destination::Exchange(_) => Recipient::Exchange { vhost, name: spec.destination.as_str().into() },
        };
        let (exchange, generation) = (ends.source.0, self.topology.generation());
        self.send(self.catalog.keeper(ends.source), ShardInput::Recall { exchange, generation, to });
    }

    pub(super) fn unbind(&mut self, asker: Asker, spec: BindingSpec) -> Result<Progress, Fault> {
        check_bindable(&spec)?;
        self.check_binding(asker, &spec)?;
        let found = match self.topology.ends(asker.vhost, &spec) {
            Ok(ends) => {
                let found = self.topology.binding(ends, &spec);
                if found.is_some() {
                    self.check_owner(asker, ends.destination)?;
                }
                found
            }
            // No binding without both ends: there is nothing left to do.
            Err(_) => None,
        };
        if let Some(binding) = found {
            let mut changes = Vec::new();
            self.drop_bindings(vec![binding], &mut changes);
            // What lasted is forgotten.
            if !changes.is_empty() {
                self.changed(asker.connection, asker.vhost, || LastingChange::Unbound(Box::new(spec)));
            }
            self.answer_after(changes, Some(asker.answer(Outcome::Applied)));
        } else {
            let key = binding_key(self.vhost_name(asker.vhost), &spec);
            self.answer_with(&key, asker.answer(Outcome::Applied));
        }
        Ok(Progress::Underway)
    }

    /// Removes bindings, and the auto-delete exchanges that lose their last one by that.
    pub(super) fn drop_bindings(&mut self, bindings: Vec<BindingId>, changes: &mut Vec<Change>) {
        let mut doomed = Vec::new();
        for binding in bindings {
            doomed.extend(self.drop_binding(binding, changes));
        }
        self.drop_exchanges(doomed, changes);
    }

    /// Removes one binding. Returns its source if that is to go with its last binding and this was it.
    pub(super) fn drop_binding(&mut self, binding: BindingId, changes: &mut Vec<Change>) -> Option<ExchangeId> {
        let removed = self.topology.remove_binding(binding)?;
        if removed.durable {
            changes.push(Change::Forget(binding_key(self.vhost_name(removed.vhost), &removed.spec)));
        }
        let source = self.topology.exchange_by_id(removed.source)?;
        (source.auto_delete && !self.topology.is_source(source.id)).then_some(source.id)
    }

    fn check_binding(&self, asker: Asker, spec: &BindingSpec) -> Result<(), Fault> {
        let Some(rights) = &self.rights else { return Ok(()) };
        let destination = match spec.kind {
            DestinationKind::Queue => Resource::Queue(&spec.destination),
            DestinationKind::Exchange => Resource::Exchange(&spec.destination),
        };
        rights.check(Right::Write, destination)?;
        rights.check(Right::Read, Resource::Exchange(&spec.source))?;
        match self.topology.exchange(asker.vhost, &spec.source) {
            Some(source) if source.kind == ExchangeKind::Topic => {
                rights.check_topic(Right::Read, &spec.source, &spec.key)
            }
            _ => Ok(()),
        }
    }

    fn check_owner(&self, asker: Asker, destination: Destination) -> Result<(), Fault> {
        match destination {
            Destination::Exchange(_) => Ok(()),
            Destination::Queue(queue) => match self.topology.queue_by_id(queue.id) {
                Some(queue) => queue.check_owner(asker.connection),
                None => Ok(()),
            },
        }
    }
}

/// Refuses what nobody may bind.
fn check_bindable(spec: &BindingSpec) -> Result<(), Fault> {
    match spec.kind {
        DestinationKind::Exchange => check_not_default(&spec.destination)?,
        DestinationKind::Queue if is_reply_address(&spec.destination) => {
            return Err(access_refused("cannot bind or unbind to a volatile (direct reply-to) queue"));
        }
        DestinationKind::Queue => {}
    }
    check_not_default(&spec.source)
}
