//! All bindings, found by what they are, where they start and where they lead: each in logarithmic time, however many
//! there are.

use crate::command::{BindingSpec, VhostId};
use crate::route::{BindingId, Destination, ExchangeId};
use amqp::{Table, Value};
use bytes::BytesMut;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Bindings {
    made: u64,
    bindings: BTreeMap<BindingId, Binding>,
    ids: FxHashMap<Identity, BindingId>,
    by_source: BTreeSet<(ExchangeId, BindingId)>,
    by_destination: BTreeSet<(Destination, BindingId)>,
}

#[derive(Debug)]
pub(super) struct Binding {
    pub(super) vhost: VhostId,
    pub(super) source: ExchangeId,
    pub(super) destination: Destination,
    pub(super) key: Arc<str>,
    pub(super) arguments: Table,
}

/// A binding that is no more.
#[derive(Debug)]
pub(crate) struct RemovedBinding {
    pub(crate) vhost: VhostId,
    pub(crate) source: ExchangeId,
    pub(crate) spec: BindingSpec,
    pub(crate) durable: bool,
}

/// What makes a binding itself.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    source: ExchangeId,
    destination: Destination,
    key: Arc<str>,
    arguments: Vec<u8>,
}

impl Bindings {
    /// In the order in which they were made.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values()
    }

    pub(super) fn find(
        &self,
        source: ExchangeId,
        destination: Destination,
        key: &str,
        arguments: &Table,
    ) -> Option<BindingId> {
        self.ids.get(&Identity { source, destination, key: key.into(), arguments: canonical(arguments) }).copied()
    }

    /// The id that the binding will have, unless it is there already.
    pub(super) fn vacancy(&self, binding: &Binding) -> Option<BindingId> {
        (!self.ids.contains_key(&binding.identity())).then_some(BindingId(self.made))
    }

    /// Adds a binding under the id that [`Self::vacancy`] gave it.
    pub(super) fn insert(&mut self, id: BindingId, binding: Binding) {
        assert!(id.0 == self.made, "ids are given in turn");
        self.made += 1;
        self.ids.insert(binding.identity(), id);
        self.by_source.insert((binding.source, id));
        self.by_destination.insert((binding.destination, id));
        self.bindings.insert(id, binding);
    }

    pub(super) fn remove(&mut self, id: BindingId) -> Option<Binding> {
        let binding = self.bindings.remove(&id)?;
        self.ids.remove(&binding.identity());
        self.by_source.remove(&(binding.source, id));
        self.by_destination.remove(&(binding.destination, id));
        Some(binding)
    }

    pub(super) fn from(&self, source: ExchangeId) -> Vec<BindingId> {
        self.by_source.range((source, FIRST)..=(source, LAST)).map(|(_, id)| *id).collect()
    }

    pub(super) fn to(&self, destination: Destination) -> Vec<BindingId> {
        self.by_destination.range((destination, FIRST)..=(destination, LAST)).map(|(_, id)| *id).collect()
    }

    pub(super) fn start_at(&self, source: ExchangeId) -> bool {
        self.by_source.range((source, FIRST)..=(source, LAST)).next().is_some()
    }

    pub(super) fn lead_to(&self, destination: Destination) -> bool {
        self.by_destination.range((destination, FIRST)..=(destination, LAST)).next().is_some()
    }
}

impl Binding {
    fn identity(&self) -> Identity {
        Identity {
            source: self.source,
            destination: self.destination,
            key: Arc::clone(&self.key),
            arguments: canonical(&self.arguments),
        }
    }
}

/// The same octets for the same arguments in any order. Octets, so that equal means equal for every type of value.
pub(crate) fn canonical(arguments: &Table) -> Vec<u8> {
    let encoded = |(name, value): (&str, &Value)| {
        let mut octets = BytesMut::new();
        Table::from_iter([(name, value.clone())]).encode(&mut octets);
        octets
    };
    let mut entries: Vec<_> = arguments.iter().map(encoded).collect();
    entries.sort_unstable();
    entries.concat()
}

const FIRST: BindingId = BindingId(0);
const LAST: BindingId = BindingId(u64::MAX);
