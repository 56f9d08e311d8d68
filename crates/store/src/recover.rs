//! Opening a log: reads what is there, decides what to believe, and claims it.
//!
//! A record that fails its checks is either the tail of a write that a crash tore, which nobody was promised, or
//! damage to something that was durable. The two are told apart by proof: a later batch, or a later segment, says that
//! what came before it had been synced. Without such proof the log is cut at the last whole chain; with it the open
//! fails and changes nothing. What a checkpoint covers is not read at all. `docs/storage-format.md` has the argument.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::caretaker::make_reserve;
use crate::checkpoint::{Checkpoint, Flaw, Former};
use crate::disk::{is_full, write_all};
use crate::footer::{Layout, Mark};
use crate::log::{Options, mark_bytes};
use crate::memory::replay_record;
use crate::record::{self, BATCH_BYTES, Batch, CLAIM_BYTES, Entry, Lists};
use crate::segment::{self, BadHeader, Content, FORMAT_VERSION, Found, HEADER_BYTES, Header, RESERVE, Scan};
use crate::shared::{Failure, Reserve};
use crate::space::Segment;
use crate::writer::Tail;
use crate::{Disk, FileEntry, Link, Lsn, Record};

/// What an open found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// The log was closed on purpose by its last owner, or is new.
    pub clean: bool,
    /// How many pieces of a checkpoint were replayed.
    pub pieces: u64,
    /// How many records were read that came after it, replayed or of messages that are not kept.
    pub records: u64,
    /// The position of the last one.
    pub last: Lsn,
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
    pub(crate) segments: Vec<Segment>,
    /// Of the segment that is gone on with.
    pub(crate) layout: Layout,
    pub(crate) tail: Tail,
    /// The number of the checkpoint that counts, and its size.
    pub(crate) index: Option<(u64, u64)>,
    pub(crate) reserve: Reserve,
    pub(crate) lost: Lost,
    pub(crate) report: OpenReport,
}

/// Segments from before a checkpoint that are not there, as most of them should not be.
#[derive(Debug)]
pub(crate) struct Lost {
    directory: String,
    segments: Vec<Former>,
}

impl Lost {
    /// A message that lives is not in any segment.
    pub(crate) fn error(&self, lsn: Lsn) -> OpenError {
        match self.segments.iter().find(|former| (former.first..former.end).contains(&lsn)) {
            Some(former) => OpenError::Corrupt {
                file: format!("{}{}", self.directory, segment::file_name(former.number)),
                offset: 0,
                why: "the file is missing, and messages in it are alive",
            },
            None => OpenError::Corrupt {
                file: self.directory.clone(),
                offset: 0,
                why: "a message is alive, and no file has it",
            },
        }
    }
}

/// Reads the log on `disk`, cuts a torn tail, and claims the log for a new epoch.
pub(crate) fn open<D: Disk>(
    mut disk: D,
    mut options: Options,
    replay: &mut dyn FnMut(Lsn, Record<'_>),
) -> Result<Recovered<D>, OpenError> {
    let files = Files::list(&mut disk)?;
    let bytes = files.bytes();
    let plan = plan(&mut disk, &files)?;
    let mut reading = Reading::new(disk, &plan, &options);
    if let Some(checkpoint) = &plan.checkpoint {
        reading.checkpoint(checkpoint, replay, &mut options.progress)?;
    }
    let cut = match reading.all(replay, &mut options.progress)? {
        Some(bad) => reading.cut(&bad)?,
        None => reading.give_room_back()?,
    };
    let Reading { mut disk, segments, layout, is_going_on, state, .. } = reading;
    let State { salt, next, is_closed, records, .. } = state;
    let epoch = state.epoch.map_or(1, |epoch| epoch.saturating_add(1));
    let clean = (segments.is_empty() && files.segments.is_empty()) || (is_closed && cut.is_none());

    let mut reserve_bytes = files.reserve;
    let claim = Claim { salt, next, epoch, begin: plan.begin, reserve_bytes: &mut reserve_bytes };
    let Claimed { segments, layout } = claim.make(&mut disk, segments, layout.filter(|_| is_going_on))?;
    if let Some(checkpoint) = &plan.checkpoint {
        // It may have been written whole by an owner whose sync failed, and what it replaces goes now.
        let name = &checkpoint.file.name;
        disk.sync(name).map_err(|error| OpenError::Io { doing: "sync", file: disk.path(name), error })?;
    }
    for name in &plan.garbage {
        disk.remove(name).map_err(|error| OpenError::Io { doing: "remove", file: disk.path(name), error })?;
    }
    let reserve = reserve(&mut disk, reserve_bytes, options.reserve_bytes)?;

    let (active, sealed) = segments.split_last().expect("the claim is in one");
    let tail =
        Tail { salt, epoch, begin: plan.begin, segment: active.number, offset: active.bytes, last: next.previous() };
    let segments = plan.former.iter().chain(sealed).chain([active]).copied().collect();
    let index = plan.checkpoint.as_ref().map(|checkpoint| (checkpoint.header.number, checkpoint.file.bytes));
    let pieces = plan.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.end.pieces);
    let report = OpenReport { clean, pieces, records, last: next.previous(), bytes, cut, epoch };
    Ok(Recovered { disk, segments, layout, tail, index, reserve, lost: plan.lost, report })
}

/// What an open would find, with nothing changed.
pub(crate) struct Judged {
    /// The checkpoint that counts.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// See [`Plan::garbage`].
    pub(crate) garbage: Vec<String>,
    /// The file in which the log goes bad, by name, and what would be cut.
    pub(crate) cut: Option<(String, Cut)>,
    pub(crate) is_closed: bool,
}

/// Does what [`open`] does up to where that changes something.
pub(crate) fn judge<D: Disk>(
    mut disk: D,
    replay: &mut dyn FnMut(Lsn, Record<'_>),
    progress: &mut ProgressCall,
) -> Result<Judged, OpenError> {
    let files = Files::list(&mut disk)?;
    let plan = plan(&mut disk, &files)?;
    let mut reading = Reading::new(disk, &plan, &Options::default());
    if let Some(checkpoint) = &plan.checkpoint {
        reading.checkpoint(checkpoint, replay, progress)?;
    }
    let cut = match reading.all(replay, progress)? {
        Some(bad) => Some((reading.files[bad.file].name.clone(), reading.torn(&bad)?)),
        None => None,
    };
    let is_closed = reading.state.is_closed;
    Ok(Judged { checkpoint: plan.checkpoint, garbage: plan.garbage, cut, is_closed })
}

/// The files of a log, each kind by number.
pub(crate) struct Files {
    pub(crate) segments: Vec<(u64, FileEntry)>,
    pub(crate) indexes: Vec<(u64, FileEntry)>,
    /// The size of the reserve.
    reserve: Option<u64>,
}

impl Files {
    pub(crate) fn list<D: Disk>(disk: &mut D) -> Result<Files, OpenError> {
        let listed =
            disk.list().map_err(|error| OpenError::Io { doing: "list the files of", file: disk.path(""), error })?;
        let mut files = Files { segments: Vec::new(), indexes: Vec::new(), reserve: None };
        for file in listed {
            if let Some(number) = Content::Segment.file_number(&file.name) {
                files.segments.push((number, file));
            } else if let Some(number) = Content::Index.file_number(&file.name) {
                files.indexes.push((number, file));
            } else if file.name == RESERVE {
                files.reserve = Some(file.bytes);
            }
        }
        files.segments.sort_unstable_by_key(|(number, _)| *number);
        files.indexes.sort_unstable_by_key(|(number, _)| *number);
        Ok(files)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().chain(&self.indexes).map(|(_, file)| file.bytes).sum()
    }
}

/// What is to be read, and what is known before.
struct Plan {
    checkpoint: Option<Checkpoint>,
    /// The segments from before it that are still there.
    former: Vec<Segment>,
    lost: Lost,
    /// The segments to replay, by number and without a gap.
    replayed: Vec<FileEntry>,
    /// See [`Header::begin`].
    begin: u64,
    /// Files that nothing needs: checkpoints that do not count, segments that were done with.
    garbage: Vec<String>,
}

/// Decides which checkpoint counts, and sees that what it leaves to be replayed is there.
fn plan<D: Disk>(disk: &mut D, files: &Files) -> Result<Plan, OpenError> {
    let mut window = Vec::new();
    let mut checkpoint = None;
    let mut flaw = None;
    for (_, file) in files.indexes.iter().rev() {
        let checked = Checkpoint::check(disk, file, &mut window);
        match checked.map_err(|error| OpenError::Io { doing: "read", file: disk.path(&file.name), error })? {
            Ok(whole) => {
                checkpoint = Some(whole);
                break;
            }
            Err(Flaw::Newer(version)) => {
                return Err(OpenError::NewerFormat { file: disk.path(&file.name), version });
            }
            // One that was not finished, unless files are missing that only a finished one can do without.
            Err(Flaw::Bad(offset, why)) => {
                flaw.get_or_insert(OpenError::Corrupt { file: disk.path(&file.name), offset, why });
            }
        }
    }
    let begin = match &checkpoint {
        Some(checkpoint) => checkpoint.header.begin,
        None => begin(disk, files, &mut window)?,
    };
    let first = files.segments.first().map_or(1, |(number, _)| *number);
    let begin = begin.unwrap_or(first);
    let replay_from = checkpoint.as_ref().map_or(begin, |checkpoint| checkpoint.header.number);
    let replayed: Vec<_> = files.segments.iter().filter(|(number, _)| *number >= replay_from).collect();
    let is_needed = checkpoint.is_some() || !files.indexes.is_empty() || !files.segments.is_empty();
    let missing = (replay_from..).zip(&replayed).find(|(expected, (number, _))| expected != number);
    let missing = match missing {
        Some((expected, _)) => Some(expected),
        None => (replayed.is_empty() && is_needed).then_some(replay_from),
    };
    if let Some(number) = missing {
        let why = "the file is missing, and there are later ones";
        let file = disk.path(&segment::file_name(number));
        return Err(flaw.unwrap_or(OpenError::Corrupt { file, offset: 0, why }));
    }

    let replayed = replayed.into_iter().map(|(_, file)| file.clone()).collect();
    let counts = checkpoint.as_ref().map(|checkpoint| &checkpoint.file.name);
    let mut garbage: Vec<_> = files.indexes.iter().map(|(_, file)| file.name.clone()).collect();
    garbage.retain(|name| Some(name) != counts);
    let mut lost = Lost { directory: disk.path(""), segments: Vec::new() };
    let mut former = Vec::new();
    let mut older = files.segments.iter().take_while(|(number, _)| *number < replay_from).peekable();
    for listed in checkpoint.iter().flat_map(|checkpoint| &checkpoint.formers) {
        while let Some((_, file)) = older.next_if(|(number, _)| *number < listed.number) {
            garbage.push(file.name.clone());
        }
        match older.next_if(|(number, _)| *number == listed.number) {
            Some((number, file)) => former.push(Segment::sealed(*number, listed.first, listed.end, file.bytes)),
            None => lost.segments.push(*listed),
        }
    }
    garbage.extend(older.map(|(_, file)| file.name.clone()));
    Ok(Plan { checkpoint, former, lost, replayed, begin, garbage })
}

/// The segment that a log without a checkpoint began with; `None` if no file says it.
fn begin<D: Disk>(disk: &mut D, files: &Files, window: &mut Vec<u8>) -> Result<Option<u64>, OpenError> {
    for (_, file) in &files.segments {
        let header = Scan::new(disk, &file.name, file.bytes, window).header(Content::Segment);
        match header.map_err(|error| OpenError::Io { doing: "read", file: disk.path(&file.name), error })? {
            Ok(Header { begin: Some(begin), .. }) => return Ok(Some(begin)),
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// Makes everything that was read durable, notes so, and notes the new owner.
struct Claim<'a> {
    salt: u32,
    next: Lsn,
    epoch: u64,
    begin: u64,
    /// The size of the reserve, if it is there.
    reserve_bytes: &'a mut Option<u64>,
}

struct Claimed {
    /// The last one is the one to go on in.
    segments: Vec<Segment>,
    layout: Layout,
}

impl Claim<'_> {
    /// `layout` is that of the last segment if it can be gone on with.
    fn make<D: Disk>(
        self,
        disk: &mut D,
        mut segments: Vec<Segment>,
        layout: Option<Layout>,
    ) -> Result<Claimed, OpenError> {
        let Claim { salt, next, epoch, begin, reserve_bytes } = self;
        let is_new = layout.is_none();
        if let Some(last) = segments.last() {
            let name = segment::file_name(last.number);
            disk.sync(&name).map_err(|error| OpenError::Io { doing: "sync", file: disk.path(&name), error })?;
        }
        if is_new {
            let number = segments.last().map_or(begin, |last| last.number + 1);
            segments.push(Segment::new(number, next, 0));
        }
        let active = segments.last_mut().expect("there is one now");
        let name = segment::file_name(active.number);
        let mut bytes = Vec::with_capacity(FIRST_BYTES as usize);
        if is_new {
            let header =
                Header { version: FORMAT_VERSION, number: active.number, first: next, begin: Some(begin), salt };
            header.encode(&mut bytes, Content::Segment);
        }
        let mut layout = layout.unwrap_or(Layout::new(Mark { lsn: next, offset: bytes.len() as u64 }));
        let start = bytes.len();
        bytes.resize(start + BATCH_BYTES, 0);
        let batch = Batch { epoch, number: 0, first: next, synced: next.previous() };
        record::encode_batch(&mut bytes[start..], salt, batch);
        record::encode_claim(&mut bytes, salt, epoch);

        let mut is_created = !is_new;
        let mut write = |disk: &mut D| {
            if !is_created {
                disk.create(&name)?;
                is_created = true;
            }
            write_all(disk, &name, active.bytes, &bytes)
        };
        let mut written = write(disk);
        // On a full disk the reserve is what a restart can have.
        if matches!(&written, Err(error) if is_full(error)) && reserve_bytes.take().is_some() {
            written = disk.remove(RESERVE).and_then(|()| write(disk));
        }
        written.and_then(|()| disk.sync(&name)).map_err(|error| OpenError::Io {
            doing: "write to the log",
            file: disk.path(&name),
            error,
        })?;
        active.bytes += bytes.len() as u64;
        layout.end_at(active.bytes);
        Ok(Claimed { segments, layout })
    }
}

/// Sees that there is a reserve of the wanted size, if there is room.
fn reserve<D: Disk>(disk: &mut D, there: Option<u64>, wanted: u64) -> Result<Reserve, OpenError> {
    if there == Some(wanted) && wanted > 0 {
        return Ok(Reserve::Kept);
    }
    let io = |disk: &D, doing, error| OpenError::Io { doing, file: disk.path(RESERVE), error };
    if there.is_some() {
        disk.remove(RESERVE).map_err(|error| io(disk, "remove", error))?;
    }
    if wanted == 0 {
        return Ok(Reserve::Unwanted);
    }
    match make_reserve(disk, wanted) {
        Ok(true) => Ok(Reserve::Kept),
        Ok(false) => Ok(Reserve::Lost),
        Err(Failure { doing, error, .. }) => Err(io(disk, doing, error)),
    }
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
    segments: Vec<Segment>,
    /// Of the last of these.
    layout: Option<Layout>,
    /// Records can be added to it.
    is_going_on: bool,
    window: Vec<u8>,
    mark_bytes: u64,
    state: State,
    /// There is a checkpoint, and everything up to there has to be there.
    needs: Option<Lsn>,
    read_bytes: u64,
    total_bytes: u64,
}

pub(crate) type ProgressCall = Option<Box<dyn FnMut(Progress)>>;

impl<D: Disk> Reading<D> {
    fn new(disk: D, plan: &Plan, options: &Options) -> Reading<D> {
        let mut state = State::new(options.salt);
        let replayed: u64 = plan.replayed.iter().map(|file| file.bytes).sum();
        if let Some(checkpoint) = &plan.checkpoint {
            state.salt = checkpoint.header.salt;
            state.next = checkpoint.header.first;
        }
        Reading {
            disk,
            files: plan.replayed.clone(),
            segments: Vec::new(),
            layout: None,
            is_going_on: false,
            window: Vec::new(),
            mark_bytes: mark_bytes(options.segment_bytes),
            state,
            needs: plan.checkpoint.as_ref().map(|checkpoint| checkpoint.end.needs),
            read_bytes: 0,
            total_bytes: replayed + plan.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.file.bytes),
        }
    }

    fn checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        replay: &mut dyn FnMut(Lsn, Record<'_>),
        progress: &mut ProgressCall,
    ) -> Result<(), OpenError> {
        let name = &checkpoint.file.name;
        let replayed = checkpoint.replay(&mut self.disk, &mut self.window, replay);
        replayed.map_err(|error| OpenError::Io { doing: "read", file: self.disk.path(name), error })?;
        self.progress(checkpoint.file.bytes, progress);
        Ok(())
    }

    fn progress(&mut self, bytes: u64, progress: &mut ProgressCall) {
        self.read_bytes += bytes;
        if let Some(progress) = progress {
            progress(Progress { read_bytes: self.read_bytes, total_bytes: self.total_bytes });
        }
    }

    /// Replays everything up to the end, or up to the first thing that is wrong.
    fn all(
        &mut self,
        replay: &mut dyn FnMut(Lsn, Record<'_>),
        progress: &mut ProgressCall,
    ) -> Result<Option<Bad>, OpenError> {
        for index in 0..self.files.len() {
            if let Some(bad) = self.begin_segment(index)? {
                return Ok(Some(bad));
            }
            if let Some(bad) = self.segment(index, replay)?
                && !self.goes_on_behind(&bad)?
            {
                return Ok(Some(bad));
            }
            self.progress(self.files[index].bytes, progress);
        }
        match (self.files.last(), self.needs) {
            (Some(last), Some(needs)) if needs >= self.state.next => Err(OpenError::Corrupt {
                file: self.disk.path(&last.name),
                offset: self.segments.last().map_or(last.bytes, |segment| segment.bytes),
                why: "the log ends before what its checkpoint needs",
            }),
            _ => Ok(None),
        }
    }

    /// Checks that the file is the next segment.
    fn begin_segment(&mut self, index: usize) -> Result<Option<Bad>, OpenError> {
        let is_first = index == 0 && self.needs.is_none();
        let header = match self.header(index)? {
            Ok(header) => header,
            Err(BadHeader::Newer(version)) => {
                return Err(OpenError::NewerFormat { file: self.path(index), version });
            }
            Err(BadHeader::Damaged) if is_first => {
                return Err(OpenError::NotALog { file: self.path(index) });
            }
            Err(BadHeader::Damaged | BadHeader::Torn) => {
                let why = "the file does not begin with a whole header";
                return Ok(Some(Bad { file: index, offset: 0, why, keep_bytes: 0 }));
            }
        };
        if is_first {
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
            let file_bytes = self.files[index].bytes;
            self.segments.push(Segment::sealed(header.number, header.first, header.first, file_bytes));
            self.layout = Some(Layout::new(Mark { lsn: header.first, offset: header.bytes() }));
            // A segment of an older format is never added to: what wrote it could not read that.
            self.is_going_on = header.version == FORMAT_VERSION;
            return Ok(None);
        };
        // A header is whole or it is not: one that is and says something wrong was not torn by a crash.
        Err(OpenError::Corrupt { file: self.path(index), offset: 0, why })
    }

    fn segment(&mut self, index: usize, replay: &mut dyn FnMut(Lsn, Record<'_>)) -> Result<Option<Bad>, OpenError> {
        let file = &self.files[index];
        let layout = self.layout.as_mut().expect("made with the segment");
        let mut scan = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window);
        let mut lists = Lists::default();
        let mut at = Cursor::new(self.state.next, layout.last().offset);
        let why = loop {
            match self.state.advance(&mut scan, &mut at, &mut lists, replay) {
                Ok(Advance::On) => {}
                Ok(Advance::End) => break None,
                Ok(Advance::Bad(why)) => break Some(why),
                Err(error) => return Err(self.unreadable(index, error)),
            }
            if at.chain.is_none() && at.offset >= layout.last().offset + self.mark_bytes {
                layout.push(Mark { lsn: at.lsn, offset: at.offset });
            }
        };
        let keep_bytes = at.chain.unwrap_or(at.offset);
        layout.end_at(keep_bytes);
        self.is_going_on &= !at.is_sealed;
        if let Some(segment) = self.segments.last_mut() {
            segment.end = self.state.next;
            if why.is_none() {
                segment.bytes = at.offset;
            }
        }
        Ok(why.map(|why| Bad { file: index, offset: at.offset, why, keep_bytes }))
    }

    /// Whether only the footer is damaged: it is written behind all records, and nothing needs it.
    fn goes_on_behind(&mut self, bad: &Bad) -> Result<bool, OpenError> {
        if bad.offset != bad.keep_bytes || bad.file + 1 == self.files.len() {
            return Ok(false);
        }
        Ok(matches!(self.header(bad.file + 1)?, Ok(header) if header.first == self.state.next))
    }

    /// What is to be cut off where the log goes bad, unless it is known to have been durable.
    fn torn(&mut self, bad: &Bad) -> Result<Cut, OpenError> {
        if self.was_durable(bad)? {
            return Err(OpenError::Corrupt { file: self.path(bad.file), offset: bad.offset, why: bad.why });
        }
        let later: u64 = self.files[bad.file + 1..].iter().map(|file| file.bytes).sum();
        let file = &self.files[bad.file];
        let mut scan = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window);
        let end = scan.room_from(bad.offset).map_err(|error| self.unreadable(bad.file, error))?;
        Ok(Cut { file: self.path(bad.file), offset: bad.keep_bytes, bytes: end - bad.keep_bytes + later })
    }

    /// Cuts the log where it goes bad, unless what is lost there is known to have been durable.
    fn cut(&mut self, bad: &Bad) -> Result<Option<Cut>, OpenError> {
        let cut = self.torn(bad)?;
        let remove_from = if bad.keep_bytes == 0 { bad.file } else { bad.file + 1 };
        // Newest first, so that a crash on the way leaves no gap.
        for index in (remove_from..self.files.len()).rev() {
            let removed = self.disk.remove(&self.files[index].name);
            removed.map_err(|error| OpenError::Io { doing: "remove", file: self.path(index), error })?;
        }
        if bad.keep_bytes > 0 {
            let truncated = self.disk.truncate(&self.files[bad.file].name, bad.keep_bytes);
            truncated.map_err(|error| OpenError::Io { doing: "shorten", file: self.path(bad.file), error })?;
            if let Some(segment) = self.segments.last_mut() {
                segment.bytes = bad.keep_bytes;
            }
        }
        Ok((cut.bytes > 0).then_some(cut))
    }

    /// Lets the last file end where what was written to it does. Nothing is cut by that.
    fn give_room_back(&mut self) -> Result<Option<Cut>, OpenError> {
        if let (Some(segment), Some(file)) = (self.segments.last(), self.files.last())
            && segment.bytes < file.bytes
        {
            let shortened = self.disk.truncate(&file.name, segment.bytes);
            let path = self.disk.path(&file.name);
            shortened.map_err(|error| OpenError::Io { doing: "shorten", file: path, error })?;
        }
        Ok(None)
    }

    /// Whether anything proves that the first record to be lost had been synced.
    fn was_durable(&mut self, bad: &Bad) -> Result<bool, OpenError> {
        let is_first_header = bad.file == 0 && bad.keep_bytes == 0;
        if let Some(needs) = self.needs
            && (is_first_header || needs >= self.state.next)
        {
            return Ok(true);
        }
        if is_first_header {
            // The very first bytes of a log are written and synced before anybody can append to it. Anything longer
            // held records, and without the header there is no telling which.
            let is_first_write = Content::Segment.file_number(&self.files[0].name) == Some(1)
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
        let header = Scan::new(&mut self.disk, &file.name, file.bytes, &mut self.window).header(Content::Segment);
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
pub(crate) struct State {
    pub(crate) salt: u32,
    /// The position of the next record to take effect.
    pub(crate) next: Lsn,
    pub(crate) epoch: Option<u64>,
    /// The number of the latest batch of that epoch.
    batch: u64,
    is_closed: bool,
    records: u64,
}

/// A place in a segment, ahead of the state by an open chain.
pub(crate) struct Cursor {
    pub(crate) offset: u64,
    pub(crate) lsn: Lsn,
    /// Where the open chain began.
    pub(crate) chain: Option<u64>,
    pub(crate) batch: InBatch,
    /// The footer was read.
    pub(crate) is_sealed: bool,
}

impl Cursor {
    pub(crate) fn new(lsn: Lsn, offset: u64) -> Cursor {
        Cursor { offset, lsn, chain: None, batch: InBatch::No, is_sealed: false }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InBatch {
    No,
    Current,
    /// Of an owner that had already lost the log.
    Stale,
}

pub(crate) enum Advance {
    On,
    End,
    Bad(&'static str),
}

impl State {
    pub(crate) fn new(salt: u32) -> State {
        State { salt, next: Lsn::ZERO.next(), epoch: None, batch: 0, is_closed: false, records: 0 }
    }

    /// Takes what stands at the cursor. A chain is walked twice: once to see that it is whole, once to replay it.
    pub(crate) fn advance<D: Disk>(
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
            (_, _) if at.is_sealed => return Ok(Advance::Bad("something follows the segment's footer")),
            (Entry::Batch(_) | Entry::Claim { .. } | Entry::Closed | Entry::Footer(_), _) if at.chain.is_some() => {
                return Ok(Advance::Bad("a chain of records is cut off"));
            }
            (Entry::Begin(_) | Entry::End(_), _)
            | (Entry::Record(Record::Queue { .. } | Record::Waiting { .. }, _), _) => {
                return Ok(Advance::Bad("a piece of a checkpoint stands in the log"));
            }
            (Entry::Footer(_), _) => at.is_sealed = true,
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
            (Entry::Record(_, Link::WithNext), InBatch::Current) => {
                at.chain.get_or_insert(at.offset);
                at.lsn = at.lsn.next();
            }
            (Entry::Record(record, Link::Alone), InBatch::Current) => {
                match at.chain.take() {
                    None => replay_record(at.lsn, record, replay),
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
                replay_record(lsn, record, replay);
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
