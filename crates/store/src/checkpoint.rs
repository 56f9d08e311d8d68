//! The file of a checkpoint: a header, what segments there were, the pieces, and an end that shows it to be whole.

use std::io;

use crate::record::{self, End, Entry, Fields, Lists, put};
use crate::segment::{BadHeader, Content, Found, Header, Scan};
use crate::space::Segment;
use crate::{Disk, FileEntry, Lsn, Record};

/// A segment from before a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) number: u64,
    pub(crate) first: Lsn,
    pub(crate) end: Lsn,
}

/// Appends the beginning of a checkpoint's file.
pub(crate) fn encode_begin(out: &mut Vec<u8>, header: Header, epoch: u64, segments: &[Segment]) {
    header.encode(out, Content::Index);
    record::encode_begin(out, header.salt, |out| {
        put(out, epoch);
        let mut before = Former { number: 0, first: Lsn::ZERO, end: Lsn::ZERO };
        for segment in segments {
            put(out, segment.number - before.number);
            put(out, segment.first.0 - before.end.0);
            put(out, segment.end.0 - segment.first.0);
            before = Former { number: segment.number, first: segment.first, end: segment.end };
        }
    });
}

fn decode_begin(body: &[u8]) -> Result<(u64, Vec<Former>), &'static str> {
    let mut fields = Fields(body);
    let epoch = fields.varint()?;
    let mut formers = Vec::new();
    let (mut number, mut end) = (0_u64, 0_u64);
    let rise = |value: &mut u64, fields: &mut Fields<'_>| -> Result<u64, &'static str> {
        *value = value.checked_add(fields.varint()?).ok_or(UNSOUND)?;
        Ok(*value)
    };
    while !fields.0.is_empty() {
        let former = Former {
            number: rise(&mut number, &mut fields)?,
            first: Lsn(rise(&mut end, &mut fields)?),
            end: Lsn(rise(&mut end, &mut fields)?),
        };
        formers.push(former);
    }
    Ok((epoch, formers))
}

/// A checkpoint that is whole.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) file: FileEntry,
    pub(crate) header: Header,
    pub(crate) formers: Vec<Former>,
    pub(crate) end: End,
    /// Where the pieces begin.
    pieces_at: u64,
}

/// What is wrong with a checkpoint's file.
#[derive(Debug)]
pub(crate) enum Flaw {
    Newer(u32),
    /// It was not finished, or is damaged, there.
    Bad(u64, &'static str),
}

impl Checkpoint {
    /// Reads all of the file and sees whether it is a whole checkpoint.
    pub(crate) fn check<D: Disk>(
        disk: &mut D,
        file: &FileEntry,
        window: &mut Vec<u8>,
    ) -> io::Result<Result<Checkpoint, Flaw>> {
        let mut scan = Scan::new(disk, &file.name, file.bytes, window);
        let header = match scan.header(Content::Index)? {
            Ok(header) => header,
            Err(BadHeader::Newer(version)) => return Ok(Err(Flaw::Newer(version))),
            Err(BadHeader::Torn | BadHeader::Damaged) => {
                return Ok(Err(Flaw::Bad(0, "the file does not begin with a whole header")));
            }
        };
        if Content::Index.file_name(header.number) != file.name {
            return Ok(Err(Flaw::Bad(0, "the header carries another number than the file's name")));
        }
        let mut lists = Lists::default();
        let mut at = header.bytes();
        let mut begun = None;
        let mut pieces = 0;
        loop {
            let bad = |why| Ok(Err(Flaw::Bad(at, why)));
            match scan.entry(at, header.salt, &mut lists)? {
                Found::Entry(Entry::Begin(body), bytes) if begun.is_none() => match decode_begin(body) {
                    Ok((_, formers)) => {
                        at += bytes;
                        begun = Some((formers, at));
                    }
                    Err(why) => return bad(why),
                },
                Found::Entry(Entry::Record(..), bytes) if begun.is_some() => {
                    pieces += 1;
                    at += bytes;
                }
                Found::Entry(Entry::End(end), bytes) => {
                    let Some((formers, pieces_at)) = begun else { return bad(UNSOUND) };
                    if end.pieces != pieces {
                        return bad("pieces are missing before the end");
                    }
                    if at + bytes != file.bytes {
                        return bad("something follows the end");
                    }
                    return Ok(Ok(Checkpoint { file: file.clone(), header, formers, end, pieces_at }));
                }
                Found::Entry(..) => return bad("a record stands where it does not belong"),
                Found::End => return bad("the file ends before its last record"),
                Found::Bad(why) => return bad(why),
            }
        }
    }

    /// Gives all pieces to `replay`.
    pub(crate) fn replay<D: Disk>(
        &self,
        disk: &mut D,
        window: &mut Vec<u8>,
        replay: &mut dyn FnMut(Lsn, Record<'_>),
    ) -> io::Result<()> {
        let mut scan = Scan::new(disk, &self.file.name, self.file.bytes, window);
        let mut lists = Lists::default();
        let mut at = self.pieces_at;
        loop {
            match scan.entry(at, self.header.salt, &mut lists)? {
                Found::Entry(Entry::Record(piece, _), bytes) => {
                    replay(Lsn::ZERO, piece);
                    at += bytes;
                }
                Found::Entry(Entry::End(_), _) => return Ok(()),
                _ => return Err(io::Error::other("the file changed while it was read")),
            }
        }
    }
}

const UNSOUND: &str = "the list of segments makes no sense";
