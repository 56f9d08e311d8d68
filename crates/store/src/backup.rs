//! A copy of a log that is in use.
//!
//! A [`Hold`] keeps the caretaker from removing anything, so that the copy is made at its own pace, by a thread of its
//! own, while reads and checkpoints go on. A [`cut`] says for several logs at once how far each has been written at one
//! moment. What one log says because of something that was durable in another is therefore in the copy only together
//! with that: a copy is what a crash at that moment could have left.

use std::io;
use std::sync::{Arc, PoisonError};

use crate::disk::{read_all, write_all};
use crate::segment::{Content, file_name};
use crate::shared::Shared;
use crate::{Disk, FileEntry};

/// The way to a copy of a log while it is used.
#[derive(Clone, Debug)]
pub struct BackupSource {
    shared: Arc<Shared>,
}

/// As long as this lives, nothing is removed that a start might need. It does not keep the log from being written,
/// read, or closed; what is to be removed takes room meanwhile.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    /// The checkpoint that counted when this began.
    index: Option<u64>,
}

/// How far a log had been written at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    index: Option<u64>,
    /// The segment that was being written, …
    segment: u64,
    /// … and how much of it counts.
    bytes: u64,
}

impl BackupSource {
    pub(crate) fn new(shared: Arc<Shared>) -> BackupSource {
        BackupSource { shared }
    }

    /// Waits for the caretaker to finish what it is at and keeps it from removing files. `None` if the log is closed
    /// or has failed. Blocks until the caretaker's next round.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        let mut desk = self.shared.desk();
        desk.holds += 1;
        self.shared.caretaker_bell().notify_one();
        let hold = |index| Hold { shared: Arc::clone(&self.shared), index };
        loop {
            if let Some(index) = desk.held {
                return Some(hold(index));
            }
            if desk.is_over {
                drop(desk);
                drop(hold(None));
                return None;
            }
            desk = self.shared.holder_bell().wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut desk = self.shared.desk();
        desk.holds -= 1;
        if desk.holds == 0 {
            desk.held = None;
            self.shared.caretaker_bell().notify_one();
        }
    }
}

/// How far each of these logs is written, all at the same moment. Everything that any of them has reported durable is
/// before it.
#[must_use]
pub fn cut(holds: &[Hold]) -> Vec<Cut> {
    // Nothing becomes durable that did not pass these locks before.
    let growing: Vec<_> = holds.iter().map(|hold| hold.shared.growing()).collect();
    let at = |(hold, growing): (&Hold, &std::sync::MutexGuard<'_, (u64, crate::footer::Layout)>)| Cut {
        index: hold.index,
        segment: growing.0,
        bytes: growing.1.end(),
    };
    holds.iter().zip(&growing).map(at).collect()
}

impl Cut {
    /// The files to copy, and how much of each.
    fn files<D: Disk>(&self, from: &mut D) -> io::Result<Vec<FileEntry>> {
        let mut files = Vec::new();
        for file in from.list()? {
            let segment = Content::Segment.file_number(&file.name);
            match segment.or_else(|| Content::Index.file_number(&file.name)) {
                Some(number) if segment.is_some() && number < self.segment => files.push(file),
                Some(number) if segment.is_none() && Some(number) == self.index => files.push(file),
                _ => {}
            }
        }
        files.push(FileEntry { name: file_name(self.segment), bytes: self.bytes });
        Ok(files)
    }

    /// How many bytes the copy has.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn bytes<D: Disk>(&self, from: &mut D) -> io::Result<u64> {
        Ok(self.files(from)?.iter().map(|file| file.bytes).sum())
    }
}

/// Copies the log in `from` up to that cut into the empty directory `to`, durably. Files that are not written to any
/// more are linked where that can be. `each` is told of every so many bytes that are there, and may end it all by an
/// error.
///
/// # Errors
/// The file, in full, and what its disk said.
pub fn copy<D: Disk>(
    _hold: &Hold,
    cut: Cut,
    from: &mut D,
    to: &mut D,
    each: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<(), (String, io::Error)> {
    let files = cut.files(from).map_err(|error| (from.path(""), error))?;
    for FileEntry { name, bytes } in files {
        let is_growing = name == file_name(cut.segment);
        let linked = if is_growing { Ok(false) } else { from.link(&name, to) };
        if linked.map_err(|error| (to.path(&name), error))? {
            each(bytes).map_err(|error| (to.path(&name), error))?;
            continue;
        }
        to.create(&name).map_err(|error| (to.path(&name), error))?;
        let mut buffer = Vec::new();
        let mut offset = 0;
        while offset < bytes {
            buffer.resize((bytes - offset).min(PIECE_BYTES) as usize, 0);
            read_all(from, &name, offset, &mut buffer).map_err(|error| (from.path(&name), error))?;
            let written = write_all(to, &name, offset, &buffer).and_then(|()| each(buffer.len() as u64));
            written.map_err(|error| (to.path(&name), error))?;
            offset += buffer.len() as u64;
        }
        to.sync(&name).map_err(|error| (to.path(&name), error))?;
    }
    Ok(())
}

/// What is copied at once.
const PIECE_BYTES: u64 = 1 << 20;
