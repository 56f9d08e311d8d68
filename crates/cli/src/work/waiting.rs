//! Jobs that have come and for which there is no room yet, by queue; queues take turns by their weights.

use super::job::Job;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Debug)]
struct Line {
    jobs: VecDeque<Arc<Job>>,
    weight: i64,
    /// What it is ahead of its share (less than 0), or behind.
    credit: i64,
}

/// They.
#[derive(Debug)]
pub(super) struct Waiting {
    lines: Vec<Line>,
    len: usize,
}

impl Waiting {
    /// For queues with these weights.
    pub(super) fn new(weights: impl Iterator<Item = u32>) -> Self {
        let line = |weight: u32| Line { jobs: VecDeque::new(), weight: weight.into(), credit: 0 };
        Self { lines: weights.map(line).collect(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A job of the queue with this number.
    pub(super) fn push(&mut self, queue: usize, job: Arc<Job>) {
        self.lines[queue].jobs.push_back(job);
        self.len += 1;
    }

    /// The next one: of the queues that have some, each gets its share, evenly mixed.
    pub(super) fn pop(&mut self) -> Option<Arc<Job>> {
        if let [only] = &mut self.lines[..] {
            let job = only.jobs.pop_front()?;
            self.len -= 1;
            return Some(job);
        }
        let with_some = || self.lines.iter().filter(|line| !line.jobs.is_empty());
        let total: i64 = with_some().map(|line| line.weight).sum();
        for line in self.lines.iter_mut().filter(|line| !line.jobs.is_empty()) {
            line.credit += line.weight;
        }
        let first = self.lines.iter_mut().filter(|line| !line.jobs.is_empty()).max_by_key(|line| line.credit)?;
        first.credit -= total;
        let job = first.jobs.pop_front();
        if first.jobs.is_empty() {
            // What was missed while there was nothing is not made up for.
            first.credit = 0;
        }
        self.len -= 1;
        job
    }

    /// All of them.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Job>> {
        self.len = 0;
        self.lines.iter_mut().flat_map(|line| line.jobs.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::job;
    use super::*;

    #[test]
    fn queues_get_their_shares_and_an_empty_one_gives_its_own_away() {
        let mut waiting = Waiting::new([1, 3].into_iter());
        for _ in 0..100 {
            for (queue, body) in [(0, b"a"), (1, b"b")] {
                waiting.push(queue, Arc::new(job(amqp::Table::new(), body)));
            }
        }
        let order: Vec<u8> = std::iter::from_fn(|| waiting.pop().map(|job| job.body[0])).collect();
        assert_eq!(order[..120].iter().filter(|body| **body == b'b').count(), 90);
        for four in order[..120].chunks(4) {
            assert_eq!(four.iter().filter(|body| **body == b'a').count(), 1);
        }
        assert_eq!((order.len(), waiting.len()), (200, 0));
    }
}
