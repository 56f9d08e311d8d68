//! One segment file: its name, its header, and reading it from front to back.

use std::io;

use crate::record::{BATCH_BYTES, Batch, Entry, HEAD_BYTES, Head, Lists, RECORD_BYTES_MAX};
use crate::{Disk, Lsn};

/// The format that this code writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The header of a segment file.
pub(crate) const HEADER_BYTES: usize = 36;

const MAGIC: [u8; 8] = *b"LEVERET\n";
const SUFFIX: &str = ".log";
/// How much is read at once: large enough for the disk's full speed, small enough for the cache.
const WINDOW_BYTES: usize = 256 * 1024;

/// The name of a segment's file.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:016}{SUFFIX}")
}

/// The number in a segment's file name; `None` for files that are not ours.
pub(crate) fn file_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// What a segment file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Counts the segments of a log from 1.
    pub(crate) number: u64,
    /// The position of the first record in it.
    pub(crate) first: Lsn,
    /// What the log's checksums begin with, the same in all its segments.
    pub(crate) salt: u32,
}

/// Why the first bytes of a file are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// A later version of Leveret wrote it.
    Newer(u32),
    /// It was never wholly written: each byte of the mark is right or still zero.
    Torn,
    /// It is damaged, or somebody else's file.
    Damaged,
}

impl Header {
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, BadHeader> {
        if !bytes.starts_with(&MAGIC) {
            let is_torn = bytes.iter().zip(MAGIC).all(|(&byte, mark)| byte == mark || byte == 0);
            return Err(if is_torn { BadHeader::Torn } else { BadHeader::Damaged });
        }
        let version = number(bytes, 8, 4).ok_or(BadHeader::Torn)? as u32;
        if version > FORMAT_VERSION {
            return Err(BadHeader::Newer(version));
        }
        let checked = bytes.get(..HEADER_BYTES - 4).ok_or(BadHeader::Torn)?;
        let crc = number(bytes, HEADER_BYTES - 4, 4).ok_or(BadHeader::Torn)? as u32;
        if version == 0 || crc32c::crc32c(checked) != crc {
            return Err(BadHeader::Torn);
        }
        match (number(bytes, 12, 8), number(bytes, 20, 8), number(bytes, 28, 4)) {
            (Some(number), Some(first), Some(salt)) => Ok(Header { number, first: Lsn(first), salt: salt as u32 }),
            _ => Err(BadHeader::Torn),
        }
    }
}

/// Reads one file through a window that grows only for a record that the file is long enough to hold.
pub(crate) struct Scan<'d, D> {
    disk: &'d mut D,
    name: &'d str,
    file_bytes: u64,
    window: &'d mut Vec<u8>,
    /// Where in the file the window begins.
    window_at: u64,
}

/// What stands at an offset.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A whole record, its head and its length in all.
    Entry(Entry<'a>, u64),
    /// The end of the file.
    End,
    /// Something that is no record.
    Bad(&'static str),
}

impl<'d, D: Disk> Scan<'d, D> {
    /// Reads `name`, which has `file_bytes`; `window` is only lent to save its memory.
    pub(crate) fn new(disk: &'d mut D, name: &'d str, file_bytes: u64, window: &'d mut Vec<u8>) -> Scan<'d, D> {
        window.clear();
        Scan { disk, name, file_bytes, window, window_at: 0 }
    }

    pub(crate) fn header(&mut self) -> io::Result<Result<Header, BadHeader>> {
        let bytes = self.file_bytes.min(HEADER_BYTES as u64) as usize;
        Ok(Header::decode(self.view(0, bytes)?))
    }

    /// The record at `offset`.
    pub(crate) fn entry<'s>(&'s mut self, offset: u64, salt: u32, lists: &'s mut Lists) -> io::Result<Found<'s>> {
        let left = self.file_bytes - offset;
        if left == 0 {
            return Ok(Found::End);
        }
        if left < HEAD_BYTES as u64 {
            return Ok(Found::Bad("the file ends inside a record"));
        }
        let Some(head) = self.view(offset, HEAD_BYTES)?.first_chunk() else {
            return Ok(Found::Bad("the file ends inside a record"));
        };
        let head = Head::parse(head);
        let record_bytes = HEAD_BYTES + head.body_bytes as usize;
        if record_bytes > RECORD_BYTES_MAX {
            return Ok(Found::Bad("a record claims to be longer than any can be"));
        }
        if record_bytes as u64 > left {
            return Ok(Found::Bad("a record claims to be longer than the rest of the file"));
        }
        let body = &self.view(offset, record_bytes)?[HEAD_BYTES..];
        if !head.is_intact(salt, body) {
            return Ok(Found::Bad("a record does not match its checksum"));
        }
        Ok(match head.decode(body, lists) {
            Ok(entry) => Found::Entry(entry, record_bytes as u64),
            Err(why) => Found::Bad(why),
        })
    }

    /// Whether a batch that begins at `offset` or later proves that the record at `lost` had been synced.
    pub(crate) fn proves_synced(&mut self, mut offset: u64, salt: u32, lost: Lsn) -> io::Result<bool> {
        let mut lists = Lists::default();
        while self.file_bytes.saturating_sub(offset) >= BATCH_BYTES as u64 {
            let bytes = (self.file_bytes - offset).min(WINDOW_BYTES as u64) as usize;
            let view = self.view(offset, bytes)?;
            for candidate in view.windows(BATCH_BYTES) {
                if let Some(batch) = intact_batch(candidate, salt, &mut lists)
                    && batch.synced >= lost
                    && batch.first > lost
                {
                    return Ok(true);
                }
            }
            offset += (bytes - BATCH_BYTES + 1) as u64;
        }
        Ok(false)
    }

    /// `count` bytes from `offset`, which the file is known to have.
    fn view(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let held = self.window.len() as u64;
        if offset < self.window_at || offset + count as u64 > self.window_at + held {
            let wanted = (self.file_bytes - offset).min(count.max(WINDOW_BYTES) as u64) as usize;
            self.window.resize(wanted, 0);
            self.window_at = offset;
            let mut filled = 0;
            while filled < wanted {
                let read = match self.disk.read_at(self.name, offset + filled as u64, &mut self.window[filled..]) {
                    Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
                    other => other,
                };
                match read {
                    Ok(bytes) => filled += bytes,
                    Err(error) => {
                        self.window.clear();
                        return Err(error);
                    }
                }
            }
        }
        let start = (offset - self.window_at) as usize;
        Ok(&self.window[start..start + count])
    }
}

fn intact_batch(bytes: &[u8], salt: u32, lists: &mut Lists) -> Option<Batch> {
    let (head, body) = bytes.split_first_chunk()?;
    let head = Head::parse(head);
    if !head.may_be_batch() || !head.is_intact(salt, body) {
        return None;
    }
    match head.decode(body, lists) {
        Ok(Entry::Batch(batch)) => Some(batch),
        _ => None,
    }
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at + width)?;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}
