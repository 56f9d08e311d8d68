//! Where in a segment its records are: a mark every so often, kept in memory while the segment grows and written
//! behind its last record when it is done. Without its footer a segment is as good; it has to be read to find the marks.

use std::io;

use crate::disk::read_all;
use crate::record::{Entry, Fields, HEAD_BYTES, Head, Lists, encode_footer, put};
use crate::{Disk, Lsn, LsnRange};

/// A place in a segment: the next record there, if any, has this position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) lsn: Lsn,
    pub(crate) offset: u64,
}

/// The part of a segment to read for some of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// At or before the first.
    pub(crate) start: Mark,
    /// At or behind the end of the last, if records are as long as they were around it.
    pub(crate) likely_end: u64,
    /// Nothing from here on may be believed.
    pub(crate) end: u64,
}

/// What is known of the places in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// In order, the first at the first record.
    marks: Vec<Mark>,
    /// Where the last whole batch ends.
    end: u64,
}

impl Layout {
    pub(crate) fn new(start: Mark) -> Layout {
        Layout { marks: vec![start], end: start.offset }
    }

    /// The segment was written on up to `end`; `marks` are places in what was added.
    pub(crate) fn extend(&mut self, marks: impl Iterator<Item = Mark>, end: u64) {
        self.marks.extend(marks);
        self.end = end;
    }

    pub(crate) fn push(&mut self, mark: Mark) {
        self.marks.push(mark);
    }

    pub(crate) fn last(&self) -> Mark {
        *self.marks.last().expect("made with one")
    }

    pub(crate) fn end_at(&mut self, end: u64) {
        self.end = end;
    }

    pub(crate) fn stretch(&self, range: LsnRange) -> Stretch {
        let last = range.first.plus(u64::from(range.count) - 1);
        let at = self.marks.partition_point(|mark| mark.lsn <= range.first).saturating_sub(1);
        let after = self.marks.partition_point(|mark| mark.lsn <= last);
        let likely_end = self.marks.get(after).map_or(self.end, |mark| mark.offset);
        Stretch { start: self.marks[at], likely_end, end: self.end }
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn start(&self) -> Stretch {
        Stretch { start: self.marks[0], likely_end: self.end, end: self.end }
    }

    /// Appends the note that keeps this.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, salt: u32) {
        encode_footer(out, salt, |out| {
            let head_at = out.len() - HEAD_BYTES;
            put(out, self.marks.len() as u64);
            let mut before = Mark { lsn: Lsn::ZERO, offset: 0 };
            for mark in &self.marks {
                put(out, mark.lsn.0 - before.lsn.0);
                put(out, mark.offset - before.offset);
                before = *mark;
            }
            let bytes = (out.len() + TRAILER_BYTES - head_at) as u32;
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(&TRAILER);
        });
    }

    /// What the file's footer says; `None` if it has none, or none that is whole.
    pub(crate) fn read<D: Disk>(disk: &mut D, name: &str, file_bytes: u64, salt: u32) -> io::Result<Option<Layout>> {
        let mut trailer = [0; TRAILER_BYTES];
        let Some(trailer_at) = file_bytes.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        read_all(disk, name, trailer_at, &mut trailer)?;
        let offset = Layout::footer_bytes(trailer).and_then(|bytes| file_bytes.checked_sub(bytes));
        let Some(offset) = offset else { return Ok(None) };
        let mut footer = vec![0; (file_bytes - offset) as usize];
        read_all(disk, name, offset, &mut footer)?;
        Ok(Layout::decode(&footer, salt, offset))
    }

    /// How long the footer is of which these are the file's last bytes; `None` if they are not of one.
    fn footer_bytes(trailer: [u8; TRAILER_BYTES]) -> Option<u64> {
        let [l0, l1, l2, l3, mark @ ..] = trailer;
        let bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        (mark == TRAILER && bytes as usize >= HEAD_BYTES + TRAILER_BYTES).then_some(u64::from(bytes))
    }

    /// Takes apart a whole footer that stands at that offset; `None` if it is none, or not whole.
    fn decode(footer: &[u8], salt: u32, offset: u64) -> Option<Layout> {
        let (head, body) = footer.split_first_chunk::<HEAD_BYTES>()?;
        let head = Head::parse(head);
        if !head.is_intact(salt, body) {
            return None;
        }
        let mut lists = Lists::default();
        let Ok(Entry::Footer(body)) = head.decode(body, &mut lists) else { return None };
        let mut fields = Fields(body.get(..body.len().checked_sub(TRAILER_BYTES)?)?);
        let count = fields.count(MARK_BYTES_MIN).ok()?;
        let mut marks = Vec::with_capacity(count);
        let mut before = Mark { lsn: Lsn::ZERO, offset: 0 };
        for _ in 0..count {
            let lsn = Lsn(before.lsn.0.checked_add(fields.varint().ok()?)?);
            before = Mark { lsn, offset: before.offset.checked_add(fields.varint().ok()?)? };
            marks.push(before);
        }
        let is_sound = fields.end().is_ok() && count > 0 && before.offset <= offset;
        is_sound.then_some(Layout { marks, end: offset })
    }
}

/// The footer's length in all, and four letters.
const TRAILER_BYTES: usize = 8;
const TRAILER: [u8; 4] = *b"end\n";
const MARK_BYTES_MIN: usize = 2;
