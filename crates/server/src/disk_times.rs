//! How long the disk takes to make things durable: a disk that counts its syncs by how long they took.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::{Disk, FileEntry};

/// A disk whose syncs are counted.
#[derive(Clone, Debug)]
pub(crate) struct TimedDisk<D> {
    disk: D,
    times: Arc<SyncTimes>,
}

impl<D> TimedDisk<D> {
    pub(crate) fn new(disk: D, times: Arc<SyncTimes>) -> Self {
        Self { disk, times }
    }
}

impl<D: Disk> Disk for TimedDisk<D> {
    fn list(&mut self) -> io::Result<Vec<FileEntry>> {
        self.disk.list()
    }

    fn read_at(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(name, offset, buffer)
    }

    fn bytes(&mut self, name: &str) -> io::Result<u64> {
        self.disk.bytes(name)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.disk.create(name)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write_at(name, offset, bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let begun = Instant::now();
        let synced = self.disk.sync(name);
        self.times.count(begun.elapsed());
        synced
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.disk.truncate(name, bytes)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn link(&mut self, name: &str, to: &Self) -> io::Result<bool> {
        self.disk.link(name, &to.disk)
    }

    fn path(&self, name: &str) -> String {
        self.disk.path(name)
    }
}

/// Syncs by how long they took.
#[derive(Debug)]
pub struct SyncTimes {
    /// As many as [`Self::BOUNDS_US`], and those that took longer.
    buckets: [AtomicU64; 14],
    sum_us: AtomicU64,
    recent_us: AtomicU64,
}

impl Default for SyncTimes {
    fn default() -> Self {
        // Nobody knows yet how quick the disk is: until it has shown it, nobody waits for it on a thread that others need.
        Self { buckets: Default::default(), sum_us: AtomicU64::new(0), recent_us: AtomicU64::new(RECENT_US_FIRST) }
    }
}

/// Of a slow disk.
const RECENT_US_FIRST: u64 = 10_000;

impl SyncTimes {
    /// The longest time of each bucket but the last, in microseconds.
    pub const BOUNDS_US: [u64; 13] =
        [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

    pub(crate) fn count(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = Self::BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        // Two that end at once may count as one: it is an average.
        let recent_us = self.recent_us.load(Ordering::Relaxed);
        self.recent_us.store(recent_us - recent_us / 8 + us / 8, Ordering::Relaxed);
    }

    /// What the last ones took, about, in microseconds; much before the first.
    pub(crate) fn recent_us(&self) -> u64 {
        self.recent_us.load(Ordering::Relaxed)
    }

    /// How many took no longer than each bound, and at last how many there were; and microseconds of all together.
    #[must_use]
    pub fn cumulated(&self) -> (Vec<u64>, u64) {
        let mut sum = 0;
        let cumulated = self.buckets.iter().map(|bucket| {
            sum += bucket.load(Ordering::Relaxed);
            sum
        });
        (cumulated.collect(), self.sum_us.load(Ordering::Relaxed))
    }
}

/// The size of a shard's log, as of its last step.
#[derive(Debug, Default)]
pub struct LogSize {
    bytes: AtomicU64,
    live_bytes: AtomicU64,
}

impl LogSize {
    pub(crate) fn note(&self, bytes: u64, live_bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.live_bytes.store(live_bytes, Ordering::Relaxed);
    }

    /// All of it, and about what of it lives, in bytes.
    #[must_use]
    pub fn view(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.live_bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_by_how_long_they_took() {
        let times = SyncTimes::default();
        for us in [0, 100, 101, 1_000, 9_000_000] {
            times.count(Duration::from_micros(us));
        }
        let (cumulated, sum_us) = times.cumulated();
        assert_eq!(cumulated, [2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5]);
        assert_eq!(sum_us, 9_001_201);
    }
}
