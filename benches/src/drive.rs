//! A disk in memory that costs next to nothing, so that what is counted is the log and not the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Disk, FileEntry};

/// See the module. Everything is durable at once, nothing ever fails. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drive(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Drive {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        self.files().get_mut(name).map(work).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Drive {
    fn list(&mut self) -> io::Result<Vec<FileEntry>> {
        let entry = |(name, file): (&String, &Vec<u8>)| FileEntry { name: name.clone(), bytes: file.len() as u64 };
        Ok(self.files().iter().map(entry).collect())
    }

    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(name, |file| {
            let left = file.get(offset as usize..).unwrap_or_default();
            let count = left.len().min(buffer.len());
            buffer[..count].copy_from_slice(&left[..count]);
            count
        })
    }

    fn bytes(&mut self, name: &str) -> io::Result<u64> {
        self.with(name, |file| file.len() as u64)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        // Room that is not touched is not there.
        self.files().insert(name.to_owned(), Vec::with_capacity(FILE_BYTES));
        Ok(())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.with(name, |file| {
            let offset = offset as usize;
            if file.len() < offset {
                file.resize(offset, 0);
            }
            let over = (file.len() - offset).min(bytes.len());
            file[offset..offset + over].copy_from_slice(&bytes[..over]);
            file.extend_from_slice(&bytes[over..]);
            bytes.len()
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.with(name, |_| ())
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.with(name, |file| file.truncate(bytes as usize))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn path(&self, name: &str) -> String {
        format!("memory:{name}")
    }
}

/// A whole segment of the log and more.
const FILE_BYTES: usize = 80 << 20;
