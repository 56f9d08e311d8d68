//! A disk in memory that fails on demand: the one that tests and the simulator crash.
//!
//! It keeps apart what a file looks like now and what a power cut would leave. A crash decides for each write since
//! the last sync whether it is kept, lost or torn; names, and lengths set by a truncate, are durable at once, as
//! [`Disk`] demands.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::segment::ROOM;
use crate::{Disk, FileEntry};

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails and does nothing.
    Error,
    /// A write or read handles only part of its bytes, at least one. Other operations are not hurt.
    Short,
    /// The operation fails after it has done its work; a write, after half of its bytes.
    ErrorAfter,
}

/// A directory in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, MemoryFile>,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    /// A file, a place in it and a bit there.
    rotten: Option<(String, u64, u8)>,
    capacity_bytes: Option<u64>,
    syncs: u64,
}

#[derive(Debug, Default)]
struct MemoryFile {
    /// What is read.
    current: Vec<u8>,
    /// What was there after the last sync.
    durable: Vec<u8>,
    /// What was written since then.
    unsynced: Vec<Write>,
}

#[derive(Debug)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

impl MemoryDisk {
    /// An empty disk that never fails.
    #[must_use]
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// How many operations were tried so far, lists included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How many syncs have succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Makes one operation go wrong: the one after which [`operations`](MemoryDisk::operations) will be `number`.
    pub fn inject(&self, number: u64, fault: Fault) {
        self.lock().faults.insert(number, fault);
    }

    /// From now on one bit (0 to 7) of a byte reads turned over, until the disk is healed or the power is cut. Another
    /// that did so is right again.
    pub fn rot(&self, name: &str, offset: u64, bit: u8) {
        self.lock().rotten = Some((name.to_owned(), offset, bit % 8));
    }

    /// Removes all faults that were injected and did not happen yet, and what rots is right again.
    pub fn heal(&self) {
        self.lock().heal();
    }

    /// From now on all files together have no more than that many bytes, and none is made when they have that many;
    /// `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Whether its size is limited.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.lock().capacity_bytes.is_some()
    }

    /// The bytes that a reader of the file sees; `None` if there is no such file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().files.get(name).map(|file| file.current.clone())
    }

    /// The same, without the room that a log made behind what it wrote.
    #[must_use]
    pub fn written(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = self.file(name)?;
        bytes.truncate(bytes.iter().rposition(|&byte| byte != ROOM).map_or(0, |last| last + 1));
        Some(bytes)
    }

    /// The names of all files, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().files.keys().cloned().collect()
    }

    /// Makes or replaces a file, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let file = MemoryFile { current: bytes.clone(), durable: bytes, unsynced: Vec::new() };
        self.lock().files.insert(name.to_owned(), file);
    }

    /// Turns over one bit (0 to 7) of a byte, durably; nothing happens if there is no such byte.
    pub fn flip(&self, name: &str, offset: usize, bit: u8) {
        if let Some(file) = self.lock().files.get_mut(name) {
            for bytes in [&mut file.current, &mut file.durable] {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
    }

    /// Cuts the power. Each write since the last sync of its file is kept, lost, or kept in part, as `choose` says: it
    /// is given a number and answers with one below it. A gap that a lost write leaves before a kept one reads as
    /// zeros. Faults and the limit are forgotten.
    pub fn crash(&self, choose: &mut dyn FnMut(u64) -> u64) {
        let mut state = self.lock();
        for file in state.files.values_mut() {
            let mut image = std::mem::take(&mut file.durable);
            for write in file.unsynced.drain(..) {
                let length = write.bytes.len() as u64;
                match choose(3) {
                    0 => put_at(&mut image, write.offset, &write.bytes),
                    1 => {}
                    _ => {
                        let from = choose(length + 1) as usize;
                        let to = choose(length + 1) as usize;
                        if from <= to {
                            put_at(&mut image, write.offset + from, &write.bytes[from..to]);
                        } else {
                            put_at(&mut image, write.offset, &write.bytes[..to]);
                        }
                    }
                }
            }
            file.current = image.clone();
            file.durable = image;
        }
        state.heal();
        state.capacity_bytes = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn heal(&mut self) {
        self.faults.clear();
        self.rotten = None;
    }

    /// Counts an operation and says what goes wrong with it.
    fn begin(&mut self) -> Option<Fault> {
        self.operations += 1;
        let number = self.operations;
        self.faults.remove(&number)
    }

    /// How many bytes the files may still grow by, together.
    fn room(&self) -> u64 {
        let used: u64 = self.files.values().map(|file| file.current.len() as u64).sum();
        self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(used))
    }

    fn file(&mut self, name: &str) -> io::Result<&mut MemoryFile> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn list(&mut self) -> io::Result<Vec<FileEntry>> {
        let mut state = self.lock();
        if matches!(state.begin(), Some(Fault::Error | Fault::ErrorAfter)) {
            return Err(broken());
        }
        let entry =
            |(name, file): (&String, &MemoryFile)| FileEntry { name: name.clone(), bytes: file.current.len() as u64 };
        Ok(state.files.iter().map(entry).collect())
    }

    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let fault = state.begin();
        let current = &state.file(name)?.current;
        let left = current.get(offset as usize..).unwrap_or_default();
        let mut count = left.len().min(buffer.len());
        match fault {
            Some(Fault::Error | Fault::ErrorAfter) => return Err(broken()),
            Some(Fault::Short) => count = count.div_ceil(2),
            None => {}
        }
        buffer[..count].copy_from_slice(&left[..count]);
        if let Some((file, at, bit)) = &state.rotten
            && file == name
            && let Some(byte) = at.checked_sub(offset).and_then(|at| buffer[..count].get_mut(at as usize))
        {
            *byte ^= 1 << bit;
        }
        Ok(count)
    }

    fn bytes(&mut self, name: &str) -> io::Result<u64> {
        let mut state = self.lock();
        if matches!(state.begin(), Some(Fault::Error | Fault::ErrorAfter)) {
            return Err(broken());
        }
        state.file(name).map(|file| file.current.len() as u64)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.begin();
        if fault == Some(Fault::Error) {
            return Err(broken());
        }
        if state.room() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.insert(name.to_owned(), MemoryFile::default());
        end(fault)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let fault = state.begin();
        let room = state.room();
        let file = state.file(name)?;
        let grows_at = (file.current.len() as u64).saturating_sub(offset);
        let mut count = (bytes.len() as u64).min(grows_at.saturating_add(room)) as usize;
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match fault {
            Some(Fault::Error) => return Err(broken()),
            Some(Fault::Short | Fault::ErrorAfter) => count = count.div_ceil(2),
            None => {}
        }
        put_at(&mut file.current, offset as usize, &bytes[..count]);
        file.unsynced.push(Write { offset: offset as usize, bytes: bytes[..count].to_vec() });
        end(fault).map(|()| count)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.begin();
        if fault == Some(Fault::Error) {
            return Err(broken());
        }
        let file = state.file(name)?;
        for write in file.unsynced.drain(..) {
            put_at(&mut file.durable, write.offset, &write.bytes);
        }
        state.syncs += 1;
        end(fault)
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.begin();
        if fault == Some(Fault::Error) {
            return Err(broken());
        }
        let file = state.file(name)?;
        file.current.truncate(bytes as usize);
        file.durable.clone_from(&file.current);
        file.unsynced.clear();
        end(fault)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.begin();
        if fault == Some(Fault::Error) {
            return Err(broken());
        }
        state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        end(fault)
    }

    fn path(&self, name: &str) -> String {
        format!("memory:{name}")
    }
}

fn put_at(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

fn end(fault: Option<Fault>) -> io::Result<()> {
    if fault == Some(Fault::ErrorAfter) { Err(broken()) } else { Ok(()) }
}

fn broken() -> io::Error {
    io::Error::other("the disk is broken")
}
