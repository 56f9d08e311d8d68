//! Looking into a log without touching it: what an open would make of it, and every record in every file.
//!
//! Nothing is locked, cut, claimed or written. The judgement is the open's own, run up to where it would change
//! something; the walk then reads what an open does not, and goes on behind damage where a footer shows the way.

use std::collections::BTreeSet;
use std::io;

use crate::checkpoint::Checkpoint;
use crate::footer::{Layout, Mark};
use crate::record::{Entry, Lists};
use crate::recover::{self, Advance, Cursor, Files, InBatch, Judged, OpenError, Progress, ProgressCall, State};
use crate::segment::{BadHeader, Content, Found, Scan};
use crate::{Cut, Disk, FileEntry, Link, Lsn, Record};

/// A log that is looked into.
#[derive(Debug)]
pub struct Inspection<D> {
    disk: D,
}

/// What an open would make of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The log was closed on purpose.
    pub clean: bool,
    /// What would be cut off at the end, because a crash tore it before anybody was told that it is durable.
    pub cut: Option<Cut>,
    /// Files that nothing needs any more, in full: an open removes them.
    pub garbage: Vec<String>,
}

/// Something in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The file's name within the directory.
    pub file: &'a str,
    /// Where in it.
    pub offset: u64,
    /// How many bytes it takes.
    pub bytes: u64,
    /// The record's position; that of the next record for the log's own notes, and [`Lsn::ZERO`] in a checkpoint.
    pub lsn: Lsn,
    /// What it is.
    pub what: What<'a>,
}

/// See [`Seen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// One of the owner's records, or a piece of a checkpoint.
    Record(Record<'a>, Link),
    /// A record of an owner that had already lost the log: it counts for nothing.
    Stale,
    /// What opens a batch.
    Batch {
        /// Whose batch it is.
        epoch: u64,
        /// Its number among that owner's.
        number: u64,
        /// Up to where the log had been synced before.
        synced: Lsn,
    },
    /// An owner opened the log.
    Claim {
        /// The owner's number.
        epoch: u64,
    },
    /// An owner closed the log.
    Closed,
    /// A segment's end.
    Footer,
    /// A checkpoint's beginning.
    Begin,
    /// A checkpoint's end.
    End,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, in full.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub why: &'static str,
    /// Records may be lost there. Otherwise it is only what makes reading faster.
    pub loses: bool,
}

/// What a walk came by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// How many segments there are.
    pub segments: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// What is wrong, in the order of the files.
    pub problems: Vec<Problem>,
}

impl<D: Disk> Inspection<D> {
    /// Nothing is read yet.
    pub fn new(disk: D) -> Inspection<D> {
        Inspection { disk }
    }

    /// Whether the directory holds the files of a log.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn has_log(&mut self) -> Result<bool, OpenError> {
        let files = Files::list(&mut self.disk)?;
        Ok(!files.segments.is_empty() || !files.indexes.is_empty())
    }

    /// How many bytes [`walk`](Inspection::walk) has to read.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn bytes(&mut self) -> Result<u64, OpenError> {
        let files = Files::list(&mut self.disk)?;
        Ok(files.segments.iter().chain(&files.indexes).map(|(_, file)| file.bytes).sum())
    }

    /// Replays the log as [`SegmentLog::open`](crate::SegmentLog::open) does, and judges it by the same rules.
    ///
    /// # Errors
    /// What an open would refuse with.
    pub fn judge(
        &mut self,
        replay: &mut dyn FnMut(Lsn, Record<'_>),
        progress: Option<Box<dyn FnMut(Progress)>>,
    ) -> Result<Verdict, OpenError> {
        let Judged { garbage, cut, is_closed, .. } = recover::judge(self.disk.clone(), replay, &mut { progress })?;
        let garbage = garbage.iter().map(|name| self.disk.path(name)).collect();
        let cut = cut.map(|(_, cut)| cut).filter(|cut| cut.bytes > 0);
        Ok(Verdict { clean: is_closed && cut.is_none(), cut, garbage })
    }

    /// Files that nothing needs: no start reads them, and they are not among those in which a walk saw messages that
    /// live. Where nobody has anything to do with the log, there are none.
    ///
    /// # Errors
    /// What an open would refuse with.
    pub fn unneeded(&mut self, live: &BTreeSet<String>) -> Result<Vec<String>, OpenError> {
        let files = Files::list(&mut self.disk)?;
        let checkpoint = recover::judge(self.disk.clone(), &mut |_, _| {}, &mut None)?.checkpoint;
        let replayed_from = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.header.number);
        let counts = checkpoint.map(|checkpoint| checkpoint.file.name);
        let indexes = files.indexes.into_iter().filter(|(_, file)| Some(&file.name) != counts.as_ref());
        let segments = files.segments.into_iter();
        let segments = segments.filter(|(number, file)| *number < replayed_from && !live.contains(&file.name));
        Ok(indexes.chain(segments).map(|(_, file)| file.name).collect())
    }

    /// Reads everything: the checkpoint that counts, then all segments in order, and gives each record to `see`. What
    /// a crash tore at the end, and files that nothing needs, are passed over.
    ///
    /// # Errors
    /// When the disk fails, or a file was written by a newer version.
    pub fn walk(
        &mut self,
        see: &mut dyn FnMut(Seen<'_>),
        progress: Option<Box<dyn FnMut(Progress)>>,
    ) -> Result<Walked, OpenError> {
        let files = Files::list(&mut self.disk)?;
        let total_bytes = self.bytes()?;
        let mut walk = Walk {
            disk: self.disk.clone(),
            window: Vec::new(),
            state: State::new(0),
            before: None,
            walked: Walked::default(),
            progress,
            total_bytes,
        };
        let (checkpoint, passed_over, cut) = match recover::judge(self.disk.clone(), &mut |_, _| {}, &mut None) {
            Ok(Judged { checkpoint, garbage, cut, .. }) => (checkpoint, garbage, cut),
            Err(OpenError::Corrupt { file, offset, why }) => {
                walk.walked.problems.push(Problem { file, offset, why, loses: true });
                (walk.newest_checkpoint(&files)?, Vec::new(), None)
            }
            Err(OpenError::NotALog { file }) => {
                let why = "the file is no segment of a log, or its beginning is destroyed";
                walk.walked.problems.push(Problem { file, offset: 0, why, loses: true });
                (walk.newest_checkpoint(&files)?, Vec::new(), None)
            }
            Err(error) => return Err(error),
        };
        if let Some(checkpoint) = &checkpoint {
            walk.checkpoint(checkpoint, see)?;
        }
        let cut_number = cut.as_ref().and_then(|(name, _)| Content::Segment.file_number(name));
        let last = files.segments.last().map(|(number, _)| *number);
        for (number, file) in &files.segments {
            let mut file = file.clone();
            let is_cut_off = match (&cut, cut_number) {
                (Some((_, cut)), Some(cut_in)) if *number == cut_in => {
                    file.bytes = cut.offset;
                    cut.offset == 0
                }
                (Some(_), Some(cut_in)) => *number > cut_in,
                _ => false,
            };
            if !is_cut_off && !passed_over.contains(&file.name) {
                walk.segment(
                    *number,
                    &file,
                    checkpoint.as_ref(),
                    last == Some(*number) || cut_number == Some(*number),
                    see,
                )?;
            }
            walk.advance_progress(file.bytes);
        }
        Ok(walk.walked)
    }
}

/// A walk that is under way.
struct Walk<D> {
    disk: D,
    window: Vec<u8>,
    state: State,
    /// The segment that was read before, if it was whole up to its end.
    before: Option<u64>,
    walked: Walked,
    progress: ProgressCall,
    total_bytes: u64,
}

impl<D: Disk> Walk<D> {
    /// The newest that is whole, where the log as a whole makes no sense.
    fn newest_checkpoint(&mut self, files: &Files) -> Result<Option<Checkpoint>, OpenError> {
        for (_, file) in files.indexes.iter().rev() {
            let checked = Checkpoint::check(&mut self.disk, file, &mut self.window);
            if let Ok(checkpoint) = checked.map_err(|error| unreadable(&self.disk, &file.name, error))? {
                return Ok(Some(checkpoint));
            }
        }
        Ok(None)
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint, see: &mut dyn FnMut(Seen<'_>)) -> Result<(), OpenError> {
        let file = &checkpoint.file;
        let mut lists = Lists::default();
        let mut scan = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window);
        let mut offset = checkpoint.header.bytes();
        self.state.salt = checkpoint.header.salt;
        loop {
            match scan.entry(offset, checkpoint.header.salt, &mut lists) {
                Ok(Found::Entry(entry, bytes)) => {
                    see(Seen { file: &file.name, offset, bytes, lsn: Lsn::ZERO, what: what(entry) });
                    offset += bytes;
                }
                // It was checked when it was chosen.
                Ok(Found::End | Found::Bad(_)) => break,
                Err(error) => return Err(unreadable(&self.disk, &file.name, error)),
            }
        }
        self.advance_progress(file.bytes);
        Ok(())
    }

    fn segment(
        &mut self,
        number: u64,
        file: &FileEntry,
        checkpoint: Option<&Checkpoint>,
        is_last: bool,
        see: &mut dyn FnMut(Seen<'_>),
    ) -> Result<(), OpenError> {
        self.walked.segments += 1;
        let follows = self.before.take().is_some_and(|before| before + 1 == number);
        let header = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window).header(Content::Segment);
        let header = match header.map_err(|error| unreadable(&self.disk, &file.name, error))? {
            Ok(header) => header,
            Err(BadHeader::Newer(version)) => {
                return Err(OpenError::NewerFormat { file: self.disk.path(&file.name), version });
            }
            Err(BadHeader::Damaged | BadHeader::Torn) => {
                self.problem(&file.name, 0, "the file does not begin with a whole header", true);
                return Ok(());
            }
        };
        if self.state.salt == 0 {
            self.state.salt = header.salt;
        }
        let former = checkpoint.and_then(|checkpoint| checkpoint.formers.iter().find(|former| former.number == number));
        if header.number != number {
            self.problem(&file.name, 0, "the header carries another number than the file's name", true);
        }
        if header.salt != self.state.salt {
            self.problem(&file.name, 0, "the file belongs to another log", true);
            return Ok(());
        }
        if (follows && header.first != self.state.next) || former.is_some_and(|former| former.first != header.first) {
            self.problem(&file.name, 0, "records that come before this file are missing", true);
        }
        if !follows || header.first != self.state.next {
            // What came before is unknown.
            self.state.epoch = None;
        }
        self.state.next = header.first;
        let layout = Layout::read(&mut self.disk, &file.name, file.bytes, header.salt);
        let layout = layout.map_err(|error| unreadable(&self.disk, &file.name, error))?;
        let next_first = self.first_of(number + 1);
        let is_whole = self.records(file, header.bytes(), layout.as_ref(), next_first, see)?;
        if is_whole && layout.is_none() && !is_last && header.begin.is_some() {
            self.problem(&file.name, file.bytes, NO_FOOTER, false);
        }
        if is_whole && former.is_some_and(|former| former.end != self.state.next) {
            self.problem(&file.name, file.bytes, "the file ends before records that the checkpoint knows of", true);
        }
        self.before = is_whole.then_some(number);
        Ok(())
    }

    /// The position of the first record of that segment, if it is there and says so.
    fn first_of(&mut self, number: u64) -> Option<Lsn> {
        let name = Content::Segment.file_name(number);
        let bytes = self.disk.bytes(&name).ok()?;
        let header = Scan::new(&mut self.disk, &name, bytes, &mut self.window).header(Content::Segment);
        header.ok()?.ok().map(|header| header.first)
    }

    /// Whether all of its records make sense.
    fn records(
        &mut self,
        file: &FileEntry,
        start: u64,
        layout: Option<&Layout>,
        next_first: Option<Lsn>,
        see: &mut dyn FnMut(Seen<'_>),
    ) -> Result<bool, OpenError> {
        let (mut lists, mut judged) = (Lists::default(), Lists::default());
        let mut at = Cursor::new(self.state.next, start);
        let mut marks = layout.map_or(&[][..], Layout::marks);
        let mut found: Vec<(u64, &'static str, bool)> = Vec::new();
        let mut is_whole = true;
        let mut scan = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window);
        let io_error = loop {
            let (offset, lsn, batch) = (at.offset, at.lsn, at.batch);
            match scan.entry(offset, self.state.salt, &mut lists) {
                Ok(Found::Entry(entry, bytes)) => {
                    if let (Entry::Record(..), InBatch::Current) = (&entry, batch) {
                        marks = check_marks(marks, Mark { lsn, offset }, &mut found);
                    }
                    let is_stale = matches!((&entry, batch), (Entry::Record(..), InBatch::Stale));
                    let what = if is_stale { What::Stale } else { what(entry) };
                    see(Seen { file: &file.name, offset, bytes, lsn, what });
                }
                Ok(Found::End | Found::Bad(_)) => {}
                Err(error) => break Some(error),
            }
            match self.state.advance(&mut scan, &mut at, &mut judged, &mut |_, _| {}) {
                Ok(Advance::On) => {}
                Ok(Advance::End) => break None,
                Ok(Advance::Bad(why)) => {
                    let is_behind_all = layout.is_some_and(|layout| at.offset >= layout.end())
                        || (at.chain.is_none() && next_first == Some(self.state.next));
                    found.push((at.offset, why, !is_behind_all));
                    if is_behind_all {
                        break None;
                    }
                    is_whole = false;
                    let next = layout.and_then(|layout| layout.marks().iter().find(|mark| mark.offset > at.offset));
                    let Some(next) = next else { break None };
                    at = Cursor { batch: InBatch::Current, ..Cursor::new(next.lsn, next.offset) };
                    self.state.next = next.lsn;
                    self.state.epoch = None;
                    marks = &marks[marks.iter().position(|mark| mark == next).unwrap_or(marks.len())..];
                }
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = io_error {
            return Err(unreadable(&self.disk, &file.name, error));
        }
        for (offset, why, loses) in found {
            self.problem(&file.name, offset, why, loses);
        }
        Ok(is_whole)
    }

    /// The judgement came first, and is not repeated.
    fn problem(&mut self, name: &str, offset: u64, why: &'static str, loses: bool) {
        let file = self.disk.path(name);
        if !self.walked.problems.iter().any(|known| known.file == file && known.offset == offset) {
            self.walked.problems.push(Problem { file, offset, why, loses });
        }
    }

    fn advance_progress(&mut self, bytes: u64) {
        self.walked.bytes += bytes;
        if let Some(progress) = &mut self.progress {
            progress(Progress { read_bytes: self.walked.bytes, total_bytes: self.total_bytes });
        }
    }
}

/// Compares the marks up to this record with it, and returns the others.
fn check_marks<'m>(marks: &'m [Mark], record: Mark, found: &mut Vec<(u64, &'static str, bool)>) -> &'m [Mark] {
    let due = marks.partition_point(|mark| mark.offset <= record.offset);
    if marks[..due].iter().any(|mark| mark.lsn != record.lsn) {
        found.push((record.offset, "the footer says that another record is here", false));
    }
    &marks[due..]
}

fn what(entry: Entry<'_>) -> What<'_> {
    match entry {
        Entry::Record(record, link) => What::Record(record, link),
        Entry::Batch(batch) => What::Batch { epoch: batch.epoch, number: batch.number, synced: batch.synced },
        Entry::Claim { epoch } => What::Claim { epoch },
        Entry::Closed => What::Closed,
        Entry::Footer(_) => What::Footer,
        Entry::Begin(_) => What::Begin,
        Entry::End(_) => What::End,
    }
}

fn unreadable<D: Disk>(disk: &D, name: &str, error: io::Error) -> OpenError {
    OpenError::Io { doing: "read", file: disk.path(name), error }
}

const NO_FOOTER: &str = "the file has no whole footer, although another file follows it";
