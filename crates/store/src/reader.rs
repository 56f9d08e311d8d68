//! Reading messages back: finds a record by its position, and checks every byte on the way there.
//!
//! What is read is read in large pieces, and the last few of these are kept, so that the next queue, whose messages lie
//! between those of this one, finds them there.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::read_all;
use crate::footer::{Layout, Mark, Stretch};
use crate::record::{Entry, HEAD_BYTES, Head, Lists, RECORD_BYTES_MAX};
use crate::segment::{self, Content, HEADER_BYTES, Header};
use crate::shared::{Shared, Whereabouts};
use crate::{Disk, Lsn, LsnRange, OldMessage, Record};

/// See the module.
#[derive(Debug)]
pub(crate) struct Reader<D> {
    disk: D,
    shared: Arc<Shared>,
    salt: u32,
    mark_bytes: u64,
    /// Of sealed segments, the one used last at the back.
    layouts: VecDeque<(u64, Layout)>,
    /// The one used last at the back.
    chunks: VecDeque<Chunk>,
    chunk_bytes: usize,
}

/// A part of a file.
#[derive(Clone, Debug)]
struct Chunk {
    segment: u64,
    offset: u64,
    bytes: Bytes,
}

impl Chunk {
    fn covers(&self, segment: u64, offset: u64, count: usize) -> bool {
        let end = self.offset + self.bytes.len() as u64;
        self.segment == segment && self.offset <= offset && offset + count as u64 <= end
    }
}

/// Why something could not be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Io(io::Error),
    /// Where, and what is wrong.
    Bad(u64, &'static str),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        Unreadable::Io(error)
    }
}

impl Unreadable {
    /// As an error that says where.
    pub(crate) fn into_error(self) -> io::Error {
        match self {
            Unreadable::Io(error) => error,
            Unreadable::Bad(offset, why) => io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "at byte {offset} {why}. The file is damaged: `leveret store verify` says how far, and it has to \
                     be restored from a backup"
                ),
            ),
        }
    }
}

/// What stands at a place.
struct Visit<'a> {
    at: Mark,
    head: Head,
    chunk: &'a Bytes,
    /// Where in the chunk the body is.
    body: Range<usize>,
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(disk: D, shared: Arc<Shared>, salt: u32, mark_bytes: u64) -> Reader<D> {
        let (layouts, chunks) = (VecDeque::new(), VecDeque::new());
        Reader { disk, shared, salt, mark_bytes, layouts, chunks, chunk_bytes: 0 }
    }

    /// Forgets what is known of a segment, because it is gone or because it was wrong.
    pub(crate) fn forget(&mut self, segment: u64) {
        self.layouts.retain(|(number, _)| *number != segment);
        self.chunks.retain(|chunk| chunk.segment != segment);
        self.chunk_bytes = self.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    }

    /// Removes a segment's file, and lets go of it: as long as a removed file is open, it keeps its room on the disk.
    pub(crate) fn remove(&mut self, segment: u64, name: &str) -> io::Result<()> {
        self.forget(segment);
        self.disk.remove(name)
    }

    /// Adds the payloads of those records that are messages. `last` is where the read before this one ended, and is
    /// moved on.
    pub(crate) fn read(
        &mut self,
        segment: Whereabouts,
        range: LsnRange,
        last: &mut Option<(u64, Mark)>,
        messages: &mut Vec<(Lsn, Bytes)>,
    ) -> Result<(), Unreadable> {
        let mut stretch = self.stretch(segment, Some(range))?;
        if let Some((number, mark)) = *last
            && number == segment.number
            && mark.lsn <= range.first
            && mark.offset > stretch.start.offset
        {
            stretch.start = mark;
        }
        let end = range.first.plus(u64::from(range.count));
        let mut lists = Lists::default();
        let ended = self.walk(segment, stretch, &mut |visit| {
            if visit.at.lsn < range.first {
                return Ok(true);
            }
            if visit.at.lsn >= end {
                return Ok(false);
            }
            if let Entry::Record(Record::Message { payload, .. }, _) = visit.decode(&mut lists)? {
                messages.push((visit.at.lsn, visit.last(payload.len())));
            }
            Ok(visit.at.lsn.next() < end)
        })?;
        *last = Some((segment.number, ended));
        Ok(())
    }

    /// The next messages of a segment, about `budget` bytes of it, and where the rest begins, if there is any.
    pub(crate) fn offer(
        &mut self,
        segment: Whereabouts,
        from: Option<Mark>,
        budget: u64,
    ) -> Result<(Vec<OldMessage>, Option<Mark>), Unreadable> {
        let mut stretch = self.stretch(segment, None)?;
        stretch.start = from.unwrap_or(stretch.start);
        stretch.likely_end = stretch.start.offset + budget;
        let mut old = Vec::new();
        let mut lists = Lists::default();
        let ended = self.walk(segment, stretch, &mut |visit| {
            if let Entry::Record(Record::Message { places, kept, payload, .. }, _) = visit.decode(&mut lists)? {
                let payload = visit.last(payload.len());
                old.push(OldMessage { lsn: visit.at.lsn, places: places.to_vec(), kept, payload });
            }
            Ok(visit.at.offset + (HEAD_BYTES + visit.body.len()) as u64 <= stretch.likely_end)
        })?;
        let is_done = ended.lsn >= segment.end || ended.offset >= stretch.end;
        Ok((old, (!is_done).then_some(ended)))
    }

    /// Visits record after record until `each` says that it was the last, and says where the next one is. The log's
    /// own notes are not visited.
    fn walk(
        &mut self,
        segment: Whereabouts,
        stretch: Stretch,
        each: &mut dyn FnMut(&Visit<'_>) -> Result<bool, Unreadable>,
    ) -> Result<Mark, Unreadable> {
        let mut at = stretch.start;
        let mut epoch = None;
        let mut is_stale = false;
        let mut chunk = Chunk { segment: segment.number, offset: at.offset, bytes: Bytes::new() };
        while at.lsn < segment.end && at.offset < stretch.end {
            let likely = stretch.likely_end.saturating_sub(at.offset);
            if !chunk.covers(segment.number, at.offset, HEAD_BYTES) {
                chunk = self.chunk(segment.number, at.offset, HEAD_BYTES, likely, stretch.end)?;
            }
            let start = (at.offset - chunk.offset) as usize;
            let head = chunk.bytes[start..].first_chunk().ok_or(Unreadable::Bad(at.offset, SHORT))?;
            let head = Head::parse(head);
            let record_bytes = HEAD_BYTES + head.body_bytes as usize;
            if record_bytes > RECORD_BYTES_MAX {
                return Err(Unreadable::Bad(at.offset, "a record claims to be longer than any can be"));
            }
            if !chunk.covers(segment.number, at.offset, record_bytes) {
                chunk = self.chunk(segment.number, at.offset, record_bytes, likely, stretch.end)?;
            }
            let start = (at.offset - chunk.offset) as usize;
            let body = start + HEAD_BYTES..start + record_bytes;
            if !head.is_intact(self.salt, &chunk.bytes[body.clone()]) {
                return Err(Unreadable::Bad(at.offset, "a record does not match its checksum"));
            }
            let here = at;
            at.offset += record_bytes as u64;
            if head.is_record() {
                if is_stale {
                    continue;
                }
                at.lsn = at.lsn.next();
                if !each(&Visit { at: here, head, chunk: &chunk.bytes, body })? {
                    break;
                }
            } else if let Ok(Entry::Batch(batch)) = head.decode(&chunk.bytes[body], &mut Lists::default()) {
                // An owner that had already lost the log may have written one more batch. Where the walk did not come
                // by the batch before, such a one shows in its position.
                is_stale = epoch.map_or(batch.first != at.lsn, |epoch| batch.epoch < epoch);
                if !is_stale {
                    epoch = Some(batch.epoch);
                }
            }
        }
        Ok(at)
    }

    /// Where to look in the segment for these records, or for all of them.
    fn stretch(&mut self, segment: Whereabouts, range: Option<LsnRange>) -> Result<Stretch, Unreadable> {
        let of = |layout: &Layout| range.map_or_else(|| layout.start(), |range| layout.stretch(range));
        {
            let growing = self.shared.growing();
            if growing.0 == segment.number {
                return Ok(of(&growing.1));
            }
        }
        match self.layouts.iter().position(|(number, _)| *number == segment.number) {
            Some(at) => self.layouts.make_contiguous()[at..].rotate_left(1),
            None => {
                let layout = self.layout(segment)?;
                if self.layouts.len() == LAYOUTS_MAX {
                    self.layouts.pop_front();
                }
                self.layouts.push_back((segment.number, layout));
            }
        }
        Ok(of(&self.layouts.back().expect("it was just put there").1))
    }

    /// Reads the segment's footer, or, if that is not whole, the segment.
    fn layout(&mut self, segment: Whereabouts) -> Result<Layout, Unreadable> {
        let name = segment::file_name(segment.number);
        let file_bytes = self.disk.bytes(&name)?;
        let mut header = vec![0; file_bytes.min(HEADER_BYTES as u64) as usize];
        read_all(&mut self.disk, &name, 0, &mut header)?;
        let header = match Header::decode(&header, Content::Segment) {
            Ok(header) if (header.number, header.first, header.salt) == (segment.number, segment.first, self.salt) => {
                header
            }
            _ => return Err(Unreadable::Bad(0, "the header is not that of this segment")),
        };
        if let Some(layout) = Layout::read(&mut self.disk, &name, file_bytes, self.salt)? {
            return Ok(layout);
        }
        let start = Mark { lsn: segment.first, offset: header.bytes() };
        let mut layout = Layout::new(start);
        let stretch = Stretch { start, likely_end: file_bytes, end: file_bytes };
        let mark_bytes = self.mark_bytes;
        let ended = self.walk(segment, stretch, &mut |visit| {
            if visit.at.offset >= layout.last().offset + mark_bytes {
                layout.push(visit.at);
            }
            Ok(true)
        })?;
        layout.end_at(ended.offset);
        Ok(layout)
    }

    /// A part of the segment with these `count` bytes and up to `likely` of what follows them.
    fn chunk(&mut self, segment: u64, offset: u64, count: usize, likely: u64, end: u64) -> Result<Chunk, Unreadable> {
        match self.chunks.iter().rposition(|chunk| chunk.covers(segment, offset, count)) {
            Some(at) if at + 1 == self.chunks.len() => {}
            Some(at) => self.chunks.make_contiguous()[at..].rotate_left(1),
            None => {
                let left = end.saturating_sub(offset);
                if count as u64 > left {
                    return Err(Unreadable::Bad(offset, SHORT));
                }
                let wanted = likely.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(count as u64).min(left);
                // Not zeros: those the allocator takes from the system anew, page by page, at more than the price of the
                // read itself.
                let mut bytes = Vec::with_capacity(wanted as usize);
                bytes.resize(wanted as usize, u8::MAX);
                read_all(&mut self.disk, &segment::file_name(segment), offset, &mut bytes)?;
                self.keep(Chunk { segment, offset, bytes: bytes.into() });
            }
        }
        Ok(self.chunks.back().expect("it was just put there").clone())
    }

    fn keep(&mut self, chunk: Chunk) {
        self.chunk_bytes += chunk.bytes.len();
        self.chunks.push_back(chunk);
        while self.chunk_bytes > CHUNKS_BYTES && self.chunks.len() > 1 {
            self.chunk_bytes -= self.chunks.pop_front().map_or(0, |chunk| chunk.bytes.len());
        }
    }
}

impl Visit<'_> {
    /// The end of the body, which shares the chunk's memory.
    fn last(&self, bytes: usize) -> Bytes {
        self.chunk.slice(self.body.end - bytes..self.body.end)
    }

    fn decode<'a>(&'a self, lists: &'a mut Lists) -> Result<Entry<'a>, Unreadable> {
        self.head.decode(&self.chunk[self.body.clone()], lists).map_err(|why| Unreadable::Bad(self.at.offset, why))
    }
}

/// Segments whose layout is kept: at 128 KiB for one of the usual size, 4 MiB.
const LAYOUTS_MAX: usize = 32;
/// What is kept of what was read.
const CHUNKS_BYTES: usize = 4 << 20;
/// Less is not worth a call, …
const CHUNK_BYTES_MIN: u64 = 16 << 10;
/// … and more does not make the disk faster.
const CHUNK_BYTES_MAX: u64 = 1 << 20;
const SHORT: &str = "the segment ends inside a record";
