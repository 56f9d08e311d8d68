//! A page of a calendar: messages of one stretch of time, packed in the order of their positions.
//!
//! Most come in that order, and join its end. The others stand aside until they are so many that all are packed anew: to
//! open the packed ones at a place of its own for each would cost far more.

use super::backlog::Backlog;
use super::run::Run;
use std::collections::BTreeMap;
use store::{Lsn, Seq};

/// A time, and a position that breaks ties.
pub(crate) type Key = (u64, Seq);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) runs: Backlog,
    /// Those that came after others of a higher position. When they are many, all are packed anew.
    pub(super) late: BTreeMap<Seq, Run>,
    /// How many runs there are, or more.
    pub(super) count: usize,
    /// No key is above this one.
    pub(super) last: Key,
}

impl Page {
    /// Of runs in the order of their positions.
    pub(super) fn of(runs: &[Run]) -> Self {
        let mut page = Self::default();
        runs.iter().for_each(|run| page.insert(*run));
        page
    }

    pub(super) fn insert(&mut self, run: Run) {
        self.last = self.last.max(key_of(&run));
        self.count += 1;
        if self.runs.last_seq() < Some(run.seq) {
            return self.runs.insert(run);
        }
        self.late.insert(run.seq, run);
        if self.late.len() > LATE_MIN.max(self.count / LATE_SHARE) {
            self.join_late();
        }
    }

    fn join_late(&mut self) {
        let mut joined = Backlog::default();
        self.range(Seq(0)).for_each(|run| joined.insert(run));
        self.late.clear();
        self.runs = joined;
        self.count = self.runs.runs();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.late.is_empty()
    }

    /// The late run that has this position.
    fn late_at(&self, seq: Seq) -> Option<Run> {
        let (_, run) = self.late.range(..=seq).next_back()?;
        run.message(seq).map(|_| *run)
    }

    pub(super) fn get(&self, seq: Seq) -> Option<Run> {
        self.late_at(seq).and_then(|run| run.message(seq)).or_else(|| self.runs.get(seq))
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Run> {
        self.count += 1;
        let Some(mut run) = self.late_at(seq) else { return self.runs.remove(seq) };
        self.late.remove(&run.seq);
        if run.seq < seq {
            let rest = run.split_off((seq.0 - run.seq.0) as u32);
            self.late.insert(run.seq, std::mem::replace(&mut run, rest));
        }
        if run.count > 1 {
            let rest = run.split_off(1);
            self.late.insert(rest.seq, rest);
        }
        Some(run)
    }

    pub(super) fn move_to(&mut self, seq: Seq, lsn: Lsn) -> bool {
        self.count += 2;
        if self.late_at(seq).is_none() {
            return self.runs.move_to(seq, lsn);
        }
        let run = self.remove(seq);
        self.late.extend(run.map(|run| (seq, Run { lsn, ..run })));
        run.is_some()
    }

    /// Those from this position on, in the order of positions.
    pub(super) fn range(&self, from: Seq) -> impl Iterator<Item = Run> {
        let start = self.late_at(from).map_or(from, |run| run.seq);
        let mut late = self.late.range(start..).map(move |(_, run)| run.not_below(from)).peekable();
        let mut runs = self.runs.range(from).peekable();
        std::iter::from_fn(move || match (late.peek(), runs.peek()) {
            (Some(one), Some(other)) if one.seq < other.seq => late.next(),
            (_, Some(_)) => runs.next(),
            (_, None) => late.next(),
        })
    }

    /// In the order of their positions.
    pub(super) fn into_runs(self) -> Vec<Run> {
        self.range(Seq(0)).collect()
    }

    pub(super) fn into_backlog(mut self) -> Backlog {
        if !self.late.is_empty() {
            self.join_late();
        }
        self.runs
    }

    /// The lowest and the highest position.
    pub(super) fn ends(&self) -> Option<(Seq, Seq)> {
        let late = self.late.first_key_value().zip(self.late.last_key_value());
        let late = late.map(|((first, _), (_, last))| (*first, last.last_seq()));
        let ends = late.into_iter().chain(self.runs.first_seq().zip(self.runs.last_seq()));
        ends.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        self.runs.heap_bytes() + (self.late.len() * LATE_BYTES) as u64 + PAGE_BYTES
    }
}

pub(super) fn key_of(run: &Run) -> Key {
    (run.due_at_ms, run.seq)
}

/// So many late ones have a page packed anew, …
const LATE_MIN: usize = 64;
/// … or, of many, such a part.
const LATE_SHARE: usize = 8;
/// About what a late one takes.
const LATE_BYTES: usize = (size_of::<Seq>() + size_of::<Run>()) * 3 / 2;
/// About what a page takes beside its runs.
const PAGE_BYTES: u64 = (size_of::<Key>() + size_of::<Page>()) as u64 * 2;
