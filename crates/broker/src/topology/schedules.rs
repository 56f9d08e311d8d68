//! Schedules by name.

use super::Topology;
use crate::command::{ShardId, VhostId};
use crate::schedule::{Firing, Schedule, ScheduleId};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    all: BTreeMap<(VhostId, Arc<str>), Arc<Schedule>>,
    ids: FxHashSet<ScheduleId>,
    /// Counts the changes.
    changes: u64,
    /// What the shards knew when the server started.
    firings: Vec<(ShardId, Firing)>,
}

impl Topology {
    /// All schedules, by vhost and name.
    pub fn schedules(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        self.schedules.all.values()
    }

    /// The schedule of this name.
    #[must_use]
    pub fn schedule(&self, vhost: VhostId, name: &str) -> Option<&Arc<Schedule>> {
        self.schedules.all.get(&(vhost, name.into()))
    }

    /// Grows with each change of any schedule.
    #[must_use]
    pub fn schedule_changes(&self) -> u64 {
        self.schedules.changes
    }

    /// What the logs of the shards said of schedules when the server started.
    #[must_use]
    pub fn found_firings(&self) -> &[(ShardId, Firing)] {
        &self.schedules.firings
    }

    pub(crate) fn has_schedule(&self, id: ScheduleId) -> bool {
        self.schedules.ids.contains(&id)
    }

    pub(crate) fn put_schedule(&mut self, schedule: Arc<Schedule>) {
        self.schedules.changes += 1;
        self.schedules.ids.insert(schedule.id);
        self.schedules.all.insert((schedule.vhost, Arc::clone(&schedule.name)), schedule);
    }

    pub(crate) fn remove_schedule(&mut self, vhost: VhostId, name: &str) -> Option<Arc<Schedule>> {
        let schedule = self.schedules.all.remove(&(vhost, name.into()))?;
        self.schedules.changes += 1;
        self.schedules.ids.remove(&schedule.id);
        Some(schedule)
    }

    pub(crate) fn remember_firing(&mut self, shard: ShardId, firing: Firing) {
        self.schedules.firings.push((shard, firing));
    }
}
