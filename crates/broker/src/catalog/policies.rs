//! Policies are set and cleared.

use super::facts::Change;
use super::{Asker, Progress, Step};
use crate::command::{Fault, Outcome, QueueSpec, ShardId, ShardInput};
use crate::fact::{policy_fact, policy_key};
use crate::policy::{Policy, PolicyKind};
use crate::topology::PolicyChange;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Step<'_> {
    pub(super) fn set_policy(&mut self, asker: Asker, policy: Policy) -> Result<Progress, Fault> {
        policy.check()?;
        let (key, value) = policy_fact(self.vhost_name(policy.vhost), &policy);
        let sources = self.topology.sources();
        let change = self.topology.put_policy(Arc::new(policy));
        self.tell_shards(&change);
        // What names their keys is known no later than that they deduplicate.
        let mut changes = self.name_sources();
        changes.push(Change::Put(key, value));
        self.tell_sources(sources);
        self.answer_after(changes, Some(asker.answer(Outcome::Applied)));
        Ok(Progress::Underway)
    }

    /// `Missed` if there is none of that name.
    pub(super) fn clear_policy(&mut self, asker: Asker, kind: PolicyKind, name: &str) -> Progress {
        let sources = self.topology.sources();
        let key = policy_key(self.vhost_name(asker.vhost), kind, name);
        let Some(change) = self.topology.remove_policy(kind, asker.vhost, name) else {
            // That somebody cleared it a moment ago may not be durable yet.
            self.answer_with(&key, asker.answer(Outcome::Missed));
            return Progress::Underway;
        };
        self.tell_shards(&change);
        // Another one may say of exchanges what this one had hidden.
        let mut changes = self.name_sources();
        changes.push(Change::Forget(key));
        self.tell_sources(sources);
        self.answer_after(changes, Some(asker.answer(Outcome::Applied)));
        Progress::Underway
    }

    /// What is remembered of exchanges that deduplicate no more is forgotten.
    fn tell_sources(&mut self, before: BTreeSet<u64>) {
        if !before.is_subset(&self.topology.sources()) {
            self.keep_sources();
        }
    }

    /// Queues that are another than before are so at once.
    fn tell_shards(&mut self, change: &PolicyChange) {
        let changed = self.topology.refresh_queues(change);
        self.out.shards.extend(by_shard(changed));
    }
}

/// One input for each shard that has any of them.
pub(super) fn by_shard(changed: Vec<Arc<QueueSpec>>) -> impl Iterator<Item = (ShardId, ShardInput)> {
    let mut shards: BTreeMap<ShardId, Vec<Arc<QueueSpec>>> = BTreeMap::new();
    for spec in changed {
        shards.entry(spec.queue.shard).or_default().push(spec);
    }
    shards.into_iter().map(|(shard, specs)| (shard, ShardInput::ChangeQueues { specs }))
}
