//! Messages that are alike and follow one another: what an index knows of them.

use super::ready::NEAR_BYTES;
use store::{Lsn, Seq, SeqRange};

/// Messages that follow one another without a gap in queue and log and are alike in all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The position of the first.
    pub(crate) seq: Seq,
    /// How many; at least one.
    pub(crate) count: u32,
    /// The record of the first.
    pub(crate) lsn: Lsn,
    /// The length of each one's payload, …
    pub(crate) payload_bytes: u32,
    /// … and how much of it comes before the body.
    pub(crate) header_bytes: u32,
    /// Unix milliseconds; 0 = never.
    pub(crate) expires_at_ms: u64,
    /// Not to be delivered before (unix ms); 0 = it never had to wait.
    pub(crate) due_at_ms: u64,
    pub(crate) priority: u8,
    /// Failed deliveries so far.
    pub(crate) attempts: u32,
    pub(crate) redelivered: bool,
    /// Survives the server.
    pub(crate) kept: bool,
    /// Who holds it, when it is a delivered one; otherwise 0.
    pub(crate) holder: u32,
    /// Since when; of a delivered one, too.
    pub(crate) since_ms: u64,
}

impl Run {
    /// The position of its last message.
    pub(crate) fn last_seq(&self) -> Seq {
        Seq(self.seq.0 + u64::from(self.count - 1))
    }

    /// One of its messages.
    pub(crate) fn message(&self, seq: Seq) -> Option<Run> {
        let before = seq.0.checked_sub(self.seq.0).filter(|before| *before < u64::from(self.count))?;
        Some(Run { seq, count: 1, lsn: self.lsn.plus(before), ..*self })
    }

    /// Gives away all but the first `count`, of which there is at least one, as there is of the others.
    pub(crate) fn split_off(&mut self, count: u32) -> Run {
        let rest = Run {
            seq: Seq(self.seq.0 + u64::from(count)),
            count: self.count - count,
            lsn: self.lsn.plus(u64::from(count)),
            ..*self
        };
        self.count = count;
        rest
    }

    /// What of it is not below `from`, as its last message is not.
    pub(super) fn not_below(mut self, from: Seq) -> Run {
        if self.seq >= from { self } else { self.split_off((from.0 - self.seq.0) as u32) }
    }

    /// Its positions.
    pub(crate) fn range(&self) -> SeqRange {
        SeqRange { first: self.seq, last: self.last_seq() }
    }

    /// About what its messages take in memory when they are near.
    pub(crate) fn near_bytes(&self) -> u64 {
        u64::from(self.count) * (u64::from(self.payload_bytes) + NEAR_BYTES)
    }

    /// Each message, as a run of its own.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Self> + use<> {
        let run = *self;
        (0..run.count).map(move |at| {
            let seq = Seq(run.seq.0 + u64::from(at));
            Self { seq, count: 1, lsn: run.lsn.plus(u64::from(at)), ..run }
        })
    }

    /// Takes the next run in if it continues this one.
    pub(crate) fn absorb(&mut self, next: &Self) -> bool {
        let (count, steps) = (self.count, u64::from(self.count));
        let expected = Self { seq: Seq(self.seq.0 + steps), count: next.count, lsn: self.lsn.plus(steps), ..*self };
        match count.checked_add(next.count) {
            Some(sum) if expected == *next => {
                self.count = sum;
                true
            }
            _ => false,
        }
    }

    /// As a checkpoint has it.
    pub(crate) fn stored(&self) -> store::Run {
        store::Run {
            seq: self.seq,
            count: self.count,
            lsn: self.lsn,
            payload_bytes: self.payload_bytes,
            header_bytes: self.header_bytes,
            expires_at_ms: self.expires_at_ms,
            priority: self.priority,
            attempts: self.attempts,
            redelivered: self.redelivered,
            due_at_ms: self.due_at_ms,
        }
    }
}

impl From<store::Run> for Run {
    /// A checkpoint has only what is kept.
    fn from(run: store::Run) -> Self {
        Self {
            seq: run.seq,
            count: run.count,
            lsn: run.lsn,
            payload_bytes: run.payload_bytes,
            header_bytes: run.header_bytes,
            expires_at_ms: run.expires_at_ms,
            due_at_ms: run.due_at_ms,
            priority: run.priority,
            attempts: run.attempts,
            redelivered: run.redelivered,
            kept: true,
            holder: 0,
            since_ms: 0,
        }
    }
}
