//! One record in bytes: its encoding, its checksum, and the checks on the way back.
//!
//! Decoding takes any bytes and answers with a record or with what is wrong; it never panics and allocates no more
//! than the bytes at hand can hold.

use crate::{Link, Lsn, Place, QueueId, Record, Seq, SeqRange};

/// Length, checksum, kind and flags.
pub(crate) const HEAD_BYTES: usize = 10;
/// A whole batch record.
pub(crate) const BATCH_BYTES: usize = HEAD_BYTES + BATCH_BODY;
/// A whole claim record.
pub(crate) const CLAIM_BYTES: usize = HEAD_BYTES + 8;
/// The longest encoded record: 1 GiB. A longer one in a file is damage.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

const BATCH_BODY: usize = 32;
/// The most bytes that a number takes.
const VARINT_MAX: usize = 10;

const BATCH: u8 = 1;
const CLAIM: u8 = 2;
const CLOSED: u8 = 3;
const MESSAGE: u8 = 16;
const SETTLED: u8 = 17;
const RETURNED: u8 = 18;
const FACT: u8 = 19;
const FORGET: u8 = 20;

const WITH_NEXT: u8 = 1;
const MOVED: u8 = 2;

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
    Claim { epoch: u64 },
    Closed,
    Record(Record<'a>, Link),
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
}

/// The most bytes that the record takes when it is encoded.
pub(crate) fn encoded_bytes_max(record: &Record<'_>) -> usize {
    HEAD_BYTES
        + match record {
            Record::Message { places, payload, .. } => {
                VARINT_MAX * 3 + places.len() * (VARINT_MAX * 3 + 1) + payload.len()
            }
            Record::Settled { ranges, .. } => VARINT_MAX * 2 + ranges.len() * VARINT_MAX * 2,
            Record::Returned { .. } => VARINT_MAX * 3,
            Record::Fact { key, value } => VARINT_MAX + key.len() + value.len(),
            Record::Forget { key } => key.len(),
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
        Record::Message { places, moved_from, payload } => {
            put(out, places.len() as u64);
            for place in places {
                put(out, place.queue.0);
                put(out, place.seq.0);
                put(out, place.expires_at_ms);
                out.push(place.priority);
            }
            if let Some((queue, seq)) = moved_from {
                flags |= MOVED;
                put(out, queue.0);
                put(out, seq.0);
            }
            out.extend_from_slice(payload);
            MESSAGE
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
        Record::Returned { queue, seq, attempts } => {
            put(out, queue.0);
            put(out, seq.0);
            put(out, u64::from(attempts));
            RETURNED
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
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out.extend_from_slice(&epoch.to_le_bytes());
    seal(&mut out[start..], salt, CLAIM, 0);
}

/// Appends the note that the log was closed on purpose.
pub(crate) fn encode_closed(out: &mut Vec<u8>, salt: u32) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    seal(&mut out[start..], salt, CLOSED, 0);
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

    /// Whether the record is bound to the one after it.
    pub(crate) fn is_with_next(&self) -> bool {
        self.flags & WITH_NEXT != 0
    }

    /// Whether `body` is what the checksum was taken over.
    pub(crate) fn is_intact(&self, salt: u32, body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize && checksum(salt, self.kind, self.flags, body) == self.crc
    }

    /// Takes an intact body apart.
    pub(crate) fn decode<'a>(&self, body: &'a [u8], lists: &'a mut Lists) -> Result<Entry<'a>, &'static str> {
        let mut rest = Fields(body);
        let known = if self.kind == MESSAGE { WITH_NEXT | MOVED } else { WITH_NEXT };
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
            MESSAGE => rest.message(self.flags & MOVED != 0, &mut lists.places)?,
            SETTLED => rest.settled(&mut lists.ranges)?,
            RETURNED => {
                let (queue, seq) = rest.position()?;
                let attempts = u32::try_from(rest.varint()?).map_err(|_| TOO_LARGE)?;
                rest.end()?;
                Record::Returned { queue, seq, attempts }
            }
            FACT => {
                let key_bytes = usize::try_from(rest.varint()?).map_err(|_| TOO_LARGE)?;
                let (key, value) = rest.0.split_at_checked(key_bytes).ok_or(TOO_SHORT)?;
                Record::Fact { key, value }
            }
            FORGET => Record::Forget { key: rest.0 },
            _ => return Err("a record is of a kind that this format does not know"),
        };
        Ok(Entry::Record(record, link))
    }
}

/// The fields of a body that are still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn message<'l>(&mut self, moved: bool, places: &'l mut Vec<Place>) -> Result<Record<'l>, &'static str>
    where
        'a: 'l,
    {
        places.clear();
        for _ in 0..self.count(PLACE_BYTES_MIN)? {
            let (queue, seq) = self.position()?;
            let expires_at_ms = self.varint()?;
            let priority = self.byte()?;
            places.push(Place { queue, seq, expires_at_ms, priority });
        }
        let moved_from = if moved { Some(self.position()?) } else { None };
        Ok(Record::Message { places, moved_from, payload: self.0 })
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

    fn position(&mut self) -> Result<(QueueId, Seq), &'static str> {
        Ok((QueueId(self.varint()?), Seq(self.varint()?)))
    }

    /// How many items follow, of which each takes at least `item_bytes`.
    fn count(&mut self, item_bytes: usize) -> Result<usize, &'static str> {
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

    fn varint(&mut self) -> Result<u64, &'static str> {
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

    fn end(&self) -> Result<(), &'static str> {
        if self.0.is_empty() { Ok(()) } else { Err("a record is longer than what it holds") }
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
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

const PLACE_BYTES_MIN: usize = 4;
const RANGE_BYTES_MIN: usize = 2;
const TOO_SHORT: &str = "a record is shorter than what it says it holds";
const TOO_LARGE: &str = "a number in a record is too large";
