//! Jobs that are on their way: sent and not confirmed, or waiting to be sent again over the next connection.
//!
//! Jobs are numbered in the order in which they came. However confirms come, jobs leave in that order, so that one number
//! says how far everything is. One that was not taken stays at the head, and all that follow behind it.

use super::job::Job;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    jobs: VecDeque<Slot>,
    /// The number of the first job.
    first: u64,
    /// By delivery tag, from the first that is unconfirmed: which job.
    sent: VecDeque<u64>,
    first_tag: u64,
    /// How many jobs are open.
    open: usize,
    open_bytes: usize,
    /// How many were confirmed.
    pub(super) confirmed: u64,
}

#[derive(Debug)]
struct Slot {
    job: Job,
    state: State,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Sent, or to be sent.
    Open,
    /// A queue has it, or it was a duplicate.
    Taken,
    /// No queue took it, for this reason. The confirm that follows means nothing.
    Returned(String),
    /// A queue refused it.
    Refused,
}

impl Window {
    /// Nothing on its way.
    pub(super) fn new() -> Self {
        Self {
            jobs: VecDeque::new(),
            first: 0,
            sent: VecDeque::new(),
            first_tag: 1,
            open: 0,
            open_bytes: 0,
            confirmed: 0,
        }
    }

    /// How many jobs are neither taken nor refused.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// What those take.
    pub(super) fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// How many jobs there are that did not leave yet.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// A new job, which is sent now.
    pub(super) fn push(&mut self, job: Job) -> &Job {
        self.sent.push_back(self.first + self.jobs.len() as u64);
        self.open += 1;
        self.open_bytes += job.bytes();
        self.jobs.push_back(Slot { job, state: State::Open });
        &self.jobs[self.jobs.len() - 1].job
    }

    /// There is another connection: what is open is to be sent again, in this order.
    pub(super) fn begin_again(&mut self) -> impl Iterator<Item = &Job> {
        self.sent.clear();
        self.first_tag = 1;
        let numbered = (self.first..).zip(&self.jobs);
        self.sent.extend(numbered.filter(|(_, slot)| slot.state == State::Open).map(|(number, _)| number));
        self.jobs.iter().filter(|slot| slot.state == State::Open).map(|slot| &slot.job)
    }

    /// The broker has decided about a message, and if `multiple` about all before it; false for one that was not sent.
    pub(super) fn confirm(&mut self, tag: u64, multiple: bool, is_taken: bool) -> bool {
        let Some(place) = tag.checked_sub(self.first_tag).and_then(|place| usize::try_from(place).ok()) else {
            // It was decided before, as the last of several may be.
            return tag > 0;
        };
        if place >= self.sent.len() {
            return false;
        }
        if multiple {
            for _ in 0..=place {
                if let Some(number) = self.sent.pop_front() {
                    self.first_tag += 1;
                    self.decide(number, is_taken);
                }
            }
        } else {
            let number = std::mem::replace(&mut self.sent[place], DECIDED);
            self.decide(number, is_taken);
        }
        while self.sent.pop_front_if(|number| *number == DECIDED).is_some() {
            self.first_tag += 1;
        }
        true
    }

    fn decide(&mut self, number: u64, is_taken: bool) {
        let Some(place) = number.checked_sub(self.first).filter(|_| number != DECIDED) else { return };
        let Some(slot) = self.jobs.get_mut(place as usize) else { return };
        if slot.state == State::Open {
            slot.state = if is_taken { State::Taken } else { State::Refused };
            self.confirmed += u64::from(is_taken);
            self.open -= 1;
            self.open_bytes -= slot.job.bytes();
        }
    }

    /// A message came back: it is the first one that it could be.
    pub(super) fn came_back(&mut self, reason: &str, is_it: impl Fn(&Job) -> bool) {
        let found = self.jobs.iter_mut().find(|slot| slot.state == State::Open && is_it(&slot.job));
        if let Some(slot) = found {
            slot.state = State::Returned(reason.to_owned());
            self.open -= 1;
            self.open_bytes -= slot.job.bytes();
        }
    }

    /// Takes out the first job, if it is taken.
    pub(super) fn pop_taken(&mut self) -> Option<Job> {
        let slot = self.jobs.pop_front_if(|slot| slot.state == State::Taken)?;
        self.first += 1;
        Some(slot.job)
    }

    /// All jobs that did not leave, with where they stand.
    pub(super) fn left(&self) -> impl Iterator<Item = (&Job, &State)> {
        self.jobs.iter().map(|slot| (&slot.job, &slot.state))
    }

    /// Nobody confirms anything: whatever is open is taken.
    pub(super) fn believe(&mut self) {
        for slot in self.jobs.iter_mut().filter(|slot| slot.state == State::Open) {
            slot.state = State::Taken;
            self.confirmed += 1;
        }
        (self.open, self.open_bytes) = (0, 0);
        self.first_tag += self.sent.len() as u64;
        self.sent.clear();
    }
}

/// No job's number.
const DECIDED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn window(jobs: u64) -> Window {
        let mut window = Window::new();
        for line in 1..=jobs {
            window.push(Job::of_line(line, format!("job {line}")));
        }
        window
    }

    fn taken(window: &mut Window) -> Vec<u64> {
        std::iter::from_fn(|| window.pop_taken()).map(|job| job.line).collect()
    }

    #[test]
    fn jobs_leave_in_order_whatever_order_they_are_confirmed_in() {
        let mut window = window(6);
        for (tag, multiple, left) in [(3, false, vec![]), (1, false, vec![1]), (4, true, vec![2, 3, 4])] {
            assert!(window.confirm(tag, multiple, true));
            assert_eq!(taken(&mut window), left, "{tag}");
        }
        assert!(window.confirm(4, true, true), "the last of several, again");
        assert!(!window.confirm(7, false, true), "never sent");
        assert_eq!((window.open(), window.confirmed), (2, 4));
        assert!(window.confirm(6, true, true));
        assert_eq!((taken(&mut window), window.open_bytes()), (vec![5, 6], 0));
    }

    #[test]
    fn what_was_not_taken_stays_and_all_behind_it() {
        let mut window = window(4);
        window.came_back("NO_ROUTE", |job| job.line == 2);
        window.confirm(2, true, true);
        window.confirm(3, false, false);
        window.confirm(4, false, true);
        assert_eq!(taken(&mut window), [1]);
        let left: Vec<_> = window.left().map(|(job, state)| (job.line, state.clone())).collect();
        let returned = State::Returned("NO_ROUTE".to_owned());
        assert_eq!(left, [(2, returned), (3, State::Refused), (4, State::Taken)]);
        assert_eq!(window.open(), 0);
    }

    #[test]
    fn another_connection_counts_anew_and_gets_what_is_open() {
        let mut window = window(5);
        window.confirm(2, false, true);
        window.confirm(4, false, true);
        let again: Vec<_> = window.begin_again().map(|job| job.line).collect();
        assert_eq!(again, [1, 3, 5]);
        window.push(Job::of_line(6, "job 6".to_owned()));
        window.confirm(2, true, true);
        assert_eq!(taken(&mut window), [1, 2, 3, 4]);
        window.confirm(4, false, true);
        assert_eq!((taken(&mut window), window.open()), (vec![], 1));
        window.confirm(3, false, true);
        assert_eq!(taken(&mut window), [5, 6]);
    }
}
