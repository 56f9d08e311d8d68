//! Opening a log: reads what is there, decides what to believe, and claims it.
//!
//! A record that fails its checks is either the tail of a write that a crash tore, which nobody was promised, or
//! damage to something that was durable. The two are told apart by proof: a later batch, or a later segment, says that
//! what came before it had been synced. Without such proof the log is cut at the last whole chain; with it the open
//! fails and changes nothing. `docs/storage-format.md` has the argument.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;

use crate::disk::write_all;
use crate::log::{Options, Segment};
use crate::record::{self, BATCH_BYTES, Batch, CLAIM_BYTES, Entry, Lists};
use crate::segment::{self, BadHeader, FORMAT_VERSION, Found, HEADER_BYTES, Header, Scan};
use crate::writer::Tail;
use crate::{Disk, FileEntry, Link, Lsn, Record};

/// What an open found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// The log was closed on purpose by its last owner, or is new.
    pub clean: bool,
    /// How many records were replayed.
    pub records: u64,
    /// How many bytes the log's files had.
    pub bytes: u64,
    /// What had to be cut off at the end.
    pub cut: Option<Cut>,
    /// How many times the log was opened, this time included.
    pub epoch: u64,
}

/// The end of a log that was never known to be durable and was not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file that now ends there.
    pub file: String,
    /// Where it ends.
    pub offset: u64,
    /// How many bytes are gone, those of later files included.
    pub bytes: u64,
}

/// How far an open has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read so far.
    pub read_bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
}

/// Why a log cannot be opened. Nothing in it was changed.
#[derive(Debug)]
pub enum OpenError {
    /// Something that was durable is damaged.
    Corrupt {
        /// The file.
        file: String,
        /// Where in it the damage begins.
        offset: u64,
        /// What is wrong there.
        why: &'static str,
    },
    /// A newer version of Leveret wrote it.
    NewerFormat {
        /// The file.
        file: String,
        /// The format's version there.
        version: u32,
    },
    /// A file that has the name of a segment is none.
    NotALog {
        /// The file.
        file: String,
    },
    /// The disk refused or failed.
    Io {
        /// What was tried, in words that follow "cannot".
        doing: &'static str,
        /// The file or directory.
        file: String,
        /// What it said.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Corrupt { file, offset, why } => write!(
                f,
                "the log is damaged: {file}, at byte {offset}: {why}. Messages that were durable may be lost there, \
                 so the server does not start. Restore that file from a backup, or move its directory away to begin \
                 with an empty one; nothing was changed"
            ),
            OpenError::NewerFormat { file, version } => write!(
                f,
                "{file} was written by a newer version of Leveret (storage format {version}; this one knows formats \
                 up to {FORMAT_VERSION}). Use that version or choose another --data-dir; nothing was changed"
            ),
            OpenError::NotALog { file } => write!(
                f,
                "{file} is not a segment of a Leveret log, or its beginning is destroyed. Restore it from a backup, \
                 or choose another --data-dir; nothing was changed"
            ),
            OpenError::Io { doing, file, error } => write!(f, "cannot {doing} {file}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

pub(crate) struct Recovered<D> {
    pub(crate) disk: D,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) tail: Tail,
    pub(crate) report: OpenReport,
}

/// Reads the log on `disk`, cuts a torn tail, and claims the log for a new epoch.
pub(crate) fn open<D: Disk>(
    mut disk: D,
    mut options: Options,
    replay: &mut dyn FnMut(Lsn, Record<'_>),
) -> Result<Recovered<D>, OpenError> {
    let files = segment_files(&mut disk)?;
    let bytes = files.iter().map(|file| file.bytes).sum();
    let is_new = files.is_empty();
    let mut reading =
        Reading { disk, files, segments: VecDeque::new(), window: Vec::new(), state: State::new(options.salt) };
    let cut = match reading.all(replay, &mut options.progress)? {
        Some(bad) => reading.cut(&bad)?,
        None => None,
    };
    let Reading { mut disk, mut segments, state, .. } = reading;
    let State { salt, next, is_closed, records, .. } = state;
    let epoch = state.epoch.map_or(1, |epoch| epoch.saturating_add(1));
    let active = claim(&mut disk, &mut segments, Claim { salt, next, epoch })?;
    let oldest = segments.front().map_or(active.number, |segment| segment.number);
    let tail = Tail { salt, epoch, oldest, segment: active.number, offset: active.bytes, last: next.previous() };
    let clean = is_new || (is_closed && cut.is_none());
    Ok(Recovered { disk, segments, tail, report: OpenReport { clean, records, bytes, cut, epoch } })
}

/// The log's files, oldest first.
fn segment_files<D: Disk>(disk: &mut D) -> Result<Vec<FileEntry>, OpenError> {
    let mut files: Vec<_> = disk
        .list()
        .map_err(|error| OpenError::Io { doing: "list the files of", file: disk.path(""), error })?
        .into_iter()
        .filter_map(|file| Some((segment::file_number(&file.name)?, file)))
        .collect();
    files.sort_unstable_by_key(|(number, _)| *number);
    if let Some(gap) = files.windows(2).find(|pair| pair[0].0 + 1 != pair[1].0) {
        let file = disk.path(&segment::file_name(gap[0].0 + 1));
        return Err(OpenError::Corrupt { file, offset: 0, why: "the file is missing, and there are later ones" });
    }
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

struct Claim {
    salt: u32,
    next: Lsn,
    epoch: u64,
}

/// Makes everything that was read durable, notes so, and notes the new owner. Returns the segment to go on in.
fn claim<D: Disk>(disk: &mut D, segments: &mut VecDeque<Segment>, claim: Claim) -> Result<Segment, OpenError> {
    let Claim { salt, next, epoch } = claim;
    let is_new = segments.is_empty();
    if is_new {
        segments.push_back(Segment::new(1, next, 0));
    }
    let active = segments.back_mut().expect("there is one now");
    let name = segment::file_name(active.number);
    let mut bytes = Vec::with_capacity(FIRST_BYTES as usize);
    if is_new {
        Header { number: active.number, first: next, salt }.encode(&mut bytes);
    }
    let start = bytes.len();
    bytes.resize(start + BATCH_BYTES, 0);
    let batch = Batch { epoch, number: 0, first: next, synced: next.previous() };
    record::encode_batch(&mut bytes[start..], salt, batch);
    record::encode_claim(&mut bytes, salt, epoch);

    let prepared = if is_new { disk.create(&name) } else { disk.sync(&name) };
    prepared
        .and_then(|()| write_all(disk, &name, active.bytes, &bytes))
        .and_then(|()| disk.sync(&name))
        .map_err(|error| OpenError::Io { doing: "write to the log", file: disk.path(&name), error })?;
    active.bytes += bytes.len() as u64;
    Ok(*active)
}

/// Where a log stops to make sense.
struct Bad {
    /// The index of the file.
    file: usize,
    /// Where in it the trouble is.
    offset: u64,
    why: &'static str,
    /// Where the last whole chain ends; 0 when not even the header is whole.
    keep_bytes: u64,
}

/// A log that is being read from front to back.
struct Reading<D> {
    disk: D,
    files: Vec<FileEntry>,
    segments: VecDeque<Segment>,
    window: Vec<u8>,
    state: State,
}

impl<D: Disk> Reading<D> {
    /// Replays everything up to the end, or up to the first thing that is wrong.
    fn all(
        &mut self,
        replay: &mut dyn FnMut(Lsn, Record<'_>),
        progress: &mut Option<Box<dyn FnMut(Progress)>>,
    ) -> Result<Option<Bad>, OpenError> {
        let total_bytes = self.files.iter().map(|file| file.bytes).sum();
        let mut read_bytes = 0;
        for index in 0..self.files.len() {
            if let Some(bad) = self.begin_segment(index)? {
                return Ok(Some(bad));
            }
            if let Some(bad) = self.segment(index, replay)? {
                return Ok(Some(bad));
            }
            read_bytes += self.files[index].bytes;
            if let Some(progress) = progress {
                progress(Progress { read_bytes, total_bytes });
            }
        }
        Ok(None)
    }

    /// Checks that the file is the next segment.
    fn begin_segment(&mut self, index: usize) -> Result<Option<Bad>, OpenError> {
        let header = match self.header(index)? {
            Ok(header) => header,
            Err(BadHeader::Newer(version)) => {
                return Err(OpenError::NewerFormat { file: self.path(index), version });
            }
            Err(BadHeader::Damaged) if index == 0 => {
                return Err(OpenError::NotALog { file: self.path(index) });
            }
            Err(BadHeader::Damaged | BadHeader::Torn) => {
                let why = "the file does not begin with a whole header";
                return Ok(Some(Bad { file: index, offset: 0, why, keep_bytes: 0 }));
            }
        };
        if index == 0 {
            self.state.salt = header.salt;
            self.state.next = header.first;
        }
        let why = if segment::file_name(header.number) != self.files[index].name {
            "the header carries another number than the file's name"
        } else if header.salt != self.state.salt {
            "the file belongs to another log"
        } else if header.first != self.state.next {
            "records that come before this file are missing"
        } else {
            self.segments.push_back(Segment::new(header.number, header.first, self.files[index].bytes));
            return Ok(None);
        };
        // A header is whole or it is not: one that is and says something wrong was not torn by a crash.
        Err(OpenError::Corrupt { file: self.path(index), offset: 0, why })
    }

    fn segment(&mut self, index: usize, replay: &mut dyn FnMut(Lsn, Record<'_>)) -> Result<Option<Bad>, OpenError> {
        let file = &self.files[index];
        let mut scan = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window);
        let mut lists = Lists::default();
        let mut at = Cursor::new(self.state.next);
        let mut references = 0;
        let mut replay = |lsn, record: Record<'_>| {
            references += record.references().0;
            replay(lsn, record);
        };
        let why = loop {
            match self.state.advance(&mut scan, &mut at, &mut lists, &mut replay) {
                Ok(Advance::On) => {}
                Ok(Advance::End) => break None,
                Ok(Advance::Bad(why)) => break Some(why),
                Err(error) => return Err(self.unreadable(index, error)),
            }
        };
        if let Some(segment) = self.segments.back_mut() {
            segment.references = references;
        }
        let keep_bytes = at.chain.unwrap_or(at.offset);
        Ok(why.map(|why| Bad { file: index, offset: at.offset, why, keep_bytes }))
    }

    /// Cuts the log where it goes bad, unless what is lost there is known to have been durable.
    fn cut(&mut self, bad: &Bad) -> Result<Option<Cut>, OpenError> {
        if self.was_durable(bad)? {
            return Err(OpenError::Corrupt { file: self.path(bad.file), offset: bad.offset, why: bad.why });
        }
        let later: u64 = self.files[bad.file + 1..].iter().map(|file| file.bytes).sum();
        let cut_bytes = self.files[bad.file].bytes - bad.keep_bytes + later;
        let remove_from = if bad.keep_bytes == 0 { bad.file } else { bad.file + 1 };
        // Newest first, so that a crash on the way leaves no gap.
        for index in (remove_from..self.files.len()).rev() {
            let removed = self.disk.remove(&self.files[index].name);
            removed.map_err(|error| OpenError::Io { doing: "remove", file: self.path(index), error })?;
        }
        if bad.keep_bytes > 0 {
            let truncated = self.disk.truncate(&self.files[bad.file].name, bad.keep_bytes);
            truncated.map_err(|error| OpenError::Io { doing: "shorten", file: self.path(bad.file), error })?;
            if let Some(segment) = self.segments.back_mut() {
                segment.bytes = bad.keep_bytes;
            }
        }
        let cut = Cut { file: self.path(bad.file), offset: bad.keep_bytes, bytes: cut_bytes };
        Ok((cut_bytes > 0).then_some(cut))
    }

    /// Whether anything proves that the first record to be lost had been synced.
    fn was_durable(&mut self, bad: &Bad) -> Result<bool, OpenError> {
        if bad.file == 0 && bad.keep_bytes == 0 {
            // The very first bytes of a log are written and synced before anybody can append to it. Anything longer
            // held records, and without the header there is no telling which.
            let is_first_write = segment::file_number(&self.files[0].name) == Some(1)
                && self.files[0].bytes <= FIRST_BYTES
                && self.files.len() == 1;
            return Ok(!is_first_write);
        }
        for index in bad.file + 1..self.files.len() {
            match self.header(index)? {
                // A segment is begun only after all before it are synced.
                Ok(_) => return Ok(true),
                Err(BadHeader::Newer(version)) => {
                    return Err(OpenError::NewerFormat { file: self.path(index), version });
                }
                Err(BadHeader::Torn | BadHeader::Damaged) => {}
            }
        }
        for index in bad.file..self.files.len() {
            let from = if index == bad.file { bad.offset } else { 0 };
            let file = &self.files[index];
            let mut scan = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window);
            match scan.proves_synced(from, self.state.salt, self.state.next) {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(error) => return Err(self.unreadable(index, error)),
            }
        }
        Ok(false)
    }

    fn header(&mut self, index: usize) -> Result<Result<Header, BadHeader>, OpenError> {
        let file = &self.files[index];
        let header = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window).header();
        header.map_err(|error| self.unreadable(index, error))
    }

    fn unreadable(&self, index: usize, error: io::Error) -> OpenError {
        OpenError::Io { doing: "read", file: self.path(index), error }
    }

    fn path(&self, index: usize) -> String {
        self.disk.path(&self.files[index].name)
    }
}

/// What the records read so far add up to.
struct State {
    salt: u32,
    /// The position of the next record to take effect.
    next: Lsn,
    epoch: Option<u64>,
    /// The number of the latest batch of that epoch.
    batch: u64,
    is_closed: bool,
    records: u64,
}

/// A place in a segment, ahead of the state by an open chain.
struct Cursor {
    offset: u64,
    lsn: Lsn,
    /// Where the open chain began.
    chain: Option<u64>,
    batch: InBatch,
}

impl Cursor {
    fn new(lsn: Lsn) -> Cursor {
        Cursor { offset: HEADER_BYTES as u64, lsn, chain: None, batch: InBatch::No }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InBatch {
    No,
    Current,
    /// Of an owner that had already lost the log.
    Stale,
}

enum Advance {
    On,
    End,
    Bad(&'static str),
}

impl State {
    fn new(salt: u32) -> State {
        State { salt, next: Lsn::ZERO.next(), epoch: None, batch: 0, is_closed: false, records: 0 }
    }

    /// Takes what stands at the cursor. A chain is walked twice: once to see that it is whole, once to replay it.
    fn advance<D: Disk>(
        &mut self,
        scan: &mut Scan<'_, D>,
        at: &mut Cursor,
        lists: &mut Lists,
        replay: &mut dyn FnMut(Lsn, Record<'_>),
    ) -> io::Result<Advance> {
        let (entry, bytes) = match scan.entry(at.offset, self.salt, lists)? {
            Found::Entry(entry, bytes) => (entry, bytes),
            Found::End if at.chain.is_some() => {
                return Ok(Advance::Bad("the file ends inside a chain of records"));
            }
            Found::End => return Ok(Advance::End),
            Found::Bad(why) => return Ok(Advance::Bad(why)),
        };
        let end = at.offset + bytes;
        match (entry, at.batch) {
            (Entry::Batch(_) | Entry::Claim { .. } | Entry::Closed, _) if at.chain.is_some() => {
                return Ok(Advance::Bad("a chain of records is cut off"));
            }
            (Entry::Batch(batch), _) => match self.begin_batch(batch) {
                Ok(in_batch) => at.batch = in_batch,
                Err(why) => return Ok(Advance::Bad(why)),
            },
            (_, InBatch::No) => return Ok(Advance::Bad("a record stands outside any batch")),
            (_, InBatch::Stale) => {}
            (Entry::Claim { epoch }, InBatch::Current) => {
                if self.epoch != Some(epoch) {
                    return Ok(Advance::Bad("a claim stands in another owner's batch"));
                }
            }
            (Entry::Closed, InBatch::Current) => self.is_closed = true,
            (Entry::Footer(_) | Entry::Begin(_) | Entry::End(_), _) => {}
            (Entry::Record(_, Link::WithNext), InBatch::Current) => {
                at.chain.get_or_insert(at.offset);
                at.lsn = at.lsn.next();
            }
            (Entry::Record(record, Link::Alone), InBatch::Current) => {
                match at.chain.take() {
                    None => replay(at.lsn, record),
                    Some(start) => replay_chain(scan, start..end, self, lists, replay)?,
                }
                at.lsn = at.lsn.next();
                self.records += at.lsn.0 - self.next.0;
                self.next = at.lsn;
            }
        }
        at.offset = end;
        Ok(Advance::On)
    }

    fn begin_batch(&mut self, batch: Batch) -> Result<InBatch, &'static str> {
        match self.epoch {
            Some(epoch) if batch.epoch < epoch => return Ok(InBatch::Stale),
            Some(epoch) if batch.epoch == epoch && batch.number != self.batch + 1 => {
                return Err("a batch is missing before this one");
            }
            Some(epoch) if batch.epoch > epoch && batch.number != 0 => {
                return Err("the first batch of this owner is missing");
            }
            _ => {}
        }
        if batch.first != self.next {
            return Err("records before this batch are missing");
        }
        self.epoch = Some(batch.epoch);
        self.batch = batch.number;
        self.is_closed = false;
        Ok(InBatch::Current)
    }
}

/// Replays the records in that part of the file, which were checked just before.
fn replay_chain<D: Disk>(
    scan: &mut Scan<'_, D>,
    part: Range<u64>,
    state: &State,
    lists: &mut Lists,
    replay: &mut dyn FnMut(Lsn, Record<'_>),
) -> io::Result<()> {
    let mut offset = part.start;
    let mut lsn = state.next;
    while offset < part.end {
        match scan.entry(offset, state.salt, lists)? {
            Found::Entry(Entry::Record(record, _), bytes) => {
                replay(lsn, record);
                lsn = lsn.next();
                offset += bytes;
            }
            _ => return Err(io::Error::other("the file changed while it was read")),
        }
    }
    Ok(())
}

/// A new log's header, batch record and claim.
const FIRST_BYTES: u64 = (HEADER_BYTES + BATCH_BYTES + CLAIM_BYTES) as u64;
