//! Jobs that ran when their connection was lost: the broker has given their messages back to their queues, and sends them
//! again, here or elsewhere.
//!
//! What comes again while it still runs here is not begun a second time, and what has ended meanwhile is not run again: the new
//! delivery is taken for the old one. A message is known by all that a worker can see of it; so two that are alike in
//! everything may be taken for each other, which no worker can tell. Only what has a message id, or was delivered before as
//! the broker says, can be one that came again.

use super::ending::Ending;
use super::job::{Fingerprint, Job, JobId};
use std::collections::HashMap;
use std::hash::RandomState;
use std::time::{Duration, Instant};

/// One of them.
#[derive(Debug)]
pub(super) enum Orphan {
    /// It runs under this name.
    Running(JobId),
    /// It has ended so, at that time.
    Ended(Box<Ending>, Instant),
}

/// They.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    secret: RandomState,
    known: HashMap<Fingerprint, Vec<Orphan>>,
}

impl Orphans {
    /// The connection of a job that runs is lost.
    pub(super) fn lost(&mut self, job: &Job) {
        self.known.entry(job.fingerprint(&self.secret)).or_default().push(Orphan::Running(job.id));
    }

    /// One of them has ended.
    pub(super) fn ended(&mut self, job: &Job, ending: Box<Ending>, now: Instant) {
        let known = self.known.entry(job.fingerprint(&self.secret)).or_default();
        known.retain(|orphan| !matches!(orphan, Orphan::Running(id) if *id == job.id));
        known.push(Orphan::Ended(ending, now));
    }

    /// The one that this new delivery is, which is none any more.
    pub(super) fn adopt(&mut self, job: &Job) -> Option<Orphan> {
        if self.known.is_empty() || !(job.redelivered || job.message_id().is_some()) {
            return None;
        }
        let fingerprint = job.fingerprint(&self.secret);
        let known = self.known.get_mut(&fingerprint)?;
        let orphan = known.pop();
        if known.is_empty() {
            self.known.remove(&fingerprint);
        }
        orphan
    }

    /// Forgets those that ended long ago: their messages went elsewhere.
    pub(super) fn forget(&mut self, now: Instant) {
        self.known.retain(|_, orphans| {
            orphans.retain(|orphan| match orphan {
                Orphan::Running(_) => true,
                Orphan::Ended(_, at) => now.saturating_duration_since(*at) < REMEMBERED,
            });
            !orphans.is_empty()
        });
    }
}

/// Longer than a broker needs to come back, and to give out again what it has.
const REMEMBERED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::super::job::tests::job;
    use super::*;
    use amqp::Table;

    #[test]
    fn what_comes_again_is_taken_for_what_runs_or_ran_and_only_once() {
        let (mut orphans, now) = (Orphans::default(), Instant::now());
        let (first, second) = (job(Table::new(), b"1"), job(Table::new(), b"2"));
        orphans.lost(&first);
        orphans.lost(&second);
        orphans.ended(&second, Box::new(Ending::done(Duration::ZERO)), now);
        assert!(matches!(orphans.adopt(&job(Table::new(), b"1")), Some(Orphan::Running(JobId(7)))));
        assert!(orphans.adopt(&job(Table::new(), b"1")).is_none());
        assert!(orphans.adopt(&job(Table::new(), b"3")).is_none());
        assert!(matches!(orphans.adopt(&job(Table::new(), b"2")), Some(Orphan::Ended(..))));
        assert!(orphans.known.is_empty());
    }

    #[test]
    fn what_has_no_id_is_known_by_being_redelivered() {
        let anonymous = |redelivered| Job {
            properties: bytes::Bytes::from_static(&[0, 0]),
            redelivered,
            ..job(Table::new(), b"1")
        };
        let mut orphans = Orphans::default();
        orphans.lost(&anonymous(false));
        assert!(orphans.adopt(&anonymous(false)).is_none());
        assert!(orphans.adopt(&anonymous(true)).is_some());
    }

    #[test]
    fn an_old_result_is_forgotten() {
        let (mut orphans, now) = (Orphans::default(), Instant::now());
        orphans.lost(&job(Table::new(), b"1"));
        orphans.ended(&job(Table::new(), b"1"), Box::new(Ending::done(Duration::ZERO)), now);
        orphans.forget(now + REMEMBERED / 2);
        assert!(!orphans.known.is_empty());
        orphans.forget(now + REMEMBERED);
        assert!(orphans.adopt(&job(Table::new(), b"1")).is_none());
    }
}
