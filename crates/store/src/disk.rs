//! The disk as a log needs it, the real one, and the lock that keeps a directory to one process.
//!
//! This is the only file of the crate that touches files. What makes a name durable (syncing the directory after a
//! file is made or removed) happens here, so that no caller can forget it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// One file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name within the directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// One directory of files. A method that returns an error may have done its work in part. A clone is another handle on
/// the same directory.
pub trait Disk: Clone {
    /// All files, in any order.
    fn list(&mut self) -> io::Result<Vec<FileEntry>>;

    /// Reads into `buffer` from that offset and says how many bytes it was; 0 at the end of the file.
    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The file's length.
    fn bytes(&mut self, name: &str) -> io::Result<u64>;

    /// Makes an empty file whose name survives a power cut; an error if it exists.
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// Writes some bytes at that offset, at least one, and says how many.
    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// When it returns, what was written to the file and its length survive a power cut. An error if the file is not
    /// there any more.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Shortens the file to that length, which survives a power cut.
    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()>;

    /// Removes the file, so that it stays gone after a power cut.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Gives the file, which nobody will write to again, the same name in another directory too, so that no byte has
    /// to be copied; that survives a power cut. `false`, and nothing is done, if that cannot be.
    fn link(&mut self, _name: &str, _to: &Self) -> io::Result<bool> {
        Ok(false)
    }

    /// The file's full name for messages to the operator.
    fn path(&self, name: &str) -> String;
}

/// Writes all of `bytes`, however short the single writes turn out.
pub(crate) fn write_all<D: Disk>(disk: &mut D, name: &str, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.write_at(name, offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills all of `buffer`, however short the single reads turn out.
pub(crate) fn read_all<D: Disk>(disk: &mut D, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match disk.read_at(name, offset + filled as u64, &mut buffer[filled..]) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was")),
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the disk has no room left for this owner.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A directory of the real file system. Files are readable by their owner only.
#[derive(Debug)]
pub struct FileDisk {
    directory: PathBuf,
    /// The file that is being written: a log works on one at a time.
    open: Option<(String, File)>,
    /// Files that were read from lately, the latest last.
    read: Vec<(String, File)>,
}

impl Clone for FileDisk {
    fn clone(&self) -> FileDisk {
        FileDisk { directory: self.directory.clone(), open: None, read: Vec::new() }
    }
}

impl FileDisk {
    /// The directory at that path; it is made, with the ones above it, if it does not exist.
    ///
    /// # Errors
    /// When it cannot be made or read, in a sentence for the operator.
    pub fn open(directory: &Path) -> Result<FileDisk, OpenError> {
        make_directory(directory).and_then(|()| fs::read_dir(directory)).map_err(|error| OpenError::Io {
            doing: "use the data directory",
            file: directory.display().to_string(),
            error,
        })?;
        Ok(FileDisk { directory: directory.to_owned(), open: None, read: Vec::new() })
    }

    /// The directory at that path, to look into: nothing is made, and nothing has to be there.
    #[must_use]
    pub fn at(directory: &Path) -> FileDisk {
        FileDisk { directory: directory.to_owned(), open: None, read: Vec::new() }
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            self.open = None;
            let file = OpenOptions::new().read(true).write(true).open(self.directory.join(name))?;
            return Ok(&self.open.insert((name.to_owned(), file)).1);
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file_to_read(&mut self, name: &str) -> io::Result<&File> {
        match self.read.iter().position(|(read, _)| read == name) {
            Some(at) => self.read[at..].rotate_left(1),
            None => {
                let file = File::open(self.directory.join(name))?;
                if self.read.len() == READ_FILES_MAX {
                    self.read.remove(0);
                }
                self.read.push((name.to_owned(), file));
            }
        }
        self.read.last().map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for FileDisk {
    fn list(&mut self) -> io::Result<Vec<FileEntry>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // A name that is not UTF-8 is none of ours.
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push(FileEntry { name, bytes: metadata.len() });
            }
        }
        Ok(files)
    }

    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file_to_read(name)?.read_at(buffer, offset)
    }

    fn bytes(&mut self, name: &str) -> io::Result<u64> {
        Ok(self.file_to_read(name)?.metadata()?.len())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(self.directory.join(name))?;
        self.open = Some((name.to_owned(), file));
        // The name is there, whatever this says: it must not look like a file that could not be made for want of room.
        sync_directory(&self.directory).map_err(io::Error::other)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.file(name)?.write_at(bytes, offset)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        let file = self.file(name)?;
        file.sync_data()?;
        // A file that was removed or moved away takes in all that is written to it, and the next start does not find
        // it. Two looks at an inode cost nothing beside the sync.
        if identity_of(file)? == identity_at(&path)? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name"))
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.file(name)?;
        file.set_len(bytes)?;
        // What else the sync is for may be lost, whatever it says: it must not look like a file that is to be tried again
        // when there is room.
        file.sync_all().map_err(io::Error::other)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(open, _)| open == name) {
            self.open = None;
        }
        self.read.retain(|(read, _)| read != name);
        fs::remove_file(self.directory.join(name))?;
        sync_directory(&self.directory)
    }

    fn link(&mut self, name: &str, to: &FileDisk) -> io::Result<bool> {
        match fs::hard_link(self.directory.join(name), to.directory.join(name)) {
            Ok(()) => sync_directory(&to.directory).map(|()| true),
            // Another file system, or one that has no links. What really is wrong shows when it is copied.
            Err(_) => Ok(false),
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// Which device, and which file on it.
type Identity = (u64, u64);

fn identity_of(file: &File) -> io::Result<Identity> {
    #[cfg(target_os = "linux")]
    if let Some(found) = asked_for_little(file, "", rustix::fs::AtFlags::EMPTY_PATH) {
        return Ok(found);
    }
    file.metadata().map(|found| (found.dev(), found.ino()))
}

fn identity_at(path: &Path) -> io::Result<Identity> {
    #[cfg(target_os = "linux")]
    if let Some(found) = asked_for_little(rustix::fs::CWD, path, rustix::fs::AtFlags::empty()) {
        return Ok(found);
    }
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Asks for nothing else: who asks for a file's times makes Linux (6.13 and later) note the time of its next write more
/// exactly, which costs the next sync a write to the file system's journal. `None` where there is no such file, or the kernel
/// or a sandbox does not know the call.
#[cfg(target_os = "linux")]
fn asked_for_little(
    at: impl rustix::fd::AsFd,
    path: impl rustix::path::Arg,
    flags: rustix::fs::AtFlags,
) -> Option<Identity> {
    let found = rustix::fs::statx(at, path, flags, rustix::fs::StatxFlags::INO).ok()?;
    Some((rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

/// Keeps a directory to this process for as long as the value lives. The operating system lets go of it when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `directory`, which is made if it does not exist. `started` says when this process started, in words for
    /// whoever comes second.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process holds it, otherwise what the file system said.
    pub fn acquire(directory: &Path, started: &str) -> Result<DirectoryLock, LockError> {
        let failed = |error| LockError::Io { directory: directory.display().to_string(), error };
        make_directory(directory).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(directory.join(LOCK_FILE))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder is named as far as it can be read; the refusal stands without it.
                let _ = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
                return Err(LockError::Held {
                    directory: directory.display().to_string(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "process {} (started {started})", std::process::id()))
            .map_err(failed)?;
        Ok(DirectoryLock { _file: file })
    }
}

/// Who holds the lock on a directory, in that process's own words; `None` if nobody does. Nothing is changed.
///
/// # Errors
/// When the lock cannot be looked at.
pub fn lock_holder(directory: &Path) -> Result<Option<String>, LockError> {
    let failed = |error| LockError::Io { directory: directory.display().to_string(), error };
    let mut file = match File::open(directory.join(LOCK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder is named as far as it can be read.
            let _ = Read::by_ref(&mut file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
            Ok(Some(holder.trim().to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Why a directory could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held {
        /// The directory.
        directory: String,
        /// What that process wrote about itself; empty if it had not yet.
        holder: String,
    },
    /// The file system refused.
    Io {
        /// The directory.
        directory: String,
        /// What it said.
        error: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { directory, holder } => {
                let holder = if holder.is_empty() { "another process" } else { holder };
                write!(f, "{directory} is in use by {holder}; stop it or choose another --data-dir")
            }
            LockError::Io { directory, error } => {
                write!(
                    f,
                    "cannot use the data directory {directory}: {error}; check its permissions or choose another \
                     --data-dir"
                )
            }
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LockError::Held { .. } => None,
            LockError::Io { error, .. } => Some(error),
        }
    }
}

/// Makes a directory and those above it, each of them so that it survives a power cut.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if parent != directory {
        make_directory(parent)?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Another process made it meanwhile, or something else has its name.
            if !directory.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        other => other?,
    }
    sync_directory(parent)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// How many files a handle keeps open for reading.
const READ_FILES_MAX: usize = 8;
const LOCK_FILE: &str = "lock";
const HOLDER_BYTES_MAX: u64 = 512;
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
