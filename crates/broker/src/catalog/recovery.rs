//! The catalog and the topology of a server that starts, from the facts that its shards kept.

use super::facts::FACTS;
use super::policies::by_shard;
use super::{Catalog, CatalogOutbox};
use crate::command::{QueueSpec, ShardId, ShardInput};
use crate::fact::{CatalogFact, CorruptFact, IdentityFact, firing_key};
use crate::route::Destination;
use crate::schedule::Firing;
use crate::topology::Topology;
use bytes::Bytes;
use std::sync::Arc;

impl Catalog {
    /// Builds both from the facts of all shards, in any order. What belongs to nothing any more is forgotten: bindings
    /// whose ends are gone, and a queue whose name has passed to a later one before its deletion was durable. `out`
    /// says so to the shards; it holds nothing for connections.
    ///
    /// # Errors
    /// [`CorruptFact`] for a fact that this version cannot use.
    pub fn recover(
        shards: u16,
        epoch: u32,
        facts: impl IntoIterator<Item = (ShardId, Bytes, Bytes)>,
        out: &mut CatalogOutbox,
    ) -> Result<(Self, Topology), CorruptFact> {
        let (mut queues, mut bindings, mut firings) = (Vec::new(), Vec::new(), Vec::new());
        let (mut of_identity, mut others) = (Vec::new(), Vec::new());
        for (shard, key, value) in facts {
            match IdentityFact::read(&key, &value)? {
                Some(fact) => of_identity.push((key, fact)),
                None => others.push((shard, key, value)),
            }
        }
        let mut topology = Self::recover_identity(of_identity, out);
        let mut orphans = Vec::new();
        for (shard, key, value) in others {
            if let Some(queue) = QueueSpec::from_fact(shard, &key, &value)? {
                queues.push(queue);
                continue;
            }
            if let Some(firing) = Firing::from_fact(shard, &key, &value)? {
                firings.push((shard, firing));
                continue;
            }
            let fact = CatalogFact::read(&key, &value)?;
            // Its vhost was deleted, and that it goes with it was not written in time.
            if topology.vhost_record(fact.vhost()).is_none() {
                orphans.push((FACTS, ShardInput::ForgetFact { key, ticket: None }));
                continue;
            }
            match fact {
                CatalogFact::Exchange(exchange) if topology.exchange(exchange.vhost, &exchange.name).is_some() => {
                    return Err(CorruptFact {
                        key: lossy(&key),
                        why: "there are two exchanges of its name".to_owned(),
                    });
                }
                CatalogFact::Exchange(exchange) => topology.add_exchange(exchange),
                CatalogFact::Policy(policy) => {
                    topology.put_policy(Arc::new(policy));
                }
                CatalogFact::Schedule(schedule) => topology.put_schedule(Arc::new(schedule)),
                CatalogFact::Binding { vhost, spec, queue } => bindings.push((key, vhost, spec, queue)),
            }
        }
        out.shards.append(&mut orphans);
        let mut catalog = Self::new(shards, epoch);
        queues.sort_unstable_by_key(|queue| std::cmp::Reverse(queue.queue.id));
        for queue in queues {
            let has_vhost = topology.vhost_record(queue.vhost).is_some();
            if has_vhost && topology.queue(queue.vhost, &queue.name).is_none() {
                topology.add_queue(Arc::new(queue));
            } else {
                let ticket = catalog.ticket();
                let delete =
                    ShardInput::DeleteQueue { queue: queue.queue.id, if_unused: false, if_empty: false, ticket };
                out.shards.push((queue.queue.shard, delete));
            }
        }
        for (key, vhost, spec, queue) in bindings {
            let ends = topology.ends(vhost, &spec).ok().filter(|ends| match ends.destination {
                Destination::Queue(found) => Some(found.id) == queue,
                Destination::Exchange(_) => true,
            });
            match ends {
                Some(ends) => {
                    let bound = topology.bind(vhost, ends, &spec);
                    bound.map_err(|fault| CorruptFact { key: lossy(&key), why: fault.text })?;
                }
                None => out.shards.push((FACTS, ShardInput::ForgetFact { key, ticket: None })),
            }
        }
        for (shard, firing) in firings {
            if topology.has_schedule(firing.schedule) {
                topology.remember_firing(shard, firing);
            } else {
                let forget = ShardInput::ForgetFact { key: firing_key(firing.schedule), ticket: None };
                out.shards.push((shard, forget));
            }
        }
        // A policy of before there were such for exchanges, or whose exchanges had no time to be written.
        for (key, value) in catalog.name_sources(&mut topology) {
            out.shards.push((FACTS, ShardInput::PutFact { key, value, ticket: None }));
        }
        // The shards have read their queues' facts, and know of no policies yet.
        let changed = topology.apply_policies_to_queues();
        let sources = catalog.sources(&topology);
        out.shards.splice(0..0, by_shard(changed).chain(sources));
        Ok((catalog, topology))
    }
}

fn lossy(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
