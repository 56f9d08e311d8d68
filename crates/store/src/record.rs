//! One record in bytes: its encoding, its checksum, and the checks on the way back.
//!
//! Decoding takes any bytes and answers with a record or with what is wrong; it never panics and allocates no more
//! than the bytes at hand can hold.

use crate::{Key, Link, Lsn, Place, QueueId, Record, Run, Seq, SeqRange};

/// Length, checksum, kind and flags.
pub(crate) const HEAD_BYTES: usize = 10;
/// A whole batch record.
pub(crate) const BATCH_BYTES: usize = HEAD_BYTES + BATCH_BODY;
/// A whole claim record.
pub(crate) const CLAIM_BYTES: usize = HEAD_BYTES + 8;
/// The longest encoded record: 1 GiB. A longer one in a file is damage.
pub const RECORD_BYTES_MAX: usize = 1 << 30;
/// The most runs that one record may have: what they take in memory is many times what they take on disk.
pub(crate) const RUNS_MAX: usize = 16 << 10;
/// The most keys that one record may have.
pub(crate) const KEYS_MAX: usize = 16 << 10;

const BATCH_BODY: usize = 32;
/// The most bytes that a number takes.
const VARINT_MAX: usize = 10;

const BATCH: u8 = 1;
const CLAIM: u8 = 2;
const CLOSED: u8 = 3;
const FOOTER: u8 = 4;
const BEGIN: u8 = 5;
const END: u8 = 6;
const MESSAGE: u8 = 16;
const SETTLED: u8 = 17;
const RETURNED_ONE: u8 = 18;
const FACT: u8 = 19;
const FORGET: u8 = 20;
const TRANSIENT: u8 = 21;
const RETURNED: u8 = 22;
const QUEUE: u8 = 23;
const WAITING: u8 = 24;
const KEYS: u8 = 25;
const RELEASED: u8 = 37;

const WITH_NEXT: u8 = 1;
const MOVED: u8 = 2;
/// Some of the places, or what came back, has a due time.
const DUE: u8 = 4;

/// What opens each written batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Whose batch it is: rises with each open.
    pub(crate) epoch: u64,
    /// Counts the batches of an epoch from 0.
    pub(crate) number: u64,
    /// The position of the batch's first record.
    pub(crate) first: Lsn,
    /// Everything up to here was synced before this batch was written.
    pub(crate) synced: Lsn,
}

/// Whatever a log can hold: the owner's records and the log's own notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Batch(Batch),
    Claim {
        epoch: u64,
    },
    Closed,
    /// What ends a segment, as `footer.rs` reads it.
    Footer(&'a [u8]),
    /// What begins a checkpoint, as `checkpoint.rs` reads it.
    Begin(&'a [u8]),
    /// What ends a checkpoint.
    End(End),
    Record(Record<'a>, Link),
}

/// What shows that a checkpoint is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// How many pieces it has.
    pub(crate) pieces: u64,
    /// The log was durable up to here, and has to be, before the checkpoint counts.
    pub(crate) needs: Lsn,
}

/// The first bytes of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) body_bytes: u32,
    crc: u32,
    kind: u8,
    flags: u8,
}

/// Room for the lists of a decoded record, reused from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    places: Vec<Place>,
    ranges: Vec<SeqRange>,
    runs: Vec<Run>,
    keys: Vec<Key>,
}

/// The most bytes that the record takes when it is encoded.
pub(crate) fn encoded_bytes_max(record: &Record<'_>) -> usize {
    HEAD_BYTES
        + match record {
            Record::Message { places, payload, .. } => {
                VARINT_MAX * 3 + places.len() * (VARINT_MAX * 4 + 1) + payload.len()
            }
            Record::Settled { ranges, .. } => VARINT_MAX * 2 + ranges.len() * VARINT_MAX * 2,
            Record::Returned { .. } => VARINT_MAX * 5,
            Record::Released { .. } => VARINT_MAX * 4,
            Record::Fact { key, value } => VARINT_MAX + key.len() + value.len(),
            Record::Forget { key } => key.len(),
            Record::Queue { .. } => VARINT_MAX * 2,
            Record::Waiting { runs, .. } => VARINT_MAX + runs.len() * RUN_BYTES_MAX,
            Record::Keys { keys, .. } => VARINT_MAX * 3 + keys.len() * (KEY_BYTES_MIN + VARINT_MAX),
        }
}

/// Appends the record's bytes to `out`.
pub(crate) fn encode(out: &mut Vec<u8>, salt: u32, record: &Record<'_>, link: Link) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    let mut flags = match link {
        Link::Alone => 0,
        Link::WithNext => WITH_NEXT,
    };
    let kind = match *record {
        Record::Message { places, moved_from, kept, payload } => {
            put(out, places.len() as u64);
            let has_due = places.iter().any(|place| place.due_at_ms != 0);
            for place in places {
                put(out, place.queue.0);
                put(out, place.seq.0);
                put(out, place.expires_at_ms);
                out.push(place.priority);
                if has_due {
                    put(out, place.due_at_ms);
                }
            }
            flags |= if has_due { DUE } else { 0 };
            if let Some((queue, seq)) = moved_from {
                flags |= MOVED;
                put(out, queue.0);
                put(out, seq.0);
            }
            out.extend_from_slice(payload);
            if kept { MESSAGE } else { TRANSIENT }
        }
        Record::Settled { queue, ranges } => {
            put(out, queue.0);
            put(out, ranges.len() as u64);
            for range in ranges {
                put(out, range.first.0);
                put(out, range.last.0 - range.first.0);
            }
            SETTLED
        }
        Record::Returned { queue, range, attempts, due_at_ms } => {
            put(out, queue.0);
            put(out, range.first.0);
            put(out, range.last.0 - range.first.0);
            put(out, u64::from(attempts));
            if due_at_ms != 0 {
                flags |= DUE;
                put(out, due_at_ms);
            }
            RETURNED
        }
        Record::Released { queue, range, due_at_ms } => {
            put(out, queue.0);
            put(out, range.first.0);
            put(out, range.last.0 - range.first.0);
            put(out, due_at_ms);
            RELEASED
        }
        Record::Fact { key, value } => {
            put(out, key.len() as u64);
            out.extend_from_slice(key);
            out.extend_from_slice(value);
            FACT
        }
        Record::Forget { key } => {
            out.extend_from_slice(key);
            FORGET
        }
        Record::Queue { queue, next } => {
            put(out, queue.0);
            put(out, next.0);
            QUEUE
        }
        Record::Waiting { queue, runs } => {
            assert!(runs.len() <= RUNS_MAX, "{} runs in one record", runs.len());
            put(out, queue.0);
            let mut before = BEFORE_RUNS;
            for run in runs {
                put_run(out, &before, run);
                before = *run;
            }
            WAITING
        }
        Record::Keys { queue, source, most, keys } => {
            assert!(keys.len() <= KEYS_MAX, "{} keys in one record", keys.len());
            put(out, queue.0);
            put(out, source);
            put(out, u64::from(most));
            for key in keys {
                out.extend_from_slice(&key.hash.to_le_bytes());
                put(out, key.until);
            }
            KEYS
        }
    };
    seal(&mut out[start..], salt, kind, flags);
}

/// Writes a batch record over the first [`BATCH_BYTES`] of `out`.
pub(crate) fn encode_batch(out: &mut [u8], salt: u32, batch: Batch) {
    let fields = [batch.epoch, batch.number, batch.first.0, batch.synced.0];
    for (bytes, field) in out[HEAD_BYTES..BATCH_BYTES].chunks_exact_mut(8).zip(fields) {
        bytes.copy_from_slice(&field.to_le_bytes());
    }
    seal(&mut out[..BATCH_BYTES], salt, BATCH, 0);
}

/// Appends the note that the owner of `epoch` has opened the log.
pub(crate) fn encode_claim(out: &mut Vec<u8>, salt: u32, epoch: u64) {
    encode_note(out, salt, CLAIM, |out| out.extend_from_slice(&epoch.to_le_bytes()));
}

/// Appends the note that the log was closed on purpose.
pub(crate) fn encode_closed(out: &mut Vec<u8>, salt: u32) {
    encode_note(out, salt, CLOSED, |_| {});
}

/// Appends the note that ends a segment.
pub(crate) fn encode_footer(out: &mut Vec<u8>, salt: u32, body: impl FnOnce(&mut Vec<u8>)) {
    encode_note(out, salt, FOOTER, body);
}

/// Appends the note that begins a checkpoint.
pub(crate) fn encode_begin(out: &mut Vec<u8>, salt: u32, body: impl FnOnce(&mut Vec<u8>)) {
    encode_note(out, salt, BEGIN, body);
}

/// Appends the note that ends a checkpoint.
pub(crate) fn encode_end(out: &mut Vec<u8>, salt: u32, end: End) {
    encode_note(out, salt, END, |out| {
        out.extend_from_slice(&end.pieces.to_le_bytes());
        out.extend_from_slice(&end.needs.0.to_le_bytes());
    });
}

fn encode_note(out: &mut Vec<u8>, salt: u32, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    body(out);
    seal(&mut out[start..], salt, kind, 0);
}

impl Head {
    pub(crate) fn parse(bytes: &[u8; HEAD_BYTES]) -> Head {
        let [l0, l1, l2, l3, c0, c1, c2, c3, kind, flags] = *bytes;
        Head {
            body_bytes: u32::from_le_bytes([l0, l1, l2, l3]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            kind,
            flags,
        }
    }

    /// Whether these could be the first bytes of a batch record; for a search at every offset.
    pub(crate) fn may_be_batch(&self) -> bool {
        self.body_bytes as usize == BATCH_BODY && self.kind == BATCH && self.flags == 0
    }

    /// Whether it is one of the owner's records, which have positions, and none of the log's own notes.
    pub(crate) fn is_record(&self) -> bool {
        self.kind >= MESSAGE
    }

    /// Whether the record is bound to the one after it.
    pub(crate) fn is_with_next(&self) -> bool {
        self.flags & WITH_NEXT != 0
    }

    fn has_due(&self) -> bool {
        self.flags & DUE != 0
    }

    /// Whether `body` is what the checksum was taken over.
    pub(crate) fn is_intact(&self, salt: u32, body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize && checksum(salt, self.kind, self.flags, body) == self.crc
    }

    /// Takes an intact body apart.
    pub(crate) fn decode<'a>(&self, body: &'a [u8], lists: &'a mut Lists) -> Result<Entry<'a>, &'static str> {
        let mut rest = Fields(body);
        let known = match self.kind {
            MESSAGE | TRANSIENT => WITH_NEXT | MOVED | DUE,
            RETURNED => WITH_NEXT | DUE,
            _ => WITH_NEXT,
        };
        if self.flags & !known != 0 || (self.kind < MESSAGE && self.flags != 0) {
            return Err("a record has flags that this format does not know");
        }
        let link = if self.is_with_next() { Link::WithNext } else { Link::Alone };
        let record = match self.kind {
            BATCH => {
                let batch = Batch {
                    epoch: rest.fixed()?,
                    number: rest.fixed()?,
                    first: Lsn(rest.fixed()?),
                    synced: Lsn(rest.fixed()?),
                };
                rest.end()?;
                return Ok(Entry::Batch(batch));
            }
            CLAIM => {
                let epoch = rest.fixed()?;
                rest.end()?;
                return Ok(Entry::Claim { epoch });
            }
            CLOSED => {
                rest.end()?;
                return Ok(Entry::Closed);
            }
            FOOTER => return Ok(Entry::Footer(body)),
            BEGIN => return Ok(Entry::Begin(body)),
            END => {
                let end = End { pieces: rest.fixed()?, needs: Lsn(rest.fixed()?) };
                rest.end()?;
                return Ok(Entry::End(end));
            }
            MESSAGE | TRANSIENT => rest.message(self, &mut lists.places)?,
            SETTLED => rest.settled(&mut lists.ranges)?,
            RETURNED_ONE | RETURNED => {
                let (queue, first) = rest.position()?;
                let more = if self.kind == RETURNED { rest.varint()? } else { 0 };
                let range = SeqRange { first, last: Seq(first.0.checked_add(more).ok_or(TOO_LARGE)?) };
                let attempts = rest.small()?;
                let due_at_ms = if self.has_due() { rest.varint()? } else { 0 };
                rest.end()?;
                Record::Returned { queue, range, attempts, due_at_ms }
            }
            RELEASED => {
                let (queue, first) = rest.position()?;
                let last = Seq(first.0.checked_add(rest.varint()?).ok_or(TOO_LARGE)?);
                let due_at_ms = rest.varint()?;
                rest.end()?;
                Record::Released { queue, range: SeqRange { first, last }, due_at_ms }
            }
            FACT => {
                let key_bytes = usize::try_from(rest.varint()?).map_err(|_| TOO_LARGE)?;
                let (key, value) = rest.0.split_at_checked(key_bytes).ok_or(TOO_SHORT)?;
                Record::Fact { key, value }
            }
            FORGET => Record::Forget { key: rest.0 },
            QUEUE => {
                let (queue, next) = rest.position()?;
                rest.end()?;
                Record::Queue { queue, next }
            }
            WAITING => rest.waiting(&mut lists.runs)?,
            KEYS => rest.keys(&mut lists.keys)?,
            _ => return Err("a record is of a kind that this format does not know"),
        };
        Ok(Entry::Record(record, link))
    }
}

/// The fields of a body that are still to be read.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn message<'l>(&mut self, head: &Head, places: &'l mut Vec<Place>) -> Result<Record<'l>, &'static str>
    where
        'a: 'l,
    {
        places.clear();
        for _ in 0..self.count(PLACE_BYTES_MIN)? {
            let (queue, seq) = self.position()?;
            let expires_at_ms = self.varint()?;
            let priority = self.byte()?;
            let due_at_ms = if head.has_due() { self.varint()? } else { 0 };
            places.push(Place { queue, seq, expires_at_ms, priority, due_at_ms });
        }
        let moved_from = if head.flags & MOVED != 0 { Some(self.position()?) } else { None };
        Ok(Record::Message { places, moved_from, kept: head.kind == MESSAGE, payload: self.0 })
    }

    fn settled<'l>(&mut self, ranges: &'l mut Vec<SeqRange>) -> Result<Record<'l>, &'static str> {
        ranges.clear();
        let queue = QueueId(self.varint()?);
        for _ in 0..self.count(RANGE_BYTES_MIN)? {
            let first = self.varint()?;
            let last = first.checked_add(self.varint()?).ok_or(TOO_LARGE)?;
            ranges.push(SeqRange { first: Seq(first), last: Seq(last) });
        }
        self.end()?;
        Ok(Record::Settled { queue, ranges })
    }

    fn waiting<'l>(&mut self, runs: &'l mut Vec<Run>) -> Result<Record<'l>, &'static str>
    where
        'a: 'l,
    {
        runs.clear();
        let queue = QueueId(self.varint()?);
        let mut before = BEFORE_RUNS;
        while !self.0.is_empty() {
            if runs.len() == RUNS_MAX {
                return Err("a record has more runs than any can have");
            }
            before = self.run(&before)?;
            runs.push(before);
        }
        Ok(Record::Waiting { queue, runs })
    }

    fn keys<'l>(&mut self, keys: &'l mut Vec<Key>) -> Result<Record<'l>, &'static str>
    where
        'a: 'l,
    {
        keys.clear();
        let (queue, source, most) = (QueueId(self.varint()?), self.varint()?, self.small()?);
        while let Some((hash, rest)) = self.0.split_first_chunk() {
            if keys.len() == KEYS_MAX {
                return Err("a record has more keys than any can have");
            }
            self.0 = rest;
            keys.push(Key { hash: u128::from_le_bytes(*hash), until: self.varint()? });
        }
        self.end()?;
        Ok(Record::Keys { queue, source, most, keys })
    }

    fn run(&mut self, before: &Run) -> Result<Run, &'static str> {
        let changed = self.byte()?;
        let mut run = Run { seq: before.end_seq(), lsn: before.end_lsn(), ..*before };
        if changed & NEW_SEQ != 0 {
            run.seq = Seq(self.apart(run.seq.0)?);
        }
        if changed & NEW_LSN != 0 {
            run.lsn = Lsn(self.apart(run.lsn.0)?);
        }
        if changed & NEW_COUNT != 0 {
            run.count = self.small()?;
        }
        if changed & NEW_PAYLOAD != 0 {
            run.payload_bytes = self.small()?;
        }
        if changed & NEW_HEADER != 0 {
            run.header_bytes = self.small()?;
        }
        if changed & NEW_EXPIRY != 0 {
            run.expires_at_ms = self.apart(run.expires_at_ms)?;
        }
        if changed & NEW_STATE != 0 {
            run.priority = self.byte()?;
            run.redelivered = match self.byte()? {
                0 => false,
                1 => true,
                _ => return Err(TOO_LARGE),
            };
            run.attempts = self.small()?;
        }
        if changed & NEW_DUE != 0 {
            run.due_at_ms = self.apart(run.due_at_ms)?;
        }
        let more = u64::from(run.count);
        let is_sound = run.count > 0 && run.seq.0.checked_add(more).is_some() && run.lsn.0.checked_add(more).is_some();
        if is_sound { Ok(run) } else { Err("a run has no messages, or more than can be") }
    }

    /// A number that is that far from `expected`.
    fn apart(&mut self, expected: u64) -> Result<u64, &'static str> {
        let zigzag = self.varint()?;
        let distance = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        Ok(expected.wrapping_add_signed(distance))
    }

    fn small(&mut self) -> Result<u32, &'static str> {
        u32::try_from(self.varint()?).map_err(|_| TOO_LARGE)
    }

    fn position(&mut self) -> Result<(QueueId, Seq), &'static str> {
        Ok((QueueId(self.varint()?), Seq(self.varint()?)))
    }

    /// How many items follow, of which each takes at least `item_bytes`.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, &'static str> {
        let count = usize::try_from(self.varint()?).map_err(|_| TOO_LARGE)?;
        if count > self.0.len() / item_bytes {
            return Err(TOO_SHORT);
        }
        Ok(count)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&byte, rest) = self.0.split_first().ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(byte)
    }

    fn fixed(&mut self) -> Result<u64, &'static str> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(TOO_LARGE);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(TOO_LARGE)
    }

    pub(crate) fn end(&self) -> Result<(), &'static str> {
        if self.0.is_empty() { Ok(()) } else { Err("a record is longer than what it holds") }
    }
}

/// Appends what of `run` does not follow from the run before it.
fn put_run(out: &mut Vec<u8>, before: &Run, run: &Run) {
    let at = out.len();
    out.push(0);
    let mut changed = 0;
    let (seq, lsn) = (before.end_seq().0, before.end_lsn().0);
    if run.seq.0 != seq {
        changed |= NEW_SEQ;
        put_apart(out, seq, run.seq.0);
    }
    if run.lsn.0 != lsn {
        changed |= NEW_LSN;
        put_apart(out, lsn, run.lsn.0);
    }
    for (bit, old, new) in [
        (NEW_COUNT, before.count, run.count),
        (NEW_PAYLOAD, before.payload_bytes, run.payload_bytes),
        (NEW_HEADER, before.header_bytes, run.header_bytes),
    ] {
        if old != new {
            changed |= bit;
            put(out, u64::from(new));
        }
    }
    if run.expires_at_ms != before.expires_at_ms {
        changed |= NEW_EXPIRY;
        put_apart(out, before.expires_at_ms, run.expires_at_ms);
    }
    let state = |run: &Run| (run.priority, run.redelivered, run.attempts);
    if state(run) != state(before) {
        changed |= NEW_STATE;
        out.extend_from_slice(&[run.priority, u8::from(run.redelivered)]);
        put(out, u64::from(run.attempts));
    }
    if run.due_at_ms != before.due_at_ms {
        changed |= NEW_DUE;
        put_apart(out, before.due_at_ms, run.due_at_ms);
    }
    out[at] = changed;
}

impl Record<'_> {
    /// How many references the record starts with, and the size of what they refer to.
    pub(crate) fn references(&self) -> (u64, usize) {
        match self {
            Record::Message { places, payload, .. } => (places.len() as u64, payload.len()),
            _ => (0, 0),
        }
    }
}

impl Run {
    fn end_seq(&self) -> Seq {
        Seq(self.seq.0.wrapping_add(u64::from(self.count)))
    }

    fn end_lsn(&self) -> Lsn {
        Lsn(self.lsn.0.wrapping_add(u64::from(self.count)))
    }
}

fn put_apart(out: &mut Vec<u8>, expected: u64, value: u64) {
    let distance = value.wrapping_sub(expected) as i64;
    put(out, ((distance << 1) ^ (distance >> 63)) as u64);
}

pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Fills in the head of a record whose body is in place.
fn seal(record: &mut [u8], salt: u32, kind: u8, flags: u8) {
    assert!(record.len() <= RECORD_BYTES_MAX, "a record of {} bytes is over the limit", record.len());
    let body = &record[HEAD_BYTES..];
    let length = (body.len() as u32).to_le_bytes();
    let crc = checksum(salt, kind, flags, body).to_le_bytes();
    record[..4].copy_from_slice(&length);
    record[4..8].copy_from_slice(&crc);
    record[8..HEAD_BYTES].copy_from_slice(&[kind, flags]);
}

/// The salt keeps a record of another log, or one that somebody forged inside a message, from passing for ours.
fn checksum(salt: u32, kind: u8, flags: u8, body: &[u8]) -> u32 {
    let [l0, l1, l2, l3] = (body.len() as u32).to_le_bytes();
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &[l0, l1, l2, l3, kind, flags]), body)
}

/// What the first run of a record is told apart from.
const BEFORE_RUNS: Run = Run {
    seq: Seq(0),
    count: 0,
    lsn: Lsn::ZERO,
    payload_bytes: 0,
    header_bytes: 0,
    expires_at_ms: 0,
    priority: 0,
    attempts: 0,
    redelivered: false,
    due_at_ms: 0,
};
// What of a run does not follow from the one before it, in the order of the fields.
const NEW_SEQ: u8 = 1;
const NEW_LSN: u8 = 2;
const NEW_COUNT: u8 = 4;
const NEW_PAYLOAD: u8 = 8;
const NEW_HEADER: u8 = 16;
const NEW_EXPIRY: u8 = 32;
const NEW_STATE: u8 = 64;
const NEW_DUE: u8 = 128;
const RUN_BYTES_MAX: usize = 1 + 4 * VARINT_MAX + 4 * 5 + 2;

const PLACE_BYTES_MIN: usize = 4;
const KEY_BYTES_MIN: usize = size_of::<u128>();
const RANGE_BYTES_MIN: usize = 2;
const TOO_SHORT: &str = "a record is shorter than what it says it holds";
const TOO_LARGE: &str = "a number in a record is too large";
