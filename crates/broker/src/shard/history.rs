//! Recent messages of exchanges that keep some (`x-recent-history`), for queues that are bound later.
//!
//! Each such exchange's are in one shard's memory. A message is kept by one way, goes to the queues that are bound by another,
//! and a binding is made by a third: who gets what is told by the topology's generations. What was routed before a binding
//! was there goes to it from here, at once or when it comes; what was routed later has gone there.

use super::Shard;
use super::publish::Terms;
use crate::command::{IfRefused, Publish, QueueIds, Recent, Recipient, ShardId, ShardInput};
use crate::topology::Topology;
use amqp::Properties;
use std::collections::VecDeque;
use store::Store;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    messages: VecDeque<Recent>,
    bytes: usize,
    /// The last bindings, by the generation that had them first: for messages that were routed before and come late.
    bound: VecDeque<(u64, Recipient)>,
}

impl History {
    fn add(&mut self, recent: Recent) {
        let most = recent.length as usize;
        self.bytes += recent.message.bytes().len();
        self.messages.push_back(recent);
        while self.messages.len() > most || self.bytes > BYTES_MAX && self.messages.len() > 1 {
            let Some(old) = self.messages.pop_front() else { return };
            self.bytes -= old.message.bytes().len();
        }
    }
}

impl<S: Store> Shard<S> {
    /// A message came to such an exchange.
    pub(super) fn keep_recent(&mut self, recent: Recent, topology: &Topology) {
        let history = self.histories.entry(recent.exchange).or_default();
        let late = history.bound.iter().filter(|(since, _)| recent.generation < *since);
        let late: Vec<_> = late.map(|(_, to)| to.clone()).collect();
        history.add(recent.clone());
        for to in late {
            self.send_recent(&recent, &to, topology);
        }
    }

    /// Somebody was bound to such an exchange.
    pub(super) fn recall(&mut self, exchange: u64, generation: u64, to: Recipient, topology: &Topology) {
        let history = self.histories.entry(exchange).or_default();
        if history.bound.len() == BOUND_MAX {
            history.bound.pop_front();
        }
        history.bound.push_back((generation, to.clone()));
        let messages: Vec<_> =
            history.messages.iter().filter(|recent| recent.generation < generation).cloned().collect();
        for recent in messages {
            self.send_recent(&recent, &to, topology);
        }
    }

    fn send_recent(&mut self, recent: &Recent, to: &Recipient, topology: &Topology) {
        for (shard, queues) in self.recipients(recent, to, topology) {
            let Recent { persistent, expiration_ms, priority, .. } = *recent;
            let (message, more, delay) = (recent.message.clone(), Vec::new(), None);
            let publish = Publish { queues, message, more, persistent, expiration_ms, priority, delay, confirm: false };
            if shard == self.id {
                let terms = Terms::from(&publish);
                self.publish(&publish.queues, publish.message, terms, None);
            } else {
                // Nobody waits for it.
                self.last_transfer += 1;
                let (from, transfer) = (self.id, self.last_transfer);
                let if_refused = IfRefused::Dropped;
                self.out.shards.push((shard, ShardInput::Transfer { from, transfer, publish, if_refused }));
            }
        }
    }

    fn recipients(&mut self, recent: &Recent, to: &Recipient, topology: &Topology) -> Vec<(ShardId, QueueIds)> {
        let (vhost, name) = match to {
            Recipient::Queue(queue) => return vec![(queue.shard, queue.id.into())],
            Recipient::Exchange { vhost, name } => (*vhost, name),
        };
        let Ok(properties) = Properties::parse(recent.message.properties()) else { return Vec::new() };
        let keys = [recent.message.routing_key()];
        if topology.route(vhost, name, &keys, &properties, &mut self.routes).is_err() {
            return Vec::new();
        }
        self.routes.by_shard().collect()
    }
}

/// What one exchange's messages may take, but for the newest, which is always kept.
const BYTES_MAX: usize = 16 << 20;
/// So many bindings are remembered for messages that come late: by far more than are made while one is on its way.
const BOUND_MAX: usize = 64;
