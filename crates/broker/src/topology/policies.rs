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
        let at = self.all.partition_point(|other| outranks(other, &policy));
        self.all.insert(at, policy);
    }

    fn first(&self, kind: PolicyKind, vhost: VhostId, matches: impl Fn(&Policy) -> bool) -> Option<Arc<Policy>> {
        let of_kind = |policy: &&Arc<Policy>| policy.kind == kind && policy.vhost == vhost;
        self.all.iter().filter(of_kind).find(|policy| matches(policy)).cloned()
    }

    /// Those that apply to what `matches`.
    fn applied(&self, vhost: VhostId, matches: impl Fn(&Policy) -> bool) -> Applied {
        let first = |kind| self.first(kind, vhost, &matches);
        Applied { user: first(PolicyKind::User), operator: first(PolicyKind::Operator) }
    }

    /// Those that apply after a change to what these applied to, if they are others. Only the policy that changed is
    /// matched, unless it is one of these: how slow the patterns of others are does not matter.
    fn applied_after(
        &self,
        change: &PolicyChange,
        before: &Applied,
        matches: impl Fn(&Policy) -> bool,
    ) -> Option<Applied> {
        let current = before.of(change.kind);
        let was_it = current.zip(change.old.as_ref()).is_some_and(|(current, old)| current.name == old.name);
        let found = if was_it {
            self.first(change.kind, change.vhost, matches)
        } else {
            let new = change.new.as_ref()?;
            if current.is_some_and(|current| outranks(current, new)) || !matches(new) {
                return None;
            }
            Some(Arc::clone(new))
        };
        let mut after = before.clone();
        *after.of_mut(change.kind) = found;
        Some(after)
    }
}

/// Whether one is asked before the other.
fn outranks(one: &Policy, other: &Policy) -> bool {
    other.priority.cmp(&one.priority).then_with(|| one.name.cmp(&other.name)).is_lt()
}

/// A policy that is another than before, is new, or is gone.
#[derive(Debug)]
pub(crate) struct PolicyChange {
    kind: PolicyKind,
    vhost: VhostId,
    old: Option<Arc<Policy>>,
    new: Option<Arc<Policy>>,
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
        self.policies.applied(queue.vhost, |policy| policy.matches_queue(&queue.name, queue.settings.kind))
    }

    /// Puts a policy in the place of the one of its name. Exchanges are changed by that; it is for the caller to see to
    /// the queues.
    pub(crate) fn put_policy(&mut self, policy: Arc<Policy>) -> PolicyChange {
        let at = self.policies.position(policy.kind, policy.vhost, &policy.name);
        let old = at.map(|at| self.policies.all.remove(at));
        self.policies.insert(Arc::clone(&policy));
        let change = PolicyChange { kind: policy.kind, vhost: policy.vhost, old, new: Some(policy) };
        self.refresh_exchanges(&change);
        change
    }

    /// Removes a policy, as [`Self::put_policy`], if there is one.
    pub(crate) fn remove_policy(&mut self, kind: PolicyKind, vhost: VhostId, name: &str) -> Option<PolicyChange> {
        let at = self.policies.position(kind, vhost, name)?;
        let change = PolicyChange { kind, vhost, old: Some(self.policies.all.remove(at)), new: None };
        self.refresh_exchanges(&change);
        Some(change)
    }

    /// Gives a new exchange what policies say.
    pub(super) fn apply_policies(&self, exchange: &mut Exchange) {
        let name = Arc::clone(&exchange.name);
        exchange.policies = self.policies.applied(exchange.vhost, |policy| policy.matches_exchange(&name));
        if exchange.own_alternate().is_none() {
            exchange.alternate = policy::alternate(&exchange.policies);
        }
    }

    fn refresh_exchanges(&mut self, change: &PolicyChange) {
        let of_vhost = |exchange: &&Exchange| exchange.vhost == change.vhost && !exchange.name.is_empty();
        let after = |exchange: &Exchange| {
            let matches = |policy: &Policy| policy.matches_exchange(&exchange.name);
            Some((exchange.id, self.policies.applied_after(change, &exchange.policies, matches)?))
        };
        let changed: Vec<_> = self.exchanges.values().filter(of_vhost).filter_map(after).collect();
        for (id, applied) in changed {
            let Some(exchange) = self.exchanges.get_mut(&id) else { continue };
            if exchange.own_alternate().is_none() {
                exchange.alternate = policy::alternate(&applied);
            }
            exchange.policies = applied;
            self.generation += 1;
        }
    }

    /// Gives all queues that the change has changed their new spec, and tells which.
    pub(crate) fn refresh_queues(&mut self, change: &PolicyChange) -> Vec<Arc<QueueSpec>> {
        self.replace_queues(|topology, queue| {
            let matches = |policy: &Policy| policy.matches_queue(&queue.name, queue.settings.kind);
            let is_there = queue.vhost == change.vhost;
            is_there.then(|| topology.policies.applied_after(change, &queue.policies, matches)).flatten()
        })
    }

    /// The same for queues that no policy has been applied to yet.
    pub(crate) fn apply_policies_to_queues(&mut self) -> Vec<Arc<QueueSpec>> {
        self.replace_queues(|topology, queue| Some(topology.policies_of_queue(queue)))
    }

    fn replace_queues(&mut self, after: impl Fn(&Self, &QueueSpec) -> Option<Applied>) -> Vec<Arc<QueueSpec>> {
        let changed: Vec<_> = self
            .queues
            .values()
            .filter_map(|queue| {
                let applied = after(self, queue).filter(|applied| *applied != queue.policies)?;
                let mut spec = QueueSpec::clone(queue);
                policy::apply(&mut spec, applied);
                Some(Arc::new(spec))
            })
            .collect();
        for spec in &changed {
            self.replace_queue(spec);
        }
        changed
    }

    /// Puts another spec of the same queue in its place.
    pub(crate) fn replace_queue(&mut self, spec: &Arc<QueueSpec>) {
        self.queues.insert(spec.queue.id, Arc::clone(spec));
    }
}
