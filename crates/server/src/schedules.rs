//! Recurring messages: which schedules are due, and the firing of them.
//!
//! The catalog has the schedules, the shards know what of each was fired last. This task works out when each is due, and
//! asks the shards of the queues that get the message to take it. It says which occurrence that is, and a shard that has
//! had that one ignores it: so what is not answered is asked for again, also by the next start, and no occurrence comes
//! twice. Of an occurrence that goes into several shards each knows the others; the next start completes what a crash
//! left undone.

mod cron;
mod plan;

pub(crate) use plan::Plan;

use crate::switchboard::{Switchboard, Unanswered};
use amqp::{Properties, PropertyList};
use broker::command::{Delay, Publish, QueueRef, ShardId};
use broker::message::{Message, MessageParts, hold_back, parse_expiration};
use broker::schedule::{Fire, Firing, Schedule, ScheduleId};
use broker::topology::{Routes, Topology};
use bytes::BytesMut;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// All schedules, as they stand.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    all: HashMap<ScheduleId, Entry>,
    /// What is due when; those that are being fired are not in it.
    line: BTreeSet<(u64, ScheduleId)>,
    /// The changes of schedules that are heeded; `None` before the first look.
    changes: Option<u64>,
}

/// One of them.
#[derive(Debug)]
struct Entry {
    schedule: Arc<Schedule>,
    plan: Result<Plan, String>,
    standing: Standing,
    /// Its place in the line.
    next_ms: Option<u64>,
    is_firing: bool,
}

/// How a schedule stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// All occurrences up to here are dealt with.
    done_ms: u64,
    /// The one that a crash may have left undone in some shards.
    undone_ms: Option<u64>,
    /// When the last message was fired; 0 = never.
    pub(crate) last_ms: u64,
    pub(crate) fired: u64,
    pub(crate) missed: u64,
    pub(crate) failed: u64,
    pub(crate) error: String,
}

/// A schedule with something due.
#[derive(Debug)]
struct Job {
    schedule: Arc<Schedule>,
    standing: Standing,
    fire: Vec<u64>,
    missed: u64,
    until_ms: u64,
}

/// Runs for as long as the server.
pub(crate) async fn run(board: Arc<Switchboard>) {
    let scheduler = board.scheduler();
    let mut firings = JoinSet::new();
    loop {
        let now_ms = board.clock().now().unix_ms;
        scheduler.refresh(&board.topology());
        let shortage = board.alarms().shortage();
        // Publishers wait while something is short, and so do schedules.
        if !(shortage.memory || shortage.disk) {
            while firings.len() < FIRINGS_MAX
                && let Some(job) = scheduler.take_due(now_ms)
            {
                firings.spawn(carry_out(Arc::clone(&board), job));
            }
        }
        let is_busy = firings.len() >= FIRINGS_MAX;
        let wait = scheduler.next_ms().map(|next_ms| Duration::from_millis(next_ms.saturating_sub(now_ms)).min(LOOK));
        let wait = wait.map(|wait| if wait.is_zero() { LOOK } else { wait });
        tokio::select! {
            Some(done) = firings.join_next(), if !firings.is_empty() => {
                if let Ok((id, standing)) = done {
                    scheduler.finish(id, standing, board.clock().now().unix_ms);
                }
            }
            () = scheduler.news.notified() => {}
            // Never longer than that: somebody may set the clock.
            () = sleep(wait.unwrap_or_default()), if wait.is_some() && !is_busy => {}
        }
    }
}

impl Scheduler {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may have changed.
    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    /// How a schedule stands, when it is due next, and why it never is.
    pub(crate) fn look(&self, id: ScheduleId) -> Option<(Standing, Option<u64>, Option<String>)> {
        let state = self.state();
        let entry = state.all.get(&id)?;
        let next_ms = if entry.is_firing { entry.next_occurrence() } else { entry.next_ms };
        Some((entry.standing.clone(), next_ms, entry.plan.as_ref().err().cloned()))
    }

    /// Heeds what changed since the last time.
    fn refresh(&self, topology: &Topology) {
        let mut state = self.state();
        let changes = topology.schedule_changes();
        if state.changes == Some(changes) {
            return;
        }
        let mut found: HashMap<ScheduleId, Standing> = HashMap::new();
        if state.changes.is_none() {
            found = standings(topology.found_firings());
        }
        state.changes = Some(changes);
        let mut gone: BTreeSet<ScheduleId> = state.all.keys().copied().collect();
        for schedule in topology.schedules() {
            gone.remove(&schedule.id);
            let former = state.all.remove(&schedule.id);
            if let Some(former) = former {
                if Arc::ptr_eq(&former.schedule, schedule) {
                    state.all.insert(schedule.id, former);
                    continue;
                }
                if let Some(next_ms) = former.next_ms {
                    state.line.remove(&(next_ms, schedule.id));
                }
                state.put(Entry::new(schedule, former.standing, former.is_firing));
            } else {
                state.put(Entry::new(schedule, found.remove(&schedule.id).unwrap_or_default(), false));
            }
        }
        for id in gone {
            if let Some(next_ms) = state.all.remove(&id).and_then(|entry| entry.next_ms) {
                state.line.remove(&(next_ms, id));
            }
        }
    }

    /// The next schedule with something due; what is only missed is noted.
    fn take_due(&self, now_ms: u64) -> Option<Job> {
        let mut state = self.state();
        loop {
            let (_, id) = *state.line.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
            state.line.pop_first();
            let Some(entry) = state.all.get_mut(&id) else { continue };
            entry.next_ms = None;
            let (mut standing, schedule) = (entry.standing.clone(), Arc::clone(&entry.schedule));
            if let Some(undone_ms) = standing.undone_ms {
                entry.is_firing = true;
                // It was counted where it arrived.
                standing.fired = standing.fired.saturating_sub(1);
                return Some(Job { schedule, standing, fire: vec![undone_ms], missed: 0, until_ms: undone_ms });
            }
            let Ok(plan) = &entry.plan else { continue };
            let due = plan.due(standing.done_ms, now_ms, schedule.missed);
            let Some(until_ms) = due.until_ms else {
                // The clock was put back in the meantime.
                state.line_up(id);
                continue;
            };
            if due.fire.is_empty() {
                // Until the next one is fired this is in no log: a restart counts the same ones again.
                entry.standing.missed += due.missed;
                entry.standing.done_ms = until_ms;
                state.line_up(id);
                continue;
            }
            entry.is_firing = true;
            return Some(Job { schedule, standing, fire: due.fire, missed: due.missed, until_ms });
        }
    }

    fn next_ms(&self) -> Option<u64> {
        self.state().line.first().map(|(at_ms, _)| *at_ms)
    }

    /// A job is done, or what is left of it cannot be now.
    fn finish(&self, id: ScheduleId, outcome: Result<Standing, Standing>, now_ms: u64) {
        let mut state = self.state();
        let Some(entry) = state.all.get_mut(&id) else { return };
        entry.is_firing = false;
        match outcome {
            Ok(standing) => {
                entry.standing = standing;
                state.line_up(id);
            }
            Err(standing) => {
                entry.standing = standing;
                entry.next_ms = Some(now_ms + AGAIN_MS);
                state.line.insert((now_ms + AGAIN_MS, id));
            }
        }
    }
}

impl State {
    fn put(&mut self, entry: Entry) {
        let id = entry.schedule.id;
        self.all.insert(id, entry);
        self.line_up(id);
    }

    /// Gives a schedule its place in the line, if it is due some time.
    fn line_up(&mut self, id: ScheduleId) {
        let Some(entry) = self.all.get_mut(&id).filter(|entry| !entry.is_firing) else { return };
        entry.next_ms = entry.next_occurrence();
        if let Some(next_ms) = entry.next_ms {
            self.line.insert((next_ms, id));
        }
    }
}

impl Entry {
    fn new(schedule: &Arc<Schedule>, standing: Standing, is_firing: bool) -> Self {
        Self { plan: Plan::new(schedule), schedule: Arc::clone(schedule), standing, next_ms: None, is_firing }
    }

    fn next_occurrence(&self) -> Option<u64> {
        if let Some(undone_ms) = self.standing.undone_ms {
            return Some(undone_ms);
        }
        let plan = self.plan.as_ref().ok().filter(|_| self.schedule.is_enabled)?;
        plan.next_after(self.standing.done_ms)
    }
}

/// What the shards knew of each schedule.
fn standings(found: &[(ShardId, Firing)]) -> HashMap<ScheduleId, Standing> {
    let mut latest: HashMap<ScheduleId, &Firing> = HashMap::new();
    for (_, firing) in found {
        let best = latest.entry(firing.schedule).or_insert(firing);
        // What one shard took counts, whatever another one refused.
        if (firing.at_ms, firing.fired) > (best.at_ms, best.fired) {
            *best = firing;
        }
    }
    let knows = |shard: &ShardId, of: &Firing| {
        found.iter().any(|(at, firing)| at == shard && firing.schedule == of.schedule && firing.at_ms >= of.at_ms)
    };
    let standing = |firing: &Firing| {
        let is_whole = firing.shards.len() < 2 || firing.shards.iter().all(|shard| knows(shard, firing));
        let undone_ms = (!is_whole).then_some(firing.at_ms);
        Standing { undone_ms, ..Standing::from(firing) }
    };
    latest.into_iter().map(|(id, firing)| (id, standing(firing))).collect()
}

impl From<&Firing> for Standing {
    fn from(firing: &Firing) -> Self {
        let Firing { at_ms, fired_ms, fired, missed, failed, .. } = *firing;
        Self { done_ms: at_ms, undone_ms: None, last_ms: fired_ms, fired, missed, failed, error: firing.error.clone() }
    }
}

/// Fires what of a schedule is due, in order. Comes back with how it stands then; an error where the rest has to wait.
async fn carry_out(board: Arc<Switchboard>, job: Job) -> (ScheduleId, Result<Standing, Standing>) {
    let Job { schedule, mut standing, fire, missed, until_ms } = job;
    let id = schedule.id;
    standing.missed += missed;
    for at_ms in fire {
        match fire_one(&board, &schedule, at_ms, &standing).await {
            Ok(next) => standing = next,
            Err(Unanswered) => {
                // Not to be counted again.
                standing.done_ms = standing.done_ms.max(at_ms - 1);
                standing.error = "a shard did not answer in time; it is tried again".to_owned();
                return (id, Err(standing));
            }
        }
    }
    standing.done_ms = standing.done_ms.max(until_ms);
    (id, Ok(standing))
}

/// Fires one occurrence into all shards that get it.
async fn fire_one(
    board: &Switchboard,
    schedule: &Schedule,
    at_ms: u64,
    before: &Standing,
) -> Result<Standing, Unanswered> {
    let prepared = prepare(&board.topology(), schedule, Some(at_ms));
    let (publishes, error) = match prepared {
        Ok(publishes) => {
            (publishes.into_iter().map(|(shard, publish)| (shard, Some(publish))).collect(), String::new())
        }
        // That nobody got it has to be known, too.
        Err(error) => (vec![(ShardId(0), None)], error),
    };
    let firing = Firing {
        schedule: schedule.id,
        at_ms,
        fired_ms: board.clock().now().unix_ms,
        fired: before.fired,
        missed: before.missed,
        failed: before.failed,
        error,
        shards: publishes.iter().map(|(shard, _)| *shard).collect(),
    };
    let mut standing: Option<Standing> = None;
    let mut answers = Vec::with_capacity(publishes.len());
    for (shard, publish) in publishes {
        // Posted at once, all of them; then each is waited for.
        answers.push(board.fire(shard, Fire { ticket: 0, firing: firing.clone(), publish }));
    }
    for answer in answers {
        let told = Standing::from(&answer.await?);
        if standing.as_ref().is_none_or(|best| told.fired > best.fired) {
            standing = Some(told);
        }
    }
    Ok(standing.unwrap_or_else(|| before.clone()))
}

/// A schedule's message for each shard that has a queue for it. `at_ms` is the occurrence; `None` if it is fired by hand.
///
/// # Errors
/// A sentence that says why nobody gets it.
pub(crate) fn prepare(
    topology: &Topology,
    schedule: &Schedule,
    at_ms: Option<u64>,
) -> Result<Vec<(ShardId, Publish)>, String> {
    let Schedule { vhost, exchange, routing_key, .. } = schedule;
    let unreadable = || "its properties cannot be read".to_owned();
    let mut list = PropertyList::from(&Properties::parse(&schedule.properties).map_err(|_| unreadable())?);
    let headers = list.headers.get_or_insert_default();
    let delay_ms = hold_back(headers);
    headers.insert(NAME, &*schedule.name);
    if let Some(at_ms) = at_ms {
        headers.insert(OCCURRENCE, at_ms.cast_signed());
    }
    let mut raw = BytesMut::new();
    list.encode(&mut raw);
    let properties = Properties::parse(&raw).map_err(|_| unreadable())?;
    let mut routes = Routes::seeded(getrandom::u64().unwrap_or_default());
    let routed = topology.route(*vhost, exchange, &[routing_key], &properties, &mut routes);
    routed.map_err(|_| format!("there is no exchange {exchange:?} any more"))?;
    if routes.queues.is_empty() {
        return Err(match exchange.as_str() {
            "" => format!("there is no queue {routing_key:?}"),
            _ => format!("exchange {exchange:?} has no queue for routing key {routing_key:?}"),
        });
    }
    let parts = MessageParts { exchange, routing_key, properties: &raw, died_here: false };
    let message = Message::new(parts, &schedule.body);
    let expiration_ms = properties.expiration().and_then(|text| parse_expiration(text).ok());
    let publish = |queues: &[QueueRef]| Publish {
        queues: queues.iter().map(|queue| queue.id).collect(),
        message: message.clone(),
        more: Vec::new(),
        persistent: properties.delivery_mode() == Some(2),
        expiration_ms,
        priority: properties.priority(),
        delay: delay_ms.map(Delay::For),
        confirm: true,
    };
    let shards = routes.queues.chunk_by(|one, other| one.shard == other.shard);
    Ok(shards.map(|queues| (queues[0].shard, publish(queues))).collect())
}

/// The header with the schedule's name.
pub(crate) const NAME: &str = "x-schedule";
/// The header with the time of the occurrence, in Unix milliseconds.
pub(crate) const OCCURRENCE: &str = "x-schedule-time";
/// How many schedules are fired at the same time.
const FIRINGS_MAX: usize = 1024;
/// Somebody looks at the clock at least as often as that.
const LOOK: Duration = Duration::from_secs(1);
/// After so long it is tried again where a shard does not answer.
const AGAIN_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn firing(schedule: u64, at_ms: u64, fired: u64, shards: &[u16]) -> Firing {
        let shards = shards.iter().copied().map(ShardId).collect();
        Firing { schedule: ScheduleId(schedule), at_ms, fired, shards, ..Firing::default() }
    }

    #[test]
    fn what_a_crash_left_undone_in_some_shards_is_found() {
        let found = [
            // Whole: both have the last one.
            (ShardId(0), firing(1, 500, 5, &[0, 1])),
            (ShardId(1), firing(1, 500, 5, &[0, 1])),
            // Shard 1 lacks the last one.
            (ShardId(0), firing(2, 500, 5, &[0, 1])),
            (ShardId(1), firing(2, 400, 4, &[0, 1])),
            // Shard 1 has never had any.
            (ShardId(0), firing(3, 500, 1, &[0, 1])),
            // It went elsewhere before.
            (ShardId(0), firing(4, 500, 1, &[0])),
            (ShardId(1), firing(4, 400, 9, &[1])),
        ];
        let standings = standings(&found);
        let of = |id| {
            let standing = &standings[&ScheduleId(id)];
            (standing.done_ms, standing.undone_ms, standing.fired)
        };
        assert_eq!(of(1), (500, None, 5));
        assert_eq!(of(2), (500, Some(500), 5));
        assert_eq!(of(3), (500, Some(500), 1));
        assert_eq!(of(4), (500, None, 1));
    }
}
