//! Runs, packed: each says only in what it differs from the one before it.
//!
//! This is the memory's form of an index; the log has its own, which has to stay readable for ever (`store/record.rs`),
//! and knows neither who holds a message nor since when.

use super::run::Run;
use store::{Lsn, Seq};

/// Runs that each say in what they differ from the one before:
///
/// ```text
/// changes [more changes] [seq] [lsn] [count] [payload] [expiry] [since] [holder] [header] [priority] [attempts]
/// [due]
/// ```
///
/// A field is there if its bit of the changes is set. Numbers are variable-length; `seq` is the gap behind the last run,
/// `lsn`, expiry, since and due are the distance from where they would be without a change, and the others are themselves.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bytes: Box<[u8]>,
    pub(super) last: Seq,
    pub(super) runs: usize,
}

impl Block {
    /// There is at least one run, and they are in order.
    pub(super) fn pack<'a>(first: Seq, runs: impl ExactSizeIterator<Item = &'a Run>) -> Self {
        let count = runs.len();
        let mut bytes = Vec::with_capacity(count * RUN_BYTES);
        let mut before = run_before(first);
        for run in runs {
            put_run(&mut bytes, &before, run);
            before = *run;
        }
        // A copy has just the room it takes; the shrunk buffer would leave a remainder to the allocator each time.
        Self { bytes: bytes.as_slice().into(), last: before.last_seq(), runs: count }
    }

    /// Its runs from that which has `from`, or the next one.
    pub(super) fn unpacked(&self, first: Seq, from: Seq) -> Unpacked<'_> {
        Unpacked { rest: &self.bytes, run: run_before(first), lsn: 0, from }
    }
}

/// What the first run of a block differs from.
pub(super) fn run_before(first: Seq) -> Run {
    Run {
        seq: first,
        count: 0,
        lsn: Lsn::ZERO,
        payload_bytes: 0,
        header_bytes: 0,
        expires_at_ms: 0,
        due_at_ms: 0,
        priority: 0,
        attempts: 0,
        redelivered: false,
        kept: false,
        holder: 0,
        since_ms: 0,
    }
}

fn put_run(out: &mut Vec<u8>, before: &Run, run: &Run) {
    let at = out.len();
    let (mut changes, mut more) = (0, 0);
    out.push(0);
    // Rare ones share a byte of their own.
    for (bit, differs) in [
        (HEADER, run.header_bytes != before.header_bytes),
        (PRIORITY, run.priority != before.priority),
        (ATTEMPTS, run.attempts != before.attempts),
        (REDELIVERED, run.redelivered != before.redelivered),
        (KEPT, run.kept != before.kept),
        (DUE, run.due_at_ms != before.due_at_ms),
    ] {
        more |= if differs { bit } else { 0 };
    }
    if more != 0 {
        changes |= MORE;
        out.push(more);
    }
    let passed = u64::from(before.count);
    if run.seq.0 != before.seq.0 + passed {
        changes |= SEQ;
        put(out, run.seq.0 - before.seq.0 - passed);
    }
    let lsn = before.lsn.plus(passed);
    if run.lsn != lsn {
        changes |= LSN;
        put_signed(out, run.lsn.records_after(lsn));
    }
    if run.count != before.count {
        changes |= COUNT;
        put(out, u64::from(run.count));
    }
    if run.payload_bytes != before.payload_bytes {
        changes |= PAYLOAD;
        put(out, u64::from(run.payload_bytes));
    }
    if run.expires_at_ms != before.expires_at_ms {
        changes |= EXPIRY;
        put_signed(out, run.expires_at_ms.wrapping_sub(before.expires_at_ms) as i64);
    }
    if run.since_ms != before.since_ms {
        changes |= SINCE;
        put_signed(out, run.since_ms.wrapping_sub(before.since_ms) as i64);
    }
    if run.holder != before.holder {
        changes |= HOLDER;
        put(out, u64::from(run.holder));
    }
    if more & HEADER != 0 {
        put(out, u64::from(run.header_bytes));
    }
    if more & PRIORITY != 0 {
        out.push(run.priority);
    }
    if more & ATTEMPTS != 0 {
        put(out, u64::from(run.attempts));
    }
    if more & DUE != 0 {
        put_signed(out, run.due_at_ms.wrapping_sub(before.due_at_ms) as i64);
    }
    out[at] = changes;
}

/// The runs of a block.
pub(super) struct Unpacked<'a> {
    rest: &'a [u8],
    /// The last one that was read, …
    run: Run,
    /// … and the number of its record.
    lsn: u64,
    from: Seq,
}

impl Iterator for Unpacked<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        loop {
            self.advance()?;
            if self.run.last_seq() >= self.from {
                return Some(self.run);
            }
        }
    }
}

impl Unpacked<'_> {
    fn advance(&mut self) -> Option<()> {
        let changes = self.byte()?;
        let more = if changes & MORE != 0 { self.byte()? } else { 0 };
        let passed = u64::from(self.run.count);
        self.run.seq.0 += passed;
        self.lsn += passed;
        if changes & SEQ != 0 {
            self.run.seq.0 += self.number()?;
        }
        if changes & LSN != 0 {
            self.lsn = self.lsn.wrapping_add_signed(self.signed()?);
        }
        self.run.lsn = Lsn::ZERO.plus(self.lsn);
        if changes & COUNT != 0 {
            self.run.count = self.number()? as u32;
        }
        if changes & PAYLOAD != 0 {
            self.run.payload_bytes = self.number()? as u32;
        }
        if changes & EXPIRY != 0 {
            self.run.expires_at_ms = self.run.expires_at_ms.wrapping_add_signed(self.signed()?);
        }
        if changes & SINCE != 0 {
            self.run.since_ms = self.run.since_ms.wrapping_add_signed(self.signed()?);
        }
        if changes & HOLDER != 0 {
            self.run.holder = self.number()? as u32;
        }
        if more != 0 {
            self.advance_rare(more)?;
        }
        Some(())
    }

    fn advance_rare(&mut self, more: u8) -> Option<()> {
        if more & HEADER != 0 {
            self.run.header_bytes = self.number()? as u32;
        }
        if more & PRIORITY != 0 {
            self.run.priority = self.byte()?;
        }
        if more & ATTEMPTS != 0 {
            self.run.attempts = self.number()? as u32;
        }
        if more & DUE != 0 {
            self.run.due_at_ms = self.run.due_at_ms.wrapping_add_signed(self.signed()?);
        }
        self.run.redelivered ^= more & REDELIVERED != 0;
        self.run.kept ^= more & KEPT != 0;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }

    fn signed(&mut self) -> Option<i64> {
        let zigzag = self.number()?;
        Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small numbers of either sign take few bytes.
fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, (value << 1 ^ value >> 63) as u64);
}

// What differs, in the first byte of a run …
const SEQ: u8 = 1;
const LSN: u8 = 2;
const COUNT: u8 = 4;
const PAYLOAD: u8 = 8;
const EXPIRY: u8 = 16;
const SINCE: u8 = 32;
const HOLDER: u8 = 64;
const MORE: u8 = 128;
// … and in the second, if there is one.
const HEADER: u8 = 1;
const PRIORITY: u8 = 2;
const ATTEMPTS: u8 = 4;
const REDELIVERED: u8 = 8;
const KEPT: u8 = 16;
const DUE: u8 = 32;

/// More than most runs take in a block.
const RUN_BYTES: usize = 8;
