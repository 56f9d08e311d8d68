//! The files of a log: their names, their headers, and reading one from front to back.

use std::io;

use crate::disk::read_all;
use crate::record::{BATCH_BYTES, Batch, Entry, HEAD_BYTES, Head, Lists, RECORD_BYTES_MAX};
use crate::{Disk, Lsn};

/// The format that this code writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// The header of a file of this format.
pub(crate) const HEADER_BYTES: usize = 44;
/// The file that gives up its room when the disk has none.
pub(crate) const RESERVE: &str = "reserve";

/// Version 1 had no `begin`.
const HEADER_BYTES_V1: usize = 36;
/// What a segment's file has behind its records where room was made for more. No record begins with four of it: its length
/// would be greater than any can be.
pub(crate) const ROOM: u8 = 0xf6;
/// What a record begins with: how long its body is.
const LENGTH_BYTES: u64 = 4;
/// How much is read at once: large enough for the disk's full speed, small enough for the cache.
const WINDOW_BYTES: usize = 256 * 1024;

/// What a file of the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Records, as they were appended.
    Segment,
    /// A checkpoint; its number is that of the segment that a replay goes on with.
    Index,
}

impl Content {
    fn magic(self) -> [u8; 8] {
        match self {
            Content::Segment => *b"LEVERET\n",
            Content::Index => *b"LEVEIDX\n",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Content::Segment => ".log",
            Content::Index => ".index",
        }
    }

    pub(crate) fn file_name(self, number: u64) -> String {
        format!("{number:016}{}", self.suffix())
    }

    /// The number in a file's name; `None` for files that are something else.
    pub(crate) fn file_number(self, name: &str) -> Option<u64> {
        let number = name.strip_suffix(self.suffix())?.parse().ok()?;
        (self.file_name(number) == name).then_some(number)
    }
}

/// The name of a segment's file.
pub(crate) fn file_name(number: u64) -> String {
    Content::Segment.file_name(number)
}

/// What a file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The format that the file is written in.
    pub(crate) version: u32,
    /// Counts the segments of a log from 1.
    pub(crate) number: u64,
    /// The position of the first record in it.
    pub(crate) first: Lsn,
    /// The segment that the log began with, or had begun with when it came to this format. As long as there is no
    /// checkpoint, all segments from there on have to be there. `None` in version 1.
    pub(crate) begin: Option<u64>,
    /// What the log's checksums begin with, the same in all its files.
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
    /// A file of version 2 or later always has `begin`.
    pub(crate) fn encode(self, out: &mut Vec<u8>, content: Content) {
        let start = out.len();
        out.extend_from_slice(&content.magic());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.begin.unwrap_or(self.number).to_le_bytes());
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8], content: Content) -> Result<Header, BadHeader> {
        let magic = content.magic();
        if !bytes.starts_with(&magic) {
            let is_torn = bytes.iter().zip(magic).all(|(&byte, mark)| byte == mark || byte == 0);
            return Err(if is_torn { BadHeader::Torn } else { BadHeader::Damaged });
        }
        let version = number(bytes, 8, 4).ok_or(BadHeader::Torn)? as u32;
        if version > FORMAT_VERSION {
            return Err(BadHeader::Newer(version));
        }
        let header_bytes = if version == 1 { HEADER_BYTES_V1 } else { HEADER_BYTES };
        let checked = bytes.get(..header_bytes - 4).ok_or(BadHeader::Torn)?;
        let crc = number(bytes, header_bytes - 4, 4).ok_or(BadHeader::Torn)? as u32;
        if version == 0 || crc32c::crc32c(checked) != crc {
            return Err(BadHeader::Torn);
        }
        let begin = if version == 1 { None } else { number(bytes, 32, 8) };
        match (number(bytes, 12, 8), number(bytes, 20, 8), number(bytes, 28, 4)) {
            (Some(number), Some(first), Some(salt)) => {
                Ok(Header { version, number, first: Lsn(first), begin, salt: salt as u32 })
            }
            _ => Err(BadHeader::Torn),
        }
    }

    /// Where the records begin.
    pub(crate) fn bytes(&self) -> u64 {
        (if self.begin.is_some() { HEADER_BYTES } else { HEADER_BYTES_V1 }) as u64
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
    /// The end of the file, or nothing but [`ROOM`] up to there.
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

    pub(crate) fn header(&mut self, content: Content) -> io::Result<Result<Header, BadHeader>> {
        let bytes = self.file_bytes.min(HEADER_BYTES as u64) as usize;
        Ok(Header::decode(self.view(0, bytes)?, content))
    }

    /// The record at `offset`.
    pub(crate) fn entry<'s>(&'s mut self, offset: u64, salt: u32, lists: &'s mut Lists) -> io::Result<Found<'s>> {
        let left = self.file_bytes - offset;
        if self.is_room(offset)? {
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

    /// Whether nothing but [`ROOM`] stands from `offset` on. Of a record only its length is looked at.
    fn is_room(&mut self, offset: u64) -> io::Result<bool> {
        let count = LENGTH_BYTES.min(self.file_bytes - offset) as usize;
        let may_be = count == 0 || self.view(offset, count)?.iter().all(|&byte| byte == ROOM);
        Ok(may_be && self.room_from(offset)? == offset)
    }

    /// From where on the file is nothing but [`ROOM`], if it is `offset` or later; else the file's end.
    pub(crate) fn room_from(&mut self, mut offset: u64) -> io::Result<u64> {
        let mut start = offset;
        while offset < self.file_bytes {
            let count = (self.file_bytes - offset).min(WINDOW_BYTES as u64);
            let view = self.view(offset, count as usize)?;
            if let Some(last) = view.iter().rposition(|&byte| byte != ROOM) {
                start = offset + last as u64 + 1;
            }
            offset += count;
        }
        Ok(start)
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
            if let Err(error) = read_all(self.disk, self.name, offset, self.window) {
                self.window.clear();
                return Err(error);
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
