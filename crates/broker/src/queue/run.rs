//! What can be done with a [`Run`] alone.

use super::backlog::Run;
use super::ready::NEAR_BYTES;
use store::{Seq, SeqRange};

impl Run {
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
            priority: run.priority,
            attempts: run.attempts,
            redelivered: run.redelivered,
            kept: true,
            holder: 0,
            since_ms: 0,
        }
    }
}
