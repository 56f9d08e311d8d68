//! How far the long parts have come, on one line of a terminal; elsewhere nothing.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// One part of a measurement.
#[derive(Debug)]
pub(super) struct Progress {
    part: String,
    total: u64,
    is_shown: bool,
    shown_at: Instant,
}

impl Progress {
    /// A part that is over at `total`.
    pub(super) fn new(part: impl Into<String>, total: u64) -> Self {
        Self { part: part.into(), total: total.max(1), is_shown: io::stderr().is_terminal(), shown_at: Instant::now() }
    }

    /// Shows that `done` is done.
    #[inline]
    pub(super) fn show(&mut self, done: u64) {
        if self.is_shown && self.shown_at.elapsed() >= REFRESH {
            self.shown_at = Instant::now();
            self.write(&format!("{} {} %", self.part, done * 100 / self.total));
        }
    }

    fn write(&self, line: &str) {
        // Nobody is left to be told when stderr is gone.
        let _closed = write!(io::stderr(), "\r\x1b[K{line}").and_then(|()| io::stderr().flush());
    }
}

impl Drop for Progress {
    /// Leaves the line empty for what comes next.
    fn drop(&mut self) {
        if self.is_shown {
            self.write("");
        }
    }
}

const REFRESH: Duration = Duration::from_millis(200);
