//! How a job ended, and what becomes of its message.

use bytes::Bytes;
use std::time::Duration;

/// What becomes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    /// It is acknowledged.
    Done,
    /// It goes back to its queue as a failed attempt, which has its pause and its limit.
    Retry,
    /// It is dead-lettered at once.
    Dead,
    /// It goes back as if it never left: the job was not begun.
    Return,
}

impl Verdict {
    /// As logs and metrics call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Return => "returned",
        }
    }

    pub(super) const ALL: [Self; 4] = [Self::Done, Self::Retry, Self::Dead, Self::Return];
}

/// How a job ended.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) verdict: Verdict,
    /// Why, in short; empty for what is done.
    pub(super) why: String,
    /// The end of what the program wrote to standard error, or of what a web hook answered.
    pub(super) details: Vec<u8>,
    /// What it gave as its result, if somebody wants one.
    pub(super) reply: Option<Bytes>,
    pub(super) took: Duration,
    /// For so long the other side wants no more jobs.
    pub(super) pause: Option<Duration>,
}

impl Ending {
    /// A job that is done.
    pub(super) fn done(took: Duration) -> Self {
        Self { verdict: Verdict::Done, why: String::new(), details: Vec::new(), reply: None, took, pause: None }
    }

    /// A job that failed, in whichever way.
    pub(super) fn failed(verdict: Verdict, why: impl Into<String>, took: Duration) -> Self {
        Self { verdict, why: why.into(), ..Self::done(took) }
    }

    /// The last line of its details that says something.
    pub(super) fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.details);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.chars().take(LINE_CHARS_MAX).collect())
    }
}

const LINE_CHARS_MAX: usize = 300;
