//! How far a run has come: one tally a thread, written by that thread alone and read by whoever watches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What one thread has done so far. Alone on its cache lines, so that counting stays cheap.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tally {
    published: AtomicU64,
    confirmed: AtomicU64,
    consumed: AtomicU64,
    at_ns: AtomicU64,
}

/// The same as plain numbers, of one thread or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Messages written to a socket.
    pub(super) published: u64,
    /// Messages confirmed.
    pub(super) confirmed: u64,
    /// Messages received whole.
    pub(super) consumed: u64,
}

impl Tally {
    /// Replaces what was told before, at this time.
    pub(super) fn set(&self, counts: Counts, now_ns: u64) {
        self.published.store(counts.published, Ordering::Relaxed);
        self.confirmed.store(counts.confirmed, Ordering::Relaxed);
        self.consumed.store(counts.consumed, Ordering::Relaxed);
        self.at_ns.store(now_ns, Ordering::Relaxed);
    }
}

/// When the last of all threads' counts changed, on the run's clock.
pub(super) fn last_change_ns(tallies: &[Tally]) -> u64 {
    tallies.iter().map(|tally| tally.at_ns.load(Ordering::Relaxed)).max().unwrap_or(0)
}

impl Counts {
    /// The sum over all threads.
    pub(super) fn of(tallies: &[Tally]) -> Self {
        tallies.iter().fold(Self::default(), |sum, tally| Self {
            published: sum.published + tally.published.load(Ordering::Relaxed),
            confirmed: sum.confirmed + tally.confirmed.load(Ordering::Relaxed),
            consumed: sum.consumed + tally.consumed.load(Ordering::Relaxed),
        })
    }

    /// What was done between `earlier` and this.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            published: self.published - earlier.published,
            confirmed: self.confirmed - earlier.confirmed,
            consumed: self.consumed - earlier.consumed,
        }
    }

    /// How many messages passed the broker in or out, whichever were more: what its processor time is divided by.
    pub(super) fn messages(self) -> u64 {
        self.published.max(self.consumed)
    }
}

/// Whether a run is over: set once, by its clock or by whoever failed.
#[derive(Debug, Default)]
pub(super) struct Over(AtomicBool);

impl Over {
    /// Ends the run.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
