//! All policies, and which of them apply to what.

use super::{Exchange, Topology};
use crate::command::{QueueSpec, VhostId};
use crate::policy::{self, Applied, Policy, PolicyKind};
use std::sync::Arc;

/// The policies of all vhosts, in the order in which they are asked: the highest priority first, and of the same one by
/// name.
#[derive(Debug, Default)]
pub(super) struct Policies {
    all: Vec<Arc<Policy>>,
}

impl Policies {
    fn position(&self, kind: PolicyKind, vhost: VhostId, name: &str) -> Option<usize> {
        self.all.iter().position(|policy| policy.kind == kind && policy.vhost == vhost && *policy.name == *name)
    }

    fn insert(&mut self, policy: Arc<Policy>) {
        let order = |policy: &Policy| (std::cmp::Reverse(policy.priority), policy.name.clone());
        let at = self.all.partition_point(|other| order(other) < order(&policy));
        self.all.insert(at, policy);
    }

    /// Those that apply to what `matches`.
    fn applied(&self, vhost: VhostId, matches: impl Fn(&Policy) -> bool) -> Applied {
        let first = |kind| {
            self.all.iter().find(|policy| policy.kind == kind && policy.vhost == vhost && matches(policy)).cloned()
        };
        Applied { user: first(PolicyKind::User), operator: first(PolicyKind::Operator) }
    }
}

impl Topology {
    /// All policies of this kind, in no order that means anything to users.
    pub fn policies(&self, kind: PolicyKind) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.all.iter().filter(move |policy| policy.kind == kind)
    }

    /// The policy of this name.
    #[must_use]
    pub fn policy(&self, kind: PolicyKind, vhost: VhostId, name: &str) -> Option<&Arc<Policy>> {
        self.policies.position(kind, vhost, name).map(|at| &self.policies.all[at])
    }

    /// The policies that apply to a queue.
    pub(crate) fn policies_of_queue(&self, queue: &QueueSpec) -> Applied {
        self.policies.applied(queue.vhost, |policy| policy.matches_queue(&queue.name, queue.settings.quorum))
    }

    fn policies_of_exchange(&self, exchange: &Exchange) -> Applied {
        self.policies.applied(exchange.vhost, |policy| policy.matches_exchange(&exchange.name))
    }

    /// Puts a policy in the place of the one of its name. Exchanges are changed by that; it is for the caller to see to
    /// the queues.
    pub(crate) fn put_policy(&mut self, policy: Arc<Policy>) {
        if let Some(at) = self.policies.position(policy.kind, policy.vhost, &policy.name) {
            self.policies.all.remove(at);
        }
        self.policies.insert(policy);
        self.refresh_exchanges();
    }

    /// Removes a policy, as [`Self::put_policy`]; the policy, if there was one.
    pub(crate) fn remove_policy(&mut self, kind: PolicyKind, vhost: VhostId, name: &str) -> Option<Arc<Policy>> {
        let at = self.policies.position(kind, vhost, name)?;
        let removed = self.policies.all.remove(at);
        self.refresh_exchanges();
        Some(removed)
    }

    /// Gives a new exchange what policies say.
    pub(super) fn apply_policies(&self, exchange: &mut Exchange) {
        exchange.policies = self.policies_of_exchange(exchange);
        if exchange.own_alternate().is_none() {
            exchange.alternate = policy::alternate(&exchange.policies);
        }
    }

    fn refresh_exchanges(&mut self) {
        let changed: Vec<_> = self
            .exchanges
            .values()
            .filter(|exchange| !exchange.name.is_empty())
            .map(|exchange| (exchange.id, self.policies_of_exchange(exchange)))
            .filter(|(id, applied)| self.exchanges[id].policies != *applied)
            .collect();
        for (id, applied) in changed {
            let Some(exchange) = self.exchanges.get_mut(&id) else { continue };
            if exchange.own_alternate().is_none() {
                exchange.alternate = policy::alternate(&applied);
            }
            exchange.policies = applied;
            self.generation += 1;
        }
    }

    /// Gives all queues that the policies have changed their new spec, and tells which.
    pub(crate) fn refresh_queues(&mut self, vhost: VhostId) -> Vec<Arc<QueueSpec>> {
        let mut changed = Vec::new();
        for queue in self.queues.values().filter(|queue| queue.vhost == vhost) {
            let applied = self.policies_of_queue(queue);
            if queue.policies != applied {
                let mut spec = QueueSpec::clone(queue);
                policy::apply(&mut spec, applied);
                changed.push(Arc::new(spec));
            }
        }
        for spec in &changed {
            self.replace_queue(spec);
        }
        changed
    }

    /// Puts another spec of the same queue in its place.
    pub(crate) fn replace_queue(&mut self, spec: &Arc<QueueSpec>) {
        self.vhosts[usize::from(spec.vhost.0)].queues.insert(Arc::clone(&spec.name), Arc::clone(spec));
        self.queues.insert(spec.queue.id, Arc::clone(spec));
    }
}
