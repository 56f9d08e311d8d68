//! Schedules are set and deleted.

use super::facts::Change;
use super::{Asker, Progress, Step};
use crate::command::{Outcome, ShardId, ShardInput};
use crate::fact::{firing_key, schedule_fact, schedule_key};
use crate::schedule::{Schedule, ScheduleId};
use std::sync::Arc;

impl Step<'_> {
    /// One that takes the place of another goes on where that one is.
    pub(super) fn set_schedule(&mut self, asker: Asker, mut schedule: Schedule) -> Progress {
        let former = self.topology.schedule(schedule.vhost, &schedule.name);
        schedule.id = match former {
            Some(former) => former.id,
            None => {
                self.catalog.last_queue += 1;
                ScheduleId(self.catalog.last_queue)
            }
        };
        let (key, value) = schedule_fact(self.vhost_name(schedule.vhost), &schedule);
        self.topology.put_schedule(Arc::new(schedule));
        self.answer_after(vec![Change::Put(key, value)], Some(asker.answer(Outcome::Applied)));
        Progress::Underway
    }

    /// `Missed` if there is none of that name.
    pub(super) fn delete_schedule(&mut self, asker: Asker, name: &str) -> Progress {
        let Some(schedule) = self.topology.remove_schedule(asker.vhost, name) else {
            return Progress::Done(Outcome::Missed);
        };
        let key = schedule_key(self.vhost_name(asker.vhost), name);
        self.answer_after(vec![Change::Forget(key)], Some(asker.answer(Outcome::Applied)));
        // What a crash leaves of these is forgotten by the next start.
        for shard in 0..self.catalog.shards {
            self.send(ShardId(shard), ShardInput::ForgetFact { key: firing_key(schedule.id), ticket: None });
        }
        Progress::Underway
    }
}
