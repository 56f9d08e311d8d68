//! A file that takes messages with a sync after each batch, and one that takes them with a sync at the end.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::figures::rate;
use super::super::outcome::{Outcome, Unit};

/// How many times a second `at_once` messages of 1 KiB can be written and synced, one batch after another.
pub(super) fn measure_syncs(dir: &Path, at_once: u32, seconds: u32, outcome: &mut Outcome) -> Result<()> {
    let scratch = Scratch::new(dir)?;
    let batch = vec![0x5A; at_once as usize * MESSAGE_BYTES];
    let (began, mut syncs) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds.into()) {
        let at = syncs * batch.len() as u64 % (FILE_BYTES - batch.len() as u64);
        scratch.file.write_all_at(&batch, at)?;
        scratch.file.sync_data()?;
        syncs += 1;
    }
    let time = began.elapsed();
    let (key, name) = (format!("sync_{at_once}_per_s"), format!("syncs of {at_once} × 1 KiB"));
    outcome.add(&key, &name, rate(syncs, time), Unit::PerSecond);
    let (key, name) = (format!("sync_{at_once}_messages_per_s"), "  messages that makes".to_owned());
    outcome.add(&key, &name, rate(syncs * u64::from(at_once), time), Unit::PerSecond);
    Ok(())
}

/// How many octets a second can be written, for about so long, a sync at the end included.
pub(super) fn measure_bandwidth(dir: &Path, seconds: u32, outcome: &mut Outcome) -> Result<()> {
    let scratch = Scratch::new(dir)?;
    let piece = vec![0x5A; 1 << 20];
    let (began, mut written) = (Instant::now(), 0);
    while written < WRITTEN_MAX && began.elapsed() < Duration::from_secs(seconds.into()) {
        scratch.file.write_all_at(&piece, written)?;
        written += piece.len() as u64;
    }
    scratch.file.sync_data()?;
    let bytes = rate(written, began.elapsed());
    outcome.add("disk_bytes_per_s", "disk, written and synced", bytes, Unit::BytesPerSecond);
    Ok(())
}

/// A file of which all room is taken beforehand; removed when dropped.
pub(super) struct Scratch {
    file: fs::File,
    path: PathBuf,
}

impl Scratch {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let path = dir.join(format!("leveret-bench-{}-disk", std::process::id()));
        let file =
            fs::File::create(&path).with_context(|| format!("no file to measure the disk with: {}", path.display()))?;
        let scratch = Self { file, path };
        // A log that is written round and round finds its room taken: the limit is not to find any.
        let piece = vec![0; 1 << 20];
        for number in 0..FILE_BYTES / piece.len() as u64 {
            scratch.file.write_all_at(&piece, number * piece.len() as u64)?;
        }
        scratch.file.sync_all()?;
        Ok(scratch)
    }

    /// Writes one message there, so that it outlives the machine; where the next one goes.
    pub(super) fn write_and_sync(&self, at: u64) -> Result<u64> {
        self.file.write_all_at(&[0x5A; MESSAGE_BYTES], at)?;
        self.file.sync_data()?;
        Ok((at + MESSAGE_BYTES as u64) % (FILE_BYTES - MESSAGE_BYTES as u64))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind at worst, where temporary files are looked for.
        let _left = fs::remove_file(&self.path);
    }
}

/// A body of 1 KiB and what a log says about it.
const MESSAGE_BYTES: usize = 1024 + 64;

const FILE_BYTES: u64 = 64 << 20;

/// The system takes much at once and writes it later: so much is enough to see the disk itself.
const WRITTEN_MAX: u64 = 1 << 30;
